//! Active FTP across takeovers: what a client has asked for through one gateway comes through the
//! other one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use vnfpool_conntrack::expectation::{ExpectationKey, dump_expectations};
use vnfpool_conntrack::{Entry, Family, Layer4, SeqAdjust, Tuple, dump_all};
use vnfpool_lab::Gateway::{self, Gw1, Gw2};
use vnfpool_lab::{SERVER_V4, VIP_OUTSIDE_V4};

use crate::daemon::wait;
use crate::site::{Site, run};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 10));
const CONTROL_PORT: u16 = 21;
const DATA_PORT: u16 = 20;

/// A takeover and some repetitions of a lost segment.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections to FTP's port get its helper, as an operator says it beside the gateway's rules.
const HELPER_RULES: &str = r#"
table inet helpers {
  ct helper ftp { type "ftp" protocol tcp; l3proto ip; }
  chain prerouting {
    type filter hook prerouting priority -150;
    tcp dport 21 ct helper set "ftp"
  }
}
"#;

/// A gateway pool whose members help FTP; gw1 serves, gw2 is armed.
fn helping() -> Site {
    let site = Site::managed();
    for gateway in Gateway::BOTH {
        let mut nft = site.command(gateway.name(), "nft");
        nft.arg(HELPER_RULES);
        let said = run(nft);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    site.create_pool();
    site.start_pool();
    site
}

/// A control connection; both ends read and write lines.
struct Control<'a> {
    site: &'a Site,
    client: BufReader<TcpStream>,
    server: BufReader<TcpStream>,
}

/// A data connection that was agreed: where the client waits, and where the server was told to call.
struct Agreed {
    listener: TcpListener,
    told: SocketAddr,
}

impl<'a> Control<'a> {
    fn open(site: &'a Site) -> Self {
        let address = SocketAddr::new(SERVER_V4, CONTROL_PORT);
        let listen = || Ok(TcpListener::bind(address)?);
        let listener = site.lab.namespace("server").unwrap().run(listen).unwrap();
        let connect = || Ok(TcpStream::connect_timeout(&address, PATIENCE)?);
        let client = site.lab.namespace("client").unwrap().run(connect).unwrap();
        let (server, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), IpAddr::V4(VIP_OUTSIDE_V4));
        let [client, server] = [client, server].map(|stream| {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            BufReader::new(stream)
        });
        let mut control = Self {
            site,
            client,
            server,
        };
        control.answer("220 hello");
        // The helper does not read the first line of a direction.
        control.command("USER nobody");
        control.answer("230 welcome");
        control
    }

    /// Sends a line to the server and returns what came there.
    fn command(&mut self, line: &str) -> String {
        say(&mut self.client, &mut self.server, line)
    }

    fn answer(&mut self, line: &str) {
        assert_eq!(say(&mut self.server, &mut self.client, line), line);
    }

    /// Agrees on a data connection: the server is told the virtual address instead of the client's.
    fn port(&mut self) -> Agreed {
        let listen = || Ok(TcpListener::bind(SocketAddr::new(CLIENT, 0))?);
        let client = self.site.lab.namespace("client").unwrap();
        let listener = client.run(listen).unwrap();
        let [high, low] = listener.local_addr().unwrap().port().to_be_bytes();
        let told = self.command(&format!("PORT 10,1,0,10,{high},{low}"));
        self.answer("200 good");
        let numbers = told.strip_prefix("PORT ").unwrap().split(',');
        let numbers: Vec<u8> = numbers.map(|number| number.parse().unwrap()).collect();
        let [a, b, c, d, high, low] = numbers.try_into().unwrap();
        let told = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])));
        assert_eq!(told.ip(), IpAddr::V4(VIP_OUTSIDE_V4), "not translated");
        Agreed { listener, told }
    }

    /// The same, and waits until the standby expects it as the active does.
    fn port_known_to_both(&mut self) -> Agreed {
        let agreed = self.port();
        wait("the expected connection at the standby", || {
            let [one, two] = Gateway::BOTH.map(|gateway| expected(self.site, gateway));
            (one.is_some() && one == two).then_some(())
        });
        agreed
    }

    /// The server calls the client, through the gateway that serves now, where it has to be a connection
    /// that belongs to this one.
    fn data(&mut self, agreed: &Agreed, through: Gateway) -> Data {
        let call = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(SERVER_V4, DATA_PORT).into())?;
            socket.connect_timeout(&agreed.told.into(), PATIENCE)?;
            Ok(TcpStream::from(socket))
        };
        let server = self.site.lab.namespace("server").unwrap().run(call);
        let server = server.expect("the data connection comes through");
        let (client, from) = agreed.listener.accept().unwrap();
        assert_eq!(from, SocketAddr::new(SERVER_V4, DATA_PORT));
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let entries = table(self.site, through);
        let master = entries.iter().find(|one| is_to(one, CONTROL_PORT)).unwrap();
        let is_data =
            |one: &&Entry| one.key.original.layer4 == ports(DATA_PORT, agreed.told.port());
        let data = entries.iter().find(is_data).expect("it is tracked");
        assert_eq!(data.master, Some(master.key.original));
        let data = Data { client, server };
        data.goes_on();
        data
    }
}

