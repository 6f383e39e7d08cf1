// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory mappings that unmap themselves, and the arena of a copy batch.
//!
//! A [`Mapping`] only owns an address range; how it may be accessed is for its user to say:
//! [`crate::page::SharedPage`] (shared with a guest: atomics and volatile copies only) or
//! [`Arena`] (private memory: ordinary slices).

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::error::SysError;
use crate::ids::{DomId, GrantRef};
use crate::layout::PAGE_SIZE;
use crate::page::Access;
use crate::sys::segments::{GRANTED_OFFSET, granted};

static FAILED_UNMAPS: AtomicU64 = AtomicU64::new(0);

/// How many mappings or grants of this process could not be released since it started. Anything
/// but 0 is a bug or a kernel problem, and memory that stays occupied until the process ends.
#[must_use]
pub fn failed_unmaps() -> u64 {
    FAILED_UNMAPS.load(Ordering::Relaxed)
}

/// Counts the failure of a release in a destructor, where there is no caller to tell.
pub(crate) fn count_unmap<T>(outcome: Result<T, Errno>) {
    if outcome.is_err() {
        FAILED_UNMAPS.fetch_add(1, Ordering::Relaxed);
    }
}

/// An address range from `mmap`, readable and, unless it was asked for otherwise, writable;
/// released when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and `Mapping` itself accesses none
// of its memory.
unsafe impl Send for Mapping {}
// SAFETY: as for Send; `&Mapping` gives out addresses only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Private zeroed memory, faulted in at once so that no access has to wait for it later.
    pub(crate) fn anonymous(len: usize) -> Result<Self, SysError> {
        let len = nonzero(len)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
        // SAFETY: without MAP_FIXED the kernel picks an unused range; nothing existing changes.
        let mapped = unsafe { mmap_anonymous(None, len, READ_WRITE, flags) };
        let base = mapped.map_err(|errno| SysError::Call {
            operation: "mmap",
            errno,
        })?;
        Ok(Self { base, len })
    }

    /// A shared mapping of a file or device, from `offset` on. gntdev takes from the protection
    /// whether it is to map a grant for reading only.
    pub(crate) fn shared(
        fd: BorrowedFd<'_>,
        len: usize,
        offset: i64,
        access: Access,
    ) -> Result<Self, Errno> {
        let len = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let protection = match access {
            Access::ReadOnly => ProtFlags::PROT_READ,
            Access::ReadWrite => READ_WRITE,
        };
        // SAFETY: without MAP_FIXED the kernel picks an unused range; nothing existing changes.
        let base = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, fd, offset) }?;
        Ok(Self { base, len })
    }

    /// The first address: aligned to the system's page size, hence to 4096.
    pub(crate) const fn base(&self) -> NonNull<c_void> {
        self.base
    }

    /// The first address as a number. Its provenance is exposed, since the kernel gets it so.
    pub(crate) fn address(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    /// Length in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len.get()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range came from mmap with this length and is unmapped only here; whoever
        // was given its address keeps the Mapping alive as long as they use it.
        count_unmap(unsafe { munmap(self.base, self.len.get()) });
    }
}

/// Ordinary private memory, page aligned and faulted in, that the kernel copies to and from while
/// nobody else looks at it. Never shared with a guest, so slices of it are sound.
#[derive(Debug)]
pub(crate) struct Arena {
    memory: Mapping,
    /// What the caller asked for; the mapping may be longer by the rest of a page.
    len: usize,
    names: Names,
}

/// What the hypervisor knows an arena's bytes by, as it stands in a [segment](super::segments):
/// virtual addresses, of which the kernel finds the pages, or bytes of pages that are granted to
/// ourselves. Both are the name of a page, and in it the place of the byte within the page.
#[derive(Debug)]
struct Names {
    /// Of each page, and of the end.
    pages: Box<[u64]>,
    /// Where in a name the place within the page begins, in bits.
    place: u32,
    /// Keeps the grants; `None` for addresses, and in tests.
    _device: Option<OwnedFd>,
}

impl Names {
    /// `count` pages from this address on.
    fn addresses(first: u64, count: usize) -> Self {
        let pages = (0..=count as u64).map(|page| first + page * PAGE_SIZE as u64);
        Self {
            pages: pages.collect(),
            place: 0,
            _device: None,
        }
    }

    /// Pages that are granted to `own`.
    fn grants(own: DomId, refs: &[GrantRef], device: Option<OwnedFd>) -> Self {
        // The end has no page; no byte of the last one stands for it.
        let end = refs.last();
        let pages = refs.iter().chain(end);
        Self {
            pages: pages.map(|gref| granted(own, *gref, 0)).collect(),
            place: GRANTED_OFFSET,
            _device: device,
        }
    }
}

impl Arena {
    /// Maps `len` bytes.
    pub(crate) fn new(len: usize) -> Result<Self, SysError> {
        let memory = Mapping::anonymous(len)?;
        let names = Names::addresses(memory.address(), len.div_ceil(PAGE_SIZE));
        Ok(Self { memory, len, names })
    }

