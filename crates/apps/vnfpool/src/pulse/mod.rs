//! What the real-time threads of manager and element share.

pub(crate) mod guard;
mod handle;
mod keyring;

pub(crate) use handle::{Inbox, Pulse};
pub(crate) use keyring::{Keyring, Opening};

pub(crate) use vnfpool_linux::realtime::now;

/// The label of the TLS exporter for datagram keys; both ends of a connection use the same.
pub(crate) const KEY_LABEL: &[u8] = b"EXPORTER-vnfpool-datagram-1";
