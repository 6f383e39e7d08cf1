// SPDX-License-Identifier: GPL-3.0-or-later
//! Multicast control: the guest's list, and what is kept from the guest while it wants that.

use std::time::{Duration, Instant};

use hotplug::Injector;
use netback::control::model::VifStatus;
use netback::demo::guest::netfront::Netfront;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::guest::queue::MulticastChange::{self, Add, Del};
use netback::demo::toolstack::VifSpec;
use netback::vif::feature::Feature;
use netback_tests::World;
use netback_tests::raw::{assert_no_violation, linux, reload};
use netback_tests::world::{PATIENCE, until};

type Address = [u8; 6];

const MDNS: Address = [0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb];
const OTHER: Address = [0x33, 0x33, 0x00, 0x00, 0x00, 0x0c];
const BROADCAST: Address = [0xff; 6];
const UNICAST: Address = [0x00, 0x16, 0x3e, 0x00, 0x00, 0x01];
/// A type for experiments (IEEE 802): the host's own chatter has others.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Bytes of the virtio header before a frame on the tap.
const HEADER: usize = 12;

/// A frame that is none to be mistaken for another: the host has no such address.
fn frame(to: Address, mark: u8) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    frame.extend(to);
    frame.extend([0x00, 0x16, 0x3e, 0xff, 0xff, 0xff]);
    frame.extend(ETHERTYPE);
    frame.resize(HEADER + 60, mark);
    frame
}

/// Whether a frame to `to` comes through the tap to the guest. One that always does is sent behind it, and tells
/// when to stop waiting; both are sent again until that one has come, as the host drops what comes too early.
fn passes(vif: &VifSpec, netfront: &mut Netfront, to: Address) -> bool {
    let tap = Injector::open(&vif.tap()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        tap.send(&frame(to, 1)).unwrap();
        tap.send(&frame(UNICAST, 2)).unwrap();
        let pause = Instant::now() + Duration::from_millis(200);
        let mut seen = false;
        while Instant::now() < pause {
            while let Some(received) = netfront.receive() {
                let ours = received.bytes.get(12..14) == Some(&ETHERTYPE);
                match received.bytes.last() {
                    Some(1) if ours => seen |= received.bytes[..6] == to,
                    Some(2) if ours => return seen,
                    _ => {}
                }
            }
            netfront.flush();
            std::thread::yield_now();
        }
    }
    panic!("not even a frame to the guest's own address came through");
}

/// Asks for changes of the list and waits for the answers.
fn change(netfront: &mut Netfront, queue: usize, changes: &[MulticastChange]) {
    for change in changes {
        let stats = netfront.stats();
        let before = stats.tx_okay + stats.tx_error;
        let queue = netfront.tx_queue_of(queue).unwrap();
        queue.change_multicast(*change).unwrap();
        netfront.flush();
        until("the change is answered", || {
            netfront.flush();
            let stats = netfront.stats();
            stats.tx_okay + stats.tx_error == before + 1
        });
    }
}

fn request(world: &World, vif: &VifSpec, netfront: &Netfront, value: &str) {
    let store = netfront.store();
    store.set_raw("request-multicast-control", value).unwrap();
    until("the daemon has taken note", || {
        status(world, vif).features.has(Feature::MulticastControl) == (value == "1")
    });
}

fn status(world: &World, vif: &VifSpec) -> VifStatus {
    world.vif_status(vif).unwrap()
}

fn finish(world: World, vif: &VifSpec, netfront: Netfront) {
    assert_no_violation(&netfront);
    world.finish_raw(vif, netfront);
}

fn asks_at_once() -> FrontendOptions {
    FrontendOptions {
        overrides: vec![("request-multicast-control".to_owned(), Some("1".to_owned()))],
        ..linux()
    }
}

#[test]
fn it_is_offered() {
    let world = World::new();
    let (vif, netfront) = world.raw(1, linux());
    for feature in [
        "feature-multicast-control",
        "feature-dynamic-multicast-control",
    ] {
        assert!(
            netfront.store().backend_offers(feature).unwrap(),
            "{feature}"
        );
    }
    finish(world, &vif, netfront);
}

