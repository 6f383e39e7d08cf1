// SPDX-License-Identifier: GPL-3.0-or-later
//! What a backend that was killed between its answers and their publication leaves: slots that name pages of the guest
//! which it has not sent, nor posted as buffers.

use xen_ring::BackRing;
use xen_ring::front::{FrontRxRequest, FrontTxRequest, FrontTxSlot};
use xen_ring::netif::{
    Extra, ExtraSlot, RxFlags, RxResponse, RxRing, RxSlotResponse, Status, TxResponse, TxRing,
};

use super::rig::*;
use crate::demo::sim::GuestPort;

/// A page of the guest that is nobody's business.
const PRIVATE: usize = 7;

/// What the former backend had to say may have got lost with its event channels, and the guest may sleep on that.
#[test]
fn the_guest_is_signalled_once_for_each_ring() {
    let mut rig = Rig::taken_over(|_| {});
    let events = |rig: &Rig| rig.ports.each_ref().map(GuestPort::events);
    assert_eq!(events(&rig), [1, 1]);
    rig.turn();
    assert_eq!(events(&rig), [1, 1], "there is nothing more to say");
}

#[test]
fn a_page_that_was_not_sent_stays_where_it_is() {
    let mut rig = Rig::taken_over(|guest| {
        let gref = |page: usize| guest.pages[page].1.gref().raw();
        guest.pages[PRIVATE].0.write(0, &plain(60)).unwrap();
        let id = u16::try_from(gref(PRIVATE)).unwrap();
        let request = FrontTxRequest {
            gref: gref(0),
            offset: 0,
            flags: 0,
            id,
            size: 60,
        };
        guest.tx.push(FrontTxSlot::Request(request)).unwrap();
        let _event = guest.tx.publish();
        let mut former = BackRing::<TxRing>::attach(guest.tx_page).unwrap();
        assert_eq!(former.unconsumed(), Ok(1));
        former.take().unwrap();
        let status = Status::Okay;
        former.respond(TxResponse { id, status }).unwrap();
    });
    rig.turn();
    assert_eq!(rig.out(), None);
    assert_eq!(rig.answers(), [0]);
    rig.send(&[&plain(60)], 0);
    rig.turn();
    assert_eq!(rig.out().unwrap().1, plain(60));
}

#[test]
fn a_page_that_is_no_buffer_is_not_written_to() {
    let mut rig = Rig::taken_over(|guest| {
        let gref = |page: usize| guest.pages[page].1.gref().raw();
        for page in 0..4 {
            let request = FrontRxRequest {
                id: u16::try_from(page).unwrap(),
                gref: gref(page),
            };
            guest.rx.push(request).unwrap();
        }
        let _event = guest.rx.publish();
        let mut former = BackRing::<RxRing>::attach(guest.rx_page).unwrap();
        assert_eq!(former.unconsumed(), Ok(4));
        let data = RxResponse {
            id: 0,
            offset: 0,
            flags: RxFlags::EXTRA_INFO,
            status: 60,
        };
        // It stands where the reference of a buffer does.
        let hash = Extra::Hash {
            kind: 0,
            algorithm: 1,
            value: gref(PRIVATE).to_le_bytes(),
        };
        let extra = ExtraSlot {
            extra: hash,
            more: false,
        };
        for answer in [RxSlotResponse::Data(data), RxSlotResponse::Extra(extra)] {
            former.take().unwrap();
            former.respond(answer).unwrap();
        }
    });
    let before = rig.page(PRIVATE, 60);
    for _ in 0..2 {
        rig.give([0; HEADER], &plain(60));
    }
    rig.turn();
    assert_eq!(rig.page(PRIVATE, 60), before);
    let received = rig.received();
    let ids: Vec<_> = received
        .iter()
        .skip(2)
        .map(|slot| Rig::response(*slot).0)
        .collect();
    assert_eq!(ids, [2, 3]);
    for page in [2, 3] {
        assert_eq!(rig.page(page, 60), plain(60));
    }
}
