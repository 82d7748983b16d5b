//! Ports that were given out and not replicated when the active died must not be given out again.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::{Injection, Scenario, Stage, processes};
use crate::clock::{self, Nanos};
use crate::command;
use crate::namespaces::{Gateway, SERVER_V4};
use crate::signals;

/// Every process of the active stops, and its kernel goes on for as long as it may: what begins
/// now is replicated to nobody. Then it is cut off, and another client begins as many connections
/// through the new active, from the same ports of its own.
pub(super) struct NatPorts;

impl Scenario for NatPorts {
    fn name(&self) -> &'static str {
        "nat-ports"
    }

    fn about(&self) -> &'static str {
        "the active is lost with connections that nobody has replicated; an error if the server sees one's port again"
    }

    /// It measures nothing that `silent` does not, and fails instead.
    fn only_by_name(&self) -> bool {
        true
    }

    fn furnish(&self, stage: &mut Stage<'_>) -> Result<()> {
        let client = stage.scene.lab.namespace("client")?;
        let address = format!("addr add {SECOND_CLIENT}/24 dev eth0\n");
        command::run("ip", &["-n", client.name(), "-batch", "-"], &address)
            .context("adding a second client")?;
        Ok(())
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let lab = &stage.scene.lab;
        let server = lab.namespace("server")?;
        let server = server.run(|| {
            let socket = UdpSocket::bind((SERVER_V4, PORT)).context("listening for new flows")?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let mut seen = Seen::default();
        let injection = processes::signal_all(stage, active, Signal::STOP);
        let limit = injection.at + clock::nanos(UNREPLICATED);
        let begun = burst(stage, FIRST_CLIENT, FLOWS_MAX, limit, &server, &mut seen)?;
        lab.set_cut(active, true)?;
        // What is on its way arrives.
        signals::sleep(Duration::from_millis(5))?;
        seen.read(&server);
        let before = seen.flows();
        let limit = stage.system.detection() * 4 + Duration::from_secs(5);
        stage.scene.wait_owner(active.other(), limit)?;
        burst(stage, SECOND_CLIENT, begun, Nanos::MAX, &server, &mut seen)?;
        signals::sleep(Duration::from_millis(50))?;
        seen.read(&server);
        let after = seen.flows() - before;
        if before < FLOWS_MIN || after + seen.twice < FLOWS_MIN {
            bail!(
                "too few of {begun} flows came through: {before} before the fault, {after} after it"
            );
        }
        match seen.twice {
            0 => Ok(injection),
            twice => bail!("{twice} ports were given to two flows, of {before} and {after}"),
        }
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.scene.lab.set_cut(active, false)?;
        processes::signal_all(stage, active, Signal::CONT);
        Ok(())
    }
}

/// What the server saw.
#[derive(Default)]
struct Seen {
    /// Whose port it is.
    flow_of: BTreeMap<SocketAddr, [u8; FLOW_BYTES]>,
    twice: usize,
}

impl Seen {
    fn flows(&self) -> usize {
        self.flow_of.len()
    }

    fn read(&mut self, server: &UdpSocket) {
        let mut flow = [0; FLOW_BYTES];
        while let Ok((_, from)) = server.recv_from(&mut flow) {
            let known = *self.flow_of.entry(from).or_insert(flow);
            self.twice += usize::from(known != flow);
        }
    }
}

/// A flow from each of the first ports of a client, until `limit`; returns how many.
fn burst(
    stage: &Stage<'_>,
    client: &str,
    flows: usize,
    limit: Nanos,
    server: &UdpSocket,
    seen: &mut Seen,
) -> Result<usize> {
    let namespace = stage.scene.lab.namespace("client")?;
    namespace.run(|| {
        let mut begun = 0;
        for port in (FIRST_PORT..).take(flows) {
            if clock::now() >= limit {
                break;
            }
            let from: SocketAddr = format!("{client}:{port}").parse()?;
            let socket = UdpSocket::bind(from).context("beginning a flow")?;
            // One that the kernel has no room for is one flow less.
            let _refused = socket.send_to(&flow_of(from), (SERVER_V4, PORT));
            begun += 1;
            seen.read(server);
        }
        Ok(begun)
    })
}

/// Says which flow it is.
fn flow_of(from: SocketAddr) -> [u8; FLOW_BYTES] {
    let mut flow = [0; FLOW_BYTES];
    let text = from.to_string();
    for (byte, of) in flow.iter_mut().zip(text.bytes()) {
        *byte = of;
    }
    flow
}

const FIRST_CLIENT: &str = "10.1.0.10";
const SECOND_CLIENT: &str = "10.1.0.20";
const FLOW_BYTES: usize = 32;
const FLOWS_MAX: usize = 4_000;
/// Fewer say nothing.
const FLOWS_MIN: usize = 50;
/// Well within a lease of the shortest profile.
const UNREPLICATED: Duration = Duration::from_millis(15);
const FIRST_PORT: u16 = 20_000;
/// Where nothing else of the laboratory listens.
const PORT: u16 = 9_300;
