// SPDX-License-Identifier: GPL-3.0-or-later
//! From the guest's slots to a frame on the tap, and its checksum.

use std::os::fd::AsFd;

use super::*;
use crate::vif::DropReason;

/// A packet's buffer. FreeBSD has chains of them; here every frame lies in one piece.
mod pkt2mbufc {
    use super::*;

    /// Sends one frame in pieces and gives it back as it came out: in one piece, whole.
    fn through(pieces: &[&[u8]]) {
        let mut rig = Rig::new();
        rig.send(pieces, 0);
        rig.turn();
        let (header, frame) = rig.out().unwrap();
        assert_eq!(header, [0; HEADER]);
        assert_eq!(frame, pieces.concat());
        assert_eq!(rig.out(), None);
        assert_eq!(rig.answers(), vec![0; pieces.len()]);
        assert_eq!(rig.counters.tx.packets(), 1);
    }

    #[test]
    fn empty() {
        let mut rig = Rig::new();
        rig.turn();
        assert_eq!(rig.out(), None);
        // A packet without bytes is no frame: refused, and the vif goes on.
        rig.slot(0, &[], 0, 0);
        rig.turn();
        assert_eq!((rig.out(), rig.answers()), (None, vec![-1]));
    }

    #[test]
    fn short() {
        through(&[&plain(200)]);
    }

    /// The flags of the first slot become the frame's: blank, known to be right, or nothing known.
    #[test]
    fn csum() {
        let expected = [
            (0, vec![0, 0, 0, 0]),
            (DATA_VALIDATED, vec![2, 0, 0, 0]),
            // Behind 34 bytes, 16 on.
            (CSUM_BLANK | DATA_VALIDATED, vec![1, 34, 0, 16]),
        ];
        for (flags, expected) in expected {
            let mut rig = Rig::new();
            rig.send(&[&ipv4(TCP, 20, 100)], flags);
            rig.turn();
            let (header, _) = rig.out().unwrap();
            let found = vec![header[0], header[6], header[7], header[8]];
            assert_eq!(found, expected, "{flags}");
        }
    }

    #[test]
    fn one_cluster() {
        through(&[&plain(2000)]);
    }

    #[test]
    fn largecluster() {
        through(&[&plain(4095)]);
    }

    #[test]
    fn two_cluster() {
        let frame = plain(2 * 2048 + 1);
        let (first, rest) = frame.split_at(2048);
        through(&[first, rest]);
    }
}

/// Lengths after the copy.
mod update_mbufc {
    use super::*;

    fn lengths(pieces: &[usize]) -> usize {
        let mut rig = Rig::new();
        let frame = plain(pieces.iter().sum());
        let mut rest = frame.as_slice();
        let mut parts = Vec::new();
        for len in pieces {
            let (part, after) = rest.split_at(*len);
            parts.push(part);
            rest = after;
        }
        rig.send(&parts, 0);
        rig.turn();
        let (_, out) = rig.out().unwrap();
        assert_eq!(out, frame);
        assert_eq!(rig.counters.tx.bytes(), out.len() as u64);
        out.len()
    }

    #[test]
    fn short() {
        assert_eq!(lengths(&[99]), 99);
    }

    #[test]
    fn two_req() {
        assert_eq!(lengths(&[1400, 500]), 1900);
    }

    #[test]
    fn two_cluster() {
        assert_eq!(lengths(&[2048, 1500]), 3548);
    }
}

/// A blank checksum. FreeBSD fills it in; here the host is told where it belongs, and nothing in the frame changes.
mod add_mbuf_cksum {
    use super::*;

    /// The frame comes out as it went in; the header before it, or the reason why it did not.
    fn blank(frame: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut rig = Rig::new();
        rig.send(&[frame], CSUM_BLANK | DATA_VALIDATED);
        rig.turn();
        match rig.out() {
            Some((header, out)) => {
                assert_eq!(out, frame);
                Ok(header)
            }
            None => Err(rig.counters.tx.drops().next().unwrap().0.name()),
        }
    }

