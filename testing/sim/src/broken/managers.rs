//! What a broken manager does.

use vnfpool_model::Time;
use vnfpool_succession::manager::{Decision, Effect, Effects, Input, Slot};
use vnfpool_wire::datagram::{Info, Member, Message, NodeId, Record, Request, Split, Token};

use super::{Breakage, Broken, Later};
use crate::world::{Host, MS};
use vnfpool_random::Random;

/// What was seen of one machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    boot: u64,
    turn: (u64, u16),
    /// The term whose silent pair was given up.
    given_up: u64,
    /// The newest record that was prepared.
    prepared: Option<Record>,
}

impl Breakage {
    /// As [`Slot::handle`]. The time is the manager's and the true one.
    pub(crate) fn manage(
        &mut self,
        slot: usize,
        (now, true_now): (Time, u64),
        machine: &mut Slot,
        hosts: &[Host],
        input: Input,
        out: &mut Effects,
    ) {
        let Some(input) = self.changed_for_manager(slot, now, machine, hosts, input) else {
            return;
        };
        match input {
            Input::Received {
                message: Message::Split(_),
                ..
            } if self.is(Broken::CommitsOverGrant) => renounce(machine, now, out),
            Input::Received {
                from,
                message: Message::Request(m),
            } => {
                self.note_turn(slot, machine, &m, true_now);
                let is_new = machine
                    .all_heard()
                    .any(|(node, _, life)| node == from && life < m.incarnation);
                if is_new && self.is(Broken::NewLifeCountsAtOnce) {
                    machine.handle(Time(now.0 - 60 * MS), input, out);
                }
            }
            Input::Tick if self.is(Broken::ReplacesSilentPair) => {
                self.give_up(slot, now, machine, out);
            }
            _ => {}
        }
        machine.handle(now, input, out);
        if out.iter().any(|effect| self.tells_too_early(slot, effect)) {
            machine.handle(now, Input::Persisted, out);
        }
        for effect in out.iter() {
            if let Effect::Persist { stored, .. } = effect {
                self.managers[slot].prepared = stored.prepared.or(self.managers[slot].prepared);
            }
        }
        self.answer_while_writing(slot, now, machine, input, out);
        if self.is(Broken::QuarantineLifted) {
            let nodes: Vec<_> = machine.quarantined(now).map(|q| q.node).collect();
            for node in nodes {
                machine.handle(now, Input::Pardoned(node), out);
            }
        }
        for effect in out.iter() {
            if let Effect::Send {
                message: Message::Info(info),
                ..
            } = effect
            {
                self.managers[slot].boot = info.token.boot;
            }
        }
    }

    /// Whether a writing that begins is told to be done.
    fn tells_too_early(&self, slot: usize, effect: &Effect) -> bool {
        let Effect::Persist { stored, decision } = effect else {
            return false;
        };
        let prepared = self.managers[slot].prepared;
        let prepared_term = prepared.map(|record| record.term);
        match self.what {
            Some(Broken::AnswersBeforeDisk) => true,
            Some(Broken::PreparedBeforeDisk) => stored.prepared.is_some(),
            Some(Broken::PreparedForTheOther) => {
                let voted = matches!(decision, Some(Decision::Split { .. }));
                voted && prepared_term == Some(stored.record.term)
            }
            _ => false,
        }
    }

