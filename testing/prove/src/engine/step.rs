//! What a move does, and what must hold afterwards.

use vnfpool_model::Role;
use vnfpool_wire::datagram::{Member, Record};

use super::{Engine, HOSTS_MAX, State};
use crate::host::node_id;
use crate::letter::{Body, name};
use crate::moves::Move;
use crate::net::{Net, QUEUE_MAX, SOCKETS_MAX, Scene};
use crate::world::{UNBOUNDED, link};
use crate::{chief, host};

impl Engine {
    /// The state after a move.
    ///
    /// # Errors
    /// What does not hold in it.
    pub fn step(&mut self, state: State, next: Move) -> Result<State, String> {
        let mut scene = self.scene(state);
        if let Some(kind) = next
            .kind()
            .filter(|kind| self.world.cap(*kind) != UNBOUNDED)
        {
            scene.spent[kind as usize] += 1;
        }
        if matches!(next, Move::Deliver | Move::Beat(_)) {
            scene.fresh = false;
        }
        let mut state = state;
        state.scene = self.scenes.number(scene);
        let state = match next {
            Move::Deliver => self.take_head(state, true, false),
            Move::Lose => self.take_head(state, false, false),
            Move::Hold => self.take_head(state, false, true),
            Move::Double => self.take_head(state, true, true),
            Move::Arrive(index) => self.arrive(state, usize::from(index)),
            Move::Beat(0) => {
                scene.manager_beat = true;
                state.scene = self.scenes.number(scene);
                self.tell_chief(state, chief::Cue::Beat)
            }
            Move::Beat(node) => {
                let proof = self.proof(state, usize::from(node));
                self.tell_host(state, usize::from(node), host::Cue::Beat(proof))
            }
            Move::Advance => return Ok(self.advance(state)),
            Move::Cut(_)
            | Move::Heal
            | Move::BreakStream
            | Move::MendStream
            | Move::Thaw(_)
            | Move::ThawDeaf(_) => self.change_scene(state, next),
            _ => self.change_node(state, next),
        }?;
        self.check(state)?;
        Ok(state)
    }

    /// The first letter leaves the queue: it is delivered, kept for later, both or neither.
    fn take_head(
        &mut self,
        mut state: State,
        delivered: bool,
        kept: bool,
    ) -> Result<State, String> {
        let mut net = self.nets.value(state.net).clone();
        let number = net.queue.remove(0);
        if kept {
            net.late.push((0, number));
            net.late.sort_unstable();
        }
        state.net = self.nets.number(net);
        if delivered {
            self.deliver(state, number)
        } else {
            Ok(state)
        }
    }

    fn arrive(&mut self, mut state: State, index: usize) -> Result<State, String> {
        let mut net = self.nets.value(state.net).clone();
        let (_, number) = net.late.remove(index);
        state.net = self.nets.number(net);
        self.deliver(state, number)
    }

    fn deliver(&mut self, mut state: State, number: u32) -> Result<State, String> {
        let letter = *self.letters.value(number);
        if letter.to == 0 {
            return self.tell_chief(state, chief::Cue::Hear(letter));
        }
        let view = self.host_view(state, letter.to);
        if view.alive && !view.awake {
            let mut net = self.nets.value(state.net).clone();
            if net.sockets.len() < SOCKETS_MAX {
                net.sockets.push(number);
            }
            state.net = self.nets.number(net);
            return Ok(state);
        }
        self.tell_host(state, letter.to, host::Cue::Hear(letter))
    }

    fn tell_host(
        &mut self,
        mut state: State,
        node: usize,
        cue: host::Cue,
    ) -> Result<State, String> {
        let outcome = self.host_reacts(state.hosts[node - 1], cue);
        state.hosts[node - 1] = self.outcomes[outcome as usize].next;
        self.send(state, outcome)
    }

    fn tell_chief(&mut self, mut state: State, cue: chief::Cue) -> Result<State, String> {
        let outcome = self.chief_reacts(state.chief, cue);
        state.chief = self.outcomes[outcome as usize].next;
        self.send(state, outcome)
    }

