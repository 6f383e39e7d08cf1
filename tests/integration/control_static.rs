// SPDX-License-Identifier: GPL-3.0-or-later
//! Static grants: pages that a guest has mapped over its control ring, every answer to it, and the packets that they
//! carry without a grant copy.

use std::num::NonZeroU16;

use netback::demo::guest::control;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::toolstack::VifSpec;
use netback_tests::World;
use netback_tests::raw::assert_no_violation;
use netback_tests::world::{PATIENCE, until};
use xen_ring::front::tx_flags::MORE_DATA;
use xen_ring::front::{FrontTxRequest, FrontTxSlot};

use crate::control::{
    DONE, INVALID, SUCCESS, ask, change_pages, configured, expect_all, hash_all, ring, with_ring,
};

#[test]
fn static_grants_carry_the_packets() {
    let world = World::new();
    let guest = world.guest(1, with_ring());
    guest.reach();
    guest.with(|netfront| change_pages(netfront, control::ADD_GREF_MAPPING, 0));
    let hypervisor = world.machine.hypervisor();
    assert_eq!(hypervisor.census().mapped, 3 + 512);
    assert_eq!(configured(&world, &guest.vif).static_grants, 512);

    let before = hypervisor.copies();
    guest.exercise();
    guest.assert_well_served();
    assert_eq!(hypervisor.copies(), before, "no packet took a grant copy");

    guest.with(|netfront| change_pages(netfront, control::DEL_GREF_MAPPING, 0));
    assert_eq!(hypervisor.census().mapped, 3);
    assert_eq!(configured(&world, &guest.vif).static_grants, 0);
    let before = hypervisor.copies();
    guest.exercise();
    assert!(hypervisor.copies() > before);
    guest.exercise();
    world.finish_well(guest);
}

/// Each queue has its own, whatever worker it lives on.
#[test]
fn static_grants_of_several_queues() {
    let world = World::smp();
    let options = FrontendOptions {
        queues: 4,
        ..with_ring()
    };
    let guest = world.guest(1, options);
    guest.reach();
    let hypervisor = world.machine.hypervisor();
    let rings = hypervisor.census().mapped;
    assert_eq!(rings, 9);
    for queue in (0..4).rev() {
        guest.with(move |netfront| change_pages(netfront, control::ADD_GREF_MAPPING, queue));
    }
    assert_eq!(hypervisor.census().mapped, rings + 4 * 512);
    assert_eq!(configured(&world, &guest.vif).static_grants, 4 * 512);
    let before = hypervisor.copies();
    guest.exercise();
    assert_eq!(hypervisor.copies(), before);
    guest.with(|netfront| {
        change_pages(netfront, control::DEL_GREF_MAPPING, 2);
        let queue = [4, 0, 0];
        assert_eq!(
            ask(netfront, control::GET_GREF_MAPPING_SIZE, queue),
            INVALID
        );
        hash_all(netfront);
    });
    assert_eq!(hypervisor.census().mapped, rings + 3 * 512);
    guest.ping();
    guest.with(expect_all);
    guest.exercise();
    world.finish_well(guest);
}

/// Two vifs of one guest, and another guest beside them.
#[test]
fn a_guest_has_its_part_and_no_more() {
    let mut world = World::with(|config| config.max_queues = NonZeroU16::new(8));
    world.vcpus = 8;
    let options = FrontendOptions {
        queues: 8,
        ..with_ring()
    };
    let (first, mut one) = world.raw(1, options);
    let second = VifSpec {
        handle: 1,
        ..VifSpec::new(1, "00:16:3e:00:01:01")
    };
    world.toolstack().create_vif(&second).unwrap();
    world.plug(&second);
    let mut two = world.connect(&second, with_ring());
    let (add, del) = (control::ADD_GREF_MAPPING, control::DEL_GREF_MAPPING);
    for queue in 0..8 {
        change_pages(&mut one, add, queue);
    }
    let [pages, _] = two.packet_pages(0).unwrap();
    let answer = ring(&mut two).change_grants(add, 0, &pages, PATIENCE);
    assert_eq!(answer.unwrap(), INVALID);
    let (other, mut three) = world.raw(2, with_ring());
    change_pages(&mut three, add, 0);

    change_pages(&mut one, del, 7);
    change_pages(&mut two, add, 0);
    let shown = [&first, &second, &other].map(|vif| configured(&world, vif).static_grants);
    assert_eq!(shown, [7 * 512, 512, 512]);
    world.force_away(&first, one);
    world.force_away(&second, two);
    world.finish_raw(&other, three);
}

