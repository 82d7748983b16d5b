//! Configuration files: parsing with exact error positions, and validation.
//!
//! Pure: text in, values or diagnostics out; no file is opened here. There are three kinds of
//! file, all TOML: a pool ([`PoolFile`]), an element ([`ElementFile`]) and a manager
//! ([`ManagerFile`]); [`check_any`] recognises which one a text is. Every error names file, line
//! and column, says what was expected, shows the line with a caret, and suggests a correction
//! where there is an obvious one. All errors of a file are reported, not only the first: syntax
//! errors first, then wrong and unknown keys, then contradictions between values.

mod check;
mod diagnostic;
mod element;
mod manager;
mod overlap;
mod pool;
mod rules;
mod table;
mod value;

pub use check::{Checked, check_any};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use element::{
    Drain, ElementConfig, ElementFile, ElementPorts, Family, GateDriver, Health, Hooks, Lan, Path,
    Probe, ProbeTest, Realtime, Ruleset, Sdk,
};
pub use manager::{Fencing, ManagerConfig, ManagerFile, ManagerPorts};
pub use overlap::{Conflict, overlaps};
pub use pool::PoolFile;
pub use rules::{Finding, advice, check_pool};

/// UDP port of the manager's control endpoint (QUIC).
pub const PORT_CONTROL: u16 = 7400;
/// UDP port of the elements' heartbeats.
pub const PORT_HEARTBEAT: u16 = 7401;
/// UDP port for service state between elements (QUIC).
pub const PORT_STATE: u16 = 7402;
/// TCP port of the operator API (HTTPS).
pub const PORT_OPERATOR: u16 = 7443;
