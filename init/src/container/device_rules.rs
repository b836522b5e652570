//! Which devices a container may make and open: the rules of its cgroup, as a program that the kernel asks
//! (BPF_PROG_TYPE_CGROUP_DEVICE; Documentation/admin-guide/cgroup-v2.rst, "Device controller").
//!
//! Capabilities do not matter here: with CAP_MKNOD and as root a container gets no further than its rules, so the
//! guest's own disks stay out of its reach (CVE-2020-2023, CVE-2026-24834). The last rule that speaks of an access
//! decides it, each of mknod, read and write for itself; what no rule allows is refused.

use std::os::fd::{AsFd, BorrowedFd};

use super::spec::{Access, Device, DeviceKind, DeviceRule, RuleKind};
use crate::error::{Context, Result};
use crate::sys::bpf::{Instruction, attach_device_program, load_device_program};

const fn allowed(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule {
        allow: true,
        kind: RuleKind::Character,
        major: Some(major),
        minor,
        access: Access::ALL,
    }
}

/// OCI "Default Devices". There is no rule that lets a container make just any node, and none for the console (5:1): it is
/// the guest's, and a container's own /dev/console is a pts.
const DEFAULTS: &[DeviceRule] = &[
    allowed(1, Some(3)), // null
    allowed(1, Some(5)), // zero
    allowed(1, Some(7)), // full
    allowed(1, Some(8)), // random
    allowed(1, Some(9)), // urandom
    allowed(5, Some(0)), // tty
    allowed(5, Some(2)), // ptmx
    allowed(136, None),  // pts/*
];

/// Block device number of the guest's own root, if it has one: refused last, whatever the spec says.
pub type GuestRoot = Option<(u32, u32)>;

/// All rules of a container in order. The nodes it is given in `linux.devices` come before the spec's rules: a spec
/// without rules means them to work, one that begins with "deny all" lists what shall.
pub fn complete(
    devices: &[Device],
    rules: &[DeviceRule],
    guest_root: GuestRoot,
) -> Vec<DeviceRule> {
    let own = devices.iter().filter_map(rule_for);
    let guest_root = guest_root.map(|(major, minor)| DeviceRule {
        allow: false,
        kind: RuleKind::Block,
        major: Some(major),
        minor: Some(minor),
        access: Access::ALL,
    });
    own.chain(rules.iter().copied()).chain(DEFAULTS.iter().copied()).chain(guest_root).collect()
}

fn rule_for(device: &Device) -> Option<DeviceRule> {
    let (kind, major, minor) = match device.kind {
        DeviceKind::Character { major, minor } => (RuleKind::Character, major, minor),
        DeviceKind::Block { major, minor } => (RuleKind::Block, major, minor),
        DeviceKind::Fifo => return None,
    };
    Some(DeviceRule {
        allow: true,
        kind,
        major: Some(major),
        minor: Some(minor),
        access: Access::ALL,
    })
}

/// Whether every container may use the character device of these numbers.
pub fn is_default((major, minor): (u32, u32)) -> bool {
    DEFAULTS
        .iter()
        .any(|rule| rule.major == Some(major) && rule.minor.is_none_or(|number| number == minor))
}

/// Puts the rules on a cgroup, in place of nothing: a cgroup gets them once.
pub fn enforce(cgroup: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<()> {
    let program =
        load_device_program(&compile(rules)).context(|| "load device rules".to_owned())?;
    attach_device_program(cgroup, program.as_fd()).context(|| "attach device rules".to_owned())
}

// struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }, access_type = access << 16 | type
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

const RESULT: u8 = 0; // and scratch
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
/// The accesses asked for that no rule has decided.
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Opcodes of Documentation/bpf/standardization/instruction-set.rst
const LOAD_WORD: u8 = 0x61; // dst = *(u32 *)(src + offset)
const MOVE: u8 = 0xb7; // dst = immediate
const MOVE_REGISTER: u8 = 0xbf; // dst = src
const AND: u8 = 0x57; // dst &= immediate
const SHIFT_RIGHT: u8 = 0x77; // dst >>= immediate
const JUMP_EQUAL: u8 = 0x15; // if dst == immediate
const JUMP_NOT_EQUAL_32: u8 = 0x56; // if (u32)dst != immediate
const EXIT: u8 = 0x95;

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

/// The rules from the last to the first; each takes the accesses that it decides out of the open ones, and to deny one
/// of them is the end.
fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, OPEN, TYPE, 0, 0),
        instruction(AND, TYPE, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, OPEN, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    let clauses: Vec<Clause> = rules.iter().rev().copied().map(Clause::of).collect();
    if append(&mut program, &clauses, 0) == Falls::Through {
        program.extend(leave(0));
    }
    program
}

