// SPDX-License-Identifier: GPL-3.0-or-later
//! The vif script of one device, when `hotplug.runner` is `daemon`: `online` once when the netif
//! is there, `offline` once when it goes, one after the other, each within its time limit.
//!
//! With the toolstack as runner nothing is ever started here, and `offline` is done at once; only
//! whether there is such a script is looked at, so that a mistyped `script=` is in the error node.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Instant;

use hotplug::{ScriptCommand, ScriptEnv, ScriptExit, ScriptRun, ScriptState, Tap};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use xenbus::backend::{Event, HotplugStatus};
use xenbus::{DevicePath, device};

use super::host::Host;
use super::timers::Due;
use super::vif::{Facts, Vif};
use crate::config::Runner;

/// Where xenstored listens, for the daemon and for xenstore-read and the like.
const STORE_VARIABLE: &str = "XENSTORED_PATH";

/// Where the device's script is in its life.
#[derive(Debug, Default)]
pub(super) enum Script {
    /// `online` was not run, and need not be undone.
    #[default]
    Idle,
    /// `online` runs; then `offline` has to, if the device has gone meanwhile.
    Online {
        running: Running,
        then_offline: bool,
    },
    /// `online` was run, here or by a former daemon.
    Plugged {
        /// Why it did not succeed.
        failure: Option<String>,
    },
    /// `offline` runs.
    Offline(Running),
}

/// A script's process.
#[derive(Debug)]
pub(super) struct Running {
    run: ScriptRun,
    token: Token,
}

impl Script {
    /// As a former daemon left it, if there was one.
    pub(super) fn found(runner: Runner, facts: &Facts) -> Self {
        match runner {
            Runner::Daemon if facts.is_plugged() => Self::Plugged { failure: None },
            Runner::Daemon | Runner::Toolstack => Self::Idle,
        }
    }

    /// Why `online` has not succeeded, if it has not.
    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Self::Plugged { failure } => failure.as_deref(),
            Self::Idle | Self::Online { .. } | Self::Offline(_) => None,
        }
    }
}

impl Vif {
    /// Runs `online`, if that is the daemon's task and has not been done by a former daemon for this tap.
    pub(super) fn run_online(&mut self, host: &mut Host) -> Option<Event> {
        if host.config.hotplug.runner == Runner::Toolstack {
            // The toolstack will find that out too, but says so on somebody's terminal only.
            let error = self
                .script_env()
                .and_then(|env| env.check().map_err(|e| e.to_string()));
            return error
                .err()
                .map(|reason| Event::Hotplug(HotplugStatus::Error(reason)));
        }
        let status = host.store.ask(self.path, "read hotplug-status", |client| {
            device::read_hotplug(client, self.path)
        });
        if matches!(status, Some((HotplugStatus::Connected, _))) {
            if !self.netif.tap().is_some_and(Tap::created) {
                self.script = Script::Plugged { failure: None };
                return None;
            }
            // Said of another tap: the guest is to wait for the script again.
            host.store
                .ask(self.path, "remove hotplug-status", |client| {
                    device::clear_hotplug_status(client, self.path)
                });
        }
        match self.start(ScriptCommand::Online, host) {
            Ok(running) => {
                self.script = Script::Online {
                    running,
                    then_offline: false,
                };
                None
            }
            Err(reason) => {
                self.script = Script::Plugged {
                    failure: Some(reason.clone()),
                };
                Some(Event::Hotplug(HotplugStatus::Error(reason)))
            }
        }
    }

    /// A script of this device has not ended.
    pub(super) fn runs_a_script(&self) -> bool {
        matches!(self.script, Script::Online { .. } | Script::Offline(_))
    }

    /// Runs `offline` if `online` was run, here or by a former daemon. `Some` if there is nothing to wait for.
    pub(super) fn run_offline(&mut self, host: &mut Host) -> Option<Event> {
        match &mut self.script {
            Script::Idle => Some(Event::OfflineDone),
            Script::Online { then_offline, .. } => {
                *then_offline = true;
                None
            }
            Script::Plugged { .. } => self.start_offline(host),
            Script::Offline(_) => None,
        }
    }

