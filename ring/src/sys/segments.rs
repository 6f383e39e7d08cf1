// SPDX-License-Identifier: MIT OR Apache-2.0
//! A copy as `/dev/xen/gntdev` wants it: `struct gntdev_grant_copy_segment` of Linux's
//! `xen/gntdev.h`, asserted below.
//!
//! Our side of a copy is an address, or, where the arena is granted to ourselves, a grant. Used by
//! [`CopyBatch`](crate::CopyBatch).

use crate::copy::{CopyOp, Direction, GrantStatus};
use crate::ids::{DomId, GrantRef};

/// One copy between a page of a guest's and ours.
///
/// A side is a union of a virtual address and {reference u32, offset u16, domain u16}; both take
/// eight bytes, which are kept here as one integer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
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

const _: () = {
    use std::mem::{align_of, offset_of};
    assert!(size_of::<Segment>() == 24 && align_of::<Segment>() == 8);
    assert!(offset_of!(Segment, source) == 0 && offset_of!(Segment, dest) == 8);
    assert!(offset_of!(Segment, len) == 16 && offset_of!(Segment, flags) == 18);
    assert!(offset_of!(Segment, status) == 20);
};

impl Segment {
    /// An operation with `ours` for the byte of ours that it begins with, a grant or an address.
    /// It has failed until it is carried out.
    #[inline]
    pub(crate) fn new(op: CopyOp, ours: u64, ours_is_granted: bool) -> Self {
        let theirs = granted(op.dom, op.gref, op.offset);
        let (source, dest, flags) = match op.direction {
            Direction::FromGuest => (theirs, ours, flags(true, ours_is_granted)),
            Direction::ToGuest => (ours, theirs, flags(ours_is_granted, true)),
        };
        Self {
            source,
            dest,
            len: op.len,
            flags,
            status: GrantStatus::GENERAL_ERROR.raw(),
            pad: 0,
        }
    }

    #[inline]
    pub(crate) const fn status(&self) -> GrantStatus {
        GrantStatus::new(self.status)
    }

    #[inline]
    pub(crate) const fn is_ok(&self) -> bool {
        self.status().is_ok()
    }

    pub(crate) const fn set_status(&mut self, status: GrantStatus) {
        self.status = status.raw();
    }

    /// The operation, if our side is an address, in an arena that begins at `base`.
    pub(crate) fn op(&self, base: u64) -> Option<CopyOp> {
        let (direction, theirs, ours) = match self.flags {
            SOURCE_GREF => (Direction::FromGuest, self.source, self.dest),
            DEST_GREF => (Direction::ToGuest, self.dest, self.source),
            _ => return None,
        };
        let [gref @ .., o0, o1, d0, d1] = theirs.to_le_bytes();
        Some(CopyOp {
            direction,
            dom: DomId::new(u16::from_le_bytes([d0, d1])),
            gref: GrantRef::new(u32::from_le_bytes(gref)),
            offset: u16::from_le_bytes([o0, o1]),
            len: self.len,
            at: usize::try_from(ours.checked_sub(base)?).ok()?,
        })
    }
}

/// Which sides are grants.
const fn flags(source: bool, dest: bool) -> u16 {
    (if source { SOURCE_GREF } else { 0 }) | (if dest { DEST_GREF } else { 0 })
}

/// Where the offset stands in a side that is a grant, in bits.
pub(crate) const GRANTED_OFFSET: u32 = 32;

/// A side that is a grant.
#[inline]
pub(crate) fn granted(dom: DomId, gref: GrantRef, offset: u16) -> u64 {
    u64::from(gref.raw()) | u64::from(offset) << GRANTED_OFFSET | u64::from(dom.raw()) << 48
}

#[cfg(test)]
mod tests;
