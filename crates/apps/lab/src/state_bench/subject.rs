//! Who replicates: vnfpool, and conntrackd in its two ways.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::ctnetlink::{self, Ends, Flow};
use crate::namespaces::{Gateway, Lab, ProcessMark};
use crate::rival::{Cache, Conntrackd, ask_conntrackd};
use crate::signals;
use crate::system::{Scene, System as _};
use crate::vnfpool::{Profile, Vnfpool};

/// Which system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Kind {
    /// vnfpool, default profile.
    #[serde(rename = "vnfpool")]
    Vnfpool,
    /// The same at the level `commit`.
    #[serde(rename = "vnfpool, commit")]
    Commit,
    /// conntrackd FTFW: the standby's daemon holds what it is told until a commit.
    #[serde(rename = "conntrackd FTFW")]
    Ftfw,
    /// conntrackd FTFW without that cache: into the standby's kernel at once.
    #[serde(rename = "conntrackd direct")]
    Direct,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Vnfpool => "vnfpool",
            Self::Commit => "vnfpool, commit",
            Self::Ftfw => "conntrackd FTFW",
            Self::Direct => "conntrackd direct",
        }
    }
}

/// A running system: gw1 active, gw2 its standby.
#[derive(Debug)]
pub(super) enum Subject {
    Vnfpool(Vnfpool),
    Conntrackd(Cache, Conntrackd),
}

impl Subject {
    pub(super) fn new(kind: Kind) -> Result<Self> {
        let conntrackd = |cache| Self::Conntrackd(cache, Conntrackd::new(cache));
        Ok(match kind {
            Kind::Vnfpool => Self::Vnfpool(Vnfpool::new(Profile::Default)?),
            Kind::Commit => Self::Vnfpool(Vnfpool::new(Profile::Commit)?),
            Kind::Ftfw => conntrackd(Cache::External),
            Kind::Direct => conntrackd(Cache::Kernel),
        })
    }

    pub(super) fn start(&mut self, scene: &Scene) -> Result<()> {
        match self {
            Self::Vnfpool(vnfpool) => vnfpool.start(scene),
            Self::Conntrackd(_, conntrackd) => {
                conntrackd.start(&scene.lab)?;
                // What the daemons tell each other at their start is over by then.
                signals::sleep(Duration::from_secs(1))
            }
        }
    }

    pub(super) fn processes(&mut self, gateway: Gateway) -> Vec<ProcessMark> {
        match self {
            Self::Vnfpool(vnfpool) => vnfpool.processes(gateway),
            Self::Conntrackd(_, conntrackd) => conntrackd.processes(gateway),
        }
    }

    /// Fails when the system is not what it was at the start: gw1 active, everything running.
    pub(super) fn check(&mut self, scene: &Scene) -> Result<()> {
        match self {
            Self::Vnfpool(vnfpool) => match vnfpool.wait_ready(scene)? {
                Gateway::Gw1 => Ok(()),
                Gateway::Gw2 => bail!("the standby has taken over under load"),
            },
            Self::Conntrackd(_, conntrackd) => conntrackd.check(&scene.lab),
        }
    }

    /// Starts the system on the standby again, after it was killed there.
    pub(super) fn start_standby(&mut self, scene: &Scene) -> Result<()> {
        match self {
            Self::Vnfpool(vnfpool) => vnfpool.start_again(scene, Gateway::Gw2),
            Self::Conntrackd(_, conntrackd) => conntrackd.start_again(&scene.lab, Gateway::Gw2),
        }
    }

    /// How many entries the standby holds, of whomever: in its kernel, or in its external cache.
    pub(super) fn held(&self, lab: &Lab) -> Result<u64> {
        match self {
            Self::Conntrackd(Cache::External, _) => {
                external_entries(&ask_conntrackd(lab, Gateway::Gw2, &["-s"])?)
            }
            _ => ctnetlink::count(lab.namespace(Gateway::Gw2.name())?),
        }
    }

    /// Whether what the standby shows tells how flows are translated.
    pub(super) const fn shows_translations(&self) -> bool {
        !matches!(self, Self::Conntrackd(Cache::External, _))
    }

    /// The measured flows that the standby holds, sorted.
    pub(super) fn held_flows(&self, lab: &Lab) -> Result<Vec<Flow>> {
        match self {
            Self::Conntrackd(Cache::External, _) => {
                let listed = ask_conntrackd(lab, Gateway::Gw2, &["-e"])?;
                let mut flows: Vec<Flow> = listed
                    .lines()
                    .filter_map(listed_flow)
                    .filter(Flow::is_measured)
                    .collect();
                flows.sort_unstable();
                Ok(flows)
            }
            _ => ctnetlink::dump(lab.namespace(Gateway::Gw2.name())?),
        }
    }
}

/// What `conntrackd -s` says about its external cache.
pub(super) fn external_entries(statistics: &str) -> Result<u64> {
    let external = statistics.split("cache external:").nth(1);
    let line = external.and_then(|text| {
        let of_cache = text
            .lines()
            .take_while(|line| !line.trim().is_empty() || line.is_empty());
        of_cache
            .into_iter()
            .find_map(|line| line.strip_prefix("current active connections:"))
    });
    line.context("`conntrackd -s` shows no external cache")?
        .trim()
        .parse()
        .context("a count of `conntrackd -s` that is no number")
}

/// A line of `conntrackd -e`, which shows no translation:
/// `tcp 6 ESTABLISHED src=… dst=… sport=… dport=… …`
fn listed_flow(line: &str) -> Option<Flow> {
    let mut words = line.split_whitespace().skip(1);
    let protocol = words.next()?.parse().ok()?;
    let mut fields = words.skip_while(|word| !word.starts_with("src="));
    let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
    let source: Ipv4Addr = field("src")?.parse().ok()?;
    let target: Ipv4Addr = field("dst")?.parse().ok()?;
    let ports: (u16, u16) = (field("sport")?.parse().ok()?, field("dport")?.parse().ok()?);
    Some(Flow {
        protocol,
        original: Ends {
            source: (source, ports.0),
            target: (target, ports.1),
        },
        reply: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_that_of_the_external_cache() {
        let text = "cache internal:\ncurrent active connections:\t    7\nconnections created:\t 9\n\n\
                    cache external:\ncurrent active connections:\t   12\nconnections created:\t 12\n";
        assert_eq!(external_entries(text).unwrap(), 12);
        assert!(external_entries("cache internal:\ncurrent active connections: 7\n").is_err());
    }

    #[test]
    fn a_listed_flow_is_read() {
        let line = "udp      17 src=10.1.0.10 dst=10.2.0.10 sport=10494 dport=20000 [UNREPLIED] \
                    [active since 1s]";
        let flow = listed_flow(line).unwrap();
        assert!(flow.is_measured());
        assert_eq!(flow.protocol, 17);
        assert_eq!(flow.original.source.1, 10_494);
        let tcp =
            "tcp      6 ESTABLISHED src=10.1.0.10 dst=10.2.0.10 sport=10494 dport=20000 [ASSURED]";
        let tcp = listed_flow(tcp).unwrap();
        assert_eq!((tcp.protocol, tcp.original), (6, flow.original));
        let other = "icmp     1 src=10.1.0.10 dst=10.2.0.10 type=8 code=0 id=1";
        assert_eq!(listed_flow(other), None);
    }
}
