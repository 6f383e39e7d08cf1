// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls: memory mappings, and the ioctls of Xen's three device nodes (gntdev, gntalloc,
//! evtchn).
//!
//! Thin by intent: each file makes one kernel interface safe and decides nothing. Together with
//! [`crate::page`] this is all the `unsafe` that the crate has.
#![allow(unsafe_code, reason = "system calls; each block names its invariants")]

pub(crate) mod evtchn;
pub(crate) mod gntalloc;
pub(crate) mod gntdev;
pub(crate) mod mapped;
pub(crate) mod segments;

use crate::error::SysError;
use crate::hyper::Hypervisor;

pub use evtchn::XenEventChannels;
pub use gntalloc::grant_pages;
pub use gntdev::XenGrants;
pub use mapped::failed_unmaps;

/// The real hypervisor, through `/dev/xen/gntdev` and `/dev/xen/evtchn`.
#[derive(Clone, Copy, Debug, Default)]
pub struct XenHypervisor;

impl Hypervisor for XenHypervisor {
    type Grants = XenGrants;
    type EventChannels = XenEventChannels;

    fn open_grants(&self) -> Result<XenGrants, SysError> {
        XenGrants::open()
    }

    fn open_event_channels(&self) -> Result<XenEventChannels, SysError> {
        XenEventChannels::open()
    }
}

/// Composes the number of an ioctl of the Xen device nodes: no direction bits, the size of the
/// argument, the letter, the number (Linux `_IOC(_IOC_NONE, letter, nr, size)`).
const fn ioctl_number(letter: u8, nr: u8, size: usize) -> u32 {
    assert!(
        size < 1 << 14,
        "an ioctl argument has at most 14 bits of size"
    );
    #[expect(clippy::cast_possible_truncation, reason = "checked above: 14 bits")]
    let size = size as u32;
    size << 16 | (letter as u32) << 8 | nr as u32
}

/// Opens a device node for reading and writing, closed on exec.
fn open_device(path: &str, flags: nix::fcntl::OFlag) -> Result<std::os::fd::OwnedFd, SysError> {
    use nix::fcntl::OFlag;
    let flags = flags | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()).map_err(|errno| SysError::Open {
        path: path.to_owned(),
        errno,
    })
}
