// SPDX-License-Identifier: GPL-3.0-or-later
//! Link state and MTU: what an administrator or the toolstack changes reaches the guest.

use std::time::Instant;

use hotplug::link;
use netback::demo::guest::checksum::Checksum;
use netback::demo::guest::netfront::Netfront;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::probe;
use netback::demo::toolstack::VifSpec;
use netback_tests::raw::linux;
use netback_tests::world::{guest_ip, until};
use netback_tests::{World, host};
use xenbus::Xs;

fn carrier(world: &World, vif: &VifSpec) -> Option<String> {
    let node = format!("{}/carrier", vif.backend_dir());
    world.toolstack().read(&node).unwrap()
}

pub(crate) fn wait_carrier(world: &World, vif: &VifSpec, text: &str) {
    until("the carrier node is as it should be", || {
        carrier(world, vif).as_deref() == Some(text)
    });
}

/// Whether the host sees a carrier on the tap.
fn tap_has_carrier(vif: &VifSpec) -> bool {
    host::has_carrier(&vif.tap())
}

/// How often the tap's carrier has come and gone.
pub(crate) fn carrier_changes(vif: &VifSpec) -> u64 {
    let out = host::ip(&format!("-json -stats -stats link show {}", vif.tap()));
    let links: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    links[0]["stats64"]["tx"]["carrier_changes"]
        .as_u64()
        .unwrap()
}

fn toolstack_writes(world: &World, vif: &VifSpec, key: &str, value: &str) {
    let node = format!("{}/{key}", vif.frontend_dir());
    world.toolstack().store().write(&node, value).unwrap();
}

#[test]
fn the_guest_learns_that_the_tap_is_down_and_up() {
    let world = World::new();
    let vif = world.create(1);
    world.wait_init(&vif);
    assert_eq!(
        carrier(&world, &vif).as_deref(),
        Some("0"),
        "no script has run"
    );
    world.run_script(&vif);
    wait_carrier(&world, &vif, "1");
    let guest = world.boot_connected(vif.clone(), linux());
    guest.ping();
    assert_eq!(carrier(&world, &vif).as_deref(), Some("1"));

    link::set_down(&vif.tap()).unwrap();
    wait_carrier(&world, &vif, "0");
    let status = world.vif_status(&vif).unwrap();
    assert_eq!(
        (status.state.as_str(), status.carrier),
        ("connected", Some(false))
    );
    assert!(status.carrier_reason.unwrap().contains("tap is down"));

    link::set_up(&vif.tap()).unwrap();
    wait_carrier(&world, &vif, "1");
    assert_eq!(world.vif_status(&vif).unwrap().carrier_reason, None);
    guest.exercise();
    world.finish(guest);
}

/// A script may rename the tap.
#[test]
fn a_renamed_tap_is_followed() {
    let world = World::new();
    let guest = world.guest(1, linux());
    host::ip("link set vif1.0 down");
    host::ip("link set vif1.0 name web");
    wait_carrier(&world, &guest.vif, "0");
    host::ip("link set web mtu 1600 up");
    wait_carrier(&world, &guest.vif, "1");
    until("the MTU is told", || {
        let node = format!("{}/mtu", guest.vif.frontend_dir());
        world.toolstack().read(&node).unwrap().as_deref() == Some("1600")
    });
    guest.ping();
}

#[test]
fn the_toolstack_pulls_the_cable_out_and_puts_it_in() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, linux());
    wait_carrier(&world, &vif, "1");
    toolstack_writes(&world, &vif, "disconnect", "1");
    wait_carrier(&world, &vif, "0");
    until("the host sees it too", || !tap_has_carrier(&vif));
    let status = world.vif_status(&vif).unwrap();
    assert_eq!(
        (status.state.as_str(), status.carrier),
        ("connected", Some(false))
    );
    assert!(status.carrier_reason.unwrap().contains("disconnect"));

    // What the guest sends all the same goes nowhere, and the guest is not held up.
    for _ in 0..7 {
        netfront.send(&[0xff; 60], Checksum::Complete).unwrap();
    }
    netfront.flush();
    until("seven are dropped", || {
        world.tx_dropped(&vif, "link-down") == 7
    });
    until("all are answered", || {
        netfront.flush();
        netfront.stats().tx_okay == 7
    });

    toolstack_writes(&world, &vif, "disconnect", "0");
    wait_carrier(&world, &vif, "1");
    until("the host sees it too", || tap_has_carrier(&vif));
    netfront.send(&[0xff; 60], Checksum::Complete).unwrap();
    netfront.flush();
    until("it is delivered", || {
        world.vif_status(&vif).unwrap().tx.packets == 1
    });
    world.finish_raw(&vif, netfront);
}

