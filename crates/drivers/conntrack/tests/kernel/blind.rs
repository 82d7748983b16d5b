//! Resets by somebody who knows addresses and ports but no sequence number, sent into connections
//! that a gateway has just taken over.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use vnfpool_conntrack::{
    Entry, Event, EventSource, Layer4, ProtocolState, ResetGuard, Scope, Settled, Sink, TcpInfo,
    settle, tcp_flags, tcp_state,
};

use crate::reset;
use crate::takeover::{Lab, PATIENCE, Traffic, drain, pass_on, replicate, scope};
use vnfpool_netns::set;

/// Spread over the whole space of sequence numbers: at most one of them can be in a window.
const RESETS: u32 = 8;

/// As in `docs/operations.md`: no reset as the first packet of a direction of a connection that
/// the gateway was told of. It is dropped at the very end of its way, since the kernel tells of what
/// a packet changed only when it has passed all other hooks.
const GUARD_RULES: &str = "
table inet guard {
  chain forward {
    type filter hook forward priority -5;
    tcp flags & rst == rst ct status assured ct direction original \
      ct original packets 1 meta mark set 0x766e6670
    tcp flags & rst == rst ct status assured ct direction reply \
      ct reply packets 1 meta mark set 0x766e6670
  }
}
table netdev guard {
  counter refused { }
  counter passed { }
  chain out {
    type filter hook egress device out priority 0;
    meta mark 0x766e6670 counter name refused drop
    tcp flags & rst == rst counter name passed
  }
}";

/// A laboratory that has failed over, and its traffic.
struct Scene {
    lab: Lab,
    traffic: Traffic,
    events: EventSource,
    guard: ResetGuard,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new();
        lab.gateways[1].enter(|| set("netfilter/nf_conntrack_acct", "1"));
        lab.gateways[1].run("nft", "-f -", GUARD_RULES);
        let mut source = lab.gateways[0].enter(|| EventSource::open(1 << 20).unwrap());
        let mut sink = lab.gateways[1].enter(|| Sink::open(Scope::default()).unwrap());
        let traffic = Traffic::start(&lab);
        replicate(&drain(&mut source), &mut sink);
        lab.fail_over();
        let events = lab.gateways[1].enter(|| EventSource::open(1 << 20).unwrap());
        let guard = lab.gateways[1].enter(|| ResetGuard::open().unwrap());
        Self {
            lab,
            traffic,
            events,
            guard,
        }
    }

    /// Both ends of the first connection, as the client sees them.
    fn ends(&self) -> (SocketAddr, SocketAddr) {
        let (client, _) = &self.traffic.tcp[0];
        (client.local_addr().unwrap(), client.peer_addr().unwrap())
    }

    /// Resets from the client into the first connection, and the guard after each.
    fn blind_resets(&mut self) -> u32 {
        let (from, to) = self.ends();
        let mut closed = 0;
        for guess in 0..RESETS {
            let packet = reset::packet(from, to, guess.wrapping_mul(u32::MAX / RESETS));
            let before = self.counted_all();
            self.lab.client.enter(|| reset::send(&packet, to));
            let begin = Instant::now();
            while self.counted_all() == before {
                assert!(begin.elapsed() < PATIENCE, "the reset did not arrive");
            }
            let events = drain(&mut self.events);
            for event in &events {
                closed += u32::from(is_closed(event));
                self.guard.observe(event, &scope(1)).unwrap();
            }
            assert!(self.guard.flush().unwrap().is_empty());
        }
        closed
    }

    /// The first connection in the second gateway.
    fn entry(&self) -> Entry {
        let (from, _) = self.ends();
        let is_it = |entry: &&Entry| {
            let layer4 = entry.key.original.layer4;
            matches!(layer4, Layer4::Ports { src, .. } if src == from.port())
                && matches!(entry.state, ProtocolState::Tcp(_))
        };
        let table = self.lab.table(1);
        table.iter().find(is_it).unwrap().clone()
    }

    fn settle(&self) -> Settled {
        self.lab.gateways[1].enter(|| settle(&scope(1), |_| true).unwrap())
    }

    /// Resets that came, whatever became of them.
    fn counted_all(&self) -> u32 {
        let invalid: u32 = self.lab.invalid_packets(1).parse().unwrap();
        self.counted("refused") + self.counted("passed") + invalid
    }

    fn counted(&self, counter: &str) -> u32 {
        let list = format!("list counter netdev guard {counter}");
        let text = self.lab.gateways[1].run("nft", &list, "");
        let mut words = text
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        words.nth(1).unwrap().parse().unwrap()
    }
}

fn tcp(entry: &Entry) -> TcpInfo {
    let ProtocolState::Tcp(tcp) = entry.state else {
        panic!("no TCP: {entry:?}");
    };
    tcp
}

