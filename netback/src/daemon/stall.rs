// SPDX-License-Identifier: GPL-3.0-or-later
//! Guests that do not take what comes for them: their taps get no carrier.
//!
//! A worker says when a guest has stalled on a queue pair and when it goes on. While it has on
//! any of them, the host sees no carrier on the tap, so the bridge queues nothing for it, and
//! whoever looks at the interface sees why. The guest itself is not told: it would not listen.

use std::time::Instant;

use super::connection::Connection;
use super::vif::Vif;
use crate::logging::if_any;

/// What `netback status` says of a vif that has stalled.
pub(super) const STALLED: &str = "the guest has posted too few receive buffers for too long; its interface has no carrier until it posts enough";

impl Vif {
    /// The guest of the present connection has stalled, or goes on.
    pub(super) fn follow_stall(&mut self, stalled: bool) {
        self.refresh_carrier();
        // A guest can stall and go on as often as it likes.
        let Some(suppressed) = self.log_limit.allow(Instant::now()) else {
            return;
        };
        let (vif, domid, suppressed) = (self.name(), self.path.dom, if_any(suppressed));
        let guest = self.facts.guest_shown();
        if stalled {
            tracing::warn!(%vif, %domid, guest, reason = STALLED, suppressed, "stalled");
        } else {
            tracing::info!(%vif, %domid, guest, suppressed, "goes on after a stall");
        }
    }

    /// Whether the guest of the present connection has stalled.
    pub(super) fn is_stalled(&self) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(Connection::is_stalled)
    }
}
