// SPDX-License-Identifier: GPL-3.0-or-later
//! Frames are built with smoltcp, joined, and cut up again by a model of the host's stack that is
//! written from the specification: what comes out must be what went in.

use proptest::prelude::*;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, UdpPacket,
};

use super::*;
use crate::vif::vnet::Segments;
use xen_ring::netif::{Gso, GsoKind};

/// What a sender's datagram looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    network: Network,
    /// The source port tells flows apart.
    flow: u16,
    payload: usize,
    id: u16,
    dont_fragment: bool,
    ttl: u8,
    /// The header's checksum is wrong.
    corrupt: bool,
    /// The checksum is left to the host.
    blank: bool,
}

const PLAIN: Sent = Sent {
    network: Network::V4,
    flow: 5201,
    payload: 64,
    id: 100,
    dont_fragment: true,
    ttl: 64,
    corrupt: false,
    blank: true,
};

impl Sent {
    /// The frame; each byte of the payload tells its place and `seed`.
    fn frame(self, seed: usize) -> Vec<u8> {
        let ip_len = match self.network {
            Network::V4 => 20,
            Network::V6 => 40,
        };
        let mut frame = vec![0; 14 + ip_len + 8 + self.payload];
        let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
        ethernet.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, 1]));
        ethernet.set_src_addr(EthernetAddress([0, 0x16, 0x3e, 0, 0, 1]));
        let udp_len = u16::try_from(8 + self.payload).unwrap();
        match self.network {
            Network::V4 => {
                ethernet.set_ethertype(EthernetProtocol::Ipv4);
                let mut ip = Ipv4Packet::new_unchecked(ethernet.payload_mut());
                ip.set_version(4);
                ip.set_header_len(20);
                ip.set_total_len(20 + udp_len);
                ip.set_ident(self.id);
                ip.set_dont_frag(self.dont_fragment);
                ip.set_hop_limit(self.ttl);
                ip.set_next_header(IpProtocol::Udp);
                ip.set_src_addr([192, 0, 2, 2].into());
                ip.set_dst_addr([192, 0, 2, 1].into());
                ip.fill_checksum();
                if self.corrupt {
                    ip.set_checksum(!ip.checksum());
                }
            }
            Network::V6 => {
                ethernet.set_ethertype(EthernetProtocol::Ipv6);
                let mut ip = Ipv6Packet::new_unchecked(ethernet.payload_mut());
                ip.set_version(6);
                ip.set_payload_len(udp_len);
                ip.set_next_header(IpProtocol::Udp);
                ip.set_hop_limit(self.ttl);
                ip.set_src_addr([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into());
                ip.set_dst_addr([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into());
            }
        }
        let mut udp = UdpPacket::new_unchecked(&mut frame[14 + ip_len..]);
        udp.set_src_port(self.flow);
        udp.set_dst_port(5201);
        udp.set_len(udp_len);
        for (at, byte) in udp.payload_mut().iter_mut().enumerate() {
            *byte = u8::try_from((at + seed * 7) % 251).unwrap();
        }
        if self.blank {
            blank(&mut frame, 14 + ip_len);
        }
        frame
    }

    fn header(self) -> VnetHdr {
        let start = match self.network {
            Network::V4 => 34,
            Network::V6 => 54,
        };
        let csum = match self.blank {
            true => Csum::Blank { start, offset: 6 },
            false => Csum::Unknown,
        };
        VnetHdr { csum, gso: None }
    }
}

/// Puts the pseudo-header's sum where the checksum is blank.
fn blank(frame: &mut [u8], start: usize) {
    let len = frame.len() - start;
    let addresses = if start == 34 { 26..34 } else { 22..54 };
    let words = frame[addresses].chunks(2);
    let sum: usize = words
        .map(|w| usize::from(w[0]) << 8 | usize::from(w[1]))
        .sum();
    let mut sum = sum + 17 + len;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let field = u16::try_from(sum).unwrap().to_be_bytes();
    frame[start + 6..start + 8].copy_from_slice(&field);
}

