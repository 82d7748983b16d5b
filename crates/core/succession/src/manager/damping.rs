//! R11: whoever lost its place is not armed again at once, and whoever loses it again and again
//! is quarantined.
//!
//! ```text
//!            lost its place                        lost it too often
//!   +-------+  rests, longer   +-------------+   +---------------------+
//!   | clean |----------------->| rests, then |-->| quarantined:        |
//!   +-------+  each time       | may be armed|   | not armed; replaces |
//!       ^                      +-------------+   | only as last choice |
//!       |   30 s armed                |          +---------------------+
//!       +-----------------------------+                     |
//!       +---------------------------------------------------+
//!         the penalty has decayed, and steady for the probation;
//!         at the latest after QUARANTINE_MAX; or the operator's word
//! ```
//!
//! The quarantine is route-flap damping (RFC 2439): each loss costs [`PENALTY`], which decays with
//! a half-life; above [`SUPPRESS_ABOVE`] the element is out, below [`REUSE_BELOW`] it may come
//! back. RFC 2439 speaks of routes, whose flaps are minutes apart, and of half-lives of
//! fifteen; a standby flaps within seconds, and while it is out a pair may have no successor. So the
//! half-life here is a minute, and there is a probation in place of a longer one.
//!
//! It is about arming only, so it can do no harm to I1. It is in memory only: another boot of the manager
//! begins with clean slates, which costs a few more takeovers by an element that still flaps.

use std::time::Duration;

use super::{Decision, Effect, Effects, Node, NodeId, Record, Slot, Time};
use crate::hearing_time;

/// The largest back-off before the same standby is armed again after it was split off. The first
/// one is [`hearing_time`]: a moment's silence, as on a machine that stood still, must not leave
/// the active alone for long, and what was heard before the silence must not count for after it.
const BACK_OFF_MAX: Duration = Duration::from_secs(8);

/// A standby that stayed armed for so long does not rest longer than the first time.
const ARMED_WELL: Duration = Duration::from_secs(30);

/// What the loss of a place costs.
const PENALTY: u32 = 1_000;

/// Half of a penalty is forgotten after this time.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// Above this an element is quarantined: with its fourth loss in three quarters of a minute, or with a
/// loss each half a minute. Three are what an operator does who tries the pool, or a machine that
/// crashes, comes back too early and crashes again.
const SUPPRESS_ABOVE: u32 = 3_000;

/// Below this it may come back: about two minutes after the fourth of four quick losses.
const REUSE_BELOW: u32 = 1_000;

/// However often it lost its place: four half-lives above [`REUSE_BELOW`].
const PENALTY_MAX: u32 = REUSE_BELOW << 4;

/// So long it has to be steady before it comes back.
const PROBATION: Duration = Duration::from_secs(10);

/// The longest quarantine, from the last loss on: a pool without a successor is worse off than one
/// with a bad one. An element that is never steady costs at most four takeovers in so long.
pub const QUARANTINE_MAX: Duration = Duration::from_secs(300);

/// What an element has lost, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Damping {
    /// Not to be armed before this time.
    pub(super) rest_until: Time,
    rest: Duration,
    /// As of the newest loss.
    penalty: u32,
    lost_at: Time,
    /// Losses that count, and the first of them.
    losses: u16,
    first_lost_at: Time,
    quarantine: Option<Quarantine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Quarantine {
    /// When the penalty is below [`REUSE_BELOW`].
    reuse_at: Time,
    steady_since: Option<Time>,
}

/// An element that is not armed, since it has lost its place too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quarantined {
    /// The element.
    pub node: NodeId,
    /// How often it has lost its place …
    pub losses: u16,
    /// … in this time.
    pub within: Duration,
    /// When it may be armed again if it is steady from now on.
    pub until: Time,
    /// When it may be armed again in any case.
    pub at_latest: Time,
}

/// Why a quarantine is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// It was steady for long enough.
    Probation,
    /// It was not, and its time is over.
    TooLong,
    /// The operator's word.
    Operator,
}

impl Release {
    /// One word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probation => "probation",
            Self::TooLong => "too-long",
            Self::Operator => "operator",
        }
    }
}

impl Damping {
    /// A clean slate.
    pub(super) const NONE: Self = Self {
        rest_until: Time::ZERO,
        rest: Duration::ZERO,
        penalty: 0,
        lost_at: Time::ZERO,
        losses: 0,
        first_lost_at: Time::ZERO,
        quarantine: None,
    };

    pub(super) const fn is_quarantined(&self) -> bool {
        self.quarantine.is_some()
    }

