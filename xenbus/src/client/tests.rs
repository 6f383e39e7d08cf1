// SPDX-License-Identifier: GPL-3.0-or-later
//! The client against the in-memory store over a socket pair, and against peers that
//! are worse than any store.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xenstore_rs::{Xs, XsTransaction, XsTransactionSpan};

use super::*;
use crate::error::is_disconnected;
use crate::fake::FakeXenstored;
use crate::perms::Access;
use crate::transaction::transact;
use crate::wire::Decoder;

mod scripted;

const LONG: Duration = Duration::from_secs(5);

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Waits until events can be read; fails if none come for a very long time.
fn wait_readable(client: &Client) {
    let mut fds = [PollFd::new(client.as_fd(), PollFlags::POLLIN)];
    assert_eq!(
        poll(
            &mut fds,
            PollTimeout::try_from(Duration::from_secs(60)).unwrap()
        ),
        Ok(1)
    );
}

fn events(client: &Client) -> Vec<(String, String)> {
    client.poll_events().unwrap();
    std::iter::from_fn(|| client.next_event())
        .map(|e| (e.path, e.token))
        .collect()
}

#[test]
fn nodes_are_written_read_listed_and_removed() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    assert_eq!(client.domid(LONG).unwrap(), DomId::ZERO);
    client.write("backend/vif/1/0/state", "1").unwrap();
    client.write("backend/vif/1/0/mac", "").unwrap();
    assert_eq!(
        &*client
            .read("/local/domain/0/backend/vif/1/0/state")
            .unwrap(),
        "1"
    );
    assert_eq!(&*client.read("backend/vif/1/0/mac").unwrap(), "");
    assert_eq!(
        client.directory("backend/vif/1/0").unwrap(),
        [Box::from("mac"), Box::from("state")]
    );
    assert_eq!(
        client.directory("backend/vif/1/0/mac").unwrap(),
        Vec::<Box<str>>::new()
    );
    client.rm("backend/vif/1").unwrap();
    assert_eq!(
        kind(client.read("backend/vif/1/0/state")),
        ErrorKind::NotFound
    );
    client.rm("backend/vif/1").unwrap();
    assert_eq!(
        kind(client.rm("backend/vif/1/0/state")),
        ErrorKind::NotFound
    );
    client.mkdir("a").unwrap();
    client.mkdir("a").unwrap();
    assert_eq!(&*client.read("a").unwrap(), "");
}

#[test]
fn what_cannot_be_sent_is_refused_and_the_client_goes_on() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    assert_eq!(kind(client.write("a\0b", "x")), ErrorKind::InvalidInput);
    assert_eq!(kind(client.read("a\0b")), ErrorKind::InvalidInput);
    assert_eq!(
        kind(client.write("a", &"x".repeat(4095))),
        ErrorKind::InvalidInput
    );
    assert_eq!(kind(client.read("")), ErrorKind::InvalidInput);
    assert_eq!(kind(client.read("a//b")), ErrorKind::InvalidInput);
    client.write("a", &"x".repeat(4094)).unwrap();
    assert_eq!(client.read("a").unwrap().len(), 4094);
    // A value may contain anything, a NUL too.
    client.write("a", "x\0y").unwrap();
    assert_eq!(&*client.read("a").unwrap(), "x\0y");
}

#[test]
fn a_value_that_is_not_utf8_is_invalid_data() {
    let store = FakeXenstored::spawn().unwrap();
    store
        .with(|s| s.write("/local/domain/0/data/x", [0xff, 0xfe]))
        .unwrap();
    let client = store.client(0).unwrap();
    assert_eq!(kind(client.read("data/x")), ErrorKind::InvalidData);
    assert_eq!(&*client.read("domid").unwrap(), "0");
}

#[test]
fn transactions_are_all_or_nothing() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    let t = client.transaction().unwrap();
    t.write("a", "1").unwrap();
    assert_eq!(&*t.read("a").unwrap(), "1");
    assert_eq!(kind(client.read("a")), ErrorKind::NotFound);
    t.commit().unwrap();
    assert_eq!(&*client.read("a").unwrap(), "1");

    let t = client.transaction().unwrap();
    t.rm("a").unwrap();
    t.mkdir("b").unwrap();
    t.set_perms("b", &[Perm::new(Access::Read, 0)]).unwrap();
    assert_eq!(t.get_perms("b").unwrap(), [Perm::new(Access::Read, 0)]);
    assert!(
        !t.directory("/local/domain/0")
            .unwrap()
            .contains(&Box::from("a"))
    );
    drop(t);
    assert_eq!(&*client.read("a").unwrap(), "1");
    assert_eq!(kind(client.read("b")), ErrorKind::NotFound);
    assert_eq!(
        store.with(|s| s.census()).unwrap(),
        (1, 0, 0),
        "dropped means ended"
    );
}

