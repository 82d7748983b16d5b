//! Identity, enrolment and QUIC with mutual TLS.
//!
//! Everything that touches TLS is in this crate: certificates and their files ([`pki`]), one-time
//! enrolment tokens ([`token`]), connections between managers and elements ([`quic`]), the
//! operators' door ([`https`]) and the sealing of heartbeat datagrams ([`datagram`]). Who a peer
//! is comes from its certificate alone ([`identity`]).

pub mod datagram;
pub mod enrolment;
pub mod https;
pub mod identity;
pub mod pki;
mod policy;
pub mod quic;
mod rejection;
#[cfg(test)]
mod testing;
mod tls;
pub mod token;

pub use identity::{Identity, PrincipalId, SpiffeId, TrustDomain};
pub use policy::PeerPolicy;
pub use rejection::{Rejection, RejectionCounters};

pub use tls::TlsError;

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    out.copy_from_slice(digest.as_ref());
    out
}
