//! One-time enrolment tokens: the introduction of a new element to its manager, and back.
//!
//! A token is one printable line. It carries a secret, by which the manager knows the joiner, and
//! the fingerprint of the authority, by which the joiner knows the manager. The manager keeps only
//! the SHA-256 of the secret ([`TokenRecord`]); storing the record is the caller's, and a record
//! must be stored as used *before* the certificate is sent.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use vnfpool_model::{ElementId, PoolHandle};

use crate::pki::{CaFingerprint, KeyFingerprint};
use crate::sha256;

const PREFIX: &str = "vnfpool1.";
const CHECKSUM_BYTES: usize = 4;
/// More addresses than a manager has; a token stays one line.
const ADDRESSES_MAX: usize = 8;

/// The public name of a token: 8 random bytes, shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 8]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

/// The secret half of a token. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(pub(crate) [u8; 32]);

impl TokenSecret {
    /// The secret from bytes that came over the enrolment connection.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(elided)")
    }
}

/// An enrolment token as its bearer holds it. `Display` gives the line to hand over, which is a
/// secret; `Debug` does not show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    id: TokenId,
    secret: TokenSecret,
    authority: CaFingerprint,
    managers: Vec<SocketAddr>,
}

impl Token {
    /// Makes a token and the record that the manager keeps of it.
    ///
    /// `managers` are the addresses at which the joiner may call, at most 8 are kept; they may be
    /// empty if the joiner is told otherwise. `expires_unix_ms` is on the manager's clock.
    ///
    /// # Errors
    /// [`TokenError::Random`] if the system gives no random bytes.
    pub fn create(
        pool: PoolHandle,
        element: ElementId,
        authority: CaFingerprint,
        managers: &[SocketAddr],
        expires_unix_ms: u64,
    ) -> Result<(Self, TokenRecord), TokenError> {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        aws_lc_rs::rand::fill(&mut id).map_err(|_| TokenError::Random)?;
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| TokenError::Random)?;
        let token = Self {
            id: TokenId(id),
            secret: TokenSecret(secret),
            authority,
            managers: managers.iter().take(ADDRESSES_MAX).copied().collect(),
        };
        let record = TokenRecord {
            id: token.id,
            secret_sha256: sha256(&secret),
            pool,
            element,
            expires_unix_ms,
            used: None,
        };
        Ok((token, record))
    }

    /// The public name of the token.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// The secret, to be sent to a manager of [`Token::authority`] and to nobody else.
    #[must_use]
    pub fn secret(&self) -> &TokenSecret {
        &self.secret
    }

    /// The authority whose manager may see the secret.
    #[must_use]
    pub fn authority(&self) -> CaFingerprint {
        self.authority
    }

    /// Where managers may be called; may be empty.
    #[must_use]
    pub fn managers(&self) -> &[SocketAddr] {
        &self.managers
    }

    #[cfg(test)]
    pub(crate) fn forge_secret(&mut self) {
        self.secret.0[0] ^= 1;
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(&self.secret.0);
        bytes.extend_from_slice(&self.authority.0);
        for manager in &self.managers {
            match manager.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&manager.port().to_be_bytes());
        }
        let checksum = sha256(&bytes);
        bytes.extend_from_slice(&checksum[..CHECKSUM_BYTES]);
        bytes
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&self.encode()))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = BASE64URL_NOPAD
            .decode(encoded.as_bytes())
            .map_err(|_| TokenError::Damaged)?;
        let content_bytes = bytes
            .len()
            .checked_sub(CHECKSUM_BYTES)
            .ok_or(TokenError::Damaged)?;
        let (content, checksum) = bytes.split_at(content_bytes);
        if sha256(content)[..CHECKSUM_BYTES] != *checksum {
            return Err(TokenError::Damaged);
        }
        let mut rest = content;
        let id = TokenId(take(&mut rest)?);
        let secret = TokenSecret(take(&mut rest)?);
        let authority = CaFingerprint(take(&mut rest)?);
        let mut managers = Vec::new();
        while !rest.is_empty() && managers.len() < ADDRESSES_MAX {
            let ip = match take::<1>(&mut rest)? {
                [4] => IpAddr::from(take::<4>(&mut rest)?),
                [6] => IpAddr::from(take::<16>(&mut rest)?),
                _ => return Err(TokenError::Damaged),
            };
            managers.push(SocketAddr::new(ip, u16::from_be_bytes(take(&mut rest)?)));
        }
        if !rest.is_empty() {
            return Err(TokenError::Damaged);
        }
        Ok(Self {
            id,
            secret,
            authority,
            managers,
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], TokenError> {
    let (head, tail) = rest.split_first_chunk().ok_or(TokenError::Damaged)?;
    *rest = tail;
    Ok(*head)
}

/// Why a text is no token, or none could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Another kind of text.
    #[error("this is no enrolment token: one begins with 'vnfpool1.'")]
    Prefix,
    /// Characters are missing or changed.
    #[error("the enrolment token is incomplete or damaged: copy the whole line again")]
    Damaged,
    /// No random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// What the manager keeps of a token. Contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The token's public name.
    pub id: TokenId,
    /// SHA-256 of the secret.
    pub secret_sha256: [u8; 32],
    /// The pool that the bearer may join.
    pub pool: PoolHandle,
    /// The element that the bearer becomes.
    pub element: ElementId,
    /// When it ends, milliseconds since 1970 on the manager's clock.
    pub expires_unix_ms: u64,
    /// When it was used and for which key.
    pub used: Option<TokenUse>,
}

