//! Expectations on the wire: requests and messages of ctnetlink's second subsystem.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attribute::{Writer, attributes, be16, be32, find};
use super::build::{family_of, message, put_tuple};
use super::constants::*;
use super::parse::{self, Message, ParseError, ip_addresses, missing};
use crate::entry::Name;
use crate::expectation::{
    Expectation, ExpectationKey, ExpectedTranslation, SourceMask, expectation_flags,
};
use crate::tuple::{Key, Layer4, Tuple, Zone, ZoneDirection};

/// Appends the request that creates `expectation`. The kernel gives it the helper's own timeout:
/// [`set_timeout`] comes after it.
pub(crate) fn create(out: &mut Vec<u8>, sequence: u32, expectation: &Expectation) {
    let key = &expectation.key;
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let family = family_of(&key.tuple);
    message(out, EXP_NEW, flags, sequence, family, |writer| {
        put_key(writer, key);
        let kernel_flags = u32::from(expectation.flags);
        writer.put(CTA_EXPECT_FLAGS, &kernel_flags.to_be_bytes());
        writer.put(
            CTA_EXPECT_CLASS,
            &u32::from(expectation.class).to_be_bytes(),
        );
        if let Some(translation) = expectation.translation {
            writer.nest(CTA_EXPECT_NAT, |writer| {
                let direction = u32::from(translation.is_reply);
                writer.put(CTA_EXPECT_NAT_DIR, &direction.to_be_bytes());
                let saved = saved_tuple(key, translation);
                put_tuple(writer, CTA_EXPECT_NAT_TUPLE, &saved, Zone::default());
            });
        }
        if let Some(name) = &expectation.function {
            put_name(writer, CTA_EXPECT_FN, name);
        }
    });
}

/// Appends the request that sets the time that is left of an existing expectation.
pub(crate) fn set_timeout(out: &mut Vec<u8>, sequence: u32, expectation: &Expectation) {
    let key = &expectation.key;
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let family = family_of(&key.tuple);
    message(out, EXP_NEW, flags, sequence, family, |writer| {
        put_key(writer, key);
        // With none left it would be one that the kernel has forgotten to remove.
        let timeout_s = expectation.timeout_s.max(1);
        writer.put(CTA_EXPECT_TIMEOUT, &timeout_s.to_be_bytes());
    });
}

/// Appends the request that deletes the expectation of `key`.
pub(crate) fn delete(out: &mut Vec<u8>, sequence: u32, key: &ExpectationKey) {
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let family = family_of(&key.tuple);
    message(out, EXP_DELETE, flags, sequence, family, |writer| {
        put_tuple(writer, CTA_EXPECT_TUPLE, &key.tuple, Zone::default());
        put_zone(writer, key.master.zone);
    });
}

/// Appends the request that dumps the expectations of all families.
pub(crate) fn dump(out: &mut Vec<u8>, sequence: u32) {
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    message(out, EXP_GET, flags, sequence, AF_UNSPEC, |_| {});
}

