//! The ways to be broken, and which row each stands for.

use crate::invariants::Invariant;

/// How a breakage is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// In histories of the profile with that name.
    By(&'static str),
    /// In the told history with that name.
    Told(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The breakage.
    pub broken: Broken,
    /// Its name.
    pub name: &'static str,
    /// What the documentation says.
    pub row: &'static str,
    /// What has to be violated by it.
    pub violates: Invariant,
    /// Where.
    pub shown: Shown,
}

macro_rules! catalogue {
    ($($broken:ident $name:literal $violates:ident $shown:expr, $row:literal;)*) => {
        /// A way to be broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Broken {
            $(#[doc = $row] $broken,)*
        }

        /// All of them.
        pub const CATALOGUE: &[Row] = &[
            $(Row {
                broken: Broken::$broken,
                name: $name,
                row: $row,
                violates: Invariant::$violates,
                shown: $shown,
            },)*
        ];
    };
}

use Shown::{By, Told};

catalogue! {
    // Section 6.
    AcksAfterVote "acks-after-vote" OneHolder Told("late-answer-to-a-vote"),
        "6: B acks on after its vote was sent";
    TimerEndsVote "timer-ends-vote" OneHolder Told("late-answer-to-a-vote"),
        "6: B's timer ends its vote";
    LockFollowsLastToken "lock-follows-last-token" OneHolder Told("reordered-words"),
        "6: the vote's lock follows the last token used";
    HeartbeatsAfterVote "heartbeats-after-vote" OneHolder Told("dumb-manager-and-a-vote"),
        "6: A heartbeats on after its vote";
    HandsOverAfterVote "hands-over-after-vote" OneHolder Told("switchover-of-a-voter"),
        "6: A hands over after its vote";
    HandsOverWithoutPromise "hands-over-without-promise" OneHolder By("storm"),
        "6: A hands over without promising itself";
    HandoverLeaseFromReceipt "handover-lease-from-receipt" OneHolder Told("late-handover"),
        "6: the first lease after a handover counts from receipt";
    AckLeaseFromReceipt "ack-lease-from-receipt" OneHolder Told("late-acks"),
        "6: the same for an ack";
    GrantFromReceipt "grant-from-receipt" OneHolder Told("late-grant"),
        "6: the same for the manager's grant";
    ClosedGateIsRenewed "closed-gate-is-renewed" OneHolder By("storm"),
        "6: a late ack of the old turn renews; a renewing thread races with a closing one";
    VotesInsidePromise "votes-inside-promise" OneHolder By("storm"),
        "6: a vote inside the own promise";
    ShortPromise "short-promise" OneHolder By("storm"),
        "6: a promise shorter than the lease";
    CommitsOverGrant "commits-over-grant" OneHolder By("storm"),
        "6: M commits over its own grant";
    RestartWaitsOnlyUnarmed "restart-waits-only-unarmed" OneHolder Told("manager-restarts-when-armed"),
        "6: a restarted M waits only if the record says 'not armed'";
    RestartsWithoutWait "restarts-without-wait" OneHolder Told("manager-restarts-when-armed"),
        "6: the same without any wait";
    AnswersBeforeDisk "answers-before-disk" Durable By("storm"),
        "6: M answers before the record is on disk";
    NoteOverwrites "note-overwrites-record" Durable By("storm"),
        "6: 'M is told of the handover' overwrites the record";
    VoteByName "vote-by-name" OneHolder Told("late-copy-of-a-vote"),
        "6: a vote is matched by name, not by term (nor by its token)";
    SameIncarnation "same-incarnation" OneHolder By("storm"),
        "6: votes without incarnation";
    NewLifeCountsAtOnce "new-life-counts-at-once" OneHolder Told("standby-restarts-at-once"),
        "6: a new life counts at once for an armed pair";
    ClosesAfterRegistering "closes-after-registering" OneHolder Told("restart-of-a-lone-active"),
        "6: register first, close the gate later";
    ReplacesSilentPair "replaces-silent-pair" OneHolder By("storm"),
        "6: M and a spare replace a silent pair";
    ShortManagerLease "short-manager-lease" OneHolder Told("manager-restarts-after-a-split"),
        "6: L_M shorter than L";
    ReplacesInsideGrant "replaces-inside-grant" OneHolder By("storm"),
        "6: M replaces before its grant has ended";
    ServesOnSilence "serves-on-silence" OneHolder By("serve"),
        "6: `serve` on silence alone";
    WitnessAtTheEndOnly "witness-at-the-end-only" OneHolder Told("isolated-and-back"),
        "6: the witness is asked only at the end";
    SilentUntilKeys "silent-until-keys" OneHolder Told("return-of-a-member"),
        "6, 5i: a new life is silent until it has keys";
    SilenceWhileFrozen "silence-while-frozen" OneHolder Told("frozen-and-back"),
        "6: silence counts while frozen";
    NoGossip "no-gossip" OneHolder By("lone-serve"),
        "6: only voters are heard, no gossip, not armed";
    ServesInsidePromise "serves-inside-promise" OneHolder Told("isolated-for-a-moment"),
        "6: T_serve shorter than L";
    UndecodableIsSilence "undecodable-is-silence" OneHolder By("serve"),
        "6: A's keys or certificate fail";
    UnableVoterStaysOpen "unable-voter-stays-open" OneHolder Told("both-functions-fail"),
        "6, 5a: an unable active votes and leaves its gate open";
    AnswersWhileWriting "answers-while-writing" OneHolder Told("standstill-while-writing"),
        "6, 5b: M goes on answering while it writes";
    // Sections 5 and 7.
    VoteByWholeEpoch "vote-by-whole-epoch" OutageBound By("single"),
        "7: M compares the whole epoch of a vote";
    DeafIsPromised "deaf-is-promised" OutageBound By("single"),
        "7: A hears nothing but is heard";
    GrantsToDeaf "grants-to-deaf" OutageBound By("lone"),
        "7: the same between A and M";
    ResentHandoverRenews "resent-handover-renews" OutageBound Told("switchover-to-the-dead"),
        "7: each repetition of a handover renews A's promise, and B is dead";
    NewLivesUnheard "new-lives-unheard" Liveness By("storm"),
        "7: A and B both restart";
    ArmsUnreached "arms-unreached" RoleChanges Told("standby-out-of-reach"),
        "7: M arms a standby that A cannot reach";
    ArmedWithoutPromise "armed-without-promise" Liveness By("single"),
        "7: a newly armed B votes before A's first heartbeat";
    RefusedVoteAtOnce "refused-vote-at-once" RoleChanges By("storm"),
        "7: a refused vote is repeated at once";
    SparesBlockServing "spares-block-serving" OutageBound By("lone-serve"),
        "7: `serve` is blocked because spares are heard while M is dead and nobody is armed";
    VoteLocked "vote-locked" OutageBound Told("manager-dies-in-a-vote"),
        "7: a vote is locked for ever when M dies in that moment";
    DeafWinsOwnVote "deaf-wins-own-vote" OutageBound By("single"),
        "7, 5c: a deaf active wins its own vote";
    QuarantineLifted "quarantine-lifted" Flapping By("blinks"),
        "3, R11: nobody is quarantined";
    ProofsWithoutStream "proofs-without-stream" InSync By("storm"),
        "5d: a proof of the copy that no stream gave";
    NeverRenounces "never-renounces" OutageBound Told("active-dies-when-armed"),
        "5h: the manager's lease is not renounced";
    PaceCutsPromise "pace-cuts-promise" OneHolder By("storm"),
        "R17: the promise of the term before is cut to the lease of the new one";
    PreparedBeforeDisk "prepared-before-disk" Durable By("storm"),
        "5n: a vote is committed although its preparation is not on disk yet";
    ForgetsPreparation "forgets-preparation" Durable By("storm"),
        "5n: a restarted M does not look at the preparation";
    PreparedForTheOther "prepared-for-the-other" Durable By("storm"),
        "5n: a preparation for one voter is used for the other's vote";
    PreparationCountsAsVoted "preparation-counts-as-voted" OneHolder Told("silent-pair-prepared"),
        "5n: a restarted M takes a preparation for a record that was voted";
    UsesGrantInsidePromise "uses-grant-inside-promise" OneHolder Told("manager-dies-when-prepared"),
        "5n: an element uses a grant while its own promise runs";
    // Drivers.
    ClosesLate "closes-late" OneHolder By("storm"),
        "driver: a gate is closed after what follows";
    OpensWithoutEpoch "opens-without-epoch" OneHolder By("storm"),
        "driver: a gate is opened late, the epoch is not checked";
    FailedWriteIsDone "failed-write-is-done" Durable By("storm"),
        "driver: a writing that failed is told to be done";
}

impl Broken {
    /// The row of it.
    #[must_use]
    pub fn row(self) -> Option<&'static Row> {
        CATALOGUE.iter().find(|row| row.broken == self)
    }

    /// The mutations inside the machines that it needs. What a vote or a short manager lease does
    /// wrong needs one more: that no grant is used inside the own promise (5n) repairs it as well.
    #[cfg(feature = "broken")]
    #[must_use]
    pub const fn mutations(self) -> &'static [vnfpool_succession::Mutation] {
        use vnfpool_succession::Mutation as M;
        match self {
            Self::LockFollowsLastToken => &[M::LockFollowsLastToken, M::UsesGrantInsidePromise],
            Self::HandsOverWithoutPromise => &[M::HandsOverWithoutPromise],
            Self::VotesInsidePromise => &[M::VotesInsidePromise, M::UsesGrantInsidePromise],
            Self::WitnessAtTheEndOnly => &[M::WitnessAtTheEndOnly],
            Self::SilenceWhileFrozen => &[M::SilenceWhileFrozen],
            Self::ServesInsidePromise => &[M::ServesInsidePromise],
            Self::ResentHandoverRenews => &[M::ResentHandoverRenews],
            Self::ArmedWithoutPromise => &[M::ArmedWithoutPromise],
            // With a lease in its settings that is too short.
            Self::ShortPromise => &[M::OwnPace],
            Self::PaceCutsPromise => &[M::PaceCutsPromise],
            Self::TimerEndsVote
            | Self::HeartbeatsAfterVote
            | Self::HandsOverAfterVote
            | Self::VoteByName
            | Self::ShortManagerLease
            | Self::AnswersWhileWriting
            | Self::UsesGrantInsidePromise => &[M::UsesGrantInsidePromise],
            _ => &[],
        }
    }
}
