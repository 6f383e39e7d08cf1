// SPDX-License-Identifier: GPL-3.0-or-later
//! The way of a packet to the guest: tap, grant copy, rx ring.
//!
//! A turn reads frames while the guest has buffers posted, copies them all into the guest's pages
//! with one ioctl, then answers the buffers' slots and publishes. A frame that stands for several and
//! that the guest cannot take whole is cut into those ([`cut`](super::cut)). A frame that needs more
//! buffers than are posted is held until they are, for a second at most; what comes after it stays
//! in the tap, whose queue is bounded (`tap.txqueuelen`) and drops at its end. What is beyond the vif's
//! rate stays there too. Where a frame comes from and whether the guest can take it is in `frame`; what becomes of
//! one that posts no buffers in `starved`. How long all this goes on for a guest that posts too few buffers is
//! decided in [`shortage`](super::shortage). A buffer whose page stays mapped (a static grant) is
//! written to while it is planned, and costs no grant copy.

mod frame;
mod starved;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xen_ring::netif::{
    Extra, ExtraSlot, RxFlags, RxRequest, RxResponse, RxRing, RxSlotResponse, Status,
};
use xen_ring::{BackRing, CopyBatch, DomId, Grants};

use super::control::hash::Hasher;
use super::control::statics::StaticGrants;
use super::counters::{DirectionCounters, DropReason};
use super::cut::Cut;
use super::fault::{Fault, Ring};
use super::feature::{Feature, Features};
use super::half::{Half, Way};
use super::headroom::Headroom;
use super::live::Live;
use super::offload::describe_for_guest;
use super::shortage::{Patience, Shortage, Verdict};
use super::workbench::{BURST_FRAMES, Cursor, Extras, PlannedRx, Taken, Workbench};

use frame::{Accepted, Held, Read};
pub use starved::Flow;

/// Data slots that every frontend accepts for one frame (netif.h, `XEN_NETIF_NR_SLOTS_MIN`).
const SLOTS_MAX: u32 = 18;

/// The rx half of a queue pair.
#[derive(Debug)]
pub(super) struct GuestRx {
    ring: BackRing<RxRing>,
    guest: DomId,
    features: Features,
    /// What tells the guest its frames' hashes, if it wants to know.
    hasher: Option<Arc<Hasher>>,
    live: Arc<Live>,
    /// As it was when the present turn began.
    headroom: Headroom,
    /// A frame that waits for buffers.
    held: Option<Held>,
    /// A frame that stands for several, of which some have gone.
    segments: Option<Cut>,
    shortage: Shortage,
    /// The tap has not been found empty since it last became readable.
    tap_readable: bool,
    /// The last frame took several pages, so the next may too.
    expect_large: bool,
    /// In the present turn: buffers used up, and reads of the tap, since frames for a guest that takes none cost their time, too.
    work: usize,
}

/// What a turn of the rx half leaves behind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RxTurn {
    pub(super) half: Half,
    /// The guest is to signal what it posts next: nobody looks for that.
    pub(super) listens: bool,
    /// The guest has come to a stop, or it goes on.
    pub(super) flow: Option<Flow>,
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
    /// The vif's rate is used up until then.
    Blocked(Instant),
}

impl GuestRx {
    /// `stall` is how long the guest may be short of buffers; `None` for ever.
    pub(super) fn new(
        ring: BackRing<RxRing>,
        guest: DomId,
        features: Features,
        stall: Option<Duration>,
        live: Arc<Live>,
    ) -> Self {
        Self {
            ring,
            guest,
            features,
            hasher: None,
            live,
            headroom: Headroom::NONE,
            held: None,
            segments: None,
            shortage: Shortage::new(Patience::new(features.has(Feature::RxNotify), stall)),
            // Frames may have been waiting in the tap since before anybody watched it.
            tap_readable: true,
            expect_large: false,
            work: 0,
        }
    }

    /// From now on tells the guest its frames' hashes, or not.
    pub(super) fn hash(&mut self, hasher: Option<Arc<Hasher>>) {
        self.hasher = hasher;
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
        way: Way<'_>,
    ) -> Result<RxTurn, Fault> {
        self.headroom = self.live.headroom();
        let mut turn = match self.shortage.stalled() {
            Some(needed) => self.stalled_turn(needed, bench, way)?,
            None if self.tap_readable || self.has_frames() => self.usual_turn(bench, way)?,
            None => RxTurn::default(),
        };
        turn.half.work = std::mem::take(&mut self.work);
        Ok(turn)
    }

