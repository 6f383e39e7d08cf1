// SPDX-License-Identifier: GPL-3.0-or-later
//! Discovery: which vif backends exist, and what a watch event is about.
//!
//! The scanner knows the devices that the daemon has a record of. It finds those that
//! are there already when it starts, those that come, and those that are gone; paths
//! are relative, so it works alike in dom0 and in a driver domain. The daemon watches
//! [`crate::path::BACKEND_ROOT`] with [`crate::Client::watch_devices`], calls
//! [`Scanner::scan`] once (and after each reconnection) and [`Scanner::on_event`] for
//! each event, and [`Scanner::forget`] when a record is dropped.

use std::collections::BTreeSet;
use std::io;

use xenstore_rs::Xs;

use crate::device::{self, Probe};
use crate::error::is_disconnected;
use crate::many::XsMany;
use crate::path::{BACKEND_ROOT, DevicePath, DomId, Key, Subject, decimal};

#[cfg(test)]
mod tests;

/// Something about the set of devices, or about one of them, changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A device that was not known; it is from now on.
    Added(Probe),
    /// The directory of a known device is gone. The device stays known until
    /// [`Scanner::forget`], so that a successor at the same path is not met before.
    Removed(DevicePath),
    /// A known key of a known device may have changed, or be gone.
    Changed(DevicePath, Key),
}

/// The devices that the daemon has a record of.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    known: BTreeSet<DevicePath>,
}

impl Scanner {
    /// Knows no device.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at everything: devices that came or went.
    ///
    /// # Errors
    /// That of the store; nothing has become known then.
    pub fn scan(&mut self, store: &impl XsMany) -> io::Result<Vec<Change>> {
        let mut found = BTreeSet::new();
        for name in device::names(store, BACKEND_ROOT)? {
            if let Some(dom) = DomId::parse(&name) {
                found.extend(devices(store, dom)?);
            }
        }
        let subjects: BTreeSet<_> = found.union(&self.known).copied().collect();
        self.look_at(store, subjects)
    }

    /// What a watch event for `path` means.
    ///
    /// # Errors
    /// That of the store.
    pub fn on_event(&mut self, store: &impl XsMany, path: &str) -> io::Result<Vec<Change>> {
        match Subject::of(path) {
            Subject::Root => self.scan(store),
            Subject::Domain(dom) => {
                let mut subjects: BTreeSet<_> = devices(store, dom)?.into_iter().collect();
                subjects.extend(self.known.iter().filter(|device| device.dom == dom));
                self.look_at(store, subjects)
            }
            Subject::Key(device, key) if self.known.contains(&device) => {
                Ok(vec![Change::Changed(device, key)])
            }
            Subject::Key(device, _) | Subject::Device(device) => self.look_at(store, [device]),
        }
    }

    /// The daemon has dropped the record of a device. If a new device has taken its
    /// path meanwhile, it is found here.
    ///
    /// # Errors
    /// That of the store; the device is forgotten in any case.
    pub fn forget(
        &mut self,
        store: &impl XsMany,
        device: DevicePath,
    ) -> io::Result<Option<Change>> {
        self.known.remove(&device);
        Ok(self.look_at(store, [device])?.pop())
    }

    /// The daemon could not take up a device that was added: it is as if it had not been found, until
    /// something about it changes or everything is [scanned](Self::scan).
    pub fn leave(&mut self, device: DevicePath) {
        self.known.remove(&device);
    }

    /// A device that cannot be read (a value that is not UTF-8, say) hides none of the others: it
    /// is left alone until something about it changes.
    fn look_at(
        &mut self,
        store: &impl XsMany,
        devices: impl IntoIterator<Item = DevicePath>,
    ) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        for device in devices {
            match self.look_at_one(store, device) {
                Ok(change) => changes.extend(change),
                Err(error) if is_disconnected(&error) => {
                    // Nobody will hear of these; the next scan finds them again.
                    for change in changes {
                        if let Change::Added(probe) = change {
                            self.known.remove(&probe.device);
                        }
                    }
                    return Err(error);
                }
                Err(error) => tracing::error!(%device, %error, "a device cannot be read"),
            }
        }
        Ok(changes)
    }

    fn look_at_one(
        &mut self,
        store: &impl XsMany,
        device: DevicePath,
    ) -> io::Result<Option<Change>> {
        if self.known.contains(&device) {
            let gone = device::optional(store, &device.key(Key::State))?.is_none();
            return Ok(gone.then_some(Change::Removed(device)));
        }
        let found = device::probe(store, device)?.filter(|probe| !probe.retired);
        Ok(found.map(|probe| {
            self.known.insert(device);
            Change::Added(probe)
        }))
    }
}

fn devices(store: &impl Xs, dom: DomId) -> io::Result<Vec<DevicePath>> {
    let names = device::names(store, &Subject::Domain(dom).path())?;
    Ok(names
        .iter()
        .filter_map(|name| decimal(name))
        .map(|handle| DevicePath::new(dom, handle))
        .collect())
}
