// SPDX-License-Identifier: GPL-3.0-or-later
//! The bench's guest: a frontend that does no more than the rings ask for.
//!
//! No TCP/IP, no thread of its own: `tx` and `rx` are loops over the front end of a ring, to be turned by the
//! bench. It polls and asks for no events, so none are sent to it. What a correct backend does not do ends the bench.

mod memory;
pub(super) mod rx;
pub(super) mod tx;

use hotplug::link;
use xen_ring::front::{FrontKind, FrontRing, FrontRx, FrontTx};
use xenbus::XenbusState;

use super::BenchError;
use crate::demo::guest::store::FrontendStore;
use crate::demo::machine::Machine;
use crate::demo::sim::{Grant, GuestPage, GuestPort, SimGuest};
use crate::demo::toolstack::{LIBXL_PATIENCE, VifSpec};

/// A guest with one vif, whose rings are known to the backend.
#[derive(Debug)]
pub(super) struct BenchGuest {
    pub(super) vif: VifSpec,
    pub(super) hypervisor: SimGuest,
    pub(super) tx: End<FrontTx>,
    pub(super) rx: End<FrontRx>,
}

/// The guest's end of a ring: the ring, how to signal, and the grant of its page.
#[derive(Debug)]
pub(super) struct End<R: FrontKind> {
    ring: FrontRing<R>,
    port: GuestPort,
    grant: Grant,
}

impl<R: FrontKind> End<R> {
    fn new(guest: &SimGuest) -> Result<Self, BenchError> {
        let page = GuestPage::new()?;
        Ok(Self {
            grant: guest.grant(&page, false)?,
            port: guest.alloc_port()?,
            ring: FrontRing::init(page.mapped()),
        })
    }

    /// Shows the backend what has been written, and signals if it wants that.
    fn publish(&mut self) {
        if self.ring.publish() {
            self.port.notify();
        }
    }
}

/// What the toolstack does first: makes the guest and its vif's directories.
pub(super) fn create(machine: &Machine, dom: u16) -> Result<VifSpec, BenchError> {
    let [high, low] = dom.to_be_bytes();
    let vif = VifSpec::new(dom, &format!("00:16:3e:00:{high:02x}:{low:02x}"));
    machine.create_domain(dom, &format!("bench-{dom}"), 1)?;
    machine.toolstack().create_vif(&vif)?;
    Ok(vif)
}

/// What the toolstack does when the backend has made the tap: plays the script. The tap gets no address and no
/// bridge, so whatever comes out of it is dropped.
pub(super) fn plug(machine: &Machine, vif: &VifSpec) -> Result<(), BenchError> {
    let toolstack = machine.toolstack();
    toolstack.wait_state(vif, XenbusState::InitWait, LIBXL_PATIENCE)?;
    link::set_up(&vif.tap())?;
    Ok(toolstack.set_hotplug_status(vif, "connected")?)
}

/// What the guest does: rings, channels, keys, Connected. The backend follows in its own time.
pub(super) fn boot(machine: &Machine, vif: VifSpec) -> Result<BenchGuest, BenchError> {
    let client = machine.xenstored().client(vif.guest)?;
    let store = FrontendStore::open(client, vif.handle)?;
    let hypervisor = machine.hypervisor().guest(xen_ring::DomId::new(vif.guest));
    let guest = BenchGuest {
        tx: End::new(&hypervisor)?,
        rx: End::new(&hypervisor)?,
        vif,
        hypervisor,
    };
    let on = || "1".to_owned();
    let keys = [
        ("tx-ring-ref", guest.tx.grant.gref().to_string()),
        ("rx-ring-ref", guest.rx.grant.gref().to_string()),
        ("event-channel-tx", guest.tx.port.port().to_string()),
        ("event-channel-rx", guest.rx.port.port().to_string()),
        ("request-rx-copy", on()),
        ("feature-rx-notify", on()),
        ("feature-sg", on()),
        ("feature-gso-tcpv4", on()),
        ("feature-gso-tcpv6", on()),
        ("feature-ipv6-csum-offload", on()),
    ];
    store.publish(&keys.map(|(key, value)| (key.to_owned(), Some(value))))?;
    store.set_state(XenbusState::Connected)?;
    Ok(guest)
}

/// Waits until the backend says Connected too.
pub(super) fn wait_connected(machine: &Machine, vif: &VifSpec) -> Result<(), BenchError> {
    Ok(machine
        .toolstack()
        .wait_state(vif, XenbusState::Connected, LIBXL_PATIENCE)?)
}

/// Ids are the ring's own numbers.
const fn id_of(index: u32) -> u16 {
    let [a, b, _, _] = index.to_le_bytes();
    u16::from_le_bytes([a, b])
}
