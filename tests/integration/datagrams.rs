// SPDX-License-Identifier: GPL-3.0-or-later
//! Datagrams that a guest sends in a row: they go to the host as one frame where the kernel can take that, and each of
//! them arrives as it was sent.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use hotplug::{Tap, TapOptions};
use netback::demo::guest::checksum::Checksum;
use netback_tests::raw::linux;
use netback_tests::world::{PATIENCE, guest_ip, host_ip, until};
use netback_tests::{World, host};

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

/// What is sent, and under which circumstances.
#[derive(Clone, Copy)]
struct Case {
    joins: bool,
    to: IpAddr,
    /// Bytes in each.
    len: usize,
    /// From one identification to the next.
    step: u16,
    /// What the administrator makes the tap's MTU meanwhile.
    mtu: Option<u32>,
}

const CASE: Case = Case {
    joins: true,
    to: IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1)),
    len: 64,
    step: 1,
    mtu: None,
};

/// Forty datagrams, published together, and a shorter one behind them. Returns how many frames the host has taken from
/// the tap for them.
fn frames_for_forty(case: Case) -> u64 {
    let Case {
        joins,
        to,
        len,
        step,
        mtu,
    } = case;
    let world = World::with(|config| config.tap.join_datagrams = joins);
    let (vif, mut netfront) = world.raw(1, linux());
    let socket = UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, PORT)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    if let Some(mtu) = mtu {
        host::ip(&format!("link set {} mtu {mtu}", vif.tap()));
        until("the daemon has taken note of the MTU", || {
            world.vif_status(&vif).unwrap().mtu == Some(mtu)
        });
    }
    if to.is_ipv6() {
        until("the host has its address", || {
            let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
            addresses.lines().any(|line| line.ends_with(&vif.tap()))
        });
    }
    let payloads: Vec<Vec<u8>> = (0..41_u8)
        .map(|n| vec![n; if n < 40 { len } else { 7 }])
        .collect();
    // What comes before the host has taken note of the carrier is lost.
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
    // One that was sent again may still come.
    while socket.recv(&mut [0; 16]).is_ok() {}
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

/// Frames that the host sees of the forty-one, if this kernel has taps that take trains: asked of one by writing it.
fn expected() -> u64 {
    let options = TapOptions {
        persist: false,
        ..TapOptions::default()
    };
    let tap = Tap::create("asked0", &options).unwrap();
    host::ip("link set asked0 up");
    let header = [1, 5, 42, 0, 1, 0, 34, 0, 6, 0, 0, 0];
    let train = frame(CASE.to, 1, b"ab");
    match tap.write(&[&header[..], &train].concat()) {
        Ok(_) => 1,
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => 41,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn they_are_one_frame_and_arrive_each_by_itself() {
    assert_eq!(CASE.to, host_ip(1));
    assert_eq!(frames_for_forty(CASE), expected());
}

#[test]
fn of_full_size() {
    assert_eq!(frames_for_forty(Case { len: 1_472, ..CASE }), expected());
}

#[test]
fn without_identifications() {
    assert_eq!(frames_for_forty(Case { step: 0, ..CASE }), expected());
}

#[test]
fn over_ipv6() {
    let to = TAP_LINK_LOCAL.into();
    assert_eq!(frames_for_forty(Case { to, ..CASE }), expected());
}

/// Nobody behind the tap would see that they are too long for what comes there.
#[test]
fn longer_ones_than_the_mtu_stay_apart() {
    let (len, mtu) = (1_472, Some(1_499));
    assert_eq!(frames_for_forty(Case { len, mtu, ..CASE }), 41);
}

#[test]
fn unless_the_administrator_wants_them_apart() {
    assert_eq!(
        frames_for_forty(Case {
            joins: false,
            ..CASE
        }),
        41
    );
}
