// SPDX-License-Identifier: GPL-3.0-or-later
//! Frames that stand for many: what they may cost the others, and what becomes of one that the guest
//! cannot take.

use std::time::Instant;

use xen_ring::front::{FrontExtra, FrontTxSlot, rx_flags};

use super::super::Turn;
use super::rig::*;
use crate::vif::{DropReason, Flow, Rate};

/// The guest sends a frame of 16 pages, to be cut into segments of `size` bytes.
fn send_large(rig: &mut Rig, size: u16) {
    let frame = ipv4(TCP, 20, 16 * PAGE - 1 - 54);
    let pieces: Vec<_> = frame.chunks(PAGE).collect();
    let flags = CSUM_BLANK | DATA_VALIDATED | EXTRA_INFO | MORE_DATA;
    rig.slot(0, pieces[0], flags, frame.len());
    let [low, high] = size.to_le_bytes();
    let extra = FrontExtra {
        kind: 1,
        flags: 0,
        body: [low, high, 1, 0, 0, 0],
    };
    rig.tx.push(FrontTxSlot::Extra(extra)).unwrap();
    for (page, piece) in pieces.iter().enumerate().skip(1) {
        let more = if page + 1 < pieces.len() {
            MORE_DATA
        } else {
            0
        };
        rig.slot(page, piece, more, piece.len());
    }
}

/// The host may cut them while they are written, and nobody else has a turn meanwhile.
#[test]
fn a_turn_ends_after_some_segments() {
    let mut rig = Rig::new();
    for _ in 0..3 {
        send_large(&mut rig, 128);
    }
    let turns = [rig.turn(), rig.turn()].map(|turn| (turn.delivered, turn.next));
    assert_eq!(turns, [(2, Turn::Again), (1, Turn::Dry)]);
}

/// Nobody cuts what is refused, and nobody has to wait for that.
#[test]
fn what_is_refused_is_no_work_but_for_its_slots() {
    let mut rig = Rig::new();
    for _ in 0..3 {
        send_large(&mut rig, 48);
    }
    let turn = rig.turn();
    assert_eq!((turn.delivered, turn.next), (0, Turn::Dry));
    assert_eq!(turn.work, 3 * 17, "{turn:?}");
}

/// Three of them speak of more bytes than may be sent at once.
#[test]
fn what_is_refused_takes_nothing_from_the_rate() {
    let mut rig = Rig::new();
    let slow = Rate::from_node("1000,1000000").unwrap();
    rig.limits.tx.set(Some(slow));
    for _ in 0..3 {
        send_large(&mut rig, 48);
    }
    rig.slot(20, &plain(100), 0, 100);
    let turn = rig.turn();
    assert_eq!((turn.delivered, turn.next), (1, Turn::Dry));
    for _ in 0..3 {
        send_large(&mut rig, 1400);
    }
    let turn = rig.turn();
    assert_eq!(turn.delivered, 2, "of those that are not refused");
    assert!(matches!(turn.next, Turn::Wait(_)), "{turn:?}");
}

/// One page that is to be cut into 500 keeps the others waiting for as long as a ring full of frames, or for longer.
#[test]
fn segments_count_as_work() {
    let mut rig = Rig::new();
    for _ in 0..20 {
        let frame = ipv4(TCP, 20, PAGE - 54);
        rig.slot(
            0,
            &frame,
            CSUM_BLANK | DATA_VALIDATED | EXTRA_INFO,
            frame.len(),
        );
        let extra = FrontExtra {
            kind: 1,
            flags: 0,
            body: [8, 0, 1, 0, 0, 0],
        };
        rig.tx.push(FrontTxSlot::Extra(extra)).unwrap();
    }
    let turn = rig.turn();
    assert_eq!(
        turn.next,
        Turn::Again,
        "it has been cut short for its segments"
    );
    assert!(
        turn.work >= 128,
        "{} after {} frames",
        turn.work,
        turn.delivered
    );
    // Usual segments are too few for that: pages count, and the extra info.
    for (size, work) in [(255, 65_536 / 255 / 4), (1400, 16 + 1)] {
        let mut rig = Rig::new();
        send_large(&mut rig, size);
        assert_eq!(rig.turn().work, work, "of {size} bytes");
    }
}

#[test]
fn a_frame_of_too_many_segments_is_dropped() {
    let mut rig = Rig::new();
    send_large(&mut rig, 63);
    assert_eq!(rig.turn().delivered, 0);
    let drops: Vec<_> = rig.counters.tx.drops().collect();
    assert_eq!(drops, [(DropReason::BadOffload, 1)]);
}

/// Segments need checksums of their own, so one that is there is made blank again, and that is told (as with Linux's
/// netback).
#[test]
fn a_frame_of_segments_with_a_checksum_is_mended_and_counted() {
    for flags in [0, DATA_VALIDATED] {
        let mut rig = Rig::new();
        let mut frame = ipv4(TCP, 20, 3000);
        rig.slot(0, &frame, flags | EXTRA_INFO, frame.len());
        let extra = FrontExtra {
            kind: 1,
            flags: 0,
            body: [0xe8, 3, 1, 0, 0, 0],
        };
        rig.tx.push(FrontTxSlot::Extra(extra)).unwrap();
        rig.turn();
        // 192.0.2.1 and 192.0.2.2, protocol 6, 3020 bytes.
        frame[50..52].copy_from_slice(&[0x8f, 0xd6]);
        let header = vec![1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0];
        assert_eq!(rig.out(), Some((header, frame)));
        let counted = (rig.counters.tx.repairs(), rig.counters.tx.packets());
        assert_eq!(counted, (1, 1));
    }
    let mut rig = Rig::new();
    send_large(&mut rig, 255);
    rig.turn();
    assert_eq!(rig.counters.tx.repairs(), 0);
}

