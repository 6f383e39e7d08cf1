// SPDX-License-Identifier: GPL-3.0-or-later
//! A vif's multicast list is a set of at most 64 addresses, and keeps from the guest what is not in it.
#![no_main]

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netback::vif::MulticastFilter;
use netback_fuzz::Many;
use xen_ring::netif::Multicast;

#[derive(Arbitrary, Debug)]
enum Step {
    Add([u8; 6]),
    /// One of a few, so that the list meets them again.
    AddNth(u8),
    Del([u8; 6]),
    DelNth(u8),
    Request(bool),
    Frame([u8; 20]),
    FrameToNth(u8),
    Broadcast,
}

const fn nth(n: u8) -> [u8; 6] {
    [0x33, 0x33, 0, 0, 0, n % 100]
}

fuzz_target!(|steps: Many<Step>| {
    let (filter, mut model, mut requested) = (MulticastFilter::new(), BTreeSet::new(), false);
    for step in steps.0 {
        let (change, frame) = match step {
            Step::Add(address) => (Multicast::Add(address), vec![]),
            Step::AddNth(n) => (Multicast::Add(nth(n)), vec![]),
            Step::Del(address) => (Multicast::Del(address), vec![]),
            Step::DelNth(n) => (Multicast::Del(nth(n)), vec![]),
            // To remove what is not there does nothing.
            Step::Request(on) => {
                filter.request(on);
                requested = on;
                (Multicast::Del([0xee; 6]), vec![])
            }
            Step::Frame(frame) => (
                Multicast::Del([0xee; 6]),
                frame[..(frame[19] % 20).into()].to_vec(),
            ),
            Step::Broadcast => (Multicast::Del([0xee; 6]), vec![0xff; 60]),
            Step::FrameToNth(n) => (Multicast::Del([0xee; 6]), nth(n).repeat(3)),
        };
        let fits = match change {
            Multicast::Add(address) => {
                let fits = model.contains(&address) || model.len() < 64;
                fits.then(|| model.insert(address)).is_some()
            }
            Multicast::Del(address) => {
                model.remove(&address);
                true
            }
        };
        assert_eq!(filter.change(change).is_ok(), fits);
        assert_eq!(
            (filter.len(), filter.is_empty()),
            (model.len(), model.is_empty())
        );
        let kept = frame
            .first_chunk()
            .is_some_and(|to: &[u8; 6]| to[0] & 1 == 1 && *to != [0xff; 6] && !model.contains(to));
        assert_eq!(filter.blocks(&frame), requested && kept);
    }
});
