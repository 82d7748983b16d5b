//! Codecs: what stands on the wire, and nothing else.
//!
//! * [`datagram`]: the succession messages, in a fixed layout, sent many times a second inside
//!   authenticated datagrams;
//! * [`control`]: the control messages, protobuf on QUIC streams, with the version negotiation
//!   that every control connection begins with;
//! * [`sdk`]: what a network function and its agent say to each other over a Unix socket.
//!
//! Decoding is total: every byte string gives a value or a [`datagram::DecodeError`] and never a
//! panic.

pub mod control;
pub mod datagram;
pub mod sdk;
