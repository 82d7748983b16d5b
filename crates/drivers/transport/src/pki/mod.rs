//! Keys and certificates: the authority, the requests of those who join, the files.
//!
//! Private keys never leave the machine that made them: a joiner sends a request, the authority
//! answers with a certificate. Files are written whole or not at all, keys are readable by their
//! owner only, and no existing file is ever overwritten.

mod authority;
mod credentials;
mod files;
mod request;

use std::path::PathBuf;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

pub use authority::{AlternativeName, Authority, Validity};
pub use credentials::Credentials;
pub use request::{KeyFingerprint, PendingKey};

use crate::identity::IdentityError;

/// The file that holds the authority's certificate, in every directory of ours.
pub const CA_FILE: &str = "ca.pem";
/// The file that holds the authority's private key, on the manager only.
pub const CA_KEY_FILE: &str = "ca.key";
/// The file that holds the owner's certificate.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// The file that holds the owner's private key.
pub const KEY_FILE: &str = "key.pem";

/// The SHA-256 of the authority's certificate: what an enrolment token pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CaFingerprint(pub [u8; 32]);

impl CaFingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(crate::sha256(certificate))
    }
}

impl std::fmt::Display for CaFingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// Why a key, a certificate or a file of them could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// Reading failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Writing failed; nothing was left behind under that name.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is there already and is not overwritten.
    #[error("{} exists already and is not overwritten: move it away to start anew", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file does not hold what its name says.
    #[error("{} holds no {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected in it.
        expected: &'static str,
    },
    /// The key of a directory does not belong to its certificate.
    #[error("the key in {} does not belong to the certificate beside it", dir.display())]
    KeyMismatch {
        /// The directory.
        dir: PathBuf,
    },
    /// A certificate request that is not one, or whose signature does not hold.
    #[error("the certificate request is not well-formed or not signed by its own key")]
    Request,
    /// The certificate does not belong to the key that waits for it, or not to that authority.
    #[error("the certificate received does not belong to the key that was sent")]
    ForeignCertificate,
    /// A certificate names nobody.
    #[error("cannot read the identity of the certificate")]
    Identity(#[from] IdentityError),
    /// An alternative name that is no DNS name.
    #[error("'{name}' is neither a DNS name nor an address")]
    AlternativeName {
        /// The text.
        name: String,
    },
    /// The cryptographic library refused.
    #[error("cannot create a key or certificate")]
    Crypto(#[source] rcgen::Error),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

#[cfg(test)]
mod tests;
