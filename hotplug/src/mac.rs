// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ethernet addresses in the one form that xenstore and the toolstack use: `aa:bb:cc:dd:ee:ff`.
//!
//! Parsing is strict, so that a string from xenstore either is an address or is an error that can be shown.

use std::fmt;
use std::str::FromStr;

/// An Ethernet (MAC) address, in the order in which its bytes are sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of every backend-side vif interface. It is the highest unicast address there is, so a bridge
    /// never takes it for its own, and NetworkManager knows it as one to leave alone.
    pub const BACKEND: Self = Self([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]);

    /// The six bytes.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether the group bit is set: such an address can never be that of an interface.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 != 0
    }
}

/// Why a string is not an Ethernet address. Carries the string, escaped and cut short for a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not an Ethernet address: expected six pairs of hexadecimal digits as in 00:16:3e:01:02:03"
)]
pub struct MacParseError(String);

impl FromStr for MacAddr {
    type Err = MacParseError;

    /// Accepts exactly six pairs of hexadecimal digits of either case with `:` between them, and nothing around.
    fn from_str(text: &str) -> Result<Self, MacParseError> {
        let wrong = || MacParseError(format!("{:?}", text.chars().take(40).collect::<String>()));
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        match parts.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacAddr({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_either_case_and_prints_lower() {
        let mac: MacAddr = "00:16:3E:aB:Cd:0f".parse().unwrap();
        assert_eq!(mac.octets(), [0x00, 0x16, 0x3e, 0xab, 0xcd, 0x0f]);
        assert_eq!(mac.to_string(), "00:16:3e:ab:cd:0f");
        assert_eq!(MacAddr::BACKEND.to_string(), "fe:ff:ff:ff:ff:ff");
        assert_eq!("fe:ff:ff:ff:ff:ff".parse(), Ok(MacAddr::BACKEND));
        assert!(!MacAddr::BACKEND.is_multicast());
        assert!(MacAddr([0x01, 0, 0x5e, 0, 0, 1]).is_multicast());
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            ":",
            "00:16:3e:00:00",
            "00:16:3e:00:00:01:02",
            "00:16:3e:00:00:1",
            "00:16:3e:00:00:001",
            "00-16-3e-00-00-01",
            "00163e000001",
            " 00:16:3e:00:00:01",
            "00:16:3e:00:00:01\n",
            "00:16:3e:00:00:+1",
            "00:16:3e:00:00:g1",
            "00:16:3e:00:00:é",
            "00:16:3e:00:00:01:",
        ] {
            let got = text.parse::<MacAddr>();
            assert!(got.is_err(), "{text:?} was taken for {got:?}");
        }
        let error = "\u{1b}[31mred".parse::<MacAddr>().unwrap_err().to_string();
        assert!(error.starts_with("\"\\u{1b}[31mred\" is not"), "{error}");
        assert!(
            "x".repeat(5000)
                .parse::<MacAddr>()
                .unwrap_err()
                .to_string()
                .len()
                < 160
        );
    }

    proptest! {
        #[test]
        fn prints_what_it_parses(octets: [u8; 6]) {
            let mac = MacAddr(octets);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>(), Ok(mac));
            prop_assert_eq!(mac.to_string().to_uppercase().parse::<MacAddr>(), Ok(mac));
        }

        #[test]
        fn never_panics(text: String) {
            let _ = text.parse::<MacAddr>();
        }
    }
}
