//! The flows as the agent beside this instance holds them: followed, put, and put again when the agent
//! has lost them.
//!
//! All of that at once: a function that puts tens of thousands of entries and does not read its watch
//! meanwhile loses the watch, and an agent that nobody reads takes no further entry.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vnfpool_sdk::{
    Active, Class, Client, CommitError, Event, Level, Role, Seen, SlotId, Table, Watch,
};

use crate::balancer::{Balancer, FlowKey};

/// The class of the flows.
const FLOWS: &str = "flows";

/// Six bytes of client, six of service; the value is six of backend.
const FORMAT: u16 = 1;

/// A flow without packets for so long is forgotten …
const IDLE_MAX: Duration = Duration::from_secs(300);

/// … so its entry is put again when it is used and older than this.
const REFRESH_AFTER_S: u64 = 100;

/// A watch that has ended is begun again after this time, for as long as there is a connection.
const FOLLOW_AGAIN: Duration = Duration::from_millis(100);

/// Entries that are put again before anything else has its turn.
const RESTORED_AT_ONCE: usize = 256;

/// The class of state that this function registers.
#[must_use]
pub fn class() -> Class {
    Class::new(FLOWS, Level::commit(), FORMAT)
}

/// A [`Balancer`], and what keeps its flows and the agent's alike.
#[derive(Debug)]
pub struct Keeper {
    /// Packets are handed to it.
    pub balancer: Balancer,
    client: Client,
    active: Option<Active>,
    /// One caller of the SDK's: what is put here is committed here.
    table: Option<Arc<Table>>,
    watch: Option<Watch>,
    follow_at: Option<Instant>,
    /// The watch has shown every entry, and what it did not show is still there.
    is_shown: bool,
    restoring: Option<Restoring>,
    began: Instant,
}

/// The agent has lost its copy, and gets this one.
#[derive(Debug)]
struct Restoring {
    active: Active,
    table: Arc<Table>,
    /// What is still to be put, unless it is gone by then.
    rest: Vec<FlowKey>,
}

/// What is to be taken in by [`Keeper::take`].
#[derive(Debug)]
pub enum News {
    /// The watch shows something, or (none) has ended.
    Seen(Option<Seen>),
    /// It has shown everything before.
    Shown,
    /// The watch should be begun again.
    Follow,
    /// Of what the agent has lost, some was put again; false when no more is to be.
    Restored(bool),
}

impl Keeper {
    /// Of a function that is connected with [`class`].
    #[must_use]
    pub fn new(client: Client, balancer: Balancer) -> Self {
        Self {
            balancer,
            client,
            active: None,
            table: None,
            watch: None,
            follow_at: None,
            is_shown: false,
            restoring: None,
            began: Instant::now(),
        }
    }

