//! Frames of the state stream. All numbers in network byte order.
//!
//! ```text
//! magic "VPSS"(4)  version(1)  kind(1)  flags(2)  epoch(8)  generation(4)  length(4)  sequence(8)
//! payload(length)
//! ```
//!
//! | kind | from | payload |
//! |---|---|---|
//! | 1 snapshot begin | sender | none; flag 1: after a gap, the copy is not to be trusted before the end |
//! | 2 upsert | sender | the entry; flag 1: new, flag 2: part of the snapshot |
//! | 3 delete | sender | the key |
//! | 4 snapshot end | sender | number of upserts with flag 2 since the begin(8) |
//! | 5 barrier | sender | id(8) |
//! | 16 ack | receiver | none; everything up to the header's sequence is applied |
//! | 17 barrier done | receiver | id(8) |
//! | 18 refused | receiver | reason(1), highest version it speaks(1) |
//!
//! Magic, version, and kind 18 with its payload stay the same in all versions, so that a peer of
//! another version gets a clear refusal.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version of the stream that this crate speaks.
pub const VERSION: u8 = 1;
/// Length of the fixed header.
pub const HEADER_BYTES: usize = 32;
/// Longest payload.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

const MAGIC: [u8; 4] = *b"VPSS";

const FLAG_NEW: u16 = 1;
const FLAG_SNAPSHOT: u16 = 2;

const SNAPSHOT_BEGIN: u8 = 1;
const UPSERT: u8 = 2;
const DELETE: u8 = 3;
const SNAPSHOT_END: u8 = 4;
const BARRIER: u8 = 5;
const ACK: u8 = 16;
const BARRIER_DONE: u8 = 17;
const REFUSED: u8 = 18;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Fencing token of the sender's epoch (`Epoch::fencing_token`).
    pub epoch: u64,
    /// The snapshot that the frame belongs to or follows.
    pub generation: u32,
    /// Position in the stream; of a receiver's frames only [`Body::Ack`] uses it.
    pub sequence: u64,
    /// What it says.
    pub body: Body,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A snapshot begins.
    SnapshotBegin {
        /// Changes before it were lost; otherwise it only refreshes a copy that is in sync.
        resync: bool,
    },
    /// An entry as it is now.
    Upsert {
        /// The receiver should not have it yet; what it has in its place is to be replaced.
        is_new: bool,
        /// Part of the snapshot, not a change.
        from_snapshot: bool,
        /// The entry; opaque here.
        entry: Bytes,
    },
    /// An entry is gone.
    Delete {
        /// Its key; opaque here.
        key: Bytes,
    },
    /// The snapshot is complete: what was not in it, or came since, does not exist.
    SnapshotEnd {
        /// Number of upserts with `from_snapshot` since the begin.
        count: u64,
    },
    /// Answer when everything before is applied.
    Barrier {
        /// Names the barrier.
        id: u64,
    },
    /// Everything up to the frame's sequence is applied.
    Ack,
    /// Everything before the barrier is applied.
    BarrierDone {
        /// The barrier.
        id: u64,
    },
    /// The receiver will have nothing to do with this stream.
    Refused {
        /// Why.
        reason: Refusal,
        /// The highest version that the receiver speaks.
        version: u8,
    },
}

/// Why a receiver refuses a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Its version is not spoken.
    #[error("the receiver does not speak this version of the state stream")]
    Version,
    /// Bytes that are no frame, or a frame that only receivers send.
    #[error("the receiver got something that is no frame of the state stream")]
    Malformed,
    /// The receiver knows a newer epoch.
    #[error("the receiver knows a newer epoch of the slot")]
    OldEpoch,
    /// In the receiver's newest epoch the sender is not the active, or the receiver is.
    #[error("in the newest epoch the sender is not the active of the receiver's slot")]
    Role,
    /// Sequence, generation or count do not follow from what came before.
    #[error("the receiver missed a part of the state stream")]
    Gap,
    /// More was sent without acknowledgement than agreed.
    #[error("the sender sent more than the receiver can hold")]
    Overload,
    /// The receiver could not apply the state.
    #[error("the receiver could not apply the state")]
    Failed,
    /// A reason of a newer version.
    #[error("the receiver refused the state stream for the unknown reason {0}")]
    Other(u8),
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Something else than a state stream.
    #[error("the bytes are not a state stream")]
    Magic,
    /// Another version.
    #[error("the state stream has version {found}, this program speaks version 1")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A kind that is not defined.
    #[error("state frame of unknown kind {kind}")]
    Kind {
        /// The kind found.
        kind: u8,
    },
    /// A payload longer than [`PAYLOAD_BYTES_MAX`].
    #[error("state frame announces {length} bytes, more than the limit of 65536")]
    TooLong {
        /// The length found.
        length: u32,
    },
    /// Flags or payload do not go with the kind.
    #[error("state frame of kind {kind} has undefined flags or a payload of a wrong length")]
    Malformed {
        /// The kind.
        kind: u8,
    },
}

