// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real taps, in network namespaces of their own, so that nothing on the machine changes.
//!
//! The test needs to make namespaces (as root, or as a user who may make a user namespace), /dev/net/tun, and the `ip`
//! command, which the vif scripts need as well. Where any of these is missing it fails; it is never skipped. It has
//! its own `main`, because a user namespace can only be entered while the process has one thread.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test; without the harness's #[test] clippy does not see it"
)]

mod steering;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hotplug::monitor::{Changed, LinkMonitor};
use hotplug::tap::{VNET_HDR_LEN, is_gone};
use hotplug::{Injector, MacAddr, Tap, TapError, TapOffload, TapOptions, link};
use nix::sched::{CloneFlags, unshare};

const TESTS: &[(&str, fn())] = &[
    ("a_new_tap_is_as_asked", a_new_tap_is_as_asked),
    (
        "a_persistent_tap_survives_and_is_taken_again",
        a_persistent_tap_survives_and_is_taken_again,
    ),
    (
        "another_tap_goes_with_its_last_descriptor",
        another_tap_goes_with_its_last_descriptor,
    ),
    ("destroy_leaves_nothing", destroy_leaves_nothing),
    (
        "what_finds_no_room_is_counted",
        what_finds_no_room_is_counted,
    ),
    (
        "a_tap_that_was_kept_is_taken_up",
        a_tap_that_was_kept_is_taken_up,
    ),
    (
        "what_was_kept_and_is_no_tap_of_ours_is_refused",
        what_was_kept_and_is_no_tap_of_ours_is_refused,
    ),
    ("a_rename_is_followed", a_rename_is_followed),
    (
        "a_move_to_another_namespace_is_followed",
        a_move_to_another_namespace_is_followed,
    ),
    ("a_deleted_tap_is_gone", a_deleted_tap_is_gone),
    (
        "other_interfaces_are_not_taken",
        other_interfaces_are_not_taken,
    ),
    (
        "what_the_kernel_refuses_leaves_nothing",
        what_the_kernel_refuses_leaves_nothing,
    ),
    ("frames_carry_a_header", frames_carry_a_header),
    ("an_injected_frame_is_read", an_injected_frame_is_read),
    ("carrier_and_offload_are_set", carrier_and_offload_are_set),
    ("queues_come_and_go", queues_come_and_go),
    (
        "a_queue_is_attached_wherever_the_tap_is",
        a_queue_is_attached_wherever_the_tap_is,
    ),
    ("frames_are_steered", steering::frames_are_steered),
    ("flows_are_spread", steering::flows_are_spread),
    (
        "a_hash_that_is_there_counts",
        steering::a_hash_that_is_there_counts,
    ),
    (
        "a_tap_keeps_its_kind_and_has_one_owner",
        a_tap_keeps_its_kind_and_has_one_owner,
    ),
    ("changes_are_announced", changes_are_announced),
    (
        "lost_announcements_are_known_to_be",
        lost_announcements_are_known_to_be,
    ),
];

fn main() -> ExitCode {
    let filters: Vec<_> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    if let Err(error) = enter_user_namespace() {
        eprintln!(
            "this machine forbids what the tap tests need: {error}\nrun them as root, or allow user namespaces"
        );
        return ExitCode::FAILURE;
    }
    let mut failed = 0;
    for (name, test) in TESTS {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        // A network namespace belongs to a thread, and goes with it.
        let run = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("this machine forbids network namespaces");
            test();
        });
        let ok = run.join().is_ok();
        failed += usize::from(!ok);
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Without root, becomes root of a user namespace.
fn enter_user_namespace() -> std::io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if uid.is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER)?;
    let write = |file: &str, text: String| {
        std::fs::OpenOptions::new()
            .write(true)
            .open(file)?
            .write_all(text.as_bytes())
    };
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn ip(line: &str) {
    run("ip", line);
}

fn run(program: &str, line: &str) {
    // tc is where only root looks, on Debian.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new(program);
    let done = command
        .args(line.split_whitespace())
        .env("PATH", path)
        .status();
    assert!(
        done.expect("ip and tc (iproute2) are needed").success(),
        "{program} {line}"
    );
}

