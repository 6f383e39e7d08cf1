// SPDX-License-Identifier: GPL-3.0-or-later
//! One queue pair: both rings, their event channels and the tap, from connect to disconnect.
//!
//! Owned by one worker. Holding a `QueuePair` means that its pages are mapped and its ports are
//! bound; [`QueuePair::disconnect`] gives the ports back, and dropping it the pages.

use std::sync::Arc;
use std::time::Instant;

use arrayvec::ArrayVec;
use hotplug::Tap;
use xen_ring::{DomId, EventChannels, Grants, LocalPort};

use super::attach::{self, ConnectError, Ports};
use super::bucket;
use super::connect::{ConnectRequest, ControlRequest};
use super::control::{ControlRing, Directive, Endpoint};
use super::counters::QueueCounters;
use super::fault::Fault;
use super::gate::Gate;
use super::guest_rx::{Flow, GuestRx, RxTurn};
use super::guest_tx::{GuestTx, TxTurn};
use super::half::Way;
use super::signal;
use super::workbench::Workbench;

/// A connected queue pair.
#[derive(Debug)]
pub struct QueuePair {
    guest: DomId,
    tx: GuestTx,
    rx: GuestRx,
    ports: Ports,
    /// Answers of the tx ring have been published that the guest wants to be told of.
    untold: bool,
    gate: Gate,
    tap: Tap,
    limits: Arc<bucket::Limits>,
    counters: Arc<QueueCounters>,
    control: Endpoint,
}

/// What a turn leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turned {
    /// When the next one is to be.
    pub next: Turn,
    /// The guest has stopped to take what comes for it, or it goes on.
    pub flow: Option<Flow>,
    /// Frames that have gone to the host.
    pub delivered: usize,
    /// What it has worked through, whatever became of it: slots of both rings (or what segments are worth in slots), and reads of
    /// the tap.
    pub work: usize,
}

/// When a queue pair is to have its next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// There is more to do, when all who come first have had their turns.
    Again,
    /// Nothing to do for now. The tx ring is not armed, so no event will come when the guest sends:
    /// look again, or [`QueuePair::rest`].
    Dry,
    /// Nothing to do until the next event or this moment, whichever is first.
    Wait(Instant),
}

impl QueuePair {
    /// Maps both rings, binds the event channels, and signals the frontend once: it may have
    /// been waiting for a backend that is gone.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; nothing is held then.
    pub fn connect<G: Grants>(
        request: ConnectRequest,
        bench: &Workbench<G>,
        channels: &mut impl EventChannels,
    ) -> Result<Self, ConnectError> {
        let ConnectRequest {
            guest,
            keys,
            adopted,
            features,
            tap,
            limits,
            stall,
            live,
            counters,
            control,
            ..
        } = request;
        let (tx_ring, rx_ring) =
            attach::rings(guest, keys, adopted, control.is_some(), &bench.grants)?;
        let quota = control.as_ref().map(|control| control.view.quota());
        let mut pair = Self {
            guest,
            tx: GuestTx::new(tx_ring, guest, Arc::clone(&live)),
            rx: GuestRx::new(rx_ring, guest, features, stall, live),
            ports: Ports::bind(channels, guest, keys.channels)?,
            untold: false,
            gate: Gate::new(guest),
            tap,
            limits,
            counters,
            control: Endpoint::new(guest, quota.unwrap_or_default()),
        };
        match pair.begin(control, &bench.grants, channels) {
            Ok(()) => Ok(pair),
            Err(error) => {
                pair.disconnect(channels);
                Err(error)
            }
        }
    }

    /// Takes up the control ring, if it is here, and signals the frontend.
    fn begin(
        &mut self,
        control: Option<ControlRequest>,
        grants: &impl Grants,
        channels: &mut impl EventChannels,
    ) -> Result<(), ConnectError> {
        let guest = self.guest;
        let here = control.and_then(|control| Some((control.ring?, control.view)));
        if let Some((request, view)) = here {
            let ring = attach::control(guest, request.keys.ring, grants)?;
            let port = attach::bind(channels, guest, request.keys.port)?;
            self.control
                .serve(ControlRing::new(guest, ring, port, request, view));
        }
        for port in self.ports() {
            channels.notify(port).map_err(|source| ConnectError::Xen {
                what: format!("notify domain {guest}"),
                source,
            })?;
        }
        Ok(())
    }

