// SPDX-License-Identifier: GPL-3.0-or-later
//! One device as the control thread holds it: the state machine, what was read about it, and
//! what it owns (netif, connection, running script).
//!
//! [`Vif::feed`] is the only way to the machine: it hands it an event, carries out the actions that
//! the machine answers with ([`perform`](super::perform)), and feeds what they bring about until
//! there is nothing left to do.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::field::{DebugValue, debug};
use xenbus::backend::{Device, Event, Phase};
use xenbus::device::Probe;
use xenbus::{Ahead, Client, DevicePath, FrontendPath, XenbusState, Xs};

use super::connection::{Connection, Outcome};
use super::host::Host;
use super::limits::VifLimits;
use super::looks::Looks;
use super::losses::Losses;
use super::netif::Netif;
use super::perform::STORE_PATIENCE;
use super::script::Script;
use super::timers::Due;
use crate::logging::{RateLimited, if_any};
use crate::vif::negotiate::Queues;
use crate::vif::{QueueCounters, QueueId};
use crate::worker::{Command, What};

/// How long a device waits for its hotplug script before the log says so.
const HOTPLUG_PATIENCE: Duration = Duration::from_secs(2);

/// A device from its discovery until the machine says "forget".
#[derive(Debug)]
pub(super) struct Vif {
    pub(super) path: DevicePath,
    pub(super) machine: Device,
    /// What our `state` node ought to be.
    pub(super) own_state: XenbusState,
    /// What it was when it was last read or written.
    pub(super) stored_state: XenbusState,
    /// The `handle` node: the second number in the tap's name.
    pub(super) handle: u32,
    /// Left by a former daemon, not fresh from the toolstack, and no connection of it has been set up yet.
    pub(super) adopted: bool,
    /// `None` if the device's directory is not worth following.
    pub(super) frontend: Option<FrontendPath>,
    pub(super) facts: Facts,
    pub(super) netif: Netif,
    /// What our node `carrier` says, as far as is known.
    pub(super) carrier_told: Option<bool>,
    pub(super) connection: Option<Connection>,
    /// The rings and channels that the frontend had given when it was last tried to connect it, whatever came of that.
    /// `None` if they could not be made out.
    pub(super) last_rings: Option<Queues>,
    /// No more queues than so many are offered for as long as the device is known here, since more
    /// could not be served.
    pub(super) queues_at_most: Option<u16>,
    /// By queue pair, over all connections of the device's life.
    pub(super) counters: Vec<Arc<QueueCounters>>,
    pub(super) losses: Losses,
    pub(super) limits: VifLimits,
    pub(super) script: Script,
    /// The features were written when they last had to be.
    pub(super) advertised: bool,
    pub(super) frontend_watched: bool,
    pub(super) looks: Looks,
    pub(super) forgotten: bool,
    /// A guest can change its mind as often as it likes.
    pub(super) show_limit: RateLimited,
    /// How long until [`Vif::resync`], the next time that the store refuses something.
    pub(super) store_pause: Duration,
    /// A guest can connect and break the protocol as often as it likes.
    pub(super) log_limit: RateLimited,
}

/// What the toolstack wrote about the device, for the log, the status and the script.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) guest: Option<String>,
    pub(super) uuid: Option<String>,
    /// The guest's vCPUs, those that are offline included. A driver domain may not see them.
    pub(super) vcpus: Option<u16>,
    pub(super) mac: Option<String>,
    /// The MTU that the guest was told of, if it is not the usual.
    pub(super) mtu: Option<String>,
    pub(super) script: Option<String>,
    pub(super) bridge: Option<String>,
    pub(super) vifname: Option<String>,
    pub(super) gatewaydev: Option<String>,
    pub(super) hotplug_status: Option<String>,
    /// What a former daemon had to say of it last, if that was an error.
    pub(super) left_error: Option<String>,
    /// Settings of the vif line that nobody carries out, with their values.
    pub(super) unserved: Vec<(&'static str, String)>,
}

/// What is read of the device's own directory.
const OWN: [&str; 8] = [
    "mac",
    "mtu",
    "script",
    "bridge",
    "vifname",
    "gatewaydev",
    "hotplug-status",
    "error",
];

