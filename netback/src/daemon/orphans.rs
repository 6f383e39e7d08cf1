// SPDX-License-Identifier: GPL-3.0-or-later
//! Taps that outlived their device, and errors in the store that did.
//!
//! Taps are persistent, so that a daemon can die and its guests' bridges stay as they are. A
//! device that the toolstack removes in the meantime has nobody to remove its tap; the next
//! daemon does so here, once, before it takes up the devices that are still there. A device that
//! goes while somebody else holds its tap is another such case. A tap that its
//! script is to give another name (`vifname=`) bears its device's path as its alias: one that stays
//! behind under that name would be plugged in in place of the next guest's. An error of a device that
//! went meanwhile is in nobody's way, but in a driver domain each takes of the quota.

use std::os::fd::OwnedFd;

use hotplug::link::{self, Description};
use hotplug::{MacAddr, Tap, TapError, TapOptions};
use xenbus::path::{Subject, decimal};
use xenbus::{Client, DevicePath, DomId, device};

use crate::keeper::Keeper;

/// How the alias of a tap of ours begins; the device's path follows.
const ALIAS: &str = "netback ";

/// The alias of a device's tap.
pub(super) fn alias(device: DevicePath) -> String {
    format!("{ALIAS}{}", device.dir())
}

/// Removes taps that were kept open for devices that are gone.
pub(super) fn remove_kept(
    left: impl IntoIterator<Item = (DevicePath, OwnedFd)>,
    keeper: Option<&Keeper>,
) {
    for (device, tap) in left {
        let removed = Tap::resume(tap, &TapOptions::default()).and_then(Tap::destroy);
        match removed {
            Ok(()) => tracing::info!(%device, "removed the tap of a device that is gone"),
            Err(error) if error.is_gone() => {}
            Err(error) => {
                tracing::warn!(%device, %error, "the tap of a device that is gone stays");
            }
        }
        if let Some(keeper) = keeper {
            keeper.release(device);
        }
    }
}

/// Removes the taps that nobody holds and whose device `is_gone`.
pub(super) fn remove_taps(is_gone: impl Fn(DevicePath) -> bool) {
    let names = match link::names() {
        Ok(names) => names,
        Err(error) => {
            tracing::warn!(%error, "cannot look for taps that were left behind");
            return;
        }
    };
    for tap in names {
        // Another daemon, of another store, may serve it.
        remove_tap_of(&is_gone, &tap, Tap::create, |_| {});
    }
}

/// Removes the tap that `device` would have had, if nobody holds it. Does not wait.
pub(super) fn remove_tap(device: DevicePath, name: &str) {
    remove_tap_of(
        |owner| owner == device,
        name,
        Tap::try_create,
        |error| {
            tracing::warn!(tap = name, %device, %error, "the tap of a device that is gone stays until a daemon starts anew");
        },
    );
}

fn remove_tap_of(
    is_gone: impl Fn(DevicePath) -> bool,
    tap: &str,
    open: fn(&str, &TapOptions) -> Result<Tap, TapError>,
    busy: impl FnOnce(&TapError),
) {
    let device = match link::describe(tap) {
        Ok(interface) => owner(&interface).filter(|device| is_gone(*device)),
        // It has gone meanwhile.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => None,
        Err(error) => {
            tracing::warn!(%tap, %error, "cannot see whether this interface was left behind");
            None
        }
    };
    let Some(device) = device else { return };
    match open(tap, &TapOptions::default()).and_then(Tap::destroy) {
        Ok(()) => tracing::info!(%tap, %device, "removed the tap of a device that is gone"),
        // It looked like one of ours.
        Err(TapError::NotOurs(_)) => {}
        Err(error @ TapError::Busy(_)) => busy(&error),
        Err(error) => tracing::warn!(%tap, %device, %error, "a tap of a device that is gone stays"),
    }
}

/// Removes the errors that were told of devices of which each `is_gone`.
pub(super) fn remove_errors(client: &Client, is_gone: impl Fn(DevicePath) -> bool) {
    let removed = device::with_errors(client).and_then(|devices| {
        let mut gone = devices.into_iter().filter(|device| is_gone(*device));
        gone.try_for_each(|device| device::forget_error(client, device))
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "errors of devices that are gone stay in xenstore");
    }
}

/// The device whose tap this is: by its alias, or else by its name; and by a backend's address.
fn owner(interface: &Description) -> Option<DevicePath> {
    let is_ours = interface.is_tun && interface.address == Some(MacAddr::BACKEND);
    let alias = interface.alias.as_deref();
    match alias
        .and_then(|alias| alias.strip_prefix(ALIAS))
        .map(Subject::of)
    {
        _ if !is_ours => None,
        Some(Subject::Device(device)) => Some(device),
        _ => device(&interface.name),
    }
}

/// The device whose tap has this name, if it is `vif<domid>.<handle>`.
fn device(name: &str) -> Option<DevicePath> {
    let (dom, handle) = name.strip_prefix("vif")?.split_once('.')?;
    Some(DevicePath::new(DomId::parse(dom)?, decimal(handle)?))
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
        let backend = MacAddr::BACKEND;
        let guest: MacAddr = "00:16:3e:00:00:01".parse().unwrap();
        for (name, is_tun, address, alias, expected) in [
            ("vif1.0", false, backend, None, None),
            ("vif2.0", true, backend, None, Some("vif2.0")),
            ("vif3.0", true, guest, None, None),
            (
                "vif4.0",
                true,
                backend,
                Some("of an older one"),
                Some("vif4.0"),
            ),
            ("eth0", true, backend, Some("uplink"), None),
            (
                "web0",
                true,
                backend,
                Some("netback backend/vif/4/1"),
                Some("vif4.1"),
            ),
            (
                "web1",
                true,
                backend,
                Some("netback backend/vif/4/1/state"),
                None,
            ),
            (
                "web2",
                false,
                backend,
                Some("netback backend/vif/4/1"),
                None,
            ),
        ] {
            let interface = Description {
                name: name.to_owned(),
                alias: alias.map(str::to_owned),
                address: Some(address),
                is_tun,
            };
            assert_eq!(owner(&interface), expected.and_then(device), "{name}");
        }
        assert_eq!(alias(device("vif4.1").unwrap()), "netback backend/vif/4/1");
    }
}
