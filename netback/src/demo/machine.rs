// SPDX-License-Identifier: GPL-3.0-or-later
//! A whole simulated Xen machine in this process: store, hypervisor, toolstack and the real daemon.
//!
//! The demo and the integration tests are written on top of it. The caller's thread must be in a network
//! namespace of its own already ([`namespace`](super::namespace)): the daemon's threads inherit it, and so do the
//! taps.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::unistd::mkdtemp;
use xen_ring::DomId;
use xenbus::fake::FakeXenstored;

use super::guest::netfront::Netfront;
use super::guest::options::FrontendOptions;
use super::guest::store::FrontendStore;
use super::guest::{Guest, GuestAddress};
use super::service_manager::ServiceManager;
use super::sim::SimHypervisor;
use super::toolstack::{Toolstack, ToolstackError};
use crate::config::Config;
use crate::control::client::{self, ClientError};
use crate::control::model::Status;
use crate::daemon::{Daemon, DaemonError, Stopper};
use crate::keeper::{Keeper, Kept};

/// The machine. Dropping it stops the daemon first, then the store.
#[derive(Debug)]
pub struct Machine {
    daemon: Option<Running>,
    config: Config,
    toolstack: Toolstack,
    hypervisor: SimHypervisor,
    xenstored: Arc<FakeXenstored>,
    service_manager: Option<ServiceManager>,
    dir: PrivateDir,
}

/// What does not work on the simulated machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No thread, descriptor or directory; or the embedded store has ended.
    #[error("the simulated machine cannot {what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The daemon did not start, or ended on its own.
    #[error("the daemon: {0}")]
    Daemon(#[from] DaemonError),
    /// The daemon's thread has panicked.
    #[error("the daemon has panicked")]
    Panicked,
    /// The toolstack failed.
    #[error(transparent)]
    Toolstack(#[from] ToolstackError),
    /// The control socket gave no status.
    #[error("the daemon's status: {0}")]
    Status(#[from] ClientError),
}

/// A daemon on its thread.
#[derive(Debug)]
struct Running {
    stopper: Stopper,
    thread: JoinHandle<Result<(), DaemonError>>,
}

impl Machine {
    /// A machine that has been switched on: a store, a toolstack, no guest, no daemon yet.
    ///
    /// Of `config`, the control socket is replaced by one of the machine's own.
    ///
    /// # Errors
    /// [`MachineError::Io`].
    pub fn new(mut config: Config) -> Result<Self, MachineError> {
        let dir = PrivateDir::new().map_err(io_error("make a directory"))?;
        config.control.socket = dir.path.join("control.sock");
        let xenstored = FakeXenstored::spawn().map_err(io_error("start its store"))?;
        let toolstack = xenstored
            .client(0)
            .map_err(io_error("connect to its store"))?;
        Ok(Self {
            daemon: None,
            config,
            toolstack: Toolstack::new(toolstack),
            hypervisor: SimHypervisor::new(DomId::new(0)),
            xenstored: Arc::new(xenstored),
            service_manager: None,
            dir,
        })
    }

    /// Starts the daemon, and waits until it has taken up the devices that are there.
    ///
    /// # Errors
    /// [`MachineError::Daemon`] when it cannot start.
    pub fn start_daemon(&mut self) -> Result<(), MachineError> {
        self.stop_daemon()?;
        let (up, started) = channel();
        let (config, hypervisor) = (self.config.clone(), self.hypervisor.clone());
        let xenstored = Arc::clone(&self.xenstored);
        let passed = self.service_manager.as_mut().map(ServiceManager::pass);
        let passed = passed.transpose().map_err(io_error("pass kept taps on"))?;
        let thread = std::thread::Builder::new()
            .name("netback".to_owned())
            .spawn(move || serve(config, &hypervisor, xenstored, passed, &up))
            .map_err(io_error("start the daemon's thread"))?;
        match started.recv() {
            Ok(stopper) => {
                self.daemon = Some(Running { stopper, thread });
                Ok(())
            }
            // It has ended without a word; its result says why.
            Err(_) => join(thread),
        }
    }

    /// The configuration that the next daemon starts with.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// From the next daemon on, a service manager keeps the taps open while there is none.
    pub fn keep_taps(&mut self) {
        self.service_manager = Some(ServiceManager::new());
    }

    /// How many taps the service manager keeps.
    pub fn taps_kept(&mut self) -> usize {
        let manager = self.service_manager.as_mut();
        manager.map_or(0, ServiceManager::count)
    }

    /// Ends the daemon as `kill` does: it tells nobody, and guests and taps stay as they are.
    ///
    /// # Errors
    /// It had ended on its own before, and why.
    pub fn stop_daemon(&mut self) -> Result<(), MachineError> {
        let Some(running) = self.daemon.take() else {
            return Ok(());
        };
        running
            .stopper
            .stop()
            .map_err(io_error("wake the daemon"))?;
        join(running.thread)
    }

    /// Whether the daemon was started and has not ended on its own.
    #[must_use]
    pub fn daemon_runs(&self) -> bool {
        self.daemon
            .as_ref()
            .is_some_and(|running| !running.thread.is_finished())
    }

    /// Makes a domain known to the store and gives it a home there.
    ///
    /// # Errors
    /// The store fails.
    pub fn create_domain(&self, dom: u16, name: &str, vcpus: u16) -> Result<(), MachineError> {
        self.xenstored
            .introduce(dom)
            .map_err(io_error("introduce a domain"))?;
        Ok(self.toolstack.create_domain(dom, name, vcpus)?)
    }

    /// Takes a domain away, with everything below its home in the store.
    ///
    /// # Errors
    /// The store fails.
    pub fn destroy_domain(&self, dom: u16) -> Result<(), MachineError> {
        self.xenstored
            .with(move |store| store.release(dom))
            .map_err(io_error("release a domain"))
    }

    /// A frontend for a device that the toolstack has made. It does nothing yet.
    ///
    /// # Errors
    /// The store fails.
    pub fn frontend(
        &self,
        dom: u16,
        handle: u32,
        options: FrontendOptions,
    ) -> Result<
        impl FnOnce() -> Result<Netfront, super::guest::netfront::NetfrontError> + Send + use<>,
        MachineError,
    > {
        let client = self
            .xenstored
            .client(dom)
            .map_err(io_error("connect a guest to the store"))?;
        let guest = self.hypervisor.guest(DomId::new(dom));
        Ok(move || {
            Ok(Netfront::new(
                guest,
                FrontendStore::open(client, handle)?,
                options,
            ))
        })
    }

    /// Starts a guest on a device that the toolstack has made.
    ///
    /// # Errors
    /// The store fails, or there is no thread.
    pub fn boot(
        &self,
        dom: u16,
        handle: u32,
        address: GuestAddress,
        options: FrontendOptions,
    ) -> Result<Guest, MachineError> {
        Guest::spawn(address, self.frontend(dom, handle, options)?)
            .map_err(io_error("start a guest"))
    }

    /// What `netback status` would show.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn status(&self) -> Result<Status, MachineError> {
        Ok(client::status(self.socket())?.status()?)
    }

    /// The daemon's control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.config.control.socket
    }

    /// A directory of the machine's own, removed with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir.path
    }

    /// The toolstack.
    #[must_use]
    pub fn toolstack(&self) -> &Toolstack {
        &self.toolstack
    }

    /// Connects the toolstack to the store anew, after the store has dropped its connections.
    ///
    /// # Errors
    /// The store refuses.
    pub fn reconnect_toolstack(&mut self) -> Result<(), MachineError> {
        let client = self
            .xenstored
            .client(0)
            .map_err(io_error("connect to its store"))?;
        self.toolstack = Toolstack::new(client);
        Ok(())
    }

    /// The hypervisor.
    #[must_use]
    pub fn hypervisor(&self) -> &SimHypervisor {
        &self.hypervisor
    }

    /// The store.
    #[must_use]
    pub fn xenstored(&self) -> &FakeXenstored {
        &self.xenstored
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.stop_daemon() {
            tracing::error!(%error, "the simulated machine's daemon ended badly");
        }
    }
}

