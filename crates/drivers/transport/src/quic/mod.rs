//! QUIC with mutual TLS: control, service state and enrolment on one UDP port.
//!
//! The application protocol (ALPN) says what a connection is for: `vnfpool/1` for members, with
//! certificates on both sides, `vnfpool-enroll/1` for a joiner that has none yet. A connection is
//! handed out only after the peer's identity was judged by the [`crate::PeerPolicy`], on both
//! sides: the accepting side answers with a *welcome*, and until that has come the caller's
//! [`Endpoint::connect`] does not return. So a refusal is a typed error where the call was made,
//! not a connection that breaks off a moment later.
//!
//! Streams are bidirectional, begin with one byte that says their [`StreamKind`], and carry
//! frames: a length of 4 bytes, big-endian, then that many bytes.
//!
//! Everything is bounded: handshakes per second and at once, connections, streams, frames, the
//! time a handshake may take. An address has to prove itself (a QUIC retry) while handshakes are
//! many.

mod connection;
mod endpoint;
mod listener;
mod stream;

use std::time::Duration;

pub use connection::{CloseReason, Connection};
pub use endpoint::{ConnectError, Endpoint, EndpointError};
pub use listener::{Acceptance, Arrival, Listener};
pub use stream::{FrameError, FrameReader, FrameWriter, StreamKind};

pub use connection::ExportError;

pub(crate) use connection::opened;

/// Control and state between members.
pub(crate) const ALPN_MEMBERS: &[u8] = b"vnfpool/1";
/// Enrolment of somebody without a certificate.
pub(crate) const ALPN_ENROLMENT: &[u8] = b"vnfpool-enroll/1";

/// The application's close code for an ordinary end.
pub const CLOSE_DONE: u32 = 0;

/// Time limits and bounds of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// A connection without any traffic is kept alive by a packet in this interval.
    pub keep_alive_interval: Duration,
    /// A connection that hears nothing for this long is over.
    pub idle_timeout: Duration,
    /// A handshake, with the welcome, has to be done in this time.
    pub handshake_timeout: Duration,
    /// Connections that a listener holds at once; further callers are told that it is busy.
    pub connections_max: usize,
    /// Handshakes that a listener works on at once.
    pub handshakes_max: usize,
    /// Handshakes per second that a listener begins, as a mean; twice as many in a burst.
    pub handshakes_per_second: u32,
    /// What another process of the same life needs to tell peers that the connections of the one
    /// before are over; a new one for every endpoint if none is given.
    pub continuity: Option<Continuity>,
}

/// Lets an endpoint speak about connections of an earlier endpoint on the same address, to end
/// them (RFC 9000 §10.3, stateless reset): a peer that still sends on them hears of it at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Continuity(pub [u8; 32]);

impl Continuity {
    /// A new one.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub fn random() -> Result<Self, EndpointError> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| EndpointError::Random)?;
        Ok(Self(secret))
    }
}

impl std::fmt::Debug for Continuity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Continuity(…)")
    }
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            keep_alive_interval: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            connections_max: 512,
            handshakes_max: 64,
            handshakes_per_second: 100,
            continuity: None,
        }
    }
}

#[cfg(test)]
mod tests;
