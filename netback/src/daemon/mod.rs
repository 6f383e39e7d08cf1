// SPDX-License-Identifier: GPL-3.0-or-later
//! The control thread: one loop that owns the store, the devices, the scripts, the control socket
//! and the timers, and commands the workers.
//!
//! | file | what it is |
//! |---|---|
//! | `mod` | the loop: from what woke it to a device's event |
//! | `devices` | which there are, and what the store says of them |
//! | `vif` | one device: its machine, its belongings |
//! | `connect` | a connection's beginning and end |
//! | `connection` | one connection's queue pairs, taken as one |
//! | `perform` | what each of the machine's actions means |
//! | `netif` | the tap: made, found, waited for, removed |
//! | `script` | the vif script, when the daemon runs it |
//! | `host` | what the devices share |
//! | `limits` | rates |
//! | `carrier` | whether there is somebody at the other end, shown to both |
//! | `stall` | guests that do not take what comes for them |
//! | `losses` | what found no room in the tap |
//! | `looks` | looks at a frontend, and how many its guest can bring about |
//! | `live` | multicast, XDP, link state, MTU: what may change |
//! | `store` | the connection to xenstored, lost and found |
//! | `timers` | what is due when |
//! | `error` | why it cannot start or go on |
//! | `orphans` | taps and errors of devices that are gone |
//! | `status` | what `netback status` shows |
//!
//! It is crash-only: when it stops, by a signal or by `kill -9`, frontends stay connected, taps
//! stay in their bridges, and nothing is written to the store. The next daemon finds everything
//! it needs there, in the rings and in the taps, and goes on.

mod carrier;
mod connect;
mod connection;
mod devices;
mod error;
mod host;
mod limits;
mod live;
mod looks;
pub(crate) mod losses;
mod netif;
mod orphans;
mod perform;
mod script;
mod stall;
mod status;
mod store;
mod timers;
mod vif;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hotplug::LinkMonitor;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use xen_ring::Hypervisor;
use xenbus::backend::Event;
use xenbus::scan::Scanner;
use xenbus::{DevicePath, DomId};

use crate::config::Config;
use crate::control::server::Server;
use crate::keeper::{Keeper, Kept};
use crate::preflight;
use crate::worker::{Report, Workers};
pub use error::DaemonError;
use host::{FIRST_SCRIPT, Host};
pub use store::Connect;
use store::Store;
use timers::Due;
use vif::Vif;

const STORE: Token = Token(0);
const WAKER: Token = Token(1);
const LINKS: Token = Token(2);
/// The control socket's, and those of its clients from here on.
const CONTROL: Token = Token(3);
const EVENTS_PER_POLL: usize = 64;
/// Timers that go off before everything else has its turn: what they bring about may be a connection.
const DUE_PER_ROUND: usize = 64;

/// The daemon, ready to run.
pub struct Daemon {
    poll: Poll,
    host: Host,
    control: Server,
    links: LinkMonitor,
    scanner: Scanner,
    vifs: BTreeMap<DevicePath, Vif>,
    /// Forgotten here, but not yet by the scanner: that takes a look at the store.
    to_forget: Vec<DevicePath>,
    orphans_removed: bool,
    /// The store has sent something that has not been taken in.
    unread: bool,
    domid: DomId,
    started: Instant,
    stop: Stopper,
}

