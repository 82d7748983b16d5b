//! Connections whose handshake is cut in two by the failover: the first gateway sees the SYN, the
//! second its answer and all that comes later.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use vnfpool_conntrack::{
    Entry, EventSource, Family, ProtocolState, Scope, Sink, TcpInfo, dump_all, protocol, settle,
    tcp_flags, tcp_state,
};
use vnfpool_netns::{Namespace, set};

use crate::alike::{held, told};
use crate::takeover::{Lab, PATIENCE, drain, replicate, scope};

/// The answer gets no further, and conntrack does not see it.
const NO_ANSWER: &str = "
table inet silence {
  counter answers { }
  chain before {
    type filter hook prerouting priority raw;
    iifname \"out\" meta l4proto tcp counter name answers drop
  }
}";
/// Nothing but the server repeats its part of the handshake.
const NO_SYN: &str = "
table inet silence {
  chain before {
    type filter hook prerouting priority raw;
    iifname \"in\" tcp flags & (syn|ack) == syn drop
  }
}";
const SERVER: &str = "10.2.0.10:7001";
/// What the receiver's window has room for only with its scale.
const BYTES: usize = 16 << 20;

/// A connection that was taken over in the state SYN_SENT, established by now.
struct Split {
    lab: Lab,
    client: TcpStream,
    server: TcpStream,
}

impl Split {
    /// `rules` are of the second gateway; the server's side scales its windows if `scales`.
    fn new(rules: &str, scales: bool) -> Self {
        let lab = Lab::new();
        if !scales {
            lab.server.enter(|| set("ipv4/tcp_window_scaling", "0"));
        }
        lab.gateways[0].run("nft", "-f -", NO_ANSWER);
        lab.gateways[1].run("nft", "-f -", rules);
        let mut source = lab.gateways[0].enter(|| EventSource::open(1 << 20).unwrap());
        let mut sink = lab.gateways[1].enter(|| Sink::open(Scope::default()).unwrap());
        let server: SocketAddr = SERVER.parse().unwrap();
        let listener = lab.server.enter(|| TcpListener::bind(server).unwrap());
        let begun = begin(&lab);
        replicate(&drain(&mut source), &mut sink);

        let [active, standby] = &lab.gateways;
        assert_eq!(tcp(active).state, tcp_state::SYN_SENT);
        assert_eq!(tcp(standby).state, tcp_state::SYN_SENT);
        assert_eq!(held(standby), told(active));
        lab.fail_over();
        listener.set_nonblocking(true).unwrap();
        let (server, _) = wait(|| listener.accept().ok());
        server.set_nonblocking(false).unwrap();
        begun.set_nonblocking(false).unwrap();
        let client = TcpStream::from(begun);
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        Self {
            lab,
            client,
            server,
        }
    }

    /// More than a window in each direction, leniently and strictly, and how the second gateway
    /// tracks it then.
    fn bulk(&mut self) -> TcpInfo {
        let gateway = &self.lab.gateways[1];
        for made_strict in [1, 0] {
            pour(&mut self.server, &mut self.client);
            pour(&mut self.client, &mut self.server);
            assert_eq!(self.lab.invalid_packets(1), "0");
            let settled = gateway.enter(|| settle(&scope(1), |_| true).unwrap());
            assert_eq!((settled.made_strict, settled.learning), (made_strict, 0));
        }
        let tcp = tcp(gateway);
        let lenient = |flags: &u8| flags & tcp_flags::BE_LIBERAL != 0;
        assert!(!tcp.flags.iter().any(lenient), "{tcp:?}");
        tcp
    }
}

/// A connection to the server, which has answered through the first gateway in vain.
fn begin(lab: &Lab) -> Socket {
    let client = lab
        .client
        .enter(|| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    client.set_nonblocking(true).unwrap();
    let server: SocketAddr = SERVER.parse().unwrap();
    // It is in progress.
    client.connect(&SockAddr::from(server)).unwrap_err();
    let answers = || lab.gateways[0].run("nft", "list counter inet silence answers", "");
    wait(|| (!answers().contains("packets 0 ")).then_some(()));
    client
}

fn pour(from: &mut TcpStream, to: &mut TcpStream) {
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| from.write_all(&vec![7; BYTES]));
        to.read_exact(&mut vec![0; BYTES]).unwrap();
        sender.join().unwrap().unwrap();
    });
}

/// What `look` finds in the end.
fn wait<T>(look: impl Fn() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "the handshake does not go on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The only TCP connection of a gateway.
fn tcp(gateway: &Namespace) -> TcpInfo {
    let table = gateway.enter(|| dump_all(Family::V4).unwrap());
    let is_tcp = |entry: &&Entry| entry.key.original.protocol == protocol::TCP;
    let entries: Vec<_> = table.iter().filter(is_tcp).collect();
    match entries[..] {
        [
            &Entry {
                state: ProtocolState::Tcp(tcp),
                ..
            },
        ] => tcp,
        _ => panic!("not one connection: {entries:?}"),
    }
}

/// Goal: the answer to a SYN passes, and the scales of both are kept, when the gateway is replaced
/// between them. Method: either the server repeats its answer, or the client its SYN as well.
#[test]
fn a_connection_taken_over_before_the_answer_to_its_syn_keeps_its_windows() {
    for rules in [NO_SYN, ""] {
        let tcp = Split::new(rules, true).bulk();
        assert!(tcp.window_scale.iter().all(|scale| *scale > 0), "{tcp:?}");
    }
}

/// Goal: a scale that the server does not agree to is of no effect either.
#[test]
fn a_connection_taken_over_before_its_scale_is_refused_goes_on_without() {
    for rules in [NO_SYN, ""] {
        let tcp = Split::new(rules, false).bulk();
        assert_eq!(tcp.window_scale, [0; 2], "{tcp:?}");
    }
}

/// Goal: a copy made before the answer has no scale either when the answer refused it.
#[test]
fn a_copy_forgets_a_scale_that_is_refused() {
    let lab = Lab::new();
    lab.server.enter(|| set("ipv4/tcp_window_scaling", "0"));
    let [active, standby] = &lab.gateways;
    active.run("nft", "-f -", NO_ANSWER);
    let mut source = active.enter(|| EventSource::open(1 << 20).unwrap());
    let mut sink = standby.enter(|| Sink::open(Scope::default()).unwrap());
    let server: SocketAddr = SERVER.parse().unwrap();
    let _listener = lab.server.enter(|| TcpListener::bind(server).unwrap());
    let client = begin(&lab);
    replicate(&drain(&mut source), &mut sink);
    assert!(tcp(standby).window_scale[0] > 0);
    active.run("nft", "-f -", "delete table inet silence");
    wait(|| client.peer_addr().ok());
    replicate(&drain(&mut source), &mut sink);
    assert_eq!(tcp(standby).state, tcp_state::ESTABLISHED);
    assert_eq!(tcp(standby).window_scale, [0; 2]);
    assert_eq!(held(standby), told(active));
}
