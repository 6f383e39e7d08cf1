// SPDX-License-Identifier: GPL-3.0-or-later
//! What each of the state machine's actions means: the shell around `xenbus::backend`.
//!
//! An action that has a result at once returns it as the next event; results that take time
//! (a worker's, a script's) come as events later, from the control thread's loop.

use std::time::{Duration, Instant};

use xenbus::backend::{Action, Event, HotplugStatus, Phase};
use xenbus::device::Written;
use xenbus::{XenbusState, device};

use super::carrier::{CARRIER, carrier_text};
use super::host::Host;
use super::orphans;
use super::store::{Watched, frontend_token, watch_frontend};
use super::timers::Due;
use super::vif::Vif;
use crate::logging::if_any;
use crate::vif::feature::advertised;
use crate::vif::negotiate::OFFER;

/// How long to wait before writing again what the store refused: twice as long each time.
pub(super) const STORE_PATIENCE: Duration = Duration::from_secs(5);
const STORE_PATIENCE_MOST: Duration = Duration::from_secs(80);

impl Vif {
    /// Carries out one action.
    pub(super) fn perform(&mut self, action: Action, host: &mut Host) -> Option<Event> {
        let path = self.path;
        match action {
            Action::WatchHandle => {
                // The watch on all devices covers the node; this is the look after it.
                host.store
                    .ask(path, "read handle", |c| device::read_handle(c, path))
                    .flatten()
            }
            Action::Advertise => {
                let standing = self.standing_offer(host);
                let queues = standing.unwrap_or_else(|| self.offered_queues(host));
                let queues = queues.to_string();
                let carrier = self.carrier_shown();
                let own = [(OFFER, queues.as_str()), (CARRIER, carrier_text(carrier))];
                let mut keys: Vec<(&str, &str)> = advertised().collect();
                keys.extend(own);
                let done = host.store.ask(path, "write the features", |c| {
                    device::write_keys(c, path, &keys)
                });
                self.carrier_told = done.map(|_| carrier);
                self.advertised = done.is_some();
                self.again_unless(self.advertised, host);
                None
            }
            Action::CreateNetif => self.create_netif(host),
            Action::WatchFrontend => self.watch_frontend(host),
            Action::ReadFrontend => self.look_again(host),
            Action::SetState(state) => {
                self.own_state = state;
                self.write_state(host);
                None
            }
            Action::ConnectQueues => self.connect(host),
            Action::Reconfigure => self.follow_requests(host),
            Action::DisconnectQueues => self.disconnect(host),
            Action::ReadHotplugStatus => self.read_hotplug(host),
            Action::RunOnline => self.run_online(host),
            Action::RunOffline => self.run_offline(host),
            Action::ClearHotplugStatus => {
                host.store.ask(path, "remove hotplug-status", |c| {
                    device::clear_hotplug_status(c, path)
                });
                None
            }
            Action::DestroyNetif => {
                self.destroy_netif(host);
                None
            }
            Action::ReportError => {
                self.report_error(host);
                None
            }
            Action::ClearError => {
                self.facts.left_error = None;
                host.store.ask(path, "remove the error nodes", |c| {
                    device::clear_error(c, path)
                });
                None
            }
            Action::Forget => {
                self.forget(host);
                None
            }
        }
    }

    /// Writes what our own state ought to be. A frontend reads the features when it sees InitWait, and
    /// never again, so that waits until they are there.
    pub(super) fn write_state(&mut self, host: &mut Host) {
        let (path, state) = (self.path, self.own_state);
        if state == XenbusState::InitWait && !self.advertised {
            return;
        }
        // The toolstack may ask for removal at this moment.
        let yields = state == XenbusState::Connected && self.stored_state != XenbusState::Closing;
        let done = host.store.ask(path, "write the state", |c| match yields {
            true => device::set_connected(c, path),
            false => device::set_state(c, path, state),
        });
        if matches!(done, Some(Written::Done | Written::Unchanged)) {
            self.stored_state = state;
        }
        self.again_unless(done.is_some(), host);
    }

    /// What the store refused (for a quota, say) is written again later. A lost connection sees
    /// to that itself.
    pub(super) fn again_unless(&mut self, done: bool, host: &mut Host) {
        let refused = !done && host.store.client().is_some();
        let again = Due::Resync(self.path);
        if refused && !host.timers.is_set(again) {
            host.timers.set(Instant::now() + self.store_pause, again);
            self.store_pause = STORE_PATIENCE_MOST.min(2 * self.store_pause);
        }
    }

