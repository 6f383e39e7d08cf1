// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/dev/xen/gntalloc`: memory of ours that the hypervisor knows by grant references.
//!
//! A grant copy names our side by an address or by a grant. For an address the kernel has to find
//! and pin the page anew with each operation, which in a PV dom0 costs more than the copy; pages
//! granted once, by this domain to itself, spare it that. Called when a worker starts, by
//! [`XenGrants`](super::XenGrants). A frontend in user space, which the tests run in real guests, grants
//! its pages to its backend in the same way ([`grant_pages`]). Structures and numbers are Linux's
//! `xen/gntalloc.h`, asserted below.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::mapped::{Arena, Mapping};
use super::{ioctl_number, open_device};
use crate::error::SysError;
use crate::ids::{DomId, GrantRef};
use crate::layout::PAGE_SIZE;
use crate::page::{Access, SharedPage};

const DEVICE: &str = "/dev/xen/gntalloc";

/// An arena of whole pages for `bytes` bytes, each granted to `own`, which is this domain itself.
///
/// # Errors
///
/// [`SysError`] when there is no such device, or no more of its pages: Linux gives out 1024 of
/// them unless told otherwise (`xen_gntalloc.limit`).
pub(crate) fn granted_arena(own: DomId, bytes: usize) -> Result<Arena, SysError> {
    let Granted {
        memory,
        refs,
        device,
    } = Granted::allocate(own, bytes.div_ceil(PAGE_SIZE), Access::ReadWrite)?;
    Ok(Arena::granted(memory, own, &refs, device))
}

/// So many pages of zeroes that domain `backend` may access so, each with its reference. The grants
/// end when the last of the pages is dropped, and when the process ends.
///
/// # Errors
///
/// [`SysError`] when there is no such device, or no more of its pages (`xen_gntalloc.limit`).
pub fn grant_pages(
    backend: DomId,
    count: usize,
    access: Access,
) -> Result<Vec<(SharedPage, GrantRef)>, SysError> {
    let Granted {
        memory,
        refs,
        device,
    } = Granted::allocate(backend, count, access)?;
    Ok(SharedPage::all_of(memory, device)
        .into_iter()
        .zip(refs)
        .collect())
}

/// Pages of ours and the grants of them, which `device` keeps.
struct Granted {
    memory: Mapping,
    refs: Box<[GrantRef]>,
    device: OwnedFd,
}

impl Granted {
    fn allocate(to: DomId, pages: usize, access: Access) -> Result<Self, SysError> {
        let device = open_device(DEVICE, OFlag::empty())?;
        let mut request = Request::new(to, pages, access)?;
        // SAFETY: the fd is open; the kernel reads the head of the request and writes the index and
        // `count` references behind it, for which `Request::new` has made room.
        let outcome = unsafe { raw::alloc_gref(device.as_raw_fd(), request.words.as_mut_ptr()) };
        outcome.map_err(failed("IOCTL_GNTALLOC_ALLOC_GREF"))?;
        let memory = i64::try_from(request.index())
            .map_err(|_| Errno::EOVERFLOW)
            .and_then(|index| {
                Mapping::shared(device.as_fd(), pages * PAGE_SIZE, index, Access::ReadWrite)
            })
            .map_err(failed("mmap of /dev/xen/gntalloc"))?;
        Ok(Self {
            memory,
            refs: request.refs(),
            device,
        })
    }
}

fn failed(operation: &'static str) -> impl Fn(Errno) -> SysError {
    move |errno| SysError::Call { operation, errno }
}

/// `struct ioctl_gntalloc_alloc_gref` in words of four bytes: domain and flags, count, the index
/// in two (written by the kernel), and as many references (also written) as pages were asked for.
struct Request {
    words: Vec<u32>,
}

const WRITABLE: u32 = 1;
const HEAD_WORDS: usize = 4;
const WORD: usize = size_of::<u32>();

impl Request {
    fn new(to: DomId, pages: usize, access: Access) -> Result<Self, SysError> {
        let count = u32::try_from(pages)
            .map_err(|_| Errno::EINVAL)
            .map_err(failed("IOCTL_GNTALLOC_ALLOC_GREF"))?;
        let flags = match access {
            Access::ReadOnly => 0,
            Access::ReadWrite => WRITABLE,
        };
        let mut words = vec![u32::from(to.raw()) | flags << 16, count];
        // At least the one reference that the structure is declared with.
        words.resize(HEAD_WORDS + pages.max(1), 0);
        Ok(Self { words })
    }

    fn index(&self) -> u64 {
        match self.words.as_slice() {
            [_, _, low, high, ..] => u64::from(*low) | u64::from(*high) << 32,
            _ => 0,
        }
    }

    fn refs(&self) -> Box<[GrantRef]> {
        let refs = self.words.iter().skip(HEAD_WORDS);
        refs.map(|word| GrantRef::new(*word)).collect()
    }
}

/// Two u16, a u32, a u64 and one u32, padded to the alignment of the u64.
const ALLOC_GREF: u32 = ioctl_number(b'G', 5, (HEAD_WORDS + 2) * WORD);

const _: () = assert!(ALLOC_GREF == 0x18_4705);

/// The raw call; the module keeps nix's generated `pub` function from being part of anything.
mod raw {
    #![allow(
        missing_docs,
        reason = "nix's macro writes pub functions; they stay private here"
    )]
    use super::ALLOC_GREF;
    nix::ioctl_readwrite_bad!(alloc_gref, ALLOC_GREF, u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_has_it() {
        let read_only = Request::new(DomId::new(5), 3, Access::ReadOnly).unwrap();
        assert_eq!(read_only.words, [5, 3, 0, 0, 0, 0, 0]);
        let mut request = Request::new(DomId::new(5), 3, Access::ReadWrite).unwrap();
        assert_eq!(request.words, [0x1_0005, 3, 0, 0, 0, 0, 0]);
        request.words[2..].copy_from_slice(&[0x1000, 1, 7, 8, 9]);
        assert_eq!(request.index(), 0x1_0000_1000);
        assert_eq!(*request.refs(), [7, 8, 9].map(GrantRef::new));
    }
}
