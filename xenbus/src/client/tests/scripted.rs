// SPDX-License-Identifier: GPL-3.0-or-later
//! Answers that the in-memory store never gives, from a store that reads them off a
//! list.

use super::*;
use crate::wire::Message;

/// A store whose answers the test writes: the reply to each request in turn.
fn scripted(replies: Vec<(Kind, Vec<u8>)>) -> Client {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut decoder = Decoder::new();
        let mut replies = replies.into_iter();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = theirs.read(&mut buffer) {
            decoder.push(&buffer[..count]);
            while let Ok(Some(request)) = decoder.next_message() {
                let Some((kind, payload)) = replies.next() else {
                    return;
                };
                let mut bytes = Vec::new();
                Message {
                    kind,
                    payload,
                    ..request
                }
                .encode(&mut bytes)
                .unwrap();
                if theirs.write_all(&bytes).is_err() {
                    return;
                }
            }
        }
    });
    Client::over(ours).unwrap()
}

/// A store that answers as Linux's device does, from one buffer: each write takes the place of
/// what has not been answered yet. It answers whatever it finds there when nothing more comes.
fn one_buffer() -> Client {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(1..) = theirs.read(&mut buffer) {
            theirs
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            while let Ok(1..) = theirs.read(&mut buffer) {}
            theirs.set_read_timeout(None).unwrap();
            let mut decoder = Decoder::new();
            decoder.push(&buffer);
            let Ok(Some(request)) = decoder.next_message() else {
                return;
            };
            let payload = request.payload.clone();
            let mut bytes = Vec::new();
            Message { payload, ..request }.encode(&mut bytes).unwrap();
            if theirs.write_all(&bytes).is_err() {
                return;
            }
        }
    });
    Client::on(Conn::new(ours.into()).unwrap().into_device())
}

/// Seen on a real Xen: "feature-gso-tcpv6" was written over and over, in place of all other nodes.
#[test]
fn the_device_is_asked_one_thing_at_a_time() {
    let client = one_buffer();
    let paths = ["a", "longer", "b"];
    let read: Vec<_> = client
        .read_many(&paths)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(read, paths.map(|path| Box::from(format!("{path}\0"))));
}

#[test]
fn a_listing_that_changes_begins_anew_and_not_for_ever() {
    let part = |text: &str| (Kind::DirectoryPart, text.as_bytes().to_vec());
    let too_big = || (Kind::Error, b"E2BIG\0".to_vec());
    let client = scripted(vec![
        too_big(),
        part("1\0a\0b\0"),
        part("2\0c\0\0"),
        part("2\0a\0"),
        part("2\0c\0\0"),
    ]);
    assert_eq!(
        client.directory("d").unwrap(),
        [Box::from("a"), Box::from("c")]
    );

    let mut restless = vec![too_big()];
    for n in 0..100 {
        restless.push(part(&format!("{n}\0a\0")));
    }
    assert_eq!(
        kind(scripted(restless).directory("d")),
        ErrorKind::ResourceBusy
    );

    for nonsense in ["", "1", "1\0"] {
        let client = scripted(vec![too_big(), part(nonsense)]);
        assert_eq!(
            kind(client.directory("d")),
            ErrorKind::InvalidData,
            "{nonsense:?}"
        );
    }
    // The directory became empty, or shorter than the offset.
    assert!(
        scripted(vec![too_big(), part("1\0\0")])
            .directory("d")
            .unwrap()
            .is_empty()
    );
}

#[test]
fn nonsense_from_the_store_is_an_error_and_no_panic() {
    assert_eq!(
        kind(scripted(vec![(Kind::TransactionStart, b"x\0".to_vec())]).transaction()),
        ErrorKind::InvalidData
    );
    assert_eq!(
        kind(scripted(vec![(Kind::TransactionStart, b"0\0".to_vec())]).transaction()),
        ErrorKind::InvalidData
    );
    assert_eq!(
        kind(scripted(vec![(Kind::GetPerms, b"z1\0".to_vec())]).get_perms("a")),
        ErrorKind::InvalidData
    );
    assert_eq!(
        kind(scripted(vec![(Kind::Read, b"dom".to_vec())]).domid(LONG)),
        ErrorKind::InvalidData
    );
    let wrong = scripted(vec![(Kind::Write, b"OK\0".to_vec())])
        .read("a")
        .unwrap_err();
    assert!(is_disconnected(&wrong));
}
