//! A tap on the links from gw1 to gw2: it ends TLS at both sides with the pool's own certificates, passes on what
//! is said and records every byte of it in clear, and can stop after any of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;
use vnfpool_lab::Gateway::{Gw1, Gw2};
use vnfpool_lab::Namespace;
use vnfpool_transport::link::{self, Link, LinkListener, Received};
use vnfpool_transport::pki::Credentials;
use vnfpool_transport::{PeerPolicy, RejectionCounters};

use crate::caller::{LINKS, PORT};
use crate::daemon::wait;
use crate::site::{Site, run};

/// Where the tap listens on gw2. Packets are led to it and back without connection tracking, which
/// leaves the wire between the gateways alone.
const TAP_PORT: u16 = 7_999;

/// Between two looks at the links.
const LOOK: Duration = Duration::from_millis(1);

/// See the module. It ends when it is dropped.
pub(crate) struct Tap {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// What each stream said to the standby, and all that was answered.
    told: Mutex<Vec<Vec<u8>>>,
    answered: Mutex<Vec<u8>>,
    /// Bytes of a stream that pass, and whether one has come so far.
    pass_max: AtomicUsize,
    has_stopped: AtomicBool,
    cut: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) -> MutexGuard<'_, Vec<u8>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap {
    /// Both gateways have to be enrolled, and not yet to have a link.
    pub(crate) fn start(site: &Site) -> Self {
        let rules = format!(
            "add table inet tap; \
             add chain inet tap in {{ type filter hook prerouting priority -350; }}; \
             add chain inet tap out {{ type filter hook output priority 350; }}; \
             add rule inet tap in iifname link tcp dport {PORT} tcp dport set {TAP_PORT}; \
             add rule inet tap out oifname link tcp sport {TAP_PORT} tcp sport set {PORT}"
        );
        let mut nft = site.command("gw2", "nft");
        nft.arg(rules);
        let said = run(nft);
        assert_eq!(said.code, Some(0), "{said:?}");
        let of = |name: &str| Credentials::load(&site.lab.directory().join(name)).unwrap();
        let credentials = [of("gw1"), of("gw2")];
        let shared = Arc::new(Shared {
            pass_max: AtomicUsize::new(usize::MAX),
            ..Shared::default()
        });
        let namespace = site.lab.namespace("gw2").unwrap().name().to_owned();
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let tap = || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(serve(&credentials, &of_thread))
            };
            let ended = Namespace::open(&namespace).and_then(|gw2| gw2.run(tap));
            ended.unwrap();
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// What each stream has said to the standby so far.
    pub(crate) fn told(&self) -> Vec<Vec<u8>> {
        self.shared.told().clone()
    }

    /// Everything that the standby has answered so far.
    pub(crate) fn answered(&self) -> Vec<u8> {
        self.shared.answered().clone()
    }

    /// Ends every link, and lets so many bytes of each next one pass.
    pub(crate) fn cut(&self, pass_max: usize) {
        self.shared.pass_max.store(pass_max, Ordering::SeqCst);
        self.shared.cut.store(true, Ordering::SeqCst);
        wait("the tap to cut", || {
            (!self.shared.cut.load(Ordering::SeqCst)).then_some(())
        });
    }

    /// Waits until a stream stands still after the bytes that may pass; what passed.
    pub(crate) fn wait_stopped(&self) -> Vec<u8> {
        wait("a stream that stands still", || {
            self.shared.has_stopped.load(Ordering::SeqCst).then_some(())
        });
        self.shared.told().last().cloned().unwrap_or_default()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // What it said when it failed is in the output.
            let _ = thread.join();
        }
    }
}

async fn serve(credentials: &[Credentials; 2], shared: &Shared) -> anyhow::Result<()> {
    let [of_active, of_standby] = credentials;
    let at = |port| SocketAddr::from((LINKS[Gw2.index()], port));
    let members = PeerPolicy::ElementOf("edge".parse()?);
    let counters = Arc::new(RejectionCounters::default());
    let mut listener = LinkListener::bind(at(TAP_PORT), of_standby, members, counters)?;
    let standby = PeerPolicy::Element {
        pool: "edge".parse()?,
        element: Gw2.name().parse()?,
    };
    let mut streams: Vec<Stream> = Vec::new();
    while !shared.stop.load(Ordering::SeqCst) {
        if let Ok(Some(from)) = tokio::time::timeout(LOOK, listener.accept()).await {
            assert!(
                from.peer().to_string().ends_with(Gw1.name()),
                "gw1 calls gw2"
            );
            // From this host itself, past the rules. It may not be there.
            if let Ok(to) = link::connect(of_active, standby.clone(), at(PORT)).await {
                streams.push(Stream::new(from, to, shared));
            }
        }
        streams.retain_mut(|stream| stream.pass(shared).unwrap_or(false));
        if shared.cut.load(Ordering::SeqCst) {
            streams.clear();
            shared.has_stopped.store(false, Ordering::SeqCst);
            shared.cut.store(false, Ordering::SeqCst);
        }
    }
    Ok(())
}

struct Stream {
    from: Link,
    to: Link,
    /// Its place among the records.
    number: usize,
    pass_max: usize,
    passed: usize,
    waiting: BytesMut,
}

impl Stream {
    fn new(from: Link, to: Link, shared: &Shared) -> Self {
        let mut told = shared.told();
        told.push(Vec::new());
        Self {
            from,
            to,
            number: told.len() - 1,
            pass_max: shared.pass_max.load(Ordering::SeqCst),
            passed: 0,
            waiting: BytesMut::new(),
        }
    }

    /// Passes on what is there; false when an end has ended it.
    fn pass(&mut self, shared: &Shared) -> std::io::Result<bool> {
        let is_over = self.from.receive(&mut self.waiting)? == Received::Closed;
        let room = self.pass_max - self.passed;
        let passing = self.waiting.split_to(self.waiting.len().min(room));
        shared.told()[self.number].extend_from_slice(&passing);
        self.to.send(&passing)?;
        self.to.flush()?;
        self.passed += passing.len();
        if self.passed == self.pass_max {
            shared.has_stopped.store(true, Ordering::SeqCst);
        }
        let mut answer = BytesMut::new();
        let is_answered = self.to.receive(&mut answer)? != Received::Closed;
        shared.answered().extend_from_slice(&answer);
        self.from.send(&answer)?;
        self.from.flush()?;
        Ok(is_answered && !is_over)
    }
}