    /// A place was lost. True when the quarantine begins with it.
    fn lose(&mut self, now: Time) -> bool {
        let left = decayed(self.penalty, now.since(self.lost_at));
        if left < PENALTY / 2 {
            self.losses = 0;
            self.first_lost_at = now;
        }
        self.losses = self.losses.saturating_add(1);
        self.penalty = (left + PENALTY).min(PENALTY_MAX);
        self.lost_at = now;
        let was_quarantined = self.is_quarantined();
        if was_quarantined || self.penalty > SUPPRESS_ABOVE {
            self.quarantine = Some(Quarantine {
                reuse_at: now.after(until_reuse(self.penalty)),
                steady_since: None,
            });
        }
        self.is_quarantined() && !was_quarantined
    }

    /// A place in an armed pair was lost: no other for a while, longer each time.
    fn rest(&mut self, now: Time, armed_for: Duration, least: Duration) {
        self.rest = match armed_for {
            long if long >= ARMED_WELL => least,
            // A slow pool hears for longer than the largest back-off.
            _ => (self.rest * 2).clamp(least, BACK_OFF_MAX.max(least)),
        };
        self.rest_until = now.after(self.rest);
    }

    /// Looks at an element in quarantine; says if it is over.
    fn look(&mut self, now: Time, steady: bool) -> Option<Release> {
        let at_latest = self.lost_at.after(QUARANTINE_MAX);
        let quarantine = self.quarantine.as_mut()?;
        quarantine.steady_since = steady.then(|| quarantine.steady_since.unwrap_or(now));
        let probed = quarantine
            .steady_since
            .is_some_and(|since| now.since(since) >= PROBATION);
        if probed && now >= quarantine.reuse_at {
            Some(Release::Probation)
        } else if now >= at_latest {
            Some(Release::TooLong)
        } else {
            None
        }
    }

    fn quarantined(&self, now: Time, node: NodeId) -> Option<Quarantined> {
        let Quarantine {
            reuse_at,
            steady_since,
        } = self.quarantine?;
        let at_latest = self.lost_at.after(QUARANTINE_MAX);
        let probed_at = steady_since.unwrap_or(now).after(PROBATION);
        Some(Quarantined {
            node,
            losses: self.losses,
            within: self.lost_at.since(self.first_lost_at),
            until: reuse_at.max(probed_at).min(at_latest),
            at_latest,
        })
    }

    /// Its times, for a model checker.
    #[cfg(feature = "model")]
    pub(super) fn moments(&mut self, own: &mut impl FnMut(&mut Time)) {
        let Self {
            rest_until,
            lost_at,
            first_lost_at,
            quarantine,
            rest: _,
            penalty: _,
            losses: _,
        } = self;
        own(rest_until);
        own(lost_at);
        own(first_lost_at);
        if let Some(quarantine) = quarantine {
            own(&mut quarantine.reuse_at);
            quarantine.steady_since.as_mut().map(own);
        }
    }

    /// Forgets the losses, not the rest.
    #[cfg(feature = "model")]
    pub(super) fn forgive(&mut self) {
        *self = Self {
            rest_until: self.rest_until,
            rest: self.rest,
            ..Self::NONE
        };
    }
}

impl Slot {
    /// Who is in quarantine.
    pub fn quarantined(&self, now: Time) -> impl Iterator<Item = Quarantined> + '_ {
        self.nodes
            .iter()
            .filter_map(move |n| n.damping.quarantined(now, n.id))
    }

    /// The record `before` was given up by `decision`: who lost its place by it is damped.
    pub(super) fn damp(
        &mut self,
        now: Time,
        before: Record,
        decision: Decision,
        out: &mut Effects,
    ) {
        let loser = match decision {
            Decision::Split { by, .. } | Decision::SplitToOther { by } => {
                let members = [Some(before.first), before.second];
                let mut members = members.into_iter().flatten().map(|m| m.node);
                members.find(|node| *node != by)
            }
            Decision::Replaced { silent } => Some(silent),
            // A restart is no flapping: a standby that restarts again and again is split off each time.
            Decision::First
            | Decision::Armed
            | Decision::Paced
            | Decision::Restarted { .. }
            | Decision::Fenced { .. } => None,
        };
        let armed_for = now.since(self.armed_at);
        let least = hearing_time(self.timing());
        let Some(node) = loser.and_then(|node| self.node_mut(node)) else {
            return;
        };
        if before.armed() {
            node.damping.rest(now, armed_for, least);
        }
        if node.damping.lose(now)
            && let Some(quarantined) = node.damping.quarantined(now, node.id)
        {
            out.push(Effect::Quarantined(quarantined));
        }
    }

    /// Ends what is over of quarantines.
    pub(super) fn look_at_quarantines(&mut self, now: Time, out: &mut Effects) {
        for index in 0..self.nodes.len() {
            let node = self.nodes[index];
            if !node.damping.is_quarantined() {
                continue;
            }
            let steady = self.is_steady(now, &node);
            if let Some(cause) = self.nodes[index].damping.look(now, steady) {
                self.clear(node.id, cause, out);
            }
        }
    }

    /// The operator's word that an element has a clean slate.
    pub(super) fn pardon(&mut self, id: NodeId, out: &mut Effects) {
        if self.node(id).is_some_and(|n| n.damping.is_quarantined()) {
            self.clear(id, Release::Operator, out);
        } else if let Some(node) = self.node_mut(id) {
            node.damping = Damping::NONE;
        }
    }

    fn clear(&mut self, id: NodeId, cause: Release, out: &mut Effects) {
        if let Some(node) = self.node_mut(id) {
            node.damping = Damping::NONE;
            out.push(Effect::Released { node: id, cause });
        }
    }

    /// Whether an element is as it should be: heard, able, and in sync if it is the one that the
    /// lone active feeds. Neither the silence of a manager that stood still nor that of the active
    /// is held against it.
    fn is_steady(&self, now: Time, node: &Node) -> bool {
        let listens = now >= self.listens_since.after(self.timing().lease() * 2);
        let heard = self.fresh(now, node) || !listens;
        let lone = self.record.filter(|r| !r.armed()).map(|r| r.first.node);
        let active = lone.filter(|active| *active != node.id);
        let active = active.and_then(|active| self.node(active));
        // Whom the active names is who is fed: somebody else, or nobody if it should be this one.
        let fed_badly = active.is_some_and(|a| self.fresh(now, a) && a.candidate.is_none());
        heard && node.able && !node.gone && !fed_badly
    }
}

