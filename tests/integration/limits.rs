// SPDX-License-Identifier: GPL-3.0-or-later
//! Limits: what is beyond the rate waits, nothing is lost, and a change takes effect in the midst of traffic.
//!
//! The clock can only be too slow for these tests, and they say how much may have passed at most, or at least.

use std::time::{Duration, Instant};

use netback::demo::guest::checksum::Checksum;
use netback::demo::guest::netfront::Netfront;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::toolstack::VifSpec;
use netback::vif::Rate;
use netback_tests::World;
use netback_tests::raw::{assert_no_violation, drain, linux, reload};
use netback_tests::world::until;
use xenbus::Xs;

use crate::hood::{flood, neighbourhood, reach};

/// Bytes that pass at once whatever the rate is.
const BURST: u64 = 131_072;
/// A byte per second: beyond the burst, next to nothing passes while a test lasts.
const CRAWL: &str = "1,1000000";

fn with_rate(rate: &str) -> impl FnOnce(&mut VifSpec) {
    let rate = rate.to_owned();
    move |vif| vif.extra.push(("rate".to_owned(), rate))
}

fn write_rate(world: &World, vif: &VifSpec, rate: &str) {
    let node = format!("{}/rate", vif.backend_dir());
    world.toolstack().store().write(&node, rate).unwrap();
}

fn remove_rate(world: &World, vif: &VifSpec) {
    let node = format!("{}/rate", vif.backend_dir());
    world.toolstack().store().rm(&node).unwrap();
}

/// The limit that `netback status` shows, in Mbit/s: of what the guest transmits.
fn shown(world: &World, vif: &VifSpec) -> Option<f64> {
    world.vif_status(vif).unwrap().tx.limit_mbit_per_second
}

/// Publishes so many frames of 1000 bytes.
fn send(netfront: &mut Netfront, frames: u64) {
    for _ in 0..frames {
        netfront.send(&[0xff; 1_000], Checksum::Complete).unwrap();
    }
    netfront.flush();
}

