//! What happens when a thread that the agent cannot do without panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs such a thread to its end. When it panics the process ends with it, and is started again
/// by whoever watches over it: an agent without this thread would look alive, answer nobody and
/// never serve again.
///
/// What `run` owns is dropped before that: so every gate is closed at once and not when its
/// lease is over.
pub(crate) fn or_abort(thread: &'static str, run: impl FnOnce()) {
    if ends_well(run) {
        return;
    }
    tracing::error!(
        thread,
        "a thread that this daemon cannot do without has panicked: its gates are closed, the \
         daemon ends"
    );
    std::process::abort();
}

/// False if `run` panicked; what it owned has been dropped then.
pub(crate) fn ends_well(run: impl FnOnce()) -> bool {
    // Nothing that it could have left half-done is used again.
    catch_unwind(AssertUnwindSafe(run)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const CHILD: &str = "VNFPOOL_TEST_OF_A_PANIC";

    /// Goal: the process does not outlive the thread. Method: this test again in a process of its
    /// own, where the thread panics.
    #[test]
    fn the_process_ends_with_the_thread() {
        if std::env::var_os(CHILD).is_some() {
            let thread = std::thread::spawn(|| or_abort("pulse", || panic!("on purpose")));
            let _ = thread.join();
            return;
        }
        or_abort("pulse", || {});
        let name = format!("{}::the_process_ends_with_the_thread", module_path!());
        let name = name.split_once("::").unwrap().1;
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), None, "ended by a signal: {status}");
    }
}
