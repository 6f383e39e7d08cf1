// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of one script run, without a process and without a clock: [`Life::handle`] is the whole table.
//!
//! Guarantees: a run ends exactly once; its process is asked to be killed exactly once, and only while it runs; what
//! happens after the deadline, even an exit with status 0, is a timeout.

use std::fmt;
use std::time::{Duration, Instant};

/// How long libxl waits for a script (LIBXL_HOTPLUG_TIMEOUT), and the default here.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(40);

/// How a script's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptExit {
    /// It exited with this status; 0 is success.
    Status(i32),
    /// A signal ended it.
    Signal(i32),
}

impl ScriptExit {
    /// Whether the script says that it did its work.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self, Self::Status(0))
    }
}

impl fmt::Display for ScriptExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptState {
    /// Not started.
    Pending,
    /// Running; it will be killed at `deadline`.
    Running {
        /// When its time is over.
        deadline: Instant,
    },
    /// It ended by itself in time.
    Finished(ScriptExit),
    /// Its time was over; it has been killed.
    TimedOut,
}

impl ScriptState {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Finished(_) | Self::TimedOut)
    }
}

/// What happens to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptEvent {
    /// The process was started.
    Started,
    /// The process ended and was reaped.
    Exited(ScriptExit),
    /// Time passed.
    Tick,
}

/// What the owner of the process has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum ScriptAction {
    /// Nothing.
    None,
    /// Kill the script's process group.
    Kill,
}

/// One run's state and its time limit.
#[derive(Debug, Clone)]
pub struct Life {
    state: ScriptState,
    limit: Duration,
}

impl Life {
    /// A run that has not started and may take `limit` once it has.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self {
            state: ScriptState::Pending,
            limit,
        }
    }

    /// Where the run is.
    #[must_use]
    pub const fn state(&self) -> ScriptState {
        self.state
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, event: ScriptEvent, now: Instant) -> ScriptAction {
        use ScriptAction as A;
        use ScriptEvent as E;
        use ScriptState as S;
        let (next, action) = match (self.state, event) {
            // A limit beyond what the clock can express is no limit worth having: start over with the default.
            (S::Pending, E::Started) => {
                let deadline = now
                    .checked_add(self.limit)
                    .unwrap_or_else(|| now + DEFAULT_LIMIT);
                (S::Running { deadline }, A::None)
            }
            (S::Running { deadline }, E::Exited(exit)) if now < deadline => {
                (S::Finished(exit), A::None)
            }
            (S::Running { .. }, E::Exited(_)) => (S::TimedOut, A::None),
            (S::Running { deadline }, E::Tick) if now >= deadline => (S::TimedOut, A::Kill),
            (same @ S::Running { .. }, E::Started | E::Tick) => (same, A::None),
            (same @ S::Pending, E::Exited(_) | E::Tick) => (same, A::None),
            (same @ (S::Finished(_) | S::TimedOut), _) => (same, A::None),
        };
        self.state = next;
        action
    }
}

#[cfg(test)]
mod tests {
    use super::ScriptAction as A;
    use super::ScriptEvent as E;
    use super::ScriptState as S;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(40);
    const OK: ScriptExit = ScriptExit::Status(0);

    #[test]
    fn every_state_and_event() {
        let start = Instant::now();
        let before = start + LIMIT - Duration::from_nanos(1);
        let deadline = start + LIMIT;
        let running = S::Running { deadline };
        let table = [
            (S::Pending, E::Started, start, running, A::None),
            (S::Pending, E::Exited(OK), start, S::Pending, A::None),
            (S::Pending, E::Tick, deadline, S::Pending, A::None),
            (running, E::Started, before, running, A::None),
            (running, E::Tick, before, running, A::None),
            (running, E::Tick, deadline, S::TimedOut, A::Kill),
            (running, E::Exited(OK), before, S::Finished(OK), A::None),
            (running, E::Exited(OK), deadline, S::TimedOut, A::None),
            (
                S::Finished(OK),
                E::Started,
                deadline,
                S::Finished(OK),
                A::None,
            ),
            (
                S::Finished(OK),
                E::Exited(ScriptExit::Signal(9)),
                deadline,
                S::Finished(OK),
                A::None,
            ),
            (S::Finished(OK), E::Tick, deadline, S::Finished(OK), A::None),
            (S::TimedOut, E::Started, deadline, S::TimedOut, A::None),
            (S::TimedOut, E::Exited(OK), deadline, S::TimedOut, A::None),
            (S::TimedOut, E::Tick, deadline, S::TimedOut, A::None),
        ];
        for (state, event, now, next, action) in table {
            let mut life = Life {
                state,
                limit: LIMIT,
            };
            assert_eq!(
                (life.handle(event, now), life.state()),
                (action, next),
                "{state:?} {event:?}"
            );
            assert_eq!(next.is_over(), matches!(next, S::Finished(_) | S::TimedOut));
        }
    }

    #[test]
    fn an_absurd_limit_is_the_default_one() {
        let now = Instant::now();
        let mut life = Life::new(Duration::MAX);
        assert_eq!(life.handle(E::Started, now), A::None);
        assert_eq!(
            life.state(),
            S::Running {
                deadline: now + DEFAULT_LIMIT
            }
        );
    }

    #[test]
    fn exits_read_as_sentences() {
        assert_eq!(ScriptExit::Status(3).to_string(), "exit status 3");
        assert_eq!(ScriptExit::Signal(9).to_string(), "killed by signal 9");
        assert!(
            OK.success() && !ScriptExit::Status(1).success() && !ScriptExit::Signal(0).success()
        );
    }
}
