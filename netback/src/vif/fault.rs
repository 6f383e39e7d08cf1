// SPDX-License-Identifier: GPL-3.0-or-later
//! Why a queue pair ends: the guest's fault, or ours.

use std::fmt;

use xen_ring::back::ResponseOverflow;
use xen_ring::{BatchFull, PeerFault};

/// What ends a queue pair in the middle of its work. The text ends up in the vif's error node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The frontend broke the protocol.
    #[error("{ring} ring: {source}")]
    Peer {
        /// Where.
        ring: Ring,
        /// How.
        source: PeerFault,
    },
    /// The tap cannot be read any more: somebody deleted it, or the network namespace that a
    /// script had moved it to is gone.
    #[error("the tap is gone; detach the vif and attach it again")]
    Tap,
    /// A burst was planned larger than the buffers: a defect of netback, contained to one vif.
    #[error("defect in netback, please report it: {0}")]
    Plan(#[from] BatchFull),
    /// Fewer buffers than were counted: a defect of netback, contained to one vif.
    #[error("defect in netback, please report it: a buffer was counted that is not there")]
    Buffers,
    /// More answers than requests: a defect of netback, contained to one vif.
    #[error("defect in netback, please report it: {0}")]
    Answer(#[from] ResponseOverflow),
}

/// One of a vif's rings, by the guest's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// What the guest transmits.
    Tx,
    /// What it receives.
    Rx,
    /// Its requests about hashes and static grants.
    Control,
}

impl Ring {
    /// What ends a queue pair when the frontend breaks the protocol in this ring.
    pub(super) fn fault(self) -> impl FnOnce(PeerFault) -> Fault {
        move |source| Fault::Peer { ring: self, source }
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tx => "tx",
            Self::Rx => "rx",
            Self::Control => "control",
        })
    }
}
