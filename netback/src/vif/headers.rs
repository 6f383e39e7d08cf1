// SPDX-License-Identifier: GPL-3.0-or-later
//! Finds the transport header of a frame, and fills in its checksum where that cannot be left
//! to anybody else.
//!
//! Called by [`offload`](super::offload), `train` and `cut` on private copies of frames only. Every length is
//! checked against the frame, and the walk over IPv6 extension headers is bounded.

/// Where a TCP or UDP header stands in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// The network protocol that carries it.
    pub network: Network,
    /// The network header's first byte, counted from the frame's first byte.
    pub network_start: u16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// Its first byte, counted from the frame's first byte.
    pub start: u16,
    /// There is a VLAN tag before the network header.
    pub tagged: bool,
}

/// IP's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The transport protocols whose checksums netif can leave blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Where the checksum field stands in the header, in bytes.
    pub fn checksum_offset(self) -> u16 {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// The shortest header, in bytes.
    pub(super) fn header_len(self) -> u16 {
        match self {
            Self::Tcp => 20,
            Self::Udp => 8,
        }
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

pub(super) const ETHERNET_LEN: usize = 14;
const VLAN_TAGS_MAX: usize = 2;
/// Without options.
const IPV4_LEN: usize = 20;
pub(super) const IPV6_LEN: usize = 40;
const IPV6_EXTENSIONS_MAX: usize = 8;

/// The transport header of an Ethernet frame: `None` unless it is whole, unfragmented TCP or UDP
/// over IPv4 or IPv6, behind at most two VLAN tags.
pub fn transport(frame: &[u8]) -> Option<Transport> {
    let (ethertype, at) = network_header(frame)?;
    let (network, protocol, start) = match ethertype {
        0x0800 => ipv4(frame, at)?,
        0x86dd => ipv6(frame, at)?,
        _ => return None,
    };
    frame.get(start..start.checked_add(protocol.header_len().into())?)?;
    Some(Transport {
        network,
        network_start: u16::try_from(at).ok()?,
        protocol,
        start: u16::try_from(start).ok()?,
        tagged: at > ETHERNET_LEN,
    })
}

impl Transport {
    /// Bytes of all headers, Ethernet to transport: `None` if the frame ends before them, or if
    /// TCP's own length is shorter than its header.
    pub fn headers(self, frame: &[u8]) -> Option<u16> {
        let start = usize::from(self.start);
        let len = match self.protocol {
            Protocol::Udp => self.protocol.header_len().into(),
            // RFC 9293, section 3.1: the data offset, in 32-bit words.
            Protocol::Tcp => usize::from(byte(frame, start + 12)? >> 4) * 4,
        };
        let end = start + len;
        let whole = len >= usize::from(self.protocol.header_len()) && end <= frame.len();
        whole.then(|| u16::try_from(end).ok())?
    }

    /// Has the headers tell of a frame that has got another length: IP's length and IPv4's checksum, UDP's length, and
    /// a transport checksum that is left blank. `None` when the frame is not whole.
    pub(super) fn fit(self, frame: &mut [u8]) -> Option<()> {
        let (ip, start) = (usize::from(self.network_start), usize::from(self.start));
        let end = frame.len();
        let len = |from: usize| u16::try_from(end.checked_sub(from)?).ok();
        match self.network {
            Network::V4 => {
                *be16_mut(frame, ip + 2)? = len(ip)?.to_be_bytes();
                *be16_mut(frame, ip + 10)? = [0; 2];
                let checksum = ipv4_checksum(frame.get(ip..start)?);
                *be16_mut(frame, ip + 10)? = checksum.to_be_bytes();
            }
            Network::V6 => *be16_mut(frame, ip + 4)? = len(ip + IPV6_LEN)?.to_be_bytes(),
        }
        if self.protocol == Protocol::Udp {
            *be16_mut(frame, start + 4)? = len(start)?.to_be_bytes();
        }
        self.blank_checksum(frame)
    }

    /// Writes the pseudo-header's sum into the checksum field, as for a checksum that is left
    /// blank. `None`, and no change, when the frame is not whole.
    pub fn blank_checksum(self, frame: &mut [u8]) -> Option<()> {
        let at = usize::from(self.network_start);
        let start = usize::from(self.start);
        // Source and destination stand next to each other in both headers.
        let addresses = match self.network {
            Network::V4 => at + 12..at + 20,
            Network::V6 => at + 8..at + 40,
        };
        let len = u32::try_from(frame.len().checked_sub(start)?).ok()?;
        let protocol = u32::from(self.protocol.number());
        let sum = sum(frame.get(addresses)?) + len + protocol;
        let field = start + usize::from(self.protocol.checksum_offset());
        frame
            .get_mut(field..field + 2)?
            .copy_from_slice(&fold(sum).to_be_bytes());
        Some(())
    }
}

/// Sums `frame[start..]` with the pseudo-header's sum that stands in the checksum field at
/// `start + offset`, and puts the result there. `None`, and no change, when the field lies
/// outside the frame.
pub fn fill_checksum(frame: &mut [u8], start: u16, offset: u16) -> Option<()> {
    let payload = frame.get_mut(usize::from(start)..)?;
    let field = usize::from(offset)..usize::from(offset).checked_add(2)?;
    payload.get(field.clone())?;
    let checksum = match !fold(sum(payload)) {
        // RFC 768: a computed zero is sent as all ones; for TCP both mean the same.
        0 => 0xffff,
        checksum => checksum,
    };
    payload
        .get_mut(field)?
        .copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// The sum of 16-bit words, not yet folded: 64 KiB of them fit a u32 with room for more.
fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks();
    let last = rest.first().map_or(0, |high| u32::from(*high) << 8);
    words.iter().fold(last, |sum, word| {
        sum.wrapping_add(u16::from_be_bytes(*word).into())
    })
}

/// The checksum of an IPv4 header: of one that has its own, 0 if that is right (RFC 1071).
pub(super) fn ipv4_checksum(header: &[u8]) -> u16 {
    !fold(sum(header))
}

/// The one's complement sum in 16 bits.
pub(super) fn fold(mut sum: u32) -> u16 {
    loop {
        match u16::try_from(sum) {
            Ok(folded) => return folded,
            Err(_) => sum = (sum & 0xffff) + (sum >> 16),
        }
    }
}

/// The ethertype behind any VLAN tags, and where its header begins.
fn network_header(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = ETHERNET_LEN;
    for _ in 0..=VLAN_TAGS_MAX {
        match be16(frame, at.checked_sub(2)?)? {
            0x8100 | 0x88a8 => at += 4,
            ethertype => return Some((ethertype, at)),
        }
    }
    None
}

fn ipv4(frame: &[u8], at: usize) -> Option<(Network, Protocol, usize)> {
    let header: &[u8; IPV4_LEN] = frame.get(at..)?.first_chunk()?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    if header[0] >> 4 != 4 || header_len < IPV4_LEN || fragment != 0 {
        return None;
    }
    let protocol = Protocol::from_number(header[9])?;
    Some((Network::V4, protocol, at + header_len))
}

fn ipv6(frame: &[u8], at: usize) -> Option<(Network, Protocol, usize)> {
    let header: &[u8; IPV6_LEN] = frame.get(at..)?.first_chunk()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let mut next = header[6];
    let mut start = at + IPV6_LEN;
    for _ in 0..IPV6_EXTENSIONS_MAX {
        if let Some(protocol) = Protocol::from_number(next) {
            return Some((Network::V6, protocol, start));
        }
        let units = match next {
            // Hop-by-hop options, routing, destination options (RFC 8200, section 4).
            0 | 43 | 60 => usize::from(byte(frame, start + 1)?) + 1,
            _ => return None,
        };
        next = byte(frame, start)?;
        start += units * 8;
    }
    None
}

fn byte(frame: &[u8], at: usize) -> Option<u8> {
    frame.get(at).copied()
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    let bytes = frame.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// A field of 16 bits, in network order.
pub(super) fn be16_mut(frame: &mut [u8], at: usize) -> Option<&mut [u8; 2]> {
    frame.get_mut(at..)?.first_chunk_mut()
}

#[cfg(test)]
mod tests;
