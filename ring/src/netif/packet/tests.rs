// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every rule of the packet plan, on both sides of each limit, and arbitrary slots.
//!
//! The cases that FreeBSD's netback tests have for reading a ring (empty, 1 to 3 requests, extra,
//! partial, long, invalid extra) are in `freebsd`, over a ring.

mod freebsd;
mod properties;

use super::*;
use crate::ids::GrantRef;
use crate::netif::{ExtraSlot, GsoKind, Status, TxResponse};

const ALL: TxLimits = TxLimits {
    gso_v4: true,
    gso_v6: true,
    multicast: true,
};
const MORE: TxFlags = TxFlags::MORE_DATA;
const EXTRA: TxFlags = TxFlags::EXTRA_INFO;
const NONE: TxFlags = TxFlags::new(0);

/// A request whose gref and id tell its number.
fn data(number: u16, flags: TxFlags, offset: u16, size: u16) -> TxSlot {
    let gref = GrantRef::new(1000 + u32::from(number));
    TxSlot::from(TxRequest {
        gref,
        offset,
        flags,
        id: 100 + number,
        size,
    })
}

fn extra(extra: Extra, more: bool) -> TxSlot {
    let [first, second] = ExtraSlot { extra, more }.to_words();
    TxSlot::new([first, second, 0xdead_beef])
}

fn gso(size: u16, kind: GsoKind) -> Extra {
    Extra::Gso(Gso { size, kind })
}

/// A first slot of 100 bytes of its own and `later` slots of 10 bytes.
fn chain(later: u16) -> Vec<TxSlot> {
    let flags = |number| if number < later { MORE } else { NONE };
    let first = data(0, flags(0), 0, 100 + 10 * later);
    std::iter::once(first)
        .chain((1..=later).map(|n| data(n, flags(n), 0, 10)))
        .collect()
}

fn pieces(packet: &TxPacket, slots: &[TxSlot]) -> Vec<(usize, u32, u16, u16)> {
    let piece = |f: Fragment| (f.slot, f.gref.raw(), f.offset, f.len);
    packet.fragments(slots).map(piece).collect()
}

fn answers(packet: &TxPacket, slots: &[TxSlot], status: Status) -> Vec<(u16, Status)> {
    packet
        .responses(slots, status)
        .map(|r| (r.id, r.status))
        .collect()
}

fn verdict(slots: &[TxSlot]) -> Result<Verdict, PeerFault> {
    next_packet(slots, &ALL).map(|packet| packet.verdict)
}

#[test]
fn no_slots_are_no_packet() {
    let incomplete = PeerFault::IncompletePacket { published: 0 };
    assert_eq!(next_packet(&[], &ALL), Err(incomplete));
}

#[test]
fn one_request_is_one_fragment() {
    let slots = [data(0, NONE, 16, 60), data(1, NONE, 0, 70)];
    let packet = next_packet(&slots, &ALL).unwrap();
    assert_eq!((packet.slots, packet.size, packet.extras), (1, 60, 0));
    assert_eq!((packet.csum, packet.gso), (TxCsum::Complete, None));
    assert_eq!(packet.verdict, Verdict::Deliver);
    assert_eq!(pieces(&packet, &slots), [(0, 1000, 16, 60)]);
    assert_eq!(
        answers(&packet, &slots, Status::Okay),
        [(100, Status::Okay)]
    );
}

#[test]
fn the_first_slot_has_what_the_later_ones_leave() {
    let slots = [data(0, MORE, 0, 1900), data(1, NONE, 8, 500)];
    let packet = next_packet(&slots, &ALL).unwrap();
    assert_eq!((packet.slots, packet.size), (2, 1900));
    assert_eq!(
        pieces(&packet, &slots),
        [(0, 1000, 0, 1400), (1, 1001, 8, 500)]
    );

    let slots = [
        data(0, MORE, 0, 1900),
        data(1, MORE, 8, 500),
        data(2, NONE, 9, 1),
    ];
    let packet = next_packet(&slots, &ALL).unwrap();
    assert_eq!((packet.slots, packet.size), (3, 1900));
    let expected = [(0, 1000, 0, 1399), (1, 1001, 8, 500), (2, 1002, 9, 1)];
    assert_eq!(pieces(&packet, &slots), expected);
}

/// The largest packet there is: 65535 bytes, of which the first slot's `size` field tells, and
/// which must not be mistaken for the first slot's own length.
#[test]
fn the_largest_packet_of_a_linux_frontend_is_accepted() {
    let mut slots = vec![data(0, MORE, 0, u16::MAX)];
    slots.extend((1..=15).map(|n| data(n, if n < 15 { MORE } else { NONE }, 0, 4096)));
    let packet = next_packet(&slots, &ALL).unwrap();
    assert_eq!(
        (packet.verdict, packet.size, packet.slots),
        (Verdict::Deliver, 65535, 16)
    );
    assert_eq!(pieces(&packet, &slots)[0], (0, 1000, 0, 4095));
}

