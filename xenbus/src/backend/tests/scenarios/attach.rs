// SPDX-License-Identifier: GPL-3.0-or-later
//! How a device comes to be connected, closed by its frontend, and connected again.

use super::super::super::Action::*;
use super::*;

#[test]
fn libxl_the_tap_exists_before_init_wait() {
    story(
        &mut Device::new(),
        &[
            (
                probed(S::Initialising, Some(0), true),
                Phase::Creating(Start::InitWait),
                &[CreateNetif],
            ),
            (
                Event::NetifCreated,
                Phase::InitWait,
                &[RunOnline, Advertise, SetState(S::InitWait), WatchFrontend],
            ),
            (front("1"), Phase::InitWait, &[]),
            (front("3"), Phase::InitWait, &[]),
            (front("4"), Phase::Connecting, &[ConnectQueues]),
            (Event::QueuesUp, Phase::AwaitHotplug, &[ReadHotplugStatus]),
            (
                Event::Hotplug(HotplugStatus::Other),
                Phase::AwaitHotplug,
                &[],
            ),
            (
                HOTPLUGGED,
                Phase::Connected,
                &[SetState(S::Connected), ClearError, ReadFrontend],
            ),
            (front("4"), Phase::Connected, &[]),
        ],
    );
}

#[test]
fn an_older_toolstack_writes_the_handle_after_init_wait() {
    story(
        &mut Device::new(),
        &[
            (
                probed(S::Initialising, None, true),
                Phase::AwaitHandle(Waiting::InitWait),
                &[Advertise, SetState(S::InitWait), WatchFrontend, WatchHandle],
            ),
            // Nothing to connect to yet; it is asked again below.
            (front("4"), Phase::AwaitHandle(Waiting::InitWait), &[]),
            (
                Event::Handle(Ok(0)),
                Phase::Creating(Start::InitWait),
                &[CreateNetif],
            ),
            (
                Event::NetifCreated,
                Phase::InitWait,
                &[RunOnline, Advertise, SetState(S::InitWait), WatchFrontend],
            ),
            (front("4"), Phase::Connecting, &[ConnectQueues]),
        ],
    );
}

#[test]
fn windows_runs_a_close_cycle_before_it_connects() {
    let mut device = Device::new();
    device.handle(probed(S::Initialising, Some(0), true));
    device.handle(Event::NetifCreated);
    story(
        &mut device,
        &[
            (front("5"), Phase::Closing, &[SetState(S::Closing)]),
            (front("6"), Phase::Closed, &[SetState(S::Closed)]),
            (
                front("1"),
                Phase::InitWait,
                &[ClearError, Advertise, SetState(S::InitWait)],
            ),
            (front("4"), Phase::Connecting, &[ConnectQueues]),
        ],
    );
}

#[test]
fn a_close_cycle_without_a_netif_is_answered_too() {
    let mut device = Device::new();
    device.handle(probed(S::Initialising, None, true));
    story(
        &mut device,
        &[
            (
                front("5"),
                Phase::AwaitHandle(Waiting::Closing),
                &[SetState(S::Closing)],
            ),
            (
                front("6"),
                Phase::AwaitHandle(Waiting::Closed),
                &[SetState(S::Closed)],
            ),
            (
                front("1"),
                Phase::AwaitHandle(Waiting::InitWait),
                &[ClearError, Advertise, SetState(S::InitWait)],
            ),
        ],
    );
}

#[test]
fn kexec_the_new_kernel_closes_what_the_old_one_left() {
    let mut device = connected();
    story(
        &mut device,
        &[
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
            (front("5"), Phase::Closing, &[]),
            (front("6"), Phase::Closed, &[SetState(S::Closed)]),
            (
                front("1"),
                Phase::InitWait,
                &[ClearError, Advertise, SetState(S::InitWait)],
            ),
            (front("4"), Phase::Connecting, &[ConnectQueues]),
            (Event::QueuesUp, Phase::AwaitHotplug, &[ReadHotplugStatus]),
            // No second script run: the node still says so.
            (
                HOTPLUGGED,
                Phase::Connected,
                &[SetState(S::Connected), ClearError, ReadFrontend],
            ),
        ],
    );
}

