// SPDX-License-Identifier: GPL-3.0-or-later
//! The control ring: what a guest configures while it runs, every answer that it can get, and what becomes of its
//! packets.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::time::Duration;

use netback::control::model::ControlStatus;
use netback::demo::guest::control::{self, Control, ExpectedHash};
use netback::demo::guest::netfront::{Netfront, Phase};
use netback::demo::guest::options::FrontendOptions;
use netback::demo::toolstack::VifSpec;
use netback_tests::world::{PATIENCE, guest_ip, until};
use netback_tests::{TestGuest, World};
use xen_ring::front::{FrontTxRequest, FrontTxSlot};
use xenbus::XenbusState;

use crate::hood::{force_away, neighbourhood};

/// netif.h: statuses of control messages.
const SUCCESS: u32 = 0;
const NOT_SUPPORTED: u32 = 1;
const INVALID_PARAMETER: u32 = 2;
const BUFFER_OVERFLOW: u32 = 3;

/// netif.h: the packet of a tx request goes on in the next.
const MORE_DATA: u16 = 4;

const DONE: (u32, u32) = (SUCCESS, 0);
const INVALID: (u32, u32) = (INVALID_PARAMETER, 0);

const KEY: [u8; 40] = [
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
fn ask(netfront: &mut Netfront, kind: u16, data: [u32; 3]) -> (u32, u32) {
    ring(netfront).ask(kind, data, PATIENCE).unwrap()
}

fn ring(netfront: &mut Netfront) -> &mut Control {
    netfront.control().unwrap()
}

/// Has all received packets hashed by [`KEY`], and checks each from then on.
pub(crate) fn hash_all(netfront: &mut Netfront) {
    assert_eq!(ask(netfront, control::SET_HASH_ALGORITHM, [1, 0, 0]), DONE);
    assert_eq!(ring(netfront).set_key(&KEY, PATIENCE).unwrap(), DONE);
    assert_eq!(ask(netfront, control::SET_HASH_FLAGS, [15, 0, 0]), DONE);
}

pub(crate) fn expect_all(netfront: &mut Netfront) {
    // What came before the hash was configured (the host's kernel has things to say) has none.
    while netfront.receive().is_some() {}
    netfront.expect_hash(Some(ExpectedHash {
        key: KEY.to_vec(),
        types: 15,
    }));
}

fn configured(world: &World, vif: &VifSpec) -> ControlStatus {
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

fn exercise_and_leave(world: World, guest: TestGuest) {
    guest.exercise();
    guest.assert_well_served();
    world.detach(&guest.vif);
    guest.stop().unwrap();
    world.finish_empty();
}

#[test]
fn a_ring_that_is_not_used_changes_nothing() {
    let world = World::new();
    let guest = world.guest(1, with_ring());
    guest.exercise();
    let status = world.vif_status(&guest.vif).unwrap();
    assert!(status.features.ctrl_ring);
    let unused = ControlStatus {
        hash_algorithm: "none".to_owned(),
        ..ControlStatus::default()
    };
    assert_eq!(status.control, Some(unused));
    let census = world.machine.hypervisor().census();
    assert_eq!((census.mapped, census.bound_ports), (3, 3));
    exercise_and_leave(world, guest);
}

#[test]
fn a_frontend_without_a_ring_has_none() {
    let world = World::new();
    let guest = world.guest(1, FrontendOptions::default());
    let status = world.vif_status(&guest.vif).unwrap();
    assert!(!status.features.ctrl_ring);
    assert_eq!(status.control, None);
    exercise_and_leave(world, guest);
}

#[test]
fn every_answer_of_the_hash_messages() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, with_ring());
    let n = &mut netfront;
    assert_eq!(ask(n, control::GET_HASH_FLAGS, [0; 3]), (NOT_SUPPORTED, 0));
    assert_eq!(ask(n, control::SET_HASH_FLAGS, [1, 0, 0]), INVALID);
    assert_eq!(ask(n, control::SET_HASH_ALGORITHM, [2, 0, 0]), INVALID);
    assert_eq!(ask(n, control::SET_HASH_ALGORITHM, [1, 0, 0]), DONE);
    assert_eq!(ask(n, control::GET_HASH_FLAGS, [0; 3]), (SUCCESS, 15));
    assert_eq!(ask(n, control::SET_HASH_FLAGS, [16, 0, 0]), INVALID);
    assert_eq!(ask(n, control::SET_HASH_FLAGS, [15, 0, 0]), DONE);
    assert_eq!(
        ask(n, control::GET_HASH_MAPPING_SIZE, [0; 3]),
        (SUCCESS, 128)
    );
    assert_eq!(ask(n, control::SET_HASH_MAPPING_SIZE, [129, 0, 0]), INVALID);
    assert_eq!(ask(n, control::SET_HASH_MAPPING_SIZE, [8, 0, 0]), DONE);
    assert_eq!(ring(n).set_mapping(&[0; 8], 0, PATIENCE).unwrap(), DONE);
    assert_eq!(ring(n).set_mapping(&[0, 1], 0, PATIENCE).unwrap(), INVALID);
    assert_eq!(ring(n).set_mapping(&[0, 0], 7, PATIENCE).unwrap(), INVALID);
    for (count, offset) in [
        (1, u32::MAX),
        (u32::MAX, 1),
        (1 << 31, 1 << 31),
        (1 << 16, 0),
    ] {
        let page = ring(n).list_ref();
        assert_eq!(
            ask(n, control::SET_HASH_MAPPING, [page, count, offset]),
            INVALID
        );
    }
    assert_eq!(ring(n).set_key(&KEY, PATIENCE).unwrap(), DONE);
    assert_eq!(
        ring(n).set_key(&[1; 41], PATIENCE).unwrap(),
        (BUFFER_OVERFLOW, 0)
    );
    let long = [ring(n).list_ref(), 4_097, 0];
    assert_eq!(ask(n, control::SET_HASH_KEY, long), (BUFFER_OVERFLOW, 0));
    // Pages that are not granted.
    for page in [0, 4_000_000, u32::MAX] {
        assert_eq!(ask(n, control::SET_HASH_KEY, [page, 40, 0]), INVALID);
        assert_eq!(ask(n, control::SET_HASH_MAPPING, [page, 1, 0]), INVALID);
    }
    for kind in [0, 11, 4_711, u16::MAX] {
        assert_eq!(ask(n, kind, [0; 3]), (NOT_SUPPORTED, 0));
    }
    let status = ControlStatus {
        hash_algorithm: "toeplitz".to_owned(),
        hash_types: ["ipv4", "ipv4-tcp", "ipv6", "ipv6-tcp"]
            .map(str::to_owned)
            .to_vec(),
        hash_mapping_size: 8,
        static_grants: 0,
    };
    assert_eq!(configured(&world, &vif), status);

    // What was configured ends with the connection.
    netfront.close(PATIENCE).unwrap();
    netfront.open(PATIENCE).unwrap();
    assert_eq!(
        ask(&mut netfront, control::GET_HASH_FLAGS, [0; 3]),
        (NOT_SUPPORTED, 0)
    );
    assert_eq!(configured(&world, &vif).hash_mapping_size, 0);
    assert_eq!(netfront.stats().violations.count, 0);
    force_away(&world, &vif, netfront);
    world.finish_empty();
}

