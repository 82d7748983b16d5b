//! Values with a version byte.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Encodes a value: one byte that names the layout, then postcard.
///
/// # Errors
/// [`RecordError::Encode`] if the type cannot be serialised.
pub fn encode_record<T: Serialize>(layout: u8, value: &T) -> Result<Vec<u8>, RecordError> {
    postcard::to_extend(value, vec![layout]).map_err(RecordError::Encode)
}

/// Decodes a value of one layout. To read older ones, look at [`record_version`] first.
///
/// # Errors
/// [`RecordError`] says what is wrong; no input panics.
pub fn decode_record<T: DeserializeOwned>(layout: u8, record: &[u8]) -> Result<T, RecordError> {
    let (found, body) = record.split_first().ok_or(RecordError::Empty)?;
    if *found != layout {
        return Err(RecordError::Layout {
            found: *found,
            expected: layout,
        });
    }
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(RecordError::Trailing { bytes: rest.len() }),
        Err(source) => Err(RecordError::Decode(source)),
    }
}

/// The byte that names a record's layout.
#[must_use]
pub fn record_version(record: &[u8]) -> Option<u8> {
    record.first().copied()
}

/// Why a record could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not even a version byte.
    #[error("the record is empty")]
    Empty,
    /// Another layout.
    #[error(
        "the record has layout {found}, expected {expected}: was it written by a newer program?"
    )]
    Layout {
        /// The layout it has.
        found: u8,
        /// The layout asked for.
        expected: u8,
    },
    /// More bytes than the value has.
    #[error("the record has {bytes} bytes too many")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The bytes are no such value.
    #[error("cannot decode the record")]
    Decode(#[source] postcard::Error),
    /// The value cannot be serialised.
    #[error("cannot encode the record")]
    Encode(#[source] postcard::Error),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Sample = (u64, String, Vec<Option<u16>>);

    proptest! {
        #[test]
        fn records_round_trip_and_no_bytes_panic(
            value: Sample,
            layout: u8,
            noise in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let record = encode_record(layout, &value).unwrap();
            prop_assert_eq!(record_version(&record), Some(layout));
            prop_assert_eq!(decode_record::<Sample>(layout, &record), Ok(value));
            prop_assert!(decode_record::<Sample>(layout.wrapping_add(1), &record).is_err());
            let cut = &record[..record.len() - 1];
            prop_assert!(decode_record::<Sample>(layout, cut).is_err());
            let mut long = record.clone();
            long.push(0);
            prop_assert_eq!(
                decode_record::<Sample>(layout, &long),
                Err(RecordError::Trailing { bytes: 1 })
            );
            let _any = decode_record::<Sample>(0, &noise);
        }
    }
}