/// What is left of a penalty after `age`: halves, and in between a straight line.
fn decayed(penalty: u32, age: Duration) -> u32 {
    let half_life = HALF_LIFE.as_nanos();
    let halves = u32::try_from(age.as_nanos() / half_life).unwrap_or(u32::MAX);
    let Some(left) = penalty.checked_shr(halves) else {
        return 0;
    };
    let into = age.as_nanos() % half_life;
    let gone = u128::from(left / 2) * into / half_life;
    left - u32::try_from(gone).unwrap_or(left)
}

/// How long it takes until a penalty is [`REUSE_BELOW`].
fn until_reuse(mut penalty: u32) -> Duration {
    assert!(penalty <= PENALTY_MAX, "penalties are bounded");
    let mut time = Duration::ZERO;
    while penalty / 2 >= REUSE_BELOW {
        penalty /= 2;
        time += HALF_LIFE;
    }
    let above = penalty.saturating_sub(REUSE_BELOW);
    time + HALF_LIFE * (2 * above) / penalty.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_penalty_decays_by_half_lives() {
        assert_eq!(decayed(4_000, Duration::ZERO), 4_000);
        assert_eq!(decayed(4_000, HALF_LIFE / 2), 3_000);
        assert_eq!(decayed(4_000, HALF_LIFE), 2_000);
        assert_eq!(decayed(4_000, HALF_LIFE * 3), 500);
        assert_eq!(decayed(u32::MAX, HALF_LIFE * 40), 0);
    }

    /// Goal: both ways to see the decay agree, and nobody is out for longer than said.
    #[test]
    fn a_penalty_is_low_when_it_should_be() {
        for penalty in (1..=PENALTY_MAX).step_by(97) {
            let time = until_reuse(penalty);
            assert!(decayed(penalty, time + SECOND) <= REUSE_BELOW.max(penalty));
            assert!(time + PROBATION <= QUARANTINE_MAX);
            if penalty > REUSE_BELOW {
                assert!(decayed(penalty, time + SECOND) <= REUSE_BELOW, "{penalty}");
                assert!(
                    decayed(penalty, time - time / 100) > REUSE_BELOW - 20,
                    "{penalty}"
                );
            }
        }
    }

    /// Losses each `every`, how many until the quarantine, of at most 40.
    fn losses_until_quarantine(every: Duration) -> Option<usize> {
        let mut damping = Damping::NONE;
        (1..=40)
            .find(|n: &u32| damping.lose(Time::ZERO.after(every * *n + SECOND)))
            .map(|n| n as usize)
    }

    /// Goal: four losses in a short time are too many, and so is one each half a minute for ever; one
    /// each minute is not.
    #[test]
    fn what_is_too_often() {
        assert_eq!(losses_until_quarantine(SECOND), Some(4));
        assert_eq!(losses_until_quarantine(SECOND * 15), Some(4));
        assert!(losses_until_quarantine(SECOND * 30).is_some_and(|n| n <= 10));
        assert_eq!(losses_until_quarantine(SECOND * 60), None);
    }
}
