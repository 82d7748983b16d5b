//! The control connection to the manager: registration, configuration, reports, switchovers.
//!
//! Succession does not depend on it. While the manager is away this task calls again and again,
//! and the pool goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use prost::Message as _;
use tokio::sync::mpsc;
use vnfpool_heartbeat::PeerPath;
use vnfpool_transport::PeerPolicy;
use vnfpool_transport::quic::{
    CloseReason, Endpoint, EndpointOptions, FrameReader, FrameWriter, StreamKind,
};
use vnfpool_wire::control::frame::Kind;
use vnfpool_wire::control::{self, Frame, Hello, Path, Welcome};
use vnfpool_wire::datagram::NodeId;

use super::agent::Agent;
use super::pulse::Command;
use super::{LAN_PATH_PREFIX, MANAGER_PATH};
use crate::pulse::KEY_LABEL;

/// Between two calls to a manager that does not answer.
const CALL_AGAIN: Duration = Duration::from_millis(100);

/// A restarted manager knows nothing of the old connection, and the datagrams are lost on it until
/// there is a new one: so an unanswered call is made again soon, and a manager that has answered no
/// datagram for [`SILENCE_MAX`] is called anew.
const CALL_TIME_MAX: Duration = Duration::from_millis(700);
const SILENCE_MAX: Duration = Duration::from_millis(500);

/// A new connection is given this time before its silence counts.
const SETTLING: Duration = Duration::from_secs(2);

/// The manager has to answer a hello within this time.
const WELCOME_TIME_MAX: Duration = Duration::from_secs(5);

/// How often the element reports when nothing has changed.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Frames that wait for the network.
pub(crate) const OUTBOX_MAX: usize = 32;

/// Keeps a connection to the manager until the agent ends. Returns only when the manager says
/// that this agent must not run.
pub(crate) async fn run(agent: Arc<Agent>) -> anyhow::Result<()> {
    let mut last_error = String::new();
    let any = SocketAddr::new(super::any_of(&[agent.config.manager.ip()]), 0);
    let endpoint = Endpoint::bind(
        any,
        agent.credentials.clone(),
        EndpointOptions {
            handshake_timeout: CALL_TIME_MAX,
            ..EndpointOptions::default()
        },
        Arc::clone(&agent.rejections),
    )?;
    loop {
        match converse(&agent, &endpoint).await {
            Ok(Over::Lost(text)) => tracing::warn!("the manager is away: {text}; the pool goes on"),
            Ok(Over::ForEver { why, text }) => {
                // At once: whoever serves instead may be on another machine, and begin in a moment.
                agent.remove_all_slots(why).await?;
                bail!("this agent must not run: {text}")
            }
            Err(error) => {
                let error = format!("{error:#}");
                if error != last_error {
                    tracing::warn!("cannot register with the manager: {error}; trying again");
                    last_error = error;
                }
            }
        }
        tokio::time::sleep(CALL_AGAIN).await;
    }
}

/// How a connection ended.
enum Over {
    Lost(String),
    /// This life of the agent has to end.
    ForEver {
        why: &'static str,
        text: String,
    },
}

const REPLACED: &str = "another agent has this identity";
const FENCED: &str = "this life of the agent was declared off";

async fn converse(agent: &Arc<Agent>, endpoint: &Endpoint) -> anyhow::Result<Over> {
    let connection = endpoint
        .connect(agent.config.manager, PeerPolicy::Manager)
        .await?;
    let (mut writer, mut reader) = connection.open_stream(StreamKind::Control).await?;
    let hello = Kind::Hello(hello(agent));
    writer
        .send(Frame { kind: Some(hello) }.encode_to_vec())
        .await?;
    let answer = tokio::time::timeout(WELCOME_TIME_MAX, receive(&mut reader))
        .await
        .context("no welcome in time")??;
    let welcome = match answer {
        Kind::Welcome(welcome) => welcome,
        Kind::Refusal(refusal) if refusal.code == "duplicate" => {
            return Ok(Over::ForEver {
                why: REPLACED,
                text: refusal.text,
            });
        }
        // The manager does not listen to this life any more; whoever starts it again begins a new
        // one.
        Kind::Refusal(refusal) if refusal.code == "fenced" => {
            return Ok(Over::ForEver {
                why: FENCED,
                text: refusal.text,
            });
        }
        Kind::Refusal(refusal) if refusal.code == "pool" => {
            // Not even the pair may go on: the operator has deleted the pool.
            agent.remove_all_slots("its pool is gone").await?;
            bail!("refused (pool): {}; nothing is served here", refusal.text);
        }
        Kind::Refusal(refusal) => bail!("refused ({}): {}", refusal.code, refusal.text),
        _ => bail!("the manager's first message is neither welcome nor refusal"),
    };
    let secret = connection.export_key(KEY_LABEL, b"")?;
    agent.pulse.send(Command::Keys {
        node: NodeId::MANAGER,
        secret,
        side: connection.side(),
    });
    welcomed(agent, &welcome)?;
    let over = talk(agent, &mut writer, &mut reader).await;
    let closed = connection.close_reason();
    let reason = closed.as_ref().map_or_else(String::new, |r| r.to_string());
    if let Some(CloseReason::Peer { code, .. }) = closed
        && code == u64::from(control::CLOSE_REPLACED)
    {
        return Ok(Over::ForEver {
            why: REPLACED,
            text: reason,
        });
    }
    match over {
        Ok(()) => Ok(Over::Lost(reason)),
        Err(error) => Ok(Over::Lost(format!("{error:#}"))),
    }
}

