//! Sealed heartbeat datagrams: authenticated, encrypted, never accepted twice.
//!
//! Both ends of a connection derive the keys from its TLS session
//! ([`crate::quic::Connection::export_key`]): a restart makes a new session, new keys and a new
//! key id, so the sequence may begin again and nothing recorded before is of any use. Each
//! direction has keys of its own, so a datagram cannot be reflected.
//!
//! ```text
//!  0       2   3   4           8                       16
//! +-------+---+---+-----------+-----------------------+---------------+-----------+
//! | "VP"  |ver|kind|  key id  |       sequence        |  sealed body  | tag (16)  |
//! +-------+---+---+-----------+-----------------------+---------------+-----------+
//! |<------------ header: in clear, authenticated ---->|
//! ```
//!
//! All numbers are big-endian. AEAD: AES-128-GCM (RFC 5116), nonce = IV xor sequence as in
//! RFC 8446 §5.3, keys by HKDF-SHA256 (RFC 5869). Nothing here allocates after construction.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};

/// Bytes before the sealed body.
pub const HEADER_BYTES: usize = 16;
/// Bytes after the sealed body.
pub const TAG_BYTES: usize = 16;
/// What sealing adds to a body.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// How far behind the newest sequence a datagram may arrive: several paths, one sequence.
pub const WINDOW_ENTRIES: u64 = 1024;

const MAGIC: [u8; 2] = *b"VP";
const VERSION: u8 = 2;
const NONCE_BYTES: usize = 12;
const KEY_BYTES: usize = 16;
const WINDOW_WORDS: usize = 16;

/// The kind of a datagram that only says "I am here": unsealed, believed by nobody, and enough to
/// keep whoever serves on evidence alone from doing so (docs/succession.md, S5).
pub const HELLO_KIND: u8 = 0;

/// What is sent to a peer for which there are no keys yet.
#[must_use]
pub fn hello() -> [u8; OVERHEAD_BYTES] {
    let header = Header {
        kind: HELLO_KIND,
        key_id: 0,
        sequence: 0,
    };
    let mut datagram = [0; OVERHEAD_BYTES];
    datagram[..HEADER_BYTES].copy_from_slice(&header.write());
    datagram
}

/// Which end of the TLS session this is; both ends must differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that opened the connection.
    Initiator,
    /// The end that accepted it.
    Responder,
}

/// Derives the two keys of one end from the session's exported secret.
///
/// # Errors
/// [`DeriveError`] only if the cryptographic library fails.
pub fn derive(secret: &[u8; 32], side: Side) -> Result<(SealKey, OpenKey), DeriveError> {
    let (own, peer): (&[u8], &[u8]) = match side {
        Side::Initiator => (b"initiator", b"responder"),
        Side::Responder => (b"responder", b"initiator"),
    };
    let own = DirectionKey::derive(secret, own)?;
    let peer = DirectionKey::derive(secret, peer)?;
    Ok((
        SealKey {
            key: own,
            sequence: 0,
        },
        OpenKey {
            key: peer,
            window: ReplayWindow::default(),
        },
    ))
}

/// Key derivation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot derive the heartbeat keys from the session")]
pub struct DeriveError;

/// The header of a datagram, before anything is known to be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is; the meaning is the caller's.
    pub kind: u8,
    /// Which key opens it: compare with [`OpenKey::key_id`].
    pub key_id: u32,
    /// Counts up from 1 with every datagram under one key.
    pub sequence: u64,
}

impl Header {
    /// Reads the header of a received datagram, to find the key that opens it.
    ///
    /// # Errors
    /// [`OpenError::Truncated`], [`OpenError::Foreign`] or [`OpenError::Version`].
    pub fn read(datagram: &[u8]) -> Result<Self, OpenError> {
        if datagram.len() < OVERHEAD_BYTES {
            return Err(OpenError::Truncated {
                length: datagram.len(),
            });
        }
        let (header, _) =
            datagram
                .split_first_chunk::<HEADER_BYTES>()
                .ok_or(OpenError::Truncated {
                    length: datagram.len(),
                })?;
        let [m0, m1, version, kind, k0, k1, k2, k3, sequence @ ..] = *header;
        if [m0, m1] != MAGIC {
            return Err(OpenError::Foreign);
        }
        if version != VERSION {
            return Err(OpenError::Version { version });
        }
        Ok(Self {
            kind,
            key_id: u32::from_be_bytes([k0, k1, k2, k3]),
            sequence: u64::from_be_bytes(sequence),
        })
    }

