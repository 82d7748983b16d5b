//! An element with its kernel and its virtual machine: one part of the world.

use vnfpool_model::{Epoch, Incarnation, OnQuorumLoss, Role, Time};
use vnfpool_succession::element::{Effect, Element, Input, Settings};
use vnfpool_succession::model::Clock;
use vnfpool_wire::datagram::{Member, Message, NodeId, Record};

use crate::clock::{Clocks, now, place};
use crate::letter::{Body, Letter};
use crate::mutation::Mutation;
use crate::world::World;

/// One machine: the agent may be dead, frozen or replaced; the kernel's gate lives on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// Its number, from 1.
    pub node: usize,
    /// The agent's machine; none while it is dead.
    pub life: Option<Element>,
    /// The deadline in the kernel.
    pub gate: Time,
    /// Counts the lives.
    pub incarnation: u64,
    /// Whether the network function works.
    pub able: bool,
    /// It stands still: nothing is heard, no timer runs.
    pub frozen: bool,
    /// It reaches nobody, witnesses included.
    pub isolated: bool,
    /// What a killed agent has written down, for another process to go on from.
    pub kept: Option<Box<Element>>,
    /// A snapshot of the virtual machine: agent and kernel.
    pub image: Option<Box<(Element, Time)>>,
}

/// What happens to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cue {
    /// A letter arrives.
    Hear(Letter),
    /// Its timer fires; the state stream has proved the copy of this member just now (I5).
    Beat(Option<Member>),
    /// The operator's switchover.
    HandOver,
    /// The network function fails or works again.
    Able(bool),
    /// The agent dies; the kernel's gate lives on.
    Die,
    /// The agent is killed while it carries out what this letter, or else its timer, brings: the
    /// machine is written down, the first so many effects have happened, the others never do.
    Kill(Option<Letter>, u8),
    /// Another process goes on in the same life (decision 0014).
    Resume,
    /// The machine is switched off.
    PowerOff,
    /// A new life of the agent: the gate is closed before it speaks (R1).
    Live,
    /// It stands still, or goes on.
    Freeze(bool),
    /// It is cut from everything, witnesses included, or no longer.
    Isolate(bool),
    /// A snapshot of the virtual machine is taken.
    Save,
    /// The virtual machine is put back to its snapshot; its clock shows the right time.
    Restore,
}

/// What the checks and the world see of a host.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The kernel lets the slot's packets out.
    pub open: bool,
    /// The agent lives.
    pub alive: bool,
    /// It lives and is not frozen.
    pub awake: bool,
    /// Its timer is due.
    pub due: bool,
    /// This element in this life.
    pub me: Member,
    /// What it takes itself for.
    pub role: Role,
    /// The newest record that it knows.
    pub record: Option<Record>,
    /// The newest epoch that it knows.
    pub epoch: Epoch,
    /// The other member of its pair.
    pub peer: Option<Member>,
    /// It serves on evidence alone.
    pub unconfirmed: bool,
    /// Whether the network function works.
    pub able: bool,
    /// It is cut from everything.
    pub isolated: bool,
    /// Its agent is dead, and another process can go on in its life.
    pub kept: bool,
    /// There is a snapshot of it.
    pub saved: bool,
}

impl Host {
    /// A machine that is off.
    #[must_use]
    pub const fn new(node: usize) -> Self {
        Self {
            node,
            life: None,
            gate: Time::ZERO,
            incarnation: 0,
            able: true,
            frozen: false,
            isolated: false,
            kept: None,
            image: None,
        }
    }

    /// What can be seen of it.
    #[must_use]
    pub fn view(&self) -> View {
        let life = self.life.as_ref();
        View {
            open: self.gate > now(self.node),
            alive: life.is_some(),
            awake: life.is_some() && !self.frozen,
            due: life.is_some_and(|l| !self.frozen && l.deadline() <= now(self.node)),
            me: self.member(),
            role: life.map_or(Role::Spare, Element::role),
            record: life.and_then(Element::record),
            epoch: life.map_or_else(Epoch::default, Element::epoch),
            peer: life.and_then(Element::pair_peer),
            unconfirmed: life.is_some_and(Element::unconfirmed),
            able: self.able,
            isolated: self.isolated,
            kept: self.kept.is_some(),
            saved: self.image.is_some(),
        }
    }

