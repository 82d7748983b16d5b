//! A source with the kernel's manners, a stream, a standby's table.
//!
//! An entry is a key, an identity that stays for its life (as translation does) and a value. An
//! update at the standby changes the value only, as the kernel does; so an identity that was
//! missed stays wrong until the entry is replaced, and the tests see it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use vnfpool_model::Time;

use crate::class::{Bounds, ClassName, Demand, Level, Offer};
use crate::wire::Decoder;
use crate::{
    Change, Effects, Item, Limits, Receiver, ReceiverAction, ReceiverInput, Sender, SenderAction,
    SenderInput, Ticket,
};

/// Small enough that random runs meet every limit.
pub(super) const LIMITS: Limits = Limits {
    unacked_bytes_max: 1500,
    scan_unacked_bytes_max: 300,
    proof_interval: Duration::from_secs(3600),
    sums_interval: Duration::from_millis(5),
    audit_interval: Duration::from_millis(40),
};

/// No bound on the lag but that of the bytes.
pub(super) fn demand() -> Demand {
    Demand {
        class: ClassName::conntrack(),
        format: 1,
        schema: 1,
        level: Level::Bounded(Bounds {
            lag_ms: 3_600_000,
            entries: 1_000,
        }),
    }
}

pub(super) fn offer() -> Offer {
    let Demand {
        class,
        format,
        schema,
        level,
    } = demand();
    Offer {
        class,
        format,
        schema,
        level,
    }
}

fn sender() -> Sender {
    Sender::new(demand(), false, LIMITS)
}

const EVENT_QUEUE_MAX: usize = 12;
const CHUNK_ENTRIES: usize = 3;

pub(super) type Table = BTreeMap<u8, (u32, u32)>;

#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) table: Table,
    identities: u32,
    events: VecDeque<Change>,
    lost: bool,
    dump: Option<Dump>,
}

/// As the kernel's: each chunk is filled when the one before is read.
#[derive(Debug)]
struct Dump {
    generation: u32,
    ready: Vec<(u8, (u32, u32))>,
    next_key: Option<u8>,
}

impl Source {
    pub(super) fn put(&mut self, key: u8, value: u32) {
        let is_new = !self.table.contains_key(&key);
        let identities = &mut self.identities;
        let entry = self.table.entry(key).or_insert_with(|| {
            *identities += 1;
            (*identities, value)
        });
        entry.1 = value;
        let item = encode(key, *entry);
        self.tell(Change::Put { item, is_new });
    }

    pub(super) fn remove(&mut self, key: u8) {
        if self.table.remove(&key).is_some() {
            let key = key_bytes(key);
            self.tell(Change::Delete { key });
        }
    }

    fn tell(&mut self, change: Change) {
        if self.events.len() < EVENT_QUEUE_MAX {
            self.events.push_back(change);
        } else {
            self.lost = true;
        }
    }

    fn start_dump(&mut self, generation: u32) {
        self.dump = Some(Dump {
            generation,
            ready: Vec::new(),
            next_key: Some(0),
        });
        self.fill();
    }

    /// Returns the chunk that was ready and fills the next one.
    fn read_chunk(&mut self) -> Option<SenderInput> {
        let dump = self.dump.as_mut()?;
        let generation = dump.generation;
        let ready = std::mem::take(&mut dump.ready);
        let is_last = dump.next_key.is_none();
        if is_last {
            self.dump = None;
        } else {
            self.fill();
        }
        let items = ready.into_iter().map(|(key, entry)| encode(key, entry));
        Some(SenderInput::ScanChunk {
            generation,
            items: items.collect(),
            is_last,
        })
    }

    fn fill(&mut self) {
        let Some(dump) = &mut self.dump else { return };
        let Some(from) = dump.next_key else { return };
        let rows = self.table.range(from..).take(CHUNK_ENTRIES);
        dump.ready = rows.map(|(key, entry)| (*key, *entry)).collect();
        dump.next_key = dump
            .ready
            .last()
            .filter(|_| dump.ready.len() == CHUNK_ENTRIES)
            .and_then(|(key, _)| key.checked_add(1));
    }
}

