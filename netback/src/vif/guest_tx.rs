// SPDX-License-Identifier: GPL-3.0-or-later
//! The way of a packet from the guest: tx ring, grant copy, tap.
//!
//! A turn takes what the guest has published (a ring's worth at most), copies each slot once,
//! and works through it in bursts of four steps: plan from the private copies, copy all frames
//! with one ioctl, answer every slot in ring order, write the frames to the tap. The slots are
//! answered before the tap is touched, so a guest that looks goes on meanwhile; one that sleeps is
//! signalled after the turn. Every slot of a planned packet is answered, whatever becomes of the packet. Datagrams in a row go to
//! the tap as one frame ([`train`](super::train)). After some frames or segments the turn ends, and
//! what is left is taken again in the next. What is beyond the vif's rate stays in the ring, and
//! the guest waits. A slot whose page stays mapped (a static grant) is read while it is planned,
//! and costs no grant copy.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use xen_ring::layout::TX_SLOTS;
use xen_ring::netif::{self, Fragment, Status, TxLimits, TxRing, TxSlot, Verdict};
use xen_ring::{BackRing, CopyBatch, DomId, Grants, PAGE_SIZE, StaticPage};

use super::bucket::Meter;
use super::control::statics::StaticGrants;
use super::counters::{DirectionCounters, DropReason};
use super::fault::{Fault, Ring};
use super::half::{Half, Way};
use super::live::Live;
use super::negotiate::tx_limits;
use super::offload::header_for_tap;
use super::train::{Write, Writes};
use super::vnet::VnetHdr;
use super::workbench::{BURST_FRAMES, Cursor, Fate, PlannedTx, Slots, Workbench};

/// The burst with which a turn has moved so many frames is its last, so that their receiver can come
/// to run: a socket holds some 250 of the shortest by default (Linux, `net.core.rmem_default`), and
/// a ring as many.
const TURN_FRAMES: usize = 2 * BURST_FRAMES;
/// So does the packet with which it has moved so many segments: the host may cut them while they are
/// written, for each receiver that does not take them whole, and nobody else has a turn then. A
/// ring full of the longest packets has fewer, of 1000 bytes or more.
const TURN_SEGMENTS: u32 = netif::packet::MAX_SEGMENTS;
/// So many segments are as much work as a slot: those that end a turn, as a full ring. Of usual ones a slot has fewer.
const SEGMENTS_PER_SLOT: u32 = TURN_SEGMENTS / TX_SLOTS;

/// The tx half of a queue pair.
#[derive(Debug)]
pub(super) struct GuestTx {
    ring: BackRing<TxRing>,
    /// The guest is to signal what it publishes next.
    armed: bool,
    guest: DomId,
    /// What was offered.
    limits: TxLimits,
    live: Arc<Live>,
}

/// What a turn of the tx half leaves behind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TxTurn {
    /// It is due when the vif's rate lets the packets go that wait in the ring.
    pub(super) half: Half,
    /// Frames that have gone to the host.
    pub(super) delivered: usize,
}

/// How far a turn has come.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The next slot of those that were taken from the ring.
    slot: usize,
    /// Segments of the packets before it.
    segments: u32,
}

/// Why a burst ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It is full, or all that was taken is in it.
    Full,
    /// The vif's rate is used up until then.
    Blocked(Instant),
}

impl GuestTx {
    pub(super) fn new(ring: BackRing<TxRing>, guest: DomId, live: Arc<Live>) -> Self {
        Self {
            ring,
            armed: false,
            guest,
            limits: tx_limits(),
            live,
        }
    }

    /// Moves what the guest has published: two to three bursts of frames and a ring's worth at most,
    /// and what `rate` allows.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the ring or a packet in it breaks the protocol. The packets before it have
    /// been answered and delivered.
    pub(super) fn turn<G: Grants>(
        &mut self,
        bench: &mut Workbench<G>,
        way: Way<'_>,
    ) -> Result<TxTurn, Fault> {
        if std::mem::take(&mut self.armed) {
            self.ring.disarm();
        }
        let meter = way.rate.meter(|| bench.now());
        let mut turn = TxTurn::default();
        if let Some(until) = meter.blocked_until() {
            let waiting = self.ring.unconsumed().map_err(Ring::Tx.fault())?;
            turn.half.due = (waiting > 0).then_some(until);
            return Ok(turn);
        }
        let taken = self.ring.take_into(&mut bench.slots);
        let taken = taken.map_err(Ring::Tx.fault())?;
        let mut progress = Progress::default();
        while progress.slot < taken {
            let planned = self.plan(bench, taken, &mut progress, way.statics, meter);
            bench.copy();
            turn.half.notify |= self.answer(bench)?;
            turn.delivered += deliver(bench, way, &self.live);
            match planned? {
                Ended::Full
                    if turn.delivered < TURN_FRAMES && progress.segments < TURN_SEGMENTS =>
                {
                    continue;
                }
                Ended::Full => turn.half.more = progress.slot < taken,
                Ended::Blocked(until) => turn.half.due = Some(until),
            }
            self.ring.put_back(taken - progress.slot);
            break;
        }
        turn.half.founded = progress.slot > 0;
        // Many segments are more work than the slots that they came in.
        let segments = progress.segments / SEGMENTS_PER_SLOT;
        turn.half.work = progress.slot.max(segments as usize);
        Ok(turn)
    }

