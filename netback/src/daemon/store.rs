// SPDX-License-Identifier: GPL-3.0-or-later
//! The daemon's connection to xenstored, which may be lost and found again.
//!
//! While it is down, requests fail softly (the caller goes on without) and the data path runs
//! on; the control thread tries to connect with growing pauses, then watches and scans anew.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use xenbus::path::BACKEND_ROOT;
use xenbus::reconnect::Backoff;
use xenbus::{Client, DevicePath, DomId, FrontendPath, is_disconnected};

use crate::logging::{RateLimited, if_any};
use crate::vif::negotiate::LIVE_KEYS;

/// How the daemon gets a connection: to xenstored, or to the demo's own store. The attempt may take
/// as long as is said.
pub type Connect = Box<dyn Fn(Duration) -> io::Result<Client> + Send>;

/// How long xenstored may take until its first answer when the daemon starts.
const START_LIMIT: Duration = Duration::from_secs(5);
/// The same at each later attempt. Meanwhile the control thread does nothing else: neither status
/// nor signal nor script is seen to.
const RETRY_LIMIT: Duration = Duration::from_secs(1);

/// The token of the watch on all devices. The watches on frontends have their devices' paths.
pub(super) const ROOT_TOKEN: &str = "devices";

pub(super) struct Store {
    connect: Connect,
    registry: Registry,
    token: Token,
    link: Link,
    /// What the store refuses it may refuse for ever.
    refusals: RateLimited,
}

enum Link {
    Up(Client),
    Down(Backoff),
}

impl Store {
    /// Connects, and watches for devices: there is a first event at once.
    pub(super) fn open(
        connect: Connect,
        registry: Registry,
        token: Token,
    ) -> io::Result<(Self, DomId)> {
        let (client, domid) = start(&connect, START_LIMIT, &registry, token)?;
        Ok((
            Self {
                connect,
                registry,
                token,
                link: Link::Up(client),
                refusals: RateLimited::new(20, Duration::from_secs(10)),
            },
            domid,
        ))
    }

    pub(super) fn client(&self) -> Option<&Client> {
        match &self.link {
            Link::Up(client) => Some(client),
            Link::Down(_) => None,
        }
    }

    /// Runs `op` on the store. `None` when it failed: then the connection is lost, which is dealt
    /// with when it is back, or the store refused, which is logged as the failure of `what`.
    pub(super) fn ask<T>(
        &mut self,
        device: DevicePath,
        what: &str,
        op: impl FnOnce(&Client) -> io::Result<T>,
    ) -> Option<T> {
        match op(self.client()?) {
            Ok(value) => Some(value),
            Err(error) if is_disconnected(&error) => {
                self.lost(&error);
                None
            }
            Err(error) => {
                if let Some(suppressed) = self.refusals.allow(Instant::now()) {
                    tracing::error!(%device, %error, suppressed = if_any(suppressed), "cannot {what}");
                }
                None
            }
        }
    }

    /// The connection is no more. The first attempt at a new one is due soon.
    pub(super) fn lost(&mut self, error: &io::Error) {
        if let Link::Up(client) = &self.link {
            tracing::error!(%error, "xenstored is gone; packets go on, and it is tried again");
            // The descriptor is closed with the client, which ends the registration too.
            let fd = client.as_raw_fd();
            if let Err(error) = self.registry.deregister(&mut SourceFd(&fd)) {
                tracing::debug!(%error, "the store's descriptor was not registered");
            }
            self.link = Link::Down(Backoff::new(Instant::now()));
        }
    }

    /// When the next attempt is due; `None` while connected.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.link {
            Link::Up(_) => None,
            Link::Down(backoff) => Some(backoff.due()),
        }
    }

    /// Tries to connect, if that is due. `true` if there is a new connection.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        let Link::Down(backoff) = &mut self.link else {
            return false;
        };
        if !backoff.is_due(now) {
            return false;
        }
        match start(&self.connect, RETRY_LIMIT, &self.registry, self.token) {
            Ok((client, _)) => {
                self.link = Link::Up(client);
                tracing::info!("xenstored is back");
                true
            }
            Err(error) => {
                tracing::debug!(%error, "xenstored is still gone");
                // The pause is what others have of the thread: it begins when the attempt is over.
                backoff.failed(Instant::now());
                false
            }
        }
    }
}

/// A store without our own `domid` has been started empty and has not been set up yet: its lack
/// of devices means nothing.
fn start(
    connect: &Connect,
    limit: Duration,
    registry: &Registry,
    token: Token,
) -> io::Result<(Client, DomId)> {
    let deadline = Instant::now() + limit;
    let client = connect(limit)?;
    let domid = client.domid(deadline.saturating_duration_since(Instant::now()))?;
    client.watch_devices(BACKEND_ROOT, ROOT_TOKEN)?;
    let fd = client.as_raw_fd();
    registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
    Ok((client, domid))
}

/// The token of the watch on a device's frontend.
pub(super) fn frontend_token(device: DevicePath) -> String {
    device.dir()
}

/// The nodes of a frontend that may change at any time.
static FRONTEND_NODES: [&str; 1 + LIVE_KEYS.len()] = {
    // All of them: this does not compile with one more or less.
    let [multicast, headroom, disconnect] = LIVE_KEYS;
    ["state", multicast, headroom, disconnect]
};

/// Since when a frontend is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// From now on: the watch fires at once.
    Anew,
    /// It has been before: nothing fires for that.
    Before,
}

/// Watches a frontend: one watch for all its nodes, as a driver domain may have 128 watches only.
pub(super) fn watch_frontend(
    client: &Client,
    device: DevicePath,
    frontend: FrontendPath,
) -> io::Result<Watched> {
    match client.watch_nodes(&frontend.dir(), &frontend_token(device), &FRONTEND_NODES) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Watched::Before),
        other => other.map(|()| Watched::Anew),
    }
}