fn is_closed(event: &Event) -> bool {
    let Event::Update(entry) = event else {
        return false;
    };
    matches!(entry.state, ProtocolState::Tcp(tcp) if tcp.state == tcp_state::CLOSE)
}

#[test]
fn an_idle_connection_survives_blind_resets_right_after_the_takeover() {
    let mut scene = Scene::new();
    let closed = scene.blind_resets();
    // Each of them closed it in the kernel, was dropped, and was not believed.
    assert_eq!(closed, RESETS);
    assert_eq!(scene.guard.restored(), u64::from(RESETS));
    assert_eq!(
        (scene.counted("refused"), scene.counted("passed")),
        (RESETS, 0)
    );
    let entry = scene.entry();
    assert_eq!(tcp(&entry).state, tcp_state::ESTABLISHED);
    assert!(entry.timeout_s > 200, "{entry:?}");
    scene.traffic.exchange(b"after the resets");
    scene.traffic.bulk();
    assert_eq!(scene.lab.invalid_packets(1), "0");
}

/// Goal: each connection is strict as soon as the kernel is in step with it, and no sooner.
#[test]
fn lenience_ends_with_the_first_packets_of_both_directions() {
    let mut scene = Scene::new();
    let untouched = Settled {
        learning: 8,
        ..Settled::default()
    };
    assert_eq!(scene.settle(), untouched);
    scene.traffic.exchange(b"in both directions");
    let strict = Settled {
        made_strict: 8,
        ..Settled::default()
    };
    assert_eq!(scene.settle(), strict);
    assert_eq!(scene.settle(), Settled::default());
    assert_eq!(scene.blind_resets(), 0);
    assert_eq!(scene.guard.restored(), 0);
    assert!(scene.counted("passed") <= 1);
    let entry = scene.entry();
    assert_eq!(tcp(&entry).state, tcp_state::ESTABLISHED);
    scene.traffic.exchange(b"after the resets");
    scene.traffic.bulk();
    assert!(scene.lab.invalid_packets(1).parse::<u32>().unwrap() >= RESETS - 1);
}

/// Goal: a reset that a lenient kernel lets pass does not end the connection either.
#[test]
fn a_connection_that_was_reset_before_it_became_strict_is_restored() {
    let mut scene = Scene::new();
    scene.traffic.exchange(b"in both directions");
    // Half of the numbers are ahead of what was acknowledged: lenience lets them pass, and the
    // kernel gives the connection 10 s more.
    scene.blind_resets();
    assert!(scene.entry().timeout_s < 10);
    let settled = scene.settle();
    assert_eq!((settled.restored, settled.made_strict), (1, 7));
    let entry = scene.entry();
    assert!(entry.timeout_s > 200, "{entry:?}");
    assert_eq!(
        tcp(&entry).flags.map(|flags| flags & tcp_flags::IN_STEP),
        [0; 2]
    );
    scene.traffic.exchange(b"after the resets");
    assert_eq!(scene.settle().made_strict, 1);
    scene.traffic.bulk();
}

/// The counter-test: without the guard the connection is about to end.
#[test]
fn a_reset_as_the_first_packet_closes_what_nobody_guards() {
    let scene = Scene::new();
    let (from, to) = scene.ends();
    let packet = reset::packet(from, to, 7);
    scene.lab.client.enter(|| reset::send(&packet, to));
    let entry = scene.entry();
    assert_eq!(tcp(&entry).state, tcp_state::CLOSE);
    assert!(entry.timeout_s <= 10);
    // The scan of the table finds it as well.
    assert_eq!(scene.settle().restored, 1);
    assert_eq!(tcp(&scene.entry()).state, tcp_state::ESTABLISHED);
}

/// A reset of a connection that this gateway saw from the beginning is believed.
#[test]
fn an_honest_reset_ends_a_connection_that_the_kernel_knows() {
    let mut scene = Scene::new();
    let address: SocketAddr = "10.2.0.10:7009".parse().unwrap();
    let listener = scene
        .lab
        .server
        .enter(|| TcpListener::bind(address).unwrap());
    let connect = || TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    let mut client = scene.lab.client.enter(connect);
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    pass_on(0, &mut client, &mut server, b"hello");
    let before = scene.counted_all();
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    let ended = server.read(&mut [0; 10]).unwrap_err();
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(scene.counted_all(), before + 1);
    let events = drain(&mut scene.events);
    for event in &events {
        scene.guard.observe(event, &scope(1)).unwrap();
    }
    assert_eq!(events.iter().filter(|event| is_closed(event)).count(), 1);
    assert_eq!(scene.guard.restored(), 0);
}
