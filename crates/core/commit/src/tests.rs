//! Told cases, and histories from a seed against the rules that the machine promises.

use std::collections::VecDeque;
use std::time::Duration;

use vnfpool_model::Time;

use crate::{Commitment, Effects, Event, Input, Limits, Packet, Reason};

const MILLISECOND: u64 = 1_000_000;

fn at_ms(milliseconds: u64) -> Time {
    Time(milliseconds * MILLISECOND)
}

/// A machine with a successor, and what it says to each input.
struct Told {
    machine: Commitment<u32>,
}

impl Told {
    fn new() -> Self {
        let mut told = Self {
            machine: Commitment::new(Time::ZERO, Limits::default()),
        };
        told.hear(0, Input::Successor { is_present: true });
        told
    }

    fn hear(&mut self, now_ms: u64, input: Input<u32>) -> Effects {
        let mut effects = Effects::default();
        self.machine.handle(at_ms(now_ms), input, &mut effects);
        effects
    }

    /// A packet of a connection of its own, whose entry is sent at once under the same number.
    fn packet(&mut self, now_ms: u64, id: u32) -> Effects {
        let effects = self.hear(now_ms, held(id, id, id));
        for &id in &effects.send {
            let sequence = u64::from(id);
            self.hear(now_ms, Input::Sent { id, sequence });
        }
        effects
    }
}

const fn held(id: u32, original: u32, reply: u32) -> Input<u32> {
    Input::Held(Packet {
        id,
        original,
        reply,
    })
}

#[test]
fn a_packet_leaves_when_its_entry_is_acknowledged() {
    let mut told = Told::new();
    assert_eq!(told.packet(1, 1).release_through, None);
    assert_eq!(told.packet(1, 2).release_through, None);
    let effects = told.hear(2, Input::Acknowledged(1));
    assert_eq!(effects.release_through, Some(1));
    assert_eq!(told.hear(3, Input::Tick), Effects::default());
    assert_eq!(
        told.hear(4, Input::Acknowledged(9)).release_through,
        Some(2)
    );
    assert_eq!(told.machine.status().statistics.committed, 2);
    assert_eq!(told.machine.deadline(), None);
}

#[test]
fn a_repeated_first_packet_waits_for_the_same_entry() {
    let mut told = Told::new();
    told.packet(1, 1);
    let again = told.hear(2, held(2, 1, 1));
    assert_eq!(again, Effects::default(), "its entry was sent already");
    assert_eq!(
        told.hear(3, Input::Acknowledged(1)).release_through,
        Some(2)
    );
}

#[test]
fn of_two_connections_with_one_translation_only_the_first_is_told_to_the_successor() {
    let mut told = Told::new();
    told.packet(1, 1);
    let loser = told.hear(1, held(2, 22, 1));
    assert_eq!(loser.send, []);
    assert_eq!(told.machine.status().statistics.clashes, 1);
    assert_eq!(
        told.hear(2, Input::Acknowledged(1)).release_through,
        Some(2)
    );
    // Both are gone: the translation may be claimed again.
    assert_eq!(told.hear(3, held(3, 22, 1)).send, [3]);
}

#[test]
fn a_slow_successor_is_a_downgrade_that_ends_when_it_has_been_prompt_for_a_second() {
    let mut told = Told::new();
    told.packet(100, 1);
    assert_eq!(told.machine.deadline(), Some(at_ms(120)));
    let began = told.hear(120, Input::Tick);
    let reason = Reason::SuccessorSlow;
    assert_eq!(began.events, [Event::DowngradeBegan { reason }]);
    assert_eq!(began.release_through, Some(1));

    // Packets pass, their entries go on being sent. Late answers prove nothing.
    let passing = told.packet(130, 2);
    assert_eq!(
        (passing.release_through, &passing.send[..]),
        (Some(2), &[2][..])
    );
    assert!(told.hear(136, Input::Acknowledged(2)).ask);
    assert_eq!(told.machine.deadline(), Some(at_ms(386)));
    told.packet(200, 3);
    assert_eq!(told.machine.deadline(), None);
    told.hear(202, Input::Acknowledged(3));
    told.packet(300, 31);
    assert_eq!(told.machine.deadline(), Some(at_ms(1202)));
    told.hear(301, Input::Acknowledged(31));
    // Late again: the second begins anew.
    told.packet(1000, 4);
    told.hear(1006, Input::Acknowledged(4));
    told.packet(1100, 5);
    told.hear(1105, Input::Acknowledged(5));
    assert_eq!(told.hear(2104, Input::Tick).events, []);
    let ended = told.hear(2105, Input::Tick);
    let lasted = Duration::from_millis(1985);
    assert_eq!(
        ended.events,
        [Event::DowngradeEnded {
            reason,
            lasted,
            unheld: 6
        }]
    );
    assert_eq!(told.packet(2106, 6).release_through, None);
}