    /// Moves a bounded number of packets each way. The guest has to be [told](Self::tell) of what
    /// it has sent afterwards; of what it receives it is told at once.
    ///
    /// # Errors
    ///
    /// [`Fault`]: the pair is of no more use.
    pub fn turn<G: Grants>(
        &mut self,
        bench: &mut Workbench<G>,
        channels: &impl EventChannels,
    ) -> Result<Turned, Fault> {
        self.control.wake(|| bench.now());
        if self.control.is_due() {
            self.control.turn(bench, channels, &self.tap)?;
        }
        let statics = self.control.statics.if_any();
        let way = Way {
            tap: &self.tap,
            statics,
            rate: &self.limits.tx,
            counters: &self.counters.tx,
        };
        let TxTurn {
            half: tx,
            delivered,
        } = self.tx.turn(bench, way)?;
        self.untold |= tx.notify;
        let way = Way {
            rate: &self.limits.rx,
            counters: &self.counters.rx,
            ..way
        };
        let RxTurn {
            half: rx,
            listens,
            flow,
        } = self.rx.turn(bench, way)?;
        if rx.notify {
            self.notify(channels, self.ports.rx());
            // With one port for both, that was for the answers, too.
            self.untold &= self.ports.tx() != self.ports.rx();
        }
        let founded = tx.founded || rx.founded;
        let masked_until = self.gate.looked(founded, || bench.now(), channels);
        let control = self.control.rests_until();
        let due = [tx.due, rx.due, masked_until, control];
        let due = due.into_iter().flatten().min();
        let mut more = self.control.is_due() || tx.more || rx.more;
        if !more && due.is_some() && tx.due.is_none() {
            // Who waits for a moment waits for a signal, too. (A guest that waits for credit is not to signal what it
            // adds to the queue meanwhile.)
            more = self.tx.arm()?;
        }
        let next = match due {
            _ if more => Turn::Again,
            Some(due) => {
                self.gate.open(channels);
                Turn::Wait(due)
            }
            None if self.tx.is_stirring() => Turn::Again,
            None if listens => {
                // A worker that never comes to rest would not hear of it.
                self.gate.open(channels);
                Turn::Dry
            }
            None => Turn::Dry,
        };
        Ok(Turned {
            next,
            flow,
            delivered,
            work: tx.work + rx.work,
        })
    }

    /// Signals to the guest that packets of its have been answered, if it wants to know. There is
    /// no hurry: it frees their memory then, and goes on only if its ring was full. So the worker
    /// may wait a moment for what the guest sends next, and tell it of all at once.
    pub fn tell(&mut self, channels: &impl EventChannels) {
        if std::mem::take(&mut self.untold) {
            self.notify(channels, self.ports.tx());
        }
    }

    /// Whether the guest has sent something since the last turn.
    pub fn is_stirring(&self) -> bool {
        self.tx.is_stirring()
    }

    /// Arms the ring and unmasks the event channels: an event will tell when there is something
    /// to do. `false` if there is already.
    ///
    /// # Errors
    ///
    /// [`Fault`]: the pair is of no more use.
    pub fn rest(&mut self, channels: &impl EventChannels) -> Result<bool, Fault> {
        if self.tx.arm()? {
            return Ok(false);
        }
        self.gate.open(channels);
        Ok(true)
    }

    /// Does what another queue of the same vif says.
    pub fn obey(&mut self, directive: Directive) {
        self.control.obey(directive, &mut self.rx);
    }

    /// One of its ports has signalled and is masked now.
    pub fn event(&mut self, port: LocalPort) {
        if !self.control.event(port) {
            self.gate.event(port);
        }
    }

    /// Signals may have been lost: every port counts as masked.
    pub fn events_lost(&mut self) {
        self.gate.events_lost(self.ports.all());
        self.control.events_lost();
    }

    /// The tap has frames for the guest.
    pub fn tap_readable(&mut self) {
        self.rx.tap_readable();
    }

    /// Its ports: one or two, and the control ring's.
    pub fn ports(&self) -> ArrayVec<LocalPort, 3> {
        let rings = self.ports.all().into_iter();
        rings.chain(self.control.port()).collect()
    }

    /// The tap it serves.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Gives ports and pages back. The frontend is not told: that is xenbus's part.
    pub fn disconnect(mut self, channels: &mut impl EventChannels) {
        self.tell(channels);
        for port in self.ports() {
            attach::unbind(channels, self.guest, port);
        }
    }

    fn notify(&self, channels: &impl EventChannels, port: LocalPort) {
        signal::notify(channels, self.guest, port);
    }
}

#[cfg(test)]
pub(super) mod tests;
