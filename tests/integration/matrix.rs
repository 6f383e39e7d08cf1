// SPDX-License-Identifier: GPL-3.0-or-later
//! Every way in which a frontend can put its features together: TCP over IPv4 and IPv6, each way, arrives byte for
//! byte; each offload is used where it was agreed, and only there; nothing is dropped, and nothing is left.
//!
//! What cannot be together is asked for all the same, as nothing keeps a guest from it: segments without
//! scatter-gather or without blank checksums are served without segments.
//!
//! How much goes each way over each of IPv4 and IPv6 is a few hundred kB, or as many bytes as the environment variable
//! `NETBACK_MATRIX_BYTES` says. Then each combination is also told of on stderr as it is done. With a gigabyte, it
//! takes an hour or so:
//!
//! ```text
//! NETBACK_MATRIX_BYTES=1073741824 cargo test --release -p netback-tests --test integration matrix
//! ```
//!
//! The streams are compared as they come, every byte with the one that belongs at its place; nothing is kept.

use std::collections::BTreeSet;
use std::env::VarError;
use std::fs;
use std::io::Write;
use std::net::SocketAddrV6;
use std::time::{Duration, Instant};

use netback::demo::guest::options::FrontendOptions;
use netback::demo::guest::queue::FrontStats;
use netback::demo::probe::{self, Bound, Peer};
use netback::vif::feature::{Feature, Features};
use netback_tests::world::{PATIENCE, guest_address, guest_ip, until};
use netback_tests::{TestGuest, World};

/// Names the volume, if it is not to be [`BYTES`].
const VOLUME: &str = "NETBACK_MATRIX_BYTES";
/// A few full windows at first, and no round number of segments, pages or slots.
const BYTES: u64 = 300_007;
/// Slower than any transfer, also in a debug build beside other tests: when to give up, never how fast it must be.
const BYTES_PER_SECOND: u64 = 1 << 20;

#[test]
fn one_queue_and_one_channel() {
    all_of(1, false);
}

#[test]
fn one_queue_and_split_channels() {
    all_of(1, true);
}

#[test]
fn two_queues_and_one_channel() {
    all_of(2, false);
}

#[test]
fn two_queues_and_split_channels() {
    all_of(2, true);
}

/// All combinations of what goes with these, each by a guest of its own, in one daemon's life.
fn all_of(queues: u16, split_event_channels: bool) {
    let asked = asked_volume();
    let bytes = asked.unwrap_or(BYTES);
    let world = World::smp();
    without_address_detection();
    for (dom, bits) in (1..).zip(0..32_u8) {
        let [sg, gso, gso_v6, csum_offload, ipv6_csum_offload] =
            std::array::from_fn(|bit| bits & (1 << bit) != 0);
        let options = FrontendOptions {
            queues,
            split_event_channels,
            sg,
            gso,
            gso_v6,
            csum_offload,
            ipv6_csum_offload,
            blank_tx: csum_offload || ipv6_csum_offload,
            ..FrontendOptions::default()
        };
        let case = format!("{options:?}");
        let guest = world.guest(dom, options.clone());
        let vif = world.vif_status(&guest.vif).unwrap();
        let agreed = agreed(&options);
        assert_eq!((vif.features.on, vif.queues), (agreed, queues), "{case}");
        let workers: BTreeSet<_> = vif.by_queue.iter().filter_map(|own| own.worker).collect();
        assert_eq!(workers.len(), usize::from(queues), "{case}");

        guest.reach();
        let started = Instant::now();
        transfer(guest_ip(dom).into(), bytes, &case);
        transfer(on_link(&guest, dom), bytes, &case);
        if asked.is_some() {
            tell(&options, bytes, started.elapsed());
        }
        let [sent_v4, sent_v6] = options.largest_gso().map(|most| most.is_some());
        let expected = [
            [
                agreed.has(Feature::CsumV4),
                agreed.has(Feature::GsoTcpv4),
                sent_v4,
            ],
            [
                agreed.has(Feature::CsumV6),
                agreed.has(Feature::GsoTcpv6),
                sent_v6,
            ],
        ];
        assert_eq!(used(&guest.stats()), expected, "{case}");
        guest.assert_well_served();
        let mut vif = world.vif_status(&guest.vif).unwrap();
        // A machine that is busy may let the tap's queue run full, as any network would.
        vif.rx.drops.remove("tap-queue-full");
        assert_eq!(
            (vif.tx.dropped(), vif.rx.dropped()),
            (0, 0),
            "{vif:#?} {case}"
        );
        world.remove(guest);
    }
    world.finish_empty();
}

