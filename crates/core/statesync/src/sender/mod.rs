//! The active's end of the stream.

mod interface;
mod scan;
mod unacked;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use vnfpool_model::Time;

use crate::class::{Demand, Level};
use crate::index::{BUCKETS, Hashes, Index, Row, expiry, short};
use crate::wire::record::{self, Mark, NUMBERS_MAX, Record};
use crate::wire::{Batch, Body, Frame};
use crate::{Change, Effects, Item};
pub use interface::{Limits, SenderAction, SenderInput, SenderStatus, UNACKED_BYTES_MAX};
use scan::{Scan, Whole};
use unacked::Unacked;

/// Most changes between two chunks of a scan; with more of them the standby lags.
const TOUCHED_KEYS_MAX: usize = 1 << 18;

/// A frame is cut when its records have reached so many bytes (a TLS record).
const FRAME_BYTES: usize = 15 * 1024;

/// Buckets whose sums are sent at once: a round takes `BUCKETS` over this times the interval.
const SUMS_AT_ONCE: u16 = 64;

/// The copy's life is prolonged when it is this much shorter than the original's.
const TTL_SLACK_S: u32 = 2;

/// A scan may take one part in so many of the time.
const SCAN_SHARE: u32 = 25;

/// Between two scans at most, however long they take.
const AUDIT_INTERVAL_MAX: Duration = Duration::from_secs(25);

/// Before a repair so many times as long as the last scan took, or at most: a standby that asks all
/// the time must not keep the active busy with nothing else.
const REPAIR_PAUSE: u32 = 4;
const REPAIR_PAUSE_MAX: Duration = Duration::from_secs(10);

/// The active's machine, one per standby and class.
///
/// ```text
///            Connected             accepted           resync scan acknowledged and swept
///  (closed) ----------> greeting ----------> resync -------------------------------> streaming
///     ^                    |                  ^  ^                                  |  |   ^
///     |                    |      all acked   |  +------------- Overrun ------------+  |   | end
///     |                    |       +---- lagging                                    |  v   |
///     |                    |       |      ^  unacked bytes over the limit, anywhere | audit, repair
///     |                    |       |      +-----------------------------------------+
///     +--------------------+-------+-- Disconnected, Refused, not the active any more
/// ```
///
/// In sync are `streaming`, `audit` and `repair`, as long as the lag is within the level's bounds.
/// An epoch that leaves this element the active does not interrupt anything: the frames carry it
/// from then on.
///
/// Records gather until [`Sender::flush`], which the driver calls when it has handed in what there
/// was.
#[derive(Debug)]
pub struct Sender {
    demand: Demand,
    accepts_less: bool,
    limits: Limits,
    epoch: u64,
    is_active: bool,
    phase: Phase,
    lagging: bool,
    /// Everything was told without a gap, and the end of the scan that made sure is acknowledged.
    synced: bool,
    /// Too far behind by the level's bounds.
    late: bool,
    reported_in_sync: bool,
    index: Index,
    hashes: Hashes,
    scan: Option<Scan>,
    /// The end of a resync: its sequence until acknowledged, its generation until swept.
    end: Option<End>,
    /// Buckets that the standby wants anew; entries that it wants are marked in the index.
    repair: BTreeSet<u16>,
    repair_at: Time,
    audit_at: Time,
    audit_interval: Duration,
    sums_at: Time,
    next_sums: u16,
    marked_at: Time,
    caught_up: Time,
    round_trip_min: Duration,
    /// When the newest acknowledged frame was sent, and the last such time that was told.
    proved: Time,
    proof_told: Time,
    batch: Batch,
    unacked: Unacked,
    barriers: VecDeque<(u64, u64)>,
    status: SenderStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    /// The receiver has not said yet whether it holds the class.
    Greeting,
    Open,
}

#[derive(Clone, Copy, Debug)]
struct End {
    sequence: Option<u64>,
    generation: Option<u32>,
}

