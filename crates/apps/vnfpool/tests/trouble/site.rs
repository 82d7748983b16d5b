//! A laboratory with a manager and a pool of two gateways, and one connection through them.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use vnfpool_lab::{Gateway, Lab, Observer, SERVER_V4};

use crate::daemon::{Daemon, inside, wait};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_vnfpool");
const CONTROL_PORT: u16 = 7400;
/// Where a program's and a manager's `/metrics` are, inside their namespaces.
pub(crate) const METRICS_PORT: u16 = 9401;
const ECHO_PORT: u16 = 5001;

/// What a program that has ended said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Fields are dropped in order: the laboratory goes last.
pub(crate) struct Site {
    pub(crate) observer: Observer,
    elements: [RefCell<Option<Daemon>>; 2],
    manager: RefCell<Option<Daemon>>,
    /// The manager's control endpoint.
    pub(crate) control: String,
    /// Set for each daemon; `{host}` in a value is its host.
    pub(crate) environment: RefCell<Vec<(String, String)>>,
    pub(crate) lab: Lab,
}

impl Site {
    /// A laboratory with a manager that is set up but does not run.
    pub(crate) fn prepared() -> Self {
        Self::prepared_at(IpAddr::from([10, 9, 0, 10]))
    }

    /// The same, with an address of its own choice.
    pub(crate) fn prepared_at(address: IpAddr) -> Self {
        // What an interrupted earlier test has left behind.
        Lab::clean_stale(false).unwrap();
        let lab = Lab::build().unwrap();
        let site = Self {
            observer: Observer::start(&lab).unwrap(),
            elements: Default::default(),
            manager: RefCell::default(),
            control: SocketAddr::new(address, CONTROL_PORT).to_string(),
            environment: RefCell::default(),
            lab,
        };
        let dir = site.path("manager");
        let said = site.program(
            "manager",
            &[
                "manager",
                "init",
                "--dir",
                &dir,
                "--trust-domain",
                "lab.example",
                "--address",
                &address.to_string(),
            ],
        );
        assert_eq!(said.code, Some(0), "{said:?}");
        let config = site.lab.directory().join("manager/manager.toml");
        let mut text = fs::read_to_string(&config).unwrap();
        text.push_str(&format!(
            "\n[metrics]\nlisten = \"127.0.0.1:{METRICS_PORT}\"\n"
        ));
        fs::write(config, text).unwrap();
        site
    }

    /// With a running manager, and no pool.
    pub(crate) fn managed() -> Self {
        let site = Self::prepared();
        site.start_manager();
        site
    }

    /// With the pool `edge` and both elements enrolled, none of them running.
    pub(crate) fn enrolled() -> Self {
        let site = Self::managed();
        site.create_pool();
        site
    }

    /// The pool serves: gw1 active, gw2 armed.
    pub(crate) fn serving() -> Self {
        let site = Self::prepared();
        site.start_all();
        site
    }

    /// From prepared to serving.
    pub(crate) fn start_all(&self) {
        self.start_manager();
        self.create_pool();
        self.start_pool();
    }

    /// Creates the pool `edge` and enrols both elements.
    pub(crate) fn create_pool(&self) {
        self.create_pool_of(&pool_file("edge", ["inside", "outside"], 1));
    }

    /// Creates the pool `edge` as a file says, and enrols both elements.
    pub(crate) fn create_pool_of(&self, text: &str) {
        let pool = self.write("pool.toml", text);
        self.operate(&["pool", "apply", "-f", &pool]);
        for gateway in Gateway::BOTH {
            let token = self.operate(&[
                "token",
                "create",
                "--pool",
                "edge",
                "--element",
                gateway.name(),
            ]);
            let said = self.join(gateway, gateway.name(), token.trim());
            assert_eq!(said.code, Some(0), "{said:?}");
        }
    }

    /// Starts both elements and waits until gw1 serves with gw2 armed.
    pub(crate) fn start_pool(&self) {
        self.start_element(Gateway::Gw1);
        self.start_element(Gateway::Gw2);
        self.wait_first();
    }

    /// Waits until gw1 serves with gw2 armed, whoever of the two has come first.
    pub(crate) fn wait_first(&self) {
        self.wait_armed();
        if self.active().as_deref() != Some("gw1") {
            self.operate(&["switchover", "edge", "--to", "gw1"]);
        }
        self.wait_owner(Gateway::Gw1);
    }