#[test]
fn a_conflict_is_retried_with_what_is_there_now() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    let other = store.client(0).unwrap();
    client.write("n", "0").unwrap();
    let mut runs = 0;
    transact(&client, |t| {
        runs += 1;
        let n: u32 = t.read("n")?.parse().unwrap();
        if runs <= 3 {
            other.write("n", &(n + 10).to_string())?;
        }
        t.write("n", &(n + 1).to_string())
    })
    .unwrap();
    assert_eq!((runs, &*client.read("n").unwrap()), (4, "31"));
}

#[test]
fn retries_are_bounded_and_failures_abandon() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    store.with(|s| s.faults.failing_commits = 99).unwrap();
    transact(&client, |t| t.write("n", "1")).unwrap();
    store.with(|s| s.faults.failing_commits = 100).unwrap();
    let mut runs = 0;
    let failed = transact(&client, |t| {
        runs += 1;
        t.write("n", "2")
    });
    assert_eq!((kind(failed), runs), (ErrorKind::WouldBlock, 100));
    assert_eq!(&*client.read("n").unwrap(), "1");
    let failed = transact(&client, |t| {
        t.write("n", "3")?;
        t.read("missing")
    });
    assert_eq!(kind(failed), ErrorKind::NotFound);
    assert_eq!(&*client.read("n").unwrap(), "1");
    assert_eq!(store.with(|s| s.census()).unwrap().2, 0);
}

#[test]
fn long_listings_come_in_parts() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    let names: Vec<Box<str>> = (0..2000).map(|n| format!("name-{n:05}").into()).collect();
    let wanted = names.clone();
    store
        .with(move |s| {
            for name in names {
                s.write(&format!("/local/domain/0/data/{name}"), "");
            }
        })
        .unwrap();
    assert_eq!(client.directory("data").unwrap(), wanted);
    transact(&client, |t| {
        assert_eq!(t.directory("data")?, wanted);
        Ok(())
    })
    .unwrap();
}

#[test]
fn watches_tell_at_once_and_then_of_each_change() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    let other = store.client(0).unwrap();
    client.watch("backend/x", "tok").unwrap();
    let event = || ("backend/x".to_owned(), "tok".to_owned());
    assert_eq!(events(&client), [event()]);
    assert_eq!(
        kind(client.watch("backend/x", "tok")),
        ErrorKind::AlreadyExists
    );

    other.write("backend/x/y/z", "1").unwrap();
    wait_readable(&client);
    assert_eq!(events(&client), [event()]);

    // Events that arrive while a request waits are kept.
    for n in 0..100 {
        other.write("backend/x/y", &n.to_string()).unwrap();
    }
    client.read("domid").unwrap();
    assert_eq!(events(&client), [event()]);

    other.rm("backend").unwrap();
    wait_readable(&client);
    assert_eq!(events(&client), [event()], "removal of a parent is told");

    other.write("backend/x", "1").unwrap();
    client.unwatch("backend/x", "tok").unwrap();
    assert_eq!(events(&client), []);
    assert_eq!(
        kind(client.unwatch("backend/x", "tok")),
        ErrorKind::NotFound
    );
    other.write("backend/x", "2").unwrap();
    client.read("domid").unwrap();
    assert_eq!(events(&client), []);
}

#[test]
fn a_storm_is_bounded_and_the_client_still_answers() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    client.watch_devices("backend/vif", "root").unwrap();
    client.poll_events().unwrap();
    store
        .with(|s| {
            for n in 0..100_000u32 {
                s.write(
                    &format!("/local/domain/0/backend/vif/1/{}/state", n % 3),
                    "1",
                );
            }
        })
        .unwrap();
    assert_eq!(&*client.read("backend/vif/1/0/state").unwrap(), "1");
    // Whatever part of the storm has arrived, it is at most one event for each node.
    let pending = events(&client);
    assert!(pending.len() <= 4, "{pending:?}");
}

#[test]
fn an_unprivileged_domain_is_kept_in_its_place() {
    let store = FakeXenstored::spawn().unwrap();
    store.introduce(7).unwrap();
    let guest = store.client(7).unwrap();
    let control = store.client(0).unwrap();
    assert_eq!(guest.domid(LONG).unwrap().raw(), 7);
    guest.write("data/x", "1").unwrap();
    assert_eq!(&*control.read("/local/domain/7/data/x").unwrap(), "1");
    assert_eq!(
        kind(guest.write("/local/domain/0/x", "1")),
        ErrorKind::PermissionDenied
    );
    assert_eq!(
        kind(guest.read("/local/domain/0/domid")),
        ErrorKind::PermissionDenied
    );
    assert_eq!(kind(guest.write("domid", "8")), ErrorKind::PermissionDenied);
    assert_eq!(
        kind(guest.set_perms("data", &[Perm::new(Access::None, 8)])),
        ErrorKind::PermissionDenied
    );
    control
        .set_perms(
            "domid",
            &[Perm::new(Access::None, 0), Perm::new(Access::Read, 7)],
        )
        .unwrap();
    assert_eq!(&*guest.read("/local/domain/0/domid").unwrap(), "0");
    assert_eq!(
        kind(guest.write("data/big", &"x".repeat(2049))),
        ErrorKind::StorageFull
    );
    store
        .with(|s| s.faults.refusals.push_back((Kind::Write, ErrorCode::Quota)))
        .unwrap();
    let refused = guest.write("data/x", "2").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
    assert!(
        refused.to_string().contains("EQUOTA to WRITE \"data/x\""),
        "{refused}"
    );
    guest.write("data/x", "2").unwrap();
}

