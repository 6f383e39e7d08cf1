// SPDX-License-Identifier: MIT OR Apache-2.0
//! bpf(2), as far as a program that steers a tap's frames needs it: an array of one value, and a socket filter
//! (numbers and layouts from the public header <linux/bpf.h>).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const MAP_CREATE: i64 = 0;
const MAP_UPDATE_ELEM: i64 = 2;
const PROG_LOAD: i64 = 5;

const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;

/// The program calls no function that is reserved for programs under the GPL; the kernel wants to know all the same.
const LICENSE: &CStr = c"Dual MIT/GPL";

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

const _: () = {
    assert!(size_of::<MapCreate>() == 20);
    assert!(size_of::<MapUpdate>() == 32);
    assert!(size_of::<ProgLoad>() == 48);
};

/// A new array map with one value of so many bytes, all zero.
pub(crate) fn create_value(bytes: usize) -> io::Result<OwnedFd> {
    let attr = MapCreate {
        map_type: MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: u32::try_from(bytes).map_err(io::Error::other)?,
        max_entries: 1,
        map_flags: 0,
    };
    // SAFETY: the attribute has the layout of this command (asserted above) and contains no pointer.
    let fd = unsafe { bpf(MAP_CREATE, &attr) }?;
    // SAFETY: a successful BPF_MAP_CREATE returns a descriptor that was opened for this caller and that nobody else
    // owns; it is open.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets the value of an array map that was made for values of `N` words.
pub(crate) fn set_value<const N: usize>(map: BorrowedFd<'_>, value: &[u32; N]) -> io::Result<()> {
    let key = 0_u32;
    let attr = MapUpdate {
        map_fd: number(map.as_raw_fd())?,
        pad: 0,
        key: address(&raw const key),
        value: address(value.as_ptr()),
        flags: 0,
    };
    // SAFETY: the attribute has the layout of this command; key and value live across the call, which reads 4 bytes of
    // the one and, of the other, as many as the map was made for: the callers make the map for the type of the value.
    unsafe { bpf(MAP_UPDATE_ELEM, &attr) }?;
    Ok(())
}

/// Loads a program of encoded instructions; the kernel verifies it.
pub(crate) fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    let attr = ProgLoad {
        prog_type: PROG_TYPE_SOCKET_FILTER,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: address(instructions.as_ptr()),
        license: address(LICENSE.as_ptr()),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: the attribute has the layout of this command; instructions and license live across the call, which reads
    // `insn_cnt` instructions of 8 bytes and a string that ends with a zero.
    let fd = unsafe { bpf(PROG_LOAD, &attr) }?;
    // SAFETY: a successful BPF_PROG_LOAD returns a descriptor that was opened for this caller and that nobody else
    // owns; it is open.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
///
/// `attr` has the layout that the command expects, and what it points to is as the command expects it.
unsafe fn bpf<T>(command: i64, attr: &T) -> io::Result<RawFd> {
    // SAFETY: the pointer is to a live attribute of the size that is passed; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

/// The kernel gets pointers as numbers, so their provenance is exposed.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn number(fd: RawFd) -> io::Result<u32> {
    u32::try_from(fd).map_err(io::Error::other)
}
