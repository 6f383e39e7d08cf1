// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether it pays to look at the rings a little longer before going to sleep.
//!
//! Sleeping and being woken costs a frontend a hypercall, the hypervisor an interrupt, and us half
//! a dozen system calls; under load the next request comes sooner than that. So a worker whose
//! rings have just run dry may keep looking, for [`Patience::ROUNDS`] rounds at most, as long as
//! that has mostly brought something of late. What comes after frames have gone to the host and
//! what comes after frames have gone to guests are two things that are learnt by themselves: in a
//! flow of questions and answers one of the two is soon and the other is not. A worker without
//! traffic never looks.
//!
//! One that has just handed frames to the host does not look either if it would keep the only CPU
//! from whoever the frames are for: `sched_yield` does not see to that, since the scheduler
//! remembers that the worker has slept a lot and lets it go on.
//!
//! Knows no clock and no ring: the worker tells what came of each look. Asking the time would take
//! a system call in a PV dom0, as dear as much of what is to be spared.

/// What recent looks teach about the next.
#[derive(Debug)]
pub(super) struct Patience {
    after_frames_to_host: Habit,
    otherwise: Habit,
    /// There is one CPU for us and for whoever our frames are for.
    one_cpu: bool,
}

/// How well looking has paid of late.
#[derive(Debug, Default)]
struct Habit {
    /// Goes up with looks that brought something and down with those that did not.
    score: u8,
    /// Waits without a look since the last one.
    untried: u8,
}

impl Patience {
    /// Rounds of a look at most: some 30 to 50 us, about what a sleep and a wake-up cost.
    pub(super) const ROUNDS: u32 = 16;

    /// That of a worker on this machine, which has learnt nothing yet.
    pub(super) fn of_this_machine() -> Self {
        let cpus = std::thread::available_parallelism();
        Self::new(cpus.is_ok_and(|cpus| cpus.get() == 1))
    }

    fn new(one_cpu: bool) -> Self {
        Self {
            after_frames_to_host: Habit::default(),
            otherwise: Habit::default(),
            one_cpu,
        }
    }

    /// Whether nobody on this machine has to wait while we look, after frames have gone to the
    /// host (`delivered`) or not.
    pub(super) const fn keeps_nobody(&self, delivered: bool) -> bool {
        !(delivered && self.one_cpu)
    }

    /// Whether to look before this sleep.
    pub(super) fn is_worthwhile(&mut self, delivered: bool) -> bool {
        self.keeps_nobody(delivered) && self.habit(delivered).is_worthwhile()
    }

    /// Looking has brought something, or it has not.
    pub(super) fn learn(&mut self, delivered: bool, found: bool) {
        self.habit(delivered).learn(found);
    }

    const fn habit(&mut self, delivered: bool) -> &mut Habit {
        match delivered {
            true => &mut self.after_frames_to_host,
            false => &mut self.otherwise,
        }
    }
}

impl Habit {
    /// A look that pays weighs more than one that does not: it spares more than it costs.
    const FOUND: u8 = 2;
    const MOST: u8 = 8;
    /// One wait in so many is looked at even when that has not paid, since times change.
    const TRIED: u8 = 16;

    const fn is_worthwhile(&mut self) -> bool {
        self.untried += 1;
        let is_tried = self.score > 0 || self.untried >= Self::TRIED;
        if is_tried {
            self.untried = 0;
        }
        is_tried
    }

    fn learn(&mut self, found: bool) {
        self.score = match found {
            true => (self.score + Self::FOUND).min(Self::MOST),
            false => self.score.saturating_sub(1),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits in this many of a hundred bring something; how many of them were looked at.
    fn looks_of_a_hundred(
        patience: &mut Patience,
        delivered: bool,
        brings: impl Fn(u32) -> bool,
    ) -> u32 {
        let mut looks = 0;
        for wait in 0..100 {
            if patience.is_worthwhile(delivered) {
                looks += 1;
                patience.learn(delivered, brings(wait));
            }
        }
        looks
    }

    #[test]
    fn looking_that_never_pays_is_only_tried() {
        let mut patience = Patience::new(false);
        for delivered in [false, true] {
            assert_eq!(looks_of_a_hundred(&mut patience, delivered, |_| false), 6);
        }
    }

    #[test]
    fn looking_that_always_pays_is_soon_learnt() {
        let mut patience = Patience::new(false);
        let missed = 100 - looks_of_a_hundred(&mut patience, false, |_| true);
        assert_eq!(missed, 15, "until it was tried for the first time");
    }

    #[test]
    fn every_other_time_is_worth_it() {
        let mut patience = Patience::new(false);
        patience.learn(false, true);
        assert_eq!(
            looks_of_a_hundred(&mut patience, false, |wait| wait % 2 == 0),
            100
        );
    }

    #[test]
    fn when_it_does_not_pay_any_more_it_ends_soon() {
        let mut patience = Patience::new(false);
        for _ in 0..100 {
            patience.learn(false, true);
        }
        let looks = looks_of_a_hundred(&mut patience, false, |_| false);
        let (learning, tried) = (8, 92 / 16);
        assert_eq!(looks, learning + tried);
    }

    /// A question from the host and an answer by the guest: after a frame to the guest its answer
    /// comes soon, and after that the next question does not.
    #[test]
    fn the_two_directions_are_learnt_by_themselves() {
        let mut patience = Patience::new(false);
        let [mut to_guest, mut to_host] = [0, 0];
        for _ in 0..100 {
            if patience.is_worthwhile(false) {
                to_guest += 1;
                patience.learn(false, true);
            }
            if patience.is_worthwhile(true) {
                to_host += 1;
                patience.learn(true, false);
            }
        }
        assert_eq!((to_guest, to_host), (85, 6));
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
            patience.learn(delivered, true);
            assert_eq!(patience.is_worthwhile(delivered), expected);
            assert_eq!(patience.keeps_nobody(delivered), expected);
        }
    }
}
