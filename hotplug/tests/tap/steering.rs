// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of a tap's queues a frame comes out of, by either program, against models of their own.

use std::net::{Ipv4Addr, UdpSocket};

use hotplug::steering::{Contributions, Table};
use hotplug::tap::VNET_HDR_LEN;
use hotplug::{Choice, Injector, Spread, Steering, Tap, link};

use super::{eventually, ip, with_queues};

/// The key of the test vectors of Microsoft's RSS.
const RSS_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// What bit number `at` of the input contributes: the 32 bits of the key from there on.
fn window(at: usize) -> u32 {
    let bit = |at: usize| u32::from(RSS_KEY[at / 8] >> (7 - at % 8)) & 1;
    (at..at + 32).fold(0, |window, at| window << 1 | bit(at))
}

fn contributions() -> Contributions {
    std::array::from_fn(|nibble| {
        std::array::from_fn(|value| {
            let set = (0..4).filter(|bit| value & (8 >> bit) != 0);
            set.fold(0, |sum, bit| sum ^ window(4 * nibble + bit))
        })
    })
}

/// A frame behind its header; `ip` follows the type.
fn ip_frame(kind: u16, ip: &[&[u8]]) -> Vec<u8> {
    let mut frame = vec![0; VNET_HDR_LEN];
    frame.extend([
        0x00, 0x16, 0x3e, 0, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff,
    ]);
    frame.extend(kind.to_be_bytes());
    frame.extend(ip.concat());
    frame.resize(frame.len().max(VNET_HDR_LEN + 60), 0);
    frame
}

fn v4(first: u8, fragment: [u8; 2], protocol: u8, options: &[u8]) -> Vec<u8> {
    // 66.9.149.187 port 2794 to 161.142.100.80 port 1766.
    let header = [
        first,
        0,
        0,
        60,
        0,
        0,
        fragment[0],
        fragment[1],
        64,
        protocol,
        0,
        0,
    ];
    let addresses = [66, 9, 149, 187, 161, 142, 100, 80];
    let ports = [0x0a, 0xea, 0x06, 0xe6];
    ip_frame(0x0800, &[&header, &addresses, options, &ports])
}

fn v6(protocol: u8) -> Vec<u8> {
    // 3ffe:2501:200:1fff::7 port 2794 to 3ffe:2501:200:3::1 port 1766.
    let header = [0x60, 0, 0, 0, 0, 20, protocol, 64];
    let source = [
        0x3f, 0xfe, 0x25, 0x01, 0x02, 0, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 7,
    ];
    let target = [
        0x3f, 0xfe, 0x25, 0x01, 0x02, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1,
    ];
    let ports = [0x0a, 0xea, 0x06, 0xe6];
    ip_frame(0x86dd, &[&header, &source, &target, &ports])
}

/// A tap of four queues.
struct FourQueues {
    queues: Vec<Tap>,
    way: Injector,
}

impl FourQueues {
    fn new(choice: Choice<'_>) -> Self {
        let tap = Tap::create("vif1.0", &with_queues()).unwrap();
        let mut queues: Vec<_> = (0..3).map(|_| tap.attach_queue().unwrap()).collect();
        queues.insert(0, tap);
        link::set_up("vif1.0").unwrap();
        let way = Injector::open("vif1.0").unwrap();
        let four = Self { queues, way };
        four.choose(choice);
        four
    }

    fn choose(&self, choice: Choice<'_>) {
        self.queues[0].set_steering(choice).unwrap();
    }

    /// Which queues have a frame that ends like this.
    fn with(&self, end: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        for (index, queue) in self.queues.iter().enumerate() {
            let mut buffer = vec![0; 70_000];
            while let Ok(n) = queue.read(&mut buffer) {
                if buffer[VNET_HDR_LEN..n].ends_with(end) {
                    found.push(index);
                }
            }
        }
        found
    }

