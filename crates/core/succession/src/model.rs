//! What a model checker needs of the machines, beyond driving them (feature `model`).
//!
//! A state of a machine contains readings of clocks, which never come back. To see that two
//! histories have led to the same state, a checker moves all of them back by the time that passed
//! and lets what is too old to matter grow no older: then "now" stays the same number for ever,
//! and the states are finitely many. Only a machine itself knows its times, and until when it
//! looks at each; it tells both here. Nothing in this module is used by the machines.

use std::time::Duration;

use vnfpool_model::Time;
use vnfpool_wire::datagram::NodeId;

/// On whose clock a time was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The machine's own.
    Own,
    /// Another node's, from one of its messages.
    Of(NodeId),
}

/// A time that a machine keeps.
#[derive(Debug)]
pub struct Moment<'a> {
    /// Whose clock.
    pub clock: Clock,
    /// From this age on it makes no difference how old it is; a deadline matters until it is
    /// reached. [`Time::ZERO`], "never", is no age and has to stay what it is.
    pub matters_for: Duration,
    /// The time itself.
    pub time: &'a mut Time,
}
