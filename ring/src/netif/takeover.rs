// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring of packets whose former backend was killed in the midst of a burst.
//!
//! Answers are written into the slots of their requests, and all those of a burst are published at its end. A backend
//! that is killed between the two leaves slots which its successor would read as requests, and which are answers. What
//! stands in the reference's place there is the id and status of a transmitted packet, or the flags and length of a
//! received one, or a part of an extra info: the reference of another page of the guest, whose bytes would go out to
//! the network, or which would be written to. (What a segmented packet leaves in a receive ring names page 1, by
//! which a Linux guest talks to xenstored.)
//!
//! So whoever takes over a ring reads from the published end on what cannot be a request. That is published, and a
//! packet of which it is a part only is ended.

use super::extra::{Extra, ExtraSlot};
use super::halves;
use super::rx::{RxFlags, RxRequest, RxResponse, RxRing, RxSlotResponse};
use super::tx::{Status, TxFlags, TxResponse, TxRing, TxSlot};
use crate::back::{BackRing, RingKind};
use crate::error::PeerFault;
use crate::layout::PAGE_SIZE;
use crate::page::Page;

impl<P: Page> BackRing<TxRing, P> {
    /// As [`attach`](Self::attach), and answers that are in the ring already are published. Of a packet that is
    /// answered in part the rest is refused. Returns how many slots that concerned. The frontend is to be signalled
    /// afterwards.
    ///
    /// A request that is called by the number of its page's reference looks like an answer. If it is the first that
    /// was not answered, the guest loses that packet.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach).
    pub fn take_over(page: P) -> Result<(Self, u32), PeerFault> {
        settle::<TxPlace, P>(Self::attach(page)?)
    }
}

impl<P: Page> BackRing<RxRing, P> {
    /// As [`attach`](Self::attach), and answers that are in the ring already are published. A packet that is there in
    /// part ends with an error. Returns how many slots that concerned. The frontend is to be signalled afterwards.
    ///
    /// What looks like a length and flags is no reference, unless the guest has more than 65,536 of them. `hashes`: the
    /// frontend may have asked for the hashes of its packets. The extra info with one has a reference's place for its
    /// own, so a buffer that the guest calls 4 can look like one then.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach).
    pub fn take_over(page: P, hashes: bool) -> Result<(Self, u32), PeerFault> {
        let ring = Self::attach(page)?;
        match hashes {
            true => settle::<RxPlace<true>, P>(ring),
            false => settle::<RxPlace<false>, P>(ring),
        }
    }
}

/// What a slot is, by those before it.
trait Place: Copy + PartialEq {
    type Ring: RingKind;
    /// A slot as it lies in the ring.
    type Slot: Copy;

    /// A packet's first.
    const FIRST: Self;

    fn read<P: Page>(ring: &BackRing<Self::Ring, P>) -> Self::Slot;

    /// Whether the slot holds an answer.
    fn is_answer(self, slot: Self::Slot) -> bool;

    /// What the slot after one with an answer is.
    fn after(self, slot: Self::Slot) -> Self;

    /// An answer by which a packet that cannot be told whole gets to its end, and what the next slot is then.
    fn ending(self, slot: Self::Slot) -> (<Self::Ring as RingKind>::Response, Self);
}

/// Ends after at most one round for each slot.
fn settle<S: Place, P: Page>(
    mut ring: BackRing<S::Ring, P>,
) -> Result<(BackRing<S::Ring, P>, u32), PeerFault> {
    let mut place = S::FIRST;
    let mut settled = 0;
    for _ in 0..ring.unconsumed()? {
        let slot = S::read(&ring);
        if place.is_answer(slot) {
            place = place.after(slot);
            ring.skip();
        } else if place != S::FIRST {
            let (answer, next) = place.ending(slot);
            place = next;
            ring.answer_next(answer);
        } else {
            break;
        }
        settled += 1;
    }
    let _signalled_anyway = ring.publish();
    Ok((ring, settled))
}

/// A slot of a transmit ring. An answer takes its first four bytes and leaves the flags alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TxPlace {
    First,
    /// An extra info, and whether data follow the last of them.
    Extra {
        data: bool,
    },
    /// More data.
    Fragment,
}

impl Place for TxPlace {
    type Ring = TxRing;
    type Slot = TxSlot;
    const FIRST: Self = Self::First;

    fn read<P: Page>(ring: &BackRing<TxRing, P>) -> TxSlot {
        TxSlot::new(ring.next_words())
    }

