// SPDX-License-Identifier: GPL-3.0-or-later
//! A worker's line and its timers, step by step: guests on the simulated hypervisor, sockets in
//! place of their taps, and nobody who runs the loop.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, unbounded};
use mio::Waker;
use xen_ring::front::{FrontRing, FrontRx, FrontRxRequest, FrontTx, FrontTxRequest, FrontTxSlot};
use xenbus::DevicePath;

use super::*;
use crate::demo::sim::{Grant, GuestPage, GuestPort, SimGuest, SimHypervisor};
use crate::vif::control::statics::Quotas;
use crate::vif::control::{RingKeys, View};
use crate::vif::feature::Features;
use crate::vif::negotiate::{Channels, QueueKeys};
use crate::vif::{
    Bucket, ControlRequest, Flow, Limits, Live, MulticastFilter, QueueCounters, RingRequest,
    Workbench, buffers_of_each,
};
use crate::worker::WorkerId;
use xen_ring::DomId;

const STALL: Duration = Duration::from_secs(10);
/// A guest is given up as soon as it is short of buffers.
const AT_ONCE: Duration = Duration::ZERO;

/// A worker, and what it says.
struct Rig {
    hypervisor: SimHypervisor,
    worker: Worker<SimHypervisor>,
    reports: Receiver<Report>,
}

/// A guest whose queue pair the worker has.
struct Guest {
    tx: FrontRing<FrontTx>,
    rx: FrontRing<FrontRx>,
    buffer: Grant,
    host: UnixDatagram,
    port: GuestPort,
    /// Signals that it has looked at.
    seen: u64,
    _rings: [Grant; 2],
}

impl Rig {
    fn new() -> Self {
        let own = DomId::new(0);
        let hypervisor = SimHypervisor::new(own);
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), WAKER).unwrap();
        let (sender, reports) = unbounded();
        let mailbox = Mailbox {
            worker: WorkerId(0),
            commands: unbounded().1,
            reports: sender,
            control: Arc::new(waker),
        };
        let grants = hypervisor.open_grants().unwrap();
        let bench = Workbench::new(grants, own, buffers_of_each(1), true).unwrap();
        Self {
            worker: Worker::new(&hypervisor, bench, poll, mailbox).unwrap(),
            hypervisor,
            reports,
        }
    }

    /// Connects guest `dom`, which has posted nothing. The worker's keys go up from 0.
    fn connect(&mut self, dom: u16, stall: Duration) -> Guest {
        let guest = self.hypervisor.guest(DomId::new(dom));
        let (tx, rx) = (GuestPage::new().unwrap(), GuestPage::new().unwrap());
        let rings = [&tx, &rx].map(|page| guest.grant(page, false).unwrap());
        let port = guest.alloc_port().unwrap();
        let (tap, host) = UnixDatagram::pair().unwrap();
        let tap = Tap::from_fd(OwnedFd::from(tap)).unwrap();
        let keys = QueueKeys {
            tx_ring: rings[0].gref(),
            rx_ring: rings[1].gref(),
            channels: Channels::Single(port.port()),
        };
        self.worker.connect(request(dom, keys, tap, stall)).unwrap();
        Guest {
            tx: FrontRing::init(tx.mapped()),
            rx: FrontRing::init(rx.mapped()),
            buffer: buffer(&guest),
            host,
            seen: port.events(),
            port,
            _rings: rings,
        }
    }

    /// Connects guest `dom` with a control ring, whose port is returned with what the guest has to keep.
    fn connect_with_control(&mut self, dom: u16) -> (GuestPort, Kept) {
        let guest = self.hypervisor.guest(DomId::new(dom));
        let rings = GuestPage::many(3).unwrap();
        for page in &rings {
            FrontRing::<FrontTx>::init(page.mapped());
        }
        let rings: Vec<_> = rings
            .iter()
            .map(|page| guest.grant(page, false).unwrap())
            .collect();
        let (port, control) = (guest.alloc_port().unwrap(), guest.alloc_port().unwrap());
        let (tap, _) = UnixDatagram::pair().unwrap();
        let tap = Tap::from_fd(OwnedFd::from(tap)).unwrap();
        let keys = QueueKeys {
            tx_ring: rings[0].gref(),
            rx_ring: rings[1].gref(),
            channels: Channels::Single(port.port()),
        };
        let mut request = request(dom, keys, tap, STALL);
        request.control = Some(ControlRequest {
            view: Arc::new(View::new(1, &Quotas::default().of(DomId::new(dom)))),
            ring: Some(RingRequest {
                keys: RingKeys {
                    ring: rings[2].gref(),
                    port: control.port(),
                },
                queues: Vec::new(),
                steering: None,
                spread: None,
            }),
        });
        self.worker.connect(request).unwrap();
        (
            control,
            Kept {
                _rings: rings,
                _port: port,
            },
        )
    }

    /// Whether a guest stalled or went on in this round, before which events are looked for.
    fn flow(&mut self) -> Option<Flow> {
        self.worker.ports_pending();
        self.worker.round();
        match self.reports.try_recv().ok()? {
            Report::Queue {
                what: What::Flow(flow),
                ..
            } => Some(flow),
            other => panic!("{other:?}"),
        }
    }
}

