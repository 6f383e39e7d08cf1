// SPDX-License-Identifier: GPL-3.0-or-later
//! `netback demo`: the daemon, whole, at work on a machine without Xen.
//!
//! | module | what it stands for |
//! |---|---|
//! | [`sim`] | Xen: grant tables and event channels |
//! | [`guest`] | a guest: its network driver, its TCP/IP, a few servers |
//! | [`toolstack`] | xl and the vif script |
//! | [`machine`] | all of them together with the real daemon; the integration tests use it too |
//! | [`namespace`] | the private network in which the *real* tap lives |
//! | [`probe`], [`pattern`] | what is sent through, and how it is checked |
//! | [`report`] | what is printed |
//!
//! The daemon's code is the same as on a real host, from xenstore to tap. Only the devices of the hypervisor and
//! the store are others.

pub mod guest;
pub mod machine;
pub mod namespace;
pub mod pattern;
pub mod probe;
pub mod report;
mod service_manager;
pub mod sim;
pub mod toolstack;

use std::fmt;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use hotplug::link;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Config;
use crate::control::render;
use guest::netfront::{NetfrontError, Phase};
use guest::options::FrontendOptions;
use guest::{Guest, GuestAddress, GuestGone};
use machine::{Machine, MachineError};
use namespace::{Isolation, NamespaceError};
use probe::{Bound, ProbeError};
use report::Report;
use sim::Census;
use toolstack::{ToolstackError, VifSpec};

/// The guest's domain id.
const GUEST: u16 = 1;
/// Its Ethernet address: Xen's prefix, as xl gives them.
const GUEST_MAC: [u8; 6] = [0x00, 0x16, 0x3e, 0x00, 0x00, 0x01];
const GUEST_MAC_TEXT: &str = "00:16:3e:00:00:01";
/// Addresses that are reserved for documentation (RFC 5737), so nothing real can be meant.
const GUEST_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const HOST_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PREFIX: u8 = 24;
const MTU: usize = 1500;

