// SPDX-License-Identifier: GPL-3.0-or-later
//! The model guest's TCP/IP: smoltcp over the model frontend, with the servers of [`services`](super::services).
//!
//! smoltcp answers ARP and pings by itself. Checksums of TCP and UDP are left to the frontend here: it blanks or
//! completes them as was negotiated when it sends, and has checked them before a frame arrives here.

use std::num::{NonZeroU16, NonZeroUsize};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::GuestAddress;
use super::checksum;
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
    address: GuestAddress,
    shape: Shape,
}

/// How large frames may be, Ethernet header included where they are not cut.
#[derive(Debug, Clone, Copy)]
struct Shape {
    mtu: usize,
    /// Largest TCP frame that is left to the backend to cut, over IPv4 and over IPv6.
    gso: [Option<usize>; 2],
}

impl Stack {
    /// A stack with one address, not connected to anything yet.
    #[must_use]
    pub fn new(address: GuestAddress) -> Self {
        let shape = Shape {
            mtu: address.mtu,
            gso: [None; 2],
        };
        let mut sockets = SocketSet::new(Vec::new());
        let services = Services::new(&mut sockets);
        Self {
            interface: interface(address, shape),
            sockets,
            services,
            started: Instant::now(),
            address,
            shape,
        }
    }

    /// Takes in all frames that have come, lets the servers work, sends what they have to say.
    ///
    /// Returns how long the stack can wait for the next frame, or `None` for as long as it takes.
    pub fn poll(&mut self, netfront: &mut Netfront) -> Option<Duration> {
        let gso = netfront.options().largest_gso();
        if gso != self.shape.gso {
            // smoltcp asks for a device's capabilities once in the life of an interface.
            self.shape.gso = gso;
            self.interface = interface(self.address, self.shape);
        }
        loop {
            let now = self.now();
            let mut device = Device {
                netfront,
                shape: self.shape,
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
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

fn interface(address: GuestAddress, shape: Shape) -> Interface {
    let hardware = HardwareAddress::Ethernet(EthernetAddress(address.mac));
    let mut config = Config::new(hardware);
    // Sequence numbers and ports differ from run to run.
    config.random_seed = u64::from(std::process::id());
    let mut interface = Interface::new(config, &mut NoDevice(shape), StackInstant::ZERO);
    interface.update_ip_addrs(|addresses| {
        // Room for two: a new interface has none.
        let _fits = addresses.push(IpCidr::new(address.ip.into(), address.prefix));
        let _fits = addresses.push(IpCidr::new(address.link_local().into(), 64));
    });
    interface
}

fn capabilities(shape: Shape) -> DeviceCapabilities {
    let mut checksum = ChecksumCapabilities::default();
    checksum.tcp = Checksum::None;
    checksum.udp = Checksum::None;
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ethernet;
    // smoltcp 0.14 drops a TCP segment over IPv6 that is beyond the MTU, though it makes it as large as the device
    // can cut. What goes out is no larger for it: the host's own MTU decides about TCP's segments.
    let frame_max = shape.gso[1].unwrap_or_default();
    capabilities.max_transmission_unit = frame_max.max(shape.mtu + ETHERNET);
    let [v4, v6] = shape.gso.map(|most| most.and_then(NonZeroUsize::new));
    capabilities.segmentation.tcpv4 = v4;
    capabilities.segmentation.tcpv6 = v6;
    capabilities.checksum = checksum;
    capabilities
}

/// The frontend as smoltcp wants to see it.
struct Device<'n> {
    netfront: &'n mut Netfront,
    shape: Shape,
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
        Some((
            RxToken(frame.bytes),
            TxToken::new(self.netfront, self.shape),
        ))
    }

    fn transmit(&mut self, _now: StackInstant) -> Option<TxToken<'_>> {
        self.netfront
            .can_send()
            .then_some(TxToken::new(self.netfront, self.shape))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.shape)
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
pub(super) struct TxToken<'a> {
    netfront: &'a mut Netfront,
    shape: Shape,
    gso: Option<u16>,
}

impl<'a> TxToken<'a> {
    fn new(netfront: &'a mut Netfront, shape: Shape) -> Self {
        Self {
            netfront,
            shape,
            gso: None,
        }
    }
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        // smoltcp 0.14 says this for IPv4 only.
        let gso = self.gso.or_else(|| segments_v6(&frame, self.shape.mtu));
        // There is room: that was asked before the token was made. Otherwise the frame is lost, as on a wire.
        let _lost = self.netfront.send_offloaded(&mut frame, gso);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.gso = meta.segmentation_offload_size.map(NonZeroU16::get);
    }
}

/// Payload of the segments that a TCP frame over IPv6 has to be cut into, if it is longer than the MTU.
fn segments_v6(frame: &[u8], mtu: usize) -> Option<u16> {
    // Next header at 6, TCP's data offset at 12 behind the 40 bytes of IPv6.
    let is_tcp = checksum::is_ipv6(frame) && frame.get(ETHERNET + 6) == Some(&6);
    let tcp = usize::from(frame.get(ETHERNET + 40 + 12)? >> 4) * 4;
    let payload = u16::try_from(mtu.checked_sub(40 + tcp)?).ok()?;
    (is_tcp && frame.len() > mtu + ETHERNET).then_some(payload)
}

/// Stands in while the interface is made: smoltcp asks for the capabilities only.
struct NoDevice(Shape);

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
        capabilities(self.0)
    }
}
