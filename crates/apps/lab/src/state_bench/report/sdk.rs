//! The row `sdk`.

use super::super::rows::{Figures, SdkFigures};
use super::{Spread, table};

/// Its table. Nobody else has such a thing, which is what the rival's column says.
pub(super) fn table_of(figures: &[Figures]) -> String {
    let of = |figures: &Figures| match figures {
        Figures::Sdk(figures) => Some(figures.clone()),
        _ => None,
    };
    let rows: Vec<_> = figures
        .iter()
        .filter_map(of)
        .flat_map(|sdk| rows(&sdk))
        .collect();
    let head = ["a function's own state", "vnfpool", "conntrackd"];
    table("The SDK", &head, &rows)
}

fn rows(sdk: &SdkFigures) -> Vec<Vec<String>> {
    let row = |what: String, value: String| vec![what, value, "—".to_owned()];
    let rounds = sdk.rounds;
    vec![
        row(
            format!("puts/s at `bounded`, held by the standby, {rounds} rounds"),
            spread(sdk.puts_per_s, 0),
        ),
        row(
            "keys of which the standby lacks the last value".to_owned(),
            sdk.keys_wrong.to_string(),
        ),
        row(
            format!(
                "commits/s at `commit`, {} callers on one connection, {rounds} rounds",
                sdk.callers
            ),
            spread(sdk.commits_per_s, 0),
        ),
        row(
            format!("put and commit, ms, {} of them", sdk.commits),
            spread(sdk.commit_ms, 3),
        ),
        row(
            "commits not held, puts missing at the standby, troubles".to_owned(),
            format!(
                "{}, {}, {}",
                sdk.not_held, sdk.commits_missing, sdk.troubles
            ),
        ),
    ]
}

/// min / median / p99 / max.
fn spread(spread: Option<Spread>, decimals: usize) -> String {
    let all = |s: Spread| {
        [s.min, s.p50, s.p99, s.max]
            .map(|value| format!("{value:.decimals$}"))
            .join(" / ")
    };
    spread.map_or_else(|| "–".to_owned(), all)
}
