// SPDX-License-Identifier: GPL-3.0-or-later
//! Guests that do not break the protocol so much as wear the backend out: with buffers that never come or are taken
//! back, with events, with rings that change at any moment, with whatever a random generator thinks of.

use std::sync::atomic::{AtomicBool, Ordering};
use xen_ring::front::tx_flags::{EXTRA_INFO, MORE_DATA};

use netback::demo::guest::netfront::Netfront;
use netback::demo::guest::options::FrontendOptions;
use netback_tests::alone::{Rounds, alone, descriptors, resident};
use netback_tests::raw::{assert_no_violation, drain, linux};
use netback_tests::world::until;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use xen_ring::Page;
use xen_ring::front::FrontTxSlot;

use crate::hood::{flood, neighbourhood};

/// A guest that takes back the pages it offered for receiving.
#[test]
fn rx_pages_that_are_not_granted_any_more() {
    const FLOODED: usize = 1_000;
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, linux());
    netfront.rx_queue().unwrap().revoke_buffers();
    until("the failures are counted and told", || {
        flood(1, 300, FLOODED);
        while let Some(frame) = netfront.receive() {
            // The host's own (IPv6) that came before the pages were taken back are shorter.
            assert!(frame.bytes.len() < FLOODED, "{frame:?}");
        }
        hood.world.rx_dropped(&vif, "grant-copy") > 0 && netfront.stats().rx_errors > 0
    });
    assert_eq!(hood.world.backend_state(&vif).as_deref(), Some("4"));
    assert_no_violation(&netfront);
    hood.finish_raw(&vif, netfront);
}

/// A guest that offers no buffers holds up no host memory beyond the tap's queue (XSA-392).
#[test]
fn a_guest_that_never_receives() {
    alone("endurance::a_guest_that_never_receives", || {
        let hood = neighbourhood();
        let (vif, netfront) = hood.world.raw(
            1,
            FrontendOptions {
                rx_buffers: 0,
                ..linux()
            },
        );
        flood(1, 2_000, 1_400);
        hood.assert_unharmed();
        let before = resident();
        flood(1, 100_000, 1_400);
        let grown = resident().saturating_sub(before);
        assert!(
            grown < 16 << 20,
            "{grown} bytes more after 140 MB that nobody took"
        );
        assert_eq!(hood.world.vif_status(&vif).unwrap().rx.packets, 0);
        hood.assert_unharmed();
        hood.finish_raw(&vif, netfront);
    });
}

/// One free slot at a time defeats naive stall detection (XSA-392): it must still make progress, and no more.
#[test]
fn a_guest_that_offers_one_buffer_at_a_time() {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(
        1,
        FrontendOptions {
            rx_buffers: 1,
            ..linux()
        },
    );
    // The host drops what it sends before it has seen the carrier. Then nothing may be lost.
    until("the first frame comes", || {
        flood(1, 1, 1_000);
        drain(&mut netfront) > 0
    });
    let before = drain(&mut netfront);
    flood(1, 50, 1_000);
    until("frames come one by one", || {
        drain(&mut netfront) >= before + 50
    });
    assert_no_violation(&netfront);
    hood.finish_raw(&vif, netfront);
}

/// Events without end and without reason.
#[test]
fn a_storm_of_events() {
    let hood = neighbourhood();
    let (vif, netfront) = hood.world.raw(1, linux());
    let stop = AtomicBool::new(false);
    let netfront = std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                netfront_kick_many(&netfront);
            }
            netfront
        });
        hood.assert_unharmed();
        stop.store(true, Ordering::Relaxed);
        storm.join().unwrap()
    });
    assert_eq!(hood.world.error(&vif), None);
    hood.finish_raw(&vif, netfront);
}

fn netfront_kick_many(netfront: &Netfront) {
    for _ in 0..100 {
        netfront.kick();
    }
}

