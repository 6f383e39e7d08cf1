// SPDX-License-Identifier: GPL-3.0-or-later
//! Detaching, destroying, and what a dead backend leaves to the next one.

use super::super::super::Action::*;
use super::*;

#[test]
fn detach_while_connected_leaves_with_the_frontend() {
    story(
        &mut connected(),
        &[
            (Event::OnlineChanged(false), Phase::Connected, &[]),
            (Event::ToolstackClosing, Phase::Connected, &[]),
            (
                front("5"),
                Phase::Disconnecting(After::Closing),
                &[DisconnectQueues],
            ),
            (
                Event::QueuesDown,
                Phase::Closing,
                &[SetState(S::Closing), ReadFrontend],
            ),
            (front("6"), Phase::Retiring(Exit::Closed), &[RunOffline]),
            (
                Event::OfflineDone,
                Phase::Removed,
                &[
                    ClearHotplugStatus,
                    SetState(S::Closed),
                    DestroyNetif,
                    Forget,
                ],
            ),
        ],
    );
}

#[test]
fn detach_while_no_frontend_is_connected_is_answered_at_once() {
    let mut device = Device::new();
    device.handle(probed(S::Initialising, Some(0), true));
    device.handle(Event::NetifCreated);
    story(
        &mut device,
        &[
            (Event::OnlineChanged(false), Phase::InitWait, &[]),
            (
                Event::ToolstackClosing,
                Phase::Retiring(Exit::Closed),
                &[RunOffline],
            ),
            (
                Event::OfflineDone,
                Phase::Removed,
                &[
                    ClearHotplugStatus,
                    SetState(S::Closed),
                    DestroyNetif,
                    Forget,
                ],
            ),
        ],
    );
}

#[test]
fn detach_while_connected_is_withheld_gives_up_first() {
    let mut device = Device::new();
    for event in [
        probed(S::Initialising, Some(0), true),
        Event::NetifCreated,
        front("4"),
        Event::QueuesUp,
    ] {
        device.handle(event);
    }
    story(
        &mut device,
        &[
            (Event::OnlineChanged(false), Phase::AwaitHotplug, &[]),
            (
                Event::ToolstackClosing,
                Phase::Disconnecting(After::Closing),
                &[DisconnectQueues],
            ),
            // The script was faster than the worker: no 4 over the toolstack's 5.
            (HOTPLUGGED, Phase::Disconnecting(After::Closing), &[]),
            (
                Event::QueuesDown,
                Phase::Closing,
                &[SetState(S::Closing), ReadFrontend],
            ),
            // It waits for an 8, and reads the 5 afterwards.
            (
                front("7"),
                Phase::Answered(Unserved::Closing),
                &[SetState(S::Reconfigured)],
            ),
            (
                front("4"),
                Phase::Closing,
                &[SetState(S::Closing), ReadFrontend],
            ),
            (front("4"), Phase::Closing, &[]),
            (front("6"), Phase::Retiring(Exit::Closed), &[RunOffline]),
        ],
    );
}

#[test]
fn destroy_removes_the_frontend_directory_under_us() {
    story(
        &mut connected(),
        &[
            (
                front("0"),
                Phase::Disconnecting(After::Closing),
                &[DisconnectQueues],
            ),
            (
                Event::QueuesDown,
                Phase::Closing,
                &[SetState(S::Closing), ReadFrontend],
            ),
            (
                Event::Frontend(FrontendState::Absent),
                Phase::Retiring(Exit::Closed),
                &[RunOffline],
            ),
            // The toolstack is faster than the script: nothing is written any more.
            (Event::BackendRemoved, Phase::Retiring(Exit::Removed), &[]),
            (Event::OfflineDone, Phase::Removed, &[DestroyNetif, Forget]),
        ],
    );
    story(
        &mut connected(),
        &[
            (
                Event::BackendRemoved,
                Phase::Disconnecting(After::Removed),
                &[DisconnectQueues],
            ),
            (
                Event::QueuesDown,
                Phase::Retiring(Exit::Removed),
                &[RunOffline],
            ),
            (Event::OfflineDone, Phase::Removed, &[DestroyNetif, Forget]),
        ],
    );
}

#[test]
fn a_connected_device_of_a_dead_backend_is_taken_over_without_a_state_write() {
    story(
        &mut Device::new(),
        &[
            (
                probed(S::Connected, Some(0), true),
                Phase::Creating(Start::Adopted),
                &[CreateNetif],
            ),
            (
                Event::NetifCreated,
                Phase::Adopted,
                &[RunOnline, WatchFrontend],
            ),
            (front("4"), Phase::Connecting, &[ConnectQueues]),
            (Event::QueuesUp, Phase::AwaitHotplug, &[ReadHotplugStatus]),
            (
                HOTPLUGGED,
                Phase::Connected,
                &[SetState(S::Connected), ClearError, ReadFrontend],
            ),
        ],
    );
}

#[test]
fn what_a_dead_backend_left_goes_on_with_the_frontends_state() {
    let adopted = |own| {
        let mut device = Device::new();
        device.handle(probed(own, Some(0), true));
        device.handle(Event::NetifCreated);
        device
    };
    let walk: &[Action] = &[
        SetState(S::Closing),
        SetState(S::Closed),
        ClearError,
        Advertise,
        SetState(S::InitWait),
    ];
    story(
        &mut adopted(S::Connected),
        &[(front("1"), Phase::InitWait, walk)],
    );
    story(
        &mut adopted(S::Connected),
        &[(front("5"), Phase::Closing, &[SetState(S::Closing)])],
    );
    story(
        &mut adopted(S::Closing),
        &[(front("6"), Phase::Closed, &[SetState(S::Closed)])],
    );
    story(
        &mut adopted(S::Closed),
        &[(
            front("1"),
            Phase::InitWait,
            &[ClearError, Advertise, SetState(S::InitWait)],
        )],
    );
    story(
        &mut adopted(S::InitWait),
        &[(front("4"), Phase::Connecting, &[ConnectQueues])],
    );
    // The toolstack asked for removal while nobody was there to answer.
    let mut device = Device::new();
    device.handle(probed(S::Closing, Some(0), false));
    device.handle(Event::NetifCreated);
    story(
        &mut device,
        &[(front("1"), Phase::Retiring(Exit::Closed), &[RunOffline])],
    );
    // What is over stays over.
    story(
        &mut Device::new(),
        &[(probed(S::Closed, Some(0), false), Phase::Removed, &[Forget])],
    );
}