/// With every kind of traffic there is: small frames, checksums left blank, segments, and what is not hashed.
#[test]
fn packets_come_with_their_hash() {
    let world = World::new();
    let guest = world.guest(1, with_ring());
    guest.reach();
    guest.with(hash_all);
    // A ping that follows finds the hash in effect.
    guest.ping();
    guest.with(expect_all);
    guest.exercise();
    let stats = guest.stats();
    assert!(stats.rx_hashed > 0 && stats.rx_gso > 0, "{stats:?}");
    assert!(stats.rx_frames > stats.rx_hashed, "ARP has no hash");

    // Off again.
    guest.with(|netfront| {
        assert_eq!(ask(netfront, control::SET_HASH_FLAGS, [0, 0, 0]), DONE);
        netfront.expect_hash(None);
    });
    guest.ping();
    guest.with(|netfront| {
        netfront.expect_hash(Some(ExpectedHash {
            key: KEY.to_vec(),
            types: 0,
        }));
    });
    exercise_and_leave(world, guest);
}

/// The extra info takes a slot of the ring, but none of the frame's: also a frontend that takes one slot only gets it.
#[test]
fn a_hash_for_a_frontend_of_single_slots() {
    let world = World::new();
    let options = FrontendOptions {
        control_ring: true,
        rx_buffers: 4,
        ..FrontendOptions::plain()
    };
    let guest = world.guest(1, options);
    guest.with(hash_all);
    guest.ping();
    guest.with(expect_all);
    guest.exercise();
    assert!(guest.stats().rx_hashed > 0);
    exercise_and_leave(world, guest);
}

