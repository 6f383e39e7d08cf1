// SPDX-License-Identifier: GPL-3.0-or-later
//! A vif's carrier, on both sides: the tap's shows the host whether there is a guest that takes what
//! comes for it, with its cable in; the backend's node `carrier` (netif.h, "Link state") shows the
//! guest whether the host can be reached. Whatever changes either of them calls here.

use xenbus::backend::{Event, Phase};
use xenbus::device;

use super::host::Host;
use super::vif::Vif;

/// The node by which a guest learns whether its link is up.
pub(super) const CARRIER: &str = "carrier";

/// Said of a vif whose tap a script would have to plug in, and none will.
pub(super) const UNPLUGGED: &str = "the tap that the former backend used is gone, and nothing plugs in the new one: detach the vif and attach it again, or run its script";

impl Vif {
    /// The carrier goes up with the rings: not with the worker's word, which may come late, when
    /// the device is closing. It was left up for a guest that seemed to be connected and is not. `Some` when the
    /// tap turns out to be gone.
    pub(super) fn follow_carrier(&mut self, before: Phase, host: &mut Host) -> Option<Event> {
        match (before, self.machine.phase()) {
            (Phase::Connecting, Phase::AwaitHotplug) => {
                self.begin_losses();
                self.set_carrier(true);
                self.publish_carrier(host);
            }
            // A script may have changed the tap, and a guest may have waited for it.
            (Phase::AwaitHotplug, Phase::Connected) => return self.follow_tap(host),
            (Phase::Connecting, Phase::Failed) => self.set_carrier(false),
            (Phase::Adopted, after) if !matches!(after, Phase::Adopted | Phase::Connecting) => {
                self.set_carrier(false);
            }
            _ => {}
        }
        None
    }

    /// Shows the host whether there is somebody at the other end: a guest that takes what comes for
    /// it, with its cable in. Linux before 5.0 has no way to say so for a tap, and does without.
    pub(super) fn set_carrier(&self, carrier: bool) {
        let carrier = carrier && !self.is_shown_cut() && !self.is_stalled();
        if let Some(tap) = self.netif.tap()
            && let Err(error) = tap.set_carrier(carrier)
            && !error.is_unknown_to_the_kernel()
            && !error.is_gone()
        {
            tracing::error!(vif = %self.name(), %error, "the tap's carrier cannot be set");
        }
    }

    /// Shows it anew after what it depends on has changed. While the rings are being mapped nobody is
    /// at the other end yet, and when they are given back not any more.
    pub(super) fn refresh_carrier(&self) {
        if matches!(
            self.machine.phase(),
            Phase::AwaitHotplug | Phase::Connected | Phase::Reconfigured
        ) {
            self.set_carrier(true);
        }
    }

    /// Whether the guest has a link: the host can be reached through the tap, and the cable is in.
    /// The tap's carrier has no part in that, as it shows the host whether there is a guest.
    pub(super) fn has_link(&self) -> bool {
        self.is_tap_up() && !self.is_cut()
    }

    fn is_tap_up(&self) -> bool {
        self.netif.link().is_some_and(|link| link.up)
    }

    /// Why it has none.
    pub(super) fn link_reason(&self) -> Option<String> {
        if self.is_cut() {
            Some("the toolstack has pulled the cable out (the frontend's node disconnect)".into())
        } else if !self.is_tap_up() && self.netif.made().is_some_and(|made| made.is_unplugged) {
            Some(UNPLUGGED.into())
        } else if !self.is_tap_up() {
            let name = self.netif.tap().and_then(|tap| tap.name().ok());
            let name = name.unwrap_or_else(|| self.name());
            Some(format!("the tap is down (ip link set {name} up)"))
        } else {
            None
        }
    }

    /// What the node `carrier` is to say.
    pub(super) fn carrier_shown(&self) -> bool {
        self.is_tap_up() && !self.is_shown_cut()
    }

    /// Tells the guest whether it has a link, unless it has been told.
    pub(super) fn publish_carrier(&mut self, host: &mut Host) {
        let (path, carrier) = (self.path, self.carrier_shown());
        if self.carrier_told == Some(carrier) {
            return;
        }
        let done = host.store.ask(path, "write carrier", |client| {
            device::write_keys(client, path, &[(CARRIER, carrier_text(carrier))])
        });
        self.carrier_told = done.map(|_| carrier);
        self.again_unless(done.is_some(), host);
    }
}

/// The node's words.
pub(super) const fn carrier_text(carrier: bool) -> &'static str {
    if carrier { "1" } else { "0" }
}
