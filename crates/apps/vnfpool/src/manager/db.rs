//! The manager's records in the store: their keys, layouts and the way to the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use vnfpool_model::{ElementId, PoolHandle, SlotId, SlotName};
use vnfpool_northbound::AuditEntry;
use vnfpool_store::{
    Batch, Change, Expect, Health, RecordError, RedbStore, Store, StoreError, StoreThread,
    SubmitError, Version, decode_record, encode_record,
};
use vnfpool_succession::manager::Stored;
use vnfpool_transport::token::{TokenId, TokenRecord};
use vnfpool_wire::datagram::NodeId;

use super::pulse::{Command, Pulse, Writing};
use super::registry::{ElementRecord, Numbers, PathsRecord, PoolRecord, SlotRecord};
use super::shared::lock;

/// The layout of every record. The store of another layout is refused: there has been no release
/// whose stores would have to be read.
const LAYOUT: u8 = 3;

/// Completions for slot records carry this bit.
const SLOT_BIT: u64 = 1 << 63;

/// Below the bit: the number of the writing, which has 31 bits, and the slot.
fn token_of(writing: Writing) -> u64 {
    SLOT_BIT | u64::from(writing.number) << 32 | u64::from(writing.slot.0)
}

/// The writing that a completion is about; none when it is about something else.
fn writing_of(token: u64) -> Option<Writing> {
    let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    (token & SLOT_BIT != 0).then(|| Writing {
        slot: SlotId(low(token)),
        number: low((token & !SLOT_BIT) >> 32),
    })
}

const BOOT: &str = "meta/boot";
const NUMBERS: &str = "meta/numbers";
const POOLS: &str = "pool/";
const ELEMENTS: &str = "element/";
const PATHS: &str = "paths/";
const TOKENS: &str = "token/";
const SLOTS: &str = "slot/";
/// Beside a slot's record: the next one, prepared for a vote to come.
const PREPARED: &str = "prepared/";
const CLOSING: &str = "closing/";
const DEPARTED: &str = "departed/";

/// Why the durable part could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DbError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's queue is full or gone.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A record is of a newer layout, or damaged.
    #[error("the record '{key}' cannot be read: it may be of a newer version of vnfpool")]
    Record {
        key: String,
        #[source]
        source: RecordError,
    },
    /// The answer was lost because the store's thread ended.
    #[error("the store stopped before it answered")]
    Stopped,
}

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Result<Version, StoreError>>>>>;

/// The store, with its thread.
#[derive(Debug)]
pub(crate) struct Db {
    store: Arc<RedbStore>,
    thread: Arc<StoreThread>,
    waiting: Waiting,
    next: AtomicU64,
}

/// Changes that go to the disk together.
#[derive(Debug, Default)]
pub(crate) struct DbChange(Batch);

/// An audit entry as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Audited {
    unix_ms: i64,
    actor: String,
    action: String,
    pool: Option<PoolHandle>,
    slot: Option<SlotName>,
    text: String,
    reason: String,
}

impl Db {
    /// Opens the store in `dir`. Slot records that arrive on disk are told to `pulse`.
    pub(crate) fn open(dir: &Path, pulse: Pulse) -> Result<Self, anyhow::Error> {
        let store = Arc::new(RedbStore::open(dir)?);
        let waiting = Waiting::default();
        let waiters = Arc::clone(&waiting);
        let completed = move |token: u64, result: Result<Version, StoreError>| {
            if let Some(writing) = writing_of(token) {
                return pulse.send(match result {
                    Ok(_) => Command::Persisted(writing),
                    Err(error) => {
                        let slot = writing.slot;
                        tracing::error!(%slot, %error, "a slot's record is not on disk yet");
                        Command::PersistFailed(writing)
                    }
                });
            }
            match lock(&waiters).remove(&token) {
                // Whoever waited may have given up.
                Some(waiter) => drop(waiter.send(result)),
                None => {
                    if let Err(error) = result {
                        tracing::warn!(%error, "an audit entry or a note is not on disk");
                    }
                }
            }
        };
        let thread = StoreThread::spawn(store.clone(), Box::new(completed))?;
        Ok(Self {
            store,
            thread: Arc::new(thread),
            waiting,
            next: AtomicU64::new(1),
        })
    }

    /// Begins a set of changes.
    pub(crate) fn change(&self) -> DbChange {
        DbChange::default()
    }

