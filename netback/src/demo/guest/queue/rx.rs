// SPDX-License-Identifier: GPL-3.0-or-later
//! Receiving: buffers are offered slot by slot, and frames are put together from the slots that come back.

use xen_ring::front::rx_flags::{CSUM_BLANK, DATA_VALIDATED, EXTRA_INFO, MORE_DATA};
use xen_ring::front::{FrontFault, FrontKind, FrontRing, FrontRx, FrontRxRequest, FrontRxResponse};
use xen_ring::page::{Access, SharedPage};
use xen_ring::{GrantRef, SysError};

use super::{FrontStats, SLOTS};
use crate::demo::guest::checksum::{self, Checksum};
use crate::demo::guest::domain::{Domain, Grant};
use crate::demo::guest::options::FrontendOptions;

/// Slots of one received frame beyond which Linux's netfront drops it.
const FRAME_SLOTS: u32 = 18;

/// An extra info with this flag is followed by another.
const EXTRA_MORE: u8 = 1;
const EXTRA_GSO: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 2;
const EXTRA_HASH: u8 = 4;
const TOEPLITZ: u8 = 1;
/// Linux's netif.h: {headroom u16} in the body.
const EXTRA_XDP: u8 = 5;

/// One received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The whole frame.
    pub bytes: Vec<u8>,
    /// What its flags said.
    pub checksum: Checksum,
    /// TCP payload of each segment that it stands for, if it stands for many.
    pub gso: Option<u16>,
    /// Type and value of its hash, if that came with it.
    pub hash: Option<(u8, u32)>,
    /// Room that was left in front of the data in each buffer, as the frame's own extra info says.
    pub headroom: u16,
    /// Data slots it took.
    pub slots: u32,
}

/// The rx ring and its pages.
#[derive(Debug)]
pub struct RxQueue {
    ring: FrontRing<FrontRx>,
    ring_grant: Grant,
    /// By slot: the request in slot n always offers page n.
    pages: Vec<SharedPage>,
    /// By slot, too; none when they were revoked.
    grants: Vec<Grant>,
}

impl RxQueue {
    pub(in crate::demo::guest) fn new(
        domain: &Domain,
        options: &FrontendOptions,
    ) -> Result<Self, SysError> {
        let ring = domain.granted_page()?;
        let buffers = domain.granted(SLOTS, Access::ReadWrite)?.into_iter();
        let (pages, grants) = buffers.map(|buffer| (buffer.page, buffer.grant)).unzip();
        let mut queue = Self {
            ring: FrontRing::init_at(ring.page, options.start_index),
            ring_grant: ring.grant,
            pages,
            grants,
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

    /// Ends the access to every page that is offered for receiving, as no correct frontend does. What has come into
    /// them by then can still be received.
    pub fn revoke_buffers(&mut self) {
        self.grants.clear();
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

    /// The grant reference of the page that belongs to a slot.
    #[must_use]
    pub fn page_ref(&self, slot: u32) -> Option<GrantRef> {
        Some(self.grants.get(usize::try_from(slot).ok()?)?.gref())
    }

    /// The next good frame.
    pub(in crate::demo::guest) fn receive(&mut self, stats: &mut FrontStats) -> Option<Received> {
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
            let is_v6 = checksum::is_ipv6(&frame.bytes);
            stats.rx_gso += u64::from(frame.gso.is_some());
            stats.rx_gso_v6 += u64::from(frame.gso.is_some() && is_v6);
            stats.rx_hashed += u64::from(frame.hash.is_some());
            stats.rx_xdp += u64::from(frame.headroom > 0);
            match frame.checksum {
                Checksum::Blank => {
                    stats.rx_blank += 1;
                    stats.rx_blank_v6 += u64::from(is_v6);
                }
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
            response.flags & CSUM_BLANK != 0,
            response.flags & DATA_VALIDATED != 0,
        ) {
            (true, _) => Checksum::Blank,
            (false, true) => Checksum::Validated,
            (false, false) => Checksum::Complete,
        };
        let (mut broken, mut gso, mut hash, mut headroom) = (None, None, None, 0);
        let mut last_kind = 0;
        if response.flags & EXTRA_INFO != 0 {
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
                if extra.kind <= last_kind {
                    broken = Some(RxBroken::Protocol(format!(
                        "rx extra info of type {} behind one of type {last_kind}",
                        extra.kind
                    )));
                }
                last_kind = extra.kind;
                match (extra.kind, extra.body) {
                    (EXTRA_GSO, [low, high, over, ..]) => {
                        gso = Some((u16::from_le_bytes([low, high]), over));
                    }
                    (EXTRA_XDP, [low, high, ..]) => headroom = u16::from_le_bytes([low, high]),
                    (EXTRA_HASH, [kind, TOEPLITZ, value @ ..]) => {
                        hash = Some((kind, u32::from_le_bytes(value)));
                    }
                    (EXTRA_HASH, body) => {
                        broken = Some(RxBroken::Protocol(format!(
                            "rx hash of unknown algorithm {body:?}"
                        )));
                    }
                    _ => {}
                }
                if extra.flags & EXTRA_MORE == 0 {
                    break;
                }
            }
        }
        let mut frame = Received {
            bytes: Vec::with_capacity(2048),
            checksum,
            gso: gso.map(|(size, _)| size),
            hash,
            headroom,
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
            if response.flags & MORE_DATA == 0 {
                break;
            }
            let (next, slot) = self.ring.take()?.ok_or_else(|| incomplete("more data"))?;
            (index, response) = (next, slot.as_response());
        }
        if frame.slots > FRAME_SLOTS {
            broken = Some(RxBroken::Protocol(format!(
                "rx frame of {} slots",
                frame.slots
            )));
        }
        let over = if checksum::is_ipv6(&frame.bytes) {
            GSO_TCPV6
        } else {
            GSO_TCPV4
        };
        if let Some((_, kind)) = gso
            && kind != over
        {
            broken = Some(RxBroken::Protocol(format!(
                "rx frame to be segmented as of type {kind} that is of type {over}"
            )));
        }
        if frame.gso.is_some() && frame.checksum != Checksum::Blank {
            broken = Some(RxBroken::Protocol(
                "rx frame to be segmented whose checksum is not blank".to_owned(),
            ));
        }
        broken.map_or(Ok(Some(frame)), Err)
    }

    /// Adds the bytes of one slot to the frame.
    fn gather(
        &self,
        index: u32,
        response: FrontRxResponse,
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
        // Linux's netfront believes the extra info of the first slot and the offsets of the others.
        if frame.headroom > 0 && response.offset != frame.headroom {
            return Err(RxBroken::Protocol(format!(
                "rx slot with offset {} of a frame with headroom {}",
                response.offset, frame.headroom
            )));
        }
        let (offset, start) = (usize::from(response.offset), frame.bytes.len());
        frame.bytes.resize(start + usize::from(len), 0);
        let page = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.pages.get(slot));
        let read = page.map(|page| {
            let into = frame.bytes.get_mut(start..).unwrap_or_default();
            page.copy_from(offset, into)
        });
        if len == 0 || !matches!(read, Some(Ok(()))) {
            return Err(RxBroken::Protocol(format!(
                "rx slot with offset {offset} and length {len}"
            )));
        }
        Ok(())
    }

    /// Before sleep; true when there are frames already. A broken ring never has any.
    pub(in crate::demo::guest) fn arm(&mut self) -> bool {
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
