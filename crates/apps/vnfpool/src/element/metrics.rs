//! The element's `/metrics`.

mod door;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use tokio::task::JoinSet;
use vnfpool_model::{Role, SlotId};
use vnfpool_statesync::ReceiverStatus;
use vnfpool_statesync::class::ClassName;
use vnfpool_wire::datagram::NodeId;

use super::agent::Agent;
use super::drain::Step;
use super::figures::Samples;
use super::pulse::{Takeover, View};
use super::sync::{Figures, SyncFigures};
use crate::metrics::{Labels, Scrape};
use crate::pulse::now;

/// Serves the metrics on `listen` as long as the agent runs; `resumes` as in [`door::open`].
///
/// # Errors
/// As [`door::open`].
pub(super) async fn start(
    tasks: &mut JoinSet<()>,
    agent: &Arc<Agent>,
    listen: SocketAddr,
    resumes: bool,
) -> anyhow::Result<()> {
    let agent = Arc::clone(agent);
    door::open(tasks, listen, Arc::new(move || text(&agent)), resumes).await
}

fn text(agent: &Agent) -> String {
    let view = agent.pulse.view();
    let mut scrape = Scrape::default();
    slots(&mut scrape, agent, &view);
    let figures = agent.sync.figures();
    sent_state(&mut scrape, agent, &figures);
    held_state(&mut scrape, agent, &figures);
    levels(&mut scrape, agent, view.slots.keys().copied());
    commits(&mut scrape, agent, &figures);
    scrape.counter(
        "vnfpool_handover_undrained",
        "Classes of state handed over without their newest changes",
        [(Vec::new(), agent.sync.undrained())],
    );
    scrape.counter(
        "vnfpool_drain_failures",
        "Lines of [drain] that the function's control socket did not take",
        Step::ALL.map(|step| {
            let labels = vec![("step", step.as_str().to_owned())];
            (labels, agent.drain_failures.count(step))
        }),
    );
    function(&mut scrape, agent);
    gates(&mut scrape, agent, &view);
    thread(&mut scrape, &view);
    let rejections = agent.rejections.snapshot().into_iter();
    scrape.counter(
        "vnfpool_connections_rejected",
        "Connections that were turned away",
        rejections.map(|(reason, n)| (vec![("reason", reason.label().to_owned())], n)),
    );
    scrape.text()
}

