// SPDX-License-Identifier: GPL-3.0-or-later
//! Each refusal, on a directory that plays the machine.

use super::*;
use std::os::unix::fs::PermissionsExt;

/// A dom0 that has all it needs.
fn dom0() -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::at(dir.path());
    put(&host, "/sys/hypervisor/type", "xen\n");
    put(&host, "/sys/bus/xen-backend/drivers/vbd/bind", "");
    for node in NODES {
        put(&host, node.path, "");
    }
    put(
        &host,
        "/proc/self/status",
        "Name:\tnetback\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n",
    );
    std::fs::create_dir(host.path("/run")).unwrap();
    (dir, host)
}

fn put(host: &Host, path: &str, text: &str) {
    let path = host.path(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn remove(host: &Host, path: &str) {
    std::fs::remove_file(host.path(path)).unwrap();
}

fn refusal(host: &Host) -> String {
    check(host).expect_err("it would have started").to_string()
}

#[test]
fn a_good_host_passes_and_is_locked() {
    let (_dir, host) = dom0();
    let lock = check(&host).unwrap();
    let text = std::fs::read_to_string(host.path("/run/netback/lock")).unwrap();
    assert_eq!(text, format!("{}\n", std::process::id()));
    let mode = |path| {
        std::fs::metadata(host.path(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("/run/netback") & 0o022, 0);
    assert_eq!(mode("/run/netback/lock") & 0o133, 0);

    let refused = refusal(&host);
    assert_eq!(
        refused,
        format!(
            "another netback is running (process {}): stop it first",
            std::process::id()
        )
    );
    drop(lock);
    drop(check(&host).unwrap());
}

#[test]
fn a_lock_without_a_pid_still_locks() {
    let (_dir, host) = dom0();
    let lock = check(&host).unwrap();
    for text in ["", "what\n", "\u{ff}", &"9".repeat(100)] {
        put(&host, "/run/netback/lock", text);
        assert_eq!(
            refusal(&host),
            "another netback is running: stop it first",
            "{text:?}"
        );
    }
    drop(lock);
    // What a dead one left is not a lock, and is overwritten whole.
    put(&host, "/run/netback/lock", "999999999999\n");
    let _lock = check(&host).unwrap();
    let text = std::fs::read_to_string(host.path("/run/netback/lock")).unwrap();
    assert_eq!(text, format!("{}\n", std::process::id()));
}

#[test]
fn not_under_xen() {
    let (_dir, host) = dom0();
    for kind in ["kvm\n", "", "xenon"] {
        put(&host, "/sys/hypervisor/type", kind);
        assert!(
            refusal(&host).starts_with("this machine does not run under Xen"),
            "{kind:?}"
        );
    }
    remove(&host, "/sys/hypervisor/type");
    assert!(refusal(&host).contains("netback demo"));
    std::fs::create_dir_all(host.path("/proc/xen")).unwrap();
    drop(check(&host).unwrap());
}

#[test]
fn the_kernel_driver() {
    let (_dir, host) = dom0();
    put(&host, "/sys/bus/xen-backend/drivers/vif/bind", "");
    assert!(refusal(&host).contains("initcall_blacklist=netback_init"));
    put(&host, "/sys/module/xen_netback/initstate", "live\n");
    let refused = refusal(&host);
    assert!(refused.contains("`modprobe -r xen-netback`"), "{refused}");
    assert!(
        refused.contains(
            "`blacklist xen-netback` and `install xen-netback /bin/true` in /etc/modprobe.d/netback.conf"
        ),
        "{refused}"
    );
}

#[test]
fn each_missing_node() {
    for node in NODES {
        let (_dir, host) = dom0();
        remove(&host, node.path);
        assert_eq!(
            refusal(&host),
            format!("{} is missing: run `modprobe {}`", node.path, node.module)
        );
    }
}

#[test]
fn a_node_that_is_something_else() {
    let (_dir, host) = dom0();
    remove(&host, "/dev/xen/evtchn");
    std::fs::create_dir(host.path("/dev/xen/evtchn")).unwrap();
    assert!(refusal(&host).starts_with("/dev/xen/evtchn cannot be opened: "));
}

#[test]
fn no_permission_for_a_node() {
    let (dir, host) = dom0();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(
        host.path("/dev/xen/evtchn"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let others = std::fs::Permissions::from_mode(0o666);
    for node in ["/dev/xen/gntdev", "/dev/net/tun"] {
        std::fs::set_permissions(host.path(node), others.clone()).unwrap();
    }
    // Root may open anything, so the check runs as another user; that setting is the thread's alone.
    let root = nix::unistd::geteuid().is_root();
    if !root {
        std::fs::set_permissions(
            host.path("/dev/xen/evtchn"),
            std::fs::Permissions::from_mode(0o000),
        )
        .unwrap();
    }
    let refused = std::thread::spawn(move || {
        if root {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        }
        refusal(&host)
    });
    assert_eq!(
        refused.join().unwrap(),
        "no permission to open /dev/xen/evtchn: start netback as root"
    );
}

#[test]
fn no_capability() {
    let (_dir, host) = dom0();
    for mask in ["0000000000000000", "000001ffffffefff"] {
        put(&host, "/proc/self/status", &format!("CapEff:\t{mask}\n"));
        assert!(
            refusal(&host).contains("CAP_NET_ADMIN is missing"),
            "{mask}"
        );
    }
    for other in [
        "CapEff:\t0000000000001000\n",
        "CapEff:\tnonsense\n",
        "Name:\tx\n",
    ] {
        put(&host, "/proc/self/status", other);
        drop(check(&host).unwrap());
    }
    remove(&host, "/proc/self/status");
    drop(check(&host).unwrap());
}

#[test]
fn a_lock_that_cannot_be_made() {
    let (_dir, host) = dom0();
    put(&host, "/run/netback", "a file");
    let refused = refusal(&host);
    assert!(
        refused.contains("the lock file ") && refused.contains("/run/netback/lock cannot be used"),
        "{refused}"
    );
}

#[test]
fn the_system_is_at_the_root() {
    assert_eq!(
        Host::system().path("/dev/net/tun"),
        Path::new("/dev/net/tun")
    );
}
