// SPDX-License-Identifier: GPL-3.0-or-later
//! Every message with every status that it can end with.

use proptest::prelude::*;

use super::*;

const PAGE: u32 = 77;

fn request(machine: &mut Machine, kind: u16, data: [u32; 3]) -> Step {
    machine.request(&CtrlRequest { id: 1, kind, data })
}

/// The answer to a request that needs no list.
fn answer(machine: &mut Machine, kind: u16, data: [u32; 3]) -> Reply {
    match request(machine, kind, data) {
        Step::Decided(Decision::Reply(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

/// What follows when the list of a request is `bytes`, which is as long as was asked for.
fn with_list(machine: &mut Machine, kind: u16, data: [u32; 3], bytes: &[u8]) -> Decision {
    match request(machine, kind, data) {
        Step::Fetch(fetch) => {
            assert_eq!(
                (fetch.gref.raw(), usize::from(fetch.bytes)),
                (PAGE, bytes.len())
            );
            machine.fetched(fetch.purpose, fetch.gref, bytes)
        }
        other => panic!("{other:?}"),
    }
}

fn status(status: CtrlStatus) -> Reply {
    Reply { status, data: 0 }
}

fn data(data: u32) -> Reply {
    Reply {
        status: CtrlStatus::Success,
        data,
    }
}

fn table(entries: &[u32]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect()
}

fn gref_list(entries: &[(u32, u16)]) -> Vec<u8> {
    let entry = |(gref, flags): &(u32, u16)| {
        let [a, b, c, d] = gref.to_le_bytes();
        let [e, f] = flags.to_le_bytes();
        [a, b, c, d, e, f, 0xaa, 0xaa]
    };
    entries.iter().flat_map(entry).collect()
}

fn toeplitz(queues: u16) -> Machine {
    let mut machine = Machine::new(queues, true);
    assert_eq!(answer(&mut machine, 7, [1, 0, 0]), Reply::DONE);
    assert_eq!(answer(&mut machine, 2, [15, 0, 0]), Reply::DONE);
    machine
}

#[test]
fn unknown_messages_are_not_supported() {
    let mut machine = Machine::new(1, true);
    for kind in [0, 11, 255, u16::MAX] {
        assert_eq!(
            answer(&mut machine, kind, [0; 3]),
            status(CtrlStatus::NotSupported)
        );
    }
    assert_eq!(machine.changed(), None);
}

#[test]
fn the_algorithm_and_its_types() {
    let mut machine = Machine::new(1, true);
    assert_eq!(
        answer(&mut machine, 1, [0; 3]),
        status(CtrlStatus::NotSupported)
    );
    assert_eq!(answer(&mut machine, 2, [1, 0, 0]), Reply::INVALID);
    for unknown in [2, 257, u32::MAX] {
        assert_eq!(answer(&mut machine, 7, [unknown, 0, 0]), Reply::INVALID);
    }
    assert!(machine.changed().is_none());
    assert_eq!(answer(&mut machine, 7, [1, 0, 0]), Reply::DONE);
    assert_eq!(answer(&mut machine, 1, [0; 3]), data(0b1111));
    assert_eq!(machine.changed().unwrap().hasher(), None, "no types yet");
    assert_eq!(machine.changed(), None, "told already");
    for unknown in [16, 31, u32::MAX] {
        assert_eq!(answer(&mut machine, 2, [unknown, 0, 0]), Reply::INVALID);
    }
    assert_eq!(answer(&mut machine, 2, [0b0110, 0, 0]), Reply::DONE);
    assert!(machine.changed().unwrap().hasher().is_some());
    assert_eq!(answer(&mut machine, 2, [0, 0, 0]), Reply::DONE);
    assert!(machine.changed().unwrap().hasher().is_none());
    assert_eq!(answer(&mut machine, 2, [15, 0, 0]), Reply::DONE);
    assert_eq!(answer(&mut machine, 7, [0, 0, 0]), Reply::DONE);
    assert!(machine.changed().unwrap().hasher().is_none());
    assert_eq!(
        answer(&mut machine, 1, [0; 3]),
        status(CtrlStatus::NotSupported)
    );
}

#[test]
fn a_hash_that_could_not_steer_is_not_offered() {
    let mut machine = Machine::new(2, false);
    assert_eq!(
        answer(&mut machine, 7, [1, 0, 0]),
        status(CtrlStatus::NotSupported)
    );
    assert_eq!(answer(&mut machine, 7, [0, 0, 0]), Reply::DONE);
    assert_eq!(answer(&mut machine, 7, [2, 0, 0]), Reply::INVALID);
}

#[test]
fn the_key() {
    let mut machine = toeplitz(1);
    for long in [41, 4096, u32::MAX] {
        assert_eq!(
            answer(&mut machine, 3, [PAGE, long, 0]),
            status(CtrlStatus::BufferOverflow)
        );
    }
    let long = with_list(&mut machine, 3, [PAGE, 40, 0], &[9; 40]);
    assert_eq!(long, Decision::Reply(Reply::DONE));
    assert_eq!(machine.changed().unwrap().key, Key::new(&[9; 40]).unwrap());
    // A shorter one replaces it as a whole; one without bytes needs no page and clears it.
    let short = with_list(&mut machine, 3, [PAGE, 2, 0], &[1, 2]);
    assert_eq!(short, Decision::Reply(Reply::DONE));
    assert_eq!(machine.changed().unwrap().key, Key::new(&[1, 2]).unwrap());
    assert_eq!(answer(&mut machine, 3, [0, 0, 0]), Reply::DONE);
    assert_eq!(machine.changed().unwrap().key, Key::default());
}

#[test]
fn the_mapping_table() {
    let mut machine = toeplitz(3);
    assert_eq!(answer(&mut machine, 4, [0; 3]), data(128));
    for large in [129, u32::MAX] {
        assert_eq!(answer(&mut machine, 5, [large, 0, 0]), Reply::INVALID);
    }
    assert_eq!(answer(&mut machine, 5, [4, 0, 0]), Reply::DONE);
    assert_eq!(machine.changed().unwrap().mapping[..], [0; 4]);
    let set = with_list(&mut machine, 6, [PAGE, 2, 1], &table(&[2, 1]));
    assert_eq!(set, Decision::Reply(Reply::DONE));
    assert_eq!(machine.changed().unwrap().mapping[..], [0, 2, 1, 0]);
    // A part that names a missing queue changes nothing (XSA-270 judged the old table).
    for missing in [3, 0x1_0000, u32::MAX] {
        let refused = with_list(&mut machine, 6, [PAGE, 2, 0], &table(&[1, missing]));
        assert_eq!(refused, Decision::Reply(Reply::INVALID));
        assert_eq!(machine.changed(), None);
    }
    // Sums that overflow, or do not.
    for (count, offset) in [
        (1, 4),
        (5, 0),
        (2, 3),
        (1, u32::MAX),
        (u32::MAX, 1),
        (0x8000_0000, 0x8000_0000),
        (0x1_0000, 0),
        (0, 5),
    ] {
        assert_eq!(
            answer(&mut machine, 6, [PAGE, count, offset]),
            Reply::INVALID
        );
    }
    assert_eq!(
        answer(&mut machine, 6, [PAGE, 0, 4]),
        Reply::DONE,
        "no entries, no page"
    );
    assert_eq!(answer(&mut machine, 5, [2, 0, 0]), Reply::DONE);
    assert_eq!(
        machine.changed().unwrap().mapping[..],
        [0; 2],
        "zero-filled anew"
    );
    assert_eq!(answer(&mut machine, 5, [0, 0, 0]), Reply::DONE);
    assert!(machine.changed().unwrap().mapping.is_empty());
    assert_eq!(answer(&mut machine, 5, [128, 0, 0]), Reply::DONE);
    let whole = with_list(&mut machine, 6, [PAGE, 128, 0], &table(&[2; 128]));
    assert_eq!(whole, Decision::Reply(Reply::DONE));
}

#[test]
fn static_grants() {
    let mut machine = Machine::new(2, true);
    assert_eq!(answer(&mut machine, 8, [1, 0, 0]), data(512));
    for (kind, list) in [(8, 0), (9, PAGE), (10, PAGE)] {
        for missing in [2, 0x1_0001, u32::MAX] {
            assert_eq!(
                answer(&mut machine, kind, [missing, list, 1]),
                Reply::INVALID
            );
        }
    }
    for kind in [9, 10] {
        for count in [513, 0x2000_0001, u32::MAX] {
            assert_eq!(answer(&mut machine, kind, [0, PAGE, count]), Reply::INVALID);
        }
    }
    let bytes = gref_list(&[(8, 0), (9, 1)]);
    let added = with_list(&mut machine, 9, [1, PAGE, 2], &bytes);
    let wanted = vec![
        (GrantRef::new(8), Access::ReadWrite),
        (GrantRef::new(9), Access::ReadOnly),
    ];
    let order = |change| Decision::Order(Order { queue: 1, change });
    assert_eq!(added, order(Change::Add(wanted)));
    for flags in [2, 3, 0x8000] {
        let refused = with_list(&mut machine, 9, [1, PAGE, 1], &gref_list(&[(8, flags)]));
        assert_eq!(refused, Decision::Reply(Reply::INVALID));
    }
    assert_eq!(
        request(&mut machine, 9, [1, 0, 0]),
        Step::Decided(order(Change::Add(Vec::new())))
    );

    let deleted = with_list(&mut machine, 10, [1, PAGE, 2], &bytes);
    let entries: Vec<_> = entries(&bytes).collect();
    let list = GrantRef::new(PAGE);
    let change = Change::Delete {
        list,
        entries: entries.clone(),
    };
    assert_eq!(deleted, order(change));
    let done = vec![false, true];
    let back: Vec<u8> = answered(&entries, &done).flatten().collect();
    assert_eq!(back, [8, 0, 0, 0, 0, 0, 2, 0, 9, 0, 0, 0, 1, 0, 0, 0]);
    let deleted = Outcome::Deleted {
        list,
        entries,
        deleted: done,
    };
    assert_eq!(deleted.reply(), data(1));
    assert_eq!(Outcome::Added.reply(), Reply::DONE);
    assert_eq!(Outcome::Refused.reply(), Reply::INVALID);
    assert_eq!(machine.changed(), None);
}

proptest! {
    /// Whatever is asked, with whatever lists, every entry of the table is a queue that there is.
    #[test]
    fn the_table_names_only_queues_that_there_are(
        queues in 1_u16..5,
        requests in proptest::collection::vec((0_u16..12, any::<[u8; 3]>(), any::<u8>()), 0..50),
    ) {
        let mut machine = Machine::new(queues, true);
        for (kind, data, byte) in requests {
            let step = request(&mut machine, kind, data.map(|data| u32::from(data) % 9));
            if let Step::Fetch(fetch) = step {
                let mut bytes = vec![0; usize::from(fetch.bytes)];
                bytes.iter_mut().step_by(4).for_each(|low| *low = byte % 7);
                machine.fetched(fetch.purpose, fetch.gref, &bytes);
            }
            prop_assert!(machine.config.mapping.iter().all(|queue| *queue < queues));
        }
    }
}