/// A frame of three segments from the host, behind a VLAN tag or not.
fn give_segments(rig: &Rig, tagged: bool) {
    let (mut header, mut frame) = segments();
    if tagged {
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
        header[6] += 4;
    }
    rig.give(header, &frame);
}

/// (slots, those with extra info, those with a blank checksum) of what the guest has received.
fn received(rig: &mut Rig) -> (usize, usize, usize) {
    let slots = rig.received();
    let flagged = |flag| {
        let flags = slots.iter().map(|slot| slot.as_response().flags);
        flags.filter(|flags| flags & flag != 0).count()
    };
    (
        slots.len(),
        flagged(rx_flags::EXTRA_INFO),
        flagged(rx_flags::CSUM_BLANK),
    )
}

/// A frame behind a tag that ends with the stream, its length without the tag, and what the guest has received of it:
/// (payload bytes, whether the end was said).
fn long_tagged_frame(rig: &mut Rig, untagged: usize) -> (usize, bool) {
    let mut frame = ipv4(TCP, 20, untagged - 54);
    frame[14 + 20 + 13] = 0x11; // ACK, FIN
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    let [s0, s1] = 1448_u16.to_le_bytes();
    rig.give([1, 1, 58, 0, s0, s1, 38, 0, 16, 0, 0, 0], &frame);
    let (mut payload, mut end) = (0, false);
    for _ in 0..4 {
        rig.post(0, 32);
        rig.turn();
        for slot in rig.received() {
            let (id, _, _, status) = Rig::response(slot);
            payload += usize::try_from(status).unwrap() - 58;
            end |= rig.page(id.into(), 60)[18 + 20 + 13] & 1 != 0;
        }
    }
    (payload, end)
}

/// The host counts a frame's length without the tag that it then puts in.
#[test]
fn the_longest_frame_has_room_for_its_tag() {
    let mut rig = Rig::new();
    let longest = 65_535;
    assert_eq!(long_tagged_frame(&mut rig, longest), (longest - 54, true));
    assert_eq!(rig.counters.rx.drops().next(), None);
}

/// What the tap had to cut off is not there; the rest must not pass for the whole.
#[test]
fn a_tagged_frame_that_was_cut_off_is_dropped() {
    let mut rig = Rig::new();
    assert_eq!(long_tagged_frame(&mut rig, 65_536), (0, false));
    let drops: Vec<_> = rig.counters.rx.drops().collect();
    assert_eq!(drops, [(DropReason::TooLarge, 1)]);
}

/// Nobody can take it whole; what comes after it goes on as before.
#[test]
fn a_tagged_frame_is_cut_and_the_next_is_not() {
    let mut rig = Rig::new();
    rig.post(0, 16);
    give_segments(&rig, true);
    give_segments(&rig, false);
    rig.turn();
    let rx = &rig.counters.rx;
    assert_eq!((rx.packets(), rx.drops().next()), (4, None));
    assert_eq!(rx.bytes(), 3 * 58 + 3000 + 3054);
    // Three segments of a page, then one frame and its extra info.
    assert_eq!(received(&mut rig), (5, 1, 1));
}

/// The tap has nothing more, so nobody but the guest brings about a turn.
#[test]
fn segments_wait_for_buffers_one_by_one() {
    let mut rig = Rig::new();
    give_segments(&rig, true);
    rig.turn();
    // What is posted when nothing is left stays.
    for expected in [1, 2, 3, 3] {
        rig.post(0, 1);
        rig.quiet_turn();
        assert_eq!(rig.counters.rx.packets(), expected);
    }
    assert_eq!(received(&mut rig), (3, 0, 0));
}

#[test]
fn segments_of_a_guest_that_stalls_are_dropped_and_counted() {
    let mut rig = Rig::without_patience();
    rig.post(0, 1);
    give_segments(&rig, true);
    assert_eq!(rig.turn().flow, Some(Flow::Stalled));
    let drops: Vec<_> = rig.counters.rx.drops().collect();
    assert_eq!(
        (rig.counters.rx.packets(), drops),
        (1, vec![(DropReason::Stalled, 2)])
    );
    rig.post(1, 4);
    assert_eq!(rig.quiet_turn().flow, Some(Flow::Resumed));
    give_segments(&rig, false);
    rig.turn();
    assert_eq!(
        received(&mut rig),
        (3, 1, 1),
        "the first segment, and a frame with its extra info"
    );
}

#[test]
fn segments_wait_for_the_rate() {
    let mut rig = Rig::new();
    rig.post(0, 1);
    give_segments(&rig, true);
    rig.turn();
    assert_eq!(rig.counters.rx.packets(), 1);
    rig.limits
        .rx
        .set(Some(Rate::from_node("1000,1000000").unwrap()));
    rig.limits.rx.meter(Instant::now).charge(10_000_000);
    rig.post(1, 4);
    assert!(matches!(rig.quiet_turn().next, Turn::Wait(_)));
    assert_eq!(rig.counters.rx.packets(), 1);
    rig.limits.rx.set(None);
    rig.quiet_turn();
    assert_eq!(
        (rig.counters.rx.packets(), rig.counters.rx.drops().next()),
        (3, None)
    );
}
