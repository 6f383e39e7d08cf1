// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back end against the independent front end, over real pages, from arbitrary start indices.

mod hostile;
mod model;

use super::*;
use crate::front::{
    FrontExtra, FrontFault, FrontRing, FrontRx, FrontRxRequest, FrontRxResponse, FrontTx,
    FrontTxRequest, FrontTxSlot,
};
use crate::ids::GrantRef;
use crate::netif::{
    Extra, ExtraSlot, Gso, GsoKind, RxFlags, RxResponse, RxRing, RxSlotResponse, Status, TxCsum,
    TxLimits, TxPacket, TxResponse, TxRing, TxSlot, next_packet,
};

type Ends<F, B> = (FrontRing<F>, BackRing<B>);

/// Start indices with the wrap at different places, the plain one first.
const STARTS: [u32; 6] = [0, 1, 255, u32::MAX - 300, u32::MAX - 1, u32::MAX];

fn tx_at(start: u32) -> Ends<FrontTx, TxRing> {
    let page = SharedPage::anonymous().unwrap();
    let front = FrontRing::init_at(page.clone(), start);
    (front, BackRing::attach(page).unwrap())
}

fn rx_at(start: u32) -> Ends<FrontRx, RxRing> {
    let page = SharedPage::anonymous().unwrap();
    let front = FrontRing::init_at(page.clone(), start);
    (front, BackRing::attach(page).unwrap())
}

fn request(id: u16, flags: u16, size: u16) -> FrontTxSlot {
    FrontTxSlot::Request(FrontTxRequest {
        gref: 0x0100_0000 + u32::from(id),
        offset: 3,
        flags,
        id,
        size,
    })
}

fn push_all(front: &mut FrontRing<FrontTx>, slots: &[FrontTxSlot]) {
    for slot in slots {
        front.push(*slot).unwrap();
    }
    let _ = front.publish();
}

fn take_all(back: &mut BackRing<TxRing>) -> Vec<TxSlot> {
    let mut slots = vec![TxSlot::default(); 256];
    let taken = back.take_into(&mut slots).unwrap();
    slots.truncate(taken);
    slots
}

fn plan(slots: &[TxSlot]) -> TxPacket {
    next_packet(
        slots,
        &TxLimits {
            gso_v4: true,
            gso_v6: true,
            multicast: true,
        },
    )
    .unwrap()
}

fn okay(id: u16) -> TxResponse {
    TxResponse {
        id,
        status: Status::Okay,
    }
}

fn read_all(front: &mut FrontRing<FrontTx>) -> Vec<(u32, u16, i16)> {
    std::iter::from_fn(|| front.take().unwrap())
        .map(|(i, r)| (i, r.id, r.status))
        .collect()
}

#[test]
fn an_empty_ring_has_nothing() {
    for start in STARTS {
        let (mut front, mut back) = tx_at(start);
        assert_eq!(back.unconsumed(), Ok(0));
        assert_eq!(back.take(), None);
        assert_eq!(back.publish(), Notify::NotNeeded);
        assert_eq!(back.arm(), Ok(false));
        assert_eq!(front.take(), Ok(None));
        assert_eq!(back.snapshot().rsp_prod, start);
    }
}

