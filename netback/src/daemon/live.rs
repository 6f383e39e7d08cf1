// SPDX-License-Identifier: GPL-3.0-or-later
//! What may change about a vif while it is connected: what its frontend asks for, and the tap.
//!
//! The frontend may ask for a multicast filter and for XDP headroom at any time, and the toolstack
//! may pull the cable out (`disconnect`). An administrator may take the tap down, or give it
//! another MTU; of a tap that a script has moved to another network namespace that is seen when the
//! vif connects, as the kernel announces it there only. The queues are told through [`Live`], the
//! guest through the nodes `mtu` and `carrier`, and the host through the tap's carrier
//! ([`carrier`](super::carrier)).

use std::time::{Duration, Instant};

use hotplug::monitor::Changed;
use hotplug::tap::is_gone;
use xenbus::backend::Event;
use xenbus::device::Written;
use xenbus::{Ahead, XenbusState, device};

use super::connect::tap_offload;
use super::host::Host;
use super::timers::Due;
use super::vif::Vif;
use crate::logging::if_any;
use crate::vif::negotiate::{LIVE_KEYS, Requests, requests};
use crate::vif::{Fault, Live, MulticastFilter};

/// How long to wait before showing the host what has changed too often.
const SHOW_PAUSE: Duration = Duration::from_millis(500);

impl Vif {
    /// A frontend was connected to a former backend, and may still be.
    pub(super) fn was_left_connected(&self) -> bool {
        use XenbusState::{Connected, Reconfigured, Reconfiguring};
        matches!(self.own_state, Connected | Reconfiguring | Reconfigured)
    }

    /// What the queues of a connection that begins now are to look at.
    pub(super) fn new_live(&self, requests: Requests) -> Live {
        let multicast = if self.was_left_connected() {
            MulticastFilter::forgotten()
        } else {
            MulticastFilter::new()
        };
        let live = Live::new(multicast);
        tell(&live, requests);
        live.set_mtu(self.netif.link().map(|link| link.mtu).unwrap_or_default());
        live
    }

    /// Reads again what the frontend asks for, and keeps to it from now on. Linux's netfront says
    /// Reconfiguring before it writes the new headroom, so that a look at the one may come before
    /// the other; therefore the keys are watched as well.
    pub(super) fn follow_requests(&mut self, host: &mut Host) -> Option<Event> {
        let (frontend, connection) = (self.frontend?, self.connection.as_mut()?);
        let client = host.store.client()?;
        let ahead = Ahead::new(client, LIVE_KEYS.map(|key| frontend.node(key)).to_vec());
        let asked = match requests(|key| ahead.optional(&frontend.node(key))) {
            Ok(asked) => asked,
            Err(error) => match error.lost_store() {
                Ok(lost) => {
                    host.store.lost(&lost);
                    return None;
                }
                Err(error) => return Some(Event::PeerFault(error.to_string())),
            },
        };
        if std::mem::replace(&mut connection.negotiated.requests, asked) != asked {
            tell(&connection.live, asked);
            tracing::debug!(vif = %self.name(), ?asked, "the frontend has changed its mind");
            self.show_host(host);
        }
        None
    }

