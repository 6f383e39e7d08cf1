// SPDX-License-Identifier: GPL-3.0-or-later
//! Replies out of order, and streams that are out of step.

use super::*;
use crate::watch::{Coalesce, WatchEvent};

fn message(kind: Kind, req_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let payload = payload.to_vec();
    Message {
        kind,
        req_id,
        tx_id: 0,
        payload,
    }
    .encode(&mut bytes)
    .unwrap();
    bytes
}

#[test]
fn what_waits_to_be_sent_is_known_message_by_message() {
    let mut session = Session::new();
    let messages = [
        message(Kind::Read, 1, b"a\0"),
        message(Kind::Read, 2, b""),
        message(Kind::Rm, 3, b"path\0"),
    ];
    for (kind, payload) in [
        (Kind::Read, b"a\0".as_slice()),
        (Kind::Read, b""),
        (Kind::Rm, b"path\0"),
    ] {
        session.request(kind, 0, &[payload]).unwrap();
    }
    session.sent(5);
    assert_eq!(session.outgoing_message(), &messages[0][5..]);
    session.sent(messages[0].len() - 5);
    assert_eq!(session.outgoing_message(), messages[1]);
    session.sent(messages[1].len() + 1);
    assert_eq!(session.outgoing_message(), &messages[2][1..]);
    session.sent(messages[2].len() - 1);
    assert!(session.outgoing_message().is_empty());
    session.request(Kind::Read, 0, &[b"a\0"]).unwrap();
    assert_eq!(session.outgoing_message(), session.outgoing());
}

#[test]
fn replies_are_matched_by_id_in_any_order_and_taken_once() {
    let mut session = Session::new();
    let first = session.request(Kind::Read, 0, &[b"a\0"]).unwrap();
    let second = session
        .request(Kind::Write, 9, &[b"b\0", b"value"])
        .unwrap();
    assert_eq!(
        session.outgoing(),
        [message(Kind::Read, 1, b"a\0"), {
            let mut second = message(Kind::Write, 2, b"b\0value");
            second[8] = 9;
            second
        }]
        .concat()
    );
    session.sent(18);
    assert_eq!(session.outgoing()[..4], [11, 0, 0, 0]);
    session.sent(usize::MAX);
    assert!(session.outgoing().is_empty());

    assert!(session.outgoing_message().is_empty());

    session.events.register("a", "t", Coalesce::Watched);
    session.receive(&message(Kind::Write, 2, b"OK\0")).unwrap();
    session
        .receive(&message(Kind::WatchEvent, 0, b"a\0t\0"))
        .unwrap();
    assert_eq!(session.take_answer(first), None);
    session
        .receive(&message(Kind::Error, 1, b"ENOENT\0"))
        .unwrap();
    assert_eq!(session.take_answer(second), Some(Ok(b"OK\0".to_vec())));
    assert_eq!(session.take_answer(second), None);
    assert_eq!(session.take_answer(first), Some(Err(ErrorCode::NoEnt)));
    let event = WatchEvent {
        path: "a".into(),
        token: "t".into(),
    };
    assert_eq!(session.events.pop(), Some(event));
}

#[test]
fn a_stream_out_of_step_is_an_error() {
    let session = || {
        let mut session = Session::new();
        session.request(Kind::Read, 0, &[b"a\0"]).unwrap();
        session
    };
    let unasked = |kind, id| Err(SessionError::Unasked { kind, id });
    assert_eq!(
        session().receive(&message(Kind::Read, 2, b"")),
        unasked(Kind::Read, 2)
    );
    assert_eq!(
        session().receive(&message(Kind::Write, 1, b"OK\0")),
        unasked(Kind::Write, 1)
    );
    let mut twice = session();
    twice.receive(&message(Kind::Read, 1, b"")).unwrap();
    assert_eq!(
        twice.receive(&message(Kind::Read, 1, b"")),
        unasked(Kind::Read, 1)
    );
    assert_eq!(
        session().receive(&message(Kind::Error, 1, b"EWHAT\0")),
        Err(SessionError::UnknownError {
            text: "EWHAT".into(),
            operation: Kind::Read
        })
    );
    assert!(matches!(
        session().receive(&[0xff; 16]),
        Err(SessionError::Wire(_))
    ));
}

#[test]
fn a_malformed_event_is_skipped() {
    let mut session = Session::new();
    session.events.register("a", "t", Coalesce::Watched);
    for payload in [&b""[..], b"a\0", b"\xff\0t\0", b"a\0\xff\0"] {
        session
            .receive(&message(Kind::WatchEvent, 0, payload))
            .unwrap();
    }
    assert!(session.events.is_empty());
    session
        .receive(&message(Kind::WatchEvent, 0, b"a\0t\0extra\0"))
        .unwrap();
    assert_eq!(session.events.len(), 1);
}

#[test]
fn ids_in_use_and_zero_are_not_given_again() {
    let mut session = Session::new();
    let first = session.request(Kind::Read, 0, &[b"a\0"]).unwrap();
    assert_eq!(first, RequestId(1));
    session.last_id = u32::MAX - 1;
    let ids: Vec<_> = (0..3)
        .map(|_| session.request(Kind::Read, 0, &[b"a\0"]).unwrap())
        .collect();
    assert_eq!(ids, [RequestId(u32::MAX), RequestId(2), RequestId(3)]);
}

#[test]
fn a_request_that_is_too_long_is_not_sent() {
    let mut session = Session::new();
    let path = [b'a'; 4000];
    assert!(session.request(Kind::Write, 0, &[&path, &path]).is_err());
    assert!(session.outgoing().is_empty());
}

#[test]
fn an_old_kernels_answers_to_watches_have_no_id() {
    let mut session = Session::new();
    let read = session.request(Kind::Read, 0, &[b"a\0"]).unwrap();
    let watch = session.request(Kind::Watch, 0, &[b"a\0t\0"]).unwrap();
    let ok = message(Kind::Watch, 0, b"OK\0");
    session.receive(&ok).unwrap();
    assert_eq!(session.take_answer(watch), Some(Ok(b"OK\0".to_vec())));
    assert_eq!(session.take_answer(read), None);
    let again = session.receive(&ok);
    assert_eq!(
        again,
        Err(SessionError::Unasked {
            kind: Kind::Watch,
            id: 0
        })
    );
}
