// SPDX-License-Identifier: GPL-3.0-or-later
//! What a thread has to do at a later time, in order of time.
//!
//! One poll timeout serves everything that is due; with nothing set, the thread sleeps until
//! something happens. Used by the control thread and by each worker; the clock is theirs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Pending times, each with what is due then.
#[derive(Debug)]
pub(crate) struct Timers<T>(BTreeSet<(Instant, T)>);

impl<T: Copy + Ord> Timers<T> {
    /// Makes `due` due at `at`.
    pub(crate) fn set(&mut self, at: Instant, due: T) {
        self.0.insert((at, due));
    }

    /// Takes back what was [`set`](Self::set); nothing happens if it is not there any more.
    pub(crate) fn cancel(&mut self, at: Instant, due: T) {
        self.0.remove(&(at, due));
    }

    /// Takes back all that is `meant`, whenever it is due.
    pub(crate) fn cancel_all(&mut self, meant: impl Fn(T) -> bool) {
        self.0.retain(|(_, due)| !meant(*due));
    }

    /// Whether nothing is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are set.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How long to sleep at most; `None` is for ever.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Duration> {
        self.0
            .first()
            .map(|(at, _)| at.saturating_duration_since(now))
    }

    /// Takes the next thing that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<T> {
        let first = self.0.first().copied()?;
        if first.0 > now {
            return None;
        }
        self.0.remove(&first);
        Some(first.1)
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
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
        timers.cancel(after(15), 'c');
        timers.cancel(after(99), 'c');
        timers.set(after(5), 'd');
        timers.set(after(50), 'd');
        timers.cancel_all(|due| due == 'd');
        assert_eq!(timers.timeout(start), Some(Duration::from_millis(10)));
        assert_eq!(timers.pop(after(9)), None);
        assert_eq!(timers.pop(after(30)), Some('a'));
        assert_eq!(timers.timeout(after(30)), Some(Duration::ZERO));
        assert_eq!(timers.pop(after(30)), Some('b'));
        assert_eq!((timers.pop(after(30)), timers.is_empty()), (None, true));
    }
}
