// SPDX-License-Identifier: MIT OR Apache-2.0
//! A batch of grant copies that owns the memory which is copied to and from.
//!
//! One batch is one call to the hypervisor. A copy names our side by a position in the batch's
//! arena, which is checked when it is added: whatever a guest says, the kernel is never given an
//! address outside. It is kept in the kernel's own form, so that nothing is converted for the call.
//! Nothing here allocates after [`CopyBatch::new`].
//!
//! The hypervisor takes `&mut CopyBatch`, so no slice of the arena can exist while the kernel
//! writes to it; what it wrote is ours alone afterwards, out of the guest's reach.

mod status;

use std::ops::Range;

use crate::error::SysError;
use crate::ids::{DomId, GrantRef};
use crate::layout::PAGE_SIZE;
use crate::sys::mapped::Arena;
use crate::sys::segments::Segment;

pub use status::GrantStatus;

/// Copy operations and the memory on our side of them. See the module documentation.
#[derive(Debug)]
pub struct CopyBatch {
    arena: Arena,
    /// Room for operations; of those that have been added, how they ended.
    segments: Box<[Segment]>,
    /// Operations that have been added.
    added: usize,
    /// So many operations are known to have ended well, from the first on.
    flawless: usize,
    refusal: Option<SysError>,
}

impl CopyBatch {
    /// Operations that one copy takes, at most: it takes two if it crosses a page of the arena, as
    /// the hypervisor would have it.
    pub const OPS_PER_COPY: usize = 2;

    /// A batch of at most `ops` operations over an arena of `bytes` bytes, both greater than 0.
    /// The arena is page aligned, zeroed and resident.
    ///
    /// # Errors
    ///
    /// The kernel refused the memory.
    pub fn new(ops: usize, bytes: usize) -> Result<Self, SysError> {
        Ok(Self::over(Arena::new(bytes)?, ops))
    }

    /// A batch of at most `ops` operations over this arena.
    pub(crate) fn over(arena: Arena, ops: usize) -> Self {
        Self {
            arena,
            segments: vec![Segment::default(); ops].into_boxed_slice(),
            added: 0,
            flawless: 0,
            refusal: None,
        }
    }

    /// A batch as by [`Self::new`], after memory that is granted to ourselves was refused.
    pub(crate) fn refused(refusal: SysError, ops: usize, bytes: usize) -> Result<Self, SysError> {
        Ok(Self {
            refusal: Some(refusal),
            ..Self::new(ops, bytes)?
        })
    }

    /// Forgets all operations. The arena's bytes stay as they are.
    pub fn clear(&mut self) {
        (self.added, self.flawless) = (0, 0);
    }

    /// Adds a copy of `len` bytes at `offset` of a granted page to position `at` of the arena: one
    /// operation, or [two](Self::OPS_PER_COPY).
    ///
    /// # Errors
    ///
    /// Nothing is added when there is no room, or when either range is out of bounds.
    #[inline]
    pub fn from_guest(
        &mut self,
        dom: DomId,
        gref: GrantRef,
        offset: u16,
        len: u16,
        at: usize,
    ) -> Result<(), BatchFull> {
        self.add(CopyOp {
            direction: Direction::FromGuest,
            dom,
            gref,
            offset,
            len,
            at,
        })
    }

    /// Adds a copy of `len` bytes at position `at` of the arena to `offset` of a granted page: one
    /// operation, or [two](Self::OPS_PER_COPY).
    ///
    /// # Errors
    ///
    /// Nothing is added when there is no room, or when either range is out of bounds.
    #[inline]
    pub fn to_guest(
        &mut self,
        at: usize,
        len: u16,
        dom: DomId,
        gref: GrantRef,
        offset: u16,
    ) -> Result<(), BatchFull> {
        self.add(CopyOp {
            direction: Direction::ToGuest,
            dom,
            gref,
            offset,
            len,
            at,
        })
    }

    /// How many operations a copy of `len` bytes to or from position `at` takes.
    #[must_use]
    pub const fn ops_of(at: usize, len: u16) -> usize {
        if len <= rest_of_page(at) { 1 } else { 2 }
    }

    /// How operation `op` ended. Before the batch was carried out, and for a number that no
    /// operation has, it is a general error: never a success by omission.
    #[must_use]
    pub fn status(&self, op: usize) -> GrantStatus {
        let segment = self.segments().get(op);
        segment.map_or(GrantStatus::GENERAL_ERROR, Segment::status)
    }

    /// Whether all these operations are there and ended well.
    #[must_use]
    #[inline]
    pub fn all_ok(&self, ops: Range<usize>) -> bool {
        ops.end <= self.flawless || {
            let segments = self.segments().get(ops);
            segments.is_some_and(|segments| segments.iter().all(Segment::is_ok))
        }
    }

    /// Looks how all operations ended: if well, as they mostly do, [`Self::all_ok`] need not look
    /// at each of them again.
    pub fn review(&mut self) {
        let is_flawless = self.segments().iter().all(Segment::is_ok);
        self.flawless = if is_flawless { self.added } else { 0 };
    }

