// SPDX-License-Identifier: GPL-3.0-or-later
//! The table of transitions: one arm for each edge, nothing else decides.
//!
//! The states are those of Xen's public header `io/xenbus.h`, which does not say what
//! leads from one to another. Every edge, ignored events included, is listed in
//! `edges.txt` beside the tests.

use super::Action::{
    Advertise, ClearError, ClearHotplugStatus, ConnectQueues, CreateNetif, DestroyNetif,
    DisconnectQueues, Forget, ReadFrontend, ReadHotplugStatus, Reconfigure, ReportError,
    RunOffline, RunOnline, SetState, WatchFrontend, WatchHandle,
};
use super::FrontendState::{
    Absent, Anew, Closed as FrontClosed, Closing as FrontClosing, Connected as FrontConnected,
    Initialising, Nonsense, Reconfiguring,
};
use super::{Action, After, Event, Exit, HotplugStatus, Phase, Probed, Start, Unserved, Waiting};
use crate::state::XenbusState::{self, Closed, Closing, Connected, InitWait, Reconfigured};
use answer::{answer, answered};

mod answer;

/// Where an event leads, and what is to be done on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// The phase after the event.
    pub phase: Phase,
    /// What the shell does, in order.
    pub actions: &'static [Action],
}

/// The edge from `phase` on `event`, given the toolstack's `online`. Total: an event
/// that means nothing in a phase leads back to it with no action.
pub fn next(phase: Phase, event: &Event, online: bool) -> Edge {
    match phase {
        Phase::New => probe(event),
        Phase::AwaitHandle(own) => await_handle(own, event, online),
        Phase::Creating(start) => creating(start, event),
        Phase::InitWait | Phase::Adopted => unconnected(phase, event, online),
        Phase::Connecting | Phase::AwaitHotplug | Phase::Connected | Phase::Reconfigured => {
            connected(phase, event, online)
        }
        Phase::Disconnecting(after) => disconnecting(after, event),
        Phase::Closing | Phase::Closed | Phase::Failed => closed(phase, event, online),
        Phase::Dead => dead(event, online),
        Phase::Answered(then) => answered(then, event),
        Phase::Retiring(exit) => retiring(exit, event),
        Phase::Removed => removed(event),
    }
}

const fn to(phase: Phase, actions: &'static [Action]) -> Edge {
    Edge { phase, actions }
}

/// Out, with own state 6 at the end.
const RETIRE: Edge = to(Phase::Retiring(Exit::Closed), &[RunOffline]);
/// Out, from an own state other than 5 and 6: Closing is never skipped.
const CLOSE_AND_RETIRE: Edge = to(
    Phase::Retiring(Exit::Closed),
    &[SetState(Closing), RunOffline],
);
/// Out, the directory is gone.
const REMOVE: Edge = to(Phase::Retiring(Exit::Removed), &[RunOffline]);
/// A worker that was not asked for its rings has some: it gives them back.
const UNASKED: &[Action] = &[DisconnectQueues];

