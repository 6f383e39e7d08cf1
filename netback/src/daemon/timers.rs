// SPDX-License-Identifier: GPL-3.0-or-later
//! What the control thread has to do at a later time, in order of time.
//!
//! One poll timeout serves them all; with none set, the thread sleeps until something happens.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use xenbus::DevicePath;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// Say that a device still waits for its hotplug script.
    HotplugWait(DevicePath),
    /// Write again what the store refused.
    Resync(DevicePath),
    /// Look at a script that the daemon runs: its time may be over.
    Script(DevicePath),
}

/// Pending times.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Due)>);

impl Timers {
    /// Makes `due` due at `at`.
    pub(super) fn set(&mut self, at: Instant, due: Due) {
        self.0.insert((at, due));
    }

    /// How long to sleep at most; `None` is for ever.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        self.0
            .first()
            .map(|(at, _)| at.saturating_duration_since(now))
    }

    /// Takes the next thing that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Due> {
        let first = self.0.first().copied()?;
        if first.0 > now {
            return None;
        }
        self.0.remove(&first);
        Some(first.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_of_time_and_not_before() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let device = DevicePath::new(xenbus::DomId::ZERO, 0);
        let mut timers = Timers::default();
        assert_eq!(timers.timeout(start), None);
        timers.set(after(20), Due::Script(device));
        timers.set(after(10), Due::HotplugWait(device));
        assert_eq!(timers.timeout(start), Some(Duration::from_millis(10)));
        assert_eq!(timers.pop(after(9)), None);
        assert_eq!(timers.pop(after(30)), Some(Due::HotplugWait(device)));
        assert_eq!(timers.timeout(after(30)), Some(Duration::ZERO));
        assert_eq!(timers.pop(after(30)), Some(Due::Script(device)));
        assert_eq!(timers.pop(after(30)), None);
    }
}
