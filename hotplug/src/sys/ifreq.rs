// SPDX-License-Identifier: MIT OR Apache-2.0
//! `struct ifreq` of <linux/if.h>: a name and 24 bytes whose meaning depends on the ioctl.
//!
//! The kernel copies the whole struct in and, for TUNSETIFF and the SIOCG* family, the whole struct out, whatever
//! part of the union is meant. So the size is asserted, and the union is kept as bytes: no field is ever read
//! through the wrong type.

use std::io;
use std::net::Ipv4Addr;

use crate::mac::MacAddr;

/// Length of the name field with its NUL (IFNAMSIZ).
pub(crate) const NAME_LEN: usize = 16;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct IfReq {
    name: [u8; NAME_LEN],
    value: [u8; 24],
}

const _: () = assert!(size_of::<IfReq>() == 40 && size_of::<libc::ifreq>() == 40);
const _: () = assert!(align_of::<IfReq>() >= align_of::<libc::ifreq>());

impl IfReq {
    /// A request about no interface in particular (TUNGETIFF).
    pub(crate) const fn unnamed() -> Self {
        Self {
            name: [0; NAME_LEN],
            value: [0; 24],
        }
    }

    /// A request about the interface `name`, which must be a name the kernel could accept.
    pub(crate) fn named(name: &str) -> io::Result<Self> {
        let fits = !name.is_empty() && name.len() < NAME_LEN && name != "." && name != "..";
        if !fits
            || name
                .bytes()
                .any(|b| b <= b' ' || matches!(b, b'/' | b':' | b'%' | 0x7f..))
        {
            let shown: String = name.chars().take(40).collect();
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{shown:?} cannot be the name of a network interface (1 to 15 printable ASCII characters without / : %)"
                ),
            ));
        }
        let mut request = Self::unnamed();
        for (to, from) in request.name.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Ok(request)
    }

    /// The name the kernel wrote, up to its NUL.
    pub(crate) fn name(&self) -> String {
        String::from_utf8_lossy(self.name.split(|b| *b == 0).next().unwrap_or_default())
            .into_owned()
    }

    fn put<const N: usize>(mut self, at: usize, bytes: [u8; N]) -> Self {
        for (to, from) in self.value.iter_mut().skip(at).zip(bytes) {
            *to = from;
        }
        self
    }

    /// `ifr_flags`: a short.
    pub(crate) fn with_flags(self, flags: u16) -> Self {
        self.put(0, flags.to_ne_bytes())
    }

    /// `ifr_flags` as the kernel wrote it.
    pub(crate) const fn flags(&self) -> u16 {
        let [a, b, ..] = self.value;
        u16::from_ne_bytes([a, b])
    }

    /// `ifr_mtu`, `ifr_qlen`, `ifr_ifindex`: an int.
    pub(crate) fn with_int(self, value: i32) -> Self {
        self.put(0, value.to_ne_bytes())
    }

    /// The int that the kernel wrote.
    pub(crate) const fn int(&self) -> i32 {
        let [a, b, c, d, ..] = self.value;
        i32::from_ne_bytes([a, b, c, d])
    }

    /// `ifr_hwaddr`: a sockaddr of family ARPHRD_ETHER (1).
    pub(crate) fn with_mac(self, mac: MacAddr) -> Self {
        self.put(0, libc::ARPHRD_ETHER.to_ne_bytes())
            .put(2, mac.octets())
    }

    /// The address in `ifr_hwaddr` as the kernel wrote it.
    pub(crate) const fn mac(&self) -> MacAddr {
        let [_, _, a, b, c, d, e, f, ..] = self.value;
        MacAddr([a, b, c, d, e, f])
    }

    /// `ifr_addr`: a sockaddr_in (family, port 0, address).
    pub(crate) fn with_ipv4(self, address: Ipv4Addr) -> Self {
        const FAMILY: u16 = 2;
        const _: () = assert!(libc::AF_INET == 2);
        self.put(0, FAMILY.to_ne_bytes()).put(4, address.octets())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_names_the_kernel_accepts_and_no_others() {
        assert_eq!(
            IfReq::named("vif65535.123456").unwrap().name(),
            "vif65535.123456"
        );
        for bad in [
            "",
            ".",
            "..",
            "vif65535.1234567",
            "a b",
            "a/b",
            "tap%d",
            "a:0",
            "a\0b",
            "vif\u{e9}",
        ] {
            let error = IfReq::named(bad).err().expect(bad);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn puts_values_where_the_kernel_looks() {
        let request = IfReq::named("x").unwrap();
        assert_eq!(request.with_flags(0x5002).flags(), 0x5002);
        assert_eq!(request.with_int(-2).int(), -2);
        let mac = request.with_mac(MacAddr::BACKEND);
        assert_eq!(
            mac.value[..10],
            [1, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]
        );
        assert_eq!(mac.mac(), MacAddr::BACKEND);
        let ip = request.with_ipv4(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(ip.value[..10], [2, 0, 0, 0, 192, 0, 2, 1, 0, 0]);
    }
}
