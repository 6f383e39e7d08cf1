// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two full rings of the same packets: ours, and rust-vmm's virtqueue.
//!
//! What is measured is the backend's turn on a full ring, without a byte of data moved: learn what is there, read and
//! judge every packet, look at every piece of it, answer, publish, and ask whether the guest wants to be notified. The
//! guest's part (`fill`) is not measured.

mod netif;
mod virtio;

pub(crate) use netif::Netif;
pub(crate) use virtio::Virtio;

/// A packet, by the sizes of its pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// For the report.
    pub(crate) name: &'static str,
    /// Bytes in each slot or descriptor.
    pub(crate) pieces: &'static [u16],
    /// Packets in a full ring of either kind. (A packet to be segmented takes one slot more on a netif ring.)
    pub(crate) packets: u16,
}

const PAGE: u16 = 4096;

/// 64 bytes.
pub(crate) const SMALL: Shape = Shape {
    name: "64 B",
    pieces: &[64],
    packets: 256,
};
/// 1514 bytes.
pub(crate) const FULL: Shape = Shape {
    name: "1514 B",
    pieces: &[1514],
    packets: 256,
};
/// 65226 bytes: 66 of headers, 45 TCP segments of 1448.
pub(crate) const SEGMENTS: Shape = Shape {
    name: "64 KB GSO",
    pieces: &[
        66, PAGE, PAGE, PAGE, PAGE, PAGE, PAGE, PAGE, PAGE, PAGE, PAGE, PAGE, PAGE, PAGE, PAGE,
        PAGE, 3720,
    ],
    packets: 14,
};

impl Shape {
    /// Whether a turn on a full ring has seen every packet, and every byte of each.
    pub(crate) fn check(&self, (packets, bytes): (usize, u64)) {
        let size: u64 = self.pieces.iter().map(|piece| u64::from(*piece)).sum();
        assert_eq!(packets, usize::from(self.packets), "{}", self.name);
        assert_eq!(bytes, u64::from(self.packets) * size, "{}", self.name);
    }
}
