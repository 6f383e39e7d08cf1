// SPDX-License-Identifier: GPL-3.0-or-later
//! The model frontend's data path: a tx ring with pages to send from, an rx ring with pages to receive into.
//!
//! Every page stays granted for as long as the queue lives, so sending and receiving are copies and ring slots.
//! What a backend may not do is noticed and counted: an answer to a request that was not made, a received slot
//! that leaves its page, a packet that ends before it is complete, a checksum that is not as the flags say.

use xen_ring::front::{
    FrontFault, FrontKind, FrontRing, FrontRx, FrontRxRequest, FrontTx, FrontTxRequest, FrontTxSlot,
};
use xen_ring::{GrantRef, PAGE_SIZE, SysError};

use super::checksum::{self, Checksum};
use super::options::FrontendOptions;
use crate::demo::sim::{Grant, GuestPage, SimGuest};

/// Slots of either ring, and ids of either kind.
const SLOTS: usize = FrontTx::COUNT as usize;
/// Slots that must be free before another frame is begun: the most that one frame may take, and extras.
const FRAME_SLOTS: u32 = 20;
/// Slots of one received frame beyond which Linux's netfront drops it.
const RX_FRAME_SLOTS: u32 = 18;
/// Violations that are kept word for word.
const VIOLATIONS_KEPT: usize = 16;

// netif.h: tx flags.
const TX_CSUM_BLANK: u16 = 1;
const TX_DATA_VALIDATED: u16 = 2;
const TX_MORE_DATA: u16 = 4;
// netif.h: rx flags. The first two are the other way round.
const RX_DATA_VALIDATED: u16 = 1;
const RX_CSUM_BLANK: u16 = 2;
const RX_MORE_DATA: u16 = 4;
const RX_EXTRA_INFO: u16 = 8;
/// An extra info with this flag is followed by another.
const EXTRA_MORE: u8 = 1;

/// What a frontend has seen since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontStats {
    /// Tx responses by status: okay.
    pub tx_okay: u64,
    /// Tx responses by status: error.
    pub tx_error: u64,
    /// Tx responses by status: dropped.
    pub tx_dropped: u64,
    /// Tx responses to extra infos.
    pub tx_null: u64,
    /// Good frames received.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Of them, those with a blank checksum.
    pub rx_blank: u64,
    /// Of them, those with a checked checksum.
    pub rx_validated: u64,
    /// Most slots of one received frame.
    pub rx_slots_max: u32,
    /// Frames whose slots carried an error status.
    pub rx_errors: u64,
    /// Frames whose checksum field is not what the flags promise. Of frames that the flags call complete, these
    /// may have been wrong on the wire already.
    pub checksum_mismatches: u64,
    /// How often the backend broke the protocol, and the first few in words.
    pub violations: Violations,
}

/// What no correct backend does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations {
    /// How many.
    pub count: u64,
    /// The first ones.
    pub first: Vec<String>,
}

impl Violations {
    fn add(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < VIOLATIONS_KEPT {
            self.first.push(text());
        }
    }
}

/// The frame finds no room in the ring, or there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest cannot send this frame now")]
pub struct TxFull;

/// One received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The whole frame.
    pub bytes: Vec<u8>,
    /// What its flags said.
    pub checksum: Checksum,
    /// Data slots it took.
    pub slots: u32,
}

/// A granted page.
#[derive(Debug)]
struct Buffer {
    page: GuestPage,
    grant: Grant,
}

/// The tx ring and its pages.
#[derive(Debug)]
pub struct TxQueue {
    ring: FrontRing<FrontTx>,
    ring_grant: Grant,
    /// By request id.
    buffers: Vec<Buffer>,
    in_flight: Vec<bool>,
    free: Vec<u16>,
}

impl TxQueue {
    pub(super) fn new(guest: &SimGuest, options: &FrontendOptions) -> Result<Self, SysError> {
        let (ring_page, ring_grant) = ring_page(guest)?;
        Ok(Self {
            ring: FrontRing::init_at(ring_page.mapped(), options.start_index),
            ring_grant,
            buffers: buffers(guest, options.tx_readonly)?,
            in_flight: vec![false; SLOTS],
            free: (0..FrontTx::COUNT)
                .rev()
                .filter_map(|id| u16::try_from(id).ok())
                .collect(),
        })
    }

