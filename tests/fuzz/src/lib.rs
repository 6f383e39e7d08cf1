// SPDX-License-Identifier: GPL-3.0-or-later
//! Frames for the fuzz targets, built and judged by what the RFCs say and nothing of netback's, so
//! that an error in either shows as a disagreement.

use std::ops::Range;

use arbitrary::{Arbitrary, Unstructured};

/// As many as the input has bytes for, up to a ring's worth. (A `Vec` ends with the first even byte that it meets, so
/// long ones are rare.)
#[derive(Clone, Debug)]
pub struct Many<T>(pub Vec<T>);

impl<'a, T: Arbitrary<'a>> Arbitrary<'a> for Many<T> {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut all = Vec::new();
        while !input.is_empty() && all.len() < 256 {
            all.push(input.arbitrary()?);
        }
        Ok(Self(all))
    }
}

/// The headers of a TCP segment or a UDP datagram.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Headers {
    /// IPv6, or IPv4.
    pub v6: bool,
    /// UDP, or TCP.
    pub udp: bool,
    /// VLAN tags: of these up to two are known of.
    pub tags: u8,
    /// IPv4: words of options. IPv6: extension headers.
    pub ip_options: u8,
    /// Words of TCP's options.
    pub tcp_options: u8,
    /// TCP's flags.
    pub flags: u8,
    /// TCP's sequence number.
    pub sequence: u32,
    /// IPv4's identification.
    pub id: u16,
    /// IPv4's flag, without which the identification means something.
    pub dont_fragment: bool,
    /// Lifetime, traffic class and so on.
    pub other: u8,
    /// The last byte of each address, and what the ports are made of.
    pub addresses: [u8; 2],
}

/// A frame whose transport checksum is blank: its field holds the pseudo-header's sum.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Ethernet to payload.
    pub bytes: Vec<u8>,
    /// Where the parts of it are.
    pub layout: Layout,
}

/// Where the parts of a frame are, in bytes from its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// IPv6, or IPv4.
    pub v6: bool,
    /// UDP, or TCP.
    pub udp: bool,
    /// The IP header.
    pub ip: usize,
    /// The TCP or UDP header.
    pub transport: usize,
    /// What it carries.
    pub payload: usize,
}

impl Headers {
    /// Tags of the frame: 0 to 3.
    pub fn tags(&self) -> usize {
        usize::from(self.tags % 4)
    }

    /// The frame with this payload, which must not make it longer than IP allows.
    pub fn frame(&self, payload: &[u8]) -> Frame {
        let protocol = if self.udp { 17 } else { 6 };
        let ports = [20, self.addresses[0], 21, self.addresses[1]];
        let mut transport = ports.to_vec();
        if self.udp {
            transport.extend(be16(8 + payload.len()));
            transport.extend([0, 0]);
        } else {
            let options = self.tcp_options % 11;
            transport.extend(self.sequence.to_be_bytes());
            transport.extend([0, 0, 0, 9, (5 + options) << 4, self.flags, 1, 0, 0, 0, 0, 0]);
            transport.extend([1; 4].repeat(options.into()));
        }
        let transport_len = transport.len();
        transport.extend(payload);
        let ip = if self.v6 {
            self.ipv6(protocol, transport.len())
        } else {
            self.ipv4(protocol, transport.len())
        };
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 0, 0x16, 0x3e, 0, 0, 2];
        bytes.extend([0x81, 0, 0, 7].repeat(self.tags()));
        bytes.extend(if self.v6 { [0x86, 0xdd] } else { [8, 0] });
        let at = bytes.len();
        bytes.extend(&ip);
        bytes.extend(&transport);
        let layout = Layout {
            v6: self.v6,
            udp: self.udp,
            ip: at,
            transport: at + ip.len(),
            payload: at + ip.len() + transport_len,
        };
        layout.blank(&mut bytes);
        Frame { bytes, layout }
    }

    fn ipv4(&self, protocol: u8, len: usize) -> Vec<u8> {
        let options = self.ip_options % 11;
        let header_len = 20 + 4 * usize::from(options);
        let mut header = vec![0x45 + options, self.other & 0xfc];
        header.extend(be16(header_len + len));
        header.extend(self.id.to_be_bytes());
        header.extend([
            if self.dont_fragment { 0x40 } else { 0 },
            0,
            self.other,
            protocol,
            0,
            0,
        ]);
        header.extend([
            192,
            0,
            2,
            self.addresses[0],
            198,
            51,
            100,
            self.addresses[1],
        ]);
        header.extend([1; 4].repeat(options.into()));
        let sum = !ones_sum(&header, 0);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn ipv6(&self, protocol: u8, len: usize) -> Vec<u8> {
        // Hop-by-hop options, destination options, a routing header that has been gone through.
        let count = usize::from(self.ip_options % 4);
        let kinds: Vec<_> = [0, 60, 43]
            .into_iter()
            .take(count)
            .chain([protocol])
            .collect();
        let extensions: Vec<u8> = kinds[1..]
            .iter()
            .zip(0..)
            .flat_map(|(next, nth)| {
                let mut extension = vec![*next, nth % 2, 1, 0];
                extension.resize(8 * (1 + usize::from(nth % 2)), 0);
                extension
            })
            .collect();
        let mut header = vec![0x60, self.other, 3, 4];
        header.extend(be16(extensions.len() + len));
        header.extend([kinds[0], self.other]);
        for last in self.addresses {
            header.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, last]);
        }
        header.extend(extensions);
        header
    }
}