fn welcomed(agent: &Arc<Agent>, welcome: &Welcome) -> anyhow::Result<()> {
    let datagram: SocketAddr = welcome.datagram.parse().context("the manager's address")?;
    agent.pulse.send(Command::Reach {
        node: NodeId::MANAGER,
        paths: vec![PeerPath {
            name: MANAGER_PATH.to_owned(),
            remote: datagram,
        }],
    });
    agent.set_node(NodeId(welcome.node), &welcome.datagram);
    tracing::info!(
        node = welcome.node,
        manager_version = welcome.program_version,
        "registered with the manager"
    );
    Ok(())
}

async fn talk(
    agent: &Arc<Agent>,
    writer: &mut FrameWriter,
    reader: &mut FrameReader,
) -> anyhow::Result<()> {
    let (outbox, mut out) = mpsc::channel::<Frame>(OUTBOX_MAX);
    agent.set_outbox(Some(outbox));
    let mut interval = tokio::time::interval(REPORT_INTERVAL);
    let mut listening = tokio::time::interval(SILENCE_MAX / 5);
    let began = Instant::now();
    let outcome = loop {
        tokio::select! {
            _ = interval.tick() => {
                let frame = Frame { kind: Some(Kind::ElementReport(agent.report())) };
                if let Err(error) = writer.send(frame.encode_to_vec()).await {
                    break Err(error.into());
                }
            }
            _ = listening.tick() => {
                if began.elapsed() > SETTLING && agent.manager_silence() > SILENCE_MAX {
                    break Err(anyhow::anyhow!("it answers no datagrams (UDP port 7401)"));
                }
            }
            frame = out.recv() => {
                let Some(frame) = frame else { break Ok(()) };
                if let Err(error) = writer.send(frame.encode_to_vec()).await {
                    break Err(error.into());
                }
            }
            kind = receive(reader) => match kind {
                Ok(Kind::Configuration(configuration)) => agent.configure(configuration).await,
                Ok(Kind::Switchover(command)) => agent.switch_over(&command),
                // A newer manager may say more than we know.
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        }
    };
    agent.set_outbox(None);
    outcome
}

fn hello(agent: &Agent) -> Hello {
    let config = &agent.config;
    let path = |name: String, address: std::net::IpAddr| Path {
        name,
        datagram: SocketAddr::new(address, config.ports.heartbeat).to_string(),
        peer: SocketAddr::new(address, config.ports.state).to_string(),
    };
    let own = config.paths.iter().map(|p| path(p.name.clone(), p.address));
    let lans = config
        .lans
        .iter()
        .map(|l| path(format!("{LAN_PATH_PREFIX}{}", l.name), l.address));
    Hello {
        version_min: *control::VERSIONS.start(),
        version_max: *control::VERSIONS.end(),
        function: config.function.clone(),
        host: config.host.clone(),
        incarnation: agent.incarnation.0,
        paths: own.chain(lans).collect(),
        capacity: config.capacity,
        program_version: crate::VERSION.to_owned(),
        gate_driver: agent.gate_driver(),
        realtime: agent.realtime_text(),
        lans: config.lans.iter().map(|l| l.name.clone()).collect(),
        labels: config.labels.clone().into_iter().collect(),
    }
}

/// The next message; those of a kind that only newer managers know are passed over.
async fn receive(reader: &mut FrameReader) -> anyhow::Result<Kind> {
    loop {
        let bytes = reader.recv().await?.context("the stream ended")?;
        let frame = Frame::decode(bytes).context("decode a control message")?;
        if let Some(kind) = frame.kind {
            return Ok(kind);
        }
    }
}
