// SPDX-License-Identifier: GPL-3.0-or-later
//! What a guest configures while it runs, by the control ring: how its packets are hashed and
//! steered, and which of its pages stay mapped.
//!
//! | file | what it is |
//! |---|---|
//! | `message` | the ten messages, parsed |
//! | `machine` | what they bring about: no I/O |
//! | `hash` | Toeplitz |
//! | `steer` | which queue a packet comes by |
//! | `statics` | a queue pair's static grants |
//! | `ring` | the ring itself, on the worker that has queue 0 |
//! | `pace` | how fast its requests are carried out |
//! | here | what each queue pair has of all this |
//!
//! A vif's queues live on different workers, and the packet path takes no lock. So nothing is
//! shared: the worker with the ring tells each queue in a [`Directive`] what is new, as a command
//! to its worker, and a queue answers an order about static grants in the same way. The ring
//! waits for that answer before it takes the next request.

pub mod hash;
pub mod machine;
pub mod message;
mod pace;
mod ring;
pub mod statics;
mod steer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use hotplug::Tap;
use xen_ring::{DomId, EventChannels, Grants, LocalPort};

use super::fault::Fault;
use super::guest_rx::GuestRx;
use super::workbench::Workbench;
use crate::vif::connect::QueueId;
use crate::worker::{Command, Link};
use hash::{HashTypes, Hasher};
use machine::{Change, HashConfig};
use message::{Algorithm, STATIC_GRANTS_MAX};
pub use ring::{ControlRing, RingKeys};
use statics::{Done, Quota, StaticGrants};

/// What one queue of a vif tells another.
#[derive(Debug)]
pub enum Directive {
    /// To each: hash packets so from now on, or not at all.
    Hash(Option<Arc<Hasher>>),
    /// To the queue that it is about: change the static grants, and tell `answer` what became of it.
    Change {
        /// What to change.
        change: Change,
        /// The queue with the control ring.
        answer: Peer,
    },
    /// To the queue with the control ring: what became of its order.
    Done(Done),
}

/// A queue of the same vif, wherever it lives.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The queue.
    pub queue: QueueId,
    /// Its worker.
    pub worker: Link,
}

impl Peer {
    /// A worker outlives its queues, so that this fails takes a defect here.
    fn tell(&self, directive: Directive) {
        let command = Command::Control(self.queue, Box::new(directive));
        if let Err(error) = self.worker.send(command) {
            tracing::error!(device = %self.queue.device, %error, "a worker cannot be told about its queue");
        }
    }
}

/// A queue pair's part in what its guest configures.
#[derive(Debug)]
pub struct Endpoint {
    guest: DomId,
    /// Pages that stay mapped for this queue pair.
    pub(super) statics: StaticGrants,
    /// Who waits for the outcome of an order about them.
    orderer: Option<Peer>,
    /// The control ring, on queue 0 of a vif that has one.
    ring: Option<Box<ControlRing>>,
}

impl Endpoint {
    /// For a queue pair of `guest` without the control ring, whose static grants count in `quota`.
    pub fn new(guest: DomId, quota: Arc<Quota>) -> Self {
        Self {
            guest,
            statics: StaticGrants::new(quota),
            orderer: None,
            ring: None,
        }
    }

    /// Serves the vif's control ring from now on.
    pub fn serve(&mut self, ring: ControlRing) {
        self.ring = Some(Box::new(ring));
    }

    /// Whether a turn would bring anything.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.statics.is_busy() || self.ring.as_ref().is_some_and(|ring| ring.is_due())
    }

    /// Until when the ring is left alone, if it is.
    #[inline]
    pub fn rests_until(&self) -> Option<Instant> {
        self.ring.as_ref()?.rests_until()
    }

    /// Takes the ring up again if it was left alone until `now`.
    #[inline]
    pub fn wake(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(ring) = &mut self.ring
            && let Some(until) = ring.rests_until()
            && until <= now()
        {
            ring.wake();
        }
    }

    /// Goes on with an order, and takes a few requests from the ring.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the ring breaks the protocol.
    pub fn turn<G: Grants>(
        &mut self,
        bench: &mut Workbench<G>,
        channels: &impl EventChannels,
        tap: &Tap,
    ) -> Result<(), Fault> {
        if let Some(done) = self.statics.step(&bench.grants, self.guest)
            && let Some(orderer) = self.orderer.take()
        {
            orderer.tell(Directive::Done(done));
        }
        match &mut self.ring {
            Some(ring) => ring.turn(bench, channels, tap),
            None => Ok(()),
        }
    }

    /// Does what another queue says; `rx` is the rest of the queue pair that it may concern.
    pub(super) fn obey(&mut self, directive: Directive, rx: &mut GuestRx) {
        match directive {
            Directive::Hash(hasher) => rx.hash(hasher),
            Directive::Change { change, answer } => {
                self.statics.begin(change);
                self.orderer = Some(answer);
            }
            Directive::Done(done) => {
                if let Some(ring) = &mut self.ring {
                    ring.done(done);
                }
            }
        }
    }

    /// The ring's port has signalled. `false` if it is not the ring's.
    pub fn event(&mut self, port: LocalPort) -> bool {
        let ring = self.ring.as_mut().filter(|ring| ring.port() == port);
        ring.map(|ring| ring.event()).is_some()
    }

    /// Signals may have been lost: the ring's port counts as masked.
    pub fn events_lost(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.event_lost();
        }
    }

    /// The ring's port.
    pub fn port(&self) -> Option<LocalPort> {
        self.ring.as_ref().map(|ring| ring.port())
    }
}

/// What `netback status` can see of a vif's control ring while it is served.
#[derive(Debug)]
pub struct View {
    /// The hash, in one word: algorithm, types, and the size of the table in the upper half.
    hash: AtomicU32,
    /// Static grants of all its queues, at most so many.
    quota: Arc<Quota>,
}

/// What a vif's hash is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HashView {
    /// Which algorithm.
    pub algorithm: Algorithm,
    /// Which packets.
    pub types: HashTypes,
    /// Entries of the mapping table.
    pub mapping: u16,
}

impl View {
    /// Of a new connection of so many queues, whose grants count among those of their `guest`.
    pub fn new(queues: u16, guest: &Arc<Quota>) -> Self {
        Self {
            hash: AtomicU32::new(0),
            quota: guest.part(usize::from(queues) * STATIC_GRANTS_MAX),
        }
    }

    /// What all its queues' static grants are counted by.
    pub fn quota(&self) -> Arc<Quota> {
        Arc::clone(&self.quota)
    }

    /// Static grants that are mapped now.
    pub fn static_grants(&self) -> usize {
        self.quota.used()
    }

    /// How packets are hashed now.
    pub fn hash(&self) -> HashView {
        let [algorithm, types, low, high] = self.hash.load(Ordering::Relaxed).to_le_bytes();
        HashView {
            algorithm: match algorithm {
                0 => Algorithm::None,
                _ => Algorithm::Toeplitz,
            },
            types: HashTypes::new(types.into()).unwrap_or_default(),
            mapping: u16::from_le_bytes([low, high]),
        }
    }

    fn set_hash(&self, config: &HashConfig) {
        let algorithm = match config.algorithm {
            Algorithm::None => 0,
            Algorithm::Toeplitz => hash::TOEPLITZ,
        };
        // Lossless: the table is bounded.
        let mapping = u16::try_from(config.mapping.len()).unwrap_or(u16::MAX);
        let [low, high] = mapping.to_le_bytes();
        let bytes = [algorithm, config.types.bits(), low, high];
        self.hash
            .store(u32::from_le_bytes(bytes), Ordering::Relaxed);
    }
}
