// SPDX-License-Identifier: GPL-3.0-or-later
//! The model frontend's queues against the real back end of the rings, through the simulated hypervisor.

use proptest::prelude::*;
use xen_ring::netif::next_packet;
use xen_ring::netif::{
    RxFlags, RxResponse, RxRing, RxSlotResponse, Status, TxCsum, TxLimits, TxRing, TxSlot,
};
use xen_ring::{BackRing, CopyBatch, DomId, Grants, Hypervisor};

use super::checksum::{self, Checksum};
use super::options::FrontendOptions;
use super::queue::{FrontStats, RxQueue, TxQueue};
use crate::demo::pattern;
use crate::demo::sim::{Census, SimGrants, SimHypervisor};

const GUEST: DomId = DomId::new(1);

/// Just enough of a backend: everything at once, one batch.
struct Backend {
    grants: SimGrants,
    batch: CopyBatch,
}

struct Seen {
    bytes: Vec<u8>,
    csum: TxCsum,
    slots: usize,
}

impl Backend {
    fn new(sim: &SimHypervisor) -> Self {
        Self {
            grants: sim.open_grants().unwrap(),
            batch: CopyBatch::new(512, 1 << 20).unwrap(),
        }
    }

    fn take_tx(&mut self, ring: &mut BackRing<TxRing>) -> Vec<Seen> {
        let mut slots = [TxSlot::default(); 256];
        let taken = ring.take_into(&mut slots).unwrap();
        let mut rest = &slots[..taken];
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let packet = next_packet(rest, &TxLimits::default()).unwrap();
            self.batch.clear();
            let mut at = 0;
            for fragment in packet.fragments(rest) {
                self.batch
                    .from_guest(GUEST, fragment.gref, fragment.offset, fragment.len, at)
                    .unwrap();
                at += usize::from(fragment.len);
            }
            self.grants.copy(&mut self.batch).unwrap();
            assert!((0..self.batch.len()).all(|op| self.batch.status(op).is_ok()));
            for response in packet.responses(rest, Status::Okay) {
                ring.respond(response).unwrap();
            }
            seen.push(Seen {
                bytes: self.batch.bytes(0..at).to_vec(),
                csum: packet.csum,
                slots: packet.slots,
            });
            rest = &rest[packet.slots..];
        }
        let _event = ring.publish();
        seen
    }

    fn give_rx(
        &mut self,
        ring: &mut BackRing<RxRing>,
        frame: &[u8],
        flags: RxFlags,
        piece: usize,
        offset: u16,
    ) {
        ring.unconsumed().unwrap();
        let count = frame.len().div_ceil(piece);
        for (n, bytes) in frame.chunks(piece).enumerate() {
            let request = ring.take().unwrap();
            self.batch.clear();
            self.batch.bytes_mut(0..bytes.len()).copy_from_slice(bytes);
            let len = u16::try_from(bytes.len()).unwrap();
            self.batch
                .to_guest(0, len, GUEST, request.gref, offset)
                .unwrap();
            self.grants.copy(&mut self.batch).unwrap();
            assert!(self.batch.status(0).is_ok());
            let more = if n + 1 < count {
                RxFlags::MORE_DATA
            } else {
                RxFlags::new(0)
            };
            let first = if n == 0 { flags } else { RxFlags::new(0) };
            ring.respond(RxSlotResponse::Data(RxResponse {
                id: request.id,
                offset,
                flags: first.with(more),
                status: i16::try_from(len).unwrap(),
            }))
            .unwrap();
        }
        let _event = ring.publish();
    }
}

fn frame_of(len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    pattern::fill(len as u64, &mut frame);
    frame
}

/// A UDP datagram with a complete checksum.
fn datagram(payload: usize) -> Vec<u8> {
    let mut frame = vec![0; 42 + payload];
    pattern::fill(1, &mut frame);
    let total = u16::try_from(28 + payload).unwrap().to_be_bytes();
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17]);
    assert!(checksum::complete(&mut frame));
    frame
}

