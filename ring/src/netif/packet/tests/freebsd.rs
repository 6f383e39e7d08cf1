// SPDX-License-Identifier: MIT OR Apache-2.0
//! The unit tests of FreeBSD's netback for the transmit ring, as far as their names and subjects are known, over the
//! independent front end. One module for each of its groups and one test for each of its cases, so that the list can be
//! checked off; those that need a tap are in netback, `vif/freebsd`.
//!
//! Where the two backends differ the test says what holds here.

use super::*;
use crate::back::BackRing;
use crate::copy::{CopyBatch, CopyOp, Direction};
use crate::front::tx_flags::{CSUM_BLANK, DATA_VALIDATED, EXTRA_INFO, MORE_DATA};
use crate::front::{FrontExtra, FrontRing, FrontTx, FrontTxRequest, FrontTxSlot};
use crate::ids::DomId;
use crate::netif::TxRing;
use crate::page::SharedPage;

/// Both ends of a ring.
struct Ring {
    front: FrontRing<FrontTx>,
    back: BackRing<TxRing>,
}

impl Ring {
    fn starting_at(index: u32) -> Self {
        let page = SharedPage::anonymous().unwrap();
        Self {
            front: FrontRing::init_at(page.clone(), index),
            back: BackRing::attach(page).unwrap(),
        }
    }

    fn new() -> Self {
        Self::starting_at(0)
    }

    /// A request whose reference is 100 more than its id.
    fn push(&mut self, id: u16, flags: u16, size: u16) -> u32 {
        let request = FrontTxRequest {
            gref: 100 + u32::from(id),
            offset: 16,
            flags,
            id,
            size,
        };
        self.front.push(FrontTxSlot::Request(request)).unwrap()
    }

    fn push_extra(&mut self, kind: u8, body: [u8; 6]) -> u32 {
        let extra = FrontExtra {
            kind,
            flags: 0,
            body,
        };
        self.front.push(FrontTxSlot::Extra(extra)).unwrap()
    }

    /// What the backend sees after the guest has published.
    fn take(&mut self) -> Vec<TxSlot> {
        let _event = self.front.publish();
        let mut slots = vec![TxSlot::default(); 256];
        let taken = self.back.take_into(&mut slots).unwrap();
        slots.truncate(taken);
        slots
    }

    fn respond(&mut self, packet: &TxPacket, slots: &[TxSlot], status: Status) {
        for answer in packet.responses(slots, status) {
            self.back.respond(answer).unwrap();
        }
        let _notify = self.back.publish();
    }

    /// The guest's answers: index, id, status.
    fn answers(&mut self) -> Vec<(u32, u16, i16)> {
        let mut answers = Vec::new();
        while let Some((index, answer)) = self.front.take().unwrap() {
            answers.push((index, answer.id, answer.status));
        }
        answers
    }
}

fn read(slots: &[TxSlot]) -> TxPacket {
    next_packet(slots, &ALL).unwrap()
}

/// Slots of the ring into a packet.
mod ring2pkt {
    use super::*;

    #[test]
    fn emptyring() {
        let slots = Ring::new().take();
        assert!(slots.is_empty());
        assert!(next_packet(&slots, &ALL).is_err());
    }

    #[test]
    fn one_req() {
        let mut ring = Ring::new();
        ring.push(1, 0, 100);
        let packet = read(&ring.take());
        assert_eq!((packet.slots, packet.size, packet.extras), (1, 100, 0));
    }

    #[test]
    fn two_req() {
        let mut ring = Ring::new();
        ring.push(1, MORE_DATA, 100);
        ring.push(2, 0, 40);
        let slots = ring.take();
        let packet = read(&slots);
        assert_eq!((packet.slots, packet.size), (2, 100));
        assert_eq!(
            pieces(&packet, &slots),
            [(0, 101, 16, 60), (1, 102, 16, 40)]
        );
    }

    #[test]
    fn three_req() {
        let mut ring = Ring::new();
        ring.push(1, MORE_DATA, 200);
        ring.push(2, MORE_DATA, 40);
        ring.push(3, 0, 50);
        let slots = ring.take();
        let packet = read(&slots);
        assert_eq!((packet.slots, packet.size), (3, 200));
        let expected = [(0, 101, 16, 110), (1, 102, 16, 40), (2, 103, 16, 50)];
        assert_eq!(pieces(&packet, &slots), expected);
    }

    #[test]
    fn extra() {
        let mut ring = Ring::new();
        ring.push(1, MORE_DATA | EXTRA_INFO | CSUM_BLANK | DATA_VALIDATED, 150);
        let [low, high] = 250_u16.to_le_bytes();
        ring.push_extra(1, [low, high, 1, 0, 0, 0]);
        ring.push(2, 0, 50);
        let slots = ring.take();
        let packet = read(&slots);
        assert_eq!((packet.slots, packet.size, packet.extras), (3, 150, 1));
        assert_eq!(packet.csum, TxCsum::Blank);
        let gso = Gso {
            size: 250,
            kind: GsoKind::TcpV4,
        };
        assert_eq!(packet.gso, Some(gso));
        assert_eq!(
            pieces(&packet, &slots),
            [(0, 101, 16, 100), (2, 102, 16, 50)]
        );
    }

    /// FreeBSD waits for the rest. Frontends publish whole packets, so here half of one is fatal, as in Linux; nothing
    /// of it is answered either way.
    #[test]
    fn partial() {
        let mut ring = Ring::new();
        ring.push(1, MORE_DATA, 150);
        let slots = ring.take();
        let incomplete = PeerFault::IncompletePacket { published: 1 };
        assert_eq!(next_packet(&slots, &ALL), Err(incomplete));
        assert!(ring.answers().is_empty());
    }

