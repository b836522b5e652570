//! Is docs/api.md whole and true? Needs no VM: reads the page, the wire's list of methods, PID 1's tables of what it
//! serves, and the tests' sources.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a failed test panics

mod faces;
#[path = "../pages/mod.rs"]
mod pages;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use faces::{Face, faces};
use table::{PAGE, Row, Status, rows};

const WIRE: &str = include_str!("../../protocol/tests/wire.txt");

/// `grpc.AgentService` `CreateContainer`.
type Method = (String, String);

/// The methods of the services that a guest has.
fn methods() -> BTreeSet<Method> {
    let served = ["grpc.AgentService", "grpc.Health", "hyperstart.v1.Guest"];
    let words = WIRE.lines().filter_map(|line| line.strip_prefix("rpc "));
    let methods = words.map(|line| {
        let mut words = line.split(' ').map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    });
    methods.filter(|(service, _)| served.contains(&service.as_str())).collect()
}

/// The real page has one row a method, and none for a method that there is not.
#[test]
fn every_method_has_one_row() {
    let wire = methods();
    assert_eq!(wire.len(), 42 + 2 + 13);
    assert_eq!(gaps(&rows(PAGE).unwrap(), &wire), Vec::<String>::new());
}

/// A page that lacks a method, has it twice, or invents one is caught.
#[test]
fn a_gap_is_caught() {
    let wire = methods();
    let mut page = rows(PAGE).unwrap();
    let gone = page.pop().unwrap();
    assert_eq!(gaps(&page, &wire), [format!("{}: no row", gone.method)]);
    page.extend([gone.clone(), gone.clone()]);
    assert_eq!(gaps(&page, &wire), [format!("{}: two rows", gone.method)]);
    page.pop();
    page.push(Row { method: "Invented".into(), ..gone });
    assert_eq!(gaps(&page, &wire), ["Invented: not on the wire"]);
}

/// What is wrong with the methods of the rows.
fn gaps(page: &[Row], wire: &BTreeSet<Method>) -> Vec<String> {
    let mut found: BTreeMap<Method, usize> = BTreeMap::new();
    for row in page {
        *found.entry((row.service.clone(), row.method.clone())).or_default() += 1;
    }
    let missing = wire.iter().filter(|method| !found.contains_key(*method));
    let invented = found.keys().filter(|method| !wire.contains(*method));
    let doubled = found.iter().filter(|(_, count)| **count > 1).map(|(method, _)| method);
    missing
        .map(|(_, method)| format!("{method}: no row"))
        .chain(invented.map(|(_, method)| format!("{method}: not on the wire")))
        .chain(doubled.map(|(_, method)| format!("{method}: two rows")))
        .collect()
}

/// Each row says what PID 1 does: served by that file, or refused.
#[test]
fn every_row_is_what_the_guest_does() {
    assert_eq!(lies(&rows(PAGE).unwrap(), &faces()), Vec::<String>::new());
}

/// A row that says served of what is refused, or the other way round, or names another file, is caught; and so is a method
/// that the guest neither serves nor refuses, or both.
#[test]
fn a_lie_is_caught() {
    let face = |text: &str| Face::parse("s", "init/src/server/kata/mod.rs", text);
    let served = [face("t.serve(\"A\", container::a)")];
    let refused = [face("const NOT_SERVED: &[&str] = &[\n    \"A\",\n];")];
    let row = |status, file: &str| {
        let (service, method, files) = ("s".into(), "A".into(), vec![file.to_owned()]);
        Row { service, method, status, files, tests: Vec::new(), how: "why".into() }
    };
    let file = "init/src/server/kata/container.rs";
    assert!(lies(&[row(Status::Served, file)], &served).is_empty());
    assert!(lies(&[row(Status::Refused, "")], &refused).is_empty());
    assert_eq!(lies(&[row(Status::Served, file)], &refused), ["A: it is refused"]);
    assert_eq!(lies(&[row(Status::Refused, file)], &served), ["A: it is served"]);
    let other = "init/src/server/kata/stdio.rs";
    assert_eq!(lies(&[row(Status::Served, other)], &served), [format!("A: served by {file}")]);
    let both = [face("t.serve(\"A\", container::a)\nconst NOT_SERVED: &[&str] = &[\"A\"];")];
    assert_eq!(lies(&[row(Status::Served, file)], &both), ["A: served and refused"]);
    assert_eq!(lies(&[row(Status::Served, file)], &[]), ["A: neither served nor refused"]);
}