#[test]
fn the_list_is_applied_while_the_guest_wants_it() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, linux());
    assert!(passes(&vif, &mut netfront, MDNS), "nothing was asked for");

    // The list can be edited before it is applied.
    change(&mut netfront, 0, &[Add(OTHER)]);
    request(&world, &vif, &netfront, "1");
    assert!(!passes(&vif, &mut netfront, MDNS));
    assert!(world.rx_dropped(&vif, "not-in-multicast-list") > 0);
    for address in [OTHER, BROADCAST, UNICAST] {
        assert!(passes(&vif, &mut netfront, address), "{address:?}");
    }
    change(&mut netfront, 0, &[Add(MDNS), Del(OTHER)]);
    assert!(passes(&vif, &mut netfront, MDNS));
    assert!(!passes(&vif, &mut netfront, OTHER));
    assert_eq!(status(&world, &vif).multicast_addresses, Some(1));

    request(&world, &vif, &netfront, "0");
    assert!(passes(&vif, &mut netfront, OTHER));
    finish(world, &vif, netfront);
}

#[test]
fn a_frontend_may_ask_before_it_connects() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, asks_at_once());
    assert!(status(&world, &vif).features.has(Feature::MulticastControl));
    assert!(!passes(&vif, &mut netfront, MDNS));
    finish(world, &vif, netfront);
}

/// A request that is taken back by removing the key is taken back.
#[test]
fn no_key_is_no_request() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, asks_at_once());
    let keys = [("request-multicast-control".to_owned(), None)];
    netfront.store().publish(&keys).unwrap();
    until("the daemon has taken note", || {
        !status(&world, &vif).features.has(Feature::MulticastControl)
    });
    assert!(passes(&vif, &mut netfront, MDNS));
    finish(world, &vif, netfront);
}

#[test]
fn a_full_list_refuses_and_nothing_else_happens() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, linux());
    let nth = |n| [0x33, 0x33, 0, 0, 0, n];
    let all: Vec<_> = (0..64).map(|n| Add(nth(n))).collect();
    change(&mut netfront, 0, &all);
    // What is there already, and what is not there at all, is no matter.
    change(&mut netfront, 0, &[Add(nth(0)), Del(nth(100))]);
    let stats = netfront.stats();
    assert_eq!((stats.tx_okay, stats.tx_error, stats.tx_null), (66, 0, 66));
    change(&mut netfront, 0, &[Add(nth(64))]);
    let stats = netfront.stats();
    assert_eq!((stats.tx_okay, stats.tx_error, stats.tx_null), (66, 1, 67));
    let now = status(&world, &vif);
    assert_eq!(now.multicast_addresses, Some(64));
    assert_eq!(now.tx.drops.get("multicast-list-full"), Some(&1));
    assert_eq!((now.tx.packets, now.reason), (0, None), "no frame was sent");
    change(&mut netfront, 0, &[Del(nth(0)), Add(nth(64))]);
    assert_eq!(netfront.stats().tx_okay, 68);
    finish(world, &vif, netfront);
}

#[test]
fn all_queues_edit_one_list() {
    let world = World::smp();
    let options = FrontendOptions {
        queues: 2,
        ..linux()
    };
    let (vif, mut netfront) = world.raw(1, options);
    assert_eq!(status(&world, &vif).queues, 2);
    change(&mut netfront, 0, &[Add(MDNS)]);
    change(&mut netfront, 1, &[Add(OTHER), Del(MDNS)]);
    assert_eq!(status(&world, &vif).multicast_addresses, Some(1));
    finish(world, &vif, netfront);
}

#[test]
fn the_list_ends_with_its_connection() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, asks_at_once());
    change(&mut netfront, 0, &[Add(MDNS)]);
    netfront.close(PATIENCE).unwrap();
    assert_eq!(status(&world, &vif).multicast_addresses, None);
    netfront.open(PATIENCE).unwrap();
    assert_eq!(status(&world, &vif).multicast_addresses, Some(0));
    assert!(!passes(&vif, &mut netfront, MDNS));
    finish(world, &vif, netfront);
}

/// A list dies with the daemon, and the guest does not know: it must not lose what it once asked for.
#[test]
fn after_a_restart_everything_passes_until_the_guest_connects_anew() {
    let mut world = World::new();
    let (vif, mut netfront) = world.raw(1, asks_at_once());
    change(&mut netfront, 0, &[Add(MDNS)]);
    assert!(!passes(&vif, &mut netfront, OTHER));
    world.restart_daemon();
    assert!(passes(&vif, &mut netfront, MDNS));
    assert!(passes(&vif, &mut netfront, OTHER));
    let now = status(&world, &vif);
    assert_eq!(now.state, "connected");
    assert!(
        !now.features.has(Feature::MulticastControl),
        "status tells how it is"
    );

    reload(&mut netfront);
    assert!(!passes(&vif, &mut netfront, OTHER));
    finish(world, &vif, netfront);
}