/// What the tap gets for these frames, and how many of them each write is said to hold.
fn written(sent: &[(Sent, Vec<u8>)], longest: usize) -> Vec<(Vec<u8>, usize)> {
    let mut buffers = vec![0xee; 16];
    let mut places = Vec::new();
    for (_, frame) in sent {
        // Room for the header, and odd gaps.
        let gap = VNET_HDR_LEN + places.len() % 5;
        buffers.resize(buffers.len() + gap, 0xee);
        let start = buffers.len();
        buffers.extend(frame);
        places.push(start..buffers.len());
    }
    let mut writes = Writes::new(longest);
    for ((sent, _), place) in sent.iter().zip(&places) {
        writes.add(&mut buffers, place.clone(), sent.header());
    }
    let list = writes.finish(&mut buffers).to_vec();
    let bytes: usize = sent.iter().map(|(_, frame)| frame.len()).sum();
    assert_eq!(list.iter().map(|write| write.bytes).sum::<usize>(), bytes);
    list.into_iter()
        .map(|write| (buffers[write.on_tap].to_vec(), write.frames))
        .collect()
}

/// Cuts what is behind a virtio header as the host does (virtio 1.2, 5.1.6; RFC 791, 8200, 768).
fn cut(written: &[u8]) -> Vec<Vec<u8>> {
    let (header, frame) = written.split_at(VNET_HDR_LEN);
    let field = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    if header[1] == 0 {
        return vec![frame.to_vec()];
    }
    let (headers, size, start) = (field(2), field(4), field(6));
    assert_eq!((header[0], header[1], field(8)), (1, 5, 6));
    assert_eq!(headers, start + 8);
    // The whole is a good packet by itself.
    let mut whole = frame.to_vec();
    blank(&mut whole, start);
    assert_eq!(whole, frame);
    assert_eq!(
        usize::from(UdpPacket::new_unchecked(&frame[start..]).len()),
        frame.len() - start
    );
    let mut cut = Vec::new();
    for (number, payload) in frame[headers..].chunks(size).enumerate() {
        let mut one = [&frame[..headers], payload].concat();
        let udp_len = u16::try_from(8 + payload.len()).unwrap();
        UdpPacket::new_unchecked(&mut one[start..]).set_len(udp_len);
        if start == 34 {
            let whole = Ipv4Packet::new_checked(&frame[14..]).unwrap();
            assert!(whole.verify_checksum());
            let mut ip = Ipv4Packet::new_unchecked(&mut one[14..]);
            ip.set_total_len(20 + udp_len);
            ip.set_ident(whole.ident().wrapping_add(u16::try_from(number).unwrap()));
            ip.fill_checksum();
        } else {
            Ipv6Packet::new_checked(&frame[14..]).unwrap();
            Ipv6Packet::new_unchecked(&mut one[14..]).set_payload_len(udp_len);
        }
        blank(&mut one, start);
        cut.push(one);
    }
    cut
}

/// Sends these, and checks that they arrive. Returns how many frames each write held.
fn joined(sent: &[Sent]) -> Vec<usize> {
    let frames: Vec<_> = (0..)
        .zip(sent)
        .map(|(seed, sent)| (*sent, sent.frame(seed)))
        .collect();
    let written = written(&frames, FRAME_MAX);
    let mut arrived = written.iter().flat_map(|(bytes, frames)| {
        let cut = cut(bytes);
        assert_eq!(cut.len(), *frames);
        cut
    });
    for (sent, frame) in &frames {
        let mut arrived = arrived.next().unwrap();
        if sent.dont_fragment && sent.network == Network::V4 && !sent.corrupt {
            // It means nothing then (RFC 6864).
            let mut ip = Ipv4Packet::new_unchecked(&mut arrived[14..]);
            ip.set_ident(sent.id);
            ip.fill_checksum();
        }
        assert_eq!(&arrived, frame, "{sent:?}");
    }
    assert_eq!(arrived.next(), None);
    written.into_iter().map(|(_, frames)| frames).collect()
}

fn numbered(count: u16, of: Sent) -> Vec<Sent> {
    let id = |n| of.id.wrapping_add(n);
    (0..count).map(|n| Sent { id: id(n), ..of }).collect()
}

