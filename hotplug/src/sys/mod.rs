// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls of this crate for which neither std nor nix has a safe form: ioctls of /dev/net/tun and of
//! sockets, options and addresses of packet sockets, bpf, io_uring, scheduling policies, pidfd_open, sigaction, and
//! owning what the service manager has passed.
//!
//! Each function here is safe to call with any argument; it checks what its `unsafe` block relies on.
#![allow(
    unsafe_code,
    reason = "ioctls and raw system calls; every other module of the crate is safe code"
)]

pub(crate) mod bpf;
pub(crate) mod ifreq;
pub(crate) mod inherited;
pub(crate) mod link;
pub(crate) mod packet;
pub(crate) mod process;
pub(crate) mod sched;
pub(crate) mod tun;
pub(crate) mod uring;
