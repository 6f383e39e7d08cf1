// SPDX-License-Identifier: GPL-3.0-or-later
//! What goes through a model frontend: frames out and in, over whichever queue pair is theirs, and the events around
//! them. Without a connection nothing is sent or received. Called by the guest's stack, and by tests in its place.

use std::os::fd::{AsFd, BorrowedFd};

use super::Netfront;
use super::link::Link;
use crate::demo::guest::checksum::{self, Checksum};
use crate::demo::guest::domain::Port;
use crate::demo::guest::queue::{Received, TxFull, TxMeta};

impl Netfront {
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
            .chain(ports.map(Port::as_fd))
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
            .map(Port::events)
            .sum()
    }
}
