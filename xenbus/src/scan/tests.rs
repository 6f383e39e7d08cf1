// SPDX-License-Identifier: GPL-3.0-or-later
//! Devices that come and go, in dom0 and in a driver domain.

use super::*;
use crate::client::Client;
use crate::error::is_disconnected;
use crate::fake::FakeXenstored;
use crate::wire::Kind;

fn vif(dom: u16, handle: u32) -> DevicePath {
    DevicePath::new(DomId::new(dom).unwrap(), handle)
}

fn make(client: &Client, device: DevicePath, state: &str) {
    let front = format!("/local/domain/{}/device/vif/{}", device.dom, device.handle);
    client.write(&device.key(Key::Frontend), &front).unwrap();
    client
        .write(&device.key(Key::FrontendId), &device.dom.to_string())
        .unwrap();
    client.write(&device.key(Key::Handle), "0").unwrap();
    client.write(&device.key(Key::State), state).unwrap();
}

/// What a test wants to see of changes.
fn short(changes: Vec<Change>) -> Vec<String> {
    changes
        .into_iter()
        .map(|change| match change {
            Change::Added(probe) => format!("+{}", probe.device),
            Change::Removed(device) => format!("-{device}"),
            Change::Changed(device, key) => format!("{device} {key}"),
        })
        .collect()
}

#[test]
fn what_is_there_at_the_start_is_found() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    let mut scanner = Scanner::new();
    assert!(
        scanner.scan(&client).unwrap().is_empty(),
        "no directory at all"
    );
    make(&client, vif(1, 0), "1");
    make(&client, vif(1, 12), "4");
    make(&client, vif(40, 1), "2");
    // Over, unfinished, or not a device.
    make(&client, vif(2, 0), "6");
    client.write("backend/vif/3/0/frontend", "x").unwrap();
    client.write("backend/vif/junk/0/state", "1").unwrap();
    client.write("backend/vif/01/0/state", "1").unwrap();
    client.write("backend/vif/1/00/state", "1").unwrap();
    assert_eq!(
        short(scanner.scan(&client).unwrap()),
        ["+backend/vif/1/0", "+backend/vif/1/12", "+backend/vif/40/1"]
    );
    assert!(scanner.scan(&client).unwrap().is_empty());
    assert_eq!(scanner.known.len(), 3);
}

#[test]
fn events_are_about_devices() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    let mut scanner = Scanner::new();
    let mut on = |path: &str| short(scanner.on_event(&client, path).unwrap());
    assert!(on("backend/vif").is_empty());
    assert!(on("backend/vif/1/0/state").is_empty());
    make(&client, vif(1, 0), "1");
    assert_eq!(on("backend/vif/1/0/hotplug-status"), ["+backend/vif/1/0"]);
    assert_eq!(
        on("backend/vif/1/0/hotplug-status"),
        ["backend/vif/1/0 hotplug-status"]
    );
    assert_eq!(on("backend/vif/1/0/state"), ["backend/vif/1/0 state"]);
    assert!(on("backend/vif/1/0").is_empty());
    assert!(on("backend/vif/1/0/feature-sg").is_empty());
    make(&client, vif(1, 1), "1");
    assert_eq!(on("backend/vif/1"), ["+backend/vif/1/1"]);
    client.rm("backend/vif").unwrap();
    assert_eq!(on("backend/vif/1/0"), ["-backend/vif/1/0"]);
    assert_eq!(
        on("backend/vif/1/0/state"),
        ["backend/vif/1/0 state"],
        "whoever reads it sees that it is gone"
    );
    assert_eq!(
        on("backend/vif/1"),
        ["-backend/vif/1/0", "-backend/vif/1/1"]
    );
    assert_eq!(
        on("backend/vif"),
        ["-backend/vif/1/0", "-backend/vif/1/1"],
        "until they are forgotten"
    );
}

#[test]
fn a_successor_is_met_only_after_the_record_is_gone() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    let mut scanner = Scanner::new();
    make(&client, vif(1, 0), "1");
    scanner.scan(&client).unwrap();
    client.rm("backend/vif/1/0").unwrap();
    make(&client, vif(1, 0), "1");
    assert!(scanner.scan(&client).unwrap().is_empty());
    let successor = scanner.forget(&client, vif(1, 0)).unwrap();
    assert_eq!(short(successor.into_iter().collect()), ["+backend/vif/1/0"]);
    client.rm("backend/vif/1/0").unwrap();
    assert_eq!(scanner.forget(&client, vif(1, 0)).unwrap(), None);
    assert!(scanner.known.is_empty());
}

#[test]
fn a_device_that_cannot_be_read_hides_no_other() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    let mut scanner = Scanner::new();
    make(&client, vif(1, 0), "1");
    make(&client, vif(2, 0), "1");
    let unreadable = (Kind::Read, crate::ErrorCode::Io);
    store
        .with(move |s| s.faults.refusals.push_back(unreadable))
        .unwrap();
    assert_eq!(short(scanner.scan(&client).unwrap()), ["+backend/vif/2/0"]);
    assert_eq!(short(scanner.scan(&client).unwrap()), ["+backend/vif/1/0"]);
}

#[test]
fn a_scan_that_loses_the_store_has_found_nothing() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    let mut scanner = Scanner::new();
    make(&client, vif(1, 0), "1");
    drop(store);
    assert!(is_disconnected(&scanner.scan(&client).unwrap_err()));
    assert!(scanner.known.is_empty());
}

#[test]
fn a_driver_domain_sees_its_own_backends() {
    let store = FakeXenstored::spawn().unwrap();
    store.introduce(5).unwrap();
    let client = store.client(5).unwrap();
    client.watch_devices(BACKEND_ROOT, "vifs").unwrap();
    client.poll_events().unwrap();
    while client.next_event().is_some() {}
    store
        .with(|s| {
            let dir = "/local/domain/5/backend/vif/9/0";
            s.write(&format!("{dir}/frontend"), "/local/domain/9/device/vif/0");
            s.write(&format!("{dir}/frontend-id"), "9");
            s.write(&format!("{dir}/state"), "1");
        })
        .unwrap();
    let mut scanner = Scanner::new();
    let mut found = Vec::new();
    // The events were queued before this answer.
    client.read("domid").unwrap();
    while let Some(event) = client.next_event() {
        assert!(event.path.starts_with("backend/vif"), "{event:?}");
        found.extend(short(scanner.on_event(&client, &event.path).unwrap()));
    }
    assert_eq!(found.first().map(String::as_str), Some("+backend/vif/9/0"));
}

#[test]
fn a_thousand_devices_are_found() {
    let store = FakeXenstored::spawn().unwrap();
    let client = store.client(0).unwrap();
    store
        .with(|s| {
            for dom in 1..=1000 {
                let dir = format!("/local/domain/0/backend/vif/{dom}/0");
                s.write(
                    &format!("{dir}/frontend"),
                    format!("/local/domain/{dom}/device/vif/0"),
                );
                s.write(&format!("{dir}/frontend-id"), dom.to_string());
                s.write(&format!("{dir}/state"), "1");
            }
        })
        .unwrap();
    assert_eq!(Scanner::new().scan(&client).unwrap().len(), 1000);
}
