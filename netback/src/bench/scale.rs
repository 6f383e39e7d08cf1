// SPDX-License-Identifier: GPL-3.0-or-later
//! Many vifs on one daemon: how long they take to attach, what they cost while nothing happens, and whether busy ones
//! share fairly.
//!
//! Everything is in this process, the simulated store, hypervisor and guests too, so what is said of its memory and of
//! its processor time is more than the daemon's own. Where threads can be told apart, they are.
//!
//! Guests share a worker by turns, and workers share the processors as the scheduler sees fit, among themselves and with
//! whoever else runs there: with fewer processors than workers and guests there is no telling how. So beside the
//! shares of all, those of the guests of each worker are shown, and how long it ran.

use std::io;
use std::time::{Duration, Instant};

use xen_ring::front::FrontTx;

use super::BenchError;
use super::frames::{Frame, Shape};
use super::guest::rx::Receiver;
use super::guest::tx::Sender;
use super::guest::{self, BenchGuest, End};
use super::process::{self, Thread};
use crate::config::Config;
use crate::demo::machine::Machine;
use crate::demo::sim::SimGuest;
use crate::demo::toolstack::VifSpec;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Guests, with one vif each.
    pub(super) vifs: u16,
    /// Of them, those that send.
    pub(super) busy: usize,
    /// How long nothing happens, and how long they send.
    pub(super) idle: Duration,
    pub(super) sending: Duration,
}

/// What came out.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// From the first vif's directories until the last vif was connected.
    pub(super) attach: Duration,
    /// Processor time of all that took part in it.
    pub(super) attach_cpu: AttachTime,
    /// Processor time while nothing happened.
    pub(super) idle_cpu: Duration,
    /// Resident bytes before the first vif.
    pub(super) empty_bytes: u64,
    /// And for each vif more.
    pub(super) vif_bytes: u64,
    /// Threads before the first vif, and with all of them.
    pub(super) threads: (usize, usize),
    /// What each busy vif got through.
    pub(super) shares: Vec<Share>,
    /// How long each worker ran while they sent.
    pub(super) worker_cpu: Vec<Duration>,
    /// One more vif, which sends a frame now and then.
    pub(super) light: Light,
}

/// A vif that sends a frame now and then, beside busy ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Light {
    /// Busy vifs of its worker.
    pub(super) beside: usize,
    /// Frames that they got through while it waited for an answer: the median, and nine of ten.
    pub(super) median: u64,
    pub(super) most: u64,
}

/// Processor time by who it was spent for.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttachTime {
    /// The daemon: its control thread and its workers, with what the kernel does for them.
    pub(super) daemon: Duration,
    /// The simulated store.
    pub(super) store: Duration,
    /// Toolstack and guests.
    pub(super) others: Duration,
}

/// What one busy vif got through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    /// Its worker.
    pub(super) worker: usize,
    pub(super) frames: u64,
}

/// Pages that a busy guest sends from: few, since there are many guests.
const PAGES: usize = 4;
/// Steps of busy guests between an answer to the light one and the next frame that it sends.
const LIGHT_PAUSE: u32 = 50;

/// Measures.
pub(super) fn run(size: Size) -> Result<Outcome, BenchError> {
    let mut config = Config::default();
    // One thread plays all guests. Joined, a frame costs a worker hardly more than that thread, which would be what is
    // scarce then, and the shares its.
    config.tap.join_datagrams = false;
    let mut machine = Machine::new(config)?;
    machine.start_daemon()?;
    let empty_bytes = process::resident()?;
    let threads = process::threads()?.len();

    let crew = Crew::find(machine.status()?.workers)?;
    let (started, cpu) = (Instant::now(), crew.times()?);
    let guests = attach(&machine, size.vifs)?;
    let attach = started.elapsed();
    let attach_cpu = crew.times()?.since(cpu);
    let guests = guests.into_iter().map(Guest::ready);
    let guests = guests.collect::<Result<Vec<_>, _>>()?;
    let threads = (threads, process::threads()?.len());

    let idle_cpu = idle(size.idle)?;
    let grown = process::resident()?.saturating_sub(empty_bytes);

    let workers = workers(&machine, size.busy + 1)?;
    let sent = send(guests, &workers, size, &crew)?;
    machine.stop_daemon()?;
    Ok(Outcome {
        attach,
        attach_cpu,
        idle_cpu,
        empty_bytes,
        vif_bytes: grown / u64::from(size.vifs).max(1),
        threads,
        shares: sent.shares,
        worker_cpu: sent.worker_cpu,
        light: sent.light,
    })
}

