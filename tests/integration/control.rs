// SPDX-License-Identifier: GPL-3.0-or-later
//! The control ring: what it does to a guest that has one, and to the backend when the guest abuses it. What can be
//! configured over it: `control_hash`, `control_static`.

use netback::control::model::ControlStatus;
use netback::demo::guest::control::{self, Control, ExpectedHash};
use netback::demo::guest::netfront::{Netfront, Phase};
use netback::demo::guest::options::FrontendOptions;
use netback::demo::toolstack::VifSpec;
use netback::vif::feature::Feature;
use netback_tests::world::{PATIENCE, until};
use netback_tests::{TestGuest, World};
use xenbus::XenbusState;

use crate::hood::neighbourhood;

/// netif.h: statuses of control messages.
pub(crate) const SUCCESS: u32 = 0;
pub(crate) const NOT_SUPPORTED: u32 = 1;
pub(crate) const INVALID_PARAMETER: u32 = 2;

pub(crate) const DONE: (u32, u32) = (SUCCESS, 0);
pub(crate) const INVALID: (u32, u32) = (INVALID_PARAMETER, 0);

pub(crate) const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

pub(crate) fn with_ring() -> FrontendOptions {
    FrontendOptions {
        control_ring: true,
        ..FrontendOptions::default()
    }
}

/// Asks on the control ring of a connected frontend.
pub(crate) fn ask(netfront: &mut Netfront, kind: u16, data: [u32; 3]) -> (u32, u32) {
    ring(netfront).ask(kind, data, PATIENCE).unwrap()
}

pub(crate) fn ring(netfront: &mut Netfront) -> &mut Control {
    netfront.control().unwrap()
}

/// Has all received packets hashed by [`KEY`].
pub(crate) fn hash_all(netfront: &mut Netfront) {
    assert_eq!(ask(netfront, control::SET_HASH_ALGORITHM, [1, 0, 0]), DONE);
    assert_eq!(ring(netfront).set_key(&KEY, PATIENCE).unwrap(), DONE);
    assert_eq!(ask(netfront, control::SET_HASH_FLAGS, [15, 0, 0]), DONE);
}

/// From now on checks that each received packet comes with that hash.
pub(crate) fn expect_all(netfront: &mut Netfront) {
    // What came before the hash was configured (the host's kernel has things to say) has none.
    while netfront.receive().is_some() {}
    netfront.expect_hash(Some(ExpectedHash {
        key: KEY.to_vec(),
        types: 15,
    }));
}

/// Has all packets hashed that a guest receives, and checks each from then on.
pub(crate) fn hash_from_now_on(guest: &TestGuest) {
    guest.with(hash_all);
    // A ping that follows finds the hash in effect.
    guest.ping();
    guest.with(expect_all);
}

pub(crate) fn configured(world: &World, vif: &VifSpec) -> ControlStatus {
    world.vif_status(vif).unwrap().control.unwrap()
}

/// Maps all packet pages of a guest's queue, or unmaps them.
pub(crate) fn change_pages(netfront: &mut Netfront, kind: u16, queue: usize) {
    for pages in netfront.packet_pages(queue).unwrap() {
        let number = u32::try_from(queue).unwrap();
        let answer = ring(netfront).change_grants(kind, number, &pages, PATIENCE);
        let count = if kind == control::DEL_GREF_MAPPING {
            u32::try_from(pages.len()).unwrap()
        } else {
            0
        };
        assert_eq!(answer.unwrap(), (SUCCESS, count));
    }
}

#[test]
fn a_ring_that_is_not_used_changes_nothing() {
    let world = World::new();
    let guest = world.guest(1, with_ring());
    guest.exercise();
    let status = world.vif_status(&guest.vif).unwrap();
    assert!(status.features.has(Feature::CtrlRing));
    let unused = ControlStatus {
        hash_algorithm: "none".to_owned(),
        ..ControlStatus::default()
    };
    assert_eq!(status.control, Some(unused));
    let census = world.machine.hypervisor().census();
    assert_eq!((census.mapped, census.bound_ports), (3, 3));
    guest.exercise();
    world.finish_well(guest);
}

#[test]
fn a_frontend_without_a_ring_has_none() {
    let world = World::new();
    let guest = world.guest(1, FrontendOptions::default());
    let status = world.vif_status(&guest.vif).unwrap();
    assert!(!status.features.has(Feature::CtrlRing));
    assert_eq!(status.control, None);
    guest.exercise();
    world.finish_well(guest);
}

