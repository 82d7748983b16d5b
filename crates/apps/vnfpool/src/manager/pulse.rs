//! The manager's real-time thread: it answers every element's request at once.
//!
//! It owns the datagram socket, the keys and the machine of every slot. Records go to the store's
//! thread and come back as [`Command::Persisted`]; nothing here waits for a disk.

mod turns;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};
use vnfpool_heartbeat::{DATAGRAM_BYTES_MAX, PathSpec, Paths};
use vnfpool_model::{Epoch, Incarnation, PoolHandle, SlotId, Time};
use vnfpool_succession::manager::{
    Decision, Effect, Effects, Input, Quarantined, Release, Settings, Slot, Stored, VoteRefusal,
};
use vnfpool_transport::datagram::Side;
use vnfpool_wire::datagram::{Member, Message, NodeId, Record};

use self::turns::Turns;
use super::crash::{self, Step};
use crate::pulse::{Inbox, Keyring, Opening, guard, now};

pub(crate) use self::turns::Handover;

/// A record that could not be written is tried again after this time.
const PERSIST_RETRY: Duration = Duration::from_millis(100);

/// Writings are numbered anew after this.
const WRITING_NUMBER_MAX: u32 = u32::MAX >> 1;

/// How often the view for `status` and metrics is renewed.
const VIEW_INTERVAL: Duration = Duration::from_millis(50);

/// What the rest of the manager asks of the thread.
#[derive(Debug)]
pub(crate) enum Command {
    AddSlot {
        id: SlotId,
        /// Only elements of this pool may speak about the slot.
        pool: PoolHandle,
        settings: Settings,
        /// What the disk has of it.
        stored: Option<Stored>,
    },
    RemoveSlot {
        id: SlotId,
        /// Told when nothing more is granted or decided.
        removed: oneshot::Sender<()>,
    },
    Keys {
        node: NodeId,
        /// The pool in its certificate.
        pool: PoolHandle,
        secret: [u8; 32],
        side: Side,
    },
    Input {
        slot: SlotId,
        input: Input,
    },
    /// Its active was asked to hand over; none: no more, and it has not.
    Ordered {
        slot: SlotId,
        from: Option<NodeId>,
    },
    Persisted(Writing),
    PersistFailed(Writing),
    Stop,
}

/// What is on its way to the disk for a slot. Its number tells it from a record of another machine
/// that the slot may have had before, and which may be of the same term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Writing {
    pub(crate) slot: SlotId,
    pub(crate) number: u32,
}

/// What the thread tells the rest of the manager.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    Decided {
        slot: SlotId,
        record: Record,
        decision: Decision,
        /// How long the decision waited for the disk.
        disk: Duration,
        /// The record was prepared before it was decided.
        prepared: bool,
    },
    /// Nobody here has ordered it.
    HandedOver {
        slot: SlotId,
        handover: Handover,
    },
    VoteRefused {
        slot: SlotId,
        from: NodeId,
        reason: VoteRefusal,
    },
    Quarantined {
        slot: SlotId,
        who: Quarantined,
    },
    Released {
        slot: SlotId,
        node: NodeId,
        cause: Release,
    },
}

/// A slot as the thread sees it, for `status`, placement and metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotView {
    pub(crate) record: Option<Record>,
    pub(crate) epoch: Epoch,
    pub(crate) active: Option<Member>,
    pub(crate) waits_for_disk: bool,
    /// Element, when it was heard last, in which life.
    pub(crate) heard: Vec<(NodeId, Time, Incarnation)>,
    pub(crate) quarantined: Vec<Quarantined>,
}

/// All slots and what became of incoming datagrams.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) slots: BTreeMap<SlotId, SlotView>,
    pub(crate) datagrams_accepted: u64,
    /// Replayed, or copied by the network.
    pub(crate) datagrams_copies: u64,
    pub(crate) datagrams_rejected: u64,
    /// About slots of another pool.
    pub(crate) datagrams_foreign: u64,
}

