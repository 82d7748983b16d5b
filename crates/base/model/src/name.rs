//! Names: short, printable, safe in a file name, a certificate and a metric label.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name in bytes.
const NAME_BYTES_MAX: usize = 63;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than 63 bytes.
    #[error("a name has at most 63 characters, this one has {length}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A character that is not allowed at its place.
    #[error(
        "'{name}' is no name: use a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
    )]
    Character {
        /// The whole text.
        name: String,
    },
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { length: name.len() });
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    let first_is_plain = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first_is_plain && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(NameError::Character {
            name: name.to_owned(),
        })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Parses a name: 1 to 63 of `a-z 0-9 - _ .`, beginning with a letter or digit.
            ///
            /// # Errors
            /// [`NameError`] says what is wrong with the text.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check(&name)?;
                Ok(Self(name))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// The name of a pool (draft §4; RFC 5351 "pool handle").
    PoolHandle
}
name! {
    /// The name of a pool element, unique within its pool.
    ElementId
}
name! {
    /// The name of a slot, unique within its pool.
    SlotName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(PoolHandle::new("edge-1.a_b").is_ok());
        assert_eq!(PoolHandle::new(""), Err(NameError::Empty));
        assert_eq!(
            ElementId::new("x".repeat(64)),
            Err(NameError::TooLong { length: 64 })
        );
        for bad in ["-a", "A", "a/b", "a b", "ä", ".."] {
            assert!(
                matches!(SlotName::new(bad), Err(NameError::Character { .. })),
                "{bad}"
            );
        }
    }
}
