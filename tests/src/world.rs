// SPDX-License-Identifier: GPL-3.0-or-later
//! One test's machine.
//!
//! Network namespaces are per thread, and threads inherit them: each test moves its own thread into a new one and
//! starts everything else from there. So tests run side by side in one process and see nothing of one another.

mod sight;

use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use netback::config::Config;
use netback::demo::guest::netfront::{Netfront, NetfrontError, Phase};
use netback::demo::guest::options::FrontendOptions;
use netback::demo::guest::{Guest, GuestAddress};
use netback::demo::machine::Machine;
use netback::demo::namespace;
use netback::demo::sim::Census;
use netback::demo::toolstack::{Toolstack, VifSpec};

use crate::guest::TestGuest;

/// How long anything may take before a test gives up. Never how long something must take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A simulated machine in a network namespace of its own.
#[derive(Debug)]
pub struct World {
    /// Store, hypervisor, toolstack and daemon.
    pub machine: Machine,
    /// vCPUs of guests that are created: no vif is offered more queues.
    pub vcpus: u16,
}

impl World {
    /// A machine with the daemon running as by default, on two workers.
    #[must_use]
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// As [`new`](Self::new) with another configuration.
    #[must_use]
    pub fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::without_daemon(configure);
        world.machine.start_daemon().unwrap();
        world
    }

    /// As [`new`](Self::new) with guests that have vCPUs for as many queues as they like.
    #[must_use]
    pub fn smp() -> Self {
        Self {
            vcpus: 16,
            ..Self::new()
        }
    }

    /// A machine on which the daemon has not been started yet.
    #[must_use]
    pub fn without_daemon(configure: impl FnOnce(&mut Config)) -> Self {
        enter_namespace();
        let mut config = Config {
            workers: NonZeroU16::new(2),
            max_queues: NonZeroU16::new(4),
            ..Config::default()
        };
        configure(&mut config);
        Self {
            machine: Machine::new(config).unwrap(),
            vcpus: 1,
        }
    }

    /// The toolstack.
    #[must_use]
    pub fn toolstack(&self) -> &Toolstack {
        self.machine.toolstack()
    }

    /// Makes domain `dom` with one connected vif, and boots it.
    #[must_use]
    pub fn guest(&self, dom: u16, options: FrontendOptions) -> TestGuest {
        self.guest_with_mtu(dom, 1500, options)
    }

    /// As [`guest`](Self::guest), with another MTU on both sides of the vif.
    #[must_use]
    pub fn guest_with_mtu(&self, dom: u16, mtu: u16, options: FrontendOptions) -> TestGuest {
        let vif = self.create(dom);
        self.wait_init(&vif);
        hotplug::link::set_mtu(&vif.tap(), mtu.into()).unwrap();
        self.run_script(&vif);
        let guest = self.boot(vif, mtu, options);
        guest.wait_connected();
        guest
    }

    /// Makes domain `dom` and the directories of its vif; no more.
    #[must_use]
    pub fn create(&self, dom: u16) -> VifSpec {
        self.create_as(dom, |_| {})
    }

    /// As [`create`](Self::create), with changes to what the toolstack writes.
    #[must_use]
    pub fn create_as(&self, dom: u16, change: impl FnOnce(&mut VifSpec)) -> VifSpec {
        let mut vif = VifSpec::new(dom, &mac_text(dom));
        change(&mut vif);
        self.machine
            .create_domain(dom, &format!("guest-{dom}"), self.vcpus)
            .unwrap();
        self.toolstack().create_vif(&vif).unwrap();
        vif
    }

    /// Makes domain `dom` with a vif whose script has been run: all that a toolstack does before the guest boots.
    #[must_use]
    pub fn attach(&self, dom: u16) -> VifSpec {
        let vif = self.create(dom);
        self.plug(&vif);
        vif
    }

    /// Waits for InitWait, and plays the vif script.
    pub fn plug(&self, vif: &VifSpec) {
        self.wait_init(vif);
        self.run_script(vif);
    }

    /// Waits for InitWait, as libxl does before it runs the script.
    pub fn wait_init(&self, vif: &VifSpec) {
        self.toolstack()
            .wait_state(vif, xenbus::XenbusState::InitWait, PATIENCE)
            .unwrap();
    }

    /// Waits until the tap is there: the backend has got as far as InitWait, or beyond.
    pub fn wait_tap(&self, vif: &VifSpec) {
        until("the tap is there", || {
            self.interfaces().contains(&vif.tap())
        });
    }

    /// Plays the vif script.
    pub fn run_script(&self, vif: &VifSpec) {
        self.toolstack()
            .run_script(vif, host_ip(vif.guest), 24)
            .unwrap();
    }

    /// Boots a guest on a vif that exists. It connects as soon as the backend lets it.
    #[must_use]
    pub fn boot(&self, vif: VifSpec, mtu: u16, options: FrontendOptions) -> TestGuest {
        let address = guest_address(vif.guest, mtu);
        let guest = self
            .machine
            .boot(vif.guest, vif.handle, address, options)
            .unwrap();
        TestGuest::new(vif, guest)
    }

    /// Boots a guest on a vif whose script has been run, and waits until it is connected.
    #[must_use]
    pub fn boot_connected(&self, vif: VifSpec, options: FrontendOptions) -> TestGuest {
        let guest = self.boot(vif, 1500, options);
        guest.wait_connected();
        guest
    }

    /// As [`boot`](Self::boot); the guest's driver does `first` before anything else.
    #[must_use]
    pub fn boot_after(
        &self,
        vif: VifSpec,
        mtu: u16,
        options: FrontendOptions,
        first: impl FnOnce(&mut Netfront) -> Result<(), NetfrontError> + Send + 'static,
    ) -> TestGuest {
        let address = guest_address(vif.guest, mtu);
        let frontend = self
            .machine
            .frontend(vif.guest, vif.handle, options)
            .unwrap();
        let guest = Guest::spawn(address, move || {
            let mut netfront = frontend()?;
            first(&mut netfront)?;
            Ok(netfront)
        });
        TestGuest::new(vif, guest.unwrap())
    }

    /// Ends the daemon as `kill` does, and starts another.
    pub fn restart_daemon(&mut self) {
        self.machine.stop_daemon().unwrap();
        self.machine.start_daemon().unwrap();
    }

    /// Makes domain `dom` with a vif, and connects a frontend that has no stack: the test drives it.
    #[must_use]
    pub fn raw(&self, dom: u16, options: FrontendOptions) -> (VifSpec, Netfront) {
        let vif = self.attach(dom);
        let netfront = self.connect(&vif, options);
        (vif, netfront)
    }

    /// Connects a frontend that has no stack to a vif that exists.
    #[must_use]
    pub fn connect(&self, vif: &VifSpec, options: FrontendOptions) -> Netfront {
        let mut netfront = self.frontend(vif, options);
        netfront.connect(PATIENCE).unwrap();
        assert_eq!(netfront.phase(), Phase::Connected);
        netfront
    }

    /// A frontend that has no stack and has not done anything yet.
    #[must_use]
    pub fn frontend(&self, vif: &VifSpec, options: FrontendOptions) -> Netfront {
        self.machine
            .frontend(vif.guest, vif.handle, options)
            .unwrap()()
        .unwrap()
    }

    /// Detaches a vif as `xl network-detach` does.
    pub fn detach(&self, vif: &VifSpec) {
        self.toolstack().detach(vif).unwrap();
    }

    /// Detaches a guest's vif, and ends the guest.
    pub fn remove(&self, guest: TestGuest) {
        self.detach(&guest.vif);
        guest.stop().unwrap();
    }

    /// A guest is gone without a word, and the toolstack makes a whole new device in the place of its vif.
    #[must_use]
    pub fn make_anew(&self, guest: TestGuest) -> VifSpec {
        let vif = guest.vif.clone();
        guest.with(|netfront| netfront.vanish());
        guest.stop().unwrap();
        self.toolstack().create_vif(&vif).unwrap();
        vif
    }

    /// Takes the vif of a frontend away, in whatever state it is, as libxl does when a guest does not cooperate.
    pub fn force_away(&self, vif: &VifSpec, netfront: Netfront) {
        drop(netfront);
        let toolstack = self.toolstack();
        toolstack.begin_detach(vif).unwrap();
        let frontend = vif.frontend_dir();
        let xenstored = self.machine.xenstored();
        xenstored.with(move |store| store.rm(&frontend)).unwrap();
        toolstack
            .wait_state(vif, xenbus::XenbusState::Closed, PATIENCE)
            .unwrap();
        toolstack.remove_vif(vif).unwrap();
    }

    /// Takes the last guest away, and ends the world as [`finish_empty`](Self::finish_empty) does.
    pub fn finish(self, guest: TestGuest) {
        self.remove(guest);
        self.finish_empty();
    }

    /// As [`finish`](Self::finish), of a guest that the backend has served well to the end.
    pub fn finish_well(self, guest: TestGuest) {
        guest.assert_well_served();
        self.finish(guest);
    }

    /// As [`finish`](Self::finish), after [`force_away`](Self::force_away).
    pub fn finish_raw(self, vif: &VifSpec, netfront: Netfront) {
        self.force_away(vif, netfront);
        self.finish_empty();
    }

    /// Waits until nothing of any guest is left, and ends the world. The daemon must have lived until here.
    pub fn finish_empty(mut self) {
        until("nothing is left", || {
            self.machine.hypervisor().census() == Census::default()
                && self.interfaces().is_empty()
                && self.status().vifs.is_empty()
        });
        for root in ["backend/vif", "error/backend/vif"] {
            let root = format!("/local/domain/0/{root}");
            let nodes = self
                .machine
                .xenstored()
                .with(move |store| {
                    let mut nodes = store.paths_below(&root);
                    nodes.retain(|node| *node != root);
                    nodes
                })
                .unwrap();
            assert!(nodes.is_empty(), "nodes are left: {nodes:?}");
        }
        assert!(self.machine.daemon_runs(), "the daemon ended on its own");
        self.machine.stop_daemon().unwrap();
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until `done`; panics when it does not come about.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(
            Instant::now() < deadline,
            "waited for {PATIENCE:?}, but not: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The host's address towards guest `dom`.
#[must_use]
pub fn host_ip(dom: u16) -> Ipv4Addr {
    let [high, low] = dom.to_be_bytes();
    Ipv4Addr::new(10, high, low, 1)
}

/// The address of guest `dom`.
#[must_use]
pub fn guest_ip(dom: u16) -> Ipv4Addr {
    let [high, low] = dom.to_be_bytes();
    Ipv4Addr::new(10, high, low, 2)
}

/// The addresses of guest `dom`'s interface.
#[must_use]
pub fn guest_address(dom: u16, mtu: u16) -> GuestAddress {
    GuestAddress {
        mac: mac(dom),
        ip: guest_ip(dom),
        prefix: 24,
        mtu: mtu.into(),
    }
}

fn mac(dom: u16) -> [u8; 6] {
    let [high, low] = dom.to_be_bytes();
    [0x00, 0x16, 0x3e, 0x00, high, low]
}

fn mac_text(dom: u16) -> String {
    mac(dom).map(|byte| format!("{byte:02x}")).join(":")
}

fn enter_namespace() {
    if let Err(errno) = namespace::enter_network() {
        panic!(
            "this test needs a network namespace of its own, which needs CAP_SYS_ADMIN ({errno}): \
             run the tests as root, or under `unshare -Ur`"
        );
    }
    if let Err(error) = namespace::check_tun() {
        panic!("this test needs to make a tap: {error}");
    }
}
