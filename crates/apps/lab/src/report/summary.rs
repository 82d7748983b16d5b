//! Many runs of one scenario, summed up: the object that `--json` prints.

use serde::{Deserialize, Serialize};

use crate::measure::FamilyFigures;
use crate::run::RunFigures;
use crate::vnfpool::TakeoverSteps;

/// Smallest, median, 99th percentile and largest of some values. With fewer than a hundred
/// values the percentile is the largest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The median (the lower middle one of an even number).
    pub p50: f64,
    /// The 99th percentile, by nearest rank.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let position = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(position).copied()
        };
        Some(Self {
            min: rank(0)?,
            p50: rank(50)?,
            p99: rank(99)?,
            max: rank(100)?,
        })
    }
}

/// What N runs of one scenario did to the traffic through one system.
///
/// The figures without a family are IPv4, the ones that the rival's are known for; the
/// ownership figures are sums over all runs, so that one bad run cannot hide.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The scenario.
    pub scenario: String,
    /// The system under test.
    pub system: String,
    /// Its settings.
    pub profile: String,
    /// How many runs.
    pub runs: usize,
    /// The longest run of lost probes.
    pub outage_ms: Option<Spread>,
    /// The longest pause of the probe itself in a run: well above 1 ms, the machine had no time,
    /// and outages may have been longer than was seen.
    pub probe_pause_ms: Option<Spread>,
    /// Lost probes per run, one probe a millisecond.
    pub probes_lost: Option<Spread>,
    /// Connections that lived, over all runs.
    pub tcp_alive: usize,
    /// Connections opened, over all runs.
    pub tcp_total: usize,
    /// The longest silence on a connection that lived, median of a run.
    pub tcp_stall_ms: Option<Spread>,
    /// Time in which both gateways answered for the virtual address, over all runs.
    pub two_owners_ms: u64,
    /// The same, in the worst run.
    pub two_owners_max_ms: u64,
    /// Time in which nobody answered, over all runs.
    pub no_owner_ms: u64,
    /// From the fault to the first owner frame of the other gateway; of the runs that had one.
    pub takeover_ms: Option<Spread>,
    /// Where the time of the takeovers went, if the system tells.
    pub takeover_steps: Option<StepsSummary>,
    /// Runs in which the other gateway took over.
    pub takeovers: usize,
    /// How long the operator's command took, in the planned scenarios.
    pub command_ms: Option<Spread>,
    /// How often the answers moved from one gateway to the other, in a run.
    pub role_changes: Option<Spread>,
    /// How often, in a run, the system itself decided who serves or may take over: records that
    /// the manager wrote, or entries into the state MASTER. In a scenario that breaks nothing, each
    /// is one too many.
    pub decisions: Option<Spread>,
    /// Owner frames that a gateway sent while the other one served, over all runs.
    pub stale_frames: usize,
    /// From the end of the fault until the pool had an active and a synchronised standby again;
    /// of the runs in which it had.
    pub recovery_ms: Option<Spread>,
    /// Runs in which it had.
    pub recoveries: usize,
    /// Connections that takeovers lost, and how many the new actives said that may be missing; where
    /// the scenario compares the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossSummary>,
    /// Why it had not, in the last run in which it had not.
    pub not_ready: Option<String>,
    /// IPv6, counted separately.
    pub ipv6: FamilySummary,
    /// Frames that the tap missed; not 0 makes the ownership figures lower bounds.
    pub tap_missed: u64,
    /// Resident memory after the last run.
    pub resident: Resident,
}

/// What takeovers lost, in connections per run. That no more is missing than was stated is checked in
/// each run; the sums do not show it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LossSummary {
    /// May be missing, as the new active said.
    pub stated: Spread,
    /// Were missing, by the kernels' tables.
    pub missing: Spread,
}

impl LossSummary {
    fn of(runs: &[RunFigures]) -> Option<Self> {
        let losses = || runs.iter().filter_map(|run| run.loss);
        // Tables hold fewer than 2^32 entries.
        let number = |count: u64| u32::try_from(count).map_or(f64::INFINITY, f64::from);
        Some(Self {
            stated: Spread::of(losses().map(|loss| number(loss.stated)))?,
            missing: Spread::of(losses().map(|loss| number(loss.missing)))?,
        })
    }
}

/// One line for each system whose losses were compared with what it said of them; p50/max.
pub(crate) fn losses(summaries: &[Summary]) -> Vec<String> {
    let one = |summary: &Summary| {
        let LossSummary { stated, missing } = summary.loss?;
        Some(format!(
            "{}, {}, connections p50/max: missing {:.0}/{:.0}, stated at most {:.0}/{:.0}",
            summary.scenario, summary.system, missing.p50, missing.max, stated.p50, stated.max
        ))
    };
    summaries.iter().filter_map(one).collect()
}

/// The steps of many takeovers; each from the end of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepsSummary {
    /// From the last word of the former active until the vote.
    pub silence_ms: Spread,
    /// Until the manager's answer.
    pub answer_ms: Spread,
    /// Of that, the manager's disk.
    pub disk_ms: Spread,
    /// How many takeovers there were.
    pub takeovers: usize,
    /// How many of their records were on their way to that disk before the vote.
    pub prepared: usize,
    /// Until the gate was open.
    pub opening_ms: Spread,
    /// Until the LANs were told.
    pub telling_ms: Spread,
    /// From the first frame of the new owner until the first packet that it passed on, seen from
    /// outside.
    pub forwarding_ms: Spread,
}

