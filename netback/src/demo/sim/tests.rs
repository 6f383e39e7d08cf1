// SPDX-License-Identifier: GPL-3.0-or-later
//! The simulated hypervisor against what Xen and its devices are documented to do.

use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use xen_ring::{
    Access, CopyBatch, DomId, EventChannels, GrantRef, GrantStatus, Grants, Hypervisor, LocalPort,
    RemotePort,
};

use super::{Census, GuestPage, SimHypervisor};

const DOM0: DomId = DomId::new(0);
const GUEST: DomId = DomId::new(1);
const OTHER: DomId = DomId::new(2);

fn machine() -> SimHypervisor {
    SimHypervisor::new(DOM0)
}

fn page_of(bytes: &[u8]) -> GuestPage {
    let page = GuestPage::new().unwrap();
    page.write(0, bytes).unwrap();
    page
}

fn readable(fd: &impl AsFd) -> bool {
    poll(
        &mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)],
        PollTimeout::ZERO,
    )
    .unwrap()
        == 1
}

fn pending(channels: &mut impl EventChannels) -> Vec<LocalPort> {
    let mut ports = Vec::new();
    channels.pending(&mut ports).unwrap();
    ports
}

mod grants {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn copies_go_both_ways_and_each_has_its_status() {
        let sim = machine();
        let guest = sim.guest(GUEST);
        let page = page_of(b"hello, backend");
        let grant = guest.grant(&page, false).unwrap();
        let readonly = guest.grant(&page, true).unwrap();

        let mut batch = CopyBatch::new(8, 4096).unwrap();
        batch.from_guest(GUEST, grant.gref(), 7, 7, 100).unwrap();
        batch.from_guest(GUEST, readonly.gref(), 0, 5, 200).unwrap();
        batch.bytes_mut(300..305).copy_from_slice(b"HELLO");
        batch.to_guest(300, 5, GUEST, grant.gref(), 0).unwrap();
        batch.to_guest(300, 5, GUEST, readonly.gref(), 0).unwrap();
        batch
            .from_guest(GUEST, GrantRef::new(9_999), 0, 5, 0)
            .unwrap();
        batch.from_guest(OTHER, grant.gref(), 0, 5, 0).unwrap();
        batch
            .from_guest(GUEST, GrantRef::new(9_999), 0, 0, 0)
            .unwrap();
        sim.open_grants().unwrap().copy(&mut batch).unwrap();

        assert_eq!(batch.bytes(100..107), b"backend");
        assert_eq!(batch.bytes(200..205), b"hello");
        let statuses: Vec<_> = (0..7).map(|op| batch.status(op)).collect();
        assert_eq!(
            statuses,
            [
                GrantStatus::OKAY,
                GrantStatus::OKAY,
                GrantStatus::OKAY,
                GrantStatus::GENERAL_ERROR,
                GrantStatus::BAD_GREF,
                GrantStatus::BAD_DOMAIN,
                GrantStatus::OKAY,
            ]
        );
        let mut seen = [0; 14];
        page.read(0, &mut seen).unwrap();
        assert_eq!(&seen, b"HELLO, backend");
        assert_eq!(sim.copies(), 7);
    }

    #[test]
    fn only_the_named_backend_gets_in() {
        let sim = machine();
        let page = page_of(b"secret");
        let grant = sim.guest(GUEST).grant(&page, false).unwrap();
        let stranger = SimHypervisor {
            backend: OTHER,
            ..sim.clone()
        };
        let grants = stranger.open_grants().unwrap();
        assert_eq!(
            grants.map_page(GUEST, grant.gref()).unwrap_err().errno(),
            Errno::EINVAL
        );
        let mut batch = CopyBatch::new(1, 4096).unwrap();
        batch.from_guest(GUEST, grant.gref(), 0, 6, 0).unwrap();
        grants.copy(&mut batch).unwrap();
        assert_eq!(batch.status(0), GrantStatus::GENERAL_ERROR);
        assert_eq!(batch.bytes(0..6), [0; 6]);
    }

    #[test]
    fn a_mapping_is_the_same_page_and_outlives_the_grant() {
        let sim = machine();
        let guest = sim.guest(GUEST);
        let grants = sim.open_grants().unwrap();
        let page = page_of(b"one");
        let grant = guest.grant(&page, false).unwrap();
        let gref = grant.gref();
        let mapped = grants.map_page(GUEST, gref).unwrap();
        let twice = mapped.clone();
        assert_eq!(sim.census().mapped, 1, "a clone is no second mapping");

        mapped.copy_to(0, b"two").unwrap();
        let mut seen = [0; 3];
        page.read(0, &mut seen).unwrap();
        assert_eq!(&seen, b"two");

        drop(grant);
        assert!(
            grants.map_page(GUEST, gref).is_err(),
            "no new use after the end"
        );
        assert_eq!(
            sim.census().granted,
            1,
            "the entry is in use while it is mapped"
        );
        let other = guest.grant(&page_of(b"new"), false).unwrap();
        assert_ne!(
            other.gref(),
            gref,
            "its number is not given out again before"
        );
        drop((mapped, twice));
        drop(other);
        assert_eq!(sim.census(), Census::default());
    }

