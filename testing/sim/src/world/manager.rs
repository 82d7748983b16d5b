//! The manager: a machine for each slot, and its driver, which brings records to the disk.

use vnfpool_model::Pace;
use vnfpool_succession::manager::{Effect, Input, Release, Settings, Slot, Stored};
use vnfpool_wire::datagram::{Message, Record};

use super::disk::{Disk, Outcome};
use super::host::MAILBOX_MAX;
use super::{Event, MS, Moment, Parcel, World, machine_of, node_id};

/// How often the driver runs timers when nothing comes.
const TICK_NS: u64 = 20 * MS;

/// A writing that failed is tried again after this.
const REWRITE_NS: u64 = 100 * MS;

/// What is on its way to the disk.
#[derive(Clone, Copy, Debug)]
struct Writing {
    number: u64,
    stored: Stored,
}

/// The manager's process and disk.
#[derive(Debug)]
pub struct Manager {
    /// The machines; none when the process is dead.
    pub machines: Vec<Slot>,
    /// The store.
    pub disk: Disk,
    /// Counts the lives of the process.
    pub life: u64,
    /// Decisions whose records were prepared: in time, or so late that they were waited for.
    pub prepared: [u64; 2],
    /// Slots whose record was found prepared when the process started.
    pub presumed: u64,
    writing: Vec<Option<Writing>>,
    writings: u64,
}

impl Manager {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            machines: Vec::new(),
            disk: Disk::new(slots),
            life: 0,
            prepared: [0; 2],
            presumed: 0,
            writing: vec![None; slots],
            writings: 0,
        }
    }

    /// Whether the process lives.
    #[must_use]
    pub const fn lives(&self) -> bool {
        !self.machines.is_empty()
    }
}

impl World {
    /// A new life of the manager, from its disk.
    pub fn start_manager(&mut self) {
        if self.manager.lives() {
            return;
        }
        self.manager.disk.boots += 1;
        self.manager.life += 1;
        self.hosts[0].life += 1;
        self.hosts[0].mailbox.clear();
        let boot = self.manager.disk.boots;
        self.note(|| format!("the manager starts, boot {boot}"));
        let now = self.hosts[0].clock.read(self.now);
        let timing = self.breakage.timing_of(0, self.shape.timing);
        for slot in 0..self.shape.slots {
            let stored = self.breakage.found_on_disk(self.manager.disk.slots[slot]);
            if stored.is_some_and(|stored| stored.newest() != stored.record) {
                self.note(|| format!("slot {slot}: a record was prepared"));
                self.manager.presumed += 1;
            }
            let settings = Settings {
                timing: stored.map_or(timing, |s| timing.at(s.newest().pace)),
                lease_ms_max: timing.lease_ms,
                preferred: Some(node_id(1 + slot % self.shape.elements)),
                preferred_expected: true,
                boot,
                manager_lease_ms_max: timing.manager_lease_ms,
            };
            let record = stored.map(|stored| stored.record);
            let at = self.breakage.manager_starts_at(now, record);
            let machine = Slot::new(settings, stored, at);
            self.checks.manager_starts(slot, machine.record());
            self.manager.machines.push(machine);
        }
        self.new_keys(0);
        let life = self.manager.life;
        self.schedule(self.now, Event::ManagerTick { boot: life });
    }

    /// The manager's process dies. What it was writing is there or not.
    pub fn stop_manager(&mut self) {
        if !self.manager.lives() {
            return;
        }
        self.note(|| "the manager dies".to_owned());
        self.manager.machines.clear();
        for slot in 0..self.shape.slots {
            if let Some(writing) = self.manager.writing[slot].take()
                && self.random.chance(50)
            {
                self.manager.disk.slots[slot] = Some(writing.stored);
                self.note(|| format!("what it wrote is there: {}", tell_all(&writing.stored)));
            }
        }
    }

