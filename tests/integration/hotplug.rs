// SPDX-License-Identifier: GPL-3.0-or-later
//! What the toolstack's script says (`hotplug-status`) and does to the tap. Those that the daemon runs: `scripts`.

use netback::demo::guest::netfront::Phase;
use netback_tests::raw::linux;
use netback_tests::world::{host_ip, until};
use netback_tests::{World, host};
use xenbus::Xs;

#[test]
fn connected_is_withheld_until_the_script_says_so() {
    let world = World::new();
    let vif = world.create(1);
    world.wait_init(&vif);
    let guest = world.boot(vif.clone(), 1500, linux());
    world.wait_status(&vif, "await-hotplug");
    let status = world.vif_status(&vif).unwrap();
    assert!(status.reason.unwrap().contains("hotplug"));
    assert_eq!(status.script.as_deref(), Some("/bin/true"));
    assert_eq!(world.backend_state(&vif).as_deref(), Some("2"));

    // Only the exact word counts.
    for other in ["Connected", "connected ", "ok", ""] {
        world.toolstack().set_hotplug_status(&vif, other).unwrap();
        until("the daemon has seen it", || {
            world.vif_status(&vif).unwrap().hotplug_status.as_deref() == Some(other)
        });
        assert_ne!(world.backend_state(&vif).as_deref(), Some("4"), "{other:?}");
    }
    assert_eq!(guest.phase(), Phase::Connecting);
    world.run_script(&vif);
    guest.wait_connected();
    guest.exercise();
    world.finish(guest);
}

#[test]
fn a_script_that_fails_is_reported_and_may_be_run_again() {
    let world = World::new();
    let neighbour = world.guest(2, linux());
    let vif = world.create(1);
    world.wait_init(&vif);
    let node = |key: &str| format!("{}/{key}", vif.backend_dir());
    world
        .toolstack()
        .store()
        .write(
            &node("hotplug-error"),
            "could not find bridge device xenbr7",
        )
        .unwrap();
    world.toolstack().set_hotplug_status(&vif, "error").unwrap();
    let guest = world.boot(vif.clone(), 1500, linux());
    let error = world.wait_error(&vif);
    assert!(error.contains("xenbr7"), "{error:?}");
    assert!(
        world
            .vif_status(&vif)
            .unwrap()
            .reason
            .unwrap()
            .contains("xenbr7")
    );
    assert_eq!(
        world
            .toolstack()
            .read(&node("hotplug-error"))
            .unwrap()
            .as_deref(),
        Some("could not find bridge device xenbr7"),
        "the script's own words stay"
    );
    neighbour.exercise();
    world.run_script(&vif);
    guest.wait_connected();
    world.wait_forgiven(&vif);
    guest.exercise();
}

/// It need not wait for a guest: whoever has mended the bridge sees that it was that.
#[test]
fn a_script_that_works_in_the_end_is_forgiven_before_a_guest_comes() {
    let world = World::new();
    let vif = world.create(1);
    world.wait_init(&vif);
    world.toolstack().set_hotplug_status(&vif, "error").unwrap();
    let _ = world.wait_error(&vif);
    world.run_script(&vif);
    world.wait_forgiven(&vif);
    assert_eq!(world.vif_status(&vif).unwrap().state, "init-wait");
    let guest = world.boot_connected(vif, linux());
    world.finish(guest);
}

/// Scripts that the toolstack runs are not run again by anybody, so the status says what is to be done.
#[test]
fn a_tap_that_is_made_anew_and_that_nobody_plugs_in() {
    let mut world = World::new();
    let guest = world.guest(1, linux());
    world.machine.stop_daemon().unwrap();
    host::ip("link delete vif1.0");
    world.machine.start_daemon().unwrap();
    world.wait_status(&guest.vif, "connected");
    let said = || world.vif_status(&guest.vif).unwrap().carrier_reason;
    let what = said().unwrap();
    assert!(
        what.contains("detach the vif and attach it again, or run its script"),
        "{what}"
    );
    world.run_script(&guest.vif);
    until("nothing is left to say", || said().is_none());
    guest.exercise();
    // What happens to it from then on is another matter.
    host::ip("link set vif1.0 down");
    until("it is down", || said().is_some());
    assert_eq!(said().unwrap(), "the tap is down (ip link set vif1.0 up)");
    world.finish(guest);
}

/// Scripts rename the tap (`vifname=`), and the daemon follows it.
#[test]
fn a_tap_that_is_renamed() {
    let world = World::new();
    let vif = world.create(1);
    world.wait_init(&vif);
    // Of this thread, so in its namespace.
    host::ip("link set vif1.0 name uplink0");
    hotplug::link::add_ipv4("uplink0", host_ip(1), 24).unwrap();
    hotplug::link::set_up("uplink0").unwrap();
    world
        .toolstack()
        .set_hotplug_status(&vif, "connected")
        .unwrap();
    let guest = world.boot_connected(vif, linux());
    guest.exercise();
    assert_eq!(world.vif_status(&guest.vif).unwrap().vif, "uplink0");
    world.finish(guest);
}
