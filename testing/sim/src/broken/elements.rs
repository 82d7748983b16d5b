//! What a broken element does: inputs that are changed on their way to the machine, effects that
//! are added to its own, and a machine that forgets that it has voted.

use vnfpool_model::{Role, Time};
use vnfpool_succession::as_held;
use vnfpool_succession::element::{Effect, Effects, Element, Input};
use vnfpool_wire::datagram::{Ack, Heartbeat, Info, Member, Message, NodeId, Record, Split, Token};

use super::{Breakage, Broken};

/// What was seen of one machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    record: Option<Record>,
    /// The newest `sent_at` of the pair's other member.
    peer_sent: Time,
    vote: Option<Vote>,
}

/// A vote that is out, and the machine before it.
#[derive(Clone, Debug)]
struct Vote {
    split: Split,
    at: Time,
    before: Element,
}

impl Breakage {
    pub(crate) fn reborn(&mut self, node: usize) {
        for slot in &mut self.elements {
            slot[node] = Seen::default();
        }
    }

    /// As [`Element::handle`].
    pub(crate) fn handle(
        &mut self,
        (node, slot): (usize, usize),
        me: Member,
        now: Time,
        machine: &mut Element,
        input: Input,
        out: &mut Effects,
    ) {
        self.forget_vote(node, slot, now, machine, input);
        let input = self.changed(node, slot, now, input);
        self.see(node, slot, machine, input);
        let before = machine.clone();
        if self.is(Broken::DeafWinsOwnVote) && input == Input::Tick {
            let info = Info {
                record: None,
                token: Token::default(),
                echo: now,
                grant: false,
            };
            let from = NodeId::MANAGER;
            let message = Message::Info(info);
            machine.handle(now, Input::Received { from, message }, out);
        }
        machine.handle(now, input, out);
        self.note_vote(node, slot, now, machine, before, out);
        self.add(node, slot, me, now, machine, input, out);
    }

    /// The machine goes back to what it was before its vote.
    fn forget_vote(
        &mut self,
        node: usize,
        slot: usize,
        now: Time,
        machine: &mut Element,
        input: Input,
    ) {
        let Some(vote) = &self.elements[slot][node].vote else {
            return;
        };
        if vote.before.epoch() != machine.epoch() {
            self.elements[slot][node].vote = None;
            return;
        }
        let timer = self.is(Broken::TimerEndsVote) && now.since(vote.at).as_millis() >= 25;
        let hands_over = self.is(Broken::HandsOverAfterVote) && input == Input::HandOver;
        if timer || hands_over {
            *machine = vote.before.clone();
            self.elements[slot][node].vote = None;
        }
    }

    fn changed(&self, node: usize, slot: usize, now: Time, input: Input) -> Input {
        let Input::Received { from, message } = input else {
            return input;
        };
        let vote = self.elements[slot][node].vote.as_ref();
        let message = match (message, self.what) {
            (Message::Handover(mut m), Some(Broken::HandoverLeaseFromReceipt)) => {
                m.echo = now;
                Message::Handover(m)
            }
            (Message::Ack(mut m), Some(Broken::AckLeaseFromReceipt)) => {
                m.echo = now;
                Message::Ack(m)
            }
            (Message::Info(mut m), Some(Broken::GrantFromReceipt)) => {
                m.echo = now;
                Message::Info(m)
            }
            (Message::Heartbeat(mut m), Some(Broken::DeafIsPromised)) => {
                m.echo = now;
                Message::Heartbeat(m)
            }
            (Message::Gossip(mut m), Some(Broken::SparesBlockServing)) => {
                m.manager_silence_ms = 0;
                Message::Gossip(m)
            }
            (Message::Info(mut m), Some(Broken::VoteLocked)) => {
                m.token = vote.map_or(m.token, |vote| vote.split.token);
                Message::Info(m)
            }
            (message, _) => message,
        };
        Input::Received { from, message }
    }

