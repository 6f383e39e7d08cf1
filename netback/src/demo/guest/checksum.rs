// SPDX-License-Identifier: GPL-3.0-or-later
//! Checksum offload as a guest does it, on whole Ethernet frames.
//!
//! A guest may leave the TCP or UDP checksum of a frame blank: the field then holds the folded sum of the
//! pseudo-header only (not its complement), so that whoever finishes the job need not know any addresses. The
//! model guest prepares such frames itself and, unlike an ordinary guest, checks everything that it receives
//! against what the flags say, so that a backend which mixes the flags up is found out.
//!
//! Only unfragmented IPv4, and IPv6 without extension headers, is looked into; other frames pass as they are.

use smoltcp::wire::checksum;

use std::ops::Range;

const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const IPV6_HEADER: usize = 40;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What the flags beside a frame say about its TCP or UDP checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Checksum {
    /// Nothing: the field is complete and the receiver checks it.
    #[default]
    Complete,
    /// The field is complete and somebody has checked it already (`data_validated` alone).
    Validated,
    /// The field holds the pseudo-header's sum only (`csum_blank`).
    Blank,
}

/// A received frame's checksum field is not what its flags promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the flags say {said:?}, but the checksum field is {found:#06x} where {expected:#06x} was due"
)]
pub struct ChecksumMismatch {
    /// What the flags promised.
    pub said: Checksum,
    /// The field as it came.
    pub found: u16,
    /// The field as it should have been.
    pub expected: u16,
}

/// Whether an Ethernet frame holds an IPv6 packet.
#[must_use]
pub fn is_ipv6(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&ETHERTYPE_IPV6)
}

/// Leaves the checksum of a TCP or UDP frame blank: writes the pseudo-header's sum into the field.
///
/// Returns false, and leaves the frame alone, when it has no such field that we know.
pub fn blank(frame: &mut [u8]) -> bool {
    let Some(found) = Transport::find(frame) else {
        return false;
    };
    let sum = found.pseudo_header;
    put(frame, found.field, sum)
}

/// Writes the complete checksum of a TCP or UDP frame; false when it has no such field that we know.
pub fn complete(frame: &mut [u8]) -> bool {
    let Some(found) = Transport::find(frame) else {
        return false;
    };
    let Some(sum) = found.complete_sum(frame) else {
        return false;
    };
    put(frame, found.field, sum)
}

/// Checks the field against what the flags said. Frames without a known field are right by definition.
///
/// # Errors
/// [`ChecksumMismatch`] with both values.
pub fn verify(frame: &[u8], said: Checksum) -> Result<(), ChecksumMismatch> {
    let Some(found) = Transport::find(frame) else {
        return Ok(());
    };
    let value = get(frame, found.field);
    let expected = match said {
        Checksum::Blank => found.pseudo_header,
        // UDP over IPv4 may do without a checksum: the field is zero. Over IPv6 it may not (RFC 8200, section 8.1).
        Checksum::Complete | Checksum::Validated
            if found.protocol == UDP && value == 0 && !is_ipv6(frame) =>
        {
            0
        }
        Checksum::Complete | Checksum::Validated => found.complete_sum(frame).unwrap_or(value),
    };
    // In one's complement both are zero, and Linux writes either (RFC 1624, section 3).
    let same = value == expected || matches!((value, expected), (0, 0xffff) | (0xffff, 0));
    if same {
        Ok(())
    } else {
        Err(ChecksumMismatch {
            said,
            found: value,
            expected,
        })
    }
}

/// Where the transport header of a frame lies.
struct Transport {
    protocol: u8,
    /// Header and payload, as the IP header's length says (Ethernet padding is left out).
    segment: Range<usize>,
    /// Offset of the checksum field in the frame.
    field: usize,
    /// Folded, not complemented.
    pseudo_header: u16,
}

