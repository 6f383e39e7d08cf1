// SPDX-License-Identifier: GPL-3.0-or-later
//! The bucket against a clock of the tests' own.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const SLOWEST: &str = "1,18446744073709551615";
/// As many bytes as can be written, in as little time.
const FASTEST: &str = "18446744073709551615,1";
/// 1 MB/s, and a burst that takes longer than the bucket can tell.
const LONGEST: &str = "18446744073709551615,18446744073709551615";

fn rate(text: &str) -> Rate {
    Rate::from_node(text).unwrap()
}

/// Sends frames of `len` bytes from `from` to `to`, sleeping as it is told, and returns their number.
fn sent(bucket: &Bucket, from: Instant, to: Instant, len: usize) -> u64 {
    let (mut now, mut frames) = (from, 0);
    loop {
        let meter = bucket.meter(|| now);
        match meter.blocked_until() {
            Some(at) if at >= to => return frames,
            Some(at) => {
                assert!(at > now, "a sleep ends in the future");
                now = at;
            }
            None => {
                meter.charge(len);
                frames += 1;
            }
        }
    }
}

#[test]
fn no_limit_asks_no_clock() {
    let start = Instant::now();
    let bucket = Bucket::new(None, start);
    let meter = bucket.meter(|| panic!("the clock was asked"));
    for _ in 0..1_000 {
        assert_eq!(meter.blocked_until(), None);
        meter.charge(65_535);
    }
}

/// A burst at once, and from then on the rate, whatever the frames' size.
#[test]
fn a_burst_and_then_the_rate() {
    // 1 MB/s in steps of 50 ms, as libxl writes "8Mb/s".
    for len in [60, 1_514, 65_535] {
        let start = Instant::now();
        let bucket = Bucket::new(Some(rate("50000,50000")), start);
        let at_once = sent(&bucket, start, start + Duration::from_nanos(1), len);
        let burst = BURST_BYTES.div_ceil(len as u64);
        assert!((burst..=burst + 1).contains(&at_once), "{len}: {at_once}");
        let seconds = 100;
        let end = start + Duration::from_secs(seconds);
        let bytes = sent(&bucket, start, end, len) * len as u64;
        let expected = seconds * 1_000_000;
        assert!(
            bytes.abs_diff(expected) <= 2 * 65_535,
            "{len}: {bytes} bytes"
        );
    }
}

#[test]
fn a_frame_larger_than_what_an_interval_brings_passes() {
    let start = Instant::now();
    let bucket = Bucket::new(Some(rate("100,50000")), start);
    let end = start + Duration::from_secs(3_600);
    let frames = sent(&bucket, start, end, 65_535);
    // 2000 bytes per second.
    assert!((110..=113).contains(&frames), "{frames}");
}

/// Nothing comes of time that passes without traffic, beyond a burst.
#[test]
fn an_idle_vif_saves_up_a_burst_and_no_more() {
    let start = Instant::now();
    let bucket = Bucket::new(Some(rate("50000,50000")), start);
    let later = start + Duration::from_secs(86_400);
    let bytes = sent(&bucket, later, later + Duration::from_nanos(1), 1_000) * 1_000;
    assert!(
        (BURST_BYTES..BURST_BYTES + 2_000).contains(&bytes),
        "{bytes}"
    );
}

/// With steps of 50 us, a worker that sleeps for whole milliseconds still gets the rate.
#[test]
fn a_late_riser_loses_nothing() {
    let start = Instant::now();
    // 10 Gbit/s.
    let bucket = Bucket::new(Some(rate("62500,50")), start);
    let (mut now, mut bytes) = (start, 0_u64);
    while now < start + Duration::from_secs(1) {
        let meter = bucket.meter(|| now);
        while meter.blocked_until().is_none() {
            meter.charge(1_514);
            bytes += 1_514;
        }
        now += Duration::from_millis(2);
    }
    let expected = 1_250_000_000_f64;
    assert!((bytes as f64 / expected - 1.0).abs() < 0.02, "{bytes}");
}