fn probe(event: &Event) -> Edge {
    let Event::Probed(probed) = event else {
        return match event {
            Event::BackendRemoved => to(Phase::Removed, &[Forget]),
            Event::QueuesUp => to(Phase::New, UNASKED),
            _ => to(Phase::New, &[]),
        };
    };
    let Ok(Probed {
        own_state,
        handle,
        online,
    }) = probed
    else {
        return to(
            Phase::Dead,
            &[ReportError, SetState(Closing), WatchFrontend],
        );
    };
    let (start, waiting) = match own_state {
        // Left over from a device that is gone; the toolstack removes the directory.
        Closed if !online => return to(Phase::Removed, &[Forget]),
        Closed => (Start::Closed, Waiting::Closed),
        Closing => (Start::Closing, Waiting::Closing),
        Connected | XenbusState::Reconfiguring | Reconfigured => {
            (Start::Adopted, Waiting::InitWait)
        }
        XenbusState::Unknown | XenbusState::Initialising | InitWait | XenbusState::Initialised => {
            (Start::InitWait, Waiting::InitWait)
        }
    };
    // libxl runs the script as soon as it sees InitWait, so the tap comes first; an
    // older toolstack writes the handle only after InitWait.
    match (handle, waiting) {
        (Some(_), _) => to(Phase::Creating(start), &[CreateNetif]),
        // Connected without a handle: nothing to take over, the frontend starts anew.
        (None, _) if start == Start::Adopted => to(
            Phase::AwaitHandle(Waiting::InitWait),
            &[
                SetState(Closing),
                SetState(Closed),
                Advertise,
                SetState(InitWait),
                WatchFrontend,
                WatchHandle,
            ],
        ),
        (None, Waiting::InitWait) => to(
            Phase::AwaitHandle(waiting),
            &[Advertise, SetState(InitWait), WatchFrontend, WatchHandle],
        ),
        (None, Waiting::Closing | Waiting::Closed) => {
            to(Phase::AwaitHandle(waiting), &[WatchFrontend, WatchHandle])
        }
    }
}

fn await_handle(own: Waiting, event: &Event, online: bool) -> Edge {
    let here = Phase::AwaitHandle(own);
    match (event, own) {
        (Event::Handle(Ok(_)), Waiting::InitWait) => {
            to(Phase::Creating(Start::InitWait), &[CreateNetif])
        }
        (Event::Handle(Ok(_)), Waiting::Closing) => {
            to(Phase::Creating(Start::Closing), &[CreateNetif])
        }
        (Event::Handle(Ok(_)), Waiting::Closed) => {
            to(Phase::Creating(Start::Closed), &[CreateNetif])
        }
        (Event::Handle(Err(_)), _) => {
            to(Phase::Dead, &[ReportError, SetState(Closing), ReadFrontend])
        }

        (Event::Frontend(Initialising), Waiting::Closing) if online => to(
            Phase::AwaitHandle(Waiting::InitWait),
            &[SetState(Closed), ClearError, Advertise, SetState(InitWait)],
        ),
        (Event::Frontend(Initialising), Waiting::Closed) if online => to(
            Phase::AwaitHandle(Waiting::InitWait),
            &[ClearError, Advertise, SetState(InitWait)],
        ),
        (Event::Frontend(Initialising), Waiting::Closing | Waiting::Closed) => RETIRE,
        (Event::Frontend(FrontClosing), Waiting::InitWait | Waiting::Closed) => {
            to(Phase::AwaitHandle(Waiting::Closing), &[SetState(Closing)])
        }
        (Event::Frontend(FrontClosed), Waiting::InitWait) if online => to(
            Phase::AwaitHandle(Waiting::Closed),
            &[SetState(Closing), SetState(Closed)],
        ),
        (Event::Frontend(FrontClosed), Waiting::Closing) if online => {
            to(Phase::AwaitHandle(Waiting::Closed), &[SetState(Closed)])
        }
        (Event::Frontend(FrontClosed | Absent), Waiting::InitWait) => CLOSE_AND_RETIRE,
        (Event::Frontend(Absent), _) => RETIRE,
        (Event::Frontend(FrontClosed), _) if !online => RETIRE,
        (Event::Frontend(Nonsense(_)), Waiting::InitWait | Waiting::Closed) => to(
            Phase::AwaitHandle(Waiting::Closing),
            &[ReportError, SetState(Closing)],
        ),
        (Event::OnlineChanged(false), Waiting::Closed) | (Event::ToolstackClosing, _) => RETIRE,
        (Event::BackendRemoved, _) => REMOVE,
        (Event::QueuesUp, _) => to(here, UNASKED),
        _ => to(here, &[]),
    }
}

