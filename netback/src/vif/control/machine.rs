// SPDX-License-Identifier: GPL-3.0-or-later
//! What the messages of a control ring bring about: requests in; answers, and lists to be
//! fetched, out. No I/O.
//!
//! A message that comes with a list takes two steps, or three: [`Machine::request`] says which
//! page to copy, [`Machine::fetched`] judges the copy, and an [`Order`] about static grants is
//! carried out by the queue that they are for and answered by [`Outcome::reply`]. A list is
//! judged as a whole before anything changes (XSA-270).
//!
//! Everything here is forgotten with the connection: a frontend that comes back with fewer queues
//! finds no table that names the others.

use arrayvec::ArrayVec;
use xen_ring::netif::{CtrlRequest, CtrlStatus, GrefEntry};
use xen_ring::{Access, GrantRef};

use super::hash::{HashTypes, Hasher, Key};
use super::message::{Algorithm, List, MAPPING_ENTRY, MAPPING_MAX, Message, STATIC_GRANTS_MAX};

/// How packets to the guest are hashed and steered, as the guest has configured it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HashConfig {
    /// By what.
    pub algorithm: Algorithm,
    /// Which packets.
    pub types: HashTypes,
    /// The algorithm's key.
    pub key: Key,
    /// Which queue a hash leads to, modulo the table's length. Without entries it is the hash
    /// modulo the number of queues. Every entry is a queue that there is.
    pub mapping: ArrayVec<u16, MAPPING_MAX>,
}

impl HashConfig {
    /// What hashes the packets, if they are to be hashed at all.
    pub fn hasher(&self) -> Option<Hasher> {
        let on = self.algorithm == Algorithm::Toeplitz && !self.types.is_empty();
        on.then(|| Hasher::new(&self.key, self.types))
    }
}

/// The state that the messages of one connection add up to.
#[derive(Debug)]
pub struct Machine {
    queues: u16,
    /// Packets can be hashed, and steered by that.
    hashes: bool,
    config: HashConfig,
    /// The configuration is not what it was when somebody last asked.
    changed: bool,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// How it ended.
    pub status: CtrlStatus,
    /// Its result.
    pub data: u32,
}

/// What is to be done about a request at first.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Copy so many bytes from the start of a page of the guest, and hand them to
    /// [`Machine::fetched`]; if they cannot be copied, answer [`Reply::INVALID`].
    Fetch(Fetch),
    /// There is nothing to be fetched.
    Decided(Decision),
}

/// What is to be done about a request that is known with its list.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer it.
    Reply(Reply),
    /// Let a queue carry it out, and answer with [`Outcome::reply`].
    Order(Order),
}

/// A list that a message came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// The page.
    pub gref: GrantRef,
    /// How many bytes: at least 1, at most a page.
    pub bytes: u16,
    /// What to do with them.
    pub purpose: Purpose,
}

/// What a list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The key.
    Key,
    /// A part of the mapping table.
    Mapping {
        /// Where it begins.
        offset: usize,
    },
    /// Static grants to add.
    Add {
        /// The queue that is to use them.
        queue: u16,
    },
    /// Static grants to delete.
    Delete {
        /// The queue that has them.
        queue: u16,
    },
}

/// A change of a queue's static grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The queue.
    pub queue: u16,
    /// The change.
    pub change: Change,
}

/// What is to become of static grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Map all of them, or none.
    Add(Vec<(GrantRef, Access)>),
    /// Unmap those that are mapped.
    Delete {
        /// The page that the list came from, and goes back to.
        list: GrantRef,
        /// The list.
        entries: Vec<GrefEntry>,
    },
}

/// What has become of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All are mapped.
    Added,
    /// None is.
    Refused,
    /// Those for which there is a `true` have been unmapped; the others were not mapped.
    Deleted {
        /// The page that the list came from, and goes back to.
        list: GrantRef,
        /// The list.
        entries: Vec<GrefEntry>,
        /// For each of its entries.
        deleted: Vec<bool>,
    },
}

impl Reply {
    /// It is done, and there is no more to say.
    pub const DONE: Self = Self::with(0);
    /// A parameter makes no sense.
    pub const INVALID: Self = Self::refused(CtrlStatus::InvalidParameter);

    const fn with(data: u32) -> Self {
        Self {
            status: CtrlStatus::Success,
            data,
        }
    }

    const fn refused(status: CtrlStatus) -> Self {
        Self { status, data: 0 }
    }
}

impl Machine {
    /// The state of a new connection of so many queues: packets are not hashed, and can only be if
    /// `hashes`.
    pub fn new(queues: u16, hashes: bool) -> Self {
        Self {
            queues,
            hashes,
            config: HashConfig::default(),
            changed: false,
        }
    }

    /// The configuration, if it is another one than when this was last asked.
    pub fn changed(&mut self) -> Option<&HashConfig> {
        std::mem::take(&mut self.changed).then_some(&self.config)
    }

    /// Takes a request.
    pub fn request(&mut self, request: &CtrlRequest) -> Step {
        match Message::parse(request, self.queues) {
            Ok(message) => self.message(message),
            Err(status) => Step::reply(Reply::refused(status)),
        }
    }

