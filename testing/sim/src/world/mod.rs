//! A whole pool in one thread: the machines of all slots on all elements and in the manager, their
//! kernels' gates, clocks, disks and networks. One seed, one history.

mod disk;
mod elements;
mod host;
mod manager;
mod replace;
mod streams;

use vnfpool_model::{OnQuorumLoss, Role, Time, Timing};
use vnfpool_succession::{element, manager as manager_machine};
use vnfpool_wire::datagram::{Message, NodeId};

pub use disk::{Disk, DiskMood};
pub use host::{Agent, Host};
pub use manager::Manager;
pub use streams::Streams;

use crate::broken::Breakage;
use crate::clock::Clock;
use crate::invariants::Checks;
use crate::network::{MACHINES_MAX, Network};
use crate::queue::Queue;
use crate::trace::Trace;
use vnfpool_random::Random;

/// A millisecond in nanoseconds of true time.
pub const MS: u64 = 1_000_000;

/// One of so many operators waits until a quarantine is over.
const PATIENT_ONE_OF: u64 = 8;

/// What a pool is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many elements.
    pub elements: usize,
    /// How many slots.
    pub slots: usize,
    /// Links between the gateways beside the management LAN.
    pub links: usize,
    /// LANs with virtual addresses, each with a witness.
    pub lans: usize,
    /// The time constants.
    pub timing: Timing,
    /// What the last of three does.
    pub on_quorum_loss: OnQuorumLoss,
    /// How far the clock of a machine is off at most, in parts per million.
    pub drift_ppm: u64,
    /// How long it takes at most until two lives have keys for each other.
    pub session_ns_max: u64,
}

/// What a datagram holds for the machine that gets it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parcel {
    Message {
        from: usize,
        message: Message,
    },
    /// It does not authenticate, or is the announcement of somebody else (S5).
    SignOfLife,
    Witness {
        lan: usize,
    },
    Drained,
    HandOver,
}

/// What is to come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Arrive {
        to: usize,
        slot: usize,
        life: u64,
        parcel: Parcel,
    },
    Wake {
        node: usize,
        slot: usize,
    },
    Thaw {
        node: usize,
    },
    /// The manager's disk is done with a writing.
    Written {
        number: u64,
    },
    /// The manager tries a writing again.
    Rewrite {
        number: u64,
    },
    /// Another process goes on with the life of an agent that was killed.
    Replaced {
        node: usize,
        life: u64,
    },
    ManagerTick {
        boot: u64,
    },
    Streams {
        slot: usize,
    },
    Proof {
        from: usize,
        to: usize,
        slot: usize,
        sent: u64,
        sent_at: Time,
        lives: (u64, u64),
    },
    /// Something that a broken world does later.
    Broken {
        node: usize,
        slot: usize,
        what: crate::broken::Later,
    },
}

/// Moments at which a fault hurts most; histories wait for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A vote has left.
    Voted,
    /// A handover has left.
    HandedOver,
    /// A gate was closed for a handover.
    Draining,
    /// A record is on its way to the disk.
    Writing,
    /// It is there; nobody knows.
    Written,
    /// A record for a vote to come is on its way to the disk.
    Preparing,
    /// It is there.
    Prepared,
    /// A record is in force.
    Decided,
    /// A gate has opened in a new epoch.
    Opened,
}

/// The simulated world.
#[derive(Debug)]
pub struct World {
    /// True time.
    pub now: u64,
    /// What the pool is made of.
    pub shape: Shape,
    /// The chance that networks, timers and disks take.
    pub random: Random,
    /// Machine 0 is the manager's; elements are 1 and more.
    pub hosts: Vec<Host>,
    /// The manager.
    pub manager: Manager,
    /// The paths.
    pub network: Network,
    /// The streams of service state.
    pub streams: Streams,
    /// What has to hold.
    pub checks: Checks,
    /// What happened.
    pub trace: Trace,
    /// Its operator waits until a quarantine is over, and ends none.
    pub patient: bool,
    /// What is wrong with this world on purpose.
    pub(crate) breakage: Breakage,
    /// `keys_at[one][other]`: from when the two have keys for each other's datagrams.
    keys_at: [[u64; MACHINES_MAX]; MACHINES_MAX],
    queue: Queue<Event>,
    /// The moment that the history waits for has come.
    pub(crate) waits_for: Option<Moment>,
    element_effects: element::Effects,
    manager_effects: manager_machine::Effects,
    /// Events so far.
    pub events: u64,
}