#[test]
fn datagrams_in_a_row_are_one_write() {
    let v6 = Sent {
        network: Network::V6,
        ..PLAIN
    };
    let wrapping = Sent {
        id: 0xfffe,
        dont_fragment: false,
        ..PLAIN
    };
    for sent in [
        PLAIN,
        v6,
        wrapping,
        Sent {
            payload: 1,
            ..PLAIN
        },
        Sent {
            payload: 1472,
            ..v6
        },
    ] {
        assert_eq!(joined(&numbered(40, sent)), [40], "{sent:?}");
    }
    assert_eq!(
        joined(&[PLAIN; 40]),
        [40],
        "all with the same identification"
    );
}

#[test]
fn a_shorter_one_is_the_last() {
    let mut sent = numbered(6, PLAIN);
    sent[3].payload = 20;
    assert_eq!(joined(&sent), [4, 2]);
    sent[3].payload = 65;
    assert_eq!(
        joined(&sent),
        [3, 2, 1],
        "a longer one begins anew, and a shorter one ends that"
    );
}

#[test]
fn whatever_differs_parts() {
    let second = Sent { id: 101, ..PLAIN };
    for (second, what) in [
        (
            Sent {
                flow: 5202,
                ..second
            },
            "another flow",
        ),
        (Sent { ttl: 63, ..second }, "another lifetime"),
        (
            Sent {
                network: Network::V6,
                ..second
            },
            "another protocol",
        ),
        (
            Sent {
                dont_fragment: false,
                ..second
            },
            "other flags",
        ),
        (Sent { id: 102, ..second }, "a gap in the identifications"),
        (Sent { id: 99, ..second }, "a step back"),
        (
            Sent {
                corrupt: true,
                ..second
            },
            "a wrong checksum",
        ),
        (
            Sent {
                blank: false,
                ..second
            },
            "a checksum of its own",
        ),
    ] {
        assert_eq!(joined(&[PLAIN, second]), [1, 1], "{what}");
    }
    let corrupt = Sent {
        corrupt: true,
        ..PLAIN
    };
    assert_eq!(joined(&[corrupt, corrupt]), [1, 1], "two wrong checksums");
    let may_fragment = Sent {
        dont_fragment: false,
        ..PLAIN
    };
    assert_eq!(
        joined(&[may_fragment; 2]),
        [1, 1],
        "fragments would be mixed up"
    );
    let ids = [100, 100, 101, 102].map(|id| Sent { id, ..PLAIN });
    assert_eq!(joined(&ids), [2, 2], "identifications that go on otherwise");
}

#[test]
fn a_train_is_no_longer_than_a_frame_can_be() {
    let counts = joined(&numbered(
        64,
        Sent {
            payload: 8_000,
            ..PLAIN
        },
    ));
    assert_eq!(counts, [8; 8]);
}

#[test]
fn nothing_is_joined_that_is_not_a_plain_datagram() {
    let plain = PLAIN.frame(0);
    let mut tagged = plain.clone();
    tagged.splice(12..12, [0x81, 0, 0, 1]);
    let mut tcp = plain.clone();
    tcp[23] = 6;
    let mut options = plain.clone();
    options[14] = 0x46;
    let padded = [plain.as_slice(), &[0; 3]].concat();
    let mut short = plain.clone();
    short[39] -= 1;
    let mut empty = plain[..42].to_vec();
    empty[16..18].copy_from_slice(&28_u16.to_be_bytes());
    empty[38..40].copy_from_slice(&8_u16.to_be_bytes());
    let start = |start, offset| VnetHdr {
        csum: Csum::Blank { start, offset },
        gso: None,
    };
    let segments = VnetHdr {
        gso: Some(Segments {
            gso: Gso {
                size: 8,
                kind: GsoKind::TcpV4,
            },
            headers: 42,
        }),
        ..start(34, 6)
    };
    for (frame, header, what) in [
        (&tagged, start(38, 6), "a VLAN tag"),
        (&tcp, start(34, 16), "TCP"),
        (&options, start(38, 6), "options"),
        (&padded, start(34, 6), "bytes behind it"),
        (&short, start(34, 6), "lengths that contradict each other"),
        (&empty, start(34, 6), "nothing in it"),
        (&plain, segments, "segments"),
        (
            &plain,
            VnetHdr {
                csum: Csum::Valid,
                gso: None,
            },
            "a checksum of its own",
        ),
    ] {
        assert!(Datagram::of(frame, header).is_none(), "{what}");
    }
    for len in 0..plain.len() {
        assert!(
            Datagram::of(&plain[..len], start(34, 6)).is_none(),
            "cut at {len}"
        );
    }
    assert!(Datagram::of(&plain, start(34, 6)).is_some());
}

