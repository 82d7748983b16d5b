//! A connection whose peer is known.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::sync::Mutex;

use super::stream::{FrameError, FrameReader, FrameWriter, StreamKind};
use crate::datagram::Side;
use crate::identity::{Identity, SpiffeId};
use crate::rejection::Rejection;

/// A connection between two members that have recognised each other. Clones are the same
/// connection; it closes when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: quinn::Connection,
    peer: Arc<SpiffeId>,
    side: Side,
    /// A stream that has come but has not said yet what it is for.
    arriving: Arc<Mutex<Option<(SendStream, RecvStream)>>>,
}

impl Connection {
    pub(crate) fn new(inner: quinn::Connection, peer: SpiffeId, side: Side) -> Self {
        Self {
            inner,
            peer: Arc::new(peer),
            side,
            arriving: Arc::new(Mutex::new(None)),
        }
    }

    /// Who the peer is, by its certificate.
    #[must_use]
    pub fn peer(&self) -> &Identity {
        &self.peer.identity
    }

    /// Which end of the connection this is, for [`crate::datagram::derive`].
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// The peer's address.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// A number that no other connection of this endpoint has.
    #[must_use]
    pub fn stable_id(&self) -> usize {
        self.inner.stable_id()
    }

    /// The round trip as the transport estimates it.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    /// Opens a stream. The peer learns of it with the first bytes: this call sends its kind.
    ///
    /// # Errors
    /// The connection is over. Waits while the peer allows no further stream.
    pub async fn open_stream(
        &self,
        kind: StreamKind,
    ) -> Result<(FrameWriter, FrameReader), FrameError> {
        let (send, recv) = self
            .inner
            .open_bi()
            .await
            .map_err(|error| FrameError::Closed(error.into()))?;
        opened(send, recv, kind).await
    }

    /// The next stream that the peer opens. Streams of an unknown kind are refused and skipped, so
    /// that a newer peer can try. May stand in a `select!`: dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn accept_stream(
        &self,
    ) -> Result<(StreamKind, FrameWriter, FrameReader), CloseReason> {
        let mut arriving = self.arriving.lock().await;
        loop {
            let (_, recv) = match &mut *arriving {
                Some(streams) => streams,
                None => arriving.insert(self.inner.accept_bi().await?),
            };
            let kind = match recv.read_chunk(1, true).await {
                Ok(Some(chunk)) => chunk.bytes.first().copied().and_then(StreamKind::from_byte),
                Ok(None) => None,
                Err(quinn::ReadError::ConnectionLost(reason)) => return Err(reason.into()),
                Err(_) => None,
            };
            let Some((mut send, mut recv)) = arriving.take() else {
                continue;
            };
            if let Some(kind) = kind {
                return Ok((
                    kind,
                    FrameWriter::new(send, kind),
                    FrameReader::new(recv, kind),
                ));
            }
            let (_reset, _stop) = (
                send.reset(VarInt::from_u32(2)),
                recv.stop(VarInt::from_u32(2)),
            );
        }
    }

    #[cfg(test)]
    pub(super) fn raw(&self) -> &quinn::Connection {
        &self.inner
    }

    /// A secret that only the two ends of this connection know (RFC 5705, RFC 8446 §7.5): equal on
    /// both sides for equal `label` and `context`, different for every connection.
    ///
    /// # Errors
    /// [`ExportError`] only if the TLS library fails.
    pub fn export_key(&self, label: &[u8], context: &[u8]) -> Result<[u8; 32], ExportError> {
        let mut secret = [0; 32];
        self.inner
            .export_keying_material(&mut secret, label, context)
            .map_err(|_| ExportError)?;
        Ok(secret)
    }

    /// Closes the connection at once: what was not delivered is lost. `code` is the caller's,
    /// below 256; [`super::CLOSE_DONE`] says that all is well.
    pub fn close(&self, code: u8, reason: &str) {
        self.inner
            .close(VarInt::from_u32(u32::from(code)), reason.as_bytes());
    }

    /// Waits until the connection is over and says why.
    pub async fn closed(&self) -> CloseReason {
        self.inner.closed().await.into()
    }

    /// Why the connection is over; `None` while it lives.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.inner.close_reason().map(CloseReason::from)
    }
}

/// Wraps a stream that was just opened and sends its kind.
pub(crate) async fn opened(
    send: SendStream,
    recv: RecvStream,
    kind: StreamKind,
) -> Result<(FrameWriter, FrameReader), FrameError> {
    let mut writer = FrameWriter::new(send, kind);
    writer.announce();
    writer.flush().await?;
    Ok((writer, FrameReader::new(recv, kind)))
}

/// The keying material could not be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot export a key from the TLS session")]
pub struct ExportError;

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// We closed it.
    #[error("closed by this side")]
    Local,
    /// The peer closed it with an application's code below 256.
    #[error("closed by the peer (code {code}): {reason}")]
    Peer {
        /// The code.
        code: u64,
        /// The peer's words, shortened to 200 characters.
        reason: String,
    },
    /// One side turned the other away.
    #[error("turned away: {0}")]
    Rejected(Rejection),
    /// Nothing was heard for the idle timeout.
    #[error("nothing was heard from the peer for too long")]
    Silence,
    /// The peer has restarted and knows nothing of the connection.
    #[error("the peer has restarted")]
    Reset,
    /// The peer, or somebody in its name, broke the protocol.
    #[error("the transport failed: {reason}")]
    Transport {
        /// What the library says.
        reason: String,
    },
}

impl From<ConnectionError> for CloseReason {
    fn from(error: ConnectionError) -> Self {
        if let Some(rejection) = rejection_of(&error) {
            return Self::Rejected(rejection);
        }
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Peer {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason)
                    .chars()
                    .take(200)
                    .collect(),
            },
            ConnectionError::LocallyClosed => Self::Local,
            ConnectionError::TimedOut => Self::Silence,
            ConnectionError::Reset => Self::Reset,
            other => Self::Transport {
                reason: other.to_string().chars().take(200).collect(),
            },
        }
    }
}

/// The reason behind a refusal, whichever side refused: a TLS alert or one of our close codes.
pub(crate) fn rejection_of(error: &ConnectionError) -> Option<Rejection> {
    /// TLS alerts are transport error codes 0x100 to 0x1ff (RFC 9001 §4.8).
    fn alert(code: u64) -> Option<Rejection> {
        let alert = u8::try_from(code.checked_sub(0x100)?).ok()?;
        Some(Rejection::from_alert(alert))
    }
    /// CONNECTION_REFUSED (RFC 9000 §20.1): a busy server.
    const REFUSED: u64 = 2;
    match error {
        ConnectionError::TransportError(error) => alert(u64::from(error.code)),
        ConnectionError::ConnectionClosed(close) => match u64::from(close.error_code) {
            REFUSED => Some(Rejection::Busy),
            code => alert(code),
        },
        ConnectionError::ApplicationClosed(close) => {
            Rejection::from_code(close.error_code.into_inner())
        }
        ConnectionError::VersionMismatch => Some(Rejection::Protocol),
        _ => None,
    }
}

/// The peer's identity from its certificate; `None` if it showed none.
pub(crate) fn peer_identity(connection: &quinn::Connection) -> Option<Result<SpiffeId, Rejection>> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    let certificate = chain.first()?;
    Some(SpiffeId::from_certificate(certificate).map_err(|_| Rejection::BadCertificate))
}

/// The application protocol of an established connection.
pub(crate) fn protocol(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection
        .handshake_data()?
        .downcast::<quinn::crypto::rustls::HandshakeData>()
        .ok()?
        .protocol
}