fn options() -> TapOptions {
    TapOptions {
        mtu: 1400,
        txqueuelen: 77,
        ..TapOptions::default()
    }
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{what} did not come to be"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn a_new_tap_is_as_asked() {
    assert!(!link::exists("vif1.0").unwrap());
    let tap = Tap::create("vif1.0", &options()).unwrap();
    assert!(tap.created());
    assert_eq!(tap.name().unwrap(), "vif1.0");
    assert_eq!(tap.ifindex().unwrap(), link::index("vif1.0").unwrap());
    assert_eq!(
        (tap.mtu().unwrap(), link::mtu("vif1.0").unwrap()),
        (1400, 1400)
    );
    assert_eq!(link::tx_queue_len("vif1.0").unwrap(), 77);
    assert_eq!(tap.mac().unwrap(), MacAddr::BACKEND);
    assert!(!link::is_up("vif1.0").unwrap());
    let shown = Command::new("ip")
        .args(["-details", "link", "show", "vif1.0"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for part in [
        "fe:ff:ff:ff:ff:ff",
        "mtu 1400",
        "qlen 77",
        "tun type tap",
        "pi off",
        "vnet_hdr on",
        "persist on",
    ] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
    assert!(!shown.contains(" multi_queue "), "{shown}");
}

fn a_persistent_tap_survives_and_is_taken_again() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    let index = tap.ifindex().unwrap();
    let error = Tap::create("vif1.0", &options()).unwrap_err();
    assert!(matches!(error, TapError::Busy(_)), "{error}");
    drop(tap);
    assert_eq!(link::index("vif1.0").unwrap(), index);

    // What a script did meanwhile stays.
    link::set_mtu("vif1.0", 1300).unwrap();
    ip("link set vif1.0 address 00:16:3e:00:00:99");
    link::set_up("vif1.0").unwrap();
    let tap = Tap::create(
        "vif1.0",
        &TapOptions {
            txqueuelen: 5,
            ..options()
        },
    )
    .unwrap();
    assert!(!tap.created());
    assert_eq!((tap.ifindex().unwrap(), tap.mtu().unwrap()), (index, 1300));
    assert_eq!(tap.mac().unwrap().to_string(), "00:16:3e:00:00:99");
    assert_eq!(link::tx_queue_len("vif1.0").unwrap(), 5);
    assert!(link::is_up("vif1.0").unwrap());
}

fn what_finds_no_room_is_counted() {
    let options = TapOptions {
        txqueuelen: 4,
        ..options()
    };
    let tap = Tap::create("vif1.0", &options).unwrap();
    assert_eq!(tap.dropped().unwrap(), 0);
    link::set_up("vif1.0").unwrap();
    // Newer kernels let them wait before the queue, if they may.
    run("tc", "qdisc replace dev vif1.0 root noqueue");
    let way = Injector::open("vif1.0").unwrap();
    // Beside what the kernel has to say of itself.
    for _ in 0..20 {
        match way.send(&[0; VNET_HDR_LEN + 60]) {
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
            sent => sent.unwrap(),
        }
    }
    eventually("the drops", || tap.dropped().unwrap() >= 16);
    assert_eq!(
        link::tx_dropped("no-such-link").unwrap_err().raw_os_error(),
        Some(nix::libc::ENODEV)
    );
}

fn another_tap_goes_with_its_last_descriptor() {
    let tap = Tap::create(
        "vif1.0",
        &TapOptions {
            persist: false,
            ..options()
        },
    )
    .unwrap();
    let clone = tap.try_clone().unwrap();
    drop(tap);
    assert_eq!(clone.name().unwrap(), "vif1.0");
    drop(clone);
    assert!(!link::exists("vif1.0").unwrap());
}

fn destroy_leaves_nothing() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    link::set_up("vif1.0").unwrap();
    // A worker still holds it, or whoever keeps taps while no daemon runs.
    let clone = tap.try_clone().unwrap();
    tap.destroy().unwrap();
    assert!(!link::exists("vif1.0").unwrap());
    assert!(is_gone(&clone.name().unwrap_err()));
}

