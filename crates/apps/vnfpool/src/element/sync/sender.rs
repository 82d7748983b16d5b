//! The active's end: a thread between the source of a class and the link to one standby.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::BytesMut;
use vnfpool_conntrack::ReadOutcome;
use vnfpool_heartbeat::{Interest, Poller, Waker};
use vnfpool_model::{Epoch, Incarnation, SlotId, Time};
use vnfpool_statesync::wire::Decoder;
use vnfpool_statesync::{Effects, Limits, Sender, SenderAction, SenderInput, SenderStatus};
use vnfpool_transport::link::{Link, Received};
use vnfpool_wire::datagram::Member;

use super::SetAtEnd;
use super::class::{Class, OWN_BARRIERS, Source};
use super::copies::Copies;
use super::holding::HoldingFigures;
use super::preface::Preface;
use super::standing::Standing;
use crate::pulse::now;

/// Messages that wait for the thread.
const COMMANDS_MAX: usize = 64;

/// Reads of events before the network is looked at again.
const READS_AT_ONCE: usize = 2;

/// At more changes a second than this, measured over [`RATE_OVER`], …
const BUSY_CHANGES_PER_S: u64 = 8_000;

/// … the thread rests for so long after each round: a few changes then share a wake-up, a TLS
/// record and a batch of the standby's kernel. Below that rate a change never waits.
const REST: Duration = Duration::from_millis(1);

/// Over how long the rate of changes is measured.
const RATE_OVER: Duration = Duration::from_millis(20);

/// The link has to be there within this time.
const LINK_TIME_MAX: Duration = Duration::from_secs(10);

/// Looks at its commands at least so often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

enum Command {
    Link(Box<Link>),
    NoLink(String),
    Epoch { token: u64, is_active: bool },
    Barrier(Answer),
}

/// Is told whether the standby has everything from before the barrier.
type Answer = Box<dyn FnOnce(bool) + Send>;

/// The thread ends when its handle is dropped or the stream ends.
#[derive(Debug)]
pub(super) struct Handle {
    door: Door,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    told: Mutex<Option<(u64, bool)>>,
    status: Arc<Mutex<Figures>>,
}

/// Gives the thread commands, and does not keep it alive.
#[derive(Debug, Clone)]
pub(super) struct Door {
    commands: SyncSender<Command>,
    waker: Waker,
}

impl Door {
    fn give(&self, command: Command) -> Result<(), Command> {
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        let given = self.commands.try_send(command);
        self.waker.wake();
        given.map_err(|(Full(command) | Disconnected(command))| command)
    }

    /// The link that the thread waits for, or why there is none.
    pub(super) fn link(&self, link: anyhow::Result<Link>) {
        // A thread that takes it no more has ended.
        let _ = self.give(match link {
            Ok(link) => Command::Link(Box::new(link)),
            Err(error) => Command::NoLink(format!("{error:#}")),
        });
    }
}

impl Handle {
    pub(super) fn set_epoch(&self, epoch: Epoch, is_active: bool) {
        let news = (epoch.fencing_token(), is_active);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != Some(news) {
            let command = Command::Epoch {
                token: news.0,
                is_active,
            };
            if self.door.give(command).is_ok() {
                *told = Some(news);
            }
        }
    }

    /// Has `answer` told whether the standby has everything from before this; false at once when
    /// the thread takes nothing any more.
    pub(super) fn barrier(&self, answer: Answer) {
        if let Err(Command::Barrier(answer)) = self.door.give(Command::Barrier(answer)) {
            answer(false);
        }
    }

    /// Where the link is to be given.
    pub(super) fn door(&self) -> Door {
        self.door.clone()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Set when the thread has ended and will say nothing more.
    pub(super) fn ended(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ended)
    }

    pub(super) fn status(&self) -> Figures {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.door.waker.wake();
    }
}

