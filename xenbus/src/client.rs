// SPDX-License-Identifier: GPL-3.0-or-later
//! A client of xenstored for one control thread: requests block until their reply,
//! watch events wait in a bounded queue.
//!
//! The descriptor ([`AsFd`], [`AsRawFd`]) becomes readable when events arrive: call
//! [`Client::poll_events`], then [`Client::next_event`] until it gives `None`. Do the
//! latter after any request too before sleeping: events that came in while a request
//! waited make the descriptor readable no more.
//!
//! Once a request has failed with [`crate::is_disconnected`], all do: drop the
//! client, connect anew ([`crate::reconnect`]), watch and scan again.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xenstore_rs::{Xs, XsTransaction};

use crate::conn::{Conn, REPLY_LIMIT, open};
use crate::error::{Disconnected, ErrorCode, Refused};
use crate::many::XsMany;
use crate::path::DomId;
use crate::perms::Perm;
use crate::session::{Answer, RequestId, Session};
use crate::transaction::Transaction;
use crate::watch::{Coalesce, WatchEvent};
use crate::wire::{Kind, NO_TRANSACTION};

mod request;
#[cfg(test)]
mod tests;

/// A connection to xenstored. It may move to another thread, but only one at a time
/// uses it.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    /// Not `Sync`: requests of two threads would wait for each other.
    not_sync: PhantomData<std::cell::Cell<()>>,
}

impl Client {
    /// Connects to xenstored: the socket that `XENSTORED_PATH` names, else
    /// `/run/xenstored/socket`, else `/var/run/xenstored/socket`, else the device
    /// `/dev/xen/xenbus`.
    ///
    /// # Errors
    /// The error of the operating system, with the path that was tried last; `TimedOut` from a
    /// xenstored that has taken no connection for as long as `limit`.
    pub fn connect(limit: Duration) -> io::Result<Self> {
        Self::over(open::open(limit)?)
    }

    /// Connects to the xenstored whose socket is at `path`.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub fn connect_to(path: &Path, limit: Duration) -> io::Result<Self> {
        Self::over(open::socket(path, limit)?)
    }

    /// A client over a descriptor that is connected already (one end of a socket
    /// pair, say). The descriptor is made non-blocking.
    ///
    /// # Errors
    /// If that fails.
    pub fn over(fd: impl Into<OwnedFd>) -> io::Result<Self> {
        Ok(Self::on(Conn::new(fd.into())?))
    }

    fn on(conn: Conn) -> Self {
        let state = State {
            session: Session::new(),
            lost: None,
        };
        Self {
            shared: Arc::new(Shared {
                conn,
                state: Mutex::new(state),
            }),
            not_sync: PhantomData,
        }
    }

    /// Asks for events about `path` and everything below it. Each event says only
    /// "look at `path` again"; there is a first one at once, also if `path` does not
    /// exist. Events are the same for any change below ([`Coalesce::Watched`]).
    ///
    /// # Errors
    /// What xenstored answers (EEXIST: the same watch is there already).
    pub fn watch(&self, path: &str, token: &str) -> io::Result<()> {
        self.watch_with(path, token, Coalesce::Watched)
    }

    /// As [`Client::watch`], for [`crate::path::BACKEND_ROOT`] or a part of it: events
    /// tell devices and their known keys apart ([`Coalesce::Devices`]).
    ///
    /// # Errors
    /// As for [`Client::watch`].
    pub fn watch_devices(&self, path: &str, token: &str) -> io::Result<()> {
        self.watch_with(path, token, Coalesce::Devices)
    }

    /// As [`Client::watch`], for a directory of which only `nodes` are of interest:
    /// events tell them apart, and there are none for others ([`Coalesce::Nodes`]).
    ///
    /// # Errors
    /// As for [`Client::watch`].
    pub fn watch_nodes(
        &self,
        path: &str,
        token: &str,
        nodes: &'static [&'static str],
    ) -> io::Result<()> {
        self.watch_with(path, token, Coalesce::Nodes(nodes))
    }

    fn watch_with(&self, path: &str, token: &str, coalesce: Coalesce) -> io::Result<()> {
        // Registered first: the initial event may overtake the reply.
        self.shared
            .state()
            .session
            .events
            .register(path, token, coalesce);
        let asked = self
            .shared
            .call(Kind::Watch, NO_TRANSACTION, &[path, token]);
        if let Err(error) = asked {
            // EEXIST: the watch that is there stays, and its events are wanted.
            if error.kind() != io::ErrorKind::AlreadyExists {
                self.shared.state().session.events.unregister(path, token);
            }
            return Err(error);
        }
        Ok(())
    }

    /// No more events of a watch; those that wait are dropped.
    ///
    /// # Errors
    /// What xenstored answers (ENOENT: there is no such watch).
    pub fn unwatch(&self, path: &str, token: &str) -> io::Result<()> {
        self.shared.state().session.events.unregister(path, token);
        self.shared
            .call(Kind::Unwatch, NO_TRANSACTION, &[path, token])?;
        Ok(())
    }

    /// Receives what has arrived, without waiting, a bounded part of it. `true` if some may be left:
    /// the descriptor does not become readable anew for that.
    ///
    /// # Errors
    /// Only a lost connection ([`crate::is_disconnected`]). Events that came before
    /// are still in the queue.
    pub fn poll_events(&self) -> io::Result<bool> {
        let mut state = self.shared.state();
        state.check()?;
        let drained = self.shared.conn.drain(&mut state.session);
        Ok(state.keep(drained)?)
    }

    /// The watch event that has waited longest.
    pub fn next_event(&self) -> Option<WatchEvent> {
        self.shared.state().session.events.pop()
    }

    /// Our own domain's number (the node `domid` of our home directory), for which xenstored may
    /// take as long as `limit`. To be asked first: a socket takes connections also for a xenstored
    /// that hangs, so only an answer shows that there is somebody.
    ///
    /// # Errors
    /// That of the read, or `InvalidData` if it is not a domain number.
    pub fn domid(&self, limit: Duration) -> io::Result<DomId> {
        let text = self.shared.read_within("domid", limit)?;
        DomId::parse(text.trim()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the xenstore node domid is {text:?}, not a domain number"),
            )
        })
    }

    /// Makes an empty node (and those above it) unless it exists.
    ///
    /// # Errors
    /// What xenstored answers.
    pub fn mkdir(&self, path: &str) -> io::Result<()> {
        self.shared.mkdir(NO_TRANSACTION, path)
    }

    /// The permissions of a node.
    ///
    /// # Errors
    /// What xenstored answers, or `InvalidData`.
    pub fn get_perms(&self, path: &str) -> io::Result<Vec<Perm>> {
        self.shared.get_perms(NO_TRANSACTION, path)
    }

    /// Sets the permissions of a node; the first entry names its owner.
    ///
    /// # Errors
    /// What xenstored answers.
    pub fn set_perms(&self, path: &str, perms: &[Perm]) -> io::Result<()> {
        self.shared.set_perms(NO_TRANSACTION, path, perms)
    }
}

