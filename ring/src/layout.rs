// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things lie in a shared ring page (Xen's public header `io/ring.h`, and `io/netif.h` for
//! the slot sizes).
//!
//! The back end reads these constants. The front end of [`crate::front`] has its own copy, written
//! down independently, so that an error here cannot cancel out in tests.

/// Bytes in a page: of every ring, and of every grant.
pub const PAGE_SIZE: usize = 4096;

/// Byte offset of the frontend's producer index.
pub const REQ_PROD: usize = 0;
/// Byte offset of the request index at which the backend wants an event.
pub const REQ_EVENT: usize = 4;
/// Byte offset of the backend's producer index.
pub const RSP_PROD: usize = 8;
/// Byte offset of the response index at which the frontend wants an event.
pub const RSP_EVENT: usize = 12;
/// Byte offset of the first slot; what lies between is private or padding.
pub const FIRST_SLOT: usize = 64;

/// A slot of the guest's transmit ring: the request's 12 bytes (the response has 4).
pub const TX_SLOT_BYTES: usize = 12;
/// A slot of the guest's receive ring: request and response have 8 bytes each.
pub const RX_SLOT_BYTES: usize = 8;
/// A slot of the control ring: the request's 16 bytes (the response has 12).
pub const CTRL_SLOT_BYTES: usize = 16;

/// How many slots of this size a one-page ring has: the largest power of two that fits.
#[must_use]
pub const fn slots_in_page(slot_bytes: usize) -> u32 {
    let fit = (PAGE_SIZE - FIRST_SLOT) / slot_bytes;
    // Lossless: at most 4032. `fit` is not 0 for any slot that fits in the page at all.
    1 << fit.ilog2()
}

/// Slots of the guest's transmit ring.
pub const TX_SLOTS: u32 = slots_in_page(TX_SLOT_BYTES);
/// Slots of the guest's receive ring.
pub const RX_SLOTS: u32 = slots_in_page(RX_SLOT_BYTES);
/// Slots of the control ring.
pub const CTRL_SLOTS: u32 = slots_in_page(CTRL_SLOT_BYTES);

const _: () = {
    assert!(TX_SLOTS == 256 && RX_SLOTS == 256);
    assert!(CTRL_SLOTS == 128);
    assert!(FIRST_SLOT + TX_SLOTS as usize * TX_SLOT_BYTES <= PAGE_SIZE);
    assert!(FIRST_SLOT + RX_SLOTS as usize * RX_SLOT_BYTES <= PAGE_SIZE);
    assert!(TX_SLOT_BYTES.is_multiple_of(4) && RX_SLOT_BYTES.is_multiple_of(4));
    assert!(usize::BITS >= 32, "an index must fit in usize");
};

#[cfg(target_endian = "big")]
compile_error!("the netif wire format is little endian and is read in place");
