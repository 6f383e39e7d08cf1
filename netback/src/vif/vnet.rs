// SPDX-License-Identifier: GPL-3.0-or-later
//! The header that stands before every frame on the tap: `struct virtio_net_hdr_mrg_rxbuf`.
//!
//! Fields are little-endian (the tap is set so, and so are Xen's guests); lengths are bytes
//! (virtio specification 1.2, section 5.1.6). The last field, `num_buffers`, is always 0: a tap
//! ignores it.

/// Bytes of the header on the tap.
pub const VNET_HDR_LEN: usize = 12;

const FLAG_NEEDS_CSUM: u8 = 1;
const FLAG_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;

/// What the header says of the frame behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHdr {
    /// The state of the transport checksum.
    pub csum: Csum,
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

/// The tap delivered a header that this vif never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VnetError {
    /// A segmentation offload that was not switched on.
    #[error("the tap delivered a frame with segmentation type {0}, which is not switched on")]
    Gso(u8),
}

impl VnetHdr {
    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; VNET_HDR_LEN] {
        let (flags, start, offset) = match self.csum {
            Csum::Unknown => (0, 0, 0),
            Csum::Valid => (FLAG_DATA_VALID, 0, 0),
            Csum::Blank { start, offset } => (FLAG_NEEDS_CSUM, start, offset),
        };
        let [start_lo, start_hi] = start.to_le_bytes();
        let [offset_lo, offset_hi] = offset.to_le_bytes();
        [
            flags, GSO_NONE, 0, 0, 0, 0, start_lo, start_hi, offset_lo, offset_hi, 0, 0,
        ]
    }

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// [`VnetError`] for a frame that the tap was not told to deliver.
    pub fn from_bytes(bytes: [u8; VNET_HDR_LEN]) -> Result<Self, VnetError> {
        let [
            flags,
            gso,
            _,
            _,
            _,
            _,
            start_lo,
            start_hi,
            offset_lo,
            offset_hi,
            _,
            _,
        ] = bytes;
        if gso != GSO_NONE {
            return Err(VnetError::Gso(gso));
        }
        let csum = if flags & FLAG_NEEDS_CSUM != 0 {
            Csum::Blank {
                start: u16::from_le_bytes([start_lo, start_hi]),
                offset: u16::from_le_bytes([offset_lo, offset_hi]),
            }
        } else if flags & FLAG_DATA_VALID != 0 {
            Csum::Valid
        } else {
            Csum::Unknown
        };
        Ok(Self { csum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let blank = VnetHdr {
            csum: Csum::Blank {
                start: 34,
                offset: 16,
            },
        };
        for (header, bytes) in [
            (VnetHdr::default(), [0; 12]),
            (
                VnetHdr { csum: Csum::Valid },
                [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            (blank, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]),
        ] {
            assert_eq!(header.to_bytes(), bytes);
            assert_eq!(VnetHdr::from_bytes(bytes), Ok(header));
        }
    }

    #[test]
    fn unasked_segmentation_is_an_error() {
        let bytes = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(VnetHdr::from_bytes(bytes), Err(VnetError::Gso(1)));
    }
}
