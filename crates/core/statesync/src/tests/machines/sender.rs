//! The active alone.

use super::*;

/// A sender of the active that demands `level`, connected at time 1.
fn sender_of(level: Level, accepts_less: bool) -> (Sender, Effects<SenderAction>) {
    let demand = Demand { level, ..demand() };
    let mut sender = Sender::new(demand, accepts_less, Limits::default());
    let mut out = Effects::default();
    let epoch = SenderInput::Epoch {
        token: 5,
        is_active: true,
    };
    sender.handle(Time(1), epoch, &mut out);
    let hash_key = [1; 16];
    sender.handle(Time(1), SenderInput::Connected { hash_key }, &mut out);
    (sender, out)
}

pub(super) fn active_sender() -> (Sender, Effects<SenderAction>) {
    sender_of(Level::Bounded(BOUNDS), false)
}

fn said(sequence: u64, body: Body) -> SenderInput {
    SenderInput::Frame(frame(5, 1, sequence, body))
}

fn ack(sequence: u64) -> SenderInput {
    said(sequence, Body::Ack)
}

fn accepted(level: Level) -> SenderInput {
    said(0, Body::Accepted { level })
}

/// A sender that is in sync at time 1 with an empty table.
fn synced_sender() -> Sender {
    let (mut sender, mut out) = active_sender();
    sender.handle(Time(1), accepted(Level::Bounded(BOUNDS)), &mut out);
    let last = SenderInput::ScanChunk {
        generation: 1,
        items: Vec::new(),
        is_last: true,
    };
    sender.handle(Time(1), last, &mut out);
    sender.handle(Time(1), ack(2), &mut out);
    assert!(!sender.status().in_sync, "the copy may hold something else");
    sender.handle(Time(1), said(0, Body::Swept), &mut out);
    assert!(out.actions.contains(&SenderAction::InSync(true)));
    sender
}

/// A change, sent at once.
fn change(sender: &mut Sender, now: Time, out: &mut Effects<SenderAction>) {
    // Another value each time: what is told already is not told again.
    let value = sender.status().changes.to_be_bytes().to_vec().into();
    let change = Change::Put {
        item: Item { value, ..item() },
        is_new: false,
    };
    sender.handle(now, SenderInput::Change(change), out);
    sender.flush(now, out);
}

#[test]
fn acknowledging_what_was_not_sent_closes_the_stream() {
    for sequence in [3, u64::MAX] {
        let (mut sender, mut out) = active_sender();
        sender.handle(Time(1), accepted(Level::Bounded(BOUNDS)), &mut out);
        sender.handle(Time(1), ack(sequence), &mut out);
        assert!(out.actions.contains(&SenderAction::PeerMisbehaved));
        assert!(out.actions.contains(&SenderAction::Close));
        assert!(out.outgoing.is_empty());
    }
}

/// Goal: less than demanded is refused or taken as the pool says, and more than demanded is
/// nonsense; without an acceptance nothing is sent.
#[test]
fn a_standby_that_can_do_less_is_taken_only_where_that_will_do() {
    for (level, accepts_less, goes_on) in [
        (Level::Bounded(BOUNDS), false, true),
        (Level::Eventual, true, true),
        (Level::Eventual, false, false),
        (Level::None, true, false),
        (Level::Commit(BOUNDS), true, false),
    ] {
        let (mut sender, mut out) = sender_of(Level::Bounded(BOUNDS), accepts_less);
        assert!(matches!(
            frames(&out.outgoing)[..],
            [Frame {
                body: Body::Hello { .. },
                ..
            }]
        ));
        change(&mut sender, Time(1), &mut out);
        assert_eq!(frames(&out.outgoing).len(), 1, "it may not understand us");
        sender.handle(Time(1), accepted(level), &mut out);
        let begun = out
            .actions
            .contains(&SenderAction::StartScan { generation: 1 });
        assert_eq!(begun, goes_on, "{level}");
        assert_eq!(
            out.actions.contains(&SenderAction::Close),
            !goes_on,
            "{level}"
        );
    }
}

