// SPDX-License-Identifier: GPL-3.0-or-later
//! The control ring, served by the worker that has the vif's queue 0.
//!
//! A few requests a turn are taken and answered in order. What comes as a list in one of the
//! guest's pages is copied once and judged as a copy. A request about static grants is carried out
//! by the queue that it is about, maybe on another worker; until its outcome is here, no further
//! request is taken. Nothing here waits for a guest, and nothing grows with what it asks. A guest that
//! asks for too much ([`pace`](super::pace)), or signals for nothing ([`storm`](crate::vif::storm)), is
//! left alone for a while.

use std::sync::Arc;
use std::time::Instant;

use arrayvec::ArrayVec;
use hotplug::Tap;
use xen_ring::netif::{CtrlRequest, CtrlResponse, CtrlRing, GrefEntry};
use xen_ring::{BackRing, DomId, EventChannels, GrantRef, Grants, LocalPort, RemotePort};

use super::machine::{Decision, Fetch, Machine, Order, Outcome, Reply, Step, answered};
use super::pace::Pace;
use super::statics::Done;
use super::steer::Steer;
use super::{Directive, Peer, View};
use crate::vif::connect::RingRequest;
use crate::vif::fault::{Fault, Ring};
use crate::vif::gate::Gate;
use crate::vif::signal;
use crate::vif::workbench::Workbench;

/// Requests taken in one turn, at most: each may cost a grant copy.
const REQUESTS_PER_TURN: usize = 8;

/// Where a frontend's control ring is (`ctrl-ring-ref` and `event-channel-ctrl`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingKeys {
    /// Its page.
    pub ring: GrantRef,
    /// Its event channel.
    pub port: RemotePort,
}

/// A connected control ring.
#[derive(Debug)]
pub struct ControlRing {
    guest: DomId,
    ring: BackRing<CtrlRing>,
    port: LocalPort,
    gate: Gate,
    /// There may be something to do.
    due: bool,
    pace: Pace,
    /// Until when it is left alone.
    rests_until: Option<Instant>,
    machine: Machine,
    /// The vif's queues, by number.
    queues: Vec<Peer>,
    /// How packets get to the right one, if there are several.
    steer: Option<Steer>,
    view: Arc<View>,
    /// A request that a queue is carrying out.
    pending: Option<Pending>,
}

/// What a request is to be answered.
#[derive(Debug)]
struct Answer {
    request: CtrlRequest,
    reply: Reply,
}

/// A request that is not answered yet.
#[derive(Debug)]
struct Pending {
    request: CtrlRequest,
    outcome: Option<Outcome>,
}

impl ControlRing {
    /// Serves a ring that is attached and bound, for a vif of these queues.
    pub fn new(
        guest: DomId,
        ring: BackRing<CtrlRing>,
        port: LocalPort,
        request: RingRequest,
        view: Arc<View>,
    ) -> Self {
        let RingRequest {
            queues,
            steering,
            spread,
            ..
        } = request;
        // Lossless: there are as many as the frontend could ask for in 16 bits.
        let count = u16::try_from(queues.len()).unwrap_or(u16::MAX);
        let steer = steering.map(|steering| Steer::new(steering, spread, count));
        let hashes = count == 1 || steer.is_some();
        Self {
            guest,
            ring,
            port,
            gate: Gate::new(guest),
            // The guest may have published before anybody listened.
            due: true,
            pace: Pace::new(Instant::now()),
            rests_until: None,
            machine: Machine::new(count, hashes),
            queues,
            steer,
            view,
            pending: None,
        }
    }

    pub(super) fn port(&self) -> LocalPort {
        self.port
    }

