// SPDX-License-Identifier: GPL-3.0-or-later
//! The nodes of a backend directory that somebody waits for or that change.
//!
//! Watch events are kept apart by these keys; a write to any other node only says
//! that something about the device changed.

use std::fmt;

/// A known node of a backend directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `state`: ours, but the toolstack writes 5 there to ask for removal.
    State,
    /// `online`: 1 as long as the toolstack wants the device to come back.
    Online,
    /// `frontend`: the frontend's directory.
    Frontend,
    /// `frontend-id`: the guest.
    FrontendId,
    /// `handle`: the vif's number; older toolstacks write it late.
    Handle,
    /// `hotplug-status`: `connected` or `error`, by the hotplug script.
    HotplugStatus,
    /// `hotplug-error`: the script's own words.
    HotplugError,
    /// `script`: the hotplug script.
    Script,
    /// `mac`: the guest's address.
    Mac,
    /// `rate`: limit for what the guest sends, "bytes,microseconds".
    Rate,
    /// `bridge`: for the script.
    Bridge,
    /// `type`: `vif` or `vif_ioemu`.
    Type,
    /// `vifname`: the name that the script gives to the interface.
    Vifname,
    /// `mtu`: only if it is not 1500.
    Mtu,
    /// `error`: our last error, for people.
    Error,
}

impl Key {
    /// Every key.
    pub const ALL: [Self; 15] = [
        Self::State,
        Self::Online,
        Self::Frontend,
        Self::FrontendId,
        Self::Handle,
        Self::HotplugStatus,
        Self::HotplugError,
        Self::Script,
        Self::Mac,
        Self::Rate,
        Self::Bridge,
        Self::Type,
        Self::Vifname,
        Self::Mtu,
        Self::Error,
    ];

    /// The name of the node.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Online => "online",
            Self::Frontend => "frontend",
            Self::FrontendId => "frontend-id",
            Self::Handle => "handle",
            Self::HotplugStatus => "hotplug-status",
            Self::HotplugError => "hotplug-error",
            Self::Script => "script",
            Self::Mac => "mac",
            Self::Rate => "rate",
            Self::Bridge => "bridge",
            Self::Type => "type",
            Self::Vifname => "vifname",
            Self::Mtu => "mtu",
            Self::Error => "error",
        }
    }

    /// The key of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
