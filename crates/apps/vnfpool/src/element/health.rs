//! Whether the network function of this element works, looked at every few milliseconds.
//!
//! A fault counts at once; health counts after it has lasted for a moment, so that a flapping
//! link does not make a flapping pool.

mod news;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use vnfpool_config::{Family, Health, Probe, ProbeTest, Ruleset};
use vnfpool_linux::health::{Forwarding, FunctionProbe, ProcessWatch, TableFamily, TableQuestion};
use vnfpool_linux::link_watch::LinkWatch;
use vnfpool_linux::links::{self, LinkError};
use vnfpool_linux::sysctl;

use self::news::{Findings, News};
use super::sdk::FunctionHealth;
use crate::pulse::guard;

/// How often the kernel is asked.
const INTERVAL: Duration = Duration::from_millis(5);

/// Told of every change: the faults, none when the function could serve.
pub(crate) type OnChange = Box<dyn FnMut(&[String]) + Send>;

/// Told when an interface has come back.
pub(crate) type OnLinkUp = Box<dyn FnMut() + Send>;

/// Told, once, when the name of an interface has got another device than at the start.
pub(crate) type OnMadeAnew = Box<dyn FnMut(&str) + Send>;

/// Who is told what.
pub(crate) struct Told {
    pub(crate) change: OnChange,
    pub(crate) link_up: OnLinkUp,
    pub(crate) made_anew: OnMadeAnew,
}

/// Watches until `stop`.
pub(crate) fn start(
    health: Health,
    interfaces: &[String],
    function: Option<Arc<FunctionHealth>>,
    stop: Arc<AtomicBool>,
    resumes: bool,
    told: Told,
) -> anyhow::Result<JoinHandle<()>> {
    let mut watched = Vec::new();
    for name in interfaces {
        watched.push(Watched {
            name: name.clone(),
            ifindex: links::find(name)?.ifindex,
            has_gone: false,
        });
    }
    let indexes: Vec<_> = watched.iter().map(|w| w.ifindex).collect();
    let link_watch = LinkWatch::open(&indexes)?;
    let probe = health
        .probe
        .clone()
        .map(|probe| Prober::start(probe, Arc::clone(&stop)));
    let probe = probe.transpose()?;
    let mut watcher = Watcher {
        forwarding: health.forwarding.iter().map(forwarding_of).collect(),
        table: health.ruleset.as_ref().and_then(table_of),
        health,
        watched,
        link_watch,
        probe,
        function,
        process: None,
        on_link_up: told.link_up,
        on_made_anew: Some(told.made_anew),
    };
    std::thread::Builder::new()
        .name("health".into())
        .spawn(move || {
            guard::or_abort("health", || {
                watch(&mut watcher, &stop, resumes, told.change)
            })
        })
        .context("start the health thread")
}

