//! Enrolment: a token and a certificate request against a certificate.
//!
//! The joiner calls a manager whose authority the token pins, so the secret is shown to the right
//! one only. The manager's daemon redeems the token in its store, issues the certificate and
//! answers. One request, one answer, then the connection is over.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use quinn::VarInt;
use rustls_pki_types::CertificateDer;

use crate::identity::Identity;
use crate::pki::{
    Authority, CaFingerprint, Credentials, KeyFingerprint, PendingKey, PkiError, Validity,
};
use crate::quic::{
    CLOSE_DONE, ConnectError, Endpoint, EndpointError, FrameError, FrameReader, FrameWriter,
    StreamKind,
};
use crate::rejection::{Rejection, RejectionCounters};
use crate::token::{Token, TokenId, TokenRefusal, TokenSecret};

/// The whole exchange after the handshake.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a joiner is told, whatever is wrong: a guesser must not learn which part was right.
const REFUSED: &str = "the token is not accepted: it is unknown, used or expired (create another one with 'vnfpool token create')";

#[derive(Clone, PartialEq, Message)]
struct RequestMessage {
    #[prost(bytes = "vec", tag = "1")]
    token_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    secret: Vec<u8>,
    #[prost(string, tag = "3")]
    request_pem: String,
}

#[derive(Clone, PartialEq, Message)]
struct AnswerMessage {
    #[prost(bytes = "vec", tag = "1")]
    certificate: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    authority: Vec<u8>,
    /// Empty if granted, else what to tell the person who joins.
    #[prost(string, tag = "3")]
    refusal: String,
}

/// What a joiner asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentRequest {
    /// The token's public name: look the record up by it.
    pub token: TokenId,
    /// The secret, for [`crate::token::TokenRecord::redeem`].
    pub secret: TokenSecret,
    /// The key that asks, for [`crate::token::TokenRecord::redeem`].
    pub key: KeyFingerprint,
    request_pem: String,
}

/// The manager's end of an enrolment.
#[derive(Debug)]
pub struct Enrolment {
    connection: quinn::Connection,
    counters: Arc<RejectionCounters>,
}

impl Enrolment {
    pub(crate) fn new(connection: quinn::Connection, counters: Arc<RejectionCounters>) -> Self {
        Self {
            connection,
            counters,
        }
    }

    /// Where the joiner calls from.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Waits, at most ten seconds, for the request. Run it in a task of its own.
    ///
    /// # Errors
    /// The joiner is slow, gone or talks nonsense; it is counted already.
    pub async fn request(self) -> Result<(EnrolmentRequest, EnrolmentAnswer), Rejection> {
        let answer_to = self.connection.clone();
        let remote = self.remote_address();
        let received = tokio::time::timeout(EXCHANGE_TIMEOUT, receive(&self.connection)).await;
        let failure = match received {
            Ok(Ok((request, writer))) => {
                let answer = EnrolmentAnswer {
                    connection: answer_to,
                    writer,
                    counters: self.counters,
                };
                return Ok((request, answer));
            }
            Ok(Err(rejection)) => rejection,
            Err(_) => Rejection::Timeout,
        };
        self.counters
            .record(failure, Some(remote), "enrolment request");
        let text = failure.to_string();
        self.connection
            .close(VarInt::from_u32(failure.code()), text.as_bytes());
        Err(failure)
    }
}

async fn receive(
    connection: &quinn::Connection,
) -> Result<(EnrolmentRequest, FrameWriter), Rejection> {
    let (send, mut recv) = connection
        .accept_bi()
        .await
        .map_err(|_| Rejection::Handshake)?;
    let kind = recv
        .read_chunk(1, true)
        .await
        .ok()
        .flatten()
        .and_then(|chunk| chunk.bytes.first().copied())
        .and_then(StreamKind::from_byte);
    if kind != Some(StreamKind::Enrolment) {
        return Err(Rejection::Protocol);
    }
    let frame = FrameReader::new(recv, StreamKind::Enrolment)
        .recv()
        .await
        .ok()
        .flatten()
        .ok_or(Rejection::Protocol)?;
    let message = RequestMessage::decode(frame).map_err(|_| Rejection::Protocol)?;
    let token = message
        .token_id
        .as_slice()
        .try_into()
        .map(TokenId)
        .map_err(|_| Rejection::Protocol)?;
    // A request that its own key has not signed is not looked at further.
    let key = KeyFingerprint::of_request(&message.request_pem).map_err(|_| Rejection::Protocol)?;
    let request = EnrolmentRequest {
        token,
        key,
        secret: TokenSecret::from_bytes(&message.secret).ok_or(Rejection::Protocol)?,
        request_pem: message.request_pem,
    };
    Ok((request, FrameWriter::new(send, StreamKind::Enrolment)))
}

/// The answer that the joiner waits for.
#[derive(Debug)]
pub struct EnrolmentAnswer {
    connection: quinn::Connection,
    writer: FrameWriter,
    counters: Arc<RejectionCounters>,
}