    /// The script has written something, or ended, or its time is over.
    pub(super) fn script_ready(&mut self, now: Instant, host: &mut Host) -> Option<Event> {
        let (Script::Online { running, .. } | Script::Offline(running)) = &mut self.script else {
            return None;
        };
        let progress = running.run.poll(now);
        let token = running.token;
        for line in &progress.lines {
            tracing::info!(vif = %self.name(), "script: {line}");
        }
        if !progress.state.is_over() {
            return None;
        }
        host.drop_script(token);
        // The next script's time ends later, and an earlier timer would stay.
        host.timers.cancel(Due::Script(self.path));
        match std::mem::take(&mut self.script) {
            Script::Online {
                then_offline: true, ..
            } => self.start_offline(host),
            Script::Online { .. } => {
                let failure = self.online_failure(progress.state);
                self.script = Script::Plugged {
                    failure: failure.clone(),
                };
                failure.map(|reason| Event::Hotplug(HotplugStatus::Error(reason)))
            }
            Script::Offline(_) => {
                if let Some(reason) = failure(progress.state) {
                    tracing::warn!(vif = %self.name(), %reason, "the script's offline failed");
                }
                Some(Event::OfflineDone)
            }
            Script::Idle | Script::Plugged { .. } => None,
        }
    }

    /// A script that failed has often said why in `hotplug-error` itself, which is left as it is;
    /// one that succeeded has written `hotplug-status`, which the store's watch tells.
    fn online_failure(&self, state: ScriptState) -> Option<String> {
        let reason = failure(state)?;
        let script = self.facts.script.as_deref().unwrap_or_default();
        let reason = format!("{script} online: {reason}");
        tracing::error!(vif = %self.name(), %reason, "the script failed");
        Some(reason)
    }

    fn start_offline(&mut self, host: &mut Host) -> Option<Event> {
        match self.start(ScriptCommand::Offline, host) {
            Ok(running) => {
                self.script = Script::Offline(running);
                None
            }
            Err(reason) => {
                tracing::warn!(vif = %self.name(), %reason, "the script's offline cannot be run");
                self.script = Script::Idle;
                Some(Event::OfflineDone)
            }
        }
    }

    /// How the script is called.
    fn script_env(&self) -> Result<ScriptEnv, String> {
        let script = self
            .facts
            .script
            .clone()
            .ok_or("the toolstack wrote no script node")?;
        let mut env = ScriptEnv::new(script, self.path.dom.raw(), self.path.handle, self.name());
        env.gatewaydev = self.facts.gatewaydev.clone();
        Ok(env)
    }

    fn start(&self, command: ScriptCommand, host: &mut Host) -> Result<Running, String> {
        let mut env = self.script_env()?;
        // The scripts' own programs are to ask the store that the daemon asks.
        let socket = host.config.xenstore.socket.clone();
        if let Some(socket) = socket.or_else(|| std::env::var_os(STORE_VARIABLE).map(PathBuf::from))
        {
            env.extra
                .push((STORE_VARIABLE.into(), socket.display().to_string()));
        }
        let limit = host.config.hotplug.timeout;
        let run = ScriptRun::start(&env, command, limit, Instant::now())
            .map_err(|error| error.to_string())?;
        let token = watch(&run, self.path, host).map_err(|error| error.to_string())?;
        tracing::info!(vif = %self.name(), script = %env.script.display(), command = command.as_str(), pid = run.pid(), "script started");
        Ok(Running { run, token })
    }
}

fn watch(run: &ScriptRun, path: DevicePath, host: &mut Host) -> io::Result<Token> {
    let token = host.new_script(path);
    let fd = run.as_fd().as_raw_fd();
    let watched = (host.registry).register(&mut SourceFd(&fd), token, Interest::READABLE);
    if let Err(error) = watched {
        host.drop_script(token);
        return Err(error);
    }
    if let Some(deadline) = run.deadline() {
        host.timers.set(deadline, Due::Script(path));
    }
    Ok(token)
}

fn failure(state: ScriptState) -> Option<String> {
    match state {
        ScriptState::Finished(exit) if exit.success() => None,
        ScriptState::Finished(ScriptExit::Status(status)) => Some(format!("exit status {status}")),
        ScriptState::Finished(exit) => Some(exit.to_string()),
        ScriptState::TimedOut => Some("it took too long and was killed".into()),
        ScriptState::Pending | ScriptState::Running { .. } => None,
    }
}
