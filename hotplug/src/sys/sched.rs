// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps the processor for the length of a burst: the calling thread becomes a real-time one for that long.
//!
//! With the lowest of the real-time priorities, so that whoever is more urgent still comes first.

use std::io;

/// A thread's right to keep the processor, and what it is when it does not.
#[derive(Debug)]
pub(crate) struct Processor {
    usual: libc::c_int,
}

impl Processor {
    /// That of the calling thread; `None` if it is a real-time one anyway.
    ///
    /// # Errors
    ///
    /// It may not become one (`EPERM`: that takes CAP_SYS_NICE or RLIMIT_RTPRIO).
    pub(crate) fn of_this_thread() -> io::Result<Option<Self>> {
        // SAFETY: touches no memory of ours; 0 is the calling thread.
        let usual = check(unsafe { libc::sched_getscheduler(0) })?;
        if !matches!(
            usual,
            libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE
        ) {
            return Ok(None);
        }
        let processor = Self { usual };
        processor.keep()?;
        processor.release()?;
        Ok(Some(processor))
    }

    /// From now on only interrupts and more urgent threads interrupt the calling thread.
    pub(crate) fn keep(&self) -> io::Result<()> {
        schedule(libc::SCHED_FIFO, 1)
    }

    /// The calling thread is again what it was: whoever has been woken meanwhile may be next. Its nice value has not
    /// changed.
    pub(crate) fn release(&self) -> io::Result<()> {
        schedule(self.usual, 0)
    }
}

fn schedule(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let param = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the kernel reads `param`, which lives across the call; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const param) })?;
    Ok(())
}

fn check(outcome: libc::c_int) -> io::Result<libc::c_int> {
    match outcome {
        0.. => Ok(outcome),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The calling thread's policy.
#[cfg(test)]
pub(crate) fn policy() -> libc::c_int {
    // SAFETY: touches no memory of ours; 0 is the calling thread.
    unsafe { libc::sched_getscheduler(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who may not keep it is told so, and stays what it was.
    #[test]
    fn the_processor_is_kept_until_it_is_released() {
        let usual = policy();
        match Processor::of_this_thread() {
            Ok(processor) => {
                let processor = processor.unwrap();
                processor.keep().unwrap();
                assert_eq!(policy(), libc::SCHED_FIFO);
                let again = Processor::of_this_thread().unwrap();
                assert!(again.is_none(), "it is urgent already");
                processor.release().unwrap();
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
        assert_eq!(policy(), usual);
    }
}
