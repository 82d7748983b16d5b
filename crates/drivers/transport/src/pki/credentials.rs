//! What a member shows and by whom it recognises others: certificate, key, authority.

use std::path::Path;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::files;
use super::{CA_FILE, CERTIFICATE_FILE, CaFingerprint, KEY_FILE, PkiError};
use crate::identity::{Identity, SpiffeId};

/// The identity of a member with its key. Cheap to clone; the key never leaves it.
#[derive(Clone)]
pub struct Credentials {
    id: SpiffeId,
    authority: CertificateDer<'static>,
    certified: Arc<CertifiedKey>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads `ca.pem`, `cert.pem` and `key.pem` of `dir`.
    ///
    /// # Errors
    /// A file is missing, unreadable, not what its name says, or key and certificate do not
    /// belong together. Whether the certificate is still valid is not looked at here: peers do.
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        let authority = read_certificate(&dir.join(CA_FILE))?;
        let certificate = read_certificate(&dir.join(CERTIFICATE_FILE))?;
        let key_path = dir.join(KEY_FILE);
        let not_a_key = || PkiError::Content {
            path: key_path.clone(),
            expected: "private key in PEM",
        };
        let key =
            PrivateKeyDer::from_pem_slice(&files::read(&key_path)?).map_err(|_| not_a_key())?;
        let signing_key =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| not_a_key())?;
        let id = SpiffeId::from_certificate(&certificate)?;
        // The authority goes along, so that a joiner that knows only its fingerprint can check.
        let certified = CertifiedKey::new(vec![certificate, authority.clone()], signing_key);
        certified.keys_match().map_err(|_| PkiError::KeyMismatch {
            dir: dir.to_owned(),
        })?;
        Ok(Self {
            id,
            authority,
            certified: Arc::new(certified),
        })
    }

    /// Who the owner is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The owner's role and name.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.id.identity
    }

    /// What enrolment tokens of this authority pin.
    #[must_use]
    pub fn authority_fingerprint(&self) -> CaFingerprint {
        CaFingerprint::of(&self.authority)
    }

    /// When the owner's certificate ends, in seconds since 1970; a daemon warns before.
    #[must_use]
    pub fn expires_unix_s(&self) -> Option<i64> {
        let certificate = self.certified.cert.first()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Some(parsed.validity().not_after.timestamp())
    }

    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

pub(super) fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(&files::read(path)?).map_err(|_| PkiError::Content {
        path: path.to_owned(),
        expected: "certificate in PEM",
    })
}

/// Whether the certificate is for the key with this raw public part.
pub(super) fn key_matches(certificate: &CertificateDer<'_>, public_key: &[u8]) -> bool {
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, parsed)| *parsed.public_key().subject_public_key.data == *public_key)
}