/// `netback` has died, and somebody has kept a descriptor.
fn a_tap_that_was_kept_is_taken_up() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    link::set_up("vif1.0").unwrap();
    let (kept, reader) = (descriptor(&tap), tap.try_clone().unwrap());
    ip("link set vif1.0 name uplink");
    link::set_mtu("uplink", 1280).unwrap();
    let way = Injector::open("uplink").unwrap();
    let changes = carrier_changes("uplink");
    drop((tap, reader));
    let mut sent = [7; VNET_HDR_LEN + 60];
    sent[..VNET_HDR_LEN].fill(0);
    way.send(&sent).unwrap();

    let longer = TapOptions {
        txqueuelen: 77,
        mtu: 1400,
        ..options()
    };
    let tap = Tap::resume(kept, &longer).unwrap();
    assert!(!tap.created());
    assert_eq!(
        (tap.name().unwrap().as_str(), tap.mtu().unwrap()),
        ("uplink", 1280)
    );
    assert_eq!(link::tx_queue_len("uplink").unwrap(), 77);
    assert_eq!(
        carrier_changes("uplink"),
        changes,
        "the host has seen nothing"
    );
    // What came meanwhile has waited.
    let mut frame = [0; 2048];
    eventually("the frame", || {
        tap.read(&mut frame)
            .is_ok_and(|n| n == VNET_HDR_LEN + 60 && frame[VNET_HDR_LEN] == 7)
    });
    tap.destroy().unwrap();
    assert!(!link::exists("uplink").unwrap());
}

fn what_was_kept_and_is_no_tap_of_ours_is_refused() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    let kept = descriptor(&tap);
    ip("link delete vif1.0");
    let error = Tap::resume(kept, &options()).unwrap_err();
    assert!(error.is_gone(), "{error}");
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = Tap::resume(file.into(), &options()).unwrap_err();
    assert!(!error.is_gone() && error.io().is_some(), "{error}");
}

/// How often its carrier has come and gone, as text.
fn carrier_changes(name: &str) -> String {
    let args = ["-json", "-stats", "-stats", "link", "show", name];
    let out = Command::new("ip").args(args).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let (_, changes) = text.split_once("\"carrier_changes\":").unwrap();
    changes.split('}').next().unwrap().to_owned()
}

/// A descriptor of a tap's own, as somebody keeps it.
fn descriptor(tap: &Tap) -> OwnedFd {
    tap.as_fd().try_clone_to_owned().unwrap()
}

fn a_rename_is_followed() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    let index = tap.ifindex().unwrap();
    ip("link set vif1.0 name uplink");
    assert_eq!(tap.name().unwrap(), "uplink");
    assert_eq!(tap.ifindex().unwrap(), index);
    link::set_mtu("uplink", 1280).unwrap();
    assert_eq!(tap.mtu().unwrap(), 1280);
    tap.set_mtu(1290).unwrap();
    assert_eq!(link::mtu("uplink").unwrap(), 1290);
    // Another takes the old name, as vif-qubes-nat does; it is not confused with ours.
    ip("tuntap add vif1.0 mode tap");
    assert_eq!(
        (tap.name().unwrap().as_str(), tap.mtu().unwrap()),
        ("uplink", 1290)
    );
    let _kept = descriptor(&tap);
    tap.destroy().unwrap();
    assert!(!link::exists("uplink").unwrap());
    assert!(link::exists("vif1.0").unwrap());
}

fn a_move_to_another_namespace_is_followed() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    let (say, hear) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        say.send(nix::unistd::gettid()).unwrap();
        wait.recv().unwrap();
        let seen = (link::index("vif1.0"), link::set_mtu("vif1.0", 1333));
        say.send(nix::unistd::gettid()).unwrap();
        wait.recv().unwrap();
        seen
    });
    ip(&format!("link set vif1.0 netns {}", hear.recv().unwrap()));
    assert!(!link::exists("vif1.0").unwrap());
    assert_eq!(tap.name().unwrap(), "vif1.0");
    let index = tap.ifindex().unwrap();
    go.send(()).unwrap();
    hear.recv().unwrap();
    assert_eq!(tap.mtu().unwrap(), 1333);
    tap.set_mtu(1334).unwrap();
    assert_eq!(tap.mtu().unwrap(), 1334);
    // Another of that name here is another one's.
    ip("tuntap add vif1.0 mode tap");
    assert_eq!(tap.mtu().unwrap(), 1334);
    go.send(()).unwrap();
    let seen = other.join().unwrap();
    assert_eq!(seen.0.unwrap(), index);
    seen.1.unwrap();

    // The namespace went with its thread, and takes the tap with it.
    eventually("the end of the namespace", || tap.name().is_err());
    let error = tap.write(&[0; 64]).unwrap_err();
    assert!(
        is_gone(&error) && is_gone(&tap.name().unwrap_err()) && is_gone(&tap.mtu().unwrap_err()),
        "{error}"
    );
    tap.destroy().unwrap();
}

