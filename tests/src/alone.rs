// SPDX-License-Identifier: GPL-3.0-or-later
//! Running one test in a process of its own, for what is counted per process: descriptors, memory, threads.

use std::process::Command;

const INNER: &str = "NETBACK_TEST_ALONE";

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
