// SPDX-License-Identifier: GPL-3.0-or-later
//! A transmit ring full of anything, read packet by packet, beside a second reading of the same
//! slots: as many slots, the same verdict, and pieces that are the packet.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netback_fuzz::Many;
use xen_ring::netif::{Status, TxLimits, TxPacket, TxSlot, Verdict, next_packet};

/// Slots that are near enough to sense for every rule to be reached.
#[derive(Arbitrary, Debug)]
enum Slot {
    Raw([u32; 3]),
    Request {
        flags: u8,
        offset: u16,
        id: u16,
        size: u16,
    },
    Small {
        flags: u8,
        offset: u8,
        id: u16,
        size: u8,
    },
    /// Data that end where their page ends, or thereabouts.
    AtEnd {
        flags: u8,
        size: u8,
        past: u8,
    },
    /// More data, in so many slots.
    Chain {
        count: u8,
        size: u8,
    },
    Extra {
        kind: u8,
        more: bool,
        value: u16,
        gso: u8,
    },
}

#[derive(Arbitrary, Debug)]
struct Input {
    gso_v4: bool,
    gso_v6: bool,
    multicast: bool,
    slots: Many<Slot>,
}

impl Slot {
    fn count(&self) -> usize {
        match self {
            Self::Chain { count, .. } => (count % 24).into(),
            _ => 1,
        }
    }

    fn words(&self) -> TxSlot {
        let pair = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        let request = |flags: u8, offset, id, size| {
            [
                u32::from(id) + 77,
                pair(offset, (flags & 15).into()),
                pair(id, size),
            ]
        };
        TxSlot::new(match *self {
            Self::Raw(words) => words,
            Self::Request {
                flags,
                offset,
                id,
                size,
            } => request(flags, offset % 4200, id, size % 5000),
            Self::Small {
                flags,
                offset,
                id,
                size,
            } => request(flags, offset.into(), id, size.into()),
            Self::AtEnd { flags, size, past } => {
                let offset = 4095 - u16::from(size) + u16::from(past % 3);
                request(flags, offset, 3, size.into())
            }
            Self::Chain { size, .. } => request(4, 0, 2, size.into()),
            Self::Extra {
                kind,
                more,
                value,
                gso,
            } => {
                let kind_and_flags = u16::from(kind % 7) | u16::from(more) << 8;
                [pair(kind_and_flags, value), u32::from(gso % 4), 0]
            }
        })
    }
}

/// What the protocol says of a packet.
struct Reading {
    slots: usize,
    extras: usize,
    size: u32,
    delivered: bool,
    multicast: bool,
}

/// Reads the packet at the beginning of these slots, by `netif.h` and what Linux's netback makes of
/// it: `None` if it is fatal.
fn read(slots: &[TxSlot], limits: TxLimits) -> Option<Reading> {
    let fields = |at: usize| {
        let [_, second, third] = slots.get(at)?.words();
        Some((second & 0xffff, second >> 16, third >> 16))
    };
    let (offset, flags, size) = fields(0)?;
    let (mut extras, mut seen, mut gso) = (0, [false; 6], None);
    while extras > 0 || flags & 8 != 0 {
        let [first, second, _] = slots.get(1 + extras)?.words();
        let kind = usize::try_from(first & 0xff).ok()?;
        if !(1..=5).contains(&kind) || std::mem::replace(&mut seen[kind], true) {
            return None;
        }
        if kind == 1 {
            let version = second & 0xff;
            if first >> 16 == 0 || !(1..=2).contains(&version) {
                return None;
            }
            gso = Some((first >> 16, version == 2));
        }
        extras += 1;
        if first & 0x100 == 0 {
            break;
        }
    }
    if seen[2] || seen[3] {
        let fatal = flags & 4 != 0 || seen[2] && seen[3];
        return (!fatal).then_some(Reading {
            slots: 1 + extras,
            extras,
            size: 0,
            delivered: false,
            multicast: limits.multicast,
        });
    }
    let (mut later, mut bytes, mut more) = (0, 0, flags & 4 != 0);
    while more {
        let (offset, flags, size) = fields(1 + extras + later)?;
        if later == 20 || offset + size > 4096 {
            return None;
        }
        later += 1;
        bytes += size;
        more = flags & 4 != 0;
    }
    let countable = later <= 18 && bytes <= size;
    if countable && offset + (size - bytes) > 4096 {
        return None;
    }
    let segmentable = gso.is_none_or(|(mss, v6)| {
        let offered = if v6 { limits.gso_v6 } else { limits.gso_v4 };
        offered && mss >= 8 && size.div_ceil(mss) <= 1024
    });
    Some(Reading {
        slots: 1 + extras + later,
        extras,
        size,
        delivered: countable && size - bytes >= 14 && segmentable,
        multicast: false,
    })
}

fn check(packet: TxPacket, expected: &Reading, slots: &[TxSlot]) {
    assert_eq!(
        (packet.slots, packet.extras),
        (expected.slots, expected.extras)
    );
    assert_eq!(packet.size, expected.size);
    assert_eq!(packet.verdict == Verdict::Deliver, expected.delivered);
    assert_eq!(
        matches!(packet.verdict, Verdict::Multicast(_)),
        expected.multicast
    );

    let answers: Vec<_> = packet.responses(slots, Status::Error).collect();
    assert_eq!(answers.len(), packet.slots);
    for (at, (answer, slot)) in answers.iter().zip(slots).enumerate() {
        let is_extra = (1..=packet.extras).contains(&at);
        assert_eq!(answer.status == Status::Null, is_extra);
        assert!(is_extra || u32::from(answer.id) == slot.words()[2] & 0xffff);
    }
    let (mut sum, mut last) = (0, None);
    for piece in packet.fragments(slots) {
        assert!(piece.len > 0 && piece.offset + piece.len <= 4096);
        assert!(last < Some(piece.slot) && piece.slot < packet.slots);
        assert!(!(1..=packet.extras).contains(&piece.slot));
        assert!(last.is_some() || piece.slot == 0 && piece.len >= 14);
        assert_eq!(slots[piece.slot].words()[0], piece.gref.raw());
        (sum, last) = (sum + u32::from(piece.len), Some(piece.slot));
    }
    assert_eq!(sum, if expected.delivered { packet.size } else { 0 });
}

fuzz_target!(|input: Input| {
    let Input {
        gso_v4,
        gso_v6,
        multicast,
        slots,
    } = input;
    let limits = TxLimits {
        gso_v4,
        gso_v6,
        multicast,
    };
    let runs = slots
        .0
        .iter()
        .map(|slot| std::iter::repeat_n(slot.words(), slot.count()));
    let slots: Vec<_> = runs.flatten().take(256).collect();
    let mut rest = &slots[..];
    while !rest.is_empty() {
        let expected = read(rest, limits);
        let taken = match (next_packet(rest, &limits), &expected) {
            (Ok(packet), Some(expected)) => {
                check(packet, expected, rest);
                // What comes behind it has no part in it.
                assert_eq!(next_packet(&rest[..packet.slots], &limits), Ok(packet));
                packet.slots
            }
            // The vif would end here; what comes behind may be of interest all the same.
            (Err(_), None) => 1,
            (Ok(packet), None) => panic!("{packet:?} is fatal"),
            (Err(fault), Some(_)) => panic!("that is a packet, and not: {fault}"),
        };
        rest = &rest[taken..];
    }
});
