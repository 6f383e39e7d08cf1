// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the running kernel's tun driver can do, as far as its version tells.

/// Whether a tap takes a frame that stands for several UDP datagrams (`VIRTIO_NET_HDR_GSO_UDP_L4`, virtio 1.2 section
/// 5.1.6): by its version, so whoever relies on it looks at how the first one ends. `false` if it does not tell its
/// version.
#[must_use]
pub fn takes_udp_segments() -> bool {
    let uname = nix::sys::utsname::uname().ok();
    let release = uname.as_ref().and_then(|uname| uname.release().to_str());
    release.is_some_and(knows_udp_segments)
}

/// Linux has it since 6.2. The first versions may cut such a frame into IP fragments when it leaves by a network card
/// that cuts datagrams itself ("gso: fix dodgy bit handling for GSO_UDP_L4", 6.5), so it takes the first long-term
/// version after that.
fn knows_udp_segments(release: &str) -> bool {
    version(release) >= Some((6, 6))
}

/// The first two numbers of a kernel release, as "6.12.43+deb13-amd64".
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_do_not_know_it() {
        for (release, expected) in [
            ("5.19.0", false),
            ("6.1.0-56-amd64", false),
            ("6.5.13", false),
            ("6.6.0", true),
            ("6.12.43+deb13-amd64", true),
            ("10.0", true),
            ("unknown", false),
        ] {
            assert_eq!(knows_udp_segments(release), expected, "{release:?}");
        }
    }

    #[test]
    fn the_version_is_read_from_any_release() {
        for (release, expected) in [
            ("6.1.0-56-amd64", Some((6, 1))),
            ("6.12.43+deb13-amd64", Some((6, 12))),
            ("7.0-rc1", Some((7, 0))),
            ("6.2", Some((6, 2))),
            ("6", None),
            ("", None),
            ("unknown", None),
            ("99999999999.1", None),
        ] {
            assert_eq!(version(release), expected, "{release:?}");
        }
    }
}
