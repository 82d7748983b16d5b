//! Which moves a state allows.
//!
//! A disturbance of a node is offered just before that node would do something: earlier it would
//! lead to the same state, since nothing else depends on it.

use super::{Engine, State, node_u8};
use crate::letter::Body;
use crate::moves::Move;
use crate::net::{Net, Scene};
use crate::world::{Kind, UNBOUNDED, World};

impl Engine {
    /// What happens next when nothing disturbs.
    #[must_use]
    pub fn due_move(&self, state: State) -> Move {
        if !self.nets.value(state.net).queue.is_empty() {
            return Move::Deliver;
        }
        let mut due = self.world.hosts();
        if let Some(node) = due.find(|node| self.host_view(state, *node).due) {
            return Move::Beat(node_u8(node));
        }
        if !self.scene(state).manager_beat && self.chief_view(state).alive {
            return Move::Beat(0);
        }
        Move::Advance
    }

    /// Everything that may happen next.
    pub fn moves(&self, state: State, moves: &mut Vec<Move>) {
        moves.clear();
        let net = self.nets.value(state.net);
        let scene = self.scene(state);
        if let Some(head) = net.queue.first() {
            self.moves_of_letter(state, *head, net, scene, moves);
            return;
        }
        if scene.fresh {
            self.moves_between_ticks(state, scene, moves);
        }
        let due = self.due_move(state);
        let mut timers: Vec<u8> = match due {
            Move::Beat(node) => vec![node],
            _ => Vec::new(),
        };
        if self.world.any_order && !timers.is_empty() {
            let hosts = self.world.hosts();
            timers = hosts
                .filter(|node| self.host_view(state, *node).due)
                .map(node_u8)
                .collect();
            if !scene.manager_beat && self.chief_view(state).alive {
                timers.push(0);
            }
        }
        for node in timers {
            moves.push(Move::Beat(node));
            self.disturb_node(state, usize::from(node), scene, moves);
            arrivals(self, net, Some(usize::from(node)), moves);
        }
        if due == Move::Advance {
            arrivals(self, net, None, moves);
            if !self.disk_must_answer(net) {
                moves.push(Move::Advance);
            }
        }
    }

    /// The disk may be slow, but it answers.
    fn disk_must_answer(&self, net: &Net) -> bool {
        net.late.iter().any(|(age, number)| {
            let letter = self.letters.value(*number);
            matches!(letter.body, Body::Written(_)) && *age >= self.world.late_ticks
        })
    }

    fn moves_of_letter(
        &self,
        state: State,
        head: u32,
        net: &Net,
        scene: Scene,
        moves: &mut Vec<Move>,
    ) {
        let letter = self.letters.value(head);
        let may = |kind| may(&self.world, scene, kind);
        moves.push(Move::Deliver);
        let heard = match letter.to {
            0 => self.chief_view(state).alive,
            node => self.host_view(state, node).alive,
        };
        let from_disk = matches!(letter.body, Body::Written(_));
        if heard && may(Kind::Lose) && !from_disk {
            moves.push(Move::Lose);
        }
        if heard && may(Kind::Double) && !from_disk && net.late.len() < self.world.late_max {
            moves.push(Move::Double);
        }
        if may(Kind::Hold) && net.late.len() < self.world.late_max {
            moves.push(Move::Hold);
        }
        self.disturb_node(state, letter.to, scene, moves);
        arrivals(self, net, Some(letter.to), moves);
        match letter.to {
            0 if !self.chief_view(state).alive => moves.push(Move::LiveManager),
            0 => {}
            node if !self.host_view(state, node).alive => {
                moves.push(Move::Live(node_u8(node)));
                let kept = self.host_view(state, node).kept;
                moves.extend(kept.then_some(Move::Resume(node_u8(node))));
            }
            _ => {}
        }
    }

    /// What may go wrong with a node that is about to do something.
    fn disturb_node(&self, state: State, node: usize, scene: Scene, moves: &mut Vec<Move>) {
        let may = |kind| may(&self.world, scene, kind);
        if node == 0 {
            let chief = self.chief_view(state);
            if chief.alive && may(Kind::ManagerCrash) {
                moves.push(Move::CrashManager { written: false });
                if chief.writing {
                    moves.push(Move::CrashManager { written: true });
                }
            }
            return;
        }
        let (view, n) = (self.host_view(state, node), node_u8(node));
        if view.alive && may(Kind::Crash) {
            moves.push(Move::Crash(n));
        }
        if view.awake && may(Kind::Kill) {
            moves.extend((0..=KILLED_AFTER_MAX).map(|carried| Move::Kill(n + carried * 16)));
        }
        if view.awake && may(Kind::Freeze) {
            moves.push(Move::Freeze(n));
        }
        if view.awake && view.able && may(Kind::Fail) {
            moves.push(Move::Fail(n));
        }
        if view.awake && view.role == vnfpool_model::Role::Active && may(Kind::HandOver) {
            moves.push(Move::HandOver(n));
        }
        if view.alive && may(Kind::Restore) && !view.saved {
            moves.push(Move::Save(n));
        }
        if view.saved && may(Kind::Restore) {
            moves.push(Move::Restore(n));
        }
    }

    /// What takes long compared with a tick happens between two.
    fn moves_between_ticks(&self, state: State, scene: Scene, moves: &mut Vec<Move>) {
        let may = |kind| may(&self.world, scene, kind);
        for node in self.world.hosts() {
            let (view, n) = (self.host_view(state, node), node_u8(node));
            if !view.alive {
                moves.push(Move::Live(n));
                moves.extend(view.kept.then_some(Move::Resume(n)));
            } else if !view.awake {
                moves.extend([Move::Thaw(n), Move::ThawDeaf(n)]);
            } else if !view.able {
                moves.push(Move::Repair(n));
            }
            if may(Kind::Fence) {
                moves.push(Move::Fence(n));
            }
            if view.saved && may(Kind::Restore) {
                moves.push(Move::Restore(n));
            }
        }
        if !self.chief_view(state).alive {
            moves.push(Move::LiveManager);
        }
        if self.chief_view(state).alive && may(Kind::Pace) {
            moves.push(Move::OtherPace);
        }
        if may(Kind::Cut) {
            let cuts = self.world.cuts.iter().enumerate();
            let new = cuts.filter(|(_, cut)| cut.links & !scene.cut != 0);
            moves.extend(new.map(|(index, _)| Move::Cut(node_u8(index))));
        }
        if scene.cut != 0 {
            moves.push(Move::Heal);
        }
        if scene.stream_broken {
            moves.push(Move::MendStream);
        } else if may(Kind::Stream) {
            moves.push(Move::BreakStream);
        }
    }
}

/// A killed agent has carried out none, one or two of its effects.
const KILLED_AFTER_MAX: u8 = 2;

/// Whether the bounds leave room for one more of `kind`.
fn may(world: &World, scene: Scene, kind: Kind) -> bool {
    let cap = world.cap(kind);
    let within = scene.spent[kind as usize] < cap && scene.disturbances() < world.disturbances;
    cap == UNBOUNDED || within
}

/// Held letters may arrive just before their receiver does something, or at the end of a tick.
fn arrivals(engine: &Engine, net: &Net, to: Option<usize>, moves: &mut Vec<Move>) {
    for (index, (_, number)) in net.late.iter().enumerate() {
        if to.is_none_or(|node| engine.letters.value(*number).to == node) {
            moves.push(Move::Arrive(node_u8(index)));
        }
    }
}