    /// A turn of a guest that takes what comes for it, as far as is known.
    fn usual_turn<G: Grants>(
        &mut self,
        bench: &mut Workbench<G>,
        way: Way<'_>,
    ) -> Result<RxTurn, Fault> {
        // The ring is armed for any buffer, also when a frame needs many.
        let posted = self.ring.is_stirring();
        let ended = self.plan(bench, way)?;
        bench.copy();
        let mut turn = RxTurn::default();
        turn.half.notify = self.answer(bench, way.counters)?;
        turn.half.founded = posted || !bench.rx_burst.is_empty();
        if ended != Ended::NoBuffers || !bench.rx_burst.is_empty() {
            self.shortage.ease();
        }
        match ended {
            Ended::NoFrames => {}
            Ended::Full => turn.half.more = true,
            Ended::Blocked(until) => turn.half.due = Some(until),
            Ended::NoBuffers if self.arm_for(self.wanted())? => turn.half.more = true,
            Ended::NoBuffers => {
                turn.listens = true;
                let held = self.held.as_ref().map(|held| held.since);
                match self.shortage.verdict(bench.now(), held) {
                    Verdict::Wait(until) => turn.half.due = until,
                    Verdict::GiveUp(how) => self.give_up(how, bench, way, &mut turn)?,
                }
            }
        }
        Ok(turn)
    }

    /// Reads frames and plans their copies until the tap is empty, the buffers or the rate are
    /// used up, or the burst is full.
    fn plan<G: Grants>(&mut self, bench: &mut Workbench<G>, way: Way<'_>) -> Result<Ended, Fault> {
        let Way { tap, counters, .. } = way;
        let meter = way.rate.meter(|| bench.now());
        let Workbench {
            batch,
            rx_burst,
            rx_taken,
            clock,
            ..
        } = bench;
        batch.clear();
        rx_burst.clear();
        rx_taken.clear();
        let mut cursor = Cursor::new(batch);
        let mut buffers = self.ring.unconsumed().map_err(Ring::Rx.fault())?;
        for _ in 0..BURST_FRAMES {
            if buffers < self.wanted() {
                let shortage = &self.shortage;
                let is_over = |held: &mut Held| shortage.held_until(held.since) <= clock.now();
                if self.held.take_if(is_over).is_none() {
                    return Ok(Ended::NoBuffers);
                }
                // A guest that never posts as many must not lose everything for one frame.
                counters.dropped(DropReason::NoBuffers);
                continue;
            }
            // Second, so that a guest that is held up by its rate does not count as short.
            if let Some(until) = meter.blocked_until() {
                return Ok(Ended::Blocked(until));
            }
            if batch.capacity() - batch.len() < SLOTS_MAX as usize * CopyBatch::OPS_PER_COPY {
                return Ok(Ended::Full);
            }
            let Some(room) = cursor.place_any(self.expect_large) else {
                return Ok(Ended::Full);
            };
            let len = match self.next_frame(batch, room.clone(), tap)? {
                Read::Frame(len) => len,
                Read::Refused => {
                    counters.dropped(DropReason::BadFromTap);
                    cursor.take_back(&room);
                    continue;
                }
                Read::Empty => return Ok(Ended::NoFrames),
            };
            let frame = room.start..room.start + len;
            cursor.shrink(frame.end);
            let Accepted {
                header,
                hash,
                slots,
            } = match self.accept(batch, &frame) {
                Ok(accepted) => accepted,
                Err(DropReason::UnwantedSegments) if self.cut_up(batch, &frame) => {
                    cursor.take_back(&room);
                    continue;
                }
                Err(reason) => {
                    counters.dropped(reason);
                    cursor.take_back(&room);
                    continue;
                }
            };
            if slots > buffers {
                self.hold(batch, &frame, slots, clock.now());
                return Ok(Ended::NoBuffers);
            }
            let bytes = batch.bytes_mut(frame.clone());
            let description = match describe_for_guest(header, bytes, self.features_now()) {
                Ok(description) => description,
                Err(reason) => {
                    counters.dropped(reason);
                    cursor.take_back(&room);
                    continue;
                }
            };
            buffers -= slots;
            meter.charge(len);
            let gso = description.gso.map(Extra::Gso);
            let extras = [gso, hash, self.xdp()];
            let first = rx_taken.len();
            self.plan_copies(batch, rx_taken, frame, &extras, way.statics)?;
            rx_burst.push(PlannedRx {
                flags: description.flags,
                extras,
                taken: first..rx_taken.len(),
                len,
            });
        }
        Ok(Ended::Full)
    }

