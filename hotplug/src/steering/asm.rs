// SPDX-License-Identifier: MIT OR Apache-2.0
//! Just enough of an assembler for BPF: instructions as functions, and labels (encodings from the kernel's
//! `bpf/standardization/instruction-set`).

use std::collections::HashMap;
use std::io;

/// A register: 0 the result, 1 to 5 the arguments of a call (lost by it), 6 to 9 kept, 10 the end of the stack.
pub(super) type Register = u8;

/// The end of the stack; what the program stores lies below.
pub(super) const STACK: Register = 10;

/// Widths of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Byte = 0x71,
    Half = 0x69,
    Word = 0x61,
}

// Modes of a load from a packet.
const ABSOLUTE: u8 = 0x20;
const INDIRECT: u8 = 0x40;

impl Width {
    const fn of_packet(self, mode: u8) -> u8 {
        // The width's own two bits.
        mode | self as u8 & 0x18
    }
}

/// Conditions of a jump, against a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum If {
    Equal = 0x15,
    NotEqual = 0x55,
    Greater = 0x25,
    Less = 0xa5,
}

/// Operations of a register and a constant (on 64 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Set = 0xb7,
    Add = 0x07,
    Multiply = 0x27,
    And = 0x57,
    ShiftLeft = 0x67,
    ShiftRight = 0x77,
}

/// Operations of two registers (on 64 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op2 {
    Set = 0xbf,
    Add = 0x0f,
    Or = 0x4f,
    Xor = 0xaf,
    Modulo = 0x9f,
}

/// A program that is being written.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    code: Vec<u64>,
    labels: HashMap<&'static str, usize>,
    jumps: Vec<(usize, &'static str)>,
}

impl Assembler {
    pub(super) fn op(&mut self, op: Op, to: Register, constant: i32) {
        self.push(encode(op as u8, to, 0, 0, constant));
    }

    pub(super) fn op2(&mut self, op: Op2, to: Register, from: Register) {
        self.push(encode(op as u8, to, from, 0, 0));
    }

    pub(super) fn load(&mut self, width: Width, to: Register, base: Register, offset: i16) {
        self.push(encode(width as u8, to, base, offset, 0));
    }

    /// Loads from the packet that register 6 stands for into register 0, in the host's order; registers 1 to 5 are lost,
    /// and beyond the packet's end the program ends with 0.
    pub(super) fn load_packet(&mut self, width: Width, offset: i32) {
        self.push(encode(width.of_packet(ABSOLUTE), 0, 0, 0, offset));
    }

    /// As [`load_packet`](Self::load_packet), so far behind what a register says.
    pub(super) fn load_packet_behind(&mut self, width: Width, register: Register, offset: i32) {
        self.push(encode(width.of_packet(INDIRECT), 0, register, 0, offset));
    }

    /// Stores a word.
    pub(super) fn store(&mut self, base: Register, offset: i16, constant: i32) {
        self.push(encode(0x62, base, 0, offset, constant));
    }

    /// Loads the address of a map: an instruction of two places.
    pub(super) fn map(&mut self, to: Register, fd: i32) {
        self.push(encode(0x18, to, 1, 0, fd));
        self.push(0);
    }

    /// Calls one of the kernel's functions.
    pub(super) fn call(&mut self, function: i32) {
        self.push(encode(0x85, 0, 0, 0, function));
    }

    pub(super) fn exit(&mut self) {
        self.push(encode(0x95, 0, 0, 0, 0));
    }

    pub(super) fn jump(&mut self, to: &'static str) {
        self.jumps.push((self.code.len(), to));
        self.push(encode(0x05, 0, 0, 0, 0));
    }

    pub(super) fn jump_if(&mut self, how: If, what: Register, constant: i32, to: &'static str) {
        self.jumps.push((self.code.len(), to));
        self.push(encode(how as u8, what, 0, 0, constant));
    }

    /// The next instruction is where jumps to `name` go.
    pub(super) fn label(&mut self, name: &'static str) {
        self.labels.insert(name, self.code.len());
    }

    /// The program, its jumps filled in.
    ///
    /// # Errors
    ///
    /// A jump goes nowhere, or too far: a defect of the program.
    pub(super) fn finish(mut self) -> io::Result<Vec<u64>> {
        for (from, name) in self.jumps {
            let label = self.labels.get(name);
            let distance = label.and_then(|to| i16::try_from(to.checked_sub(from + 1)?).ok());
            let (Some(distance), Some(jump)) = (distance, self.code.get_mut(from)) else {
                return Err(io::Error::other(format!("no jump to {name} is possible")));
            };
            *jump |= u64::from(distance.cast_unsigned()) << 16;
        }
        Ok(self.code)
    }

    fn push(&mut self, instruction: u64) {
        self.code.push(instruction);
    }
}

/// code u8, registers u8 (to, from << 4), offset i16, constant i32: little-endian as a whole.
fn encode(code: u8, to: Register, from: Register, offset: i16, constant: i32) -> u64 {
    u64::from(code)
        | u64::from(to | from << 4) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(constant.cast_unsigned()) << 32
}
