//! From a profile to a program of classic BPF, as seccomp(2) runs it on struct seccomp_data.
//!
//! The calls are cut into ranges of numbers that fare alike, and the program bisects them. It is written from its end
//! to its start, since a jump goes forward only: what is jumped to is there already, and is shared by all who want it.

use super::{Action, Calls, Comparison, Condition, Rule, Seccomp, table};
use crate::error::{Code, Error, Result};
use crate::sys::seccomp::Instruction;

// linux/bpf_common.h and linux/filter.h
pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const GREATER_OR_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// BPF_MAXINSNS.
const INSTRUCTIONS_MAX: usize = 4096;
/// What a conditional jump can skip.
const SKIP_MAX: usize = 255;

// struct seccomp_data { int nr; u32 arch; u64 instruction_pointer; u64 args[6]; }, little-endian
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const ENOSYS: u16 = 38;
/// A tracer sets this number to skip a call; it is no call of x32.
const SKIPPED: u32 = u32::MAX;

pub fn compile(profile: Seccomp) -> Result<Vec<Instruction>> {
    let Seccomp { default, x32, rules, .. } = profile;
    let rules = Calls::new(default, rules)?;
    let mut assembler = Assembler { default, code: Vec::new(), returns: Vec::new() };
    let calls = assembler.bisect(&ranges(default, x32, &rules));
    let calls = assembler.fall_to(calls);
    let calls = assembler.load(NUMBER, calls);
    let foreign = assembler.leave(Action::KillThread); // as libseccomp has it
    let start = assembler.jump(EQUAL, table::ARCHITECTURE, calls, foreign);
    assembler.load(ARCHITECTURE, start);
    let mut program = assembler.code;
    if program.len() > INSTRUCTIONS_MAX {
        let message =
            format!("syscalls: more than the {INSTRUCTIONS_MAX} instructions of a filter");
        return Err(Error::new(Code::ResourceExhausted, message));
    }
    program.reverse();
    Ok(program)
}

/// What becomes of a range of calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate<'a> {
    Decided(Action),
    /// By the arguments; no rule matches: the default.
    Asked(&'a [Rule]),
}

/// Ranges by their first number, the first of them 0; neighbours differ.
fn ranges(default: Action, x32: bool, calls: &Calls) -> Vec<(u32, Fate<'_>)> {
    let mut ranges = vec![(0, Fate::Decided(default))];
    let mut asked = calls.asked.chunk_by(|rule, next| rule.syscall == next.syscall).peekable();
    for (number, decided) in (0..).zip(&calls.decided) {
        let of_this = |rules: &&[Rule]| rules.first().is_some_and(|rule| rule.syscall == number);
        let asked = asked.next_if(of_this).map(Fate::Asked);
        let fate = decided.map(Fate::Decided).or(asked).unwrap_or(Fate::Decided(default));
        begin(&mut ranges, number, fate);
    }
    let listed = u32::try_from(calls.decided.len()).unwrap_or(u32::MAX);
    begin(&mut ranges, listed, Fate::Decided(default));
    let absent = Fate::Decided(Action::Errno(ENOSYS));
    if let Action::Errno(_) = default {
        begin(&mut ranges, table::LAST + 1, absent);
    }
    if let Some(bit) = table::X32_BIT {
        begin(&mut ranges, bit, if x32 { absent } else { Fate::Decided(Action::KillThread) });
        begin(&mut ranges, SKIPPED, Fate::Decided(default));
    }
    ranges
}

/// The numbers come in order.
fn begin<'a>(ranges: &mut Vec<(u32, Fate<'a>)>, number: u32, fate: Fate<'a>) {
    if ranges.last().is_some_and(|(last, _)| *last == number) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|(_, last)| *last != fate) {
        ranges.push((number, fate));
    }
}

/// How much of the program there was when an instruction had been written: what a jump there skips is what has been
/// written since.
type Label = usize;

struct Assembler {
    default: Action,
    /// The last instruction first.
    code: Vec<Instruction>,
    /// Where each action was returned from last.
    returns: Vec<(Action, Label)>,
}

