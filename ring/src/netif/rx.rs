// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's receive ring: 8-byte requests (empty buffers) in, 8-byte responses out.
//!
//! A response belongs to the request of the same ring slot, not of the same id: the frontend pairs
//! them by index. An extra info goes out in the place of a response and uses up one request, whose
//! buffer stays empty.

use super::extra::ExtraSlot;
use super::flags::flag_set;
use super::{halves, word};
use crate::back::RingKind;
use crate::ids::GrantRef;
use crate::layout::{RX_SLOT_BYTES, RX_SLOTS};
use crate::page::Page;

/// The ring by which the guest receives.
#[derive(Clone, Copy, Debug)]
pub enum RxRing {}

impl RingKind for RxRing {
    type Request = RxRequest;
    type Response = RxSlotResponse;
    const SLOTS: u32 = RX_SLOTS;
    const SLOT_BYTES: usize = RX_SLOT_BYTES;

    #[inline]
    fn read_request<P: Page>(page: &P, offset: usize) -> RxRequest {
        RxRequest::from_words(page.read_words(offset))
    }

    #[inline]
    fn write_response<P: Page>(page: &P, offset: usize, response: RxSlotResponse) {
        page.write_words(offset, response.to_words());
    }
}

/// An empty buffer that the guest offers: one whole page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxRequest {
    /// The guest's name for the buffer, echoed in the response.
    pub id: u16,
    /// The page.
    pub gref: GrantRef,
}

impl RxRequest {
    /// The request in these words, as they lie in the ring. Every bit pattern is one.
    #[must_use]
    pub const fn from_words([first, gref]: [u32; 2]) -> Self {
        let (id, _padding) = halves(first);
        Self {
            id,
            gref: GrantRef::new(gref),
        }
    }
}

impl Default for RxRequest {
    fn default() -> Self {
        Self::from_words([0; 2])
    }
}

/// What is written into a slot of the receive ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxSlotResponse {
    /// Data, or an error.
    Data(RxResponse),
    /// An extra info about the packet of the data slot before.
    Extra(ExtraSlot),
}

impl RxSlotResponse {
    /// The slot as it lies in the ring: all of its 8 bytes are defined (XSA-216).
    #[must_use]
    #[inline]
    pub const fn to_words(self) -> [u32; 2] {
        match self {
            Self::Data(response) => response.to_words(),
            Self::Extra(extra) => extra.to_words(),
        }
    }
}

/// The answer to one receive request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxResponse {
    /// The request's id.
    pub id: u16,
    /// Where in the page the data start.
    pub offset: u16,
    /// What follows, and the state of the checksum.
    pub flags: RxFlags,
    /// Bytes in this slot; negative for an error.
    pub status: i16,
}

impl RxResponse {
    /// The response as it lies in the ring.
    #[must_use]
    #[inline]
    pub const fn to_words(self) -> [u32; 2] {
        [
            word(self.id, self.offset),
            word(self.flags.0, self.status.cast_unsigned()),
        ]
    }
}

/// Flags of a receive response (`NETRXF_*`). Bits 0 and 1 are swapped against [`super::TxFlags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RxFlags(u16);

flag_set!(RxFlags);

impl RxFlags {
    /// The data are known to be right.
    pub const DATA_VALIDATED: Self = Self(1);
    /// The layer 4 checksum field holds only the pseudo header's sum.
    pub const CSUM_BLANK: Self = Self(2);
    /// The packet goes on in the next data slot.
    pub const MORE_DATA: Self = Self(4);
    /// The next slot is an extra info.
    pub const EXTRA_INFO: Self = Self(8);
    /// All of them.
    pub(super) const ALL: Self = Self(15);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netif::{Extra, Gso, GsoKind};

    fn bytes(words: [u32; 2]) -> [u8; 8] {
        let mut bytes = [0; 8];
        for (out, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *out = word.to_le_bytes();
        }
        bytes
    }

    #[test]
    fn golden_request() {
        // id 0x1234, padding 0xeeee (whatever the guest left there), reference 0x0a0b0c0d.
        let request = RxRequest::from_words([0xeeee_1234, 0x0a0b_0c0d]);
        assert_eq!(
            request,
            RxRequest {
                id: 0x1234,
                gref: GrantRef::new(0x0a0b_0c0d)
            }
        );
    }

    #[test]
    fn golden_responses() {
        let response = RxResponse {
            id: 0x1234,
            offset: 0x0102,
            flags: RxFlags::CSUM_BLANK.with(RxFlags::MORE_DATA),
            status: 0x05dc,
        };
        let golden = [0x34, 0x12, 0x02, 0x01, 0x06, 0, 0xdc, 0x05];
        assert_eq!(bytes(RxSlotResponse::Data(response).to_words()), golden);

        let response = RxResponse {
            id: 1,
            offset: 0,
            flags: RxFlags::default(),
            status: -1,
        };
        assert_eq!(bytes(response.to_words()), [1, 0, 0, 0, 0, 0, 0xff, 0xff]);

        let gso = Extra::Gso(Gso {
            size: 1448,
            kind: GsoKind::TcpV4,
        });
        let extra = RxSlotResponse::Extra(ExtraSlot {
            extra: gso,
            more: false,
        });
        assert_eq!(bytes(extra.to_words()), [1, 0, 0xa8, 0x05, 1, 0, 0, 0]);
    }

    #[test]
    fn golden_flags() {
        let bits = [
            RxFlags::DATA_VALIDATED,
            RxFlags::CSUM_BLANK,
            RxFlags::MORE_DATA,
            RxFlags::EXTRA_INFO,
        ]
        .map(RxFlags::bits);
        assert_eq!(bits, [1, 2, 4, 8]);
    }
}
