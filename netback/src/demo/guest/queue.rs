// SPDX-License-Identifier: GPL-3.0-or-later
//! The model frontend's data path: a tx ring with pages to send from, an rx ring with pages to receive into.
//!
//! Every page stays granted for as long as the queue lives, so sending and receiving are copies and ring slots.
//! What a backend may not do is noticed and counted: an answer to a request that was not made, a received slot
//! that leaves its page, a packet that ends before it is complete, a checksum that is not as the flags say.

mod rx;
mod tx;

use xen_ring::front::{FrontKind, FrontTx};

pub use rx::{Received, RxQueue};
pub use tx::{MulticastChange, TxFull, TxMeta, TxQueue};

/// Slots of either ring, and ids of either kind.
const SLOTS: usize = FrontTx::COUNT as usize;
/// Violations that are kept word for word.
const VIOLATIONS_KEPT: usize = 16;

/// What a frontend has seen since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontStats {
    /// Tx responses by status: okay.
    pub tx_okay: u64,
    /// Tx responses by status: error.
    pub tx_error: u64,
    /// Tx responses by status: dropped.
    pub tx_dropped: u64,
    /// Tx responses to extra infos.
    pub tx_null: u64,
    /// Frames sent that stand for many segments.
    pub tx_gso: u64,
    /// Of them, those over IPv6.
    pub tx_gso_v6: u64,
    /// Good frames received.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Of them, those with a blank checksum.
    pub rx_blank: u64,
    /// Of those, the ones over IPv6.
    pub rx_blank_v6: u64,
    /// Of them, those with a checked checksum.
    pub rx_validated: u64,
    /// Of them, those that are to be read as many segments.
    pub rx_gso: u64,
    /// Of those, the ones over IPv6.
    pub rx_gso_v6: u64,
    /// Of them, those that came with a hash.
    pub rx_hashed: u64,
    /// Of them, those with XDP headroom before them.
    pub rx_xdp: u64,
    /// Most slots of one received frame.
    pub rx_slots_max: u32,
    /// Frames whose slots carried an error status.
    pub rx_errors: u64,
    /// Frames whose checksum field is not what the flags promise. Of frames that the flags call complete, these
    /// may have been wrong on the wire already.
    pub checksum_mismatches: u64,
    /// Frames by queue pair, of as many as there have been at most.
    pub by_queue: Vec<QueueFrames>,
    /// How often the backend broke the protocol, and the first few in words.
    pub violations: Violations,
}

/// What went through one queue pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueFrames {
    /// Frames put into the tx ring.
    pub tx_frames: u64,
    /// Good frames received.
    pub rx_frames: u64,
}

impl FrontStats {
    /// Those by queue pair, of `count` at least.
    pub(super) fn queues(&mut self, count: usize) -> &mut [QueueFrames] {
        let len = self.by_queue.len().max(count);
        self.by_queue.resize(len, QueueFrames::default());
        &mut self.by_queue
    }
}

/// What no correct backend does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations {
    /// How many.
    pub count: u64,
    /// The first ones.
    pub first: Vec<String>,
}

impl Violations {
    pub(super) fn add(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < VIOLATIONS_KEPT {
            self.first.push(text());
        }
    }
}