    /// The ring's own grant reference.
    #[must_use]
    pub fn ring_ref(&self) -> GrantRef {
        self.ring_grant.gref()
    }

    /// The grant reference of the page that belongs to a request id.
    #[must_use]
    pub fn page_ref(&self, id: u16) -> Option<GrantRef> {
        Some(self.buffers.get(usize::from(id))?.grant.gref())
    }

    /// The ring itself, for frontends that lie.
    pub fn ring(&mut self) -> &mut FrontRing<FrontTx> {
        &mut self.ring
    }

    /// Writes `bytes` at the beginning of the page that belongs to a request id; false when that cannot be.
    pub fn fill(&self, id: u16, bytes: &[u8]) -> bool {
        self.buffers
            .get(usize::from(id))
            .is_some_and(|buffer| buffer.page.write(0, bytes).is_ok())
    }

    /// Puts any slot into the ring as it is. The id of a request counts as in flight.
    ///
    /// # Errors
    /// The ring is full.
    pub fn push(&mut self, slot: FrontTxSlot) -> Result<u32, FrontFault> {
        let index = self.ring.push(slot)?;
        if let FrontTxSlot::Request(request) = slot
            && let Some(flag) = self.in_flight.get_mut(usize::from(request.id))
        {
            *flag = true;
            self.free.retain(|id| *id != request.id);
        }
        Ok(index)
    }

    /// Cuts a frame into slots and puts them into the ring.
    pub(super) fn send(
        &mut self,
        frame: &[u8],
        checksum: Checksum,
        sg: bool,
        options: &FrontendOptions,
    ) -> Result<(), TxFull> {
        let room = PAGE_SIZE.saturating_sub(usize::from(options.tx_offset));
        let piece = usize::from(options.tx_slot_bytes).min(room).max(1);
        let slots = frame.len().div_ceil(piece);
        let total = u16::try_from(frame.len()).map_err(|_| TxFull)?;
        let free = usize::try_from(self.ring.free())
            .unwrap_or(0)
            .min(self.free.len());
        if slots == 0 || slots > free || (slots > 1 && !sg) {
            return Err(TxFull);
        }
        let checksum_flags = match checksum {
            Checksum::Complete => 0,
            Checksum::Validated => TX_DATA_VALIDATED,
            Checksum::Blank => TX_CSUM_BLANK | TX_DATA_VALIDATED,
        };
        for (n, bytes) in frame.chunks(piece).enumerate() {
            let id = self.free.last().copied().ok_or(TxFull)?;
            let buffer = self.buffers.get(usize::from(id)).ok_or(TxFull)?;
            buffer
                .page
                .write(usize::from(options.tx_offset), bytes)
                .map_err(|_| TxFull)?;
            let own = u16::try_from(bytes.len()).map_err(|_| TxFull)?;
            let more = if n + 1 < slots { TX_MORE_DATA } else { 0 };
            self.push(FrontTxSlot::Request(FrontTxRequest {
                gref: buffer.grant.gref().raw(),
                offset: options.tx_offset,
                flags: more | if n == 0 { checksum_flags } else { 0 },
                id,
                size: if n == 0 { total } else { own },
            }))
            .map_err(|_| TxFull)?;
        }
        Ok(())
    }

    pub(super) fn has_room(&mut self, options: &FrontendOptions, stats: &mut FrontStats) -> bool {
        let needed = FRAME_SLOTS.max(2048_u32.div_ceil(u32::from(options.tx_slot_bytes.max(1))));
        if self.ring.free() < needed {
            self.reap(stats);
        }
        self.ring.free() >= needed && self.free.len() >= usize::try_from(needed).unwrap_or(SLOTS)
    }

    /// Publishes what was put into the ring and takes back what was answered; true when an event is due.
    pub fn flush(&mut self, stats: &mut FrontStats) -> bool {
        let notify = self.ring.publish();
        self.reap(stats);
        notify
    }