fn watch(watcher: &mut Watcher, stop: &AtomicBool, resumes: bool, mut on_change: OnChange) {
    let mut news = News::new(resumes);
    while !stop.load(Ordering::Relaxed) {
        let findings = watcher.look();
        if let Some(faults) = news.of(Instant::now(), findings) {
            on_change(faults);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// An interface as it was at the start.
struct Watched {
    name: String,
    ifindex: u32,
    has_gone: bool,
}

impl Watched {
    /// Whether the name has got another device: the sockets and virtual devices of this process
    /// are those of the former one.
    ///
    /// A new device may have the number of the former one. That one is gone in between; it is
    /// missed only if that takes less than [`INTERVAL`].
    fn is_made_anew(&mut self) -> bool {
        match links::find(&self.name) {
            Ok(found) => self.has_gone || found.ifindex != self.ifindex,
            Err(LinkError::NotFound { .. }) => {
                self.has_gone = true;
                false
            }
            // The next look comes soon.
            Err(_) => false,
        }
    }
}

fn forwarding_of(family: &Family) -> (&'static str, Forwarding) {
    match family {
        Family::Ipv4 => ("IPv4", Forwarding::of(sysctl::Family::V4)),
        Family::Ipv6 => ("IPv6", Forwarding::of(sysctl::Family::V6)),
    }
}

/// None if the family is none.
fn table_of(ruleset: &Ruleset) -> Option<TableQuestion> {
    let family = match ruleset.family.as_str() {
        "inet" => TableFamily::Inet,
        "ip" => TableFamily::Ip,
        "ip6" => TableFamily::Ip6,
        "arp" => TableFamily::Arp,
        "bridge" => TableFamily::Bridge,
        "netdev" => TableFamily::Netdev,
        _ => return None,
    };
    Some(TableQuestion::new(family, &ruleset.table))
}

struct Watcher {
    health: Health,
    forwarding: Vec<(&'static str, Forwarding)>,
    table: Option<TableQuestion>,
    watched: Vec<Watched>,
    link_watch: LinkWatch,
    probe: Option<Prober>,
    /// The function that registers at the SDK's socket.
    function: Option<Arc<FunctionHealth>>,
    process: Option<ProcessWatch>,
    on_link_up: OnLinkUp,
    on_made_anew: Option<OnMadeAnew>,
}

impl Watcher {
    fn look(&mut self) -> Findings {
        let mut faults = Vec::new();
        self.check_forwarding(&mut faults);
        self.check_ruleset(&mut faults);
        self.check_interfaces(&mut faults);
        self.check_process(&mut faults);
        // In this order: an answer that comes in between is not taken for the lack of one.
        let probe_is_unknown = self.probe.as_ref().is_some_and(Prober::has_not_answered);
        let probe_fault = self.probe.as_ref().and_then(Prober::fault);
        let function = self.function.as_ref();
        let function_is_unknown = function.is_some_and(|function| function.is_unknown());
        let function_fault = function.and_then(|function| function.fault());
        // Whoever of the two has answered that something is wrong is not unknown.
        let is_fault = |fault: &Option<String>, is_unknown: bool| fault.is_some() && !is_unknown;
        let is_known = is_fault(&probe_fault, probe_is_unknown)
            || is_fault(&function_fault, function_is_unknown);
        let probe_is_unknown = (probe_is_unknown || function_is_unknown) && !is_known;
        let probe_fault = join(probe_fault, function_fault);
        Findings {
            faults,
            probe_fault,
            probe_is_unknown,
        }
    }

    fn check_forwarding(&mut self, faults: &mut Vec<String>) {
        for (name, forwarding) in &mut self.forwarding {
            match forwarding.is_on() {
                Ok(true) => {}
                Ok(false) => faults.push(format!("{name} forwarding is off")),
                Err(error) => faults.push(format!("{name} forwarding is not known: {error}")),
            }
        }
    }

    fn check_ruleset(&mut self, faults: &mut Vec<String>) {
        let Some(ruleset) = &self.health.ruleset else {
            return;
        };
        let (family, table) = (&ruleset.family, &ruleset.table);
        let Some(question) = &mut self.table else {
            return faults.push(format!("'{family}' is no nftables family"));
        };
        match question.exists() {
            Ok(true) => {}
            Ok(false) => faults.push(format!("the nftables table {family} {table} is missing")),
            Err(error) => faults.push(error.to_string()),
        }
    }

    fn check_interfaces(&mut self, faults: &mut Vec<String>) {
        // Errors mean that the next look comes 5 ms later.
        while let Ok(Some(change)) = self.link_watch.poll() {
            if change.is_usable {
                (self.on_link_up)();
            }
        }
        for watched in &mut self.watched {
            let is_usable = self.link_watch.is_usable(watched.ifindex);
            if is_usable && !watched.has_gone {
                continue;
            }
            let name = &watched.name;
            faults.push(format!("the interface {name} is down"));
            if watched.is_made_anew()
                && let Some(mut tell) = self.on_made_anew.take()
            {
                tell(&watched.name);
            }
        }
    }

    fn check_process(&mut self, faults: &mut Vec<String>) {
        let Some(pid_file) = &self.health.pid_file else {
            return;
        };
        if self.process.as_ref().is_some_and(ProcessWatch::is_alive) {
            return;
        }
        self.process = read_pid(pid_file).and_then(|pid| ProcessWatch::open(pid).ok());
        if self.process.is_none() {
            faults.push(format!(
                "the process of {} does not run",
                pid_file.display()
            ));
        }
    }
}

fn join(one: Option<String>, other: Option<String>) -> Option<String> {
    match (one, other) {
        (Some(one), Some(other)) => Some(format!("{one}; {other}")),
        (one, other) => one.or(other),
    }
}

fn read_pid(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What may pass beyond a probe's interval and time limit before it counts as hanging.
const PROBE_GRACE: Duration = Duration::from_secs(2);

/// What the operator's probe has said last.
struct Answer {
    fault: Option<String>,
    at: Instant,
    is_first: bool,
}

impl Answer {
    fn now(fault: Option<String>) -> Self {
        Self {
            fault,
            at: Instant::now(),
            is_first: false,
        }
    }

    /// It has said nothing yet.
    fn none() -> Self {
        let unknown = "the function probe has not answered yet".to_owned();
        Self {
            is_first: true,
            ..Self::now(Some(unknown))
        }
    }

    /// An answer that is too old is one no longer.
    fn fault(&self, now: Instant, age_max: Duration) -> Option<String> {
        match now.saturating_duration_since(self.at) > age_max {
            true => Some("the function probe hangs and cannot be ended".to_owned()),
            false => self.fault.clone(),
        }
    }
}

/// Runs the operator's probe on a thread of its own: it may take long.
struct Prober {
    answer: Arc<Mutex<Answer>>,
    age_max: Duration,
}

impl Prober {
    fn start(probe: Probe, stop: Arc<AtomicBool>) -> anyhow::Result<Self> {
        let answer = Arc::new(Mutex::new(Answer::none()));
        let result = Arc::clone(&answer);
        let Probe {
            test,
            interval,
            timeout,
        } = probe;
        let probe = match test {
            ProbeTest::Command(command) => FunctionProbe::Exec { command, timeout },
            ProbeTest::Socket {
                socket,
                send,
                expect,
            } => FunctionProbe::Ask {
                socket,
                send,
                expect,
                timeout,
            },
        };
        let run = move || {
            while !stop.load(Ordering::Relaxed) {
                let fault = probe.run().err().map(|error| error.to_string());
                *result.lock().unwrap_or_else(PoisonError::into_inner) = Answer::now(fault);
                std::thread::sleep(interval);
            }
        };
        std::thread::Builder::new()
            .name("probe".into())
            .spawn(move || guard::or_abort("probe", run))
            .context("start the probe thread")?;
        let age_max = interval + timeout + PROBE_GRACE;
        Ok(Self { answer, age_max })
    }

    /// Neither has it answered, nor has it had the time to.
    fn has_not_answered(&self) -> bool {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.is_first && answer.at.elapsed() <= self.age_max
    }

    fn fault(&self) -> Option<String> {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.fault(Instant::now(), self.age_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the last good word of a probe that hangs in the kernel does not stand for ever.
    #[test]
    fn an_old_answer_is_a_fault() {
        let answer = Answer::now(None);
        let age_max = Duration::from_secs(2);
        assert_eq!(answer.fault(answer.at + age_max, age_max), None);
        let later = answer.at + age_max + Duration::from_nanos(1);
        assert!(answer.fault(later, age_max).unwrap().contains("hangs"));
    }
}
