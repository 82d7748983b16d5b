//! The operators' door: HTTPS with client certificates.
//!
//! A browser can be given an operator's certificate too, so the manager's certificate may carry
//! DNS names and addresses ([`crate::pki::AlternativeName`]). Our own client goes by the SPIFFE
//! identity: it talks to a manager of its trust domain and to nobody else.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::identity::SpiffeId;
use crate::pki::Credentials;
use crate::policy::PeerPolicy;
use crate::rejection::{Rejection, RejectionCounters};
use crate::tls::{self, TlsError};
use crate::tls_stream::{self, Acceptor};

pub use crate::tls_stream::{CallError as HttpsError, ClientStream, ServerStream, refusal};

const ALPN: &[&[u8]] = &[b"http/1.1"];

/// Accepts TLS on connections that the caller accepted.
#[derive(Clone, Debug)]
pub struct HttpsServer(Acceptor);

impl HttpsServer {
    /// A door with the certificate of `credentials` that lets in whom `policy` allows
    /// ([`PeerPolicy::Clients`] for a manager).
    ///
    /// # Errors
    /// The TLS library refuses the certificates.
    pub fn new(
        credentials: &Credentials,
        policy: PeerPolicy,
        counters: Arc<RejectionCounters>,
    ) -> Result<Self, TlsError> {
        Acceptor::new(credentials, policy, ALPN, counters).map(Self)
    }

    /// The handshake of one connection: who calls, and the stream to speak HTTP/1.1 on. Run it in
    /// a task of its own, since the caller may be slow; it ends after five seconds.
    ///
    /// # Errors
    /// The reason why the caller was turned away; it is counted and logged already.
    pub async fn accept<S>(
        &self,
        stream: S,
        remote: SocketAddr,
    ) -> Result<(ServerStream<S>, SpiffeId), Rejection>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.0.accept(stream, remote).await
    }
}

/// Calls a manager over HTTPS with an operator's certificate.
#[derive(Clone, Debug)]
pub struct HttpsClient {
    credentials: Credentials,
}

impl HttpsClient {
    /// A client that shows `credentials`.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials }
    }

    /// The TLS settings for an HTTP library (`reqwest`: `use_preconfigured_tls`). They check the
    /// manager's SPIFFE identity, whatever host name the library passes.
    ///
    /// # Errors
    /// The TLS library refuses the certificates.
    pub fn config(&self) -> Result<rustls::ClientConfig, TlsError> {
        Ok(tls::client(&self.credentials, PeerPolicy::Manager, ALPN)?.0)
    }

    /// The handshake on a connected stream, at most five seconds long.
    ///
    /// # Errors
    /// [`HttpsError`] says what is wrong with the server, or with us in the server's eyes. With
    /// TLS 1.3 the server may refuse us only at the first read after this.
    pub async fn connect<S>(&self, stream: S) -> Result<ClientStream<S>, HttpsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        tls_stream::connect(&self.credentials, PeerPolicy::Manager, ALPN, stream).await
    }
}

#[cfg(test)]
#[path = "https_tests.rs"]
mod tests;
