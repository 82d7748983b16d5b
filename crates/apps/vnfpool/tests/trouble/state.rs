//! What an operator sees of the replication of state when it does not go as agreed, and what is in
//! the kernels meanwhile.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use vnfpool_conntrack::{
    Entry, Family, Injector, Key, Layer4, ProtocolState, Status, Tuple, Zone, dump_all, protocol,
};
use vnfpool_lab::Gateway::{self, Gw1, Gw2};
use vnfpool_lab::SERVER_V4;

use crate::daemon::wait;
use crate::site::{Site, pool_file, run};

/// A pool whose members may be silent for seconds, with its state as `state` says.
fn patient_pool(state: &str) -> String {
    let pool = pool_file("edge", ["inside", "outside"], 1);
    let timing = "function = \"nat-gateway\"\nheartbeat_ms = 50\nlease_ms = 5000\n";
    let pool = pool.replace("function = \"nat-gateway\"\n", timing);
    format!("{pool}\n[state]\n{state}\n")
}

fn serving(state: &str) -> Site {
    let site = Site::managed();
    site.create_pool_of(&patient_pool(state));
    site.start_pool();
    site
}

/// What `status` says of the kernel's connections.
fn conntrack(site: &Site) -> Option<Value> {
    let state = &site.slot()?["state"];
    let mut classes = state.as_array()?.iter();
    classes.find(|class| class["class"] == "conntrack").cloned()
}

/// Stops the agent of a gateway for a time that nobody takes for its death.
fn pause(site: &Site, gateway: Gateway, act: impl FnOnce()) {
    site.element(gateway).signal(Signal::STOP);
    act();
    site.element(gateway).signal(Signal::CONT);
}

/// Goal: a pool of whose state a successor needs nothing has a successor all the same, who takes over when
/// the active dies.
#[test]
fn a_pool_that_needs_no_copies_has_a_successor() {
    for level in ["none", "eventual"] {
        let site = Site::managed();
        let pool = pool_file("edge", ["inside", "outside"], 1);
        site.create_pool_of(&format!("{pool}\n[state]\nconnections = \"{level}\"\n"));
        site.start_pool();
        site.element(Gw1).kill();
        site.wait_owner(Gw2);
        site.start_element(Gw1);
        site.wait_armed();
        site.operate(&["switchover", "edge", "--to", "gw1"]);
        site.wait_owner(Gw1);
        site.ends_well();
    }
}

/// Goal: when the successor is slow, `status` says so, and the log of events does; when it is
/// prompt again, that is over by itself, and what it was is still told. Method: first packets all
/// the time, while the standby's agent stands still for a fifth of a second again and again.
#[test]
fn a_downgrade_of_commit_shows_and_goes_by_itself() {
    let site = serving("connections = \"commit\"\ncommit_wait_ms = 50");
    let agreed = wait("the level commit", || {
        let class = conntrack(&site)?;
        (class["level"] == "commit" && class["in_sync"] == true).then_some(class)
    });
    assert_eq!(agreed["standby"], "gw2");
    assert_eq!(agreed["demanded"], "commit");
    assert_eq!(agreed["reason"], Value::Null);
    // Where the machine allows a ring, there is one; else it is said why not.
    let source = agreed["event_source"].as_str().unwrap();
    assert_eq!(source == "ring", agreed["fallback_reason"].is_null());
    let label = format!("source=\"{source}\"");
    assert_eq!(site.metric("gw1", "vnfpool_sync_event_source", &label), 1.0);
    assert_eq!(
        site.metric("gw1", "vnfpool_sync_level", "agreed=\"commit\""),
        1.0
    );
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            site.lab
                .namespace("client")
                .unwrap()
                .run(|| begin_many(&stop))
        });
        // It ends also when this test fails.
        let _stop = SetAtEnd(&stop);
        let downgraded = wait("the downgrade", || {
            pause(&site, Gw2, || {
                std::thread::sleep(Duration::from_millis(200))
            });
            conntrack(&site).filter(|class| class["downgrade"].is_object())
        });
        assert_eq!(downgraded["agreed"], "commit");
        assert_eq!(downgraded["level"], "bounded");
        let reason = downgraded["downgrade"]["reason"].as_str().unwrap();
        assert!(reason.contains("commit_wait_ms"), "{downgraded}");
        assert!(site.operate(&["status"]).contains("DOWNGRADED to bounded"));
        let over = wait("the end of the downgrade", || {
            let class = conntrack(&site)?;
            (class["downgrade"].is_null() && class["level"] == "commit").then_some(class)
        });
        let last = &over["last_downgrade"];
        assert_eq!(last["level"], "bounded");
        assert!(last["unheld"].as_u64().unwrap() > 0, "{over}");
        assert!(last["lasted_ms"].as_u64().unwrap() > 0, "{over}");
        assert!(over["downgrades"].as_u64().unwrap() >= 1, "{over}");
    });
    let said = site.manager().log();
    for kind in ["state-downgraded", "state-restored"] {
        assert!(said.contains(kind), "{said}");
    }
    site.ends_well();
}