/// How a stream goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) stream: SenderStatus,
    /// Of first packets that wait for the standby, at the level `commit`.
    pub(crate) holding: Option<HoldingFigures>,
    /// Why they do not, where that level was demanded and cannot be had.
    pub(crate) unheld: Option<Arc<str>>,
}

/// What a stream is about.
pub(super) struct Purpose {
    pub(super) slot: SlotId,
    pub(super) class: Class,
    /// The life of this element that calls.
    pub(super) caller: Incarnation,
    pub(super) to: Member,
    pub(super) copies: Arc<Copies>,
    pub(super) standing: Arc<Standing>,
}

/// Starts the thread, which waits for its link first. Whatever goes wrong later it says in the log.
pub(super) fn start(purpose: Purpose, epoch: Epoch) -> anyhow::Result<Handle> {
    let (commands, received) = sync_channel(COMMANDS_MAX);
    let (stop, ended) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let status = Arc::new(Mutex::new(Figures::default()));
    let poller = Poller::new()?;
    let waker = poller.waker();
    let parts = Parts {
        purpose,
        poller,
        commands: received,
        status: Arc::clone(&status),
        stop: Arc::clone(&stop),
    };
    let over = SetAtEnd(Arc::clone(&ended));
    std::thread::Builder::new()
        .name("state-out".into())
        .spawn(move || {
            let _over = over;
            run(parts, epoch);
        })?;
    Ok(Handle {
        door: Door { commands, waker },
        stop,
        ended,
        told: Mutex::new(None),
        status,
    })
}

struct Parts {
    purpose: Purpose,
    poller: Poller,
    commands: Receiver<Command>,
    status: Arc<Mutex<Figures>>,
    stop: Arc<AtomicBool>,
}

fn run(parts: Parts, epoch: Epoch) {
    let (slot, peer) = (parts.purpose.slot, parts.purpose.to.node.0);
    let class = parts.purpose.class.name().clone();
    let (standing, status) = (
        Arc::clone(&parts.purpose.standing),
        Arc::clone(&parts.status),
    );
    let outcome = Thread::open(parts, epoch).and_then(|thread| match thread {
        Some(mut thread) => thread.run(),
        None => Ok(()),
    });
    let figures = status
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    standing.ended(outcome.as_ref().err(), &figures);
    if let Err(error) = outcome {
        tracing::warn!(%slot, peer, %class, "the state stream to the standby ended: {error:#}");
    }
}

struct Thread {
    parts: Parts,
    machine: Sender,
    decoder: Decoder,
    effects: Effects<SenderAction>,
    source: Box<dyn Source>,
    link: Box<Link>,
    received: BytesMut,
    inputs: Vec<SenderInput>,
    barriers: u64,
    waiting: Vec<(u64, Answer)>,
    in_sync: bool,
    over: bool,
    rate: Rate,
}

impl Thread {
    /// Waits for the link, then begins; none when it was stopped before.
    fn open(parts: Parts, epoch: Epoch) -> anyhow::Result<Option<Self>> {
        let mut is_active = true;
        let mut token = epoch.fencing_token();
        let given_up = now().after(LINK_TIME_MAX);
        let mut link = loop {
            if parts.stop.load(Ordering::Acquire) {
                return Ok(None);
            }
            match parts.commands.try_recv() {
                Ok(Command::Link(link)) => break link,
                Ok(Command::NoLink(reason)) => anyhow::bail!("no link to it: {reason}"),
                Ok(Command::Epoch {
                    token: newer,
                    is_active: active,
                }) => {
                    (token, is_active) = (newer, active);
                }
                Ok(Command::Barrier(answer)) => answer(false),
                Err(_) => {
                    anyhow::ensure!(now() < given_up, "no link to it in time");
                    parts.poller.wait(std::iter::empty(), given_up.0);
                }
            }
        };
        let purpose = &parts.purpose;
        let preface = Preface {
            slot: purpose.slot,
            caller: purpose.caller,
        };
        link.send(&preface.encode())?;
        let class = &purpose.class;
        let source = (class.open_source)(purpose.slot).context("open the source of the state")?;
        purpose.standing.opened(source.events());
        let machine = Sender::new(class.demand.clone(), class.accepts_less, Limits::default());
        let mut thread = Self {
            parts,
            machine,
            decoder: Decoder::new(),
            effects: Effects::default(),
            source,
            link,
            received: BytesMut::new(),
            inputs: Vec::new(),
            barriers: OWN_BARRIERS,
            waiting: Vec::new(),
            in_sync: false,
            over: false,
            rate: Rate::default(),
        };
        thread.feed(SenderInput::Epoch { token, is_active })?;
        let hash_key = vnfpool_transport::random_bytes().context("no random bytes")?;
        thread.feed(SenderInput::Connected { hash_key })?;
        Ok(Some(thread))
    }

