//! The manager's `/metrics`.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::task::JoinSet;
use vnfpool_northbound::metrics;

use super::pulse::View;
use super::registry::Registry;
use super::shared::{Shared, lock};
use crate::metrics::{Labels, Scrape};
use crate::pulse::now;

/// Serves the metrics on `listen` until `stopped` is done.
pub(super) async fn start(
    tasks: &mut JoinSet<()>,
    shared: &Arc<Shared>,
    listen: SocketAddr,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let listener = metrics::bind(listen)
        .await
        .with_context(|| format!("listen on {listen} for metrics"))?;
    let shared = Arc::clone(shared);
    let encode = Arc::new(move || text(&shared));
    tasks.spawn(metrics::serve(listener, encode, stopped));
    Ok(())
}

fn text(shared: &Shared) -> String {
    let view = shared.pulse.view();
    let mut scrape = Scrape::default();
    slots(&mut scrape, &shared.registry(), &view);
    counters(&mut scrape, shared, &view);
    scrape.text()
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn slots(scrape: &mut Scrape, registry: &Registry, view: &View) {
    let slot_labels = |slot| -> Labels {
        let (pool, name) = registry
            .slot_name(slot)
            .map_or_else(Default::default, |(p, n)| (p.to_string(), n.to_string()));
        vec![("pool", pool), ("slot", name)]
    };
    let slots = || view.slots.iter().map(|(id, slot)| (slot_labels(*id), slot));
    let flag = |value: bool| f64::from(u8::from(value));
    scrape.gauge(
        "vnfpool_slot_term",
        "Term of the slot's record",
        slots().map(|(labels, slot)| (labels, slot.epoch.term as f64)),
    );
    let leases = slots()
        .filter_map(|(labels, slot)| Some((labels, f64::from(slot.record?.pace.lease_ms) / 1e3)));
    scrape.gauge(
        "vnfpool_slot_lease_seconds",
        "Lease of the slot's term",
        leases,
    );
    scrape.gauge(
        "vnfpool_slot_armed",
        "1 when a successor is armed",
        slots().map(|(labels, slot)| (labels, flag(slot.record.is_some_and(|r| r.armed())))),
    );
    scrape.gauge(
        "vnfpool_slot_waits_for_disk",
        "1 while a record of the slot is not on disk",
        slots().map(|(labels, slot)| (labels, flag(slot.waits_for_disk))),
    );
    let at = now();
    let mut silences = Vec::new();
    let mut quarantines = Vec::new();
    for (labels, slot) in slots() {
        for (node, heard, _) in &slot.heard {
            let name = registry.name_of(*node);
            let mut labels = labels.clone();
            labels.push((
                "element",
                name.map_or_else(String::new, |(_, id)| id.to_string()),
            ));
            let quarantined = slot.quarantined.iter().any(|q| q.node == *node);
            quarantines.push((labels.clone(), flag(quarantined)));
            silences.push((labels, at.since(*heard).as_secs_f64()));
        }
    }
    scrape.gauge(
        "vnfpool_element_silence_seconds",
        "Time since an element was heard",
        silences,
    );
    scrape.gauge(
        "vnfpool_element_quarantined",
        "1 while an element is not armed, since it has lost its place too often",
        quarantines,
    );
    let connected = registry.elements.iter().map(|((pool, id), element)| {
        let labels = vec![("pool", pool.to_string()), ("element", id.to_string())];
        (labels, flag(element.live.is_some()))
    });
    scrape.gauge(
        "vnfpool_element_connected",
        "1 while an element is connected",
        connected,
    );
}

fn counters(scrape: &mut Scrape, shared: &Shared, view: &View) {
    let counted = &shared.counters;
    for (name, help, label, counts) in [
        (
            "vnfpool_decisions",
            "Changes of records by cause",
            "cause",
            &counted.decisions,
        ),
        (
            "vnfpool_quarantines",
            "Quarantines that began, and that ended by cause",
            "event",
            &counted.quarantines,
        ),
        (
            "vnfpool_decisions_prepared",
            "Changes of records that were on their way to the disk before the vote",
            "disk",
            &counted.prepared,
        ),
        (
            "vnfpool_votes_refused",
            "Votes that were refused",
            "reason",
            &counted.votes_refused,
        ),
        (
            "vnfpool_fencings",
            "Runs of the fencing command",
            "outcome",
            &counted.fencings,
        ),
    ] {
        let counts = lock(counts).clone().into_iter();
        scrape.counter(
            name,
            help,
            counts.map(|(value, n)| (vec![(label, value.to_owned())], n)),
        );
    }
    let refused = lock(&shared.counters.registrations_refused).clone();
    scrape.counter(
        "vnfpool_registrations_refused",
        "Registrations that were refused",
        refused
            .into_iter()
            .map(|(reason, n)| (vec![("reason", reason)], n)),
    );
    let rejections = shared.rejections.snapshot().into_iter();
    scrape.counter(
        "vnfpool_connections_rejected",
        "Connections that were turned away",
        rejections.map(|(reason, n)| (vec![("reason", reason.label().to_owned())], n)),
    );
    let outcomes = [
        ("accepted", view.datagrams_accepted),
        ("copy", view.datagrams_copies),
        ("rejected", view.datagrams_rejected),
        ("foreign", view.datagrams_foreign),
    ];
    scrape.counter(
        "vnfpool_datagrams",
        "Datagrams received",
        outcomes.map(|(outcome, n)| (vec![("outcome", outcome.to_owned())], n)),
    );
}
