// SPDX-License-Identifier: GPL-3.0-or-later
//! When to try again after xenstored went away: a back-off on supplied time.

use std::time::{Duration, Instant};

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses of 100 ms, doubling up to 5 s.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    next: Instant,
    pause: Duration,
}

impl Backoff {
    /// The connection was lost at `now`: the first try is due 100 ms later.
    pub fn new(now: Instant) -> Self {
        Self {
            next: now + FIRST,
            pause: FIRST,
        }
    }

    /// When the next try is due.
    pub const fn due(&self) -> Instant {
        self.next
    }

    /// Whether a try is due.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// A try failed at `now`.
    pub fn failed(&mut self, now: Instant) {
        self.pause = self.pause.saturating_mul(2).min(LONGEST);
        self.next = now + self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_seconds() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let pause = Duration::from_millis(expected);
            assert_eq!(backoff.due(), now + pause);
            assert!(!backoff.is_due(now + pause - Duration::from_nanos(1)));
            now = backoff.due();
            assert!(backoff.is_due(now));
            backoff.failed(now);
        }
    }
}
