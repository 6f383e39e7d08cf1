// SPDX-License-Identifier: GPL-3.0-or-later
//! The answer to a frontend that reconfigures itself and is not served.
//!
//! Linux's netfront says Reconfiguring (7) when an XDP program is put on or taken off, whatever state its backend is in,
//! and waits for Reconfigured (8) without end and with its network locked; afterwards it says Connected. The kernel's
//! backend answers in any state of its own. So does every phase here that has a netif (or never will) and no rings, but for a
//! device that is leaving, by way of [`Phase::Answered`]: our 8 stays until the frontend is seen in another state, and then
//! the phase that it came from takes over, with an own state of 5 and the frontend read again.

use super::super::Action::{ReadFrontend, ReportError, SetState};
use super::super::FrontendState::{Anew, Reconfiguring};
use super::super::{Action, Event, Phase, Unserved};
use super::{Edge, REMOVE, UNASKED, to};
use crate::state::XenbusState::{Closing, Reconfigured};

/// The frontend has read the answer, or does not want it any more.
const READ: &[Action] = &[SetState(Closing), ReadFrontend];

/// A frontend is in 7.
pub(super) const fn answer(then: Unserved) -> Edge {
    to(Phase::Answered(then), &[SetState(Reconfigured)])
}

/// [`Phase::Answered`]: own state 8, no rings.
pub(super) fn answered(then: Unserved, event: &Event) -> Edge {
    let here = Phase::Answered(then);
    match (event, then) {
        // A guest that goes from 7 over 4 to 7 quickly is seen in 7 only.
        (Event::Frontend(Reconfiguring), _) => to(here, &[]),
        // What is read again is just Connected, which is not tried in Failed.
        (Event::Frontend(Anew), Unserved::Failed) => to(Phase::Closing, READ),
        (Event::Frontend(_), Unserved::Closing) => to(Phase::Closing, READ),
        (Event::Frontend(_), Unserved::Failed) => to(Phase::Failed, READ),
        (Event::Frontend(_), Unserved::Dead) => to(Phase::Dead, READ),
        // It has to read the answer first, and this 5 afterwards.
        (Event::ToolstackClosing, _) => to(here, &[SetState(Reconfigured)]),
        // The 5 that belongs to this would hide the answer.
        (Event::NetifFailed(_), Unserved::Closing | Unserved::Failed) => {
            to(Phase::Answered(Unserved::Dead), &[ReportError])
        }
        (Event::BackendRemoved, _) => REMOVE,
        (Event::QueuesUp, _) => to(here, UNASKED),
        _ => to(here, &[]),
    }
}
