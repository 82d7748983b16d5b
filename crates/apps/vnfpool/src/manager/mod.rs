//! The daemon `vnfpool manager`: composition of the manager's machines and drivers.
//!
//! ```text
//!   elements --QUIC--> control (one task each) --+
//!   operators --HTTPS--> operations -------------+--> shared: registry, events --> db --> disk
//!   elements --datagrams--> pulse (real time) ---+         (names, numbers)        ^
//!                             | slot machines                                      |
//!                             +--- records ----------------------------------------+
//! ```
//!
//! Who serves is decided in `pulse` alone; everything else may be slow without doing harm.

mod control;
mod crash;
mod db;
mod deletion;
mod events;
mod fencing;
mod handover_news;
mod handovers;
mod metrics;
mod operations;
mod paces;
mod pulse;
mod quarantine;
mod registry;
mod shared;
mod state_news;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use vnfpool_config::{ManagerConfig, ManagerFile, ManagerPorts, PORT_HEARTBEAT};
use vnfpool_model::PoolHandle;
use vnfpool_northbound::{router, server};
use vnfpool_transport::enrolment::Enrolment;
use vnfpool_transport::https::HttpsServer;
use vnfpool_transport::pki::{AlternativeName, Authority, Credentials, Validity};
use vnfpool_transport::quic::{Acceptance, Arrival, Endpoint, EndpointOptions, Listener};
use vnfpool_transport::token::TokenRefusal;
use vnfpool_transport::{Identity, PeerPolicy, PrincipalId, RejectionCounters, TrustDomain};

use self::db::Db;
use self::deletion::Closing;
use self::operations::Api;
use self::pulse::PulseSetup;
use self::registry::{Element, Registry};
use self::shared::{Parts, Shared};
use crate::cli::args::{ManagerInit, ManagerRun};
use crate::daemon;

const CONFIG_FILE: &str = "manager.toml";
const AUTHORITY_DIR: &str = "ca";
const IDENTITY_DIR: &str = "identity";
const OPERATOR_DIR: &str = "operator";
const STORE_DIR: &str = "store";

/// How often elements are told what is new for them, and switchbacks are looked for.
const STEER_INTERVAL: Duration = Duration::from_millis(100);

/// Notices of the real-time thread that may wait for the log.
const NOTICES_MAX: usize = 1_024;

/// Makes the certificate authority, the manager's certificate, the first operator's certificate
/// and `manager.toml`.
pub(crate) fn init(args: &ManagerInit) -> anyhow::Result<()> {
    let dir = &args.dir;
    let config_path = dir.join(CONFIG_FILE);
    if config_path.exists() {
        bail!(
            "{} exists: there is a manager in this directory already",
            config_path.display()
        );
    }
    let trust_domain = TrustDomain::new(args.trust_domain.clone())?;
    let id = PrincipalId::new(args.id.clone())?;
    let authority = Authority::create(&dir.join(AUTHORITY_DIR), &trust_domain)?;
    let names: Vec<_> = args
        .addresses
        .iter()
        .copied()
        .map(AlternativeName::Address)
        .collect();
    authority.issue_local(
        &dir.join(IDENTITY_DIR),
        &Identity::Manager { id },
        &names,
        Validity::standard(),
    )?;
    let operator = PrincipalId::new("admin")?;
    let operator_dir = dir.join(OPERATOR_DIR);
    authority.issue_local(
        &operator_dir,
        &Identity::Operator { id: operator },
        &[],
        Validity::standard(),
    )?;
    let ports = ManagerPorts::default();
    let Some(address) = args.addresses.first() else {
        bail!("give an address with --address")
    };
    let url = format!("https://{}\n", SocketAddr::new(*address, ports.operator));
    std::fs::write(operator_dir.join("manager"), url)
        .with_context(|| format!("write {}", operator_dir.join("manager").display()))?;
    let config = ManagerConfig {
        id: args.id.clone(),
        trust_domain: args.trust_domain.clone(),
        addresses: args.addresses.clone(),
        dir: None,
        ports,
        metrics: None,
        fencing: None,
    };
    // Last: its presence says that the directory is complete.
    std::fs::write(&config_path, ManagerFile::render(&config))
        .with_context(|| format!("write {}", config_path.display()))?;
    crate::cli::say(&format!(
        "The manager '{}' of trust domain {} is set up in {}.\n\
         Start it:        vnfpool manager run --dir {}\n\
         Speak to it:     vnfpool --admin {} status",
        args.id,
        trust_domain,
        dir.display(),
        dir.display(),
        operator_dir.display(),
    ))
}

