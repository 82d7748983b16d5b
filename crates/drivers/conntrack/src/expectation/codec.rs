//! Expectations and their keys as bytes between elements. All numbers in network byte order.
//!
//! ```text
//! expectation  key  timeout s(4)  kernel's flags(1)  class(1)
//!              [translation: address(4|16) port(2) is reply(1)]
//!              [helper: length(1) name]  [function: length(1) name]
//! key          version(1)=1  flags(1)  protocol of the master(1)  protocol(1)
//!              original tuple of the master  [zone(3)]  tuple
//!              mask: source address(4|16) source port(2)
//! flags        1 IPv6, 4 zone, 8 translation, 16 helper, 32 function
//! ```
//!
//! Tuples and zones as in [`crate::codec`]; a key has no flags above 4. Decoding is total: any
//! bytes give an expectation that the kernel could hold, or an error.

use std::net::IpAddr;

use bytes::Bytes;
use vnfpool_statesync::Item;

use super::{
    Expectation, ExpectationKey, ExpectedTranslation, FUNCTION_NAME_BYTES_MAX, SourceMask,
};
use crate::codec::{DecodeError, IPV6, Reader, ZONE, encode_tuple, encode_zone, key_flags};
use crate::entry::{HELPER_NAME_BYTES_MAX, Name};
use crate::tuple::Key;

/// The version of the format that this crate writes and reads: never one of a connection's key, of
/// whose class expectations are.
pub const EXPECTATION_FORMAT_VERSION: u8 = 0x81;

/// Upper bound of the length of an encoded expectation.
pub const EXPECTATION_BYTES_MAX: usize =
    4 + 36 + 3 + 36 + 18 + 6 + 19 + 1 + HELPER_NAME_BYTES_MAX + 1 + FUNCTION_NAME_BYTES_MAX;

const TRANSLATION: u8 = 8;
const HELPER: u8 = 16;
const FUNCTION: u8 = 32;

/// Appends `expectation` to `out`.
pub fn encode_expectation(expectation: &Expectation, out: &mut Vec<u8>) {
    let mut flags = 0;
    for (present, bit) in [
        (expectation.translation.is_some(), TRANSLATION),
        (expectation.helper.is_some(), HELPER),
        (expectation.function.is_some(), FUNCTION),
    ] {
        flags |= if present { bit } else { 0 };
    }
    put_key(&expectation.key, flags, out);
    out.extend_from_slice(&expectation.timeout_s.to_be_bytes());
    out.extend_from_slice(&[expectation.flags, expectation.class]);
    if let Some(translation) = expectation.translation {
        put_address(translation.address, out);
        out.extend_from_slice(&translation.port.to_be_bytes());
        out.push(u8::from(translation.is_reply));
    }
    for name in [
        expectation.helper.as_ref().map(Name::as_bytes),
        expectation.function.as_ref().map(Name::as_bytes),
    ]
    .into_iter()
    .flatten()
    {
        out.push(u8::try_from(name.len()).unwrap_or_default());
        out.extend_from_slice(name);
    }
}

/// Appends `key` to `out`.
pub fn encode_expectation_key(key: &ExpectationKey, out: &mut Vec<u8>) {
    put_key(key, 0, out);
}

/// Reads an expectation; `bytes` must hold nothing else.
///
/// # Errors
/// [`DecodeError`] names the first thing that is wrong.
pub fn decode_expectation(bytes: &[u8]) -> Result<Expectation, DecodeError> {
    let mut reader = Reader::new(bytes);
    let (key, flags) = read_key(&mut reader, IPV6 | ZONE | TRANSLATION | HELPER | FUNCTION)?;
    let timeout_s = reader.be32()?;
    let [kernel_flags, class] = reader.array()?;
    let translation = match flags & TRANSLATION {
        0 => None,
        _ => Some(ExpectedTranslation {
            address: reader.address(flags)?,
            port: reader.be16()?,
            is_reply: match reader.byte()? {
                0 => false,
                1 => true,
                _ => return Err(DecodeError::Value { field: "direction" }),
            },
        }),
    };
    let helper = read_name(&mut reader, flags & HELPER, "helper")?;
    let function = read_name(&mut reader, flags & FUNCTION, "function")?;
    reader.end()?;
    let expectation = Expectation {
        key,
        timeout_s,
        flags: kernel_flags,
        class,
        translation,
        helper,
        function,
    };
    expectation.check()?;
    Ok(expectation)
}

