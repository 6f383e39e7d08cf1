// SPDX-License-Identifier: GPL-3.0-or-later
//! An in-memory xenstored that speaks the real wire: for tests, and the store of the
//! demo.
//!
//! It has what makes a store hard to use: transactions that fail with EAGAIN when
//! another client was faster, permissions, watches with a first event, quotas, long
//! listings, and on request the faults of a bad day ([`Faults`]). [`Store`] is the
//! store without input or output; [`FakeXenstored`] serves it from a thread over
//! socket pairs and, if wanted, a socket in the file system.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use mio::Waker;

use crate::client::Client;

mod ops;
mod server;
mod store;
#[cfg(test)]
mod tests;
mod transaction;
mod tree;
mod watches;

pub use ops::Quota;
pub use store::{ConnId, Faults, Store};

use server::{Command, Server};

/// A running in-memory xenstored. It ends, and with it all its connections, when
/// this is dropped.
#[derive(Debug)]
pub struct FakeXenstored {
    commands: Sender<Command>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl FakeXenstored {
    /// Starts with domain 0 introduced and nothing else in the store.
    ///
    /// # Errors
    /// If the operating system has no descriptors or threads left.
    pub fn spawn() -> io::Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let (mut server, waker) = Server::new(inbox)?;
        let thread = thread::Builder::new()
            .name("fake-xenstored".to_owned())
            .spawn(move || server.run())?;
        Ok(Self {
            commands,
            waker,
            thread: Some(thread),
        })
    }

    /// A connection of domain `dom`, which should have been introduced.
    ///
    /// # Errors
    /// `ConnectionRefused` while connections are refused ([`Self::refuse`]).
    pub fn connect(&self, dom: u16) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        let (reply, accepted) = mpsc::channel();
        self.send(Command::Connect(theirs, dom, reply))?;
        accepted.recv().map_err(|_| gone())??;
        Ok(ours)
    }

    /// A client of domain `dom`.
    ///
    /// # Errors
    /// As for [`Self::connect`].
    pub fn client(&self, dom: u16) -> io::Result<Client> {
        Client::over(self.connect(dom)?)
    }

    /// Listens on a socket in the file system; whoever connects there is domain 0, as
    /// with the real xenstored.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn listen(&self, path: &Path) -> io::Result<()> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let (reply, done) = mpsc::channel();
        self.send(Command::Listen(listener, reply))?;
        done.recv().map_err(|_| gone())?
    }

    /// Runs `f` on the store, as domain 0 and between two requests. Watches that it
    /// fires are delivered afterwards.
    ///
    /// # Errors
    /// `BrokenPipe` if the server's thread is gone.
    pub fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> io::Result<T> {
        let (reply, result) = mpsc::channel();
        self.send(Command::With(Box::new(move |store| {
            // The caller waits for it, unless it is gone itself.
            drop(reply.send(f(store)));
        })))?;
        result.recv().map_err(|_| gone())
    }

    /// Makes a domain known: its home directory with the parts that libxl gives it.
    ///
    /// # Errors
    /// As for [`Self::with`].
    pub fn introduce(&self, dom: u16) -> io::Result<()> {
        self.with(move |store| store.introduce(dom))
    }

    /// Closes all connections, as if xenstored had died and come back: watches and
    /// transactions are gone, the tree is still there.
    ///
    /// # Errors
    /// As for [`Self::with`].
    pub fn drop_connections(&self) -> io::Result<()> {
        let (reply, done) = mpsc::channel();
        self.send(Command::DropConnections(reply))?;
        done.recv().map_err(|_| gone())
    }

    /// Refuses new connections (or accepts them again), as if xenstored were not
    /// running.
    ///
    /// # Errors
    /// As for [`Self::with`].
    pub fn refuse(&self, refuse: bool) -> io::Result<()> {
        self.send(Command::Refuse(refuse))
    }

    /// Does nothing for its connections (or goes on with all that has waited), as if xenstored hung:
    /// connections are taken, and requests stay unanswered.
    ///
    /// # Errors
    /// As for [`Self::with`].
    pub fn hang(&self, hang: bool) -> io::Result<()> {
        self.send(Command::Hang(hang))
    }

    fn send(&self, command: Command) -> io::Result<()> {
        self.commands.send(command).map_err(|_| gone())?;
        self.waker.wake()
    }
}

impl Drop for FakeXenstored {
    fn drop(&mut self) {
        // If the thread is gone already there is nothing to stop.
        drop(self.send(Command::Stop));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::BrokenPipe,
        "the in-memory xenstored has ended",
    )
}