    fn member(&self) -> Member {
        Member {
            node: node_id(self.node),
            incarnation: Incarnation(self.incarnation),
        }
    }

    /// One tick passes.
    pub fn age(&mut self, world: &World, clocks: &Clocks) {
        let node = self.node;
        if self.frozen && world.mutation == Some(Mutation::SilenceCountsWhileFrozen) {
            let gate = self.gate;
            self.give(world, Input::Tick, &mut Vec::new());
            self.gate = gate;
        }
        clocks.age(node, std::time::Duration::ZERO, &mut self.gate);
        if let Some(life) = &mut self.life {
            age_life(node, life, clocks);
            fold(world, self.node, life);
        }
        if let Some(kept) = &mut self.kept {
            age_life(node, kept, clocks);
            fold(world, self.node, kept);
        }
        if let Some(image) = self.image.as_mut().filter(|_| !world.image_clock_stands) {
            age_life(node, &mut image.0, clocks);
            clocks.age(node, std::time::Duration::ZERO, &mut image.1);
        }
    }

    /// Something happens; the letters that it sends are appended.
    pub fn react(&mut self, world: &World, cue: Cue, letters: &mut Vec<Letter>) {
        match cue {
            Cue::Hear(letter) => self.hear(world, letter, letters),
            Cue::Beat(proof) => {
                if let Some(peer) = proof {
                    let as_of = Some(now(self.node));
                    self.handle(world, Input::InSync { peer, as_of }, letters);
                }
                self.handle(world, Input::Tick, letters);
            }
            Cue::HandOver => self.handle(world, Input::HandOver, letters),
            Cue::Able(able) => {
                self.able = able;
                self.handle(world, Input::Able(able), letters);
            }
            Cue::Die => self.life = None,
            Cue::Kill(letter, carried) => self.kill(world, letter, carried, letters),
            Cue::Resume => self.resume(world, letters),
            Cue::PowerOff => {
                self.life = None;
                self.kept = None;
                self.gate = Time::ZERO;
            }
            Cue::Live => self.live(world, letters),
            Cue::Freeze(frozen) => self.frozen = frozen,
            Cue::Isolate(isolated) => self.isolated = isolated,
            Cue::Save => self.image = self.life.clone().map(|life| Box::new((life, self.gate))),
            Cue::Restore => {
                if let Some(image) = self.image.take() {
                    self.life = Some(image.0);
                    self.gate = image.1;
                    self.frozen = false;
                }
            }
        }
        if let Some(life) = &mut self.life {
            fold(world, self.node, life);
        }
    }

    fn kill(
        &mut self,
        world: &World,
        letter: Option<Letter>,
        carried: u8,
        letters: &mut Vec<Letter>,
    ) {
        let input = letter.and_then(input_of).unwrap_or(Input::Tick);
        let Some(mut life) = self.life.take() else {
            return;
        };
        let mut effects = Vec::new();
        life.handle(now(self.node), input, &mut effects);
        effects.truncate(usize::from(carried));
        // Without a life, what an effect asks back is not heard.
        self.carry_out(world, effects, letters);
        self.kept = Some(Box::new(life));
    }

    fn resume(&mut self, world: &World, letters: &mut Vec<Letter>) {
        let Some(mut life) = self.kept.take() else {
            return;
        };
        let here = now(self.node);
        life.resume(here);
        self.gate = Some(life.gate())
            .filter(|gate| *gate > here)
            .unwrap_or(Time::ZERO);
        self.life = Some(*life);
        self.handle(world, Input::Tick, letters);
    }

