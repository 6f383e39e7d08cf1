// SPDX-License-Identifier: MIT OR Apache-2.0
//! The free-running ring index: a `u32` that only ever grows and wraps at 2^32.
//!
//! Two indices are never compared with `<`: only their distance has a meaning, and only as long
//! as it is at most the ring's size. The slot of an index is its low bits. The newtype makes the
//! wrong comparison impossible to write.

use std::fmt;

/// A position in the endless sequence of requests (or of responses) of one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Index(u32);

impl Index {
    /// The index with this raw value, for example one read from the shared page.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The value as the shared page holds it.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The index `count` steps later.
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// How many steps lead from `earlier` to `self`. An `earlier` that is in truth later gives a
    /// huge number, which the callers' bounds reject.
    #[must_use]
    pub const fn distance_from(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The ring slot of this index in a ring of `slots` slots, which must be a power of two.
    #[must_use]
    pub const fn slot(self, slots: u32) -> usize {
        // Lossless: u32 always fits in usize on the targets of this crate (see `layout`).
        (self.0 & slots.wrapping_sub(1)) as usize
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Index;
    use proptest::prelude::*;

    #[test]
    fn wraps_at_the_end_of_u32() {
        let last = Index::new(u32::MAX);
        assert_eq!(last.slot(256), 255);
        assert_eq!(last.plus(1), Index::new(0));
        assert_eq!(last.plus(1).slot(256), 0);
        assert_eq!(last.plus(3).distance_from(last), 3);
        assert_eq!(last.distance_from(last.plus(1)), u32::MAX);
    }

    proptest! {
        #[test]
        fn distance_undoes_plus(start: u32, step: u32) {
            let start = Index::new(start);
            prop_assert_eq!(start.plus(step).distance_from(start), step);
        }

        #[test]
        fn neighbours_have_neighbouring_slots(start: u32, bits in 0u32..10) {
            let slots = 1u32 << bits;
            let start = Index::new(start);
            prop_assert!(start.slot(slots) < slots as usize);
            prop_assert_eq!((start.slot(slots) + 1) % slots as usize, start.plus(1).slot(slots));
        }
    }
}
