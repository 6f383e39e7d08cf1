// SPDX-License-Identifier: GPL-3.0-or-later
//! Hashes: what a guest may ask for over its control ring, every answer to it, and the packets that come with their
//! hash, by the queue that the guest has chosen for it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netback::control::model::ControlStatus;
use netback::demo::guest::control::{self, ExpectedHash};
use netback::demo::guest::netfront::Netfront;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::toolstack::VifSpec;
use netback_tests::World;
use netback_tests::host::add_neighbour;
use netback_tests::raw::{assert_no_violation, drain, reload};
use netback_tests::world::{PATIENCE, guest_ip, until};

use crate::control::{
    DONE, INVALID, KEY, NOT_SUPPORTED, SUCCESS, ask, configured, expect_all, hash_all,
    hash_from_now_on, ring, with_ring,
};

/// netif.h: what was to be written does not fit.
const BUFFER_OVERFLOW: u32 = 3;

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
    reload(&mut netfront);
    assert_eq!(
        ask(&mut netfront, control::GET_HASH_FLAGS, [0; 3]),
        (NOT_SUPPORTED, 0)
    );
    assert_eq!(configured(&world, &vif).hash_mapping_size, 0);
    assert_no_violation(&netfront);
    world.finish_raw(&vif, netfront);
}

/// With every kind of traffic there is: small frames, checksums left blank, segments, and what is not hashed.
#[test]
fn packets_come_with_their_hash() {
    let world = World::new();
    let guest = world.guest(1, with_ring());
    guest.reach();
    hash_from_now_on(&guest);
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
    guest.exercise();
    world.finish_well(guest);
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
    hash_from_now_on(&guest);
    guest.exercise();
    assert!(guest.stats().rx_hashed > 0);
    guest.exercise();
    world.finish_well(guest);
}

/// Only what is asked for is hashed, by the most specific type.
#[test]
fn types_are_chosen_one_by_one() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, with_ring());
    hash_all(&mut netfront);
    let to = SocketAddr::from((guest_ip(1), 4_711));
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    add_neighbour(guest_ip(1), "vif1.0");
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
        drain(&mut netfront);
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
    assert_no_violation(&netfront);
    world.finish_raw(&vif, netfront);
}

/// A packet comes by the queue that the guest's table has for its hash; and by the hash itself, without a table.
#[test]
fn packets_are_steered_by_the_guests_table() {
    let world = World::smp();
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
            let hash = hash.unwrap();
            let expected = match table {
                [] => hash % 4,
                table => table[hash as usize % table.len()],
            };
            assert_eq!(queue, expected, "{table:?}, hash {hash:#x}");
        }
    }
    assert_no_violation(&netfront);
    world.finish_raw(&vif, netfront);
}

/// Without a hash the choice is the host's, which uses all queues: when the guest takes back what it has said, comes
/// anew, or has told it to a daemon that is gone. The tap outlives all three.
#[test]
fn a_table_is_forgotten_by_the_tap_too() {
    let mut world = World::smp();
    let options = FrontendOptions {
        queues: 4,
        ..with_ring()
    };
    let (vif, mut netfront) = world.raw(1, options);
    let ends: [fn(&mut World, &VifSpec, &mut Netfront); 3] = [
        |_, _, netfront| {
            let answer = ask(netfront, control::SET_HASH_ALGORITHM, [0, 0, 0]);
            assert_eq!(answer, DONE);
        },
        |_, _, netfront| reload(netfront),
        |world, vif, _| {
            world.restart_daemon();
            world.wait_status(vif, "connected");
        },
    ];
    for end in ends {
        hash_all(&mut netfront);
        let answer = ask(&mut netfront, control::SET_HASH_MAPPING_SIZE, [1, 0, 0]);
        assert_eq!(answer, DONE);
        assert_eq!(
            ring(&mut netfront).set_mapping(&[3], 0, PATIENCE).unwrap(),
            DONE
        );
        let queues = |netfront: &mut Netfront| -> BTreeSet<u32> {
            let flows = (0..20).map(|flow| queue_of_a_flow(netfront, flow).0);
            flows.collect()
        };
        assert_eq!(queues(&mut netfront), [3].into());
        end(&mut world, &vif, &mut netfront);
        assert!(queues(&mut netfront).len() > 1);
    }
    assert_no_violation(&netfront);
    world.finish_raw(&vif, netfront);
}

/// Sends a datagram of a flow of its own to domain 1 until it arrives: by which queue, and with which hash, if it has one.
fn queue_of_a_flow(netfront: &mut Netfront, flow: u32) -> (u32, Option<u32>) {
    let address = Ipv4Addr::from(u32::from(guest_ip(1)) + 1 + flow);
    add_neighbour(address, "vif1.0");
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
                let hash = frame.hash.map(|(_, hash)| hash);
                found = Some((u32::try_from(queue).unwrap(), hash));
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
    let world = World::smp();
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
    world.finish_raw(&vif, netfront);
}