fn a_deleted_tap_is_gone() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    ip("link delete vif1.0");
    let mut buffer = [0; 64];
    assert!(is_gone(&tap.read(&mut buffer).unwrap_err()));
    assert!(is_gone(&tap.write(&buffer).unwrap_err()));
    let error = tap.set_carrier(true).unwrap_err();
    assert!(error.io().is_some_and(is_gone), "{error}");
    tap.destroy().unwrap();
}

fn other_interfaces_are_not_taken() {
    ip("tuntap add vif1.0 mode tun");
    let error = Tap::create("vif1.0", &options()).unwrap_err();
    assert!(matches!(error, TapError::NotOurs(_)), "{error}");
    assert!(error.to_string().contains("ip link delete vif1.0"));
    assert!(link::exists("vif1.0").unwrap());
}

fn what_the_kernel_refuses_leaves_nothing() {
    for bad in [
        TapOptions {
            mtu: 10,
            ..options()
        },
        TapOptions {
            mtu: u32::MAX,
            ..options()
        },
    ] {
        let error = Tap::create("vif1.0", &bad).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot set the MTU of the tap vif1.0 to "),
            "{error}"
        );
        assert!(!link::exists("vif1.0").unwrap());
    }
    let multicast = TapOptions {
        mac: MacAddr([1, 0, 0, 0, 0, 0]),
        ..options()
    };
    let error = Tap::create("vif1.0", &multicast).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot set the address of the tap vif1.0"),
        "{error}"
    );
    assert!(!link::exists("vif1.0").unwrap());
}

fn frames_carry_a_header() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    link::add_ipv4("vif1.0", Ipv4Addr::new(192, 0, 2, 1), 24).unwrap();
    link::set_up("vif1.0").unwrap();
    assert!(link::is_up("vif1.0").unwrap());
    // An address in the prefix is reached through the tap: by an ARP request first.
    let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
    socket.send_to(b"hello", "192.0.2.2:9").unwrap();
    let mut frame = Vec::new();
    eventually("an ARP request", || {
        let mut buffer = [0; 2048];
        match tap.read(&mut buffer) {
            Ok(n) => frame = buffer[..n].to_vec(),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        frame.get(VNET_HDR_LEN + 12..VNET_HDR_LEN + 14) == Some(&[0x08, 0x06])
    });
    let (head, ethernet) = frame.split_at(VNET_HDR_LEN);
    assert_eq!(head[..10], [0; 10]);
    assert_eq!(
        ethernet[..12],
        [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff
        ]
    );

    // The answer, written behind a header, gets the datagram sent.
    let mut answer = vec![0; VNET_HDR_LEN];
    answer.extend_from_slice(&ethernet[6..12]);
    answer.extend_from_slice(&[
        0x00, 0x16, 0x3e, 0, 0, 1, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2, 0x00, 0x16, 0x3e, 0, 0, 1,
    ]);
    answer.extend_from_slice(&[192, 0, 2, 2]);
    answer.extend_from_slice(&ethernet[6..12]);
    answer.extend_from_slice(&[192, 0, 2, 1]);
    assert_eq!(tap.write(&answer).unwrap(), answer.len());
    eventually("the datagram", || {
        let mut buffer = [0; 2048];
        let n = tap.read(&mut buffer).unwrap_or(0);
        buffer[..n].ends_with(b"hello")
            && buffer[VNET_HDR_LEN..VNET_HDR_LEN + 6] == [0x00, 0x16, 0x3e, 0, 0, 1]
    });
    link::set_down("vif1.0").unwrap();
    assert!(!link::is_up("vif1.0").unwrap());
    assert!(
        !is_gone(&tap.write(&answer).unwrap_err()),
        "a tap that is down is not gone"
    );
}

