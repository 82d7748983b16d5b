//! The manager without a network: what operators ask of it, and what its machines are told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use vnfpool_config::PoolFile;
use vnfpool_model::{
    ElementId, Epoch, Incarnation, LeaseBounds, Pace, PoolHandle, PoolSpec, Role, SlotId, Timing,
};
use vnfpool_northbound::{Code, FenceRequest, Operations, SwitchoverRequest, TokenRequest};
use vnfpool_succession::element::Refusal;
use vnfpool_succession::manager::{Input, Stored};
use vnfpool_transport::enrolment;
use vnfpool_transport::pki::{Authority, Validity};
use vnfpool_transport::quic::{Acceptance, Endpoint, EndpointOptions, Listener};
use vnfpool_transport::token::Token;
use vnfpool_transport::{
    Identity, PeerPolicy, PrincipalId, Rejection, RejectionCounters, TrustDomain,
};
use vnfpool_wire::control::frame::Kind;
use vnfpool_wire::control::{
    CLASSES_REPORTED_MAX, ClassReport, DowngradeReport, DrainFailures, ElementReport, Frame,
    HandoverTrouble, Hello, SlotReport, SwitchoverCommand, SwitchoverResult,
};
use vnfpool_wire::datagram::{Member, NodeId, Record};

use super::db::Db;
use super::fencing::armed_slots;
use super::load_registry;
use super::operations::{Api, Word};
use super::pulse::tests::request;
use super::pulse::{Command, Handover, Notice, PulseSetup, SlotView, View};
use super::registry::Live;
use super::shared::{Parts, Shared, reports_of_member};
use crate::pulse::now;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A manager on a store of its own; its thread runs only when it is started.
struct Manager {
    api: Api,
    setup: PulseSetup,
    dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("test.example").unwrap();
        Authority::create(&dir.path().join("ca"), &domain).unwrap();
        Self::open(dir)
    }

    fn open(dir: TempDir) -> Self {
        let setup = PulseSetup::bind(ANY).unwrap();
        let shared = shared(dir.path(), &setup);
        super::start_slots(&shared).unwrap();
        Self {
            api: Api(Arc::new(shared)),
            setup,
            dir,
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.api.0
    }

    /// Lets the machines run.
    fn start(self) -> Running {
        let Self { api, setup, dir } = self;
        let leases = Arc::default();
        let persist = api.0.db.persister(setup.handle.clone(), leases);
        let (notices, _) = mpsc::channel(1);
        let thread = setup.start(persist, notices, || {}).unwrap();
        Running {
            api,
            thread: Some(thread),
            dir: Some(dir),
        }
    }
}

struct Running {
    api: Api,
    thread: Option<JoinHandle<()>>,
    dir: Option<TempDir>,
}

