// SPDX-License-Identifier: GPL-3.0-or-later
//! What a thread has to do at a later time, in order of time.
//!
//! One poll timeout serves everything that is due; with nothing set, the thread sleeps until
//! something happens. Used by the control thread and by each worker; the clock is theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Pending times, each with what is due then. Nothing is due twice.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    in_order: BTreeSet<(Instant, T)>,
    /// The same, by what is due.
    times: BTreeMap<T, Instant>,
}

impl<T: Copy + Ord> Timers<T> {
    /// Makes `due` due at `at` at the latest: an earlier time stays.
    pub(crate) fn set(&mut self, at: Instant, due: T) {
        if self.times.get(&due).is_some_and(|earlier| *earlier <= at) {
            return;
        }
        self.cancel(due);
        self.times.insert(due, at);
        self.in_order.insert((at, due));
    }

    /// Takes back what was [`set`](Self::set); nothing happens if it is not there any more.
    pub(crate) fn cancel(&mut self, due: T) {
        if let Some(at) = self.times.remove(&due) {
            self.in_order.remove(&(at, due));
        }
    }

    /// Takes back all that is `meant`, whenever it is due.
    pub(crate) fn cancel_all(&mut self, meant: impl Fn(T) -> bool) {
        self.times.retain(|due, _| !meant(*due));
        self.in_order.retain(|(_, due)| !meant(*due));
    }

    /// Whether `due` is due at some time.
    pub(crate) fn is_set(&self, due: T) -> bool {
        self.times.contains_key(&due)
    }

    /// Whether nothing is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// How many are set.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// How long to sleep at most; `None` is for ever.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Duration> {
        let (at, _) = self.in_order.first()?;
        Some(at.saturating_duration_since(now))
    }

    /// Takes the next thing that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<T> {
        let (at, due) = self.in_order.first().copied()?;
        if at > now {
            return None;
        }
        self.cancel(due);
        Some(due)
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            in_order: BTreeSet::new(),
            times: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn in_order_of_time_and_not_before() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        assert_eq!((timers.timeout(start), timers.is_empty()), (None, true));
        timers.set(after(20), 'b');
        timers.set(after(10), 'a');
        timers.set(after(15), 'c');
        timers.cancel('c');
        timers.cancel('x');
        timers.set(after(5), 'd');
        timers.set(after(50), 'e');
        timers.cancel_all(|due| due > 'c');
        assert_eq!(
            ['a', 'b', 'c', 'd'].map(|due| timers.is_set(due)),
            [true, true, false, false]
        );
        assert_eq!(timers.timeout(start), Some(Duration::from_millis(10)));
        assert_eq!(timers.pop(after(9)), None);
        assert_eq!(timers.pop(after(30)), Some('a'));
        assert_eq!(timers.timeout(after(30)), Some(Duration::ZERO));
        assert_eq!(timers.pop(after(30)), Some('b'));
        assert_eq!((timers.pop(after(30)), timers.is_empty()), (None, true));
    }

    #[test]
    fn nothing_is_due_twice_and_the_earliest_time_counts() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set(after(20), 'a');
        timers.set(after(30), 'a');
        assert_eq!(timers.timeout(start), Some(Duration::from_millis(20)));
        timers.set(after(10), 'a');
        assert_eq!(timers.timeout(start), Some(Duration::from_millis(10)));
        assert_eq!(timers.pop(after(30)), Some('a'));
        assert!(!timers.is_set('a') && timers.is_empty());
        assert_eq!(timers.pop(after(30)), None);
        timers.set(after(40), 'a');
        assert_eq!(timers.pop(after(40)), Some('a'));
    }

    proptest! {
        /// Beside a plain list: what is due first comes first, and nothing is lost or due twice.
        #[test]
        fn as_a_list_would_have_it(steps in proptest::collection::vec((0..4_u8, 0..8_u64, 0..5_u8), 1..60)) {
            let start = Instant::now();
            let mut timers = Timers::default();
            let mut list: Vec<(Instant, u8)> = Vec::new();
            for (step, ms, due) in steps {
                let at = start + Duration::from_millis(ms);
                match step {
                    0 | 1 => {
                        timers.set(at, due);
                        let before = list.iter().find(|(_, other)| *other == due).copied();
                        list.retain(|(_, other)| *other != due);
                        list.push((before.map_or(at, |(before, _)| at.min(before)), due));
                    }
                    2 => {
                        timers.cancel_all(|other| other == due);
                        list.retain(|(_, other)| *other != due);
                    }
                    _ => {
                        let first = list.iter().min().copied().filter(|(first, _)| *first <= at);
                        prop_assert_eq!(timers.pop(at), first.map(|(_, due)| due));
                        list.retain(|one| Some(*one) != first);
                    }
                }
                prop_assert_eq!(timers.len(), list.len());
                prop_assert!(list.iter().all(|(_, due)| timers.is_set(*due)));
                let first = list.iter().min().map(|(at, _)| at.saturating_duration_since(start));
                prop_assert_eq!(timers.timeout(start), first);
            }
        }
    }
}