/// The guest writes what is the toolstack's to write, and the daemon takes note.
fn disconnect(world: &World, vif: &VifSpec, netfront: &Netfront, out: bool) {
    let value = if out { "1" } else { "0" };
    netfront.store().set_raw("disconnect", value).unwrap();
    until("the daemon has taken note", || {
        world.vif_status(vif).unwrap().carrier == Some(!out)
    });
}

/// The node is in the guest's own directory. What follows from it on the host is bounded by time, not by the guest.
#[test]
fn a_guest_that_wiggles_the_cable() {
    let world = World::new();
    let (vif, netfront) = world.raw(1, linux());
    until("the link has settled", || tap_has_carrier(&vif));
    let (before, start) = (carrier_changes(&vif), Instant::now());
    for n in 0..50 {
        disconnect(&world, &vif, &netfront, n % 2 == 0);
    }
    // The last word counts.
    wait_carrier(&world, &vif, "1");
    until("the host sees it too", || tap_has_carrier(&vif));
    let changes = carrier_changes(&vif) - before;
    let allowed = 8 + 1 + start.elapsed().as_millis() / 500;
    assert!(u128::from(changes) <= allowed, "{changes} of {allowed}");
    world.finish_raw(&vif, netfront);
}

/// The cable is out for a moment in which nothing is shown, and in which the tap has news of its own: what is shown of
/// that is not half of it.
#[test]
fn a_cable_that_is_put_in_before_it_was_shown_to_be_out() {
    let world = World::new();
    let (vif, netfront) = world.raw(1, linux());
    until("the link has settled", || tap_has_carrier(&vif));
    // More often than is shown at once.
    for bytes in [256, 0].repeat(5) {
        let (key, value) = ("xdp-headroom", bytes.to_string());
        netfront.store().set_raw(key, &value).unwrap();
        until("the daemon has taken note", || {
            world.vif_status(&vif).unwrap().features.xdp_headroom == bytes
        });
    }
    disconnect(&world, &vif, &netfront, true);
    link::set_mtu(&vif.tap(), 1_400).unwrap();
    until("the daemon has looked at the tap", || {
        world.vif_status(&vif).unwrap().mtu == Some(1_400)
    });
    disconnect(&world, &vif, &netfront, false);
    wait_carrier(&world, &vif, "1");
    until("the host sees it too", || tap_has_carrier(&vif));
    world.finish_raw(&vif, netfront);
}

#[test]
fn a_cable_that_is_out_before_the_guest_connects() {
    let world = World::new();
    let vif = world.attach(1);
    toolstack_writes(&world, &vif, "disconnect", "1");
    let netfront = world.connect(&vif, linux());
    wait_carrier(&world, &vif, "0");
    assert!(!tap_has_carrier(&vif));
    toolstack_writes(&world, &vif, "disconnect", "0");
    wait_carrier(&world, &vif, "1");
    until("the host sees it too", || tap_has_carrier(&vif));
    world.finish_raw(&vif, netfront);
}

#[test]
fn the_next_daemon_finds_the_cable_as_it_is() {
    let mut world = World::new();
    let (vif, netfront) = world.raw(1, linux());
    toolstack_writes(&world, &vif, "disconnect", "1");
    wait_carrier(&world, &vif, "0");
    world.machine.stop_daemon().unwrap();
    toolstack_writes(&world, &vif, "disconnect", "0");
    link::set_mtu(&vif.tap(), 1_400).unwrap();
    world.machine.start_daemon().unwrap();
    wait_carrier(&world, &vif, "1");
    until("the host sees it too", || tap_has_carrier(&vif));
    assert_eq!(world.vif_status(&vif).unwrap().mtu, Some(1_400));
    world.finish_raw(&vif, netfront);
}