fn labels(agent: &Agent, slot: SlotId) -> Labels {
    let names = agent.slot_names();
    let slot = names
        .get(&slot)
        .cloned()
        .unwrap_or_else(|| slot.to_string());
    vec![
        ("pool", agent.config.pool.to_string()),
        ("element", agent.config.element.to_string()),
        ("slot", slot),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn slots(scrape: &mut Scrape, agent: &Agent, view: &View) {
    let slots = || {
        view.slots
            .iter()
            .map(|(id, slot)| (labels(agent, *id), slot))
    };
    let roles = slots().flat_map(|(labels, slot)| {
        [Role::Active, Role::Standby, Role::Spare].map(|role| {
            let mut labels = labels.clone();
            labels.push(("role", role.to_string()));
            (labels, f64::from(u8::from(slot.role == role)))
        })
    });
    scrape.gauge("vnfpool_role", "1 for the role that the element has", roles);
    scrape.gauge(
        "vnfpool_term",
        "Term of the slot",
        slots().map(|(l, s)| (l, s.epoch.term as f64)),
    );
    scrape.gauge(
        "vnfpool_turn",
        "Turn of the slot",
        slots().map(|(l, s)| (l, f64::from(s.epoch.turn))),
    );
    let at = now();
    scrape.gauge(
        "vnfpool_lease_rest_seconds",
        "Rest of the lease now, 0 with a closed gate",
        slots().map(|(l, s)| (l, s.gate.since(at).as_secs_f64())),
    );
    let margins = slots().filter_map(|(l, s)| Some((l, s.lease_margin?.as_secs_f64())));
    scrape.gauge(
        "vnfpool_lease_margin_seconds",
        "Smallest rest of a lease when it was renewed lately",
        margins,
    );
    scrape.gauge(
        "vnfpool_unconfirmed",
        "1 while the slot is served after a loss of quorum",
        slots().map(|(l, s)| (l, f64::from(u8::from(s.unconfirmed)))),
    );
    let takeovers = slots().flat_map(|(labels, slot)| {
        let causes = [
            ("failover", slot.failovers),
            ("handover", slot.handovers),
            ("record", slot.records),
        ];
        causes.map(|(cause, n)| {
            let mut labels = labels.clone();
            labels.push(("cause", cause.to_owned()));
            (labels, n)
        })
    });
    let steps = slots().flat_map(|(labels, slot)| {
        let steps = slot.takeover.map(Takeover::steps).into_iter().flatten();
        steps.map(move |(step, took)| {
            let mut labels = labels.clone();
            labels.push(("step", step.to_owned()));
            (labels, took.as_secs_f64())
        })
    });
    scrape.gauge(
        "vnfpool_takeover_seconds",
        "Where the time of the newest takeover went: silence until the vote, manager's answer, opening the gate, telling the LANs",
        steps,
    );
    scrape.counter(
        "vnfpool_role_changes",
        "Changes of the role by cause",
        takeovers,
    );
}

/// The function at the SDK's socket, and the state that it has put.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn function(scrape: &mut Scrape, agent: &Agent) {
    let Some(sdk) = &agent.sdk else {
        return;
    };
    let figures = sdk.figures();
    let of_class = |slot, class: &ClassName| {
        let mut labels = labels(agent, slot);
        labels.push(("class", class.to_string()));
        labels
    };
    let entries = figures
        .iter()
        .map(|(slot, class, entries, _)| (of_class(*slot, class), *entries));
    scrape.gauge(
        "vnfpool_sdk_entries",
        "Entries of the function's state that are held here",
        entries.map(|(labels, n)| (labels, n as f64)),
    );
    let bytes = figures
        .iter()
        .map(|(slot, class, _, bytes)| (of_class(*slot, class), *bytes));
    scrape.gauge(
        "vnfpool_sdk_bytes",
        "Memory of these entries",
        bytes.map(|(labels, n)| (labels, n as f64)),
    );
    scrape.counter(
        "vnfpool_sdk_accept_failures",
        "Attempts to accept a connection at the SDK's socket that failed",
        [(Vec::new(), sdk.unaccepted())],
    );
    let report = sdk.report();
    let own = || {
        vec![
            ("pool", agent.config.pool.to_string()),
            ("element", agent.config.element.to_string()),
        ]
    };
    scrape.gauge(
        "vnfpool_function_registered",
        "1 while a function is registered at the SDK's socket",
        [(own(), f64::from(u8::from(report.is_some())))],
    );
    let reported = || report.iter().map(|report| (own(), report));
    scrape.gauge(
        "vnfpool_function_load",
        "Load that the function reports, in its own units",
        reported().map(|(labels, report)| (labels, f64::from(report.load))),
    );
    scrape.gauge(
        "vnfpool_function_capacity",
        "Load that it can carry, as it reports",
        reported().map(|(labels, report)| (labels, f64::from(report.capacity))),
    );
}

/// The streams to standbys.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn sent_state(scrape: &mut Scrape, agent: &Agent, figures: &BTreeMap<SlotId, SyncFigures>) {
    let at = now();
    let sending = || {
        let streams = figures.iter().flat_map(|(id, slot)| {
            let of = |(node, class, of): &(NodeId, ClassName, Figures)| {
                let mut labels = labels(agent, *id);
                labels.push(("class", class.to_string()));
                labels.push(("standby", node.0.to_string()));
                (labels, of.stream)
            };
            slot.sending.iter().map(of).collect::<Vec<_>>()
        });
        streams.collect::<Vec<_>>().into_iter()
    };
    scrape.gauge(
        "vnfpool_sync_lag_records",
        "Records sent to the standby that it has not confirmed to hold",
        sending().map(|(l, s)| (l, s.lag_records as f64)),
    );
    scrape.gauge(
        "vnfpool_sync_lag_seconds",
        "Age of the oldest of these records",
        sending().map(|(l, s)| (l, s.lag(at).as_secs_f64())),
    );
    scrape.gauge(
        "vnfpool_sync_lacking",
        "Entries that the standby was told and its table does not take",
        sending().map(|(l, s)| (l, f64::from(s.lacking))),
    );
    scrape.gauge(
        "vnfpool_sync_standby_in_sync",
        "1 while the standby has all service state",
        sending().map(|(l, s)| (l, f64::from(u8::from(s.in_sync)))),
    );
    scrape.gauge(
        "vnfpool_sync_entries",
        "Entries told to the standby",
        sending().map(|(l, s)| (l, s.entries as f64)),
    );
    scrape.counter(
        "vnfpool_sync_changes_sent",
        "Changes sent",
        sending().map(|(l, s)| (l, s.changes)),
    );
    scrape.counter(
        "vnfpool_sync_overruns",
        "Times that the source lost changes",
        sending().map(|(l, s)| (l, s.overruns)),
    );
    scrape.counter(
        "vnfpool_sync_repaired",
        "Entries that a loss or a difference had made wrong at the standby, and that were told anew",
        sending().map(|(l, s)| (l, s.repaired)),
    );
    scrape.counter(
        "vnfpool_sync_diverged_buckets",
        "Parts of the table that the standby found different",
        sending().map(|(l, s)| (l, s.diverged)),
    );
    scrape.counter(
        "vnfpool_sync_wanted",
        "Entries that the standby had lost or held otherwise than told",
        sending().map(|(l, s)| (l, s.wanted)),
    );
    scrape.counter(
        "vnfpool_sync_lagged",
        "Times that the standby did not keep up",
        sending().map(|(l, s)| (l, s.lagged)),
    );
}

