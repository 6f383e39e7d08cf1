// SPDX-License-Identifier: GPL-3.0-or-later
//! The packet path against the limit of its tap.
//!
//! One vif, one queue, one worker on a processor of its own; the guest on another. In each round the daemon is stopped,
//! its tap taken over, and the same frames are written to it (or read from it) in a bare loop on the worker's
//! processor; then the daemon comes back, finds guest and tap as it left them, and does its part. Rounds alternate, so
//! that whatever else the machine does falls on both, and medians are taken.
//!
//! Towards the guest the frames are in the tap's queue before the clock starts, so no source of frames is measured. They
//! come from the guest's processor for both.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use hotplug::{Injector, Tap, TapOffload, TapOptions};

use super::BenchError;
use super::cost::{Cost, Stopwatch, Sum, per_frame};
use super::frames::{Frame, Shape};
use super::guest::rx::Receiver;
use super::guest::tx::Sender;
use super::guest::{self, BenchGuest};
use super::process::{self, Thread};
use super::tap;
use crate::config::Config;
use crate::demo::machine::Machine;
use crate::demo::toolstack::VifSpec;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Effort {
    /// Times that both are measured.
    pub(super) rounds: usize,
    /// A round's frames are this part of the usual.
    pub(super) divisor: u64,
}

/// Which way the frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the guest's tx ring to the tap.
    FromGuest,
    /// From the tap to the guest's rx ring.
    ToGuest,
}

/// One way and one size: every round's two costs.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) way: Way,
    pub(super) shape: Shape,
    /// The bare loop's cost and the backend's.
    pub(super) rounds: Vec<(Cost, Cost)>,
}

const GUEST: u16 = 1;
/// Room in the tap for what is put there before the clock starts.
const QUEUE: u32 = 4096;
/// How long nothing may move.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Steps between two looks at the clock.
const STEPS: u32 = 10_000;

/// Measures every size both ways; `done` hears of each as it is there.
pub(super) fn run(
    effort: Effort,
    mut done: impl FnMut(&Series) -> Result<(), BenchError>,
) -> Result<Vec<Series>, BenchError> {
    let mut rig = Rig::new()?;
    let mut all = Vec::new();
    for way in [Way::FromGuest, Way::ToGuest] {
        for shape in Shape::ALL {
            let frame = Frame::new(shape);
            let rounds = (0..effort.rounds).map(|_| rig.round(way, &frame, effort.divisor));
            let series = Series {
                way,
                shape,
                rounds: rounds.collect::<Result<_, BenchError>>()?,
            };
            done(&series)?;
            all.push(series);
        }
    }
    Ok(all)
}

/// The machine with its one guest.
struct Rig {
    machine: Machine,
    vif: VifSpec,
    sender: Sender,
    receiver: Receiver,
    tap: TapOptions,
    here: Thread,
    worker_cpu: usize,
    guest_cpu: usize,
}

impl Rig {
    fn new() -> Result<Self, BenchError> {
        let [worker_cpu, guest_cpu, ..] = *process::processors()?.as_slice() else {
            return Err(BenchError::OneProcessor);
        };
        let mut config = Config {
            workers: NonZeroU16::new(1),
            max_queues: NonZeroU16::new(1),
            ..Config::default()
        };
        config.tap.txqueuelen = QUEUE;
        let mut machine = Machine::new(config)?;
        machine.start_daemon()?;
        let vif = guest::create(&machine, GUEST)?;
        guest::plug(&machine, &vif)?;
        let BenchGuest {
            vif,
            hypervisor,
            tx,
            rx,
        } = guest::boot(&machine, vif)?;
        guest::wait_connected(&machine, &vif)?;
        let first = Frame::new(Shape::Small);
        Ok(Self {
            sender: Sender::new(tx, &hypervisor, 256, &first)?,
            receiver: Receiver::new(rx, &hypervisor, 256)?,
            machine,
            vif,
            tap: TapOptions {
                txqueuelen: QUEUE,
                ..TapOptions::default()
            },
            here: Thread::current(),
            worker_cpu,
            guest_cpu,
        })
    }
    /// The bare loop once, the backend once.
    fn round(&mut self, way: Way, frame: &Frame, divisor: u64) -> Result<(Cost, Cost), BenchError> {
        let amount = Amount::of(frame.shape, divisor);
        Ok((
            self.bare(way, frame, amount)?,
            self.backend(way, frame, amount)?,
        ))
    }

