// SPDX-License-Identifier: GPL-3.0-or-later
//! Taps that are kept open while there is no daemon: the host sees nothing of it, and what it sends waits.

use std::collections::BTreeSet;
use std::net::UdpSocket;

use netback::demo::guest::services::ECHO_PORT;
use netback_tests::raw::linux;
use netback_tests::world::{PATIENCE, guest_ip, until};
use netback_tests::{World, host};
use xenbus::Xs;

use crate::link::carrier_changes;
use crate::queues;

/// With two queues of a vif, of which one is kept.
const DATAGRAMS: u8 = 40;

fn world() -> World {
    let mut world = World::without_daemon(|_| {});
    world.vcpus = 16;
    world.machine.keep_taps();
    world.machine.start_daemon().unwrap();
    world
}

#[test]
fn the_carrier_stays_and_nothing_is_lost() {
    for queues in [1, 2] {
        let mut world = world();
        let guest = world.guest(1, queues::linux(queues));
        guest.exercise();
        host::add_neighbour(guest_ip(1), "vif1.0");
        let before = carrier_changes(&guest.vif);
        world.machine.stop_daemon().unwrap();
        assert!(host::has_carrier("vif1.0"));
        let senders: Vec<_> = (0..DATAGRAMS).map(|number| send(&[number])).collect();
        world.machine.start_daemon().unwrap();
        // Each of another flow, so that of two queues either would have some.
        for (number, socket) in senders.iter().enumerate() {
            let mut echo = [0; 8];
            assert_eq!(socket.recv(&mut echo).unwrap(), 1);
            assert_eq!(usize::from(echo[0]), number);
        }
        assert_eq!(carrier_changes(&guest.vif), before);
        guest.exercise();
        assert_eq!(world.machine.taps_kept(), 1);
        world.finish_well(guest);
    }
}

fn only(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

/// A datagram to the guest, whose echo comes back to the same socket.
fn send(payload: &[u8]) -> UdpSocket {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(payload, (guest_ip(1), ECHO_PORT)).unwrap();
    socket
}

/// Whoever keeps it has not heard yet that it need not, when the next is made under the same name.
#[test]
fn a_tap_goes_with_its_device_all_the_same() {
    let mut world = world();
    for _ in 0..3 {
        let guest = world.guest(1, linux());
        guest.ping();
        world.detach(&guest.vif);
        until("the tap is gone", || world.interfaces().is_empty());
        guest.stop().unwrap();
    }
    until("it is not kept", || world.machine.taps_kept() == 0);
    world.finish_empty();
}

#[test]
fn the_tap_of_a_device_that_went_meanwhile_is_removed() {
    let mut world = world();
    let (gone, stays) = (world.guest(1, linux()), world.guest(2, linux()));
    assert_eq!(world.machine.taps_kept(), 2);
    world.machine.stop_daemon().unwrap();
    gone.with(|netfront| netfront.vanish());
    world.toolstack().remove_vif(&gone.vif).unwrap();
    gone.stop().unwrap();
    assert_eq!(world.interfaces().len(), 2, "somebody keeps it");
    world.machine.start_daemon().unwrap();
    assert_eq!(world.interfaces(), only("vif2.0"));
    assert_eq!(world.machine.taps_kept(), 1);
    stays.exercise();
    world.finish(stays);
}

/// Nothing in the store tells of that name, by which a tap that is not kept would have to be found.
#[test]
fn a_tap_under_another_name_is_served_on() {
    let mut world = world();
    let guest = world.guest(1, linux());
    host::ip("link set vif1.0 name uplink1");
    guest.exercise();
    world.restart_daemon();
    guest.exercise();
    assert_eq!(world.interfaces(), only("uplink1"));
    world.finish_well(guest);
}

#[test]
fn a_tap_that_was_deleted_meanwhile_was_kept_in_vain() {
    let mut world = world();
    let guest = world.guest(1, linux());
    guest.ping();
    world.machine.stop_daemon().unwrap();
    host::ip("link delete vif1.0");
    world.machine.start_daemon().unwrap();
    assert_eq!(world.interfaces(), only("vif1.0"), "a new one");
    assert_eq!(world.machine.taps_kept(), 1);
    world.run_script(&guest.vif);
    guest.exercise();
    // It is that one which is kept now.
    world.restart_daemon();
    guest.exercise();
    world.finish(guest);
}

/// The device of that path is another one now, of which nothing else is known yet.
#[test]
fn a_device_that_ends_before_it_asks_for_its_tap_leaves_nothing() {
    let mut world = world();
    let guest = world.guest(1, linux());
    guest.ping();
    world.machine.stop_daemon().unwrap();
    let vif = world.make_anew(guest);
    let handle = format!("{}/handle", vif.backend_dir());
    world.toolstack().store().rm(&handle).unwrap();
    world.machine.start_daemon().unwrap();
    world.wait_status(&vif, "await-handle");
    world.toolstack().remove_vif(&vif).unwrap();
    until("the tap is gone", || world.interfaces().is_empty());
    until("it is not kept", || world.machine.taps_kept() == 0);
    world.finish_empty();
}
