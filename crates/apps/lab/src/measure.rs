//! From what probes and tap recorded to the figures of one fault. Pure functions.

mod balanced;

use serde::Serialize;

use crate::clock::{Nanos, millis};
use crate::namespaces::Gateway;
use crate::observe::{QUESTION_INTERVAL, Sightings};
use crate::traffic::{ConnectionLog, PROBE_INTERVAL, Probe, TrafficLog};
pub use balanced::Balanced;
pub(crate) use balanced::{Visits, balanced};

/// A probe that comes back later than this is as good as lost to whoever waits for it.
const ANSWER_LIMIT: Nanos = 1_000_000_000;

/// Who serves is asked each 5 ms and forwards a probe each millisecond: between two frames of its
/// own that are closer than this, a gateway has served.
const SERVING_GAP: Nanos = 50 * crate::clock::MILLISECOND;

/// The time that one fault is judged over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// From here on every lost probe counts.
    pub(crate) from: Nanos,
    /// When the fault (or the command) happened.
    pub(crate) fault: Nanos,
    /// The end; probes sent until here count.
    pub(crate) to: Nanos,
}

/// What one address family's traffic went through.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FamilyFigures {
    /// The longest run of lost probes, by send time, in ms.
    pub outage_ms: f64,
    /// The longest time between two probes, in ms: 1 on a machine that has the time.
    pub probe_pause_ms: f64,
    /// All lost probes; one is sent each millisecond.
    pub probes_lost: usize,
    /// Probes sent in the window.
    pub probes_sent: usize,
    /// Connections that moved data before the fault and after the window.
    pub tcp_alive: usize,
    /// All connections.
    pub tcp_total: usize,
    /// The longest silence on a connection that lived, median over the connections, in ms.
    pub tcp_stall_ms: f64,
}

/// What one fault did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// IPv4.
    pub ipv4: FamilyFigures,
    /// IPv6, counted separately.
    pub ipv6: FamilyFigures,
    /// Ownership questions answered by both gateways, times 5 ms.
    pub two_owners_ms: u64,
    /// Ownership questions answered by nobody, times 5 ms.
    pub no_owner_ms: u64,
    /// From the fault to the first owner frame of the other gateway, if there was one.
    pub takeover_ms: Option<f64>,
    /// From there to the first packet that it passed on: by then the switches know where the
    /// addresses are.
    pub forwarding_ms: Option<f64>,
    /// How often the answers moved from one gateway to the other.
    pub role_changes: usize,
    /// Owner frames of one gateway between two of the other that are less than 50 ms apart: sent
    /// while the other one served.
    pub stale_frames: usize,
    /// From the first stale frame to the last, in ms.
    pub overlap_ms: f64,
    /// Frames the tap missed; not 0 makes the ownership figures a lower bound.
    pub tap_missed: u64,
}

/// Judges one window; `active` owned the addresses before the fault.
pub(crate) fn figures(
    window: Window,
    active: Gateway,
    traffic: &TrafficLog,
    sightings: &Sightings,
) -> Figures {
    let family = |is_ipv6: bool, probes| {
        let connections = traffic
            .connections
            .iter()
            .filter(|connection| connection.is_ipv6 == is_ipv6);
        family_figures(window, probes, &connections.collect::<Vec<_>>())
    };
    let owners = owners(window, active, sightings);
    let stale = stale_frames(window, sightings);
    Figures {
        ipv4: family(false, &traffic.probes_v4),
        ipv6: family(true, &traffic.probes_v6),
        two_owners_ms: owners.two_ms,
        no_owner_ms: owners.none_ms,
        takeover_ms: takeover(window, active, sightings),
        forwarding_ms: forwarding(window, active, sightings),
        role_changes: owners.changes,
        stale_frames: stale.len(),
        overlap_ms: match stale.as_slice() {
            [first, .., last] => millis(last - first),
            _ => 0.0,
        },
        tap_missed: sightings.missed,
    }
}

fn family_figures(
    window: Window,
    probes: &[Probe],
    connections: &[&ConnectionLog],
) -> FamilyFigures {
    let sent: Vec<Probe> = probes
        .iter()
        .copied()
        .filter(|probe| probe.sent >= window.from && probe.sent < window.to)
        .collect();
    let alive: Vec<&&ConnectionLog> = connections
        .iter()
        .filter(|connection| is_alive(window, connection))
        .collect();
    let mut stalls: Vec<Nanos> = alive
        .iter()
        .map(|connection| longest_silence(window, &connection.arrivals))
        .collect();
    stalls.sort_unstable();
    FamilyFigures {
        outage_ms: millis(longest_loss(&sent)),
        probe_pause_ms: millis(longest_pause(&sent)),
        probes_lost: sent.iter().filter(|probe| is_lost(probe)).count(),
        probes_sent: sent.len(),
        tcp_alive: alive.len(),
        tcp_total: connections.len(),
        tcp_stall_ms: stalls
            .get(stalls.len() / 2)
            .map_or(0.0, |stall| millis(*stall)),
    }
}