    /// NEEDS_CSUM from byte 34 on, `field` bytes behind that.
    fn at(field: u8) -> Result<Vec<u8>, &'static str> {
        Ok(vec![1, 0, 0, 0, 0, 0, 34, 0, field, 0, 0, 0])
    }

    /// It has no checksum: FreeBSD leaves it alone, this backend does not forward what contradicts itself.
    #[test]
    fn arp() {
        let mut frame = plain(42);
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(blank(&frame), Err("no-checksum-place"));
    }

    /// The same for a checksum that is not TCP's or UDP's, which no frontend leaves blank.
    #[test]
    fn icmp() {
        assert_eq!(blank(&ipv4(ICMP, 8, 56)), Err("no-checksum-place"));
    }

    #[test]
    fn tcp() {
        assert_eq!(blank(&ipv4(TCP, 32, 100)), at(16));
    }

    /// A frame whose checksum the guest has computed stays as it is, whatever is in the field.
    #[test]
    fn tcp_swcksum() {
        let mut rig = Rig::new();
        let frame = ipv4(TCP, 32, 100);
        rig.send(&[&frame], 0);
        rig.turn();
        assert_eq!(rig.out(), Some((vec![0; HEADER], frame)));
    }

    #[test]
    fn udp() {
        assert_eq!(blank(&ipv4(UDP, 8, 100)), at(6));
    }
}

/// What `pkt2mbufc` and `txpkt2rsp` have together: a frame of segments, with its extra info.
#[test]
fn segments_are_described_to_the_host() {
    let mut rig = Rig::new();
    let frame = ipv4(TCP, 20, 3000);
    let flags = CSUM_BLANK | DATA_VALIDATED | EXTRA_INFO;
    rig.slot(0, &frame, flags, frame.len());
    let extra = FrontExtra {
        kind: 1,
        flags: 0,
        body: [0xe8, 3, 1, 0, 0, 0],
    };
    rig.tx.push(FrontTxSlot::Extra(extra)).unwrap();
    rig.turn();
    let header = vec![1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0];
    assert_eq!(rig.out(), Some((header, frame)));
    assert_eq!(rig.answers(), [0, 1]);
}

/// Not one of FreeBSD's. The pieces cross pages of ours, so that a copy takes two operations, and the wrong slot may be
/// blamed.
#[test]
fn a_copy_that_fails_is_told_in_its_own_slot() {
    for bad in 0..4 {
        let mut rig = Rig::new();
        for (at, len) in [1000, 3000, 3000, 3000].into_iter().enumerate() {
            let gref = if at == bad { 9_999 } else { rig.gref(at) };
            let (more, size) = match at {
                0 => (MORE_DATA, 10_000),
                3 => (0, len),
                _ => (MORE_DATA, len),
            };
            let request = FrontTxRequest {
                gref,
                offset: 0,
                flags: more,
                id: u16::try_from(at).unwrap(),
                size,
            };
            rig.tx.push(FrontTxSlot::Request(request)).unwrap();
        }
        rig.turn();
        let expected: Vec<i16> = (0..4).map(|at| if at == bad { -1 } else { 0 }).collect();
        assert_eq!(rig.answers(), expected);
        assert_eq!(rig.out(), None);
    }
}

/// Not one of FreeBSD's. A guest that sends without end must not keep its receiver from running.
#[test]
fn a_turn_ends_after_some_frames_and_the_rest_has_another() {
    let mut rig = Rig::new();
    for _ in 0..200 {
        rig.slot(0, &plain(60), 0, 60);
    }
    let first = rig.turn();
    assert_eq!((first.delivered, first.next), (128, Turn::Again));
    assert_eq!(rig.answers().len(), 128);
    let second = rig.turn();
    assert_eq!((second.delivered, second.next), (72, Turn::Dry));
    assert_eq!(rig.answers().len(), 72);
}

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

/// Not one of FreeBSD's. Datagrams in a row are one frame on the tap and so many packets in every count.
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
