// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's side of a vif: the tap device that carries its frames, the link settings around it, and the
//! `vif-*` script that plugs it into a bridge or a routing table.
//!
//! | module | what for |
//! |---|---|
//! | [`tap`] | create, re-attach, configure, read, write and remove a tap |
//! | [`link`] | settings of any network interface, by name |
//! | [`monitor`] | which network interfaces have changed |
//! | [`steering`] | which of a tap's queues a frame comes out of: a BPF program |
//! | [`inject`] | frames for the reader of a tap, in benchmarks and tests |
//! | [`inherited`] | descriptors that the service manager has kept for this process |
//! | [`mac`] | Ethernet addresses |
//! | [`mod@env`] | the environment and arguments with which libxl calls a vif script |
//! | [`script`] | the life of one script run as a table of transitions, without a process or a clock |
//! | [`run`] | the process of one script run, for use from an event loop |
//!
//! The crate knows nothing of xenstore, rings or threads. `unsafe` code lives under `sys/` only.
#![deny(unsafe_code)]

pub mod env;
pub mod inject;
pub mod link;
pub mod mac;
pub mod monitor;
mod netlink;
pub mod run;
pub mod script;
pub mod steering;
mod sys;
pub mod tap;

pub use env::{ScriptCommand, ScriptEnv};
pub use inject::Injector;
pub use mac::MacAddr;
pub use monitor::LinkMonitor;
pub use run::{ScriptProgress, ScriptRun};
pub use script::{ScriptExit, ScriptState};
pub use steering::{Choice, Spread, Steering};
pub use sys::inherited::inherited;
pub use tap::{Tap, TapError, TapOffload, TapOptions, TapWriter, WriterLost};
