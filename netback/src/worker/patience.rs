// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether it pays to look at the rings a little longer before going to sleep.
//!
//! Sleeping and being woken costs a frontend a hypercall, the hypervisor an interrupt, and us half
//! a dozen system calls; under load the next request comes sooner than that. So a worker whose
//! rings have just run dry may keep looking, for [`Patience::LIMIT`] at most, as long as waits of
//! late have been shorter than that. A worker without traffic never looks.
//!
//! One that has just handed frames to the host does not look either if it would keep the only CPU
//! from whoever the frames are for: `sched_yield` does not see to that, since the scheduler
//! remembers that the worker has slept a lot and lets it go on.
//!
//! Knows no clock and no ring: the worker tells how long each wait was, spent looking or asleep.

use std::time::Duration;

/// What recent waits teach about the next.
#[derive(Debug)]
pub(super) struct Patience {
    /// Goes up with short waits and down with long ones.
    score: u8,
    /// There is one CPU for us and for whoever our frames are for.
    one_cpu: bool,
}

impl Patience {
    /// The longest time to look before sleeping: about what a sleep and a wake-up cost.
    pub(super) const LIMIT: Duration = Duration::from_micros(50);

    /// A short wait weighs more than a long one: in a flow of questions and answers every other
    /// wait is long, and looking pays all the same.
    const SHORT: u8 = 2;
    const MOST: u8 = 8;

    /// That of a worker on this machine, which has learnt nothing yet.
    pub(super) fn of_this_machine() -> Self {
        let cpus = std::thread::available_parallelism();
        Self::new(cpus.is_ok_and(|cpus| cpus.get() == 1))
    }

    const fn new(one_cpu: bool) -> Self {
        Self { score: 0, one_cpu }
    }

    /// Whether to look before sleeping, after frames have gone to the host or not.
    pub(super) const fn is_worthwhile(&self, delivered: bool) -> bool {
        self.score > 0 && !(delivered && self.one_cpu)
    }

    /// Whether to let others run, with work at hand: whoever the frames are for must not find more
    /// of them than it has room for.
    pub(super) const fn gives_way(&self, delivered: bool) -> bool {
        delivered && self.one_cpu
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
        let mut patience = Patience::new(false);
        assert!(!patience.is_worthwhile(false));
        patience.waited(LONG);
        assert!(!patience.is_worthwhile(false));
    }

    #[test]
    fn a_question_with_a_quick_answer_each_time_is_worth_it() {
        let mut patience = Patience::new(false);
        for _ in 0..100 {
            patience.waited(SHORT);
            assert!(patience.is_worthwhile(false));
            patience.waited(LONG);
            assert!(patience.is_worthwhile(false));
        }
    }

    #[test]
    fn long_waits_end_it_soon() {
        let mut patience = Patience::new(false);
        for _ in 0..100 {
            patience.waited(SHORT);
        }
        for _ in 0..Patience::MOST {
            assert!(patience.is_worthwhile(false));
            patience.waited(LONG);
        }
        assert!(!patience.is_worthwhile(false));
    }

    #[test]
    fn the_only_cpu_is_left_to_whoever_the_frames_are_for() {
        for (one_cpu, delivered, expected) in [
            (false, false, true),
            (false, true, true),
            (true, false, true),
            (true, true, false),
        ] {
            let mut patience = Patience::new(one_cpu);
            patience.waited(SHORT);
            assert_eq!(patience.is_worthwhile(delivered), expected);
            assert_eq!(patience.gives_way(delivered), !expected);
        }
    }
}