/// Everything, with two directions of a stream between the ends.
#[derive(Debug)]
pub(super) struct World {
    now: Time,
    pub(super) source: Source,
    pub(super) sender: Sender,
    pub(super) sender_actions: Vec<SenderAction>,
    forward: BytesMut,
    backward: BytesMut,
    sender_decoder: Decoder,
    receiver_decoder: Decoder,
    pub(super) receiver: Receiver,
    todo: VecDeque<ReceiverAction>,
    pub(super) copy: Table,
    sweep: Option<Sweep>,
    streams: u8,
    /// Somebody else wrote in the copy: until the next audit it may differ.
    pub(super) is_disturbed: bool,
    /// An entry whose value the standby's kernel cannot hold.
    pub(super) stubborn: Option<u8>,
    pub(super) connected: bool,
    pub(super) epoch: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            now: Time(1),
            source: Source::default(),
            sender: sender(),
            sender_actions: Vec::new(),
            forward: BytesMut::new(),
            backward: BytesMut::new(),
            sender_decoder: Decoder::new(),
            receiver_decoder: Decoder::new(),
            receiver: Receiver::new(offer()),
            todo: VecDeque::new(),
            copy: Table::new(),
            sweep: None,
            streams: 0,
            is_disturbed: false,
            stubborn: None,
            connected: false,
            epoch: 1,
        };
        world.tell_epochs();
        world
    }

    /// A world whose source has the entries of so many keys, told one by one.
    pub(super) fn of(keys: u8) -> Self {
        let mut world = Self::new();
        for key in 0..keys {
            world.source.put(key, 0);
            world.read_events(1);
        }
        world
    }

    pub(super) fn pass_time(&mut self, millis: u64) {
        self.now = self.now.after(Duration::from_millis(millis));
        if self.sender.deadline().is_some_and(|due| due <= self.now) {
            self.send(SenderInput::Tick);
        }
        if self.receiver.deadline().is_some_and(|due| due <= self.now) {
            self.receive(ReceiverInput::Tick);
        }
    }

    /// The standby's kernel loses an entry, and nobody is told.
    pub(super) fn lose(&mut self, key: u8) {
        self.is_disturbed |= self.copy.remove(&key).is_some();
    }

    /// The standby's kernel has an entry of its own.
    pub(super) fn intrude(&mut self, key: u8) {
        self.is_disturbed = true;
        self.copy.entry(key).or_insert((u32::MAX, 0));
    }

    /// Somebody changes an entry of the standby's kernel: what it may change later, or the whole.
    pub(super) fn alter(&mut self, key: u8, value: u32, is_other: bool) {
        if let Some(entry) = self.copy.get_mut(&key) {
            self.is_disturbed = true;
            *entry = (if is_other { u32::MAX } else { entry.0 }, value);
        }
    }

    /// Long enough for every audit, sweep and repair of what `lose`, `intrude` and `alter` did: the
    /// minute in which that has to be found, while the source goes on changing what `busy` gives.
    pub(super) fn audit(&mut self, mut busy: impl FnMut(u32) -> Option<(u8, u32)>) {
        for second in 0..60 {
            if let Some((key, value)) = busy(second) {
                self.source.put(key, value);
            }
            self.pass_time(1_000);
            self.settle();
        }
        self.is_disturbed = false;
    }

    pub(super) fn connect(&mut self) {
        if self.connected {
            return;
        }
        self.connected = true;
        self.sender_decoder = Decoder::new();
        self.receiver_decoder = Decoder::new();
        self.receive(ReceiverInput::Connected);
        self.streams = self.streams.wrapping_add(1);
        let hash_key = [self.streams; 16];
        self.send(SenderInput::Connected { hash_key });
    }

    /// The stream breaks; what is on its way is lost.
    pub(super) fn disconnect(&mut self) {
        self.connected = false;
        self.forward.clear();
        self.backward.clear();
        self.send(SenderInput::Disconnected);
        self.receive(ReceiverInput::Disconnected);
    }

    pub(super) fn restart_sender(&mut self) {
        self.disconnect();
        self.sender = sender();
        self.source.events.clear();
        self.source.lost = false;
        self.source.dump = None;
        self.tell_epochs();
    }

    /// The agent restarts; the kernel's table stays.
    pub(super) fn restart_receiver(&mut self) {
        self.disconnect();
        self.receiver = Receiver::new(offer());
        self.todo.clear();
        self.sweep = None;
        self.tell_epochs();
    }

    /// A newer epoch with the same active.
    pub(super) fn next_epoch(&mut self, tell_receiver: bool) {
        self.epoch += 1;
        let token = self.epoch;
        self.send(SenderInput::Epoch {
            token,
            is_active: true,
        });
        if tell_receiver {
            self.receive(ReceiverInput::Epoch {
                token,
                accepts: true,
            });
        }
    }

    pub(super) fn read_events(&mut self, count: usize) {
        for _ in 0..count {
            // What was told before the loss is thrown away, as the contract demands.
            if std::mem::take(&mut self.source.lost) {
                self.source.events.clear();
                self.send(SenderInput::Overrun);
            }
            let Some(change) = self.source.events.pop_front() else {
                break;
            };
            self.send(SenderInput::Change(change));
        }
        self.flush();
    }

    pub(super) fn read_chunk(&mut self) {
        if self.sender.wants_chunk()
            && let Some(chunk) = self.source.read_chunk()
        {
            self.send(chunk);
        }
    }

    /// Brings at most `bytes` to the receiver.
    pub(super) fn deliver(&mut self, bytes: usize) {
        let bytes = self.forward.split_to(bytes.min(self.forward.len()));
        self.receiver_decoder.push(&bytes);
        while self.connected {
            match self.receiver_decoder.next_frame() {
                Ok(Some(frame)) => self.receive(ReceiverInput::Frame(frame)),
                Ok(None) => return,
                Err(error) => self.receive(ReceiverInput::Malformed(error)),
            }
        }
    }

    /// Brings at most `bytes` to the sender.
    pub(super) fn answer(&mut self, bytes: usize) {
        let bytes = self.backward.split_to(bytes.min(self.backward.len()));
        self.sender_decoder.push(&bytes);
        while self.connected {
            match self.sender_decoder.next_frame() {
                Ok(Some(frame)) => self.send(SenderInput::Frame(frame)),
                Ok(None) => return,
                Err(error) => panic!("the receiver sent nonsense: {error}"),
            }
        }
    }

    fn flush(&mut self) {
        let mut effects = Effects::default();
        self.sender.flush(self.now, &mut effects);
        self.take(effects);
    }

    /// The standby's driver carries out at most `count` actions and says so.
    pub(super) fn apply(&mut self, count: usize) {
        let mut last = None;
        for _ in 0..count {
            let Some(action) = self.todo.pop_front() else {
                break;
            };
            last = self.carry_out(action).or(last);
        }
        if let Some(ticket) = last {
            self.receive(ReceiverInput::Applied(ticket));
        }
    }

    /// The standby's driver reads a chunk of its own table.
    pub(super) fn sweep(&mut self) {
        let Some(sweep) = self.sweep.as_mut().filter(|_| self.todo.is_empty()) else {
            return;
        };
        let number = sweep.number;
        let ready = std::mem::take(&mut sweep.ready);
        let is_last = sweep.next_key.is_none();
        if is_last {
            self.sweep = None;
        } else {
            self.fill_sweep();
        }
        let items = ready.into_iter().map(|(key, entry)| encode(key, entry));
        self.receive(ReceiverInput::SweepChunk {
            sweep: number,
            items: items.collect(),
            is_last,
        });
    }

    fn fill_sweep(&mut self) {
        let Some(sweep) = &mut self.sweep else { return };
        let Some(from) = sweep.next_key else { return };
        sweep.ready = self
            .copy
            .range(from..)
            .take(CHUNK_ENTRIES)
            .map(|(key, entry)| (*key, *entry))
            .collect();
        let full = sweep.ready.len() == CHUNK_ENTRIES;
        let last = sweep.ready.last().filter(|_| full);
        sweep.next_key = last.and_then(|(key, _)| key.checked_add(1));
    }

    pub(super) fn barrier(&mut self, id: u64) {
        self.send(SenderInput::Barrier { id });
    }

    /// Everything that can happen without a fault happens, until nothing does any more.
    pub(super) fn settle(&mut self) {
        for _ in 0..500 {
            self.connect();
            self.read_events(100);
            self.read_chunk();
            self.deliver(usize::MAX);
            self.apply(1000);
            self.sweep();
            self.wait_for_acknowledgement();
            self.answer(usize::MAX);
            if self.is_quiet() && self.sender.status().in_sync {
                return;
            }
        }
        panic!("does not come to rest: {self:?}");
    }

    /// The standby acknowledges the last changes a moment later: that moment passes.
    fn wait_for_acknowledgement(&mut self) {
        let soon = self.now.after(Duration::from_millis(1));
        if self.receiver.deadline().is_some_and(|due| due <= soon) {
            self.pass_time(1);
        }
    }

    /// The claim: in sync, nothing under way, hence equal.
    pub(super) fn check(&self) {
        if self.sender.status().in_sync && self.is_quiet() && !self.is_disturbed {
            assert_eq!(self.source.table, self.copy);
            assert!(self.receiver.status().in_sync);
        }
    }

    fn is_quiet(&self) -> bool {
        let flows = !self.forward.is_empty() || !self.backward.is_empty();
        let works = self.source.dump.is_some() || self.sweep.is_some() || !self.todo.is_empty();
        let waits = !self.source.events.is_empty() || self.source.lost;
        !flows && !works && !waits && self.sender.status().lag_records == 0
    }

    fn tell_epochs(&mut self) {
        let token = self.epoch;
        self.send(SenderInput::Epoch {
            token,
            is_active: true,
        });
        self.receive(ReceiverInput::Epoch {
            token,
            accepts: true,
        });
    }

    fn send(&mut self, input: SenderInput) {
        let mut effects = Effects::default();
        self.sender.handle(self.now, input, &mut effects);
        self.take(effects);
    }

    fn take(&mut self, effects: Effects<SenderAction>) {
        if self.connected {
            self.forward.extend_from_slice(&effects.outgoing);
        }
        for action in effects.actions {
            match action {
                SenderAction::StartScan { generation } => self.source.start_dump(generation),
                SenderAction::AbortScan => self.source.dump = None,
                SenderAction::Close => self.disconnect(),
                other => self.sender_actions.push(other),
            }
        }
    }

    fn receive(&mut self, input: ReceiverInput) {
        let mut effects = Effects::default();
        self.receiver.handle(self.now, input, &mut effects);
        if self.connected {
            self.backward.extend_from_slice(&effects.outgoing);
        }
        for action in effects.actions {
            match action {
                ReceiverAction::Close { reason } => panic!("refused: {reason}"),
                ReceiverAction::InSync(_)
                | ReceiverAction::Accepted { .. }
                | ReceiverAction::Diverged { .. } => {}
                other => self.todo.push_back(other),
            }
        }
    }

    fn carry_out(&mut self, action: ReceiverAction) -> Option<Ticket> {
        match action {
            ReceiverAction::StartSweep { ticket, sweep } => {
                self.sweep = Some(Sweep {
                    number: sweep,
                    ready: Vec::new(),
                    next_key: Some(0),
                });
                self.fill_sweep();
                Some(ticket)
            }
            ReceiverAction::Put {
                ticket,
                is_new,
                item,
            } => {
                let (key, entry) = decode(item);
                let old = self.copy.get(&key).filter(|_| !is_new);
                let identity = old.map_or(entry.0, |old| old.0);
                let can_hold = self.stubborn != Some(key);
                let value = if can_hold { entry.1 } else { u32::MAX };
                self.copy.insert(key, (identity, value));
                Some(ticket)
            }
            ReceiverAction::Delete { ticket, mut key } => {
                self.copy.remove(&key.get_u8());
                Some(ticket)
            }
            ReceiverAction::Flush { ticket } => Some(ticket),
            _ => None,
        }
    }
}

/// The standby's reading of its own table; as the kernel's, each chunk is filled early.
#[derive(Debug)]
struct Sweep {
    number: u16,
    ready: Vec<(u8, (u32, u32))>,
    next_key: Option<u8>,
}

fn key_bytes(key: u8) -> Bytes {
    Bytes::copy_from_slice(&[key])
}

fn encode(key: u8, (identity, value): (u32, u32)) -> Item {
    let mut bytes = identity.to_be_bytes().to_vec();
    bytes.extend(value.to_be_bytes());
    Item {
        key: key_bytes(key),
        value: bytes.into(),
        ttl_s: 0,
    }
}

fn decode(mut item: Item) -> (u8, (u32, u32)) {
    let value = &mut item.value;
    (item.key.get_u8(), (value.get_u32(), value.get_u32()))
}
