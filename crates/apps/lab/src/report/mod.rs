//! Figures for people and machines.

mod html;
mod markdown;
mod matrix;
mod step;
mod summary;
mod svg;
mod table;
mod timeline;

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
