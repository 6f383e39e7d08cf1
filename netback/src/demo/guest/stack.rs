// SPDX-License-Identifier: GPL-3.0-or-later
//! The model guest's TCP/IP: smoltcp over the model frontend, with the servers of [`services`](super::services).
//!
//! smoltcp answers ARP and pings by itself. Checksums of TCP and UDP are left to the frontend here: it blanks or
//! completes them as was negotiated when it sends, and has checked them before a frame arrives here.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::netfront::Netfront;
use super::services::Services;

/// Ethernet header of a frame.
const ETHERNET: usize = 14;

/// The guest's interface, sockets and servers.
pub struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    services: Services,
    started: Instant,
    mtu: usize,
}

impl Stack {
    /// A stack with one address, not connected to anything yet.
    #[must_use]
    pub fn new(mac: [u8; 6], address: Ipv4Addr, prefix: u8, mtu: usize) -> Self {
        let hardware = HardwareAddress::Ethernet(EthernetAddress(mac));
        let mut config = Config::new(hardware);
        // Sequence numbers and ports differ from run to run.
        config.random_seed = u64::from(std::process::id());
        let mut interface = Interface::new(config, &mut NoDevice { mtu }, StackInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // Room for one: the list was just emptied.
            let _fits = addresses.push(IpCidr::new(address.into(), prefix));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let services = Services::new(&mut sockets);
        Self {
            interface,
            sockets,
            services,
            started: Instant::now(),
            mtu,
        }
    }

    /// Takes in all frames that have come, lets the servers work, sends what they have to say.
    ///
    /// Returns how long the stack can wait for the next frame, or `None` for as long as it takes.
    pub fn poll(&mut self, netfront: &mut Netfront) -> Option<Duration> {
        loop {
            let now = self.now();
            let mut device = Device {
                netfront,
                mtu: self.mtu,
            };
            self.interface.poll(now, &mut device, &mut self.sockets);
            if !self.services.step(&mut self.sockets) {
                break;
            }
        }
        netfront.flush();
        let now = self.now();
        self.interface
            .poll_delay(now, &self.sockets)
            .map(|delay| Duration::from_micros(delay.total_micros()))
    }

    fn now(&self) -> StackInstant {
        let micros = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        StackInstant::from_micros(micros)
    }
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack")
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}

fn capabilities(mtu: usize) -> DeviceCapabilities {
    let mut checksum = ChecksumCapabilities::default();
    checksum.tcp = Checksum::None;
    checksum.udp = Checksum::None;
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ethernet;
    capabilities.max_transmission_unit = mtu + ETHERNET;
    capabilities.checksum = checksum;
    capabilities
}

/// The frontend as smoltcp wants to see it.
struct Device<'n> {
    netfront: &'n mut Netfront,
    mtu: usize,
}

impl phy::Device for Device<'_> {
    type RxToken<'a>
        = RxToken
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a>
    where
        Self: 'a;

    fn receive(&mut self, _now: StackInstant) -> Option<(RxToken, TxToken<'_>)> {
        // A frame is taken only when its answer can be sent.
        if !self.netfront.can_send() {
            return None;
        }
        let frame = self.netfront.receive()?;
        Some((RxToken(frame.bytes), TxToken(self.netfront)))
    }

    fn transmit(&mut self, _now: StackInstant) -> Option<TxToken<'_>> {
        self.netfront.can_send().then_some(TxToken(self.netfront))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

/// One received frame.
pub(super) struct RxToken(Vec<u8>);

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for one frame to send.
pub(super) struct TxToken<'a>(&'a mut Netfront);

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        // There is room: that was asked before the token was made. Otherwise the frame is lost, as on a wire.
        let _lost = self.0.send_offloaded(&mut frame);
        result
    }
}

/// Stands in while the interface is made: smoltcp asks for the capabilities only.
struct NoDevice {
    mtu: usize,
}

/// A token that is never made.
pub(super) enum Never {}

impl phy::RxToken for Never {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, _: F) -> R {
        match self {}
    }
}

impl phy::TxToken for Never {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, _: usize, _: F) -> R {
        match self {}
    }
}

impl phy::Device for NoDevice {
    type RxToken<'a> = Never;
    type TxToken<'a> = Never;

    fn receive(&mut self, _now: StackInstant) -> Option<(Never, Never)> {
        None
    }

    fn transmit(&mut self, _now: StackInstant) -> Option<Never> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}
