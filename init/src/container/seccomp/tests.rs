//! A program is run by a small interpreter here, as the kernel would run it.

use super::program::{AND, EQUAL, GREATER, GREATER_OR_EQUAL, JUMP, LOAD, RETURN};
use super::*;

/// What the filter answers to a call; a program that the kernel would not take is a panic.
pub fn answer(filter: &Filter, architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap();
    let mut data = vec![number, architecture, 0, 0];
    data.extend(arguments.iter().flat_map(|value| [low(*value), low(*value >> 32)]));
    let (mut at, mut register) = (0, 0);
    loop {
        let Instruction { code, if_true, if_false, value } = filter.program[at];
        let word = usize::try_from(value).unwrap();
        at += 1;
        let holds = match code {
            LOAD => {
                register = data[word / 4];
                continue;
            }
            AND => {
                register &= value;
                continue;
            }
            JUMP => {
                at += word;
                continue;
            }
            RETURN => return value,
            EQUAL => register == value,
            GREATER => register > value,
            GREATER_OR_EQUAL => register >= value,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { if_true } else { if_false });
    }
}

fn rule(syscall: u32, action: Action, conditions: &[(u8, Comparison)]) -> Rule {
    let condition = |(argument, comparison): &(u8, Comparison)| Condition {
        argument: *argument,
        comparison: *comparison,
    };
    Rule { syscall, action, conditions: conditions.iter().map(condition).collect() }
}

fn profile(default: Action, rules: Vec<Rule>) -> Seccomp {
    Seccomp { default, flags: FilterFlags::default(), x32: false, rules }
}

fn ask(filter: &Filter, number: u32) -> u32 {
    answer(filter, table::ARCHITECTURE, number, [0; 6])
}

/// The only thing in which we differ from libseccomp.
#[test]
fn a_call_that_is_none_is_enosys_where_the_default_is_an_errno() {
    let absent = Action::Errno(38).value();
    let some = vec![rule(1, Action::Allow, &[])];
    let filter = Filter::compile(profile(Action::Errno(1), some.clone())).unwrap();
    assert_eq!(ask(&filter, table::LAST), Action::Errno(1).value());
    assert_eq!((ask(&filter, table::LAST + 1), ask(&filter, 100_000)), (absent, absent));
    for default in [Action::KillThread, Action::Log, Action::Trace(1)] {
        let filter = Filter::compile(profile(default, some.clone())).unwrap();
        assert_eq!(ask(&filter, table::LAST + 1), default.value());
    }
}

/// Listed or not, a call of x32 does nothing.
#[test]
fn x32_is_killed_unless_it_is_listed() {
    let Some(bit) = table::X32_BIT else { return };
    for (x32, expected) in [(false, Action::KillThread), (true, Action::Errno(38))] {
        let profile = Seccomp { x32, ..profile(Action::Allow, Vec::new()) };
        let filter = Filter::compile(profile).unwrap();
        assert_eq!(ask(&filter, bit + 1), expected.value());
        assert_eq!(ask(&filter, u32::MAX), Action::Allow.value(), "a tracer's -1 is none of x32");
    }
}

#[test]
fn two_actions_for_the_same_arguments_are_refused() {
    let five = [(0, Comparison::Equal(5))];
    let rules = vec![rule(0, Action::Allow, &five), rule(0, Action::Trap, &five)];
    let err = Filter::compile(profile(Action::Errno(1), rules.clone())).unwrap_err();
    assert_eq!(err.code(), Code::InvalidArgument);
    assert!(err.message().starts_with("linux.seccomp: syscalls: \"read\" has two"), "{err}");
    let same = vec![rules[0].clone(), rules[0].clone()];
    Filter::compile(profile(Action::Errno(1), same)).unwrap();
}

/// BPF_MAXINSNS; the kernel would say EINVAL.
#[test]
fn a_program_that_is_too_long_is_refused() {
    let rules = |count| {
        (0..count).map(|at| rule(0, Action::Allow, &[(0, Comparison::Equal(at))])).collect()
    };
    let fits = Filter::compile(profile(Action::Errno(1), rules(1000))).unwrap();
    assert!((3900..=4096).contains(&fits.program.len()), "{}", fits.program.len());
    let err = Filter::compile(profile(Action::Errno(1), rules(1100))).unwrap_err();
    assert_eq!(err.code(), Code::ResourceExhausted);
}

/// An allow-list of hundreds of calls is searched in steps, not walked through.
#[test]
fn a_call_is_found_in_few_steps() {
    let rules = (0..400).filter(|number| number % 5 != 0);
    let rules = rules.map(|number| rule(number, Action::Allow, &[])).collect();
    let filter = Filter::compile(profile(Action::Errno(1), rules)).unwrap();
    assert!(filter.program.len() < 200, "{}", filter.program.len());
    for number in 0..400 {
        let expected = if number % 5 == 0 { Action::Errno(1) } else { Action::Allow };
        assert_eq!(ask(&filter, number), expected.value(), "{number}");
    }
}
