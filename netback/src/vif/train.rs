// SPDX-License-Identifier: GPL-3.0-or-later
//! What goes to the tap with one write: a frame of the guest's, or a train of them.
//!
//! A train is datagrams that the guest sent one after another, of one flow and one size (the last
//! may be shorter), joined into one frame that says how to cut it up again: the UDP segmentation
//! offload of virtio (specification 1.2, section 5.1.6, `VIRTIO_NET_HDR_GSO_UDP_L4`). The host's
//! stack handles the train as one packet and cuts it where the datagrams part: before a socket,
//! before a network card that does not cut by itself, before another guest. So a flood of small
//! packets costs the host a fraction.
//!
//! What arrives is what was sent, but for IPv4 identifications that mean nothing (the host counts
//! them up from the first) and for a pseudo-header's sum that was wrong (a train has a right one).
//! On its way, whoever looks at packets sees one with the first datagram's beginning: a capture, a
//! packet filter that counts or looks into payloads, a program that spreads a port over sockets by
//! their payload, an ICMP error. It is so with a virtio guest that sends in this manner, too; an
//! administrator who minds has `tap.join-datagrams`.
//!
//! Nothing is reordered, and nothing waits: a train is of one burst. None of its datagrams is longer
//! than the tap's MTU allows, since nobody behind the tap compares the length of what is to be cut.
//! Called by the tx half of a queue pair; works on the private copies of the frames.

use std::ops::Range;

use arrayvec::ArrayVec;

use super::headers::{Network, Protocol, Transport, fold, ipv4_checksum};
use super::vnet::{Csum, VNET_HDR_LEN, VnetHdr};
use super::workbench::{BURST_FRAMES, FRAME_MAX};

/// Linux refuses longer trains (`UDP_MAX_SEGMENTS`, include/linux/udp.h; 128 in newer versions).
const _: () = assert!(BURST_FRAMES <= 64);

/// What a burst writes to the tap, in order.
#[derive(Debug)]
pub(super) struct Writes {
    list: ArrayVec<Write, BURST_FRAMES>,
    /// The train that the last write may still become.
    open: Option<Train>,
    /// The longest frame that may be joined, in bytes; 0 for none.
    longest: usize,
}

/// One write to the tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    /// The virtio header and the frame, in the buffers.
    pub(super) on_tap: Range<usize>,
    /// Frames of the guest's in it.
    pub(super) frames: usize,
    /// Their bytes, Ethernet headers included.
    pub(super) bytes: usize,
}

impl Writes {
    /// None yet. Frames of no more than `longest` bytes may be joined.
    pub(super) const fn new(longest: usize) -> Self {
        Self {
            list: ArrayVec::new_const(),
            open: None,
            longest,
        }
    }

    /// Adds a frame of the guest's that stands in the buffers, behind all that was added before and
    /// with room for `header` before it.
    pub(super) fn add(&mut self, buffers: &mut [u8], frame: Range<usize>, header: VnetHdr) {
        let bytes = buffers.get(frame.clone()).unwrap_or_default();
        let datagram = match frame.len() <= self.longest {
            true => Datagram::of(bytes, header),
            false => None,
        };
        if let Some((train, datagram)) = self.open.as_mut().zip(datagram)
            && let Some(write) = self.list.last_mut()
            && train.admit(buffers, &frame, datagram)
        {
            write.frames += 1;
            write.bytes += frame.len();
            write.on_tap.end = train.end;
            return;
        }
        self.seal(buffers);
        let on_tap = frame.start - VNET_HDR_LEN..frame.end;
        if let Some(place) = buffers.get_mut(on_tap.start..frame.start) {
            place.copy_from_slice(&header.to_bytes());
        }
        self.open = datagram.map(|datagram| Train::begin(&frame, datagram));
        self.list.push(Write {
            on_tap,
            frames: 1,
            bytes: frame.len(),
        });
    }

    /// All that is to be written; the buffers are ready for it.
    pub(super) fn finish(&mut self, buffers: &mut [u8]) -> &[Write] {
        self.seal(buffers);
        &self.list
    }

    /// Nothing may join the last write any more.
    fn seal(&mut self, buffers: &mut [u8]) {
        let ended = self.open.take().zip(self.list.last());
        if let Some((train, write)) = ended.filter(|(_, write)| write.frames > 1) {
            let bytes = buffers.get_mut(write.on_tap.clone()).unwrap_or_default();
            train.seal(bytes);
        }
    }
}

/// What of a datagram decides whether it can be part of a train.
#[derive(Debug, Clone, Copy)]
struct Datagram {
    network: Network,
    /// Bytes behind the headers.
    payload: usize,
    /// What differs between the IPv4 headers of a train.
    v4: Option<Numbered>,
}

/// An IPv4 header's identification, and the sum of all of its fields that may differ from the
/// header before: those with a right checksum have the same.
#[derive(Debug, Clone, Copy)]
struct Numbered {
    id: u16,
    sum: u16,
}