    fn run(&mut self) -> anyhow::Result<()> {
        while !self.over && !self.parts.stop.load(Ordering::Acquire) {
            let looked_at = now();
            let drained = self.read_events()?;
            if drained {
                let up_to = looked_at;
                self.feed(SenderInput::CaughtUp { up_to })?;
            }
            self.obey()?;
            let all_received = self.receive()?;
            if self.machine.deadline().is_some_and(|due| due <= now()) {
                self.feed(SenderInput::Tick)?;
            }
            let more = match self.machine.wants_chunk() {
                true => self.read_chunk()?,
                false => false,
            };
            self.machine.flush(now(), &mut self.effects);
            self.act()?;
            let all_sent = self.link.flush()?;
            *self
                .parts
                .status
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Figures {
                stream: self.machine.status(),
                holding: self.source.holding(),
                unheld: self.source.unheld(),
            };
            if drained && !more && all_received {
                self.wait(all_sent);
            }
        }
        Ok(())
    }

    fn wait(&mut self, all_sent: bool) {
        let is_busy = self.rate.is_busy(now(), self.machine.status().changes);
        let is_urgent = self.source.is_urgent() || self.machine.is_awaited();
        if is_busy && !is_urgent {
            std::thread::sleep(REST);
            return;
        }
        if self.source.arm() {
            return;
        }
        let due = self.machine.deadline().unwrap_or(Time::NEVER);
        let due = due.min(self.source.deadline().unwrap_or(Time::NEVER));
        let due = due.min(now().after(LOOK_AGAIN));
        let of_link = match all_sent {
            true => Interest::Read,
            false => Interest::ReadOrWrite,
        };
        let wanted = [
            (self.source.as_fd(), Interest::Read),
            (self.link.as_fd(), of_link),
        ];
        let other = self.source.other_fd().map(|fd| (fd, Interest::Read));
        self.parts
            .poller
            .wait_for(wanted.into_iter().chain(other), due.0);
    }

    /// Hands waiting events to the machine; true when there are no more.
    fn read_events(&mut self) -> anyhow::Result<bool> {
        for _ in 0..READS_AT_ONCE {
            let outcome = self.source.read(&mut self.inputs)?;
            let mut inputs = std::mem::take(&mut self.inputs);
            for input in inputs.drain(..) {
                self.feed(input)?;
            }
            self.inputs = inputs;
            match outcome {
                ReadOutcome::Drained => return Ok(true),
                ReadOutcome::More => {}
                ReadOutcome::Overrun { lost } => {
                    self.parts.purpose.standing.overrun(lost);
                    let (slot, class) = (self.parts.purpose.slot, self.parts.purpose.class.name());
                    tracing::warn!(%slot, %class, lost, "the source lost changes: looking for what differs");
                }
            }
        }
        Ok(false)
    }

    fn read_chunk(&mut self) -> anyhow::Result<bool> {
        match self.source.read_chunk()? {
            Some(chunk) => self.feed(chunk).map(|()| true),
            None => Ok(false),
        }
    }

