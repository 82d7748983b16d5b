//! Frames of the state stream. All numbers in network byte order.
//!
//! ```text
//! magic "VPSS"(4)  version(1)  kind(1)  count(2)  epoch(8)  generation(4)  length(4)  sequence(8)
//! payload(length)
//! ```
//!
//! | kind | from | payload |
//! |---|---|---|
//! | 1 records | sender | `count` records ([`record`]); the sequence is that of the first, each of the others has the next one |
//! | 2 hello | sender | format(2) schema(2) level(9) secret of the hashes(16) name of the class |
//! | 16 ack | receiver | none; everything up to the header's sequence is applied |
//! | 18 refused | receiver | reason(1), highest version it speaks(1) |
//! | 19 accepted | receiver | level(9) |
//! | 20 differs | receiver | bucket(2) each: their sums are not those that were told |
//! | 21 swept | receiver | none; up to the header's generation the copy holds nothing that was not told |
//! | 22 lacks | receiver | entries(4) refused(4): told, and the table does not take them |
//! | 23 wants | receiver | hash of a key(8) each, 1 to 1024: the copy does not hold them as they were told |
//!
//! A level is its kind(1): 0 none, 1 eventual, 2 bounded, 3 commit; lag ms(4); entries(4).
//!
//! Magic, version, and kind 18 with its payload stay the same in all versions, so that a peer of
//! another version gets a clear refusal.

pub mod record;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::class::{Bounds, ClassName, Demand, Level};
use crate::index::{BUCKETS, HashKey};
use record::{NUMBERS_MAX, Records};

/// The version of the stream that this crate speaks.
pub const VERSION: u8 = 3;
/// Length of the fixed header.
pub const HEADER_BYTES: usize = 32;
/// Longest payload.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

const MAGIC: [u8; 4] = *b"VPSS";

const RECORDS: u8 = 1;
const HELLO: u8 = 2;
const ACK: u8 = 16;
const REFUSED: u8 = 18;
const ACCEPTED: u8 = 19;
const DIFFERS: u8 = 20;
const SWEPT: u8 = 21;
const LACKS: u8 = 22;
const WANTS: u8 = 23;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Fencing token of the sender's epoch (`Epoch::fencing_token`).
    pub epoch: u64,
    /// The scan that is under way or was the last.
    pub generation: u32,
    /// Position in the stream; of a receiver's frames only [`Body::Ack`] uses it.
    pub sequence: u64,
    /// What it says.
    pub body: Body,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// What happened at the source.
    Records(Records),
    /// What the stream will carry; its first frame.
    Hello {
        /// The class, and what is demanded of the receiver.
        demand: Demand,
        /// The secret of the stream's hashes.
        hash_key: HashKey,
    },
    /// Everything up to the frame's sequence is applied.
    Ack,
    /// The receiver will have nothing to do with this stream.
    Refused {
        /// Why.
        reason: Refusal,
        /// The highest version that the receiver speaks.
        version: u8,
    },
    /// The receiver holds the class at this level.
    Accepted {
        /// The level: the demanded one or less.
        level: Level,
    },
    /// The receiver has something else in these buckets.
    Differs {
        /// The buckets.
        buckets: Vec<u16>,
    },
    /// The receiver's table does not take entries that were told. What the next acknowledgement
    /// covers is not all there.
    Lacks {
        /// Told entries that are not there.
        entries: u32,
        /// Refusals since the last such frame.
        refused: u32,
    },
    /// What was not told is removed from the copy.
    Swept,
    /// The receiver's table had these entries as they were told, and has not any more.
    Wants {
        /// Hashes of their keys, at most [`record::NUMBERS_MAX`].
        keys: Vec<u64>,
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
    /// Sequence or generation do not follow from what came before.
    #[error("the receiver missed a part of the state stream")]
    Gap,
    /// More was sent without acknowledgement than agreed.
    #[error("the sender sent more than the receiver can hold")]
    Overload,
    /// The receiver could not apply the state.
    #[error("the receiver could not apply the state")]
    Failed,
    /// The receiver does not know the class or its format.
    #[error("the receiver does not know this class of state or its format")]
    Class,
    /// The schema is newer than the receiver.
    #[error("the receiver cannot read this schema: it is older than the sender, upgrade it")]
    Schema,
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
    #[error("the state stream has version {found}, this program speaks version {VERSION}")]
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
    #[error("state frame announces {length} bytes, more than the limit of {PAYLOAD_BYTES_MAX}")]
    TooLong {
        /// The length found.
        length: u32,
    },
    /// The payload does not go with the kind.
    #[error("state frame of kind {kind} has an undefined payload")]
    Malformed {
        /// The kind.
        kind: u8,
    },
    /// A record is cut off, too long, or of an unknown kind, or their number is wrong.
    #[error("a state frame holds bytes that are no records")]
    Record,
}

