// SPDX-License-Identifier: GPL-3.0-or-later
//! Daemons and stores that go and come back. The guest and its connections must not notice.

use std::io::{Read, Write};
use std::time::Duration;

use netback::control::model::XenstoreStatus;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::guest::services::ECHO_PORT;
use netback::demo::probe;
use netback::demo::toolstack::VifSpec;
use netback::demo::{guest::netfront::Phase, pattern};
use netback_tests::raw::linux;
use netback_tests::world::{PATIENCE, guest_ip, until};
use netback_tests::{TestGuest, World, host};
use xenbus::wire::Kind;
use xenbus::{ErrorCode, XenbusState, Xs};

#[test]
fn a_connection_outlives_the_daemon() {
    let mut world = World::new();
    let guest = world.guest(1, linux());
    let tap = hotplug::link::index("vif1.0").unwrap();
    let mut stream = probe::connect(guest_ip(1), ECHO_PORT).unwrap();
    let mut echo = move |round: u64| {
        let mut sent = vec![0; 30_000];
        pattern::fill(round, &mut sent);
        stream.write_all(&sent).unwrap();
        let mut back = vec![0; sent.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(sent, back);
    };
    for round in 0..5 {
        echo(round);
        world.restart_daemon();
        assert_eq!(world.backend_state(&guest.vif).as_deref(), Some("4"));
        assert_eq!(hotplug::link::index("vif1.0").unwrap(), tap, "the same tap");
    }
    echo(99);
    assert_eq!(guest.phase(), Phase::Connected);
    world.wait_status(&guest.vif, "connected");
    guest.exercise();
    guest.assert_no_violation();
    world.finish(guest);
}

#[test]
fn transfers_go_on_through_restarts() {
    let mut world = World::new();
    let guest = world.guest(
        1,
        FrontendOptions {
            start_index: u32::MAX - 5_000,
            ..linux()
        },
    );
    let transfers = guest.start_tcp(64 << 20);
    // Not without end: each costs TCP what was in the tap, and it backs off.
    for _ in 0..6 {
        assert!(
            !transfers.are_over(),
            "the transfers were over before anything could happen to them"
        );
        world.restart_daemon();
        std::thread::sleep(Duration::from_millis(50));
    }
    transfers.finish();
    guest.assert_no_violation();
}

#[test]
fn a_guest_that_waits_is_served_by_the_next_daemon() {
    let mut world = World::new();
    let vif = world.create(1);
    world.wait_init(&vif);
    world.restart_daemon();
    world.run_script(&vif);
    world.restart_daemon();
    let guest = world.boot_connected(vif, linux());
    guest.exercise();
}

#[test]
fn a_daemon_that_starts_late() {
    let mut world = World::without_daemon(|_| {});
    let vif = world.create(1);
    let guest = world.boot(vif, 1500, linux());
    world.machine.start_daemon().unwrap();
    world.wait_tap(&guest.vif);
    world.run_script(&guest.vif);
    guest.wait_connected();
    guest.exercise();
}

/// The guest closes while nobody is there to answer.
#[test]
fn a_guest_that_leaves_while_the_daemon_is_away() {
    let mut world = World::new();
    let guest = world.guest(1, linux());
    guest.ping();
    world.machine.stop_daemon().unwrap();
    world.toolstack().begin_detach(&guest.vif).unwrap();
    guest.wait_closed();
    world.machine.start_daemon().unwrap();
    world
        .toolstack()
        .wait_state(&guest.vif, xenbus::XenbusState::Closed, PATIENCE)
        .unwrap();
    world.toolstack().remove_vif(&guest.vif).unwrap();
    guest.stop().unwrap();
    world.finish_empty();
}

/// A guest that seems to be connected has a carrier with the next daemon; one that turns out not to be loses it, so that its
/// bridge does not queue frames that nobody will read.
#[test]
fn a_guest_that_is_not_there_any_more_has_no_carrier() {
    let mut world = World::new();
    let (gone, mut netfront) = world.raw(1, linux());
    let (waits, other) = world.raw(2, linux());
    let has_carrier = |vif: &VifSpec| host::has_carrier(&vif.tap());
    until("both have a carrier", || {
        has_carrier(&gone) && has_carrier(&waits)
    });
    world.machine.stop_daemon().unwrap();
    netfront.vanish();
    other.store().set_state(XenbusState::Closing).unwrap();
    world.machine.start_daemon().unwrap();
    world.wait_status(&gone, "failed");
    world.wait_status(&waits, "closing");
    assert!(!has_carrier(&gone) && !has_carrier(&waits));
    world.force_away(&gone, netfront);
    world.finish_raw(&waits, other);
}

/// A whole new device takes the place of one that went while nobody looked.
#[test]
fn a_device_made_anew_while_the_daemon_is_away() {
    let mut world = World::new();
    let guest = world.guest(1, linux());
    guest.ping();
    world.machine.stop_daemon().unwrap();
    let vif = world.make_anew(guest);
    world.machine.start_daemon().unwrap();
    world.plug(&vif);
    let guest = world.boot_connected(vif, linux());
    guest.exercise();
    world.finish(guest);
}

/// The store drops all connections and takes no new ones.
fn lose_the_store(world: &World) {
    world.machine.xenstored().refuse(true).unwrap();
    drop_connections(world);
}

fn drop_connections(world: &World) {
    world.machine.xenstored().drop_connections().unwrap();
    until("the loss is seen", || {
        world.status().xenstore == XenstoreStatus::Reconnecting
    });
}

fn reconnect_guest(world: &World, guest: &TestGuest) {
    let client = world.machine.xenstored().client(guest.vif.guest).unwrap();
    guest
        .with(move |netfront| netfront.store_mut().resume(client))
        .unwrap();
}

#[test]
fn traffic_goes_on_without_the_store() {
    let mut world = World::new();
    let guest = world.guest(1, linux());
    guest.exercise();
    lose_the_store(&world);
    guest.exercise();

    world.machine.xenstored().refuse(false).unwrap();
    until("the store is back", || {
        world.status().xenstore == XenstoreStatus::Connected
    });
    world.machine.reconnect_toolstack().unwrap();
    reconnect_guest(&world, &guest);
    guest.exercise();
    assert_eq!(world.vif_status(&guest.vif).unwrap().state, "connected");

    let other = world.guest(2, linux());
    other.exercise();
    for guest in [guest, other] {
        guest.assert_well_served();
        world.remove(guest);
    }
    world.finish_empty();
}

/// A store that hangs takes connections, and answers nothing. The thread that waits for it is also the one that tells
/// the status, heeds signals and watches over scripts.
#[test]
fn a_store_that_hangs_keeps_the_daemon_from_nothing() {
    let mut world = World::new();
    let guest = world.guest(1, linux());
    world.machine.xenstored().hang(true).unwrap();
    drop_connections(&world);
    let mut told = 0;
    until("the status is told time and again", || {
        // Long enough for an attempt to begin in the meantime.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(world.status().xenstore, XenstoreStatus::Reconnecting);
        told += 1;
        told == 4
    });
    guest.exercise();
    world.machine.xenstored().hang(false).unwrap();
    until("the store is back", || {
        world.status().xenstore == XenstoreStatus::Connected
    });
    world.machine.reconnect_toolstack().unwrap();
    reconnect_guest(&world, &guest);
    world.finish(guest);
}

/// What changed while the store was away is found when it is back.
#[test]
fn changes_missed_without_the_store_are_made_up_for() {
    let mut world = World::new();
    let staying = world.guest(1, linux());
    let leaving = world.guest(2, linux());
    lose_the_store(&world);
    // In the store itself, past all connections.
    let (frontend, backend) = (leaving.vif.frontend_dir(), leaving.vif.backend_dir());
    world
        .machine
        .xenstored()
        .with(move |store| {
            store.rm(&frontend);
            store.rm(&backend);
        })
        .unwrap();
    world.machine.xenstored().refuse(false).unwrap();
    until("the tap of the removed vif is gone", || {
        world.interfaces().len() == 1
    });
    assert!(world.interfaces().contains(&staying.vif.tap()));
    leaving.stop().unwrap();
    world.machine.reconnect_toolstack().unwrap();
    reconnect_guest(&world, &staying);
    staying.exercise();
    world.remove(staying);
    world.toolstack().remove_vif(&VifSpec::new(2, "")).unwrap();
    world.finish_empty();
}

#[test]
fn an_mtu_that_changes_without_the_store_is_told_when_it_is_back() {
    let mut world = World::new();
    let guest = world.guest_with_mtu(1, 9_000, linux());
    lose_the_store(&world);
    hotplug::link::set_mtu(&guest.vif.tap(), 1_500).unwrap();
    until("the daemon has seen it", || {
        world.vif_status(&guest.vif).unwrap().mtu == Some(1_500)
    });
    world.machine.xenstored().refuse(false).unwrap();
    world.machine.reconnect_toolstack().unwrap();
    let node = format!("{}/mtu", guest.vif.frontend_dir());
    until("the guest is told", || {
        world.toolstack().read(&node).unwrap().as_deref() == Some("1500")
    });
    reconnect_guest(&world, &guest);
    world.finish(guest);
}

#[test]
fn an_mtu_that_changes_without_a_daemon_is_told_by_the_next() {
    let mut world = World::new();
    let guest = world.guest_with_mtu(1, 9_000, linux());
    let told = |world: &World| {
        let node = format!("{}/mtu", guest.vif.frontend_dir());
        world.toolstack().read(&node).unwrap()
    };
    assert_eq!(told(&world).as_deref(), Some("9000"));
    world.machine.stop_daemon().unwrap();
    hotplug::link::set_mtu(&guest.vif.tap(), 1_500).unwrap();
    world.machine.start_daemon().unwrap();
    until("the guest is told", || {
        told(&world).as_deref() == Some("1500")
    });
    guest.exercise();
    world.finish(guest);
}

/// It waits for the toolstack to remove it, and nobody else would remove its tap.
#[test]
fn the_tap_of_a_device_that_is_over_is_removed() {
    let mut world = World::new();
    let vif = world.attach(1);
    world.machine.stop_daemon().unwrap();
    for (key, value) in [("state", "6"), ("online", "0")] {
        let node = format!("{}/{key}", vif.backend_dir());
        world.toolstack().store().write(&node, value).unwrap();
    }
    world.machine.start_daemon().unwrap();
    until("the tap is gone", || world.interfaces().is_empty());
    world.toolstack().remove_vif(&vif).unwrap();
    world.finish_empty();
}

/// Nobody else would remove it, and a driver domain has room for so many nodes only.
#[test]
fn the_error_of_a_device_that_went_while_no_daemon_ran_is_removed() {
    let mut world = World::new();
    let wrong = |vif: &mut VifSpec| vif.script = Some("/nonexistent".to_owned());
    let (gone, there) = (world.create_as(1, wrong), world.create_as(2, wrong));
    let _ = (world.wait_error(&gone), world.wait_error(&there));
    world.machine.stop_daemon().unwrap();
    world.toolstack().remove_vif(&gone).unwrap();
    assert!(world.error(&gone).is_some());
    world.machine.start_daemon().unwrap();
    until("its error is gone", || world.error(&gone).is_none());
    let _ = world.wait_error(&there);
    world.toolstack().remove_vif(&there).unwrap();
    until("its error is gone", || world.error(&there).is_none());
    world.finish_empty();
}

/// The node has the truth, and `netback status` is where an operator looks.
#[test]
fn the_next_daemon_tells_why_a_vif_had_failed() {
    let mut world = World::new();
    let (vif, mut netfront) = world.raw(1, linux());
    netfront.rx_queue().unwrap().ring().lie_req_prod(4_711);
    netfront.kick();
    let error = world.wait_error(&vif);
    assert!(error.contains("4711"), "{error}");
    netfront.close(PATIENCE).unwrap();
    world.restart_daemon();
    let reason = || world.vif_status(&vif).unwrap().reason;
    assert_eq!(
        (reason(), world.error(&vif)),
        (Some(error.clone()), Some(error))
    );
    // A driver that starts anew is forgiven.
    netfront.open(PATIENCE).unwrap();
    world.wait_forgiven(&vif);
    until("nothing ails it", || reason().is_none());
    world.finish_raw(&vif, netfront);
}

/// As in a driver domain whose quota is used up: a frontend reads the features when it sees InitWait, and never again.
#[test]
fn features_that_the_store_refuses_are_written_before_init_wait() {
    let mut world = World::new();
    let vif = refused_at_first(&mut world, (Kind::Write, ErrorCode::NoSpc), 0);
    assert_eq!(world.backend_state(&vif).as_deref(), Some("1"));
    let tap = hotplug::link::index(&vif.tap()).unwrap();
    world.wait_init(&vif);
    assert_eq!(
        hotplug::link::index(&vif.tap()).unwrap(),
        tap,
        "the same tap"
    );
    let offered = format!("{}/feature-rx-copy", vif.backend_dir());
    assert_eq!(
        world.toolstack().read(&offered).unwrap().as_deref(),
        Some("1")
    );
    connects_and_goes(world, vif);
}

/// It is as if it had not been found, until it is looked at again: the watch's first event sees to that here.
#[test]
fn a_device_that_cannot_be_read_is_not_taken_up_by_halves() {
    let mut world = World::new();
    world.machine.stop_daemon().unwrap();
    let vif = world.create(1);
    let refusal = (Kind::Read, ErrorCode::Io);
    let xenstored = world.machine.xenstored();
    xenstored
        .with(move |store| {
            // The daemon's own number, and six nodes that tell what the device is.
            store.faults.skip = 7;
            store.faults.refusals.push_back(refusal);
        })
        .unwrap();
    world.machine.start_daemon().unwrap();
    world.plug(&vif);
    let status = world.vif_status(&vif).unwrap();
    assert_eq!(status.script.as_deref(), Some("/bin/true"));
    let guest = world.boot_connected(vif, linux());
    world.finish(guest);
}

/// The daemon's first watch is that on all devices.
#[test]
fn a_watch_that_the_store_refuses_is_asked_for_again() {
    let mut world = World::new();
    let vif = refused_at_first(&mut world, (Kind::Watch, ErrorCode::TooBig), 1);
    connects_and_goes(world, vif);
}

/// A vif for which a new daemon's request of this kind is refused, after so many others; its status says so.
fn refused_at_first(world: &mut World, refusal: (Kind, ErrorCode), skip: u32) -> VifSpec {
    world.machine.stop_daemon().unwrap();
    let vif = world.create(1);
    let xenstored = world.machine.xenstored();
    xenstored
        .with(move |store| {
            store.faults.skip = skip;
            store.faults.refusals.push_back(refusal);
        })
        .unwrap();
    world.machine.start_daemon().unwrap();
    until("its status says so", || {
        let reason = world.vif_status(&vif).and_then(|status| status.reason);
        reason.is_some_and(|reason| reason.contains("xenstored refuses"))
    });
    vif
}

fn connects_and_goes(world: World, vif: VifSpec) {
    world.run_script(&vif);
    let guest = world.boot_connected(vif, linux());
    until("nothing is refused any more", || {
        world.vif_status(&guest.vif).unwrap().reason.is_none()
    });
    guest.exercise();
    world.finish(guest);
}

/// Before it knows which devices there are, a daemon must not take taps for left over.
#[test]
fn a_scan_that_fails_costs_no_tap() {
    let mut world = World::new();
    let guest = world.guest(1, linux());
    let tap = hotplug::link::index("vif1.0").unwrap();
    world.machine.stop_daemon().unwrap();
    let refusal = (Kind::Directory, ErrorCode::Io);
    let xenstored = world.machine.xenstored();
    xenstored
        .with(move |store| store.faults.refusals.push_back(refusal))
        .unwrap();
    world.machine.start_daemon().unwrap();
    world.wait_status(&guest.vif, "connected");
    assert_eq!(hotplug::link::index("vif1.0").unwrap(), tap, "the same tap");
    guest.exercise();
    world.finish(guest);
}
