//! Messages between a network function and its agent: protobuf, each behind its length.
//!
//! `docs/sdk.md` describes them byte for byte, for functions that are not written in Rust.

#![allow(missing_docs, reason = "generated; the comments stand in sdk.proto")]
#![allow(clippy::use_self, clippy::too_many_lines, reason = "generated")]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

include!(concat!(env!("OUT_DIR"), "/vnfpool.sdk.v1.rs"));

/// The version of the protocol that this build speaks.
pub const VERSION: u32 = 1;

/// Longest message without its length, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Longest key, in bytes; the shortest has one.
pub const KEY_BYTES_MAX: usize = 1_024;

/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 32 * 1_024;

/// Most classes of a function.
pub const CLASSES_MAX: usize = 16;

/// Longest name of a function, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of the length before each message.
pub const LENGTH_BYTES: usize = 4;

/// Why a stream of messages cannot be read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is above [`MESSAGE_BYTES_MAX`].
    #[error("a message of {length} bytes is longer than {MESSAGE_BYTES_MAX}: send smaller batches")]
    TooLong {
        /// As announced.
        length: u32,
    },
    /// The bytes are no message.
    #[error("a message cannot be decoded: {0}; see docs/sdk.md for the layout")]
    Malformed(#[from] prost::DecodeError),
}

/// Appends a message behind its length.
///
/// # Panics
/// On a message above [`MESSAGE_BYTES_MAX`], which the caller has to prevent.
pub fn encode(message: &impl Message, out: &mut BytesMut) {
    let length = message.encoded_len();
    assert!(length <= MESSAGE_BYTES_MAX, "a message of {length} bytes");
    out.reserve(LENGTH_BYTES + length);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(out);
}

/// Takes the next message from the front of `buffer`; none while it is not there in full.
///
/// # Errors
/// [`FrameError`] on what is no message: there is no way to find the next one.
pub fn decode<M: Message + Default>(buffer: &mut BytesMut) -> Result<Option<M>, FrameError> {
    match split(buffer)? {
        Some(bytes) => Ok(Some(M::decode(bytes)?)),
        None => Ok(None),
    }
}

fn split(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*prefix);
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if bytes > MESSAGE_BYTES_MAX {
        return Err(FrameError::TooLong { length });
    }
    if buffer.len() < LENGTH_BYTES + bytes {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(bytes).freeze()))
}

#[cfg(test)]
mod tests;
