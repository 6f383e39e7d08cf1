// SPDX-License-Identifier: GPL-3.0-or-later
//! Offloads, translated between netif's flags and extras and the tap's virtio header.
//!
//! | netif                       | virtio_net_hdr                          |
//! |-----------------------------|-----------------------------------------|
//! | csum_blank                  | NEEDS_CSUM, start and offset            |
//! | data_validated without it   | DATA_VALID                              |
//! | neither                     | no flag                                 |
//! | GSO extra: TCPv4 or TCPv6   | gso_type TCPV4 or TCPV6, and hdr_len    |
//! | its size                    | gso_size                                |
//!
//! (UDP_L4 is not netif's: see `train`.)
//!
//! netif says only *that* the checksum is blank or the frame is to be segmented; the header says
//! *where* the checksum and the headers are, so a frame from the guest is parsed. Towards the
//! guest, a checksum stays blank if the frontend can take it for the frame's protocol; only for
//! one that cannot is it computed here. Frontends take a blank checksum directly behind the
//! Ethernet header only (Linux's netfront drops a tagged frame that has one), so behind a VLAN tag
//! it is computed too, and a tagged frame that is to be segmented has to be cut before (`cut`).

use xen_ring::netif::{Gso, GsoKind, RxFlags, TxCsum};

use super::counters::DropReason;
use super::feature::{Feature, Features};
use super::headers::{Network, Protocol, Transport, fill_checksum, transport};
use super::vnet::{Csum, Segments, VnetHdr};

/// The header for a frame that the guest sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForTap {
    /// The header.
    pub header: VnetHdr,
    /// The guest wants segments of a frame whose checksum it did not leave blank; that was
    /// mended, as Linux does.
    pub repaired: bool,
}

/// Makes the header for a frame that the guest sent. A frame to be segmented whose checksum is
/// not blank is made so in place, since segments need checksums of their own.
///
/// # Errors
///
/// [`DropReason::NoChecksumPlace`] when the checksum is blank and the frame is not whole TCP or
/// UDP; [`DropReason::BadOffload`] when the frame is to be segmented and is not what the guest
/// says it is.
pub fn header_for_tap(
    csum: TxCsum,
    gso: Option<Gso>,
    frame: &mut [u8],
) -> Result<ForTap, DropReason> {
    let complete = |csum| {
        Ok(ForTap {
            header: VnetHdr { csum, gso: None },
            repaired: false,
        })
    };
    match (csum, gso) {
        (TxCsum::Complete, None) => return complete(Csum::Unknown),
        (TxCsum::Validated, None) => return complete(Csum::Valid),
        (TxCsum::Blank, _) | (_, Some(_)) => {}
    }
    let found = transport(frame).ok_or(DropReason::NoChecksumPlace)?;
    let gso = match gso {
        None => None,
        Some(gso) => Some(found.segments(gso, frame).ok_or(DropReason::BadOffload)?),
    };
    let repaired = csum != TxCsum::Blank;
    if repaired {
        found.blank_checksum(frame).ok_or(DropReason::BadOffload)?;
    }
    let csum = Csum::Blank {
        start: found.start,
        offset: found.protocol.checksum_offset(),
    };
    Ok(ForTap {
        header: VnetHdr { csum, gso },
        repaired,
    })
}

impl Features {
    fn takes_blank(self, found: Transport) -> bool {
        match found.network {
            Network::V4 => self.has(Feature::CsumV4) && !found.tagged,
            Network::V6 => self.has(Feature::CsumV6) && !found.tagged,
        }
    }

    fn takes_segments(self, gso: Gso, found: Transport) -> bool {
        match (gso.kind, found.network) {
            (GsoKind::TcpV4, Network::V4) => self.has(Feature::GsoTcpv4),
            (GsoKind::TcpV6, Network::V6) => self.has(Feature::GsoTcpv6),
            _ => false,
        }
    }
}

/// What the guest is told of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForGuest {
    /// The first slot's flags.
    pub flags: RxFlags,
    /// The extra info behind it.
    pub gso: Option<Gso>,
}

/// Flags and extra for a frame on its way to the guest, which the frontend [takes](is_taken_whole) in
/// one piece. Computes the checksum in place when it is blank and the frontend cannot leave it so.
///
/// # Errors
///
/// [`DropReason::BadFromTap`] when the header contradicts the frame.
pub fn describe_for_guest(
    header: VnetHdr,
    frame: &mut [u8],
    features: Features,
) -> Result<ForGuest, DropReason> {
    if let Some(Segments { gso, .. }) = header.gso {
        debug_assert!(is_taken_whole(header, frame, features));
        return Ok(ForGuest::blank(Some(gso)));
    }
    match header.csum {
        Csum::Unknown => Ok(ForGuest::default()),
        Csum::Valid => Ok(ForGuest::VALID),
        Csum::Blank { .. } if left_blank(header, frame, features).is_some() => {
            Ok(ForGuest::blank(None))
        }
        Csum::Blank { start, offset } => {
            fill_checksum(frame, start, offset).ok_or(DropReason::BadFromTap)?;
            Ok(ForGuest::VALID)
        }
    }
}

/// Whether the frontend takes a frame in one piece: one that is not to be segmented, or that it can
/// have segmented itself.
pub fn is_taken_whole(header: VnetHdr, frame: &[u8], features: Features) -> bool {
    header.gso.is_none_or(|Segments { gso, .. }| {
        let found = left_blank(header, frame, features);
        found.is_some_and(|found| features.takes_segments(gso, found))
    })
}

/// The transport header of a frame whose checksum is blank, and can stay so for the frontend.
fn left_blank(header: VnetHdr, frame: &[u8], features: Features) -> Option<Transport> {
    let Csum::Blank { start, offset } = header.csum else {
        return None;
    };
    transport(frame)
        .filter(|found| found.is_checksummed_at(start, offset) && features.takes_blank(*found))
}

impl ForGuest {
    const VALID: Self = Self {
        flags: RxFlags::DATA_VALIDATED,
        gso: None,
    };

    fn blank(gso: Option<Gso>) -> Self {
        Self {
            flags: RxFlags::CSUM_BLANK.with(RxFlags::DATA_VALIDATED),
            gso,
        }
    }
}

impl Transport {
    fn is_checksummed_at(self, start: u16, offset: u16) -> bool {
        self.start == start && self.protocol.checksum_offset() == offset
    }

    /// The frame's segmentation, if the frame is TCP over the protocol that the guest says.
    fn segments(self, gso: Gso, frame: &[u8]) -> Option<Segments> {
        let network = match gso.kind {
            GsoKind::TcpV4 => Network::V4,
            GsoKind::TcpV6 => Network::V6,
        };
        let is_so = self.protocol == Protocol::Tcp && self.network == network;
        is_so.then(|| self.headers(frame).map(|headers| Segments { gso, headers }))?
    }
}

#[cfg(test)]
mod tests;
