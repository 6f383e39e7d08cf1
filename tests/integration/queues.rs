// SPDX-License-Identifier: GPL-3.0-or-later
//! Several queue pairs of one vif: as many as were agreed on, all of them in use, and none left over. What the next
//! daemon makes of them: `queues_restart`; mistakes and lies: `queues_refused`.

use hotplug::link;
use netback::control::render;
use netback::demo::guest::options::FrontendOptions;
use netback_tests::alone::{Rounds, alone, descriptors};
use netback_tests::world::{PATIENCE, until};
use netback_tests::{TestGuest, World};
use xenbus::XenbusState;

use crate::reconnect::flap;

pub(crate) fn linux(queues: u16) -> FrontendOptions {
    FrontendOptions {
        queues,
        ..FrontendOptions::default()
    }
}

/// The vif has so many queues, in the guest, in the daemon and in the tap.
pub(crate) fn assert_queues(world: &World, guest: &TestGuest, count: u16) {
    let vif = world.vif_status(&guest.vif).unwrap();
    assert_eq!((vif.state.as_str(), vif.queues), ("connected", count));
    assert_eq!(
        link::tap_queues(&guest.vif.tap()).unwrap(),
        u32::from(count)
    );
    let census = world.machine.hypervisor().census();
    assert_eq!(census.mapped, 2 * usize::from(count));
    assert_eq!(census.bound_ports, census.guest_ports);
}

/// Opens flows until each of the first `count` queues has been used in both directions. Each flow is answered: none
/// is hashed to a queue that nobody reads.
pub(crate) fn use_all(guest: &TestGuest, count: u16) {
    let before = guest.stats().by_queue;
    let mut flows = 0;
    until("every queue is used both ways", || {
        guest.udp(100);
        flows += 1;
        let now = guest.stats().by_queue;
        let used = now.iter().enumerate().filter(|(index, now)| {
            let before = before.get(*index).copied().unwrap_or_default();
            now.tx_frames > before.tx_frames && now.rx_frames > before.rx_frames
        });
        flows >= 32 && used.count() == usize::from(count)
    });
}

/// The driver goes and comes back with so many queues.
pub(crate) fn reconnect(guest: &TestGuest, count: u16) {
    guest.reload_with(move |options| options.queues = count);
    guest.reach();
}

/// Attach, use, detach; nothing is left.
fn life(options: FrontendOptions) {
    let world = World::smp();
    let count = options.queues;
    let ports = if options.split_event_channels { 2 } else { 1 };
    let guest = world.guest(1, options);
    assert_queues(&world, &guest, count);
    let census = world.machine.hypervisor().census();
    assert_eq!(census.bound_ports, usize::from(ports * count));
    guest.exercise();
    use_all(&guest, count);
    world.finish_well(guest);
}

#[test]
fn with_split_channels() {
    for count in [1, 2, 4] {
        life(linux(count));
    }
}

#[test]
fn with_single_channels() {
    for count in [1, 2, 4] {
        life(FrontendOptions {
            split_event_channels: false,
            ..linux(count)
        });
    }
}

#[test]
fn with_the_bare_protocol() {
    life(FrontendOptions {
        queues: 3,
        ..FrontendOptions::plain()
    });
}

#[test]
fn more_queues_than_workers() {
    let mut world = World::with(|config| config.workers = std::num::NonZeroU16::new(1));
    world.vcpus = 4;
    let guest = world.guest(1, linux(4));
    guest.exercise();
    use_all(&guest, 4);
    guest.assert_well_served();
}

/// Many streams at once, each of which stays in order.
#[test]
fn streams_over_all_queues() {
    let world = World::smp();
    let guest = world.guest(1, linux(4));
    guest.reach();
    let transfers: Vec<_> = (0..4).map(|_| guest.start_tcp(4 << 20)).collect();
    for transfers in transfers {
        transfers.finish();
    }
    guest.assert_well_served();
}

#[test]
fn no_more_than_the_configuration_allows() {
    let mut world = World::with(|config| config.max_queues = std::num::NonZeroU16::new(3));
    world.vcpus = 16;
    let guest = world.guest(1, linux(8));
    assert_queues(&world, &guest, 3);
    use_all(&guest, 3);
}

