// SPDX-License-Identifier: GPL-3.0-or-later
//! Every row of the table, both ways, and what no row allows.

use super::*;

const ONLY_V4: Features = Features::of(&[Feature::CsumV4, Feature::GsoTcpv4]);
const ALL: Features = ONLY_V4
    .with(Feature::CsumV6, true)
    .with(Feature::GsoTcpv6, true);
const TCP_V4: Gso = Gso {
    size: 1448,
    kind: GsoKind::TcpV4,
};
const TCP_V6: Gso = Gso {
    size: 1428,
    kind: GsoKind::TcpV6,
};

/// TCP over IPv4, 20 + 20 bytes of headers, no data.
fn tcp4() -> Vec<u8> {
    let mut frame = vec![0; 54];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[23] = 6;
    frame[46] = 5 << 4;
    frame
}

/// TCP over IPv4 whose header claims 60 bytes and has 20.
fn overlong_tcp4() -> Vec<u8> {
    let mut frame = tcp4();
    frame[46] = 15 << 4;
    frame
}

/// UDP over IPv6 with two bytes of data.
fn udp6() -> Vec<u8> {
    let mut frame = vec![0; 64];
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    frame[14] = 0x60;
    frame[20] = 17;
    frame
}

/// TCP over IPv6, 40 + 20 bytes of headers, no data.
fn tcp6() -> Vec<u8> {
    let mut frame = vec![0; 74];
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    frame[14] = 0x60;
    frame[20] = 6;
    frame[66] = 5 << 4;
    frame
}

fn arp() -> Vec<u8> {
    let mut frame = vec![0; 42];
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    frame
}

fn blank(start: u16, offset: u16) -> VnetHdr {
    VnetHdr {
        csum: Csum::Blank { start, offset },
        gso: None,
    }
}

fn segmented(header: VnetHdr, gso: Gso, headers: u16) -> VnetHdr {
    VnetHdr {
        gso: Some(Segments { gso, headers }),
        ..header
    }
}

#[test]
fn from_the_guest() {
    for (csum, gso, mut frame, header) in [
        (TxCsum::Complete, None, tcp4(), VnetHdr::default()),
        (TxCsum::Complete, None, arp(), VnetHdr::default()),
        (
            TxCsum::Validated,
            None,
            tcp4(),
            VnetHdr {
                csum: Csum::Valid,
                gso: None,
            },
        ),
        (TxCsum::Blank, None, tcp4(), blank(34, 16)),
        (TxCsum::Blank, None, udp6(), blank(54, 6)),
        (
            TxCsum::Blank,
            Some(TCP_V4),
            tcp4(),
            segmented(blank(34, 16), TCP_V4, 54),
        ),
        (
            TxCsum::Blank,
            Some(TCP_V6),
            tcp6(),
            segmented(blank(54, 16), TCP_V6, 74),
        ),
    ] {
        let before = frame.clone();
        let made = header_for_tap(csum, gso, &mut frame);
        assert_eq!(
            made,
            Ok(ForTap {
                header,
                repaired: false
            })
        );
        assert_eq!(frame, before);
    }
}

#[test]
fn from_the_guest_what_is_not_so_is_dropped() {
    for (csum, gso, mut frame, reason) in [
        (TxCsum::Blank, None, arp(), DropReason::NoChecksumPlace),
        (
            TxCsum::Complete,
            Some(TCP_V4),
            arp(),
            DropReason::NoChecksumPlace,
        ),
        // UDP, the other IP, and a TCP header that claims more than there is.
        (TxCsum::Blank, Some(TCP_V6), udp6(), DropReason::BadOffload),
        (TxCsum::Blank, Some(TCP_V6), tcp4(), DropReason::BadOffload),
        (TxCsum::Blank, Some(TCP_V4), tcp6(), DropReason::BadOffload),
        (
            TxCsum::Blank,
            Some(TCP_V4),
            overlong_tcp4(),
            DropReason::BadOffload,
        ),
    ] {
        assert_eq!(header_for_tap(csum, gso, &mut frame), Err(reason));
    }
}

