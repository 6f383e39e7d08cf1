// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ring and parser alone, in instructions: the same turns as in `throughput`, in figures that can be compared between
//! machines and commits.
//!
//! `tests/bench-ring`, which brings what it takes: valgrind, and gungraun's runner of the version in Cargo.lock.
#![allow(
    missing_docs,
    clippy::exit,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark: what cannot be ends it"
)]

mod rings;

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use rings::{FULL, Netif, SEGMENTS, SMALL, Shape, Virtio};

/// The second filling: the first one finds the processor's caches, and the allocator, untouched.
fn full_netif(shape: Shape) -> Netif {
    let mut ring = Netif::new(shape).fill();
    shape.check(ring.serve());
    ring.fill()
}

fn full_virtio(shape: Shape) -> Virtio {
    let mut queue = Virtio::new(shape).fill();
    shape.check(queue.serve());
    queue.fill()
}

#[library_benchmark(setup = full_netif)]
#[bench::b64(SMALL)]
#[bench::b1514(FULL)]
#[bench::gso(SEGMENTS)]
fn netif(mut ring: Netif) -> Netif {
    black_box(ring.serve());
    ring
}

#[library_benchmark(setup = full_virtio)]
#[bench::b64(SMALL)]
#[bench::b1514(FULL)]
#[bench::gso(SEGMENTS)]
fn virtio(mut queue: Virtio) -> Virtio {
    black_box(queue.serve());
    queue
}

library_benchmark_group!(name = full_rings, benchmarks = [netif, virtio]);
main!(library_benchmark_groups = full_rings);