    fn write(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = VERSION;
        bytes[3] = self.kind;
        bytes[4..8].copy_from_slice(&self.key_id.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }
}

/// Seals what one end sends.
#[derive(Debug)]
pub struct SealKey {
    key: DirectionKey,
    sequence: u64,
}

impl SealKey {
    /// The key id in the headers of what this key seals.
    #[must_use]
    pub fn key_id(&self) -> u32 {
        self.key.id
    }

    /// The sequence of the newest datagram; 0 before the first.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Goes on after `sequence` as if everything up to it had been used: another process of the
    /// same life may have used any of it.
    pub fn skip_to(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// Writes a sealed datagram into `out` and returns its length,
    /// [`OVERHEAD_BYTES`] more than the body's. Does not allocate.
    ///
    /// The same bytes may be sent over several paths: the receiver's replay window keeps the first
    /// copy.
    ///
    /// # Errors
    /// `out` is too small, or 2^64 datagrams were sealed.
    pub fn seal(&mut self, kind: u8, body: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let length = body.len() + OVERHEAD_BYTES;
        let available = out.len();
        let datagram = out.get_mut(..length).ok_or(SealError::Space {
            needed: length,
            available,
        })?;
        let sequence = self.sequence.checked_add(1).ok_or(SealError::Exhausted)?;
        let header = Header {
            kind,
            key_id: self.key.id,
            sequence,
        }
        .write();
        let (head, rest) = datagram.split_at_mut(HEADER_BYTES);
        let (sealed, tail) = rest.split_at_mut(body.len());
        head.copy_from_slice(&header);
        sealed.copy_from_slice(body);
        // The sequence is spent before it is used: a nonce must never serve twice.
        self.sequence = sequence;
        let tag = self
            .key
            .aead
            .seal_in_place_separate_tag(self.key.nonce(sequence), Aad::from(header), sealed)
            .map_err(|_| SealError::Crypto)?;
        tail.copy_from_slice(tag.as_ref());
        Ok(length)
    }
}

/// Why a datagram was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The buffer is too small.
    #[error("cannot seal a datagram of {needed} bytes into {available}")]
    Space {
        /// Bytes needed.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// The sequence has come to its end.
    #[error("the sequence of this key is used up: open a new connection")]
    Exhausted,
    /// The cryptographic library failed.
    #[error("cannot encrypt the datagram")]
    Crypto,
}

/// Opens what the other end sealed.
#[derive(Debug)]
pub struct OpenKey {
    key: DirectionKey,
    window: ReplayWindow,
}

/// What a datagram held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// What the body is.
    pub kind: u8,
    /// The sequence of the datagram.
    pub sequence: u64,
    /// The body in clear.
    pub body: &'a [u8],
}

impl OpenKey {
    /// The key id of the datagrams that this key opens.
    #[must_use]
    pub fn key_id(&self) -> u32 {
        self.key.id
    }

    /// The newest sequence that was accepted; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.window.newest
    }

    /// Accepts nothing up to `sequence` any more: another process of the same life may have
    /// accepted any of it.
    pub fn skip_to(&mut self, sequence: u64) {
        if sequence > self.window.newest {
            self.window = ReplayWindow {
                newest: sequence,
                seen: [u64::MAX; WINDOW_WORDS],
            };
        }
    }

