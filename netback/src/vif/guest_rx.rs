// SPDX-License-Identifier: GPL-3.0-or-later
//! The way of a packet to the guest: tap, grant copy, rx ring.
//!
//! A turn reads frames while the guest has posted enough buffers for the largest one, copies them
//! all into the guest's pages with one ioctl, then answers the buffers' slots and publishes. What
//! the guest has no buffers for stays in the tap, whose queue is bounded and drops at its end:
//! a guest that does not consume costs the host that queue and nothing else.

use std::io::{self, IoSliceMut};
use std::ops::Range;

use hotplug::Tap;
use nix::errno::Errno;
use xen_ring::netif::{
    Extra, ExtraSlot, RxFlags, RxRequest, RxResponse, RxRing, RxSlotResponse, Status,
};
use xen_ring::{BackRing, CopyBatch, DomId, Grants, PAGE_SIZE};

use super::counters::{DirectionCounters, DropReason};
use super::fault::Fault;
use super::negotiate::Features;
use super::offload::{ForGuest, Offloads, describe_for_guest};
use super::vnet::{VNET_HDR_LEN, VnetHdr};
use super::workbench::{BURST_FRAMES, Cursor, FRAME_MAX, PlannedRx, Workbench};

/// Slots that every frontend accepts for one frame (netif.h, `XEN_NETIF_NR_SLOTS_MIN`).
const SLOTS_MAX: usize = 18;
/// Ethernet header and a VLAN tag, in bytes: what a frame adds to the MTU.
const LINK_OVERHEAD: usize = 18;

/// The rx half of a queue pair.
#[derive(Debug)]
pub(super) struct GuestRx {
    ring: BackRing<RxRing>,
    guest: DomId,
    features: Features,
    /// Slots that the largest frame takes: by the MTU at first, then as seen.
    slots_needed: usize,
    /// The tap has not been found empty since it last became readable.
    tap_readable: bool,
    /// The last frame took several pages, so the next may too.
    expect_large: bool,
}

/// What a turn of the rx half leaves behind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RxTurn {
    /// The guest is to be notified.
    pub(super) notify: bool,
    /// There are frames, and buffers for them.
    pub(super) more: bool,
}

/// Why a burst ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The tap is empty.
    NoFrames,
    /// The guest has too few buffers posted.
    NoBuffers,
    /// The burst is full.
    Full,
}

impl GuestRx {
    /// The half of a vif whose tap has an MTU of `mtu` bytes.
    pub(super) fn new(ring: BackRing<RxRing>, guest: DomId, features: Features, mtu: u32) -> Self {
        let frame = match features.offloads {
            Offloads { gso_v4: false, gso_v6: false, .. } => {
                usize::try_from(mtu).unwrap_or(usize::MAX).saturating_add(LINK_OVERHEAD)
            }
            _ => FRAME_MAX + PAGE_SIZE,
        };
        let slots_needed = if features.sg { slots_for(frame).min(SLOTS_MAX) } else { 1 };
        // Frames may have been waiting in the tap since before anybody watched it.
        Self { ring, guest, features, slots_needed, tap_readable: true, expect_large: false }
    }

    /// The tap has frames.
    pub(super) fn tap_readable(&mut self) {
        self.tap_readable = true;
    }

    /// Moves a burst of frames, as many as there are buffers for.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the ring's indices break the protocol.
    pub(super) fn turn<G: Grants>(
        &mut self,
        bench: &mut Workbench<G>,
        tap: &Tap,
        counters: &DirectionCounters,
    ) -> Result<RxTurn, Fault> {
        if !self.tap_readable {
            return Ok(RxTurn::default());
        }
        let ended = self.plan(bench, tap, counters)?;
        bench.copy();
        let notify = self.answer(bench, counters)?;
        let more = match ended {
            Ended::NoFrames => false,
            Ended::Full => true,
            Ended::NoBuffers => self
                .ring
                .arm_for(u32::try_from(self.slots_needed).unwrap_or(u32::MAX))?,
        };
        Ok(RxTurn { notify, more })
    }

