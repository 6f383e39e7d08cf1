// SPDX-License-Identifier: GPL-3.0-or-later
//! A vif's packet path.
//!
//! "tx" and "rx" are the guest's throughout, as in netif.h: tx comes from the guest, rx goes to
//! it. To see the way of a packet, read [`queue`] (one turn of a queue pair), then `guest_tx`
//! and `guest_rx` (the turn's two halves, with `half` for what they share). Beside them:
//! [`feature`] (all that can be agreed on), [`negotiate`] (what the frontend asked for),
//! [`connect`] (what a worker is handed of it), [`live`] with [`multicast`] and [`headroom`] (what
//! of that may change), [`offload`] with [`headers`] and [`vnet`] (checksums), `train` (datagrams in
//! a row), `cut` (frames that the guest cannot take whole), [`rate`] and [`bucket`] (limits),
//! `shortage` (a guest with too few rx buffers), `attach` and `signal` (what Xen is asked for),
//! `gate` with `storm` (ports that stay masked), [`control`] (what the guest configures while it
//! runs), [`workbench`] (a worker's buffers), [`counters`], [`fault`] (why a queue pair ends).
//! `freebsd` is tests only; `fuzzing` is for `tests/fuzz`.

mod attach;
pub mod bucket;
pub mod connect;
pub mod control;
pub mod counters;
mod cut;
pub mod fault;
pub mod feature;
#[cfg(test)]
mod freebsd;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
mod guest_rx;
mod guest_tx;
mod half;
pub mod headers;
pub mod headroom;
pub mod live;
pub mod multicast;
pub mod negotiate;
pub mod offload;
pub mod queue;
pub mod rate;
mod shortage;
mod signal;
mod storm;
mod train;
pub mod vnet;
pub mod workbench;

pub use attach::ConnectError;
pub use bucket::{Bucket, Limits, Meter};
pub use connect::{ConnectRequest, ControlRequest, QueueId, RingRequest};
pub use counters::{DirectionCounters, DropReason, QueueCounters};
pub use fault::Fault;
pub use guest_rx::Flow;
pub use headroom::Headroom;
pub use live::Live;
pub use multicast::MulticastFilter;
pub use queue::{QueuePair, Turn, Turned};
pub use rate::{Rate, RateError};
pub use workbench::{Workbench, buffers_of_each};
