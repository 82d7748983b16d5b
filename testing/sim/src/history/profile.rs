//! Kinds of histories.

/// How faults come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// On top of each other.
    Storm,
    /// One at a time, the pool recovers in between.
    Single,
}

/// A fault with its weight, and how long an outage it may cost when it comes alone, in
/// milliseconds; none where the fault may last as an outage by itself.
type Weighed = (&'static str, u64, Option<u64>);

/// A kind of histories.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// How faults come.
    pub style: Style,
    /// `on_quorum_loss = serve`, instead of `stop`.
    pub serves: bool,
    /// Streams never carry, so nobody is ever armed.
    pub lone: bool,
    /// The pool has one of these numbers of elements.
    pub elements: &'static [usize],
    /// And one of these numbers of slots.
    pub slots: &'static [usize],
    /// How many faults.
    pub steps: usize,
    /// Clocks are off by so much; none: by half the bound, so that two of them differ by it.
    pub drift_ppm: Option<u64>,
    /// Which faults.
    pub faults: &'static [Weighed],
}

/// A dead or frozen active with an armed successor: a lease, an exchange with the manager, and
/// timers that wake late.
const TAKEOVER_MS: u64 = 100;

/// A deaf active: about two leases (docs/succession.md, section 7).
const DEAF_MS: u64 = 160;

const EVERYTHING: &[Weighed] = &[
    ("function-fails", 6, None),
    ("function-works", 6, None),
    ("clock-rate", 2, None),
    ("wall-clock-step", 1, None),
    ("agent-dies", 6, None),
    ("agent-replaced", 8, None),
    ("power-off", 3, None),
    ("agent-starts", 14, None),
    ("agent-restarts", 6, None),
    ("agent-restarts-without-memory", 3, None),
    ("manager-dies", 4, None),
    ("manager-starts", 8, None),
    ("manager-restarts", 5, None),
    ("one-way-cut", 8, None),
    ("two-way-cut", 5, None),
    ("deaf", 2, None),
    ("dumb", 2, None),
    ("isolated", 2, None),
    ("manager-deaf", 1, None),
    ("manager-dumb", 1, None),
    ("manager-isolated", 1, None),
    ("disk-slow", 4, None),
    ("disk-failing", 2, None),
    ("disk-full", 1, None),
    ("disk-well", 5, None),
    ("torn-write", 3, None),
    ("death-when-prepared", 4, None),
    ("freeze", 10, None),
    ("long-freeze", 1, None),
    ("freeze-all", 2, None),
    ("freeze-manager", 4, None),
    ("keys-fail", 1, None),
    ("loss", 4, None),
    ("delay", 4, None),
    ("duplication", 4, None),
    ("reordering", 4, None),
    ("switchover", 14, None),
    ("fence", 2, None),
    ("pace", 8, None),
    ("partition-of-a-path", 3, None),
    ("partition-of-management", 2, None),
    ("partition", 3, None),
    ("flapping", 3, None),
    ("networks-heal", 14, None),
    ("streams-silent", 3, None),
    ("streams-well", 4, None),
];

const ALONE: &[Weighed] = &[
    ("function-fails", 4, Some(TAKEOVER_MS)),
    ("clock-rate", 1, Some(0)),
    ("wall-clock-step", 1, Some(0)),
    ("agent-dies", 6, Some(TAKEOVER_MS)),
    ("agent-replaced", 4, Some(TAKEOVER_MS)),
    ("power-off", 4, Some(TAKEOVER_MS)),
    ("agent-restarts", 4, Some(TAKEOVER_MS)),
    ("agent-restarts-without-memory", 2, Some(TAKEOVER_MS)),
    ("manager-dies", 4, Some(0)),
    ("manager-restarts", 4, Some(0)),
    ("one-way-cut", 6, Some(DEAF_MS)),
    ("two-way-cut", 6, Some(TAKEOVER_MS)),
    ("deaf", 4, Some(DEAF_MS)),
    ("dumb", 4, Some(TAKEOVER_MS)),
    ("isolated", 4, Some(TAKEOVER_MS)),
    ("manager-deaf", 2, Some(0)),
    ("manager-dumb", 2, Some(0)),
    ("manager-isolated", 2, Some(0)),
    ("disk-slow", 1, Some(0)),
    ("disk-failing", 1, Some(0)),
    ("disk-full", 1, Some(0)),
    ("freeze", 4, Some(TAKEOVER_MS)),
    ("long-freeze", 1, Some(TAKEOVER_MS)),
    ("freeze-manager", 2, Some(0)),
    ("keys-fail", 3, Some(TAKEOVER_MS)),
    ("loss", 1, None),
    ("delay", 1, None),
    ("duplication", 1, None),
    ("reordering", 1, None),
    ("switchover", 4, Some(60)),
    ("fence", 2, Some(TAKEOVER_MS)),
    ("pace", 3, Some(0)),
    ("partition-of-a-path", 4, Some(TAKEOVER_MS)),
    ("partition-of-management", 3, Some(TAKEOVER_MS)),
    ("streams-silent", 3, Some(0)),
];

/// A lone active dies: the rest of its manager lease, an exchange, timers that wake late.
const REPLACED_MS: u64 = 1_200;

/// And a deaf one, which is granted for a manager lease more.
const DEAF_REPLACED_MS: u64 = 1_300;

