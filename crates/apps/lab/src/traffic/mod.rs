//! The traffic that a fault disturbs, from the client through the gateways to the server.

mod http;
mod tcp;
mod udp;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::clock::{self, Nanos};
use crate::measure::Visits;
use crate::namespaces::{Lab, SERVER_V4, SERVER_V6};
use crate::signals;
use crate::vnfpool::Vnf;

pub(crate) use http::Bulk;
pub use http::Download;
pub(crate) use tcp::ConnectionLog;
pub(crate) use udp::{INTERVAL as PROBE_INTERVAL, Probe};

/// Connections of each kind over IPv4: ten where the client talks, ten where the server pushes.
const CONNECTIONS_V4: usize = 10;
/// The same over IPv6, counted separately.
const CONNECTIONS_V6: usize = 2;

/// Running traffic. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    probes_v4: udp::ProbeLog,
    probes_v6: udp::ProbeLog,
    connections: tcp::ConnectionLogs,
    threads: Vec<JoinHandle<()>>,
}

/// The backends of a load balancer, which the pool looks at before there is any traffic. Dropping them
/// ends them.
#[derive(Debug)]
pub(crate) struct Backends {
    stop: Arc<AtomicBool>,
    visits: Arc<Mutex<Visits>>,
    thread: Option<JoinHandle<()>>,
}

impl Backends {
    /// Starts them on the server's host, which has their addresses.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let visits = Arc::default();
        let server = lab.namespace("server")?;
        let thread = Some(tcp::start_backends(server, &stop, &visits)?);
        Ok(Self {
            stop,
            visits,
            thread,
        })
    }

    /// Who has sent data to which of them so far.
    pub(crate) fn visits(&self) -> Visits {
        lock(&self.visits).clone()
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has nothing left to clean up.
            let _panicked = thread.join();
        }
    }
}

/// A copy of everything that the traffic has recorded so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrafficLog {
    pub(crate) probes_v4: Vec<Probe>,
    pub(crate) probes_v6: Vec<Probe>,
    pub(crate) connections: Vec<ConnectionLog>,
}

impl Traffic {
    /// Opens the connections and starts the probes. The gateways have to work at this moment.
    ///
    /// # Errors
    /// When a connection cannot be opened.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        Self::start_with(lab, Vnf::Gateway)
    }

    /// The same; with a load balancer, those connections over IPv4 on which the client talks are to
    /// its service.
    ///
    /// # Errors
    /// As of [`Traffic::start`].
    pub(crate) fn start_with(lab: &Lab, vnf: Vnf) -> Result<Self> {
        let (client, server) = (lab.namespace("client")?, lab.namespace("server")?);
        let mut traffic = Self {
            stop: Arc::new(AtomicBool::new(false)),
            probes_v4: Arc::default(),
            probes_v6: Arc::default(),
            connections: Arc::default(),
            threads: Vec::new(),
        };
        let stop = Arc::clone(&traffic.stop);
        traffic.threads.extend(udp::start_echo(server, &stop)?);
        traffic.threads.push(tcp::start_server(server, &stop)?);
        let plans = [
            tcp::Plan {
                server: SERVER_V4,
                vnf,
                each: CONNECTIONS_V4,
            },
            tcp::Plan {
                server: SERVER_V6,
                vnf,
                each: CONNECTIONS_V6,
            },
        ];
        let talking = tcp::start_client(client, &plans, &stop, &traffic.connections)?;
        traffic.threads.push(talking);
        for (address, log) in [
            (SERVER_V4, &traffic.probes_v4),
            (SERVER_V6, &traffic.probes_v6),
        ] {
            let threads = udp::start_probe(client, address, &stop, log)?;
            traffic.threads.extend(threads);
        }
        Ok(traffic)
    }

    /// Waits until every connection has moved data after `since`, or `limit` is over. What has
    /// not by then is lost; the log shows which.
    ///
    /// # Errors
    /// When interrupted.
    pub(crate) fn wait_all_moved(&self, since: Nanos, limit: Duration) -> Result<()> {
        let end = clock::now() + clock::nanos(limit);
        loop {
            let is_settled = lock(&self.connections).iter().all(|connection| {
                connection.ended.is_some() || connection.arrivals.last() > Some(&since)
            });
            if is_settled || clock::now() >= end {
                return Ok(());
            }
            signals::sleep(Duration::from_millis(10))?;
        }
    }

    /// Copies the records.
    pub(crate) fn log(&self) -> TrafficLog {
        TrafficLog {
            probes_v4: lock(&self.probes_v4).clone(),
            probes_v6: lock(&self.probes_v6).clone(),
            connections: lock(&self.connections).clone(),
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to clean up.
            let _panicked = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
