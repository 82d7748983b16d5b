//! What happened around one fault, reduced to what a picture shows.

use crate::clock::{MILLISECOND, Nanos, millis};
use crate::measure::is_lost;
use crate::namespaces::Gateway;
use crate::observe::Sightings;
use crate::traffic::{PROBE_INTERVAL, Probe, TrafficLog};

/// Answers come each 5 ms; a longer gap than this ends a stretch of ownership.
const OWNER_GAP: Nanos = 12 * MILLISECOND;
/// Probes leave each millisecond; a longer gap than this is a pause of the probe.
const PROBE_GAP: Nanos = 5 * MILLISECOND;
/// The period of TCP messages, and the width of a bar.
const FLOW_BIN: Nanos = 20 * MILLISECOND;

/// A stretch of time, in ms from the fault.
pub(crate) type Span = (f64, f64);

/// One step's picture. All times are milliseconds from the fault.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline {
    pub(crate) range: (f64, f64),
    /// Moments worth a line: the fault at 0, its end, and so on.
    pub(crate) marks: Vec<(f64, String)>,
    /// Stretches in which probes were sent: on an overloaded machine the probe itself may pause,
    /// and a pause is neither an answer nor a loss.
    pub(crate) sent_v4: Vec<Span>,
    pub(crate) sent_v6: Vec<Span>,
    /// Stretches of lost probes.
    pub(crate) lost_v4: Vec<Span>,
    pub(crate) lost_v6: Vec<Span>,
    /// Stretches in which each gateway emitted as the owner.
    pub(crate) owners: [Vec<Span>; 2],
    /// Start of a bar and the share of connections that moved data in it.
    pub(crate) flow: Vec<(f64, f64)>,
}

/// The width of a bar of [`Timeline::flow`], in ms.
pub(crate) fn flow_bin_ms() -> f64 {
    millis(FLOW_BIN)
}

/// Reduces the records between `from` and `to` to a picture around `fault`.
pub(crate) fn timeline(
    (from, fault, to): (Nanos, Nanos, Nanos),
    marks: &[(Nanos, String)],
    traffic: &TrafficLog,
    sightings: &Sightings,
) -> Timeline {
    let place = |at: Nanos| {
        if at >= fault {
            millis(at - fault)
        } else {
            -millis(fault - at)
        }
    };
    let place_all = |spans: Vec<(Nanos, Nanos)>| -> Vec<Span> {
        let placed = spans
            .into_iter()
            .map(|(start, end)| (place(start), place(end)));
        placed.collect()
    };
    let inside = |at: &Nanos| (from..to).contains(at);
    let lost = |probes: &[Probe]| {
        let sent = probes.iter().filter(|probe| inside(&probe.sent));
        place_all(lost_spans(&sent.collect::<Vec<_>>()))
    };
    let sent = |probes: &[Probe]| {
        let times = probes.iter().map(|probe| probe.sent).filter(inside);
        place_all(merge(times, PROBE_GAP))
    };
    let owner = |gateway| {
        let own = sightings
            .emissions
            .iter()
            .filter(|emission| emission.gateway == gateway);
        place_all(merge(
            own.map(|emission| emission.at).filter(inside),
            OWNER_GAP,
        ))
    };
    Timeline {
        range: (place(from), place(to)),
        marks: marks
            .iter()
            .map(|(at, text)| (place(*at), text.clone()))
            .collect(),
        sent_v4: sent(&traffic.probes_v4),
        sent_v6: sent(&traffic.probes_v6),
        lost_v4: lost(&traffic.probes_v4),
        lost_v6: lost(&traffic.probes_v6),
        owners: Gateway::BOTH.map(owner),
        flow: flow(from, to, traffic)
            .into_iter()
            .map(|(at, share)| (place(at), share))
            .collect(),
    }
}

fn lost_spans(probes: &[&Probe]) -> Vec<(Nanos, Nanos)> {
    let runs = probes.chunk_by(|a, b| is_lost(a) == is_lost(b));
    let lost = runs.filter(|run| run.first().is_some_and(|probe| is_lost(probe)));
    lost.filter_map(|run| Some((run.first()?.sent, run.last()?.sent + PROBE_INTERVAL)))
        .collect()
}

fn merge(times: impl Iterator<Item = Nanos>, gap: Nanos) -> Vec<(Nanos, Nanos)> {
    let mut spans: Vec<(Nanos, Nanos)> = Vec::new();
    for at in times {
        match spans.last_mut() {
            Some((_, end)) if at.saturating_sub(*end) <= gap => *end = at.max(*end),
            _ => spans.push((at, at + MILLISECOND / 2)),
        }
    }
    spans
}

fn flow(from: Nanos, to: Nanos, traffic: &TrafficLog) -> Vec<(Nanos, f64)> {
    let bins = usize::try_from((to - from) / FLOW_BIN).unwrap_or(0);
    let mut moved = vec![0_u32; bins];
    for connection in &traffic.connections {
        let mut last = None;
        let start = connection.arrivals.partition_point(|at| *at < from);
        for at in &connection.arrivals[start..] {
            let bin = usize::try_from((at - from) / FLOW_BIN).ok();
            // Each connection counts once a bin, however much it caught up there.
            if bin != last
                && let Some(count) = bin.and_then(|bin| moved.get_mut(bin))
            {
                *count += 1;
            }
            last = bin;
        }
    }
    let all = u32::try_from(traffic.connections.len()).unwrap_or(0).max(1);
    (0..)
        .zip(moved)
        .map(|(bin, count)| (from + bin * FLOW_BIN, f64::from(count) / f64::from(all)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Emission;

    #[test]
    fn stretches_are_merged_and_placed_around_the_fault() {
        let probes_v4 = (0..1000)
            .map(|n| {
                let sent = n * MILLISECOND;
                Probe {
                    sent,
                    back: if (500..560).contains(&n) { 0 } else { sent + 1 },
                }
            })
            .collect();
        let emission = |ms: Nanos, gateway| Emission {
            at: ms * MILLISECOND,
            gateway,
            question: None,
            forwarded: false,
        };
        let mut emissions: Vec<Emission> =
            (0..101).map(|n| emission(n * 5, Gateway::Gw1)).collect();
        emissions.extend((111..200).map(|n| emission(n * 5, Gateway::Gw2)));
        let sightings = Sightings {
            emissions,
            ..Sightings::default()
        };
        let traffic = TrafficLog {
            probes_v4,
            ..TrafficLog::default()
        };
        let whole = (0, 500 * MILLISECOND, 1000 * MILLISECOND);
        let picture = timeline(
            whole,
            &[(500 * MILLISECOND, "fault".into())],
            &traffic,
            &sightings,
        );
        assert_eq!(picture.range, (-500.0, 500.0));
        assert_eq!(picture.lost_v4, [(0.0, 60.0)]);
        assert_eq!(picture.owners[0], [(-500.0, 0.0)]);
        assert_eq!(picture.owners[1], [(55.0, 495.0)]);
        assert_eq!(picture.marks, [(0.0, "fault".to_owned())]);
    }
}
