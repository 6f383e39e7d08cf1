// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segments against the ABI's golden bytes, and copies over two granted pages.

use super::Segment;
use crate::copy::{CopyBatch, GrantStatus};
use crate::ids::{DomId, GrantRef};
use crate::sys::mapped::Arena;

const DOM: DomId = DomId::new(0x0102);
const GREF: GrantRef = GrantRef::new(0x0a0b_0c0d);
const OWN: DomId = DomId::new(0x0506);

/// The segment field by field at the offsets that are asserted beside its declaration.
fn bytes_of(segment: &Segment) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(segment.source.to_ne_bytes());
    bytes.extend(segment.dest.to_ne_bytes());
    bytes.extend(segment.len.to_ne_bytes());
    bytes.extend(segment.flags.to_ne_bytes());
    bytes.extend(segment.status.to_ne_bytes());
    bytes.extend(segment.pad.to_ne_bytes());
    bytes
}

/// Three pages that are granted to ourselves as 0x11, 0x22 and 0x33.
fn granted() -> Arena {
    let refs = [0x11, 0x22, 0x33].map(GrantRef::new);
    Arena::of_granted_pages(OWN, &refs)
}

fn encoded(batch: &mut CopyBatch) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    let outcome: Result<(), ()> = batch.with_segments(|segments| {
        seen = segments.iter().map(bytes_of).collect();
        Ok(())
    });
    outcome.unwrap();
    seen
}

#[test]
fn segments_have_the_bytes_of_the_abi() {
    let mut batch = CopyBatch::new(2, 8192).unwrap();
    let base = batch.bytes(0..1).as_ptr().addr() as u64;
    assert_eq!(batch.from_guest(DOM, GREF, 0x0304, 0x0506, 0x1000), Ok(()));
    assert_eq!(batch.to_guest(0x20, 0x0506, DOM, GREF, 0x0304), Ok(()));
    let foreign = [0x0d, 0x0c, 0x0b, 0x0a, 0x04, 0x03, 0x02, 0x01];
    let segments = encoded(&mut batch);

    let mut expected = foreign.to_vec();
    expected.extend((base + 0x1000).to_le_bytes());
    expected.extend([0x06, 0x05, 1, 0, 0xff, 0xff, 0, 0]);
    assert_eq!(segments[0], expected);

    let mut expected = (base + 0x20).to_le_bytes().to_vec();
    expected.extend(foreign);
    expected.extend([0x06, 0x05, 2, 0, 0xff, 0xff, 0, 0]);
    assert_eq!(segments[1], expected);
}

#[test]
fn a_copy_over_two_granted_pages_of_ours_is_split() {
    let mut batch = CopyBatch::over(granted(), 3);
    batch.from_guest(DOM, GREF, 0x10, 0x400, 0x1e00).unwrap();
    batch.to_guest(0x2000, 0x1000, DOM, GREF, 0).unwrap();
    let segments = encoded(&mut batch);
    let expected = [
        // 0x200 bytes to the end of page 0x22 ...
        [
            0x0d, 0x0c, 0x0b, 0x0a, 0x10, 0, 0x02, 0x01, 0x22, 0, 0, 0, 0, 0x0e, 0x06, 0x05, 0, 2,
            3, 0, 0xff, 0xff, 0, 0,
        ],
        // ... and 0x200 to the beginning of 0x33.
        [
            0x0d, 0x0c, 0x0b, 0x0a, 0x10, 2, 0x02, 0x01, 0x33, 0, 0, 0, 0, 0, 0x06, 0x05, 0, 2, 3,
            0, 0xff, 0xff, 0, 0,
        ],
        [
            0x33, 0, 0, 0, 0, 0, 0x06, 0x05, 0x0d, 0x0c, 0x0b, 0x0a, 0, 0, 0x02, 0x01, 0, 0x10, 3,
            0, 0xff, 0xff, 0, 0,
        ],
    ];
    assert_eq!(segments, expected);
}

#[test]
fn what_the_kernel_says_of_a_segment_is_how_its_operation_ended() {
    let mut batch = CopyBatch::over(granted(), 4);
    batch.from_guest(DOM, GREF, 0, 0x1000, 0x800).unwrap();
    batch.from_guest(DOM, GREF, 0, 0x800, 0x1800).unwrap();
    batch.from_guest(DOM, GREF, 0, 0, 0x3000).unwrap();
    let outcome: Result<(), ()> = batch.with_segments(|segments| {
        for (segment, status) in segments.iter_mut().zip([0, -3, 0, -8]) {
            segment.status = status;
        }
        Ok(())
    });
    outcome.unwrap();
    let seen: Vec<i16> = (0..5).map(|op| batch.status(op).raw()).collect();
    assert_eq!(seen, [0, -3, 0, -8, -1]);
    assert!(batch.all_ok(0..1) && batch.all_ok(2..3) && batch.all_ok(0..0));
    assert!(!batch.all_ok(0..2) && !batch.all_ok(2..4) && !batch.all_ok(2..5));
}

#[test]
fn only_the_real_hypervisor_carries_out_what_names_our_grants() {
    let mut batch = CopyBatch::over(granted(), 1);
    batch.from_guest(DOM, GREF, 0, 1, 0).unwrap();
    assert_eq!(batch.op(0), None);
}

#[test]
fn a_call_that_fails_fails_every_operation() {
    let mut batch = CopyBatch::new(1, 4096).unwrap();
    batch.from_guest(DOM, GREF, 0, 1, 0).unwrap();
    let outcome = batch.with_segments(|segments| {
        segments[0].status = 0;
        Err("refused")
    });
    assert_eq!(outcome, Err("refused"));
    assert_eq!(batch.status(0), GrantStatus::GENERAL_ERROR);
}
