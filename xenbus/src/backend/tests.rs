// SPDX-License-Identifier: GPL-3.0-or-later
//! The state machine four times over: every edge against a reviewed list, the stories
//! that the protocol reference tells, a world of random peers with invariants, and
//! the recorded life of a real vif.

mod edges;
mod scenarios;
mod trace;
mod world;
