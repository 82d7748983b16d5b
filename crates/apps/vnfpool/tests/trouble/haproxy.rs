//! A function with a synchronisation of its own: the example of HAProxy, as it is in `packaging`,
//! between two real instances (needs `haproxy`).

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use vnfpool_lab::Gateway::{self, Gw1, Gw2};
use vnfpool_lab::SERVER_V4;

use crate::daemon::{Daemon, wait};
use crate::site::{PROGRAM, Site, run};

const EXAMPLES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../packaging/examples/haproxy"
);
/// The second server is the one that a client gets only by the stick table: the first request to an
/// instance without one goes to the first server.
const SERVERS: [(u16, &str); 2] = [(8081, "one"), (8082, "two")];

/// A pool of two HAProxys and two web servers behind them.
struct Proxies {
    instances: [RefCell<Option<Daemon>>; 2],
    site: Site,
}

impl Proxies {
    /// gw1 serves, gw2 is armed, both know their servers and each other.
    fn serving() -> Self {
        let site = Site::managed();
        for (port, name) in SERVERS {
            let listen = || Ok(TcpListener::bind((SERVER_V4, port))?);
            let listener = site.lab.namespace("server").unwrap().run(listen).unwrap();
            std::thread::spawn(move || serve(&listener, name));
        }
        let pool = Self {
            instances: Default::default(),
            site,
        };
        for gateway in Gateway::BOTH {
            pool.prepare(gateway);
            pool.start_proxy(gateway);
        }
        pool.site.create_pool_of(&example("pool.toml"));
        for gateway in Gateway::BOTH {
            pool.start_agent(gateway);
        }
        pool.site.wait_first();
        for gateway in Gateway::BOTH {
            wait("the servers and the other instance", || {
                let info = pool.ask(gateway, "show info")?;
                let state = pool.ask(gateway, "show stat servers 4 -1")?;
                let up = state.lines().filter(|line| line.contains(",UP,")).count();
                (up == SERVERS.len() && info.contains("ConnectedPeers: 1")).then_some(())
            });
        }
        pool
    }

    /// The host as the operator sets it up, without a gateway's rules.
    fn prepare(&self, gateway: Gateway) {
        let rules = format!("{EXAMPLES}/proxy.nft");
        for (program, arguments) in [
            ("nft", vec!["delete", "table", "inet", "gateway"]),
            ("nft", vec!["-f", &rules]),
            ("sysctl", vec!["-q", "net.ipv4.ip_nonlocal_bind=1"]),
        ] {
            let mut command = self.site.command(gateway.name(), program);
            command.args(arguments);
            let said = run(command);
            assert_eq!(said.code, Some(0), "{said:?}");
        }
    }

    fn file(&self, gateway: Gateway, suffix: &str) -> String {
        self.site.path(&format!("{gateway}-proxy.{suffix}"))
    }

    fn start_proxy(&self, gateway: Gateway) {
        let socket = self.file(gateway, "sock");
        let config = example("haproxy.cfg").replace("/run/haproxy/admin.sock", &socket);
        fs::write(self.file(gateway, "cfg"), config).unwrap();
        let mut command = self.site.command(gateway.name(), "haproxy");
        command.args([
            "-db",
            "-L",
            gateway.name(),
            "-f",
            &self.file(gateway, "cfg"),
        ]);
        let log = self
            .site
            .lab
            .directory()
            .join(format!("{gateway}-proxy.log"));
        let daemon = Daemon::start(command, &log, &self.site.lab);
        wait("the instance's process", || {
            let info = self.ask(gateway, "show info")?;
            let pid = info.lines().find_map(|line| line.strip_prefix("Pid: "))?;
            fs::write(self.file(gateway, "pid"), pid).ok()
        });
        *self.instances[gateway.index()].borrow_mut() = Some(daemon);
    }

    fn start_agent(&self, gateway: Gateway) {
        let number = gateway.index() + 1;
        let text = example("element.toml")
            .replace("\"gw1\"", &format!("\"{gateway}\""))
            .replace("host-1", &format!("host-{number}"))
            .replace("10.1.0.1\"", &format!("10.1.0.{number}\""))
            .replace("10.3.0.1\"", &format!("10.3.0.{number}\""))
            .replace("10.9.0.11\"", &format!("10.9.0.1{number}\""))
            .replace("/run/haproxy/admin.sock", &self.file(gateway, "sock"))
            .replace("/run/haproxy.pid", &self.file(gateway, "pid"))
            .replace("/var/lib/vnfpool/element", &self.site.path(gateway.name()));
        self.site.start_element_of(gateway, &text);
    }

    /// What an instance answers to a line on its socket; none while it does not.
    fn ask(&self, gateway: Gateway, line: &str) -> Option<String> {
        let path = self.file(gateway, "sock");
        let timeout = Duration::from_secs(5);
        vnfpool_linux::control_socket::ask(Path::new(&path), line, timeout).ok()
    }

    fn kill_proxy(&self, gateway: Gateway) {
        self.instances[gateway.index()]
            .borrow()
            .as_ref()
            .unwrap()
            .kill();
    }

