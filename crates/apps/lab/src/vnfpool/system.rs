//! What the laboratory asks of any system under test, for vnfpool.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::takeover::{Marks, TakeoverSteps};
use super::{
    MANAGER_ADDRESS, READY_LIMIT, STOP_LIMIT, Vnfpool, Watermark, element_log, files, manager_log,
};
use crate::command;
use crate::measure::Visits;
use crate::namespaces::{Gateway, Lab, ProcessMark};
use crate::process::Daemon;
use crate::system::{Scene, System};

impl System for Vnfpool {
    fn name(&self) -> &'static str {
        "vnfpool"
    }

    fn profile(&self) -> String {
        match self.balancers {
            None => self.profile.name().to_owned(),
            Some(_) => format!("{}, with a load balancer", self.profile.name()),
        }
    }

    fn detection(&self) -> Duration {
        self.profile.lease() + self.profile.heartbeat()
    }

    fn heartbeat(&self) -> Duration {
        self.profile.heartbeat()
    }

    fn put_manager_on(&mut self, scene: &Scene, gateway: Gateway) -> Result<()> {
        let address = format!("{MANAGER_ADDRESS}/24");
        for (host, verb) in [("manager", "del"), (gateway.name(), "add")] {
            let namespace = scene.lab.namespace(host)?.name();
            let arguments = ["-n", namespace, "addr", verb, &address, "dev", "mgmt"];
            command::run("ip", &arguments, "").context("moving the manager's address")?;
        }
        self.manager_host = gateway.name();
        Ok(())
    }

    fn store(&self, scene: &Scene) -> Result<PathBuf> {
        Ok(scene.lab.directory().join("manager/store"))
    }

    fn store_threads(&mut self) -> Vec<i32> {
        let named_store = |task: &Path| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "store")
        };
        let of = |process: &ProcessMark| {
            let tasks = fs::read_dir(format!("/proc/{}/task", process.pid));
            let tasks = tasks
                .into_iter()
                .flatten()
                .flatten()
                .map(|task| task.path());
            let named = tasks.filter(|task| named_store(task));
            named
                .filter_map(|task| task.file_name()?.to_str()?.parse().ok())
                .collect::<Vec<i32>>()
        };
        self.manager_processes().iter().flat_map(of).collect()
    }

    fn start(&mut self, scene: &Scene) -> Result<()> {
        let lab = &scene.lab;
        if let Some(balancers) = &mut self.balancers {
            balancers.prepare(lab)?;
        }
        let program = self.program.display().to_string();
        let directory = lab.directory().join("manager").display().to_string();
        let arguments = [
            "manager",
            "init",
            "--dir",
            &directory,
            "--trust-domain",
            "lab.example",
            "--address",
            MANAGER_ADDRESS,
        ];
        lab.namespace(self.manager_host)?
            .run(|| command::run(&program, &arguments, ""))
            .context("setting up the manager's directory and certificates")?;
        self.start_manager(lab, None)?;
        let pool = lab.directory().join("pool.toml");
        fs::write(&pool, files::pool(self.profile))
            .with_context(|| format!("writing {}", pool.display()))?;
        self.operate(lab, &["pool", "apply", "-f", &pool.display().to_string()])
            .context("creating the pool")?;
        for gateway in Gateway::BOTH {
            self.enrol(lab, gateway)?;
        }
        for gateway in Gateway::BOTH {
            self.start_element(lab, gateway)?;
        }
        self.bring_to_start(scene)
    }

    fn wait_ready(&mut self, scene: &Scene) -> Result<Gateway> {
        self.wait_armed(&scene.lab, READY_LIMIT)
    }

    fn visits(&self) -> Option<Visits> {
        self.balancers.as_ref().map(|balancers| balancers.visits())
    }

    fn is_quarantined(&self, scene: &Scene, gateway: Gateway) -> Result<Option<bool>> {
        let state = self.state(&scene.lab)?;
        Ok(Some(state.quarantined.contains(&gateway)))
    }

    fn processes(&mut self, gateway: Gateway) -> Vec<ProcessMark> {
        let mut processes = self.element_processes(gateway);
        if let Some(balancers) = &mut self.balancers {
            processes.extend(balancers.processes(gateway));
        }
        if let Some(loads) = &mut self.loads {
            processes.extend(loads.processes(gateway));
        }
        processes
    }

    fn agent_processes(&mut self, gateway: Gateway) -> Vec<ProcessMark> {
        // The supervisor comes first.
        self.element_processes(gateway).split_off(1)
    }

    fn replace_agent(&mut self, _scene: &Scene, gateway: Gateway) -> Result<()> {
        if let Some(daemon) = &self.elements[gateway.index()] {
            daemon.signal(Signal::HUP);
        }
        Ok(())
    }

    fn mark_logs(&mut self, lab: &Lab) {
        let elements = Gateway::BOTH.map(|gateway| element_log(lab, gateway));
        self.marks = Marks::set([&elements[0], &elements[1]], &manager_log(lab));
    }

    fn takeover_steps(&self, lab: &Lab, gateway: Gateway) -> Option<TakeoverSteps> {
        let log = element_log(lab, gateway);
        self.marks.steps(gateway.index(), &log, &manager_log(lab))
    }

    fn watermark(&self, lab: &Lab, gateway: Gateway) -> Option<Watermark> {
        self.marks
            .watermark(gateway.index(), &element_log(lab, gateway))
    }

    fn decisions(&self, lab: &Lab) -> Option<usize> {
        Some(self.marks.records(&manager_log(lab)))
    }

    fn manager_processes(&mut self) -> Vec<ProcessMark> {
        self.manager
            .as_mut()
            .map(Daemon::processes)
            .unwrap_or_default()
    }

    fn ask_to_stop(&mut self, gateway: Gateway) -> Result<()> {
        if let Some(daemon) = &self.elements[gateway.index()] {
            daemon.signal(Signal::TERM);
        }
        Ok(())
    }

    fn start_again(&mut self, scene: &Scene, gateway: Gateway) -> Result<()> {
        if let Some(daemon) = self.elements[gateway.index()].take() {
            daemon.stop(STOP_LIMIT)?;
        }
        self.start_element(&scene.lab, gateway)
    }

    fn switchover(&mut self, scene: &Scene, to: Gateway) -> Result<()> {
        self.operate(&scene.lab, &["switchover", "edge", "--to", to.name()])?;
        Ok(())
    }

    fn kill_manager(&mut self) -> Result<()> {
        if let Some(mut manager) = self.manager.take() {
            for process in manager.processes() {
                process.signal(Signal::KILL);
            }
        }
        Ok(())
    }

    fn restart_manager(&mut self, scene: &Scene) -> Result<()> {
        self.start_manager(&scene.lab, None)
    }

    fn crash_at(&mut self, scene: &Scene, step: &'static str) -> Result<()> {
        self.kill_manager()?;
        self.start_manager(&scene.lab, Some(step))?;
        self.wait_ready(scene).map(drop)
    }

    fn reset(&mut self, scene: &Scene) -> Result<()> {
        self.start_missing(&scene.lab)?;
        // The next run is about a pool in which nobody has failed yet.
        for gateway in Gateway::BOTH {
            self.operate(&scene.lab, &["pardon", "edge", gateway.name()])?;
        }
        self.bring_to_start(scene)
    }
}

impl Vnfpool {
    fn element_processes(&mut self, gateway: Gateway) -> Vec<ProcessMark> {
        let element = self.elements[gateway.index()].as_mut();
        element.map(Daemon::processes).unwrap_or_default()
    }
}
