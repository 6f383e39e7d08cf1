// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real scripts of /bin/sh, with a supplied time: no test waits for a deadline, and none depends on how fast the
//! machine is.

use super::*;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

const LIMIT: Duration = Duration::from_secs(40);

/// A directory with a script in it.
struct Script {
    dir: tempfile::TempDir,
}

impl Script {
    /// Starts a script with this body.
    fn start(body: &str) -> (Self, ScriptRun) {
        // A script that another thread's fork still holds open for writing cannot be executed (ETXTBSY), so writing
        // and starting happen under one lock.
        static FORK: Mutex<()> = Mutex::new(());
        let _lock = FORK.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let script = Self { dir };
        nix::unistd::mkfifo(&script.fifo(), Mode::S_IRWXU).unwrap();
        std::fs::write(
            script.path(),
            format!("#!/bin/sh\nfifo={}\n{body}", script.fifo().display()),
        )
        .unwrap();
        std::fs::set_permissions(script.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let run =
            ScriptRun::start(&script.env(), ScriptCommand::Online, LIMIT, Instant::now()).unwrap();
        (script, run)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("script")
    }

    fn fifo(&self) -> PathBuf {
        self.dir.path().join("fifo")
    }

    fn env(&self) -> ScriptEnv {
        ScriptEnv::new(self.path(), 7, 1, "vif7.1")
    }

    /// Lets a script go on that reads a line from the fifo.
    fn release(&self) {
        std::fs::write(self.fifo(), "go\n").unwrap();
    }
}

/// Waits for the run as an edge-triggered loop would, until it is over or has said `until`.
fn follow(run: &mut ScriptRun, until: &str) -> (Vec<String>, ScriptState) {
    let edges = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    edges
        .add(
            &*run,
            EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0),
        )
        .unwrap();
    let mut lines = Vec::new();
    loop {
        let mut events = [EpollEvent::empty()];
        let n = edges
            .wait(&mut events, PollTimeout::from(60_000_u16))
            .unwrap();
        assert_eq!(n, 1, "the script said nothing more; so far {lines:?}");
        // Time stands still, so the deadline never comes here.
        let ScriptProgress { lines: more, state } =
            run.poll(Instant::now().min(run.deadline().unwrap() - LIMIT));
        lines.extend(more);
        if state.is_over() || (!until.is_empty() && lines.iter().any(|line| line == until)) {
            return (lines, state);
        }
    }
}

fn finish(body: &str) -> (Vec<String>, ScriptState) {
    let (_script, mut run) = Script::start(body);
    follow(&mut run, "")
}

fn exited(status: i32) -> ScriptState {
    ScriptState::Finished(ScriptExit::Status(status))
}

/// Whether the process runs no more (it may still be a zombie of somebody who does not reap).
fn is_dead(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_none_or(|rest| rest.trim_start().starts_with(['Z', 'X']) || rest.is_empty())
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{what} did not come to be"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn gets_libxls_environment_and_nothing_else() {
    let (script, mut run) = Script::start(
        "tr '\\0' '\\n' < /proc/$$/environ | LC_ALL=C sort; echo \"args: $*\"; pwd; cat; umask; echo to stderr >&2",
    );
    let (lines, state) = follow(&mut run, "");
    let mut expected: Vec<_> = script
        .env()
        .vars()
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    expected.sort();
    expected.extend(["args: online type_if=vif".to_owned(), "/".to_owned()]);
    assert_eq!(lines[..expected.len()], expected);
    assert_eq!(lines.last().unwrap(), "to stderr");
    assert_eq!(state, exited(0));
}

#[test]
fn honours_how_it_ended() {
    assert_eq!(finish("exit 0"), (vec![], exited(0)));
    assert_eq!(
        finish("printf 'no newline'; exit 3"),
        (vec!["no newline".to_owned()], exited(3))
    );
    assert_eq!(
        finish("kill -KILL $$").1,
        ScriptState::Finished(ScriptExit::Signal(9))
    );
}

#[test]
fn stays_what_it_was_once_over() {
    let (_script, mut run) = Script::start("exit 4");
    follow(&mut run, "");
    assert_eq!(run.deadline(), None);
    let again = run.poll(Instant::now() + LIMIT * 10);
    assert_eq!(
        again,
        ScriptProgress {
            lines: vec![],
            state: exited(4)
        }
    );
}

#[test]
fn is_killed_with_its_children_at_the_deadline() {
    let (_script, mut run) = Script::start("cat $fifo & echo $!; echo ready; wait");
    let (lines, state) = follow(&mut run, "ready");
    let background: u32 = lines[0].parse().unwrap();
    let deadline = run.deadline().unwrap();
    assert_eq!(state, ScriptState::Running { deadline });
    let just_before = run.poll(deadline - Duration::from_nanos(1));
    assert_eq!(just_before.state, ScriptState::Running { deadline });
    assert!(!is_dead(background) && !is_dead(run.pid()));

    assert_eq!(run.poll(deadline).state, ScriptState::TimedOut);
    assert_eq!(run.deadline(), None);
    assert_eq!(run.poll(deadline + LIMIT).state, ScriptState::TimedOut);
    eventually("the end of the background process", || is_dead(background));
    let leader = run.pid();
    eventually("the reaping of the script", || {
        !Path::new(&format!("/proc/{leader}")).exists()
    });
}

