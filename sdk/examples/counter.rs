//! A function that counts, as docs/sdk.md shows it.

#![allow(clippy::print_stdout, reason = "an example has nobody else to talk to")]

use vnfpool_sdk::{Class, Event, Function, Level, Role};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let function = Function::new("counter", "1.0").class(Class::new("counts", Level::commit(), 1));
    let socket = std::env::args().nth(1);
    let socket = socket.unwrap_or_else(|| "/run/vnfpool/sdk.sock".to_owned());
    let (client, mut events) = vnfpool_sdk::connect(socket, function).await?;
    while let Some(event) = events.next().await {
        match event {
            Event::Role(Role::Active(active)) => {
                let counts = client.table(active.slot, "counts")?;
                let before = counts.get(b"packets").await?;
                println!("going on from {before:?}");
                let packets = 7u64.to_be_bytes();
                counts.put(active, b"packets", &packets, None).await?;
                // The successor has it, or the error says why that is not known.
                if let Err(error) = counts.commit().await {
                    println!("{error}");
                }
            }
            Event::Restore { active, class } => {
                let counts = client.table(active.slot, &class)?;
                // Put everything again that this function knows, then:
                counts.restored(active).await?;
            }
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