    /// Puts what was said on its way, as far as links carry it.
    fn send(&mut self, mut state: State, outcome: u32) -> Result<State, String> {
        let outcome = &self.outcomes[outcome as usize];
        if let Some(fault) = &outcome.fault {
            return Err(fault.clone());
        }
        if outcome.letters.is_empty() {
            return Ok(state);
        }
        let cut = self.scenes.value(state.scene).cut;
        let mut net = self.nets.value(state.net).clone();
        for number in &outcome.letters {
            let letter = self.letters.value(*number);
            if letter.to <= self.world.elements && cut & link(letter.from, letter.to) == 0 {
                net.queue.push(*number);
            }
        }
        if net.queue.len() > QUEUE_MAX {
            return Err("a storm of messages".into());
        }
        state.net = self.nets.number(net);
        Ok(state)
    }

    /// Whose copy of the state is proved to the active `node` right now (I5).
    fn proof(&self, state: State, node: usize) -> Option<Member> {
        let scene = self.scene(state);
        let view = self.host_view(state, node);
        if scene.stream_broken || view.role != Role::Active || view.isolated {
            return None;
        }
        let carried = |other: usize| {
            let there = self.host_view(state, other);
            let links = link(node, other) | link(other, node);
            (there.awake && scene.cut & links == 0).then_some(there.me)
        };
        match view.peer {
            Some(peer) => carried(crate::clock::place(peer.node)).filter(|there| *there == peer),
            None => {
                let others = self.world.hosts().filter(|other| *other != node);
                others.filter_map(carried).next()
            }
        }
    }

    fn change_scene(&mut self, mut state: State, next: Move) -> Result<State, String> {
        let mut scene = self.scene(state);
        let mut isolate = None;
        match next {
            Move::Cut(index) => {
                let cut = self.world.cuts[usize::from(index)];
                scene.cut |= cut.links;
                isolate = cut.isolates;
            }
            Move::Heal => scene.cut = 0,
            Move::BreakStream => scene.stream_broken = true,
            Move::MendStream => scene.stream_broken = false,
            Move::Thaw(node) | Move::ThawDeaf(node) => {
                let keeps = matches!(next, Move::Thaw(_));
                state = self.thaw(state, usize::from(node), keeps)?;
            }
            _ => {}
        }
        state.scene = self.scenes.number(scene);
        if let Some(node) = isolate {
            return self.tell_host(state, node, host::Cue::Isolate(true));
        }
        if next == Move::Heal {
            for node in self.world.hosts() {
                state = self.tell_host(state, node, host::Cue::Isolate(false))?;
            }
        }
        Ok(state)
    }

    /// A machine goes on. What waits in its sockets is read before its timers run (S2).
    fn thaw(&mut self, mut state: State, node: usize, keeps: bool) -> Result<State, String> {
        let mut net = self.nets.value(state.net).clone();
        let letters = &self.letters;
        let (mut own, others): (Vec<u32>, Vec<u32>) = net
            .sockets
            .iter()
            .partition(|number| letters.value(**number).to == node);
        net.sockets = others;
        if keeps {
            own.append(&mut net.queue);
            net.queue = own;
        }
        state.net = self.nets.number(net);
        self.tell_host(state, node, host::Cue::Freeze(false))
    }

    fn change_node(&mut self, state: State, next: Move) -> Result<State, String> {
        match next {
            Move::CrashManager { written } => {
                let mut state = state;
                let letters = &self.letters;
                let mut net = self.nets.value(state.net).clone();
                let to_keep =
                    |number: &u32| !matches!(letters.value(*number).body, Body::Written(_));
                net.queue.retain(to_keep);
                net.late.retain(|(_, number)| to_keep(number));
                state.net = self.nets.number(net);
                self.tell_chief(state, chief::Cue::Die { written })
            }
            Move::LiveManager => self.tell_chief(state, chief::Cue::Live),
            Move::Fence(node) => {
                let node = usize::from(node);
                let state = self.tell_host(state, node, host::Cue::PowerOff)?;
                self.tell_chief(state, chief::Cue::Fenced(node_id(node)))
            }
            Move::OtherPace => self.tell_chief(state, chief::Cue::OtherPace),
            Move::Crash(node) => self.tell_host(state, usize::from(node), host::Cue::Die),
            Move::Kill(node) => self.kill(state, usize::from(node % 16), node / 16),
            Move::Resume(node) => self.tell_host(state, usize::from(node), host::Cue::Resume),
            Move::Live(node) => self.tell_host(state, usize::from(node), host::Cue::Live),
            Move::Freeze(node) => self.tell_host(state, usize::from(node), host::Cue::Freeze(true)),
            Move::Fail(node) => self.tell_host(state, usize::from(node), host::Cue::Able(false)),
            Move::Repair(node) => self.tell_host(state, usize::from(node), host::Cue::Able(true)),
            Move::HandOver(node) => self.tell_host(state, usize::from(node), host::Cue::HandOver),
            Move::Save(node) => self.tell_host(state, usize::from(node), host::Cue::Save),
            Move::Restore(node) => self.tell_host(state, usize::from(node), host::Cue::Restore),
            _ => Ok(state),
        }
    }

