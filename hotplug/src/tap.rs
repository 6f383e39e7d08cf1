// SPDX-License-Identifier: MIT OR Apache-2.0
//! One tap device: how it comes to be, is found again after a restart, is configured, read, written and removed.
//!
//! A tap is known by its file descriptor, never by its name: scripts rename it and move it to other network
//! namespaces, and the descriptor follows. Every frame is preceded by a virtio_net_hdr of [`VNET_HDR_LEN`] bytes,
//! little-endian. Called by the daemon's control thread; workers use clones for I/O. What is asked and set by way of the
//! interface's name is in `interface`, what can go wrong in `error`, what depends on the kernel's version in `kernel`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

mod error;
mod interface;
mod kernel;
mod writer;

use crate::link;
use crate::mac::MacAddr;
use crate::steering::Choice;
use crate::sys::ifreq::IfReq;
use crate::sys::tun;

pub use error::{TapError, is_gone};
pub use kernel::takes_udp_segments;
pub use writer::{TapWriter, WriterLost};

/// Length of the virtio_net_hdr before each frame (`virtio_net_hdr_v1`, virtio 1.0 section 5.1.6: with num_buffers).
pub const VNET_HDR_LEN: usize = 12;

/// How long to wait for a tap that somebody else holds, and how long between two looks.
const BUSY_PATIENCE: Duration = Duration::from_millis(200);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

const DEVICE: &str = "/dev/net/tun";

/// An attached tap device.
///
/// Dropping it closes the descriptor; a persistent interface stays, one that is not persistent goes with its last
/// descriptor. [`Tap::destroy`] removes a persistent one.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    created: bool,
}

/// How a tap is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapOptions {
    /// MTU in bytes, without the Ethernet header. Set on a new interface only: on one that is attached again it is
    /// what the vif script made of it.
    pub mtu: u32,
    /// Frames that the host may queue towards the reader of the tap before it drops.
    pub txqueuelen: u32,
    /// The host-side address: [`MacAddr::BACKEND`] for a vif.
    pub mac: MacAddr,
    /// The alias of an interface that has none, by which it is known again under whatever name.
    pub alias: Option<String>,
    /// Whether the interface outlives the process.
    pub persist: bool,
    /// Whether a new tap can have further queues ([`Tap::attach_queue`]). One that is attached again stays as it was
    /// made: [`Tap::is_multi_queue`] tells.
    ///
    /// It is not for free: Linux gives such a tap 256 transmit queues with a queueing discipline each, some MiB of
    /// kernel memory, however few of them are attached.
    pub multi_queue: bool,
}

impl Default for TapOptions {
    fn default() -> Self {
        Self {
            mtu: 1500,
            txqueuelen: 500,
            mac: MacAddr::BACKEND,
            alias: None,
            persist: true,
            multi_queue: false,
        }
    }
}

/// What the reader of the tap accepts instead of plain frames (TUN_F_* of <linux/if_tun.h>): frames whose checksum is
/// still to be filled in, and TCP segments larger than the MTU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TapOffload {
    /// Frames with a partial checksum (TUN_F_CSUM). Linux refuses every other flag without this one.
    pub csum: bool,
    /// TCP over IPv4 segments (TUN_F_TSO4).
    pub tso4: bool,
    /// TCP over IPv6 segments (TUN_F_TSO6).
    pub tso6: bool,
    /// Segments with the ECN bit (TUN_F_TSO_ECN).
    pub tso_ecn: bool,
}

impl TapOffload {
    fn bits(self) -> i32 {
        let flag = |on: bool, bit: i32| if on { bit } else { 0 };
        flag(self.csum, 1) | flag(self.tso4, 2) | flag(self.tso6, 4) | flag(self.tso_ecn, 8)
    }
}

impl Tap {
    /// Makes the tap `name` in the calling thread's network namespace, or attaches again to a persistent tap of that
    /// name ([`Tap::created`] tells which). A failure leaves no new interface behind.
    ///
    /// A tap that is held by somebody is waited for, for 200 ms at most: a process that was forked from its
    /// former holder has the descriptor until it has started a program of its own.
    pub fn create(name: &str, options: &TapOptions) -> Result<Self, TapError> {
        let deadline = Instant::now() + BUSY_PATIENCE;
        loop {
            match Self::try_create(name, options) {
                Err(TapError::Busy(_)) if Instant::now() < deadline => {
                    std::thread::sleep(BUSY_PAUSE);
                }
                other => return other,
            }
        }
    }

