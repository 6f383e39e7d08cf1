// SPDX-License-Identifier: GPL-3.0-or-later
//! What `netback status` shows, gathered from the devices when somebody asks.

use std::collections::BTreeMap;
use std::time::Instant;

use xenbus::{DevicePath, DomId};

use super::connection::Connection;
use super::host::Host;
use super::losses::TAP_QUEUE_FULL;
use super::stall;
use super::timers::Due;
use super::vif::Vif;
use crate::control::model::{
    ControlStatus, DirectionStatus, FeatureStatus, QueueStatus, Status, VifStatus, XenstoreStatus,
};
use crate::vif::control::View;
use crate::vif::control::hash::HashType;
use crate::vif::feature::Feature;
use crate::vif::{DirectionCounters, QueueCounters, Rate};
use crate::worker::WorkerId;

/// Said of a vif while that is so.
const TAP_HELD: &str = "another process holds the tap: it is waited for, for a few seconds";
/// Said of a vif until what was refused is done.
const STORE_REFUSES: &str = "xenstored refuses what netback asks for (the log says what; a driver domain has quotas for nodes and watches): it is tried again every few seconds";

pub(super) fn status(
    vifs: &BTreeMap<DevicePath, Vif>,
    host: &Host,
    domid: DomId,
    started: Instant,
    stopping: bool,
) -> Status {
    let xenstore = match host.store.client() {
        Some(_) => XenstoreStatus::Connected,
        None => XenstoreStatus::Reconnecting,
    };
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        domid: domid.raw(),
        workers: host.workers.count(),
        uptime_seconds: started.elapsed().as_secs(),
        xenstore,
        stopping,
        failed_unmaps: xen_ring::failed_unmaps(),
        vifs: vifs.values().map(|vif| vif_status(vif, host)).collect(),
    }
}

fn vif_status(vif: &Vif, host: &Host) -> VifStatus {
    let connection = vif.connection.as_ref();
    let control = connection.and_then(|connection| connection.control.as_deref());
    let tap = vif.netif.tap();
    let link = tap.and_then(|tap| tap.link().ok());
    let worker = |index| connection.and_then(|connection| connection.worker(index));
    let by_queue: Vec<_> = (0..)
        .zip(&vif.counters)
        .map(|(index, counters)| queue_status(worker(index), counters))
        .collect();
    VifStatus {
        domid: vif.path.dom.raw(),
        handle: vif.path.handle,
        vif: tap
            .and_then(|tap| tap.name().ok())
            .unwrap_or_else(|| vif.name()),
        guest: vif.facts.guest.clone(),
        uuid: vif.facts.uuid.clone(),
        mac: vif.facts.mac.clone(),
        state: vif.machine.phase().name().to_owned(),
        reason: reason(vif, host),
        hotplug_status: vif.facts.hotplug_status.clone(),
        queues: connection.map_or(0, |connection| connection.negotiated.queues.count()),
        features: connection.map(features).unwrap_or_default(),
        control: control.map(control_status),
        script: vif.facts.script.clone(),
        bridge: vif.facts.bridge.clone(),
        mtu: link.map(|link| link.mtu),
        carrier: link.map(|_| vif.has_link()),
        carrier_reason: link.and_then(|_| vif.link_reason()),
        multicast_addresses: connection.map(|connection| connection.live.multicast.len()),
        tx: limited(sum(by_queue.iter().map(|queue| &queue.tx)), vif.limits.tx()),
        rx: with_losses(
            limited(sum(by_queue.iter().map(|queue| &queue.rx)), vif.limits.rx()),
            vif.lost_in_tap(),
        ),
        by_queue,
    }
}

/// The last error, or else what the device waits for, or what ails the guest.
fn reason(vif: &Vif, host: &Host) -> Option<String> {
    let refused = (host.timers)
        .is_set(Due::Resync(vif.path))
        .then_some(STORE_REFUSES);
    let held = vif.is_tap_held().then_some(TAP_HELD);
    let waits = held.or_else(|| vif.machine.phase().reason());
    let stalled = vif.is_stalled().then_some(stall::STALLED);
    let reason = vif.error().or(refused).or(waits).or(stalled);
    reason.map(str::to_owned).or_else(|| fewer_queues(vif))
}

fn fewer_queues(vif: &Vif) -> Option<String> {
    vif.queues_at_most.map(|queues| {
        format!("more queues could not be served (the log says why), so its driver is offered {queues} at most; detach the vif and attach it again to have all offered")
    })
}

fn features(connection: &Connection) -> FeatureStatus {
    let (agreed, live) = (connection.negotiated.features, &connection.live);
    FeatureStatus {
        on: agreed.with(Feature::MulticastControl, live.multicast.is_applied()),
        xdp_headroom: live.headroom().bytes(),
    }
}

fn control_status(view: &View) -> ControlStatus {
    let hash = view.hash();
    let types = HashType::ALL.into_iter();
    ControlStatus {
        hash_algorithm: hash.algorithm.name().to_owned(),
        hash_types: types
            .filter(|one| hash.types.contains(*one))
            .map(|one| one.name().to_owned())
            .collect(),
        hash_mapping_size: hash.mapping,
        static_grants: view.static_grants(),
    }
}

fn queue_status(worker: Option<WorkerId>, counters: &QueueCounters) -> QueueStatus {
    QueueStatus {
        worker: worker.map(WorkerId::number),
        tx: direction(&counters.tx),
        rx: direction(&counters.rx),
    }
}

fn direction(counters: &DirectionCounters) -> DirectionStatus {
    DirectionStatus {
        packets: counters.packets(),
        bytes: counters.bytes(),
        drops: counters
            .drops()
            .map(|(reason, n)| (reason.name().to_owned(), n))
            .collect(),
        errors: [
            ("stall", counters.stalls()),
            ("repaired-checksum", counters.repairs()),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| (kind.to_owned(), count))
        .collect(),
        // The limit is for all queues.
        ..DirectionStatus::default()
    }
}

/// A direction of the whole vif, which the limit is for.
fn limited(direction: DirectionStatus, limit: Option<Rate>) -> DirectionStatus {
    DirectionStatus {
        limit_mbit_per_second: limit.map(Rate::mbit_per_second),
        ..direction
    }
}

/// What comes for the whole vif, with what has not come as far as a queue.
fn with_losses(mut rx: DirectionStatus, lost: u64) -> DirectionStatus {
    if lost > 0 {
        rx.drops.insert(TAP_QUEUE_FULL.to_owned(), lost);
    }
    rx
}

/// One direction of all queues.
fn sum<'q>(queues: impl Iterator<Item = &'q DirectionStatus>) -> DirectionStatus {
    let mut sum = DirectionStatus::default();
    for queue in queues {
        sum.packets += queue.packets;
        sum.bytes += queue.bytes;
        for (all, own) in [
            (&mut sum.drops, &queue.drops),
            (&mut sum.errors, &queue.errors),
        ] {
            for (reason, count) in own {
                *all.entry(reason.clone()).or_default() += count;
            }
        }
    }
    sum
}