    fn live(&mut self, world: &World, letters: &mut Vec<Letter>) {
        if world.mutation != Some(Mutation::VotesWithoutIncarnation) || self.incarnation == 0 {
            self.incarnation += 1;
        }
        if world.mutation != Some(Mutation::GateClosedAfterRegistration) {
            self.gate = Time::ZERO;
        }
        self.frozen = false;
        self.kept = None;
        let settings = Settings {
            me: self.member(),
            timing: world.timing(),
            lease_ms_max: world.timing().lease_ms,
            on_quorum_loss: world.on_quorum_loss,
        };
        self.life = Some(Element::new(settings, now(self.node)));
        let me = self.node;
        for peer in world.hosts().filter(|peer| *peer != me) {
            let node = node_id(peer);
            let present = true;
            self.give(world, Input::Peer { node, present }, letters);
        }
        self.give(world, Input::WitnessLans(Some(1)), letters);
        self.handle(world, Input::Able(self.able), letters);
    }

    fn hear(&mut self, world: &World, letter: Letter, letters: &mut Vec<Letter>) {
        let Some(input) = input_of(letter) else {
            return;
        };
        self.handle(world, input, letters);
    }

    /// Gives an input to the machine, as it is or broken on purpose.
    fn handle(&mut self, world: &World, input: Input, letters: &mut Vec<Letter>) {
        match world.mutation {
            Some(mutation) => mutation.handle(self, world, input, letters),
            None => self.give(world, input, letters),
        }
    }

    /// Gives an input to the machine and carries out what it says.
    pub fn give(&mut self, world: &World, input: Input, letters: &mut Vec<Letter>) {
        let Some(life) = &mut self.life else { return };
        let mut effects = Vec::new();
        life.handle(now(self.node), input, &mut effects);
        self.carry_out(world, effects, letters);
    }

    /// Carries out what the machine says, in this order.
    pub fn carry_out(&mut self, world: &World, effects: Vec<Effect>, letters: &mut Vec<Letter>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(world, place(to), message, letters),
                Effect::Gate { until, .. } => self.gate = until,
                Effect::Announce { .. } if world.on_quorum_loss == OnQuorumLoss::Serve => {
                    letters.extend(
                        world
                            .hosts()
                            .filter(|to| *to != self.node)
                            .map(|to| Letter {
                                from: self.node,
                                to,
                                body: Body::Announcement,
                            }),
                    );
                }
                Effect::Drain { .. } => self.handle(world, Input::Drained, letters),
                Effect::AskWitnesses => {
                    if !self.isolated || world.mutation == Some(Mutation::ServeWithoutWitness) {
                        self.handle(world, Input::Witness { lan: 0 }, letters);
                    }
                }
                Effect::Announce { .. } | Effect::Notify(_) => {}
            }
        }
    }

    fn send(&self, world: &World, to: usize, message: Message, letters: &mut Vec<Letter>) {
        if matches!(message, Message::Gossip(_)) && !world.gossip {
            return;
        }
        letters.push(Letter {
            from: self.node,
            to,
            body: Body::Message(message),
        });
    }
}

fn input_of(letter: Letter) -> Option<Input> {
    match letter.body {
        Body::Message(message) => Some(Input::Received {
            from: node_id(letter.from),
            message,
        }),
        Body::Announcement => Some(Input::SignOfLife),
        Body::Written(_) => None,
    }
}

/// The number of a node on the wire.
#[must_use]
pub fn node_id(node: usize) -> NodeId {
    NodeId(u32::try_from(node).unwrap_or(u32::MAX))
}

fn fold(world: &World, node: usize, life: &mut Element) {
    life.fold();
    if !world.gossip {
        life.forget_rhythm();
    }
    if world.eager_arming {
        life.assume_heard(now(node));
    }
}

fn age_life(node: usize, life: &mut Element, clocks: &Clocks) {
    life.moments(|moment| match moment.clock {
        Clock::Own => clocks.age(node, moment.matters_for, moment.time),
        Clock::Of(other) => clocks.age(place(other), moment.matters_for + clocks.late, moment.time),
    });
}
