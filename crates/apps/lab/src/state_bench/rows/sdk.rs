//! A function's own state: puts that the standby holds, and commits.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::super::bed::per_second;
use super::super::subject::Kind;
use super::{Figures, Run};
use crate::clock::Nanos;
use crate::namespaces::Gateway;
use crate::report::Spread;
use crate::signals;
use crate::system::{Scene, System as _};
use crate::vnfpool::{LoadSize, Profile, Vnfpool};

const SIZE: LoadSize = LoadSize {
    rounds: 5,
    round: Duration::from_secs(2),
    callers: 32,
};
const QUICK_SIZE: LoadSize = LoadSize {
    rounds: 2,
    round: Duration::from_millis(200),
    callers: 32,
};
/// What a start leaves to do is done by then.
const SETTLING: Duration = Duration::from_millis(500);
/// Beyond its rounds: for what is compared at the end.
const LIMIT: Duration = Duration::from_secs(30);

/// What a function gets of its agents.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct SdkFigures {
    pub(in super::super) system: Kind,
    pub(in super::super) rounds: usize,
    /// A second, of a round: puts at `bounded`, from the first until the standby holds the last.
    pub(in super::super) puts_per_s: Option<Spread>,
    /// Keys of which the standby does not have what was put last, when all was put.
    pub(in super::super) keys_wrong: u64,
    /// Callers that commit, on one connection.
    pub(in super::super) callers: usize,
    /// A second, of a round: commits at `commit`, each of a put of its own.
    pub(in super::super) commits_per_s: Option<Spread>,
    /// Of all commits: from before the put until the answer, in milliseconds.
    pub(in super::super) commit_ms: Option<Spread>,
    /// Commits.
    pub(in super::super) commits: usize,
    /// Commits that the agent answered with a lowered level.
    pub(in super::super) not_held: u64,
    /// Puts of those who commit that the standby does not have in the end.
    pub(in super::super) commits_missing: u64,
    /// Levels lowered, changes refused and connections lost meanwhile.
    pub(in super::super) troubles: u64,
}

/// What the function beside each agent says in the end.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Active {
        commits: Vec<Round>,
        commit_ms: Option<Spread>,
        not_held: u64,
        troubles: u64,
    },
    Standby {
        puts: Vec<Round>,
        keys: u64,
        keys_current: u64,
        committed: u64,
        committed_here: u64,
    },
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Round {
    count: usize,
    took_ns: Nanos,
}

pub(super) fn measure(run: &mut Run<'_>) -> Result<()> {
    let figures = load(run).map(Figures::Sdk);
    run.settle("sdk", Kind::Vnfpool, figures)
}

fn load(run: &mut Run<'_>) -> Result<SdkFigures> {
    let size = if run.quick { QUICK_SIZE } else { SIZE };
    let mut scene = Scene::build().context("building the laboratory")?;
    let mut system = Vnfpool::new(Profile::Default)?.with_load(size);
    system.start(&scene)?;
    // Nothing goes through the gateways here: what watches them is only in the way.
    scene.observer.halt();
    signals::sleep(SETTLING)?;
    system.begin_load();
    let rounds = u32::try_from(2 * size.rounds).unwrap_or(u32::MAX);
    let limit = LIMIT + size.round.saturating_mul(rounds);
    let said = |gateway| {
        let line = signals::wait_for("a function to end its load", limit, || {
            system.load_said(&scene.lab, gateway)
        })?;
        serde_json::from_str(&line).with_context(|| format!("what it said: {line}"))
    };
    let (active, standby) = (said(Gateway::Gw1)?, said(Gateway::Gw2)?);
    let figures = figures(size, active, standby)?;
    if system.wait_ready(&scene)? != Gateway::Gw1 {
        bail!("the standby has taken over under load");
    }
    writeln!(run.progress, "vnfpool: {}", line(&figures))?;
    Ok(figures)
}

fn figures(size: LoadSize, active: Said, standby: Said) -> Result<SdkFigures> {
    let (
        Said::Active {
            commits,
            commit_ms,
            not_held,
            troubles,
        },
        Said::Standby {
            puts,
            keys,
            keys_current,
            committed,
            committed_here,
        },
    ) = (active, standby)
    else {
        bail!("the functions are not where they were started");
    };
    let rates = |rounds: &[Round]| {
        let rates = rounds.iter();
        Spread::of(rates.map(|round| per_second(round.count, round.took_ns).round()))
    };
    Ok(SdkFigures {
        system: Kind::Vnfpool,
        rounds: size.rounds,
        puts_per_s: rates(&puts),
        keys_wrong: keys.saturating_sub(keys_current),
        callers: size.callers,
        commits_per_s: rates(&commits),
        commit_ms,
        commits: commits.iter().map(|round| round.count).sum(),
        not_held,
        commits_missing: committed.saturating_sub(committed_here),
        troubles,
    })
}

fn line(figures: &SdkFigures) -> String {
    let median = |spread: Option<Spread>| spread.map_or(0.0, |spread| spread.p50);
    format!(
        "{:.0} puts/s held by the standby, {} keys wrong; {:.0} commits/s of {} callers, p99 {:.3} ms, {} not \
         held, {} missing, {} troubles",
        median(figures.puts_per_s),
        figures.keys_wrong,
        median(figures.commits_per_s),
        figures.callers,
        figures.commit_ms.map_or(0.0, |spread| spread.p99),
        figures.not_held,
        figures.commits_missing,
        figures.troubles,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVE: &str = r#"{"active":{"commits":[{"count":300,"took_ns":10000000}],
        "commit_ms":{"min":1.0,"p50":1.5,"p99":2.0,"max":9.0},"not_held":1,"troubles":2}}"#;
    const STANDBY: &str = r#"{"standby":{"puts":[{"count":9,"took_ns":1000000000},
        {"count":30,"took_ns":3000000000}],"keys":39,"keys_current":38,"committed":301,
        "committed_here":300}}"#;

    /// Goal: what the two functions say becomes the figures, and only that way round.
    #[test]
    fn the_standby_tells_of_puts_and_the_active_of_commits() {
        let said = |text: &str| serde_json::from_str::<Said>(text).unwrap();
        let of_both = figures(QUICK_SIZE, said(ACTIVE), said(STANDBY)).unwrap();
        assert_eq!(of_both.puts_per_s.unwrap().min, 9.0);
        assert_eq!(of_both.puts_per_s.unwrap().max, 10.0);
        assert_eq!(of_both.commits_per_s.unwrap().p50, 30_000.0);
        assert_eq!(of_both.commit_ms.unwrap().p99, 2.0);
        let wrong = (of_both.keys_wrong, of_both.commits_missing);
        assert_eq!((wrong, of_both.not_held, of_both.troubles), ((1, 1), 1, 2));
        assert!(figures(QUICK_SIZE, said(STANDBY), said(ACTIVE)).is_err());
    }
}
