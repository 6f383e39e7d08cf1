// SPDX-License-Identifier: GPL-3.0-or-later
//! The loop itself, one step at a time. It is never run here: that would look for taps on this
//! machine that belong to no device of the store, and remove them.

use nix::unistd::mkdtemp;
use xenbus::backend::{FrontendState, HotplugStatus};
use xenbus::fake::FakeXenstored;

use super::*;
use crate::demo::sim::SimHypervisor;
use crate::worker::{Command, WorkerId};

/// Calls `test` with a daemon of a machine without devices.
fn with_daemon(test: impl FnOnce(Daemon)) {
    with_store(|daemon, _| test(daemon));
}

/// As [`with_daemon`], with its store.
fn with_store(test: impl FnOnce(Daemon, &FakeXenstored)) {
    let dir = mkdtemp(&std::env::temp_dir().join("netback-test-XXXXXX")).unwrap();
    let mut config = Config::default();
    config.control.socket = dir.join("control.sock");
    let xenstored = Arc::new(FakeXenstored::spawn().unwrap());
    let hypervisor = SimHypervisor::new(xen_ring::DomId::new(0));
    let client = Arc::clone(&xenstored);
    let connect = Box::new(move |_| client.client(0));
    let daemon = Daemon::new(config, &hypervisor, connect).unwrap();
    test(daemon, &xenstored);
    std::fs::remove_dir_all(dir).unwrap();
}

/// Nobody would serve its vifs, and nobody would know.
#[test]
fn a_worker_that_ends_takes_the_daemon_with_it() {
    with_daemon(|mut daemon| a_worker_ends(&mut daemon));
}

fn a_worker_ends(daemon: &mut Daemon) {
    let worker = WorkerId(0);
    daemon.host.workers.send(worker, Command::Stop).unwrap();
    let mut events = Events::with_capacity(EVENTS_PER_POLL);
    let ended = loop {
        daemon.poll.poll(&mut events, None).unwrap();
        let woken = events
            .iter()
            .try_for_each(|event| daemon.woken(event.token()));
        if let Err(error) = woken {
            break error;
        }
    };
    assert!(matches!(ended, DaemonError::Worker { number: 0, .. }));
    assert_eq!(ended.to_string(), "worker 0 has ended: it was told to stop");
}

/// Guests can have theirs go off all at the same moment, and each may take a while.
#[test]
fn timers_leave_time_for_others() {
    with_daemon(|mut daemon| {
        let now = Instant::now();
        for dom in 1..=150 {
            let device = DevicePath::new(DomId::new(dom).unwrap(), 0);
            daemon.host.timers.set(now, Due::Look(device));
        }
        for left in [86, 22, 0] {
            daemon.due(now);
            assert_eq!(daemon.host.timers.len(), left);
        }
        assert_eq!(daemon.timeout(now), None);
    });
}

/// xenstored keeps 128 watches for a driver domain. It may be that the store has refused something, and that the device
/// is found gone when that is tried again, before its own watch tells.
#[test]
fn a_device_that_is_found_gone_leaves_no_watch() {
    with_store(|mut daemon, xenstored| {
        let watches = || xenstored.with(|store| store.census().1).unwrap();
        let before = watches();
        // Without a handle there is no tap.
        device_without_handle(xenstored);
        daemon.orphans_removed = true;
        daemon.scan();
        assert_eq!(watches(), before + 1, "its frontend's");
        xenstored
            .with(|store| store.rm("/local/domain/0/backend/vif/1/0"))
            .unwrap();
        let now = Instant::now();
        let device = DevicePath::new(DomId::new(1).unwrap(), 0);
        daemon.host.timers.set(now, Due::Resync(device));
        daemon.host.timers.set(now + PATIENCE, Due::Look(device));
        daemon.due(now);
        daemon.store_events();
        assert!(daemon.vifs.is_empty());
        assert_eq!(watches(), before);
        assert!(
            daemon.host.timers.is_empty(),
            "the next device would have them"
        );
    });
}

/// Each wait is noticed from its own beginning, and not when it is over.
#[test]
fn a_wait_for_a_script_is_noticed_once_it_has_lasted() {
    with_store(|mut daemon, xenstored| {
        device_without_handle(xenstored);
        daemon.orphans_removed = true;
        daemon.scan();
        let device = DevicePath::new(DomId::new(1).unwrap(), 0);
        let vif = daemon.vifs.get_mut(&device).unwrap();
        let host = &mut daemon.host;
        let mut is_noticed = |event| {
            let before = vif.machine.phase();
            vif.machine.handle(event);
            vif.follow_wait(before, host);
            host.timers.is_set(Due::HotplugWait(device))
        };
        assert!(!is_noticed(Event::Handle(Ok(0))));
        assert!(!is_noticed(Event::NetifCreated));
        let connected = || Event::Frontend(FrontendState::Connected);
        assert!(!is_noticed(connected()));
        assert!(is_noticed(Event::QueuesUp));
        assert!(!is_noticed(Event::Hotplug(HotplugStatus::Connected)));
        assert!(!is_noticed(Event::Frontend(FrontendState::Closing)));
    });
}

/// With its frontend, as libxl makes it.
fn device_without_handle(xenstored: &FakeXenstored) {
    xenstored
        .with(|store| {
            store.introduce(1);
            store.write("/local/domain/0/backend/vif/1/0/frontend", FRONTEND);
            store.write("/local/domain/0/backend/vif/1/0/frontend-id", "1");
            store.write("/local/domain/0/backend/vif/1/0/script", "/bin/true");
            store.write("/local/domain/0/backend/vif/1/0/online", "1");
            store.write("/local/domain/0/backend/vif/1/0/state", "1");
            store.write(format!("{FRONTEND}/state").as_str(), "1");
        })
        .unwrap();
}

const PATIENCE: Duration = Duration::from_secs(10);
const FRONTEND: &str = "/local/domain/1/device/vif/0";
