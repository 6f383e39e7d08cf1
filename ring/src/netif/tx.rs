// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's transmit ring: 12-byte requests (or extra infos) in, 4-byte responses out.

use super::extra::ExtraSlot;
use super::flags::flag_set;
use super::{halves, word};
use crate::back::RingKind;
use crate::error::PeerFault;
use crate::ids::GrantRef;
use crate::layout::{TX_SLOT_BYTES, TX_SLOTS};
use crate::page::Page;

/// The ring by which the guest sends.
#[derive(Clone, Copy, Debug)]
pub enum TxRing {}

impl RingKind for TxRing {
    type Request = TxSlot;
    type Response = TxResponse;
    const SLOTS: u32 = TX_SLOTS;
    const SLOT_BYTES: usize = TX_SLOT_BYTES;

    #[inline]
    fn read_request<P: Page>(page: &P, offset: usize) -> TxSlot {
        TxSlot::new(page.read_words(offset))
    }

    #[inline]
    fn write_response<P: Page>(page: &P, offset: usize, response: TxResponse) {
        page.write_words(offset, [response.to_word()]);
    }
}

/// A private copy of one slot, not yet read as anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TxSlot([u32; 3]);

impl TxSlot {
    /// The slot with these words, as they lie in the ring.
    #[must_use]
    pub const fn new(words: [u32; 3]) -> Self {
        Self(words)
    }

    /// The words, as they lie in the ring.
    #[must_use]
    pub const fn words(self) -> [u32; 3] {
        self.0
    }

    /// The slot read as a request. Every bit pattern is one.
    #[must_use]
    pub const fn as_request(self) -> TxRequest {
        let [gref, second, third] = self.0;
        let (offset, flags) = halves(second);
        let (id, size) = halves(third);
        TxRequest {
            gref: GrantRef::new(gref),
            offset,
            flags: TxFlags(flags),
            id,
            size,
        }
    }

    /// Whether another extra info follows the one that this slot is (`XEN_NETIF_EXTRA_FLAG_MORE`).
    pub(super) const fn has_further_extra(self) -> bool {
        let [_kind, flags, ..] = self.0[0].to_le_bytes();
        flags & 1 != 0
    }

    /// The slot read as an extra info, which takes its first 8 bytes.
    ///
    /// # Errors
    ///
    /// Its type, or what the type's body says, does not exist.
    pub fn as_extra(self) -> Result<ExtraSlot, PeerFault> {
        let [first, second, _] = self.0;
        ExtraSlot::from_words([first, second])
    }
}

impl From<TxRequest> for TxSlot {
    fn from(request: TxRequest) -> Self {
        let TxRequest {
            gref,
            offset,
            flags,
            id,
            size,
        } = request;
        Self([gref.raw(), word(offset, flags.0), word(id, size)])
    }
}

/// A transmit request. In a packet's first slot `size` is the whole packet's; in later ones it is
/// the slot's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxRequest {
    /// The page with the data.
    pub gref: GrantRef,
    /// Where in the page the data start.
    pub offset: u16,
    /// What follows, and the state of the checksum.
    pub flags: TxFlags,
    /// The guest's name for the request, echoed in the response.
    pub id: u16,
    /// Bytes; see the type.
    pub size: u16,
}

/// Flags of a transmit request (`NETTXF_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TxFlags(u16);

flag_set!(TxFlags);

impl TxFlags {
    /// The layer 4 checksum field holds only the pseudo header's sum.
    pub const CSUM_BLANK: Self = Self(1);
    /// The data are known to be right (they come from the guest itself, for example).
    pub const DATA_VALIDATED: Self = Self(2);
    /// The packet goes on in the next request.
    pub const MORE_DATA: Self = Self(4);
    /// The next slot is an extra info.
    pub const EXTRA_INFO: Self = Self(8);
}

/// How a request ended (`NETIF_RSP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum Status {
    /// Dropped; the frontend counts it.
    Dropped = -2,
    /// Refused or failed.
    Error = -1,
    /// Sent.
    Okay = 0,
    /// The slot was an extra info: no answer of its own.
    Null = 1,
}

/// The answer to one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxResponse {
    /// The request's id.
    pub id: u16,
    /// How it ended.
    pub status: Status,
}

impl TxResponse {
    /// The answer to an extra info slot. It has no id; in its place stay the extra info's type and flags, by which a
    /// successor finds its way ([`BackRing::take_over`](crate::BackRing::take_over)).
    #[must_use]
    pub const fn null(slot: TxSlot) -> Self {
        let (kind_and_flags, _) = halves(slot.0[0]);
        Self {
            id: kind_and_flags,
            status: Status::Null,
        }
    }

    /// The response as it lies in the ring: all of its 4 bytes are defined (XSA-216).
    #[must_use]
    pub const fn to_word(self) -> u32 {
        // Lossless: a reinterpretation of the sign.
        word(self.id, (self.status as i16).cast_unsigned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot_of(bytes: [u8; 12]) -> TxSlot {
        let words = bytes.as_chunks().0;
        TxSlot::new(std::array::from_fn(|i| u32::from_le_bytes(words[i])))
    }

    /// A request as a Linux guest writes it: 66 bytes at 0x142 of page 0x208, checksum blank.
    const GOLDEN: [u8; 12] = [0x08, 0x02, 0, 0, 0x42, 0x01, 0x03, 0, 0x11, 0, 0x42, 0];

    #[test]
    fn golden_request() {
        let request = TxRequest {
            gref: GrantRef::new(0x208),
            offset: 0x142,
            flags: TxFlags::CSUM_BLANK.with(TxFlags::DATA_VALIDATED),
            id: 17,
            size: 66,
        };
        assert_eq!(slot_of(GOLDEN).as_request(), request);
        assert_eq!(TxSlot::from(request), slot_of(GOLDEN));
    }

    #[test]
    fn golden_responses() {
        let of = |id, status| TxResponse { id, status }.to_word().to_le_bytes();
        assert_eq!(of(0x1234, Status::Okay), [0x34, 0x12, 0, 0]);
        assert_eq!(of(0x1234, Status::Error), [0x34, 0x12, 0xff, 0xff]);
        assert_eq!(of(1, Status::Dropped), [1, 0, 0xfe, 0xff]);
        let extra = slot_of([1, 1, 0xa0, 0x05, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            TxResponse::null(extra).to_word().to_le_bytes(),
            [1, 1, 1, 0]
        );
    }

    #[test]
    fn golden_flags() {
        let bits = [
            TxFlags::CSUM_BLANK,
            TxFlags::DATA_VALIDATED,
            TxFlags::MORE_DATA,
            TxFlags::EXTRA_INFO,
        ]
        .map(TxFlags::bits);
        assert_eq!(bits, [1, 2, 4, 8]);
        let both = TxFlags::MORE_DATA.with(TxFlags::EXTRA_INFO);
        assert!(both.contains(TxFlags::MORE_DATA));
        assert!(!TxFlags::MORE_DATA.contains(both));
    }

    proptest! {
        #[test]
        fn requests_round_trip(words: [u32; 3]) {
            let slot = TxSlot::new(words);
            prop_assert_eq!(TxSlot::from(slot.as_request()), slot);
        }
    }
}
