// SPDX-License-Identifier: GPL-3.0-or-later
//! Reads and writes for a device, against the in-memory store.

use super::*;
use crate::backend::Probed;
use crate::client::Client;
use crate::fake::FakeXenstored;
use crate::path::{DomId, PathError};
use crate::perms::{Access, Perm};

fn vif() -> DevicePath {
    DevicePath::new(DomId::new(7).unwrap(), 0)
}

/// A store in which a toolstack has just made a vif, and a client of it.
fn world() -> (FakeXenstored, Client) {
    let store = FakeXenstored::spawn().unwrap();
    store.introduce(7).unwrap();
    let client = store.client(0).unwrap();
    for (key, value) in [
        ("frontend", "/local/domain/7/device/vif/0"),
        ("frontend-id", "7"),
        ("online", "1"),
        ("state", "1"),
        ("handle", "0"),
        ("script", "/etc/xen/scripts/vif-bridge"),
        ("hotplug-status", ""),
    ] {
        client.write(&vif().node(key), value).unwrap();
    }
    client
        .write("/local/domain/7/device/vif/0/state", "1")
        .unwrap();
    (store, client)
}

fn frontend() -> FrontendPath {
    FrontendPath::check(vif(), "/local/domain/7/device/vif/0", "7").unwrap()
}

#[test]
fn a_new_device_is_probed() {
    let (_store, client) = world();
    let found = probe(&client, vif()).unwrap().unwrap();
    assert_eq!(found.frontend, Ok(frontend()));
    assert!(!found.retired);
    let probed = Probed {
        own_state: XenbusState::Initialising,
        handle: Some(0),
        online: true,
    };
    assert_eq!(found.event(), Event::Probed(Ok(probed)));
    assert_eq!(probe(&client, DevicePath::new(vif().dom, 1)).unwrap(), None);
}

#[test]
fn what_is_wrong_with_a_device_is_said() {
    let (_store, client) = world();
    let reason = || match probe(&client, vif()).unwrap().unwrap().event() {
        Event::Probed(Err(reason)) => reason,
        other => panic!("{other:?}"),
    };
    for (key, value, expected) in [
        (
            "handle",
            "zero",
            "handle is \"zero\", which is not a number",
        ),
        (
            "state",
            "open",
            "our own state: \"open\" is not a xenbus state",
        ),
        ("frontend-id", "8", "but its frontend belongs to domain 8"),
        (
            "frontend",
            "/local/domain/8/device/vif/0",
            "frontend belongs to domain 8",
        ),
    ] {
        let path = vif().node(key);
        let good = client.read(&path).unwrap();
        client.write(&path, value).unwrap();
        assert!(reason().contains(expected), "{}", reason());
        client.write(&path, &good).unwrap();
    }
    client.rm(&vif().key(Key::Script)).unwrap();
    assert!(reason().contains("no script node"), "{}", reason());
    client.rm(&vif().key(Key::Frontend)).unwrap();
    assert_eq!(
        probe(&client, vif()).unwrap(),
        None,
        "the toolstack is not done yet"
    );
    client.write(&vif().key(Key::State), "4").unwrap();
    assert_eq!(
        probe(&client, vif()).unwrap().unwrap().frontend,
        Err(PathError::Missing { key: Key::Frontend })
    );
}

#[test]
fn a_late_handle_is_an_event() {
    let (_store, client) = world();
    client.rm(&vif().key(Key::Handle)).unwrap();
    assert_eq!(probe(&client, vif()).unwrap().unwrap().handle, Ok(None));
    assert_eq!(read_handle(&client, vif()).unwrap(), None);
    client.write(&vif().key(Key::Handle), "3").unwrap();
    assert_eq!(
        read_handle(&client, vif()).unwrap(),
        Some(Event::Handle(Ok(3)))
    );
    client.write(&vif().key(Key::Handle), "-3").unwrap();
    assert!(matches!(
        read_handle(&client, vif()).unwrap(),
        Some(Event::Handle(Err(_)))
    ));
}

