// SPDX-License-Identifier: MIT OR Apache-2.0
//! An independent front end of the rings, for the demo's simulated guest and for tests.
//!
//! It is written from the protocol's description, not from [`crate::back`]: offsets, slot sizes,
//! message layouts and index arithmetic are all here a second time, so that an error on one side
//! shows as a disagreement. It trusts the backend no more than the backend trusts it: an answer
//! that cannot be is a [`FrontFault`]. And it can lie on purpose.

mod messages;

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::page::{Page, SharedPage};

pub use messages::{
    FrontCtrl, FrontCtrlRequest, FrontCtrlResponse, FrontExtra, FrontRx, FrontRxRequest,
    FrontRxResponse, FrontRxSlot, FrontTx, FrontTxRequest, FrontTxResponse, FrontTxSlot, rx_flags,
    tx_flags,
};

/// The messages of one ring as the guest sees them.
pub trait FrontKind: 'static {
    /// What the guest writes.
    type Request: Copy;
    /// What it reads.
    type Response: Copy;
    /// Distance of slots in bytes.
    const STRIDE: usize;
    /// Number of slots.
    const COUNT: u32;

    /// Writes a request at this byte offset.
    fn put<P: Page>(page: &P, offset: usize, request: Self::Request);

    /// Reads a response at this byte offset.
    fn get<P: Page>(page: &P, offset: usize) -> Self::Response;
}

/// What a frontend can find wrong with its backend, or with itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontFault {
    /// More responses than requests.
    #[error(
        "the backend published response {rsp_prod}, but only {req_prod} requests have been sent \
         ({rsp_cons} answered so far)"
    )]
    TooManyResponses {
        /// The backend's index.
        rsp_prod: u32,
        /// Ours.
        req_prod: u32,
        /// Responses read so far.
        rsp_cons: u32,
    },
    /// No slot is free.
    #[error("all slots of the ring hold requests that have not been answered")]
    Full,
}

/// The frontend's end of one ring.
pub struct FrontRing<R: FrontKind, P: Page = SharedPage> {
    page: P,
    /// Requests written, published or not.
    written: u32,
    /// Requests published.
    sent: u32,
    /// Responses read.
    read: u32,
    kind: PhantomData<fn() -> R>,
}

// Byte offsets within the page, from Xen's public header io/ring.h (`DEFINE_RING_TYPES`).
const AT_REQ_PROD: usize = 0;
const AT_REQ_EVENT: usize = 4;
const AT_RSP_PROD: usize = 8;
const AT_RSP_EVENT: usize = 12;
const AT_SLOTS: usize = 64;

impl<R: FrontKind, P: Page> FrontRing<R, P> {
    /// Initialises the page as a guest does before it grants it: nothing produced, events wanted
    /// for the first of each.
    pub fn init(page: P) -> Self {
        Self::init_at(page, 0)
    }

    /// As [`init`](Self::init) with the indices somewhere else, for example just before they wrap.
    pub fn init_at(page: P, start: u32) -> Self {
        page.store(AT_REQ_PROD, start, Relaxed);
        page.store(AT_RSP_PROD, start, Relaxed);
        page.store(AT_REQ_EVENT, start.wrapping_add(1), Relaxed);
        page.store(AT_RSP_EVENT, start.wrapping_add(1), Release);
        Self {
            page,
            written: start,
            sent: start,
            read: start,
            kind: PhantomData,
        }
    }

    /// Slots that can be filled.
    #[must_use]
    pub const fn free(&self) -> u32 {
        R::COUNT - self.written.wrapping_sub(self.read)
    }

    /// Writes a request into the next slot and returns its index. The backend sees it after
    /// [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// [`FrontFault::Full`].
    pub fn push(&mut self, request: R::Request) -> Result<u32, FrontFault> {
        if self.free() == 0 {
            return Err(FrontFault::Full);
        }
        let index = self.written;
        R::put(&self.page, Self::place(index), request);
        self.written = index.wrapping_add(1);
        Ok(index)
    }

    /// Shows the backend all requests written so far. `true`: it wants an event.
    #[must_use = "a backend that is not notified sleeps on"]
    pub fn publish(&mut self) -> bool {
        let (before, now) = (self.sent, self.written);
        // Release: the slots before the index.
        self.page.store(AT_REQ_PROD, now, Release);
        self.sent = now;
        // Full barrier: our index before our look at the backend's wish.
        self.page.full_fence();
        let wish = self.page.load(AT_REQ_EVENT, Relaxed);
        // Does the wish lie in (before, now]?
        wish.wrapping_sub(before).wrapping_sub(1) < now.wrapping_sub(before)
    }

    /// How many responses can be read.
    ///
    /// # Errors
    ///
    /// [`FrontFault::TooManyResponses`].
    pub fn unread(&self) -> Result<u32, FrontFault> {
        // Acquire: the responses before the index.
        let rsp_prod = self.page.load(AT_RSP_PROD, Acquire);
        let unread = rsp_prod.wrapping_sub(self.read);
        if unread > self.sent.wrapping_sub(self.read) {
            let (req_prod, rsp_cons) = (self.sent, self.read);
            return Err(FrontFault::TooManyResponses {
                rsp_prod,
                req_prod,
                rsp_cons,
            });
        }
        Ok(unread)
    }

    /// Reads the next response and the index of its slot (that of the request which it answers).
    ///
    /// # Errors
    ///
    /// [`FrontFault::TooManyResponses`].
    pub fn take(&mut self) -> Result<Option<(u32, R::Response)>, FrontFault> {
        if self.unread()? == 0 {
            return Ok(None);
        }
        let index = self.read;
        self.read = index.wrapping_add(1);
        Ok(Some((index, R::get(&self.page, Self::place(index)))))
    }

    /// Asks for an event at the next response and looks once more. `true`: there are responses
    /// already.
    ///
    /// # Errors
    ///
    /// [`FrontFault::TooManyResponses`].
    pub fn arm(&mut self) -> Result<bool, FrontFault> {
        self.page
            .store(AT_RSP_EVENT, self.read.wrapping_add(1), Relaxed);
        // Full barrier: our wish before our look at the backend's index.
        self.page.full_fence();
        Ok(self.unread()? > 0)
    }

    /// Requests that have been published and whose answers have not been read.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.sent.wrapping_sub(self.read)
    }

    /// Index of the next request to be written.
    #[must_use]
    pub const fn next_index(&self) -> u32 {
        self.written
    }

    /// Sets the shared `req_prod` to anything, as only a hostile guest does.
    pub fn lie_req_prod(&self, value: u32) {
        self.page.store(AT_REQ_PROD, value, Release);
    }

    /// Sets the shared `rsp_prod` to anything, as only a hostile guest does.
    pub fn lie_rsp_prod(&self, value: u32) {
        self.page.store(AT_RSP_PROD, value, Release);
    }

    /// The shared page, to do anything with.
    #[must_use]
    pub const fn page(&self) -> &P {
        &self.page
    }

    /// Byte offset of the slot that an index has.
    #[must_use]
    pub const fn place(index: u32) -> usize {
        AT_SLOTS + (index % R::COUNT) as usize * R::STRIDE
    }
}

impl<R: FrontKind, P: Page> fmt::Debug for FrontRing<R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrontRing")
            .field("written", &self.written)
            .field("sent", &self.sent)
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}