impl World {
    /// Everything is off.
    #[must_use]
    pub fn new(seed: u64, shape: Shape, breakage: Breakage, trace: Trace) -> Self {
        assert!(shape.elements < MACHINES_MAX && shape.lans > 0 && shape.slots > 0);
        let mut random = Random::new(seed);
        let hosts = (0..=shape.elements).map(|_| {
            let origin = random.below(1 << 40) + (1 << 36);
            let drift = random.between(0, 2 * shape.drift_ppm).cast_signed();
            let clock = Clock::new(origin, drift - shape.drift_ppm.cast_signed());
            Host::new(clock, shape.slots)
        });
        let hosts = hosts.collect();
        let network = Network::new(shape.elements, shape.links, shape.lans);
        let mut world = Self {
            now: 0,
            hosts,
            manager: Manager::new(shape.slots),
            network,
            streams: Streams::new(shape.slots),
            checks: Checks::new(&shape),
            trace,
            patient: seed.is_multiple_of(PATIENT_ONE_OF),
            breakage,
            keys_at: [[0; MACHINES_MAX]; MACHINES_MAX],
            queue: Queue::new(),
            waits_for: None,
            element_effects: Vec::new(),
            manager_effects: Vec::new(),
            events: 0,
            random,
            shape,
        };
        for slot in 0..world.shape.slots {
            world.schedule(0, Event::Streams { slot });
        }
        world
    }

    /// The numbers of the elements.
    pub fn elements(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.shape.elements
    }