    fn message(&mut self, message: Message) -> Step {
        let reply = match message {
            Message::GetHashFlags => self.hash_flags(),
            Message::SetHashFlags(types) => self.set_hash_flags(types),
            Message::SetHashKey(list) => return self.fetch(list, 1, Purpose::Key),
            Message::GetHashMappingSize => Reply::with(number(MAPPING_MAX)),
            Message::SetHashMappingSize(size) => {
                self.change(|config| config.mapping = (0..size).map(|_| 0).collect())
            }
            Message::SetHashMapping { list, offset } => {
                if offset + list.count > self.config.mapping.len() {
                    return Step::reply(Reply::INVALID);
                }
                return self.fetch(list, MAPPING_ENTRY, Purpose::Mapping { offset });
            }
            Message::SetHashAlgorithm(Algorithm::Toeplitz) if !self.hashes => {
                Reply::refused(CtrlStatus::NotSupported)
            }
            Message::SetHashAlgorithm(algorithm) => {
                self.change(|config| config.algorithm = algorithm)
            }
            Message::GetGrefMappingSize => Reply::with(number(STATIC_GRANTS_MAX)),
            Message::AddGrefMapping { queue, list } => {
                return self.fetch(list, GrefEntry::BYTES, Purpose::Add { queue });
            }
            Message::DelGrefMapping { queue, list } => {
                return self.fetch(list, GrefEntry::BYTES, Purpose::Delete { queue });
            }
        };
        Step::reply(reply)
    }

    /// Hash types can be asked for and set only when there is an algorithm. Without one, to ask is
    /// not supported and to set is an invalid parameter, as in Linux's netback.
    fn hash_flags(&self) -> Reply {
        match self.config.algorithm {
            Algorithm::None => Reply::refused(CtrlStatus::NotSupported),
            Algorithm::Toeplitz => Reply::with(HashTypes::ALL.bits().into()),
        }
    }

    fn set_hash_flags(&mut self, types: HashTypes) -> Reply {
        match self.config.algorithm {
            Algorithm::None => Reply::INVALID,
            Algorithm::Toeplitz => self.change(|config| config.types = types),
        }
    }

    /// Asks for a list of entries of `size` bytes. One without entries needs no page.
    fn fetch(&mut self, list: List, size: usize, purpose: Purpose) -> Step {
        if list.count == 0 {
            return Step::Decided(self.fetched(purpose, list.gref, &[]));
        }
        // Lossless: a list fits into a page.
        let bytes = u16::try_from(list.count * size).unwrap_or(u16::MAX);
        Step::Fetch(Fetch {
            gref: list.gref,
            bytes,
            purpose,
        })
    }

    /// Takes the private copy of a list that was asked for, and the page that it came from.
    pub fn fetched(&mut self, purpose: Purpose, gref: GrantRef, bytes: &[u8]) -> Decision {
        match purpose {
            Purpose::Key => Decision::Reply(match Key::new(bytes) {
                Some(key) => self.change(|config| config.key = key),
                None => Reply::INVALID,
            }),
            Purpose::Mapping { offset } => Decision::Reply(self.set_mapping(offset, bytes)),
            Purpose::Add { queue } => add(queue, bytes),
            Purpose::Delete { queue } => {
                let change = Change::Delete {
                    list: gref,
                    entries: entries(bytes).collect(),
                };
                Decision::Order(Order { queue, change })
            }
        }
    }

    fn set_mapping(&mut self, offset: usize, bytes: &[u8]) -> Reply {
        let queues = self.queues;
        let entries: Option<ArrayVec<u16, MAPPING_MAX>> = bytes
            .as_chunks::<MAPPING_ENTRY>()
            .0
            .iter()
            .map(|entry| u16::try_from(u32::from_le_bytes(*entry)).ok())
            .map(|queue| queue.filter(|queue| *queue < queues))
            .collect();
        let Some(entries) = entries else {
            return Reply::INVALID;
        };
        self.change(|config| {
            let places = config.mapping.iter_mut().skip(offset);
            places
                .zip(entries)
                .for_each(|(place, queue)| *place = queue);
        })
    }

    fn change(&mut self, change: impl FnOnce(&mut HashConfig)) -> Reply {
        change(&mut self.config);
        self.changed = true;
        Reply::DONE
    }
}

impl Step {
    const fn reply(reply: Reply) -> Self {
        Self::Decided(Decision::Reply(reply))
    }
}

impl Outcome {
    /// The answer to an order of which this has become.
    pub fn reply(&self) -> Reply {
        match self {
            Self::Added => Reply::DONE,
            Self::Refused => Reply::INVALID,
            Self::Deleted { deleted, .. } => {
                Reply::with(number(deleted.iter().filter(|deleted| **deleted).count()))
            }
        }
    }
}

/// The list to go back to the guest, with a status for each entry.
pub(super) fn answered<'a>(
    entries: &'a [GrefEntry],
    deleted: &'a [bool],
) -> impl Iterator<Item = [u8; GrefEntry::BYTES]> + 'a {
    entries.iter().zip(deleted).map(|(entry, deleted)| {
        entry.to_bytes(match deleted {
            true => CtrlStatus::Success,
            false => CtrlStatus::InvalidParameter,
        })
    })
}

fn entries(bytes: &[u8]) -> impl Iterator<Item = GrefEntry> + '_ {
    let entries = bytes.as_chunks::<{ GrefEntry::BYTES }>().0;
    entries.iter().map(|entry| GrefEntry::from_bytes(*entry))
}

/// A flag that nobody has defined yet may mean anything, so a page that has one is refused.
fn add(queue: u16, bytes: &[u8]) -> Decision {
    let wanted = entries(bytes).map(|entry| match entry.flags {
        0 => Some((entry.gref, Access::ReadWrite)),
        GrefEntry::READ_ONLY => Some((entry.gref, Access::ReadOnly)),
        _ => None,
    });
    match wanted.collect() {
        Some(wanted) => Decision::Order(Order {
            queue,
            change: Change::Add(wanted),
        }),
        None => Decision::Reply(Reply::INVALID),
    }
}

/// Lossless: limits and lengths of lists are small.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
