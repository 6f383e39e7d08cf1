// SPDX-License-Identifier: GPL-3.0-or-later
//! Guests that are not Linux, and what their drivers do otherwise than Linux's.

use netback::demo::guest::netfront::{Netfront, Phase};
use netback::demo::guest::options::FrontendOptions;
use netback::demo::toolstack::VifSpec;
use netback_tests::raw::linux;
use netback_tests::world::{PATIENCE, until};
use netback_tests::{World, host};
use xenbus::XenbusState;

use crate::hood::{neighbourhood, reach};

/// iPXE says Closed without Closing before, and begins when the backend is Closed. It posts few buffers.
#[test]
fn ipxe_closes_at_once() {
    let world = World::new();
    let options = FrontendOptions {
        rx_buffers: 4,
        ..FrontendOptions::plain()
    };
    let guest = world.guest(1, options);
    for _ in 0..3 {
        guest.exercise();
        guest
            .with(|netfront| {
                netfront.store().set_state(XenbusState::Closed)?;
                netfront
                    .store_mut()
                    .wait_backend(&[XenbusState::Closed], PATIENCE)?;
                netfront.open(PATIENCE)
            })
            .unwrap();
    }
    guest.exercise();
    world.finish(guest);
}

/// mini-os (stub domains, MirageOS) is Connected before its backend is InitWait, and says next to nothing of itself.
#[test]
fn mini_os_does_not_wait() {
    let mut world = World::without_daemon(|_| {});
    let vif = world.create(1);
    let options = FrontendOptions {
        rx_notify: false,
        rx_copy: false,
        ..FrontendOptions::plain()
    };
    let guest = world.boot_after(vif, 1500, options, |netfront| netfront.publish());
    world.machine.start_daemon().unwrap();
    world.wait_tap(&guest.vif);
    world.run_script(&guest.vif);
    guest.wait_connected();
    guest.exercise();
    world.restart_daemon();
    guest.exercise();
    world.finish(guest);
}

/// A kernel that takes over without a word (a crash, then kexec into something small) is Connected as the old one was:
/// only its rings are others.
#[test]
fn a_frontend_that_takes_over_without_a_word() {
    let world = World::new();
    let guest = world.guest(1, linux());
    for _ in 0..3 {
        guest.exercise();
        guest.with(|netfront| netfront.usurp(PATIENCE)).unwrap();
        let census = world.machine.hypervisor().census();
        assert_eq!((census.mapped, census.bound_ports), (2, 2));
    }
    guest.exercise();
    world.finish_well(guest);
}

/// The same after the old rings have broken, or were broken by the new kernel as it made itself at home. The old rings
/// are not tried again.
#[test]
fn a_frontend_that_takes_over_from_one_that_failed() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, linux());
    for _ in 0..3 {
        break_rings(&mut netfront);
        world.wait_status(&vif, "failed");
        for _ in 0..3 {
            netfront.store().set_state(XenbusState::Connected).unwrap();
            assert_eq!(world.vif_status(&vif).unwrap().state, "failed");
        }
        netfront.usurp(PATIENCE).unwrap();
        world.wait_forgiven(&vif);
        reach(&mut netfront, 1);
        let census = world.machine.hypervisor().census();
        assert_eq!((census.mapped, census.bound_ports), (2, 2));
    }
    world.finish_raw(&vif, netfront);
}

/// What was refused need not have been made out, and what could be made out need not have been there.
#[test]
fn a_frontend_that_takes_over_from_one_that_was_refused() {
    let world = World::new();
    let refused = [("request-rx-copy", "0"), ("tx-ring-ref", "4000000000")];
    for (dom, (key, value)) in (1..).zip(refused) {
        let vif = world.attach(dom);
        let options = FrontendOptions {
            overrides: vec![(key.to_owned(), Some(value.to_owned()))],
            ..linux()
        };
        let mut netfront = world.frontend(&vif, options);
        netfront.publish().unwrap();
        world.wait_status(&vif, "failed");
        netfront.options_mut().overrides.clear();
        netfront.usurp(PATIENCE).unwrap();
        world.wait_forgiven(&vif);
        reach(&mut netfront, dom);
        world.force_away(&vif, netfront);
    }
    world.finish_empty();
}

