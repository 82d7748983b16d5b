//! Up from one offered rate to the next, until higher offers bring nothing.

/// So many steps in a row that bring nothing new end a climb.
const VAIN_STEPS: usize = 2;
/// A higher offer that is not reached by this much more is in vain.
const GAIN: f64 = 1.02;

/// What one offered rate came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    /// A second.
    pub(super) reached: f64,
    /// Whether all was as it has to be.
    pub(super) is_clean: bool,
}

/// The highest rate of a clean step: reached, and not offered.
pub(super) fn sustained(steps: impl IntoIterator<Item = Outcome>) -> Option<f64> {
    let clean = steps.into_iter().filter(|step| step.is_clean);
    clean.map(|step| step.reached).max_by(f64::total_cmp)
}

/// Whether the newest steps have all been unclean or reached no more than one before them.
pub(super) fn is_over(steps: &[Outcome]) -> bool {
    let is_vain = |at: usize| {
        let best = steps[..at].iter().map(|step| step.reached);
        let best = best.fold(0.0, f64::max);
        !steps[at].is_clean || steps[at].reached < best * GAIN
    };
    steps.len() >= VAIN_STEPS && (steps.len() - VAIN_STEPS..steps.len()).all(is_vain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(reached: f64, is_clean: bool) -> Outcome {
        Outcome { reached, is_clean }
    }

    /// Goal: what counts is the highest rate without a loss.
    #[test]
    fn the_sustained_rate_is_the_highest_clean_one() {
        let climb = [
            step(10e3, true),
            step(20e3, true),
            step(30e3, false),
            step(19e3, true),
        ];
        assert_eq!(sustained(climb), Some(20e3));
        assert_eq!(sustained([step(10e3, false)]), None);
    }

    #[test]
    fn a_climb_ends_after_two_steps_in_vain() {
        assert!(!is_over(&[]));
        assert!(!is_over(&[step(10e3, true), step(20e3, false)]));
        assert!(is_over(&[
            step(10e3, true),
            step(20e3, false),
            step(30e3, false)
        ]));
        assert!(is_over(&[
            step(36e3, true),
            step(36.1e3, true),
            step(35e3, true)
        ]));
        assert!(!is_over(&[
            step(36e3, true),
            step(36.1e3, true),
            step(45e3, true)
        ]));
    }
}
