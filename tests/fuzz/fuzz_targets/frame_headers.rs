// SPDX-License-Identifier: GPL-3.0-or-later
//! Frames with checksums to be filled in and segments to be cut, both ways: what a receiver gets has
//! right checksums and lengths, and the segments are the frame. And of frames that are none of this,
//! nothing is taken for granted.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netback::vif::feature::{Feature, Features};
use netback::vif::fuzzing::cut;
use netback::vif::headers::{Network, Protocol, transport};
use netback::vif::offload::{describe_for_guest, header_for_tap, is_taken_whole};
use netback::vif::vnet::{Csum, Segments, VNET_HDR_LEN, VnetHdr};
use netback_fuzz::{Frame, Headers, Layout, ones_sum};
use xen_ring::netif::{Gso, GsoKind, RxFlags, TxCsum};

#[derive(Arbitrary, Debug)]
struct Input {
    headers: Headers,
    payload: u16,
    csum: u8,
    /// Whether it is to be segmented, and whether as IPv6.
    gso: Option<bool>,
    mss: u16,
    /// Of the guest.
    features: u8,
    /// In place of these bytes; and where the frame ends.
    flips: [(u8, u8); 3],
    end: Option<u8>,
    header: [u8; VNET_HDR_LEN],
    /// The sum is one that is not sent as it is.
    zero: bool,
}

impl Input {
    fn gso(&self) -> Option<Gso> {
        let kind = if self.gso? {
            GsoKind::TcpV6
        } else {
            GsoKind::TcpV4
        };
        Some(Gso {
            size: self.mss % 9000,
            kind,
        })
    }

    fn csum(&self) -> TxCsum {
        [TxCsum::Blank, TxCsum::Complete, TxCsum::Validated][usize::from(self.csum % 3)]
    }

    fn features(&self) -> Features {
        use Feature::{CsumV4, CsumV6, GsoTcpv4, GsoTcpv6};
        let all = [CsumV4, CsumV6, GsoTcpv4, GsoTcpv6].into_iter().enumerate();
        all.fold(Features::default(), |set, (bit, one)| {
            set.with(one, self.features >> bit & 1 == 1)
        })
    }
}

/// A frame from the guest, on its way to the tap: its header, unless it is dropped.
fn to_tap(input: &Input, frame: &Frame) -> Option<VnetHdr> {
    let Layout {
        v6,
        udp,
        transport,
        payload,
        ..
    } = frame.layout;
    let (csum, gso) = (input.csum(), input.gso());
    let mut sent = frame.bytes.clone();
    if csum != TxCsum::Blank {
        frame.layout.fill(&mut sent);
    }
    let mut passed = sent.clone();
    let result = header_for_tap(csum, gso, &mut passed);
    let blank = csum == TxCsum::Blank || gso.is_some();
    let possible = !blank
        || input.headers.tags() <= 2
            && gso.is_none_or(|gso| !udp && v6 == (gso.kind == GsoKind::TcpV6));
    assert_eq!(result.is_ok(), possible);
    let made = result.ok()?;
    assert_eq!(made.repaired, gso.is_some() && csum != TxCsum::Blank);
    // A segment's checksum cannot be taken from that of the whole.
    assert_eq!(
        passed,
        if made.repaired {
            frame.bytes.clone()
        } else {
            sent
        }
    );
    let segments = made
        .header
        .gso
        .map(|segments| (segments.gso, usize::from(segments.headers)));
    assert_eq!(segments, gso.map(|gso| (gso, payload)));
    match made.header.csum {
        Csum::Blank { start, offset } => {
            assert!(blank && usize::from(start) == transport);
            assert_eq!(usize::from(offset), frame.layout.checksum_offset());
        }
        Csum::Valid => assert!(!blank && csum == TxCsum::Validated),
        Csum::Unknown => assert!(!blank && csum == TxCsum::Complete),
    }
    assert!(
        gso.is_some_and(|gso| gso.size == 0)
            || VnetHdr::from_bytes(made.header.to_bytes()) == Ok(made.header)
    );
    Some(made.header)
}

/// A frame from a tap with a blank checksum, on its way to a guest.
fn to_guest(input: &Input, frame: &Frame, header: VnetHdr) {
    let features = input.features();
    let Layout { v6, udp, .. } = frame.layout;
    let [csum, segments] = match v6 {
        false => [Feature::CsumV4, Feature::GsoTcpv4],
        true => [Feature::CsumV6, Feature::GsoTcpv6],
    };
    let takes_blank = features.has(csum) && input.headers.tags() == 0;
    let whole = is_taken_whole(header, &frame.bytes, features);
    assert_eq!(
        whole,
        header.gso.is_none() || takes_blank && features.has(segments)
    );
    if !whole {
        return;
    }
    let mut told = frame.bytes.clone();
    let description = describe_for_guest(header, &mut told, features).expect("it is a good frame");
    assert_eq!(description.gso, header.gso.map(|segments| segments.gso));
    assert!(description.flags.contains(RxFlags::DATA_VALIDATED));
    if description.flags.contains(RxFlags::CSUM_BLANK) {
        assert!(takes_blank && told == frame.bytes);
    } else {
        assert!(
            !takes_blank && frame.layout.is_good(&told),
            "udp {udp}: {told:?}"
        );
    }
}

