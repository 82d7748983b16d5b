//! A slot on the thread: its machine, its data plane, and how the LANs are told.

use std::time::Duration;

use vnfpool_model::{Role, SlotId, Time};
use vnfpool_pacing::Meter;
use vnfpool_succession::element::{self, Cause, Element, Input, Settings};
use vnfpool_wire::datagram::{Message, NodeId};

use super::takeover::Stopwatch;
use super::{Furniture, Heard, Plane, SlotView, Takeover};
use crate::pulse::now;

/// What is heard on a LAN in one round; more than its socket can hold, and a flooded one does not
/// hold up the thread.
const HEARD_MAX: usize = 512;

/// When the LANs are told of a takeover, counted from it: at once, and again for those who lost
/// the first one. Afterwards every [`REFRESH`], so that bridges keep the virtual MAC in mind.
const ANNOUNCE_AT_MS: [u64; 5] = [0, 20, 100, 500, 2_000];
const REFRESH: Duration = Duration::from_secs(10);

pub(super) struct Running {
    id: SlotId,
    pub(super) machine: Element,
    pub(super) plane: Plane,
    counters: SlotView,
    stopwatch: Stopwatch,
    meter: Meter,
    /// When the LANs were first told in this epoch, and how often since.
    announced: Option<(Time, usize)>,
    announce_next: Time,
}

impl Running {
    pub(super) fn new(id: SlotId, settings: Settings, plane: Plane) -> Self {
        let mut running = Self::with(id, Element::new(settings, now()), plane);
        running.keep();
        running
    }

    /// Goes on where another process of this life was. What it wanted of the gate may not have been
    /// carried out.
    pub(super) fn resume(id: SlotId, mut machine: Element, mut plane: Plane) -> Self {
        machine.resume(now());
        if machine.gate() > now() {
            plane.fence.open_until(machine.gate());
        } else {
            plane.fence.close();
        }
        Self::with(id, machine, plane)
    }

    fn with(id: SlotId, machine: Element, plane: Plane) -> Self {
        let longest_lease = Duration::from_millis(machine.settings().lease_ms_max.into());
        let meter = Meter::new(longest_lease);
        Self {
            id,
            machine,
            plane,
            counters: SlotView::default(),
            stopwatch: Stopwatch::default(),
            meter,
            announced: None,
            announce_next: Time::NEVER,
        }
    }

    /// The rest of the data plane is there. Whether the LANs were told of this epoch is not known.
    pub(super) fn furnish(&mut self, furniture: Furniture) {
        self.plane.furniture = furniture;
        if self.machine.gate() > now() {
            self.announce();
        }
    }

    /// Writes the machine down for another process of this life.
    pub(super) fn keep(&mut self) {
        if let Some(kept) = &mut self.plane.kept {
            kept.keep(self.id, &self.machine);
        }
    }

    pub(super) fn ask_witnesses(&mut self) {
        let ears = self.plane.furniture.ears.iter_mut();
        ears.for_each(|ear| ear.ask());
    }

    /// What was heard on the LANs, in order; of what repeats itself the first.
    pub(super) fn heard(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        let mut foreign = false;
        for (lan, ear) in self.plane.furniture.ears.iter_mut().enumerate() {
            let mut witness = false;
            for heard in std::iter::from_fn(|| ear.hear()).take(HEARD_MAX) {
                match heard {
                    Heard::Witness if !std::mem::replace(&mut witness, true) => {
                        inputs.push(Input::Witness { lan });
                    }
                    Heard::Foreign if !std::mem::replace(&mut foreign, true) => {
                        inputs.push(Input::SignOfLife);
                    }
                    _ => {}
                }
            }
        }
        inputs
    }

    /// Measures the silence of whoever speaks, before the machine hears it.
    pub(super) fn measure(&mut self, from: NodeId, message: &Message) {
        let machine = &self.machine;
        let pair = (machine.epoch(), machine.pair_peer());
        let interval = machine.heartbeat_interval();
        self.meter.received(now(), (from, message), pair, interval);
    }

    /// When the slot wants its turn.
    pub(super) fn deadline(&self) -> Time {
        self.machine.deadline().min(self.announce_next)
    }

    /// The gate closes, and nothing is announced any more.
    pub(super) fn close(&mut self) {
        self.plane.fence.close();
        self.announced = None;
        self.announce_next = Time::NEVER;
    }

    /// The gate is open: tells the LANs for the first time. Returns where the time has gone.
    pub(super) fn announce(&mut self) -> Takeover {
        let at = now();
        (self.plane.furniture.announce)();
        self.announced = Some((at, 1));
        self.announce_next = at.after(Duration::from_millis(ANNOUNCE_AT_MS[1]));
        let takeover = self.stopwatch.told(now());
        self.counters.takeover = Some(takeover);
        takeover
    }

    /// The gate is open until then.
    pub(super) fn raise(&mut self, until: Time) {
        let rest = self.counters.gate.since(now());
        if self.counters.gate != Time::ZERO {
            let least = self
                .counters
                .lease_margin
                .map_or(rest, |margin| margin.min(rest));
            self.counters.lease_margin = Some(least);
        }
        self.counters.gate = until;
        // The machine's word is the deadline: it may be earlier than the last one.
        self.plane.fence.open_until(until);
        self.stopwatch.open(now());
    }

    /// Again after a takeover, then now and then while the gate is open.
    pub(super) fn announce_again(&mut self, at: Time) {
        if at < self.announce_next {
            return;
        }
        let Some((since, times)) = self.announced else {
            self.announce_next = Time::NEVER;
            return;
        };
        if self.machine.gate() > at {
            (self.plane.furniture.announce)();
        }
        self.announced = Some((since, times + 1));
        self.announce_next = match ANNOUNCE_AT_MS.get(times + 1) {
            Some(ms) => since.after(Duration::from_millis(*ms)),
            None => at.after(REFRESH),
        };
    }

    /// Counts what the machine tells.
    pub(super) fn note(&mut self, notice: element::Notice) {
        match notice {
            element::Notice::Voted { silence, .. } => self.stopwatch.vote(now(), silence),
            element::Notice::RoleChanged { role, cause, .. } => {
                match (role, cause) {
                    (Role::Active, Cause::Failover) => self.counters.failovers += 1,
                    (Role::Active, Cause::Handover) => self.counters.handovers += 1,
                    _ => self.counters.records += 1,
                }
                if role == Role::Active {
                    self.stopwatch.answer(now());
                } else {
                    self.stopwatch.stop();
                }
            }
            _ => {}
        }
    }

    /// How the slot stands; what is counted from view to view begins anew.
    pub(super) fn view(&mut self) -> SlotView {
        let view = SlotView {
            epoch: self.machine.epoch(),
            role: self.machine.role(),
            peer: self.machine.pair_peer(),
            active: self.machine.active_member(),
            gate: self.machine.gate(),
            unconfirmed: self.machine.unconfirmed(),
            manager_heard_at: self.machine.manager_heard_at(),
            silence_excess: self.meter.longest_excess(now()),
            ..self.counters
        };
        self.counters.gate = self.machine.gate();
        self.counters.lease_margin = None;
        view
    }
}
