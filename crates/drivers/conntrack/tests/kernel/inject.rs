//! Injection of every kind of connection, read back by the dump and by `conntrack`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use vnfpool_conntrack::{
    Entry, Family, Fetcher, HelperName, Injector, Key, Layer4, ProtocolState, Scope, SctpInfo,
    SeqAdjust, Sink, Status, TcpInfo, Tuple, Zone, ZoneDirection, codec, dump_all, enable_events,
    protocol, tcp_flags, tcp_state,
};
use vnfpool_statesync::Item;

use crate::alike::swept;
use vnfpool_netns::{Namespace, set};

const NAT_BITS: u32 = Status::SRC_NAT | Status::DST_NAT;
const TOLD_BITS: u32 = Status::ASSURED | Status::SEEN_REPLY | Status::CONFIRMED;

fn layer4(number: u8, port: u16) -> Layer4 {
    match number {
        protocol::ICMP => Layer4::Icmp {
            id: port,
            kind: 8,
            code: 0,
        },
        protocol::ICMPV6 => Layer4::Icmp {
            id: port,
            kind: 128,
            code: 0,
        },
        89 => Layer4::None,
        _ => Layer4::Ports {
            src: port,
            dst: 443,
        },
    }
}

pub(crate) fn entry(v6: bool, number: u8, port: u16) -> Entry {
    let (src, dst) = if v6 {
        ("fd00:1::a", "fd00:2::a")
    } else {
        ("10.1.0.10", "10.2.0.10")
    };
    let original = Tuple {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol: number,
        layer4: layer4(number, port),
    };
    Entry {
        key: Key {
            original,
            zone: Zone::default(),
        },
        reply: original.inverse(),
        status: Status(TOLD_BITS),
        timeout_s: 1000,
        mark: u32::from(port),
        state: match number {
            protocol::TCP => ProtocolState::Tcp(TcpInfo {
                state: tcp_state::ESTABLISHED,
                window_scale: [7, 9],
                flags: [tcp_flags::WINDOW_SCALE | tcp_flags::SACK_PERM; 2],
            }),
            protocol::SCTP => ProtocolState::Sctp(SctpInfo {
                state: 4,
                tags: [11, 22],
            }),
            _ => ProtocolState::None,
        },
        labels: None,
        seq_adjust: [None; 2],
        helper: None,
        master: None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Nat {
    None,
    Source,
    SourcePort,
    Destination,
    Both,
}

pub(crate) fn translate(mut entry: Entry, nat: Nat) -> Entry {
    let v6 = entry.reply.src.is_ipv6();
    let address = |v4: &str, six: &str| -> IpAddr { if v6 { six } else { v4 }.parse().unwrap() };
    let (new_id, new_port) = (1000, 8443);
    if matches!(nat, Nat::Source | Nat::Both | Nat::SourcePort) {
        entry.reply.dst = address("10.2.0.254", "fd00:2::fe");
    }
    if matches!(nat, Nat::Destination | Nat::Both) {
        entry.reply.src = address("10.2.0.77", "fd00:2::77");
    }
    match &mut entry.reply.layer4 {
        Layer4::Ports { src, dst } => {
            if matches!(nat, Nat::SourcePort | Nat::Both) {
                *dst += new_id;
            }
            if matches!(nat, Nat::Destination | Nat::Both) {
                *src = new_port;
            }
        }
        Layer4::Icmp { id, .. } => {
            if matches!(nat, Nat::SourcePort | Nat::Both) {
                *id += new_id;
            }
        }
        Layer4::None => {}
    }
    entry
}

/// Every protocol, family and kind of translation.
pub(crate) fn matrix() -> Vec<(String, Nat, Entry)> {
    let mut entries = Vec::new();
    let mut port = 2000;
    for v6 in [false, true] {
        let icmp = if v6 { protocol::ICMPV6 } else { protocol::ICMP };
        for number in [
            protocol::TCP,
            protocol::UDP,
            icmp,
            protocol::SCTP,
            protocol::GRE,
        ] {
            for nat in [
                Nat::None,
                Nat::Source,
                Nat::SourcePort,
                Nat::Destination,
                Nat::Both,
            ] {
                // Without a PPTP connection above it, the kernel never translates the key of GRE.
                let keeps_key = matches!(nat, Nat::None | Nat::Source);
                if number == protocol::GRE && !keeps_key {
                    continue;
                }
                port += 1;
                let name = format!("protocol {number}, IPv6 {v6}, {nat:?}");
                entries.push((name, nat, translate(entry(v6, number, port), nat)));
            }
        }
    }
    entries
}

fn find(table: &[Entry], key: &Key) -> Option<Entry> {
    table.iter().find(|entry| entry.key == *key).cloned()
}

/// What has to be equal in two kernels.
pub(crate) fn assert_same(found: &Entry, expected: &Entry, what: &str) {
    assert_eq!(found.reply, expected.reply, "{what}: reply");
    assert_eq!(found.state, expected.state, "{what}: state");
    assert_eq!(found.mark, expected.mark, "{what}: mark");
    assert_eq!(
        found.status.0 & TOLD_BITS,
        expected.status.0 & TOLD_BITS,
        "{what}: status"
    );
    let expected_timeout = expected.timeout_s.max(60);
    assert!(
        (expected_timeout - 5..=expected_timeout).contains(&found.timeout_s),
        "{what}: timeout {}",
        found.timeout_s
    );
}

/// The bits that translation and adjustment set.
fn translated_bits(entry: &Entry) -> u32 {
    let bit = |is_set: bool, bit| if is_set { bit } else { 0 };
    bit(entry.source_translation().is_some(), Status::SRC_NAT)
        | bit(entry.destination_translation().is_some(), Status::DST_NAT)
        | bit(entry.seq_adjust != [None; 2], Status::SEQ_ADJUST)
}

fn nat_bits(nat: Nat) -> u32 {
    match nat {
        Nat::None => 0,
        Nat::Source | Nat::SourcePort => Status::SRC_NAT,
        Nat::Destination => Status::DST_NAT,
        Nat::Both => NAT_BITS,
    }
}

/// A translation that differs from `nat`.
fn other(entry: &Entry, nat: Nat) -> Nat {
    match nat {
        Nat::Both | Nat::Source => Nat::None,
        _ if entry.key.original.protocol == protocol::GRE => Nat::Source,
        _ => Nat::Both,
    }
}

#[test]
fn every_kind_of_connection_is_created_updated_replaced_and_deleted() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut injector = Injector::open().unwrap();
        let matrix = matrix();
        for (_, _, entry) in &matrix {
            injector.upsert(entry.clone(), true).unwrap();
        }
        assert!(injector.flush().unwrap().is_empty());
        let table = dump_all(Family::All).unwrap();
        assert_eq!(table.len(), matrix.len());
        for (what, nat, entry) in &matrix {
            let found = find(&table, &entry.key).unwrap_or_else(|| panic!("{what}: missing"));
            assert_same(&found, entry, what);
            assert_eq!(
                found.status.0 & NAT_BITS,
                nat_bits(*nat),
                "{what}: NAT bits"
            );
        }

        // Updates need no translation and change the rest.
        for (_, _, entry) in &matrix {
            let changed = Entry {
                mark: 99,
                timeout_s: 2000,
                ..entry.clone()
            };
            injector.upsert(changed, false).unwrap();
        }
        assert!(injector.flush().unwrap().is_empty());
        for found in dump_all(Family::All).unwrap() {
            assert_eq!(found.mark, 99);
            assert!((1995..=2000).contains(&found.timeout_s));
        }
        let count = u64::try_from(matrix.len()).unwrap();
        assert_eq!(injector.stats().updated, count);
        assert_eq!(injector.stats().created, count);

        // "New" in the place of what is there, with another translation, replaces it.
        for (_, nat, entry) in &matrix {
            let plain = Entry {
                reply: entry.key.original.inverse(),
                ..entry.clone()
            };
            injector
                .upsert(translate(plain, other(entry, *nat)), true)
                .unwrap();
        }
        assert!(injector.flush().unwrap().is_empty());
        assert_eq!(injector.stats().replaced, count);
        let table = dump_all(Family::All).unwrap();
        assert_eq!(table.len(), matrix.len());
        for (what, nat, entry) in &matrix {
            let found = find(&table, &entry.key).unwrap_or_else(|| panic!("{what}: missing"));
            let expected = nat_bits(other(entry, *nat));
            assert_eq!(found.status.0 & NAT_BITS, expected, "{what}: NAT bits");
        }

        for (_, _, entry) in &matrix {
            injector.delete(entry.key).unwrap();
        }
        injector.delete(matrix[0].2.key).unwrap();
        assert!(injector.flush().unwrap().is_empty());
        assert_eq!(dump_all(Family::All).unwrap(), []);
    });
}

