// SPDX-License-Identifier: GPL-3.0-or-later
//! The devices that there are: what the store says of their coming, changing and going becomes
//! events of theirs.
//!
//! Called by the loop, which says when to look. A look that fails changes nothing; and until one has
//! succeeded, no tap is taken for that of a device that is gone.

use std::io;

use xenbus::backend::Event;
use xenbus::path::Subject;
use xenbus::scan::Change;
use xenbus::{Client, Key, device, is_disconnected};

use super::store::ROOT_TOKEN;
use super::vif::Vif;
use super::{Daemon, orphans};

const WATCH_EVENTS_PER_ROUND: usize = 64;

impl Daemon {
    /// Handles watch events, a bounded number of them: handling one may bring in others, and a
    /// guest that writes without end must not keep the thread from everything else. `true` if
    /// some may be left.
    pub(super) fn store_events(&mut self) -> bool {
        self.read_store();
        for _ in 0..WATCH_EVENTS_PER_ROUND {
            self.finish_forgetting();
            let Some(event) = self.host.store.client().and_then(Client::next_event) else {
                return self.unread;
            };
            if event.token == ROOT_TOKEN {
                let scanner = &mut self.scanner;
                let client = self.host.store.client();
                let changes = client.map(|client| scanner.on_event(client, &event.path));
                self.changed(changes);
            } else if let Subject::Device(path) = Subject::of(&event.token) {
                self.with_vif(path, |vif, host| vif.frontend_changed(&event.path, host));
            }
        }
        true
    }

    /// Takes in what the store has sent. It tells of that once, so whatever is left is remembered.
    fn read_store(&mut self) {
        if !std::mem::take(&mut self.unread) {
            return;
        }
        match self.host.store.client().map(Client::poll_events) {
            Some(Ok(more)) => self.unread = more,
            Some(Err(error)) => self.host.store.lost(&error),
            None => {}
        }
    }

    /// Takes up all devices that are there and drops those that are gone. The first time that they
    /// are known, taps and errors that belong to none of them are removed.
    pub(super) fn scan(&mut self) {
        let Some(client) = self.host.store.client() else {
            return;
        };
        let changes = self.scanner.scan(client);
        // Before any device is taken up: its script may look for a name that such a tap has.
        if changes.is_ok() && !std::mem::replace(&mut self.orphans_removed, true) {
            // An answer that is none, and a directory that cannot be read, leave the tap alone. A
            // device that waits for the toolstack to remove it has no use for a tap.
            let is_gone = |path| {
                let found = device::probe(client, path);
                found.is_ok_and(|found| found.is_none_or(|found| found.retired))
            };
            let left = self.host.kept.extract_if(|device, _| is_gone(*device));
            orphans::remove_kept(left, self.host.keeper.as_ref());
            orphans::remove_taps(is_gone);
            orphans::remove_errors(client, is_gone);
        }
        self.changed(Some(changes));
    }

    fn changed(&mut self, changes: Option<io::Result<Vec<Change>>>) {
        match changes {
            Some(Ok(changes)) => changes.into_iter().for_each(|change| self.change(change)),
            Some(Err(error)) if is_disconnected(&error) => self.host.store.lost(&error),
            Some(Err(error)) => tracing::error!(%error, "cannot look at the devices in xenstore"),
            None => {}
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Added(probe) => {
                let path = probe.device;
                let Some(vif) = Vif::new(&probe, &mut self.host) else {
                    return self.scanner.leave(path);
                };
                tracing::debug!(%path, "device found");
                self.vifs.insert(path, vif);
                self.feed(path, probe.event());
            }
            Change::Removed(path) => self.feed(path, Event::BackendRemoved),
            Change::Changed(path, Key::State | Key::Online) => self.with_vif(path, |vif, host| {
                let known = vif.stored_state;
                let changes = host.store.ask(path, "read the device", |c| {
                    device::read_own(c, path, known)
                });
                changes
                    .into_iter()
                    .flatten()
                    .for_each(|event| vif.feed(event, host));
            }),
            Change::Changed(path, Key::Handle) => self.with_vif(path, |vif, host| {
                let event = host
                    .store
                    .ask(path, "read handle", |c| device::read_handle(c, path))
                    .flatten();
                event.into_iter().for_each(|event| vif.feed(event, host));
            }),
            Change::Changed(path, Key::HotplugStatus) => self.with_vif(path, |vif, host| {
                vif.read_hotplug(host)
                    .into_iter()
                    .for_each(|event| vif.feed(event, host));
            }),
            Change::Changed(path, Key::Rate) => self.with_vif(path, Vif::follow_rate),
            Change::Changed(..) => {}
        }
    }

    /// A device that has taken a forgotten one's path is found here.
    fn finish_forgetting(&mut self) {
        while let Some(path) = self.to_forget.pop() {
            let Some(client) = self.host.store.client() else {
                self.to_forget.push(path);
                return;
            };
            let change = self.scanner.forget(client, path);
            self.changed(Some(change.map(|change| change.into_iter().collect())));
        }
    }
}
