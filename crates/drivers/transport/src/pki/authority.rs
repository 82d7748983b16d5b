//! The certificate authority of one trust domain, kept by its manager.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::files::{self, Readers};
use super::{CA_FILE, CA_KEY_FILE, CaFingerprint, Credentials, PkiError};
use crate::identity::{Identity, SpiffeId, TrustDomain};

/// Certificates begin this long in the past, so that a member whose clock is behind accepts them.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(25 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The authority itself: longer than anything that it signs.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// The time for which a certificate is good, as seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before: Duration,
    not_after: Duration,
}

impl Validity {
    /// From 25 hours ago until `duration` from now: clocks may be an hour, or a day, apart.
    #[must_use]
    pub fn from_now(duration: Duration) -> Self {
        let now = since_1970();
        Self {
            not_before: now.saturating_sub(CLOCK_TOLERANCE),
            not_after: now.saturating_add(duration),
        }
    }

    /// Five years: managers, operators and elements. A new token renews it (`element join`).
    #[must_use]
    pub fn standard() -> Self {
        Self::from_now(5 * 365 * DAY)
    }

    /// Explicit bounds in time since 1970; for tests of expiry.
    #[must_use]
    pub fn between(not_before: Duration, not_after: Duration) -> Self {
        Self {
            not_before,
            not_after,
        }
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// A further name of a manager's certificate, for browsers and other HTTPS clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlternativeName {
    /// A DNS name.
    Dns(String),
    /// An address.
    Address(IpAddr),
}

/// The certificate authority of a trust domain.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    trust_domain: TrustDomain,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority and writes `ca.key` and `ca.pem` into `dir`.
    ///
    /// # Errors
    /// [`PkiError::Exists`] if `dir` holds an authority already; writing may fail.
    pub fn create(dir: &Path, trust_domain: &TrustDomain) -> Result<Self, PkiError> {
        files::create_directory(dir)?;
        let key = KeyPair::generate().map_err(PkiError::Crypto)?;
        let validity = Validity::from_now(AUTHORITY_VALIDITY);
        // Two authorities of one domain need two names, or a certificate of the other would look
        // like a forged one of this.
        let tag = data_encoding::HEXLOWER.encode(&serial()?[..6]);
        let mut params = params(validity, &format!("vnfpool {trust_domain} authority {tag}"))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // The trust domain is found again by `load`; SPIFFE asks for it in the authority too.
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        let certificate = params.self_signed(&key).map_err(PkiError::Crypto)?;
        // The key first: a certificate without its key would look like a finished authority.
        files::create(
            &dir.join(CA_KEY_FILE),
            key.serialize_pem().as_bytes(),
            Readers::Owner,
        )?;
        files::create(
            &dir.join(CA_FILE),
            certificate.pem().as_bytes(),
            Readers::All,
        )?;
        Self::load(dir)
    }

    /// Reads the authority of `dir`.
    ///
    /// # Errors
    /// A file is missing, unreadable or not what its name says.
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (dir.join(CA_FILE), dir.join(CA_KEY_FILE));
        let not_a_certificate = || PkiError::Content {
            path: certificate_path.clone(),
            expected: "certificate of an authority in PEM",
        };
        let not_a_key = || PkiError::Content {
            path: key_path.clone(),
            expected: "private key in PEM",
        };
        let certificate = CertificateDer::from_pem_slice(&files::read(&certificate_path)?)
            .map_err(|_| not_a_certificate())?;
        let key_pem = String::from_utf8(files::read(&key_path)?).map_err(|_| not_a_key())?;
        let key = KeyPair::from_pem(&key_pem).map_err(|_| not_a_key())?;
        let trust_domain = trust_domain_of(&certificate).ok_or_else(not_a_certificate)?;
        if !super::credentials::key_matches(&certificate, key.public_key_raw()) {
            return Err(PkiError::KeyMismatch {
                dir: dir.to_owned(),
            });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(PkiError::Crypto)?;
        Ok(Self {
            issuer,
            certificate,
            trust_domain,
        })
    }

    /// The trust domain for which the authority signs.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What enrolment tokens pin.
    #[must_use]
    pub fn fingerprint(&self) -> CaFingerprint {
        CaFingerprint::of(&self.certificate)
    }

    /// Signs the request of a joiner. Only its public key is taken from the request: who it is
    /// says `identity`, whatever names the request asks for.
    ///
    /// # Errors
    /// [`PkiError::Request`] if the request is malformed or not signed by its own key.
    pub fn issue(
        &self,
        request_pem: &str,
        identity: &Identity,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|_| PkiError::Request)?;
        let params = self.leaf(identity, validity, &[])?;
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(PkiError::Crypto)?;
        Ok(certificate.der().clone())
    }

    /// Makes key and certificate in one step, for the manager itself and its first operator, and
    /// writes `ca.pem`, `cert.pem` and `key.pem` into `dir`.
    ///
    /// # Errors
    /// [`PkiError::Exists`] if `dir` holds an identity already; writing may fail.
    pub fn issue_local(
        &self,
        dir: &Path,
        identity: &Identity,
        names: &[AlternativeName],
        validity: Validity,
    ) -> Result<Credentials, PkiError> {
        let key = super::PendingKey::create(dir)?;
        let certificate = self
            .leaf(identity, validity, names)?
            .signed_by(key.pair(), &self.issuer)
            .map_err(PkiError::Crypto)?;
        key.complete(certificate.der(), &self.certificate)
    }

    fn leaf(
        &self,
        identity: &Identity,
        validity: Validity,
        names: &[AlternativeName],
    ) -> Result<CertificateParams, PkiError> {
        let id = SpiffeId::new(self.trust_domain.clone(), identity.clone());
        let mut params = params(validity, &identity.to_string())?;
        params.subject_alt_names.push(uri(&id.to_string())?);
        for name in names {
            params.subject_alt_names.push(match name {
                AlternativeName::Address(address) => SanType::IpAddress(*address),
                AlternativeName::Dns(name) => SanType::DnsName(
                    name.as_str()
                        .try_into()
                        .map_err(|_| PkiError::AlternativeName { name: name.clone() })?,
                ),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity {
            // Elements call each other and the manager: both ends of a connection.
            Identity::Manager { .. } | Identity::Element { .. } => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            Identity::Sce { .. } | Identity::Operator { .. } => {
                vec![ExtendedKeyUsagePurpose::ClientAuth]
            }
        };
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn params(validity: Validity, common_name: &str) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + validity.not_before;
    params.not_after = epoch + validity.not_after;
    params.serial_number = Some(SerialNumber::from(serial()?));
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    Ok(params)
}

/// 16 random bytes, positive (RFC 5280 §4.1.2.2).
fn serial() -> Result<Vec<u8>, PkiError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(bytes.to_vec())
}

fn uri(text: &str) -> Result<SanType, PkiError> {
    Ok(SanType::URI(text.try_into().map_err(PkiError::Crypto)?))
}

fn trust_domain_of(certificate: &CertificateDer<'_>) -> Option<TrustDomain> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        if let x509_parser::extensions::GeneralName::URI(uri) = name {
            TrustDomain::new(uri.strip_prefix("spiffe://")?).ok()
        } else {
            None
        }
    })
}
