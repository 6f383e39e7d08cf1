// SPDX-License-Identifier: GPL-3.0-or-later
//! Whoever lies or fails: guests, scripts, taps and toolstacks.

use super::super::super::Action::*;
use super::*;

#[test]
fn a_malformed_handle_is_fatal() {
    let mut device = Device::new();
    let fatal = |look| [ReportError, SetState(S::Closing), look];
    story(
        &mut device,
        &[(
            Event::Probed(Err("handle is \"x\"".into())),
            Phase::Dead,
            &fatal(WatchFrontend),
        )],
    );
    assert_eq!(device.error(), Some("handle is \"x\""));
    let mut device = Device::new();
    device.handle(probed(S::Initialising, None, true));
    story(
        &mut device,
        &[(
            Event::Handle(Err("handle is \"y\"".into())),
            Phase::Dead,
            &fatal(ReadFrontend),
        )],
    );
    // The toolstack gives up after its 10 s; it need not wait for 6 as long again.
    story(
        &mut device,
        &[
            (Event::OnlineChanged(false), Phase::Dead, &[]),
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
fn a_lying_guest_fails_alone_and_recovers_by_starting_anew() {
    let mut device = connected();
    let error = || Event::PeerFault("request producer ran ahead".into());
    story(
        &mut device,
        &[
            (
                error(),
                Phase::Disconnecting(After::Failed),
                &[ReportError, DisconnectQueues],
            ),
            // Told once, however often the worker repeats it.
            (error(), Phase::Disconnecting(After::Failed), &[]),
            (
                Event::QueuesDown,
                Phase::Failed,
                &[SetState(S::Closing), ReadFrontend],
            ),
            // The same rings are not tried again, nonsense is not reported again.
            (front("4"), Phase::Failed, &[]),
            (front("17"), Phase::Failed, &[]),
        ],
    );
    assert_eq!(device.error(), Some("request producer ran ahead"));
    story(
        &mut device,
        &[(
            front("1"),
            Phase::InitWait,
            &[
                SetState(S::Closed),
                ClearError,
                Advertise,
                SetState(S::InitWait),
            ],
        )],
    );
    assert_eq!(device.error(), None);
}

#[test]
fn another_driver_takes_over_from_a_lying_one() {
    let fault = || {
        (
            Event::PeerFault("request producer ran ahead".into()),
            Phase::Disconnecting(After::Failed),
            &[ReportError, DisconnectQueues] as &[Action],
        )
    };
    // When the rings have been given back.
    let mut device = connected();
    story(
        &mut device,
        &[
            fault(),
            (
                Event::QueuesDown,
                Phase::Failed,
                &[SetState(S::Closing), ReadFrontend],
            ),
            (front("4"), Phase::Failed, &[]),
            (ANEW, Phase::Connecting, CONNECT_ANEW),
        ],
    );
    assert_eq!(device.error(), None);
    // And before: what has failed is not what is read then.
    let mut device = connected();
    story(
        &mut device,
        &[
            fault(),
            (ANEW, Phase::Disconnecting(After::Closing), &[]),
            (
                Event::QueuesDown,
                Phase::Closing,
                &[SetState(S::Closing), ReadFrontend],
            ),
            (front("4"), Phase::Connecting, CONNECT_ANEW),
        ],
    );
    assert_eq!(device.error(), None);
    // Not when the device is wanted no more.
    story(
        &mut connected(),
        &[
            (Event::OnlineChanged(false), Phase::Connected, &[]),
            fault(),
            (
                Event::QueuesDown,
                Phase::Failed,
                &[SetState(S::Closing), ReadFrontend],
            ),
            (ANEW, Phase::Failed, &[]),
        ],
    );
}

#[test]
fn nonsense_from_a_frontend_is_fatal() {
    for text in ["2", "8", "9", "", "connected", "\u{1b}[2J"] {
        let mut device = connected();
        story(
            &mut device,
            &[(
                front(text),
                Phase::Disconnecting(After::Failed),
                &[ReportError, DisconnectQueues],
            )],
        );
        let error = device.error().unwrap();
        assert!(error.contains("state"), "{error}");
        assert!(!error.contains('\u{1b}'), "escaped: {error:?}");
    }
}

#[test]
fn a_failing_script_is_reported_and_connected_withheld() {
    let mut device = Device::new();
    for event in [
        probed(S::Initialising, Some(0), true),
        Event::NetifCreated,
        front("4"),
        Event::QueuesUp,
    ] {
        device.handle(event);
    }
    let failed = Event::Hotplug(HotplugStatus::Error("\"no such bridge\"".into()));
    story(
        &mut device,
        &[(failed, Phase::AwaitHotplug, &[ReportError])],
    );
    assert_eq!(
        device.error(),
        Some("the hotplug script failed: \"no such bridge\"")
    );
    story(
        &mut device,
        &[(
            HOTPLUGGED,
            Phase::Connected,
            &[SetState(S::Connected), ClearError, ReadFrontend],
        )],
    );
    assert_eq!(device.error(), None);
}

#[test]
fn a_failed_tap_is_final_but_the_handshake_is_kept() {
    let mut device = Device::new();
    device.handle(probed(S::Initialising, Some(0), true));
    story(
        &mut device,
        &[
            (
                Event::NetifFailed("no /dev/net/tun".into()),
                Phase::Dead,
                &[ReportError, SetState(S::Closing), WatchFrontend],
            ),
            (front("5"), Phase::Dead, &[SetState(S::Closing)]),
            (front("6"), Phase::Dead, &[SetState(S::Closed)]),
            (front("1"), Phase::Dead, &[]),
            (
                Event::BackendRemoved,
                Phase::Retiring(Exit::Removed),
                &[RunOffline],
            ),
        ],
    );
    let mut device = connected();
    story(
        &mut device,
        &[
            (
                Event::NetifFailed("tap lost".into()),
                Phase::Disconnecting(After::Dead),
                &[ReportError, DisconnectQueues],
            ),
            (
                Event::QueuesDown,
                Phase::Dead,
                &[SetState(S::Closing), ReadFrontend],
            ),
        ],
    );
}
