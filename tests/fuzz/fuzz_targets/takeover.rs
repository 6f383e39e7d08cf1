// SPDX-License-Identifier: GPL-3.0-or-later
//! Rings whose backend was killed. What a successor makes of any ring at all stays within what was
//! published. Of a ring in which a backend has answered some slots of whole packets without
//! publishing them, it settles those, and what is left of the packet that they end in; no more.
#![no_main]

use std::sync::atomic::Ordering::Relaxed;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netback_fuzz::Many;
use xen_ring::front::{
    FrontExtra, FrontRing, FrontRx, FrontRxRequest, FrontTx, FrontTxRequest, FrontTxSlot, rx_flags,
    tx_flags,
};
use xen_ring::netif::{
    Extra, ExtraSlot, Gso, GsoKind, RxFlags, RxResponse, RxRing, RxSlotResponse, Status,
    TxResponse, TxRing,
};
use xen_ring::page::Page;
use xen_ring::{BackRing, PeerFault, RingKind, SharedPage};

#[derive(Arbitrary, Debug)]
enum Input {
    Anything(Anything),
    Transmitted(Killed),
    Received(Killed),
}

/// A page with these words at its beginning, again and again.
#[derive(Arbitrary, Debug)]
struct Anything {
    rx: bool,
    hashes: bool,
    rsp_prod: u32,
    published: u16,
    slots: Many<Slot>,
}

#[derive(Arbitrary, Debug)]
enum Slot {
    Words([u32; 3]),
    TxAnswer { id: u16, status: i8, more: u8 },
    RxAnswer { status: i16, flags: u8 },
    Extra { kind: u8, flags: u8, null: bool },
}

impl Slot {
    fn words(&self) -> [u32; 3] {
        match *self {
            Self::Words(words) => words,
            Self::TxAnswer { id, status, more } => {
                let status = i16::from(status % 3).cast_unsigned();
                [
                    u32::from(id) | u32::from(status) << 16,
                    u32::from(more) << 16,
                    id.into(),
                ]
            }
            Self::RxAnswer { status, flags } => {
                let second = u32::from(flags % 16) | u32::from(status.cast_unsigned()) << 16;
                [1, second, second]
            }
            Self::Extra { kind, flags, null } => [
                u32::from(kind % 7) | u32::from(flags % 2) << 8 | u32::from(null) << 16,
                1,
                0,
            ],
        }
    }
}

/// A ring of packets, and when its backend was killed.
#[derive(Arbitrary, Debug)]
struct Killed {
    start: u32,
    /// Slots that have been answered, those of `published` packets excepted.
    answered: u8,
    published: u8,
    /// Buffers posted beyond what the packets take.
    spare: u8,
    packets: Many<Packet>,
}

#[derive(Arbitrary, Debug)]
struct Packet {
    /// At most two extra infos, and one to four pieces of data.
    shape: (u8, u8),
    extras: [[u8; 6]; 2],
    data: [Data; 4],
    status: u8,
}

/// What a guest calls a page, and what the backend says of it.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Data {
    id: u16,
    gref: u32,
    len: u16,
    offset: u16,
}

impl Packet {
    fn shape(&self) -> (usize, usize) {
        (
            usize::from(self.shape.0 % 3),
            usize::from(self.shape.1 % 4) + 1,
        )
    }

    fn slots(&self) -> usize {
        let (extras, data) = self.shape();
        extras + data
    }
}

