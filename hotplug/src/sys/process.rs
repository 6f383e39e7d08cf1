// SPDX-License-Identifier: MIT OR Apache-2.0
//! What it takes to learn that a child has ended, and how: pidfd_open, a descriptor that becomes readable then; and
//! an end of the order not to be told.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

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

/// Has the kernel keep how children end until they are waited for. Where SIGCHLD is ignored, as a process may be
/// started, it reaps them itself, and waitpid fails (sigaction(2), waitpid(2)). A handler of that signal stays.
pub(crate) fn keep_exit_statuses() -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action sigaction(2) only writes the present one to the place given, which has room for it.
    let asked = unsafe { libc::sigaction(libc::SIGCHLD, ptr::null(), action.as_mut_ptr()) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, and so has written it.
    let mut action = unsafe { action.assume_init() };
    if action.sa_sigaction == libc::SIG_IGN {
        action.sa_sigaction = libc::SIG_DFL;
    }
    action.sa_flags &= !libc::SA_NOCLDWAIT;
    // SAFETY: the action is the one in force, with the default in place of ignoring: no function is made a handler
    // that was not one. The old action is not asked for.
    let set = unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, ptr::null_mut()) };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
