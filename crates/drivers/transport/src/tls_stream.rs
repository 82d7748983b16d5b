//! TLS on a byte stream, seen from both ends: the operators' door and the elements' links.

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
use crate::tls::{self, ANY_NAME, ClientCertificate, TlsError};

pub use tokio_rustls::client::TlsStream as ClientStream;
pub use tokio_rustls::server::TlsStream as ServerStream;

/// A caller that is slower than this is hostile or gone.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepts TLS on connections that the caller accepted.
#[derive(Clone)]
pub(crate) struct Acceptor {
    acceptor: TlsAcceptor,
    own: SpiffeId,
    policy: PeerPolicy,
    counters: Arc<RejectionCounters>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor")
            .field("own", &self.own)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Acceptor {
    pub(crate) fn new(
        credentials: &Credentials,
        policy: PeerPolicy,
        alpn: &[&[u8]],
        counters: Arc<RejectionCounters>,
    ) -> Result<Self, TlsError> {
        let config = tls::server(credentials, ClientCertificate::Required, alpn)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            own: credentials.id().clone(),
            policy,
            counters,
        })
    }

    /// The handshake of one connection. Run it in a task of its own, since the caller may be slow.
    pub(crate) async fn accept<S>(
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

    /// Counts a caller that was turned away before its handshake.
    pub(crate) fn turn_away(&self, rejection: Rejection, remote: SocketAddr) {
        self.counters.record(rejection, Some(remote), "");
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

/// The handshake on a connected stream with whom `policy` allows, at most five seconds long.
pub(crate) async fn connect<S>(
    credentials: &Credentials,
    policy: PeerPolicy,
    alpn: &[&[u8]],
    stream: S,
) -> Result<ClientStream<S>, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (config, exact) = tls::client(credentials, policy, alpn)?;
    let name = ServerName::try_from(ANY_NAME).map_err(TlsError::new)?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => match exact.get() {
            Some(rejection) => Err(CallError::Server(*rejection)),
            None => Err(match tls_error(&error) {
                Some(rustls::Error::AlertReceived(alert)) => {
                    CallError::Refused(Rejection::from_alert(u8::from(*alert)))
                }
                Some(_) => CallError::Server(rejection_of(&error)),
                None => CallError::Io(error),
            }),
        },
        Err(_) => Err(CallError::Server(Rejection::Timeout)),
    }
}

/// Why a server could not be called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The server is not the one wanted.
    #[error("the one that answers is not the one wanted")]
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
