// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's transmit ring, and its backend.

use std::hint::black_box;

use xen_ring::front::tx_flags::{EXTRA_INFO, MORE_DATA};
use xen_ring::front::{FrontExtra, FrontRing, FrontTx, FrontTxRequest, FrontTxSlot};
use xen_ring::netif::{Status, TxLimits, TxRing, TxSlot, next_packet};
use xen_ring::{BackRing, SharedPage};

use super::Shape;

const LIMITS: TxLimits = TxLimits {
    gso_v4: true,
    gso_v6: true,
    multicast: false,
};

/// Both ends of a ring.
pub(crate) struct Netif {
    front: FrontRing<FrontTx>,
    back: BackRing<TxRing>,
    slots: Box<[TxSlot]>,
    shape: Shape,
}

impl Netif {
    /// A ring without packets.
    pub(crate) fn new(shape: Shape) -> Self {
        let page = SharedPage::anonymous().expect("memory");
        Self {
            front: FrontRing::init(page.clone()),
            back: BackRing::attach(page).expect("a fresh ring"),
            slots: vec![TxSlot::default(); 256].into_boxed_slice(),
            shape,
        }
    }

    /// The guest takes its answers and fills the ring.
    pub(crate) fn fill(mut self) -> Self {
        while let Some((_, answer)) = self.front.take().expect("sound answers") {
            assert!(matches!(answer.status, 0 | 1), "status {}", answer.status);
        }
        for _ in 0..self.shape.packets {
            self.push();
        }
        assert!(self.front.free() < 18, "the ring is full");
        let _event = self.front.publish();
        self
    }

    fn push(&mut self) {
        let (first, later) = self.shape.pieces.split_first().expect("pieces");
        let gso = !later.is_empty();
        let total = first + later.iter().sum::<u16>();
        let flags = if gso { MORE_DATA | EXTRA_INFO } else { 0 };
        self.request(flags, total);
        if gso {
            let [low, high] = 1448_u16.to_le_bytes();
            let extra = FrontExtra {
                kind: 1,
                flags: 0,
                body: [low, high, 1, 0, 0, 0],
            };
            self.front.push(FrontTxSlot::Extra(extra)).expect("room");
        }
        for (at, size) in later.iter().enumerate() {
            let more = at + 1 < later.len();
            self.request(if more { MORE_DATA } else { 0 }, *size);
        }
    }

    fn request(&mut self, flags: u16, size: u16) {
        let gref = self.front.next_index() % 256;
        let id = u16::try_from(gref).expect("below 256");
        let request = FrontTxRequest {
            gref: gref + 8,
            offset: 0,
            flags,
            id,
            size,
        };
        self.front
            .push(FrontTxSlot::Request(request))
            .expect("room");
    }

    /// The backend's turn. Returns the number of packets, and their bytes.
    #[inline]
    pub(crate) fn serve(&mut self) -> (usize, u64) {
        let taken = self.back.take_into(&mut self.slots).expect("sound indices");
        let (mut next, mut packets, mut bytes) = (0, 0, 0);
        while next < taken {
            let rest = &self.slots[next..taken];
            let packet = next_packet(rest, &LIMITS).expect("a sound packet");
            for fragment in packet.fragments(rest) {
                bytes += u64::from(black_box(fragment).len);
            }
            for answer in packet.responses(rest, Status::Okay) {
                self.back.respond(answer).expect("taken before");
            }
            next += packet.slots;
            packets += 1;
        }
        let _notify = black_box(self.back.publish());
        (packets, bytes)
    }
}