/// Goal: a standby cannot talk the pool out of its bounds. Method: it accepts the level with greater ones, and
/// lags by more than those that were demanded.
#[test]
fn the_bounds_of_a_level_are_the_ones_demanded() {
    let greater = Bounds {
        lag_ms: u32::MAX,
        entries: u32::MAX,
    };
    let (mut sender, mut out) = active_sender();
    sender.handle(Time(1), accepted(Level::Bounded(greater)), &mut out);
    let level = Level::Bounded(BOUNDS);
    assert!(out.actions.contains(&SenderAction::Accepted { level }));
    assert_eq!(sender.status().level, Some(level));
    sender.handle(
        Time(1),
        SenderInput::ScanChunk {
            generation: 1,
            items: Vec::new(),
            is_last: true,
        },
        &mut out,
    );
    sender.handle(Time(1), ack(2), &mut out);
    sender.handle(Time(1), said(0, Body::Swept), &mut out);
    for _ in 0..=BOUNDS.entries {
        assert!(sender.status().in_sync);
        change(&mut sender, Time(10), &mut out);
    }
    assert!(!sender.status().in_sync);
}

#[test]
fn a_sender_that_is_not_active_sends_nothing_and_stops_when_it_ceases_to_be() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    let other = SenderInput::Epoch {
        token: 6,
        is_active: false,
    };
    sender.handle(Time(1), other, &mut out);
    assert_eq!(
        out.actions,
        [SenderAction::Close, SenderAction::InSync(false)]
    );
    let mut out = Effects::default();
    change(&mut sender, Time(1), &mut out);
    let hash_key = [1; 16];
    sender.handle(Time(1), SenderInput::Connected { hash_key }, &mut out);
    assert_eq!(out.actions, [SenderAction::Close]);
    assert!(out.outgoing.is_empty());
}

/// Goal: state that must not be sent is not, not even its name.
#[test]
fn a_class_of_level_none_opens_no_stream() {
    let (mut sender, mut out) = sender_of(Level::None, true);
    change(&mut sender, Time(1), &mut out);
    assert_eq!(out.actions, [SenderAction::Close]);
    assert!(out.outgoing.is_empty());
}

#[test]
fn silence_of_the_standby_ends_being_in_sync_at_the_deadline() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    change(&mut sender, Time(10), &mut out);
    assert!(sender.status().in_sync);
    // Marks fall due all the time and prove nothing.
    let mut due = sender.deadline().unwrap();
    let late = Time(10).after(BOUNDS.lag());
    while due <= late {
        sender.handle(due, SenderInput::Tick, &mut out);
        assert!(sender.status().in_sync);
        due = sender.deadline().unwrap();
    }
    out.actions.clear();
    sender.handle(due, SenderInput::Tick, &mut out);
    assert_eq!(out.actions, [SenderAction::InSync(false)]);
    let all = sender.status().sent;
    sender.handle(due, ack(all), &mut out);
    assert!(sender.status().in_sync);
}

#[test]
fn too_many_changes_under_way_end_being_in_sync_until_half_are_confirmed() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    for _ in 0..BOUNDS.entries {
        change(&mut sender, Time(10), &mut out);
    }
    assert!(sender.status().in_sync);
    change(&mut sender, Time(10), &mut out);
    assert!(!sender.status().in_sync);
    sender.handle(Time(10), ack(3), &mut out);
    assert!(!sender.status().in_sync);
    sender.handle(Time(10), ack(3 + u64::from(BOUNDS.entries) / 2), &mut out);
    assert!(sender.status().in_sync);
}

#[test]
fn the_lag_is_the_age_of_the_oldest_frame_under_way() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    let lag = |sender: &Sender, now| sender.status().lag(Time(now)).as_nanos();
    assert_eq!(lag(&sender, 1_000), 0);
    change(&mut sender, Time(1_000), &mut out);
    change(&mut sender, Time(1_500), &mut out);
    assert_eq!(lag(&sender, 2_000), 1_000);
    sender.handle(Time(2_000), ack(3), &mut out);
    assert_eq!(lag(&sender, 2_000), 500);
    sender.handle(Time(3_000), ack(4), &mut out);
    assert_eq!(lag(&sender, 9_000), 0, "however long ago the last one was");
}

