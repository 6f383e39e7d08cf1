// SPDX-License-Identifier: MIT OR Apache-2.0
//! Extra infos: 8 bytes about the packet around them, in a slot of either ring.
//!
//! `{type u8, flags u8 (bit 0: another extra follows), body [u8; 6]}`. Types 1 to 4 are Xen's,
//! type 5 (XDP) is Linux's.

use crate::error::PeerFault;

/// One extra info slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtraSlot {
    /// What it says.
    pub extra: Extra,
    /// Whether another extra follows in the next slot.
    pub more: bool,
}

/// What an extra info says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// The packet is to be segmented.
    Gso(Gso),
    /// Add this address to the vif's multicast list.
    McastAdd([u8; 6]),
    /// Remove this address from the vif's multicast list.
    McastDel([u8; 6]),
    /// The packet's hash.
    Hash {
        /// What was hashed: 0 IPv4, 1 IPv4 with TCP, 2 IPv6, 3 IPv6 with TCP.
        kind: u8,
        /// The algorithm: 1 is Toeplitz.
        algorithm: u8,
        /// The value, least significant byte first.
        value: [u8; 4],
    },
    /// Room that was left in front of the data for an XDP program.
    Xdp {
        /// Bytes.
        headroom: u16,
    },
}

/// Segmentation of a large TCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Payload bytes per segment (the MSS).
    pub size: u16,
    /// Which protocol.
    pub kind: GsoKind,
}

impl Gso {
    /// Segments of a packet with so many bytes, counted as if all of them were payload.
    #[must_use]
    pub fn segments(self, bytes: u32) -> u32 {
        bytes.div_ceil(self.size.max(1).into()).max(1)
    }
}

/// Protocols that can be segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4 = 1,
    /// TCP over IPv6.
    TcpV6 = 2,
}

const GSO: u8 = 1;
const MCAST_ADD: u8 = 2;
const MCAST_DEL: u8 = 3;
const HASH: u8 = 4;
const XDP: u8 = 5;
/// Flag bit: another extra follows.
const MORE: u8 = 1;

impl Extra {
    /// The type's number on the wire, from 1 to 5.
    #[must_use]
    pub const fn kind(self) -> u8 {
        match self {
            Self::Gso(_) => GSO,
            Self::McastAdd(_) => MCAST_ADD,
            Self::McastDel(_) => MCAST_DEL,
            Self::Hash { .. } => HASH,
            Self::Xdp { .. } => XDP,
        }
    }
}

impl ExtraSlot {
    /// Reads an extra info from a private copy of its 8 bytes.
    ///
    /// # Errors
    ///
    /// Unknown type; GSO with size 0 or of an unknown type. All are fatal for the vif, as in
    /// Linux's netback.
    pub const fn from_bytes(bytes: [u8; 8]) -> Result<Self, PeerFault> {
        let [kind, flags, body @ ..] = bytes;
        let [b0, b1, b2, b3, b4, b5] = body;
        let extra = match kind {
            GSO => {
                let size = u16::from_le_bytes([b0, b1]);
                let kind = match b2 {
                    1 => GsoKind::TcpV4,
                    2 => GsoKind::TcpV6,
                    kind => return Err(PeerFault::UnknownGso { kind }),
                };
                if size == 0 {
                    return Err(PeerFault::GsoSizeZero);
                }
                Extra::Gso(Gso { size, kind })
            }
            MCAST_ADD => Extra::McastAdd(body),
            MCAST_DEL => Extra::McastDel(body),
            HASH => Extra::Hash {
                kind: b0,
                algorithm: b1,
                value: [b2, b3, b4, b5],
            },
            XDP => Extra::Xdp {
                headroom: u16::from_le_bytes([b0, b1]),
            },
            kind => return Err(PeerFault::UnknownExtra { kind }),
        };
        Ok(Self {
            extra,
            more: flags & MORE != 0,
        })
    }

    /// Reads an extra info from the two words that it takes in a ring slot.
    ///
    /// # Errors
    ///
    /// As [`from_bytes`](Self::from_bytes).
    pub const fn from_words([first, second]: [u32; 2]) -> Result<Self, PeerFault> {
        let ([a, b, c, d], [e, f, g, h]) = (first.to_le_bytes(), second.to_le_bytes());
        Self::from_bytes([a, b, c, d, e, f, g, h])
    }

