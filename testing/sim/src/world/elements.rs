//! Elements: agents that start, die, stand still and do what their machines say.

use vnfpool_model::{Epoch, Incarnation, Time};
use vnfpool_succession::element::{Effect, Element, Input, Notice, Settings};
use vnfpool_wire::datagram::{Member, Message};

use super::host::{Agent, MAILBOX_MAX};
use super::{Event, MS, Moment, Parcel, World, machine_of, node_id};

/// Timers are late by up to this, and now and then …
const LATE_NS_MAX: u64 = MS / 5;
/// … by up to this.
const VERY_LATE_NS_MAX: u64 = 8 * MS;

impl World {
    /// A new life of an element's agent. It closes its gates before it speaks (R1).
    pub fn start(&mut self, node: usize) {
        let host = &self.hosts[node];
        if host.agent.is_some() || host.frozen(self.now) {
            return;
        }
        let keeps = self.breakage.starts_with_open_gates();
        let now = self.now;
        let host = &mut self.hosts[node];
        if self.breakage.forgets_incarnation() && host.life > 0 {
            host.incarnation_on_disk = host.incarnation;
        } else {
            host.take_incarnation(now);
        }
        host.life += 1;
        host.kept = None;
        host.mailbox.clear();
        let settings = Settings {
            me: host.member(node),
            timing: self.breakage.timing_of(node, self.shape.timing),
            lease_ms_max: self.shape.timing.lease_ms,
            on_quorum_loss: self.shape.on_quorum_loss,
        };
        let at = host.clock.read(now);
        let machine = self.breakage.inside(Element::new(settings, at));
        let machines = vec![machine; self.shape.slots];
        let wake_at = vec![u64::MAX; self.shape.slots];
        host.agent = Some(Agent { machines, wake_at });
        let (life, able) = (host.incarnation, host.able);
        self.note(|| format!("element {node} starts, life {life}"));
        self.new_keys(node);
        self.breakage.reborn(node);
        for slot in 0..self.shape.slots {
            if keeps {
                let what = crate::broken::Later::CloseGate;
                self.schedule(now + 100 * MS, Event::Broken { node, slot, what });
            } else {
                self.set_gate(node, slot, Time::ZERO);
            }
            self.checks.new_life(node, slot);
            for peer in self.elements().filter(|peer| *peer != node) {
                let peer = node_id(peer);
                let input = Input::Peer {
                    node: peer,
                    present: true,
                };
                self.input(node, slot, input);
            }
            let lans = self.shape.lans;
            self.input(node, slot, Input::WitnessLans(Some(lans)));
            self.input(node, slot, Input::Able(able));
        }
    }

    /// The agent dies, its kernel goes on.
    pub fn kill(&mut self, node: usize) {
        self.hosts[node].kept = None;
        if self.hosts[node].agent.take().is_some() {
            self.note(|| format!("element {node}: the agent dies"));
        }
    }

    /// The machine loses its power.
    pub fn power_off(&mut self, node: usize) {
        self.kill(node);
        self.note(|| format!("element {node} is off"));
        for slot in 0..self.shape.slots {
            self.set_gate(node, slot, Time::ZERO);
        }
    }

    /// The machine stands still; clocks and gates go on.
    pub fn freeze(&mut self, node: usize, ns: u64) {
        self.note(|| format!("machine {node} stands still for {} ms", ns / MS));
        let until = self.now + ns;
        self.hosts[node].frozen_until = until;
        self.schedule(until, Event::Thaw { node });
    }

    pub(super) fn thaw(&mut self, node: usize) {
        if self.hosts[node].frozen(self.now) {
            return;
        }
        self.note(|| format!("element {node} goes on"));
        if self.breakage.loses_mailbox() {
            self.hosts[node].mailbox.clear();
        }
        // The sockets are read before timers run (S2).
        while let Some((slot, parcel)) = self.hosts[node].mailbox.pop_front() {
            self.open_parcel(node, slot, parcel);
        }
        let able = self.hosts[node].able;
        for slot in 0..self.shape.slots {
            self.input(node, slot, Input::Able(able));
            self.input(node, slot, Input::Tick);
        }
    }

