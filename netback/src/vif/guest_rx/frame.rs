// SPDX-License-Identifier: GPL-3.0-or-later
//! Where the next frame for the guest comes from, and whether it can be taken: it was held for want
//! of buffers, or is cut off one that stands for several, or is read from the tap. Called while a
//! burst is planned (`guest_rx`).

use std::ops::Range;
use std::time::Instant;

use hotplug::Tap;
use hotplug::tap::is_gone;
use xen_ring::netif::Extra;
use xen_ring::{CopyBatch, PAGE_SIZE};

use super::{GuestRx, SLOTS_MAX};
use crate::vif::counters::{DirectionCounters, DropReason};
use crate::vif::cut::Cut;
use crate::vif::fault::Fault;
use crate::vif::feature::Feature;
use crate::vif::offload::is_taken_whole;
use crate::vif::vnet::{VNET_HDR_LEN, VnetHdr};
use crate::vif::workbench::{FRAME_MAX, TAGGED_FRAME_MAX};

/// What a read from the tap brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// A frame of this many bytes.
    Frame(usize),
    /// A frame that the kernel could not hand over.
    Refused,
    /// Nothing.
    Empty,
}

/// A frame that waits for buffers.
#[derive(Debug)]
pub(super) struct Held {
    /// The frame behind its header.
    bytes: Vec<u8>,
    /// Buffers that it needs.
    pub(super) slots: u32,
    pub(super) since: Instant,
}

/// A frame that the guest can take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepted {
    pub(super) header: VnetHdr,
    /// Its hash, if the guest wants to know it.
    pub(super) hash: Option<Extra>,
    /// Buffers that it takes, those for extra infos included.
    pub(super) slots: u32,
}

impl GuestRx {
    /// Whether there are frames that have been read from the tap.
    pub(super) fn has_frames(&self) -> bool {
        self.held.is_some() || self.segments.is_some()
    }

    /// Buffers that the next frame needs: what the held one does, else 1.
    pub(super) fn wanted(&self) -> u32 {
        self.held.as_ref().map_or(1, |held| held.slots)
    }

    /// The held frame, a segment, or a frame from the tap, put behind its header where `room` begins.
    // In line always, as `accept`: the compiler would make both calls for each frame.
    #[inline(always)]
    pub(super) fn next_frame(
        &mut self,
        batch: &mut CopyBatch,
        room: Range<usize>,
        tap: &Tap,
    ) -> Result<Read, Fault> {
        let start = room.start - VNET_HDR_LEN;
        if let Some(Held { bytes, .. }) = self.held.take() {
            let room = batch.bytes_mut(start..start + bytes.len());
            room.copy_from_slice(&bytes);
            return Ok(Read::Frame(bytes.len() - VNET_HDR_LEN));
        }
        if let Some(segments) = &mut self.segments {
            let segment = segments.next(batch.bytes_mut(start..room.end));
            if segment.is_none() || segments.left() == 0 {
                self.segments = None;
            }
            if let Some(len) = segment {
                return Ok(Read::Frame(len - VNET_HDR_LEN));
            }
        }
        self.read(batch, room, tap)
    }

    /// A frame to be segmented that the guest cannot take so is cut here, if it can be. `false` if
    /// not. The kernel cuts for this tap what the guest cannot take, but for frames behind a VLAN
    /// tag, and those that waited when that changed.
    pub(super) fn cut_up(&mut self, batch: &CopyBatch, frame: &Range<usize>) -> bool {
        self.segments = match header_of(batch, frame) {
            Ok(header) => Cut::new(batch.bytes(frame.clone()), header),
            Err(_) => None,
        };
        self.segments.is_some()
    }

    /// Drops the segments that have not gone yet, and counts them.
    pub(super) fn drop_segments(&mut self, reason: DropReason, counters: &DirectionCounters) {
        if let Some(segments) = self.segments.take() {
            counters.dropped_all(reason, segments.left());
        }
    }

    /// Keeps a frame until the guest has posted `slots` buffers. The only copy that is made
    /// beside the way, and only for a guest that is short of buffers.
    pub(super) fn hold(
        &mut self,
        batch: &CopyBatch,
        frame: &Range<usize>,
        slots: u32,
        since: Instant,
    ) {
        self.held = Some(Held {
            bytes: batch.bytes(frame.start - VNET_HDR_LEN..frame.end).to_vec(),
            slots,
            since,
        });
    }

    /// Reads a frame behind its header.
    pub(super) fn read(
        &mut self,
        batch: &mut CopyBatch,
        room: Range<usize>,
        tap: &Tap,
    ) -> Result<Read, Fault> {
        self.work += 1;
        let room = batch.bytes_mut(room.start - VNET_HDR_LEN..room.end);
        match tap.read(room) {
            Ok(len) => Ok(Read::Frame(len.saturating_sub(VNET_HDR_LEN))),
            Err(error) if is_gone(&error) => Err(Fault::Tap),
            // The kernel takes a frame that it cannot describe out of the queue and says EINVAL.
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Ok(Read::Refused),
            // EAGAIN; and whatever else it may be is over when the tap is readable again.
            Err(_) => {
                self.tap_readable = false;
                Ok(Read::Empty)
            }
        }
    }

    /// Judges a frame that has just been read behind its header: whether the guest wants it, whether it has to be
    /// cut up, and its size. Frontends count the slots with data; extra infos take slots, too, but are not
    /// limited.
    #[inline(always)]
    pub(super) fn accept(
        &mut self,
        batch: &CopyBatch,
        frame: &Range<usize>,
    ) -> Result<Accepted, DropReason> {
        let header = header_of(batch, frame)?;
        self.expect_large = frame.len() > PAGE_SIZE;
        if frame.is_empty() {
            return Err(DropReason::BadFromTap);
        }
        // Before it is cut up: of one that was cut off nobody knows the end.
        if frame.len() > TAGGED_FRAME_MAX {
            return Err(DropReason::TooLarge);
        }
        if self.live.multicast.blocks(batch.bytes(frame.clone())) {
            return Err(DropReason::NotInMulticastList);
        }
        // Before it waits for buffers that no segment of it needs.
        if !is_taken_whole(header, batch.bytes(frame.clone()), self.features_now()) {
            return Err(DropReason::UnwantedSegments);
        }
        let pages_max = if self.features.has(Feature::Sg) {
            SLOTS_MAX
        } else {
            1
        };
        let room = self.headroom.room();
        let pages = match frame.len() {
            // Most are short, and need no division.
            len if len <= room => 1,
            len if len <= FRAME_MAX => u32::try_from(len.div_ceil(room)).unwrap_or(u32::MAX),
            _ => return Err(DropReason::TooLarge),
        };
        if pages > pages_max {
            return Err(DropReason::TooLarge);
        }
        let hasher = self.hasher.as_ref();
        let hash = hasher.and_then(|hasher| hasher.describe(batch.bytes(frame.clone())));
        let extras = [header.gso.is_some(), hash.is_some(), self.xdp().is_some()];
        Ok(Accepted {
            slots: pages + extras.map(u32::from).iter().sum::<u32>(),
            header,
            hash,
        })
    }
}

/// The header that stands before a frame.
fn header_of(batch: &CopyBatch, frame: &Range<usize>) -> Result<VnetHdr, DropReason> {
    let header = batch.bytes(frame.start - VNET_HDR_LEN..frame.start);
    let header = <[u8; VNET_HDR_LEN]>::try_from(header).map_err(|_| DropReason::BadFromTap)?;
    VnetHdr::from_bytes(header).map_err(|_| DropReason::BadFromTap)
}
