//! The codecs against random entries and hostile bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use bytes::{Bytes, BytesMut};
use vnfpool_statesync::Item;

use crate::codec::{self, DecodeError, ENTRY_BYTES_MAX};
use crate::entry::{
    Entry, HelperName, ProtocolState, SctpInfo, SeqAdjust, Status, TcpInfo, tcp_flags,
};
use crate::expectation::{
    EXPECTATION_BYTES_MAX, Expectation, ExpectationKey, ExpectedTranslation, FunctionName,
    SourceMask, decode_expectation, decode_expectation_key, encode_expectation,
    encode_expectation_key,
};
use crate::netlink::{build, expect, parse};
use crate::tuple::{Key, Layer4, Tuple, Zone, ZoneDirection, protocol};

fn address(v6: bool) -> BoxedStrategy<IpAddr> {
    if v6 {
        any::<u128>()
            .prop_map(|bits| Ipv6Addr::from(bits).into())
            .boxed()
    } else {
        any::<u32>()
            .prop_map(|bits| Ipv4Addr::from(bits).into())
            .boxed()
    }
}

fn layer4(number: u8) -> BoxedStrategy<Layer4> {
    match number {
        protocol::ICMP => (any::<u16>(), any::<u8>())
            .prop_map(|(id, code)| Layer4::Icmp { id, kind: 8, code })
            .boxed(),
        protocol::ICMPV6 => (any::<u16>(), any::<u8>())
            .prop_map(|(id, code)| Layer4::Icmp {
                id,
                kind: 128,
                code,
            })
            .boxed(),
        89 => Just(Layer4::None).boxed(),
        _ => (any::<u16>(), any::<u16>())
            .prop_map(|(src, dst)| Layer4::Ports { src, dst })
            .boxed(),
    }
}

fn tuple(v6: bool, protocol: u8) -> impl Strategy<Value = Tuple> {
    (address(v6), address(v6), layer4(protocol)).prop_map(move |(src, dst, layer4)| Tuple {
        src,
        dst,
        protocol,
        layer4,
    })
}

fn state(number: u8) -> BoxedStrategy<ProtocolState> {
    match number {
        protocol::TCP => (0_u8..10, any::<[u8; 2]>(), any::<[u8; 2]>())
            .prop_map(|(state, window_scale, flags)| {
                ProtocolState::Tcp(TcpInfo {
                    state,
                    window_scale,
                    flags: flags.map(|flags| flags & tcp_flags::REPLICATED),
                })
            })
            .boxed(),
        protocol::SCTP => (0_u8..10, any::<[u32; 2]>())
            .prop_map(|(state, tags)| ProtocolState::Sctp(SctpInfo { state, tags }))
            .boxed(),
        _ => Just(ProtocolState::None).boxed(),
    }
}

fn zone() -> impl Strategy<Value = Zone> {
    let direction = prop_oneof![
        Just(ZoneDirection::Both),
        Just(ZoneDirection::Original),
        Just(ZoneDirection::Reply)
    ];
    prop_oneof![
        Just(Zone::default()),
        (1_u16.., direction).prop_map(|(id, direction)| Zone { id, direction })
    ]
}