/// Packets of 1, 2 and 3 slots and one with an extra: every field arrives, and every answer.
#[test]
fn packets_cross_the_ring_whole() {
    for start in STARTS {
        let (mut front, mut back) = tx_at(start);
        let gso = FrontExtra {
            kind: 1,
            flags: 0,
            body: [0xa8, 0x05, 1, 0, 0, 0],
        };
        push_all(
            &mut front,
            &[
                request(1, 1 | 2, 60),
                request(2, 4, 1900),
                request(3, 0, 500),
                request(4, 4 | 8, 1300),
                FrontTxSlot::Extra(gso),
                request(5, 4, 100),
                request(6, 0, 200),
            ],
        );
        let slots = take_all(&mut back);
        assert_eq!(slots.len(), 7);

        let first = plan(&slots);
        assert_eq!(
            (first.slots, first.size, first.csum),
            (1, 60, TxCsum::Blank)
        );
        let fragment = first.fragments(&slots).next().unwrap();
        assert_eq!(
            (fragment.gref, fragment.offset),
            (GrantRef::new(0x0100_0001), 3)
        );

        let second = plan(&slots[1..]);
        let lens: Vec<_> = second.fragments(&slots[1..]).map(|f| f.len).collect();
        assert_eq!(lens, [1400, 500]);

        let third = plan(&slots[3..]);
        assert_eq!(third.slots, 4);
        assert_eq!(
            third.gso,
            Some(Gso {
                size: 1448,
                kind: GsoKind::TcpV4
            })
        );
        let lens: Vec<_> = third.fragments(&slots[3..]).map(|f| f.len).collect();
        assert_eq!(lens, [1000, 100, 200]);

        for (at, packet, status) in [
            (0, first, Status::Okay),
            (1, second, Status::Error),
            (3, third, Status::Okay),
        ] {
            for response in packet.responses(&slots[at..], status) {
                back.respond(response).unwrap();
            }
        }
        assert_eq!(
            front.take(),
            Ok(None),
            "nothing is seen before it is published"
        );
        assert_eq!(back.publish(), Notify::Needed);
        let answers = read_all(&mut front);
        let ids = [(1, 0), (2, -1), (3, -1), (4, 0), (1, 1), (5, 0), (6, 0)];
        for ((at, (index, id, status)), expected) in (0u32..).zip(answers).zip(ids) {
            assert_eq!(
                (index, id, status),
                (start.wrapping_add(at), expected.0, expected.1)
            );
        }
        assert_eq!(front.in_flight(), 0);
    }
}

#[test]
fn requests_are_consumed_only_as_far_as_they_are_published() {
    let (mut front, mut back) = tx_at(u32::MAX);
    front.push(request(1, 0, 60)).unwrap();
    assert_eq!(back.unconsumed(), Ok(0), "written but not published");
    assert!(front.publish());
    front.push(request(2, 0, 60)).unwrap();
    assert_eq!(take_all(&mut back).len(), 1);
    assert_eq!(back.take(), None);
}

#[test]
fn a_taken_request_is_a_copy() {
    let (mut front, mut back) = tx_at(0);
    push_all(&mut front, &[request(1, 0, 60)]);
    let slots = take_all(&mut back);
    let place = FrontRing::<FrontTx>::place(0);
    front.page().write_words(place, [u32::MAX; 3]);
    assert_eq!(slots[0].as_request().id, 1);
}

#[test]
fn a_response_has_four_bytes_and_leaves_the_rest_of_the_slot() {
    let (mut front, mut back) = tx_at(0);
    push_all(&mut front, &[FrontTxSlot::Raw([1, 2, 3])]);
    let _ = take_all(&mut back);
    back.respond(TxResponse {
        id: 0x1234,
        status: Status::Dropped,
    })
    .unwrap();
    let page = front.page();
    assert_eq!(page.read_words::<3>(64), [0xfffe_1234, 2, 3]);
}

#[test]
fn the_whole_ring_can_be_in_flight() {
    for start in STARTS {
        let (mut front, mut back) = tx_at(start);
        for id in 0..256 {
            front.push(request(id, 0, 60)).unwrap();
        }
        assert_eq!(front.push(request(256, 0, 60)), Err(FrontFault::Full));
        assert!(front.publish());
        assert_eq!(back.unconsumed(), Ok(256));
        let slots = take_all(&mut back);
        assert!(
            slots
                .iter()
                .zip(0..)
                .all(|(slot, id)| slot.as_request().id == id)
        );
        assert_eq!((back.unconsumed(), back.unanswered()), (Ok(0), 256));
        for id in 0..256 {
            back.respond(okay(id)).unwrap();
        }
        assert_eq!(
            back.respond(okay(0)),
            Err(ResponseOverflow),
            "no request, no response"
        );
        assert_eq!(back.publish(), Notify::Needed);
        let answers = read_all(&mut front);
        assert_eq!(answers.len(), 256);
        assert!(answers.iter().zip(0..).all(|((_, got, _), id)| *got == id));
    }
}

