// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every moment at which a backend can be killed between its answers, against the independent front end.

use proptest::prelude::*;

use super::*;
use crate::front::{
    FrontExtra, FrontRing, FrontRx, FrontRxRequest, FrontTx, FrontTxRequest, FrontTxSlot, rx_flags,
    tx_flags,
};
use crate::netif::{Gso, GsoKind};
use crate::page::SharedPage;

/// What the guest calls its slots begins here, far from any id.
const GREF: u32 = 1000;

/// Where data start in a page that the guest receives.
const OFFSET: u16 = 256;

/// Extra infos and data slots of a packet: at least one of the latter.
#[derive(Debug, Clone, Copy)]
struct Shape {
    extras: u16,
    data: u16,
}

impl Shape {
    const fn slots(self) -> u16 {
        self.extras + self.data
    }
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let shape = (0..3_u16, 1..5_u16).prop_map(|(extras, data)| Shape { extras, data });
    proptest::collection::vec(shape, 1..20)
}

/// Where a packet's slots begin that has the slot at `at`, and where they end.
fn packet_of(shapes: &[Shape], at: u16) -> (u16, u16) {
    let mut begin = 0;
    for shape in shapes {
        let end = begin + shape.slots();
        if at < end {
            return (begin, end);
        }
        begin = end;
    }
    (begin, begin)
}

/// The slots of a packet as a guest sends it, the first of which has the number `number`, which is its id, too.
fn sent(shape: Shape, number: u16) -> Vec<FrontTxSlot> {
    let request = |at: u16, flags| {
        FrontTxSlot::Request(FrontTxRequest {
            gref: GREF + u32::from(number + at),
            offset: 0,
            flags,
            id: number + at,
            size: 60,
        })
    };
    let more = |data_left: u16| {
        if data_left > 0 {
            tx_flags::MORE_DATA
        } else {
            0
        }
    };
    let has_extras = if shape.extras > 0 {
        tx_flags::EXTRA_INFO
    } else {
        0
    };
    let mut slots = vec![request(0, more(shape.data - 1) | has_extras)];
    // The second looks like an answer: of a multicast address, this is how most begin.
    slots.extend((1..=shape.extras).map(|nth| {
        FrontTxSlot::Extra(FrontExtra {
            kind: if nth == 1 { 1 } else { 2 },
            flags: u8::from(nth < shape.extras),
            body: if nth == 1 {
                [0xa8, 5, 1, 0, 0, 0]
            } else {
                [1, 0, 0x5e, 0, 0, 1]
            },
        })
    }));
    let data = (1..shape.data).map(|nth| request(shape.extras + nth, more(shape.data - 1 - nth)));
    slots.extend(data);
    slots
}

fn tx_ring(shapes: &[Shape], start: u32) -> (SharedPage, FrontRing<FrontTx>) {
    let page = SharedPage::anonymous().unwrap();
    let mut front = FrontRing::init_at(page.clone(), start);
    let mut number = 0;
    for shape in shapes {
        for slot in sent(*shape, number) {
            front.push(slot).unwrap();
        }
        number += shape.slots();
    }
    let _event = front.publish();
    (page, front)
}

/// Whether the slot at `at` is an extra info.
fn is_extra(shapes: &[Shape], at: u16) -> bool {
    let (begin, _) = packet_of(shapes, at);
    let shape = shapes.iter().scan(0, |end, shape| {
        let begin = *end;
        *end += shape.slots();
        Some((begin, shape))
    });
    let mut own = shape.filter(|(at, _)| *at == begin);
    own.next()
        .is_some_and(|(_, shape)| (1..=shape.extras).contains(&(at - begin)))
}

