// SPDX-License-Identifier: GPL-3.0-or-later
//! What may change about a connection while packets flow.
//!
//! One for each connection, shared by its queues. The control thread writes it when the frontend
//! or the host's administrator changes their mind; workers look at it as they go, without a lock.
//! Nothing hangs together here, so each value is an atomic of its own.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use super::headers::ETHERNET_LEN;
use super::headroom::Headroom;
use super::multicast::MulticastFilter;

/// What a vif's queues look at as they go.
#[derive(Debug)]
pub struct Live {
    /// The multicast list.
    pub multicast: MulticastFilter,
    headroom: AtomicU16,
    /// The guest's cable is pulled out.
    cut: AtomicBool,
    /// The tap's MTU in bytes; 0 if it is not known.
    mtu: AtomicU32,
}

impl Live {
    /// No headroom, the link is there, and the tap's MTU is not known.
    pub fn new(multicast: MulticastFilter) -> Self {
        Self {
            multicast,
            headroom: AtomicU16::new(0),
            cut: AtomicBool::new(false),
            mtu: AtomicU32::new(0),
        }
    }

    /// The room to leave in each rx buffer.
    pub fn headroom(&self) -> Headroom {
        // What was stored was one.
        Headroom::new(self.headroom.load(Ordering::Relaxed).into()).unwrap_or_default()
    }

    /// Leaves so much room in each rx buffer from the next burst on.
    pub fn set_headroom(&self, headroom: Headroom) {
        self.headroom.store(headroom.bytes(), Ordering::Relaxed);
    }

    /// Whether nothing that the guest sends may pass. The other direction is cut by the tap's
    /// carrier, which the control thread takes away; what is in the tap by then still passes.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Whether nothing that the guest sends may pass, from the next burst on.
    pub fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    /// The longest frame, in bytes with its Ethernet header, that the tap's MTU allows; 0 if that is
    /// not known.
    pub fn longest_plain(&self) -> usize {
        match usize::try_from(self.mtu.load(Ordering::Relaxed)) {
            Ok(0) | Err(_) => 0,
            Ok(mtu) => mtu.saturating_add(ETHERNET_LEN),
        }
    }

    /// The tap's MTU, in bytes, from the next burst on.
    pub fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }
}
