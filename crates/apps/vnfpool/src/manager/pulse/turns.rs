//! Which turns of a slot are handovers that nobody here has ordered: they are news to the operator.

use std::time::Duration;

use vnfpool_model::Time;
use vnfpool_wire::datagram::NodeId;

/// Between two that are told of a slot: turns are the word of elements, which must not fill the log.
/// The newest state is told in the end.
const TOLD_INTERVAL: Duration = Duration::from_secs(1);

/// The slot went from one member of its pair to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handover {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
}

/// Who serves a slot, as it was told.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Term and active that are told of already; none until a member has said in which turn it is,
    /// since this boot of the manager may have begun in the middle of a term.
    told: Option<(u64, NodeId)>,
    seen: Option<NodeId>,
    /// The active that was asked to hand over.
    ordered: Option<NodeId>,
    told_at: Option<Time>,
}

impl Turns {
    /// The active was asked to hand over, or that is over without one.
    pub(super) const fn order(&mut self, from: Option<NodeId>) {
        self.ordered = from;
    }

    /// Looks at the term and active that a machine knows of after an input. `is_said`: the input was a
    /// member's word about its turn of this term.
    pub(super) fn look(
        &mut self,
        (term, active): (u64, NodeId),
        is_said: bool,
        at: Time,
    ) -> Option<Handover> {
        let seen = self.seen.replace(active).unwrap_or(active);
        let Some((told_term, told)) = self.told else {
            self.told = is_said.then_some((term, active));
            return None;
        };
        let handover = |to| (to != told).then_some(Handover { from: told, to });
        if term != told_term {
            // Who serves by the new record is told as its decision. What was held back comes before it.
            self.ordered = None;
            self.told = Some((term, active));
            return handover(seen);
        }
        let is_turn = active != seen;
        if is_turn && self.ordered.take_if(|from| *from == seen).is_some() {
            self.told = Some((term, active));
            return None;
        }
        let too_early = |told_at| at.since(told_at) < TOLD_INTERVAL;
        if self.told_at.is_some_and(too_early) {
            return None;
        }
        let handover = handover(active)?;
        self.told = Some((term, active));
        self.told_at = Some(at);
        Some(handover)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GW1: NodeId = NodeId(1);
    const GW2: NodeId = NodeId(2);
    const THERE: Option<Handover> = Some(Handover { from: GW1, to: GW2 });
    const BACK: Option<Handover> = Some(Handover { from: GW2, to: GW1 });

    struct World {
        turns: Turns,
        now: Time,
    }

    impl World {
        /// In term 4 gw1 serves.
        fn new() -> Self {
            let mut world = Self {
                turns: Turns::default(),
                now: Time(1),
            };
            assert_eq!(world.say(4, GW1), None);
            world
        }

        /// A member's word, long after the one before.
        fn say(&mut self, term: u64, active: NodeId) -> Option<Handover> {
            self.now = self.now.after(TOLD_INTERVAL);
            self.turns.look((term, active), true, self.now)
        }

        /// The same, in the same moment.
        fn say_at_once(&mut self, term: u64, active: NodeId) -> Option<Handover> {
            self.turns.look((term, active), true, self.now)
        }
    }

    #[test]
    fn each_handover_is_told_once() {
        let mut world = World::new();
        assert_eq!(world.say(4, GW2), THERE);
        assert_eq!(world.say(4, GW2), None);
        assert_eq!(world.say(4, GW1), BACK);
        assert_eq!(world.say(4, GW1), None);
    }

    #[test]
    fn who_serves_by_another_record_is_no_handover() {
        let mut world = World::new();
        assert_eq!(world.say(5, GW2), None);
        assert_eq!(world.say(5, GW1), BACK);
    }

    /// Goal: a turn of before this boot of the manager is no news. Method: the record names gw1 first,
    /// gw2 serves by a turn that is not heard of at once.
    #[test]
    fn the_turn_in_which_the_manager_finds_a_slot_is_no_handover() {
        let mut turns = Turns::default();
        assert_eq!(turns.look((4, GW1), false, Time(1)), None);
        let later = Time(1).after(TOLD_INTERVAL);
        assert_eq!(turns.look((4, GW2), true, later), None);
        let later = later.after(TOLD_INTERVAL);
        assert_eq!(turns.look((4, GW1), true, later), BACK);
    }

    /// Goal: an order covers one handover, from the element that was asked, and none once it was
    /// refused.
    #[test]
    fn what_was_ordered_is_not_told_and_nothing_else_with_it() {
        let mut world = World::new();
        world.turns.order(Some(GW1));
        assert_eq!(world.say(4, GW2), None);
        assert_eq!(world.say(4, GW1), BACK);
        world.turns.order(Some(GW2));
        assert_eq!(world.say(4, GW2), THERE, "gw2 was asked, not gw1");
        world.turns.order(None);
        assert_eq!(world.say(4, GW1), BACK, "gw2 has refused");
        world.turns.order(Some(GW1));
        assert_eq!(world.say(5, GW1), None);
        assert_eq!(world.say(5, GW2), THERE, "that was in another term");
    }

    /// Goal: elements cannot fill the log, and what is held back is told, before a record that replaces
    /// it at the latest.
    #[test]
    fn handovers_are_told_once_a_second_and_the_last_one_always() {
        let mut world = World::new();
        assert_eq!(world.say(4, GW2), THERE);
        for _ in 0..100 {
            assert_eq!(world.say_at_once(4, GW1), None);
            assert_eq!(world.say_at_once(4, GW2), None);
        }
        assert_eq!(world.say_at_once(4, GW1), None);
        assert_eq!(world.say(4, GW1), BACK);
        assert_eq!(world.say_at_once(4, GW2), None);
        assert_eq!(world.say_at_once(5, GW2), THERE);
    }
}
