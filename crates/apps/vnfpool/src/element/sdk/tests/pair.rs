//! Two agents' halves of the SDK, and what stands in for the stream between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;
use vnfpool_config::Sdk;
use vnfpool_conntrack::ReadOutcome;
use vnfpool_model::{Epoch, Role, SlotId};
use vnfpool_statesync::class::ClassName;
use vnfpool_statesync::wire::Decoder;
use vnfpool_statesync::{
    Effects, Limits, Receiver, ReceiverAction, ReceiverInput, Sender, SenderAction, SenderInput,
    Ticket,
};
use vnfpool_wire::sdk::Level;

use crate::element::sdk::{self, ClassSpec, FunctionHealth, Hub, SlotRole};
use crate::element::sync;
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

    /// As if its function had registered the class, unless it has.
    fn declare(&self, spec: &ClassSpec) {
        let mut state = self.hub.state();
        if !state.specs.iter().any(|known| known.name == spec.name) {
            state.specs.push(spec.clone());
            state.create_classes(&self.hub.bell, now());
        }
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

/// A class of the tests.
pub(super) fn named(class: &str) -> ClassName {
    ClassName::new(class).unwrap()
}

/// Carries a class from one agent to another: the production's machines, joined in memory.
pub(super) struct Stream {
    stop: Arc<AtomicBool>,
    /// While set, nothing is carried.
    pub(super) is_stuck: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    pub(super) fn start(from: &Agent, to: &Agent, class: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_stuck = Arc::new(AtomicBool::new(false));
        let (stopped, stuck) = (Arc::clone(&stop), Arc::clone(&is_stuck));
        let spec = from
            .hub
            .state()
            .specs
            .iter()
            .find(|spec| spec.name == named(class))
            .cloned();
        let spec = spec.expect("it is registered");
        to.declare(&spec);
        let class = from.hub.stream_class(&spec);
        let sink = to.hub.stream_class(&spec_of(&class));
        let open = move || Joined {
            source: (class.open_source)(SLOT).unwrap(),
            sink: (sink.open_sink)(SLOT).unwrap(),
            sender: Sender::new(class.demand, false, Limits::default()),
            receiver: Receiver::new(class.offer),
            sent: Effects::default(),
            answered: Effects::default(),
            applied: None,
        };
        // What they are made of stays in the thread that made it, as in production.
        let run = move || {
            let mut joined = open();
            joined.begin();
            while !stopped.load(Ordering::Relaxed) {
                match stuck.load(Ordering::Relaxed) {
                    true => std::thread::sleep(Duration::from_millis(1)),
                    false => joined.turn(),
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

/// What the hub at the other end would have of its own function.
fn spec_of(class: &sync::Class) -> ClassSpec {
    ClassSpec {
        name: class.demand.class.clone(),
        level: Level::default(),
        format: class.demand.format,
        schema_version: class.demand.schema,
    }
}

struct Joined {
    source: Box<dyn sync::Source>,
    sink: Box<dyn sync::Sink>,
    sender: Sender,
    receiver: Receiver,
    sent: Effects<SenderAction>,
    answered: Effects<ReceiverAction>,
    applied: Option<Ticket>,
}

impl Joined {
    fn begin(&mut self) {
        let token = 1;
        self.receive(ReceiverInput::Epoch {
            token,
            accepts: true,
        });
        self.receive(ReceiverInput::Connected);
        let is_active = true;
        self.send(SenderInput::Epoch { token, is_active });
        self.send(SenderInput::Connected { hash_key: [7; 16] });
    }

    fn turn(&mut self) {
        let mut inputs = Vec::new();
        let outcome = self.source.read(&mut inputs).unwrap();
        inputs.into_iter().for_each(|input| self.send(input));
        if self.sender.wants_chunk()
            && let Some(chunk) = self.source.read_chunk().unwrap()
        {
            self.send(chunk);
        }
        while let Some(chunk) = self.sink.read_sweep().unwrap() {
            self.receive(chunk);
        }
        self.send(SenderInput::Tick);
        self.receive(ReceiverInput::Tick);
        self.sender.flush(now(), &mut self.sent);
        let is_idle = self.sent.outgoing.is_empty() && outcome == ReadOutcome::Drained;
        self.carry();
        if is_idle {
            let fd = PollFd::from_borrowed_fd(self.source.as_fd(), PollFlags::IN);
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: 2_000_000,
            };
            let _ = poll(&mut [fd], Some(&timeout));
        }
    }

    /// Brings what was said to the other end, until neither has anything to say.
    fn carry(&mut self) {
        let mut there = Decoder::new();
        let mut back = Decoder::new();
        while !self.sent.outgoing.is_empty() || !self.answered.outgoing.is_empty() {
            there.push(&self.sent.outgoing.split());
            while let Some(frame) = there.next_frame().unwrap() {
                self.receive(ReceiverInput::Frame(frame));
            }
            if let Some(ticket) = self.applied.take() {
                self.sink.flush().unwrap();
                self.receive(ReceiverInput::Applied(ticket));
            }
            back.push(&self.answered.outgoing.split());
            while let Some(frame) = back.next_frame().unwrap() {
                self.send(SenderInput::Frame(frame));
            }
        }
    }

    fn send(&mut self, input: SenderInput) {
        self.sender.handle(now(), input, &mut self.sent);
        for action in std::mem::take(&mut self.sent.actions) {
            match action {
                SenderAction::StartScan { generation } => {
                    self.source.start_scan(generation).unwrap();
                }
                SenderAction::AbortScan => self.source.abort_scan(),
                SenderAction::Reached { id } => self.source.reached(id, true),
                SenderAction::Unreachable { id } => self.source.reached(id, false),
                // As in production: whoever waits for the standby waits for one that takes everything.
                SenderAction::InSync(_) | SenderAction::Lacking { .. } => {
                    let status = self.sender.status();
                    self.source.in_sync(status.in_sync && status.lacking == 0);
                }
                SenderAction::Refused { .. } | SenderAction::PeerMisbehaved => panic!("{action:?}"),
                _ => {}
            }
        }
    }

    fn receive(&mut self, input: ReceiverInput) {
        self.receiver.handle(now(), input, &mut self.answered);
        for action in std::mem::take(&mut self.answered.actions) {
            let ticket = self.sink.apply(&action).unwrap();
            self.applied = ticket.or(self.applied);
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