/// Both ends of a data connection.
struct Data {
    client: TcpStream,
    server: TcpStream,
}

impl Data {
    fn goes_on(&self) {
        let file = [7; 10_000];
        let Self { client, server } = self;
        for (mut from, mut to) in [(server, client), (client, server)] {
            from.write_all(&file).unwrap();
            let mut read = vec![0; file.len()];
            to.read_exact(&mut read).unwrap();
            assert_eq!(read, file);
        }
    }
}

fn say(from: &mut BufReader<TcpStream>, to: &mut BufReader<TcpStream>, line: &str) -> String {
    from.get_mut()
        .write_all(format!("{line}\r\n").as_bytes())
        .unwrap();
    let mut read = String::new();
    let answered = to.read_line(&mut read);
    assert!(answered.is_ok(), "after {line:?}: {answered:?}");
    read.trim_end().to_owned()
}

/// What a gateway's kernel expects, and by how much it has moved the control connection's sequence
/// numbers; none without both.
fn expected(
    site: &Site,
    gateway: Gateway,
) -> Option<(Vec<ExpectationKey>, [Option<SeqAdjust>; 2])> {
    let namespace = site.lab.namespace(gateway.name()).unwrap();
    let expectations = namespace.run(|| Ok(dump_expectations()?)).unwrap();
    let keys: Vec<_> = expectations.iter().map(|one| one.key).collect();
    let entries = table(site, gateway);
    let control = entries.iter().find(|one| is_to(one, CONTROL_PORT))?;
    (!keys.is_empty()).then_some((keys, control.seq_adjust))
}

fn table(site: &Site, gateway: Gateway) -> Vec<Entry> {
    let namespace = site.lab.namespace(gateway.name()).unwrap();
    namespace.run(|| Ok(dump_all(Family::V4)?)).unwrap()
}

fn is_to(entry: &Entry, port: u16) -> bool {
    let Tuple { dst, layer4, .. } = entry.key.original;
    dst == SERVER_V4 && matches!(layer4, Layer4::Ports { dst, .. } if dst == port)
}

const fn ports(src: u16, dst: u16) -> Layer4 {
    Layer4::Ports { src, dst }
}

/// Goal: a client that has asked for a data connection gets it although the gateway that has read the
/// request is gone, be it lost or replaced on purpose; what it asks for afterwards it gets as well, and
/// what was open goes on. Method: the helper moves the control connection's sequence numbers with each
/// request, so the lines after a takeover come only if the new active knows by how much.
#[test]
fn active_ftp_goes_on_through_the_other_gateway() {
    let site = helping();
    let mut control = Control::open(&site);
    // The kernel keeps one at a time for FTP: the second takes the place of the first.
    control.port_known_to_both();
    let agreed = control.port_known_to_both();
    site.element(Gw1).kill();
    site.wait_owner(Gw2);
    let first = control.data(&agreed, Gw2);
    control.answer("226 transferred");
    let agreed = control.port();
    let second = control.data(&agreed, Gw2);

    site.start_element(Gw1);
    site.wait_armed();
    let agreed = control.port_known_to_both();
    site.operate(&["switchover", "edge", "--to", "gw1"]);
    site.wait_owner(Gw1);
    control.data(&agreed, Gw1);
    let agreed = control.port();
    control.data(&agreed, Gw1);
    first.goes_on();
    second.goes_on();
    assert_eq!(control.command("QUIT"), "QUIT");
    control.answer("221 bye");
    site.ends_well();
}
