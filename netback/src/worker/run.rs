// SPDX-License-Identifier: GPL-3.0-or-later
//! A worker's loop: wait, put the queue pairs that have something to do into the [`Line`], and give
//! the first few in it a turn. A queue pair may ask for a turn at a later moment; the loop sleeps no
//! longer than until the next of those.
//!
//! Turns are bounded (a burst or three in each direction), and the line is fair, so one busy guest
//! takes its share and no more.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use hotplug::Tap;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use xen_ring::{EventChannels, Hypervisor, LocalPort, SysError};

use super::line::Line;
use super::patience::Patience;
use super::{Command, ConnectRequest, Mailbox, QueueId, Report, WAKER, What};
use crate::logging::{RateLimited, if_any};
use crate::timers::Timers;
use crate::vif::{ConnectError, Fault, QueuePair, Turn, Turned, Workbench};

const EVENT_CHANNELS: Token = Token(1);
const FIRST_TAP: usize = 2;
const EVENTS_PER_POLL: usize = 256;
/// Turns between two looks at what has come. Few, so that a guest whose ring was empty for a
/// moment joins the line when it has filled it, and not when all others have had their turn.
const TURNS_PER_ROUND: usize = 8;

/// One worker, on its own thread.
pub(super) struct Worker<H: Hypervisor> {
    pub(super) poll: Poll,
    mailbox: Mailbox,
    pub(super) channels: H::EventChannels,
    pub(super) bench: Workbench<H::Grants>,
    pub(super) queues: Slab<Served>,
    by_id: HashMap<QueueId, usize>,
    by_port: HashMap<LocalPort, usize>,
    pub(super) line: Line,
    /// Queue pairs that have run dry and are not armed: see `wait`.
    pub(super) dry: Vec<usize>,
    pub(super) patience: Patience,
    /// Frames that have gone to the host since the worker last waited.
    pub(super) delivered: usize,
    /// The queue pair that had the last turn, if its guest has not been told of all answers.
    pub(super) untold: Option<usize>,
    pub(super) timers: Timers<usize>,
    pending: Vec<LocalPort>,
    /// Guests can have a device looked at that cannot be read as often as they like.
    lost_limit: RateLimited,
}

/// A queue pair and its place in the round.
pub(super) struct Served {
    id: QueueId,
    pub(super) pair: QueuePair,
    /// In `dry`.
    pub(super) dry: bool,
}