impl Transport {
    fn find(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET..)?;
        match <[u8; 2]>::try_from(frame.get(12..14)?).ok()? {
            ETHERTYPE_IPV4 => Self::in_ipv4(ip),
            ETHERTYPE_IPV6 => Self::in_ipv6(ip),
            _ => None,
        }
    }

    fn in_ipv6(ip: &[u8]) -> Option<Self> {
        let length = u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]);
        let is_six = ip.first()? >> 4 == 6;
        (is_six && IPV6_HEADER + usize::from(length) <= ip.len())
            .then(|| Self::at(IPV6_HEADER, length, *ip.get(6)?, ip.get(8..40)?))?
    }

    fn in_ipv4(ip: &[u8]) -> Option<Self> {
        let first = *ip.first()?;
        let header = usize::from(first & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
        let fragment = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]);
        let protocol = *ip.get(9)?;
        // More fragments, or an offset: the field is not in this frame or does not cover it.
        if first >> 4 != 4 || header < 20 || fragment & 0x3fff != 0 || total > ip.len() {
            return None;
        }
        let length = u16::try_from(total.checked_sub(header)?).ok()?;
        Self::at(header, length, protocol, ip.get(12..20)?)
    }

    /// The transport header behind an IP header of `header` bytes, with `length` bytes from there on.
    fn at(header: usize, length: u16, protocol: u8, addresses: &[u8]) -> Option<Self> {
        let offset = match protocol {
            TCP => 16,
            UDP => 6,
            _ => return None,
        };
        if usize::from(length) < offset + 2 {
            return None;
        }
        let start = ETHERNET + header;
        let [high, low] = length.to_be_bytes();
        Some(Self {
            protocol,
            segment: start..start + usize::from(length),
            field: start + offset,
            pseudo_header: checksum::combine(&[
                checksum::data(addresses),
                checksum::data(&[0, protocol, high, low]),
            ]),
        })
    }

    /// The value that makes the segment's sum right, whatever the field holds now.
    fn complete_sum(&self, frame: &[u8]) -> Option<u16> {
        let before = frame.get(self.segment.start..self.field)?;
        let after = frame.get(self.field + 2..self.segment.end)?;
        let sum = !checksum::combine(&[
            self.pseudo_header,
            checksum::data(before),
            checksum::data(after),
        ]);
        // Zero means "no checksum" in UDP; its other form is sent instead (RFC 768).
        Some(if sum == 0 && self.protocol == UDP {
            0xffff
        } else {
            sum
        })
    }
}

fn get(frame: &[u8], at: usize) -> u16 {
    match frame.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    }
}

