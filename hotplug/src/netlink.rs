// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the ioctls cannot do, over rtnetlink(7): set the transmit queue's length and the alias, remove an interface, and
//! ask for what is told of one in no other way.
//!
//! SIOCSIFTXQLEN asks for CAP_NET_ADMIN in the initial user namespace, even in a network namespace of one's own;
//! RTM_NEWLINK with IFLA_TXQLEN asks for it where the interface is. How many queues are attached is told by
//! RTM_GETLINK only (<linux/if_link.h>, IFLA_TUN_NUM_QUEUES).

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// Length of struct nlmsghdr.
const HEADER: usize = 16;
/// Length of struct ifinfomsg.
const LINK: usize = 16;
/// Room for an answer; the kernel makes it fit into a page or two.
const ANSWER: usize = 32 * 1024;
const IFLA_ADDRESS: u16 = 1;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_NUM_QUEUES: u16 = 8;

/// Sets the transmit queue's length of the interface with this index, in the calling thread's network namespace.
pub(crate) fn set_tx_queue_len(index: i32, len: u32) -> io::Result<()> {
    change(index, IFLA_TXQLEN, &len.to_ne_bytes())
}

/// Sets the alias of the interface with this index: a note that every list of interfaces shows (255 bytes at most).
pub(crate) fn set_alias(index: i32, alias: &str) -> io::Result<()> {
    change(index, IFLA_IFALIAS, alias.as_bytes())
}

/// Removes the interface with this index, whoever holds it.
pub(crate) fn delete(index: i32) -> io::Result<()> {
    outcome(&ask(&removal(index))?)
}

fn change(index: i32, kind: u16, value: &[u8]) -> io::Result<()> {
    outcome(&ask(&request(index, kind, value)?)?)
}

/// Queues of the tap with this index that are attached to a descriptor; 0 for one that is not of the kind that can
/// have several (or before Linux 4.18).
pub(crate) fn tun_queues(index: i32) -> io::Result<u32> {
    let attributes = attributes_of(index)?;
    let count = attribute(&attributes, IFLA_LINKINFO)
        .and_then(|info| attribute(info, IFLA_INFO_DATA))
        .and_then(|data| attribute(data, IFLA_TUN_NUM_QUEUES));
    match count {
        None => Ok(0),
        Some(count) => Ok(u32::from_ne_bytes(count.try_into().map_err(|_| strange())?)),
    }
}

/// Frames that were handed to the interface with this index to be transmitted, and that it dropped: `tx_dropped`, the
/// eighth number of struct rtnl_link_stats64 (<linux/if_link.h>).
pub(crate) fn tx_dropped(index: i32) -> io::Result<u64> {
    const TX_DROPPED: usize = 7 * size_of::<u64>();
    let attributes = attributes_of(index)?;
    attribute(&attributes, IFLA_STATS64)
        .and_then(|stats| stats.get(TX_DROPPED..)?.first_chunk())
        .map(|count| u64::from_ne_bytes(*count))
        .ok_or_else(strange)
}

/// What is told of an interface.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) alias: Option<String>,
    pub(crate) address: Option<[u8; 6]>,
    /// Its driver's name: `tun` of a tap.
    pub(crate) kind: Option<String>,
}

/// Of the interface with this index.
pub(crate) fn describe(index: i32) -> io::Result<Described> {
    let attributes = attributes_of(index)?;
    let text = |value: &[u8]| {
        let value = value.strip_suffix(&[0]).unwrap_or(value);
        String::from_utf8_lossy(value).into_owned()
    };
    let kind =
        attribute(&attributes, IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND));
    Ok(Described {
        alias: attribute(&attributes, IFLA_IFALIAS).map(text),
        address: attribute(&attributes, IFLA_ADDRESS).and_then(|address| address.try_into().ok()),
        kind: kind.map(text),
    })
}

/// All that RTM_GETLINK tells of the interface with this index.
fn attributes_of(index: i32) -> io::Result<Vec<u8>> {
    let mut answer = ask(&query(index))?;
    if answer.get(4..6) != Some(libc::RTM_NEWLINK.to_ne_bytes().as_slice()) {
        return outcome(&answer).and_then(|()| Err(strange()));
    }
    if answer.len() < HEADER + LINK {
        return Err(strange());
    }
    Ok(answer.split_off(HEADER + LINK))
}

/// Sends one request and returns the kernel's first message in answer, whole.
fn ask(request: &[u8]) -> io::Result<Vec<u8>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkRoute,
    )?;
    sendto(
        socket.as_raw_fd(),
        request,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    // The kernel answers a request while it takes it in, so this does not wait.
    let mut answer = vec![0; ANSWER];
    let n = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(n);
    let len = answer.first_chunk().map(|len| u32::from_ne_bytes(*len));
    match len.and_then(|len| usize::try_from(len).ok()) {
        Some(len) if (HEADER..=n).contains(&len) => {
            answer.truncate(len);
            Ok(answer)
        }
        _ => Err(strange()),
    }
}

