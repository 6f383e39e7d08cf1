// SPDX-License-Identifier: GPL-3.0-or-later
//! Frames to be segmented behind a VLAN tag: the kernel hands them to any tap that takes segments, and no guest can
//! take them whole.

use std::time::Instant;

use hotplug::{Injector, link};
use netback::demo::guest::checksum;
use netback::demo::guest::netfront::Netfront;
use netback_tests::World;
use netback_tests::raw::{assert_no_violation, linux};
use netback_tests::world::PATIENCE;

const ETHERNET: [u8; 12] = [
    0x00, 0x16, 0x3e, 0x00, 0x00, 0x01, 0x00, 0x16, 0x3e, 0xff, 0xff, 0xff,
];
const TAG: [u8; 4] = [0x81, 0x00, 0x00, 0x07];
/// Of no other frame's TCP or UDP.
const PORTS: [u8; 4] = [0x12, 0x67, 0x12, 0x67];
const PAYLOAD: usize = 30_000;
const SEGMENT: usize = 1_000;

/// TCP over IPv4 to be cut into segments, behind a virtio header.
fn frame(tag: &[u8]) -> Vec<u8> {
    let total = u16::try_from(40 + PAYLOAD).unwrap().to_be_bytes();
    let mut tcp = [0; 20];
    tcp[..4].copy_from_slice(&PORTS);
    tcp[12] = 5 << 4;
    let mut frame = [
        ETHERNET.as_slice(),
        &[
            0x08, 0x00, 0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, 6, 0, 0,
        ],
        &[192, 0, 2, 1, 192, 0, 2, 2],
        &tcp,
        &[7; PAYLOAD],
    ]
    .concat();
    assert!(checksum::blank(&mut frame));
    frame.splice(12..12, tag.iter().copied());
    let start = u8::try_from(34 + tag.len()).unwrap();
    let [low, high] = u16::try_from(SEGMENT).unwrap().to_le_bytes();
    let header = [1, 1, start + 20, 0, low, high, start, 0, 16, 0, 0, 0];
    [header.as_slice(), &frame].concat()
}

/// Payloads of the frames that the guest gets of one that goes to its tap.
fn parts(tap: &Injector, netfront: &mut Netfront, tag: &[u8]) -> Vec<usize> {
    tap.send(&frame(tag)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let headers = 54 + tag.len();
    let mut parts = Vec::new();
    while parts.iter().sum::<usize>() < PAYLOAD {
        assert!(
            Instant::now() < deadline,
            "after {parts:?}: {:?}",
            netfront.stats()
        );
        while let Some(received) = netfront.receive() {
            if received.bytes.get(headers - 20..headers - 16) == Some(&PORTS) {
                assert_eq!(received.bytes[12..12 + tag.len()], *tag);
                parts.push(received.bytes.len() - headers);
            }
        }
        netfront.flush();
        std::thread::yield_now();
    }
    parts
}

#[test]
fn are_cut_and_others_stay_whole() {
    let world = World::new();
    let (vif, mut netfront) = world.raw(1, linux());
    link::set_up(&vif.tap()).unwrap();
    crate::hood::reach(&mut netfront, 1);
    let tap = Injector::open(&vif.tap()).unwrap();
    for _ in 0..3 {
        assert_eq!(
            parts(&tap, &mut netfront, &TAG),
            [SEGMENT; PAYLOAD / SEGMENT]
        );
        assert_eq!(parts(&tap, &mut netfront, &[]), [PAYLOAD]);
    }
    assert_no_violation(&netfront);
    assert_eq!(world.vif_status(&vif).unwrap().rx.dropped(), 0);
    world.finish_raw(&vif, netfront);
}
