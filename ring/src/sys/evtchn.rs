// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/dev/xen/evtchn`: event channels as one descriptor.
//!
//! Reading yields the ports that became pending, each masked from then on; writing ports unmasks
//! them. The kernel's queue has no size that we could set. Should it overflow all the same, it is
//! reset and *every* bound port is reported, so that no event is lost and no caller has to know.
//! Numbers are Linux's `xen/evtchn.h`, asserted below.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{ioctl_number, open_device};
use crate::error::SysError;
use crate::hyper::EventChannels;
use crate::ids::{DomId, LocalPort, RemotePort};

const DEVICE: &str = "/dev/xen/evtchn";
const PORT_BYTES: usize = size_of::<u32>();
/// The most that the device transfers in one call.
const TRANSFER_BYTES: usize = 4096;

/// Event channels through the kernel. Dropping it closes all of them.
#[derive(Debug)]
pub struct XenEventChannels {
    fd: OwnedFd,
    bound: Vec<LocalPort>,
}

impl XenEventChannels {
    /// Opens `/dev/xen/evtchn`.
    ///
    /// # Errors
    ///
    /// [`SysError::Open`].
    pub fn open() -> Result<Self, SysError> {
        Ok(Self::over(open_device(DEVICE, OFlag::O_NONBLOCK)?))
    }

    /// Allocates a port that domain `peer` may bind: what a frontend does. Its number goes to
    /// xenstore; for the peer it is a [`RemotePort`].
    ///
    /// # Errors
    ///
    /// The kernel or the hypervisor refuses.
    pub fn allocate(&mut self, peer: DomId) -> Result<LocalPort, SysError> {
        let mut arg = BindUnbound {
            domain: u32::from(peer.raw()),
        };
        // SAFETY: the fd is open; `arg` is the structure of this request and lives across the
        // call.
        let outcome = unsafe { raw::bind_unbound(self.fd.as_raw_fd(), &raw mut arg) };
        let port = outcome.and_then(|port| u32::try_from(port).map_err(|_| Errno::EINVAL));
        let port = LocalPort::new(port.map_err(|errno| SysError::Call {
            operation: "IOCTL_EVTCHN_BIND_UNBOUND_PORT",
            errno,
        })?);
        self.bound.push(port);
        Ok(port)
    }

    const fn over(fd: OwnedFd) -> Self {
        Self {
            fd,
            bound: Vec::new(),
        }
    }

    /// Empties the kernel's queue after an overflow and reports all ports in its place.
    fn recover(&mut self, out: &mut Vec<LocalPort>) -> Result<(), SysError> {
        // SAFETY: the fd is open and the request has no argument.
        let outcome = unsafe { raw::reset(self.fd.as_raw_fd()) };
        check("IOCTL_EVTCHN_RESET", outcome)?;
        out.extend_from_slice(&self.bound);
        Ok(())
    }
}

impl AsFd for XenEventChannels {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl EventChannels for XenEventChannels {
    fn bind(&mut self, dom: DomId, port: RemotePort) -> Result<LocalPort, SysError> {
        let mut arg = BindInterdomain {
            domain: u32::from(dom.raw()),
            port: port.raw(),
        };
        // SAFETY: the fd is open; `arg` is the structure of this request and lives across the
        // call.
        let outcome = unsafe { raw::bind_interdomain(self.fd.as_raw_fd(), &raw mut arg) };
        let local = outcome
            .and_then(|port| u32::try_from(port).map_err(|_| Errno::EINVAL))
            .map_err(|errno| SysError::Bind { dom, port, errno })?;
        let local = LocalPort::new(local);
        self.bound.push(local);
        Ok(local)
    }

    fn unbind(&mut self, port: LocalPort) -> Result<(), SysError> {
        let mut arg = Port { port: port.raw() };
        // SAFETY: the fd is open; `arg` is the structure of this request and lives across the
        // call.
        let outcome = unsafe { raw::unbind(self.fd.as_raw_fd(), &raw mut arg) };
        check("IOCTL_EVTCHN_UNBIND", outcome)?;
        self.bound.retain(|bound| *bound != port);
        Ok(())
    }

    fn notify(&self, port: LocalPort) -> Result<(), SysError> {
        let mut arg = Port { port: port.raw() };
        // SAFETY: the fd is open; `arg` is the structure of this request and lives across the
        // call.
        let outcome = unsafe { raw::notify(self.fd.as_raw_fd(), &raw mut arg) };
        check("IOCTL_EVTCHN_NOTIFY", outcome)
    }

    /// Reads until the queue is empty, as an edge-triggered poller needs. That ends: a port that
    /// has been read is masked and does not come again before it is unmasked.
    fn pending(&mut self, out: &mut Vec<LocalPort>) -> Result<(), SysError> {
        let mut buffer = [0u8; TRANSFER_BYTES];
        loop {
            match nix::unistd::read(&self.fd, &mut buffer) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
                Ok(len) => {
                    let ports = buffer.get(..len).unwrap_or_default().as_chunks().0;
                    out.extend(
                        ports
                            .iter()
                            .map(|port| LocalPort::new(u32::from_ne_bytes(*port))),
                    );
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EFBIG) => self.recover(out)?,
                Err(errno) => {
                    return Err(SysError::Call {
                        operation: "read from /dev/xen/evtchn",
                        errno,
                    });
                }
            }
        }
    }

