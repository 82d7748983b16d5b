//! The thread's own code, with a data plane that only remembers.

use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use vnfpool_heartbeat::{DATAGRAM_BYTES_MAX, PathSpec};
use vnfpool_model::{Incarnation, OnQuorumLoss, Timing};
use vnfpool_wire::datagram::{Gossip, Message};

use super::slot::Running;
use super::*;
use crate::pulse::guard::ends_well;
use crate::pulse::{Keyring, now};

/// An ear that hears the same for ever.
struct Stuck {
    fd: OwnedFd,
    heard: Heard,
}

impl Ear for Stuck {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
    fn ask(&mut self) {}
    fn hear(&mut self) -> Option<Heard> {
        Some(self.heard)
    }
}

fn stuck(heard: Heard) -> Box<dyn Ear> {
    let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    Box::new(Stuck { fd, heard })
}

/// Remembers in `open` whether it is open; closes when it is dropped, as the real ones do.
struct Remembering {
    open: Arc<AtomicBool>,
    until: Time,
}

impl Fence for Remembering {
    fn open_until(&mut self, until: Time) {
        self.until = until;
        self.open.store(until != Time::ZERO, Ordering::Relaxed);
    }
    fn raise(&mut self, until: Time) {
        self.open_until(self.until.max(until));
    }
    fn close(&mut self) {
        self.open_until(Time::ZERO);
    }
    fn deadline(&self) -> Time {
        self.until
    }
}

impl Drop for Remembering {
    fn drop(&mut self) {
        self.close();
    }
}

fn plane(ears: Vec<Box<dyn Ear>>, open: &Arc<AtomicBool>) -> Plane {
    let fence = Remembering {
        open: Arc::clone(open),
        until: Time::ZERO,
    };
    Plane {
        fence: Box::new(fence),
        kept: None,
        furniture: Furniture {
            announce: Box::new(|| {}),
            ears,
            witnessed: true,
        },
    }
}

fn settings() -> Settings {
    Settings {
        me: Member {
            node: NodeId(1),
            incarnation: Incarnation(1),
        },
        timing: Timing::default(),
        lease_ms_max: Timing::default().lease_ms,
        on_quorum_loss: OnQuorumLoss::Serve,
    }
}

/// Goal: whoever floods a LAN holds up neither the thread nor the other LANs. Method: ears that
/// never end; each word counts once a round.
#[test]
fn a_flooded_lan_is_heard_once_a_round() {
    let heards = [Heard::Foreign, Heard::Other, Heard::Witness, Heard::Foreign];
    let ears = heards.into_iter().map(stuck).collect();
    let mut running = Running::new(SlotId(1), settings(), plane(ears, &Arc::default()));
    let heard = running.heard();
    assert!(
        matches!(heard[..], [Input::SignOfLife, Input::Witness { lan: 2 }]),
        "{heard:?}"
    );
}

/// An ear that opens the gate behind the machine's back and panics.
struct Broken(OwnedFd, Arc<AtomicBool>);

impl Ear for Broken {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
    fn ask(&mut self) {}
    fn hear(&mut self) -> Option<Heard> {
        self.1.store(true, Ordering::Relaxed);
        panic!("on purpose")
    }
}

/// Goal: a thread that panics leaves no gate open (R1). Method: an ear that panics while the gate
/// is open.
#[test]
fn a_panic_closes_every_gate() {
    let (notices, _noticed) = mpsc::channel(1);
    let (pulse, thread) =
        Thread::new(Paths::bind(&[]).unwrap(), Keyring::default(), notices).unwrap();
    let open = Arc::new(AtomicBool::new(false));
    let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let plane = plane(vec![Box::new(Broken(fd, Arc::clone(&open)))], &open);
    pulse.send(Command::AddSlot {
        id: SlotId(1),
        settings: settings(),
        plane,
    });
    assert!(!ends_well(move || thread.run(Vec::new())));
    assert!(!open.load(Ordering::Relaxed));
}

/// Says which thread has dropped it.
struct Telling(std::sync::mpsc::Sender<std::thread::ThreadId>);

impl Drop for Telling {
    fn drop(&mut self) {
        let _ = self.0.send(std::thread::current().id());
    }
}

/// Goal: a removed slot holds up the thread with nothing that the kernel takes its time for, and
/// its gate is closed at once nevertheless. Method: a plane that says who lets go of it.
#[test]
fn a_removed_slot_is_let_go_of_elsewhere() {
    let (notices, _noticed) = mpsc::channel(64);
    let (_pulse, mut thread) =
        Thread::new(Paths::bind(&[]).unwrap(), Keyring::default(), notices).unwrap();
    let (dropped, who) = std::sync::mpsc::channel();
    let open = Arc::new(AtomicBool::new(false));
    let mut plane = plane(vec![], &open);
    let telling = Telling(dropped);
    plane.furniture.announce = Box::new(move || {
        let _ = &telling;
    });
    let (id, settings) = (SlotId(1), settings());
    thread.obey(Command::AddSlot {
        id,
        settings,
        plane,
    });
    open.store(true, Ordering::Relaxed);
    thread.obey(Command::RemoveSlot(id));
    assert!(!open.load(Ordering::Relaxed));
    assert_ne!(who.recv().unwrap(), std::thread::current().id());
    while thread.retired.waiting.load(Ordering::Acquire) > 0 {
        std::thread::yield_now();
    }
}

/// Goal: a peer that speaks of a slot that is not here is a sign of life (S5). Method: a datagram
/// of a peer with good keys, about another slot; the machine of the slot that is here must notice.
#[test]
fn a_message_about_another_slot_is_a_sign_of_life() {
    let local = UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .unwrap();
    let path = PathSpec {
        name: "any".to_owned(),
        local,
        interface: None,
    };
    let (notices, _noticed) = mpsc::channel(64);
    let (_pulse, mut thread) =
        Thread::new(Paths::bind(&[path]).unwrap(), Keyring::default(), notices).unwrap();
    let (peer, secret) = (NodeId(2), [7; 32]);
    thread.obey(Command::Keys {
        node: peer,
        secret,
        side: Side::Responder,
    });
    thread.obey(Command::AddSlot {
        id: SlotId(1),
        settings: settings(),
        plane: plane(vec![], &Arc::default()),
    });
    let mut theirs = Keyring::default();
    theirs.install(NodeId(1), &secret, Side::Initiator).unwrap();
    let message = Message::Gossip(Gossip {
        epoch: Epoch::default(),
        incarnation: Incarnation(1),
        sent_at: now(),
        echo: Time::ZERO,
        manager_silence_ms: 0,
        able: true,
    });
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let sealed = theirs.seal(NodeId(1), SlotId(2), &message, &mut buffer);
    let machine = |thread: &Thread| format!("{:?}", thread.slots[&SlotId(1)].machine);
    let before = machine(&thread);
    thread.receive_all();
    assert_eq!(machine(&thread), before, "nothing has come");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(sealed.unwrap(), local).unwrap();
    thread.receive_all();
    assert_ne!(machine(&thread), before);
}