impl Running {
    fn stop(&mut self) {
        self.api.0.pulse.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// The same directory under another life of the manager.
    fn restart(mut self) -> Manager {
        self.stop();
        let dir = self.dir.take().unwrap();
        drop(self);
        Manager::open(dir)
    }

    /// Waits until the machines are seen to run.
    async fn seen(&self) {
        let seen = async {
            while self.api.0.pulse.view().slots.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, seen).await.unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn shared(dir: &Path, setup: &PulseSetup) -> Shared {
    let db = Db::open(&dir.join("store"), setup.handle.clone()).unwrap();
    Shared::new(Parts {
        id: "manager".into(),
        boot: db.count_boot().unwrap(),
        addresses: vec![ANY],
        datagram: ANY,
        registry: load_registry(&db).unwrap(),
        db,
        pulse: setup.handle.clone(),
        authority: Authority::load(&dir.join("ca")).unwrap(),
        rejections: Arc::new(RejectionCounters::default()),
        leases_ms: Arc::new(Mutex::new(BTreeMap::new())),
        closing_time_max: Duration::from_millis(200),
    })
}

fn operator() -> Identity {
    let id = PrincipalId::new("test").unwrap();
    Identity::Operator { id }
}

fn edge() -> PoolHandle {
    "edge".parse().unwrap()
}

fn pool(slot: &str) -> PoolSpec {
    let text = format!(
        "[pool]\nhandle = \"edge\"\nfunction = \"nat\"\n[[slot]]\nname = \"main\"\n{slot}\n\
         [[slot.address]]\naddress = \"10.1.0.254/24\"\nlan = \"inside\"\nvrid = 11\n"
    );
    PoolFile::parse(&text, "pool.toml").unwrap()
}

fn member(node: u32) -> Member {
    Member {
        node: NodeId(node),
        incarnation: Incarnation(1),
    }
}

/// A pool whose slot's record names two elements, gw1 and gw2, which are not connected.
async fn pair() -> Running {
    let manager = Manager::new();
    manager.api.apply_pool(pool(""), &operator()).await.unwrap();
    for name in ["gw1", "gw2"] {
        let id: ElementId = name.parse().unwrap();
        manager.shared().number_of(&edge(), &id).await.unwrap();
    }
    let record = Record {
        term: 4,
        first: member(1),
        second: Some(member(2)),
        pace: Timing::DEFAULT.pace(),
    };
    let id = manager.shared().pool(&edge()).unwrap().slots["main"];
    let mut change = manager.shared().db.change();
    change.put_stored(id, Stored::of(record), 1_000).unwrap();
    manager.shared().db.commit(change).await.unwrap();
    let Manager { api, setup, dir } = manager;
    drop((api, setup));
    let running = Manager::open(dir).start();
    running.seen().await;
    running
}

/// Goal: a record that was prepared is what a manager begins with (5n), and nothing of it is left
/// beside a record that took its place. Method: both ways of writing, each before a restart.
#[tokio::test]
async fn a_prepared_record_is_begun_with_until_another_takes_its_place() {
    let mut running = pair().await;
    let lone = |term| Record {
        term,
        first: member(2),
        second: None,
        pace: Timing::DEFAULT.pace(),
    };
    for term in [5, 6] {
        let shared = Arc::clone(&running.api.0);
        let id = shared.pool(&edge()).unwrap().slots["main"];
        let (stored, lease_ms) = shared.db.slot(id).unwrap().unwrap();
        let written = match term {
            5 => Stored {
                prepared: Some(lone(5)),
                ..stored
            },
            _ => Stored::of(lone(term)),
        };
        let mut change = shared.db.change();
        change.put_stored(id, written, lease_ms).unwrap();
        shared.db.commit(change).await.unwrap();
        drop(shared);
        running = running.restart().start();
        running.seen().await;
        let record = running.api.0.pulse.view().slots[&id].record.unwrap();
        assert_eq!(record, lone(term));
    }
}

/// An agent that has registered, and the frames that it is sent.
fn connect(shared: &Shared, name: &str, connection: usize) -> mpsc::Receiver<Frame> {
    connect_on(shared, name, connection, name)
}

fn connect_on(shared: &Shared, name: &str, connection: usize, host: &str) -> mpsc::Receiver<Frame> {
    let (live, frames) = live(name, connection, host);
    shared.connected(&edge(), &name.parse().unwrap(), live);
    frames
}

fn live(name: &str, connection: usize, host: &str) -> (Live, mpsc::Receiver<Frame>) {
    let (outbox, frames) = mpsc::channel(32);
    let (replaced, _) = mpsc::channel(1);
    let live = Live {
        connection,
        hello: Hello {
            incarnation: 1,
            host: host.to_owned(),
            labels: [("rack".to_owned(), format!("of {name}"))].into(),
            ..Hello::default()
        },
        report: ElementReport::default(),
        outbox,
        replaced,
        configuration: None,
    };
    (live, frames)
}

/// Answers each configuration without slots by a report of `revision`, until it is disconnected.
fn answer(
    shared: &Arc<Shared>,
    name: &'static str,
    mut frames: mpsc::Receiver<Frame>,
    revision: fn(u64) -> u64,
) -> tokio::task::JoinHandle<()> {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            let Some(Kind::Configuration(told)) = frame.kind else {
                continue;
            };
            if told.slots.is_empty() {
                let report = ElementReport {
                    revision: revision(told.revision),
                    ..ElementReport::default()
                };
                shared.reported(&edge(), &name.parse().unwrap(), report);
            }
        }
    })
}

async fn fence(api: &Api, name: &str) {
    let request = FenceRequest {
        element: name.parse().unwrap(),
        it_is_off: true,
    };
    api.fence(&edge(), request, &operator()).await.unwrap();
}

/// What the machines were told, of which slot is of no interest here.
fn told(manager: &mut Manager) -> Vec<Input> {
    let commands = manager.setup.commands().into_iter();
    commands
        .filter_map(|command| match command {
            Command::Input { input, .. } => Some(input),
            _ => None,
        })
        .collect()
}

