// SPDX-License-Identifier: GPL-3.0-or-later
//! The guest's sending loop: keeps its ring full of one frame, over and over.

use xen_ring::PAGE_SIZE;
use xen_ring::front::tx_flags::{CSUM_BLANK, DATA_VALIDATED, EXTRA_INFO, MORE_DATA};
use xen_ring::front::{FrontExtra, FrontTx, FrontTxRequest, FrontTxSlot};

use super::memory::Memory;
use super::{End, id_of};
use crate::bench::BenchError;
use crate::bench::frames::Frame;
use crate::demo::sim::SimGuest;

// Kinds of extra info and an answer's status, from the protocol's tables.
const EXTRA_GSO: u8 = 1;
const GSO_TCPV4: u8 = 1;
const OKAY: i16 = 0;
const NULL: i16 = 1;

/// The guest's half of the tx ring.
#[derive(Debug)]
pub(in crate::bench) struct Sender {
    end: End<FrontTx>,
    /// Pages that frames begin in, and pages that they go on in.
    heads: Memory,
    bodies: Memory,
    cut: Cut,
    sent: u64,
    answered: u64,
}

/// How the frame is cut into slots.
#[derive(Debug)]
struct Cut {
    total: u16,
    gso_size: Option<u16>,
    body: Vec<u16>,
}

impl Cut {
    fn of(frame: &Frame) -> Self {
        let (first, rest) = frame.parts();
        let small = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
        Self {
            total: small(first.len() + rest.len()),
            gso_size: frame.gso_size(),
            body: rest
                .chunks(PAGE_SIZE)
                .map(|part| small(part.len()))
                .collect(),
        }
    }

    /// Ring slots, the extra info's included.
    fn slots(&self) -> usize {
        1 + usize::from(self.gso_size.is_some()) + self.body.len()
    }
}

impl Sender {
    /// Takes over a ring. `pages` are as many as the ring has slots, for a guest that sends flat out as real ones do,
    /// or fewer to save memory.
    pub(in crate::bench) fn new(
        end: End<FrontTx>,
        guest: &SimGuest,
        pages: usize,
        frame: &Frame,
    ) -> Result<Self, BenchError> {
        let mut sender = Self {
            end,
            heads: Memory::new(guest, pages, true)?,
            bodies: Memory::new(guest, pages, true)?,
            cut: Cut::of(frame),
            sent: 0,
            answered: 0,
        };
        sender.load(frame)?;
        Ok(sender)
    }

    /// Sends this frame from now on.
    pub(in crate::bench) fn load(&mut self, frame: &Frame) -> Result<(), BenchError> {
        let (first, rest) = frame.parts();
        self.heads.fill(first)?;
        self.bodies
            .fill(rest.get(..PAGE_SIZE).unwrap_or_default())?;
        self.cut = Cut::of(frame);
        Ok(())
    }

    /// Frames put into the ring, ever.
    pub(in crate::bench) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Slots that the backend has answered, ever.
    pub(in crate::bench) const fn answered(&self) -> u64 {
        self.answered
    }

    /// Whether every slot has its answer.
    pub(in crate::bench) const fn is_done(&self) -> bool {
        self.end.ring.in_flight() == 0
    }

    /// Reads what the backend has answered, fills the ring with at most `most` frames, and signals if that is wanted.
    /// True if anything has moved.
    pub(in crate::bench) fn step(&mut self, most: u64) -> Result<bool, BenchError> {
        let answers = self.read_answers()?;
        let mut pushed = 0;
        while pushed < most && self.end.ring.free() as usize >= self.cut.slots() {
            self.push()?;
            pushed += 1;
        }
        self.sent += pushed;
        if pushed > 0 {
            self.end.publish();
        }
        Ok(answers > 0 || pushed > 0)
    }

    fn read_answers(&mut self) -> Result<u32, BenchError> {
        let unread = self.end.ring.unread()?;
        for _ in 0..unread {
            let Some((_, answer)) = self.end.ring.take()? else {
                break;
            };
            if !matches!(answer.status, OKAY | NULL) {
                return Err(BenchError::Refused {
                    way: "from the guest",
                    status: answer.status,
                });
            }
        }
        self.answered += u64::from(unread);
        Ok(unread)
    }

    fn push(&mut self) -> Result<(), BenchError> {
        let Self {
            end: End { ring, .. },
            heads,
            bodies,
            cut,
            ..
        } = self;
        let mut flags = CSUM_BLANK | DATA_VALIDATED;
        if cut.gso_size.is_some() {
            flags |= EXTRA_INFO;
        }
        if !cut.body.is_empty() {
            flags |= MORE_DATA;
        }
        let request = |index: u32, memory: &Memory, flags, size| {
            FrontTxSlot::Request(FrontTxRequest {
                gref: memory.of_slot(index),
                offset: 0,
                flags,
                id: id_of(index),
                size,
            })
        };
        ring.push(request(ring.next_index(), heads, flags, cut.total))?;
        if let Some(size) = cut.gso_size {
            let [low, high] = size.to_le_bytes();
            ring.push(FrontTxSlot::Extra(FrontExtra {
                kind: EXTRA_GSO,
                flags: 0,
                body: [low, high, GSO_TCPV4, 0, 0, 0],
            }))?;
        }
        let last = cut.body.len().saturating_sub(1);
        for (part, size) in cut.body.iter().enumerate() {
            let flags = if part == last { 0 } else { MORE_DATA };
            ring.push(request(ring.next_index(), bodies, flags, *size))?;
        }
        Ok(())
    }
}