/// Runs the manager until it is told to stop.
pub(crate) fn run(args: &ManagerRun) -> anyhow::Result<()> {
    daemon::start_log();
    crash::plan_from_environment()?;
    let config = read_config(&args.dir)?;
    daemon::block_on(serve(&args.dir, config))
}

fn read_config(dir: &Path) -> anyhow::Result<ManagerConfig> {
    let path = dir.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("read {}; `vnfpool manager init` makes it", path.display()))?;
    Ok(ManagerFile::parse(&text, &path.display().to_string())?)
}

async fn serve(dir: &Path, config: ManagerConfig) -> anyhow::Result<()> {
    let data = config.dir.clone().unwrap_or_else(|| dir.to_owned());
    let authority = Authority::load(&data.join(AUTHORITY_DIR))?;
    let credentials = Credentials::load(&data.join(IDENTITY_DIR))?;
    let rejections = Arc::new(RejectionCounters::default());
    let any = listen_address(&config.addresses);

    let setup = PulseSetup::bind(SocketAddr::new(any, PORT_HEARTBEAT))?;
    let pulse = setup.handle.clone();
    let db = Db::open(&data.join(STORE_DIR), pulse.clone())?;
    let boot = db.count_boot()?;
    let registry = load_registry(&db)?;
    let leases_ms = Arc::new(Mutex::new(BTreeMap::new()));
    let persist = db.persister(pulse.clone(), Arc::clone(&leases_ms));
    let (notices, mut noticed) = mpsc::channel(NOTICES_MAX);
    let thread = setup.start(persist, notices, prepare_thread)?;

    let control_addresses = config.addresses.iter();
    let addresses = control_addresses
        .map(|a| SocketAddr::new(*a, config.ports.control))
        .collect();
    let Some(first) = config.addresses.first() else {
        bail!("the manager has no address")
    };
    let shared = Arc::new(Shared::new(Parts {
        id: config.id.clone(),
        boot,
        addresses,
        datagram: SocketAddr::new(*first, PORT_HEARTBEAT),
        db,
        pulse: pulse.clone(),
        authority,
        rejections: Arc::clone(&rejections),
        registry,
        leases_ms,
        closing_time_max: deletion::CLOSING_TIME_MAX,
    }));
    start_slots(&shared)?;

    let endpoint = Endpoint::bind(
        SocketAddr::new(any, config.ports.control),
        credentials.clone(),
        EndpointOptions::default(),
        Arc::clone(&rejections),
    )?;
    let acceptance = Acceptance {
        members: PeerPolicy::Members,
        enrolment: true,
    };
    let listener = Listener::start(std::slice::from_ref(&endpoint), acceptance)?;
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let tls = HttpsServer::new(&credentials, PeerPolicy::Clients, rejections)?;
    serve_http(&mut tasks, &shared, &config, tls, &stopping).await?;
    let accepting = tokio::spawn(accept(Arc::clone(&shared), listener));
    let steering = tokio::spawn(steer(Arc::clone(&shared)));
    let fencing = config
        .fencing
        .map(|command| tokio::spawn(fencing::run(Arc::clone(&shared), command)));
    let telling = {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Some(notice) = noticed.recv().await {
                shared.decided(&notice);
            }
        })
    };
    tracing::info!(
        id = config.id,
        boot,
        version = crate::VERSION,
        commit = crate::COMMIT,
        "the manager serves at {}",
        first
    );
    daemon::ready();
    let signal = daemon::Stop::watch()?.told().await;
    tracing::info!(signal, "the manager stops; pairs go on without it");
    let _ = stop.send(true);
    accepting.abort();
    steering.abort();
    if let Some(fencing) = fencing {
        fencing.abort();
    }
    endpoint.close().await;
    while tasks.join_next().await.is_some() {}
    pulse.send(pulse::Command::Stop);
    let _ = thread.join();
    telling.abort();
    Ok(())
}

