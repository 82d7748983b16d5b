//! How a class of state stands at one standby, over all streams to it: what was agreed on or
//! refused, what the source lost, how its events come.

use std::sync::{Mutex, PoisonError};

use vnfpool_model::Time;
use vnfpool_statesync::class::{Demand, Level};

use super::sender::Figures;
use crate::element::downgrades::Downgrades;
use crate::pulse::now;

/// Longest reason that is kept, in bytes: some of it may be a peer's word.
const REASON_BYTES_MAX: usize = 240;

/// Shared by the threads of streams, one after another, and by who reports.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<Known>);

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The level that both ends agreed on; none before that, and after the end of the stream.
    pub(crate) agreed: Option<Level>,
    /// Why the standby does not hold the class as demanded.
    pub(crate) reason: Option<String>,
    /// Times that the source lost changes.
    pub(crate) overruns: u64,
    /// Changes that it is known to have lost then.
    pub(crate) lost: u64,
    pub(crate) overrun_at: Option<Time>,
    /// When the standby had what was lost at last; none while that is to be done.
    pub(crate) repaired_at: Option<Time>,
    pub(crate) events: Option<EventsBy>,
    /// Of streams that are over.
    pub(crate) downgrades: Downgrades,
}

/// How changes come from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventsBy {
    /// In one word.
    pub(crate) kind: &'static str,
    /// Why not in the preferred way.
    pub(crate) fallback_reason: Option<String>,
}

impl Standing {
    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn known(&self) -> Known {
        self.with(|known| known.clone())
    }

    /// The source of a new stream is open.
    pub(super) fn opened(&self, events: Option<EventsBy>) {
        let events = events.map(|by| EventsBy {
            fallback_reason: by.fallback_reason.map(clipped),
            ..by
        });
        self.with(|known| known.events = events);
    }

    /// The standby answered that it holds the class at `level`.
    pub(super) fn answered(&self, level: Level, demand: &Demand, accepts_less: bool) {
        let is_less = level.as_str() != demand.level.as_str();
        let less = || {
            let (offered, demanded) = (level.as_str(), demand.level.as_str());
            match accepts_less {
                true => format!("the standby can do no more than {offered}"),
                false => format!(
                    "the standby can do no more than {offered}, the pool demands {demanded}, and \
                     accept_less is not set"
                ),
            }
        };
        self.with(|known| {
            known.agreed = (!is_less || accepts_less).then_some(level);
            known.reason = is_less.then(less);
        });
    }

    /// The stream is over, because of an error if `reason` says one. What was refused before stays
    /// the reason.
    pub(super) fn ended(&self, reason: Option<&anyhow::Error>, figures: &Figures) {
        self.with(|known| {
            known.agreed = None;
            if let Some(error) = reason {
                known.reason = Some(clipped(format!("{error:#}")));
            }
            if let Some(holding) = figures.holding {
                let mut of_it = holding.downgrades;
                of_it.end(now(), 0);
                known.downgrades = of_it.continuing(known.downgrades);
            }
        });
    }

    /// The source lost changes.
    pub(super) fn overrun(&self, lost: Option<u64>) {
        self.with(|known| {
            known.overruns += 1;
            known.lost += lost.unwrap_or_default();
            known.overrun_at = Some(now());
            known.repaired_at = None;
        });
    }

    /// The standby has everything, so also what was lost.
    pub(super) fn repaired(&self) {
        self.with(|known| {
            let first = known.repaired_at;
            known.repaired_at = first.or_else(|| known.overrun_at.map(|_| now()));
        });
    }
}

fn clipped(mut text: String) -> String {
    let mut end = REASON_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use vnfpool_statesync::class::{Bounds, ClassName};

    use super::*;

    fn demand() -> Demand {
        Demand {
            class: ClassName::conntrack(),
            format: 1,
            schema: 1,
            level: Level::Commit(Bounds::DEFAULT),
        }
    }

    /// Goal: a refusal stays visible while streams are tried again and again, until one is taken.
    #[test]
    fn a_refusal_stays_until_the_standby_takes_the_class() {
        let standing = Standing::default();
        let bounded = Level::Bounded(Bounds::DEFAULT);
        standing.answered(bounded, &demand(), false);
        standing.ended(None, &Figures::default());
        standing.opened(None);
        let known = standing.known();
        assert_eq!(known.agreed, None);
        assert!(known.reason.unwrap().contains("no more than bounded"));
        let refused = anyhow::anyhow!("the standby refuses the stream");
        standing.ended(Some(&refused), &Figures::default());
        let known = standing.known();
        assert_eq!(known.reason.unwrap(), refused.to_string());
        standing.answered(bounded, &demand(), true);
        let known = standing.known();
        assert_eq!(known.agreed, Some(bounded));
        assert_eq!(
            known.reason.unwrap(),
            "the standby can do no more than bounded"
        );
        standing.answered(demand().level, &demand(), true);
        let known = standing.known();
        assert_eq!((known.agreed, known.reason), (Some(demand().level), None));
    }

    #[test]
    fn a_loss_is_not_repaired_until_it_is_said_to_be() {
        let standing = Standing::default();
        // Scans that were not begun by a loss repair none.
        standing.repaired();
        assert_eq!(standing.known().repaired_at, None);
        standing.overrun(Some(7));
        standing.repaired();
        assert!(standing.known().repaired_at.is_some());
        standing.overrun(None);
        let known = standing.known();
        assert_eq!((known.overruns, known.lost), (2, 7));
        assert_eq!(known.repaired_at, None);
    }

    #[test]
    fn reasons_are_bounded() {
        let standing = Standing::default();
        let long = anyhow::anyhow!("{}", "ä".repeat(1_000));
        standing.ended(Some(&long), &Figures::default());
        let reason = standing.known().reason.unwrap();
        assert!(reason.len() <= REASON_BYTES_MAX && reason.len() > REASON_BYTES_MAX - 4);
    }
}
