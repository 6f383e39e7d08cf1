// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back end of a shared ring: consumes requests by copy, answers them in order, and decides
//! when to notify and when it is safe to sleep.
//!
//! The index invariants, all in wrapping arithmetic:
//!
//! ```text
//!  rsp_published <= rsp_prod <= req_cons <= req_seen <= rsp_prod + SLOTS
//!       |              |           |           |
//!       |              |           |           +- what the frontend has been seen to publish
//!       |              |           +- requests taken
//!       |              +- responses written
//!       +- responses the frontend may read (the value of rsp_prod in the page)
//! ```
//!
//! All five are private. The page is only ever *told* our indices; nothing that the guest could
//! have changed in it is read back, except the two values that are the guest's to give: `req_prod`,
//! which is bounded on every read, and `rsp_event`, which can at worst cost the guest its own
//! notifications.
//!
//! The use of a ring in a queue pair's turns:
//!
//! ```text
//! loop { take.. respond.. publish (notify) ; if !arm { wait for the event } }
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::error::PeerFault;
use crate::index::Index;
use crate::layout::{FIRST_SLOT, REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD};
use crate::page::{Page, SharedPage};

/// What flows through a ring: its messages, and how they lie in its slots.
pub trait RingKind: 'static {
    /// What the frontend writes. Every bit pattern must be one; judging it comes later.
    type Request: Copy;
    /// What the backend writes.
    type Response: Copy;
    /// Number of slots, a power of two.
    const SLOTS: u32;
    /// Distance of slots, a multiple of 4.
    const SLOT_BYTES: usize;

    /// Copies the request out of the slot at this byte offset of the page.
    fn read_request<P: Page>(page: &P, offset: usize) -> Self::Request;

    /// Writes the response into the slot at this byte offset of the page: every byte of the
    /// response's structure, and none after it (XSA-216).
    fn write_response<P: Page>(page: &P, offset: usize, response: Self::Response);
}

/// Whether the frontend asked for an event for what has just been published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a frontend that is not notified sleeps on"]
pub enum Notify {
    /// Send it.
    Needed,
    /// The frontend is awake, or does not care. An event would be spurious.
    NotNeeded,
}

impl Notify {
    /// Whether an event must be sent.
    #[must_use]
    pub const fn is_needed(self) -> bool {
        matches!(self, Self::Needed)
    }
}

/// A response was offered for which no request has been taken: a bug of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a response was written for which no request had been taken")]
pub struct ResponseOverflow;

/// The backend's end of one ring.
pub struct BackRing<R: RingKind, P: Page = SharedPage> {
    page: P,
    req_seen: Index,
    req_cons: Index,
    rsp_prod: Index,
    rsp_published: Index,
    /// Requests that may be taken without looking at the page again.
    available: u32,
    kind: PhantomData<fn() -> R>,
}

impl<R: RingKind, P: Page> BackRing<R, P> {
    /// Takes over a ring: a fresh one, or one whose former backend has died. The published
    /// `rsp_prod` is the one position that both ends are sure of; requests from there on have not
    /// been answered and are taken (again).
    ///
    /// A backend that was killed between writing responses and publishing them has overwritten
    /// their requests; rings of packets are to be [taken over](BackRing::take_over) therefore.
    ///
    /// # Errors
    ///
    /// [`PeerFault::AttachOverflow`] when the indices in the page cannot belong to a ring.
    pub fn attach(page: P) -> Result<Self, PeerFault> {
        const { assert!(R::SLOTS.is_power_of_two() && R::SLOT_BYTES.is_multiple_of(4)) };
        let rsp_prod = Index::new(page.load(RSP_PROD, Relaxed));
        let req_prod = Index::new(page.load(REQ_PROD, Relaxed));
        if req_prod.distance_from(rsp_prod) > R::SLOTS {
            return Err(PeerFault::AttachOverflow {
                req_prod: req_prod.raw(),
                rsp_prod: rsp_prod.raw(),
                slots: R::SLOTS,
            });
        }
        Ok(Self {
            page,
            req_seen: rsp_prod,
            req_cons: rsp_prod,
            rsp_prod,
            rsp_published: rsp_prod,
            available: 0,
            kind: PhantomData,
        })
    }

