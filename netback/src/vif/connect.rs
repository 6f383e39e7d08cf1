// SPDX-License-Identifier: GPL-3.0-or-later
//! What serving a queue pair takes: read from the store and put together by the control thread, handed
//! to a worker, and consumed by [`QueuePair::connect`](super::QueuePair::connect).

use std::sync::Arc;
use std::time::Duration;

use hotplug::{Spread, Steering, Tap};
use xen_ring::DomId;
use xenbus::DevicePath;

use super::bucket::Limits;
use super::control::{Peer, RingKeys, View};
use super::counters::QueueCounters;
use super::feature::Features;
use super::live::Live;
use super::negotiate::QueueKeys;

/// Which queue pair of which connection. A vif that connects again gets a new number, so that a
/// late report about the old connection cannot be taken for the new one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId {
    /// The vif.
    pub device: DevicePath,
    /// The connection: counted over the daemon's life.
    pub connection: u64,
    /// The queue pair's number within the connection, from 0.
    pub index: u16,
}

/// All that it takes to serve a queue pair.
#[derive(Debug)]
pub struct ConnectRequest {
    /// The number that reports will carry.
    pub queue: QueueId,
    /// The guest.
    pub guest: DomId,
    /// Where its rings and event channels are.
    pub keys: QueueKeys,
    /// The rings may be those of a daemon that was killed.
    pub adopted: bool,
    /// What was agreed on with it.
    pub features: Features,
    /// The worker's own handle of the queue of the vif's tap that goes with this queue pair.
    pub tap: Tap,
    /// The vif's rate limits, shared by all its queues.
    pub limits: Arc<Limits>,
    /// How long the guest may be short of receive buffers before it has stalled; `None` for ever.
    pub stall: Option<Duration>,
    /// What may change while it is served, shared by all queues of the connection.
    pub live: Arc<Live>,
    /// Counters that outlive the connection.
    pub counters: Arc<QueueCounters>,
    /// Its part in the vif's control ring, if the vif has one.
    pub control: Option<ControlRequest>,
}

/// What a queue pair of a vif with a control ring needs beside its own rings.
#[derive(Debug)]
pub struct ControlRequest {
    /// What the control thread sees of the control ring.
    pub view: Arc<View>,
    /// On queue 0: the control ring.
    pub ring: Option<RingRequest>,
}

/// What serving a control ring takes.
#[derive(Debug)]
pub struct RingRequest {
    /// Where it is.
    pub keys: RingKeys,
    /// All queues of the vif, by number.
    pub queues: Vec<Peer>,
    /// What can steer packets to them, if there are several and the kernel can.
    pub steering: Option<Steering>,
    /// What does as long as the guest does not say how.
    pub spread: Option<Spread>,
}
