// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two ways in which things go wrong, kept apart because they are answered differently.
//!
//! [`PeerFault`]: the frontend broke the protocol. Its vif is closed and the text goes to the log
//! and to the device's error node; nothing else is affected. [`SysError`]: the kernel refused
//! something that the backend asked for; the text says what, and what the operator can do.

use nix::errno::Errno;

use crate::ids::{DomId, GrantRef, RemotePort};

/// What a frontend did that no correct frontend does. Fatal for its vif, harmless to all else.
///
/// The rules are those of Linux's netback where it has them, and of the Xen advisories named at
/// the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// The indices of a ring that is being attached are further apart than the ring is long.
    #[error("the frontend's req_prod {req_prod} is not within {slots} of rsp_prod {rsp_prod}")]
    AttachOverflow {
        /// The frontend's producer index.
        req_prod: u32,
        /// The response producer index found in the ring.
        rsp_prod: u32,
        /// Slots of the ring.
        slots: u32,
    },
    /// More requests than the ring has slots (XSA-39). An index moved far back looks the same.
    #[error(
        "the frontend set req_prod to {req_prod} while only {req_cons} requests were consumed: \
         the ring has {slots} slots"
    )]
    RequestOverflow {
        /// The frontend's producer index.
        req_prod: u32,
        /// The backend's private consumer index.
        req_cons: u32,
        /// Slots of the ring.
        slots: u32,
    },
    /// Requests that were published have been withdrawn.
    #[error("the frontend moved req_prod back from {seen} to {req_prod}")]
    RequestRewind {
        /// The highest producer index seen so far.
        seen: u32,
        /// The frontend's producer index now.
        req_prod: u32,
    },
    /// A chain of extras or fragments goes on after the last published request.
    #[error(
        "the frontend published an incomplete packet: it runs past the {published} slots that \
         are there"
    )]
    IncompletePacket {
        /// Slots published from the packet's first one on.
        published: usize,
    },
    /// A packet of so many slots that no correct frontend can have meant it.
    #[error("the frontend sent a packet with more than {limit} slots after the first")]
    TooManySlots {
        /// The number of slots after the first beyond which a packet is fatal.
        limit: usize,
    },
    /// An extra info of a type that the protocol does not have.
    #[error("the frontend sent an extra info of unknown type {kind}")]
    UnknownExtra {
        /// The type byte.
        kind: u8,
    },
    /// Two extra infos of one type in one packet. Linux lets the last one win.
    #[error("the frontend sent two extra infos of type {kind} in one packet")]
    DuplicateExtra {
        /// The type byte.
        kind: u8,
    },
    /// A segmentation offload extra with segment size 0.
    #[error("the frontend sent a GSO extra with segment size 0")]
    GsoSizeZero,
    /// A segmentation offload extra of a type that the protocol does not have.
    #[error("the frontend sent a GSO extra of unknown type {kind}")]
    UnknownGso {
        /// The GSO type byte.
        kind: u8,
    },
    /// A slot's data would cross the end of its page.
    #[error(
        "the frontend sent a slot that crosses its page: slot {slot} of the packet has offset \
         {offset} and length {len}"
    )]
    CrossesPage {
        /// The slot within the packet, extras included, counted from 0.
        slot: usize,
        /// Offset within the page.
        offset: u16,
        /// The slot's own length, in bytes.
        len: u16,
    },
    /// A multicast list request that claims to have data. Linux reads the tail as new packets.
    #[error("the frontend sent a multicast list request with more_data set")]
    MulticastWithData,
    /// One request both to add and to remove a multicast address. Linux adds one and removes none.
    #[error("the frontend sent both a multicast add and a multicast delete in one packet")]
    MulticastConflict,
}

/// A call to the kernel or the hypervisor that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SysError {
    /// A device node could not be opened.
    #[error("cannot open {path}: {errno}; {}", open_advice(*errno))]
    Open {
        /// The device node.
        path: String,
        /// Why.
        errno: Errno,
    },
    /// A page that the frontend says it granted could not be mapped.
    #[error("cannot map grant {gref} of domain {dom}: {errno}; {}", map_advice(*errno))]
    MapGrant {
        /// The granting domain.
        dom: DomId,
        /// Its grant reference.
        gref: GrantRef,
        /// Why.
        errno: Errno,
    },
    /// An event channel that the frontend says it offers could not be bound.
    #[error(
        "cannot bind event channel {port} of domain {dom}: {errno}; the frontend must have \
         allocated it for this domain, and nobody else may have bound it"
    )]
    Bind {
        /// The domain at the other end.
        dom: DomId,
        /// Its port.
        port: RemotePort,
        /// Why.
        errno: Errno,
    },
    /// Any other call.
    #[error("{operation} failed: {errno}{}", call_advice(*errno))]
    Call {
        /// What was attempted, in the kernel's own terms.
        operation: &'static str,
        /// Why it failed.
        errno: Errno,
    },
}

impl SysError {
    /// The error number behind the error.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Open { errno, .. }
            | Self::MapGrant { errno, .. }
            | Self::Bind { errno, .. }
            | Self::Call { errno, .. } => *errno,
        }
    }
}

const fn open_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => {
            "is this a Xen domain, and are the kernel modules xen-gntdev and xen-evtchn loaded?"
        }
        Errno::EACCES | Errno::EPERM => "run as root or give this user access to the node",
        Errno::ENXIO | Errno::ENODEV => "the kernel has the node but no Xen behind it",
        Errno::EMFILE | Errno::ENFILE => "raise the limit of open files",
        _ => "see the kernel log",
    }
}

const fn map_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EAGAIN => "the guest's page stays paged out",
        // What gntdev says to whatever Xen answers.
        Errno::EINVAL => {
            "the reference is not granted to this domain for writing, or Xen is out of maptrack \
             frames"
        }
        Errno::ENOMEM | Errno::ENOSPC => "out of memory or of grant mappings (gntdev's limit)",
        _ => "see the kernel log",
    }
}

const fn call_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOMEM => "; the host is out of memory or the process is at its limit",
        Errno::EACCES | Errno::EPERM => "; not enough privilege",
        _ => "",
    }
}
