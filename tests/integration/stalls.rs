// SPDX-License-Identifier: GPL-3.0-or-later
//! Guests that do not take what comes for them: what waits is dropped and counted, the host sees no carrier, and
//! with their buffers they come back.
//!
//! The time that a guest is given is short here, so that the tests are; none needs it to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netback::demo::guest::netfront::Netfront;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::toolstack::VifSpec;
use netback::vif::feature::Feature;
use netback_tests::alone::alone;
use netback_tests::raw::{assert_no_violation, drain, linux, reload};
use netback_tests::world::until;
use netback_tests::{World, host};
use tracing::field::{Field, Visit};
use tracing::span;

use crate::hood::{flood, neighbourhood_with, reach};

/// A guest that has no receive buffers posted, and posts none.
fn without_buffers() -> FrontendOptions {
    FrontendOptions {
        rx_buffers: 0,
        ..linux()
    }
}

fn impatient() -> World {
    World::with(|config| config.limits.stall = Some(Duration::from_millis(50)))
}

fn has_carrier(vif: &VifSpec) -> bool {
    host::has_carrier(&vif.tap())
}

/// How often the vif has stalled.
fn stalls(world: &World, vif: &VifSpec) -> u64 {
    let errors = world.vif_status(vif).unwrap().rx.errors;
    errors.get("stall").copied().unwrap_or_default()
}

fn is_stalled(world: &World, vif: &VifSpec) -> bool {
    let reason = world.vif_status(vif).unwrap().reason;
    reason.is_some_and(|reason| reason.contains("too few receive buffers"))
}

/// Sends to the guest until it has stalled so often.
fn starve(world: &World, vif: &VifSpec, times: u64) {
    until("it has stalled", || {
        flood(vif.guest, 50, 200);
        stalls(world, vif) >= times
    });
    until("the carrier is down", || !has_carrier(vif));
    assert!(is_stalled(world, vif));
}

/// The guest posts so many buffers, and signals.
fn post(netfront: &mut Netfront, buffers: usize) {
    netfront.options_mut().rx_buffers = buffers;
    drain(netfront);
}

/// The kernel drops them, and nobody would tell the guest's operator.
#[test]
fn what_finds_no_room_in_the_tap_is_counted() {
    let world = World::with(|config| config.tap.txqueuelen = 10);
    let (vif, mut netfront) = world.raw(1, without_buffers());
    host::without_waiting(&vif.tap());
    let lost = || world.rx_dropped(&vif, "tap-queue-full");
    // The host has a few things to say by itself (IPv6), and nobody takes them.
    let chatter = lost();
    assert!(chatter < 10, "{chatter}");
    flood(vif.guest, 50, 200);
    until("the queue is full", || lost() >= chatter + 30);
    // The count is of the device, not of the connection.
    let before = lost();
    reload(&mut netfront);
    assert!(lost() >= before);
    world.finish_raw(&vif, netfront);
}

#[test]
fn a_guest_that_takes_nothing_has_no_carrier_until_it_does() {
    let world = impatient();
    let (vif, mut netfront) = world.raw(1, without_buffers());
    starve(&world, &vif, 1);
    assert!(world.rx_dropped(&vif, "stalled") > 0);
    let status = world.vif_status(&vif).unwrap();
    assert_eq!((status.state.as_str(), status.rx.packets), ("connected", 0));
    let table = netback::control::render::table(&world.status());
    assert!(table.contains("rx errors: 1 stall"), "{table}");

    post(&mut netfront, 256);
    until("the carrier is back", || has_carrier(&vif));
    until("nothing ails it", || !is_stalled(&world, &vif));
    reach(&mut netfront, 1);
    assert_eq!(stalls(&world, &vif), 1);
    assert_eq!(world.error(&vif), None);
    world.finish_raw(&vif, netfront);
}

/// A guest with buffers, but too few of them for the frame that waits (XSA-392).
#[test]
fn buffers_one_at_a_time() {
    let world = impatient();
    let options = FrontendOptions {
        rx_buffers: 1,
        ..linux()
    };
    let (vif, mut netfront) = world.raw(1, options);
    hotplug::link::set_mtu(&vif.tap(), 9_000).unwrap();
    until("it has stalled", || {
        flood(1, 3, 8_500);
        stalls(&world, &vif) >= 1
    });
    until("the carrier is down", || !has_carrier(&vif));
    assert!(world.rx_dropped(&vif, "stalled") > 0);
    // One after the other, without taking what may have come into the first.
    let mut posted = 1;
    until("it goes on", || {
        posted += 1;
        netfront.options_mut().rx_buffers = posted;
        netfront.flush();
        !is_stalled(&world, &vif)
    });
    post(&mut netfront, 256);
    let arrived = |netfront: &mut Netfront| {
        let frame = netfront.receive();
        netfront.flush();
        frame.is_some_and(|frame| frame.bytes.len() > 8_500 && frame.slots == 3)
    };
    until("a large frame arrives", || {
        flood(1, 1, 8_500);
        arrived(&mut netfront)
    });
    assert_no_violation(&netfront);
    world.finish_raw(&vif, netfront);
}