    fn is_answer(self, slot: TxSlot) -> bool {
        let [first, ..] = slot.words();
        match self {
            Self::Extra { .. } => first == TxResponse::null(slot).to_word(),
            Self::First | Self::Fragment => {
                let id = slot.as_request().id;
                [Status::Okay, Status::Error, Status::Dropped]
                    .map(|status| TxResponse { id, status }.to_word())
                    .contains(&first)
            }
        }
    }

    fn after(self, slot: TxSlot) -> Self {
        let flags = slot.as_request().flags;
        let data = match self {
            Self::First if flags.contains(TxFlags::EXTRA_INFO) => {
                return Self::Extra {
                    data: flags.contains(TxFlags::MORE_DATA),
                };
            }
            Self::First | Self::Fragment => flags.contains(TxFlags::MORE_DATA),
            Self::Extra { .. } if slot.has_further_extra() => return self,
            Self::Extra { data } => data,
        };
        if data { Self::Fragment } else { Self::First }
    }

    fn ending(self, slot: TxSlot) -> (TxResponse, Self) {
        let answer = match self {
            Self::Extra { .. } => TxResponse::null(slot),
            Self::First | Self::Fragment => TxResponse {
                id: slot.as_request().id,
                status: Status::Error,
            },
        };
        (answer, self.after(slot))
    }
}

/// A slot of a receive ring, which an answer takes as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RxPlace<const HASHES: bool> {
    First,
    /// An extra info, whether data follow the last of them, and where in their pages data start.
    Extra {
        data: bool,
        offset: u16,
    },
    /// More data.
    Further,
}

impl<const HASHES: bool> Place for RxPlace<HASHES> {
    type Ring = RxRing;
    type Slot = [u32; 2];
    const FIRST: Self = Self::First;

    fn read<P: Page>(ring: &BackRing<RxRing, P>) -> [u32; 2] {
        ring.next_words()
    }

    fn is_answer(self, slot: [u32; 2]) -> bool {
        match self {
            Self::Extra { .. } => ExtraSlot::from_words(slot)
                .is_ok_and(|extra| is_for_guest(extra.extra, HASHES) && extra.to_words() == slot),
            Self::First | Self::Further => {
                let (flags, status) = flags_and_status(slot);
                let is_length =
                    usize::try_from(status).is_ok_and(|len| (1..=PAGE_SIZE).contains(&len));
                RxFlags::ALL.contains(flags) && (is_length || status < 0)
            }
        }
    }

    fn after(self, slot: [u32; 2]) -> Self {
        let (flags, _) = flags_and_status(slot);
        let data = match self {
            Self::First if flags.contains(RxFlags::EXTRA_INFO) => {
                let [first, _] = slot;
                let (_id, offset) = halves(first);
                return Self::Extra {
                    data: flags.contains(RxFlags::MORE_DATA),
                    offset,
                };
            }
            Self::First | Self::Further => flags.contains(RxFlags::MORE_DATA),
            Self::Extra { .. } if ExtraSlot::from_words(slot).is_ok_and(|extra| extra.more) => {
                return self;
            }
            Self::Extra { data, .. } => data,
        };
        if data { Self::Further } else { Self::First }
    }

    fn ending(self, slot: [u32; 2]) -> (RxSlotResponse, Self) {
        match self {
            // One that says nothing new: how much room is before the data.
            Self::Extra { data, offset } => {
                let extra = ExtraSlot {
                    extra: Extra::Xdp { headroom: offset },
                    more: false,
                };
                let next = if data { Self::Further } else { Self::First };
                (RxSlotResponse::Extra(extra), next)
            }
            Self::First | Self::Further => {
                let error = RxResponse {
                    id: RxRequest::from_words(slot).id,
                    offset: 0,
                    flags: RxFlags::default(),
                    status: Status::Error as i16,
                };
                (RxSlotResponse::Data(error), Self::First)
            }
        }
    }
}

/// Whether a backend tells its guest so. The first two can be no buffer, whatever the guest has left in the two bytes
/// that a request does not use (Linux writes its number and its reference only): for its reference they have 0, or the
/// version of the protocol to be segmented.
const fn is_for_guest(extra: Extra, hashes: bool) -> bool {
    match extra {
        Extra::Gso(_) | Extra::Xdp { .. } => true,
        Extra::Hash { algorithm, .. } => hashes && algorithm != 0,
        Extra::McastAdd(_) | Extra::McastDel(_) => false,
    }
}

fn flags_and_status([_, second]: [u32; 2]) -> (RxFlags, i16) {
    let (flags, status) = halves(second);
    (RxFlags::new(flags), status.cast_signed())
}

#[cfg(test)]
mod tests;