#[test]
fn who_does_not_want_it_gets_each_by_itself() {
    let frames: Vec<_> = numbered(5, PLAIN)
        .into_iter()
        .map(|sent| (sent, sent.frame(1)))
        .collect();
    assert_eq!(written(&frames, 0).len(), 5);
    assert_eq!(
        written(&frames, frames[0].1.len() - 1).len(),
        5,
        "longer than the MTU allows"
    );
    assert_eq!(written(&frames, frames[0].1.len()).len(), 1);
}

/// Whatever byte of the second frame's headers differs, it stays by itself, but for those that differ in any train:
/// lengths and identification, which other tests have, and the sums.
#[test]
fn every_other_byte_of_the_headers_matters() {
    for (network, headers, free) in [
        (Network::V4, 42, [16..20, 24..26, 38..42]),
        (Network::V6, 62, [18..20, 58..62, 0..0]),
    ] {
        let sent = Sent { network, ..PLAIN };
        let first = sent.frame(0);
        for at in (0..headers).filter(|at| !free.iter().any(|free| free.contains(at))) {
            for bit in 0..8 {
                let mut second = sent.frame(1);
                second[at] ^= 1 << bit;
                if network == Network::V4 {
                    Ipv4Packet::new_unchecked(&mut second[14..]).fill_checksum();
                }
                let frames = [(sent, first.clone()), (sent, second)];
                assert_eq!(
                    written(&frames, FRAME_MAX).len(),
                    2,
                    "{network:?}: bit {bit} of byte {at}"
                );
            }
        }
        let frames = [(sent, first.clone()), (sent, sent.frame(1))];
        assert_eq!(written(&frames, FRAME_MAX).len(), 1);
    }
}

prop_compose! {
    /// Few values of each kind, so that neighbours often fit together.
    fn any_sent()(
        v6 in proptest::bool::weighted(0.2),
        flow in 1_u16..3,
        payload in prop_oneof![4 => Just(64_usize), 1 => 1_usize..200, 1 => Just(9_000)],
        id in prop_oneof![3 => Just(7_u16), 1 => 0_u16..9],
        dont_fragment in proptest::bool::weighted(0.8),
        corrupt in proptest::bool::weighted(0.05),
        blank in proptest::bool::weighted(0.9),
    ) -> Sent {
        let network = if v6 { Network::V6 } else { Network::V4 };
        Sent { network, flow, payload, id, dont_fragment, corrupt, blank, ttl: 64 }
    }
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        sent in proptest::collection::vec(any_sent(), 0..BURST_FRAMES),
        counted in any::<bool>(),
    ) {
        let mut sent = sent;
        if counted {
            for (n, sent) in (0..).zip(&mut sent) {
                sent.id = sent.id.wrapping_add(n);
            }
        }
        joined(&sent);
    }

    /// Frames that were good, with some bytes changed, cut short or made longer.
    #[test]
    fn no_frame_is_a_reason_to_panic(
        sent in proptest::collection::vec(any_sent(), 1..20),
        changes in proptest::collection::vec((0_usize..20, 0_usize..70, any::<u8>()), 0..12),
        lengths in proptest::collection::vec((0_usize..20, 1_usize..200), 0..4),
    ) {
        let mut frames: Vec<_> = (0..).zip(&sent).map(|(seed, sent)| (*sent, sent.frame(seed))).collect();
        for (which, at, byte) in changes {
            if let Some(place) = frames.get_mut(which).and_then(|(_, frame)| frame.get_mut(at)) {
                *place = byte;
            }
        }
        for (which, len) in lengths {
            if let Some((_, frame)) = frames.get_mut(which) {
                frame.resize(len, 0);
            }
        }
        let count: usize = written(&frames, FRAME_MAX).iter().map(|(_, frames)| frames).sum();
        prop_assert_eq!(count, frames.len());
    }
}