    /// Whether the guest has published anything since the last turn.
    pub(super) fn is_stirring(&self) -> bool {
        self.ring.is_stirring()
    }

    /// Arms the ring's event. `true` if the guest has published more meanwhile.
    pub(super) fn arm(&mut self) -> Result<bool, Fault> {
        let more = self.ring.arm().map_err(Ring::Tx.fault())?;
        self.armed = !more;
        Ok(more)
    }

    /// Plans the packets from where the turn is until the burst or the turn is full, all slots are
    /// planned, or the rate is used up. An empty burst holds any packet, so each call gets on by one
    /// packet at least, or it is blocked, or fails.
    fn plan<G>(
        &self,
        bench: &mut Workbench<G>,
        taken: usize,
        progress: &mut Progress,
        statics: Option<&StaticGrants>,
        meter: Meter<'_>,
    ) -> Result<Ended, Fault> {
        let Workbench {
            batch,
            slots,
            tx_burst,
            ..
        } = bench;
        batch.clear();
        tx_burst.clear();
        let mut cursor = Cursor::new(batch);
        while progress.slot < taken && progress.segments < TURN_SEGMENTS && !tx_burst.is_full() {
            if let Some(until) = meter.blocked_until() {
                return Ok(Ended::Blocked(until));
            }
            let rest = slots.get(progress.slot..taken).unwrap_or_default();
            let packet = match netif::next_packet(rest, &self.limits) {
                Ok(packet) => packet,
                Err(source) => return Err(Ring::Tx.fault()(source)),
            };
            let size = packet.copied() as usize;
            // Of no concern to a frame within one page.
            let head = match size > PAGE_SIZE {
                true => head_of(packet.fragments(rest).map(|fragment| fragment.len)),
                false => 0,
            };
            let copies = batch.capacity() - batch.len();
            let full = packet.slots * CopyBatch::OPS_PER_COPY > copies;
            let Some(frame) = cursor.place(size, head).filter(|_| !full) else {
                return Ok(Ended::Full);
            };
            meter.charge(size);
            let first_op = batch.len();
            let mut at = frame.start;
            let mut here = Slots::default();
            for fragment in packet.fragments(rest) {
                let end = at + usize::from(fragment.len);
                let page = statics.and_then(|statics| statics.page(fragment.gref));
                if page.is_some_and(|page| read(page, fragment, batch.bytes_mut(at..end))) {
                    here.add(fragment.slot);
                } else {
                    batch.from_guest(
                        self.guest,
                        fragment.gref,
                        fragment.offset,
                        fragment.len,
                        at,
                    )?;
                }
                at = end;
            }
            let slots = progress.slot..progress.slot + packet.slots;
            progress.slot = slots.end;
            progress.segments += packet.segments();
            tx_burst.push(PlannedTx {
                fate: self.fate_of(packet.verdict),
                packet,
                slots,
                ops: first_op..batch.len(),
                here,
                frame,
            });
        }
        Ok(Ended::Full)
    }

    /// What is to become of a packet. The change of the multicast list that one stands for is made here; one that
    /// cannot be made is refused like any other packet.
    fn fate_of(&self, verdict: Verdict) -> Fate {
        match verdict {
            Verdict::Deliver => Fate::ToTap,
            Verdict::Drop(reason) => Fate::Dropped(reason.into()),
            Verdict::Multicast(change) => match self.live.multicast.change(change) {
                Ok(()) => Fate::CarriedOut,
                Err(_) => Fate::Dropped(DropReason::MulticastListFull),
            },
        }
    }

    /// Answers every slot of the burst in ring order and publishes the answers. `true` if the
    /// guest is to be notified.
    fn answer<G>(&mut self, bench: &mut Workbench<G>) -> Result<bool, Fault> {
        let Workbench {
            batch,
            slots,
            tx_burst,
            ..
        } = bench;
        for planned in tx_burst {
            let slots = slots.get(planned.slots.clone()).unwrap_or_default();
            if planned.fate == Fate::ToTap && !batch.all_ok(planned.ops.clone()) {
                planned.fate = Fate::Torn;
            }
            let planned = &*planned;
            let answers = planned
                .packet
                .responses_with(slots, |slot| planned.status_of(slot, slots, batch));
            for answer in answers {
                self.ring.respond(answer)?;
            }
        }
        Ok(self.ring.publish().is_needed())
    }
}

/// Reads a piece of a packet from a page that stays mapped: once, so that what is judged later is
/// what is sent on. The slot was checked to lie inside its page, and the frame inside the buffers.
fn read(page: &StaticPage, fragment: Fragment, into: &mut [u8]) -> bool {
    into.len() == usize::from(fragment.len) && page.copy_from(fragment.offset.into(), into).is_ok()
}

