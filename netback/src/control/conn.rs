// SPDX-License-Identifier: GPL-3.0-or-later
//! One client of the control socket, without a socket: bytes of its request go in, bytes of the answer come out.
//!
//! Guarantees: at most [`MAX_REQUEST`] bytes of a request are held, every request gets exactly one answer, and a
//! client that makes no progress for [`IDLE`] is over.

use std::time::{Duration, Instant};

use super::model::Status;

/// Longest request line, with its newline.
pub(super) const MAX_REQUEST: usize = 256;
/// How long a client may do nothing.
pub(super) const IDLE: Duration = Duration::from_secs(5);

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Status,
}

/// Where a client is.
#[derive(Debug)]
enum Phase {
    Request(Vec<u8>),
    Answer { bytes: Vec<u8>, sent: usize },
}

/// One client.
#[derive(Debug)]
pub(super) struct Conn {
    phase: Phase,
    active: Instant,
}

impl Conn {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Request(Vec::new()),
            active: now,
        }
    }

    /// Whether a request is still awaited.
    pub(super) const fn wants_input(&self) -> bool {
        matches!(self.phase, Phase::Request(_))
    }

    /// What is still to be sent; empty when nothing is.
    pub(super) fn output(&self) -> &[u8] {
        match &self.phase {
            Phase::Request(_) => &[],
            Phase::Answer { bytes, sent } => bytes.get(*sent..).unwrap_or_default(),
        }
    }

    /// Whether the answer is out and the connection may be closed.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Answer { .. }) && self.output().is_empty()
    }

    /// When the client is over unless something happens before.
    pub(super) fn deadline(&self) -> Instant {
        self.active + IDLE
    }

    /// Takes in bytes from the client; `status` is called when they complete a request for it.
    pub(super) fn input(&mut self, bytes: &[u8], now: Instant, status: &mut dyn FnMut() -> Status) {
        let Phase::Request(line) = &mut self.phase else {
            return;
        };
        self.active = now;
        let room = MAX_REQUEST.saturating_sub(line.len());
        line.extend(bytes.iter().take(room));
        let request = match line.iter().position(|b| *b == b'\n') {
            Some(end) => parse(line.get(..end).unwrap_or_default()),
            None if line.len() < MAX_REQUEST => return,
            None => Err(format!("the request is longer than {MAX_REQUEST} bytes")),
        };
        let answer = match request {
            Ok(Request::Status) => serde_json::to_vec(&status()),
            Err(error) => serde_json::to_vec(&serde_json::json!({ "error": error })),
        };
        let mut bytes =
            answer.unwrap_or_else(|e| format!("{{\"error\":\"no answer: {e:?}\"}}").into_bytes());
        bytes.push(b'\n');
        self.phase = Phase::Answer { bytes, sent: 0 };
    }

    /// `n` bytes of [`Conn::output`] were sent.
    pub(super) fn sent(&mut self, n: usize, now: Instant) {
        if let Phase::Answer { bytes, sent } = &mut self.phase {
            *sent = sent.saturating_add(n).min(bytes.len());
            self.active = now;
        }
    }
}

fn parse(line: &[u8]) -> Result<Request, String> {
    match line.trim_ascii_end() {
        b"status" => Ok(Request::Status),
        other => Err(format!(
            "unknown request {:?}: this netback knows \"status\"",
            String::from_utf8_lossy(other)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status() -> Status {
        Status {
            version: "1.2.3".into(),
            ..Status::default()
        }
    }

    fn answer(pieces: &[&[u8]]) -> Option<serde_json::Value> {
        let now = Instant::now();
        let mut conn = Conn::new(now);
        for piece in pieces {
            conn.input(piece, now, &mut status);
        }
        match conn.output() {
            [] => None,
            bytes => {
                assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 1, "one line");
                Some(serde_json::from_slice(bytes).unwrap())
            }
        }
    }

    #[test]
    fn answers_one_request_once() {
        let now = Instant::now();
        let mut conn = Conn::new(now);
        let mut asked = 0;
        let mut count = || {
            asked += 1;
            status()
        };
        conn.input(b"sta", now, &mut count);
        assert!(conn.wants_input() && conn.output().is_empty() && !conn.is_done());
        conn.input(b"tus\nstatus\nstatus\n", now, &mut count);
        conn.input(b"status\n", now, &mut count);
        assert_eq!(asked, 1);
        assert!(!conn.wants_input() && !conn.is_done());
        let all = conn.output().to_vec();
        conn.sent(3, now);
        assert_eq!(conn.output(), &all[3..]);
        conn.sent(usize::MAX, now);
        assert!(conn.is_done());
        assert_eq!(serde_json::from_slice::<Status>(&all).unwrap(), status());
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(answer(&[b"status\r\n"]).unwrap()["version"], "1.2.3");
        let error = answer(&[b"st\x1bop\xff\n"]).unwrap()["error"].to_string();
        assert!(
            error.contains("unknown request")
                && error.contains("status")
                && !error.contains('\x1b'),
            "{error}"
        );
        assert!(answer(&[b"\n"]).unwrap()["error"].is_string());
        assert!(answer(&[&[b'x'; MAX_REQUEST - 1]]).is_none());
        let long = answer(&[&[b'x'; MAX_REQUEST]]).unwrap()["error"].to_string();
        assert!(long.contains("longer than 256"), "{long}");
    }

    #[test]
    fn is_idle_by_supplied_time() {
        let start = Instant::now();
        let mut conn = Conn::new(start);
        assert_eq!(conn.deadline(), start + IDLE);
        let later = start + Duration::from_secs(3);
        conn.input(b"s", later, &mut status);
        assert_eq!(conn.deadline(), later + IDLE);
        conn.input(b"tatus\n", later, &mut status);
        let last = start + Duration::from_secs(6);
        conn.sent(1, last);
        assert_eq!(conn.deadline(), last + IDLE);
    }

    proptest! {
        #[test]
        fn any_bytes_are_held_within_bounds(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let now = Instant::now();
            let mut conn = Conn::new(now);
            for piece in &pieces {
                conn.input(piece, now, &mut status);
                if let Phase::Request(held) = &conn.phase {
                    prop_assert!(held.len() < MAX_REQUEST);
                }
            }
        }
    }
}
