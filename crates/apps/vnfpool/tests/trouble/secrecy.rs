//! State that must not leave its element does not: every byte between two real agents, in clear.

use std::collections::BTreeSet;

use tokio::runtime::Runtime;
use vnfpool_lab::Gateway::{self, Gw1, Gw2};
use vnfpool_sdk::{Active, Class, Client, Event, Events, Function, Level, Role};

use crate::caller::wait_in_sync;
use crate::daemon::wait;
use crate::function::{PATIENCE, start_agent};
use crate::site::{Site, pool_file};
use crate::tap::Tap;

const ENTRIES: u32 = 300;

/// What is put, and found where it may be: nothing else looks like it.
const SECRET: [&str; 2] = ["session-key-of-", "SECRET-c0ffee-"];
const PUBLIC: [&str; 2] = ["counter-of-", "PUBLIC-decade-"];

fn connect(runtime: &Runtime, site: &Site, gateway: Gateway) -> (Client, Events) {
    let function = || {
        Function::new("keeper", "1")
            .class(Class::new("secrets", Level::None, 1))
            .class(Class::new("counts", Level::commit(), 1))
    };
    let socket = site.path(&format!("{gateway}-sdk.sock"));
    wait("the agent's socket", || {
        let connecting = vnfpool_sdk::connect(&socket, function());
        runtime.block_on(connecting).ok()
    })
}

/// The newest epoch in which the function is the active.
async fn active(events: &mut Events) -> Active {
    let active = async {
        loop {
            if let Event::Role(Role::Active(active)) = events.next().await.unwrap() {
                return active;
            }
        }
    };
    tokio::time::timeout(PATIENCE, active).await.unwrap()
}

/// Puts entries into both classes, and waits until the successor has those that it is to have.
async fn put(client: &Client, active: Active, numbers: std::ops::Range<u32>) {
    let table = |class| client.table(active.slot, class).unwrap();
    for (class, [key, value]) in [("secrets", SECRET), ("counts", PUBLIC)] {
        let table = table(class);
        for number in numbers.clone() {
            let (key, value) = (format!("{key}{number}"), format!("{value}{number}"));
            let put = table.put(active, key.as_bytes(), value.as_bytes(), None);
            put.await.unwrap();
        }
    }
    let counts = table("counts");
    // Until there is a successor with a whole copy.
    let held = async {
        while counts.commit().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, held).await;
    held.expect("the successor has it all");
}

fn count(runtime: &Runtime, client: &Client, active: Active, class: &str) -> usize {
    let table = client.table(active.slot, class).unwrap();
    let (entries, _) = runtime.block_on(table.range(b"", b"", 0)).unwrap();
    entries.len()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|some| some == text.as_bytes())
}

/// Goal: a class of level `none` is never sent, in no snapshot and in no change, not even its name, and nobody
/// but its own element has it (draft §7). Method: a function puts as much into it as into a class that is
/// replicated, before and after a standby has begun anew; a tap on the agents' links finds every entry of the
/// one, and searches every byte for the other.
#[test]
fn security_state_never_leaves_its_element() {
    let runtime = Runtime::new().unwrap();
    let site = Site::managed();
    site.create_pool();
    let tap = Tap::start(&site);
    for gateway in Gateway::BOTH {
        start_agent(&site, gateway);
    }
    let [(one, mut of_one), (two, mut of_two)] =
        Gateway::BOTH.map(|gateway| connect(&runtime, &site, gateway));
    site.wait_first();
    let epoch = runtime.block_on(active(&mut of_one));
    runtime.block_on(put(&one, epoch, 0..ENTRIES / 2));
    // The next stream begins with a snapshot of all this.
    tap.cut(usize::MAX);
    wait_in_sync(&site, Gw1);
    runtime.block_on(put(&one, epoch, ENTRIES / 2..ENTRIES));

    let entries = ENTRIES as usize;
    assert_eq!(count(&runtime, &one, epoch, "secrets"), entries);
    // The standby's agent itself, asked by its function.
    assert_eq!(count(&runtime, &two, epoch, "counts"), entries);
    assert_eq!(count(&runtime, &two, epoch, "secrets"), 0);
    // Every byte of the links, both ways.
    let told = tap.told().concat();
    let streams: BTreeSet<bool> = tap.told().iter().map(|s| contains(s, PUBLIC[0])).collect();
    assert!(streams.contains(&true), "the search finds what is sent");
    for number in 0..ENTRIES {
        for text in PUBLIC {
            assert!(
                contains(&told, &format!("{text}{number}")),
                "{text}{number}"
            );
        }
    }
    for bytes in [&told, &tap.answered()] {
        for text in SECRET.iter().chain(&["secrets"]) {
            assert!(!contains(bytes, text), "{text} was sent");
        }
    }
    // And after a failover it is still nowhere else.
    site.element(Gw1).kill();
    let epoch = runtime.block_on(active(&mut of_two));
    assert_eq!(count(&runtime, &two, epoch, "counts"), entries);
    assert_eq!(count(&runtime, &two, epoch, "secrets"), 0);
    site.wait_owner(Gw2);
    site.ends_well();
}

/// Goal: of a pool that wants no connections replicated none is told to anybody. Method: the tap, which has
/// to find the client's address in the stream of the same pool when it wants them.
#[test]
fn connections_of_level_none_are_never_sent() {
    let site = Site::managed();
    site.create_pool();
    let tap = Tap::start(&site);
    site.start_pool();
    let talk = site.talk();
    wait_in_sync(&site, Gw1);
    let client_to_server = [10, 1, 0, 10, 10, 2, 0, 10];
    let is_told = |stream: &[u8]| stream.windows(8).any(|some| some == client_to_server);
    wait("the connection in the stream", || {
        tap.told()
            .iter()
            .any(|stream| is_told(stream))
            .then_some(())
    });
    let none = pool_file("edge", ["inside", "outside"], 1) + "\n[state]\nconnections = \"none\"\n";
    let file = site.write("none.toml", &none);
    site.operate(&["pool", "apply", "-f", &file]);
    wait("the end of the stream", || {
        let copies = site.metric("gw1", "vnfpool_sync_standby_in_sync", "");
        let text = site.metrics("gw1");
        let is_there = text.contains("vnfpool_sync_standby_in_sync{");
        (copies == 0.0 && !is_there).then_some(())
    });
    let before = tap.told().len();
    let meetings = || {
        site.element(Gw1)
            .log()
            .matches("connected to a peer")
            .count()
    };
    let met = meetings();
    // A standby that begins anew gets no stream either.
    site.element(Gw2).kill();
    site.start_element(Gw2);
    wait("the active to meet it", || (meetings() > met).then_some(()));
    for _ in 0..5 {
        talk.goes_on();
        // Streams are opened within milliseconds: this is many times that.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let more: Vec<Vec<u8>> = tap.told().split_off(before);
    assert!(
        more.iter().all(Vec::is_empty),
        "something was told: {more:?}"
    );
    site.ends_well();
}