    fn reap(&mut self, stats: &mut FrontStats) {
        loop {
            match self.ring.take() {
                Ok(Some((_, response))) => {
                    match response.status {
                        0 => stats.tx_okay += 1,
                        -1 => stats.tx_error += 1,
                        -2 => stats.tx_dropped += 1,
                        1 => {
                            // The answer to an extra info, which has no id.
                            stats.tx_null += 1;
                            continue;
                        }
                        other => stats
                            .violations
                            .add(|| format!("tx response with status {other}")),
                    }
                    match self.in_flight.get_mut(usize::from(response.id)) {
                        Some(flag) if *flag => {
                            *flag = false;
                            self.free.push(response.id);
                        }
                        _ => stats.violations.add(|| {
                            format!("tx response to id {}, which is not in flight", response.id)
                        }),
                    }
                }
                Ok(None) => return,
                Err(fault) => return stats.violations.add(|| format!("tx ring: {fault}")),
            }
        }
    }

    /// Before sleep; true when there are answers already. A broken ring never has any.
    pub(super) fn arm(&mut self) -> bool {
        self.ring.arm().unwrap_or(false)
    }
}

/// The rx ring and its pages.
#[derive(Debug)]
pub struct RxQueue {
    ring: FrontRing<FrontRx>,
    ring_grant: Grant,
    /// By slot: the request in slot n always offers page n.
    buffers: Vec<Buffer>,
}

impl RxQueue {
    pub(super) fn new(guest: &SimGuest, options: &FrontendOptions) -> Result<Self, SysError> {
        let (ring_page, ring_grant) = ring_page(guest)?;
        let mut queue = Self {
            ring: FrontRing::init_at(ring_page.mapped(), options.start_index),
            ring_grant,
            buffers: buffers(guest, false)?,
        };
        // The backend is not there yet and will look at the ring when it comes.
        let _nobody_listens = queue.post(options);
        Ok(queue)
    }

    /// The ring's own grant reference.
    #[must_use]
    pub fn ring_ref(&self) -> GrantRef {
        self.ring_grant.gref()
    }

    /// The ring itself, for frontends that lie.
    pub fn ring(&mut self) -> &mut FrontRing<FrontRx> {
        &mut self.ring
    }

    /// Ends the access to every page that is offered for receiving, as no correct frontend does.
    pub fn revoke_buffers(&mut self) {
        self.buffers.clear();
    }

    /// Offers buffers until as many as chosen are offered; true when an event is due.
    pub fn post(&mut self, options: &FrontendOptions) -> bool {
        while self.offered() < options.rx_buffers {
            let slot = self.ring.next_index() % FrontRx::COUNT;
            let (Ok(id), Some(gref)) = (u16::try_from(slot), self.page_ref(slot)) else {
                break;
            };
            let request = FrontRxRequest {
                id,
                gref: gref.raw(),
            };
            if self.ring.push(request).is_err() {
                break;
            }
        }
        self.ring.publish() && options.rx_notify
    }

    fn offered(&self) -> usize {
        usize::try_from(FrontRx::COUNT - self.ring.free()).unwrap_or(SLOTS)
    }

    fn page_ref(&self, slot: u32) -> Option<GrantRef> {
        Some(self.buffers.get(usize::try_from(slot).ok()?)?.grant.gref())
    }

