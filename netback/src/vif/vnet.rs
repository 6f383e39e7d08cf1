// SPDX-License-Identifier: GPL-3.0-or-later
//! The header that stands before every frame on the tap: `struct virtio_net_hdr_mrg_rxbuf`.
//!
//! Fields are little-endian (the tap is set so, and so are Xen's guests); lengths are bytes
//! (virtio specification 1.2, section 5.1.6). The last field, `num_buffers`, is always 0: a tap
//! ignores it. The ECN bit of the segmentation type is never asked for and never sent, since
//! netif cannot express it.

pub use hotplug::tap::VNET_HDR_LEN;
use xen_ring::netif::{Gso, GsoKind};

use super::headers::Protocol;

const FLAG_NEEDS_CSUM: u8 = 1;
const FLAG_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

/// What the header says of the frame behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHdr {
    /// The state of the transport checksum.
    pub csum: Csum,
    /// How the frame is to be cut into segments, if it is.
    pub gso: Option<Segments>,
}

/// The state of a frame's transport checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Csum {
    /// Present, and nobody vouches for it.
    #[default]
    Unknown,
    /// Present or not needed: the sender vouches for the data.
    Valid,
    /// Blank: the field at `start + offset` holds the pseudo-header's sum only, and the sum is to
    /// be taken from `start` to the end of the frame. Both in bytes, `start` from the frame's
    /// first byte.
    Blank {
        /// Where the transport header begins.
        start: u16,
        /// Where in the transport header the checksum field is.
        offset: u16,
    },
}

/// A frame that stands for several: TCP segments with the same headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// The protocol, and the payload bytes of each segment.
    pub gso: Gso,
    /// Bytes of all headers, Ethernet to TCP.
    pub headers: u16,
}

/// The tap delivered a header that netif has no words for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VnetError {
    /// A segmentation offload that netif does not have, or a segment size of 0.
    #[error("the tap delivered a frame with segmentation type {kind} and size {size}")]
    Gso {
        /// `gso_type`.
        kind: u8,
        /// `gso_size`, in bytes.
        size: u16,
    },
}

impl VnetHdr {
    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; VNET_HDR_LEN] {
        let (flags, start, offset) = match self.csum {
            Csum::Unknown => (0, 0, 0),
            Csum::Valid => (FLAG_DATA_VALID, 0, 0),
            Csum::Blank { start, offset } => (FLAG_NEEDS_CSUM, start, offset),
        };
        let (kind, size, headers) = match self.gso {
            None => (GSO_NONE, 0, 0),
            Some(Segments {
                gso: Gso { size, kind },
                headers,
            }) => match kind {
                GsoKind::TcpV4 => (GSO_TCPV4, size, headers),
                GsoKind::TcpV6 => (GSO_TCPV6, size, headers),
            },
        };
        words(flags, kind, [headers, size, start, offset])
    }

    /// The bytes of the header of a frame that stands for several UDP datagrams, with `size` bytes
    /// of payload each; the UDP header begins at `start`. Only taps of newer kernels take it.
    pub(super) fn of_datagrams(start: u16, size: u16) -> [u8; VNET_HDR_LEN] {
        let udp = Protocol::Udp;
        let headers = start.saturating_add(udp.header_len());
        let fields = [headers, size, start, udp.checksum_offset()];
        words(FLAG_NEEDS_CSUM, GSO_UDP_L4, fields)
    }

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// [`VnetError`] for a frame that the tap was not told to deliver.
    pub fn from_bytes(bytes: [u8; VNET_HDR_LEN]) -> Result<Self, VnetError> {
        let [flags, kind, h0, h1, g0, g1, s0, s1, o0, o1, _, _] = bytes;
        let size = u16::from_le_bytes([g0, g1]);
        let headers = u16::from_le_bytes([h0, h1]);
        let segments = |kind| {
            Some(Segments {
                gso: Gso { size, kind },
                headers,
            })
        };
        let gso = match kind {
            GSO_NONE => None,
            GSO_TCPV4 if size > 0 => segments(GsoKind::TcpV4),
            GSO_TCPV6 if size > 0 => segments(GsoKind::TcpV6),
            _ => return Err(VnetError::Gso { kind, size }),
        };
        let csum = if flags & FLAG_NEEDS_CSUM != 0 {
            let [start, offset] = [[s0, s1], [o0, o1]].map(u16::from_le_bytes);
            Csum::Blank { start, offset }
        } else if flags & FLAG_DATA_VALID != 0 {
            Csum::Valid
        } else {
            Csum::Unknown
        };
        Ok(Self { csum, gso })
    }
}

/// `fields` are `hdr_len`, `gso_size`, `csum_start` and `csum_offset`.
fn words(flags: u8, kind: u8, fields: [u16; 4]) -> [u8; VNET_HDR_LEN] {
    let [[h0, h1], [g0, g1], [s0, s1], [o0, o1]] = fields.map(u16::to_le_bytes);
    [flags, kind, h0, h1, g0, g1, s0, s1, o0, o1, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A virtio header by the specification's field table: flags 1, type 5.
    #[test]
    fn datagrams_are_told_by_the_place_of_their_header_and_their_size() {
        let header = VnetHdr::of_datagrams(34, 0x0102);
        assert_eq!(header, [1, 5, 42, 0, 2, 1, 34, 0, 6, 0, 0, 0]);
    }

    #[test]
    fn golden_bytes() {
        let blank = VnetHdr {
            csum: Csum::Blank {
                start: 34,
                offset: 16,
            },
            gso: None,
        };
        let valid = VnetHdr {
            csum: Csum::Valid,
            gso: None,
        };
        let segments = |size, kind, headers| {
            Some(Segments {
                gso: Gso { size, kind },
                headers,
            })
        };
        let tcp4 = VnetHdr {
            gso: segments(1448, GsoKind::TcpV4, 66),
            ..blank
        };
        let tcp6 = VnetHdr {
            gso: segments(1428, GsoKind::TcpV6, 86),
            ..blank
        };
        for (header, bytes) in [
            (VnetHdr::default(), [0; 12]),
            (valid, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (blank, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]),
            (tcp4, [1, 1, 66, 0, 0xa8, 0x05, 34, 0, 16, 0, 0, 0]),
            (tcp6, [1, 4, 86, 0, 0x94, 0x05, 34, 0, 16, 0, 0, 0]),
        ] {
            assert_eq!(header.to_bytes(), bytes);
            assert_eq!(VnetHdr::from_bytes(bytes), Ok(header));
        }
    }

    #[test]
    fn segmentation_that_netif_does_not_have_is_an_error() {
        // Size 0; UDP fragments; UDP segments; TCP over IPv4 with ECN.
        for (kind, size) in [(1, 0_u8), (4, 0), (3, 8), (5, 8), (0x81, 8)] {
            let bytes = [0, kind, 0, 0, size, 0, 0, 0, 0, 0, 0, 0];
            let error = VnetError::Gso {
                kind,
                size: u16::from(size),
            };
            assert_eq!(VnetHdr::from_bytes(bytes), Err(error));
        }
    }
}
