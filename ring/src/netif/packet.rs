// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a run of transmit slots as one validated packet: the plan by which the backend copies,
//! forwards and answers it.
//!
//! Pure and free of allocation. The slots are private copies, so what is validated is what is
//! used. The rules are those of Linux's netback (what is fatal for the vif, what only costs the
//! packet) and six that it lacks. Three are fatal: [`PeerFault::DuplicateExtra`],
//! [`PeerFault::MulticastWithData`] and [`PeerFault::MulticastConflict`]; three cost the packet:
//! [`DropReason::GsoNotOffered`], [`DropReason::GsoTooSmall`] and
//! [`DropReason::MulticastNotOffered`]. What Linux's netfront sends, all of them let pass but for
//! one extreme: more than [`MAX_SEGMENTS`] segments in a frame.
//!
//! A packet is: its first slot; then, if that says so, one or more extra infos; then, while the
//! slot before says so, further fragments. The first slot's `size` is the whole packet's; its own
//! length is what the later ones leave of it. What the flags of extras are is irrelevant to the
//! chain of fragments.

mod plan;

pub use plan::{Fragment, Fragments, TxPacket};

use super::extra::{Extra, Gso};
use super::tx::{TxFlags, TxRequest, TxSlot};
use crate::error::PeerFault;
use crate::layout::PAGE_SIZE;

/// Slots after the first (extras not counted) that every backend must accept
/// (`XEN_NETIF_NR_SLOTS_MIN`). A packet with more is dropped.
pub const LATER_SLOTS: usize = 18;
/// Slots after the first beyond which a packet is fatal (Linux's `fatal_skb_slots`).
pub const FATAL_LATER_SLOTS: usize = 20;
/// An Ethernet header, which must lie in the first slot.
pub const HEADER_BYTES: u16 = 14;
/// The smallest segment size that a packet is forwarded with. Linux never sends less
/// (`TCP_MIN_GSO_SIZE`).
pub const MIN_GSO_SIZE: u16 = 8;
/// The most segments that a packet may be cut into, which the host may have to do at once, for each
/// receiver: 64 bytes each for the longest. What a network asks for is 536 and more (RFC 9293,
/// section 3.7.1); less than 64 only a peer that means to make its sender work. Linux lets it, down
/// to 48 with the options (`net.ipv4.tcp_min_snd_mss`), so its netfront may send such a frame; the
/// connection with that peer is what suffers.
pub const MAX_SEGMENTS: u32 = 1024;

/// What was offered to the frontend, so what it may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TxLimits {
    /// `feature-gso-tcpv4` was advertised.
    pub gso_v4: bool,
    /// `feature-gso-tcpv6` was advertised.
    pub gso_v6: bool,
    /// `feature-multicast-control` was advertised.
    pub multicast: bool,
}

/// What the guest says about the layer 4 checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxCsum {
    /// Complete; nothing is known about its truth.
    Complete,
    /// Complete and known to be right.
    Validated,
    /// The field holds only the pseudo header's sum.
    Blank,
}

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Copy its fragments and forward it.
    Deliver,
    /// Answer every slot with an error.
    Drop(DropReason),
    /// Not a packet: a change of the multicast list. It has no data.
    Multicast(Multicast),
}

/// Why a packet is dropped while its vif lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DropReason {
    /// The first slot has less than an Ethernet header.
    #[error("the first slot is shorter than an Ethernet header")]
    ShortHeader,
    /// The later slots have more bytes than the packet. Frontends that let a packet grow beyond
    /// 64 KiB do this: their total has wrapped.
    #[error("the slots have more bytes than the packet")]
    SizesExceedTotal,
    /// More slots than a backend must accept, but fewer than are fatal.
    #[error("the packet has too many slots")]
    TooManySlots,
    /// Segmentation that was not advertised. Linux would accept it; it is no breach that the vif
    /// should die of, since a frontend may have read the features of another backend before.
    #[error("the packet wants a segmentation that was not offered")]
    GsoNotOffered,
    /// A segment size that only serves to multiply packets: less than [`MIN_GSO_SIZE`], or so little
    /// that there would be more than [`MAX_SEGMENTS`]. Linux takes any but 0.
    #[error("the packet wants tiny segments")]
    GsoTooSmall,
    /// A change of the multicast list, which was not advertised. Linux, which always advertises it,
    /// does not look.
    #[error("multicast control was not offered")]
    MulticastNotOffered,
}

/// A change of the multicast list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multicast {
    /// Add the address.
    Add([u8; 6]),
    /// Remove the address.
    Del([u8; 6]),
}

