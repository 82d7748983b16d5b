//! Who somebody is: the SPIFFE identity in a certificate.
//!
//! Role and pool come from the certificate and from nowhere else (draft §7: an element must not
//! be able to speak for another pool). An identity is one URI:
//! `spiffe://<trust-domain>/manager/<id>`, `/pool/<handle>/element/<id>`, `/sce/<id>` or
//! `/operator/<id>`.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use vnfpool_model::{ElementId, NameError, PoolHandle};
use x509_parser::extensions::GeneralName;

/// The longest trust domain in bytes (SPIFFE ID specification §2.1).
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// An identity within its trust domain, as the certificate's one URI name says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    /// Whose authority vouches for the identity.
    pub trust_domain: TrustDomain,
    /// The role and the name in that role.
    pub identity: Identity,
}

impl SpiffeId {
    /// An identity in a trust domain.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, identity: Identity) -> Self {
        Self {
            trust_domain,
            identity,
        }
    }

    /// Reads the identity from a certificate. Says nothing about the certificate's validity.
    ///
    /// # Errors
    /// The certificate does not parse, or has not exactly one URI name, or that is none of ours.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| IdentityError::Certificate)?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|_| IdentityError::Certificate)?
            .ok_or(IdentityError::UriCount { count: 0 })?;
        let mut uris = names.value.general_names.iter().filter_map(|name| {
            if let GeneralName::URI(uri) = name {
                Some(*uri)
            } else {
                None
            }
        });
        match (uris.next(), uris.count()) {
            (Some(uri), 0) => uri.parse(),
            (None, _) => Err(IdentityError::UriCount { count: 0 }),
            (Some(_), more) => Err(IdentityError::UriCount { count: more + 1 }),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.trust_domain, self.identity)
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let unknown = || IdentityError::Unknown {
            uri: uri.chars().take(200).collect(),
        };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(unknown)?;
        let (domain, path) = rest.split_once('/').ok_or_else(unknown)?;
        let identity = match path.split('/').collect::<Vec<_>>().as_slice() {
            ["manager", id] => Identity::Manager {
                id: PrincipalId::new(*id)?,
            },
            ["pool", pool, "element", element] => Identity::Element {
                pool: PoolHandle::new(*pool)?,
                element: ElementId::new(*element)?,
            },
            ["sce", id] => Identity::Sce {
                id: PrincipalId::new(*id)?,
            },
            ["operator", id] => Identity::Operator {
                id: PrincipalId::new(*id)?,
            },
            _ => return Err(unknown()),
        };
        Ok(Self::new(TrustDomain::new(domain)?, identity))
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = IdentityError;
    fn try_from(uri: String) -> Result<Self, IdentityError> {
        uri.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

/// A role and the name in that role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A pool manager.
    Manager {
        /// Its name.
        id: PrincipalId,
    },
    /// An element of one pool.
    Element {
        /// The pool that it belongs to.
        pool: PoolHandle,
        /// Its name in that pool.
        element: ElementId,
    },
    /// A service control entity (draft §4).
    Sce {
        /// Its name.
        id: PrincipalId,
    },
    /// A person or a program that operates the pools.
    Operator {
        /// Its name.
        id: PrincipalId,
    },
}

impl Identity {
    /// The role as one lower-case word, for metric labels and messages.
    #[must_use]
    pub fn role(&self) -> &'static str {
        match self {
            Self::Manager { .. } => "manager",
            Self::Element { .. } => "element",
            Self::Sce { .. } => "sce",
            Self::Operator { .. } => "operator",
        }
    }
}

/// The path of the SPIFFE URI without its first slash, such as `pool/edge/element/gw1`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manager { id } => write!(f, "manager/{id}"),
            Self::Element { pool, element } => write!(f, "pool/{pool}/element/{element}"),
            Self::Sce { id } => write!(f, "sce/{id}"),
            Self::Operator { id } => write!(f, "operator/{id}"),
        }
    }
}