#[test]
fn queues_share_one_bucket() {
    let start = Instant::now();
    let bucket = Bucket::new(Some(rate("50000,50000")), start);
    let (one, other) = (bucket.meter(|| start), bucket.meter(|| start));
    one.charge(131_072);
    other.charge(1);
    assert!(one.blocked_until().is_some() && other.blocked_until().is_some());
}

/// The other worker has just had its round's time when this one's round is long under way.
#[test]
fn a_clock_that_is_behind_brings_no_more_than_the_limit() {
    for (gbit, behind) in [(1, 2), (1, 10), (5, 2), (5, 10), (10, 2), (10, 10)] {
        let start = Instant::now();
        let rate = Rate::from_config(&format!("{gbit}Gb/s")).unwrap();
        let bucket = Bucket::new(Some(rate), start);
        let (mut passed, mut sent) = (Duration::ZERO, 0);
        while passed < Duration::from_secs(1) {
            for lag in [0, behind].map(Duration::from_millis) {
                let meter = bucket.meter(|| start + passed.saturating_sub(lag));
                while meter.blocked_until().is_none() {
                    meter.charge(65_535);
                    sent += 65_535;
                }
            }
            passed += Duration::from_micros(100);
        }
        let limit = gbit * 125_000_000;
        let most = limit + rate.burst() + 2 * 65_535;
        assert!(
            (limit..=most).contains(&sent),
            "{gbit} Gbit/s, {behind} ms: {sent} of {most}"
        );
    }
}

#[test]
fn a_clock_that_is_behind_takes_no_charge_back() {
    let start = Instant::now();
    let bucket = Bucket::new(Some(rate("62500,50")), start);
    let old = bucket.meter(|| start);
    let new = bucket.meter(|| start + Duration::from_millis(900));
    while new.blocked_until().is_none() {
        new.charge(65_535);
    }
    let until = new.blocked_until();
    assert_eq!(old.blocked_until(), until);
    assert_eq!(new.blocked_until(), until);
    // It has seen the credit that the other has used up meanwhile.
    old.charge(65_535);
    assert!(new.blocked_until() > until);
}

/// All queues of a vif may see the last of the credit at once, and each send the largest frame.
#[test]
fn the_debt_of_all_queues_is_paid_in_full() {
    let start = Instant::now();
    let bucket = Bucket::new(Some(rate("50000,1000000")), start);
    let queues = [(); MAX_QUEUES as usize].map(|()| bucket.meter(|| start));
    queues[0].charge(131_072);
    assert!(queues.iter().all(|queue| queue.blocked_until().is_none()));
    for queue in &queues {
        queue.charge(FRAME_MAX);
    }
    let debt = Duration::from_micros(20 * u64::from(MAX_QUEUES) * FRAME_MAX as u64);
    assert_eq!(queues[0].blocked_until(), Some(start + debt));
}

#[test]
fn a_new_rate_begins_with_a_full_bucket() {
    let start = Instant::now();
    let bucket = Bucket::new(Some(rate("1,1000000")), start);
    bucket.meter(|| start).charge(600_000);
    let blocked = bucket.meter(|| start).blocked_until().unwrap();
    assert_eq!(
        blocked,
        start + SLEEP_MAX,
        "five days of debt, an hour's sleep"
    );
    let later = start + Duration::from_secs(1);
    bucket.set(Some(rate("50000,50000")));
    let meter = bucket.meter(|| later);
    assert_eq!(meter.blocked_until(), None);
    meter.charge(131_072 + 1_000);
    assert_eq!(
        meter.blocked_until(),
        Some(later + Duration::from_millis(1))
    );
    bucket.set(None);
    assert_eq!(bucket.meter(|| later).blocked_until(), None);
}

