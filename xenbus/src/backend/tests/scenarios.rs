// SPDX-License-Identifier: GPL-3.0-or-later
//! The stories of the protocol reference, section 2, event by event.

use super::super::*;
use crate::state::XenbusState as S;

mod attach;
mod faults;
mod leave;

/// Feeds events and compares what comes out of each.
pub(super) fn story(device: &mut Device, steps: &[(Event, Phase, &[Action])]) {
    for (number, (event, phase, actions)) in steps.iter().enumerate() {
        let done = device.handle(event.clone());
        assert_eq!(
            (device.phase(), done),
            (*phase, *actions),
            "step {number}: {event:?}"
        );
    }
}

pub(super) fn front(text: &str) -> Event {
    Event::Frontend(FrontendState::parse(text))
}

/// Another driver has said Connected.
pub(super) const ANEW: Event = Event::Frontend(FrontendState::Anew);

/// By way of 6 and 2: a frontend that does not wait for them is connected all the same.
pub(super) const CONNECT_ANEW: &[Action] = &[
    Action::SetState(S::Closed),
    Action::ClearError,
    Action::Advertise,
    Action::SetState(S::InitWait),
    Action::ConnectQueues,
];

pub(super) fn probed(own_state: S, handle: Option<u32>, online: bool) -> Event {
    Event::Probed(Ok(Probed {
        own_state,
        handle,
        online,
    }))
}

pub(super) const HOTPLUGGED: Event = Event::Hotplug(HotplugStatus::Connected);

/// A device that is connected, by the usual way.
pub(super) fn connected() -> Device {
    let mut device = Device::new();
    for event in [
        probed(S::Initialising, Some(0), true),
        Event::NetifCreated,
        front("4"),
        Event::QueuesUp,
        HOTPLUGGED,
    ] {
        device.handle(event);
    }
    assert_eq!(device.phase(), Phase::Connected);
    device
}