/// Bytes before the first fragment that fills a page; from there on most do.
fn head_of(mut lengths: impl Iterator<Item = u16>) -> usize {
    let mut head = 0;
    let full = lengths.find_map(|len| {
        if usize::from(len) == PAGE_SIZE {
            return Some(head);
        }
        head += usize::from(len);
        None
    });
    full.unwrap_or_default()
}

impl PlannedTx {
    /// The status of one of its slots: one whose copy failed is an error, and so is every slot of a packet that is
    /// refused.
    #[inline]
    fn status_of(&self, slot: usize, slots: &[TxSlot], batch: &CopyBatch) -> Status {
        match self.fate {
            Fate::ToTap | Fate::CarriedOut => Status::Okay,
            Fate::Torn if !self.failed(slot, slots, batch) => Status::Okay,
            Fate::Torn | Fate::Dropped(_) => Status::Error,
        }
    }

    /// Whether the copy of a slot's fragment failed.
    fn failed(&self, slot: usize, slots: &[TxSlot], batch: &CopyBatch) -> bool {
        let (mut op, mut at) = (self.ops.start, self.frame.start);
        for fragment in self.packet.fragments(slots) {
            let ops = match self.here.contains(fragment.slot) {
                true => 0,
                false => CopyBatch::ops_of(at, fragment.len),
            };
            if fragment.slot == slot {
                return !batch.all_ok(op..op + ops);
            }
            op += ops;
            at += usize::from(fragment.len);
        }
        false
    }
}

/// Writes the frames that arrived whole to the tap, unless the link is cut. Returns their number.
fn deliver<G>(bench: &mut Workbench<G>, way: Way<'_>, live: &Live) -> usize {
    let Way { tap, counters, .. } = way;
    let Workbench {
        batch,
        tx_burst,
        writer,
        joins,
        ..
    } = bench;
    let buffers = batch.bytes_mut(0..batch.arena_len());
    let cut = live.is_cut();
    let mut writes = Writes::new(if *joins { live.longest_plain() } else { 0 });
    for planned in tx_burst {
        let header = match planned.fate {
            Fate::ToTap | Fate::Torn if cut => Err(DropReason::LinkDown),
            Fate::ToTap => describe(buffers, planned, counters),
            Fate::Torn => Err(DropReason::GrantCopy),
            Fate::Dropped(reason) => Err(reason),
            Fate::CarriedOut => continue,
        };
        match header {
            Ok(header) => writes.add(buffers, planned.frame.clone(), header),
            Err(reason) => counters.dropped(reason),
        }
    }
    let writes = writes.finish(buffers);
    let bytes = |write: &Write| batch.bytes(write.on_tap.clone());
    let frames: ArrayVec<&[u8], BURST_FRAMES> = writes.iter().map(bytes).collect();
    let mut delivered = 0;
    let mut unknown = false;
    let written = writer.write(tap, &frames, |position, written| {
        let Some(write) = writes.get(position) else {
            return;
        };
        delivered += write.frames;
        match written {
            Ok(_) => counters.delivered(write.frames, write.bytes),
            Err(error) => {
                unknown |= write.frames > 1 && error.raw_os_error() == Some(nix::libc::EINVAL);
                counters.dropped_all(refusal(&error), write.frames);
            }
        }
    });
    if unknown {
        *joins = false;
        tracing::error!(
            "this kernel's taps do not take datagrams joined, against what its version says: a worker sends each by itself from now on"
        );
    }
    if let Err(error) = written {
        tracing::error!(%error, "a worker's bursts cost more from now on");
    }
    delivered
}

/// The header for the tap of a frame that is to be delivered.
fn describe(
    buffers: &mut [u8],
    planned: &PlannedTx,
    counters: &DirectionCounters,
) -> Result<VnetHdr, DropReason> {
    let frame = buffers.get_mut(planned.frame.clone());
    let frame = frame.ok_or(DropReason::Malformed)?; // It was copied there.
    let made = header_for_tap(planned.packet.csum, planned.packet.gso, frame)?;
    if made.repaired {
        counters.repaired();
    }
    Ok(made.header)
}

/// Why the tap did not take a frame. EIO is a tap that is not up; EAGAIN, ENOBUFS and ENOMEM are
/// a host that has no room for it. The slot was answered long ago, so the frame is lost as on any
/// Ethernet.
fn refusal(error: &io::Error) -> DropReason {
    match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        Errno::EIO => DropReason::TapDown,
        Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => DropReason::TapFull,
        _ => DropReason::TapRefused,
    }
}

impl From<netif::DropReason> for DropReason {
    fn from(reason: netif::DropReason) -> Self {
        match reason {
            netif::DropReason::ShortHeader | netif::DropReason::SizesExceedTotal => Self::Malformed,
            netif::DropReason::TooManySlots => Self::TooManySlots,
            netif::DropReason::GsoNotOffered
            | netif::DropReason::GsoTooSmall
            | netif::DropReason::MulticastNotOffered => Self::BadOffload,
        }
    }
}
