// SPDX-License-Identifier: GPL-3.0-or-later
//! What a worker lends to whichever of its queue pairs has its turn: the grant device, the copy
//! batch with its buffers, room to plan a burst, and the time.
//!
//! Nothing here outlives a turn, so one set serves any number of vifs: an idle vif costs no
//! buffer, and a busy one finds the buffers warm in the cache. Everything is allocated when the
//! worker starts.

use std::cell::Cell;
use std::ops::Range;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use hotplug::TapWriter;
use xen_ring::netif::{Extra, RxFlags, RxRing, TxPacket, TxRing, TxSlot};
use xen_ring::{CopyBatch, DomId, Grants, PAGE_SIZE, RingKind, SysError};

use super::counters::DropReason;
use super::vnet::VNET_HDR_LEN;
use crate::logging::{RateLimited, if_any};

/// Slots of a ring, of either kind: the most that one turn can take.
const RING_SLOTS: usize = <TxRing as RingKind>::SLOTS as usize;
const _: () = assert!(<RxRing as RingKind>::SLOTS as usize == RING_SLOTS);
/// Operations in one ioctl, at most: each slot costs one copy.
const BATCH_OPS: usize = RING_SLOTS * CopyBatch::OPS_PER_COPY;
/// Bytes of frames in one burst, and so of a worker's buffers: room for several frames of 64 KiB.
const BUFFERS_LEAST: usize = 512 * 1024;
/// With more, a burst takes all that a ring can hold: a page for each slot.
const BUFFERS_MOST: usize = RING_SLOTS * PAGE_SIZE;
/// What all workers share; whose share would be less than the least has the least.
const BUFFERS_OF_ALL: usize = 2 * BUFFERS_MOST;
/// Frames in one burst, at most.
pub(super) const BURST_FRAMES: usize = BURST as usize;
const BURST: u32 = 64;
/// The longest frame, in bytes: a tx request's size is 16 bits (netif.h, `netif_tx_request`).
pub(super) const FRAME_MAX: usize = 65_535;
/// The longest that is read: the host does not count the VLAN tag which it puts into a frame for a tap.
pub(super) const TAGGED_FRAME_MAX: usize = FRAME_MAX + 4;
/// Room for a frame that is yet to be read: one byte more than the longest, so that a frame which
/// the tap had to cut off shows.
const READ_ROOM: usize = TAGGED_FRAME_MAX + 1;
/// Small frames share a page, each from a cache line's boundary.
const FRAME_ALIGN: usize = 64;

/// One worker's tools.
#[derive(Debug)]
pub struct Workbench<G> {
    pub(super) grants: G,
    pub(super) batch: CopyBatch,
    pub(super) writer: TapWriter,
    /// Datagrams in a row go to the tap as one frame.
    pub(super) joins: bool,
    pub(super) slots: Box<[TxSlot]>,
    pub(super) tx_burst: ArrayVec<PlannedTx, BURST_FRAMES>,
    pub(super) rx_burst: ArrayVec<PlannedRx, BURST_FRAMES>,
    /// The guest's buffers in the burst, in the order of the frames' bytes.
    pub(super) rx_taken: Vec<Taken>,
    /// The round's time.
    pub(super) clock: RoundClock,
    /// Keeps batches that fail as a whole from filling the log.
    failures: RateLimited,
}

/// The time, looked up once a round at most and only if somebody asks: on a Xen host it may take
/// a system call.
#[derive(Debug, Clone, Default)]
pub(super) struct RoundClock(Cell<Option<Instant>>);

impl RoundClock {
    /// The time of this round.
    pub(super) fn now(&self) -> Instant {
        let now = self.0.get().unwrap_or_else(Instant::now);
        self.0.set(Some(now));
        now
    }
}

/// A packet of the guest on its way through a burst.
#[derive(Debug)]
pub(super) struct PlannedTx {
    pub(super) packet: TxPacket,
    pub(super) fate: Fate,
    /// Its slots among those taken from the ring.
    pub(super) slots: Range<usize>,
    /// Its copies in the batch, for those of its fragments that are not `here`: none when it is
    /// dropped.
    pub(super) ops: Range<usize>,
    /// Slots whose fragments were read from pages that stay mapped.
    pub(super) here: Slots,
    /// Its bytes in the batch's buffers, with room for the virtio header before them.
    pub(super) frame: Range<usize>,
}

/// What becomes of a packet of the guest, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes to the tap, if it gets here as a whole and the tap takes it.
    ToTap,
    /// It was to, and did not get here as a whole.
    Torn,
    /// It stood for a change of the multicast list, which has been made: there is no frame.
    CarriedOut,
    /// It is refused.
    Dropped(DropReason),
}