/// The copies for actives.
fn held_state(scrape: &mut Scrape, agent: &Agent, figures: &BTreeMap<SlotId, SyncFigures>) {
    let receiving = || {
        let streams = figures.iter().flat_map(|(id, slot)| {
            let of = |(class, status): &(ClassName, ReceiverStatus)| {
                let mut labels = labels(agent, *id);
                labels.push(("class", class.to_string()));
                (labels, *status)
            };
            slot.receiving.iter().map(of).collect::<Vec<_>>()
        });
        streams.collect::<Vec<_>>().into_iter()
    };
    scrape.counter(
        "vnfpool_sync_operations_received",
        "Changes received",
        receiving().map(|(l, r)| (l, r.operations)),
    );
    scrape.counter(
        "vnfpool_sync_missing",
        "Entries that this copy had lost",
        receiving().map(|(l, r)| (l, r.missing)),
    );
    scrape.counter(
        "vnfpool_sync_surplus",
        "Entries that this copy had and was not told of",
        receiving().map(|(l, r)| (l, r.surplus)),
    );
    scrape.counter(
        "vnfpool_sync_altered",
        "Entries that this copy held otherwise than it was told",
        receiving().map(|(l, r)| (l, r.altered)),
    );
    scrape.gauge(
        "vnfpool_sync_unlike",
        "Entries that this machine's table cannot hold as the active's does",
        receiving().map(|(l, r)| (l, f64::from(r.unlike))),
    );
}

/// At which level each class is held, and how its changes come from the kernel.
fn levels(scrape: &mut Scrape, agent: &Agent, slots: impl Iterator<Item = SlotId>) {
    let standings: Vec<_> = slots
        .flat_map(|id| {
            let standings = agent.sync.standings(id).into_iter();
            standings.map(move |standing| (id, standing))
        })
        .collect();
    let each = || {
        standings.iter().filter_map(|(id, standing)| {
            let mut labels = labels(agent, *id);
            labels.push(("class", standing.class.to_string()));
            labels.push(("standby", standing.standby?.0.to_string()));
            Some((labels, standing))
        })
    };
    scrape.gauge(
        "vnfpool_sync_level",
        "1 while both agree on a level, 0 while the standby does not hold the class",
        each().map(|(mut labels, standing)| {
            let agreed = standing.known.agreed;
            let word = agreed.map_or("", |level| level.as_str());
            labels.push(("demanded", standing.demanded.as_str().to_owned()));
            labels.push(("agreed", word.to_owned()));
            (labels, f64::from(u8::from(agreed.is_some())))
        }),
    );
    scrape.gauge(
        "vnfpool_sync_event_source",
        "1: how changes come from the kernel, and why not through a ring",
        each().filter_map(|(mut labels, standing)| {
            let by = standing.known.events.clone()?;
            labels.push(("source", by.kind.to_owned()));
            labels.push(("fallback_reason", by.fallback_reason.unwrap_or_default()));
            Some((labels, 1.0))
        }),
    );
}

