// SPDX-License-Identifier: GPL-3.0-or-later
//! Checksum offload, translated between netif's flags and the tap's virtio header.
//!
//! | netif                       | virtio_net_hdr               |
//! |-----------------------------|------------------------------|
//! | csum_blank                  | NEEDS_CSUM, start and offset |
//! | data_validated without it   | DATA_VALID                   |
//! | neither                     | no flag                      |
//!
//! netif says only *that* the checksum is blank; the header says *where* it belongs, so a frame
//! from the guest is parsed. Towards the guest, a checksum stays blank if the frontend can take
//! it for the frame's protocol; only for one that cannot is it computed here.

use xen_ring::netif::{RxFlags, TxCsum};

use super::counters::DropReason;
use super::headers::{Network, Transport, fill_checksum, transport};
use super::vnet::{Csum, VnetHdr};

/// The header for a frame that the guest sent.
///
/// # Errors
///
/// [`DropReason::NoChecksumPlace`] when the checksum is blank and the frame is not whole TCP or
/// UDP.
pub fn header_for_tap(csum: TxCsum, frame: &[u8]) -> Result<VnetHdr, DropReason> {
    let csum = match csum {
        TxCsum::Complete => Csum::Unknown,
        TxCsum::Validated => Csum::Valid,
        TxCsum::Blank => {
            let found = transport(frame).ok_or(DropReason::NoChecksumPlace)?;
            Csum::Blank {
                start: found.start,
                offset: found.protocol.checksum_offset(),
            }
        }
    };
    Ok(VnetHdr { csum })
}

/// Which blank checksums a frontend accepts (`feature-no-csum-offload` and
/// `feature-ipv6-csum-offload`, netif.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChecksumOffload {
    /// For TCP and UDP over IPv4.
    pub v4: bool,
    /// For TCP and UDP over IPv6.
    pub v6: bool,
}

impl ChecksumOffload {
    /// Whether the tap may deliver blank checksums at all.
    pub fn any(self) -> bool {
        self.v4 || self.v6
    }

    fn accepts(self, network: Network) -> bool {
        match network {
            Network::V4 => self.v4,
            Network::V6 => self.v6,
        }
    }
}

/// The flags for a frame on its way to the guest. Computes the checksum in place when it is
/// blank and the frontend cannot leave it so.
///
/// # Errors
///
/// [`DropReason::BadFromTap`] when the header points outside the frame.
pub fn flags_for_guest(
    header: VnetHdr,
    frame: &mut [u8],
    offload: ChecksumOffload,
) -> Result<RxFlags, DropReason> {
    match header.csum {
        Csum::Unknown => Ok(RxFlags::default()),
        Csum::Valid => Ok(RxFlags::DATA_VALIDATED),
        Csum::Blank { start, offset } => {
            let stays_blank = transport(frame).is_some_and(|found| {
                found.is_checksummed_at(start, offset) && offload.accepts(found.network)
            });
            if stays_blank {
                return Ok(RxFlags::CSUM_BLANK.with(RxFlags::DATA_VALIDATED));
            }
            fill_checksum(frame, start, offset).ok_or(DropReason::BadFromTap)?;
            Ok(RxFlags::DATA_VALIDATED)
        }
    }
}

impl Transport {
    fn is_checksummed_at(self, start: u16, offset: u16) -> bool {
        self.start == start && self.protocol.checksum_offset() == offset
    }
}

#[cfg(test)]
mod tests;