    pub(super) fn is_due(&self) -> bool {
        self.due && self.rests_until.is_none()
    }

    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.rests_until
    }

    /// It is not left alone any longer.
    pub(super) fn wake(&mut self) {
        self.rests_until = None;
        self.due = true;
    }

    /// Its port has signalled.
    pub(super) fn event(&mut self) {
        self.gate.event(self.port);
        self.due = true;
    }

    /// Its port may have signalled.
    pub(super) fn event_lost(&mut self) {
        self.gate.events_lost([self.port].into_iter().collect());
        self.due = true;
    }

    /// The order that it waits for has been carried out.
    pub(super) fn done(&mut self, done: Done) {
        if let Some(pending) = &mut self.pending {
            pending.outcome = Some(done.outcome);
            self.due = true;
            self.pace.pages(done.pages);
        }
    }

    /// Takes a few requests. An event, or the outcome of an order, makes it due again.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the ring's indices break the protocol.
    pub(super) fn turn<G: Grants>(
        &mut self,
        bench: &mut Workbench<G>,
        channels: &impl EventChannels,
        tap: &Tap,
    ) -> Result<(), Fault> {
        if !std::mem::take(&mut self.due) {
            return Ok(());
        }
        self.rests_until = self.pace.rests_until(bench.now());
        if self.rests_until.is_some() {
            return Ok(());
        }
        let mut answers = ArrayVec::<_, { 1 + REQUESTS_PER_TURN }>::new();
        answers.extend(self.settle(bench)?);
        self.ring.unconsumed().map_err(Ring::Control.fault())?;
        for _ in 0..REQUESTS_PER_TURN {
            if self.pending.is_some() {
                break;
            }
            let Some(request) = self.ring.take() else {
                break;
            };
            self.pace.request();
            answers.extend(self.serve(request, bench)?);
        }
        let founded = !answers.is_empty() || self.pending.is_some();
        let masked_until = self.gate.looked(founded, || bench.now(), channels);
        // The queues are told before the guest is.
        self.announce(tap);
        self.answer(&answers, channels)?;
        if self.pending.is_none() {
            self.due = self.ring.arm().map_err(Ring::Control.fault())?;
            if !self.due {
                self.rests_until = masked_until;
                self.gate.open(channels);
            }
        }
        Ok(())
    }

    fn serve<G: Grants>(
        &mut self,
        request: CtrlRequest,
        bench: &mut Workbench<G>,
    ) -> Result<Option<Answer>, Fault> {
        let decision = match self.machine.request(&request) {
            Step::Fetch(fetch) => self.fetch(fetch, bench)?,
            Step::Decided(decision) => decision,
        };
        Ok(match decision {
            Decision::Reply(reply) => Some(Answer { request, reply }),
            Decision::Order(order) => self.order(request, order),
        })
    }

    /// Copies a list from the guest. That its page is not granted is the guest's mistake, not a
    /// breach: netif.h has a status for it.
    fn fetch<G: Grants>(
        &mut self,
        fetch: Fetch,
        bench: &mut Workbench<G>,
    ) -> Result<Decision, Fault> {
        bench.batch.clear();
        bench
            .batch
            .from_guest(self.guest, fetch.gref, 0, fetch.bytes, 0)?;
        bench.copy();
        if !bench.batch.all_ok(0..bench.batch.len()) {
            return Ok(Decision::Reply(Reply::INVALID));
        }
        let copy = bench.batch.bytes(0..usize::from(fetch.bytes));
        Ok(self.machine.fetched(fetch.purpose, fetch.gref, copy))
    }

    /// Lets a queue carry something out.
    fn order(&mut self, request: CtrlRequest, order: Order) -> Option<Answer> {
        let Order { queue, change } = order;
        let (Some(answer), Some(peer)) = (self.queues.first(), self.queues.get(usize::from(queue)))
        else {
            // The machine knows how many queues there are, so this does not happen.
            let reply = Reply::INVALID;
            return Some(Answer { request, reply });
        };
        let answer = answer.clone();
        peer.tell(Directive::Change { change, answer });
        self.pending = Some(Pending {
            request,
            outcome: None,
        });
        None
    }

    /// The answer to the request that was waited for, if its outcome is here.
    fn settle<G: Grants>(&mut self, bench: &mut Workbench<G>) -> Result<Option<Answer>, Fault> {
        let Some(Pending {
            request,
            outcome: Some(outcome),
        }) = self.pending.take_if(|pending| pending.outcome.is_some())
        else {
            return Ok(None);
        };
        let mut reply = outcome.reply();
        if let Outcome::Deleted {
            list,
            entries,
            deleted,
        } = &outcome
            && !self.write_back(*list, entries, deleted, bench)?
        {
            // The pages are unmapped all the same; only which of them could not be said.
            reply = Reply::INVALID;
        }
        Ok(Some(Answer { request, reply }))
    }

    /// Writes a list back to the guest with a status for each entry. `false` if the guest does not
    /// let it be written.
    fn write_back<G: Grants>(
        &self,
        list: GrantRef,
        entries: &[GrefEntry],
        deleted: &[bool],
        bench: &mut Workbench<G>,
    ) -> Result<bool, Fault> {
        let len = entries.len() * GrefEntry::BYTES;
        let places = bench.batch.bytes_mut(0..len).as_chunks_mut().0;
        for (place, entry) in places.iter_mut().zip(answered(entries, deleted)) {
            *place = entry;
        }
        bench.batch.clear();
        // Lossless: a list fits into a page.
        let len = u16::try_from(len).unwrap_or_default();
        bench.batch.to_guest(0, len, self.guest, list, 0)?;
        bench.copy();
        Ok(bench.batch.all_ok(0..bench.batch.len()))
    }

    /// Writes answers, and publishes them before anything else is done: they look like requests about other pages to
    /// a successor that finds them unpublished.
    fn answer(&mut self, answers: &[Answer], channels: &impl EventChannels) -> Result<(), Fault> {
        for Answer { request, reply } in answers {
            self.ring.respond(CtrlResponse {
                id: request.id,
                kind: request.kind,
                status: reply.status,
                data: reply.data,
            })?;
        }
        if self.ring.publish().is_needed() {
            signal::notify(channels, self.guest, self.port);
        }
        Ok(())
    }

    /// Tells the tap and every queue how packets are to be hashed, if that has changed: once a turn, however
    /// often the guest changes its mind.
    fn announce(&mut self, tap: &Tap) {
        let Some(config) = self.machine.changed() else {
            return;
        };
        self.view.set_hash(config);
        let hasher = config.hasher().map(Arc::new);
        if let Some(steer) = &mut self.steer {
            steer.apply(config, hasher.as_deref(), tap, self.guest);
        }
        for queue in &self.queues {
            queue.tell(Directive::Hash(hasher.clone()));
        }
    }
}
