//! Machines that are broken on purpose: the shortcuts of docs/succession.md, section 6. The checker
//! has to find the history that breaks each; otherwise its silence about the real machines would
//! mean nothing. The machines themselves are the production's: a mutation alters what goes into
//! them and what comes out.

mod element;
mod manager;

/// A shortcut that looks right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// B acks on after its vote was sent.
    AckAfterVote,
    /// B's timer ends its vote.
    VoteEndsByTimer,
    /// The vote's lock follows the last token instead of the newest.
    LockFollowsLastToken,
    /// A heartbeats on after its vote.
    HeartbeatAfterVote,
    /// A hands over after its vote.
    HandOverAfterVote,
    /// A hands over without promising itself.
    HandOverWithoutPromise,
    /// The first lease after a handover counts from its receipt.
    HandoverLeaseFromReceipt,
    /// A lease counts from the receipt of the ack.
    AckLeaseFromReceipt,
    /// A manager lease counts from the receipt of the grant.
    GrantLeaseFromReceipt,
    /// A late ack of the old turn renews.
    LateAckRenews,
    /// A vote inside the own promise.
    VoteInsidePromise,
    /// A promise that is shorter than the lease.
    PromiseShorterThanLease,
    /// M commits over its own grant.
    CommitOverGrant,
    /// A restarted M waits only if no successor is armed.
    RestartWaitsOnlyUnarmed,
    /// M answers before the record is on disk.
    AnswersBeforeTheDisk,
    /// A vote is matched by name, not by term.
    VoteMatchedByName,
    /// Votes without incarnation: an agent starts again under the old one.
    VotesWithoutIncarnation,
    /// A new life counts at once for an armed pair.
    NewLifeCountsAtOnce,
    /// Register first, close the gate later.
    GateClosedAfterRegistration,
    /// M and a spare replace a silent pair.
    SilentPairReplaced,
    /// M replaces before its grant has ended.
    ReplacesBeforeGrantEnds,
    /// `serve` on silence alone, without a witness.
    ServeWithoutWitness,
    /// Silence counts while frozen.
    SilenceCountsWhileFrozen,
    /// Only voters are heard: no gossip.
    NoGossip,
    /// An unable active votes and leaves its gate open (5a).
    UnableVoterStaysOpen,
    /// M goes on answering while it writes (5b).
    AnswersWhileWriting,
    /// A renounces its grant before its gate is down (5h).
    RenouncesWithOpenGate,
    /// The promise of the term before is cut to the lease of the new one (R17).
    PaceCutsPromise,
    /// M commits a vote although its preparation is not on disk yet (5n).
    CommitsUnprepared,
    /// A restarted M does not look at the preparation (5n).
    ForgetsPreparation,
    /// A restarted M takes a preparation for a record that was voted (5n).
    PreparationCountsAsVoted,
    /// A preparation for one voter is used for the other's vote (5n).
    PreparedForTheOther,
    /// M prepares while a grant of its own may run (5n).
    PreparesInsideGrant,
    /// An element uses a grant while its own promise runs (5n).
    GrantInsidePromise,
}
