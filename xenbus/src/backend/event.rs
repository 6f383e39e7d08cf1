// SPDX-License-Identifier: GPL-3.0-or-later
//! What can happen to a backend device, as the shell reports it.
//!
//! Guest-written text that arrives here is already cut to a bounded, escaped form.

use crate::state::XenbusState;

/// Something that happened to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The backend directory was read for the first time; `Err` says what in it is
    /// wrong beyond repair (a malformed handle, a frontend of another guest).
    Probed(Result<Probed, String>),
    /// The `handle` node has appeared; `Err` if it is not a number.
    Handle(Result<u32, String>),
    /// The tap exists.
    NetifCreated,
    /// The tap could not be made, or a tap that existed is lost.
    NetifFailed(String),
    /// The frontend's state, each time it was read.
    Frontend(FrontendState),
    /// The `hotplug-status` node, each time it was read.
    Hotplug(HotplugStatus),
    /// The worker has mapped the rings and serves them.
    QueuesUp,
    /// The rings cannot be served; nothing is held.
    QueuesFailed(String),
    /// The worker has given everything back.
    QueuesDown,
    /// The guest broke the protocol; its rings are not served any more.
    PeerFault(String),
    /// The `online` node changed: whether it is 1.
    OnlineChanged(bool),
    /// The toolstack asks for removal: own state reads 5, which it wrote, and
    /// `online` is not 1.
    ToolstackClosing,
    /// The backend directory is gone.
    BackendRemoved,
    /// The offline script has ended, or there was none to run.
    OfflineDone,
}

impl Event {
    /// The sentence that an operator reads when this event is an error.
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Probed(Err(reason))
            | Self::Handle(Err(reason))
            | Self::NetifFailed(reason)
            | Self::QueuesFailed(reason)
            | Self::PeerFault(reason) => reason,
            Self::Hotplug(HotplugStatus::Error(reason)) => {
                format!("the hotplug script failed: {reason}")
            }
            Self::Frontend(FrontendState::Nonsense(text)) => {
                format!("the guest wrote {text} as its state, which no frontend may be in")
            }
            Self::QueuesDown => "the data path stopped by itself".to_owned(),
            other => format!("unexpected event {other:?}"),
        }
    }
}

/// What the first look at a backend directory found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// Our own `state`: 1 for a new device, anything else after a backend's death.
    pub own_state: XenbusState,
    /// The `handle` node, if it is there yet.
    pub handle: Option<u32>,
    /// Whether `online` is 1.
    pub online: bool,
}

/// The state that a frontend is in, as far as a backend cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrontendState {
    /// No node, no directory that may be read, or state 0.
    Absent,
    /// 1.
    Initialising,
    /// 3.
    Initialised,
    /// 4.
    Connected,
    /// 4, with other rings than when the shell last tried to connect it: another driver has taken over, and nobody has
    /// seen a state between. Only the shell can tell; where it does not have to, it may report `Connected`.
    Anew,
    /// 5.
    Closing,
    /// 6.
    Closed,
    /// 7.
    Reconfiguring,
    /// A state that only a backend may be in (2, 8), no state at all, or a node that
    /// cannot be read: the text, escaped.
    Nonsense(String),
}

impl FrontendState {
    /// The state that the text of a frontend's `state` node stands for.
    pub fn parse(text: &str) -> Self {
        match text.parse::<XenbusState>() {
            Ok(XenbusState::Unknown) => Self::Absent,
            Ok(XenbusState::Initialising) => Self::Initialising,
            Ok(XenbusState::Initialised) => Self::Initialised,
            Ok(XenbusState::Connected) => Self::Connected,
            Ok(XenbusState::Closing) => Self::Closing,
            Ok(XenbusState::Closed) => Self::Closed,
            Ok(XenbusState::Reconfiguring) => Self::Reconfiguring,
            Ok(state @ (XenbusState::InitWait | XenbusState::Reconfigured)) => {
                Self::Nonsense(format!("{state} ({})", state.node()))
            }
            Err(error) => Self::Nonsense(format!("{:?}", error.text)),
        }
    }
}

/// What the hotplug script says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HotplugStatus {
    /// Exactly `connected`.
    Connected,
    /// `error`, with the text of `hotplug-error`, escaped.
    Error(String),
    /// Empty, absent or anything else: not done.
    Other,
}
