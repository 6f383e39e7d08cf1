// SPDX-License-Identifier: GPL-3.0-or-later
//! What `netback status` tells, as data: the daemon fills it in, the client prints it, `--json` hands it on.
//!
//! `tx` and `rx` are the guest's: what it transmits and what it receives. Names and units of fields are an interface
//! that programs rely on: fields may be added, none may change its meaning. A field that an older daemon does not
//! send reads as empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::vif::feature::{Feature, Features, Shown, TABLE};

/// The whole daemon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The domain in which it runs: 0, or that of a driver domain.
    pub domid: u16,
    /// Number of worker threads.
    pub workers: usize,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Its connection to xenstored.
    pub xenstore: XenstoreStatus,
    /// It was told to stop, and waits for vif scripts that it runs to end.
    pub stopping: bool,
    /// Mapped or granted pages that could not be given back since it started: anything but 0 is a bug, here or in
    /// the kernel, and memory that stays taken until the daemon ends.
    pub failed_unmaps: u64,
    /// Every network device it knows, by domain and handle.
    pub vifs: Vec<VifStatus>,
}

/// The daemon's connection to xenstored. While it is down the data path goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XenstoreStatus {
    /// In order.
    #[default]
    Connected,
    /// Lost, and tried again.
    Reconnecting,
}

/// One network device of one guest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VifStatus {
    /// The guest's domain id.
    pub domid: u16,
    /// The device's handle (devid).
    pub handle: u32,
    /// Current name of the tap; a script may have renamed it.
    pub vif: String,
    /// The guest's name, as the toolstack calls it.
    pub guest: Option<String>,
    /// The guest's UUID.
    pub uuid: Option<String>,
    /// The guest's address.
    pub mac: Option<String>,
    /// Where the device is in its life, e.g. `connected`.
    pub state: String,
    /// Why it is not Connected, or what went wrong.
    pub reason: Option<String>,
    /// The `hotplug-status` node.
    pub hotplug_status: Option<String>,
    /// Number of queue pairs in use.
    pub queues: u16,
    /// What was agreed with the guest.
    pub features: FeatureStatus,
    /// What the guest has configured by its control ring, if it has one.
    pub control: Option<ControlStatus>,
    /// The vif script.
    pub script: Option<String>,
    /// The bridge that the toolstack asked for.
    pub bridge: Option<String>,
    /// The tap's MTU in bytes.
    pub mtu: Option<u32>,
    /// Whether the guest is told that its link is up (the node `carrier`); null while there is no tap.
    pub carrier: Option<bool>,
    /// Why it is told that it is not.
    pub carrier_reason: Option<String>,
    /// Addresses in the guest's multicast list; null while it is not connected.
    pub multicast_addresses: Option<usize>,
    /// What the guest transmits.
    pub tx: DirectionStatus,
    /// What the guest receives.
    pub rx: DirectionStatus,
    /// The same by queue pair, of as many as there have been at most.
    pub by_queue: Vec<QueueStatus>,
}

/// One queue pair of one device, since it was first used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueStatus {
    /// The worker thread that serves it, `netback/<number>`; null while the vif is not connected.
    pub worker: Option<usize>,
    /// What the guest transmits.
    pub tx: DirectionStatus,
    /// What the guest receives.
    pub rx: DirectionStatus,
}

/// What was agreed with the frontend. All are off while it is not connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeatureStatus {
    /// Each feature that is on or off, by the name that its row has; not the headroom, which is a number.
    #[serde(flatten, with = "flags")]
    pub on: Features,
    /// Bytes left free before the data in each of the guest's rx buffers (`xdp-headroom`); 0 without an XDP program.
    pub xdp_headroom: u16,
}

impl FeatureStatus {
    /// Whether a feature is on.
    #[must_use]
    pub fn has(self, feature: Feature) -> bool {
        match feature {
            Feature::XdpHeadroom => self.xdp_headroom > 0,
            flag => self.on.has(flag),
        }
    }
}

/// A set of features as an object: each name true or false. Names that this version does not know are passed over.
mod flags {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};
    use serde_json::Value;

    use super::{Feature, Features, Shown, TABLE};

    fn names() -> impl Iterator<Item = (&'static str, Feature)> {
        TABLE.iter().filter_map(|row| match row.shown {
            Shown::Flag { json, .. } => Some((json, row.feature)),
            Shown::Number => None,
        })
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub(super) fn serialize<S: Serializer>(set: &Features, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(names().map(|(name, feature)| (name, set.has(feature))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Features, D::Error> {
        let said = BTreeMap::<String, Value>::deserialize(from)?;
        let on = |name| said.get(name) == Some(&Value::Bool(true));
        Ok(names().fold(Features::default(), |set, (name, feature)| {
            set.with(feature, on(name))
        }))
    }
}

/// What a guest has configured by its control ring.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlStatus {
    /// `none` or `toeplitz`: what hashes the packets that the guest receives.
    pub hash_algorithm: String,
    /// Which packets: `ipv4`, `ipv4-tcp`, `ipv6`, `ipv6-tcp`.
    pub hash_types: Vec<String>,
    /// Entries of the table from hashes to queues; without any it is the hash modulo the queues.
    pub hash_mapping_size: u16,
    /// Packet pages of the guest that stay mapped, in all its queues.
    pub static_grants: usize,
}

/// One direction of one device, over all its queues, since the device appeared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DirectionStatus {
    /// Packets that went through.
    pub packets: u64,
    /// Their bytes, with the Ethernet header.
    pub bytes: u64,
    /// The limit, in millions of bits per second of whole frames; null is no limit.
    pub limit_mbit_per_second: Option<f64>,
    /// Packets that did not, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Failures that are not a packet's drop, by kind: "stall" is how often the guest has stopped
    /// to take what came for it, "repaired-checksum" how many frames to be segmented came without
    /// a blank checksum.
    pub errors: BTreeMap<String, u64>,
}

impl DirectionStatus {
    /// All drops.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.values().fold(0, |sum, n| sum.saturating_add(*n))
    }
}
