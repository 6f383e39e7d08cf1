// SPDX-License-Identifier: GPL-3.0-or-later
//! The control socket whole: server, client and what is printed.

mod socket;
mod table;

use xenbus::backend::Phase;

use super::model::{
    ControlStatus, DirectionStatus, FeatureStatus, QueueStatus, Status, VifStatus, XenstoreStatus,
};
use crate::daemon::losses::TAP_QUEUE_FULL;
use crate::vif::DropReason;
use crate::vif::feature::{Feature, Features};

/// A daemon with one vif of every kind.
fn sample() -> Status {
    let connected = VifStatus {
        domid: 1,
        vif: "vif1.0".into(),
        guest: Some("web".into()),
        uuid: Some("6a1f3bd2-0c5e-4f0e-9a53-cd7dd6b0a001".into()),
        mac: Some("00:16:3e:00:00:01".into()),
        state: Phase::Connected.name().into(),
        hotplug_status: Some("connected".into()),
        queues: 1,
        features: FeatureStatus {
            on: Features::of(&[
                Feature::Sg,
                Feature::CsumV4,
                Feature::CsumV6,
                Feature::SplitEventChannels,
            ]),
            xdp_headroom: 0,
        },
        script: Some("/etc/xen/scripts/vif-bridge".into()),
        bridge: Some("xenbr0".into()),
        mtu: Some(1500),
        carrier: Some(true),
        multicast_addresses: Some(3),
        tx: DirectionStatus {
            packets: 1_234_567,
            bytes: 4_402_341_478,
            limit_mbit_per_second: Some(1.6776),
            drops: [("tap-full".to_owned(), 12), ("never".to_owned(), 0)].into(),
            ..DirectionStatus::default()
        },
        rx: DirectionStatus {
            packets: 9999,
            bytes: 512,
            drops: [("guest-slow".to_owned(), 3), ("too-long".to_owned(), 1)].into(),
            errors: [("grant-copy".to_owned(), 7)].into(),
            ..DirectionStatus::default()
        },
        ..VifStatus::default()
    };
    let waiting = VifStatus {
        domid: 20,
        handle: 1,
        vif: "uplink".into(),
        state: Phase::AwaitHotplug.name().into(),
        reason: Some("waiting for hotplug-status from /etc/xen/scripts/vif-bridge".into()),
        queues: 1,
        ..VifStatus::default()
    };
    let hostile = VifStatus {
        domid: 3,
        guest: Some("\u{1b}[2Jroot\n\u{202e}evil".into()),
        state: Phase::Failed.name().into(),
        reason: Some("guest fault: \u{1b}]0;x\u{7} at slot 7".into()),
        ..VifStatus::default()
    };
    Status {
        version: "0.1.0".into(),
        domid: 0,
        workers: 2,
        uptime_seconds: 7500,
        xenstore: XenstoreStatus::Connected,
        stopping: false,
        failed_unmaps: 0,
        vifs: vec![connected, waiting, hostile],
    }
}

/// Whoever reads a word in the status finds it in the guide.
#[test]
fn the_guide_explains_every_word() {
    let guide = include_str!("../../../docs/status.md");
    let states = Phase::ALL.iter().map(|phase| phase.name());
    let reasons = DropReason::ALL.iter().map(|reason| reason.name());
    for word in states
        .chain(reasons)
        .chain([TAP_QUEUE_FULL, "stall", "repaired-checksum"])
    {
        assert!(guide.contains(&format!("`{word}`")), "{word}");
    }
}
