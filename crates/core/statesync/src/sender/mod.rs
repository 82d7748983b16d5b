//! The active's end of the stream.

mod unacked;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use vnfpool_model::Time;

use crate::Effects;
use crate::wire::{Body, Frame, Refusal};
use unacked::Unacked;

/// Default of [`Limits::unacked_bytes_max`].
pub const UNACKED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most changes between two chunks of a snapshot; with more of them the standby lags.
const TOUCHED_KEYS_MAX: usize = 1 << 18;

/// The barrier that only asks for an acknowledgement; those of [`SenderInput::Drain`] are not it.
const PROOF: u64 = 0;

/// Bounds of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// More than this sent without acknowledgement, and changes are no longer sent: the standby
    /// lags, and gets a new snapshot when it has caught up. Not above [`UNACKED_BYTES_MAX`].
    pub unacked_bytes_max: usize,
    /// The snapshot waits while more than this is unacknowledged, so that changes do not queue
    /// behind it for long.
    pub snapshot_unacked_bytes_max: usize,
    /// In sync needs no more than this many frames unacknowledged …
    pub lag_frames_max: u64,
    /// … and none of them for longer than this.
    pub lag_max: Duration,
    /// A stream without changes for so long carries a barrier, so that its acknowledgement proves
    /// that the copy is still fed; proofs are told half as often at most.
    pub proof_interval: Duration,
    /// How often the whole table is announced again while in sync. It has to come well before
    /// copies expire (180 s for connections) that hear nothing of the packets of the originals.
    pub refresh_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unacked_bytes_max: UNACKED_BYTES_MAX,
            snapshot_unacked_bytes_max: 1024 * 1024,
            lag_frames_max: 50_000,
            lag_max: Duration::from_secs(1),
            proof_interval: Duration::from_millis(50),
            refresh_interval: Duration::from_secs(60),
        }
    }
}

/// A change of the source's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An entry appeared.
    New {
        /// Its key.
        key: Bytes,
        /// The whole entry.
        entry: Bytes,
    },
    /// An entry changed.
    Update {
        /// Its key.
        key: Bytes,
        /// The entry with everything needed to create it.
        entry: Bytes,
    },
    /// An entry is gone.
    Delete {
        /// Its key.
        key: Bytes,
    },
}

/// What happens to a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SenderInput {
    /// A stream to the standby is open.
    Connected,
    /// It is gone.
    Disconnected,
    /// A frame of the receiver came.
    Frame(Frame),
    /// The table changed.
    Change(Change),
    /// The source lost changes.
    ///
    /// What the driver keeps: no change from before the loss is handed in after this. (Subscribe
    /// anew and drop what the old subscription still holds: the snapshot that follows has it. A
    /// change from before the loss would keep newer entries out of that snapshot.)
    Overrun,
    /// A chunk of the snapshot asked for with [`SenderAction::StartSnapshot`].
    ///
    /// What the driver keeps: it subscribes to changes before it reads the first chunk; it hands in
    /// changes and chunks in the order in which it read them; a chunk shows every change that was
    /// handed in before the last but one chunk.
    SnapshotChunk {
        /// The snapshot; chunks of older ones are ignored.
        generation: u32,
        /// Key and entry of each.
        entries: Vec<(Bytes, Bytes)>,
        /// Nothing comes after it.
        is_last: bool,
    },
    /// The element's epoch (`Epoch::fencing_token`), and whether it is the active in it.
    Epoch {
        /// The fencing token.
        token: u64,
        /// Whether this element is the slot's active.
        is_active: bool,
    },
    /// Tell when the standby has everything handed in before.
    Drain {
        /// Names the request; not 0.
        id: u64,
    },
    /// The time of [`Sender::deadline`] has come.
    Tick,
}

