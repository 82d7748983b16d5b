//! What happened, for `watch`: numbered, kept for a while, told to everybody who listens.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures_util::{Stream, StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::broadcast;
use vnfpool_model::{PoolHandle, SlotName};
use vnfpool_northbound::Event;

/// Events that a late reader can still have.
const KEPT: usize = 1_000;

/// Events that a slow reader may be behind before it has to ask again.
const BEHIND_MAX: usize = 256;

/// An event before it has its number and time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Happening {
    pub(crate) kind: &'static str,
    pub(crate) pool: Option<PoolHandle>,
    pub(crate) slot: Option<SlotName>,
    pub(crate) text: String,
    pub(crate) reason: String,
}

/// All events of this boot.
#[derive(Debug)]
pub(crate) struct Events {
    kept: Mutex<Kept>,
    live: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Kept {
    next: u64,
    events: VecDeque<Event>,
}

impl Events {
    /// Numbers begin with the boot, so that they go on growing across restarts.
    pub(crate) fn new(boot: u64) -> Self {
        let kept = Kept {
            next: boot << 32,
            events: VecDeque::with_capacity(KEPT),
        };
        Self {
            kept: Mutex::new(kept),
            live: broadcast::channel(BEHIND_MAX).0,
        }
    }

    /// Numbers an event, keeps it, logs it and tells it.
    pub(crate) fn add(&self, happening: Happening) {
        let Happening {
            kind,
            pool,
            slot,
            text,
            reason,
        } = happening;
        let pool_name = pool.as_ref().map_or("", PoolHandle::as_str);
        tracing::info!(kind, pool = pool_name, reason, "{text}");
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = kept.next;
        let event = Event {
            sequence,
            time: Timestamp::now(),
            kind: kind.to_owned(),
            pool,
            slot,
            text,
            reason,
        };
        kept.next += 1;
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Nobody may be listening.
        let _ = self.live.send(event);
    }

    /// Kept events after number `after`, then new ones; ends when the reader is too far behind.
    pub(crate) fn stream(&self, after: Option<u64>) -> impl Stream<Item = Event> + Send + use<> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live.subscribe();
        let old: Vec<_> = kept
            .events
            .iter()
            .filter(|e| after.is_some_and(|after| e.sequence > after))
            .cloned()
            .collect();
        let new = stream::unfold(live, |mut live| async {
            Some((live.recv().await.ok()?, live))
        });
        stream::iter(old).chain(new)
    }
}