/// Goal: an operator who prefers another element changes what the machine does, not only what
/// `pool show` says. Method: apply the pool with one preferred element, then with another.
#[tokio::test]
async fn another_preferred_element_is_told_to_the_machine() {
    let mut manager = Manager::new();
    for name in ["gw1", "gw2"] {
        manager
            .api
            .apply_pool(pool(&format!("preferred = \"{name}\"")), &operator())
            .await
            .unwrap();
        // Nobody has a number yet, so nobody can be named.
        assert!(!told(&mut manager).contains(&Input::Preferred(Some(NodeId(1)))));
    }
    let gw1: ElementId = "gw1".parse().unwrap();
    let one = manager.shared().number_of(&edge(), &gw1).await.unwrap();
    manager.shared().steer();
    assert_eq!(told(&mut manager), [], "gw1 is not preferred any more");
    let gw2: ElementId = "gw2".parse().unwrap();
    let two = manager.shared().number_of(&edge(), &gw2).await.unwrap();
    manager.shared().steer();
    assert_eq!(told(&mut manager), [Input::Preferred(Some(two))]);
    manager.shared().steer();
    assert_eq!(told(&mut manager), [], "once is enough");

    manager
        .api
        .apply_pool(pool("preferred = \"gw1\""), &operator())
        .await
        .unwrap();
    assert_eq!(told(&mut manager), [Input::Preferred(Some(one))]);
    manager.api.apply_pool(pool(""), &operator()).await.unwrap();
    assert_eq!(told(&mut manager), [Input::Preferred(None)]);
}

/// Goal: a pair that may serve on, unseen, keeps its pool until each of the two is off. Method:
/// neither is connected, neither was heard; they are fenced one after the other.
#[tokio::test]
async fn a_pool_is_not_deleted_while_a_member_may_serve_unseen() {
    let running = pair().await;
    for (name, code) in [("gw1", Code::PoolBusy), ("gw2", Code::PoolBusy)] {
        let refused = running.api.delete_pool(&edge(), &operator()).await;
        assert_eq!(refused.unwrap_err().code, code);
        fence(&running.api, name).await;
    }
    running.api.delete_pool(&edge(), &operator()).await.unwrap();
    assert_eq!(running.api.pools().await.unwrap(), []);
}

/// Goal: an element that no record names any more keeps its pool, too, since it may not know that;
/// one that has not registered since an earlier pool of the name was deleted does not, also after a
/// restart. Method: a third element, known and not connected; then pools under the same name.
#[tokio::test]
async fn a_pool_is_not_deleted_while_a_former_member_is_cut_off() {
    let running = pair().await;
    let gw3: ElementId = "gw3".parse().unwrap();
    let shared = Arc::clone(&running.api.0);
    let node = shared.number_of(&edge(), &gw3).await.unwrap();
    for name in ["gw1", "gw2"] {
        fence(&running.api, name).await;
    }
    let refused = running.api.delete_pool(&edge(), &operator()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, Code::PoolBusy);
    assert!(refused.detail.contains("gw3"), "{refused}");
    fence(&running.api, "gw3").await;
    running.api.delete_pool(&edge(), &operator()).await.unwrap();

    running.api.apply_pool(pool(""), &operator()).await.unwrap();
    drop(shared);
    let running = running.restart().start();
    running.api.delete_pool(&edge(), &operator()).await.unwrap();
    running.api.apply_pool(pool(""), &operator()).await.unwrap();
    let again = running.api.0.number_of(&edge(), &gw3).await.unwrap();
    assert_eq!(again, node);
    let running = running.restart().start();
    let refused = running.api.delete_pool(&edge(), &operator()).await;
    assert_eq!(refused.unwrap_err().code, Code::PoolBusy);
}

/// Goal: the proof of a fencing command counts for the life before it only, and of a pool that is
/// being deleted nobody is fenced. Method: gw1 registers, and gw2 stays away.
#[tokio::test]
async fn a_fencing_proof_does_not_count_for_who_has_registered_meanwhile() {
    let running = pair().await;
    let shared = &running.api.0;
    let armed = || {
        let (slots, targets) = armed_slots(&shared.registry(), &shared.pulse.view(), now());
        (slots.len(), targets.len())
    };
    assert_eq!(armed(), (1, 2));
    let _frames = connect(shared, "gw1", 1);
    let word = Word::Hook { began: now() };
    let prove = |name: &str| shared.declare_off(&edge(), &name.parse().unwrap(), word);
    assert_eq!(prove("gw1").unwrap_err().code, Code::ElementAlive);
    prove("gw2").unwrap();
    let fenced = |name: &str| {
        let key = (edge(), name.parse().unwrap());
        shared.registry().elements[&key].fenced
    };
    assert_eq!((fenced("gw1"), fenced("gw2")), (false, true));
    running
        .api
        .delete_pool(&edge(), &operator())
        .await
        .unwrap_err();
    assert_eq!(armed(), (0, 0));
}

