// SPDX-License-Identifier: GPL-3.0-or-later
//! Drivers that go and come back, each in its own system's way, and domains that go for good.

use std::io::Write;

use netback::demo::guest::options::FrontendOptions;
use netback::demo::guest::services::SINK_PORT;
use netback::vif::feature::Feature;
use netback_tests::raw::linux;
use netback_tests::world::{PATIENCE, until};
use netback_tests::{TestGuest, World};
use xenbus::{XenbusState, Xs};

#[test]
fn linux_unloads_and_loads_its_driver() {
    let world = World::new();
    let guest = world.guest(1, linux());
    for _ in 0..4 {
        guest.exercise();
        guest.with(|netfront| netfront.close(PATIENCE)).unwrap();
        assert_eq!(world.backend_state(&guest.vif).as_deref(), Some("6"));
        assert_eq!(world.machine.hypervisor().census().mapped, 0);
        assert_eq!(world.machine.hypervisor().census().bound_ports, 0);
        assert!(
            world.interfaces().contains("vif1.0"),
            "the tap stays in its bridge"
        );
        // The script is not run again: hotplug-status still says connected.
        guest.with(|netfront| netfront.open(PATIENCE)).unwrap();
    }
    guest.exercise();
    world.finish_well(guest);
}

#[test]
fn a_driver_comes_back_with_other_choices() {
    let world = World::new();
    let guest = world.guest(1, linux());
    for options in [
        FrontendOptions::plain(),
        linux(),
        FrontendOptions {
            sg: false,
            ..linux()
        },
    ] {
        let expected = options.clone();
        guest.reload_with(|now| *now = options);
        let features = world.vif_status(&guest.vif).unwrap().features;
        assert_eq!(features.has(Feature::Sg), expected.sg);
        assert_eq!(features.has(Feature::GsoTcpv4), expected.gso && expected.sg);
        assert_eq!(features.has(Feature::CsumV4), expected.csum_offload);
        assert_eq!(
            features.has(Feature::SplitEventChannels),
            expected.split_event_channels
        );
        guest.exercise();
    }
    guest.assert_well_served();
}

#[test]
fn windows_closes_before_it_connects() {
    let world = World::new();
    let vif = world.attach(1);
    let guest = world.boot_after(vif, 1500, linux(), |netfront| {
        for _ in 0..3 {
            netfront.close_early(PATIENCE)?;
        }
        Ok(())
    });
    guest.wait_connected();
    guest.exercise();
}

#[test]
fn windows_closes_before_the_script_has_run() {
    let world = World::new();
    let vif = world.create(1);
    let guest = world.boot_after(vif, 1500, linux(), |netfront| {
        netfront.close_early(PATIENCE)
    });
    world.wait_tap(&guest.vif);
    world.run_script(&guest.vif);
    guest.wait_connected();
    guest.exercise();
}

#[test]
fn a_new_kernel_takes_over() {
    let world = World::new();
    let guest = world.guest(1, linux());
    for _ in 0..3 {
        guest.exercise();
        guest.with(|netfront| netfront.kexec(PATIENCE)).unwrap();
    }
    guest.exercise();
    world.finish_well(guest);
}

/// A crashed guest's new kernel that does not walk its old device down: the backend does it.
#[test]
fn a_frontend_falls_back_to_the_beginning() {
    let world = World::new();
    let guest = world.guest(1, linux());
    guest.exercise();
    guest.with(|netfront| netfront.open(PATIENCE)).unwrap();
    guest.exercise();
    guest.assert_well_served();
}

#[test]
fn detach_while_the_driver_has_closed() {
    let world = World::new();
    let guest = world.guest(1, linux());
    guest.with(|netfront| netfront.close(PATIENCE)).unwrap();
    world.finish(guest);
}