/// Goal: a downgrade ends by itself where no packet comes any more, and not while the successor does
/// not answer.
#[test]
fn without_packets_the_successor_is_asked() {
    let mut told = Told::new();
    told.packet(100, 1);
    told.hear(120, Input::Tick);
    assert_eq!(told.machine.deadline(), None, "the packet's entry says it");
    assert!(told.hear(150, Input::Acknowledged(1)).ask);
    let mut sequence = 10;
    let mut ask = |told: &mut Told, now_ms| {
        sequence += 1;
        told.hear(now_ms, Input::Asked { sequence });
        sequence
    };
    // A late answer: it goes on asking.
    let first = ask(&mut told, 150);
    assert!(!told.hear(500, Input::Tick).ask, "one at a time");
    assert!(told.hear(800, Input::Acknowledged(first)).ask);
    // Prompt ones: it asks four times a second, until a second of them is over.
    let mut asked = ask(&mut told, 800);
    for now_ms in [801, 1_051, 1_301, 1_551] {
        let answered = told.hear(now_ms, Input::Acknowledged(asked));
        assert_eq!(answered, Effects::default());
        let due_ms = now_ms + 249;
        assert_eq!(told.machine.deadline(), Some(at_ms(due_ms)));
        assert!(told.hear(due_ms, Input::Tick).ask);
        asked = ask(&mut told, due_ms);
    }
    let ended = told.hear(1_801, Input::Acknowledged(asked));
    assert!(matches!(ended.events[..], [Event::DowngradeEnded { .. }]));
    assert_eq!(told.machine.deadline(), None);
}

#[test]
fn an_answer_that_is_awaited_too_long_is_not_prompt_though_none_came_late() {
    let mut told = Told::new();
    told.packet(100, 1);
    told.hear(120, Input::Tick);
    told.packet(200, 2);
    told.hear(201, Input::Acknowledged(2));
    told.packet(300, 3);
    assert_eq!(told.hear(1201, Input::Tick).events, []);
    assert!(told.machine.status().downgrade.is_some());
}

#[test]
fn without_a_successor_packets_pass_and_with_one_they_wait_at_once() {
    let mut told = Told::new();
    told.packet(1, 1);
    let gone = told.hear(2, Input::Successor { is_present: false });
    let reason = Reason::NoSuccessor;
    assert_eq!(gone.events, [Event::DowngradeBegan { reason }]);
    assert_eq!(gone.release_through, Some(1));
    let passing = told.packet(3, 2);
    assert_eq!(
        (passing.release_through, &passing.send[..]),
        (Some(2), &[][..])
    );
    let back = told.hear(12, Input::Successor { is_present: true });
    let lasted = Duration::from_millis(10);
    let unheld = 2;
    assert_eq!(
        back.events,
        [Event::DowngradeEnded {
            reason,
            lasted,
            unheld
        }]
    );
    // The stream is a new one: what was acknowledged in the old one says nothing.
    told.hear(13, Input::Acknowledged(0));
    assert_eq!(told.packet(13, 3).release_through, None);
}