/// A frame of TCP segments comes out whole, with its header as it was, if the tap's reader takes such.
fn an_injected_frame_is_read() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    let segments = TapOffload {
        csum: true,
        tso4: true,
        ..TapOffload::default()
    };
    tap.set_offload(segments).unwrap();
    link::set_up("vif1.0").unwrap();
    let way = Injector::open("vif1.0").unwrap();
    assert_eq!(
        way.send(&[0; VNET_HDR_LEN - 1]).unwrap_err().kind(),
        std::io::ErrorKind::InvalidInput
    );
    assert!(Injector::open("no-such-link").is_err());

    // NEEDS_CSUM, TCPv4, 54 bytes of headers, segments of 1000, checksum at 34 + 16.
    let mut frame = vec![1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0];
    frame.extend([
        0x00, 0x16, 0x3e, 0, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff,
    ]);
    frame.extend([0x08, 0x00, 0x45, 0, 0x27, 0x10, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend([192, 0, 2, 1, 192, 0, 2, 2]);
    frame.resize(VNET_HDR_LEN + 14 + 10_000, 0x55);
    // The data offset says that the TCP header has 20 bytes.
    frame[VNET_HDR_LEN + 46] = 0x50;
    way.send(&frame).unwrap();
    eventually("the frame", || {
        let mut buffer = vec![0; 70_000];
        match tap.read(&mut buffer) {
            Ok(n) => buffer[..n] == frame,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                false
            }
        }
    });
}

fn changes_are_announced() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    let other = Tap::create("vif2.0", &options()).unwrap();
    let mut monitor = LinkMonitor::new().unwrap();
    let nothing = Changed::Links(BTreeSet::new());
    assert_eq!(monitor.changed().unwrap(), nothing, "nothing since then");

    let before = tap.link().unwrap();
    assert_eq!((before.mtu, before.up), (1400, false));
    let this = Changed::Links([before.index].into());
    tap.set_mtu(9000).unwrap();
    assert_eq!(monitor.changed().unwrap(), this);
    assert_eq!(tap.link().unwrap().mtu, 9000);
    ip("link set vif1.0 name web");
    assert_eq!(monitor.changed().unwrap(), this);
    ip("link set web up");
    assert_eq!(monitor.changed().unwrap(), this);
    let now = tap.link().unwrap();
    assert_eq!((now.index, now.up), (before.index, true));

    let both = [before.index, other.link().unwrap().index];
    ip("link delete web");
    ip("link set vif2.0 mtu 1300");
    assert_eq!(monitor.changed().unwrap(), Changed::Links(both.into()));
    assert!(is_gone(&tap.link().unwrap_err()));
}

/// More than there is room for: whoever listens learns that, and hears of later changes again.
fn lost_announcements_are_known_to_be() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    let mut monitor = LinkMonitor::new().unwrap();
    for mtu in (1300..1400).cycle().take(20_000) {
        link::set_mtu("vif1.0", mtu).unwrap();
    }
    assert_eq!(monitor.changed().unwrap(), Changed::Any);
    let nothing = Changed::Links(BTreeSet::new());
    while monitor.changed().unwrap() != nothing {}
    link::set_mtu("vif1.0", 1500).unwrap();
    let index = tap.link().unwrap().index;
    assert_eq!(monitor.changed().unwrap(), Changed::Links([index].into()));
}

fn carrier_and_offload_are_set() {
    let tap = Tap::create("vif1.0", &options()).unwrap();
    link::set_up("vif1.0").unwrap();
    let carrier = || {
        let shown = Command::new("ip")
            .args(["link", "show", "vif1.0"])
            .output()
            .unwrap();
        !String::from_utf8_lossy(&shown.stdout).contains("NO-CARRIER")
    };
    assert!(carrier());
    tap.set_carrier(false).unwrap();
    assert!(!carrier());
    tap.set_carrier(true).unwrap();
    assert!(carrier());
    let all = TapOffload {
        csum: true,
        tso4: true,
        tso6: true,
        tso_ecn: true,
    };
    for offload in [
        all,
        TapOffload {
            csum: true,
            ..TapOffload::default()
        },
        TapOffload::default(),
    ] {
        tap.set_offload(offload).unwrap();
    }
    let error = tap.set_offload(TapOffload {
        tso4: true,
        ..TapOffload::default()
    });
    assert!(error.is_err(), "segmentation without checksums is nonsense");
}