/// Goal: a downgrade ends by itself also where no connection begins any more. Method: one connection
/// while the standby's agent stands still.
#[test]
fn a_downgrade_of_commit_goes_without_traffic() {
    let site = serving("connections = \"commit\"\ncommit_wait_ms = 50");
    wait("the level commit", || {
        let class = conntrack(&site)?;
        (class["level"] == "commit" && class["in_sync"] == true).then_some(())
    });
    pause(&site, Gw2, || {
        let client = site.lab.namespace("client").unwrap();
        client
            .run(|| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                Ok(socket.send_to(b"first", SocketAddr::new(SERVER_V4, UNANSWERED))?)
            })
            .unwrap();
        std::thread::sleep(Duration::from_millis(200));
    });
    wait("the end of the downgrade", || {
        let class = conntrack(&site)?;
        let is_over = class["downgrade"].is_null() && class["level"] == "commit";
        (is_over && class["downgrades"].as_u64()? == 1).then_some(())
    });
    site.ends_well();
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Begins a connection every few milliseconds.
fn begin_many(stop: &AtomicBool) -> anyhow::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(b"first", SocketAddr::new(SERVER_V4, UNANSWERED))?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Goal: a loss at the source is said, and what it hid is mended, in both directions: what began is at
/// the standby, what ended is not, and does not live on after the takeover. Method: while the
/// active's agent stands still, its kernel tells more than its buffer holds.
#[test]
fn what_a_loss_hid_is_mended_and_said() {
    const BEFORE: u16 = 2_000;
    const ENDED: u16 = 500;
    /// Changes of each of them: twice what there is room for.
    const ROUNDS: u32 = 60;
    let site = serving("connections = \"bounded\"");
    in_kernel(&site, Gw1, |injector| {
        (0..BEFORE).for_each(|number| injector.upsert(entry(number, 0), true).unwrap());
    });
    wait_same(&site);
    assert_eq!(marks(&site, Gw2).len(), usize::from(BEFORE));
    pause(&site, Gw1, || {
        in_kernel(&site, Gw1, |injector| {
            for mark in 1..=ROUNDS {
                (0..BEFORE).for_each(|number| injector.upsert(entry(number, mark), false).unwrap());
            }
            (0..ENDED).for_each(|number| injector.delete(entry(number, 0).key).unwrap());
            (0..ENDED).for_each(|number| injector.upsert(entry(BEFORE + number, 1), true).unwrap());
        });
    });
    let class = wait("the loss and its repair in status", || {
        let class = conntrack(&site)?;
        let is_over = class["overruns"].as_u64()? > 0 && class["repaired_ms"].is_u64();
        is_over.then_some(class)
    });
    assert!(class["overrun_ms"].is_u64(), "{class}");
    let status = site.operate(&["status"]);
    let lines = status.lines();
    let remarks: Vec<_> = lines.filter(|line| line.contains("overruns: ")).collect();
    assert!(
        matches!(&remarks[..], [line] if line.contains(", repaired ")),
        "{status}"
    );
    let of_class = "class=\"conntrack\"";
    let overruns = site.metric("gw1", "vnfpool_sync_overruns_total", of_class);
    assert!(overruns >= class["overruns"].as_f64().unwrap(), "{class}");
    assert!(site.metric("gw1", "vnfpool_sync_repaired_total", of_class) >= 1.0);
    wait_same(&site);
    let is_ended = |key: &Key| (0..ENDED).any(|number| entry(number, 0).key == *key);
    assert_eq!(marks(&site, Gw2).len(), usize::from(BEFORE));
    assert!(!marks(&site, Gw2).keys().any(is_ended));
    let said = site.manager().log();
    for kind in ["state-lost", "state-repaired"] {
        assert!(said.contains(kind), "{said}");
    }
    let before = marks(&site, Gw1);
    site.element(Gw1).kill();
    site.wait_owner(Gw2);
    assert_eq!(marks(&site, Gw2), before);
    site.ends_well();
}

