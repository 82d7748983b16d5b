//! An agent that is replaced loses its tables. Where its function does not have the state either, the
//! successor's copy is the only one: it has to serve, and nothing may delete it.

use tokio::runtime::Runtime;
use vnfpool_lab::Gateway::{self, Gw1, Gw2};

use crate::daemon::wait;
use crate::function::{Instance, element_file};
use crate::replacement::{SHORT_LIFE, TIMING, agent_of, goes_on};
use crate::site::{Site, pool_file};

/// Entries that are committed before anything happens.
const ENTRIES: u32 = 1_000;

/// A pool of supervised agents with a function at each; gw1 serves with all entries committed.
struct Pool {
    one: Option<Instance>,
    two: Instance,
    runtime: Runtime,
    site: Site,
}

impl Pool {
    fn committed() -> Self {
        let runtime = Runtime::new().unwrap();
        let site = Site::managed();
        let text = pool_file("edge", ["inside", "outside"], 1);
        site.create_pool_of(&text.replace("[pool]", TIMING));
        for gateway in Gateway::BOTH {
            site.supervise_element_of(gateway, &element_file(&site, gateway));
        }
        let [mut one, two] = Gateway::BOTH.map(|gateway| Instance::start(&runtime, &site, gateway));
        site.wait_first();
        runtime.block_on(async {
            let active = one.held().await;
            let counts = one.counts(active);
            for (key, value) in entries() {
                counts.put(active, &key, &value, None).await.unwrap();
            }
            counts.commit().await.unwrap();
        });
        Self {
            one: Some(one),
            two,
            runtime,
            site,
        }
    }

    /// The active's agent ends together with its function, and goes on in another process, where `then`
    /// happens first.
    fn lose_agent_and_function<T>(&mut self, then: impl FnOnce(&Self) -> T) -> T {
        std::thread::sleep(SHORT_LIFE);
        let agent = agent_of(&self.site, Gw1);
        crate::daemon::kill(agent);
        // Before the next process listens: for that one the function has never been there.
        drop(self.one.take());
        let done = then(self);
        goes_on(&self.site, Gw1, agent, 1);
        done
    }

    /// Waits until the slot has gone to the successor for a fault, and looks at what its function has.
    fn successor_has_all(&mut self, fault: &str) {
        self.site.wait_owner(Gw2);
        let log = self.site.element(Gw1).log();
        let (_, log) = log.split_once("the agent goes on where").unwrap();
        let mut faults = log.lines().filter(|line| line.contains("could not serve"));
        assert!(faults.any(|line| line.contains(fault)), "{log}");
        self.runtime.block_on(async {
            let active = self.two.active().await;
            has_all(&self.two, active).await;
        });
    }
}

/// Keys and values that can be told apart.
fn entries() -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    (0..ENTRIES).map(|number| {
        let value = format!("value of {number}");
        (number.to_be_bytes().to_vec(), value.into_bytes())
    })
}

async fn has_all(instance: &Instance, active: vnfpool_sdk::Active) {
    let (found, _) = instance.counts(active).range(b"", b"", 0).await.unwrap();
    let found = found
        .iter()
        .map(|one| (one.key.to_vec(), one.value.to_vec()));
    assert_eq!(found.collect::<Vec<_>>(), entries().collect::<Vec<_>>());
}

/// Goal: a function that does not come back to the next process of its agent is a fault of its element,
/// and the one that takes over has everything that was committed.
#[test]
fn a_function_that_does_not_come_back_is_succeeded_by_one_that_has_everything() {
    let mut pool = Pool::committed();
    pool.lose_agent_and_function(|_| ());
    pool.successor_has_all("no function has registered at the SDK's socket");
    pool.site.ends_well();
}

/// Goal: a function that is as new as its agent does not make its empty table the pool's: the element has
/// a fault until the other one serves, and then gets the copy. Method: the slot goes there and back.
#[test]
fn a_function_that_has_lost_its_state_gets_it_from_the_one_that_takes_over() {
    let mut pool = Pool::committed();
    let start = |pool: &Pool| Instance::start(&pool.runtime, &pool.site, Gw1);
    let mut one = pool.lose_agent_and_function(start);
    pool.successor_has_all("the state of slot 1 is lost here");
    // The active it was told to be at first, when it had nothing.
    pool.runtime.block_on(one.standby());
    // It has the fault until it is looked at again, and is no successor in between.
    wait("the switchover", || {
        let said = pool
            .site
            .try_operate(&["switchover", "edge", "--to", "gw1"]);
        (said.code == Some(0)).then_some(())
    });
    pool.site.wait_owner(Gw1);
    pool.runtime.block_on(async {
        let active = one.active().await;
        has_all(&one, active).await;
    });
    pool.site.ends_well();
}

/// Goal: while a function has not put its state again, nobody is armed, and `status` says that it is the
/// function that is waited for; when it has, that is over. Method: only the active's agent is replaced.
#[test]
fn a_slot_that_waits_for_its_function_says_so() {
    let mut pool = Pool::committed();
    std::thread::sleep(SHORT_LIFE);
    let agent = agent_of(&pool.site, Gw1);
    crate::daemon::kill(agent);
    goes_on(&pool.site, Gw1, agent, 1);
    let line = "main: not armed: the function at gw1 was asked to put 'counts' again and has not said \
                that it is restored";
    wait("what the slot waits for", || {
        pool.site.operate(&["status"]).contains(line).then_some(())
    });
    let one = pool.one.as_mut().unwrap();
    pool.runtime.block_on(async {
        let active = one.restore().await;
        let counts = one.counts(active);
        for (key, value) in entries() {
            counts.put(active, &key, &value, None).await.unwrap();
        }
        counts.restored(active).await.unwrap();
    });
    pool.site.wait_armed();
    wait("the end of that", || {
        let said = pool.site.operate(&["status"]);
        (!said.contains("not armed")).then_some(())
    });
    pool.site.ends_well();
}