    fn unmask(&self, ports: &[LocalPort]) -> Result<(), SysError> {
        let mut buffer = [[0u8; PORT_BYTES]; TRANSFER_BYTES / PORT_BYTES];
        for some in ports.chunks(buffer.len()) {
            for (bytes, port) in buffer.iter_mut().zip(some) {
                *bytes = port.raw().to_ne_bytes();
            }
            let bytes = buffer
                .as_flattened()
                .get(..some.len() * PORT_BYTES)
                .unwrap_or_default();
            write_all(self.fd.as_fd(), bytes)?;
        }
        Ok(())
    }
}

/// Writes all bytes; the device may take fewer than it is offered.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), SysError> {
    let failed = |errno| SysError::Call {
        operation: "write to /dev/xen/evtchn",
        errno,
    };
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(0) => return Err(failed(Errno::EIO)),
            Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}

fn check(operation: &'static str, outcome: Result<i32, Errno>) -> Result<(), SysError> {
    outcome
        .map(drop)
        .map_err(|errno| SysError::Call { operation, errno })
}

#[repr(C)]
struct BindInterdomain {
    domain: u32,
    port: u32,
}

#[repr(C)]
struct BindUnbound {
    domain: u32,
}

#[repr(C)]
struct Port {
    port: u32,
}

const BIND_INTERDOMAIN: u32 = ioctl_number(b'E', 1, size_of::<BindInterdomain>());
const BIND_UNBOUND: u32 = ioctl_number(b'E', 2, size_of::<BindUnbound>());
const UNBIND: u32 = ioctl_number(b'E', 3, size_of::<Port>());
const NOTIFY: u32 = ioctl_number(b'E', 4, size_of::<Port>());
const RESET: u32 = ioctl_number(b'E', 5, 0);

const _: () = {
    assert!(BIND_INTERDOMAIN == 0x8_4501);
    assert!(BIND_UNBOUND == 0x4_4502);
    assert!(UNBIND == 0x4_4503);
    assert!(NOTIFY == 0x4_4504);
    assert!(RESET == 0x4505);
};

/// The raw calls; the module keeps nix's generated `pub` functions from being part of anything.
mod raw {
    #![allow(
        missing_docs,
        reason = "nix's macro writes pub functions; they stay private here"
    )]
    use super::{
        BIND_INTERDOMAIN, BIND_UNBOUND, BindInterdomain, BindUnbound, NOTIFY, Port, RESET, UNBIND,
    };
    nix::ioctl_readwrite_bad!(bind_interdomain, BIND_INTERDOMAIN, BindInterdomain);
    nix::ioctl_readwrite_bad!(bind_unbound, BIND_UNBOUND, BindUnbound);
    nix::ioctl_readwrite_bad!(unbind, UNBIND, Port);
    nix::ioctl_readwrite_bad!(notify, NOTIFY, Port);
    nix::ioctl_none_bad!(reset, RESET);
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    /// A socket pair in the place of the device: same reads, same writes, no Xen.
    fn device() -> (XenEventChannels, OwnedFd) {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (ours, kernel) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        (XenEventChannels::over(ours), kernel)
    }

    #[test]
    fn pending_reads_until_there_is_no_more() {
        let (mut events, kernel) = device();
        let ports: Vec<u32> = (0..1500).collect();
        let bytes: Vec<u8> = ports.iter().flat_map(|port| port.to_ne_bytes()).collect();
        assert_eq!(nix::unistd::write(&kernel, &bytes), Ok(6000));
        let mut out = vec![LocalPort::new(77)];
        events.pending(&mut out).unwrap();
        let expected: Vec<_> = [77].into_iter().chain(ports).map(LocalPort::new).collect();
        assert_eq!(
            out, expected,
            "more than one transfer, appended to what was there"
        );
        events.pending(&mut out).unwrap();
        assert_eq!(out.len(), 1501, "nothing pending adds nothing");
    }

    #[test]
    fn unmask_writes_every_port() {
        let (events, kernel) = device();
        let ports: Vec<_> = (0..2000).map(LocalPort::new).collect();
        events.unmask(&ports).unwrap();
        let mut bytes = vec![0; 8192];
        let mut len = 0;
        while let Ok(more) = nix::unistd::read(&kernel, &mut bytes[len..]) {
            len += more;
        }
        let seen: Vec<_> = bytes[..len]
            .as_chunks()
            .0
            .iter()
            .map(|port| LocalPort::new(u32::from_ne_bytes(*port)))
            .collect();
        assert_eq!(seen, ports);
        events.unmask(&[]).unwrap();
    }

    #[test]
    fn a_refused_call_is_a_typed_error() {
        let (mut events, kernel) = device();
        let (dom, port) = (DomId::new(3), RemotePort::new(11));
        let error = events.bind(dom, port).unwrap_err();
        assert!(matches!(error, SysError::Bind { .. }), "{error:?}");
        assert!(
            error.to_string().contains("event channel 11 of domain 3"),
            "{error}"
        );
        let error = events.allocate(dom).unwrap_err();
        assert!(error.to_string().contains("BIND_UNBOUND_PORT"), "{error}");
        assert!(events.notify(LocalPort::new(1)).is_err());
        assert!(events.unbind(LocalPort::new(1)).is_err());
        let error = events.recover(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("IOCTL_EVTCHN_RESET"), "{error}");
        drop(kernel);
        assert!(
            events.unmask(&[LocalPort::new(1)]).is_err(),
            "nobody reads any more"
        );
    }
}
