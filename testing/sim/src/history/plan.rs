//! What a seed means: the pool, and the steps of its history. Each step has a seed of its own, so
//! that a history can be told again without some of them.

use vnfpool_model::{OnQuorumLoss, Timing};

use super::profile::{Profile, Style};
use crate::faults;
use crate::faults::HALF_BOUND_PPM;
use crate::world::{MS, Moment, Shape};
use vnfpool_random::Random;

/// When a step begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// So long after the one before.
    Pause(u64),
    /// At that moment, after so long at most.
    Moment(Moment, u64),
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub wait: Wait,
    /// Which of [`faults::ALL`].
    pub fault: usize,
    /// Of its details.
    pub seed: u64,
    /// How long a single fault lasts.
    pub lasts: u64,
    /// How long an outage it may cost.
    pub outage_ns_max: Option<u64>,
}

/// A history before it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed of everything that is not in the steps.
    pub seed: u64,
    /// How faults come.
    pub style: Style,
    /// No successor is armed, since no stream carries.
    pub lone: bool,
    /// The pool.
    pub shape: Shape,
    /// The faults.
    pub steps: Vec<Step>,
}

const MOMENTS: [Moment; 9] = [
    Moment::Voted,
    Moment::HandedOver,
    Moment::Draining,
    Moment::Writing,
    Moment::Written,
    Moment::Preparing,
    Moment::Prepared,
    Moment::Decided,
    Moment::Opened,
];

impl Plan {
    /// The history that `seed` means in `profile`.
    #[must_use]
    pub fn new(profile: &Profile, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let shape = shape(profile, &mut random);
        let steps = (0..profile.steps).map(|_| step(profile, &mut random));
        let steps = steps.collect();
        Self {
            seed,
            style: profile.style,
            lone: profile.lone,
            shape,
            steps,
        }
    }
}

fn shape(profile: &Profile, random: &mut Random) -> Shape {
    let pick = |random: &mut Random, choices: &[usize]| choices[random.index(choices.len())];
    let timing = match random.below(4) {
        0 if profile.style == Style::Storm => Timing::FAST,
        _ => Timing::DEFAULT,
    };
    Shape {
        elements: pick(random, profile.elements),
        slots: pick(random, profile.slots),
        links: random.index(2),
        lans: 1 + random.index(2),
        timing,
        on_quorum_loss: if profile.serves {
            OnQuorumLoss::Serve
        } else {
            OnQuorumLoss::Stop
        },
        drift_ppm: profile.drift_ppm.unwrap_or(HALF_BOUND_PPM),
        session_ns_max: random.below(3) * 150 * MS,
    }
}

fn step(profile: &Profile, random: &mut Random) -> Step {
    let total = profile.faults.iter().map(|(_, weight, _)| weight).sum();
    let mut drawn = random.below(total);
    let (name, _, bound_ms) = profile
        .faults
        .iter()
        .find(|(_, weight, _)| {
            let found = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            found
        })
        .unwrap_or(&profile.faults[0]);
    let wait = match profile.style {
        Style::Single => Wait::Pause(random.below(400 * MS)),
        Style::Storm => match random.below(10) {
            0..4 => Wait::Pause(random.magnitude(MS, 3_000 * MS)),
            4..7 => Wait::Pause(random.below(250 * MS)),
            _ => {
                let moment = MOMENTS[random.index(MOMENTS.len())];
                Wait::Moment(moment, random.magnitude(50 * MS, 1_500 * MS))
            }
        },
    };
    Step {
        wait,
        fault: faults::named(name).unwrap_or(0),
        seed: random.next(),
        lasts: random.magnitude(100 * MS, 4_000 * MS),
        outage_ns_max: bound_ms.map(|ms| ms * MS),
    }
}
