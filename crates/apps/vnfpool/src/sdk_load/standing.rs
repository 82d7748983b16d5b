//! What this function is, from the agent's events.

use std::collections::BTreeSet;

use anyhow::bail;
use tokio::sync::watch;
use vnfpool_sdk::{Active, Client, Event, Events, Role, SlotId};

use super::{COMMITS, PUTS};

/// Where this function stands when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the active, and both classes are held as demanded.
    Active(Active),
    /// It stands by in this slot.
    Standby(SlotId),
}

#[derive(Clone, Debug, Default)]
struct Now {
    active: Option<Active>,
    standby: Option<SlotId>,
    /// Classes that are held as demanded.
    held: BTreeSet<String>,
    /// Events that say that something was not as it should be.
    troubles: u64,
}

/// Follows the events for as long as it lives.
#[derive(Debug)]
pub(super) struct Standing(watch::Receiver<Now>);

impl Standing {
    pub(super) fn follow(client: Client, events: Events) -> Self {
        let (sender, receiver) = watch::channel(Now::default());
        tokio::spawn(follow(client, events, sender));
        Self(receiver)
    }

    /// Waits until it is one of both.
    ///
    /// # Errors
    /// When the agent turns the function away.
    pub(super) async fn place(&mut self) -> anyhow::Result<Place> {
        loop {
            {
                let now = self.0.borrow_and_update();
                let all_held = [PUTS, COMMITS]
                    .iter()
                    .all(|class| now.held.contains(*class));
                match (now.active, now.standby) {
                    (Some(active), _) if all_held => return Ok(Place::Active(active)),
                    (None, Some(slot)) => return Ok(Place::Standby(slot)),
                    _ => {}
                }
            }
            self.0.changed().await?;
        }
    }

    /// Levels that were lowered, changes refused, connections lost so far.
    pub(super) fn troubles(&self) -> u64 {
        self.0.borrow().troubles
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When the agent turns the function away.
    pub(super) async fn ended(mut self) -> anyhow::Result<()> {
        while self.0.changed().await.is_ok() {}
        bail!("the agent turned the function away")
    }
}

async fn follow(client: Client, mut events: Events, sender: watch::Sender<Now>) {
    let mut now = Now::default();
    while let Some(event) = events.next().await {
        match event {
            Event::Role(role) => now.take(&role),
            Event::Level { class, reason, .. } if reason.is_empty() => {
                now.held.insert(class);
            }
            Event::Restore { active, class } => {
                // What it put before is of no more use; what matters is that the class is whole.
                if let Ok(table) = client.table(active.slot, &class) {
                    let _disconnected = table.restored(active).await;
                }
            }
            Event::Connected { .. } => {}
            event => {
                if let Event::Level { class, .. } = &event {
                    now.held.remove(class);
                }
                tracing::warn!("{event:?}");
                now.troubles += 1;
            }
        }
        let _nobody_asks = sender.send(now.clone());
    }
}

impl Now {
    fn take(&mut self, role: &Role) {
        (self.active, self.standby) = match role {
            Role::Active(active) => (Some(*active), None),
            Role::Standby { slot, .. } => (None, Some(*slot)),
            _ => (None, None),
        };
    }
}