/// What a guest has to keep while it is connected.
struct Kept {
    _rings: Vec<Grant>,
    _port: GuestPort,
}

impl Guest {
    /// Posts its buffer, so many times. `true` if it is to signal that.
    fn post(&mut self, times: usize) -> bool {
        let gref = self.buffer.gref().raw();
        for _ in 0..times {
            self.rx.push(FrontRxRequest { id: 0, gref }).unwrap();
        }
        self.rx.publish()
    }

    /// Sends a frame of its one buffer.
    fn send(&mut self) {
        self.send_bytes(60);
    }

    /// Sends a few large frames.
    fn send_much(&mut self) {
        for _ in 0..5 {
            self.send_bytes(4000);
        }
    }

    fn send_bytes(&mut self, size: u16) {
        let gref = self.buffer.gref().raw();
        let request = FrontTxRequest {
            gref,
            size,
            ..FrontTxRequest::default()
        };
        self.tx.push(FrontTxSlot::Request(request)).unwrap();
        let _ = self.tx.publish();
    }

    /// Answers to what it has sent, and signals, since it asked last.
    fn answers(&mut self) -> (usize, u64) {
        let signals = self.port.events() - std::mem::replace(&mut self.seen, self.port.events());
        let answers = std::iter::from_fn(|| self.tx.take().unwrap()).count();
        let _more = self.tx.arm();
        (answers, signals)
    }

    fn received(&mut self) -> usize {
        std::iter::from_fn(|| self.rx.take().unwrap()).count()
    }
}

fn buffer(guest: &SimGuest) -> Grant {
    guest.grant(&GuestPage::new().unwrap(), false).unwrap()
}

fn request(dom: u16, keys: QueueKeys, tap: Tap, stall: Duration) -> ConnectRequest {
    let bucket = || Bucket::new(None, Instant::now());
    let dom_id = xenbus::DomId::new(dom).unwrap();
    ConnectRequest {
        queue: QueueId {
            device: DevicePath::new(dom_id, 0),
            connection: 0,
            index: 0,
        },
        guest: DomId::new(dom),
        keys,
        adopted: false,
        features: Features::LINUX,
        tap,
        limits: Arc::new(Limits {
            tx: bucket(),
            rx: bucket(),
        }),
        stall: Some(stall),
        live: Arc::new(Live::new(MulticastFilter::new())),
        counters: Arc::<QueueCounters>::default(),
        control: None,
    }
}

#[test]
fn a_guest_that_has_posted_its_buffers_is_not_woken_for() {
    let mut rig = Rig::new();
    let mut guest = rig.connect(1, STALL);
    // It says Connected before it posts, as Linux's does.
    rig.worker.round();
    assert!(!rig.worker.timers.is_empty(), "it may never post any");
    let _ = guest.post(1);
    rig.worker.make_ready(0);
    rig.worker.round();
    assert!(rig.worker.timers.is_empty());

    // A frame takes the one buffer, and the next has none.
    for _ in 0..2 {
        guest.host.send(&[0; 12 + 60]).unwrap();
    }
    rig.worker.tap_readable(0);
    rig.worker.round();
    assert!(!rig.worker.timers.is_empty(), "it may have come to a stop");
    let _ = guest.post(2);
    rig.worker.make_ready(0);
    rig.worker.round();
    assert!(rig.worker.timers.is_empty());
    assert_eq!(guest.received(), 2);
    assert!(rig.reports.is_empty(), "it has never stalled");
}

