//! Hostile bytes for everything that reads a peer's or a function's: what is fuzzed, and with what it
//! begins.
//!
//! A *target* is a function of bytes that panics when something is wrong. It is run by libFuzzer, which
//! looks for bytes that reach new code (`make fuzz`; [`Target::ALL`] is the list), and by the tests of
//! this crate, which run what it begins with and spoiled copies of that.
//!
//! Its bytes are a [`Script`] of eight (what goes wrong beside them, and when) and then exactly what
//! comes on the wire. So the seeds, made here by the real encoders, are what real peers say, and
//! changes of single bytes are changes of single bytes of the wire.

mod active;
pub mod conntrack;
pub mod receiver;
mod script;
pub mod sdk;
pub mod sender;
mod standby;
mod stream;
mod target;

pub use script::{SCRIPT_BYTES, Script};
pub use target::Target;