#[test]
fn segments_of_a_frame_with_a_checksum_are_repaired() {
    for csum in [TxCsum::Complete, TxCsum::Validated] {
        let mut frame = tcp4();
        frame[50..52].fill(0xaa);
        let header = segmented(blank(34, 16), TCP_V4, 54);
        let made = header_for_tap(csum, Some(TCP_V4), &mut frame);
        assert_eq!(
            made,
            Ok(ForTap {
                header,
                repaired: true
            })
        );
        // The pseudo-header's sum: no addresses, protocol 6, 20 bytes.
        assert_eq!(frame[50..52], 26_u16.to_be_bytes());
    }
}

#[test]
fn to_a_guest_that_takes_everything_nothing_is_computed() {
    let blank_flags = RxFlags::CSUM_BLANK.with(RxFlags::DATA_VALIDATED);
    let valid = VnetHdr {
        csum: Csum::Valid,
        gso: None,
    };
    for (mut frame, header, flags, gso) in [
        (tcp4(), VnetHdr::default(), RxFlags::default(), None),
        (tcp4(), valid, RxFlags::DATA_VALIDATED, None),
        (tcp4(), blank(34, 16), blank_flags, None),
        (udp6(), blank(54, 6), blank_flags, None),
        (
            tcp4(),
            segmented(blank(34, 16), TCP_V4, 54),
            blank_flags,
            Some(TCP_V4),
        ),
        (
            tcp6(),
            segmented(blank(54, 16), TCP_V6, 74),
            blank_flags,
            Some(TCP_V6),
        ),
    ] {
        let before = frame.clone();
        let described = describe_for_guest(header, &mut frame, ALL);
        assert_eq!(described, Ok(ForGuest { flags, gso }));
        assert_eq!(frame, before);
    }
}

#[test]
fn to_a_guest_that_cannot_leave_it_blank_the_checksum_is_computed() {
    let mut frame = udp6();
    // The pseudo-header's sum of zero addresses: length 10 and next header 17.
    frame[60..62].copy_from_slice(&27_u16.to_be_bytes());
    let described = describe_for_guest(blank(54, 6), &mut frame, ONLY_V4);
    assert_eq!(
        described,
        Ok(ForGuest {
            flags: RxFlags::DATA_VALIDATED,
            gso: None
        })
    );
    assert_eq!(frame[60..62], (!27_u16).to_be_bytes());
}

#[test]
fn a_blank_checksum_that_netif_cannot_describe_is_computed() {
    // The frame is TCP but the header points somewhere else, as an encapsulation would.
    let mut frame = tcp4();
    let described = describe_for_guest(blank(14, 10), &mut frame, ALL);
    assert_eq!(
        described,
        Ok(ForGuest {
            flags: RxFlags::DATA_VALIDATED,
            gso: None
        })
    );
    assert_ne!(frame, tcp4());
}

#[test]
fn behind_a_vlan_tag_the_checksum_is_computed() {
    for (mut frame, start, gso) in [(tcp4(), 34, TCP_V4), (tcp6(), 54, TCP_V6)] {
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
        let header = blank(start + 4, 16);
        let before = frame.clone();
        let described = describe_for_guest(header, &mut frame, ALL);
        assert_eq!(
            described,
            Ok(ForGuest {
                flags: RxFlags::DATA_VALIDATED,
                gso: None
            })
        );
        assert_ne!(frame, before);
        let segmented = segmented(header, gso, start + 4 + 20);
        assert!(!is_taken_whole(segmented, &frame, ALL));
    }
}

#[test]
fn segments_are_passed_on_only_as_agreed() {
    let no_gso = ALL.without(&[Feature::GsoTcpv4, Feature::GsoTcpv6]);
    for (frame, header, features) in [
        // Not asked for; the wrong protocol; without a blank checksum; for one that takes none.
        (tcp4(), segmented(blank(34, 16), TCP_V4, 54), no_gso),
        (tcp4(), segmented(blank(34, 16), TCP_V6, 54), ALL),
        (tcp4(), segmented(VnetHdr::default(), TCP_V4, 54), ALL),
        (tcp6(), segmented(blank(54, 16), TCP_V6, 74), ONLY_V4),
    ] {
        assert!(!is_taken_whole(header, &frame, features));
    }
}

#[test]
fn a_place_outside_the_frame_is_refused() {
    let described = describe_for_guest(blank(54, 0), &mut tcp4(), ALL);
    assert_eq!(described, Err(DropReason::BadFromTap));
}
