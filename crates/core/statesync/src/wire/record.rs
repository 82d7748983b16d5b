//! What a sender tells, many to a frame.
//!
//! ```text
//! 1 put      flags(1): 1 new   ttl s(4)  key length(2)  value length(2)  key  value
//! 2 delete   key length(2)  key
//! 3 begin    flags(1): 1 resync   generation(4)  count(2)  bucket(2) each; count 65535: all
//! 4 forget   count(2)  hash of a key(8) each
//! 5 end      generation(4)
//! 6 sums     first bucket(2)  count(2)  sum(8) each
//! 7 barrier
//! 8 mark     sent at ns(8)  behind µs(4)  round trip µs(4)  changes(8)
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{PAYLOAD_BYTES_MAX, WireError};
use crate::index::BUCKETS;
use crate::{Item, KEY_BYTES_MAX, VALUE_BYTES_MAX};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const BEGIN: u8 = 3;
const FORGET: u8 = 4;
const END: u8 = 5;
const SUMS: u8 = 6;
const BARRIER: u8 = 7;
const MARK: u8 = 8;

const FLAG: u8 = 1;
const ALL_BUCKETS: u16 = u16::MAX;

/// Most hashes in one [`Record::Forget`], most sums in one [`Record::Sums`].
pub const NUMBERS_MAX: usize = 1024;

/// One thing that a sender tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An entry as it is now.
    Put {
        /// The entry.
        item: Item,
        /// What the receiver has in its place is of another life and to be replaced.
        is_new: bool,
    },
    /// An entry is gone.
    Delete {
        /// Its key.
        key: Bytes,
    },
    /// A scan of the source begins.
    Begin {
        /// Names the scan; the next one's is greater by one, modulo 2^32.
        generation: u32,
        /// Changes before it were lost, or nothing is known of the receiver: the copy is not to be
        /// trusted before the end.
        resync: bool,
        /// Of these buckets every entry comes; those of before that do not are gone. None: of all.
        whole: Option<Vec<u16>>,
    },
    /// Entries that the scan did not find, by the hash of their keys.
    Forget {
        /// The hashes.
        keys: Vec<u64>,
    },
    /// The scan is complete.
    End {
        /// The scan.
        generation: u32,
    },
    /// Sums of buckets at this position of the stream.
    Sums {
        /// The first bucket.
        first: u16,
        /// The sums of it and those that follow.
        sums: Vec<u64>,
    },
    /// Somebody waits for the acknowledgement of everything before.
    Barrier,
    /// How things are at the source.
    Mark(Mark),
}

/// How things are at the source, told all the time: what a failover can say of what was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// When it was sent, by the sender's clock, in nanoseconds.
    pub sent_at_ns: u64,
    /// Everything that changed at the source earlier than so many microseconds before is told.
    pub behind_us: u32,
    /// The shortest time from sending to the acknowledgement so far, in microseconds.
    pub round_trip_us: u32,
    /// Changes told since the stream began.
    pub changes: u64,
}

/// Appends a [`Record::Put`] to `out`.
pub(crate) fn put(out: &mut BytesMut, item: &Item, is_new: bool) {
    out.reserve(10 + item.key.len() + item.value.len());
    out.put_u8(PUT);
    out.put_u8(u8::from(is_new));
    out.put_u32(item.ttl_s);
    out.put_u16(length(&item.key));
    out.put_u16(length(&item.value));
    out.put_slice(&item.key);
    out.put_slice(&item.value);
}

/// Appends a [`Record::Delete`] to `out`.
pub(crate) fn delete(out: &mut BytesMut, key: &[u8]) {
    out.put_u8(DELETE);
    out.put_u16(length(key));
    out.put_slice(key);
}

impl Record {
    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Put { item, is_new } => put(out, item, *is_new),
            Self::Delete { key } => delete(out, key),
            Self::Begin {
                generation,
                resync,
                whole,
            } => {
                out.put_u8(BEGIN);
                out.put_u8(u8::from(*resync));
                out.put_u32(*generation);
                match whole {
                    None => out.put_u16(ALL_BUCKETS),
                    Some(buckets) => {
                        out.put_u16(count(buckets.len()));
                        buckets.iter().for_each(|bucket| out.put_u16(*bucket));
                    }
                }
            }
            Self::Forget { keys } => {
                out.put_u8(FORGET);
                out.put_u16(count(keys.len()));
                keys.iter().for_each(|key| out.put_u64(*key));
            }
            Self::End { generation } => {
                out.put_u8(END);
                out.put_u32(*generation);
            }
            Self::Sums { first, sums } => {
                out.put_u8(SUMS);
                out.put_u16(*first);
                out.put_u16(count(sums.len()));
                sums.iter().for_each(|sum| out.put_u64(*sum));
            }
            Self::Barrier => out.put_u8(BARRIER),
            Self::Mark(mark) => {
                out.put_u8(MARK);
                out.put_u64(mark.sent_at_ns);
                out.put_u32(mark.behind_us);
                out.put_u32(mark.round_trip_us);
                out.put_u64(mark.changes);
            }
        }
    }
}

