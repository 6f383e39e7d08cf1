// SPDX-License-Identifier: GPL-3.0-or-later
//! How fast the requests of one control ring are carried out.
//!
//! A request is sixteen bytes for a guest. For the host it may be a new table for the hash, which is told
//! to the workers of all the vif's queues, or pages that are mapped and unmapped one by one, each with calls
//! that lock the memory map of all workers and flush the processors' TLBs. So a guest has [`AT_ONCE`] requests,
//! far more than a driver takes to set itself up, and then one each [`EACH`]; the others wait in the ring.
//!
//! Owned by the control ring. Knows no clock.

use std::time::{Duration, Instant};

/// Requests without a pause.
const AT_ONCE: i64 = 256;
const EACH: Duration = Duration::from_millis(10);
/// Pages that are mapped or unmapped count as one more request each so many. All that a guest can have
/// ([`GUEST_PAGES_MAX`](super::statics::GUEST_PAGES_MAX)) are mapped at once.
const PAGES: usize = 32;

/// Requests that may be carried out.
#[derive(Debug)]
pub(super) struct Pace {
    /// So many now; fewer than none when pages have been moved on credit.
    left: i64,
    /// Since when the next one is in the making.
    since: Instant,
}

impl Pace {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            left: AT_ONCE,
            since: now,
        }
    }

    /// A request is carried out.
    pub(super) const fn request(&mut self) {
        self.left -= 1;
    }

    /// So many pages have been mapped or unmapped for one.
    pub(super) fn pages(&mut self, count: usize) {
        // Lossless: an order is a list that fits into a page.
        self.left -= i64::try_from(count / PAGES).unwrap_or(AT_ONCE);
    }

    /// Until when no further request is to be carried out, if there is nothing left.
    pub(super) fn rests_until(&mut self, now: Instant) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.since);
        let made = i64::try_from(passed.as_nanos() / EACH.as_nanos()).unwrap_or(i64::MAX);
        if made >= AT_ONCE - self.left {
            *self = Self::new(now);
            return None;
        }
        self.left += made;
        // Lossless: fewer than all that there can be, and what may be owed.
        self.since += EACH * u32::try_from(made).unwrap_or_default();
        let missing = u32::try_from(1 - self.left).unwrap_or_default();
        (missing > 0).then(|| self.since + EACH * missing)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::STATIC_GRANTS_MAX;
    use super::super::statics::GUEST_PAGES_MAX;
    use super::*;

    #[test]
    fn some_at_once_and_then_one_by_one() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(start);
        for _ in 0..AT_ONCE {
            assert_eq!(pace.rests_until(start), None);
            pace.request();
        }
        assert_eq!(pace.rests_until(start), Some(at(10)));
        assert_eq!(pace.rests_until(at(9)), Some(at(10)));
        assert_eq!(pace.rests_until(at(15)), None);
        pace.request();
        assert_eq!(pace.rests_until(at(19)), Some(at(20)));
        // Whatever was not used is there later, up to what there was at first.
        assert_eq!(pace.rests_until(at(50)), None);
        assert_eq!(pace.left, 4);
        assert_eq!(pace.rests_until(at(1_000_000)), None);
        assert_eq!(pace.left, AT_ONCE);
    }

    #[test]
    fn all_that_a_guest_can_have_is_mapped_at_once() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..GUEST_PAGES_MAX / STATIC_GRANTS_MAX {
            pace.request();
            pace.pages(STATIC_GRANTS_MAX);
            assert_eq!(pace.rests_until(now), None);
        }
    }

    #[test]
    fn pages_are_owed() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..AT_ONCE {
            pace.request();
        }
        pace.pages(512);
        let end = start + EACH * 17;
        assert_eq!(pace.rests_until(start), Some(end));
        assert_eq!(pace.rests_until(start + EACH * 16), Some(end));
        assert_eq!(pace.rests_until(end), None);
    }
}