impl StepsSummary {
    fn of(runs: &[RunFigures]) -> Option<Self> {
        let steps = || runs.iter().filter_map(|run| run.steps.as_ref());
        let spread = |step: &dyn Fn(&TakeoverSteps) -> f64| Spread::of(steps().map(step));
        Some(Self {
            silence_ms: spread(&|steps| steps.silence_ms)?,
            answer_ms: spread(&|steps| steps.answer_ms)?,
            disk_ms: spread(&|steps| steps.disk_ms)?,
            takeovers: steps().count(),
            prepared: steps().filter(|steps| steps.prepared).count(),
            opening_ms: spread(&|steps| steps.opening_ms)?,
            telling_ms: spread(&|steps| steps.telling_ms)?,
            forwarding_ms: Spread::of(
                runs.iter()
                    .filter_map(|run| run.steps.and(run.figures.forwarding_ms)),
            )?,
        })
    }

    /// For people: p50 and the largest of each.
    fn line(&self) -> String {
        let steps = [
            ("silence", self.silence_ms),
            ("answer", self.answer_ms),
            ("(its disk", self.disk_ms),
            ("opening", self.opening_ms),
            ("telling", self.telling_ms),
            ("first packet", self.forwarding_ms),
        ];
        let one = |(name, spread): (&str, Spread)| {
            let end = if name.starts_with('(') {
                format!(", prepared {} of {})", self.prepared, self.takeovers)
            } else {
                String::new()
            };
            format!("{name} {:.2}/{:.2}{end}", spread.p50, spread.max)
        };
        steps.map(one).join(", ")
    }
}

/// One line for each system that tells where the time of its takeovers went; ms, p50/max.
pub(crate) fn budgets(summaries: &[Summary]) -> Vec<String> {
    let one = |summary: &Summary| {
        let steps = summary.takeover_steps?;
        let Summary {
            scenario,
            system,
            profile,
            ..
        } = summary;
        Some(format!(
            "{scenario}, {system} {profile}, ms p50/max: {}",
            steps.line()
        ))
    };
    summaries.iter().filter_map(one).collect()
}

/// Resident memory of a system's processes, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// The manager; 0 where there is none, or while it is down.
    pub manager_kib: u64,
    /// Everything on the gateway that has more.
    pub gateway_kib: u64,
}

/// The figures of one address family.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FamilySummary {
    /// The longest run of lost probes.
    pub outage_ms: Option<Spread>,
    /// Lost probes per run.
    pub probes_lost: Option<Spread>,
    /// Connections that lived, over all runs.
    pub tcp_alive: usize,
    /// Connections opened, over all runs.
    pub tcp_total: usize,
}

/// Sums up the runs of one scenario.
pub(crate) fn summarise(
    scenario: &str,
    system: &str,
    profile: &str,
    runs: &[RunFigures],
    resident: Resident,
) -> Summary {
    let spread =
        |value: &dyn Fn(&RunFigures) -> Option<f64>| Spread::of(runs.iter().filter_map(value));
    let v4 = family(runs.iter().map(|run| &run.figures.ipv4));
    Summary {
        scenario: scenario.to_owned(),
        system: system.to_owned(),
        profile: profile.to_owned(),
        runs: runs.len(),
        outage_ms: v4.outage_ms,
        probes_lost: v4.probes_lost,
        probe_pause_ms: spread(&|run| Some(run.figures.ipv4.probe_pause_ms)),
        tcp_alive: v4.tcp_alive,
        tcp_total: v4.tcp_total,
        tcp_stall_ms: spread(&|run| Some(run.figures.ipv4.tcp_stall_ms)),
        two_owners_ms: runs.iter().map(|run| run.figures.two_owners_ms).sum(),
        two_owners_max_ms: runs
            .iter()
            .map(|run| run.figures.two_owners_ms)
            .max()
            .unwrap_or(0),
        no_owner_ms: runs.iter().map(|run| run.figures.no_owner_ms).sum(),
        takeover_ms: spread(&|run| run.figures.takeover_ms),
        takeover_steps: StepsSummary::of(runs),
        takeovers: runs
            .iter()
            .filter(|run| run.figures.takeover_ms.is_some())
            .count(),
        command_ms: spread(&|run| run.command_ms),
        role_changes: spread(&|run| u32::try_from(run.figures.role_changes).ok().map(f64::from)),
        decisions: spread(&|run| u32::try_from(run.decisions?).ok().map(f64::from)),
        stale_frames: runs.iter().map(|run| run.figures.stale_frames).sum(),
        recovery_ms: spread(&|run| run.recovery.as_ref().ok().copied()),
        recoveries: runs.iter().filter(|run| run.recovery.is_ok()).count(),
        loss: LossSummary::of(runs),
        not_ready: runs.iter().rev().find_map(|run| run.recovery.clone().err()),
        ipv6: family(runs.iter().map(|run| &run.figures.ipv6)),
        tap_missed: runs.iter().map(|run| run.figures.tap_missed).sum(),
        resident,
    }
}

fn family<'a>(runs: impl Iterator<Item = &'a FamilyFigures> + Clone) -> FamilySummary {
    FamilySummary {
        outage_ms: Spread::of(runs.clone().map(|run| run.outage_ms)),
        probes_lost: Spread::of(runs.clone().map(|run| {
            // More probes than u32 holds would be a window of 49 days.
            u32::try_from(run.probes_lost).map_or(f64::INFINITY, f64::from)
        })),
        tcp_alive: runs.clone().map(|run| run.tcp_alive).sum(),
        tcp_total: runs.map(|run| run.tcp_total).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_by_nearest_rank() {
        let spread = Spread::of((1..=200).rev().map(f64::from)).unwrap();
        assert_eq!(
            spread,
            Spread {
                min: 1.0,
                p50: 100.0,
                p99: 198.0,
                max: 200.0
            }
        );
        let few = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            few,
            Spread {
                min: 1.0,
                p50: 2.0,
                p99: 3.0,
                max: 3.0
            }
        );
        assert_eq!(Spread::of([]), None);
    }
}
