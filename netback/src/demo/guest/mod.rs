// SPDX-License-Identifier: GPL-3.0-or-later
//! A simulated guest: a thread with the model frontend, a TCP/IP stack and a few servers.
//!
//! [`Guest`] is the handle that the demo and the tests hold. Whatever should happen inside the guest is sent to
//! its thread as a closure ([`Guest::with`]), so a test can make the driver do anything while the stack runs.

pub mod checksum;
pub mod control;
pub mod domain;
pub mod netfront;
pub mod options;
pub mod queue;
pub mod services;
pub mod stack;
pub mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use netfront::{Netfront, NetfrontError, Phase};
use stack::Stack;

/// The address of a guest's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestAddress {
    /// Ethernet.
    pub mac: [u8; 6],
    /// IPv4.
    pub ip: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// Largest IP packet.
    pub mtu: usize,
}

impl GuestAddress {
    /// Its IPv6 address on the link, which follows from the Ethernet address (RFC 4291, appendix A).
    #[must_use]
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac;
        let id = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        Ipv6Addr::from_bits((0xfe80 << 112) | u128::from(u64::from_be_bytes(id)))
    }
}

/// What is done inside a guest.
type Job = Box<dyn FnOnce(&mut Netfront) + Send>;

/// A running guest. Dropping it stops its thread; its grants and ports end with it.
#[derive(Debug)]
pub struct Guest {
    jobs: Sender<Job>,
    waker: Arc<EventFd>,
    thread: Option<JoinHandle<Result<(), NetfrontError>>>,
}

/// The guest's thread is no longer there: it has stopped on an error, which [`Guest::stop`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest has stopped")]
pub struct GuestGone;

impl Guest {
    /// Starts a guest that runs `frontend` on its own thread and connects as soon as the backend is ready.
    ///
    /// `frontend` is made on that thread: a connection to the store does not move between threads.
    ///
    /// # Errors
    /// No thread or no descriptor.
    pub fn spawn(
        address: GuestAddress,
        frontend: impl FnOnce() -> Result<Netfront, NetfrontError> + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, inbox) = unbounded();
        let waker = Arc::new(EventFd::from_flags(
            EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
        )?);
        let alarm = Arc::clone(&waker);
        let thread = std::thread::Builder::new()
            .name(format!("guest/{}", address.ip))
            .spawn(move || {
                Run {
                    netfront: frontend()?,
                    stack: Stack::new(address),
                    inbox,
                    alarm,
                }
                .run()
            })?;
        Ok(Self {
            jobs,
            waker,
            thread: Some(thread),
        })
    }

    /// Does something inside the guest, between two turns of its stack, and returns the result.
    ///
    /// # Errors
    /// [`GuestGone`] when the guest has stopped.
    pub fn with<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Netfront) -> R + Send + 'static,
    ) -> Result<R, GuestGone> {
        let (answer, result) = bounded(1);
        let job: Job = Box::new(move |netfront| {
            // The asker may have given up waiting.
            let _nobody_waits = answer.send(job(netfront));
        });
        self.jobs.send(job).map_err(|_| GuestGone)?;
        // Fails only when the counter is full, and then the guest is awake.
        let _awake = self.waker.write(1);
        result.recv().map_err(|_| GuestGone)
    }

    /// Waits until the frontend is in a phase; false when it is not within `limit`.
    ///
    /// # Errors
    /// [`GuestGone`] when the guest has stopped.
    pub fn wait_phase(&self, phase: Phase, limit: Duration) -> Result<bool, GuestGone> {
        let deadline = Instant::now() + limit;
        loop {
            if self.with(|netfront| netfront.phase())? == phase {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the guest and says how it ended.
    ///
    /// # Errors
    /// What stopped it before it was asked to.
    pub fn stop(mut self) -> Result<(), NetfrontError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), NetfrontError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        // The thread ends when nobody can send jobs any more.
        let (unconnected, _) = bounded(0);
        self.jobs = unconnected;
        let _awake = self.waker.write(1);
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the guest's thread has panicked").into()))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "a simulated guest ended badly");
        }
    }
}

/// How long the stack's timers wait while nothing can be sent.
const STUCK: Duration = Duration::from_millis(20);

/// The guest's thread.
struct Run {
    netfront: Netfront,
    stack: Stack,
    inbox: Receiver<Job>,
    alarm: Arc<EventFd>,
}

impl Run {
    fn run(mut self) -> Result<(), NetfrontError> {
        use crossbeam::channel::TryRecvError;
        loop {
            self.netfront.follow()?;
            let patience = self.stack.poll(&mut self.netfront);
            loop {
                match self.inbox.try_recv() {
                    Ok(job) => job(&mut self.netfront),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            if !self.netfront.arm() && !self.netfront.news()? {
                // What the stack wants to say cannot be said before the ring has room.
                let stuck = !self.netfront.can_send();
                let patience = if stuck {
                    patience.map(|some| some.max(STUCK))
                } else {
                    patience
                };
                self.sleep(patience)?;
            }
        }
    }

    /// Waits for the store, the event channels, a job, or the stack's next timer.
    fn sleep(&self, patience: Option<Duration>) -> Result<(), NetfrontError> {
        let mut fds: Vec<PollFd<'_>> = self
            .netfront
            .fds()
            .into_iter()
            .chain([self.alarm.as_fd()])
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = match patience {
            // Rounded up: a timer that is due in less than a millisecond must not make a busy loop.
            Some(patience) => PollTimeout::try_from(patience + Duration::from_micros(999))
                .unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        self.netfront.clear_events();
        // EAGAIN: nobody rang.
        let _none = self.alarm.read();
        Ok(())
    }
}
