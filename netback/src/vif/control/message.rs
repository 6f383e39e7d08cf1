// SPDX-License-Identifier: GPL-3.0-or-later
//! The ten messages of the control ring, read once into a type that is right by construction
//! (netif.h, "Control messages" and, for 8 to 10, "Static Grants").
//!
//! | type | message | data\[0\] | data\[1\] | data\[2\] | result |
//! |---|---|---|---|---|---|
//! | 1 | get hash flags | | | | types that can be hashed |
//! | 2 | set hash flags | types | | | |
//! | 3 | set hash key | page | bytes | | |
//! | 4 | get hash mapping size | | | | entries, at most |
//! | 5 | set hash mapping size | entries | | | |
//! | 6 | set hash mapping | page | entries | offset | |
//! | 7 | set hash algorithm | 0 none, 1 Toeplitz | | | |
//! | 8 | get gref mapping size | queue | | | grants, at most |
//! | 9 | add gref mapping | queue | page | entries | |
//! | 10 | delete gref mapping | queue | page | entries | how many were |
//!
//! What can be judged without knowing what came before is judged here; the rest is
//! [`machine`](super::machine)'s. Where netif.h leaves a choice of statuses, they are Linux's.

use xen_ring::netif::{CtrlRequest, CtrlStatus, GrefEntry};
use xen_ring::{GrantRef, PAGE_SIZE};

use super::hash::{HashTypes, KEY_MAX, TOEPLITZ};

/// Entries of the mapping table, at most: as in Linux's netback.
pub const MAPPING_MAX: usize = 128;
/// Bytes of one of its entries, in the guest's page.
pub(super) const MAPPING_ENTRY: usize = 4;
/// Static grants of one queue pair, at most: a page for each slot of both its rings.
pub const STATIC_GRANTS_MAX: usize = 512;

/// Whether packets are hashed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// Not at all; which queue a packet goes to is our own choice.
    #[default]
    None,
    /// By Toeplitz.
    Toeplitz,
}

/// A list that lies in one of the guest's pages, from the page's start on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List {
    /// The page.
    pub gref: GrantRef,
    /// How many entries (bytes, of a key): they fit into the page, and into what they are for.
    pub count: usize,
}

/// A message that makes sense by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// 1: which types can be hashed.
    GetHashFlags,
    /// 2: which types are to be hashed.
    SetHashFlags(HashTypes),
    /// 3: the key.
    SetHashKey(List),
    /// 4: how large the mapping table may be.
    GetHashMappingSize,
    /// 5: how large it is; all entries become 0.
    SetHashMappingSize(usize),
    /// 6: some of its entries.
    SetHashMapping {
        /// Their new values: queues.
        list: List,
        /// The first of them.
        offset: usize,
    },
    /// 7: the algorithm.
    SetHashAlgorithm(Algorithm),
    /// 8: how many static grants a queue may have.
    GetGrefMappingSize,
    /// 9: keep these pages mapped.
    AddGrefMapping {
        /// The queue that is to use them: one that there is.
        queue: u16,
        /// The pages.
        list: List,
    },
    /// 10: unmap these pages.
    DelGrefMapping {
        /// The queue that has them: one that there is.
        queue: u16,
        /// The pages.
        list: List,
    },
}

impl Message {
    /// Reads a request to a vif of so many queues.
    ///
    /// # Errors
    ///
    /// The status that it is to be answered with.
    pub fn parse(request: &CtrlRequest, queues: u16) -> Result<Self, CtrlStatus> {
        let [a, b, c] = request.data;
        Ok(match request.kind {
            1 => Self::GetHashFlags,
            2 => Self::SetHashFlags(HashTypes::new(a).ok_or(INVALID)?),
            3 => Self::SetHashKey(List::new(a, b, KEY_MAX).ok_or(CtrlStatus::BufferOverflow)?),
            4 => Self::GetHashMappingSize,
            5 => Self::SetHashMappingSize(at_most(a, MAPPING_MAX).ok_or(INVALID)?),
            6 => Self::SetHashMapping {
                list: List::new(a, b, MAPPING_MAX).ok_or(INVALID)?,
                offset: at_most(c, MAPPING_MAX).ok_or(INVALID)?,
            },
            7 => Self::SetHashAlgorithm(Algorithm::new(a).ok_or(INVALID)?),
            8 => existing(a, queues).map(|_| Self::GetGrefMappingSize)?,
            9 => Self::AddGrefMapping {
                queue: existing(a, queues)?,
                list: List::new(b, c, STATIC_GRANTS_MAX).ok_or(INVALID)?,
            },
            10 => Self::DelGrefMapping {
                queue: existing(a, queues)?,
                list: List::new(b, c, STATIC_GRANTS_MAX).ok_or(INVALID)?,
            },
            _ => return Err(CtrlStatus::NotSupported),
        })
    }
}

const INVALID: CtrlStatus = CtrlStatus::InvalidParameter;

/// A list never leaves its page.
const _: () = {
    assert!(KEY_MAX <= PAGE_SIZE);
    assert!(MAPPING_MAX * MAPPING_ENTRY <= PAGE_SIZE);
    assert!(STATIC_GRANTS_MAX * GrefEntry::BYTES <= PAGE_SIZE);
};

impl Algorithm {
    /// The name under which `netback status` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Toeplitz => "toeplitz",
        }
    }

    fn new(number: u32) -> Option<Self> {
        match u8::try_from(number).ok()? {
            0 => Some(Self::None),
            TOEPLITZ => Some(Self::Toeplitz),
            _ => None,
        }
    }
}

impl List {
    fn new(gref: u32, count: u32, max: usize) -> Option<Self> {
        Some(Self {
            gref: GrantRef::new(gref),
            count: at_most(count, max)?,
        })
    }
}

fn at_most(number: u32, max: usize) -> Option<usize> {
    usize::try_from(number).ok().filter(|number| *number <= max)
}

fn existing(queue: u32, queues: u16) -> Result<u16, CtrlStatus> {
    match u16::try_from(queue) {
        Ok(queue) if queue < queues => Ok(queue),
        _ => Err(INVALID),
    }
}
