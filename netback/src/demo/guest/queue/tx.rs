// SPDX-License-Identifier: GPL-3.0-or-later
//! Sending: frames are cut into slots, each with a page of its own, and their ids come back with the answers.

use xen_ring::front::tx_flags::{CSUM_BLANK, DATA_VALIDATED, EXTRA_INFO, MORE_DATA};
use xen_ring::front::{
    FrontExtra, FrontFault, FrontKind, FrontRing, FrontTx, FrontTxRequest, FrontTxSlot,
};
use xen_ring::page::Access;
use xen_ring::{GrantRef, PAGE_SIZE, SysError};

use super::{FrontStats, SLOTS};
use crate::demo::guest::checksum::{self, Checksum};
use crate::demo::guest::domain::{Domain, Grant, GrantedPage};
use crate::demo::guest::options::FrontendOptions;

/// Slots that must be free before another frame is begun: the most that one frame may take, and extras.
const FRAME_SLOTS: u32 = 20;

// netif.h: the extras that change the multicast list, with the address in the body.
const EXTRA_MCAST_ADD: u8 = 2;
const EXTRA_MCAST_DEL: u8 = 3;
// netif.h: the GSO extra and its types for TCP over IPv4 and IPv6.
const EXTRA_GSO: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 2;

/// What goes with a frame that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxMeta {
    /// What its checksum field holds.
    pub checksum: Checksum,
    /// TCP payload of each segment that the backend is to make of it, if it is to.
    pub gso: Option<u16>,
}

impl From<Checksum> for TxMeta {
    fn from(checksum: Checksum) -> Self {
        Self {
            checksum,
            gso: None,
        }
    }
}

/// A change of the multicast list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MulticastChange {
    /// Frames to this address are wanted.
    Add([u8; 6]),
    /// They are not wanted any more.
    Del([u8; 6]),
}

/// The frame finds no room in the ring, or there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest cannot send this frame now")]
pub struct TxFull;

/// The tx ring and its pages.
#[derive(Debug)]
pub struct TxQueue {
    ring: FrontRing<FrontTx>,
    ring_grant: Grant,
    /// By request id.
    buffers: Vec<GrantedPage>,
    in_flight: Vec<bool>,
    free: Vec<u16>,
}

impl TxQueue {
    pub(in crate::demo::guest) fn new(
        domain: &Domain,
        options: &FrontendOptions,
    ) -> Result<Self, SysError> {
        let ring = domain.granted_page()?;
        let access = match options.tx_readonly {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        Ok(Self {
            ring: FrontRing::init_at(ring.page, options.start_index),
            ring_grant: ring.grant,
            buffers: domain.granted(SLOTS, access)?,
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
            .is_some_and(|buffer| buffer.page.copy_to(0, bytes).is_ok())
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
            // Nearly always the id that was just looked at.
            if self.free.last() == Some(&request.id) {
                self.free.pop();
            } else {
                self.free.retain(|id| *id != request.id);
            }
        }
        Ok(index)
    }

    /// Cuts a frame into slots and puts them into the ring.
    pub(in crate::demo::guest) fn send(
        &mut self,
        frame: &[u8],
        meta: impl Into<TxMeta>,
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
        let TxMeta {
            checksum: said,
            gso,
        } = meta.into();
        if slots == 0 || slots + usize::from(gso.is_some()) > free || (slots > 1 && !sg) {
            return Err(TxFull);
        }
        let extra_flag = if gso.is_some() { EXTRA_INFO } else { 0 };
        let first_flags = extra_flag
            | match said {
                Checksum::Complete => 0,
                Checksum::Validated => DATA_VALIDATED,
                Checksum::Blank => CSUM_BLANK | DATA_VALIDATED,
            };
        for (n, bytes) in frame.chunks(piece).enumerate() {
            let id = self.free.last().copied().ok_or(TxFull)?;
            let buffer = self.buffers.get(usize::from(id)).ok_or(TxFull)?;
            buffer
                .page
                .copy_to(usize::from(options.tx_offset), bytes)
                .map_err(|_| TxFull)?;
            let own = u16::try_from(bytes.len()).map_err(|_| TxFull)?;
            let more = if n + 1 < slots { MORE_DATA } else { 0 };
            self.push(FrontTxSlot::Request(FrontTxRequest {
                gref: buffer.grant.gref().raw(),
                offset: options.tx_offset,
                flags: more | if n == 0 { first_flags } else { 0 },
                id,
                size: if n == 0 { total } else { own },
            }))
            .map_err(|_| TxFull)?;
            if let (0, Some(size)) = (n, gso) {
                let [low, high] = size.to_le_bytes();
                let over = if checksum::is_ipv6(frame) {
                    GSO_TCPV6
                } else {
                    GSO_TCPV4
                };
                let extra = FrontExtra {
                    kind: EXTRA_GSO,
                    flags: 0,
                    body: [low, high, over, 0, 0, 0],
                };
                self.push(FrontTxSlot::Extra(extra)).map_err(|_| TxFull)?;
            }
        }
        Ok(())
    }

    /// Asks for a change of the multicast list, by a dummy request as netif.h has it.
    ///
    /// # Errors
    /// The ring is full.
    pub fn change_multicast(&mut self, change: MulticastChange) -> Result<(), TxFull> {
        let id = self.free.last().copied().ok_or(TxFull)?;
        if self.ring.free() < 2 {
            return Err(TxFull);
        }
        let (kind, body) = match change {
            MulticastChange::Add(address) => (EXTRA_MCAST_ADD, address),
            MulticastChange::Del(address) => (EXTRA_MCAST_DEL, address),
        };
        let dummy = FrontTxRequest {
            gref: 0,
            offset: 0,
            flags: EXTRA_INFO,
            id,
            size: 0,
        };
        let flags = 0;
        let extra = FrontExtra { kind, flags, body };
        for slot in [FrontTxSlot::Request(dummy), FrontTxSlot::Extra(extra)] {
            self.push(slot).map_err(|_| TxFull)?;
        }
        Ok(())
    }

    pub(in crate::demo::guest) fn has_room(
        &mut self,
        options: &FrontendOptions,
        stats: &mut FrontStats,
    ) -> bool {
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
    pub(in crate::demo::guest) fn arm(&mut self) -> bool {
        self.ring.arm().unwrap_or(false)
    }
}
