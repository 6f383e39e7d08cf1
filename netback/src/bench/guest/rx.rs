// SPDX-License-Identifier: GPL-3.0-or-later
//! The guest's receiving loop: counts frames, and posts every buffer again.

use xen_ring::front::rx_flags::{EXTRA_INFO, MORE_DATA};
use xen_ring::front::{FrontRx, FrontRxRequest};

use super::memory::Memory;
use super::{End, id_of};
use crate::bench::BenchError;
use crate::demo::sim::SimGuest;

// Of an extra info: another follows.
const EXTRA_MORE: u8 = 1;

/// The guest's half of the rx ring.
#[derive(Debug)]
pub(in crate::bench) struct Receiver {
    end: End<FrontRx>,
    buffers: Memory,
    next: Next,
    /// Bytes of the frame of which this is the middle.
    partial: usize,
    /// Length of the frames that are expected.
    expected: usize,
    received: u64,
    strangers: u64,
}

/// What the next slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A frame's first.
    First,
    /// An extra info; whether data follow after the last of them.
    Extra { more_data: bool },
    /// More of the frame.
    Data,
}

impl Receiver {
    /// Takes over a ring. Nothing is posted yet. `pages` are as many as the ring has slots, or fewer to save memory
    /// where nobody looks at what comes.
    pub(in crate::bench) fn new(
        end: End<FrontRx>,
        guest: &SimGuest,
        pages: usize,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            end,
            buffers: Memory::new(guest, pages, false)?,
            next: Next::First,
            partial: 0,
            expected: 0,
            received: 0,
            strangers: 0,
        })
    }

    /// Counts frames of this length from now on.
    pub(in crate::bench) fn expect(&mut self, len: usize) {
        self.expected = len;
    }

    /// Frames of the expected length, ever.
    pub(in crate::bench) const fn received(&self) -> u64 {
        self.received
    }

    /// Other frames, ever.
    pub(in crate::bench) const fn strangers(&self) -> u64 {
        self.strangers
    }

    /// Buffers that the backend still has.
    pub(in crate::bench) const fn posted(&self) -> u32 {
        self.end.ring.in_flight()
    }

    /// Posts all buffers that are free, and signals if that is wanted.
    pub(in crate::bench) fn post(&mut self) -> Result<(), BenchError> {
        let free = self.end.ring.free();
        for _ in 0..free {
            let index = self.end.ring.next_index();
            self.end.ring.push(FrontRxRequest {
                id: id_of(index),
                gref: self.buffers.of_slot(index),
            })?;
        }
        if free > 0 {
            self.end.publish();
        }
        Ok(())
    }

    /// Reads what has come. True if there was anything.
    pub(in crate::bench) fn collect(&mut self) -> Result<bool, BenchError> {
        let unread = self.end.ring.unread()?;
        for _ in 0..unread {
            let Some((_, slot)) = self.end.ring.take()? else {
                break;
            };
            self.next = match self.next {
                Next::Extra { more_data } => match slot.as_extra().flags & EXTRA_MORE {
                    0 if more_data => Next::Data,
                    0 => self.ended(),
                    _ => self.next,
                },
                Next::First | Next::Data => {
                    let response = slot.as_response();
                    let len = usize::try_from(response.status);
                    let refused = |_| BenchError::Refused {
                        way: "to the guest",
                        status: response.status,
                    };
                    self.partial += len.map_err(refused)?;
                    let more_data = response.flags & MORE_DATA != 0;
                    if response.flags & EXTRA_INFO != 0 {
                        Next::Extra { more_data }
                    } else if more_data {
                        Next::Data
                    } else {
                        self.ended()
                    }
                }
            };
        }
        Ok(unread > 0)
    }

    fn ended(&mut self) -> Next {
        if std::mem::take(&mut self.partial) == self.expected {
            self.received += 1;
        } else {
            self.strangers += 1;
        }
        Next::First
    }
}