    /// Brings the changes to the disk, all or none.
    pub(crate) async fn commit(&self, change: DbChange) -> Result<(), DbError> {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).insert(token, sender);
        if let Err(error) = self.thread.submit(token, change.0) {
            lock(&self.waiting).remove(&token);
            return Err(error.into());
        }
        receiver.await.map_err(|_| DbError::Stopped)??;
        Ok(())
    }

    /// A function that sends slot records to the disk, for the real-time thread.
    pub(crate) fn persister(
        &self,
        pulse: Pulse,
        leases_ms: Arc<Mutex<BTreeMap<SlotId, u32>>>,
    ) -> super::pulse::Persist {
        let thread = Arc::clone(&self.thread);
        Box::new(move |writing, stored| {
            let slot = writing.slot;
            let lease_ms = lock(&leases_ms).get(&slot).copied().unwrap_or(0);
            let mut change = DbChange::default();
            let submitted = change.put_stored(slot, stored, lease_ms).is_ok()
                && thread.submit(token_of(writing), change.0).is_ok();
            if !submitted {
                pulse.send(Command::PersistFailed(writing));
            }
        })
    }

    /// Counts this boot, on disk (R7: tokens of an earlier boot are void).
    pub(crate) fn count_boot(&self) -> Result<u64, DbError> {
        let boot = self.read::<u64>(BOOT)?.unwrap_or(0) + 1;
        let change = Change::put(BOOT, Expect::Any, encode(BOOT, &boot)?);
        for result in self.store.commit(&[Batch::of(vec![change])]) {
            result?;
        }
        Ok(boot)
    }

    /// The next free numbers.
    pub(crate) fn numbers(&self) -> Result<Numbers, DbError> {
        Ok(self.read(NUMBERS)?.unwrap_or_default())
    }

    /// All pools.
    pub(crate) fn pools(&self) -> Result<Vec<PoolRecord>, DbError> {
        Ok(self
            .scan(POOLS)?
            .into_iter()
            .map(|(_, record)| record)
            .collect())
    }

    /// Whether an element has not registered since its pool was deleted.
    pub(crate) fn departed(&self, pool: &PoolHandle, id: &ElementId) -> Result<bool, DbError> {
        let read = self.read::<bool>(&format!("{DEPARTED}{pool}/{id}"))?;
        Ok(read.unwrap_or(false))
    }

    /// The pools that are being deleted, and who has to close.
    pub(crate) fn closing(&self) -> Result<Vec<(PoolHandle, BTreeSet<NodeId>)>, DbError> {
        let read = self.scan::<Vec<u32>>(CLOSING)?.into_iter();
        Ok(read
            .filter_map(|(key, members)| {
                let pool = key.strip_prefix(CLOSING)?.parse().ok()?;
                Some((pool, members.into_iter().map(NodeId).collect()))
            })
            .collect())
    }

    /// All elements: pool, name, number.
    pub(crate) fn elements(&self) -> Result<Vec<(PoolHandle, ElementId, ElementRecord)>, DbError> {
        let read = self.scan::<ElementRecord>(ELEMENTS)?.into_iter();
        Ok(read
            .filter_map(|(key, record)| {
                let (pool, id) = key.strip_prefix(ELEMENTS)?.split_once('/')?;
                Some((pool.parse().ok()?, id.parse().ok()?, record))
            })
            .collect())
    }

    /// Where an element was when it registered last.
    pub(crate) fn paths(&self, pool: &PoolHandle, id: &ElementId) -> Result<PathsRecord, DbError> {
        Ok(self
            .read(&format!("{PATHS}{pool}/{id}"))?
            .unwrap_or_default())
    }

    /// Notes where an element is; a failure is logged, nobody waits.
    pub(crate) fn note_paths(&self, pool: &PoolHandle, id: &ElementId, record: &PathsRecord) {
        let mut change = self.change();
        let put = change.put(format!("{PATHS}{pool}/{id}"), record);
        if put.is_err() || self.thread.submit(0, change.0).is_err() {
            tracing::warn!(%pool, %id, "the addresses of an element are not on disk");
        }
    }

    /// What is there of a slot, and the largest manager lease that was in force for it, in ms.
    pub(crate) fn slot(&self, slot: SlotId) -> Result<Option<(Stored, u32)>, DbError> {
        let Some(record) = self.read::<SlotRecord>(&format!("{SLOTS}{slot}"))? else {
            return Ok(None);
        };
        let prepared = self.read::<SlotRecord>(&format!("{PREPARED}{slot}"))?;
        let stored = Stored {
            record: record.record(),
            prepared: prepared.map(|prepared| prepared.record()),
        };
        Ok(Some((stored, record.manager_lease_ms_max)))
    }

    /// The record of a token.
    pub(crate) fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, DbError> {
        self.read(&format!("{TOKENS}{id}"))
    }

    /// `ok`, or what the disk said.
    pub(crate) fn health(&self) -> String {
        match self.store.health() {
            Health::Ok => "ok".to_owned(),
            Health::Failing(error) => format!("failing: {error}"),
        }
    }

    /// Appends to the audit log; a failure is logged, nobody waits.
    pub(crate) fn audit(
        &self,
        role: &str,
        who: &str,
        action: &str,
        (pool, slot): (&Option<PoolHandle>, &Option<SlotName>),
        text: &str,
        reason: &str,
    ) {
        let entry = Audited {
            unix_ms: Timestamp::now().as_millisecond(),
            actor: format!("{role}/{who}"),
            action: action.to_owned(),
            pool: pool.clone(),
            slot: slot.clone(),
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let submitted = encode_record(LAYOUT, &entry).is_ok_and(|entry| {
            let batch = Batch {
                changes: Vec::new(),
                audit: vec![entry],
            };
            self.thread.submit(0, batch).is_ok()
        });
        if !submitted {
            tracing::warn!(
                action,
                text,
                "an audit entry is not on disk: the store's queue is full"
            );
        }
    }

    /// The newest audit entries, oldest first.
    pub(crate) fn audit_tail(&self, lines: usize) -> Result<Vec<AuditEntry>, DbError> {
        let entries = self.store.audit_tail(lines)?;
        let read = |entry: vnfpool_store::AuditEntry| {
            let audited = decode_record::<Audited>(LAYOUT, &entry.content).ok()?;
            Some(AuditEntry {
                sequence: entry.sequence,
                time: Timestamp::from_millisecond(audited.unix_ms).ok()?,
                actor: audited.actor,
                action: audited.action,
                pool: audited.pool,
                slot: audited.slot,
                text: audited.text,
                reason: audited.reason,
            })
        };
        Ok(entries.into_iter().filter_map(read).collect())
    }

    fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, DbError> {
        self.store
            .read(key)
            .map(|record| decode(key, &record.value))
            .transpose()
    }

    fn scan<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(String, T)>, DbError> {
        let records = self.store.scan(prefix).into_iter();
        records
            .map(|(key, record)| {
                let value = decode(&key, &record.value)?;
                Ok((key, value))
            })
            .collect()
    }
}

