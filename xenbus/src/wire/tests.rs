// SPDX-License-Identifier: GPL-3.0-or-later
//! Golden bytes, and messages in arbitrary pieces.

use proptest::prelude::*;

use super::*;

/// READ of `backend/vif/1/0/state`, request 7, transaction 0x01020304, written down
/// by hand from the header's definition.
const READ: &[u8] = b"\x02\0\0\0\x07\0\0\0\x04\x03\x02\x01\x16\0\0\0backend/vif/1/0/state\0";

fn read() -> Message {
    Message {
        kind: Kind::Read,
        req_id: 7,
        tx_id: 0x0102_0304,
        payload: b"backend/vif/1/0/state\0".to_vec(),
    }
}

#[test]
fn golden_bytes() {
    let mut bytes = Vec::new();
    read().encode(&mut bytes).unwrap();
    assert_eq!(bytes, READ);
    let mut decoder = Decoder::new();
    decoder.push(READ);
    assert_eq!(decoder.next_message(), Ok(Some(read())));
    assert_eq!(decoder.next_message(), Ok(None));
}

#[test]
fn numbers_are_those_of_the_header() {
    // Written down a second time, from xs_wire.h.
    let expected = [
        (Kind::Control, 0),
        (Kind::Directory, 1),
        (Kind::Read, 2),
        (Kind::GetPerms, 3),
        (Kind::Watch, 4),
        (Kind::Unwatch, 5),
        (Kind::TransactionStart, 6),
        (Kind::TransactionEnd, 7),
        (Kind::Introduce, 8),
        (Kind::Release, 9),
        (Kind::GetDomainPath, 10),
        (Kind::Write, 11),
        (Kind::Mkdir, 12),
        (Kind::Rm, 13),
        (Kind::SetPerms, 14),
        (Kind::WatchEvent, 15),
        (Kind::Error, 16),
        (Kind::IsDomainIntroduced, 17),
        (Kind::Resume, 18),
        (Kind::SetTarget, 19),
        (Kind::ResetWatches, 21),
        (Kind::DirectoryPart, 22),
    ];
    assert_eq!(expected.len(), Kind::ALL.len());
    for (kind, number) in expected {
        assert_eq!(kind.number(), number);
        assert_eq!(Kind::from_number(number), Some(kind));
    }
    for unknown in [20, 23, 0xffff, u32::MAX] {
        assert_eq!(Kind::from_number(unknown), None);
    }
}

#[test]
fn what_is_too_long_or_unknown_is_an_error_that_stays() {
    let header = |number: u32, len: u32| {
        let words = [number, 1, 0, len].map(u32::to_le_bytes);
        words.concat()
    };
    let mut decoder = Decoder::new();
    decoder.push(&header(2, 4097));
    assert_eq!(
        decoder.next_message(),
        Err(WireError::TooLong { len: 4097 })
    );
    decoder.push(&[0; 100]);
    assert_eq!(
        decoder.next_message(),
        Err(WireError::TooLong { len: 4097 })
    );

    let mut decoder = Decoder::new();
    decoder.push(&header(20, 0));
    assert_eq!(
        decoder.next_message(),
        Err(WireError::UnknownKind { number: 20 })
    );

    let mut long = read();
    long.payload = vec![b'x'; PAYLOAD_MAX + 1];
    let mut bytes = vec![1];
    assert_eq!(
        long.encode(&mut bytes),
        Err(WireError::TooLong {
            len: PAYLOAD_MAX + 1
        })
    );
    assert_eq!(bytes, [1]);
    long.payload.pop();
    long.encode(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 1 + HEADER_SIZE + PAYLOAD_MAX);
}

#[test]
fn strings_end_with_nul_or_with_the_payload() {
    let split = |payload: &'static [u8]| strings(payload).collect::<Vec<_>>();
    assert_eq!(split(b""), Vec::<&[u8]>::new());
    assert_eq!(split(b"\0"), [b""]);
    assert_eq!(split(b"a\0b\0"), [b"a", b"b"]);
    assert_eq!(split(b"a\0b"), [b"a", b"b"]);
    assert_eq!(split(b"a\0\0"), [&b"a"[..], b""]);
}

fn message() -> impl Strategy<Value = Message> {
    let kind = prop::sample::select(Kind::ALL);
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(any::<u8>(), PAYLOAD_MAX - 2..=PAYLOAD_MAX),
    ];
    (kind, any::<u32>(), any::<u32>(), payload).prop_map(|(kind, req_id, tx_id, payload)| Message {
        kind,
        req_id,
        tx_id,
        payload,
    })
}

proptest! {
    #[test]
    fn messages_arrive_whole_however_they_are_split(
        messages in prop::collection::vec(message(), 0..6),
        cuts in prop::collection::vec(1usize..5000, 1..20),
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            message.encode(&mut bytes).unwrap();
        }
        let mut decoder = Decoder::new();
        let mut arrived = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            decoder.push(now);
            while let Some(message) = decoder.next_message().unwrap() {
                arrived.push(message);
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(arrived, messages);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        while let Ok(Some(message)) = decoder.next_message() {
            prop_assert!(message.payload.len() <= bytes.len());
        }
    }
}
