// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the programs read of the frame that they choose a queue for: a copy of its first bytes, and of its ports.

use super::asm::{Assembler, If, Op, Op2, Register, STACK, Width};

/// The register that keeps the frame: what a program is called with.
pub(super) const FRAME: Register = 6;

/// Where the copy of the frame's first bytes begins on the stack.
pub(super) const COPY: i16 = -62;
/// Bytes up to the end of an IPv4 header without options.
pub(super) const V4_BYTES: i32 = 34;
/// Bytes up to the end of an IPv6 header.
pub(super) const V6_BYTES: i32 = 54;

// As two bytes in network order look when they are loaded as a number.
const IPV4: i32 = 0x0008;
const IPV6: i32 = 0xdd86;

pub(super) const TCP: i32 = 6;
pub(super) const UDP: i32 = 17;

// <linux/bpf.h>: a function, and fields of `__sk_buff`.
const SKB_LOAD_BYTES: i32 = 26;
pub(super) const VLAN_PRESENT: i16 = 20;
pub(super) const HASH: i16 = 68;

/// Where in the frame a copy begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Offset {
    Constant(i32),
    InRegister2,
}

/// Copies the frame's first bytes and goes to `v4` or `v6` by its type, `v6` with the rest of that header's bytes;
/// to `other` if it is neither, or ends before.
pub(super) fn by_type(
    asm: &mut Assembler,
    v4: &'static str,
    v6: &'static str,
    other: &'static str,
) {
    copy(asm, Offset::Constant(0), COPY, V4_BYTES);
    asm.jump_if(If::NotEqual, 0, 0, other);
    asm.load(Width::Half, 1, STACK, COPY + 12);
    asm.jump_if(If::Equal, 1, IPV4, v4);
    asm.jump_if(If::NotEqual, 1, IPV6, other);
    copy(asm, Offset::Constant(0), COPY, V6_BYTES);
    asm.jump_if(If::NotEqual, 0, 0, other);
    asm.jump(v6);
}

/// Leaves in register 2 where the ports of an IPv4 packet would begin; goes to `none` if it is a fragment, or its
/// header's length is not one.
pub(super) fn v4_ports(asm: &mut Assembler, none: &'static str) {
    asm.load(Width::Byte, 1, STACK, COPY + 20);
    asm.op(Op::And, 1, 0x3f);
    asm.load(Width::Byte, 2, STACK, COPY + 21);
    asm.op2(Op2::Or, 1, 2);
    asm.jump_if(If::NotEqual, 1, 0, none);
    asm.load(Width::Byte, 2, STACK, COPY + 14);
    asm.op(Op::And, 2, 0xf);
    asm.op(Op::ShiftLeft, 2, 2);
    asm.jump_if(If::Less, 2, 20, none);
    asm.op(Op::Add, 2, 14);
}

/// Copies bytes of the frame to the stack. Register 0 is 0 if they are there.
pub(super) fn copy(asm: &mut Assembler, from: Offset, to: i16, bytes: i32) {
    if let Offset::Constant(from) = from {
        asm.op(Op::Set, 2, from);
    }
    asm.op2(Op2::Set, 1, FRAME);
    asm.op2(Op2::Set, 3, STACK);
    asm.op(Op::Add, 3, to.into());
    asm.op(Op::Set, 4, bytes);
    asm.call(SKB_LOAD_BYTES);
}
