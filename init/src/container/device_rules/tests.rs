//! The compiled program is run by a small interpreter here, and asked what the rules would be asked.

use super::*;

/// What the kernel would answer.
fn ask(rules: &[DeviceRule], kind: i32, major: u32, minor: u32, access: i32) -> bool {
    let program = compile(rules);
    let context = [(access << 16 | kind).cast_unsigned(), major, minor];
    let mut registers = [0_u64; 11];
    let mut at = 0_usize;
    loop {
        let Instruction { code, registers: names, offset, immediate } = program[at];
        let (to, from) = (usize::from(names & 0xf), usize::from(names >> 4));
        let value = i64::from(immediate).cast_unsigned();
        let mut jump = false;
        match code {
            LOAD_WORD => registers[to] = context[usize::try_from(offset / 4).unwrap()].into(),
            MOVE => registers[to] = value,
            MOVE_REGISTER => registers[to] = registers[from],
            AND => registers[to] &= value,
            SHIFT_RIGHT => registers[to] >>= value,
            JUMP_EQUAL => jump = registers[to] == value,
            JUMP_NOT_EQUAL_32 => jump = registers[to] & 0xffff_ffff != value & 0xffff_ffff,
            EXIT => return registers[0] != 0,
            other => panic!("instruction {other:#x}"),
        }
        at += 1 + if jump { usize::try_from(offset).unwrap() } else { 0 };
    }
}

fn rule(
    allow: bool,
    kind: RuleKind,
    major: Option<u32>,
    minor: Option<u32>,
    access: &str,
) -> DeviceRule {
    let access = Access {
        mknod: access.contains('m'),
        read: access.contains('r'),
        write: access.contains('w'),
    };
    DeviceRule { allow, kind, major, minor, access }
}

fn deny_all() -> DeviceRule {
    rule(false, RuleKind::All, None, None, "rwm")
}

#[test]
fn without_rules_the_default_devices_work_and_no_other() {
    let rules = complete(&[], &[], None);
    for (major, minor) in [(1, 3), (1, 9), (5, 0), (5, 2), (136, 0), (136, 4711)] {
        assert!(ask(&rules, CHARACTER, major, minor, READ | WRITE), "c {major}:{minor}");
        assert!(!ask(&rules, BLOCK, major, minor, READ), "b {major}:{minor}");
    }
    for (kind, major, minor) in
        [(BLOCK, 259, 0), (BLOCK, 253, 0), (CHARACTER, 1, 1), (CHARACTER, 10, 229)]
    {
        for access in [MKNOD, READ, WRITE, READ | WRITE] {
            assert!(!ask(&rules, kind, major, minor, access), "{kind} {major}:{minor} {access}");
        }
    }
}

#[test]
fn a_device_of_the_spec_works_unless_a_rule_denies_it() {
    let disk = Device {
        path: "/dev/data".to_owned(),
        kind: DeviceKind::Block { major: 253, minor: 16 },
        mode: 0o600,
        uid: 0,
        gid: 0,
    };
    let devices = [disk];
    assert!(ask(&complete(&devices, &[], None), BLOCK, 253, 16, READ | WRITE | MKNOD));
    assert!(!ask(&complete(&devices, &[deny_all()], None), BLOCK, 253, 16, READ));
    let listed = [deny_all(), rule(true, RuleKind::Block, Some(253), Some(16), "r")];
    assert!(ask(&complete(&devices, &listed, None), BLOCK, 253, 16, READ));
    assert!(!ask(&complete(&devices, &listed, None), BLOCK, 253, 16, READ | WRITE));
}

#[test]
fn the_last_rule_decides_each_access_for_itself() {
    let rules = [
        rule(true, RuleKind::Character, Some(10), None, "r"),
        rule(true, RuleKind::Character, Some(10), Some(1), "w"),
        rule(false, RuleKind::Character, Some(10), Some(2), "r"),
    ];
    assert!(ask(&rules, CHARACTER, 10, 1, READ | WRITE));
    assert!(!ask(&rules, CHARACTER, 10, 1, READ | WRITE | MKNOD));
    assert!(ask(&rules, CHARACTER, 10, 3, READ));
    assert!(!ask(&rules, CHARACTER, 10, 2, READ));
    assert!(!ask(&rules, CHARACTER, 11, 1, READ));
}