/// Reads a key; `bytes` must hold nothing else.
///
/// # Errors
/// [`DecodeError`] names the first thing that is wrong.
pub fn decode_expectation_key(bytes: &[u8]) -> Result<ExpectationKey, DecodeError> {
    let mut reader = Reader::new(bytes);
    let (key, _) = read_key(&mut reader, IPV6 | ZONE)?;
    reader.end()?;
    key.check()?;
    Ok(key)
}

/// `expectation` as an item of the state stream. Its time is not of its value, as with connections.
pub(crate) fn item(expectation: &Expectation) -> Item {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    encode_expectation_key(&expectation.key, &mut key);
    let timeless = Expectation {
        timeout_s: 0,
        ..expectation.clone()
    };
    encode_expectation(&timeless, &mut value);
    Item {
        key: key.into(),
        value: value.into(),
        ttl_s: expectation.timeout_s,
    }
}

/// The key of `expectation` as one of the state stream.
pub(crate) fn item_key(key: &ExpectationKey) -> Bytes {
    let mut bytes = Vec::new();
    encode_expectation_key(key, &mut bytes);
    bytes.into()
}

/// Whether a key of the state stream is an expectation's.
pub(crate) fn is_expectation(key: &[u8]) -> bool {
    key.first() == Some(&EXPECTATION_FORMAT_VERSION)
}

/// Reads an item of the state stream.
pub(crate) fn of_item(item: &Item) -> Result<Expectation, DecodeError> {
    let expectation = decode_expectation(&item.value)?;
    if item_key(&expectation.key) != item.key {
        return Err(DecodeError::Value { field: "key" });
    }
    Ok(Expectation {
        timeout_s: item.ttl_s,
        ..expectation
    })
}

fn put_key(key: &ExpectationKey, flags: u8, out: &mut Vec<u8>) {
    let master = &key.master.original;
    out.extend_from_slice(&[
        EXPECTATION_FORMAT_VERSION,
        flags | key_flags(&key.master),
        master.protocol,
        key.tuple.protocol,
    ]);
    encode_tuple(master, out);
    encode_zone(key.master.zone, out);
    encode_tuple(&key.tuple, out);
    put_address(key.mask.address, out);
    out.extend_from_slice(&key.mask.port.to_be_bytes());
}

fn put_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
}

fn read_key(reader: &mut Reader<'_>, known: u8) -> Result<(ExpectationKey, u8), DecodeError> {
    let flags = match reader.byte()? {
        EXPECTATION_FORMAT_VERSION => reader.byte()?,
        found => return Err(DecodeError::Version { found }),
    };
    if flags & !known != 0 {
        return Err(DecodeError::Value { field: "flags" });
    }
    let [master_protocol, protocol] = reader.array()?;
    let key = ExpectationKey {
        master: Key {
            original: reader.tuple(master_protocol, flags)?,
            zone: reader.zone(flags)?,
        },
        tuple: reader.tuple(protocol, flags)?,
        mask: SourceMask {
            address: reader.address(flags)?,
            port: reader.be16()?,
        },
    };
    Ok((key, flags))
}

fn read_name<const BYTES_MAX: usize>(
    reader: &mut Reader<'_>,
    is_present: u8,
    field: &'static str,
) -> Result<Option<Name<BYTES_MAX>>, DecodeError> {
    if is_present == 0 {
        return Ok(None);
    }
    let length = reader.byte()?;
    let name = Name::new(reader.take(usize::from(length))?);
    name.map(Some).ok_or(DecodeError::Value { field })
}
