// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process of one script run, for an event loop that must not wait.
//!
//! The script gets a process group and an empty stdin of its own, and its stdout and stderr come back as lines for the
//! log. [`ScriptRun`] has one descriptor, readable when there is output or an exit to see. Guarantees: the process is
//! reaped whatever happens, also where SIGCHLD was ignored; at the deadline its whole group is killed; output is
//! bounded, escaped and never blocks the script or the caller. Called by the daemon's control thread when
//! `hotplug.runner` is `daemon`.

mod lines;

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::env::{ScriptCommand, ScriptEnv, ScriptError};
use crate::script::{Life, ScriptAction, ScriptEvent, ScriptExit, ScriptState};
use crate::sys::process::{keep_exit_statuses, pidfd_open};
use lines::Lines;

/// Most bytes of output taken in by one call of [`ScriptRun::poll`].
const READ_BUDGET: usize = 64 * 1024;

/// A script that was started, and is watched until it ends.
#[derive(Debug)]
pub struct ScriptRun {
    life: Life,
    child: Option<Child>,
    pid: u32,
    output: Option<PipeReader>,
    lines: Lines,
    ready: Epoll,
    /// Only held for `ready`, which forgets a descriptor that is closed.
    _exit: OwnedFd,
}

/// What [`ScriptRun::poll`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptProgress {
    /// Lines of output that were completed since the last call, fit for a log: escaped, cut to 400 characters, and at
    /// most 100 in one run, the last of which says that there were more.
    pub lines: Vec<String>,
    /// Where the run is now.
    pub state: ScriptState,
}

impl ScriptRun {
    /// Starts the script of `env` with `command`. From `now` on it may take `limit`.
    pub fn start(
        env: &ScriptEnv,
        command: ScriptCommand,
        limit: Duration,
        now: Instant,
    ) -> Result<Self, ScriptError> {
        env.check()?;
        let failed = ScriptError::spawn(&env.script);
        keep_exit_statuses().map_err(&failed)?;
        let (output, script_end) = io::pipe().map_err(&failed)?;
        let flags = OFlag::from_bits_retain(
            fcntl(&output, FcntlArg::F_GETFL).map_err(|e| failed(e.into()))?,
        );
        fcntl(&output, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
            .map_err(|e| failed(e.into()))?;
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| failed(e.into()))?;
        ready
            .add(&output, readable())
            .map_err(|e| failed(e.into()))?;

        let child = Command::new(&env.script)
            .args(command.args())
            .env_clear()
            .envs(env.vars())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(script_end.try_clone().map_err(&failed)?)
            .stderr(script_end)
            .process_group(0)
            .spawn()
            .map_err(&failed)?;
        // From here on the process is reaped by this guard, also when the next steps fail.
        let mut child = Unreaped(Some(child));
        let pid = child.0.as_ref().map_or(0, Child::id);
        let exit = pidfd_open(pid).map_err(&failed)?;
        ready.add(&exit, readable()).map_err(|e| failed(e.into()))?;
        let mut life = Life::new(limit);
        let _none = life.handle(ScriptEvent::Started, now);
        Ok(Self {
            life,
            child: child.0.take(),
            pid,
            output: Some(output),
            lines: Lines::default(),
            ready,
            _exit: exit,
        })
    }

    /// The script's process id (and process group).
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// When [`ScriptRun::poll`] must be called at the latest; `None` once the run is over.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        match self.life.state() {
            ScriptState::Running { deadline } => Some(deadline),
            _ => None,
        }
    }

    /// Takes in what the script wrote and whether it ended, and kills it when its time is over. Never blocks. To be
    /// called when the descriptor is readable (edge-triggered will do) and at the deadline. Once the state
    /// [is over](ScriptState::is_over) it stays the same.
    pub fn poll(&mut self, now: Instant) -> ScriptProgress {
        if let Some(exit) = self.reap() {
            let _none = self.life.handle(ScriptEvent::Exited(exit), now);
        }
        if self.life.handle(ScriptEvent::Tick, now) == ScriptAction::Kill {
            self.kill();
        }
        let mut lines = Vec::new();
        self.drain(&mut lines);
        if self.life.state().is_over() {
            // What a background process of the script may still write is not the script's any more.
            self.close_output();
            self.lines.finish(&mut lines);
        }
        ScriptProgress {
            lines,
            state: self.life.state(),
        }
    }

    fn reap(&mut self) -> Option<ScriptExit> {
        // An error of waitpid on our own unreaped child cannot be, since its exit status is kept; were it to come, it
        // would come again at the deadline, where the run ends in any case.
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(exit_of(status))
    }

    fn kill(&mut self) {
        drop(Unreaped(self.child.take()));
    }

    fn drain(&mut self, lines: &mut Vec<String>) {
        let mut buffer = [0; 4096];
        let mut budget = READ_BUDGET;
        while let Some(output) = &mut self.output {
            match output.read(&mut buffer) {
                Ok(0) => self.close_output(),
                Ok(n) => {
                    self.lines.push(buffer.get(..n).unwrap_or_default(), lines);
                    budget = budget.saturating_sub(n);
                    if budget == 0 {
                        return self.rearm();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.close_output(),
            }
        }
    }

    /// There may be more to read: makes the descriptor readable anew for an owner that watches edges.
    fn rearm(&mut self) {
        if let Some(output) = &self.output {
            let again = self
                .ready
                .delete(output)
                .and_then(|()| self.ready.add(output, readable()));
            if again.is_err() {
                self.close_output();
            }
        }
    }

    fn close_output(&mut self) {
        // Closing the only descriptor of the pipe's read end takes it out of the epoll set.
        self.output = None;
    }
}

impl AsFd for ScriptRun {
    /// Readable when [`ScriptRun::poll`] has something to see.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.0.as_fd()
    }
}

impl Drop for ScriptRun {
    /// A run that is not over is killed; its process is reaped.
    fn drop(&mut self) {
        self.kill();
    }
}

/// A child that is killed with its group and reaped when this is dropped.
struct Unreaped(Option<Child>);

impl Drop for Unreaped {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else {
            return;
        };
        // The group's id cannot have come to mean another one: its leader is not reaped yet.
        if let Ok(pid) = i32::try_from(child.id()) {
            // ESRCH: the group is gone already, which is what was asked.
            let _gone = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if matches!(child.try_wait(), Ok(None)) {
            // A killed process may take its time (it may sit in the kernel), and the caller must not wait for it.
            let reaper = std::thread::Builder::new()
                .name("reap".into())
                .spawn(move || child.wait());
            drop(reaper);
        }
    }
}

fn readable() -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, 0)
}

fn exit_of(status: ExitStatus) -> ScriptExit {
    match (status.code(), status.signal()) {
        (Some(code), _) => ScriptExit::Status(code),
        (None, signal) => ScriptExit::Signal(signal.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests;
