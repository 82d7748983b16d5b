//! A function that goes, and one that cannot come: neither keeps the thread of the socket busy.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vnfpool_model::{Epoch, Role, Time};
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{
    self, Batch, Class, Get, Level, LevelKind, Op, Register, Reply, Request, VALUE_BYTES_MAX,
};

use super::hostile::register;
use super::pair::{Agent, SLOT, named};
use crate::element::sdk::bell::Bell;

const PATIENCE: Duration = Duration::from_secs(30);

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn send(stream: &mut UnixStream, kind: Kind) -> std::io::Result<()> {
    let mut out = BytesMut::new();
    sdk::encode(&Request { kind: Some(kind) }, &mut out);
    stream.write_all(&out)
}

/// The next reply that `pick` takes.
fn reply<T>(
    stream: &mut UnixStream,
    bytes: &mut BytesMut,
    pick: impl Fn(ReplyKind) -> Option<T>,
) -> T {
    let mut buffer = [0; 4_096];
    loop {
        while let Some(reply) = sdk::decode::<Reply>(bytes).unwrap() {
            if let Some(found) = reply.kind.and_then(&pick) {
                return found;
            }
        }
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the agent has closed the connection");
        bytes.extend_from_slice(&buffer[..read]);
    }
}

/// Goal: the end of a function is seen at once also while nothing of it is read, since what it has put
/// waits for a successor; the kernel tells of that end for as long as the descriptor is open, whatever
/// is waited for. Method: a successor that never answers, at a level that waits for it for weeks.
#[test]
fn a_function_that_ends_while_it_is_held_back_is_gone() {
    let agent = Agent::start();
    agent.set_role(Role::Active, 1);
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    let level = Level {
        kind: LevelKind::LevelBounded.into(),
        lag_ms: u32::MAX,
        entries: 1,
    };
    let class = Class {
        name: "c".into(),
        level: Some(level),
        format: 1,
        schema_version: 1,
    };
    let function = Register {
        version: sdk::VERSION,
        function: "f".into(),
        classes: vec![class],
        ..Register::default()
    };
    send(&mut stream, Kind::Register(function)).unwrap();
    let pick = |kind| matches!(kind, ReplyKind::Registered(_)).then_some(());
    reply(&mut stream, &mut BytesMut::new(), pick);
    let class = agent.hub.class(SLOT, &named("c")).unwrap();
    let successor = class.begin_feed(Bell::new().unwrap());
    class.with_feed(successor, |feed| feed.set_in_sync(true, Time(1)));
    let asked = class.state().ask(successor, Time(1)).unwrap();
    class.with_feed(successor, |feed| feed.answered(asked, true, Time(1)));
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let batch = |last| {
        Kind::Batch(Batch {
            slot: SLOT.0,
            class: 0,
            epoch: Epoch::first_of(1).fencing_token(),
            last,
            ops: vec![Op {
                key: Bytes::from_static(b"k"),
                value: Some(vec![7; VALUE_BYTES_MAX].into()),
                ttl_s: 0,
            }],
        })
    };
    // Until nothing more is taken.
    let refused = (1..10_000).find(|last| send(&mut stream, batch(*last)).is_err());
    assert!(refused.is_some(), "the agent reads on");
    assert!(agent.hub.report().is_some());
    drop(stream);
    wait_until("its end is not seen", || agent.hub.report().is_none());
    assert_eq!(
        class.state().table.end(),
        1,
        "more than the bound was taken"
    );
}

/// Set for the process in which descriptors are used up: others would not like that.
const CHILD: &str = "VNFPOOL_TEST_OF_DESCRIPTORS";

/// Goal: without descriptors, who wants to connect waits, and is let in when there are some; who is
/// connected is served as ever, and the thread does not try again at every turn. Method: the function
/// asks so often that it would be seen.
#[test]
fn descriptors_that_are_used_up_keep_nobody_from_service() {
    if std::env::var_os(CHILD).is_some() {
        return serve_without_descriptors();
    }
    let name = "element::sdk::tests::ends::descriptors_that_are_used_up_keep_nobody_from_service";
    let tried = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&tried.stdout),
        String::from_utf8_lossy(&tried.stderr),
    );
    assert!(tried.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "it has another name: {out}");
}

fn serve_without_descriptors() {
    const QUESTIONS: u64 = 300;
    let agent = Agent::start();
    agent.set_role(Role::Active, 1);
    let mut function = UnixStream::connect(agent.socket()).unwrap();
    function.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = BytesMut::new();
    send(&mut function, register(LevelKind::LevelNone)).unwrap();
    let pick = |kind| matches!(kind, ReplyKind::Registered(_)).then_some(());
    reply(&mut function, &mut bytes, pick);
    let other = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let before = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(64),
        ..before
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let all: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!all.is_empty());
    connect(&other, &SocketAddrUnix::new(agent.socket()).unwrap()).unwrap();
    wait_until("nothing fails", || agent.hub.unaccepted() > 0);
    let before = agent.hub.unaccepted();
    for id in 0..QUESTIONS {
        let (slot, class, key) = (SLOT.0, 0, Bytes::from_static(b"k"));
        let get = Get {
            id,
            slot,
            class,
            key,
        };
        send(&mut function, Kind::Get(get)).unwrap();
        let answer = |kind| match kind {
            ReplyKind::Found(found) => Some(found.id),
            _ => None,
        };
        assert_eq!(reply(&mut function, &mut bytes, answer), id);
    }
    let tried = agent.hub.unaccepted() - before;
    assert!(tried < QUESTIONS / 2, "{tried} attempts");
    drop(all);
    let mut other = UnixStream::from(other);
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    other.write_all(&[0xff; 4]).unwrap();
    let answer = |kind| match kind {
        ReplyKind::Failure(failure) => Some(failure.code),
        _ => None,
    };
    let code = reply(&mut other, &mut BytesMut::new(), answer);
    assert_eq!(code, "malformed");
}
