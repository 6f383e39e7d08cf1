// SPDX-License-Identifier: GPL-3.0-or-later
//! Datagrams that a guest sends in a row: they go to the host as one frame where the kernel can take that, and each of
//! them arrives as it was sent.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use netback::demo::guest::checksum::Checksum;
use netback_tests::World;
use netback_tests::raw::linux;
use netback_tests::world::{PATIENCE, guest_ip, host_ip, until};

const PORT: u16 = 5201;
/// The host's end of a vif, fe:ff:ff:ff:ff:ff, and the address that Linux makes of it (RFC 4291, appendix A).
const TAP: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];
const TAP_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xfcff, 0xffff, 0xfeff, 0xffff);

/// A datagram from the guest to the host, with its checksum left blank.
fn frame(to: IpAddr, id: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let mut frame = [&TAP[..], &[0x00, 0x16, 0x3e, 0, 0, 1]].concat();
    let addresses = match to {
        IpAddr::V4(to) => {
            let addresses = [guest_ip(1).octets(), to.octets()].concat();
            let [[total_high, total_low], [id_high, id_low]] = [len + 20, id].map(u16::to_be_bytes);
            let mut header = vec![0x45, 0, total_high, total_low, id_high, id_low, 0x40, 0];
            header.extend([64, 17, 0, 0]);
            header.extend(&addresses);
            let checksum = !sum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend([0x08, 0x00]);
            frame.extend(header);
            addresses
        }
        IpAddr::V6(to) => {
            let from = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
            let addresses = [from.octets(), to.octets()].concat();
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(&addresses);
            addresses
        }
    };
    let pseudo = sum(&[&addresses[..], &[0, 17], &len.to_be_bytes()].concat());
    for word in [4_000, PORT, len, pseudo] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

/// The one's complement sum of 16-bit words.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}

/// Frames that the host says it has taken from the tap.
fn taken_by_host(tap: &str) -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let counters = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(tap)?.strip_prefix(':'));
    counters
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// Forty datagrams of `len` bytes, published together, and a shorter one behind them. Returns how many frames the host
/// has taken from the tap for them.
fn frames_for_forty(joins: bool, to: IpAddr, len: usize, step: u16) -> u64 {
    let world = World::with(|config| config.tap.join_datagrams = joins);
    let (vif, mut netfront) = world.raw(1, linux());
    let socket = UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, PORT)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    if to.is_ipv6() {
        until("the host has its address", || {
            let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
            addresses.lines().any(|line| line.ends_with(&vif.tap()))
        });
    }
    let payloads: Vec<Vec<u8>> = (0..41_u8)
        .map(|n| vec![n; if n < 40 { len } else { 7 }])
        .collect();
    // The host speaks on a new link, too, and may speak to itself.
    until("the host takes what the guest sends", || {
        netfront.flush();
        netfront
            .send(&frame(to, 1, b"here?"), Checksum::Blank)
            .unwrap();
        netfront.flush();
        let mut got = [0; 16];
        socket
            .recv(&mut got)
            .is_ok_and(|len| &got[..len] == b"here?")
    });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (before, packets) = (
        taken_by_host(&vif.tap()),
        world.vif_status(&vif).unwrap().tx.packets,
    );
    for (n, payload) in (0..).zip(&payloads) {
        let id = u16::wrapping_add(0xfff0, n * step);
        netfront
            .send(&frame(to, id, payload), Checksum::Blank)
            .unwrap();
    }
    netfront.flush();
    for payload in &payloads {
        let mut got = vec![0; 2_000];
        let len = socket.recv(&mut got).unwrap();
        assert_eq!(&got[..len], payload);
    }
    until("all are counted", || {
        world.vif_status(&vif).unwrap().tx.packets == packets + 41
    });
    let frames = taken_by_host(&vif.tap()) - before;
    world.finish_raw(&vif, netfront);
    frames
}

/// Where the kernel can take them so, and where it cannot.
fn expected() -> u64 {
    match hotplug::tap::takes_udp_segments() {
        true => 1,
        false => 41,
    }
}

#[test]
fn they_are_one_frame_and_arrive_each_by_itself() {
    assert_eq!(frames_for_forty(true, host_ip(1).into(), 64, 1), expected());
}

#[test]
fn of_full_size() {
    assert_eq!(
        frames_for_forty(true, host_ip(1).into(), 1_472, 1),
        expected()
    );
}

#[test]
fn without_identifications() {
    assert_eq!(frames_for_forty(true, host_ip(1).into(), 64, 0), expected());
}

#[test]
fn over_ipv6() {
    assert_eq!(
        frames_for_forty(true, TAP_LINK_LOCAL.into(), 64, 0),
        expected()
    );
}

#[test]
fn unless_the_administrator_wants_them_apart() {
    assert_eq!(frames_for_forty(false, host_ip(1).into(), 64, 1), 41);
}