    /// The function of an element fails, or works again.
    pub fn set_able(&mut self, node: usize, able: bool) {
        self.note(|| format!("element {node}: able {able}"));
        self.hosts[node].able = able;
        for slot in 0..self.shape.slots {
            self.input(node, slot, Input::Able(able));
        }
    }

    /// The operator's word to whoever serves the slot.
    pub fn hand_over(&mut self, slot: usize) {
        let active = |node: &usize| self.role(*node, slot) == Some(vnfpool_model::Role::Active);
        let Some(node) = self.elements().find(active) else {
            return;
        };
        self.note(|| format!("the operator asks element {node} to hand slot {slot} over"));
        let life = self.hosts[node].life;
        let parcel = Parcel::HandOver;
        self.arrive(node, slot, life, parcel);
    }

    pub(super) fn arrive(&mut self, to: usize, slot: usize, life: u64, parcel: Parcel) {
        // Sealed for an earlier life: it does not authenticate, or so it should be.
        let parcel = match parcel {
            Parcel::Message { .. } if life != self.hosts[to].life && self.random.chance(50) => {
                Parcel::SignOfLife
            }
            Parcel::Drained | Parcel::HandOver if life != self.hosts[to].life => return,
            parcel => parcel,
        };
        let host = &mut self.hosts[to];
        if !host.frozen(self.now) {
            self.open_parcel(to, slot, parcel);
        } else if host.mailbox.len() < MAILBOX_MAX {
            host.mailbox.push_back((slot, parcel));
        }
    }

    fn open_parcel(&mut self, node: usize, slot: usize, parcel: Parcel) {
        let input = match parcel {
            Parcel::Message { from, message } => Input::Received {
                from: node_id(from),
                message,
            },
            Parcel::SignOfLife => Input::SignOfLife,
            Parcel::Witness { lan } => Input::Witness { lan },
            Parcel::Drained => Input::Drained,
            Parcel::HandOver => Input::HandOver,
        };
        self.input(node, slot, input);
    }

    pub(super) fn wake(&mut self, node: usize, slot: usize) {
        let host = &mut self.hosts[node];
        let Some(agent) = host.agent.as_mut() else {
            return;
        };
        if agent.wake_at[slot] != self.now {
            return;
        }
        agent.wake_at[slot] = u64::MAX;
        if host.frozen_until > self.now {
            return;
        }
        if agent.machines[slot].deadline() <= host.clock.read(self.now) {
            self.input(node, slot, Input::Tick);
        } else {
            self.set_timer(node, slot);
        }
    }

    /// Gives a machine an input and does what it says.
    pub(crate) fn input(&mut self, node: usize, slot: usize, input: Input) {
        let host = &mut self.hosts[node];
        if host.frozen(self.now) {
            return;
        }
        let now = host.clock.read(self.now);
        let Some(agent) = host.agent.as_mut() else {
            return;
        };
        let mut effects = std::mem::take(&mut self.element_effects);
        let machine = &mut agent.machines[slot];
        if self.breakage.is_none() {
            machine.handle(now, input, &mut effects);
        } else {
            let me = Member {
                node: node_id(node),
                incarnation: Incarnation(host.incarnation),
            };
            self.breakage
                .handle((node, slot), me, now, machine, input, &mut effects);
        }
        let epoch = machine.epoch();
        self.trace.add(epoch.fencing_token());
        self.checks.epoch(node, slot, epoch);
        for effect in effects.drain(..) {
            self.carry_out(node, slot, effect);
        }
        self.element_effects = effects;
        self.break_later();
        self.checks_after(node, slot);
        self.set_timer(node, slot);
    }

    /// I2: the kernel's gate is what the machine says.
    fn checks_after(&mut self, node: usize, slot: usize) {
        let host = &self.hosts[node];
        if let Some(agent) = host.agent.as_ref()
            && host.gates[slot] != agent.machines[slot].gate()
        {
            let now = host.clock.read(self.now);
            let lease = agent.machines[slot].gate();
            self.checks.gate_without_lease(now, host.gates[slot], lease);
        }
    }