/// The daemon's threads and the store's.
struct Crew {
    control: Thread,
    workers: Vec<Thread>,
    store: Thread,
}

impl Crew {
    fn find(workers: usize) -> Result<Self, BenchError> {
        let workers = (0..workers).map(|number| Thread::expect(&format!("netback/{number}")));
        Ok(Self {
            control: Thread::expect("netback")?,
            workers: workers.collect::<Result<_, _>>()?,
            store: Thread::expect("fake-xenstored")?,
        })
    }

    fn of_workers(&self) -> io::Result<Vec<Duration>> {
        self.workers
            .iter()
            .map(|worker| worker.cpu_time())
            .collect()
    }

    fn times(&self) -> io::Result<AttachTime> {
        let daemon = self.control.cpu_time()? + self.of_workers()?.iter().sum();
        let store = self.store.cpu_time()?;
        let all = process::cpu_time()?;
        Ok(AttachTime {
            daemon,
            store,
            others: all.saturating_sub(daemon + store),
        })
    }
}

impl AttachTime {
    fn since(self, before: Self) -> Self {
        Self {
            daemon: self.daemon.saturating_sub(before.daemon),
            store: self.store.saturating_sub(before.store),
            others: self.others.saturating_sub(before.others),
        }
    }

    pub(super) fn all(self) -> Duration {
        self.daemon + self.store + self.others
    }
}

/// The workers of the first vifs, in the order in which [`attach`] makes them.
fn workers(machine: &Machine, first: usize) -> Result<Vec<usize>, BenchError> {
    let mut vifs = machine.status()?.vifs;
    vifs.sort_by_key(|vif| vif.domid);
    vifs.iter()
        .take(first)
        .map(|vif| vif.by_queue.first()?.worker)
        .collect::<Option<_>>()
        .ok_or(BenchError::NoThread)
}

/// What toolstack and guests do, each step for all vifs before the next, as when a host boots.
fn attach(machine: &Machine, vifs: u16) -> Result<Vec<BenchGuest>, BenchError> {
    let created = (1..=vifs).map(|dom| guest::create(machine, dom));
    let created = created.collect::<Result<Vec<VifSpec>, _>>()?;
    for vif in &created {
        guest::plug(machine, vif)?;
    }
    let booted = created.into_iter().map(|vif| guest::boot(machine, vif));
    let booted = booted.collect::<Result<Vec<_>, _>>()?;
    for guest in &booted {
        guest::wait_connected(machine, &guest.vif)?;
    }
    Ok(booted)
}

/// A guest that waits: its buffers are posted, as those of every guest whose interface is up.
struct Guest {
    tx: End<FrontTx>,
    receiver: Receiver,
    hypervisor: SimGuest,
}

impl Guest {
    fn ready(guest: BenchGuest) -> Result<Self, BenchError> {
        let BenchGuest {
            hypervisor, tx, rx, ..
        } = guest;
        let mut receiver = Receiver::new(rx, &hypervisor, 1)?;
        receiver.post()?;
        Ok(Self {
            tx,
            receiver,
            hypervisor,
        })
    }
}