/// Each time that it says Connected with other rings costs one attempt, and harms nobody; the last word counts.
#[test]
fn a_frontend_that_takes_over_again_and_again() {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, linux());
    break_rings(&mut netfront);
    hood.assert_closed(&vif, "req_prod");
    for n in 0..1_000 {
        let store = netfront.store();
        let gref = if n % 2 == 0 { "4000000" } else { "5000000" };
        store.set_raw("tx-ring-ref", gref).unwrap();
        store.set_state(XenbusState::Connected).unwrap();
    }
    hood.assert_unharmed();
    netfront.usurp(PATIENCE).unwrap();
    hood.world.wait_forgiven(&vif);
    reach(&mut netfront, 1);
    hood.finish_raw(&vif, netfront);
}

/// The guest asks for more at once than there is room for.
fn break_rings(netfront: &mut Netfront) {
    let ring = netfront.tx_queue().unwrap().ring();
    let next = ring.next_index();
    ring.lie_req_prod(next.wrapping_add(300));
    netfront.kick();
}

/// Linux waits for Reconfigured without end and with its network locked, so it has to read that, whatever the toolstack
/// has written; and it has to read the toolstack's Closing, or it would not go.
#[test]
fn detached_while_it_reconfigures() {
    for asks_first in [true, false] {
        let world = World::new();
        let (vif, mut netfront) = world.raw(1, linux());
        let reconfigure = |netfront: &Netfront| {
            let store = netfront.store();
            store.set_state(XenbusState::Reconfiguring).unwrap();
            world.wait_status(&vif, "reconfigured");
        };
        if asks_first {
            reconfigure(&netfront);
        }
        world.toolstack().begin_detach(&vif).unwrap();
        if !asks_first {
            reconfigure(&netfront);
        }
        goes_when_it_is_done(&world, &vif, &mut netfront);
        drop(netfront);
        world.finish_empty();
    }
}

#[test]
fn detached_while_it_reconfigures_before_its_script_is_done() {
    for asks_first in [true, false] {
        let world = World::new();
        let vif = world.create(1);
        world.wait_init(&vif);
        let mut netfront = world.frontend(&vif, linux());
        netfront.publish().unwrap();
        world.wait_status(&vif, "await-hotplug");
        if asks_first {
            netfront
                .store()
                .set_state(XenbusState::Reconfiguring)
                .unwrap();
            wait_backend(&world, &vif, "8");
        }
        world.toolstack().begin_detach(&vif).unwrap();
        if !asks_first {
            world.wait_status(&vif, "closing");
            netfront
                .store()
                .set_state(XenbusState::Reconfiguring)
                .unwrap();
        }
        goes_when_it_is_done(&world, &vif, &mut netfront);
        drop(netfront);
        world.finish_empty();
    }
}

/// The kernel's backend answers in any state, and Linux asks in any. It is no reason to try again what has failed.
#[test]
fn reconfigures_after_it_has_failed() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, linux());
    break_rings(&mut netfront);
    world.wait_status(&vif, "failed");
    let error = world.error(&vif);
    for bytes in [256, 0, 256] {
        netfront.set_headroom(bytes, PATIENCE).unwrap();
        wait_backend(&world, &vif, "5");
        let status = world.vif_status(&vif).unwrap();
        assert_eq!((status.state.as_str(), &status.reason), ("failed", &error));
    }
    // Another driver takes over before the answer is read.
    ask(&world, &vif, &netfront);
    assert_eq!(world.vif_status(&vif).unwrap().state, "failed");
    netfront.usurp(PATIENCE).unwrap();
    world.wait_forgiven(&vif);
    reach(&mut netfront, 1);
    world.finish_raw(&vif, netfront);
}