/// `xl devd` and xapi look at the directory after the device has closed: what the script has said is not true any more
/// (as with the kernel's backend), and the toolstack is told last.
#[test]
fn a_detached_device_is_not_plugged_in_any_more() {
    let world = World::new();
    let guest = world.guest(1, linux());
    let vif = guest.vif.clone();
    let status = || {
        let node = format!("{}/hotplug-status", vif.backend_dir());
        world.toolstack().read(&node).unwrap()
    };
    // A driver that only goes leaves it: the script is not run again.
    guest.with(|netfront| netfront.close(PATIENCE)).unwrap();
    assert_eq!(status().as_deref(), Some("connected"));
    let toolstack = world.toolstack();
    guest.with(|netfront| netfront.open(PATIENCE)).unwrap();
    toolstack.begin_detach(&vif).unwrap();
    guest.wait_closed();
    toolstack
        .wait_state(&vif, XenbusState::Closed, PATIENCE)
        .unwrap();
    assert_eq!(status(), None);
    toolstack.remove_vif(&vif).unwrap();
    guest.stop().unwrap();
    world.finish_empty();
}

#[test]
fn detach_before_any_driver() {
    let world = World::new();
    let vif = world.attach(1);
    world.detach(&vif);
    world.finish_empty();
}

/// `xl destroy` in the middle of a transfer: the domain is gone from one moment to the next.
#[test]
fn destroyed_under_traffic() {
    let world = World::new();
    for _ in 0..3 {
        let guest = world.guest(1, linux());
        guest.ping();
        let stream =
            netback::demo::probe::connect(netback_tests::world::guest_ip(1), SINK_PORT).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let traffic = std::thread::spawn(move || {
            let chunk = [0; 16_384];
            while writer.write_all(&chunk).is_ok() {}
        });
        let before = world.vif_status(&guest.vif).unwrap().rx.packets;
        until("traffic flows", || {
            world.vif_status(&guest.vif).unwrap().rx.packets > before + 100
        });
        guest.with(|netfront| netfront.vanish());
        let vif = guest.vif.clone();
        guest.stop().unwrap();

        let toolstack = world.toolstack();
        toolstack.begin_detach(&vif).unwrap();
        toolstack.store().rm(&vif.frontend_dir()).unwrap();
        toolstack
            .wait_state(&vif, XenbusState::Closed, PATIENCE)
            .unwrap();
        toolstack.remove_vif(&vif).unwrap();
        world.machine.destroy_domain(1).unwrap();
        until("the tap is gone", || world.interfaces().is_empty());
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        traffic.join().unwrap();
    }
    world.finish_empty();
}

/// A toolstack that has lost its patience removes the directories without asking.
#[test]
fn directories_removed_under_a_connected_guest() {
    let world = World::new();
    let guest = world.guest(1, linux());
    guest.ping();
    world.toolstack().remove_vif(&guest.vif).unwrap();
    until("the tap is gone", || world.interfaces().is_empty());
    assert_eq!(
        world.backend_state(&guest.vif),
        None,
        "the state must not be written again"
    );
    assert_eq!(world.error(&guest.vif), None);
    guest.stop().unwrap();
    world.finish_empty();
}

/// The same, and a new device at the same path before the backend can have noticed.
#[test]
fn replaced_in_one_moment() {
    let world = World::new();
    let guest = world.guest(1, linux());
    guest.ping();
    let vif = guest.vif.clone();
    // create_vif removes what is there and makes it anew, in one transaction.
    world.toolstack().create_vif(&vif).unwrap();
    guest.with(|netfront| netfront.vanish());
    guest.stop().unwrap();
    world.plug(&vif);
    let guest = world.boot_connected(vif, linux());
    guest.exercise();
    world.finish(guest);
}

/// A guest changes its mind faster than anyone can follow, and ends in state `last`.
pub(crate) fn flap(guest: &TestGuest, last: XenbusState) {
    guest.with(move |netfront| {
        for _ in 0..60 {
            for state in [
                XenbusState::Closing,
                XenbusState::Connected,
                XenbusState::Closed,
                XenbusState::Initialising,
                last,
            ] {
                netfront.store().set_state(state).unwrap();
            }
        }
    });
}

/// Its last word is what counts.
#[test]
fn flapping() {
    let world = World::new();
    let other = world.guest(2, linux());
    let guest = world.guest(1, linux());
    flap(&guest, XenbusState::Initialised);
    other.ping();
    guest.reload();
    guest.exercise();
    other.exercise();
    world.remove(guest);
    world.finish(other);
}