    /// Whether everything that has to hold did so far.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.checks.violation.is_none()
    }

    /// Lets events happen up to true time `until`, or until something is violated.
    pub fn run_until(&mut self, until: u64) {
        while self.is_well() {
            let Some((at, event)) = self.queue.next_until(until) else {
                break;
            };
            self.now = self.now.max(at);
            self.events += 1;
            self.step(event);
        }
        self.now = self.now.max(until);
    }

    /// Lets so much true time pass.
    pub fn run_for(&mut self, ns: u64) {
        self.run_until(self.now + ns);
    }

    /// Runs until `moment` comes, for `ns` at most.
    pub fn run_to(&mut self, moment: Moment, ns: u64) {
        let until = self.now + ns;
        self.waits_for = Some(moment);
        while self.is_well() && self.waits_for.is_some() {
            let Some((at, event)) = self.queue.next_until(until) else {
                self.now = until;
                break;
            };
            self.now = self.now.max(at);
            self.events += 1;
            self.step(event);
        }
        self.waits_for = None;
    }

    /// Writes a line of the timeline.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        self.trace.note(self.now, text);
    }

    /// Whether the gate of `node` for `slot` is open now.
    #[must_use]
    pub fn open(&self, node: usize, slot: usize) -> bool {
        let host = &self.hosts[node];
        host.gates[slot] != Time::ZERO && host.gates[slot] > host.clock.read(self.now)
    }

    /// Whose gates for `slot` are open now.
    pub fn holders(&self, slot: usize) -> impl Iterator<Item = usize> + '_ {
        self.elements().filter(move |node| self.open(*node, slot))
    }

    /// The role of a living agent.
    #[must_use]
    pub fn role(&self, node: usize, slot: usize) -> Option<Role> {
        let agent = self.hosts[node].agent.as_ref()?;
        Some(agent.machines[slot].role())
    }

    /// Whether the manager's record of `slot` names a successor.
    #[must_use]
    pub fn armed(&self, slot: usize) -> bool {
        let machine = self.manager.machines.get(slot);
        machine.and_then(|m| m.record()).is_some_and(|r| r.armed())
    }

    /// One holder in every slot.
    #[must_use]
    pub fn served(&self) -> bool {
        (0..self.shape.slots).all(|slot| self.holders(slot).count() == 1)
    }

    /// Whether the slot's term has the pace that the manager prefers, and no other record is on a slow
    /// way to the disk.
    fn settled(&self, slot: usize) -> bool {
        let machine = self.manager.machines.get(slot);
        machine.is_some_and(|m| {
            let paced = m.record().is_some_and(|r| r.pace == m.next_pace());
            paced && !m.waits_for_disk()
        })
    }

    /// One holder and an armed successor in every slot, at the pace that is wanted and for good.
    #[must_use]
    pub fn complete(&self) -> bool {
        (0..self.shape.slots)
            .all(|slot| self.armed(slot) && self.settled(slot) && self.holders(slot).count() == 1)
    }

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        self.queue.schedule(at, event);
    }

    pub(crate) fn moment(&mut self, moment: Moment) {
        if self.waits_for == Some(moment) {
            self.waits_for = None;
        }
    }

    fn step(&mut self, event: Event) {
        self.trace.add(self.now);
        match event {
            Event::Arrive {
                to: 0,
                slot,
                life,
                parcel,
            } => self.arrive_at_manager(slot, life, parcel),
            Event::Arrive {
                to,
                slot,
                life,
                parcel,
            } => self.arrive(to, slot, life, parcel),
            Event::Wake { node, slot } => self.wake(node, slot),
            Event::Thaw { node: 0 } => self.thaw_manager(),
            Event::Thaw { node } => self.thaw(node),
            Event::Written { number } => self.written(number),
            Event::Rewrite { number } => self.write_again(number),
            Event::Replaced { node, life } => self.replaced(node, life),
            Event::ManagerTick { boot } => self.manager_tick(boot),
            Event::Streams { slot } => self.run_streams(slot),
            Event::Proof {
                from,
                to,
                slot,
                sent,
                sent_at,
                lives,
            } => {
                self.proof(from, to, slot, sent, sent_at, lives);
            }
            Event::Broken { node, slot, what } => self.broken_later(node, slot, what),
        }
    }

    /// Puts a message on the way. Without keys the driver sends a bare hello in place of a gossip.
    pub(crate) fn send(&mut self, from: usize, to: usize, slot: usize, message: Message) {
        let life = self.hosts[to].life;
        let has_keys = self.now >= self.keys_at[from][to];
        let keys_fail = self.hosts[from].keys_fail || self.hosts[to].keys_fail;
        let is_gossip = matches!(message, Message::Gossip(_));
        let parcel = match (has_keys, is_gossip) {
            // It does not authenticate (S5).
            _ if keys_fail => Parcel::SignOfLife,
            (true, _) => Parcel::Message { from, message },
            (false, true) => Parcel::SignOfLife,
            (false, false) => return,
        };
        if !self.breakage.is_none() && self.breakage.loses(&parcel, keys_fail) {
            return;
        }
        let (first, copy) = self.network.send(from, to, &mut self.random);
        for travel in [first, copy].into_iter().flatten() {
            let at = self.now + travel;
            self.schedule(
                at,
                Event::Arrive {
                    to,
                    slot,
                    life,
                    parcel,
                },
            );
        }
    }

    fn break_later(&mut self) {
        while let Some((at, node, slot, what)) = self.breakage.later.pop() {
            self.schedule(at, Event::Broken { node, slot, what });
        }
    }

    /// Another life has to agree on keys with everybody first.
    pub(crate) fn new_keys(&mut self, node: usize) {
        for other in 0..self.hosts.len() {
            let at = self.now + self.random.below(self.shape.session_ns_max);
            self.keys_at[node][other] = at;
            self.keys_at[other][node] = at;
        }
    }
}

/// The number of a machine in datagrams.
pub(crate) fn node_id(node: usize) -> NodeId {
    NodeId(u32::try_from(node).unwrap_or(u32::MAX))
}

/// The machine that a datagram names.
pub(crate) const fn machine_of(id: NodeId) -> usize {
    id.0 as usize
}