const PINGS: u32 = 100;
/// Payload of an ordinary ping, and of one that fills a frame (1500 - 20 - 8).
const PING_BYTES: [usize; 2] = [56, 1472];
/// A lost ping costs this much.
const PING_WAIT: Duration = Duration::from_millis(500);
/// Most bytes to send in one direction, however fast it goes.
const MOST_BYTES: u64 = 64 << 30;
/// How long a step that should take milliseconds may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the user chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoOptions {
    /// Leave the guest running until Ctrl-C.
    pub keep: bool,
    /// How long to send TCP in each direction.
    pub time: Duration,
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No private network.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The machine, or the daemon on it.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The toolstack.
    #[error(transparent)]
    Toolstack(#[from] ToolstackError),
    /// The guest.
    #[error("the guest: {0}")]
    Guest(#[from] NetfrontError),
    /// The guest.
    #[error(transparent)]
    GuestGone(#[from] GuestGone),
    /// The backend did not connect.
    #[error("the guest's device is not connected after {0:?}")]
    NotConnected(Duration),
    /// A probe.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The backend broke the protocol towards the guest.
    #[error("the backend broke the protocol: {0}")]
    Violation(String),
    /// Something outlived the device.
    #[error("after the detach something is left: {0}")]
    Left(String),
    /// The terminal, or the signals.
    #[error("cannot talk to the terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Runs the demo and prints what it sees to `out`.
///
/// Call it before any other thread is started: without privilege it enters a user namespace, which the kernel
/// allows to single-threaded processes only.
///
/// # Errors
/// [`DemoError`], whose text says what went wrong and, where it is the machine's doing, what can be done.
pub fn run(options: DemoOptions, out: &mut impl Write) -> Result<(), DemoError> {
    let isolation = namespace::enter()?;
    namespace::check_tun()?;
    let mut machine = Machine::new(Config::default())?;
    let before = Inventory::take(&machine)?;
    machine.start_daemon()?;
    machine.create_domain(GUEST, "demo-guest", 1)?;
    let vif = VifSpec::new(GUEST, GUEST_MAC_TEXT);
    writeln!(
        out,
        "netback demo: the daemon with a simulated hypervisor, toolstack and guest, and a real tap in a private\n\
         network namespace. Nothing on this machine is changed.\n\n  \
         guest            domain {GUEST}, {GUEST_IP}, {GUEST_MAC_TEXT}\n  \
         tap              {}, {HOST_IP}/{PREFIX}",
        vif.tap(),
    )?;

    let (guest, connected_after) = attach(&machine, &vif)?;
    let report = measure(connected_after, options.time)?;
    write!(out, "{report}")?;
    writeln!(
        out,
        "\n$ netback status\n{}",
        render::table(&machine.status()?)
    )?;
    if options.keep {
        keep(&machine, isolation, out)?;
    }
    let violations = guest.with(|netfront| netfront.stats().violations.clone())?;
    if let Some(first) = violations.first.first() {
        return Err(DemoError::Violation(first.clone()));
    }
    machine.toolstack().detach(&vif)?;
    guest.stop()?;
    machine.stop_daemon()?;
    let after = Inventory::settled(&machine, &before)?;
    if after != before {
        return Err(DemoError::Left(format!("before: {before}; now: {after}")));
    }
    writeln!(out, "detached; nothing is left: {after}")?;
    Ok(())
}

/// Attaches the vif, boots the guest, and waits until it is connected.
fn attach(machine: &Machine, vif: &VifSpec) -> Result<(Guest, Duration), DemoError> {
    let address = GuestAddress {
        mac: GUEST_MAC,
        ip: GUEST_IP,
        prefix: PREFIX,
        mtu: MTU,
    };
    let started = Instant::now();
    machine.toolstack().attach(vif, HOST_IP, PREFIX)?;
    let guest = machine.boot(GUEST, vif.handle, address, FrontendOptions::default())?;
    if !guest.wait_phase(Phase::Connected, PATIENCE)? {
        return Err(DemoError::NotConnected(PATIENCE));
    }
    Ok((guest, started.elapsed()))
}

/// Pings the guest and moves TCP both ways.
fn measure(connected_after: Duration, time: Duration) -> Result<Report, DemoError> {
    let bound = Bound {
        bytes: MOST_BYTES,
        time,
    };
    let [small, large] = PING_BYTES;
    // The first one waits for ARP and is no measure.
    probe::ping(GUEST_IP, 1, small, PATIENCE)?;
    let ping = |bytes| probe::ping(GUEST_IP, PINGS, bytes, PING_WAIT).map(|pings| (bytes, pings));
    Ok(Report {
        connected_after,
        pings: [ping(small)?, ping(large)?],
        to_guest: probe::tcp_to_guest(GUEST_IP, bound)?,
        from_guest: probe::tcp_from_guest(GUEST_IP, bound)?,
    })
}

/// Says how to reach the guest and waits for Ctrl-C or SIGTERM.
fn keep(machine: &Machine, isolation: Isolation, out: &mut impl Write) -> Result<(), DemoError> {
    let enter = match isolation {
        Isolation::Network => "-n",
        Isolation::UserAndNetwork => "-U -n --preserve-credentials",
    };
    let pid = std::process::id();
    let program = std::env::current_exe()?;
    writeln!(
        out,
        "The guest keeps running. From another terminal:\n  \
         nsenter -t {pid} {enter} ping {GUEST_IP}\n  \
         {} status --socket {}\n\
         Ctrl-C ends it.",
        program.display(),
        machine.socket().display(),
    )?;
    out.flush()?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let _which = signals.forever().next();
    writeln!(out)?;
    Ok(())
}

/// What could be left behind, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inventory {
    census: Census,
    taps: usize,
    descriptors: usize,
}

impl Inventory {
    fn take(machine: &Machine) -> Result<Self, DemoError> {
        let tap = VifSpec::new(GUEST, GUEST_MAC_TEXT).tap();
        Ok(Self {
            census: machine.hypervisor().census(),
            taps: usize::from(link::exists(&tap)?),
            descriptors: std::fs::read_dir("/proc/self/fd")?.count(),
        })
    }

    /// The inventory once it is as expected, or after a while in any case: the store's thread closes the
    /// connections of those who have gone in its own time.
    fn settled(machine: &Machine, expected: &Self) -> Result<Self, DemoError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::take(machine)?;
            if now == *expected || Instant::now() >= deadline {
                return Ok(now);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} taps, {} open files",
            self.census, self.taps, self.descriptors
        )
    }
}
