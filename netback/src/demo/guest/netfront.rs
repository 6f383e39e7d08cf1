// SPDX-License-Identifier: GPL-3.0-or-later
//! The model frontend: what a guest's network driver does, in the guest's own words.
//!
//! It follows its backend through xenstore as Linux's netfront does ([`Netfront::follow`]), and also runs the
//! cycles that other guests and other moments bring: reload of the driver, a new kernel by kexec, Windows's close
//! cycle before the first connection (`life`). What it sends and receives (`traffic`) goes through one of the
//! connection's queue pairs (`link`), whose rings are in [`queue`](super::queue).
//!
//! It trusts the backend in nothing: what no correct backend does ends up in
//! [`FrontStats::violations`](super::queue::FrontStats::violations).

mod life;
mod link;
mod traffic;

use std::io;

use xen_ring::{GrantRef, SysError};
use xenbus::XenbusState;

use super::control::{Control, ExpectedHash, GREF_READ_ONLY};
use super::domain::Domain;
use super::options::FrontendOptions;
use super::queue::{FrontStats, RxQueue, TxQueue};
use super::store::FrontendStore;
use link::Link;

/// A frontend that could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum NetfrontError {
    /// The store failed.
    #[error("the guest cannot use the store: {0}")]
    Store(#[from] io::Error),
    /// The hypervisor failed.
    #[error("the guest cannot use the hypervisor: {0}")]
    Xen(#[from] SysError),
    /// The backend did not get to the state that was waited for.
    #[error("the backend is in state {state}; the guest waited for {wanted:?}")]
    Timeout {
        /// Any of these would have done.
        wanted: Vec<XenbusState>,
        /// Where the backend is.
        state: XenbusState,
    },
}

/// Where the frontend is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No rings; waits for the backend's InitWait.
    Waiting,
    /// Rings published; waits for the backend's Connected.
    Connecting,
    /// Frames flow.
    Connected,
    /// Closed, by the backend's wish or its own.
    Closed,
}

/// One network device of a simulated guest.
#[derive(Debug)]
pub struct Netfront {
    domain: Domain,
    store: FrontendStore,
    options: FrontendOptions,
    phase: Phase,
    /// The backend's state may be one that nobody has reacted to yet.
    look: bool,
    link: Option<Link>,
    /// Queues of the last connection that had directories of their own.
    directories: usize,
    expected_hash: Option<ExpectedHash>,
    stats: FrontStats,
}

impl Netfront {
    /// A frontend on a device that the toolstack has made. It does nothing yet.
    #[must_use]
    pub fn new(domain: impl Into<Domain>, store: FrontendStore, options: FrontendOptions) -> Self {
        Self {
            domain: domain.into(),
            store,
            options,
            phase: Phase::Waiting,
            look: true,
            link: None,
            directories: 0,
            expected_hash: None,
            stats: FrontStats::default(),
        }
    }

    /// The phase after the last call.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What has happened on the data path since the frontend was made.
    #[must_use]
    pub fn stats(&self) -> &FrontStats {
        &self.stats
    }

    /// The store's side, for tests that write what a frontend should not.
    #[must_use]
    pub fn store(&self) -> &FrontendStore {
        &self.store
    }

    /// As [`store`](Self::store), to give it a new connection.
    pub fn store_mut(&mut self) -> &mut FrontendStore {
        &mut self.store
    }

    /// The first tx queue of the present connection, for tests that write what a frontend should not.
    pub fn tx_queue(&mut self) -> Option<&mut TxQueue> {
        self.tx_queue_of(0)
    }

    /// As [`tx_queue`](Self::tx_queue), of any queue pair.
    pub fn tx_queue_of(&mut self, queue: usize) -> Option<&mut TxQueue> {
        Some(&mut self.link.as_mut()?.pairs.get_mut(queue)?.tx)
    }

    /// As [`tx_queue`](Self::tx_queue), for rx.
    pub fn rx_queue(&mut self) -> Option<&mut RxQueue> {
        Some(&mut self.link.as_mut()?.pairs.first_mut()?.rx)
    }

    /// The control ring of the present connection, if it has one.
    pub fn control(&mut self) -> Option<&mut Control> {
        self.link.as_mut()?.control.as_mut()
    }

    /// From now on every received frame must come with this hash, or without any.
    pub fn expect_hash(&mut self, expected: Option<ExpectedHash>) {
        self.expected_hash = expected;
    }

    /// References and flags, as a control message wants them, of all pages of a queue pair that frames are sent from
    /// (first) and received into.
    #[must_use]
    pub fn packet_pages(&self, queue: usize) -> Option<[Vec<(GrantRef, u16)>; 2]> {
        let pair = self.link.as_ref()?.pairs.get(queue)?;
        let flags = if self.options.tx_readonly {
            GREF_READ_ONLY
        } else {
            0
        };
        let tx = (0..u16::MAX).map_while(|id| Some((pair.tx.page_ref(id)?, flags)));
        let rx = (0..u32::MAX).map_while(|slot| Some((pair.rx.page_ref(slot)?, 0)));
        Some([tx.collect(), rx.collect()])
    }

    /// How the frontend behaves.
    #[must_use]
    pub fn options(&self) -> &FrontendOptions {
        &self.options
    }

    /// Changes how the frontend behaves from the next connection (or the next frame) on.
    pub fn options_mut(&mut self) -> &mut FrontendOptions {
        &mut self.options
    }

    /// Takes the device anew after the toolstack has removed it and made it again.
    ///
    /// # Errors
    /// The store fails.
    pub fn reattach(self, handle: u32) -> Result<Self, NetfrontError> {
        Ok(Self::new(
            self.domain,
            self.store.reopen(handle)?,
            self.options,
        ))
    }
}
