// SPDX-License-Identifier: GPL-3.0-or-later
//! Frames are built and taken apart with smoltcp: the segments are read as a receiver would.

use proptest::prelude::*;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet,
    Ipv6Packet, TcpPacket,
};

use super::*;
use crate::vif::headers::fill_checksum;
use xen_ring::netif::{Gso, GsoKind};

const TAG: [u8; 4] = [0x81, 0x00, 0x00, 0x07];
const SEQUENCE: u32 = 0xffff_f000;
const ID: u16 = 0xfffe;
const FLAGS: u8 = FIN | PSH | CWR | 0x10;
const OPTIONS: usize = 12;

/// A TCP frame of so many bytes of payload behind so many VLAN tags, each byte telling its place.
fn frame(network: Network, tags: usize, payload: usize) -> Vec<u8> {
    let ip_len = match network {
        Network::V4 => 20,
        Network::V6 => 40,
    };
    let tcp_len = 20 + OPTIONS + payload;
    let mut frame = vec![0; 14 + ip_len + tcp_len];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
    ethernet.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, 1]));
    ethernet.set_src_addr(EthernetAddress([0, 0x16, 0x3e, 0, 0, 1]));
    let of_ip = |len: usize| u16::try_from(len).unwrap();
    match network {
        Network::V4 => {
            ethernet.set_ethertype(EthernetProtocol::Ipv4);
            let mut ip = Ipv4Packet::new_unchecked(ethernet.payload_mut());
            ip.set_version(4);
            ip.set_header_len(20);
            ip.set_total_len(of_ip(20 + tcp_len));
            ip.set_ident(ID);
            ip.set_hop_limit(64);
            ip.set_next_header(IpProtocol::Tcp);
            ip.set_src_addr([192, 0, 2, 2].into());
            ip.set_dst_addr([192, 0, 2, 1].into());
            ip.fill_checksum();
        }
        Network::V6 => {
            ethernet.set_ethertype(EthernetProtocol::Ipv6);
            let mut ip = Ipv6Packet::new_unchecked(ethernet.payload_mut());
            ip.set_version(6);
            ip.set_payload_len(of_ip(tcp_len));
            ip.set_next_header(IpProtocol::Tcp);
            ip.set_hop_limit(64);
            ip.set_src_addr([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into());
            ip.set_dst_addr([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into());
        }
    }
    let mut tcp = TcpPacket::new_unchecked(&mut frame[14 + ip_len..]);
    tcp.set_src_port(5201);
    tcp.set_dst_port(5202);
    tcp.set_seq_number(smoltcp::wire::TcpSeqNumber(SEQUENCE.cast_signed()));
    tcp.set_header_len(u8::try_from(20 + OPTIONS).unwrap());
    frame[14 + ip_len + 13] = FLAGS;
    for (place, byte) in frame[14 + ip_len + 20 + OPTIONS..].iter_mut().enumerate() {
        *byte = u8::try_from(place % 251).unwrap();
    }
    for _ in 0..tags {
        frame.splice(12..12, TAG);
    }
    frame
}

fn header(network: Network, tags: usize, size: u16) -> VnetHdr {
    let (start, kind) = match network {
        Network::V4 => (34, GsoKind::TcpV4),
        Network::V6 => (54, GsoKind::TcpV6),
    };
    VnetHdr {
        csum: Csum::Blank {
            start: start + 4 * u16::try_from(tags).unwrap(),
            offset: 16,
        },
        gso: Some(Segments {
            gso: Gso { size, kind },
            headers: 0,
        }),
    }
}

/// All segments, each with its header.
fn cut(frame: &[u8], header: VnetHdr) -> Option<Vec<(VnetHdr, Vec<u8>)>> {
    let mut cut = Cut::new(frame, header)?;
    let mut room = vec![0xee; 70_000];
    let mut all = Vec::new();
    let count = cut.left();
    while let Some(len) = cut.next(&mut room) {
        let (header, segment) = room[..len].split_first_chunk().unwrap();
        all.push((VnetHdr::from_bytes(*header).unwrap(), segment.to_vec()));
        assert_eq!(cut.left(), count - all.len());
    }
    assert_eq!(all.len(), count);
    Some(all)
}

/// What a receiver reads in a segment behind `tags`: identification, sequence number, flags, payload.
/// All checksums are looked at.
fn read(network: Network, tags: usize, segment: &[u8]) -> (u16, u32, u8, Vec<u8>) {
    assert_eq!(segment[12..12 + 4 * tags], TAG.repeat(tags));
    let packet = &segment[14 + 4 * tags..];
    let (id, addresses, bytes): (_, [IpAddress; 2], _) = match network {
        Network::V4 => {
            let ip = Ipv4Packet::new_checked(packet).unwrap();
            assert!(ip.verify_checksum());
            assert_eq!(usize::from(ip.total_len()), packet.len());
            let addresses = [ip.src_addr().into(), ip.dst_addr().into()];
            (ip.ident(), addresses, &packet[20..])
        }
        Network::V6 => {
            let ip = Ipv6Packet::new_checked(packet).unwrap();
            assert_eq!(ip.total_len(), packet.len());
            let addresses = [ip.src_addr().into(), ip.dst_addr().into()];
            (0, addresses, &packet[40..])
        }
    };
    let tcp = TcpPacket::new_checked(bytes).unwrap();
    assert!(tcp.verify_checksum(&addresses[0], &addresses[1]));
    let number = tcp.seq_number().0.cast_unsigned();
    (id, number, bytes[13], tcp.payload().to_vec())
}

#[test]
fn a_receiver_sees_one_stream() {
    let (sizes, payload) = (1448_usize, 10_000);
    for (network, tags) in [
        (Network::V4, 0),
        (Network::V4, 1),
        (Network::V4, 2),
        (Network::V6, 1),
    ] {
        let whole = frame(network, tags, payload);
        let header = header(network, tags, 1448);
        let segments = cut(&whole, header).unwrap();
        let last = segments.len() - 1;
        assert_eq!(last, 6);
        let mut stream = Vec::new();
        for (at, (segment_header, mut segment)) in segments.into_iter().enumerate() {
            assert_eq!(
                (segment_header.csum, segment_header.gso),
                (header.csum, None)
            );
            let Csum::Blank { start, offset } = segment_header.csum else {
                panic!("{segment_header:?}");
            };
            fill_checksum(&mut segment, start, offset).unwrap();
            let (id, number, flags, part) = read(network, tags, &segment);
            let n = u16::try_from(at).unwrap();
            match network {
                Network::V4 => assert_eq!(id, ID.wrapping_add(n)),
                Network::V6 => {}
            }
            assert_eq!(
                number,
                SEQUENCE.wrapping_add(u32::try_from(at * sizes).unwrap())
            );
            let expected = match at {
                0 => 0x10 | CWR,
                at if at == last => 0x10 | PSH | FIN,
                _ => 0x10,
            };
            assert_eq!(flags, expected);
            assert!(part.len() == sizes || at == last);
            stream.extend(part);
        }
        assert_eq!(stream, whole[whole.len() - payload..]);
    }
}

#[test]
fn what_is_no_such_frame_is_not_cut() {
    let whole = frame(Network::V4, 1, 3000);
    let of_nothing = header(Network::V4, 1, 0);
    let header = header(Network::V4, 1, 1448);
    assert!(Cut::new(&whole, header).is_some());
    let not_segmented = VnetHdr {
        gso: None,
        ..header
    };
    let not_blank = VnetHdr {
        csum: Csum::Unknown,
        ..header
    };
    let elsewhere = VnetHdr {
        csum: Csum::Blank {
            start: 34,
            offset: 16,
        },
        ..header
    };
    for wrong in [not_segmented, not_blank, elsewhere, of_nothing] {
        assert!(Cut::new(&whole, wrong).is_none());
    }
    // UDP; a header that ends behind the frame; no payload.
    let mut udp = whole.clone();
    udp[18 + 9] = 17;
    assert!(Cut::new(&udp, header).is_none());
    assert!(Cut::new(&whole[..60], header).is_none());
    assert!(Cut::new(&frame(Network::V4, 1, 0), header).is_none());
}

#[test]
fn no_frame_is_cut_into_more_than_a_ring_has_slots() {
    let whole = frame(Network::V4, 1, 2560);
    let count = |size| cut(&whole, header(Network::V4, 1, size)).map(|all| all.len());
    assert_eq!((count(10), count(9)), (Some(256), None));
}

#[test]
fn a_segment_without_room_is_not_written() {
    let whole = frame(Network::V4, 1, 3000);
    let mut cut = Cut::new(&whole, header(Network::V4, 1, 1448)).unwrap();
    assert_eq!(cut.next(&mut [0; 1000]), None);
    assert_eq!(cut.left(), 3);
    assert_eq!(cut.next(&mut [0; 2000]), Some(VNET_HDR_LEN + 70 + 1448));
}

proptest! {
    /// Whatever the frame: no panic, no more bytes than there were, and an end.
    #[test]
    fn nothing_about_a_frame_is_taken_for_granted(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        flips in proptest::collection::vec((0_usize..120, any::<u8>()), 0..6),
        size in 1..2000_u16,
        whole in any::<bool>(),
    ) {
        let mut bytes = if whole { frame(Network::V4, 1, 3000) } else { bytes };
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let header = header(Network::V4, 1, size);
        if let Some(segments) = cut(&bytes, header) {
            prop_assert!(segments.len() <= SEGMENTS_MAX);
            let payload: usize = segments.iter().map(|(_, segment)| segment.len()).sum();
            prop_assert!(payload <= bytes.len() * segments.len());
        }
    }
}