    /// Takes pages that are granted to `own`, this domain itself: one reference for each, valid
    /// as long as `device` is open.
    pub(crate) fn granted(memory: Mapping, own: DomId, refs: &[GrantRef], device: OwnedFd) -> Self {
        Self {
            len: memory.len().min(refs.len() * PAGE_SIZE),
            memory,
            names: Names::grants(own, refs, Some(device)),
        }
    }

    /// The address that a grant copy uses for the byte at `at`, or the grant where the arena is
    /// granted. `at` must lie inside or be the end.
    #[inline]
    pub(crate) fn name(&self, at: usize) -> u64 {
        let page = self.names.pages.get(at / PAGE_SIZE);
        // If `at` lies outside: the address is outside the mapping, or the grant is not valid.
        page.copied().unwrap_or_default() | ((at % PAGE_SIZE) as u64) << (self.names.place % 64)
    }

    /// Whether its bytes are known by grants.
    #[inline]
    pub(crate) const fn is_granted(&self) -> bool {
        self.names.place == GRANTED_OFFSET
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The address of the first byte, for the kernel.
    pub(crate) fn address(&self) -> u64 {
        self.memory.address()
    }

    #[cfg(test)]
    pub(crate) fn of_granted_pages(own: DomId, refs: &[GrantRef]) -> Self {
        Self {
            names: Names::grants(own, refs, None),
            ..Self::new(refs.len() * PAGE_SIZE).unwrap()
        }
    }

    /// All bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        let start: *const u8 = self.memory.base().as_ptr().cast();
        // SAFETY: `len` mapped, initialised (zeroed by mmap) bytes; `&self` keeps them mapped,
        // and the kernel writes to them only while the batch is borrowed mutably.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }

    /// All bytes, for writing.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        let start: *mut u8 = self.memory.base().as_ptr().cast();
        // SAFETY: as in `as_slice`; `&mut self` makes this the only reference to them.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }

    /// The bytes of a range, `None` if it does not lie inside.
    pub(crate) fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        self.as_slice().get(range)
    }

    /// The bytes of a range for writing, `None` if it does not lie inside.
    pub(crate) fn get_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        self.as_mut_slice().get_mut(range)
    }
}

const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

fn nonzero(len: usize) -> Result<NonZeroUsize, SysError> {
    NonZeroUsize::new(len).ok_or(SysError::Call {
        operation: "mmap",
        errno: Errno::EINVAL,
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::{Arena, Mapping, PAGE_SIZE};
    use crate::page::{Access, StaticPage};

    #[test]
    fn a_shared_mapping_is_the_file() {
        let fd = memfd_create(c"ring-test", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, 2 * 4096).unwrap();
        let mapping = std::sync::Arc::new(
            Mapping::shared(fd.as_fd(), PAGE_SIZE, 4096, Access::ReadWrite).unwrap(),
        );
        let page = crate::SharedPage::of_mapping(mapping.clone(), &mapping).unwrap();
        page.copy_to(10, b"hello").unwrap();
        let mut seen = [0; 5];
        nix::sys::uio::pread(&fd, &mut seen, 4096 + 10).unwrap();
        assert_eq!(&seen, b"hello");
    }

    /// The kernel refuses to map a file for writing that is open for reading only, and does map it
    /// for reading: so the protection is what was asked for.
    #[test]
    fn a_mapping_for_reading_does_not_ask_for_more() {
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let refused = Mapping::shared(file.as_fd(), PAGE_SIZE, 0, Access::ReadWrite);
        assert_eq!(refused.unwrap_err(), nix::errno::Errno::EACCES);
        let mapping = Mapping::shared(file.as_fd(), PAGE_SIZE, 0, Access::ReadOnly).unwrap();
        let mapping = std::sync::Arc::new(mapping);
        let page = crate::SharedPage::of_mapping(mapping.clone(), &mapping).unwrap();
        let mut magic = [0; 4];
        let page = StaticPage::new(page, Access::ReadOnly);
        page.copy_from(0, &mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
    }

    #[test]
    fn an_arena_is_zero_page_aligned_and_bounded() {
        let mut arena = Arena::new(5000).unwrap();
        assert_eq!(arena.address() % 4096, 0);
        assert_eq!(arena.get(0..5000).unwrap(), vec![0; 5000]);
        assert_eq!(arena.get(0..5001), None);
        assert_eq!(arena.get_mut(4999..5001), None);
        arena.get_mut(4999..5000).unwrap().fill(7);
        assert_eq!(arena.get(4998..5000).unwrap(), [0, 7]);
    }

    #[test]
    fn impossible_lengths_are_errors() {
        assert!(Mapping::anonymous(0).is_err());
        assert!(Mapping::anonymous(usize::MAX).is_err());
    }
}
