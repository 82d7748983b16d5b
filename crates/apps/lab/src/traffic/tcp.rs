//! Long-lived TCP connections: in half the client talks and is echoed, in half the server pushes.
//!
//! Every message is the next number of its connection, so lost, doubled or changed bytes are
//! seen. One thread serves all connections at each end.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::lock;
use crate::clock::{self, MILLISECOND, Nanos};
use crate::measure::Visits;
use crate::namespaces::Namespace;
use crate::vnfpool::{BACKENDS, BALANCED_PORT, SERVICE, Vnf};

const ECHO_PORT: u16 = 9001;
const PUSH_PORT: u16 = 9002;
const INTERVAL: Nanos = 20 * MILLISECOND;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const MESSAGE: usize = 8;

/// Who talks on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Talker {
    /// The client writes every 20 ms and is echoed.
    Client,
    /// The server writes every 20 ms; the client only listens.
    Server,
}

/// What the client saw of one connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLog {
    pub(crate) is_ipv6: bool,
    /// The client's end of it, if it goes by a load balancer.
    pub(crate) by_balancer: Option<SocketAddr>,
    /// When data arrived at the client.
    pub(crate) arrivals: Vec<Nanos>,
    /// When and how it ended, if it did.
    pub(crate) ended: Option<(Nanos, String)>,
}

/// The shared log of all connections.
pub(crate) type ConnectionLogs = Arc<Mutex<Vec<ConnectionLog>>>;

/// How many connections of one kind are opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) server: IpAddr,
    /// Whether some go by a load balancer.
    pub(super) vnf: Vnf,
    pub(super) each: usize,
}

impl Plan {
    /// Whether those on which this end talks go by a load balancer.
    fn is_balanced(&self, talker: Talker) -> bool {
        self.vnf == Vnf::LoadBalancer && self.server.is_ipv4() && talker == Talker::Client
    }
}

/// Starts the server's end for both families.
pub(super) fn start_server(server: &Namespace, stop: &Arc<AtomicBool>) -> Result<JoinHandle<()>> {
    let listeners = server.run(|| {
        Ok(vec![
            (Talker::Client, listen("10.2.0.10", ECHO_PORT)?),
            (Talker::Server, listen("10.2.0.10", PUSH_PORT)?),
            (Talker::Client, listen("fd00:2::10", ECHO_PORT)?),
            (Talker::Server, listen("fd00:2::10", PUSH_PORT)?),
        ])
    })?;
    let stop = Arc::clone(stop);
    server.spawn_measuring("tcp-server", move || serve_until(&stop, &listeners, |_| {}))
}

/// Starts the backends of a load balancer, which note who sends them data.
pub(super) fn start_backends(
    server: &Namespace,
    stop: &Arc<AtomicBool>,
    visits: &Arc<Mutex<Visits>>,
) -> Result<JoinHandle<()>> {
    let listen = |backend: Ipv4Addr| {
        let listener = listen(&backend.to_string(), BALANCED_PORT)?;
        Ok((Talker::Client, listener))
    };
    let listeners = server.run(|| BACKENDS.into_iter().map(listen).collect::<Result<Vec<_>>>())?;
    let (stop, visits) = (Arc::clone(stop), Arc::clone(visits));
    let note = move |stream: &TcpStream| {
        // A connection that has just ended has no ends to note.
        if let (Ok(client), Ok(backend)) = (stream.peer_addr(), stream.local_addr()) {
            lock(&visits).insert((client, backend.ip()));
        }
    };
    server.spawn_measuring("tcp-backends", move || serve_until(&stop, &listeners, note))
}

fn listen(address: &str, port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((address, port))
        .with_context(|| format!("listening on [{address}]:{port}"))?;
    listener
        .set_nonblocking(true)
        .context("making a listener non-blocking")?;
    Ok(listener)
}

/// Opens all connections from `client` and starts the thread that serves them.
///
/// # Errors
/// When a connection cannot be opened: the gateways do not pass new connections.
pub(super) fn start_client(
    client: &Namespace,
    plans: &[Plan],
    stop: &Arc<AtomicBool>,
    logs: &ConnectionLogs,
) -> Result<JoinHandle<()>> {
    let mut ends = Vec::new();
    for plan in plans {
        for talker in [Talker::Client, Talker::Server] {
            for _ in 0..plan.each {
                let stream = client.run(|| connect(plan, talker))?;
                let by_balancer = plan.is_balanced(talker).then(|| stream.local_addr());
                let by_balancer = by_balancer.transpose().context("asking for an address")?;
                ends.push(End::new(stream, talker)?);
                lock(logs).push(ConnectionLog {
                    is_ipv6: plan.server.is_ipv6(),
                    by_balancer,
                    arrivals: Vec::new(),
                    ended: None,
                });
            }
        }
    }
    let (stop, logs) = (Arc::clone(stop), Arc::clone(logs));
    client.spawn_measuring("tcp-client", move || talk_until(&stop, &mut ends, &logs))
}

fn connect(plan: &Plan, talker: Talker) -> Result<TcpStream> {
    let server = match talker {
        _ if plan.is_balanced(talker) => SocketAddr::from((SERVICE, BALANCED_PORT)),
        Talker::Client => SocketAddr::new(plan.server, ECHO_PORT),
        Talker::Server => SocketAddr::new(plan.server, PUSH_PORT),
    };
    TcpStream::connect_timeout(&server, CONNECT_LIMIT)
        .with_context(|| format!("connecting from the client to {server} through the gateways"))
}

