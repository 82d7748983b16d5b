//! Hands for the fuzzers: what a peer's item becomes on its way to the kernel, without a kernel.

use bytes::BytesMut;
use vnfpool_statesync::Item;

use crate::codec::{self, DecodeError};
use crate::expectation::codec as expectations;
use crate::expectation::{Expectation, decode_expectation_key, encode_expectation_key};
use crate::netlink::build::{self, CreateOptions, UpdatedTime};
use crate::netlink::expect;

/// Every request that a sink can make of `item`, as bytes of netlink, one after the other.
///
/// # Errors
/// [`DecodeError`], when a sink would refuse it.
///
/// # Panics
/// When what was read is written as something else than it was read from; a fuzzer has found an error
/// then.
pub fn requests_of_item(item: &Item) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    if expectations::is_expectation(&item.key) {
        let expectation = expectations::of_item(item)?;
        assert_eq!(expectation.check(), Ok(()));
        let again = expectations::item(&expectation);
        assert_eq!(expectations::of_item(&again).as_ref(), Ok(&expectation));
        expect::create(&mut out, 1, &expectation);
        expect::set_timeout(&mut out, 2, &expectation);
        return Ok(out);
    }
    let entry = codec::entry(item)?;
    assert_eq!(entry.check(), Ok(()));
    let again = codec::item(&entry, &mut BytesMut::new());
    assert!(again.key.len() + again.value.len() <= codec::ENTRY_BYTES_MAX);
    let read = codec::entry(&again).expect("what was encoded");
    assert_eq!(read, entry.clone().portable());
    assert_eq!(codec::item(&read, &mut BytesMut::new()), again);
    for helper in [true, false] {
        for master in [true, false] {
            build::create(&mut out, 1, &entry, CreateOptions { helper, master });
        }
    }
    for time in [UpdatedTime::Told, UpdatedTime::Kept] {
        build::update(&mut out, 2, &entry, time);
    }
    build::delete_by_reply(&mut out, 3, &entry.reply, entry.key.zone);
    Ok(out)
}

/// Every request that a sink can make of a key alone.
///
/// # Errors
/// [`DecodeError`], when a sink would refuse it.
///
/// # Panics
/// As [`requests_of_item`].
pub fn requests_of_key(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    if expectations::is_expectation(bytes) {
        let key = decode_expectation_key(bytes)?;
        let mut again = Vec::new();
        encode_expectation_key(&key, &mut again);
        assert_eq!(decode_expectation_key(&again), Ok(key));
        expect::delete(&mut out, 1, &key);
        return Ok(out);
    }
    let key = codec::decode_key(bytes)?;
    assert_eq!(key.original.check(), Ok(()));
    let mut again = BytesMut::new();
    codec::encode_key(&key, &mut again);
    assert_eq!(codec::decode_key(&again), Ok(key));
    build::delete(&mut out, 1, &key);
    build::make_strict(&mut out, 2, &key);
    build::forget_scales(&mut out, 2, &key);
    build::get(&mut out, 3, &key);
    Ok(out)
}

/// An expectation as a source tells it.
#[must_use]
pub fn item_of_expectation(expectation: &Expectation) -> Item {
    expectations::item(expectation)
}
