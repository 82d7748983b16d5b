//! A laboratory from building to removal, and the faults of its network.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};

use super::faults::Ports;
use super::record::{ProcessMark, Record};
use super::rtnl::{Rtnl, interface_index};
use super::topology::{self, Gateway, HOSTS};
use super::watched::Watched;
use super::{Namespace, faults, ruleset};
use crate::command;

/// A laboratory that is up. Dropping it removes everything it made, unless it is kept.
#[derive(Debug)]
pub struct Lab {
    id: String,
    directory: PathBuf,
    record: Arc<Mutex<Record>>,
    namespaces: Vec<Namespace>,
    pub(super) switch: Rtnl,
    pub(super) gateways: [Rtnl; 2],
    pub(super) ports: [Ports; 2],
    /// The manager's only port.
    pub(super) manager_port: u32,
    pub(super) lan_interfaces: [[u32; 2]; 2],
    /// Set for every daemon that starts on a host: host, name, value.
    variables: Mutex<Vec<(&'static str, String, String)>>,
    /// When the ports of a gateway were cut off, 0 while they are not.
    pub(super) cut_since: Arc<[AtomicU64; 2]>,
}

/// A leftover of an earlier run that was removed.
#[derive(Debug)]
pub struct Stale {
    /// Its id.
    pub id: String,
    /// Whether it had been left up by `--keep`.
    pub kept: bool,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Removes what earlier, ended runs have left behind; laboratories in use are not touched, and
    /// those left up by `--keep` only when `kept` says so.
    ///
    /// # Errors
    /// When something of such a run cannot be removed.
    pub fn clean_stale(kept: bool) -> Result<Vec<Stale>> {
        let mut removed = Vec::new();
        for record in Record::stale()
            .into_iter()
            .filter(|record| kept || !record.kept)
        {
            record
                .remove_all()
                .with_context(|| format!("cleaning up laboratory {}", record.id))?;
            removed.push(Stale {
                id: record.id,
                kept: record.kept,
            });
        }
        Ok(removed)
    }

    /// Builds a laboratory: namespaces, bridges, addresses and the gateways' rules.
    ///
    /// # Errors
    /// Without root, without `ip` or `nft`, or when the kernel lacks veth, bridge or nf_tables.
    pub fn build() -> Result<Self> {
        let pid = std::process::id();
        let id = match COUNT.fetch_add(1, Ordering::Relaxed) {
            0 => format!("vp{pid}"),
            n => format!("vp{pid}x{n}"),
        };
        let owner = ProcessMark::of(i32::try_from(pid)?, "laboratory")
            .context("reading our own start time from /proc")?;
        let record = Record {
            namespaces: HOSTS.iter().map(|host| format!("{id}-{host}")).collect(),
            id: id.clone(),
            owner,
            kept: false,
            processes: Vec::new(),
            pins: Vec::new(),
            scratch: Vec::new(),
            is_over: false,
        };
        // On disk before the first namespace exists: an interruption leaves no orphans.
        record.save()?;
        Self::build_recorded(id, record.clone()).inspect_err(|_| {
            // What was built so far goes; the error that is reported is the first one.
            let _second_error = record.remove_all();
        })
    }

    fn build_recorded(id: String, record: Record) -> Result<Self> {
        let directory = Record::directory(&id);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("making {}", directory.display()))?;
        command::run("ip", &["-batch", "-"], &topology::batch_namespaces(&id))
            .context("making network namespaces (needs root)")?;
        let namespaces = HOSTS
            .iter()
            .map(|host| Namespace::open(&format!("{id}-{host}")))
            .collect::<Result<Vec<_>>>()?;
        for (host, namespace) in HOSTS.iter().zip(&namespaces) {
            namespace.run(|| write_sysctls(&topology::sysctls(host)))?;
        }
        command::run("ip", &["-batch", "-"], &topology::batch_wires(&id))
            .context("laying the laboratory's wires")?;
        for (host, namespace) in HOSTS.iter().zip(&namespaces) {
            let arguments = ["-n", namespace.name(), "-batch", "-"];
            command::run("ip", &arguments, &topology::batch_host(host))
                .with_context(|| format!("configuring host {host}"))?;
        }
        let [switch, gw1, gw2] = ["switch", "gw1", "gw2"].map(|host| find(&namespaces, host));
        let (switch, gw1, gw2) = (switch?, gw1?, gw2?);
        let lab = Self {
            switch: Rtnl::open(switch)?,
            gateways: [Rtnl::open(gw1)?, Rtnl::open(gw2)?],
            ports: [Ports::of(switch, "gw1")?, Ports::of(switch, "gw2")?],
            manager_port: interface_index(switch, "mg-manager")?,
            lan_interfaces: [
                [interface_index(gw1, "in")?, interface_index(gw1, "out")?],
                [interface_index(gw2, "in")?, interface_index(gw2, "out")?],
            ],
            variables: Mutex::default(),
            cut_since: Arc::new([AtomicU64::new(0), AtomicU64::new(0)]),
            id,
            directory,
            record: Arc::new(Mutex::new(record)),
            namespaces,
        };
        for gateway in Gateway::BOTH {
            lab.load_ruleset(gateway)?;
        }
        lab.namespace("switch")?
            .run(|| command::run("nft", &["-f", "-"], faults::RULESET))
            .context("loading the rules of the switch")?;
        Ok(lab)
    }