#[test]
fn a_frontend_that_falls_back_to_initialising_sees_5_6_2() {
    story(
        &mut connected(),
        &[
            (
                front("1"),
                Phase::Disconnecting(After::Closing),
                &[DisconnectQueues],
            ),
            (
                Event::QueuesDown,
                Phase::Closing,
                &[SetState(S::Closing), ReadFrontend],
            ),
            (
                front("1"),
                Phase::InitWait,
                &[
                    SetState(S::Closed),
                    ClearError,
                    Advertise,
                    SetState(S::InitWait),
                ],
            ),
        ],
    );
}

#[test]
fn reconfiguring_is_answered() {
    story(
        &mut connected(),
        &[
            (
                front("7"),
                Phase::Reconfigured,
                &[Reconfigure, SetState(S::Reconfigured)],
            ),
            (front("7"), Phase::Reconfigured, &[Reconfigure]),
            (front("4"), Phase::Connected, &[SetState(S::Connected)]),
        ],
    );
}

#[test]
fn a_frontend_that_closes_while_its_rings_are_mapped_is_waited_for() {
    let mut device = Device::new();
    for event in [
        probed(S::Initialising, Some(0), true),
        Event::NetifCreated,
        front("4"),
    ] {
        device.handle(event);
    }
    story(
        &mut device,
        &[
            (
                front("5"),
                Phase::Disconnecting(After::Closing),
                &[DisconnectQueues],
            ),
            // The worker was not asked to stop in time; its answer to that still comes.
            (Event::QueuesUp, Phase::Disconnecting(After::Closing), &[]),
            (
                Event::QueuesDown,
                Phase::Closing,
                &[SetState(S::Closing), ReadFrontend],
            ),
        ],
    );
}

#[test]
fn every_unconnected_phase_has_a_reason() {
    let mut device = connected();
    assert_eq!(device.phase().reason(), None);
    device.handle(front("5"));
    assert!(device.phase().reason().is_some());
    assert!(device.online());
}

#[test]
fn a_frontend_that_takes_over_unseen_sees_5_6_2() {
    story(
        &mut connected(),
        &[
            (
                ANEW,
                Phase::Disconnecting(After::Closing),
                &[DisconnectQueues],
            ),
            (
                Event::QueuesDown,
                Phase::Closing,
                &[SetState(S::Closing), ReadFrontend],
            ),
            (front("4"), Phase::Connecting, CONNECT_ANEW),
        ],
    );
}

/// Linux's netfront waits for its 8 whatever state its backend is in, and says 4 afterwards.
#[test]
fn a_frontend_that_is_not_served_is_answered_too() {
    let answered: &[Action] = &[SetState(S::Reconfigured)];
    let read: &[Action] = &[SetState(S::Closing), ReadFrontend];
    // It had closed, and is connected again.
    let closing = Phase::Answered(Unserved::Closing);
    let mut device = connected();
    for event in [front("6"), Event::QueuesDown, front("6")] {
        device.handle(event);
    }
    assert_eq!(device.phase(), Phase::Closed);
    story(
        &mut device,
        &[
            (front("7"), closing, answered),
            (front("7"), closing, &[]),
            (front("4"), Phase::Closing, read),
            (front("4"), Phase::Connecting, CONNECT_ANEW),
        ],
    );
    // Its rings had failed: they are not tried again, but others are.
    let failed = Phase::Answered(Unserved::Failed);
    let mut device = connected();
    for event in [Event::PeerFault("lies".into()), Event::QueuesDown] {
        device.handle(event);
    }
    story(
        &mut device,
        &[
            (front("7"), failed, answered),
            (front("4"), Phase::Failed, read),
            (front("4"), Phase::Failed, &[]),
            (front("7"), failed, answered),
        ],
    );
    assert_eq!(device.error(), Some("lies"));
    let mut other = device.clone();
    story(
        &mut other,
        &[
            (ANEW, Phase::Closing, read),
            (front("4"), Phase::Connecting, CONNECT_ANEW),
        ],
    );
    // The tap goes, and the toolstack asks for removal: it still reads its 8 before anything else.
    let dead = Phase::Answered(Unserved::Dead);
    story(
        &mut device,
        &[
            (Event::NetifFailed("tap lost".into()), dead, &[ReportError]),
            (Event::OnlineChanged(false), dead, &[]),
            (Event::ToolstackClosing, dead, answered),
            (front("4"), Phase::Dead, read),
            (front("4"), Phase::Dead, &[]),
            (front("6"), Phase::Retiring(Exit::Closed), &[RunOffline]),
        ],
    );
}
