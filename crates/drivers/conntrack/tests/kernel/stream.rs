//! The whole path between two kernels: source, sender, stream, receiver, sink, while the first
//! kernel's table changes faster than its events can be kept.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver as Incoming, RecvTimeoutError, Sender as Outgoing, channel};
use std::time::{Duration, Instant};

use vnfpool_conntrack::{
    Entry, Family, Injector, ProtocolState, ReadOutcome, Scope, Sink, Source, Status, dump_all,
    enable_events, protocol,
};
use vnfpool_model::Time;
use vnfpool_statesync::class::{Bounds, ClassName, Demand, Level, Offer};
use vnfpool_statesync::wire::Decoder;
use vnfpool_statesync::{
    Effects, Limits, Receiver, ReceiverAction, ReceiverInput, Sender, SenderAction, SenderInput,
    SenderStatus,
};

use crate::inject::{Nat, entry, translate};
use vnfpool_netns::Namespace;

/// Room for some hundred events, so that bursts overrun it.
const EVENT_BYTES: usize = 256 * 1024;
/// The standby looks at its clock so often.
const TICK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// The active's loop as a daemon would run it, without the waiting.
struct Active {
    source: Source,
    sender: Sender,
    decoder: Decoder,
    to_standby: Outgoing<Vec<u8>>,
    from_standby: Incoming<Vec<u8>>,
}

impl Active {
    fn new(to_standby: Outgoing<Vec<u8>>, from_standby: Incoming<Vec<u8>>) -> Self {
        Self::with_limits(to_standby, from_standby, Limits::default())
    }

    fn with_limits(
        to_standby: Outgoing<Vec<u8>>,
        from_standby: Incoming<Vec<u8>>,
        limits: Limits,
    ) -> Self {
        let mut active = Self {
            source: Source::open(Scope::default(), EVENT_BYTES).unwrap(),
            sender: Sender::new(demand(), false, limits),
            decoder: Decoder::new(),
            to_standby,
            from_standby,
        };
        let token = 1;
        let is_active = true;
        active.handle(SenderInput::Epoch { token, is_active });
        let hash_key = [7; 16];
        active.handle(SenderInput::Connected { hash_key });
        active
    }

    fn handle(&mut self, input: SenderInput) {
        let mut effects = Effects::default();
        self.sender.handle(Time(1), input, &mut effects);
        self.act(effects);
    }