/// With a whole round of all between two looks, a guest that fills its ring a moment late misses
/// every other turn.
#[test]
fn whoever_comes_back_is_behind_those_who_wait_and_before_those_who_come_later() {
    const GUESTS: usize = 2 * TURNS_PER_ROUND;
    let (mut rig, _guests) = in_full_flow(u16::try_from(GUESTS).unwrap());
    rig.worker.round();
    let waiting = TURNS_PER_ROUND..GUESTS;
    assert!(rig.worker.line.keys().into_iter().eq(waiting.clone()));
    rig.worker.make_ready(3);
    assert!(rig.worker.line.keys().into_iter().eq(waiting.chain([3])));
    rig.worker.round();
    rig.worker.make_ready(0);
    assert_eq!(rig.worker.line.keys(), [3, 0]);
}

/// Guests that send much, connected one after the other.
fn in_full_flow(guests: u16) -> (Rig, Vec<Guest>) {
    let mut rig = Rig::new();
    let connect = |dom| {
        let mut guest = rig.connect(dom, STALL);
        guest.send_much();
        guest
    };
    let guests = (1..=guests).map(connect).collect();
    (rig, guests)
}

#[test]
fn a_guest_that_sends_little_does_not_wait_for_those_who_send_much() {
    const GUESTS: u16 = 20;
    let (mut rig, mut guests) = in_full_flow(GUESTS);
    while !rig.worker.line.is_empty() {
        rig.worker.round();
    }
    let all = 0..usize::from(GUESTS);
    let last = all.end - 1;
    for guest in &mut guests[..last] {
        guest.send_much();
    }
    guests[last].answers();
    // Until it has had a turn with less to do, the last one is as all others.
    for key in all.clone() {
        rig.worker.make_ready(key);
    }
    assert!(rig.worker.line.keys().into_iter().eq(all.clone()));
    while !rig.worker.line.is_empty() {
        rig.worker.round();
    }
    for key in all {
        rig.worker.make_ready(key);
    }
    assert_eq!(rig.worker.line.keys()[0], last);
    guests[last].send();
    rig.worker.round();
    assert_eq!(guests[last].answers().0, 1);
}

/// Or else one that takes nothing, and that much is sent to, would go ahead of all others.
#[test]
fn frames_that_are_dropped_for_a_guest_are_its_work() {
    let mut rig = Rig::new();
    let stalled = rig.connect(1, AT_ONCE);
    stalled.host.send(&[0; 12 + 60]).unwrap();
    assert_eq!(rig.flow(), Some(Flow::Stalled));
    let mut other = rig.connect(2, STALL);
    other.send();
    rig.worker.round();
    for _ in 0..9 {
        stalled.host.send(&[0; 12 + 60]).unwrap();
    }
    rig.worker.tap_readable(0);
    rig.worker.round();
    rig.worker.make_ready(0);
    rig.worker.make_ready(1);
    assert_eq!(rig.worker.line.keys(), [1, 0]);
}

/// As on a worker that another guest keeps from ever resting.
#[test]
fn a_stalled_guest_is_heard_without_a_rest() {
    let mut rig = Rig::new();
    let mut guest = rig.connect(1, AT_ONCE);
    guest.host.send(&[0; 12 + 60]).unwrap();
    assert_eq!(rig.flow(), Some(Flow::Stalled));
    assert_eq!(rig.flow(), None);
    assert!(guest.post(1), "the guest is to signal it");
    guest.port.notify();
    assert_eq!(rig.flow(), Some(Flow::Resumed));
}

#[test]
fn a_queue_pair_that_has_gone_is_not_looked_at_any_more() {
    let mut rig = Rig::new();
    let _gone = rig.connect(1, AT_ONCE);
    assert_eq!(rig.flow(), None);
    assert_eq!(rig.worker.dry, [0]);
    rig.worker.release(0);
    let _next = rig.connect(2, AT_ONCE);
    assert!(rig.worker.queues.contains(0), "the place is used again");
    assert!(rig.worker.dry.is_empty());
    assert_eq!(rig.flow(), None);
    assert_eq!(rig.worker.dry, [0], "once");
}

/// As when both are asked for at once: its successor has one place in the line, as all others.
#[test]
fn a_queue_pair_that_has_gone_leaves_the_line() {
    let mut rig = Rig::new();
    let _gone = rig.connect(1, STALL);
    let _other = rig.connect(2, STALL);
    rig.worker.release(0);
    let _next = rig.connect(3, STALL);
    assert!(rig.worker.queues.contains(0), "the place is used again");
    assert_eq!(rig.worker.line.keys(), [1, 0]);
}

