//! Active FTP across a failover: the connection on which it is agreed, what is expected, the
//! connection that comes, and what is agreed afterwards. FTP's NAT changes the length of what it
//! translates, so this also shows sequence numbers adjusted in the middle of a connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, SockAddr, Socket, Type};
use vnfpool_conntrack::expectation::{
    Expectation, ExpectationInjectError, ExpectationInjector, FunctionName, dump_expectations,
    encode_expectation, encode_expectation_key,
};
use vnfpool_conntrack::{
    Entry, Fetcher, HelperName, Injector, ReadOutcome, Scope, Sink, Source, Status, enable_events,
    protocol,
};
use vnfpool_statesync::{Change, Item, SenderInput};

use crate::alike::{held, scan, told};
use crate::inject::entry;
use crate::takeover::{Lab, PATIENCE, scope};
use vnfpool_netns::Namespace;

const RULES: &str = r#"
table inet gateway {
  counter invalid { }
  counter related { }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state invalid counter name invalid drop
    ct state related counter name related accept
    ct state established accept
    iifname "in" tcp flags & (fin|syn|rst|ack) == syn ct state new accept
  }
  chain postrouting {
    type nat hook postrouting priority 100;
    oifname "out" meta l4proto tcp ip saddr 10.1.0.0/24 snat ip to 10.2.0.254:30000-40000
  }
}
"#;

/// Gives connections to port 21 their helper. Only the first gateway has it.
const HELPER_RULES: &str = r#"
table inet helpers {
  ct helper ftp { type "ftp" protocol tcp; l3proto ip; }
  chain prerouting {
    type filter hook prerouting priority -150;
    tcp dport 21 ct helper set "ftp"
  }
}
"#;

/// A control connection; both ends read and write lines.
struct Control {
    client: BufReader<TcpStream>,
    server: BufReader<TcpStream>,
}

impl Control {
    fn start(lab: &Lab) -> Self {
        let address: SocketAddr = "10.2.0.10:21".parse().unwrap();
        let listener = lab.server.enter(|| TcpListener::bind(address).unwrap());
        let connect = || TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        let client = lab.client.enter(connect);
        let (server, _) = listener.accept().unwrap();
        let [client, server] = [client, server].map(|stream| {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            BufReader::new(stream)
        });
        let mut control = Self { client, server };
        control.answer("220 hello");
        control.command("USER nobody");
        control.answer("230 welcome");
        control
    }

    /// Sends a line to the server and returns what it read.
    fn command(&mut self, line: &str) -> String {
        say(&mut self.client, &mut self.server, line)
    }

    fn answer(&mut self, line: &str) {
        assert_eq!(say(&mut self.server, &mut self.client, line), line);
    }

    /// Agrees on a data connection: the client's socket, and where the server is told to connect
    /// to.
    fn port(&mut self, lab: &Lab) -> (TcpListener, SocketAddr) {
        let listener = lab
            .client
            .enter(|| TcpListener::bind("10.1.0.10:0").unwrap());
        let [high, low] = listener.local_addr().unwrap().port().to_be_bytes();
        let told = self.command(&format!("PORT 10,1,0,10,{high},{low}"));
        self.answer("200 good");
        let numbers: Vec<u8> = told
            .strip_prefix("PORT ")
            .unwrap()
            .split(',')
            .map(|number| number.parse().unwrap())
            .collect();
        let [a, b, c, d, high, low] = numbers[..] else {
            panic!("{told}");
        };
        let told = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])));
        assert_eq!(told.ip(), "10.2.0.254".parse::<std::net::IpAddr>().unwrap());
        (listener, told)
    }
}

fn say(from: &mut BufReader<TcpStream>, to: &mut BufReader<TcpStream>, line: &str) -> String {
    from.get_mut()
        .write_all(format!("{line}\r\n").as_bytes())
        .unwrap();
    let mut read = String::new();
    to.read_line(&mut read)
        .unwrap_or_else(|error| panic!("after {line:?}: {error}"));
    read.trim_end().to_owned()
}