    /// A client with a connection to the address.
    fn client(&self, from: &str) -> std::io::Result<Client> {
        let from: SocketAddr = format!("{from}:0").parse().unwrap();
        let connect = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&from.into())?;
            let address: SocketAddr = "10.1.0.254:80".parse().unwrap();
            socket.connect_timeout(&address.into(), Duration::from_secs(10))?;
            Ok(TcpStream::from(socket))
        };
        let stream = self.site.lab.namespace("client").unwrap().run(connect);
        let stream = stream.map_err(std::io::Error::other)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Client {
            reader: BufReader::new(stream),
        })
    }

    /// The server that a client's first request on a connection of its own gets.
    fn server_of(&self, from: &str) -> std::io::Result<String> {
        Ok(self.client(from)?.get()?.0)
    }

    /// Waits until an instance has the client's entry from the other one, or of its own.
    fn wait_stuck(&self, gateway: Gateway, client: &str, server: &str) {
        wait("the client's entry in the stick table", || {
            let table = self.ask(gateway, "show table servers")?;
            let mut entries = table.lines();
            let entry = entries.find(|line| line.contains(&format!("key={client} ")))?;
            entry
                .contains(&format!("server_key={server}"))
                .then_some(())
        });
    }
}

struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// The body of an answer, and whether the connection goes on.
    fn get(&mut self) -> std::io::Result<(String, bool)> {
        let request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
        self.reader.get_mut().write_all(request)?;
        let (mut length, mut goes_on) = (0, true);
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().map_err(std::io::Error::other)?;
            }
            goes_on &= line != "connection: close";
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok((String::from_utf8(body).unwrap(), goes_on))
    }
}

/// A web server that says its name, one connection after the other is enough.
fn serve(listener: &TcpListener, name: &'static str) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
                let is_end = line.trim().is_empty();
                line.clear();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{name}");
                if is_end && reader.get_mut().write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
    }
}

/// An example, with the pool's name that the site knows.
fn example(name: &str) -> String {
    let text = fs::read_to_string(format!("{EXAMPLES}/{name}")).unwrap();
    text.replace("\"web\"", "\"edge\"")
}

const CLIENT: &str = "10.1.0.10";
const OTHER_CLIENT: &str = "10.1.0.20";

/// Goal: the address moves when the process of an instance dies, when everything on its gateway
/// dies, and when the operator wants it; new connections are served at once, by the server that
/// the client had: HAProxy's own synchronisation works across all of it. A connection that is
/// open in a planned change is told to close, and none is replicated by us. Method: the client is
/// made to stick to the server that it would not get by itself.
#[test]
fn haproxy_moves_with_what_it_knows() {
    let pool = Proxies::serving();
    let site = &pool.site;
    let mut add = site.command("client", "ip");
    add.args(["addr", "add", &format!("{OTHER_CLIENT}/24"), "dev", "eth0"]);
    assert_eq!(run(add).code, Some(0));
    let mut clients = [CLIENT, OTHER_CLIENT].map(|c| (c, pool.server_of(c).unwrap()));
    clients.sort_by(|a, b| b.1.cmp(&a.1));
    let [(client, second), (_, first)] = clients;
    assert_eq!(
        (&*first, &*second),
        ("one", "two"),
        "in turn, as configured"
    );
    for gateway in Gateway::BOTH {
        pool.wait_stuck(gateway, client, "two");
    }

    // The process dies, its agent lives.
    pool.kill_proxy(Gw1);
    site.wait_owner(Gw2);
    assert_eq!(
        pool.server_of(client).unwrap(),
        "two",
        "after the process's death"
    );
    pool.start_proxy(Gw1);
    pool.wait_stuck(Gw1, client, "two");
    wait("a standby that is able", || {
        let status = site.status();
        let elements = status["pools"][0]["elements"].as_array()?;
        let all = elements.iter().all(|element| element["able"] == true);
        all.then_some(())
    });
    site.wait_armed();

    // A planned change: an open connection is ended after an answer, not in the middle of one.
    let mut open = pool.client(client).unwrap();
    assert_eq!(open.get().unwrap(), ("two".to_owned(), true));
    let mut operator = site.command("manager", PROGRAM);
    operator.args(["switchover", "edge", "--to", "gw1", "--admin"]);
    operator.arg(site.path("manager/operator"));
    let mut operator = operator.spawn().unwrap();
    // An address that moves under it would be an error here.
    while open.get().unwrap().1 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(operator.wait().unwrap().success());
    site.wait_owner(Gw1);
    assert_eq!(
        pool.server_of(client).unwrap(),
        "two",
        "after a planned change"
    );
    wait("the end of draining", || {
        let state = pool.ask(Gw2, "show servers state control")?;
        let server = state.lines().find(|line| line.contains(" serves "))?;
        // srv_admin_state: not in maintenance.
        (server.split(' ').nth(6)? == "0").then_some(())
    });

    // Everything on the active's gateway dies.
    site.wait_armed();
    site.element(Gw1).kill();
    pool.kill_proxy(Gw1);
    site.wait_owner(Gw2);
    assert_eq!(
        pool.server_of(client).unwrap(),
        "two",
        "after the gateway's death"
    );
    let mut list = site.command("gw2", "conntrack");
    list.args(["-L", "-p", "tcp"]);
    let tracked = run(list).stdout;
    assert!(!tracked.contains("dport=80 "), "{tracked}");
    site.ends_well();
}