/// The operators' door, and the metrics if they are wanted.
async fn serve_http(
    tasks: &mut JoinSet<()>,
    shared: &Arc<Shared>,
    config: &ManagerConfig,
    tls: HttpsServer,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let stopped = |mut stopping: watch::Receiver<bool>| async move {
        // The sender lives as long as the daemon.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let listen = SocketAddr::new(listen_address(&config.addresses), config.ports.operator);
    let tcp = server::bind(listen)
        .await
        .with_context(|| format!("listen on {listen} for operators"))?;
    let api = router(Arc::new(Api(Arc::clone(shared))));
    tasks.spawn(server::serve(tcp, tls, api, stopped(stopping.clone())));
    if let Some(listen) = config.metrics {
        metrics::start(tasks, shared, listen, stopped(stopping.clone())).await?;
    }
    Ok(())
}

/// One socket for all addresses of the manager: any address, unless there is just one family and
/// one address.
fn listen_address(addresses: &[IpAddr]) -> IpAddr {
    match addresses {
        [only] => *only,
        several if several.iter().all(IpAddr::is_ipv4) => Ipv4Addr::UNSPECIFIED.into(),
        _ => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn prepare_thread() {
    for (what, result) in [
        (
            "real-time scheduling",
            vnfpool_linux::realtime::prioritize_this_thread(REALTIME_PRIORITY),
        ),
        ("locked memory", vnfpool_linux::realtime::lock_memory()),
    ] {
        if let Err(error) = result {
            tracing::warn!("the manager goes on without {what}: {error}");
        }
    }
}

/// Below keepalived's usual 50, far above everything ordinary.
const REALTIME_PRIORITY: u8 = 40;

fn load_registry(db: &Db) -> anyhow::Result<Registry> {
    let mut registry = Registry {
        numbers: db.numbers()?,
        ..Registry::default()
    };
    for pool in db.pools()? {
        registry.pools.insert(pool.spec.handle.clone(), pool);
    }
    for (pool, id, record) in db.elements()? {
        let node = vnfpool_wire::datagram::NodeId(record.node);
        let mut element = Element::new(node);
        element.paths = db.paths(&pool, &id)?.into_paths();
        element.departed = db.departed(&pool, &id)?;
        registry.elements.insert((pool, id), element);
    }
    for (pool, members) in db.closing()? {
        let closed = BTreeSet::new();
        let closing = Closing { members, closed };
        registry.closing.insert(pool, closing);
    }
    Ok(registry)
}

fn start_slots(shared: &Shared) -> anyhow::Result<()> {
    let pools: Vec<_> = {
        let registry = shared.registry();
        let closing = |handle: &PoolHandle| registry.closing.contains_key(handle);
        let living = registry.pools.iter().filter(|(handle, _)| !closing(handle));
        living.map(|(_, pool)| pool.clone()).collect()
    };
    for pool in pools {
        shared.start_slots_of(&pool)?;
    }
    Ok(())
}

async fn accept(shared: Arc<Shared>, mut listener: Listener) {
    while let Some(arrival) = listener.accept().await {
        let shared = Arc::clone(&shared);
        match arrival {
            Arrival::Member(connection) => {
                tokio::spawn(control::serve(shared, connection));
            }
            Arrival::Joiner(enrolment) => {
                tokio::spawn(async move {
                    if let Err(error) = enrol(&shared, enrolment).await {
                        tracing::warn!("an enrolment failed: {error:#}");
                    }
                });
            }
        }
    }
}

/// Exchanges a one-time token for a certificate; the use is on disk before the certificate goes.
async fn enrol(shared: &Shared, enrolment: Enrolment) -> anyhow::Result<()> {
    let remote = enrolment.remote_address();
    let (request, answer) = enrolment.request().await?;
    let one_at_a_time = shared.changes.lock().await;
    let Some(mut token) = shared.db.token(request.token)? else {
        // An answer waits for the joiner, who may be slow or hostile: nobody else waits with it.
        drop(one_at_a_time);
        return Ok(answer.refuse(TokenRefusal::Unknown).await?);
    };
    let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    if let Err(refusal) = token.redeem(&request.secret, request.key, now_ms) {
        drop(one_at_a_time);
        return Ok(answer.refuse(refusal).await?);
    }
    let mut change = shared.db.change();
    change.put_token(&token)?;
    if let Err(error) = shared.db.commit(change).await {
        drop(one_at_a_time);
        answer
            .refuse_with(format!("the manager's store refuses changes: {error}"))
            .await?;
        return Err(error.into());
    }
    drop(one_at_a_time);
    let (pool, element) = (token.pool, token.element);
    let identity = Identity::Element {
        pool: pool.clone(),
        element: element.clone(),
    };
    let text = format!("{element} enrolled from {remote}");
    shared.db.audit(
        "element",
        element.as_str(),
        "enrolled",
        (&Some(pool.clone()), &None),
        &text,
        "",
    );
    answer
        .grant(&shared.authority, &request, &identity, Validity::standard())
        .await?;
    tracing::info!(%pool, "{text}");
    Ok(())
}

async fn steer(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(STEER_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut patience = operations::SwitchbackPatience::default();
    loop {
        interval.tick().await;
        shared.steer();
        operations::switch_back(&shared, &mut patience);
    }
}
