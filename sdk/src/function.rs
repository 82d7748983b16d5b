//! What a function says of itself.

use std::time::Duration;

use vnfpool_wire::sdk as wire;

/// A function and its classes of state.
#[derive(Clone, Debug)]
pub struct Function {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) classes: Vec<Class>,
    pub(crate) health: Health,
}

impl Function {
    /// A healthy function without state.
    #[must_use]
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            classes: Vec::new(),
            health: Health::healthy(),
        }
    }

    /// With a further class of state.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.classes.push(class);
        self
    }

    /// With this health from the start.
    #[must_use]
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    pub(crate) fn index_of(&self, class: &str) -> Option<u32> {
        let index = self.classes.iter().position(|known| known.name == class);
        index.and_then(|index| u32::try_from(index).ok())
    }

    pub(crate) fn to_wire(&self, has_state: bool) -> wire::Register {
        wire::Register {
            version: wire::VERSION,
            function: self.name.clone(),
            function_version: self.version.clone(),
            classes: self.classes.iter().map(Class::to_wire).collect(),
            health: Some(self.health.to_wire()),
            has_state,
        }
    }
}

/// A class of state.
#[derive(Clone, Debug)]
pub struct Class {
    name: String,
    level: Level,
    format: u16,
    schema_version: u16,
}

impl Class {
    /// A class in schema version 1: a name of 1 to 32 lower-case letters, digits, `-` and `_`, a letter
    /// first. `format` is a number of the function's choice for how keys and values are written; both
    /// elements of a pair have to use the same.
    #[must_use]
    pub fn new(name: &str, level: Level, format: u16) -> Self {
        Self {
            name: name.to_owned(),
            level,
            format,
            schema_version: 1,
        }
    }

    /// In another version of the schema, above 0. A function has to read the versions before its own.
    #[must_use]
    pub const fn schema_version(mut self, version: u16) -> Self {
        self.schema_version = version;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn to_wire(&self) -> wire::Class {
        wire::Class {
            name: self.name.clone(),
            level: Some(self.level.to_wire()),
            format: self.format.into(),
            schema_version: self.schema_version.into(),
        }
    }
}

/// What is demanded of the replication of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// Held by this agent only.
    None,
    /// Sent as fast as it goes; nobody waits for the successor.
    Eventual,
    /// The successor misses at most `entries` changes: with more on the way, a put waits; but not
    /// when the successor lags for longer than `lag` (then [`crate::Event::Level`] says so).
    Bounded {
        /// Rounded to milliseconds; zero for the agent's default.
        lag: Duration,
        /// Zero for the agent's default.
        entries: u32,
    },
    /// As bounded, and [`crate::Table::commit`] tells when the successor has everything.
    Commit {
        /// As of `Bounded`; a commit is given up after this time as well.
        lag: Duration,
        /// As of `Bounded`.
        entries: u32,
    },
}

impl Level {
    /// [`Level::Bounded`] with the agent's defaults.
    #[must_use]
    pub const fn bounded() -> Self {
        Self::Bounded {
            lag: Duration::ZERO,
            entries: 0,
        }
    }

    /// [`Level::Commit`] with the agent's defaults.
    #[must_use]
    pub const fn commit() -> Self {
        Self::Commit {
            lag: Duration::ZERO,
            entries: 0,
        }
    }

    fn to_wire(self) -> wire::Level {
        let (kind, lag, entries) = match self {
            Self::None => (wire::LevelKind::LevelNone, Duration::ZERO, 0),
            Self::Eventual => (wire::LevelKind::LevelEventual, Duration::ZERO, 0),
            Self::Bounded { lag, entries } => (wire::LevelKind::LevelBounded, lag, entries),
            Self::Commit { lag, entries } => (wire::LevelKind::LevelCommit, lag, entries),
        };
        wire::Level {
            kind: kind.into(),
            lag_ms: u32::try_from(lag.as_millis()).unwrap_or(u32::MAX),
            entries,
        }
    }

    pub(crate) fn from_wire(level: &wire::Level) -> Self {
        let lag = Duration::from_millis(level.lag_ms.into());
        let entries = level.entries;
        match level.kind() {
            wire::LevelKind::LevelNone => Self::None,
            wire::LevelKind::LevelEventual => Self::Eventual,
            wire::LevelKind::LevelBounded => Self::Bounded { lag, entries },
            wire::LevelKind::LevelCommit => Self::Commit { lag, entries },
        }
    }
}

/// How a function is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it could serve. If not, that is a fault of its element, which resigns.
    pub is_healthy: bool,
    /// What is wrong, for the operator; at most 256 bytes of it are kept.
    pub reason: String,
    /// In units of the function's choice …
    pub load: u32,
    /// … of which it can carry so many; 0 when it does not say.
    pub capacity: u32,
}

impl Health {
    /// Healthy, and silent about its load.
    #[must_use]
    pub const fn healthy() -> Self {
        Self {
            is_healthy: true,
            reason: String::new(),
            load: 0,
            capacity: 0,
        }
    }

    /// Unhealthy for this reason.
    #[must_use]
    pub fn unhealthy(reason: &str) -> Self {
        Self {
            is_healthy: false,
            reason: reason.to_owned(),
            ..Self::healthy()
        }
    }

    pub(crate) fn to_wire(&self) -> wire::Health {
        wire::Health {
            healthy: self.is_healthy,
            reason: self.reason.clone(),
            load: self.load,
            capacity: self.capacity,
        }
    }
}
