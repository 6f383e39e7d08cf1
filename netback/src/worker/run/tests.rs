// SPDX-License-Identifier: GPL-3.0-or-later
//! A worker that is led by hand, round by round, as if it never came to sleep.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, unbounded};
use mio::Waker;
use xen_ring::front::{FrontRing, FrontRx, FrontRxRequest, FrontTx};
use xenbus::DevicePath;

use super::*;
use crate::demo::sim::{Grant, GuestPage, GuestPort, SimHypervisor};
use crate::vif::negotiate::{Channels, Features, QueueKeys};
use crate::vif::offload::Offloads;
use crate::vif::{Bucket, Flow, Limits, Live, MulticastFilter};

/// A worker, and what it says.
struct Rig {
    hypervisor: SimHypervisor,
    worker: Worker<SimHypervisor>,
    reports: Receiver<Report>,
}

/// A guest with its rings, one event channel, and the far end of its tap.
struct Guest {
    dom: u16,
    _tx: FrontRing<FrontTx>,
    rx: FrontRing<FrontRx>,
    port: GuestPort,
    host: UnixDatagram,
    buffer: Grant,
    _rings: [Grant; 2],
}

impl Rig {
    fn new() -> Self {
        let hypervisor = SimHypervisor::new(DomId::new(0));
        let poll = Poll::new().unwrap();
        let control = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let (sender, reports) = unbounded();
        let (_nobody, commands) = unbounded();
        let mailbox = Mailbox {
            commands,
            reports: sender,
            control,
        };
        let worker = Worker::new(&hypervisor, DomId::new(0), poll, mailbox).unwrap();
        Self {
            hypervisor,
            worker,
            reports,
        }
    }

    /// Connects a guest that is given up as soon as it is short of buffers.
    fn connect(&mut self, dom: u16) -> Guest {
        let guest = self.hypervisor.guest(DomId::new(dom));
        let pages = [(); 3].map(|()| GuestPage::new().unwrap());
        let [tx, rx, buffer] = pages
            .each_ref()
            .map(|page| guest.grant(page, false).unwrap());
        let port = guest.alloc_port().unwrap();
        let (tap, host) = UnixDatagram::pair().unwrap();
        let request = ConnectRequest {
            queue: queue(dom),
            guest: DomId::new(dom),
            keys: QueueKeys {
                tx_ring: tx.gref(),
                rx_ring: rx.gref(),
                channels: Channels::Single(port.port()),
            },
            features: Features {
                sg: false,
                rx_notify: true,
                offloads: Offloads {
                    csum_v4: false,
                    csum_v6: false,
                    gso_v4: false,
                    gso_v6: false,
                },
            },
            tap: Tap::from_fd(OwnedFd::from(tap)).unwrap(),
            limits: Arc::new(Limits {
                tx: Bucket::new(None, Instant::now()),
                rx: Bucket::new(None, Instant::now()),
            }),
            stall: Some(Duration::ZERO),
            live: Arc::new(Live::new(MulticastFilter::new())),
            counters: Arc::default(),
            control: None,
        };
        let rings = (
            FrontRing::init(pages[0].mapped()),
            FrontRing::init(pages[1].mapped()),
        );
        self.worker.connect(request).unwrap();
        Guest {
            dom,
            _tx: rings.0,
            rx: rings.1,
            port,
            host,
            buffer,
            _rings: [tx, rx],
        }
    }

    fn key(&self, guest: &Guest) -> usize {
        self.worker.by_id[&queue(guest.dom)]
    }

    /// Whether the guest stalled or went on in this round.
    fn round(&mut self) -> Option<Flow> {
        self.worker.ports_pending();
        self.worker.round();
        match self.reports.try_recv().ok()?.what {
            What::Flow(flow) => Some(flow),
            other => panic!("{other:?}"),
        }
    }
}

fn queue(dom: u16) -> QueueId {
    QueueId {
        device: DevicePath::new(xenbus::DomId::parse(&dom.to_string()).unwrap(), 0),
        connection: 0,
        index: 0,
    }
}

/// As on a worker that another guest keeps from ever resting.
#[test]
fn a_stalled_guest_is_heard_without_a_rest() {
    let mut rig = Rig::new();
    let mut guest = rig.connect(1);
    guest.host.send(&[0; 12 + 60]).unwrap();
    assert_eq!(rig.round(), Some(Flow::Stalled));
    assert_eq!(rig.round(), None);
    let gref = guest.buffer.gref().raw();
    guest.rx.push(FrontRxRequest { id: 0, gref }).unwrap();
    assert!(guest.rx.publish(), "the guest is to signal it");
    guest.port.notify();
    assert_eq!(rig.round(), Some(Flow::Resumed));
}

#[test]
fn a_queue_pair_that_has_gone_is_not_looked_at_any_more() {
    let mut rig = Rig::new();
    let gone = rig.connect(1);
    assert_eq!(rig.round(), None);
    let key = rig.key(&gone);
    assert_eq!(rig.worker.dry, [key]);
    rig.worker.release(key);
    let next = rig.connect(2);
    assert_eq!(rig.key(&next), key, "the place is used again");
    assert!(rig.worker.dry.is_empty());
    assert_eq!(rig.round(), None);
    assert_eq!(rig.worker.dry, [key], "once");
}
