//! Which standby has all of it: in sync is a copy when every class that counts is.

use std::collections::BTreeMap;
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
            let members: Vec<Member> = state.proofs.keys().copied().collect();
            for member in members {
                state.tell(self, member);
            }
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
        let proofs = self.proofs.get(&peer);
        let of = |class: &ClassName| proofs.and_then(|proofs| proofs.get(class)).copied();
        // With no class there is nothing to be proved, and then nobody reports either.
        let as_of = self.needed.iter().map(of).min().flatten();
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
    use crate::element::pulse::Command;

    /// Goal: a copy is in sync when every needed class is, and as old as the oldest of them.
    #[test]
    fn a_copy_is_as_good_as_its_worst_class() {
        let (pulse, inbox) = Pulse::new().unwrap();
        let copies = Copies::new(SlotId(1), pulse);
        let standby = Member {
            node: NodeId(2),
            incarnation: Incarnation(1),
        };
        let told = || {
            let mut commands = VecDeque::new();
            inbox.take(&mut commands);
            let news = commands.into_iter().map(|command| match command {
                Command::Input {
                    input: Input::InSync { peer, as_of },
                    ..
                } if peer == standby => as_of.map(|at| at.0),
                _ => panic!("only this was to be told"),
            });
            news.collect::<Vec<_>>()
        };
        let [connections, sessions] = ["conntrack", "sessions"].map(|n| ClassName::new(n).unwrap());
        copies.need([connections.clone(), sessions.clone()].into_iter());
        copies.report(standby, &connections, Some(Time(5)));
        assert_eq!(told(), [None]);
        copies.report(standby, &sessions, Some(Time(7)));
        assert_eq!(told(), [Some(5)]);
        copies.report(standby, &connections, Some(Time(9)));
        assert_eq!(told(), [Some(7)]);
        copies.report(standby, &connections, None);
        assert_eq!(told(), [None]);
        copies.need(std::iter::once(sessions));
        assert_eq!(told(), [Some(7)]);
    }
}