/// What the driver of a sender has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SenderAction {
    /// Begin to read the whole table; drop an earlier reading. Hand in a chunk whenever
    /// [`Sender::wants_chunk`] says so.
    StartSnapshot {
        /// Name of the snapshot.
        generation: u32,
    },
    /// Drop the reading under way.
    AbortSnapshot,
    /// Close the stream.
    Close,
    /// The standby has everything handed in before the request.
    Drained {
        /// The request.
        id: u64,
    },
    /// That will not be known: the standby is not in sync, or lost.
    DrainFailed {
        /// The request.
        id: u64,
    },
    /// The standby came into sync, or fell out of it.
    InSync(bool),
    /// The standby, in sync, has everything that was handed in before `as_of`.
    Proved {
        /// When the newest frame that it acknowledged was sent.
        as_of: Time,
    },
    /// The standby did not keep up; it gets a new snapshot when it has.
    Lagging,
    /// The receiver refused the stream. A new one may be tried later.
    Refused {
        /// Why.
        reason: Refusal,
        /// The highest version that it speaks.
        version: u8,
    },
    /// The receiver answered what it cannot know; the stream is closed.
    PeerMisbehaved,
}

/// Figures of a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SenderStatus {
    /// Snapshot that is under way or was the last.
    pub generation: u32,
    /// Sequence of the last frame sent.
    pub sent: u64,
    /// Sequence up to which the standby has applied everything: the watermark.
    pub acked: u64,
    /// Frames sent and not acknowledged.
    pub lag_frames: u64,
    /// When the oldest of them was sent.
    pub oldest_unacked_at: Option<Time>,
    /// Their bytes.
    pub unacked_bytes: usize,
    /// Whether the standby may be armed.
    pub in_sync: bool,
    /// Changes sent since the start.
    pub changes: u64,
    /// Snapshots begun since the start.
    pub snapshots: u64,
    /// Losses at the source since the start.
    pub overruns: u64,
    /// Times that the standby did not keep up.
    pub lagged: u64,
}

impl SenderStatus {
    /// For how long the oldest frame that is not acknowledged has been under way: no change that
    /// is older than that is missing at the standby. Zero when everything is acknowledged.
    #[must_use]
    pub fn lag(&self, now: Time) -> Duration {
        self.oldest_unacked_at
            .map_or(Duration::ZERO, |sent| now.since(sent))
    }
}

/// The active's machine, one per standby.
///
/// ```text
///             Connected, active            end of snapshot acknowledged
///  (closed) -------------------> resync ------------------------------> streaming
///     ^                           ^  ^                                   |  |   ^
///     |              all acked    |  +------------- Overrun -------------+  |   | end acked
///     |        +----- lagging ----+                                      |  v   |
///     |        |         ^  unacked bytes over the limit, anywhere       | refresh
///     |        |         +-----------------------------------------------+
///     +--------+-- Disconnected, Refused, not the active any more
/// ```
///
/// In sync are `streaming` and `refresh`, as long as the lag is within [`Limits`]. An epoch that
/// leaves this element the active does not interrupt anything: the frames carry it from then on.
#[derive(Debug)]
pub struct Sender {
    limits: Limits,
    epoch: u64,
    is_active: bool,
    connected: bool,
    lagging: bool,
    /// A complete snapshot and all changes since were sent without a gap, and the end of the
    /// snapshot was acknowledged.
    synced: bool,
    /// Too far behind, by [`Limits::lag_frames_max`] or [`Limits::lag_max`].
    late: bool,
    reported_in_sync: bool,
    snapshot: Option<Snapshot>,
    /// Sequence of the end of the last snapshot, until acknowledged.
    end: Option<u64>,
    refresh_at: Time,
    sent_at: Time,
    /// When the newest acknowledged frame was sent, and the last such time that was told.
    proved: Time,
    proof_told: Time,
    unacked: Unacked,
    drains: VecDeque<u64>,
    status: SenderStatus,
}

