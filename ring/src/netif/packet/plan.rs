// SPDX-License-Identifier: MIT OR Apache-2.0
//! The outcome of [`super::next_packet`]: which bytes to copy, and how to answer.

use super::super::extra::Gso;
use super::super::tx::{Status, TxFlags, TxRequest, TxResponse, TxSlot};
use super::{Extras, TxCsum, Verdict};
use crate::ids::GrantRef;

/// A validated packet. It says how the slots it was read from are to be used; the methods that
/// take slots want those same slots (and do no harm with others).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxPacket {
    /// Ring slots that the packet takes, extras included: at least 1.
    pub slots: usize,
    /// Bytes, as the guest says; for a delivered packet the sum of its fragments.
    pub size: u32,
    /// State of the layer 4 checksum.
    pub csum: TxCsum,
    /// Segmentation that the packet wants.
    pub gso: Option<Gso>,
    /// Extra infos among the slots, directly after the first.
    pub extras: usize,
    /// What to do with it.
    pub verdict: Verdict,
    /// The first slot's own bytes.
    own: u16,
}

impl TxPacket {
    pub(super) fn new(
        first: TxRequest,
        extras: &Extras,
        later: usize,
        own: u16,
        verdict: Verdict,
    ) -> Self {
        Self {
            slots: 1 + extras.count + later,
            size: u32::from(first.size),
            csum: csum(first.flags),
            gso: extras.gso,
            extras: extras.count,
            verdict,
            own,
        }
    }

    /// Bytes that are to be copied: those of its fragments. A packet that is not delivered has none, whatever it says.
    #[must_use]
    pub const fn copied(&self) -> u32 {
        match self.verdict {
            Verdict::Deliver => self.size,
            Verdict::Drop(_) | Verdict::Multicast(_) => 0,
        }
    }

    /// Packets that the host makes of it: its segments, counted as if all of it were payload; 1 for a packet that is not
    /// delivered.
    #[must_use]
    pub fn segments(&self) -> u32 {
        let cut = self.gso.filter(|_| self.verdict == Verdict::Deliver);
        cut.map_or(1, |gso| gso.segments(self.size))
    }

    /// The pieces to copy, in the order of the packet's bytes. None is empty, none crosses its
    /// page; together they have [`size`](Self::size) bytes. A packet that is not delivered has
    /// none.
    #[inline]
    #[must_use]
    pub fn fragments<'a>(&self, slots: &'a [TxSlot]) -> Fragments<'a> {
        Fragments {
            slots: match self.verdict {
                Verdict::Deliver => self.of(slots),
                Verdict::Drop(_) | Verdict::Multicast(_) => &[],
            },
            next: 0,
            own: self.own,
            extras: self.extras,
        }
    }

    /// The answers, one per slot in ring order: `status` for requests, "null" for extras.
    pub fn responses<'a>(
        &self,
        slots: &'a [TxSlot],
        status: Status,
    ) -> impl Iterator<Item = TxResponse> + use<'a> {
        self.responses_with(slots, move |_| status)
    }

    /// As [`responses`](Self::responses) with a status for each slot, given its position in the
    /// packet (as in [`Fragment::slot`]): when one copy failed, that slot gets an error and its
    /// siblings do not.
    pub fn responses_with<'a, F: FnMut(usize) -> Status>(
        &self,
        slots: &'a [TxSlot],
        mut status: F,
    ) -> impl Iterator<Item = TxResponse> + use<'a, F> {
        let extras = self.extras;
        let slots = self.of(slots).iter().enumerate();
        slots.map(move |(position, slot)| {
            if is_extra(position, extras) {
                TxResponse::null(*slot)
            } else {
                TxResponse {
                    id: slot.as_request().id,
                    status: status(position),
                }
            }
        })
    }

    /// The packet's own of the slots that begin with it.
    #[inline]
    fn of<'a>(&self, slots: &'a [TxSlot]) -> &'a [TxSlot] {
        slots.get(..self.slots).unwrap_or(slots)
    }
}

/// The pieces of a packet: see [`TxPacket::fragments`].
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    slots: &'a [TxSlot],
    next: usize,
    own: u16,
    extras: usize,
}

impl Iterator for Fragments<'_> {
    type Item = Fragment;

    #[inline]
    fn next(&mut self) -> Option<Fragment> {
        loop {
            let slot = self.next;
            let request = self.slots.get(slot)?.as_request();
            self.next += 1;
            let mut len = request.size;
            if slot == 0 {
                len = self.own;
                self.next += self.extras;
            }
            if len > 0 {
                return Some(Fragment {
                    gref: request.gref,
                    offset: request.offset,
                    len,
                    slot,
                });
            }
        }
    }
}

/// A piece of a packet: `len` bytes (never 0) at `offset` of a granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The page.
    pub gref: GrantRef,
    /// First byte within it.
    pub offset: u16,
    /// How many; `offset + len` is at most 4096.
    pub len: u16,
    /// Which slot of the packet it comes from, extras counted.
    pub slot: usize,
}

const fn is_extra(position: usize, extras: usize) -> bool {
    1 <= position && position <= extras
}

const fn csum(flags: TxFlags) -> TxCsum {
    if flags.contains(TxFlags::CSUM_BLANK) {
        TxCsum::Blank
    } else if flags.contains(TxFlags::DATA_VALIDATED) {
        TxCsum::Validated
    } else {
        TxCsum::Complete
    }
}
