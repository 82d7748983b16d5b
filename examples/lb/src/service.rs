//! The program: the device, the SDK, the backends' health, around a [`Balancer`].

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::sync::{Semaphore, watch};
use vnfpool_sdk::{
    Active, Class, Client, Event, Events, Function, Health, Level, Role, Seen, Table, Watch,
};

use crate::balancer::{Balancer, FLOWS_MAX, FlowKey, Verdict};
use crate::probe;
use crate::tun::Tun;

/// The class of the flows.
const FLOWS: &str = "flows";

/// Six bytes of client, six of service; the value is six of backend.
const FORMAT: u16 = 1;

/// A flow without packets for so long is forgotten …
const IDLE_MAX: Duration = Duration::from_secs(300);

/// … so its entry is put again when it is used and older than this.
const REFRESH_AFTER_S: u64 = 100;

/// Packets that are read before anything else has its turn.
const PACKETS_AT_ONCE: usize = 64;

const PACKET_BYTES_MAX: usize = 65_536;

/// Groups of first packets that wait for the successor; with more, new connections are dropped, and
/// their clients try again.
const HELD_MAX: usize = 256;

/// The routing table for what comes back from backends.
const ROUTES: &str = "4711";

/// What the load balancer is asked to do.
#[derive(Clone, Debug, clap::Parser)]
#[command(about = "A load balancer for TCP that keeps every connection across a failover")]
pub struct Options {
    /// The agent's socket
    #[arg(long, default_value = "/run/vnfpool/sdk.sock")]
    pub socket: PathBuf,
    /// The service; clients have to route its address to the pool's virtual address
    #[arg(long)]
    pub service: SocketAddrV4,
    /// A backend, which has to route to clients through the pool's virtual address; at least one
    #[arg(long = "backend", required = true)]
    pub backends: Vec<SocketAddrV4>,
    /// The device that packets are taken through; it is made
    #[arg(long, default_value = "lb0")]
    pub device: String,
}

/// Runs until the agent turns the function away.
///
/// # Errors
/// When the device or the routes cannot be made, or the agent does not take the function.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let tun = Arc::new(Tun::open(&options.device)?);
    set_up_routes(&options)?;
    let level = Level::commit();
    let function = Function::new("lb", env!("CARGO_PKG_VERSION"))
        .class(Class::new(FLOWS, level, FORMAT))
        .health(Health::unhealthy(NOT_SEEN));
    let (client, events) = connect(&options, function).await?;
    let mut service = Service {
        balancer: Balancer::new(options.service),
        backends: probe::start(&options.backends),
        tun,
        client,
        active: None,
        table: None,
        watch: None,
        held: Arc::new(Semaphore::new(HELD_MAX)),
        began: Instant::now(),
    };
    service.serve(events).await
}

const NOT_SEEN: &str = "no backend has answered yet";

