// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ring and parser alone, on the clock: requests a second, beside rust-vmm's virtqueue.
//!
//! `tests/bench-ring`, or `cargo bench -p xen-ring --bench throughput`.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark: what cannot be ends it"
)]

mod rings;

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rings::{FULL, Netif, SEGMENTS, SMALL, Shape, Virtio};

fn rings(criterion: &mut Criterion) {
    for shape in [SMALL, FULL, SEGMENTS] {
        let pieces = u64::from(shape.packets) * shape.pieces.len() as u64;
        let mut group = criterion.benchmark_group(shape.name);
        group.throughput(Throughput::Elements(pieces));
        let mut netif = Some(Netif::new(shape));
        group.bench_function("netif", |bencher| {
            bencher.iter_custom(|times| {
                total(times, || {
                    let mut full = netif.take().expect("a ring").fill();
                    let time = timed(shape, || full.serve());
                    netif = Some(full);
                    time
                })
            });
        });
        let mut virtio = Some(Virtio::new(shape));
        group.bench_function("virtio", |bencher| {
            bencher.iter_custom(|times| {
                total(times, || {
                    let mut full = virtio.take().expect("a queue").fill();
                    let time = timed(shape, || full.serve());
                    virtio = Some(full);
                    time
                })
            });
        });
        group.finish();
    }
}

fn total(times: u64, mut once: impl FnMut() -> Duration) -> Duration {
    (0..times).map(|_| once()).sum()
}

/// Times one turn, and looks whether it did what it should.
fn timed(shape: Shape, serve: impl FnOnce() -> (usize, u64)) -> Duration {
    let start = Instant::now();
    let seen = serve();
    let time = start.elapsed();
    shape.check(seen);
    time
}

criterion_group!(benches, rings);
criterion_main!(benches);
