//! A small world for the machines: elements, a manager with a disk, clocks that drift, and a
//! network that loses, delays, doubles and cuts. One seed, one history.

mod replaced;
mod streams;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use vnfpool_model::{Incarnation, OnQuorumLoss, Role, Time, Timing};
use vnfpool_random::Random;
use vnfpool_succession::{element, manager};
use vnfpool_wire::datagram::{Member, Message, NodeId};

use streams::Streams;

pub const MS: u64 = 1_000_000;

#[derive(Debug)]
enum Event {
    Deliver {
        to: usize,
        from: usize,
        message: Message,
    },
    /// A datagram that the receiver has no key for, or an announcement of the virtual address.
    SignOfLife {
        to: usize,
    },
    Persisted {
        boot: u64,
        stored: manager::Stored,
    },
    Wake {
        node: usize,
    },
    Thaw {
        node: usize,
    },
    Streams,
    /// Another process goes on with what the killed one has kept.
    Replaced {
        node: usize,
        kept: Vec<u8>,
    },
}

/// One element with its kernel: the gate lives on when the agent is dead or frozen.
#[derive(Debug)]
pub struct Host {
    pub machine: Option<element::Element>,
    incarnation: u64,
    clock_offset: u64,
    drift_ppm: i64,
    pub gate: Time,
    frozen_until: u64,
    mailbox: VecDeque<element::Input>,
    pub able: bool,
    pub role_changes: usize,
    pub announced: usize,
}

#[derive(Debug)]
pub struct World {
    pub now: u64,
    pub random: Random,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
    /// Index 0 is the manager's place; hosts are 1...
    pub hosts: Vec<Host>,
    pub manager: Option<manager::Slot>,
    disk: Option<manager::Stored>,
    boot: u64,
    /// `cuts[from][to]`: nothing passes.
    pub cuts: Vec<Vec<bool>>,
    /// `sessions[one][other]`: from when the two have keys for each other's datagrams.
    sessions: Vec<Vec<u64>>,
    /// How long it takes at most until two lives have keys.
    pub session_ns_max: u64,
    pub loss_percent: u64,
    pub late_percent: u64,
    pub timing: Timing,
    on_quorum_loss: OnQuorumLoss,
    pub witnesses: bool,
    pub trace: VecDeque<String>,
    pub decisions: Vec<manager::Decision>,
    pub releases: Vec<manager::Release>,
    /// How many of them the disk did not delay.
    pub prepared: usize,
    pub slow_disk_percent: u64,
    pub streams: Streams,
}

impl World {
    pub fn new(seed: u64, elements: usize, on_quorum_loss: OnQuorumLoss) -> Self {
        Self::with_timing(seed, elements, on_quorum_loss, Timing::DEFAULT)
    }

    pub fn with_timing(
        seed: u64,
        elements: usize,
        on_quorum_loss: OnQuorumLoss,
        timing: Timing,
    ) -> Self {
        let mut random = Random::new(seed);
        let hosts = (0..=elements)
            .map(|_| Host {
                machine: None,
                incarnation: 0,
                clock_offset: random.below(1 << 40) + (1 << 30),
                drift_ppm: i64::try_from(random.below(801)).unwrap() - 400,
                gate: Time::ZERO,
                frozen_until: 0,
                mailbox: VecDeque::new(),
                able: true,
                role_changes: 0,
                announced: 0,
            })
            .collect();
        let mut world = Self {
            now: 0,
            random,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            hosts,
            manager: None,
            disk: None,
            boot: 0,
            cuts: vec![vec![false; elements + 1]; elements + 1],
            sessions: vec![vec![0; elements + 1]; elements + 1],
            session_ns_max: 0,
            loss_percent: 0,
            late_percent: 0,
            timing,
            on_quorum_loss,
            witnesses: true,
            trace: VecDeque::new(),
            decisions: Vec::new(),
            releases: Vec::new(),
            prepared: 0,
            slow_disk_percent: 0,
            streams: Streams::new(elements + 1),
        };
        world.begin_streams();
        world.start_manager();
        for node in 1..=elements {
            world.start(node);
        }
        world
    }

    pub fn elements(&self) -> std::ops::Range<usize> {
        1..self.hosts.len()
    }

    fn clock(&self, node: usize) -> Time {
        let host = &self.hosts[node];
        let drifted = i64::try_from(self.now).unwrap() / 1_000_000 * host.drift_ppm;
        Time(host.clock_offset + self.now.checked_add_signed(drifted).unwrap())
    }

