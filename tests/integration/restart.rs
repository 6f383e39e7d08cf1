// SPDX-License-Identifier: GPL-3.0-or-later
//! Daemons and stores that go and come back. The guest and its connections must not notice.

use std::io::{Read, Write};
use std::time::Duration;

use netback::control::model::XenstoreStatus;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::guest::services::ECHO_PORT;
use netback::demo::probe;
use netback::demo::{guest::netfront::Phase, pattern};
use netback_tests::raw::linux;
use netback_tests::world::{PATIENCE, guest_ip, until};
use netback_tests::{TestGuest, World};

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

/// A whole new device takes the place of one that went while nobody looked.
#[test]
fn a_device_made_anew_while_the_daemon_is_away() {
    let mut world = World::new();
    let guest = world.guest(1, linux());
    guest.ping();
    world.machine.stop_daemon().unwrap();
    let vif = guest.vif.clone();
    guest.with(|netfront| netfront.vanish());
    guest.stop().unwrap();
    world.toolstack().create_vif(&vif).unwrap();
    world.machine.start_daemon().unwrap();
    world.plug(&vif);
    let guest = world.boot_connected(vif, linux());
    guest.exercise();
    world.finish(guest);
}

/// The store drops all connections and takes no new ones.
fn lose_the_store(world: &World) {
    world.machine.xenstored().refuse(true).unwrap();
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
    world
        .toolstack()
        .remove_vif(&netback::demo::toolstack::VifSpec::new(2, ""))
        .unwrap();
    world.finish_empty();
}

/// Before it knows which devices there are, a daemon must not take taps for left over.
#[test]
fn a_scan_that_fails_costs_no_tap() {
    let mut world = World::new();
    let guest = world.guest(1, linux());
    let tap = hotplug::link::index("vif1.0").unwrap();
    world.machine.stop_daemon().unwrap();
    let refusal = (xenbus::wire::Kind::Directory, xenbus::ErrorCode::Io);
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