/// Brings what there is of a slot to the disk and answers with [`Command::Persisted`] or
/// [`Command::PersistFailed`].
pub(crate) type Persist = Box<dyn FnMut(Writing, Stored) + Send>;

/// A handle on the thread.
pub(crate) type Pulse = crate::pulse::Pulse<Command, View>;

/// The thread before it runs: its handle exists already, so that callbacks can be built from it.
pub(crate) struct PulseSetup {
    pub(crate) handle: Pulse,
    inbox: Inbox<Command, View>,
    paths: Paths,
}

impl PulseSetup {
    /// Binds the datagram socket.
    pub(crate) fn bind(local: SocketAddr) -> anyhow::Result<Self> {
        let spec = PathSpec {
            name: "any".to_owned(),
            local,
            interface: None,
        };
        let paths = Paths::bind(&[spec]).context("another manager may be running")?;
        let (handle, inbox) = Pulse::new()?;
        Ok(Self {
            handle,
            inbox,
            paths,
        })
    }

    /// What the thread would be asked, were it running.
    #[cfg(test)]
    pub(crate) fn commands(&mut self) -> Vec<Command> {
        let mut commands = VecDeque::new();
        self.inbox.take(&mut commands);
        commands.into()
    }

    /// Starts the thread; `prepare` runs on it first (scheduling class, locked memory).
    pub(crate) fn start(
        self,
        persist: Persist,
        notices: mpsc::Sender<Notice>,
        prepare: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<JoinHandle<()>> {
        let thread = Thread {
            inbox: self.inbox,
            commands: VecDeque::new(),
            paths: self.paths,
            view_at: Time::ZERO,
            keys: Keyring::default(),
            pools: BTreeMap::new(),
            foreign: 0,
            slots: BTreeMap::new(),
            retries: Vec::new(),
            next_number: 0,
            persist,
            notices,
            effects: Vec::new(),
        };
        let spawned = std::thread::Builder::new()
            .name("pulse".into())
            .spawn(move || {
                guard::or_abort("pulse", move || {
                    prepare();
                    thread.run();
                });
            });
        spawned.context("start the heartbeat thread")
    }
}

struct Thread {
    inbox: Inbox<Command, View>,
    /// Commands that were taken and not obeyed yet.
    commands: VecDeque<Command>,
    paths: Paths,
    view_at: Time,
    keys: Keyring,
    /// The pool of each element that has keys.
    pools: BTreeMap<NodeId, PoolHandle>,
    /// Messages about slots of another pool.
    foreign: u64,
    slots: BTreeMap<SlotId, Running>,
    /// Records that the disk refused, and when to try again.
    retries: Vec<(Time, Writing)>,
    /// Of the next record that goes to the disk.
    next_number: u32,
    persist: Persist,
    notices: mpsc::Sender<Notice>,
    effects: Effects,
}

struct Running {
    pool: PoolHandle,
    machine: Slot,
    turns: Turns,
    /// What is on its way to the disk.
    persisting: Option<(Writing, Stored)>,
}

impl Running {
    fn writes(&self, writing: Writing) -> bool {
        self.persisting.is_some_and(|(ours, _)| ours == writing)
    }

    /// Whether a member says in which turn of the record's term it is.
    fn says_turn(&self, input: &Input) -> bool {
        let Input::Received {
            from,
            message: Message::Request(request),
        } = input
        else {
            return false;
        };
        let member = Member {
            node: *from,
            incarnation: request.incarnation,
        };
        let record = self.machine.record();
        record.is_some_and(|r| r.term == request.epoch.term && r.names(member))
    }
}

impl Thread {
    fn run(mut self) {
        loop {
            self.receive_all();
            self.inbox.take(&mut self.commands);
            while let Some(command) = self.commands.pop_front() {
                if matches!(command, Command::Stop) {
                    return;
                }
                self.obey(command);
            }
            let at = now();
            let due = self.run_timers(at);
            self.publish(at);
            self.inbox.wait(self.paths.fds(), due);
        }
    }

