// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether it pays to look at the rings a little longer before going to sleep.
//!
//! Sleeping and being woken costs a frontend a hypercall, the hypervisor an interrupt, and us half
//! a dozen system calls; under load the next request comes sooner than that. So a worker whose
//! rings have just run dry may keep looking, for [`Patience::LIMIT`] at most, as long as waits of
//! late have been shorter than that. A worker without traffic never looks.
//!
//! Knows no clock and no ring: the worker tells how long each wait was, spent looking or asleep.

use std::time::Duration;

/// What recent waits teach about the next.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Goes up with short waits and down with long ones.
    score: u8,
}

impl Patience {
    /// The longest time to look before sleeping: about what a sleep and a wake-up cost.
    pub(super) const LIMIT: Duration = Duration::from_micros(100);

    /// A short wait weighs more than a long one: in a flow of questions and answers every other
    /// wait is long, and looking pays all the same.
    const SHORT: u8 = 2;
    const MOST: u8 = 8;

    /// Whether to look before sleeping.
    pub(super) const fn is_worthwhile(&self) -> bool {
        self.score > 0
    }

    /// Something came after this time.
    pub(super) fn waited(&mut self, time: Duration) {
        self.score = if time < Self::LIMIT {
            (self.score + Self::SHORT).min(Self::MOST)
        } else {
            self.score.saturating_sub(1)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(20);
    const LONG: Duration = Duration::from_millis(5);

    #[test]
    fn a_worker_without_traffic_does_not_look() {
        let mut patience = Patience::default();
        assert!(!patience.is_worthwhile());
        patience.waited(LONG);
        assert!(!patience.is_worthwhile());
    }

    #[test]
    fn a_question_with_a_quick_answer_each_time_is_worth_it() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            patience.waited(SHORT);
            assert!(patience.is_worthwhile());
            patience.waited(LONG);
            assert!(patience.is_worthwhile());
        }
    }

    #[test]
    fn long_waits_end_it_soon() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            patience.waited(SHORT);
        }
        for _ in 0..Patience::MOST {
            assert!(patience.is_worthwhile());
            patience.waited(LONG);
        }
        assert!(!patience.is_worthwhile());
    }
}