#[test]
fn devices_that_are_over_are_retired() {
    let (_store, client) = world();
    let retired = || probe(&client, vif()).unwrap().unwrap().retired;
    client.write(&vif().key(Key::State), "6").unwrap();
    assert!(!retired(), "the guest may come back");
    client.write(&vif().key(Key::Online), "0").unwrap();
    assert!(retired());
    client.write(&vif().key(Key::Online), "1").unwrap();
    client.rm("/local/domain/7/device/vif/0").unwrap();
    assert!(retired());
    client.write(&vif().key(Key::State), "5").unwrap();
    assert!(!retired());
}

#[test]
fn connected_is_not_written_over_the_toolstacks_closing() {
    let (_store, client) = world();
    let write = || set_connected(&client, vif()).unwrap();
    assert_eq!(write(), Written::Done);
    assert_eq!(write(), Written::Unchanged);
    client.write(&vif().key(Key::State), "5").unwrap();
    assert_eq!(write(), Written::Withheld);
    assert_eq!(&*client.read(&vif().key(Key::State)).unwrap(), "5");
    client.rm("backend/vif/7").unwrap();
    assert_eq!(write(), Written::Gone);
}

#[test]
fn state_writes_never_make_a_directory_again() {
    let (store, client) = world();
    assert_eq!(
        set_state(&client, vif(), XenbusState::InitWait).unwrap(),
        Written::Done
    );
    assert_eq!(
        set_state(&client, vif(), XenbusState::InitWait).unwrap(),
        Written::Unchanged
    );
    store.with(|s| s.faults.failing_commits = 3).unwrap();
    assert_eq!(
        set_state(&client, vif(), XenbusState::Closing).unwrap(),
        Written::Done
    );
    client.rm("backend/vif/7").unwrap();
    assert_eq!(
        set_state(&client, vif(), XenbusState::Closed).unwrap(),
        Written::Gone
    );
    assert_eq!(
        write_keys(&client, vif(), &[("feature-sg", "1")]).unwrap(),
        Written::Gone
    );
    report_error(&client, vif(), "too late").unwrap();
    assert!(client.directory("backend/vif").unwrap().is_empty());
    assert_eq!(
        &*client.read("error/backend/vif/7/0/error").unwrap(),
        "too late"
    );
}

#[test]
fn a_removal_in_the_middle_of_a_state_write_wins() {
    let (store, client) = world();
    let other = store.client(0).unwrap();
    let mut first = true;
    let written = transact(&client, |t| {
        let there = optional(t, &vif().key(Key::State))?.is_some();
        if std::mem::take(&mut first) {
            other.rm("backend/vif/7/0")?;
        }
        if there {
            t.write(&vif().key(Key::State), "2")?;
        }
        Ok(there)
    })
    .unwrap();
    assert!(!written);
    assert!(client.directory("backend/vif/7").unwrap().is_empty());
}

#[test]
fn errors_are_told_in_both_places_and_cleared() {
    let (_store, client) = world();
    let text = format!("bad\u{7}\n{}", "x".repeat(5000));
    report_error(&client, vif(), &text).unwrap();
    for path in ["backend/vif/7/0/error", "error/backend/vif/7/0/error"] {
        let told = client.read(path).unwrap();
        assert!(told.starts_with("badxx") && told.len() == 500, "{told}");
    }
    clear_error(&client, vif()).unwrap();
    clear_error(&client, vif()).unwrap();
    assert_eq!(optional(&client, "backend/vif/7/0/error").unwrap(), None);
    assert_eq!(
        optional(&client, "error/backend/vif/7/0/error").unwrap(),
        None
    );
}

#[test]
fn the_error_of_a_device_that_is_gone_leaves_nothing() {
    let (store, client) = world();
    let other = DevicePath::new(vif().dom, 1);
    forget_error(&client, vif()).unwrap();
    report_error(&client, vif(), "bad").unwrap();
    report_error(&client, other, "worse").unwrap();
    assert_eq!(with_errors(&client).unwrap(), [vif(), other]);
    store.with(|s| s.faults.failing_commits = 3).unwrap();
    forget_error(&client, vif()).unwrap();
    forget_error(&client, vif()).unwrap();
    assert_eq!(with_errors(&client).unwrap(), [other]);
    assert_eq!(&*client.read(&other.error_node()).unwrap(), "worse");
    // Its last word was not an error, but the directory is there.
    clear_error(&client, other).unwrap();
    forget_error(&client, other).unwrap();
    assert!(client.directory("error/backend/vif").unwrap().is_empty());
    client.rm("error").unwrap();
    assert!(with_errors(&client).unwrap().is_empty());
}