    fn changed_for_manager(
        &self,
        slot: usize,
        now: Time,
        machine: &Slot,
        hosts: &[Host],
        input: Input,
    ) -> Option<Input> {
        let Input::Received { from, message } = input else {
            return Some(input);
        };
        let record = machine.record();
        let message = match (message, self.what) {
            (Message::Split(m), Some(Broken::VoteByName)) => {
                let term = record.map_or(m.term, |r| r.term);
                let boot = self.managers[slot].boot;
                let token = Token { boot, clock: now };
                Message::Split(Split { term, token, ..m })
            }
            (Message::Split(m), Some(Broken::VoteByWholeEpoch)) => {
                let agent = hosts.get(from.0 as usize)?.agent.as_ref();
                if agent.is_some_and(|agent| agent.machines[slot].epoch().turn != 0) {
                    return None;
                }
                Message::Split(m)
            }
            (Message::Request(m), Some(Broken::NewLivesUnheard)) => {
                let later =
                    |member: Member| member.node == from && member.incarnation < m.incarnation;
                let members = record.filter(Record::armed);
                let mut members = members.iter().flat_map(|r| [Some(r.first), r.second]);
                if members.any(|member| member.is_some_and(later)) {
                    return None;
                }
                Message::Request(m)
            }
            (Message::Request(m), Some(Broken::GrantsToDeaf)) => Message::Request(Request {
                heard_manager: true,
                ..m
            }),
            (Message::Request(m), Some(Broken::NeverRenounces)) => Message::Request(Request {
                renounces: false,
                ..m
            }),
            (Message::Request(m), Some(Broken::ArmsUnreached)) => {
                let first = record.filter(|r| !r.armed()).map(|r| r.first.node);
                let mut others = machine.all_heard().filter(|(node, ..)| *node != from);
                let other = others
                    .next()
                    .map(|(node, _, incarnation)| Member { node, incarnation });
                let candidate = if first == Some(from) {
                    other
                } else {
                    m.candidate
                };
                Message::Request(Request { candidate, ..m })
            }
            (message, _) => message,
        };
        Some(Input::Received { from, message })
    }

    /// "M is told of the handover", and writes the record again with it.
    fn note_turn(&mut self, slot: usize, machine: &Slot, m: &Request, true_now: u64) {
        let Some(record) = machine.record() else {
            return;
        };
        let told = (m.epoch.term, m.epoch.turn);
        if !self.is(Broken::NoteOverwrites)
            || told <= self.managers[slot].turn
            || m.epoch.term != record.term
            || m.epoch.turn == 0
        {
            return;
        }
        self.managers[slot].turn = told;
        let wait = Random::new(true_now).below(300 * MS);
        self.later
            .push((true_now + wait, 0, slot, Later::Overwrite(record)));
    }

    /// A pair of which nobody was heard for a while is given up, without a proof.
    fn give_up(&mut self, slot: usize, now: Time, machine: &mut Slot, out: &mut Effects) {
        let Some(Record {
            term,
            first,
            second: Some(second),
            ..
        }) = machine.record()
        else {
            return;
        };
        let silent = |member: Member| {
            let mut heard = machine
                .all_heard()
                .filter(|(node, ..)| *node == member.node);
            heard.all(|(_, at, _)| now.since(at).as_millis() > 300)
        };
        if self.managers[slot].given_up < term && silent(first) && silent(second) {
            self.managers[slot].given_up = term;
            machine.handle(now, Input::Fenced(first.node), out);
            machine.handle(now, Input::Fenced(second.node), out);
        }
    }

    fn answer_while_writing(
        &self,
        slot: usize,
        now: Time,
        machine: &Slot,
        input: Input,
        out: &mut Effects,
    ) {
        if let Input::Received {
            from,
            message: Message::Request(m),
        } = input
            && self.is(Broken::AnswersWhileWriting)
            && machine.waits_for_disk()
        {
            let boot = self.managers[slot].boot;
            let info = Info {
                record: machine.record(),
                token: Token { boot, clock: now },
                echo: m.sent_at,
                grant: false,
            };
            out.push(Effect::Send {
                to: from,
                message: Message::Info(info),
            });
        }
    }
}

/// As if the holder of the manager's lease had given it back.
fn renounce(machine: &mut Slot, now: Time, out: &mut Effects) {
    let Some(record) = machine.record().filter(Record::armed) else {
        return;
    };
    let heard = |(node, _, _): &(NodeId, Time, _)| *node == record.first.node;
    if !machine.all_heard().any(|h| heard(&h)) {
        return;
    }
    let request = Request {
        epoch: vnfpool_model::Epoch::first_of(record.term),
        incarnation: record.first.incarnation,
        sent_at: Time::ZERO,
        heard_manager: false,
        able: false,
        renounces: true,
        candidate: None,
    };
    let from = record.first.node;
    let message = Message::Request(request);
    machine.handle(now, Input::Received { from, message }, out);
}