fn lies(page: &[Row], faces: &[Face]) -> Vec<String> {
    let mut found = Vec::new();
    for row in page {
        let face = faces.iter().find(|face| face.service == row.service);
        let served = face.and_then(|face| face.served.get(&row.method));
        let refused = face.is_some_and(|face| face.refused.contains(&row.method));
        let lie = match (served, refused, row.status) {
            (Some(_), true, _) => "served and refused".to_owned(),
            (None, false, _) => "neither served nor refused".to_owned(),
            (Some(_), false, Status::Refused | Status::NeverCalled) => "it is served".to_owned(),
            (None, true, Status::Served) => "it is refused".to_owned(),
            (Some(file), false, Status::Served) if !row.files.contains(file) => {
                format!("served by {file}")
            }
            (Some(_), false, Status::Served)
            | (None, true, Status::Refused | Status::NeverCalled) => continue,
        };
        found.push(format!("{}: {lie}", row.method));
    }
    found
}

/// Each row is tested, and its files and tests are there; what is not served has a reason.
#[test]
fn every_row_is_shown() {
    assert_eq!(unshown(&rows(PAGE).unwrap(), &pages::tests()), Vec::<String>::new());
}

/// A row without a test, with one that is not there or is no case, with a file that is not there, or without a reason is
/// caught.
#[test]
fn a_row_that_is_not_shown_is_caught() {
    let tests = BTreeMap::from([("m::t".to_owned(), String::new())]);
    let row = |status, file: &str, test: &[&str], how: &str| Row {
        service: "s".into(),
        method: "A".into(),
        status,
        files: vec![file.to_owned()],
        tests: test.iter().map(|&test| test.to_owned()).collect(),
        how: how.into(),
    };
    let file = "init/src/main.rs";
    assert!(unshown(&[row(Status::Served, file, &["m::t"], "")], &tests).is_empty());
    assert_eq!(unshown(&[row(Status::Served, file, &[], "")], &tests), ["A: no test"]);
    assert_eq!(unshown(&[row(Status::Served, file, &["m::g"], "")], &tests), ["A: no test m::g"]);
    assert_eq!(unshown(&[row(Status::Served, "init/x", &["m::t"], "")], &tests), ["A: no init/x"]);
    assert_eq!(unshown(&[row(Status::Refused, file, &["m::t"], "")], &tests), ["A: no reason"]);
}

fn unshown(page: &[Row], tests: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for row in page {
        let mut say = |what: String| found.push(format!("{}: {what}", row.method));
        if row.tests.is_empty() {
            say("no test".to_owned());
        }
        for test in row.tests.iter().filter(|test| !tests.contains_key(*test)) {
            say(format!("no test {test}"));
        }
        for file in row.files.iter().filter(|file| !faces::workspace().join(file).is_file()) {
            say(format!("no {file}"));
        }
        if row.status != Status::Served && row.how.is_empty() {
            say("no reason".to_owned());
        }
    }
    found
}

/// What sentences and other tables name is there too: tests by their names, files by their links.
#[test]
fn what_is_named_elsewhere_exists() {
    let tests = pages::tests();
    let named = PAGE
        .lines()
        .flat_map(pages::quoted)
        .filter(|name| name.contains("::") && !name.ends_with("::"));
    let gone: Vec<String> = named.filter(|name| !tests.contains_key(name)).collect();
    assert_eq!(gone, Vec::<String>::new());
    let docs = faces::workspace().join("docs");
    let links = PAGE.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let links = links.filter(|link| !link.is_empty() && !link.starts_with("http"));
    let gone: Vec<&str> = links.filter(|link| !docs.join(link).exists()).collect();
    assert_eq!(gone, Vec::<&str>::new());
}
