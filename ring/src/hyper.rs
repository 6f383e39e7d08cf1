// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a backend needs from a hypervisor, as three traits.
//!
//! The daemon is generic over [`Hypervisor`]. [`crate::XenHypervisor`] is the real one; the demo
//! and the integration tests bring a simulated one with a grant table and event channels of its
//! own. Every worker thread opens its own [`Grants`] and [`EventChannels`].

use std::os::fd::AsFd;

use crate::copy::CopyBatch;
use crate::error::SysError;
use crate::ids::{DomId, GrantRef, LocalPort, RemotePort};
use crate::page::{Access, SharedPage, StaticPage};

/// Access to pages that other domains have granted to this one.
pub trait Grants: Send {
    /// Maps one page for reading and writing. It is unmapped when the last clone of the returned
    /// page goes, whether or not `self` is still there.
    ///
    /// # Errors
    ///
    /// [`SysError::MapGrant`] when the reference is not (or not any more) granted to this domain.
    fn map_page(&self, dom: DomId, gref: GrantRef) -> Result<SharedPage, SysError>;

    /// Maps a packet page that is to stay mapped. Unlike [`map_page`](Self::map_page) it does not
    /// wait for a page that is paged out, since a guest may ask for hundreds: that is an error.
    /// Unmapped as that one is.
    ///
    /// # Errors
    ///
    /// [`SysError::MapGrant`] when the reference is not granted to this domain, or not for writing
    /// where that is asked for, or when the page is paged out, or there is no room for mappings.
    fn map_static(
        &self,
        dom: DomId,
        gref: GrantRef,
        access: Access,
    ) -> Result<StaticPage, SysError>;

    /// A batch of at most `ops` operations over `bytes` bytes of memory, of the kind that copies
    /// of this domain, `own`, are done best with.
    ///
    /// # Errors
    ///
    /// There is no memory.
    fn batch(&self, own: DomId, ops: usize, bytes: usize) -> Result<CopyBatch, SysError>;

    /// Carries out every operation of the batch; the outcome of each is then in
    /// [`CopyBatch::status`]. An empty batch costs no call.
    ///
    /// # Errors
    ///
    /// The call as a whole failed. Then no status is to be believed, and every operation counts
    /// as failed.
    fn copy(&self, batch: &mut CopyBatch) -> Result<(), SysError>;
}

/// A set of event channels with one file descriptor that is readable while a port is pending.
///
/// A port that has been reported is masked until [`unmask`](Self::unmask): events that arrive
/// meanwhile are kept and reported after it. A queue pair's turn is therefore: learn the port from
/// [`pending`](Self::pending), work on its ring, and unmask when the ring is empty and armed.
pub trait EventChannels: Send + AsFd {
    /// Binds to the frontend's port and returns ours, which is pending at once (the frontend may
    /// have sent events before anyone listened).
    ///
    /// # Errors
    ///
    /// [`SysError::Bind`] when the port is not offered to this domain or is bound already.
    fn bind(&mut self, dom: DomId, port: RemotePort) -> Result<LocalPort, SysError>;

    /// Closes our end. The port is not reported again.
    ///
    /// # Errors
    ///
    /// The port is not bound here.
    fn unbind(&mut self, port: LocalPort) -> Result<(), SysError>;

    /// Sends the frontend an event.
    ///
    /// # Errors
    ///
    /// The port is not bound here.
    fn notify(&self, port: LocalPort) -> Result<(), SysError>;

    /// Appends all ports that have become pending since, without blocking, until there are none.
    /// They stay masked until [`unmask`](Self::unmask). A port may be reported that has nothing
    /// to say; one that has is never left out.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be read.
    fn pending(&mut self, out: &mut Vec<LocalPort>) -> Result<(), SysError>;

    /// Lets these ports be reported again. Ports that are not masked stay as they are.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be written.
    fn unmask(&self, ports: &[LocalPort]) -> Result<(), SysError>;
}

/// A way to open grants and event channels, shared by all threads.
pub trait Hypervisor: Send + Sync + 'static {
    /// Its grant access.
    type Grants: Grants;
    /// Its event channels.
    type EventChannels: EventChannels;

    /// Opens an independent grant access.
    ///
    /// # Errors
    ///
    /// [`SysError::Open`] and what else the hypervisor's device can answer.
    fn open_grants(&self) -> Result<Self::Grants, SysError>;

    /// Opens an independent set of event channels, empty at first.
    ///
    /// # Errors
    ///
    /// [`SysError::Open`] and what else the hypervisor's device can answer.
    fn open_event_channels(&self) -> Result<Self::EventChannels, SysError>;
}