#[test]
fn what_cannot_be_held_or_told_is_a_downgrade() {
    for input in [
        Input::Overflowed { packets: 7 },
        Input::Unknown { id: 3 },
        held(3, 3, 3),
    ] {
        let mut told = Told::new();
        told.machine = Commitment::new(
            Time::ZERO,
            Limits {
                held_max: 2,
                ..Limits::default()
            },
        );
        told.hear(0, Input::Successor { is_present: true });
        told.packet(1, 1);
        told.packet(1, 2);
        let effects = told.hear(2, input);
        let reason = Reason::Overflow;
        assert_eq!(effects.events, [Event::DowngradeBegan { reason }]);
        let through = match input {
            Input::Overflowed { .. } => 2,
            _ => 3,
        };
        assert_eq!(effects.release_through, Some(through));
        let unheld = told.machine.status().statistics.unheld;
        assert_eq!(unheld, if through == 2 { 9 } else { 3 });
    }
}

#[test]
fn a_packets_number_wraps() {
    let mut told = Told::new();
    told.packet(1, u32::MAX);
    told.hear(1, held(0, 7, 7));
    told.hear(
        1,
        Input::Sent {
            id: 0,
            sequence: u64::from(u32::MAX) + 1,
        },
    );
    let through =
        |told: &mut Told, sequence| told.hear(2, Input::Acknowledged(sequence)).release_through;
    assert_eq!(through(&mut told, u64::from(u32::MAX)), Some(u32::MAX));
    assert_eq!(through(&mut told, u64::from(u32::MAX) + 1), Some(0));
}

/// What a history's packet was.
#[derive(Clone, Copy)]
struct Known {
    since: Time,
    tuples: (u32, u32),
    sequence: Option<u64>,
}

/// A driver, a stream and a successor that are fast, slow, there or not, as the seed says.
struct History {
    machine: Commitment<u32>,
    random: u64,
    now: Time,
    /// Packets from number 1 on, and how many of them have left.
    packets: Vec<Known>,
    left: usize,
    overflowed: u64,
    sequence: u64,
    /// Acknowledgements on their way: when they arrive, and of what.
    answers: VecDeque<(Time, u64)>,
    acknowledged: u64,
    is_present: bool,
    /// How long the successor takes to answer a question.
    answer_after: Duration,
    events: Vec<Event>,
}

impl History {
    fn new(seed: u64) -> Self {
        let limits = Limits {
            held_max: 40,
            ..Limits::default()
        };
        Self {
            machine: Commitment::new(Time::ZERO, limits),
            random: seed,
            now: Time::ZERO,
            packets: Vec::new(),
            left: 0,
            overflowed: 0,
            sequence: 0,
            answers: VecDeque::new(),
            acknowledged: 0,
            is_present: false,
            answer_after: Duration::ZERO,
            events: Vec::new(),
        }
    }

    fn number(&mut self, below: u64) -> u64 {
        // Knuth's MMIX generator; its upper bits are good enough.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn hear(&mut self, input: Input<u32>) {
        let was_downgraded = self.machine.status().downgrade.is_some();
        let mut effects = Effects::default();
        self.machine.handle(self.now, input, &mut effects);
        let began = |event: &Event| matches!(event, Event::DowngradeBegan { .. });
        let may_be_early = was_downgraded || effects.events.iter().any(began);
        self.events.append(&mut effects.events);
        if let Some(through) = effects.release_through {
            let through = through as usize;
            assert!(through > self.left && through <= self.packets.len());
            while self.left < through {
                assert!(may_be_early || self.is_committed(self.left));
                self.left += 1;
            }
        }
        for id in effects.send {
            self.sequence += 1 + self.number(3);
            let sequence = self.sequence;
            self.packets[id as usize - 1].sequence = Some(sequence);
            self.hear(Input::Sent { id, sequence });
        }
        if effects.ask {
            self.sequence += 1;
            let sequence = self.sequence;
            self.answer(sequence);
            self.hear(Input::Asked { sequence });
        }
    }

    /// Whether the successor holds the packet's entry, or the packet needs none of its own: then a
    /// packet before it has.
    fn is_committed(&self, place: usize) -> bool {
        let packet = self.packets[place];
        match packet.sequence {
            Some(sequence) => sequence <= self.acknowledged,
            None => self.packets[..place].iter().rev().take(40).any(|before| {
                let is_committed = before.sequence.is_some_and(|of| of <= self.acknowledged);
                let is_same = before.tuples.0 == packet.tuples.0;
                is_committed && (is_same || before.tuples.1 == packet.tuples.1)
            }),
        }
    }