#[test]
fn a_small_buffer_takes_what_fits() {
    let (mut front, mut back) = tx_at(u32::MAX - 1);
    push_all(
        &mut front,
        &[request(1, 0, 60), request(2, 0, 60), request(3, 0, 60)],
    );
    let mut two = [TxSlot::default(); 2];
    assert_eq!(back.take_into(&mut []), Ok(0));
    assert_eq!(back.take_into(&mut two), Ok(2));
    assert_eq!(back.snapshot().req_cons, 0);
    assert_eq!(back.take_into(&mut two), Ok(1));
    assert_eq!(two.map(|slot| slot.as_request().id), [3, 2]);
    assert_eq!(back.take_into(&mut two), Ok(0));
}

#[test]
fn notifications_follow_the_events() {
    for start in STARTS {
        let (mut front, mut back) = tx_at(start);
        push_all(
            &mut front,
            &[request(1, 0, 60), request(2, 0, 60), request(3, 0, 60)],
        );
        let _ = take_all(&mut back);
        back.respond(okay(1)).unwrap();
        assert_eq!(back.publish(), Notify::Needed, "rsp_event starts at 1");
        assert_eq!(back.publish(), Notify::NotNeeded, "nothing new");
        back.respond(okay(2)).unwrap();
        assert_eq!(
            back.publish(),
            Notify::NotNeeded,
            "the front end has not armed again"
        );
        assert_eq!(read_all(&mut front).len(), 2);
        assert_eq!(front.arm(), Ok(false));
        back.respond(okay(3)).unwrap();
        assert_eq!(back.publish(), Notify::Needed);
        assert_eq!(front.arm(), Ok(true), "the final check finds it");

        // And the other direction: the back end is not woken before it has armed.
        front.push(request(4, 0, 60)).unwrap();
        assert!(!front.publish());
        assert_eq!(back.arm(), Ok(true));
        let _ = take_all(&mut back);
        assert_eq!(back.arm(), Ok(false));
        front.push(request(5, 0, 60)).unwrap();
        assert!(front.publish());

        // Nor when it is awake for another reason.
        let _ = take_all(&mut back);
        assert_eq!(back.arm(), Ok(false));
        back.disarm();
        for id in 6..9 {
            front.push(request(id, 0, 60)).unwrap();
            assert!(!front.publish());
        }
        assert_eq!(back.arm(), Ok(true), "nothing is missed for it");
    }
}

#[test]
fn waiting_for_many_requests() {
    for start in STARTS {
        let (mut front, mut back) = rx_at(start);
        let post = |front: &mut FrontRing<FrontRx>, count| {
            for id in 0..count {
                front.push(FrontRxRequest { id, gref: 9 }).unwrap();
            }
            front.publish()
        };
        assert_eq!(back.arm_for(3), Ok(false));
        assert!(post(&mut front, 2), "any request wakes it");
        assert_eq!(back.arm_for(3), Ok(false));
        assert!(post(&mut front, 1));
        assert_eq!(back.arm_for(3), Ok(true));
        assert_eq!(back.arm_for(0), Ok(true));
        assert_eq!(back.arm_for(257), Ok(false), "more than there can be");
        assert!(post(&mut front, 253));
        assert_eq!(back.arm_for(256), Ok(true));
    }
}

