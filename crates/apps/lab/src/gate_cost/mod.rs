//! What the gate costs: packets that a gateway forwards in a second, with it and without.
//!
//! ```text
//!   source ---- veth ---- gateway ---- veth ---- sink
//!   64-byte frames        macvlan, rules, gate    counts and drops
//! ```
//!
//! One thread sends as fast as it can; veth does everything up to the sink in that thread, on one
//! processor. So the rate is one over the time that a packet takes for its whole way, and nothing is
//! lost in a queue. Intervals with and without the gate take turns, in pairs whose order alternates
//! (with, without, without, with), and the two of a pair are compared: what drifts on the machine
//! touches both alike.

mod load;
mod report;
mod row;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::clock::{self, MILLISECOND, Nanos};
use crate::signals;
use load::Load;
use report::Drops;
pub use report::{GateCost, PairFigures};
use row::Row;

/// An agent of the default profile renews its lease so often, for so long.
const RENEWAL_INTERVAL: Nanos = 10 * MILLISECOND;
const LEASE: Duration = Duration::from_millis(50);

/// Attaching and detaching patches the kernel's code: no packet counts for so long.
const SETTLING: Duration = Duration::from_millis(100);
/// The rate rises until caches are warm.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the gate is closed at the end, to see that it gates what was counted.
const CLOSED_FOR: Duration = Duration::from_millis(500);

/// A LAN of the gateway.
#[derive(Debug, Clone, Copy)]
pub struct GateLan {
    /// The interface in the gateway.
    pub interface: &'static str,
    /// The virtual router id of its virtual addresses, 1 to 255.
    pub vrid: u8,
    /// Its virtual addresses, one of each family.
    pub addresses: [std::net::IpAddr; 2],
}

/// The gate under test. This crate knows none: whoever starts the measurement brings his own. All
/// methods that change something are called in the gateway's network namespace.
pub trait GateUnderTest: Send {
    /// How it is attached, for the report.
    fn name(&self) -> String;

    /// Where it pins BPF objects, to be removed whatever happens.
    fn pins(&self) -> PathBuf;

    /// Sets up the virtual addresses of a gateway, and loads a gate that knows them: closed, and
    /// attached to nothing yet.
    ///
    /// # Errors
    /// What the machine lacks or the kernel refused.
    fn furnish(&mut self, lans: &[GateLan]) -> Result<Box<dyn LeaseUnderTest>>;

    /// Puts the gate in front of the LANs.
    ///
    /// # Errors
    /// What the kernel refused.
    fn attach(&mut self) -> Result<()>;

    /// Takes it away.
    ///
    /// # Errors
    /// What the kernel refused.
    fn detach(&mut self) -> Result<()>;

    /// Packets that the gate has dropped since it exists, both ways.
    ///
    /// # Errors
    /// What the kernel refused.
    fn dropped(&self) -> Result<u64>;

    /// Takes everything away for good.
    ///
    /// # Errors
    /// What the kernel refused.
    fn remove(self: Box<Self>) -> Result<()>;
}

/// The right to emit through the gate under test.
pub trait LeaseUnderTest: Send {
    /// Opens the gate for so long from now, in the way of a renewed lease.
    fn renew(&mut self, lasts: Duration);

    /// Closes it at once.
    fn close(&mut self);
}

/// What the gateway does with a packet beside forwarding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateRules {
    /// The rules of the laboratory's gateways: connection tracking, a strict filter, NAT.
    Nat,
    /// None: bare forwarding, in which everything else weighs most.
    Bare,
}

impl GateRules {
    const fn name(self) -> &'static str {
        match self {
            Self::Nat => "connection tracking, filter, NAT",
            Self::Bare => "none",
        }
    }
}

/// What [`gate_cost()`] is asked to do.
#[derive(Debug, Clone)]
pub struct GateCostOptions {
    /// How many pairs of intervals.
    pub pairs: u32,
    /// The length of one interval.
    pub interval: Duration,
    /// What else the gateway does.
    pub rules: GateRules,
    /// One JSON object instead of a table.
    pub json: bool,
}

