//! The operators' door: HTTPS with client certificates.
//!
//! A browser can be given an operator's certificate too, so the manager's certificate may carry
//! DNS names and addresses ([`crate::pki::AlternativeName`]). Our own client goes by the SPIFFE
//! identity: it talks to a manager of its trust domain and to nobody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::identity::SpiffeId;
use crate::pki::Credentials;
use crate::policy::PeerPolicy;
use crate::rejection::{Rejection, RejectionCounters};
use crate::tls::{self, ClientCertificate, TlsError};

pub use tokio_rustls::client::TlsStream as ClientStream;
pub use tokio_rustls::server::TlsStream as ServerStream;

const ALPN: &[&[u8]] = &[b"http/1.1"];
/// A caller that is slower than this is hostile or gone.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// There are no DNS names in the pool; the name is needed by the protocol and never checked.
const ANY_NAME: &str = "vnfpool.invalid";

/// Accepts TLS on connections that the caller accepted.
#[derive(Clone)]
pub struct HttpsServer {
    acceptor: TlsAcceptor,
    own: SpiffeId,
    policy: PeerPolicy,
    counters: Arc<RejectionCounters>,
}

impl std::fmt::Debug for HttpsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpsServer")
            .field("own", &self.own)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

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
        let config = tls::server(credentials, ClientCertificate::Required, ALPN)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            own: credentials.id().clone(),
            policy,
            counters,
        })
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
        let result = self.handshake(stream).await;
        result.map_err(|(rejection, detail)| {
            self.counters.record(rejection, Some(remote), &detail);
            rejection
        })
    }

    async fn handshake<S>(
        &self,
        stream: S,
    ) -> Result<(ServerStream<S>, SpiffeId), (Rejection, String)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream))
            .await
            .map_err(|_| (Rejection::Timeout, String::new()))?
            .map_err(|error| (rejection_of(&error), error.to_string()))?;
        let peer = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or((Rejection::NoCertificate, String::new()))
            .and_then(|certificate| {
                SpiffeId::from_certificate(certificate)
                    .map_err(|error| (Rejection::BadCertificate, error.to_string()))
            })?;
        self.policy
            .judge(&self.own, &peer)
            .map_err(|rejection| (rejection, peer.to_string()))?;
        Ok((stream, peer))
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
        let (config, exact) = tls::client(&self.credentials, PeerPolicy::Manager, ALPN)?;
        let name = ServerName::try_from(ANY_NAME).map_err(TlsError::new)?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => match exact.get() {
                Some(rejection) => Err(HttpsError::Server(*rejection)),
                None => Err(match tls_error(&error) {
                    Some(rustls::Error::AlertReceived(alert)) => {
                        HttpsError::Refused(Rejection::from_alert(u8::from(*alert)))
                    }
                    Some(_) => HttpsError::Server(rejection_of(&error)),
                    None => HttpsError::Io(error),
                }),
            },
            Err(_) => Err(HttpsError::Server(Rejection::Timeout)),
        }
    }
}

/// Why a server could not be called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpsError {
    /// The server is not the one wanted.
    #[error("the server is not a manager of this trust domain")]
    Server(#[source] Rejection),
    /// The server does not want us.
    #[error("the server refused our certificate")]
    Refused(#[source] Rejection),
    /// The connection broke.
    #[error("the connection to the server broke off")]
    Io(#[source] std::io::Error),
    /// Our own certificates are unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What a failed read or write on an established stream says about us, if the server refused our
/// certificate only then (TLS 1.3 does so).
#[must_use]
pub fn refusal(error: &std::io::Error) -> Option<Rejection> {
    match tls_error(error) {
        Some(rustls::Error::AlertReceived(alert)) => Some(Rejection::from_alert(u8::from(*alert))),
        _ => None,
    }
}

fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn rejection_of(error: &std::io::Error) -> Rejection {
    use rustls::CertificateError as Certificate;
    match tls_error(error) {
        Some(rustls::Error::NoCertificatesPresented) => Rejection::NoCertificate,
        Some(rustls::Error::NoApplicationProtocol | rustls::Error::PeerIncompatible(_)) => {
            Rejection::Protocol
        }
        Some(rustls::Error::InvalidCertificate(reason)) => match reason {
            Certificate::UnknownIssuer => Rejection::UnknownAuthority,
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. } => Rejection::Expired,
            // Another authority of the same name: the name fits, the signature does not.
            Certificate::BadSignature => Rejection::UnknownAuthority,
            _ => Rejection::BadCertificate,
        },
        Some(rustls::Error::AlertReceived(alert)) => Rejection::from_alert(u8::from(*alert)),
        _ => Rejection::Handshake,
    }
}

#[cfg(test)]
#[path = "https_tests.rs"]
mod tests;
