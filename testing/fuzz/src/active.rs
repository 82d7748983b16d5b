//! An active around the sender's machine: a table that changes, and a driver that tells of it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use vnfpool_model::Time;
use vnfpool_statesync::class::Level;
use vnfpool_statesync::wire::Frame;
use vnfpool_statesync::{Change, Effects, Item, Limits, Sender, SenderAction, SenderInput};

use crate::stream::{BOUNDS, demand};
use vnfpool_random::Random;

use crate::Script;

/// Bits of the script.
const CHANGES_ARE_LOST: u8 = 0;
const EPOCHS_CHANGE: u8 = 1;
const ROLE_CHANGES: u8 = 2;
const LIMITS_ARE_SMALL: u8 = 3;
const LESS_WILL_DO: u8 = 4;
const CHANGES_ARE_MANY: u8 = 5;
const TIME_JUMPS: u8 = 6;

/// Small enough that a few changes meet them.
const SMALL: Limits = Limits {
    unacked_bytes_max: 1_500,
    scan_unacked_bytes_max: 300,
    proof_interval: Duration::from_millis(20),
    sums_interval: Duration::from_millis(50),
    audit_interval: Duration::from_millis(200),
};

const CHUNK_ENTRIES: usize = 3;
const KEYS: usize = 24;

/// More bytes than the limit can be under way by what one input may send: a frame, a chunk, a message of
/// sums, lists of buckets and of what is gone.
const SLACK_BYTES: usize = 128 * 1024;

/// See the module.
pub(crate) struct Active {
    script: Script,
    random: Random,
    now: Time,
    machine: Sender,
    limits: Limits,
    table: BTreeMap<u8, u64>,
    /// The scan under way and the last key that was read.
    scan: Option<(u32, Option<u8>)>,
    epoch: u64,
    is_active: bool,
    is_connected: bool,
    links: u8,
    barriers: u64,
    /// Sequence at which each question was asked.
    asked: BTreeMap<u64, u64>,
    said: BytesMut,
}

impl Active {
    /// In epoch 5, with a link and some entries.
    pub(crate) fn new(script: Script) -> Self {
        let limits = match script.has(LIMITS_ARE_SMALL) {
            true => SMALL,
            false => Limits::default(),
        };
        let mut active = Self {
            script,
            random: script.random(),
            now: Time(1),
            machine: Sender::new(demand(), script.has(LESS_WILL_DO), limits),
            limits,
            table: (0..8).map(|key| (key, 0)).collect(),
            scan: None,
            epoch: 5,
            is_active: true,
            is_connected: false,
            links: 0,
            barriers: 0,
            asked: BTreeMap::new(),
            said: BytesMut::new(),
        };
        active.tell_epoch();
        active.connect();
        active
    }