    fn see(&mut self, node: usize, slot: usize, machine: &Element, input: Input) {
        let Input::Received { from, message } = input else {
            return;
        };
        let seen = &mut self.elements[slot][node];
        let record = match message {
            Message::Info(m) => m.record,
            Message::Heartbeat(m) => Some(m.record),
            _ => None,
        };
        if record.map_or(0, |r| r.term) > seen.record.map_or(0, |r| r.term) {
            seen.record = record;
        }
        if machine.pair_peer().is_some_and(|peer| peer.node == from) {
            let sent = match message {
                Message::Ack(m) => m.sent_at,
                Message::Heartbeat(m) => m.sent_at,
                Message::Gossip(m) => m.sent_at,
                _ => Time::ZERO,
            };
            seen.peer_sent = seen.peer_sent.max(sent);
        }
    }

    fn note_vote(
        &mut self,
        node: usize,
        slot: usize,
        now: Time,
        machine: &Element,
        before: Element,
        out: &mut Effects,
    ) {
        let split = out.iter().rev().find_map(|effect| match effect {
            Effect::Send {
                message: Message::Split(split),
                ..
            } => Some(*split),
            _ => None,
        });
        let Some(split) = split else { return };
        let seen = &mut self.elements[slot][node];
        match &mut seen.vote {
            Some(vote) if vote.before.epoch() == machine.epoch() => vote.split = split,
            vote => {
                let at = now;
                *vote = Some(Vote { split, at, before });
            }
        }
        if self.is(Broken::UnableVoterStaysOpen) && !split.able {
            out.retain(|effect| {
                !matches!(
                    effect,
                    Effect::Gate {
                        until: Time::ZERO,
                        ..
                    }
                )
            });
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call, with everything about it"
    )]
    fn add(
        &self,
        node: usize,
        slot: usize,
        me: Member,
        now: Time,
        machine: &Element,
        input: Input,
        out: &mut Effects,
    ) {
        let seen = &self.elements[slot][node];
        let voted = seen.vote.as_ref();
        let voted = voted.filter(|vote| vote.before.epoch() == machine.epoch());
        let epoch = machine.epoch();
        match (input, self.what) {
            (
                Input::Received {
                    from,
                    message: Message::Heartbeat(m),
                },
                Some(Broken::AcksAfterVote),
            ) => {
                let acks = |e: &Effect| {
                    matches!(
                        e,
                        Effect::Send {
                            message: Message::Ack(_),
                            ..
                        }
                    )
                };
                let ours = m.record.term == epoch.term && m.turn == epoch.turn;
                let heard = machine.role() == Role::Standby && voted.is_some() && ours;
                if heard && !out.iter().any(acks) {
                    let ack = Ack {
                        epoch,
                        incarnation: me.incarnation,
                        sent_at: now,
                        echo: m.sent_at,
                        promise: true,
                        able: true,
                    };
                    out.push(Effect::Send {
                        to: from,
                        message: Message::Ack(ack),
                    });
                }
            }
            (Input::Tick, Some(Broken::HeartbeatsAfterVote)) if voted.is_some() => {
                let record = seen.record.filter(|r| r.term == epoch.term);
                if let (Some(record), Some(peer), Role::Active) =
                    (record, machine.pair_peer(), machine.role())
                {
                    let heartbeat = Heartbeat {
                        turn: epoch.turn,
                        record,
                        sent_at: now,
                        echo: seen.peer_sent,
                    };
                    out.push(Effect::Send {
                        to: peer.node,
                        message: Message::Heartbeat(heartbeat),
                    });
                }
            }
            (
                Input::Received {
                    message: Message::Ack(m),
                    ..
                },
                Some(Broken::ClosedGateIsRenewed),
            ) if m.promise && machine.gate() == Time::ZERO => {
                let lease = self.timing.lease();
                out.push(Effect::Gate {
                    epoch: m.epoch,
                    until: m.echo.after(as_held(lease)),
                });
            }
            (
                Input::Received {
                    message: Message::Info(m),
                    ..
                },
                Some(Broken::RefusedVoteAtOnce),
            ) => {
                if let Some(vote) = voted {
                    let split = Split {
                        token: m.token,
                        sent_at: now,
                        ..vote.split
                    };
                    out.push(Effect::Send {
                        to: NodeId::MANAGER,
                        message: Message::Split(split),
                    });
                }
            }
            _ => {}
        }
    }
}
