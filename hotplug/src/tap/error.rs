// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong with a tap, in words that an administrator can act on. Where a system call failed, the kernel's
//! error is behind it. The callers of [`Tap`](super::Tap) see these.

use std::io;

/// Why a tap could not be made, changed or asked.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// Not a valid interface name.
    #[error("cannot make a tap: {0}")]
    BadName(#[source] io::Error),
    /// /dev/net/tun is missing.
    #[error("/dev/net/tun cannot be opened: {0}; load the tun module (modprobe tun)")]
    NoTun(#[source] io::Error),
    /// No right to make network interfaces.
    #[error(
        "no permission to {doing}: {source}; netback needs CAP_NET_ADMIN and access to /dev/net/tun (run it as root)"
    )]
    Permission {
        /// What was tried.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Somebody else is attached to a tap of this name.
    #[error(
        "the tap {0:?} is held by another process: end that process, or remove the tap (ip link delete {0})"
    )]
    Busy(String),
    /// The name belongs to an interface that is no tap, or to a tap of another kind.
    #[error(
        "an interface {0:?} exists and is not a tap that netback can take over: remove it (ip link delete {0})"
    )]
    NotOurs(String),
    /// A further queue is wanted of a tap that was made for one.
    #[error("the tap can have one queue only; detach the vif and attach it again")]
    OneQueue,
    /// Another system call failed.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl TapError {
    /// The kernel's error behind this one, where there is one.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::BadName(e) | Self::NoTun(e) => Some(e),
            Self::Permission { source, .. } | Self::System { source, .. } => Some(source),
            Self::Busy(_) | Self::NotOurs(_) | Self::OneQueue => None,
        }
    }

    /// Whether the kernel does not know what was asked of it, being older than that.
    #[must_use]
    pub fn is_unknown_to_the_kernel(&self) -> bool {
        let error = self.io().and_then(io::Error::raw_os_error);
        matches!(error, Some(libc::ENOTTY | libc::EINVAL))
    }

    /// As [`is_gone`], of what is behind this error.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.io().is_some_and(is_gone)
    }

    pub(super) fn of(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission { doing, source },
            _ => Self::System { doing, source },
        }
    }
}

/// Whether `error`, from any operation on a tap, means that the interface is gone for good: it was deleted, or the
/// network namespace it had been moved to went away. The descriptor is then of no more use (EBADFD).
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}
