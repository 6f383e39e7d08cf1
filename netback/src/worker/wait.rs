// SPDX-License-Identifier: GPL-3.0-or-later
//! How a worker waits: it glances at the rings that have just run dry, tells guests of what it has
//! answered, looks for a while if that pays ([`Patience`]), then arms the rings and sleeps until an
//! event, or until a queue pair's moment comes.
//!
//! Rings are armed only before the worker sleeps, so a frontend does not signal one that is awake.

use std::io;
use std::time::{Duration, Instant};

use mio::Events;
use xen_ring::Hypervisor;

use super::patience::Patience;
use super::run::Worker;

/// Queue pairs that are looked at; those beyond it are armed at once.
const LOOKED_AT: usize = 16;
/// A guest that has sent no more frames than these may have stopped to send. One in full flow is
/// better left to fill its ring, as a large burst costs less for each frame.
const FEW: usize = 4;
/// Looks between two system calls: one to a few microseconds.
const LOOKS: u32 = 32;

impl<H: Hypervisor> Worker<H> {
    /// Waits until there is something to do. With work at hand, only looks whether there is more.
    pub(super) fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        events.clear();
        self.look();
        let frames = std::mem::take(&mut self.delivered);
        let delivered = frames > 0;
        if self.line.is_empty() && frames <= FEW && self.patience.keeps_nobody(delivered) {
            self.glance();
        }
        self.tell_untold();
        if !self.line.is_empty() {
            if !self.patience.keeps_nobody(delivered) {
                // Whoever the frames are for must not find more of them than it has room for.
                std::thread::yield_now();
            }
            self.poll.poll(events, Some(Duration::ZERO))?;
        } else if !self.lingers(delivered, events)? {
            self.rest();
            self.poll.poll(events, self.timeout())?;
        }
        self.bench.new_round();
        Ok(())
    }

    /// A queue pair has run dry: its ring is looked at before it is armed. Its timer, if it has
    /// one, is cancelled: the turn that just ended has left nothing to wait for.
    pub(super) fn run_dry(&mut self, key: usize) {
        let Some(served) = self.queues.get_mut(key) else {
            return;
        };
        self.timers.cancel(key);
        if self.dry.len() >= LOOKED_AT && !served.dry {
            self.rest_one(key);
        } else if !std::mem::replace(&mut served.dry, true) {
            self.dry.push(key);
        }
    }

    /// If that pays, looks at the rings and for events for a while. `true` if something has come.
    fn lingers(&mut self, delivered: bool, events: &mut Events) -> io::Result<bool> {
        if !self.patience.is_worthwhile(delivered) {
            return Ok(false);
        }
        for _ in 0..Patience::ROUNDS {
            // Whoever else has something to do on this processor comes first.
            std::thread::yield_now();
            self.poll.poll(events, Some(Duration::ZERO))?;
            let came = !events.is_empty();
            if came || self.glance() {
                // A guest that sends on would have done so unwatched, and then in larger bursts.
                self.patience.learn(delivered, came || !delivered);
                return Ok(true);
            }
        }
        self.patience.learn(delivered, false);
        Ok(false)
    }

    /// Looks at the rings for a moment. `true` if any stirs.
    fn glance(&mut self) -> bool {
        for _ in 0..LOOKS {
            if self.look() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Signals to the guest whose answers it has not been told of yet.
    pub(super) fn tell_untold(&mut self) {
        if let Some(served) = self.untold.take().and_then(|key| self.queues.get_mut(key)) {
            served.pair.tell(&self.channels);
        }
    }

    /// Marks the queue pairs that stir again. `true` if there are any.
    fn look(&mut self) -> bool {
        let mut any = false;
        let mut at = 0;
        while let Some(&key) = self.dry.get(at) {
            let served = self.queues.get_mut(key);
            if let Some(served) = served.filter(|served| !served.pair.is_stirring()) {
                debug_assert!(served.dry);
                at += 1;
                continue;
            }
            self.forget_dry(at);
            self.make_ready(key);
            any = true;
        }
        any
    }

    fn forget_dry(&mut self, at: usize) {
        let key = self.dry.swap_remove(at);
        if let Some(served) = self.queues.get_mut(key) {
            served.dry = false;
        }
    }

    /// Arms those that have run dry.
    fn rest(&mut self) {
        while let Some(key) = self.dry.pop() {
            if let Some(served) = self.queues.get_mut(key) {
                served.dry = false;
            }
            self.rest_one(key);
        }
    }

    fn rest_one(&mut self, key: usize) {
        let Some(served) = self.queues.get_mut(key) else {
            return;
        };
        match served.pair.rest(&self.channels) {
            Ok(true) => {}
            Ok(false) => self.make_ready(key),
            Err(fault) => self.fault(key, fault),
        }
    }

    /// How long to sleep.
    fn timeout(&self) -> Option<Duration> {
        if !self.line.is_empty() {
            return Some(Duration::ZERO);
        }
        if self.timers.is_empty() {
            return None;
        }
        self.timers.timeout(Instant::now())
    }

    /// Marks the queue pairs whose moment has come.
    pub(super) fn wake_due(&mut self) {
        if self.timers.is_empty() {
            return;
        }
        while let Some(key) = self.timers.pop(self.bench.now()) {
            self.make_ready(key);
        }
    }
}
