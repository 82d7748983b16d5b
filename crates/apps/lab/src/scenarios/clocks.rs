//! Wall clocks that jump. Who serves must not go by them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Injection, Scenario, Stage};
use crate::clock;
use crate::namespaces::{Gateway, Lab};
use crate::signals;

/// The wall clocks of all daemons are set an hour ahead or back, each differently, and right again.
pub(super) struct ClockSteps;

impl Scenario for ClockSteps {
    fn name(&self) -> &'static str {
        "clock-steps"
    }

    fn about(&self) -> &'static str {
        "wall clocks step by an hour, the active's ahead, the standby's back, and around; no fault"
    }

    fn window(&self) -> Option<Duration> {
        // `inject` has waited already.
        Some(Duration::from_millis(500))
    }

    fn furnish(&self, stage: &mut Stage<'_>) -> Result<()> {
        let library = faketime()?;
        for host in HOSTS {
            set(&stage.scene.lab, host, 0)?;
            let file = clock_file(&stage.scene.lab, host);
            for (name, value) in [
                ("LD_PRELOAD", library.display().to_string()),
                ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
                ("FAKETIME_NO_CACHE", "1".to_owned()),
                // The kernel's other clocks stay what they are.
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ] {
                stage.scene.lab.set_variable(host, name, &value);
            }
        }
        Ok(())
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let lab = &stage.scene.lab;
        let at = clock::now();
        for (own, others) in [
            (HOUR_S, -HOUR_S),
            (-HOUR_S, HOUR_S),
            (HOUR_S, HOUR_S),
            (0, 0),
        ] {
            set(lab, active.name(), own)?;
            set(lab, active.other().name(), others)?;
            set(lab, "manager", others)?;
            signals::sleep(STEP)?;
        }
        Ok(Injection::at(at))
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}

/// Debian's library that shows a program another wall clock than the kernel's.
fn faketime() -> Result<PathBuf> {
    let directories = fs::read_dir("/usr/lib").context("looking for libfaketime")?;
    let mut candidates = directories
        .flatten()
        .map(|directory| directory.path().join("faketime/libfaketimeMT.so.1"));
    candidates
        .find(|path| path.exists())
        .context("libfaketime is not installed (apt-get install libfaketime)")
}

fn clock_file(lab: &Lab, host: &str) -> PathBuf {
    lab.directory().join(format!("clock-{host}"))
}

/// Sets the wall clock of a host's daemons, so many seconds before or after the right time.
fn set(lab: &Lab, host: &str, seconds: i64) -> Result<()> {
    let file = clock_file(lab, host);
    // Whole at once: it is read at any moment.
    let fresh = file.with_extension("new");
    fs::write(&fresh, format!("{seconds:+}\n"))
        .and_then(|()| fs::rename(&fresh, &file))
        .with_context(|| format!("setting the clock of {host}"))
}

const HOSTS: [&str; 3] = ["manager", "gw1", "gw2"];
const HOUR_S: i64 = 3_600;
/// Many leases.
const STEP: Duration = Duration::from_secs(1);
