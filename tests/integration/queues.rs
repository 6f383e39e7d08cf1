// SPDX-License-Identifier: GPL-3.0-or-later
//! Several queue pairs of one vif: as many as were agreed on, all of them in use, and none left over.

use std::process::Command;
use std::time::Duration;

use hotplug::link;
use netback::control::render;
use netback::demo::guest::checksum::Checksum;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::probe::{self, Bound};
use netback_tests::alone::{Rounds, alone, descriptors};
use netback_tests::world::{PATIENCE, guest_ip, until};
use netback_tests::{TestGuest, World};

use xenbus::XenbusState;

use crate::hood::{force_away, neighbourhood};
use crate::malformed::refused_options;

fn linux(queues: u16) -> FrontendOptions {
    FrontendOptions {
        queues,
        ..FrontendOptions::default()
    }
}

/// The vif has so many queues, in the guest, in the daemon and in the tap.
fn assert_queues(world: &World, guest: &TestGuest, count: u16) {
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
fn use_all(guest: &TestGuest, count: u16) {
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
fn reconnect(guest: &TestGuest, count: u16) {
    guest
        .with(move |netfront| {
            netfront.close(PATIENCE)?;
            netfront.options_mut().queues = count;
            netfront.open(PATIENCE)
        })
        .unwrap();
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
    guest.assert_well_served();
    world.detach(&guest.vif);
    guest.stop().unwrap();
    world.finish_empty();
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
    let bound = Bound {
        bytes: 4 << 20,
        time: Duration::from_secs(60),
    };
    let transfers: Vec<_> = (0..4)
        .flat_map(|_| {
            [
                std::thread::spawn(move || probe::tcp_to_guest(guest_ip(1), bound)),
                std::thread::spawn(move || probe::tcp_from_guest(guest_ip(1), bound)),
            ]
        })
        .collect();
    for transfer in transfers {
        assert!(transfer.join().unwrap().unwrap().bytes >= bound.bytes);
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
    world.detach(&guest.vif);
    guest.stop().unwrap();
    world.finish_empty();
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
        world.detach(&guest.vif);
        guest.stop().unwrap();
        world.finish_empty();
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

#[test]
fn the_next_daemon_serves_all_queues() {
    let mut world = World::smp();
    let guest = world.guest(1, linux(4));
    guest.exercise();
    let tap = link::index("vif1.0").unwrap();
    let bound = Bound {
        bytes: 16 << 20,
        time: Duration::from_secs(60),
    };
    let down = std::thread::spawn(move || probe::tcp_to_guest(guest_ip(1), bound));
    let up = std::thread::spawn(move || probe::tcp_from_guest(guest_ip(1), bound));
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
    assert_eq!(down.join().unwrap().unwrap().bytes, bound.bytes);
    assert!(up.join().unwrap().unwrap().bytes >= bound.bytes);
    assert_eq!(link::index("vif1.0").unwrap(), tap, "the same tap");
    assert_queues(&world, &guest, 4);
    use_all(&guest, 4);
    assert_eq!(guest.stats().violations.count, 0, "{:?}", guest.stats());
    world.detach(&guest.vif);
    guest.stop().unwrap();
    world.finish_empty();
}

/// What a guest was offered holds as long as it stays connected, whatever the next daemon would offer.
#[test]
fn the_next_daemon_offers_fewer() {
    let mut world = World::smp();
    let guest = world.guest(1, linux(4));
    world.machine.stop_daemon().unwrap();
    world.machine.config_mut().max_queues = std::num::NonZeroU16::new(2);
    world.machine.start_daemon().unwrap();
    until("the next daemon serves it", || {
        world
            .vif_status(&guest.vif)
            .is_some_and(|vif| vif.state == "connected")
    });
    assert_queues(&world, &guest, 4);
    use_all(&guest, 4);
    reconnect(&guest, 4);
    assert_queues(&world, &guest, 2);
    use_all(&guest, 2);
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
    for arguments in ["link delete vif1.0", "tuntap add vif1.0 mode tap"] {
        let done = Command::new("ip").args(arguments.split(' ')).status();
        assert!(done.unwrap().success(), "ip {arguments}");
    }
    world.machine.start_daemon().unwrap();
    until("it is refused", || world.error(&guest.vif).is_some());
    let error = world.error(&guest.vif).unwrap();
    assert!(
        error.contains("has 2 queues: the tap can have one queue only"),
        "{error}"
    );
    guest.wait_closed();
    world.detach(&guest.vif);
    guest.stop().unwrap();
    world.finish_empty();
}

/// One queue that breaks the protocol ends the vif with all its queues, and nothing else.
#[test]
fn a_fault_on_one_queue() {
    for queue in 0..4 {
        let mut hood = neighbourhood();
        hood.world.vcpus = 4;
        let (vif, mut netfront) = hood.world.raw(1, linux(4));
        let ring = netfront.tx_queue_of(queue).unwrap().ring();
        let next = ring.next_index();
        ring.lie_req_prod(next.wrapping_add(300));
        netfront.kick();
        hood.assert_closed(&vif, &format!("queue {queue}: "));
        until("the tap has the one queue that stays", || {
            link::tap_queues(&vif.tap()).unwrap() == 1
        });
        hood.assert_unharmed();

        netfront.close(PATIENCE).unwrap();
        netfront.open(PATIENCE).unwrap();
        until("the error is forgiven", || hood.world.error(&vif).is_none());
        for queue in 0..4 {
            netfront
                .send_on(queue, &[0xff; 60], Checksum::Complete)
                .unwrap();
        }
        netfront.flush();
        until("each queue takes an honest frame", || {
            netfront.flush();
            netfront.stats().tx_okay >= 4
        });
        force_away(&hood.world, &vif, netfront);
        hood.finish();
    }
}

/// Workers find out at the same time, each on its own; it is one failure all the same.
#[test]
fn a_fault_on_every_queue() {
    let mut hood = neighbourhood();
    hood.world.vcpus = 4;
    let (vif, mut netfront) = hood.world.raw(1, linux(4));
    for _ in 0..3 {
        for queue in 0..4 {
            let ring = netfront.tx_queue_of(queue).unwrap().ring();
            let next = ring.next_index();
            ring.lie_req_prod(next.wrapping_sub(1));
        }
        netfront.kick();
        hood.assert_closed(&vif, "req_prod");
        netfront.close(PATIENCE).unwrap();
        netfront.open(PATIENCE).unwrap();
        until("the error is forgiven", || hood.world.error(&vif).is_none());
    }
    force_away(&hood.world, &vif, netfront);
    hood.finish();
}

/// Queues are asked to come and go faster than the workers can tell; the last word counts.
#[test]
fn flapping() {
    let world = World::smp();
    let guest = world.guest(1, linux(4));
    guest.with(|netfront| {
        for round in 0..300 {
            let state = [
                XenbusState::Closing,
                XenbusState::Connected,
                XenbusState::Closed,
                XenbusState::Initialising,
                XenbusState::Connected,
            ][round % 5];
            netfront.store().set_state(state).unwrap();
        }
    });
    reconnect(&guest, 3);
    assert_queues(&world, &guest, 3);
    use_all(&guest, 3);
    guest.assert_well_served();
    world.detach(&guest.vif);
    guest.stop().unwrap();
    world.finish_empty();
}

/// A guest's mistake with `queues` queues: refused, and served when the driver starts anew without it.
fn refused(text: &str, queues: u16, overrides: &[(&str, Option<&str>)]) {
    refused_options(text, linux(queues), overrides);
}

#[test]
fn more_queues_than_directories() {
    refused(
        "has not written queue-2/tx-ring-ref",
        2,
        &[("multi-queue-num-queues", Some("3"))],
    );
}

#[test]
fn several_queues_in_the_open() {
    refused(
        "has not written queue-0/tx-ring-ref",
        1,
        &[("multi-queue-num-queues", Some("2"))],
    );
}

#[test]
fn a_queue_without_its_directory() {
    refused("queue-1/tx-ring-ref", 3, &[("queue-1", None)]);
}

#[test]
fn a_queue_without_a_channel() {
    refused(
        "queue-1/event-channel-rx",
        2,
        &[("queue-1/event-channel-rx", None)],
    );
}

#[test]
fn one_page_for_two_queues() {
    refused(
        "grant reference 9 twice: as queue-0/tx-ring-ref and as queue-3/rx-ring-ref",
        4,
        &[
            ("queue-0/tx-ring-ref", Some("9")),
            ("queue-3/rx-ring-ref", Some("9")),
        ],
    );
}

#[test]
fn one_channel_for_two_queues() {
    refused(
        "event channel 2 twice: as queue-0/event-channel-rx and as queue-1/event-channel-tx",
        2,
        &[
            ("queue-0/event-channel-rx", Some("2")),
            ("queue-1/event-channel-tx", Some("2")),
        ],
    );
}

/// The other queues are up or about to be when one turns out not to be there; all have to go again.
#[test]
fn a_ring_of_one_queue_that_was_not_granted() {
    for queue in ["queue-0", "queue-3"] {
        let key = format!("{queue}/rx-ring-ref");
        let name = queue.replace('-', " ");
        refused(
            &format!("{name}: the rx ring"),
            4,
            &[(key.as_str(), Some("4000000000"))],
        );
    }
}

#[test]
fn a_channel_of_one_queue_that_was_not_allocated() {
    refused(
        "queue 2: the event channel",
        4,
        &[("queue-2/event-channel-tx", Some("4711"))],
    );
}

#[test]
fn more_than_offered_or_none() {
    for number in ["5", "0", "65537", "4294967295"] {
        refused(
            &format!("{number} queues; this backend offers 4"),
            4,
            &[("multi-queue-num-queues", Some(number))],
        );
    }
}
