// SPDX-License-Identifier: GPL-3.0-or-later
//! What a guest's driver has of its hypervisor: pages that its backend may use, and event channels.
//!
//! A [`Domain`] is a simulated guest, or the real one that this process runs in: so the same frontend meets the daemon
//! in the demo, in the tests, and on a real Xen (`tests/xen`). The frontend's rings and queues are made here.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use xen_ring::page::{Access, SharedPage};
use xen_ring::{
    DomId, EventChannels, GrantRef, LocalPort, RemotePort, SysError, XenEventChannels, grant_pages,
};

use crate::demo::sim::{self, GuestPage, SimGuest};

/// The domain that a frontend is in.
#[derive(Debug, Clone)]
pub enum Domain {
    /// One of the simulated hypervisor's.
    Simulated(SimGuest),
    /// The one that this process runs in, with its backend in this domain.
    Real {
        /// Where the backend is.
        backend: DomId,
    },
}

impl From<SimGuest> for Domain {
    fn from(guest: SimGuest) -> Self {
        Self::Simulated(guest)
    }
}

impl Domain {
    /// So many pages of zeroes that the backend may use.
    ///
    /// # Errors
    /// There is no memory for them, or no grant.
    pub(super) fn granted(
        &self,
        count: usize,
        access: Access,
    ) -> Result<Vec<GrantedPage>, SysError> {
        match self {
            Self::Simulated(guest) => GuestPage::many(count)?
                .into_iter()
                .map(|page| {
                    let grant = guest.grant(&page, access == Access::ReadOnly)?;
                    Ok(GrantedPage {
                        page: page.mapped(),
                        grant: Grant::Simulated(grant),
                    })
                })
                .collect(),
            Self::Real { backend } => {
                let pages = grant_pages(*backend, count, access)?.into_iter();
                let granted = pages.map(|(page, gref)| GrantedPage {
                    page,
                    grant: Grant::Real(gref),
                });
                Ok(granted.collect())
            }
        }
    }

    /// As [`Self::granted`], a page that the backend may read and write.
    ///
    /// # Errors
    /// As there.
    pub(super) fn granted_page(&self) -> Result<GrantedPage, SysError> {
        let mut pages = self.granted(1, Access::ReadWrite)?;
        pages.pop().ok_or(SysError::Call {
            operation: "grant a page",
            errno: nix::errno::Errno::ENOMEM,
        })
    }

    /// A port that the backend may bind.
    ///
    /// # Errors
    /// The hypervisor or the kernel refuses one.
    pub(super) fn alloc_port(&self) -> Result<Port, SysError> {
        match self {
            Self::Simulated(guest) => Ok(Port::Simulated(guest.alloc_port()?)),
            Self::Real { backend } => {
                let mut channels = XenEventChannels::open()?;
                let port = channels.allocate(*backend)?;
                Ok(Port::Real {
                    channels,
                    port,
                    events: AtomicU64::new(0),
                })
            }
        }
    }
}

/// A page that the backend may use.
#[derive(Debug)]
pub(super) struct GrantedPage {
    pub(super) page: SharedPage,
    pub(super) grant: Grant,
}

/// What the backend knows a page by.
#[derive(Debug)]
pub(super) enum Grant {
    /// Ends when it is dropped.
    Simulated(sim::Grant),
    /// Ends with its page.
    Real(GrantRef),
}

impl Grant {
    pub(super) fn gref(&self) -> GrantRef {
        match self {
            Self::Simulated(grant) => grant.gref(),
            Self::Real(gref) => *gref,
        }
    }
}

/// One end of an event channel, whose other end the backend binds. Dropping it closes the channel.
#[derive(Debug)]
pub(super) enum Port {
    Simulated(sim::GuestPort),
    Real {
        /// A device with just this port.
        channels: XenEventChannels,
        port: LocalPort,
        /// Events that have been taken note of.
        events: AtomicU64,
    },
}

impl Port {
    /// The number that goes to xenstore.
    pub(super) fn port(&self) -> RemotePort {
        match self {
            Self::Simulated(port) => port.port(),
            Self::Real { port, .. } => RemotePort::new(port.raw()),
        }
    }

    /// Signals the backend; nothing happens when none is bound.
    pub(super) fn notify(&self) {
        match self {
            Self::Simulated(port) => port.notify(),
            Self::Real { channels, port, .. } => {
                if let Err(error) = channels.notify(*port) {
                    tracing::error!(%error, "the model guest cannot signal its backend");
                }
            }
        }
    }

    /// Forgets the events that have come so far, so that the descriptor is readable only after the next one.
    pub(super) fn clear(&self) {
        match self {
            Self::Simulated(port) => port.clear(),
            Self::Real {
                channels,
                port,
                events,
            } => {
                let mut pending = [0; size_of::<u32>()];
                // EAGAIN: there was none. One that has been read is masked, so it does not come twice.
                if nix::unistd::read(channels.as_fd(), &mut pending).is_ok() {
                    events.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = channels.unmask(&[*port]) {
                        tracing::error!(%error, "the model guest cannot unmask its event channel");
                    }
                }
            }
        }
    }

    /// Events that the backend has sent; of a real one, those that were [cleared](Self::clear).
    pub(super) fn events(&self) -> u64 {
        match self {
            Self::Simulated(port) => port.events(),
            Self::Real { events, .. } => events.load(Ordering::Relaxed),
        }
    }
}

impl AsFd for Port {
    /// Readable when the backend has signalled since the last [`clear`](Self::clear).
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Simulated(port) => port.as_fd(),
            Self::Real { channels, .. } => channels.as_fd(),
        }
    }
}
