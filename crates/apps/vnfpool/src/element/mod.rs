//! The daemon `vnfpool element`: composition of an element's machines and drivers.
//!
//! ```text
//!   manager --QUIC--> control --+
//!   peers  --QUIC--> mesh ------+--> agent --> plane (devices, gate)     health (5 ms)
//!                     |         |      |                                   |
//!                     +-> sync -+      +--> hooks                          |
//!                          |           v                                   v
//!   all paths --datagrams--+------> pulse (real time): machines, gate, announcements
//! ```
//!
//! Only `pulse` is on the way of a takeover; everything else may be slow without doing harm.

mod agent;
mod blocks;
mod control;
mod departure;
mod downgrades;
mod drain;
mod figures;
mod health;
mod hooks;
mod incarnation;
mod inheritance;
mod lock;
mod mesh;
mod metrics;
mod own_addresses;
mod plane;
mod pulse;
mod resume;
mod sdk;
mod supervise;
mod sync;
mod tasks;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow, bail};
use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use vnfpool_config::{ElementConfig, ElementFile, Realtime};
use vnfpool_heartbeat::PathSpec;
use vnfpool_linux::{links, preflight, realtime};
use vnfpool_model::{Incarnation, Role};
use vnfpool_succession::element::Input;
use vnfpool_transport::enrolment;
use vnfpool_transport::pki::Credentials;
use vnfpool_transport::quic::Continuity;
use vnfpool_transport::token::Token;
use vnfpool_transport::{Identity, RejectionCounters};

use self::agent::{Agent, Parts};
use self::blocks::Blocks;
use self::inheritance::{Estate, Inherited, SetupKeeper};
use self::mesh::Mesh;
use self::plane::DataPlane;
use self::pulse::{Command, Pulse};
use self::resume::{furnish, open_keys, open_paths, resume, take_up};
use self::sdk::FunctionHealth;
use self::sync::SyncHub;
use crate::cli::args::{ElementJoin, ElementRun};
use crate::daemon;

pub(crate) use self::inheritance::VARIABLE as INHERITANCE;
#[cfg(feature = "fuzz")]
pub use self::sdk::fuzz::{Around, talk};
pub(crate) use self::supervise::supervise;

/// LANs of virtual addresses are paths too; this keeps their names apart from others.
const LAN_PATH_PREFIX: &str = "lan:";

/// The path on which the manager is reached: whatever routing says.
const MANAGER_PATH: &str = "manager";

/// Notices of the real-time thread that may wait.
const NOTICES_MAX: usize = 1_024;

/// Enrols this element with a one-time token.
pub(crate) fn join(args: &ElementJoin) -> anyhow::Result<()> {
    let token: Token = args.token.trim().parse().context("read the token")?;
    let credentials =
        daemon::block_on(async { Ok(enrolment::join(args.manager, &token, &args.dir).await?) })?;
    let Identity::Element { pool, element } = credentials.identity() else {
        bail!("the manager answered with a certificate that is no element's");
    };
    crate::cli::say(&format!(
        "This is now the element '{element}' of pool '{pool}'; its key is in {}.\n\
         Start it:        vnfpool element supervise --config FILE",
        args.dir.display()
    ))
}

/// Runs the element's agent until it is told to stop.
pub(crate) fn run(args: &ElementRun) -> anyhow::Result<()> {
    // Before anything is opened under its number.
    let estate = Estate::inherit();
    daemon::start_log();
    let is_supervised = !matches!(estate, Ok(None));
    let estate = estate.unwrap_or_else(|error| {
        // A supervisor of another version: this agent runs, and cannot be gone on with.
        tracing::warn!("a restart of this agent will move its slots: {error:#}");
        None
    });
    if is_supervised {
        // Without its supervisor it would not be started again: it stops in order.
        let signal = Some(rustix::process::Signal::TERM);
        rustix::process::set_parent_process_death_signal(signal).context("watch the supervisor")?;
    }
    let path = &args.config;
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let config = ElementFile::parse(&text, &path.display().to_string())?;
    daemon::block_on(serve(config, estate))
}

