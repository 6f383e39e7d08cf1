// SPDX-License-Identifier: GPL-3.0-or-later
//! A whole queue pair between the independent front end and a socket in place of the tap, turn by turn.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};
pub(in crate::vif) use xen_ring::front::tx_flags::{
    CSUM_BLANK, DATA_VALIDATED, EXTRA_INFO, MORE_DATA,
};

use hotplug::Tap;
use xen_ring::front::{
    FrontRing, FrontRx, FrontRxRequest, FrontRxSlot, FrontTx, FrontTxRequest, FrontTxSlot,
};
use xen_ring::page::SharedPage;
use xen_ring::{DomId, EventChannels, Hypervisor};
use xenbus::DevicePath;

use crate::demo::sim::{Grant, GuestPage, GuestPort, SimEventChannels, SimGrants, SimHypervisor};
use crate::vif::bucket::{Bucket, Limits};
use crate::vif::feature::Features;
use crate::vif::live::Live;
use crate::vif::multicast::MulticastFilter;
use crate::vif::negotiate::{Channels, QueueKeys};
use crate::vif::{ConnectRequest, QueueId};
use crate::vif::{QueueCounters, QueuePair, Turn, Turned, Workbench, buffers_of_each};

pub(in crate::vif) const GUEST: u16 = 1;
pub(in crate::vif) const PAGES: usize = 32;
pub(in crate::vif) const PAGE: usize = 4096;
/// Bytes before a frame on the tap.
pub(in crate::vif) const HEADER: usize = 12;

/// A guest, a queue pair, and the far end of its tap.
pub(in crate::vif) struct Rig {
    pub(in crate::vif) tx: FrontRing<FrontTx>,
    pub(in crate::vif) rx: FrontRing<FrontRx>,
    pub(in crate::vif) pair: QueuePair,
    pub(in crate::vif) bench: Workbench<SimGrants>,
    pub(in crate::vif) channels: SimEventChannels,
    pub(in crate::vif) host: UnixDatagram,
    pub(in crate::vif) pages: Vec<(GuestPage, Grant)>,
    pub(in crate::vif) limits: Arc<Limits>,
    pub(in crate::vif) counters: Arc<QueueCounters>,
    pub(in crate::vif) live: Arc<Live>,
    _rings: [Grant; 2],
    pub(in crate::vif) ports: [GuestPort; 2],
}

/// A guest before a backend has come, or after one has gone.
pub(in crate::vif) struct Before<'r> {
    pub(in crate::vif) tx: &'r mut FrontRing<FrontTx>,
    pub(in crate::vif) rx: &'r mut FrontRing<FrontRx>,
    pub(in crate::vif) pages: &'r [(GuestPage, Grant)],
    pub(in crate::vif) tx_page: SharedPage,
    pub(in crate::vif) rx_page: SharedPage,
}

impl Rig {
    pub(in crate::vif) fn new() -> Self {
        let (tap, host) = UnixDatagram::pair().unwrap();
        Self::with_tap(tap.into(), host)
    }

    /// Its guest is given up as soon as it is short of buffers.
    pub(in crate::vif) fn without_patience() -> Self {
        let (tap, host) = UnixDatagram::pair().unwrap();
        Self::with(tap.into(), host, Some(Duration::ZERO), |_| {})
    }

