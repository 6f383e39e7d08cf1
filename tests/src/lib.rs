// SPDX-License-Identifier: GPL-3.0-or-later
//! The world in which the integration tests run: a simulated Xen machine with the real daemon, in a network
//! namespace of its own, with real taps.
//!
//! | module | what it is |
//! |---|---|
//! | [`world`] | the machine of one test, and what must be left of it at the end |
//! | [`guest`] | a guest with its vif, and what can be sent through |
//! | [`raw`] | a frontend without a stack, driven by hand |
//! | [`host`] | what an administrator does and sees |
//! | [`alone`] | running one test in a process of its own |
//!
//! A test that cannot have its world (no privilege, no tun) fails and says why; none is skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed expectation is a failed test"
)]

pub mod alone;
pub mod guest;
pub mod host;
pub mod raw;
pub mod world;

pub use guest::TestGuest;
pub use world::World;