/// The segments of a frame that the guest sent to others, behind as many tags.
fn segments(frame: &Frame, header: VnetHdr) {
    let Some(Segments { gso, .. }) = header.gso else {
        return assert!(cut(&frame.bytes, header).is_none());
    };
    let Layout {
        v6,
        ip,
        transport,
        payload,
        ..
    } = frame.layout;
    let (headers, bytes) = frame.bytes.split_at(payload);
    let size = usize::from(gso.size);
    let cut = cut(&frame.bytes, header);
    let expected = size > 0 && (1..=256).contains(&bytes.len().div_ceil(size));
    assert_eq!(cut.is_some(), expected);
    let Some(cut) = cut else { return };
    let count = cut.len();
    let number = |at: usize| u32::from_be_bytes(headers[at..at + 4].try_into().unwrap());
    for ((nth, segment), part) in cut.iter().enumerate().zip(bytes.chunks(size)) {
        let (told, segment) = segment.split_first_chunk().unwrap();
        assert_eq!(
            VnetHdr::from_bytes(*told),
            Ok(VnetHdr {
                gso: None,
                ..header
            })
        );
        assert_eq!(&segment[payload..], part);
        let mut filled = segment.to_vec();
        frame.layout.fill(&mut filled);
        assert!(frame.layout.is_good(&filled));
        // Apart from lengths and checksums, the headers are the frame's but for these.
        let mut expected = headers.to_vec();
        let sequence = number(transport + 4).wrapping_add(u32::try_from(nth * size).unwrap());
        expected[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
        let not_first = if nth > 0 { 0x80 } else { 0 };
        let not_last = if nth + 1 < count { 0x09 } else { 0 };
        expected[transport + 13] &= !(not_first | not_last);
        let tcp_checksum = transport + 16..transport + 18;
        let same = if v6 {
            vec![tcp_checksum, ip + 4..ip + 6]
        } else {
            let id = u16::from_be_bytes([headers[ip + 4], headers[ip + 5]]);
            let id = id.wrapping_add(u16::try_from(nth).unwrap());
            expected[ip + 4..ip + 6].copy_from_slice(&id.to_be_bytes());
            vec![tcp_checksum, ip + 2..ip + 4, ip + 10..ip + 12]
        };
        for place in same {
            expected[place.clone()].copy_from_slice(&segment[place]);
        }
        assert_eq!(segment[..payload], expected);
    }
    assert_eq!(bytes.chunks(size).count(), count);
}

/// A frame of which nothing is known.
fn anything(input: &Input, mut frame: Vec<u8>) {
    for (at, byte) in &input.flips {
        if let Some(place) = frame.get_mut(usize::from(*at)) {
            *place = *byte;
        }
    }
    frame.truncate(input.end.map_or(frame.len(), usize::from));
    if let Some(found) = transport(&frame) {
        let network = if found.network == Network::V4 { 20 } else { 40 };
        let header = if found.protocol == Protocol::Tcp {
            20
        } else {
            8
        };
        assert!(found.network_start + network <= found.start);
        assert!(usize::from(found.start) + header <= frame.len());
        assert!(
            found
                .headers(&frame)
                .is_none_or(|end| usize::from(end) <= frame.len())
        );
    }
    let _ = header_for_tap(input.csum(), input.gso(), &mut frame.clone());
    let Ok(header) = VnetHdr::from_bytes(input.header) else {
        return;
    };
    assert_eq!(VnetHdr::from_bytes(header.to_bytes()), Ok(header));
    if is_taken_whole(header, &frame, input.features()) {
        let mut told = frame.clone();
        let _ = describe_for_guest(header, &mut told, input.features());
        let changed = told.iter().zip(&frame).filter(|(a, b)| a != b).count();
        assert!(told.len() == frame.len() && changed <= 2);
    }
    if let Some(cut) = cut(&frame, header) {
        let headers = transport(&frame)
            .and_then(|found| found.headers(&frame))
            .unwrap();
        let size = header.gso.unwrap().gso.size;
        assert!(cut.len() <= 256);
        let most = VNET_HDR_LEN + usize::from(headers) + usize::from(size);
        assert!(cut.iter().all(|segment| segment.len() <= most));
        let parts = cut
            .iter()
            .flat_map(|segment| &segment[VNET_HDR_LEN + usize::from(headers)..]);
        assert!(parts.eq(&frame[headers.into()..]));
    }
}

fuzz_target!(|input: Input| {
    // Up to the longest that IPv4 has with all its options; but most are short, since long ones take long.
    let most = match input.payload % 64 {
        0 => 65_400,
        1..8 => 2_000,
        _ => 200,
    };
    let payload: Vec<u8> = (0..input.payload % most)
        .map(|at| at.to_le_bytes()[0] ^ input.csum)
        .collect();
    let mut frame = input.headers.frame(&payload);
    if input.zero && payload.len() > 1 {
        let Layout {
            transport, payload, ..
        } = frame.layout;
        frame.bytes[payload..payload + 2].fill(0);
        let rest = !ones_sum(&frame.bytes[transport..], 0);
        frame.bytes[payload..payload + 2].copy_from_slice(&rest.to_be_bytes());
    }
    if let Some(header) = to_tap(&input, &frame) {
        if let Csum::Blank { .. } = header.csum {
            to_guest(&input, &frame, header);
        }
        segments(&frame, header);
    }
    anything(&input, frame.bytes);
});
