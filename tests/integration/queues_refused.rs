// SPDX-License-Identifier: GPL-3.0-or-later
//! Several queue pairs of one vif, of which one is wrong from the beginning or turns out to be: all go with it, with a
//! reason that names it.

use hotplug::link;
use netback::demo::guest::checksum::Checksum;
use netback::demo::guest::options::FrontendOptions;
use netback_tests::raw::reload;
use netback_tests::world::{PATIENCE, until};
use xenbus::ErrorCode;
use xenbus::wire::Kind;

use crate::hood::neighbourhood;
use crate::malformed::refused_options;
use crate::queues::linux;

/// A guest's mistake with `queues` queues: refused, and served when the driver starts anew without it.
fn refused(text: &str, queues: u16, overrides: &[(&str, Option<&str>)]) {
    refused_options(text, linux(queues), overrides);
}

#[test]
fn more_queues_than_directories() {
    refused(
        "has not written queue-2/tx-ring-ref",
        2,
        &[("multi-queue-num-queues", Some("3"))],
    );
}

#[test]
fn several_queues_in_the_open() {
    refused(
        "has not written queue-0/tx-ring-ref",
        1,
        &[("multi-queue-num-queues", Some("2"))],
    );
}

#[test]
fn a_queue_without_its_directory() {
    refused("queue-1/tx-ring-ref", 3, &[("queue-1", None)]);
}

#[test]
fn a_queue_without_a_channel() {
    refused(
        "queue-1/event-channel-rx",
        2,
        &[("queue-1/event-channel-rx", None)],
    );
}

#[test]
fn one_page_for_two_queues() {
    refused(
        "grant reference 9 twice: as queue-0/tx-ring-ref and as queue-3/rx-ring-ref",
        4,
        &[
            ("queue-0/tx-ring-ref", Some("9")),
            ("queue-3/rx-ring-ref", Some("9")),
        ],
    );
}

#[test]
fn one_channel_for_two_queues() {
    refused(
        "event channel 2 twice: as queue-0/event-channel-rx and as queue-1/event-channel-tx",
        2,
        &[
            ("queue-0/event-channel-rx", Some("2")),
            ("queue-1/event-channel-tx", Some("2")),
        ],
    );
}

/// The other queues are up or about to be when one turns out not to be there; all have to go again.
#[test]
fn a_ring_of_one_queue_that_was_not_granted() {
    for queue in ["queue-0", "queue-3"] {
        let key = format!("{queue}/rx-ring-ref");
        let name = queue.replace('-', " ");
        refused(
            &format!("{name}: the rx ring"),
            4,
            &[(key.as_str(), Some("4000000000"))],
        );
    }
}

#[test]
fn a_channel_of_one_queue_that_was_not_allocated() {
    refused(
        "queue 2: the event channel",
        4,
        &[("queue-2/event-channel-tx", Some("4711"))],
    );
}

#[test]
fn more_than_offered_or_none() {
    for number in ["5", "0", "65537", "4294967295"] {
        refused(
            &format!("{number} queues; this backend offers 4"),
            4,
            &[("multi-queue-num-queues", Some(number))],
        );
    }
}

/// Whether the guest gave what is not there or the host has no room for it cannot be told apart: the driver that comes
/// back may fare better with fewer.
#[test]
fn fewer_are_offered_to_whom_they_could_not_be_served() {
    let mut hood = neighbourhood();
    hood.world.vcpus = 4;
    for (dom, queues, offered) in [(1, 4, 2), (2, 2, 1)] {
        let vif = hood.world.attach(dom);
        let key = format!("queue-{}/rx-ring-ref", queues - 1);
        let liar = FrontendOptions {
            overrides: vec![(key, Some("4000000000".to_owned()))],
            ..linux(queues)
        };
        let guest = hood.world.boot(vif.clone(), 1500, liar);
        guest.wait_closed();
        let told = format!("its driver is offered {offered} when it starts anew");
        let error = hood.world.error(&vif).unwrap();
        assert!(error.ends_with(&told), "{error}");
        guest.reload_with(|options| options.overrides.clear());
        hood.world.wait_forgiven(&vif);
        guest.exercise();
        let status = hood.world.vif_status(&vif).unwrap();
        assert_eq!(status.queues, offered);
        let told = format!("its driver is offered {offered} at most");
        assert!(status.reason.unwrap().contains(&told));
        hood.world.remove(guest);

        // Who is attached anew is offered all.
        let guest = hood.world.guest(dom, linux(queues));
        let status = hood.world.vif_status(&guest.vif).unwrap();
        assert_eq!((status.queues, status.reason), (queues, None));
        guest.exercise();
        hood.world.remove(guest);
    }
    hood.finish();
}

