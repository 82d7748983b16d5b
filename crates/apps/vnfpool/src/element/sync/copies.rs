//! Which standby has all of it: in sync is a copy when every class that counts is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use vnfpool_model::{SlotId, Time};
use vnfpool_statesync::class::ClassName;
use vnfpool_succession::element::Input;
use vnfpool_wire::datagram::Member;

use crate::element::pulse::Pulse;

/// The copies of one slot's state, as the streams to the standbys tell of them.
#[derive(Debug)]
pub(super) struct Copies {
    slot: SlotId,
    pulse: Pulse,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The classes that a successor needs.
    needed: Vec<ClassName>,
    /// Per standby and class: since when nothing is missing there.
    proofs: BTreeMap<Member, BTreeMap<ClassName, Time>>,
    told: BTreeMap<Member, Option<Time>>,
}

impl Copies {
    pub(super) fn new(slot: SlotId, pulse: Pulse) -> Self {
        Self {
            slot,
            pulse,
            state: Mutex::default(),
        }
    }

    /// Which classes count.
    pub(super) fn need(&self, classes: impl Iterator<Item = ClassName>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let classes: Vec<ClassName> = classes.collect();
        if state.needed != classes {
            state.needed = classes;
            let known = state.proofs.keys().chain(state.told.keys());
            let members: BTreeSet<Member> = known.copied().collect();
            for member in members {
                state.tell(self, member);
            }
        }
    }

    /// Where no class counts, every one of `standbys` has all that a successor needs, for as long as this
    /// is said again and again.
    pub(super) fn prove_nothing(&self, standbys: impl Iterator<Item = Member>, now: Time) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.needed.is_empty() {
            return;
        }
        let standbys: Vec<Member> = standbys.collect();
        let gone: Vec<Member> = state.told.keys().copied().collect();
        for peer in gone.into_iter().filter(|peer| !standbys.contains(peer)) {
            state.say(self, peer, None);
        }
        for peer in standbys {
            state.say(self, peer, Some(now));
        }
    }

    /// The copy of `class` at `standby` has everything until `as_of`, or (none) is not in sync.
    pub(super) fn report(&self, standby: Member, class: &ClassName, as_of: Option<Time>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let proofs = state.proofs.entry(standby).or_default();
        match as_of {
            Some(as_of) => proofs.insert(class.clone(), as_of),
            None => proofs.remove(class),
        };
        state.tell(self, standby);
        state.proofs.retain(|_, proofs| !proofs.is_empty());
    }
}

impl State {
    fn tell(&mut self, copies: &Copies, peer: Member) {
        // Of copies that no successor needs nothing is told; see `Copies::prove_nothing`.
        if self.needed.is_empty() {
            return;
        }
        let proofs = self.proofs.get(&peer);
        let of = |class: &ClassName| proofs.and_then(|proofs| proofs.get(class)).copied();
        let as_of = self.needed.iter().map(of).min().flatten();
        self.say(copies, peer, as_of);
    }

    fn say(&mut self, copies: &Copies, peer: Member, as_of: Option<Time>) {
        let told = self.told.insert(peer, as_of);
        if told != Some(as_of) {
            let input = Input::InSync { peer, as_of };
            copies.pulse.input(copies.slot, input);
        }
        if as_of.is_none() {
            self.told.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use vnfpool_model::Incarnation;
    use vnfpool_wire::datagram::NodeId;

    use super::*;
    use crate::element::pulse::{Command, View};
    use crate::pulse::Inbox;

    const STANDBY: Member = Member {
        node: NodeId(2),
        incarnation: Incarnation(1),
    };

    fn copies() -> (Copies, Inbox<Command, View>) {
        let (pulse, inbox) = Pulse::new().unwrap();
        (Copies::new(SlotId(1), pulse), inbox)
    }

    /// What the succession was told of the standby since the last call.
    fn told(inbox: &Inbox<Command, View>) -> Vec<Option<u64>> {
        let mut commands = VecDeque::new();
        inbox.take(&mut commands);
        let news = commands.into_iter().map(|command| match command {
            Command::Input {
                input: Input::InSync { peer, as_of },
                ..
            } if peer == STANDBY => as_of.map(|at| at.0),
            _ => panic!("only this was to be told"),
        });
        news.collect()
    }

    /// Goal: a copy is in sync when every needed class is, and as old as the oldest of them.
    #[test]
    fn a_copy_is_as_good_as_its_worst_class() {
        let (copies, inbox) = copies();
        let told = || told(&inbox);
        let [connections, sessions] = ["conntrack", "sessions"].map(|n| ClassName::new(n).unwrap());
        copies.need([connections.clone(), sessions.clone()].into_iter());
        copies.report(STANDBY, &connections, Some(Time(5)));
        assert_eq!(told(), [None]);
        copies.report(STANDBY, &sessions, Some(Time(7)));
        assert_eq!(told(), [Some(5)]);
        copies.report(STANDBY, &connections, Some(Time(9)));
        assert_eq!(told(), [Some(7)]);
        copies.report(STANDBY, &connections, None);
        assert_eq!(told(), [None]);
        copies.need(std::iter::once(sessions));
        assert_eq!(told(), [Some(7)]);
    }

    /// Goal: where no class counts a standby that is there is as good as one with a proof, until it is gone
    /// or a class counts.
    #[test]
    fn where_nothing_counts_nothing_is_missing() {
        let (copies, inbox) = copies();
        let told = || told(&inbox);
        copies.need(std::iter::once(ClassName::conntrack()));
        copies.prove_nothing(std::iter::once(STANDBY), Time(1));
        assert_eq!(told(), []);
        copies.need(std::iter::empty());
        copies.prove_nothing(std::iter::once(STANDBY), Time(2));
        copies.prove_nothing(std::iter::once(STANDBY), Time(3));
        assert_eq!(told(), [Some(2), Some(3)]);
        copies.report(STANDBY, &ClassName::conntrack(), None);
        assert_eq!(told(), []);
        copies.prove_nothing(std::iter::empty(), Time(4));
        copies.prove_nothing(std::iter::empty(), Time(5));
        assert_eq!(told(), [None]);
        copies.prove_nothing(std::iter::once(STANDBY), Time(6));
        copies.need(std::iter::once(ClassName::conntrack()));
        assert_eq!(told(), [Some(6), None]);
    }
}