/// The one use of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// Milliseconds since 1970 on the manager's clock.
    pub at_unix_ms: u64,
    /// The key it was used for.
    pub key: KeyFingerprint,
}

impl TokenRecord {
    /// Checks a bearer's secret and marks the record as used for this key.
    ///
    /// Asking again for the same key before the token expires is allowed, since the answer may have
    /// been lost: the certificate is of no use to anybody but the owner of the same key. The
    /// caller stores the record before it issues the certificate. On a refusal nothing changes.
    ///
    /// # Errors
    /// [`TokenRefusal`], for the log; tell the bearer only that the token was refused.
    pub fn redeem(
        &mut self,
        secret: &TokenSecret,
        key: KeyFingerprint,
        now_unix_ms: u64,
    ) -> Result<(), TokenRefusal> {
        // In constant time: the time taken must not tell how much of a guess was right.
        if verify_slices_are_equal(&sha256(&secret.0), &self.secret_sha256).is_err() {
            return Err(TokenRefusal::WrongSecret);
        }
        if now_unix_ms >= self.expires_unix_ms {
            return Err(TokenRefusal::Expired);
        }
        match &self.used {
            Some(previous) if previous.key != key => Err(TokenRefusal::Used),
            Some(_) => Ok(()),
            None => {
                self.used = Some(TokenUse {
                    at_unix_ms: now_unix_ms,
                    key,
                });
                Ok(())
            }
        }
    }
}

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRefusal {
    /// No record of that name.
    #[error("the token is not known here")]
    Unknown,
    /// The secret does not belong to the record.
    #[error("the token's secret is wrong")]
    WrongSecret,
    /// Its time is over.
    #[error("the token has expired: create another one with 'vnfpool token create'")]
    Expired,
    /// It was used for another key.
    #[error("the token was used already: create another one with 'vnfpool token create'")]
    Used,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: KeyFingerprint = KeyFingerprint([1; 32]);
    const B: KeyFingerprint = KeyFingerprint([2; 32]);

    fn create(managers: &[SocketAddr]) -> (Token, TokenRecord) {
        Token::create(
            "edge".parse().unwrap(),
            "gw1".parse().unwrap(),
            CaFingerprint([7; 32]),
            managers,
            1_000,
        )
        .unwrap()
    }

    #[test]
    fn a_token_is_one_printable_line_and_round_trips() {
        let managers = [
            "10.9.0.10:7400".parse().unwrap(),
            "[fd00:9::10]:7400".parse().unwrap(),
        ];
        for managers in [&managers[..], &[]] {
            let (token, _) = create(managers);
            let line = token.to_string();
            assert!(line.chars().all(|c| c.is_ascii_graphic()), "{line}");
            assert_eq!(format!(" {line}\n").parse::<Token>().unwrap(), token);
            assert!(!format!("{token:?}").contains(&line[20..40]));
        }
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let line = create(&[]).0.to_string();
        assert_eq!("".parse::<Token>(), Err(TokenError::Prefix));
        for length in PREFIX.len()..line.len() {
            assert_eq!(line[..length].parse::<Token>(), Err(TokenError::Damaged));
        }
    }

    #[test]
    fn a_token_is_good_for_one_key_until_it_expires() {
        let (token, mut record) = create(&[]);
        let unused = record.clone();
        let wrong = TokenSecret([0; 32]);
        assert_eq!(record.redeem(&wrong, A, 1), Err(TokenRefusal::WrongSecret));
        assert_eq!(
            record.redeem(token.secret(), A, 1_000),
            Err(TokenRefusal::Expired)
        );
        assert_eq!(record, unused, "a refusal changes nothing");
        record.redeem(token.secret(), A, 999).unwrap();
        let used = record.clone();
        assert_eq!(
            record.redeem(token.secret(), B, 999),
            Err(TokenRefusal::Used)
        );
        record.redeem(token.secret(), A, 999).unwrap();
        assert_eq!(
            record.redeem(token.secret(), A, 1_000),
            Err(TokenRefusal::Expired)
        );
        assert_eq!(record, used);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,120}", tail in "[A-Za-z0-9_-]{0,160}") {
            prop_assert!(text.parse::<Token>().is_err());
            let with_prefix = format!("{PREFIX}{tail}");
            prop_assert!(with_prefix.parse::<Token>().is_err());
        }
    }
}
