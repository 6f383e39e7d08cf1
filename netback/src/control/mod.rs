// SPDX-License-Identifier: GPL-3.0-or-later
//! Looking into the running daemon: the unix control socket, what it says, and the `netback status` that asks.
//!
//! One line in (`status`), one JSON document out, then the connection is closed. [`server`] is driven by the
//! daemon's control thread, [`client`] runs in the process of the user, [`model`] is what passes between them, and
//! [`render`] is how a person gets to see it.

pub mod client;
pub mod model;
pub mod render;
pub mod server;

mod conn;
mod units;

#[cfg(test)]
mod tests;
