// SPDX-License-Identifier: GPL-3.0-or-later
//! Connections beside simulated workers, in every order in which those may answer.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::sample::Index;
use xen_ring::back::ResponseOverflow;
use xenbus::{DevicePath, DomId};

use super::*;
use crate::vif::negotiate::negotiate;
use crate::vif::{ConnectError, MulticastFilter};

const DEVICE: DevicePath = DevicePath::new(DomId::ZERO, 0);

fn id(index: u16) -> QueueId {
    QueueId {
        device: DEVICE,
        connection: 1,
        index,
    }
}

fn connection(count: u16) -> Connection {
    let negotiated = negotiate(count, |key| {
        // Any number that differs from key to key.
        let number: u32 = key
            .bytes()
            .fold(7, |n, b| n * 31 % 1_000_003 + u32::from(b));
        let present = key.contains("x-ring-ref") || key.ends_with("event-channel");
        Ok(match key {
            "multi-queue-num-queues" => Some(count.to_string().into()),
            _ => present.then(|| number.to_string().into()),
        })
    });
    let assigned = (0..count).map(|index| (id(index), Place::uncounted(WorkerId(index.into()))));
    let live = Arc::new(Live::new(MulticastFilter::new()));
    Connection::new(
        negotiated.unwrap(),
        live,
        assigned.collect(),
        Vec::new(),
        None,
    )
}

fn cannot() -> What {
    What::Failed(ConnectError::Tap(std::io::ErrorKind::NotFound.into()))
}

fn fault() -> What {
    What::Fault(Fault::Answer(ResponseOverflow))
}

/// Nothing follows.
fn nothing(outcome: Outcome) {
    assert!(
        outcome.leave.is_empty() && outcome.event.is_none() && !outcome.over,
        "{outcome:?}"
    );
}

fn indices(leave: &[Leave]) -> Vec<u16> {
    leave.iter().map(|(_, id)| id.index).collect()
}

#[test]
fn up_when_all_are() {
    let mut connection = connection(3);
    nothing(connection.reported(id(2), What::Up));
    nothing(connection.reported(id(0), What::Up));
    let outcome = connection.reported(id(1), What::Up);
    assert_eq!(outcome.event, Some(Event::QueuesUp));
    assert!(!outcome.over);
}

#[test]
fn stalled_while_any_queue_pair_is() {
    let mut connection = connection(2);
    for (index, flow, stalled) in [
        (0, Flow::Stalled, true),
        (1, Flow::Stalled, true),
        (1, Flow::Stalled, true),
        (0, Flow::Resumed, true),
        (1, Flow::Resumed, false),
        (1, Flow::Resumed, false),
    ] {
        nothing(connection.reported(id(index), What::Flow(flow)));
        assert_eq!(connection.is_stalled(), stalled, "{index} {flow:?}");
    }
}

#[test]
fn down_when_all_are_and_each_is_asked_once() {
    let mut connection = connection(3);
    for index in 0..3 {
        connection.reported(id(index), What::Up);
    }
    let outcome = connection.leave();
    assert_eq!(indices(&outcome.leave), [0, 1, 2]);
    assert_eq!(outcome.leave[1].0, WorkerId(1));
    nothing(connection.leave());
    nothing(connection.reported(id(1), What::Down));
    nothing(connection.reported(id(0), What::Down));
    let outcome = connection.reported(id(2), What::Down);
    assert_eq!(
        (outcome.event, outcome.over),
        (Some(Event::QueuesDown), true)
    );
}

#[test]
fn one_that_fails_takes_the_others_with_it() {
    let mut connection = connection(3);
    nothing(connection.reported(id(0), What::Up));
    let outcome = connection.reported(id(1), cannot());
    assert_eq!(indices(&outcome.leave), [0, 2]);
    assert_eq!(outcome.event, None, "the others still hold something");
    nothing(connection.reported(id(0), What::Down));
    // It had not come to it when it was asked to go: the answer to that counts.
    nothing(connection.reported(id(2), cannot()));
    let outcome = connection.reported(id(2), What::Down);
    let reason = "queue 1: the tap cannot be used: entity not found".to_owned();
    assert_eq!(outcome.event, Some(Event::QueuesFailed(reason)));
    assert!(outcome.over);
}

#[test]
fn a_single_queue_has_no_number() {
    let outcome = connection(1).reported(id(0), cannot());
    let reason = "the tap cannot be used: entity not found".to_owned();
    assert_eq!(outcome.event, Some(Event::QueuesFailed(reason)));
    assert!(outcome.over && outcome.leave.is_empty());
}