/// Some slots of a frame are mapped and others are not.
#[test]
fn static_grants_beside_others() {
    let world = World::new();
    let options = FrontendOptions {
        tx_slot_bytes: 600,
        tx_offset: 61,
        ..with_ring()
    };
    let guest = world.guest_with_mtu(1, 9_000, options);
    guest.with(|netfront| {
        for pages in netfront.packet_pages(0).unwrap() {
            let every_third: Vec<_> = pages.iter().copied().step_by(3).collect();
            let add = control::ADD_GREF_MAPPING;
            let answer = ring(netfront).change_grants(add, 0, &every_third, PATIENCE);
            assert_eq!(answer.unwrap(), DONE);
        }
    });
    let hypervisor = world.machine.hypervisor();
    assert_eq!(hypervisor.census().mapped, 3 + 86 + 86);
    let before = hypervisor.copies();
    guest.exercise();
    guest.udp(8_900);
    assert!(hypervisor.copies() > before);
    guest.exercise();
    world.finish_well(guest);
}

/// The slot whose copy fails is the one that is answered with an error, whichever of its neighbours are mapped.
#[test]
fn one_slot_that_fails_beside_static_grants() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, with_ring());
    let [tx, _] = netfront.packet_pages(0).unwrap();
    let add = control::ADD_GREF_MAPPING;
    let mapped = [tx[0], tx[2], tx[3]];
    assert_eq!(
        ring(&mut netfront)
            .change_grants(add, 0, &mapped, PATIENCE)
            .unwrap(),
        DONE
    );
    let queue = netfront.tx_queue().unwrap();
    for (id, gref) in (0..4_u16).zip([tx[0].0.raw(), 4_000_000, tx[2].0.raw(), tx[3].0.raw()]) {
        let request = FrontTxRequest {
            gref,
            offset: 0,
            flags: if id < 3 { MORE_DATA } else { 0 },
            id,
            size: if id == 0 { 240 } else { 60 },
        };
        queue.push(FrontTxSlot::Request(request)).unwrap();
    }
    let _kicked_anyway = queue.ring().publish();
    netfront.kick();
    let mut answers = Vec::new();
    until("all four are answered", || {
        let ring = netfront.tx_queue().unwrap().ring();
        while let Some((_, answer)) = ring.take().unwrap() {
            answers.push((answer.id, answer.status));
        }
        answers.len() == 4
    });
    assert_eq!(answers, [(0, 0), (1, -1), (2, 0), (3, 0)]);
    let tx = world.vif_status(&vif).unwrap().tx;
    assert_eq!(tx.drops.get("grant-copy"), Some(&1));
    assert_eq!(tx.packets, 0);
    world.finish_raw(&vif, netfront);
}

/// A page of which the frontend says that it may only be read is not written to, and carries what is read.
#[test]
fn rx_pages_that_may_only_be_read() {
    let world = World::new();
    let guest = world.guest(1, with_ring());
    guest.with(|netfront| {
        let [_, rx] = netfront.packet_pages(0).unwrap();
        let rx: Vec<_> = rx
            .iter()
            .map(|(gref, _)| (*gref, control::GREF_READ_ONLY))
            .collect();
        let add = control::ADD_GREF_MAPPING;
        assert_eq!(
            ring(netfront).change_grants(add, 0, &rx, PATIENCE).unwrap(),
            DONE
        );
    });
    assert_eq!(configured(&world, &guest.vif).static_grants, 256);
    guest.exercise();
    world.finish_well(guest);
}

