//! Following a class.

use std::vec;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{self as wire, Op, Unwatch};

use crate::table::ttl;
use crate::{Client, Entry, QueryError, SlotId};

/// Messages that wait for the function, of up to 2,048 entries each.
const MESSAGES_MAX: usize = 16;

/// What a watch shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seen {
    /// An entry is there, or has another value.
    Put(Entry),
    /// An entry is gone.
    Delete(Bytes),
    /// Every entry was shown: what follows are changes.
    Live,
    /// The function did not keep up with the changes: forget all, every entry follows.
    Anew,
}

impl Seen {
    pub(crate) fn from_wire(op: Op) -> Self {
        match op.value {
            Some(value) => Self::Put(Entry {
                key: op.key,
                value,
                ttl: ttl(op.ttl_s),
            }),
            None => Self::Delete(op.key),
        }
    }
}

/// The connection's end of a watch.
#[derive(Debug)]
pub(crate) struct WatchEnd {
    pub(crate) slot: u32,
    pub(crate) messages: mpsc::Sender<Vec<Seen>>,
    /// Messages that were sent, and those that the function was given all of.
    pub(crate) sent: u64,
    pub(crate) given: watch::Receiver<u64>,
}

/// A class that is watched, until this is dropped.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    id: u64,
    messages: mpsc::Receiver<Vec<Seen>>,
    now: vec::IntoIter<Seen>,
    given: watch::Sender<u64>,
}

impl Watch {
    pub(crate) async fn begin(
        client: Client,
        slot: SlotId,
        class: u32,
    ) -> Result<Self, QueryError> {
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let (given, given_so_far) = watch::channel(0);
        let id = {
            let mut state = client.shared.state();
            let id = state.next_id();
            let end = WatchEnd {
                slot: slot.0,
                messages: sender,
                sent: 0,
                given: given_so_far,
            };
            state.watches.insert(id, end);
            // What it sees is state that it has.
            state.has_state = true;
            id
        };
        let slot = slot.0;
        let watch = Kind::Watch(wire::Watch { id, slot, class });
        if !client.shared.request(watch).await {
            client.shared.state().watches.remove(&id);
            return Err(QueryError::Disconnected);
        }
        let now = Vec::new().into_iter();
        Ok(Self {
            client,
            id,
            messages,
            now,
            given,
        })
    }

    /// What comes next; none when the watch is over: the connection ended, the slot is not this
    /// element's, or nobody has read for a second. Watch again, and forget what was seen. Cancel-safe.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            let seen = self.now.next();
            if seen.is_some() {
                if self.now.len() == 0 {
                    self.given.send_modify(|given| *given += 1);
                }
                return seen;
            }
            let message = self.messages.recv().await?;
            debug_assert!(!message.is_empty(), "nothing is no message");
            self.now = message.into_iter();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let id = self.id;
        let shared = &self.client.shared;
        let mut state = shared.state();
        state.watches.remove(&id);
        state.send_unbounded(Kind::Unwatch(Unwatch { id }));
        drop(state);
        shared.work.notify_one();
    }
}
