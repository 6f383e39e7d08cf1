// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one link setting for which the ioctl is not enough: the transmit queue's length.
//!
//! SIOCSIFTXQLEN asks for CAP_NET_ADMIN in the initial user namespace, even in a network namespace of one's own;
//! RTM_NEWLINK with IFLA_TXQLEN (rtnetlink(7)) asks for it where the interface is.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// Length of struct nlmsghdr.
const HEADER: usize = 16;
/// Length of the whole request: header, struct ifinfomsg (16), and one attribute with an int (8).
const REQUEST: usize = HEADER + 16 + 8;
const IFLA_TXQLEN: u16 = 13;

/// Sets the transmit queue's length of the interface with this index, in the calling thread's network namespace.
pub(crate) fn set_tx_queue_len(index: i32, len: u32) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkRoute,
    )?;
    sendto(
        socket.as_raw_fd(),
        &request(index, len),
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    // The kernel answers a request while it takes it in, so this does not wait.
    let mut answer = [0; 256];
    let n = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    outcome(answer.get(..n).unwrap_or_default())
}

fn request(index: i32, len: u32) -> Vec<u8> {
    const _: () = assert!(REQUEST == 40 && libc::NLM_F_REQUEST == 1 && libc::NLM_F_ACK == 4);
    let mut bytes = Vec::with_capacity(REQUEST);
    // nlmsghdr: length, type, flags, sequence number, port.
    bytes.extend(40_u32.to_ne_bytes());
    bytes.extend(libc::RTM_NEWLINK.to_ne_bytes());
    bytes.extend(5_u16.to_ne_bytes());
    bytes.extend([0; 8]);
    // ifinfomsg: family and type (unspecified), index, flags, and which flags to change (none).
    bytes.extend([0; 4]);
    bytes.extend(index.to_ne_bytes());
    bytes.extend([0; 8]);
    // rtattr: length, type, value.
    bytes.extend(8_u16.to_ne_bytes());
    bytes.extend(IFLA_TXQLEN.to_ne_bytes());
    bytes.extend(len.to_ne_bytes());
    bytes
}

/// An answer is an NLMSG_ERROR whose error is 0, or minus an errno.
fn outcome(answer: &[u8]) -> io::Result<()> {
    const _: () = assert!(libc::NLMSG_ERROR == 2);
    let kind = answer.get(4..6);
    let code = answer
        .get(HEADER..HEADER + 4)
        .and_then(|code| code.try_into().ok())
        .map(i32::from_ne_bytes);
    match code {
        Some(0) if kind == Some(2_u16.to_ne_bytes().as_slice()) => Ok(()),
        Some(code @ i32::MIN..0) if kind == Some(2_u16.to_ne_bytes().as_slice()) => {
            Err(io::Error::from_raw_os_error(code.saturating_neg()))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel's answer over netlink is no acknowledgement",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn request_golden() {
        let bytes = request(0x0102_0304, 1000);
        let expected = [
            40, 0, 0, 0, 16, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
            0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, // ifinfomsg
            8, 0, 13, 0, 0xe8, 3, 0, 0, // IFLA_TXQLEN
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_answer_has_an_outcome() {
        let answer = |kind: u16, code: i32| {
            let mut bytes = vec![0; 4];
            bytes.extend(kind.to_ne_bytes());
            bytes.resize(HEADER, 0);
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        assert!(outcome(&answer(2, 0)).is_ok());
        assert_eq!(
            outcome(&answer(2, -libc::EPERM))
                .unwrap_err()
                .raw_os_error(),
            Some(libc::EPERM)
        );
        for strange in [
            answer(2, 1),
            answer(3, 0),
            answer(16, -1),
            answer(2, 0)[..19].to_vec(),
            vec![],
        ] {
            assert_eq!(
                outcome(&strange).unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{strange:?}"
            );
        }
        assert!(outcome(&answer(2, i32::MIN)).is_err());
    }

    #[test]
    fn the_kernel_answers() {
        let error = set_tx_queue_len(i32::MAX, 1).unwrap_err();
        assert!(
            matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)),
            "{error}"
        );
    }
}