/// Goal: a member that is connected but does not confirm keeps the pool, which nevertheless never
/// serves again; a stale report is no confirmation; a deletion goes on after a restart. Method:
/// agents made by hand, one of them mute.
#[tokio::test]
async fn only_a_confirmation_of_every_member_deletes_a_pool() {
    let running = pair().await;
    let shared = Arc::clone(&running.api.0);
    // gw1 says what it has done. gw2 says it of its first configuration: that must not count.
    let frames = connect(&shared, "gw1", 1);
    let confirming = answer(&shared, "gw1", frames, |told| told);
    let frames = connect(&shared, "gw2", 2);
    let lagging = answer(&shared, "gw2", frames, |_| 1);
    let refused = running.api.delete_pool(&edge(), &operator()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, Code::Timeout);
    assert!(refused.detail.contains("gw2"), "{refused}");
    let status = running.api.status().await.unwrap();
    assert!(status.pools[0].closing);
    assert!(shared.pulse.view().slots.is_empty(), "no machine runs");
    let applied = running.api.apply_pool(pool(""), &operator()).await;
    assert_eq!(applied.unwrap_err().code, Code::PoolBusy);

    shared.disconnected(&edge(), &"gw1".parse().unwrap(), 1);
    shared.disconnected(&edge(), &"gw2".parse().unwrap(), 2);
    for agent in [confirming, lagging] {
        agent.await.unwrap();
    }
    drop(shared);
    let running = running.restart().start();
    assert!(running.api.status().await.unwrap().pools[0].closing);
    for name in ["gw1", "gw2"] {
        let kept = running.api.delete_pool(&edge(), &operator()).await;
        assert_eq!(kept.unwrap_err().code, Code::Timeout);
        fence(&running.api, name).await;
    }
    running.api.delete_pool(&edge(), &operator()).await.unwrap();
    assert_eq!(running.api.pools().await.unwrap(), []);
}

/// Goal: the lag is milliseconds and stands with the one whose copy is behind. Method: the active
/// reports frames and microseconds that cannot be taken for each other.
#[tokio::test]
async fn the_lag_of_the_standby_is_milliseconds_by_the_word_of_the_active() {
    let running = pair().await;
    let shared = &running.api.0;
    let _frames = [connect(shared, "gw1", 1), connect(shared, "gw2", 2)];
    let id = shared.pool(&edge()).unwrap().slots["main"];
    let report = ElementReport {
        slots: vec![SlotReport {
            id: id.0,
            sync_lag_frames: 7_777,
            sync_lag_us: 12_345,
            ..SlotReport::default()
        }],
        ..ElementReport::default()
    };
    shared.reported(&edge(), &"gw1".parse().unwrap(), report);
    let status = running.api.status().await.unwrap();
    let [gw1, gw2] = status.pools[0].elements.as_slice() else {
        panic!("two elements: {status:?}");
    };
    assert_eq!((gw1.role, gw1.sync_lag_ms), (Role::Active, None));
    assert_eq!((gw2.role, gw2.sync_lag_ms), (Role::Standby, Some(12)));
    assert_eq!(gw1.labels["rack"], "of gw1");
}

