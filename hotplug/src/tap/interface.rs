// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network interface of a tap, as it is now: scripts rename it, change it and move it to other network
//! namespaces. Everything here starts from the descriptor, which knows the interface wherever it is; the calling thread
//! stays where it is. Called by the daemon's control thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Tap, TapError};
use crate::link;
use crate::mac::MacAddr;
use crate::sys::tun;

impl Tap {
    /// The interface's current name, which a script may have changed, in whatever network namespace it is now.
    pub fn name(&self) -> io::Result<String> {
        Ok(tun::interface(self.fd.as_fd())?.name())
    }

    /// The host-side address.
    pub fn mac(&self) -> io::Result<MacAddr> {
        tun::mac(self.fd.as_fd())
    }

    /// The interface's index in the network namespace where it is now.
    pub fn ifindex(&self) -> io::Result<u32> {
        self.at_link(link::index)
    }

    /// The interface's MTU in bytes, which a script may have changed.
    pub fn mtu(&self) -> io::Result<u32> {
        self.at_link(link::mtu)
    }

    /// The interface as it is set now, by whoever may have changed it.
    pub fn link(&self) -> io::Result<link::Link> {
        self.at_link(link::look)
    }

    /// Frames for the tap's reader that have been dropped since the tap was made ([`link::tx_dropped`]).
    pub fn dropped(&self) -> io::Result<u64> {
        self.at_link(link::tx_dropped)
    }

    /// Sets the interface's MTU.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), TapError> {
        self.at_link(move |name| link::set_mtu(name, mtu))
            .map_err(TapError::of(format!("set the MTU of a tap to {mtu}")))
    }

    /// Does `what` with the interface's current name, in the network namespace where it is now; or here, if it cannot be
    /// seen where that is.
    pub(super) fn at_link<T: Send>(
        &self,
        what: impl FnOnce(&str) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let name = self.name()?;
        match self.namespace()? {
            Some(there) => at(there, || what(&name)),
            None => what(&name),
        }
    }

    /// As [`at_link`](Self::at_link), for what must not be done to another interface of that name: nothing, if it cannot
    /// be seen where this one is.
    pub(super) fn at_known_link(
        &self,
        what: impl FnOnce(&str) -> io::Result<()> + Send,
    ) -> io::Result<()> {
        let name = self.name()?;
        match self.namespace()? {
            Some(there) => at(there, || what(&name)),
            None => Ok(()),
        }
    }

    /// The network namespace where the interface is now. `None` if it cannot be seen: before Linux 5.3, and when it is
    /// another user namespace's.
    fn namespace(&self) -> io::Result<Option<OwnedFd>> {
        match tun::net_namespace(self.fd.as_fd()) {
            Ok(there) => Ok(Some(there)),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINVAL | libc::ENOTTY | libc::EPERM) => Ok(None),
                _ => Err(error),
            },
        }
    }
}

/// Does `what` in a network namespace.
fn at<T: Send>(there: OwnedFd, what: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let here = std::fs::File::open("/proc/thread-self/ns/net")?;
    if same_namespace(here.as_fd(), there.as_fd())? {
        return what();
    }
    // The namespace is a thread's; this one must stay where it is, so another goes there.
    std::thread::scope(|scope| {
        let visitor = std::thread::Builder::new().name("netns".into());
        let visit = visitor.spawn_scoped(scope, || {
            nix::sched::setns(there, nix::sched::CloneFlags::CLONE_NEWNET)?;
            what()
        })?;
        let died = |_| io::Error::other("the thread that entered a network namespace died");
        visit.join().map_err(died)?
    })
}

fn same_namespace(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    let (a, b) = (nix::sys::stat::fstat(a)?, nix::sys::stat::fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}