fn with_queues() -> TapOptions {
    TapOptions {
        multi_queue: true,
        ..options()
    }
}

/// Reads all that waits in a queue; true if there is one of these datagrams' frames.
fn drain(queue: &Tap) -> bool {
    let mut any = false;
    let mut buffer = [0; 2048];
    while let Ok(len) = queue.read(&mut buffer) {
        any |= buffer[..len].ends_with(b"to all queues");
    }
    any
}

/// The host spreads what it sends over the attached queues, and only over those.
fn queues_come_and_go() {
    let tap = Tap::create("vif1.0", &with_queues()).unwrap();
    assert!(tap.is_multi_queue().unwrap());
    assert_eq!(link::tap_queues("vif1.0").unwrap(), 1);
    link::add_ipv4("vif1.0", Ipv4Addr::new(192, 0, 2, 1), 24).unwrap();
    link::set_up("vif1.0").unwrap();
    ip("neigh replace 192.0.2.2 lladdr 00:16:3e:00:00:01 dev vif1.0");
    // Each socket is a flow of its own.
    let send = || {
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        socket.send_to(b"to all queues", "192.0.2.2:9").unwrap();
    };
    for _ in 0..3 {
        let more: Vec<_> = (0..3).map(|_| tap.attach_queue().unwrap()).collect();
        assert_eq!(link::tap_queues("vif1.0").unwrap(), 4);
        let mut reached = [false; 4];
        eventually("every queue is used", || {
            send();
            for (queue, reached) in more.iter().chain([&tap]).zip(&mut reached) {
                *reached |= drain(queue);
            }
            reached == [true; 4]
        });
        drop(more);
        assert_eq!(link::tap_queues("vif1.0").unwrap(), 1);
        drain(&tap);
        for flow in 0..64 {
            send();
            assert!(drain(&tap), "flow {flow} went to a queue that is gone");
        }
    }
}

fn a_queue_is_attached_wherever_the_tap_is() {
    let tap = Tap::create("vif1.0", &with_queues()).unwrap();
    ip("link set vif1.0 name guest0");
    let queue = tap.attach_queue().unwrap();
    assert_eq!(queue.name().unwrap(), "guest0");
    assert!(!link::exists("vif1.0").unwrap());

    let (to_there, orders) = mpsc::channel();
    let (ready, there_is) = mpsc::channel();
    let there = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let tid = nix::unistd::gettid();
        ready.send(tid).unwrap();
        let () = orders.recv().unwrap();
        link::tap_queues("guest0").unwrap()
    });
    let tid = there_is.recv().unwrap();
    ip(&format!("link set guest0 netns {tid}"));
    let third = tap.attach_queue().unwrap();
    assert!(!link::exists("guest0").unwrap(), "no new interface here");
    to_there.send(()).unwrap();
    assert_eq!(there.join().unwrap(), 3);
    drop((queue, third));
}

fn a_tap_keeps_its_kind_and_has_one_owner() {
    for (kind, other) in [(options(), with_queues()), (with_queues(), options())] {
        let tap = Tap::create("vif1.0", &kind).unwrap();
        for asked in [&kind, &other] {
            let error = Tap::create("vif1.0", asked).unwrap_err();
            assert!(matches!(error, TapError::Busy(_)), "{error}");
        }
        assert!(tap.is_multi_queue().unwrap() == kind.multi_queue);
        drop(tap);
        let tap = Tap::create("vif1.0", &other).unwrap();
        assert!(!tap.created());
        assert!(tap.is_multi_queue().unwrap() == kind.multi_queue);
        if !kind.multi_queue {
            assert!(matches!(tap.attach_queue(), Err(TapError::OneQueue)));
        }
        tap.destroy().unwrap();
        assert!(!link::exists("vif1.0").unwrap());
    }
}
