//! What one function and this agent say to each other, without socket and clock.
//!
//! What comes is hostile until it has proved otherwise: every size, count and number is bounded. A
//! function that does not read is not read either; one that speaks nonsense is told so and its
//! connection ends.

mod changes;
mod queries;
mod register;
mod told;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use vnfpool_model::{SlotId, Time};
use vnfpool_statesync::class::ClassName;
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{self, Batch, Failure, MESSAGE_BYTES_MAX, Reply, Request};

use self::queries::Watching;
use self::told::Told;
use super::Hub;
use super::class::Class;

/// Bytes for the function that wait; with more, nothing of it is read or answered.
pub(super) const OUTGOING_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the function that wait to be looked at; two messages, one of them begun.
const INCOMING_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// Commits that wait for the successor; with more, the function waits.
const COMMITS_MAX: usize = 4_096;

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    hub: Arc<Hub>,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Names of the registered classes; none before the registration.
    classes: Option<Vec<ClassName>>,
    has_state: bool,
    /// The number of the last change that was taken or refused, and the last such that was told.
    last: u64,
    told_last: u64,
    /// Waits for the successor to catch up; everything behind it waits as well.
    held_back: Option<Batch>,
    commits: VecDeque<PendingCommit>,
    watches: BTreeMap<u64, Watching>,
    told: Told,
    is_over: bool,
}

#[derive(Debug)]
struct PendingCommit {
    id: u64,
    class: Arc<Class>,
    position: u64,
}

/// Why a connection ends: a stable word and what to do.
#[derive(Debug)]
struct Fatal {
    code: &'static str,
    text: String,
}

impl Fatal {
    fn new(code: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }
}

impl Session {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            classes: None,
            has_state: false,
            last: 0,
            told_last: 0,
            held_back: None,
            commits: VecDeque::new(),
            watches: BTreeMap::new(),
            told: Told::default(),
            is_over: false,
        }
    }

    /// Whether the function has registered.
    pub(super) const fn is_registered(&self) -> bool {
        self.classes.is_some()
    }

    /// Whether bytes of the function should be read now.
    pub(super) fn wants_bytes(&self) -> bool {
        !self.is_over && self.has_room() && self.incoming.len() < INCOMING_BYTES_MAX
    }

    /// Whether something waits for a successor, or to be told, so that time matters.
    pub(super) fn waits(&self) -> bool {
        self.held_back.is_some() || !self.commits.is_empty() || self.told.holds_back()
    }

    /// Whether there is more to tell as soon as there is room.
    pub(super) fn has_more(&self) -> bool {
        self.has_room() && self.watches.values().any(Watching::has_more)
    }

    /// Nothing is read any more; the connection ends when what is outgoing was sent.
    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Bytes for the function; what was sent is taken off the front.
    pub(super) const fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Where bytes of the function are appended; then [`Session::advance`].
    pub(super) const fn incoming(&mut self) -> &mut BytesMut {
        &mut self.incoming
    }

    /// Goes on with whatever can be gone on with.
    pub(super) fn advance(&mut self, now: Time) {
        if let Err(Fatal { code, text }) = self.take_messages(now) {
            self.fail(code, text);
        }
        self.tell_taken();
        if self.is_over || !self.is_registered() {
            return;
        }
        // What others must not wait for: a function that is not the active any more stops at once.
        self.tell_losses(now);
        self.answer_commits(now);
        // What was committed comes before the word that this element is the active. A word that was
        // held back for long enough needs the room before it is filled with changes.
        self.tell_roles(now);
        self.tell_changes(now);
        self.tell_roles(now);
        self.tell_classes(now);
    }

    /// Says why the connection ends: the last message, behind what was taken until then.
    pub(super) fn fail(&mut self, code: &str, text: String) {
        self.tell_taken();
        tracing::warn!(code, text, "a function at the SDK's socket is turned away");
        let code = code.to_owned();
        self.send(ReplyKind::Failure(Failure { code, text }));
        self.is_over = true;
    }

    fn has_room(&self) -> bool {
        self.outgoing.len() < OUTGOING_BYTES_MAX
    }

    fn send(&mut self, kind: ReplyKind) {
        sdk::encode(&Reply { kind: Some(kind) }, &mut self.outgoing);
    }

    fn take_messages(&mut self, now: Time) -> Result<(), Fatal> {
        if let Some(batch) = self.held_back.take() {
            self.batch(batch, now)?;
        }
        while !self.is_over
            && self.held_back.is_none()
            && self.has_room()
            && self.commits.len() < COMMITS_MAX
        {
            let message = sdk::decode::<Request>(&mut self.incoming);
            let message = message.map_err(|error| Fatal::new("malformed", error.to_string()))?;
            let Some(message) = message else {
                break;
            };
            self.request(message.kind, now)?;
        }
        Ok(())
    }

    fn request(&mut self, kind: Option<Kind>, now: Time) -> Result<(), Fatal> {
        match (kind, self.is_registered()) {
            (Some(Kind::Register(register)), false) => self.register(register, now),
            (Some(Kind::Register(_)), true) => Err(Fatal::new(
                "register",
                "registered already: open another connection",
            )),
            (None, _) => Err(Fatal::new(
                "request",
                "this agent does not know the request: upgrade it, or use an older SDK",
            )),
            (Some(_), false) => Err(Fatal::new(
                "register",
                "the first message has to be Register",
            )),
            (Some(Kind::Health(health)), true) => {
                self.hub.health.reported(register::report(health));
                Ok(())
            }
            (Some(Kind::Batch(batch)), true) => self.batch(batch, now),
            (Some(Kind::Commit(commit)), true) => {
                self.commit(commit, now);
                Ok(())
            }
            (Some(Kind::Restored(restored)), true) => {
                self.restored(restored, now);
                Ok(())
            }
            (Some(Kind::Get(get)), true) => {
                self.get(&get, now);
                Ok(())
            }
            (Some(Kind::Range(range)), true) => {
                self.range(&range, now);
                Ok(())
            }
            (Some(Kind::Watch(watch)), true) => self.watch(watch),
            (Some(Kind::Unwatch(unwatch)), true) => {
                self.watches.remove(&unwatch.id);
                Ok(())
            }
        }
    }

    /// A class of the function in a slot, or why there is none.
    fn class(&self, slot: u32, class: u32) -> Result<Arc<Class>, (&'static str, &'static str)> {
        let names = self.classes.as_deref().unwrap_or_default();
        let name = usize::try_from(class)
            .ok()
            .and_then(|class| names.get(class));
        let Some(name) = name else {
            return Err(("class", "no class of this number was registered"));
        };
        let found = self.hub.class(SlotId(slot), name);
        found.ok_or((
            "slot",
            "this element has no such slot; a Role message names those it has",
        ))
    }
}

impl Drop for Session {
    /// A function that is gone is a fault.
    fn drop(&mut self) {
        if self.is_registered() {
            self.hub.unregister();
        }
    }
}
