// SPDX-License-Identifier: GPL-3.0-or-later
//! Frames that a guest sends in a row, of which datagrams are joined: what the host's stack makes of
//! the writes is what was sent, in order.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netback::vif::fuzzing::{FRAME_MAX, FRAMES_MAX, join};
use netback::vif::offload::header_for_tap;
use netback::vif::vnet::{VNET_HDR_LEN, VnetHdr};
use netback_fuzz::{Headers, Layout, Many, ones_sum};
use xen_ring::netif::TxCsum;

#[derive(Arbitrary, Debug)]
struct Input {
    headers: Headers,
    payload: u16,
    /// Frames of more bytes are not joined.
    longest: u16,
    sent: Many<Sent>,
}

/// How a frame differs from the one before.
#[derive(Arbitrary, Debug)]
enum Sent {
    Same,
    Next { by: u8 },
    Counted,
    Payload { len: u16 },
    Longer { by: i8 },
    Flip { at: u8, byte: u8 },
    NotBlank,
    BadSum { sum: u16 },
    Other(Headers),
}

/// A frame and what is said of it.
struct Guest {
    bytes: Vec<u8>,
    header: VnetHdr,
}

/// Most are short, since long ones take long.
fn length(number: u16) -> usize {
    let most = if number.is_multiple_of(16) { 2000 } else { 60 };
    usize::from(number / 16 % most)
}

fn frames(input: &Input) -> Vec<Guest> {
    let mut headers = Headers {
        udp: true,
        tags: 0,
        ip_options: 0,
        ..input.headers
    };
    let mut payload = length(input.payload);
    let mut frames = Vec::new();
    for (nth, sent) in (0_u8..).zip(input.sent.0.iter().take(FRAMES_MAX)) {
        match sent {
            Sent::Counted => headers.id = headers.id.wrapping_add(1),
            Sent::Next { by } => headers.id = headers.id.wrapping_add(u16::from(by % 3)),
            Sent::Payload { len } => payload = length(*len),
            Sent::Longer { by } => payload = payload.saturating_add_signed((by % 3).into()),
            Sent::Other(other) => headers = *other,
            _ => {}
        }
        let data: Vec<u8> = (0..payload).map(|at| at.to_le_bytes()[0] ^ nth).collect();
        let mut frame = headers.frame(&data);
        let layout = frame.layout;
        let csum = match sent {
            Sent::NotBlank => TxCsum::Complete,
            _ => TxCsum::Blank,
        };
        match sent {
            Sent::BadSum { sum } => {
                frame.bytes[layout.checksum()..][..2].copy_from_slice(&sum.to_be_bytes());
            }
            Sent::Flip { at, byte } => {
                if let Some(place) = frame.bytes.get_mut(usize::from(*at)) {
                    *place = *byte;
                }
            }
            _ => {}
        }
        if let Ok(made) = header_for_tap(csum, None, &mut frame.bytes) {
            frames.push(Guest {
                bytes: frame.bytes,
                header: made.header,
            });
        }
    }
    frames
}

/// What the host makes of a train (virtio 1.2, 5.1.6; Linux's `udp_gso_segment`): its datagrams.
fn cut(header: &[u8], train: &[u8], layout: Layout) -> Vec<Vec<u8>> {
    let field = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let (headers, size) = (field(2), field(4));
    assert_eq!(
        (header[0], header[1], field(6), field(8)),
        (1, 5, layout.transport, 6)
    );
    assert_eq!(headers, layout.payload);
    // As a whole it is a good packet, and more than one datagram.
    let mut whole = train.to_vec();
    layout.blank(&mut whole);
    assert_eq!(whole, train);
    layout.fill(&mut whole);
    assert!(layout.is_good(&whole) && size > 0 && train.len() > headers + size);
    let parts = train[headers..].chunks(size);
    parts
        .zip(0_u16..)
        .map(|(part, nth)| {
            let mut one = [&train[..headers], part].concat();
            let len = |from: usize| u16::try_from(one.len() - from).unwrap().to_be_bytes();
            let (udp, ip) = (
                len(layout.transport),
                len(if layout.v6 { layout.ip + 40 } else { layout.ip }),
            );
            one[layout.transport + 4..][..2].copy_from_slice(&udp);
            if layout.v6 {
                one[layout.ip + 4..][..2].copy_from_slice(&ip);
            } else {
                one[layout.ip + 2..][..2].copy_from_slice(&ip);
                let id = u16::from_be_bytes([train[layout.ip + 4], train[layout.ip + 5]]);
                number(&mut one, layout, id.wrapping_add(nth).to_be_bytes());
            }
            layout.blank(&mut one);
            one
        })
        .collect()
}

/// Gives an IPv4 packet another identification.
fn number(frame: &mut [u8], layout: Layout, id: [u8; 2]) {
    frame[layout.ip + 4..][..2].copy_from_slice(&id);
    frame[layout.ip + 10..][..2].fill(0);
    let sum = !ones_sum(&frame[layout.ip..layout.transport], 0);
    frame[layout.ip + 10..][..2].copy_from_slice(&sum.to_be_bytes());
}

fn check_train(written: &[u8], sent: &[Guest], longest: usize) {
    let (header, train) = written.split_at(VNET_HDR_LEN);
    assert!(train.len() <= FRAME_MAX && sent.len() <= 64);
    let v6 = train[12] == 0x86;
    let transport = if v6 { 54 } else { 34 };
    let layout = Layout {
        v6,
        udp: true,
        ip: 14,
        transport,
        payload: transport + 8,
    };
    let cut = cut(header, train, layout);
    assert_eq!(cut.len(), sent.len());
    // Without fragments and all the same, identifications mean nothing (RFC 6864, section 4).
    let id = |frame: &[u8]| [frame[18], frame[19]];
    let meaningless =
        !v6 && train[20] & 0x40 != 0 && sent.iter().all(|one| id(&one.bytes) == id(train));
    for (mut arrived, one) in cut.into_iter().zip(sent) {
        assert!(one.bytes.len() <= longest);
        if meaningless {
            number(&mut arrived, layout, id(&one.bytes));
        }
        // A train has a right sum.
        let mut expected = one.bytes.clone();
        layout.blank(&mut expected);
        assert_eq!(arrived, expected);
    }
}

fuzz_target!(|input: Input| {
    let (frames, longest) = (frames(&input), usize::from(input.longest));
    let (mut buffers, mut places) = (Vec::new(), Vec::new());
    for frame in &frames {
        buffers.resize(buffers.len() + VNET_HDR_LEN + places.len() % 3, 0xee);
        let start = buffers.len();
        buffers.extend(&frame.bytes);
        places.push((start..buffers.len(), frame.header));
    }
    let (mut rest, mut end) = (&frames[..], 0);
    for write in join(&mut buffers, &places, longest) {
        assert!(write.place.start >= end);
        end = write.place.end;
        let (sent, later) = rest.split_at(write.frames);
        rest = later;
        let bytes = &buffers[write.place];
        assert_eq!(
            write.bytes,
            sent.iter().map(|one| one.bytes.len()).sum::<usize>()
        );
        match sent {
            [one] => assert_eq!(bytes, [&one.header.to_bytes()[..], &one.bytes].concat()),
            _ => check_train(bytes, sent, longest),
        }
    }
    assert!(rest.is_empty());
});
