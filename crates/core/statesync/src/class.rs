//! Classes of service state, and the level at which a standby holds one (draft §5.2).
//!
//! The active's side of a stream says what it sends and what the pool demands ([`Demand`]); the
//! standby answers with what it can do ([`Offer::answer`]). What is less than the demand is a
//! downgrade that both sides know of; what cannot be read at all is refused.

use std::fmt;
use std::time::Duration;

/// How closely the successor's copy follows (DESIGN §4). Ordered: a later one promises more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Never sent. Security state is always of this level (draft §7).
    None,
    /// A complete copy that follows as it can.
    Eventual,
    /// In sync means no more behind than this.
    Bounded(Bounds),
    /// As bounded, and what has to wait for the successor's acknowledgement can.
    Commit(Bounds),
}

/// How far behind a copy that counts as in sync may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bounds {
    /// Age of the oldest change that is not acknowledged, in milliseconds, from 1.
    pub lag_ms: u32,
    /// Changes that are not acknowledged, from 1.
    pub entries: u32,
}

impl Bounds {
    /// A second, 50 000 changes.
    pub const DEFAULT: Self = Self {
        lag_ms: 1_000,
        entries: 50_000,
    };

    /// [`Bounds::lag_ms`] as a duration.
    #[must_use]
    pub const fn lag(self) -> Duration {
        Duration::from_millis(self.lag_ms as u64)
    }
}

impl Level {
    /// Its bounds, if it has any.
    #[must_use]
    pub const fn bounds(self) -> Option<Bounds> {
        match self {
            Self::None | Self::Eventual => None,
            Self::Bounded(bounds) | Self::Commit(bounds) => Some(bounds),
        }
    }

    /// The kind of level, without its bounds, in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Eventual => "eventual",
            Self::Bounded(_) => "bounded",
            Self::Commit(_) => "commit",
        }
    }

    /// The number that stands for the kind of level on the wire.
    #[must_use]
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Eventual => 1,
            Self::Bounded(_) => 2,
            Self::Commit(_) => 3,
        }
    }

    pub(crate) const fn from_code(code: u8, bounds: Bounds) -> Option<Self> {
        Some(match code {
            0 => Self::None,
            1 => Self::Eventual,
            2 => Self::Bounded(bounds),
            3 => Self::Commit(bounds),
            _ => return None,
        })
    }

    /// The lesser of a demanded level and the highest kind that is offered.
    #[must_use]
    pub(crate) fn at_most(self, kind: Self) -> Self {
        let bounds = self.bounds().unwrap_or(Bounds::DEFAULT);
        let code = self.code().min(kind.code());
        Self::from_code(code, bounds).unwrap_or(Self::None)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bounds() {
            None => f.pad(self.as_str()),
            Some(Bounds { lag_ms, entries }) => {
                write!(f, "{} ({lag_ms} ms, {entries} entries)", self.as_str())
            }
        }
    }
}

/// The name of a class: 1 to 32 of `a`–`z`, `0`–`9`, `-`, `_`, beginning with a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassName(String);

/// A text is no name of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a class of state is named by 1 to 32 lower-case letters, digits, '-' and '_', a letter first"
)]
pub struct ClassNameError;

impl ClassName {
    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 32;

    /// Connections and translations of the kernel.
    #[must_use]
    pub fn conntrack() -> Self {
        Self("conntrack".to_owned())
    }

    /// The name `text`.
    ///
    /// # Errors
    /// [`ClassNameError`] when it is none.
    pub fn new(text: &str) -> Result<Self, ClassNameError> {
        let letter = |byte: u8| byte.is_ascii_lowercase();
        let allowed = |byte: u8| letter(byte) || byte.is_ascii_digit() || b"-_".contains(&byte);
        let bytes = text.as_bytes();
        let is_name = bytes.len() <= Self::BYTES_MAX
            && bytes.first().copied().is_some_and(letter)
            && bytes.iter().copied().all(allowed);
        is_name.then(|| Self(text.to_owned())).ok_or(ClassNameError)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What an active sends of a class, and what the pool demands of a standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The class.
    pub class: ClassName,
    /// How its keys and values are written; both ends have to use the same.
    pub format: u16,
    /// Version of what is in them: readers understand their own and older ones.
    pub schema: u16,
    /// The level that the pool demands.
    pub level: Level,
}

/// What a standby can do for a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The class.
    pub class: ClassName,
    /// The format that it reads.
    pub format: u16,
    /// The newest schema that it reads.
    pub schema: u16,
    /// The highest kind of level that it holds the class at; bounds are the active's.
    pub level: Level,
}

/// Why a standby cannot hold a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unable {
    /// It does not know the class or its format.
    Format,
    /// The schema is newer than it.
    Schema,
}

impl Offer {
    /// The level at which the demanded class will be held: the demanded one or less.
    ///
    /// # Errors
    /// [`Unable`] when it cannot be held at all.
    pub fn answer(&self, demand: &Demand) -> Result<Level, Unable> {
        if demand.class != self.class || demand.format != self.format {
            return Err(Unable::Format);
        }
        if demand.schema > self.schema {
            return Err(Unable::Schema);
        }
        Ok(demand.level.at_most(self.level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        lag_ms: 10,
        entries: 100,
    };

    fn demand(schema: u16, level: Level) -> Demand {
        Demand {
            class: ClassName::conntrack(),
            format: 1,
            schema,
            level,
        }
    }

    fn offer(level: Level) -> Offer {
        Offer {
            class: ClassName::conntrack(),
            format: 1,
            schema: 2,
            level,
        }
    }

    #[test]
    fn a_standby_gives_the_demanded_level_or_the_highest_it_can() {
        let bounded = Level::Bounded(BOUNDS);
        let commit = Level::Commit(BOUNDS);
        let able = Level::Commit(Bounds::DEFAULT);
        assert_eq!(offer(able).answer(&demand(2, commit)), Ok(commit));
        assert_eq!(offer(able).answer(&demand(1, bounded)), Ok(bounded));
        // The bounds stay those that the pool demanded.
        let less = offer(Level::Bounded(Bounds::DEFAULT));
        assert_eq!(less.answer(&demand(2, commit)), Ok(bounded));
        assert_eq!(
            offer(Level::None).answer(&demand(2, commit)),
            Ok(Level::None)
        );
    }

    #[test]
    fn what_a_standby_cannot_read_it_refuses() {
        let able = offer(Level::Eventual);
        assert_eq!(
            able.answer(&demand(3, Level::Eventual)),
            Err(Unable::Schema)
        );
        let other = Demand {
            format: 2,
            ..demand(1, Level::Eventual)
        };
        assert_eq!(able.answer(&other), Err(Unable::Format));
    }

    #[test]
    fn names_are_short_and_plain() {
        for name in ["conntrack", "lb-table", "x_1"] {
            assert_eq!(
                ClassName::new(name).map(|n| n.to_string()),
                Ok(name.to_owned())
            );
        }
        for name in ["", "1x", "-x", "Case", "a b", "ä", &"x".repeat(33)] {
            assert_eq!(ClassName::new(name), Err(ClassNameError), "{name:?}");
        }
    }
}
