//! What the manager decides by itself (R11 to R14 and the first record), and how a decision comes
//! into force (R16).

use std::time::Duration;

use super::{Decision, Effect, Effects, Member, Node, NodeId, Pending, Record, Slot, Stored, Time};

/// How long a new slot waits for its preferred element before another gets it.
pub(super) const PREFERRED_WAIT: Duration = Duration::from_secs(2);

impl Slot {
    /// What the manager does by itself: R11 to R14 and the first record.
    pub(super) fn decide(&mut self, now: Time, out: &mut Effects) {
        if self.writing.is_some() {
            return;
        }
        self.end_presumption(now);
        if self.presumed.is_some() {
            return;
        }
        let decision = match self.record {
            None => self.decide_first(now),
            Some(record) if record.armed() => self.decide_armed(now, record),
            Some(record) => self.decide_lone(now, record),
        };
        match decision {
            Some((record, decision)) => self.commit(now, record, decision, out),
            None => self.tend_preparation(now, out),
        }
    }

    fn decide_first(&self, now: Time) -> Option<(Record, Decision)> {
        let preferred = self.settings.preferred;
        let first = self.choose(now, |n| Some(n.id) == preferred).or_else(|| {
            let expected = preferred.is_some() || self.settings.preferred_expected;
            let patient = expected && now.since(self.started_at) < PREFERRED_WAIT;
            if patient {
                None
            } else {
                self.choose(now, |_| true)
            }
        })?;
        Some((self.lone(1, first), Decision::First))
    }

    fn decide_lone(&self, now: Time, record: Record) -> Option<(Record, Decision)> {
        let term = record.term + 1;
        // An earlier life than the record's (an old machine image) is nobody.
        let active = self
            .node(record.first.node)
            .filter(|n| n.incarnation >= record.first.incarnation);
        let void = active.is_some_and(|n| n.gone || n.incarnation > record.first.incarnation);
        if let (true, Some(active)) = (void, active) {
            return self.decide_void(now, record, active);
        }
        let lease = self.manager_lease();
        let speaks = active.is_some_and(|n| self.fresh(now, n));
        let active_is_fit = speaks && active.is_some_and(|n| n.able);
        let silent = !speaks && self.has_listened(now);
        // A deaf one speaks, but no grant reaches it.
        let deaf = active_is_fit && active.is_some_and(|n| !n.heard_manager);
        if now >= self.grant_until && (silent || deaf || (speaks && !active_is_fit)) {
            // R12: nobody else can have granted the lone active anything. Instead of a deaf one
            // only who has heard the manager for long: it may have been dumb for all of them.
            let silent = record.first.node;
            let hears = |n: &Node| n.heard_manager && now.since(n.hears_since) >= lease;
            if let Some(first) = self.choose(now, |n| n.id != silent && (!deaf || hears(n))) {
                return Some((self.lone(term, first), Decision::Replaced { silent }));
            }
        }
        let active = active.filter(|_| active_is_fit)?;
        // R11: with the active's own report only.
        let candidate = active.candidate?;
        let standby = self.node(candidate.node)?;
        let fit = standby.incarnation == candidate.incarnation
            && standby.able
            && !standby.gone
            && self.fresh(now, standby)
            && now >= standby.damping.rest_until
            && !standby.damping.is_quarantined()
            && !self.must_be_apart(active.id, standby.id)
            && standby.id != active.id;
        fit.then_some((
            Record {
                term,
                first: record.first,
                second: Some(candidate),
                pace: self.settings.timing.pace(),
            },
            Decision::Armed,
        ))
    }

