//! What elements say, and what they are told: requests (R6), infos and grants (R7), votes (R10).

use super::{
    Decision, Effect, Effects, Incarnation, Info, Member, Message, NODES_MAX, Node, NodeId, Record,
    Request, Slot, Split, Time, VoteRefusal,
};

impl Slot {
    /// R6: registration, keep-alive, renewal.
    pub(super) fn on_request(&mut self, now: Time, from: NodeId, m: &Request, out: &mut Effects) {
        let Some(node) = self.hear(now, from, m.incarnation, m.sent_at) else {
            return;
        };
        // An overtaken one tells old news.
        if m.sent_at == node.sent {
            if m.heard_manager && !node.heard_manager {
                node.hears_since = now;
            }
            node.heard_manager = m.heard_manager;
            node.able = m.able;
            node.candidate = m.candidate;
        }
        let member = Member {
            node: from,
            incarnation: m.incarnation,
        };
        if m.epoch.term == self.epoch().term && self.record.is_some_and(|r| r.names(member)) {
            self.turn = self.turn.max(m.epoch.turn);
        }
        self.note_left(now, member, m);
        self.forget_grant(now, member, m);
        self.inform(now, from, m.sent_at, out);
    }

    /// The holder of a grant says that it lives on its peer's promises: a claim of the peer need
    /// not wait for the rest of the grant. No grant is given in an armed term, so none can follow.
    fn forget_grant(&mut self, now: Time, member: Member, m: &Request) {
        let of_this_pair = self.pending.is_none()
            && self
                .record
                .is_some_and(|r| r.armed() && r.first == member && r.term == m.epoch.term);
        if m.renounces && of_this_pair {
            self.grant_until = self.grant_until.min(now);
        }
    }

    /// Notes a message; none when it is of an earlier life, or there are too many elements.
    fn hear(
        &mut self,
        now: Time,
        from: NodeId,
        incarnation: Incarnation,
        sent: Time,
    ) -> Option<&mut Node> {
        if from == NodeId::MANAGER {
            return None;
        }
        if !self.is_recent(now, self.heard_at) {
            self.listens_since = now;
        }
        if now.since(self.heard_at) >= self.silence_patience() {
            self.steady_since = now;
        }
        self.heard_at = now;
        if self.preparation.silent == Some(from) {
            self.preparation.silent = None;
        }
        let fresh_life = Node::new(from, incarnation, now);
        let index = match self.nodes.iter().position(|n| n.id == from) {
            Some(index) => index,
            None if self.nodes.len() < NODES_MAX => {
                self.nodes.push(fresh_life);
                self.nodes.len() - 1
            }
            None => return None,
        };
        let node = &mut self.nodes[index];
        if incarnation < node.incarnation || (node.gone && incarnation == node.incarnation) {
            return None;
        }
        if incarnation > node.incarnation {
            *node = Node {
                damping: node.damping,
                ..fresh_life
            };
        }
        node.heard_at = now;
        node.sent = node.sent.max(sent);
        Some(node)
    }

    /// R7: the record, a token, and a grant for the lone active.
    pub(super) fn inform(&mut self, now: Time, to: NodeId, echo: Time, out: &mut Effects) {
        let Some(node) = self.node(to).copied() else {
            return;
        };
        let member = Member {
            node: to,
            incarnation: node.incarnation,
        };
        let serves_alone = self.record.is_some_and(|r| r.first == member && !r.armed());
        if let Some(pending) = &self.pending
            && !(serves_alone && pending.record.first == member)
        {
            return;
        }
        let somebody_better = !node.able && self.choose(now, |n| n.id != to).is_some();
        let grant = serves_alone && node.heard_manager && !node.gone && !somebody_better;
        if grant {
            self.grant_until = self.grant_until.max(now.after(self.manager_lease()));
        }
        out.push(Effect::Send {
            to,
            message: Message::Info(Info {
                record: self.record,
                token: self.token(now),
                echo,
                grant,
            }),
        });
    }

    /// R10: the vote of a member of the pair.
    pub(super) fn on_split(&mut self, now: Time, from: NodeId, m: &Split, out: &mut Effects) {
        let Some(node) = self.hear(now, from, m.incarnation, m.sent_at) else {
            return;
        };
        if m.sent_at == node.sent {
            node.able = m.able;
        }
        if self.pending.is_some() {
            return;
        }
        match self.count_vote(now, from, m) {
            Ok((record, decision)) => self.elect(now, record, decision, out),
            Err(reason) => {
                out.push(Effect::VoteRefused { from, reason });
                self.inform(now, from, m.sent_at, out);
            }
        }
    }

    fn count_vote(
        &self,
        now: Time,
        from: NodeId,
        m: &Split,
    ) -> Result<(Record, Decision), VoteRefusal> {
        let voter = Member {
            node: from,
            incarnation: m.incarnation,
        };
        let record = self.record.ok_or(VoteRefusal::OtherTerm)?;
        if record.term != m.term {
            return Err(VoteRefusal::OtherTerm);
        }
        if !record.armed() || !record.names(voter) {
            return Err(VoteRefusal::NotOfThePair);
        }
        let validity = self.timing().lease();
        let fresh = m.token.boot == self.settings.boot
            && m.token.clock <= now
            && now.since(m.token.clock) < validity;
        if !fresh {
            return Err(VoteRefusal::TokenTooOld);
        }
        if now < self.grant_until && record.first.node != from {
            return Err(VoteRefusal::GrantRuns);
        }
        let term = record.term + 1;
        if m.able {
            let failover = self.active() != Some(voter);
            let decision = Decision::Split { by: from, failover };
            return Ok((self.lone(term, voter), decision));
        }
        // A grant to the voter itself would outlive its slot.
        if now < self.grant_until {
            return Err(VoteRefusal::GrantRuns);
        }
        let peer = record.peer_of(voter).map(|p| p.node);
        let first = self
            .choose(now, |n| n.id != from && Some(n.id) != peer)
            .ok_or(VoteRefusal::NobodyAble)?;
        Ok((self.lone(term, first), Decision::SplitToOther { by: from }))
    }

    /// R14: counts like the registration of a new life. The record's life is meant, also when it
    /// has not been heard since this boot.
    pub(super) fn fence(&mut self, now: Time, id: NodeId) {
        let records = [self.record, self.presumed.map(|presumed| presumed.pair)];
        let members = records.into_iter().flatten();
        let mut members = members.flat_map(|r| [Some(r.first), r.second]).flatten();
        let named = members.find(|m| m.node == id);
        if self.node(id).is_none()
            && let Some(member) = named
            && self.nodes.len() < NODES_MAX
        {
            self.nodes.push(Node::new(id, member.incarnation, now));
        }
        if let Some(node) = self.node_mut(id) {
            node.registered_at = now;
            node.gone = true;
            node.heard_at = Time::ZERO;
        }
    }
}