/// Response N sits in the slot of request N, extras take a request each, nothing else is touched.
#[test]
fn receive_responses_are_in_the_slots_of_their_requests() {
    for start in STARTS {
        let (mut front, mut back) = rx_at(start);
        for id in [70, 71, 72, 73] {
            front
                .push(FrontRxRequest {
                    id,
                    gref: u32::from(id) << 8,
                })
                .unwrap();
        }
        assert!(front.publish());
        assert_eq!(back.unconsumed(), Ok(4));
        let taken: Vec<_> = std::iter::from_fn(|| back.take()).collect();
        assert_eq!(taken[2].gref, GrantRef::new(72 << 8));
        let data = |id, flags, status| {
            RxSlotResponse::Data(RxResponse {
                id,
                offset: 0,
                flags,
                status,
            })
        };
        let first = RxFlags::MORE_DATA
            .with(RxFlags::EXTRA_INFO)
            .with(RxFlags::CSUM_BLANK);
        let gso = Extra::Gso(Gso {
            size: 1448,
            kind: GsoKind::TcpV6,
        });
        back.respond(data(70, first, 4096)).unwrap();
        back.respond(RxSlotResponse::Extra(ExtraSlot {
            extra: gso,
            more: false,
        }))
        .unwrap();
        back.respond(data(72, RxFlags::default(), 100)).unwrap();
        assert_eq!(back.publish(), Notify::Needed);

        let got: Vec<_> = std::iter::from_fn(|| front.take().unwrap()).collect();
        let indices: Vec<_> = got
            .iter()
            .map(|(index, _)| index.wrapping_sub(start))
            .collect();
        assert_eq!(indices, [0, 1, 2]);
        let response = |id, flags, status| FrontRxResponse {
            id,
            offset: 0,
            flags,
            status,
        };
        assert_eq!(got[0].1.as_response(), response(70, 2 | 4 | 8, 4096));
        let extra = FrontExtra {
            kind: 1,
            flags: 0,
            body: [0xa8, 0x05, 2, 0, 0, 0],
        };
        assert_eq!(got[1].1.as_extra(), extra);
        assert_eq!(got[2].1.as_response(), response(72, 0, 100));
        // The fourth request is untouched: where the front end wrote it.
        let place = FrontRing::<FrontRx>::place(start.wrapping_add(3));
        assert_eq!(front.page().read_words::<2>(place), [73, 73 << 8]);
    }
}

#[test]
fn a_snapshot_reads_well() {
    let (mut front, mut back) = tx_at(10);
    push_all(&mut front, &[request(1, 0, 60), request(2, 0, 60)]);
    let _ = take_all(&mut back);
    back.respond(okay(1)).unwrap();
    let expected = "req prod 12 cons 12 event 11, rsp prod 10 pvt 11 event 11";
    assert_eq!(back.snapshot().to_string(), expected);
    assert!(format!("{back:?}").contains("req_cons: 12"));
}

/// What is put back is taken again from where it was; what has been answered stays answered.
#[test]
fn requests_that_are_put_back_are_taken_again() {
    for start in STARTS {
        let (mut front, mut back) = tx_at(start);
        push_all(&mut front, &[0, 1, 2, 3].map(|id| request(id, 0, 60)));
        assert_eq!(take_all(&mut back).len(), 4);
        back.respond(okay(0)).unwrap();
        back.put_back(2);
        assert_eq!((back.take(), back.unanswered()), (None, 1));
        push_all(&mut front, &[request(4, 0, 60)]);
        let again: Vec<_> = take_all(&mut back)
            .iter()
            .map(|slot| slot.as_request().id)
            .collect();
        assert_eq!(again, [2, 3, 4]);
        back.put_back(100);
        assert_eq!(back.unanswered(), 0);
        assert_eq!(back.respond(okay(1)), Err(ResponseOverflow));
        let again: Vec<_> = take_all(&mut back)
            .iter()
            .map(|slot| slot.as_request().id)
            .collect();
        assert_eq!(again, [1, 2, 3, 4]);
        for id in again {
            back.respond(okay(id)).unwrap();
        }
        let _ = back.publish();
        let ids: Vec<_> = read_all(&mut front).iter().map(|(_, id, _)| *id).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4]);
    }
}
