// SPDX-License-Identifier: GPL-3.0-or-later
//! The states of a xenbus device, as the `state` nodes of both ends carry them.
//!
//! The numbers are those of Xen's public header `io/xenbus.h`. Reading is strict
//! about the number and lenient about blanks around it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The value of a `state` node (`enum xenbus_state` in Xen's `io/xenbus.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum XenbusState {
    /// 0: no state; an absent node means the same.
    Unknown = 0,
    /// 1: the end is starting.
    Initialising = 1,
    /// 2: the backend has published its features and waits for the frontend.
    InitWait = 2,
    /// 3: a frontend has published its details (not used by network frontends).
    Initialised = 3,
    /// 4: rings are shared and in use.
    Connected = 4,
    /// 5: the end is going away.
    Closing = 5,
    /// 6: the end holds nothing of the other any more.
    Closed = 6,
    /// 7: a connected frontend asks the backend to read its keys again.
    Reconfiguring = 7,
    /// 8: the backend has done so.
    Reconfigured = 8,
}

impl XenbusState {
    /// Every state, by number.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// The text of the `state` node: one decimal digit.
    pub const fn node(self) -> &'static str {
        match self {
            Self::Unknown => "0",
            Self::Initialising => "1",
            Self::InitWait => "2",
            Self::Initialised => "3",
            Self::Connected => "4",
            Self::Closing => "5",
            Self::Closed => "6",
            Self::Reconfiguring => "7",
            Self::Reconfigured => "8",
        }
    }

    /// The name of the state, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Initialising => "Initialising",
            Self::InitWait => "InitWait",
            Self::Initialised => "Initialised",
            Self::Connected => "Connected",
            Self::Closing => "Closing",
            Self::Closed => "Closed",
            Self::Reconfiguring => "Reconfiguring",
            Self::Reconfigured => "Reconfigured",
        }
    }
}

impl fmt::Display for XenbusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A `state` node that holds no xenbus state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a xenbus state (a number from 0 to 8)")]
pub struct StateError {
    /// What the node held, cut to a printable length.
    pub text: String,
}

impl FromStr for XenbusState {
    type Err = StateError;

    /// Parses the text of a `state` node. Blanks and NULs around the number are
    /// accepted, because some toolstacks leave them there.
    fn from_str(text: &str) -> Result<Self, StateError> {
        let digits = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0');
        Self::ALL
            .into_iter()
            .find(|state| state.node() == digits)
            .ok_or_else(|| StateError {
                text: text.chars().take(32).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_its_state_and_nothing_else_is() {
        for (number, state) in XenbusState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(state.node(), number.to_string());
            assert_eq!(number.to_string().parse(), Ok(state));
        }
        assert_eq!(" 4\n\0".parse(), Ok(XenbusState::Connected));
        for bad in ["", "9", "-1", "04", "4x", "Connected", "4294967300", "١"] {
            assert!(bad.parse::<XenbusState>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_error_is_short_and_escaped() {
        let error = "\u{1b}[31m"
            .repeat(1000)
            .parse::<XenbusState>()
            .unwrap_err();
        assert!(error.to_string().len() < 400);
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
