// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many writes with one system call: io_uring, used as a batch and never as a queue.
//!
//! Every call of [`Ring::write`] submits its writes and returns when all of them are done, so no buffer is with the
//! kernel afterwards.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, types};

/// A ring of the process's own.
pub(crate) struct Ring {
    ring: IoUring,
    room: usize,
}

impl Ring {
    /// Room for `room` writes in one call.
    pub(crate) fn new(room: u32) -> io::Result<Self> {
        let ring = IoUring::new(room)?;
        let room = ring.params().sq_entries() as usize;
        Ok(Self { ring, room })
    }

    /// Frames that one call takes.
    pub(crate) const fn room(&self) -> usize {
        self.room
    }

    /// Writes each frame to `fd` with one `write` of its own, in order, and tells how each ended by its position.
    /// No more frames than there is room for.
    ///
    /// After an error the ring must be dropped; nothing is known then of the frames that `done` was not called for.
    pub(crate) fn write(
        &mut self,
        fd: BorrowedFd<'_>,
        frames: &[&[u8]],
        mut done: impl FnMut(usize, io::Result<usize>),
    ) -> io::Result<()> {
        let mut queue = self.ring.submission();
        for (position, frame) in frames.iter().enumerate() {
            let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
            let write = opcode::Write::new(types::Fd(fd.as_raw_fd()), frame.as_ptr(), len);
            let write = write.build().user_data(position as u64);
            // SAFETY: the kernel is done with `frame` and `fd`, both borrowed, before this function returns, also with
            // an error: it waits for the end of all that the kernel has taken, and what the kernel has not taken goes
            // with the ring, which is dropped after an error.
            let pushed = unsafe { queue.push(&write) };
            pushed.map_err(io::Error::other)?;
        }
        drop(queue);
        let mut waiting = frames.len();
        let mut submitted = self.submit(&mut waiting);
        waiting = waiting.saturating_sub(self.reap(&mut done));
        if waiting > 0 && submitted.is_ok() {
            // The kernel would rather wait until there is room, which a write to a tap never has to.
            submitted = self.cancel(frames.len(), &mut waiting);
        }
        loop {
            waiting = waiting.saturating_sub(self.reap(&mut done));
            if waiting == 0 {
                return submitted;
            }
            // To yield would not let another thread run while this one keeps the processor.
            std::thread::sleep(PAUSE);
        }
    }

    /// Calls off the writes at positions below `count`: each of them ends now, and each calling off,
    /// for which `waiting` grows, does.
    fn cancel(&mut self, count: usize, waiting: &mut usize) -> io::Result<()> {
        let mut queue = self.ring.submission();
        for position in 0..count {
            let cancel = opcode::AsyncCancel::new(position as u64);
            // SAFETY: it names no memory.
            let pushed = unsafe { queue.push(&cancel.build().user_data(CANCEL)) };
            // There was room for as many writes.
            *waiting += usize::from(pushed.is_ok());
        }
        drop(queue);
        self.submit(waiting)
    }

    /// Hands what is queued to the kernel. After an error, what it has not taken does not count as
    /// `waiting` any more; what it has taken does, and will end.
    fn submit(&mut self, waiting: &mut usize) -> io::Result<()> {
        loop {
            let left = self.ring.submission().len();
            if left == 0 {
                return Ok(());
            }
            match self.ring.submit() {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    *waiting = waiting.saturating_sub(left);
                    return Err(error);
                }
                _ => {}
            }
        }
    }

    /// Takes what has ended; returns how many that is.
    fn reap(&mut self, done: &mut impl FnMut(usize, io::Result<usize>)) -> usize {
        let mut ended = 0;
        for end in self.ring.completion() {
            ended += 1;
            let result = usize::try_from(end.result()).map_err(|_| match -end.result() {
                libc::ECANCELED => io::Error::from_raw_os_error(libc::EAGAIN),
                errno => io::Error::from_raw_os_error(errno),
            });
            match usize::try_from(end.user_data()) {
                Ok(position) if end.user_data() != CANCEL => done(position, result),
                _ => {}
            }
        }
        ended
    }
}

/// Between two looks whether the kernel has called off what it had taken.
const PAUSE: Duration = Duration::from_micros(50);
/// Marks the end of a calling off: no write has this position.
const CANCEL: u64 = u64::MAX;

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// A ring that takes nothing: after the error nothing is waited for, and nothing was written.
    #[test]
    fn what_the_kernel_does_not_take_is_not_waited_for() {
        let (ours, peer) = UnixDatagram::pair().unwrap();
        peer.set_nonblocking(true).unwrap();
        let mut builder = IoUring::builder();
        let ring = builder.setup_r_disabled().build(4).unwrap();
        let mut ring = Ring { ring, room: 4 };
        let mut ended = 0;
        let outcome = ring.write(ours.as_fd(), &[b"a", b"b"], |_, _| ended += 1);
        assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::EBADFD));
        assert_eq!(ended, 0);
        drop(ring);
        let nothing = peer.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
}
