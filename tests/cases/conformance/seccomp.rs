//! `linux.seccomp`, by calls that are made. What a profile comes to on a table of cases is in `seccomp.rs` beside this
//! directory; here are the fields of a config.json.

use harness::bundle::{put, take};
use serde_json::{Value, json};

use super::{conforms, other, wrong};

/// Every action but NOTIFY, every operator, several rules; errnos that no call gives by itself.
fn profile() -> Value {
    let rule = |name: &str, action: &str| json!({ "names": [name], "action": action });
    let errno = |name: &str, errno: u32| json!({ "names": [name, "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno });
    let with = |mut rule: Value, args: Value| {
        rule["args"] = args;
        rule
    };
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            errno("mkdir", 121),
            rule("alarm", "SCMP_ACT_KILL_PROCESS"),
            rule("getpgid", "SCMP_ACT_TRAP"),
            rule("chmod", "SCMP_ACT_LOG"),
            rule("getppid", "SCMP_ACT_TRACE"),
            with(errno("personality", 122), json!([{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }])),
            with(errno("socket", 123), json!([
                { "index": 0, "value": 40, "op": "SCMP_CMP_GE" },
                { "index": 1, "value": 0xf, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ" },
            ])),
            with(errno("umask", 124), json!([{ "index": 0, "value": 7, "op": "SCMP_CMP_GT" }])),
            with(errno("setns", 125), json!([{ "index": 1, "value": 5, "op": "SCMP_CMP_LT" }])),
            with(errno("getpriority", 126), json!([{ "index": 0, "value": 0, "op": "SCMP_CMP_NE" }])),
            with(errno("syslog", 127), json!([{ "index": 3, "value": 9, "op": "SCMP_CMP_LE" }])),
        ],
    })
}

/// Each rule is met and missed.
#[test]
fn calls_are_those_of_the_config() {
    const RULES: &str = "/linux/seccomp/syscalls";
    let at = |rest: &str| -> &'static str { format!("{RULES}{rest}").leak() };
    let differs = |rest: &str, value: Value| other(&["linux.seccomp"], at(rest), value);
    conforms(
        |config| put(config, "/linux/seccomp", profile()),
        &[
            other(
                &["linux.seccomp"],
                "/linux/seccomp/defaultAction",
                json!("SCMP_ACT_KILL_PROCESS"),
            ),
            wrong(&["linux.seccomp"], |config| {
                put(config, "/linux/seccomp/defaultAction", json!("SCMP_ACT_ERRNO"));
                put(config, "/linux/seccomp/defaultErrnoRet", json!(120));
            }),
            wrong(&["linux.seccomp"], |config| take(config, "/linux/seccomp")),
            differs("/0/names/0", json!("unshare")),
            differs("/0/errnoRet", json!(95)),
            differs("/1/action", json!("SCMP_ACT_ALLOW")),
            differs("/2/action", json!("SCMP_ACT_LOG")),
            differs("/3/action", json!("SCMP_ACT_ERRNO")),
            differs("/4/action", json!("SCMP_ACT_ALLOW")),
            differs("/5/args/0/value", json!(9)),
            differs("/5/args/0/index", json!(1)),
            differs("/6/args/0/op", json!("SCMP_CMP_GT")),
            differs("/6/args/1/valueTwo", json!(2)),
            differs("/6/args", json!([])),
            differs("/7/args/0/op", json!("SCMP_CMP_GE")),
            differs("/8/args/0/value", json!(6)),
            differs("/9/args/0/op", json!("SCMP_CMP_EQ")),
            differs("/10/args/0/op", json!("SCMP_CMP_LT")),
        ],
    );
}

/// What is said by default is what is not named; and no profile is none.
#[test]
fn default_of_a_profile_is_that_of_the_config() {
    conforms(
        |_| {},
        &[other(
            &["linux.seccomp"],
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW" }),
        )],
    );
}
