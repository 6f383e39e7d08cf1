// SPDX-License-Identifier: GPL-3.0-or-later
//! What moving a frame costs: time on the clock, and time of the one thread that does it.

use std::time::{Duration, Instant};

use super::BenchError;
use super::process::Thread;

/// What moving one frame takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cost {
    /// On the clock, in nanoseconds.
    pub(super) wall: f64,
    /// Of the processor that moves it, in nanoseconds.
    pub(super) cpu: f64,
}

/// Both clocks of a thread at work.
pub(super) struct Stopwatch {
    thread: Thread,
    wall: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub(super) fn start(thread: Thread) -> Result<Self, BenchError> {
        Ok(Self {
            thread,
            cpu: thread.cpu_time()?,
            wall: Instant::now(),
        })
    }

    pub(super) fn cost_of(self, frames: u64) -> Result<Cost, BenchError> {
        let wall = self.wall.elapsed();
        let cpu = self.thread.cpu_time()?.saturating_sub(self.cpu);
        Ok(Cost {
            wall: per_frame(wall, frames),
            cpu: per_frame(cpu, frames),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few million frames")]
pub(super) fn per_frame(time: Duration, frames: u64) -> f64 {
    time.as_secs_f64() * 1e9 / frames.max(1) as f64
}

/// A mean over measurements, each with its number of frames.
#[derive(Debug, Default)]
pub(super) struct Sum {
    wall: f64,
    cpu: f64,
    frames: f64,
}

impl Sum {
    #[expect(clippy::cast_precision_loss, reason = "a few million frames")]
    pub(super) fn add(&mut self, cost: Cost, frames: u64) {
        let frames = frames as f64;
        self.wall += cost.wall * frames;
        self.cpu += cost.cpu * frames;
        self.frames += frames;
    }

    pub(super) fn cost(&self) -> Cost {
        Cost {
            wall: self.wall / self.frames,
            cpu: self.cpu / self.frames,
        }
    }
}