    /// A path in the laboratory's directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.lab.directory().join(name).display().to_string()
    }

    /// Writes a file into the laboratory's directory and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.lab.directory().join(name), text).unwrap();
        self.path(name)
    }

    /// `program` as a command in the namespace of a host.
    pub(crate) fn command(&self, host: &str, program: &str) -> Command {
        inside(self.lab.namespace(host).unwrap().name(), program)
    }

    /// One of our daemons as a command.
    pub(crate) fn daemon(&self, host: &str) -> Command {
        let mut command = self.command(host, PROGRAM);
        for (name, value) in self.environment.borrow().iter() {
            command.env(name, value.replace("{host}", host));
        }
        command
    }

    /// Lets nothing out of a gateway to or from some UDP ports, until [`Site::unblock`].
    pub(crate) fn block(&self, gateway: Gateway, ports: &str) {
        let rules = format!(
            "add table inet apart; \
             add chain inet apart out {{ type filter hook output priority 0; }}; \
             add rule inet apart out udp dport {{ {ports} }} drop; \
             add rule inet apart out udp sport {{ {ports} }} drop"
        );
        let mut nft = self.command(gateway.name(), "nft");
        nft.arg(rules);
        assert_eq!(run(nft).code, Some(0));
    }

    pub(crate) fn unblock(&self, gateway: Gateway) {
        let mut nft = self.command(gateway.name(), "nft");
        nft.arg("delete table inet apart");
        assert_eq!(run(nft).code, Some(0));
    }

    /// Runs our program on a host, to its end.
    pub(crate) fn program(&self, host: &str, arguments: &[&str]) -> Said {
        let mut command = self.command(host, PROGRAM);
        command.args(arguments);
        run(command)
    }

    /// An operator's command, whatever comes of it.
    pub(crate) fn try_operate(&self, arguments: &[&str]) -> Said {
        let admin = self.path("manager/operator");
        self.program("manager", &[arguments, &["--admin", &admin]].concat())
    }

    /// An operator's command that has to work.
    pub(crate) fn operate(&self, arguments: &[&str]) -> String {
        let said = self.try_operate(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        said.stdout
    }

    /// An operator's command that has to be refused; what it said.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let said = self.try_operate(arguments);
        assert_eq!(said.code, Some(1), "{arguments:?}: {said:?}");
        // Warnings may come before it.
        let errors = said.stderr.lines().filter(|l| l.starts_with("error: "));
        assert!(errors.count() > 0, "{said:?}");
        said.stderr
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.operate(&["status", "--json"])).unwrap()
    }

    /// The only slot of pool `edge`; none while the manager does not answer.
    pub(crate) fn slot(&self) -> Option<Value> {
        let said = self.try_operate(&["status", "edge", "--json"]);
        let status: Value = serde_json::from_str(&said.stdout).ok()?;
        Some(status["pools"][0]["slots"][0].clone())
    }

    pub(crate) fn active(&self) -> Option<String> {
        self.slot()?["active"].as_str().map(ToOwned::to_owned)
    }

    /// Whether the manager has a control connection of an element.
    pub(crate) fn is_connected(&self, element: &str) -> bool {
        let name = format!("element=\"{element}\"");
        self.metric("manager", "vnfpool_element_connected", &name) == 1.0
    }

    /// Waits until the manager knows who serves: right after its start it has to be told.
    pub(crate) fn wait_active(&self, element: &str) {
        wait(&format!("{element} as the active in status"), || {
            (self.active().as_deref() == Some(element)).then_some(())
        });
    }

    /// Does what must not make anybody else serve. A machine that stands still for a lease, below
    /// all these tests, makes a failover, and that is right: so it is done again after one, and
    /// only what never goes without one is wrong.
    pub(crate) fn changes_nothing(&self, mut action: impl FnMut()) {
        const ATTEMPTS: usize = 4;
        for _ in 0..ATTEMPTS {
            self.wait_armed();
            let before = self.course();
            action();
            self.wait_armed();
            if self.course() == before {
                return;
            }
        }
        assert_eq!(ATTEMPTS, 0, "each time the slot went to somebody else");
    }

    /// Who serves, and how many failovers the running elements have seen. The term is not of it:
    /// an active that goes on alone for a moment is no change.
    fn course(&self) -> (Option<String>, f64) {
        let failovers = |gateway: Gateway| {
            let cause = "cause=\"failover\"";
            self.metric(gateway.name(), "vnfpool_role_changes_total", cause)
        };
        let failovers = Gateway::BOTH.map(failovers).iter().sum();
        (self.active(), failovers)
    }

    pub(crate) fn wait_armed(&self) {
        wait("an armed successor", || {
            (self.slot()?["armed"] == true).then_some(())
        });
    }

    /// Waits until one gateway, and nobody else, answers for the virtual address.
    pub(crate) fn wait_owner(&self, gateway: Gateway) {
        wait(&format!("{gateway} as the owner"), || {
            (self.observer.owners_now() == [gateway]).then_some(())
        });
    }

    pub(crate) fn start_manager(&self) {
        let mut command = self.daemon("manager");
        command.args(["manager", "run", "--dir", &self.path("manager")]);
        let daemon = Daemon::start(
            command,
            &self.lab.directory().join("manager.log"),
            &self.lab,
        );
        *self.manager.borrow_mut() = Some(daemon);
        wait("the manager", || {
            (self.try_operate(&["status"]).code == Some(0)).then_some(())
        });
    }

    /// The running manager.
    pub(crate) fn manager(&self) -> std::cell::Ref<'_, Daemon> {
        std::cell::Ref::map(self.manager.borrow(), |daemon| daemon.as_ref().unwrap())
    }

    /// Enrols an element into `directory`; the token goes where no other user sees it.
    pub(crate) fn join(&self, gateway: Gateway, directory: &str, token: &str) -> Said {
        let mut command = self.command(gateway.name(), PROGRAM);
        command
            .args(["element", "join", "--dir", &self.path(directory)])
            .args(["--manager", &self.control])
            .env("VNFPOOL_TOKEN", token);
        run(command)
    }

    /// Starts the element of a gateway as it should be.
    pub(crate) fn start_element(&self, gateway: Gateway) {
        self.start_element_of(gateway, &self.element_file(gateway));
    }

    /// Starts the element of a gateway as a file says.
    pub(crate) fn start_element_of(&self, gateway: Gateway, text: &str) {
        let file = self.write(&format!("{gateway}.toml"), text);
        let daemon = self.start_with(gateway, &file, &format!("{gateway}.log"));
        *self.elements[gateway.index()].borrow_mut() = Some(daemon);
    }

    /// Starts the element of a gateway under a supervisor.
    pub(crate) fn supervise_element(&self, gateway: Gateway) {
        self.supervise_element_of(gateway, &self.element_file(gateway));
    }

    /// Starts the element of a gateway under a supervisor, as a file says.
    pub(crate) fn supervise_element_of(&self, gateway: Gateway, text: &str) {
        let file = self.write(&format!("{gateway}.toml"), text);
        let mut command = self.daemon(gateway.name());
        command.args(["element", "supervise", "--config", &file]);
        let log = self.lab.directory().join(format!("{gateway}.log"));
        let daemon = Daemon::start(command, &log, &self.lab);
        *self.elements[gateway.index()].borrow_mut() = Some(daemon);
    }

    /// Starts an element on a gateway from some file.
    pub(crate) fn start_with(&self, gateway: Gateway, file: &str, log: &str) -> Daemon {
        let mut command = self.daemon(gateway.name());
        command.args(["element", "run", "--config", file]);
        Daemon::start(command, &self.lab.directory().join(log), &self.lab)
    }

    /// The element of a gateway, running or ended.
    pub(crate) fn element(&self, gateway: Gateway) -> std::cell::Ref<'_, Daemon> {
        let element = self.elements[gateway.index()].borrow();
        std::cell::Ref::map(element, |daemon| daemon.as_ref().unwrap())
    }

    /// `element.toml` of a gateway that is enrolled in the directory of its name.
    pub(crate) fn element_file(&self, gateway: Gateway) -> String {
        let directory = self.lab.directory().join(gateway.name());
        vnfpool_lab::element_file(gateway, &directory, &self.control)
    }

    /// The metrics of the daemon on a host, in text.
    pub(crate) fn metrics(&self, host: &str) -> String {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT));
        let fetch = || {
            // It may have started just now.
            let mut stream = wait("the metrics", || TcpStream::connect(address).ok());
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = self.lab.namespace(host).unwrap().run(fetch).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        text
    }

    /// The sum of all samples of a metric whose line contains `label`.
    pub(crate) fn metric(&self, host: &str, name: &str, label: &str) -> f64 {
        let text = self.metrics(host);
        let of_name = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        };
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        text.lines().filter(of_name).filter_map(value).sum()
    }

    /// The virtual devices on a gateway.
    pub(crate) fn virtual_devices(&self, gateway: Gateway) -> Vec<String> {
        let mut command = self.command(gateway.name(), "ip");
        command.args(["-brief", "link", "show", "type", "macvlan"]);
        let said = run(command);
        said.stdout.lines().map(ToOwned::to_owned).collect()
    }

    /// Whether a gate of a gateway's element is pinned. Other laboratories may be up on this
    /// machine: only the directory of its identity tells whose gate it is.
    pub(crate) fn has_gate(&self, gateway: Gateway) -> bool {
        let directory = self.lab.directory().join(gateway.name());
        let instance = vnfpool_gate::instance_name(&format!("edge-{gateway}"), &directory);
        vnfpool_gate::default_pin_dir(&instance).exists()
    }

    /// Opens a connection from the client to the server, through the pool.
    pub(crate) fn talk(&self) -> Talk {
        let listen = || Ok(TcpListener::bind(SocketAddr::new(SERVER_V4, ECHO_PORT))?);
        let listener = self.lab.namespace("server").unwrap().run(listen).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 64];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
        });
        let connect = || {
            let server = SocketAddr::new(SERVER_V4, ECHO_PORT);
            Ok(TcpStream::connect_timeout(
                &server,
                Duration::from_secs(10),
            )?)
        };
        let stream = self.lab.namespace("client").unwrap().run(connect).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let talk = Talk {
            stream,
            said: Cell::new(0),
        };
        talk.goes_on();
        // Service state follows within milliseconds, not in the same instant.
        std::thread::sleep(Duration::from_millis(300));
        talk
    }

    /// What has to hold at the end of every test: no daemon has panicked, and the virtual address
    /// never had two owners.
    pub(crate) fn ends_well(&self) {
        assert_eq!(self.observer.answered_by_both(), 0, "two owners");
        for entry in fs::read_dir(self.lab.directory()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let log = fs::read_to_string(&path).unwrap();
                assert!(!log.contains("panic"), "{}: {log}", path.display());
            }
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // nextest shows it only for the test that failed.
            for name in ["manager.log", "gw1.log", "gw2.log"] {
                show_end(&self.lab.directory().join(name));
            }
        }
    }
}

