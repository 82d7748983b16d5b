//! A function in another language, written from docs/sdk.md.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use vnfpool_model::Role;

use super::pair::{Agent, SLOT};

/// The script: it says what it has done, and waits for a line before it goes on.
struct Script {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(agent: &Agent) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../sdk/python/try.py");
        let mut command = Command::new("python3");
        command.arg("-B").arg(script).arg(agent.socket());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is installed");
        let stdout = child.stdout.take().unwrap();
        Self {
            child,
            said: BufReader::new(stdout).lines(),
        }
    }

    /// Its next line; nothing when it has ended.
    fn says(&mut self) -> String {
        self.said.next().map_or_else(String::new, Result::unwrap)
    }

    fn go_on(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
    }
}

#[test]
fn a_function_in_python_needs_nothing_of_ours() {
    let agent = Agent::start();
    agent.set_role(Role::Active, 1);
    let mut script = Script::start(&agent);
    assert_eq!(script.says(), "unhealthy");
    let fault = agent.health.fault().unwrap();
    assert!(fault.contains("no backend answers"), "{fault}");
    script.go_on();
    assert_eq!(script.says(), "loaded");
    let report = agent.hub.report().unwrap();
    assert_eq!((report.load, report.capacity), (3, 4));
    assert_eq!(agent.health.fault(), None);
    script.go_on();
    agent.hub.remove_slot(SLOT);
    assert_eq!(script.says(), "gone");
    drop(agent);
    script.go_on();
    assert_eq!(script.says(), "ok");
    assert!(script.child.wait().unwrap().success());
}
