//! A manager that is broken on purpose.

use vnfpool_model::Time;
use vnfpool_succession::manager::{Decision, Input, Stored};
use vnfpool_wire::datagram::{Info, Message, NodeId, Token};

use super::Mutation;
use crate::chief::{Chief, Trace};
use crate::clock::{now, place};
use crate::host::node_id;
use crate::letter::{Body, Letter};
use crate::world::World;

impl Mutation {
    /// Gives an input to the manager's machine in the broken way.
    pub fn manage(
        self,
        chief: &mut Chief,
        world: &World,
        mut input: Input,
        letters: &mut Vec<Letter>,
        trace: &mut Trace,
    ) {
        let boot = chief.boot;
        let Some(life) = &mut chief.life else { return };
        let armed = life.record().is_some_and(|record| record.armed());
        match (self, &mut input) {
            (
                Self::CommitOverGrant,
                Input::Received {
                    message: Message::Split(_),
                    ..
                },
            ) => {
                *life.grant_mut() = Time::ZERO;
            }
            (Self::ReplacesBeforeGrantEnds, _) if !armed => *life.grant_mut() = Time::ZERO,
            (
                Self::VoteMatchedByName,
                Input::Received {
                    message: Message::Split(m),
                    ..
                },
            ) => {
                m.term = life.record().map_or(m.term, |record| record.term);
            }
            (Self::NewLifeCountsAtOnce, _) => {
                for host in world.hosts() {
                    if let Some(at) = life.registered_mut(node_id(host)) {
                        *at = Time(1);
                    }
                }
            }
            (Self::SilentPairReplaced, Input::Tick) if armed => {
                for node in silent_pair(chief, world) {
                    chief.give(world, Input::Fenced(node), letters, trace);
                }
            }
            (
                Self::AnswersWhileWriting,
                Input::Received {
                    from,
                    message: Message::Request(m),
                },
            ) if life.waits_for_disk() => {
                let info = Info {
                    record: life.record(),
                    token: Token {
                        boot,
                        clock: now(0),
                    },
                    echo: m.sent_at,
                    grant: false,
                };
                letters.push(Letter {
                    from: 0,
                    to: place(*from),
                    body: Body::Message(Message::Info(info)),
                });
            }
            (Self::PreparesInsideGrant, Input::Received { message, .. })
                if armed && !matches!(message, Message::Split(_)) =>
            {
                let grant = std::mem::take(life.grant_mut());
                chief.give(world, input, letters, trace);
                if let Some(life) = &mut chief.life {
                    let now_runs = life.grant_mut();
                    *now_runs = (*now_runs).max(grant);
                }
                return;
            }
            _ => {}
        }
        chief.give(world, input, letters, trace);
    }

    /// Whether the manager is told that a writing is done as soon as it begins.
    pub fn tells_too_early(
        self,
        disk: Option<Stored>,
        stored: Stored,
        decision: Option<Decision>,
    ) -> bool {
        match self {
            Self::AnswersBeforeTheDisk => true,
            Self::CommitsUnprepared => stored.prepared.is_some(),
            Self::PreparedForTheOther => {
                let prepared = disk.and_then(|disk| disk.prepared);
                let voted = matches!(decision, Some(Decision::Split { .. }));
                voted && prepared.is_some_and(|r| r.term == stored.record.term)
            }
            _ => false,
        }
    }
}

/// Both members, when neither has been heard for two leases.
fn silent_pair(chief: &Chief, world: &World) -> Vec<NodeId> {
    let Some(life) = &chief.life else {
        return Vec::new();
    };
    let Some(record) = life.record() else {
        return Vec::new();
    };
    let silent = world.timing().lease() * 2;
    let members: Vec<NodeId> = life
        .all_heard()
        .filter(|(_, at, _)| *at != Time::ZERO && now(0).since(*at) >= silent)
        .map(|(node, ..)| node)
        .filter(|node| record.first.node == *node || record.second.is_some_and(|m| m.node == *node))
        .collect();
    if members.len() == 2 {
        members
    } else {
        Vec::new()
    }
}
