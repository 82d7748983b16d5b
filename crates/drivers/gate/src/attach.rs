//! Attaching the program to an interface so that it stays without its process.

use std::mem;

use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc};

use crate::bpffs::PinDir;
use crate::error::GateError;
use crate::instance::lasting_hash;

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachMode {
    /// By a pinned tcx link (Linux 6.6 and newer).
    Tcx,
    /// By a filter of the `clsact` queueing discipline, which stays until it is removed.
    Clsact,
}

impl AttachMode {
    /// The best way this kernel knows.
    #[must_use]
    pub fn best() -> Self {
        match aya::util::KernelVersion::current() {
            Ok(version) if version < aya::util::KernelVersion::new(6, 6, 0) => Self::Clsact,
            _ => Self::Tcx,
        }
    }
}

/// Prefix of the pins of links, followed by interface index and direction.
pub(crate) const LINK_PREFIX: &str = "link_";
const NEW_LINK: &str = "new_link";

/// Filters run in the order of their priority; the gate comes first.
const PRIORITY: u16 = 1;

/// The pins that a tcx attachment to `ifindex` has.
pub(crate) fn link_names(ifindex: u32) -> [String; 2] {
    ["ingress", "egress"].map(|direction| format!("{LINK_PREFIX}{ifindex}_{direction}"))
}

/// Attaches by a pinned link. An earlier link of the same interface is let go only after the new
/// one works, so there is no moment without.
pub(crate) fn attach_tcx(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
    pins: &PinDir,
    pin: &str,
) -> Result<(), GateError> {
    let failed = |source| GateError::Attach {
        interface: interface.to_owned(),
        source: Box::new(source),
    };
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program
        .attach_with_options(interface, direction, options)
        .map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    let link = FdLink::try_from(link).map_err(|source| GateError::Link {
        interface: interface.to_owned(),
        source,
    })?;
    // Left over when an earlier process was killed between these lines.
    pins.unpin(NEW_LINK)?;
    link.pin(pins.pin(NEW_LINK))
        .map_err(|source| GateError::Pin {
            interface: interface.to_owned(),
            source,
        })?;
    Ok(pins.rename(NEW_LINK, pin)?)
}

/// Attaches by a tc filter, replacing in one step the one of an earlier process.
pub(crate) fn attach_clsact(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
    pins: &PinDir,
) -> Result<(), GateError> {
    let failed = |source| GateError::Attach {
        interface: interface.to_owned(),
        source: Box::new(source),
    };
    // It fails when it is there already; whether it is, the next step shows.
    let added = tc::qdisc_add_clsact(interface);
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: PRIORITY,
        handle: filter_handle(pins),
        classid: None,
    });
    let attached = program
        .attach_with_options(interface, direction, options)
        // There is one of an earlier process.
        .or_else(|_| program.attach_to_link(filter(interface, direction, pins)?));
    let id = match (attached, added) {
        (Ok(id), _) => id,
        (Err(_), Err(no_queueing_discipline)) => {
            return Err(failed(no_queueing_discipline.into()));
        }
        (Err(source), Ok(())) => return Err(failed(source)),
    };
    // Dropping it would remove the filter.
    mem::forget(program.take_link(id).map_err(failed)?);
    Ok(())
}

/// Removes the filters of [`attach_clsact`] from an interface, if they are there.
pub(crate) fn detach_clsact(interface: &str, pins: &PinDir) {
    for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
        // Dropping a link detaches it. A filter that is not there is what was asked for, and so
        // is a lost interface.
        drop(filter(interface, direction, pins));
    }
}

fn filter(
    interface: &str,
    direction: TcAttachType,
    pins: &PinDir,
) -> Result<SchedClassifierLink, ProgramError> {
    let handle = filter_handle(pins);
    let filter = SchedClassifierLink::attached(interface, direction, PRIORITY, handle, None);
    Ok(filter.map_err(tc::TcError::from)?)
}

/// A number for this instance's filters, the same in its next life.
fn filter_handle(pins: &PinDir) -> TcHandle {
    let [a, b, c, d] = lasting_hash(pins.path()).to_be_bytes();
    // 0 asks the kernel for a number of its own choice.
    TcHandle::new(u16::from_be_bytes([a, b]) | 1, u16::from_be_bytes([c, d]))
}