impl Frame {
    /// Appends the frame to `out` and returns its length in bytes.
    pub fn encode(&self, out: &mut BytesMut) -> usize {
        let mut payload = BytesMut::new();
        let kind = match &self.body {
            Body::Records(records) => {
                payload.extend_from_slice(&records.bytes);
                RECORDS
            }
            Body::Hello { demand, hash_key } => {
                payload.put_u16(demand.format);
                payload.put_u16(demand.schema);
                put_level(demand.level, &mut payload);
                payload.put_slice(hash_key);
                payload.put_slice(demand.class.as_str().as_bytes());
                HELLO
            }
            Body::Ack => ACK,
            Body::Refused { reason, version } => {
                payload.put_slice(&[reason.code(), *version]);
                REFUSED
            }
            Body::Accepted { level } => {
                put_level(*level, &mut payload);
                ACCEPTED
            }
            Body::Differs { buckets } => {
                buckets.iter().for_each(|bucket| payload.put_u16(*bucket));
                DIFFERS
            }
            Body::Lacks { entries, refused } => {
                payload.put_u32(*entries);
                payload.put_u32(*refused);
                LACKS
            }
            Body::Swept => SWEPT,
            Body::Wants { keys } => {
                keys.iter().for_each(|key| payload.put_u64(*key));
                WANTS
            }
        };
        let count = match &self.body {
            Body::Records(records) => records.count,
            _ => 0,
        };
        let header = Header {
            kind,
            count,
            epoch: self.epoch,
            generation: self.generation,
            length: payload.len(),
            sequence: self.sequence,
        };
        header.put(out);
        out.put_slice(&payload);
        HEADER_BYTES + payload.len()
    }
}

/// The records that a sender gathers for one frame.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    count: u16,
    payload: BytesMut,
}

impl Batch {
    /// Adds a record by the function that writes it.
    pub(crate) fn add(&mut self, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.payload);
        self.count += 1;
    }

    /// Bytes of the records so far.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len()
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
        self.payload.clear();
    }

    /// Appends the frame, whose last record has the sequence `last`, to `out`, and begins the next.
    /// Returns its length in bytes; 0 and nothing done without records.
    pub(crate) fn cut(
        &mut self,
        epoch: u64,
        generation: u32,
        last: u64,
        out: &mut BytesMut,
    ) -> usize {
        if self.count == 0 {
            return 0;
        }
        let header = Header {
            kind: RECORDS,
            count: self.count,
            epoch,
            generation,
            length: self.payload.len(),
            sequence: last + 1 - u64::from(self.count),
        };
        header.put(out);
        out.put_slice(&self.payload);
        self.clear();
        HEADER_BYTES + header.length
    }
}

fn put_level(level: Level, out: &mut BytesMut) {
    let bounds = level.bounds().unwrap_or(Bounds {
        lag_ms: 0,
        entries: 0,
    });
    out.put_u8(level.code());
    out.put_u32(bounds.lag_ms);
    out.put_u32(bounds.entries);
}

