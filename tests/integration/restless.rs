// SPDX-License-Identifier: GPL-3.0-or-later
//! Guests that change their minds without end, each time within their rights: what one of them costs the control thread
//! and the host's network interfaces, or a worker, is bounded, and what it says last counts.
//!
//! They do so for a moment, in which an unbounded backend does a multiple of what is allowed. The clock can only be
//! too fast for that, never for a backend that keeps to the bound.

use std::time::{Duration, Instant};

use netback::demo::guest::control::{self, Control};
use netback_tests::raw::{linux, reload};
use netback_tests::world::PATIENCE;
use xenbus::XenbusState;

use crate::control::{SUCCESS, ring, with_ring};
use crate::hood::{neighbourhood, reach};

/// How long they go on.
const MOMENT: Duration = Duration::from_secs(2);

/// Repeats `act`, and returns how often a backend may have done what it does `at_once` times, and then once each `pause`.
fn for_a_moment(at_once: u32, pause: Duration, mut act: impl FnMut()) -> u64 {
    let started = Instant::now();
    while started.elapsed() < MOMENT {
        act();
    }
    let paused = started.elapsed().as_nanos() / pause.as_nanos();
    u64::from(at_once) + 1 + u64::try_from(paused).unwrap()
}

/// Each time takes dozens of requests to xenstored, and two changes of the tap's carrier, for which the kernel locks all
/// network interfaces and which a bridge logs.
#[test]
fn a_guest_that_comes_and_goes() {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, linux());
    let mut reloads = 0;
    let looks = for_a_moment(64, Duration::from_millis(100), || {
        reload(&mut netfront);
        reloads += 1;
    });
    // Its driver waits for the backend at four places.
    assert!(
        4 * (reloads - 1) <= looks,
        "{reloads} reloads by {looks} looks"
    );
    hood.assert_unharmed();

    // Without waiting for anything, too.
    for _ in 0..1_000 {
        for state in [XenbusState::Initialising, XenbusState::Connected] {
            netfront.store().set_state(state).unwrap();
        }
    }
    reload(&mut netfront);
    reach(&mut netfront, 1);
    hood.finish_raw(&vif, netfront);
}

/// A ring full of requests is 2 KiB of writing for the guest, and for the host as many tables of 4 KiB, told to every
/// queue of the vif.
#[test]
fn a_guest_that_configures_its_hash_anew_all_the_time() {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, with_ring());
    let control = ring(&mut netfront);
    let mut answered = 0;
    let allowed = for_a_moment(256, Duration::from_millis(10), || {
        for n in 0..Control::slots() / 2 {
            control
                .send(control::SET_HASH_ALGORITHM, [1, 0, 0])
                .unwrap();
            control
                .send(control::SET_HASH_FLAGS, [n % 16, 0, 0])
                .unwrap();
        }
        control.flush();
        for _ in 0..Control::slots() {
            let answer = control.wait(PATIENCE).unwrap().expect("an answer");
            assert_eq!(answer.status, SUCCESS);
            answered += 1;
        }
    });
    // A turn of eight requests is not cut short.
    assert!(
        answered <= allowed + 8,
        "{answered} answers, {allowed} allowed"
    );
    hood.assert_unharmed();
    hood.finish_raw(&vif, netfront);
}

/// Each page is mapped and unmapped by itself, with calls that lock the memory map of all workers.
#[test]
fn a_guest_that_has_pages_mapped_and_unmapped_all_the_time() {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, with_ring());
    let [tx, rx] = netfront.packet_pages(0).unwrap();
    let pages = [tx, rx].concat();
    let control = ring(&mut netfront);
    let mut changes = 0;
    let allowed = for_a_moment(256, Duration::from_millis(10), || {
        for kind in [control::ADD_GREF_MAPPING, control::DEL_GREF_MAPPING] {
            let answer = control.change_grants(kind, 0, &pages, PATIENCE);
            assert_eq!(answer.unwrap().0, SUCCESS);
            changes += 1;
        }
    });
    let each = 1 + u64::try_from(pages.len() / 32).unwrap();
    // The last one may be on credit.
    assert!(
        (changes - 1) * each <= allowed,
        "{changes} changes of {} pages, {allowed} requests allowed",
        pages.len()
    );
    hood.assert_unharmed();
    hood.finish_raw(&vif, netfront);
}