/// Reads the expectation of an EXP_NEW or EXP_DELETE message; `None` for one that no element
/// can be told of.
pub(crate) fn expectation(message: &Message<'_>) -> Result<Expectation, ParseError> {
    let bytes = message.body.get(GENERIC_HEADER_BYTES..).unwrap_or_default();
    let mut zone = Zone::default();
    let master = find(bytes, CTA_EXPECT_MASTER).ok_or(missing("CTA_EXPECT_MASTER"))?;
    let master = parse::tuple(master, ZoneDirection::Both, &mut zone)?;
    let expected = find(bytes, CTA_EXPECT_TUPLE).ok_or(missing("CTA_EXPECT_TUPLE"))?;
    let expected = parse::tuple(expected, ZoneDirection::Both, &mut Zone::default())?;
    let mask = find(bytes, CTA_EXPECT_MASK).ok_or(missing("CTA_EXPECT_MASK"))?;
    let mut parsed = Expectation {
        key: ExpectationKey {
            master: Key {
                original: master,
                zone,
            },
            tuple: expected,
            mask: source_mask(mask).ok_or(missing("CTA_EXPECT_MASK"))?,
        },
        timeout_s: 0,
        flags: 0,
        class: 0,
        translation: None,
        helper: None,
        function: None,
    };
    for (kind, value) in attributes(bytes) {
        match kind {
            CTA_EXPECT_TIMEOUT => {
                parsed.timeout_s = be32(value).ok_or(missing("CTA_EXPECT_TIMEOUT"))?;
            }
            CTA_EXPECT_FLAGS => {
                let [.., low] = be32(value)
                    .ok_or(missing("CTA_EXPECT_FLAGS"))?
                    .to_be_bytes();
                parsed.flags = low & expectation_flags::REPLICATED;
            }
            CTA_EXPECT_CLASS => {
                let class = be32(value).and_then(|class| u8::try_from(class).ok());
                parsed.class = class.ok_or(missing("CTA_EXPECT_CLASS"))?;
            }
            CTA_EXPECT_NAT => {
                let translation = translation(value);
                parsed.translation = Some(translation.ok_or(missing("CTA_EXPECT_NAT"))?);
            }
            CTA_EXPECT_HELP_NAME => parsed.helper = name(value),
            CTA_EXPECT_FN => parsed.function = name(value),
            _ => {}
        }
    }
    parsed.check()?;
    Ok(parsed)
}

fn put_key(writer: &mut Writer<'_>, key: &ExpectationKey) {
    let none = Zone::default();
    put_tuple(writer, CTA_EXPECT_MASTER, &key.master.original, none);
    put_tuple(writer, CTA_EXPECT_TUPLE, &key.tuple, none);
    put_tuple(writer, CTA_EXPECT_MASK, &mask_tuple(key), none);
    put_zone(writer, key.master.zone);
}

fn put_zone(writer: &mut Writer<'_>, zone: Zone) {
    if zone.id != 0 && zone.direction == ZoneDirection::Both {
        writer.put(CTA_EXPECT_ZONE, &zone.id.to_be_bytes());
    }
}

fn put_name<const BYTES_MAX: usize>(writer: &mut Writer<'_>, kind: u16, name: &Name<BYTES_MAX>) {
    let mut terminated = name.as_bytes().to_vec();
    terminated.push(0);
    writer.put(kind, &terminated);
}

/// The mask as the kernel wants it: a tuple, of which it reads the source only.
fn mask_tuple(key: &ExpectationKey) -> Tuple {
    Tuple {
        src: key.mask.address,
        dst: match key.mask.address {
            IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
            IpAddr::V6(_) => Ipv6Addr::from(u128::MAX).into(),
        },
        protocol: key.tuple.protocol,
        layer4: Layer4::Ports {
            src: key.mask.port,
            dst: u16::MAX,
        },
    }
}

fn source_mask(bytes: &[u8]) -> Option<SourceMask> {
    let (address, _) = ip_addresses(find(bytes, CTA_TUPLE_IP)?)?;
    let port = find(find(bytes, CTA_TUPLE_PROTO)?, CTA_PROTO_SRC_PORT).and_then(be16)?;
    Some(SourceMask { address, port })
}

/// What was saved as the source of a tuple of the master's protocol, as the kernel does it.
fn saved_tuple(key: &ExpectationKey, translation: ExpectedTranslation) -> Tuple {
    Tuple {
        src: translation.address,
        dst: match translation.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        },
        protocol: key.master.original.protocol,
        layer4: Layer4::Ports {
            src: translation.port,
            dst: 0,
        },
    }
}

fn translation(bytes: &[u8]) -> Option<ExpectedTranslation> {
    let saved = find(bytes, CTA_EXPECT_NAT_TUPLE)?;
    let (address, _) = ip_addresses(find(saved, CTA_TUPLE_IP)?)?;
    Some(ExpectedTranslation {
        address,
        port: find(find(saved, CTA_TUPLE_PROTO)?, CTA_PROTO_SRC_PORT).and_then(be16)?,
        is_reply: find(bytes, CTA_EXPECT_NAT_DIR).and_then(be32)? != 0,
    })
}

fn name<const BYTES_MAX: usize>(value: &[u8]) -> Option<Name<BYTES_MAX>> {
    Name::new(value.split(|&byte| byte == 0).next().unwrap_or_default())
}
