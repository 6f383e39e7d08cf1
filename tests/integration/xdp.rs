// SPDX-License-Identifier: GPL-3.0-or-later
//! XDP headroom: room before the data of every buffer, from the moment that the guest asks for it. The model guest
//! checks the place of every slot of every frame.

use netback::demo::guest::control::ADD_GREF_MAPPING;
use netback::demo::guest::netfront::Phase;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::probe;
use netback_tests::raw::{linux, reload};
use netback_tests::world::{PATIENCE, guest_ip, until};
use netback_tests::{TestGuest, World};

use crate::control::{change_pages, hash_from_now_on, with_ring};
use crate::hood::{Neighbourhood, neighbourhood};

fn with_headroom(bytes: &str) -> FrontendOptions {
    FrontendOptions {
        overrides: vec![("xdp-headroom".to_owned(), Some(bytes.to_owned()))],
        ..linux()
    }
}

fn reconfigure(world: &World, guest: &TestGuest, bytes: u16) {
    guest
        .with(move |netfront| netfront.set_headroom(bytes, PATIENCE))
        .unwrap();
    world.wait_backend_connected(&guest.vif);
    until("the headroom is as asked for", || {
        headroom(world, guest) == bytes
    });
}

fn headroom(world: &World, guest: &TestGuest) -> u16 {
    world.vif_status(&guest.vif).unwrap().features.xdp_headroom
}

#[test]
fn a_program_is_put_on_and_taken_off() {
    let world = World::new();
    let guest = world.guest(1, linux());
    guest.exercise();
    assert_eq!(guest.stats().rx_xdp, 0);

    reconfigure(&world, &guest, 256);
    // What was under way when it was put on may still come without.
    guest.reach();
    let before = guest.stats();
    guest.exercise();
    let under = guest.stats();
    assert_eq!(
        under.rx_frames - before.rx_frames,
        under.rx_xdp - before.rx_xdp
    );
    assert_eq!(
        under.rx_gso, before.rx_gso,
        "a program sees no frame of several buffers"
    );

    reconfigure(&world, &guest, 0);
    guest.reach();
    let before = guest.stats();
    guest.exercise();
    let after = guest.stats();
    assert_eq!(after.rx_xdp, before.rx_xdp);
    assert!(
        after.rx_gso > before.rx_gso,
        "segmentation is left to the guest again"
    );
    world.finish_well(guest);
}

#[test]
fn a_frontend_that_connects_with_a_program() {
    let world = World::new();
    let guest = world.guest(1, with_headroom("256"));
    assert_eq!(headroom(&world, &guest), 256);
    guest.exercise();
    let stats = guest.stats();
    assert_eq!((stats.rx_xdp, stats.rx_slots_max), (stats.rx_frames, 1));
    world.finish_well(guest);
}

/// Two extra infos of one frame, in order, and pages that stay mapped: none of it is in another's way.
#[test]
fn beside_a_hash_and_static_grants() {
    let world = World::new();
    let options = FrontendOptions {
        overrides: with_headroom("256").overrides,
        ..with_ring()
    };
    let guest = world.guest(1, options);
    guest.reach();
    hash_from_now_on(&guest);
    guest.exercise();
    let stats = guest.stats();
    assert!(stats.rx_hashed > 0);
    assert_eq!(stats.rx_xdp, stats.rx_frames);

    guest.with(|netfront| change_pages(netfront, ADD_GREF_MAPPING, 0));
    let before = world.machine.hypervisor().copies();
    guest.exercise();
    assert_eq!(world.machine.hypervisor().copies(), before);
    let stats = guest.stats();
    assert_eq!(stats.rx_xdp, stats.rx_frames);
    world.finish_well(guest);
}

/// Linux's netfront allows no such MTU with a program. Whoever does gets room in every buffer.
#[test]
fn frames_of_several_buffers_have_room_in_each() {
    let world = World::new();
    for (dom, bytes, slots) in [(1, "256", 3), (2, "2578", 6)] {
        let guest = world.guest_with_mtu(dom, 9_000, with_headroom(bytes));
        guest.ping();
        guest.udp(8_900);
        let stats = guest.stats();
        assert_eq!((stats.rx_xdp, stats.rx_slots_max), (stats.rx_frames, slots));
        guest.assert_well_served();
    }
}

/// More buffers for one frame no frontend has to accept (netif.h), and room in each makes for more of them.
#[test]
fn a_frame_takes_eighteen_buffers_at_most() {
    let world = World::new();
    let guest = world.guest_with_mtu(1, 65_521, with_headroom("2578"));
    let most = 18 * (4_096 - 2_578) - 14 - 28;
    guest.udp(most);
    assert_eq!(guest.stats().rx_slots_max, 18);
    assert!(probe::udp_echo(guest_ip(1), most + 1, 1).is_err());
    assert!(world.rx_dropped(&guest.vif, "too-large") > 0);
    guest.udp(most);
    guest.assert_well_served();
}

#[test]
fn a_guest_without_sg_and_few_buffers() {
    let world = World::new();
    let options = FrontendOptions {
        rx_buffers: 4,
        ..FrontendOptions::plain()
    };
    let options = FrontendOptions {
        overrides: with_headroom("256").overrides,
        ..options
    };
    let guest = world.guest(1, options);
    guest.exercise();
    let stats = guest.stats();
    assert_eq!(stats.rx_xdp, stats.rx_frames);
    world.finish_well(guest);
}