/// Goal: a fault with which a life goes on in another process is an event, however soon it passes; one
/// with which another life begins is none. It does not matter whether the process before has closed its
/// connection.
#[tokio::test]
async fn a_fault_after_another_process_of_a_life_is_news() {
    let running = pair().await;
    let shared = &running.api.0;
    let gw1: ElementId = "gw1".parse().unwrap();
    let say = |able, fault: &str| {
        let report = ElementReport {
            able,
            faults: vec![fault.to_owned()],
            ..ElementReport::default()
        };
        shared.reported(&edge(), &gw1, report);
    };
    let mut kept = Box::pin(shared.events.stream(Some(0)));
    let mut tells = |kind: &str| {
        let now = || kept.next().now_or_never().flatten();
        std::iter::from_fn(now).any(|event| event.kind == kind)
    };
    let connect = |connection, life| {
        let (mut live, frames) = live("gw1", connection, "gw1");
        live.hello.incarnation = life;
        shared.connected(&edge(), &gw1, live);
        frames
    };
    let cases = [(1, 1, false), (2, 2, true), (3, 4, false), (5, 6, true)];
    for (before, life, is_closed) in cases {
        let _frames = connect(1, before);
        say(true, "");
        assert!(tells("able"));
        if is_closed {
            shared.disconnected(&edge(), &gw1, 1);
        }
        let _frames = connect(2, life);
        // Events of one kind are a second apart.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        say(false, "the state is lost here");
        assert_eq!(
            tells("unable"),
            before == life,
            "{before} {life} {is_closed}"
        );
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
}

/// Goal: what an element says of its planned handovers is an event and stands in `status`.
#[tokio::test]
async fn trouble_in_a_planned_handover_is_an_event_and_in_status() {
    let running = pair().await;
    let shared = &running.api.0;
    let _frames = connect(shared, "gw1", 1);
    let say = |handover_trouble| {
        let report = ElementReport {
            handover_trouble,
            ..ElementReport::default()
        };
        shared.reported(&edge(), &"gw1".parse().unwrap(), report);
    };
    say(None);
    let status = running.api.status().await.unwrap();
    assert_eq!(status.pools[0].elements[0].handover_trouble, None);
    say(Some(HandoverTrouble {
        not_drained: Some(DrainFailures {
            count: 1,
            reason: "no answer".to_owned(),
            last_ms: 40,
        }),
        ..HandoverTrouble::default()
    }));
    let status = running.api.status().await.unwrap();
    let trouble = status.pools[0].elements[0]
        .handover_trouble
        .clone()
        .unwrap();
    let drain = trouble.not_drained.unwrap();
    assert_eq!(
        (drain.count, &*drain.reason, drain.last_ms),
        (1, "no answer", 40)
    );
    assert_eq!((trouble.not_resumed, trouble.classes_undrained), (None, 0));
    let mut kept = Box::pin(shared.events.stream(Some(0)));
    let now = || kept.next().now_or_never().flatten();
    let told = std::iter::from_fn(now).find(|event| event.kind == "drain-failed");
    assert_eq!(told.unwrap().reason, "no answer");
}

/// Goal: a handover that nobody ordered is an event and an audit entry with its reason: the former
/// active's fault, also if that is told a moment later, or that it was a switchback.
#[tokio::test]
async fn a_handover_by_the_active_itself_is_told_with_its_reason() {
    let running = pair().await;
    let shared = &running.api.0;
    let _frames = [connect(shared, "gw1", 1), connect(shared, "gw2", 2)];
    let slot = shared.pool(&edge()).unwrap().slots["main"];
    let hand_over = |from, to| {
        let (from, to) = (NodeId(from), NodeId(to));
        let handover = Handover { from, to };
        shared.decided(&Notice::HandedOver { slot, handover });
    };
    let say = |name: &str, faults: &[&str]| {
        let report = ElementReport {
            able: faults.is_empty(),
            faults: faults.iter().copied().map(str::to_owned).collect(),
            ..ElementReport::default()
        };
        shared.reported(&edge(), &name.parse().unwrap(), report);
    };
    let mut events = Box::pin(shared.events.stream(Some(0)));
    let mut told = async || {
        let next = async {
            loop {
                let event = events.next().await.unwrap();
                if event.kind == "handover" {
                    assert_eq!(event.slot.unwrap().to_string(), "main");
                    return (event.text, event.reason);
                }
            }
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, next).await.unwrap()
    };
    let says = |text: &str, reason: &str| (text.to_owned(), reason.to_owned());
    let (there, back) = ("gw1 handed over to gw2", "gw2 handed over to gw1");

    say("gw1", &["it is unhealthy", "eth0 is down"]);
    hand_over(1, 2);
    assert_eq!(told().await, says(there, "it is unhealthy; eth0 is down"));
    hand_over(2, 1);
    say("gw2", &["the agent stops"]);
    assert_eq!(told().await, says(back, "the agent stops"));
    say("gw1", &[]);
    hand_over(1, 2);
    assert_eq!(told().await, says(there, "gw1 has not said why"));
    say("gw2", &[]);
    let asked = (NodeId(2), Instant::now());
    shared.registry().switched_back.insert(slot, asked);
    hand_over(2, 1);
    assert_eq!(
        told().await,
        says(back, "switchback to the preferred element")
    );
    // The log is written behind: what comes after it is waited for.
    let mut change = shared.db.change();
    let numbers = shared.registry().numbers.clone();
    change.put_numbers(&numbers).unwrap();
    shared.db.commit(change).await.unwrap();
    let entries = running.api.audit(100).await.unwrap();
    let entries = entries.iter().filter(|entry| entry.action == "handover");
    let last = entries.map(|entry| entry.text.as_str()).next_back();
    assert_eq!(last, Some(back));
}

/// Answers each switchover that comes, by `word`: done or not, and a text. Ends with the connection.
fn answer_switchovers(
    shared: &Arc<Shared>,
    mut frames: mpsc::Receiver<Frame>,
    word: impl Fn() -> (bool, String) + Send + 'static,
) -> tokio::task::JoinHandle<usize> {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut asked = 0;
        while let Some(frame) = frames.recv().await {
            if let Some(Kind::Switchover(SwitchoverCommand { id, .. })) = frame.kind {
                asked += 1;
                let (done, text) = word();
                shared.switchover_result(SwitchoverResult { id, done, text });
            }
        }
        asked
    })
}

