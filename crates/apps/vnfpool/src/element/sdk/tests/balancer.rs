//! The example of a load balancer beside its agent: its flows and the agent's table stay alike.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vnfpool_lb::balancer::Balancer;
use vnfpool_lb::keeper::{self, Keeper, News};
use vnfpool_model::{Epoch, Role};
use vnfpool_sdk::{Events, Function, Seen};
use vnfpool_wire::sdk::Op;

use super::pair::{Agent, SLOT, named};
use crate::element::sdk::class::Class;
use crate::pulse::now;

const PATIENCE: Duration = Duration::from_secs(60);

/// More entries than the queues between agent and function hold.
const FLOWS: usize = 200_000;

fn put(number: usize) -> Op {
    let mut key = vec![0; 12];
    key[..8].copy_from_slice(&number.to_be_bytes());
    Op {
        key: key.into(),
        value: Some(Bytes::from_static(&[10, 2, 0, 21, 0, 80])),
        ttl_s: 0,
    }
}

fn delete(number: usize) -> Op {
    Op {
        value: None,
        ..put(number)
    }
}

fn class(agent: &Agent) -> Arc<Class> {
    agent.hub.class(SLOT, &named("flows")).unwrap()
}

/// Writes into the agent's table, as the function could.
fn write(agent: &Agent, ops: impl Iterator<Item = Op>) {
    let epoch = Epoch::first_of(1).fencing_token();
    let class = class(agent);
    let mut state = class.state();
    state.write(epoch, ops.collect(), now()).unwrap();
}

/// The balancer beside an agent.
struct Instance {
    keeper: Keeper,
    events: Events,
    /// Entries that its watches have shown, and how many that were when it had last put everything again.
    seen: usize,
    seen_when_restored: usize,
}

impl Instance {
    async fn beside(agent: &Agent) -> Self {
        let function = Function::new("lb", "1").class(keeper::class());
        let connected = vnfpool_sdk::connect(agent.socket(), function).await;
        let (client, events) = connected.unwrap();
        let service: SocketAddrV4 = "10.100.0.1:80".parse().unwrap();
        let keeper = Keeper::new(client, Balancer::new(service));
        Self {
            keeper,
            events,
            seen: 0,
            seen_when_restored: 0,
        }
    }

    fn flows(&self) -> usize {
        self.keeper.balancer.flows()
    }

    /// One step as the service of the example makes it; true when the watch has ended.
    async fn step(&mut self) -> bool {
        let news = tokio::select! {
            biased;
            event = self.events.next() => {
                let event = event.expect("the connection is kept");
                self.keeper.take_event(&event).await.unwrap();
                return false;
            }
            news = self.keeper.next() => news,
        };
        match news {
            News::Seen(Some(Seen::Put(_))) => self.seen += 1,
            News::Restored(false) => self.seen_when_restored = self.seen,
            _ => {}
        }
        let has_ended = matches!(news, News::Seen(None));
        self.keeper.take(news).await;
        has_ended
    }

    /// Goes on until something is so.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let all = async {
            while !is_so(self) {
                self.step().await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect(what);
    }
}

/// The agent of the active, and the balancer beside it; both have the flows.
async fn served() -> (Agent, Instance) {
    let agent = Agent::start();
    agent.set_role(Role::Active, 1);
    let mut instance = Instance::beside(&agent).await;
    write(&agent, (0..FLOWS).map(put));
    instance
        .until("the flows come", |one| one.flows() == FLOWS)
        .await;
    (agent, instance)
}

/// Goal: an agent that lost its copy gets every flow again, and the balancer forgets none meanwhile and
/// goes on following: it reads what it puts. Method: more than the queues hold, so that without that
/// nothing could be read before all is put.
#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_reads_its_watch_while_it_puts_everything_again() {
    let (agent, mut instance) = served().await;
    let agent = agent.replace();
    agent.set_role(Role::Active, 1);
    let is_whole = |_: &Instance| {
        let class = class(&agent);
        let state = class.state();
        state.table.is_complete() && state.table.entries() == FLOWS
    };
    let registered = |_: &Instance| agent.hub.class(SLOT, &named("flows")).is_some();
    instance.until("it comes back", registered).await;
    let before = instance.seen;
    instance.until("all is put again", is_whole).await;
    assert!(instance.seen_when_restored > before, "nothing was read");
    assert_eq!(instance.flows(), FLOWS);
    write(&agent, [delete(7)].into_iter());
    instance
        .until("it follows", |one| one.flows() == FLOWS - 1)
        .await;
}

/// Goal: a watch that has ended is begun again; what is new comes, and what went meanwhile goes. Method:
/// the balancer does not read until the crate has given up its watch.
#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_follows_again_when_its_watch_has_ended() {
    let (agent, mut instance) = served().await;
    let gave_up = async {
        loop {
            write(&agent, (0..FLOWS).map(put));
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let read = async { while !instance.step().await {} };
            let soon = Duration::from_millis(500);
            if tokio::time::timeout(soon, read).await.is_ok() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, gave_up)
        .await
        .expect("the watch ends");
    write(&agent, (0..FLOWS / 2).map(delete));
    write(&agent, [put(FLOWS), put(FLOWS + 1)].into_iter());
    instance
        .until("it follows", |one| one.flows() == FLOWS - FLOWS / 2 + 2)
        .await;
}
