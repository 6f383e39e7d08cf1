// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the flags of both directions have in common: everything but their bits, two of which are
//! swapped (so they are two types, and neither is ever taken for the other).

/// Makes a set of flags of a type that holds their bits.
macro_rules! flag_set {
    ($name:ident) => {
        impl $name {
            /// The flags with these bits; unknown ones are kept and mean nothing.
            #[must_use]
            pub const fn new(bits: u16) -> Self {
                Self(bits)
            }

            /// The bits.
            #[must_use]
            pub const fn bits(self) -> u16 {
                self.0
            }

            /// Both sets together.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether all of `other` is set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
        }
    };
}

pub(super) use flag_set;