#[test]
fn conntrack_shows_what_was_injected() {
    let gateway = Namespace::new("gw");
    let tcp = translate(entry(false, protocol::TCP, 2001), Nat::Both);
    let udp = translate(entry(true, protocol::UDP, 2002), Nat::Source);
    gateway.enter(|| {
        let mut injector = Injector::open().unwrap();
        injector.upsert(tcp, true).unwrap();
        injector.upsert(udp, true).unwrap();
        assert!(injector.flush().unwrap().is_empty());
    });
    let v4 = gateway.run("conntrack", "-L -f ipv4", "");
    for part in [
        "tcp      6",
        "ESTABLISHED src=10.1.0.10 dst=10.2.0.10 sport=2001 dport=443",
        "src=10.2.0.77 dst=10.2.0.254 sport=8443 dport=3001 [ASSURED] mark=2001",
    ] {
        assert!(v4.contains(part), "{part:?} is not in {v4:?}");
    }
    let v6 = gateway.run("conntrack", "-L -f ipv6", "");
    let part = "src=fd00:2::a dst=fd00:2::fe sport=443 dport=2002 [ASSURED] mark=2002";
    assert!(v6.contains(part), "{part:?} is not in {v6:?}");
}

#[test]
fn an_update_of_an_unknown_connection_creates_it_if_it_says_enough() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut injector = Injector::open().unwrap();
        let complete = translate(entry(false, protocol::TCP, 1), Nat::SourcePort);
        injector.upsert(complete.clone(), false).unwrap();
        let incomplete = Entry {
            state: ProtocolState::None,
            ..entry(false, protocol::TCP, 2)
        };
        injector.upsert(incomplete.clone(), false).unwrap();
        let failures = injector.flush().unwrap();
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].key, incomplete.key);
        let table = dump_all(Family::V4).unwrap();
        assert_eq!(table.len(), 1);
        assert_same(&table[0], &complete, "complete");
        // An incomplete update of a known one leaves the state as it is.
        let mut partial = Entry {
            state: ProtocolState::None,
            mark: 5,
            ..complete
        };
        partial.timeout_s = 0;
        injector.upsert(partial, false).unwrap();
        assert!(injector.flush().unwrap().is_empty());
        let mut fetcher = Fetcher::open().unwrap();
        let found = fetcher.get(&complete.key).unwrap().unwrap();
        assert_same(
            &found,
            &Entry {
                mark: 5,
                ..complete
            },
            "after a partial update",
        );
        assert_eq!(fetcher.get(&incomplete.key).unwrap(), None);
    });
}

