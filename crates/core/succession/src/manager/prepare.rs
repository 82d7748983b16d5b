//! The next record, on disk before anybody votes for it (addition 5n).
//!
//! When one member of a pair falls silent and the other does not, the other's vote is near. So the
//! record that this vote would make is written beside the record in force, which it does not change:
//! nothing is said of it, and the manager goes on speaking. A vote that asks for exactly this record
//! finds it on disk and is in force at once.
//!
//! Who reads the disk after a crash cannot know whether the vote came. It takes the prepared record
//! for the record in force, since it may have been told, but *presumes* it only: as long as the pair
//! of before may still serve, nothing is decided.

use std::time::Duration;

use super::{Decision, Effect, Effects, Member, NodeId, Record, Request, Slot, Stored, Time};

/// A preparation that no vote used within so long, or within two leases, is withdrawn: the pair
/// hears each other, and the manager's own death must not cost it a failover. Until then it serves
/// the next silence as well, so that a network that jitters does not keep the disk busy.
const UNUSED_MAX: Duration = Duration::from_millis(400);

/// The record that is prepared, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Preparation {
    /// What the disk holds beside the record.
    pub(super) on_disk: Option<Record>,
    /// It is withdrawn then, if it was not used.
    pub(super) until: Time,
    /// Whose present silence has been prepared for; it has to speak before it is again.
    pub(super) silent: Option<NodeId>,
}

/// A prepared record that was found on disk: nobody knows whether it was ever in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Presumed {
    /// The record before it, whose pair may still serve.
    pub(super) pair: Record,
    /// Since when a member of the pair is known to be in a newer term.
    pub(super) left_at: Option<Time>,
}

impl Presumed {
    /// What the disk leaves open, if it does.
    pub(super) fn of(stored: Stored) -> Option<Self> {
        let pair = stored.record;
        (stored.newest() != pair).then_some(Self {
            pair,
            left_at: None,
        })
    }
}

/// Whether the two name the same pair in the same term. What is prepared keeps its pace, also when
/// another one is preferred by the time of the vote.
fn same_pair(one: Record, other: Record) -> bool {
    (one.term, one.first, one.second) == (other.term, other.first, other.second)
}

impl Slot {
    /// R10: a vote that counts comes into force at once if the disk has its record already; else
    /// when it has.
    pub(super) fn elect(
        &mut self,
        now: Time,
        record: Record,
        decision: Decision,
        out: &mut Effects,
    ) {
        let Some(writing) = self.writing else {
            if let Some(prepared) = self.preparation.on_disk.filter(|p| same_pair(*p, record)) {
                return self.come_into_force(now, prepared, decision, now, out);
            }
            return self.commit(now, record, decision, out);
        };
        // Its own preparation is on its way: that is waited for. Anything else that is makes this
        // vote come too early; the voter repeats it.
        if let Some(prepared) = writing.prepared.filter(|p| same_pair(*p, record)) {
            self.await_disk(now, prepared, decision);
        }
    }

    /// Prepares for a vote that is near, and tidies up what the disk holds beside the record.
    pub(super) fn tend_preparation(&mut self, now: Time, out: &mut Effects) {
        let Some(record) = self.record else { return };
        let near = self.vote_near(now, record);
        let prepared = near.map(|(voter, _)| self.lone(record.term + 1, voter));
        let is_there = match self.preparation.on_disk {
            None if prepared.is_none() => return,
            None => false,
            // Used: from here on a crash should leave no doubt.
            Some(on_disk) if on_disk.term <= record.term => false,
            // The other's vote has to do without: two links that jitter are no reason to write more.
            Some(on_disk) => {
                let is_there = prepared.is_some_and(|p| same_pair(p, on_disk));
                if !is_there && now < self.preparation.until {
                    return;
                }
                is_there
            }
        };
        if let Some((_, silent)) = near {
            let unused_max = UNUSED_MAX.max(self.timing().lease() * 2);
            self.preparation.silent = Some(silent);
            self.preparation.until = now.after(unused_max);
        }
        if is_there {
            return;
        }
        let stored = Stored { record, prepared };
        self.writing = Some(stored);
        out.push(Effect::Persist {
            stored,
            decision: None,
        });
    }

    /// Who may vote soon, and whose silence says so. Not when both are silent, or anybody was for
    /// as long just before: it may be this manager that was cut off or stood still. And not while a
    /// grant may run: who reads a prepared record after a crash renews its holder at once (R15).
    fn vote_near(&self, now: Time, record: Record) -> Option<(Member, NodeId)> {
        let second = record.second?;
        let patience = self.silence_patience();
        let listens = now.since(self.steady_since) >= patience;
        if now < self.grant_until || !listens {
            return None;
        }
        let heard_ago = |member: Member| {
            let node = self.node(member.node)?;
            let in_this_life = node.incarnation == member.incarnation && !node.gone;
            in_this_life.then(|| (now.since(node.heard_at), node.able))
        };
        let interval = self.timing().heartbeat_interval();
        let near = |voter: Member, silent: Member| {
            let (voter_ago, able) = heard_ago(voter)?;
            let (silent_ago, _) = heard_ago(silent)?;
            let is_new = self.preparation.silent != Some(silent.node);
            let suspicious = silent_ago >= patience && voter_ago <= interval;
            (able && is_new && suspicious).then_some((voter, silent.node))
        };
        near(second, record.first).or_else(|| near(record.first, second))
    }

    /// For so long a member is silent before a vote of the other is expected: the successor's comes
    /// a lease after the last word, the active's after 60 % of one.
    pub(super) fn silence_patience(&self) -> Duration {
        let timing = self.timing();
        (timing.lease() / 2).max(timing.heartbeat_interval() * 2)
    }

    /// A member of the pair before a presumed record says in which term it is.
    pub(super) fn note_left(&mut self, now: Time, member: Member, m: &Request) {
        if let Some(presumed) = &mut self.presumed
            && presumed.pair.names(member)
            && m.epoch.term > presumed.pair.term
        {
            presumed.left_at.get_or_insert(now);
        }
    }

    /// The presumed record is one like any other when the pair before it cannot serve any more: one
    /// of the two is in a newer term, in a new life or gone, and what it acknowledged before is a
    /// lease old. A pair that is silent may still be one (R14), and so may be a member that serves
    /// on evidence (S1-S7) and has not called in yet.
    pub(super) fn end_presumption(&mut self, now: Time) {
        let Some(Presumed { pair, left_at }) = self.presumed else {
            return;
        };
        let lease = self.longest_lease();
        let left = left_at.is_some_and(|at| now.since(at) >= lease);
        let mut members = [Some(pair.first), pair.second].into_iter().flatten();
        let lost = members.any(|member| {
            self.node(member.node).is_some_and(|n| {
                let is_over = n.gone || n.incarnation > member.incarnation;
                is_over && now.since(n.registered_at) >= lease
            })
        });
        if (left || lost) && self.has_listened(now) {
            self.presumed = None;
        }
    }
}
