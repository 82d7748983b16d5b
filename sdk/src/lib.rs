//! For makers of network functions: replication of a function's own state in a pool.
//!
//! A function connects to the agent beside it, says which classes of state it has, and is told what
//! its element is: the *active* of a slot, its *standby*, or a spare. While it is the active it puts
//! entries; the agent holds them and sends them to the successor. The function beside that one watches
//! them, and has them when it becomes the active.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use vnfpool_sdk::{Class, Event, Function, Level, Role};
//!
//! let function = Function::new("counter", "1.0").class(Class::new("counts", Level::commit(), 1));
//! let (client, mut events) = vnfpool_sdk::connect("/run/vnfpool/sdk.sock", function).await?;
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Role(Role::Active(active)) => {
//!             let counts = client.table(active.slot, "counts")?;
//!             counts.put(active, b"packets", &7u64.to_be_bytes(), None).await?;
//!             // The successor has it, or the error says why that is not known.
//!             counts.commit().await?;
//!         }
//!         Event::Restore { active, class } => {
//!             let counts = client.table(active.slot, &class)?;
//!             // Put everything again that this function knows, then:
//!             counts.restored(active).await?;
//!         }
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What is on the socket is described in `docs/sdk.md`, for functions in other languages.

mod batch;
mod client;
mod commits;
mod connection;
mod error;
mod event;
mod function;
mod shared;
mod table;
mod watch;

pub use client::{Client, connect};
pub use error::{ClassError, CommitError, ConnectError, PutError, QueryError};
pub use event::{Active, Event, Events, Role, SlotId};
pub use function::{Class, Function, Health, Level};
pub use table::{Entry, Table};
pub use vnfpool_wire::sdk::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use watch::{Seen, Watch};