/// A set of slots of one packet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slots(u32);

/// The last slot that a packet can have: an extra of each of five types, and fragments.
const _: () = assert!(5 + xen_ring::netif::packet::LATER_SLOTS < 32);

impl Slots {
    #[inline]
    pub(super) fn add(&mut self, slot: usize) {
        self.0 |= 1 << (slot % 32);
    }

    pub(super) fn contains(self, slot: usize) -> bool {
        self.0 & (1 << (slot % 32)) != 0
    }
}

/// A frame for the guest on its way through a burst.
#[derive(Debug)]
pub(super) struct PlannedRx {
    pub(super) flags: RxFlags,
    pub(super) extras: Extras,
    /// Its buffers among those taken from the ring.
    pub(super) taken: Range<usize>,
    pub(super) len: usize,
}

/// The extra infos behind a frame's first slot, in ascending order of their types: segmentation, hash, and XDP headroom.
pub(super) type Extras = [Option<Extra>; 3];

/// A buffer of the guest that a frame goes into.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// The guest's name for it.
    pub(super) id: u16,
    /// Bytes of the frame that it takes.
    pub(super) part: u16,
    /// What copies into it; nothing if its page stays mapped and has been written to.
    pub(super) ops: Range<usize>,
}

impl<G: Grants> Workbench<G> {
    /// Allocates a worker's tools around its grant device, with so many bytes of buffers. `own` is the
    /// domain that this runs in. With `joins`, datagrams that a guest sends in a row go to the tap as
    /// one frame: only if the kernel's taps take it ([`hotplug::tap::takes_udp_segments`]).
    ///
    /// # Errors
    ///
    /// [`SysError`] when there is no memory for the buffers.
    pub fn new(grants: G, own: DomId, buffers: usize, joins: bool) -> Result<Self, SysError> {
        let batch = grants.batch(own, BATCH_OPS, buffers)?;
        let mut writer = TapWriter::new(BURST);
        if let Some(error) = batch.refusal() {
            tracing::info!(%error, "a worker's buffers are not granted to this domain itself: its copies cost more");
        }
        if let Some(error) = writer.refusal() {
            tracing::info!(%error, "a worker has no io_uring: each frame to a tap takes a call");
        }
        if let Err(error) = writer.keep_processor() {
            tracing::info!(%error, "a worker's priority cannot be raised for a burst: receivers interrupt it");
        }
        Ok(Self {
            batch,
            grants,
            writer,
            joins,
            slots: vec![TxSlot::default(); RING_SLOTS].into_boxed_slice(),
            tx_burst: ArrayVec::new(),
            rx_burst: ArrayVec::new(),
            rx_taken: Vec::with_capacity(BATCH_OPS),
            clock: RoundClock::default(),
            failures: RateLimited::new(5, Duration::from_secs(10)),
        })
    }

    /// A new round begins: the time is to be looked up again.
    pub fn new_round(&mut self) {
        self.clock = RoundClock::default();
    }

    /// The time of this round.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Carries out the burst's copies. If the call as a whole fails, each of them has failed.
    pub(super) fn copy(&mut self) {
        if let Err(error) = self.grants.copy(&mut self.batch) {
            self.batch.fail();
            if let Some(suppressed) = self.failures.allow(self.clock.now()) {
                tracing::error!(%error, suppressed = if_any(suppressed), "a batch of grant copies failed as a whole");
            }
        }
        self.batch.review();
    }
}

/// Bytes of buffers for each of so many workers: a larger burst costs less for each frame, but all
/// of them are resident, and the kernel grants few pages to ourselves (`xen_gntalloc.limit`).
#[must_use]
pub fn buffers_of_each(workers: usize) -> usize {
    let share = BUFFERS_OF_ALL / workers.max(1) / PAGE_SIZE * PAGE_SIZE;
    share.clamp(BUFFERS_LEAST, BUFFERS_MOST)
}

/// Hands out room for frames from the front of the buffers, so that a light load touches few of
/// them.
#[derive(Debug)]
pub(super) struct Cursor {
    at: usize,
    end: usize,
}

impl Cursor {
    /// At the front of this batch's buffers.
    pub(super) const fn new(batch: &CopyBatch) -> Self {
        Self {
            at: 0,
            end: batch.arena_len(),
        }
    }

