// SPDX-License-Identifier: GPL-3.0-or-later
//! Guests that lie. Whatever one of them does ends its own vif at most, with a reason; it can come back when it
//! behaves; and the neighbour on the same worker does not notice.

use netback::demo::guest::checksum::Checksum;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::guest::queue::TxQueue;
use netback::demo::sim::GuestPage;
use netback_tests::raw::{assert_no_violation, linux, reload};
use netback_tests::world::until;
use xen_ring::DomId;
use xen_ring::front::tx_flags::{EXTRA_INFO, MORE_DATA};
use xen_ring::front::{FrontExtra, FrontTxRequest, FrontTxSlot};

use crate::hood::{neighbourhood, neighbourhood_after};

/// `lie` is told in the tx ring of a connected vif; the backend must answer as `text` says. The vif then comes back
/// with an honest driver.
fn fatal(text: &str, lie: impl FnOnce(&mut TxQueue)) {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, linux());
    lie(netfront.tx_queue().unwrap());
    netfront.kick();
    hood.assert_closed(&vif, text);
    hood.assert_unharmed();

    reload(&mut netfront);
    hood.world.wait_forgiven(&vif);
    netfront.send(&[0xff; 60], Checksum::Complete).unwrap();
    netfront.flush();
    until("the honest frame is taken", || {
        netfront.flush();
        netfront.stats().tx_okay >= 1
    });
    hood.finish_raw(&vif, netfront);
}

/// A good request for `size` bytes in the page of `id`.
fn request(queue: &TxQueue, id: u16, size: u16) -> FrontTxRequest {
    let gref = queue.page_ref(id).unwrap().raw();
    FrontTxRequest {
        gref,
        offset: 0,
        flags: 0,
        id,
        size,
    }
}

/// Publishes whole slots as they are.
fn publish(queue: &mut TxQueue, slots: impl IntoIterator<Item = FrontTxSlot>) {
    for slot in slots {
        queue.push(slot).unwrap();
    }
    let _kicked_anyway = queue.ring().publish();
}

/// Publishes a request of 60 bytes with these extras behind it.
fn publish_extras(queue: &mut TxQueue, extras: &[FrontExtra], flags: u16) {
    let first = FrontTxRequest {
        flags: EXTRA_INFO | flags,
        ..request(queue, 0, 60)
    };
    let extras = extras.iter().map(|extra| FrontTxSlot::Extra(*extra));
    publish(
        queue,
        std::iter::once(FrontTxSlot::Request(first)).chain(extras),
    );
}

const fn extra(kind: u8, flags: u8) -> FrontExtra {
    FrontExtra {
        kind,
        flags,
        body: [1, 0, 1, 0, 0, 0],
    }
}

#[test]
fn more_requests_than_slots() {
    fatal("tx ring: the frontend set req_prod", |queue| {
        let next = queue.ring().next_index();
        queue.ring().lie_req_prod(next.wrapping_add(300));
    });
}

#[test]
fn requests_taken_back() {
    fatal("tx ring: the frontend set req_prod", |queue| {
        let next = queue.ring().next_index();
        queue.ring().lie_req_prod(next.wrapping_sub(1));
    });
}

#[test]
fn a_packet_without_its_end() {
    fatal("incomplete packet", |queue| {
        let first = FrontTxRequest {
            flags: MORE_DATA,
            ..request(queue, 0, 60)
        };
        publish(queue, [FrontTxSlot::Request(first)]);
    });
}

#[test]
fn an_extra_without_its_slot() {
    fatal("incomplete packet", |queue| publish_extras(queue, &[], 0));
}

#[test]
fn a_packet_of_far_too_many_slots() {
    fatal("slots after the first", |queue| {
        let slots: Vec<_> = (0..30)
            .map(|id| {
                let flags = if id < 29 { MORE_DATA } else { 0 };
                FrontTxSlot::Request(FrontTxRequest {
                    flags,
                    ..request(queue, id, 30)
                })
            })
            .collect();
        publish(queue, slots);
    });
}

#[test]
fn extras_of_no_known_type() {
    for kind in [0, 6, 255] {
        fatal("unknown type", |queue| {
            publish_extras(queue, &[extra(kind, 0)], 0)
        });
    }
}

#[test]
fn two_extras_of_one_type() {
    fatal("two extra infos", |queue| {
        publish_extras(queue, &[extra(1, 1), extra(1, 0)], 0)
    });
}

#[test]
fn a_gso_extra_of_segment_size_zero() {
    let zero = FrontExtra {
        body: [0, 0, 1, 0, 0, 0],
        ..extra(1, 0)
    };
    fatal("segment size 0", |queue| publish_extras(queue, &[zero], 0));
}

#[test]
fn a_gso_extra_of_no_known_protocol() {
    let unknown = FrontExtra {
        body: [100, 0, 9, 0, 0, 0],
        ..extra(1, 0)
    };
    fatal("GSO", |queue| publish_extras(queue, &[unknown], 0));
}

#[test]
fn slots_that_leave_their_page() {
    for (offset, size) in [(4_000, 97), (4_096, 14), (65_535, 14), (1, 4_096)] {
        fatal("crosses its page", |queue| {
            let slot = FrontTxRequest {
                offset,
                ..request(queue, 0, size)
            };
            publish(queue, [FrontTxSlot::Request(slot)]);
        });
    }
}

#[test]
fn a_multicast_request_with_data() {
    fatal("multicast", |queue| {
        publish_extras(queue, &[extra(2, 0)], MORE_DATA)
    });
}

