//! The program: the device, the SDK, the backends' health, around a [`Balancer`].

use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::sync::{Semaphore, watch};
use vnfpool_sdk::{Client, Event, Events, Function, Health};

use crate::balancer::{Balancer, FLOWS_MAX, Verdict};
use crate::keeper::{self, Keeper};
use crate::probe;
use crate::tun::Tun;

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
    let function = Function::new("lb", env!("CARGO_PKG_VERSION"))
        .class(keeper::class())
        .health(Health::unhealthy(NOT_SEEN));
    let (client, events) = connect(&options, function).await?;
    let mut service = Service {
        keeper: Keeper::new(client.clone(), Balancer::new(options.service)),
        backends: probe::start(&options.backends),
        tun,
        client,
        held: Arc::new(Semaphore::new(HELD_MAX)),
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
    keeper: Keeper,
    backends: watch::Receiver<Vec<SocketAddrV4>>,
    tun: Arc<Tun>,
    client: Client,
    held: Arc<Semaphore>,
}

/// What happens beside events.
enum News {
    /// To the flows.
    Kept(keeper::News),
    /// To the set of backends; false when nobody looks at them any more.
    Backends(bool),
    /// Packets wait to be read, or an error.
    Packets(io::Result<()>),
}

impl Service {
    async fn serve(&mut self, mut events: Events) -> anyhow::Result<()> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(event) => self.take_event(&event).await?,
                    None => bail!("the agent has turned this function away: see its log"),
                },
                news = self.news() => self.take(news, &mut buffer).await?,
            }
        }
    }

    async fn take_event(&mut self, event: &Event) -> anyhow::Result<()> {
        let flows = self.keeper.balancer.flows();
        tracing::info!(?event, flows, "the agent");
        if matches!(event, Event::Connected { .. }) {
            self.report().await;
        }
        self.keeper.take_event(event).await
    }

    async fn take(&mut self, news: News, buffer: &mut [u8]) -> anyhow::Result<()> {
        match news {
            News::Kept(news) => self.keeper.take(news).await,
            News::Backends(are_looked_at) => {
                ensure!(are_looked_at, "nobody looks at the backends any more");
                self.take_backends().await;
            }
            News::Packets(ready) => {
                ready.context("wait for packets")?;
                self.take_packets(buffer).await?;
            }
        }
        Ok(())
    }

    /// What comes next but events, of which none is kept waiting for long. Cancel-safe.
    async fn news(&mut self) -> News {
        tokio::select! {
            kept = self.keeper.next() => News::Kept(kept),
            changed = self.backends.changed() => News::Backends(changed.is_ok()),
            ready = self.tun.readable() => News::Packets(ready),
        }
    }

    async fn take_backends(&mut self) {
        let backends = self.backends.borrow_and_update().clone();
        self.keeper.balancer.set_backends(&backends);
        self.report().await;
    }

    async fn report(&self) {
        let flows = u32::try_from(self.keeper.balancer.flows()).unwrap_or(u32::MAX);
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

    async fn take_packets(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        let mut first = Vec::new();
        for _ in 0..PACKETS_AT_ONCE {
            let Some(length) = self.tun.read(buffer).context("read a packet")? else {
                break;
            };
            let packet = &mut buffer[..length];
            let (verdict, flow) = self.keeper.balancer.handle(packet);
            match verdict {
                Verdict::Forward => self.tun.write(packet),
                Verdict::ForwardOnce(_) => first.push(packet.to_vec()),
                Verdict::Drop => {}
            }
            if let Some(key) = flow {
                self.keeper.put(&key).await;
            }
        }
        if !first.is_empty() {
            self.hold(first);
        }
        Ok(())
    }

    /// Sends first packets on when the successor has the entries of their flows, or cannot have them: then
    /// the service is worth more than its redundancy, and the pool says that it has none.
    fn hold(&self, packets: Vec<Vec<u8>>) {
        let Ok(permit) = Arc::clone(&self.held).try_acquire_owned() else {
            return;
        };
        let (tun, committed) = (Arc::clone(&self.tun), self.keeper.commit());
        tokio::spawn(async move {
            if let Err(error) = committed.await {
                tracing::debug!("new connections are not held by a successor: {error}");
            }
            packets.iter().for_each(|packet| tun.write(packet));
            drop(permit);
        });
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
