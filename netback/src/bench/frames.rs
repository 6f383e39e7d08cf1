// SPDX-License-Identifier: GPL-3.0-or-later
//! The frames that are moved: three sizes, as a Linux guest sends them, with the checksum left blank.
//!
//! They are addressed to nobody, so that the host drops them as early as it can: what is measured is the way to its
//! network stack, not the stack.

use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Address, Ipv4Packet,
    TcpPacket, TcpSeqNumber, UdpPacket,
};
use xen_ring::netif::{Gso, GsoKind};

use crate::demo::guest::checksum;
use crate::vif::vnet::{Csum, Segments, VNET_HDR_LEN, VnetHdr};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// With the timestamp option, as Linux sends it.
const TCP: usize = 32;
/// Payload of one segment: an MTU of 1500.
const SEGMENT: u16 = 1448;
/// Reserved for documentation (RFC 5737).
const FROM: Ipv4Address = Ipv4Address::new(198, 51, 100, 1);
const TO: Ipv4Address = Ipv4Address::new(198, 51, 100, 2);
/// Locally administered, and no interface's.
const NOBODY: EthernetAddress = EthernetAddress([0x02, 0, 0, 0, 0, 0x01]);
const GUEST: EthernetAddress = EthernetAddress([0x00, 0x16, 0x3e, 0, 0, 0x01]);

/// A size of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// 64 bytes: UDP, one slot.
    Small,
    /// 1514 bytes: UDP, one slot.
    Full,
    /// 65226 bytes: 45 TCP segments in one, 17 slots and an extra info.
    Segments,
}

/// A frame.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) shape: Shape,
    /// A virtio header, then the frame.
    bytes: Vec<u8>,
    /// Bytes of headers, Ethernet to transport.
    headers: usize,
}

impl Shape {
    pub(super) const ALL: [Self; 3] = [Self::Small, Self::Full, Self::Segments];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Small => "64 B",
            Self::Full => "1514 B",
            Self::Segments => "64 KB GSO",
        }
    }

    /// Bytes, Ethernet header included.
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Small => 64,
            Self::Full => 1514,
            Self::Segments => ETHERNET + IPV4 + TCP + 45 * SEGMENT as usize,
        }
    }

    /// A size that cannot be taken for this one.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Small => Self::Full,
            Self::Full | Self::Segments => Self::Small,
        }
    }

    /// Buffers that a guest must have posted to receive it: a page each, and one for an extra info.
    pub(super) const fn buffers(self) -> u32 {
        match self {
            Self::Small | Self::Full => 1,
            Self::Segments => 17,
        }
    }
}

impl Frame {
    pub(super) fn new(shape: Shape) -> Self {
        let mut bytes = vec![0x5a; VNET_HDR_LEN + shape.len()];
        let (header, frame) = bytes.split_at_mut(VNET_HDR_LEN);
        let mut ethernet = EthernetFrame::new_unchecked(&mut *frame);
        ethernet.set_dst_addr(NOBODY);
        ethernet.set_src_addr(GUEST);
        ethernet.set_ethertype(EthernetProtocol::Ipv4);
        let (headers, field) = match shape {
            Shape::Small | Shape::Full => (udp(ethernet.payload_mut()), 6),
            Shape::Segments => (tcp(ethernet.payload_mut()), 16),
        };
        checksum::blank(frame);
        let headers = ETHERNET + IPV4 + headers;
        let words = VnetHdr {
            csum: Csum::Blank {
                start: small(ETHERNET + IPV4),
                offset: field,
            },
            gso: (shape == Shape::Segments).then_some(Segments {
                gso: Gso {
                    size: SEGMENT,
                    kind: GsoKind::TcpV4,
                },
                headers: small(headers),
            }),
        };
        header.copy_from_slice(&words.to_bytes());
        Self {
            shape,
            bytes,
            headers,
        }
    }

    /// As it is written to a tap: behind its virtio header.
    pub(super) fn on_tap(&self) -> &[u8] {
        &self.bytes
    }

    /// The frame itself, cut as a guest cuts it: what goes into the first slot, and the rest.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        let frame = self.bytes.get(VNET_HDR_LEN..).unwrap_or_default();
        match self.shape {
            Shape::Small | Shape::Full => (frame, &[]),
            Shape::Segments => frame.split_at(self.headers),
        }
    }

    /// The segment size that the guest asks for.
    pub(super) fn gso_size(&self) -> Option<u16> {
        (self.shape == Shape::Segments).then_some(SEGMENT)
    }
}

fn ipv4(packet: &mut [u8], protocol: IpProtocol) {
    let len = small(packet.len());
    let mut ip = Ipv4Packet::new_unchecked(packet);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_dscp(0);
    ip.set_ecn(0);
    ip.set_total_len(len);
    ip.set_ident(1);
    ip.set_dont_frag(true);
    ip.set_more_frags(false);
    ip.set_frag_offset(0);
    ip.set_hop_limit(64);
    ip.set_next_header(protocol);
    ip.set_src_addr(FROM);
    ip.set_dst_addr(TO);
    ip.fill_checksum();
}

/// Makes an IPv4 packet with UDP, and returns the bytes of the UDP header.
fn udp(packet: &mut [u8]) -> usize {
    ipv4(packet, IpProtocol::Udp);
    let mut ip = Ipv4Packet::new_unchecked(packet);
    let len = small(ip.payload_mut().len());
    let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
    udp.set_src_port(9);
    udp.set_dst_port(9);
    udp.set_len(len);
    8
}

/// Makes an IPv4 packet with TCP, and returns the bytes of the TCP header.
fn tcp(packet: &mut [u8]) -> usize {
    ipv4(packet, IpProtocol::Tcp);
    let mut ip = Ipv4Packet::new_unchecked(packet);
    // Options of which each is a no-operation.
    ip.payload_mut()
        .iter_mut()
        .take(TCP)
        .for_each(|byte| *byte = 1);
    let mut tcp = TcpPacket::new_unchecked(ip.payload_mut());
    tcp.set_src_port(9);
    tcp.set_dst_port(9);
    tcp.set_seq_number(TcpSeqNumber(1));
    tcp.set_ack_number(TcpSeqNumber(1));
    tcp.clear_flags();
    tcp.set_ack(true);
    tcp.set_header_len(32);
    tcp.set_window_len(u16::MAX);
    tcp.set_urgent_at(0);
    TCP
}

/// A length within a frame, of which none is longer than 65535 bytes.
fn small(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_long_as_they_say() {
        for shape in Shape::ALL {
            let frame = Frame::new(shape);
            let (first, rest) = frame.parts();
            assert_eq!(first.len() + rest.len(), shape.len());
            assert!(first.len() <= 4096 && rest.len() <= 16 * 4096);
            assert_eq!(frame.on_tap().len(), VNET_HDR_LEN + shape.len());
        }
    }

    #[test]
    fn frames_are_sound() {
        for shape in Shape::ALL {
            let frame = Frame::new(shape);
            let bytes = frame.on_tap().split_at(VNET_HDR_LEN).1;
            assert_eq!(checksum::verify(bytes, checksum::Checksum::Blank), Ok(()));
            let ip = Ipv4Packet::new_checked(&bytes[ETHERNET..]).unwrap();
            assert!(ip.verify_checksum());
            assert_eq!(usize::from(ip.total_len()) + ETHERNET, shape.len());
        }
    }
}