    /// Takes what the standby says; true when there is no more at the moment.
    fn receive(&mut self) -> anyhow::Result<bool> {
        let received = self.link.receive(&mut self.received)?;
        self.decoder.push(&self.received.split());
        while let Some(frame) = self.decoder.next_frame()? {
            self.feed(SenderInput::Frame(frame))?;
        }
        anyhow::ensure!(
            received != Received::Closed || self.over,
            "the standby ended it"
        );
        Ok(received == Received::All)
    }

    fn obey(&mut self) -> anyhow::Result<()> {
        while let Ok(command) = self.parts.commands.try_recv() {
            match command {
                Command::Link(_) | Command::NoLink(_) => {}
                Command::Epoch { token, is_active } => {
                    self.feed(SenderInput::Epoch { token, is_active })?;
                }
                Command::Barrier(answer) => {
                    // Everything that the source holds by now is before the barrier.
                    while !self.read_events()? {}
                    self.barriers += 1;
                    let id = self.barriers;
                    self.waiting.push((id, answer));
                    self.feed(SenderInput::Barrier { id })?;
                }
            }
        }
        Ok(())
    }

    fn feed(&mut self, input: SenderInput) -> anyhow::Result<()> {
        self.machine.handle(now(), input, &mut self.effects);
        match self.effects.actions.is_empty() {
            true => Ok(()),
            false => self.act(),
        }
    }

    fn act(&mut self) -> anyhow::Result<()> {
        for action in std::mem::take(&mut self.effects.actions) {
            let (slot, class) = (self.parts.purpose.slot, self.parts.purpose.class.name());
            match action {
                SenderAction::StartScan { generation } => self.source.start_scan(generation)?,
                SenderAction::AbortScan => self.source.abort_scan(),
                SenderAction::Close => self.over = true,
                SenderAction::Accepted { level } => {
                    let Class {
                        demand,
                        accepts_less,
                        ..
                    } = &self.parts.purpose.class;
                    let demanded = demand.level;
                    let standing = &self.parts.purpose.standing;
                    standing.answered(level, demand, *accepts_less);
                    if level == demanded {
                        tracing::info!(%slot, %class, %level, "the standby takes the state");
                    } else {
                        tracing::warn!(%slot, %class, %level, %demanded, "the standby can do less than demanded");
                    }
                }
                SenderAction::Reached { id } => self.answer(id, true),
                SenderAction::Unreachable { id } => self.answer(id, false),
                SenderAction::InSync(in_sync) => {
                    if in_sync {
                        // Whatever was lost before, this copy has.
                        self.parts.purpose.standing.repaired();
                    }
                    self.tell_in_sync(in_sync);
                    self.tell_source();
                }
                SenderAction::Lacking { entries: 0 } => {
                    tracing::info!(%slot, %class, "the standby's table has taken what it refused");
                    self.tell_source();
                }
                SenderAction::Lacking { entries } => {
                    tracing::warn!(%slot, %class, entries, "the standby's table refuses entries: is it full (nf_conntrack_max there)?");
                    self.tell_source();
                }
                SenderAction::Proved { as_of } => self.tell_copy(Some(as_of)),
                SenderAction::Lagging => {
                    tracing::warn!(%slot, %class, "the standby does not keep up");
                }
                SenderAction::Diverged { buckets, entries } => {
                    tracing::warn!(%slot, %class, buckets, entries, "the standby's copy differs: sending this anew");
                }
                SenderAction::Repaired { put, forgotten } => {
                    tracing::info!(%slot, %class, put, forgotten, "what the source had lost is told");
                }
                SenderAction::Refused { reason, version } => {
                    anyhow::bail!("the standby refuses the stream: {reason}, version {version}");
                }
                SenderAction::PeerMisbehaved => anyhow::bail!("the standby answered nonsense"),
                _ => {}
            }
        }
        if !self.effects.outgoing.is_empty() {
            let bytes = self.effects.outgoing.split();
            self.link.send(&bytes)?;
        }
        Ok(())
    }

