//! ctnetlink on the wire: attributes, messages, the socket.

pub(crate) mod attribute;
pub(crate) mod build;
pub(crate) mod constants;
pub(crate) mod expect;
pub(crate) mod parse;
pub(crate) mod socket;
