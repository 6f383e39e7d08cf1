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
use xenbus::{DevicePath, DomId};

/// Where the kernel lists network interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Removes the taps that a former daemon left and whose device `is_gone`.
pub(super) fn remove(is_gone: impl Fn(DevicePath) -> bool) {
    let devices = match candidates(Path::new(INTERFACES)) {
        Ok(devices) => devices,
        Err(error) => {
            tracing::warn!(%error, "cannot look for taps that were left behind");
            return;
        }
    };
    for device in devices.into_iter().filter(|device| is_gone(*device)) {
        let vif = format!("vif{}.{}", device.dom, device.handle);
        match remove_one(&vif) {
            Ok(true) => tracing::info!(%vif, "removed the tap of a device that is gone"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%vif, %error, "a tap of a device that is gone stays"),
        }
    }
}

/// Taps with a name and an address that a backend gives. Only taps have the attribute
/// `tun_flags`.
fn candidates(interfaces: &Path) -> io::Result<BTreeSet<DevicePath>> {
    let mut devices = BTreeSet::new();
    for entry in fs::read_dir(interfaces)? {
        let entry = entry?;
        if let Some(device) = entry.file_name().to_str().and_then(device)
            && entry.path().join("tun_flags").exists()
            && has_backend_address(&entry.path())
        {
            devices.insert(device);
        }
    }
    Ok(devices)
}

fn has_backend_address(interface: &Path) -> bool {
    fs::read_to_string(interface.join("address"))
        .is_ok_and(|text| text.trim().parse() == Ok(MacAddr::BACKEND))
}

/// The device whose tap has this name, if it is `vif<domid>.<handle>`.
fn device(name: &str) -> Option<DevicePath> {
    let (dom, handle) = name.strip_prefix("vif")?.split_once('.')?;
    Some(DevicePath::new(DomId::parse(dom)?, decimal(handle)?))
}

/// `false` for a tap that is in use.
fn remove_one(name: &str) -> Result<bool, TapError> {
    match Tap::create(name, &TapOptions::default()) {
        Ok(tap) => tap.destroy().map(|()| true),
        Err(TapError::Busy(_) | TapError::NotOurs(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_backends_names() {
        for name in ["vif1.0", "vif32751.4294967295"] {
            assert!(device(name).is_some(), "{name}");
        }
        for name in [
            "vif1.0-emu",
            "vif1",
            "vif.0",
            "vif1.",
            "vif01.0",
            "vif1.0.1",
            "eth0",
            "vifx.0",
        ] {
            assert_eq!(device(name), None, "{name}");
        }
    }

    #[test]
    fn only_taps_with_a_backends_address() {
        let dir = tempfile::tempdir().unwrap();
        for (name, is_tap, address) in [
            ("vif1.0", false, "fe:ff:ff:ff:ff:ff"),
            ("vif2.0", true, "fe:ff:ff:ff:ff:ff"),
            ("vif3.0", true, "00:16:3e:00:00:01"),
            ("eth0", true, "fe:ff:ff:ff:ff:ff"),
        ] {
            let interface = dir.path().join(name);
            fs::create_dir(&interface).unwrap();
            fs::write(interface.join("address"), format!("{address}\n")).unwrap();
            if is_tap {
                fs::write(interface.join("tun_flags"), "0x5002").unwrap();
            }
        }
        let vif2 = device("vif2.0").unwrap();
        assert_eq!(candidates(dir.path()).unwrap(), BTreeSet::from([vif2]));
        assert!(candidates(&dir.path().join("none")).is_err());
    }
}
