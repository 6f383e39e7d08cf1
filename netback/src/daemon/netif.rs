// SPDX-License-Identifier: GPL-3.0-or-later
//! A vif's netif, which is a tap: how it is made, found or taken up again, and how it goes.
//!
//! Called by [`perform`](super::perform). A tap that somebody holds is waited for without keeping other devices waiting.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use hotplug::link::Link;
use hotplug::{MacAddr, Tap, TapError, TapOptions, link};
use xenbus::backend::{Action, Event, Phase};

use super::carrier::UNPLUGGED;
use super::host::Host;
use super::orphans;
use super::timers::Due;
use super::vif::Vif;
use crate::config::Runner;
use crate::preflight::no_kernel_driver;

/// What the kernel lets the MTU of a tap be, in bytes.
const TAP_MTUS: RangeInclusive<u32> = 68..=65_521;
/// How long a tap that somebody holds is waited for, and how long between two looks. A service manager lets go within
/// moments, as does a program that the former daemon had just started; the toolstack waits 10 s for InitWait. The pause
/// grows with the time waited, since a thousand taps may be held at once and each look asks the store and the kernel.
const HELD_PATIENCE: Duration = Duration::from_secs(5);
const HELD_PAUSE_LEAST: Duration = Duration::from_millis(50);
const HELD_PAUSE_MOST: Duration = Duration::from_millis(500);

/// What a vif has of its netif.
#[derive(Debug)]
pub(super) enum Netif {
    /// Nothing: it has not been made yet, could not be, or is gone.
    None,
    /// Another process has the tap, or had it to the end of this time.
    Held { until: Instant },
    /// The tap.
    Made(Made),
}

/// A vif's tap.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) tap: Tap,
    /// As it was when it was last looked at.
    pub(super) link: Option<Link>,
    /// It is not the one that the toolstack's script was run for.
    pub(super) is_unplugged: bool,
    /// Its MTU that the guest knows of: the toolstack and the script have told it of the first.
    pub(super) mtu_told: Option<u32>,
}

impl Netif {
    pub(super) fn made(&self) -> Option<&Made> {
        match self {
            Self::Made(made) => Some(made),
            Self::None | Self::Held { .. } => None,
        }
    }

    pub(super) fn made_mut(&mut self) -> Option<&mut Made> {
        match self {
            Self::Made(made) => Some(made),
            Self::None | Self::Held { .. } => None,
        }
    }

    pub(super) fn tap(&self) -> Option<&Tap> {
        Some(&self.made()?.tap)
    }

    /// The tap as it was when it was last looked at.
    pub(super) fn link(&self) -> Option<Link> {
        self.made()?.link
    }
}

impl Vif {
    /// `None` if it has to wait.
    pub(super) fn create_netif(&mut self, host: &mut Host) -> Option<Event> {
        let queues = self.standing_offer(host);
        let name = self.tap_name();
        let usual_mtu = TapOptions::default().mtu;
        let options = TapOptions {
            mtu: self.wanted_mtu().unwrap_or(usual_mtu),
            txqueuelen: host.config.tap.txqueuelen,
            mac: MacAddr::BACKEND,
            // Whatever the script calls it: it is known by that when it is left over.
            alias: (self.facts.vifname.as_ref()).map(|_| orphans::alias(self.path)),
            persist: true,
            multi_queue: queues.unwrap_or_else(|| self.queue_limit(host)) > 1,
        };
        let machine = host.machine.as_ref();
        let rival = machine.and_then(|machine| no_kernel_driver(machine).err());
        match self.open_tap(&name, &options, host) {
            Ok(tap) => {
                if let Some(rival) = &rival {
                    tracing::error!(vif = %name, domid = %self.path.dom, error = %rival, "another backend serves this device, too");
                }
                let is_unplugged = tap.created() && self.was_plugged(host);
                if is_unplugged {
                    tracing::warn!(vif = %name, "{UNPLUGGED}");
                }
                tracing::debug!(vif = %name, created = tap.created(), "tap ready");
                let link = tap
                    .link()
                    .inspect_err(|error| tracing::error!(vif = %name, %error, "the new tap cannot be asked for its state"))
                    .ok();
                self.netif = Netif::Made(Made {
                    tap,
                    link,
                    is_unplugged,
                    // What a former backend's guest knows may be of before it went.
                    mtu_told: link.map(|link| link.mtu).filter(|_| !self.adopted),
                });
                // As with any network card, no carrier until somebody is at the other end. A guest
                // that a former backend left connected most likely is.
                if !self.was_left_connected() {
                    self.set_carrier(false);
                }
                Some(Event::NetifCreated)
            }
            Err(TapError::Busy(_)) if rival.is_none() && self.waits_for_tap(&name, host) => None,
            // An interface of that name is the driver's.
            Err(error) => Some(Event::NetifFailed(
                rival.map_or_else(|| error.to_string(), |rival| rival.to_string()),
            )),
        }
    }

