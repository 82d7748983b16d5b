use std::sync::Arc;

use super::*;
use crate::{Active, Class, Client, Function, Level, SlotId, Table};

fn connected() -> Arc<Shared> {
    let class = Class::new("c", Level::commit(), 1);
    let shared = Shared::new(Function::new("f", "1").class(class));
    connect(&shared);
    Arc::new(shared)
}

fn connect(shared: &Shared) {
    shared.state().connected(1024);
    shared.state().set_tenure(1, Some(1));
}

const TARGET: Target = Target {
    slot: 1,
    class: 0,
    epoch: 1,
};

const ACTIVE: Active = Active {
    slot: SlotId(1),
    epoch: 1,
};

fn table(shared: &Arc<Shared>) -> Table {
    let client = Client::of(Arc::clone(shared));
    client.table(SlotId(1), "c").unwrap()
}

async fn put(table: &Table) {
    table.put(ACTIVE, b"k", b"v", None).await.unwrap();
}

/// The ids of the commits that are sent.
fn asked(shared: &Shared) -> Vec<u64> {
    let mut out = BytesMut::new();
    shared.state().take_output(&mut out);
    let next = || wire::decode::<Request>(&mut out).unwrap()?.kind;
    let ids = std::iter::from_fn(next).filter_map(|kind| match kind {
        Kind::Commit(commit) => Some(commit.id),
        _ => None,
    });
    ids.collect()
}

fn held(id: u64) -> Committed {
    Committed {
        id,
        held: true,
        ..Committed::default()
    }
}

fn answer(shared: &Shared, id: u64) {
    shared.state().committed(&held(id));
}

/// What a commit of this caller comes to when the successor holds everything.
async fn commit(shared: &Shared, table: &Table) -> Outcome {
    let outcome = table.commit();
    for id in asked(shared) {
        answer(shared, id);
    }
    outcome.await
}

/// Goal: many callers make one question, and answers find theirs in whatever order they come: a
/// later one can be known at once while the agent has not looked at the earlier one again.
#[tokio::test]
async fn commits_share_a_question_and_answers_come_in_any_order() {
    let shared = connected();
    let table = table(&shared);
    let (one, two) = (table.commit(), table.clone().commit());
    let first = asked(&shared);
    let three = table.commit();
    let second = asked(&shared);
    assert_eq!((first.len(), second.len()), (1, 1));
    answer(&shared, second[0]);
    assert_eq!(three.await, Ok(()));
    tokio::pin!(one);
    let soon = std::time::Duration::from_millis(20);
    assert!(tokio::time::timeout(soon, &mut one).await.is_err());
    answer(&shared, first[0]);
    assert_eq!((one.await, two.await), (Ok(()), Ok(())));
}

/// Goal: of many who commit, those fail whose changes may have been refused, and no others. Method: a
/// commit is on its way when further changes are put and refused; the commits of those follow.
#[tokio::test]
async fn a_refusal_fails_the_commits_behind_it_and_none_before() {
    let shared = connected();
    let [one, other, third] = [(); 3].map(|()| table(&shared));
    put(&one).await;
    let before = one.commit();
    let first = asked(&shared);
    put(&other).await;
    let behind = other.commit();
    let second = asked(&shared);
    let waiting = third.commit();
    shared.state().refused(1, 0, (2, 2));
    let last = asked(&shared);
    for id in [first, second, last].concat() {
        answer(&shared, id);
    }
    assert_eq!(before.await, Ok(()));
    assert_eq!(behind.await, Err(CommitError::Refused));
    assert_eq!(waiting.await, Err(CommitError::Refused));
    assert_eq!(commit(&shared, &one).await, Err(CommitError::Refused));
    for table in [&one, &other, &third] {
        assert_eq!(commit(&shared, table).await, Ok(()));
    }
}

/// Goal: a caller that pauses between its put and its commit hears of its refusal, whoever else was
/// told of it meanwhile; then it is over. And it is told rather than that nothing is held, which would
/// mean that the agent has it.
#[tokio::test]
async fn a_refusal_is_told_to_each_caller_at_its_next_commit() {
    let shared = connected();
    let pausing = table(&shared);
    let other = pausing.clone();
    put(&pausing).await;
    let cloned = pausing.clone();
    shared.state().refused(1, 0, (1, 1));
    for _ in 0..3 {
        put(&other).await;
        // The first time it may have been its own.
        let _ = commit(&shared, &other).await;
    }
    assert_eq!(commit(&shared, &other).await, Ok(()));
    let outcome = pausing.commit();
    let ids = asked(&shared);
    shared.state().committed(&Committed {
        held: false,
        ..held(ids[0])
    });
    assert_eq!(outcome.await, Err(CommitError::Refused));
    assert_eq!(commit(&shared, &pausing).await, Ok(()));
    assert_eq!(commit(&shared, &cloned).await, Err(CommitError::Refused));
    // One that begins now has put nothing of it.
    assert_eq!(commit(&shared, &table(&shared)).await, Ok(()));
}