/// The records of a frame, cut one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// How many there are, from 1.
    pub(super) count: u16,
    pub(super) bytes: Bytes,
}

impl Records {
    /// These records as the payload of a frame.
    ///
    /// # Panics
    /// When they are none, or more than one frame holds.
    #[must_use]
    pub fn new(records: &[Record]) -> Self {
        let mut bytes = BytesMut::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        assert!(!records.is_empty() && bytes.len() <= PAYLOAD_BYTES_MAX);
        Self {
            count: count(records.len()),
            bytes: bytes.freeze(),
        }
    }

    /// How many are left.
    #[must_use]
    pub const fn left(&self) -> u16 {
        self.count
    }

    /// Bytes of their frame.
    #[must_use]
    pub(crate) fn wire_bytes(&self) -> usize {
        super::HEADER_BYTES + self.bytes.len()
    }

    fn cut(&mut self) -> Option<Record> {
        let bytes = &mut self.bytes;
        Some(match bytes.try_get_u8().ok()? {
            PUT => {
                let is_new = flag(bytes)?;
                let ttl_s = bytes.try_get_u32().ok()?;
                let key_length = usize::from(bytes.try_get_u16().ok()?);
                let value_length = usize::from(bytes.try_get_u16().ok()?);
                let key = slice(bytes, key_length, KEY_BYTES_MAX)?;
                let value = slice(bytes, value_length, VALUE_BYTES_MAX)?;
                let item = Item { key, value, ttl_s };
                Record::Put { item, is_new }
            }
            DELETE => {
                let length = usize::from(bytes.try_get_u16().ok()?);
                let key = slice(bytes, length, KEY_BYTES_MAX)?;
                Record::Delete { key }
            }
            BEGIN => Record::Begin {
                resync: flag(bytes)?,
                generation: bytes.try_get_u32().ok()?,
                whole: match bytes.try_get_u16().ok()? {
                    ALL_BUCKETS => None,
                    count if count <= BUCKETS => {
                        let bucket = |_| bytes.try_get_u16().ok().filter(|one| *one < BUCKETS);
                        Some((0..count).map(bucket).collect::<Option<_>>()?)
                    }
                    _ => return None,
                },
            },
            FORGET => Record::Forget {
                keys: numbers(bytes)?,
            },
            END => Record::End {
                generation: bytes.try_get_u32().ok()?,
            },
            SUMS => {
                let first = bytes.try_get_u16().ok()?;
                let sums = numbers(bytes)?;
                let fits = usize::from(first) + sums.len() <= usize::from(BUCKETS);
                fits.then_some(Record::Sums { first, sums })?
            }
            BARRIER => Record::Barrier,
            MARK => Record::Mark(Mark {
                sent_at_ns: bytes.try_get_u64().ok()?,
                behind_us: bytes.try_get_u32().ok()?,
                round_trip_us: bytes.try_get_u32().ok()?,
                changes: bytes.try_get_u64().ok()?,
            }),
            _ => return None,
        })
    }
}

/// One by one; after an error nothing more.
impl Iterator for Records {
    type Item = Result<Record, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let cut = match self.count.checked_sub(1) {
            None if self.bytes.is_empty() => return None,
            None => None,
            Some(left) => {
                self.count = left;
                self.cut()
            }
        };
        if cut.is_none() {
            self.count = 0;
            self.bytes.clear();
        }
        Some(cut.ok_or(WireError::Record))
    }
}

fn flag(bytes: &mut Bytes) -> Option<bool> {
    let flags = bytes.try_get_u8().ok()?;
    (flags & !FLAG == 0).then_some(flags == FLAG)
}

fn slice(bytes: &mut Bytes, length: usize, max: usize) -> Option<Bytes> {
    (length <= max && length <= bytes.len()).then(|| bytes.split_to(length))
}

fn numbers(bytes: &mut Bytes) -> Option<Vec<u64>> {
    let count = usize::from(bytes.try_get_u16().ok()?);
    // Before anything is allocated for them.
    let fits = count <= NUMBERS_MAX && count * 8 <= bytes.len();
    fits.then(|| (0..count).map(|_| bytes.get_u64()).collect())
}

/// Lengths are bounded by the constants above, well below the wire's.
fn length(bytes: &[u8]) -> u16 {
    count(bytes.len())
}

fn count(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
