// SPDX-License-Identifier: GPL-3.0-or-later
//! A guest that is short of receive buffers: how long its backend is patient, and what comes then.
//!
//! A guest is short when it has posted fewer buffers than the next frame needs; it stays so until a
//! frame gets through, or none waits any more. So one buffer that is posted now and then does not
//! hide a guest that has come to a stop (XSA-392), and a slow guest is never taken for one. The
//! clock is the caller's (`guest_rx`).
//!
//! A frontend that signals what it posts (`feature-rx-notify`) and stays short for too long is
//! **stalled**: what waits is dropped, its tap gets no carrier, so that the bridge queues nothing
//! for it, and it gets the carrier back with its buffers. A frontend that does not signal
//! could not end that, so for it what waits is dropped, after a shorter time, and that is all.

use std::time::{Duration, Instant};

/// How long one frame is held for buffers, before those behind it have their turn.
const HOLD: Duration = Duration::from_secs(1);
/// How long frames wait for a frontend that does not signal; its ring is looked at as often. The
/// same as in Linux's netback.
const SILENT_HOLD: Duration = Duration::from_millis(30);

/// How long to wait for a guest's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// How long one frame is held.
    hold: Duration,
    /// How long frames wait and none gets through; `None` is for ever.
    limit: Option<Duration>,
    /// What comes then.
    then: GiveUp,
}

/// What becomes of a guest that was short for too long. The frames that wait are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GiveUp {
    /// It has stalled, if any frame was waiting.
    Stall,
    /// Nothing else.
    Drain,
}

/// What to do about a guest that is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Wait for it, and look again at this moment at the latest.
    Wait(Option<Instant>),
    /// Give it up.
    GiveUp(GiveUp),
}

/// How short of buffers a guest is.
#[derive(Debug)]
pub(super) struct Shortage {
    patience: Patience,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Frames get through, or there are none.
    None,
    /// No frame has got through since.
    Short(Instant),
    /// It comes back when it has posted so many buffers.
    Stalled(u32),
}

impl Patience {
    /// For a frontend that signals what it posts, or does not; `stall` is how long it may be
    /// short before it has stalled, `None` for ever.
    pub(super) const fn new(rx_notify: bool, stall: Option<Duration>) -> Self {
        if rx_notify {
            Self {
                hold: HOLD,
                limit: stall,
                then: GiveUp::Stall,
            }
        } else {
            Self {
                hold: SILENT_HOLD,
                limit: Some(SILENT_HOLD),
                then: GiveUp::Drain,
            }
        }
    }
}

impl Shortage {
    pub(super) const fn new(patience: Patience) -> Self {
        Self {
            patience,
            state: State::None,
        }
    }

    /// Until when a frame is held for buffers that has been `since` then.
    pub(super) fn held_until(&self, since: Instant) -> Instant {
        since + self.patience.hold
    }

    /// A frame has got through, or none waits.
    pub(super) fn ease(&mut self) {
        self.state = State::None;
    }

    /// Fewer buffers are posted than the next frame needs, if there is one. `held` is since when one is held.
    pub(super) fn verdict(&mut self, now: Instant, held: Option<Instant>) -> Verdict {
        let since = match self.state {
            State::Short(since) => since,
            State::None | State::Stalled(_) => {
                self.state = State::Short(now);
                now
            }
        };
        let end = self.patience.limit.map(|limit| since + limit);
        if end.is_some_and(|end| now >= end) {
            return Verdict::GiveUp(self.patience.then);
        }
        let hold = held.map(|since| self.held_until(since));
        Verdict::Wait([end, hold].into_iter().flatten().min())
    }

    /// The guest has stalled; it comes back with `needed` buffers.
    pub(super) fn stall(&mut self, needed: u32) {
        self.state = State::Stalled(needed);
    }

    /// What a stalled guest has to post; `None` if it has not stalled.
    #[inline]
    pub(super) const fn stalled(&self) -> Option<u32> {
        match self.state {
            State::Stalled(needed) => Some(needed),
            State::None | State::Short(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(10);

    fn signals() -> Shortage {
        Shortage::new(Patience::new(true, Some(STALL)))
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_guest_that_takes_nothing_has_stalled_when_the_time_is_over() {
        let start = Instant::now();
        let mut shortage = signals();
        assert_eq!(
            shortage.verdict(start, None),
            Verdict::Wait(Some(start + STALL))
        );
        // Looking more often changes nothing.
        for passed in 1..10 {
            assert_eq!(
                shortage.verdict(start + secs(passed), None),
                Verdict::Wait(Some(start + STALL))
            );
        }
        assert_eq!(
            shortage.verdict(start + STALL, None),
            Verdict::GiveUp(GiveUp::Stall)
        );
        assert_eq!(shortage.stalled(), None, "only if a frame waits");
        shortage.stall(17);
        assert_eq!(shortage.stalled(), Some(17));
        shortage.ease();
        assert_eq!(shortage.stalled(), None);
    }

    /// Each frame that gets through begins the time anew, however slow the guest is.
    #[test]
    fn a_slow_guest_never_stalls() {
        let start = Instant::now();
        let mut shortage = signals();
        for round in 0..1_000 {
            let now = start + secs(9 * round);
            assert_eq!(
                shortage.verdict(now, None),
                Verdict::Wait(Some(now + STALL))
            );
            shortage.ease();
        }
    }

    /// Frames that need more buffers than the guest ever posts are dropped one by one, and do not
    /// begin the time anew.
    #[test]
    fn one_buffer_is_not_enough_for_frames_that_need_two() {
        let start = Instant::now();
        let mut shortage = signals();
        for passed in 0..10 {
            let now = start + secs(passed);
            let look_again = shortage.held_until(now);
            assert_eq!(look_again, now + HOLD);
            let verdict = shortage.verdict(now, Some(now));
            assert_eq!(verdict, Verdict::Wait(Some(look_again)));
        }
        assert_eq!(
            shortage.verdict(start + STALL, None),
            Verdict::GiveUp(GiveUp::Stall)
        );
    }

    #[test]
    fn without_a_limit_nothing_stalls() {
        let start = Instant::now();
        let mut shortage = Shortage::new(Patience::new(true, None));
        assert_eq!(shortage.verdict(start, None), Verdict::Wait(None));
        assert_eq!(
            shortage.verdict(start + secs(1 << 20), None),
            Verdict::Wait(None)
        );
    }

    #[test]
    fn a_guest_that_does_not_signal_is_only_drained() {
        let start = Instant::now();
        for stall in [None, Some(STALL)] {
            let mut shortage = Shortage::new(Patience::new(false, stall));
            let soon = start + SILENT_HOLD;
            assert_eq!(shortage.verdict(start, None), Verdict::Wait(Some(soon)));
            assert_eq!(shortage.verdict(soon, None), Verdict::GiveUp(GiveUp::Drain));
            shortage.ease();
            assert_eq!(
                shortage.verdict(soon, None),
                Verdict::Wait(Some(soon + SILENT_HOLD))
            );
        }
    }
}
