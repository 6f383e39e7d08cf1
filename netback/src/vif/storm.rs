// SPDX-License-Identifier: GPL-3.0-or-later
//! Events that bring nothing, and how a guest is kept from sending them without end.
//!
//! A guest can signal as often as it likes. Whether there is anything in its rings or not, each event costs
//! the host an interrupt and a worker half a dozen system calls, some times what it costs the guest. A port
//! that has signalled is masked until its ring is found empty; after [`FREE`] events in a row with nothing
//! to do it stays masked for longer, twice as long each time, as with Linux's backends (XSA-332). What the
//! guest publishes meanwhile is found when that is over, and then all is forgiven.
//!
//! Owned by a queue pair for its two rings, and by a control ring. Knows no port and no clock.

use std::time::{Duration, Instant};

/// Events for nothing in a row that have no consequence. An honest guest comes by a few, when what it signals
/// has been found already.
const FREE: u32 = 16;
/// The first time that ports stay masked, and the longest.
const SHORTEST: Duration = Duration::from_millis(1);
const DOUBLINGS: u32 = 7;

/// Events since there was last something to do.
#[derive(Debug, Default)]
pub(super) struct Storm {
    events: u32,
    /// Until when ports that have signalled stay masked.
    until: Option<Instant>,
}

impl Storm {
    /// A port has signalled.
    #[inline]
    pub(super) const fn event(&mut self) {
        self.events = self.events.saturating_add(1);
    }

    /// There was something to do.
    #[inline]
    pub(super) const fn end(&mut self) {
        self.events = 0;
        self.until = None;
    }

    /// Until when a port that has signalled stays masked, though there is nothing to do; `None` if it may
    /// signal again, and then it has to be unmasked. The time is asked for in a storm only.
    #[inline]
    pub(super) fn masks_until(&mut self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        match self.events.checked_sub(FREE + 1) {
            Some(beyond) => self.masked(beyond, now()),
            None => None,
        }
    }

    fn masked(&mut self, beyond: u32, now: Instant) -> Option<Instant> {
        let pause = SHORTEST * (1 << beyond.min(DOUBLINGS));
        let until = *self.until.get_or_insert(now + pause);
        self.until = (now < until).then_some(until);
        self.until
    }

    /// Whether ports are kept masked.
    pub(super) const fn keeps_masked(&self) -> bool {
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a port stays masked after one more event for nothing.
    fn masked_for(storm: &mut Storm, now: Instant) -> Duration {
        storm.event();
        let until = storm.masks_until(|| now);
        assert_eq!(storm.keeps_masked(), until.is_some());
        until.map_or(Duration::ZERO, |until| {
            // Looking more often changes nothing.
            assert_eq!(storm.masks_until(|| now), Some(until));
            assert_eq!(storm.masks_until(|| until), None);
            assert!(!storm.keeps_masked());
            until - now
        })
    }

    #[test]
    fn some_are_free_and_then_each_costs_more() {
        let (mut storm, now) = (Storm::default(), Instant::now());
        for _ in 0..FREE {
            assert_eq!(masked_for(&mut storm, now), Duration::ZERO);
        }
        for ms in [1, 2, 4, 8, 16, 32, 64, 128, 128, 128] {
            assert_eq!(masked_for(&mut storm, now), Duration::from_millis(ms));
        }
        storm.end();
        assert_eq!(masked_for(&mut storm, now), Duration::ZERO);
    }

    #[test]
    fn it_ends_with_something_to_do() {
        let (mut storm, now) = (Storm::default(), Instant::now());
        for _ in 0..=FREE {
            storm.event();
        }
        assert!(storm.masks_until(|| now).is_some());
        storm.end();
        assert_eq!(storm.masks_until(|| now), None);
        assert!(!storm.keeps_masked());
    }

    #[test]
    fn without_a_storm_nobody_asks_the_time() {
        let mut storm = Storm::default();
        storm.event();
        assert_eq!(
            storm.masks_until(|| panic!("a system call, on some hosts")),
            None
        );
    }
}