    /// Another link; what was said on the one before is lost.
    pub(crate) fn connect(&mut self) {
        self.said.clear();
        self.links = self.links.wrapping_add(1);
        self.is_connected = true;
        let hash_key = [self.links; 16];
        self.feed(SenderInput::Connected { hash_key });
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// What it said since the last time.
    pub(crate) fn said(&mut self) -> BytesMut {
        self.said.split()
    }

    /// Takes what a standby said, and goes on.
    pub(crate) fn hear(&mut self, frame: Frame) {
        self.feed(SenderInput::Frame(frame));
        self.goes_on();
    }

    /// The link is over.
    pub(crate) fn disconnect(&mut self) {
        self.is_connected = false;
        self.feed(SenderInput::Disconnected);
    }

    /// The table changes, time passes, a part of it is read.
    pub(crate) fn goes_on(&mut self) {
        let jump = self.script.has(TIME_JUMPS) && self.random.once_in(8);
        let millis = if jump { 10_000 } else { 60 };
        self.now = self.now.after(Duration::from_millis(millis));
        if self.script.has(EPOCHS_CHANGE) && self.random.once_in(8) {
            self.epoch += 1;
            self.tell_epoch();
        }
        if self.script.has(ROLE_CHANGES) && self.random.once_in(16) {
            self.epoch += 1;
            self.is_active = !self.is_active;
            self.tell_epoch();
        }
        if self.script.has(CHANGES_ARE_LOST) && self.random.once_in(8) {
            self.feed(SenderInput::Overrun);
        }
        let changes = match self.script.has(CHANGES_ARE_MANY) {
            true => 64,
            false => 2,
        };
        for _ in 0..changes {
            self.change();
        }
        let id = self.barriers;
        self.barriers += 1;
        // Before its answer, which may come at once.
        self.asked.insert(id, self.machine.status().sent + 1);
        self.feed(SenderInput::Barrier { id });
        self.read_chunk();
        let up_to = self.now;
        self.feed(SenderInput::CaughtUp { up_to });
        self.feed(SenderInput::Tick);
        self.check_bounds();
    }

    fn change(&mut self) {
        let key = u8::try_from(self.random.index(KEYS)).unwrap_or_default();
        let change = if self.random.once_in(4) {
            if self.table.remove(&key).is_none() {
                return;
            }
            let key = Bytes::copy_from_slice(&[key]);
            Change::Delete { key }
        } else {
            let value = self.random.next();
            let is_new = self.table.insert(key, value).is_none();
            let item = item(key, value);
            Change::Put { item, is_new }
        };
        self.feed(SenderInput::Change(change));
    }

    fn read_chunk(&mut self) {
        if !self.machine.wants_chunk() {
            return;
        }
        let Some((generation, after)) = self.scan.take() else {
            return;
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self
            .table
            .range((from, Bound::Unbounded))
            .take(CHUNK_ENTRIES);
        let rows: Vec<_> = rest.map(|(key, value)| (*key, *value)).collect();
        let is_last = rows.len() < CHUNK_ENTRIES;
        if let Some((key, _)) = rows.last().filter(|_| !is_last) {
            self.scan = Some((generation, Some(*key)));
        }
        let items = rows.iter().map(|(key, value)| item(*key, *value)).collect();
        self.feed(SenderInput::ScanChunk {
            generation,
            items,
            is_last,
        });
    }

    fn tell_epoch(&mut self) {
        let (token, is_active) = (self.epoch, self.is_active);
        self.feed(SenderInput::Epoch { token, is_active });
    }

    fn feed(&mut self, input: SenderInput) {
        let mut effects = Effects::default();
        self.machine.handle(self.now, input, &mut effects);
        self.said.extend_from_slice(&effects.outgoing);
        for action in effects.actions {
            self.carry_out(&action);
        }
        self.check();
    }

    fn carry_out(&mut self, action: &SenderAction) {
        match *action {
            SenderAction::StartScan { generation } => self.scan = Some((generation, None)),
            SenderAction::AbortScan => self.scan = None,
            SenderAction::Close => {
                self.is_connected = false;
                self.said.clear();
            }
            SenderAction::Accepted { level } => assert!(level <= demand().level),
            SenderAction::Reached { id } => {
                let asked_at = self.asked.remove(&id).expect("a question has one answer");
                let acked = self.machine.status().acked;
                assert!(acked >= asked_at, "{acked} of {asked_at} is acknowledged");
            }
            SenderAction::Unreachable { id } => {
                self.asked.remove(&id).expect("a question has one answer");
            }
            SenderAction::Proved { as_of } => assert!(as_of <= self.now),
            _ => {}
        }
    }

    /// Whatever a standby says.
    fn check(&self) {
        let status = self.machine.status();
        assert!(status.acked <= status.sent);
        assert!(status.unacked_bytes <= self.limits.unacked_bytes_max + SLACK_BYTES);
        assert!(status.entries <= KEYS + 8, "more than the table ever had");
        assert!(!status.in_sync || (self.is_active && self.is_connected));
    }

    /// What is judged once for many changes.
    fn check_bounds(&self) {
        let status = self.machine.status();
        let has_bounds = matches!(status.level, Some(Level::Bounded(_) | Level::Commit(_)));
        if status.in_sync && has_bounds {
            assert!(status.lag_records <= u64::from(BOUNDS.entries));
        }
    }
}

fn item(key: u8, value: u64) -> Item {
    Item {
        key: Bytes::copy_from_slice(&[key]),
        value: Bytes::copy_from_slice(&value.to_be_bytes()),
        ttl_s: u32::from(key) * 10,
    }
}
