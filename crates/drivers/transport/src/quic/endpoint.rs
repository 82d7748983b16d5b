//! One UDP socket that calls and is called.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, IdleTimeout, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;

use super::connection::{Connection, peer_identity, rejection_of};
use super::listener::WELCOME;
use super::{ALPN_ENROLMENT, ALPN_MEMBERS, CloseReason, Continuity, EndpointOptions};
use crate::datagram::Side;
use crate::pki::{CaFingerprint, Credentials};
use crate::policy::PeerPolicy;
use crate::rejection::{Rejection, RejectionCounters};
use crate::tls::{self, ANY_NAME, ClientCertificate, TlsError};

/// Streams that a peer may have open at once.
const STREAMS_MAX: u8 = 32;
/// A few of the longest frames.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// The first guess; members are near each other, and a lost first packet is repeated after three
/// times this.
const INITIAL_RTT: Duration = Duration::from_millis(50);

/// A UDP socket with QUIC on it. One endpoint may call many peers, and be called by a
/// [`super::Listener`] at the same time.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(super) inner: quinn::Endpoint,
    pub(super) credentials: Option<Credentials>,
    pub(super) options: EndpointOptions,
    pub(super) counters: Arc<RejectionCounters>,
}

impl Endpoint {
    /// An endpoint on a bound socket (which the caller may have bound to a device), within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`EndpointError::Socket`].
    pub fn new(
        socket: UdpSocket,
        credentials: Credentials,
        options: EndpointOptions,
        counters: Arc<RejectionCounters>,
    ) -> Result<Self, EndpointError> {
        Self::with(socket, Some(credentials), options, counters)
    }

    /// An endpoint on a new socket. Port 0 lets the system choose.
    ///
    /// # Errors
    /// [`EndpointError::Bind`] names the address.
    pub fn bind(
        address: SocketAddr,
        credentials: Credentials,
        options: EndpointOptions,
        counters: Arc<RejectionCounters>,
    ) -> Result<Self, EndpointError> {
        let socket =
            UdpSocket::bind(address).map_err(|source| EndpointError::Bind { address, source })?;
        Self::new(socket, credentials, options, counters)
    }

    /// An endpoint of somebody who has no certificate yet: it can only enrol.
    pub(crate) fn anonymous(address: SocketAddr) -> Result<Self, EndpointError> {
        let socket =
            UdpSocket::bind(address).map_err(|source| EndpointError::Bind { address, source })?;
        Self::with(
            socket,
            None,
            EndpointOptions::default(),
            Arc::new(RejectionCounters::default()),
        )
    }

    fn with(
        socket: UdpSocket,
        credentials: Option<Credentials>,
        options: EndpointOptions,
        counters: Arc<RejectionCounters>,
    ) -> Result<Self, EndpointError> {
        let runtime = quinn::default_runtime().ok_or(EndpointError::Runtime)?;
        let config = options.continuity.as_ref().map(endpoint_config);
        let config = config.unwrap_or_default();
        let inner =
            quinn::Endpoint::new(config, None, socket, runtime).map_err(EndpointError::Socket)?;
        Ok(Self {
            inner,
            credentials,
            options,
            counters,
        })
    }

    /// The socket's address.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_address(&self) -> Result<SocketAddr, EndpointError> {
        self.inner.local_addr().map_err(EndpointError::Socket)
    }

    /// Calls a member and returns when both sides have recognised each other.
    ///
    /// # Errors
    /// [`ConnectError`] says who refused whom and why; refusals by us are counted.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: PeerPolicy,
    ) -> Result<Connection, ConnectError> {
        let credentials = self.credentials.as_ref().ok_or(ConnectError::Refused {
            address,
            reason: Rejection::NoCertificate,
        })?;
        let (config, exact) = tls::client(credentials, expected, &[ALPN_MEMBERS])?;
        let inner = self.call(address, config, &exact).await?;
        // The verifier has read the identity before; a handshake without one does not end.
        let Some(Ok(peer)) = peer_identity(&inner) else {
            return Err(ConnectError::Peer {
                address,
                reason: Rejection::BadCertificate,
            });
        };
        Ok(Connection::new(inner, peer, Side::Initiator))
    }

    /// Calls a manager of the pinned authority for enrolment.
    pub(crate) async fn connect_for_enrolment(
        &self,
        address: SocketAddr,
        pin: CaFingerprint,
    ) -> Result<quinn::Connection, ConnectError> {
        let (config, exact) = tls::joiner(pin, &[ALPN_ENROLMENT])?;
        self.call(address, config, &exact).await
    }

    pub(super) async fn call(
        &self,
        address: SocketAddr,
        config: rustls::ClientConfig,
        exact: &OnceLock<Rejection>,
    ) -> Result<quinn::Connection, ConnectError> {
        let crypto = QuicClientConfig::try_from(config).map_err(TlsError::new)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport(&self.options)));
        let calling = async {
            let connection = self
                .inner
                .connect_with(config, address, ANY_NAME)
                .map_err(|source| ConnectError::Start { address, source })?
                .await
                .map_err(|error| self.failure(address, error, exact))?;
            self.await_welcome(connection, address, exact).await
        };
        tokio::time::timeout(self.options.handshake_timeout, calling)
            .await
            .unwrap_or(Err(ConnectError::NoAnswer { address }))
    }

    /// With TLS 1.3 the caller's side is done before the called side has looked at its
    /// certificate: only the welcome says that it is accepted.
    async fn await_welcome(
        &self,
        connection: quinn::Connection,
        address: SocketAddr,
        exact: &OnceLock<Rejection>,
    ) -> Result<quinn::Connection, ConnectError> {
        let failed = |error| self.failure(address, error, exact);
        let mut stream = connection.accept_uni().await.map_err(failed)?;
        match stream.read_to_end(WELCOME.len()).await {
            Ok(welcome) if welcome == WELCOME => Ok(connection),
            Err(quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(error))) => {
                Err(failed(error))
            }
            _ => Err(ConnectError::Peer {
                address,
                reason: Rejection::Protocol,
            }),
        }
    }

    fn failure(
        &self,
        address: SocketAddr,
        error: ConnectionError,
        exact: &OnceLock<Rejection>,
    ) -> ConnectError {
        let ours = matches!(error, ConnectionError::TransportError(_));
        if let Some(reason) = exact.get().copied().or_else(|| rejection_of(&error)) {
            if ours || exact.get().is_some() {
                self.counters
                    .record(reason, Some(address), &error.to_string());
                return ConnectError::Peer { address, reason };
            }
            return ConnectError::Refused { address, reason };
        }
        match error {
            ConnectionError::TimedOut => ConnectError::NoAnswer { address },
            other => ConnectError::Lost {
                address,
                reason: other.into(),
            },
        }
    }

    /// Closes all connections of the endpoint and waits until the peers were told.
    pub async fn close(&self) {
        self.inner.close(VarInt::from_u32(super::CLOSE_DONE), b"");
        self.inner.wait_idle().await;
    }
}