#[test]
fn a_stale_connection_that_owns_the_translated_port_gives_way() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut injector = Injector::open().unwrap();
        let stale = translate(entry(false, protocol::UDP, 5000), Nat::SourcePort);
        injector.upsert(stale.clone(), true).unwrap();
        injector.flush().unwrap();
        let mut fresh = entry(false, protocol::UDP, 5001);
        fresh.reply = stale.reply;
        injector.upsert(fresh.clone(), true).unwrap();
        assert!(injector.flush().unwrap().is_empty());
        let table = dump_all(Family::All).unwrap();
        assert_eq!(table.len(), 1);
        assert_same(&table[0], &fresh, "fresh");
    });
}

#[test]
fn status_that_would_have_to_go_back_is_set_by_replacing() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut injector = Injector::open().unwrap();
        let assured = entry(false, protocol::UDP, 1);
        injector.upsert(assured.clone(), true).unwrap();
        injector.flush().unwrap();
        let unreplied = Entry {
            status: Status(Status::CONFIRMED),
            ..assured
        };
        injector.upsert(unreplied.clone(), false).unwrap();
        assert!(injector.flush().unwrap().is_empty());
        assert_same(&dump_all(Family::All).unwrap()[0], &unreplied, "unreplied");
    });
}

#[test]
fn operations_on_one_connection_in_one_batch_end_as_the_last_one_says() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut injector = Injector::open().unwrap();
        let first = entry(false, protocol::TCP, 1);
        // In the kernel already, so that "new" needs a second pass.
        injector.upsert(first.clone(), true).unwrap();
        injector.flush().unwrap();
        injector.upsert(first.clone(), true).unwrap();
        injector.delete(first.key).unwrap();
        let second = entry(false, protocol::TCP, 2);
        injector.upsert(second.clone(), true).unwrap();
        let partial = Entry {
            state: ProtocolState::None,
            mark: 7,
            ..second
        };
        injector.upsert(partial, false).unwrap();
        assert!(injector.flush().unwrap().is_empty());
        let table = dump_all(Family::All).unwrap();
        assert_eq!(table.len(), 1);
        assert_same(&table[0], &Entry { mark: 7, ..second }, "second");
    });
}