    #[test]
    fn wraps() {
        let mut ring = Ring::starting_at(u32::MAX);
        assert_eq!(ring.push(1, MORE_DATA, 550), u32::MAX);
        assert_eq!(ring.push(2, 0, 50), 0);
        let slots = ring.take();
        let packet = read(&slots);
        assert_eq!((packet.slots, packet.size), (2, 550));
        assert_eq!(
            pieces(&packet, &slots),
            [(0, 101, 16, 500), (1, 102, 16, 50)]
        );
    }
}

/// A packet's responses.
mod txpkt2rsp {
    use super::*;

    #[test]
    fn emptypkt() {
        let mut ring = Ring::new();
        let before = ring.back.snapshot();
        ring.take();
        assert!(!ring.back.publish().is_needed());
        assert_eq!(ring.back.snapshot(), before);
        assert!(ring.answers().is_empty());
    }

    #[test]
    fn one_req() {
        let mut ring = Ring::new();
        ring.push(7, 0, 1000);
        let slots = ring.take();
        ring.respond(&read(&slots), &slots, Status::Okay);
        assert_eq!(ring.answers(), [(0, 7, 0)]);
    }

    #[test]
    fn extra() {
        let mut ring = Ring::new();
        ring.push(7, EXTRA_INFO | CSUM_BLANK, 1000);
        ring.push_extra(1, [100, 0, 1, 0, 0, 0]);
        let slots = ring.take();
        ring.respond(&read(&slots), &slots, Status::Okay);
        let answers = ring.answers();
        assert_eq!(answers[0], (0, 7, 0));
        // An extra info is answered with "null"; what id it bears means nothing.
        assert_eq!((answers[1].0, answers[1].2), (1, 1));
        assert_eq!(answers.len(), 2);
    }

    #[test]
    fn long() {
        let mut ring = Ring::new();
        ring.push(1, EXTRA_INFO | MORE_DATA | CSUM_BLANK, 1000);
        ring.push_extra(1, [100, 0, 1, 0, 0, 0]);
        ring.push(2, MORE_DATA, 300);
        ring.push(3, 0, 300);
        let slots = ring.take();
        ring.respond(&read(&slots), &slots, Status::Okay);
        let statuses: Vec<_> = ring.answers().iter().map(|(_, _, s)| *s).collect();
        assert_eq!(statuses, [0, 1, 0, 0]);
    }

    /// FreeBSD answers "error" and goes on. Here, as in Linux, such a frontend is given up, unanswered.
    #[test]
    fn invalid() {
        let mut ring = Ring::new();
        ring.push(1, EXTRA_INFO, 1000);
        ring.push_extra(0xff, [0; 6]);
        let slots = ring.take();
        let fault = next_packet(&slots, &ALL).unwrap_err();
        assert!(
            matches!(fault, PeerFault::UnknownExtra { kind: 0xff }),
            "{fault}"
        );
        assert!(ring.answers().is_empty());
    }

    #[test]
    fn error() {
        let mut ring = Ring::new();
        ring.push(1, 0, 1000);
        let slots = ring.take();
        ring.respond(&read(&slots), &slots, Status::Error);
        assert_eq!(ring.answers(), [(0, 1, -1)]);
    }

    #[test]
    fn wraps() {
        let mut ring = Ring::starting_at(u32::MAX);
        ring.push(1, MORE_DATA, 550);
        ring.push(2, 0, 100);
        let slots = ring.take();
        ring.respond(&read(&slots), &slots, Status::Okay);
        assert_eq!(ring.answers(), [(u32::MAX, 1, 0), (0, 2, 0)]);
    }
}

/// A packet's grant copies.
mod txpkt2gnttab {
    use super::*;

    const GUEST: DomId = DomId::new(3);

    /// The copies that bring a packet to the front of the arena.
    fn copies(slots: &[TxSlot]) -> Vec<CopyOp> {
        let mut batch = CopyBatch::new(32, 64 * 1024).unwrap();
        let mut at = 0;
        if let Ok(packet) = next_packet(slots, &ALL) {
            for Fragment {
                gref, offset, len, ..
            } in packet.fragments(slots)
            {
                batch.from_guest(GUEST, gref, offset, len, at).unwrap();
                at += usize::from(len);
            }
        }
        batch.ops().collect()
    }

    fn copy(gref: u32, len: u16, at: usize) -> CopyOp {
        CopyOp {
            direction: Direction::FromGuest,
            dom: GUEST,
            gref: GrantRef::new(gref),
            offset: 16,
            len,
            at,
        }
    }

    #[test]
    fn emptypkt() {
        assert!(copies(&Ring::new().take()).is_empty());
    }

    #[test]
    fn short() {
        let mut ring = Ring::new();
        ring.push(7, 0, 99);
        assert_eq!(copies(&ring.take()), [copy(107, 99, 0)]);
    }

    #[test]
    fn two_req() {
        let mut ring = Ring::new();
        ring.push(1, MORE_DATA, 1900);
        ring.push(2, 0, 500);
        let expected = [copy(101, 1400, 0), copy(102, 500, 1400)];
        assert_eq!(copies(&ring.take()), expected);
    }

    /// Where FreeBSD needs a second buffer, and a copy of its own for that, the arena goes on: one copy for each slot.
    #[test]
    fn two_cluster() {
        let mut ring = Ring::new();
        ring.push(1, MORE_DATA, 4000);
        ring.push(2, 0, 2000);
        let expected = [copy(101, 2000, 0), copy(102, 2000, 2000)];
        assert_eq!(copies(&ring.take()), expected);
    }
}
