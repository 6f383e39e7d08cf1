// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program that steers a frame as a guest wants it: finds what of it is hashed, hashes that, and looks the queue up.
//!
//! It sees a frame from its Ethernet header on. The first bytes are copied to the stack, and the ports behind them,
//! so that addresses and ports stand in a row whatever IPv4 options are between them:
//!
//! ```text
//!          -62            -50         -40        -36                -28         -8        -4
//! IPv4      | Ethernet ...  type ...              | source, destination | ports |
//! IPv6      | Ethernet ...  type ...  | source, destination ...                 | ports   |
//! ```
//!
//! Every loop is unrolled: the verifier of any kernel takes that, and the whole has 700 instructions.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::asm::{Assembler, If, Op, Op2, Register, STACK, Width};
use super::{CONTRIBUTIONS, LENGTH, QUEUES, QUEUES_MAX, TYPES};

// Kept over calls: the frame, the map's value, whether there are ports, and the hash.
const FRAME: Register = 6;
const VALUE: Register = 7;
const PORTS: Register = 8;
const HASH: Register = 9;

/// Where the copy of the frame's first bytes begins on the stack.
const COPY: i16 = -62;
const V4_INPUT: i16 = COPY + 26;
const V4_PORTS: i16 = V4_INPUT + 8;
const V6_INPUT: i16 = COPY + 22;
const V6_PORTS: i16 = V6_INPUT + 32;

// <linux/bpf.h>: functions, and a field of `__sk_buff`.
const MAP_LOOKUP_ELEM: i32 = 1;
const SKB_LOAD_BYTES: i32 = 26;
const VLAN_PRESENT: i16 = 20;

// As two bytes in network order look when they are loaded as a number.
const IPV4: i32 = 0x0008;
const IPV6: i32 = 0xdd86;
const TCP: i32 = 6;

/// The program, over a map of one value.
pub(super) fn steer(map: BorrowedFd<'_>) -> io::Result<Vec<u64>> {
    let mut asm = Assembler::default();
    asm.op2(Op2::Set, FRAME, 1);
    find_value(&mut asm, map);
    asm.op(Op::Set, HASH, 0);
    asm.op(Op::Set, PORTS, 0);
    // The kernel keeps the tag of a tagged frame beside it. Those are not hashed.
    asm.load(Width::Word, 1, FRAME, VLAN_PRESENT);
    asm.jump_if(If::NotEqual, 1, 0, "pick");
    copy(&mut asm, Offset::Constant(0), COPY, 34);
    asm.jump_if(If::NotEqual, 0, 0, "pick");
    asm.load(Width::Half, 1, STACK, COPY + 12);
    asm.jump_if(If::Equal, 1, IPV4, "v4");
    asm.jump_if(If::Equal, 1, IPV6, "v6");
    asm.jump("pick");
    asm.label("v4");
    hash_v4(&mut asm);
    asm.jump("pick");
    asm.label("v6");
    hash_v6(&mut asm);
    asm.label("pick");
    pick(&mut asm);
    asm.finish()
}

/// Leaves the address of the map's value.
fn find_value(asm: &mut Assembler, map: BorrowedFd<'_>) {
    asm.store(STACK, -4, 0);
    asm.map(1, map.as_raw_fd());
    asm.op2(Op2::Set, 2, STACK);
    asm.op(Op::Add, 2, -4);
    asm.call(MAP_LOOKUP_ELEM);
    asm.jump_if(If::NotEqual, 0, 0, "found");
    asm.exit();
    asm.label("found");
    asm.op2(Op2::Set, VALUE, 0);
}

/// Ports are looked at in TCP that is no fragment, if they are wanted and there.
fn hash_v4(asm: &mut Assembler) {
    asm.load(Width::Byte, 1, STACK, COPY + 23);
    asm.jump_if(If::NotEqual, 1, TCP, "v4 plain");
    asm.load(Width::Byte, 1, STACK, COPY + 20);
    asm.op(Op::And, 1, 0x3f);
    asm.load(Width::Byte, 2, STACK, COPY + 21);
    asm.op2(Op2::Or, 1, 2);
    asm.jump_if(If::NotEqual, 1, 0, "v4 plain");
    asm.load(Width::Byte, 2, STACK, COPY + 14);
    asm.op(Op::And, 2, 0xf);
    asm.op(Op::ShiftLeft, 2, 2);
    asm.jump_if(If::Less, 2, 20, "v4 plain");
    asm.op(Op::Add, 2, 14);
    ports(asm, 0b10, Offset::InRegister2, V4_PORTS, "v4 plain");
    asm.jump("v4 hash");
    asm.label("v4 plain");
    unless_wanted(asm, 0b01, "pick");
    asm.label("v4 hash");
    add_to_hash(asm, V4_INPUT, 0..8);
    asm.jump_if(If::Equal, PORTS, 0, "pick");
    add_to_hash(asm, V4_INPUT, 8..12);
}

