//! Framed messages on a QUIC stream.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

use super::CloseReason;

/// Bytes of the length in front of each frame.
const LENGTH_BYTES: usize = 4;

/// What a stream is for. The number is its first byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamKind {
    /// Control messages.
    Control = 1,
    /// The one request and answer of an enrolment.
    Enrolment = 3,
}

impl StreamKind {
    /// The longest frame in bytes; a peer that announces a longer one loses the stream.
    #[must_use]
    pub fn frame_bytes_max(self) -> usize {
        match self {
            Self::Control => 256 * 1024,
            Self::Enrolment => 64 * 1024,
        }
    }

    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Enrolment => 3,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Control),
            3 => Some(Self::Enrolment),
            _ => None,
        }
    }
}

/// Sends frames.
#[derive(Debug)]
pub struct FrameWriter {
    stream: SendStream,
    kind: StreamKind,
    /// What a cancelled `send` has left; it goes out before anything else, so that a frame is
    /// never torn.
    pending: VecDeque<Bytes>,
}

impl FrameWriter {
    pub(crate) fn new(stream: SendStream, kind: StreamKind) -> Self {
        Self {
            stream,
            kind,
            pending: VecDeque::new(),
        }
    }

    /// Queues the byte that says what the stream is for, before the first frame.
    pub(crate) fn announce(&mut self) {
        let byte = self.kind.byte();
        self.pending.push_back(Bytes::copy_from_slice(&[byte]));
    }

    /// Sends one frame; waits while the peer or the network is slow. If the future is dropped
    /// before it is done, the frame is sent all the same, with the next `send` or [`Self::flush`].
    ///
    /// # Errors
    /// The frame is too long for this kind of stream, or stream or connection is over.
    pub async fn send(&mut self, frame: impl Into<Bytes>) -> Result<(), FrameError> {
        let frame = frame.into();
        let max = self.kind.frame_bytes_max();
        let length = u32::try_from(frame.len())
            .ok()
            .filter(|_| frame.len() <= max)
            .ok_or(FrameError::TooLong {
                length: frame.len(),
                max,
            })?;
        // What is left of cancelled sends first: the queue stays at one frame.
        self.flush().await?;
        self.pending
            .push_back(Bytes::copy_from_slice(&length.to_be_bytes()));
        self.pending.push_back(frame);
        self.flush().await
    }

    /// Sends what a cancelled `send` has left.
    ///
    /// # Errors
    /// Stream or connection is over.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        while !self.pending.is_empty() {
            let chunks = self.pending.make_contiguous();
            let written = self.stream.write_chunks(chunks).await?;
            self.pending.drain(..written.chunks);
        }
        Ok(())
    }

    /// Ends this direction of the stream; the peer's [`FrameReader::recv`] gives `None` then.
    ///
    /// # Errors
    /// Stream or connection is over.
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        self.stream.finish().map_err(|_| FrameError::StreamClosed)
    }

    /// Waits until the peer has received everything after [`Self::finish`], or is gone.
    pub async fn delivered(&mut self) {
        // Whatever the answer, there is nothing more to wait for.
        let _outcome = self.stream.stopped().await;
    }
}

/// Receives frames.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    kind: StreamKind,
    buffer: BytesMut,
    /// The length of the frame that is being read.
    expected: Option<usize>,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, kind: StreamKind) -> Self {
        Self {
            stream,
            kind,
            buffer: BytesMut::new(),
            expected: None,
        }
    }

    /// The next frame, or `None` if the peer has ended the stream. Dropping the future loses
    /// nothing, so it may stand in a `select!`.
    ///
    /// # Errors
    /// The peer announced too long a frame, ended in the middle of one, or is gone.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            // A length in the buffer is no reason to reserve memory: it grows as bytes come.
            match self.stream.read_chunk(64 * 1024, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if self.buffer.is_empty() && self.expected.is_none() => return Ok(None),
                None => return Err(FrameError::Truncated),
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let length = match self.expected {
            Some(length) => length,
            None => {
                let Some(bytes) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
                    return Ok(None);
                };
                let length = usize::try_from(u32::from_be_bytes(*bytes)).unwrap_or(usize::MAX);
                let max = self.kind.frame_bytes_max();
                if length > max {
                    // The rest of the stream is of no use; tell the peer.
                    let _stopped = self.stream.stop(VarInt::from_u32(1));
                    return Err(FrameError::TooLong { length, max });
                }
                self.buffer.advance(LENGTH_BYTES);
                self.expected = Some(length);
                length
            }
        };
        if self.buffer.len() < length {
            return Ok(None);
        }
        self.expected = None;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Why a frame was not sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than the kind of stream allows.
    #[error("a frame of {length} bytes is longer than the {max} allowed on this stream")]
    TooLong {
        /// Its length.
        length: usize,
        /// The bound.
        max: usize,
    },
    /// The stream ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame")]
    Truncated,
    /// The stream was ended by us or given up by the peer; the connection may live on.
    #[error("the stream is closed")]
    StreamClosed,
    /// The connection is over.
    #[error("the connection is over")]
    Closed(#[source] CloseReason),
}

impl From<ReadError> for FrameError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(reason) => Self::Closed(reason.into()),
            _ => Self::StreamClosed,
        }
    }
}

impl From<WriteError> for FrameError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(reason) => Self::Closed(reason.into()),
            _ => Self::StreamClosed,
        }
    }
}
