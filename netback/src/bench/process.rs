// SPDX-License-Identifier: GPL-3.0-or-later
//! What the kernel knows of this process: its threads, their processor time, its memory; and where they run.

use std::fs;
use std::io;
use std::time::Duration;

use nix::libc::clockid_t;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, gettid};

use super::BenchError;

/// How often and how long to wait for a thread's name.
const NAME_TRIES: u32 = 500;
const NAME_PAUSE: Duration = Duration::from_millis(10);

/// A thread of this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thread(Pid);

impl Thread {
    /// The caller.
    pub(super) fn current() -> Self {
        Self(gettid())
    }

    /// The thread of this name, if there is one.
    pub(super) fn named(name: &str) -> io::Result<Option<Self>> {
        for tid in threads()? {
            // A thread may end while we look.
            let comm = fs::read_to_string(format!("/proc/self/task/{tid}/comm"));
            if comm.is_ok_and(|comm| comm.trim_end() == name) {
                return Ok(Some(Self(Pid::from_raw(tid))));
            }
        }
        Ok(None)
    }

    /// The thread of this name, which has been started: it takes its name when it first runs.
    pub(super) fn expect(name: &str) -> Result<Self, BenchError> {
        for _ in 0..NAME_TRIES {
            if let Some(thread) = Self::named(name)? {
                return Ok(thread);
            }
            std::thread::sleep(NAME_PAUSE);
        }
        Err(BenchError::NoThread)
    }

    /// Lets it run on one processor only.
    pub(super) fn pin(self, cpu: usize) -> io::Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu)?;
        Ok(sched_setaffinity(self.0, &set)?)
    }

    /// Processor time it has used, to the nanosecond.
    pub(super) fn cpu_time(self) -> io::Result<Duration> {
        // The clock of a thread: the complement of its id, then per-thread (4) and scheduler's time (2); see
        // clock_getcpuclockid(3) and the kernel's posix-timers.h.
        let clock = !clockid_t::from(self.0.as_raw()) << 3 | 6;
        Ok(clock_gettime(ClockId::from_raw(clock))?.into())
    }
}

/// The processors that the caller may use.
pub(super) fn processors() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect())
}

/// Ids of all threads.
pub(super) fn threads() -> io::Result<Vec<i32>> {
    let entries = fs::read_dir("/proc/self/task")?;
    let names = entries.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    Ok(names
        .iter()
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect())
}

/// Processor time of the whole process.
pub(super) fn cpu_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// Resident memory, in bytes.
pub(super) fn resident() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| io::Error::other("/proc/self/status has no VmRSS"))
}

/// The machine, for the record: processor, their number, kernel.
pub(super) fn machine() -> io::Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let count = processors()?.len();
    Ok(format!("{count} x {model}, Linux {}", kernel.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_time_is_its_own() {
        let (name, wait) = ("bench-idle", std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            let idle = std::thread::Builder::new().name(name.to_owned());
            idle.spawn_scoped(scope, || wait.wait()).unwrap();
            let idle = loop {
                if let Some(thread) = Thread::named(name).unwrap() {
                    break thread;
                }
            };
            let own = Thread::current();
            let before = own.cpu_time().unwrap();
            while own.cpu_time().unwrap() < before + Duration::from_millis(20) {}
            assert!(idle.cpu_time().unwrap() < Duration::from_millis(20));
            assert!(cpu_time().unwrap() >= Duration::from_millis(20));
            wait.wait();
        });
        assert!(Thread::named("no such thread").unwrap().is_none());
    }

    #[test]
    fn the_process_is_seen() {
        assert!(resident().unwrap() > 100_000);
        assert!(!threads().unwrap().is_empty());
        assert!(!processors().unwrap().is_empty());
        assert!(machine().unwrap().contains("Linux"));
    }
}