    fn note(&mut self, text: String) {
        if self.trace.len() == 4_000 {
            self.trace.pop_front();
        }
        self.trace
            .push_back(format!("{:>9.3} ms  {text}", self.now as f64 / MS as f64));
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    pub fn start_manager(&mut self) {
        self.boot += 1;
        let settings = manager::Settings {
            timing: self.timing,
            lease_ms_max: self.timing.lease_ms,
            preferred: Some(NodeId(1)),
            preferred_expected: true,
            boot: self.boot,
            manager_lease_ms_max: self.timing.manager_lease_ms,
        };
        let now = self.clock(0);
        self.note(format!("manager boots, disk {:?}", self.disk));
        self.manager = Some(manager::Slot::new(settings, self.disk, now));
        self.new_sessions(0);
    }

    /// Another life has to agree on keys with everybody first.
    fn new_sessions(&mut self, node: usize) {
        for other in 0..self.hosts.len() {
            let takes = match self.session_ns_max {
                0 => 0,
                most => self.random.below(most),
            };
            self.sessions[node][other] = self.now + takes;
            self.sessions[other][node] = self.now + takes;
        }
    }

    pub fn stop_manager(&mut self) {
        self.note("manager dies".into());
        self.manager = None;
    }

    pub fn fence(&mut self, node: usize) {
        self.manage(manager::Input::Fenced(NodeId(node as u32)));
    }

    /// The operator gives everybody a clean slate.
    pub fn pardon_all(&mut self) {
        for node in self.elements() {
            self.manage(manager::Input::Pardoned(NodeId(node as u32)));
        }
    }

    /// Who is in quarantine.
    pub fn quarantined(&self) -> Vec<usize> {
        let now = self.clock(0);
        let manager = self.manager.iter();
        let all = manager.flat_map(|manager| manager.quarantined(now));
        all.map(|q| q.node.0 as usize).collect()
    }

    /// A new life: the gate is closed before the agent speaks (R1).
    pub fn start(&mut self, node: usize) {
        let now = self.clock(node);
        let elements = self.elements();
        let host = &mut self.hosts[node];
        host.incarnation += 1;
        host.gate = Time::ZERO;
        host.mailbox.clear();
        host.frozen_until = 0;
        let me = Member {
            node: NodeId(node as u32),
            incarnation: Incarnation(host.incarnation),
        };
        let settings = element::Settings {
            me,
            timing: self.timing,
            lease_ms_max: self.timing.lease_ms,
            on_quorum_loss: self.on_quorum_loss,
        };
        let mut machine = element::Element::new(settings, now);
        self.new_sessions(node);
        let host = &mut self.hosts[node];
        let mut out = Vec::new();
        for peer in elements {
            let peer = NodeId(peer as u32);
            machine.handle(
                now,
                element::Input::Peer {
                    node: peer,
                    present: true,
                },
                &mut out,
            );
        }
        machine.handle(now, element::Input::WitnessLans(Some(2)), &mut out);
        machine.handle(now, element::Input::Able(host.able), &mut out);
        host.machine = Some(machine);
        self.note(format!(
            "element {node} starts, life {}",
            self.hosts[node].incarnation
        ));
        self.carry_out(node, out);
        self.rewake(node);
    }

    pub fn kill(&mut self, node: usize) {
        self.note(format!("element {node} dies"));
        self.hosts[node].machine = None;
    }

    pub fn freeze(&mut self, node: usize, for_ns: u64) {
        self.note(format!("element {node} freezes for {} ms", for_ns / MS));
        self.hosts[node].frozen_until = self.now + for_ns;
        self.schedule(self.now + for_ns, Event::Thaw { node });
    }

    pub fn cut(&mut self, one: usize, other: usize, cut: bool) {
        self.note(format!(
            "{one} -> {other} {}",
            if cut { "cut" } else { "healed" }
        ));
        self.cuts[one][other] = cut;
    }

    pub fn cut_both(&mut self, one: usize, other: usize, cut: bool) {
        self.cut(one, other, cut);
        self.cut(other, one, cut);
    }

    pub fn heal_all(&mut self) {
        self.cuts.iter_mut().flatten().for_each(|c| *c = false);
        self.loss_percent = 0;
        self.late_percent = 0;
    }

    pub fn input(&mut self, node: usize, input: element::Input) {
        if self.hosts[node].frozen_until > self.now {
            return;
        }
        let now = self.clock(node);
        let Some(machine) = self.hosts[node].machine.as_mut() else {
            return;
        };
        let mut out = Vec::new();
        machine.handle(now, input, &mut out);
        self.carry_out(node, out);
        self.rewake(node);
    }

    pub fn set_able(&mut self, node: usize, able: bool) {
        self.note(format!("element {node} able: {able}"));
        self.hosts[node].able = able;
        self.input(node, element::Input::Able(able));
    }

    pub fn open(&self, node: usize) -> bool {
        self.hosts[node].gate > self.clock(node)
    }

    pub fn owners(&self) -> Vec<usize> {
        self.elements().filter(|n| self.open(*n)).collect()
    }

    pub fn role(&self, node: usize) -> Option<Role> {
        self.hosts[node]
            .machine
            .as_ref()
            .map(element::Element::role)
    }

    pub fn armed(&self) -> bool {
        self.manager
            .as_ref()
            .and_then(|m| m.record())
            .is_some_and(|r| r.armed())
    }

    pub fn run_until(&mut self, until: u64) {
        while let Some(Reverse((at, id))) = self.queue.peek().copied() {
            if at > until {
                break;
            }
            self.queue.pop();
            self.now = self.now.max(at);
            let event = self.events.remove(&id).unwrap();
            self.step(event);
        }
        self.now = until;
    }

    pub fn run_for(&mut self, ns: u64) {
        self.run_until(self.now + ns);
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Deliver {
                to: 0,
                from,
                message,
            } => {
                self.manage(manager::Input::Received {
                    from: NodeId(from as u32),
                    message,
                });
            }
            Event::Deliver { to, from, message } => {
                let from = NodeId(from as u32);
                self.arrive(to, element::Input::Received { from, message });
            }
            Event::SignOfLife { to } => self.arrive(to, element::Input::SignOfLife),
            Event::Persisted { boot, stored } => {
                if boot != self.boot {
                    return;
                }
                if self.manager.is_some() {
                    self.disk = Some(stored);
                    self.manage(manager::Input::Persisted);
                } else if self.random.chance(50) {
                    // The manager died while it wrote: it may be there or not.
                    self.disk = Some(stored);
                }
            }
            Event::Streams => self.run_streams(),
            Event::Replaced { node, kept } => self.replaced(node, &kept),
            Event::Wake { node: 0 } => self.manage(manager::Input::Tick),
            Event::Wake { node } => {
                let due = self.hosts[node]
                    .machine
                    .as_ref()
                    .is_some_and(|m| m.deadline() <= self.clock(node));
                if due {
                    self.input(node, element::Input::Tick);
                }
            }
            Event::Thaw { node } => {
                if self.hosts[node].frozen_until > self.now {
                    return;
                }
                self.note(format!("element {node} thaws"));
                // The sockets are drained before timers run (S2).
                while let Some(input) = self.hosts[node].mailbox.pop_front() {
                    self.input(node, input);
                }
                self.input(node, element::Input::Tick);
            }
        }
    }