/// Linux's netfront reads 5 and closes, with its rings in place; after it has reconfigured itself it says Connected, and
/// is taken at its word.
#[test]
fn reconfigures_after_it_has_closed() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, linux());
    let set = |netfront: &Netfront, state| netfront.store().set_state(state).unwrap();
    set(&netfront, XenbusState::Closing);
    wait_backend(&world, &vif, "5");
    ask(&world, &vif, &netfront);
    set(&netfront, XenbusState::Closed);
    wait_backend(&world, &vif, "6");
    netfront.set_headroom(256, PATIENCE).unwrap();
    world.wait_backend_connected(&vif);
    let features = world.vif_status(&vif).unwrap().features;
    assert_eq!(features.xdp_headroom, 256);
    reach(&mut netfront, 1);
    assert_eq!(netfront.stats().rx_xdp, netfront.stats().rx_frames);
    world.finish_raw(&vif, netfront);
}

#[test]
fn reconfigures_without_a_tap() {
    let world = World::new();
    // It was lost.
    let (vif, mut netfront) = world.raw(1, linux());
    host::ip("link delete vif1.0");
    world.wait_status(&vif, "dead");
    netfront.set_headroom(256, PATIENCE).unwrap();
    wait_backend(&world, &vif, "5");
    // It is lost while the guest waits.
    let (other, waiting) = world.raw(2, linux());
    ask(&world, &other, &waiting);
    host::ip("link delete vif2.0");
    world.wait_status(&other, "dead");
    wait_backend(&world, &other, "8");
    waiting.store().set_state(XenbusState::Connected).unwrap();
    wait_backend(&world, &other, "5");
    for (vif, netfront) in [(vif, netfront), (other, waiting)] {
        world.force_away(&vif, netfront);
    }
    // There never was one: its name is somebody else's, or nobody would plug it in.
    host::ip("tuntap add vif3.0 mode tun");
    for dom in [3, 4] {
        let vif = world.create_as(dom, |vif| {
            vif.script = vif.script.take().filter(|_| dom == 3);
        });
        let mut netfront = world.frontend(&vif, linux());
        world.wait_status(&vif, "dead");
        netfront.set_headroom(256, PATIENCE).unwrap();
        wait_backend(&world, &vif, "5");
        world.force_away(&vif, netfront);
    }
    host::ip("link delete vif3.0");
    world.finish_empty();
}

/// A driver that does not wait for its backend asks before the backend has looked at it, and its script may never be done.
#[test]
fn reconfigures_before_it_is_looked_at() {
    let mut world = World::without_daemon(|_| {});
    let vif = world.create(1);
    let mut netfront = world.frontend(&vif, linux());
    netfront.publish().unwrap();
    let store = netfront.store();
    store.set_state(XenbusState::Reconfiguring).unwrap();
    store.set_raw("xdp-headroom", "256").unwrap();
    world.machine.start_daemon().unwrap();
    wait_backend(&world, &vif, "8");
    netfront.store().set_state(XenbusState::Connected).unwrap();
    world.wait_status(&vif, "await-hotplug");
    world.run_script(&vif);
    world.wait_backend_connected(&vif);
    reach(&mut netfront, 1);
    assert_eq!(world.vif_status(&vif).unwrap().features.xdp_headroom, 256);
    world.finish_raw(&vif, netfront);
}

/// The guest says Reconfiguring, and is answered.
fn ask(world: &World, vif: &VifSpec, netfront: &Netfront) {
    let store = netfront.store();
    store.set_state(XenbusState::Reconfiguring).unwrap();
    wait_backend(world, vif, "8");
}

fn wait_backend(world: &World, vif: &VifSpec, state: &str) {
    until(&format!("the guest reads {state}"), || {
        world.backend_state(vif).as_deref() == Some(state)
    });
}

/// A guest that has been detached and waits for Reconfigured.
fn goes_when_it_is_done(world: &World, vif: &VifSpec, netfront: &mut Netfront) {
    wait_backend(world, vif, "8");
    netfront.store().set_state(XenbusState::Connected).unwrap();
    wait_backend(world, vif, "5");
    until("it goes", || netfront.follow().unwrap() == Phase::Closed);
    let toolstack = world.toolstack();
    toolstack
        .wait_state(vif, XenbusState::Closed, PATIENCE)
        .unwrap();
    toolstack.remove_vif(vif).unwrap();
}
