// SPDX-License-Identifier: GPL-3.0-or-later
//! A token bucket without tokens: it keeps the one moment at which the credit is nothing. GCRA (the
//! generic cell rate algorithm) calls that moment, `zero_at`, the theoretical arrival time; here it
//! stands earlier by the burst.
//!
//! Before that moment there is debt, after it credit that grows with time, up to a burst. One
//! atomic word holds it, so all queues of a vif share one bucket on whatever workers they live,
//! without a lock. A frame may go while there is no debt, and is charged then: so the largest
//! frame passes any limit, and the mean over time is the rate. Where there is no limit, a turn
//! costs one load and each frame one branch.
//!
//! The control thread sets the rate, at any time; queue pairs open a [`Meter`] for each turn.
//! The clock is the caller's, and may be behind that of another worker.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::negotiate::MAX_QUEUES;
use super::rate::Rate;
use super::workbench::FRAME_MAX;

/// Credit that is saved up at most, in bytes: as in Linux's netback, room for two of the largest
/// frames. Where the rate's own burst, or what [`BURST_TIME`] brings, is more, it is that.
const BURST_BYTES: u64 = 131_072;
/// A worker sleeps in milliseconds, and may wake late: what comes in meanwhile must not be lost.
const BURST_TIME: Duration = Duration::from_millis(10);
/// Debt at most, in bytes: a frame on each of a vif's queues, which may all have seen the last of
/// the credit at once.
const DEBT_BYTES: u64 = MAX_QUEUES as u64 * FRAME_MAX as u64;
/// No worker's clock is further behind another's: each is a round old at most.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);
/// Nobody sleeps longer for credit: the slowest rate is a byte in half a million years.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// Where the count of nanoseconds starts, so that there is a past to have saved credit in.
const ORIGIN: u64 = 1 << 62;
/// No span of time is longer, in nanoseconds (36 years): sums of two stay within 64 bits.
const SPAN_MAX: u64 = 1 << 60;
/// Parts of a nanosecond in which the time for a byte is kept: at 1 Tbit/s it is 8389 of them.
const FRACTION_BITS: u32 = 20;

/// The limit of one direction of one vif.
#[derive(Debug)]
pub struct Bucket {
    epoch: Instant,
    /// The time for a byte, in parts of a nanosecond; 0 is no limit.
    byte: AtomicU64,
    /// The time in which the largest credit comes in, in nanoseconds.
    burst: AtomicU64,
    /// When the credit is nothing, in nanoseconds, [`ORIGIN`] being the epoch.
    zero_at: AtomicU64,
}

/// The limits of a vif, shared by its queues.
#[derive(Debug)]
pub struct Limits {
    /// Of what the guest transmits.
    pub tx: Bucket,
    /// Of what it receives.
    pub rx: Bucket,
}

/// A bucket during one turn, at whose beginning time stands still. `None` is no limit.
#[derive(Debug, Clone, Copy)]
pub struct Meter<'a>(Option<Open<'a>>);

#[derive(Debug, Clone, Copy)]
struct Open<'a> {
    bucket: &'a Bucket,
    byte: u64,
    now: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Option<Rate>, now: Instant) -> Self {
        let bucket = Self {
            epoch: now,
            byte: AtomicU64::new(0),
            burst: AtomicU64::new(0),
            zero_at: AtomicU64::new(0),
        };
        bucket.set_pace(rate);
        bucket
    }

    /// Another rate, or none, from now on, with a full bucket. Queue pairs that wait for credit
    /// have to be told, or they wait as long as at the old rate.
    pub fn set(&self, rate: Option<Rate>) {
        self.set_pace(rate);
        self.zero_at.store(0, Relaxed);
    }

    fn set_pace(&self, rate: Option<Rate>) {
        let pace = rate.map(Pace::of).unwrap_or_default();
        self.burst.store(pace.burst, Relaxed);
        self.byte.store(pace.byte, Relaxed);
    }

    /// Opens the bucket for a turn. The clock is only asked if there is a limit.
    #[inline]
    pub fn meter(&self, now: impl FnOnce() -> Instant) -> Meter<'_> {
        let byte = self.byte.load(Relaxed);
        Meter((byte != 0).then(|| Open {
            bucket: self,
            byte,
            now: self.nanos(now()),
        }))
    }

    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        ORIGIN + u64::try_from(since.as_nanos()).map_or(SPAN_MAX, |nanos| nanos.min(SPAN_MAX))
    }
}

impl Meter<'_> {
    /// The moment from which a frame may go again; `None` if it may now.
    #[inline]
    pub fn blocked_until(&self) -> Option<Instant> {
        self.0.as_ref()?.blocked_until()
    }

    /// Charges a frame of `len` bytes that goes.
    #[inline]
    pub fn charge(&self, len: usize) {
        if let Some(open) = &self.0 {
            open.charge(len as u64);
        }
    }
}

impl Open<'_> {
    fn blocked_until(&self) -> Option<Instant> {
        let mut zero_at = self.bucket.zero_at.load(Relaxed);
        if zero_at <= self.now {
            return None;
        }
        let latest = self.latest();
        if zero_at > latest {
            // Charged at a slower rate, by a turn in which the rate was changed.
            self.bucket.zero_at.fetch_min(latest, Relaxed);
            zero_at = latest;
        }
        let debt = zero_at - self.now;
        let at =
            Duration::from_nanos(self.now - ORIGIN) + Duration::from_nanos(debt).min(SLEEP_MAX);
        Some(self.bucket.epoch + at)
    }

    fn charge(&self, bytes: u64) {
        let earliest = self.now - self.bucket.burst.load(Relaxed);
        let cost = span(bytes, self.byte);
        let charged = |zero_at: u64| Some(zero_at.max(earliest).saturating_add(cost));
        // The closure never declines, so there is no error to speak of.
        let _previous = self.bucket.zero_at.fetch_update(Relaxed, Relaxed, charged);
    }

    /// The moment at which the largest debt is paid, by whichever worker's clock: with an earlier
    /// one, a worker whose clock is behind would give the others back what they were charged.
    fn latest(&self) -> u64 {
        let differ = u64::try_from(CLOCKS_DIFFER.as_nanos()).unwrap_or(SPAN_MAX);
        self.now + span(DEBT_BYTES, self.byte) + differ
    }
}

/// A rate as the bucket keeps it.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    byte: u64,
    burst: u64,
}

impl Pace {
    fn of(rate: Rate) -> Self {
        let parts = (u128::from(rate.micros()) * 1_000) << FRACTION_BITS;
        let byte = u64::try_from(parts / u128::from(rate.bytes())).unwrap_or(u64::MAX);
        let byte = byte.max(1);
        let least = BURST_TIME.as_nanos().try_into().unwrap_or(SPAN_MAX);
        let burst = span(rate.burst().max(BURST_BYTES), byte).max(least);
        Self { byte, burst }
    }
}

/// The time for so many bytes, in nanoseconds.
fn span(bytes: u64, byte: u64) -> u64 {
    let parts = u128::from(bytes) * u128::from(byte);
    u64::try_from(parts >> FRACTION_BITS).map_or(SPAN_MAX, |nanos| nanos.min(SPAN_MAX))
}

#[cfg(test)]
mod tests;