fn put(frame: &mut [u8], at: usize, value: u16) -> bool {
    match frame.get_mut(at..at + 2) {
        Some(field) => {
            field.copy_from_slice(&value.to_be_bytes());
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A UDP datagram from 192.0.2.1:1 to 192.0.2.2:2 with the payload "abc"; the sums were worked out by hand.
    const DATAGRAM: [u8; 45] = [
        0x00, 0x16, 0x3e, 0, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, // IPv4
        0, 1, 0, 2, 0, 11, 0, 0, b'a', b'b', b'c', // UDP
    ];
    /// c000+0201+c000+0202 = 18403 -> 8404; +0011 (protocol) +000b (length) = 8420.
    const PSEUDO: u16 = 0x8420;
    /// 8420 + 0001+0002+000b (header) + 6162+6300 (data) = 14890 -> 4891; complement b76e.
    const COMPLETE: u16 = 0xb76e;

    #[test]
    fn blank_holds_the_pseudo_header_and_complete_the_whole() {
        let mut frame = DATAGRAM;
        assert!(blank(&mut frame));
        assert_eq!(get(&frame, 40), PSEUDO);
        verify(&frame, Checksum::Blank).unwrap();
        let wrong = verify(&frame, Checksum::Complete).unwrap_err();
        assert_eq!((wrong.found, wrong.expected), (PSEUDO, COMPLETE));

        assert!(complete(&mut frame));
        assert_eq!(get(&frame, 40), COMPLETE);
        verify(&frame, Checksum::Complete).unwrap();
        verify(&frame, Checksum::Validated).unwrap();
        assert!(verify(&frame, Checksum::Blank).is_err());
    }

    #[test]
    fn over_ipv6_too_but_never_without() {
        // From fe80::1 port 1 to fe80::2 port 2, "abc". fe80+0001+fe80+0002 = 1fd03 -> fd04; +0011+000b = fd20.
        let mut frame = [0; 14 + 40 + 11];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 11, 17, 64]);
        frame[22..24].copy_from_slice(&[0xfe, 0x80]);
        frame[38..40].copy_from_slice(&[0xfe, 0x80]);
        (frame[37], frame[53]) = (1, 2);
        frame[54..].copy_from_slice(&[0, 1, 0, 2, 0, 11, 0, 0, b'a', b'b', b'c']);
        assert!(verify(&frame, Checksum::Complete).is_err(), "no checksum");
        assert!(blank(&mut frame));
        assert_eq!(get(&frame, 60), 0xfd20);
        verify(&frame, Checksum::Blank).unwrap();
        // fd20 + 0001+0002+000b (header) + 6162+6300 (data) = 1c190 -> c191; complement 3e6e.
        assert!(complete(&mut frame));
        assert_eq!(get(&frame, 60), 0x3e6e);
        verify(&frame, Checksum::Complete).unwrap();
        // An extension header, a wrong version, a length beyond the frame.
        for (at, value) in [(20, 0), (14, 0x50), (19, 12)] {
            let mut other = frame;
            other[at] = value;
            assert!(!blank(&mut other), "{at}");
        }
    }

    #[test]
    fn a_datagram_without_checksum_is_right() {
        verify(&DATAGRAM, Checksum::Complete).unwrap();
        assert!(verify(&DATAGRAM, Checksum::Blank).is_err());
    }

    #[test]
    fn both_zeroes_of_ones_complement_are_right() {
        let mut frame = DATAGRAM;
        frame[23] = TCP;
        // A TCP header of 20 bytes does not fit into this one; make room, and a sum of zero.
        let mut frame = [&frame[..], &[0; 20]].concat();
        frame[17] = 51;
        assert!(complete(&mut frame));
        let sum = get(&frame, 50);
        let [high, low] = sum.to_be_bytes();
        // The old sum as data, in an even place, makes the new one zero.
        frame[52..54].copy_from_slice(&[high, low]);
        assert!(complete(&mut frame));
        assert_eq!(get(&frame, 50), 0);
        for zero in [0x0000, 0xffff] {
            assert!(put(&mut frame, 50, zero));
            verify(&frame, Checksum::Complete).unwrap();
        }
        assert!(put(&mut frame, 50, 1));
        assert!(verify(&frame, Checksum::Complete).is_err());
    }

    #[test]
    fn other_frames_are_left_alone() {
        let mut arp = [0_u8; 42];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        let mut fragment = DATAGRAM;
        fragment[14 + 6] = 0x20;
        let mut icmp = DATAGRAM;
        icmp[14 + 9] = 1;
        for frame in [&mut arp[..], &mut fragment[..], &mut icmp[..], &mut []] {
            let before = frame.to_vec();
            assert!(!blank(frame));
            assert!(!complete(frame));
            assert_eq!(frame, before);
            verify(frame, Checksum::Blank).unwrap();
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut frame in proptest::collection::vec(any::<u8>(), 0..100)) {
            if frame.len() > 15 {
                frame[12] = 8;
                frame[13] = 0;
                frame[14] = 0x40 | (frame[14] & 0xf);
            }
            let _either = verify(&frame, Checksum::Blank);
            if complete(&mut frame) {
                prop_assert!(verify(&frame, Checksum::Complete).is_ok());
            }
            if blank(&mut frame) {
                prop_assert!(verify(&frame, Checksum::Blank).is_ok());
            }
        }
    }
}
