//! Between a real-time thread and the rest of its daemon: commands one way, a view the other.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use vnfpool_heartbeat::{Poller, PollerError, Waker};
use vnfpool_model::Time;

/// Commands that may wait. The thread takes all of them in each of its rounds, and nobody can
/// make a daemon give so many meanwhile: a thread with so many before it hangs for good.
const COMMANDS_MAX: usize = 65_536;

/// A handle on the thread, for commands `C` and views `V`; clones share it.
pub(crate) struct Pulse<C, V> {
    commands: Arc<Mutex<Commands<C>>>,
    view: Arc<Mutex<V>>,
    waker: Waker,
}

impl<C, V> Clone for Pulse<C, V> {
    fn clone(&self) -> Self {
        Self {
            commands: Arc::clone(&self.commands),
            view: Arc::clone(&self.view),
            waker: self.waker.clone(),
        }
    }
}

impl<C, V> fmt::Debug for Pulse<C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").finish_non_exhaustive()
    }
}

struct Commands<C> {
    waiting: VecDeque<C>,
    /// The thread has ended as it was told to.
    over: bool,
}

impl<C, V: Clone + Default> Pulse<C, V> {
    /// A handle, and the thread's end of it.
    pub(crate) fn new() -> Result<(Self, Inbox<C, V>), PollerError> {
        let poller = Poller::new()?;
        let commands = Commands {
            waiting: VecDeque::new(),
            over: false,
        };
        let handle = Self {
            commands: Arc::new(Mutex::new(commands)),
            view: Arc::default(),
            waker: poller.waker(),
        };
        let inbox = Inbox {
            commands: Arc::clone(&handle.commands),
            view: Arc::clone(&handle.view),
            poller,
        };
        Ok((handle, inbox))
    }

    /// Hands a command over: at once, from any thread, and never in vain. Commands are obeyed in
    /// the order in which they come.
    ///
    /// A thread that takes no more ([`COMMANDS_MAX`]) serves nobody, and neither does a daemon
    /// that goes on without its commands: the process ends then, as after a panic.
    pub(crate) fn send(&self, command: C) {
        {
            let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            if commands.over {
                return;
            }
            if commands.waiting.len() >= COMMANDS_MAX {
                tracing::error!(waiting = COMMANDS_MAX, "the heartbeat thread hangs");
                std::process::abort();
            }
            commands.waiting.push_back(command);
        }
        // After the lock is free: the thread does not wait for it.
        self.waker.wake();
    }

    /// How things stood a moment ago.
    pub(crate) fn view(&self) -> V {
        self.view
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The thread's end. It never waits for a lock: whoever holds one may have been put aside for
/// this very thread.
pub(crate) struct Inbox<C, V> {
    commands: Arc<Mutex<Commands<C>>>,
    view: Arc<Mutex<V>>,
    poller: Poller,
}

impl<C, V> Inbox<C, V> {
    /// Takes the commands that wait into `taken`, which has to be empty. If somebody is giving
    /// one just now, the thread is woken again when it is there.
    pub(crate) fn take(&self, taken: &mut VecDeque<C>) {
        assert!(taken.is_empty(), "commands are obeyed in their order");
        let mut commands = match self.commands.try_lock() {
            Ok(commands) => commands,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        std::mem::swap(&mut commands.waiting, taken);
    }

    /// Changes the view; false if somebody reads it just now.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut V)) -> bool {
        match self.view.try_lock() {
            Ok(mut view) => change(&mut view),
            Err(TryLockError::Poisoned(poisoned)) => change(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => return false,
        }
        true
    }

    /// Waits until a socket can be read, a command has come, or it is `due`.
    pub(crate) fn wait<'a>(&'a self, sockets: impl Iterator<Item = BorrowedFd<'a>>, due: Time) {
        self.poller.wait(sockets, due.0);
    }
}

impl<C, V> Drop for Inbox<C, V> {
    fn drop(&mut self) {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.over = true;
        commands.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no command is lost and nobody waits, however many come before the thread looks.
    #[test]
    fn commands_are_kept_in_order_without_waiting_for_the_thread() {
        let (pulse, inbox) = Pulse::<usize, ()>::new().unwrap();
        let all = 5_000;
        let senders: Vec<_> = (0..2)
            .map(|sender| {
                let pulse = pulse.clone();
                std::thread::spawn(move || {
                    (sender * all..(sender + 1) * all).for_each(|n| pulse.send(n));
                })
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
        let mut taken = VecDeque::new();
        inbox.take(&mut taken);
        let (first, second): (Vec<_>, Vec<_>) = taken.drain(..).partition(|n| *n < all);
        assert_eq!(first, (0..all).collect::<Vec<_>>());
        assert_eq!(second, (all..2 * all).collect::<Vec<_>>());
        // Each of them has woken the thread: this does not wait.
        inbox.wait(std::iter::empty(), Time::NEVER);
    }

    #[test]
    fn a_thread_that_has_ended_is_told_nothing() {
        let (pulse, inbox) = Pulse::<Arc<()>, ()>::new().unwrap();
        let command = Arc::new(());
        pulse.send(Arc::clone(&command));
        drop(inbox);
        pulse.send(Arc::clone(&command));
        assert_eq!(Arc::strong_count(&command), 1);
    }

    /// Goal: the thread does not wait for whoever is about to give a command or reads the view.
    #[test]
    fn the_thread_waits_for_no_lock() {
        let (pulse, inbox) = Pulse::<u8, u8>::new().unwrap();
        pulse.send(1);
        let mut taken = VecDeque::new();
        {
            let _giving = pulse.commands.lock().unwrap();
            let _reading = pulse.view.lock().unwrap();
            inbox.take(&mut taken);
            assert!(!inbox.publish(|view| *view = 7));
        }
        assert!(taken.is_empty());
        inbox.take(&mut taken);
        assert_eq!(taken, [1]);
        assert!(inbox.publish(|view| *view = 7));
        assert_eq!(pulse.view(), 7);
    }
}
