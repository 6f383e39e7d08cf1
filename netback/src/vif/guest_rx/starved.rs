// SPDX-License-Identifier: GPL-3.0-or-later
//! What becomes of the frames for a guest that has been short of buffers for too long, and how a
//! guest that has stalled comes back. When it is too long is decided in
//! [`shortage`](super::super::shortage).

use super::super::counters::DropReason;
use super::super::fault::Fault;
use super::super::half::Way;
use super::super::shortage::GiveUp;
use super::super::workbench::{BURST_FRAMES, Cursor, Workbench};
use super::{GuestRx, Read, RxTurn};

/// A change in whether a guest takes what comes for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It has been short of buffers for too long: what comes is dropped.
    Stalled,
    /// It has posted buffers again.
    Resumed,
}

/// Frames that were dropped in a row.
#[derive(Debug, Clone, Copy)]
struct Drained {
    /// Buffers that the first of them needed; `None` if there was none.
    first_needed: Option<u32>,
    /// There may be more.
    more: bool,
}

impl GuestRx {
    /// Drops what waits. A guest that has stalled is said to have; but if nothing waited, it was
    /// only taken to be short of buffers, as nobody had looked.
    pub(super) fn give_up<G>(
        &mut self,
        how: GiveUp,
        bench: &mut Workbench<G>,
        way: Way<'_>,
        turn: &mut RxTurn,
    ) -> Result<(), Fault> {
        let drained = self.drain(how.into(), bench, way)?;
        turn.half.more = drained.more;
        match (how, drained.first_needed) {
            (GiveUp::Stall, Some(needed)) => {
                self.shortage.stall(needed);
                way.counters.stalled();
                turn.flow = Some(Flow::Stalled);
            }
            // Until all are dropped it remains given up.
            (GiveUp::Drain, _) if drained.more => {}
            (GiveUp::Stall | GiveUp::Drain, _) => self.shortage.ease(),
        }
        Ok(())
    }

    /// A turn of a guest that has stalled: looks whether it has the buffers by now, and drops what
    /// has still come for it.
    pub(super) fn stalled_turn<G>(
        &mut self,
        needed: u32,
        bench: &mut Workbench<G>,
        way: Way<'_>,
    ) -> Result<RxTurn, Fault> {
        let mut turn = RxTurn::default();
        turn.half.founded = self.ring.is_stirring();
        if self.arm_for(needed)? {
            self.shortage.ease();
            turn.half.more = true;
            turn.flow = Some(Flow::Resumed);
        } else {
            let drained = self.drain(DropReason::Stalled, bench, way)?;
            turn.half.more = drained.more;
            turn.listens = true;
        }
        Ok(turn)
    }

    /// Drops what was read from the tap, and a burst from it.
    fn drain<G>(
        &mut self,
        reason: DropReason,
        bench: &mut Workbench<G>,
        way: Way<'_>,
    ) -> Result<Drained, Fault> {
        let Way { tap, counters, .. } = way;
        let mut first_needed = None;
        if let Some(held) = self.held.take() {
            first_needed = Some(held.slots);
            counters.dropped(reason);
        }
        if self.segments.is_some() {
            first_needed = first_needed.or(Some(1));
            self.drop_segments(reason, counters);
        }
        let room = Cursor::new(&bench.batch).place_any(true);
        if let Some(room) = room.filter(|_| self.tap_readable) {
            for _ in 0..BURST_FRAMES {
                match self.read(&mut bench.batch, room.clone(), tap)? {
                    Read::Frame(len) => {
                        let frame = room.start..room.start + len;
                        // One that is no frame needs no buffers, but the guest has to post some.
                        first_needed.get_or_insert_with(|| {
                            self.accept(&bench.batch, &frame).map_or(1, |a| a.slots)
                        });
                        counters.dropped(reason);
                    }
                    Read::Refused => counters.dropped(DropReason::BadFromTap),
                    Read::Empty => break,
                }
            }
        }
        Ok(Drained {
            first_needed,
            more: self.tap_readable,
        })
    }
}

impl From<GiveUp> for DropReason {
    fn from(how: GiveUp) -> Self {
        match how {
            GiveUp::Stall => Self::Stalled,
            GiveUp::Drain => Self::NoBuffers,
        }
    }
}