/// Only what is asked for is hashed, by the most specific type.
#[test]
fn types_are_chosen_one_by_one() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, with_ring());
    hash_all(&mut netfront);
    let to = SocketAddr::from((guest_ip(1), 4_711));
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    crate::hood::flood(1, 0, 0);
    let (mut plain, mut with_ports) = (0, 0);
    for types in 0..16_u8 {
        assert_eq!(
            ask(&mut netfront, control::SET_HASH_FLAGS, [types.into(), 0, 0]),
            DONE
        );
        // The directive may be a step behind the answer: what comes before the next answer is not looked at.
        assert_eq!(
            ask(&mut netfront, control::GET_HASH_FLAGS, [0; 3]),
            (SUCCESS, 15)
        );
        while netfront.receive().is_some() {}
        netfront.flush();
        netfront.expect_hash(Some(ExpectedHash {
            key: KEY.to_vec(),
            types,
        }));
        let mut seen = [false; 2];
        // Again and again, since the first ones may be lost before the host has noticed the carrier.
        until("both have come", || {
            udp.send_to(b"hello", to).unwrap();
            // Nobody answers the SYN; that it comes is enough.
            let _timeout = TcpStream::connect_timeout(&to, Duration::from_millis(5));
            while let Some(frame) = netfront.receive() {
                match frame.bytes.get(23) {
                    Some(17) => seen[0] = true,
                    Some(6) => seen[1] = true,
                    _ => {}
                }
                plain += u32::from(frame.hash.is_some_and(|(kind, _)| kind == 0));
                with_ports += u32::from(frame.hash.is_some_and(|(kind, _)| kind == 1));
            }
            netfront.flush();
            seen == [true; 2]
        });
        netfront.expect_hash(None);
    }
    assert!(plain > 0 && with_ports > 0);
    let violations = &netfront.stats().violations;
    assert_eq!(violations.count, 0, "{:?}", violations.first);
    force_away(&world, &vif, netfront);
    world.finish_empty();
}

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
    exercise_and_leave(world, guest);
}

/// Each queue has its own, whatever worker it lives on.
#[test]
fn static_grants_of_several_queues() {
    let mut world = World::with(|config| config.max_queues = NonZeroU16::new(4));
    world.vcpus = 4;
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
    exercise_and_leave(world, guest);
}

/// Requests that were published before there was a backend, about queues that come up beside the one with the ring.
#[test]
fn requests_that_were_there_first() {
    let mut world = World::with(|config| config.max_queues = NonZeroU16::new(4));
    world.vcpus = 4;
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
    force_away(&world, &vif, netfront);
    world.finish_empty();
}

/// A packet comes by the queue that the guest's table has for its hash; and by the hash itself, without a table.
#[test]
fn packets_are_steered_by_the_guests_table() {
    let mut world = World::with(|config| config.max_queues = NonZeroU16::new(4));
    world.vcpus = 4;
    let options = FrontendOptions {
        queues: 4,
        ..with_ring()
    };
    let (vif, mut netfront) = world.raw(1, options);
    hash_all(&mut netfront);
    expect_all(&mut netfront);
    let tables: [&[u32]; 4] = [&[], &[3], &[2, 1], &[0, 3, 1, 2, 2, 0, 1]];
    for table in tables {
        let size = u32::try_from(table.len()).unwrap();
        let answer = ask(&mut netfront, control::SET_HASH_MAPPING_SIZE, [size, 0, 0]);
        assert_eq!(answer, DONE);
        let set = ring(&mut netfront).set_mapping(table, 0, PATIENCE).unwrap();
        assert_eq!(set, DONE);
        for flow in 0..40_u32 {
            let (queue, hash) = queue_of_a_flow(&mut netfront, flow);
            let expected = match table {
                [] => hash % 4,
                table => table[hash as usize % table.len()],
            };
            assert_eq!(queue, expected, "{table:?}, hash {hash:#x}");
        }
    }
    // Without a hash the choice is the host's.
    assert_eq!(
        ask(&mut netfront, control::SET_HASH_ALGORITHM, [0, 0, 0]),
        DONE
    );
    let violations = &netfront.stats().violations;
    assert_eq!(violations.count, 0, "{:?}", violations.first);
    force_away(&world, &vif, netfront);
    world.finish_empty();
}