/// Goal: whatever somebody else does to the copy in the standby's kernel is found and undone under
/// traffic, entry by entry, and said; nothing that is right is told anew. Method: marks, a translation
/// and an end that only that kernel hears of, while connections begin.
#[test]
fn what_somebody_changes_in_the_copy_is_mended_and_said() {
    const BEFORE: u16 = 2_000;
    let site = serving("connections = \"bounded\"");
    in_kernel(&site, Gw1, |injector| {
        (0..BEFORE).for_each(|number| injector.upsert(entry(number, 1), true).unwrap());
    });
    wait_same(&site);
    let told = || {
        site.metric(
            "gw1",
            "vnfpool_sync_changes_sent_total",
            "class=\"conntrack\"",
        )
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = site.lab.namespace("client").unwrap();
        scope.spawn(|| client.run(|| begin_many(&stop)));
        let _stop = SetAtEnd(&stop);
        let before = told();
        in_kernel(&site, Gw2, |injector| {
            (0..3).for_each(|number| injector.upsert(entry(number, 7), false).unwrap());
            injector.upsert(translated(3), true).unwrap();
            injector.delete(entry(4, 1).key).unwrap();
        });
        assert_ne!(copies(&site, Gw1), copies(&site, Gw2));
        wait("the end of every difference", || {
            (copies(&site, Gw1) == copies(&site, Gw2)).then_some(())
        });
        wait("changes meanwhile", || (told() > before).then_some(()));
    });
    let standby = |name| site.metric("gw2", name, "class=\"conntrack\"");
    assert_eq!(standby("vnfpool_sync_altered_total"), 4.0);
    assert_eq!(standby("vnfpool_sync_missing_total"), 1.0);
    assert_eq!(standby("vnfpool_sync_unlike"), 0.0);
    let active = |name| site.metric("gw1", name, "class=\"conntrack\"");
    assert_eq!(active("vnfpool_sync_wanted_total"), 5.0);
    assert_eq!(active("vnfpool_sync_diverged_buckets_total"), 0.0);
    site.ends_well();
}

/// [`entry`] with another source for the servers to see.
fn translated(number: u16) -> Entry {
    let mut entry = entry(number, 1);
    entry.reply.dst = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 77));
    entry
}

/// As [`marks`], with what servers see.
fn copies(site: &Site, gateway: Gateway) -> BTreeMap<Key, (Tuple, u32)> {
    let entries = ours(site, gateway).into_iter();
    entries
        .map(|entry| (entry.key, (entry.reply, entry.mark)))
        .collect()
}

/// Goal: a standby deletes nothing of its own machine, on whatever interface it is, and still what it
/// has too much of the function's. Method: an interface that comes up under the running agent, with
/// connections in both directions; each change of the level begins the stream anew, with a sweep.
#[test]
fn a_sweep_leaves_the_machines_own_connections() {
    const MACHINE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
    const OPERATOR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 9));
    let site = serving("connections = \"bounded\"");
    for arguments in [
        "link add management type bridge".to_owned(),
        "link set management up".to_owned(),
        format!("address add {MACHINE}/24 dev management"),
    ] {
        let mut command = site.command("gw2", "ip");
        command.args(arguments.split_whitespace());
        assert_eq!(run(command).code, Some(0), "{arguments}");
    }
    let between = |src, dst| {
        let mut own = entry(1, 0);
        (own.key.original.src, own.key.original.dst) = (src, dst);
        own.reply = own.key.original.inverse();
        own
    };
    let own = [between(OPERATOR, MACHINE), between(MACHINE, OPERATOR)];
    in_kernel(&site, Gw2, |injector| {
        for one in &own {
            injector.upsert(one.clone(), true).unwrap();
        }
    });
    for lag_ms in [900, 800] {
        let surplus = entry(2, 0);
        in_kernel(&site, Gw2, |injector| {
            injector.upsert(surplus.clone(), true).unwrap();
        });
        let state = format!("connections = \"bounded\"\nlag_ms = {lag_ms}");
        let file = site.write("pool.toml", &patient_pool(&state));
        site.operate(&["pool", "apply", "-f", &file]);
        wait("the end of what is too much", || {
            marks(&site, Gw2).is_empty().then_some(())
        });
        wait("the end of the sweep", || {
            (conntrack(&site)?["in_sync"] == true).then_some(())
        });
        let namespace = site.lab.namespace("gw2").unwrap();
        let left = namespace.run(|| Ok(dump_all(Family::V4)?)).unwrap();
        for one in &own {
            assert!(left.iter().any(|entry| entry.key == one.key), "{one:?}");
        }
    }
    site.ends_well();
}