impl Frame {
    /// Appends the frame to `out` and returns its length in bytes.
    pub fn encode(&self, out: &mut BytesMut) -> usize {
        let id;
        let refused;
        let (kind, flags, payload): (u8, u16, &[u8]) = match &self.body {
            Body::SnapshotBegin { resync } => (SNAPSHOT_BEGIN, flag(*resync, FLAG_NEW), &[]),
            Body::Upsert {
                is_new,
                from_snapshot,
                entry,
            } => (
                UPSERT,
                flag(*is_new, FLAG_NEW) | flag(*from_snapshot, FLAG_SNAPSHOT),
                entry,
            ),
            Body::Delete { key } => (DELETE, 0, key),
            Body::SnapshotEnd { count } => {
                id = count.to_be_bytes();
                (SNAPSHOT_END, 0, &id)
            }
            Body::Barrier { id: barrier } => {
                id = barrier.to_be_bytes();
                (BARRIER, 0, &id)
            }
            Body::Ack => (ACK, 0, &[]),
            Body::BarrierDone { id: barrier } => {
                id = barrier.to_be_bytes();
                (BARRIER_DONE, 0, &id)
            }
            Body::Refused { reason, version } => {
                refused = [reason.code(), *version];
                (REFUSED, 0, &refused)
            }
        };
        out.reserve(HEADER_BYTES + payload.len());
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(kind);
        out.put_u16(flags);
        out.put_u64(self.epoch);
        out.put_u32(self.generation);
        out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        out.put_u64(self.sequence);
        out.put_slice(payload);
        HEADER_BYTES + payload.len()
    }

    /// Length of the frame on the wire.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        HEADER_BYTES
            + match &self.body {
                Body::Upsert { entry, .. } => entry.len(),
                Body::Delete { key } => key.len(),
                Body::SnapshotEnd { .. } | Body::Barrier { .. } | Body::BarrierDone { .. } => 8,
                Body::Refused { .. } => 2,
                Body::SnapshotBegin { .. } | Body::Ack => 0,
            }
    }
}

/// Cuts a stream of bytes into frames. Holds at most one incomplete frame beyond what it was
/// given.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    failed: Option<WireError>,
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they were received.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next complete frame, or none until more bytes come.
    ///
    /// # Errors
    /// [`WireError`]; the stream cannot be used further, and the error comes again.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.cut().inspect_err(|error| {
            self.failed = Some(*error);
            self.buffer = BytesMut::new();
        })
    }

    fn cut(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(header) = Header::read(&self.buffer)? else {
            return Ok(None);
        };
        if self.buffer.len() < HEADER_BYTES + header.length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let payload = self.buffer.split_to(header.length).freeze();
        Ok(Some(Frame {
            epoch: header.epoch,
            generation: header.generation,
            sequence: header.sequence,
            body: body(header.kind, header.flags, payload)?,
        }))
    }
}

struct Header {
    kind: u8,
    flags: u16,
    epoch: u64,
    generation: u32,
    length: usize,
    sequence: u64,
}

impl Header {
    /// Complains as early as the bytes allow: a wrong peer may never send a whole header.
    fn read(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes.get(..seen) != MAGIC.get(..seen) {
            return Err(WireError::Magic);
        }
        if let Some(&found) = bytes.get(4).filter(|version| **version != VERSION) {
            return Err(WireError::Version { found });
        }
        let Some(mut fields) = bytes.get(5..HEADER_BYTES) else {
            return Ok(None);
        };
        let (kind, flags) = (fields.get_u8(), fields.get_u16());
        let (epoch, generation) = (fields.get_u64(), fields.get_u32());
        let length = fields.get_u32();
        let sequence = fields.get_u64();
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= PAYLOAD_BYTES_MAX)
            .ok_or(WireError::TooLong { length })?;
        Ok(Some(Self {
            kind,
            flags,
            epoch,
            generation,
            length,
            sequence,
        }))
    }
}

fn body(kind: u8, flags: u16, payload: Bytes) -> Result<Body, WireError> {
    let malformed = WireError::Malformed { kind };
    let allowed = match kind {
        UPSERT => FLAG_NEW | FLAG_SNAPSHOT,
        SNAPSHOT_BEGIN => FLAG_NEW,
        _ => 0,
    };
    if flags & !allowed != 0 {
        return Err(malformed);
    }
    let id = || -> Result<u64, WireError> {
        let bytes = payload.as_ref().try_into().map_err(|_| malformed)?;
        Ok(u64::from_be_bytes(bytes))
    };
    let nothing = |body| {
        if payload.is_empty() {
            Ok(body)
        } else {
            Err(malformed)
        }
    };
    match kind {
        SNAPSHOT_BEGIN => nothing(Body::SnapshotBegin {
            resync: flags & FLAG_NEW != 0,
        }),
        UPSERT => Ok(Body::Upsert {
            is_new: flags & FLAG_NEW != 0,
            from_snapshot: flags & FLAG_SNAPSHOT != 0,
            entry: payload,
        }),
        DELETE => Ok(Body::Delete { key: payload }),
        SNAPSHOT_END => Ok(Body::SnapshotEnd { count: id()? }),
        BARRIER => Ok(Body::Barrier { id: id()? }),
        ACK => nothing(Body::Ack),
        BARRIER_DONE => Ok(Body::BarrierDone { id: id()? }),
        REFUSED => match payload[..] {
            [reason, version] => Ok(Body::Refused {
                reason: Refusal::from_code(reason),
                version,
            }),
            _ => Err(malformed),
        },
        _ => Err(WireError::Kind { kind }),
    }
}

impl Refusal {
    const fn code(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::Malformed => 2,
            Self::OldEpoch => 3,
            Self::Role => 4,
            Self::Gap => 5,
            Self::Overload => 6,
            Self::Failed => 7,
            Self::Other(code) => code,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::Malformed,
            3 => Self::OldEpoch,
            4 => Self::Role,
            5 => Self::Gap,
            6 => Self::Overload,
            7 => Self::Failed,
            other => Self::Other(other),
        }
    }
}

const fn flag(condition: bool, flag: u16) -> u16 {
    if condition { flag } else { 0 }
}