impl<H: Hypervisor> Worker<H> {
    pub(super) fn new(
        hypervisor: &H,
        bench: Workbench<H::Grants>,
        poll: Poll,
        mailbox: Mailbox,
    ) -> Result<Self, super::StartError> {
        let channels = hypervisor.open_event_channels()?;
        let fd = channels.as_fd().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&fd), EVENT_CHANNELS, Interest::READABLE)?;
        Ok(Self {
            poll,
            mailbox,
            channels,
            bench,
            queues: Slab::new(),
            by_id: HashMap::new(),
            by_port: HashMap::new(),
            line: Line::default(),
            dry: Vec::new(),
            patience: Patience::of_this_machine(),
            delivered: 0,
            untold: None,
            timers: Timers::default(),
            pending: Vec::new(),
            lost_limit: RateLimited::new(3, Duration::from_secs(10)),
        })
    }

    pub(super) fn run(mut self) {
        let worker = self.mailbox.worker;
        let why = self.serve(&mut Events::with_capacity(EVENTS_PER_POLL));
        self.report(Report::Ended { worker, why });
    }

    /// Until it is told to stop.
    fn serve(&mut self, events: &mut Events) -> io::Result<()> {
        loop {
            match self.wait(events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                waited => waited?,
            }
            for event in &*events {
                match event.token() {
                    WAKER => {
                        if self.obey().is_break() {
                            return Ok(());
                        }
                    }
                    EVENT_CHANNELS => self.ports_pending(),
                    Token(tap) => self.tap_readable(tap - FIRST_TAP),
                }
            }
            self.wake_due();
            self.round();
        }
    }

    /// A queue pair that is of no more use.
    pub(super) fn fault(&mut self, key: usize, fault: Fault) {
        if let Some(id) = self.queues.get(key).map(|served| served.id) {
            self.release(key);
            self.tell(id, What::Fault(fault));
        }
    }

    /// A few turns, each for whoever is the first in the line by then.
    fn round(&mut self) {
        for _ in 0..self.line.len().min(TURNS_PER_ROUND) {
            let Some(key) = self.line.next() else {
                return;
            };
            let Some(served) = self.queues.get_mut(key) else {
                continue;
            };
            match served.pair.turn(&mut self.bench, &self.channels) {
                Ok(Turned {
                    next,
                    flow,
                    delivered,
                    work,
                }) => {
                    let id = served.id;
                    self.delivered += delivered;
                    self.line.had_turn(key, work);
                    if self.line.is_empty() {
                        // What its guest asks for next may come first, and save a signal.
                        self.untold = Some(key);
                    } else {
                        served.pair.tell(&self.channels);
                    }
                    match next {
                        Turn::Again => self.make_ready(key),
                        // The turn that an earlier time brings asks again.
                        Turn::Wait(at) => self.timers.set(at, key),
                        Turn::Dry => self.run_dry(key),
                    }
                    if let Some(flow) = flow {
                        self.tell(id, What::Flow(flow));
                    }
                }
                Err(fault) => self.fault(key, fault),
            }
        }
    }

    fn ports_pending(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.clear();
        match self.channels.pending(&mut pending) {
            Ok(()) => {
                for port in &pending {
                    // A port without an owner was unbound with its event still queued.
                    if let Some(&key) = self.by_port.get(port)
                        && let Some(served) = self.queues.get_mut(key)
                    {
                        served.pair.event(*port);
                        self.make_ready(key);
                    }
                }
            }
            Err(error) => self.events_lost(&error),
        }
        self.pending = pending;
    }

    /// The device cannot be read: any guest may have signalled, so all are looked at.
    fn events_lost(&mut self, error: &SysError) {
        if let Some(suppressed) = self.lost_limit.allow(Instant::now()) {
            tracing::warn!(%error, suppressed = if_any(suppressed), "events were lost; every ring is looked at");
        }
        let keys: Vec<usize> = self.queues.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(served) = self.queues.get_mut(key) {
                served.pair.events_lost();
            }
            self.make_ready(key);
        }
    }

    fn tap_readable(&mut self, key: usize) {
        if let Some(served) = self.queues.get_mut(key) {
            served.pair.tap_readable();
            self.make_ready(key);
        }
    }

    pub(super) fn make_ready(&mut self, key: usize) {
        if self.queues.contains(key) {
            self.line.join(key);
        }
    }

    fn obey(&mut self) -> std::ops::ControlFlow<()> {
        // What comes meanwhile wakes the worker anew.
        for _ in 0..self.mailbox.commands.len() {
            let Ok(command) = self.mailbox.commands.try_recv() else {
                break;
            };
            match command {
                Command::Connect(request) => {
                    let id = request.queue;
                    let what = match self.connect(*request) {
                        Ok(()) => What::Up,
                        Err(error) => What::Failed(error),
                    };
                    self.tell(id, what);
                }
                Command::Look(id) => {
                    if let Some(key) = self.by_id.get(&id).copied() {
                        self.make_ready(key);
                    }
                }
                Command::Control(id, directive) => {
                    if let Some(key) = self.by_id.get(&id).copied()
                        && let Some(served) = self.queues.get_mut(key)
                    {
                        served.pair.obey(*directive);
                        self.make_ready(key);
                    }
                }
                Command::Disconnect(id) => {
                    if let Some(key) = self.by_id.get(&id).copied() {
                        self.release(key);
                    }
                    self.tell(id, What::Down);
                }
                Command::Stop => {
                    let keys: Vec<usize> = self.queues.iter().map(|(key, _)| key).collect();
                    for key in keys {
                        self.release(key);
                    }
                    return std::ops::ControlFlow::Break(());
                }
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    fn connect(&mut self, request: ConnectRequest) -> Result<(), ConnectError> {
        let id = request.queue;
        let pair = QueuePair::connect(request, &self.bench, &mut self.channels)?;
        let entry = self.queues.vacant_entry();
        let key = entry.key();
        if let Err(error) = watch_tap(&self.poll, pair.tap(), key) {
            pair.disconnect(&mut self.channels);
            return Err(ConnectError::Tap(error));
        }
        for port in pair.ports() {
            self.by_port.insert(port, key);
        }
        entry.insert(Served {
            id,
            pair,
            dry: false,
        });
        self.by_id.insert(id, key);
        // A guest that was here before this backend may have published long ago.
        self.make_ready(key);
        Ok(())
    }

    fn release(&mut self, key: usize) {
        let Some(served) = self.queues.try_remove(key) else {
            return;
        };
        self.by_id.remove(&served.id);
        self.line.leave(key);
        self.dry.retain(|dry| *dry != key);
        self.timers.cancel(key);
        for port in served.pair.ports() {
            self.by_port.remove(&port);
        }
        let fd = served.pair.tap().as_fd().as_raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&fd)) {
            tracing::warn!(%error, "a tap could not be taken out of the poll");
        }
        served.pair.disconnect(&mut self.channels);
    }

    fn tell(&self, queue: QueueId, what: What) {
        self.report(Report::Queue { queue, what });
    }

    fn report(&self, report: Report) {
        let told = self.mailbox.reports.send(report).is_ok();
        if !told || self.mailbox.control.wake().is_err() {
            tracing::error!("the control thread cannot be told what a worker has to say");
        }
    }
}

fn watch_tap(poll: &Poll, tap: &Tap, key: usize) -> io::Result<()> {
    let fd = tap.as_fd().as_raw_fd();
    poll.registry().register(
        &mut SourceFd(&fd),
        Token(FIRST_TAP + key),
        Interest::READABLE,
    )
}

#[cfg(test)]
mod tests;
