// SPDX-License-Identifier: MIT OR Apache-2.0
//! A batch of copies as `/dev/xen/gntdev` wants it: `struct gntdev_grant_copy_segment` of Linux's
//! `xen/gntdev.h`, asserted below.
//!
//! Our side of a copy is an address, or, where the arena is granted to ourselves, a grant; a copy
//! over two pages of such an arena takes two segments. Called by [`CopyBatch`](crate::CopyBatch).

use crate::copy::{CopyOp, GrantStatus};
use crate::ids::{DomId, GrantRef};
use crate::layout::PAGE_SIZE;
use crate::sys::mapped::{Arena, Place};

/// The segments of one batch. Allocated once.
#[derive(Debug)]
pub(crate) struct Segments {
    segments: Vec<Segment>,
    /// Where each operation's segments end.
    ends: Vec<usize>,
}

/// One copy between a page of a guest's and ours.
///
/// A side is a union of a virtual address and {reference u32, offset u16, domain u16}; both take
/// eight bytes, which are kept here as one integer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    source: u64,
    dest: u64,
    len: u16,
    flags: u16,
    status: i16,
    pad: u16,
}

const SOURCE_GREF: u16 = 1;
const DEST_GREF: u16 = 2;

#[expect(clippy::cast_possible_truncation, reason = "4096")]
const PAGE: u16 = PAGE_SIZE as u16;

/// An operation copies a page at most, which lies in two of ours at most.
const SEGMENTS_PER_OP: usize = 2;

const _: () = {
    use std::mem::{align_of, offset_of};
    assert!(size_of::<Segment>() == 24 && align_of::<Segment>() == 8);
    assert!(offset_of!(Segment, source) == 0 && offset_of!(Segment, dest) == 8);
    assert!(offset_of!(Segment, len) == 16 && offset_of!(Segment, flags) == 18);
    assert!(offset_of!(Segment, status) == 20);
};

impl Segments {
    pub(crate) fn for_ops(ops: usize) -> Self {
        Self {
            segments: Vec::with_capacity(ops * SEGMENTS_PER_OP),
            ends: Vec::with_capacity(ops),
        }
    }

    /// Replaces all segments by those of these operations.
    pub(crate) fn encode(&mut self, ops: &[CopyOp], arena: &Arena) {
        self.segments.clear();
        self.ends.clear();
        for op in ops {
            self.push(*op, arena);
            self.ends.push(self.segments.len());
        }
    }

    pub(crate) const fn as_mut_slice(&mut self) -> &mut [Segment] {
        self.segments.as_mut_slice()
    }

    /// How each operation ended: as the first of its segments that failed, if one did.
    pub(crate) fn take_statuses(&self, statuses: &mut [GrantStatus]) {
        let mut begin = 0;
        for (status, end) in statuses.iter_mut().zip(&self.ends) {
            let segments = self.segments.get(begin..*end).unwrap_or_default();
            let failed = segments.iter().find(|segment| segment.status != 0);
            *status = GrantStatus::new(failed.map_or(0, |segment| segment.status));
            begin = *end;
        }
    }

    fn push(&mut self, op: CopyOp, arena: &Arena) {
        let (dom, gref, mut offset, len, mut at, to_guest) = match op {
            CopyOp::FromGuest {
                dom,
                gref,
                offset,
                len,
                at,
            } => (dom, gref, offset, len, at, false),
            CopyOp::ToGuest {
                at,
                len,
                dom,
                gref,
                offset,
            } => (dom, gref, offset, len, at, true),
        };
        let mut rest = len;
        loop {
            let (ours, room, granted) = match arena.place(at) {
                Place::Address(address) => (address, rest, false),
                Place::Granted { dom, gref, offset } => {
                    (foreign(dom, gref, offset), PAGE - offset, true)
                }
            };
            let part = rest.min(room);
            let theirs = foreign(dom, gref, offset);
            self.segments.push(if to_guest {
                Segment::new(ours, theirs, part, flags(granted, true))
            } else {
                Segment::new(theirs, ours, part, flags(true, granted))
            });
            rest -= part;
            if rest == 0 {
                return;
            }
            offset += part;
            at += usize::from(part);
        }
    }
}

impl Segment {
    const fn new(source: u64, dest: u64, len: u16, flags: u16) -> Self {
        Self {
            source,
            dest,
            len,
            flags,
            status: GrantStatus::GENERAL_ERROR.raw(),
            pad: 0,
        }
    }
}

/// Which sides are grants.
const fn flags(source: bool, dest: bool) -> u16 {
    (if source { SOURCE_GREF } else { 0 }) | (if dest { DEST_GREF } else { 0 })
}

/// A granted side.
fn foreign(dom: DomId, gref: GrantRef, offset: u16) -> u64 {
    u64::from(gref.raw()) | u64::from(offset) << 32 | u64::from(dom.raw()) << 48
}

#[cfg(test)]
mod tests;
