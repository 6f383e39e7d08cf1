// SPDX-License-Identifier: GPL-3.0-or-later
//! What the two halves of a queue pair's turn have in common: what each is given, and what it leaves behind.
//!
//! Made and read by [`queue`](super::queue), and taken and filled in by `guest_tx` and `guest_rx`.

use std::time::Instant;

use hotplug::Tap;

use super::bucket::Bucket;
use super::control::statics::StaticGrants;
use super::counters::DirectionCounters;

/// Where packets of one direction go along, beside the worker's bench.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'q> {
    pub(super) tap: &'q Tap,
    /// The guest's pages that stay mapped, if there are any.
    pub(super) statics: Option<&'q StaticGrants>,
    /// What the vif's rate still allows in this direction.
    pub(super) rate: &'q Bucket,
    pub(super) counters: &'q DirectionCounters,
}

/// What either half of a turn leaves behind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Half {
    /// The guest is to be notified.
    pub(super) notify: bool,
    /// There was something to do for the guest: packets or buffers that it had published, or frames that it got.
    pub(super) founded: bool,
    /// There is more that can be done at once.
    pub(super) more: bool,
    /// A turn is due at this moment, whatever happens until then.
    pub(super) due: Option<Instant>,
    /// What it has worked through, whatever became of it, in slots of a ring.
    pub(super) work: usize,
}
