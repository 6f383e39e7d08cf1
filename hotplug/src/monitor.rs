// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells which network interfaces have changed: what the kernel announces over rtnetlink(7) to the group
//! RTNLGRP_LINK, for the network namespace in which the monitor was made.
//!
//! An announcement is only taken as a reason to look at the interface again, so a lost one is made up for by looking
//! at all. Interfaces in other network namespaces are not heard of.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket,
};

/// Length of struct nlmsghdr, after which struct ifinfomsg begins.
const HEADER: usize = 16;
/// Where the interface's index is: fourth byte of struct ifinfomsg.
const INDEX: usize = HEADER + 4;
/// Room for what is announced at once; the kernel makes a message fit into a page or two.
const ROOM: usize = 32 * 1024;
/// Announcements that are read in one go. A thousand taps that come up together make some ten thousand.
const BUDGET: usize = 4096;
/// Bytes that may wait to be read: some two thousand announcements, with what the kernel adds to each.
const BUFFER: usize = 8 << 20;

/// Hears of changes to network interfaces.
#[derive(Debug)]
pub struct LinkMonitor {
    socket: OwnedFd,
    room: Vec<u8>,
}

/// Which interfaces may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Those with these indices, gone ones included.
    Links(BTreeSet<u32>),
    /// Any: announcements were lost, or there were too many.
    Any,
}

impl LinkMonitor {
    /// Listens in the calling thread's network namespace, from now on.
    pub fn new() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        const GROUP: u32 = 1;
        const _: () = assert!(libc::RTMGRP_LINK == 1);
        make_room(&socket)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        Ok(Self {
            socket,
            room: vec![0; ROOM],
        })
    }

    /// What was announced since the last call. Never waits; a bounded number of system calls.
    pub fn changed(&mut self) -> io::Result<Changed> {
        let mut links = BTreeSet::new();
        let mut any = false;
        for _ in 0..BUDGET {
            match recv(self.socket.as_raw_fd(), &mut self.room, MsgFlags::MSG_TRUNC) {
                Ok(len) => match self.room.get(..len) {
                    Some(messages) => any |= !read(messages, &mut links),
                    None => any = true,
                },
                // The kernel had no room for an announcement.
                Err(Errno::ENOBUFS) => any = true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if any => return Ok(Changed::Any),
                Err(Errno::EAGAIN) => return Ok(Changed::Links(links)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Changed::Any)
    }
}

/// Makes the socket's buffer larger. Without the right to do so it gets what the system allows to everybody, and
/// announcements are lost sooner, which only costs a look at all interfaces.
fn make_room(socket: &OwnedFd) -> nix::Result<()> {
    setsockopt(socket, RcvBufForce, &BUFFER).or_else(|_| setsockopt(socket, RcvBuf, &BUFFER))
}

/// Adds the indices of the links that these messages are about. `false` if they are not whole.
fn read(mut messages: &[u8], links: &mut BTreeSet<u32>) -> bool {
    while let Some(&[a, b, c, d, e, f]) = messages.first_chunk() {
        let len = u32::from_ne_bytes([a, b, c, d]);
        let Some(message) = usize::try_from(len)
            .ok()
            .and_then(|len| messages.get(..len))
        else {
            return false;
        };
        if matches!(
            u16::from_ne_bytes([e, f]),
            libc::RTM_NEWLINK | libc::RTM_DELLINK
        ) {
            let index = message.get(INDEX..).and_then(<[u8]>::first_chunk);
            let Some(index) = index.map(|index| u32::from_ne_bytes(*index)) else {
                return false;
            };
            links.insert(index);
        }
        if message.is_empty() {
            return false;
        }
        // Each message begins at a multiple of four bytes.
        messages = messages
            .get(message.len().next_multiple_of(4)..)
            .unwrap_or_default();
    }
    true
}

impl AsFd for LinkMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, index: u32, tail: usize) -> Vec<u8> {
        let len = HEADER + 16 + tail;
        let mut bytes = u32::try_from(len).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER + 4, 0);
        bytes.extend(index.to_ne_bytes());
        bytes.resize(len, 0);
        bytes
    }

    fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn links(messages: &[u8]) -> Option<Vec<u32>> {
        let mut links = BTreeSet::new();
        read(messages, &mut links).then(|| links.into_iter().collect())
    }

    #[test]
    fn new_and_gone_links_are_told_and_nothing_else() {
        let messages = [
            padded(message(16, 7, 5)),
            padded(message(24, 8, 0)),
            padded(message(17, 3, 1)),
            message(16, 7, 3),
        ]
        .concat();
        assert_eq!(links(&messages), Some(vec![3, 7]));
        assert_eq!(links(&[]), Some(vec![]));
    }

    #[test]
    fn what_is_cut_off_is_noticed() {
        let whole = message(16, 7, 0);
        for len in 6..whole.len() {
            assert_eq!(links(&whole[..len]), None, "{len}");
        }
        let mut short = message(16, 7, 0);
        short[0] = 18;
        assert_eq!(links(&short), None);
        short[0] = 0;
        assert_eq!(links(&short), None);
    }

    #[test]
    fn a_quiet_namespace_says_nothing_at_once() {
        // Others may change links of this namespace meanwhile; what counts is that it returns.
        assert!(LinkMonitor::new().unwrap().changed().is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes: Vec<u8>) {
            links(&bytes);
        }
    }
}