/// The server's data connection, from port 20 to where it was told, up to the client's end.
fn data_connection(
    lab: &Lab,
    (listener, told): &(TcpListener, SocketAddr),
) -> (TcpStream, TcpStream) {
    let server: TcpStream = lab.server.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        let port_20: SocketAddr = "10.2.0.10:20".parse().unwrap();
        socket.bind(&SockAddr::from(port_20)).unwrap();
        socket
            .connect_timeout(&SockAddr::from(*told), PATIENCE)
            .unwrap_or_else(|error| panic!("data connection to {told}: {error}"));
        socket.into()
    });
    let (client, peer) = listener.accept().unwrap();
    assert_eq!(peer, "10.2.0.10:20".parse().unwrap());
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (client, server)
}

fn transfer((client, server): &mut (TcpStream, TcpStream)) {
    for number in 0..2 {
        crate::takeover::pass_on(number, server, client, &[7; 10_000]);
        crate::takeover::pass_on(number, client, server, b"thanks");
    }
}

fn lab() -> Lab {
    let with_helper = [RULES, HELPER_RULES].concat();
    Lab::with_rules([&with_helper, RULES])
}

fn expectations(lab: &Lab, gateway: usize) -> Vec<Expectation> {
    lab.gateways[gateway].enter(|| dump_expectations().unwrap())
}