    /// How many requests can be taken now: what the frontend has published, but never so many that
    /// requests taken and not yet answered exceed the ring's slots.
    ///
    /// # Errors
    ///
    /// The frontend's index is impossible. The ring is not touched any more.
    pub fn unconsumed(&mut self) -> Result<u32, PeerFault> {
        // Acquire: pairs with the frontend's release of req_prod; the slots before it are written.
        let req_prod = Index::new(self.page.load(REQ_PROD, Acquire));
        let ahead = req_prod.distance_from(self.req_cons);
        if ahead > R::SLOTS {
            self.available = 0;
            return Err(PeerFault::RequestOverflow {
                req_prod: req_prod.raw(),
                req_cons: self.req_cons.raw(),
                slots: R::SLOTS,
            });
        }
        if ahead < self.req_seen.distance_from(self.req_cons) {
            self.available = 0;
            return Err(PeerFault::RequestRewind {
                seen: self.req_seen.raw(),
                req_prod: req_prod.raw(),
            });
        }
        self.req_seen = req_prod;
        self.available = ahead.min(R::SLOTS.saturating_sub(self.unanswered()));
        Ok(self.available)
    }

    /// Takes the next request, by copy, if the last [`unconsumed`](Self::unconsumed) (or what
    /// calls it) has left any.
    pub fn take(&mut self) -> Option<R::Request> {
        self.available = self.available.checked_sub(1)?;
        let request = R::read_request(&self.page, Self::offset(self.req_cons));
        self.req_cons = self.req_cons.plus(1);
        Some(request)
    }

    /// Takes as many requests as there are and fit into `out`, and returns their number.
    ///
    /// # Errors
    ///
    /// As [`unconsumed`](Self::unconsumed); nothing has been taken then.
    pub fn take_into(&mut self, out: &mut [R::Request]) -> Result<usize, PeerFault> {
        self.unconsumed()?;
        let mut taken = 0;
        for place in out {
            let Some(request) = self.take() else { break };
            *place = request;
            taken += 1;
        }
        Ok(taken)
    }

    /// The slot of the next request that can be taken, as it lies in the ring.
    pub(crate) fn next_words<const N: usize>(&self) -> [u32; N] {
        self.page.read_words(Self::offset(self.req_cons))
    }

    /// Takes the next request, if there is one, and counts it as answered: its answer is in its slot.
    pub(crate) fn skip(&mut self) {
        if self.unanswered() == 0 && self.take().is_some() {
            self.rsp_prod = self.rsp_prod.plus(1);
        }
    }

    /// Takes the next request, if there is one, and answers it.
    pub(crate) fn answer_next(&mut self, response: R::Response) {
        if self.unanswered() == 0 && self.take().is_some() {
            // There is room: this request's own.
            let _written = self.respond(response);
        }
    }

    /// Puts the last `count` requests that were taken back, as if they had not been: they stay in
    /// the ring and are taken (and copied, and judged) anew. Requests that have been answered
    /// cannot be put back, so a larger `count` ends there.
    pub fn put_back(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let kept = self.unanswered().saturating_sub(count);
        self.req_cons = self.rsp_prod.plus(kept);
        // What may be taken is counted anew before it is.
        self.available = 0;
    }

    /// Writes the answer to the oldest request that has none, into that request's slot. The
    /// frontend sees it after [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// All requests taken so far have been answered; nothing is written.
    pub fn respond(&mut self, response: R::Response) -> Result<(), ResponseOverflow> {
        if self.unanswered() == 0 {
            return Err(ResponseOverflow);
        }
        R::write_response(&self.page, Self::offset(self.rsp_prod), response);
        self.rsp_prod = self.rsp_prod.plus(1);
        Ok(())
    }

    /// Shows the frontend all responses written so far, and says whether it wants an event for
    /// them. To be called at packet boundaries only: a successor takes over at this point.
    pub fn publish(&mut self) -> Notify {
        let old = self.rsp_published;
        let new = self.rsp_prod;
        if new == old {
            return Notify::NotNeeded;
        }
        // Release: whoever sees the new index sees the responses before it.
        self.page.store(RSP_PROD, new.raw(), Release);
        self.rsp_published = new;
        // Full barrier: our store of rsp_prod before our load of rsp_event. It pairs with the one
        // between the frontend's store of rsp_event and its final look at rsp_prod: at least one
        // of the two sees the other's store, so a frontend never sleeps on unseen responses.
        self.page.full_fence();
        let event = Index::new(self.page.load(RSP_EVENT, Relaxed));
        if new.distance_from(event) < new.distance_from(old) {
            Notify::Needed
        } else {
            Notify::NotNeeded
        }
    }

