// SPDX-License-Identifier: GPL-3.0-or-later
//! What can be seen of a world from outside: by `netback status`, in the store, among the host's interfaces. And what a
//! test waits to see there.

use std::collections::BTreeSet;
use std::fs;

use netback::control::model::{Status, VifStatus};
use netback::demo::toolstack::VifSpec;

use super::{World, until};

impl World {
    /// What `netback status` shows.
    #[must_use]
    pub fn status(&self) -> Status {
        self.machine.status().unwrap()
    }

    /// What `netback status` shows of one vif, if it is there.
    #[must_use]
    pub fn vif_status(&self, vif: &VifSpec) -> Option<VifStatus> {
        let mut vifs = self.status().vifs;
        vifs.retain(|status| (status.domid, status.handle) == (vif.guest, vif.handle));
        vifs.pop()
    }

    /// Frames from the host that were dropped for this reason.
    #[must_use]
    pub fn rx_dropped(&self, vif: &VifSpec, reason: &str) -> u64 {
        let drops = self.vif_status(vif).unwrap().rx.drops;
        drops.get(reason).copied().unwrap_or_default()
    }

    /// As [`rx_dropped`](Self::rx_dropped), of frames from the guest.
    #[must_use]
    pub fn tx_dropped(&self, vif: &VifSpec, reason: &str) -> u64 {
        let drops = self.vif_status(vif).unwrap().tx.drops;
        drops.get(reason).copied().unwrap_or_default()
    }

    /// Waits until `netback status` calls a vif this. It need not be there at first: daemons that start take their
    /// time.
    pub fn wait_status(&self, vif: &VifSpec, state: &str) {
        until(&format!("the vif is {state}"), || {
            let status = self.vif_status(vif);
            status.is_some_and(|status| status.state == state)
        });
    }

    /// Waits until the backend's state node says Connected.
    pub fn wait_backend_connected(&self, vif: &VifSpec) {
        until("the backend is connected", || {
            self.backend_state(vif).as_deref() == Some("4")
        });
    }

    /// Waits for an error about a vif.
    #[must_use]
    pub fn wait_error(&self, vif: &VifSpec) -> String {
        let mut error = None;
        until("an error is reported", || {
            error = self.error(vif);
            error.is_some()
        });
        error.unwrap()
    }

    /// Waits until no error is left.
    pub fn wait_forgiven(&self, vif: &VifSpec) {
        until("the error is forgiven", || self.error(vif).is_none());
    }

    /// The error that the backend has written about a vif.
    #[must_use]
    pub fn error(&self, vif: &VifSpec) -> Option<String> {
        self.toolstack().read(&vif.error_node()).unwrap()
    }

    /// The state node of the backend's directory.
    #[must_use]
    pub fn backend_state(&self, vif: &VifSpec) -> Option<String> {
        self.toolstack()
            .read(&format!("{}/state", vif.backend_dir()))
            .unwrap()
    }

    /// All network interfaces here but the loopback.
    #[must_use]
    pub fn interfaces(&self) -> BTreeSet<String> {
        let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let names = table
            .lines()
            .skip(2)
            .filter_map(|line| line.split(':').next());
        names
            .map(|name| name.trim().to_owned())
            .filter(|name| name != "lo")
            .collect()
    }
}