/// A guest is not held up by others that have their turn before the worker looks up again, and one
/// that sends on meanwhile is told once of all.
#[test]
fn the_guest_of_the_last_turn_is_told_of_its_answers_before_the_worker_waits() {
    let mut rig = Rig::new();
    let mut guests = [1, 2].map(|dom| rig.connect(dom, STALL));
    rig.worker.round();
    rig.worker.tell_untold();
    for guest in &mut guests {
        assert_eq!(guest.answers(), (0, 0));
        guest.send();
    }
    rig.worker.make_ready(0);
    rig.worker.make_ready(1);
    rig.worker.round();
    let [first, last] = &mut guests;
    assert_eq!(first.answers(), (1, 1));
    last.send();
    rig.worker.make_ready(1);
    rig.worker.round();
    assert_eq!(last.port.events(), last.seen);
    rig.worker.tell_untold();
    assert_eq!(last.answers(), (2, 1));
    rig.worker.tell_untold();
    assert_eq!(last.answers(), (0, 0));
}

/// Both rings have one port, so what tells of a frame tells of the answers, too.
#[test]
fn a_guest_that_receives_is_told_of_its_answers_at_once() {
    let mut rig = Rig::new();
    let mut guest = rig.connect(1, STALL);
    rig.worker.round();
    guest.answers();
    guest.post(1);
    guest.send();
    guest.host.send(&[0; 12 + 60]).unwrap();
    rig.worker.tap_readable(0);
    rig.worker.round();
    assert_eq!((guest.received(), guest.answers()), (1, (1, 1)));
    rig.worker.tell_untold();
    assert_eq!(guest.answers(), (0, 0));
}

/// It may wait for them without another event.
#[test]
fn a_guest_that_is_let_go_is_told_of_its_answers() {
    let mut rig = Rig::new();
    let mut guest = rig.connect(1, STALL);
    rig.worker.round();
    guest.answers();
    guest.send();
    rig.worker.make_ready(0);
    rig.worker.round();
    rig.worker.release(0);
    assert_eq!(guest.answers(), (1, 1));
}

/// A poll with room for no event fails, and it is the only one at hand that does.
#[test]
fn a_worker_that_cannot_wait_says_so_and_ends() {
    let mut rig = Rig::new();
    let why = rig.worker.serve(&mut Events::with_capacity(0));
    assert_eq!(why.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

/// What a guest has sent without an event that arrived is found all the same.
#[test]
fn every_ring_is_looked_at_when_events_may_be_lost() {
    let mut rig = Rig::new();
    let mut guest = rig.connect(1, STALL);
    rig.worker.round();
    guest.answers();
    guest.send();
    rig.worker.round();
    assert_eq!(guest.answers().0, 0, "nobody has looked");
    rig.worker.events_lost(&SysError::Call {
        operation: "read",
        errno: nix::errno::Errno::EIO,
    });
    rig.worker.round();
    assert_eq!(guest.answers().0, 1);
}

/// As with the packets' rings: each event costs more than it costs the guest.
#[test]
fn events_for_nothing_from_a_control_ring_are_not_listened_to_for_ever() {
    let mut rig = Rig::new();
    let (control, _kept) = rig.connect_with_control(1);
    let mut heard = 0;
    for _ in 0..1_000 {
        control.notify();
        rig.worker.ports_pending();
        heard += usize::from(!rig.worker.line.is_empty());
        rig.worker.round();
    }
    assert_eq!(heard, 17, "of 1000");
    let next = rig.worker.timers.timeout(Instant::now());
    assert!(
        next.is_some_and(|next| next <= Duration::from_millis(128)),
        "it is looked at later: {next:?}"
    );
}

/// The device masks the port of an event that is lost.
#[test]
fn a_control_ring_is_heard_again_after_events_were_lost() {
    let mut rig = Rig::new();
    let (control, _kept) = rig.connect_with_control(1);
    rig.worker.ports_pending();
    rig.worker.round();
    let mut lost = Vec::new();
    control.notify();
    rig.worker.channels.pending(&mut lost).unwrap();
    assert_eq!(lost.len(), 1);
    control.notify();
    rig.worker.ports_pending();
    assert!(rig.worker.line.is_empty(), "it is masked");
    rig.worker.events_lost(&SysError::Call {
        operation: "read",
        errno: nix::errno::Errno::EIO,
    });
    rig.worker.round();
    // What was signalled meanwhile comes first.
    rig.worker.ports_pending();
    rig.worker.round();
    control.notify();
    rig.worker.ports_pending();
    assert!(!rig.worker.line.is_empty());
}
