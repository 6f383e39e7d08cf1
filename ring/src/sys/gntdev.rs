// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/dev/xen/gntdev`: maps the ring pages that frontends grant, and copies packet data.
//!
//! Structures and numbers are Linux's `xen/gntdev.h`; both are asserted below. The hypercall of a
//! mapping happens inside `mmap`, so that is where a bad reference is found out.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::mapped::{Mapping, count_unmap};
use super::segments::Segment;
use super::{gntalloc, ioctl_number, open_device};
use crate::copy::CopyBatch;
use crate::error::SysError;
use crate::hyper::Grants;
use crate::ids::{DomId, GrantRef};
use crate::layout::PAGE_SIZE;
use crate::page::{Access, SharedPage, StaticPage};

const DEVICE: &str = "/dev/xen/gntdev";

/// How often, and how far apart, a mapping is tried again while the guest's page is paged out.
/// Together 50 ms for a page: a guest may hold a worker thread for so long with each ring that it connects.
const MAP_ATTEMPTS: u32 = 50;
const MAP_PAUSE: Duration = Duration::from_millis(1);

/// Grant access through the kernel. Mappings stay valid after it is dropped.
#[derive(Debug)]
pub struct XenGrants {
    fd: Arc<OwnedFd>,
}

impl XenGrants {
    /// Opens `/dev/xen/gntdev`.
    ///
    /// # Errors
    ///
    /// [`SysError::Open`].
    pub fn open() -> Result<Self, SysError> {
        Ok(Self {
            fd: Arc::new(open_device(DEVICE, OFlag::empty())?),
        })
    }

    /// Reserves a place for one grant in the device's own offset space.
    fn reserve(&self, dom: DomId, gref: GrantRef) -> Result<Reservation, Errno> {
        let mut arg = MapGrantRef {
            count: 1,
            pad: 0,
            index: 0,
            refs: [Reference {
                domid: u32::from(dom.raw()),
                gref: gref.raw(),
            }],
        };
        // SAFETY: the fd is open; `arg` is the structure of this request and lives across the
        // call, which reads `count` = 1 references and writes `index`.
        unsafe { map_grant_ref(self.fd.as_raw_fd(), &raw mut arg) }?;
        Ok(Reservation {
            fd: self.fd.clone(),
            index: arg.index,
        })
    }

    /// Maps a page in at most so many attempts.
    fn map(
        &self,
        dom: DomId,
        gref: GrantRef,
        access: Access,
        attempts: u32,
    ) -> Result<SharedPage, Errno> {
        let reservation = self.reserve(dom, gref)?;
        let offset = i64::try_from(reservation.index).map_err(|_| Errno::EOVERFLOW)?;
        let mapping = retry(attempts, || {
            Mapping::shared(self.fd.as_fd(), PAGE_SIZE, offset, access)
        })?;
        let grant = Arc::new(GrantMapping {
            mapping,
            _reservation: reservation,
        });
        SharedPage::of_mapping(grant.clone(), &grant.mapping).ok_or(Errno::EINVAL)
    }
}

impl Grants for XenGrants {
    fn map_page(&self, dom: DomId, gref: GrantRef) -> Result<SharedPage, SysError> {
        self.map(dom, gref, Access::ReadWrite, MAP_ATTEMPTS)
            .map_err(|errno| SysError::MapGrant { dom, gref, errno })
    }

    fn map_static(
        &self,
        dom: DomId,
        gref: GrantRef,
        access: Access,
    ) -> Result<StaticPage, SysError> {
        self.map(dom, gref, access, 1)
            .map(|page| StaticPage::new(page, access))
            .map_err(|errno| SysError::MapGrant { dom, gref, errno })
    }

    fn batch(&self, own: DomId, ops: usize, bytes: usize) -> Result<CopyBatch, SysError> {
        match gntalloc::granted_arena(own, bytes) {
            Ok(arena) => Ok(CopyBatch::over(arena, ops)),
            // Not to be had everywhere; addresses do as well, and cost more.
            Err(refusal) => CopyBatch::refused(refusal, ops, bytes),
        }
    }

    fn copy(&self, batch: &mut CopyBatch) -> Result<(), SysError> {
        if batch.is_empty() {
            return Ok(());
        }
        let outcome = batch.with_segments(|segments| {
            let mut arg = GrantCopy {
                count: u32::try_from(segments.len()).map_err(|_| Errno::EINVAL)?,
                pad: 0,
                segments: segments.as_mut_ptr(),
            };
            // SAFETY: the fd is open; the segments are initialised and borrowed mutably; what they
            // name of ours is a range of the batch's arena (CopyBatch checks that), which the
            // borrow of the batch keeps from anybody's sight.
            unsafe { grant_copy(self.fd.as_raw_fd(), &raw mut arg) }.map(drop)
        });
        outcome.map_err(|errno| SysError::Call {
            operation: "IOCTL_GNTDEV_GRANT_COPY",
            errno,
        })
    }
}