    /// Whether there is time left for whoever holds it to let go of it.
    fn waits_for_tap(&mut self, name: &str, host: &mut Host) -> bool {
        let now = Instant::now();
        let until = match self.netif {
            Netif::Held { until } => until,
            Netif::Made(_) => return false,
            Netif::None => {
                tracing::warn!(vif = %self.name(), tap = name, "waiting for the tap: another process holds it");
                now + HELD_PATIENCE
            }
        };
        self.netif = Netif::Held { until };
        let left = until.saturating_duration_since(now);
        if !left.is_zero() {
            let pause = pause_after(HELD_PATIENCE.saturating_sub(left)).min(left);
            host.timers.set(now + pause, Due::Netif(self.path));
        }
        !left.is_zero()
    }

    /// Another process has its tap, and it is still waited for.
    pub(super) fn is_tap_held(&self) -> bool {
        matches!(
            (&self.netif, self.machine.phase()),
            (Netif::Held { .. }, Phase::Creating(_))
        )
    }

    /// Another look at a tap that somebody held.
    pub(super) fn look_at_tap(&mut self, host: &mut Host) {
        if self.is_tap_held() {
            self.perform_and_feed(Action::CreateNetif, host);
        }
    }

    /// The toolstack's script has been run, and will not be again.
    fn was_plugged(&self, host: &Host) -> bool {
        host.config.hotplug.runner == Runner::Toolstack && self.facts.is_plugged()
    }

    /// The MTU of the vif line, which the guest is told of by the toolstack. Not every script sets it on the tap.
    fn wanted_mtu(&self) -> Option<u32> {
        let text = self.facts.mtu.as_deref()?;
        let mtu = text.parse().ok().filter(|mtu| TAP_MTUS.contains(mtu));
        // Said once, however often the tap is looked at.
        if mtu.is_none() && matches!(self.netif, Netif::None) {
            tracing::warn!(vif = %self.name(), domid = %self.path.dom, mtu = ?text, "the vif line asks for an MTU that no tap can have (68 to 65521); the usual one is set");
        }
        mtu
    }

    /// A tap that a former daemon left may bear the name that the script gave it.
    fn tap_name(&self) -> String {
        let name = self.name();
        match &self.facts.vifname {
            Some(vifname)
                if self.adopted
                    && matches!(link::exists(&name), Ok(false))
                    && matches!(link::exists(vifname), Ok(true)) =>
            {
                vifname.clone()
            }
            _ => name,
        }
    }

    /// The tap that was kept open for it, or else the one of this name, new or found.
    fn open_tap(&self, name: &str, options: &TapOptions, host: &mut Host) -> Result<Tap, TapError> {
        if let Some(kept) = host.kept.remove(&self.path) {
            match Tap::resume(kept, options) {
                Ok(tap) => return Ok(tap),
                Err(error) => {
                    tracing::warn!(vif = %self.name(), %error, "a tap was kept open for this vif in vain");
                    host.release(self.path);
                }
            }
        }
        let tap = Tap::try_create(name, options)?;
        host.keep(self.path, &tap);
        Ok(tap)
    }

    pub(super) fn destroy_netif(&mut self, host: &Host) {
        match std::mem::replace(&mut self.netif, Netif::None) {
            Netif::Made(made) => {
                if let Err(error) = made.tap.destroy() {
                    tracing::error!(vif = %self.name(), %error, "the tap cannot be removed");
                }
                host.release(self.path);
            }
            // It was the device's all the same, and whoever held it may have let go.
            Netif::Held { .. } => orphans::remove_tap(self.path, &self.tap_name()),
            Netif::None => {}
        }
    }
}

/// How long until the next look at a tap that has been held for so long.
fn pause_after(waited: Duration) -> Duration {
    (waited / 2).clamp(HELD_PAUSE_LEAST, HELD_PAUSE_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Soon at first, and few altogether: a thousand taps may be held at once.
    #[test]
    fn the_pause_between_two_looks_grows() {
        let mut looks = vec![Duration::ZERO];
        while let Some(&last) = looks.last().filter(|last| **last < HELD_PATIENCE) {
            looks.push(last + pause_after(last));
        }
        assert_eq!(looks.len(), 17, "{looks:?}");
        assert_eq!(looks[1], HELD_PAUSE_LEAST);
        let pauses: Vec<_> = looks.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&HELD_PAUSE_MOST));
    }
}
