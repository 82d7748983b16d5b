//! The rival's programs: Debian's own, installed when they are missing.
//!
//! Debian starts a service when it installs it, and at every boot after that. Here they only run
//! inside laboratories, so both is prevented, as `scripts/setup` does it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command;

/// A program of the rival, its package, and the service in it that Debian would start.
const PROGRAMS: [(&str, &str, Option<&str>); 3] = [
    ("/usr/sbin/keepalived", "keepalived", Some("keepalived")),
    ("/usr/sbin/conntrackd", "conntrackd", Some("conntrackd")),
    ("/usr/sbin/conntrack", "conntrack", None),
];

/// Asked by Debian's packages before they start a service (invoke-rc.d).
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// The line by which `scripts/setup` and we know a policy of ours, left by an interruption.
const POLICY_MARK: &str = "# made by the set-up of vnfpool: removed at its end";

/// Installs keepalived and conntrackd unless they are there.
///
/// # Errors
/// When they cannot be installed; the message has the command to do it by hand.
pub(crate) fn install_missing(output: &mut dyn Write) -> Result<()> {
    let missing = PROGRAMS
        .iter()
        .filter(|(program, ..)| !Path::new(program).exists());
    let missing: Vec<_> = missing.copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    let by_hand = format!("apt-get install {}", packages.join(" "));
    writeln!(output, "the rival is not installed here: {by_hand}").context("writing progress")?;
    install("apt-get", &packages, Path::new(POLICY))
        .with_context(|| format!("installing the rival; try `apt-get update && {by_hand}`"))?;
    for service in missing.iter().filter_map(|(.., service)| *service) {
        keep_off(service);
    }
    Ok(())
}

fn install(installer: &str, packages: &[&str], policy: &Path) -> Result<()> {
    let _no_services = NoServices::start(policy)?;
    let mut install = Command::new(installer);
    install
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    let result = command::run_command(&mut install, "")?;
    if !result.status.success() {
        let complaint = String::from_utf8_lossy(&result.stderr);
        let last = complaint.lines().last().unwrap_or("no message");
        bail!("{installer} failed: {last}");
    }
    Ok(())
}

/// A service that was kept from starting now must not start at the next boot either; and the
/// machine's own policy may have let it start.
fn keep_off(service: &str) {
    let mut actions = vec!["disable"];
    if Path::new("/run/systemd/system").exists() {
        actions.push("stop");
    }
    for action in actions {
        // Without systemd there is nothing to keep off.
        let _ = command::run("systemctl", &[action, service], "");
    }
}

/// While it lives, installed services do not start. A policy that is there already is the
/// machine's own, and stays as it is.
#[derive(Debug)]
struct NoServices {
    ours: Option<PathBuf>,
}

impl NoServices {
    fn start(policy: &Path) -> Result<Self> {
        if policy.exists() && !is_ours(policy) {
            return Ok(Self { ours: None });
        }
        let script = format!("#!/bin/sh\n{POLICY_MARK}\nexit 101\n");
        let context = || {
            format!(
                "writing {}, so that no service starts here",
                policy.display()
            )
        };
        fs::write(policy, script).with_context(context)?;
        let guard = Self {
            ours: Some(policy.to_owned()),
        };
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755)).with_context(context)?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = self.ours.take().filter(|policy| is_ours(policy)) {
            // What stays is known by its mark, and goes with the next installation.
            let _ = fs::remove_file(policy);
        }
    }
}

fn is_ours(policy: &Path) -> bool {
    fs::read_to_string(policy).is_ok_and(|text| text.contains(POLICY_MARK))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An installer that asks the policy as a package does, and notes the answer.
    fn installer(directory: &Path, policy: &Path) -> String {
        let path = directory.join("apt-get");
        let answer = directory.join("answer");
        let script = format!(
            "#!/bin/sh\n{} keepalived start\necho $? \"$@\" >{}\n",
            policy.display(),
            answer.display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    /// Goal: what is installed does not start on this machine. Method: an installer that asks.
    #[test]
    fn services_are_forbidden_while_packages_are_installed_and_only_then() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        let installer = installer(directory.path(), &policy);
        for left_behind in [false, true] {
            if left_behind {
                fs::write(&policy, format!("#!/bin/sh\n{POLICY_MARK}\nexit 101\n")).unwrap();
            }
            install(&installer, &["keepalived"], &policy).unwrap();
            let answer = fs::read_to_string(directory.path().join("answer")).unwrap();
            assert!(answer.starts_with("101 install "), "{answer}");
            assert!(answer.ends_with(" keepalived\n"), "{answer}");
            assert!(!policy.exists(), "it goes with the installation");
        }
        assert!(install("false", &["keepalived"], &policy).is_err());
        assert!(!policy.exists(), "also with one that failed");
    }

    #[test]
    fn the_policy_of_the_machine_stays() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        let installer = installer(directory.path(), &policy);
        let own = "#!/bin/sh\nexit 0\n";
        fs::write(&policy, own).unwrap();
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).unwrap();
        install(&installer, &["keepalived"], &policy).unwrap();
        let answer = fs::read_to_string(directory.path().join("answer")).unwrap();
        assert!(answer.starts_with("0 "), "{answer}");
        assert_eq!(fs::read_to_string(&policy).unwrap(), own);
    }

    /// Goal: one mark, known to both who leave it.
    #[test]
    fn the_mark_is_that_of_the_set_up() {
        let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../scripts/setup");
        let setup = fs::read_to_string(setup).unwrap();
        assert!(setup.contains(&format!("POLICY_MARK=\"{POLICY_MARK}\"\n")));
        assert!(setup.contains(&format!("POLICY={POLICY}\n")));
    }
}