#[test]
fn every_answer_of_the_static_grant_messages() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, with_ring());
    let n = &mut netfront;
    let (add, del) = (control::ADD_GREF_MAPPING, control::DEL_GREF_MAPPING);
    assert_eq!(
        ask(n, control::GET_GREF_MAPPING_SIZE, [0; 3]),
        (SUCCESS, 512)
    );
    let [tx, rx] = n.packet_pages(0).unwrap();
    let list = ring(n).list_ref();
    for (kind, data) in [
        (control::GET_GREF_MAPPING_SIZE, [1, 0, 0]),
        (control::GET_GREF_MAPPING_SIZE, [u32::MAX, 0, 0]),
        (add, [1, list, 1]),
        (del, [1 << 16, list, 1]),
        (add, [0, list, 513]),
        (del, [0, list, u32::MAX]),
        (add, [0, 4_000_000, 1]),
        (del, [0, u32::MAX, 1]),
    ] {
        assert_eq!(ask(n, kind, data), INVALID, "{kind} {data:?}");
    }
    assert_eq!(ask(n, add, [0, u32::MAX, 0]), DONE, "nothing to map");
    let mut change = |kind, grants: &[_]| {
        let answer = ring(n).change_grants(kind, 0, grants, PATIENCE).unwrap();
        (answer, ring(n).statuses(grants.len()))
    };
    let census = || world.machine.hypervisor().census().mapped;

    // All or nothing: a reference that is not granted, one that may only be read, a flag of no meaning, one twice.
    let unknown = (xen_ring::GrantRef::new(4_000_000), 0);
    for bad in [unknown, (tx[0].0, 0), (rx[1].0, 2), rx[0]] {
        let grants = [&rx[..100], &[bad]].concat();
        assert_eq!(change(add, &grants).0, INVALID, "{bad:?}");
        assert_eq!(census(), 3);
    }
    assert_eq!(change(add, &rx[..100]).0, DONE);
    assert_eq!(change(add, &rx[99..101]).0, INVALID, "mapped already");
    assert_eq!(census(), 103);
    assert_eq!(change(add, &[&tx[..], &rx[100..]].concat()).0, DONE);
    assert_eq!(census(), 3 + 512);

    // What was not mapped is said so; the rest is unmapped.
    let (answer, statuses) = change(del, &[rx[7], unknown, rx[7], tx[3]]);
    assert_eq!((answer, statuses), ((SUCCESS, 2), vec![0, 2, 2, 0]));
    assert_eq!(census(), 3 + 510);
    let (answer, statuses) = change(del, &[unknown]);
    assert_eq!((answer, statuses), (DONE, vec![2]));

    // With the connection everything is unmapped.
    netfront.close(PATIENCE).unwrap();
    assert_eq!(census(), 0);
    netfront.open(PATIENCE).unwrap();
    assert_eq!(census(), 3);
    assert_no_violation(&netfront);
    world.finish_raw(&vif, netfront);
}

/// The list is written back: where the guest lets it only be read, that fails, and nothing else.
#[test]
fn a_list_that_cannot_be_written_back() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, with_ring());
    let [tx, _] = netfront.packet_pages(0).unwrap();
    // A page for sending is granted for reading only; any bytes will do as a list.
    let list = tx[0].0.raw();
    let answer = ask(&mut netfront, control::DEL_GREF_MAPPING, [0, list, 4]);
    assert_eq!(answer, INVALID);
    assert_eq!(
        ask(&mut netfront, control::GET_GREF_MAPPING_SIZE, [0; 3]),
        (SUCCESS, 512)
    );
    world.finish_raw(&vif, netfront);
}