    /// R13 with no successor armed: the grant to the old life is void at once, since an agent
    /// closes its gate before it speaks. R14: after a fencing proof, one lease later.
    fn decide_void(&self, now: Time, record: Record, active: &Node) -> Option<(Record, Decision)> {
        let term = record.term + 1;
        if active.gone {
            if now.since(active.registered_at) < self.longest_lease() {
                return None;
            }
            let first = self.choose(now, |n| n.id != active.id)?;
            let decision = Decision::Fenced { node: active.id };
            return Some((self.lone(term, first), decision));
        }
        let first = self
            .choose(now, |n| self.is_preferred(n))
            .or_else(|| self.choose(now, |_| true))?;
        let decision = Decision::Restarted { node: active.id };
        Some((self.lone(term, first), decision))
    }

    /// R13, R14 with a successor armed: the surviving member splits by itself; when it does not,
    /// the manager gives the slot away one lease after the registration or the proof.
    fn decide_armed(&self, now: Time, record: Record) -> Option<(Record, Decision)> {
        let lost = |member: Member| {
            self.node(member.node)
                .filter(|n| n.gone || n.incarnation > member.incarnation)
                .copied()
        };
        let second = record.second?;
        let (one, other) = (lost(record.first), lost(second));
        let Some(node) = one.or(other) else {
            return self.decide_pace(now, record);
        };
        let survivor = if one.is_some() { second } else { record.first };
        let both = one.is_some() && other.is_some();
        // The grant's holder in a new life has closed its gate: its grant is void.
        let grant_runs = now < self.grant_until && one.is_none();
        let waited = [one, other]
            .into_iter()
            .flatten()
            .all(|n| now.since(n.registered_at) >= self.longest_lease());
        // A survivor that serves on evidence (S1-S7) must have had the time to call in: the slot
        // is not given past it sooner than to anybody else (R15).
        let survivor_heard = self.node(survivor.node);
        let unheard = !both && !survivor_heard.is_some_and(|n| self.fresh(now, n));
        if grant_runs || !waited || (unheard && !self.has_listened(now)) {
            return None;
        }
        let survivor_speaks = !both
            && self
                .node(survivor.node)
                .is_some_and(|n| self.fresh(now, n) && n.able);
        // A survivor that speaks has its own vote and knows better when.
        if survivor_speaks && now.since(node.registered_at) < self.timing().lease() * 8 {
            return None;
        }
        let first = self
            .choose(now, |n| !both && n.id == survivor.node)
            .or_else(|| self.choose(now, |n| self.is_preferred(n)))
            .or_else(|| self.choose(now, |_| true))?;
        let decision = if node.gone {
            Decision::Fenced { node: node.id }
        } else {
            Decision::Restarted { node: node.id }
        };
        Some((self.lone(record.term + 1, first), decision))
    }

    /// R17: another pace for a healthy pair. It is the same two in a new term, so that a promise has
    /// one length in one term; who serves goes on without a gap.
    fn decide_pace(&self, now: Time, record: Record) -> Option<(Record, Decision)> {
        let pace = self.settings.timing.pace();
        let patience = self.silence_patience();
        let listens = now.since(self.steady_since) >= patience;
        if record.pace == pace || now.since(self.decided_at) < self.manager_lease() || !listens {
            return None;
        }
        let (active, other) = (self.active()?, record.peer_of(self.active()?)?);
        let speaks = |member: Member| {
            self.node(member.node)
                .filter(|n| n.incarnation == member.incarnation && n.able)
                // Not just when one of them may have died: its successor would wait for the new
                // lease, and without the record that is prepared for it.
                .filter(|n| now.since(n.heard_at) < patience)
                // One that would not hear of the new term would be left behind in the old one.
                .filter(|n| n.heard_manager)
        };
        // The active itself says that it is one, and that the other one hears it and is in sync.
        let well = speaks(active)?.candidate == Some(other) && speaks(other).is_some();
        well.then_some((
            Record {
                term: record.term + 1,
                first: active,
                second: Some(other),
                pace,
            },
            Decision::Paced,
        ))
    }

    /// Silence is evidence only for who has listened for a manager lease. Meanwhile whoever serves
    /// on evidence (S1-S7) calls in, or hears from those who do that the manager lives.
    pub(super) fn has_listened(&self, now: Time) -> bool {
        now >= self.listens_since.after(self.manager_lease())
    }

