//! When a held packet may leave: the level `commit`, as a sans-IO machine.
//!
//! At this level the first packets of a connection leave only after the successor holds the
//! connection's entry. A driver holds the packets (`drivers/hold`), a stream takes the entries
//! (`core/statesync`), and a [`Commitment`] says what goes on when:
//!
//! ```text
//! packet held ----> send its entry ----> sent as n ----> acknowledged up to n ----> release
//!        \________________ waits longer than `wait_max` ________________/
//!                                  |
//!                     declared downgrade: release everything, hold nothing,
//!                     until the successor has been prompt for `calm`,
//!                     of which it is asked where no packet does
//! ```
//!
//! A downgrade has a reason, is told when it begins and when it ends, and counts the packets that
//! left without being held for the successor.

#![forbid(unsafe_code)]

mod commitment;
#[cfg(test)]
mod tests;

pub use commitment::{
    Commitment, Effects, Event, Input, Limits, Packet, Reason, Statistics, Status,
};