impl EnrolmentAnswer {
    /// Issues the certificate and sends it. Only after the token's record is stored as used.
    ///
    /// # Errors
    /// The certificate cannot be issued ([`EnrolError::Pki`]; the joiner is told), or the joiner is
    /// gone: it may ask again with the same key and token.
    pub async fn grant(
        self,
        authority: &Authority,
        request: &EnrolmentRequest,
        identity: &Identity,
        validity: Validity,
    ) -> Result<(), EnrolError> {
        let certificate = match authority.issue(&request.request_pem, identity, validity) {
            Ok(certificate) => certificate,
            Err(error) => {
                self.refuse_with(error.to_string()).await?;
                return Err(error.into());
            }
        };
        self.send(AnswerMessage {
            certificate: certificate.to_vec(),
            authority: authority.certificate().to_vec(),
            refusal: String::new(),
        })
        .await
    }

    /// Refuses the token: counts and logs the exact reason, tells the joiner only that it is not
    /// accepted.
    ///
    /// # Errors
    /// The joiner is gone.
    pub async fn refuse(self, reason: TokenRefusal) -> Result<(), EnrolError> {
        let remote = self.connection.remote_address();
        self.counters
            .record(Rejection::Token, Some(remote), &reason.to_string());
        self.refuse_with(REFUSED.to_owned()).await
    }

    /// Refuses for a reason of the manager's own, such as a full disk, that the joiner is told.
    ///
    /// # Errors
    /// The joiner is gone.
    pub async fn refuse_with(self, reason: String) -> Result<(), EnrolError> {
        self.send(AnswerMessage {
            refusal: reason,
            ..AnswerMessage::default()
        })
        .await
    }

    async fn send(mut self, answer: AnswerMessage) -> Result<(), EnrolError> {
        let frame = Bytes::from(answer.encode_to_vec());
        let sent = async {
            self.writer.send(frame).await?;
            self.writer.finish().await?;
            // The joiner closes when it has everything; closing first would cut the answer off.
            self.connection.closed().await;
            Ok(())
        };
        tokio::time::timeout(EXCHANGE_TIMEOUT, sent)
            .await
            .unwrap_or(Ok(()))
    }
}

/// Joins: makes a key in `dir`, shows the token to the manager at `manager`, and writes the
/// certificate that it answers with. The identity is in the result; the token decides it.
///
/// An interrupted join may be repeated with the same `dir` and token until the token expires.
///
/// # Errors
/// [`EnrolError`] says which step failed. Nothing is overwritten in `dir`.
pub async fn join(
    manager: SocketAddr,
    token: &Token,
    dir: &Path,
) -> Result<Credentials, EnrolError> {
    let key = PendingKey::create(dir)?;
    let any = match manager {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let endpoint = Endpoint::anonymous(any)?;
    let connection = endpoint
        .connect_for_enrolment(manager, token.authority())
        .await?;
    let exchanged =
        tokio::time::timeout(EXCHANGE_TIMEOUT, exchange(&connection, token, &key)).await;
    connection.close(VarInt::from_u32(CLOSE_DONE), b"");
    endpoint.close().await;
    let (certificate, authority) = exchanged.map_err(|_| EnrolError::Timeout)??;
    Ok(key.complete(&certificate, &authority)?)
}

async fn exchange(
    connection: &quinn::Connection,
    token: &Token,
    key: &PendingKey,
) -> Result<(CertificateDer<'static>, CertificateDer<'static>), EnrolError> {
    let message = RequestMessage {
        token_id: token.id().0.to_vec(),
        secret: token.secret().0.to_vec(),
        request_pem: key.request_pem()?,
    };
    let (send, recv) = connection
        .open_bi()
        .await
        .map_err(|error| FrameError::Closed(error.into()))?;
    let (mut writer, mut reader) = crate::quic::opened(send, recv, StreamKind::Enrolment).await?;
    writer.send(message.encode_to_vec()).await?;
    writer.finish().await?;
    let frame = reader.recv().await?.ok_or(FrameError::Truncated)?;
    let answer = AnswerMessage::decode(frame).map_err(|_| EnrolError::Answer)?;
    if !answer.refusal.is_empty() {
        return Err(EnrolError::Refused {
            reason: answer
                .refusal
                .chars()
                .filter(|c| !c.is_control())
                .take(300)
                .collect(),
        });
    }
    let authority = CertificateDer::from(answer.authority);
    // The server was checked against the pin; what it hands out for keeps has to be the same.
    if CaFingerprint::of(&authority) != token.authority() {
        return Err(EnrolError::Answer);
    }
    Ok((CertificateDer::from(answer.certificate), authority))
}

/// Why an enrolment failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// The manager could not be reached, or is not the one that the token names.
    #[error("cannot reach the manager for enrolment")]
    Connect(#[from] ConnectError),
    /// No socket.
    #[error("cannot open a socket for enrolment")]
    Endpoint(#[from] EndpointError),
    /// The manager said no.
    #[error("the manager refused the enrolment: {reason}")]
    Refused {
        /// The manager's words.
        reason: String,
    },
    /// The manager's answer makes no sense.
    #[error("the manager's answer is not a certificate of its authority")]
    Answer,
    /// The other side said nothing for ten seconds.
    #[error("the enrolment took longer than 10 seconds")]
    Timeout,
    /// The connection broke off.
    #[error("the enrolment broke off: it may be repeated with the same token")]
    Frame(#[from] FrameError),
    /// Key or certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

#[cfg(test)]
#[path = "enrolment_tests.rs"]
mod tests;
