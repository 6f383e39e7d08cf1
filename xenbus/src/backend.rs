// SPDX-License-Identifier: GPL-3.0-or-later
//! The life of one backend device, without input or output.
//!
//! [`Device::handle`] takes an [`Event`] and answers with the [`Action`]s that the
//! shell has to carry out, in that order. All knowledge is in one table
//! ([`table::next`]); a device is a [`Phase`], the toolstack's `online` and the text
//! of the last error.
//!
//! # What the shell promises
//!
//! 1. Each device starts with one [`Event::Probed`].
//! 2. [`Action::CreateNetif`] is answered with [`Event::NetifCreated`] or
//!    [`Event::NetifFailed`] before any other event of the device.
//! 3. [`Action::ConnectQueues`] is answered, at any later time, with
//!    [`Event::QueuesUp`] or [`Event::QueuesFailed`]; [`Action::DisconnectQueues`]
//!    always with [`Event::QueuesDown`], also if the connection that it interrupts
//!    has failed or was never made. After `QueuesDown` nothing of the guest is held.
//! 4. [`Action::RunOffline`] is always answered with [`Event::OfflineDone`]: at once
//!    where the toolstack runs the scripts.
//! 5. State writes never re-create a directory and never repeat the present state
//!    ([`crate::device::set_state`]). Connected is not written over the toolstack's
//!    Closing ([`crate::device::set_connected`]).
//! 6. A frontend that its watch shows Connected is reported as [`FrontendState::Anew`] if it has
//!    given other rings than those that it is, or could not be, connected with. Read for an
//!    action it is just Connected, so that a guest which changes them all the time costs no
//!    more than what it writes.
//! 7. If the device's `state` node is gone, or reads Initialising although the shell
//!    has written another state, the directory has been removed (and perhaps made
//!    anew): the shell reports [`Event::BackendRemoved`], and looks again for a new
//!    device at that path after [`Action::Forget`].
//!
//! The machine remembers nothing of the frontend. Where it had to ignore what the
//! frontend did, it asks for the frontend's present state once it can react
//! ([`Action::ReadFrontend`]). So a guest that changes its mind quickly is served by
//! its last word, and costs one transition for each.

use std::fmt;

mod event;
pub mod table;
#[cfg(test)]
mod tests;

pub use event::{Event, FrontendState, HotplugStatus, Probed};

use crate::state::XenbusState;

/// The state machine of one device.
#[derive(Debug, Clone)]
pub struct Device {
    phase: Phase,
    online: bool,
    error: Option<String>,
}

impl Device {
    /// A device that has just been found.
    pub const fn new() -> Self {
        Self {
            phase: Phase::New,
            online: true,
            error: None,
        }
    }

    /// Takes an event and returns what is to be done, in order.
    pub fn handle(&mut self, event: Event) -> &'static [Action] {
        match &event {
            Event::Probed(Ok(probed)) => self.online = probed.online,
            Event::OnlineChanged(online) => self.online = *online,
            _ => {}
        }
        let edge = table::next(self.phase, &event, self.online);
        if edge.actions.contains(&Action::ReportError) {
            self.error = Some(event.into_reason());
        } else if edge.actions.contains(&Action::ClearError) {
            self.error = None;
        }
        self.phase = edge.phase;
        edge.actions
    }

    /// Where the device is in its life.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the toolstack wants the device to stay (`online` is 1).
    pub const fn online(&self) -> bool {
        self.online
    }

    /// The last error, a sentence for the operator; `None` once the device has
    /// recovered.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a device is in its life. "Own state" is what our `state` node says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Found, nothing read yet.
    New,
    /// There is no `handle` node yet, so no netif; the payload is our own state.
    AwaitHandle(Waiting),
    /// The shell is making the netif.
    Creating(Start),
    /// Own state 2, the netif exists, no rings.
    InitWait,
    /// Own state 4 (or 7, or 8) was left by a dead backend; the netif exists, no rings yet.
    Adopted,
    /// A worker is mapping the rings.
    Connecting,
    /// Rings are up, own state 4 is withheld until the hotplug script is done. (Own state 8 is not, for a frontend
    /// that waits for it. A toolstack that has not seen our 2 by then waits in vain; that is its guest's doing.)
    AwaitHotplug,
    /// Own state 4, or 5 if the frontend has been detached; packets flow.
    Connected,
    /// As [`Phase::Connected`], with own state 8.
    Reconfigured,
    /// A worker is giving the rings back; then the payload.
    Disconnecting(After),
    /// Own state 5, the netif exists, no rings.
    Closing,
    /// Own state 6, the netif exists, no rings.
    Closed,
    /// Own state 5 because of an error; a frontend that starts anew, or comes with other rings, recovers it.
    Failed,
    /// Own state 5 because there cannot be a netif; only re-attaching helps.
    Dead,
    /// Own state 8 for a frontend that waits for it, no rings; then the payload.
    Answered(Unserved),
    /// On its way out: the offline script runs.
    Retiring(Exit),
    /// Forgotten. Terminal.
    Removed,
}

/// The own state while there is no netif yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waiting {
    /// 2.
    InitWait,
    /// 5: the frontend closed before it ever connected.
    Closing,
    /// 6: and finished closing.
    Closed,
}

/// Where the device goes on once its netif exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Start {
    /// To InitWait, which is written after the netif was made.
    InitWait,
    /// To [`Phase::Adopted`]: a frontend may be connected to a dead backend's rings.
    Adopted,
    /// To [`Phase::Closing`].
    Closing,
    /// To [`Phase::Closed`].
    Closed,
}

