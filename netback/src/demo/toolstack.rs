// SPDX-License-Identifier: GPL-3.0-or-later
//! Plays libxl towards one vif: makes its directories, runs "the script", and takes everything away again.
//!
//! Nodes, values, owners and order are those of the recorded life of a vif (`traces/xl-pv-guest-life.txt`). The
//! script is played in this process: it gives the tap an address instead of putting it into a bridge. Tests may
//! leave it out, or let it fail.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hotplug::link;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xenbus::perms::{Access, Perm};
use xenbus::{Client, Transaction, XenbusState, Xs, XsMany, transact};

const STATE_TOKEN: &str = "toolstack-state";

/// What goes into a vif's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VifSpec {
    /// The guest.
    pub guest: u16,
    /// The vif's number within the guest.
    pub handle: u32,
    /// Domain in which the backend runs.
    pub backend: u16,
    /// `mac`, as written; tests write nonsense here.
    pub mac: String,
    /// `script`; `None` leaves the node out.
    pub script: Option<String>,
    /// Whether the `handle` node is written (libxl does; older toolstacks let the hotplug side do it).
    pub with_handle: bool,
    /// More keys of the backend directory, written last; they replace what is there.
    pub extra: Vec<(String, String)>,
}

impl VifSpec {
    /// The first vif of a guest as `xl` would make it.
    #[must_use]
    pub fn new(guest: u16, mac: &str) -> Self {
        Self {
            guest,
            handle: 0,
            backend: 0,
            mac: mac.to_owned(),
            script: Some("/bin/true".to_owned()),
            with_handle: true,
            extra: Vec::new(),
        }
    }

    /// The name under which the tap is made.
    #[must_use]
    pub fn tap(&self) -> String {
        format!("vif{}.{}", self.guest, self.handle)
    }

    /// The backend's directory.
    #[must_use]
    pub fn backend_dir(&self) -> String {
        format!(
            "/local/domain/{}/backend/vif/{}/{}",
            self.backend, self.guest, self.handle
        )
    }

    /// The frontend's directory.
    #[must_use]
    pub fn frontend_dir(&self) -> String {
        format!("/local/domain/{}/device/vif/{}", self.guest, self.handle)
    }

    /// The node, outside of the device's directory, with the backend's last complaint.
    #[must_use]
    pub fn error_node(&self) -> String {
        format!(
            "/local/domain/{}/error/backend/vif/{}/{}/error",
            self.backend, self.guest, self.handle
        )
    }
}

/// A step of the toolstack that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ToolstackError {
    /// The store failed.
    #[error("the toolstack cannot use the store: {0}")]
    Store(#[from] io::Error),
    /// The backend did not get where it should within the time.
    #[error("the backend of {dir} is in state {state} after {waited:?}; waited for {wanted:?}")]
    Timeout {
        /// The backend's directory.
        dir: String,
        /// Where it is.
        state: XenbusState,
        /// Where it should be.
        wanted: XenbusState,
        /// How long it had.
        waited: Duration,
    },
    /// The tap could not be set up.
    #[error("the tap {tap} cannot be set up: {error}")]
    Link {
        /// Its name.
        tap: String,
        /// The kernel's answer.
        error: io::Error,
    },
}

/// How long libxl waits for InitWait and for Closed.
pub const LIBXL_PATIENCE: Duration = Duration::from_secs(10);

/// The toolstack's connection to the store (domain 0).
#[derive(Debug)]
pub struct Toolstack {
    store: Client,
}

impl Toolstack {
    /// A toolstack that works through this connection of domain 0.
    #[must_use]
    pub fn new(store: Client) -> Self {
        Self { store }
    }

    /// The connection, for looking at nodes.
    #[must_use]
    pub fn store(&self) -> &Client {
        &self.store
    }

    /// Makes the guest's home, which the vifs' directories lie in: once per guest.
    ///
    /// # Errors
    /// The store fails.
    pub fn create_domain(&self, guest: u16, name: &str, vcpus: u16) -> Result<(), ToolstackError> {
        transact(&self.store, |store| {
            let home = format!("/local/domain/{guest}");
            let guests_own = [owner(guest), reader(0)];
            make_dir(store, &home, &guests_own)?;
            let dirs = ["device", "device/vif", "error"].map(|dir| format!("{home}/{dir}"));
            store.mkdir_many(&dirs)?;
            store.set_perms_many(&dirs.each_ref().map(|dir| (dir, guests_own.as_slice())))?;
            let facts = [("name", name), ("domid", &guest.to_string())];
            store.write_many(&facts.map(|(key, value)| (format!("{home}/{key}"), value)))?;
            let cpu = |vcpu| (format!("{home}/cpu/{vcpu}/availability"), "online");
            let cpus: Vec<_> = (0..vcpus).map(cpu).collect();
            write_for(store, &cpus, &[owner(0), reader(guest)])
        })?;
        Ok(())
    }

