// SPDX-License-Identifier: GPL-3.0-or-later
//! Events that bring nothing, and how a guest is kept from sending them without end.
//!
//! A guest can signal as often as it likes. Whether there is anything in its rings or not, each event costs
//! the host an interrupt and a worker half a dozen system calls, some times what it costs the guest. A port
//! that has signalled is masked until its ring is found empty; after [`FREE`] events with nothing to do it
//! stays masked for longer, twice as long each time, as with Linux's backends (XSA-332), or until there is
//! something to do. What the guest publishes meanwhile is found when that is over.
//!
//! Each time that there was something to do stands for [`FOUNDED`] events, and not for all that have been:
//! somebody else may send the guest a frame now and then.
//!
//! Owned by a [`gate`](super::gate). Knows no port and no clock.

use std::time::{Duration, Instant};

/// Events for nothing that have no consequence. An honest guest comes by a few, when what it signals has been
/// found already.
const FREE: u32 = 16;
/// Events that something to do may come with: one for each ring of a queue pair.
const FOUNDED: u32 = 2;
/// The first time that ports stay masked, and how often that is doubled.
const SHORTEST: Duration = Duration::from_millis(1);
const DOUBLINGS: u32 = 7;

/// Events that there was no reason for.
#[derive(Debug, Default)]
pub(super) struct Storm {
    events: u32,
    /// Until when ports that have signalled stay masked.
    until: Option<Instant>,
}

impl Storm {
    /// A port has signalled.
    #[inline]
    pub(super) fn event(&mut self) {
        self.events = (FREE + 1 + DOUBLINGS).min(self.events + 1);
    }

    /// There was something to do: ports may signal again.
    #[inline]
    pub(super) const fn was_founded(&mut self) {
        self.events = self.events.saturating_sub(FOUNDED);
        self.until = None;
    }

    /// There was nothing to do. Until when a port that has signalled stays masked all the same; `None` if it
    /// may signal again, and then it has to be unmasked. The time is asked for in a storm only.
    #[inline]
    pub(super) fn masks_until(&mut self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        match self.events.checked_sub(FREE + 1) {
            Some(beyond) => self.masked(beyond, now()),
            None => None,
        }
    }

    fn masked(&mut self, beyond: u32, now: Instant) -> Option<Instant> {
        let until = *self.until.get_or_insert(now + SHORTEST * (1 << beyond));
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
    }

    /// As with a frame from somebody else, now and then.
    #[test]
    fn something_to_do_stands_for_two() {
        let (mut storm, now) = (Storm::default(), Instant::now());
        for _ in 0..1_000 {
            storm.event();
        }
        for ms in [128, 64, 32] {
            let until = storm.masks_until(|| now);
            assert_eq!(until, Some(now + Duration::from_millis(ms)));
            storm.was_founded();
            assert!(!storm.keeps_masked());
            storm.event();
        }
    }

    #[test]
    fn it_is_forgiven_before_long() {
        let (mut storm, now) = (Storm::default(), Instant::now());
        for _ in 0..1_000 {
            storm.event();
        }
        for _ in 0..12 {
            storm.was_founded();
        }
        assert_eq!(masked_for(&mut storm, now), Duration::ZERO);
        assert_eq!(storm.events, 1);
    }

    #[test]
    fn whoever_signals_for_something_is_never_masked() {
        let mut storm = Storm::default();
        for _ in 0..1_000 {
            storm.event();
            storm.event();
            storm.was_founded();
            assert_eq!(storm.masks_until(|| panic!("no storm")), None);
        }
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
