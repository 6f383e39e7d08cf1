// SPDX-License-Identifier: GPL-3.0-or-later
//! Worker threads: a fixed set, each with its own poll, event channels, grant device and copy
//! buffers. A queue pair lives on one worker and shares nothing that is written on the packet
//! path.
//!
//! The control thread talks to them in [`Command`]s and hears of them in [`Report`]s, both over
//! lock-free channels; the waker at either end is the only system call in between.

mod line;
mod patience;
mod places;
mod run;
mod wait;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, unbounded};
use mio::{Poll, Token, Waker};
use xen_ring::{DomId, Hypervisor, SysError};

use crate::vif::control::Directive;
use crate::vif::{ConnectError, ConnectRequest, Fault, Flow, QueueId, Workbench, buffers_of_each};
pub use places::Place;
use places::Places;

/// What the control thread asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// Map the rings, bind the event channels and start to move packets. Answered by
    /// [`What::Up`] or [`What::Failed`].
    Connect(Box<ConnectRequest>),
    /// Give a queue pair a turn, though nothing has happened to it: what it waits for was changed
    /// by the control thread. Not answered.
    Look(QueueId),
    /// What another queue of the same vif has to say to this one. Sent by workers. Not answered
    /// if the queue pair is gone: then its whole vif is going.
    Control(QueueId, Box<Directive>),
    /// Give everything back. Always answered by [`What::Down`].
    Disconnect(QueueId),
    /// End the thread. Rings are unmapped and ports unbound; the frontends are not told.
    Stop,
}

/// What a worker tells the control thread.
#[derive(Debug)]
pub enum Report {
    /// Something has happened to a queue pair.
    Queue {
        /// Which.
        queue: QueueId,
        /// What.
        what: What,
    },
    /// The worker's thread ends, and serves none of its queue pairs any more.
    Ended {
        /// Which.
        worker: WorkerId,
        /// An error, unless it was told to stop.
        why: io::Result<()>,
    },
}

/// What happened to a queue pair.
#[derive(Debug)]
pub enum What {
    /// It is connected.
    Up,
    /// It could not be connected; nothing is held.
    Failed(ConnectError),
    /// It cannot be served any more; the worker has given everything back.
    Fault(Fault),
    /// It goes on, but the guest has stopped to take what comes for it, or takes it again.
    Flow(Flow),
    /// Everything has been given back, as asked.
    Down,
}

/// The workers, as the control thread sees them.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Handle>,
    reports: Receiver<Report>,
    places: Places,
}

/// A worker's number: where to send the commands about a queue pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerId(pub(crate) usize);

impl WorkerId {
    /// As in the thread's name.
    pub const fn number(self) -> usize {
        self.0
    }
}

#[derive(Debug)]
struct Handle {
    link: Link,
    thread: Option<JoinHandle<()>>,
}

/// A way to send commands to a worker, for other workers too.
#[derive(Debug, Clone)]
pub struct Link {
    commands: Sender<Command>,
    waker: Arc<Waker>,
}

impl Link {
    /// Sends a command.
    ///
    /// # Errors
    ///
    /// When the worker is gone or cannot be woken, which nothing but a defect here can cause.
    pub fn send(&self, command: Command) -> io::Result<()> {
        self.commands.send(command).map_err(|_| gone())?;
        self.waker.wake()
    }
}

/// Why the workers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A Xen device could not be opened or its buffers not be allocated.
    #[error(transparent)]
    Xen(#[from] SysError),
    /// No poll, waker or thread.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[from] io::Error),
}

/// The worker's own end of its channels.
#[derive(Debug)]
pub(crate) struct Mailbox {
    worker: WorkerId,
    commands: Receiver<Command>,
    reports: Sender<Report>,
    control: Arc<Waker>,
}

impl Workers {
    /// Starts `count` workers in the domain `own`. `control` wakes the control thread when there is a report. With
    /// `joins`, they join datagrams ([`Workbench::new`]).
    ///
    /// # Errors
    ///
    /// [`StartError`] when a Xen device cannot be opened or a thread cannot be started.
    pub fn start<H: Hypervisor>(
        count: usize,
        hypervisor: &H,
        own: DomId,
        control: &Arc<Waker>,
        joins: bool,
    ) -> Result<Self, StartError> {
        let (sender, reports) = unbounded();
        let mut workers = Vec::with_capacity(count);
        for index in 0..count {
            let (commands, receiver) = unbounded();
            let poll = Poll::new()?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
            let mailbox = Mailbox {
                worker: WorkerId(index),
                commands: receiver,
                reports: sender.clone(),
                control: Arc::clone(control),
            };
            let bench = Workbench::new(
                hypervisor.open_grants()?,
                own,
                buffers_of_each(count),
                joins,
            )?;
            let worker = run::Worker::new(hypervisor, bench, poll, mailbox)?;
            let thread = std::thread::Builder::new()
                .name(format!("netback/{index}"))
                .spawn(move || worker.run())?;
            workers.push(Handle {
                link: Link { commands, waker },
                thread: Some(thread),
            });
        }
        Ok(Self {
            workers,
            reports,
            places: Places::new(count),
        })
    }

    /// A place for the next queue pair, on a worker that has the fewest.
    pub fn assign(&mut self) -> Place {
        self.places.take()
    }

    /// Sends a command.
    ///
    /// # Errors
    ///
    /// When the worker is gone or cannot be woken, which nothing but a defect here can cause.
    pub fn send(&self, worker: WorkerId, command: Command) -> io::Result<()> {
        self.link(worker).ok_or_else(gone)?.send(command)
    }

    /// The way to a worker.
    pub fn link(&self, worker: WorkerId) -> Option<&Link> {
        self.workers.get(worker.0).map(|handle| &handle.link)
    }

    /// The reports that there are by now. What comes meanwhile wakes the control thread anew.
    pub fn reports(&self) -> Vec<Report> {
        self.reports.try_iter().take(self.reports.len()).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }
}

impl Drop for Workers {
    /// Stops them and waits until everything they held is given back.
    fn drop(&mut self) {
        for handle in &self.workers {
            // A worker that is gone already has nothing to stop.
            if handle.link.send(Command::Stop).is_err() {
                tracing::error!("a worker thread has ended on its own");
            }
        }
        for handle in &mut self.workers {
            if handle
                .thread
                .take()
                .is_some_and(|thread| thread.join().is_err())
            {
                tracing::error!("a worker thread has panicked");
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the worker thread has ended")
}

/// The token of a worker's waker; its event channels and taps follow.
const WAKER: Token = Token(0);