    /// Checks and decrypts a datagram in place. Does not allocate. Whatever is wrong with it, the
    /// key's state stays as it was: a forged datagram cannot move the window.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        let header = Header::read(datagram)?;
        if header.key_id != self.key.id {
            return Err(OpenError::UnknownKey {
                key_id: header.key_id,
            });
        }
        // Cheap first: a flood of replays costs no cryptography.
        self.window.check(header.sequence)?;
        let (_, sealed) = datagram.split_at_mut(HEADER_BYTES);
        let body = self
            .key
            .aead
            .open_in_place(
                self.key.nonce(header.sequence),
                Aad::from(header.write()),
                sealed,
            )
            .map_err(|_| OpenError::Forged)?;
        self.window.mark(header.sequence);
        Ok(Opened {
            kind: header.kind,
            sequence: header.sequence,
            body,
        })
    }
}

/// Why a datagram was not opened. All of them are the sender's or the network's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Shorter than header and tag.
    #[error("a datagram of {length} bytes is too short")]
    Truncated {
        /// Its length.
        length: usize,
    },
    /// Not one of ours.
    #[error("not a datagram of vnfpool")]
    Foreign,
    /// Of another version.
    #[error("datagram version {version} is not known here, only 1 is")]
    Version {
        /// The version it says.
        version: u8,
    },
    /// Sealed with a key of another session or direction.
    #[error("sealed with another key ({key_id:08x})")]
    UnknownKey {
        /// The key id it says.
        key_id: u32,
    },
    /// The tag does not fit: changed on the way, or not by the owner of the key.
    #[error("the seal does not hold")]
    Forged,
    /// Seen before, or too old to know.
    #[error("sequence {sequence} was seen before or is too old")]
    Replayed {
        /// Its sequence.
        sequence: u64,
    },
}

/// Remembers which of the newest [`WINDOW_ENTRIES`] sequences were seen (RFC 6479 §2).
#[derive(Clone, Debug, Default)]
struct ReplayWindow {
    newest: u64,
    /// Bit `s % 1024` stands for sequence `s`.
    seen: [u64; WINDOW_WORDS],
}

impl ReplayWindow {
    fn check(&self, sequence: u64) -> Result<(), OpenError> {
        let too_old = sequence == 0
            || self
                .newest
                .checked_sub(sequence)
                .is_some_and(|behind| behind >= WINDOW_ENTRIES);
        let (word, bit) = Self::place(sequence);
        if too_old || (sequence <= self.newest && self.seen[word] & bit != 0) {
            return Err(OpenError::Replayed { sequence });
        }
        Ok(())
    }

    fn mark(&mut self, sequence: u64) {
        if sequence > self.newest {
            if sequence - self.newest >= WINDOW_ENTRIES {
                self.seen = [0; WINDOW_WORDS];
            } else {
                for skipped in self.newest + 1..sequence {
                    let (word, bit) = Self::place(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.newest = sequence;
        }
        let (word, bit) = Self::place(sequence);
        self.seen[word] |= bit;
    }

    fn place(sequence: u64) -> (usize, u64) {
        let index = sequence % WINDOW_ENTRIES;
        let word = usize::try_from(index / 64).unwrap_or(0);
        (word, 1 << (index % 64))
    }
}

struct DirectionKey {
    id: u32,
    iv: [u8; NONCE_BYTES],
    aead: LessSafeKey,
}

impl std::fmt::Debug for DirectionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DirectionKey({:08x})", self.id)
    }
}

/// How many bytes HKDF shall give.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl DirectionKey {
    fn derive(secret: &[u8; 32], direction: &[u8]) -> Result<Self, DeriveError> {
        let extracted = Salt::new(HKDF_SHA256, b"vnfpool heartbeat 1").extract(secret);
        let mut material = [0; 4 + NONCE_BYTES + KEY_BYTES];
        extracted
            .expand(&[direction], Length(material.len()))
            .and_then(|okm| okm.fill(&mut material))
            .map_err(|_| DeriveError)?;
        let [i0, i1, i2, i3, rest @ ..] = material;
        let (iv, key) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(DeriveError)?;
        let key = UnboundKey::new(&AES_128_GCM, key).map_err(|_| DeriveError)?;
        Ok(Self {
            id: u32::from_be_bytes([i0, i1, i2, i3]),
            iv: *iv,
            aead: LessSafeKey::new(key),
        })
    }

    fn nonce(&self, sequence: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, sequence_byte) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= sequence_byte;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
#[path = "datagram_tests.rs"]
mod tests;