#[test]
fn a_new_mtu_is_told_and_frames_of_it_pass() {
    let world = World::new();
    let guest = world.guest_with_mtu(1, 9_000, linux());
    guest.udp(8_900);
    let node = format!("{}/mtu", guest.vif.frontend_dir());
    let told = || world.toolstack().read(&node).unwrap();
    for mtu in [1_500, 60_000, 9_000] {
        link::set_mtu(&guest.vif.tap(), mtu).unwrap();
        until("the guest is told", || told() == Some(mtu.to_string()));
        assert_eq!(world.vif_status(&guest.vif).unwrap().mtu, Some(mtu));
        guest.ping();
    }
    guest.udp(8_900);
    guest.assert_well_served();
}

/// The largest frame that there is, 65535 bytes with its Ethernet header, both ways.
#[test]
fn the_largest_mtu_of_all() {
    let world = World::new();
    let guest = world.guest_with_mtu(1, 65_521, linux());
    guest.udp(65_521 - 28 - 14);
    guest.udp(65_507 - 14);
    assert!(guest.stats().rx_slots_max >= 16, "{:?}", guest.stats());
    guest.assert_well_served();
}

/// A guest that takes one page at most has nothing of a large MTU, and what is lost is counted.
#[test]
fn a_guest_without_sg_gets_a_page_at_most() {
    let world = World::new();
    let options = FrontendOptions {
        sg: false,
        gso: false,
        ..linux()
    };
    let guest = world.guest_with_mtu(1, 9_000, options);
    guest.ping();
    guest.udp(4_096 - 14 - 28);
    assert!(probe::udp_echo(guest_ip(1), 4_096 - 14 - 27, 1).is_err());
    assert!(world.rx_dropped(&guest.vif, "too-large") > 0);
    assert_eq!(guest.stats().rx_slots_max, 1);
    guest.ping();
    guest.assert_well_served();
}

/// Scripts that set the tap's MTU take it from the bridge or the vif line; others (vif-route, vif-openvswitch) leave it.
#[test]
fn the_tap_has_the_mtu_of_the_vif_line() {
    let mut world = World::new();
    let vif = world.create_as(1, |vif| vif.extra.push(("mtu".into(), "1400".into())));
    world.wait_init(&vif);
    assert_eq!(link::mtu(&vif.tap()).unwrap(), 1_400);
    link::set_up(&vif.tap()).unwrap();
    let toolstack = world.toolstack();
    toolstack.set_hotplug_status(&vif, "connected").unwrap();
    let netfront = world.connect(&vif, linux());
    let node = format!("{}/mtu", vif.frontend_dir());
    for _ in 0..2 {
        wait_carrier(&world, &vif, "1");
        let told = world.toolstack().read(&node).unwrap();
        assert_eq!(told.as_deref(), Some("1400"));
        world.restart_daemon();
        world.wait_status(&vif, "connected");
    }
    world.finish_raw(&vif, netfront);
}

/// What no tap can have is not a reason to do without the vif.
#[test]
fn an_mtu_that_cannot_be() {
    let world = World::new();
    for (dom, mtu) in (1..).zip(["67", "65522", "-1", "1500 ", "lots"]) {
        let vif = world.create_as(dom, |vif| vif.extra.push(("mtu".into(), mtu.into())));
        world.wait_init(&vif);
        assert_eq!(link::mtu(&vif.tap()).unwrap(), 1_500, "{mtu:?}");
        world.detach(&vif);
    }
    world.finish_empty();
}

/// The node is the toolstack's to make.
#[test]
fn a_guest_that_was_told_of_no_mtu_is_told_of_none() {
    let world = World::new();
    let (vif, netfront) = world.raw(1, linux());
    let node = format!("{}/mtu", vif.frontend_dir());
    world.toolstack().store().rm(&node).unwrap();
    link::set_mtu(&vif.tap(), 1_400).unwrap();
    until("the daemon has seen it", || {
        world.vif_status(&vif).unwrap().mtu == Some(1_400)
    });
    // The link goes the same way as the MTU, after it.
    link::set_down(&vif.tap()).unwrap();
    wait_carrier(&world, &vif, "0");
    assert_eq!(world.toolstack().read(&node).unwrap(), None);
    world.finish_raw(&vif, netfront);
}
