//! A function that has its state replicated by its agents, in a real pool.

use std::time::Duration;

use tokio::runtime::Runtime;
use vnfpool_lab::Gateway::{self, Gw1, Gw2};
use vnfpool_sdk::{Active, Class, Client, Event, Events, Function, Health, Level, Role, Table};

use crate::daemon::wait;
use crate::site::Site;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The function beside one agent.
pub(crate) struct Instance {
    client: Client,
    events: Events,
}

impl Instance {
    pub(crate) fn start(runtime: &Runtime, site: &Site, gateway: Gateway) -> Self {
        Self::start_of(runtime, site, gateway, "counts")
    }

    /// With one class of state.
    fn start_of(runtime: &Runtime, site: &Site, gateway: Gateway, class: &str) -> Self {
        let function =
            || Function::new("counter", "1").class(Class::new(class, Level::commit(), 1));
        let socket = site.path(&format!("{gateway}-sdk.sock"));
        let connect = || {
            runtime
                .block_on(vnfpool_sdk::connect(&socket, function()))
                .ok()
        };
        let (client, events) = wait("the agent's socket", connect);
        Self { client, events }
    }

    /// The newest epoch as the active in which the class is held as demanded; or the next one.
    pub(crate) async fn held(&mut self) -> Active {
        let mut active = None;
        self.wait(|event| {
            match event {
                Event::Role(Role::Active(now)) => active = Some(now),
                Event::Level { reason, .. } if reason.is_empty() => return active,
                _ => {}
            }
            None
        })
        .await
    }

    pub(crate) async fn active(&mut self) -> Active {
        self.wait(|event| match event {
            Event::Role(Role::Active(active)) => Some(active),
            _ => None,
        })
        .await
    }

    /// The next time that it is asked to put everything again.
    pub(crate) async fn restore(&mut self) -> Active {
        self.wait(|event| match event {
            Event::Restore { active, .. } => Some(active),
            _ => None,
        })
        .await
    }

    pub(crate) async fn standby(&mut self) {
        self.wait(|event| matches!(event, Event::Role(Role::Standby { .. })).then_some(()))
            .await;
    }

    async fn wait<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.next().await.expect("the connection is kept");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .expect("the event comes")
    }

    pub(crate) fn counts(&self, active: Active) -> Table {
        self.client.table(active.slot, "counts").unwrap()
    }
}

pub(crate) fn start_agent(site: &Site, gateway: Gateway) {
    site.start_element_of(gateway, &element_file(site, gateway));
}

/// `element.toml` of a gateway with a socket for a function.
pub(crate) fn element_file(site: &Site, gateway: Gateway) -> String {
    let socket = site.path(&format!("{gateway}-sdk.sock"));
    let file = site.element_file(gateway);
    format!("{file}\n[sdk]\nsocket = \"{socket}\"\n")
}

/// Goal: an active whose function says that it is unhealthy hands over, and the operator is told that and
/// why, before the successor goes on without it.
#[test]
fn a_handover_for_a_function_that_is_unhealthy_is_an_event() {
    let runtime = Runtime::new().unwrap();
    let site = Site::managed();
    site.create_pool();
    for gateway in Gateway::BOTH {
        start_agent(&site, gateway);
    }
    let [one, _two] = Gateway::BOTH.map(|gateway| Instance::start(&runtime, &site, gateway));
    site.wait_first();
    site.wait_armed();
    let said = runtime.block_on(one.client.report(&Health::unhealthy("on purpose")));
    assert!(said);
    site.wait_owner(Gw2);
    let audited = wait("the audit entry", || {
        let said = site.operate(&["audit", "-n", "20"]);
        let mut lines = said.lines();
        let line = lines.find(|line| line.contains("gw1 handed over to gw2"))?;
        Some(line.to_owned())
    });
    assert!(audited.contains(" handover "), "{audited}");
    let reason = "the function 'counter' says that it is unhealthy: on purpose";
    assert!(audited.contains(reason), "{audited}");
    site.ends_well();
}

/// Goal: a successor that does not know a class is not armed, and `status` says why; when it knows the
/// class, that is over by itself. Method: the function of the standby declares another class at first.
#[test]
fn a_class_that_the_successor_does_not_know_is_seen_to_be_refused() {
    let runtime = Runtime::new().unwrap();
    let site = Site::managed();
    site.create_pool();
    start_agent(&site, Gw1);
    let _one = Instance::start(&runtime, &site, Gw1);
    site.wait_owner(Gw1);
    start_agent(&site, Gw2);
    let two = Instance::start_of(&runtime, &site, Gw2, "others");
    let counts = || {
        let slot = site.slot()?;
        let mut classes = slot["state"].as_array()?.iter();
        let class = classes.find(|class| class["class"] == "counts")?.clone();
        Some((class, slot["armed"] == true))
    };
    let (refused, is_armed) = wait("the refusal in status", || {
        counts().filter(|(class, _)| class["reason"].is_string())
    });
    assert!(!is_armed, "{refused}");
    assert_eq!(refused["demanded"], "commit");
    assert!(refused["agreed"].is_null(), "{refused}");
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("does not know this class"), "{refused}");
    assert!(
        site.operate(&["status"])
            .contains("counts at gw2: NOT HELD: ")
    );
    drop(two);
    let _two = Instance::start(&runtime, &site, Gw2);
    site.wait_armed();
    wait("the agreement in status", || {
        let (class, _) = counts()?;
        (class["agreed"] == "commit" && class["reason"].is_null()).then_some(())
    });
    site.ends_well();
}

/// Goal: what a function has committed is with the function that takes over, whatever has died; and an
/// agent that comes back gets it all. Method: the active's agent is killed, and later its successor's
/// function ends.
#[test]
fn what_was_committed_is_with_the_function_that_takes_over() {
    let runtime = Runtime::new().unwrap();
    let site = Site::managed();
    site.create_pool();
    for gateway in Gateway::BOTH {
        start_agent(&site, gateway);
    }
    let [mut one, mut two] = Gateway::BOTH.map(|gateway| Instance::start(&runtime, &site, gateway));
    site.wait_first();
    runtime.block_on(async {
        let active = one.held().await;
        let counts = one.counts(active);
        for number in 0..1_000u32 {
            counts
                .put(active, &number.to_be_bytes(), b"1", None)
                .await
                .unwrap();
        }
        counts.commit().await.unwrap();
    });
    site.element(Gw1).kill();
    let active = runtime.block_on(async {
        let active = two.active().await;
        let counts = two.counts(active);
        let (entries, _) = counts.range(b"", b"", 0).await.unwrap();
        assert_eq!(entries.len(), 1_000);
        counts.put(active, b"after", b"2", None).await.unwrap();
        active
    });
    site.wait_owner(Gw2);
    start_agent(&site, Gw1);
    site.wait_armed();
    runtime
        .block_on(async { two.counts(active).commit().await })
        .unwrap();
    // A function that ends is a fault: its element resigns.
    drop(two);
    let active = runtime.block_on(one.active());
    site.wait_owner(Gw1);
    let counts = one.counts(active);
    let after = runtime.block_on(counts.get(b"after")).unwrap();
    assert_eq!(after.map(|entry| entry.value.to_vec()), Some(b"2".to_vec()));
    site.ends_well();
}