    fn packet(&mut self, answer_after: Duration) {
        self.answer_after = answer_after;
        let original = u32::try_from(self.number(30)).unwrap();
        // Some connections get the translation of another.
        let reply = original - original % 2 * u32::try_from(self.number(2)).unwrap();
        self.packets.push(Known {
            since: self.now,
            tuples: (original, reply),
            sequence: None,
        });
        let id = u32::try_from(self.packets.len()).unwrap();
        self.hear(held(id, original, reply));
        if self.is_present {
            self.answer(self.sequence);
        }
    }

    /// The successor will acknowledge everything up to `sequence`, after what it has to before.
    fn answer(&mut self, sequence: u64) {
        let not_before = self.answers.back().map_or(Time::ZERO, |answer| answer.0);
        let arrives = self.now.after(self.answer_after).max(not_before);
        self.answers.push_back((arrives, sequence));
    }

    /// Lets time pass, with everything that is due on the way.
    fn pass(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            let answer = self.answers.front().map(|answer| answer.0);
            let deadline = self.machine.deadline();
            let due = [answer, deadline].into_iter().flatten().min();
            let Some(due) = due.filter(|&due| due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            if let Some((_, sequence)) = self.answers.pop_front_if(|answer| answer.0 <= self.now) {
                self.acknowledged = sequence;
                self.hear(Input::Acknowledged(sequence));
            } else {
                self.hear(Input::Tick);
                assert_ne!(self.machine.deadline(), deadline, "a deadline that stays");
            }
        }
        self.now = end;
        self.check();
    }

    fn switch_successor(&mut self) {
        self.is_present = !self.is_present;
        self.answers.clear();
        self.acknowledged = 0;
        if self.is_present {
            self.sequence = 0;
        }
        let is_present = self.is_present;
        self.hear(Input::Successor { is_present });
    }

    fn check(&self) {
        let status = self.machine.status();
        assert_eq!(status.waiting, self.packets.len() - self.left);
        assert!(status.waiting <= 40);
        let counted = status.statistics.committed + status.statistics.unheld;
        assert_eq!(counted, self.left as u64 + self.overflowed);
        if let Some(oldest) = self.packets.get(self.left) {
            assert!(self.now.since(oldest.since) <= Limits::default().wait_max);
        }
        // The first downgrade was there from the beginning.
        for (at, event) in self.events.iter().enumerate() {
            assert_eq!(matches!(event, Event::DowngradeEnded { .. }), at % 2 == 0);
        }
    }

    fn run(&mut self) {
        let mut answer_after = Duration::from_micros(200);
        for _ in 0..400 {
            match self.number(40) {
                0 => self.switch_successor(),
                1 => {
                    let packets = self.number(5) + 1;
                    self.overflowed += packets;
                    self.hear(Input::Overflowed { packets });
                }
                2..5 => answer_after = Duration::from_micros(self.number(40_000)),
                5..8 => answer_after = Duration::from_micros(200),
                8..14 => {
                    let duration = Duration::from_micros(self.number(1_500_000));
                    self.pass(duration);
                }
                _ => {
                    self.packet(answer_after);
                    let duration = Duration::from_micros(self.number(2_000));
                    self.pass(duration);
                }
            }
            self.check();
        }
        // All is well again, and known to be so before a packet comes.
        if !self.is_present {
            self.switch_successor();
        }
        self.answer_after = Duration::from_micros(200);
        self.pass(Duration::from_secs(2));
        assert_eq!(self.machine.status().downgrade, None);
        for _ in 0..200 {
            self.packet(Duration::from_micros(200));
            self.pass(Duration::from_millis(10));
        }
        let status = self.machine.status();
        assert_eq!((status.downgrade, status.waiting), (None, 0));
    }
}

#[test]
fn histories_from_seeds_keep_the_promises() {
    let mut total = crate::Statistics::default();
    for seed in 0..500 {
        let mut history = History::new(seed);
        history.run();
        let statistics = history.machine.status().statistics;
        total.committed += statistics.committed;
        total.unheld += statistics.unheld;
        total.clashes += statistics.clashes;
    }
    // The seeds reach what they are for.
    assert!(total.committed > 10_000 && total.unheld > 10_000 && total.clashes > 100);
}
