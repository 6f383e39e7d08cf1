// SPDX-License-Identifier: GPL-3.0-or-later
//! The hash against the test vectors of Microsoft's RSS ("Verifying the RSS Hash Calculation"), and
//! against the definition of netif.h, bit by bit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const RSS_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Source, its port, destination, its port, hash without ports, hash with ports.
const VECTORS: [(&str, u16, &str, u16, u32, u32); 8] = [
    (
        "66.9.149.187",
        2794,
        "161.142.100.80",
        1766,
        0x323e_8fc2,
        0x51cc_c178,
    ),
    (
        "199.92.111.2",
        14230,
        "65.69.140.83",
        4739,
        0xd718_262a,
        0xc626_b0ea,
    ),
    (
        "24.19.198.95",
        12898,
        "12.22.207.184",
        38024,
        0xd2d0_a5de,
        0x5c2b_394a,
    ),
    (
        "38.27.205.30",
        48228,
        "209.142.163.6",
        2217,
        0x8298_9176,
        0xafc7_327f,
    ),
    (
        "153.39.163.191",
        44251,
        "202.188.127.2",
        1303,
        0x5d18_09c5,
        0x10e8_28a2,
    ),
    (
        "3ffe:2501:200:1fff::7",
        2794,
        "3ffe:2501:200:3::1",
        1766,
        0x2cc1_8cd5,
        0x4020_7d3d,
    ),
    (
        "3ffe:501:8::260:97ff:fe40:efab",
        14230,
        "ff02::1",
        4739,
        0x0f0c_461c,
        0xdde5_1bbf,
    ),
    (
        "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
        44251,
        "fe80::200:f8ff:fe21:67cf",
        38024,
        0x4b61_e985,
        0x02d1_feef,
    ),
];

fn frame(source: IpAddr, from: u16, destination: IpAddr, to: u16, protocol: u8) -> Vec<u8> {
    let mut frame = vec![0; 12];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([
                0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, protocol, 0, 0,
            ]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocol, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => panic!("one version of IP"),
    }
    frame.extend(from.to_be_bytes());
    frame.extend(to.to_be_bytes());
    frame.extend([0; 16]);
    frame
}

fn of(bits: u32, frame: &[u8]) -> Option<(u8, u32)> {
    let hasher = Hasher::new(&Key::new(&RSS_KEY).unwrap(), HashTypes::new(bits).unwrap());
    hasher.describe(frame).map(|extra| match extra {
        Extra::Hash {
            kind,
            algorithm: 1,
            value,
        } => (kind, u32::from_le_bytes(value)),
        other => panic!("{other:?}"),
    })
}

#[test]
fn the_vectors_of_rss() {
    for (source, from, destination, to, plain, with_ports) in VECTORS {
        let (source, destination): (IpAddr, IpAddr) =
            (source.parse().unwrap(), destination.parse().unwrap());
        let base = if source.is_ipv4() { 0 } else { 2 };
        let tcp = frame(source, from, destination, to, 6);
        let udp = frame(source, from, destination, to, 17);
        // The most specific type that is wanted and applies.
        assert_eq!(of(0b1111, &tcp), Some((base + 1, with_ports)), "{source}");
        assert_eq!(of(0b0101, &tcp), Some((base, plain)), "{source}");
        assert_eq!(of(0b1010, &tcp), Some((base + 1, with_ports)), "{source}");
        assert_eq!(of(0b1111, &udp), Some((base, plain)), "{source}");
        assert_eq!(of(0b1010, &udp), None, "{source}");
        assert_eq!(of(0, &tcp), None, "{source}");
        let other = if source.is_ipv4() { 0b1100 } else { 0b0011 };
        assert_eq!(of(other, &tcp), None, "{source}");
    }
}

#[test]
fn options_move_the_ports_and_fragments_have_none() {
    let (source, destination) = (
        Ipv4Addr::new(66, 9, 149, 187),
        Ipv4Addr::new(161, 142, 100, 80),
    );
    let plain = frame(source.into(), 2794, destination.into(), 1766, 6);
    let mut options = plain.clone();
    options[14] = 0x46;
    options.splice(34..34, [1, 1, 1, 0]);
    assert_eq!(of(0b11, &options), Some((1, 0x51cc_c178)));
    for (high, low) in [(0x20, 0), (0, 1), (0x3f, 0xff)] {
        let mut fragment = plain.clone();
        (fragment[20], fragment[21]) = (high, low);
        assert_eq!(of(0b11, &fragment), Some((0, 0x323e_8fc2)));
        assert_eq!(of(0b10, &fragment), None);
    }
    // A header length that is none.
    let mut short = plain.clone();
    short[14] = 0x44;
    assert_eq!(of(0b11, &short), Some((0, 0x323e_8fc2)));
    // Ports that are not there.
    assert_eq!(of(0b11, &plain[..37]), Some((0, 0x323e_8fc2)));
    assert_eq!(of(0b11, &plain[..33]), None);
}

#[test]
fn what_is_not_ip_is_not_hashed() {
    let v6 = frame(
        Ipv6Addr::LOCALHOST.into(),
        1,
        Ipv6Addr::LOCALHOST.into(),
        2,
        6,
    );
    assert_eq!(of(0b1111, &v6[..53]), None, "not whole");
    let mut tagged = v6.clone();
    tagged.splice(12..12, [0x81, 0x00, 0, 1]);
    assert_eq!(of(0b1111, &tagged), None);
    assert_eq!(of(0b1111, &[0; 60]), None);
    assert_eq!(of(0b1111, &[]), None);
}

#[test]
fn keys_and_types_are_bounded() {
    assert!(Key::new(&[1; 40]).is_some());
    assert!(Key::new(&[1; 41]).is_none());
    assert!(HashTypes::new(16).is_none());
    assert!(HashTypes::new(256).is_none());
    let hasher = Hasher::new(&Key::default(), HashTypes::ALL);
    assert_eq!(hasher.hash(&[0xff; 36]), 0, "an empty key");
}

/// netif.h's words: for each bit of the input from the left, if it is set, the left-most 32 bits of the key are
/// added; then both move one to the left.
fn by_the_book(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| {
        bytes
            .get(at / 8)
            .is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0)
    };
    (0..8 * input.len())
        .filter(|at| bit(input, *at))
        .map(|at| (0..32).fold(0, |window, n| window << 1 | u32::from(bit(key, at + n))))
        .fold(0, |hash, window| hash ^ window)
}

proptest! {
    #[test]
    fn the_table_is_the_definition(
        key in proptest::collection::vec(any::<u8>(), 0..=40),
        input in proptest::collection::vec(any::<u8>(), 0..=36),
    ) {
        let hasher = Hasher::new(&Key::new(&key).unwrap(), HashTypes::ALL);
        prop_assert_eq!(hasher.hash(&input), by_the_book(&key, &input));
    }

    #[test]
    fn any_bytes_will_do(frame in proptest::collection::vec(any::<u8>(), 0..100), bits in 0_u32..16) {
        let _either = of(bits, &frame);
    }
}
