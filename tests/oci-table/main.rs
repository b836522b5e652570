//! Is docs/oci.md whole? Needs no VM: reads the table, the list of the specification's fields, and the tests' sources.
//!
//! `fields.txt` is the list: each property that the OCI runtime-spec 1.3 defines for a config.json, `[]` for an item of a
//! list, `.*` for a value of an object whose keys are free. Other platforms are one property each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a failed test panics

#[path = "../pages/mod.rs"]
mod pages;
mod probe;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use table::{Row, Status, rows};

const FIELDS: &str = include_str!("fields.txt");

/// The real page has a row for every field, and none for a field that the specification does not have.
#[test]
fn every_field_of_the_specification_has_one_row() {
    assert_eq!(gaps(&rows(table::PAGE).unwrap()), Vec::<String>::new());
}

/// A page that lacks a field, has it twice, or invents one is caught.
#[test]
fn a_gap_is_caught() {
    let mut page = rows(table::PAGE).unwrap();
    let gone = page.pop().unwrap();
    assert_eq!(gaps(&page), [format!("{}: no row", gone.fields[0])]);
    page.push(gone.clone());
    page.push(gone);
    assert!(gaps(&page)[0].ends_with("two rows"));
    page.pop();
    page[0].fields = vec!["ociVersion".into(), "invented".into()];
    assert_eq!(gaps(&page), ["invented: not in the specification"]);
}

/// What is wrong with the fields of the rows.
fn gaps(page: &[Row]) -> Vec<String> {
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for field in page.iter().flat_map(|row| &row.fields) {
        *found.entry(field).or_default() += 1;
    }
    let known: BTreeSet<&str> = FIELDS.lines().collect();
    let missing = known.iter().filter(|field| !found.contains_key(*field));
    let invented = found.keys().filter(|field| !known.contains(*field));
    let doubled = found.iter().filter(|(_, count)| **count > 1).map(|(field, _)| field);
    missing
        .map(|field| format!("{field}: no row"))
        .chain(invented.map(|field| format!("{field}: not in the specification")))
        .chain(doubled.map(|field| format!("{field}: two rows")))
        .collect()
}

/// Every row says how it is honoured, or why it is not.
#[test]
fn every_row_that_is_not_honoured_says_why() {
    for row in rows(table::PAGE).unwrap() {
        assert!(row.status == Status::Honoured || !row.how.is_empty(), "{row:?}");
    }
}

/// Each test that the page names is there, and looks at the probe's check that is said with it.
#[test]
fn every_test_that_is_named_exists() {
    assert_eq!(absent(&rows(table::PAGE).unwrap(), &pages::tests()), Vec::<String>::new());
}

/// What is named in the other tables and in sentences is there too.
#[test]
fn every_test_that_is_named_elsewhere_exists() {
    let tests = pages::tests();
    let gone = |page: &str| -> Vec<String> {
        let named = page.lines().flat_map(pages::quoted);
        let named = named.filter(|name| name.contains("::") && !name.ends_with("::"));
        named.filter(|name| !tests.contains_key(name.split('#').next().unwrap())).collect()
    };
    assert_eq!(gone(table::PAGE), Vec::<String>::new());
    assert_eq!(gone("see `bundle::gone`, `init::` and `a`"), ["bundle::gone"]);
}

/// A test that was renamed, or that does not have the twin, is caught.
#[test]
fn a_test_that_is_not_there_is_caught() {
    let page = format!(
        "{}\n|---|\n| `root` | honoured | | `m::right` | `m::right#root.readonly` `m::gone` `m::right#other` |\n",
        table::HEADER
    );
    let body = "wrong(\"root.readonly\")".to_owned();
    let tests = BTreeMap::from([("m::right".to_owned(), body)]);
    assert_eq!(absent(&rows(&page).unwrap(), &tests), ["m::gone", "m::right#other"]);
}

/// The named tests that do not exist.
fn absent(page: &[Row], tests: &BTreeMap<String, String>) -> Vec<String> {
    let exists = |name: &&String| match name.split_once('#') {
        None => tests.contains_key(name.as_str()),
        Some((name, check)) => {
            tests.get(name).is_some_and(|body| body.contains(&format!("\"{check}\"")))
        }
    };
    let named = page.iter().flat_map(|row| row.cases.iter().chain(&row.twins));
    named.filter(|name| !exists(name)).cloned().collect()
}

/// A row that is honoured names a case and a twin that is caught, one that is refused a test that sees the refusal.
#[test]
fn every_row_is_shown() {
    assert_eq!(unshown(&rows(table::PAGE).unwrap(), &pages::tests()), Vec::<String>::new());
}

/// A row without a case, without a twin, or refused by a test that does not know its name is caught.
#[test]
fn a_row_that_is_not_shown_is_caught() {
    let row = |status, cases: &[&str], twins: &[&str]| Row {
        fields: vec!["linux.intelRdt".into(), "linux.intelRdt.closID".into()],
        status,
        how: String::new(),
        cases: cases.iter().map(|&case| case.to_owned()).collect(),
        twins: twins.iter().map(|&twin| twin.to_owned()).collect(),
    };
    let body = |text: &str| (text.to_owned(), format!("(\"{text}\", 1)"));
    let tests = BTreeMap::from([body("linux.intelRdt"), body("other")]);
    let unshown = |row: Row| unshown(&[row], &tests);
    assert!(unshown(row(Status::Honoured, &["other"], &["other"])).is_empty());
    assert!(unshown(row(Status::Refused, &["linux.intelRdt"], &[])).is_empty());
    assert!(unshown(row(Status::NotApplicable, &[], &[])).is_empty());
    assert_eq!(unshown(row(Status::Honoured, &[], &["other"])), ["linux.intelRdt: no case"]);
    assert_eq!(unshown(row(Status::Honoured, &["other"], &[])), ["linux.intelRdt: no wrong twin"]);
    for cases in [&[][..], &["other"], &["gone"]] {
        let found = unshown(row(Status::Refused, cases, &[]));
        assert_eq!(found, ["linux.intelRdt: no test of the refusal"]);
    }
}

/// What rows lack.
fn unshown(page: &[Row], tests: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for row in page {
        let field = &row.fields[0];
        let name = field.trim_end_matches("[]").trim_end_matches(".*");
        let is_refused_by =
            |case: &String| tests.get(case).is_some_and(|body| body.contains(&format!("\"{name}")));
        match row.status {
            Status::Honoured if row.cases.is_empty() => found.push(format!("{field}: no case")),
            Status::Honoured if row.twins.is_empty() => {
                found.push(format!("{field}: no wrong twin"));
            }
            Status::Refused if !row.cases.iter().any(is_refused_by) => {
                found.push(format!("{field}: no test of the refusal"));
            }
            Status::Honoured | Status::Refused | Status::NotApplicable => {}
        }
    }
    found
}

/// Each check of the probe has been seen to fail: a case has a twin for it.
#[test]
fn every_check_of_the_probe_has_a_twin() {
    let (checks, cases) = (probe::checks(), probe::conformance());
    assert!(checks.len() > 50, "{checks:?}");
    assert_eq!(without_twin(&checks, &cases), Vec::<String>::new());
    let invented = [checks, vec!["linux.invented".to_owned()]].concat();
    assert_eq!(
        without_twin(&invented, &cases),
        ["linux.invented"],
        "a check without one is caught"
    );
}

fn without_twin(checks: &[String], cases: &str) -> Vec<String> {
    let has = |check: &&String| {
        !cases.contains(&format!("\"{check}\"")) && !cases.contains(&format!("\"{check}: "))
    };
    checks.iter().filter(has).cloned().collect()
}