/// The manager dies and nobody is armed, under `serve`: until spares have not heard it for
/// `T_serve` either, their gossip begins the silence anew.
const SERVES_MS: u64 = 1_400;

const ALONE_UNARMED: &[Weighed] = &[
    ("function-fails", 4, Some(REPLACED_MS)),
    ("agent-dies", 6, Some(REPLACED_MS)),
    ("agent-replaced", 3, Some(REPLACED_MS)),
    ("power-off", 4, Some(REPLACED_MS)),
    ("agent-restarts", 4, Some(REPLACED_MS)),
    ("one-way-cut", 8, Some(DEAF_REPLACED_MS)),
    ("two-way-cut", 6, Some(REPLACED_MS)),
    ("deaf", 4, Some(DEAF_REPLACED_MS)),
    ("dumb", 4, Some(REPLACED_MS)),
    ("isolated", 4, Some(REPLACED_MS)),
    ("freeze", 4, Some(REPLACED_MS)),
    ("keys-fail", 3, Some(REPLACED_MS)),
    ("partition-of-management", 4, None),
    ("switchover", 2, Some(0)),
];

const ALONE_UNARMED_SERVE: &[Weighed] = &[
    ("agent-dies", 6, Some(REPLACED_MS)),
    ("agent-replaced", 3, Some(REPLACED_MS)),
    ("agent-restarts", 4, Some(REPLACED_MS)),
    ("manager-dies", 8, Some(SERVES_MS)),
    ("manager-restarts", 4, Some(SERVES_MS)),
    ("manager-deaf", 6, Some(SERVES_MS)),
    ("manager-dumb", 6, Some(SERVES_MS)),
    ("manager-isolated", 6, Some(SERVES_MS)),
    ("freeze-manager", 6, Some(SERVES_MS)),
    ("one-way-cut", 12, Some(DEAF_REPLACED_MS)),
    ("two-way-cut", 6, Some(REPLACED_MS)),
    ("deaf", 4, Some(DEAF_REPLACED_MS)),
    ("isolated", 4, Some(REPLACED_MS)),
    ("freeze", 4, Some(REPLACED_MS)),
    ("keys-fail", 3, Some(REPLACED_MS)),
    ("partition-of-management", 4, Some(SERVES_MS)),
];

/// All kinds.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "storm",
        style: Style::Storm,
        serves: false,
        lone: false,
        elements: &[2, 3, 3, 4, 8],
        slots: &[1, 1, 1, 2, 4],
        steps: 120,
        drift_ppm: None,
        faults: EVERYTHING,
    },
    Profile {
        name: "single",
        style: Style::Single,
        serves: false,
        lone: false,
        elements: &[2, 3, 4],
        slots: &[1, 1, 2],
        steps: 25,
        drift_ppm: None,
        faults: ALONE,
    },
    Profile {
        name: "serve",
        style: Style::Single,
        serves: true,
        lone: false,
        elements: &[2, 3, 4],
        slots: &[1, 1, 2],
        steps: 25,
        drift_ppm: None,
        faults: ALONE,
    },
    Profile {
        name: "lone",
        style: Style::Single,
        serves: false,
        lone: true,
        elements: &[2, 3, 4],
        slots: &[1],
        steps: 20,
        drift_ppm: None,
        faults: ALONE_UNARMED,
    },
    Profile {
        name: "lone-serve",
        style: Style::Single,
        serves: true,
        lone: true,
        elements: &[2, 3, 4],
        slots: &[1],
        steps: 20,
        drift_ppm: None,
        faults: ALONE_UNARMED_SERVE,
    },
    Profile {
        name: "blinks",
        style: Style::Storm,
        serves: false,
        lone: false,
        elements: &[2, 3],
        slots: &[1],
        steps: 200,
        drift_ppm: None,
        faults: BLINKS,
    },
    Profile {
        name: "calm",
        style: Style::Storm,
        serves: false,
        lone: false,
        elements: &[3],
        slots: &[1],
        steps: 0,
        drift_ppm: None,
        faults: ALONE,
    },
    // Outside of what is promised: what is violated is declared, not failed.
    Profile {
        name: "drift-beyond",
        style: Style::Storm,
        serves: false,
        lone: false,
        elements: &[3],
        slots: &[1],
        steps: 120,
        drift_ppm: Some(50_000),
        faults: EVERYTHING,
    },
    Profile {
        name: "old-image",
        style: Style::Storm,
        serves: false,
        lone: false,
        elements: &[3],
        slots: &[1],
        steps: 120,
        drift_ppm: None,
        faults: OLD_IMAGES,
    },
];

const BLINKS: &[Weighed] = &[
    ("noisy-management", 3, None),
    ("pace", 4, None),
    ("blink", 20, None),
    ("switchover", 2, None),
    ("function-fails", 1, None),
    ("function-works", 2, None),
    ("freeze", 2, None),
    ("networks-heal", 1, None),
];

const OLD_IMAGES: &[Weighed] = &[
    ("disk-old-image", 2, None),
    ("agent-restarts", 6, None),
    ("agent-dies", 4, None),
    ("agent-starts", 8, None),
    ("switchover", 6, None),
    ("freeze", 6, None),
    ("one-way-cut", 4, None),
    ("networks-heal", 8, None),
];

impl Profile {
    /// The kind with that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }
}
