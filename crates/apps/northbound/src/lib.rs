//! The manager's HTTPS doors: the operator API, its client, and `/metrics`.
//!
//! ```text
//!  operator's program          manager
//!  client::OperatorClient  ->  server::serve (TLS, bounds)  ->  router  ->  Operations
//! ```
//!
//! The manager implements [`Operations`]; [`router`] turns it into an HTTP service that knows
//! nothing of TLS, and [`server::serve`] puts that behind mutual TLS and tells it who calls. Every
//! refusal is a [`Problem`] (RFC 9457) with a code from one table ([`Code`]).

mod api;
pub mod client;
pub mod metrics;
mod operations;
mod problem;
mod router;
pub mod server;

pub use api::{
    Applied, AuditEntry, ClassStatus, DowngradeStatus, DrainFailuresStatus, ElementStatus, Event,
    FenceRequest, HandoverTroubleStatus, ManagerStatus, PardonRequest, PoolStatus,
    PortBlocksStatus, QuarantineStatus, SlotStatus, Status, SwitchoverDone, SwitchoverRequest,
    Token, TokenRequest,
};
pub use operations::{EventStream, Operations};
pub use problem::{Code, Fault, Problem};
pub use router::router;