/// What stands in a slot.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// A piece of data, and how many of the packet's pieces follow. Of the first, whether extra infos do.
    Data(&'a Packet, Data, usize, bool),
    Extra(&'a Packet, [u8; 6], bool),
}

impl Killed {
    /// Packets that fit into a ring, slot by slot, and where each begins and the last ends.
    fn parts(&self) -> (Vec<Part<'_>>, Vec<usize>) {
        let (mut parts, mut bounds) = (Vec::new(), vec![0]);
        for packet in &self.packets.0 {
            let (extras, data) = packet.shape();
            if parts.len() + packet.slots() > 256 {
                break;
            }
            parts.push(Part::Data(packet, packet.data[0], data - 1, extras > 0));
            for (at, body) in packet.extras.iter().enumerate().take(extras) {
                parts.push(Part::Extra(packet, *body, at + 1 < extras));
            }
            let later =
                (1..data).map(|at| Part::Data(packet, packet.data[at], data - 1 - at, false));
            parts.extend(later);
            bounds.push(parts.len());
        }
        (parts, bounds)
    }

    /// The slots that have been published, and those that have been answered with them.
    fn progress(&self, bounds: &[usize], slots: usize) -> (usize, usize) {
        let published = bounds[usize::from(self.published) % bounds.len()];
        (published, slots.min(published + usize::from(self.answered)))
    }
}

fn transmitted(killed: &Killed) {
    let (parts, bounds) = killed.parts();
    let (published, answered) = killed.progress(&bounds, parts.len());
    let page = SharedPage::anonymous().unwrap();
    let mut front = FrontRing::<FrontTx>::init_at(page.clone(), killed.start);
    for part in &parts {
        let slot = match *part {
            Part::Data(
                _,
                Data {
                    id,
                    gref,
                    len,
                    offset,
                },
                more,
                extra,
            ) => {
                let flags = [
                    (more > 0, tx_flags::MORE_DATA),
                    (extra, tx_flags::EXTRA_INFO),
                ];
                let flags = flags
                    .iter()
                    .filter(|flag| flag.0)
                    .fold(0, |all, flag| all | flag.1);
                FrontTxSlot::Request(FrontTxRequest {
                    gref,
                    offset,
                    flags,
                    id,
                    size: len,
                })
            }
            Part::Extra(_, body, more) => FrontTxSlot::Extra(FrontExtra {
                kind: body[0],
                flags: more.into(),
                body,
            }),
        };
        front.push(slot).unwrap();
    }
    let _event = front.publish();
    let mut former = BackRing::<TxRing>::attach(page.clone()).unwrap();
    former.unconsumed().unwrap();
    for (at, part) in parts.iter().enumerate().take(answered) {
        let slot = former.take().unwrap();
        former
            .respond(match *part {
                Part::Extra(..) => TxResponse::null(slot),
                Part::Data(packet, data, ..) => TxResponse {
                    id: data.id,
                    status: status(packet),
                },
            })
            .unwrap();
        if at + 1 == published {
            let _event = former.publish();
        }
    }
    drop(former);

    let (mut next, settled) = BackRing::<TxRing>::take_over(page).unwrap();
    let end = *bounds.iter().find(|bound| **bound >= answered).unwrap();
    if let Some(Part::Data(_, data, ..)) = parts.get(end)
        && [0, 0xffff, 0xfffe].contains(&(data.gref >> 16))
        && data.gref & 0xffff == u32::from(data.id)
    {
        return; // It looks like an answer.
    }
    assert_eq!(settled as usize, end - published);
    for (at, part) in parts.iter().enumerate().take(end) {
        let (_, answer) = front.take().unwrap().unwrap();
        match *part {
            Part::Extra(..) => assert_eq!(answer.status, 1),
            Part::Data(packet, data, ..) => {
                assert_eq!(answer.id, data.id);
                // What was not answered may look so, but for the packet's first.
                let looks_so = u32::from(data.id) | (data.gref & 0xffff_0000) == data.gref;
                let expected = if at < answered {
                    status(packet)
                } else {
                    Status::Error
                };
                assert!(answer.status == expected as i16 || at >= answered && looks_so);
            }
        }
    }
    assert_eq!(front.take(), Ok(None));
    assert_eq!(next.unconsumed().unwrap() as usize, parts.len() - end);
    for part in &parts[end..] {
        let slot = next.take().unwrap();
        match *part {
            Part::Extra(_, [kind, ..], _) => assert_eq!(slot.words()[0] & 0xff, kind.into()),
            Part::Data(_, data, ..) => assert_eq!(slot.as_request().gref.raw(), data.gref),
        }
    }
}

fn status(packet: &Packet) -> Status {
    [Status::Okay, Status::Error, Status::Dropped][usize::from(packet.status % 3)]
}

/// What the backend says of what the guest receives.
fn received_slot(part: Part<'_>, id: u16) -> RxSlotResponse {
    match part {
        Part::Data(packet, data, more, extra) => {
            let flags = [(more > 0, RxFlags::MORE_DATA), (extra, RxFlags::EXTRA_INFO)];
            let flags = flags.into_iter().filter(|flag| flag.0);
            let len = (data.len % 4096 + 1).cast_signed();
            RxSlotResponse::Data(RxResponse {
                id,
                offset: data.offset,
                flags: flags.fold(RxFlags::new(u16::from(packet.status) & 3), |all, flag| {
                    all.with(flag.1)
                }),
                status: if packet.status == 77 { -1 } else { len },
            })
        }
        Part::Extra(_, body, more) => {
            let number = u16::from_le_bytes([body[1], body[2]]);
            let extra = match body[0] % 3 {
                0 => Extra::Gso(Gso {
                    size: number.max(1),
                    kind: GsoKind::TcpV6,
                }),
                1 => Extra::Hash {
                    kind: body[1] % 4,
                    algorithm: 1,
                    value: [body[2], body[3], body[4], body[5]],
                },
                _ => Extra::Xdp { headroom: number },
            };
            RxSlotResponse::Extra(ExtraSlot { extra, more })
        }
    }
}

fn received(killed: &Killed) {
    let (parts, bounds) = killed.parts();
    let (published, answered) = killed.progress(&bounds, parts.len());
    // Whatever the guest's ids are; its references are below 65536.
    let posted = (parts.len() + usize::from(killed.spare)).min(256);
    let request = |at: usize| match parts.get(at % parts.len().max(1)) {
        Some(Part::Data(_, data, ..)) => FrontRxRequest {
            id: data.id,
            gref: data.gref & 0xffff | 8,
        },
        Some(Part::Extra(_, [a, b, c, d, ..], _)) => {
            let [id, gref] = [[*a, *b], [*c, *d]].map(u16::from_le_bytes);
            FrontRxRequest {
                id,
                gref: u32::from(gref) | 8,
            }
        }
        None => FrontRxRequest { id: 2, gref: 9 },
    };
    let page = SharedPage::anonymous().unwrap();
    let mut front = FrontRing::<FrontRx>::init_at(page.clone(), killed.start);
    for at in 0..posted {
        front.push(request(at)).unwrap();
    }
    let _event = front.publish();
    let mut former = BackRing::<RxRing>::attach(page.clone()).unwrap();
    former.unconsumed().unwrap();
    for (at, part) in parts.iter().enumerate().take(answered) {
        let id = former.take().unwrap().id;
        former.respond(received_slot(*part, id)).unwrap();
        if at + 1 == published {
            let _event = former.publish();
        }
    }
    drop(former);

    let (mut next, settled) = BackRing::<RxRing>::take_over(page, true).unwrap();
    // A packet that is there in part gets the extra info that it lacks, and a last piece.
    let ending = match parts.get(answered) {
        _ if bounds.contains(&answered) => 0,
        Some(Part::Extra(packet, ..)) => 1 + usize::from(packet.shape().1 > 1),
        _ => 1,
    };
    assert_eq!(settled as usize, answered + ending - published);
    let mut read = 0;
    while read < answered + ending {
        let (_, slot) = front.take().unwrap().unwrap();
        let first = slot.as_response();
        let mut more = first.flags & rx_flags::EXTRA_INFO != 0;
        while more {
            let (_, slot) = front.take().unwrap().expect("an extra info is missing");
            let extra = slot.as_extra();
            assert!([1, 4, 5].contains(&extra.kind));
            more = extra.flags & 1 != 0;
            read += 1;
        }
        let mut last = first;
        while last.flags & rx_flags::MORE_DATA != 0 {
            let (_, slot) = front.take().unwrap().expect("the packet does not end");
            last = slot.as_response();
            read += 1;
        }
        read += 1;
        assert!(read <= answered || ending == 0 || last.status < 0 || last == first);
    }
    assert_eq!(front.take(), Ok(None));
    assert_eq!(next.unconsumed().unwrap() as usize, posted - read);
    for at in read..posted {
        let taken = next.take().unwrap();
        assert_eq!(
            (taken.id, taken.gref.raw()),
            (request(at).id, request(at).gref)
        );
    }
}

type TakeOver<R> = fn(SharedPage) -> Result<(BackRing<R>, u32), PeerFault>;

fn anything<R: RingKind>(input: &Anything, take_over: TakeOver<R>) {
    let page = SharedPage::anonymous().unwrap();
    let slots = input
        .slots
        .0
        .iter()
        .flat_map(Slot::words)
        .collect::<Vec<_>>();
    for (at, word) in (64..4096).step_by(4).zip(slots.iter().cycle()) {
        page.write_words(at, [*word]);
    }
    let published = u32::from(input.published % 300);
    for (at, index) in [input.rsp_prod.wrapping_add(published), 1, input.rsp_prod, 2]
        .into_iter()
        .enumerate()
    {
        page.store(4 * at, index, Relaxed);
    }
    let before: [u32; 1024] = page.read_words(0);
    let taken = take_over(page.clone());
    let after: [u32; 1024] = page.read_words(0);
    let Ok((mut ring, settled)) = taken else {
        assert!(published > R::SLOTS && before == after);
        return;
    };
    assert!(published <= R::SLOTS && settled <= published);
    assert_eq!(
        after[..4],
        [before[0], 1, input.rsp_prod.wrapping_add(settled), 2]
    );
    let changed = (4..1024).filter(|at| before[*at] != after[*at]);
    for at in changed {
        let slot = (4 * at - 64) / R::SLOT_BYTES;
        let distance = u32::try_from(slot).unwrap().wrapping_sub(input.rsp_prod) % R::SLOTS;
        assert!(
            4 * at >= 64 && distance < settled,
            "word {at} is none of an answer"
        );
    }
    assert_eq!(
        (ring.unconsumed(), ring.unanswered()),
        (Ok(published - settled), 0)
    );
    drop(ring);
    // Whoever takes over from that one finds nothing to settle.
    assert_eq!(take_over(page).map(|(_, settled)| settled), Ok(0));
}

fuzz_target!(|input: Input| match input {
    Input::Anything(input) if input.rx && input.hashes =>
        anything::<RxRing>(&input, |page| BackRing::<RxRing>::take_over(page, true)),
    Input::Anything(input) if input.rx =>
        anything::<RxRing>(&input, |page| BackRing::<RxRing>::take_over(page, false)),
    Input::Anything(input) => anything::<TxRing>(&input, BackRing::<TxRing>::take_over),
    Input::Transmitted(killed) => transmitted(&killed),
    Input::Received(killed) => received(&killed),
});
