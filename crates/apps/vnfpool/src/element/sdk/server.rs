//! The socket at which functions register, and the one thread that serves it.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vnfpool_config::Sdk;
use vnfpool_model::Time;

use super::Hub;
use super::door::{Closed, Door};
use super::session::Session;
use crate::pulse::{guard, now};

/// Connections at a time: one function, and some that are about to be turned away.
const CLIENTS_MAX: usize = 8;

/// A connection has to register within this time.
const REGISTER_TIME_MAX: Duration = Duration::from_secs(5);

/// One that is turned away has this time to read why.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

/// Bytes that are read from one connection before the others have their turn.
const READ_BYTES: usize = 128 * 1024;

/// How often time alone is looked at: entries that are over, connections that say nothing.
const TICK: Duration = Duration::from_millis(50);

/// The same while somebody waits for a successor.
const TICK_WHILE_WAITING: Duration = Duration::from_millis(5);

/// Opens the socket and starts the thread, until `stop`.
pub(crate) fn start(
    hub: Arc<Hub>,
    config: &Sdk,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<JoinHandle<()>> {
    let door = Door::open(config)
        .with_context(|| format!("open the SDK's socket {}", config.socket.display()))?;
    let server = Server {
        hub,
        door,
        clients: Vec::new(),
        buffer: vec![0; READ_BYTES],
        ticked_at: Time::ZERO,
    };
    let spawned = std::thread::Builder::new()
        .name("sdk".into())
        .spawn(move || {
            let mut server = server;
            guard::or_abort("sdk", move || server.run(&stop));
        });
    spawned.context("start the thread of the SDK's socket")
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    session: Session,
    since: Time,
    /// When it was turned away.
    over_since: Option<Time>,
    /// The socket takes no more for now.
    has_outgoing: bool,
    is_gone: bool,
}

#[derive(Debug)]
struct Server {
    hub: Arc<Hub>,
    door: Door,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    ticked_at: Time,
}

impl Server {
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let readable = self.wait();
            // Before looking, so that what comes meanwhile is looked at again.
            self.hub.bell.silence();
            let at = now();
            self.accept(at);
            for (index, client) in self.clients.iter_mut().enumerate() {
                if readable.get(index).copied().unwrap_or_default() {
                    client.read(&mut self.buffer);
                }
                client.session.advance(at);
                client.write();
                if !client.has_outgoing && client.session.has_more() {
                    // All of it was taken at once: nothing else would wake this thread.
                    self.hub.bell.ring();
                }
                client.look_at_time(at);
            }
            self.clients.retain(|client| !client.is_gone);
            if at.since(self.ticked_at) >= TICK {
                self.ticked_at = at;
                self.hub.sweep(at);
            }
        }
        self.door.remove();
    }

    /// Waits for something to do; which of the clients can be read.
    fn wait(&self) -> Vec<bool> {
        let mut polled = vec![PollFd::from_borrowed_fd(
            self.hub.bell.as_fd(),
            PollFlags::IN,
        )];
        // The clients behind these two.
        let door = self.door.listener(now());
        polled.extend(door.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let others = polled.len();
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.session.wants_bytes());
            flags.set(PollFlags::OUT, client.has_outgoing);
            polled.push(PollFd::from_borrowed_fd(client.stream.as_fd(), flags));
        }
        let waits = self.clients.iter().any(|client| client.session.waits());
        let tick = if waits { TICK_WHILE_WAITING } else { TICK };
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(tick.subsec_nanos()),
        };
        // Interrupted by a signal: a look for nothing.
        let _ = poll(&mut polled, Some(&timeout));
        let of_clients = polled.iter().skip(others);
        of_clients
            .map(|fd| {
                fd.revents()
                    .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            })
            .collect()
    }

    fn accept(&mut self, at: Time) {
        for _ in 0..CLIENTS_MAX {
            let stream = match self.door.next(at) {
                Ok(Some(stream)) => stream,
                Ok(None) => return,
                Err(Closed) => {
                    self.hub.unaccepted.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            };
            if self.clients.len() >= CLIENTS_MAX || stream.set_nonblocking(true).is_err() {
                // It sees the connection end, and tries again.
                continue;
            }
            let mut session = Session::new(Arc::clone(&self.hub));
            if !self.door.admits(&stream) {
                let text =
                    "this user may not connect: set uid or gid in [sdk] of the element's file";
                session.fail("user", text.to_owned());
            }
            self.clients.push(Client {
                stream,
                session,
                since: at,
                over_since: None,
                has_outgoing: false,
                is_gone: false,
            });
        }
    }
}

impl Client {
    fn read(&mut self, buffer: &mut [u8]) {
        if !self.session.wants_bytes() {
            // Nothing to read was asked for, so this is the end of the other side, which is told again
            // and again. What it has sent and was not taken ends with it.
            self.is_gone = true;
            return;
        }
        match self.stream.read(buffer) {
            Ok(0) => self.is_gone = true,
            Ok(read) => self.session.incoming().extend_from_slice(&buffer[..read]),
            Err(error) if is_passing(&error) => {}
            Err(_) => self.is_gone = true,
        }
    }

    fn write(&mut self) {
        while !self.session.outgoing().is_empty() {
            match self.stream.write(self.session.outgoing()) {
                Ok(written) => bytes::Buf::advance(self.session.outgoing(), written),
                Err(error) if is_passing(&error) => break,
                Err(_) => {
                    self.is_gone = true;
                    break;
                }
            }
        }
        self.has_outgoing = !self.session.outgoing().is_empty();
    }

    fn look_at_time(&mut self, at: Time) {
        if !self.session.is_over() {
            if !self.session.is_registered() && at.since(self.since) > REGISTER_TIME_MAX {
                let text = "no Register came in time".to_owned();
                self.session.fail("register", text);
            }
            return;
        }
        let since = *self.over_since.get_or_insert(at);
        let has_read_all = !self.has_outgoing && self.session.outgoing().is_empty();
        self.is_gone |= has_read_all || at.since(since) > FAREWELL_TIME_MAX;
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
