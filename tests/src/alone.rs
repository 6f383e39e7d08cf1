// SPDX-License-Identifier: GPL-3.0-or-later
//! Running one test in a process of its own, for what is counted per process: descriptors, memory, threads.

use std::process::Command;
use std::time::Duration;

use crate::world::until;

const INNER: &str = "NETBACK_TEST_ALONE";

/// How often and how fast a round is looked at, at least: that takes a tenth of a second.
const LOOKS: usize = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// Runs `body` in a fresh process of this test binary that runs nothing but the test `name` (its full path, as
/// `cargo test` prints it). Panics when that process fails.
pub fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INNER).is_some_and(|inner| inner == name) {
        return body();
    }
    let status = Command::new(std::env::current_exe().expect("this test's own binary"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INNER, name)
        .output()
        .expect("the test's own process");
    let text = String::from_utf8_lossy(&status.stdout);
    // A wrong name would run no test at all, and that would pass.
    assert!(
        status.status.success() && text.contains("1 passed"),
        "{name} failed in its own process:\n{text}\n{}",
        String::from_utf8_lossy(&status.stderr)
    );
}

/// Open descriptors of this process.
#[must_use]
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// Resident memory of this process, in bytes.
#[must_use]
pub fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("VmRSS");
    let kilobytes: usize = line
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .expect("a number");
    kilobytes * 1024
}

/// Threads of this process.
#[must_use]
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("/proc").count()
}

/// A count of this process at one point of a cycle, round after round: what a round leaves behind shows.
///
/// Not all that is counted is kept: the control thread opens a few descriptors for a moment whenever the kernel has
/// news of a tap. So a round may find more than those before it, but not for long; what was left behind stays.
#[derive(Debug)]
pub struct Rounds {
    count: fn() -> usize,
    /// The fewest ever.
    fewest: Option<usize>,
}

impl Rounds {
    /// No round has been yet.
    #[must_use]
    pub fn of(count: fn() -> usize) -> Self {
        Self {
            count,
            fewest: None,
        }
    }

    /// The first round sets the measure; each further one waits until there are no more than ever before. Returns how
    /// many there are. What is left behind goes unnoticed for a round or two if the first one never came to rest, so
    /// have three at least.
    pub fn none_is_left(&mut self) -> usize {
        let count = self.count;
        let mut now = (0..LOOKS).fold(count(), |fewest, _| {
            std::thread::sleep(PAUSE);
            fewest.min(count())
        });
        let before = self.fewest.unwrap_or(now);
        until(&format!("no more than the {before} before"), || {
            now = now.min(count());
            now <= before
        });
        self.fewest = Some(now);
        now
    }
}