#[test]
fn zones_and_sequence_adjustment_carry_over() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut injector = Injector::open().unwrap();
        let zones = [
            (5, ZoneDirection::Both),
            (6, ZoneDirection::Original),
            (7, ZoneDirection::Reply),
        ];
        let entries = zones.map(|(id, direction)| {
            let mut entry = entry(false, protocol::TCP, 9);
            entry.key.zone = Zone { id, direction };
            // Zones of the reply direction do not keep equal original tuples apart.
            entry.key.original.layer4 = layer4(protocol::TCP, id);
            entry.reply = entry.key.original.inverse();
            entry.seq_adjust[0] = Some(SeqAdjust {
                correction_position: 100,
                offset_before: 0,
                offset_after: 12,
            });
            entry
        });
        for entry in &entries {
            injector.upsert(entry.clone(), true).unwrap();
            injector.upsert(entry.clone(), false).unwrap();
        }
        assert!(injector.flush().unwrap().is_empty());
        let table = dump_all(Family::All).unwrap();
        assert_eq!(table.len(), entries.len());
        for entry in &entries {
            let found = find(&table, &entry.key).unwrap();
            assert_eq!(found.seq_adjust[0], entry.seq_adjust[0]);
            injector.delete(entry.key).unwrap();
        }
        assert!(injector.flush().unwrap().is_empty());
        assert_eq!(dump_all(Family::All).unwrap(), []);
    });
}

#[test]
fn an_unknown_helper_is_left_out_and_counted() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut injector = Injector::open().unwrap();
        let helped = Entry {
            helper: HelperName::new(b"no-such-helper"),
            ..entry(false, protocol::TCP, 1)
        };
        injector.upsert(helped.clone(), true).unwrap();
        assert!(injector.flush().unwrap().is_empty());
        assert_eq!(injector.stats().without_helper, 1);
        let helper = None;
        let expected = Entry { helper, ..helped };
        assert_same(&dump_all(Family::All).unwrap()[0], &expected, "helped");
    });
}

