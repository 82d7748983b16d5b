//! Epochs and incarnations: who is meant, and in which order things happened.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The fencing token of a slot, ordered lexicographically.
///
/// A `term` names one pair for ever and is changed by the manager's compare-and-swap only; a
/// `turn` says who of the pair is active and is changed by the pair only.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch {
    /// Number of the pair, from 1; 0 means "no term known".
    pub term: u64,
    /// Number of handovers within the term; even: the pair's first member is active.
    pub turn: u16,
}

impl Epoch {
    /// The first turn of `term`.
    #[must_use]
    pub const fn first_of(term: u64) -> Self {
        Self { term, turn: 0 }
    }

    /// Who of the pair is active in this epoch.
    #[must_use]
    pub const fn active(self) -> PairRole {
        if self.turn.is_multiple_of(2) {
            PairRole::First
        } else {
            PairRole::Second
        }
    }

    /// The next turn of the same term, or none when the turns are used up.
    #[must_use]
    pub fn next_turn(self) -> Option<Self> {
        Some(Self {
            term: self.term,
            turn: self.turn.checked_add(1)?,
        })
    }

    /// The epoch as one number, `term << 16 | turn`: larger means newer.
    #[must_use]
    pub const fn fencing_token(self) -> u64 {
        self.term << 16 | self.turn as u64
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.turn)
    }
}

/// A place in a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PairRole {
    /// The member that is active in even turns.
    First,
    /// The member that is active in odd turns.
    Second,
}

/// One life of an element's agent, ordered: a restarted agent has a higher one and is no voter of
/// the terms of its earlier lives.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fencing_tokens_are_ordered_like_epochs() {
        let epochs = [
            Epoch { term: 1, turn: 0 },
            Epoch {
                term: 1,
                turn: u16::MAX,
            },
            Epoch { term: 2, turn: 0 },
        ];
        assert!(epochs.is_sorted());
        assert!(epochs.map(Epoch::fencing_token).is_sorted());
        assert_eq!(epochs[1].next_turn(), None);
    }
}
