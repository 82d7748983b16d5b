//! Worlds of machines that are broken on purpose: in each a violation has to be found.

use super::{BASE, CUTS_OF_THREE, SERVE, cut};
use crate::mutation::Mutation;
use crate::world::{Cut, Kind, Start, World, both, link};

/// One world for each mutation, with the disturbances that it needs.
#[must_use]
pub fn broken() -> Vec<World> {
    let mut worlds = broken_votes();
    worlds.extend(broken_leases());
    worlds.extend(broken_managers());
    worlds.extend(broken_preparations());
    worlds.extend(broken_serving());
    worlds
}

/// What the longest of these histories cut, and nothing else.
const DEAF_AND_MUTE: &[Cut] = &[
    cut("B>A", link(2, 1)),
    cut("A-M", both(1, 0)),
    cut("A-M, M>B", both(1, 0) | link(0, 2)),
    cut("B-M", both(2, 0)),
];

const fn world(name: &'static str, mutation: Mutation) -> World {
    World {
        name,
        about: "broken on purpose",
        disturbances: 4,
        mutation: Some(mutation),
        ..BASE
    }
}

const fn alone(world: World) -> World {
    World {
        start: Start::Alone,
        ..world
    }
}

const fn of_three(world: World) -> World {
    World {
        elements: 3,
        any_order: false,
        cuts: CUTS_OF_THREE,
        ..world
    }
}

const fn serving(name: &'static str, mutation: Mutation) -> World {
    World {
        name,
        about: "broken on purpose",
        disturbances: 1,
        mutation: Some(mutation),
        any_order: false,
        ..SERVE
    }
}

fn broken_votes() -> Vec<World> {
    use Mutation as M;
    vec![
        world("broken-ack-after-vote", M::AckAfterVote)
            .with(Kind::Freeze, 1)
            .with(Kind::Hold, 1),
        world("broken-vote-ends-by-timer", M::VoteEndsByTimer)
            .with(Kind::Freeze, 1)
            .with(Kind::Hold, 1),
        World {
            late_max: 2,
            any_order: false,
            ..world("broken-lock-follows-last-token", M::LockFollowsLastToken)
        }
        .with(Kind::Freeze, 1)
        .with(Kind::Hold, 2)
        .with(Kind::Lose, 1),
        World {
            any_order: false,
            eager_arming: false,
            gossip: true,
            cuts: DEAF_AND_MUTE,
            ..world("broken-heartbeat-after-vote", M::HeartbeatAfterVote)
        }
        .with(Kind::Cut, 3)
        .with(Kind::Hold, 1),
        world("broken-hand-over-after-vote", M::HandOverAfterVote)
            .with(Kind::Cut, 1)
            .with(Kind::Hold, 1)
            .with(Kind::HandOver, 1),
        world("broken-vote-inside-promise", M::VoteInsidePromise),
        World {
            late_max: 2,
            ..world("broken-vote-by-name", M::VoteMatchedByName)
        }
        .with(Kind::Cut, 1)
        .with(Kind::Hold, 2),
        world(
            "broken-vote-without-incarnation",
            M::VotesWithoutIncarnation,
        )
        .with(Kind::Freeze, 1)
        .with(Kind::Hold, 1)
        .with(Kind::Crash, 1),
        of_three(world("broken-unable-voter-open", M::UnableVoterStaysOpen))
            .with(Kind::HandOver, 1)
            .with(Kind::Fail, 1)
            .with(Kind::Cut, 1),
    ]
}