/// Goal: an idle stream proves the copy, and one that is silent proves nothing. Method: marks that
/// are answered, then one that is not.
#[test]
fn an_idle_stream_proves_the_copy_and_a_silent_one_does_not() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    let mut proved = Vec::new();
    for sequence in 3..6 {
        let due = sender.deadline().unwrap();
        sender.handle(due, SenderInput::Tick, &mut out);
        assert!(!out.outgoing.split().is_empty());
        assert_eq!(out.actions, [], "nothing is proved yet");
        let answered = due.after(Duration::from_millis(1));
        sender.handle(answered, ack(sequence), &mut out);
        let as_of = due;
        assert_eq!(
            std::mem::take(&mut out.actions),
            [SenderAction::Proved { as_of }]
        );
        proved.push(as_of);
    }
    let interval = Limits::default().proof_interval;
    assert_eq!(proved[2].since(proved[0]), interval * 2);
    let due = sender.deadline().unwrap();
    sender.handle(due, SenderInput::Tick, &mut out);
    for tenths in 1..30 {
        let now = due.after(Duration::from_millis(100) * tenths);
        sender.handle(now, SenderInput::Tick, &mut out);
        let proof = |action: &SenderAction| matches!(action, SenderAction::Proved { .. });
        assert!(!out.actions.iter().any(proof));
    }
}

/// Goal: a copy learns in time that its original lives on, and only then; it never has less than half
/// of its original's time for long.
#[test]
fn a_scan_prolongs_what_would_expire_early() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    let mortal = |key: &'static [u8], ttl_s| Item {
        key: Bytes::from_static(key),
        ttl_s,
        ..item()
    };
    for item in [
        mortal(b"short", 30),
        mortal(b"long", 500),
        mortal(b"busy", 80),
        mortal(b"idle", 30),
    ] {
        let is_new = true;
        sender.handle(
            Time(1),
            SenderInput::Change(Change::Put { item, is_new }),
            &mut out,
        );
    }
    sender.flush(Time(1), &mut out);
    out.outgoing.clear();
    let begin = Limits::default().audit_interval.as_secs() + 2;
    let now = Time(1_000_000_000 * begin);
    let all = sender.status().sent;
    sender.handle(now, ack(all), &mut out);
    sender.handle(now, SenderInput::Tick, &mut out);
    assert!(sender.wants_chunk());
    let left = u32::try_from(30 - begin).unwrap();
    let chunk = SenderInput::ScanChunk {
        generation: 2,
        items: vec![
            mortal(b"short", 30),
            mortal(b"long", 500),
            // What was told is less than half of it by now.
            mortal(b"busy", 150),
            mortal(b"idle", left),
        ],
        is_last: true,
    };
    out.outgoing.clear();
    sender.handle(now, chunk, &mut out);
    let mut put = Vec::new();
    for frame in frames(&out.outgoing) {
        let Body::Records(records) = frame.body else {
            continue;
        };
        for record in records {
            if let Record::Put {
                item,
                is_new: false,
            } = record.unwrap()
            {
                put.push(item);
            }
        }
    }
    assert_eq!(put, [mortal(b"short", 30), mortal(b"busy", 150)]);
    assert_eq!(sender.status().repaired, 0, "nothing was wrong");
}

#[test]
fn a_loss_at_the_source_ends_being_in_sync_until_a_scan_without_loss() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    sender.handle(Time(1), SenderInput::Overrun, &mut out);
    sender.handle(Time(1), SenderInput::Overrun, &mut out);
    let chunk = |generation| SenderInput::ScanChunk {
        generation,
        items: Vec::new(),
        is_last: true,
    };
    let swept = |generation| SenderInput::Frame(frame(5, generation, 0, Body::Swept));
    // The first is spoilt by the second loss; its end is not announced.
    sender.handle(Time(1), chunk(2), &mut out);
    let all = sender.status().sent;
    sender.handle(Time(1), ack(all), &mut out);
    sender.handle(Time(1), swept(2), &mut out);
    assert!(!sender.status().in_sync);
    sender.handle(Time(1), chunk(3), &mut out);
    let all = sender.status().sent;
    sender.handle(Time(1), swept(3), &mut out);
    sender.handle(Time(1), ack(all), &mut out);
    assert!(sender.status().in_sync);
    assert!(out.actions.contains(&SenderAction::Repaired {
        put: 0,
        forgotten: 0
    }));
}