/// A driver makes no more queues than it has vCPUs, so a tap for more would be a waste.
#[test]
fn no_more_than_the_guest_has_vcpus() {
    let mut world = World::new();
    for (dom, vcpus) in [(1, 2), (2, 1)] {
        world.vcpus = vcpus;
        let guest = world.guest(dom, linux(8));
        let offer = format!("{}/multi-queue-max-queues", guest.vif.backend_dir());
        let offer = world.toolstack().read(&offer).unwrap();
        assert_eq!(offer, Some(vcpus.to_string()));
        assert_eq!(world.vif_status(&guest.vif).unwrap().queues, vcpus);
        guest.exercise();
    }
    assert_eq!(link::tap_queues("vif1.0").unwrap(), 2);
    assert_eq!(link::tap_queues("vif2.0").unwrap(), 0, "a plain tap");
}

/// A queue of the tap that is left without a reader would swallow its share of the frames.
#[test]
fn a_driver_comes_back_with_more_queues_or_fewer() {
    let world = World::smp();
    let guest = world.guest(1, linux(4));
    for count in [1, 4, 2, 3, 1] {
        reconnect(&guest, count);
        assert_queues(&world, &guest, count);
        use_all(&guest, count);
        guest.exercise();
    }
    guest.with(|netfront| netfront.close(PATIENCE)).unwrap();
    assert_eq!(link::tap_queues("vif1.0").unwrap(), 1, "the one that stays");
    assert_eq!(world.machine.hypervisor().census().mapped, 0);
    world.finish(guest);
}

#[test]
fn no_descriptor_is_left() {
    alone("queues::no_descriptor_is_left", || {
        let world = World::smp();
        let guest = world.guest(1, linux(1));
        guest.ping();
        // Whatever is opened once is open after one round with all queues.
        reconnect(&guest, 4);
        let (mut one, mut four) = (Rounds::of(descriptors), Rounds::of(descriptors));
        for _ in 0..4 {
            reconnect(&guest, 1);
            let with_one = one.none_is_left();
            reconnect(&guest, 4);
            assert!(four.none_is_left() > with_one);
        }
        world.finish(guest);
    });
}

#[test]
fn counted_by_queue_and_all_together() {
    let world = World::smp();
    let options = FrontendOptions {
        gso: false,
        ..linux(2)
    };
    let guest = world.guest(1, options);
    guest.exercise();
    use_all(&guest, 2);
    link::set_down("vif1.0").unwrap();
    until(
        "each queue's frames are counted as the guest counts them",
        || {
            let (vif, seen) = (world.vif_status(&guest.vif).unwrap(), guest.stats());
            let counted = |vif: &netback::control::model::QueueStatus| {
                (vif.tx.packets + vif.tx.dropped(), vif.rx.packets)
            };
            let counted: Vec<_> = vif.by_queue.iter().map(counted).collect();
            let seen: Vec<_> = seen
                .by_queue
                .iter()
                .map(|q| (q.tx_frames, q.rx_frames))
                .collect();
            counted == seen
        },
    );
    let vif = world.vif_status(&guest.vif).unwrap();
    for (all, each) in [
        (
            vif.rx.packets,
            vif.by_queue.iter().map(|q| q.rx.packets).sum(),
        ),
        (vif.rx.bytes, vif.by_queue.iter().map(|q| q.rx.bytes).sum()),
        (
            vif.tx.bytes,
            vif.by_queue.iter().map(|q| q.tx.bytes).sum::<u64>(),
        ),
        (
            vif.tx.dropped(),
            vif.by_queue.iter().map(|q| q.tx.dropped()).sum(),
        ),
    ] {
        assert_eq!(all, each);
    }
    let table = render::table(&world.status());
    assert!(table.contains("\n  queue 1 "), "{table}");
}

/// Queues are asked to come and go faster than the workers can tell; the last word counts.
#[test]
fn flapping() {
    let world = World::smp();
    let guest = world.guest(1, linux(4));
    flap(&guest, XenbusState::Connected);
    reconnect(&guest, 3);
    assert_queues(&world, &guest, 3);
    use_all(&guest, 3);
    world.finish_well(guest);
}
