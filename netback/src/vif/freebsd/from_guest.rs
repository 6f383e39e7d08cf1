// SPDX-License-Identifier: GPL-3.0-or-later
//! From the guest's slots to a frame on the tap, and its checksum.

use xen_ring::front::{FrontExtra, FrontTxSlot};

use super::*;

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
