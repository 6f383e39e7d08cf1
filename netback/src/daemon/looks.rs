// SPDX-License-Identifier: GPL-3.0-or-later
//! Looks at a frontend's directory, and how many a guest can bring about.
//!
//! The directory is the guest's, and each write there is an event. What a look at it leads to may be
//! a connection's end and the next one's beginning: dozens of requests to xenstored, and changes of
//! the tap, for which the kernel locks all network interfaces and which a bridge logs. All devices have
//! one control thread, so there are [`AT_ONCE`] looks, more than a driver that comes and goes a few
//! times takes, and then one each [`PAUSE`]. It sees what the directory says by then: the last word counts.

use std::time::{Duration, Instant};

use xenbus::backend::{Event, FrontendState};
use xenbus::device;

use super::host::Host;
use super::timers::Due;
use super::vif::Vif;
use crate::logging::{RateLimited, if_any};

/// Looks without a pause.
const AT_ONCE: u32 = 64;
const PAUSE: Duration = Duration::from_millis(100);

/// When a frontend may be looked at.
#[derive(Debug)]
pub(super) struct Looks {
    limit: RateLimited,
    log_limit: RateLimited,
}

impl Looks {
    pub(super) const fn new() -> Self {
        Self {
            limit: RateLimited::new(AT_ONCE, PAUSE),
            log_limit: RateLimited::new(1, Duration::from_secs(60)),
        }
    }
}

impl Vif {
    /// One of the frontend's nodes that are watched has changed, or its directory as a whole.
    pub(super) fn frontend_changed(&mut self, node: &str, host: &mut Host) {
        if self.may_look(host) {
            self.look(node, host);
        }
    }

    /// The frontend's state after something that takes time: its guest may have gone on meanwhile.
    pub(super) fn look_again(&mut self, host: &mut Host) -> Option<Event> {
        self.may_look(host)
            .then(|| self.read_frontend(host))
            .flatten()
    }

    /// A look that had to wait.
    pub(super) fn late_look(&mut self, host: &mut Host) {
        if let Some(frontend) = self.frontend
            && self.may_look(host)
        {
            self.look(&frontend.dir(), host);
        }
    }

    /// The frontend's state now.
    pub(super) fn read_frontend(&self, host: &mut Host) -> Option<Event> {
        let frontend = self.frontend?;
        host.store
            .ask(self.path, "read the frontend's state", |c| {
                device::read_frontend(c, frontend)
            })
            .map(Event::Frontend)
    }

    /// Whether to look now. If not, that is done later.
    fn may_look(&mut self, host: &mut Host) -> bool {
        let now = Instant::now();
        // That look will see whatever happens until then.
        if host.timers.is_set(Due::Look(self.path)) {
            return false;
        }
        if self.looks.limit.allow(now).is_some() {
            return true;
        }
        host.timers.set(now + PAUSE, Due::Look(self.path));
        if let Some(suppressed) = self.looks.log_limit.allow(now) {
            let guest = self.facts.guest_shown();
            tracing::warn!(vif = %self.name(), domid = %self.path.dom, guest, suppressed = if_any(suppressed), "the frontend's directory changes without end: it is looked at ten times a second");
        }
        false
    }

    fn look(&mut self, node: &str, host: &mut Host) {
        let Some(frontend) = self.frontend else {
            return;
        };
        let whole = node == frontend.dir();
        if (whole || node == frontend.state())
            && let Some(mut event) = self.read_frontend(host)
        {
            if event == Event::Frontend(FrontendState::Connected)
                && self.has_other_rings(frontend, host)
            {
                event = Event::Frontend(FrontendState::Anew);
            }
            self.feed(event, host);
        }
        if node != frontend.state()
            && let Some(event) = self.follow_requests(host)
        {
            self.feed(event, host);
        }
    }
}