/// The name of a manager, service control entity or operator; same alphabet as an element's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrincipalId(String);

impl PrincipalId {
    /// Parses a name: 1 to 63 of `a-z 0-9 - _ .`, beginning with a letter or digit.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with the text.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        // One alphabet for every name, so that any of them fits in a URI, a file and a label.
        ElementId::new(name).map(|checked| Self(checked.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for PrincipalId {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for PrincipalId {
    type Error = NameError;
    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<PrincipalId> for String {
    fn from(id: PrincipalId) -> Self {
        id.0
    }
}

/// The domain whose authority issues the certificates (SPIFFE ID specification §2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Parses a trust domain: 1 to 255 of `a-z 0-9 - _ .`, beginning with a letter or digit.
    ///
    /// # Errors
    /// [`IdentityError::TrustDomain`].
    pub fn new(name: impl Into<String>) -> Result<Self, IdentityError> {
        let name = name.into();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let first_is_plain = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if first_is_plain && name.len() <= TRUST_DOMAIN_BYTES_MAX && name.chars().all(allowed) {
            Ok(Self(name))
        } else {
            Err(IdentityError::TrustDomain {
                name: name.chars().take(200).collect(),
            })
        }
    }

    /// The domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;
    fn from_str(name: &str) -> Result<Self, IdentityError> {
        Self::new(name)
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = IdentityError;
    fn try_from(name: String) -> Result<Self, IdentityError> {
        Self::new(name)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

/// Why a certificate or a URI names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The certificate does not parse.
    #[error("cannot read the certificate: it is not well-formed X.509")]
    Certificate,
    /// SPIFFE wants exactly one URI among the alternative names.
    #[error("the certificate holds {count} URI names, exactly one is needed")]
    UriCount {
        /// How many there are.
        count: usize,
    },
    /// The URI is none of the forms above.
    #[error(
        "'{uri}' is no identity: expected spiffe://<domain>/manager/<id>, \
         /pool/<handle>/element/<id>, /sce/<id> or /operator/<id>"
    )]
    Unknown {
        /// The URI, shortened to 200 characters.
        uri: String,
    },
    /// The trust domain is not one.
    #[error("'{name}' is no trust domain: use a-z, 0-9, '-', '_' and '.', such as 'lab.example'")]
    TrustDomain {
        /// The text, shortened to 200 characters.
        name: String,
    },
    /// A name within the URI is not one.
    #[error("the identity holds a bad name")]
    Name(#[from] NameError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_four_forms_round_trip() {
        for uri in [
            "spiffe://lab.example/manager/m1",
            "spiffe://lab.example/pool/edge/element/gw1",
            "spiffe://lab.example/sce/orchestrator",
            "spiffe://lab.example/operator/first",
        ] {
            let id: SpiffeId = uri.parse().unwrap();
            assert_eq!(id.to_string(), uri);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for uri in [
            "",
            "spiffe://",
            "spiffe://lab.example",
            "spiffe:///manager/m1",
            "spiffe://lab.example/manager/",
            "spiffe://lab.example/manager/m1/",
            "spiffe://lab.example/pool/edge/element/gw1/x",
            "spiffe://lab.example/pool//element/gw1",
            "spiffe://lab.example/pool/edge/manager/gw1",
            "spiffe://Lab.example/manager/m1",
            "https://lab.example/manager/m1",
            "spiffe://lab.example/manager/..",
            "spiffe://lab.example/manager/m%31",
            "spiffe://user@lab.example/manager/m1",
            "spiffe://lab.example:80/manager/m1",
        ] {
            assert!(uri.parse::<SpiffeId>().is_err(), "{uri}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(uri in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(id) = uri.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), uri);
            }
            prop_assert!(SpiffeId::from_certificate(&CertificateDer::from(bytes)).is_err());
        }
    }
}