    /// Reads frames and plans their copies until the tap is empty, the buffers are used up, or
    /// the burst is full.
    fn plan<G>(
        &mut self,
        bench: &mut Workbench<G>,
        tap: &Tap,
        counters: &DirectionCounters,
    ) -> Result<Ended, Fault> {
        let Workbench { batch, rx_burst, rx_taken, .. } = bench;
        batch.clear();
        rx_burst.clear();
        rx_taken.clear();
        let mut cursor = Cursor::default();
        let mut buffers = usize::try_from(self.ring.unconsumed()?).unwrap_or_default();
        for _ in 0..BURST_FRAMES {
            if buffers < self.slots_needed {
                return Ok(Ended::NoBuffers);
            }
            if batch.capacity() - batch.len() < SLOTS_MAX {
                return Ok(Ended::Full);
            }
            let Some(room) = cursor.place_any(self.expect_large) else { return Ok(Ended::Full) };
            let Some(len) = self.read(batch, room.clone(), tap)? else {
                return Ok(Ended::NoFrames);
            };
            let frame = room.start..room.start + len;
            cursor.shrink(frame.end);
            let description = match self.accept(batch, frame.clone(), buffers) {
                Ok(description) => description,
                Err(reason) => {
                    counters.dropped(reason);
                    continue;
                }
            };
            let first_op = batch.len();
            for at in frame.clone().step_by(PAGE_SIZE) {
                let part = u16::try_from((frame.end - at).min(PAGE_SIZE)).unwrap_or_default();
                let request = self.take()?;
                batch.to_guest(at, part, self.guest, request.gref, 0)?;
                rx_taken.push((request, part));
                if at == frame.start && description.gso.is_some() {
                    // The extra info goes out in the next request's slot and uses it up.
                    self.take()?;
                }
            }
            let ops = first_op..batch.len();
            buffers -= ops.len() + usize::from(description.gso.is_some());
            rx_burst.push(PlannedRx { description, ops, len });
        }
        Ok(Ended::Full)
    }

    /// Reads a frame behind its header, and gives its length: `None` when the tap is empty.
    fn read(
        &mut self,
        batch: &mut CopyBatch,
        room: Range<usize>,
        tap: &Tap,
    ) -> Result<Option<usize>, Fault> {
        let room = batch.bytes_mut(room.start - VNET_HDR_LEN..room.end);
        match tap.read_vectored(&mut [IoSliceMut::new(room)]) {
            Ok(len) => Ok(Some(len.saturating_sub(VNET_HDR_LEN))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.tap_readable = false;
                Ok(None)
            }
            Err(error) => {
                Err(Fault::Tap(Errno::from_raw(error.raw_os_error().unwrap_or_default())))
            }
        }
    }

    /// Judges a frame that has just been read behind its header, before any buffer is taken for
    /// it.
    fn accept(
        &mut self,
        batch: &mut CopyBatch,
        frame: Range<usize>,
        buffers: usize,
    ) -> Result<ForGuest, DropReason> {
        let header = batch.bytes(frame.start - VNET_HDR_LEN..frame.start);
        let header = <[u8; VNET_HDR_LEN]>::try_from(header).map_err(|_| DropReason::BadFromTap)?;
        let header = VnetHdr::from_bytes(header).map_err(|_| DropReason::BadFromTap)?;
        self.expect_large = frame.len() > PAGE_SIZE;
        let slots = slots_for(frame.len()) + usize::from(header.gso.is_some());
        let slots_max = if self.features.sg { SLOTS_MAX } else { 1 };
        if frame.is_empty() {
            return Err(DropReason::BadFromTap);
        }
        if slots > slots_max {
            return Err(DropReason::TooLarge);
        }
        if slots > buffers {
            // The MTU has grown since: from now on frames like this one wait in the tap.
            self.slots_needed = self.slots_needed.max(slots);
            return Err(DropReason::NoBuffers);
        }
        describe_for_guest(header, batch.bytes_mut(frame), self.features.offloads)
    }

    /// A buffer that was counted before it is taken.
    fn take(&mut self) -> Result<RxRequest, Fault> {
        self.ring.take().ok_or(Fault::Buffers)
    }

    /// Answers every buffer of the burst in ring order and publishes the answers. `true` if the
    /// guest is to be notified.
    fn answer<G>(
        &mut self,
        bench: &Workbench<G>,
        counters: &DirectionCounters,
    ) -> Result<bool, Fault> {
        for planned in &bench.rx_burst {
            let taken = bench.rx_taken.get(planned.ops.clone()).unwrap_or_default();
            let mut flags = planned.description.flags;
            let mut extra = planned.description.gso.map(Extra::Gso);
            if extra.is_some() {
                flags = flags.with(RxFlags::EXTRA_INFO);
            }
            let mut copied = true;
            for ((request, part), op) in taken.iter().zip(planned.ops.clone()) {
                if op + 1 < planned.ops.end {
                    flags = flags.with(RxFlags::MORE_DATA);
                }
                let done = bench.batch.status(op).is_ok();
                copied &= done;
                let status = if done { part.cast_signed() } else { Status::Error as i16 };
                let data = RxResponse { id: request.id, offset: 0, flags, status };
                self.ring.respond(RxSlotResponse::Data(data))?;
                if let Some(extra) = extra.take() {
                    self.ring.respond(RxSlotResponse::Extra(ExtraSlot { extra, more: false }))?;
                }
                flags = RxFlags::default();
            }
            if copied {
                counters.delivered(planned.len);
            } else {
                counters.dropped(DropReason::GrantCopy);
            }
        }
        Ok(self.ring.publish().is_needed())
    }
}

/// Slots that the data of a frame of `len` bytes takes.
fn slots_for(len: usize) -> usize {
    len.div_ceil(PAGE_SIZE)
}
