//! `vnfpool switchover`, `vnfpool fence` and `vnfpool pardon`: the operator's hand in the succession.

use std::path::Path;

use vnfpool_northbound::{FenceRequest, PardonRequest, SwitchoverRequest};

use super::args::{Fence, Pardon, Switchover};
use super::output::Output;
use super::session::Session;

/// Hands a slot over and waits until the new active serves.
pub(super) fn switchover(
    args: &Switchover,
    admin: &Path,
    output: &mut Output,
) -> anyhow::Result<()> {
    let session = Session::open(admin)?;
    let request = SwitchoverRequest {
        to: args.to.clone(),
        slot: args.slot.clone(),
    };
    let done = session.wait(session.client.switchover(&args.pool, &request))?;
    if args.output.json {
        return output.json(&done);
    }
    let before = done
        .from
        .as_ref()
        .map(|from| format!(" after {from}"))
        .unwrap_or_default();
    output.line(format!(
        "pool '{}', slot '{}': {} serves{before}, epoch {}, {} ms",
        args.pool, done.slot, done.active, done.epoch, done.took_ms
    ))
}

/// Declares an element dead.
pub(super) fn fence(args: &Fence, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    let session = Session::open(admin)?;
    let request = FenceRequest {
        element: args.element.clone(),
        it_is_off: args.it_is_off,
    };
    session.wait(session.client.fence(&args.pool, &request))?;
    if args.output.json {
        let done = serde_json::json!({"pool": args.pool, "element": args.element, "fenced": true});
        return output.json(&done);
    }
    output.line(format!(
        "element '{}' of pool '{}' counts as dead",
        args.element, args.pool
    ))
}

/// Gives an element a clean slate.
pub(super) fn pardon(args: &Pardon, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    let session = Session::open(admin)?;
    let element = args.element.clone();
    let request = PardonRequest { element };
    session.wait(session.client.pardon(&args.pool, &request))?;
    if args.output.json {
        let done =
            serde_json::json!({"pool": args.pool, "element": args.element, "pardoned": true});
        return output.json(&done);
    }
    output.line(format!(
        "element '{}' of pool '{}' has a clean slate",
        args.element, args.pool
    ))
}
