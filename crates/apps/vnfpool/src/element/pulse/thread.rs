//! The thread itself: its rounds, and what the machines want done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use vnfpool_gate::Fence;
use vnfpool_heartbeat::{DATAGRAM_BYTES_MAX, Paths};
use vnfpool_model::{SlotId, Time};
use vnfpool_succession::element::{self, Effect, Effects, Element, Input, Settings};
use vnfpool_transport::datagram;
use vnfpool_wire::datagram::{Message, NodeId};

use super::retired::Retired;
use super::slot::Running;
use super::{Command, Furniture, Notice, Plane, Pulse, View};
use crate::element::inheritance::MachineKeeper;
use crate::pulse::{Inbox, Keyring, Opening, now};

/// How often the view for reports and metrics is renewed.
const VIEW_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct Thread {
    inbox: Inbox<Command, View>,
    /// Commands that were taken and not obeyed yet.
    commands: VecDeque<Command>,
    paths: Paths,
    view_at: Time,
    /// Counted here, shown in `view` now and then.
    published: View,
    keys: Keyring,
    peers: Vec<NodeId>,
    pub(super) slots: BTreeMap<SlotId, Running>,
    pub(super) retired: Retired,
    notices: mpsc::Sender<Notice>,
    effects: Effects,
}

impl Thread {
    pub(super) fn new(
        paths: Paths,
        keys: Keyring,
        notices: mpsc::Sender<Notice>,
    ) -> anyhow::Result<(Pulse, Self)> {
        let (handle, inbox) = Pulse::new()?;
        let retired = Retired::start().context("start the thread that lets slots go")?;
        let published = View {
            retiring: Arc::clone(&retired.waiting),
            ..View::default()
        };
        let thread = Self {
            inbox,
            commands: VecDeque::new(),
            paths,
            view_at: Time::ZERO,
            published,
            keys,
            peers: Vec::new(),
            slots: BTreeMap::new(),
            retired,
            notices,
            effects: Vec::new(),
        };
        Ok((handle, thread))
    }

    pub(super) fn run(mut self, first: Vec<Command>) {
        for command in first {
            self.obey(command);
        }
        let mut due = Time::ZERO;
        loop {
            // The sockets first: what waits there is older than any timer (S2).
            self.receive_all();
            self.inbox.take(&mut self.commands);
            while let Some(command) = self.commands.pop_front() {
                if matches!(command, Command::Stop) {
                    return self.close_all();
                }
                self.obey(command);
            }
            let at = now();
            if due != Time::ZERO && at >= due {
                self.published.lateness_us.add(at.since(due));
            }
            self.listen();
            self.run_timers(at);
            self.keys.keep_changes();
            self.publish(at);
            due = self.deadline(at);
            let ears = self
                .slots
                .values()
                .flat_map(|r| r.plane.furniture.ears.iter().map(|e| e.fd()));
            self.inbox.wait(self.paths.fds().chain(ears), due);
        }
    }

    fn deadline(&self, at: Time) -> Time {
        let slots = self.slots.values().map(Running::deadline);
        slots
            .min()
            .unwrap_or_else(|| at.after(Duration::from_secs(1)))
    }

    /// R1: an agent that goes leaves no gate open.
    fn close_all(&mut self) {
        for running in self.slots.values_mut() {
            running.plane.fence.close();
            running.plane.kept = None;
        }
    }

