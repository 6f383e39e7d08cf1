// SPDX-License-Identifier: GPL-3.0-or-later
//! The hash that a frontend can have computed over the packets it receives: Toeplitz over
//! addresses, and over ports where the packet is TCP (netif.h, "Hash types" and "Hash algorithms";
//! the same as Microsoft's RSS).
//!
//! A key is turned into a table once, so that a packet costs two look-ups a byte. Pure: called by
//! the rx half of a queue pair, and asked by `steer` for its table.

use arrayvec::ArrayVec;
use hotplug::steering::{Contributions, INPUT_MAX};
use xen_ring::netif::Extra;

use crate::vif::headers::{ETHERNET_LEN, IPV6_LEN, Protocol};

/// Bytes of the longest key: what it takes for the longest input and the result's 32 bits.
pub const KEY_MAX: usize = 40;
/// The algorithm's number in an extra info and in a request.
pub(super) const TOEPLITZ: u8 = 1;

/// What can be hashed. The number is the bit of a set of types, and the type in an extra info.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum HashType {
    /// IPv4 addresses.
    V4 = 0,
    /// IPv4 addresses and TCP ports.
    V4Tcp = 1,
    /// IPv6 addresses.
    V6 = 2,
    /// IPv6 addresses and TCP ports.
    V6Tcp = 3,
}

/// A set of hash types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HashTypes(u8);

impl HashType {
    /// All of them, by number.
    pub const ALL: [Self; 4] = [Self::V4, Self::V4Tcp, Self::V6, Self::V6Tcp];

    /// The name under which `netback status` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V4Tcp => "ipv4-tcp",
            Self::V6 => "ipv6",
            Self::V6Tcp => "ipv6-tcp",
        }
    }
}

impl HashTypes {
    /// Everything that this backend can hash.
    pub const ALL: Self = Self(0b1111);

    /// The set with these bits, if it has no others than there are types.
    pub fn new(bits: u32) -> Option<Self> {
        let bits = u8::try_from(bits).ok()?;
        (bits & !Self::ALL.0 == 0).then_some(Self(bits))
    }

    /// The bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it is one of them.
    pub const fn contains(self, one: HashType) -> bool {
        self.0 & (1 << one as u8) != 0
    }
}

/// A key, filled up with zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; KEY_MAX]);

impl Default for Key {
    /// The empty key, under which every hash is 0.
    fn default() -> Self {
        Self([0; KEY_MAX])
    }
}

impl Key {
    /// The key that begins with these bytes; `None` if they are too many.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut key = Self::default();
        key.0.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(key)
    }

    /// The 32 bits of the key that begin with bit number `at`, counted from the most significant
    /// bit of the first byte. Bits after the key's end are 0.
    fn window(&self, at: usize) -> u32 {
        let byte = |index: usize| u64::from(self.0.get(index).copied().unwrap_or(0));
        let first = at / 8;
        let forty = (first..first + 5).fold(0, |bits, index| bits << 8 | byte(index));
        // Lossless: the mask leaves 32 bits.
        u32::try_from(forty >> (8 - at % 8) & u64::from(u32::MAX)).unwrap_or_default()
    }
}

/// Hashes packets for a guest: its key, as a table, and the types it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hasher {
    table: Box<Contributions>,
    types: HashTypes,
}

impl Hasher {
    /// A hasher for these types of packets.
    pub fn new(key: &Key, types: HashTypes) -> Self {
        let mut table = Box::new([[0; 16]; 2 * INPUT_MAX]);
        for (position, row) in table.iter_mut().enumerate() {
            for (value, sum) in row.iter_mut().enumerate() {
                *sum = (0..4)
                    .filter(|bit| value & (0b1000 >> bit) != 0)
                    .fold(0, |sum, bit| sum ^ key.window(4 * position + bit));
            }
        }
        Self { table, types }
    }

    /// The types of packets that it hashes.
    pub fn types(&self) -> HashTypes {
        self.types
    }

    /// The key, taken apart.
    pub fn contributions(&self) -> &Contributions {
        &self.table
    }

    /// The extra info about a frame: of the most specific type that is wanted and applies, if one
    /// does.
    pub fn describe(&self, frame: &[u8]) -> Option<Extra> {
        let (kind, input) = input(frame, self.types)?;
        Some(Extra::Hash {
            kind: kind as u8,
            algorithm: TOEPLITZ,
            value: self.hash(&input).to_le_bytes(),
        })
    }

    fn hash(&self, input: &[u8]) -> u32 {
        let nibbles = input.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        self.table
            .iter()
            .zip(nibbles)
            .filter_map(|(row, nibble)| row.get(usize::from(nibble)))
            .fold(0, |hash, sum| hash ^ sum)
    }
}

/// What of a frame is hashed. Tagged frames are not hashed. The ports of a fragment are not
/// looked at (Linux's netback does the same), nor those behind IPv6 extension headers (RSS's
/// "TCP/IPv6" has none).
fn input(frame: &[u8], types: HashTypes) -> Option<(HashType, ArrayVec<u8, INPUT_MAX>)> {
    let tcp = Protocol::Tcp.number();
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_LEN)?;
    let (plain, with_ports, addresses, ports_at) = match ethernet {
        [.., 0x08, 0x00] => {
            let header = packet.get(..20)?;
            let &[first, _, _, _, _, _, f0, f1, _, protocol, ..] = header else {
                return None;
            };
            let fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
            let ports = usize::from(first & 0xf) * 4;
            let whole_tcp = protocol == tcp && !fragment && ports >= header.len();
            let addresses = header.get(12..20)?;
            (
                HashType::V4,
                HashType::V4Tcp,
                addresses,
                whole_tcp.then_some(ports),
            )
        }
        [.., 0x86, 0xdd] => {
            let header = packet.get(..IPV6_LEN)?;
            let is_tcp = header.get(6) == Some(&tcp);
            let addresses = header.get(8..IPV6_LEN)?;
            (
                HashType::V6,
                HashType::V6Tcp,
                addresses,
                is_tcp.then_some(IPV6_LEN),
            )
        }
        _ => return None,
    };
    let ports = ports_at.and_then(|at| packet.get(at..at + 4));
    let mut input = ArrayVec::new();
    input.try_extend_from_slice(addresses).ok()?;
    match ports {
        Some(ports) if types.contains(with_ports) => {
            input.try_extend_from_slice(ports).ok()?;
            Some((with_ports, input))
        }
        _ if types.contains(plain) => Some((plain, input)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