proptest! {
    #[test]
    fn sent_frames_arrive_whole_in_whatever_slots(
        lens in proptest::collection::vec(14_usize..9_000, 1..12),
        piece in 600_u16..=4096,
        offset in 0_u16..2_000,
        start in prop_oneof![Just(0), Just(u32::MAX - 3), any::<u32>()],
    ) {
        let sim = SimHypervisor::new(DomId::new(0));
        let options = FrontendOptions {
            tx_slot_bytes: piece,
            tx_offset: offset,
            start_index: start,
            ..FrontendOptions::default()
        };
        let mut queue = TxQueue::new(&sim.guest(GUEST).into(), &options).unwrap();
        let mut backend = Backend::new(&sim);
        let page = backend.grants.map_page(GUEST, queue.ring_ref()).unwrap();
        let mut ring = BackRing::<TxRing>::attach(page).unwrap();
        let mut stats = FrontStats::default();
        let mut slots = 0;
        for len in &lens {
            queue.send(&frame_of(*len), Checksum::Complete, true, &options).unwrap();
            queue.flush(&mut stats);
            let seen = backend.take_tx(&mut ring);
            prop_assert_eq!(seen.len(), 1);
            prop_assert_eq!(&seen[0].bytes, &frame_of(*len));
            prop_assert_eq!(seen[0].csum, TxCsum::Complete);
            let room = usize::from(piece.min(4096 - offset));
            prop_assert_eq!(seen[0].slots, len.div_ceil(room));
            slots += seen[0].slots as u64;
        }
        queue.flush(&mut stats);
        let expected = FrontStats { tx_okay: slots, ..FrontStats::default() };
        prop_assert_eq!(&stats, &expected);
        prop_assert!(queue.has_room(&options, &mut stats));
        drop((ring, queue));
        prop_assert_eq!(sim.census(), Census::default());
    }

    #[test]
    fn received_frames_arrive_whole_in_whatever_slots(
        lens in proptest::collection::vec(14_usize..9_000, 1..40),
        piece in 600_usize..=2_000,
        offset in 0_u16..2_000,
        start in prop_oneof![Just(0), Just(u32::MAX - 3), any::<u32>()],
    ) {
        let sim = SimHypervisor::new(DomId::new(0));
        let options = FrontendOptions { start_index: start, ..FrontendOptions::default() };
        let mut queue = RxQueue::new(&sim.guest(GUEST).into(), &options).unwrap();
        let mut backend = Backend::new(&sim);
        let page = backend.grants.map_page(GUEST, queue.ring_ref()).unwrap();
        let mut ring = BackRing::<RxRing>::attach(page).unwrap();
        let mut stats = FrontStats::default();
        for len in &lens {
            backend.give_rx(&mut ring, &frame_of(*len), RxFlags::new(0), piece, offset);
            let frame = queue.receive(&mut stats).unwrap();
            prop_assert_eq!(&frame.bytes, &frame_of(*len));
            prop_assert_eq!(frame.slots as usize, len.div_ceil(piece));
            queue.post(&options);
        }
        prop_assert_eq!(stats.rx_frames, lens.len() as u64);
        prop_assert_eq!(stats.violations.count, 0);
        prop_assert!(queue.receive(&mut stats).is_none());
    }
}

#[test]
fn checksum_flags_reach_the_backend() {
    let sim = SimHypervisor::new(DomId::new(0));
    let options = FrontendOptions::default();
    let mut queue = TxQueue::new(&sim.guest(GUEST).into(), &options).unwrap();
    let mut backend = Backend::new(&sim);
    let page = backend.grants.map_page(GUEST, queue.ring_ref()).unwrap();
    let mut ring = BackRing::<TxRing>::attach(page).unwrap();
    let cases = [
        (Checksum::Complete, TxCsum::Complete),
        (Checksum::Validated, TxCsum::Validated),
        (Checksum::Blank, TxCsum::Blank),
    ];
    for (sent, seen) in cases {
        queue.send(&datagram(100), sent, true, &options).unwrap();
        let _event = queue.flush(&mut FrontStats::default());
        assert_eq!(backend.take_tx(&mut ring)[0].csum, seen);
    }
}

#[test]
fn a_frontend_without_sg_and_a_full_ring_refuse() {
    let sim = SimHypervisor::new(DomId::new(0));
    let options = FrontendOptions::default();
    let mut queue = TxQueue::new(&sim.guest(GUEST).into(), &options).unwrap();
    assert!(
        queue
            .send(&frame_of(5_000), Checksum::Complete, false, &options)
            .is_err()
    );
    assert!(
        queue
            .send(&frame_of(0), Checksum::Complete, true, &options)
            .is_err()
    );
    for _ in 0..256 {
        queue
            .send(&frame_of(60), Checksum::Complete, false, &options)
            .unwrap();
    }
    assert!(
        queue
            .send(&frame_of(60), Checksum::Complete, false, &options)
            .is_err()
    );
    assert!(!queue.has_room(&options, &mut FrontStats::default()));
}

/// An rx queue, its back end, and the guest's notes.
struct RxPair {
    sim: SimHypervisor,
    queue: RxQueue,
    ring: BackRing<RxRing>,
    stats: FrontStats,
}