fn related_packets(lab: &Lab, gateway: usize) -> u32 {
    let text = lab.gateways[gateway].run("nft", "list counter inet gateway related", "");
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

/// From the first gateway to the second, through the items of the stream.
struct Copier {
    source: Source,
    sink: Sink,
}

impl Copier {
    fn new(lab: &Lab) -> Self {
        let [active, standby] = &lab.gateways;
        Self {
            source: active.enter(|| Source::open(scope(0), 1 << 20).unwrap()),
            sink: standby.enter(|| Sink::open(Scope::default()).unwrap()),
        }
    }

    fn run(&mut self) {
        self.take();
        // The masters are read again a moment after what they agreed on.
        std::thread::sleep(Duration::from_millis(20));
        self.take();
        assert_eq!(self.source.malformed(), 0);
    }

    /// Copies, and looks whether a sweep will find anything to mend.
    fn run_alike(&mut self, lab: &Lab) {
        self.run();
        let [active, standby] = &lab.gateways;
        assert_eq!(held(standby), told(active));
    }

    fn take(&mut self) {
        let mut inputs = Vec::new();
        while self.source.read(&mut inputs).unwrap() != ReadOutcome::Drained {}
        for input in inputs {
            match input {
                SenderInput::Change(Change::Put { item, is_new }) => {
                    self.sink.put(&item, is_new).unwrap();
                }
                SenderInput::Change(Change::Delete { key }) => self.sink.delete(&key).unwrap(),
                other => panic!("unexpected {other:?}"),
            }
        }
        self.flush();
    }

    /// The whole table instead of its changes; of the thread's namespace, which is the source's.
    fn scan(&mut self) {
        let sink = &mut self.sink;
        scan(&mut self.source, |item| sink.put(&item, true).unwrap());
        self.flush();
    }

    fn flush(&mut self) {
        self.sink.flush().unwrap();
        let failures = self.sink.take_failures();
        assert!(failures.is_empty(), "{failures:?}");
    }
}

#[test]
fn active_ftp_goes_on_through_the_other_gateway() {
    let lab = lab();
    let mut copier = Copier::new(&lab);
    let mut control = Control::start(&lab);
    // The kernel keeps one at a time for FTP: the second takes the place of the first.
    control.port(&lab);
    copier.run_alike(&lab);
    let agreed = control.port(&lab);
    copier.run_alike(&lab);

    let [expected] = &expectations(&lab, 0)[..] else {
        panic!("not one expectation");
    };
    assert_eq!(expected.helper, HelperName::new(b"ftp"));
    assert_eq!(expected.function, FunctionName::new(b"nat-follow-master"));
    let mut told = expectations(&lab, 1);
    assert!(
        told[0].timeout_s.abs_diff(expected.timeout_s) <= 2,
        "{told:?}"
    );
    told[0].timeout_s = expected.timeout_s;
    assert_eq!(&told[0], expected);
    assert_eq!(told.len(), 1);
    let adjusted = lab.table(1)[0].seq_adjust[0].unwrap();
    assert_eq!(adjusted.offset_after, 2, "each command is a byte longer");

    lab.fail_over();
    let mut data = data_connection(&lab, &agreed);
    transfer(&mut data);
    assert_eq!(related_packets(&lab, 1), 1);
    control.answer("226 transferred");
    control.command("NOOP");
    // What is agreed through the second gateway.
    let agreed = control.port(&lab);
    control.command("NOOP");
    transfer(&mut data_connection(&lab, &agreed));
    control.answer("221 bye");
    transfer(&mut data);
    assert_eq!(related_packets(&lab, 1), 2);
    assert_eq!(lab.invalid_packets(1), "0");
    assert_eq!(expectations(&lab, 1), []);
}

/// Goal: what came at the first gateway is not expected at the second any more, and what a master
/// announced goes with it.
#[test]
fn an_expectation_ends_with_its_connection_and_with_its_master() {
    let lab = lab();
    let mut copier = Copier::new(&lab);
    let mut control = Control::start(&lab);
    let agreed = control.port(&lab);
    copier.run_alike(&lab);
    assert_eq!(expectations(&lab, 1).len(), 1);
    transfer(&mut data_connection(&lab, &agreed));
    copier.run_alike(&lab);
    assert_eq!(expectations(&lab, 1), []);
    control.port(&lab);
    copier.run_alike(&lab);
    assert_eq!(expectations(&lab, 1).len(), 1);
    lab.gateways[0].run("conntrack", "-D -p tcp --dport 21", "");
    copier.run_alike(&lab);
    assert_eq!(expectations(&lab, 1), []);
}

/// Goal: a data connection from before the failover is still the one of its control connection.
#[test]
fn a_related_connection_keeps_its_master() {
    let lab = lab();
    let mut copier = Copier::new(&lab);
    let mut control = Control::start(&lab);
    let agreed = control.port(&lab);
    let mut data = data_connection(&lab, &agreed);
    transfer(&mut data);
    // From the table, in which a connection may come before its master.
    lab.gateways[0].enter(|| copier.scan());
    let mut table = lab.table(0);
    table.sort_by_key(|entry| entry.master.is_none());
    let [related, master] = &table[..] else {
        panic!("{table:?}");
    };
    assert_eq!(related.master, Some(master.key.original));
    assert_eq!(copier.sink.stats().without_master, 0);

    lab.fail_over();
    transfer(&mut data);
    control.command("NOOP");
    let ours = lab.table(1);
    let found = ours.iter().find(|entry| entry.key == related.key).unwrap();
    assert_eq!(found.master, related.master);
    assert!(found.status.has(Status::EXPECTED));
    assert_eq!(lab.invalid_packets(1), "0");
}

#[test]
fn a_connection_without_its_master_is_an_ordinary_one_until_it_changes() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let master = entry(false, protocol::TCP, 4021);
        let mut related = entry(false, protocol::TCP, 4020);
        related.master = Some(master.key.original);
        related.status.0 |= Status::EXPECTED;
        let mut injector = Injector::open().unwrap();
        let mut fetcher = Fetcher::open().unwrap();
        injector.upsert(related.clone(), true).unwrap();
        assert!(injector.flush().unwrap().is_empty());
        assert_eq!(injector.stats().without_master, 1);
        let found = fetcher.get(&related.key).unwrap().unwrap();
        assert_eq!(found.master, None);

        injector.upsert(master, true).unwrap();
        // Twice: made anew, then brought up to date.
        for mark in [5, 6] {
            let changed = Entry {
                mark,
                ..related.clone()
            };
            injector.upsert(changed, false).unwrap();
            assert!(injector.flush().unwrap().is_empty());
            let found = fetcher.get(&related.key).unwrap().unwrap();
            assert_eq!((found.master, found.mark), (related.master, mark));
        }
        let stats = injector.stats();
        assert_eq!((stats.replaced, stats.updated), (1, 1));
    });
}