    /// The agent is killed over the letter that is its next, or over its timer.
    fn kill(&mut self, mut state: State, node: usize, carried: u8) -> Result<State, String> {
        let mut net = self.nets.value(state.net).clone();
        let head = net.queue.first().map(|number| *self.letters.value(*number));
        let letter = head.filter(|letter| letter.to == node);
        if letter.is_some() {
            net.queue.remove(0);
            state.net = self.nets.number(net);
        }
        self.tell_host(state, node, host::Cue::Kill(letter, carried))
    }

    /// A tick passes for every part.
    fn advance(&mut self, mut state: State) -> State {
        for index in 0..HOSTS_MAX {
            state.hosts[index] = self.aged_host(state.hosts[index]);
        }
        state.chief = self.aged_chief(state.chief);
        let mut net: Net = self.nets.value(state.net).clone();
        let late_ticks = self.world.late_ticks;
        net.late.retain(|(age, _)| *age < late_ticks);
        for (age, number) in &mut net.late {
            *age += 1;
            *number = self.aged_letter(*number);
        }
        net.late.sort_unstable();
        for number in &mut net.sockets {
            *number = self.aged_letter(*number);
        }
        state.net = self.nets.number(net);
        let scene = Scene {
            manager_beat: false,
            fresh: true,
            ..self.scene(state)
        };
        state.scene = self.scenes.number(scene);
        state
    }

    fn aged_host(&mut self, number: u32) -> u32 {
        if let Some(aged) = self.aged_hosts[number as usize] {
            return aged;
        }
        let mut host = self.hosts.value(number).clone();
        host.age(&self.world, &self.clocks);
        let aged = self.host_number(host);
        self.aged_hosts[number as usize] = Some(aged);
        aged
    }

    fn aged_chief(&mut self, number: u32) -> u32 {
        if let Some(aged) = self.aged_chiefs[number as usize] {
            return aged;
        }
        let mut chief = self.chiefs.value(number).clone();
        chief.age(&self.world, &self.clocks);
        let aged = self.chief_number(chief);
        self.aged_chiefs[number as usize] = Some(aged);
        aged
    }

    fn aged_letter(&mut self, number: u32) -> u32 {
        if let Some(aged) = self.aged_letters[number as usize] {
            return aged;
        }
        let mut letter = *self.letters.value(number);
        if let Body::Message(message) = &mut letter.body {
            self.clocks.age_message(letter.from, letter.to, message);
        }
        let aged = self.letter_number(letter);
        self.aged_letters[number as usize] = Some(aged);
        aged
    }

    /// I1, and that a term names one pair for ever.
    fn check(&self, state: State) -> Result<(), String> {
        let owners: Vec<usize> = self.owners(state).collect();
        if owners.len() > 1 {
            let names: Vec<&str> = owners.into_iter().map(name).collect();
            return Err(format!("I1: {} are open at once", names.join(" and ")));
        }
        let chief = self.chief_view(state);
        let mut known: Vec<Record> = [chief.told, chief.record].into_iter().flatten().collect();
        known.extend(
            self.world
                .hosts()
                .filter_map(|n| self.host_view(state, n).record),
        );
        for (index, one) in known.iter().enumerate() {
            let other = known[index + 1..]
                .iter()
                .find(|r| r.term == one.term && *r != one);
            if let Some(other) = other {
                return Err(format!("one term, two pairs: {one:?} and {other:?}"));
            }
        }
        Ok(())
    }
}