/// Otherwise the machine, which waits for the queues to be down, would wait for ever.
#[test]
fn what_fails_while_the_machine_waits_is_down() {
    let mut connection = connection(2);
    connection.reported(id(0), cannot());
    nothing(connection.leave());
    let outcome = connection.reported(id(1), What::Down);
    assert_eq!(outcome.event, Some(Event::QueuesDown));
}

#[test]
fn a_fault_is_told_at_once_and_the_machine_decides() {
    let mut connection = connection(2);
    for index in 0..2 {
        connection.reported(id(index), What::Up);
    }
    let outcome = connection.reported(id(1), fault());
    let Some(Event::PeerFault(reason)) = outcome.event else {
        panic!("{outcome:?}");
    };
    assert!(reason.starts_with("queue 1: "), "{reason}");
    assert!(outcome.leave.is_empty() && !outcome.over);
    let outcome = connection.reported(id(0), What::Fault(Fault::Tap));
    // Not of one queue: the tap is the vif's.
    let gone = Event::NetifFailed(Fault::Tap.to_string());
    assert_eq!(outcome.event, Some(gone));
    assert_eq!(indices(&connection.leave().leave), [0, 1]);
}

#[test]
fn only_its_own_queues_are_its_own() {
    let other = QueueId {
        connection: 2,
        ..id(0)
    };
    let mut connection = connection(2);
    assert!(connection.has(id(1)) && !connection.has(id(2)) && !connection.has(other));
    nothing(connection.reported(other, What::Down));
}

/// A worker with one queue pair: obeys in order, and the pair may fail or break at any time.
#[derive(Default)]
struct Worker {
    commands: VecDeque<bool>,
    held: bool,
}

impl Worker {
    /// One step; `luck` decides what can go either way.
    fn step(&mut self, luck: bool) -> Option<What> {
        match self.commands.pop_front() {
            Some(true) => {
                self.held = luck;
                Some(if luck { What::Up } else { cannot() })
            }
            Some(false) => {
                self.held = false;
                Some(What::Down)
            }
            None if self.held && !luck => {
                self.held = false;
                Some(fault())
            }
            None => None,
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_order(
        count in 1_u16..5,
        steps in proptest::collection::vec((any::<Index>(), any::<bool>(), 0..20_u8), 0..60),
    ) {
        let mut connection = connection(count);
        let mut workers: Vec<Worker> = (0..count).map(|_| Worker::default()).collect();
        for worker in &mut workers {
            worker.commands.push_back(true);
        }
        let (mut ups, mut asked, mut finals) = (0, false, 0);
        // In the end every worker has its turn, and the machine wants it down.
        let tail = (0..200).map(|n: usize| (n, true, u8::from(n == 100)));
        let steps: Vec<_> = steps
            .into_iter()
            .map(|(who, luck, ask)| (who.index(count.into()), luck, u8::from(ask == 0)))
            .chain(tail)
            .collect();
        for (who, luck, ask) in steps {
            let outcome = if ask == 1 {
                asked = true;
                connection.leave()
            } else {
                let who = who % usize::from(count);
                match workers[who].step(luck) {
                    Some(what) => connection.reported(id(u16::try_from(who).unwrap()), what),
                    None => continue,
                }
            };
            for (worker, queue) in outcome.leave {
                prop_assert_eq!(worker.0, usize::from(queue.index));
                prop_assert!(!workers[worker.0].commands.contains(&false), "asked twice");
                workers[worker.0].commands.push_back(false);
            }
            match &outcome.event {
                Some(Event::QueuesUp) => {
                    ups += 1;
                    prop_assert!(!asked && !outcome.over);
                }
                // The machine answers a fault by asking all to go.
                Some(Event::PeerFault(_)) => {
                    asked = true;
                    for (worker, _) in connection.leave().leave {
                        workers[worker.0].commands.push_back(false);
                    }
                }
                Some(Event::QueuesFailed(_)) => prop_assert!(!asked && outcome.over && ups == 0),
                Some(Event::QueuesDown) => prop_assert!(asked && outcome.over),
                Some(other) => prop_assert!(false, "{other:?}"),
                None => prop_assert!(!outcome.over),
            }
            if outcome.over {
                finals += 1;
                prop_assert!(workers.iter().all(|w| !w.held && w.commands.is_empty()));
                break;
            }
        }
        prop_assert!(ups <= 1);
        prop_assert_eq!(finals, 1, "it comes to an end");
    }
}