/// What a receive ring's slot says of a packet of this shape, at a place in it.
fn received(shape: Shape, place: u16, id: u16) -> RxSlotResponse {
    let more = |data_left: u16| {
        if data_left > 0 {
            RxFlags::MORE_DATA
        } else {
            RxFlags::default()
        }
    };
    let data = |flags, status| {
        RxSlotResponse::Data(RxResponse {
            id,
            offset: OFFSET,
            flags,
            status,
        })
    };
    match place {
        0 if shape.extras > 0 => data(RxFlags::EXTRA_INFO.with(more(shape.data - 1)), 4096),
        0 => data(more(shape.data - 1), 1),
        nth if nth <= shape.extras => RxSlotResponse::Extra(ExtraSlot {
            extra: match nth {
                1 => Extra::Gso(Gso {
                    size: 1448,
                    kind: GsoKind::TcpV4,
                }),
                _ => Extra::Hash {
                    kind: 1,
                    algorithm: 1,
                    value: [0xde, 0xad, 0, 1],
                },
            },
            more: nth < shape.extras,
        }),
        nth => data(more(shape.slots() - 1 - nth), 60),
    }
}

proptest! {
    #[test]
    fn transmitted_packets(shapes in shapes(), killed_at: prop::sample::Index, start: u32, status in -2..=0_i16) {
        let total: u16 = shapes.iter().map(|shape| shape.slots()).sum();
        let (page, mut front) = tx_ring(&shapes, start);
        let mut former = BackRing::<TxRing>::attach(page.clone()).unwrap();
        former.unconsumed().unwrap();
        let answered = u16::try_from(killed_at.index(usize::from(total) + 1)).unwrap();
        for at in 0..answered {
            let slot = former.next_words();
            former.take().unwrap();
            let okay = match status { 0 => Status::Okay, -1 => Status::Error, _ => Status::Dropped };
            let answer = match is_extra(&shapes, at) {
                true => TxResponse::null(TxSlot::new(slot)),
                false => TxResponse { id: at, status: okay },
            };
            former.respond(answer).unwrap();
        }
        drop(former);

        let (mut next, settled) = BackRing::<TxRing>::take_over(page).unwrap();
        // Whole packets are answered, by one backend or the other.
        let whole = match packet_of(&shapes, answered) {
            (begin, _) if begin == answered => answered,
            (_, end) => end,
        };
        for at in 0..whole {
            let (_, answer) = front.take().unwrap().unwrap();
            let expected = match is_extra(&shapes, at) {
                true => Status::Null as i16,
                false if at < answered => status,
                false => Status::Error as i16,
            };
            prop_assert_eq!(answer.status, expected, "slot {}", at);
            prop_assert!(is_extra(&shapes, at) || answer.id == at);
        }
        prop_assert!(front.take().unwrap().is_none());
        prop_assert_eq!(settled, u32::from(whole));
        // And the rest is as the guest has sent it.
        next.unconsumed().unwrap();
        for at in whole..total {
            let request = next.take().unwrap().as_request();
            prop_assert!(is_extra(&shapes, at) || request.gref.raw() == GREF + u32::from(at));
        }
        prop_assert!(next.take().is_none());
    }

    #[test]
    fn received_packets(shapes in shapes(), killed_at: prop::sample::Index, start: u32, spare in 0..20_u16) {
        let total: u16 = shapes.iter().map(|shape| shape.slots()).sum();
        let page = SharedPage::anonymous().unwrap();
        let mut front = FrontRing::<FrontRx>::init_at(page.clone(), start);
        for id in 0..total + spare {
            front.push(FrontRxRequest { id, gref: GREF + u32::from(id) }).unwrap();
        }
        let _event = front.publish();
        let mut former = BackRing::<RxRing>::attach(page.clone()).unwrap();
        former.unconsumed().unwrap();
        let answered = u16::try_from(killed_at.index(usize::from(total) + 1)).unwrap();
        let places = shapes.iter().flat_map(|shape| (0..shape.slots()).map(|place| (*shape, place)));
        for (id, (shape, place)) in (0..answered).zip(places) {
            former.take().unwrap();
            former.respond(received(shape, place, id)).unwrap();
        }
        drop(former);

        let (mut next, settled) = BackRing::<RxRing>::take_over(page, true).unwrap();
        // The guest finds packets, of which the last may be one that ends with an error.
        let mut read = 0;
        while let Some((_, slot)) = front.take().unwrap() {
            let response = slot.as_response();
            let mut flags = response.flags;
            let mut status = response.status;
            read += 1;
            if flags & rx_flags::EXTRA_INFO != 0 {
                while {
                    let (_, slot) = front.take().unwrap().expect("an extra info is missing");
                    read += 1;
                    let extra = slot.as_extra();
                    prop_assert!((1..=5).contains(&extra.kind));
                    // Where the guest looks for the data is not moved.
                    prop_assert!(extra.kind != 5 || extra.body[..2] == OFFSET.to_le_bytes());
                    extra.flags & 1 != 0
                } {}
            }
            while flags & rx_flags::MORE_DATA != 0 {
                let (_, slot) = front.take().unwrap().expect("the packet does not end");
                read += 1;
                flags = slot.as_response().flags;
                status = status.min(slot.as_response().status);
            }
            let whole = packet_of(&shapes, read - 1).1 <= answered;
            prop_assert!(whole || status < 0 || read > answered);
        }
        prop_assert!(read >= answered);
        prop_assert_eq!(settled, u32::from(read));
        prop_assert!(read <= answered + 2, "an extra info and an error at most");
        // And the rest is as the guest has posted it.
        next.unconsumed().unwrap();
        for id in read..total + spare {
            let request = next.take().unwrap();
            prop_assert_eq!((request.id, request.gref.raw()), (id, GREF + u32::from(id)));
        }
        prop_assert!(next.take().is_none());
    }
}

