// SPDX-License-Identifier: GPL-3.0-or-later
//! From attach to detach, with every way in which a frontend may choose to work.

use netback::demo::guest::options::FrontendOptions;
use netback::demo::sim::Census;
use netback_tests::World;
use netback_tests::alone::{Rounds, alone, descriptors, threads};
use netback_tests::raw::linux;
use netback_tests::world::until;

/// Attach, use, detach; nothing is left. Returns the world's last word about the guest's frontend.
fn life(options: FrontendOptions) -> netback::demo::guest::queue::FrontStats {
    let world = World::new();
    let guest = world.guest(1, options);
    guest.exercise();
    guest.assert_well_served();
    let stats = guest.stats();
    world.finish(guest);
    stats
}

#[test]
fn split_channels() {
    let stats = life(linux());
    assert!(stats.rx_gso > 0, "the host leaves large TCP frames whole");
    assert!(
        stats.rx_blank > 0,
        "the host leaves TCP checksums blank for a guest that takes them"
    );
}

#[test]
fn a_single_channel() {
    life(FrontendOptions {
        split_event_channels: false,
        ..linux()
    });
}

#[test]
fn the_bare_protocol() {
    let stats = life(FrontendOptions::plain());
    assert_eq!(
        (stats.rx_blank, stats.rx_gso),
        (0, 0),
        "neither for a guest that did not ask for them"
    );
}

#[test]
fn checksums_complete_from_the_guest_and_blank_to_it() {
    let stats = life(FrontendOptions {
        blank_tx: false,
        ..linux()
    });
    assert!(stats.rx_blank > 0);
}

#[test]
fn checksums_blank_from_the_guest_and_complete_to_it() {
    let stats = life(FrontendOptions {
        csum_offload: false,
        ..linux()
    });
    assert_eq!(stats.rx_blank, 0);
}

#[test]
fn no_segmentation() {
    let stats = life(FrontendOptions {
        gso: false,
        ..linux()
    });
    assert_eq!(stats.rx_gso, 0);
    assert!(stats.rx_blank > 0);
}

/// The guest's large frames reach the host as such: fewer packets than segments.
#[test]
fn the_guest_leaves_segmentation_to_its_backend() {
    let world = World::new();
    let guest = world.guest(1, linux());
    guest.reach();
    guest.tcp(8 << 20);
    let tx = world.vif_status(&guest.vif).unwrap().tx;
    assert!(tx.bytes > 8 << 20, "{tx:?}");
    // Not by the mean size: how many acknowledgements there are among them depends on the machine.
    assert!(guest.stats().tx_gso > 0, "{:?}", guest.stats());
    guest.assert_well_served();
}

#[test]
fn frames_of_many_small_slots() {
    life(FrontendOptions {
        tx_slot_bytes: 128,
        tx_offset: 77,
        ..linux()
    });
}

#[test]
fn rings_that_wrap() {
    life(FrontendOptions {
        start_index: u32::MAX - 100,
        ..linux()
    });
}

/// As iPXE does it.
#[test]
fn four_rx_buffers() {
    life(FrontendOptions {
        rx_buffers: 4,
        gso: false,
        ..linux()
    });
}

#[test]
fn a_guest_that_does_not_signal_new_buffers() {
    life(FrontendOptions {
        rx_notify: false,
        ..linux()
    });
}

#[test]
fn large_frames_take_many_slots_both_ways() {
    let world = World::new();
    let guest = world.guest_with_mtu(1, 9_000, linux());
    guest.exercise();
    guest.udp(8_900);
    assert!(guest.stats().rx_slots_max >= 3, "{:?}", guest.stats());
    guest.assert_well_served();

    let huge = world.guest_with_mtu(2, 60_000, linux());
    huge.udp(59_000);
    assert!(huge.stats().rx_slots_max >= 15, "{:?}", huge.stats());
    huge.assert_well_served();
}

#[test]
fn guests_do_not_know_of_one_another() {
    let world = World::new();
    let guests: Vec<_> = (1..=4).map(|dom| world.guest(dom, linux())).collect();
    for guest in &guests {
        guest.exercise();
    }
    world.detach(&guests[1].vif);
    guests[1].wait_closed();
    until("its tap is gone", || world.interfaces().len() == 3);
    for guest in [&guests[0], &guests[2], &guests[3]] {
        guest.exercise();
        guest.assert_well_served();
    }
}

#[test]
fn two_devices_of_one_guest() {
    let world = World::new();
    let first = world.guest(1, linux());
    let second = world.create_as(1, |vif| vif.handle = 7);
    world.wait_init(&second);
    assert!(
        world.interfaces().contains("vif1.7"),
        "{:?}",
        world.interfaces()
    );
    first.exercise();
    world.detach(&second);
    first.exercise();
}

#[test]
fn a_guest_that_boots_before_the_script_has_run() {
    let world = World::new();
    let vif = world.create(1);
    let guest = world.boot(vif, 1500, linux());
    world.wait_tap(&guest.vif);
    world.run_script(&guest.vif);
    guest.wait_connected();
    guest.exercise();
}

#[test]
fn attach_and_detach_again_and_again() {
    let world = World::new();
    for round in 0..5 {
        let guest = world.guest(1, linux());
        guest.ping();
        world.detach(&guest.vif);
        guest.wait_closed();
        guest.stop().unwrap();
        until("nothing is left of the round", || {
            world.machine.hypervisor().census() == Census::default()
                && world.interfaces().is_empty()
        });
        assert!(world.machine.daemon_runs(), "round {round}");
    }
    world.finish_empty();
}

#[test]
fn no_descriptor_or_thread_is_left() {
    alone("connect::no_descriptor_or_thread_is_left", || {
        let world = World::new();
        let mut kept = [Rounds::of(descriptors), Rounds::of(threads)];
        // What is opened once and kept is opened in the first life.
        for _ in 0..4 {
            let guest = world.guest(1, linux());
            guest.exercise();
            world.remove(guest);
            until("the life has ended", || {
                world.machine.hypervisor().census() == Census::default()
            });
            for count in &mut kept {
                count.none_is_left();
            }
        }
        world.finish_empty();
    });
}
