//! What can go wrong, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Why a function is not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody listens there, or not for this user.
    #[error("connect to the agent at {}: is it running, with [sdk] in its file, and may this user connect?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The connection ended before the answer.
    #[error("the agent ended the connection while registering: try again")]
    Ended,
    /// The agent answers in another language.
    #[error("the agent's answer cannot be read: is that the SDK's socket? ({0})")]
    Malformed(String),
    /// The agent turned the function away.
    #[error("the agent does not take this function ({code}): {text}")]
    Refused {
        /// A stable word.
        code: String,
        /// What to do.
        text: String,
    },
}

/// The function has not registered such a class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the class '{class}' is not registered: add it to the Function that connects")]
pub struct ClassError {
    /// As asked for.
    pub class: String,
}

/// Why a change was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// Of a key.
    #[error("a key of {bytes} bytes: expected 1 to {KEY_BYTES_MAX}")]
    KeySize {
        /// Its length.
        bytes: usize,
    },
    /// Of a value.
    #[error("a value of {bytes} bytes: expected at most {VALUE_BYTES_MAX}")]
    ValueSize {
        /// Its length.
        bytes: usize,
    },
    /// There was news of the slot since: this element is not the active in that epoch.
    #[error("epoch {epoch} is over: use the one of the newest event, if it says Active")]
    NotActive {
        /// As given.
        epoch: u64,
    },
    /// `active` is of another slot than the table.
    #[error("the table is of another slot than the epoch")]
    OtherSlot,
    /// There is no connection to the agent now.
    #[error("not connected to the agent: wait for Event::Connected and the role after it")]
    Disconnected,
}

/// Why it is not known that the successor has everything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The declared downgrade: it is in this agent, and goes on to the successor when that can take it.
    #[error("not held by a successor ({code}): {text}")]
    NotHeld {
        /// A stable word: `level`, `alone`, `behind`, `lost`, `restoring`, `slot`, `class`.
        code: String,
        /// What it means.
        text: String,
    },
    /// Some of what was put into the class since this caller's last commit was refused, and is not even in
    /// this agent; [`crate::Event::Refused`] has the reason. Each caller ([`crate::Table`]) is told, whoever
    /// has put it, and whatever others were told: it may have been its own.
    #[error("some changes were refused: see Event::Refused")]
    Refused,
    /// The connection ended first, or has ended since this caller's last put in it and before this
    /// commit. The next commit is of what was put since.
    #[error("the connection to the agent ended: what the successor has is not known")]
    Disconnected,
}

/// Why there is no answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// There is no connection, or it ended first.
    #[error("not connected to the agent: ask again after Event::Connected")]
    Disconnected,
}