fn commits(scrape: &mut Scrape, agent: &Agent, figures: &BTreeMap<SlotId, SyncFigures>) {
    let holding = || {
        let streams = figures.iter().flat_map(|(id, slot)| {
            let holding = slot.sending.iter().filter_map(|(_, _, of)| of.holding);
            holding
                .map(|one| (labels(agent, *id), one))
                .collect::<Vec<_>>()
        });
        streams.collect::<Vec<_>>().into_iter()
    };
    scrape.gauge(
        "vnfpool_commit_holds",
        "1 while first packets wait for the standby (level commit), 0 in a downgrade",
        holding().map(|(l, h)| (l, f64::from(u8::from(h.downgrades.now.is_none())))),
    );
    scrape.counter(
        "vnfpool_commit_downgrades",
        "Times that first packets began to leave without waiting",
        holding().map(|(l, h)| (l, h.downgrades.count)),
    );
    scrape.counter(
        "vnfpool_commit_packets",
        "First packets by how they left: committed, unheld in a downgrade, clash of translations",
        holding().flat_map(|(labels, one)| {
            let of = |how: &str, count: u64| {
                let mut labels = labels.clone();
                labels.push(("how", how.to_owned()));
                (labels, count)
            };
            let counts = one.statistics;
            [
                of("committed", counts.committed),
                of("unheld", counts.unheld),
                of("clash", counts.clashes),
            ]
        }),
    );
}

fn gates(scrape: &mut Scrape, agent: &Agent, view: &View) {
    let plane = agent.plane.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(plane) = plane.as_ref() else { return };
    let mut dropped = Vec::new();
    for id in view.slots.keys() {
        let Some(counters) = plane.counters(*id) else {
            continue;
        };
        for (cause, packets) in [
            ("closed_in", counters.ingress_dropped),
            ("closed_out", counters.egress_dropped),
            ("foreign_in", counters.ingress_foreign),
            ("foreign_out", counters.egress_foreign),
        ] {
            let mut labels = labels(agent, *id);
            labels.push(("cause", cause.to_owned()));
            dropped.push((labels, packets));
        }
    }
    scrape.counter(
        "vnfpool_gate_packets",
        "Packets that the gate dropped or noticed",
        dropped,
    );
}

fn thread(scrape: &mut Scrape, view: &View) {
    let quantiles = |samples: &Samples| {
        [(500, "0.5"), (990, "0.99"), (1_000, "1")].map(|(per_mille, name)| {
            let seconds = f64::from(samples.quantile_us(per_mille)) / 1e6;
            (vec![("quantile", name.to_owned())], seconds)
        })
    };
    scrape.gauge(
        "vnfpool_heartbeat_round_trip_seconds",
        "Newest heartbeat round trips",
        quantiles(&view.round_trip_us),
    );
    scrape.gauge(
        "vnfpool_heartbeat_lateness_seconds",
        "How late the heartbeat thread woke",
        quantiles(&view.lateness_us),
    );
    let acknowledged = view.round_trip_us.count();
    let outcomes = [
        ("acknowledged", acknowledged),
        ("missed", view.heartbeats_sent.saturating_sub(acknowledged)),
    ];
    scrape.counter(
        "vnfpool_heartbeats",
        "Heartbeats sent as the active; the one under way counts as missed",
        outcomes.map(|(outcome, n)| (vec![("outcome", outcome.to_owned())], n)),
    );
    scrape.counter(
        "vnfpool_notices_lost",
        "Notices of the heartbeat thread that the log was too slow for",
        [(Vec::new(), view.notices_lost)],
    );
    let outcomes = [
        ("accepted", view.datagrams_accepted),
        ("copy", view.datagrams_copies),
        ("hello", view.datagrams_hellos),
        ("rejected", view.datagrams_rejected),
    ];
    scrape.counter(
        "vnfpool_datagrams",
        "Datagrams received",
        outcomes.map(|(outcome, n)| (vec![("outcome", outcome.to_owned())], n)),
    );
    let paths = view.paths.iter().flat_map(|(path, counters)| {
        [
            ("sent", counters.sent),
            ("refused", counters.refused),
            ("received", counters.received),
        ]
        .map(|(what, n)| (vec![("path", path.clone()), ("what", what.to_owned())], n))
    });
    scrape.counter("vnfpool_path_datagrams", "Datagrams by path", paths);
}