/// Goal: what is put again with the value that it had, while an audit runs, is not taken for gone.
#[test]
fn an_audit_keeps_what_is_put_again() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    let put = || {
        SenderInput::Change(Change::Put {
            item: item(),
            is_new: false,
        })
    };
    sender.handle(Time(2), put(), &mut out);
    sender.flush(Time(2), &mut out);
    let sent = sender.status().sent;
    sender.handle(Time(2), ack(sent), &mut out);
    out = Effects::default();
    let later = Time(2).after(Duration::from_secs(30));
    sender.handle(later, SenderInput::Tick, &mut out);
    let generation = sender.status().generation;
    assert!(
        out.actions
            .contains(&SenderAction::StartScan { generation })
    );
    sender.handle(later, put(), &mut out);
    sender.handle(later, SenderInput::Barrier { id: 7 }, &mut out);
    let chunk = SenderInput::ScanChunk {
        generation,
        items: vec![item()],
        is_last: true,
    };
    sender.handle(later, chunk, &mut out);
    sender.flush(later, &mut out);
    let mut told = Vec::new();
    for frame in frames(&out.outgoing) {
        if let Body::Records(records) = frame.body {
            told.extend(records.map(|one| one.unwrap()));
        }
    }
    assert_eq!(sender.status().entries, 1, "{told:?}");
}

/// Goal: nobody is told that the standby has what its table refused; the rest goes on, and more of it than the
/// pool allows to be missing puts the standby out of sync.
#[test]
fn a_refused_entry_is_not_held() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    change(&mut sender, Time(2), &mut out);
    sender.handle(Time(2), SenderInput::Barrier { id: 7 }, &mut out);
    sender.flush(Time(2), &mut out);
    let lacks = |entries, refused| said(0, Body::Lacks { entries, refused });
    sender.handle(Time(3), lacks(1, 1), &mut out);
    sender.handle(Time(3), ack(sender.status().sent), &mut out);
    assert!(out.actions.contains(&SenderAction::Unreachable { id: 7 }));
    assert!(!out.actions.contains(&SenderAction::Reached { id: 7 }));
    assert!(out.actions.contains(&SenderAction::Lacking { entries: 1 }));
    assert!(sender.status().in_sync, "within the bounds");
    sender.handle(Time(4), SenderInput::Barrier { id: 8 }, &mut out);
    sender.flush(Time(4), &mut out);
    sender.handle(Time(5), ack(sender.status().sent), &mut out);
    assert!(out.actions.contains(&SenderAction::Reached { id: 8 }));
    sender.handle(Time(6), lacks(BOUNDS.entries + 1, 100), &mut out);
    assert!(!sender.status().in_sync);
    sender.handle(Time(7), lacks(0, 0), &mut out);
    assert!(sender.status().in_sync);
}

/// Goal: after a loss that is not repaired a mark promises nothing newer than before the loss.
#[test]
fn a_loss_stops_the_mark() {
    let mut sender = synced_sender();
    let caught_up = |at| SenderInput::CaughtUp { up_to: at };
    let mut behind = |at: Time, input: SenderInput| {
        let mut out = Effects::default();
        sender.handle(at, input, &mut out);
        let records = frames(&out.outgoing)
            .into_iter()
            .flat_map(|frame| match frame.body {
                Body::Records(records) => records.map(Result::unwrap).collect::<Vec<_>>(),
                _ => Vec::new(),
            });
        let marks = records.filter_map(|record| match record {
            Record::Mark(mark) => Some(mark.behind_us),
            _ => None,
        });
        marks.last()
    };
    let at = |millis| Time(1).after(Duration::from_millis(millis));
    assert_eq!(behind(at(100), caught_up(at(100))), Some(0));
    assert_eq!(behind(at(200), SenderInput::Overrun), Some(100_000));
    behind(at(201), caught_up(at(201)));
    assert_eq!(behind(at(300), SenderInput::Tick), Some(200_000));
}

/// What a sender told in the ten minutes after its standby wanted something anew: sums of buckets, how
/// many buckets each scan sent whole, entries.
struct SlowReading {
    sums: usize,
    wholes: Vec<usize>,
    told_anew: usize,
}

