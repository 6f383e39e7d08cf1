// SPDX-License-Identifier: GPL-3.0-or-later
//! Has the tap choose the queue of each frame as the guest wants it: by the frame's hash and the
//! guest's table. Only for vifs of several queues.
//!
//! How, and why in the kernel: [`hotplug::steering`].

use std::io;
use std::time::{Duration, Instant};

use hotplug::steering::Table;
use hotplug::{Choice, Spread, Steering, Tap, TapError};
use xen_ring::DomId;

use super::hash::Hasher;
use super::machine::HashConfig;
use crate::logging::{RateLimited, if_any};

/// What steers the frames of one connection.
#[derive(Debug)]
pub(super) struct Steer {
    steering: Steering,
    /// What does without a hash.
    spread: Option<Spread>,
    queues: u16,
    program: Program,
    /// A guest may change its mind as often as it likes.
    failures: RateLimited,
}

/// Whether the tap has the guest's program. Each change of that takes the kernel's lock on network
/// interfaces, for which all of the host may be waiting, so a guest brings about a few at once and
/// then two a second. A new table, which takes no such lock, is all that a change takes otherwise.
#[derive(Debug)]
struct Program {
    attached: bool,
    removals: RateLimited,
}

/// Why a guest's table has not come into effect.
#[derive(Debug, thiserror::Error)]
enum SteerError {
    #[error("its table cannot be written: {0}")]
    Table(#[from] io::Error),
    #[error(transparent)]
    Program(#[from] TapError),
}

/// What to do about the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Attach,
    Remove,
    Nothing,
}

impl Program {
    const fn new() -> Self {
        Self {
            attached: false,
            removals: RateLimited::new(4, Duration::from_millis(500)),
        }
    }

    /// What is to be done so that the guest's table counts, or does not. A program that may not be
    /// removed yet stays: without a hash any choice is good.
    fn next(&mut self, wanted: bool, now: Instant) -> Step {
        match (self.attached, wanted) {
            (false, true) => Step::Attach,
            (true, false) if self.removals.allow(now).is_some() => Step::Remove,
            _ => Step::Nothing,
        }
    }

    /// A step has been done.
    fn done(&mut self, step: Step) {
        match step {
            Step::Attach => self.attached = true,
            Step::Remove => self.attached = false,
            Step::Nothing => {}
        }
    }
}

impl Steer {
    pub(super) fn new(steering: Steering, spread: Option<Spread>, queues: u16) -> Self {
        Self {
            steering,
            spread,
            queues,
            program: Program::new(),
            failures: RateLimited::new(1, Duration::from_secs(60)),
        }
    }

    /// Brings a new configuration into effect: without a hash, the queue is chosen by the flow that a
    /// frame belongs to. Nothing that a guest can configure makes this fail.
    pub(super) fn apply(
        &mut self,
        config: &HashConfig,
        hasher: Option<&Hasher>,
        tap: &Tap,
        guest: DomId,
    ) {
        if let Err(error) = self.steer(config, hasher, tap)
            && let Some(suppressed) = self.failures.allow(Instant::now())
        {
            tracing::error!(domid = %guest, %error, suppressed = if_any(suppressed), "packets are not steered as the guest wants it");
        }
    }

    fn steer(
        &mut self,
        config: &HashConfig,
        hasher: Option<&Hasher>,
        tap: &Tap,
    ) -> Result<(), SteerError> {
        if let Some(hasher) = hasher {
            self.set_table(config, hasher)?;
        }
        let step = self.program.next(hasher.is_some(), Instant::now());
        match step {
            Step::Attach => tap.set_steering(Choice::Steering(&self.steering))?,
            Step::Remove => tap.set_steering(self.spread.as_ref().into())?,
            Step::Nothing => {}
        }
        self.program.done(step);
        Ok(())
    }

    fn set_table(&self, config: &HashConfig, hasher: &Hasher) -> io::Result<()> {
        let modulo: Vec<u16> = (0..self.queues).collect();
        self.steering.set(&Table {
            types: hasher.types().bits(),
            contributions: hasher.contributions(),
            queues: match config.mapping.as_slice() {
                [] => &modulo,
                mapping => mapping,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `steer` does it, without a tap.
    fn step(program: &mut Program, wanted: bool, now: Instant) -> Step {
        let step = program.next(wanted, now);
        program.done(step);
        step
    }

    #[test]
    fn a_new_table_leaves_the_program_where_it_is() {
        let (mut program, now) = (Program::new(), Instant::now());
        assert_eq!(step(&mut program, false, now), Step::Nothing);
        assert_eq!(step(&mut program, true, now), Step::Attach);
        assert_eq!(step(&mut program, true, now), Step::Nothing);
        assert_eq!(step(&mut program, false, now), Step::Remove);
        assert_eq!(step(&mut program, false, now), Step::Nothing);
    }

    #[test]
    fn a_guest_that_flaps_changes_the_tap_a_few_times_only() {
        let (mut program, now) = (Program::new(), Instant::now());
        let mut changes = |at| {
            let steps = (0..1_000).map(|n| step(&mut program, n % 2 == 0, at));
            steps.filter(|step| *step != Step::Nothing).count()
        };
        assert_eq!(changes(now), 9, "four times off, and on before and after");
        assert_eq!(changes(now), 0, "it stays on");
        assert_eq!(changes(now + Duration::from_secs(1)), 4, "twice off and on");
    }
}