fn kick_for_a_while(netfront: &mut Netfront) {
    for _ in 0..50 {
        netfront.kick();
        netfront.flush();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until so many frames have been answered, all well.
fn wait_answered(netfront: &mut Netfront, frames: u64) {
    until("frames are taken from the ring", || {
        netfront.flush();
        netfront.stats().tx_okay >= frames
    });
    let stats = netfront.stats();
    assert_eq!((stats.tx_error, stats.tx_dropped), (0, 0), "{stats:?}");
    assert_no_violation(netfront);
}

/// Waits until so many frames have gone out, no more: the guest has its answers before.
fn wait_delivered(world: &World, vif: &VifSpec, frames: u64) {
    until("frames are delivered", || {
        world.vif_status(vif).unwrap().tx.packets == frames
    });
}

/// A connected frontend whose vif has a rate from the beginning.
fn raw_with_rate(world: &World, dom: u16, rate: &str) -> (VifSpec, Netfront) {
    let vif = world.create_as(dom, with_rate(rate));
    world.plug(&vif);
    let netfront = world.connect(&vif, linux());
    (vif, netfront)
}

/// The host has nothing to say by itself: what comes through a tap makes a worker look at its vif.
fn without_chatter() {
    for scope in ["all", "default"] {
        let setting = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
        match std::fs::write(setting, "1") {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
}

#[test]
fn what_is_beyond_the_rate_waits_in_the_ring() {
    let world = World::new();
    without_chatter();
    let (vif, mut netfront) = raw_with_rate(&world, 1, CRAWL);
    send(&mut netfront, 250);
    let at_once = BURST.div_ceil(1_000);
    wait_answered(&mut netfront, at_once);
    // Signals change nothing about it.
    kick_for_a_while(&mut netfront);
    let taken = netfront.stats().tx_okay;
    assert!((at_once..=at_once + 1).contains(&taken), "{taken}");
    let status = world.vif_status(&vif).unwrap();
    assert!(status.tx.drops.is_empty(), "{status:?}");
    wait_delivered(&world, &vif, taken);

    // A rate that is lifted lets go of them all, and nobody had to signal.
    remove_rate(&world, &vif);
    wait_answered(&mut netfront, 250);
    wait_delivered(&world, &vif, 250);
    world.finish_raw(&vif, netfront);
}

/// The rate is the vif's, and a change of it reaches every queue.
#[test]
fn one_rate_for_all_queues() {
    let world = World::smp();
    let vif = world.create_as(1, with_rate(CRAWL));
    world.plug(&vif);
    let options = FrontendOptions {
        queues: 4,
        ..linux()
    };
    let mut netfront = world.connect(&vif, options);
    for queue in 0..4 {
        for _ in 0..100 {
            netfront
                .send_on(queue, &[0xff; 1_000], Checksum::Complete)
                .unwrap();
        }
    }
    netfront.flush();
    let at_once = BURST.div_ceil(1_000);
    wait_answered(&mut netfront, at_once);
    kick_for_a_while(&mut netfront);
    // Queues that look at the same moment see the same credit, for a frame each.
    let taken = netfront.stats().tx_okay;
    assert!((at_once..=at_once + 4).contains(&taken), "{taken}");
    remove_rate(&world, &vif);
    wait_answered(&mut netfront, 400);
    wait_delivered(&world, &vif, 400);
    let status = world.vif_status(&vif).unwrap();
    let by_queue: Vec<_> = status.by_queue.iter().map(|q| q.tx.packets).collect();
    assert_eq!(by_queue, [100; 4]);
    world.finish_raw(&vif, netfront);
}

#[test]
fn a_limited_guest_still_receives() {
    let world = World::new();
    let (vif, mut netfront) = raw_with_rate(&world, 1, CRAWL);
    send(&mut netfront, 250);
    wait_answered(&mut netfront, BURST.div_ceil(1_000));
    reach(&mut netfront, 1);
    flood(1, 300, 200);
    until("frames arrive", || drain(&mut netfront) > 300);
    world.finish_raw(&vif, netfront);
}

/// No event comes to a worker whose guest waits: it has to wake by itself, again and again.
#[test]
fn the_rate_is_kept_over_time() {
    let world = World::new();
    // 1 MB/s.
    let (vif, mut netfront) = raw_with_rate(&world, 1, "50000,50000");
    let started = Instant::now();
    send(&mut netfront, 250);
    wait_answered(&mut netfront, 250);
    send(&mut netfront, 250);
    wait_answered(&mut netfront, 500);
    // 500 kB less a burst and a frame take 367 ms at least.
    assert!(started.elapsed() >= Duration::from_millis(367));
    assert_eq!(world.vif_status(&vif).unwrap().tx.dropped(), 0);
    world.finish_raw(&vif, netfront);
}

#[test]
fn the_guests_own_stack_gets_along_with_a_limit() {
    let world = World::new();
    let vif = world.create_as(1, with_rate("100000,50000"));
    world.plug(&vif);
    let guest = world.boot_connected(vif, linux());
    guest.exercise();
    guest.assert_well_served();
    assert_eq!(world.vif_status(&guest.vif).unwrap().tx.dropped(), 0);
    world.finish(guest);
}

#[test]
fn a_rate_that_changes_is_followed() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, linux());
    assert_eq!(shown(&world, &vif), None);
    for (rate, mbit) in [
        (CRAWL, Some(0.000_008)),
        ("1000000,50000", Some(160.0)),
        ("nonsense", None),
        (CRAWL, Some(0.000_008)),
        ("10485,50000", Some(1.6776)),
    ] {
        write_rate(&world, &vif, rate);
        until(rate, || shown(&world, &vif) == mbit);
    }
    let table = netback::control::render::table(&world.status());
    assert!(table.contains("tx limited to 1.68 Mbit/s"), "{table}");

    // From a crawl to a rate, with packets that wait.
    write_rate(&world, &vif, CRAWL);
    until("it crawls", || shown(&world, &vif) == Some(0.000_008));
    send(&mut netfront, 200);
    write_rate(&world, &vif, "1000000,50000");
    wait_answered(&mut netfront, 200);
    world.finish_raw(&vif, netfront);
}

#[test]
fn a_rate_outlives_a_reconnection_and_a_restart() {
    let mut world = World::new();
    let (vif, mut netfront) = raw_with_rate(&world, 1, "1000000,50000");
    assert_eq!(shown(&world, &vif), Some(160.0));
    reload(&mut netfront);
    assert_eq!(shown(&world, &vif), Some(160.0));
    world.restart_daemon();
    until("the new daemon has it too", || {
        world
            .vif_status(&vif)
            .is_some_and(|status| status.tx.limit_mbit_per_second == Some(160.0))
    });
    send(&mut netfront, 200);
    wait_answered(&mut netfront, 200);
    world.finish_raw(&vif, netfront);
}

/// The node is the toolstack's; whatever it writes there limits nobody by mistake, and harms nobody else.
#[test]
fn a_rate_that_makes_no_sense_is_no_limit() {
    let hood = neighbourhood();
    let (vif, mut netfront) = raw_with_rate(&hood.world, 1, "");
    let long = "9".repeat(2_000);
    let mut sent = 0;
    for nonsense in [
        "",
        ",",
        "0,50000",
        "10485,0",
        "-1,50000",
        "10485,-1",
        "18446744073709551616,1",
        "1,18446744073709551616",
        "0x10,1",
        "\u{1b}[31m,\n",
        &long,
        "1,1,1",
    ] {
        write_rate(&hood.world, &vif, CRAWL);
        until("it crawls", || shown(&hood.world, &vif).is_some());
        send(&mut netfront, 200);
        sent += 200;
        write_rate(&hood.world, &vif, nonsense);
        wait_answered(&mut netfront, sent);
        assert_eq!(shown(&hood.world, &vif), None, "{nonsense:?}");
        assert_eq!(hood.world.error(&vif), None);
    }
    // As large as it gets: taken as it is.
    write_rate(
        &hood.world,
        &vif,
        "18446744073709551615,18446744073709551615",
    );
    until("it is taken", || shown(&hood.world, &vif) == Some(8.0));
    hood.finish_raw(&vif, netfront);
}

#[test]
fn what_a_guest_receives_is_limited_too() {
    let world = World::with(|config| {
        // 1 MB/s.
        config.limits.rate_to_guest = Some(Rate::from_config("1MB/s").unwrap());
    });
    let guest = world.guest(1, linux());
    let status = world.vif_status(&guest.vif).unwrap();
    assert_eq!(status.rx.limit_mbit_per_second, Some(8.0));
    assert_eq!(status.tx.limit_mbit_per_second, None);
    let started = Instant::now();
    guest.tcp(600_000);
    // A burst, and one frame of at most 64 KiB that goes into debt.
    assert!(started.elapsed() >= Duration::from_millis(400));
    world.finish_well(guest);
}

#[test]
fn what_is_beyond_the_rate_to_the_guest_waits_in_the_tap() {
    let world = World::with(|config| {
        config.limits.rate_to_guest = Some(Rate::from_config("8b/s").unwrap());
    });
    let (vif, mut netfront) = world.raw(1, linux());
    let received = |netfront: &mut Netfront| {
        drain(netfront);
        netfront.stats().rx_bytes
    };
    reach(&mut netfront, 1);
    // 1042 bytes each, headers included; fewer than fit in the tap's queue.
    flood(1, 300, 1_000);
    until("a burst arrives", || received(&mut netfront) >= BURST);
    for _ in 0..50 {
        netfront.kick();
        std::thread::sleep(Duration::from_millis(1));
        // The last frame went into debt, and a byte comes in each second.
        let bytes = received(&mut netfront);
        assert!(bytes < BURST + 1_042 + 60, "{bytes}");
    }
    assert!(world.vif_status(&vif).unwrap().rx.drops.is_empty());
    world.finish_raw(&vif, netfront);
}
