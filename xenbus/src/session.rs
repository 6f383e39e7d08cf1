// SPDX-License-Identifier: GPL-3.0-or-later
//! One connection to xenstored, without the connection: requests and bytes in,
//! bytes, replies and watch events out.
//!
//! Replies are matched by request id and may come in any order, with watch events in
//! between. A reply to no request, or of another type than its request, means that
//! the stream is out of step: a typed error, after which the connection is useless.

use std::collections::{BTreeMap, VecDeque};

use thiserror::Error;

use crate::error::ErrorCode;
use crate::watch::EventQueue;
use crate::wire::{self, Decoder, Kind, Message, WireError};

#[cfg(test)]
mod tests;

/// The number of a request that waits for its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u32);

/// What xenstored said to a request: a payload, or the error it named.
pub type Answer = Result<Vec<u8>, ErrorCode>;

/// The state of a connection.
#[derive(Debug, Default)]
pub struct Session {
    decoder: Decoder,
    out: Vec<u8>,
    /// Bytes of each message in `out` that wait, the first one's rest first.
    lengths: VecDeque<usize>,
    last_id: u32,
    pending: BTreeMap<RequestId, Pending>,
    /// The watches and the events that wait.
    pub events: EventQueue,
}

#[derive(Debug)]
enum Pending {
    Sent(Kind),
    Answered(Answer),
}

/// The stream from xenstored makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    /// It is not the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A reply that nobody waits for.
    #[error("a reply of type {kind} to request {id}, which is not waiting for one")]
    Unasked {
        /// Its type.
        kind: Kind,
        /// The request that it names.
        id: u32,
    },
    /// An error that is not in the protocol's list.
    #[error("the unknown error {text:?} in reply to {operation}")]
    UnknownError {
        /// The error, as sent, cut short.
        text: String,
        /// The request.
        operation: Kind,
    },
}

impl Session {
    /// A fresh connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a request, whose payload is the `parts` one after the other.
    ///
    /// # Errors
    /// [`WireError::TooLong`]; nothing is queued then.
    pub fn request(
        &mut self,
        kind: Kind,
        tx_id: u32,
        parts: &[&[u8]],
    ) -> Result<RequestId, WireError> {
        // 0 is the id of watch events; an id still in use belongs to somebody else.
        let mut id = self.last_id.wrapping_add(1).max(1);
        while self.pending.contains_key(&RequestId(id)) {
            id = id.wrapping_add(1).max(1);
        }
        let message = Message {
            kind,
            req_id: id,
            tx_id,
            payload: parts.concat(),
        };
        let before = self.out.len();
        message.encode(&mut self.out)?;
        self.lengths.push_back(self.out.len() - before);
        self.last_id = id;
        self.pending.insert(RequestId(id), Pending::Sent(kind));
        Ok(RequestId(id))
    }

    /// The bytes that wait to be sent.
    pub fn outgoing(&self) -> &[u8] {
        &self.out
    }

    /// Of these, those of the first message.
    pub fn outgoing_message(&self) -> &[u8] {
        let len = self.lengths.front().copied().unwrap_or_default();
        self.out.get(..len).unwrap_or_default()
    }

    /// The first `count` of the outgoing bytes have been sent.
    pub fn sent(&mut self, count: usize) {
        self.out.drain(..count.min(self.out.len()));
        let mut count = count;
        while let Some(length) = self.lengths.front_mut() {
            if count < *length {
                *length -= count;
                return;
            }
            count -= *length;
            self.lengths.pop_front();
        }
    }

    /// Takes bytes that arrived.
    ///
    /// # Errors
    /// [`SessionError`]: the connection cannot be used any more.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.decoder.push(bytes);
        while let Some(message) = self.decoder.next_message()? {
            if message.kind == Kind::WatchEvent {
                self.event(&message.payload);
            } else {
                self.reply(message)?;
            }
        }
        Ok(())
    }

    /// The answer to a request, once.
    pub fn take_answer(&mut self, id: RequestId) -> Option<Answer> {
        match self.pending.remove(&id)? {
            Pending::Answered(answer) => Some(answer),
            sent @ Pending::Sent(_) => {
                self.pending.insert(id, sent);
                None
            }
        }
    }

    fn event(&mut self, payload: &[u8]) {
        let mut strings = wire::strings(payload).map(std::str::from_utf8);
        match (strings.next(), strings.next()) {
            (Some(Ok(path)), Some(Ok(token))) => self.events.push(path, token),
            // xenstored checks paths, and tokens are ours: this is no guest's doing.
            // One bad event must not end the connection.
            _ => {
                tracing::warn!(payload = ?payload.get(..80).unwrap_or(payload), "malformed watch event")
            }
        }
    }

    fn reply(&mut self, message: Message) -> Result<(), SessionError> {
        let Message {
            kind,
            req_id,
            payload,
            ..
        } = message;
        let unasked = SessionError::Unasked { kind, id: req_id };
        let id = self.answered(kind, req_id);
        let Some(pending) = self.pending.get_mut(&id) else {
            return Err(unasked);
        };
        let Pending::Sent(asked) = *pending else {
            return Err(unasked);
        };
        let answer = if kind == asked {
            Ok(payload)
        } else if kind == Kind::Error {
            let text = String::from_utf8_lossy(payload.strip_suffix(b"\0").unwrap_or(&payload));
            Err(
                ErrorCode::from_name(&text).ok_or_else(|| SessionError::UnknownError {
                    text: text.chars().take(32).collect(),
                    operation: asked,
                })?,
            )
        } else {
            return Err(unasked);
        };
        *pending = Pending::Answered(answer);
        Ok(())
    }

    /// Which request a reply is for. The device /dev/xen/xenbus of older Linux kernels
    /// answers WATCH and UNWATCH itself and leaves the id out: those are in order.
    fn answered(&self, kind: Kind, req_id: u32) -> RequestId {
        let by_kernel = req_id == 0 && matches!(kind, Kind::Watch | Kind::Unwatch);
        let waits = |pending: &Pending| matches!(pending, Pending::Sent(sent) if *sent == kind);
        let mut waiting = self.pending.iter().filter(|(_, pending)| waits(pending));
        match waiting.next() {
            Some((id, _)) if by_kernel => *id,
            _ => RequestId(req_id),
        }
    }
}
