//! A snapshot that ends anywhere: the link is cut, the standby or the active dies, after any byte of it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use vnfpool_conntrack::{
    Entry, Family, Injector, Key, Layer4, ProtocolState, Status, Tuple, Zone, dump_all, protocol,
};
use vnfpool_lab::Gateway::{self, Gw1, Gw2};
use vnfpool_statesync::wire::record::Record;
use vnfpool_statesync::wire::{Body, Decoder};

use crate::caller::{wait_armed_again, wait_in_sync};
use crate::daemon::wait;
use crate::packets::Random;
use crate::site::Site;
use crate::tap::Tap;

/// Connections in the active's kernel.
const CONNECTIONS: u16 = 4_000;

/// Where a snapshot ends, so often for each of the ways.
const POINTS: usize = 5;

/// What the clients' connections go to; nothing else here does.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 77);

/// The preface of a link.
const PREFACE_BYTES: usize = 16;

fn connection(number: u16) -> Entry {
    let [high, low] = number.to_be_bytes();
    let original = Tuple {
        src: Ipv4Addr::new(10, 1, 0, 10).into(),
        dst: SERVER.into(),
        protocol: protocol::UDP,
        layer4: Layer4::Ports {
            src: 10_000 + number,
            dst: 5_300,
        },
    };
    let mut reply = original.inverse();
    reply.dst = Ipv4Addr::new(10, 2, 0, 254).into();
    Entry {
        key: Key {
            original,
            zone: Zone::default(),
        },
        reply,
        status: Status(Status::CONFIRMED | Status::ASSURED | Status::SEEN_REPLY),
        timeout_s: 3_000,
        mark: u32::from_be_bytes([0, 0, high, low]) + 1,
        state: ProtocolState::None,
        labels: None,
        seq_adjust: [None; 2],
        helper: None,
        master: None,
    }
}

/// Makes all connections in the kernel of a gateway, as far as they are not there.
fn fill(site: &Site, gateway: Gateway) {
    let there = table(site, gateway);
    let inject = || {
        let mut injector = Injector::open()?;
        for entry in (0..CONNECTIONS).map(connection) {
            if !there.contains_key(&entry.key) {
                injector.upsert(entry, true)?;
            }
        }
        let failures = injector.flush()?;
        anyhow::ensure!(failures.is_empty(), "{failures:?}");
        Ok(())
    };
    site.lab
        .namespace(gateway.name())
        .unwrap()
        .run(inject)
        .unwrap();
}

/// The connections in the kernel of a gateway, but for the time that each has left.
fn table(site: &Site, gateway: Gateway) -> BTreeMap<Key, Entry> {
    let dump = || Ok(dump_all(Family::V4)?);
    let all = site.lab.namespace(gateway.name()).unwrap().run(dump);
    let ours = all.unwrap().into_iter().filter(|entry| {
        let Tuple { dst, .. } = entry.key.original;
        dst == SERVER
    });
    let untimed = ours.map(|entry| Entry {
        timeout_s: 0,
        ..entry
    });
    untimed.map(|entry| (entry.key, entry)).collect()
}

/// Up to which byte of a stream its first snapshot is not over; none if it is not.
fn whole_at(stream: &[u8]) -> Option<usize> {
    let mut decoder = Decoder::new();
    let mut at = PREFACE_BYTES;
    // A stream that is cut in its preface has no frames.
    decoder.push(stream.get(at..)?);
    while let Ok(Some(frame)) = decoder.next_frame() {
        let is_end = match &frame.body {
            Body::Records(records) => records
                .clone()
                .any(|record| matches!(record, Ok(Record::End { .. }))),
            _ => false,
        };
        at += frame.encode(&mut bytes::BytesMut::new());
        if is_end {
            return Some(at);
        }
    }
    None
}

/// What happens while a snapshot stands still.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    LinkIsCut,
    StandbyDies,
    ActiveDies,
}

/// Whether the active calls the copy whole.
fn is_in_sync(site: &Site) -> bool {
    site.metric("gw1", "vnfpool_sync_standby_in_sync", "") > 0.0
}

/// Goal: a standby with a part of a snapshot is never taken for one that has it all, whatever ends the
/// snapshot at whichever byte; and after the repair both kernels hold exactly the same. Method: thousands
/// of connections in the active's kernel; a tap lets each stream come up to a random byte, looks at what
/// everybody says then, and the link is cut or an agent killed.
#[test]
fn a_snapshot_that_ends_anywhere_is_never_taken_for_whole() {
    let site = Site::enrolled();
    let tap = Tap::start(&site);
    site.start_pool();
    fill(&site, Gw1);
    tap.cut(usize::MAX);
    wait_equal(&site);
    let length = tap
        .told()
        .last()
        .and_then(|stream| whole_at(stream))
        .unwrap();
    println!("a snapshot has {length} bytes");

    let mut random = Random::seeded();
    let troubles = [
        Trouble::LinkIsCut,
        Trouble::StandbyDies,
        Trouble::ActiveDies,
    ];
    for trouble in (0..POINTS).flat_map(|_| troubles) {
        let pass_max = 1 + random.below(length - 1);
        println!("{trouble:?} after byte {pass_max}");
        tap.cut(pass_max);
        let passed = tap.wait_stopped();
        assert_eq!(passed.len(), pass_max);
        assert_eq!(whole_at(&passed), None, "it is over before");
        // It stands still, so what is said now is said of a part.
        assert!(!is_in_sync(&site), "a part is taken for the whole");
        // What the standby had of the stream before is whole for a moment longer.
        wait("the standby to be disarmed", || {
            let slot = site.slot()?;
            (slot["armed"] == false).then_some(())
        });
        assert!(!is_in_sync(&site), "a part is taken for the whole");
        match trouble {
            Trouble::LinkIsCut => tap.cut(usize::MAX),
            Trouble::StandbyDies => restart(&site, &tap, Gw2),
            Trouble::ActiveDies => restart(&site, &tap, Gw1),
        }
        wait_armed_again(&site);
        site.wait_first();
        // Who served alone meanwhile had a part only, and that is the pool's table now.
        fill(&site, Gw1);
        wait_equal(&site);
    }
    site.ends_well();
}

fn restart(site: &Site, tap: &Tap, gateway: Gateway) {
    site.element(gateway).kill();
    tap.cut(usize::MAX);
    site.start_element(gateway);
}

/// Waits until gw1's copy counts as in sync, and both kernels hold the same: all of it.
fn wait_equal(site: &Site) {
    wait_armed_again(site);
    wait_in_sync(site, Gw1);
    let expected = usize::from(CONNECTIONS);
    wait("the same in both kernels", || {
        let [one, two] = Gateway::BOTH.map(|gateway| table(site, gateway));
        (one.len() == expected && one == two).then_some(())
    });
}
