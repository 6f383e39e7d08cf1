// SPDX-License-Identifier: GPL-3.0-or-later
//! `netback bench`: how fast the packet path is beside its tap, and what many vifs cost.
//!
//! | module | what it is |
//! |---|---|
//! | `path` | the packet path against a bare loop over the same tap |
//! | `scale` | a thousand vifs on one daemon |
//! | `tap` | the host's side of the tap |
//! | `guest`, `frames` | a guest that does nothing but move frames, and the frames |
//! | `cost`, `process` | clocks, threads, memory |
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
mod scale;
mod tap;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotplug::TapError;
use xen_ring::front::FrontFault;
use xen_ring::{OutsidePage, SysError};

use crate::cli::BenchWhat;
use crate::demo::guest::netfront::NetfrontError;
use crate::demo::machine::MachineError;
use crate::demo::namespace::{self, NamespaceError};
use crate::demo::toolstack::ToolstackError;
use crate::descriptors;
use path::Effort;
use report::Report;
use scale::Size;

/// What the user chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchOptions {
    /// What to measure.
    pub what: BenchWhat,
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
    /// Nobody bears its name, or a vif has no worker.
    #[error("a thread of the daemon or of its store cannot be found")]
    NoThread,
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

/// Measures, and prints a table to `out`.
///
/// Call it before any other thread is started: without privilege it enters a user namespace.
///
/// # Errors
///
/// [`BenchError`]: something could not be measured. Figures that miss their bar are none.
pub fn run(options: &BenchOptions, out: &mut impl Write) -> Result<(), BenchError> {
    // Before minutes of work that could not be written down.
    let json = options.json.as_deref().map(JsonFile::create).transpose()?;
    namespace::enter()?;
    namespace::check_tun()?;
    quiet()?;
    descriptors::raise_limit()?;
    let machine = process::machine()?;
    if options.quick {
        writeln!(
            out,
            "--quick: a small part of the work, to see that it runs. These are no figures.\n"
        )?;
    }
    let report = match options.what {
        BenchWhat::Path => measure_path(&machine, options.quick, out)?,
        BenchWhat::Scale => measure_scale(&machine, options.quick, out)?,
    };
    json.map_or(Ok(()), |json| json.write(&report))
}

fn measure_path(machine: &str, quick: bool, out: &mut impl Write) -> Result<Report, BenchError> {
    let effort = Effort {
        rounds: if quick { 1 } else { 9 },
        divisor: if quick { 20 } else { 1 },
    };
    report::path::head(out, machine, effort.rounds)?;
    let all = path::run(effort, |series| Ok(report::path::row(out, series)?))?;
    report::path::foot(out)?;
    Ok(Report::of_path(machine, &all))
}

fn measure_scale(machine: &str, quick: bool, out: &mut impl Write) -> Result<Report, BenchError> {
    let seconds = |full| Duration::from_secs(if quick { 1 } else { full });
    let size = Size {
        vifs: if quick { 50 } else { 1000 },
        busy: if quick { 10 } else { 100 },
        idle: seconds(10),
        sending: seconds(5),
    };
    report::scale::head(out, machine)?;
    let outcome = scale::run(size)?;
    let bars = report::scale::bars(size, &outcome);
    let notes = report::scale::notes(&outcome);
    report::scale::table(out, &bars, &notes)?;
    Ok(Report::of_scale(machine, bars, notes))
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

/// Where the figures go, beside the table.
struct JsonFile<'p> {
    path: &'p Path,
    file: File,
}

impl<'p> JsonFile<'p> {
    fn create(path: &'p Path) -> Result<Self, BenchError> {
        match File::create(path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(BenchError::json(path, error)),
        }
    }

    fn write(mut self, report: &Report) -> Result<(), BenchError> {
        let text = serde_json::to_string_pretty(report).map_err(io::Error::from);
        text.and_then(|text| writeln!(self.file, "{text}"))
            .map_err(|error| BenchError::json(self.path, error))
    }
}

impl BenchError {
    fn json(path: &Path, error: io::Error) -> Self {
        Self::Json {
            path: path.to_owned(),
            error,
        }
    }
}
