//! Hands for the fuzzers (`testing/fuzz`): a session, and around it an agent in simulated time whose
//! roles change and whose successor answers or does not.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use vnfpool_model::{Epoch, Role, SlotId, Time};
use vnfpool_wire::sdk::reply::Kind;
use vnfpool_wire::sdk::{self, MESSAGE_BYTES_MAX, Reply};

use super::bell::Bell;
use super::class::Class;
use super::log::FollowerId;
use super::session::{OUTGOING_BYTES_MAX, Session};
use super::{FunctionHealth, Hub, SlotRole};

const SLOT: SlotId = SlotId(1);

/// Bytes of a function at a time, at most.
const PIECE_BYTES_MAX: usize = 4_096;

/// What goes wrong around a session; each alone, all together, or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around {
    /// The element's role and epoch change.
    pub roles_change: bool,
    /// There is a successor.
    pub has_successor: bool,
    /// The successor is slow, and loses its copy.
    pub successor_fails: bool,
    /// The function reads little of what it is told.
    pub reads_slowly: bool,
    /// Bytes come in small pieces.
    pub in_pieces: bool,
}

/// Has a session hear `bytes` from a function, in the epoch 1 of slot 1, of which the element is the active.
/// `random` decides when what goes wrong does so.
///
/// # Panics
/// When the session breaks its protocol or its bounds: a fuzzer has found an error then.
pub fn talk(around: Around, random: &mut dyn FnMut() -> u64, mut bytes: &[u8]) {
    let Some(mut agent) = Agent::new(around) else {
        return;
    };
    while !bytes.is_empty() {
        let piece = match around.in_pieces {
            true => 1 + usize::try_from(random() % 64).unwrap_or_default(),
            false => PIECE_BYTES_MAX,
        };
        let (piece, rest) = bytes.split_at(piece.min(bytes.len()));
        bytes = rest;
        if !agent.session.wants_bytes() {
            agent.function_reads(usize::MAX);
        }
        agent.session.incoming().extend_from_slice(piece);
        agent.goes_on(random);
        if agent.session.is_over() {
            break;
        }
    }
    // It answers what is left once it is read.
    for _ in 0..64 {
        agent.function_reads(usize::MAX);
        agent.goes_on(random);
    }
    agent.function_reads(usize::MAX);
    assert_eq!(agent.session.is_over(), agent.heard.failures == 1);
}

struct Agent {
    hub: Arc<Hub>,
    session: Session,
    around: Around,
    now: Time,
    term: u64,
    successor: Option<(Arc<Class>, FollowerId)>,
    heard: Heard,
}

/// What the function was told.
#[derive(Default)]
struct Heard {
    failures: usize,
    taken: u64,
    is_registered: bool,
}

impl Agent {
    /// None on a machine without descriptors.
    fn new(around: Around) -> Option<Self> {
        let health = Arc::new(FunctionHealth::new(false));
        let hub = Arc::new(Hub::new("fn1".into(), "fn".into(), health).ok()?);
        let agent = Self {
            session: Session::new(Arc::clone(&hub)),
            hub,
            around,
            now: Time(1),
            term: 1,
            successor: None,
            heard: Heard::default(),
        };
        agent.set_role(Role::Active);
        Some(agent)
    }

    fn set_role(&self, role: Role) {
        let (name, epoch) = ("main".to_owned(), Epoch::first_of(self.term));
        self.hub.set_role(SLOT, SlotRole { name, role, epoch });
    }

    fn goes_on(&mut self, random: &mut dyn FnMut() -> u64) {
        self.now = self.now.after(Duration::from_millis(random() % 64));
        if self.around.roles_change && random().is_multiple_of(8) {
            self.change_role(random());
        }
        if self.around.has_successor {
            self.feed(random);
        }
        self.hub.sweep(self.now);
        self.session.advance(self.now);
        let outgoing = self.session.outgoing().len();
        assert!(outgoing <= OUTGOING_BYTES_MAX + 2 * MESSAGE_BYTES_MAX);
        let read = match self.around.reads_slowly {
            true => usize::try_from(random() % 256).unwrap_or_default(),
            false => usize::MAX,
        };
        self.function_reads(read);
    }

    fn change_role(&mut self, random: u64) {
        self.term += random % 2;
        match random % 5 {
            0 => self.hub.remove_slot(SLOT),
            1 => self.set_role(Role::Spare),
            2 => self.set_role(Role::Standby),
            _ => self.set_role(Role::Active),
        }
    }

    /// The successor gets what is new in the first class that there is, and says so.
    fn feed(&mut self, random: &mut dyn FnMut() -> u64) {
        if self.successor.is_none() {
            let classes = self.hub.state().classes.get(&SLOT).cloned();
            let class = classes.and_then(|all| all.into_values().next());
            if let Some((class, bell)) = class.zip(Bell::new().ok()) {
                let (id, now) = (class.begin_feed(bell), self.now);
                class.with_feed(id, |feed| feed.set_in_sync(true, now));
                self.successor = Some((class, id));
            }
        }
        let Some((class, id)) = &self.successor else {
            return;
        };
        let (id, now) = (*id, self.now);
        let mut state = class.state();
        state.table.read(id, 16, 4_096, |_| {});
        let asked = state.ask(id, now);
        drop(state);
        let fails = self.around.successor_fails && random().is_multiple_of(4);
        if let Some(question) = asked.filter(|_| !fails) {
            let holds = !(self.around.successor_fails && random().is_multiple_of(4));
            class.with_feed(id, |feed| feed.answered(question, holds, now));
        }
        if fails && random().is_multiple_of(8) {
            class.end_feed(id);
            self.successor = None;
        }
    }

    /// The function takes so many bytes, and understands every whole message among them.
    fn function_reads(&mut self, bytes: usize) {
        let outgoing = self.session.outgoing();
        let ready = outgoing.len().min(bytes);
        let mut told = BytesMut::from(&outgoing[..ready]);
        let before = told.len();
        loop {
            let reply = sdk::decode::<Reply>(&mut told);
            assert!(
                reply.is_ok(),
                "the agent told what is no message: {reply:?}"
            );
            let Ok(Some(reply)) = reply else {
                break;
            };
            self.heard.note(reply.kind, self.around.has_successor);
        }
        // What is cut is read again, with its end.
        outgoing.advance(before - told.len());
    }
}

impl Heard {
    fn note(&mut self, kind: Option<Kind>, has_successor: bool) {
        assert_eq!(self.failures, 0, "something is told after the end");
        match kind {
            Some(Kind::Failure(_)) => self.failures += 1,
            Some(Kind::Registered(_)) => {
                assert!(!self.is_registered, "registered twice");
                self.is_registered = true;
            }
            Some(Kind::Taken(taken)) => {
                assert!(taken.last > self.taken, "changes are told of twice");
                self.taken = taken.last;
            }
            Some(Kind::Refused(refused)) => {
                assert_eq!(refused.first, self.taken + 1, "changes are left out");
                assert!(refused.last + 1 >= refused.first);
                self.taken = refused.last;
            }
            Some(Kind::Committed(committed)) => {
                assert!(has_successor || !committed.held, "nobody holds it");
            }
            kind => {
                assert!(kind.is_some(), "an empty message");
                assert!(self.is_registered, "told before the registration");
            }
        }
    }
}
