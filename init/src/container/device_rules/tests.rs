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
