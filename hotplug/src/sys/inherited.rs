// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors that the service manager has passed at the start of the process (sd_listen_fds(3)), of which nothing but
//! their numbers is told.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// What the service manager has passed to this process, or kept for it from one before (systemd's file descriptor
/// store), each with its name, close-on-exec: all of it the first time, and nothing later.
///
/// # Errors
///
/// The environment says what cannot be: descriptors that are not open, or more or fewer names than descriptors.
pub fn inherited() -> io::Result<Vec<(String, OwnedFd)>> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names()?;
    let own = |(fd, name)| {
        // SAFETY: the descriptor is open: `listen_fds_with_names` has just set a flag of it. Nobody else owns it: the
        // environment says, of this process by its number, that it was passed for the process to take, and it is taken
        // once, since TAKEN was not set before.
        (name, unsafe { OwnedFd::from_raw_fd(fd) })
    };
    Ok(passed.map(own).collect())
}
