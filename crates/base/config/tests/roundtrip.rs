//! Good files are read to the right values; files written by us are read back; nothing panics.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test is what they say"
)]

use std::time::Duration;

use proptest::prelude::*;
use vnfpool_config::{
    Checked, Conflict, ElementFile, Family, GateDriver, ManagerConfig, ManagerFile, PoolFile,
    ProbeTest, advice, check_any, check_pool, overlaps,
};
use vnfpool_model::{OnQuorumLoss, PoolSpec, Switchback, Timing};

const POOL: &str = include_str!("../../../../packaging/examples/pool.toml");
const ELEMENT: &str = include_str!("../../../../packaging/examples/element.toml");
const MANAGER: &str = include_str!("../../../../packaging/examples/manager.toml");

fn pool() -> PoolSpec {
    PoolFile::parse(POOL, "pool.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn manager() -> ManagerConfig {
    ManagerFile::parse(MANAGER, "manager.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_pool_example_is_read() {
    let pool = pool();
    assert_eq!(pool.handle.as_str(), "edge");
    assert_eq!(pool.function, "nat-gateway");
    assert_eq!(pool.timing, Timing::DEFAULT);
    assert_eq!(pool.on_quorum_loss, OnQuorumLoss::Serve);
    assert_eq!(pool.switchback, Switchback::Manual);
    let [slot] = pool.slots.as_slice() else {
        panic!("one slot expected");
    };
    assert_eq!(slot.preferred.as_ref().unwrap().as_str(), "gw1");
    let addresses: Vec<String> = slot
        .addresses
        .iter()
        .map(|address| format!("{} {}", address.address, address.mac()))
        .collect();
    assert_eq!(
        addresses,
        [
            "10.1.0.254/24 00:00:5e:00:01:0b",
            "fd00:1::fe/64 00:00:5e:00:02:0b",
            "10.2.0.254/24 00:00:5e:00:01:0c",
            "fd00:2::fe/64 00:00:5e:00:02:0c",
        ]
    );
    let blocks = slot.port_blocks.as_ref().unwrap();
    assert_eq!(blocks.count(), 8);
    let (gw1, gw2) = ("gw1".parse().unwrap(), "gw2".parse().unwrap());
    let of = |element| [0, 3, 4].map(|turn| blocks.block(element, turn).unwrap());
    assert_eq!((of(&gw1), of(&gw2)), ([0, 3, 0], [4, 7, 4]));
    assert_eq!(blocks.map.chain(7), "vnfpool_main_7");
    assert_eq!(advice(&pool), Vec::<String>::new());
}

#[test]
fn the_element_example_is_read_and_its_optional_keys_are_the_defaults() {
    let full = ElementFile::parse(ELEMENT, "element.toml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(full.lans[1].interface, "out");
    assert_eq!(full.paths[0].name, "link");
    assert_eq!(full.labels["rack"], "rack-a");
    assert_eq!(full.health.forwarding, [Family::Ipv4, Family::Ipv6]);
    assert_eq!(full.health.ruleset.as_ref().unwrap().table, "gateway");
    assert_eq!(full.hooks.on_fault.len(), 4);
    let short = "element=\"gw1\"\npool=\"edge\"\nfunction=\"nat-gateway\"\nhost=\"host-1\"\n\
                 dir=\"/d\"\nmanager=\"10.9.0.10:7400\"\n[[lan]]\nname=\"inside\"\n\
                 interface=\"in\"\naddress=\"10.1.0.1\"\n";
    let short = ElementFile::parse(short, "short.toml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(short.capacity, full.capacity);
    assert_eq!(short.gate, GateDriver::Bpf);
    assert_eq!(short.realtime, full.realtime);
    assert_eq!(short.ports, full.ports);
    assert_eq!(short.hooks.timeout, full.hooks.timeout);
    assert_eq!(short.metrics, None);
    let probe = "[health.probe]\ncommand=[\"/bin/true\"]\ninterval_ms=200\n";
    let config = ELEMENT.replace("[hooks]", &format!("{probe}[hooks]"));
    let config = ElementFile::parse(&config, "probe.toml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        config.health.probe.unwrap().interval,
        Duration::from_millis(200)
    );
}

#[test]
fn the_haproxy_examples_are_read() {
    let text = include_str!("../../../../packaging/examples/haproxy/element.toml");
    let element = ElementFile::parse(text, "element.toml").unwrap_or_else(|e| panic!("{e}"));
    let socket = "/run/haproxy/admin.sock";
    let test = element.health.probe.unwrap().test;
    let ProbeTest::Socket {
        socket: asked,
        send,
        expect,
    } = test
    else {
        panic!("a socket is asked, not {test:?}");
    };
    assert_eq!(asked.to_str(), Some(socket));
    assert_eq!((&*send, &*expect), ("show info", "Stopping: 0"));
    let drain = element.drain.unwrap();
    assert_eq!(drain.socket.to_str(), Some(socket));
    assert_eq!(drain.begin, "disable server control/serves");
    assert_eq!(drain.end, "enable server control/serves");
    assert_eq!(drain.time, Duration::from_secs(1));
    let text = include_str!("../../../../packaging/examples/haproxy/pool.toml");
    let pool = PoolFile::parse(text, "pool.toml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(pool.function, element.function);
    assert_eq!(pool.handle, element.pool);
    assert_eq!(pool.slots[0].port_blocks, None);
    assert_eq!(advice(&pool), Vec::<String>::new());
}

#[test]
fn the_socket_of_functions_is_off_by_default_and_has_defaults() {
    let read = |text: &str| {
        ElementFile::parse(text, "x")
            .unwrap_or_else(|e| panic!("{e}"))
            .sdk
    };
    assert_eq!(read(ELEMENT), None);
    let sdk = read(&format!("{ELEMENT}\n[sdk]\n")).unwrap();
    assert_eq!(sdk.socket.to_str(), Some("/run/vnfpool/sdk.sock"));
    assert_eq!((sdk.mode, sdk.uid, sdk.required), (0o600, None, true));
    let full = "\n[sdk]\nsocket = \"/run/lb.sock\"\ngid = 7\nrequired = false\n";
    let sdk = read(&format!("{ELEMENT}{full}")).unwrap();
    assert_eq!((sdk.mode, sdk.gid, sdk.required), (0o660, Some(7), false));
    let sdk = read(&format!("{ELEMENT}{full}mode = 0o666\n")).unwrap();
    assert_eq!(sdk.mode, 0o666);
    let relative = format!("{ELEMENT}\n[sdk]\nsocket = \"sdk.sock\"\n");
    let errors = ElementFile::parse(&relative, "x").unwrap_err();
    assert!(
        errors.to_string().contains("expected an absolute path"),
        "{errors}"
    );
}

#[test]
fn the_manager_example_is_read_and_written() {
    let manager = manager();
    assert_eq!(manager.ports.control, 7400);
    assert_eq!(manager.fencing, None);
    let text = ManagerFile::render(&manager);
    assert_eq!(ManagerFile::parse(&text, "written").unwrap(), manager);
    let fenced = format!("{MANAGER}\n[fencing]\ncommand = \"/usr/sbin/power-off\"\n");
    let mut manager = ManagerFile::parse(&fenced, "fenced").unwrap();
    let fencing = manager.fencing.as_mut().unwrap();
    assert_eq!(fencing.command.to_str(), Some("/usr/sbin/power-off"));
    assert_eq!(fencing.timeout, Duration::from_secs(30));
    assert!(!fencing.without_spare);
    (fencing.timeout, fencing.without_spare) = (Duration::from_secs(300), true);
    let text = ManagerFile::render(&manager);
    assert_eq!(ManagerFile::parse(&text, "written").unwrap(), manager);
}

#[test]
fn the_kind_of_a_file_is_recognised() {
    for (text, kind) in [(POOL, "pool"), (ELEMENT, "element"), (MANAGER, "manager")] {
        assert_eq!(check_any(text, "x").as_ref().map(Checked::kind), Ok(kind));
    }
}

#[test]
fn missing_constants_follow_from_the_given_ones() {
    let timing = |constants: &str| {
        let text = POOL.replace("profile = \"default\"", constants);
        PoolFile::parse(&text, "x")
            .unwrap_or_else(|e| panic!("{e}"))
            .timing
    };
    assert_eq!(timing("profile = \"fast\""), Timing::FAST);
    assert_eq!(timing(""), Timing::DEFAULT);
    let slow = timing("heartbeat_ms = 200");
    assert_eq!((slow.lease_ms, slow.manager_lease_ms), (1_000, 2_000));
    assert_eq!(timing("lease_ms = 100").heartbeat_interval_ms, 20);
}

#[test]
fn a_lease_by_itself_is_read_and_written() {
    let read = |constants: &str| {
        let text = POOL.replace("profile = \"default\"", constants);
        PoolFile::parse(&text, "x").unwrap_or_else(|e| panic!("{e}"))
    };
    let usual = read("lease = \"auto\"");
    assert_eq!((usual.timing, usual.lease_ms_max()), (Timing::DEFAULT, 250));
    let narrow = read("lease = \"auto\"\nlease_min_ms = 5\nlease_max_ms = 9");
    assert_eq!(
        (narrow.timing.lease_ms, narrow.timing.heartbeat_interval_ms),
        (9, 1)
    );
    let slow = read("lease = \"auto\"\nlease_min_ms = 600\nlease_max_ms = 900");
    assert_eq!(
        (slow.timing.lease_ms, slow.timing.manager_lease_ms),
        (600, 1_800)
    );
    for pool in [usual, narrow, slow] {
        let text = PoolFile::render(&pool);
        assert_eq!(PoolFile::parse(&text, "written").unwrap(), pool);
    }
}

#[test]
fn a_lan_without_witness_is_mentioned_only_where_it_matters() {
    let text = POOL.replace("witnesses = [\"10.2.0.10\"]", "");
    let serve = PoolFile::parse(&text, "x").unwrap();
    assert!(advice(&serve)[0].contains("LAN 'outside'"));
    let stop = PoolFile::parse(&text.replace("\"serve\"", "\"stop\""), "x").unwrap();
    assert!(advice(&stop).is_empty());
}

#[test]
fn overlaps_between_pools_are_found() {
    let edge = pool();
    let same = PoolFile::parse(&POOL.replace("\"edge\"", "\"other\""), "x").unwrap();
    assert_eq!(
        overlaps(std::slice::from_ref(&edge), &edge),
        [],
        "an update of itself"
    );
    let conflicts = overlaps(std::slice::from_ref(&edge), &same);
    assert_eq!(conflicts.len(), 6, "four addresses, two virtual routers");
    assert!(matches!(conflicts[0], Conflict::Address { .. }));
    assert_eq!(
        conflicts[1].to_string(),
        "vrid 11 on LAN 'inside' is already used by pool 'edge', slot 'main'"
    );
}

/// Sound pools: distinct slots, one LAN each, so that every generated value is accepted.
fn any_pool() -> impl Strategy<Value = PoolSpec> {
    let slot = (
        prop::option::of("[a-z][a-z0-9.-]{0,8}"),
        1u8..=254,
        any::<bool>(),
    );
    let timing = (1u32..1_000, 3u32..10, 2u32..6);
    let slots = prop::collection::vec(slot, 1..6);
    (slots, timing, any::<bool>(), any::<bool>()).prop_map(|(slots, timing, stop, auto)| {
        let (heartbeat, leases, manager_leases) = timing;
        let lease = heartbeat * leases;
        let manager_lease = (lease * manager_leases).min(60_000).max(lease * 2);
        let mut text = format!(
            "[pool]\nhandle='p'\nfunction='f'\nheartbeat_ms={heartbeat}\nlease_ms={lease}\n\
             manager_lease_ms={manager_lease}\non_quorum_loss='{}'\nswitchback='{}'\n",
            if stop { "stop" } else { "serve" },
            if auto { "auto" } else { "manual" },
        );
        for (index, (preferred, host, with_witness)) in slots.into_iter().enumerate() {
            let preferred = preferred
                .map(|name| format!("preferred='{name}'\n"))
                .unwrap_or_default();
            let witness = if with_witness {
                "witnesses=['fe80::1']"
            } else {
                ""
            };
            text += &format!(
                "[[slot]]\nname='s{index}'\n{preferred}[[slot.address]]\n\
                 address='10.{index}.0.{host}/24'\nlan='l{index}'\nvrid={host}\n{witness}\n"
            );
        }
        text += "[state]\nconnections='none'\n";
        PoolFile::parse(&text, "generated").unwrap_or_else(|errors| panic!("{errors}"))
    })
}

/// Bytes of a good file with a few of them changed, removed or doubled.
fn mutated(text: &'static str) -> impl Strategy<Value = String> {
    let edit = (0..text.len(), any::<u8>(), 0..3u8);
    prop::collection::vec(edit, 1..8).prop_map(move |edits| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at.min(bytes.len() - 1);
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Parses as every kind; errors must have places inside the text.
fn parse_all(text: &str) {
    let errors = [
        PoolFile::parse(text, "x").err(),
        ElementFile::parse(text, "x").err(),
        ManagerFile::parse(text, "x").err(),
        check_any(text, "x").err(),
    ];
    let lines = text.matches('\n').count() + 1;
    for error in errors.iter().flatten().flat_map(|errors| errors.as_slice()) {
        assert!((1..=lines).contains(&error.line), "{error}");
        let line = text.split('\n').nth(error.line - 1).unwrap();
        assert!(error.column <= line.chars().count() + 1, "{error}");
        assert!(
            !error
                .to_string()
                .contains(|c: char| c.is_control() && c != '\n')
        );
    }
}

proptest! {
    #[test]
    fn written_pools_are_read_back(pool in any_pool()) {
        prop_assert_eq!(check_pool(&pool), []);
        let text = PoolFile::render(&pool);
        prop_assert_eq!(PoolFile::parse(&text, "written"), Ok(pool));
    }

    #[test]
    fn random_text_never_panics(text in ".{0,300}") {
        parse_all(&text);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        parse_all(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn mutated_pool_files_never_panic(text in mutated(POOL)) {
        parse_all(&text);
    }

    #[test]
    fn mutated_element_files_never_panic(text in mutated(ELEMENT)) {
        parse_all(&text);
    }

    #[test]
    fn mutated_manager_files_never_panic(text in mutated(MANAGER)) {
        parse_all(&text);
    }
}
