// SPDX-License-Identifier: GPL-3.0-or-later
//! The unit tests of FreeBSD's netback that have a frame in them, as far as their names and subjects are known: a whole
//! queue pair between the independent front end and a socket in place of the tap.
//!
//! One module for each of its groups and one test for each of its cases, so that the list can be checked off. Those of
//! the transmit ring alone are in `xen-ring`, `netif/packet/tests/freebsd`; the five that try its own string parser have
//! nothing here that they could be about. Where the two backends differ the test says what holds here.

mod from_guest;
mod to_guest;

use super::queue::tests::rig::*;