    fn arrive(&mut self, to: usize, input: element::Input) {
        let host = &mut self.hosts[to];
        if host.frozen_until <= self.now {
            self.input(to, input);
        } else if host.mailbox.len() < 256 {
            host.mailbox.push_back(input);
        }
    }

    fn rewake(&mut self, node: usize) {
        let Some(machine) = self.hosts[node].machine.as_ref() else {
            return;
        };
        let wait = machine.deadline().since(self.clock(node)).as_nanos() as u64;
        // Timers are a little late, sometimes more.
        let late = if self.random.chance(2) {
            self.random.below(8 * MS)
        } else {
            self.random.below(MS / 5)
        };
        self.schedule(
            self.now + wait + wait / 1_000 + late + 1,
            Event::Wake { node },
        );
    }

    fn manage(&mut self, input: manager::Input) {
        let now = self.clock(0);
        let Some(slot) = self.manager.as_mut() else {
            return;
        };
        let mut out = Vec::new();
        slot.handle(now, input, &mut out);
        if input == manager::Input::Tick {
            self.schedule(self.now + 20 * MS, Event::Wake { node: 0 });
        }
        for effect in out {
            match effect {
                manager::Effect::Send { to, message } => self.send(0, to.0 as usize, message),
                manager::Effect::Persist { stored, .. } => {
                    let slow = if self.random.chance(self.slow_disk_percent) {
                        self.random.below(300 * MS)
                    } else {
                        self.random.below(2 * MS)
                    };
                    let boot = self.boot;
                    self.schedule(self.now + MS / 10 + slow, Event::Persisted { boot, stored });
                }
                manager::Effect::Decided {
                    record,
                    decision,
                    disk,
                    prepared,
                } => {
                    self.note(format!("manager decides {decision:?}: {record:?}"));
                    self.decisions.push(decision);
                    self.prepared += usize::from(prepared && disk == Duration::ZERO);
                }
                manager::Effect::VoteRefused { from, reason } => {
                    self.note(format!(
                        "manager refuses vote of {} ({})",
                        from.0,
                        reason.as_str()
                    ));
                }
                manager::Effect::Quarantined(quarantined) => {
                    self.note(format!("manager quarantines: {quarantined:?}"));
                }
                manager::Effect::Released { node, cause } => {
                    self.note(format!("manager releases {}: {cause:?}", node.0));
                    self.releases.push(cause);
                }
            }
        }
    }

