// SPDX-License-Identifier: GPL-3.0-or-later
//! Many vifs on one daemon: how long they take to attach, what they cost while nothing happens, and whether busy ones
//! share fairly.
//!
//! Everything is in this process, the simulated store, hypervisor and guests too, so what is said of its memory and of
//! its processor time is more than the daemon's own.

use std::time::{Duration, Instant};

use xen_ring::front::FrontTx;

use super::BenchError;
use super::frames::{Frame, Shape};
use super::guest::rx::Receiver;
use super::guest::tx::Sender;
use super::guest::{self, BenchGuest, End};
use super::process;
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
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// From the first vif's directories until the last vif was connected.
    pub(super) attach: Duration,
    /// Processor time of all that took part in it.
    pub(super) attach_cpu: Duration,
    /// Processor time while nothing happened.
    pub(super) idle_cpu: Duration,
    /// Resident bytes before the first vif.
    pub(super) empty_bytes: u64,
    /// And for each vif more.
    pub(super) vif_bytes: u64,
    /// Threads before the first vif, and with all of them.
    pub(super) threads: (usize, usize),
    /// The most frames that one busy vif got through, and the fewest.
    pub(super) shares: (u64, u64),
}

/// Pages that a busy guest sends from: few, since there are many guests.
const PAGES: usize = 4;

/// Measures.
pub(super) fn run(size: Size) -> Result<Outcome, BenchError> {
    let mut machine = Machine::new(Config::default())?;
    machine.start_daemon()?;
    let empty_bytes = process::resident()?;
    let threads = process::threads()?.len();

    let (started, cpu) = (Instant::now(), process::cpu_time()?);
    let guests = attach(&machine, size.vifs)?;
    let attach = started.elapsed();
    let attach_cpu = process::cpu_time()?.saturating_sub(cpu);
    let guests = guests.into_iter().map(Guest::ready);
    let guests = guests.collect::<Result<Vec<_>, _>>()?;
    let threads = (threads, process::threads()?.len());

    let idle_cpu = idle(size.idle)?;
    let grown = process::resident()?.saturating_sub(empty_bytes);

    let shares = send(guests, size)?;
    machine.stop_daemon()?;
    Ok(Outcome {
        attach,
        attach_cpu,
        idle_cpu,
        empty_bytes,
        vif_bytes: grown / u64::from(size.vifs).max(1),
        threads,
        shares,
    })
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

/// Has the first guests send flat out: the most and the fewest frames that one of them got through.
fn send(mut guests: Vec<Guest>, size: Size) -> Result<(u64, u64), BenchError> {
    let frame = Frame::new(Shape::Small);
    let _others_wait = guests.split_off(size.busy.min(guests.len()));
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for Guest {
        tx,
        receiver,
        hypervisor,
    } in guests
    {
        receivers.push(receiver);
        senders.push(Sender::new(tx, &hypervisor, PAGES, &frame)?);
    }
    let mut turn_until = |end: Instant| -> Result<Vec<u64>, BenchError> {
        while Instant::now() < end {
            let mut moved = false;
            for sender in &mut senders {
                moved |= sender.step(u64::MAX)?;
            }
            if !moved {
                // Guests with full rings leave the processor to the daemon.
                std::thread::yield_now();
            }
        }
        Ok(senders.iter().map(Sender::answered).collect())
    };
    let now = Instant::now();
    let before = turn_until(now + size.sending / 10)?;
    let after = turn_until(now + size.sending + size.sending / 10)?;
    let frames = || {
        after
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before)
    };
    Ok((
        frames().max().unwrap_or_default(),
        frames().min().unwrap_or_default(),
    ))
}
