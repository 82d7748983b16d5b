//! How long packets take to the server: first ones of connections, and those of an established one.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::super::super::arrivals::Arrivals;
use super::super::super::bed::Bed;
use super::super::super::metrics::Committed;
use super::super::super::subject::Kind;
use super::super::Run;
use super::LEVELS;
use crate::clock::{self, MILLISECOND, Nanos};
use crate::namespaces::Gateway;
use crate::report::Spread;
use crate::run::random_below;
use crate::signals;

/// Each level gets as many laboratories, in turns with the other, so that drift meets both.
const ROUNDS: usize = 4;
const QUICK_ROUNDS: usize = 1;
/// First packets in a round, and as many of an established connection.
const SAMPLES: u16 = 500;
const QUICK_SAMPLES: u16 = 40;
/// Packets before them that do not count: addresses are asked for, the connection is established.
const WARM_UP: u16 = 20;
/// Between two new connections: 200 a second. Within this, the moment of each is random.
const SPACING: Nanos = 5 * MILLISECOND;
/// Below the ports whose packets the server drops.
const PORT: u16 = 19_999;
const FIRST_SOURCE: u16 = 10_000;
/// The source port of the established connection.
const ESTABLISHED_SOURCE: u16 = FIRST_SOURCE - 1;
/// Marks a number of the established connection.
const ESTABLISHED: u32 = 1 << 31;
/// A packet that is not there so long after the last one does not come.
const PATIENCE: Duration = Duration::from_secs(1);

/// Times of packets at one level, from before the client sent them until the server had them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super::super) struct Latencies {
    pub(in super::super::super) system: Kind,
    /// First packets of connections, and as many of an established one.
    pub(in super::super::super) samples: usize,
    /// Of both, those that did not arrive.
    pub(in super::super::super) lost: usize,
    /// First packets that left when the standby held their connection; none at `bounded`.
    pub(in super::super::super) held: Option<u64>,
    /// First packets that left without waiting for that, where they should have.
    pub(in super::super::super) unheld: Option<u64>,
    pub(in super::super::super) first_ms: Option<Spread>,
    pub(in super::super::super) established_ms: Option<Spread>,
}

/// What was seen of one level so far.
#[derive(Debug, Default)]
struct Seen {
    first: Vec<Nanos>,
    established: Vec<Nanos>,
    samples: usize,
    lost: usize,
    packets: Option<Committed>,
}

/// Both levels in turns.
pub(super) fn measure(run: &mut Run<'_>) -> Result<[Latencies; 2]> {
    let (rounds, samples) = match run.quick {
        true => (QUICK_ROUNDS, QUICK_SAMPLES),
        false => (ROUNDS, SAMPLES),
    };
    let mut seen = [Seen::default(), Seen::default()];
    for _ in 0..rounds {
        for (kind, seen) in LEVELS.into_iter().zip(&mut seen) {
            round(kind, samples, seen)?;
        }
    }
    let mut levels = LEVELS.into_iter().zip(seen);
    let all = [0, 1].map(|_| levels.next().map(|(kind, seen)| seen.figures(kind)));
    let [Some(bounded), Some(commit)] = all else {
        bail!("a level was not measured");
    };
    for level in [&bounded, &commit] {
        writeln!(run.progress, "{}: {}", level.system.name(), line(level))?;
    }
    Ok([bounded, commit])
}

/// One laboratory: a first packet each 5 ms, and one of the established connection after it.
fn round(kind: Kind, samples: u16, seen: &mut Seen) -> Result<()> {
    let mut bed = Bed::build(kind)?;
    let arrivals = Arrivals::start(bed.scene.lab.namespace("server")?, PORT)?;
    let before = committed(&bed, kind)?;
    let mut sent: HashMap<u32, Nanos> = HashMap::new();
    for count in 0..WARM_UP + samples {
        signals::check()?;
        let slot = clock::now();
        let number = u32::from(count);
        let pairs = [
            (FIRST_SOURCE + count, number),
            (ESTABLISHED_SOURCE, number | ESTABLISHED),
        ];
        for (half, (source, number)) in (0..).zip(pairs) {
            clock::sleep_until(slot + half * SPACING / 2 + random_below(SPACING / 2));
            let at = bed.generator.send_one(source, PORT, number)?;
            if count >= WARM_UP {
                sent.insert(number, at);
            }
        }
        clock::sleep_until(slot + SPACING);
    }
    signals::sleep(PATIENCE)?;
    bed.check()?;
    for (number, at) in arrivals.take() {
        let Some(sent) = sent.remove(&number) else {
            continue;
        };
        let took = at.saturating_sub(sent);
        match number & ESTABLISHED {
            0 => seen.first.push(took),
            _ => seen.established.push(took),
        }
    }
    seen.samples += usize::from(samples);
    seen.lost += sent.len();
    if let Some((now, before)) = committed(&bed, kind)?.zip(before) {
        let packets = now.since(before);
        if packets.held + packets.unheld < u64::from(samples) {
            bail!("only {} first packets were held", packets.held);
        }
        let all = seen.packets.get_or_insert_default();
        all.held += packets.held;
        all.unheld += packets.unheld;
    }
    Ok(())
}

/// What the active has let go so far, where first packets wait.
pub(super) fn committed(bed: &Bed, kind: Kind) -> Result<Option<Committed>> {
    match kind {
        Kind::Commit => Committed::look(bed.gateway(Gateway::Gw1)?).map(Some),
        Kind::Vnfpool | Kind::Ftfw | Kind::Direct => Ok(None),
    }
}

impl Seen {
    fn figures(self, system: Kind) -> Latencies {
        let spread = |times: Vec<Nanos>| Spread::of(times.into_iter().map(clock::millis));
        Latencies {
            system,
            samples: self.samples,
            lost: self.lost,
            held: self.packets.map(|packets| packets.held),
            unheld: self.packets.map(|packets| packets.unheld),
            first_ms: spread(self.first),
            established_ms: spread(self.established),
        }
    }
}

fn line(level: &Latencies) -> String {
    let spread = |spread: Option<Spread>| {
        spread.map_or_else(
            || "none".to_owned(),
            |s| format!("{:.3} / {:.3} / {:.3} / {:.3}", s.min, s.p50, s.p99, s.max),
        )
    };
    let unheld = level.unheld.map_or_else(String::new, |packets| {
        format!(", {packets} did not wait for the standby")
    });
    format!(
        "first packets {} ms, established {} ms (min / p50 / p99 / max), {} of {} lost{unheld}",
        spread(level.first_ms),
        spread(level.established_ms),
        level.lost,
        2 * level.samples,
    )
}
