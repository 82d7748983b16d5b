//! A standby around the receiver's machine: a table, and a driver that does what the machine says, at once
//! or as its script has it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use vnfpool_model::Time;
use vnfpool_statesync::class::Offer;
use vnfpool_statesync::wire::{Body, Decoder, Refusal};
use vnfpool_statesync::{
    Effects, Item, OUTSTANDING_BYTES_MAX, Receiver, ReceiverAction, ReceiverInput, Ticket,
};

use crate::stream::demand;
use vnfpool_random::Random;

use crate::Script;

/// Bits of the script.
const APPLIES_SLOWLY: u8 = 0;
const REFUSES_ENTRIES: u8 = 1;
const TABLE_IS_DISTURBED: u8 = 2;
const EPOCHS_CHANGE: u8 = 3;
const APPLYING_FAILS: u8 = 4;
const LINK_BREAKS: u8 = 5;
const TIME_PASSES: u8 = 6;

const SWEEP_CHUNK: usize = 3;
const EPOCH: u64 = 5;

/// See the module.
pub(crate) struct Standby {
    script: Script,
    random: Random,
    now: Time,
    machine: Receiver,
    decoder: Decoder,
    table: BTreeMap<Bytes, Bytes>,
    todo: VecDeque<ReceiverAction>,
    /// The number of the sweep under way, and the last key that was read.
    sweep: Option<(u16, Bytes)>,
    epoch: u64,
    acked: u64,
    said: BytesMut,
    refused: Option<Refusal>,
    /// The table was changed by somebody else: what it holds proves nothing.
    is_disturbed: bool,
}

impl Standby {
    /// In epoch 5 with an open link, and a table that holds something already.
    pub(crate) fn new(script: Script) -> Self {
        let (of_before, nothing) = (Bytes::from_static(b"of before"), Bytes::new());
        let demand = demand();
        let mut standby = Self {
            script,
            random: script.random(),
            now: Time(1),
            machine: Receiver::new(Offer {
                class: demand.class,
                format: demand.format,
                schema: demand.schema,
                level: demand.level,
            }),
            decoder: Decoder::new(),
            table: BTreeMap::from([(of_before, nothing)]),
            todo: VecDeque::new(),
            sweep: None,
            epoch: EPOCH,
            acked: 0,
            said: BytesMut::new(),
            refused: None,
            is_disturbed: false,
        };
        standby.tell_epoch(true);
        standby.connect();
        standby
    }

    /// Another link, over which nothing has come yet.
    pub(crate) fn connect(&mut self) {
        self.decoder = Decoder::new();
        self.said.clear();
        self.acked = 0;
        self.refused = None;
        self.feed(ReceiverInput::Connected);
    }

    /// What it said since the last time.
    pub(crate) fn said(&mut self) -> BytesMut {
        self.said.split()
    }

    /// Why it will have nothing more to do with the link; none while it has.
    pub(crate) const fn refused(&self) -> Option<Refusal> {
        self.refused
    }

