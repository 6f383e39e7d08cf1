// SPDX-License-Identifier: GPL-3.0-or-later
//! The daemon's end of the control socket, driven by the control thread's mio loop.
//!
//! ```text
//! bind(path) -> register(registry, first token) -> on each event: ready(token, now, status)
//!                                               -> at deadline(): expire(now)
//! ```
//!
//! Guarantees: the socket is of mode 0600 before anyone can connect; a socket that a dead daemon left is replaced and
//! that of a living one is not; it is removed when this is dropped; no call blocks; at most [`MAX_CLIENTS`] clients
//! are served at a time (more wait in the socket's backlog), and an idle one is closed after 5 s.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

use super::conn::Conn;
use super::model::Status;

/// Most clients served at a time.
pub const MAX_CLIENTS: usize = 16;
/// How many tokens [`Server::register`] takes, from the first on: the listener's and one for each client.
pub const TOKENS: usize = 1 + MAX_CLIENTS;

/// The control socket and its clients.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket, so as to remove no other.
    inode: (u64, u64),
    registration: Option<(Registry, usize)>,
    clients: BTreeMap<usize, Client>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    conn: Conn,
}

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Its directory cannot be made.
    #[error("the directory {} of the control socket cannot be created: {source}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody answers on it.
    #[error("another netback is listening on {}: stop it, or set control.socket to another path", .0.display())]
    InUse(PathBuf),
    /// There is a file of another kind.
    #[error("{} exists and is not a socket: remove it, or set control.socket to another path", .0.display())]
    NotASocket(PathBuf),
    /// Anything else.
    #[error("the control socket {} cannot be created: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Server {
    /// Creates the socket, and its directory when there is none.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source: io::Error| BindError::Socket {
            path: path.to_owned(),
            source,
        };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let made = std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(dir);
            made.map_err(|source| BindError::Directory {
                dir: dir.to_owned(),
                source,
            })?;
        }
        remove_stale(path)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)
            .map_err(|e| failed(e.into()))?;
        let address = UnixAddr::new(path).map_err(|e| failed(e.into()))?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &address).map_err(|e| failed(e.into()))?;
        // Until listen() nobody can connect, so there is no moment at which the mode matters and is not yet set.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let meta = std::fs::symlink_metadata(path).map_err(failed)?;
        listen(&fd, Backlog::new(64).map_err(|e| failed(e.into()))?)
            .map_err(|e| failed(e.into()))?;
        Ok(Self {
            listener: UnixListener::from_std(fd.into()),
            path: path.to_owned(),
            inode: (meta.dev(), meta.ino()),
            registration: None,
            clients: BTreeMap::new(),
        })
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of clients being served.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Puts the socket under the care of a mio loop. It takes the tokens `first` to `first + TOKENS - 1`.
    pub fn register(&mut self, registry: &Registry, first: Token) -> io::Result<()> {
        registry.register(&mut self.listener, first, Interest::READABLE)?;
        self.registration = Some((registry.try_clone()?, first.0));
        Ok(())
    }

    /// Whether `token` is one of this server's.
    #[must_use]
    pub fn owns(&self, token: Token) -> bool {
        self.slot_of(token).is_some()
    }

    /// Handles an event for `token`; `status` is asked when a client wants to know. A token that is not one of this
    /// server's, or whose client is gone, does nothing.
    pub fn ready(&mut self, token: Token, now: Instant, status: &mut dyn FnMut() -> Status) {
        match self.slot_of(token) {
            Some(0) => self.accept_all(now),
            Some(slot) => self.serve(slot, now, status),
            None => {}
        }
    }

    /// When [`Server::expire`] should be called; `None` while there is no client.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.clients
            .values()
            .map(|client| client.conn.deadline())
            .min()
    }

    /// Closes clients that have been idle for too long.
    pub fn expire(&mut self, now: Instant) {
        let idle: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, client)| client.conn.deadline() <= now)
            .map(|(slot, _)| *slot)
            .collect();
        for slot in idle {
            self.close(slot, now);
        }
    }

    fn slot_of(&self, token: Token) -> Option<usize> {
        let (_, first) = self.registration.as_ref()?;
        token.0.checked_sub(*first).filter(|slot| *slot < TOKENS)
    }

    /// Accepts clients while there are any and there is room. Those beyond wait until [`Server::close`] makes room.
    fn accept_all(&mut self, now: Instant) {
        let Some((registry, first)) = &self.registration else {
            return;
        };
        while let Some(slot) = (1..TOKENS).find(|slot| !self.clients.contains_key(slot)) {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client of the control socket");
                    return;
                }
            };
            let interest = Interest::READABLE | Interest::WRITABLE;
            match registry.register(&mut stream, Token(first + slot), interest) {
                Ok(()) => {
                    self.clients.insert(
                        slot,
                        Client {
                            stream,
                            conn: Conn::new(now),
                        },
                    );
                }
                Err(error) => tracing::warn!(%error, "cannot watch a client of the control socket"),
            }
        }
    }

    fn serve(&mut self, slot: usize, now: Instant, status: &mut dyn FnMut() -> Status) {
        let Some(client) = self.clients.get_mut(&slot) else {
            return;
        };
        match client.progress(now, status) {
            Ok(false) => {}
            Ok(true) => self.close(slot, now),
            Err(error) => {
                tracing::debug!(%error, "a client of the control socket went away");
                self.close(slot, now);
            }
        }
    }

    fn close(&mut self, slot: usize, now: Instant) {
        let Some(mut client) = self.clients.remove(&slot) else {
            return;
        };
        if let Some((registry, _)) = &self.registration {
            // Closing the descriptor would do the same; there is nothing to do about an error.
            let _closed_anyway = registry.deregister(&mut client.stream);
        }
        drop(client);
        // The listener's readiness was used up while there was no room.
        self.accept_all(now);
    }
}

impl Client {
    /// Reads and writes as far as it goes. `Ok(true)` when the answer is out; an end of the stream before is an error.
    fn progress(&mut self, now: Instant, status: &mut dyn FnMut() -> Status) -> io::Result<bool> {
        let mut buffer = [0; super::conn::MAX_REQUEST];
        while self.conn.wants_input() {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self
                    .conn
                    .input(buffer.get(..n).unwrap_or_default(), now, status),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        while !self.conn.is_done() {
            match self.stream.write(self.conn.output()) {
                Ok(n) => self.conn.sent(n, now),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ours = |meta: std::fs::Metadata| (meta.dev(), meta.ino()) == self.inode;
        if std::fs::symlink_metadata(&self.path).is_ok_and(ours)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the control socket");
        }
    }
}

/// Removes the socket that a daemon left which is no more.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Socket {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        // A full backlog is a living daemon's.
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(BindError::InUse(path.to_owned())),
        Err(e) => Err(failed(e)),
    }
}