    /// How many operations have been added.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.added
    }

    /// Whether there is no operation.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added == 0
    }

    /// How many operations it can hold.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.segments.len()
    }

    /// Why copies name the arena by address, which costs more, where it could have been granted.
    #[must_use]
    pub const fn refusal(&self) -> Option<&SysError> {
        self.refusal.as_ref()
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

    /// The operations in order: what a simulated hypervisor carries out.
    pub fn ops(&self) -> impl Iterator<Item = CopyOp> + '_ {
        (0..self.len()).map_while(|op| self.op(op))
    }

    /// Operation number `op`. With this a simulated hypervisor can walk the batch while it writes
    /// to the arena. `None` where the arena is granted: then only the real one can carry it out.
    #[must_use]
    pub fn op(&self, op: usize) -> Option<CopyOp> {
        self.segments().get(op)?.op(self.arena.address())
    }

    /// Sets how operation `op` ended, as a simulated hypervisor does. An operation that is not
    /// there is left out.
    pub fn set_status(&mut self, op: usize, status: GrantStatus) {
        self.flawless = 0;
        if let Some(segment) = self.segments_mut().get_mut(op) {
            segment.set_status(status);
        }
    }

    /// Every operation has failed.
    pub fn fail(&mut self) {
        self.flawless = 0;
        for segment in self.segments_mut() {
            segment.set_status(GrantStatus::GENERAL_ERROR);
        }
    }

    /// Has `carry_out` do the operations in the kernel's form and set how each ended.
    ///
    /// # Errors
    ///
    /// That of `carry_out`; then every operation has failed, whatever it has set.
    pub(crate) fn with_segments<E>(
        &mut self,
        carry_out: impl FnOnce(&mut [Segment]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.flawless = 0;
        let outcome = carry_out(self.segments_mut());
        if outcome.is_err() {
            self.fail();
        }
        outcome
    }

    /// Both ranges are checked before anything is added.
    // In line always: as a call it takes its operation by memory, for each slot.
    #[inline(always)]
    fn add(&mut self, op: CopyOp) -> Result<(), BatchFull> {
        let len = usize::from(op.len);
        let in_page = usize::from(op.offset) + len <= PAGE_SIZE;
        let in_arena = op.at <= self.arena.len() && len <= self.arena.len() - op.at;
        if !(in_page && in_arena) {
            return Err(self.full(op));
        }
        let first = rest_of_page(op.at);
        if op.len <= first {
            self.push(op)
        } else {
            self.add_both(op, first)
        }
    }

    /// Adds a copy of which only the `first` bytes fit in its page of the arena.
    fn add_both(&mut self, op: CopyOp, first: u16) -> Result<(), BatchFull> {
        if self.capacity() - self.added < Self::OPS_PER_COPY {
            return Err(self.full(op));
        }
        self.push(CopyOp { len: first, ..op })?;
        self.push(CopyOp {
            offset: op.offset + first,
            len: op.len - first,
            at: op.at + usize::from(first),
            ..op
        })
    }

    #[inline]
    fn push(&mut self, op: CopyOp) -> Result<(), BatchFull> {
        let (ours, is_granted) = (self.arena.name(op.at), self.arena.is_granted());
        let Some(segment) = self.segments.get_mut(self.added) else {
            return Err(self.full(op));
        };
        *segment = Segment::new(op, ours, is_granted);
        self.added += 1;
        Ok(())
    }

    fn segments(&self) -> &[Segment] {
        self.segments.get(..self.added).unwrap_or_default()
    }

    fn segments_mut(&mut self) -> &mut [Segment] {
        self.segments.get_mut(..self.added).unwrap_or_default()
    }

    /// Why there is no room for a copy for which there is none.
    #[cold]
    fn full(&self, op: CopyOp) -> BatchFull {
        let CopyOp {
            offset, len, at, ..
        } = op;
        let size = self.arena.len();
        if usize::from(offset) + usize::from(len) > PAGE_SIZE {
            BatchFull::Page { offset, len }
        } else if at.saturating_add(usize::from(len)) > size {
            BatchFull::Arena { at, len, size }
        } else {
            BatchFull::Operations {
                capacity: self.capacity(),
            }
        }
    }
}

/// Bytes of the arena from `at` to the end of its page.
#[expect(clippy::cast_possible_truncation, reason = "at most 4096")]
const fn rest_of_page(at: usize) -> u16 {
    (PAGE_SIZE - at % PAGE_SIZE) as u16
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

/// One operation of a batch: a copy between a granted page and the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyOp {
    /// Which way.
    pub direction: Direction,
    /// The granting domain.
    pub dom: DomId,
    /// Its reference.
    pub gref: GrantRef,
    /// First byte within the granted page.
    pub offset: u16,
    /// How many bytes.
    pub len: u16,
    /// First byte within the arena.
    pub at: usize,
}

/// Which way an operation copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the granted page to the arena.
    FromGuest,
    /// From the arena to the granted page.
    ToGuest,
}

#[cfg(test)]
mod tests;
