// SPDX-License-Identifier: GPL-3.0-or-later
//! The model frontend's side of xenstore: its own directory, and the backend's state that it follows.
//!
//! Paths of its own are relative to the guest's domain, as a guest's driver writes them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xenbus::{Client, XenbusState, Xs, XsMany, transact};

use super::netfront::NetfrontError;

const BACKEND_STATE: &str = "backend-state";

/// One frontend directory, seen by the guest that owns it.
#[derive(Debug)]
pub struct FrontendStore {
    client: Client,
    dir: String,
    backend: String,
    /// xenstored has gone. Nothing is heard of the backend until [`FrontendStore::resume`].
    lost: bool,
}

impl FrontendStore {
    /// Opens `device/vif/<handle>` of the guest whose connection this is, and watches its backend's state.
    ///
    /// # Errors
    /// The toolstack has not made the directory, or the store fails.
    pub fn open(client: Client, handle: u32) -> Result<Self, NetfrontError> {
        let dir = format!("device/vif/{handle}");
        let backend = client.read(&format!("{dir}/backend"))?.into_string();
        client.watch(&format!("{backend}/state"), BACKEND_STATE)?;
        Ok(Self {
            client,
            dir,
            backend,
            lost: false,
        })
    }

    /// Reads the frontend directory again after the toolstack has made the device anew.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn reopen(self, handle: u32) -> Result<Self, NetfrontError> {
        // The watch goes with the old backend path; a fresh one may be the same path.
        self.client
            .unwatch(&format!("{}/state", self.backend), BACKEND_STATE)?;
        Self::open(self.client, handle)
    }

    /// Goes on over a new connection after xenstored has come back. (In a real guest the connection is the kernel's
    /// and comes back by itself.)
    ///
    /// # Errors
    /// The store fails.
    pub fn resume(&mut self, client: Client) -> Result<(), NetfrontError> {
        client.watch(&format!("{}/state", self.backend), BACKEND_STATE)?;
        self.client = client;
        self.lost = false;
        Ok(())
    }

    /// The backend's state; Unknown when there is none.
    ///
    /// # Errors
    /// The store fails.
    pub fn backend_state(&self) -> Result<XenbusState, NetfrontError> {
        state_of(self.client.read(&format!("{}/state", self.backend)))
    }

    /// This frontend's own state node; Unknown when the toolstack has removed it.
    ///
    /// # Errors
    /// The store fails.
    pub fn state(&self) -> Result<XenbusState, NetfrontError> {
        state_of(self.client.read(&format!("{}/state", self.dir)))
    }

    /// Writes this frontend's state.
    ///
    /// # Errors
    /// The store fails.
    pub fn set_state(&self, state: XenbusState) -> Result<(), NetfrontError> {
        Ok(self
            .client
            .write(&format!("{}/state", self.dir), state.node())?)
    }

    /// Writes any key of the own directory: for frontends that misbehave.
    ///
    /// # Errors
    /// The store fails.
    pub fn set_raw(&self, key: &str, value: &str) -> Result<(), NetfrontError> {
        Ok(self.client.write(&format!("{}/{key}", self.dir), value)?)
    }

    /// A key of the frontend's own directory.
    ///
    /// # Errors
    /// The store fails.
    pub fn own(&self, key: &str) -> Result<Option<String>, NetfrontError> {
        optional(self.client.read(&format!("{}/{key}", self.dir)))
    }

    /// Whether the backend offers a feature.
    ///
    /// # Errors
    /// The store fails.
    pub fn backend_offers(&self, feature: &str) -> Result<bool, NetfrontError> {
        let value = optional(self.client.read(&format!("{}/{feature}", self.backend)))?;
        Ok(value.is_some_and(|text| text != "0"))
    }

    /// The number of queue pairs that the backend takes: 1 where it does not say.
    ///
    /// # Errors
    /// The store fails.
    pub fn backend_queues(&self) -> Result<u16, NetfrontError> {
        let value = optional(
            self.client
                .read(&format!("{}/multi-queue-max-queues", self.backend)),
        )?;
        Ok(value.and_then(|text| text.parse().ok()).unwrap_or(1).max(1))
    }

    /// Writes (or removes, where the value is `None`) keys of the own directory in one transaction.
    ///
    /// # Errors
    /// The store fails.
    pub fn publish(&self, keys: &[(String, Option<String>)]) -> Result<(), NetfrontError> {
        let path = |key: &String| format!("{}/{key}", self.dir);
        transact(&self.client, |store| {
            // What is removed may be a directory that is then written anew.
            for alike in keys.chunk_by(|(_, a), (_, b)| a.is_some() == b.is_some()) {
                let written = alike
                    .iter()
                    .filter_map(|(key, value)| Some((path(key), value.as_deref()?)));
                store.write_many(&written.collect::<Vec<_>>())?;
                let removed = alike.iter().filter(|(_, value)| value.is_none());
                let removed: Vec<_> = removed.map(|(key, _)| path(key)).collect();
                for removed in store.rm_many(&removed) {
                    match removed {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Waits until the backend is in one of the states, and returns which.
    ///
    /// # Errors
    /// [`NetfrontError::Timeout`] says in which state the backend stayed.
    pub fn wait_backend(
        &mut self,
        wanted: &[XenbusState],
        limit: Duration,
    ) -> Result<XenbusState, NetfrontError> {
        let deadline = Instant::now() + limit;
        loop {
            let state = self.backend_state()?;
            if wanted.contains(&state) {
                return Ok(state);
            }
            // Events may have come in with the answer just read.
            if self.drain_events()? {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NetfrontError::Timeout {
                    wanted: wanted.to_vec(),
                    state,
                });
            }
            match self.fd() {
                Some(fd) => wait_readable(fd, left)?,
                None => return Err(io::Error::from(io::ErrorKind::NotConnected).into()),
            }
        }
    }

    /// Takes in what the store has sent; true when the backend's state may have changed. A store that has gone says
    /// nothing, and is no error: a guest's network goes on without.
    ///
    /// # Errors
    /// The store fails otherwise.
    pub fn drain_events(&mut self) -> Result<bool, NetfrontError> {
        if self.lost {
            return Ok(false);
        }
        match self.client.poll_events() {
            Err(error) if xenbus::is_disconnected(&error) => self.lost = true,
            other => _ = other?,
        }
        let mut any = false;
        while let Some(_event) = self.client.next_event() {
            any = true;
        }
        Ok(any && !self.lost)
    }

    /// The descriptor to wait on, readable when there may be events; none while the store is gone.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.lost).then(|| self.client.as_fd())
    }

    /// The connection, for whatever else a test wants to write as this guest.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// A state that cannot be read is Unknown, as for every frontend: of a directory that is gone, a guest learns only
/// that it may not look at what is above it (EACCES).
fn state_of(result: io::Result<Box<str>>) -> Result<XenbusState, NetfrontError> {
    match result {
        Ok(text) => Ok(text.parse().unwrap_or(XenbusState::Unknown)),
        Err(error) if xenbus::is_disconnected(&error) => Err(error.into()),
        Err(_) => Ok(XenbusState::Unknown),
    }
}

fn optional(result: io::Result<Box<str>>) -> Result<Option<String>, NetfrontError> {
    match result {
        Ok(text) => Ok(Some(text.into_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn wait_readable(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    match poll(
        &mut fds,
        PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX),
    ) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
