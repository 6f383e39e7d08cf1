// SPDX-License-Identifier: GPL-3.0-or-later
//! A frontend without a stack: what tests that drive one by hand do with it again and again.

use netback::demo::guest::netfront::Netfront;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::guest::queue::FrontStats;

use crate::world::PATIENCE;

/// A guest that works as Linux's netfront does, in everything.
#[must_use]
pub fn linux() -> FrontendOptions {
    FrontendOptions::default()
}

/// The driver goes and comes back.
pub fn reload(netfront: &mut Netfront) {
    netfront.close(PATIENCE).unwrap();
    netfront.open(PATIENCE).unwrap();
}

/// Takes all frames that have come, and posts their buffers again. Returns how many there have been so far.
pub fn drain(netfront: &mut Netfront) -> u64 {
    while netfront.receive().is_some() {}
    netfront.flush();
    netfront.stats().rx_frames
}

/// The backend has kept to the protocol.
pub fn assert_no_violation(netfront: &Netfront) {
    assert_clean(netfront.stats());
}

pub(crate) fn assert_clean(stats: &FrontStats) {
    assert_eq!(stats.violations.count, 0, "{stats:?}");
}