impl Xs for Client {
    fn directory(&self, path: &str) -> io::Result<Vec<Box<str>>> {
        self.shared.directory(NO_TRANSACTION, path)
    }

    fn read(&self, path: &str) -> io::Result<Box<str>> {
        self.shared.read(NO_TRANSACTION, path)
    }

    fn write(&self, path: &str, data: &str) -> io::Result<()> {
        self.shared.write(NO_TRANSACTION, path, data)
    }

    fn rm(&self, path: &str) -> io::Result<()> {
        self.shared.rm(NO_TRANSACTION, path)
    }
}

impl XsMany for Client {
    fn read_many<P: AsRef<str>>(&self, paths: &[P]) -> Vec<io::Result<Box<str>>> {
        self.shared.read_many(NO_TRANSACTION, paths)
    }

    fn write_many<P: AsRef<str>>(&self, nodes: &[(P, &str)]) -> io::Result<()> {
        self.shared.write_many(NO_TRANSACTION, nodes)
    }

    fn rm_many<P: AsRef<str>>(&self, paths: &[P]) -> Vec<io::Result<()>> {
        self.shared.rm_many(NO_TRANSACTION, paths)
    }
}

impl XsTransaction for Client {
    type Span = Transaction;

    fn transaction(&self) -> io::Result<Transaction> {
        Transaction::start(Arc::clone(&self.shared))
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.conn.file().as_fd()
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.conn.file().as_raw_fd()
    }
}

/// What a client and its transactions share.
#[derive(Debug)]
pub(crate) struct Shared {
    conn: Conn,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    session: Session,
    lost: Option<Disconnected>,
}

impl State {
    fn check(&self) -> Result<(), Disconnected> {
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// Queues a request, unless the connection is lost.
    fn request(
        &mut self,
        kind: Kind,
        tx_id: u32,
        payload: io::Result<Vec<u8>>,
    ) -> io::Result<RequestId> {
        self.check()?;
        self.session
            .request(kind, tx_id, &[&payload?])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    /// Remembers that the connection is lost.
    fn keep<T>(&mut self, result: Result<T, Disconnected>) -> Result<T, Disconnected> {
        result.inspect_err(|lost| self.lost = Some(lost.clone()))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests of one kind, sent together if the connection is one for that, and the answers in
    /// the same order. One that cannot be sent does not keep the others from it.
    fn exchange_many(
        &self,
        kind: Kind,
        tx_id: u32,
        payloads: impl Iterator<Item = io::Result<Vec<u8>>>,
    ) -> Vec<io::Result<Answer>> {
        let mut state = self.state();
        if !self.conn.takes_many() {
            let one_by_one = payloads.map(|payload| {
                let id = state.request(kind, tx_id, payload)?;
                self.answer(&mut state, id, REPLY_LIMIT)
            });
            return one_by_one.collect();
        }
        let ids: Vec<_> = payloads
            .map(|payload| state.request(kind, tx_id, payload))
            .collect();
        ids.into_iter()
            .map(|id| self.answer(&mut state, id?, REPLY_LIMIT))
            .collect()
    }

    fn answer(&self, state: &mut State, id: RequestId, limit: Duration) -> io::Result<Answer> {
        state.check()?;
        let answer = self.conn.complete(&mut state.session, id, limit);
        Ok(state.keep(answer)?)
    }

    /// A request that consists of NUL-terminated strings, the first one its subject.
    fn call(&self, kind: Kind, tx_id: u32, strings: &[&str]) -> io::Result<Vec<u8>> {
        self.call_within(REPLY_LIMIT, kind, tx_id, strings)
    }

    fn call_within(
        &self,
        limit: Duration,
        kind: Kind,
        tx_id: u32,
        strings: &[&str],
    ) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let id = state.request(kind, tx_id, request::strings(strings))?;
        let answer = self.answer(&mut state, id, limit)?;
        answer.map_err(|code| refused(kind, strings.first().unwrap_or(&""), code))
    }
}

fn refused(kind: Kind, path: &str, code: ErrorCode) -> io::Error {
    Refused {
        operation: kind.name(),
        path: path.to_owned(),
        code,
    }
    .into()
}