pub(crate) fn is_lost(probe: &Probe) -> bool {
    probe.back == 0 || probe.back - probe.sent > ANSWER_LIMIT
}

/// The longest run of lost probes, from the first to the last of them by send time, and one
/// interval for the last.
///
/// A pause of the probe itself at the end of a run does not count: on a machine that is starved
/// (by a daemon at a higher real-time priority, say) it would pass for an outage that nobody
/// has seen. [`FamilyFigures::probe_pause_ms`] shows such pauses.
fn longest_loss(probes: &[Probe]) -> Nanos {
    let runs = probes.chunk_by(|a, b| is_lost(a) == is_lost(b));
    let lost = runs.filter(|run| run.first().is_some_and(is_lost));
    let lengths = lost.filter_map(|run| Some(run.last()?.sent - run.first()?.sent));
    lengths.max().map_or(0, |length| length + PROBE_INTERVAL)
}

fn longest_pause(probes: &[Probe]) -> Nanos {
    probes
        .windows(2)
        .map(|pair| pair[1].sent - pair[0].sent)
        .max()
        .unwrap_or(0)
}

/// Data moved before the fault and after the window, and nobody closed or reset it.
pub(crate) fn is_alive(window: Window, connection: &ConnectionLog) -> bool {
    connection.ended.is_none()
        && connection
            .arrivals
            .first()
            .is_some_and(|first| *first < window.fault)
        && connection
            .arrivals
            .last()
            .is_some_and(|last| *last >= window.to)
}

fn longest_silence(window: Window, arrivals: &[Nanos]) -> Nanos {
    let start = arrivals
        .partition_point(|at| *at < window.from)
        .saturating_sub(1);
    arrivals[start..]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or(0)
}

struct Owners {
    two_ms: u64,
    none_ms: u64,
    changes: usize,
}

/// Milliseconds with two owners and with none (questions times their interval), and how often the
/// sole owner was another one than before.
fn owners(window: Window, active: Gateway, sightings: &Sightings) -> Owners {
    let mut two = 0;
    let mut none = 0;
    let mut changes = 0;
    let mut owner = active;
    for (asked, by) in sightings.questions.iter().zip(sightings.answered()) {
        if *asked < window.from || *asked >= window.to {
            continue;
        }
        let sole = match by {
            [true, true] => {
                two += 1;
                continue;
            }
            [false, false] => {
                none += 1;
                continue;
            }
            [true, false] => Gateway::Gw1,
            [false, true] => Gateway::Gw2,
        };
        if sole != owner {
            changes += 1;
            owner = sole;
        }
    }
    let interval_ms = QUESTION_INTERVAL / crate::clock::MILLISECOND;
    Owners {
        two_ms: two * interval_ms,
        none_ms: none * interval_ms,
        changes,
    }
}

/// From the fault to the first owner frame of the other gateway.
fn takeover(window: Window, active: Gateway, sightings: &Sightings) -> Option<f64> {
    let mut others = sightings.emissions.iter().filter(|emission| {
        (window.fault..window.to).contains(&emission.at) && emission.gateway != active
    });
    others.next().map(|first| millis(first.at - window.fault))
}

/// See [`Figures::forwarding_ms`].
fn forwarding(window: Window, active: Gateway, sightings: &Sightings) -> Option<f64> {
    let emissions = sightings.emissions.iter();
    let mut others =
        emissions.filter(|e| (window.fault..window.to).contains(&e.at) && e.gateway != active);
    let first = others.next()?;
    let passed_on = std::iter::once(first).chain(others).find(|e| e.forwarded)?;
    Some(millis(passed_on.at - first.at))
}

/// When frames were sent that only the other gateway had a right to: see
/// [`Figures::stale_frames`]. Both sides of an overlap count.
fn stale_frames(window: Window, sightings: &Sightings) -> Vec<Nanos> {
    let emissions: Vec<_> = sightings
        .emissions
        .iter()
        .filter(|emission| emission.at >= window.fault && emission.at < window.to)
        .collect();
    let mut stale = Vec::new();
    // When the gateway before this stretch of frames sent its last one.
    let mut before: Option<Nanos> = None;
    let mut stretches = emissions.chunk_by(|a, b| a.gateway == b.gateway).peekable();
    while let Some(stretch) = stretches.next() {
        let after = stretches.peek().and_then(|next| next.first());
        if let (Some(before), Some(after)) = (before, after)
            && after.at.saturating_sub(before) < SERVING_GAP
        {
            stale.extend(stretch.iter().map(|emission| emission.at));
        }
        before = stretch.last().map(|emission| emission.at);
    }
    stale
}

#[cfg(test)]
mod tests;