#[test]
fn a_privileged_container_gets_all_but_the_guests_root() {
    let all = [rule(true, RuleKind::All, None, None, "rwm")];
    let rules = complete(&[], &all, Some((259, 0)));
    assert!(ask(&rules, BLOCK, 259, 1, READ | WRITE | MKNOD));
    assert!(ask(&rules, CHARACTER, 4_000_000_000, 1, READ));
    for access in [MKNOD, READ, WRITE, READ | WRITE] {
        assert!(!ask(&rules, BLOCK, 259, 0, access), "{access}");
    }
}

#[test]
fn no_rule_at_all_allows_nothing() {
    assert!(!ask(&[], CHARACTER, 1, 3, READ));
}

/// What the rules say, read as prose: the last one that speaks of an access decides it.
fn decide(rules: &[DeviceRule], kind: i32, major: u32, minor: u32, access: i32) -> bool {
    [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        let speaks = |rule: &&DeviceRule| {
            let of_kind = match rule.kind {
                RuleKind::All => true,
                RuleKind::Character => kind == CHARACTER,
                RuleKind::Block => kind == BLOCK,
            };
            of_kind
                && rule.major.is_none_or(|wanted| wanted == major)
                && rule.minor.is_none_or(|wanted| wanted == minor)
                && access_bits(rule.access) & bit != 0
        };
        rules.iter().rev().find(speaks).is_some_and(|rule| rule.allow)
    })
}

/// Few values and many rules, so that neighbours share tests in all ways.
fn some_rules(seed: u64) -> Vec<DeviceRule> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |bound: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let number = |drawn: u64| u32::try_from(drawn).unwrap().checked_sub(1);
    (0..below(12))
        .map(|_| {
            let kind = [RuleKind::All, RuleKind::Character, RuleKind::Block];
            let kind = kind[usize::try_from(below(3)).unwrap()];
            let access = ["r", "w", "m", "rw", "rwm", "rwm"][usize::try_from(below(6)).unwrap()];
            rule(below(2) == 0, kind, number(below(3)), number(below(3)), access)
        })
        .collect()
}

#[test]
fn the_program_says_what_the_rules_say() {
    for seed in 0..500 {
        let rules = some_rules(seed);
        for kind in [BLOCK, CHARACTER] {
            for (major, minor) in [(0, 0), (0, 1), (1, 0), (1, 1), (7, 7)] {
                for access in 1..=7 {
                    assert_eq!(
                        ask(&rules, kind, major, minor, access),
                        decide(&rules, kind, major, minor, access),
                        "{kind} {major}:{minor} {access} of {rules:?}"
                    );
                }
            }
        }
    }
}

/// The kernel refuses a program in which something is never reached, or that runs over its end.
#[test]
fn all_of_a_program_is_reached() {
    for seed in 0..500 {
        let program = compile(&some_rules(seed));
        let mut reached = vec![false; program.len()];
        let mut open = vec![0];
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut reached[at], true) {
                continue;
            }
            match program[at].code {
                EXIT => {}
                JUMP_EQUAL | JUMP_NOT_EQUAL_32 => {
                    open.extend([at + 1, at + 1 + usize::try_from(program[at].offset).unwrap()]);
                }
                _ => open.push(at + 1),
            }
        }
        assert!(reached.iter().all(|reached| *reached), "{:?}", some_rules(seed));
    }
}

#[test]
fn thousands_of_rules_for_one_kind_are_jumped_over() {
    let one = |minor| rule(true, RuleKind::Character, Some(9), Some(minor), "r");
    let rules: Vec<DeviceRule> = (0..9000).map(one).collect();
    assert!(ask(&rules, CHARACTER, 9, 0, READ) && ask(&rules, CHARACTER, 9, 8999, READ));
    assert!(!ask(&rules, BLOCK, 9, 0, READ) && !ask(&rules, CHARACTER, 9, 9000, READ));
}