    /// What the guest can take at the moment.
    fn features_now(&self) -> Features {
        self.headroom.limit(self.features)
    }

    /// What tells the guest of the room before its data. The last extra info of a frame: they go by
    /// ascending type, as with Linux's netback.
    fn xdp(&self) -> Option<Extra> {
        let headroom = self.headroom.bytes();
        (!self.headroom.is_none()).then_some(Extra::Xdp { headroom })
    }

    /// Takes the buffers for a frame, a page each, and adds the copies into them to the batch.
    fn plan_copies(
        &mut self,
        batch: &mut CopyBatch,
        taken: &mut Vec<Taken>,
        frame: Range<usize>,
        extras: &Extras,
        statics: Option<&StaticGrants>,
    ) -> Result<(), Fault> {
        let (room, offset) = (self.headroom.room(), self.headroom.bytes());
        let mut at = frame.start;
        while at < frame.end {
            let end = frame.end.min(at + room);
            let part = u16::try_from(end - at).unwrap_or_default();
            let request = self.take()?;
            let page = statics.and_then(|statics| statics.page(request.gref)?.writable());
            let first = batch.len();
            match page {
                Some(page) if page.copy_to(offset.into(), batch.bytes(at..end)).is_ok() => {}
                _ => batch.to_guest(at, part, self.guest, request.gref, offset)?,
            }
            let ops = first..batch.len();
            let id = request.id;
            taken.push(Taken { id, part, ops });
            if at == frame.start {
                // The extra infos go out in the next requests' slots and use them up.
                for _ in extras.iter().flatten() {
                    self.take()?;
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Has the guest signal when it posts buffers. `true` if so many are there already.
    fn arm_for(&mut self, wanted: u32) -> Result<bool, Fault> {
        self.ring.arm_for(wanted).map_err(Ring::Rx.fault())
    }

    /// A buffer that was counted before it is taken.
    fn take(&mut self) -> Result<RxRequest, Fault> {
        self.work += 1;
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
            let taken = bench.rx_taken.get(planned.taken.clone());
            let Some((first, rest)) = taken.and_then(<[_]>::split_first) else {
                continue; // A frame has a first byte, so it has a buffer.
            };
            let mut copied = self.answer_one(first, planned.first_flags(), &bench.batch)?;
            self.answer_extras(&planned.extras)?;
            let mut left = rest.len();
            for taken in rest {
                left -= 1;
                let flags = match left {
                    0 => RxFlags::default(),
                    _ => RxFlags::MORE_DATA,
                };
                copied &= self.answer_one(taken, flags, &bench.batch)?;
            }
            if copied {
                counters.delivered(1, planned.len);
            } else {
                counters.dropped(DropReason::GrantCopy);
            }
        }
        Ok(self.ring.publish().is_needed())
    }

    /// Answers a buffer with data; whether these have been copied into it.
    #[inline]
    fn answer_one(
        &mut self,
        taken: &Taken,
        flags: RxFlags,
        batch: &CopyBatch,
    ) -> Result<bool, Fault> {
        let copied = batch.all_ok(taken.ops.clone());
        let status = match copied {
            true => taken.part.cast_signed(),
            false => Status::Error as i16,
        };
        let data = RxResponse {
            id: taken.id,
            offset: self.headroom.bytes(),
            flags,
            status,
        };
        self.ring.respond(RxSlotResponse::Data(data))?;
        Ok(copied)
    }

    /// Extra infos go out in the place of answers to the buffers behind a frame's first.
    fn answer_extras(&mut self, extras: &Extras) -> Result<(), Fault> {
        let mut extras = extras.iter().flatten().peekable();
        while let Some(&extra) = extras.next() {
            let more = extras.peek().is_some();
            self.ring
                .respond(RxSlotResponse::Extra(ExtraSlot { extra, more }))?;
        }
        Ok(())
    }
}

impl PlannedRx {
    /// The flags of its first buffer's answer.
    fn first_flags(&self) -> RxFlags {
        let mut flags = self.flags;
        if self.extras.iter().any(Option::is_some) {
            flags = flags.with(RxFlags::EXTRA_INFO);
        }
        if self.taken.len() > 1 {
            flags = flags.with(RxFlags::MORE_DATA);
        }
        flags
    }
}
