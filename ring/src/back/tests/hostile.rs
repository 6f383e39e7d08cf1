// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lying peers, and a ring that changes hands.

use super::*;

#[test]
fn an_impossible_request_index_is_a_fault() {
    for start in STARTS {
        let (mut front, mut back) = tx_at(start);
        push_all(&mut front, &[request(1, 0, 60), request(2, 0, 60)]);
        assert_eq!(back.unconsumed(), Ok(2));
        let (cons, at) = (start, |n: u32| start.wrapping_add(n));
        for lie in [at(257), at(1 << 31), start.wrapping_sub(1)] {
            front.lie_req_prod(lie);
            let fault = PeerFault::RequestOverflow {
                req_prod: lie,
                req_cons: cons,
                slots: 256,
            };
            assert_eq!(back.unconsumed(), Err(fault));
            assert_eq!(back.take(), None, "nothing is taken after a fault");
            assert_eq!(back.arm(), Err(fault));
            assert_eq!(back.arm_for(5), Err(fault));
            assert_eq!(back.take_into(&mut [TxSlot::default()]), Err(fault));
        }
        front.lie_req_prod(at(1));
        let rewind = PeerFault::RequestRewind {
            seen: at(2),
            req_prod: at(1),
        };
        assert_eq!(back.unconsumed(), Err(rewind));
        front.lie_req_prod(at(256));
        assert_eq!(back.unconsumed(), Ok(256));
    }
}

#[test]
fn unanswered_requests_are_never_overtaken() {
    let (mut front, mut back) = tx_at(0);
    push_all(&mut front, &[request(1, 0, 60), request(2, 0, 60)]);
    assert_eq!(take_all(&mut back).len(), 2);
    // A guest that reuses slots which have not been answered gets only the others consumed.
    front.lie_req_prod(258);
    assert_eq!(back.unconsumed(), Ok(254));
    assert_eq!(take_all(&mut back).len(), 254);
    assert_eq!((back.unconsumed(), back.unanswered()), (Ok(0), 256));
}

#[test]
fn the_shared_copies_of_our_indices_are_never_believed() {
    let (mut front, mut back) = tx_at(u32::MAX);
    push_all(&mut front, &[request(1, 0, 60)]);
    front.lie_rsp_prod(12345);
    assert_eq!(take_all(&mut back).len(), 1);
    back.respond(okay(1)).unwrap();
    assert_eq!(back.publish(), Notify::Needed);
    assert_eq!(back.snapshot().rsp_prod, 0);
    assert_eq!(read_all(&mut front), [(u32::MAX, 1, 0)]);
}

#[test]
fn a_successor_takes_over_at_the_published_responses() {
    for start in STARTS {
        let (mut front, mut back) = tx_at(start);
        push_all(
            &mut front,
            &[request(1, 0, 60), request(2, 0, 60), request(3, 0, 60)],
        );
        assert_eq!(take_all(&mut back).len(), 3);
        back.respond(okay(1)).unwrap();
        let _ = back.publish();
        drop(back);
        let mut successor = BackRing::<TxRing>::attach(front.page().clone()).unwrap();
        let ids: Vec<_> = take_all(&mut successor)
            .iter()
            .map(|slot| slot.as_request().id)
            .collect();
        assert_eq!(ids, [2, 3]);
        for id in ids {
            successor.respond(okay(id)).unwrap();
        }
        let _ = successor.publish();
        let answered: Vec<_> = read_all(&mut front)
            .into_iter()
            .map(|(_, id, _)| id)
            .collect();
        assert_eq!(answered, [1, 2, 3]);
    }
}

#[test]
fn a_ring_with_impossible_indices_is_not_attached() {
    let (front, _) = tx_at(7);
    front.lie_req_prod(7 + 256);
    assert!(BackRing::<TxRing>::attach(front.page().clone()).is_ok());
    for lie in [7 + 257, 6] {
        front.lie_req_prod(lie);
        let fault = BackRing::<TxRing>::attach(front.page().clone()).unwrap_err();
        assert_eq!(
            fault,
            PeerFault::AttachOverflow {
                req_prod: lie,
                rsp_prod: 7,
                slots: 256
            }
        );
    }
}

#[test]
fn the_front_end_finds_a_lying_backend_out() {
    let (mut front, mut back) = tx_at(u32::MAX);
    push_all(&mut front, &[request(1, 0, 60)]);
    let _ = take_all(&mut back);
    front.lie_rsp_prod(1);
    let fault = FrontFault::TooManyResponses {
        rsp_prod: 1,
        req_prod: 0,
        rsp_cons: u32::MAX,
    };
    assert_eq!(front.unread(), Err(fault));
    assert_eq!(front.take(), Err(fault));
    assert_eq!(front.arm(), Err(fault));
}
