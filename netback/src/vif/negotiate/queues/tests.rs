// SPDX-License-Identifier: GPL-3.0-or-later
//! What a frontend may say about its queues, and what it is told when it says something else.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

type Keys = HashMap<String, String>;

fn read(keys: &Keys, offered: u16) -> Result<Queues, NegotiateError> {
    let reader = |key: &str| Ok(keys.get(key).map(|value| Box::from(value.as_str())));
    Queues::read(&FrontendKeys(reader), offered)
}

fn refused(keys: &Keys, offered: u16) -> String {
    read(keys, offered).unwrap_err().to_string()
}

/// What Linux writes for so many queues: references from 100 on, ports from 10 on.
fn linux(queues: u32) -> Keys {
    let mut keys = Keys::from([("multi-queue-num-queues".to_owned(), queues.to_string())]);
    for n in 0..queues {
        let dir = if queues == 1 {
            String::new()
        } else {
            format!("queue-{n}/")
        };
        for (key, value) in [
            ("tx-ring-ref", 100 + 2 * n),
            ("rx-ring-ref", 101 + 2 * n),
            ("event-channel-tx", 10 + 2 * n),
            ("event-channel-rx", 11 + 2 * n),
        ] {
            keys.insert(format!("{dir}{key}"), value.to_string());
        }
    }
    keys
}

fn with(mut keys: Keys, changes: &[(&str, &str)]) -> Keys {
    for (key, value) in changes {
        keys.insert((*key).to_owned(), (*value).to_owned());
    }
    keys
}

fn without(mut keys: Keys, key: &str) -> Keys {
    assert!(keys.remove(key).is_some(), "{key}");
    keys
}

fn split(queue: u32) -> QueueKeys {
    QueueKeys {
        tx_ring: GrantRef::new(100 + 2 * queue),
        rx_ring: GrantRef::new(101 + 2 * queue),
        channels: Channels::Split {
            tx: RemotePort::new(10 + 2 * queue),
            rx: RemotePort::new(11 + 2 * queue),
        },
    }
}

#[test]
fn as_many_as_were_offered_or_fewer() {
    for (asked, offered) in [(1, 1), (1, 4), (2, 4), (4, 4), (32, 32)] {
        let queues = read(&linux(asked), offered).unwrap();
        let expected: Vec<_> = (0..asked).map(split).collect();
        assert_eq!(queues.iter().copied().collect::<Vec<_>>(), expected);
        assert!(queues.are_split());
    }
}

#[test]
fn a_frontend_that_knows_of_no_queues_has_one() {
    let keys = without(linux(1), "multi-queue-num-queues");
    assert_eq!(read(&keys, 4).unwrap().count(), 1);
}

#[test]
fn each_queue_has_one_channel_or_two() {
    let keys = with(linux(2), &[("queue-1/event-channel", "77")]);
    // As with one queue, the pair goes first.
    assert!(read(&keys, 2).unwrap().are_split());
    let queues = read(&without(keys, "queue-1/event-channel-tx"), 2).unwrap();
    assert!(!queues.are_split());
    let last = queues.iter().last().unwrap();
    assert_eq!(last.channels, Channels::Single(RemotePort::new(77)));
}

/// One queue is never in a directory, several are never in the open.
#[test]
fn the_layout_follows_the_number() {
    let one = with(linux(2), &[("multi-queue-num-queues", "1")]);
    assert!(refused(&one, 2).ends_with("has not written tx-ring-ref"));
    let two = with(linux(1), &[("multi-queue-num-queues", "2")]);
    assert!(refused(&two, 2).ends_with("has not written queue-0/tx-ring-ref"));
}