    #[test]
    fn readonly_and_unknown_pages_cannot_be_mapped() {
        let sim = machine();
        let guest = sim.guest(GUEST);
        let grants = sim.open_grants().unwrap();
        let readonly = guest.grant(&page_of(b""), true).unwrap();
        for (dom, gref) in [
            (GUEST, readonly.gref()),
            (GUEST, GrantRef::new(0)),
            (GUEST, GrantRef::new(u32::MAX)),
            (OTHER, readonly.gref()),
        ] {
            assert_eq!(
                grants.map_page(dom, gref).unwrap_err().errno(),
                Errno::EINVAL
            );
        }
        assert_eq!(sim.census().mapped, 0);
    }

    #[test]
    fn a_static_page_is_mapped_as_it_was_granted_and_asked_for() {
        let sim = machine();
        let guest = sim.guest(GUEST);
        let grants = sim.open_grants().unwrap();
        let page = page_of(b"one");
        let (whole, readonly) = (
            guest.grant(&page, false).unwrap(),
            guest.grant(&page, true).unwrap(),
        );
        let read = grants.map_static(GUEST, readonly.gref(), Access::ReadOnly);
        let write = grants.map_static(GUEST, whole.gref(), Access::ReadWrite);
        assert!(read.as_ref().unwrap().writable().is_none());
        write
            .as_ref()
            .unwrap()
            .writable()
            .unwrap()
            .copy_to(0, b"two")
            .unwrap();
        let mut seen = [0; 3];
        read.as_ref().unwrap().copy_from(0, &mut seen).unwrap();
        assert_eq!(&seen, b"two");
        let refused = grants.map_static(GUEST, readonly.gref(), Access::ReadWrite);
        assert_eq!(refused.unwrap_err().errno(), Errno::EINVAL);
        assert_eq!(sim.census().mapped, 2);
        drop((read, write));
        assert_eq!(sim.census().mapped, 0);
    }

    #[test]
    fn references_start_where_real_guests_start_and_are_used_again() {
        let sim = machine();
        let guest = sim.guest(GUEST);
        let page = page_of(b"");
        let first = guest.grant(&page, false).unwrap();
        assert_eq!(first.gref(), GrantRef::new(8));
        let second = guest.grant(&page, false).unwrap();
        assert_eq!(second.gref(), GrantRef::new(9));
        drop(first);
        assert_eq!(guest.grant(&page, false).unwrap().gref(), GrantRef::new(8));
    }
}

mod events {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn binding_makes_the_port_pending_once() {
        let sim = machine();
        let guest = sim.guest(GUEST).alloc_port().unwrap();
        let mut channels = sim.open_event_channels().unwrap();
        assert!(!readable(&channels));
        let port = channels.bind(GUEST, guest.port()).unwrap();
        assert!(guest.is_bound());
        assert!(readable(&channels));
        assert_eq!(pending(&mut channels), [port]);
        assert!(!readable(&channels));
        assert!(pending(&mut channels).is_empty());
    }

    #[test]
    fn a_reported_port_is_masked_and_keeps_one_event() {
        let sim = machine();
        let guest = sim.guest(GUEST).alloc_port().unwrap();
        let mut channels = sim.open_event_channels().unwrap();
        let port = channels.bind(GUEST, guest.port()).unwrap();
        assert_eq!(pending(&mut channels), [port]);
        guest.notify();
        guest.notify();
        assert!(!readable(&channels), "masked");
        channels.unmask(&[port]).unwrap();
        assert_eq!(pending(&mut channels), [port], "two events are one");
        channels.unmask(&[port]).unwrap();
        assert!(!readable(&channels));
        guest.notify();
        assert_eq!(pending(&mut channels), [port]);
        channels.unmask(&[port, LocalPort::new(77)]).unwrap();
        channels.unmask(&[port]).unwrap();
        assert!(pending(&mut channels).is_empty());
    }

    #[test]
    fn the_guest_hears_and_counts() {
        let sim = machine();
        let guest = sim.guest(GUEST).alloc_port().unwrap();
        let mut channels = sim.open_event_channels().unwrap();
        let port = channels.bind(GUEST, guest.port()).unwrap();
        assert!(!guest.wait(Duration::ZERO));
        channels.notify(port).unwrap();
        channels.notify(port).unwrap();
        assert!(guest.wait(Duration::from_secs(5)));
        guest.clear();
        assert!(!guest.wait(Duration::ZERO));
        assert_eq!(guest.events(), 2);
    }