/// Requests that were published before there was a backend, about queues that come up beside the one with the ring.
#[test]
fn requests_that_were_there_first() {
    let mut world = World::smp();
    let options = FrontendOptions {
        queues: 4,
        ..with_ring()
    };
    let (vif, mut netfront) = world.raw(1, options);
    for round in 0..8 {
        netfront.close(PATIENCE).unwrap();
        world.machine.stop_daemon().unwrap();
        netfront
            .store()
            .set_state(XenbusState::Initialising)
            .unwrap();
        netfront.publish().unwrap();
        let [_, rx] = netfront.packet_pages(3).unwrap();
        let list: Vec<u8> = rx[..8]
            .iter()
            .flat_map(|(gref, _)| u64::from(gref.raw()).to_le_bytes())
            .collect();
        let control = ring(&mut netfront);
        control.write_list(&list).unwrap();
        let list = control.list_ref();
        control
            .send(control::SET_HASH_ALGORITHM, [1, 0, 0])
            .unwrap();
        control
            .send(control::ADD_GREF_MAPPING, [3, list, 8])
            .unwrap();
        control.send(control::GET_HASH_FLAGS, [0; 3]).unwrap();
        control.flush();
        world.machine.start_daemon().unwrap();
        for expected in [DONE, DONE, (SUCCESS, 15)] {
            let answer = ring(&mut netfront)
                .wait(PATIENCE)
                .unwrap()
                .expect("an answer");
            assert_eq!((answer.status, answer.data), expected, "round {round}");
        }
        until("the pages are mapped", || {
            world.vif_status(&vif).is_some_and(|vif| {
                vif.control
                    .is_some_and(|control| control.static_grants == 8)
            })
        });
        until("the frontend is connected", || {
            netfront.follow().unwrap() == Phase::Connected
        });
    }
    world.finish_raw(&vif, netfront);
}

#[test]
fn a_daemon_that_comes_back() {
    let mut world = World::new();
    let guest = world.guest(1, with_ring());
    guest.reach();
    guest.with(hash_all);
    guest.with(|netfront| change_pages(netfront, control::ADD_GREF_MAPPING, 0));
    world.restart_daemon();
    // The ring is served, and nobody remembers anything: packets go by grant copy, without hash.
    guest.with(|netfront| {
        assert_eq!(
            ask(netfront, control::GET_HASH_FLAGS, [0; 3]),
            (NOT_SUPPORTED, 0)
        );
        change_pages(netfront, control::ADD_GREF_MAPPING, 0);
        hash_all(netfront);
    });
    guest.exercise();
    world.finish_well(guest);
}

/// A ring full of requests, again and again, of the kinds that cost most: the neighbour does not notice, and each is
/// answered.
#[test]
fn a_flood_of_requests() {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, with_ring());
    let [tx, rx] = netfront.packet_pages(0).unwrap();
    let pages = [tx, rx].concat();
    let control = ring(&mut netfront);
    // The list of the first ADD stays in its page for those after it.
    let (add, del) = (control::ADD_GREF_MAPPING, control::DEL_GREF_MAPPING);
    let answer = control.change_grants(del, 0, &pages, PATIENCE).unwrap();
    assert_eq!(answer, DONE);
    let list = control.list_ref();
    let mut answered = 0;
    for round in 0..4 {
        for _ in 0..Control::slots() / 4 {
            control
                .send(control::SET_HASH_ALGORITHM, [1, 0, 0])
                .unwrap();
            control.send(control::SET_HASH_KEY, [list, 40, 0]).unwrap();
            let kind = if round % 2 == 0 { add } else { del };
            control.send(kind, [0, list, 512]).unwrap();
            control.send(u16::MAX, [0; 3]).unwrap();
        }
        control.flush();
        hood.neighbour.ping();
        for _ in 0..Control::slots() {
            let answer = control.wait(PATIENCE).unwrap().expect("an answer");
            answered += u32::from(answer.kind != u16::MAX || answer.status == NOT_SUPPORTED);
        }
    }
    assert_eq!(answered, 4 * Control::slots());
    hood.finish_raw(&vif, netfront);
}

/// Detached while an order is being carried out.
#[test]
fn a_vif_that_goes_in_the_middle_of_an_order() {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, with_ring());
    let [tx, rx] = netfront.packet_pages(0).unwrap();
    let control = ring(&mut netfront);
    let pages = [tx, rx].concat();
    control
        .change_grants(control::DEL_GREF_MAPPING, 0, &pages, PATIENCE)
        .unwrap();
    let list = control.list_ref();
    control
        .send(control::ADD_GREF_MAPPING, [0, list, 512])
        .unwrap();
    control.flush();
    hood.finish_raw(&vif, netfront);
}

/// `lie` is told on the control ring of a connected vif, which ends it as `text` says.
fn fatal(text: &str, lie: impl FnOnce(&mut Control)) {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, with_ring());
    lie(ring(&mut netfront));
    ring(&mut netfront).kick();
    hood.assert_closed(&vif, text);
    hood.finish_raw(&vif, netfront);
}

#[test]
fn more_requests_than_slots() {
    fatal("req_prod", |control| control.ring().lie_req_prod(129));
}

#[test]
fn requests_taken_back() {
    fatal("req_prod", |control| control.ring().lie_req_prod(u32::MAX));
}