async fn serve(config: ElementConfig, estate: Option<Estate>) -> anyhow::Result<()> {
    // Whoever asks early is answered as well: by a clean stop.
    let stop = daemon::Stop::watch()?;
    let credentials = load_credentials(&config)?;
    // Held to the end: what a second agent would close at its start is what this one serves with.
    let _lock = lock::take(&config.dir)?;
    let (plane, inherited) = match resume(&config, estate.as_ref()) {
        Some((plane, inherited)) => (plane, Some(inherited)),
        None => {
            check_machine(&config)?;
            // The gate closes before this agent says its first word (R1), and its number is on disk.
            (DataPlane::open(&config, estate.clone())?, None)
        }
    };
    let plane = Arc::new(Mutex::new(Some(plane)));
    let start = Start {
        plane: Arc::clone(&plane),
        config,
        credentials,
        estate,
        inherited,
        stop,
    };
    let outcome = serve_behind(start).await;
    let plane = plane.lock().unwrap_or_else(PoisonError::into_inner).take();
    let removed = plane.map_or(Ok(()), DataPlane::remove);
    // Why it ended comes before what that left behind.
    outcome?;
    removed.context("take the virtual addresses and the gate away")
}

/// The life that this process is of.
fn identity_of(
    config: &ElementConfig,
    inherited: Option<&Inherited>,
) -> anyhow::Result<(Incarnation, Continuity)> {
    Ok(match inherited {
        Some(inherited) => (inherited.setup.incarnation, inherited.setup.continuity()),
        None => (incarnation::next(&config.dir)?, Continuity::random()?),
    })
}

type Sdk = (Option<Arc<sdk::Hub>>, Option<Arc<FunctionHealth>>);

/// What an agent begins with.
struct Start {
    /// The caller takes it away, also when serving fails half-way.
    plane: Arc<Mutex<Option<DataPlane>>>,
    config: ElementConfig,
    credentials: Credentials,
    estate: Option<Estate>,
    inherited: Option<Inherited>,
    stop: daemon::Stop,
}

