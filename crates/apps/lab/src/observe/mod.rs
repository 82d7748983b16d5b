//! Who owns the virtual addresses, seen from outside.
//!
//! A probe in `mon` asks for the inside virtual address every 5 ms. A tap at the gateways' ports
//! of the switch sees who answers, and everything else that only an owner may send. Answers are
//! told apart by the port they came through, not by their hardware address: it is the same for
//! both gateways when they use a virtual one. The same method serves every system under test.

mod frame;
mod packet;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};

use crate::clock::{self, MILLISECOND, Nanos};
use crate::namespaces::{Gateway, Lab, MONITOR_MAC, interface_index};
use frame::{ASKERS, OwnerFrame, Side};
use packet::{Batch, PacketSocket};

/// The time between two questions of the ownership probe.
pub(crate) const QUESTION_INTERVAL: Nanos = 5 * MILLISECOND;

/// A frame that only an owner may send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Emission {
    pub(crate) at: Nanos,
    pub(crate) gateway: Gateway,
    /// The number of the question that it answers, if it is an answer.
    pub(crate) question: Option<u32>,
    /// It is a packet of the client's or the server's, passed on.
    pub(crate) forwarded: bool,
}

/// Everything seen so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sightings {
    /// When each question was asked.
    pub(crate) questions: Vec<Nanos>,
    /// Owner frames, in the order in which the switch received them.
    pub(crate) emissions: Vec<Emission>,
    /// Frames that the tap missed. Not 0: do not trust the counts.
    pub(crate) missed: u64,
}

impl Sightings {
    /// By which gateways each question was answered.
    pub(crate) fn answered(&self) -> Vec<[bool; 2]> {
        let mut answered = vec![[false; 2]; self.questions.len()];
        for emission in &self.emissions {
            if let Some(question) = emission.question
                && let Some(by) = answered.get_mut(usize::try_from(question).unwrap_or(usize::MAX))
            {
                by[emission.gateway.index()] = true;
            }
        }
        answered
    }
}

/// The running probe and tap of one laboratory.
#[derive(Debug)]
pub struct Observer {
    stop: Arc<AtomicBool>,
    sightings: Arc<Mutex<Sightings>>,
    threads: Vec<JoinHandle<()>>,
}

impl Observer {
    /// Starts probe and tap.
    ///
    /// # Errors
    /// When packet sockets are not permitted.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut observer = Self {
            stop: Arc::new(AtomicBool::new(false)),
            sightings: Arc::default(),
            threads: Vec::new(),
        };
        observer.start_tap(lab)?;
        observer.start_probe(lab)?;
        Ok(observer)
    }

    /// Forgets what was seen.
    pub(crate) fn clear(&self) {
        let mut sightings = lock(&self.sightings);
        sightings.questions.clear();
        sightings.emissions.clear();
        sightings.missed = 0;
    }

    /// A copy of everything seen since the last [`Observer::clear`].
    pub(crate) fn sightings(&self) -> Sightings {
        lock(&self.sightings).clone()
    }

    /// Who answered the newest questions (the last 60 ms): nobody, one gateway, or both.
    pub fn owners_now(&self) -> Vec<Gateway> {
        let since = clock::now().saturating_sub(60 * MILLISECOND);
        let sightings = lock(&self.sightings);
        let recent = sightings
            .emissions
            .iter()
            .rev()
            .take_while(|emission| emission.at >= since);
        let mut seen = [false; 2];
        for emission in recent.filter(|emission| emission.question.is_some()) {
            seen[emission.gateway.index()] = true;
        }
        Gateway::BOTH
            .into_iter()
            .filter(|gateway| seen[gateway.index()])
            .collect()
    }

    /// How many questions both gateways have answered. Frames that a tap on a busy machine has
    /// missed are not among them.
    pub fn answered_by_both(&self) -> usize {
        let answered = lock(&self.sightings).answered();
        answered.iter().filter(|by| **by == [true; 2]).count()
    }

    /// Ends probe and tap: where the machine is wanted for something else.
    pub(crate) fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A probe that panicked has nothing left to clean up.
            let _panicked = thread.join();
        }
    }

    fn start_tap(&mut self, lab: &Lab) -> Result<()> {
        let switch = lab.namespace("switch")?;
        let ports = [
            (
                interface_index(switch, "in-gw1")?,
                Gateway::Gw1,
                Side::Inside,
            ),
            (
                interface_index(switch, "in-gw2")?,
                Gateway::Gw2,
                Side::Inside,
            ),
            (
                interface_index(switch, "out-gw1")?,
                Gateway::Gw1,
                Side::Outside,
            ),
            (
                interface_index(switch, "out-gw2")?,
                Gateway::Gw2,
                Side::Outside,
            ),
        ];
        let socket = switch.run(|| {
            let socket = PacketSocket::open().context("opening the tap")?;
            socket
                .tap(&ports.map(|(index, ..)| index))
                .context("starting the tap")?;
            Ok(socket)
        })?;
        let tap = Tap {
            socket,
            ports,
            sightings: Arc::clone(&self.sightings),
            cuts: lab.cuts(),
        };
        let stop = Arc::clone(&self.stop);
        self.threads
            .push(switch.spawn_measuring("tap", move || tap.run(&stop))?);
        Ok(())
    }

    fn start_probe(&mut self, lab: &Lab) -> Result<()> {
        let monitor = lab.namespace("mon")?;
        let interface = interface_index(monitor, "eth0")?;
        let socket = monitor.run(|| PacketSocket::open().context("opening the ARP probe"))?;
        let (stop, sightings) = (Arc::clone(&self.stop), Arc::clone(&self.sightings));
        self.threads
            .push(monitor.spawn_measuring("arp-probe", move || {
                let mut next = clock::now();
                while !stop.load(Ordering::Relaxed) {
                    let asker = {
                        let mut sightings = lock(&sightings);
                        sightings.questions.push(clock::now());
                        u8::try_from((sightings.questions.len() - 1) % usize::from(ASKERS))
                    };
                    // A question that cannot be sent is one that nobody answers: it counts as such.
                    let _unsent = socket.send(
                        interface,
                        &frame::arp_question(MONITOR_MAC, asker.unwrap_or(0)),
                    );
                    next = (next + QUESTION_INTERVAL).max(clock::now());
                    clock::sleep_until(next);
                }
            })?);
        Ok(())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.halt();
    }
}