/// Nobody was killed: nothing is answered, and nothing is lost.
#[test]
fn a_ring_that_nobody_has_touched() {
    let shapes = [Shape { extras: 2, data: 3 }; 4];
    let (page, mut front) = tx_ring(&shapes, u32::MAX - 3);
    let (mut ring, settled) = BackRing::<TxRing>::take_over(page).unwrap();
    assert_eq!(settled, 0);
    assert!(front.take().unwrap().is_none());
    assert_eq!(ring.unconsumed(), Ok(20));
}

/// It must not bring a backend to its end, nor a loop to none.
#[test]
fn a_ring_full_of_what_looks_like_answers() {
    let page = SharedPage::anonymous().unwrap();
    let mut front = FrontRing::<FrontTx>::init_at(page.clone(), 7);
    for id in 0..256 {
        let request = FrontTxRequest {
            gref: u32::from(id),
            offset: 0,
            flags: tx_flags::MORE_DATA,
            id,
            size: 60,
        };
        front.push(FrontTxSlot::Request(request)).unwrap();
    }
    let _event = front.publish();
    let (mut ring, settled) = BackRing::<TxRing>::take_over(page).unwrap();
    assert_eq!((settled, ring.unconsumed()), (256, Ok(0)));
    let answers = std::iter::from_fn(|| front.take().unwrap());
    assert_eq!(answers.count(), 256);
}

/// A guest may call its buffers what it likes. These are called by what an extra info begins with; two of them say
/// that another one follows. In the two bytes behind that it leaves what was there: a size, or a hash's type and
/// algorithm.
#[test]
fn a_posted_buffer_is_no_extra_info() {
    let ids = [1, 2, 3, 4, 5, 0x0102, 0x0104];
    for (id, left) in ids
        .into_iter()
        .flat_map(|id| [0, 0x0100, 0x05a8].map(|left| (id, left)))
    {
        let page = SharedPage::anonymous().unwrap();
        let mut front = FrontRing::<FrontRx>::init(page.clone());
        for slot in 0..10 {
            page.write_words(64 + 8 * slot, [left << 16]);
        }
        for _ in 0..10 {
            front.push(FrontRxRequest { id, gref: GREF }).unwrap();
        }
        let _event = front.publish();
        let mut former = BackRing::<RxRing>::attach(page.clone()).unwrap();
        former.unconsumed().unwrap();
        former.take().unwrap();
        let packet = Shape { extras: 1, data: 1 };
        former.respond(received(packet, 0, id)).unwrap();
        drop(former);

        let (mut next, settled) = BackRing::<RxRing>::take_over(page, false).unwrap();
        assert_eq!(
            settled, 2,
            "the packet's, and its extra info: {id:#x} {left:#x}"
        );
        assert_eq!(next.unconsumed(), Ok(8));
        let (_, first) = front.take().unwrap().unwrap();
        assert_eq!(first.as_response().flags, rx_flags::EXTRA_INFO);
        let (_, extra) = front.take().unwrap().unwrap();
        assert_eq!((extra.as_extra().kind, extra.as_extra().flags), (5, 0));
    }
}