/// A snapshot under way.
#[derive(Debug, Default)]
struct Snapshot {
    resync: bool,
    /// Changes were lost since it began: another one has to follow.
    spoilt: bool,
    count: u64,
    /// Keys of changes since the last chunk, and between the last but one and the last.
    touched: [HashSet<Bytes>; 2],
}

impl Sender {
    /// A sender without a stream, not the active in any epoch.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            epoch: 0,
            is_active: false,
            connected: false,
            lagging: false,
            synced: false,
            late: false,
            reported_in_sync: false,
            snapshot: None,
            end: None,
            refresh_at: Time::NEVER,
            sent_at: Time::ZERO,
            proved: Time::ZERO,
            proof_told: Time::ZERO,
            unacked: Unacked::default(),
            drains: VecDeque::new(),
            status: SenderStatus::default(),
        }
    }

    /// Takes an input; never fails on what a peer sent.
    pub fn handle(&mut self, now: Time, input: SenderInput, out: &mut Effects<SenderAction>) {
        match input {
            SenderInput::Connected => self.connected(now, out),
            SenderInput::Disconnected => self.close(out),
            SenderInput::Frame(frame) => self.frame(now, &frame, out),
            SenderInput::Change(change) => self.change(now, change, out),
            SenderInput::Overrun => self.overrun(now, out),
            SenderInput::SnapshotChunk {
                generation,
                entries,
                is_last,
            } => self.chunk(now, generation, entries, is_last, out),
            SenderInput::Epoch { token, is_active } => self.epoch(token, is_active, out),
            SenderInput::Drain { id } => self.drain(now, id, out),
            SenderInput::Tick => {}
        }
        self.judge(now, out);
    }

    /// When [`SenderInput::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let late_at = self.unacked.oldest().filter(|_| !self.late);
        let late_at = late_at.map(|sent| sent.after(self.limits.lag_max + Duration::from_nanos(1)));
        let refresh_at = self.may_refresh().then_some(self.refresh_at);
        [late_at, refresh_at, self.proof_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the next chunk of the snapshot should be read now.
    #[must_use]
    pub fn wants_chunk(&self) -> bool {
        self.snapshot.is_some() && self.unacked.bytes() <= self.limits.snapshot_unacked_bytes_max
    }

    /// Figures as they are now.
    #[must_use]
    pub fn status(&self) -> SenderStatus {
        SenderStatus {
            lag_frames: self.lag_frames(),
            oldest_unacked_at: self.unacked.oldest(),
            unacked_bytes: self.unacked.bytes(),
            in_sync: self.is_in_sync(),
            ..self.status
        }
    }

    fn connected(&mut self, now: Time, out: &mut Effects<SenderAction>) {
        self.close(out);
        if !self.is_active {
            out.actions.push(SenderAction::Close);
            return;
        }
        self.connected = true;
        self.status.acked = self.status.sent;
        self.begin(now, true, out);
    }

    /// Forgets the stream.
    fn close(&mut self, out: &mut Effects<SenderAction>) {
        self.abort_snapshot(out);
        self.fail_drains(out);
        self.connected = false;
        self.lagging = false;
        self.late = false;
        self.unacked.clear();
        // What was not sent yet belongs to the stream that is gone.
        out.outgoing.clear();
    }

    fn abort_snapshot(&mut self, out: &mut Effects<SenderAction>) {
        if self.snapshot.take().is_some() {
            out.actions.push(SenderAction::AbortSnapshot);
        }
        self.synced = false;
        self.end = None;
    }

    fn fail_drains(&mut self, out: &mut Effects<SenderAction>) {
        let failed = self.drains.drain(..);
        out.actions
            .extend(failed.map(|id| SenderAction::DrainFailed { id }));
    }

    /// Begins a snapshot. With `resync` the copy counts as out of sync until its end.
    fn begin(&mut self, now: Time, resync: bool, out: &mut Effects<SenderAction>) {
        self.synced &= !resync;
        self.end = None;
        self.status.generation = self.status.generation.wrapping_add(1);
        self.status.snapshots += 1;
        self.snapshot = Some(Snapshot {
            resync,
            ..Snapshot::default()
        });
        self.send(now, Body::SnapshotBegin { resync }, out);
        out.actions.push(SenderAction::StartSnapshot {
            generation: self.status.generation,
        });
    }

    fn epoch(&mut self, token: u64, is_active: bool, out: &mut Effects<SenderAction>) {
        if token < self.epoch {
            return;
        }
        self.epoch = token;
        self.is_active = is_active;
        if !is_active && self.connected {
            self.close(out);
            out.actions.push(SenderAction::Close);
        }
    }

    fn change(&mut self, now: Time, change: Change, out: &mut Effects<SenderAction>) {
        if !self.connected || self.lagging {
            return;
        }
        let (key, body) = match change {
            Change::New { key, entry } => (key, upsert(entry, true)),
            // Before the end of a resync the standby may hold an entry of another life of the
            // connection, so it is replaced, not updated.
            Change::Update { key, entry } => (key, upsert(entry, self.is_resyncing())),
            Change::Delete { key } => (key.clone(), Body::Delete { key }),
        };
        let touched = self.snapshot.as_mut().map_or(0, |snapshot| {
            snapshot.touched[0].insert(key);
            snapshot.touched[0].len()
        });
        self.status.changes += 1;
        self.send(now, body, out);
        let bytes = self.unacked.bytes();
        if bytes > self.limits.unacked_bytes_max || touched > TOUCHED_KEYS_MAX {
            self.lag(out);
        }
    }

    fn is_resyncing(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|one| one.resync)
    }

    /// Gives up sending changes until the standby has caught up.
    fn lag(&mut self, out: &mut Effects<SenderAction>) {
        self.abort_snapshot(out);
        self.fail_drains(out);
        self.lagging = true;
        self.status.lagged += 1;
        out.actions.push(SenderAction::Lagging);
    }

    fn overrun(&mut self, now: Time, out: &mut Effects<SenderAction>) {
        self.status.overruns += 1;
        if !self.connected || self.lagging {
            return;
        }
        self.synced = false;
        self.end = None;
        self.fail_drains(out);
        // A snapshot under way goes on, so that a lasting overload does not keep it from ever
        // getting far; its end will not be announced.
        match &mut self.snapshot {
            Some(snapshot) => snapshot.spoilt = true,
            None => self.begin(now, true, out),
        }
    }

    fn chunk(
        &mut self,
        now: Time,
        generation: u32,
        entries: Vec<(Bytes, Bytes)>,
        is_last: bool,
        out: &mut Effects<SenderAction>,
    ) {
        if generation != self.status.generation {
            return;
        }
        let Some(mut snapshot) = self.snapshot.take() else {
            return;
        };
        for (key, entry) in entries {
            if snapshot.touched.iter().any(|keys| keys.contains(&key)) {
                continue;
            }
            snapshot.count += 1;
            let body = Body::Upsert {
                is_new: snapshot.resync,
                from_snapshot: true,
                entry,
            };
            self.send(now, body, out);
        }
        snapshot.touched.swap(0, 1);
        snapshot.touched[0].clear();
        if !is_last {
            self.snapshot = Some(snapshot);
        } else if snapshot.spoilt {
            self.begin(now, true, out);
        } else {
            let count = snapshot.count;
            self.send(now, Body::SnapshotEnd { count }, out);
            self.end = Some(self.status.sent);
        }
    }

    fn drain(&mut self, now: Time, id: u64, out: &mut Effects<SenderAction>) {
        if self.synced && self.connected {
            self.drains.push_back(id);
            self.send(now, Body::Barrier { id }, out);
        } else {
            out.actions.push(SenderAction::DrainFailed { id });
        }
    }

    fn frame(&mut self, now: Time, frame: &Frame, out: &mut Effects<SenderAction>) {
        if !self.connected {
            return;
        }
        match frame.body {
            Body::Ack if (self.status.acked..=self.status.sent).contains(&frame.sequence) => {
                self.acked(now, frame.sequence, out);
            }
            Body::BarrierDone { id } => {
                // Barriers that failed meanwhile are answered too.
                if self.drains.front() == Some(&id) {
                    self.drains.pop_front();
                    out.actions.push(SenderAction::Drained { id });
                }
            }
            Body::Refused { reason, version } => {
                self.close(out);
                out.actions.push(SenderAction::Refused { reason, version });
                out.actions.push(SenderAction::Close);
            }
            _ => {
                self.close(out);
                out.actions.push(SenderAction::PeerMisbehaved);
                out.actions.push(SenderAction::Close);
            }
        }
    }

    fn acked(&mut self, now: Time, sequence: u64, out: &mut Effects<SenderAction>) {
        self.status.acked = sequence;
        if let Some(sent_at) = self.unacked.acknowledge(sequence) {
            self.proved = sent_at;
        }
        if self.end.take_if(|end| *end <= sequence).is_some() {
            self.synced = true;
            self.refresh_at = now.after(self.limits.refresh_interval);
        }
        if self.lagging && self.unacked.is_empty() {
            self.lagging = false;
            self.begin(now, true, out);
        }
    }

    fn send(&mut self, now: Time, body: Body, out: &mut Effects<SenderAction>) {
        self.status.sent += 1;
        let frame = Frame {
            epoch: self.epoch,
            generation: self.status.generation,
            sequence: self.status.sent,
            body,
        };
        let bytes = frame.encode(&mut out.outgoing);
        self.unacked.push(self.status.sent, bytes, now);
        self.sent_at = now;
    }

    /// When a barrier is due because nothing else asks for an acknowledgement.
    fn proof_at(&self) -> Option<Time> {
        let idle = self.synced && self.connected && self.unacked.is_empty();
        idle.then(|| self.sent_at.after(self.limits.proof_interval))
    }

    const fn may_refresh(&self) -> bool {
        self.synced && self.connected && self.snapshot.is_none() && self.end.is_none()
    }

    /// What time and lag alone decide.
    fn judge(&mut self, now: Time, out: &mut Effects<SenderAction>) {
        self.tick(now, out);
        let age = self.unacked.oldest().map(|sent| now.since(sent));
        let age = age.unwrap_or_default();
        let frames = self.lag_frames();
        if frames > self.limits.lag_frames_max || age > self.limits.lag_max {
            self.late = true;
        } else if frames <= self.limits.lag_frames_max / 2 && age <= self.limits.lag_max / 2 {
            self.late = false;
        }
        let in_sync = self.is_in_sync();
        if in_sync != self.reported_in_sync {
            self.reported_in_sync = in_sync;
            out.actions.push(SenderAction::InSync(in_sync));
            self.proof_told = Time::ZERO;
        }
        let told_enough = self.proved.since(self.proof_told) < self.limits.proof_interval / 2;
        if in_sync && !told_enough {
            self.proof_told = self.proved;
            let as_of = self.proved;
            out.actions.push(SenderAction::Proved { as_of });
        }
    }

    fn tick(&mut self, now: Time, out: &mut Effects<SenderAction>) {
        if self.may_refresh() && now >= self.refresh_at {
            self.begin(now, false, out);
        }
        if self.proof_at().is_some_and(|at| now >= at) {
            self.send(now, Body::Barrier { id: PROOF }, out);
        }
    }

    const fn is_in_sync(&self) -> bool {
        self.connected && self.is_active && self.synced && !self.late
    }

    const fn lag_frames(&self) -> u64 {
        if self.connected {
            self.status.sent - self.status.acked
        } else {
            0
        }
    }
}

const fn upsert(entry: Bytes, is_new: bool) -> Body {
    Body::Upsert {
        is_new,
        from_snapshot: false,
        entry,
    }
}
