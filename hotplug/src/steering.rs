// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steers the frames that a tap of several queues delivers, which is to say, chooses the queue that a frame comes out of.
//!
//! The kernel puts a frame into a queue before anybody in user space has seen it, so the kernel has to be told. It
//! lets a tap have a BPF program for that (TUNSETSTEERINGEBPF, Linux 4.16). The alternative, to hand frames from the
//! worker that read them to the one that has their queue, would cost every other frame a copy and a wake-up.
//!
//! There are two programs. [`Spread`] keeps each flow on a queue, any queue. [`Steering`] is for guests that say
//! which: by a Toeplitz hash over addresses and ports, and a table from hashes to queues. What it looks up is in a
//! map, so that another key or table costs one system call and no verification.

mod asm;
mod spread;
mod toeplitz;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::sys::bpf;

/// Bytes of the longest input: two IPv6 addresses and two ports.
pub const INPUT_MAX: usize = 36;
/// Entries of the table from hashes to queues, at most.
pub const QUEUES_MAX: usize = 128;

/// What each value of each four bits of the input contributes to the hash.
pub type Contributions = [[u32; 16]; 2 * INPUT_MAX];

// The map's value, in words.
const TYPES: usize = 0;
const LENGTH: usize = 1;
const QUEUES: usize = 2;
const CONTRIBUTIONS: usize = QUEUES + QUEUES_MAX;
const WORDS: usize = CONTRIBUTIONS + 16 * 2 * INPUT_MAX;

/// How frames are to be steered.
#[derive(Debug, Clone, Copy)]
pub struct Table<'t> {
    /// What is hashed: bit 0 IPv4, 1 IPv4 with TCP, 2 IPv6, 3 IPv6 with TCP. The most specific one that applies is
    /// taken; the hash of all else is 0.
    pub types: u8,
    /// The key of the hash, taken apart.
    pub contributions: &'t Contributions,
    /// The queue of each hash, modulo the number of entries: 1 to [`QUEUES_MAX`] of them.
    pub queues: &'t [u16],
}

/// What chooses the queue of each frame that a tap delivers.
#[derive(Debug, Clone, Copy)]
pub enum Choice<'p> {
    /// The kernel: it remembers by which queue each flow comes.
    Kernel,
    /// Any queue, the same for all of a flow.
    Spread(&'p Spread),
    /// As the table says.
    Steering(&'p Steering),
}

impl Choice<'_> {
    pub(crate) fn program(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Kernel => None,
            Self::Spread(spread) => Some(spread.program.as_fd()),
            Self::Steering(steering) => Some(steering.program.as_fd()),
        }
    }
}

impl<'p> From<Option<&'p Spread>> for Choice<'p> {
    /// Without the program, the kernel's own choice.
    fn from(spread: Option<&'p Spread>) -> Self {
        spread.map_or(Self::Kernel, Self::Spread)
    }
}

/// A program in the kernel that keeps each flow on a queue, with less work than the kernel's own choice. One serves any
/// number of taps; a clone is the same program.
#[derive(Debug, Clone)]
pub struct Spread {
    program: Arc<OwnedFd>,
}

impl Spread {
    /// Loads the program.
    ///
    /// # Errors
    ///
    /// The kernel has no BPF, does not let this process use it, or does not accept the program.
    pub fn new() -> io::Result<Self> {
        let program = bpf::load(&spread::spread()?)?;
        Ok(Self {
            program: Arc::new(program),
        })
    }
}

/// A program in the kernel that steers frames by a table.
#[derive(Debug)]
pub struct Steering {
    map: OwnedFd,
    program: OwnedFd,
}

impl Steering {
    /// Loads the program. It leads everything to queue 0 until it is told better.
    ///
    /// # Errors
    ///
    /// The kernel has no BPF, does not let this process use it, or does not accept the program.
    pub fn new() -> io::Result<Self> {
        let map = bpf::create_value(WORDS * size_of::<u32>())?;
        let program = bpf::load(&toeplitz::steer(map.as_fd())?)?;
        Ok(Self { map, program })
    }

    /// Steers by this table from now on. Frames that come meanwhile may be hashed by half of either.
    ///
    /// # Errors
    ///
    /// The table has no entry, or more than there is room for.
    pub fn set(&self, table: &Table<'_>) -> io::Result<()> {
        let mut value = [0; WORDS];
        let length = table.queues.len();
        let places = value
            .get_mut(QUEUES..QUEUES + length)
            .filter(|_| (1..=QUEUES_MAX).contains(&length))
            .ok_or(io::ErrorKind::InvalidInput)?;
        for (place, queue) in places.iter_mut().zip(table.queues) {
            *place = u32::from(*queue);
        }
        let sums = value.iter_mut().skip(CONTRIBUTIONS);
        for (place, sum) in sums.zip(table.contributions.as_flattened()) {
            *place = *sum;
        }
        value[TYPES] = u32::from(table.types);
        value[LENGTH] = u32::try_from(length).map_err(io::Error::other)?;
        bpf::set_value(self.map.as_fd(), &value)
    }
}
