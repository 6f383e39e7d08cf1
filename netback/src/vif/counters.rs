// SPDX-License-Identifier: GPL-3.0-or-later
//! What a queue pair has moved and what it has dropped, and why.
//!
//! Each queue's counters have one writer, the worker that owns the queue, so an update is a plain
//! load and store: no locked instruction on the packet path. The control thread reads them for
//! `netback status` while packets flow, and may see values that are a packet apart.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

/// Counters of one queue pair. "tx" and "rx" are the guest's.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// From the guest.
    pub tx: CachePadded<DirectionCounters>,
    /// To the guest.
    pub rx: CachePadded<DirectionCounters>,
}

/// Counters of one direction of one queue.
#[derive(Debug, Default)]
pub struct DirectionCounters {
    packets: Counter,
    bytes: Counter,
    repairs: Counter,
    stalls: Counter,
    drops: [Counter; DropReason::ALL.len()],
}

impl DirectionCounters {
    /// Counts frames of so many bytes together (without virtio headers) that reached the other side.
    #[inline]
    pub fn delivered(&self, frames: usize, bytes: usize) {
        self.packets.add(frames as u64);
        self.bytes.add(bytes as u64);
    }

    /// Counts a frame that did not.
    #[inline]
    pub fn dropped(&self, reason: DropReason) {
        self.dropped_all(reason, 1);
    }

    /// Counts frames that did not.
    #[inline]
    pub fn dropped_all(&self, reason: DropReason, frames: usize) {
        if let Some(counter) = self.drops.get(reason as usize) {
            counter.add(frames as u64);
        }
    }

    /// Counts a frame that was to be segmented and came without a blank checksum.
    #[inline]
    pub fn repaired(&self) {
        self.repairs.add(1);
    }

    /// Counts a guest that has stalled.
    pub fn stalled(&self) {
        self.stalls.add(1);
    }

    /// How often the guest has stalled: rx only.
    pub fn stalls(&self) -> u64 {
        self.stalls.get()
    }

    /// Frames whose checksum had to be made blank for segmentation.
    pub fn repairs(&self) -> u64 {
        self.repairs.get()
    }

    /// Frames delivered.
    pub fn packets(&self) -> u64 {
        self.packets.get()
    }

    /// Bytes delivered, Ethernet headers included.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Every reason that has happened at least once, with its count.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .iter()
            .zip(&self.drops)
            .map(|(reason, counter)| (*reason, counter.get()))
            .filter(|(_, count)| *count > 0)
    }
}

/// Why a frame did not reach the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum DropReason {
    /// tx: the slots of the packet contradict each other, but harmlessly.
    Malformed,
    /// tx: more slots than a packet may have, fewer than are an attack.
    TooManySlots,
    /// tx: an offload that was not offered, or whose fields make no sense.
    BadOffload,
    /// tx: the checksum was left blank in a frame whose headers do not say where it belongs.
    NoChecksumPlace,
    /// tx: the guest wants an address in its multicast list, which is full.
    MulticastListFull,
    /// tx: the guest's link is down by the toolstack's will.
    LinkDown,
    /// Both: Xen refused to copy from or to the guest's page.
    GrantCopy,
    /// tx: the tap is administratively down.
    TapDown,
    /// tx: the host has no memory or no room for the frame.
    TapFull,
    /// tx: the tap refused the frame.
    TapRefused,
    /// rx: the frame needs more slots than the frontend accepts.
    TooLarge,
    /// rx: the frame needs more buffers than the guest had posted for a second (30 ms if it does
    /// not signal what it posts).
    NoBuffers,
    /// rx: the guest has stalled.
    Stalled,
    /// rx: the frame is to be segmented, the frontend cannot take it so, and it cannot be cut here: it
    /// is not TCP, or stands for too many.
    UnwantedSegments,
    /// rx: a multicast frame to an address that is not in the guest's list.
    NotInMulticastList,
    /// rx: the tap delivered something that is not a frame behind a virtio header.
    BadFromTap,
}

impl DropReason {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 16] = [
        Self::Malformed,
        Self::TooManySlots,
        Self::BadOffload,
        Self::NoChecksumPlace,
        Self::MulticastListFull,
        Self::LinkDown,
        Self::GrantCopy,
        Self::TapDown,
        Self::TapFull,
        Self::TapRefused,
        Self::TooLarge,
        Self::NoBuffers,
        Self::Stalled,
        Self::UnwantedSegments,
        Self::NotInMulticastList,
        Self::BadFromTap,
    ];

    /// The name under which `netback status` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooManySlots => "too-many-slots",
            Self::BadOffload => "bad-offload",
            Self::NoChecksumPlace => "no-checksum-place",
            Self::MulticastListFull => "multicast-list-full",
            Self::LinkDown => "link-down",
            Self::GrantCopy => "grant-copy",
            Self::TapDown => "tap-down",
            Self::TapFull => "tap-full",
            Self::TapRefused => "tap-refused",
            Self::TooLarge => "too-large",
            Self::NoBuffers => "no-buffers",
            Self::Stalled => "stalled",
            Self::UnwantedSegments => "unwanted-segments",
            Self::NotInMulticastList => "not-in-multicast-list",
            Self::BadFromTap => "bad-from-tap",
        }
    }
}

/// A number with one writer and any number of readers.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, n: u64) {
        let value = self.0.load(Ordering::Relaxed);
        self.0.store(value.wrapping_add(n), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_by_discriminant() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }

    #[test]
    fn only_what_happened_is_listed() {
        let counters = DirectionCounters::default();
        counters.delivered(1, 60);
        counters.delivered(1, 1514);
        counters.dropped(DropReason::BadFromTap);
        counters.dropped(DropReason::TapDown);
        counters.dropped(DropReason::TapDown);
        assert_eq!((counters.packets(), counters.bytes()), (2, 1574));
        let drops: Vec<_> = counters.drops().collect();
        assert_eq!(
            drops,
            [(DropReason::TapDown, 2), (DropReason::BadFromTap, 1)]
        );
    }
}