impl Assembler {
    fn bisect(&mut self, ranges: &[(u32, Fate<'_>)]) -> Label {
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        match (lower, upper) {
            ([], [(_, fate)]) => self.fate(*fate),
            (_, [(border, _), ..]) => {
                let at_or_above = self.bisect(upper);
                let below = self.bisect(lower);
                self.jump(GREATER_OR_EQUAL, *border, at_or_above, below)
            }
            (_, []) => self.leave(self.default), // there is always a range
        }
    }

    fn fate(&mut self, fate: Fate<'_>) -> Label {
        match fate {
            Fate::Decided(action) => self.leave(action),
            Fate::Asked(rules) => {
                let mut next = self.leave(self.default);
                for rule in rules.iter().rev() {
                    let mut holds = self.leave(rule.action);
                    for condition in rule.conditions.iter().rev() {
                        holds = self.condition(condition, holds, next);
                    }
                    next = holds;
                }
                next
            }
        }
    }

    /// An argument is two words, of which the kernel's BPF looks at one at a time.
    fn condition(&mut self, condition: &Condition, yes: Label, no: Label) -> Label {
        let low = ARGUMENTS + 8 * u32::from(condition.argument);
        let words = Words { low, high: low + 4 };
        match condition.comparison {
            Comparison::Equal(value) => self.masked(words, u64::MAX, value, yes, no),
            Comparison::NotEqual(value) => self.masked(words, u64::MAX, value, no, yes),
            Comparison::Masked { mask, value } => self.masked(words, mask, value & mask, yes, no),
            Comparison::GreaterOrEqual(value) => {
                self.above(words, GREATER_OR_EQUAL, value, yes, no)
            }
            Comparison::Less(value) => self.above(words, GREATER_OR_EQUAL, value, no, yes),
            Comparison::Greater(value) => self.above(words, GREATER, value, yes, no),
            Comparison::LessOrEqual(value) => self.above(words, GREATER, value, no, yes),
        }
    }

    fn masked(&mut self, words: Words, mask: u64, value: u64, yes: Label, no: Label) -> Label {
        let mut holds = yes;
        for (word, mask, value) in
            [(words.low, low(mask), low(value)), (words.high, high(mask), high(value))]
        {
            if mask != 0 {
                holds = self.jump(EQUAL, value, holds, no);
                if mask != u32::MAX {
                    holds = self.write(AND, mask);
                }
                holds = self.load(word, holds);
            }
        }
        holds
    }

    /// The high words decide, unless they are the same.
    fn above(&mut self, words: Words, operator: u16, value: u64, yes: Label, no: Label) -> Label {
        let same = self.jump(operator, low(value), yes, no);
        let same = self.load(words.low, same);
        let not_above = self.jump(EQUAL, high(value), same, no);
        let start = self.jump(GREATER, high(value), yes, not_above);
        self.load(words.high, start)
    }

    fn leave(&mut self, action: Action) -> Label {
        let written = self.code.len();
        let known = self.returns.iter_mut().find(|(known, _)| *known == action);
        match known {
            // With room for the tests of some conditions before it.
            Some((_, label)) if written - *label < SKIP_MAX / 2 => *label,
            Some((_, label)) => {
                *label = written + 1;
                self.write(RETURN, action.value())
            }
            None => {
                self.returns.push((action, written + 1));
                self.write(RETURN, action.value())
            }
        }
    }

    /// What is loaded is for the instruction at `then`, which must be the next.
    fn load(&mut self, offset: u32, then: Label) -> Label {
        self.fall_to(then);
        self.write(LOAD, offset)
    }

    fn fall_to(&mut self, label: Label) -> Label {
        match self.code.len() - label {
            0 => label,
            skip => self.write(JUMP, u32::try_from(skip).unwrap_or(u32::MAX)), // INSTRUCTIONS_MAX
        }
    }

    fn jump(&mut self, operator: u16, value: u32, yes: Label, no: Label) -> Label {
        let yes = self.near(yes, 1); // the other may need an instruction in between
        let no = self.near(no, 0);
        let skip = |label: Label| u8::try_from(self.code.len() - label).unwrap_or(u8::MAX); // near
        let (yes, no) = (skip(yes), skip(no));
        self.push(Instruction { code: operator, if_true: yes, if_false: no, value })
    }

    /// A label that a conditional jump reaches, `room` instructions from here.
    fn near(&mut self, label: Label, room: usize) -> Label {
        let is_near = self.code.len() + room - label <= SKIP_MAX;
        if is_near { label } else { self.fall_to(label) }
    }

    fn write(&mut self, code: u16, value: u32) -> Label {
        self.push(Instruction { code, if_true: 0, if_false: 0, value })
    }

    fn push(&mut self, instruction: Instruction) -> Label {
        self.code.push(instruction);
        self.code.len()
    }
}

#[derive(Clone, Copy)]
struct Words {
    low: u32,
    high: u32,
}

#[allow(clippy::cast_possible_truncation)] // the low half is what is wanted
fn low(value: u64) -> u32 {
    value as u32
}

fn high(value: u64) -> u32 {
    low(value >> u32::BITS)
}