    /// Asks for an event at the next request, then looks once more. `true`: there are requests
    /// already, go on; `false`: the event will come.
    ///
    /// # Errors
    ///
    /// As [`unconsumed`](Self::unconsumed).
    pub fn arm(&mut self) -> Result<bool, PeerFault> {
        self.page
            .store(REQ_EVENT, self.req_cons.plus(1).raw(), Relaxed);
        // Full barrier: our store of req_event before our load of req_prod. It pairs with the one
        // between the frontend's store of req_prod and its load of req_event (see `publish`).
        self.page.full_fence();
        Ok(self.unconsumed()? > 0)
    }

    /// Takes back what [`arm`](Self::arm) asked for, if it has not come about yet: whoever is awake
    /// for another reason needs no event. One may be on its way all the same.
    pub fn disarm(&mut self) {
        // An event index that is not ahead of the frontend's next request is never crossed.
        self.page.store(REQ_EVENT, self.req_cons.raw(), Relaxed);
    }

    /// Whether the frontend has published anything since the last look. A hint, for a backend that
    /// looks before it sleeps; judging the index is left to [`unconsumed`](Self::unconsumed).
    #[must_use]
    pub fn is_stirring(&self) -> bool {
        Index::new(self.page.load(REQ_PROD, Relaxed)) != self.req_seen
    }

    /// As [`arm`](Self::arm) for a ring on which `wanted` requests are needed at once. `true`:
    /// they are there; `false`: an event will come when the frontend adds any.
    ///
    /// Ends after at most one round per slot: every further round needs a larger `req_prod`, and
    /// that is bounded.
    ///
    /// # Errors
    ///
    /// As [`unconsumed`](Self::unconsumed).
    pub fn arm_for(&mut self, wanted: u32) -> Result<bool, PeerFault> {
        loop {
            if self.unconsumed()? >= wanted {
                return Ok(true);
            }
            let seen = self.req_seen;
            self.page.store(REQ_EVENT, seen.plus(1).raw(), Relaxed);
            // Full barrier: as in `arm`.
            self.page.full_fence();
            let available = self.unconsumed()?;
            if self.req_seen == seen {
                return Ok(available >= wanted);
            }
        }
    }

    /// How many requests have been taken and not yet been answered.
    #[must_use]
    pub const fn unanswered(&self) -> u32 {
        self.req_cons.distance_from(self.rsp_prod)
    }

    /// All indices, as its `Debug` shows them. The page's are as they are there, unchecked.
    #[must_use]
    pub fn snapshot(&self) -> RingSnapshot {
        let shared = |offset| self.page.load(offset, Relaxed);
        RingSnapshot {
            req_prod: shared(REQ_PROD),
            req_event: shared(REQ_EVENT),
            rsp_prod: shared(RSP_PROD),
            rsp_event: shared(RSP_EVENT),
            req_cons: self.req_cons.raw(),
            rsp_prod_pvt: self.rsp_prod.raw(),
        }
    }

    /// The byte offset of an index's slot.
    const fn offset(index: Index) -> usize {
        FIRST_SLOT + index.slot(R::SLOTS) * R::SLOT_BYTES
    }
}

impl<R: RingKind, P: Page> fmt::Debug for BackRing<R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackRing")
            .field("indices", &self.snapshot())
            .finish_non_exhaustive()
    }
}

/// The indices of a ring at one moment: four from the page, two of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSnapshot {
    /// Requests the frontend has published.
    pub req_prod: u32,
    /// The request at which we asked for an event.
    pub req_event: u32,
    /// Responses published.
    pub rsp_prod: u32,
    /// The response at which the frontend asked for an event.
    pub rsp_event: u32,
    /// Requests we have taken.
    pub req_cons: u32,
    /// Responses we have written.
    pub rsp_prod_pvt: u32,
}

impl fmt::Display for RingSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            req_prod,
            req_event,
            rsp_prod,
            rsp_event,
            req_cons,
            rsp_prod_pvt,
        } = self;
        write!(
            f,
            "req prod {req_prod} cons {req_cons} event {req_event}, \
             rsp prod {rsp_prod} pvt {rsp_prod_pvt} event {rsp_event}"
        )
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
#[cfg(test)]
mod tests;
