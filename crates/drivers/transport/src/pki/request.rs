//! The key of somebody who joins and has no certificate yet.

use std::path::{Path, PathBuf};

use rcgen::PublicKeyData;
use rcgen::{CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::files::{self, Readers};
use super::{CA_FILE, CERTIFICATE_FILE, Credentials, KEY_FILE, PkiError};

/// The SHA-256 of the public key in a certificate request: two requests with the same fingerprint
/// come from the owner of the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyFingerprint(pub [u8; 32]);

impl KeyFingerprint {
    /// Reads a certificate request in PEM and checks that its own key has signed it.
    ///
    /// # Errors
    /// [`PkiError::Request`].
    pub fn of_request(request_pem: &str) -> Result<Self, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|_| PkiError::Request)?;
        Ok(Self(crate::sha256(request.public_key.der_bytes())))
    }
}

/// A private key on disk that waits for its certificate.
///
/// The key is written before the request is sent, so that a join that was interrupted goes on
/// with the same key: the manager knows it again and the token is not lost.
pub struct PendingKey {
    pair: KeyPair,
    dir: PathBuf,
}

impl std::fmt::Debug for PendingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingKey")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl PendingKey {
    /// Makes a key in `dir` (created if missing), or takes up the one of an interrupted join.
    ///
    /// # Errors
    /// [`PkiError::Exists`] if `dir` holds a certificate already; reading or writing may fail.
    pub fn create(dir: &Path) -> Result<Self, PkiError> {
        files::create_directory(dir)?;
        let certificate_path = dir.join(CERTIFICATE_FILE);
        if certificate_path.exists() {
            return Err(PkiError::Exists {
                path: certificate_path,
            });
        }
        let key_path = dir.join(KEY_FILE);
        let pair = if key_path.exists() {
            String::from_utf8(files::read(&key_path)?)
                .ok()
                .and_then(|pem| KeyPair::from_pem(&pem).ok())
                .ok_or(PkiError::Content {
                    path: key_path,
                    expected: "private key in PEM",
                })?
        } else {
            let pair = KeyPair::generate().map_err(PkiError::Crypto)?;
            files::create(&key_path, pair.serialize_pem().as_bytes(), Readers::Owner)?;
            pair
        };
        Ok(Self {
            pair,
            dir: dir.to_owned(),
        })
    }

    /// The certificate request in PEM (PKCS #10). It asks for no names: the authority gives them.
    ///
    /// # Errors
    /// [`PkiError::Crypto`].
    pub fn request_pem(&self) -> Result<String, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .serialize_request(&self.pair)
            .and_then(|request| request.pem())
            .map_err(PkiError::Crypto)
    }

    /// Writes the certificate and the authority's beside the key.
    ///
    /// # Errors
    /// [`PkiError::ForeignCertificate`] if it is not for this key; writing may fail.
    pub fn complete(
        self,
        certificate: &CertificateDer<'_>,
        authority: &CertificateDer<'_>,
    ) -> Result<Credentials, PkiError> {
        if !super::credentials::key_matches(certificate, self.pair.public_key_raw()) {
            return Err(PkiError::ForeignCertificate);
        }
        // The certificate last: while it is missing, the join is not complete and can be repeated.
        let authority_path = self.dir.join(CA_FILE);
        match files::create(&authority_path, pem(authority).as_bytes(), Readers::All) {
            Err(PkiError::Exists { .. })
                if super::credentials::read_certificate(&authority_path)? == *authority => {}
            other => other?,
        }
        files::create(
            &self.dir.join(CERTIFICATE_FILE),
            pem(certificate).as_bytes(),
            Readers::All,
        )?;
        Credentials::load(&self.dir)
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

/// A certificate in PEM (RFC 7468): lines of 64 characters between two markers.
pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    let encoded = data_encoding::BASE64.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