    fn receive_all(&mut self) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        self.paths.begin_round();
        while let Some(received) = self.paths.receive(&mut buffer) {
            let datagram = &mut buffer[..received.length];
            let Opening::Message {
                from,
                slot,
                message,
            } = self.keys.open(datagram)
            else {
                continue;
            };
            let theirs = self.pools.get(&from);
            let slots = self.slots.get(&slot).map(|running| &running.pool);
            if theirs.is_none() || theirs != slots {
                // An element of one pool has no say in another, nor in a slot that is gone.
                self.foreign += 1;
                continue;
            }
            self.paths.answer_to(from.0, received);
            self.note_failover(from, slot, &message);
            self.handle(slot, Input::Received { from, message });
        }
    }

    /// The vote of a successor is the first step of a failover.
    fn note_failover(&self, from: NodeId, slot: SlotId, message: &Message) {
        let active = || self.slots.get(&slot).and_then(|r| r.machine.active());
        if let Message::Split(vote) = message
            && vote.able
            && active().is_some_and(|active| active.node != from)
        {
            crash::failover_begins();
            crash::point(Step::VoteReceived);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::AddSlot {
                id,
                pool,
                settings,
                stored,
            } => {
                let machine = Slot::new(settings, stored, now());
                self.slots.entry(id).or_insert_with(|| Running {
                    pool,
                    machine,
                    turns: Turns::default(),
                    persisting: None,
                });
            }
            Command::RemoveSlot { id, removed } => {
                self.slots.remove(&id);
                self.retries.retain(|(_, writing)| writing.slot != id);
                self.view_at = Time::ZERO;
                // Whoever asked may have given up.
                let _ = removed.send(());
            }
            Command::Keys {
                node,
                pool,
                secret,
                side,
            } => {
                // Fails only when the cryptographic library does; the element then stays unheard.
                let _ = self.keys.install(node, &secret, side);
                self.pools.insert(node, pool);
            }
            Command::Input { slot, input } => self.handle(slot, input),
            Command::Ordered { slot, from } => {
                if let Some(running) = self.slots.get_mut(&slot) {
                    running.turns.order(from);
                }
            }
            Command::Persisted(writing) => {
                let running = self.slots.get_mut(&writing.slot);
                if let Some(running) = running.filter(|r| r.writes(writing)) {
                    let written = running.persisting.take();
                    if written.is_some_and(|(_, stored)| stored.prepared.is_some()) {
                        crash::point(Step::RecordPrepared);
                    }
                    crash::point(Step::RecordWritten);
                    self.handle(writing.slot, Input::Persisted);
                }
            }
            Command::PersistFailed(writing) => {
                let running = self.slots.get(&writing.slot);
                if running.is_some_and(|r| r.writes(writing)) {
                    self.retries.push((now().after(PERSIST_RETRY), writing));
                }
            }
            Command::Stop => {}
        }
    }

    fn run_timers(&mut self, at: Time) -> Time {
        let due: Vec<_> = self
            .retries
            .extract_if(.., |(when, _)| *when <= at)
            .collect();
        for (_, writing) in due {
            let running = self.slots.get(&writing.slot);
            let waiting = running.and_then(|running| running.persisting);
            if let Some((ours, stored)) = waiting.filter(|w| w.0 == writing) {
                (self.persist)(ours, stored);
            }
        }
        let slots: Vec<_> = self.slots.keys().copied().collect();
        for slot in slots {
            self.handle(slot, Input::Tick);
        }
        let deadlines = self
            .slots
            .values()
            .map(|running| running.machine.deadline(at));
        let retries = self.retries.iter().map(|(when, _)| *when);
        deadlines
            .chain(retries)
            .min()
            .unwrap_or_else(|| at.after(Duration::from_secs(1)))
    }

