// SPDX-License-Identifier: GPL-3.0-or-later
//! The byte stream that both sides of a TCP test know: byte n is n modulo 251.
//!
//! 251 is prime, so no loss, repetition or exchange of segments, pages or slots (all of rounder sizes) can
//! leave the stream as it was. Both the guest's servers and the host's probes use it.

const PERIOD: usize = 251;
/// Whole periods, a little more than one TCP segment's worth of data per step.
const TABLE_LEN: usize = PERIOD * 64;

static TABLE: [u8; TABLE_LEN] = table();

const fn table() -> [u8; TABLE_LEN] {
    let mut bytes = [0; TABLE_LEN];
    let mut at = 0;
    while at < TABLE_LEN {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the remainder is below 251"
        )]
        #[expect(
            clippy::indexing_slicing,
            reason = "evaluated at compile time, bounded by the loop"
        )]
        {
            bytes[at] = (at % PERIOD) as u8;
        }
        at += 1;
    }
    bytes
}

/// The longest ready-made piece of the stream that starts at byte `position`; never empty.
#[must_use]
pub fn from(position: u64) -> &'static [u8] {
    let start = usize::try_from(position % PERIOD as u64).unwrap_or(0);
    TABLE.get(start..).unwrap_or(&TABLE)
}

/// Writes the stream from byte `position` on into all of `out`.
pub fn fill(position: u64, out: &mut [u8]) {
    let mut at = position;
    let mut rest = out;
    while !rest.is_empty() {
        let piece = from(at);
        let len = piece.len().min(rest.len());
        let (now, later) = rest.split_at_mut(len);
        now.copy_from_slice(piece.get(..len).unwrap_or_default());
        at += len as u64;
        rest = later;
    }
}

/// Whether `bytes` are what the stream holds from byte `position` on.
#[must_use]
pub fn matches(position: u64, bytes: &[u8]) -> bool {
    let mut at = position;
    let mut rest = bytes;
    while !rest.is_empty() {
        let piece = from(at);
        let len = piece.len().min(rest.len());
        let (now, later) = rest.split_at(len);
        if piece.get(..len) != Some(now) {
            return false;
        }
        at += len as u64;
        rest = later;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_same_in_whatever_pieces() {
        let mut whole = vec![0; 70_000];
        fill(12_345, &mut whole);
        for (n, byte) in whole.iter().enumerate() {
            assert_eq!(u64::from(*byte), (12_345 + n as u64) % 251);
        }
        assert!(matches(12_345, &whole));
        assert!(matches(12_345 + 1_000, &whole[1_000..]));
        assert!(!matches(12_346, &whole));
        whole[69_999] ^= 1;
        assert!(!matches(12_345, &whole));
    }
}
