// SPDX-License-Identifier: GPL-3.0-or-later
//! The in-memory store itself: what the real xenstored does, message by message.

use super::*;
use crate::perms::{Access, Perm};
use crate::wire::{Kind, Message};

/// One request; the reply to it and the events for everybody.
fn ask(
    store: &mut Store,
    conn: ConnId,
    kind: Kind,
    tx_id: u32,
    payload: &str,
) -> (String, Vec<(ConnId, String)>) {
    let request = Message {
        kind,
        req_id: 3,
        tx_id,
        payload: payload.as_bytes().to_vec(),
    };
    let mut reply = None;
    let mut events = Vec::new();
    for (to, message) in store.handle(conn, &request) {
        let text = String::from_utf8(message.payload).unwrap();
        if message.kind == Kind::WatchEvent {
            assert_eq!(message.req_id, 0);
            events.push((to, text));
        } else {
            assert_eq!((to, message.req_id, message.tx_id), (conn, 3, tx_id));
            assert_eq!(message.kind == Kind::Error, text.starts_with('E'), "{text}");
            reply = Some(text);
        }
    }
    (reply.unwrap(), events)
}

fn reply(store: &mut Store, conn: ConnId, kind: Kind, tx_id: u32, payload: &str) -> String {
    ask(store, conn, kind, tx_id, payload).0
}

fn begin(store: &mut Store, conn: ConnId) -> u32 {
    reply(store, conn, Kind::TransactionStart, 0, "\0")
        .trim_end_matches('\0')
        .parse()
        .unwrap()
}

#[test]
fn watches_fire_for_changes_below_and_for_removal_above() {
    let mut store = Store::new();
    let me = store.connect(0);
    let dir = "/local/domain/0/backend/vif";
    let (ok, first) = ask(&mut store, me, Kind::Watch, 0, "backend/vif\0root\0");
    assert_eq!(
        (ok.as_str(), first),
        ("OK\0", vec![(me, "backend/vif\0root\0".to_owned())])
    );
    ask(
        &mut store,
        me,
        Kind::Watch,
        0,
        &format!("{dir}/1/0/state\0st\0"),
    );
    let (_, told) = ask(&mut store, me, Kind::Write, 0, "backend/vif/1/0/state\x001");
    assert_eq!(
        told,
        [
            (me, format!("{dir}/1/0/state\0st\0")),
            (me, "backend/vif/1/0/state\0root\0".to_owned())
        ]
    );
    let (_, told) = ask(&mut store, me, Kind::Rm, 0, "backend/vif/1\0");
    assert_eq!(
        told,
        [
            (me, "backend/vif/1\0root\0".to_owned()),
            (me, format!("{dir}/1/0/state\0st\0"))
        ]
    );
    assert_eq!(
        reply(&mut store, me, Kind::Unwatch, 0, "backend/vif\0other\0"),
        "ENOENT\0"
    );
    assert_eq!(
        reply(&mut store, me, Kind::Unwatch, 0, "backend/vif\0root\0"),
        "OK\0"
    );
    assert_eq!(reply(&mut store, me, Kind::ResetWatches, 0, "\0"), "OK\0");
    assert_eq!(store.census(), (1, 0, 0));
}

#[test]
fn who_may_not_read_a_node_is_not_told_of_it() {
    let mut store = Store::new();
    store.introduce(7);
    let guest = store.connect(7);
    ask(&mut store, guest, Kind::Watch, 0, "/local/domain/0\0t\0");
    store.write("/local/domain/0/secret", "1");
    assert!(store.take_outgoing().is_empty());
    store.write("/local/domain/0/open", "1");
    store.set_perms("/local/domain/0/open", &[Perm::new(Access::Read, 0)]);
    store.take_outgoing();
    store.write("/local/domain/0/open", "2");
    assert_eq!(store.take_outgoing().len(), 1);
}

#[test]
fn a_transaction_tells_at_its_end_and_only_if_it_commits() {
    let mut store = Store::new();
    let (me, other) = (store.connect(0), store.connect(0));
    ask(&mut store, other, Kind::Watch, 0, "/a\0t\0");
    for (verdict, expected) in [("F\0", 0), ("T\0", 2)] {
        let t = begin(&mut store, me);
        assert_eq!(ask(&mut store, me, Kind::Write, t, "/a/b\x001").1, []);
        assert_eq!(ask(&mut store, me, Kind::Mkdir, t, "/a/c\0").1, []);
        assert_eq!(
            ask(&mut store, me, Kind::TransactionEnd, t, verdict)
                .1
                .len(),
            expected
        );
        assert_eq!(
            reply(&mut store, me, Kind::TransactionEnd, t, "T\0"),
            "ENOENT\0"
        );
    }
}

#[test]
fn conflicts_are_of_nodes_that_were_looked_at() {
    let mut store = Store::new();
    let me = store.connect(0);
    store.write("/a/x", "0");
    store.write("/b/y", "0");
    let mut run = |seen: &str, written: &str| {
        let t = begin(&mut store, me);
        reply(&mut store, me, Kind::Read, t, &format!("{seen}\0"));
        reply(&mut store, me, Kind::Write, t, "/b/y\x001");
        store.write(written, "2");
        reply(&mut store, me, Kind::TransactionEnd, t, "T\0")
    };
    assert_eq!(run("/a/x", "/a/z"), "OK\0", "another node");
    assert_eq!(run("/a/x", "/a/x"), "EAGAIN\0", "a node that was read");
    assert_eq!(run("/a/x", "/b/y"), "EAGAIN\0", "a node that was written");
    assert_eq!(
        run("/a/new", "/a/new"),
        "EAGAIN\0",
        "a node that was missing"
    );
    assert_eq!(
        run("/a", "/a/another"),
        "EAGAIN\0",
        "a directory that got a child"
    );
    assert_eq!(
        store.read("/b/y").unwrap(),
        "2",
        "the failed ones have changed nothing"
    );
}