    fn bare(&mut self, way: Way, frame: &Frame, amount: Amount) -> Result<Cost, BenchError> {
        self.machine.stop_daemon()?;
        let tap = Tap::create(&self.vif.tap(), &self.tap)?;
        // As the daemon has it for this guest.
        tap.set_offload(TapOffload {
            csum: true,
            tso4: true,
            tso6: true,
            tso_ecn: false,
        })?;
        self.here.pin(self.worker_cpu)?;
        match way {
            Way::FromGuest => self.bare_write(&tap, frame, amount),
            Way::ToGuest => self.bare_read(&tap, frame, amount),
        }
    }

    fn bare_write(&self, tap: &Tap, frame: &Frame, amount: Amount) -> Result<Cost, BenchError> {
        let stopwatch = Stopwatch::start(self.here)?;
        for _ in 0..amount.written {
            tap.write(frame.on_tap())?;
        }
        stopwatch.cost_of(amount.written)
    }

    fn bare_read(&self, tap: &Tap, frame: &Frame, amount: Amount) -> Result<Cost, BenchError> {
        let source = Injector::open(&self.vif.tap())?;
        let mut room = tap::room();
        let probe = Frame::new(frame.shape.other());
        tap::until_open(&source, &probe, || Ok(tap::read(tap, &mut room)?.is_some()))?;
        while tap::read(tap, &mut room)?.is_some() {}
        let mut sum = Sum::default();
        for _ in 0..amount.fills {
            // What the worker's processor had allocated itself would be at hand, and cheaper to free.
            self.here.pin(self.guest_cpu)?;
            tap::fill(&source, frame, amount.filled)?;
            self.here.pin(self.worker_cpu)?;
            let stopwatch = Stopwatch::start(self.here)?;
            let mut frames = 0;
            while let Some(len) = tap::read(tap, &mut room)? {
                if len != frame.on_tap().len() {
                    return Err(BenchError::Strangers);
                }
                frames += 1;
            }
            if frames != amount.filled {
                return Err(BenchError::Lost {
                    moved: frames,
                    of: amount.filled,
                });
            }
            sum.add(stopwatch.cost_of(frames)?, frames);
        }
        Ok(sum.cost())
    }

    fn backend(&mut self, way: Way, frame: &Frame, amount: Amount) -> Result<Cost, BenchError> {
        self.machine.start_daemon()?;
        let worker = Thread::expect(WORKER)?;
        worker.pin(self.worker_cpu)?;
        self.here.pin(self.guest_cpu)?;
        match way {
            Way::FromGuest => self.transmit(worker, frame, amount),
            Way::ToGuest => self.receive(worker, frame, amount),
        }
    }

    fn transmit(
        &mut self,
        worker: Thread,
        frame: &Frame,
        amount: Amount,
    ) -> Result<Cost, BenchError> {
        self.sender.load(frame)?;
        self.send(amount.warm_up)?;
        let stopwatch = Stopwatch::start(worker)?;
        self.send(amount.written)?;
        let cost = stopwatch.cost_of(amount.written)?;
        self.check_delivered(amount.warm_up + amount.written)?;
        Ok(cost)
    }

    /// Sends so many frames, and waits until the last of them is answered. (Answers come before the frames are on the
    /// tap, by a burst at most, and so they do for the burst before the first.)
    fn send(&mut self, frames: u64) -> Result<(), BenchError> {
        let end = self.sender.sent() + frames;
        let sender = &mut self.sender;
        until_moved(|| {
            let moved = sender.step(end - sender.sent())?;
            Ok((moved, sender.sent() == end && sender.is_done()))
        })
    }

