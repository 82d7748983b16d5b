//! Death in the middle of a bulk synchronisation: the standby has started again, and the state of
//! many connections is on its way to it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::{Injection, Scenario, Stage, processes};
use crate::clock;
use crate::namespaces::{Gateway, SERVER_V4};
use crate::signals;

/// Who dies while the standby is filled.
pub(super) struct BulkKill {
    active_dies: bool,
}

impl BulkKill {
    pub(super) const STANDBY: Self = Self { active_dies: false };
    pub(super) const ACTIVE: Self = Self { active_dies: true };
}

impl Scenario for BulkKill {
    fn name(&self) -> &'static str {
        match self.active_dies {
            true => "bulk-kill-active",
            false => "bulk-kill-standby",
        }
    }

    fn about(&self) -> &'static str {
        match self.active_dies {
            true => "kill -9 of the active while it brings 60,000 connections to a fresh standby",
            false => "kill -9 of a standby while it is brought 60,000 connections",
        }
    }

    /// An active that dies before anybody has its state takes it along.
    fn keeps_connections(&self) -> bool {
        !self.active_dies
    }

    fn window(&self) -> Option<Duration> {
        Some(WINDOW)
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        open_many(stage)?;
        let standby = active.other();
        processes::signal_all(stage, standby, Signal::KILL);
        let before = stage.scene.lab.bytes_heard(standby)?;
        stage.system.start_again(stage.scene, standby)?;
        signals::wait_for("a bulk synchronisation", BULK_LIMIT, || {
            let heard = stage.scene.lab.bytes_heard(standby)? - before;
            Ok((heard > BULK_BYTES).then_some(()))
        })?;
        let victim = if self.active_dies { active } else { standby };
        Ok(processes::signal_all(stage, victim, Signal::KILL))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        let victim = if self.active_dies {
            active
        } else {
            active.other()
        };
        stage.system.start_again(stage.scene, victim)
    }
}

/// Opens an entry at the active for each datagram: none is answered, and they last 30 s.
fn open_many(stage: &Stage<'_>) -> Result<()> {
    let client = stage.scene.lab.namespace("client")?;
    client.run(|| {
        for _ in 0..SOCKETS {
            let socket =
                std::net::UdpSocket::bind("0.0.0.0:0").context("opening many connections")?;
            for port in PORTS {
                // One that the kernel has no room for is one entry less.
                let _refused = socket.send_to(b"open", (SERVER_V4, port));
                if port % 200 == 0 {
                    clock::sleep_until(clock::now() + clock::MILLISECOND);
                }
            }
        }
        Ok(())
    })
}

const SOCKETS: usize = 2;
const PORTS: std::ops::Range<u16> = 20_000..50_000;
/// Of several megabytes that the whole state takes: well inside, and far from its end.
const BULK_BYTES: u64 = 1_000_000;
const BULK_LIMIT: Duration = Duration::from_secs(15);
/// A lone active that dies is replaced after a second; connections are gone then.
const WINDOW: Duration = Duration::from_secs(4);