/// Goal: a switchover is asked of who serves, though the manager learns a moment too late who that is;
/// and once one is done, the manager knows who serves. Method: gw1, which served when the manager heard
/// of it last, refuses and is heard in the next turn only then; gw2 hands over and is heard later.
#[tokio::test]
async fn a_switchover_is_asked_of_who_serves_by_the_newest_turn() {
    let running = pair().await;
    let shared = Arc::clone(&running.api.0);
    let frames = [connect(&shared, "gw1", 1), connect(&shared, "gw2", 2)];
    let slot = shared.pool(&edge()).unwrap().slots["main"];
    // The turn becomes known a while after the answer.
    let heard_later = |node, turn| {
        let pulse = shared.pulse.clone();
        move || {
            let pulse = pulse.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                pulse.send(request(slot, node, Epoch { term: 4, turn }));
            });
        }
    };
    let (moved_on, moved_back) = (heard_later(2, 1), heard_later(1, 2));
    let [one, two] = frames;
    let one = answer_switchovers(&shared, one, move || {
        moved_on();
        (false, Refusal::NotActive.as_str().to_owned())
    });
    let two = answer_switchovers(&shared, two, move || {
        moved_back();
        (true, "4.2".to_owned())
    });
    let active = || shared.pulse.view().slots[&slot].active.unwrap().node;
    assert_eq!(active(), NodeId(1));
    let request = SwitchoverRequest::default();
    let done = running.api.switchover(&edge(), request, &operator()).await;
    let done = done.unwrap();
    let names = (done.from.unwrap().to_string(), done.active.to_string());
    assert_eq!(names, ("gw2".to_owned(), "gw1".to_owned()));
    assert_eq!(active(), NodeId(1), "it is known by now");
    for (name, connection) in [("gw1", 1), ("gw2", 2)] {
        shared.disconnected(&edge(), &name.parse().unwrap(), connection);
    }
    assert_eq!((one.await.unwrap(), two.await.unwrap()), (1, 1));
}

/// Goal: a refusal is told when nobody else is known to serve, after a bounded time.
#[tokio::test]
async fn a_switchover_that_nobody_can_do_is_refused() {
    let running = pair().await;
    let shared = Arc::clone(&running.api.0);
    let frames = connect(&shared, "gw1", 1);
    let text = Refusal::NotActive.as_str();
    let asked = answer_switchovers(&shared, frames, move || (false, text.to_owned()));
    let request = SwitchoverRequest::default();
    let refused = running.api.switchover(&edge(), request, &operator()).await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code, &*refused.detail),
        (Code::SwitchoverRefused, text)
    );
    shared.disconnected(&edge(), &"gw1".parse().unwrap(), 1);
    assert_eq!(asked.await.unwrap(), 1);
}

/// Goal: an operator sees at which level the active's state is held, and by whom; whoever is not the
/// active has no say, and nobody fills the answer.
#[tokio::test]
async fn how_state_is_replicated_is_the_word_of_the_active() {
    let running = pair().await;
    let shared = &running.api.0;
    let _frames = [connect(shared, "gw1", 1), connect(shared, "gw2", 2)];
    let id = shared.pool(&edge()).unwrap().slots["main"];
    let say = |name: &str, classes: Vec<ClassReport>| {
        let slot = SlotReport {
            id: id.0,
            classes,
            ..SlotReport::default()
        };
        let report = ElementReport {
            slots: vec![slot],
            ..ElementReport::default()
        };
        shared.reported(&edge(), &name.parse().unwrap(), report);
    };
    let node = |name: &str| {
        let registry = shared.registry();
        let elements = registry.elements.iter();
        let mut found = elements.filter(|((_, id), _)| id.as_str() == name);
        found.next().unwrap().1.node.0
    };
    let class = ClassReport {
        class: "conntrack".to_owned(),
        standby: node("gw2"),
        demanded: "commit".to_owned(),
        agreed: Some("commit".to_owned()),
        downgrade: Some(DowngradeReport {
            level: "bounded".to_owned(),
            reason: "it is slow".to_owned(),
            began_ms: 1_500,
            ..DowngradeReport::default()
        }),
        downgrades: 1,
        overruns: 2,
        event_source: "ring".to_owned(),
        ..ClassReport::default()
    };
    say("gw1", vec![class.clone()]);
    say("gw2", vec![ClassReport::default()]);
    let status = running.api.status().await.unwrap();
    let [state] = status.pools[0].slots[0].state.as_slice() else {
        panic!("one class: {status:?}");
    };
    assert_eq!(state.standby.as_ref().map(|id| id.as_str()), Some("gw2"));
    assert_eq!(state.agreed.as_deref(), Some("commit"));
    assert_eq!(state.level.as_deref(), Some("bounded"));
    let downgrade = state.downgrade.as_ref().unwrap();
    assert_eq!((downgrade.began_ms, downgrade.lasted_ms), (1_500, None));
    assert_eq!((state.overruns, state.repaired_ms), (2, None));
    assert_eq!(state.event_source.as_deref(), Some("ring"));
    assert_eq!((&state.reason, &state.fallback_reason), (&None, &None));
    let mut kept = Box::pin(shared.events.stream(Some(0)));
    let now = || kept.next().now_or_never().flatten().map(|event| event.kind);
    let kinds: Vec<_> = std::iter::from_fn(now).collect();
    for kind in ["state-downgraded", "state-lost"] {
        assert!(kinds.iter().any(|told| told == kind), "{kinds:?}");
    }
    say("gw1", vec![class; 1_000]);
    let status = running.api.status().await.unwrap();
    assert_eq!(status.pools[0].slots[0].state.len(), CLASSES_REPORTED_MAX);
}

