// SPDX-License-Identifier: MIT OR Apache-2.0
//! The SIOC* ioctls of a socket that ask for or set a property of a network interface in the socket's namespace.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::ifreq::IfReq;

mod raw {
    use super::IfReq;

    nix::ioctl_readwrite_bad!(siocgifflags, libc::SIOCGIFFLAGS, IfReq);
    nix::ioctl_readwrite_bad!(siocgifindex, libc::SIOCGIFINDEX, IfReq);
    nix::ioctl_readwrite_bad!(siocgifmtu, libc::SIOCGIFMTU, IfReq);
    nix::ioctl_readwrite_bad!(siocgiftxqlen, libc::SIOCGIFTXQLEN, IfReq);
    nix::ioctl_write_ptr_bad!(siocsifflags, libc::SIOCSIFFLAGS, IfReq);
    nix::ioctl_write_ptr_bad!(siocsifmtu, libc::SIOCSIFMTU, IfReq);
    nix::ioctl_write_ptr_bad!(siocsifaddr, libc::SIOCSIFADDR, IfReq);
    nix::ioctl_write_ptr_bad!(siocsifnetmask, libc::SIOCSIFNETMASK, IfReq);
}

/// One request that answers in the IfReq it was given.
type Get = unsafe fn(libc::c_int, *mut IfReq) -> nix::Result<libc::c_int>;
/// One request that only reads the IfReq it was given.
type Set = unsafe fn(libc::c_int, *const IfReq) -> nix::Result<libc::c_int>;

fn get(socket: BorrowedFd<'_>, mut request: IfReq, call: Get) -> io::Result<IfReq> {
    // SAFETY: `call` is one of the SIOCG* functions above; the descriptor is open for the call; the pointer is to a
    // live, exclusively borrowed IfReq of the full 40 bytes copied in and out, in which any bytes are valid.
    unsafe { call(socket.as_raw_fd(), &raw mut request) }?;
    Ok(request)
}

fn set(socket: BorrowedFd<'_>, request: IfReq, call: Set) -> io::Result<()> {
    // SAFETY: `call` is one of the SIOCS* functions above; the descriptor is open for the call; the pointer is to a
    // live IfReq of the full 40 bytes that the kernel copies in.
    unsafe { call(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}

pub(crate) fn flags(socket: BorrowedFd<'_>, request: IfReq) -> io::Result<u16> {
    Ok(get(socket, request, raw::siocgifflags)?.flags())
}

pub(crate) fn index(socket: BorrowedFd<'_>, request: IfReq) -> io::Result<i32> {
    Ok(get(socket, request, raw::siocgifindex)?.int())
}

pub(crate) fn mtu(socket: BorrowedFd<'_>, request: IfReq) -> io::Result<i32> {
    Ok(get(socket, request, raw::siocgifmtu)?.int())
}

pub(crate) fn tx_queue_len(socket: BorrowedFd<'_>, request: IfReq) -> io::Result<i32> {
    Ok(get(socket, request, raw::siocgiftxqlen)?.int())
}

/// `request` carries the new flags.
pub(crate) fn set_flags(socket: BorrowedFd<'_>, request: IfReq) -> io::Result<()> {
    set(socket, request, raw::siocsifflags)
}

/// `request` carries the new MTU.
pub(crate) fn set_mtu(socket: BorrowedFd<'_>, request: IfReq) -> io::Result<()> {
    set(socket, request, raw::siocsifmtu)
}

/// `request` carries the address.
pub(crate) fn set_address(socket: BorrowedFd<'_>, request: IfReq) -> io::Result<()> {
    set(socket, request, raw::siocsifaddr)
}

/// `request` carries the netmask.
pub(crate) fn set_netmask(socket: BorrowedFd<'_>, request: IfReq) -> io::Result<()> {
    set(socket, request, raw::siocsifnetmask)
}
