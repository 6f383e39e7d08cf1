// SPDX-License-Identifier: MIT OR Apache-2.0
//! A batch of grant copies that owns the memory which is copied to and from.
//!
//! One batch is one call to the hypervisor. Operations name our side by a position in the batch's
//! arena, which is checked when the operation is added: whatever a guest says, the kernel is never
//! given an address outside. Nothing here allocates after [`CopyBatch::new`].
//!
//! The hypervisor takes `&mut CopyBatch`, so no slice of the arena can exist while the kernel
//! writes to it; what it wrote is ours alone afterwards, out of the guest's reach.

use std::fmt;
use std::ops::Range;

use crate::error::SysError;
use crate::ids::{DomId, GrantRef};
use crate::layout::PAGE_SIZE;
use crate::sys::mapped::Arena;

/// Copy operations and the memory on our side of them. See the module documentation.
#[derive(Debug)]
pub struct CopyBatch {
    arena: Arena,
    segments: Vec<Segment>,
    capacity: usize,
}

impl CopyBatch {
    /// A batch of at most `ops` operations over an arena of `bytes` bytes, both greater than 0.
    /// The arena is page aligned, zeroed and resident.
    ///
    /// # Errors
    ///
    /// The kernel refused the memory.
    pub fn new(ops: usize, bytes: usize) -> Result<Self, SysError> {
        Ok(Self {
            arena: Arena::new(bytes)?,
            segments: Vec::with_capacity(ops),
            capacity: ops,
        })
    }

    /// Forgets all operations. The arena's bytes stay as they are.
    pub fn clear(&mut self) {
        self.segments.clear();
    }

    /// Adds a copy of `len` bytes at `offset` of a granted page to position `at` of the arena.
    /// Returns the operation's number, for [`status`](Self::status).
    ///
    /// # Errors
    ///
    /// Nothing is added when there is no room, or when either range is out of bounds.
    pub fn from_guest(
        &mut self,
        dom: DomId,
        gref: GrantRef,
        offset: u16,
        len: u16,
        at: usize,
    ) -> Result<usize, BatchFull> {
        let local = self.local(at, offset, len)?;
        self.push(Segment {
            source: foreign(dom, gref, offset),
            dest: local,
            len,
            flags: SOURCE_GREF,
            status: GrantStatus::GENERAL_ERROR.0,
            pad: 0,
        })
    }

    /// Adds a copy of `len` bytes at position `at` of the arena to `offset` of a granted page.
    /// Returns the operation's number, for [`status`](Self::status).
    ///
    /// # Errors
    ///
    /// Nothing is added when there is no room, or when either range is out of bounds.
    pub fn to_guest(
        &mut self,
        at: usize,
        len: u16,
        dom: DomId,
        gref: GrantRef,
        offset: u16,
    ) -> Result<usize, BatchFull> {
        let local = self.local(at, offset, len)?;
        self.push(Segment {
            source: local,
            dest: foreign(dom, gref, offset),
            len,
            flags: DEST_GREF,
            status: GrantStatus::GENERAL_ERROR.0,
            pad: 0,
        })
    }

    /// How operation `op` ended. Before the batch was carried out, and for a number that no
    /// operation has, it is a general error: never a success by omission.
    #[must_use]
    pub fn status(&self, op: usize) -> GrantStatus {
        self.segments
            .get(op)
            .map_or(GrantStatus::GENERAL_ERROR, |op| GrantStatus(op.status))
    }

    /// How many operations have been added.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is no operation.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// How many operations it can hold.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many bytes the arena has.
    #[must_use]
    pub const fn arena_len(&self) -> usize {
        self.arena.len()
    }

    /// Bytes of the arena; empty when the range does not lie inside.
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.arena.get(range).unwrap_or_default()
    }

    /// Bytes of the arena for writing; empty when the range does not lie inside.
    #[must_use]
    pub fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        self.arena.get_mut(range).unwrap_or_default()
    }

    /// The operations in order, decoded: what a simulated hypervisor carries out.
    pub fn ops(&self) -> impl ExactSizeIterator<Item = CopyOp> + '_ {
        self.segments
            .iter()
            .map(|segment| segment.decode(self.arena.address()))
    }

    /// Operation number `op`, decoded. With this a simulated hypervisor can walk the batch while
    /// it writes to the arena.
    #[must_use]
    pub fn op(&self, op: usize) -> Option<CopyOp> {
        self.segments
            .get(op)
            .map(|segment| segment.decode(self.arena.address()))
    }

    /// Sets how operation `op` ended, as a simulated hypervisor does. An operation that is not
    /// there is left out.
    pub fn set_status(&mut self, op: usize, status: GrantStatus) {
        if let Some(segment) = self.segments.get_mut(op) {
            segment.status = status.0;
        }
    }

    /// The operations as the kernel wants them.
    pub(crate) const fn segments_mut(&mut self) -> &mut [Segment] {
        self.segments.as_mut_slice()
    }

    /// Checks both ranges and gives the address of ours.
    fn local(&self, at: usize, offset: u16, len: u16) -> Result<u64, BatchFull> {
        if usize::from(offset) + usize::from(len) > PAGE_SIZE {
            return Err(BatchFull::Page { offset, len });
        }
        let size = self.arena.len();
        match at.checked_add(usize::from(len)) {
            Some(end) if end <= size => Ok(self.arena.address() + at as u64),
            _ => Err(BatchFull::Arena { at, len, size }),
        }
    }

    fn push(&mut self, segment: Segment) -> Result<usize, BatchFull> {
        let op = self.segments.len();
        if op >= self.capacity {
            return Err(BatchFull::Operations {
                capacity: self.capacity,
            });
        }
        self.segments.push(segment);
        Ok(op)
    }
}

