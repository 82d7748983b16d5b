//! The thread's own code, with a disk that is played by hand.

use std::net::Ipv4Addr;
use std::sync::mpsc as std_mpsc;

use vnfpool_model::Timing;
use vnfpool_wire::datagram::{Message, Request};

use super::*;

const SLOT: SlotId = SlotId(7);

/// A request of the element `node`, which has heard the manager and could serve.
pub(in crate::manager) fn request(slot: SlotId, node: u32, epoch: Epoch) -> Command {
    let message = Message::Request(Request {
        epoch,
        incarnation: Incarnation(1),
        sent_at: now(),
        heard_manager: true,
        able: true,
        renounces: false,
        candidate: None,
    });
    let from = NodeId(node);
    let input = Input::Received { from, message };
    Command::Input { slot, input }
}

/// The thread, and the records that it wants on disk.
struct Played {
    pulse: Pulse,
    thread: Option<JoinHandle<()>>,
    disk: std_mpsc::Receiver<(Writing, Stored)>,
    noticed: mpsc::Receiver<Notice>,
}

impl Played {
    fn start() -> Self {
        let setup = PulseSetup::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let pulse = setup.handle.clone();
        let (to_disk, disk) = std_mpsc::channel();
        let (notices, noticed) = mpsc::channel(64);
        let persist = Box::new(move |writing, stored| {
            let _ = to_disk.send((writing, stored));
        });
        let thread = setup.start(persist, notices, || {}).unwrap();
        Self {
            pulse,
            thread: Some(thread),
            disk,
            noticed,
        }
    }

    fn add(&self, stored: Option<Stored>) {
        self.pulse.send(Command::AddSlot {
            id: SLOT,
            pool: "edge".parse().unwrap(),
            settings: Settings {
                timing: Timing::default(),
                lease_ms_max: Timing::default().lease_ms,
                preferred: None,
                preferred_expected: false,
                boot: 1,
                manager_lease_ms_max: 1_000,
            },
            stored,
        });
    }

    /// An element's request.
    fn say(&self, node: u32, epoch: Epoch) {
        self.pulse.send(request(SLOT, node, epoch));
    }

    /// A new machine, which wants to give its slot to `node`.
    fn add_slot(&self, node: u32) -> (Writing, Record) {
        self.add(None);
        self.say(node, Epoch::default());
        let (writing, stored) = self.disk.recv_timeout(Duration::from_secs(10)).unwrap();
        (writing, stored.record)
    }

    /// The next handover that is told.
    fn handover(&mut self) -> (NodeId, NodeId) {
        let give_up = now().after(Duration::from_secs(10));
        loop {
            if let Ok(Notice::HandedOver { handover, .. }) = self.noticed.try_recv() {
                return (handover.from, handover.to);
            }
            assert!(now() < give_up, "no handover is told");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn remove_slot(&self) {
        let (removed, done) = oneshot::channel();
        self.pulse.send(Command::RemoveSlot { id: SLOT, removed });
        done.blocking_recv().unwrap();
        // On a slow machine it may have tried again by now.
        while self.disk.try_recv().is_ok() {}
    }

    /// The record in force, as it was seen last.
    fn in_force(&self) -> Option<Record> {
        let give_up = now().after(Duration::from_secs(10));
        loop {
            if let Some(slot) = self.pulse.view().slots.get(&SLOT) {
                return slot.record;
            }
            assert!(now() < give_up, "the machine is never seen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        self.pulse.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Goal: only its own record's arrival on disk brings a machine's record into force (R16). Method:
/// a slot is removed while its record waits, and gets another machine, whose record is of the same
/// term; then the disk answers for the first one, in both ways, and at last for the second.
#[test]
fn what_the_disk_says_of_an_earlier_machines_record_counts_for_nothing() {
    let played = Played::start();
    let (old, before) = played.add_slot(1);
    played.pulse.send(Command::PersistFailed(old));
    played.remove_slot();
    let (new, after) = played.add_slot(2);
    assert_eq!(before.term, after.term);
    assert_ne!(before, after);
    played.pulse.send(Command::PersistFailed(old));
    played.pulse.send(Command::Persisted(old));
    // Longer than until the next try: there is none for the removed machine, nor by its failure.
    let again = played.disk.recv_timeout(PERSIST_RETRY * 3);
    assert_eq!(again, Err(std_mpsc::RecvTimeoutError::Timeout));
    assert_eq!(played.in_force(), None);
    played.pulse.send(Command::PersistFailed(new));
    let again = played.disk.recv_timeout(Duration::from_secs(10));
    assert_eq!(again, Ok((new, Stored::of(after))));
    played.pulse.send(Command::Persisted(new));
    let give_up = now().after(Duration::from_secs(10));
    while played.in_force() != Some(after) {
        assert!(now() < give_up, "its own record never comes into force");
    }
}

/// Goal: of a pair's turns the manager tells those that it has not ordered. Method: the slot goes to gw2,
/// back by an order, and there again.
#[test]
fn a_handover_that_nobody_ordered_is_told() {
    let mut played = Played::start();
    let member = |node| Member {
        node: NodeId(node),
        incarnation: Incarnation(1),
    };
    played.add(Some(Stored::of(Record {
        term: 4,
        first: member(1),
        second: Some(member(2)),
        pace: Timing::default().pace(),
    })));
    let turn = |turn| Epoch { term: 4, turn };
    played.say(1, turn(0));
    played.say(2, turn(1));
    assert_eq!(played.handover(), (NodeId(1), NodeId(2)));
    let (slot, from) = (SLOT, Some(NodeId(2)));
    played.pulse.send(Command::Ordered { slot, from });
    played.say(1, turn(2));
    // Had the order not counted, this would be a return to what was told last.
    played.say(2, turn(3));
    assert_eq!(played.handover(), (NodeId(1), NodeId(2)));
}
