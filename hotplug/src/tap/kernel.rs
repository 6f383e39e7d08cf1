// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the running kernel's tun driver can do, where it cannot be asked without changing a tap that is in use.

/// Whether a tap takes a frame that stands for several UDP datagrams (`VIRTIO_NET_HDR_GSO_UDP_L4`, virtio 1.2 section
/// 5.1.6): from Linux 6.2 on. `false` if the kernel does not tell its version.
#[must_use]
pub fn takes_udp_segments() -> bool {
    let uname = nix::sys::utsname::uname().ok();
    let release = uname.as_ref().and_then(|uname| uname.release().to_str());
    release.and_then(version) >= Some((6, 2))
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