/// Each flow has its queue; a guest that takes nothing from any of them comes back when it does from all.
#[test]
fn several_queues_have_one_carrier() {
    let world = World {
        vcpus: 16,
        ..impatient()
    };
    let options = FrontendOptions {
        queues: 4,
        ..without_buffers()
    };
    let (vif, mut netfront) = world.raw(1, options);
    starve(&world, &vif, 1);
    post(&mut netfront, 256);
    until("nothing ails it", || !is_stalled(&world, &vif));
    until("the carrier is back", || has_carrier(&vif));
    reach(&mut netfront, 1);
    world.finish_raw(&vif, netfront);
}

/// Of a frontend that does not say when it posts buffers nothing can be expected: it is not waited for, and keeps
/// its carrier. That it has posted some is noticed without a signal.
#[test]
fn a_guest_that_does_not_signal_never_stalls() {
    let world = impatient();
    let options = FrontendOptions {
        rx_notify: false,
        ..without_buffers()
    };
    let (vif, mut netfront) = world.raw(1, options);
    until("what waits is dropped", || {
        flood(1, 3, 200);
        world.rx_dropped(&vif, "no-buffers") >= 5
    });
    assert!(
        !world
            .vif_status(&vif)
            .unwrap()
            .features
            .has(Feature::RxNotify)
    );
    assert_eq!((stalls(&world, &vif), has_carrier(&vif)), (0, true));
    assert_eq!(world.rx_dropped(&vif, "stalled"), 0);
    post(&mut netfront, 256);
    reach(&mut netfront, 1);
    world.finish_raw(&vif, netfront);
}

#[test]
fn a_stalled_guest_reconnects_with_a_carrier() {
    let mut world = impatient();
    let (vif, mut netfront) = world.raw(1, without_buffers());
    starve(&world, &vif, 1);
    netfront.options_mut().rx_buffers = 256;
    reload(&mut netfront);
    until("the carrier is back", || has_carrier(&vif));
    assert!(!is_stalled(&world, &vif));
    reach(&mut netfront, 1);

    // And so it is with a daemon that finds it stalled.
    netfront.options_mut().rx_buffers = 0;
    starve(&world, &vif, 2);
    world.restart_daemon();
    // It gives the guest a chance: without a carrier nothing would come for it, and it could not stall.
    starve(&world, &vif, 1);
    post(&mut netfront, 256);
    until("the carrier is back", || has_carrier(&vif));
    reach(&mut netfront, 1);
    world.finish_raw(&vif, netfront);
}

/// A guest whose vif goes while it is stalled leaves nothing behind.
#[test]
fn a_stalled_guest_is_taken_away() {
    let world = impatient();
    for round in 0..3 {
        let (vif, netfront) = world.raw(1, without_buffers());
        starve(&world, &vif, 1);
        world.force_away(&vif, netfront);
        until("the tap is gone", || world.interfaces().is_empty());
        assert!(world.machine.daemon_runs(), "round {round}");
        world.machine.destroy_domain(1).unwrap();
    }
    world.finish_empty();
}

/// Counts the lines that a log would have.
#[derive(Debug, Clone, Default)]
struct LineCount(Arc<AtomicU64>);

impl tracing::Subscriber for LineCount {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut OfVif1(&self.0));
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Counts an event that is about the vif of domain 1.
struct OfVif1<'a>(&'a AtomicU64);

impl Visit for OfVif1<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "vif" && format!("{value:?}") == "vif1.0" {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A guest that stalls and comes back all the time harms no neighbour and does not fill the log.
#[test]
fn flapping() {
    alone("stalls::flapping", || {
        let lines = LineCount::default();
        tracing::subscriber::set_global_default(lines.clone()).unwrap();
        let started = Instant::now();
        let hood = neighbourhood_with(|config| {
            config.limits.stall = Some(Duration::from_millis(5));
        });
        let options = FrontendOptions {
            rx_buffers: 1,
            ..linux()
        };
        let (vif, mut netfront) = hood.world.raw(1, options);
        let rounds = 40;
        for round in 1..=rounds {
            until("it stalls", || {
                flood(1, 3, 200);
                stalls(&hood.world, &vif) >= round
            });
            // What has come into the one buffer is taken, and the buffer posted again.
            post(&mut netfront, 1);
        }
        hood.assert_unharmed();
        // Ten at once, and one more every ten seconds; two for each round otherwise.
        let most = 10 + 1 + started.elapsed().as_secs() / 10;
        let written = lines.0.load(Ordering::Relaxed);
        assert!((5..=most).contains(&written), "{written} of {most} lines");
        assert!(2 * rounds > most, "the test says nothing");
        hood.finish_raw(&vif, netfront);
    });
}