    fn answer(&mut self, id: u64, reached: bool) {
        if id < OWN_BARRIERS {
            return self.source.reached(id, reached);
        }
        if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == id) {
            let (_, answer) = self.waiting.swap_remove(at);
            answer(reached);
        }
    }

    /// Who waits for the standby waits for one that takes everything.
    fn tell_source(&mut self) {
        let takes_everything = self.machine.status().lacking == 0;
        self.source.in_sync(self.in_sync && takes_everything);
    }

    fn tell_in_sync(&mut self, in_sync: bool) {
        if self.in_sync != in_sync {
            self.in_sync = in_sync;
            let Purpose {
                slot, class, to, ..
            } = &self.parts.purpose;
            let class = class.name();
            tracing::info!(%slot, %class, peer = to.node.0, in_sync, "service state of the standby");
            if !in_sync {
                self.tell_copy(None);
            }
        }
    }

    fn tell_copy(&self, as_of: Option<Time>) {
        let Purpose {
            class, to, copies, ..
        } = &self.parts.purpose;
        copies.report(*to, class.name(), as_of);
    }
}

/// How fast changes come.
#[derive(Debug, Default)]
struct Rate {
    since: Time,
    changes: u64,
    is_busy: bool,
}

impl Rate {
    fn is_busy(&mut self, now: Time, changes: u64) -> bool {
        let passed = now.since(self.since);
        if passed >= RATE_OVER {
            let made = u128::from(changes - self.changes);
            let per_s = made * 1_000_000_000 / passed.as_nanos();
            self.is_busy = per_s > u128::from(BUSY_CHANGES_PER_S);
            (self.since, self.changes) = (now, changes);
        }
        self.is_busy
    }
}