/// Ends a running daemon from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Daemon {
    /// Connects to the store, opens the control socket and starts the workers.
    ///
    /// # Errors
    ///
    /// [`DaemonError`]; nothing is left behind.
    pub fn new<H: Hypervisor>(
        config: Config,
        hypervisor: &H,
        connect: Connect,
    ) -> Result<Self, DaemonError> {
        let poll = Poll::new().map_err(DaemonError::Loop)?;
        let registry = || poll.registry().try_clone().map_err(DaemonError::Loop);
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(DaemonError::Loop)?);
        let mut control = Server::bind(&config.control.socket)?;
        control
            .register(poll.registry(), CONTROL)
            .map_err(DaemonError::Loop)?;
        let links = LinkMonitor::new().map_err(DaemonError::Links)?;
        poll.registry()
            .register(
                &mut SourceFd(&links.as_fd().as_raw_fd()),
                LINKS,
                Interest::READABLE,
            )
            .map_err(DaemonError::Links)?;
        let (store, domid) =
            Store::open(connect, registry()?, STORE).map_err(DaemonError::Store)?;
        let own = xen_ring::DomId::new(domid.raw());
        let joins = config.tap.join_datagrams && hotplug::tap::takes_udp_segments();
        let workers = Workers::start(config.worker_count(), hypervisor, own, &waker, joins)?;
        let host = Host::new(config, store, workers, registry()?);
        let stop = Stopper {
            stop: Arc::default(),
            waker,
        };
        Ok(Self {
            poll,
            host,
            control,
            links,
            scanner: Scanner::new(),
            vifs: BTreeMap::new(),
            to_forget: Vec::new(),
            orphans_removed: false,
            unread: false,
            domid,
            started: Instant::now(),
            stop,
        })
    }

    /// From now on says of each new device if the kernel's driver, loaded in the meantime, is there beside this daemon.
    /// Not for a simulated Xen, which that driver has nothing to do with.
    pub fn look_for_the_kernels_driver(&mut self, machine: preflight::Host) {
        self.host.machine = Some(machine);
    }

    /// From now on has taps kept open for the next daemon, and takes up those that were kept for this one.
    pub fn keep_taps(&mut self, keeper: Keeper, kept: Kept) {
        if !kept.is_empty() {
            tracing::info!(taps = kept.len(), "taps were kept open for this daemon");
        }
        self.host.keeper = Some(keeper);
        self.host.kept = kept;
    }

    /// A handle that ends [`Self::run`] from another thread.
    pub fn stopper(&self) -> Stopper {
        self.stop.clone()
    }

    /// The control socket's path.
    pub fn control_socket(&self) -> &Path {
        self.control.path()
    }

    /// Serves all devices until stopped. `ready` is called once, after the devices that were
    /// there already have been taken up.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Loop`] or [`DaemonError::Worker`], which no guest and no toolstack can bring about.
    pub fn run(mut self, ready: impl FnOnce()) -> Result<(), DaemonError> {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            domid = %self.domid,
            workers = self.host.workers.count(),
            "netback is running"
        );
        self.scan();
        ready();
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        let mut more = self.store_events();
        while !self.is_over() {
            let timeout = if more {
                Some(Duration::ZERO)
            } else {
                self.timeout(Instant::now())
            };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(DaemonError::Loop(error));
                }
                _ => {}
            }
            for event in &events {
                self.woken(event.token())?;
            }
            self.due(Instant::now());
            more = !self.stop.is_stopped() && self.store_events();
        }
        tracing::info!(
            vifs = self.vifs.len(),
            "netback stops; guests and taps stay as they are"
        );
        Ok(())
    }

    /// Whether it was told to stop, and no script runs that has yet to end: within its time limit. One
    /// that is cut off leaves a tap half plugged in, and the next daemon does not know. What the
    /// store tells meanwhile is for the next one, so no further script starts but the `offline` of
    /// a device that went while its `online` ran; packets go on.
    fn is_over(&self) -> bool {
        self.stop.is_stopped() && !self.vifs.values().any(Vif::runs_a_script)
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let retry = self.host.store.due().filter(|_| !self.stop.is_stopped());
        let at = [retry, self.control.deadline()];
        let at = at
            .into_iter()
            .flatten()
            .map(|at| at.saturating_duration_since(now));
        at.chain(self.host.timers.timeout(now)).min()
    }

    fn woken(&mut self, token: Token) -> Result<(), DaemonError> {
        match token {
            STORE => self.unread = true,
            WAKER => {
                for report in self.host.workers.reports() {
                    self.reported(report)?;
                }
            }
            LINKS => self.links_changed(),
            token if self.control.owns(token) => {
                let Self {
                    control,
                    vifs,
                    host,
                    domid,
                    started,
                    stop,
                    ..
                } = self;
                let mut status = || status::status(vifs, host, *domid, *started, stop.is_stopped());
                control.ready(token, Instant::now(), &mut status);
            }
            Token(FIRST_SCRIPT..) => {
                if let Some(path) = self.host.script_owner(token) {
                    self.script_ready(path);
                }
            }
            Token(_) => {}
        }
        Ok(())
    }

    /// Somebody has changed network interfaces: taps, perhaps.
    fn links_changed(&mut self) {
        let changed = match self.links.changed() {
            Ok(changed) => changed,
            Err(error) => {
                tracing::error!(%error, "changes to network interfaces cannot be heard of");
                return;
            }
        };
        let concerned: Vec<_> = self
            .vifs
            .iter()
            .filter(|(_, vif)| vif.is_concerned(&changed))
            .map(|(path, _)| *path)
            .collect();
        for path in concerned {
            self.with_vif(path, |vif, host| {
                if let Some(event) = vif.follow_tap(host) {
                    vif.feed(event, host);
                }
            });
        }
    }

    /// What has come due: timers, a bounded number of them, clients of the control socket, the next try at
    /// the store. Of a daemon that is told to stop, only what ends.
    fn due(&mut self, now: Instant) {
        self.control.expire(now);
        for _ in 0..DUE_PER_ROUND {
            let Some(due) = self.host.timers.pop(now) else {
                break;
            };
            match due {
                Due::Resync(_) | Due::Look(_) | Due::Netif(_) if self.stop.is_stopped() => {}
                Due::HotplugWait(path) => self.with_vif(path, |vif, _| vif.still_waiting()),
                Due::Script(path) => self.script_ready(path),
                Due::Show(path) => self.with_vif(path, Vif::show_host),
                Due::Netif(path) => self.with_vif(path, Vif::look_at_tap),
                Due::Look(path) => self.with_vif(path, Vif::late_look),
                Due::Resync(path) => self.with_vif(path, Vif::resync),
            }
        }
        if !self.stop.is_stopped() && self.host.store.retry(now) {
            // The watches went with the connection.
            for vif in self.vifs.values_mut() {
                vif.frontend_watched = false;
            }
            self.scan();
            for path in self.vifs.keys().copied().collect::<Vec<_>>() {
                self.with_vif(path, Vif::resync);
            }
        }
    }

    fn reported(&mut self, report: Report) -> Result<(), DaemonError> {
        match report {
            Report::Queue { queue, what } => self.with_vif(queue.device, |vif, host| {
                if let Some(event) = vif.reported(queue, what, host) {
                    vif.feed(event, host);
                }
            }),
            Report::Ended { worker, why } => {
                return Err(DaemonError::Worker {
                    number: worker.number(),
                    source: why
                        .err()
                        .unwrap_or_else(|| io::Error::other("it was told to stop")),
                });
            }
        }
        Ok(())
    }

    fn script_ready(&mut self, path: DevicePath) {
        self.with_vif(path, |vif, host| {
            if let Some(event) = vif.script_ready(Instant::now(), host) {
                vif.feed(event, host);
            }
        });
    }

    fn feed(&mut self, path: DevicePath, event: Event) {
        self.with_vif(path, |vif, host| vif.feed(event, host));
    }

    /// Does something with a device, and drops its record if that was the end of it.
    fn with_vif(&mut self, path: DevicePath, act: impl FnOnce(&mut Vif, &mut Host)) {
        let Some(vif) = self.vifs.get_mut(&path) else {
            return;
        };
        act(vif, &mut self.host);
        if vif.forgotten {
            self.vifs.remove(&path);
            self.to_forget.push(path);
        }
    }
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon")
            .field("vifs", &self.vifs)
            .finish_non_exhaustive()
    }
}

impl Stopper {
    /// Ends the daemon's loop.
    ///
    /// # Errors
    ///
    /// When the loop cannot be woken, which nothing but a defect here can cause.
    pub fn stop(&self) -> io::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.waker.wake()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
