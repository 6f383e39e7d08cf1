// SPDX-License-Identifier: GPL-3.0-or-later
//! Which worker a queue pair goes to: one that has the fewest, in turn where several have.
//!
//! So a connection's queue pairs are spread, and workers stay even when guests go: of a hundred,
//! say, every other one, which would leave one of two workers with all that remain.

use std::sync::Arc;

use super::WorkerId;

/// Places on the workers.
#[derive(Debug)]
pub(super) struct Places {
    /// For each worker, something that all who have a place there hold.
    workers: Vec<Arc<()>>,
    /// Who comes first where several have the fewest.
    next: usize,
}

/// A place on a worker, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    worker: WorkerId,
    _held: Arc<()>,
}

impl Places {
    /// All free.
    pub(super) fn new(workers: usize) -> Self {
        // Were there none, there would be nobody to send a command to either.
        let workers = (0..workers.max(1)).map(|_| Arc::default());
        Self {
            workers: workers.collect(),
            next: 0,
        }
    }

    pub(super) fn take(&mut self) -> Place {
        let (before, from) = self.workers.split_at(self.next);
        let in_turn = (self.next..).zip(from).chain((0..).zip(before));
        let (number, held) = in_turn
            .min_by_key(|(_, held)| Arc::strong_count(held))
            .map_or_else(Default::default, |(number, held)| {
                (number, Arc::clone(held))
            });
        self.next = (number + 1) % self.workers.len();
        Place {
            worker: WorkerId(number),
            _held: held,
        }
    }
}

impl Place {
    /// Where it is.
    pub const fn worker(&self) -> WorkerId {
        self.worker
    }

    /// One that nobody counts.
    #[cfg(test)]
    pub(crate) fn uncounted(worker: WorkerId) -> Self {
        Self {
            worker,
            _held: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &mut Places, count: usize) -> Vec<Place> {
        (0..count).map(|_| places.take()).collect()
    }

    fn numbers(taken: &[Place]) -> Vec<usize> {
        taken.iter().map(|place| place.worker().number()).collect()
    }

    #[test]
    fn in_turn_while_nobody_goes() {
        let mut places = Places::new(3);
        let taken = take(&mut places, 7);
        assert_eq!(numbers(&taken), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn in_turn_also_for_those_who_come_alone() {
        let mut places = Places::new(2);
        let turns: Vec<_> = (0..4).map(|_| places.take().worker().number()).collect();
        assert_eq!(turns, [0, 1, 0, 1]);
    }

    #[test]
    fn who_has_lost_most_gets_the_next() {
        let mut places = Places::new(2);
        let taken = take(&mut places, 8);
        // Every other guest goes: all on worker 1.
        let stay: Vec<_> = taken.into_iter().step_by(2).collect();
        assert_eq!(numbers(&stay), [0, 0, 0, 0]);
        let come = take(&mut places, 6);
        assert_eq!(numbers(&come), [1, 1, 1, 1, 0, 1]);
    }
}