/// The agent may start later, or be in the middle of being replaced.
async fn connect(options: &Options, function: Function) -> anyhow::Result<(Client, Events)> {
    loop {
        match vnfpool_sdk::connect(&options.socket, function.clone()).await {
            Ok(connected) => return Ok(connected),
            Err(vnfpool_sdk::ConnectError::Refused { code, text }) => bail!("{code}: {text}"),
            Err(error) => tracing::info!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

struct Service {
    balancer: Balancer,
    backends: watch::Receiver<Vec<SocketAddrV4>>,
    tun: Arc<Tun>,
    client: Client,
    active: Option<Active>,
    table: Option<Table>,
    watch: Option<Watch>,
    held: Arc<Semaphore>,
    began: Instant,
}

impl Service {
    async fn serve(&mut self, mut events: Events) -> anyhow::Result<()> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let tun = Arc::clone(&self.tun);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.take_event(event).await?,
                    None => bail!("the agent has turned this function away: see its log"),
                },
                seen = next_seen(&mut self.watch) => self.take_seen(seen),
                changed = self.backends.changed() => {
                    changed.context("nobody looks at the backends any more")?;
                    self.take_backends().await;
                }
                ready = tun.readable() => {
                    ready.context("wait for packets")?;
                    self.take_packets(&mut buffer).await?;
                }
            }
        }
    }

    async fn take_event(&mut self, event: Event) -> anyhow::Result<()> {
        tracing::info!(?event, flows = self.balancer.flows(), "the agent");
        match event {
            Event::Connected { .. } => self.report().await,
            Event::Role(Role::Active(active)) => {
                self.follow(active.slot).await?;
                self.active = Some(active);
                self.balancer.set_serving(true);
            }
            Event::Role(Role::Standby { slot, .. } | Role::Spare { slot, .. }) => {
                self.stop_serving();
                self.follow(slot).await?;
            }
            Event::Role(_) => self.stop_serving(),
            Event::Restore { active, .. } => self.restore(active).await,
            Event::Disconnected { .. } => {
                // The slot is served as long as the agent's lease goes on: flows that are known are
                // still forwarded, new ones again when the agent is back.
                self.active = None;
                (self.table, self.watch) = (None, None);
            }
            _ => {}
        }
        Ok(())
    }

    fn stop_serving(&mut self) {
        self.active = None;
        self.balancer.set_serving(false);
    }

    /// Follows the flows, those that this instance puts included: the agent says when one is over.
    async fn follow(&mut self, slot: vnfpool_sdk::SlotId) -> anyhow::Result<()> {
        if self.watch.is_none() {
            let table = self.client.table(slot, FLOWS)?;
            // A connection that has ended meanwhile is told as an event.
            self.watch = table.watch().await.ok();
            self.table = Some(table);
        }
        Ok(())
    }

    fn take_seen(&mut self, seen: Option<Seen>) {
        let now_s = self.now_s();
        match seen {
            Some(Seen::Put(entry)) => self.balancer.learn(&entry.key, &entry.value, now_s),
            Some(Seen::Delete(key)) => self.balancer.forget(&key),
            Some(Seen::Anew) => self.balancer.forget_all(),
            Some(_) => {}
            None => self.watch = None,
        }
    }

    async fn take_backends(&mut self) {
        let backends = self.backends.borrow_and_update().clone();
        self.balancer.set_backends(&backends);
        self.report().await;
    }

    async fn report(&self) {
        let flows = u32::try_from(self.balancer.flows()).unwrap_or(u32::MAX);
        let (is_healthy, reason) = match self.backends.borrow().is_empty() {
            true => (false, "no backend answers".to_owned()),
            false => (true, String::new()),
        };
        let capacity = u32::try_from(FLOWS_MAX).unwrap_or(u32::MAX);
        let health = Health {
            is_healthy,
            reason,
            load: flows,
            capacity,
        };
        // Without a connection it is reported with the next one.
        let _ = self.client.report(&health).await;
    }

    /// The agent has lost its copy: it gets this one.
    async fn restore(&self, active: Active) {
        let Some(table) = &self.table else {
            return;
        };
        for (key, value) in self.balancer.entries() {
            if table
                .put(active, &key, &value, Some(IDLE_MAX))
                .await
                .is_err()
            {
                // The role has changed, or the agent is gone again: either is an event of its own.
                return;
            }
        }
        let _ = table.restored(active).await;
    }

    async fn take_packets(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        let now_s = self.now_s();
        let mut first = Vec::new();
        for _ in 0..PACKETS_AT_ONCE {
            let Some(length) = self.tun.read(buffer).context("read a packet")? else {
                break;
            };
            let packet = &mut buffer[..length];
            let (verdict, flow) = self.balancer.handle(packet, now_s);
            match verdict {
                Verdict::Forward => self.tun.write(packet),
                Verdict::ForwardOnce(_) => first.push(packet.to_vec()),
                Verdict::Drop => {}
            }
            if let Some(key) = flow {
                self.keep(&key, verdict, now_s).await;
            }
        }
        if !first.is_empty() {
            self.hold(first);
        }
        Ok(())
    }

    /// Puts the entry of a flow that is new, or was not put for long.
    async fn keep(&mut self, key: &FlowKey, verdict: Verdict, now_s: u64) {
        let is_new = verdict == Verdict::ForwardOnce(*key);
        let before_s = now_s.saturating_sub(REFRESH_AFTER_S);
        if !is_new && !self.balancer.refresh(key, before_s, now_s) {
            return;
        }
        let Some((table, active)) = self.table.as_ref().zip(self.active) else {
            return;
        };
        if let Some(value) = self.balancer.entry(key) {
            // A refusal means that another instance serves now, which chooses anew.
            let _ = table.put(active, key, &value, Some(IDLE_MAX)).await;
        }
    }

    /// Sends first packets on when the successor has the entries of their flows, or cannot have them: then
    /// the service is worth more than its redundancy, and the pool says that it has none.
    fn hold(&self, packets: Vec<Vec<u8>>) {
        let Ok(permit) = Arc::clone(&self.held).try_acquire_owned() else {
            return;
        };
        let (tun, table) = (Arc::clone(&self.tun), self.table.clone());
        tokio::spawn(async move {
            if let Some(table) = table
                && let Err(error) = table.commit().await
            {
                tracing::debug!("new connections are not held by a successor: {error}");
            }
            packets.iter().for_each(|packet| tun.write(packet));
            drop(permit);
        });
    }

    fn now_s(&self) -> u64 {
        self.began.elapsed().as_secs()
    }
}

async fn next_seen(watch: &mut Option<Watch>) -> Option<Seen> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// Routes what goes to the service, and what comes from a backend's port, through the device.
fn set_up_routes(options: &Options) -> anyhow::Result<()> {
    let device = options.device.as_str();
    let service = format!("{}/32", options.service.ip());
    // Packets with the addresses of others come from the device (2: that are routed anywhere).
    let filter = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
    std::fs::write(&filter, "2").with_context(|| format!("write {filter}"))?;
    ip(&["link", "set", device, "up"])?;
    ip(&["route", "replace", &service, "dev", device])?;
    ip(&[
        "route", "replace", "default", "dev", device, "table", ROUTES,
    ])?;
    // Of a former run: they are not replaced, but added again.
    while ip(&["rule", "del", "lookup", ROUTES]).is_ok() {}
    // Answers to probes go to this host itself, which comes before all rules.
    for backend in &options.backends {
        let (from, port) = (backend.ip().to_string(), backend.port().to_string());
        ip(&[
            "rule", "add", "from", &from, "ipproto", "tcp", "sport", &port, "lookup", ROUTES,
        ])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("run ip (iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        said.trim()
    );
    Ok(())
}
