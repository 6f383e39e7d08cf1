// SPDX-License-Identifier: GPL-3.0-or-later
//! Permissions of a xenstore node, as GET_PERMS and SET_PERMS carry them.
//!
//! A node has a list: the first entry names its owner and what everybody else may
//! do, the others name exceptions (xenstore.txt, "Permissions").

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::path::decimal;

/// What a domain may do with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// `n`: nothing.
    None,
    /// `r`: read.
    Read,
    /// `w`: write.
    Write,
    /// `b`: both.
    Both,
}

impl Access {
    /// The access that a letter stands for.
    const LETTERS: [(char, Self); 4] = [
        ('n', Self::None),
        ('r', Self::Read),
        ('w', Self::Write),
        ('b', Self::Both),
    ];

    /// Whether reading is allowed.
    pub const fn can_read(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether writing is allowed.
    pub const fn can_write(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }
}

/// One entry of a permission list: `n0`, `r1`, `b2`, `w3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Perm {
    /// What is allowed.
    pub access: Access,
    /// To whom; in the first entry: the owner.
    pub dom: u16,
}

impl Perm {
    /// An entry.
    pub const fn new(access: Access, dom: u16) -> Self {
        Self { access, dom }
    }
}

impl fmt::Display for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.access {
            Access::None => 'n',
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Both => 'b',
        };
        write!(f, "{letter}{}", self.dom)
    }
}

/// A text that is not a permission entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a permission (n, r, w or b followed by a domain number)")]
pub struct PermError {
    /// The text.
    pub text: String,
}

impl FromStr for Perm {
    type Err = PermError;

    fn from_str(text: &str) -> Result<Self, PermError> {
        let parse = || {
            let letter = text.chars().next()?;
            let (_, access) = Access::LETTERS.into_iter().find(|(l, _)| *l == letter)?;
            let dom = u16::try_from(decimal(text.get(1..)?)?).ok()?;
            Some(Self { access, dom })
        };
        parse().ok_or_else(|| PermError {
            text: text.chars().take(32).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_as_they_are_written() {
        for text in ["n0", "r1", "b2", "w32751"] {
            assert_eq!(text.parse::<Perm>().unwrap().to_string(), text);
        }
        for bad in ["", "n", "x1", "r-1", "r1 ", "r65536", "é1"] {
            assert!(bad.parse::<Perm>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn letters_allow_what_they_say() {
        let may = |text: &str| {
            let access = text.parse::<Perm>().unwrap().access;
            (access.can_read(), access.can_write())
        };
        assert_eq!(may("n1"), (false, false));
        assert_eq!(may("r1"), (true, false));
        assert_eq!(may("w1"), (false, true));
        assert_eq!(may("b1"), (true, true));
    }
}
