//! A function that follows its sessions as the standby, and ends some as the active: the calls that
//! docs/sdk.md shows.

#![allow(clippy::print_stdout, reason = "an example has nobody else to talk to")]

use std::error::Error;

use vnfpool_sdk::{
    Active, Class, Client, Event, Function, Health, Level, QueryError, Role, Seen, Table,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::args().nth(1);
    let socket = socket.unwrap_or_else(|| "/run/vnfpool/sdk.sock".to_owned());
    let class = Class::new("sessions", Level::bounded(), 1);
    let function = Function::new("proxy", "1.0").class(class);
    let (client, mut events) = vnfpool_sdk::connect(socket, function).await?;
    let mut follower = None;
    while let Some(event) = events.next().await {
        match event {
            Event::Role(Role::Standby { slot, .. }) => {
                let following = tokio::spawn(follow(client.table(slot, "sessions")?));
                if let Some(before) = follower.replace(following) {
                    before.abort();
                }
            }
            Event::Role(Role::Active(active)) => {
                let sessions = client.table(active.slot, "sessions")?;
                end_all(&sessions, active).await?;
                sessions.put(active, b"alice/1", b"10.1.0.7", None).await?;
                report(&client, 3, 1).await;
            }
            Event::Restore { active, class } => {
                // This one keeps nothing beside the agent, so it has nothing to put again.
                client.table(active.slot, &class)?.restored(active).await?;
            }
            other => println!("{other:?}"),
        }
    }
    Ok(())
}

/// As the standby: every entry that is there, then each change, until the connection ends.
async fn follow(sessions: Table) -> Result<(), QueryError> {
    let mut watch = sessions.watch().await?;
    while let Some(seen) = watch.next().await {
        match seen {
            Seen::Put(entry) => println!("{:?} is at {:?}", entry.key, entry.value),
            Seen::Delete(key) => println!("{key:?} is gone"),
            Seen::Live => println!("that was all; changes follow"),
            Seen::Anew => println!("forget all: every entry follows again"),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}

/// As the active: deletes every entry whose key begins with "alice/" (behind '/' comes '0').
async fn end_all(sessions: &Table, active: Active) -> Result<(), Box<dyn Error>> {
    loop {
        let (entries, has_more) = sessions.range(b"alice/", b"alice0", 100).await?;
        for entry in &entries {
            sessions.delete(active, &entry.key).await?;
        }
        if !has_more {
            return Ok(());
        }
    }
}

/// In any role: a function that is not healthy makes its element resign. The load is for the operator.
async fn report(client: &Client, backends: usize, load: u32) {
    let health = match backends {
        0 => Health::unhealthy("no backend answers"),
        _ => Health {
            load,
            capacity: 1000,
            ..Health::healthy()
        },
    };
    client.report(&health).await;
}
