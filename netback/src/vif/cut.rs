// SPDX-License-Identifier: GPL-3.0-or-later
//! A frame that is to be segmented, cut into the frames that it stands for.
//!
//! The host cuts what the guest cannot take (the tap's offloads say what that is), with one
//! exception: a frame behind a VLAN tag, which it delivers whole to any tap that takes segments,
//! and of which no frontend can take a blank checksum. Those are cut here, one segment at a time, as
//! the guest has buffers. They are rare, so it may cost an allocation; other frames of the same
//! guest are not concerned.
//!
//! Called by the rx half of a queue pair, on private copies. What comes out has a blank checksum,
//! as the host's own segments do (RFC 9293; virtio specification 1.2, section 5.1.6).

use std::num::NonZeroUsize;

use xen_ring::RingKind;
use xen_ring::netif::RxRing;

use super::headers::{Network, Protocol, Transport, be16_mut, transport};
use super::vnet::{Csum, Segments, VNET_HDR_LEN, VnetHdr};

/// More than a ring has slots would keep a guest busy with one frame.
const SEGMENTS_MAX: usize = <RxRing as RingKind>::SLOTS as usize;

/// What is left of such a frame.
#[derive(Debug)]
pub(super) struct Cut {
    /// The frame, without the header that was before it.
    frame: Vec<u8>,
    found: Transport,
    /// Bytes of all headers, Ethernet to TCP.
    headers: usize,
    /// Payload bytes of each segment but the last.
    size: usize,
    /// Payload bytes that have gone.
    done: usize,
    /// Segments that have gone.
    count: u16,
}

impl Cut {
    /// `None` for a frame that is not whole TCP with a blank checksum and a payload, or that stands
    /// for too many.
    pub(super) fn new(frame: &[u8], header: VnetHdr) -> Option<Self> {
        let Segments { gso, .. } = header.gso?;
        let found = transport(frame)?;
        let headers = usize::from(found.headers(frame)?);
        let size = NonZeroUsize::new(gso.size.into())?.get();
        let payload = frame.len() - headers;
        let blank = Csum::Blank {
            start: found.start,
            offset: Protocol::Tcp.checksum_offset(),
        };
        let whole = found.protocol == Protocol::Tcp && header.csum == blank;
        let count = payload.div_ceil(size);
        (whole && (1..=SEGMENTS_MAX).contains(&count)).then(|| Self {
            frame: frame.to_vec(),
            found,
            headers,
            size,
            done: 0,
            count: 0,
        })
    }

    /// Puts the next segment behind its header into `room`, and returns the length of both. `None`
    /// when there is none left, or no room for it.
    pub(super) fn next(&mut self, room: &mut [u8]) -> Option<usize> {
        let payload = self.frame.get(self.headers..)?;
        let end = payload.len().min(self.done + self.size);
        let part = payload
            .get(self.done..end)
            .filter(|part| !part.is_empty())?;
        let len = VNET_HDR_LEN + self.headers + part.len();
        let (header, segment) = room.get_mut(..len)?.split_first_chunk_mut()?;
        let (headers, body) = segment.split_at_mut(self.headers);
        headers.copy_from_slice(self.frame.get(..self.headers)?);
        body.copy_from_slice(part);
        let is_last = end == payload.len();
        self.renumber(segment, is_last)?;
        *header = VnetHdr {
            csum: Csum::Blank {
                start: self.found.start,
                offset: self.found.protocol.checksum_offset(),
            },
            gso: None,
        }
        .to_bytes();
        self.done = end;
        self.count = self.count.wrapping_add(1);
        Some(len)
    }

    /// Segments that are left.
    pub(super) fn left(&self) -> usize {
        let payload = self.frame.len().saturating_sub(self.headers);
        payload.saturating_sub(self.done).div_ceil(self.size)
    }

    /// Makes the headers those of this segment.
    fn renumber(&self, segment: &mut [u8], is_last: bool) -> Option<()> {
        let (ip, tcp) = (
            usize::from(self.found.network_start),
            usize::from(self.found.start),
        );
        if self.found.network == Network::V4 {
            let id = be16_mut(segment, ip + 4)?;
            *id = u16::from_be_bytes(*id)
                .wrapping_add(self.count)
                .to_be_bytes();
        }
        let number: &mut [u8; 4] = segment.get_mut(tcp + 4..)?.first_chunk_mut()?;
        let done = u32::try_from(self.done).ok()?;
        *number = u32::from_be_bytes(*number).wrapping_add(done).to_be_bytes();
        let flags = segment.get_mut(tcp + 13)?;
        if self.done > 0 {
            *flags &= !CWR;
        }
        if !is_last {
            *flags &= !(FIN | PSH);
        }
        self.found.fit(segment)
    }
}

/// Flags of a TCP header (RFC 9293, section 3.1): an end belongs to the last byte; what is said of the
/// congestion window is said once (RFC 3168, section 6.1.2).
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

#[cfg(test)]
mod tests;