    /// Another pace for the terms of a slot to come (R17).
    pub fn set_pace(&mut self, slot: usize, pace: Pace) {
        self.note(|| format!("the manager is to prefer a lease of {} ms", pace.lease_ms));
        if !self.hosts[0].frozen(self.now) {
            self.manage(slot, Input::Pace(pace));
        }
    }

    /// The operator's word that an element, which is off, is gone (R14).
    pub fn fence(&mut self, node: usize) {
        self.note(|| format!("the operator says that element {node} is gone"));
        if self.hosts[0].frozen(self.now) {
            return;
        }
        for slot in 0..self.shape.slots {
            self.manage(slot, Input::Fenced(node_id(node)));
        }
    }

    /// Whether any element is in quarantine.
    #[must_use]
    pub fn has_quarantined(&self) -> bool {
        let now = self.hosts[0].clock.read(self.now);
        let mut slots = self.manager.machines.iter();
        slots.any(|slot| slot.quarantined(now).next().is_some())
    }

    /// The operator's word that who is in quarantine has a clean slate.
    pub fn pardon(&mut self) {
        let now = self.hosts[0].clock.read(self.now);
        for slot in 0..self.shape.slots {
            let machine = self.manager.machines.get(slot);
            let quarantined = machine.into_iter().flat_map(|m| m.quarantined(now));
            let nodes: Vec<_> = quarantined.map(|q| q.node).collect();
            for node in nodes {
                self.checks.forgiven(slot, machine_of(node));
                self.manage(slot, Input::Pardoned(node));
            }
        }
    }

    pub(super) fn arrive_at_manager(&mut self, slot: usize, life: u64, parcel: Parcel) {
        if life != self.hosts[0].life && self.random.chance(50) {
            return;
        }
        let host = &mut self.hosts[0];
        if !host.frozen(self.now) {
            self.open_at_manager(slot, parcel);
        } else if host.mailbox.len() < MAILBOX_MAX {
            host.mailbox.push_back((slot, parcel));
        }
    }

    fn open_at_manager(&mut self, slot: usize, parcel: Parcel) {
        if let Parcel::Message { from, message } = parcel {
            let from = node_id(from);
            self.manage(slot, Input::Received { from, message });
        }
    }

    pub(super) fn thaw_manager(&mut self) {
        if self.hosts[0].frozen(self.now) {
            return;
        }
        self.note(|| "the manager goes on".to_owned());
        while let Some((slot, parcel)) = self.hosts[0].mailbox.pop_front() {
            self.open_at_manager(slot, parcel);
        }
    }

    pub(super) fn manager_tick(&mut self, boot: u64) {
        if boot != self.manager.life || !self.manager.lives() {
            return;
        }
        let late = self.random.below(MS);
        self.schedule(self.now + TICK_NS + late, Event::ManagerTick { boot });
        if self.hosts[0].frozen(self.now) {
            return;
        }
        for slot in 0..self.shape.slots {
            self.manage(slot, Input::Tick);
        }
    }

    /// Gives a machine an input and does what it says.
    pub(crate) fn manage(&mut self, slot: usize, input: Input) {
        let now = self.hosts[0].clock.read(self.now);
        let Some(machine) = self.manager.machines.get_mut(slot) else {
            return;
        };
        let mut effects = std::mem::take(&mut self.manager_effects);
        if self.breakage.is_none() {
            machine.handle(now, input, &mut effects);
        } else {
            let hosts = &self.hosts;
            self.breakage
                .manage(slot, (now, self.now), machine, hosts, input, &mut effects);
        }
        for effect in effects.drain(..) {
            self.do_as_managed(slot, effect);
        }
        self.manager_effects = effects;
        self.break_later();
    }

