// SPDX-License-Identifier: GPL-3.0-or-later
//! The hash that a guest is told of a frame, beside Toeplitz bit by bit as Microsoft describes it.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netback::vif::control::hash::{HashTypes, Hasher, KEY_MAX, Key};
use netback_fuzz::Headers;
use xen_ring::netif::Extra;

#[derive(Arbitrary, Debug)]
struct Input {
    key: [u8; KEY_MAX + 2],
    key_len: u8,
    types: u8,
    headers: Headers,
    /// In place of these bytes.
    flips: [(u8, u8); 2],
    /// In place of what IPv4 says of fragments.
    fragment: u8,
    len: u8,
}

fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| {
        bytes
            .get(at / 8)
            .is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0)
    };
    let window =
        |at: usize| (at..at + 32).fold(0, |window: u32, at| window << 1 | u32::from(bit(key, at)));
    let set = (0..8 * input.len()).filter(|at| bit(input, *at));
    set.fold(0, |hash, at| hash ^ window(at))
}

/// The types that apply to a frame, the more specific one first, and what is hashed for each.
fn inputs(frame: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let packet = frame.get(14..).unwrap_or_default();
    let (plain, ports, addresses) = match frame.get(12..14) {
        Some([8, 0]) if packet.len() >= 20 => {
            let header = usize::from(packet[0] & 15) * 4;
            let whole = packet[9] == 6 && packet[6] & 0x3f == 0 && packet[7] == 0 && header >= 20;
            (0, whole.then_some(header), 12..20)
        }
        Some([0x86, 0xdd]) if packet.len() >= 40 => (2, (packet[6] == 6).then_some(40), 8..40),
        _ => return vec![],
    };
    let addresses = packet[addresses].to_vec();
    let ports = ports.and_then(|at| packet.get(at..at + 4));
    let specific = ports.map(|ports| (plain + 1, [&addresses, ports].concat()));
    specific.into_iter().chain([(plain, addresses)]).collect()
}

fuzz_target!(|input: Input| {
    let types = input.types & if input.types < 240 { 15 } else { 31 };
    let Some(hashed) = HashTypes::new(types.into()) else {
        return assert!(types & 16 != 0);
    };
    let key_len = usize::from(input.key_len) % input.key.len();
    let Some(key) = Key::new(&input.key[..key_len]) else {
        return assert!(key_len > KEY_MAX);
    };
    let mut frame = input.headers.frame(&[1; 20]).bytes;
    frame[20] = input.fragment & 0xe0 | u8::from(input.fragment % 32 == 7);
    for (at, byte) in input.flips {
        if let Some(place) = frame.get_mut(usize::from(at)) {
            *place = byte;
        }
    }
    frame.truncate(usize::from(input.len).max(frame.len().min(14)));
    let wanted = inputs(&frame)
        .into_iter()
        .find(|(kind, _)| types >> kind & 1 == 1);
    let expected = wanted.map(|(kind, bytes)| Extra::Hash {
        kind,
        algorithm: 1,
        value: toeplitz(&input.key[..key_len], &bytes).to_le_bytes(),
    });
    assert_eq!(Hasher::new(&key, hashed).describe(&frame), expected);
});