fn broken_leases() -> Vec<World> {
    use Mutation as M;
    vec![
        world("broken-no-promise-at-handover", M::HandOverWithoutPromise).with(Kind::HandOver, 1),
        world("broken-handover-from-receipt", M::HandoverLeaseFromReceipt)
            .with(Kind::HandOver, 1)
            .with(Kind::Cut, 1)
            .with(Kind::Hold, 1),
        world("broken-ack-from-receipt", M::AckLeaseFromReceipt)
            .with(Kind::Cut, 1)
            .with(Kind::Hold, 1),
        alone(world("broken-grant-from-receipt", M::GrantLeaseFromReceipt))
            .with(Kind::Stream, 1)
            .with(Kind::Cut, 1)
            .with(Kind::Hold, 1),
        world("broken-late-ack-renews", M::LateAckRenews)
            .with(Kind::HandOver, 1)
            .with(Kind::Double, 1),
        world("broken-short-promise", M::PromiseShorterThanLease).with(Kind::Cut, 1),
        World {
            lease: 5,
            other_lease: 3,
            manager_lease: 12,
            ..world("broken-pace-cuts-promise", M::PaceCutsPromise)
        }
        .with(Kind::Pace, 1)
        .with(Kind::Hold, 1)
        .with(Kind::Cut, 1),
        alone(world(
            "broken-gate-closed-later",
            M::GateClosedAfterRegistration,
        ))
        .with(Kind::Stream, 1)
        .with(Kind::Lose, 1)
        .with(Kind::Crash, 1)
        .with(Kind::Fail, 1),
    ]
}

fn broken_managers() -> Vec<World> {
    use Mutation as M;
    let long = World {
        manager_lease: 8,
        ..world("broken-replaces-early", M::ReplacesBeforeGrantEnds)
    };
    vec![
        alone(world("broken-commit-over-grant", M::CommitOverGrant)).with(Kind::Cut, 1),
        alone(world("broken-renounces-open", M::RenouncesWithOpenGate)).with(Kind::Cut, 1),
        alone(world(
            "broken-restart-waits-unarmed",
            M::RestartWaitsOnlyUnarmed,
        ))
        .with(Kind::Cut, 1)
        .with(Kind::ManagerCrash, 1),
        alone(world("broken-answers-before-disk", M::AnswersBeforeTheDisk))
            .with(Kind::ManagerCrash, 1),
        World {
            any_order: false,
            late_ticks: 5,
            ..world("broken-answers-while-writing", M::AnswersWhileWriting)
        }
        .with(Kind::Freeze, 2)
        .with(Kind::Hold, 1),
        world("broken-new-life-at-once", M::NewLifeCountsAtOnce)
            .with(Kind::Cut, 1)
            .with(Kind::Crash, 1),
        of_three(world("broken-silent-pair-replaced", M::SilentPairReplaced)).with(Kind::Cut, 1),
        alone(long).with(Kind::Cut, 1),
    ]
}

fn broken_preparations() -> Vec<World> {
    use Mutation as M;
    vec![
        world("broken-commits-unprepared", M::CommitsUnprepared)
            .with(Kind::Crash, 1)
            .with(Kind::Hold, 1),
        world("broken-forgets-preparation", M::ForgetsPreparation)
            .with(Kind::Crash, 1)
            .with(Kind::ManagerCrash, 1),
        of_three(world(
            "broken-preparation-counts-as-voted",
            M::PreparationCountsAsVoted,
        ))
        .with(Kind::Cut, 2)
        .with(Kind::ManagerCrash, 1),
        world("broken-prepared-for-the-other", M::PreparedForTheOther)
            .with(Kind::Cut, 3)
            .with(Kind::ManagerCrash, 1),
        alone(world(
            "broken-prepares-inside-grant",
            M::PreparesInsideGrant,
        ))
        .with(Kind::Cut, 1)
        .with(Kind::ManagerCrash, 1),
        world("broken-grant-inside-promise", M::GrantInsidePromise)
            .with(Kind::Cut, 1)
            .with(Kind::ManagerCrash, 1),
    ]
}

fn broken_serving() -> Vec<World> {
    use Mutation as M;
    let no_gossip = World {
        gossip: false,
        disturbances: 2,
        ..serving("broken-no-gossip", M::NoGossip)
    };
    vec![
        serving("broken-no-witness", M::ServeWithoutWitness).with(Kind::Cut, 1),
        serving("broken-silence-while-frozen", M::SilenceCountsWhileFrozen).with(Kind::Freeze, 1),
        alone(of_three(no_gossip))
            .with(Kind::Stream, 1)
            .with(Kind::Cut, 1),
    ]
}
