//! keepalived + conntrackd, as found in Debian, through the same faults.

mod config;
mod conntrackd;
mod install;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::command;
use crate::namespaces::{Gateway, Lab, ProcessMark};
use crate::process::Daemon;
use crate::run::Scheduling;
use crate::signals;
use crate::system::{Scene, System};

pub(crate) use conntrackd::{Cache, Conntrackd, ask as ask_conntrackd, log as conntrackd_log};
pub(crate) use install::install_missing;

/// The priority of the standby, and of a demoted active.
const PRIORITY_ACTIVE: u8 = 150;
const PRIORITY_STANDBY: u8 = 100;
const PRIORITY_DEMOTED: u8 = 50;

/// keepalived and conntrackd on both gateways.
#[derive(Debug)]
pub(crate) struct Keepalived {
    advert: Duration,
    scheduling: Scheduling,
    /// How long the logs were before the fault.
    marks: [usize; 2],
    keepalived: [Option<Daemon>; 2],
    conntrackd: [Option<Daemon>; 2],
}

impl Keepalived {
    /// With an advertisement each `advert`: 1 s is the default, 10 ms the protocol's minimum.
    pub(crate) fn new(advert: Duration, scheduling: Scheduling) -> Self {
        Self {
            advert,
            scheduling,
            marks: [0, 0],
            keepalived: [None, None],
            conntrackd: [None, None],
        }
    }

    fn write_keepalived(&self, lab: &Lab, gateway: Gateway, priority: u8) -> Result<()> {
        let directory = lab.directory();
        let path = directory.join(format!("{gateway}-keepalived.conf"));
        let advert_s = self.advert.as_secs_f64();
        let text = config::keepalived(gateway, advert_s, priority, self.scheduling, directory);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    fn write_all(&self, lab: &Lab, gateway: Gateway) -> Result<()> {
        let directory = lab.directory();
        conntrackd::write_configuration(lab, gateway, Cache::External)?;
        let script = directory.join(format!("{gateway}-notify.sh"));
        fs::write(
            &script,
            config::notify_script(&conntrackd::configuration(lab, gateway)),
        )
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("writing {}", script.display()))?;
        self.write_keepalived(lab, gateway, own_priority(gateway))
    }

    fn start_conntrackd(&mut self, lab: &Lab, gateway: Gateway) -> Result<()> {
        self.conntrackd[gateway.index()] = Some(conntrackd::start(lab, gateway)?);
        Ok(())
    }

    fn start_keepalived(&mut self, lab: &Lab, gateway: Gateway) -> Result<()> {
        let file = |what: &str| lab.directory().join(format!("{gateway}-{what}"));
        for leftover in ["keepalived.pid", "vrrp.pid"] {
            // Only there after a kill.
            let _absent = fs::remove_file(file(leftover));
        }
        let mut command = Command::new("/usr/sbin/keepalived");
        command
            .args(["--dont-fork", "--vrrp", "--log-console", "--log-detail"])
            .arg("--use-file")
            .arg(file("keepalived.conf"))
            .arg("--pid")
            .arg(file("keepalived.pid"))
            .arg("--vrrp_pid")
            .arg(file("vrrp.pid"));
        let daemon = Daemon::start(lab, gateway.name(), "keepalived", command)?;
        self.keepalived[gateway.index()] = Some(daemon);
        Ok(())
    }

    /// Kills what runs on a gateway and removes the addresses that it left in the kernel.
    fn clear(&mut self, lab: &Lab, gateway: Gateway) -> Result<()> {
        self.keepalived[gateway.index()] = None;
        self.conntrackd[gateway.index()] = None;
        let batch = "addr del 10.1.0.254/24 dev in\naddr del 10.2.0.254/24 dev out\n\
                     addr del fd00:1::fe/64 dev in\naddr del fd00:2::fe/64 dev out\n";
        let mut ip = Command::new("ip");
        ip.args([
            "-force",
            "-n",
            lab.namespace(gateway.name())?.name(),
            "-batch",
            "-",
        ]);
        // An address that was not there is what we want.
        command::run_command(&mut ip, batch)?;
        Ok(())
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(10) + self.advert * 10
    }
}

