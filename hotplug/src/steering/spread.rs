// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program that spreads flows over the queues: by the hash that the frame has already, of a socket or a NIC, and
//! else by one over its addresses and ports.
//!
//! Without a program the kernel hashes each frame in either direction, and remembers by which queue each flow comes.
//! This one has nothing to do with frames from the guest, and mostly little with those to it.
//!
//! A NIC's hash of UDP is often over the addresses only, and all that goes between two hosts (QUIC, WireGuard) would
//! come out of one queue. So the ports of UDP count in any case.

use std::io;

use super::asm::{Assembler, If, Op, Op2, Register, Width};

/// The frame, where loads from packets expect it; and, kept over them, an offset, the protocol, and the hash.
const FRAME: Register = 6;
const OFFSET: Register = 7;
const PROTOCOL: Register = 8;
const HASH: Register = 9;

/// A field of `__sk_buff` (<linux/bpf.h>).
const SKB_HASH: i16 = 68;

const IPV4: i32 = 0x0800;
const IPV6: i32 = 0x86dd;
const TCP: i32 = 6;
const UDP: i32 = 17;

/// 2^32 over the square of the golden ratio: multiplied by it, neighbours end up far apart (Fibonacci hashing).
const GOLDEN: i32 = 0x61c8_8647;

/// The program. What it returns, the kernel takes modulo the number of queues. A frame that ends before what is to be
/// read of it comes out of queue 0: a load from beyond it ends the program so.
pub(super) fn spread() -> io::Result<Vec<u64>> {
    let mut asm = Assembler::default();
    asm.op2(Op2::Set, FRAME, 1);
    asm.load(Width::Word, HASH, FRAME, SKB_HASH);
    asm.load_packet(Width::Half, 12);
    asm.jump_if(If::Equal, 0, IPV4, "v4");
    asm.jump_if(If::Equal, 0, IPV6, "v6");
    asm.jump("end");
    asm.label("v4");
    protocol(&mut asm, 23, "v4 hash");
    for word in [26, 30] {
        add_word(&mut asm, word);
    }
    asm.jump_if(If::Equal, PROTOCOL, TCP, "v4 ports");
    asm.jump_if(If::NotEqual, PROTOCOL, UDP, "mix");
    asm.label("v4 ports");
    // Not of a fragment, as the others of its packet have none.
    asm.load_packet(Width::Half, 20);
    asm.op(Op::And, 0, 0x3fff);
    asm.jump_if(If::NotEqual, 0, 0, "mix");
    asm.load_packet(Width::Byte, 14);
    asm.op(Op::And, 0, 0xf);
    asm.op(Op::ShiftLeft, 0, 2);
    asm.jump_if(If::Less, 0, 20, "mix");
    asm.op2(Op2::Set, OFFSET, 0);
    asm.load_packet_behind(Width::Word, OFFSET, 14);
    asm.op2(Op2::Xor, HASH, 0);
    asm.jump("mix");
    asm.label("v6");
    protocol(&mut asm, 20, "v6 hash");
    for word in 0..8 {
        add_word(&mut asm, 22 + 4 * word);
    }
    asm.jump_if(If::Equal, PROTOCOL, TCP, "v6 ports");
    asm.jump_if(If::NotEqual, PROTOCOL, UDP, "mix");
    asm.label("v6 ports");
    add_word(&mut asm, 54);
    asm.label("mix");
    asm.op(Op::Multiply, HASH, GOLDEN);
    asm.op(Op::ShiftRight, HASH, 32);
    asm.label("end");
    asm.op2(Op2::Set, 0, HASH);
    asm.exit();
    asm.finish()
}

/// Loads the protocol's number. Where there is a hash that will do, the program ends; otherwise it goes on at `hash`.
fn protocol(asm: &mut Assembler, at: i32, hash: &'static str) {
    asm.load_packet(Width::Byte, at);
    asm.op2(Op2::Set, PROTOCOL, 0);
    asm.jump_if(If::Equal, HASH, 0, hash);
    asm.jump_if(If::NotEqual, PROTOCOL, UDP, "end");
    asm.label(hash);
}

/// Adds a word of the packet to the hash.
fn add_word(asm: &mut Assembler, at: i32) {
    asm.load_packet(Width::Word, at);
    asm.op2(Op2::Xor, HASH, 0);
}
