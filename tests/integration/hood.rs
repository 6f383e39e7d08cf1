// SPDX-License-Identifier: GPL-3.0-or-later
//! A world in which an honest guest lives beside liars, on the same worker.

use std::net::UdpSocket;

use netback::config::Config;
use netback::demo::guest::netfront::Netfront;
use netback::demo::guest::options::FrontendOptions;
use netback::demo::toolstack::VifSpec;
use netback_tests::world::{PATIENCE, guest_ip, until};
use netback_tests::{TestGuest, World};

pub(crate) fn linux() -> FrontendOptions {
    FrontendOptions::default()
}

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
    let world = World::with(|config| {
        config.workers = std::num::NonZeroU16::new(1);
        configure(config);
    });
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

    pub(crate) fn finish(self) {
        self.assert_unharmed();
        self.world.detach(&self.neighbour.vif);
        self.neighbour.stop().unwrap();
        self.world.finish_empty();
    }
}

/// Takes a liar's vif away, in whatever state it is, as libxl does when a guest does not cooperate.
pub(crate) fn force_away(world: &World, vif: &VifSpec, netfront: Netfront) {
    drop(netfront);
    let toolstack = world.toolstack();
    toolstack.begin_detach(vif).unwrap();
    let frontend = vif.frontend_dir();
    world
        .machine
        .xenstored()
        .with(move |store| store.rm(&frontend))
        .unwrap();
    toolstack
        .wait_state(vif, xenbus::XenbusState::Closed, PATIENCE)
        .unwrap();
    toolstack.remove_vif(vif).unwrap();
}

/// Waits until what is sent to domain `dom` arrives in its frontend: the host drops what it sends before it has taken
/// note of the carrier.
pub(crate) fn reach(netfront: &mut Netfront, dom: u16) {
    let before = netfront.stats().rx_frames;
    until("frames arrive", || {
        flood(dom, 1, 200);
        while netfront.receive().is_some() {}
        netfront.flush();
        netfront.stats().rx_frames > before
    });
    assert_eq!(netfront.stats().violations.count, 0);
}

/// Sends so many datagrams towards a guest that need not be there: its address is entered by hand.
pub(crate) fn flood(dom: u16, datagrams: usize, bytes: usize) {
    let ip = guest_ip(dom).to_string();
    let tap = format!("vif{dom}.0");
    let args = [
        "neigh",
        "replace",
        &ip,
        "lladdr",
        "00:16:3e:00:00:01",
        "dev",
        &tap,
    ];
    assert!(
        std::process::Command::new("ip")
            .args(args)
            .status()
            .unwrap()
            .success()
    );
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let payload = vec![0; bytes];
    for _ in 0..datagrams {
        // The tap's queue is full from some moment on; what it refuses is lost, as on any wire.
        let _lost = socket.send_to(&payload, (guest_ip(dom), 4_711));
    }
}