#[test]
fn a_multicast_request_that_contradicts_itself() {
    fatal("multicast", |queue| {
        publish_extras(queue, &[extra(2, 1), extra(3, 0)], 0)
    });
}

/// Of a change of the multicast list nothing counts but the extra info: no page is looked at, and no byte is charged.
#[test]
fn a_multicast_request_that_says_nonsense_of_its_data() {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, linux());
    let queue = netfront.tx_queue().unwrap();
    for id in 0..100 {
        let dummy = FrontTxRequest {
            gref: u32::MAX,
            offset: u16::MAX,
            flags: EXTRA_INFO | 3,
            ..request(queue, id, u16::MAX)
        };
        let add = extra(2 + u8::from(id % 2 == 1), 0);
        publish(
            queue,
            [FrontTxSlot::Request(dummy), FrontTxSlot::Extra(add)],
        );
    }
    netfront.kick();
    until("all are answered", || {
        netfront.flush();
        netfront.stats().tx_okay == 100
    });
    assert_eq!(netfront.stats().tx_null, 100);
    let status = hood.world.vif_status(&vif).unwrap();
    assert_eq!(
        (status.tx.packets, status.tx.bytes, status.tx.dropped()),
        (0, 0, 0)
    );
    assert_eq!((status.multicast_addresses, status.reason), (Some(0), None));
    hood.finish_raw(&vif, netfront);
}

/// Indices that are out of bounds before the backend has ever looked at them.
#[test]
fn a_ring_that_is_broken_from_the_beginning() {
    let mut hood = neighbourhood();
    let vif = hood.world.attach(1);
    hood.world.machine.stop_daemon().unwrap();
    let mut netfront = hood.world.frontend(&vif, linux());
    netfront.publish().unwrap();
    netfront.rx_queue().unwrap().ring().lie_req_prod(4_711);
    hood.world.machine.start_daemon().unwrap();
    hood.assert_closed(&vif, "4711");
    hood.finish_raw(&vif, netfront);
}

#[test]
fn an_rx_ring_that_overflows() {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, linux());
    let ring = netfront.rx_queue().unwrap().ring();
    let next = ring.next_index();
    ring.lie_req_prod(next.wrapping_add(1_000));
    netfront.kick();
    hood.assert_closed(&vif, "rx ring: the frontend set req_prod");
    hood.finish_raw(&vif, netfront);
}

/// Harmless nonsense: answered with an error, slot by slot, and the vif goes on.
#[test]
fn what_is_only_dropped() {
    let hood = neighbourhood();
    let (vif, mut netfront) = hood.world.raw(1, linux());
    let queue = netfront.tx_queue().unwrap();
    // Shorter than an Ethernet header.
    let short = request(queue, 0, 13);
    // A second slot that is longer than the whole.
    let first = FrontTxRequest {
        flags: MORE_DATA,
        ..request(queue, 1, 100)
    };
    let second = request(queue, 2, 200);
    // References that were never granted, or not for this.
    let no_gref = FrontTxRequest {
        gref: u32::MAX,
        ..request(queue, 3, 60)
    };
    let reserved = FrontTxRequest {
        gref: 0,
        ..request(queue, 4, 60)
    };
    publish(
        queue,
        [short, first, second, no_gref, reserved].map(FrontTxSlot::Request),
    );
    netfront.kick();
    until("all five slots are answered", || {
        netfront.flush();
        let stats = netfront.stats();
        stats.tx_error + stats.tx_dropped + stats.tx_okay == 5
    });
    assert_no_violation(&netfront);
    assert_eq!(netfront.stats().tx_okay, 0);
    let dropped = hood.world.vif_status(&vif).unwrap().tx.dropped();
    assert_eq!(dropped, 4, "four packets");
    assert_eq!(hood.world.error(&vif), None);

    netfront.send(&[0xff; 60], Checksum::Complete).unwrap();
    netfront.flush();
    until("a good frame goes through", || {
        netfront.flush();
        netfront.stats().tx_okay == 1
    });
    hood.finish_raw(&vif, netfront);
}

/// The numbers of a neighbour's rings and ports, which mean nothing in the liar's own domain.
#[test]
fn numbers_of_another_guest() {
    for (stolen, refused) in [
        (["tx-ring-ref", "rx-ring-ref"], "ring"),
        (["event-channel-tx", "event-channel-rx"], "event channel"),
    ] {
        let hood = neighbourhood_after(|world| {
            // The neighbour's numbers are to be such as the liar has not.
            let guest = world.machine.hypervisor().guest(DomId::new(100));
            let pages = GuestPage::many(1_000).unwrap();
            let grants: Vec<_> = pages
                .iter()
                .map(|page| guest.grant(page, false).unwrap())
                .collect();
            let ports: Vec<_> = (0..20).map(|_| guest.alloc_port().unwrap()).collect();
            (grants, ports)
        });
        let neighbours = hood.neighbour.vif.frontend_dir();
        let of_neighbour = |key: &str| {
            let value = hood.world.toolstack().read(&format!("{neighbours}/{key}"));
            value.unwrap().unwrap()
        };
        let overrides = stolen.map(|key| (key.to_owned(), Some(of_neighbour(key))));
        let vif = hood.world.attach(1);
        let options = FrontendOptions {
            overrides: overrides.to_vec(),
            ..linux()
        };
        let mut netfront = hood.world.frontend(&vif, options);
        netfront.publish().unwrap();
        hood.assert_closed(&vif, refused);
        for _ in 0..100 {
            netfront.kick();
        }
        hood.finish_raw(&vif, netfront);
    }
}