fn seq_adjust() -> impl Strategy<Value = Option<SeqAdjust>> {
    proptest::option::of(
        any::<[u32; 3]>().prop_map(|[position, before, after]| SeqAdjust {
            correction_position: position,
            offset_before: before,
            offset_after: after,
        }),
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = (
        any::<bool>(),
        prop::sample::select(vec![
            protocol::ICMP,
            protocol::TCP,
            protocol::UDP,
            protocol::GRE,
            protocol::SCTP,
            89,
        ]),
    );
    kind.prop_flat_map(|(v6, number)| {
        let number = if v6 && number == protocol::ICMP {
            protocol::ICMPV6
        } else {
            number
        };
        let reply = proptest::option::of(tuple(v6, number).prop_map(|tuple| tuple.inverse()));
        let rest = (
            any::<[u32; 3]>(),
            proptest::option::of(any::<[u8; 16]>()),
            [seq_adjust(), seq_adjust()],
            proptest::option::of("[a-z][a-z0-9-]{0,14}"),
        );
        let master = proptest::option::of(tuple(v6, protocol::TCP));
        (
            tuple(v6, number),
            reply,
            zone(),
            state(number),
            rest,
            master,
        )
    })
    .prop_map(|(original, reply, zone, state, rest, master)| {
        let ([status, timeout_s, mark], labels, seq_adjust, helper) = rest;
        Entry {
            key: Key { original, zone },
            reply: reply.unwrap_or_else(|| original.inverse()),
            status: Status(status),
            timeout_s,
            mark,
            state,
            labels,
            seq_adjust,
            helper: helper.and_then(|name| HelperName::new(name.as_bytes())),
            master,
        }
    })
}

fn expectation() -> impl Strategy<Value = Expectation> {
    let number = || prop::sample::select(vec![protocol::TCP, protocol::UDP, protocol::GRE]);
    let kind = (any::<bool>(), number(), number());
    kind.prop_flat_map(|(v6, master, number)| {
        let translation = (address(v6), any::<u16>(), any::<bool>());
        (
            (tuple(v6, master), zone(), tuple(v6, number)),
            (address(v6), any::<u16>()),
            (any::<u32>(), 0_u8..4, 0_u8..4),
            proptest::option::of(translation),
            proptest::option::of("[a-z][a-z0-9-]{0,14}"),
            proptest::option::of("[a-zA-Z][a-z0-9-]{0,30}"),
        )
    })
    .prop_map(|(key, mask, rest, translation, helper, function)| {
        let (original, zone, tuple) = key;
        let (timeout_s, flags, class) = rest;
        Expectation {
            key: ExpectationKey {
                master: Key { original, zone },
                tuple,
                mask: SourceMask {
                    address: mask.0,
                    port: mask.1,
                },
            },
            timeout_s,
            flags,
            class,
            translation: translation.map(|(address, port, is_reply)| ExpectedTranslation {
                address,
                port,
                is_reply,
            }),
            helper: helper.and_then(|name| HelperName::new(name.as_bytes())),
            function: function.and_then(|name| FunctionName::new(name.as_bytes())),
        }
    })
}

fn encoded_expectation(expectation: &Expectation) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_expectation(expectation, &mut bytes);
    bytes
}

fn encoded(entry: &Entry) -> Item {
    codec::item(entry, &mut BytesMut::new())
}

/// `bytes` with some of them changed.
fn changed(bytes: &Bytes, changes: &[(prop::sample::Index, u8)]) -> Bytes {
    let mut bytes = bytes.to_vec();
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    bytes.into()
}