fn level(bytes: &mut Bytes) -> Option<Level> {
    let code = bytes.try_get_u8().ok()?;
    let bounds = Bounds {
        lag_ms: bytes.try_get_u32().ok()?,
        entries: bytes.try_get_u32().ok()?,
    };
    let level = Level::from_code(code, bounds)?;
    let has_sense = |bounds: Bounds| bounds.lag_ms > 0 && bounds.entries > 0;
    level.bounds().is_none_or(has_sense).then_some(level)
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
            body: body(&header, payload)?,
        }))
    }
}

struct Header {
    kind: u8,
    count: u16,
    epoch: u64,
    generation: u32,
    length: usize,
    sequence: u64,
}

impl Header {
    fn put(&self, out: &mut BytesMut) {
        out.reserve(HEADER_BYTES + self.length);
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.kind);
        out.put_u16(self.count);
        out.put_u64(self.epoch);
        out.put_u32(self.generation);
        out.put_u32(u32::try_from(self.length).unwrap_or(u32::MAX));
        out.put_u64(self.sequence);
    }

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
        let (kind, count) = (fields.get_u8(), fields.get_u16());
        let (epoch, generation) = (fields.get_u64(), fields.get_u32());
        let length = fields.get_u32();
        let sequence = fields.get_u64();
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= PAYLOAD_BYTES_MAX)
            .ok_or(WireError::TooLong { length })?;
        Ok(Some(Self {
            kind,
            count,
            epoch,
            generation,
            length,
            sequence,
        }))
    }
}

fn body(header: &Header, mut payload: Bytes) -> Result<Body, WireError> {
    let kind = header.kind;
    let malformed = WireError::Malformed { kind };
    if (kind == RECORDS) != (header.count > 0) {
        return Err(malformed);
    }
    let whole = payload.clone();
    let body = match kind {
        RECORDS => {
            return Ok(Body::Records(Records {
                count: header.count,
                bytes: payload,
            }));
        }
        HELLO => hello(&mut payload),
        ACK => Some(Body::Ack),
        REFUSED => match whole[..] {
            [reason, version] => {
                payload.clear();
                let reason = Refusal::from_code(reason);
                Some(Body::Refused { reason, version })
            }
            _ => None,
        },
        ACCEPTED => level(&mut payload).map(|level| Body::Accepted { level }),
        DIFFERS => {
            let bucket = || payload.try_get_u16().ok();
            let buckets: Vec<u16> = std::iter::from_fn(bucket).collect();
            let known = buckets.iter().all(|bucket| *bucket < BUCKETS);
            (known && !buckets.is_empty()).then_some(Body::Differs { buckets })
        }
        LACKS => lacks(&mut payload),
        SWEPT => Some(Body::Swept),
        WANTS => {
            let key = || payload.try_get_u64().ok();
            let keys: Vec<u64> = std::iter::from_fn(key).take(NUMBERS_MAX).collect();
            (!keys.is_empty()).then_some(Body::Wants { keys })
        }
        _ => return Err(WireError::Kind { kind }),
    };
    body.filter(|_| payload.is_empty()).ok_or(malformed)
}

fn lacks(payload: &mut Bytes) -> Option<Body> {
    let entries = payload.try_get_u32().ok()?;
    let refused = payload.try_get_u32().ok()?;
    Some(Body::Lacks { entries, refused })
}

fn hello(payload: &mut Bytes) -> Option<Body> {
    let format = payload.try_get_u16().ok()?;
    let schema = payload.try_get_u16().ok()?;
    let level = level(payload)?;
    let mut hash_key = HashKey::default();
    payload.try_copy_to_slice(&mut hash_key).ok()?;
    let name = payload.split_to(payload.len());
    let class = ClassName::new(str::from_utf8(&name).ok()?).ok()?;
    Some(Body::Hello {
        demand: Demand {
            class,
            format,
            schema,
            level,
        },
        hash_key,
    })
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
            Self::Class => 8,
            Self::Schema => 9,
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
            8 => Self::Class,
            9 => Self::Schema,
            other => Self::Other(other),
        }
    }
}