#[test]
fn the_frontends_state_is_never_an_error() {
    let (store, _) = world();
    // A driver domain, which a guest can lock out of its own directory.
    store.introduce(3).unwrap();
    let client = store.client(3).unwrap();
    let allow_at = |path: &'static str, access| {
        let perms = [Perm::new(Access::None, 7), Perm::new(access, 3)];
        store.with(move |s| s.set_perms(path, &perms)).unwrap();
    };
    // As libxl does.
    allow_at("/local/domain/7/device/vif/0", Access::Read);
    let state = "/local/domain/7/device/vif/0/state";
    let allow = |access| allow_at(state, access);
    allow(Access::Read);
    assert_eq!(
        read_frontend(&client, frontend()).unwrap(),
        FrontendState::Initialising
    );
    allow(Access::None);
    let FrontendState::Nonsense(text) = read_frontend(&client, frontend()).unwrap() else {
        panic!("a locked node is nonsense");
    };
    assert!(text.contains("unreadable"), "{text}");
    allow(Access::Read);
    store.with(move |s| s.write(state, [0xff; 2000])).unwrap();
    assert!(matches!(
        read_frontend(&client, frontend()).unwrap(),
        FrontendState::Nonsense(_)
    ));
    let control = store.client(0).unwrap();
    control.rm("/local/domain/7/device/vif/0").unwrap();
    // The second is told that it may not read, since it may not read the directory above.
    for client in [&control, &client] {
        assert_eq!(
            read_frontend(client, frontend()).unwrap(),
            FrontendState::Absent
        );
    }
    store.drop_connections().unwrap();
    assert!(is_disconnected(
        &read_frontend(&client, frontend()).unwrap_err()
    ));
}

#[test]
fn hotplug_status_is_connected_only_if_it_says_exactly_so() {
    let (_store, client) = world();
    let status = |value: &str| {
        client.write(&vif().key(Key::HotplugStatus), value).unwrap();
        read_hotplug(&client, vif()).unwrap().0
    };
    assert_eq!(status("connected"), HotplugStatus::Connected);
    for other in ["", "Connected", "connected ", "busy"] {
        assert_eq!(status(other), HotplugStatus::Other);
    }
    assert_eq!(status("error"), HotplugStatus::Error("\"\"".to_owned()));
    client
        .write(&vif().key(Key::HotplugError), "no \u{1b}bridge")
        .unwrap();
    assert_eq!(
        status("error"),
        HotplugStatus::Error("\"no \\u{1b}bridge\"".to_owned())
    );
    clear_hotplug_status(&client, vif()).unwrap();
    clear_hotplug_status(&client, vif()).unwrap();
    assert_eq!(
        read_hotplug(&client, vif()).unwrap().0,
        HotplugStatus::Other
    );
}

#[test]
fn our_own_nodes_tell_what_the_toolstack_wants() {
    let (_store, client) = world();
    let own = |known| read_own(&client, vif(), known).unwrap();
    assert_eq!(own(XenbusState::Initialising), [Event::OnlineChanged(true)]);
    assert_eq!(
        own(XenbusState::Connected),
        [Event::BackendRemoved],
        "a successor"
    );
    client.write(&vif().key(Key::State), "5").unwrap();
    assert_eq!(own(XenbusState::Connected), [Event::OnlineChanged(true)]);
    client.write(&vif().key(Key::Online), "0").unwrap();
    assert_eq!(
        own(XenbusState::Connected),
        [Event::OnlineChanged(false), Event::ToolstackClosing]
    );
    client.rm("backend/vif").unwrap();
    assert_eq!(own(XenbusState::Connected), [Event::BackendRemoved]);
}