    /// The next good frame.
    pub(super) fn receive(&mut self, stats: &mut FrontStats) -> Option<Received> {
        loop {
            let frame = match self.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return None,
                Err(RxBroken::Status) => {
                    stats.rx_errors += 1;
                    continue;
                }
                Err(RxBroken::Ring(fault)) => {
                    stats.violations.add(|| format!("rx ring: {fault}"));
                    return None;
                }
                Err(RxBroken::Protocol(what)) => {
                    stats.violations.add(|| what);
                    continue;
                }
            };
            if checksum::verify(&frame.bytes, frame.checksum).is_err() {
                stats.checksum_mismatches += 1;
                continue;
            }
            stats.rx_frames += 1;
            stats.rx_bytes += frame.bytes.len() as u64;
            stats.rx_slots_max = stats.rx_slots_max.max(frame.slots);
            match frame.checksum {
                Checksum::Blank => stats.rx_blank += 1,
                Checksum::Validated => stats.rx_validated += 1,
                Checksum::Complete => {}
            }
            return Some(frame);
        }
    }

    /// Takes all slots of one frame. A broken frame is taken to its end, too.
    fn next_frame(&mut self) -> Result<Option<Received>, RxBroken> {
        let Some((mut index, slot)) = self.ring.take()? else {
            return Ok(None);
        };
        let mut response = slot.as_response();
        let checksum = match (
            response.flags & RX_CSUM_BLANK != 0,
            response.flags & RX_DATA_VALIDATED != 0,
        ) {
            (true, _) => Checksum::Blank,
            (false, true) => Checksum::Validated,
            (false, false) => Checksum::Complete,
        };
        let mut broken = None;
        if response.flags & RX_EXTRA_INFO != 0 {
            loop {
                let (_, extra) = self
                    .ring
                    .take()?
                    .ok_or_else(|| incomplete("an extra info"))?;
                let extra = extra.as_extra();
                if !(1..=5).contains(&extra.kind) {
                    broken = Some(RxBroken::Protocol(format!(
                        "rx extra info of type {}",
                        extra.kind
                    )));
                }
                if extra.flags & EXTRA_MORE == 0 {
                    break;
                }
            }
        }
        let mut frame = Received {
            bytes: Vec::with_capacity(2048),
            checksum,
            slots: 0,
        };
        loop {
            frame.slots += 1;
            if let Err(error) = self.gather(index, response, &mut frame) {
                // What is worse than an error status is kept.
                broken = match broken {
                    Some(RxBroken::Protocol(first)) => Some(RxBroken::Protocol(first)),
                    _ => Some(error),
                };
            }
            if response.flags & RX_MORE_DATA == 0 {
                break;
            }
            let (next, slot) = self.ring.take()?.ok_or_else(|| incomplete("more data"))?;
            (index, response) = (next, slot.as_response());
        }
        if frame.slots > RX_FRAME_SLOTS {
            broken = Some(RxBroken::Protocol(format!(
                "rx frame of {} slots",
                frame.slots
            )));
        }
        broken.map_or(Ok(Some(frame)), Err)
    }

    /// Adds the bytes of one slot to the frame.
    fn gather(
        &self,
        index: u32,
        response: xen_ring::front::FrontRxResponse,
        frame: &mut Received,
    ) -> Result<(), RxBroken> {
        let slot = index % FrontRx::COUNT;
        if u32::from(response.id) != slot {
            return Err(RxBroken::Protocol(format!(
                "rx response in slot {slot} has id {}: netfront pairs by slot",
                response.id
            )));
        }
        let Ok(len) = u16::try_from(response.status) else {
            return Err(RxBroken::Status);
        };
        let (offset, start) = (usize::from(response.offset), frame.bytes.len());
        frame.bytes.resize(start + usize::from(len), 0);
        let buffer = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.buffers.get(slot));
        let read = buffer.map(|buffer| {
            let into = frame.bytes.get_mut(start..).unwrap_or_default();
            buffer.page.read(offset, into)
        });
        if len == 0 || !matches!(read, Some(Ok(()))) {
            return Err(RxBroken::Protocol(format!(
                "rx slot with offset {offset} and length {len}"
            )));
        }
        Ok(())
    }

    /// Before sleep; true when there are frames already. A broken ring never has any.
    pub(super) fn arm(&mut self) -> bool {
        self.ring.arm().unwrap_or(false)
    }
}

/// Why a received frame is not used.
enum RxBroken {
    /// The backend reports an error.
    Status,
    /// The ring's indices are impossible.
    Ring(FrontFault),
    /// Anything else that is not in the protocol.
    Protocol(String),
}

impl From<FrontFault> for RxBroken {
    fn from(fault: FrontFault) -> Self {
        Self::Ring(fault)
    }
}

fn incomplete(what: &str) -> RxBroken {
    RxBroken::Protocol(format!(
        "rx frame published without all of its slots: {what} is missing"
    ))
}

fn ring_page(guest: &SimGuest) -> Result<(GuestPage, Grant), SysError> {
    let page = GuestPage::new()?;
    let grant = guest.grant(&page, false)?;
    Ok((page, grant))
}

fn buffers(guest: &SimGuest, readonly: bool) -> Result<Vec<Buffer>, SysError> {
    GuestPage::many(SLOTS)?
        .into_iter()
        .map(|page| {
            Ok(Buffer {
                grant: guest.grant(&page, readonly)?,
                page,
            })
        })
        .collect()
}
