//! Where the time of a takeover goes.

use std::time::Duration;

use vnfpool_model::Time;

/// The steps of the newest takeover of a slot, each from the end of the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Takeover {
    /// From the last word of the former active until the vote went out: its promise had to end.
    /// Nothing after a handover.
    pub(crate) silence: Duration,
    /// Until the manager's answer was there: its record is on disk by then. Nothing after a handover.
    pub(crate) answer: Duration,
    /// Until the gate was open.
    pub(crate) opening: Duration,
    /// Until the LANs were told.
    pub(crate) telling: Duration,
}

impl Takeover {
    /// The steps with their names.
    pub(crate) fn steps(self) -> [(&'static str, Duration); 4] {
        [
            ("silence", self.silence),
            ("answer", self.answer),
            ("opening", self.opening),
            ("telling", self.telling),
        ]
    }
}

/// A takeover under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stopwatch {
    silence: Duration,
    /// When the vote went out.
    voted: Option<Time>,
    /// When the answer, or the handover, was there.
    answered: Option<Time>,
    opened: Option<Time>,
}

impl Stopwatch {
    /// A vote goes out.
    pub(super) fn vote(&mut self, now: Time, silence: Duration) {
        *self = Self {
            silence,
            voted: Some(now),
            ..Self::default()
        };
    }

    /// The slot is ours.
    pub(super) fn answer(&mut self, now: Time) {
        self.answered = Some(now);
    }

    /// The slot is somebody else's.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    /// The gate opens, or stays open.
    pub(super) fn open(&mut self, now: Time) {
        if self.answered.is_some() {
            self.opened.get_or_insert(now);
        }
    }

    /// The LANs were told: it is over.
    pub(super) fn told(&mut self, now: Time) -> Takeover {
        let Self {
            silence,
            voted,
            answered,
            opened,
        } = std::mem::take(self);
        let answered = answered.unwrap_or(now);
        let opened = opened.unwrap_or(now);
        Takeover {
            silence,
            answer: voted.map_or(Duration::ZERO, |voted| answered.since(voted)),
            opening: opened.since(answered),
            telling: now.since(opened),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn every_step_counts_from_the_one_before() {
        let mut watch = Stopwatch::default();
        watch.vote(Time(100 * MS), Duration::from_millis(50));
        watch.open(Time(101 * MS));
        watch.answer(Time(103 * MS));
        watch.open(Time(104 * MS));
        watch.open(Time(105 * MS));
        let takeover = watch.told(Time(106 * MS));
        let millis = takeover.steps().map(|(_, step)| step.as_millis());
        assert_eq!(millis, [50, 3, 1, 2]);
        // A handover has no vote, and what was before does not count.
        watch.answer(Time(200 * MS));
        watch.open(Time(201 * MS));
        let millis = watch
            .told(Time(203 * MS))
            .steps()
            .map(|(_, step)| step.as_millis());
        assert_eq!(millis, [0, 0, 1, 2]);
    }
}