    fn set_timer(&mut self, node: usize, slot: usize) {
        let host = &self.hosts[node];
        let Some(agent) = host.agent.as_ref() else {
            return;
        };
        let at = host.clock.when(agent.machines[slot].deadline(), self.now);
        if at >= agent.wake_at[slot] {
            return;
        }
        let late = match self.random.next() {
            few if few % 64 == 0 => self.random.below(VERY_LATE_NS_MAX),
            usual => usual % LATE_NS_MAX,
        };
        let at = at + late;
        if let Some(agent) = self.hosts[node].agent.as_mut()
            && at < agent.wake_at[slot]
        {
            agent.wake_at[slot] = at;
            self.schedule(at, Event::Wake { node, slot });
        }
    }

    fn carry_out(&mut self, node: usize, slot: usize, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                match message {
                    Message::Split(_) => {
                        self.checks.vote_sent(self.now, node, slot);
                        self.note(|| format!("element {node} slot {slot} sends {message:?}"));
                        self.moment(Moment::Voted);
                    }
                    Message::Handover(_) => {
                        self.note(|| format!("element {node} slot {slot} sends {message:?}"));
                        self.moment(Moment::HandedOver);
                    }
                    _ => {}
                }
                self.send(node, machine_of(to), slot, message);
            }
            Effect::Gate { until, epoch } => {
                let was = self.hosts[node].gates[slot];
                let broken = !self.breakage.is_none();
                if broken && self.breakage.misses_gate(self.now, node, slot, was, until) {
                    return;
                }
                self.gate(node, slot, until, epoch);
            }
            Effect::Announce { epoch } => {
                self.note(|| format!("element {node} slot {slot} announces {epoch}"));
                self.moment(Moment::Opened);
                for to in self.elements().filter(|to| *to != node) {
                    if let Some(travel) = self.network.shout(node, to, &mut self.random) {
                        let life = self.hosts[to].life;
                        let parcel = Parcel::SignOfLife;
                        self.schedule(
                            self.now + travel,
                            Event::Arrive {
                                to,
                                slot,
                                life,
                                parcel,
                            },
                        );
                    }
                }
            }
            Effect::Drain { .. } => {
                self.moment(Moment::Draining);
                self.drain(node, slot);
            }
            Effect::AskWitnesses => self.ask_witnesses(node, slot),
            Effect::Notify(notice) => self.notice(node, slot, notice),
        }
    }

    /// The machine opens, prolongs or closes its gate.
    pub(crate) fn gate(&mut self, node: usize, slot: usize, until: Time, epoch: Epoch) {
        if until != Time::ZERO {
            self.hosts[node].gate_epochs[slot] = epoch;
            self.checks.opened_in(node, slot, epoch);
        }
        self.set_gate(node, slot, until);
    }

    /// Writes a deadline into the kernel.
    pub(crate) fn set_gate(&mut self, node: usize, slot: usize, until: Time) {
        let host = &mut self.hosts[node];
        host.gates[slot] = until;
        let ends = match until {
            Time::ZERO => self.now,
            until => host.clock.when(until, self.now),
        };
        let others = || self.holders(slot).filter(|other| *other != node);
        let other = if ends > self.now {
            others().next()
        } else {
            None
        };
        self.checks.gate(self.now, node, slot, ends, other);
    }

    fn ask_witnesses(&mut self, node: usize, slot: usize) {
        let life = self.hosts[node].life;
        for lan in 0..self.shape.lans {
            let answers = self.network.witness_answers(lan, node);
            if self.breakage.witness(answers) {
                let at = self.now + MS / 10 + self.random.below(MS);
                let parcel = Parcel::Witness { lan };
                self.schedule(
                    at,
                    Event::Arrive {
                        to: node,
                        slot,
                        life,
                        parcel,
                    },
                );
            }
        }
    }

    fn notice(&mut self, node: usize, slot: usize, notice: Notice) {
        if let Notice::RoleChanged {
            epoch, role, cause, ..
        } = notice
        {
            self.checks.role_changed(self.now, slot, epoch, role, cause);
            self.took_over(node, slot, role, cause);
        }
        self.note(|| format!("element {node} slot {slot}: {notice:?}"));
    }
}