/// Reads the packet that starts at `slots[0]`.
///
/// `slots` must hold *everything* that the frontend has published from there on (never more than
/// 256 slots), not a part of it: frontends publish whole packets, so one that goes on after the
/// last slot is a fault of the frontend, not a reason to wait. Without any slots there is no
/// packet either, and the answer is the same.
///
/// # Errors
///
/// What is fatal for the vif.
pub fn next_packet(slots: &[TxSlot], limits: &TxLimits) -> Result<TxPacket, PeerFault> {
    let incomplete = PeerFault::IncompletePacket {
        published: slots.len(),
    };
    let (first, rest) = slots.split_first().ok_or(incomplete)?;
    let first = first.as_request();
    let extras = Extras::read(first.flags, rest, incomplete)?;
    if let Some(multicast) = extras.multicast {
        if first.flags.contains(TxFlags::MORE_DATA) {
            return Err(PeerFault::MulticastWithData);
        }
        let verdict = match limits.multicast {
            true => Verdict::Multicast(multicast),
            false => Verdict::Drop(DropReason::MulticastNotOffered),
        };
        // Whatever it says of its size, there are no bytes behind it.
        let first = TxRequest { size: 0, ..first };
        return Ok(TxPacket::new(first, &extras, 0, 0, verdict));
    }
    let rest = rest.get(extras.count..).unwrap_or_default();
    let later = Later::read(first.flags, rest, 1 + extras.count, incomplete)?;
    let (own, shape) = later.first_slot(&first)?;
    let verdict = shape
        .or_else(|| extras.refused_gso(first.size, limits))
        .map_or(Verdict::Deliver, Verdict::Drop);
    Ok(TxPacket::new(first, &extras, later.count, own, verdict))
}

/// The extra infos after the first slot.
#[derive(Default)]
struct Extras {
    count: usize,
    /// Bit n: type n has been seen.
    seen: u8,
    gso: Option<Gso>,
    multicast: Option<Multicast>,
}

impl Extras {
    /// Ends after at most one extra of each type: two of one type are fatal.
    fn read(flags: TxFlags, slots: &[TxSlot], incomplete: PeerFault) -> Result<Self, PeerFault> {
        let mut extras = Self::default();
        let mut slots = slots.iter();
        let mut more = flags.contains(TxFlags::EXTRA_INFO);
        while more {
            let slot = slots.next().ok_or(incomplete)?.as_extra()?;
            extras.add(slot.extra)?;
            more = slot.more;
        }
        Ok(extras)
    }

    fn add(&mut self, extra: Extra) -> Result<(), PeerFault> {
        let kind = extra.kind();
        let bit = 1 << kind;
        if self.seen & bit != 0 {
            return Err(PeerFault::DuplicateExtra { kind });
        }
        self.seen |= bit;
        self.count += 1;
        match extra {
            Extra::Gso(gso) => self.gso = Some(gso),
            Extra::McastAdd(address) => self.multicast(Multicast::Add(address))?,
            Extra::McastDel(address) => self.multicast(Multicast::Del(address))?,
            // Linux passes a hash on; nothing here uses one yet, nor a guest's headroom ever.
            Extra::Hash { .. } | Extra::Xdp { .. } => {}
        }
        Ok(())
    }

    fn multicast(&mut self, change: Multicast) -> Result<(), PeerFault> {
        match self.multicast.replace(change) {
            None => Ok(()),
            Some(_) => Err(PeerFault::MulticastConflict),
        }
    }

    fn refused_gso(&self, size: u16, limits: &TxLimits) -> Option<DropReason> {
        use super::extra::GsoKind::{TcpV4, TcpV6};
        let gso = self.gso?;
        let offered = match gso.kind {
            TcpV4 => limits.gso_v4,
            TcpV6 => limits.gso_v6,
        };
        if !offered {
            Some(DropReason::GsoNotOffered)
        } else if gso.size < MIN_GSO_SIZE || gso.segments(size.into()) > MAX_SEGMENTS {
            Some(DropReason::GsoTooSmall)
        } else {
            None
        }
    }
}

/// The fragments after the first slot.
#[derive(Default)]
struct Later {
    count: usize,
    bytes: u32,
}

impl Later {
    /// Ends after at most [`FATAL_LATER_SLOTS`] slots. `position` is that of the first of them
    /// within the packet.
    fn read(
        flags: TxFlags,
        slots: &[TxSlot],
        position: usize,
        incomplete: PeerFault,
    ) -> Result<Self, PeerFault> {
        let mut later = Self::default();
        let mut slots = slots.iter();
        let mut more = flags.contains(TxFlags::MORE_DATA);
        while more {
            let slot = slots.next().ok_or(incomplete)?.as_request();
            if later.count >= FATAL_LATER_SLOTS {
                return Err(PeerFault::TooManySlots {
                    limit: FATAL_LATER_SLOTS,
                });
            }
            within_page(position + later.count, slot.offset, slot.size)?;
            later.count += 1;
            // At most 20 times 65535.
            later.bytes += u32::from(slot.size);
            more = slot.flags.contains(TxFlags::MORE_DATA);
        }
        Ok(later)
    }

    /// The first slot's own length, and what is wrong with the packet's shape, if anything is.
    fn first_slot(&self, first: &TxRequest) -> Result<(u16, Option<DropReason>), PeerFault> {
        if self.count > LATER_SLOTS {
            return Ok((0, Some(DropReason::TooManySlots)));
        }
        let own = u16::try_from(self.bytes)
            .ok()
            .and_then(|later| first.size.checked_sub(later));
        let Some(own) = own else {
            return Ok((0, Some(DropReason::SizesExceedTotal)));
        };
        within_page(0, first.offset, own)?;
        Ok((own, (own < HEADER_BYTES).then_some(DropReason::ShortHeader)))
    }
}

fn within_page(slot: usize, offset: u16, len: u16) -> Result<(), PeerFault> {
    if usize::from(offset) + usize::from(len) > PAGE_SIZE {
        return Err(PeerFault::CrossesPage { slot, offset, len });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