/// Goal: with `lease = "auto"` what a member reports becomes the machine's pace, and `status` says
/// why. Method: one report each; the control is a pool with a profile, and one before any record.
#[tokio::test]
async fn a_reported_silence_changes_the_pace() {
    let mut manager = Manager::new();
    let mut spec = pool("");
    spec.lease_bounds = Some(LeaseBounds {
        min_ms: 20,
        max_ms: 90,
    });
    manager.api.apply_pool(spec, &operator()).await.unwrap();
    let slot = manager.shared().pool(&edge()).unwrap().slots["main"];
    let record = Record {
        term: 4,
        first: member(1),
        second: Some(member(2)),
        pace: Timing::DEFAULT.pace(),
    };
    let observe = |slot: SlotId, silence_excess_us| {
        let report = SlotReport {
            id: slot.0,
            silence_excess_us,
            ..SlotReport::default()
        };
        manager.shared().paces().observe(&[(record, report)])
    };
    assert_eq!(observe(SlotId(slot.0 + 1), 26_000), []);
    let bounded = Pace {
        heartbeat_interval_ms: 18,
        lease_ms: 90,
    };
    assert_eq!(observe(slot, 26_000), [(slot, bounded)]);
    assert_eq!(observe(slot, 26_000), [], "once is enough");
    let status = manager.api.status().await.unwrap();
    assert_eq!(status.pools[0].profile, "auto");
    let reason = status.pools[0].slots[0].lease_reason.clone().unwrap();
    assert!(reason.contains("raise lease_max_ms"), "{reason}");
    // Before there is a record nobody is a member, whatever the element says.
    let gw1: ElementId = "gw1".parse().unwrap();
    manager.shared().number_of(&edge(), &gw1).await.unwrap();
    let _frames = connect(manager.shared(), "gw1", 1);
    told(&mut manager);
    let report = ElementReport {
        slots: vec![SlotReport {
            id: slot.0,
            role: Role::Active.to_string(),
            silence_excess_us: 80_000,
            ..SlotReport::default()
        }],
        ..ElementReport::default()
    };
    manager.shared().reported(&edge(), &gw1, report);
    assert_eq!(told(&mut manager), []);
}

/// Goal: no element has a say in the pace of a slot that it is not a member of, by its certificate
/// and not by what it says. Method: one report about three slots.
#[test]
fn who_is_no_member_has_no_say_in_the_pace() {
    let record = |first| Record {
        term: 4,
        first: member(first),
        second: None,
        pace: Timing::DEFAULT.pace(),
    };
    let view_of = |first| SlotView {
        record: Some(record(first)),
        ..SlotView::default()
    };
    let view = View {
        slots: [1, 2, 3]
            .map(|slot| (SlotId(slot), view_of(if slot == 2 { 8 } else { 7 })))
            .into(),
        ..View::default()
    };
    let report = ElementReport {
        slots: [1, 2, 3, 4]
            .map(|id| SlotReport {
                id,
                role: Role::Active.to_string(),
                ..SlotReport::default()
            })
            .into(),
        ..ElementReport::default()
    };
    let of_its_pool = [SlotId(1), SlotId(2), SlotId(4)].into();
    let taken = reports_of_member(&view, &of_its_pool, NodeId(7), &report);
    let ids: Vec<u32> = taken.iter().map(|(_, report)| report.id).collect();
    assert_eq!(ids, [1]);
}