    pub(super) fn receive_all(&mut self) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let mut sign_of_life = false;
        self.paths.begin_round();
        while let Some(received) = self.paths.receive(&mut buffer) {
            match self.keys.open(&mut buffer[..received.length]) {
                Opening::Message {
                    from,
                    slot,
                    message,
                } => {
                    if let Message::Ack(ack) = &message {
                        self.published.round_trip_us.add(now().since(ack.echo));
                    }
                    if let Some(running) = self.slots.get_mut(&slot) {
                        running.measure(from, &message);
                        self.handle(slot, Input::Received { from, message });
                    } else if !std::mem::replace(&mut sign_of_life, true) {
                        // About another pool of our name, it may be: somebody is alive (S5).
                        self.handle_all(Input::SignOfLife);
                    }
                }
                Opening::Copy => {}
                // Somebody is alive who cannot prove it (S5); of a flood the first is enough.
                Opening::Hello | Opening::Rejected => {
                    if !std::mem::replace(&mut sign_of_life, true) {
                        self.handle_all(Input::SignOfLife);
                    }
                }
            }
        }
    }

    fn listen(&mut self) {
        let slots: Vec<_> = self.slots.keys().copied().collect();
        for slot in slots {
            let Some(running) = self.slots.get_mut(&slot) else {
                continue;
            };
            for input in running.heard() {
                self.handle(slot, input);
            }
        }
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::AddSlot {
                id,
                settings,
                plane,
            } => self.add_slot(id, settings, plane),
            Command::ResumeSlot {
                id,
                machine,
                fence,
                kept,
            } => self.resume_slot(id, *machine, fence, kept),
            Command::Furnish { id, furniture } => {
                let lans = furniture.witnessed_lans();
                if let Some(running) = self.slots.get_mut(&id) {
                    running.furnish(furniture);
                    self.handle(id, Input::WitnessLans(lans));
                }
            }
            Command::RemoveSlot(id) => {
                if let Some(mut running) = self.slots.remove(&id) {
                    running.plane.fence.close();
                    running.plane.kept = None;
                    self.retired.take(running.plane);
                }
                // Whoever removes the slot waits to see it gone.
                self.view_at = Time::ZERO;
            }
            Command::Keys { node, secret, side } => {
                // Fails only when the cryptographic library does; the peer then stays unheard.
                let _ = self.keys.install(node, &secret, side);
            }
            Command::Reach { node, paths } => {
                self.paths.set_peer(node.0, &paths);
                if node != NodeId::MANAGER && !self.peers.contains(&node) {
                    self.peers.push(node);
                    self.handle_all(Input::Peer {
                        node,
                        present: true,
                    });
                }
            }
            Command::Forget(node) => {
                self.peers.retain(|p| *p != node);
                self.paths.remove_peer(node.0);
                self.keys.remove(node);
                self.handle_all(Input::Peer {
                    node,
                    present: false,
                });
            }
            Command::Input {
                slot: Some(slot),
                input,
            } => self.handle(slot, input),
            Command::Input { slot: None, input } => self.handle_all(input),
            Command::Stop => {}
        }
    }

    fn add_slot(&mut self, id: SlotId, settings: Settings, mut plane: Plane) {
        if self.slots.contains_key(&id) {
            return;
        }
        plane.fence.close();
        let lans = plane.furniture.witnessed_lans();
        self.slots.insert(id, Running::new(id, settings, plane));
        self.handle(id, Input::WitnessLans(lans));
        for node in self.peers.clone() {
            self.handle(
                id,
                Input::Peer {
                    node,
                    present: true,
                },
            );
        }
    }

    fn resume_slot(
        &mut self,
        id: SlotId,
        machine: Element,
        fence: Box<dyn Fence>,
        kept: Option<MachineKeeper>,
    ) {
        let plane = Plane {
            fence,
            kept,
            furniture: Furniture::none(),
        };
        self.slots.insert(id, Running::resume(id, machine, plane));
        // Its beat is due.
        self.handle(id, Input::Tick);
    }

    fn run_timers(&mut self, at: Time) {
        let slots: Vec<_> = self.slots.keys().copied().collect();
        for slot in slots {
            let due = self
                .slots
                .get(&slot)
                .is_some_and(|r| r.machine.deadline() <= at);
            if due {
                self.handle(slot, Input::Tick);
            }
            if let Some(running) = self.slots.get_mut(&slot) {
                running.announce_again(at);
            }
        }
    }

    fn handle_all(&mut self, input: Input) {
        let slots: Vec<_> = self.slots.keys().copied().collect();
        for slot in slots {
            self.handle(slot, input);
        }
    }

    fn handle(&mut self, slot: SlotId, input: Input) {
        let Some(running) = self.slots.get_mut(&slot) else {
            return;
        };
        let mut effects = std::mem::take(&mut self.effects);
        running.machine.handle(now(), input, &mut effects);
        // Before anything of it is carried out: another process goes on as if all of it were.
        running.keep();
        for effect in effects.drain(..) {
            self.carry_out(slot, effect);
        }
        self.effects = effects;
    }

    fn carry_out(&mut self, slot: SlotId, effect: Effect) {
        let Some(running) = self.slots.get_mut(&slot) else {
            return;
        };
        match effect {
            Effect::Send { to, message } => {
                if matches!(message, Message::Heartbeat(_)) {
                    self.published.heartbeats_sent += 1;
                }
                let mut datagram = [0; DATAGRAM_BYTES_MAX];
                if let Some(sealed) = self.keys.seal(to, slot, &message, &mut datagram) {
                    self.paths.send(to.0, sealed);
                } else if matches!(message, Message::Gossip(_)) {
                    // A peer that serves on evidence has to know that we are here before the
                    // connection that brings the keys.
                    self.paths.send(to.0, &datagram::hello());
                }
            }
            Effect::Gate {
                until: Time::ZERO, ..
            } => {
                running.close();
            }
            Effect::Gate { until, .. } => running.raise(until),
            Effect::Announce { epoch } => {
                let takeover = running.announce();
                self.tell(Notice::Serving {
                    slot,
                    epoch,
                    takeover,
                });
            }
            Effect::Drain { .. } => self.tell(Notice::Drain { slot }),
            Effect::AskWitnesses => running.ask_witnesses(),
            Effect::Notify(notice) => {
                running.note(notice);
                if matches!(notice, element::Notice::RoleChanged { .. }) {
                    // Whoever hears of it looks at the view.
                    self.view_at = Time::ZERO;
                    self.publish(now());
                }
                self.tell(Notice::Machine { slot, notice });
            }
        }
    }

    fn tell(&mut self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            self.published.notices_lost += 1;
        }
    }

    fn publish(&mut self, at: Time) {
        if at.since(self.view_at) < VIEW_INTERVAL {
            return;
        }
        let Self {
            inbox,
            published,
            keys,
            paths,
            slots,
            ..
        } = self;
        let done = inbox.publish(|view| {
            published.datagrams_accepted = keys.counters.accepted;
            published.datagrams_copies = keys.counters.copies;
            published.datagrams_hellos = keys.counters.hellos;
            published.datagrams_rejected = keys.counters.rejected;
            let counters = paths.counters().map(|(name, c)| (name.to_owned(), c));
            published.paths = counters.collect();
            published.slots = slots.iter_mut().map(|(id, r)| (*id, r.view())).collect();
            view.clone_from(published);
        });
        // Whoever reads it is quick; if not, the next round is early enough.
        if done {
            self.view_at = at;
        }
    }
}
