// SPDX-License-Identifier: GPL-3.0-or-later
//! Why the daemon cannot start, or had to end, in words for whoever reads its log.

use std::io;

use crate::control::server::BindError;
use crate::worker::StartError;

/// Why the daemon cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No store.
    #[error(
        "cannot use xenstore: {0}; is xenstored running (systemctl status xenstored; on Debian: xen), and is this dom0 or a driver domain?"
    )]
    Store(#[source] io::Error),
    /// No workers.
    #[error(transparent)]
    Workers(#[from] StartError),
    /// No control socket.
    #[error(transparent)]
    Control(#[from] BindError),
    /// No word of changes to taps.
    #[error("cannot listen to the kernel over rtnetlink: {0}")]
    Links(#[source] io::Error),
    /// The event loop.
    #[error("the event loop failed: {0}")]
    Loop(#[source] io::Error),
    /// A worker has ended, and with it the service of its vifs. A daemon that is started anew takes
    /// up all of them.
    #[error("worker {number} has ended: {source}")]
    Worker {
        /// As in its thread's name.
        number: usize,
        /// Why.
        source: io::Error,
    },
}