    #[test]
    fn only_the_named_domain_binds_and_only_once() {
        let sim = machine();
        let guest = sim.guest(GUEST).alloc_port().unwrap();
        let stranger = SimHypervisor {
            backend: OTHER,
            ..sim.clone()
        };
        let mut strange = stranger.open_event_channels().unwrap();
        assert_eq!(
            strange.bind(GUEST, guest.port()).unwrap_err().errno(),
            Errno::EINVAL
        );
        let mut channels = sim.open_event_channels().unwrap();
        for (dom, port) in [
            (OTHER, guest.port()),
            (GUEST, RemotePort::new(0)),
            (GUEST, RemotePort::new(99)),
        ] {
            assert_eq!(channels.bind(dom, port).unwrap_err().errno(), Errno::EINVAL);
        }
        channels.bind(GUEST, guest.port()).unwrap();
        let mut second = sim.open_event_channels().unwrap();
        assert!(second.bind(GUEST, guest.port()).is_err(), "bound already");
        assert_eq!(sim.census().bound_ports, 1);
    }

    #[test]
    fn a_dead_backend_frees_the_port_for_the_next_one() {
        let sim = machine();
        let guest = sim.guest(GUEST).alloc_port().unwrap();
        let mut channels = sim.open_event_channels().unwrap();
        channels.bind(GUEST, guest.port()).unwrap();
        drop(channels);
        assert!(!guest.is_bound());
        assert_eq!(sim.census().bound_ports, 0);
        guest.notify();
        let mut next = sim.open_event_channels().unwrap();
        let port = next.bind(GUEST, guest.port()).unwrap();
        assert_eq!(
            pending(&mut next),
            [port],
            "the event that went nowhere is made up for by binding"
        );
        next.unbind(port).unwrap();
        assert_eq!(next.unbind(port).unwrap_err().errno(), Errno::ENOTCONN);
        assert_eq!(next.notify(port).unwrap_err().errno(), Errno::ENOTCONN);
        assert_eq!(
            sim.census(),
            Census {
                guest_ports: 1,
                ..Census::default()
            }
        );
    }

    #[test]
    fn a_guest_that_closes_its_port_hears_nothing_and_harms_nobody() {
        let sim = machine();
        let guest = sim.guest(GUEST).alloc_port().unwrap();
        let mut channels = sim.open_event_channels().unwrap();
        let port = channels.bind(GUEST, guest.port()).unwrap();
        drop(guest);
        channels.notify(port).unwrap();
        assert_eq!(
            sim.census(),
            Census {
                bound_ports: 1,
                ..Census::default()
            }
        );
        channels.unbind(port).unwrap();
        assert_eq!(sim.census(), Census::default());
    }

    #[test]
    fn numbers_are_used_again() {
        let sim = machine();
        let guest = sim.guest(GUEST);
        let (one, two) = (guest.alloc_port().unwrap(), guest.alloc_port().unwrap());
        assert_eq!(
            (one.port(), two.port()),
            (RemotePort::new(1), RemotePort::new(2))
        );
        let mut channels = sim.open_event_channels().unwrap();
        let local = channels.bind(GUEST, one.port()).unwrap();
        channels.bind(GUEST, two.port()).unwrap();
        channels.unbind(local).unwrap();
        assert_eq!(channels.bind(GUEST, one.port()).unwrap(), local);
        drop(one);
        assert_eq!(guest.alloc_port().unwrap().port(), RemotePort::new(1));
    }

    #[test]
    fn no_event_is_lost_between_two_threads() {
        const EVENTS: u32 = 20_000;
        let sim = machine();
        let guest = sim.guest(GUEST).alloc_port().unwrap();
        let mut channels = sim.open_event_channels().unwrap();
        let port = channels.bind(GUEST, guest.port()).unwrap();
        let produced = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let shared = std::sync::Arc::clone(&produced);
        let producer = std::thread::spawn(move || {
            for _ in 0..EVENTS {
                shared.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                guest.notify();
            }
            guest
        });
        // As a worker does it: unmask only when everything produced so far was seen.
        let mut consumed = 0;
        while consumed < EVENTS {
            let mut fds = [PollFd::new(channels.as_fd(), PollFlags::POLLIN)];
            assert_eq!(
                poll(&mut fds, PollTimeout::from(20_000_u16)).unwrap(),
                1,
                "an event was lost at {consumed}"
            );
            for pending in pending(&mut channels) {
                assert_eq!(pending, port);
                consumed = produced.load(std::sync::atomic::Ordering::SeqCst);
                channels.unmask(&[port]).unwrap();
            }
        }
        drop(producer.join().unwrap());
    }
}
