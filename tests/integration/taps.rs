// SPDX-License-Identifier: GPL-3.0-or-later
//! Taps that somebody takes away: the vif says so at once, whatever its state, and says what helps.

use std::sync::mpsc;

use hotplug::{Tap, TapOptions};
use netback_tests::raw::linux;
use netback_tests::world::until;
use netback_tests::{TestGuest, World, host};
use nix::sched::{CloneFlags, unshare};
use xenbus::ErrorCode;
use xenbus::wire::Kind;

use crate::link::wait_carrier;
use crate::queues;

const GONE: &str = "the tap is gone; detach the vif and attach it again";

fn delete_tap() {
    host::ip("link delete vif1.0");
}

#[test]
fn before_the_guest_connects() {
    let world = World::smp();
    let vif = world.attach(1);
    delete_tap();
    world.wait_status(&vif, "dead");
    assert_eq!(world.wait_error(&vif), GONE);
    // The driver that starts now is refused, with the same reason.
    let guest = world.boot(vif, 1500, queues::linux(4));
    guest.wait_closed();
    assert_eq!(world.error(&guest.vif).as_deref(), Some(GONE));
    world.finish(guest);
}

/// Nobody would read it in the log of a driver domain.
#[test]
fn and_the_store_refuses_to_hear_of_it() {
    let world = World::new();
    let vif = world.attach(1);
    // So that its end is all that is to be written about it.
    host::ip("link set vif1.0 down");
    wait_carrier(&world, &vif, "0");
    let refusal = (Kind::Write, ErrorCode::NoSpc);
    let xenstored = world.machine.xenstored();
    xenstored
        .with(move |store| store.faults.refusals.push_back(refusal))
        .unwrap();
    delete_tap();
    // The other node is written all the same.
    assert_eq!(world.wait_error(&vif), GONE);
    let own = format!("{}/error", vif.backend_dir());
    until("it is written again", || {
        world.toolstack().read(&own).unwrap().as_deref() == Some(GONE)
    });
    world.detach(&vif);
    world.finish_empty();
}

#[test]
fn while_the_guest_is_connected() {
    let world = World::smp();
    let guest = world.guest(1, queues::linux(4));
    guest.exercise();
    delete_tap();
    world.wait_status(&guest.vif, "dead");
    assert_eq!(world.wait_error(&guest.vif), GONE);
    world.remove(guest);

    let guest = world.guest(1, linux());
    guest.exercise();
    world.finish(guest);
}

#[test]
fn between_two_drivers() {
    let world = World::new();
    let guest = world.guest(1, linux());
    guest.with(|netfront| netfront.close(netback_tests::world::PATIENCE).unwrap());
    delete_tap();
    world.wait_status(&guest.vif, "dead");
    assert_eq!(world.wait_error(&guest.vif), GONE);
    world.finish(guest);
}

/// The kernel tells nobody here of what happens to a tap elsewhere, so it is seen when the guest connects. It is not for
/// want of room, so no fewer queues are offered.
#[test]
fn with_the_namespace_that_it_was_in() {
    let world = World::smp();
    let vif = world.attach(1);
    let (here, there) = (mpsc::channel(), mpsc::channel::<()>());
    let namespace = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        here.0.send(nix::unistd::gettid()).unwrap();
        let _until_the_end = there.1.recv();
    });
    let tid = here.1.recv().unwrap();
    host::ip(&format!("link set vif1.0 netns {tid}"));
    drop(there.0);
    namespace.join().unwrap();
    until("the namespace is gone", || {
        world.vif_status(&vif).unwrap().mtu.is_none()
    });
    let guest = world.boot(vif, 1500, queues::linux(4));
    guest.wait_closed();
    world.wait_status(&guest.vif, "dead");
    assert_eq!(world.wait_error(&guest.vif), GONE);
    world.finish(guest);
}

/// A guest whose daemon has gone, and somebody who has its tap, as the service manager when a daemon is started by hand.
fn held() -> (World, TestGuest, Tap) {
    let mut world = World::new();
    let guest = world.guest(1, linux());
    guest.ping();
    world.machine.stop_daemon().unwrap();
    let tap = Tap::create("vif1.0", &TapOptions::default()).unwrap();
    world.machine.start_daemon().unwrap();
    world.wait_status(&guest.vif, "creating");
    let reason = world.vif_status(&guest.vif).unwrap().reason.unwrap();
    assert!(reason.contains("another process holds the tap"), "{reason}");
    (world, guest, tap)
}

#[test]
fn that_somebody_lets_go_of() {
    let (world, guest, tap) = held();
    // Others do not wait for it.
    let other = world.guest(2, linux());
    other.ping();
    world.detach(&other.vif);
    other.stop().unwrap();
    drop(tap);
    guest.exercise();
    world.finish_well(guest);
}

#[test]
fn that_somebody_keeps() {
    let (world, guest, tap) = held();
    let error = world.wait_error(&guest.vif);
    assert!(error.contains("held by another process"), "{error}");
    guest.wait_closed();
    tap.destroy().unwrap();
    world.finish(guest);
}

#[test]
fn that_somebody_has_when_the_device_goes() {
    let (world, guest, tap) = held();
    world.detach(&guest.vif);
    guest.stop().unwrap();
    tap.destroy().unwrap();
    world.finish_empty();
}

/// It was the device's, and is in nobody's hands any more.
#[test]
fn that_somebody_kept_for_too_long_goes_with_its_device() {
    let (world, guest, tap) = held();
    let _ = world.wait_error(&guest.vif);
    drop(tap);
    world.finish(guest);
}