    /// What the hotplug script says now: in the store, or by its exit status.
    pub(super) fn read_hotplug(&mut self, host: &mut Host) -> Option<Event> {
        let path = self.path;
        let (status, text) = host.store.ask(path, "read hotplug-status", |c| {
            device::read_hotplug(c, path)
        })?;
        self.facts.hotplug_status = text.map(String::from);
        let status = match (status, self.script.failure()) {
            (HotplugStatus::Other, Some(reason)) => HotplugStatus::Error(reason.to_owned()),
            (status, _) => status,
        };
        Some(Event::Hotplug(status))
    }

    /// Watches the frontend, which makes for a first event.
    pub(super) fn watch_frontend(&mut self, host: &mut Host) -> Option<Event> {
        let (path, frontend) = (self.path, self.frontend?);
        if self.frontend_watched {
            return self.read_frontend(host);
        }
        let watched = host.store.ask(path, "watch the frontend", |c| {
            watch_frontend(c, path, frontend)
        });
        self.frontend_watched = watched.is_some();
        self.again_unless(self.frontend_watched, host);
        match watched? {
            Watched::Anew => None,
            Watched::Before => self.read_frontend(host),
        }
    }

    pub(super) fn report_error(&mut self, host: &mut Host) {
        let Some(reason) = self.error() else {
            return;
        };
        let (path, reason) = (self.path, reason.to_owned());
        let done = host.store.ask(path, "write the error nodes", |c| {
            device::report_error(c, path, &reason)
        });
        self.again_unless(done.is_some(), host);
        if let Some(suppressed) = self.log_limit.allow(Instant::now()) {
            let domid = path.dom;
            let guest = self.facts.guest_shown();
            tracing::error!(vif = %self.name(), %domid, guest, %reason, suppressed = if_any(suppressed), "failed");
        }
    }

    fn forget(&mut self, host: &mut Host) {
        self.forgotten = true;
        // A device that is made anew at the same path is another one.
        host.timers.cancel_all(|due| due.device() == self.path);
        let left = host.kept.remove_entry(&self.path);
        orphans::remove_kept(left, host.keeper.as_ref());
        host.store.ask(self.path, "remove the error node", |c| {
            device::forget_error(c, self.path)
        });
        if let (true, Some(frontend)) = (self.frontend_watched, self.frontend) {
            let token = frontend_token(self.path);
            host.store
                .ask(self.path, "end the watch on the frontend", |c| {
                    c.unwatch(&frontend.dir(), &token)
                });
        }
    }

    /// After the store has refused something, or was gone: does again what may not have reached it, and
    /// looks again at what may have changed.
    pub(super) fn resync(&mut self, host: &mut Host) {
        let (path, known) = (self.path, self.stored_state);
        let changes = host.store.ask(path, "read the device", |c| {
            device::read_own(c, path, known)
        });
        let changes = changes.unwrap_or_default();
        let closing = changes.contains(&Event::ToolstackClosing);
        for event in changes {
            self.feed(event, host);
        }
        if self.forgotten || matches!(self.machine.phase(), Phase::Retiring(_)) {
            return;
        }
        self.follow_rate(host);
        self.carrier_told = None;
        self.publish_carrier(host);
        self.publish_mtu(host);
        // The toolstack's 5 is not to be written over.
        if !closing {
            if self.own_state == XenbusState::InitWait {
                self.perform_and_feed(Action::Advertise, host);
            }
            self.write_state(host);
        }
        let error = if self.error().is_some() {
            Action::ReportError
        } else {
            Action::ClearError
        };
        self.perform_and_feed(error, host);
        if self.machine.phase() == Phase::Connecting && self.connection.is_none() {
            self.perform_and_feed(Action::ConnectQueues, host);
        }
        for action in [
            Action::WatchHandle,
            Action::WatchFrontend,
            Action::ReadHotplugStatus,
        ] {
            self.perform_and_feed(action, host);
        }
        if !host.timers.is_set(Due::Resync(path)) {
            self.store_pause = STORE_PATIENCE;
        }
    }

    pub(super) fn perform_and_feed(&mut self, action: Action, host: &mut Host) {
        if let Some(event) = self.perform(action, host) {
            self.feed(event, host);
        }
    }
}
