// SPDX-License-Identifier: GPL-3.0-or-later
//! What each of the commands does, from parsed arguments to the end. Called by `main` only.

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use sd_notify::NotifyState;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use xen_ring::XenHypervisor;
use xenbus::Client;

use crate::bench::{self, BenchOptions};
use crate::cli::{BenchArgs, DemoArgs, RunArgs, StatusArgs};
use crate::config::{Config, ConfigError, LogLevel};
use crate::control::{client, render};
use crate::daemon::{Connect, Daemon, Stopper};
use crate::demo::{self, DemoOptions};
use crate::keeper::{self, Keeper};
use crate::preflight::{self, PreflightError};
use crate::{descriptors, logging};

/// What every command can fail with: a sentence for the one who typed it.
pub type CommandResult = Result<(), Box<dyn Error>>;

/// What the command ends with after an error: `EX_CONFIG` (78, <sysexits.h>) if it would end so again until somebody has
/// changed the configuration or the machine, so that systemd need not try; else 1.
#[must_use]
pub fn exit_status(error: &(dyn Error + 'static)) -> u8 {
    let refused = error.downcast_ref::<PreflightError>();
    if error.is::<ConfigError>() || refused.is_some_and(PreflightError::is_lasting) {
        78
    } else {
        1
    }
}

/// `netback run`: serves this host's guests until SIGTERM or SIGINT.
///
/// # Errors
///
/// Why the daemon cannot start, or why it had to end. With `--check`, what is wrong with the configuration.
pub fn run(args: &RunArgs) -> CommandResult {
    let file = args.config.as_deref();
    let config = Config::load(file)?;
    if args.check {
        println!("{}", Config::verdict(file));
        return Ok(());
    }
    // Before anything else has a descriptor: what was passed is known by its numbers only.
    let passed = hotplug::inherited()?;
    logging::init(args.log_level.unwrap_or(config.log.level))?;
    let kept = keeper::kept(passed);
    let machine = preflight::Host::system();
    let _lock = preflight::check(&machine)?;
    let files = descriptors::raise_limit()?;
    tracing::debug!(files, "limit of open files");
    let mut daemon = Daemon::new(config.clone(), &XenHypervisor, connect(&config))?;
    daemon.look_for_the_kernels_driver(machine);
    if let Some(keeper) = Keeper::service_manager()? {
        daemon.keep_taps(keeper, kept);
    }
    stop_on_signals(daemon.stopper())?;
    daemon.run(|| notify(&[NotifyState::Ready]))?;
    notify(&[NotifyState::Stopping]);
    Ok(())
}

/// `netback status`: prints what a running daemon says of its vifs.
///
/// # Errors
///
/// Why there is no answer.
pub fn status(args: &StatusArgs) -> CommandResult {
    let answer = client::status(&args.socket)?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(answer.json())?)
    } else {
        render::table(&answer.status()?)
    };
    match io::stdout().write_all(text.as_bytes()) {
        // `netback status | head` is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// `netback demo`: shows the daemon at work without Xen.
///
/// # Errors
///
/// What did not work, or what the machine forbids and how to run the demo otherwise.
pub fn demo(args: &DemoArgs) -> CommandResult {
    logging::init(LogLevel::Warn)?;
    let options = DemoOptions {
        keep: args.keep,
        time: Duration::from_secs(args.seconds),
    };
    Ok(demo::run(options, &mut io::stdout().lock())?)
}

/// `netback bench`: measures, without Xen.
///
/// # Errors
///
/// What could not be measured.
pub fn bench(args: &BenchArgs) -> CommandResult {
    logging::init(LogLevel::Error)?;
    let options = BenchOptions {
        what: args.what,
        quick: args.quick,
        json: args.json.clone(),
    };
    Ok(bench::run(&options, &mut io::stdout().lock())?)
}

fn connect(config: &Config) -> Connect {
    match config.xenstore.socket.clone() {
        Some(path) => Box::new(move |limit| Client::connect_to(&path, limit)),
        None => Box::new(Client::connect),
    }
}

/// Signals are waited for on a thread of their own, which wakes the daemon's loop.
fn stop_on_signals(stopper: Stopper) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                tracing::info!(signal, "asked to stop");
                if let Err(error) = stopper.stop() {
                    tracing::error!(%error, "the control thread cannot be woken");
                }
            }
        })?;
    Ok(())
}

/// Tells systemd, if it started us.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told the daemon's state");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_service_manager_is_told_what_it_need_not_try_again() {
        let config = Config::parse("no-such-key = 1", Path::new("x")).unwrap_err();
        let mistyped: Box<dyn Error> = config.into();
        let rival: Box<dyn Error> = PreflightError::KernelDriver.into();
        let other: Box<dyn Error> = PreflightError::Running { pid: None }.into();
        let store: Box<dyn Error> = io::Error::from(io::ErrorKind::TimedOut).into();
        let statuses = [mistyped, rival, other, store].map(|error| exit_status(&*error));
        assert_eq!(statuses, [78, 78, 1, 1]);
    }
}