    fn must_be_apart(&self, one: NodeId, other: NodeId) -> bool {
        self.apart.contains(&(one, other)) || self.apart.contains(&(other, one))
    }

    /// The preferred one is no longer preferred while it is in quarantine.
    fn is_preferred(&self, node: &Node) -> bool {
        Some(node.id) == self.settings.preferred && !node.damping.is_quarantined()
    }

    /// An able, living element that `suits`: the one with the lowest number, one in quarantine
    /// only if there is no other.
    pub(super) fn choose(&self, now: Time, suits: impl Fn(&Node) -> bool) -> Option<Member> {
        self.nodes
            .iter()
            .filter(|n| n.able && !n.gone && self.fresh(now, n) && suits(n))
            .min_by_key(|n| (n.damping.is_quarantined(), n.id))
            .map(|n| Member {
                node: n.id,
                incarnation: n.incarnation,
            })
    }

    /// R16: to the disk first.
    pub(super) fn commit(
        &mut self,
        now: Time,
        record: Record,
        decision: Decision,
        out: &mut Effects,
    ) {
        assert!(
            self.writing.is_none(),
            "one record at a time is on its way to the disk"
        );
        let stored = Stored::of(record);
        self.writing = Some(stored);
        self.await_disk(now, record, decision);
        out.push(Effect::Persist {
            stored,
            decision: Some(decision),
        });
    }

    /// The decision is made and comes into force when the disk has what is on its way there.
    pub(super) fn await_disk(&mut self, now: Time, record: Record, decision: Decision) {
        assert!(self.pending.is_none(), "one decision at a time");
        assert!(
            self.writing.is_some_and(|stored| stored.newest() == record),
            "what was decided is on its way to the disk"
        );
        self.pending = Some(Pending {
            record,
            decision,
            since: now,
        });
    }

    pub(super) fn on_persisted(&mut self, now: Time, out: &mut Effects) {
        let Some(written) = self.writing.take() else {
            return;
        };
        self.preparation.on_disk = written.prepared;
        if let Some(Pending {
            record,
            decision,
            since,
        }) = self.pending.take()
        {
            self.come_into_force(now, record, decision, since, out);
        }
    }

    /// R16: `record` is on disk, as the record or prepared beside it; it was decided at `since`.
    pub(super) fn come_into_force(
        &mut self,
        now: Time,
        record: Record,
        decision: Decision,
        since: Time,
        out: &mut Effects,
    ) {
        assert!(
            self.record.is_none_or(|r| r.term < record.term),
            "terms only grow"
        );
        let before = self.record.replace(record);
        self.turn = 0;
        if let (Decision::Split { .. } | Decision::SplitToOther { .. }, Some(_)) =
            (decision, before)
        {
            // R10: counted from the commit, granted or not. The gate of the one who goes on may
            // still be open on what its peer promised before, and a replacement (R12) has to
            // wait for that as for a grant.
            self.grant_until = self.grant_until.max(now.after(self.longest_lease()));
        }
        out.push(Effect::Decided {
            record,
            decision,
            disk: now.since(since),
            prepared: self.preparation.on_disk == Some(record),
        });
        if let Some(before) = before {
            self.damp(now, before, decision, out);
        }
        self.decided_at = now;
        if decision == Decision::Armed {
            self.armed_at = now;
        }
        // The members hear of it at once, not with their next request.
        let members = [Some(record.first), record.second, before.map(|b| b.first)];
        let second_before = before.and_then(|b| b.second);
        let mut told = Vec::with_capacity(4);
        for member in members.into_iter().flatten().chain(second_before) {
            let Some(node) = self.node(member.node).copied() else {
                continue;
            };
            if node.gone || told.contains(&node.id) {
                continue;
            }
            told.push(node.id);
            self.inform(now, node.id, node.sent, out);
        }
    }
}
