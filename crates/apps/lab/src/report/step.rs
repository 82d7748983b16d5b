//! The steps of the demonstration, as data: for lines, JSON and the page.

use serde::Serialize;

use super::timeline::Timeline;
use crate::measure::{Balanced, Figures};
use crate::namespaces::Gateway;
use crate::traffic::Download;
use crate::vnfpool::Vnf;

/// One step of the demonstration.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// A short name for machines.
    pub step: String,
    /// What was done, for people.
    pub title: String,
    /// Who served before.
    pub active_before: Gateway,
    /// Who served after, when that is clear.
    pub active_after: Option<Gateway>,
    /// What it did to the traffic.
    #[serde(flatten)]
    pub figures: Figures,
    /// What became of the connections through the load balancer, where the function is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balanced: Option<Balanced>,
    /// What went wrong beside the figures: the pool did not get ready again, for example.
    pub problem: Option<String>,
    /// What is to be known to read the figures.
    #[serde(skip)]
    pub(crate) note: Option<&'static str>,
    #[serde(skip)]
    pub(crate) timeline: Timeline,
}

impl StepReport {
    /// No connection lost or moved to another backend, never two owners, the pool ready again.
    pub fn passed(&self) -> bool {
        self.tcp_alive() == self.tcp_total()
            && self.figures.two_owners_ms == 0
            && self.figures.stale_frames == 0
            && self.balanced.as_ref().is_none_or(Balanced::is_kept)
            && self.problem.is_none()
    }

    /// Who serves when the step is over; the new one, should there be two.
    pub(crate) fn serving(&self) -> Gateway {
        let newest = match self.figures.takeover_ms {
            Some(_) => self.active_before.other(),
            None => self.active_before,
        };
        self.active_after.unwrap_or(newest)
    }

    /// Connections that live, both families.
    pub fn tcp_alive(&self) -> usize {
        self.figures.ipv4.tcp_alive + self.figures.ipv6.tcp_alive
    }

    /// All connections, both families.
    pub fn tcp_total(&self) -> usize {
        self.figures.ipv4.tcp_total + self.figures.ipv6.tcp_total
    }

    /// The longer outage of the two families, in ms.
    pub fn outage_ms(&self) -> f64 {
        self.figures.ipv4.outage_ms.max(self.figures.ipv6.outage_ms)
    }

    /// The figures in one line.
    pub fn facts(&self) -> String {
        let takeover = self.figures.takeover_ms.map_or_else(
            || format!("{} goes on", self.active_before),
            |takeover| {
                format!(
                    "{} serves after {takeover:.0} ms",
                    self.active_before.other()
                )
            },
        );
        let mut facts = format!(
            "{takeover} · outage {:.0} ms · {} of {} connections alive · two owners {} ms",
            self.outage_ms(),
            self.tcp_alive(),
            self.tcp_total(),
            self.figures.two_owners_ms
        );
        if let Some(balanced) = &self.balanced {
            let Balanced { kept, total, .. } = balanced;
            facts.push_str(&format!(" · {kept} of {total} still with their backend"));
        }
        if self.figures.stale_frames > 0 {
            facts.push_str(&format!(" · {} stale frames", self.figures.stale_frames));
        }
        facts
    }
}

/// The whole demonstration.
#[derive(Debug, Clone)]
pub struct DemoReport {
    /// Who was shown, and with which settings.
    pub system: String,
    /// What its pool does.
    pub vnf: Vnf,
    /// The steps, as far as they went.
    pub steps: Vec<StepReport>,
    /// The download that ran through all steps, when they all ran.
    pub download: Option<Download>,
    /// The machine and the time, for the page.
    pub machine: String,
}

impl DemoReport {
    /// Every step passed and the download arrived whole.
    pub fn passed(&self) -> bool {
        !self.steps.is_empty()
            && self.steps.iter().all(StepReport::passed)
            && self
                .download
                .as_ref()
                .is_some_and(|download| download.intact)
    }

    pub(crate) const fn title(&self) -> &'static str {
        match self.vnf {
            Vnf::Gateway => "Two NAT gateways, one service",
            Vnf::LoadBalancer => "Two load balancers, one service",
        }
    }

    pub(crate) fn subtitle(&self) -> String {
        let way = match self.vnf {
            Vnf::Gateway => "the kernel's NAT",
            Vnf::LoadBalancer => {
                "a load balancer in user space, whose table the agents replicate, and through the \
                 kernel's NAT beside it,"
            }
        };
        format!(
            "{}: real traffic through {way} while the active gateway is killed, frozen, cut off. \
             Measured from outside.",
            self.system
        )
    }

    /// What a demonstration that passed has shown.
    pub(crate) const fn shown(&self) -> &'static str {
        match self.vnf {
            Vnf::Gateway => "no connection lost, never two owners",
            Vnf::LoadBalancer => {
                "no connection lost, each still with its backend, never two owners"
            }
        }
    }

    /// What became of the connections through the load balancer in the end.
    pub(crate) fn balanced(&self) -> Option<&Balanced> {
        self.steps.last()?.balanced.as_ref()
    }

    pub(crate) fn longest_outage_ms(&self) -> f64 {
        self.steps
            .iter()
            .map(StepReport::outage_ms)
            .fold(0.0, f64::max)
    }

    pub(crate) fn connections_alive(&self) -> usize {
        self.steps.last().map_or(0, StepReport::tcp_alive)
    }

    pub(crate) fn connections_total(&self) -> usize {
        self.steps.last().map_or(0, StepReport::tcp_total)
    }

    pub(crate) fn two_owners_ms(&self) -> u64 {
        self.steps
            .iter()
            .map(|step| step.figures.two_owners_ms)
            .sum()
    }
}
