// SPDX-License-Identifier: GPL-3.0-or-later
//! Guests that change their minds without end, each time within their rights: what one of them costs the control thread
//! and the host's network interfaces is bounded, and what it says last counts.
//!
//! They do so for a moment, in which an unbounded backend does a multiple of what is allowed. The clock can only be
//! too fast for that, never for a backend that keeps to the bound.

use std::time::{Duration, Instant};

use netback_tests::raw::{linux, reload};
use xenbus::XenbusState;

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