    /// Shows the host what the frontend asks for: by what the tap delivers, and by its carrier.
    ///
    /// Each change takes the kernel's lock on network interfaces, and a bridge logs those of the
    /// carrier. The directory is the guest's to write, so there are a few changes at once and then
    /// two in a second; the last word counts.
    pub(super) fn show_host(&mut self, host: &mut Host) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let asked = connection.negotiated.requests;
        let (before, now) = (connection.shown, Instant::now());
        let is_shown = asked.headroom.is_none() == before.headroom.is_none()
            && asked.disconnect == before.disconnect;
        if is_shown {
            return;
        }
        if self.show_limit.allow(now).is_none() {
            host.timers.set(now + SHOW_PAUSE, Due::Show(self.path));
            return;
        }
        connection.shown = asked;
        if let Some(tap) = self.netif.tap()
            && let Err(error) = tap.set_offload(tap_offload(&connection.negotiated))
        {
            tracing::error!(vif = %self.name(), %error, "the tap's segmentation cannot be changed");
        }
        if asked.disconnect != before.disconnect {
            self.show_cable(host);
        }
    }

    /// The cable was pulled out or put in.
    fn show_cable(&mut self, host: &mut Host) {
        self.refresh_carrier();
        self.publish_carrier(host);
        if let Some(suppressed) = self.log_limit.allow(Instant::now()) {
            let cut = self.is_cut();
            tracing::info!(vif = %self.name(), domid = %self.path.dom, cut, suppressed = if_any(suppressed), "the frontend's node disconnect has changed");
        }
    }

    /// The toolstack has pulled the cable out.
    pub(super) fn is_cut(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.negotiated.requests.disconnect)
    }

    /// As [`is_cut`](Self::is_cut), as far as it has been shown: to the host by the tap's carrier, and to the guest by
    /// its node. Both go by this alone, whatever makes them change, or [`show_host`](Self::show_host) would not know
    /// what is left to be shown.
    pub(super) fn is_shown_cut(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.shown.disconnect)
    }

    /// Whether a change is about the vif's tap.
    pub(super) fn is_concerned(&self, changed: &Changed) -> bool {
        match (changed, self.netif.link()) {
            (Changed::Links(links), Some(link)) => links.contains(&link.index),
            (Changed::Any, Some(_)) => true,
            (_, None) => false,
        }
    }

    /// Looks at the tap as it is now, and tells the guest what has changed. `Some` when it is gone.
    pub(super) fn follow_tap(&mut self, host: &mut Host) -> Option<Event> {
        let made = self.netif.made_mut()?;
        let link = match made.tap.link() {
            Ok(link) => link,
            Err(error) if is_gone(&error) => {
                return Some(Event::NetifFailed(Fault::Tap.to_string()));
            }
            Err(error) => {
                if let Some(suppressed) = self.log_limit.allow(Instant::now()) {
                    tracing::error!(vif = %self.name(), %error, suppressed = if_any(suppressed), "the tap cannot be asked for its state");
                }
                return None;
            }
        };
        made.link = Some(link);
        // Whoever plugs it in sets it up.
        made.is_unplugged &= !link.up;
        self.publish_carrier(host);
        if let Some(connection) = &self.connection {
            connection.live.set_mtu(link.mtu);
        }
        self.publish_mtu(host);
        None
    }

    /// The script that sets the tap's MTU tells the guest of it too (libxl's vif-bridge does), but
    /// nobody does when it is changed later.
    pub(super) fn publish_mtu(&mut self, host: &mut Host) {
        let (Some(frontend), Some(made)) = (self.frontend, self.netif.made_mut()) else {
            return;
        };
        let Some(mtu) = made
            .link
            .map(|link| link.mtu)
            .filter(|mtu| made.mtu_told != Some(*mtu))
        else {
            return;
        };
        let text = mtu.to_string();
        let done = host
            .store
            .ask(self.path, "write the frontend's mtu", |client| {
                device::follow_mtu(client, frontend, &text)
            });
        made.mtu_told = done.map(|_| mtu);
        self.again_unless(done.is_some(), host);
        if done != Some(Written::Done) {
            return;
        }
        if let Some(suppressed) = self.log_limit.allow(Instant::now()) {
            tracing::info!(vif = %self.name(), domid = %self.path.dom, mtu, suppressed = if_any(suppressed), "the tap's MTU has changed");
        }
    }
}

/// Tells the queues what the frontend asks for.
fn tell(live: &Live, requests: Requests) {
    live.multicast.request(requests.multicast_control);
    live.set_headroom(requests.headroom);
    live.set_cut(requests.disconnect);
}
