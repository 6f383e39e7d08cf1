// SPDX-License-Identifier: GPL-3.0-or-later
//! A hypervisor in this process: grant tables and event channels between simulated guests and the daemon.
//!
//! [`SimHypervisor`] stands where /dev/xen/gntdev and /dev/xen/evtchn are on a real machine and implements the
//! same trait, so the daemon cannot tell. Guests use it through a [`SimGuest`]. What a guest may do wrong (a bad
//! reference, an access that it ends too early, a port of another domain) fails here as it does under Xen.
//! [`SimHypervisor::census`] counts everything in use, so that a leak is a difference of two numbers.

mod events;
mod grants;
mod memory;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::errno::Errno;
use xen_ring::{DomId, Hypervisor, SysError};

pub use events::{GuestPort, SimEventChannels};
pub use grants::{Grant, SimGrants};
pub use memory::GuestPage;

/// The hypervisor as one backend domain sees it. Clones are the same machine.
#[derive(Debug, Clone)]
pub struct SimHypervisor {
    machine: Arc<Machine>,
    backend: DomId,
}

#[derive(Debug, Default)]
struct Machine {
    grants: Arc<grants::GrantTables>,
    events: Arc<events::EventBus>,
}

/// What is in use on the simulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Pages that guests have granted, including ended grants that are still mapped.
    pub granted: usize,
    /// Granted pages that the backend has mapped.
    pub mapped: usize,
    /// Event-channel ports that guests have allocated.
    pub guest_ports: usize,
    /// Event-channel ports that the backend has bound.
    pub bound_ports: usize,
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} grants mapped of {} granted, {} ports bound of {} allocated",
            self.mapped, self.granted, self.bound_ports, self.guest_ports
        )
    }
}

impl SimHypervisor {
    /// A new machine without guests, seen from the backend domain `backend` (0 for dom0).
    #[must_use]
    pub fn new(backend: DomId) -> Self {
        Self {
            machine: Arc::default(),
            backend,
        }
    }

    /// The hypervisor as the guest `dom` sees it.
    #[must_use]
    pub fn guest(&self, dom: DomId) -> SimGuest {
        SimGuest {
            machine: Arc::clone(&self.machine),
            table: self.machine.grants.table(dom),
            dom,
            backend: self.backend,
        }
    }

    /// What is in use now.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            granted: self.machine.grants.granted(),
            mapped: self.machine.grants.mapped(),
            guest_ports: self.machine.events.allocated(),
            bound_ports: self.machine.events.bound(),
        }
    }

    /// Grant-copy operations done so far.
    #[must_use]
    pub fn copies(&self) -> u64 {
        self.machine.grants.copies()
    }
}

impl Hypervisor for SimHypervisor {
    type Grants = SimGrants;
    type EventChannels = SimEventChannels;

    fn open_grants(&self) -> Result<SimGrants, SysError> {
        Ok(SimGrants {
            tables: Arc::clone(&self.machine.grants),
            domain: self.backend,
        })
    }

    fn open_event_channels(&self) -> Result<SimEventChannels, SysError> {
        self.machine.events.open(self.backend)
    }
}

/// The hypervisor as one guest sees it: memory to grant, ports to allocate. Clones are the same guest.
#[derive(Debug, Clone)]
pub struct SimGuest {
    machine: Arc<Machine>,
    table: Arc<grants::Table>,
    dom: DomId,
    backend: DomId,
}

impl SimGuest {
    /// This guest's domain id.
    #[must_use]
    pub fn dom(&self) -> DomId {
        self.dom
    }

    /// Lets the backend domain use `page` until the result is dropped, for reading only if `readonly`.
    ///
    /// # Errors
    /// The table is full (2^32 entries).
    pub fn grant(&self, page: &GuestPage, readonly: bool) -> Result<Grant, SysError> {
        Grant::new(
            Arc::clone(&self.table),
            page.clone(),
            self.backend,
            readonly,
        )
    }

    /// Allocates an event-channel port that the backend domain may bind.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn alloc_port(&self) -> Result<GuestPort, SysError> {
        self.machine.events.alloc(self.dom, self.backend)
    }
}

/// A refusal, as the real devices give it.
const fn refused(operation: &'static str, errno: Errno) -> SysError {
    SysError::Call { operation, errno }
}

// No table here holds an invariant across a panic of its user, so a poisoned lock is as good as another.

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
