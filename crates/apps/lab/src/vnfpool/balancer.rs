//! The example of a load balancer beside each agent: a function whose state its agents replicate.
//!
//! The gateways go on translating everything else; the connections to the service take the other way, without
//! connection tracking: what keeps them is the load balancer's own table.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command;
use crate::measure::Visits;
use crate::namespaces::{Gateway, Lab, ProcessMark, VIP_INSIDE_V4, VIP_OUTSIDE_V4};
use crate::process::Daemon;
use crate::traffic::Backends;

/// The address of the service; of no host.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 1);

/// The backends, all on the server's host.
pub(crate) const BACKENDS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 2, 0, 21),
    Ipv4Addr::new(10, 2, 0, 22),
    Ipv4Addr::new(10, 2, 0, 23),
];

/// The port of service and backends.
pub(crate) const PORT: u16 = 9003;

/// What a gateway's rules need besides.
fn rules() -> String {
    format!(
        "table inet balancer {{
            chain untracked {{
                type filter hook prerouting priority -350; policy accept;
                iifname \"lb0\" notrack
                ip daddr {SERVICE} notrack
                ip saddr 10.2.0.0/24 tcp sport {PORT} notrack
            }}
        }}
        insert rule inet gateway input ip saddr 10.2.0.0/24 tcp sport {PORT} accept
        insert rule inet gateway forward iifname \"lb0\" accept
        insert rule inet gateway forward oifname \"lb0\" accept
        "
    )
}

/// The load balancers, and what they balance to.
#[derive(Debug, Default)]
pub(super) struct Balancers {
    instances: [Option<Daemon>; 2],
    backends: Option<Backends>,
}

impl Balancers {
    /// Prepares the laboratory and starts the backends: a load balancer without any could not serve.
    pub(super) fn prepare(&mut self, lab: &Lab) -> Result<()> {
        prepare_hosts(lab)?;
        self.backends = Some(Backends::start(lab)?);
        Ok(())
    }

    /// Starts the load balancer of a gateway; it waits for its agent.
    pub(super) fn start(&mut self, program: &Path, lab: &Lab, gateway: Gateway) -> Result<()> {
        let socket = lab.directory().join(gateway.name()).join("sdk.sock");
        let mut command = Command::new(program);
        command.arg("lb").arg("--socket").arg(socket);
        command.arg("--service").arg(format!("{SERVICE}:{PORT}"));
        for backend in BACKENDS {
            command.arg("--backend").arg(format!("{backend}:{PORT}"));
        }
        // The device is of the one before until that has ended.
        self.instances[gateway.index()] = None;
        let daemon = Daemon::start(lab, gateway.name(), "lb", command)?;
        self.instances[gateway.index()] = Some(daemon);
        Ok(())
    }

    /// Who has sent data to which backend so far.
    pub(super) fn visits(&self) -> Visits {
        let backends = self.backends.as_ref();
        backends.map(Backends::visits).unwrap_or_default()
    }

    /// Those of the load balancer on a gateway.
    pub(super) fn processes(&mut self, gateway: Gateway) -> Vec<ProcessMark> {
        let instance = self.instances[gateway.index()].as_mut();
        instance.map(Daemon::processes).unwrap_or_default()
    }
}

/// Backends, routes, rules.
fn prepare_hosts(lab: &Lab) -> Result<()> {
    let ip = |host: &str, line: String| -> Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let run = || command::run("ip", &words, "").map(drop);
        lab.namespace(host)?
            .run(run)
            .with_context(|| format!("ip {line} on {host}"))
    };
    for backend in BACKENDS {
        ip("server", format!("address replace {backend}/24 dev eth0"))?;
    }
    ip(
        "server",
        format!("route replace 10.1.0.0/24 via {VIP_OUTSIDE_V4}"),
    )?;
    ip(
        "client",
        format!("route replace {SERVICE}/32 via {VIP_INSIDE_V4}"),
    )?;
    for gateway in Gateway::BOTH {
        let run = || command::run("nft", &["-f", "-"], &rules()).map(drop);
        let namespace = lab.namespace(gateway.name())?;
        namespace
            .run(run)
            .with_context(|| format!("the load balancer's rules on {gateway}"))?;
    }
    Ok(())
}

/// What an element's file needs besides; `directory` is the element's.
pub(super) fn in_element_file(directory: &Path) -> String {
    format!(
        "\n[sdk]\nsocket = \"{}\"\n",
        directory.join("sdk.sock").display()
    )
}