    /// Seconds that have passed: the clock of the balancer's flows.
    #[must_use]
    pub fn now_s(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Takes in what the agent says. Whoever waits for events and [`News`] looks for an event first each
    /// time: an agent that has lost its copy says so before it shows that it has nothing.
    ///
    /// # Errors
    /// When the function has not registered [`class`].
    pub async fn take_event(&mut self, event: &Event) -> anyhow::Result<()> {
        match event {
            Event::Role(Role::Active(active)) => {
                self.follow(active.slot).await?;
                self.active = Some(*active);
                self.balancer.set_serving(true);
            }
            Event::Role(Role::Standby { slot, .. } | Role::Spare { slot, .. }) => {
                self.stop_serving();
                self.follow(*slot).await?;
            }
            Event::Role(_) => {
                self.stop_serving();
                self.disconnect();
            }
            Event::Restore { active, .. } => self.restore(*active),
            // The slot is served as long as the agent's lease goes on: flows that are known are still
            // forwarded, and those that begin are put when the agent is back.
            Event::Disconnected { .. } => self.disconnect(),
            _ => {}
        }
        Ok(())
    }

    fn stop_serving(&mut self) {
        (self.active, self.restoring) = (None, None);
        self.balancer.set_serving(false);
    }

    fn disconnect(&mut self) {
        (self.active, self.restoring) = (None, None);
        (self.table, self.watch, self.follow_at) = (None, None, None);
    }

    /// Follows the flows, those that this instance puts included: the agent says when one is over.
    async fn follow(&mut self, slot: SlotId) -> anyhow::Result<()> {
        if self.table.is_none() {
            self.table = Some(Arc::new(self.client.table(slot, FLOWS)?));
        }
        self.begin_watch().await;
        Ok(())
    }

    async fn begin_watch(&mut self) {
        self.follow_at = None;
        if let Some(table) = self.table.clone()
            && self.watch.is_none()
        {
            self.begin_round();
            // A connection that has ended meanwhile is told as an event.
            self.watch = table.watch().await.ok();
        }
    }

    fn begin_round(&mut self) {
        self.balancer.begin_round();
        self.is_shown = false;
    }

    fn restore(&mut self, active: Active) {
        let Some(table) = self.table.clone() else {
            return;
        };
        let rest = self.balancer.keys().copied().collect();
        self.restoring = Some(Restoring {
            active,
            table,
            rest,
        });
    }

    /// What comes next, for [`Keeper::take`]. Cancel-safe.
    pub async fn next(&mut self) -> News {
        let now_s = self.now_s();
        tokio::select! {
            seen = next_seen(&mut self.watch) => News::Seen(seen),
            () = at_once(self.is_shown) => News::Shown,
            () = sleep_until(self.follow_at) => News::Follow,
            has_more = put_again(&mut self.restoring, &mut self.balancer, now_s) => {
                News::Restored(has_more)
            }
        }
    }

    /// Takes in what came.
    pub async fn take(&mut self, news: News) {
        match news {
            News::Seen(seen) => self.take_seen(seen),
            News::Shown => {
                self.is_shown = false;
                // What the agent has lost it did not show.
                if self.restoring.is_none() {
                    self.balancer.end_round();
                }
            }
            News::Follow => self.begin_watch().await,
            News::Restored(true) => {}
            News::Restored(false) => self.restoring = None,
        }
    }

    fn take_seen(&mut self, seen: Option<Seen>) {
        match seen {
            Some(Seen::Put(entry)) => {
                let now_s = self.now_s();
                self.balancer.learn(&entry.key, &entry.value, now_s);
            }
            Some(Seen::Delete(key)) => self.balancer.forget(&key),
            Some(Seen::Anew) => self.begin_round(),
            // At the next look, when what the agent has said before is taken in.
            Some(Seen::Live) => self.is_shown = true,
            Some(_) => {}
            None => {
                self.watch = None;
                self.follow_at = Some(Instant::now() + FOLLOW_AGAIN);
            }
        }
    }

    /// Puts the entry of a flow that was not put yet, or not for long; where this element is the active.
    pub async fn put(&mut self, key: &FlowKey) {
        let now_s = self.now_s();
        let before_s = now_s.saturating_sub(REFRESH_AFTER_S);
        let Some((table, active)) = self.table.clone().zip(self.active) else {
            return;
        };
        let Some(value) = self.balancer.due(key, before_s) else {
            return;
        };
        let mut put = pin!(table.put(active, key, &value, Some(IDLE_MAX)));
        let outcome = loop {
            // What is put waits for the agent, which waits for whoever follows it.
            tokio::select! {
                biased;
                outcome = &mut put => break outcome,
                seen = next_seen(&mut self.watch) => self.take_seen(seen),
            }
        };
        // A refusal means that another instance serves now, which chooses anew.
        if outcome.is_ok() {
            self.balancer.was_put(key, now_s);
        }
    }

    /// Done when the successor has everything that was put before; at once without a connection.
    pub fn commit(&self) -> impl Future<Output = Result<(), CommitError>> + Send + use<> {
        let asked = self.table.as_ref().map(|table| table.commit());
        async move {
            match asked {
                Some(outcome) => outcome.await,
                None => Ok(()),
            }
        }
    }
}

async fn next_seen(watch: &mut Option<Watch>) -> Option<Seen> {
    match watch {
        Some(watch) => watch.next().await,
        None => pending().await,
    }
}

async fn at_once(is_due: bool) {
    if !is_due {
        pending().await
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// Puts some of what is to be restored; false when all of it is, or no more can be. Cancel-safe.
async fn put_again(restoring: &mut Option<Restoring>, balancer: &mut Balancer, now_s: u64) -> bool {
    let Some(Restoring {
        active,
        table,
        rest,
    }) = restoring
    else {
        return pending().await;
    };
    for _ in 0..RESTORED_AT_ONCE {
        let Some(key) = rest.last().copied() else {
            // If it cannot be said the connection has ended, and that is an event of its own.
            let _ = table.restored(*active).await;
            return false;
        };
        if let Some(value) = balancer.entry(&key) {
            let put = table.put(*active, &key, &value, Some(IDLE_MAX));
            if put.await.is_err() {
                // The role has changed, or the agent is gone again: either is an event of its own.
                return false;
            }
            balancer.was_put(&key, now_s);
        }
        rest.pop();
    }
    true
}