/// Goal: a sweep finds nothing to mend where nobody touched the copy. Method: everything that a
/// source may tell of a connection, put and read back, at once and after an update.
#[test]
fn a_sweep_reads_what_was_told() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut entries: Vec<Entry> = matrix().into_iter().map(|(_, _, entry)| entry).collect();
        let mut number = 0;
        let mut vary = |change: &dyn Fn(&mut Entry)| {
            number += 1;
            let mut entry = entry(number % 2 == 0, protocol::TCP, number);
            change(&mut entry);
            entries.push(entry.portable());
        };
        for state in tcp_state::SYN_SENT..tcp_state::MAX {
            for flags in [
                [0; 2],
                [tcp_flags::WINDOW_SCALE, 0],
                [0, tcp_flags::WINDOW_SCALE],
                [tcp_flags::WINDOW_SCALE | tcp_flags::SACK_PERM, 0],
                [tcp_flags::BE_LIBERAL; 2],
                [tcp_flags::WINDOW_SCALE | tcp_flags::CLOSE_INIT; 2],
                [tcp_flags::BE_LIBERAL | tcp_flags::SACK_PERM; 2],
                [tcp_flags::BE_LIBERAL | tcp_flags::WINDOW_SCALE; 2],
            ] {
                let window_scale = [7, 14];
                vary(&|entry| {
                    entry.state = ProtocolState::Tcp(TcpInfo {
                        state,
                        window_scale,
                        flags,
                    });
                });
            }
        }
        let adjusted = SeqAdjust {
            correction_position: 7,
            offset_before: 0,
            offset_after: u32::MAX,
        };
        // The kernel tells of both directions or of none.
        vary(&|entry| entry.seq_adjust = [Some(adjusted), Some(SeqAdjust::default())]);
        vary(&|entry| entry.status.0 = Status::CONFIRMED);
        vary(&|entry| entry.status.0 |= Status::FIXED_TIMEOUT);
        vary(&|entry| entry.mark = 0);
        vary(&|entry| entry.helper = HelperName::new(b"ftp"));
        vary(&|entry| entry.key.zone.id = 5);
        let mut sink = Sink::open(Scope::default()).unwrap();
        let mut buffer = BytesMut::new();
        for is_new in [true, false] {
            let mut told = BTreeMap::new();
            for entry in &mut entries {
                // The kernel tells that, by itself, of what was translated or adjusted.
                entry.status.0 |= translated_bits(entry);
                let item = codec::item(entry, &mut buffer);
                sink.put(&item, is_new).unwrap();
                told.insert(item.key, item.value);
                entry.mark ^= 3;
            }
            sink.flush().unwrap();
            assert_eq!(sink.take_failures().len(), 0);
            let held = swept(&mut sink);
            for (key, value) in &told {
                let (told, held) = (value, held.get(key));
                let entry = codec::decode_key(key).unwrap();
                assert_eq!(held, Some(told), "{entry:?}, new {is_new}");
            }
            assert_eq!(held.len(), told.len());
        }
    });
}

#[test]
fn a_sweep_names_what_is_of_the_function_and_nothing_of_the_element() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let own: IpAddr = "10.1.0.1".parse().unwrap();
        let kept = entry(false, protocol::UDP, 1);
        let stale = entry(false, protocol::UDP, 2);
        let ended = entry(true, protocol::UDP, 3);
        let mut mine = entry(false, protocol::UDP, 4);
        mine.key.original.src = own;
        mine.reply = mine.key.original.inverse();
        let mut injector = Injector::open().unwrap();
        for entry in [&stale, &mine, &ended] {
            injector.upsert(entry.clone(), true).unwrap();
        }
        injector.flush().unwrap();

        let mut sink = Sink::open(Scope::new([own])).unwrap();
        let mut buffer = BytesMut::new();
        for entry in [&kept, &ended] {
            sink.put(&codec::item(entry, &mut buffer), true).unwrap();
        }
        let ended = codec::item(&ended, &mut buffer);
        sink.delete(&ended.key).unwrap();
        let nonsense = Item {
            value: ended.key.clone(),
            ..ended.clone()
        };
        assert!(sink.put(&nonsense, true).is_err());
        // What a receiver's machine would do: sweep, and delete what it was not told of.
        let held: BTreeSet<Bytes> = swept(&mut sink).into_keys().collect();
        let stale_key = codec::item(&stale, &mut buffer).key;
        let kept_key = codec::item(&kept, &mut buffer).key;
        assert_eq!(held, BTreeSet::from([stale_key.clone(), kept_key]));
        sink.delete(&stale_key).unwrap();
        sink.flush().unwrap();
        assert!(sink.take_failures().is_empty());
        let mut keys: Vec<_> = dump_all(Family::All).unwrap();
        keys.sort_by_key(|entry| entry.key);
        let mut expected = [kept.key, mine.key];
        expected.sort();
        assert_eq!(
            keys.iter().map(|entry| entry.key).collect::<Vec<_>>(),
            expected
        );
    });
}