/// Processor time over a while in which nobody does anything.
fn idle(time: Duration) -> Result<Duration, BenchError> {
    // What the last vif's attachment still brings about is not idleness: the daemon looks once more, after 2 s,
    // whether it waits for a script.
    std::thread::sleep(Duration::from_secs(3));
    let before = process::cpu_time()?;
    std::thread::sleep(time);
    Ok(process::cpu_time()?.saturating_sub(before))
}

/// What came of sending.
struct Sent {
    shares: Vec<Share>,
    worker_cpu: Vec<Duration>,
    light: Light,
}

/// Has the first guests send flat out, and the next one a frame now and then. `workers` are theirs.
fn send(
    mut guests: Vec<Guest>,
    workers: &[usize],
    size: Size,
    crew: &Crew,
) -> Result<Sent, BenchError> {
    let frame = Frame::new(Shape::Small);
    let _others_wait = guests.split_off((size.busy + 1).min(guests.len()));
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for (guest, &worker) in guests.into_iter().zip(workers) {
        let Guest {
            tx,
            receiver,
            hypervisor,
        } = guest;
        receivers.push(receiver);
        senders.push((worker, Sender::new(tx, &hypervisor, PAGES, &frame)?));
    }
    let (worker, light) = senders.pop().ok_or(BenchError::NoThread)?;
    let mut light = LightSender::new(light);
    let mut turn_until = |end: Instant| -> Result<Vec<u64>, BenchError> {
        while Instant::now() < end {
            let mut moved = false;
            for (busy_worker, sender) in &mut senders {
                let before = sender.answered();
                moved |= sender.step(u64::MAX)?;
                if *busy_worker == worker {
                    light.passed += sender.answered() - before;
                }
                light.step()?;
            }
            if !moved {
                // Guests with full rings leave the processor to the daemon.
                std::thread::yield_now();
            }
        }
        Ok(senders
            .iter()
            .map(|(_, sender)| sender.answered())
            .collect())
    };
    let now = Instant::now();
    let (before, cpu) = (turn_until(now + size.sending / 10)?, crew.of_workers()?);
    let after = turn_until(now + size.sending + size.sending / 10)?;
    let ran = crew.of_workers()?.into_iter().zip(cpu);
    let beside = senders.iter().filter(|(busy, _)| *busy == worker);
    let shares = after.iter().zip(before).zip(workers);
    Ok(Sent {
        light: light.outcome(beside.count()),
        shares: shares
            .map(|((after, before), &worker)| Share {
                worker,
                frames: after - before,
            })
            .collect(),
        worker_cpu: ran
            .map(|(after, before)| after.saturating_sub(before))
            .collect(),
    })
}

/// Sends one frame, waits for its answer, and after a pause the next.
struct LightSender {
    sender: Sender,
    /// Frames that the busy ones of its worker have got through.
    passed: u64,
    /// How many those were when it sent the frame that it waits for.
    sent_at: Option<u64>,
    waits: Vec<u64>,
    pause: u32,
}

impl LightSender {
    const fn new(sender: Sender) -> Self {
        Self {
            sender,
            passed: 0,
            sent_at: None,
            waits: Vec::new(),
            pause: 0,
        }
    }

    fn step(&mut self) -> Result<(), BenchError> {
        match self.sent_at {
            None if self.pause > 0 => self.pause -= 1,
            None => {
                self.sender.step(1)?;
                self.sent_at = Some(self.passed);
            }
            Some(sent_at) => {
                self.sender.step(0)?;
                if self.sender.is_done() {
                    self.waits.push(self.passed - sent_at);
                    self.sent_at = None;
                    self.pause = LIGHT_PAUSE;
                }
            }
        }
        Ok(())
    }

    fn outcome(mut self, beside: usize) -> Light {
        self.waits.sort_unstable();
        let at = |part: usize| self.waits.get(self.waits.len() * part / 10).copied();
        Light {
            beside,
            median: at(5).unwrap_or_default(),
            most: at(9).unwrap_or_default(),
        }
    }
}