/// As IPv4, but behind extension headers ports are not looked for.
fn hash_v6(asm: &mut Assembler) {
    copy(asm, Offset::Constant(0), COPY, 54);
    asm.jump_if(If::NotEqual, 0, 0, "pick");
    asm.load(Width::Byte, 1, STACK, COPY + 20);
    asm.jump_if(If::NotEqual, 1, TCP, "v6 plain");
    ports(asm, 0b1000, Offset::Constant(54), V6_PORTS, "v6 plain");
    asm.jump("v6 hash");
    asm.label("v6 plain");
    unless_wanted(asm, 0b0100, "pick");
    asm.label("v6 hash");
    add_to_hash(asm, V6_INPUT, 0..32);
    asm.jump_if(If::Equal, PORTS, 0, "pick");
    add_to_hash(asm, V6_INPUT, 32..36);
}

/// Returns the queue that the hash leads to.
fn pick(asm: &mut Assembler) {
    asm.op(Op::Set, 0, 0);
    asm.load(Width::Word, 1, VALUE, word(LENGTH));
    asm.jump_if(If::Equal, 1, 0, "end");
    asm.op2(Op2::Modulo, HASH, 1);
    // It cannot be; but that is known to `Steering::set` only, and the verifier wants to see it.
    asm.jump_if(If::Greater, HASH, LAST_QUEUE, "end");
    asm.op(Op::ShiftLeft, HASH, 2);
    asm.op2(Op2::Add, HASH, VALUE);
    asm.load(Width::Word, 0, HASH, word(QUEUES));
    asm.label("end");
    asm.exit();
}

/// Where in the frame a copy begins.
#[derive(Debug, Clone, Copy)]
enum Offset {
    Constant(i32),
    InRegister2,
}

/// Copies bytes of the frame to the stack. Register 0 is 0 if they are there.
fn copy(asm: &mut Assembler, from: Offset, to: i16, bytes: i32) {
    if let Offset::Constant(from) = from {
        asm.op(Op::Set, 2, from);
    }
    asm.op2(Op2::Set, 1, FRAME);
    asm.op2(Op2::Set, 3, STACK);
    asm.op(Op::Add, 3, to.into());
    asm.op(Op::Set, 4, bytes);
    asm.call(SKB_LOAD_BYTES);
}

/// Copies the ports, if this type is wanted and they are there; otherwise goes to `plain`.
fn ports(asm: &mut Assembler, kind: i32, from: Offset, to: i16, plain: &'static str) {
    unless_wanted(asm, kind, plain);
    copy(asm, from, to, 4);
    asm.jump_if(If::NotEqual, 0, 0, plain);
    asm.op(Op::Set, PORTS, 1);
}

/// Goes away unless this type is wanted. Leaves register 2 alone.
fn unless_wanted(asm: &mut Assembler, kind: i32, away: &'static str) {
    asm.load(Width::Word, 1, VALUE, word(TYPES));
    asm.op(Op::And, 1, kind);
    asm.jump_if(If::Equal, 1, 0, away);
}

/// Adds what bytes of the input contribute.
fn add_to_hash(asm: &mut Assembler, input: i16, bytes: std::ops::Range<i16>) {
    for (position, at) in bytes.clone().zip(bytes.map(|byte| input + byte)) {
        let row = |nibble: i16| word(CONTRIBUTIONS) + (2 * position + nibble) * ROW_BYTES;
        asm.load(Width::Byte, 1, STACK, at);
        asm.op2(Op2::Set, 2, 1);
        asm.op(Op::ShiftRight, 1, 4);
        asm.op(Op::And, 2, 0xf);
        for (register, offset) in [(1, row(0)), (2, row(1))] {
            asm.op(Op::ShiftLeft, register, 2);
            asm.op2(Op2::Add, register, VALUE);
            asm.load(Width::Word, 3, register, offset);
            asm.op2(Op2::Xor, HASH, 3);
        }
    }
}

/// Bytes of what four bits of the input can contribute.
const ROW_BYTES: i16 = 64;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "128"
)]
const LAST_QUEUE: i32 = QUEUES_MAX as i32 - 1;

/// The offset of a word in the map's value.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the value has 1282 words"
)]
const fn word(index: usize) -> i16 {
    index as i16 * 4
}
