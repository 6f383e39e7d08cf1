// SPDX-License-Identifier: GPL-3.0-or-later
//! Taps that outlived their device.
//!
//! Taps are persistent, so that a daemon can die and its guests' bridges stay as they are. A
//! device that the toolstack removes in the meantime has nobody to remove its tap; the next
//! daemon does so here, once, when it has taken up the devices that are still there.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use hotplug::{MacAddr, Tap, TapError, TapOptions};
use xenbus::path::decimal;

/// Where the kernel lists network interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Removes the taps that a former daemon left, except those of the devices in `kept`.
pub(super) fn remove(kept: &BTreeSet<String>) {
    let names = match candidates(Path::new(INTERFACES)) {
        Ok(names) => names,
        Err(error) => {
            tracing::warn!(%error, "cannot look for taps that were left behind");
            return;
        }
    };
    for name in names.difference(kept) {
        match remove_one(name) {
            Ok(true) => tracing::info!(vif = %name, "removed the tap of a device that is gone"),
            Ok(false) => {}
            Err(error) => tracing::warn!(vif = %name, %error, "a tap of a device that is gone stays"),
        }
    }
}

/// Taps with a name that a backend gives. Only taps have the attribute `tun_flags`.
fn candidates(interfaces: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(interfaces)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && is_vif(&name)
            && entry.path().join("tun_flags").exists()
        {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Whether a name is `vif<domid>.<handle>`.
fn is_vif(name: &str) -> bool {
    name.strip_prefix("vif")
        .and_then(|numbers| numbers.split_once('.'))
        .is_some_and(|(dom, handle)| decimal(dom).is_some() && decimal(handle).is_some())
}

/// `false` for a tap that is in use, or that does not have a backend's address.
fn remove_one(name: &str) -> Result<bool, TapError> {
    let tap = match Tap::create(name, &TapOptions::default()) {
        Err(TapError::Busy(_) | TapError::NotOurs(_)) => return Ok(false),
        other => other?,
    };
    if tap.mac().is_ok_and(|mac| mac == MacAddr::BACKEND) {
        tap.destroy().map(|()| true)
    } else {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_backends_names() {
        for name in ["vif1.0", "vif32751.4294967295"] {
            assert!(is_vif(name), "{name}");
        }
        for name in ["vif1.0-emu", "vif1", "vif.0", "vif1.", "vif01.0", "vif1.0.1", "eth0", "vifx.0"] {
            assert!(!is_vif(name), "{name}");
        }
    }

    #[test]
    fn only_taps() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["vif1.0", "vif2.0", "eth0"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        for name in ["vif2.0", "eth0"] {
            fs::write(dir.path().join(name).join("tun_flags"), "0x5002").unwrap();
        }
        assert_eq!(candidates(dir.path()).unwrap(), BTreeSet::from(["vif2.0".to_owned()]));
        assert!(candidates(&dir.path().join("none")).is_err());
    }
}