/// Why an operation was not added to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchFull {
    /// The batch has as many operations as it can hold.
    #[error("the copy batch is full: it holds {capacity} operations")]
    Operations {
        /// How many it can hold.
        capacity: usize,
    },
    /// The range on our side is not inside the arena.
    #[error("{len} bytes at {at} are outside the copy batch's {size} bytes")]
    Arena {
        /// First byte.
        at: usize,
        /// How many.
        len: u16,
        /// The arena's size.
        size: usize,
    },
    /// The range on the guest's side crosses its page, for which Xen would refuse the whole batch.
    #[error("{len} bytes at offset {offset} cross the granted page")]
    Page {
        /// First byte.
        offset: u16,
        /// How many.
        len: u16,
    },
}

/// One operation of a batch, as a simulated hypervisor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOp {
    /// From a granted page to the arena.
    FromGuest {
        /// The granting domain.
        dom: DomId,
        /// Its reference.
        gref: GrantRef,
        /// First byte within the page.
        offset: u16,
        /// How many bytes.
        len: u16,
        /// First byte within the arena.
        at: usize,
    },
    /// From the arena to a granted page.
    ToGuest {
        /// First byte within the arena.
        at: usize,
        /// How many bytes.
        len: u16,
        /// The granting domain.
        dom: DomId,
        /// Its reference.
        gref: GrantRef,
        /// First byte within the page.
        offset: u16,
    },
}

/// How the hypervisor ended one operation (`GNTST_*` of Xen's `grant_table.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GrantStatus(i16);

impl GrantStatus {
    /// Done.
    pub const OKAY: Self = Self(0);
    /// Unspecified failure; also what an operation has before it was carried out.
    pub const GENERAL_ERROR: Self = Self(-1);
    /// No such domain.
    pub const BAD_DOMAIN: Self = Self(-2);
    /// The reference is not granted (any more).
    pub const BAD_GREF: Self = Self(-3);
    /// Granted, but not for this access.
    pub const PERMISSION_DENIED: Self = Self(-8);
    /// The granted page is not one.
    pub const BAD_PAGE: Self = Self(-9);
    /// The range crosses the page.
    pub const BAD_COPY_ARG: Self = Self(-10);
    /// The page is paged out.
    pub const TRY_AGAIN: Self = Self(-12);

    /// The status with this raw code.
    #[must_use]
    pub const fn new(code: i16) -> Self {
        Self(code)
    }

    /// The raw code.
    #[must_use]
    pub const fn raw(self) -> i16 {
        self.0
    }

    /// Whether the bytes have been copied.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// What the code means.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            0 => "done",
            -1 => "general error",
            -2 => "no such domain",
            -3 => "the grant reference is not granted",
            -8 => "permission denied by the grant",
            -9 => "the granted page is bad",
            -10 => "the range crosses the page",
            -12 => "the page is paged out",
            -13 => "no space",
            _ => "unknown grant status",
        }
    }
}

impl fmt::Display for GrantStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

/// `struct gntdev_grant_copy_segment`: what the kernel reads and, for the status, writes.
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

const _: () = {
    use std::mem::{align_of, offset_of};
    assert!(size_of::<Segment>() == 24 && align_of::<Segment>() == 8);
    assert!(offset_of!(Segment, source) == 0 && offset_of!(Segment, dest) == 8);
    assert!(offset_of!(Segment, len) == 16 && offset_of!(Segment, flags) == 18);
    assert!(offset_of!(Segment, status) == 20);
};

impl Segment {
    /// The operation that was encoded, given where the arena starts.
    fn decode(&self, arena: u64) -> CopyOp {
        let at = |address: u64| usize::try_from(address.wrapping_sub(arena)).unwrap_or(usize::MAX);
        let len = self.len;
        if self.flags == SOURCE_GREF {
            let (dom, gref, offset) = split_foreign(self.source);
            CopyOp::FromGuest {
                dom,
                gref,
                offset,
                len,
                at: at(self.dest),
            }
        } else {
            let (dom, gref, offset) = split_foreign(self.dest);
            CopyOp::ToGuest {
                at: at(self.source),
                len,
                dom,
                gref,
                offset,
            }
        }
    }
}

/// The guest's side of a segment.
fn foreign(dom: DomId, gref: GrantRef, offset: u16) -> u64 {
    u64::from(gref.raw()) | u64::from(offset) << 32 | u64::from(dom.raw()) << 48
}

fn split_foreign(side: u64) -> (DomId, GrantRef, u16) {
    let [r0, r1, r2, r3, o0, o1, d0, d1] = side.to_le_bytes();
    let gref = GrantRef::new(u32::from_le_bytes([r0, r1, r2, r3]));
    (
        DomId::new(u16::from_le_bytes([d0, d1])),
        gref,
        u16::from_le_bytes([o0, o1]),
    )
}

#[cfg(test)]
mod tests;