proptest! {
    #[test]
    fn entries_survive_the_codec(entry in entry()) {
        let item = encoded(&entry);
        prop_assert!(item.key.len() + item.value.len() <= ENTRY_BYTES_MAX);
        prop_assert_eq!(codec::decode_key(&item.key), Ok(entry.key));
        prop_assert_eq!(codec::entry(&item), Ok(entry.portable()));
    }

    #[test]
    fn every_cut_and_every_tail_is_noticed(entry in entry(), cut in any::<prop::sample::Index>()) {
        let Item { key, value, ttl_s } = encoded(&entry);
        let cut_value = Item { key: key.clone(), value: value.slice(..cut.index(value.len())), ttl_s };
        prop_assert_eq!(codec::entry(&cut_value), Err(DecodeError::Truncated));
        let cut_key = Item { key: key.slice(..cut.index(key.len())), value: value.clone(), ttl_s };
        prop_assert_eq!(codec::entry(&cut_key), Err(DecodeError::Truncated));
        let longer = |bytes: &Bytes| Bytes::from([bytes, &[0_u8][..]].concat());
        let tail = Item { key: key.clone(), value: longer(&value), ttl_s };
        prop_assert_eq!(codec::entry(&tail), Err(DecodeError::Trailing { extra: 1 }));
        prop_assert_eq!(codec::decode_key(&longer(&key)), Err(DecodeError::Trailing { extra: 1 }));
    }

    /// Whatever is accepted is an entry of the kernel and means the same when encoded again.
    #[test]
    fn hostile_bytes_give_an_error_or_a_possible_entry(
        entry in entry(),
        of_key in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        of_value in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        random in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let item = encoded(&entry);
        let hostile = Item {
            key: changed(&item.key, &of_key),
            value: changed(&item.value, &of_value),
            ttl_s: item.ttl_s,
        };
        let noise = Item { value: random.clone().into(), ..item };
        for item in [hostile, noise] {
            if let Ok(entry) = codec::entry(&item) {
                prop_assert_eq!(entry.check(), Ok(()));
                let told = encoded(&entry);
                let read = codec::entry(&told).unwrap();
                prop_assert_eq!(&read, &entry.portable());
                prop_assert_eq!(encoded(&read), told);
            }
        }
        let _ = codec::decode_key(&random);
    }

    /// What a copy is lent on top of what was told is nothing to tell.
    #[test]
    fn a_copy_tells_what_it_was_told(state in state(protocol::TCP)) {
        let ProtocolState::Tcp(tcp) = state else {
            panic!("no TCP: {state:?}");
        };
        let told = tcp.learnt();
        prop_assert_eq!(told.learnt(), told);
        prop_assert_eq!(told.learning().learnt(), told);
    }

    /// An update as we write it, read as if the kernel had sent it. The reply tuple is not part
    /// of an update, so a creation without translation stands for it.
    #[test]
    fn requests_are_read_as_they_were_written(entry in entry()) {
        let entry = Entry { reply: entry.key.original.inverse(), ..entry };
        let mut bytes = Vec::new();
        build::create(&mut bytes, 7, &entry, build::CreateOptions { helper: true, master: true });
        let read: Vec<_> = parse::messages(&bytes).collect();
        prop_assert_eq!(read.len(), 1);
        prop_assert_eq!(read[0].sequence, 7);
        let read = parse::entry(&read[0]).unwrap();
        prop_assert_eq!(read.key, entry.key);
        prop_assert_eq!(read.reply, entry.reply);
        prop_assert_eq!(read.state, entry.state);
        prop_assert_eq!(read.mark, entry.mark);
        prop_assert_eq!(read.labels, entry.labels);
        prop_assert_eq!(read.seq_adjust, entry.seq_adjust);
        prop_assert_eq!(read.helper, entry.helper);
        prop_assert_eq!(read.master, entry.master);
    }

    #[test]
    fn hostile_netlink_does_not_panic(
        entry in entry(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        build::create(&mut bytes, 7, &entry, build::CreateOptions { helper: true, master: true });
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        for message in parse::messages(&bytes) {
            let _ = parse::error_number(&message);
            let _ = parse::entry(&message);
        }
    }

    #[test]
    fn expectations_and_their_keys_survive_the_codec(expectation in expectation()) {
        let bytes = encoded_expectation(&expectation);
        prop_assert!(bytes.len() <= EXPECTATION_BYTES_MAX);
        let mut key = Vec::new();
        encode_expectation_key(&expectation.key, &mut key);
        prop_assert_eq!(decode_expectation_key(&key), Ok(expectation.key));
        prop_assert_eq!(decode_expectation(&bytes), Ok(expectation));
    }

    #[test]
    fn every_cut_and_every_tail_of_an_expectation_is_noticed(
        expectation in expectation(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded_expectation(&expectation);
        let cut = cut.index(bytes.len());
        prop_assert_eq!(decode_expectation(&bytes[..cut]), Err(DecodeError::Truncated));
        bytes.push(0);
        prop_assert_eq!(decode_expectation(&bytes), Err(DecodeError::Trailing { extra: 1 }));
    }

    #[test]
    fn hostile_bytes_give_an_error_or_a_possible_expectation(
        expectation in expectation(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        random in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = encoded_expectation(&expectation);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for bytes in [bytes, random] {
            if let Ok(expectation) = decode_expectation(&bytes) {
                prop_assert_eq!(expectation.check(), Ok(()));
                prop_assert_eq!(
                    decode_expectation(&encoded_expectation(&expectation)),
                    Ok(expectation)
                );
            }
            if let Ok(key) = decode_expectation_key(&bytes) {
                prop_assert_eq!(key.check(), Ok(()));
            }
        }
    }

    /// The kernel tells the helper and no zone; a request names a zone and no helper.
    #[test]
    fn requests_for_expectations_are_read_as_they_were_written(expectation in expectation()) {
        let mut bytes = Vec::new();
        expect::create(&mut bytes, 7, &expectation);
        let read: Vec<_> = parse::messages(&bytes).collect();
        prop_assert_eq!(read.len(), 1);
        let read = expect::expectation(&read[0]).unwrap();
        let mut expected = Expectation { timeout_s: 0, helper: None, ..expectation };
        expected.key.master.zone = Zone::default();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn hostile_netlink_about_expectations_does_not_panic(
        expectation in expectation(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        expect::create(&mut bytes, 7, &expectation);
        expect::set_timeout(&mut bytes, 8, &expectation);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        for message in parse::messages(&bytes) {
            if let Ok(expectation) = expect::expectation(&message) {
                prop_assert_eq!(expectation.check(), Ok(()));
            }
        }
    }
}