/// What it was offered before is in the store all the while.
#[test]
fn fewer_are_offered_by_a_store_that_refuses_at_first() {
    let mut hood = neighbourhood();
    hood.world.vcpus = 4;
    let vif = hood.world.attach(1);
    let liar = FrontendOptions {
        overrides: vec![(
            "queue-3/rx-ring-ref".to_owned(),
            Some("4000000000".to_owned()),
        )],
        ..linux(4)
    };
    let guest = hood.world.boot(vif.clone(), 1500, liar);
    guest.wait_closed();
    guest.with(|netfront| netfront.close(PATIENCE).unwrap());
    until("the backend is closed", || {
        hood.world.backend_state(&vif).as_deref() == Some("6")
    });
    hood.world
        .machine
        .xenstored()
        .with(|store| {
            // The frontend's own state, and then what is offered.
            store.faults.skip = 1;
            store
                .faults
                .refusals
                .push_back((Kind::Write, ErrorCode::NoSpc));
        })
        .unwrap();
    guest.with(|netfront| {
        netfront.options_mut().overrides.clear();
        netfront.open(PATIENCE).unwrap();
    });
    guest.exercise();
    assert_eq!(hood.world.vif_status(&vif).unwrap().queues, 2);
    hood.world.remove(guest);
    hood.finish();
}

/// Half of what could not be served, again and again, until it is one.
#[test]
fn fewer_and_fewer_are_offered() {
    let mut hood = neighbourhood();
    hood.world.vcpus = 4;
    let vif = hood.world.attach(1);
    let bad = |queue| {
        (
            format!("queue-{queue}/rx-ring-ref"),
            Some("4000000000".to_owned()),
        )
    };
    let liar = FrontendOptions {
        overrides: vec![bad(3)],
        ..linux(4)
    };
    let guest = hood.world.boot(vif.clone(), 1500, liar);
    guest.wait_closed();
    // It asks for two now, of which the second is as bad.
    guest.with(move |netfront| netfront.options_mut().overrides = vec![bad(1)]);
    guest
        .with(|netfront| {
            netfront
                .close(PATIENCE)
                .and_then(|()| netfront.open(PATIENCE))
        })
        .unwrap_err();
    until("one is offered", || {
        let error = hood.world.error(&vif);
        error.is_some_and(|error| error.ends_with("its driver is offered 1 when it starts anew"))
    });
    guest.reload_with(|options| options.overrides.clear());
    hood.world.wait_forgiven(&vif);
    guest.exercise();
    assert_eq!(hood.world.vif_status(&vif).unwrap().queues, 1);
    hood.world.remove(guest);
    hood.finish();
}

/// One queue that breaks the protocol ends the vif with all its queues, and nothing else.
#[test]
fn a_fault_on_one_queue() {
    for queue in 0..4 {
        let mut hood = neighbourhood();
        hood.world.vcpus = 4;
        let (vif, mut netfront) = hood.world.raw(1, linux(4));
        let ring = netfront.tx_queue_of(queue).unwrap().ring();
        let next = ring.next_index();
        ring.lie_req_prod(next.wrapping_add(300));
        netfront.kick();
        hood.assert_closed(&vif, &format!("queue {queue}: "));
        until("the tap has the one queue that stays", || {
            link::tap_queues(&vif.tap()).unwrap() == 1
        });
        hood.assert_unharmed();

        reload(&mut netfront);
        hood.world.wait_forgiven(&vif);
        for queue in 0..4 {
            netfront
                .send_on(queue, &[0xff; 60], Checksum::Complete)
                .unwrap();
        }
        netfront.flush();
        until("each queue takes an honest frame", || {
            netfront.flush();
            netfront.stats().tx_okay >= 4
        });
        hood.finish_raw(&vif, netfront);
    }
}

/// Workers find out at the same time, each on its own; it is one failure all the same.
#[test]
fn a_fault_on_every_queue() {
    let mut hood = neighbourhood();
    hood.world.vcpus = 4;
    let (vif, mut netfront) = hood.world.raw(1, linux(4));
    for _ in 0..3 {
        for queue in 0..4 {
            let ring = netfront.tx_queue_of(queue).unwrap().ring();
            let next = ring.next_index();
            ring.lie_req_prod(next.wrapping_sub(1));
        }
        netfront.kick();
        hood.assert_closed(&vif, "req_prod");
        reload(&mut netfront);
        hood.world.wait_forgiven(&vif);
    }
    hood.finish_raw(&vif, netfront);
}
