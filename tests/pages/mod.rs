//! What the tests of the pages in `docs/` share: the tests that there are, and the words that a page names them by.

mod sources;

pub use sources::tests;

/// What stands between backquotes.
pub fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
