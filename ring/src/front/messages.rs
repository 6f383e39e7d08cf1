// SPDX-License-Identifier: MIT OR Apache-2.0
//! The netif messages as a guest sees them, laid out a second time from the protocol's tables.
//!
//! Plain numbers on purpose: a guest may write anything.

use super::FrontKind;
use crate::page::Page;

/// Flags of a tx request, as `XEN_NETTXF_*` in netif.h numbers them.
pub mod tx_flags {
    /// The checksum holds the pseudo-header's sum only.
    pub const CSUM_BLANK: u16 = 1;
    /// The data has been checked.
    pub const DATA_VALIDATED: u16 = 2;
    /// The packet goes on in the next slot.
    pub const MORE_DATA: u16 = 4;
    /// An extra info is in the next slot.
    pub const EXTRA_INFO: u16 = 8;
}

/// Flags of an rx response, as `XEN_NETRXF_*` in netif.h numbers them: the first two the other way round.
pub mod rx_flags {
    /// The data has been checked.
    pub const DATA_VALIDATED: u16 = 1;
    /// The checksum holds the pseudo-header's sum only.
    pub const CSUM_BLANK: u16 = 2;
    /// The packet goes on in the next slot.
    pub const MORE_DATA: u16 = 4;
    /// An extra info is in the next slot.
    pub const EXTRA_INFO: u16 = 8;
}

/// The ring by which the guest sends: 256 slots of 12 bytes.
#[derive(Clone, Copy, Debug)]
pub enum FrontTx {}

/// The ring by which the guest receives: 256 slots of 8 bytes.
#[derive(Clone, Copy, Debug)]
pub enum FrontRx {}

/// The ring by which the guest configures its backend: 128 slots of 16 bytes.
#[derive(Clone, Copy, Debug)]
pub enum FrontCtrl {}

/// gref u32 @0, offset u16 @4, flags u16 @6, id u16 @8, size u16 @10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FrontTxRequest {
    /// Page with the data.
    pub gref: u32,
    /// Start within the page.
    pub offset: u16,
    /// Of [`tx_flags`].
    pub flags: u16,
    /// Echoed in the response.
    pub id: u16,
    /// First slot: of the whole packet. Later slots: their own.
    pub size: u16,
}

/// type u8 @0, flags u8 @1, body @2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FrontExtra {
    /// 1 GSO, 2 and 3 multicast, 4 hash, 5 XDP.
    pub kind: u8,
    /// 1: another extra follows.
    pub flags: u8,
    /// By type.
    pub body: [u8; 6],
}

/// What a guest can put into a slot of its transmit ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontTxSlot {
    /// A request.
    Request(FrontTxRequest),
    /// An extra info; the last 4 bytes of the slot keep what they had.
    Extra(FrontExtra),
    /// Anything.
    Raw([u32; 3]),
}

/// id u16 @0, status i16 @2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontTxResponse {
    /// Of the request.
    pub id: u16,
    /// -2 dropped, -1 error, 0 okay, 1 null.
    pub status: i16,
}

/// id u16 @0, padding @2, gref u32 @4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FrontRxRequest {
    /// Echoed in the response.
    pub id: u16,
    /// The empty page.
    pub gref: u32,
}

/// id u16 @0, offset u16 @2, flags u16 @4, status i16 @6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontRxResponse {
    /// Of the request.
    pub id: u16,
    /// Start within the page.
    pub offset: u16,
    /// Of [`rx_flags`].
    pub flags: u16,
    /// Bytes, or a negative error.
    pub status: i16,
}

/// id u16 @0, type u16 @2, three u32 @4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FrontCtrlRequest {
    /// Echoed in the response.
    pub id: u16,
    /// 1 to 7 hash, 8 to 10 static grants.
    pub kind: u16,
    /// By type.
    pub data: [u32; 3],
}

