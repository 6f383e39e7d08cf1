// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program that spreads flows over the queues: by the hash that the frame has already, of a socket or a NIC, and
//! else by one over its addresses and ports.
//!
//! Without a program the kernel hashes each frame in either direction, and remembers by which queue each flow comes.
//! This one has nothing to do with frames from the guest, and mostly little with those to it.

use std::io;

use super::asm::{Assembler, If, Op, Op2, Register, STACK, Width};
use super::frame::{self, COPY, FRAME, Offset, TCP, UDP, V6_BYTES};

/// Kept over calls: the hash.
const HASH: Register = 9;

/// Where the ports are copied to: behind the longest copy of first bytes.
const PORTS: i16 = -8;
const V4_ADDRESSES: i16 = COPY + 26;
const V6_ADDRESSES: i16 = COPY + 22;

/// 2^32 over the square of the golden ratio: multiplied by it, neighbours end up far apart (Fibonacci hashing).
const GOLDEN: i32 = 0x61c8_8647;

/// The program. What it returns, the kernel takes modulo the number of queues.
pub(super) fn spread() -> io::Result<Vec<u64>> {
    let mut asm = Assembler::default();
    asm.op2(Op2::Set, FRAME, 1);
    asm.load(Width::Word, HASH, FRAME, frame::HASH);
    asm.jump_if(If::NotEqual, HASH, 0, "end");
    frame::by_type(&mut asm, "v4", "v6", "end");
    asm.label("v4");
    add_words(&mut asm, V4_ADDRESSES, 2);
    asm.load(Width::Byte, 1, STACK, COPY + 23);
    asm.jump_if(If::Equal, 1, TCP, "v4 ports");
    asm.jump_if(If::NotEqual, 1, UDP, "mix");
    asm.label("v4 ports");
    frame::v4_ports(&mut asm, "mix");
    add_ports(&mut asm, Offset::InRegister2);
    asm.jump("mix");
    asm.label("v6");
    add_words(&mut asm, V6_ADDRESSES, 8);
    asm.load(Width::Byte, 1, STACK, COPY + 20);
    asm.jump_if(If::Equal, 1, TCP, "v6 ports");
    asm.jump_if(If::NotEqual, 1, UDP, "mix");
    asm.label("v6 ports");
    add_ports(&mut asm, Offset::Constant(V6_BYTES));
    asm.label("mix");
    asm.op(Op::Multiply, HASH, GOLDEN);
    asm.op(Op::ShiftRight, HASH, 32);
    asm.label("end");
    asm.op2(Op2::Set, 0, HASH);
    asm.exit();
    asm.finish()
}

/// Adds words of the copy to the hash.
fn add_words(asm: &mut Assembler, from: i16, words: i16) {
    for word in 0..words {
        asm.load(Width::Word, 1, STACK, from + 4 * word);
        asm.op2(Op2::Xor, HASH, 1);
    }
}

/// Adds the ports to the hash, if they are there.
fn add_ports(asm: &mut Assembler, from: Offset) {
    frame::copy(asm, from, PORTS, 4);
    asm.jump_if(If::NotEqual, 0, 0, "mix");
    add_words(asm, PORTS, 1);
}