/// A worker that still charges at the old rate after the change cannot bring more than a bounded
/// debt, and that once.
#[test]
fn a_charge_at_the_old_rate_does_little_harm() {
    let start = Instant::now();
    let bucket = Bucket::new(Some(rate("1,1000000")), start);
    let old = bucket.meter(|| start);
    bucket.set(Some(rate("1000000,1000000")));
    for _ in 0..100 {
        old.charge(65_535);
    }
    let blocked = bucket.meter(|| start).blocked_until().unwrap();
    let debt = Duration::from_micros(DEBT_BYTES);
    assert_eq!(blocked, start + debt + CLOCKS_DIFFER);
    let end = blocked + Duration::from_secs(10);
    let frames = sent(&bucket, blocked, end, 1_000);
    assert!((10_000..=10_001).contains(&frames), "{frames}");
}

/// The ends of what can be written: each rate has its burst, and then what it says, as far as the
/// bucket can tell: the least is a byte in five hours.
#[test]
fn extreme_rates_are_kept_to() {
    let second = Duration::from_secs(1);
    for (text, burst, beyond, blocked) in [
        (SLOWEST, 131_072, 1, SLEEP_MAX),
        // 64 bits of the time for a byte are zeros.
        ("1,17592186044416", 131_072, 1, SLEEP_MAX),
        (FASTEST, usize::MAX, 1 << 30, Duration::from_nanos(1 << 10)),
        (LONGEST, usize::MAX, 1_000_000, second),
        ("1,1", 131_072, 1_000_000, second),
    ] {
        for seconds in [0, 1, 1 << 20, 1 << 30] {
            let start = Instant::now();
            let bucket = Bucket::new(Some(rate(text)), start);
            let now = start + Duration::from_secs(seconds);
            let meter = bucket.meter(|| now);
            meter.charge(burst);
            assert_eq!(meter.blocked_until(), None, "{text} after {seconds} s");
            meter.charge(beyond);
            let until = now + blocked;
            assert_eq!(
                meter.blocked_until(),
                Some(until),
                "{text} after {seconds} s"
            );
        }
    }
}

/// Queues that charge at once, also when the bucket is older than it can tell.
#[test]
fn no_sum_is_too_large() {
    let start = Instant::now();
    for text in [SLOWEST, FASTEST, LONGEST, "1,1"] {
        for seconds in [0, 1 << 33] {
            let bucket = Bucket::new(Some(rate(text)), start);
            let now = start.checked_add(Duration::from_secs(seconds)).unwrap();
            let meter = bucket.meter(|| now);
            let mut before = 0;
            for _ in 0..MAX_QUEUES {
                meter.charge(usize::MAX);
                let zero_at = bucket.zero_at.load(Relaxed);
                assert!(zero_at > before || zero_at == u64::MAX, "{text}");
                before = zero_at;
            }
            let until = meter.blocked_until().unwrap();
            assert!(until > start && until <= now + SLEEP_MAX, "{text}");
        }
    }
}

proptest! {
    /// Never more than the burst and the rate allow, plus the one frame that goes into debt.
    #[test]
    fn no_more_than_the_limit(
        bytes in 1_u64..1 << 32,
        micros in 1_u64..10_000_000,
        steps in proptest::collection::vec((0_u64..5_000_000, 1_usize..65_536), 1..200),
    ) {
        let start = Instant::now();
        let bucket = Bucket::new(Some(rate(&format!("{bytes},{micros}"))), start);
        let per_micro = bytes as f64 / micros as f64;
        let burst = (BURST_BYTES as f64).max(bytes as f64).max(per_micro * 10_000.0);
        let (mut passed, mut sent) = (0, 0_u64);
        for (pause, len) in steps {
            passed += pause;
            let now = start + Duration::from_micros(passed);
            let meter = bucket.meter(|| now);
            if meter.blocked_until().is_none() {
                meter.charge(len);
                sent += len as u64;
            }
        }
        let most = burst + per_micro * passed as f64 + 65_536.0;
        prop_assert!(sent as f64 <= most * 1.001, "{sent} of {most}");
    }
}