/// Sends a datagram of a flow of its own to domain 1 until it arrives: by which queue, and with which hash.
fn queue_of_a_flow(netfront: &mut Netfront, flow: u32) -> (u32, u32) {
    crate::hood::flood(1, 0, 0);
    let address = std::net::Ipv4Addr::from(u32::from(guest_ip(1)) + 1 + flow);
    let neighbour = [
        "neigh",
        "replace",
        &address.to_string(),
        "lladdr",
        "00:16:3e:00:00:01",
    ];
    let mut ip = std::process::Command::new("ip");
    assert!(
        ip.args(neighbour)
            .args(["dev", "vif1.0"])
            .status()
            .unwrap()
            .success()
    );
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut found = None;
    until("it has come", || {
        udp.send_to(b"steer me", (address, 9)).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        loop {
            let before = netfront.stats().by_queue.clone();
            let Some(frame) = netfront.receive() else {
                break;
            };
            if frame.bytes.get(30..34) == Some(&address.octets()) {
                let now = &netfront.stats().by_queue;
                let frames = |queue: usize| before.get(queue).map_or(0, |queue| queue.rx_frames);
                let queue = (0..4)
                    .find(|queue| now[*queue].rx_frames > frames(*queue))
                    .unwrap();
                found = Some((u32::try_from(queue).unwrap(), frame.hash.unwrap().1));
            }
        }
        netfront.flush();
        found.is_some()
    });
    found.unwrap()
}

/// A frontend that comes back with fewer queues finds no table that names the others.
#[test]
fn a_table_of_queues_that_are_gone() {
    let mut world = World::with(|config| config.max_queues = NonZeroU16::new(2));
    world.vcpus = 2;
    let options = FrontendOptions {
        queues: 2,
        ..with_ring()
    };
    let (vif, mut netfront) = world.raw(1, options);
    hash_all(&mut netfront);
    assert_eq!(
        ask(&mut netfront, control::SET_HASH_MAPPING_SIZE, [4, 0, 0]),
        DONE
    );
    let set = |netfront: &mut Netfront, queues| ring(netfront).set_mapping(queues, 0, PATIENCE);
    assert_eq!(set(&mut netfront, &[1; 4]).unwrap(), DONE);
    assert_eq!(set(&mut netfront, &[0, 2]).unwrap(), INVALID);

    netfront.close(PATIENCE).unwrap();
    netfront.options_mut().queues = 1;
    netfront.open(PATIENCE).unwrap();
    assert_eq!(configured(&world, &vif).hash_mapping_size, 0);
    hash_all(&mut netfront);
    assert_eq!(set(&mut netfront, &[0]).unwrap(), INVALID, "no table yet");
    assert_eq!(
        ask(&mut netfront, control::SET_HASH_MAPPING_SIZE, [4, 0, 0]),
        DONE
    );
    assert_eq!(set(&mut netfront, &[1]).unwrap(), INVALID);
    assert_eq!(set(&mut netfront, &[0]).unwrap(), DONE);
    force_away(&world, &vif, netfront);
    world.finish_empty();
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
    exercise_and_leave(world, guest);
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
    force_away(&world, &vif, netfront);
    world.finish_empty();
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
    exercise_and_leave(world, guest);
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
    assert_eq!(netfront.stats().violations.count, 0);
    force_away(&world, &vif, netfront);
    world.finish_empty();
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
    force_away(&world, &vif, netfront);
    world.finish_empty();
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
    exercise_and_leave(world, guest);
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
    force_away(&hood.world, &vif, netfront);
    hood.finish();
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
    force_away(&hood.world, &vif, netfront);
    hood.finish();
}

/// `lie` is told on the control ring of a connected vif, which ends it as `text` says.
fn fatal(text: &str, lie: impl FnOnce(&mut Control)) {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, with_ring());
    lie(ring(&mut netfront));
    ring(&mut netfront).kick();
    hood.assert_closed(&vif, text);
    force_away(&hood.world, &vif, netfront);
    hood.finish();
}

#[test]
fn more_requests_than_slots() {
    fatal("req_prod", |control| control.ring().lie_req_prod(129));
}

#[test]
fn requests_taken_back() {
    fatal("req_prod", |control| control.ring().lie_req_prod(u32::MAX));
}
