//! Expectations: connections that a helper has heard announced on another one, its master, and
//! that are let in as related when they come.
//!
//! What a kernel takes, and what another one needs for it (`docs/decisions/0027-…`):
//! * the master has to be in the table and to carry the helper, else the expectation is refused;
//! * it takes the helper only by name and only if it has it, no rule of its ruleset is needed for
//!   expectations and later commands of a connection that it was told of;
//! * the time that is left is taken by a second request only;
//! * it tells no zone, so expectations of masters in other zones than the default one are refused.

pub(crate) mod codec;
mod inject;
mod source;

use std::net::IpAddr;

use crate::entry::{HelperName, Name};
use crate::scope::Scope;
use crate::tuple::{Key, Layer4, Tuple, TupleError};

pub use codec::{
    EXPECTATION_BYTES_MAX, EXPECTATION_FORMAT_VERSION, decode_expectation, decode_expectation_key,
    encode_expectation, encode_expectation_key,
};
pub use inject::{ExpectationInjectError, ExpectationInjector};
pub use source::{
    EXPECTATION_BUFFER_BYTES, EXPECTATIONS_PER_READ_MAX, ExpectationEvent, ExpectationSource,
    MASTERS_WAITING_MAX, dump_expectations,
};

/// Longest name of a function that is accepted, in bytes (the kernel's longest has 17).
pub const FUNCTION_NAME_BYTES_MAX: usize = 31;

/// Name of a function that the kernel calls for the expected connection.
pub type FunctionName = Name<FUNCTION_NAME_BYTES_MAX>;

/// A connection that is expected, as one kernel knows it and as another can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// What identifies it.
    pub key: ExpectationKey,
    /// Seconds until it expires.
    pub timeout_s: u32,
    /// Flags, `NF_CT_EXPECT_*` within [`expectation_flags::REPLICATED`].
    pub flags: u8,
    /// Class among those of the helper, at most [`EXPECTATION_CLASS_MAX`].
    pub class: u8,
    /// Where the connection was expected before address translation.
    pub translation: Option<ExpectedTranslation>,
    /// The helper that announced it: the master's.
    pub helper: Option<HelperName>,
    /// What the kernel calls for the connection, for example `nat-follow-master`.
    pub function: Option<FunctionName>,
}

/// What identifies an expectation in one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExpectationKey {
    /// The connection on which it was announced.
    pub master: Key,
    /// Tuple of the first packet; the source holds as far as the mask says.
    pub tuple: Tuple,
    /// Which bits of the source count. Those of the destination always do.
    pub mask: SourceMask,
}

/// Which bits of a source have to be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceMask {
    /// Bits of the address.
    pub address: IpAddr,
    /// Bits of the port.
    pub port: u16,
}

/// What the destination of an expected connection is translated back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedTranslation {
    /// The saved address; unspecified with helpers that follow their master.
    pub address: IpAddr,
    /// The saved port.
    pub port: u16,
    /// Whether the connection comes in the direction of the master's replies.
    pub is_reply: bool,
}

/// `NF_CT_EXPECT_*`.
pub mod expectation_flags {
    /// Stays when a connection has come.
    pub const PERMANENT: u8 = 1;
    /// Does not count yet.
    pub const INACTIVE: u8 = 2;
    /// The flags that make sense in another kernel.
    pub const REPLICATED: u8 = PERMANENT | INACTIVE;
}

/// `NF_CT_MAX_EXPECT_CLASSES` - 1. Kernels of some years believe in greater ones without looking.
pub const EXPECTATION_CLASS_MAX: u8 = 3;

/// Why an expectation cannot be one of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpectationError {
    /// A tuple is impossible.
    #[error("a tuple of the expectation is impossible: {0}")]
    Tuple(#[from] TupleError),
    /// Helpers expect protocols with ports only.
    #[error("protocol {protocol} has no ports, so no helper expects it")]
    Protocol {
        /// The protocol number.
        protocol: u8,
    },
    /// IPv4 with IPv6.
    #[error("the parts of the expectation are of different address families")]
    MixedFamilies,
    /// No helper has so many classes.
    #[error("the class {class} of the expectation does not exist")]
    Class {
        /// The class.
        class: u8,
    },
    /// Flags that are the kernel's own.
    #[error("the flags {flags:#x} of the expectation are not ones that are replicated")]
    Flags {
        /// The flags.
        flags: u8,
    },
}

impl Expectation {
    /// Accepts the expectation if the kernel could hold it.
    ///
    /// # Errors
    /// [`ExpectationError`] names the first thing that is wrong.
    pub fn check(&self) -> Result<(), ExpectationError> {
        self.key.check()?;
        if self.class > EXPECTATION_CLASS_MAX {
            return Err(ExpectationError::Class { class: self.class });
        }
        if self.flags & !expectation_flags::REPLICATED != 0 {
            return Err(ExpectationError::Flags { flags: self.flags });
        }
        let fits = |translation: ExpectedTranslation| {
            translation.address.is_ipv4() == self.key.tuple.src.is_ipv4()
        };
        match self.translation.is_none_or(fits) {
            true => Ok(()),
            false => Err(ExpectationError::MixedFamilies),
        }
    }
}

impl ExpectationKey {
    /// Accepts the key if the kernel could hold it.
    ///
    /// # Errors
    /// [`ExpectationError`] names the first thing that is wrong.
    pub fn check(&self) -> Result<(), ExpectationError> {
        for tuple in [&self.master.original, &self.tuple] {
            tuple.check()?;
            if !matches!(tuple.layer4, Layer4::Ports { .. }) {
                let protocol = tuple.protocol;
                return Err(ExpectationError::Protocol { protocol });
            }
        }
        let is_v4 = self.tuple.src.is_ipv4();
        match self.master.original.src.is_ipv4() == is_v4 && self.mask.address.is_ipv4() == is_v4 {
            true => Ok(()),
            false => Err(ExpectationError::MixedFamilies),
        }
    }

    /// Whether it belongs to the function: it does with its master.
    #[must_use]
    pub fn is_covered_by(&self, scope: &Scope) -> bool {
        scope.may_cover(&self.master)
    }
}
