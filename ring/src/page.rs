// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one audited module that touches memory which a guest can change at any moment.
//!
//! * No Rust reference to plain data is ever formed into a shared page. Ring indices are atomics;
//!   everything else is copied: words with volatile accesses, longer ranges by an instruction that
//!   is opaque to the compiler. The caller validates the copy and uses only the copy (XSA-155).
//! * No offset, however wrong, reaches memory outside the page: word offsets are masked into it
//!   (a wrong one is a bug of the caller, caught in debug builds), byte ranges are checked.
//! * The ring logic ([`crate::back`], [`crate::front`]) is generic over [`Page`], so that the
//!   model checker can run the very same code over its own atomics.
#![allow(
    unsafe_code,
    reason = "shared guest memory; each block names its invariants"
)]

use std::any::Any;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::error::SysError;
use crate::layout::PAGE_SIZE;
use crate::sys::mapped::Mapping;

/// A 4096-byte page that two domains write to.
///
/// Offsets are in bytes, multiples of 4 and inside the page; others are the caller's error: they
/// are asserted in debug builds and masked into the page otherwise.
pub trait Page: Send {
    /// Loads the word at `offset` atomically. `order` is `Relaxed`, `Acquire` or `SeqCst`.
    fn load(&self, offset: usize, order: Ordering) -> u32;

    /// Stores the word at `offset` atomically. `order` is `Relaxed`, `Release` or `SeqCst`.
    fn store(&self, offset: usize, value: u32, order: Ordering);

    /// Copies `N` words out of the page. Not atomic as a whole: the guest may be writing.
    fn read_words<const N: usize>(&self, offset: usize) -> [u32; N];

    /// Copies `N` words into the page. Not atomic as a whole: the guest may be reading.
    fn write_words<const N: usize>(&self, offset: usize, words: [u32; N]);

    /// A full barrier: the caller's stores before it are visible before its loads after it.
    #[inline]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// One mapped page and whatever keeps it mapped: a grant mapping, or private anonymous memory that
/// stands in for a guest's. Clones refer to the same page; the last one releases it.
#[derive(Clone)]
pub struct SharedPage {
    /// Start of the page, aligned to 4096 and valid for reads and writes of 4096 bytes as long as
    /// `_owner` lives.
    base: NonNull<u64>,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: `base` points to memory that belongs to no thread and stays mapped while `_owner`, which
// is itself Send + Sync, lives.
unsafe impl Send for SharedPage {}
// SAFETY: every access through `&SharedPage` is an atomic or a volatile access of plain integers,
// made on the assumption that others (the guest) write at the same time; no reference is formed.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// A fresh page of private, zeroed memory: a simulated guest's, or a test's.
    ///
    /// # Errors
    ///
    /// The kernel refused the memory.
    pub fn anonymous() -> Result<Self, SysError> {
        let mapping = Arc::new(Mapping::anonymous(PAGE_SIZE)?);
        Ok(Self {
            base: mapping.base().cast(),
            _owner: mapping,
        })
    }

    /// As [`anonymous`](Self::anonymous), many pages of one mapping (a guest's whole memory). The
    /// mapping goes when the last of them goes.
    ///
    /// # Errors
    ///
    /// The kernel refused the memory, or `count` is 0 or too large to be expressed in bytes.
    pub fn anonymous_pages(count: usize) -> Result<Vec<Self>, SysError> {
        let mapping = Mapping::anonymous(count.saturating_mul(PAGE_SIZE))?;
        Ok(Self::all_of(mapping, ()))
    }

    /// The whole pages of a mapping, which goes when the last of them goes, and `guard` after it.
    pub(crate) fn all_of<G: Any + Send + Sync>(mapping: Mapping, guard: G) -> Vec<Self> {
        let (start, count) = (mapping.base().cast::<u64>(), mapping.len() / PAGE_SIZE);
        let owner: Arc<dyn Any + Send + Sync> = Arc::new((mapping, guard));
        let pages = (0..count).map(|page| {
            // SAFETY: the mapping has `count` pages, so page number `page` is inside it.
            let base = unsafe { start.add(page * (PAGE_SIZE / size_of::<u64>())) };
            Self {
                base,
                _owner: Arc::clone(&owner),
            }
        });
        pages.collect()
    }