    fn do_as_managed(&mut self, slot: usize, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                if let Message::Info(info) = message {
                    let disk = self.manager.disk.slots[slot];
                    self.checks.told(slot, info.record, disk);
                }
                self.send(0, machine_of(to), slot, message);
            }
            Effect::Persist { stored, decision } => {
                self.note(|| {
                    format!(
                        "slot {slot}: the manager writes {}: {decision:?}",
                        tell_all(&stored)
                    )
                });
                self.write(slot, stored);
                self.moment(match stored.prepared {
                    Some(_) => Moment::Preparing,
                    None => Moment::Writing,
                });
            }
            Effect::Decided {
                record,
                decision,
                disk,
                prepared,
            } => {
                self.note(|| format!("slot {slot}: in force is {}: {decision:?}", tell(&record)));
                if prepared {
                    self.manager.prepared[usize::from(!disk.is_zero())] += 1;
                }
                self.checks.decided(self.now, slot, record, decision);
                self.moment(Moment::Decided);
            }
            Effect::VoteRefused { from, reason } => {
                self.note(|| {
                    format!(
                        "slot {slot}: vote of {} refused: {}",
                        from.0,
                        reason.as_str()
                    )
                });
            }
            Effect::Quarantined(quarantined) => {
                self.note(|| format!("slot {slot}: {quarantined:?}"));
            }
            Effect::Released { node, cause } => {
                self.note(|| format!("slot {slot}: {} is released: {cause:?}", node.0));
                if cause != Release::Operator {
                    self.checks.forgiven(slot, machine_of(node));
                }
            }
        }
    }

    fn write(&mut self, slot: usize, stored: Stored) {
        self.manager.writings += 1;
        let number = self.manager.writings * self.slots() + u64::try_from(slot).unwrap_or(0);
        self.manager.writing[slot] = Some(Writing { number, stored });
        let takes = self.manager.disk.takes(&mut self.random);
        self.schedule(self.now + takes, Event::Written { number });
    }

    fn slots(&self) -> u64 {
        u64::try_from(self.shape.slots).unwrap_or(1)
    }

    fn slot_of(&self, number: u64) -> usize {
        usize::try_from(number % self.slots()).unwrap_or(0)
    }

    /// The writing with that number, if it still goes on.
    fn writing_of(&self, number: u64) -> Option<(usize, Stored)> {
        let slot = self.slot_of(number);
        let writing = self.manager.writing[slot].filter(|w| w.number == number)?;
        Some((slot, writing.stored))
    }

    pub(super) fn written(&mut self, number: u64) {
        let Some((slot, stored)) = self.writing_of(number) else {
            return;
        };
        // The store's answer waits for a process that stands still.
        let frozen_until = self.hosts[0].frozen_until;
        if frozen_until > self.now {
            return self.schedule(frozen_until, Event::Written { number });
        }
        let outcome = self.manager.disk.outcome(&mut self.random);
        if outcome != Outcome::Failed {
            self.manager.disk.slots[slot] = Some(stored);
            self.moment(match stored.prepared {
                Some(_) => Moment::Prepared,
                None => Moment::Written,
            });
        }
        if outcome == Outcome::Done || self.breakage.tells_failed_as_done() {
            self.manager.writing[slot] = None;
            self.manage(slot, Input::Persisted);
        } else {
            self.schedule(self.now + REWRITE_NS, Event::Rewrite { number });
        }
    }

    pub(super) fn write_again(&mut self, number: u64) {
        if self.writing_of(number).is_some() {
            let takes = self.manager.disk.takes(&mut self.random);
            self.schedule(self.now + takes, Event::Written { number });
        }
    }
}

fn tell(record: &Record) -> String {
    let second = record
        .second
        .map_or_else(|| "nobody".to_owned(), |m| m.node.0.to_string());
    format!("term {}: {} and {second}", record.term, record.first.node.0)
}

fn tell_all(stored: &Stored) -> String {
    let beside = stored
        .prepared
        .map_or_else(String::new, |next| format!(", prepared {}", tell(&next)));
    format!("{}{beside}", tell(&stored.record))
}
