// SPDX-License-Identifier: GPL-3.0-or-later
//! XDP headroom: the room that a frontend wants before the data in each of its rx buffers, for a
//! program of its own to put headers there (netif.h of Linux, "xdp-headroom").
//!
//! A number that the guest wrote decides where in its pages we write, so it is a type that is
//! right by construction: no headroom leads out of a page (netif.h's own limit of 32767 would).

use xen_ring::PAGE_SIZE;

use super::feature::{Feature, Features};

/// Bytes before the data in each rx buffer; 0 where the frontend wants none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Headroom(u16);

impl Headroom {
    /// What a frontend without an XDP program wants.
    pub const NONE: Self = Self(0);
    /// The most: what a page has left over beside an ordinary frame with its VLAN tag, which an
    /// XDP program gets in one piece or not at all.
    pub const MAX: Self = Self(4096 - 1518);

    /// The headroom of so many bytes, if there may be such a one.
    pub fn new(bytes: u32) -> Option<Self> {
        let bytes = u16::try_from(bytes).ok().map(Self)?;
        (bytes <= Self::MAX).then_some(bytes)
    }

    /// The bytes.
    pub const fn bytes(self) -> u16 {
        self.0
    }

    /// Whether there is none.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// What can be left to a frontend that has `features`. Under an XDP program there are
    /// no frames to be segmented: a program sees one buffer, and Linux's netfront drops frames of
    /// several as long as it has one.
    pub fn limit(self, features: Features) -> Features {
        if self.is_none() {
            features
        } else {
            features.without(&[Feature::GsoTcpv4, Feature::GsoTcpv6])
        }
    }

    /// Bytes of a frame that one buffer holds.
    pub fn room(self) -> usize {
        PAGE_SIZE - usize::from(self.0)
    }
}

const _: () = assert!(PAGE_SIZE == 4096);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_leads_out_of_its_page() {
        for good in [0, 1, 256, 2578] {
            let headroom = Headroom::new(good).unwrap();
            assert_eq!(u32::from(headroom.bytes()), good);
            assert_eq!(headroom.room() + usize::from(headroom.bytes()), PAGE_SIZE);
            assert_eq!(headroom.is_none(), good == 0);
        }
        for bad in [2579, 4095, 4096, 32_767, 65_535, 65_536, 65_792, u32::MAX] {
            assert_eq!(Headroom::new(bad), None, "{bad}");
        }
    }
}