/// The settings of a server that takes members, and joiners if `enrolment`.
pub(super) fn server_config(
    credentials: &Credentials,
    options: &EndpointOptions,
    enrolment: bool,
) -> Result<quinn::ServerConfig, TlsError> {
    let (certificate, alpn): (_, &[&[u8]]) = if enrolment {
        // Whether a certificate is needed depends on the protocol, which is known only later.
        (ClientCertificate::Optional, &[ALPN_MEMBERS, ALPN_ENROLMENT])
    } else {
        (ClientCertificate::Required, &[ALPN_MEMBERS])
    };
    let tls = tls::server(credentials, certificate, alpn)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(TlsError::new)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport(options)));
    // An element has fixed addresses; somebody who moves is somebody else.
    config.migration(false);
    config.max_incoming(options.handshakes_max);
    config.incoming_buffer_size(64 * 1024);
    config.incoming_buffer_size_total(1024 * 1024);
    Ok(config)
}

fn transport(options: &EndpointOptions) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(options.keep_alive_interval));
    // Longer than QUIC can say (146 million years) means never.
    transport.max_idle_timeout(IdleTimeout::try_from(options.idle_timeout).ok());
    transport.initial_rtt(INITIAL_RTT);
    transport.max_concurrent_bidi_streams(VarInt::from(STREAMS_MAX));
    // The welcome is the only one.
    transport.max_concurrent_uni_streams(VarInt::from(1_u8));
    transport.stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES));
    transport.receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
    transport.send_window(u64::from(CONNECTION_WINDOW_BYTES));
    // Heartbeats have their own datagrams and their own thread.
    transport.datagram_receive_buffer_size(None);
    transport
}

/// Reset tokens and connection identifiers that an endpoint with the same secret knows again.
fn endpoint_config(Continuity(secret): &Continuity) -> quinn::EndpointConfig {
    let reset = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut config = quinn::EndpointConfig::new(Arc::new(reset));
    let identifiers = hmac::Key::new(hmac::HMAC_SHA256, b"connection identifiers");
    let derived = hmac::sign(&identifiers, secret);
    let key = derived
        .as_ref()
        .first_chunk()
        .copied()
        .map_or(0, u64::from_le_bytes);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    config
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// No random numbers.
    #[error("the kernel gives no random numbers")]
    Random,
    /// The address cannot be had.
    #[error("cannot bind to UDP {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The socket cannot be used.
    #[error("cannot use the UDP socket")]
    Socket(#[source] std::io::Error),
    /// Called outside a tokio runtime.
    #[error("an endpoint needs a running tokio runtime")]
    Runtime,
    /// A listener needs certificates.
    #[error("an endpoint without certificates cannot be called")]
    NoCredentials,
    /// Our certificates are unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why a call did not lead to a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address cannot be called at all.
    #[error("cannot call {address}")]
    Start {
        /// Who was called.
        address: SocketAddr,
        /// What the library says.
        #[source]
        source: quinn::ConnectError,
    },
    /// Nobody answers.
    #[error("no answer from {address}: is it running, and UDP let through?")]
    NoAnswer {
        /// Who was called.
        address: SocketAddr,
    },
    /// The peer is not whom we want.
    #[error("{address} is not the peer wanted: {reason}")]
    Peer {
        /// Who was called.
        address: SocketAddr,
        /// Why not.
        reason: Rejection,
    },
    /// The peer does not want us.
    #[error("{address} refused this member: {reason}")]
    Refused {
        /// Who was called.
        address: SocketAddr,
        /// Why not.
        reason: Rejection,
    },
    /// The connection broke off.
    #[error("the connection to {address} broke off")]
    Lost {
        /// Who was called.
        address: SocketAddr,
        /// How.
        #[source]
        reason: CloseReason,
    },
    /// Our certificates are unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
}