/// Every scan takes 7 s; the standby says `wants` after a minute.
fn slow_reading(wants: Body) -> SlowReading {
    const STEP: Duration = Duration::from_millis(10);
    let mut sender = synced_sender();
    let mut seen = SlowReading {
        sums: 0,
        wholes: Vec::new(),
        told_anew: 0,
    };
    let mut now = Time(1);
    let is_new = true;
    let told = Change::Put {
        item: item(),
        is_new,
    };
    sender.handle(now, SenderInput::Change(told), &mut Effects::default());
    let mut wants = Some(wants);
    let mut reading = None;
    while now < Time::ZERO.after(Duration::from_secs(660)) {
        now = now.after(STEP);
        let mut inputs = vec![SenderInput::Tick, ack(sender.status().sent)];
        if let Some((_, generation)) = reading.take_if(|(done, _)| *done <= now) {
            inputs.push(SenderInput::ScanChunk {
                generation,
                items: vec![item()],
                is_last: true,
            });
        }
        if now > Time::ZERO.after(Duration::from_secs(60)) && reading.is_none() {
            inputs.extend(wants.take().map(|wants| said(0, wants)));
        }
        let mut out = Effects::default();
        for input in inputs {
            sender.handle(now, input, &mut out);
        }
        sender.flush(now, &mut out);
        for action in &out.actions {
            if let SenderAction::StartScan { generation } = action {
                reading = Some((now.after(Duration::from_secs(7)), *generation));
            }
        }
        if wants.is_some() {
            continue;
        }
        for record in frames(&out.outgoing)
            .into_iter()
            .flat_map(|frame| match frame.body {
                Body::Records(records) => records.collect(),
                _ => Vec::new(),
            })
        {
            match record.unwrap() {
                Record::Begin { whole, .. } => seen.wholes.push(whole.unwrap().len()),
                Record::Sums { .. } => seen.sums += 1,
                Record::Put { .. } => seen.told_anew += 1,
                _ => {}
            }
        }
    }
    seen
}

/// Goal: however long it takes to read the table, what the standby wants is told anew, by the next scan,
/// and sums go on.
#[test]
fn a_repair_is_not_starved_by_audits() {
    let key = Hashes::new(&[1; 16]).of(&item().key);
    let buckets: Vec<u16> = (0..BUCKETS).collect();
    let all = buckets.len();
    for (wants, first_whole) in [
        (Body::Differs { buckets }, all),
        (Body::Wants { keys: vec![key] }, 0),
    ] {
        let seen = slow_reading(wants);
        assert_eq!(seen.wholes[0], first_whole);
        assert!(seen.wholes[1..].iter().all(|whole| *whole == 0));
        assert_eq!(seen.told_anew, 1);
        assert!(seen.sums > 100, "{}", seen.sums);
    }
}

/// Goal: entries that the standby is known not to hold count against the level, until they are told
/// anew; a standby that asks for what nobody has told changes nothing.
#[test]
fn what_the_standby_wants_counts_against_the_level() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    let hashes = Hashes::new(&[1; 16]);
    let items: Vec<Item> = (0..=BOUNDS.entries)
        .map(|number| Item {
            key: number.to_be_bytes().to_vec().into(),
            ..item()
        })
        .collect();
    for item in items.clone() {
        let is_new = true;
        let change = Change::Put { item, is_new };
        sender.handle(Time(2), SenderInput::Change(change), &mut out);
        sender.flush(Time(2), &mut out);
        sender.handle(Time(2), ack(sender.status().sent), &mut out);
    }
    let unknown = Body::Wants {
        keys: (0..1_000).collect(),
    };
    sender.handle(Time(3), said(0, unknown), &mut out);
    assert!(sender.status().in_sync);
    let keys: Vec<u64> = items.iter().map(|item| hashes.of(&item.key)).collect();
    let wants = said(0, Body::Wants { keys });
    sender.handle(Time(3), wants.clone(), &mut out);
    sender.handle(Time(3), wants, &mut out);
    let status = sender.status();
    assert!(!status.in_sync && status.wanted == items.len() as u64);
    let generation = status.generation;
    let is_last = true;
    let chunk = SenderInput::ScanChunk {
        generation,
        items,
        is_last,
    };
    sender.handle(Time(4), chunk, &mut out);
    sender.handle(Time(4), ack(sender.status().sent), &mut out);
    sender.flush(Time(4), &mut out);
    sender.handle(Time(4), ack(sender.status().sent), &mut out);
    assert!(sender.status().in_sync);
    let is_told = |action: &&SenderAction| matches!(action, SenderAction::Diverged { .. });
    assert_eq!(out.actions.iter().filter(is_told).count(), 1);
}
