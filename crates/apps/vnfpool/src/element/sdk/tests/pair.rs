//! Two agents' halves of the SDK, and what stands in for the stream between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use vnfpool_config::Sdk;
use vnfpool_model::{Epoch, Role, SlotId};

use crate::element::sdk::{self, Change, FunctionHealth, Handed, Hub, Sink, SlotRole, Source};
use crate::pulse::now;

pub(super) const SLOT: SlotId = SlotId(1);

/// One agent's half.
pub(super) struct Agent {
    pub(super) hub: Arc<Hub>,
    pub(super) health: Arc<FunctionHealth>,
    dir: Arc<TempDir>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    pub(super) fn start() -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()))
    }

    fn start_in(dir: Arc<TempDir>) -> Self {
        let health = Arc::new(FunctionHealth::new(false));
        let hub = Hub::new("lb1".into(), "lb".into(), Arc::clone(&health)).unwrap();
        let hub = Arc::new(hub);
        let stop = Arc::new(AtomicBool::new(false));
        let config = Sdk {
            socket: socket_in(dir.path()),
            ..Sdk::default()
        };
        let thread = sdk::start(Arc::clone(&hub), &config, Arc::clone(&stop)).unwrap();
        Self {
            hub,
            health,
            dir,
            stop,
            thread: Some(thread),
        }
    }

    /// Another process of the agent at the same socket: it knows nothing.
    pub(super) fn replace(self) -> Self {
        let dir = Arc::clone(&self.dir);
        drop(self);
        Self::start_in(dir)
    }

    pub(super) fn socket(&self) -> PathBuf {
        socket_in(self.dir.path())
    }

    pub(super) fn set_role(&self, role: Role, term: u64) {
        let (name, epoch) = ("main".to_owned(), Epoch::first_of(term));
        self.hub.set_role(SLOT, SlotRole { name, role, epoch });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.hub.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn socket_in(dir: &Path) -> PathBuf {
    dir.join("sdk.sock")
}

/// Carries a class from one agent to another, as the machines would: first the table, then changes.
pub(super) struct Stream {
    stop: Arc<AtomicBool>,
    /// While set, the successor applies nothing.
    pub(super) is_stuck: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    pub(super) fn start(from: &Agent, to: &Agent, class: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_stuck = Arc::new(AtomicBool::new(false));
        let mut source = Source::open(from.hub.class(SLOT, class).unwrap()).unwrap();
        let mut sink = Sink::new(to.hub.class(SLOT, class).unwrap());
        let (stopped, stuck) = (Arc::clone(&stop), Arc::clone(&is_stuck));
        let run = move || {
            source.start_scan(1);
            let mut handed = Vec::new();
            let mut is_whole = false;
            while !stopped.load(Ordering::Relaxed) {
                if stuck.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                source.read(now(), &mut handed);
                let is_idle = handed.is_empty();
                for one in handed.drain(..) {
                    match one {
                        Handed::Change(Change::Put { item, .. }) => sink.put(item, now()).unwrap(),
                        Handed::Change(Change::Delete { key }) => sink.delete(key, now()),
                        Handed::Overrun => {
                            is_whole = false;
                            source.start_scan(1);
                        }
                        Handed::Barrier { id } => {
                            sink.flush(now());
                            source.reached(id, is_whole, now());
                        }
                    }
                }
                if let Some(chunk) = source.read_chunk(now()) {
                    chunk
                        .items
                        .into_iter()
                        .for_each(|item| sink.put(item, now()).unwrap());
                    is_whole |= chunk.is_last;
                    sink.set_in_sync(is_whole, now());
                }
                sink.flush(now());
                if is_idle {
                    let fd = std::os::fd::AsFd::as_fd(&source);
                    let fd =
                        rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN);
                    let timeout = rustix::event::Timespec {
                        tv_sec: 0,
                        tv_nsec: 5_000_000,
                    };
                    let _ = rustix::event::poll(&mut [fd], Some(&timeout));
                }
            }
        };
        Self {
            stop,
            is_stuck,
            thread: Some(std::thread::spawn(run)),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
