// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's virtqueue, and rust-vmm's device end of it.

use std::hint::black_box;

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::Shape;

const SIZE: u16 = 256;
const NEXT: u16 = 1;
/// Where things are: 16 bytes a descriptor; flags, index and 2 bytes a chain; flags, index and 8 bytes a chain.
const TABLE: u64 = 0x1000;
const AVAIL: u64 = 0x3000;
const USED: u64 = 0x4000;
const DATA: u64 = 0x10000;
const PAGE: u64 = 4096;

/// Both ends of a queue.
pub(crate) struct Virtio {
    memory: GuestMemoryMmap,
    queue: Queue,
    shape: Shape,
    avail: u16,
}

impl Virtio {
    /// A queue without packets. Its descriptors are written once: a device does not change them.
    pub(crate) fn new(shape: Shape) -> Self {
        let bytes = usize::try_from(DATA + PAGE * u64::from(SIZE)).expect("a megabyte");
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)]).expect("memory");
        let mut queue = Queue::new(SIZE).expect("a size that may be");
        queue.set_size(SIZE);
        queue
            .try_set_desc_table_address(GuestAddress(TABLE))
            .expect("aligned");
        queue
            .try_set_avail_ring_address(GuestAddress(AVAIL))
            .expect("aligned");
        queue
            .try_set_used_ring_address(GuestAddress(USED))
            .expect("aligned");
        queue.set_event_idx(true);
        queue.set_ready(true);
        assert!(queue.is_valid(&memory));
        let virtio = Self {
            memory,
            queue,
            shape,
            avail: 0,
        };
        for packet in 0..shape.packets {
            virtio.describe(packet);
        }
        virtio
    }

    fn pieces(&self) -> u16 {
        u16::try_from(self.shape.pieces.len()).expect("few pieces")
    }

    fn describe(&self, packet: u16) {
        let head = packet * self.pieces();
        for (at, size) in (head..).zip(self.shape.pieces) {
            let more = at + 1 < head + self.pieces();
            let (flags, next) = if more { (NEXT, at + 1) } else { (0, 0) };
            let address = DATA + PAGE * u64::from(at);
            let descriptor = Descriptor::new(address, u32::from(*size), flags, next);
            let place = GuestAddress(TABLE + 16 * u64::from(at));
            self.memory
                .write_obj(RawDescriptor::from(descriptor), place)
                .expect("in the table");
        }
    }

    /// The guest makes every packet available (again).
    pub(crate) fn fill(mut self) -> Self {
        for packet in 0..self.shape.packets {
            let place = AVAIL + 4 + 2 * u64::from(self.avail % SIZE);
            let head = packet * self.pieces();
            self.memory
                .write_obj(head, GuestAddress(place))
                .expect("in the ring");
            self.avail = self.avail.wrapping_add(1);
        }
        self.memory
            .write_obj(self.avail, GuestAddress(AVAIL + 2))
            .expect("in the ring");
        self
    }

    /// The device's turn. Returns the number of packets, and their bytes.
    #[inline]
    pub(crate) fn serve(&mut self) -> (usize, u64) {
        let (mut packets, mut bytes) = (0, 0);
        while let Some(chain) = self.queue.pop_descriptor_chain(&self.memory) {
            let head = chain.head_index();
            for descriptor in chain {
                bytes += u64::from(black_box(descriptor).len());
            }
            self.queue
                .add_used(&self.memory, head, 0)
                .expect("a sound queue");
            packets += 1;
        }
        black_box(
            self.queue
                .needs_notification(&self.memory)
                .expect("a sound queue"),
        );
        (packets, bytes)
    }
}
