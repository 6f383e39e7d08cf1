// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ioctls of /dev/net/tun (numbers from the public header <linux/if_tun.h>), each as a function that is safe
//! to call on any file descriptor: on one that is not a tun the kernel answers ENOTTY and touches nothing.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::ifreq::IfReq;
use crate::mac::MacAddr;

pub(crate) const IFF_TAP: u16 = 0x0002;
pub(crate) const IFF_MULTI_QUEUE: u16 = 0x0100;
pub(crate) const IFF_NO_PI: u16 = 0x1000;
pub(crate) const IFF_VNET_HDR: u16 = 0x4000;

mod raw {
    use super::IfReq;

    // TUNSETIFF and TUNGETIFF are declared with the size of an int in the header and copy a whole ifreq.
    nix::ioctl_readwrite_bad!(tunsetiff, nix::request_code_write!(b'T', 202, 4), IfReq);
    nix::ioctl_readwrite_bad!(tungetiff, nix::request_code_read!(b'T', 210, 4), IfReq);
    nix::ioctl_write_int_bad!(tunsetpersist, nix::request_code_write!(b'T', 203, 4));
    nix::ioctl_write_int_bad!(tunsetoffload, nix::request_code_write!(b'T', 208, 4));
    nix::ioctl_write_ptr_bad!(
        tunsetvnethdrsz,
        nix::request_code_write!(b'T', 216, 4),
        libc::c_int
    );
    nix::ioctl_write_ptr_bad!(
        tunsetvnetle,
        nix::request_code_write!(b'T', 220, 4),
        libc::c_int
    );
    nix::ioctl_write_ptr_bad!(
        tunsetcarrier,
        nix::request_code_write!(b'T', 226, 4),
        libc::c_int
    );
    // Declared as a read, though it is the kernel that reads.
    nix::ioctl_write_ptr_bad!(
        tunsetsteeringebpf,
        nix::request_code_read!(b'T', 224, 4),
        libc::c_int
    );
    nix::ioctl_none_bad!(tungetdevnetns, nix::request_code_none!(b'T', 227));
    nix::ioctl_write_ptr_bad!(siocsifhwaddr, libc::SIOCSIFHWADDR, IfReq);
    nix::ioctl_readwrite_bad!(siocgifhwaddr, libc::SIOCGIFHWADDR, IfReq);
}

const _: () = assert!(nix::request_code_write!(b'T', 202, 4) == 0x4004_54ca);
const _: () = assert!(nix::request_code_read!(b'T', 210, 4) == 0x8004_54d2);
const _: () = assert!(nix::request_code_none!(b'T', 227) == 0x54e3);
const _: () = assert!(nix::request_code_read!(b'T', 224, 4) == 0x8004_54e0);

/// TUNSETIFF: attaches the descriptor to the interface that `request` names, creating it when there is none.
pub(crate) fn attach(fd: BorrowedFd<'_>, request: IfReq) -> io::Result<()> {
    let mut request = request;
    // SAFETY: the descriptor is open for the call (BorrowedFd); the pointer is to a live, exclusively borrowed IfReq
    // of the full 40 bytes that the kernel copies in and out (asserted in ifreq.rs), in which any bytes are valid.
    unsafe { raw::tunsetiff(fd.as_raw_fd(), &raw mut request) }?;
    Ok(())
}

/// TUNGETIFF: the interface's current name (whatever it was renamed to, in whatever namespace) and tun flags.
pub(crate) fn interface(fd: BorrowedFd<'_>) -> io::Result<IfReq> {
    let mut request = IfReq::unnamed();
    // SAFETY: the descriptor is open for the call; the pointer is to a live, exclusively borrowed IfReq of the full
    // 40 bytes that the kernel copies out, in which any bytes are valid.
    unsafe { raw::tungetiff(fd.as_raw_fd(), &raw mut request) }?;
    Ok(request)
}