/// The daemon's thread.
fn serve(
    config: Config,
    hypervisor: &SimHypervisor,
    xenstored: Arc<FakeXenstored>,
    passed: Option<(Keeper, Kept)>,
    up: &Sender<Stopper>,
) -> Result<(), DaemonError> {
    let mut daemon = Daemon::new(config, hypervisor, Box::new(move |_| xenstored.client(0)))?;
    if let Some((keeper, kept)) = passed {
        daemon.keep_taps(keeper, kept);
    }
    let stopper = daemon.stopper();
    daemon.run(|| {
        // The machine waits for it; if it is gone, so is the reason to run.
        if up.send(stopper.clone()).is_err() && stopper.stop().is_err() {
            tracing::error!("the daemon outlives its machine");
        }
    })
}

fn join(thread: JoinHandle<Result<(), DaemonError>>) -> Result<(), MachineError> {
    thread
        .join()
        .map_err(|_| MachineError::Panicked)?
        .map_err(MachineError::from)
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> MachineError {
    move |error| MachineError::Io { what, error }
}

/// A directory that only this user can enter, removed when dropped.
#[derive(Debug)]
struct PrivateDir {
    path: PathBuf,
}

impl PrivateDir {
    fn new() -> io::Result<Self> {
        let path = mkdtemp(&std::env::temp_dir().join("netback-demo-XXXXXX"))?;
        Ok(Self { path })
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary directory is left behind");
        }
    }
}