    /// The id in front of all its names.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory for configurations, keys and logs; it goes with the laboratory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The namespace of a host: `client`, `mon`, `server`, `gw1`, `gw2`, `manager`, `switch`.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn namespace(&self, host: &str) -> Result<&Namespace> {
        find(&self.namespaces, host)
    }

    /// A directory on the machine's disk; it goes with the laboratory, whose own is in memory.
    pub(crate) fn scratch(&self) -> Result<PathBuf> {
        let path = Record::scratch(&self.id);
        let mut record = self.record();
        record.scratch.push(path.clone());
        record.save()?;
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Sets a variable for every daemon that starts on a host from now on, whoever's it is.
    pub(crate) fn set_variable(&self, host: &'static str, name: &str, value: &str) {
        let mut variables = self
            .variables
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        variables.push((host, name.to_owned(), value.to_owned()));
    }

    /// The variables of a host: names and values.
    pub(crate) fn variables(&self, host: &str) -> Vec<(String, String)> {
        let variables = self
            .variables
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let of_host = variables.iter().filter(|(of, ..)| *of == host);
        of_host
            .map(|(_, name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Leaves the laboratory up when it is dropped; a later run or `lab clean` removes it.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn keep(&self) -> Result<()> {
        let mut record = self.record();
        record.kept = true;
        record.save()
    }

    /// Remembers a started process for the clean-up after an interrupted run.
    pub(crate) fn remember(&self, process: ProcessMark) -> Result<()> {
        let mut record = self.record();
        record.processes.retain(ProcessMark::is_alive);
        record.processes.push(process);
        record.save()
    }

    /// Remembers where a process of ours has pinned BPF objects: the directory it holds open.
    pub(crate) fn remember_pins(&self, process: &ProcessMark) -> Result<()> {
        self.record().note_pins(process)
    }

    /// Writes down a process that somebody else has started in this laboratory, and what it pins,
    /// so that both go with the laboratory, also when whoever runs it is killed.
    ///
    /// # Errors
    /// When that cannot be written down, or the process has ended already.
    pub fn watch(&self, pid: u32, what: &str) -> Result<Watched> {
        let mark = ProcessMark::of(i32::try_from(pid)?, what)
            .with_context(|| format!("{what} ended at once"))?;
        self.remember(mark.clone())?;
        Watched::start(mark, Arc::clone(&self.record))
    }

    /// (Re)loads the rules of the network function on a gateway.
    pub(crate) fn load_ruleset(&self, gateway: Gateway) -> Result<()> {
        self.namespace(gateway.name())?
            .run(|| command::run("nft", &["-f", "-"], &ruleset()))
            .with_context(|| format!("loading the rules of {gateway}"))?;
        Ok(())
    }

    /// Since when the ports of each gateway are dead; 0 while they are not.
    pub(crate) fn cuts(&self) -> Arc<[AtomicU64; 2]> {
        Arc::clone(&self.cut_since)
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut record = self.record();
        if !record.kept {
            // The next run finds the record and tries again.
            let _reported_by_the_next_run = record.remove_all();
            record.is_over = true;
        }
    }
}

fn find<'a>(namespaces: &'a [Namespace], host: &str) -> Result<&'a Namespace> {
    HOSTS
        .iter()
        .position(|name| *name == host)
        .and_then(|index| namespaces.get(index))
        .with_context(|| format!("the laboratory has no host {host}"))
}

/// Writes settings below `/proc/sys/net`, which shows the calling thread's namespace.
pub(crate) fn write_sysctls(settings: &[(&str, &str)]) -> Result<()> {
    for (path, value) in settings {
        std::fs::write(format!("/proc/sys/net/{path}"), value)
            .with_context(|| format!("setting net/{path} to {value}"))?;
    }
    Ok(())
}
