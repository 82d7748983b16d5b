//! The example of a load balancer in user space, as a pool: connections stay where they are.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vnfpool_lab::Gateway::{self, Gw1, Gw2};

use crate::daemon::{Daemon, wait};
use crate::site::{PROGRAM, Site, run};

const SERVICE: &str = "10.100.0.1:80";
const BACKENDS: [&str; 3] = ["10.2.0.21", "10.2.0.22", "10.2.0.23"];
const CONNECTIONS: usize = 40;

/// Two load balancers and the backends behind them.
struct Balancers {
    instances: [RefCell<Option<Daemon>>; 2],
    backends: Vec<Backend>,
    site: Site,
}

/// Answers each byte with its own number.
struct Backend {
    takes_new: Arc<AtomicBool>,
    listener: Arc<TcpListener>,
}

impl Backend {
    fn start(site: &Site, number: u8, address: &str) -> Self {
        let address: SocketAddr = format!("{address}:80").parse().unwrap();
        let listen = || Ok(TcpListener::bind(address)?);
        let listener = site.lab.namespace("server").unwrap().run(listen);
        let listener = Arc::new(listener.unwrap());
        let takes_new = Arc::new(AtomicBool::new(true));
        let (accepts, open) = (Arc::clone(&listener), Arc::clone(&takes_new));
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepts.accept() {
                if !open.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::spawn(move || {
                    let mut asked = [0];
                    while stream.read_exact(&mut asked).is_ok() {
                        if stream.write_all(&[number]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self {
            takes_new,
            listener,
        }
    }

    /// Refuses new connections; those that there are go on.
    fn close(&self) {
        self.takes_new.store(false, Ordering::Relaxed);
        rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both).unwrap();
    }
}

impl Balancers {
    fn serving() -> Self {
        let site = Site::managed();
        let done = |host: &str, line: &str| {
            let mut words = line.split(' ');
            let mut command = site.command(host, words.next().unwrap());
            command.args(words);
            let said = run(command);
            assert_eq!(said.code, Some(0), "{line}: {said:?}");
        };
        for backend in BACKENDS {
            done("server", &format!("ip address add {backend}/24 dev eth0"));
        }
        done("server", "ip route replace 10.1.0.0/24 via 10.2.0.254");
        done("client", "ip route replace 10.100.0.1/32 via 10.1.0.254");
        let backends = (1..).zip(BACKENDS);
        let backends = backends.map(|(number, address)| Backend::start(&site, number, address));
        let backends = backends.collect();
        site.create_pool();
        for gateway in Gateway::BOTH {
            // No translation and no filter: the load balancer is the whole function.
            done(gateway.name(), "nft delete table inet gateway");
        }
        let balancers = Self {
            instances: Default::default(),
            backends,
            site,
        };
        for gateway in Gateway::BOTH {
            balancers.start(gateway);
        }
        balancers.site.wait_first();
        balancers
    }

    /// Everything on a gateway: the agent and the function.
    fn start(&self, gateway: Gateway) {
        let site = &self.site;
        let socket = site.path(&format!("{gateway}-sdk.sock"));
        let text = site
            .element_file(gateway)
            .replace("ruleset = \"inet gateway\"\n", "");
        let text = format!("{text}\n[sdk]\nsocket = \"{socket}\"\n");
        site.start_element_of(gateway, &text);
        let mut command = site.command(gateway.name(), PROGRAM);
        command.args(["lb", "--socket", &socket, "--service", SERVICE]);
        for backend in BACKENDS {
            command.args(["--backend", &format!("{backend}:80")]);
        }
        let log = site.lab.directory().join(format!("{gateway}-lb.log"));
        let daemon = Daemon::start(command, &log, &site.lab);
        *self.instances[gateway.index()].borrow_mut() = Some(daemon);
    }

    fn kill(&self, gateway: Gateway) {
        self.site.element(gateway).kill();
        let instance = self.instances[gateway.index()].borrow();
        instance.as_ref().unwrap().kill();
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let service: SocketAddr = SERVICE.parse().unwrap();
        let connect = || {
            Ok(TcpStream::connect_timeout(
                &service,
                Duration::from_secs(10),
            )?)
        };
        let stream = self.site.lab.namespace("client").unwrap().run(connect);
        let stream = stream.map_err(std::io::Error::other)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    }

    /// Waits until new connections never reach the backend.
    fn wait_without(&self, backend: u8) {
        wait("the set of backends without one", || {
            let reached = (0..10).map(|_| ask(&self.connect().ok()?));
            let reached: Option<Vec<u8>> = reached.collect();
            reached.filter(|all| !all.contains(&backend))
        });
    }
}

/// The number of the backend at the other end.
fn ask(mut stream: &TcpStream) -> Option<u8> {
    let mut answer = [0];
    stream.write_all(b"?").ok()?;
    stream.read_exact(&mut answer).ok()?;
    Some(answer[0])
}

/// Goal: every connection goes on at its backend when everything on the active dies, also one at a backend
/// that new connections do not get any more, and when the other instance takes over from it. Method: many
/// connections over three backends, of which one stops to take new ones before the first takeover.
#[test]
fn every_connection_stays_with_its_backend() {
    let pool = Balancers::serving();
    // The backends are seen within a second of the start.
    let first = wait("a connection", || {
        pool.connect().ok().filter(|s| ask(s).is_some())
    });
    let mut connections = vec![first];
    connections.extend((1..CONNECTIONS).map(|_| pool.connect().unwrap()));
    let before: Vec<_> = connections.iter().map(ask).collect();
    for number in [1, 2, 3] {
        assert!(
            before.contains(&Some(number)),
            "none at {number}: {before:?}"
        );
    }
    pool.backends[2].close();
    pool.wait_without(3);

    pool.kill(Gw1);
    pool.site.wait_owner(Gw2);
    let after: Vec<_> = connections.iter().map(ask).collect();
    assert_eq!(after, before, "after the death of {Gw1}");
    // New ones are served as well, once this instance too has seen that a backend takes none.
    connections.push(wait("a new connection", || pool.connect().ok()));
    let before: Vec<_> = connections.iter().map(ask).collect();

    pool.start(Gw1);
    pool.site.wait_armed();
    pool.kill(Gw2);
    pool.site.wait_owner(Gw1);
    let after: Vec<_> = connections.iter().map(ask).collect();
    assert_eq!(after, before, "after the death of {Gw2}");
    pool.site.ends_well();
}