/// Where the device goes on once its rings are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum After {
    /// To [`Phase::Closing`], and from there as the frontend's state says.
    Closing,
    /// To [`Phase::Failed`].
    Failed,
    /// To [`Phase::Dead`]: the netif was lost.
    Dead,
    /// Out: the backend directory is gone.
    Removed,
}

/// Where a device without rings goes on once its frontend has read that it is Reconfigured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unserved {
    /// To [`Phase::Closing`], from there or from [`Phase::Closed`].
    Closing,
    /// To [`Phase::Failed`].
    Failed,
    /// To [`Phase::Dead`].
    Dead,
}

/// How a device leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// Its directory is there and gets own state 6.
    Closed,
    /// Its directory is gone (or belongs to a successor): nothing is written.
    Removed,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 28] = [
        Self::New,
        Self::AwaitHandle(Waiting::InitWait),
        Self::AwaitHandle(Waiting::Closing),
        Self::AwaitHandle(Waiting::Closed),
        Self::Creating(Start::InitWait),
        Self::Creating(Start::Adopted),
        Self::Creating(Start::Closing),
        Self::Creating(Start::Closed),
        Self::InitWait,
        Self::Adopted,
        Self::Connecting,
        Self::AwaitHotplug,
        Self::Connected,
        Self::Reconfigured,
        Self::Disconnecting(After::Closing),
        Self::Disconnecting(After::Failed),
        Self::Disconnecting(After::Dead),
        Self::Disconnecting(After::Removed),
        Self::Closing,
        Self::Closed,
        Self::Failed,
        Self::Dead,
        Self::Answered(Unserved::Closing),
        Self::Answered(Unserved::Failed),
        Self::Answered(Unserved::Dead),
        Self::Retiring(Exit::Closed),
        Self::Retiring(Exit::Removed),
        Self::Removed,
    ];

    /// Whether packets flow.
    pub const fn is_connected(self) -> bool {
        matches!(self, Self::Connected | Self::Reconfigured)
    }

    /// A short name, for `netback status` and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::AwaitHandle(_) => "await-handle",
            Self::Creating(_) => "creating",
            Self::InitWait => "init-wait",
            Self::Adopted => "adopted",
            Self::Connecting => "connecting",
            Self::AwaitHotplug => "await-hotplug",
            Self::Connected => "connected",
            Self::Reconfigured => "reconfigured",
            Self::Disconnecting(_) => "disconnecting",
            Self::Closing | Self::Answered(Unserved::Closing) => "closing",
            Self::Closed => "closed",
            Self::Failed | Self::Answered(Unserved::Failed) => "failed",
            Self::Dead | Self::Answered(Unserved::Dead) => "dead",
            Self::Retiring(_) => "retiring",
            Self::Removed => "removed",
        }
    }

    /// Why the device is not connected: what it waits for, and on whom it depends.
    /// `None` when packets flow.
    pub const fn reason(self) -> Option<&'static str> {
        Some(match self {
            Self::Connected | Self::Reconfigured => return None,
            Self::New => "the device has just been found",
            Self::AwaitHandle(_) => "the toolstack has not written the handle node yet",
            Self::Creating(_) => "the network interface is being made",
            Self::InitWait => "the guest's driver has not connected yet",
            Self::Adopted => "a former backend's device was taken over; reading the guest's state",
            Self::Connecting => "the guest's rings are being mapped",
            Self::AwaitHotplug => "the hotplug script has not written hotplug-status connected",
            Self::Disconnecting(_) => "the guest's rings are being given back",
            Self::Closing | Self::Answered(Unserved::Closing) => {
                "the guest's driver is closing the device"
            }
            Self::Closed => "the guest's driver has closed the device",
            Self::Failed | Self::Answered(Unserved::Failed) => {
                "an error; it recovers when the guest's driver starts the device anew"
            }
            Self::Dead | Self::Answered(Unserved::Dead) => {
                "there is no network interface; detach and attach the device again"
            }
            Self::Retiring(_) => "the device is being removed",
            Self::Removed => "the device is gone",
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the shell has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Report [`Event::Handle`] as soon as the `handle` node exists.
    WatchHandle,
    /// Write the features, in one transaction that does not re-create the directory.
    Advertise,
    /// Make (or take over) the tap, and report the outcome at once.
    CreateNetif,
    /// Watch the frontend's state unless that is done already, and report its
    /// present value as [`Event::Frontend`] (a new watch fires by itself).
    WatchFrontend,
    /// Read the frontend's state now and report it as [`Event::Frontend`].
    ReadFrontend,
    /// Write our own state, in a transaction, unless it is that already or is gone.
    SetState(XenbusState),
    /// Read the frontend's keys and have a worker map the rings.
    ConnectQueues,
    /// Read what a frontend may change in Reconfiguring (`xdp-headroom`) and keep to it;
    /// a value that is none is an [`Event::PeerFault`].
    Reconfigure,
    /// Have the worker stop and give everything of the guest back.
    DisconnectQueues,
    /// Read `hotplug-status` now and report it as [`Event::Hotplug`]; report later
    /// changes too.
    ReadHotplugStatus,
    /// Run the hotplug script with `online`, if that is the daemon's task and
    /// `hotplug-status` is not `connected` already (a device that was taken over).
    RunOnline,
    /// Run the hotplug script with `offline`, if that is the daemon's task and
    /// `online` was run; report [`Event::OfflineDone`] in any case.
    RunOffline,
    /// Remove `hotplug-status`, as the kernel's backend does when a device goes.
    ClearHotplugStatus,
    /// Remove the tap, if there is one.
    DestroyNetif,
    /// Write [`Device::error`] to both error nodes and log it.
    ReportError,
    /// Remove both error nodes.
    ClearError,
    /// Drop the record and the watches of the device, and look whether a new device
    /// has taken its path.
    Forget,
}
