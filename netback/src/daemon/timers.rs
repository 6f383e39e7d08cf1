// SPDX-License-Identifier: GPL-3.0-or-later
//! What the control thread has to do at a later time.

use xenbus::DevicePath;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// Say that a device still waits for its hotplug script.
    HotplugWait(DevicePath),
    /// Show the host what a frontend has asked for since.
    Show(DevicePath),
    /// Look at a tap that somebody held.
    Netif(DevicePath),
    /// Look at a frontend that has been looked at too often.
    Look(DevicePath),
    /// Write again what the store refused.
    Resync(DevicePath),
    /// Look at a script that the daemon runs: its time may be over.
    Script(DevicePath),
}

impl Due {
    /// Whose it is.
    pub(super) fn device(self) -> DevicePath {
        match self {
            Self::HotplugWait(device)
            | Self::Show(device)
            | Self::Netif(device)
            | Self::Look(device)
            | Self::Resync(device)
            | Self::Script(device) => device,
        }
    }
}
