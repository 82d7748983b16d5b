//! The gate outlives its process.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vnfpool_gate::{Fence, Gate, GateError, PinDirError};

use crate::netns::{self, Lab, Prober, echo, enter};
use crate::{Pins, configured, in_seconds, now};

const NAMESPACE: &str = "VNFPOOL_TEST_NAMESPACE";
const PINS: &str = "VNFPOOL_TEST_PINS";

/// The agent of [`a_killed_agent_leaves_a_closing_gate`], in a process of its own: attaches, opens
/// gate 0 whenever it reads a line, for as many milliseconds as the line says.
#[test]
#[ignore = "started by another test"]
fn agent() {
    let Ok(namespace) = env::var(NAMESPACE) else {
        return;
    };
    enter(&namespace);
    let mut gate = Gate::load(&PathBuf::from(env::var(PINS).unwrap())).unwrap();
    gate.attach("in").unwrap();
    gate.attach("out").unwrap();
    // The slot was configured by the test before, and its entries were inherited.
    let mut lease = gate.lease_cell(0).unwrap();
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let millis = line.unwrap().parse().unwrap();
        lease.open_until(now().after(Duration::from_millis(millis)));
        println!("opened");
    }
}

struct Agent {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Agent {
    fn start(lab: &Lab, pins: &Pins, wrapper: &[&str]) -> Self {
        let own = env::current_exe().unwrap();
        let own = own.to_str().unwrap();
        let words = [
            wrapper,
            &[own, "--ignored", "--exact", "--nocapture", "crash::agent"],
        ];
        let words = words.concat();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .env(NAMESPACE, lab.namespace("gw1"))
            .env(PINS, pins.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut agent = Self { child, answers };
        agent.expect("ready");
        agent
    }

    fn open(&mut self, millis: u64) {
        use std::io::Write;
        writeln!(self.child.stdin.as_mut().unwrap(), "{millis}").unwrap();
        self.expect("opened");
    }

    fn expect(&mut self, answer: &str) {
        let mut line = String::new();
        while !line.ends_with(&format!("{answer}\n")) {
            line.clear();
            assert!(
                self.answers.read_line(&mut line).unwrap() > 0,
                "agent ended"
            );
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may be gone already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Goal: after kill -9 traffic flows until the deadline and no longer; the next process takes the
/// gate over, closed, with no moment in between. Method: a real process is killed.
#[test]
fn a_killed_agent_leaves_a_closing_gate() {
    killed(false);
}

/// Goal: the same for an agent started by `ip netns exec`, which gives it a mount namespace that
/// ends with it, and a new `/sys`.
#[test]
fn a_killed_agent_of_ip_netns_exec_leaves_a_closing_gate() {
    killed(true);
}

fn killed(by_ip_netns_exec: bool) {
    let lab = Lab::new(1);
    let namespace = lab.namespace("gw1");
    let wrapper: &[&str] = if by_ip_netns_exec {
        &["ip", "netns", "exec", &namespace]
    } else {
        &[]
    };
    lab.add_virtual_addresses("gw1");
    let pins = Pins::of(&lab);
    drop(configured(&lab, "gw1", &pins).unwrap());

    let _echoes = ["gw1", "server"].map(|node| echo(&lab, node));
    let mut probers = [netns::INSIDE_V4, netns::SERVER_V4, netns::SERVER_V6]
        .map(|target| Prober::new(&lab, "client", target));
    for prober in &mut probers {
        assert!(prober.is_silent(), "a gate without a process");
    }

    let mut agent = Agent::start(&lab, &pins, wrapper);
    agent.open(600_000);
    for prober in &mut probers {
        assert!(prober.works());
    }
    let busy = lab.within("gw1", || Gate::load(pins.path()).err());
    assert!(
        matches!(busy, Some(GateError::PinDir(PinDirError::Busy { .. }))),
        "{busy:?}"
    );
    // Long enough that probes are still answered after the kill.
    agent.open(5_000);
    agent.kill();
    for prober in &mut probers {
        assert!(prober.works(), "the lease still runs");
    }
    std::thread::sleep(Duration::from_secs(5));
    for prober in &mut probers {
        assert!(prober.is_silent(), "the lease is over");
    }

    // Killed with a long lease: the next one closes the gate before anything else.
    let mut agent = Agent::start(&lab, &pins, wrapper);
    agent.open(600_000);
    assert!(probers[0].works());
    agent.kill();
    assert!(probers[0].works());
    let gate = lab.within("gw1", || Gate::load(pins.path()).unwrap());
    for prober in &mut probers {
        assert!(prober.is_silent(), "closed by the next process");
    }
    drop(gate);
    let gate = configured(&lab, "gw1", &pins).unwrap();
    let mut lease = gate.lease_cell(0).unwrap();
    lease.open_until(in_seconds(600));
    for prober in &mut probers {
        assert!(prober.works(), "opened by the next process");
    }
}

/// Goal: what the next process no longer wants goes, what it wants stays. Method: the second life
/// has the inside only.
#[test]
fn inherited_things_are_retired() {
    let lab = Lab::new(1);
    lab.add_virtual_addresses("gw1");
    let pins = Pins::of(&lab);
    drop(configured(&lab, "gw1", &pins).unwrap());
    let mut gate = lab.within("gw1", || {
        let mut gate = Gate::load(pins.path()).unwrap();
        gate.attach("in").unwrap();
        gate
    });
    gate.set_slot(3, &crate::gated(&lab, "gw1", "in")).unwrap();
    let _echo = echo(&lab, "gw1");
    let mut outside = Prober::new(&lab, "server", netns::OUTSIDE_V4);
    assert!(outside.is_silent(), "still gated by what was left");
    gate.retire_inherited().unwrap();
    assert!(outside.works(), "no longer gated");
    let mut inside = Prober::new(&lab, "client", netns::INSIDE_V4);
    assert!(inside.is_silent());
    let links = std::fs::read_dir(pins.path()).unwrap();
    let names = links.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let links = names.filter(|name| name.starts_with("link_")).count();
    assert_eq!(links, 2, "one link per direction of the inside");
    let mut lease = gate.lease_cell(3).unwrap();
    lease.open_until(in_seconds(600));
    assert!(inside.works());
}

/// Goal: what an older version has left, which knew no places for its keys, is gated by this one.
/// Method: a gate's life ends, its places are lost, and the next life takes the rest over.
#[test]
fn keys_without_places_are_gated_again() {
    let lab = Lab::new(1);
    lab.add_virtual_addresses("gw1");
    let pins = Pins::of(&lab);
    drop(configured(&lab, "gw1", &pins).unwrap());
    std::fs::remove_file(pins.path().join("places")).unwrap();
    let gate = lab.within("gw1", || {
        let mut gate = Gate::load(pins.path()).unwrap();
        gate.attach("in").unwrap();
        gate.attach("out").unwrap();
        gate
    });
    assert!(gate.guards_inherited().unwrap());
    let _echoes = ["gw1", "server"].map(|node| echo(&lab, node));
    let mut lease = gate.lease_cell(0).unwrap();
    for target in [netns::INSIDE_V4, netns::SERVER_V4, netns::SERVER_V6] {
        let mut prober = Prober::new(&lab, "client", target);
        lease.open_until(in_seconds(600));
        assert!(prober.works(), "{target} through an open gate");
        lease.close();
        assert!(prober.is_silent(), "{target} through a closed gate");
    }
}
