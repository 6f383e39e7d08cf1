// SPDX-License-Identifier: GPL-3.0-or-later
//! Frames written out by hand, cut short at every length, and random ones.

use proptest::prelude::*;

use super::*;

/// An Ethernet header with `tags` VLAN tags, then `payload`.
fn ethernet(tags: usize, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xfe; 12];
    for _ in 0..tags {
        frame.extend([0x81, 0x00, 0x00, 0x07]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 header of `words` 32-bit words with the given fragment field and protocol.
fn ipv4_header(words: u8, fragment: u16, protocol: u8) -> Vec<u8> {
    let mut header = vec![0; usize::from(words) * 4];
    header[0] = 0x40 | words;
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[9] = protocol;
    header
}

fn ipv6_header(next: u8) -> Vec<u8> {
    let mut header = vec![0; 40];
    header[0] = 0x60;
    header[6] = next;
    header
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn finds_the_header_behind_tags_options_and_extensions() {
    let tcp = [0; 20];
    let udp = [0; 8];
    let extension = [6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (frame, network, protocol, start) in [
        (
            ethernet(0, 0x0800, &joined(&[&ipv4_header(5, 0, 6), &tcp])),
            Network::V4,
            Protocol::Tcp,
            34,
        ),
        // "Don't fragment" is no fragment.
        (
            ethernet(0, 0x0800, &joined(&[&ipv4_header(5, 0x4000, 17), &udp])),
            Network::V4,
            Protocol::Udp,
            34,
        ),
        (
            ethernet(0, 0x0800, &joined(&[&ipv4_header(15, 0, 6), &tcp])),
            Network::V4,
            Protocol::Tcp,
            74,
        ),
        (
            ethernet(2, 0x0800, &joined(&[&ipv4_header(5, 0, 17), &udp])),
            Network::V4,
            Protocol::Udp,
            42,
        ),
        (
            ethernet(0, 0x86dd, &joined(&[&ipv6_header(17), &udp])),
            Network::V6,
            Protocol::Udp,
            54,
        ),
        (
            ethernet(0, 0x86dd, &joined(&[&ipv6_header(60), &extension, &tcp])),
            Network::V6,
            Protocol::Tcp,
            70,
        ),
    ] {
        let found = transport(&frame);
        let found = found.map(|found| (found.network, found.protocol, found.start));
        assert_eq!(found, Some((network, protocol, start)));
        // One byte less than the transport header needs, and any shorter, is no frame of ours.
        for len in 0..frame.len() {
            assert_eq!(transport(&frame[..len]), None, "cut to {len}");
        }
    }
}

#[test]
fn refuses_what_is_not_whole_tcp_or_udp() {
    let tcp = [0; 20];
    for frame in [
        ethernet(3, 0x0800, &joined(&[&ipv4_header(5, 0, 6), &tcp])),
        ethernet(0, 0x0806, &[0; 28]),
        ethernet(0, 0x0800, &joined(&[&ipv4_header(5, 0, 1), &tcp])),
        ethernet(0, 0x0800, &joined(&[&ipv4_header(5, 0x2000, 6), &tcp])),
        ethernet(0, 0x0800, &joined(&[&ipv4_header(5, 1, 6), &tcp])),
        ethernet(0, 0x0800, &joined(&[&[0x44; 20], &tcp])),
        ethernet(
            0,
            0x86dd,
            &joined(&[&ipv6_header(44), &[6, 0, 0, 1, 0, 0, 0, 0], &tcp]),
        ),
        // Extension headers that go on for ever.
        ethernet(0, 0x86dd, &joined(&[&ipv6_header(0), &[0; 400]])),
    ] {
        assert_eq!(transport(&frame), None);
    }
}

#[test]
fn fills_in_a_known_checksum() {
    // RFC 1071, section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
    let mut frame = vec![
        0xaa, 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7, 0x00, 0x00,
    ];
    assert_eq!(fill_checksum(&mut frame, 1, 8), Some(()));
    assert_eq!(frame[9..], (!0xddf2_u16).to_be_bytes());
}

#[test]
fn a_sum_of_all_ones_is_sent_as_all_ones() {
    let mut frame = vec![0xff, 0xff, 0x00, 0x00];
    assert_eq!(fill_checksum(&mut frame, 0, 2), Some(()));
    assert_eq!(frame, [0xff; 4]);
}

#[test]
fn a_field_outside_the_frame_is_refused() {
    let mut frame = vec![1; 20];
    for (start, offset) in [(20, 0), (19, 0), (21, 0), (0, 19), (u16::MAX, u16::MAX)] {
        assert_eq!(fill_checksum(&mut frame, start, offset), None);
    }
    assert_eq!(frame, [1; 20]);
}

#[test]
fn headers_end_where_tcp_says() {
    let mut frame = ethernet(0, 0x0800, &joined(&[&ipv4_header(5, 0, 6), &[0; 32]]));
    for (words, end) in [
        (0, None),
        (4, None),
        (5, Some(54)),
        (8, Some(66)),
        (9, None),
    ] {
        frame[34 + 12] = words << 4;
        assert_eq!(
            transport(&frame).unwrap().headers(&frame),
            end,
            "{words} words"
        );
    }
    let udp = ethernet(0, 0x86dd, &joined(&[&ipv6_header(17), &[0; 8]]));
    assert_eq!(transport(&udp).unwrap().headers(&udp), Some(62));
}

#[test]
fn a_blank_checksum_that_is_filled_in_later_is_the_right_one() {
    // The packet of RFC 1071's kind, worked out by hand: 192.0.2.1 to 192.0.2.2, TCP, 20 bytes.
    let mut ip = ipv4_header(5, 0, 6);
    ip[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    let mut frame = ethernet(0, 0x0800, &joined(&[&ip, &[0x11; 20]]));
    let found = transport(&frame).unwrap();
    assert_eq!(found.blank_checksum(&mut frame), Some(()));
    // c000 + 0201 + c000 + 0202 + 0006 + 0014 = 1841d, folded 841e.
    assert_eq!(frame[50..52], 0x841e_u16.to_be_bytes());

    let mut ip = ipv6_header(6);
    ip[8..40].fill(0xff);
    let mut frame = ethernet(0, 0x86dd, &joined(&[&ip, &[0; 20]]));
    let found = transport(&frame).unwrap();
    assert_eq!(found.blank_checksum(&mut frame), Some(()));
    // Sixteen words of ones are ones again: ffff + 0006 + 0014 = 1_0019, folded 1a.
    assert_eq!(frame[70..72], 0x001a_u16.to_be_bytes());
}

proptest! {
    #[test]
    fn any_bytes_are_survived(mut frame in proptest::collection::vec(any::<u8>(), 0..200), start: u16, offset: u16) {
        if let Some(found) = transport(&frame) {
            prop_assert!(usize::from(found.start) + 8 <= frame.len());
            let _ = found.headers(&frame);
            let _ = found.blank_checksum(&mut frame);
        }
        let _ = fill_checksum(&mut frame, start, offset);
    }

    /// A receiver's check: the one's complement sum over data and checksum is all ones.
    #[test]
    fn a_filled_checksum_verifies(mut frame in proptest::collection::vec(any::<u8>(), 2..300), at in 0_u16..298) {
        let offset = at & !1;
        prop_assume!(usize::from(offset) + 2 <= frame.len());
        frame[usize::from(offset)..usize::from(offset) + 2].fill(0);
        prop_assert_eq!(fill_checksum(&mut frame, 0, offset), Some(()));
        let mut sum: u64 = frame.chunks(2).map(|p| u64::from(p[0]) << 8 | u64::from(*p.get(1).unwrap_or(&0))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        prop_assert_eq!(sum, 0xffff);
    }
}
