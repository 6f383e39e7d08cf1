// SPDX-License-Identifier: GPL-3.0-or-later
//! The model frontend: what a guest's network driver does, in the guest's own words.
//!
//! It follows its backend through xenstore as Linux's netfront does ([`Netfront::follow`]), and also runs the
//! cycles that other guests and other moments bring: reload of the driver, a new kernel by kexec, Windows's close
//! cycle before the first connection. The data path is in [`queue`](super::queue).
//!
//! It trusts the backend in nothing: what no correct backend does ends up in
//! [`FrontStats::violations`](super::queue::FrontStats::violations).

mod link;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use xen_ring::{GrantRef, SysError};
use xenbus::XenbusState;

use super::checksum::{self, Checksum};
use super::control::{Control, ExpectedHash, GREF_READ_ONLY};
use super::options::FrontendOptions;
use super::queue::{FrontStats, Received, RxQueue, TxFull, TxMeta, TxQueue};
use super::store::FrontendStore;
use crate::demo::sim::{GuestPort, SimGuest};
use link::Link;

/// A frontend that could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum NetfrontError {
    /// The store failed.
    #[error("the guest cannot use the store: {0}")]
    Store(#[from] io::Error),
    /// The simulated hypervisor failed.
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
    guest: SimGuest,
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
    pub fn new(guest: SimGuest, store: FrontendStore, options: FrontendOptions) -> Self {
        Self {
            guest,
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

    /// Waits for the backend's InitWait, publishes the rings, and waits for Connected.
    ///
    /// # Errors
    /// The backend does not play along within `limit` per step, or the store or hypervisor fails.
    pub fn connect(&mut self, limit: Duration) -> Result<(), NetfrontError> {
        self.wait(&[XenbusState::InitWait], limit)?;
        self.publish()?;
        self.wait(&[XenbusState::Connected], limit)?;
        self.phase = Phase::Connected;
        Ok(())
    }

    /// Publishes rings and channels and says Connected, whatever the backend's state is.
    ///
    /// # Errors
    /// The store or hypervisor fails.
    pub fn publish(&mut self) -> Result<(), NetfrontError> {
        self.link = None;
        let link = Link::new(&self.guest, &self.store, &self.options)?;
        let mut keys = link.keys(&self.options, self.directories);
        keys.extend(self.options.overrides.iter().cloned());
        self.store.publish(&keys)?;
        self.directories = link.directories();
        self.link = Some(link);
        self.store.set_state(XenbusState::Connected)?;
        self.phase = Phase::Connecting;
        Ok(())
    }

    /// Reacts to the backend's present state, without waiting; returns the phase after that.
    ///
    /// # Errors
    /// The store or hypervisor fails.
    pub fn follow(&mut self) -> Result<Phase, NetfrontError> {
        use XenbusState::{Closed, Closing, Connected, InitWait, Unknown};
        self.news()?;
        if !std::mem::replace(&mut self.look, false) {
            return Ok(self.phase);
        }
        let backend = match self.store.backend_state() {
            Err(NetfrontError::Store(error)) if xenbus::is_disconnected(&error) => {
                // To be looked at when the store is back.
                self.look = true;
                return Ok(self.phase);
            }
            state => state?,
        };
        match (self.phase, backend) {
            (Phase::Waiting, InitWait) => self.publish()?,
            (Phase::Connecting, Connected) => self.phase = Phase::Connected,
            (Phase::Connecting | Phase::Connected | Phase::Waiting, Closing) => {
                // The rings stay until the backend has let go of them.
                self.phase = Phase::Closed;
                self.store.set_state(Closed)?;
            }
            (Phase::Connecting | Phase::Connected, Closed) => {
                self.phase = Phase::Closed;
                self.link = None;
                self.store.set_state(Closed)?;
            }
            (Phase::Connecting | Phase::Connected, Unknown) => {
                self.phase = Phase::Closed;
                self.link = None;
            }
            (Phase::Closed, Closed | InitWait | Unknown) => self.link = None,
            _ => {}
        }
        Ok(self.phase)
    }

    /// Takes in what the store has sent; true when [`follow`](Self::follow) has something to look at. To be asked
    /// before sleep: the store's answers to earlier questions may have brought events with them.
    ///
    /// # Errors
    /// The connection to the store is lost.
    pub fn news(&mut self) -> Result<bool, NetfrontError> {
        self.look |= self.store.drain_events()?;
        Ok(self.look && self.store.fd().is_some())
    }

    /// Closes the device as `rmmod xen-netfront` does: Closing, Closed, each answered by the backend.
    ///
    /// # Errors
    /// The backend does not answer within `limit` per step, or the store fails.
    pub fn close(&mut self, limit: Duration) -> Result<(), NetfrontError> {
        use XenbusState::{Closed, Closing, InitWait, Unknown};
        self.phase = Phase::Closed;
        self.store.set_state(Closing)?;
        self.wait(&[Closing, Closed, Unknown], limit)?;
        self.store.set_state(Closed)?;
        self.wait(&[Closed, InitWait, Unknown], limit)?;
        self.link = None;
        Ok(())
    }

    /// Starts again after [`close`](Self::close), as `modprobe xen-netfront` does.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn open(&mut self, limit: Duration) -> Result<(), NetfrontError> {
        self.phase = Phase::Waiting;
        self.store.set_state(XenbusState::Initialising)?;
        self.connect(limit)
    }

    /// Puts an XDP program on, or with 0 takes it off, as Linux's netfront does: it says Reconfiguring, writes the
    /// headroom after that, and goes on when the backend is Reconfigured.
    ///
    /// # Errors
    /// The backend is not Reconfigured within `limit`, or the store fails.
    pub fn set_headroom(&mut self, bytes: u16, limit: Duration) -> Result<(), NetfrontError> {
        self.store.set_state(XenbusState::Reconfiguring)?;
        self.store.set_raw("xdp-headroom", &bytes.to_string())?;
        self.wait(&[XenbusState::Reconfigured], limit)?;
        self.store.set_state(XenbusState::Connected)
    }

    /// What Windows's driver does before it connects for the first time: a whole close cycle without rings.
    ///
    /// # Errors
    /// The backend skips a step of it, or the store fails.
    pub fn close_early(&mut self, limit: Duration) -> Result<(), NetfrontError> {
        self.wait(&[XenbusState::InitWait], limit)?;
        for state in [XenbusState::Closing, XenbusState::Closed] {
            self.store.set_state(state)?;
            self.wait(&[state], limit)?;
        }
        self.store.set_state(XenbusState::Initialising)?;
        self.wait(&[XenbusState::InitWait], limit)?;
        self.phase = Phase::Waiting;
        Ok(())
    }

    /// A new kernel takes over (kexec, kdump): it finds the old one's device connected and walks it down first.
    ///
    /// The old kernel's rings and grants stay in place until the backend has let go of them.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn kexec(&mut self, limit: Duration) -> Result<(), NetfrontError> {
        let left_behind = self.link.take();
        for state in [XenbusState::Closing, XenbusState::Closed] {
            self.store.set_state(state)?;
            self.wait(&[state], limit)?;
        }
        drop(left_behind);
        self.store.set_state(XenbusState::Initialising)?;
        self.connect(limit)
    }

    fn wait(
        &mut self,
        wanted: &[XenbusState],
        limit: Duration,
    ) -> Result<XenbusState, NetfrontError> {
        // Waiting uses up the store's events, and the backend may go on while nobody looks.
        self.look = true;
        self.store.wait_backend(wanted, limit)
    }

    /// The driver is gone without a word (the domain was destroyed): grants and ports end, the store stays.
    pub fn vanish(&mut self) {
        self.link = None;
        self.phase = Phase::Closed;
    }

    /// Sends one frame whose checksum field is already as `meta` says, on the queue pair of its flow.
    /// [`flush`](Self::flush) publishes it.
    ///
    /// # Errors
    /// [`TxFull`] when there is no room, no connection, or the frame cannot be cut as was negotiated.
    pub fn send(&mut self, frame: &[u8], meta: impl Into<TxMeta>) -> Result<(), TxFull> {
        let queue = self.link.as_ref().ok_or(TxFull)?.queue_of(frame);
        self.send_on(queue, frame, meta)
    }

    /// As [`send`](Self::send), on a queue pair of one's own choice.
    ///
    /// # Errors
    /// As [`send`](Self::send), and where there is no such queue pair.
    pub fn send_on(
        &mut self,
        queue: usize,
        frame: &[u8],
        meta: impl Into<TxMeta>,
    ) -> Result<(), TxFull> {
        let link = self.link.as_mut().ok_or(TxFull)?;
        let meta = meta.into();
        if meta.gso.is_some() && !link.takes_gso(frame) {
            return Err(TxFull);
        }
        let count = link.pairs.len();
        let pair = link.pairs.get_mut(queue).ok_or(TxFull)?;
        pair.tx.send(frame, meta, link.sg, &self.options)?;
        if let Some(frames) = self.stats.queues(count).get_mut(queue) {
            frames.tx_frames += 1;
        }
        if meta.gso.is_some() {
            self.stats.tx_gso += 1;
            self.stats.tx_gso_v6 += u64::from(checksum::is_ipv6(frame));
        }
        Ok(())
    }

    /// Sends one frame of a stack that leaves TCP and UDP checksums to its device, and with `gso` also the cutting
    /// into segments of so many bytes of payload.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_offloaded(&mut self, frame: &mut [u8], gso: Option<u16>) -> Result<(), TxFull> {
        let taken = |link: &Link| link.takes_blank(frame);
        let blank = self.options.blank_tx && self.link.as_ref().is_some_and(taken);
        let checksum = if blank && checksum::blank(frame) {
            Checksum::Blank
        } else {
            checksum::complete(frame);
            Checksum::Complete
        };
        self.send(frame, TxMeta { checksum, gso })
    }

    /// Whether the largest frame that is allowed would find room, whatever its queue pair.
    pub fn can_send(&mut self) -> bool {
        let stats = &mut self.stats;
        self.link.as_mut().is_some_and(|link| {
            let mut pairs = link.pairs.iter_mut();
            pairs.all(|pair| pair.tx.has_room(&self.options, stats))
        })
    }

    /// The next good frame from the backend, if there is one. Bad ones are counted and left out.
    pub fn receive(&mut self) -> Option<Received> {
        let frame = self.link.as_mut()?.receive(&mut self.stats)?;
        if let Some(expected) = &self.expected_hash
            && expected.of(&frame.bytes) != frame.hash
        {
            let (wanted, hash) = (expected.of(&frame.bytes), frame.hash);
            self.stats
                .violations
                .add(|| format!("rx frame with hash {hash:?} that must have {wanted:?}"));
        }
        Some(frame)
    }

    /// Publishes what was sent, takes back what was answered, posts buffers anew, and signals where it is due.
    pub fn flush(&mut self) {
        for pair in self.link.iter_mut().flat_map(|link| &mut link.pairs) {
            if pair.tx.flush(&mut self.stats) {
                pair.ports.tx().notify();
            }
            if pair.rx.post(&self.options) {
                pair.ports.rx().notify();
            }
        }
    }

    /// Tells the rings that the guest is going to sleep; true when there is work after all.
    pub fn arm(&mut self) -> bool {
        let room = self.can_send();
        let mut work = false;
        for pair in self.link.iter_mut().flat_map(|link| &mut link.pairs) {
            work |= pair.tx.arm();
            // Without room to answer, received frames stay where they are, and only tx can change that.
            work |= room && pair.rx.arm();
        }
        work
    }

    /// Forgets the events that have come so far.
    pub fn clear_events(&self) {
        for port in self.link.iter().flat_map(Link::ports) {
            port.clear();
        }
    }

    /// Descriptors that are readable when there is something to do: the store's, then the event channels'.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let ports = self.link.iter().flat_map(Link::ports);
        self.store
            .fd()
            .into_iter()
            .chain(ports.map(GuestPort::as_fd))
            .collect()
    }

    /// Signals the backend on every channel, needed or not.
    pub fn kick(&self) {
        for port in self.link.iter().flat_map(Link::ports) {
            port.notify();
        }
    }

    /// Events that the backend has sent on the present channels.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.link
            .iter()
            .flat_map(Link::ports)
            .map(GuestPort::events)
            .sum()
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
            self.guest,
            self.store.reopen(handle)?,
            self.options,
        ))
    }
}