/// Goal: a refusal is told to a table that was made to commit what another one has put, as long as
/// nobody was told of it.
#[tokio::test]
async fn a_refusal_that_nobody_was_told_of_is_told_to_a_new_caller() {
    let shared = connected();
    put(&table(&shared)).await;
    shared.state().refused(1, 0, (1, 1));
    let new = table(&shared);
    assert_eq!(commit(&shared, &new).await, Err(CommitError::Refused));
    assert_eq!(commit(&shared, &table(&shared)).await, Ok(()));
}

/// Goal: a commit that is given up has told nothing.
#[tokio::test]
async fn a_commit_that_is_dropped_leaves_the_refusal_to_the_next() {
    let shared = connected();
    let table = table(&shared);
    put(&table).await;
    shared.state().refused(1, 0, (1, 1));
    let given_up = table.commit();
    answer(&shared, asked(&shared)[0]);
    drop(given_up);
    assert_eq!(commit(&shared, &table).await, Err(CommitError::Refused));
    assert_eq!(commit(&shared, &table).await, Ok(()));
}

/// Goal: what was put in a connection that ended is not taken for committed by the next one, unless the
/// function says that it has put everything again.
#[tokio::test]
async fn a_commit_does_not_speak_for_a_connection_that_ended() {
    let shared = connected();
    let [pausing, restoring, idle] = [(); 3].map(|()| table(&shared));
    put(&idle).await;
    assert_eq!(commit(&shared, &idle).await, Ok(()));
    put(&pausing).await;
    put(&restoring).await;
    shared.state().disconnected();
    connect(&shared);
    put(&idle).await;
    put(&pausing).await;
    assert_eq!(commit(&shared, &idle).await, Ok(()));
    assert_eq!(
        commit(&shared, &pausing).await,
        Err(CommitError::Disconnected)
    );
    assert_eq!(commit(&shared, &pausing).await, Ok(()));
    restoring.restored(ACTIVE).await.unwrap();
    assert_eq!(commit(&shared, &restoring).await, Ok(()));
    // Numbers begin anew with the connection, refusals by their old ones do not count.
    put(&pausing).await;
    shared.state().refused(1, 0, (3, 3));
    assert_eq!(commit(&shared, &pausing).await, Err(CommitError::Refused));
    let waiting = pausing.commit();
    put(&pausing).await;
    shared.state().disconnected();
    assert_eq!(waiting.await, Err(CommitError::Disconnected));
    connect(&shared);
    assert_eq!(
        commit(&shared, &pausing).await,
        Err(CommitError::Disconnected),
        "of what was put after it"
    );
    assert_eq!(commit(&shared, &pausing).await, Ok(()));
}

/// Goal: what is under way has a bound, and who waits for room hears of the end of the connection.
#[tokio::test]
async fn a_put_waits_for_room() {
    let shared = connected();
    let caller = Caller::new(0);
    let put = shared.put(TARGET, &caller, b"k", Some(&[0; 2048]), 0);
    assert_eq!(put.await, Ok(()));
    let waits = shared.put(TARGET, &caller, b"k", None, 0);
    tokio::pin!(waits);
    let soon = std::time::Duration::from_millis(20);
    assert!(tokio::time::timeout(soon, &mut waits).await.is_err());
    shared.state().taken(1);
    shared.room.notify_waiters();
    assert_eq!(waits.await, Ok(()));
    assert_eq!(shared.state().disconnected(), 1);
    let put = shared.put(TARGET, &caller, b"k", None, 0);
    assert_eq!(put.await, Err(PutError::Disconnected));
}

/// Goal: a commit from another task cannot tell of a put that its table does not know of yet, or the end
/// of the connection would be news of it. Method: the lock that a commit needs is held.
#[test]
fn a_put_is_noted_before_a_commit_can_be_asked_for() {
    let shared = connected();
    let mut state = shared.state();
    for number in 1..=2 {
        let caller = state.caller(TARGET.slot, TARGET.class);
        let put = state.try_put(TARGET, &caller, b"k", None, 0);
        assert!(put.unwrap().is_some());
        assert!(caller.has_lost(number) && !caller.has_lost(number - 1));
    }
}