impl Datagram {
    /// `None` for every frame but a UDP datagram with a blank checksum, directly behind an Ethernet
    /// header and an IP header without options, and with nothing behind it.
    fn of(frame: &[u8], header: VnetHdr) -> Option<Self> {
        let Csum::Blank { start, offset } = header.csum else {
            return None;
        };
        if offset != Protocol::Udp.checksum_offset() || header.gso.is_some() {
            return None;
        }
        let (network, v4) = match (start, frame.get(12..14)?) {
            (IPV4_UDP, [0x08, 0x00]) => {
                let ip: &[u8; 20] = frame.get(14..)?.first_chunk()?;
                let len = u16::from_be_bytes([ip[2], ip[3]]);
                if ip[0] != 0x45 || usize::from(len) != frame.len() - 14 {
                    return None;
                }
                let [id, checksum] = [[ip[4], ip[5]], [ip[10], ip[11]]].map(u16::from_be_bytes);
                let sum = fold(u32::from(id) + u32::from(checksum) + u32::from(len));
                (Network::V4, Some(Numbered { id, sum }))
            }
            (IPV6_UDP, [0x86, 0xdd]) => {
                let ip: &[u8; 40] = frame.get(14..)?.first_chunk()?;
                let len = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
                // The next header is UDP's, and not an extension.
                if ip[6] != 17 || len != frame.len() - 54 {
                    return None;
                }
                (Network::V6, None)
            }
            _ => return None,
        };
        let udp: &[u8; 8] = frame.get(start.into()..)?.first_chunk()?;
        let len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        let payload = len.checked_sub(8).filter(|payload| *payload > 0)?;
        (usize::from(start) + len == frame.len()).then_some(Self {
            network,
            payload,
            v4,
        })
    }
}

/// Where UDP stands directly behind Ethernet and IP, in bytes from the frame's first.
const IPV4_UDP: u16 = 14 + 20;
const IPV6_UDP: u16 = 14 + 40;

/// A datagram that others may follow, and those that have.
#[derive(Debug)]
struct Train {
    first: Datagram,
    /// Where the first frame begins, and where the last payload ends.
    begin: usize,
    end: usize,
    /// The last one's identification.
    id: u16,
    /// How the identifications go on; `None` as long as there is one datagram.
    ids: Option<Ids>,
    /// Nothing can follow.
    full: bool,
}

/// How the identifications of a train's datagrams follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// By one each: just as the host will count them.
    Counted,
    /// All are the same, and none may be fragmented, so that they mean nothing (RFC 6864,
    /// section 4). Linux's are so where a socket is not connected. Or there are none, in IPv6.
    Meaningless,
}

impl Train {
    fn begin(frame: &Range<usize>, first: Datagram) -> Self {
        Self {
            first,
            begin: frame.start,
            end: frame.end,
            id: first.v4.map(|numbered| numbered.id).unwrap_or_default(),
            ids: None,
            full: false,
        }
    }

    /// Takes up the next frame if it belongs to the train: its payload goes behind the last one's.
    fn admit(&mut self, buffers: &mut [u8], frame: &Range<usize>, next: Datagram) -> bool {
        let fits = self.end + next.payload <= self.begin + FRAME_MAX;
        if self.full || !fits || next.payload > self.first.payload {
            return false;
        }
        let Some(ids) = self.follows(buffers, frame, next) else {
            return false;
        };
        let payload = frame.end - next.payload..frame.end;
        // Frames lie behind each other, so this goes to the front, and over nothing but what has
        // been taken up.
        buffers.copy_within(payload, self.end);
        self.end += next.payload;
        self.id = next.v4.map(|numbered| numbered.id).unwrap_or_default();
        self.ids = Some(ids);
        self.full = next.payload < self.first.payload;
        true
    }

    /// How the next datagram's identification follows, if it is of this flow, with the same headers.
    fn follows(&self, buffers: &[u8], frame: &Range<usize>, next: Datagram) -> Option<Ids> {
        let ours = buffers.get(self.begin..)?;
        let theirs = buffers.get(frame.clone())?;
        let ids = match (self.first.v4, next.v4) {
            (Some(first), Some(numbered)) => {
                let same = first.sum == numbered.sum
                    && ours.get(..16)? == theirs.get(..16)?
                    // Flags, lifetime and protocol; addresses and ports.
                    && ours.get(20..24)? == theirs.get(20..24)?
                    && ours.get(26..38)? == theirs.get(26..38)?;
                let never_fragmented = ours.get(20)? & 0x40 != 0;
                match numbered.id.wrapping_sub(self.id) {
                    _ if !same => return None,
                    1 => Ids::Counted,
                    0 if never_fragmented => Ids::Meaningless,
                    _ => return None,
                }
            }
            // Traffic class and flow label; next header, hop limit, addresses and ports.
            (None, None)
                if ours.get(..18)? == theirs.get(..18)?
                    && ours.get(20..58)? == theirs.get(20..58)? =>
            {
                Ids::Meaningless
            }
            _ => return None,
        };
        // The first one's header is looked at once, when it matters; the others have the same sum.
        let good = match self.ids {
            None => self.first.v4.is_none() || ipv4_checksum(ours.get(14..34)?) == 0,
            Some(before) => before == ids,
        };
        good.then_some(ids)
    }

    /// Makes one frame of all, whose headers tell of the whole. `bytes` are the virtio header's and
    /// the frame's.
    fn seal(self, bytes: &mut [u8]) {
        let Some((header, frame)) = bytes.split_first_chunk_mut::<VNET_HDR_LEN>() else {
            return; // A frame has room before it.
        };
        let start = match self.first.network {
            Network::V4 => IPV4_UDP,
            Network::V6 => IPV6_UDP,
        };
        let transport = Transport {
            network: self.first.network,
            network_start: 14,
            protocol: Protocol::Udp,
            start,
            tagged: false,
        };
        let fits = transport.fit(frame);
        debug_assert!(
            fits.is_some(),
            "the headers have been read, so they are there, and it is no longer than the longest frame"
        );
        let size = u16::try_from(self.first.payload).unwrap_or_default();
        *header = VnetHdr::of_datagrams(start, size);
    }
}

#[cfg(test)]
mod tests;