/// The value of the first attribute of this kind. Attributes are: length (of header and value), kind, value, padded
/// to four bytes.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    const NESTED_FLAGS: u16 = 0xc000;
    while let Some(&[a, b, c, d]) = attributes.first_chunk() {
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([c, d]) & !NESTED_FLAGS == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

/// RTM_GETLINK for one interface.
fn query(index: i32) -> Vec<u8> {
    const _: () = assert!(libc::NLM_F_REQUEST == 1);
    message(libc::RTM_GETLINK, 1, index, 0)
}

/// RTM_DELLINK for one interface.
fn removal(index: i32) -> Vec<u8> {
    message(libc::RTM_DELLINK, ACKNOWLEDGED, index, 0)
}

/// RTM_NEWLINK for one interface that is there, with one attribute.
fn request(index: i32, kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let attribute = u16::try_from(4 + value.len()).map_err(too_long)?;
    let padded = attribute
        .checked_next_multiple_of(4)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut bytes = message(libc::RTM_NEWLINK, ACKNOWLEDGED, index, padded);
    // rtattr: length, type, value, padded to four bytes.
    bytes.extend(attribute.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(HEADER + LINK + usize::from(padded), 0);
    Ok(bytes)
}

/// A request that is answered with its outcome.
const ACKNOWLEDGED: u16 = 5;
const _: () = assert!(libc::NLM_F_REQUEST | libc::NLM_F_ACK == 5);

/// A message of this type about one interface, up to its attributes, which are to take so many bytes.
fn message(kind: u16, flags: u16, index: i32, attributes: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + LINK + usize::from(attributes));
    // nlmsghdr: length, type, flags, sequence number, port.
    bytes.extend((32 + u32::from(attributes)).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    // ifinfomsg: family and type (unspecified), index, flags, and which flags to change (none).
    bytes.extend([0; 4]);
    bytes.extend(index.to_ne_bytes());
    bytes.extend([0; 8]);
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
        _ => Err(strange()),
    }
}

fn strange() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel's answer over netlink is none to what was asked",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn request_golden() {
        let bytes = request(0x0102_0304, IFLA_TXQLEN, &1000_u32.to_ne_bytes()).unwrap();
        let expected = [
            40, 0, 0, 0, 16, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
            0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, // ifinfomsg
            8, 0, 13, 0, 0xe8, 3, 0, 0, // IFLA_TXQLEN
        ];
        assert_eq!(bytes, expected);
        let bytes = request(1, IFLA_IFALIAS, b"netback").unwrap();
        assert_eq!(bytes[..4], [44, 0, 0, 0]);
        assert_eq!(bytes[32..], *b"\x0b\0\x14\0netback\0");
        let error = request(1, IFLA_IFALIAS, &[b'x'; 70_000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(query(1)[..8], [32, 0, 0, 0, 18, 0, 1, 0]);
        assert_eq!(removal(1)[..8], [32, 0, 0, 0, 17, 0, 5, 0]);
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
    fn attributes_are_found_at_any_place_and_cut_ones_are_not() {
        let mut bytes = vec![];
        // An attribute of one byte and three of padding, then one with the nested flag around another.
        bytes.extend(
            [[5_u16, 7], [1, 0], [12, 18 | 0x8000], [8, 2]]
                .as_flattened()
                .iter()
                .flat_map(|n| n.to_ne_bytes()),
        );
        bytes.extend(42_u32.to_ne_bytes());
        assert_eq!(attribute(&bytes, 7), Some([1].as_slice()));
        let nested = attribute(&bytes, 18).unwrap();
        assert_eq!(attribute(nested, 2), Some(42_u32.to_ne_bytes().as_slice()));
        assert_eq!(attribute(&bytes, 2), None);
        for len in 0..bytes.len() {
            assert_eq!(attribute(&bytes[..len], 18), None, "{len}");
        }
        // A length that does not even hold the attribute's own header ends the search.
        assert_eq!(attribute(&[0; 8], 18), None);
        assert_eq!(attribute(&[0; 8], 0), None);
    }

    #[test]
    fn an_interface_that_is_no_tap_has_no_queues_of_one() {
        let lo = crate::link::index("lo").unwrap();
        assert_eq!(tun_queues(lo.try_into().unwrap()).unwrap(), 0);
        let error = tun_queues(i32::MAX).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn an_interface_is_described() {
        let lo = crate::link::index("lo").unwrap();
        let described = describe(lo.try_into().unwrap()).unwrap();
        assert_eq!((described.kind, described.address), (None, Some([0; 6])));
    }

    #[test]
    fn the_kernel_answers() {
        for error in [set_tx_queue_len(i32::MAX, 1), delete(i32::MAX)] {
            let error = error.unwrap_err();
            assert!(
                matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)),
                "{error}"
            );
        }
    }
}