    fn handle(&mut self, slot: SlotId, input: Input) {
        let Some(running) = self.slots.get_mut(&slot) else {
            return;
        };
        let mut effects = std::mem::take(&mut self.effects);
        let (at, is_said, before) = (now(), running.says_turn(&input), running.machine.epoch());
        running.machine.handle(at, input, &mut effects);
        let epoch = running.machine.epoch();
        if epoch != before {
            self.view_at = Time::ZERO;
        }
        let active = running.machine.active().map(|member| member.node);
        let handover =
            active.and_then(|active| running.turns.look((epoch.term, active), is_said, at));
        if let Some(handover) = handover {
            // Before the decision that may follow from it.
            let _ = self.notices.try_send(Notice::HandedOver { slot, handover });
        }
        let mut is_decided = false;
        for effect in effects.drain(..) {
            let is_answer = is_decided && matches!(effect, Effect::Send { .. });
            is_decided |= matches!(effect, Effect::Decided { .. });
            self.carry_out(slot, effect);
            if is_answer {
                crash::point(Step::VoterAnswered);
            }
        }
        self.effects = effects;
    }

    fn carry_out(&mut self, slot: SlotId, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                let mut datagram = [0; DATAGRAM_BYTES_MAX];
                if let Some(sealed) = self.keys.seal(to, slot, &message, &mut datagram) {
                    self.paths.send(to.0, sealed);
                }
            }
            Effect::Persist { stored, decision } => {
                crash::point(match decision {
                    Some(_) => Step::VoteCounted,
                    None => Step::MembersTold,
                });
                let number = self.next_number;
                self.next_number = (number + 1) & WRITING_NUMBER_MAX;
                let writing = Writing { slot, number };
                if let Some(running) = self.slots.get_mut(&slot) {
                    running.persisting = Some((writing, stored));
                }
                (self.persist)(writing, stored);
            }
            // A reader that is far behind misses a line of the log, never a decision.
            Effect::Decided {
                record,
                decision,
                disk,
                prepared,
            } => {
                if prepared {
                    crash::point(Step::VoteCounted);
                }
                crash::point(Step::RecordInForce);
                self.view_at = Time::ZERO;
                let _ = self.notices.try_send(Notice::Decided {
                    slot,
                    record,
                    decision,
                    disk,
                    prepared,
                });
            }
            Effect::VoteRefused { from, reason } => {
                let _ = self
                    .notices
                    .try_send(Notice::VoteRefused { slot, from, reason });
            }
            Effect::Quarantined(who) => {
                self.view_at = Time::ZERO;
                let _ = self.notices.try_send(Notice::Quarantined { slot, who });
            }
            Effect::Released { node, cause } => {
                self.view_at = Time::ZERO;
                let notice = Notice::Released { slot, node, cause };
                let _ = self.notices.try_send(notice);
            }
        }
    }

    fn publish(&mut self, at: Time) {
        if at.since(self.view_at) < VIEW_INTERVAL {
            return;
        }
        let (keys, foreign, slots) = (&self.keys, self.foreign, &self.slots);
        let published = self.inbox.publish(|view| {
            view.datagrams_accepted = keys.counters.accepted;
            view.datagrams_copies = keys.counters.copies;
            view.datagrams_rejected = keys.counters.rejected;
            view.datagrams_foreign = foreign;
            let views = slots.iter().map(|(id, r)| (*id, view_of(&r.machine, at)));
            view.slots = views.collect();
        });
        // Whoever reads it is quick; if not, the next round is early enough.
        if published {
            self.view_at = at;
        }
    }
}

fn view_of(machine: &Slot, at: Time) -> SlotView {
    SlotView {
        record: machine.record(),
        epoch: machine.epoch(),
        active: machine.active(),
        waits_for_disk: machine.waits_for_disk(),
        // Somebody who was only declared gone has never been heard.
        heard: machine
            .all_heard()
            .filter(|(_, at, _)| *at != Time::ZERO)
            .collect(),
        quarantined: machine.quarantined(at).collect(),
    }
}

#[cfg(test)]
pub(super) mod tests;