    pub fn begin(&mut self) {
        self.schedule(self.now, Event::Wake { node: 0 });
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if to >= self.hosts.len() {
            return;
        }
        let have_keys = self.now >= self.sessions[from][to];
        // Without keys for a peer, the driver sends it a bare hello in place of each gossip.
        let is_hello = matches!(message, Message::Gossip(_));
        let copies = if self.random.chance(3) { 2 } else { 1 };
        for _ in 0..copies {
            if have_keys {
                self.carry(from, to, Event::Deliver { to, from, message });
            } else if is_hello {
                self.carry(from, to, Event::SignOfLife { to });
            }
        }
    }

    /// What happens to one datagram on its way.
    fn carry(&mut self, from: usize, to: usize, event: Event) {
        if self.cuts[from][to] || self.random.chance(self.loss_percent) {
            return;
        }
        let late = if self.random.chance(self.late_percent) {
            self.random.below(150 * MS)
        } else {
            0
        };
        let delay = MS / 20 + self.random.below(MS) + late;
        self.schedule(self.now + delay, event);
    }

    /// I1, at every change of a gate.
    fn set_gate(&mut self, node: usize, until: Time) {
        self.hosts[node].gate = until;
        let owners = self.owners();
        let story = || {
            let lines = self.trace.iter().map(|line| format!("{line}\n"));
            lines.collect::<String>()
        };
        assert!(
            owners.len() <= 1,
            "I1: {owners:?} at {} ms\n{}",
            self.now / MS,
            story()
        );
    }

    fn carry_out(&mut self, node: usize, effects: element::Effects) {
        for effect in effects {
            match effect {
                element::Effect::Send { to, message } => {
                    if matches!(message, Message::Split(_) | Message::Handover(_)) {
                        self.note(format!("element {node} sends {message:?}"));
                    }
                    self.send(node, to.0 as usize, message);
                }
                element::Effect::Gate { until, .. } => self.set_gate(node, until),
                element::Effect::Announce { epoch } => {
                    assert!(self.open(node), "announced behind a closed gate");
                    self.note(format!("element {node} announces {epoch}"));
                    self.hosts[node].announced += 1;
                    for to in self.elements().filter(|to| *to != node) {
                        self.carry(node, to, Event::SignOfLife { to });
                    }
                }
                element::Effect::Drain { .. } => self.input(node, element::Input::Drained),
                element::Effect::AskWitnesses => {
                    let isolated = self
                        .elements()
                        .chain([0])
                        .all(|p| p == node || self.cuts[p][node]);
                    if self.witnesses && !isolated {
                        self.input(node, element::Input::Witness { lan: 0 });
                        self.input(node, element::Input::Witness { lan: 1 });
                    }
                }
                element::Effect::Notify(notice) => {
                    if matches!(notice, element::Notice::RoleChanged { .. }) {
                        self.hosts[node].role_changes += 1;
                    }
                    self.note(format!("element {node}: {notice:?}"));
                }
            }
        }
    }
}

/// How long nobody served, sampled each half millisecond while the world runs for `ns`.
pub fn outage(world: &mut World, ns: u64) -> Duration {
    let (mut gap, mut worst) = (0, 0);
    for _ in 0..ns / (MS / 2) {
        world.run_for(MS / 2);
        gap = if world.owners().is_empty() {
            gap + MS / 2
        } else {
            0
        };
        worst = worst.max(gap);
    }
    Duration::from_nanos(worst)
}