    /// Out of which queue a frame comes.
    fn queue_of(&self, frame: &[u8]) -> Vec<usize> {
        self.with(&[]);
        self.way.send(frame).unwrap();
        let mut found = Vec::new();
        eventually("the frame", || {
            found.extend(self.with(&frame[VNET_HDR_LEN..]));
            !found.is_empty()
        });
        found
    }
}

/// Against the published test vectors: the queue of a frame is the table's entry for its hash.
pub(super) fn frames_are_steered() {
    let steering = Steering::new().unwrap();
    let tap = FourQueues::new(Choice::Steering(&steering));
    let queue_of = |frame: &[u8]| tap.queue_of(frame);
    // Before it is told better.
    assert_eq!(queue_of(&v4(0x45, [0, 0], 6, &[])), [0]);

    let (plain4, tcp4, plain6, tcp6) = (0x323e_8fc2, 0x51cc_c178, 0x2cc1_8cd5, 0x4020_7d3d);
    let contributions = contributions();
    // Tables of several lengths that tell the hashes apart, by the other end of the table too.
    for length in [1, 3, 4, 97, 128_u32] {
        let table: Vec<u16> = (0..length)
            .map(|entry| u16::try_from((entry * 7 + entry / 4 + 1) % 4).unwrap())
            .collect();
        let expected = |hash: u32| usize::from(table[(hash % length) as usize]);
        for types in 0..16_u8 {
            steering
                .set(&Table {
                    types,
                    contributions: &contributions,
                    queues: &table,
                })
                .unwrap();
            let best = |specific: Option<(u8, u32)>, plain: (u8, u32)| {
                let wanted = |(bit, _): &(u8, u32)| types & bit != 0;
                let found = specific
                    .filter(wanted)
                    .or_else(|| Some(plain).filter(wanted));
                expected(found.map_or(0, |(_, hash)| hash))
            };
            for (what, frame, queue) in [
                (
                    "tcp4",
                    v4(0x45, [0x40, 0], 6, &[]),
                    best(Some((2, tcp4)), (1, plain4)),
                ),
                ("udp4", v4(0x45, [0, 0], 17, &[]), best(None, (1, plain4))),
                (
                    "options",
                    v4(0x47, [0, 0], 6, &[1; 8]),
                    best(Some((2, tcp4)), (1, plain4)),
                ),
                (
                    "first fragment",
                    v4(0x45, [0x20, 0], 6, &[]),
                    best(None, (1, plain4)),
                ),
                (
                    "last fragment",
                    v4(0x45, [0, 9], 6, &[]),
                    best(None, (1, plain4)),
                ),
                (
                    "short header",
                    v4(0x44, [0, 0], 6, &[]),
                    best(None, (1, plain4)),
                ),
                ("tcp6", v6(6), best(Some((8, tcp6)), (4, plain6))),
                ("udp6", v6(17), best(None, (4, plain6))),
                ("arp", ip_frame(0x0806, &[&[0, 1, 8, 0, 6, 4]]), expected(0)),
                ("other", ip_frame(0x88b5, &[&[7; 40]]), expected(0)),
            ] {
                let found = queue_of(&frame);
                assert_eq!(found, [queue], "{what}, types {types}, {length} entries");
            }
        }
    }
    // A program whose map is gone from here goes on; without one the kernel chooses.
    drop(steering);
    assert_eq!(queue_of(&ip_frame(0x0806, &[&[0, 1, 8, 0, 6, 4]])).len(), 1);
    tap.choose(Choice::Kernel);
    assert_eq!(queue_of(&v4(0x45, [0, 0], 6, &[])).len(), 1);
    let table = |queues: &[u16]| {
        let table = Table {
            types: 1,
            contributions: &contributions,
            queues,
        };
        Steering::new().unwrap().set(&table)
    };
    for impossible in [0, 129] {
        let error = table(&vec![0; impossible]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

/// What the program that spreads makes of words of addresses and ports.
fn spread_to(input: &[u8]) -> usize {
    let words = input.as_chunks::<4>().0;
    let sum = words
        .iter()
        .fold(0, |sum, word| sum ^ u64::from(u32::from_be_bytes(*word)));
    usize::try_from(((sum * 0x61c8_8647) >> 32) % 4).unwrap()
}

/// Frames without a hash of their own: by addresses and ports, where there are ports.
pub(super) fn flows_are_spread() {
    let spread = Spread::new().unwrap();
    let tap = FourQueues::new(Choice::Spread(&spread));
    let mut reached = [false; 4];
    for flow in 0..24_u8 {
        let ports = [0x0a, flow, 0x06, 0xe6];
        let with_ports = |mut frame: Vec<u8>, at: usize| {
            frame[VNET_HDR_LEN + 14 + at..][..4].copy_from_slice(&ports);
            frame
        };
        let (first, other) = (v4(0x45, [0, 0], 6, &[]), v6(6));
        let v4_addresses = first[VNET_HDR_LEN + 26..][..8].to_vec();
        let v6_addresses = other[VNET_HDR_LEN + 22..][..32].to_vec();
        let plain4 = spread_to(&v4_addresses);
        let plain6 = spread_to(&v6_addresses);
        let all4 = spread_to(&[v4_addresses.as_slice(), &ports].concat());
        let all6 = spread_to(&[v6_addresses.as_slice(), &ports].concat());
        let options = [1; 8];
        for (what, frame, queue) in [
            ("tcp4", with_ports(v4(0x45, [0x40, 0], 6, &[]), 20), all4),
            ("udp4", with_ports(v4(0x45, [0, 0], 17, &[]), 20), all4),
            (
                "options",
                with_ports(v4(0x47, [0, 0], 6, &options), 28),
                all4,
            ),
            ("icmp", with_ports(v4(0x45, [0, 0], 1, &[]), 20), plain4),
            (
                "first fragment",
                with_ports(v4(0x45, [0x20, 0], 17, &[]), 20),
                plain4,
            ),
            (
                "last fragment",
                with_ports(v4(0x45, [0, 9], 17, &[]), 20),
                plain4,
            ),
            (
                "short header",
                with_ports(v4(0x44, [0, 0], 6, &[]), 20),
                plain4,
            ),
            ("tcp6", with_ports(v6(6), 40), all6),
            ("udp6", with_ports(v6(17), 40), all6),
            ("icmp6", with_ports(v6(58), 40), plain6),
            ("arp", ip_frame(0x0806, &[&[0, 1, 8, 0, 6, 4]]), 0),
            ("other", ip_frame(0x88b5, &[&[7; 40]]), 0),
        ] {
            reached[queue] = true;
            assert_eq!(tap.queue_of(&frame), [queue], "{what}, flow {flow}");
        }
    }
    assert_eq!(reached, [true; 4], "the flows say nothing");
    // One that ends before its ports.
    let mut cut = v4(0x4f, [0, 0], 6, &[]);
    cut.truncate(VNET_HDR_LEN + 60);
    assert_eq!(tap.queue_of(&cut), [0]);
}

/// The kernel gives each connected socket a hash by chance: the same addresses and ports come out of several queues.
pub(super) fn a_hash_that_is_there_counts() {
    let spread = Spread::new().unwrap();
    let tap = FourQueues::new(Choice::Spread(&spread));
    link::add_ipv4("vif1.0", Ipv4Addr::new(192, 0, 2, 1), 24).unwrap();
    ip("neigh replace 192.0.2.2 lladdr 00:16:3e:00:00:01 dev vif1.0");
    let mut reached = [false; 4];
    eventually("every queue is used", || {
        let socket = UdpSocket::bind("192.0.2.1:2794").unwrap();
        socket.connect("192.0.2.2:1766").unwrap();
        socket.send(b"with a hash").unwrap();
        for queue in tap.with(b"with a hash") {
            reached[queue] = true;
        }
        reached == [true; 4]
    });
}