/// What libxl takes from a vif line and writes for a backend that can, and this one cannot.
const UNSERVED: [&str; 2] = ["vlan", "forwarddev"];

impl Vif {
    /// `None` if the device cannot be read: it has to be found anew.
    pub(super) fn new(probe: &Probe, host: &mut Host) -> Option<Self> {
        let path = probe.device;
        let own_state = probe.own_state.clone().unwrap_or(XenbusState::Unknown);
        let facts = host
            .store
            .ask(path, "read the device", |client| Facts::read(client, path))?;
        let script = Script::found(host.config.hotplug.runner, &facts);
        let mut vif = Self {
            path,
            machine: Device::new(),
            own_state,
            stored_state: own_state,
            handle: probe.handle.clone().ok().flatten().unwrap_or(path.handle),
            adopted: own_state != XenbusState::Initialising,
            frontend: probe.frontend.clone().ok(),
            facts,
            netif: Netif::None,
            carrier_told: None,
            connection: None,
            last_rings: None,
            queues_at_most: None,
            counters: Vec::new(),
            losses: Losses::default(),
            limits: VifLimits::new(&host.config),
            script,
            advertised: false,
            frontend_watched: false,
            looks: Looks::new(),
            forgotten: false,
            show_limit: RateLimited::new(8, Duration::from_millis(500)),
            store_pause: STORE_PATIENCE,
            log_limit: RateLimited::new(10, Duration::from_secs(10)),
        };
        for (key, value) in &vif.facts.unserved {
            tracing::warn!(vif = %vif.name(), domid = %path.dom, key, ?value, "the vif line asks for what netback does not do yet");
        }
        vif.follow_rate(host);
        Some(vif)
    }

    /// Hands `event` to the machine and does what follows from it.
    pub(super) fn feed(&mut self, event: Event, host: &mut Host) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let before = self.machine.phase();
            tracing::debug!(vif = %self.name(), ?event, phase = %before, "event");
            if let (Event::Handle(Ok(handle)), Phase::AwaitHandle(_)) = (&event, before) {
                self.handle = *handle;
            }
            for action in self.machine.handle(event) {
                events.extend(self.perform(*action, host));
            }
            events.extend(self.follow_carrier(before, host));
            self.follow_wait(before, host);
            self.log_change(before);
        }
    }

    /// Takes note of what a worker says about a queue pair of the present connection. What is said
    /// of former ones is late.
    pub(super) fn reported(&mut self, id: QueueId, what: What, host: &Host) -> Option<Event> {
        let connection = self.connection.as_mut()?;
        if !connection.has(id) {
            return None;
        }
        let was_stalled = connection.is_stalled();
        let outcome = connection.reported(id, what);
        let is_stalled = connection.is_stalled();
        if is_stalled != was_stalled {
            self.follow_stall(is_stalled);
        }
        let event = self.settle(outcome, host);
        if event == Some(Event::QueuesUp) {
            // What a former daemon has left in the rings has been found. Others will be fresh.
            self.adopted = false;
        }
        event
    }

    /// Sends what commands a step of the connection brings about, and lets go of one that is over.
    pub(super) fn settle(&mut self, mut outcome: Outcome, host: &Host) -> Option<Event> {
        for (worker, id) in std::mem::take(&mut outcome.leave) {
            if !host.send(worker, Command::Disconnect(id))
                && let Some(connection) = &mut self.connection
            {
                // A worker that is gone holds nothing.
                outcome = connection.reported(id, What::Down);
            }
        }
        let over = self.connection.take_if(|_| outcome.over);
        match (over, outcome.event) {
            (Some(connection), Some(Event::QueuesFailed(reason))) => {
                let queues = connection.negotiated.queues.count();
                Some(Event::QueuesFailed(self.offer_fewer(queues, reason, host)))
            }
            (_, event) => event,
        }
    }

    /// The name that the tap is made under, `vif<domid>.<handle>`: scripts may rename it later.
    pub(super) fn name(&self) -> String {
        format!("vif{}.{}", self.path.dom, self.handle)
    }

    /// What is wrong with it: by this daemon's word, or else by that of a former one.
    pub(super) fn error(&self) -> Option<&str> {
        self.machine.error().or(self.facts.left_error.as_deref())
    }

    /// A wait for the script begins or ends.
    pub(super) fn follow_wait(&self, before: Phase, host: &mut Host) {
        let due = Due::HotplugWait(self.path);
        match (before, self.machine.phase()) {
            (Phase::AwaitHotplug, Phase::AwaitHotplug) => {}
            (_, Phase::AwaitHotplug) => host.timers.set(Instant::now() + HOTPLUG_PATIENCE, due),
            _ => host.timers.cancel(due),
        }
    }

    /// Says that the device still waits for its script.
    pub(super) fn still_waiting(&mut self) {
        let Some(suppressed) = self.log_limit.allow(Instant::now()) else {
            return;
        };
        let script = self.facts.script.as_deref().unwrap_or_default();
        tracing::warn!(
            vif = %self.name(), domid = %self.path.dom, ?script, suppressed = if_any(suppressed),
            "waiting for hotplug-status from the script"
        );
    }

    fn log_change(&mut self, before: Phase) {
        let after = self.machine.phase();
        if before == after {
            return;
        }
        tracing::debug!(vif = %self.name(), from = %before, to = %after, "phase");
        if before.is_connected() == after.is_connected() {
            return;
        }
        let Some(suppressed) = self.log_limit.allow(Instant::now()) else {
            return;
        };
        let what = if after.is_connected() {
            "connected"
        } else {
            "disconnected"
        };
        let guest = self.facts.guest_shown();
        tracing::info!(vif = %self.name(), domid = %self.path.dom, guest, suppressed = if_any(suppressed), "{what}");
    }
}

