// SPDX-License-Identifier: GPL-3.0-or-later
//! The event channels of a queue pair's two rings, or of a control ring: which of them have signalled and stay masked.
//!
//! A port that has signalled is masked by the kernel. It stays so until there is nothing more to do at once, and longer
//! while the guest signals for nothing ([`storm`](super::storm)).

use std::time::Instant;

use arrayvec::ArrayVec;
use xen_ring::{DomId, EventChannels, LocalPort};

use super::signal;
use super::storm::Storm;

/// Ports of one guest that are unmasked together.
#[derive(Debug)]
pub(super) struct Gate {
    guest: DomId,
    /// Ports that signalled and have not been unmasked since.
    masked: ArrayVec<LocalPort, 2>,
    storm: Storm,
}

impl Gate {
    /// All ports may signal.
    pub(super) fn new(guest: DomId) -> Self {
        Self {
            guest,
            masked: ArrayVec::new(),
            storm: Storm::default(),
        }
    }

    /// A port has signalled and is masked now.
    pub(super) fn event(&mut self, port: LocalPort) {
        if !self.masked.contains(&port) && self.masked.try_push(port).is_ok() {
            self.storm.event();
        }
    }

    /// Signals may have been lost: these ports count as masked, which is nothing to hold against the guest.
    pub(super) fn events_lost(&mut self, ports: ArrayVec<LocalPort, 2>) {
        self.masked = ports;
    }

    /// The rings have been looked at, and there was something to do or not. Until when ports that have signalled for
    /// nothing, too often, stay masked. When that is over, they may signal again.
    #[inline]
    pub(super) fn looked(
        &mut self,
        founded: bool,
        now: impl FnOnce() -> Instant,
        channels: &impl EventChannels,
    ) -> Option<Instant> {
        if founded {
            self.storm.was_founded();
            return None;
        }
        if self.masked.is_empty() {
            return None;
        }
        let before = self.storm.keeps_masked();
        let until = self.storm.masks_until(now);
        // A worker that does not come to rest would not do it.
        if before && until.is_none() {
            self.open(channels);
        }
        until
    }

    /// There is nothing more to do at once: lets the ports signal again that have, unless they are to stay masked. Then
    /// there is to be another look at the end of that.
    pub(super) fn open(&mut self, channels: &impl EventChannels) {
        if !self.storm.keeps_masked() {
            signal::unmask(channels, self.guest, &self.masked);
            self.masked.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use xen_ring::Hypervisor;

    use super::*;
    use crate::demo::sim::{GuestPort, SimEventChannels, SimHypervisor};

    struct Rig {
        gate: Gate,
        channels: SimEventChannels,
        port: LocalPort,
        guest: GuestPort,
    }

    impl Rig {
        /// A port that has signalled once, as a new one does, and may signal again.
        fn new() -> Self {
            let dom = DomId::new(1);
            let hypervisor = SimHypervisor::new(DomId::new(0));
            let guest = hypervisor.guest(dom).alloc_port().unwrap();
            let mut channels = hypervisor.open_event_channels().unwrap();
            let port = channels.bind(dom, guest.port()).unwrap();
            let mut rig = Self {
                gate: Gate::new(dom),
                channels,
                port,
                guest,
            };
            assert!(rig.hears());
            rig.gate.events_lost([port].into_iter().collect());
            rig.gate.open(&rig.channels);
            rig
        }

        /// Whether what the guest signals now is reported.
        fn hears(&mut self) -> bool {
            let mut ports = Vec::new();
            self.guest.notify();
            self.channels.pending(&mut ports).unwrap();
            ports.contains(&self.port)
        }

        fn looked(&mut self, founded: bool, now: Instant) -> Option<Instant> {
            self.gate.looked(founded, || now, &self.channels)
        }
    }

    #[test]
    fn a_port_is_heard_again_once_it_is_open() {
        let mut rig = Rig::new();
        assert!(rig.hears());
        rig.gate.event(rig.port);
        assert!(!rig.hears());
        rig.gate.open(&rig.channels);
        assert!(rig.hears());
    }

    #[test]
    fn a_storm_shuts_it_and_it_opens_by_itself_when_that_is_over() {
        let (mut rig, now) = (Rig::new(), Instant::now());
        let until = (0..100).find_map(|_| {
            assert!(rig.hears());
            rig.gate.event(rig.port);
            let until = rig.looked(false, now);
            rig.gate.open(&rig.channels);
            until
        });
        let until = until.unwrap();
        assert!(!rig.hears());
        assert_eq!(
            rig.looked(false, until - Duration::from_nanos(1)),
            Some(until)
        );
        assert!(!rig.hears());
        assert_eq!(rig.looked(false, until), None);
        assert!(rig.hears());
    }

    #[test]
    fn something_to_do_ends_it_but_the_rings_are_to_be_empty_first() {
        let (mut rig, now) = (Rig::new(), Instant::now());
        for _ in 0..100 {
            rig.gate.event(rig.port);
            rig.looked(false, now);
            rig.gate.open(&rig.channels);
        }
        rig.hears();
        assert!(!rig.hears());
        assert_eq!(rig.looked(true, now), None);
        assert!(!rig.hears());
        rig.gate.open(&rig.channels);
        assert!(rig.hears());
    }

    /// It is the host that loses them.
    #[test]
    fn lost_events_are_not_held_against_the_guest() {
        let (mut rig, now) = (Rig::new(), Instant::now());
        for _ in 0..1_000 {
            rig.gate.events_lost([rig.port].into_iter().collect());
            assert_eq!(rig.looked(false, now), None);
            rig.gate.open(&rig.channels);
        }
        assert!(rig.hears());
    }
}