fn rx_pair() -> RxPair {
    let sim = SimHypervisor::new(DomId::new(0));
    let queue = RxQueue::new(&sim.guest(GUEST).into(), &FrontendOptions::default()).unwrap();
    let page = sim
        .open_grants()
        .unwrap()
        .map_page(GUEST, queue.ring_ref())
        .unwrap();
    let mut ring = BackRing::<RxRing>::attach(page).unwrap();
    assert_eq!(ring.unconsumed().unwrap(), 256);
    RxPair {
        sim,
        queue,
        ring,
        stats: FrontStats::default(),
    }
}

#[test]
fn received_checksums_are_checked_against_the_flags() {
    let complete = datagram(64);
    let mut blank = complete.clone();
    checksum::blank(&mut blank);
    let none = RxFlags::new(0);
    let cases = [
        (&complete, none, Some(Checksum::Complete)),
        (
            &complete,
            RxFlags::DATA_VALIDATED,
            Some(Checksum::Validated),
        ),
        (
            &blank,
            RxFlags::CSUM_BLANK.with(RxFlags::DATA_VALIDATED),
            Some(Checksum::Blank),
        ),
        (&blank, none, None),
        (&blank, RxFlags::DATA_VALIDATED, None),
        (&complete, RxFlags::CSUM_BLANK, None),
    ];
    for (frame, flags, expected) in cases {
        let RxPair {
            sim,
            mut queue,
            mut ring,
            mut stats,
        } = rx_pair();
        Backend::new(&sim).give_rx(&mut ring, frame, flags, 4096, 0);
        let received = queue.receive(&mut stats);
        assert_eq!(received.map(|frame| frame.checksum), expected, "{flags:?}");
        assert_eq!(stats.checksum_mismatches, u64::from(expected.is_none()));
    }
}

#[test]
fn a_backend_that_breaks_the_protocol_is_noticed() {
    let good = RxResponse {
        id: 0,
        offset: 0,
        flags: RxFlags::new(0),
        status: 60,
    };
    let cases = [
        (RxResponse { id: 7, ..good }, "has id 7"),
        (
            RxResponse {
                offset: 4_090,
                ..good
            },
            "offset 4090",
        ),
        (RxResponse { status: 0, ..good }, "length 0"),
        (
            RxResponse {
                flags: RxFlags::MORE_DATA,
                ..good
            },
            "more data is missing",
        ),
        (
            RxResponse {
                flags: RxFlags::EXTRA_INFO,
                ..good
            },
            "an extra info is missing",
        ),
    ];
    for (response, complaint) in cases {
        let RxPair {
            mut queue,
            mut ring,
            mut stats,
            ..
        } = rx_pair();
        ring.take().unwrap();
        ring.respond(RxSlotResponse::Data(response)).unwrap();
        let _event = ring.publish();
        assert!(queue.receive(&mut stats).is_none());
        assert_eq!(stats.violations.count, 1);
        assert!(
            stats.violations.first[0].contains(complaint),
            "{:?}",
            stats.violations
        );
    }
}

#[test]
fn an_error_status_is_an_error_and_no_violation() {
    let RxPair {
        mut queue,
        mut ring,
        mut stats,
        ..
    } = rx_pair();
    ring.take().unwrap();
    let failed = RxResponse {
        id: 0,
        offset: 0,
        flags: RxFlags::new(0),
        status: -1,
    };
    ring.respond(RxSlotResponse::Data(failed)).unwrap();
    let _event = ring.publish();
    assert!(queue.receive(&mut stats).is_none());
    assert_eq!((stats.rx_errors, stats.violations.count), (1, 0));
}

#[test]
fn an_answer_to_nothing_is_a_violation() {
    let sim = SimHypervisor::new(DomId::new(0));
    let options = FrontendOptions::default();
    let mut queue = TxQueue::new(&sim.guest(GUEST).into(), &options).unwrap();
    let page = sim
        .open_grants()
        .unwrap()
        .map_page(GUEST, queue.ring_ref())
        .unwrap();
    let mut ring = BackRing::<TxRing>::attach(page).unwrap();
    let mut stats = FrontStats::default();
    queue
        .send(&frame_of(60), Checksum::Complete, true, &options)
        .unwrap();
    let _event = queue.flush(&mut stats);
    ring.unconsumed().unwrap();
    let id = ring.take().unwrap().as_request().id;
    ring.respond(xen_ring::netif::TxResponse {
        id: id + 1,
        status: Status::Okay,
    })
    .unwrap();
    let _event = ring.publish();
    let _event = queue.flush(&mut stats);
    assert_eq!(stats.violations.count, 1);
    queue.ring().lie_rsp_prod(1_000);
    let _event = queue.flush(&mut stats);
    assert_eq!(stats.violations.count, 2);
    assert!(
        stats.violations.first[1].contains("1000"),
        "{:?}",
        stats.violations
    );
}
