// SPDX-License-Identifier: MIT OR Apache-2.0
//! The batch against the ABI's golden bytes and its own bounds.

use proptest::prelude::*;

use super::{BatchFull, CopyBatch, CopyOp, Direction, GrantStatus};
use crate::ids::{DomId, GrantRef};

const DOM: DomId = DomId::new(0x0102);
const GREF: GrantRef = GrantRef::new(0x0a0b_0c0d);

#[test]
fn a_simulated_hypervisor_sees_the_operations_and_sets_their_status() {
    let mut batch = CopyBatch::new(4, 4096).unwrap();
    batch.from_guest(DOM, GREF, 1, 2, 3).unwrap();
    batch.to_guest(4, 5, DOM, GREF, 6).unwrap();
    let ops: Vec<_> = batch.ops().collect();
    let expected = [
        CopyOp {
            direction: Direction::FromGuest,
            dom: DOM,
            gref: GREF,
            offset: 1,
            len: 2,
            at: 3,
        },
        CopyOp {
            direction: Direction::ToGuest,
            dom: DOM,
            gref: GREF,
            offset: 6,
            len: 5,
            at: 4,
        },
    ];
    assert_eq!(ops, expected);
    assert_eq!((batch.op(1), batch.op(2)), (Some(expected[1]), None));

    assert!(
        !batch.status(0).is_ok(),
        "nothing succeeds before it was carried out"
    );
    batch.set_status(0, GrantStatus::OKAY);
    batch.set_status(1, GrantStatus::BAD_GREF);
    batch.set_status(2, GrantStatus::OKAY);
    assert!(batch.status(0).is_ok());
    assert_eq!(
        batch.status(1).to_string(),
        "the grant reference is not granted (-3)"
    );
    assert_eq!(batch.status(2), GrantStatus::GENERAL_ERROR);
}

#[test]
fn what_does_not_fit_is_not_added() {
    let mut batch = CopyBatch::new(1, 5000).unwrap();
    let page = BatchFull::Page {
        offset: 4095,
        len: 2,
    };
    assert_eq!(batch.from_guest(DOM, GREF, 4095, 2, 0), Err(page));
    assert_eq!(batch.to_guest(0, 2, DOM, GREF, 4095), Err(page));
    let page = BatchFull::Page {
        offset: u16::MAX,
        len: u16::MAX,
    };
    assert_eq!(batch.to_guest(0, u16::MAX, DOM, GREF, u16::MAX), Err(page));
    for at in [4999, 5000, usize::MAX] {
        let arena = BatchFull::Arena {
            at,
            len: 2,
            size: 5000,
        };
        assert_eq!(batch.from_guest(DOM, GREF, 0, 2, at), Err(arena));
        assert_eq!(batch.to_guest(at, 2, DOM, GREF, 0), Err(arena));
    }
    assert!(batch.is_empty());
    assert_eq!(batch.from_guest(DOM, GREF, 4094, 2, 4998), Ok(()));
    let full = BatchFull::Operations { capacity: 1 };
    assert_eq!(batch.from_guest(DOM, GREF, 0, 1, 0), Err(full));
    assert_eq!(
        (batch.len(), batch.capacity(), batch.arena_len()),
        (1, 1, 5000)
    );
    batch.clear();
    // Over two pages of ours: two operations.
    assert_eq!(batch.to_guest(1, 4096, DOM, GREF, 0), Err(full));
    assert_eq!(batch.to_guest(0, 4096, DOM, GREF, 0), Ok(()));
}

/// What was found once holds for just these operations, and until one is found to be otherwise.
#[test]
fn a_review_changes_no_answer() {
    let mut batch = CopyBatch::new(3, 4096).unwrap();
    for _ in 0..2 {
        batch.from_guest(DOM, GREF, 0, 1, 0).unwrap();
    }
    let answers = |batch: &CopyBatch| [0..1, 1..2, 0..2, 0..3, 2..3].map(|ops| batch.all_ok(ops));
    batch.review();
    assert_eq!(answers(&batch), [false; 5]);
    for op in 0..2 {
        batch.set_status(op, GrantStatus::OKAY);
    }
    let good = [true, true, true, false, false];
    assert_eq!(answers(&batch), good);
    batch.review();
    assert_eq!(answers(&batch), good);
    batch.from_guest(DOM, GREF, 0, 1, 0).unwrap();
    assert_eq!(answers(&batch), good, "the third has not been carried out");
    batch.set_status(1, GrantStatus::BAD_GREF);
    assert_eq!(answers(&batch), [true, false, false, false, false]);
    batch.review();
    assert_eq!(answers(&batch), [true, false, false, false, false]);
    batch.fail();
    assert_eq!(answers(&batch), [false; 5]);
    batch.clear();
    assert!(!batch.all_ok(0..1) && batch.all_ok(0..0));
}

#[test]
fn the_arena_keeps_its_bytes() {
    let mut batch = CopyBatch::new(1, 100).unwrap();
    batch.bytes_mut(10..13).copy_from_slice(b"abc");
    batch.clear();
    assert_eq!(batch.bytes(9..14), b"\0abc\0");
    assert_eq!(batch.bytes(99..101), b"");
    assert_eq!(batch.bytes_mut(101..102), b"");
}

proptest! {
    /// Whole, in order, and each within a page of ours.
    #[test]
    fn copies_are_kept_as_they_were_added(dom: u16, gref: u32, offset: u16, len: u16, at in 0usize..9000) {
        let (dom, gref) = (DomId::new(dom), GrantRef::new(gref));
        let fits = usize::from(offset) + usize::from(len) <= 4096 && at + usize::from(len) <= 8192;
        for direction in [Direction::FromGuest, Direction::ToGuest] {
            let mut batch = CopyBatch::new(2, 8192).unwrap();
            let added = match direction {
                Direction::FromGuest => batch.from_guest(dom, gref, offset, len, at),
                Direction::ToGuest => batch.to_guest(at, len, dom, gref, offset),
            };
            prop_assert_eq!(added.is_ok(), fits);
            prop_assert_eq!(batch.len(), if fits { CopyBatch::ops_of(at, len) } else { 0 });
            let mut done = 0;
            for op in batch.ops() {
                let (offset, at) = (offset + done, at + usize::from(done));
                prop_assert_eq!(op, CopyOp { direction, dom, gref, offset, len: op.len, at });
                prop_assert!(at % 4096 + usize::from(op.len) <= 4096);
                done += op.len;
            }
            prop_assert_eq!(done, if fits { len } else { 0 });
        }
    }
}
