// SPDX-License-Identifier: GPL-3.0-or-later
//! `netback bench`: how fast the packet path is beside its tap.
//!
//! | module | what it is |
//! |---|---|
//! | `path` | the packet path against a bare loop over the same tap |
//! | `guest`, `frames` | a guest that does nothing but move frames, and the frames |
//! | `cost`, `process` | clocks and threads |
//! | `report` | tables for people, JSON for programs |
//!
//! The daemon is the real one, with a real tap in a private network namespace; hypervisor, store and guests are those
//! of the demo. These are measurements, not tests: they end well whatever comes out, unless nothing could be measured.

mod cost;
mod frames;
mod guest;
mod path;
mod process;
mod report;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotplug::TapError;
use xen_ring::front::FrontFault;
use xen_ring::{OutsidePage, SysError};

use crate::demo::guest::netfront::NetfrontError;
use crate::demo::machine::MachineError;
use crate::demo::namespace::{self, NamespaceError};
use crate::demo::toolstack::ToolstackError;
use path::Effort;
use report::Report;

/// What the user chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchOptions {
    /// A small part of the usual work: only to see that it runs.
    pub quick: bool,
    /// Where to write the figures as JSON.
    pub json: Option<PathBuf>,
}

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No private network.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The machine, or the daemon on it.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The toolstack.
    #[error(transparent)]
    Toolstack(#[from] ToolstackError),
    /// The guest's side of the store.
    #[error("the guest: {0}")]
    Guest(#[from] NetfrontError),
    /// The guest's rings.
    #[error("the guest: {0}")]
    Front(#[from] FrontFault),
    /// The guest's memory or event channels.
    #[error("the guest: {0}")]
    Xen(#[from] SysError),
    /// A defect of the bench.
    #[error("the guest's memory: {0}")]
    Outside(#[from] OutsidePage),
    /// The tap could not be taken over.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A system call.
    #[error("the kernel refuses: {0}")]
    Io(#[from] io::Error),
    /// The file for the figures.
    #[error("the figures cannot be written to {path}: {error}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Worker and guest would take turns.
    #[error("only one processor may be used: the worker and the guest need one each")]
    OneProcessor,
    /// The daemon has none.
    #[error("the daemon's worker thread cannot be found")]
    NoWorker,
    /// The backend answered a request with an error.
    #[error("the backend answered a frame {way} with status {status}")]
    Refused {
        /// Its direction.
        way: &'static str,
        /// The response's status.
        status: i16,
    },
    /// Frames went missing.
    #[error("of {of} frames {moved} arrived")]
    Lost {
        /// Frames that arrived.
        moved: u64,
        /// Frames that were sent.
        of: u64,
    },
    /// Something else sends through the tap.
    #[error("other frames than the bench's came through the tap")]
    Strangers,
    /// Nothing moves.
    #[error("nothing has moved for {after:?}")]
    Stalled {
        /// How long that was waited for.
        after: Duration,
    },
}

/// Measures the packet path and prints a table to `out`.
///
/// Call it before any other thread is started: without privilege it enters a user namespace.
///
/// # Errors
///
/// [`BenchError`]: something could not be measured. Figures that miss their bar are none.
pub fn run(options: &BenchOptions, out: &mut impl Write) -> Result<(), BenchError> {
    namespace::enter()?;
    namespace::check_tun()?;
    quiet()?;
    let effort = if options.quick {
        Effort {
            rounds: 1,
            divisor: 20,
        }
    } else {
        Effort {
            rounds: 9,
            divisor: 1,
        }
    };
    let machine = process::machine()?;
    report::head(out, &machine, effort.rounds)?;
    let path = path::run(effort, |series| Ok(report::row(out, series)?))?;
    report::foot(out)?;
    write(options.json.as_deref(), &Report::new(&machine, &path))
}

/// Keeps the kernel from sending frames of its own through the taps: IPv6 looks for neighbours and routers.
fn quiet() -> io::Result<()> {
    for interfaces in ["all", "default"] {
        let setting = format!("/proc/sys/net/ipv6/conf/{interfaces}/disable_ipv6");
        match fs::write(setting, "1") {
            // A kernel without IPv6 is quiet.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn write(path: Option<&Path>, report: &Report) -> Result<(), BenchError> {
    let Some(path) = path else {
        return Ok(());
    };
    let failed = |error| BenchError::Json {
        path: path.to_owned(),
        error,
    };
    let text = serde_json::to_string_pretty(report).map_err(|error| failed(error.into()))?;
    fs::write(path, text + "\n").map_err(failed)
}
