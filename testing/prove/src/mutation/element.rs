//! Elements that are broken on purpose.

use vnfpool_model::{Role, Time};
use vnfpool_succession::element::Input;
use vnfpool_wire::datagram::Message;

use super::Mutation;
use crate::clock::{TICK, now};
use crate::host::Host;
use crate::letter::{Body, Letter};
use crate::world::World;

/// A message of the kind that arrives.
macro_rules! heard {
    ($kind:ident($m:pat)) => {
        Input::Received {
            message: Message::$kind($m),
            ..
        }
    };
}

impl Mutation {
    /// Gives an input to an element's machine in the broken way.
    pub fn handle(self, host: &mut Host, world: &World, input: Input, letters: &mut Vec<Letter>) {
        let before = host.view();
        let gate = host.gate;
        let vote = host.life.as_mut().and_then(|life| *life.vote_mut());
        let sent = letters.len();
        let input = self.alter(host, world, input);
        match (self, input) {
            (Self::AckAfterVote, heard!(Heartbeat(_)))
            | (Self::HandOverAfterVote, Input::HandOver | Input::Able(false) | Input::Drained) => {
                without_vote(host, world, input, letters);
            }
            (Self::HeartbeatAfterVote, Input::Tick | Input::InSync { .. }) => {
                heartbeat_on(host, world, letters);
                host.give(world, input, letters);
            }
            (_, heard!(Info(m))) if m.grant && self.grants_inside_promise() => {
                grant_inside_promise(host, world, input, letters);
            }
            _ => host.give(world, input, letters),
        }
        let Some(life) = &mut host.life else { return };
        match (self, input) {
            (Self::HandOverWithoutPromise, _)
                if before.role == Role::Active
                    && life.role() == Role::Standby
                    && life.epoch().term == before.epoch.term =>
            {
                *life.promise_mut() = Time::ZERO;
            }
            (Self::PromiseShorterThanLease, heard!(Heartbeat(_))) => {
                let short = now(host.node).after(world.timing().lease().saturating_sub(TICK));
                let promise = life.promise_mut();
                *promise = (*promise).min(short);
            }
            (Self::PaceCutsPromise, _) if life.epoch().term > before.epoch.term => {
                if let Some(record) = life.record() {
                    let lease = world.timing().at(record.pace).lease();
                    let promise = life.promise_mut();
                    *promise = (*promise).min(now(host.node).after(lease));
                }
            }
            (Self::LockFollowsLastToken, _) => {
                if let (Some(first), Some(voted)) = (vote, life.vote_mut()) {
                    *voted = (*voted).min(first);
                }
            }
            (Self::UnableVoterStaysOpen, _) if letters[sent..].iter().any(is_unable_vote) => {
                host.gate = gate;
            }
            (Self::RenouncesWithOpenGate, _) => {
                for letter in &mut letters[sent..] {
                    if let Body::Message(Message::Request(m)) = &mut letter.body {
                        m.renounces = true;
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether grants are used inside the own promise: that they are not (5n) repairs what these
    /// votes and leases do wrong as well.
    const fn grants_inside_promise(self) -> bool {
        matches!(
            self,
            Self::GrantInsidePromise
                | Self::AckAfterVote
                | Self::VoteEndsByTimer
                | Self::LockFollowsLastToken
                | Self::HeartbeatAfterVote
                | Self::HandOverAfterVote
                | Self::VoteInsidePromise
                | Self::VoteMatchedByName
                | Self::VotesWithoutIncarnation
                | Self::AnswersWhileWriting
        )
    }

    /// What is changed before the machine sees the input.
    fn alter(self, host: &mut Host, world: &World, mut input: Input) -> Input {
        let here = now(host.node);
        let Some(life) = &mut host.life else {
            return input;
        };
        match (self, &mut input) {
            (Self::HandoverLeaseFromReceipt, heard!(Handover(m))) if m.echo != Time::ZERO => {
                m.echo = here;
            }
            (Self::AckLeaseFromReceipt, heard!(Ack(m))) => m.echo = here,
            (Self::GrantLeaseFromReceipt, heard!(Info(m))) => m.echo = here,
            (Self::LateAckRenews, heard!(Ack(m))) => {
                let epoch = life.epoch();
                if m.promise && m.epoch.term == epoch.term && m.epoch.turn < epoch.turn {
                    host.gate = host.gate.max(m.echo.after(world.timing().lease()));
                }
            }
            (Self::LockFollowsLastToken, heard!(Info(m))) => {
                if let Some(voted) = life.vote_mut() {
                    *voted = (*voted).min(m.token);
                }
            }
            (Self::VoteEndsByTimer, Input::Tick) => {
                let vote = life.vote_mut();
                if vote.is_some_and(|token| now(0).since(token.clock) >= TICK) {
                    *vote = None;
                }
            }
            (Self::VoteInsidePromise, Input::Tick) => *life.promise_mut() = Time::ZERO,
            _ => {}
        }
        input
    }
}

/// The machine takes a grant as if it had promised nothing.
fn grant_inside_promise(host: &mut Host, world: &World, input: Input, letters: &mut Vec<Letter>) {
    let Some(life) = &mut host.life else { return };
    let promise = std::mem::take(life.promise_mut());
    host.give(world, input, letters);
    if let Some(life) = &mut host.life {
        let again = life.promise_mut();
        *again = (*again).max(promise);
    }
}

fn is_unable_vote(letter: &Letter) -> bool {
    matches!(letter.body, Body::Message(Message::Split(m)) if !m.able)
}

/// The machine acts as if it had no vote out, and has it again afterwards.
fn without_vote(host: &mut Host, world: &World, input: Input, letters: &mut Vec<Letter>) {
    let Some(life) = &mut host.life else { return };
    let term = life.epoch().term;
    let vote = life.vote_mut().take();
    host.give(world, input, letters);
    if let Some(life) = host.life.as_mut().filter(|life| life.epoch().term == term) {
        let again = life.vote_mut();
        *again = vote.or(*again);
    }
}

/// The heartbeat that an active without a vote would send.
fn heartbeat_on(host: &Host, world: &World, letters: &mut Vec<Letter>) {
    let mut twin = host.clone();
    let Some(life) = &mut twin.life else { return };
    if life.vote_mut().take().is_none() {
        return;
    }
    *life.promise_mut() = now(host.node).after(TICK);
    let mut sent = Vec::new();
    twin.give(world, Input::Tick, &mut sent);
    sent.retain(|letter| matches!(letter.body, Body::Message(Message::Heartbeat(_))));
    letters.append(&mut sent);
}