#[test]
fn each_refusal_names_the_key_and_the_value() {
    for (keys, sentence) in [
        (
            linux(0),
            "the frontend asks for 0 queues; this backend offers 3",
        ),
        (
            linux(4),
            "the frontend asks for 4 queues; this backend offers 3",
        ),
        (
            with(linux(1), &[("multi-queue-num-queues", "4294967295")]),
            "the frontend asks for 4294967295 queues; this backend offers 3",
        ),
        (
            with(linux(1), &[("multi-queue-num-queues", "two")]),
            "the frontend wrote multi-queue-num-queues = \"two\", which is not a decimal number of at most 32 bits",
        ),
        (
            without(linux(3), "queue-2/rx-ring-ref"),
            "the frontend is Connected but has not written queue-2/rx-ring-ref",
        ),
        (
            without(linux(3), "queue-1/event-channel-tx"),
            "the frontend is Connected but has not written queue-1/event-channel",
        ),
        (
            without(linux(3), "queue-1/event-channel-rx"),
            "the frontend is Connected but has not written queue-1/event-channel-rx",
        ),
        (
            with(linux(1), &[("rx-ring-ref", "100")]),
            "the frontend gave grant reference 100 twice: as tx-ring-ref and as rx-ring-ref",
        ),
        (
            with(linux(1), &[("event-channel-rx", "10")]),
            "the frontend gave event channel 10 twice: as event-channel-tx and as event-channel-rx",
        ),
        (
            with(linux(3), &[("queue-2/rx-ring-ref", "100")]),
            "the frontend gave grant reference 100 twice: as queue-0/tx-ring-ref and as queue-2/rx-ring-ref",
        ),
        (
            with(linux(2), &[("queue-1/event-channel-rx", "10")]),
            "the frontend gave event channel 10 twice: as queue-0/event-channel-tx and as queue-1/event-channel-rx",
        ),
        (
            without(
                with(linux(2), &[("queue-1/event-channel", "11")]),
                "queue-1/event-channel-tx",
            ),
            "the frontend gave event channel 11 twice: as queue-0/event-channel-rx and as queue-1/event-channel",
        ),
    ] {
        assert_eq!(refused(&keys, 3), sentence);
    }
}

proptest! {
    /// Whatever the keys say: no more queues than offered, no number twice.
    #[test]
    fn what_is_accepted_is_served(
        asked in 0_u32..6,
        offered in 1_u16..6,
        numbers in proptest::collection::vec(0_u32..200, 24),
    ) {
        let mut keys = linux(asked);
        let places: Vec<_> = {
            let mut places: Vec<_> = keys.keys().filter(|key| !key.starts_with("multi")).cloned().collect();
            places.sort();
            places
        };
        // Some numbers are those of others.
        for (place, number) in places.into_iter().zip(numbers) {
            if number < 130 {
                keys.insert(place, number.to_string());
            }
        }
        if let Ok(queues) = read(&keys, offered) {
            prop_assert!(u32::from(queues.count()) == asked && asked <= offered.into());
            let (mut pages, mut ports) = (Vec::new(), Vec::new());
            for queue in queues.iter() {
                pages.extend([queue.tx_ring.raw(), queue.rx_ring.raw()]);
                match queue.channels {
                    Channels::Single(port) => ports.push(port.raw()),
                    Channels::Split { tx, rx } => ports.extend([tx.raw(), rx.raw()]),
                }
            }
            for mut given in [pages, ports] {
                let all = given.len();
                given.sort_unstable();
                given.dedup();
                prop_assert_eq!(given.len(), all);
            }
        }
    }
}

#[test]
fn a_control_ring_is_one_for_all_queues() {
    for queues in [1, 3] {
        let keys = linux(queues);
        assert_eq!(read(&keys, 4).unwrap().control(), None);
        let keys = with(keys, &[("ctrl-ring-ref", "7"), ("event-channel-ctrl", "8")]);
        let control = RingKeys {
            ring: GrantRef::new(7),
            port: RemotePort::new(8),
        };
        assert_eq!(read(&keys, 4).unwrap().control(), Some(control));
    }
}

#[test]
fn a_control_ring_has_a_page_and_a_port_of_its_own() {
    let control = |ring, port| {
        with(
            linux(2),
            &[("ctrl-ring-ref", ring), ("event-channel-ctrl", port)],
        )
    };
    for (keys, sentence) in [
        (
            with(linux(1), &[("ctrl-ring-ref", "7")]),
            "the frontend is Connected but has not written event-channel-ctrl",
        ),
        (
            with(linux(1), &[("event-channel-ctrl", "7")]),
            "the frontend is Connected but has not written ctrl-ring-ref",
        ),
        (
            control("103", "8"),
            "the frontend gave grant reference 103 twice: as queue-1/rx-ring-ref and as ctrl-ring-ref",
        ),
        (
            control("7", "10"),
            "the frontend gave event channel 10 twice: as queue-0/event-channel-tx and as event-channel-ctrl",
        ),
        (
            control("seven", "8"),
            "the frontend wrote ctrl-ring-ref = \"seven\", which is not a decimal number of at most 32 bits",
        ),
    ] {
        assert_eq!(refused(&keys, 4), sentence);
    }
}