async fn serve_behind(start: Start) -> anyhow::Result<()> {
    let Start {
        plane,
        config,
        credentials,
        estate,
        mut inherited,
        mut stop,
    } = start;
    let keys = open_keys(estate.as_ref(), inherited.as_mut());
    let realtime = Arc::new(Mutex::new(String::new()));
    let (notices, noticed) = mpsc::channel(NOTICES_MAX);
    let prepare = prepare_thread(config.realtime, Arc::clone(&realtime));
    let paths = open_paths(&path_specs(&config), estate.as_ref(), inherited.is_some())?;
    // First the leases, then everything else.
    let first = match &inherited {
        Some(inherited) => take_up(&plane, inherited)?,
        None => Vec::new(),
    };
    let (pulse, thread) = Pulse::start(paths, keys, first, notices, prepare)?;
    let (incarnation, continuity) = identity_of(&config, inherited.as_ref())?;
    let setup = SetupKeeper::new(estate.as_ref(), &config, incarnation, continuity);
    let (sdk, function) = open_hub(&config, inherited.as_ref())?;
    let rejections = Arc::new(RejectionCounters::default());
    let identity = (incarnation, continuity);
    let (sync, mesh) = meet_peers(&config, &credentials, identity, &pulse, &rejections)?;
    let blocks = Blocks::start(config.element.clone(), &config.dir)?;
    let agent = Arc::new(Agent::new(Parts {
        config,
        credentials,
        incarnation,
        pulse: pulse.clone(),
        sync,
        sdk: sdk.clone(),
        mesh,
        blocks,
        rejections,
        plane: Arc::clone(&plane),
        realtime,
        setup,
    }));
    let resumes = inherited.is_some();
    if let Some(inherited) = inherited
        && let Err(error) = furnish(&agent, inherited).await
    {
        // Half of it is worse than nothing: the next process begins a new life.
        if let Some(estate) = &estate {
            estate.memory.forget();
        }
        return Err(error.context("go on with what the process before has left"));
    }
    let stop_health = Arc::new(AtomicBool::new(false));
    let (made_anew, mut is_made_anew) = mpsc::channel(1);
    let health = watch_health(&agent, &plane, function, &stop_health, resumes, made_anew)?;
    let served = sdk.zip(agent.config.sdk.as_ref());
    let served = served.map(|(hub, config)| sdk::start(hub, config, Arc::clone(&stop_health)));
    let sdk = served.transpose()?;
    let mut tasks = tasks::start(&agent, noticed);
    if let Some(listen) = agent.config.metrics {
        metrics::start(&mut tasks, &agent, listen, resumes).await?;
    }
    tracing::info!(
        element = %agent.config.element, pool = %agent.config.pool, %incarnation,
        gate = agent.gate_driver(), realtime = agent.realtime_text(),
        version = crate::VERSION, commit = crate::COMMIT, "the element's agent runs"
    );
    daemon::ready();
    let mut control = Box::pin(control::run(Arc::clone(&agent)).fuse());
    let outcome = tokio::select! {
        signal = stop.told() => { tracing::info!(signal, "stopping"); Ok(()) }
        error = &mut control => error,
        Some(interface) = is_made_anew.recv() => Err(anyhow!(
            "the interface '{interface}' was removed and made anew: start the agent again, its \
             sockets and addresses are those of the former one"
        )),
        ended = tasks::first_to_end(&mut tasks) => Err(ended),
    };
    departure::take(&agent, control).await;
    stop_health.store(true, Ordering::Relaxed);
    pulse.send(Command::Stop);
    let threads = [Some(thread), Some(health), sdk];
    let threads = threads.into_iter().flatten();
    let join = move || threads.for_each(|thread| drop(thread.join()));
    let _ = tokio::task::spawn_blocking(join).await;
    agent.mesh.close().await;
    tasks.shutdown().await;
    agent.finish_hooks().await;
    outcome.map_err(tasks::unless_panicked)
}

/// What a function of its own registers with, if the file has a socket for it.
fn open_hub(config: &ElementConfig, inherited: Option<&Inherited>) -> anyhow::Result<Sdk> {
    let Some(sdk) = &config.sdk else {
        return Ok((None, None));
    };
    let health = Arc::new(FunctionHealth::new(sdk.required));
    let (element, pool) = (config.element.to_string(), config.pool.to_string());
    let hub = sdk::Hub::new(element, pool, Arc::clone(&health)).context("wake the SDK's thread")?;
    let slots = inherited.iter().flat_map(|inherited| &inherited.slots);
    for slot in slots.filter(|slot| slot.machine.role() == Role::Active) {
        hub.inherit(slot.id);
    }
    Ok((Some(Arc::new(hub)), Some(health)))
}

/// What talks to the other elements.
fn meet_peers(
    config: &ElementConfig,
    credentials: &Credentials,
    (incarnation, continuity): (Incarnation, Continuity),
    pulse: &Pulse,
    rejections: &Arc<RejectionCounters>,
) -> anyhow::Result<(Arc<SyncHub>, Arc<Mesh>)> {
    if let Err(error) = vnfpool_conntrack::enable_events() {
        tracing::warn!("service state may be incomplete: {error}");
    }
    let scope = own_addresses::scope(config)?;
    let sync = SyncHub::new(pulse.clone(), incarnation, credentials.clone(), scope);
    let sync = Arc::new(sync);
    let mesh = Mesh::start(
        config.pool.clone(),
        credentials.clone(),
        mesh_address(config),
        pulse.clone(),
        Arc::clone(&sync),
        Arc::clone(rejections),
        continuity,
    )?;
    Ok((sync, mesh))
}

/// Everything that this machine or process lacks, in one line.
fn check_machine(config: &ElementConfig) -> anyhow::Result<()> {
    let mut essential = Vec::new();
    for missing in preflight::missing() {
        if missing.is_essential {
            essential.push(missing.to_string());
        } else {
            tracing::warn!("{missing}");
        }
    }
    if !essential.is_empty() {
        bail!("no element can run here: {}", essential.join("; "));
    }
    for lan in &config.lans {
        links::find(&lan.interface).with_context(|| {
            format!(
                "the LAN '{}' is on the interface '{}'",
                lan.name, lan.interface
            )
        })?;
    }
    Ok(())
}

