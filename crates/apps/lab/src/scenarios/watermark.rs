//! What a new active says that it may not have, beside what it has not.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::{Injection, Loss, Scenario, Stage, processes};
use crate::clock::{self, Nanos};
use crate::namespaces::{Gateway, Namespace, SERVER_V4};
use crate::signals;
use crate::state_bench::{CLIENT, flows_in};
use crate::vnfpool::Watermark as Statement;

/// Connections begin at a good rate when the active is lost. What is in its kernel then and not in
/// the new active's must be no more than that one says, and no older.
pub(super) struct Watermark {
    name: &'static str,
    about: &'static str,
    fault: Fault,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Every process stops; the kernel forwards until the gate closes.
    Stop,
    /// Every process dies; as above.
    Kill,
    /// Nothing comes or goes any more.
    Cut,
}

impl Watermark {
    pub(super) const FREEZE: Self = Self {
        name: "watermark-freeze",
        about: "SIGSTOP of the active while connections begin; an error if more is lost than its successor says",
        fault: Fault::Stop,
    };
    pub(super) const KILL: Self = Self {
        name: "watermark-kill",
        about: "kill -9 of the active while connections begin; an error if more is lost than its successor says",
        fault: Fault::Kill,
    };
    pub(super) const SILENT: Self = Self {
        name: "watermark-silent",
        about: "the active is cut off while connections begin; an error if more is lost than its successor says",
        fault: Fault::Cut,
    };
}

impl Scenario for Watermark {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    /// The outages are those of the faults without the connections, and the rival says nothing of what
    /// it lost.
    fn only_by_name(&self) -> bool {
        true
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let lab = &stage.scene.lab;
        let (old, new) = (active, active.other());
        let flows = Flows::begin(lab.namespace("client")?, lab.namespace("server")?)?;
        signals::sleep(WARM_UP)?;
        let injection = match self.fault {
            Fault::Stop => processes::signal_all(stage, active, Signal::STOP),
            Fault::Kill => processes::signal_all(stage, active, Signal::KILL),
            Fault::Cut => {
                let at = clock::now();
                lab.set_cut(active, true)?;
                Injection::at(at)
            }
        };
        stage
            .scene
            .wait_owner(new, stage.system.detection() * 4 + TAKEOVER)?;
        let said = signals::wait_for("the new active's statement", STATEMENT, || {
            Ok(stage.system.watermark(lab, new))
        });
        let statement = said.with_context(|| {
            let system = stage.system.name();
            format!("{system} does not say what may be missing, or its copy was not complete")
        })?;
        let begun = flows.end()?;
        let [in_old, in_new] = [old, new].map(|gateway| {
            let namespace = lab.namespace(gateway.name());
            namespace.and_then(flows_in)
        });
        let (in_old, in_new) = (in_old?, in_new?);
        let was_there = |port: u16| in_old.contains(&(port, begun.target));
        let is_there = |port: u16| in_new.contains(&(port, begun.target));
        let of_old = begun.flows.iter().filter(|(port, _)| was_there(**port));
        let missing = of_old.clone().filter(|(port, _)| !is_there(**port));
        let missing: Vec<&Flow> = missing.map(|(_, flow)| flow).collect();
        let replicated = of_old.count() - missing.len();
        if replicated < REPLICATED_MIN {
            bail!(
                "only {replicated} new connections were replicated before the fault: it says nothing"
            );
        }
        let loss = judge(statement, &missing, injection.at)?;
        Ok(Injection {
            loss: Some(loss),
            ..injection
        })
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        match self.fault {
            Fault::Stop => {
                processes::signal_all(stage, active, Signal::CONT);
                Ok(())
            }
            Fault::Kill => stage.system.start_again(stage.scene, active),
            Fault::Cut => stage.scene.lab.set_cut(active, false),
        }
    }
}

/// Whether the statement is true of what is missing.
fn judge(statement: Statement, missing: &[&Flow], fault: Nanos) -> Result<Loss> {
    let loss = Loss {
        stated: statement.missing_at_most,
        missing: missing.len() as u64,
    };
    if loss.missing > loss.stated {
        bail!(
            "{} connections are missing, and the new active says {} at most",
            loss.missing,
            loss.stated
        );
    }
    let since = statement.missing_since;
    let older = missing.iter().filter(|flow| flow.was_there_by() < since);
    if older.clone().count() as u64 > statement.known_missing {
        let oldest = older.map(|flow| flow.was_there_by()).min().unwrap_or(since);
        bail!(
            "a connection is missing that was there {:.1} ms before the fault, and the new active says \
             that it has everything until {:.1} ms before it",
            clock::millis(fault.saturating_sub(oldest)),
            clock::millis(fault.saturating_sub(since)),
        );
    }
    Ok(loss)
}

