// SPDX-License-Identifier: GPL-3.0-or-later
//! What comes from xenstored, in any pieces: the same messages, answers and events as in one, those
//! that a second reading finds, and never more memory than a message and a piece take.
#![no_main]

use arbitrary::Arbitrary;
use cap::Cap;
use libfuzzer_sys::fuzz_target;
use netback_fuzz::Many;
use xenbus::WatchEvent;
use xenbus::session::{Answer, RequestId, Session, SessionError};
use xenbus::watch::Coalesce;
use xenbus::wire::{Decoder, Kind, Message, WireError};

/// Counts the bytes that are allocated.
#[global_allocator]
static MEMORY: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

#[derive(Arbitrary, Debug)]
struct Input {
    requests: [u8; 4],
    /// How often all of that is sent.
    times: u8,
    /// Lengths of the pieces, again and again.
    pieces: [u16; 3],
    messages: Many<Sent>,
}

#[derive(Arbitrary, Debug)]
enum Sent {
    Reply {
        id: u8,
        kind: u8,
        len: u16,
    },
    Error {
        id: u8,
        name: u8,
    },
    Event {
        path: u8,
        token: u8,
        suffix: u8,
    },
    Header {
        kind: u32,
        id: u32,
        transaction: u32,
        len: u32,
    },
    Bytes([u8; 7]),
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let message = |kind: u32, id: u32, payload: &[u8]| {
            let words = [kind, id, 0, u32::try_from(payload.len()).unwrap()];
            words
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .chain(payload.iter().copied())
                .collect()
        };
        let one_of = |of: &[&'static str], nth: u8| of[usize::from(nth) % of.len()];
        match self {
            Self::Reply { id, kind, len } => {
                // Most are short; the longest that may be, and one byte more.
                let len = match len % 16 {
                    0 => 4096,
                    1 => 4097,
                    _ => usize::from(len % 100),
                };
                let payload = vec![*kind; len];
                message((kind % 24).into(), (id % 8).into(), &payload)
            }
            Self::Error { id, name } => {
                let name = one_of(&["ENOENT", "EAGAIN", "EQUOTA", "E2BIG", "\u{e9}"], *name);
                message(16, (id % 8).into(), format!("{name}\0").as_bytes())
            }
            Self::Event {
                path,
                token,
                suffix,
            } => {
                let path = one_of(
                    &[
                        "backend/vif",
                        "backend/vif/7/0",
                        "/local/domain/7/device/vif/0",
                        "x",
                    ],
                    *path,
                );
                let suffix = ["", "/state", "/9/1/state", "/mtu/"][usize::from(*suffix) % 4];
                let token = one_of(&["a", "b", "", "c\0"], *token);
                message(15, 0, format!("{path}{suffix}\0{token}\0").as_bytes())
            }
            Self::Header {
                kind,
                id,
                transaction,
                len,
            } => {
                let words = [*kind % 32, *id, *transaction, *len % 5000];
                words.iter().flat_map(|word| word.to_le_bytes()).collect()
            }
            Self::Bytes(bytes) => bytes.to_vec(),
        }
    }
}

/// Reads as the protocol has it (Xen's `io/xs_wire.h`).
fn read(mut bytes: &[u8]) -> (Vec<Message>, Option<WireError>) {
    let mut messages = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<16>() {
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (number, len) = (word(0), word(12) as usize);
        let Some(kind) = Kind::ALL.iter().find(|kind| kind.number() == number) else {
            assert!(number == 20 || number > 22);
            return (messages, Some(WireError::UnknownKind { number }));
        };
        if len > 4096 {
            return (messages, Some(WireError::TooLong { len }));
        }
        let Some((payload, rest)) = rest.split_at_checked(len) else {
            break;
        };
        messages.push(Message {
            kind: *kind,
            req_id: word(4),
            tx_id: word(8),
            payload: payload.to_vec(),
        });
        bytes = rest;
    }
    (messages, None)
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Message>, Option<WireError>) {
    let (mut decoder, mut messages) = (Decoder::new(), Vec::new());
    for piece in pieces {
        let before = MEMORY.allocated();
        decoder.push(piece);
        // What it holds is all in one buffer, which is at most twice as large as it has to be.
        let most = 2 * (16 + 4096 + piece.len());
        assert!(MEMORY.allocated() <= before + most);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next_message(), Err(error));
                    return (messages, Some(error));
                }
            }
        }
    }
    let held = MEMORY.allocated();
    drop(decoder);
    let longest = 5000;
    assert!(held - MEMORY.allocated() <= 2 * (16 + 4096 + longest));
    (messages, None)
}

type Outcome = (
    Result<(), SessionError>,
    Vec<Option<Answer>>,
    Vec<WatchEvent>,
);

fn converse<'a>(requests: &[u8], mut pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut session = Session::new();
    let watches = [
        ("backend/vif", "a", Coalesce::Devices),
        (
            "/local/domain/7/device/vif/0",
            "b",
            Coalesce::Nodes(&["state", "mtu"]),
        ),
        ("backend", "c", Coalesce::Watched),
    ];
    for (path, token, coalesce) in watches {
        session.events.register(path, token, coalesce);
    }
    let asked = requests
        .iter()
        .take(8)
        .filter_map(|number| Kind::from_number((number % 24).into()));
    let ids: Vec<RequestId> = asked
        .map(|kind| session.request(kind, 0, &[b"x\0"]).unwrap())
        .collect();
    let result = pieces.try_for_each(|piece| session.receive(piece));
    let answers = ids.iter().map(|id| session.take_answer(*id)).collect();
    assert!(ids.iter().all(|id| session.take_answer(*id).is_none()));
    let events: Vec<_> = std::iter::from_fn(|| session.events.pop()).collect();
    // Equal ones are kept once.
    assert!(
        events
            .iter()
            .enumerate()
            .all(|(at, event)| !events[..at].contains(event))
    );
    (result, answers, events)
}

fuzz_target!(|input: Input| {
    let once: Vec<u8> = input.messages.0.iter().flat_map(Sent::bytes).collect();
    let bytes = once.repeat(1 + usize::from(input.times % 8));
    let lengths = input.pieces.iter().map(|len| 1 + usize::from(*len) % 5000);
    let lengths: Vec<_> = lengths.chain([5000]).collect();
    let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
    for len in lengths.iter().cycle() {
        let (piece, later) = rest.split_at(rest.len().min(*len));
        pieces.push(piece);
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    let expected = read(&bytes);
    assert_eq!(decode(pieces.iter().copied()), expected);
    let mut again = Vec::new();
    for message in &expected.0 {
        message.encode(&mut again).unwrap();
    }
    assert!(bytes.starts_with(&again));

    let whole = converse(&input.requests, [&bytes[..]].into_iter());
    assert_eq!(converse(&input.requests, pieces.into_iter()), whole);
});
