// SPDX-License-Identifier: GPL-3.0-or-later
//! Datagrams that go to the tap as one frame.

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use super::rig::*;
use crate::vif::DropReason;

/// Five datagrams in a row, of a guest whose tap's MTU is known.
fn send_five(rig: &mut Rig) -> usize {
    rig.live.set_mtu(1500);
    let mut frame = ipv4(UDP, 8, 64);
    frame[20] = 0x40; // may not be fragmented
    let words = frame[14..34].chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    for page in 0..5 {
        rig.slot(page, &frame, CSUM_BLANK, frame.len());
    }
    assert_eq!(rig.turn().delivered, 5);
    assert_eq!(rig.answers(), [0; 5]);
    frame.len()
}

/// Datagrams in a row are one frame on the tap and so many packets in every count.
#[test]
fn joined_datagrams_are_counted_each() {
    let mut rig = Rig::new();
    let len = send_five(&mut rig);
    let tx = &rig.counters.tx;
    assert_eq!((tx.packets(), tx.bytes()), (5, 5 * len as u64));
    assert_eq!(tx.drops().next(), None);
    let (header, joined) = rig.out().unwrap();
    assert_eq!(header, [1, 5, 42, 0, 64, 0, 34, 0, 6, 0, 0, 0]);
    assert_eq!(joined.len(), 42 + 5 * 64);
    assert_eq!(rig.out(), None);
}

#[test]
fn refused_datagrams_are_counted_each() {
    let mut rig = Rig::new();
    rig.host.shutdown(std::net::Shutdown::Both).unwrap();
    send_five(&mut rig);
    let tx = &rig.counters.tx;
    assert_eq!((tx.packets(), tx.bytes()), (0, 0));
    let drops: Vec<_> = tx.drops().collect();
    assert_eq!(drops, [(DropReason::TapRefused, 5)]);
    assert!(
        rig.bench.joins,
        "a tap that is gone says nothing of the kernel"
    );
}

/// A kernel that does not know what it should loses the first ones, and no more. (What signals are read from answers a
/// write as such a kernel's tap does.)
#[test]
fn what_the_kernel_does_not_know_is_not_tried_again() {
    let mask = nix::sys::signal::SigSet::empty();
    let signals = nix::sys::signalfd::SignalFd::new(&mask).unwrap();
    let tap = signals.as_fd().try_clone_to_owned().unwrap();
    let mut rig = Rig::with_tap(tap, UnixDatagram::unbound().unwrap());
    send_five(&mut rig);
    assert!(!rig.bench.joins);
    send_five(&mut rig);
    let drops: Vec<_> = rig.counters.tx.drops().collect();
    assert_eq!(drops, [(DropReason::TapRefused, 10)]);
}
