// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames put onto an interface's way out, as the host's own stack puts them there: what a benchmark or a test gives
//! the reader of a tap to read, TCP segments larger than the MTU included.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::link;
use crate::sys::packet;
use crate::tap::VNET_HDR_LEN;

/// Of the header before a tap's frames, what a packet socket takes: all but the last field, which is of no use here.
const TAKEN: usize = 10;

/// A way out of one interface. Needs CAP_NET_RAW.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
}

impl Injector {
    /// A way out of the interface `name` in the calling thread's network namespace.
    pub fn open(name: &str) -> io::Result<Self> {
        let index = i32::try_from(link::index(name)?).map_err(io::Error::other)?;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        packet::expect_vnet_hdr(socket.as_fd())?;
        packet::bind(socket.as_fd(), index)?;
        Ok(Self { socket })
    }

    /// Hands over one frame behind its virtio_net_hdr of [`VNET_HDR_LEN`] bytes, as [`Tap::write`](crate::Tap::write)
    /// takes it. That it is accepted does not mean that it finds room in the interface's queue.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let (Some(header), Some(bytes)) = (frame.get(..TAKEN), frame.get(VNET_HDR_LEN..)) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a frame without its header",
            ));
        };
        nix::sys::uio::writev(&self.socket, &[IoSlice::new(header), IoSlice::new(bytes)])?;
        Ok(())
    }
}
