// SPDX-License-Identifier: GPL-3.0-or-later
//! The control plane of a Xen backend: a xenstore client with watches and
//! transactions, and the life of a backend device.
//!
//! Everything that decides is free of input and output and can be driven by a
//! test byte by byte or event by event:
//!
//! * [`wire`] is the codec of xenstore's protocol, [`session`] matches replies to
//!   requests and [`watch`] keeps pending watch events in bounded memory;
//! * [`path`] and [`state`] give xenstore's strings types;
//! * [`backend`] is the state machine of one device: one table from
//!   (phase, event) to (phase, actions);
//! * [`reconnect`] says when to try again after xenstored went away.
//!
//! Around them are thin shells: [`Client`] (blocking requests, one or many at once
//! ([`XsMany`]), queued events; it implements the traits of the crate xenstore-rs), [`device`] (the reads and
//! transactional writes a device needs), [`scan`] (which devices exist) and
//! [`fake`], an in-memory xenstored for tests and the demo.
//!
//! Nothing here knows about rings, taps or threads other than the fake's own.
#![forbid(unsafe_code)]

pub mod backend;
pub mod client;
mod conn;
pub mod device;
pub mod error;
pub mod fake;
mod many;
pub mod path;
pub mod perms;
pub mod reconnect;
pub mod scan;
pub mod session;
pub mod state;
mod transaction;
pub mod watch;
pub mod wire;

pub use client::Client;
pub use error::{ErrorCode, is_disconnected};
pub use many::{Ahead, XsMany};
pub use path::{DevicePath, DomId, FrontendPath, Key};
pub use perms::{Access, Perm};
pub use state::XenbusState;
pub use transaction::{Transaction, transact};
pub use watch::{Coalesce, WatchEvent};
/// The store's interface, from the crate xenstore-rs.
pub use xenstore_rs::{Xs, XsTransaction, XsTransactionSpan};