impl Sender {
    /// A sender without a stream, not the active in any epoch. With `accepts_less` a standby that
    /// holds the class at a lesser level than demanded will do.
    #[must_use]
    pub fn new(demand: Demand, accepts_less: bool, limits: Limits) -> Self {
        Self {
            demand,
            accepts_less,
            limits,
            epoch: 0,
            is_active: false,
            phase: Phase::Closed,
            lagging: false,
            synced: false,
            late: false,
            reported_in_sync: false,
            index: Index::default(),
            hashes: Hashes::new(&[0; 16]),
            scan: None,
            end: None,
            repair: BTreeSet::new(),
            repair_at: Time::ZERO,
            audit_at: Time::NEVER,
            audit_interval: limits.audit_interval,
            sums_at: Time::NEVER,
            next_sums: 0,
            marked_at: Time::ZERO,
            caught_up: Time::ZERO,
            round_trip_min: Duration::MAX,
            proved: Time::ZERO,
            proof_told: Time::ZERO,
            batch: Batch::default(),
            unacked: Unacked::default(),
            barriers: VecDeque::new(),
            status: SenderStatus::default(),
        }
    }

    /// Takes an input; never fails on what a peer sent.
    pub fn handle(&mut self, now: Time, input: SenderInput, out: &mut Effects<SenderAction>) {
        match input {
            SenderInput::Change(change) => return self.change(now, change, out),
            SenderInput::Connected { hash_key } => self.connected(hash_key, out),
            SenderInput::Disconnected => self.close(out),
            SenderInput::Frame(frame) => self.frame(now, &frame, out),
            // After a loss that is not repaired, to have read everything is not to have told everything.
            SenderInput::CaughtUp { up_to } if self.synced => self.caught_up = up_to,
            SenderInput::CaughtUp { .. } => {}
            SenderInput::Overrun => self.overrun(now, out),
            SenderInput::ScanChunk {
                generation,
                items,
                is_last,
            } => self.chunk(now, generation, &items, is_last, out),
            SenderInput::Epoch { token, is_active } => self.epoch(now, token, is_active, out),
            SenderInput::Barrier { id } => self.barrier(now, id, out),
            SenderInput::Tick => {}
        }
        self.judge(now, out);
    }

    /// Appends what has gathered to the outgoing bytes.
    pub fn flush(&mut self, now: Time, out: &mut Effects<SenderAction>) {
        self.judge(now, out);
    }