/// What a backend may do for a guest that asks for this. Frontends take segments only in several slots, and blank.
fn agreed(options: &FrontendOptions) -> Features {
    let [v4, v6] = [options.csum_offload, options.ipv6_csum_offload];
    Features::of(&[Feature::RxNotify])
        .with(Feature::Sg, options.sg)
        .with(Feature::CsumV4, v4)
        .with(Feature::CsumV6, v6)
        .with(Feature::GsoTcpv4, options.gso && options.sg && v4)
        .with(Feature::GsoTcpv6, options.gso_v6 && options.sg && v6)
        .with(Feature::SplitEventChannels, options.split_event_channels)
}

/// What the environment asks for. Nothing else than a number will do: a slip must not pass as a test of gigabytes.
fn asked_volume() -> Option<u64> {
    match std::env::var(VOLUME) {
        Ok(text) => Some(
            text.parse()
                .unwrap_or_else(|error| panic!("{VOLUME}={text:?}: {error}")),
        ),
        Err(VarError::NotPresent) => None,
        Err(error) => panic!("{VOLUME}: {error}"),
    }
}

/// Known streams to the guest and from it.
fn transfer(peer: Peer, bytes: u64, case: &str) {
    let bound = Bound {
        bytes,
        time: PATIENCE + Duration::from_secs(bytes / BYTES_PER_SECOND),
    };
    let there = probe::tcp_to_guest(peer, bound);
    assert!(
        there.as_ref().is_ok_and(|done| done.bytes == bytes),
        "{there:?} {case}"
    );
    let back = probe::tcp_from_guest(peer, bound);
    assert!(
        back.as_ref().is_ok_and(|done| done.bytes >= bytes),
        "{back:?} {case}"
    );
}

/// Says that a combination is done, past the test runner, which keeps what tests print.
fn tell(options: &FrontendOptions, bytes: u64, took: Duration) {
    let &FrontendOptions {
        queues,
        split_event_channels: split,
        sg,
        gso,
        gso_v6,
        csum_offload: csum,
        ipv6_csum_offload: csum_v6,
        ..
    } = options;
    let line = format!(
        "queues={queues} split={split} sg={sg} gso={gso} gso6={gso_v6} csum={csum} csum6={csum_v6}: \
         4 times {bytes} bytes equal, {:.1} s\n",
        took.as_secs_f64()
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Over IPv4 and over IPv6: whether there were blank checksums and segments to the guest, and segments from it.
fn used(stats: &FrontStats) -> [[bool; 3]; 2] {
    let all = [stats.rx_blank, stats.rx_gso, stats.tx_gso];
    let v6 = [stats.rx_blank_v6, stats.rx_gso_v6, stats.tx_gso_v6];
    [std::array::from_fn(|n| all[n] > v6[n]), v6.map(|n| n > 0)]
}

/// The guest's IPv6 address, when the host has one of its own on that link.
fn on_link(guest: &TestGuest, dom: u16) -> Peer {
    let tap = guest.vif.tap();
    until("the host has an IPv6 address", || {
        let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        addresses.lines().any(|line| is_of_use(line, &tap))
    });
    let link = hotplug::link::index(&tap).unwrap();
    let address = guest_address(dom, 1500).link_local();
    SocketAddrV6::new(address, 0, 0, link).into()
}

/// Whether a line of if_inet6 is about an address of this interface that may be used already: it is there a moment
/// before, and on a busy machine that is a long one.
fn is_of_use(line: &str, interface: &str) -> bool {
    const TENTATIVE: u8 = 0x40;
    let mut fields = line.split_whitespace().rev();
    let name = fields.next();
    let flags = fields.next().map(|flags| u8::from_str_radix(flags, 16));
    name == Some(interface) && flags.is_some_and(|flags| flags.unwrap() & TENTATIVE == 0)
}

/// Addresses need not wait until others have been asked whether they have them. In this thread's network namespace alone.
fn without_address_detection() {
    for scope in ["all", "default"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0")
            .expect("this test needs IPv6 in its network namespace");
    }
}
