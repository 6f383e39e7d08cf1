// SPDX-License-Identifier: GPL-3.0-or-later
//! One connection of a vif: its queue pairs, each with a worker, as one thing.
//!
//! The state machine knows one pair of events, "the queues are up" and "they are down". This is
//! where N workers' reports become those: up when all are, and down only when each worker has
//! given everything back. One that cannot be connected takes the others with it. No I/O here:
//! [`Vif`](super::vif::Vif) sends the commands.

use std::sync::Arc;

use hotplug::Tap;
use xenbus::backend::Event;

use crate::vif::QueueId;
use crate::vif::control::View;
use crate::vif::negotiate::{Negotiated, Requests};
use crate::vif::{Fault, Flow, Live};
use crate::worker::{Place, What, WorkerId};

/// Queue pairs that workers have, or were asked to take.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) negotiated: Negotiated,
    /// What can be seen of its control ring.
    pub(super) control: Option<Arc<View>>,
    /// What the queue pairs look at as they go.
    pub(super) live: Arc<Live>,
    /// What the host has been shown of the frontend's requests.
    pub(super) shown: Requests,
    queues: Vec<Queue>,
    course: Course,
    /// The queues of the tap beyond its first. They are closed with the connection: a tap's queue
    /// that nobody reads would swallow its share of the frames.
    _tap_queues: Vec<Tap>,
}

/// One queue pair and the worker that has it.
#[derive(Debug)]
struct Queue {
    id: QueueId,
    place: Place,
    stage: Stage,
    /// The guest does not take what comes for it.
    stalled: bool,
}

/// How far a worker is with a queue pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Asked to connect.
    Asked,
    /// Connected.
    Up,
    /// Asked to give everything back.
    Leaving,
    /// Nothing is held.
    Down,
}

/// Where the connection as a whole is going.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Course {
    /// Up, or there already.
    Up,
    /// Down, because the state machine wants it so.
    Down,
    /// Down, because a queue pair could not be connected, for this reason.
    Failed(String),
}

/// A command to be sent about a queue pair: that its worker gives everything back.
pub(super) type Leave = (WorkerId, QueueId);

/// What a report leads to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Queue pairs that have to go now.
    pub(super) leave: Vec<Leave>,
    /// What the state machine is to be told.
    pub(super) event: Option<Event>,
    /// Nothing is held any more: the connection is to be dropped.
    pub(super) over: bool,
}

impl Connection {
    /// A connection whose queue pairs have all been assigned to workers, and `tap_queues` for all
    /// but the first of them.
    pub(super) fn new(
        negotiated: Negotiated,
        live: Arc<Live>,
        assigned: Vec<(QueueId, Place)>,
        tap_queues: Vec<Tap>,
        control: Option<Arc<View>>,
    ) -> Self {
        let queue = |(id, place)| Queue {
            id,
            place,
            stage: Stage::Asked,
            stalled: false,
        };
        Self {
            shown: negotiated.requests,
            negotiated,
            control,
            live,
            queues: assigned.into_iter().map(queue).collect(),
            course: Course::Up,
            _tap_queues: tap_queues,
        }
    }

    /// Whether the queue pair is one of this connection: reports about former ones are late.
    pub(super) fn has(&self, id: QueueId) -> bool {
        self.queues.iter().any(|queue| queue.id == id)
    }

    /// Every queue pair and its worker.
    pub(super) fn queues(&self) -> impl Iterator<Item = (WorkerId, QueueId)> {
        self.queues
            .iter()
            .map(|queue| (queue.place.worker(), queue.id))
    }

    /// The worker of one of them, by number.
    pub(super) fn worker(&self, index: u16) -> Option<WorkerId> {
        let queue = self.queues.iter().find(|queue| queue.id.index == index)?;
        Some(queue.place.worker())
    }

    /// Every queue pair that has not been asked to go yet has to go.
    pub(super) fn leave(&mut self) -> Outcome {
        self.course = Course::Down;
        self.progress()
    }

    /// A worker has said something about one of the queue pairs.
    pub(super) fn reported(&mut self, id: QueueId, what: What) -> Outcome {
        match what {
            What::Up => self.up(id),
            What::Failed(error) => self.failed(id, &error.to_string()),
            What::Fault(fault) => self.fault(id, fault),
            What::Flow(flow) => self.flow(id, flow),
            What::Down => self.down(id),
        }
    }

    /// A queue pair cannot be connected; its worker holds nothing of it.
    pub(super) fn failed(&mut self, id: QueueId, reason: &str) -> Outcome {
        let reason = self.name(id) + reason;
        match self.queue(id) {
            Some(queue) if queue.stage == Stage::Asked => queue.stage = Stage::Down,
            // It was asked to go meanwhile, and its worker has yet to answer that.
            _ => return Outcome::default(),
        }
        if self.course == Course::Up {
            self.course = Course::Failed(reason);
        }
        self.progress()
    }

    /// Whether the guest has stalled on any queue pair.
    pub(super) fn is_stalled(&self) -> bool {
        self.queues.iter().any(|queue| queue.stalled)
    }

    fn flow(&mut self, id: QueueId, flow: Flow) -> Outcome {
        if let Some(queue) = self.queue(id) {
            queue.stalled = flow == Flow::Stalled;
        }
        Outcome::default()
    }

    fn up(&mut self, id: QueueId) -> Outcome {
        match self.queue(id) {
            Some(queue) if queue.stage == Stage::Asked => queue.stage = Stage::Up,
            // It was asked to go meanwhile, and will.
            _ => return Outcome::default(),
        }
        let all = self.queues.iter().all(|queue| queue.stage == Stage::Up);
        Outcome::event(all.then_some(Event::QueuesUp))
    }

    /// One queue pair has ended by itself. The state machine decides that all have to go, and
    /// then this one is asked to as well, and answers.
    fn fault(&self, id: QueueId, fault: Fault) -> Outcome {
        Outcome::event(match (&self.course, fault) {
            // All have been asked already, for a reason that is to be kept.
            (Course::Failed(_), _) => None,
            // All of them have lost it, whoever has seen it first.
            (_, Fault::Tap) => Some(Event::NetifFailed(fault.to_string())),
            _ => Some(Event::PeerFault(format!("{}{fault}", self.name(id)))),
        })
    }

    fn down(&mut self, id: QueueId) -> Outcome {
        let Some(queue) = self.queue(id) else {
            return Outcome::default();
        };
        queue.stage = Stage::Down;
        self.progress()
    }

    fn queue(&mut self, id: QueueId) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| queue.id == id)
    }

    /// What is to be done on a course downwards.
    fn progress(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        for queue in &mut self.queues {
            if matches!(queue.stage, Stage::Asked | Stage::Up) && self.course != Course::Up {
                queue.stage = Stage::Leaving;
                outcome.leave.push((queue.place.worker(), queue.id));
            }
        }
        outcome.over = self.queues.iter().all(|queue| queue.stage == Stage::Down);
        outcome.event = outcome.over.then(|| match &self.course {
            Course::Failed(reason) => Event::QueuesFailed(reason.clone()),
            Course::Up | Course::Down => Event::QueuesDown,
        });
        outcome
    }

    /// How a sentence about a queue pair begins: with its number, where there are several.
    fn name(&self, id: QueueId) -> String {
        match self.queues.len() {
            0 | 1 => String::new(),
            _ => format!("queue {}: ", id.index),
        }
    }
}

impl Outcome {
    fn event(event: Option<Event>) -> Self {
        Self {
            event,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