    /// When [`SenderInput::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        if self.phase != Phase::Open {
            return None;
        }
        let bounds = self.bounds().filter(|_| !self.late);
        let late_at = bounds
            .zip(self.unacked.oldest())
            .map(|(bounds, sent)| sent.after(bounds.lag() + Duration::from_nanos(1)));
        let repair_at = self.wants_repair().then_some(self.repair_at);
        let idle_at = repair_at.into_iter().chain([self.audit_at, self.sums_at]);
        let idle_at = idle_at.min().filter(|_| self.may_scan());
        let mark_at = (!self.lagging).then(|| self.mark_at());
        [late_at, idle_at, mark_at].into_iter().flatten().min()
    }

    /// Whether the next chunk of the scan should be read now.
    #[must_use]
    pub fn wants_chunk(&self) -> bool {
        self.scan.is_some() && self.unacked.bytes() <= self.limits.scan_unacked_bytes_max
    }

    /// Whether somebody waits for the standby's word ([`SenderInput::Barrier`]).
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.barriers.is_empty()
    }

    /// Figures as they are now.
    #[must_use]
    pub fn status(&self) -> SenderStatus {
        SenderStatus {
            lag_records: self.lag_records(),
            oldest_unacked_at: self.unacked.oldest(),
            unacked_bytes: self.unacked.bytes(),
            in_sync: self.is_in_sync(),
            entries: self.index.len(),
            ..self.status
        }
    }

    fn connected(&mut self, hash_key: [u8; 16], out: &mut Effects<SenderAction>) {
        self.close(out);
        if !self.is_active || self.demand.level == Level::None {
            out.actions.push(SenderAction::Close);
            return;
        }
        self.phase = Phase::Greeting;
        self.hashes = Hashes::new(&hash_key);
        self.status.acked = self.status.sent;
        let demand = self.demand.clone();
        let hello = Frame {
            epoch: self.epoch,
            generation: self.status.generation,
            sequence: self.status.sent,
            body: Body::Hello { demand, hash_key },
        };
        hello.encode(&mut out.outgoing);
    }

    /// Only the kind of level is the standby's to say: the bounds are the pool's.
    fn accepted(&mut self, now: Time, kind: Level, out: &mut Effects<SenderAction>) {
        let level = self.demand.level.at_most(kind);
        let less = level.code() < self.demand.level.code();
        self.status.level = Some(level);
        out.actions.push(SenderAction::Accepted { level });
        if level == Level::None || (less && !self.accepts_less) {
            self.close(out);
            out.actions.push(SenderAction::Close);
            return;
        }
        self.phase = Phase::Open;
        self.marked_at = now;
        self.begin(now, true, true, out);
    }

    /// Forgets the stream.
    fn close(&mut self, out: &mut Effects<SenderAction>) {
        self.abort_scan(out);
        self.fail_barriers(out);
        self.phase = Phase::Closed;
        self.lagging = false;
        self.late = false;
        self.status.lacking = 0;
        self.index.clear();
        self.repair.clear();
        self.unacked.clear();
        self.batch.clear();
        // What was not sent yet belongs to the stream that is gone.
        out.outgoing.clear();
    }

    fn abort_scan(&mut self, out: &mut Effects<SenderAction>) {
        if let Some(scan) = self.scan.take() {
            self.repair.extend(scan.whole.buckets());
            out.actions.push(SenderAction::AbortScan);
        }
        self.synced = false;
        self.end = None;
    }

    fn fail_barriers(&mut self, out: &mut Effects<SenderAction>) {
        let failed = self.barriers.drain(..);
        out.actions
            .extend(failed.map(|(_, id)| SenderAction::Unreachable { id }));
    }

    /// Begins a scan, which repairs what the standby wants. With `resync` the copy counts as out of
    /// sync until its end.
    fn begin(
        &mut self,
        now: Time,
        resync: bool,
        everything: bool,
        out: &mut Effects<SenderAction>,
    ) {
        let (buckets, entries) = (std::mem::take(&mut self.repair), self.index.wanted());
        if !buckets.is_empty() || entries > 0 {
            let buckets = buckets.len();
            out.actions
                .push(SenderAction::Diverged { buckets, entries });
        }
        let whole = match everything {
            true => Whole::Everything,
            false => Whole::Buckets(buckets),
        };
        self.synced &= !resync;
        self.end = None;
        let generation = self.status.generation.wrapping_add(1);
        // The frame under way belongs to the scan before.
        self.cut(now, out);
        self.status.generation = generation;
        self.status.scans += 1;
        let begin = Record::Begin {
            generation,
            resync,
            whole: whole.listed(),
        };
        self.scan = Some(Scan::new(now, resync, whole));
        self.tell(now, out, |bytes| begin.encode(bytes));
        out.actions.push(SenderAction::StartScan { generation });
    }

    fn epoch(&mut self, now: Time, token: u64, is_active: bool, out: &mut Effects<SenderAction>) {
        if token < self.epoch {
            return;
        }
        // What was gathered is of the epoch before.
        self.cut(now, out);
        self.epoch = token;
        self.is_active = is_active;
        if !is_active && self.phase != Phase::Closed {
            self.close(out);
            out.actions.push(SenderAction::Close);
        }
    }

    fn change(&mut self, now: Time, change: Change, out: &mut Effects<SenderAction>) {
        if self.phase != Phase::Open || self.lagging {
            return;
        }
        let key = match &change {
            Change::Put { item, .. } => self.hashes.of(&item.key),
            Change::Delete { key } => self.hashes.of(key),
        };
        let touched = self.scan.as_mut().map_or(0, |scan| scan.touch(key));
        self.status.changes += 1;
        match change {
            Change::Put { item, is_new } => {
                let hashed = (key, self.hashes.of_value(&item.value));
                // What is committed is told before it happens, and then once more. A scan leaves
                // to the changes what they touch, so while one runs it is told again.
                if self.scan.is_some() || !self.is_told(now, hashed, item.ttl_s) {
                    // Before the end of a resync the standby may hold an entry of another life of
                    // the connection, so it is replaced, not updated.
                    let is_new = is_new || self.is_resyncing();
                    self.put(now, hashed, &item, is_new, out);
                }
            }
            Change::Delete { key: bytes } => {
                self.index.remove(key);
                self.tell(now, out, |out| record::delete(out, &bytes));
            }
        }
        if touched > TOUCHED_KEYS_MAX {
            self.lag(out);
        }
    }

    fn put(
        &mut self,
        now: Time,
        (key, value): (u64, u32),
        item: &Item,
        is_new: bool,
        out: &mut Effects<SenderAction>,
    ) {
        let told_in = short(self.status.generation);
        let row = Row::told(value, expiry(now, item.ttl_s), told_in);
        self.index.put(key, row);
        self.tell(now, out, |out| record::put(out, item, is_new));
    }

    /// Whether the standby was told just this, and no loss speaks against it.
    fn is_told(&self, now: Time, (key, value): (u64, u32), ttl_s: u32) -> bool {
        let is_same = |row: &Row| {
            let longer = expiry(now, ttl_s).abs_diff(row.expires_s);
            row.value == value && longer <= TTL_SLACK_S && !row.is_wanted()
        };
        !self.is_resyncing() && self.index.get(key).is_some_and(is_same)
    }

    fn is_resyncing(&self) -> bool {
        self.scan.as_ref().is_some_and(Scan::replaces)
    }

    /// Gives up sending changes until the standby has caught up.
    fn lag(&mut self, out: &mut Effects<SenderAction>) {
        self.abort_scan(out);
        self.fail_barriers(out);
        self.lagging = true;
        self.status.lagged += 1;
        out.actions.push(SenderAction::Lagging);
    }

    fn overrun(&mut self, now: Time, out: &mut Effects<SenderAction>) {
        self.status.overruns += 1;
        if self.phase != Phase::Open || self.lagging {
            return;
        }
        self.synced = false;
        self.end = None;
        self.fail_barriers(out);
        // A scan under way goes on, so that a lasting overload does not keep it from ever getting
        // far; its end will not be announced.
        match &mut self.scan {
            Some(scan) => scan.spoilt = true,
            None => self.begin(now, true, false, out),
        }
    }

    fn chunk(
        &mut self,
        now: Time,
        generation: u32,
        items: &[Item],
        is_last: bool,
        out: &mut Effects<SenderAction>,
    ) {
        if generation != self.status.generation {
            return;
        }
        let Some(mut scan) = self.scan.take() else {
            return;
        };
        for item in items {
            self.scanned(now, &mut scan, item, out);
        }
        scan.next_chunk();
        if !is_last {
            self.scan = Some(scan);
        } else if scan.spoilt {
            // What it told stands; what it did not find may be there all the same.
            self.repair.extend(scan.whole.buckets());
            self.begin(now, true, false, out);
        } else {
            self.finish(now, &scan, out);
        }
    }

    fn scanned(
        &mut self,
        now: Time,
        scan: &mut Scan,
        item: &Item,
        out: &mut Effects<SenderAction>,
    ) {
        let key = self.hashes.of(&item.key);
        if scan.is_touched(key) {
            return;
        }
        let hashed = (key, self.hashes.of_value(&item.value));
        let generation = short(self.status.generation);
        let told = self.index.get_mut(key);
        let is_known = told.as_ref().is_some_and(|told| !told.is_wanted());
        if let Some(told) = told
            && told.value == hashed.1
            && !told.is_wanted()
            && !scan.is_whole(key)
        {
            told.told_in = generation;
            // The copy knows nothing of the packets that keep the original alive. Should it have to
            // serve, it is to wait for the next one no less than half as long.
            let expires_s = expiry(now, item.ttl_s);
            let soon = expiry(now.after(3 * self.audit_interval), 1);
            let half = expiry(now, item.ttl_s.div_ceil(2));
            if told.expires_s <= soon.max(half)
                && expires_s > told.expires_s.saturating_add(TTL_SLACK_S)
            {
                self.put(now, hashed, item, false, out);
            }
            return;
        }
        scan.found += 1;
        let is_new = scan.replaces() || scan.is_whole(key) || !is_known;
        self.put(now, hashed, item, is_new, out);
    }

    /// The scan has read everything: what it did not meet is gone.
    fn finish(&mut self, now: Time, scan: &Scan, out: &mut Effects<SenderAction>) {
        let generation = self.status.generation;
        let forgotten = self
            .index
            .extract(|_, row| row.told_in != short(generation));
        for keys in forgotten.chunks(NUMBERS_MAX) {
            let keys = keys.to_vec();
            self.tell(now, out, |out| Record::Forget { keys }.encode(out));
        }
        self.tell(now, out, |out| Record::End { generation }.encode(out));
        if !matches!(scan.whole, Whole::Everything) {
            let (put, forgotten) = (scan.found, forgotten.len() as u64);
            self.status.repaired += put + forgotten;
            if scan.resync {
                out.actions.push(SenderAction::Repaired { put, forgotten });
            }
        }
        if scan.resync {
            self.end = Some(End {
                sequence: Some(self.status.sent),
                generation: Some(generation),
            });
        }
        let duration = now.since(scan.began);
        self.audit_interval = (duration * SCAN_SHARE)
            .min(AUDIT_INTERVAL_MAX)
            .max(self.limits.audit_interval);
        self.audit_at = now.after(self.audit_interval);
        self.repair_at = now.after((duration * REPAIR_PAUSE).min(REPAIR_PAUSE_MAX));
        self.sums_at = now.after(self.limits.sums_interval);
    }

    fn barrier(&mut self, now: Time, id: u64, out: &mut Effects<SenderAction>) {
        if self.synced {
            self.tell(now, out, |out| Record::Barrier.encode(out));
            self.barriers.push_back((self.status.sent, id));
        } else {
            out.actions.push(SenderAction::Unreachable { id });
        }
    }

    fn frame(&mut self, now: Time, frame: &Frame, out: &mut Effects<SenderAction>) {
        let sent = self.status.acked..=self.status.sent;
        match (&frame.body, self.phase) {
            (_, Phase::Closed) => {}
            (Body::Refused { reason, version }, _) => {
                self.close(out);
                let (reason, version) = (*reason, *version);
                out.actions.push(SenderAction::Refused { reason, version });
                out.actions.push(SenderAction::Close);
            }
            (Body::Accepted { level }, Phase::Greeting)
                if level.code() <= self.demand.level.code() =>
            {
                self.accepted(now, *level, out);
            }
            (Body::Ack, Phase::Open) if sent.contains(&frame.sequence) => {
                self.acked(now, frame.sequence, out);
            }
            (Body::Lacks { entries, refused }, Phase::Open) => {
                self.status.lacking = *entries;
                if *refused > 0 {
                    self.fail_barriers(out);
                }
                out.actions
                    .push(SenderAction::Lacking { entries: *entries });
            }
            (Body::Swept, Phase::Open) => {
                if let Some(end) = &mut self.end {
                    end.generation = end.generation.filter(|one| *one != frame.generation);
                }
                self.ended(now);
            }
            (Body::Differs { buckets }, Phase::Open) => {
                self.status.diverged += buckets.len() as u64;
                self.repair.extend(buckets);
            }
            (Body::Wants { keys }, Phase::Open) => {
                let known = keys.iter().filter(|key| self.index.want(**key));
                self.status.wanted += known.count() as u64;
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
            self.round_trip_min = self.round_trip_min.min(now.since(sent_at));
        }
        while let Some((_, id)) = self.barriers.pop_front_if(|(at, _)| *at <= sequence) {
            out.actions.push(SenderAction::Reached { id });
        }
        if let Some(end) = &mut self.end {
            end.sequence = end.sequence.filter(|end| *end > sequence);
        }
        self.ended(now);
        if self.lagging && self.unacked.is_empty() {
            self.lagging = false;
            self.begin(now, true, false, out);
        }
    }

    /// Whether a resync is over at both ends.
    fn ended(&mut self, now: Time) {
        let is_over = |end: &mut End| end.sequence.is_none() && end.generation.is_none();
        if self.end.take_if(is_over).is_some() {
            self.synced = true;
            self.sums_at = now.after(self.limits.sums_interval);
        }
    }

    /// Adds a record to the frame under way.
    fn tell(
        &mut self,
        now: Time,
        out: &mut Effects<SenderAction>,
        write: impl FnOnce(&mut bytes::BytesMut),
    ) {
        self.batch.add(write);
        self.status.sent += 1;
        if self.batch.bytes() >= FRAME_BYTES {
            self.cut(now, out);
        }
    }

    /// Ends the frame under way.
    fn cut(&mut self, now: Time, out: &mut Effects<SenderAction>) {
        let (generation, last) = (self.status.generation, self.status.sent);
        let bytes = self
            .batch
            .cut(self.epoch, generation, last, &mut out.outgoing);
        if bytes > 0 {
            self.unacked.push(last, bytes, now);
        }
    }

    fn mark_at(&self) -> Time {
        self.marked_at.after(self.limits.proof_interval)
    }

    fn wants_repair(&self) -> bool {
        self.index.wanted() > 0 || !self.repair.is_empty()
    }

    const fn may_scan(&self) -> bool {
        self.synced && self.scan.is_none() && self.end.is_none()
    }

    fn bounds(&self) -> Option<crate::class::Bounds> {
        self.status.level.and_then(Level::bounds)
    }

    /// What time and lag alone decide.
    fn judge(&mut self, now: Time, out: &mut Effects<SenderAction>) {
        if self.phase == Phase::Open {
            self.tick(now, out);
            if self.unacked.bytes() > self.limits.unacked_bytes_max && !self.lagging {
                self.lag(out);
            }
        }
        let age = self.unacked.oldest().map(|sent| now.since(sent));
        let age = age.unwrap_or_default();
        let records = self.lag_records();
        match self.bounds() {
            None => self.late = false,
            Some(bounds) => {
                let entries = u64::from(bounds.entries);
                let wanted = self.index.wanted() as u64;
                let records = records.saturating_add(u64::from(self.status.lacking) + wanted);
                if records > entries || age > bounds.lag() {
                    self.late = true;
                } else if records <= entries / 2 && age <= bounds.lag() / 2 {
                    self.late = false;
                }
            }
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
        let repairs = self.wants_repair() && now >= self.repair_at;
        if self.may_scan() && (repairs || now >= self.audit_at) {
            self.begin(now, false, false, out);
        } else if self.may_scan() && now >= self.sums_at {
            self.sums_at = now.after(self.limits.sums_interval);
            self.tell_sums(now, out);
        }
        if !self.lagging && now >= self.mark_at() {
            self.marked_at = now;
            let mark = Record::Mark(Mark {
                sent_at_ns: now.0,
                behind_us: micros(now.since(self.caught_up)),
                round_trip_us: micros(self.round_trip_min),
                changes: self.status.changes,
            });
            self.tell(now, out, |out| mark.encode(out));
        }
        self.cut(now, out);
    }

    fn tell_sums(&mut self, now: Time, out: &mut Effects<SenderAction>) {
        let first = self.next_sums;
        let sums = (first..first + SUMS_AT_ONCE).map(|bucket| self.index.sum(bucket));
        let record = Record::Sums {
            first,
            sums: sums.collect(),
        };
        self.next_sums = (first + SUMS_AT_ONCE) % BUCKETS;
        self.tell(now, out, |out| record.encode(out));
    }

    fn is_in_sync(&self) -> bool {
        self.phase == Phase::Open && self.is_active && self.synced && !self.late
    }

    fn lag_records(&self) -> u64 {
        match self.phase {
            Phase::Open => self.status.sent - self.status.acked,
            Phase::Closed | Phase::Greeting => 0,
        }
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