#[test]
fn a_lost_connection_is_known_and_stays_lost() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    let idle = store.client(0).unwrap();
    let t = client.transaction().unwrap();
    client.watch("a", "t").unwrap();
    store.drop_connections().unwrap();
    assert!(is_disconnected(&t.write("a", "1").unwrap_err()));
    assert!(is_disconnected(&t.commit().unwrap_err()));
    assert!(is_disconnected(&client.read("a").unwrap_err()));
    assert!(is_disconnected(&client.poll_events().unwrap_err()));
    assert!(
        client.next_event().is_some(),
        "what came before is still there"
    );
    wait_readable(&idle);
    assert!(is_disconnected(&idle.poll_events().unwrap_err()));

    store.refuse(true).unwrap();
    assert_eq!(kind(store.client(0)), ErrorKind::ConnectionRefused);
    store.refuse(false).unwrap();
    assert!(store.client(0).unwrap().read("domid").is_ok());
}

/// Anything that is asked one after the other waits here for ever.
#[test]
fn all_is_sent_before_the_first_answer_is_awaited() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let client = Client::over(ours).unwrap();
    let store = std::thread::spawn(move || {
        let (mut decoder, mut requests, mut buffer) = (Decoder::new(), Vec::new(), [0; 4096]);
        while requests.len() < 3 {
            let count = theirs.read(&mut buffer).unwrap();
            decoder.push(&buffer[..count]);
            while let Ok(Some(request)) = decoder.next_message() {
                requests.push(request);
            }
        }
        // A store may answer in any order.
        for request in requests.into_iter().rev() {
            let mut bytes = Vec::new();
            request.encode(&mut bytes).unwrap();
            theirs.write_all(&bytes).unwrap();
        }
        theirs
    });
    let paths = ["a", "b\0", "c", "d"];
    let answers = client.read_many(&paths);
    let _open = store.join().unwrap();
    let texts: Vec<_> = answers.into_iter().map(|answer| answer.ok()).collect();
    let said = |text: &str| Some(Box::from(text));
    assert_eq!(texts, [said("a\0"), None, said("c\0"), said("d\0")]);
}

#[test]
fn of_many_requests_each_has_its_own_answer() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    client.write_many(&[("a", "1"), ("b", "2")]).unwrap();
    let read: Vec<_> = client
        .read_many(&["b", "a//b", "none", "a"])
        .into_iter()
        .map(|read| read.map_err(|error| error.kind()))
        .collect();
    assert_eq!(
        read,
        [
            Ok("2".into()),
            Err(ErrorKind::InvalidInput),
            Err(ErrorKind::NotFound),
            Ok("1".into())
        ]
    );
    let too_long = "x".repeat(4095);
    let refused = client.write_many(&[("c", "3"), ("a", too_long.as_str()), ("d", "4")]);
    assert_eq!(kind(refused), ErrorKind::InvalidInput);
    let t = client.transaction().unwrap();
    t.mkdir_many(&["e", "e/f"]).unwrap();
    let perms = [Perm::new(Access::None, 0), Perm::new(Access::Read, 5)];
    t.set_perms_many(&[("e/f", &perms[..]), ("e", &perms)])
        .unwrap();
    assert_eq!(
        kind(t.set_perms_many(&[("none", &perms[..])])),
        ErrorKind::NotFound
    );
    t.write_many(&[("e/f", "5")]).unwrap();
    assert_eq!(t.read_many(&["e/f"])[0].as_deref().ok(), Some("5"));
    assert!(t.rm_many(&["a"])[0].is_ok());
    assert_eq!(kind(client.read("e/f")), ErrorKind::NotFound);
    t.commit().unwrap();
    assert_eq!(client.get_perms("e/f").unwrap(), perms);
    assert!(client.rm_many(&["c", "d"]).iter().all(Result::is_ok));
    assert_eq!(kind(client.read("a")), ErrorKind::NotFound);

    store.drop_connections().unwrap();
    let lost = client.read_many(&["b", "e"]);
    assert!(
        lost.iter()
            .all(|read| is_disconnected(read.as_ref().unwrap_err()))
    );
}

/// The kernel takes connections for a listener that does not, as long as there is room.
#[test]
fn a_store_that_does_not_answer_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let client = Client::connect_to(&path, LONG).unwrap();
    let lost = client.domid(Duration::from_millis(10)).unwrap_err();
    assert!(is_disconnected(&lost), "{lost}");
    assert!(lost.to_string().ends_with("no reply in time"), "{lost}");
    assert!(is_disconnected(&client.read("domid").unwrap_err()));
}
