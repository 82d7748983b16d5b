//! What a single value of a file can be.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;
use vnfpool_model::{
    ElementId, NatMap, OnQuorumLoss, PoolHandle, SlotName, StateLevel, Switchback,
};

use crate::element::{Family, GateDriver, Ruleset};
use crate::pool::{Lease, Profile};
use crate::table::{closest, type_name};

/// Why a value is not what was expected.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// A type that can be read from a TOML value.
pub(crate) trait Value: Sized {
    /// A value as one would write it, for the help on a missing key.
    const EXAMPLE: &'static str;

    /// Reads it, or says everything that is wrong with it.
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Fault>>;
}

/// A type that is written as a text and parsed from it.
trait Text: Sized {
    const EXAMPLE: &'static str;
    /// What the text should be, after "expected".
    const EXPECTED: &'static str;

    fn parse(text: &str) -> Result<Self, Option<String>>;
}

impl<T: Text> Value for T {
    const EXAMPLE: &'static str = <T as Text>::EXAMPLE;

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Fault>> {
        let DeValue::String(text) = value.get_ref() else {
            return Err(mismatch(value, T::EXPECTED));
        };
        T::parse(text).map_err(|reason| {
            let found = shortened(text);
            vec![Fault {
                span: value.span(),
                message: format!("expected {}, found \"{found}\"", T::EXPECTED),
                help: reason,
            }]
        })
    }
}

macro_rules! parsed_text {
    ($type:ty, $example:literal, $expected:literal) => {
        impl Text for $type {
            const EXAMPLE: &'static str = $example;
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<Self, Option<String>> {
                text.parse().map_err(|_| None)
            }
        }
    };
}

parsed_text!(IpAddr, "\"10.1.0.1\"", "an IPv4 or IPv6 address");
parsed_text!(
    SocketAddr,
    "\"10.9.0.10:7400\"",
    "an address with a port, like \"10.9.0.10:7400\" or \"[fd00::10]:7400\""
);

impl Text for IpNet {
    const EXAMPLE: &'static str = "\"10.1.0.254/24\"";
    const EXPECTED: &'static str = "an address with its prefix length, like \"10.1.0.254/24\"";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        text.parse().map_err(|_| {
            let address = text.parse::<IpAddr>().ok()?;
            let length = if address.is_ipv4() { 24 } else { 64 };
            Some(format!("did you mean \"{text}/{length}\"?"))
        })
    }
}

macro_rules! name {
    ($type:ty, $example:literal, $expected:literal) => {
        impl Text for $type {
            const EXAMPLE: &'static str = $example;
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<Self, Option<String>> {
                Self::new(text).map_err(|error| Some(error.to_string()))
            }
        }
    };
}

name!(PoolHandle, "\"edge\"", "the handle of a pool");
name!(ElementId, "\"gw1\"", "the name of an element");
name!(SlotName, "\"main\"", "the name of a slot");

macro_rules! words {
    ($type:ty, $($word:literal => $value:expr),+) => {
        impl Text for $type {
            const EXAMPLE: &'static str = words!(@first $($word),+);
            const EXPECTED: &'static str = words!(@list $($word),+);

            fn parse(text: &str) -> Result<Self, Option<String>> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(closest(text, &[$($word),+])
                        .map(|word| format!("did you mean \"{word}\"?"))),
                }
            }
        }
    };
    (@first $first:literal $(, $rest:literal)*) => { concat!("\"", $first, "\"") };
    (@list $only:literal) => { words!(@first $only) };
    (@list $first:literal, $second:literal) => {
        concat!("\"", $first, "\" or \"", $second, "\"")
    };
    (@list $first:literal, $($rest:literal),+) => {
        concat!("\"", $first, "\", ", words!(@list $($rest),+))
    };
}

words!(Profile, "default" => Self::Default, "fast" => Self::Fast);
words!(Lease, "auto" => Self::Auto);
words!(OnQuorumLoss, "serve" => Self::Serve, "stop" => Self::Stop);
words!(Switchback, "manual" => Self::Manual, "auto" => Self::Auto);
words!(StateLevel, "none" => Self::None, "eventual" => Self::Eventual, "bounded" => Self::Bounded, "commit" => Self::Commit);
words!(Family, "ipv4" => Self::Ipv4, "ipv6" => Self::Ipv6);
words!(GateDriver, "bpf" => Self::Bpf, "addresses" => Self::Addresses);

