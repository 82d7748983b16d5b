//! A function in another language, written from docs/sdk.md.

use std::process::Command;

use vnfpool_model::Role;

use super::pair::Agent;

#[test]
fn a_function_in_python_needs_nothing_of_ours() {
    let agent = Agent::start();
    agent.set_role(Role::Active, 1);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../sdk/python/try.py");
    let tried = Command::new("python3")
        .arg("-B")
        .arg(script)
        .arg(agent.socket())
        .output();
    let tried = tried.expect("python3 is installed");
    let (out, err) = (
        String::from_utf8_lossy(&tried.stdout),
        String::from_utf8_lossy(&tried.stderr),
    );
    assert_eq!((out.trim(), tried.status.success()), ("ok", true), "{err}");
}
