// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes a burst of frames to a tap as a unit: with one system call, where the kernel can do that (io_uring), and
//! without leaving the processor, where the thread may keep it.
//!
//! It is not the system calls alone that are saved. A frame that is written wakes whoever waits for it, who takes the
//! processor in the midst of the burst: that is a switch there and back for each frame, and a receiver that answers
//! each of them by itself. After a burst that nobody interrupted it finds all of them, as it would behind a driver in
//! the kernel.

use std::io;
use std::os::fd::AsFd;

use super::Tap;
use crate::sys::sched::Processor;
use crate::sys::uring::Ring;

/// A worker's means to write frames. One serves any number of taps, from one thread.
#[derive(Debug)]
pub struct TapWriter {
    /// `None` where io_uring is not to be had, and after it failed: then each frame takes a call.
    ring: Option<Ring>,
    /// Why it was not to be had.
    refusal: Option<io::Error>,
    /// `None` where the thread may not keep the processor, or has no need to ask.
    processor: Option<Processor>,
}

/// What a writer has to do without from now on. The frames are written all the same.
#[derive(Debug, thiserror::Error)]
pub enum WriterLost {
    /// Each frame takes a call.
    #[error("io_uring failed; from now on each frame to a tap takes a call: {0}")]
    Calls(#[source] io::Error),
    /// The thread stays at the priority that it has, and others may interrupt a burst.
    #[error("a worker's priority cannot be changed any more: {0}")]
    Processor(#[source] io::Error),
}

impl TapWriter {
    /// For bursts of about `burst` frames; longer ones take several calls. Where io_uring is switched off
    /// (`kernel.io_uring_disabled`, a seccomp filter, an old kernel), each frame takes a call.
    #[must_use]
    pub fn new(burst: u32) -> Self {
        let (ring, refusal) = match Ring::new(burst) {
            Ok(ring) => (Some(ring), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            ring,
            refusal,
            processor: None,
        }
    }

    /// Writes each frame with a call of its own, as where there is no io_uring.
    #[must_use]
    pub const fn one_by_one() -> Self {
        Self {
            ring: None,
            refusal: None,
            processor: None,
        }
    }

    /// From now on the thread that writes keeps the processor for a burst: no other of ordinary priority interrupts it.
    /// To be called by that thread, or by the one that it is started from and has its scheduling policy from.
    ///
    /// # Errors
    ///
    /// It may not change its priority; all is as it was.
    pub fn keep_processor(&mut self) -> io::Result<()> {
        self.processor = Processor::of_this_thread()?;
        Ok(())
    }

    /// Why a burst does not take one call, if that is so from the beginning.
    #[must_use]
    pub const fn refusal(&self) -> Option<&io::Error> {
        self.refusal.as_ref()
    }

    /// Writes frames, each behind its header, in order, and tells for each by its position how that ended, as
    /// [`Tap::write`] does.
    ///
    /// # Errors
    ///
    /// [`WriterLost`], once for each; of both at once, the processor. `done` has been told of every frame nevertheless.
    pub fn write(
        &mut self,
        tap: &Tap,
        frames: &[&[u8]],
        done: impl FnMut(usize, io::Result<usize>),
    ) -> Result<(), WriterLost> {
        if !is_interrupted(frames) {
            return self.write_all(tap, frames, done);
        }
        let kept = self.processor.as_ref().map_or(Ok(()), Processor::keep);
        let written = self.write_all(tap, frames, done);
        let released = self.processor.as_ref().map_or(Ok(()), Processor::release);
        if let Err(error) = kept.and(released) {
            self.processor = None;
            return Err(WriterLost::Processor(error));
        }
        written
    }

    fn write_all(
        &mut self,
        tap: &Tap,
        frames: &[&[u8]],
        mut done: impl FnMut(usize, io::Result<usize>),
    ) -> Result<(), WriterLost> {
        let mut at = 0;
        let mut outcome = Ok(());
        while let (Some(ring), [_, _, ..]) = (&mut self.ring, frames.get(at..).unwrap_or_default())
        {
            let end = frames.len().min(at + ring.room());
            let burst = frames.get(at..end).unwrap_or_default();
            let begin = at;
            let written = ring.write(tap.as_fd(), burst, |position, result| {
                at += 1;
                done(begin + position, result);
            });
            if let Err(error) = written {
                // The frames of this burst that nothing is known of are not written twice.
                self.ring = None;
                for position in at..end {
                    done(
                        position,
                        Err(io::Error::new(error.kind(), error.to_string())),
                    );
                }
                at = end;
                outcome = Err(WriterLost::Calls(error));
            }
        }
        for (position, frame) in frames.iter().enumerate().skip(at) {
            done(position, tap.write(frame));
        }
        outcome
    }
}

/// Whether others could come between these frames. The kernel lets them in while it looks for the pages of a frame; a
/// short one takes none.
fn is_interrupted(frames: &[&[u8]]) -> bool {
    frames.len() > 1 && frames.iter().any(|frame| frame.len() > SHORT)
}

/// The longest frame, in bytes, that the kernel's tun driver puts in one piece of a page that it has at hand.
const SHORT: usize = 2048;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::sys::sched::policy;

    /// What came of each frame: bytes, or the kernel's error.
    fn outcomes(
        writer: &mut TapWriter,
        tap: &Tap,
        frames: &[&[u8]],
    ) -> Vec<(usize, Result<usize, Option<i32>>)> {
        let mut seen = Vec::new();
        let written = writer.write(tap, frames, |position, outcome| {
            seen.push((position, outcome.map_err(|error| error.raw_os_error())));
        });
        written.unwrap();
        seen
    }

    fn writers() -> [TapWriter; 3] {
        // Ten frames are more than a burst of 4, and fewer than one of 64.
        let mut writers = [
            TapWriter::one_by_one(),
            TapWriter::new(4),
            TapWriter::new(64),
        ];
        // Who may not does without.
        let _ = writers[2].keep_processor();
        writers
    }

    #[test]
    fn frames_arrive_whole_and_in_order() {
        for mut writer in writers() {
            let (ours, peer) = UnixDatagram::pair().unwrap();
            let tap = Tap::from_fd(ours.into()).unwrap();
            let bytes: Vec<u8> = (0..100).collect();
            for count in [0, 1, 2, 9, 10] {
                let frames: Vec<&[u8]> = (0..count).map(|i| &bytes[i..i * i + 1]).collect();
                let expected: Vec<_> = frames
                    .iter()
                    .map(|frame| Ok(frame.len()))
                    .enumerate()
                    .collect();
                assert_eq!(outcomes(&mut writer, &tap, &frames), expected);
                for frame in frames {
                    let mut got = [0; 128];
                    let len = peer.recv(&mut got).unwrap();
                    assert_eq!(&got[..len], frame);
                }
            }
        }
    }

    /// Only a burst in which others could come between is worth two calls.
    #[test]
    fn the_processor_is_kept_for_a_burst_of_long_frames() {
        let usual = policy();
        for mut writer in [TapWriter::one_by_one(), TapWriter::new(4)] {
            let expected = match writer.keep_processor() {
                Ok(()) => libc::SCHED_FIFO,
                // Who may not does without.
                Err(_) => usual,
            };
            let (ours, _peer) = UnixDatagram::pair().unwrap();
            let tap = Tap::from_fd(ours.into()).unwrap();
            let long = [0; SHORT + 1];
            for (frames, expected) in [
                ([&long[..], &[1]].as_slice(), expected),
                (&[&long[..SHORT], &[1]], usual),
                (&[&long[..]], usual),
            ] {
                let mut seen = Vec::new();
                let written = writer.write(&tap, frames, |_, outcome| {
                    seen.push((outcome.is_ok(), policy()));
                });
                written.unwrap();
                assert_eq!(seen, vec![(true, expected); frames.len()]);
                assert_eq!(policy(), usual);
            }
        }
    }

    #[test]
    fn each_frame_has_its_own_outcome() {
        for mut writer in writers() {
            let (ours, peer) = UnixDatagram::pair().unwrap();
            let tap = Tap::from_fd(ours.into()).unwrap();
            while tap.write(b"full").is_ok() {}
            let mut got = [0; 8];
            for _ in 0..2 {
                peer.recv(&mut got).unwrap();
            }
            let seen = outcomes(&mut writer, &tap, &[b"a".as_slice(); 6]);
            let full = Err(Some(libc::EAGAIN));
            let expected = [Ok(1), Ok(1), full, full, full, full];
            assert_eq!(seen, expected.into_iter().enumerate().collect::<Vec<_>>());
            drop(peer);
            let seen = outcomes(&mut writer, &tap, &[b"a".as_slice(); 3]);
            assert!(seen.iter().all(|(_, outcome)| outcome.is_err()), "{seen:?}");
            assert_eq!(seen.len(), 3);
        }
    }
}
