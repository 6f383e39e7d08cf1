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
        match self.times.get(&due) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => self.in_order.remove(&(*later, due)),
            None => false,
        };
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
}