/// How many clauses are jumped over at a time: each is at most eight instructions, and a jump reaches 32767.
const SHARING_MAX: usize = 4000;

/// A rule as code: its verdict is for a device that passes all tests.
struct Clause {
    /// Register and the value that it must have: kind, major, minor.
    tests: Vec<(u8, i32)>,
    verdict: Vec<Instruction>,
    falls: Falls,
}

/// Whether anything can come after some code. The kernel refuses a program with code that is never reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Falls {
    Through,
    Nowhere,
}

impl Clause {
    fn of(DeviceRule { allow, kind, major, minor, access }: DeviceRule) -> Self {
        let kind = match kind {
            RuleKind::All => None,
            RuleKind::Character => Some((TYPE, CHARACTER)),
            RuleKind::Block => Some((TYPE, BLOCK)),
        };
        let major = major.map(|major| (MAJOR, major.cast_signed()));
        let minor = minor.map(|minor| (MINOR, minor.cast_signed()));
        let tests = [kind, major, minor].into_iter().flatten().collect();
        let bits = access_bits(access);
        let (verdict, falls) = match allow {
            true if bits == MKNOD | READ | WRITE => (leave(1).into(), Falls::Nowhere),
            true => (allow_bits(bits), Falls::Through),
            false => (deny_bits(bits), Falls::Through),
        };
        Self { tests, verdict, falls }
    }
}

/// Appends clauses whose tests before `depth` are passed. Neighbours share a test: the kernel follows every branch when
/// it verifies the program, and that is most of what the rules of a container cost.
fn append(program: &mut Vec<Instruction>, clauses: &[Clause], depth: usize) -> Falls {
    let test = |clause: &Clause| clause.tests.get(depth).copied();
    let alike = |a: &Clause, b: &Clause| test(a).is_some() && test(a) == test(b);
    for clauses in clauses.chunk_by(alike).flat_map(|alike| alike.chunks(SHARING_MAX)) {
        let Some(first) = clauses.first() else { continue };
        if let Some((register, value)) = test(first) {
            let mut passed = Vec::new();
            append(&mut passed, clauses, depth + 1);
            let skip = i16::try_from(passed.len()).unwrap_or(i16::MAX); // SHARING_MAX sees to it
            program.push(instruction(JUMP_NOT_EQUAL_32, register, 0, skip, value));
            program.extend(passed);
        } else {
            program.extend(first.verdict.iter().copied());
            if first.falls == Falls::Nowhere {
                return Falls::Nowhere;
            }
        }
    }
    Falls::Through
}

/// Nothing left open: allowed.
fn allow_bits(bits: i32) -> Vec<Instruction> {
    let [result, exit] = leave(1);
    vec![
        instruction(AND, OPEN, 0, 0, !bits),
        instruction(JUMP_NOT_EQUAL_32, OPEN, 0, 2, 0),
        result,
        exit,
    ]
}

/// Any of them still open: refused.
fn deny_bits(bits: i32) -> Vec<Instruction> {
    let [result, exit] = leave(0);
    vec![
        instruction(MOVE_REGISTER, RESULT, OPEN, 0, 0),
        instruction(AND, RESULT, 0, 0, bits),
        instruction(JUMP_EQUAL, RESULT, 0, 2, 0),
        result,
        exit,
    ]
}

fn leave(result: i32) -> [Instruction; 2] {
    [instruction(MOVE, RESULT, 0, 0, result), instruction(EXIT, 0, 0, 0, 0)]
}

fn access_bits(Access { mknod, read, write }: Access) -> i32 {
    [(mknod, MKNOD), (read, READ), (write, WRITE)]
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, bit)| bit)
        .sum()
}

#[cfg(test)]
mod tests;
