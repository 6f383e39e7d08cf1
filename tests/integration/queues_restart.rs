// SPDX-License-Identifier: GPL-3.0-or-later
//! Several queue pairs of one vif, and a daemon that takes them over from another, whatever it would offer itself.

use hotplug::link;
use netback_tests::world::until;
use netback_tests::{World, host};

use crate::queues::{assert_queues, linux, reconnect, use_all};

#[test]
fn the_next_daemon_serves_all_queues() {
    let mut world = World::smp();
    let guest = world.guest(1, linux(4));
    guest.exercise();
    let tap = link::index("vif1.0").unwrap();
    let transfers = guest.start_tcp(16 << 20);
    for _ in 0..3 {
        world.machine.stop_daemon().unwrap();
        assert_eq!(link::tap_queues("vif1.0").unwrap(), 0);
        world.machine.start_daemon().unwrap();
        until("the next daemon serves it", || {
            world
                .vif_status(&guest.vif)
                .is_some_and(|vif| (vif.state.as_str(), vif.queues) == ("connected", 4))
        });
    }
    transfers.finish();
    assert_eq!(link::index("vif1.0").unwrap(), tap, "the same tap");
    assert_queues(&world, &guest, 4);
    use_all(&guest, 4);
    guest.assert_no_violation();
    world.finish(guest);
}

/// What a guest was offered holds as long as it stays connected, whatever the next daemon would offer.
#[test]
fn the_next_daemon_offers_fewer() {
    let mut world = World::smp();
    let guest = world.guest(1, linux(4));
    world.machine.stop_daemon().unwrap();
    world.machine.config_mut().max_queues = std::num::NonZeroU16::new(2);
    world.machine.start_daemon().unwrap();
    world.wait_status(&guest.vif, "connected");
    assert_queues(&world, &guest, 4);
    use_all(&guest, 4);
    reconnect(&guest, 4);
    assert_queues(&world, &guest, 2);
    use_all(&guest, 2);
}

/// And what was offered holds from the moment that it could be read: the guest may have chosen already.
#[test]
fn the_next_daemon_finds_a_guest_that_has_read_the_offer() {
    let mut world = World::smp();
    let vif = world.create(1);
    world.wait_init(&vif);
    world.machine.stop_daemon().unwrap();
    world.machine.config_mut().max_queues = std::num::NonZeroU16::new(1);
    // The tap may be gone as well: the one that is made has room for all.
    for lost in [false, true] {
        if lost {
            host::ip("link delete vif1.0");
        }
        world.machine.start_daemon().unwrap();
        world.wait_tap(&vif);
        until("the vif is there", || world.vif_status(&vif).is_some());
        world.machine.stop_daemon().unwrap();
    }
    world.machine.start_daemon().unwrap();
    world.run_script(&vif);
    let guest = world.boot_connected(vif, linux(4));
    assert_queues(&world, &guest, 4);
    use_all(&guest, 4);
    reconnect(&guest, 4);
    assert_queues(&world, &guest, 1);
    guest.exercise();
    world.finish(guest);
}

/// The tap that the former daemon made has one queue, and the vif stays in its bridge with it.
#[test]
fn the_next_daemon_would_offer_more() {
    let mut world = World::with(|config| config.max_queues = std::num::NonZeroU16::new(1));
    world.vcpus = 4;
    let guest = world.guest(1, linux(4));
    let tap = link::index("vif1.0").unwrap();
    world.machine.stop_daemon().unwrap();
    world.machine.config_mut().max_queues = std::num::NonZeroU16::new(4);
    world.machine.start_daemon().unwrap();
    guest.exercise();
    reconnect(&guest, 4);
    let vif = world.vif_status(&guest.vif).unwrap();
    assert_eq!((vif.state.as_str(), vif.queues), ("connected", 1));
    guest.exercise();
    assert_eq!(link::index("vif1.0").unwrap(), tap, "the same tap");
    // A vif that is attached from now on has all of them.
    let other = world.guest(2, linux(4));
    assert_eq!(world.vif_status(&other.vif).unwrap().queues, 4);
    use_all(&other, 4);
}

/// Somebody has put another tap in its place, which cannot carry what the guest has.
#[test]
fn a_tap_that_cannot_have_the_queues() {
    let mut world = World::smp();
    let guest = world.guest(1, linux(2));
    world.machine.stop_daemon().unwrap();
    host::ip("link delete vif1.0");
    host::ip("tuntap add vif1.0 mode tap");
    world.machine.start_daemon().unwrap();
    let error = world.wait_error(&guest.vif);
    assert!(
        error.contains("has 2 queues: the tap can have one queue only"),
        "{error}"
    );
    guest.wait_closed();
    world.finish(guest);
}
