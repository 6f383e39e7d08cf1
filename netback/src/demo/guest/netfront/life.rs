// SPDX-License-Identifier: GPL-3.0-or-later
//! The life of a model frontend, in states of the store: how it follows its backend, and the cycles that guests run by
//! themselves. Each waits for the backend where the guest's own driver does, and for no longer than it is told to.
//! Called on the guest's thread, and by tests that drive a frontend by hand.

use std::time::{Duration, Instant};

use xenbus::XenbusState;

use super::link::Link;
use super::{Netfront, NetfrontError, Phase};

impl Netfront {
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
        let link = Link::new(&self.domain, &self.store, &self.options)?;
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

    /// A new kernel takes over that does not look at what the old one has left: all it does is to publish its own rings.
    /// The old ones' grants last for as long as the backend takes to let go of them.
    ///
    /// # Errors
    /// The backend does not come to serve the new rings within `limit`, or the store or hypervisor fails.
    pub fn usurp(&mut self, limit: Duration) -> Result<(), NetfrontError> {
        let left_behind = self.link.take();
        self.publish()?;
        let deadline = Instant::now() + limit;
        // A backend signals when it takes rings up. Its state says nothing of that: it was Connected before.
        while self.events() == 0 {
            if Instant::now() > deadline {
                let (wanted, state) = (vec![XenbusState::Connected], self.store.backend_state()?);
                return Err(NetfrontError::Timeout { wanted, state });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(left_behind);
        self.wait(&[XenbusState::Connected], limit)?;
        self.phase = Phase::Connected;
        Ok(())
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
}