#[test]
fn what_the_kernel_refuses_is_told_by_its_cause() {
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        enable_events().unwrap();
        let mut master = entry(false, protocol::TCP, 4021);
        let key = master.key;
        let mut tuple = key.original.inverse();
        tuple.layer4 = vnfpool_conntrack::Layer4::Ports { src: 0, dst: 5000 };
        let expectation = Expectation {
            key: vnfpool_conntrack::expectation::ExpectationKey {
                master: key,
                tuple,
                mask: vnfpool_conntrack::expectation::SourceMask {
                    address: "255.255.255.255".parse().unwrap(),
                    port: 0,
                },
            },
            timeout_s: 17,
            flags: 0,
            class: 0,
            translation: None,
            helper: HelperName::new(b"ftp"),
            function: None,
        };
        let mut connections = Injector::open().unwrap();
        let mut injector = ExpectationInjector::open().unwrap();
        let refused = injector.upsert(&expectation).unwrap_err();
        assert!(
            matches!(refused, ExpectationInjectError::NoMaster { .. }),
            "{refused}"
        );

        connections.upsert(master.clone(), true).unwrap();
        connections.flush().unwrap();
        let refused = injector.upsert(&expectation).unwrap_err();
        assert!(
            matches!(refused, ExpectationInjectError::NoHelper { .. }),
            "{refused}"
        );

        master.helper = HelperName::new(b"ftp");
        connections.upsert(master, true).unwrap();
        connections.flush().unwrap();
        for refused in [
            Expectation {
                function: FunctionName::new(b"no-such-function"),
                ..expectation.clone()
            },
            Expectation {
                class: 1,
                ..expectation.clone()
            },
        ] {
            let refused = injector.upsert(&refused).unwrap_err();
            assert!(
                matches!(refused, ExpectationInjectError::Refused { .. }),
                "{refused}"
            );
        }

        // Twice: the second takes the place of the first.
        injector.upsert(&expectation).unwrap();
        injector
            .upsert(&Expectation {
                timeout_s: 40,
                ..expectation.clone()
            })
            .unwrap();
        let [found] = &dump_expectations().unwrap()[..] else {
            panic!("not one expectation");
        };
        assert_eq!(found.key, expectation.key);
        assert!((38..=40).contains(&found.timeout_s), "{found:?}");
        assert!(injector.delete(&expectation.key).unwrap());
        assert!(!injector.delete(&expectation.key).unwrap());
        assert_eq!(dump_expectations().unwrap(), []);
    });
}

/// Goal: what is not brought into the kernel is not acknowledged either. Method: one expectation more
/// than wait for a flush.
#[test]
fn an_expectation_that_is_left_out_is_a_failure() {
    const EARLY_MAX: u16 = 1_024;
    let gateway = Namespace::new("gw");
    gateway.enter(|| {
        let mut sink = Sink::open(Scope::default()).unwrap();
        let master = entry(false, protocol::TCP, 4021).key;
        let mut keys = Vec::new();
        for dst in 1..=EARLY_MAX + 1 {
            let mut tuple = master.original.inverse();
            tuple.layer4 = vnfpool_conntrack::Layer4::Ports { src: 0, dst };
            let expectation = Expectation {
                key: vnfpool_conntrack::expectation::ExpectationKey {
                    master,
                    tuple,
                    mask: vnfpool_conntrack::expectation::SourceMask {
                        address: "255.255.255.255".parse().unwrap(),
                        port: 0,
                    },
                },
                timeout_s: 0,
                flags: 0,
                class: 0,
                translation: None,
                helper: HelperName::new(b"ftp"),
                function: None,
            };
            let (mut key, mut value) = (Vec::new(), Vec::new());
            encode_expectation_key(&expectation.key, &mut key);
            encode_expectation(&expectation, &mut value);
            let (key, value) = (Bytes::from(key), Bytes::from(value));
            let ttl_s = 17;
            keys.push(key.clone());
            sink.put(&Item { key, value, ttl_s }, true).unwrap();
        }
        let failures = sink.take_failures();
        let failed: Vec<_> = failures.into_iter().map(|(key, _)| key).collect();
        assert_eq!(failed, keys[usize::from(EARLY_MAX)..]);
    });
}