/// id u16 @0, type u16 @2, status u32 @4, data u32 @8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontCtrlResponse {
    /// Of the request.
    pub id: u16,
    /// Of the request.
    pub kind: u16,
    /// 0 success, 1 not supported, 2 invalid parameter, 3 buffer overflow.
    pub status: u32,
    /// By type.
    pub data: u32,
}

/// A slot of the receive ring as the backend left it: a response or an extra info, which only the
/// slots before it tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontRxSlot(pub [u32; 2]);

impl FrontRxSlot {
    /// Read as a response.
    #[must_use]
    pub const fn as_response(self) -> FrontRxResponse {
        let [a, b] = self.0;
        FrontRxResponse {
            id: low(a),
            offset: high(a),
            flags: low(b),
            status: high(b).cast_signed(),
        }
    }

    /// Read as an extra info.
    #[must_use]
    pub const fn as_extra(self) -> FrontExtra {
        let [a, b] = self.0;
        let ([kind, flags, x0, x1], [x2, x3, x4, x5]) = (a.to_le_bytes(), b.to_le_bytes());
        FrontExtra {
            kind,
            flags,
            body: [x0, x1, x2, x3, x4, x5],
        }
    }
}

impl FrontKind for FrontTx {
    type Request = FrontTxSlot;
    type Response = FrontTxResponse;
    const STRIDE: usize = 12;
    const COUNT: u32 = 256;

    fn put<P: Page>(page: &P, offset: usize, slot: FrontTxSlot) {
        match slot {
            FrontTxSlot::Request(r) => {
                let words = [r.gref, join(r.offset, r.flags), join(r.id, r.size)];
                page.write_words(offset, words);
            }
            FrontTxSlot::Extra(e) => {
                let [x0, x1, x2, x3, x4, x5] = e.body;
                let first = u32::from_le_bytes([e.kind, e.flags, x0, x1]);
                page.write_words(offset, [first, u32::from_le_bytes([x2, x3, x4, x5])]);
            }
            FrontTxSlot::Raw(words) => page.write_words(offset, words),
        }
    }

    fn get<P: Page>(page: &P, offset: usize) -> FrontTxResponse {
        let [word] = page.read_words(offset);
        FrontTxResponse {
            id: low(word),
            status: high(word).cast_signed(),
        }
    }
}

impl FrontKind for FrontRx {
    type Request = FrontRxRequest;
    type Response = FrontRxSlot;
    const STRIDE: usize = 8;
    const COUNT: u32 = 256;

    fn put<P: Page>(page: &P, offset: usize, request: FrontRxRequest) {
        // As Linux does: what stands in the two bytes between them stays.
        let [old] = page.read_words(offset);
        page.write_words(
            offset,
            [old & 0xffff_0000 | u32::from(request.id), request.gref],
        );
    }

    fn get<P: Page>(page: &P, offset: usize) -> FrontRxSlot {
        FrontRxSlot(page.read_words(offset))
    }
}

impl FrontKind for FrontCtrl {
    type Request = FrontCtrlRequest;
    type Response = FrontCtrlResponse;
    const STRIDE: usize = 16;
    const COUNT: u32 = 128;

    fn put<P: Page>(page: &P, offset: usize, request: FrontCtrlRequest) {
        let [a, b, c] = request.data;
        page.write_words(offset, [join(request.id, request.kind), a, b, c]);
    }

    fn get<P: Page>(page: &P, offset: usize) -> FrontCtrlResponse {
        let [first, status, data] = page.read_words(offset);
        FrontCtrlResponse {
            id: low(first),
            kind: high(first),
            status,
            data,
        }
    }
}

const fn low(word: u32) -> u16 {
    let [a, b, _, _] = word.to_le_bytes();
    u16::from_le_bytes([a, b])
}

const fn high(word: u32) -> u16 {
    let [_, _, c, d] = word.to_le_bytes();
    u16::from_le_bytes([c, d])
}

fn join(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}
