//! A class of state in one slot.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{Get, KEY_BYTES_MAX, Range, Restored, VALUE_BYTES_MAX};

use crate::batch::Target;
use crate::commits::Caller;
use crate::shared::Answer;
use crate::{Active, Client, CommitError, PutError, QueryError, SlotId, Watch};

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// What is left of its time; none for ever.
    pub ttl: Option<Duration>,
}

/// A class of state in one slot; cheap to clone.
///
/// Each is a *caller* of its own, also a clone: [`Table::commit`] tells it of what was refused since
/// its own last commit, whatever others were told meanwhile. So give each task that puts and commits a
/// clone, and keep that from the put to the commit. A clone begins with what the first one has not
/// committed yet: one for each commit would be told of the same refusal again and again.
#[derive(Debug)]
pub struct Table {
    client: Client,
    slot: SlotId,
    class: u32,
    caller: Arc<Caller>,
}

impl Clone for Table {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            slot: self.slot,
            class: self.class,
            caller: Arc::new(Caller::clone(&self.caller)),
        }
    }
}

impl Table {
    pub(crate) fn new(client: Client, slot: SlotId, class: u32) -> Self {
        let caller = Arc::new(client.shared.state().caller(slot.0, class));
        Self {
            client,
            slot,
            class,
            caller,
        }
    }

    /// Puts an entry in place of the one with its key, and lets it go after `ttl`, rounded up to
    /// seconds. Done when it is on its way to the agent; waits while too much is. Cancel-safe: if it is
    /// cancelled, nothing was put.
    ///
    /// # Errors
    /// [`PutError`]. The agent refuses by [`crate::Event::Refused`] what crosses a change of role on
    /// its way.
    pub async fn put(
        &self,
        active: Active,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), PutError> {
        if value.len() > VALUE_BYTES_MAX {
            let bytes = value.len();
            return Err(PutError::ValueSize { bytes });
        }
        let ttl_s = ttl.map_or(0, |ttl| {
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
        });
        self.change(active, key, Some(value), ttl_s).await
    }

    /// Deletes an entry, as [`Table::put`] puts one.
    ///
    /// # Errors
    /// As of [`Table::put`].
    pub async fn delete(&self, active: Active, key: &[u8]) -> Result<(), PutError> {
        self.change(active, key, None, 0).await
    }

    async fn change(
        &self,
        active: Active,
        key: &[u8],
        value: Option<&[u8]>,
        ttl_s: u32,
    ) -> Result<(), PutError> {
        let target = self.target(active, key)?;
        let shared = &self.client.shared;
        shared.put(target, &self.caller, key, value, ttl_s).await
    }

    fn target(&self, active: Active, key: &[u8]) -> Result<Target, PutError> {
        let bytes = key.len();
        if !(1..=KEY_BYTES_MAX).contains(&bytes) {
            return Err(PutError::KeySize { bytes });
        }
        if active.slot != self.slot {
            return Err(PutError::OtherSlot);
        }
        Ok(Target {
            slot: self.slot.0,
            class: self.class,
            epoch: active.epoch,
        })
    }

    /// Waits until the successor holds everything that was put into this class before, by anybody. That is
    /// what was put when this is *called*: what it gives borrows nothing, and may be awaited elsewhere.
    /// If it is dropped before, this caller was told of nothing, and its next commit makes up for it.
    ///
    /// # Errors
    /// [`CommitError`]: it is not known to. [`CommitError::NotHeld`] is the declared downgrade, not a
    /// loss: the entries are in this agent. The others tell of everything since the last commit of this
    /// table that was answered.
    pub fn commit(&self) -> impl Future<Output = Result<(), CommitError>> + Send + use<> {
        let (sender, outcome) = oneshot::channel();
        let shared = &self.client.shared;
        let of_class = (self.slot.0, self.class);
        let last = shared.state().commit(of_class, &self.caller, sender);
        shared.work.notify_one();
        let caller = Arc::clone(&self.caller);
        async move {
            let outcome = outcome.await;
            caller.is_told(last);
            outcome.unwrap_or(Err(CommitError::Disconnected))
        }
    }

    /// Says that everything that the agent asked for by [`crate::Event::Restore`] was put again.
    ///
    /// # Errors
    /// [`QueryError::Disconnected`].
    pub async fn restored(&self, active: Active) -> Result<(), QueryError> {
        let restored = Restored {
            slot: self.slot.0,
            class: self.class,
            epoch: active.epoch,
        };
        match self.client.shared.request(Kind::Restored(restored)).await {
            true => {
                self.client.shared.state().restored(&self.caller);
                Ok(())
            }
            false => Err(QueryError::Disconnected),
        }
    }

    /// The entry of a key, as the agent has it after everything put before.
    ///
    /// # Errors
    /// [`QueryError::Disconnected`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Entry>, QueryError> {
        let ask = |id| {
            Kind::Get(Get {
                id,
                slot: self.slot.0,
                class: self.class,
                key: Bytes::copy_from_slice(key),
            })
        };
        let Answer::Found(found) = self.ask(ask).await? else {
            return Err(QueryError::Disconnected);
        };
        Ok(found.value.map(|value| Entry {
            key: Bytes::copy_from_slice(key),
            value,
            ttl: ttl(found.ttl_s),
        }))
    }

    /// Entries in the order of their keys, from `from` on, and before `to` unless that is empty; at
    /// most `limit`, and never more than fit one message. True when there are more: ask again from
    /// the last key with a zero byte appended.
    ///
    /// # Errors
    /// [`QueryError::Disconnected`].
    pub async fn range(
        &self,
        from: &[u8],
        to: &[u8],
        limit: u32,
    ) -> Result<(Vec<Entry>, bool), QueryError> {
        let ask = |id| {
            Kind::Range(Range {
                id,
                slot: self.slot.0,
                class: self.class,
                from: Bytes::copy_from_slice(from),
                to: Bytes::copy_from_slice(to),
                limit,
            })
        };
        let Answer::Entries(entries) = self.ask(ask).await? else {
            return Err(QueryError::Disconnected);
        };
        let found = entries.ops.into_iter().filter_map(|op| {
            Some(Entry {
                key: op.key,
                value: op.value?,
                ttl: ttl(op.ttl_s),
            })
        });
        Ok((found.collect(), entries.more))
    }

    /// Every entry, then a marker, then every change, also those that this function makes itself.
    ///
    /// # Errors
    /// [`QueryError::Disconnected`].
    pub async fn watch(&self) -> Result<Watch, QueryError> {
        Watch::begin(self.client.clone(), self.slot, self.class).await
    }

    async fn ask(&self, kind: impl FnOnce(u64) -> Kind) -> Result<Answer, QueryError> {
        let (caller, answer) = oneshot::channel();
        let shared = &self.client.shared;
        let id = {
            let mut state = shared.state();
            let id = state.next_id();
            state.ask(id, caller);
            id
        };
        if !shared.request(kind(id)).await {
            return Err(QueryError::Disconnected);
        }
        answer.await.map_err(|_| QueryError::Disconnected)
    }
}

pub(crate) fn ttl(ttl_s: u32) -> Option<Duration> {
    (ttl_s != 0).then(|| Duration::from_secs(ttl_s.into()))
}
