// SPDX-License-Identifier: GPL-3.0-or-later
//! What `netback status` tells, asked over the control socket as the command does.

use netback::control::model::{FeatureStatus, XenstoreStatus};
use netback::control::{client, render};
use netback::demo::guest::checksum::Checksum;
use netback::demo::guest::options::FrontendOptions;
use netback::vif::feature::{Feature, Features};
use netback_tests::World;
use netback_tests::raw::linux;
use netback_tests::world::until;
use xenbus::Xs;

#[test]
fn an_empty_daemon() {
    let world = World::new();
    let status = world.status();
    assert_eq!((status.domid, status.workers), (0, 2));
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(status.xenstore, XenstoreStatus::Connected);
    assert!(status.vifs.is_empty());
}

#[test]
fn a_connected_vif_in_full() {
    let world = World::new();
    let guest = world.guest(1, linux());
    guest.exercise();
    let mut vif = world.vif_status(&guest.vif).unwrap();
    // What the host's kernel says by itself may get lost on a machine that is busy.
    vif.rx.drops.remove("tap-queue-full");
    assert_eq!((vif.domid, vif.handle, vif.vif.as_str()), (1, 0, "vif1.0"));
    assert_eq!(vif.guest.as_deref(), Some("guest-1"));
    assert_eq!(vif.mac.as_deref(), Some("00:16:3e:00:00:01"));
    assert_eq!(vif.state, "connected");
    assert_eq!(vif.reason, None);
    assert_eq!(vif.hotplug_status.as_deref(), Some("connected"));
    assert_eq!(vif.queues, 1);
    assert_eq!(vif.script.as_deref(), Some("/bin/true"));
    assert_eq!(vif.bridge.as_deref(), Some("xenbr0"));
    assert_eq!(vif.mtu, Some(1500));
    for feature in [
        Feature::Sg,
        Feature::GsoTcpv4,
        Feature::CsumV4,
        Feature::CsumV6,
        Feature::SplitEventChannels,
    ] {
        assert!(vif.features.has(feature), "{feature:?}");
    }
    assert!(
        vif.tx.drops.is_empty() && vif.rx.drops.is_empty(),
        "{vif:?}"
    );

    let json = client::status(world.machine.socket()).unwrap();
    assert_eq!(json.json()["vifs"][0]["vif"], "vif1.0");
    assert!(json.json()["vifs"][0]["rx"]["packets"].is_u64());
    let table = render::table(&world.status());
    assert!(
        table.contains("vif1.0") && table.contains("guest-1"),
        "{table}"
    );
}

#[test]
fn features_are_those_agreed_on() {
    let world = World::new();
    let guest = world.guest(1, FrontendOptions::plain());
    let features = world.vif_status(&guest.vif).unwrap().features;
    // It signals what it posts; that is all.
    let expected = FeatureStatus {
        on: Features::of(&[Feature::RxNotify]),
        xdp_headroom: 0,
    };
    assert_eq!(features, expected);
}

/// Every frame that the guest has seen is counted, no more and no less.
#[test]
fn packets_and_bytes_are_counted_exactly() {
    let world = World::new();
    let options = FrontendOptions {
        gso: false,
        ..linux()
    };
    let guest = world.guest(1, options);
    guest.exercise();
    // Without the host's own chatter nothing moves any more once the tap is down.
    hotplug::link::set_down("vif1.0").unwrap();
    let counted = || {
        let vif = world.vif_status(&guest.vif).unwrap();
        (vif.rx.packets, vif.rx.bytes)
    };
    until("the guest has seen all that was counted", || {
        let stats = guest.stats();
        (stats.rx_frames, stats.rx_bytes) == counted()
    });
    until(
        "what the guest has sent is delivered or dropped, and counted",
        || {
            let (before, vif) = (guest.stats(), world.vif_status(&guest.vif).unwrap());
            // One slot per frame here: nothing is larger than a page.
            guest.stats() == before
                && vif.tx.packets + vif.tx.dropped() == before.tx_okay + before.tx_error
        },
    );
}

#[test]
fn what_a_down_tap_refuses_is_counted_as_such() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, linux());
    hotplug::link::set_down("vif1.0").unwrap();
    let before = world.vif_status(&vif).unwrap().tx.packets;
    for _ in 0..7 {
        netfront.send(&[0xff; 60], Checksum::Complete).unwrap();
    }
    netfront.flush();
    until("seven are dropped", || {
        world.tx_dropped(&vif, "tap-down") == 7
    });
    assert_eq!(world.vif_status(&vif).unwrap().tx.packets, before);
    // The guest is not held up by it.
    until("all are answered", || {
        netfront.flush();
        let stats = netfront.stats();
        stats.tx_okay + stats.tx_error + stats.tx_dropped == 7
    });
    // And goes on when the tap comes back.
    hotplug::link::set_up("vif1.0").unwrap();
    netfront.send(&[0xff; 60], Checksum::Complete).unwrap();
    netfront.flush();
    until("it is delivered", || {
        world.vif_status(&vif).unwrap().tx.packets == before + 1
    });
}

#[test]
fn counters_outlive_a_reconnection() {
    let world = World::new();
    let guest = world.guest(1, linux());
    guest.exercise();
    let before = world.vif_status(&guest.vif).unwrap();
    guest.reload();
    let after = world.vif_status(&guest.vif).unwrap();
    assert!(after.rx.packets >= before.rx.packets && after.tx.bytes >= before.tx.bytes);
}

/// `xl migrate` starts a guest under another name than it then has, and `xl rename` gives it one at any time.
#[test]
fn a_guest_that_was_renamed() {
    let world = World::new();
    let vif = world.attach(1);
    let name = "/local/domain/1/name";
    let name_shown = || world.vif_status(&vif).unwrap().guest.unwrap();
    assert_eq!(name_shown(), "guest-1");
    world.toolstack().store().write(name, "web").unwrap();
    let guest = world.boot_connected(vif.clone(), linux());
    assert_eq!(name_shown(), "web");
    // A guest whose name nobody may see any more keeps the one that it had.
    world.toolstack().store().rm(name).unwrap();
    guest.reload();
    assert_eq!(name_shown(), "web");
    guest.exercise();
    world.finish(guest);
}