impl System for Keepalived {
    fn name(&self) -> &'static str {
        "keepalived"
    }

    fn profile(&self) -> String {
        let scheduling = match self.scheduling {
            Scheduling::RealTime => "real-time",
            Scheduling::Ordinary => "ordinary scheduling",
        };
        format!("advert {} ms, {scheduling}, FTFW", self.advert.as_millis())
    }

    fn detection(&self) -> Duration {
        self.advert.mul_f64(3.61)
    }

    fn heartbeat(&self) -> Duration {
        self.advert
    }

    fn start(&mut self, scene: &Scene) -> Result<()> {
        for gateway in Gateway::BOTH {
            self.write_all(&scene.lab, gateway)?;
            self.start_conntrackd(&scene.lab, gateway)?;
        }
        for gateway in Gateway::BOTH {
            self.start_keepalived(&scene.lab, gateway)?;
        }
        scene.wait_owner(Gateway::Gw1, self.limit())?;
        // The notify scripts of the start run in the background; a second lets them end.
        signals::sleep(Duration::from_secs(1))?;
        scene.wait_owner(Gateway::Gw1, self.limit())
    }

    fn wait_ready(&mut self, scene: &Scene) -> Result<Gateway> {
        signals::sleep(Duration::from_secs(1))?;
        signals::wait_for("a single owner", self.limit(), || {
            Ok(scene.sole_owner().ok())
        })
    }

    fn processes(&mut self, gateway: Gateway) -> Vec<ProcessMark> {
        let index = gateway.index();
        [
            self.keepalived[index].as_mut(),
            self.conntrackd[index].as_mut(),
        ]
        .into_iter()
        .flatten()
        .flat_map(Daemon::processes)
        .collect()
    }

    fn mark_logs(&mut self, lab: &Lab) {
        self.marks = Gateway::BOTH.map(|gateway| log(lab, gateway).len());
    }

    /// How often either gateway has become master of the inside LAN.
    fn decisions(&self, lab: &Lab) -> Option<usize> {
        let of = |gateway: Gateway| {
            let log = log(lab, gateway);
            let since = log.get(self.marks[gateway.index()]..).unwrap_or_default();
            since.matches(BECOMES_MASTER).count()
        };
        Some(Gateway::BOTH.map(of).iter().sum())
    }

    fn ask_to_stop(&mut self, gateway: Gateway) -> Result<()> {
        if let Some(daemon) = &self.keepalived[gateway.index()] {
            daemon.signal(Signal::TERM);
        }
        Ok(())
    }

    fn start_again(&mut self, scene: &Scene, gateway: Gateway) -> Result<()> {
        self.clear(&scene.lab, gateway)?;
        self.start_conntrackd(&scene.lab, gateway)?;
        self.start_keepalived(&scene.lab, gateway)
    }

    /// By priority: the one in the way is demoted, the chosen one gets its own priority back.
    fn switchover(&mut self, scene: &Scene, to: Gateway) -> Result<()> {
        for gateway in Gateway::BOTH {
            let priority = if gateway != to && own_priority(gateway) > own_priority(to) {
                PRIORITY_DEMOTED
            } else {
                own_priority(gateway)
            };
            self.write_keepalived(&scene.lab, gateway, priority)?;
        }
        // Only gw1's priority ever changes.
        if let Some(daemon) = &self.keepalived[Gateway::Gw1.index()] {
            daemon.signal(Signal::HUP);
        }
        Ok(())
    }

    fn kill_manager(&mut self) -> Result<()> {
        bail!("keepalived has no manager to kill")
    }

    fn restart_manager(&mut self, _scene: &Scene) -> Result<()> {
        bail!("keepalived has no manager to start")
    }

    fn reset(&mut self, scene: &Scene) -> Result<()> {
        for gateway in Gateway::BOTH {
            self.clear(&scene.lab, gateway)?;
        }
        self.start(scene)
    }
}

/// What keepalived says when it takes the address over; the sync group moves both LANs together.
const BECOMES_MASTER: &str = "(inside) Entering MASTER STATE";

fn log(lab: &Lab, gateway: Gateway) -> String {
    let path = lab.directory().join(format!("{gateway}-keepalived.log"));
    fs::read_to_string(path).unwrap_or_default()
}

fn own_priority(gateway: Gateway) -> u8 {
    match gateway {
        Gateway::Gw1 => PRIORITY_ACTIVE,
        Gateway::Gw2 => PRIORITY_STANDBY,
    }
}