impl Drop for Thread {
    /// However it ends, also by an error: a standby that is fed no longer is not in sync (I5), and
    /// nobody waits for ever.
    fn drop(&mut self) {
        self.tell_in_sync(false);
        for (_, answer) in self.waiting.drain(..) {
            answer(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::SocketAddr;
    use std::time::Instant;

    use vnfpool_conntrack::Scope;
    use vnfpool_model::StateSpec;
    use vnfpool_statesync::class::ClassName;
    use vnfpool_statesync::{Receiver as Copy, ReceiverAction, ReceiverInput};
    use vnfpool_succession::element::Input;
    use vnfpool_transport::link::{self, LinkListener};
    use vnfpool_transport::pki::{Authority, Credentials, Validity};
    use vnfpool_transport::{Identity, PeerPolicy, TrustDomain};
    use vnfpool_wire::datagram::NodeId;

    use super::*;
    use crate::element::pulse::{self, Pulse};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn standby() -> Member {
        Member {
            node: NodeId(2),
            incarnation: Incarnation(1),
        }
    }

    fn class() -> Class {
        Class::conntrack(Scope::new(std::iter::empty()), StateSpec::DEFAULT)
    }

    fn purpose(pulse: Pulse) -> Purpose {
        let slot = SlotId(1);
        let copies = Arc::new(Copies::new(slot, pulse));
        copies.need(std::iter::once(ClassName::conntrack()));
        Purpose {
            slot,
            class: class(),
            caller: Incarnation(1),
            to: standby(),
            copies,
            standing: Arc::default(),
        }
    }

    /// A link and the other end of it.
    async fn links() -> (Link, Link) {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("test.example").unwrap();
        let authority = Authority::create(&dir.path().join("ca"), &domain).unwrap();
        let member = |name: &str| -> Credentials {
            let identity = Identity::Element {
                pool: "edge".parse().unwrap(),
                element: name.parse().unwrap(),
            };
            let dir = dir.path().join(name);
            authority
                .issue_local(&dir, &identity, &[], Validity::standard())
                .unwrap()
        };
        let members = || PeerPolicy::ElementOf("edge".parse().unwrap());
        let address: SocketAddr = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap()
        };
        let mut listener =
            LinkListener::bind(address, &member("gw2"), members(), Arc::default()).unwrap();
        let calling = link::connect(&member("gw1"), members(), address)
            .await
            .unwrap();
        (calling, listener.accept().await.unwrap())
    }

    /// The standby's end until it is in sync.
    fn take_all(link: &mut Link) {
        let mut copy = Copy::new(class().offer);
        let mut effects = Effects::default();
        let (mut bytes, mut decoder) = (BytesMut::new(), Decoder::new());
        let (mut prefaced, began) = (false, Instant::now());
        copy.handle(Time(1), ReceiverInput::Connected, &mut effects);
        while !copy.status().in_sync {
            assert!(began.elapsed() < PATIENCE, "never in sync");
            assert_ne!(link.receive(&mut bytes).unwrap(), Received::Closed);
            if !prefaced && bytes.len() >= 16 {
                prefaced = true;
                let _preface = bytes.split_to(16);
            }
            if prefaced {
                decoder.push(&bytes.split());
            }
            while let Some(frame) = decoder.next_frame().unwrap() {
                copy.handle(Time(1), ReceiverInput::Frame(frame), &mut effects);
            }
            for action in std::mem::take(&mut effects.actions) {
                let (ReceiverAction::Flush { ticket } | ReceiverAction::StartSweep { ticket, .. }) =
                    action
                else {
                    continue;
                };
                if let ReceiverAction::StartSweep { sweep, .. } = action {
                    let (items, is_last) = (Vec::new(), true);
                    let chunk = ReceiverInput::SweepChunk {
                        sweep,
                        items,
                        is_last,
                    };
                    copy.handle(Time(1), chunk, &mut effects);
                }
                copy.handle(Time(1), ReceiverInput::Applied(ticket), &mut effects);
            }
            link.send(&effects.outgoing.split()).unwrap();
            link.flush().unwrap();
        }
    }

    fn told(inbox: &crate::pulse::Inbox<pulse::Command, pulse::View>) -> Vec<bool> {
        let mut commands = VecDeque::new();
        inbox.take(&mut commands);
        let news = commands.into_iter().map(|command| match command {
            pulse::Command::Input {
                input: Input::InSync { peer, as_of },
                ..
            } if peer == standby() => as_of.is_some(),
            _ => panic!("only this was to be told"),
        });
        news.collect()
    }

    /// Goal: a standby that ends the stream when it has everything, and so is sent nothing more, is
    /// seen to have done so, and is in sync no longer (I5); else no stream would ever be opened
    /// anew. (Needs root, for the kernel's events.)
    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_that_the_standby_ends_is_over_and_leaves_nobody_in_sync() {
        let (pulse, inbox) = Pulse::new().unwrap();
        let handle = start(purpose(pulse), Epoch { term: 1, turn: 0 }).unwrap();
        let (calling, mut called) = links().await;
        handle.door().link(Ok(calling));
        take_all(&mut called);
        let began = Instant::now();
        let mut news = Vec::new();
        while !news.contains(&true) {
            assert!(began.elapsed() < PATIENCE, "never told");
            news.extend(told(&inbox));
        }
        drop(called);
        while !handle.has_ended() {
            assert!(began.elapsed() < PATIENCE, "never ends");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        news.extend(told(&inbox));
        assert_eq!(news.last(), Some(&false));
    }

    /// Goal: a link that cannot be made ends the thread, and whoever waits for it is answered.
    #[test]
    fn without_a_link_the_stream_is_over() {
        let (pulse, _inbox) = Pulse::new().unwrap();
        let handle = start(purpose(pulse), Epoch { term: 1, turn: 0 }).unwrap();
        let (answered, answer) = std::sync::mpsc::channel();
        handle.barrier(Box::new(move |reached| answered.send(reached).unwrap()));
        handle.door().link(Err(anyhow::anyhow!("nobody there")));
        assert!(!answer.recv_timeout(PATIENCE).unwrap());
        let began = Instant::now();
        while !handle.has_ended() {
            assert!(began.elapsed() < PATIENCE, "never ends");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