/// Goal: an element neither fills the log nor pushes other events out, and what it says last is
/// told. Method: it changes its mind a thousand times, and then speaks as elements do, now and then.
#[tokio::test]
async fn what_an_element_repeats_is_not_told_each_time() {
    let running = pair().await;
    let shared = &running.api.0;
    let _frames = connect(shared, "gw1", 1);
    let gw1: ElementId = "gw1".parse().unwrap();
    let say = |able| {
        let report = ElementReport {
            able,
            ..ElementReport::default()
        };
        shared.reported(&edge(), &gw1, report);
    };
    let began = Instant::now();
    for number in 0..1_000 {
        say(number % 2 == 0);
        shared.not_understood(&edge(), &gw1);
    }
    let each = 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
    let kinds = || {
        let mut kept = Box::pin(shared.events.stream(Some(0)));
        let now = || kept.next().now_or_never().flatten().map(|event| event.kind);
        std::iter::from_fn(now).collect::<Vec<_>>()
    };
    let kinds_kept = kinds();
    let count = |kind: &str| kinds_kept.iter().filter(|k| *k == kind).count();
    assert!(
        (1..=each).contains(&count("unknown-message")),
        "{kinds_kept:?}"
    );
    assert!(
        (1..=each).contains(&(count("able") + count("unable"))),
        "{kinds_kept:?}"
    );
    assert!(count("registered") == 1, "{kinds_kept:?}");
    // The last word counts.
    let give_up = Instant::now() + Duration::from_secs(30);
    while kinds().iter().rfind(|k| k.ends_with("able")).unwrap() != "unable" {
        assert!(Instant::now() < give_up, "the last word is never told");
        tokio::time::sleep(Duration::from_millis(50)).await;
        say(false);
    }
}

/// A wire to `to` that carries nothing back any more once `is_cut` says so.
async fn wire(to: SocketAddr, is_cut: impl Fn() -> bool + Send + 'static) -> SocketAddr {
    let (near, far) = (UdpSocket::bind(ANY).await, UdpSocket::bind(ANY).await);
    let (near, far) = (near.unwrap(), far.unwrap());
    far.connect(to).await.unwrap();
    let address = near.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut there, mut back) = ([0; 2_048], [0; 2_048]);
        let mut caller = None;
        loop {
            tokio::select! {
                received = near.recv_from(&mut there) => {
                    let (length, from) = received.unwrap();
                    caller = Some(from);
                    let _ = far.send(&there[..length]).await;
                }
                received = far.recv(&mut back) => {
                    if let (Ok(length), Some(caller), false) = (received, caller, is_cut()) {
                        let _ = near.send_to(&back[..length], caller).await;
                    }
                }
            }
        }
    });
    address
}

/// Goal: a joiner without a valid token, who takes no answer, holds up nobody who has one. Method:
/// its wire is cut when its token has been refused, so that it never confirms the refusal.
#[tokio::test]
async fn a_joiner_who_takes_no_answer_holds_up_nobody() {
    let running = Manager::new().start();
    let (api, shared) = (&running.api, &running.api.0);
    api.apply_pool(pool(""), &operator()).await.unwrap();
    let dir = running.dir.as_ref().unwrap().path();
    let identity = Identity::Manager {
        id: PrincipalId::new("manager").unwrap(),
    };
    let credentials = shared
        .authority
        .issue_local(&dir.join("identity"), &identity, &[], Validity::standard())
        .unwrap();
    let rejections = Arc::clone(&shared.rejections);
    let endpoint =
        Endpoint::bind(ANY, credentials, EndpointOptions::default(), rejections).unwrap();
    let acceptance = Acceptance {
        members: PeerPolicy::Members,
        enrolment: true,
    };
    let listener = Listener::start(std::slice::from_ref(&endpoint), acceptance).unwrap();
    let accepting = tokio::spawn(super::accept(Arc::clone(shared), listener));
    let address = endpoint.local_address().unwrap();

    let forged = Token::create(
        edge(),
        "gw1".parse().unwrap(),
        shared.authority.fingerprint(),
        &[],
        u64::MAX,
    );
    let (forged, _) = forged.unwrap();
    let counters = Arc::clone(&shared.rejections);
    let wire = wire(address, move || counters.count(Rejection::Token) > 0).await;
    let slow = {
        let dir = dir.join("slow");
        tokio::spawn(async move { enrolment::join(wire, &forged, &dir).await })
    };
    while shared.rejections.count(Rejection::Token) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let request = TokenRequest {
        pool: edge(),
        element: "gw2".parse().unwrap(),
        ttl_s: 60,
    };
    let token = api.create_token(request, &operator()).await.unwrap();
    let (token, dir): (Token, _) = (token.token.parse().unwrap(), dir.join("gw2"));
    // Not how long it takes: the slow one is waited for, for ten seconds, or it is not.
    let joined = tokio::time::timeout(
        Duration::from_secs(5),
        enrolment::join(address, &token, &dir),
    );
    joined
        .await
        .expect("nobody waits for the slow one")
        .unwrap();
    assert!(!slow.is_finished(), "it still waits for its answer");
    slow.abort();
    accepting.abort();
    let _ = (slow.await, accepting.await);
}