    fn act(&mut self, effects: Effects<SenderAction>) {
        if !effects.outgoing.is_empty() {
            self.to_standby.send(effects.outgoing.to_vec()).unwrap();
        }
        for action in effects.actions {
            match action {
                SenderAction::StartScan { generation } => {
                    self.source.start_scan(generation).unwrap();
                }
                SenderAction::AbortScan => self.source.abort_scan(),
                SenderAction::InSync(_)
                | SenderAction::Accepted { .. }
                | SenderAction::Repaired { .. }
                | SenderAction::Proved { .. }
                | SenderAction::Lagging => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// One turn; returns whether all events were read.
    fn turn(&mut self) -> bool {
        let mut inputs = Vec::new();
        let outcome = self.source.read(&mut inputs).unwrap();
        for input in inputs {
            self.handle(input);
        }
        if self.sender.wants_chunk()
            && let Some(chunk) = self.source.read_chunk().unwrap()
        {
            self.handle(chunk);
        }
        let mut effects = Effects::default();
        self.sender.flush(Time(1), &mut effects);
        self.act(effects);
        while let Ok(bytes) = self.from_standby.try_recv() {
            self.decoder.push(&bytes);
            while let Some(frame) = self.decoder.next_frame().unwrap() {
                self.handle(SenderInput::Frame(frame));
            }
        }
        outcome == ReadOutcome::Drained
    }

    fn settle(&mut self) -> SenderStatus {
        let begin = Instant::now();
        loop {
            let drained = self.turn();
            let status = self.sender.status();
            if drained && status.in_sync && status.lag_records == 0 {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "does not settle: {status:?}");
        }
    }
}

fn demand() -> Demand {
    Demand {
        class: ClassName::conntrack(),
        format: 1,
        schema: 1,
        level: Level::Bounded(Bounds::DEFAULT),
    }
}

/// The standby's loop, which stands still where `goes_on` says so; ends when the active is gone.
fn run_standby(
    from_active: &Incoming<Vec<u8>>,
    to_active: &Outgoing<Vec<u8>>,
    goes_on: impl Fn() -> bool,
) {
    let Demand {
        class,
        format,
        schema,
        level,
    } = demand();
    let mut receiver = Receiver::new(Offer {
        class,
        format,
        schema,
        level,
    });
    let mut sink = Sink::open(Scope::default()).unwrap();
    let mut decoder = Decoder::new();
    let mut effects = Effects::default();
    let began = Instant::now();
    let now = || Time::ZERO.after(began.elapsed());
    receiver.handle(now(), ReceiverInput::Connected, &mut effects);
    loop {
        while !goes_on() {
            std::thread::sleep(TICK);
        }
        match from_active.recv_timeout(TICK) {
            Ok(bytes) => decoder.push(&bytes),
            Err(RecvTimeoutError::Timeout) => {
                receiver.handle(now(), ReceiverInput::Tick, &mut effects);
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(frame) = decoder.next_frame().unwrap() {
            receiver.handle(now(), ReceiverInput::Frame(frame), &mut effects);
        }
        loop {
            let mut last = None;
            for action in std::mem::take(&mut effects.actions) {
                assert!(
                    !matches!(action, ReceiverAction::Close { .. }),
                    "{action:?}"
                );
                last = sink.apply(&action).unwrap().or(last);
            }
            sink.flush().unwrap();
            assert!(sink.take_failures().is_empty());
            if let Some(ticket) = last {
                receiver.handle(now(), ReceiverInput::Applied(ticket), &mut effects);
            }
            let Some(chunk) = sink.read_sweep().unwrap() else {
                break;
            };
            receiver.handle(now(), chunk, &mut effects);
        }
        // The active may have what it wanted and be gone.
        let _ = to_active.send(effects.outgoing.split().to_vec());
    }
}

/// Changes the first kernel's table at random, the same in every run.
struct Churn {
    injector: Injector,
    random: u64,
}

impl Churn {
    fn number(&mut self, below: u64) -> u64 {
        // Knuth's MMIX generator; its upper bits are good enough.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn change(&mut self, count: usize) {
        const PROTOCOLS: [u8; 3] = [protocol::TCP, protocol::UDP, protocol::ICMP];
        const NATS: [Nat; 4] = [Nat::None, Nat::Source, Nat::SourcePort, Nat::Both];
        for _ in 0..count {
            let port = u16::try_from(self.number(2000)).unwrap() + 1;
            let number = PROTOCOLS[usize::from(port) % 3];
            let mut connection = entry(false, number, port);
            connection.mark = u32::try_from(self.number(1 << 30)).unwrap();
            let nat = NATS[usize::try_from(self.number(4)).unwrap()];
            match self.number(4) {
                0 => self.injector.delete(connection.key).unwrap(),
                // In place of what is there: the end of one connection and the begin of another.
                1 => {
                    let connection = translate(connection, nat);
                    self.injector.upsert(connection, true).unwrap();
                }
                _ => self.injector.upsert(connection, false).unwrap(),
            }
        }
        assert!(self.injector.flush().unwrap().is_empty());
    }
}

fn table(namespace: &Namespace) -> Vec<Entry> {
    let mut table = namespace.enter(|| dump_all(Family::All).unwrap());
    table.sort_by_key(|entry| entry.key);
    for entry in &mut table {
        // Of the status, what is replicated or follows from it; ages differ.
        entry.status.0 &= Status::ASSURED | Status::SEEN_REPLY | Status::SRC_NAT | Status::DST_NAT;
        entry.timeout_s = 0;
        if let ProtocolState::Tcp(tcp) = &mut entry.state {
            *tcp = tcp.learnt();
        }
    }
    table
}

#[test]
fn the_other_kernel_ends_equal_through_bursts_and_losses() {
    let gateways = [Namespace::new("a"), Namespace::new("b")];
    let (to_standby, from_active) = channel();
    let (to_active, from_standby) = channel();
    // Left over from another life: has to go.
    gateways[1].enter(|| {
        let mut injector = Injector::open().unwrap();
        injector
            .upsert(entry(true, protocol::UDP, 9), true)
            .unwrap();
        injector.flush().unwrap();
    });
    let status = std::thread::scope(|scope| {
        scope.spawn(|| gateways[1].enter(move || run_standby(&from_active, &to_active, || true)));
        gateways[0].enter(|| {
            enable_events().unwrap();
            let mut churn = Churn {
                injector: Injector::open().unwrap(),
                random: 7,
            };
            churn.change(1500);
            let mut active = Active::new(to_standby, from_standby);
            for round in 0..300 {
                churn.change(if round % 50 == 25 { 4000 } else { 10 });
                active.turn();
            }
            let status = active.settle();
            assert_eq!(active.source.malformed(), 0);
            status
        })
    });
    assert!(
        status.overruns > 0 && status.scans > 1 && status.repaired > 0,
        "{status:?}"
    );
    let (ours, theirs) = (table(&gateways[0]), table(&gateways[1]));
    assert!(ours.len() > 500, "{}", ours.len());
    assert_eq!(ours, theirs);
}

/// Goal: two standbys are fed at once, and one that stands still costs the other nothing; when it goes
/// on it is told what it missed. Method: a sender and a source each, as in the agent; the second
/// standby reads nothing while more is changed than a sender keeps for it.
#[test]
fn two_standbys_are_fed_and_a_slow_one_delays_only_itself() {
    const UNACKED_MAX: usize = 64 * 1024;
    let [active, quick, slow] = ["a", "b", "c"].map(Namespace::new);
    let goes_on = AtomicBool::new(true);
    let (to_quick, from_active) = channel();
    let (to_active, from_quick) = channel();
    let (to_slow, queued) = channel();
    let (slow_to_active, from_slow) = channel();
    std::thread::scope(|scope| {
        let standbys = [&quick, &slow];
        scope.spawn(move || {
            standbys[0].enter(move || run_standby(&from_active, &to_active, || true));
        });
        let goes_on_now = || goes_on.load(Ordering::Relaxed);
        scope.spawn(move || {
            standbys[1].enter(move || run_standby(&queued, &slow_to_active, goes_on_now));
        });
        active.enter(|| {
            enable_events().unwrap();
            let mut churn = Churn {
                injector: Injector::open().unwrap(),
                random: 11,
            };
            churn.change(500);
            let limits = Limits {
                unacked_bytes_max: UNACKED_MAX,
                ..Limits::default()
            };
            let mut feeds = [
                Active::with_limits(to_quick, from_quick, limits),
                Active::with_limits(to_slow, from_slow, limits),
            ];
            for feed in &mut feeds {
                feed.settle();
            }
            let standstill = Standstill::begin(&goes_on);
            for _ in 0..300 {
                churn.change(20);
                for feed in &mut feeds {
                    feed.turn();
                }
            }
            let before = feeds[0].settle();
            assert_eq!(table(&active), table(&quick));
            let behind = feeds[1].sender.status();
            assert!(behind.lagged > 0 && !behind.in_sync, "{behind:?}");
            assert!(behind.unacked_bytes < 2 * UNACKED_MAX, "{behind:?}");
            drop(standstill);
            let caught_up = feeds[1].settle();
            assert!(caught_up.scans > behind.scans, "{caught_up:?}");
            assert_eq!(feeds[0].settle().scans, before.scans);
        });
    });
    let ours = table(&active);
    assert!(ours.len() > 300, "{}", ours.len());
    assert_eq!(ours, table(&quick));
    assert_eq!(ours, table(&slow));
}

/// A standby stands still until this is dropped, which it is also when the test fails.
struct Standstill<'a>(&'a AtomicBool);

impl<'a> Standstill<'a> {
    fn begin(goes_on: &'a AtomicBool) -> Self {
        goes_on.store(false, Ordering::Relaxed);
        Self(goes_on)
    }
}

impl Drop for Standstill<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
