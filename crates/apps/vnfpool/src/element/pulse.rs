//! The element's real-time thread: heartbeats, leases, the gate, announcements.
//!
//! It owns the datagram sockets of every path, the keys, the machine of every slot and the
//! slot's data plane. Whatever can wait (QUIC, connection tracking, hooks, the log) is told
//! through a bounded queue and never waited for.

mod retired;
mod slot;
mod takeover;
#[cfg(test)]
mod tests;
mod thread;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use vnfpool_gate::Fence;
use vnfpool_heartbeat::{PathCounters, Paths, PeerPath};
use vnfpool_model::{Epoch, Role, SlotId, Time};
use vnfpool_succession::element::{self, Element, Input, Settings};
use vnfpool_transport::datagram::Side;
use vnfpool_wire::datagram::{Member, NodeId};

pub(crate) use self::takeover::Takeover;
use self::thread::Thread;
use super::figures::Samples;
use super::inheritance::MachineKeeper;
use crate::pulse::{Keyring, guard};

/// What the rest of the agent asks of the thread.
pub(crate) enum Command {
    AddSlot {
        id: SlotId,
        settings: Settings,
        plane: Plane,
    },
    /// Goes on with a slot that another process of this life has served or held.
    ResumeSlot {
        id: SlotId,
        machine: Box<Element>,
        fence: Box<dyn Fence>,
        kept: Option<MachineKeeper>,
    },
    /// The rest of the data plane of a slot that is gone on with.
    Furnish {
        id: SlotId,
        furniture: Furniture,
    },
    RemoveSlot(SlotId),
    Keys {
        node: NodeId,
        secret: [u8; 32],
        side: Side,
    },
    Reach {
        node: NodeId,
        paths: Vec<PeerPath>,
    },
    Forget(NodeId),
    /// An input for one slot, or for all.
    Input {
        slot: Option<SlotId>,
        input: Input,
    },
    Stop,
}

/// A slot's data plane as the thread uses it: nothing in it blocks, but dropping it does.
pub(crate) struct Plane {
    /// The gate.
    pub(crate) fence: Box<dyn Fence>,
    /// Where the machine is kept for another process of this life.
    pub(crate) kept: Option<MachineKeeper>,
    pub(crate) furniture: Furniture,
}

/// What a slot can do without for a moment.
pub(crate) struct Furniture {
    /// Tells every LAN where the addresses are.
    pub(crate) announce: Box<dyn FnMut() + Send>,
    /// One for each LAN with a witness.
    pub(crate) ears: Vec<Box<dyn Ear>>,
    /// Whether every LAN served has a witness.
    pub(crate) witnessed: bool,
}

impl Furniture {
    /// Tells nobody and hears nothing.
    fn none() -> Self {
        Self {
            announce: Box::new(|| {}),
            ears: Vec::new(),
            witnessed: false,
        }
    }

    /// How many LANs have a witness; none if not all have.
    fn witnessed_lans(&self) -> Option<usize> {
        self.witnessed.then_some(self.ears.len())
    }
}

/// Listens on a LAN for witnesses and for others that announce our addresses.
pub(crate) trait Ear: Send {
    /// To be polled.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Asks the witnesses.
    fn ask(&mut self);
    /// What was heard; none when there is no more.
    fn hear(&mut self) -> Option<Heard>;
}

/// What an ear hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A witness answered.
    Witness,
    /// Somebody else announced a virtual address.
    Foreign,
    /// A conversation of others.
    Other,
}

/// What the thread tells the rest of the agent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    /// The machine's own notices.
    Machine {
        slot: SlotId,
        notice: element::Notice,
    },
    /// The data plane is stopped: bring what it left to the successor, then
    /// [`Input::Drained`].
    Drain { slot: SlotId },
    /// The gate opened, and how long that took.
    Serving {
        slot: SlotId,
        epoch: Epoch,
        takeover: Takeover,
    },
}

/// A slot as the thread sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SlotView {
    pub(crate) epoch: Epoch,
    pub(crate) role: Role,
    pub(crate) peer: Option<Member>,
    pub(crate) active: Option<Member>,
    pub(crate) gate: Time,
    pub(crate) unconfirmed: bool,
    pub(crate) manager_heard_at: Time,
    /// The smallest rest of the lease at a renewal since the last view.
    pub(crate) lease_margin: Option<Duration>,
    /// By how much the longest silence of the last seconds was longer than the interval in which
    /// peers speak.
    pub(crate) silence_excess: Duration,
    pub(crate) failovers: u64,
    pub(crate) handovers: u64,
    pub(crate) records: u64,
    /// The newest.
    pub(crate) takeover: Option<Takeover>,
}

/// All slots, and what passed.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) slots: BTreeMap<SlotId, SlotView>,
    pub(crate) paths: Vec<(String, PathCounters)>,
    pub(crate) datagrams_accepted: u64,
    pub(crate) datagrams_copies: u64,
    pub(crate) datagrams_hellos: u64,
    pub(crate) datagrams_rejected: u64,
    /// Heartbeat round trips in microseconds, newest last.
    pub(crate) round_trip_us: Samples,
    /// How late the thread woke, in microseconds.
    pub(crate) lateness_us: Samples,
    pub(crate) heartbeats_sent: u64,
    pub(crate) notices_lost: u64,
    /// Data planes of removed slots that are not gone yet; always up to date.
    pub(crate) retiring: Arc<AtomicUsize>,
}

/// A handle on the thread.
pub(crate) type Pulse = crate::pulse::Pulse<Command, View>;

impl Pulse {
    /// An input for every slot.
    pub(crate) fn input_all(&self, input: Input) {
        self.send(Command::Input { slot: None, input });
    }

    /// An input for one slot.
    pub(crate) fn input(&self, slot: SlotId, input: Input) {
        self.send(Command::Input {
            slot: Some(slot),
            input,
        });
    }

    /// Starts the thread; `prepare` runs on it first (scheduling class, locked memory).
    pub(crate) fn start(
        paths: Paths,
        keys: Keyring,
        first: Vec<Command>,
        notices: mpsc::Sender<Notice>,
        prepare: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let (handle, thread) = Thread::new(paths, keys, notices)?;
        let spawned = std::thread::Builder::new()
            .name("pulse".into())
            .spawn(move || {
                guard::or_abort("pulse", move || {
                    prepare();
                    thread.run(first);
                });
            });
        Ok((handle, spawned.context("start the heartbeat thread")?))
    }
}
