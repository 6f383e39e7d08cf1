// SPDX-License-Identifier: GPL-3.0-or-later
//! A world in which an honest guest lives beside liars, on the same worker.

use std::net::UdpSocket;

use netback::config::Config;
use netback::demo::guest::netfront::Netfront;
use netback::demo::toolstack::VifSpec;
use netback_tests::host::add_neighbour;
use netback_tests::raw::{assert_no_violation, drain, linux};
use netback_tests::world::{guest_ip, until};
use netback_tests::{TestGuest, World};

/// One honest guest (domain 100) and the world that it shares with liars. One worker serves them all.
pub(crate) struct Neighbourhood {
    pub(crate) world: World,
    pub(crate) neighbour: TestGuest,
}

pub(crate) fn neighbourhood() -> Neighbourhood {
    neighbourhood_with(|_| {})
}

/// As [`neighbourhood`], with another configuration.
pub(crate) fn neighbourhood_with(configure: impl FnOnce(&mut Config)) -> Neighbourhood {
    settle(World::with(|config| one_worker(config, configure)))
}

/// As [`neighbourhood`], in a world in which something is held for as long as it takes the honest guest to connect.
pub(crate) fn neighbourhood_after<T>(hold: impl FnOnce(&World) -> T) -> Neighbourhood {
    let world = World::with(|config| one_worker(config, |_| {}));
    let held = hold(&world);
    let hood = settle(world);
    drop(held);
    hood
}

fn one_worker(config: &mut Config, configure: impl FnOnce(&mut Config)) {
    config.workers = std::num::NonZeroU16::new(1);
    configure(config);
}

fn settle(world: World) -> Neighbourhood {
    let neighbour = world.guest(100, linux());
    neighbour.ping();
    Neighbourhood { world, neighbour }
}

impl Neighbourhood {
    pub(crate) fn assert_unharmed(&self) {
        assert!(self.world.machine.daemon_runs());
        self.neighbour.ping();
        self.neighbour.tcp(100_000);
        self.neighbour.assert_well_served();
    }

    /// The vif is closed with a reason like `text`, and nothing of the guest is held any more.
    pub(crate) fn assert_closed(&self, vif: &VifSpec, text: &str) {
        // The reason is written first, so it is the present one.
        until("the vif is closed", || {
            self.world.backend_state(vif).as_deref() == Some("5")
        });
        let error = self.world.error(vif).unwrap();
        assert!(error.contains(text), "{error:?} does not say {text:?}");
        let census = self.world.machine.hypervisor().census();
        assert_eq!(
            (census.mapped, census.bound_ports),
            (2, 2),
            "only the neighbour's are in use"
        );
        assert_eq!(self.world.vif_status(vif).unwrap().reason, Some(error));
    }

    /// Takes the liar away, and ends the world.
    pub(crate) fn finish_raw(self, vif: &VifSpec, netfront: Netfront) {
        self.world.force_away(vif, netfront);
        self.finish();
    }

    pub(crate) fn finish(self) {
        self.assert_unharmed();
        self.world.remove(self.neighbour);
        self.world.finish_empty();
    }
}

/// Waits until what is sent to domain `dom` arrives in its frontend: the host drops what it sends before it has taken
/// note of the carrier.
pub(crate) fn reach(netfront: &mut Netfront, dom: u16) {
    let before = netfront.stats().rx_frames;
    until("frames arrive", || {
        flood(dom, 1, 200);
        drain(netfront) > before
    });
    assert_no_violation(netfront);
}

/// Sends so many datagrams towards a guest that need not be there: its address is entered by hand.
pub(crate) fn flood(dom: u16, datagrams: usize, bytes: usize) {
    add_neighbour(guest_ip(dom), &format!("vif{dom}.0"));
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let payload = vec![0; bytes];
    for _ in 0..datagrams {
        // The tap's queue is full from some moment on; what it refuses is lost, as on any wire.
        let _lost = socket.send_to(&payload, (guest_ip(dom), 4_711));
    }
}
