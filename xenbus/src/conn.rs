// SPDX-License-Identifier: GPL-3.0-or-later
//! The file descriptor to xenstored: bytes to and from a [`Session`]. How it is opened is in `open`.
//!
//! The descriptor is non-blocking; a request waits in poll(2) for its reply, with a
//! deadline. Whatever goes wrong here ends the connection for good.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Disconnected;
use crate::session::{Answer, RequestId, Session};

pub(crate) mod open;

/// How long xenstored may take for a reply before it is given up.
pub(crate) const REPLY_LIMIT: Duration = Duration::from_secs(5);

/// Reads of 8 KiB in one go, when nobody waits for an answer.
const RECEIVES_PER_DRAIN: usize = 16;

/// A descriptor that is used without blocking. `&File` reads and writes any kind of
/// descriptor, so that sockets and the device need no distinction.
#[derive(Debug)]
pub(crate) struct Conn {
    file: File,
    /// Requests may be sent in one piece, and before earlier ones have been answered. Linux's
    /// device takes one with each write, drops what comes after it, and has just one buffer for
    /// it (`xenbus_dev_frontend.c`): a request that is written before the last one was answered
    /// may take its place, before it was sent.
    is_stream: bool,
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let file = File::from(fd);
        let is_stream = file.metadata()?.file_type().is_socket();
        Ok(Self { file, is_stream })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether a request may be sent while another has not been answered.
    pub(crate) const fn takes_many(&self) -> bool {
        self.is_stream
    }

    /// The same as if it were the kernel's device.
    #[cfg(test)]
    pub(crate) fn into_device(self) -> Self {
        Self {
            is_stream: false,
            ..self
        }
    }

    /// Sends what waits and receives until request `id` is answered or `limit` is over.
    ///
    /// Three system calls, as a rule: what comes after the answer is left for [`Self::drain`].
    pub(crate) fn complete(
        &self,
        session: &mut Session,
        id: RequestId,
        limit: Duration,
    ) -> Result<Answer, Disconnected> {
        let deadline = Instant::now() + limit;
        loop {
            // It may have come in with that to another request.
            if let Some(answer) = session.take_answer(id) {
                return Ok(answer);
            }
            let flushed = self.flush(session)?;
            self.wait(flushed, deadline)?;
            self.receive(session)?;
        }
    }

    /// Receives what is there, a bounded part of it: guests that write without end bring about
    /// watch events without end. `true` if some may be left.
    pub(crate) fn drain(&self, session: &mut Session) -> Result<bool, Disconnected> {
        for _ in 0..RECEIVES_PER_DRAIN {
            if !self.receive(session)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Receives once; false when nothing is there.
    fn receive(&self, session: &mut Session) -> Result<bool, Disconnected> {
        let mut buffer = [0; 8192];
        match (&self.file).read(&mut buffer) {
            Ok(0) => Err(lost("end of file")),
            Ok(count) => session
                .receive(buffer.get(..count).unwrap_or_default())
                .map(|()| true)
                .map_err(lost),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(lost(error)),
        }
    }

    /// Sends as much as fits; true when nothing is left.
    fn flush(&self, session: &mut Session) -> Result<bool, Disconnected> {
        while !session.outgoing().is_empty() {
            let next = if self.is_stream {
                session.outgoing()
            } else {
                session.outgoing_message()
            };
            match (&self.file).write(next) {
                Ok(0) => return Err(lost("nothing can be written")),
                Ok(count) => session.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(error)),
            }
        }
        Ok(true)
    }

    fn wait(&self, flushed: bool, deadline: Instant) -> Result<(), Disconnected> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(lost("no reply in time"));
        }
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, !flushed);
        let mut fds = [PollFd::new(self.file.as_fd(), flags)];
        // Rounded up, so that a wait of less than a millisecond does not spin.
        let timeout = left.saturating_add(Duration::from_millis(1));
        match poll(
            &mut fds,
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(lost(errno)),
        }
    }
}

fn lost(reason: impl ToString) -> Disconnected {
    Disconnected {
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::watch::Coalesce;
    use crate::wire::{Kind, Message};

    /// A connection that keeps together what is written together, and its far end.
    fn connection() -> (Conn, OwnedFd) {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .unwrap();
        (Conn::new(ours).unwrap(), theirs)
    }

    /// Asks for three things, and says how long each piece was.
    fn pieces(is_stream: bool) -> Vec<usize> {
        let (conn, theirs) = connection();
        assert!(conn.is_stream, "as every socket");
        let mut session = Session::new();
        for path in [b"a\0".as_slice(), b"bc\0", b"\0"] {
            session.request(Kind::Read, 0, &[path]).unwrap();
        }
        let conn = if is_stream { conn } else { conn.into_device() };
        assert!(conn.flush(&mut session).unwrap());
        let mut buffer = [0; 100];
        let piece = || recv(theirs.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok();
        std::iter::from_fn(piece).collect()
    }

    /// Guests can write without end, and each time brings about an event.
    #[test]
    fn events_are_taken_in_in_bounded_parts() {
        let (conn, theirs) = connection();
        let mut session = Session::new();
        session.events.register("/x", "t", Coalesce::Watched);
        let mut event = Vec::new();
        let message = Message {
            kind: Kind::WatchEvent,
            req_id: 0,
            tx_id: 0,
            payload: b"/x/y\0t\0".to_vec(),
        };
        message.encode(&mut event).unwrap();
        // A read takes one at a time from such a socket.
        for _ in 0..RECEIVES_PER_DRAIN + 2 {
            nix::unistd::write(&theirs, &event).unwrap();
        }
        assert!(conn.drain(&mut session).unwrap(), "there is more");
        assert!(!conn.drain(&mut session).unwrap());
        assert_eq!(session.events.len(), 1);
    }

    #[test]
    fn a_socket_gets_all_in_one_piece_and_the_device_request_by_request() {
        assert_eq!(pieces(true), [16 * 3 + 2 + 3 + 1]);
        assert_eq!(pieces(false), [16 + 2, 16 + 3, 16 + 1]);
        let device = Conn::new(File::open("/dev/null").unwrap().into()).unwrap();
        assert!(!device.is_stream);
    }
}
