// SPDX-License-Identifier: GPL-3.0-or-later
//! The daemon, whole, against simulated guests: one world per test, real taps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

/// From attach to detach: channels, slots, checksums, several guests, nothing left behind.
mod connect;
/// The ring over which a guest configures what it wants while it runs.
mod control;
/// Hashes, and queues chosen by them.
mod control_hash;
/// Static grants.
mod control_static;
/// Datagrams in a row.
mod datagrams;
/// Guests that wear the backend out: what they cost is bounded.
mod endurance;
/// Guests that are not Linux.
mod frontends;
/// An honest guest among liars.
mod hood;
/// Guests that lie: only their own vif ends.
mod hostile;
/// What the toolstack's script says and does.
mod hotplug;
/// Taps that are kept open while there is no daemon.
mod kept;
/// Rates: what the guest transmits, and what it receives.
mod limits;
/// Link state and MTU.
mod link;
/// Toolstacks that write what cannot be served.
mod malformed;
/// Every combination of features.
mod matrix;
/// Multicast control.
mod multicast;
/// Several queues of one vif.
mod queues;
/// Several queues, one of them wrong.
mod queues_refused;
/// Several queues and the next daemon.
mod queues_restart;
/// Drivers that go and come back.
mod reconnect;
/// Daemons and stores that go and come back.
mod restart;
/// Guests that change their minds without end.
mod restless;
/// Scripts that the daemon runs itself.
mod scripts;
/// Guests that do not take what comes for them.
mod stalls;
/// What `netback status` tells.
mod status;
mod tagged;
/// Taps that are taken away.
mod taps;
/// XDP headroom.
mod xdp;
