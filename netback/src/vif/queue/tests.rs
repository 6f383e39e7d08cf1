// SPDX-License-Identifier: GPL-3.0-or-later
//! Turns of a queue pair.

mod datagrams;
pub(in crate::vif) mod rig;
mod segments;
mod takeover;

use xen_ring::EventChannels;
use xen_ring::front::{FrontTxRequest, FrontTxSlot};

use super::Turn;
use crate::vif::DropReason;
use rig::*;

/// The pieces cross pages of ours, so that a copy takes two operations, and the wrong slot may be
/// blamed.
#[test]
fn a_copy_that_fails_is_told_in_its_own_slot() {
    for bad in 0..4 {
        let mut rig = Rig::new();
        for (at, len) in [1000, 3000, 3000, 3000].into_iter().enumerate() {
            let gref = if at == bad { 9_999 } else { rig.gref(at) };
            let (more, size) = match at {
                0 => (MORE_DATA, 10_000),
                3 => (0, len),
                _ => (MORE_DATA, len),
            };
            let request = FrontTxRequest {
                gref,
                offset: 0,
                flags: more,
                id: u16::try_from(at).unwrap(),
                size,
            };
            rig.tx.push(FrontTxSlot::Request(request)).unwrap();
        }
        rig.turn();
        let expected: Vec<i16> = (0..4).map(|at| if at == bad { -1 } else { 0 }).collect();
        assert_eq!(rig.answers(), expected);
        assert_eq!(rig.out(), None);
    }
}

/// The host sees nothing of a guest whose cable is out, whatever it sends.
#[test]
fn a_copy_that_fails_behind_a_cut_link_counts_as_cut() {
    let mut rig = Rig::new();
    rig.live.set_cut(true);
    let request = FrontTxRequest {
        gref: 9_999,
        offset: 0,
        flags: 0,
        id: 0,
        size: 60,
    };
    rig.tx.push(FrontTxSlot::Request(request)).unwrap();
    rig.turn();
    assert_eq!(rig.answers(), [-1]);
    let drops: Vec<_> = rig.counters.tx.drops().collect();
    assert_eq!(drops, [(DropReason::LinkDown, 1)]);
}

/// A guest that sends without end must not keep its receiver from running.
#[test]
fn a_turn_ends_after_some_frames_and_the_rest_has_another() {
    let mut rig = Rig::new();
    for _ in 0..200 {
        rig.slot(0, &plain(60), 0, 60);
    }
    let first = rig.turn();
    assert_eq!((first.delivered, first.next), (128, Turn::Again));
    assert_eq!(rig.answers().len(), 128);
    let second = rig.turn();
    assert_eq!((second.delivered, second.next), (72, Turn::Dry));
    assert_eq!(rig.answers().len(), 72);
}

/// Each costs the host an interrupt and a worker several system calls, and the guest next to nothing.
#[test]
fn events_for_nothing_are_not_listened_to_for_ever() {
    let mut rig = Rig::new();
    let mut heard = 0;
    for _ in 0..1_000 {
        rig.ports[0].notify();
        heard += rig.hear();
    }
    // Two came with the connection.
    assert_eq!(heard, 17, "of 1000");

    // What is sent meanwhile waits, and is found without an event.
    rig.slot(0, &plain(60), 0, 60);
    rig.ports[0].notify();
    assert_eq!(rig.hear(), 0);
    assert_eq!(rig.answers(), [0]);
}

/// The device masks a port whose event the worker does not get to hear of, too.
#[test]
fn after_events_were_lost_the_next_ones_are_heard() {
    let mut rig = Rig::new();
    rig.hear();
    rig.ports[0].notify();
    let mut lost = Vec::new();
    rig.channels.pending(&mut lost).unwrap();
    assert_eq!(lost.len(), 1);
    rig.ports[0].notify();
    assert_eq!(rig.hear(), 0, "it is masked");
    rig.pair.events_lost();
    rig.hear();
    // What was signalled meanwhile may come first.
    rig.ports[0].notify();
    assert!(rig.hear() > 0);
}

/// Nothing is held against a guest that signals when it has something to say, however often.
#[test]
fn events_for_something_are_always_listened_to() {
    let mut rig = Rig::new();
    for _ in 0..100 {
        rig.slot(0, &plain(60), 0, 60);
        let _event = rig.tx.publish();
        rig.ports[0].notify();
        assert!(rig.hear() > 0);
        assert_eq!(rig.answers(), [0]);
    }
}

/// One that somebody else sends a frame to now and then does not get away with ten signals for each.
#[test]
fn frames_from_others_do_not_excuse_events_for_nothing() {
    let mut rig = Rig::new();
    let mut heard = 0;
    for _ in 0..100 {
        rig.post(0, 1);
        rig.give([0; HEADER], &plain(60));
        rig.pair.tap_readable();
        for _ in 0..10 {
            rig.ports[0].notify();
            heard += rig.hear();
        }
        assert_eq!(rig.received().len(), 1);
    }
    assert!(heard < 300, "{heard} of 1000");
}

/// A ring is asked to signal any buffer that is posted, also when a frame needs many: a guest may post them one by one.
#[test]
fn buffers_that_come_one_by_one_are_always_listened_to() {
    one_by_one(Rig::new(), false);
}

/// The frame for which it has stalled is lost, and another one uses up what it posts.
#[test]
fn nor_are_those_of_a_guest_that_has_stalled_ignored() {
    one_by_one(Rig::without_patience(), true);
}

fn one_by_one(mut rig: Rig, stalls: bool) {
    let give = |rig: &mut Rig| {
        rig.give([0; HEADER], &plain(15 * PAGE));
        rig.pair.tap_readable();
        rig.hear();
    };
    for _ in 0..10 {
        give(&mut rig);
        for page in 0..15 {
            rig.post(page, 1);
            assert!(rig.rx.publish(), "page {page}");
            rig.ports[1].notify();
            assert_eq!(rig.hear(), 1, "page {page}");
        }
        if stalls {
            give(&mut rig);
        }
        assert_eq!(rig.received().len(), 15);
    }
}
