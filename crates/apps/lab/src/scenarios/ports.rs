//! Ports that were given out and not replicated when the active died must not be given out again.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::{Injection, Scenario, Stage, processes};
use crate::clock;
use crate::command;
use crate::namespaces::{Gateway, SERVER_V4};
use crate::signals;

/// The active dies while connections begin as fast as a client can begin them; afterwards another
/// client begins as many, from the same ports of its own.
pub(super) struct NatPorts;

impl Scenario for NatPorts {
    fn name(&self) -> &'static str {
        "nat-ports"
    }

    fn about(&self) -> &'static str {
        "kill -9 of the active in a burst of new connections; an error if the server sees a port twice"
    }

    /// It measures nothing that `kill` does not, and fails instead.
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
        burst(stage, FIRST_CLIENT, &server, &mut seen)?;
        let injection = processes::signal_all(stage, active, Signal::KILL);
        let before = seen.flows();
        let limit = stage.system.detection() * 4 + Duration::from_secs(5);
        stage.scene.wait_owner(active.other(), limit)?;
        burst(stage, SECOND_CLIENT, &server, &mut seen)?;
        // What was sent last arrives.
        signals::sleep(Duration::from_millis(50))?;
        seen.read(&server);
        let after = seen.flows() - before;
        if before < FLOWS / 2 || after < FLOWS / 2 {
            bail!(
                "too few of {FLOWS} flows came through: {before} before the fault, {after} after it"
            );
        }
        match seen.twice {
            0 => Ok(injection),
            twice => bail!("{twice} ports were given to two flows, of {before} and {after}"),
        }
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.system.start_again(stage.scene, active)
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

/// A flow from each of the ports of a client, as fast as the server can keep up.
fn burst(stage: &Stage<'_>, client: &str, server: &UdpSocket, seen: &mut Seen) -> Result<()> {
    let namespace = stage.scene.lab.namespace("client")?;
    namespace.run(|| {
        for port in (FIRST_PORT..).take(FLOWS) {
            let from: SocketAddr = format!("{client}:{port}").parse()?;
            let socket = UdpSocket::bind(from).context("beginning a flow")?;
            let flow = flow_of(from);
            // One that the kernel has no room for is one flow less.
            let _refused = socket.send_to(&flow, (SERVER_V4, PORT));
            seen.read(server);
            if port % 64 == 0 {
                clock::sleep_until(clock::now() + clock::MILLISECOND);
            }
        }
        Ok(())
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
const FLOWS: usize = 4_000;
const FIRST_PORT: u16 = 20_000;
/// Where nothing else of the laboratory listens.
const PORT: u16 = 9_300;