#[test]
fn several_queues_and_a_restart() {
    let mut world = World::smp();
    let options = FrontendOptions {
        queues: 2,
        ..with_headroom("256")
    };
    let guest = world.guest(1, options);
    guest.exercise();
    world.restart_daemon();
    guest.exercise();
    assert_eq!(headroom(&world, &guest), 256);
    let stats = guest.stats();
    assert_eq!(stats.rx_xdp, stats.rx_frames);
    world.finish_well(guest);
}

/// Linux waits for the answer without end, and with its network locked: it must not have to wait for a script.
#[test]
fn a_program_is_put_on_before_the_script_has_run() {
    let world = World::new();
    let vif = world.create(1);
    world.wait_init(&vif);
    let mut netfront = world.frontend(&vif, linux());
    netfront.publish().unwrap();
    world.wait_status(&vif, "await-hotplug");
    for bytes in [256, 0, 256] {
        netfront.set_headroom(bytes, PATIENCE).unwrap();
        until("the headroom is as asked for", || {
            world.vif_status(&vif).unwrap().features.xdp_headroom == bytes
        });
    }
    assert_eq!(world.vif_status(&vif).unwrap().state, "await-hotplug");
    world.run_script(&vif);
    until("the guest is connected", || {
        netfront.follow().unwrap() == Phase::Connected
    });
    world.wait_backend_connected(&vif);
    world.finish_raw(&vif, netfront);
}

/// A guest between Reconfiguring and Connected when the daemon dies: the next one answers.
#[test]
fn a_daemon_that_dies_in_the_midst_of_it() {
    let mut world = World::new();
    let guest = world.guest(1, linux());
    guest.exercise();
    world.machine.stop_daemon().unwrap();
    let vif = guest.vif.clone();
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| guest.with(|netfront| netfront.set_headroom(256, PATIENCE)));
        until("the guest asks", || {
            let state = format!("{}/state", vif.frontend_dir());
            world.toolstack().read(&state).unwrap().as_deref() == Some("7")
        });
        world.machine.start_daemon().unwrap();
        waiting.join().unwrap()
    });
    waiting.unwrap();
    world.wait_backend_connected(&vif);
    guest.exercise();
    assert_eq!(headroom(&world, &guest), 256);
    world.finish_well(guest);
}

/// What a live guest writes ends its vif with a reason, and it can come back.
fn each_ends_the_vif(lies: &[(&str, &[u8], &str)]) {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, linux());
    for (key, value, text) in lies {
        let node = format!("{}/{key}", vif.frontend_dir());
        write(&hood, &node, value);
        hood.assert_closed(&vif, text);
        write(&hood, &node, b"0");
        reload(&mut netfront);
        hood.world.wait_forgiven(&vif);
    }
    hood.finish_raw(&vif, netfront);
}

/// As the guest itself would, but with any bytes.
fn write(hood: &Neighbourhood, node: &str, value: &[u8]) {
    let (node, value) = (node.to_owned(), value.to_vec());
    hood.world
        .machine
        .xenstored()
        .with(move |store| store.write(&node, value))
        .unwrap();
}

#[test]
fn a_headroom_that_leaves_the_page() {
    let values = ["2579", "4096", "32767", "65535", "65792"];
    each_ends_the_vif(&values.map(|value| ("xdp-headroom", value.as_bytes(), "0 to 2578 bytes")));
}

#[test]
fn values_that_are_none() {
    for key in ["xdp-headroom", "request-multicast-control", "disconnect"] {
        let values: [&[u8]; 3] = [b"-1", &[b'9'; 4_000], b"\xff\xfe"];
        each_ends_the_vif(&values.map(|value| (key, value, key)));
    }
}

#[test]
fn a_bad_headroom_at_reconfiguring() {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, linux());
    // The backend may look before or after the value is written; it may even answer in between.
    let _may_be_closed = netfront.set_headroom(65_535, PATIENCE);
    hood.assert_closed(&vif, "xdp-headroom");
    hood.finish_raw(&vif, netfront);
}

/// Changing one's mind as fast as one can costs the backend a bounded amount of work, and the last word counts.
#[test]
fn a_guest_that_cannot_decide() {
    let hood = neighbourhood();
    let (vif, netfront) = hood.world.raw(1, linux());
    for n in 0..2_000 {
        let store = netfront.store();
        store
            .set_raw("xdp-headroom", if n % 2 == 0 { "256" } else { "0" })
            .unwrap();
        store
            .set_raw(
                "request-multicast-control",
                if n % 3 == 0 { "1" } else { "0" },
            )
            .unwrap();
        store
            .set_raw("disconnect", if n % 5 == 0 { "1" } else { "0" })
            .unwrap();
        store
            .set_raw("state", if n % 2 == 0 { "7" } else { "4" })
            .unwrap();
        store.set_raw(&format!("queue-{}", n % 7), "x").unwrap();
    }
    netfront.store().set_raw("xdp-headroom", "128").unwrap();
    until("the last word counts", || {
        let now = hood.world.vif_status(&vif).unwrap();
        now.features.xdp_headroom == 128
            && now.carrier == Some(true)
            && hood.world.backend_state(&vif).as_deref() == Some("4")
    });
    hood.assert_unharmed();
    hood.finish_raw(&vif, netfront);
}