#[test]
fn quotas_hold_for_guests_only() {
    let mut store = Store::new();
    store.introduce(7);
    store.quota = Quota {
        nodes: 20,
        watches: 2,
        transactions: 2,
        node_size: 10,
    };
    let (guest, control) = (store.connect(7), store.connect(0));
    let mut made = 0;
    let refused = loop {
        let answer = reply(
            &mut store,
            guest,
            Kind::Write,
            0,
            &format!("data/{made}\0x"),
        );
        if answer != "OK\0" {
            break answer;
        }
        made += 1;
        assert!(made < 100);
    };
    assert_eq!(
        (refused.as_str(), made),
        ("ENOSPC\0", 16),
        "20, of which 4 were given to it"
    );
    let t = begin(&mut store, guest);
    assert_eq!(reply(&mut store, guest, Kind::Rm, t, "data/0\0"), "OK\0");
    assert_eq!(
        reply(&mut store, guest, Kind::Write, 0, "data/0\0longer than ten"),
        "ENOSPC\0"
    );
    for n in 0..3 {
        let answer = reply(&mut store, guest, Kind::Watch, 0, &format!("data\0{n}\0"));
        assert_eq!(answer == "OK\0", n < 2, "{answer}");
    }
    begin(&mut store, guest);
    assert_eq!(
        reply(&mut store, guest, Kind::TransactionStart, 0, "\0"),
        "ENOSPC\0"
    );
    for n in 0..100 {
        let answer = reply(
            &mut store,
            control,
            Kind::Write,
            0,
            &format!("data/{n}\0longer than ten"),
        );
        assert_eq!(answer, "OK\0");
    }
}

#[test]
fn nodes_inherit_permissions_and_their_maker_owns_them() {
    let mut store = Store::new();
    store.introduce(7);
    let (guest, control) = (store.connect(7), store.connect(0));
    reply(&mut store, control, Kind::Mkdir, 0, "/shared\0");
    reply(&mut store, control, Kind::SetPerms, 0, "/shared\0n0\0b7\0");
    assert_eq!(
        reply(&mut store, guest, Kind::Write, 0, "/shared/x\x001"),
        "OK\0"
    );
    assert_eq!(
        reply(&mut store, control, Kind::GetPerms, 0, "/shared/x\0"),
        "n7\0b7\0"
    );
    assert_eq!(
        reply(&mut store, guest, Kind::SetPerms, 0, "/shared\0b7\0"),
        "EPERM\0"
    );
    assert_eq!(
        reply(&mut store, guest, Kind::SetPerms, 0, "/shared/x\0n7\0x\0"),
        "EINVAL\0"
    );
    assert_eq!(
        reply(&mut store, guest, Kind::SetPerms, 0, "/shared/x\0n7\0"),
        "OK\0"
    );
}

#[test]
fn bad_requests_are_errors() {
    let mut store = Store::new();
    let me = store.connect(0);
    for (kind, payload, expected) in [
        (Kind::Read, "", "EINVAL\0"),
        (Kind::Read, "/a b\0", "EINVAL\0"),
        (Kind::Read, "/a/\0", "EINVAL\0"),
        (Kind::Read, "@releaseDomain\0", "EINVAL\0"),
        (Kind::Rm, "/\0", "EINVAL\0"),
        (Kind::Write, "/a", "EINVAL\0"),
        (Kind::DirectoryPart, "/\0x\0", "EINVAL\0"),
        (Kind::TransactionEnd, "T\0", "ENOENT\0"),
        (Kind::SetTarget, "/\0", "ENOSYS\0"),
        (Kind::Introduce, "1\x001\x001\0", "ENOSYS\0"),
        (Kind::GetDomainPath, "x\0", "EINVAL\0"),
        (Kind::GetDomainPath, "7\0", "/local/domain/7\0"),
        (Kind::IsDomainIntroduced, "0\0", "T\0"),
        (Kind::IsDomainIntroduced, "7\0", "F\0"),
    ] {
        let answer = ask(&mut store, me, kind, 0, payload).0;
        assert_eq!(answer, expected, "{kind} {payload:?}");
    }
    assert_eq!(
        reply(&mut store, me, Kind::Read, 77, "/\0"),
        "ENOENT\0",
        "no such transaction"
    );
}

#[test]
fn domains_come_and_go() {
    let mut store = Store::new();
    let me = store.connect(0);
    ask(&mut store, me, Kind::Watch, 0, "@releaseDomain\0r\0");
    ask(&mut store, me, Kind::Watch, 0, "@introduceDomain\0i\0");
    store.introduce(9);
    assert_eq!(store.take_outgoing().len(), 1);
    assert_eq!(store.read("/local/domain/9/domid").as_deref(), Some("9"));
    store.release(9);
    assert_eq!(store.take_outgoing().len(), 1);
    assert!(store.paths_below("/local/domain/9").is_empty());
    store.disconnect(me);
    assert_eq!(store.census(), (0, 0, 0));
}

#[test]
fn the_server_ends_with_its_owner() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    drop(store);
    let error = xenstore_rs::Xs::read(&client, "domid").unwrap_err();
    assert!(crate::is_disconnected(&error));
}

#[test]
fn a_peer_that_makes_no_sense_is_hung_up_on() {
    use std::io::{Read, Write};
    let store = FakeXenstored::spawn().unwrap();
    let mut raw = store.connect(0).unwrap();
    raw.write_all(&[0xff; 16]).unwrap();
    assert_eq!(raw.read(&mut [0; 16]).unwrap(), 0);
    assert_eq!(store.with(|s| s.census()).unwrap(), (0, 0, 0));
}