#[test]
fn is_killed_and_reaped_when_dropped() {
    let (_script, mut run) = Script::start("echo ready; cat $fifo");
    follow(&mut run, "ready");
    let pid = run.pid();
    drop(run);
    eventually("the reaping of the script", || {
        !Path::new(&format!("/proc/{pid}")).exists()
    });
}

#[test]
fn a_flood_of_output_neither_blocks_nor_fills_memory() {
    let (lines, state) = finish("yes 'a line' | head -c 3000000; exit 7");
    assert_eq!(lines.len(), lines::MAX_LINES);
    assert_eq!(lines[98..], ["a line", "(more output was discarded)"]);
    assert_eq!(state, exited(7));
}

#[test]
fn one_call_takes_a_bounded_part_of_it() {
    let (_script, mut run) = Script::start("yes");
    let now = Instant::now();
    // It writes for ever; each call comes back.
    for _ in 0..20 {
        let mut fds = [PollFd::new(run.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(60_000_u16)).unwrap(), 1);
        assert!(!run.poll(now).state.is_over());
    }
}

#[test]
fn exit_is_seen_after_the_output_was_closed() {
    let (script, mut run) =
        Script::start("echo ready; exec > /dev/null 2>&1; read line < $fifo; exit 5");
    follow(&mut run, "ready");
    script.release();
    assert_eq!(follow(&mut run, ""), (vec![], exited(5)));
}

#[test]
fn a_background_process_does_not_hold_it_up() {
    let (script, mut run) = Script::start("(read line < $fifo; echo late) & echo $!; exit 0");
    let (lines, state) = follow(&mut run, "");
    assert_eq!(state, exited(0));
    let background: u32 = lines[0].parse().unwrap();
    assert!(
        !is_dead(background),
        "a script that ended well keeps what it left behind"
    );
    script.release();
    assert_eq!(run.poll(Instant::now()).lines, Vec::<String>::new());
    eventually("the end of the background process", || is_dead(background));
}

#[test]
fn output_and_late_exit_are_taken_in_one_call() {
    let (_script, mut run) = Script::start("echo one; echo two; exit 1");
    // Wait for the exit alone, then ask once.
    let exit = pidfd_open(run.pid()).unwrap();
    let mut fds = [PollFd::new(exit.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(60_000_u16)).unwrap(), 1);
    let progress = run.poll(Instant::now());
    assert_eq!(
        progress,
        ScriptProgress {
            lines: vec!["one".into(), "two".into()],
            state: exited(1)
        }
    );
}

#[test]
fn an_exit_after_the_deadline_is_a_timeout() {
    let (_script, mut run) = Script::start("exit 0");
    let exit = pidfd_open(run.pid()).unwrap();
    let mut fds = [PollFd::new(exit.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(60_000_u16)).unwrap(), 1);
    let deadline = run.deadline().unwrap();
    assert_eq!(run.poll(deadline).state, ScriptState::TimedOut);
}

#[test]
fn what_cannot_start_says_why() {
    let start =
        |env: &ScriptEnv| ScriptRun::start(env, ScriptCommand::Offline, LIMIT, Instant::now());
    let error = start(&ScriptEnv::new("/etc/xen/scripts/no-such", 1, 0, "vif1.0"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "the vif script \"/etc/xen/scripts/no-such\" cannot be found: No such file"
        ),
        "{error}"
    );

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script");
    std::fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let error = start(&ScriptEnv::new(&path, 1, 0, "vif1.0")).unwrap_err();
    assert!(matches!(error, ScriptError::Spawn { .. }), "{error}");
    assert!(error.to_string().contains("cannot be started"), "{error}");
}

#[test]
fn descriptors_are_closed_on_exec() {
    let (_script, run) = Script::start("exit 0");
    for fd in [
        run.as_fd().as_raw_fd(),
        run._exit.as_raw_fd(),
        run.output.as_ref().unwrap().as_raw_fd(),
    ] {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap()
            .trim();
        assert_ne!(
            u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000,
            0,
            "fd {fd}: {info}"
        );
    }
}

/// Whoever ignores SIGCHLD passes that on to what it starts, whose children the kernel then reaps unasked.
#[test]
fn a_daemon_that_was_started_with_sigchld_ignored_learns_how_its_scripts_end() {
    const INNER: &str = "HOTPLUG_TEST_IGNORES_SIGCHLD";
    if std::env::var_os(INNER).is_some() {
        assert_eq!(finish("exit 3").1, exited(3));
        return;
    }
    let test = std::thread::current().name().unwrap().to_owned();
    // Not with dash, which does not ignore that one.
    let output = Command::new("/bin/bash")
        .args(["-c", "trap '' CHLD; exec \"$@\"", "bash"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(INNER, "")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // Of a wrong name it would be none.
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