    /// Its rings have had another backend before.
    pub(in crate::vif) fn taken_over(before: impl FnOnce(Before<'_>)) -> Self {
        let (tap, host) = UnixDatagram::pair().unwrap();
        Self::with(tap.into(), host, None, before)
    }

    /// `host` is what is behind the tap.
    pub(in crate::vif) fn with_tap(tap: OwnedFd, host: UnixDatagram) -> Self {
        Self::with(tap, host, None, |_| {})
    }

    fn with(
        tap: OwnedFd,
        host: UnixDatagram,
        stall: Option<Duration>,
        before: impl FnOnce(Before<'_>),
    ) -> Self {
        let hypervisor = SimHypervisor::new(DomId::new(0));
        let guest = hypervisor.guest(DomId::new(GUEST));
        let (tx_page, rx_page) = (GuestPage::new().unwrap(), GuestPage::new().unwrap());
        let rings = [&tx_page, &rx_page].map(|page| guest.grant(page, false).unwrap());
        let ports = [guest.alloc_port().unwrap(), guest.alloc_port().unwrap()];
        let pages = GuestPage::many(PAGES).unwrap().into_iter();
        let pages = pages.map(|page| (page.clone(), guest.grant(&page, false).unwrap()));
        let pages: Vec<_> = pages.collect();
        host.set_nonblocking(true).unwrap();
        let counters = Arc::<QueueCounters>::default();
        let limits = Arc::new(Limits {
            tx: Bucket::new(None, Instant::now()),
            rx: Bucket::new(None, Instant::now()),
        });
        let live = Arc::new(Live::new(MulticastFilter::new()));
        let request = ConnectRequest {
            queue: QueueId {
                device: DevicePath::new(xenbus::DomId::parse("1").unwrap(), 0),
                connection: 0,
                index: 0,
            },
            guest: DomId::new(GUEST),
            keys: QueueKeys {
                tx_ring: rings[0].gref(),
                rx_ring: rings[1].gref(),
                channels: Channels::Split {
                    tx: ports[0].port(),
                    rx: ports[1].port(),
                },
            },
            adopted: true,
            features: Features::LINUX,
            tap: Tap::from_fd(tap).unwrap(),
            limits: Arc::clone(&limits),
            stall,
            live: Arc::clone(&live),
            counters: Arc::clone(&counters),
            control: None,
        };
        let (mut tx, mut rx) = (
            FrontRing::init(tx_page.mapped()),
            FrontRing::init(rx_page.mapped()),
        );
        before(Before {
            tx: &mut tx,
            rx: &mut rx,
            pages: &pages,
            tx_page: tx_page.mapped(),
            rx_page: rx_page.mapped(),
        });
        let bench = Workbench::new(
            hypervisor.open_grants().unwrap(),
            DomId::new(0),
            buffers_of_each(1),
            true,
        )
        .unwrap();
        let mut channels = hypervisor.open_event_channels().unwrap();
        let pair = QueuePair::connect(request, &bench, &mut channels).unwrap();
        Self {
            tx,
            rx,
            pair,
            bench,
            channels,
            host,
            pages,
            limits,
            counters,
            live,
            _rings: rings,
            ports,
        }
    }

    pub(in crate::vif) fn gref(&self, page: usize) -> u32 {
        self.pages[page].1.gref().raw()
    }

    /// The guest writes `bytes` to a page, and sends them in a slot: (flags, size).
    pub(in crate::vif) fn slot(&mut self, page: usize, bytes: &[u8], flags: u16, size: usize) {
        self.pages[page].0.write(0, bytes).unwrap();
        let request = FrontTxRequest {
            gref: self.gref(page),
            offset: 0,
            flags,
            id: u16::try_from(page).unwrap(),
            size: u16::try_from(size).unwrap(),
        };
        self.tx.push(FrontTxSlot::Request(request)).unwrap();
    }

    /// The guest sends a frame in pieces, a page each, with these flags in the first slot.
    pub(in crate::vif) fn send(&mut self, pieces: &[&[u8]], flags: u16) {
        let total = pieces.iter().map(|piece| piece.len()).sum();
        for (at, piece) in pieces.iter().enumerate() {
            let more = if at + 1 < pieces.len() { MORE_DATA } else { 0 };
            let (flags, size) = match at {
                0 => (flags | more, total),
                _ => (more, piece.len()),
            };
            self.slot(at, piece, flags, size);
        }
    }

    /// One turn of the backend after everything has been published, and the tap has said that it has frames.
    pub(in crate::vif) fn turn(&mut self) -> Turned {
        self.pair.tap_readable();
        self.quiet_turn()
    }

    /// The same, and the tap has not said anything.
    pub(in crate::vif) fn quiet_turn(&mut self) -> Turned {
        let _event = self.tx.publish();
        let _event = self.rx.publish();
        self.pair.turn(&mut self.bench, &self.channels).unwrap()
    }

    /// As a worker does that has nothing else to do: hears events, gives a turn, and rests. Returns how many
    /// ports had signalled.
    pub(in crate::vif) fn hear(&mut self) -> usize {
        let mut pending = Vec::new();
        self.channels.pending(&mut pending).unwrap();
        for port in &pending {
            self.pair.event(*port);
        }
        if self.quiet_turn().next == Turn::Dry {
            assert!(self.pair.rest(&self.channels).unwrap());
        }
        pending.len()
    }

    /// What has come out of the tap: header and frame.
    pub(in crate::vif) fn out(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut room = vec![0; 70_000];
        let len = self.host.recv(&mut room).ok()?;
        room.truncate(len);
        let frame = room.split_off(HEADER);
        Some((room, frame))
    }

    /// Statuses of the answers to the guest's slots.
    pub(in crate::vif) fn answers(&mut self) -> Vec<i16> {
        let mut answers = Vec::new();
        while let Some((_, answer)) = self.tx.take().unwrap() {
            answers.push(answer.status);
        }
        answers
    }

    /// The guest posts pages from `first` on as buffers; ids are their numbers.
    pub(in crate::vif) fn post(&mut self, first: usize, count: usize) {
        for page in first..first + count {
            let request = FrontRxRequest {
                id: u16::try_from(page).unwrap(),
                gref: self.gref(page),
            };
            self.rx.push(request).unwrap();
        }
    }

    /// A frame comes in at the tap.
    pub(in crate::vif) fn give(&self, header: [u8; HEADER], frame: &[u8]) {
        self.host.send(&[&header, frame].concat()).unwrap();
    }

    /// What the guest finds in its receive ring.
    pub(in crate::vif) fn received(&mut self) -> Vec<FrontRxSlot> {
        let mut slots = Vec::new();
        while let Some((_, slot)) = self.rx.take().unwrap() {
            slots.push(slot);
        }
        slots
    }

    /// (id, offset, flags, status) of a slot that is no extra info.
    pub(in crate::vif) fn response(slot: FrontRxSlot) -> (u16, u16, u16, i16) {
        let response = slot.as_response();
        (
            response.id,
            response.offset,
            response.flags,
            response.status,
        )
    }

    /// The beginning of a page.
    pub(in crate::vif) fn page(&self, page: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.pages[page].0.read(0, &mut bytes).unwrap();
        bytes
    }
}

/// Bytes that differ from their neighbours and from page to page, behind an Ethernet header of no known protocol.
pub(in crate::vif) fn plain(len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..=250).cycle().take(len).collect();
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// An IPv4 packet in a frame, `payload` bytes behind a header of `protocol` whose length is `header`.
pub(in crate::vif) fn ipv4(protocol: u8, header: usize, payload: usize) -> Vec<u8> {
    let mut frame = plain(14 + 20 + header + payload);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let total = u16::try_from(20 + header + payload).unwrap().to_be_bytes();
    frame[14..34].copy_from_slice(&[
        0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    ]);
    match protocol {
        6 => frame[46] = u8::try_from(header / 4).unwrap() << 4,
        17 => {
            frame[38..40].copy_from_slice(&u16::try_from(header + payload).unwrap().to_be_bytes())
        }
        _ => {}
    }
    frame
}

pub(in crate::vif) const ICMP: u8 = 1;
pub(in crate::vif) const TCP: u8 = 6;
pub(in crate::vif) const UDP: u8 = 17;

/// TCP segments of 1000 bytes in one frame, 3054 bytes, behind a header.
pub(in crate::vif) fn segments() -> ([u8; HEADER], Vec<u8>) {
    let header = [1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0];
    (header, ipv4(TCP, 20, 3000))
}
