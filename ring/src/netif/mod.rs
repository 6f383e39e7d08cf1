// SPDX-License-Identifier: MIT OR Apache-2.0
//! The netif wire format (Xen's public header `io/netif.h`): what the slots of its rings mean.
//!
//! One family of messages per file. A raw slot is a private copy of what the guest wrote; it has
//! no meaning of its own, since the same bytes are a request or an extra info depending on the
//! slots before. [`packet`] reads a run of transmit slots as one validated packet.
//!
//! "tx" and "rx" are the guest's. Beware that the checksum flags have swapped bits in the two
//! directions; [`TxFlags`] and [`RxFlags`] are therefore different types.

mod ctrl;
mod extra;
mod flags;
pub mod packet;
mod rx;
mod takeover;
mod tx;

pub use ctrl::{CtrlRequest, CtrlResponse, CtrlRing, CtrlStatus, GrefEntry};
pub use extra::{Extra, ExtraSlot, Gso, GsoKind};
pub use packet::{
    DropReason, Fragment, Multicast, TxCsum, TxLimits, TxPacket, Verdict, next_packet,
};
pub use rx::{RxFlags, RxRequest, RxResponse, RxRing, RxSlotResponse};
pub use tx::{Status, TxFlags, TxRequest, TxResponse, TxRing, TxSlot};

/// The two 16-bit fields of a word, the lower address first.
const fn halves(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_le_bytes();
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}

/// The word that has these 16-bit fields, the lower address first.
const fn word(low: u16, high: u16) -> u32 {
    let ([a, b], [c, d]) = (low.to_le_bytes(), high.to_le_bytes());
    u32::from_le_bytes([a, b, c, d])
}
