//! The TLS settings that every door shares: one provider, TLS 1.3 only, no resumption.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::SpiffeId;
use crate::pki::{CaFingerprint, Credentials};
use crate::policy::PeerPolicy;
use crate::rejection::Rejection;

/// There are no DNS names in the pool; the name is needed by the protocol and never checked.
pub(crate) const ANY_NAME: &str = "vnfpool.invalid";

/// The TLS library did not accept our own settings or certificates.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS with the certificates of this member")]
pub struct TlsError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl TlsError {
    pub(crate) fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(source))
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// Whether a caller without a certificate is let in (only for enrolment, see `quic`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientCertificate {
    Required,
    Optional,
}

/// The server side: shows the member's certificate, checks the caller's chain and validity.
/// Who the caller is, is judged after the handshake, so that it can be told the reason.
pub(crate) fn server(
    credentials: &Credentials,
    certificate: ClientCertificate,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let roots = roots(credentials.authority())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = match certificate {
        ClientCertificate::Required => verifier,
        ClientCertificate::Optional => verifier.allow_unauthenticated(),
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::new)?
        .with_client_cert_verifier(verifier.build().map_err(TlsError::new)?)
        .with_cert_resolver(Arc::new(OneCertificate(credentials.certified())));
    // Every connection shows its certificate anew: a resumed session would outlive its expiry.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The client side: shows the member's certificate and calls only whom `policy` allows.
pub(crate) fn client(
    credentials: &Credentials,
    policy: PeerPolicy,
    alpn: &[&[u8]],
) -> Result<(ClientConfig, Arc<OnceLock<Rejection>>), TlsError> {
    let verifier = SpiffeVerifier::new(
        Trust::Authority(Arc::new(roots(credentials.authority())?)),
        Expected::Peer(policy, credentials.id().clone()),
    );
    let rejection = Arc::clone(&verifier.rejection);
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::new)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(OneCertificate(credentials.certified())));
    Ok((finish_client(config, alpn), rejection))
}

/// The joiner's side: shows nothing and calls only a manager of the pinned authority.
pub(crate) fn joiner(
    pin: CaFingerprint,
    alpn: &[&[u8]],
) -> Result<(ClientConfig, Arc<OnceLock<Rejection>>), TlsError> {
    let verifier = SpiffeVerifier::new(Trust::Pin(pin), Expected::AnyManager);
    let rejection = Arc::clone(&verifier.rejection);
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::new)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok((finish_client(config, alpn), rejection))
}

fn finish_client(mut config: ClientConfig, alpn: &[&[u8]]) -> ClientConfig {
    config.resumption = Resumption::disabled();
    // Peers are named by their identity, not by DNS: there is no name to indicate.
    config.enable_sni = false;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

fn roots(authority: &CertificateDer<'_>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(authority.clone().into_owned())
        .map_err(TlsError::new)?;
    Ok(roots)
}

#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for OneCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whom to believe.
#[derive(Debug)]
enum Trust {
    /// The authority that we know.
    Authority(Arc<RootCertStore>),
    /// The authority with this fingerprint, which the server has to send along.
    Pin(CaFingerprint),
}

/// Who has to answer.
#[derive(Debug)]
enum Expected {
    /// Somebody whom the policy of a member allows.
    Peer(PeerPolicy, SpiffeId),
    /// A manager, of whatever trust domain the pinned authority is.
    AnyManager,
}

/// Checks a server's chain and validity, and its SPIFFE identity in the place of a DNS name.
#[derive(Debug)]
struct SpiffeVerifier {
    trust: Trust,
    expected: Expected,
    provider: Arc<CryptoProvider>,
    /// The exact reason; TLS itself knows only alerts. One verifier serves one connection.
    rejection: Arc<OnceLock<Rejection>>,
}

impl SpiffeVerifier {
    fn new(trust: Trust, expected: Expected) -> Self {
        Self {
            trust,
            expected,
            provider: provider(),
            rejection: Arc::new(OnceLock::new()),
        }
    }

    fn refuse(&self, rejection: Rejection) -> rustls::Error {
        // Only the first reason is kept; a verifier is asked once per handshake.
        let _first = self.rejection.set(rejection);
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
    }

    fn trusted_roots(
        &self,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Arc<RootCertStore>, rustls::Error> {
        match &self.trust {
            Trust::Authority(roots) => Ok(Arc::clone(roots)),
            Trust::Pin(pin) => intermediates
                .iter()
                .find(|certificate| CaFingerprint::of(certificate) == *pin)
                .and_then(|authority| roots(authority).ok())
                .map(Arc::new)
                .ok_or_else(|| self.refuse(Rejection::WrongPin)),
        }
    }
}

impl ServerCertVerifier for SpiffeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let roots = self.trusted_roots(intermediates)?;
        let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let peer = SpiffeId::from_certificate(end_entity)
            .map_err(|_| self.refuse(Rejection::BadCertificate))?;
        let judged = match &self.expected {
            Expected::Peer(policy, own) => policy.judge(own, &peer),
            Expected::AnyManager => PeerPolicy::Manager.judge_role(&peer.identity),
        };
        judged.map_err(|rejection| self.refuse(rejection))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // TLS 1.2 is not offered; a handshake that comes here is not one of ours.
        Err(rustls::Error::PeerIncompatible(
            rustls::PeerIncompatible::Tls12NotOfferedOrEnabled,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
