// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two calls on a packet socket (packet(7)) for which nix has no safe form.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Frames are sent behind a virtio_net_hdr from now on (PACKET_VNET_HDR).
pub(crate) fn expect_vnet_hdr(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = length_of::<libc::c_int>()?;
    // SAFETY: the descriptor is open for the call; the pointer is to a live c_int and the length is that of a c_int,
    // which the kernel copies in.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const on).cast(),
            len,
        )
    };
    outcome(done)
}

/// Ties the socket to one interface, for sending only: protocol 0 receives nothing.
pub(crate) fn bind(socket: BorrowedFd<'_>, index: i32) -> io::Result<()> {
    let family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    let address = libc::sockaddr_ll {
        sll_family: family,
        sll_protocol: 0,
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = length_of::<libc::sockaddr_ll>()?;
    // SAFETY: the descriptor is open for the call; the pointer is to a live sockaddr_ll and the length is that of a
    // sockaddr_ll, which the kernel copies in.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    outcome(done)
}

fn length_of<T>() -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)
}

fn outcome(done: libc::c_int) -> io::Result<()> {
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
