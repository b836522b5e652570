//! Every field of a bundle's config.json as its container sees it, and for each a wrong expectation that the same check
//! must catch.
//!
//! A case runs one bundle by `hyperctl run --bundle`. Its process is `probe conform` with a list of expectations: the
//! config itself, which must hold throughout, and its wrong twins. A twin says something else than the config in one
//! thing, and exactly the checks that are named for it must fail. Where no expectation could say what is wrong, since
//! the container has it by default, the container breaks it first.

mod identity;
mod linux;
mod mounts;
mod process;
mod refused;
mod resources;
mod seccomp;

use std::collections::{BTreeMap, BTreeSet};

use harness::bundle::{Bundle, put};
use harness::command::{Place, Said};
use serde_json::Value;

/// A change of an expectation, and the checks that it must make fail.
struct Twin {
    fails: &'static [&'static str],
    change: Box<dyn Fn(&mut Value)>,
}

/// A twin that must fail one check or a few that look at one thing.
fn wrong(fails: &'static [&'static str], change: impl Fn(&mut Value) + 'static) -> Twin {
    Twin { fails, change: Box::new(change) }
}

/// A twin that has another value at a JSON pointer.
fn other(fails: &'static [&'static str], pointer: &'static str, value: Value) -> Twin {
    wrong(fails, move |config| put(config, pointer, value.clone()))
}

/// Runs the bundle that `change` makes, against itself and against its twins.
fn conforms(change: impl Fn(&mut Value), twins: &[Twin]) {
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    change(&mut bundle.config);
    let said = check(&place, &mut bundle, twins, "");
    assert!(said.stderr.is_empty(), "{said:#?}");
    place.assert_nothing_left();
}

/// Has the probe look, after a shell has run `sabotage` if there is one.
fn check(place: &Place, bundle: &mut Bundle, twins: &[Twin], sabotage: &str) -> Said {
    let files: Vec<String> = ["right".to_owned()]
        .into_iter()
        .chain((0..twins.len()).map(|index| format!("wrong-{index}")))
        .map(|name| format!("/expect/{name}.json"))
        .collect();
    let args = [vec!["/probe".to_owned(), "conform".to_owned()], files].concat();
    put(&mut bundle.config, "/process/args", args.clone().into());
    bundle.expect("right", &bundle.config);
    for (index, twin) in twins.iter().enumerate() {
        let mut config = bundle.config.clone();
        (twin.change)(&mut config);
        assert_ne!(config, bundle.config, "twin {:?} is no other", twin.fails);
        bundle.expect(&format!("wrong-{index}"), &config);
    }
    if !sabotage.is_empty() {
        let script = format!("{sabotage}; exec {}", args.join(" "));
        put(&mut bundle.config, "/process/args", vec!["/bin/sh", "-c", &script].into());
    }
    let said = bundle.run(place);
    let mut verdicts = verdicts(&said);
    let right = verdicts.remove("/expect/right.json").unwrap_or_else(|| panic!("{said:#?}"));
    if sabotage.is_empty() {
        assert!(right.failed.is_empty(), "{:#?}", right.lines);
    }
    let mut failures = right.failed.len();
    for (index, twin) in twins.iter().enumerate() {
        let path = format!("/expect/wrong-{index}.json");
        let verdict = verdicts.remove(&path).unwrap_or_else(|| panic!("{path}: {said:#?}"));
        let expected: BTreeSet<String> = twin.fails.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(verdict.failed, expected, "twin {index}: {:#?}", verdict.lines);
        failures += verdict.failed.len();
    }
    assert_eq!(said.code, i32::try_from(failures.min(98)).unwrap(), "{said:#?}");
    said
}

/// What the probe found of one expectation.
#[derive(Default)]
struct Verdict {
    checks: usize,
    failed: BTreeSet<String>,
    /// Of the failures, as they were said.
    lines: Vec<String>,
}

/// Of the probe's output, by expectation. Each has as many checks as it announces.
fn verdicts(said: &Said) -> BTreeMap<String, Verdict> {
    let mut all: BTreeMap<String, Verdict> = BTreeMap::new();
    let mut current = String::new();
    let mut planned = 0;
    for line in said.stdout.lines() {
        if let Some(path) = line.strip_prefix("# ") {
            current = path.to_owned();
        } else if let Some(count) = line.strip_prefix("1..") {
            planned = count.parse().unwrap();
        } else {
            let verdict = all.entry(current.clone()).or_default();
            verdict.checks += 1;
            if let Some(failure) = line.strip_prefix("not ok ") {
                let name = failure.split_once(" - ").unwrap().1.split(": ").next().unwrap();
                verdict.failed.insert(name.to_owned());
                verdict.lines.push(line.to_owned());
            } else {
                assert!(line.starts_with("ok "), "{line:?} in {said:#?}");
            }
        }
    }
    assert!(all.values().all(|verdict| verdict.checks == planned), "{said:#?}");
    all
}