fn creating(start: Start, event: &Event) -> Edge {
    match (event, start) {
        (Event::NetifCreated, Start::InitWait) => to(
            Phase::InitWait,
            &[RunOnline, Advertise, SetState(InitWait), WatchFrontend],
        ),
        // A live frontend has read the features already and must not see 2.
        (Event::NetifCreated, Start::Adopted) => to(Phase::Adopted, &[RunOnline, WatchFrontend]),
        (Event::NetifCreated, Start::Closing) => to(Phase::Closing, &[RunOnline, WatchFrontend]),
        (Event::NetifCreated, Start::Closed) => to(Phase::Closed, &[RunOnline, WatchFrontend]),
        (Event::NetifFailed(_), _) => to(
            Phase::Dead,
            &[ReportError, SetState(Closing), WatchFrontend],
        ),
        // Whoever holds the tap may keep it for longer than the toolstack waits.
        (Event::OnlineChanged(false), Start::Closed) | (Event::ToolstackClosing, _) => RETIRE,
        (Event::BackendRemoved, _) => REMOVE,
        (Event::QueuesUp, _) => to(Phase::Creating(start), UNASKED),
        _ => to(Phase::Creating(start), &[]),
    }
}

/// [`Phase::InitWait`] and [`Phase::Adopted`]: a netif, no rings, own state 2 or 4.
fn unconnected(here: Phase, event: &Event, online: bool) -> Edge {
    match event {
        Event::Frontend(FrontConnected | Anew) => to(Phase::Connecting, &[ConnectQueues]),
        // A frontend in 7 has published its rings: it went through 4 while we slept. It waits for
        // an answer without end, and the script may never be done.
        Event::Frontend(Reconfiguring) => {
            to(Phase::Connecting, &[ConnectQueues, SetState(Reconfigured)])
        }
        Event::Frontend(Initialising) if here == Phase::Adopted => to(
            Phase::InitWait,
            &[
                SetState(Closing),
                SetState(Closed),
                ClearError,
                Advertise,
                SetState(InitWait),
            ],
        ),
        Event::Frontend(FrontClosing) => to(Phase::Closing, &[SetState(Closing)]),
        Event::Frontend(FrontClosed) if online => {
            to(Phase::Closed, &[SetState(Closing), SetState(Closed)])
        }
        Event::Frontend(FrontClosed | Absent) => CLOSE_AND_RETIRE,
        Event::Frontend(Nonsense(_)) => to(Phase::Failed, &[ReportError, SetState(Closing)]),
        Event::NetifFailed(_) => to(Phase::Dead, &[ReportError, SetState(Closing)]),
        Event::Hotplug(HotplugStatus::Error(_)) => to(here, &[ReportError]),
        // What it had failed with is mended.
        Event::Hotplug(HotplugStatus::Connected) if here == Phase::InitWait => {
            to(here, &[ClearError])
        }
        // Nobody else would answer the toolstack's 5: it need not wait for 10 s.
        Event::ToolstackClosing if here == Phase::InitWait => RETIRE,
        Event::BackendRemoved => REMOVE,
        Event::QueuesUp => to(here, UNASKED),
        _ => to(here, &[]),
    }
}