/// Repeats a mapping while the hypervisor says that the guest's page is paged out.
fn retry<T>(attempts: u32, mut attempt: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 1..attempts {
        match attempt() {
            Err(Errno::EAGAIN) => sleep(MAP_PAUSE),
            outcome => return outcome,
        }
    }
    attempt()
}

/// A mapped grant. The fields are dropped in this order, which is the one the kernel wants:
/// munmap first, then the reservation.
#[derive(Debug)]
struct GrantMapping {
    mapping: Mapping,
    _reservation: Reservation,
}

/// A place in the device's offset space, given back when dropped.
#[derive(Debug)]
struct Reservation {
    fd: Arc<OwnedFd>,
    index: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut arg = UnmapGrantRef {
            index: self.index,
            count: 1,
            pad: 0,
        };
        // SAFETY: the fd is open (we hold it); `arg` is the structure of this request and lives
        // across the call.
        count_unmap(unsafe { unmap_grant_ref(self.fd.as_raw_fd(), &raw mut arg) });
    }
}

#[repr(C)]
struct Reference {
    domid: u32,
    gref: u32,
}

#[repr(C)]
struct MapGrantRef {
    count: u32,
    pad: u32,
    index: u64,
    refs: [Reference; 1],
}

#[repr(C)]
struct UnmapGrantRef {
    index: u64,
    count: u32,
    pad: u32,
}

#[repr(C)]
struct GrantCopy {
    count: u32,
    pad: u32,
    segments: *mut Segment,
}

const MAP_GRANT_REF: u32 = ioctl_number(b'G', 0, size_of::<MapGrantRef>());
const UNMAP_GRANT_REF: u32 = ioctl_number(b'G', 1, size_of::<UnmapGrantRef>());
const GRANT_COPY: u32 = ioctl_number(b'G', 8, size_of::<GrantCopy>());

const _: () = {
    assert!(MAP_GRANT_REF == 0x18_4700);
    assert!(UNMAP_GRANT_REF == 0x10_4701);
    assert!(GRANT_COPY == 0x10_4708);
};

/// The raw calls; the module keeps nix's generated `pub` functions from being part of anything.
mod raw {
    #![allow(
        missing_docs,
        reason = "nix's macro writes pub functions; they stay private here"
    )]
    use super::{
        GRANT_COPY, GrantCopy, MAP_GRANT_REF, MapGrantRef, UNMAP_GRANT_REF, UnmapGrantRef,
    };
    nix::ioctl_readwrite_bad!(map_grant_ref, MAP_GRANT_REF, MapGrantRef);
    nix::ioctl_readwrite_bad!(unmap_grant_ref, UNMAP_GRANT_REF, UnmapGrantRef);
    nix::ioctl_readwrite_bad!(grant_copy, GRANT_COPY, GrantCopy);
}
use raw::{grant_copy, map_grant_ref, unmap_grant_ref};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eagain_is_retried_but_not_for_ever() {
        let mut calls = 0;
        let outcome = retry(MAP_ATTEMPTS, || {
            calls += 1;
            if calls < 3 {
                Err(Errno::EAGAIN)
            } else {
                Ok(calls)
            }
        });
        assert_eq!(outcome, Ok(3));

        let mut calls = 0;
        let outcome: Result<(), _> = retry(MAP_ATTEMPTS, || {
            calls += 1;
            Err(Errno::EAGAIN)
        });
        assert_eq!((outcome, calls), (Err(Errno::EAGAIN), MAP_ATTEMPTS));

        let mut calls = 0;
        let outcome: Result<(), _> = retry(MAP_ATTEMPTS, || {
            calls += 1;
            Err(Errno::EINVAL)
        });
        assert_eq!((outcome, calls), (Err(Errno::EINVAL), 1));
    }

    /// A file that is not gntdev answers every ioctl with an error, which must come out typed.
    #[test]
    fn a_refused_ioctl_is_a_typed_error() {
        let null = open_device("/dev/null", OFlag::empty()).unwrap();
        let grants = XenGrants { fd: Arc::new(null) };
        let (dom, gref) = (DomId::new(7), GrantRef::new(9));
        let error = grants.map_page(dom, gref).unwrap_err();
        assert_eq!(
            error,
            SysError::MapGrant {
                dom,
                gref,
                errno: Errno::ENOTTY
            }
        );
        assert!(
            error
                .to_string()
                .starts_with("cannot map grant 9 of domain 7: ENOTTY")
        );

        let mut batch = CopyBatch::new(1, 4096).unwrap();
        assert_eq!(
            grants.copy(&mut batch),
            Ok(()),
            "an empty batch makes no call"
        );
        batch.from_guest(dom, gref, 0, 10, 0).unwrap();
        let error = grants.copy(&mut batch).unwrap_err();
        assert_eq!(error.errno(), Errno::ENOTTY);
        assert!(!batch.status(0).is_ok());
    }

    #[test]
    fn a_missing_node_says_what_to_do() {
        let error = open_device("/dev/xen/no-such-node", OFlag::empty()).unwrap_err();
        assert!(
            error.to_string().contains("/dev/xen/no-such-node"),
            "{error}"
        );
        assert!(
            error.to_string().contains("is this a Xen domain"),
            "{error}"
        );
    }
}