/// One end of a connection, never blocking.
struct End {
    stream: TcpStream,
    talker: Talker,
    outgoing: VecDeque<u8>,
    partial: Vec<u8>,
    next_sent: u64,
    next_expected: u64,
    is_over: bool,
}

impl End {
    fn new(stream: TcpStream, talker: Talker) -> Result<Self> {
        stream
            .set_nonblocking(true)
            .context("making a connection non-blocking")?;
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        Ok(Self {
            stream,
            talker,
            outgoing: VecDeque::new(),
            partial: Vec::new(),
            next_sent: 0,
            next_expected: 0,
            is_over: false,
        })
    }

    fn say_next(&mut self) {
        // An hour of silence at most; a connection that is dead for so long stays dead.
        if self.outgoing.len() < 3600 * 50 * MESSAGE {
            self.outgoing.extend(self.next_sent.to_be_bytes());
            self.next_sent += 1;
        }
        self.flush();
    }

    fn flush(&mut self) {
        while !self.outgoing.is_empty() && !self.is_over {
            match self.stream.write(self.outgoing.as_slices().0) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The reading side sees the same error and says so.
                Err(_) => return,
            }
        }
    }

    /// Reads what is there; `Err` with the reason once the connection is over.
    fn read(&mut self) -> Result<Vec<u8>, String> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err("closed by the other end".to_owned()),
            Ok(length) => Ok(buffer[..length].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Checks that the bytes continue the count.
    fn check(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.partial.extend(bytes);
        let whole = self.partial.len() / MESSAGE * MESSAGE;
        for message in self
            .partial
            .drain(..whole)
            .collect::<Vec<u8>>()
            .chunks_exact(MESSAGE)
        {
            let number = message
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte));
            if number != self.next_expected {
                return Err(format!(
                    "message {number} came instead of {}",
                    self.next_expected
                ));
            }
            self.next_expected += 1;
        }
        Ok(())
    }
}

fn talk_until(stop: &AtomicBool, ends: &mut [End], logs: &ConnectionLogs) {
    let mut next = clock::now();
    while !stop.load(Ordering::Relaxed) {
        if clock::now() >= next {
            next = (next + INTERVAL).max(clock::now());
            ends.iter_mut()
                .filter(|end| end.talker == Talker::Client && !end.is_over)
                .for_each(End::say_next);
        }
        for index in wait_readable(ends.iter().map(|end| (&end.stream, !end.is_over)), next) {
            let end = &mut ends[index];
            let outcome = end
                .read()
                .and_then(|bytes| end.check(&bytes).map(|()| !bytes.is_empty()));
            let at = clock::now();
            let mut logs = lock(logs);
            let log = &mut logs[index];
            match outcome {
                Ok(true) => log.arrivals.push(at),
                Ok(false) => {}
                Err(reason) => {
                    end.is_over = true;
                    log.ended = Some((at, reason));
                }
            }
        }
    }
}

/// Serves the other ends of the connections; `note` is told of each on which data comes.
fn serve_until(stop: &AtomicBool, listeners: &[(Talker, TcpListener)], note: impl Fn(&TcpStream)) {
    let mut ends: Vec<End> = Vec::new();
    let mut next = clock::now();
    while !stop.load(Ordering::Relaxed) {
        for (talker, listener) in listeners {
            while let Ok((stream, _)) = listener.accept() {
                // A stream that cannot be prepared stays silent: the client counts it as lost.
                ends.extend(End::new(stream, *talker));
            }
        }
        if clock::now() >= next {
            next = (next + INTERVAL).max(clock::now());
            ends.iter_mut()
                .filter(|end| end.talker == Talker::Server)
                .for_each(End::say_next);
        }
        for index in wait_readable(ends.iter().map(|end| (&end.stream, !end.is_over)), next) {
            let end = &mut ends[index];
            match end.read() {
                Ok(bytes) => {
                    if !bytes.is_empty() {
                        note(&end.stream);
                    }
                    end.outgoing.extend(bytes);
                    end.flush();
                }
                Err(_) => end.is_over = true,
            }
        }
        ends.retain(|end| !end.is_over);
    }
}

/// The positions of the connections that have something to read, waiting until `until` at most.
fn wait_readable<'a>(
    streams: impl Iterator<Item = (&'a TcpStream, bool)>,
    until: Nanos,
) -> Vec<usize> {
    let (positions, mut waiting): (Vec<usize>, Vec<PollFd<'_>>) = streams
        .enumerate()
        .filter(|(_, (_, is_open))| *is_open)
        .map(|(position, (stream, _))| (position, PollFd::new(stream, PollFlags::IN)))
        .unzip();
    let patience = until.saturating_sub(clock::now()).min(INTERVAL);
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: i64::try_from(patience).unwrap_or(MILLISECOND.cast_signed()),
    };
    // An interrupted wait is a short one.
    let _interrupted = poll(&mut waiting, Some(&patience));
    positions
        .into_iter()
        .zip(&waiting)
        .filter(|(_, waited)| !waited.revents().is_empty())
        .map(|(position, _)| position)
        .collect()
}