/// Every word of both rings changes at any moment, while the backend reads them.
#[test]
fn rings_that_change_all_the_time() {
    let hood = neighbourhood();
    for round in 0..10_u16 {
        let (vif, mut netfront) = hood.world.raw(1 + round, linux());
        let pages = [
            netfront.tx_queue().unwrap().ring().page().clone(),
            netfront.rx_queue().unwrap().ring().page().clone(),
        ];
        let mut random = u32::from(round) + 1;
        for step in 0..20_000_u32 {
            // xorshift: any sequence will do, as long as it is the same in every run.
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            let page = &pages[usize::from(random & 1 == 0)];
            // Indices stay plausible most of the time, or the first lie would be the last.
            let offset = if step % 50 == 0 {
                (random >> 8) % 16
            } else {
                16 + (random >> 8) % 1_008
            };
            let value = if offset < 16 {
                step % 300
            } else {
                random.rotate_left(11)
            };
            page.store(
                usize::try_from(offset & !3).unwrap(),
                value,
                Ordering::Relaxed,
            );
            if step % 100 == 0 {
                netfront.kick();
            }
        }
        hood.assert_unharmed();
        hood.world.force_away(&vif, netfront);
    }
    hood.finish();
}

/// A slot that may be anything, but looks like a good one often enough to get far.
fn any_slot() -> impl Strategy<Value = [u32; 3]> {
    let flags = prop_oneof![
        4 => Just(0_u16),
        3 => Just(MORE_DATA),
        2 => Just(EXTRA_INFO),
        1 => Just(1 | 2),
        1 => any::<u16>(),
    ];
    let gref = prop_oneof![6 => 8_u32..600, 1 => any::<u32>()];
    let offset = prop_oneof![4 => 0_u16..64, 1 => any::<u16>()];
    let size = prop_oneof![4 => 0_u16..2_000, 1 => 3_900_u16..4_200, 1 => any::<u16>()];
    let request =
        (gref, offset, flags, any::<u16>(), size).prop_map(|(gref, offset, flags, id, size)| {
            [
                gref,
                u32::from(offset) | u32::from(flags) << 16,
                u32::from(id) | u32::from(size) << 16,
            ]
        });
    let extra = (0_u8..8, 0_u8..2, any::<[u8; 6]>()).prop_map(|(kind, more, b)| {
        [
            u32::from_le_bytes([kind, more, b[0], b[1]]),
            u32::from_le_bytes([b[2], b[3], b[4], b[5]]),
            0,
        ]
    });
    prop_oneof![4 => request, 1 => extra, 1 => any::<[u32; 3]>()]
}

/// Any slots at all, several bursts on one vif: the neighbour never notices, and the vif can always be taken away.
#[test]
fn any_slots_at_all() {
    let hood = neighbourhood();
    let bursts = proptest::collection::vec(proptest::collection::vec(any_slot(), 1..60), 1..6);
    let mut runner = TestRunner::new(Config {
        cases: 40,
        ..Config::default()
    });
    let world = &hood.world;
    runner
        .run(&bursts, |bursts| {
            let (vif, mut netfront) = world.raw(1, linux());
            for burst in bursts {
                let queue = netfront.tx_queue().unwrap();
                for words in burst {
                    // A full ring is as good as any.
                    let _full = queue.ring().push(FrontTxSlot::Raw(words));
                }
                let _kicked_anyway = queue.ring().publish();
                netfront.kick();
                prop_assert!(hood.neighbour.try_ping().is_ok());
            }
            prop_assert!(world.machine.daemon_runs());
            world.force_away(&vif, netfront);
            Ok(())
        })
        .unwrap();
    hood.finish();
}

/// What the daemon holds open is bounded by what it serves, whatever guests have done to it.
#[test]
fn liars_leave_no_descriptors() {
    alone("endurance::liars_leave_no_descriptors", || {
        let hood = neighbourhood();
        let mut kept = Rounds::of(descriptors);
        for _ in 0..10 {
            let (vif, mut netfront) = hood.world.raw(1, linux());
            let next = netfront.tx_queue().unwrap().ring().next_index();
            netfront
                .tx_queue()
                .unwrap()
                .ring()
                .lie_req_prod(next.wrapping_sub(9));
            netfront.kick();
            hood.assert_closed(&vif, "req_prod");
            hood.world.force_away(&vif, netfront);
            until("the tap is gone", || hood.world.interfaces().len() == 1);
            kept.none_is_left();
        }
        hood.finish();
    });
}
