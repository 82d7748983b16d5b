//! Figures for people and machines.

mod html;
mod markdown;
mod matrix;
mod step;
mod summary;
mod svg;
mod table;
mod timeline;

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::{Context as _, Result};

pub(crate) use html::page;
pub(crate) use markdown::{bench_page, machine};
pub(crate) use matrix::{
    MatrixReport, MatrixRow, Outcome, matrix_markdown, matrix_page, matrix_table,
};
pub use step::{DemoReport, StepReport};
pub use summary::{FamilySummary, LossSummary, Resident, Spread, StepsSummary, Summary};
pub(crate) use summary::{budgets, losses, summarise};
pub(crate) use table::{demo_table, table};
pub(crate) use timeline::timeline;

/// Fails when nothing can be written to `path`: whoever measures for long finds that out before. A file
/// that is there stays as it is, and none is made.
pub(crate) fn check_writable(path: &Path) -> Result<()> {
    let is_new = std::fs::symlink_metadata(path).is_err();
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened
        .map(drop)
        .and_then(|()| match is_new {
            true => std::fs::remove_file(path),
            false => Ok(()),
        })
        .with_context(|| format!("the report cannot be written to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_found_out_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (there, fresh) = (dir.path().join("there"), dir.path().join("fresh"));
        std::fs::write(&there, "a report").unwrap();
        check_writable(&there).unwrap();
        assert_eq!(std::fs::read_to_string(&there).unwrap(), "a report");
        check_writable(&fresh).unwrap();
        assert!(!fresh.exists());
        for bad in [dir.path().to_owned(), dir.path().join("nowhere/page.html")] {
            let error = check_writable(&bad).unwrap_err();
            let named = format!("written to {}", bad.display());
            assert!(error.to_string().contains(&named), "{error}");
        }
    }
}