struct Tap {
    socket: PacketSocket,
    ports: [(u32, Gateway, Side); 4],
    sightings: Arc<Mutex<Sightings>>,
    /// Frames of a gateway whose ports are dead reach nobody, so they do not count.
    cuts: Arc<[AtomicU64; 2]>,
}

impl Tap {
    fn run(self, stop: &AtomicBool) {
        let mut batch = Batch::new();
        let mut found: Vec<(Nanos, Gateway, OwnerFrame)> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            found.clear();
            let received = batch.receive(&self.socket, |interface, at, headers| {
                let port = self.ports.iter().find(|(index, ..)| *index == interface);
                if let Some((_, gateway, side)) = port
                    && let Some(kind) = frame::judge(*side, headers)
                    && !self.is_cut(*gateway, at)
                {
                    found.push((at, *gateway, kind));
                }
            });
            let dropped = self.socket.dropped().map_or(0, u64::from);
            // Without its socket the tap is blind; that must not look like silence.
            let blind = u64::from(received.is_err());
            let mut sightings = lock(&self.sightings);
            sightings.missed += dropped + blind;
            for (at, gateway, kind) in &found {
                let question = question_of(&sightings.questions, *at, *kind);
                sightings.emissions.push(Emission {
                    at: *at,
                    gateway: *gateway,
                    question,
                    forwarded: *kind == OwnerFrame::Forwarded,
                });
            }
            drop(sightings);
            if received.is_err() {
                return;
            }
        }
    }

    fn is_cut(&self, gateway: Gateway, at: Nanos) -> bool {
        let since = self.cuts[gateway.index()].load(Ordering::Relaxed);
        since != 0 && at >= since
    }
}

/// Which question an answer belongs to: the newest before it that was asked in that name.
fn question_of(questions: &[Nanos], at: Nanos, kind: OwnerFrame) -> Option<u32> {
    let OwnerFrame::Answer(asker) = kind else {
        return None;
    };
    let askers = usize::from(ASKERS);
    let newest = questions
        .partition_point(|asked| *asked <= at)
        .checked_sub(1)?;
    let back = (newest % askers + askers - usize::from(asker)) % askers;
    u32::try_from(newest.checked_sub(back)?).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_belongs_to_its_own_question() {
        let questions: Vec<Nanos> = (0..100).map(|n| n * QUESTION_INTERVAL).collect();
        let at = |n: Nanos| n * QUESTION_INTERVAL + 1;
        assert_eq!(
            question_of(&questions, at(40), OwnerFrame::Answer(8)),
            Some(40)
        );
        assert_eq!(
            question_of(&questions, at(42), OwnerFrame::Answer(8)),
            Some(40)
        );
        assert_eq!(
            question_of(&questions, at(40), OwnerFrame::Answer(9)),
            Some(9)
        );
        assert_eq!(question_of(&questions, at(3), OwnerFrame::Answer(9)), None);
        assert_eq!(question_of(&questions, at(3), OwnerFrame::Claim), None);
    }
}
