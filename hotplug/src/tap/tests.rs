// SPDX-License-Identifier: MIT OR Apache-2.0
//! What needs no tap: I/O over a socket pair, and errors. Real taps are in `tests/tap.rs`.

use super::*;
use std::os::unix::net::UnixDatagram;

fn pair() -> (Tap, UnixDatagram) {
    let (a, b) = UnixDatagram::pair().unwrap();
    (Tap::from_fd(a.into()).unwrap(), b)
}

#[test]
fn frames_go_both_ways_whole() {
    let (tap, peer) = pair();
    assert_eq!(tap.write(b"header+frame").unwrap(), 12);
    let mut got = [0; 64];
    assert_eq!(peer.recv(&mut got).unwrap(), 12);

    peer.send(b"0123456789abcdef").unwrap();
    let n = tap.read(&mut got).unwrap();
    assert_eq!(&got[..n], b"0123456789abcdef");
}

#[test]
fn nothing_to_read_does_not_block() {
    let (tap, peer) = pair();
    let mut buffer = [0; 8];
    let error = tap.read(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let clone = tap.try_clone().unwrap();
    peer.send(b"x").unwrap();
    assert_eq!(clone.read(&mut buffer).unwrap(), 1);
    while tap.write(b"full").is_ok() {}
    assert_eq!(
        tap.write(b"full").unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
}

#[test]
fn what_is_no_tap_is_an_error_and_not_gone() {
    let (tap, _peer) = pair();
    assert!(!tap.created());
    for error in [
        tap.name().unwrap_err(),
        tap.ifindex().unwrap_err(),
        tap.mtu().unwrap_err(),
        tap.mac().unwrap_err(),
    ] {
        assert!(!is_gone(&error), "{error}");
    }
    let offload = TapOffload {
        csum: true,
        ..TapOffload::default()
    };
    assert!(matches!(
        tap.set_offload(offload),
        Err(TapError::System { .. })
    ));
    assert!(matches!(
        tap.set_carrier(true),
        Err(TapError::System { .. })
    ));
    assert!(matches!(tap.destroy(), Err(TapError::System { .. })));
    assert!(is_gone(&io::Error::from_raw_os_error(libc::EBADFD)));
    assert!(!is_gone(&io::Error::from_raw_os_error(libc::EBADF)));
}

#[test]
fn bad_names_are_refused_before_anything_happens() {
    for name in ["", "vif65535.4294967295", "a b", "../x", "tap%d"] {
        let error = Tap::create(name, &TapOptions::default()).unwrap_err();
        assert!(matches!(error, TapError::BadName(_)), "{error}");
        assert!(error.io().is_some());
    }
}

#[test]
fn errors_say_what_to_do() {
    let denied = TapError::of("create the tap vif1.0")(io::Error::from_raw_os_error(libc::EPERM))
        .to_string();
    assert!(
        denied.starts_with("no permission to create the tap vif1.0: ")
            && denied.contains("CAP_NET_ADMIN")
    );
    let other =
        TapError::of("set the MTU of a tap to 9")(io::Error::from_raw_os_error(libc::EINVAL))
            .to_string();
    assert!(
        other.starts_with("cannot set the MTU of a tap to 9: Invalid argument"),
        "{other}"
    );
    assert!(
        TapError::Busy("vif1.0".into())
            .to_string()
            .contains("ip link delete vif1.0")
    );
    assert!(
        TapError::NoTun(io::ErrorKind::NotFound.into())
            .to_string()
            .contains("modprobe tun")
    );
}

#[test]
fn offload_bits_are_the_headers() {
    let all = TapOffload {
        csum: true,
        tso4: true,
        tso6: true,
        tso_ecn: true,
    };
    assert_eq!((all.bits(), TapOffload::default().bits()), (15, 0));
    assert_eq!(
        TapOffload {
            tso6: true,
            ..TapOffload::default()
        }
        .bits(),
        4
    );
}