    /// Room for a frame of `len` bytes, of which those after the first `head` come in whole pages.
    /// `None` when the buffers are full.
    ///
    /// A copy that crosses a page of ours costs Xen two, so a small frame is kept within one
    /// page, and a large one is placed so that what follows its head begins on a page.
    pub(super) fn place(&mut self, len: usize, head: usize) -> Option<Range<usize>> {
        let earliest = (self.at + VNET_HDR_LEN).next_multiple_of(FRAME_ALIGN);
        let start = if len <= PAGE_SIZE {
            let fits = earliest % PAGE_SIZE + len <= PAGE_SIZE;
            if fits {
                earliest
            } else {
                earliest.next_multiple_of(PAGE_SIZE)
            }
        } else {
            (earliest + head).next_multiple_of(PAGE_SIZE) - head
        };
        let end = start + len;
        (end <= self.end).then(|| {
            self.at = end;
            start..end
        })
    }

    /// Room for a frame of any length that is yet to be read, or `None` when the buffers are
    /// full. What the frame does not use is given back by [`Self::shrink`]. Where frames of many
    /// pages are to be expected, each begins on a page, as the guest's buffers do.
    pub(super) fn place_any(&mut self, expect_large: bool) -> Option<Range<usize>> {
        let earliest = (self.at + VNET_HDR_LEN).next_multiple_of(FRAME_ALIGN);
        let start = if !expect_large && earliest % PAGE_SIZE <= PAGE_SIZE / 2 {
            earliest
        } else {
            earliest.next_multiple_of(PAGE_SIZE)
        };
        let end = start + READ_ROOM;
        (end <= self.end).then(|| {
            self.at = end;
            start..end
        })
    }

    /// Takes back the room handed out last, and what is before it for a header.
    pub(super) fn take_back(&mut self, room: &Range<usize>) {
        self.at = room.start.saturating_sub(VNET_HDR_LEN);
    }

    /// Ends the room handed out last at `end`.
    pub(super) fn shrink(&mut self, end: usize) {
        self.at = end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The buffers of a worker that is one of many.
    const ROOM: usize = BUFFERS_LEAST;

    fn cursor() -> Cursor {
        Cursor { at: 0, end: ROOM }
    }

    /// However many are refused, the next has as much room.
    #[test]
    fn room_that_is_taken_back_is_there_again() {
        for expect_large in [false, true] {
            let mut cursor = cursor();
            cursor.place(100, 0).unwrap();
            let room = cursor.place_any(expect_large).unwrap();
            cursor.take_back(&room);
            assert_eq!(cursor.place_any(expect_large), Some(room));
        }
    }

    /// The kernel grants 1024 pages, so eight workers get theirs.
    #[test]
    fn workers_share_what_there_is() {
        let bytes = [0, 1, 2, 3, 4, 8, 256].map(|workers| buffers_of_each(workers) / 1024);
        assert_eq!(bytes, [1024, 1024, 1024, 680, 512, 512, 512]);
    }

    #[test]
    fn a_large_frames_fragments_begin_on_pages() {
        let mut cursor = cursor();
        let frame = cursor.place(9000, 66).unwrap();
        assert_eq!((frame.start + 66) % PAGE_SIZE, 0);
    }

    #[test]
    fn small_frames_share_pages() {
        let mut cursor = cursor();
        let starts: Vec<_> = (0..3)
            .map(|_| cursor.place(60, 60).unwrap().start)
            .collect();
        assert_eq!(starts, [64, 192, 320]);
    }

    #[test]
    fn reading_gives_back_what_the_frame_did_not_use() {
        let mut cursor = cursor();
        let first = cursor.place_any(false).unwrap();
        cursor.shrink(first.start + 60);
        let second = cursor.place_any(false).unwrap();
        cursor.shrink(second.start + 60);
        let third = cursor.place_any(true).unwrap();
        assert_eq!(
            (first.start, second.start, third.start),
            (64, 192, PAGE_SIZE)
        );
    }

    proptest! {
        #[test]
        fn frames_never_meet(sizes in proptest::collection::vec((1_usize..=FRAME_MAX, 1_usize..=PAGE_SIZE), 1..200)) {
            let mut cursor = cursor();
            let mut free = 0;
            for (len, head) in sizes {
                let Some(frame) = cursor.place(len, head.min(len)) else { break };
                prop_assert!(frame.start >= free + VNET_HDR_LEN);
                prop_assert!(frame.end <= ROOM);
                prop_assert_eq!(frame.len(), len);
                if len <= PAGE_SIZE {
                    prop_assert_eq!(frame.start / PAGE_SIZE, (frame.end - 1) / PAGE_SIZE);
                }
                free = frame.end;
            }
        }
    }
}