impl Text for String {
    const EXAMPLE: &'static str = "\"…\"";
    const EXPECTED: &'static str = "a text in quotes";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.is_empty() {
            return Err(Some("it must not be empty".to_owned()));
        }
        if text.contains('\0') {
            return Err(Some("it must not hold a NUL character".to_owned()));
        }
        Ok(text.to_owned())
    }
}

impl Text for PathBuf {
    const EXAMPLE: &'static str = "\"/var/lib/vnfpool\"";
    const EXPECTED: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        <String as Text>::parse(text).map(Self::from)
    }
}

impl Text for Ruleset {
    const EXAMPLE: &'static str = "\"inet gateway\"";
    const EXPECTED: &'static str = "family and name of an nftables table, like \"inet gateway\"";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(family @ ("ip" | "ip6" | "inet")), Some(table), None) => Ok(Self {
                family: family.to_owned(),
                table: table.to_owned(),
            }),
            (Some(_), Some(_), None) => Err(Some("the family is ip, ip6 or inet".to_owned())),
            _ => Err(None),
        }
    }
}

impl Text for NatMap {
    const EXAMPLE: &'static str = "\"inet gateway vnfpool_main\"";
    const EXPECTED: &'static str =
        "family, table and name of an nftables map, like \"inet gateway vnfpool_main\"";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        let [family, table, name] = words[..] else {
            return Err(None);
        };
        if !["ip", "ip6", "inet"].contains(&family) {
            return Err(Some("the family is ip, ip6 or inet".to_owned()));
        }
        if [table, name]
            .iter()
            .any(|name| name.len() > NFT_NAME_BYTES_MAX)
        {
            let text = format!("a name has at most {NFT_NAME_BYTES_MAX} bytes");
            return Err(Some(text));
        }
        Ok(Self {
            family: family.to_owned(),
            table: table.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Half of what the kernel takes: the names of chains are longer than that of their map.
const NFT_NAME_BYTES_MAX: usize = 128;

impl Value for bool {
    const EXAMPLE: &'static str = "true";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Fault>> {
        match value.get_ref() {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(mismatch(value, "true or false")),
        }
    }
}

/// A whole number between `MIN` and `MAX`, both included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<const MIN: u32, const MAX: u32>(pub(crate) u32);

/// A UDP or TCP port.
pub(crate) type Port = Number<1, 65_535>;

impl<const MIN: u32, const MAX: u32> Number<MIN, MAX> {
    /// The number as a port; saturates, which the bounds of [`Port`] make impossible.
    pub(crate) fn to_u16(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }

    /// The number as a small one; saturates beyond 255.
    pub(crate) fn to_u8(self) -> u8 {
        u8::try_from(self.0).unwrap_or(u8::MAX)
    }
}

impl<const MIN: u32, const MAX: u32> Value for Number<MIN, MAX> {
    const EXAMPLE: &'static str = "a number";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Fault>> {
        let expected = || format!("a whole number from {MIN} to {MAX}");
        let DeValue::Integer(integer) = value.get_ref() else {
            return Err(mismatch(value, &expected()));
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        match number {
            Some(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(vec![Fault {
                span: value.span(),
                message: format!(
                    "expected {}, found {}",
                    expected(),
                    shortened(integer.as_str())
                ),
                help: None,
            }]),
        }
    }
}

impl<T: Value> Value for Vec<T> {
    const EXAMPLE: &'static str = "[…]";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Fault>> {
        let DeValue::Array(items) = value.get_ref() else {
            return Err(mismatch(value, "a list in brackets"));
        };
        let mut list = Self::with_capacity(items.len());
        let mut faults = Vec::new();
        for item in items.iter() {
            match T::read(item) {
                Ok(item) => list.push(item),
                Err(more) => faults.extend(more),
            }
        }
        if faults.is_empty() {
            Ok(list)
        } else {
            Err(faults)
        }
    }
}

fn mismatch(value: &Spanned<DeValue<'_>>, expected: &str) -> Vec<Fault> {
    vec![Fault {
        span: value.span(),
        message: format!("expected {expected}, found a {}", type_name(value)),
        help: None,
    }]
}

/// A quotation that fits on a line and cannot play with the reader's terminal.
fn shortened(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(QUOTED_CHARS_MAX).map(clean).collect();
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

const QUOTED_CHARS_MAX: usize = 60;