    /// Another handle of the same page that carries `guard`, which is dropped with its last clone: how a
    /// simulated hypervisor counts what is mapped.
    #[must_use]
    pub fn with_guard<G: Any + Send + Sync>(&self, guard: G) -> Self {
        Self {
            base: self.base,
            _owner: Arc::new((guard, Arc::clone(&self._owner))),
        }
    }

    /// Takes charge of a page of a mapping.
    pub(crate) fn of_mapping(mapping: Arc<dyn Any + Send + Sync>, page: &Mapping) -> Option<Self> {
        (page.len() >= PAGE_SIZE).then(|| Self {
            base: page.base().cast(),
            _owner: mapping,
        })
    }

    /// Copies bytes out of the page: `out.len()` of them from `offset` on.
    ///
    /// # Errors
    ///
    /// [`OutsidePage`], and nothing is copied, when the range does not lie inside the page.
    pub fn copy_from(&self, offset: usize, out: &mut [u8]) -> Result<(), OutsidePage> {
        check(offset, out.len())?;
        // SAFETY: the range has been checked to lie inside the page, which is mapped while `_owner` lives; `out` is an
        // exclusively borrowed slice of as many bytes, which nothing in the page can overlap.
        unsafe { bulk::copy(self.byte(offset), out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Copies bytes into the page: all of `bytes`, to `offset` and on.
    ///
    /// # Errors
    ///
    /// [`OutsidePage`], and nothing is copied, when the range does not lie inside the page.
    pub fn copy_to(&self, offset: usize, bytes: &[u8]) -> Result<(), OutsidePage> {
        check(offset, bytes.len())?;
        // SAFETY: the range has been checked to lie inside the page, which is mapped writable while `_owner` lives;
        // `bytes` is a slice of as many bytes, which nothing in the page can overlap.
        unsafe { bulk::copy(bytes.as_ptr(), self.byte(offset), bytes.len()) };
        Ok(())
    }

    /// The address of the word at `offset`, masked into the page.
    #[inline]
    fn word(&self, offset: usize) -> *mut u32 {
        debug_assert!(
            offset.is_multiple_of(4) && offset < PAGE_SIZE,
            "offset {offset}"
        );
        let start: *mut u32 = self.base.as_ptr().cast();
        let index = (offset % PAGE_SIZE) / 4;
        // SAFETY: index <= 1023, so the result stays within the 4096 mapped bytes at `base`.
        unsafe { start.add(index) }
    }

    #[inline]
    fn byte(&self, offset: usize) -> *mut u8 {
        let start: *mut u8 = self.base.as_ptr().cast();
        // SAFETY: the offset is reduced below 4096, within the 4096 mapped bytes at `base`.
        unsafe { start.add(offset % PAGE_SIZE) }
    }

    #[inline]
    fn atomic(&self, offset: usize) -> &AtomicU32 {
        let word = self.word(offset);
        // SAFETY: `word` is inside the page, 4-aligned, and mapped while `_owner`, hence `self`,
        // lives; our side makes atomic accesses only to index words while it runs as a ring.
        unsafe { AtomicU32::from_ptr(word) }
    }
}

impl Page for SharedPage {
    #[inline]
    fn load(&self, offset: usize, order: Ordering) -> u32 {
        self.atomic(offset).load(order)
    }

    #[inline]
    fn store(&self, offset: usize, value: u32, order: Ordering) {
        self.atomic(offset).store(value, order);
    }

    #[inline]
    fn read_words<const N: usize>(&self, offset: usize) -> [u32; N] {
        std::array::from_fn(|i| {
            let word = self.word(offset + 4 * i);
            // SAFETY: `word` is inside the page, 4-aligned, mapped while `_owner` lives; any bit
            // pattern is a u32; volatile, since the guest may write.
            unsafe { word.read_volatile() }
        })
    }

    #[inline]
    fn write_words<const N: usize>(&self, offset: usize, words: [u32; N]) {
        for (i, value) in words.into_iter().enumerate() {
            let word = self.word(offset + 4 * i);
            // SAFETY: `word` is inside the page, 4-aligned, mapped writable while `_owner` lives;
            // no Rust reference to plain data of the page exists.
            unsafe { word.write_volatile(value) }
        }
    }
}

impl fmt::Debug for SharedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedPage")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// What may be done with a page that stays mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it. The mapping itself allows no more, so a write would end the process.
    ReadOnly,
    /// Read and write it.
    ReadWrite,
}

/// A packet page that a guest lets us keep mapped (netif.h, "Static Grants"). Where it is mapped
/// for reading only, there is no way to write to it.
#[derive(Clone, Debug)]
pub struct StaticPage {
    page: SharedPage,
    access: Access,
}

impl StaticPage {
    /// Takes charge of a page that has been mapped with `access`.
    #[must_use]
    pub const fn new(page: SharedPage, access: Access) -> Self {
        Self { page, access }
    }

    /// What may be done with it.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// As [`SharedPage::copy_from`].
    ///
    /// # Errors
    ///
    /// [`OutsidePage`], and nothing is copied.
    #[inline]
    pub fn copy_from(&self, offset: usize, out: &mut [u8]) -> Result<(), OutsidePage> {
        self.page.copy_from(offset, out)
    }

    /// The page for writing, if it may be written to.
    #[inline]
    #[must_use]
    pub const fn writable(&self) -> Option<&SharedPage> {
        match self.access {
            Access::ReadWrite => Some(&self.page),
            Access::ReadOnly => None,
        }
    }
}

/// A byte range that does not lie inside the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at offset {offset} do not lie inside a page of {PAGE_SIZE} bytes")]
pub struct OutsidePage {
    /// First byte.
    pub offset: usize,
    /// How many bytes.
    pub len: usize,
}

/// A range inside the page may be empty, and then begin at its end.
fn check(offset: usize, len: usize) -> Result<(), OutsidePage> {
    match offset.checked_add(len) {
        Some(end) if end <= PAGE_SIZE => Ok(()),
        _ => Err(OutsidePage { offset, len }),
    }
}

/// Copies between guest-shared and private memory as the hypervisor does: while the guest may be writing.
mod bulk {
    /// One instruction that the compiler knows nothing about: like a volatile access, it is no data race in the
    /// language's eyes, and the processor moves whole cache lines.
    ///
    /// # Safety
    ///
    /// `from` must be valid for reads and `to` for writes of `len` bytes, and the two must not overlap.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline]
    pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: reads `len` bytes at `from` and writes as many at `to`, both valid by the caller's promise; the
        // direction flag is clear, as the calling convention demands; no stack is used and no flag changed.
        unsafe {
            std::arch::asm!(
                "rep movsb",
                inout("rcx") len => _,
                inout("rsi") from => _,
                inout("rdi") to => _,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Byte by byte.
    ///
    /// # Safety
    ///
    /// `from` must be valid for reads and `to` for writes of `len` bytes, and the two must not overlap.
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    #[inline]
    pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
        for at in 0..len {
            // SAFETY: `at` is less than `len`, for which `from` is valid by the caller's promise.
            let from = unsafe { from.add(at) };
            // SAFETY: as above, for `to`.
            let to = unsafe { to.add(at) };
            // SAFETY: valid for reading as said; any bit pattern is a u8; volatile, since the guest may write.
            let byte = unsafe { from.read_volatile() };
            // SAFETY: valid for writing as said; volatile, since the guest may read and write.
            unsafe { to.write_volatile(byte) };
        }
    }
}

#[cfg(test)]
mod tests;
