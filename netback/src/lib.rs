// SPDX-License-Identifier: GPL-3.0-or-later
//! netback: a user-space backend for Xen's paravirtual network devices.
//!
//! | module | what it is |
//! |---|---|
//! | [`vif`] | the packet path: a queue pair between the guest's rings and the host's tap |
//! | [`worker`] | the threads that own queue pairs |
//! | [`daemon`] | the control thread: xenstore, the life of each device, hotplug |
//! | [`control`] | the control socket and `netback status` |
//! | [`mod@bench`] | `netback bench`: the packet path and many vifs, measured |
//! | [`keeper`] | who keeps taps open while no daemon runs |
//! | [`demo`] | the daemon among a simulated hypervisor, toolstack and guest |
//! | [`cli`], [`config`], [`preflight`], [`descriptors`], [`logging`] | what an operator meets first |
//!
//! "tx" and "rx" are the guest's everywhere, as in Xen's `netif.h`.

pub mod bench;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod daemon;
pub mod demo;
pub mod descriptors;
pub mod keeper;
pub mod logging;
pub mod preflight;
mod timers;
pub mod vif;
pub mod worker;
