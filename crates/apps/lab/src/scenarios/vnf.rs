//! The network function fails while everything that manages it lives.

use anyhow::Result;

use super::{Injection, Scenario, Stage};
use crate::clock;
use crate::namespaces::Gateway;

/// The active's kernel stops forwarding.
pub(super) struct VnfFail;

impl Scenario for VnfFail {
    fn name(&self) -> &'static str {
        "vnf-fail"
    }

    fn about(&self) -> &'static str {
        "the active's network function fails (its kernel stops forwarding), its agent lives"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.set_forwarding(active, false)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.scene.lab.set_forwarding(active, true)
    }
}