    /// The 8 bytes as they lie in the ring, padding zeroed.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        let [b0, b1, b2, b3, b4, b5] = match self.extra {
            Extra::Gso(Gso { size, kind }) => {
                let [s0, s1] = size.to_le_bytes();
                [s0, s1, kind as u8, 0, 0, 0]
            }
            Extra::McastAdd(address) | Extra::McastDel(address) => address,
            Extra::Hash {
                kind,
                algorithm,
                value: [v0, v1, v2, v3],
            } => [kind, algorithm, v0, v1, v2, v3],
            Extra::Xdp { headroom } => {
                let [h0, h1] = headroom.to_le_bytes();
                [h0, h1, 0, 0, 0, 0]
            }
        };
        [
            self.extra.kind(),
            if self.more { MORE } else { 0 },
            b0,
            b1,
            b2,
            b3,
            b4,
            b5,
        ]
    }

    /// The two words that it takes in a ring slot.
    #[must_use]
    pub const fn to_words(self) -> [u32; 2] {
        let [a, b, c, d, e, f, g, h] = self.to_bytes();
        [
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot(extra: Extra, more: bool) -> ExtraSlot {
        ExtraSlot { extra, more }
    }

    #[test]
    fn golden_bytes() {
        let mac = [0x01, 0, 0x5e, 1, 2, 3];
        let hash = Extra::Hash {
            kind: 1,
            algorithm: 1,
            value: [0xa, 0xb, 0xc, 0xd],
        };
        let gso = |kind| Extra::Gso(Gso { size: 0x05a8, kind });
        let cases: [(ExtraSlot, [u8; 8]); 6] = [
            (
                slot(gso(GsoKind::TcpV4), true),
                [1, 1, 0xa8, 0x05, 1, 0, 0, 0],
            ),
            (
                slot(gso(GsoKind::TcpV6), false),
                [1, 0, 0xa8, 0x05, 2, 0, 0, 0],
            ),
            (
                slot(Extra::McastAdd(mac), false),
                [2, 0, 0x01, 0, 0x5e, 1, 2, 3],
            ),
            (
                slot(Extra::McastDel(mac), false),
                [3, 0, 0x01, 0, 0x5e, 1, 2, 3],
            ),
            (slot(hash, false), [4, 0, 1, 1, 0xa, 0xb, 0xc, 0xd]),
            (
                slot(Extra::Xdp { headroom: 256 }, false),
                [5, 0, 0, 1, 0, 0, 0, 0],
            ),
        ];
        for (slot, bytes) in cases {
            assert_eq!(slot.to_bytes(), bytes);
            assert_eq!(ExtraSlot::from_bytes(bytes), Ok(slot));
            assert_eq!(ExtraSlot::from_words(slot.to_words()), Ok(slot));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let of = |kind, size: u16, gso| {
            let [s0, s1] = size.to_le_bytes();
            ExtraSlot::from_bytes([kind, 0, s0, s1, gso, 0, 0, 0])
        };
        for kind in [0, 6, 0xff] {
            assert_eq!(of(kind, 1, 1), Err(PeerFault::UnknownExtra { kind }));
        }
        assert_eq!(of(1, 0, 1), Err(PeerFault::GsoSizeZero));
        for kind in [0, 3, 0xff] {
            assert_eq!(of(1, 1448, kind), Err(PeerFault::UnknownGso { kind }));
        }
    }

    proptest! {
        /// Each type, with any flags and padding.
        #[test]
        fn what_makes_sense_is_accepted_and_survives(
            flags: u8,
            body: [u8; 6],
            size in 1..=u16::MAX,
            gso in 1..=2_u8,
        ) {
            let [_, _, _, b3, b4, b5] = body;
            let [s0, s1] = size.to_le_bytes();
            // The bytes after those that are meant are padding.
            for (kind, body, meant) in [
                (GSO, [s0, s1, gso, b3, b4, b5], 3),
                (MCAST_ADD, body, 6),
                (MCAST_DEL, body, 6),
                (HASH, body, 6),
                (XDP, body, 2),
            ] {
                let [b0, b1, b2, b3, b4, b5] = body;
                let slot = ExtraSlot::from_bytes([kind, flags, b0, b1, b2, b3, b4, b5]).unwrap();
                prop_assert_eq!((slot.extra.kind(), slot.more), (kind, flags & 1 != 0));
                let [written, more, back @ ..] = slot.to_bytes();
                prop_assert_eq!((written, more), (kind, flags & 1));
                prop_assert_eq!(&back[..meant], &body[..meant]);
                prop_assert_eq!(&back[meant..], &[0; 6][meant..]);
                prop_assert_eq!(ExtraSlot::from_bytes(slot.to_bytes()), Ok(slot));
            }
        }
    }
}
