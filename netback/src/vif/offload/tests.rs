// SPDX-License-Identifier: GPL-3.0-or-later
//! Every row of the table, both ways, and what no row allows.

use super::*;

const BOTH: ChecksumOffload = ChecksumOffload { v4: true, v6: true };
const ONLY_V4: ChecksumOffload = ChecksumOffload {
    v4: true,
    v6: false,
};

/// TCP over IPv4, 20 + 20 bytes of headers, no data.
fn tcp4() -> Vec<u8> {
    let mut frame = vec![0; 54];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[23] = 6;
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

fn blank(start: u16, offset: u16) -> VnetHdr {
    VnetHdr {
        csum: Csum::Blank { start, offset },
    }
}

#[test]
fn from_the_guest() {
    assert_eq!(
        header_for_tap(TxCsum::Complete, &tcp4()),
        Ok(VnetHdr {
            csum: Csum::Unknown
        })
    );
    assert_eq!(
        header_for_tap(TxCsum::Validated, &tcp4()),
        Ok(VnetHdr { csum: Csum::Valid })
    );
    assert_eq!(header_for_tap(TxCsum::Blank, &tcp4()), Ok(blank(34, 16)));
    assert_eq!(header_for_tap(TxCsum::Blank, &udp6()), Ok(blank(54, 6)));
}

#[test]
fn a_blank_checksum_needs_a_place() {
    let mut arp = vec![0; 42];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(
        header_for_tap(TxCsum::Blank, &arp),
        Err(DropReason::NoChecksumPlace)
    );
    assert_eq!(
        header_for_tap(TxCsum::Complete, &arp),
        Ok(VnetHdr::default())
    );
}

#[test]
fn to_a_guest_that_takes_everything_nothing_is_computed() {
    for (mut frame, header, flags) in [
        (tcp4(), VnetHdr::default(), RxFlags::default()),
        (
            tcp4(),
            VnetHdr { csum: Csum::Valid },
            RxFlags::DATA_VALIDATED,
        ),
        (
            tcp4(),
            blank(34, 16),
            RxFlags::CSUM_BLANK.with(RxFlags::DATA_VALIDATED),
        ),
        (
            udp6(),
            blank(54, 6),
            RxFlags::CSUM_BLANK.with(RxFlags::DATA_VALIDATED),
        ),
    ] {
        let before = frame.clone();
        assert_eq!(flags_for_guest(header, &mut frame, BOTH), Ok(flags));
        assert_eq!(frame, before);
    }
}

#[test]
fn to_a_guest_that_cannot_leave_it_blank_the_checksum_is_computed() {
    let mut frame = udp6();
    // The pseudo-header's sum of zero addresses: length 10 and next header 17.
    frame[60..62].copy_from_slice(&27_u16.to_be_bytes());
    assert_eq!(
        flags_for_guest(blank(54, 6), &mut frame, ONLY_V4),
        Ok(RxFlags::DATA_VALIDATED)
    );
    assert_eq!(frame[60..62], (!27_u16).to_be_bytes());
}

#[test]
fn a_blank_checksum_that_netif_cannot_describe_is_computed() {
    // The frame is TCP but the header points somewhere else, as an encapsulation would.
    let mut frame = tcp4();
    assert_eq!(
        flags_for_guest(blank(14, 10), &mut frame, BOTH),
        Ok(RxFlags::DATA_VALIDATED)
    );
    assert_ne!(frame, tcp4());
}

#[test]
fn a_place_outside_the_frame_is_refused() {
    let refused = flags_for_guest(blank(54, 0), &mut tcp4(), BOTH);
    assert_eq!(refused, Err(DropReason::BadFromTap));
}
