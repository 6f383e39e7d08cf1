// SPDX-License-Identifier: GPL-3.0-or-later
//! What each of the state machine's actions means: the shell around `xenbus::backend`.
//!
//! An action that has a result at once returns it as the next event; results that take time
//! (a worker's, a script's) come as events later, from the control thread's loop.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use hotplug::{MacAddr, Tap, TapError, TapOptions, link};
use xenbus::backend::{Action, Event, HotplugStatus, Phase};
use xenbus::device::Written;
use xenbus::{XenbusState, device};

use super::carrier::{CARRIER, UNPLUGGED};
use super::host::Host;
use super::orphans;
use super::store::{frontend_token, watch_frontend};
use super::timers::Due;
use super::vif::Vif;
use crate::config::Runner;
use crate::logging::if_any;
use crate::preflight::no_kernel_driver;
use crate::vif::feature::advertised;
use crate::vif::negotiate::OFFER;

/// How long a device waits for its hotplug script before the log says so.
const HOTPLUG_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before writing again what the store refused: twice as long each time.
pub(super) const STORE_PATIENCE: Duration = Duration::from_secs(5);
const STORE_PATIENCE_MOST: Duration = Duration::from_secs(80);

/// What the kernel lets the MTU of a tap be, in bytes.
const TAP_MTUS: RangeInclusive<u32> = 68..=65_521;

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
                let carrier = self.carrier_text();
                let own = [(OFFER, queues.as_str()), (CARRIER, carrier)];
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
            Action::CreateNetif => Some(self.create_netif(host)),
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
            Action::ReadHotplugStatus => {
                if !std::mem::replace(&mut self.wait_noticed, true) {
                    host.set_timer(Instant::now() + HOTPLUG_PATIENCE, Due::HotplugWait(path));
                }
                self.read_hotplug(host)
            }
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
        if refused && !std::mem::replace(&mut self.resync_due, true) {
            host.set_timer(Instant::now() + self.store_pause, Due::Resync(self.path));
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
        self.frontend_watched = host
            .store
            .ask(path, "watch the frontend", |c| {
                watch_frontend(c, path, frontend)
            })
            .is_some();
        self.again_unless(self.frontend_watched, host);
        None
    }

    fn create_netif(&mut self, host: &mut Host) -> Event {
        let queues = self.standing_offer(host);
        let name = self.tap_name();
        let usual_mtu = TapOptions::default().mtu;
        let options = TapOptions {
            mtu: self.wanted_mtu().unwrap_or(usual_mtu),
            txqueuelen: host.config.tap.txqueuelen,
            mac: MacAddr::BACKEND,
            // Whatever the script calls it: it is known by that when it is left over.
            alias: (self.facts.vifname.as_ref()).map(|_| orphans::alias(self.path)),
            persist: true,
            multi_queue: queues.unwrap_or_else(|| self.queue_limit(host)) > 1,
        };
        let machine = host.machine.as_ref();
        let rival = machine.and_then(|machine| no_kernel_driver(machine).err());
        match self.open_tap(&name, &options, host) {
            Ok(tap) => {
                if let Some(rival) = &rival {
                    tracing::error!(vif = %name, domid = %self.path.dom, error = %rival, "another backend serves this device, too");
                }
                self.is_unplugged = tap.created() && self.was_plugged(host);
                if self.is_unplugged {
                    tracing::warn!(vif = %name, "{UNPLUGGED}");
                }
                tracing::debug!(vif = %name, created = tap.created(), "tap ready");
                self.tap_link = tap
                    .link()
                    .inspect_err(|error| tracing::error!(vif = %name, %error, "the new tap cannot be asked for its state"))
                    .ok();
                // What a former backend's guest knows may be of before it went.
                self.mtu_told = self.tap_link.map(|link| link.mtu).filter(|_| !self.adopted);
                self.tap = Some(tap);
                // As with any network card, no carrier until somebody is at the other end. A guest
                // that a former backend left connected most likely is.
                if !self.was_left_connected() {
                    self.set_carrier(false);
                }
                Event::NetifCreated
            }
            // An interface of that name is the driver's.
            Err(error) => Event::NetifFailed(
                rival.map_or_else(|| error.to_string(), |rival| rival.to_string()),
            ),
        }
    }

    /// The toolstack's script has been run, and will not be again.
    fn was_plugged(&self, host: &Host) -> bool {
        host.config.hotplug.runner == Runner::Toolstack
            && self.facts.hotplug_status.as_deref() == Some("connected")
    }

    /// The MTU of the vif line, which the guest is told of by the toolstack. Not every script sets it on the tap.
    fn wanted_mtu(&self) -> Option<u32> {
        let text = self.facts.mtu.as_deref()?;
        let mtu = text.parse().ok().filter(|mtu| TAP_MTUS.contains(mtu));
        if mtu.is_none() {
            tracing::warn!(vif = %self.name(), domid = %self.path.dom, mtu = ?text, "the vif line asks for an MTU that no tap can have (68 to 65521); the usual one is set");
        }
        mtu
    }

    /// A tap that a former daemon left may bear the name that the script gave it.
    fn tap_name(&self) -> String {
        let name = self.name();
        match &self.facts.vifname {
            Some(vifname)
                if self.adopted
                    && matches!(link::exists(&name), Ok(false))
                    && matches!(link::exists(vifname), Ok(true)) =>
            {
                vifname.clone()
            }
            _ => name,
        }
    }

    /// The tap that was kept open for it, or else the one of this name, new or found.
    fn open_tap(&self, name: &str, options: &TapOptions, host: &mut Host) -> Result<Tap, TapError> {
        if let Some(kept) = host.kept.remove(&self.path) {
            match Tap::resume(kept, options) {
                Ok(tap) => return Ok(tap),
                Err(error) => {
                    tracing::warn!(vif = %self.name(), %error, "a tap was kept open for this vif in vain");
                    host.release(self.path);
                }
            }
        }
        let tap = Tap::create(name, options)?;
        host.keep(self.path, &tap);
        Ok(tap)
    }

    fn destroy_netif(&mut self, host: &Host) {
        let Some(tap) = self.tap.take() else {
            return;
        };
        if let Err(error) = tap.destroy() {
            tracing::error!(vif = %self.name(), %error, "the tap cannot be removed");
        }
        host.release(self.path);
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

    /// After the connection to the store was lost: does again what may not have reached it, and
    /// looks again at what may have changed.
    pub(super) fn resync(&mut self, host: &mut Host) {
        let (path, known) = (self.path, self.stored_state);
        self.frontend_watched = false;
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
        if !self.resync_due {
            self.store_pause = STORE_PATIENCE;
        }
    }

    fn perform_and_feed(&mut self, action: Action, host: &mut Host) {
        if let Some(event) = self.perform(action, host) {
            self.feed(event, host);
        }
    }
}
