// SPDX-License-Identifier: GPL-3.0-or-later
//! The codec of xenstore's wire protocol (Xen's public header `io/xs_wire.h`).
//!
//! A message is a header of four little-endian u32 (type, request id, transaction
//! id, length) and at most 4096 bytes of payload. [`Decoder`] takes bytes in any
//! pieces and holds at most one message and the piece it was given; whatever does
//! not fit the protocol is a typed error.

use std::fmt;

use thiserror::Error;

#[cfg(test)]
mod tests;

/// The size of a header.
pub const HEADER_SIZE: usize = 16;
/// The largest payload, `XENSTORE_PAYLOAD_MAX`.
pub const PAYLOAD_MAX: usize = 4096;
/// The transaction id of requests that belong to no transaction.
pub const NO_TRANSACTION: u32 = 0;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The type of a message (`enum xsd_sockmsg_type`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Kind {
            /// Every type.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The type of that number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The number on the wire.
            pub const fn number(self) -> u32 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// The name, as Xen's header gives it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// Debugging commands.
    Control = 0, "CONTROL";
    /// List the names in a directory.
    Directory = 1, "DIRECTORY";
    /// Read a node.
    Read = 2, "READ";
    /// Read a node's permissions.
    GetPerms = 3, "GET_PERMS";
    /// Ask for events about a path.
    Watch = 4, "WATCH";
    /// No more events.
    Unwatch = 5, "UNWATCH";
    /// Begin a transaction.
    TransactionStart = 6, "TRANSACTION_START";
    /// Commit (T) or abandon (F) a transaction.
    TransactionEnd = 7, "TRANSACTION_END";
    /// Make a domain known to xenstored.
    Introduce = 8, "INTRODUCE";
    /// Forget a domain.
    Release = 9, "RELEASE";
    /// The home directory of a domain.
    GetDomainPath = 10, "GET_DOMAIN_PATH";
    /// Write a node.
    Write = 11, "WRITE";
    /// Make an empty node unless it exists.
    Mkdir = 12, "MKDIR";
    /// Remove a node and all below it.
    Rm = 13, "RM";
    /// Set a node's permissions.
    SetPerms = 14, "SET_PERMS";
    /// Something changed (only ever sent by xenstored).
    WatchEvent = 15, "WATCH_EVENT";
    /// A request was refused (only ever sent by xenstored).
    Error = 16, "ERROR";
    /// Whether a domain is known.
    IsDomainIntroduced = 17, "IS_DOMAIN_INTRODUCED";
    /// A domain was resumed.
    Resume = 18, "RESUME";
    /// Let a stub domain act for its target.
    SetTarget = 19, "SET_TARGET";
    /// Forget the watches of the caller.
    ResetWatches = 21, "RESET_WATCHES";
    /// List a part of a long directory.
    DirectoryPart = 22, "DIRECTORY_PART";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One message, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The type.
    pub kind: Kind,
    /// Chosen by the client, repeated in the reply; 0 in watch events.
    pub req_id: u32,
    /// The transaction, or [`NO_TRANSACTION`].
    pub tx_id: u32,
    /// At most [`PAYLOAD_MAX`] bytes.
    pub payload: Vec<u8>,
}

impl Message {
    /// Appends the message to `out`.
    ///
    /// # Errors
    /// [`WireError::TooLong`] if the payload does not fit; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let len = u32::try_from(self.payload.len())
            .ok()
            .filter(|_| self.payload.len() <= PAYLOAD_MAX)
            .ok_or(WireError::TooLong {
                len: self.payload.len(),
            })?;
        for word in [self.kind.number(), self.req_id, self.tx_id, len] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.payload);
        Ok(())
    }
}

/// The peer does not speak xenstore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The payload exceeds the protocol's limit.
    #[error("a xenstore message of {len} bytes exceeds the limit of {PAYLOAD_MAX}")]
    TooLong {
        /// The length.
        len: usize,
    },
    /// The message type does not exist.
    #[error("xenstore message type {number} does not exist")]
    UnknownKind {
        /// The number.
        number: u32,
    },
}

/// Bytes in, messages out.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// How many of the bytes have been handed out already.
    taken: usize,
}

impl Decoder {
    /// A decoder at the beginning of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they arrive, in any pieces. Drain [`Decoder::next_message`]
    /// between calls to keep the buffer small.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if it has arrived.
    ///
    /// # Errors
    /// A [`WireError`] as soon as a header is wrong. The stream cannot be followed
    /// any further then: the error comes again and again.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_SIZE>() else {
            return Ok(None);
        };
        let [number, req_id, tx_id, len] = words(header);
        let kind = Kind::from_number(number).ok_or(WireError::UnknownKind { number })?;
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= PAYLOAD_MAX)
            .ok_or_else(|| WireError::TooLong {
                len: usize::try_from(len).unwrap_or(usize::MAX),
            })?;
        let Some(payload) = rest.get(..len) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.taken += HEADER_SIZE + len;
        Ok(Some(Message {
            kind,
            req_id,
            tx_id,
            payload,
        }))
    }
}

fn words(header: &[u8; HEADER_SIZE]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(header.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// Splits a payload of NUL-terminated strings. The last one need not be terminated;
/// an empty payload has no strings.
pub fn strings(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let body = payload.strip_suffix(b"\0").unwrap_or(payload);
    body.split(|b| *b == 0)
        .take(if payload.is_empty() { 0 } else { usize::MAX })
}