fn load_credentials(config: &ElementConfig) -> anyhow::Result<Credentials> {
    let credentials = Credentials::load(&config.dir).with_context(|| {
        format!(
            "no identity in {}: enrol with `vnfpool element join`",
            config.dir.display()
        )
    })?;
    let expected = Identity::Element {
        pool: config.pool.clone(),
        element: config.element.clone(),
    };
    if *credentials.identity() != expected {
        bail!(
            "the certificate in {} is of {}, the configuration is of {expected}",
            config.dir.display(),
            credentials.identity()
        );
    }
    Ok(credentials)
}

fn path_specs(config: &ElementConfig) -> Vec<PathSpec> {
    let port = config.ports.heartbeat;
    let own = config.paths.iter().map(|path| PathSpec {
        name: path.name.clone(),
        local: SocketAddr::new(path.address, port),
        interface: None,
    });
    let lans = config.lans.iter().map(|lan| PathSpec {
        name: format!("{LAN_PATH_PREFIX}{}", lan.name),
        local: SocketAddr::new(lan.address, port),
        interface: Some(lan.interface.clone()),
    });
    let manager = PathSpec {
        name: MANAGER_PATH.to_owned(),
        local: SocketAddr::new(any_of(&[config.manager.ip()]), 0),
        interface: None,
    };
    own.chain(lans).chain([manager]).collect()
}

fn mesh_address(config: &ElementConfig) -> SocketAddr {
    let lans = config.lans.iter().map(|l| l.address);
    let all: Vec<_> = config.paths.iter().map(|p| p.address).chain(lans).collect();
    SocketAddr::new(any_of(&all), config.ports.state)
}

/// The address that takes in all families of `addresses`.
fn any_of(addresses: &[IpAddr]) -> IpAddr {
    match addresses.iter().all(IpAddr::is_ipv4) {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn prepare_thread(
    settings: Realtime,
    realtime: Arc<Mutex<String>>,
) -> impl FnOnce() + Send + 'static {
    move || {
        let mut text = String::from("off");
        if settings.enabled {
            let locked = realtime::lock_memory();
            text = match realtime::prioritize_this_thread(settings.priority) {
                Ok(()) => format!("fifo {}", settings.priority),
                Err(error) => format!("not permitted: {error}"),
            };
            if let Err(error) = locked {
                text = format!("{text}, memory not locked: {error}");
            }
        }
        if text.contains("not ") {
            tracing::warn!("the heartbeat thread goes on without real time: {text}");
        }
        *realtime.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

fn watch_health(
    agent: &Arc<Agent>,
    plane: &Arc<Mutex<Option<DataPlane>>>,
    function: Option<Arc<FunctionHealth>>,
    stop: &Arc<AtomicBool>,
    resumes: bool,
    made_anew: mpsc::Sender<String>,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let lans = agent.config.lans.iter().map(|l| l.interface.clone());
    let mut interfaces: Vec<_> = lans.chain(agent.config.health.interfaces.clone()).collect();
    interfaces.sort();
    interfaces.dedup();
    let (told, refreshed) = (Arc::clone(agent), Arc::clone(plane));
    let woken = agent.pulse.clone();
    let told = health::Told {
        change: Box::new(move |faults| told.set_faults(faults)),
        link_up: Box::new(move || {
            woken.input_all(Input::SignOfLife);
            let plane = refreshed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(plane) = plane.as_ref() {
                plane.refresh();
            }
        }),
        made_anew: Box::new(move |interface| {
            // There is room: it is told once.
            let _ = made_anew.try_send(interface.to_owned());
        }),
    };
    health::start(
        agent.config.health.clone(),
        &interfaces,
        function,
        Arc::clone(stop),
        resumes,
        told,
    )
}