impl Layout {
    /// Where TCP or UDP has its checksum.
    pub fn checksum(&self) -> usize {
        self.transport + self.checksum_offset()
    }

    /// As [`checksum`](Self::checksum), from the header's first byte.
    pub fn checksum_offset(&self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    fn addresses(&self) -> Range<usize> {
        if self.v6 {
            self.ip + 8..self.ip + 40
        } else {
            self.ip + 12..self.ip + 20
        }
    }

    fn pseudo_header(&self, frame: &[u8]) -> u64 {
        let protocol = if self.udp { 17 } else { 6 };
        let len = (frame.len() - self.transport) as u64;
        u64::from(ones_sum(&frame[self.addresses()], protocol + len))
    }

    /// Leaves the checksum blank.
    pub fn blank(&self, frame: &mut [u8]) {
        let sum = ones_sum(&[], self.pseudo_header(frame));
        frame[self.checksum()..][..2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Does as the host or a network card does with a checksum that is blank.
    pub fn fill(&self, frame: &mut [u8]) {
        let sum = match !ones_sum(&frame[self.transport..], 0) {
            0 => 0xffff,
            sum => sum,
        };
        frame[self.checksum()..][..2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Whether a receiver takes the frame: lengths and checksums are right.
    pub fn is_good(&self, frame: &[u8]) -> bool {
        let field = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
        let ip = if self.v6 {
            field(self.ip + 4) == frame.len() - self.ip - 40
        } else {
            field(self.ip + 2) == frame.len() - self.ip
                && ones_sum(&frame[self.ip..self.transport], 0) == 0xffff
        };
        let udp = !self.udp
            || field(self.transport + 4) == frame.len() - self.transport
                && field(self.checksum()) != 0;
        let sum = ones_sum(&frame[self.transport..], self.pseudo_header(frame));
        ip && udp && sum == 0xffff
    }
}

/// The one's complement sum of 16-bit words (RFC 1071), begun with `sum`.
pub fn ones_sum(bytes: &[u8], sum: u64) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low)));
    let sum = words.fold(sum, |sum, word| sum + word);
    // 65536 is 1 here: what is left of a sum is its remainder by 65535, but that 65535 is not 0.
    match u16::try_from(sum % 65535).unwrap_or_default() {
        0 if sum > 0 => 65535,
        rest => rest,
    }
}

fn be16(number: usize) -> [u8; 2] {
    u16::try_from(number)
        .expect("no more than IP allows")
        .to_be_bytes()
}
