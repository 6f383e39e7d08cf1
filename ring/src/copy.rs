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
use crate::sys::segments::{Segment, Segments};

/// Copy operations and the memory on our side of them. See the module documentation.
#[derive(Debug)]
pub struct CopyBatch {
    arena: Arena,
    ops: Vec<CopyOp>,
    statuses: Vec<GrantStatus>,
    capacity: usize,
    refusal: Option<SysError>,
    /// The operations as the kernel wants them; only of use to [`crate::sys::gntdev`].
    segments: Segments,
}

impl CopyBatch {
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
            ops: Vec::with_capacity(ops),
            statuses: Vec::with_capacity(ops),
            capacity: ops,
            refusal: None,
            segments: Segments::for_ops(ops),
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
        self.ops.clear();
        self.statuses.clear();
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
        self.push(CopyOp::FromGuest {
            dom,
            gref,
            offset,
            len,
            at,
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
        self.push(CopyOp::ToGuest {
            at,
            len,
            dom,
            gref,
            offset,
        })
    }

    /// How operation `op` ended. Before the batch was carried out, and for a number that no
    /// operation has, it is a general error: never a success by omission.
    #[must_use]
    pub fn status(&self, op: usize) -> GrantStatus {
        let status = self.statuses.get(op).copied();
        status.unwrap_or(GrantStatus::GENERAL_ERROR)
    }

    /// Whether all these operations ended well.
    #[must_use]
    pub fn all_ok(&self, ops: Range<usize>) -> bool {
        let statuses = self.statuses.get(ops);
        statuses.is_some_and(|statuses| statuses.iter().all(|status| status.is_ok()))
    }

    /// How many operations have been added.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is no operation.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// How many operations it can hold.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
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
    pub fn ops(&self) -> impl ExactSizeIterator<Item = CopyOp> + '_ {
        self.ops.iter().copied()
    }

    /// Operation number `op`. With this a simulated hypervisor can walk the batch while it writes
    /// to the arena.
    #[must_use]
    pub fn op(&self, op: usize) -> Option<CopyOp> {
        self.ops.get(op).copied()
    }

    /// Sets how operation `op` ended, as a simulated hypervisor does. An operation that is not
    /// there is left out.
    pub fn set_status(&mut self, op: usize, status: GrantStatus) {
        if let Some(place) = self.statuses.get_mut(op) {
            *place = status;
        }
    }

    /// Has `carry_out` do the operations in the kernel's form, and takes over how they ended.
    ///
    /// # Errors
    ///
    /// That of `carry_out`; no status has changed then.
    pub(crate) fn with_segments<E>(
        &mut self,
        carry_out: impl FnOnce(&mut [Segment]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.segments.encode(&self.ops, &self.arena);
        carry_out(self.segments.as_mut_slice())?;
        self.segments.take_statuses(&mut self.statuses);
        Ok(())
    }

    /// Both ranges are checked before an operation is added.
    fn push(&mut self, op: CopyOp) -> Result<usize, BatchFull> {
        let (CopyOp::FromGuest {
            offset, len, at, ..
        }
        | CopyOp::ToGuest {
            offset, len, at, ..
        }) = op;
        if usize::from(offset) + usize::from(len) > PAGE_SIZE {
            return Err(BatchFull::Page { offset, len });
        }
        let size = self.arena.len();
        if at
            .checked_add(usize::from(len))
            .is_none_or(|end| end > size)
        {
            return Err(BatchFull::Arena { at, len, size });
        }
        let number = self.ops.len();
        if number >= self.capacity {
            return Err(BatchFull::Operations {
                capacity: self.capacity,
            });
        }
        self.ops.push(op);
        self.statuses.push(GrantStatus::GENERAL_ERROR);
        Ok(number)
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

/// One operation of a batch.
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

#[cfg(test)]
mod tests;
