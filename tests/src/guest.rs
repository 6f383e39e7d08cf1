// SPDX-License-Identifier: GPL-3.0-or-later
//! A guest with its vif, and what a test sends through it.

use std::thread::JoinHandle;
use std::time::Duration;

use netback::demo::guest::Guest;
use netback::demo::guest::netfront::{Netfront, NetfrontError, Phase};
use netback::demo::guest::options::FrontendOptions;
use netback::demo::guest::queue::FrontStats;
use netback::demo::probe::{self, Bound, ProbeError, Transfer};
use netback::demo::toolstack::VifSpec;

use crate::raw::assert_clean;
use crate::world::{PATIENCE, guest_ip, until};

/// A running guest. The probes go through the host kernel's stack and the guest's own.
#[derive(Debug)]
pub struct TestGuest {
    /// Its vif.
    pub vif: VifSpec,
    guest: Guest,
}

impl TestGuest {
    pub(crate) fn new(vif: VifSpec, guest: Guest) -> Self {
        Self { vif, guest }
    }

    /// Waits until its frontend is connected.
    pub fn wait_connected(&self) {
        assert!(
            self.guest.wait_phase(Phase::Connected, PATIENCE).unwrap(),
            "the guest's frontend is {:?}",
            self.phase()
        );
    }

    /// Waits until its frontend has closed.
    pub fn wait_closed(&self) {
        assert!(self.guest.wait_phase(Phase::Closed, PATIENCE).unwrap());
    }

    /// Where its frontend is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.with(|netfront| netfront.phase())
    }

    /// Does something with its frontend, on its thread.
    pub fn with<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Netfront) -> R + Send + 'static,
    ) -> R {
        self.guest.with(job).expect("the guest runs")
    }

    /// One ping, answered in time. The guest may have to be found by ARP first.
    ///
    /// # Errors
    /// It was not answered.
    pub fn try_ping(&self) -> Result<(), ProbeError> {
        probe::ping(guest_ip(self.vif.guest), 1, 56, PATIENCE).map(drop)
    }

    /// Waits until a ping is answered. The host drops what it sends before it has taken note of the carrier, so the
    /// first ones after a connection may be lost.
    pub fn reach(&self) {
        until("a ping is answered", || {
            probe::ping(guest_ip(self.vif.guest), 1, 56, Duration::from_millis(200)).is_ok()
        });
    }

    /// Ten pings of each of several sizes, all answered.
    pub fn ping(&self) {
        self.reach();
        for bytes in [0, 56, 1_472] {
            let pings = probe::ping(guest_ip(self.vif.guest), 10, bytes, PATIENCE).unwrap();
            assert_eq!(pings.answered, pings.sent, "{bytes} bytes");
        }
    }

    /// A UDP datagram there and back.
    pub fn udp(&self, bytes: usize) {
        probe::udp_echo(guest_ip(self.vif.guest), bytes, 5).unwrap();
    }

    /// So many bytes by TCP in each direction, all compared.
    pub fn tcp(&self, bytes: u64) {
        let (ip, bound) = (guest_ip(self.vif.guest), bound(bytes));
        assert_eq!(probe::tcp_to_guest(ip, bound).unwrap().bytes, bytes);
        assert!(probe::tcp_from_guest(ip, bound).unwrap().bytes >= bytes);
    }

    /// Everything: pings, datagrams, TCP both ways.
    pub fn exercise(&self) {
        self.ping();
        for bytes in [1, 100, 1_400, 1_472] {
            self.udp(bytes);
        }
        self.tcp(2 << 20);
    }

    /// Starts to send so many bytes by TCP in each direction, while the test does something else.
    #[must_use]
    pub fn start_tcp(&self, bytes: u64) -> Transfers {
        let (ip, bound) = (guest_ip(self.vif.guest), bound(bytes));
        Transfers {
            bytes,
            down: std::thread::spawn(move || probe::tcp_to_guest(ip, bound)),
            up: std::thread::spawn(move || probe::tcp_from_guest(ip, bound)),
        }
    }

    /// The driver goes and comes back.
    pub fn reload(&self) {
        self.reload_with(|_| {});
    }

    /// As [`reload`](Self::reload); it comes back with other options.
    pub fn reload_with(&self, change: impl FnOnce(&mut FrontendOptions) + Send + 'static) {
        self.with(|netfront| {
            netfront.close(PATIENCE)?;
            change(netfront.options_mut());
            netfront.open(PATIENCE)
        })
        .unwrap();
    }

    /// What its frontend has seen.
    #[must_use]
    pub fn stats(&self) -> FrontStats {
        self.with(|netfront| netfront.stats().clone())
    }

    /// The backend has kept to the protocol.
    pub fn assert_no_violation(&self) {
        assert_clean(&self.stats());
    }

    /// The backend has kept to the protocol, and no checksum was other than its flags say.
    pub fn assert_well_served(&self) {
        self.assert_no_violation();
        let stats = self.stats();
        assert_eq!(stats.checksum_mismatches, 0);
        assert_eq!(
            (stats.tx_error, stats.tx_dropped, stats.rx_errors),
            (0, 0, 0)
        );
    }

    /// Stops the guest, and says how it ended.
    ///
    /// # Errors
    /// What had stopped it before.
    pub fn stop(self) -> Result<(), NetfrontError> {
        self.guest.stop()
    }
}

/// TCP under way, in both directions.
#[derive(Debug)]
pub struct Transfers {
    bytes: u64,
    down: JoinHandle<Result<Transfer, ProbeError>>,
    up: JoinHandle<Result<Transfer, ProbeError>>,
}

impl Transfers {
    /// Whether both have ended, well or not.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.down.is_finished() && self.up.is_finished()
    }

    /// Waits for all bytes, in both directions.
    pub fn finish(self) {
        assert_eq!(self.down.join().unwrap().unwrap().bytes, self.bytes);
        assert!(self.up.join().unwrap().unwrap().bytes >= self.bytes);
    }
}

fn bound(bytes: u64) -> Bound {
    Bound {
        bytes,
        time: Duration::from_secs(60),
    }
}