/// TUNSETPERSIST: whether the interface outlives its descriptors.
pub(crate) fn set_persist(fd: BorrowedFd<'_>, persist: bool) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call and the argument is passed by value; no memory is involved.
    unsafe { raw::tunsetpersist(fd.as_raw_fd(), i32::from(persist)) }?;
    Ok(())
}

/// TUNSETOFFLOAD: which TUN_F_* offloads the reader of the tap accepts.
pub(crate) fn set_offload(fd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call and the argument is passed by value; no memory is involved.
    unsafe { raw::tunsetoffload(fd.as_raw_fd(), flags) }?;
    Ok(())
}

/// TUNSETVNETHDRSZ: the length of the virtio_net_hdr in front of every frame.
pub(crate) fn set_vnet_hdr_len(fd: BorrowedFd<'_>, len: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call; the kernel reads one int from the pointer, which is to a live int.
    unsafe { raw::tunsetvnethdrsz(fd.as_raw_fd(), &raw const len) }?;
    Ok(())
}

/// TUNSETVNETLE: the fields of the virtio_net_hdr are little-endian (otherwise: of the host's own order).
pub(crate) fn set_vnet_le(fd: BorrowedFd<'_>, little: bool) -> io::Result<()> {
    let value = i32::from(little);
    // SAFETY: the descriptor is open for the call; the kernel reads one int from the pointer, which is to a live int.
    unsafe { raw::tunsetvnetle(fd.as_raw_fd(), &raw const value) }?;
    Ok(())
}

/// TUNSETCARRIER (Linux 5.0): whether the interface reports a carrier to the host.
pub(crate) fn set_carrier(fd: BorrowedFd<'_>, carrier: bool) -> io::Result<()> {
    let value = i32::from(carrier);
    // SAFETY: the descriptor is open for the call; the kernel reads one int from the pointer, which is to a live int.
    unsafe { raw::tunsetcarrier(fd.as_raw_fd(), &raw const value) }?;
    Ok(())
}

/// TUNSETSTEERINGEBPF (Linux 4.16): the program that chooses the queue of each frame; -1 for none.
pub(crate) fn set_steering(fd: BorrowedFd<'_>, program: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let program = program.map_or(-1, |program| program.as_raw_fd());
    // SAFETY: the descriptor is open for the call; the kernel reads one int from the pointer, which is to a live int.
    // What kind of descriptor the int is, the kernel checks.
    unsafe { raw::tunsetsteeringebpf(fd.as_raw_fd(), &raw const program) }?;
    Ok(())
}

/// SIOCSIFHWADDR on the tun itself: sets the address whatever the interface is called by now.
pub(crate) fn set_mac(fd: BorrowedFd<'_>, mac: MacAddr) -> io::Result<()> {
    let request = IfReq::unnamed().with_mac(mac);
    // SAFETY: the descriptor is open for the call; the pointer is to a live IfReq of the full 40 bytes that the
    // kernel copies in.
    unsafe { raw::siocsifhwaddr(fd.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// SIOCGIFHWADDR on the tun itself.
pub(crate) fn mac(fd: BorrowedFd<'_>) -> io::Result<MacAddr> {
    let mut request = IfReq::unnamed();
    // SAFETY: the descriptor is open for the call; the pointer is to a live, exclusively borrowed IfReq of the full
    // 40 bytes that the kernel copies out, in which any bytes are valid.
    unsafe { raw::siocgifhwaddr(fd.as_raw_fd(), &raw mut request) }?;
    Ok(request.mac())
}

/// TUNGETDEVNETNS (Linux 5.3): a descriptor of the network namespace in which the interface is now.
pub(crate) fn net_namespace(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open for the call and the request takes no argument; no memory is involved.
    let ns = unsafe { raw::tungetdevnetns(fd.as_raw_fd()) }?;
    // SAFETY: a successful TUNGETDEVNETNS returns a descriptor that was opened for this caller and that nobody else
    // owns; it is open.
    Ok(unsafe { OwnedFd::from_raw_fd(ns) })
}