impl Facts {
    /// The guest's name for a log event's field, escaped: left out where a driver domain may not see it.
    pub(super) fn guest_shown(&self) -> Option<DebugValue<&str>> {
        self.guest.as_deref().map(debug)
    }

    /// A script has been run for it, with success, and has not been undone.
    pub(super) fn is_plugged(&self) -> bool {
        self.hotplug_status.as_deref() == Some("connected")
    }

    /// # Errors
    ///
    /// What the device's own directory says cannot be read, or the store is gone.
    fn read(client: &Client, path: DevicePath) -> io::Result<Self> {
        let domain = format!("/local/domain/{}", path.dom);
        let (vm, name) = (format!("{domain}/vm"), format!("{domain}/name"));
        let own = OWN.iter().chain(&UNSERVED).map(|key| path.node(key));
        let ahead = Ahead::new(client, own.chain([vm.clone(), name.clone()]).collect());
        let read = |node: &str| Ok(ahead.optional(node)?.map(String::from));
        let own = |key: &str| read(&path.node(key));
        let mut unserved = Vec::new();
        for key in UNSERVED {
            unserved.extend(own(key)?.map(|value| (key, value)));
        }
        Ok(Self {
            guest: if_visible(read(&name))?,
            uuid: if_visible(read(&vm))?.and_then(|vm| vm.rsplit('/').next().map(str::to_owned)),
            vcpus: if_visible(vcpus(client, &domain))?,
            mac: own("mac")?,
            mtu: own("mtu")?,
            script: own("script")?,
            bridge: own("bridge")?,
            vifname: own("vifname")?,
            gatewaydev: own("gatewaydev")?,
            hotplug_status: own("hotplug-status")?,
            left_error: own("error")?.filter(|text| !text.is_empty()),
            unserved,
        })
    }
}

/// A driver domain may not be allowed to see what is written about a guest outside of its own
/// directory, and does without.
pub(super) fn if_visible<T>(read: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match read {
        Err(error) if !xenbus::is_disconnected(&error) => Ok(None),
        other => other,
    }
}

/// libxl makes a directory for each vCPU that the guest can have.
fn vcpus(client: &Client, domain: &str) -> io::Result<Option<u16>> {
    let cpus = client.directory(&format!("{domain}/cpu"))?;
    Ok(u16::try_from(cpus.len()).ok().filter(|count| *count > 0))
}