/// The phases in which a worker has the rings, or will have them soon. Once packets
/// flow the toolstack's 5 is ignored: it is the frontend that reacts to it. One that
/// waits for our 8 has to read that first, and the 5 afterwards.
fn connected(here: Phase, event: &Event, online: bool) -> Edge {
    match (event, here) {
        (Event::QueuesUp, Phase::Connecting) => to(Phase::AwaitHotplug, &[ReadHotplugStatus]),
        // Our 5 may hide an 8 that the frontend has not read.
        (Event::QueuesFailed(_), Phase::Connecting) => to(
            Phase::Failed,
            &[ReportError, SetState(Closing), ReadFrontend],
        ),
        (Event::Hotplug(HotplugStatus::Connected), Phase::AwaitHotplug) => to(
            Phase::Connected,
            &[SetState(Connected), ClearError, ReadFrontend],
        ),
        (Event::Hotplug(HotplugStatus::Error(_)), Phase::AwaitHotplug) => to(here, &[ReportError]),
        (Event::Frontend(Reconfiguring), Phase::Connected) => {
            to(Phase::Reconfigured, &[Reconfigure, SetState(Reconfigured)])
        }
        // A frontend waits for this without end, and the script may never be done. It goes
        // on with an own state that is not Connected.
        (Event::Frontend(Reconfiguring), Phase::Connecting | Phase::AwaitHotplug) => {
            to(here, &[Reconfigure, SetState(Reconfigured)])
        }
        // A guest that goes from 7 over 4 to 7 quickly is seen in 7 only.
        (Event::Frontend(Reconfiguring), Phase::Reconfigured) => to(here, &[Reconfigure]),
        (Event::Frontend(FrontConnected), Phase::Reconfigured) if online => {
            to(Phase::Connected, &[SetState(Connected)])
        }
        (Event::Frontend(FrontConnected), Phase::Reconfigured) => {
            to(Phase::Connected, &[SetState(Closing)])
        }
        (Event::ToolstackClosing, Phase::Reconfigured) => to(here, &[SetState(Reconfigured)]),

        (Event::Frontend(Initialising | Anew | FrontClosing | FrontClosed | Absent), _) => {
            to(Phase::Disconnecting(After::Closing), &[DisconnectQueues])
        }
        (Event::Frontend(Nonsense(_)) | Event::PeerFault(_) | Event::QueuesFailed(_), _) => to(
            Phase::Disconnecting(After::Failed),
            &[ReportError, DisconnectQueues],
        ),
        (Event::NetifFailed(_), _) => to(
            Phase::Disconnecting(After::Dead),
            &[ReportError, DisconnectQueues],
        ),
        // The worker is gone without being asked: there is nothing left to give back.
        (Event::QueuesDown, _) => to(
            Phase::Failed,
            &[ReportError, SetState(Closing), ReadFrontend],
        ),
        // Before Connected was written: writing it later would hide the toolstack's 5
        // from the frontend. One that waits for our 8 gets it in Closing.
        (Event::ToolstackClosing, Phase::Connecting | Phase::AwaitHotplug) => {
            to(Phase::Disconnecting(After::Closing), &[DisconnectQueues])
        }
        (Event::BackendRemoved, _) => to(Phase::Disconnecting(After::Removed), &[DisconnectQueues]),
        _ => to(here, &[]),
    }
}

/// Only the end of the disconnection matters, and what makes the way out shorter;
/// the frontend's state is read again afterwards.
fn disconnecting(after: After, event: &Event) -> Edge {
    match (event, after) {
        (Event::QueuesDown, After::Closing) => {
            to(Phase::Closing, &[SetState(Closing), ReadFrontend])
        }
        (Event::QueuesDown, After::Failed) => to(Phase::Failed, &[SetState(Closing), ReadFrontend]),
        (Event::QueuesDown, After::Dead) => to(Phase::Dead, &[SetState(Closing), ReadFrontend]),
        (Event::QueuesDown, After::Removed) => REMOVE,
        // What has failed is not what the frontend has now, and would not be tried again in Failed.
        (Event::Frontend(Anew), After::Failed) => to(Phase::Disconnecting(After::Closing), &[]),
        (Event::NetifFailed(_), After::Closing | After::Failed) => {
            to(Phase::Disconnecting(After::Dead), &[ReportError])
        }
        (Event::BackendRemoved, _) => to(Phase::Disconnecting(After::Removed), &[]),
        _ => to(Phase::Disconnecting(after), &[]),
    }
}

