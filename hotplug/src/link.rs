// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings of any network interface, by name, in the network namespace of the calling thread.
//!
//! On a Xen host the vif script does these things to the tap. The demo and the tests play the script and do them
//! here; the daemon itself uses them for the properties of its own taps.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType};

use crate::mac::MacAddr;
use crate::netlink;
use crate::sys::ifreq::IfReq;
use crate::sys::link as sys;

/// Brings the interface up, as `ip link set NAME up`.
pub fn set_up(name: &str) -> io::Result<()> {
    set_flag(name, true)
}

/// Takes the interface down, as `ip link set NAME down`.
pub fn set_down(name: &str) -> io::Result<()> {
    set_flag(name, false)
}

/// Whether the interface is administratively up.
pub fn is_up(name: &str) -> io::Result<bool> {
    Ok(sys::flags(socket()?.as_fd(), IfReq::named(name)?)? & IFF_UP != 0)
}

/// Sets the interface's first IPv4 address and its prefix length (0 to 32). An interface that is up gets the route
/// to that prefix with it.
pub fn add_ipv4(name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let request = IfReq::named(name)?;
    let mask = match prefix {
        0 => 0,
        1..=32 => u32::MAX << (32 - u32::from(prefix)),
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("prefix length {prefix} is not 0 to 32"),
            ));
        }
    };
    let socket = socket()?;
    sys::set_address(socket.as_fd(), request.with_ipv4(address))?;
    sys::set_netmask(socket.as_fd(), request.with_ipv4(Ipv4Addr::from(mask)))
}

/// Whether an interface of this name exists here. A string that cannot be a name is `Ok(false)`.
pub fn exists(name: &str) -> io::Result<bool> {
    match index(name) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        Err(error) => Err(error),
    }
}

/// What an administrator may change about an interface at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its index in its network namespace.
    pub index: u32,
    /// Its MTU in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
}

/// The interface as it is now.
pub fn look(name: &str) -> io::Result<Link> {
    let socket = socket()?;
    let (socket, request) = (socket.as_fd(), IfReq::named(name)?);
    Ok(Link {
        index: unsigned(sys::index(socket, request)?)?,
        mtu: unsigned(sys::mtu(socket, request)?)?,
        up: sys::flags(socket, request)? & IFF_UP != 0,
    })
}

/// The interface's index (positive).
pub fn index(name: &str) -> io::Result<u32> {
    unsigned(sys::index(socket()?.as_fd(), IfReq::named(name)?)?)
}

/// The interface's MTU in bytes, without the Ethernet header.
pub fn mtu(name: &str) -> io::Result<u32> {
    unsigned(sys::mtu(socket()?.as_fd(), IfReq::named(name)?)?)
}

/// Sets the interface's MTU.
pub fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    sys::set_mtu(
        socket()?.as_fd(),
        IfReq::named(name)?.with_int(signed(mtu)?),
    )
}

/// The length of the interface's transmit queue, in packets.
pub fn tx_queue_len(name: &str) -> io::Result<u32> {
    unsigned(sys::tx_queue_len(socket()?.as_fd(), IfReq::named(name)?)?)
}

/// Sets the length of the interface's transmit queue.
pub fn set_tx_queue_len(name: &str, len: u32) -> io::Result<()> {
    signed(len)?;
    netlink::set_tx_queue_len(sys::index(socket()?.as_fd(), IfReq::named(name)?)?, len)
}

/// Sets the interface's alias, as `ip link set NAME alias TEXT`: at most 255 bytes that stay with it when it is renamed.
pub fn set_alias(name: &str, alias: &str) -> io::Result<()> {
    netlink::set_alias(sys::index(socket()?.as_fd(), IfReq::named(name)?)?, alias)
}

/// Removes the interface with this index, as `ip link delete` does, whoever holds it.
pub fn delete(index: u32) -> io::Result<()> {
    netlink::delete(signed(index)?)
}

/// What an interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What it is called now.
    pub name: String,
    /// Its alias, if it has one ([`set_alias`]).
    pub alias: Option<String>,
    /// Its address, if that is an Ethernet address.
    pub address: Option<MacAddr>,
    /// It is a tap (or tun) device.
    pub is_tun: bool,
}

/// Names of all interfaces here.
pub fn names() -> io::Result<Vec<String>> {
    let all = nix::net::if_::if_nameindex()?;
    let names = all
        .iter()
        .map(|interface| interface.name().to_string_lossy());
    Ok(names.map(std::borrow::Cow::into_owned).collect())
}

/// What the interface is.
pub fn describe(name: &str) -> io::Result<Description> {
    let found = netlink::describe(sys::index(socket()?.as_fd(), IfReq::named(name)?)?)?;
    Ok(Description {
        name: name.to_owned(),
        alias: found.alias,
        address: found.address.map(MacAddr),
        is_tun: found.kind.as_deref() == Some("tun"),
    })
}

/// How many queues of a tap are attached to descriptors at the moment, here and in other processes. 0 also for an
/// interface that can have one at most, and before Linux 4.18, which does not tell.
pub fn tap_queues(name: &str) -> io::Result<u32> {
    netlink::tun_queues(sys::index(socket()?.as_fd(), IfReq::named(name)?)?)
}

/// Frames that were to be transmitted and that the interface has dropped since it was made. Of a tap: those that its
/// queue had no room for, and those for which it had no reader.
pub fn tx_dropped(name: &str) -> io::Result<u64> {
    netlink::tx_dropped(sys::index(socket()?.as_fd(), IfReq::named(name)?)?)
}

const IFF_UP: u16 = 1;

fn set_flag(name: &str, up: bool) -> io::Result<()> {
    let socket = socket()?;
    let request = IfReq::named(name)?;
    let flags = sys::flags(socket.as_fd(), request)?;
    let flags = if up { flags | IFF_UP } else { flags & !IFF_UP };
    sys::set_flags(socket.as_fd(), request.with_flags(flags))
}

/// A socket whose only use is to carry SIOC* ioctls into the calling thread's network namespace.
fn socket() -> io::Result<OwnedFd> {
    Ok(nix::sys::socket::socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

fn unsigned(value: i32) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the kernel answered {value}"),
        )
    })
}

fn signed(value: u32) -> io::Result<i32> {
    i32::try_from(value)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{value} is too large")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_and_nonsense_is_not() {
        assert!(exists("lo").unwrap());
        assert!(index("lo").unwrap() >= 1);
        assert!(!exists("no-such-link").unwrap());
        assert!(!exists("a/b").unwrap());
        assert!(!exists("").unwrap());
        assert_eq!(
            index("no-such-link").unwrap_err().raw_os_error(),
            Some(libc::ENODEV)
        );
        assert_eq!(
            index("../lo").unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn refuses_what_the_kernel_could_not_mean() {
        let any = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(
            add_ipv4("lo", any, 33).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(
            set_mtu("lo", u32::MAX).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert!(unsigned(-1).is_err());
    }
}