    /// As [`Tap::create`], but a tap that is held is [`TapError::Busy`] at once.
    pub fn try_create(name: &str, options: &TapOptions) -> Result<Self, TapError> {
        let request = IfReq::named(name).map_err(TapError::BadName)?;
        let asked = TapError::of("ask for network interfaces");
        let created = !link::exists(name).map_err(asked)?;
        // One with many queues would take this one, too.
        let asked = TapError::of(format!("ask for the queues of the tap {name}"));
        if !created && link::tap_queues(name).map_err(asked)? > 0 {
            return Err(TapError::Busy(name.to_owned()));
        }
        let fd = open_tun().map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => TapError::of(format!("open {DEVICE}"))(error),
            _ => TapError::NoTun(error),
        })?;
        let attach = |multi| tun::attach(fd.as_fd(), request.with_flags(tap_flags(multi)));
        let attached = match attach(options.multi_queue) {
            Err(error) if !created && error.raw_os_error() == Some(libc::EINVAL) => {
                attach(!options.multi_queue)
            }
            other => other,
        };
        attached.map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => TapError::Busy(name.to_owned()),
            Some(libc::EINVAL) if !created => TapError::NotOurs(name.to_owned()),
            _ => TapError::of(format!("create the tap {name}"))(error),
        })?;
        let tap = Self { fd, created };
        // Here, under this name, is where it has just been attached.
        tap.configure(name, options, || tap.configure_link(name, options))?;
        Ok(tap)
    }

    /// Takes up a tap that somebody has kept open: `fd` is attached to it, as it was when [`Tap::create`] had made it or
    /// attached to it. It is found under whatever name, in whatever network namespace, and the host sees no change of its
    /// carrier.
    pub fn resume(fd: OwnedFd, options: &TapOptions) -> Result<Self, TapError> {
        let tap = Self { fd, created: false };
        let asked = TapError::of("take up a tap that was kept open");
        let interface = tun::interface(tap.fd.as_fd()).map_err(asked)?;
        let name = interface.name();
        let ours = tap_flags(false);
        if interface.flags() & ours != ours {
            return Err(TapError::NotOurs(name));
        }
        tap.configure(&name, options, || {
            let outcome = tap.at_link(|name| Ok(tap.configure_link(name, options)));
            outcome.map_err(TapError::of(format!("find the tap {name}")))?
        })?;
        Ok(tap)
    }

    /// Sets what the descriptor is asked with, then, by `configure_link`, what the interface's name is.
    fn configure(
        &self,
        name: &str,
        options: &TapOptions,
        configure_link: impl FnOnce() -> Result<(), TapError>,
    ) -> Result<(), TapError> {
        let failed = |what: &str| TapError::of(format!("set the {what} of the tap {name}"));
        let fd = self.fd.as_fd();
        let hdr_len = i32::try_from(VNET_HDR_LEN)
            .map_err(io::Error::other)
            .map_err(failed("header length"))?;
        tun::set_vnet_hdr_len(fd, hdr_len).map_err(failed("header length"))?;
        tun::set_vnet_le(fd, true).map_err(failed("header byte order"))?;
        if self.created {
            // A script may have set both on an interface that is attached again.
            tun::set_mac(fd, options.mac).map_err(failed("address"))?;
        }
        configure_link()?;
        // Last: until here the interface goes with the descriptor, so a failure above leaves nothing behind.
        tun::set_persist(fd, options.persist).map_err(failed("persistence"))
    }

    fn configure_link(&self, name: &str, options: &TapOptions) -> Result<(), TapError> {
        let failed = |what: &str| TapError::of(format!("set the {what} of the tap {name}"));
        if self.created {
            // Each change takes the kernel's lock on network interfaces and is announced to everybody.
            if link::mtu(name).map_err(failed("MTU"))? != options.mtu {
                let mtu = options.mtu;
                let failed = TapError::of(format!("set the MTU of the tap {name} to {mtu}"));
                link::set_mtu(name, mtu).map_err(failed)?;
            }
        }
        if let Some(alias) = &options.alias
            && (self.created
                || link::describe(name)
                    .map_err(failed("alias"))?
                    .alias
                    .is_none())
        {
            link::set_alias(name, alias).map_err(failed("alias"))?;
        }
        let len = options.txqueuelen;
        if link::tx_queue_len(name).map_err(failed("txqueuelen"))? != len {
            link::set_tx_queue_len(name, len).map_err(failed("txqueuelen"))?;
        }
        Ok(())
    }

    /// Takes any descriptor for a tap, for tests, of other crates too: one end of a socket pair, so that no tap need be
    /// made. It is made non-blocking.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        use nix::fcntl::{FcntlArg, fcntl};
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { fd, created: false })
    }

    /// Whether it can have further queues.
    pub fn is_multi_queue(&self) -> io::Result<bool> {
        Ok(tun::interface(self.fd.as_fd())?.flags() & tun::IFF_MULTI_QUEUE != 0)
    }

    /// Attaches one more queue. Header, offloads and everything else are the interface's and hold for it too.
    ///
    /// From now on the host puts a share of the frames into this queue, and they stay there until somebody reads
    /// them: whoever does not read it must drop it.
    pub fn attach_queue(&self) -> Result<Self, TapError> {
        if matches!(self.is_multi_queue(), Ok(false)) {
            return Err(TapError::OneQueue);
        }
        let queue = self.at_link(|name| {
            let fd = open_tun()?;
            tun::attach(fd.as_fd(), IfReq::named(name)?.with_flags(tap_flags(true)))?;
            Ok(Self { fd, created: false })
        });
        let same = queue.and_then(|queue| {
            // Renamed in between, the name would have made a new interface, which goes with the descriptor.
            if queue.ifindex()? == self.ifindex()? {
                Ok(queue)
            } else {
                Err(io::Error::other("it was renamed at that moment"))
            }
        });
        same.map_err(TapError::of("attach another queue to the tap"))
    }

    /// Another descriptor of the same tap, for a worker.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            created: self.created,
        })
    }

    /// Whether [`Tap::create`] made the interface, rather than attach to one that was there.
    #[must_use]
    pub const fn created(&self) -> bool {
        self.created
    }

    /// Sets what may be read from this tap in place of plain frames.
    pub fn set_offload(&self, offload: TapOffload) -> Result<(), TapError> {
        tun::set_offload(self.fd.as_fd(), offload.bits())
            .map_err(TapError::of("set the offloads of a tap"))
    }

    /// Sets what chooses the queue of each frame that this tap delivers. The tap keeps a program, also beyond the life
    /// of what is borrowed here.
    pub fn set_steering(&self, choice: Choice<'_>) -> Result<(), TapError> {
        tun::set_steering(self.fd.as_fd(), choice.program())
            .map_err(TapError::of("set the steering of a tap"))
    }

    /// Sets whether the host sees a carrier on this interface.
    pub fn set_carrier(&self, carrier: bool) -> Result<(), TapError> {
        tun::set_carrier(self.fd.as_fd(), carrier).map_err(TapError::of("set the carrier of a tap"))
    }

    /// Reads one frame behind its header. `Err(WouldBlock)` when there is none; a frame that does not fit is cut off
    /// by the kernel without a sign, so give room for the header, the Ethernet header and the largest segment.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.fd, buffer)?)
    }

    /// Writes one frame behind its header, whole or not at all. `Err(WouldBlock)` does not happen to a tap, but does
    /// to a socket pair.
    pub fn write(&self, frame: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(&self.fd, frame)?)
    }

    /// Removes the interface, whoever else holds a descriptor of it. An interface that is gone already is a success.
    ///
    /// Where it cannot be seen in which network namespace it is (before Linux 5.3), it goes with the last descriptor.
    pub fn destroy(self) -> Result<(), TapError> {
        let removed = tun::set_persist(self.fd.as_fd(), false)
            .and_then(|()| self.at_known_link(|name| self.delete(name)));
        match removed {
            Err(error) if !is_gone(&error) => Err(TapError::of("remove a tap")(error)),
            _ => Ok(()),
        }
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let index = link::index(name)?;
        // Renamed in between, another one might have that name now.
        if self.name()? != name {
            return Err(io::Error::other("it was renamed at that moment"));
        }
        link::delete(index)
    }
}

fn open_tun() -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(open(DEVICE, flags, Mode::empty())?)
}

/// Every queue of an interface is attached with the same flags.
fn tap_flags(multi_queue: bool) -> u16 {
    let multi = if multi_queue { tun::IFF_MULTI_QUEUE } else { 0 };
    tun::IFF_TAP | tun::IFF_NO_PI | tun::IFF_VNET_HDR | multi
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