/// Goal: after a takeover every connection has the time that it had left; what has less than the
/// least time of a copy gets no less than it had. Method: the kernels' own times of connections that
/// nobody uses, one of them a first packet without an answer.
#[test]
fn idle_timers_go_on_after_a_takeover() {
    /// Seconds that untouched connections have at first.
    const TIMES: [u32; 3] = [432_000, 600, 180];
    /// The least of a copy, in seconds.
    const COPY: u32 = 60;
    let site = serving("connections = \"bounded\"");
    in_kernel(&site, Gw1, |injector| {
        for (number, timeout_s) in (0..).zip(TIMES) {
            let one = entry(number, 0);
            injector.upsert(Entry { timeout_s, ..one }, true).unwrap();
        }
    });
    let unanswered = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(b"first", SocketAddr::new(SERVER_V4, UNANSWERED))?;
        Ok(())
    };
    site.lab
        .namespace("client")
        .unwrap()
        .run(unanswered)
        .unwrap();
    wait("all of them at the standby", || {
        let [active, standby] = Gateway::BOTH.map(|gateway| times(&site, gateway));
        (active.len() == TIMES.len() + 1 && active.keys().eq(standby.keys())).then_some(())
    });
    // Some of it passes on both sides.
    std::thread::sleep(Duration::from_secs(3));
    site.element(Gw1).kill();
    site.wait_owner(Gw2);
    let [before, after] = Gateway::BOTH.map(|gateway| times(&site, gateway));
    assert_eq!(after.len(), before.len());
    for (key, left) in after {
        let was = before[&key];
        let is_right = match was {
            // The kernels tell whole seconds, and one is asked after the other.
            COPY.. => left.abs_diff(was) <= 2,
            ..COPY => (was..=COPY).contains(&left),
        };
        assert!(is_right, "{key:?}: {was} s, then {left} s");
    }
    site.ends_well();
}

/// Seconds until the connections of these tests end in a gateway's kernel.
fn times(site: &Site, gateway: Gateway) -> BTreeMap<Key, u32> {
    let namespace = site.lab.namespace(gateway.name()).unwrap();
    let entries = namespace.run(|| Ok(dump_all(Family::V4)?)).unwrap();
    let is_ours = |entry: &&Entry| {
        let Tuple { src, layer4, .. } = entry.key.original;
        src == CLIENT
            || matches!(
                layer4,
                Layer4::Ports {
                    dst: UNANSWERED,
                    ..
                }
            )
    };
    let ours = entries.iter().filter(is_ours);
    ours.map(|entry| (entry.key, entry.timeout_s)).collect()
}

/// A port where nobody listens.
const UNANSWERED: u16 = 9;

fn in_kernel(site: &Site, gateway: Gateway, act: impl FnOnce(&mut Injector) + Send) {
    let namespace = site.lab.namespace(gateway.name()).unwrap();
    let run = || {
        let mut injector = Injector::open()?;
        act(&mut injector);
        let failures = injector.flush()?;
        assert!(failures.is_empty(), "{failures:?}");
        Ok(())
    };
    namespace.run(run).unwrap();
}

/// The connections of [`entry`] in a gateway's kernel, with their marks.
fn marks(site: &Site, gateway: Gateway) -> BTreeMap<Key, u32> {
    let entries = ours(site, gateway).into_iter();
    entries.map(|entry| (entry.key, entry.mark)).collect()
}

/// The connections of [`entry`] in a gateway's kernel.
fn ours(site: &Site, gateway: Gateway) -> Vec<Entry> {
    let namespace = site.lab.namespace(gateway.name()).unwrap();
    let mut entries = namespace.run(|| Ok(dump_all(Family::V4)?)).unwrap();
    entries.retain(|entry| entry.key.original.src == CLIENT);
    entries
}

fn wait_same(site: &Site) {
    wait("the same connections in both kernels", || {
        (marks(site, Gw1) == marks(site, Gw2)).then_some(())
    });
}

/// Nobody in the laboratory has it, so nothing but these tests changes its connections.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 77));

/// A connection that lives for long.
fn entry(number: u16, mark: u32) -> Entry {
    let original = Tuple {
        src: CLIENT,
        dst: SERVER_V4,
        protocol: protocol::UDP,
        layer4: Layer4::Ports {
            src: 10_000 + number,
            dst: 443,
        },
    };
    Entry {
        key: Key {
            original,
            zone: Zone::default(),
        },
        reply: original.inverse(),
        status: Status(Status::CONFIRMED | Status::SEEN_REPLY | Status::ASSURED),
        timeout_s: 600,
        mark,
        state: ProtocolState::None,
        labels: None,
        seq_adjust: [None; 2],
        helper: None,
        master: None,
    }
}