    /// Every frame that this daemon was given is to reach the tap.
    fn check_delivered(&self, sent: u64) -> Result<(), BenchError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.machine.status()?;
            let tx = status.vifs.first().map(|vif| vif.tx.clone());
            let tx = tx.unwrap_or_default();
            if tx.dropped() == 0 && tx.packets == sent {
                return Ok(());
            }
            if tx.dropped() > 0 || Instant::now() > deadline {
                return Err(BenchError::Lost {
                    moved: tx.packets,
                    of: sent,
                });
            }
        }
    }

    fn receive(
        &mut self,
        worker: Thread,
        frame: &Frame,
        amount: Amount,
    ) -> Result<Cost, BenchError> {
        let source = Injector::open(&self.vif.tap())?;
        let receiver = &mut self.receiver;
        receiver.expect(frame.shape.len());
        receiver.post()?;
        let strangers = receiver.strangers();
        tap::until_open(&source, &Frame::new(frame.shape.other()), || {
            receiver.collect()?;
            Ok(receiver.strangers() > strangers)
        })?;
        // The first time does not count. It brings what is left of the probes, too.
        self.drain(worker, &source, frame, amount.filled)?;
        let strangers = self.receiver.strangers();
        let mut sum = Sum::default();
        for _ in 0..amount.fills {
            let (cost, frames) = self.drain(worker, &source, frame, amount.filled)?;
            sum.add(cost, frames);
        }
        if self.receiver.strangers() > strangers {
            return Err(BenchError::Strangers);
        }
        Ok(sum.cost())
    }

    /// Fills the tap while the guest posts no buffers, then has the guest take everything. The clock starts when the
    /// first frames have come, so that the time it takes to wake a thread does not count; the cost, and the frames
    /// that it was measured over.
    fn drain(
        &mut self,
        worker: Thread,
        source: &Injector,
        frame: &Frame,
        filled: u64,
    ) -> Result<(Cost, u64), BenchError> {
        let receiver = &mut self.receiver;
        let start = receiver.received();
        tap::fill(source, frame, filled)?;
        // The buffers posted last time are used up first.
        until_moved(|| {
            let moved = receiver.collect()?;
            Ok((moved, receiver.posted() < frame.shape.buffers()))
        })?;
        let before = receiver.received();
        let cpu = worker.cpu_time()?;
        receiver.post()?;
        until_moved(|| Ok((receiver.collect()?, receiver.received() > before)))?;
        let (first, clock) = (receiver.received(), Instant::now());
        let end = start + filled;
        until_moved(|| {
            receiver.post()?;
            Ok((receiver.collect()?, receiver.received() >= end))
        })?;
        let frames = end - first;
        let wall = clock.elapsed();
        let cpu = worker.cpu_time()?.saturating_sub(cpu);
        receiver.post()?;
        let cost = Cost {
            wall: per_frame(wall, frames),
            cpu: per_frame(cpu, end - before),
        };
        Ok((cost, frames))
    }
}

/// The name of the one worker's thread.
const WORKER: &str = "netback/0";

/// Repeats `step`, which says whether anything has moved and whether it is done, until it is done, or until nothing
/// has moved for long.
fn until_moved(
    mut step: impl FnMut() -> Result<(bool, bool), BenchError>,
) -> Result<(), BenchError> {
    let mut still = 0;
    let mut since = Instant::now();
    loop {
        let (moved, done) = step()?;
        if done {
            return Ok(());
        }
        if moved {
            still = 0;
            continue;
        }
        std::hint::spin_loop();
        still += 1;
        if still == 1 {
            since = Instant::now();
        } else if still % STEPS == 0 && since.elapsed() > PATIENCE {
            return Err(BenchError::Stalled { after: PATIENCE });
        }
    }
}

/// How many frames one measurement moves.
#[derive(Debug, Clone, Copy)]
struct Amount {
    warm_up: u64,
    written: u64,
    /// Towards the guest: frames that wait in the tap, and how often.
    filled: u64,
    fills: u64,
}

impl Amount {
    fn of(shape: Shape, divisor: u64) -> Self {
        let (written, filled, fills) = match shape {
            Shape::Small | Shape::Full => (200_000, 2048, 40),
            Shape::Segments => (20_000, 256, 40),
        };
        Self {
            warm_up: 2000,
            written: (written / divisor).max(1),
            filled,
            fills: (fills / divisor).max(1),
        }
    }
}