    /// Removes a guest's home, as when a domain is destroyed.
    ///
    /// # Errors
    /// The store fails.
    pub fn destroy_domain(&self, guest: u16) -> Result<(), ToolstackError> {
        Ok(remove(&self.store, &format!("/local/domain/{guest}"))?)
    }

    /// Writes the vif's directories in one transaction, as `xl create` and `xl network-attach` do.
    ///
    /// # Errors
    /// The store fails.
    pub fn create_vif(&self, vif: &VifSpec) -> Result<(), ToolstackError> {
        let (frontend, backend) = (vif.frontend_dir(), vif.backend_dir());
        transact(&self.store, |store| {
            remove(store, &frontend)?;
            let guests_own = [owner(vif.guest), reader(vif.backend)];
            make_dir(store, &frontend, &guests_own)?;
            let handle = vif.handle.to_string();
            let keys = [
                ("backend", backend.as_str()),
                ("backend-id", &vif.backend.to_string()),
                ("state", XenbusState::Initialising.node()),
                ("handle", &handle),
                ("mac", &vif.mac),
                ("trusted", "1"),
            ];
            let keys = keys.map(|(key, value)| (format!("{frontend}/{key}"), value));
            write_for(store, &keys, &guests_own)?;
            let backends_own = [owner(vif.backend), reader(vif.guest)];
            let mtu = vif.extra.iter().find(|(key, _)| key == "mtu");
            let mtu = mtu.map_or("1500", |(_, mtu)| mtu);
            write_for(store, &[(format!("{frontend}/mtu"), mtu)], &backends_own)?;

            remove(store, &backend)?;
            make_dir(store, &backend, &backends_own)?;
            let guest = vif.guest.to_string();
            let mut keys = vec![
                ("frontend", frontend.as_str()),
                ("frontend-id", &guest),
                ("online", "1"),
                ("state", XenbusState::Initialising.node()),
            ];
            keys.extend(vif.script.as_deref().map(|script| ("script", script)));
            keys.extend([("mac", vif.mac.as_str()), ("bridge", "xenbr0")]);
            keys.extend(vif.with_handle.then_some(("handle", handle.as_str())));
            keys.extend([("type", "vif"), ("hotplug-status", "")]);
            keys.extend(
                vif.extra
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str())),
            );
            let keys = keys.iter();
            let nodes = keys.map(|(key, value)| (format!("{backend}/{key}"), *value));
            store.write_many(&nodes.collect::<Vec<_>>())
        })?;
        Ok(())
    }

    /// Waits until the backend is in a state. A missing directory counts as Unknown.
    ///
    /// # Errors
    /// [`ToolstackError::Timeout`].
    pub fn wait_state(
        &self,
        vif: &VifSpec,
        wanted: XenbusState,
        limit: Duration,
    ) -> Result<(), ToolstackError> {
        let node = format!("{}/state", vif.backend_dir());
        self.store.watch(&node, STATE_TOKEN)?;
        let result = self.wait_watched(vif, &node, wanted, limit);
        self.store.unwatch(&node, STATE_TOKEN)?;
        result
    }

    fn wait_watched(
        &self,
        vif: &VifSpec,
        node: &str,
        wanted: XenbusState,
        limit: Duration,
    ) -> Result<(), ToolstackError> {
        let deadline = Instant::now() + limit;
        loop {
            let state = match self.store.read(node) {
                Ok(text) => text.parse().unwrap_or(XenbusState::Unknown),
                Err(error) if error.kind() == io::ErrorKind::NotFound => XenbusState::Unknown,
                Err(error) => return Err(error.into()),
            };
            if state == wanted {
                return Ok(());
            }
            // Events may have come in with the answer just read.
            self.store.poll_events()?;
            if self.store.next_event().is_some() {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ToolstackError::Timeout {
                    dir: vif.backend_dir(),
                    state,
                    wanted,
                    waited: limit,
                });
            }
            let mut fds = [PollFd::new(self.store.as_fd(), PollFlags::POLLIN)];
            match poll(
                &mut fds,
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// Does what the vif script does after InitWait: gives the tap an address, brings it up, and says so.
    ///
    /// # Errors
    /// The tap is not there or cannot be set up, or the store fails.
    pub fn run_script(
        &self,
        vif: &VifSpec,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), ToolstackError> {
        let tap = vif.tap();
        link::add_ipv4(&tap, address, prefix)
            .and_then(|()| link::set_up(&tap))
            .map_err(|error| ToolstackError::Link {
                tap: tap.clone(),
                error,
            })?;
        self.write_frontend_mtu(vif)?;
        self.set_hotplug_status(vif, "connected")
    }

    /// Writes `hotplug-status`, as a script does at its end.
    ///
    /// # Errors
    /// The store fails.
    pub fn set_hotplug_status(&self, vif: &VifSpec, status: &str) -> Result<(), ToolstackError> {
        Ok(self
            .store
            .write(&format!("{}/hotplug-status", vif.backend_dir()), status)?)
    }

    fn write_frontend_mtu(&self, vif: &VifSpec) -> Result<(), ToolstackError> {
        let mtu = link::mtu(&vif.tap()).map_err(|error| ToolstackError::Link {
            tap: vif.tap(),
            error,
        })?;
        Ok(self
            .store
            .write(&format!("{}/mtu", vif.frontend_dir()), &mtu.to_string())?)
    }

    /// The whole of `xl network-attach`: directories, wait for InitWait, script.
    ///
    /// # Errors
    /// As its parts.
    pub fn attach(
        &self,
        vif: &VifSpec,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), ToolstackError> {
        self.create_vif(vif)?;
        self.wait_state(vif, XenbusState::InitWait, LIBXL_PATIENCE)?;
        self.run_script(vif, address, prefix)
    }

    /// Asks the backend to go, as `xl network-detach` does: online 0 and state Closing in one transaction.
    ///
    /// # Errors
    /// The store fails.
    pub fn begin_detach(&self, vif: &VifSpec) -> Result<(), ToolstackError> {
        let backend = vif.backend_dir();
        transact(&self.store, |store| {
            store.write(&format!("{backend}/online"), "0")?;
            let state = format!("{backend}/state");
            if &*store.read(&state)? != XenbusState::Closed.node() {
                store.write(&state, XenbusState::Closing.node())?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Removes both directories, and the empty ones above the backend's.
    ///
    /// # Errors
    /// The store fails.
    pub fn remove_vif(&self, vif: &VifSpec) -> Result<(), ToolstackError> {
        let own = format!("/local/domain/{}/backend/vif", vif.backend);
        transact(&self.store, |store| {
            remove(store, &vif.frontend_dir())?;
            remove(store, &vif.backend_dir())?;
            for dir in [format!("{own}/{}", vif.guest), own.clone()] {
                match store.directory(&dir) {
                    Ok(children) if children.is_empty() => remove(store, &dir)?,
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The whole of `xl network-detach`: ask, wait for Closed, remove.
    ///
    /// # Errors
    /// As its parts.
    pub fn detach(&self, vif: &VifSpec) -> Result<(), ToolstackError> {
        self.begin_detach(vif)?;
        self.wait_state(vif, XenbusState::Closed, LIBXL_PATIENCE)?;
        self.remove_vif(vif)
    }

    /// A node's value, or `None` when there is none.
    ///
    /// # Errors
    /// The store fails.
    pub fn read(&self, node: &str) -> Result<Option<String>, ToolstackError> {
        match self.store.read(node) {
            Ok(text) => Ok(Some(text.into_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

const fn owner(dom: u16) -> Perm {
    Perm::new(Access::None, dom)
}

const fn reader(dom: u16) -> Perm {
    Perm::new(Access::Read, dom)
}

fn make_dir(store: &Transaction, dir: &str, perms: &[Perm]) -> io::Result<()> {
    store.mkdir(dir)?;
    store.set_perms(dir, perms)
}

fn write_for(store: &Transaction, nodes: &[(String, &str)], perms: &[Perm]) -> io::Result<()> {
    store.write_many(nodes)?;
    let perms: Vec<_> = nodes.iter().map(|(node, _)| (node, perms)).collect();
    store.set_perms_many(&perms)
}

fn remove(store: &impl Xs, path: &str) -> io::Result<()> {
    match store.rm(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