/// [`Phase::Closing`], [`Phase::Closed`] and [`Phase::Failed`]: a netif, no rings,
/// own state 5 or 6.
fn closed(here: Phase, event: &Event, online: bool) -> Edge {
    match (event, here) {
        (Event::Frontend(Initialising | FrontClosed), _) if !online => RETIRE,
        (Event::Frontend(Initialising), Phase::Closed) => to(
            Phase::InitWait,
            &[ClearError, Advertise, SetState(InitWait)],
        ),
        (Event::Frontend(Initialising), _) => to(
            Phase::InitWait,
            &[SetState(Closed), ClearError, Advertise, SetState(InitWait)],
        ),
        (Event::Frontend(FrontClosed), Phase::Closing | Phase::Failed) => {
            to(Phase::Closed, &[SetState(Closed)])
        }
        (Event::Frontend(FrontClosing), Phase::Closed) => to(Phase::Closing, &[SetState(Closing)]),
        // A frontend that did not wait for our 2. In Failed this would connect again what
        // has just failed, so there it is ignored, unless the rings are others.
        (Event::Frontend(FrontConnected | Anew), Phase::Closed) => to(
            Phase::Connecting,
            &[ClearError, Advertise, SetState(InitWait), ConnectQueues],
        ),
        (Event::Frontend(FrontConnected), Phase::Closing)
        | (Event::Frontend(Anew), Phase::Closing | Phase::Failed)
            if online =>
        {
            to(
                Phase::Connecting,
                &[
                    SetState(Closed),
                    ClearError,
                    Advertise,
                    SetState(InitWait),
                    ConnectQueues,
                ],
            )
        }
        (Event::Frontend(Reconfiguring), Phase::Failed) => answer(Unserved::Failed),
        (Event::Frontend(Reconfiguring), _) => answer(Unserved::Closing),
        (Event::Frontend(Absent), _) => RETIRE,
        // Reported once: in Failed, a guest that goes on writing nonsense is ignored.
        (Event::Frontend(Nonsense(_)), Phase::Closing | Phase::Closed) => {
            to(Phase::Failed, &[ReportError, SetState(Closing)])
        }
        (Event::NetifFailed(_), _) => to(Phase::Dead, &[ReportError, SetState(Closing)]),
        (Event::OnlineChanged(false), Phase::Closed) => RETIRE,
        // In Closing the frontend is about to finish by itself.
        (Event::ToolstackClosing, Phase::Closed | Phase::Failed) => RETIRE,
        (Event::BackendRemoved, _) => REMOVE,
        (Event::QueuesUp, _) => to(here, UNASKED),
        _ => to(here, &[]),
    }
}

/// No netif and none to be had: the frontend may close in order, nothing more.
fn dead(event: &Event, online: bool) -> Edge {
    match event {
        Event::Frontend(FrontClosed) if online => to(Phase::Dead, &[SetState(Closed)]),
        Event::Frontend(FrontClosed | Absent) | Event::ToolstackClosing => RETIRE,
        Event::Frontend(FrontClosing) => to(Phase::Dead, &[SetState(Closing)]),
        Event::Frontend(Reconfiguring) => answer(Unserved::Dead),
        Event::BackendRemoved => REMOVE,
        Event::QueuesUp => to(Phase::Dead, UNASKED),
        _ => to(Phase::Dead, &[]),
    }
}

fn retiring(exit: Exit, event: &Event) -> Edge {
    match (event, exit) {
        (Event::OfflineDone, Exit::Closed) => to(
            Phase::Removed,
            &[ClearHotplugStatus, SetState(Closed), DestroyNetif, Forget],
        ),
        (Event::OfflineDone, Exit::Removed) => to(Phase::Removed, &[DestroyNetif, Forget]),
        (Event::BackendRemoved, _) => to(Phase::Retiring(Exit::Removed), &[]),
        (Event::QueuesUp, _) => to(Phase::Retiring(exit), UNASKED),
        _ => to(Phase::Retiring(exit), &[]),
    }
}

fn removed(event: &Event) -> Edge {
    match event {
        Event::NetifCreated => to(Phase::Removed, &[DestroyNetif]),
        Event::QueuesUp => to(Phase::Removed, UNASKED),
        _ => to(Phase::Removed, &[]),
    }
}