#[test]
fn checksum_flags() {
    let csum = |flags| next_packet(&[data(0, flags, 0, 60)], &ALL).unwrap().csum;
    assert_eq!(
        csum(TxFlags::CSUM_BLANK.with(TxFlags::DATA_VALIDATED)),
        TxCsum::Blank
    );
    assert_eq!(csum(TxFlags::CSUM_BLANK), TxCsum::Blank);
    assert_eq!(csum(TxFlags::DATA_VALIDATED), TxCsum::Validated);
    assert_eq!(csum(NONE), TxCsum::Complete);
}

#[test]
fn extras_come_directly_after_the_first_slot() {
    let slots = [
        data(0, EXTRA.with(MORE), 0, 3000),
        extra(gso(1448, GsoKind::TcpV4), true),
        extra(
            Extra::Hash {
                kind: 1,
                algorithm: 1,
                value: [1, 2, 3, 4],
            },
            false,
        ),
        data(3, MORE, 0, 1000),
        data(4, NONE, 0, 500),
    ];
    let packet = next_packet(&slots, &ALL).unwrap();
    assert_eq!((packet.slots, packet.extras), (5, 2));
    assert_eq!(
        packet.gso,
        Some(Gso {
            size: 1448,
            kind: GsoKind::TcpV4
        })
    );
    let expected = [(0, 1000, 0, 1500), (3, 1003, 0, 1000), (4, 1004, 0, 500)];
    assert_eq!(pieces(&packet, &slots), expected);
    let (okay, null) = (Status::Okay, Status::Null);
    // In place of an id, an extra info's flags and type.
    let expected = [
        (100, okay),
        (0x101, null),
        (4, null),
        (103, okay),
        (104, okay),
    ];
    assert_eq!(answers(&packet, &slots, okay), expected);
    let failed = |position| if position == 3 { Status::Error } else { okay };
    let expected = [
        (100, okay),
        (0x101, null),
        (4, null),
        (103, Status::Error),
        (104, okay),
    ];
    let got: Vec<_> = packet
        .responses_with(&slots, failed)
        .map(|TxResponse { id, status }| (id, status))
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn empty_later_slots_are_legal_and_not_copied() {
    let slots = [
        data(0, MORE, 0, 60),
        data(1, MORE, 4096, 0),
        data(2, NONE, 0, 0),
    ];
    let packet = next_packet(&slots, &ALL).unwrap();
    assert_eq!(pieces(&packet, &slots), [(0, 1000, 0, 60)]);
    let okay = Status::Okay;
    assert_eq!(
        answers(&packet, &slots, okay),
        [(100, okay), (101, okay), (102, okay)]
    );
}

#[test]
fn slot_counts() {
    assert_eq!(verdict(&chain(18)), Ok(Verdict::Deliver));
    for later in [19, 20] {
        let slots = chain(later);
        let packet = next_packet(&slots, &ALL).unwrap();
        assert_eq!(packet.verdict, Verdict::Drop(DropReason::TooManySlots));
        assert_eq!(packet.slots, usize::from(later) + 1);
        assert_eq!(
            pieces(&packet, &slots),
            [],
            "nothing of a dropped packet is copied"
        );
        let answers = answers(&packet, &slots, Status::Error);
        assert_eq!(
            answers.len(),
            usize::from(later) + 1,
            "every slot is answered"
        );
        assert!(answers.iter().all(|(_, status)| *status == Status::Error));
    }
    assert_eq!(
        verdict(&chain(21)),
        Err(PeerFault::TooManySlots { limit: 20 })
    );
    assert_eq!(
        verdict(&chain(200)),
        Err(PeerFault::TooManySlots { limit: 20 })
    );
}

#[test]
fn extras_do_not_count_as_slots() {
    let mut slots = chain(18);
    slots[0] = data(0, MORE.with(EXTRA), 0, 280);
    slots.insert(1, extra(gso(1448, GsoKind::TcpV6), false));
    let packet = next_packet(&slots, &ALL).unwrap();
    assert_eq!((packet.verdict, packet.slots), (Verdict::Deliver, 20));
}

#[test]
fn a_packet_that_is_not_all_there_is_fatal() {
    let whole = [
        data(0, EXTRA.with(MORE), 0, 300),
        extra(gso(1448, GsoKind::TcpV4), true),
        extra(Extra::Xdp { headroom: 0 }, false),
        data(3, MORE, 0, 100),
        data(4, NONE, 0, 100),
    ];
    assert_eq!(verdict(&whole), Ok(Verdict::Deliver));
    for published in 0..whole.len() {
        let incomplete = PeerFault::IncompletePacket { published };
        assert_eq!(verdict(&whole[..published]), Err(incomplete));
    }
    // A chain that never ends is cut off by the slot limit, not by the ring's size.
    let endless = vec![data(0, MORE, 0, 0); 256];
    assert_eq!(
        verdict(&endless),
        Err(PeerFault::TooManySlots { limit: 20 })
    );
}

#[test]
fn no_slot_crosses_its_page() {
    let crosses = |slot, offset, len| Err(PeerFault::CrossesPage { slot, offset, len });
    assert_eq!(verdict(&[data(0, NONE, 4036, 60)]), Ok(Verdict::Deliver));
    assert_eq!(verdict(&[data(0, NONE, 4037, 60)]), crosses(0, 4037, 60));
    assert_eq!(
        verdict(&[data(0, NONE, u16::MAX, u16::MAX)]),
        crosses(0, u16::MAX, u16::MAX)
    );
    // The first slot's bound is on its own length: 60 bytes here.
    let two = |offset| [data(0, MORE, offset, 160), data(1, NONE, 0, 100)];
    assert_eq!(verdict(&two(4036)), Ok(Verdict::Deliver));
    assert_eq!(verdict(&two(4037)), crosses(0, 4037, 60));
    let later = |offset| [data(0, MORE, 0, 160), data(1, NONE, offset, 100)];
    assert_eq!(verdict(&later(3996)), Ok(Verdict::Deliver));
    assert_eq!(verdict(&later(3997)), crosses(1, 3997, 100));
    // With an extra between, the position counts it. And it is fatal in a packet that would
    // otherwise be dropped, too.
    let gso = extra(gso(1448, GsoKind::TcpV4), false);
    let slots = [
        data(0, MORE.with(EXTRA), 0, 20),
        gso,
        data(2, NONE, 4096, 100),
    ];
    assert_eq!(verdict(&slots), crosses(2, 4096, 100));
}

#[test]
fn sizes_that_do_not_add_up_drop_the_packet() {
    let drop = |reason| Ok(Verdict::Drop(reason));
    let two = |size, later| [data(0, MORE, 0, size), data(1, NONE, 0, later)];
    assert_eq!(verdict(&two(99, 100)), drop(DropReason::SizesExceedTotal));
    assert_eq!(verdict(&two(0, 4096)), drop(DropReason::SizesExceedTotal));
    assert_eq!(verdict(&two(100, 100)), drop(DropReason::ShortHeader));
    assert_eq!(verdict(&two(113, 100)), drop(DropReason::ShortHeader));
    assert_eq!(verdict(&two(114, 100)), Ok(Verdict::Deliver));
    assert_eq!(
        verdict(&[data(0, NONE, 0, 13)]),
        drop(DropReason::ShortHeader)
    );
    assert_eq!(
        verdict(&[data(0, NONE, 0, 0)]),
        drop(DropReason::ShortHeader)
    );
    assert_eq!(verdict(&[data(0, NONE, 0, 14)]), Ok(Verdict::Deliver));
    // Later slots whose sum needs more than 16 bits.
    let mut slots = vec![data(0, MORE, 0, u16::MAX)];
    slots.extend((1..=18).map(|n| data(n, if n < 18 { MORE } else { NONE }, 0, 4096)));
    assert_eq!(verdict(&slots), drop(DropReason::SizesExceedTotal));
}

#[test]
fn extras_that_mean_nothing_are_fatal() {
    let with = |bytes: [u32; 3]| verdict(&[data(0, EXTRA, 0, 60), TxSlot::new(bytes)]);
    assert_eq!(
        with([0xff, 0, 0]),
        Err(PeerFault::UnknownExtra { kind: 0xff })
    );
    assert_eq!(with([0, 0, 0]), Err(PeerFault::UnknownExtra { kind: 0 }));
    assert_eq!(with([6, 0, 0]), Err(PeerFault::UnknownExtra { kind: 6 }));
    assert_eq!(with([1, 1, 0]), Err(PeerFault::GsoSizeZero));
    assert_eq!(
        with([0x05a8_0001, 0, 0]),
        Err(PeerFault::UnknownGso { kind: 0 })
    );
    assert_eq!(
        with([0x05a8_0001, 3, 0]),
        Err(PeerFault::UnknownGso { kind: 3 })
    );
    let twice = [
        data(0, EXTRA, 0, 60),
        extra(gso(1448, GsoKind::TcpV4), true),
        extra(gso(1448, GsoKind::TcpV6), false),
    ];
    assert_eq!(verdict(&twice), Err(PeerFault::DuplicateExtra { kind: 1 }));
    // A chain of extras that never ends.
    let mut endless = vec![extra(Extra::Xdp { headroom: 0 }, true); 256];
    endless[0] = data(0, EXTRA, 0, 60);
    assert_eq!(
        verdict(&endless),
        Err(PeerFault::DuplicateExtra { kind: 5 })
    );
}

#[test]
fn segmentation_must_have_been_offered() {
    let slots = |kind, size| [data(0, EXTRA, 0, 60), extra(gso(size, kind), false)];
    let verdict = |slots: &[_], limits| next_packet(slots, &limits).map(|packet| packet.verdict);
    let (v4, v6) = (slots(GsoKind::TcpV4, 1448), slots(GsoKind::TcpV6, 1448));
    let refused = Ok(Verdict::Drop(DropReason::GsoNotOffered));
    for (limits, four, six) in [
        (ALL, Ok(Verdict::Deliver), Ok(Verdict::Deliver)),
        (
            TxLimits {
                gso_v4: false,
                ..ALL
            },
            refused,
            Ok(Verdict::Deliver),
        ),
        (
            TxLimits {
                gso_v6: false,
                ..ALL
            },
            Ok(Verdict::Deliver),
            refused,
        ),
        (TxLimits::default(), refused, refused),
    ] {
        assert_eq!(verdict(&v4, limits), four);
        assert_eq!(verdict(&v6, limits), six);
    }
    let tiny = slots(GsoKind::TcpV4, MIN_GSO_SIZE - 1);
    assert_eq!(
        verdict(&tiny, ALL),
        Ok(Verdict::Drop(DropReason::GsoTooSmall))
    );
    let packet = next_packet(&tiny, &ALL).unwrap();
    let expected = [(100, Status::Error), (1, Status::Null)];
    assert_eq!(answers(&packet, &tiny, Status::Error), expected);
    assert_eq!(
        verdict(&slots(GsoKind::TcpV4, MIN_GSO_SIZE), ALL),
        Ok(Verdict::Deliver)
    );
}

/// The host may have to cut it for each receiver, at once.
#[test]
fn a_packet_has_a_bounded_number_of_segments() {
    let packet = |bytes, size| {
        let slots = [
            data(0, EXTRA.with(MORE), 0, bytes),
            extra(gso(size, GsoKind::TcpV4), false),
        ];
        let pages = bytes / 4096;
        let rest =
            (1..=pages).map(|page| data(page, if page < pages { MORE } else { NONE }, 0, 4096));
        let slots: Vec<_> = slots.into_iter().chain(rest).collect();
        next_packet(&slots, &ALL).unwrap()
    };
    let most = packet(65_535, 64);
    assert_eq!(
        (most.segments(), most.verdict),
        (MAX_SEGMENTS, Verdict::Deliver)
    );
    let more = packet(65_535, 63);
    assert_eq!(more.verdict, Verdict::Drop(DropReason::GsoTooSmall));
    assert_eq!((more.segments(), more.copied()), (1, 0));
    assert_eq!(packet(5_000, 8).verdict, Verdict::Deliver);
}

#[test]
fn multicast_requests_have_no_data() {
    let mac = [1, 0, 0x5e, 0, 0, 1];
    let slots = |flags, change| [data(0, EXTRA.with(flags), 0, 0), extra(change, false)];
    for (change, expected) in [
        (Extra::McastAdd(mac), Multicast::Add(mac)),
        (Extra::McastDel(mac), Multicast::Del(mac)),
    ] {
        let quiet = slots(NONE, change);
        let packet = next_packet(&quiet, &ALL).unwrap();
        assert_eq!(
            (packet.verdict, packet.slots),
            (Verdict::Multicast(expected), 2)
        );
        assert_eq!(pieces(&packet, &quiet), []);
        assert_eq!(
            verdict(&slots(MORE, change)),
            Err(PeerFault::MulticastWithData)
        );
        let refused = next_packet(&quiet, &TxLimits::default()).unwrap();
        assert_eq!(
            refused.verdict,
            Verdict::Drop(DropReason::MulticastNotOffered)
        );
        assert_eq!(refused.slots, 2);
    }
    let both = [
        data(0, EXTRA, 0, 0),
        extra(Extra::McastAdd(mac), true),
        extra(Extra::McastDel(mac), false),
    ];
    assert_eq!(verdict(&both), Err(PeerFault::MulticastConflict));
}