fn show_end(log: &Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(25);
    println!("--- {}\n{}", log.display(), lines[from..].join("\n"));
}

/// A connection through the gateways' translation; its entry is what has to survive.
pub(crate) struct Talk {
    stream: TcpStream,
    said: Cell<u64>,
}

impl Talk {
    /// Says something and hears it back: the pool serves, and has the connection's state.
    pub(crate) fn goes_on(&self) {
        let said = self.said.get() + 1;
        self.said.set(said);
        let mut stream = &self.stream;
        stream.write_all(&said.to_le_bytes()).unwrap();
        let mut heard = [0; 8];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(u64::from_le_bytes(heard), said);
    }
}

/// A pool file with one slot; `number` makes addresses and virtual routers its own.
pub(crate) fn pool_file(handle: &str, lans: [&str; 2], number: u8) -> String {
    let mut text = format!(
        "[pool]\nhandle = \"{handle}\"\nfunction = \"nat-gateway\"\n\n\
         [[slot]]\nname = \"main\"\npreferred = \"gw1\"\n"
    );
    for (lan, (name, vrid)) in (1..=2).zip(lans.into_iter().zip([10 + number, 11 + number])) {
        let last = 255 - number;
        text.push_str(&format!(
            "\n[[slot.address]]\naddress = \"10.{lan}.0.{last}/24\"\nlan = \"{name}\"\nvrid = {vrid}\n"
        ));
    }
    text
}
