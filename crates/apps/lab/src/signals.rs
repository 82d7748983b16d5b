//! Ctrl-C: the first one asks the run to end, and everything is cleaned up on the way out.
#![expect(
    unsafe_code,
    reason = "installing a signal handler has no safe wrapper in rustix"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::clock;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_interrupt(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on SIGINT, SIGTERM and SIGHUP make [`check`] fail instead of ending the process.
pub(crate) fn catch_interrupts() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe; the zeroed
        // sigaction is a valid value (empty mask, no flags).
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note_interrupt as *const () as usize;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Fails once the user has asked for the end.
///
/// # Errors
/// After SIGINT, SIGTERM or SIGHUP.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted: everything the laboratory started is being removed");
    }
    Ok(())
}

/// Sleeps, in slices, so that an interrupt is noticed within 20 ms.
///
/// # Errors
/// When interrupted.
pub(crate) fn sleep(duration: Duration) -> Result<()> {
    let end = clock::now() + clock::nanos(duration);
    loop {
        check()?;
        let now = clock::now();
        if now >= end {
            return Ok(());
        }
        clock::sleep_until(end.min(now + 20 * clock::MILLISECOND));
    }
}

/// Asks `condition` every 5 ms until it gives a value.
///
/// # Errors
/// When interrupted, when `condition` fails, or after `limit`; the message then says what was
/// waited for.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = clock::now() + clock::nanos(limit);
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if clock::now() >= end {
            bail!("waited {:.1} s for {what}, in vain", limit.as_secs_f64());
        }
        sleep(Duration::from_millis(5))?;
    }
}
