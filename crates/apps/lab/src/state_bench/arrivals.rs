//! What arrives at the server.

use std::fs::File;
use std::net::UdpSocket;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::ctnetlink::SERVER;
use crate::clock::{self, MILLISECOND, Nanos};
use crate::namespaces::{Lab, Namespace};

/// How often the thread looks whether it shall end.
const PATIENCE: Duration = Duration::from_millis(50);
/// The statistics of a handful of interfaces fit easily.
const STATISTICS_BYTES: usize = 4096;
/// Packets that have not arrived so long after the last one that did are lost.
const LOST_AFTER: Nanos = 100 * MILLISECOND;

/// Notes the moment at which packets to one port arrive, with the number in their payload.
#[derive(Debug)]
pub(super) struct Arrivals {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Vec<(u32, Nanos)>>,
}

impl Arrivals {
    /// Listens at the server, on a thread that is real-time scheduled where that is permitted.
    pub(super) fn start(server: &Namespace, port: u16) -> Result<Self> {
        let socket = server.run(|| {
            let socket = UdpSocket::bind((SERVER, port)).context("binding at the server")?;
            socket
                .set_read_timeout(Some(PATIENCE))
                .context("setting a read timeout")?;
            Ok(socket)
        })?;
        let shared = Arc::new(Shared::default());
        let on_thread = Arc::clone(&shared);
        let thread = server.spawn_measuring("arrivals", move || {
            let mut payload = [0; 4];
            while !on_thread.stop.load(Ordering::Relaxed) {
                if let Ok(4) = socket.recv(&mut payload) {
                    let at = clock::now();
                    on_thread.seen().push((u32::from_be_bytes(payload), at));
                }
            }
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// What has arrived since the last call: numbers and moments.
    pub(super) fn take(&self) -> Vec<(u32, Nanos)> {
        std::mem::take(&mut *self.shared.seen())
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Vec<(u32, Nanos)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to clean up.
            let _panicked = thread.join();
        }
    }
}

/// How many packets may be on their way to the server at a time. What else arrives there, an address
/// that is asked for now and then, makes it a little wider.
#[derive(Debug)]
pub(super) struct Window {
    /// The statistics of the server's interfaces: a file opened there shows those, whoever reads it.
    statistics: File,
    size: u32,
    /// Arrived before the first packet, and given up as lost since.
    base: i64,
    newest: i64,
    newest_at: Nanos,
}

impl Window {
    /// Of `size` packets, before the first of them.
    pub(super) fn open(lab: &Lab, size: u32) -> Result<Self> {
        let open = || File::open("/proc/thread-self/net/dev").context("opening its statistics");
        let statistics = lab.namespace("server")?.run(open)?;
        let newest = received(&statistics)?;
        Ok(Self {
            statistics,
            size,
            base: newest,
            newest,
            newest_at: clock::now(),
        })
    }

    /// How many more may be sent when so many were.
    pub(super) fn room(&mut self, sent: u32) -> Result<u32> {
        let known = self.left(sent);
        if known >= self.size / 2 {
            // What has arrived since can only make it more, and looking costs time.
            return Ok(known);
        }
        let received = received(&self.statistics)?;
        let now = clock::now();
        if received != self.newest {
            (self.newest, self.newest_at) = (received, now);
        } else if now - self.newest_at > LOST_AFTER {
            self.base = self.newest - i64::from(sent);
            self.newest_at = now;
        }
        Ok(self.left(sent))
    }

    /// By what was last known to have arrived.
    fn left(&self, sent: u32) -> u32 {
        let on_the_way = i64::from(sent) - (self.newest - self.base);
        let left = (i64::from(self.size) - on_the_way).clamp(0, self.size.into());
        u32::try_from(left).unwrap_or(self.size)
    }
}

/// Packets that the server's interface has received.
fn received(statistics: &File) -> Result<i64> {
    let mut text = [0; STATISTICS_BYTES];
    let length = statistics
        .read_at(&mut text, 0)
        .context("reading the server's statistics")?;
    parse(&String::from_utf8_lossy(&text[..length])).context("no statistics of the server's eth0")
}

/// `eth0: <bytes> <packets> …`
fn parse(statistics: &str) -> Option<i64> {
    let mut lines = statistics.lines();
    let line = lines.find_map(|line| line.trim_start().strip_prefix("eth0:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_the_second_number() {
        let text = "Inter-|   Receive                |  Transmit\n face |bytes    packets errs\n    \
            lo:       0       0    0\n  eth0:  123456    789    0    0\n";
        assert_eq!(parse(text), Some(789));
        assert_eq!(parse("  lo: 1 2\n"), None);
    }
}
