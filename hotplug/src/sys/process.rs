// SPDX-License-Identifier: MIT OR Apache-2.0
//! pidfd_open: a descriptor that becomes readable when a process exits.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A pidfd of `pid`, close-on-exec. `pid` must be an unreaped child, or it may have come to mean another process.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers, touches no memory of ours, and for a pid that does not exist returns
    // an error.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_pidfd_open,
            libc::c_ulong::from(pid),
            0 as libc::c_ulong,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a successful pidfd_open returns a descriptor that was opened for this caller and that nobody else owns;
    // it is open.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