impl DbChange {
    /// The next free numbers.
    pub(crate) fn put_numbers(&mut self, numbers: &Numbers) -> Result<(), DbError> {
        self.put(NUMBERS.to_owned(), numbers)
    }

    /// A pool.
    pub(crate) fn put_pool(&mut self, record: &PoolRecord) -> Result<(), DbError> {
        self.put(format!("{POOLS}{}", record.spec.handle), record)
    }

    /// A pool that closes for ever, and who has to close.
    pub(crate) fn put_closing(
        &mut self,
        handle: &PoolHandle,
        members: &BTreeSet<NodeId>,
    ) -> Result<(), DbError> {
        let members: Vec<u32> = members.iter().map(|node| node.0).collect();
        self.put(format!("{CLOSING}{handle}"), &members)
    }

    /// A pool no more. Its slots' records stay: a number is never used twice.
    pub(crate) fn delete_pool(&mut self, handle: &PoolHandle) {
        for prefix in [POOLS, CLOSING] {
            let change = Change::delete(format!("{prefix}{handle}"), Expect::Any);
            self.0.changes.push(change);
        }
    }

    /// Elements that do not serve a deleted pool any more.
    pub(crate) fn put_departed(
        &mut self,
        pool: &PoolHandle,
        elements: &[ElementId],
    ) -> Result<(), DbError> {
        for id in elements {
            self.put(format!("{DEPARTED}{pool}/{id}"), &true)?;
        }
        Ok(())
    }

    /// An element registers in a pool of this name again.
    pub(crate) fn delete_departed(&mut self, pool: &PoolHandle, id: &ElementId) {
        let key = format!("{DEPARTED}{pool}/{id}");
        self.0.changes.push(Change::delete(key, Expect::Any));
    }

    /// All that there is of a slot from now on.
    pub(crate) fn put_stored(
        &mut self,
        slot: SlotId,
        stored: Stored,
        manager_lease_ms_max: u32,
    ) -> Result<(), DbError> {
        let of = |record| SlotRecord::of(record, manager_lease_ms_max);
        self.put(format!("{SLOTS}{slot}"), &of(stored.record))?;
        let key = format!("{PREPARED}{slot}");
        match stored.prepared {
            Some(prepared) => self.put(key, &of(prepared))?,
            None => self.0.changes.push(Change::delete(key, Expect::Any)),
        }
        Ok(())
    }

    /// An element.
    pub(crate) fn put_element(
        &mut self,
        pool: &PoolHandle,
        id: &ElementId,
        record: &ElementRecord,
    ) -> Result<(), DbError> {
        self.put(format!("{ELEMENTS}{pool}/{id}"), record)
    }

    /// A token.
    pub(crate) fn put_token(&mut self, record: &TokenRecord) -> Result<(), DbError> {
        self.put(format!("{TOKENS}{}", record.id), record)
    }

    fn put<T: Serialize>(&mut self, key: String, value: &T) -> Result<(), DbError> {
        let value = encode(&key, value)?;
        self.0.changes.push(Change::put(key, Expect::Any, value));
        Ok(())
    }
}

fn encode<T: Serialize>(key: &str, value: &T) -> Result<Vec<u8>, DbError> {
    let record = encode_record(LAYOUT, value);
    record.map_err(|source| DbError::Record {
        key: key.to_owned(),
        source,
    })
}

fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, DbError> {
    let value = decode_record(LAYOUT, value);
    value.map_err(|source| DbError::Record {
        key: key.to_owned(),
        source,
    })
}