/// A connection of one packet.
#[derive(Debug, Clone, Copy)]
struct Flow {
    /// Just before the packet was sent.
    sent: Nanos,
    /// When the server had it, if it got through.
    received: Option<Nanos>,
}

impl Flow {
    /// The active's kernel had its entry by then. That of a packet that did not get through was made
    /// while it was sent, if the machine was not busy elsewhere.
    fn was_there_by(&self) -> Nanos {
        self.received
            .unwrap_or_else(|| self.sent + clock::nanos(SENDING))
    }
}

/// Connections that have been begun, by their source port.
struct Begun {
    flows: BTreeMap<u16, Flow>,
    target: u16,
}

/// Connections that are being begun.
struct Flows {
    begun: Arc<Mutex<BTreeMap<u16, Flow>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    target: u16,
}

impl Flows {
    /// Begins to begin them.
    fn begin(client: &Namespace, server: &Namespace) -> Result<Self> {
        // Those of an earlier run are to other ports.
        let target = TARGET_MIN + u16::try_from(clock::now() / 1_000_000_000 % 10_000).unwrap_or(0);
        let sink = server.run(|| {
            let socket = UdpSocket::bind((SERVER_V4, target)).context("taking new connections")?;
            socket.set_read_timeout(Some(LOOK_AGAIN))?;
            Ok(socket)
        })?;
        let mut flows = Self {
            begun: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
            target,
        };
        let (begun, stop) = (Arc::clone(&flows.begun), Arc::clone(&flows.stop));
        let receive = move || take(&sink, &begun, &stop);
        flows.threads.push(server.spawn_measuring("sink", receive)?);
        let (begun, stop) = (Arc::clone(&flows.begun), Arc::clone(&flows.stop));
        let send = move || send(target, &begun, &stop);
        flows.threads.push(client.spawn_ordinary("flows", send)?);
        Ok(flows)
    }

    /// Ends that; every one that has been begun until now.
    fn end(mut self) -> Result<Begun> {
        self.join();
        let flows = std::mem::take(&mut *lock(&self.begun));
        if flows.is_empty() {
            bail!("no connection could be begun");
        }
        Ok(Begun {
            flows,
            target: self.target,
        })
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to clean up.
            let _panicked = thread.join();
        }
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.join();
    }
}

fn lock(begun: &Mutex<BTreeMap<u16, Flow>>) -> std::sync::MutexGuard<'_, BTreeMap<u16, Flow>> {
    begun.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins a connection from each source port in turn, [`RATE`] a second.
fn send(target: u16, begun: &Mutex<BTreeMap<u16, Flow>>, stop: &AtomicBool) {
    let first = clock::now();
    for (number, port) in (SOURCE_MIN..=SOURCE_MAX).enumerate() {
        let due = first + clock::nanos(Duration::from_secs(1) / RATE) * number as u64;
        if due > clock::now() {
            clock::sleep_until(due);
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // A port that somebody else has is one connection less.
        let Ok(socket) = UdpSocket::bind((CLIENT, port)) else {
            continue;
        };
        let sent = clock::now();
        let received = None;
        lock(begun).insert(port, Flow { sent, received });
        // So is one that the network has no room for.
        if socket
            .send_to(&port.to_be_bytes(), (SERVER_V4, target))
            .is_err()
        {
            lock(begun).remove(&port);
        }
    }
}

/// Notes when each of them has come through; the packet says which one it is.
fn take(sink: &UdpSocket, begun: &Mutex<BTreeMap<u16, Flow>>, stop: &AtomicBool) {
    let mut port = [0; 2];
    while !stop.load(Ordering::Relaxed) {
        if sink.recv_from(&mut port).is_ok()
            && let Some(flow) = lock(begun).get_mut(&u16::from_be_bytes(port))
        {
            flow.received.get_or_insert_with(clock::now);
        }
    }
}

/// Connections a second; some ten packets of the state stream apart from each other.
const RATE: u32 = 4_000;
/// Before the fault: the standby has seen their rate by then.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// Beside the detection.
const TAKEOVER: Duration = Duration::from_secs(5);
const STATEMENT: Duration = Duration::from_secs(2);
/// Fewer say nothing.
const REPLICATED_MIN: usize = 1_000;
/// More than a packet takes through the kernels of the laboratory on a busy machine.
const SENDING: Duration = Duration::from_millis(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Not used by anything else of the laboratory.
const SOURCE_MIN: u16 = 36_000;
const SOURCE_MAX: u16 = 64_000;
const TARGET_MIN: u16 = 20_000;