#[test]
fn a_refusal_says_what_was_tried_and_with_which_connection() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut injector = Injector::open().unwrap();
        let mut late = entry(false, protocol::TCP, 1);
        late.state = ProtocolState::None;
        injector.upsert(late, false).unwrap();
        let failures = injector.flush().unwrap();
        assert_eq!(failures.len(), 1);
        let text = failures[0].to_string();
        assert!(
            text.starts_with("cannot update the connection 6 10.1.0.10"),
            "{text}"
        );
        assert_eq!(injector.stats().failed, 1);
    });
}

#[test]
fn settings_are_those_of_the_namespace() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        set("netfilter/nf_conntrack_events", "2");
        enable_events().unwrap();
        let value = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_events");
        assert_eq!(value.unwrap().trim(), "1");
        assert!(vnfpool_conntrack::tcp_is_strict().unwrap());
        set("netfilter/nf_conntrack_tcp_be_liberal", "1");
        assert!(!vnfpool_conntrack::tcp_is_strict().unwrap());
    });
}

/// Goal: a connection whose time is fixed, by whom ever, ends at the standby when it ends at the
/// active. Method: the time is fixed when the copy is there already; then what is fixed changes in
/// something else; then it is another connection's entry, which packets prolong.
#[test]
fn a_copy_is_given_the_fixed_timeout_of_its_original() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut injector = Injector::open().unwrap();
        let mut put = |entry: &Entry| {
            injector.upsert(entry.clone(), false).unwrap();
            let failures = injector.flush().unwrap();
            assert!(failures.is_empty(), "{failures:?}");
            dump_all(Family::All).unwrap().remove(0)
        };
        let plain = entry(false, protocol::TCP, 1);
        put(&plain);
        let mut fixed = Entry {
            timeout_s: 4000,
            ..plain.clone()
        };
        fixed.status.0 |= Status::FIXED_TIMEOUT;
        let found = put(&fixed);
        assert_same(&found, &fixed, "fixed");
        assert!(found.status.has(Status::FIXED_TIMEOUT));
        fixed.mark = 9;
        let found = put(&fixed);
        assert_same(&found, &fixed, "changed");
        assert!(found.status.has(Status::FIXED_TIMEOUT));
        let found = put(&plain);
        assert_same(&found, &plain, "no longer fixed");
        assert!(!found.status.has(Status::FIXED_TIMEOUT));
        // Only the last was beyond an update.
        assert_eq!(
            (injector.stats().updated, injector.stats().replaced),
            (2, 1)
        );
    });
}

/// Goal: the least time of copies is not for those that nothing prolongs.
#[test]
fn a_fixed_timeout_is_never_made_longer() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut injector = Injector::open().unwrap();
        let mut created = entry(false, protocol::UDP, 1);
        created.timeout_s = 30;
        let mut updated = created.clone();
        updated.key.original.layer4 = layer4(protocol::UDP, 2);
        updated.reply = updated.key.original.inverse();
        injector.upsert(updated.clone(), true).unwrap();
        injector.flush().unwrap();
        for (entry, is_new) in [(&mut created, true), (&mut updated, false)] {
            entry.status.0 |= Status::FIXED_TIMEOUT;
            injector.upsert(entry.clone(), is_new).unwrap();
        }
        assert!(injector.flush().unwrap().is_empty());
        let table = dump_all(Family::All).unwrap();
        for entry in [&created, &updated] {
            let found = find(&table, &entry.key).unwrap();
            assert!((25..=30).contains(&found.timeout_s), "{found:?}");
        }
    });
}
