//! Identity, enrolment and QUIC with mutual TLS.
//!
//! Everything that touches TLS is in this crate: certificates and their files ([`pki`]), one-time
//! enrolment tokens ([`token`]), connections between managers and elements ([`quic`]),
//! links for service state ([`link`]), the operators' door ([`https`]) and the sealing of heartbeat datagrams ([`datagram`]). Who a peer
//! is comes from its certificate alone ([`identity`]).

pub mod datagram;
pub mod enrolment;
pub mod https;
pub mod identity;
mod limits;
pub mod link;
pub mod pki;
mod policy;
pub mod quic;
mod rejection;
#[cfg(test)]
mod testing;
mod tls;
mod tls_stream;
pub mod token;

pub use identity::{Identity, PrincipalId, SpiffeId, TrustDomain};
pub use policy::PeerPolicy;
pub use rejection::{Rejection, RejectionCounters};

pub use tls::TlsError;

/// `N` bytes that nobody can guess; none when the system has none to give.
#[must_use]
pub fn random_bytes<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    out.copy_from_slice(digest.as_ref());
    out
}
