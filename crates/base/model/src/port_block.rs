//! Blocks of ports (and ICMP identifiers) that elements hand out without asking each other.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ElementId;

/// A map of the operator's ruleset (`nft`), whose element says which block is in use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NatMap {
    /// Family of its table: `ip`, `ip6` or `inet`.
    pub family: String,
    /// Name of its table.
    pub table: String,
    /// Its own name.
    pub name: String,
}

impl NatMap {
    /// The name of the chain that translates into a block: the map's with the block's number.
    #[must_use]
    pub fn chain(&self, block: u16) -> String {
        format!("{}_{block}", self.name)
    }
}

/// Which blocks a slot has and whose they are (docs/decisions/0022).
///
/// Every element has [`PortBlocks::blocks_each`] blocks of its own, in the order of
/// [`PortBlocks::elements`], and goes round in them: with every use it takes the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBlocks {
    /// Where the block in use is written.
    pub map: NatMap,
    /// The owners; an element that is not among them has no block and cannot serve.
    pub elements: Vec<ElementId>,
    /// Blocks of each element, from 2.
    pub blocks_each: u16,
}

impl PortBlocks {
    /// How many blocks the ruleset has to have.
    #[must_use]
    pub fn count(&self) -> usize {
        self.elements.len() * usize::from(self.blocks_each)
    }

    /// Whether every block would still be its owner's: blocks may be added behind the others.
    #[must_use]
    pub fn may_become(&self, other: &Self) -> bool {
        self.map == other.map
            && self.blocks_each == other.blocks_each
            && other.elements.starts_with(&self.elements)
    }

    /// The block of `element` in its use number `turn`; none if it owns no blocks.
    ///
    /// No two elements ever have the same, and one element has a block again only after all its
    /// others.
    #[must_use]
    pub fn block(&self, element: &ElementId, turn: u64) -> Option<u16> {
        let owner = self.elements.iter().position(|e| e == element)?;
        let each = u64::from(self.blocks_each.max(1));
        let block = u64::try_from(owner).ok()? * each + turn % each;
        u16::try_from(block).ok()
    }
}

/// How far an element has gone round in the blocks of a slot.
///
/// What an active has handed out and not replicated may be lost with it, while the other end still
/// knows it. So a turn in which the element served is over when it serves no more, and when its
/// agent begins a new life: whether the kernel's table is still whole, it cannot know then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockTurn {
    /// Its number, from 0; [`PortBlocks::block`] makes a block of it.
    pub number: u64,
    /// Whether the slot was served in it.
    pub used: bool,
}

impl BlockTurn {
    /// The turn with which a process of the agent begins, after `stored`, the last one that was
    /// brought to the disk; `serves` if it goes on serving where another process was.
    #[must_use]
    pub fn begin(stored: Option<Self>, serves: bool) -> Self {
        stored.unwrap_or_default().with_role(serves)
    }

    /// The turn when the element serves the slot, or does not.
    ///
    /// A turn that was not used stays: however often a standby's agent starts anew, the blocks
    /// that were used last are as far away as before.
    #[must_use]
    pub const fn with_role(self, serves: bool) -> Self {
        match (serves, self.used) {
            (true, _) => Self { used: true, ..self },
            (false, false) => self,
            (false, true) => Self {
                number: self.number.wrapping_add(1),
                used: false,
            },
        }
    }

    /// As one word for a file; [`str::parse`] reads it.
    #[must_use]
    pub fn to_word(self) -> String {
        let mark = if self.used { "+" } else { "" };
        format!("{}{mark}", self.number)
    }
}

impl FromStr for BlockTurn {
    type Err = std::num::ParseIntError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let word = word.trim();
        let number = word.strip_suffix('+');
        Ok(Self {
            number: number.unwrap_or(word).parse()?,
            used: number.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_when_it_was_used() {
        let turn = BlockTurn::begin(None, false);
        assert_eq!((turn.number, turn.with_role(false)), (0, turn));
        let served = turn.with_role(true);
        assert_eq!((served.number, served.used), (0, true));
        assert_eq!(BlockTurn::begin(Some(served), true), served, "goes on");
        let next = BlockTurn::begin(Some(served), false);
        assert_eq!((next.number, next.used), (1, false));
        assert_eq!(served.with_role(false), next);
        assert_eq!(BlockTurn::begin(Some(next), false), next, "not used yet");
    }

    #[test]
    fn turns_survive_a_round_trip() {
        for number in [0, 7, u64::MAX] {
            for used in [false, true] {
                let turn = BlockTurn { number, used };
                assert_eq!(turn.to_word().parse(), Ok(turn));
            }
        }
        for word in ["", "+", "-1", "1 2", "18446744073709551616"] {
            assert!(word.parse::<BlockTurn>().is_err(), "{word}");
        }
    }
}
