// SPDX-License-Identifier: GPL-3.0-or-later
//! The two things that are done with a bound event channel, and what is said when they fail: that takes a port which is
//! not bound, which a guest cannot bring about.
//!
//! Called by queue pairs, the control ring, and the [`gate`](super::gate) of either.

use xen_ring::{DomId, EventChannels, LocalPort};

/// Signals the guest. A signal that is lost leaves it waiting.
pub(super) fn notify(channels: &impl EventChannels, guest: DomId, port: LocalPort) {
    if let Err(error) = channels.notify(port) {
        tracing::error!(domid = %guest, %port, %error, "the guest cannot be signalled");
    }
}

/// Lets ports signal again that have been masked since they did; none costs nothing.
pub(super) fn unmask(channels: &impl EventChannels, guest: DomId, ports: &[LocalPort]) {
    if ports.is_empty() {
        return;
    }
    if let Err(error) = channels.unmask(ports) {
        tracing::error!(domid = %guest, %error, "event channels cannot be unmasked");
    }
}
