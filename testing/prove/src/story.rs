//! A history as a person reads it.

use std::fmt::Write as _;

use vnfpool_model::Role;

use crate::engine::{Engine, State};
use crate::letter::{Letter, name};
use crate::moves::Move;

/// Tells a history from the beginning: one line for each move that matters, and what it changed.
pub fn tell(engine: &mut Engine, history: &[Move]) -> String {
    let mut story = String::new();
    let Ok(mut state) = engine.start() else {
        return story;
    };
    let mut tick = 0;
    let _ = writeln!(story, "tick  0: {}", summary(engine, state));
    for next in history {
        let about = letter_of(engine, state, *next);
        let what = next.tell(&engine.world);
        let line = about.map_or_else(|| what.clone(), |letter| format!("{letter} {what}"));
        match engine.step(state, *next) {
            Ok(reached) => {
                if *next == Move::Advance {
                    tick += 1;
                    let _ = writeln!(story, "tick {tick:>2}: {}", summary(engine, reached));
                } else {
                    let _ = writeln!(story, "         {line}{}", changes(engine, state, reached));
                }
                state = reached;
            }
            Err(fault) => {
                let _ = writeln!(story, "         {line}\n=> {fault}");
            }
        }
    }
    story
}

fn letter_of(engine: &Engine, state: State, next: Move) -> Option<Letter> {
    let (queue, late) = engine.letters(state);
    match next {
        Move::Deliver | Move::Lose | Move::Hold | Move::Double | Move::Kill(_) => {
            queue.first().copied()
        }
        Move::Arrive(index) => late.get(usize::from(index)).copied(),
        _ => None,
    }
}

/// Who is what at the begin of a tick.
fn summary(engine: &Engine, state: State) -> String {
    let mut text = match engine.chief_view(state) {
        view if !view.alive => "M is dead".to_owned(),
        view => match view.record {
            None => "M has no record".into(),
            Some(record) => {
                let first = name(crate::clock::place(record.first.node));
                let second = record
                    .second
                    .map_or("-", |m| name(crate::clock::place(m.node)));
                format!("M has ({}, {first}, {second})", record.term)
            }
        },
    };
    for node in engine.world.hosts() {
        let view = engine.host_view(state, node);
        let doing = match (view.alive, view.awake, view.role) {
            (false, ..) => "dead".into(),
            (true, false, _) => "frozen".into(),
            (_, _, Role::Active) => format!("active in {}", view.epoch),
            (_, _, Role::Standby) => format!("standby in {}", view.epoch),
            (_, _, Role::Spare) => "spare".into(),
        };
        let gate = if view.open { ", gate open" } else { "" };
        let _ = write!(text, "; {} {doing}{gate}", name(node));
    }
    text
}

/// What a move has changed, beyond the letters.
fn changes(engine: &Engine, before: State, after: State) -> String {
    let mut text = String::new();
    for node in engine.world.hosts() {
        let (old, new) = (
            engine.host_view(before, node),
            engine.host_view(after, node),
        );
        if (old.epoch, old.role) != (new.epoch, new.role) {
            let _ = write!(
                text,
                " -> {} is {:?} in {}",
                name(node),
                new.role,
                new.epoch
            );
        }
        if old.open != new.open {
            let now = if new.open { "opens" } else { "closes" };
            let _ = write!(text, " -> the gate of {} {now}", name(node));
        }
    }
    let sent = engine.letters(after).0;
    let known = engine.letters(before).0;
    for letter in sent.iter().filter(|letter| !known.contains(letter)) {
        let _ = write!(text, "  [{letter}]");
    }
    text
}
