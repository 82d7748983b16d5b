//! Functions that use the SDK as their makers would.

use std::sync::atomic::Ordering;
use std::time::Duration;

use vnfpool_model::Role as ElementRole;
use vnfpool_sdk::{
    Active, Class, Client, CommitError, Event, Events, Function, Health, Level, PutError, Role,
    Seen, Table,
};

use super::pair::{Agent, Stream};

const PATIENCE: Duration = Duration::from_secs(30);

fn function(level: Level) -> Function {
    Function::new("counter", "1").class(Class::new("counts", level, 1))
}

async fn connect(agent: &Agent, level: Level) -> (Client, Events) {
    vnfpool_sdk::connect(agent.socket(), function(level))
        .await
        .unwrap()
}

/// The first event that `pick` takes.
async fn wait_for<T>(events: &mut Events, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    let found = async {
        loop {
            let event = events.next().await.expect("the connection is kept");
            if let Some(found) = pick(event) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .expect("the event comes")
}

async fn active(events: &mut Events) -> Active {
    let pick = |event| match event {
        Event::Role(Role::Active(active)) => Some(active),
        _ => None,
    };
    wait_for(events, pick).await
}

async fn table(agent: &Agent, level: Level) -> (Client, Events, Active, Table) {
    let (client, mut events) = connect(agent, level).await;
    let active = active(&mut events).await;
    let table = client.table(active.slot, "counts").unwrap();
    (client, events, active, table)
}

/// A level is as demanded once the successor is in sync.
async fn in_sync(events: &mut Events) {
    let pick = |event| match event {
        Event::Level { reason, .. } => reason.is_empty().then_some(()),
        _ => None,
    };
    wait_for(events, pick).await;
}

/// Goal: the whole way. What the active has put and committed, the function at the standby has seen
/// before it is told that it is the active.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_has_seen_everything_when_it_becomes_the_active() {
    let (one, other) = (Agent::start(), Agent::start());
    one.set_role(ElementRole::Active, 1);
    other.set_role(ElementRole::Standby, 1);
    let (_client, mut events, active_one, counts) = table(&one, Level::commit()).await;
    counts.put(active_one, b"before", b"1", None).await.unwrap();
    let _stream = Stream::start(&one, &other, "counts");
    let (client, mut other_events) = connect(&other, Level::commit()).await;
    let mut watch = client
        .table(active_one.slot, "counts")
        .unwrap()
        .watch()
        .await
        .unwrap();
    in_sync(&mut events).await;
    counts.put(active_one, b"after", b"2", None).await.unwrap();
    counts.put(active_one, b"gone", b"3", None).await.unwrap();
    counts.delete(active_one, b"gone").await.unwrap();
    assert_eq!(counts.commit().await, Ok(()));
    let mut seen = std::collections::BTreeMap::new();
    let mut is_live = false;
    let follow = async {
        while !is_live || !seen.contains_key(&b"after"[..]) || seen.contains_key(&b"gone"[..]) {
            match watch.next().await.unwrap() {
                Seen::Put(entry) => drop(seen.insert(entry.key.to_vec(), entry.value.to_vec())),
                Seen::Delete(key) => drop(seen.remove(&*key)),
                Seen::Live => is_live = true,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, follow)
        .await
        .expect("everything is seen");
    assert_eq!(seen[&b"before"[..]], b"1");
    other.set_role(ElementRole::Active, 2);
    let next = active(&mut other_events).await;
    assert!(next.epoch > active_one.epoch);
    let counts = client.table(next.slot, "counts").unwrap();
    let (entries, more) = counts.range(b"", b"", 0).await.unwrap();
    let keys: Vec<_> = entries.iter().map(|entry| &entry.key[..]).collect();
    assert_eq!((keys, more), (vec![&b"after"[..], b"before"], false));
}

#[tokio::test]
async fn a_standby_and_an_old_epoch_may_not_put() {
    let agent = Agent::start();
    agent.set_role(ElementRole::Active, 1);
    let (_client, mut events, first, counts) = table(&agent, Level::None).await;
    agent.set_role(ElementRole::Standby, 2);
    let pick = |event| matches!(event, Event::Role(Role::Standby { .. })).then_some(());
    wait_for(&mut events, pick).await;
    let put = counts.put(first, b"k", b"v", None).await;
    assert_eq!(put, Err(PutError::NotActive { epoch: first.epoch }));
    agent.set_role(ElementRole::Active, 3);
    let second = active(&mut events).await;
    let put = counts.put(first, b"k", b"old", None).await;
    assert_eq!(put, Err(PutError::NotActive { epoch: first.epoch }));
    counts.put(second, b"k", b"new", None).await.unwrap();
    assert_eq!(&counts.get(b"k").await.unwrap().unwrap().value[..], b"new");
    // A standby that is armed makes a new epoch of the same active: nothing on the way is lost.
    agent.set_role(ElementRole::Active, 4);
    active(&mut events).await;
    counts.put(second, b"k", b"newer", None).await.unwrap();
    assert_eq!(
        &counts.get(b"k").await.unwrap().unwrap().value[..],
        b"newer"
    );
}

/// Goal: a commit is honest. Nobody there, a successor that is stuck, and one that has caught up.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_says_what_is_not_held_and_recovers_by_itself() {
    let (one, other) = (Agent::start(), Agent::start());
    one.set_role(ElementRole::Active, 1);
    other.set_role(ElementRole::Standby, 1);
    let lag = Duration::from_millis(100);
    let level = Level::Commit { lag, entries: 0 };
    let (_client, mut events, active, counts) = table(&one, level).await;
    counts.put(active, b"k", b"1", None).await.unwrap();
    let code = |outcome| match outcome {
        Err(CommitError::NotHeld { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(counts.commit().await), "alone");
    let stream = Stream::start(&one, &other, "counts");
    in_sync(&mut events).await;
    assert_eq!(counts.commit().await, Ok(()));
    stream.is_stuck.store(true, Ordering::Relaxed);
    counts.put(active, b"k", b"2", None).await.unwrap();
    assert_eq!(code(counts.commit().await), "behind");
    let pick = |event| match event {
        Event::Level { level, .. } => Some(level),
        _ => None,
    };
    assert_eq!(wait_for(&mut events, pick).await, Level::Eventual);
    stream.is_stuck.store(false, Ordering::Relaxed);
    in_sync(&mut events).await;
    assert_eq!(counts.commit().await, Ok(()));
    // It was waited for when it went.
    stream.is_stuck.store(true, Ordering::Relaxed);
    counts.put(active, b"k", b"3", None).await.unwrap();
    let (waiting, ()) = tokio::join!(counts.commit(), async { drop(stream) });
    assert!(["alone", "behind"].contains(&&*code(waiting)));
}

/// Goal: at `bounded` a put waits for a successor that is behind by more entries than declared, and
/// no longer than declared. Method: the successor is stuck; its queue may hold four entries.
#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_class_waits_for_its_successor_for_a_while() {
    let (one, other) = (Agent::start(), Agent::start());
    one.set_role(ElementRole::Active, 1);
    other.set_role(ElementRole::Standby, 1);
    let lag = Duration::from_millis(300);
    let level = Level::Bounded { lag, entries: 4 };
    let (_client, mut events, active, counts) = table(&one, level).await;
    let stream = Stream::start(&one, &other, "counts");
    in_sync(&mut events).await;
    stream.is_stuck.store(true, Ordering::Relaxed);
    for number in 0..9u8 {
        counts.put(active, &[number], b"v", None).await.unwrap();
        // Each in a batch of its own.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let class = one
        .hub
        .class(super::pair::SLOT, &super::pair::named("counts"))
        .unwrap();
    let held = class.state().held().unwrap();
    assert!(class.state().table.end() - held <= 5, "above the bound");
    // Nobody helps it; the declared downgrade lets the rest in.
    let all = async { while counts.get(&[8]).await.unwrap().is_none() {} };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("waited for ever");
}

/// Goal: an agent that was replaced has lost its table. The function is told so, and until it has put
/// everything again the successor keeps what it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_agent_gets_everything_again() {
    let one = Agent::start();
    one.set_role(ElementRole::Active, 1);
    let (_client, mut events, active_before, counts) = table(&one, Level::commit()).await;
    counts.put(active_before, b"k", b"v", None).await.unwrap();
    assert!(counts.get(b"k").await.unwrap().is_some());
    let one = one.replace();
    one.set_role(ElementRole::Active, 1);
    let pick = |event| matches!(event, Event::Disconnected { .. }).then_some(());
    wait_for(&mut events, pick).await;
    let pick = |event| match event {
        Event::Restore { active, class } => Some((active, class)),
        _ => None,
    };
    let (active_now, class) = wait_for(&mut events, pick).await;
    assert_eq!(class, "counts");
    let held = one
        .hub
        .class(super::pair::SLOT, &super::pair::named("counts"))
        .unwrap();
    let is_complete = || held.state().table.is_complete();
    assert!(!is_complete());
    counts.put(active_now, b"k", b"again", None).await.unwrap();
    counts.restored(active_now).await.unwrap();
    assert_eq!(
        &counts.get(b"k").await.unwrap().unwrap().value[..],
        b"again"
    );
    assert!(is_complete());
}

#[tokio::test]
async fn health_is_the_elements() {
    let agent = Agent::start();
    let (client, events) = connect(&agent, Level::None).await;
    assert_eq!(agent.health.fault(), None);
    assert!(
        client
            .report(&Health::unhealthy("no backend answers"))
            .await
    );
    let says = |text| {
        let found = move |health: &crate::element::sdk::FunctionHealth| {
            health.fault().is_some_and(|fault| fault.contains(text))
        };
        let health = std::sync::Arc::clone(&agent.health);
        async move {
            while !found(&health) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, says("no backend answers"))
        .await
        .expect("told");
    drop((client, events));
    tokio::time::timeout(PATIENCE, says("closed its connection"))
        .await
        .expect("told");
}

#[tokio::test]
async fn a_second_function_and_nonsense_are_turned_away_with_a_reason() {
    let agent = Agent::start();
    let refused = |function| {
        let socket = agent.socket();
        async move {
            match vnfpool_sdk::connect(socket, function).await {
                Err(vnfpool_sdk::ConnectError::Refused { code, .. }) => code,
                other => panic!("{other:?}"),
            }
        }
    };
    let twice = function(Level::None).class(Class::new("counts", Level::None, 1));
    assert_eq!(refused(twice).await, "classes");
    let odd = Function::new("f", "1").class(Class::new("Not A Name", Level::None, 1));
    assert_eq!(refused(odd).await, "classes");
    let _first = connect(&agent, Level::None).await;
    assert_eq!(refused(function(Level::None)).await, "taken");
}
