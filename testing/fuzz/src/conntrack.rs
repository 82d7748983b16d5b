//! Connections and expectations from a peer, up to the requests to the kernel.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use vnfpool_conntrack::{
    Entry, HelperName, Key, Layer4, ProtocolState, SctpInfo, SeqAdjust, Status, TcpInfo, Tuple,
    Zone, ZoneDirection, codec, expectation, fuzz, protocol,
};
use vnfpool_statesync::Item;

use crate::Script;

/// Bits of a header of netlink: length, kind, flags, sequence, port; and of nfnetlink: family, version,
/// resource.
const MESSAGE_HEADER_BYTES: usize = 20;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
const NESTED: u16 = 0x8000;
const DEPTH_MAX: usize = 4;

/// Length of the key(1), time to live(4), key, value.
///
/// # Panics
/// When something that was read is not written again as the same, or a request is no netlink.
pub fn run(input: &[u8]) {
    let (_, wire) = Script::split(input);
    let Some((head, rest)) = wire.split_at_checked(5) else {
        return;
    };
    let key = usize::from(head[0]).min(rest.len());
    let (key, value) = rest.split_at(key);
    let ttl_s = head[1..]
        .iter()
        .fold(0, |ttl, byte| ttl << 8 | u32::from(*byte));
    let item = Item {
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        ttl_s,
    };
    let of_item = fuzz::requests_of_item(&item);
    let of_key = fuzz::requests_of_key(key);
    for requests in [of_item, of_key].into_iter().flatten() {
        check_messages(&requests);
    }
}

/// What the kernel's own reader of messages insists on.
fn check_messages(mut bytes: &[u8]) {
    assert!(!bytes.is_empty());
    while !bytes.is_empty() {
        let length = bytes
            .first_chunk()
            .map(|length| u32::from_ne_bytes(*length));
        let length = length.and_then(|length| usize::try_from(length).ok());
        let length = length.expect("a message has a length");
        assert!(
            length >= MESSAGE_HEADER_BYTES && length.is_multiple_of(4),
            "{length}"
        );
        let (message, rest) = bytes.split_at_checked(length).expect("a message is whole");
        check_attributes(&message[MESSAGE_HEADER_BYTES..], 0);
        bytes = rest;
    }
}

fn check_attributes(mut bytes: &[u8], depth: usize) {
    assert!(depth <= DEPTH_MAX, "attributes are nested too deeply");
    while !bytes.is_empty() {
        let head = bytes.first_chunk::<4>().expect("an attribute has a head");
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]);
        assert!(
            length >= ATTRIBUTE_HEADER_BYTES,
            "an attribute of {length} bytes"
        );
        let whole = length.next_multiple_of(4);
        let (attribute, rest) = bytes
            .split_at_checked(whole)
            .expect("an attribute is whole");
        if kind & NESTED != 0 {
            check_attributes(&attribute[ATTRIBUTE_HEADER_BYTES..length], depth + 1);
        }
        bytes = rest;
    }
}

/// Connections of every protocol with everything that one can have, and what helpers expect.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = entries()
        .iter()
        .map(|entry| seed(&codec::item(entry, &mut BytesMut::new())))
        .collect();
    seeds.extend(expectations());
    seeds
}

fn seed(item: &Item) -> Vec<u8> {
    let mut wire = vec![u8::try_from(item.key.len()).unwrap_or(u8::MAX)];
    wire.extend_from_slice(&item.ttl_s.to_be_bytes());
    wire.extend_from_slice(&item.key);
    wire.extend_from_slice(&item.value);
    Script::input(0, &wire)
}

fn tuple(addresses: [IpAddr; 2], protocol: u8) -> Tuple {
    let [src, dst] = addresses;
    let layer4 = match protocol {
        protocol::ICMP | protocol::ICMPV6 => Layer4::Icmp {
            id: 77,
            kind: if protocol == protocol::ICMP { 8 } else { 128 },
            code: 0,
        },
        protocol::TCP | protocol::UDP | protocol::SCTP => Layer4::Ports {
            src: 40_000,
            dst: 80,
        },
        _ => Layer4::None,
    };
    Tuple {
        src,
        dst,
        protocol,
        layer4,
    }
}

const V4: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 2)),
    IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 2)),
];
const V6: [IpAddr; 2] = [
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2)),
];

fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for (addresses, icmp) in [(V4, protocol::ICMP), (V6, protocol::ICMPV6)] {
        for number in [
            protocol::TCP,
            protocol::UDP,
            protocol::SCTP,
            icmp,
            protocol::GRE,
        ] {
            let plain = plain(tuple(addresses, number));
            entries.push(plain.clone());
            entries.push(Entry {
                mark: 0xa5a5,
                labels: Some([7; 16]),
                ..translated(plain.clone())
            });
            let mut zoned = plain;
            zoned.key.zone = Zone {
                id: 9,
                direction: ZoneDirection::Original,
            };
            entries.push(Entry {
                seq_adjust: [Some(ADJUST), Some(ADJUST)],
                helper: HelperName::new(b"ftp"),
                master: Some(tuple(addresses, protocol::TCP)),
                ..zoned
            });
        }
    }
    entries
}

const ADJUST: SeqAdjust = SeqAdjust {
    correction_position: 1_000,
    offset_before: 0,
    offset_after: 4,
};

fn plain(original: Tuple) -> Entry {
    let state = match original.protocol {
        protocol::TCP => ProtocolState::Tcp(TcpInfo {
            state: 3,
            window_scale: [7, 9],
            flags: [1, 1],
        }),
        protocol::SCTP => ProtocolState::Sctp(SctpInfo {
            state: 4,
            tags: [0x1234_5678, 0x9abc_def0],
        }),
        _ => ProtocolState::None,
    };
    Entry {
        key: Key {
            original,
            zone: Zone::default(),
        },
        reply: original.inverse(),
        status: Status(Status::CONFIRMED | Status::ASSURED | Status::SEEN_REPLY),
        timeout_s: 300,
        mark: 0,
        state,
        labels: None,
        seq_adjust: [None; 2],
        helper: None,
        master: None,
    }
}

/// As behind a gateway that hides its clients.
fn translated(mut entry: Entry) -> Entry {
    entry.reply.dst = match entry.reply.dst {
        IpAddr::V4(_) => IpAddr::from([10, 2, 0, 254]),
        IpAddr::V6(_) => IpAddr::from([0xfd00, 2, 0, 0, 0, 0, 0, 254]),
    };
    if let Layer4::Ports { dst, .. } = &mut entry.reply.layer4 {
        *dst = 1_024;
    }
    entry
}

fn expectations() -> Vec<Vec<u8>> {
    use expectation::{
        Expectation, ExpectationKey, ExpectedTranslation, FunctionName, SourceMask,
        expectation_flags,
    };
    let of = |addresses: [IpAddr; 2]| Expectation {
        key: ExpectationKey {
            master: Key {
                original: tuple(addresses, protocol::TCP),
                zone: Zone::default(),
            },
            tuple: tuple(addresses, protocol::TCP),
            mask: SourceMask {
                address: addresses[0],
                port: 0,
            },
        },
        timeout_s: 300,
        flags: expectation_flags::PERMANENT,
        class: 0,
        translation: Some(ExpectedTranslation {
            address: addresses[1],
            port: 2_000,
            is_reply: true,
        }),
        helper: HelperName::new(b"ftp"),
        function: FunctionName::new(b"nat-follow-master"),
    };
    let items = [V4, V6]
        .map(of)
        .into_iter()
        .map(|one| fuzz::item_of_expectation(&one));
    items.map(|item| seed(&item)).collect()
}