/// Measures the gate's cost. Returns whether the gate did what it is for: forwarded while open,
/// nothing while closed. How much it costs is a result, not a failure.
///
/// # Errors
/// Without root, when the network or the gate cannot be set up, or on an interrupt.
pub fn gate_cost(
    options: &GateCostOptions,
    gate: Box<dyn GateUnderTest>,
    output: &mut dyn Write,
    progress: &mut dyn Write,
) -> Result<bool> {
    signals::catch_interrupts();
    ensure!(options.pairs > 0, "--pairs must be at least 1");
    crate::need_root("vnfpool lab gate")?;
    crate::clean_interrupted(progress)?;
    let row = Row::build(options.rules, gate.pins())?;
    let cost = measure(options, &row, gate, progress)?;
    if options.json {
        writeln!(output, "{}", serde_json::to_string(&cost)?)?;
    } else {
        writeln!(output, "{}", report::text(&cost))?;
    }
    Ok(cost.gates())
}

fn measure(
    options: &GateCostOptions,
    row: &Row,
    mut gate: Box<dyn GateUnderTest>,
    progress: &mut dyn Write,
) -> Result<GateCost> {
    let lease = row.gateway.run(|| gate.furnish(&row::LANS))?;
    let renewal = Renewal::start(row, lease)?;
    let load = Load::start(&row.source)?;
    let mut bench = Bench {
        row,
        gate: gate.as_mut(),
        load: &load,
        attached: false,
    };
    bench.switch(true)?;
    signals::sleep(WARM_UP)?;
    let mut pairs = Vec::new();
    for number in 1..=options.pairs {
        // The order alternates, so that what rises or falls steadily falls out.
        let with_first = number % 2 == 1;
        let first = bench.interval(with_first, options.interval)?;
        let second = bench.interval(!with_first, options.interval)?;
        let (with, without) = if with_first {
            (first, second)
        } else {
            (second, first)
        };
        let pair = PairFigures { with, without };
        let count = options.pairs;
        writeln!(progress, "{number}/{count}: {}", pair.line())?;
        pairs.push(pair);
    }
    let dropped_open = bench.gate.dropped()?;
    renewal.close();
    let drops = Drops {
        while_open: dropped_open,
        forwarded_closed: bench.closed()?,
        while_closed: bench.gate.dropped()? - dropped_open,
    };
    drop(load);
    drop(renewal);
    let name = gate.name();
    row.gateway.run(move || gate.remove())?;
    GateCost::of(name, options.rules.name(), &pairs, drops)
}

/// What the intervals need.
struct Bench<'a> {
    row: &'a Row,
    gate: &'a mut dyn GateUnderTest,
    load: &'a Load,
    attached: bool,
}

impl Bench<'_> {
    /// Packets that the sink receives in a second, with the open gate or without.
    fn interval(&mut self, with: bool, length: Duration) -> Result<f64> {
        self.switch(with)?;
        let (before, from) = (self.row.received()?, clock::now());
        signals::sleep(length)?;
        let (after, to) = (self.row.received()?, clock::now());
        self.load.check()?;
        if after == before {
            bail!(
                "nothing arrives at the sink {} the gate",
                if with { "with" } else { "without" }
            );
        }
        Ok(rate(after - before, to - from))
    }

    /// Datagrams of the load that arrive while the gate is closed.
    fn closed(&mut self) -> Result<u64> {
        self.switch(true)?;
        self.row.count_datagrams()?;
        signals::sleep(CLOSED_FOR)?;
        self.load.check()?;
        self.row.datagrams()
    }

    fn switch(&mut self, with: bool) -> Result<()> {
        if with != self.attached {
            let switched = self.row.gateway.run(|| match with {
                true => self.gate.attach(),
                false => self.gate.detach(),
            });
            switched.context("putting the gate in place or taking it away")?;
            self.attached = with;
        }
        signals::sleep(SETTLING)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of seconds, far below 2^53"
)]
fn rate(packets: u64, span: Nanos) -> f64 {
    packets as f64 * 1e9 / span as f64
}

/// Renews the lease as the agent does, until it is told to close.
struct Renewal {
    closed: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Renewal {
    fn start(row: &Row, mut lease: Box<dyn LeaseUnderTest>) -> Result<Self> {
        let (closed, stop) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (is_closed, is_over): (_, Arc<AtomicBool>) = (Arc::clone(&closed), Arc::clone(&stop));
        let thread = row.gateway.spawn_measuring("lease", move || {
            let mut next = clock::now();
            while !is_over.load(Ordering::Relaxed) {
                match is_closed.load(Ordering::Relaxed) {
                    false => lease.renew(LEASE),
                    true => lease.close(),
                }
                next = (next + RENEWAL_INTERVAL).max(clock::now());
                clock::sleep_until(next);
            }
        })?;
        Ok(Self {
            closed,
            stop,
            thread: Some(thread),
        })
    }

    /// The gate is closed within one renewal.
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to clean up.
            let _panicked = thread.join();
        }
    }
}