    /// Takes bytes of the link, and does what follows from them.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
        while self.refused.is_none() {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => self.feed(ReceiverInput::Frame(frame)),
                Ok(None) => break,
                Err(error) => self.feed(ReceiverInput::Malformed(error)),
            }
            self.goes_on();
        }
    }

    pub(crate) fn pass_time(&mut self, time: Duration) {
        self.now = self.now.after(time);
        if self.machine.deadline().is_some_and(|due| due <= self.now) {
            self.feed(ReceiverInput::Tick);
        }
    }

    /// Everything that waits is done.
    pub(crate) fn come_to_rest(&mut self) {
        while !self.todo.is_empty() || self.sweep.is_some() {
            self.apply(usize::MAX);
            self.read_sweep();
        }
        let status = self.machine.status();
        if status.in_sync && !self.is_disturbed {
            assert_eq!(
                self.table.len(),
                status.entries,
                "in sync, and not what was told"
            );
        }
    }

    fn goes_on(&mut self) {
        if self.script.has(TIME_PASSES) {
            let millis = self.random.index(4_000);
            self.pass_time(Duration::from_millis(
                u64::try_from(millis).unwrap_or_default(),
            ));
        }
        if self.script.has(TABLE_IS_DISTURBED) && self.random.once_in(8) {
            self.is_disturbed = true;
            let of_somebody = Bytes::from_static(b"of somebody");
            match self.random.index(3) {
                0 => drop(self.table.pop_first()),
                1 => drop(self.table.insert(of_somebody, Bytes::new())),
                _ => {
                    if let Some(mut last) = self.table.last_entry() {
                        last.insert(of_somebody);
                    }
                }
            }
        }
        if self.script.has(EPOCHS_CHANGE) && self.random.once_in(8) {
            self.epoch += 1;
            let accepts = !self.random.once_in(8);
            self.tell_epoch(accepts);
        }
        if self.script.has(LINK_BREAKS) && self.random.once_in(32) {
            self.feed(ReceiverInput::Disconnected);
            self.connect();
        }
        if self.script.has(APPLIES_SLOWLY) {
            let count = self.random.index(4);
            self.apply(count);
            if self.random.once_in(4) {
                self.read_sweep();
            }
            return;
        }
        self.come_to_rest();
    }

    fn tell_epoch(&mut self, accepts: bool) {
        let token = self.epoch;
        self.feed(ReceiverInput::Epoch { token, accepts });
    }

    /// Carries out at most `count` actions and says so.
    fn apply(&mut self, count: usize) {
        let mut last = None;
        for _ in 0..count {
            let Some(action) = self.todo.pop_front() else {
                break;
            };
            if self.script.has(APPLYING_FAILS) && self.random.once_in(64) {
                self.is_disturbed = true;
                return self.feed(ReceiverInput::ApplyFailed);
            }
            last = self.carry_out(action).or(last);
        }
        if let Some(ticket) = last {
            self.feed(ReceiverInput::Applied(ticket));
        }
    }

    fn carry_out(&mut self, action: ReceiverAction) -> Option<Ticket> {
        match action {
            ReceiverAction::Put { ticket, item, .. } => {
                if self.script.has(REFUSES_ENTRIES) && self.random.once_in(4) {
                    self.is_disturbed = true;
                    self.table.remove(&item.key);
                    self.feed(ReceiverInput::Unapplied { key: item.key });
                } else {
                    self.table.insert(item.key, item.value);
                }
                Some(ticket)
            }
            ReceiverAction::Delete { ticket, key } => {
                self.table.remove(&key);
                Some(ticket)
            }
            ReceiverAction::StartSweep { ticket, sweep } => {
                self.sweep = Some((sweep, Bytes::new()));
                Some(ticket)
            }
            ReceiverAction::Flush { ticket } => Some(ticket),
            _ => None,
        }
    }

    fn read_sweep(&mut self) {
        if !self.todo.is_empty() {
            return;
        }
        let Some((sweep, after)) = self.sweep.take() else {
            return;
        };
        // An empty key may be an entry: the first chunk has it.
        let from = match after.is_empty() {
            true => Bound::Unbounded,
            false => Bound::Excluded(&after),
        };
        let rest = self.table.range::<Bytes, _>((from, Bound::Unbounded));
        let items = rest.take(SWEEP_CHUNK).map(|(key, value)| Item {
            key: key.clone(),
            value: value.clone(),
            ttl_s: 0,
        });
        let items: Vec<Item> = items.collect();
        let is_last = items.len() < SWEEP_CHUNK;
        if let Some(last) = items.last().filter(|_| !is_last) {
            self.sweep = Some((sweep, last.key.clone()));
        }
        self.feed(ReceiverInput::SweepChunk {
            sweep,
            items,
            is_last,
        });
    }

    fn feed(&mut self, input: ReceiverInput) {
        let mut effects = Effects::default();
        self.machine.handle(self.now, input, &mut effects);
        for action in effects.actions {
            match action {
                ReceiverAction::Close { reason } => self.refused = Some(reason),
                ReceiverAction::InSync(_)
                | ReceiverAction::Accepted { .. }
                | ReceiverAction::Diverged { .. } => {}
                other => self.todo.push_back(other),
            }
        }
        let status = self.machine.status();
        assert!(status.applied <= status.received);
        assert!(status.outstanding_bytes <= OUTSTANDING_BYTES_MAX);
        self.check_said(&effects.outgoing);
        self.said.extend_from_slice(&effects.outgoing);
    }

    /// Whole frames, of those that a receiver sends, and no acknowledgement of what did not come.
    fn check_said(&mut self, bytes: &[u8]) {
        let mut decoder = Decoder::new();
        decoder.push(bytes);
        let mut length = 0;
        while let Some(frame) = decoder.next_frame().expect("a receiver says frames") {
            let of_sender = matches!(frame.body, Body::Hello { .. } | Body::Records(_));
            assert!(!of_sender, "a receiver said {:?}", frame.body);
            if frame.body == Body::Ack {
                let received = self.machine.status().received;
                assert!((self.acked..=received).contains(&frame.sequence));
                self.acked = frame.sequence;
            }
            length += frame.encode(&mut BytesMut::new());
        }
        assert_eq!(length, bytes.len(), "a frame is cut off");
    }
}
