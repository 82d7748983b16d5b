//! Named mutations, with which the simulator proves that it would notice (`testing/sim`). Without
//! the feature `broken`, which no build that is used has, nothing here is ever true.

/// A shortcut that looks right; the rows of `docs/succession.md`, sections 5 to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    not(feature = "broken"),
    expect(unreachable_pub, reason = "as with the feature")
)]
pub enum Mutation {
    /// The vote's lock follows the last token used, not the newest.
    LockFollowsLastToken,
    /// The active hands over without a promise of its own.
    HandsOverWithoutPromise,
    /// A vote inside the own promise.
    VotesInsidePromise,
    /// A missing witness does not begin the silence anew.
    WitnessAtTheEndOnly,
    /// As before, and standing still does not begin it anew either.
    SilenceWhileFrozen,
    /// `T_serve` is half a lease, whatever was promised.
    ServesInsidePromise,
    /// Each repetition of a handover renews the promise.
    ResentHandoverRenews,
    /// A newly armed successor begins without a promise.
    ArmedWithoutPromise,
    /// Counts with the lease of its own settings, not with that of the term.
    OwnPace,
    /// The promise of the term before is cut to the lease of the new one (R17).
    PaceCutsPromise,
    /// A manager lease is used while the own promise runs.
    UsesGrantInsidePromise,
}

/// What is wrong with a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Broken {
    /// One bit for each mutation.
    #[cfg(feature = "broken")]
    by: u16,
}

impl Broken {
    #[cfg(feature = "broken")]
    pub(crate) const fn and(self, mutation: Mutation) -> Self {
        Self {
            by: self.by | 1 << mutation as u16,
        }
    }

    #[cfg(feature = "broken")]
    pub(crate) const fn is(self, mutation: Mutation) -> bool {
        self.by & 1 << mutation as u16 != 0
    }

    #[cfg(not(feature = "broken"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn is(self, _: Mutation) -> bool {
        false
    }
}
