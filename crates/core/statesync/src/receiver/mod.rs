//! The standby's end of the stream.

mod interface;
mod lacking;
mod sweep;
mod watermark;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use vnfpool_model::Time;

use crate::Effects;
use crate::class::{Offer, Unable};
use crate::index::{Hashes, Index, Row, bucket_of, expiry, short};
use crate::wire::record::{Record, Records};
use crate::wire::{Body, Frame, Refusal, VERSION, WireError};
pub use interface::{ReceiverAction, ReceiverInput, ReceiverStatus, Ticket};
use lacking::Lacking;
use sweep::Sweep;
use watermark::Follower;
pub use watermark::Watermark;

/// Most bytes of frames that are received and not yet applied: twice what a sender allows itself.
pub const OUTSTANDING_BYTES_MAX: usize = 2 * crate::sender::UNACKED_BYTES_MAX;

/// A bucket is not asked for again before this: what the kernel refuses it refuses again.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What is applied is acknowledged at once after a pause of so long, and otherwise so often: while
/// change follows change, one acknowledgement stands for all of them.
const ACK_INTERVAL: Duration = Duration::from_millis(1);

/// The standby's machine: checks that the stream has no gap and comes from the right epoch, hands
/// on what is to be written, acknowledges what is written.
///
/// A stream has to begin with an epoch at least as new as the newest known here when it was opened,
/// and never goes back. It may lag behind an epoch learnt here in which its sender is still the active (a standby
/// was armed, say): what it carries is still the word of the only active.
///
/// ```text
///           Connected                 Hello             resync end applied and swept
/// (closed) ----------> waiting for ---------> copying -------------------------------> in sync
///    ^                    Hello                  ^                                        |
///    |                                           +------------ Begin(resync) ------------+
///    +---- Disconnected, any refusal, not standby any more
/// ```
#[derive(Debug)]
pub struct Receiver {
    offer: Offer,
    status: ReceiverStatus,
    refuses: bool,
    /// Oldest epoch that the stream's next frame may have.
    stream_epoch: u64,
    session: u64,
    step: u64,
    open: Option<Open>,
}

/// What belongs to one stream.
#[derive(Debug, Default)]
struct Open {
    /// None before the hello.
    hashes: Option<Hashes>,
    index: Index,
    /// A scan began: no record may come before.
    began: bool,
    resync: bool,
    /// Buckets of which the scan under way sends every entry; none: of all.
    whole: Option<Vec<u16>>,
    /// Sequence of the end of a resync, until applied.
    end: Option<u64>,
    /// Sequence up to which it is acknowledged that everything is applied.
    acked: u64,
    /// When the next acknowledgement may go.
    ack_at: Time,
    /// Sequence of the newest record for whose acknowledgement the active waits.
    awaited: u64,
    /// Bytes and last sequence of frames not yet applied.
    outstanding: VecDeque<(u64, usize)>,
    sweep: Sweep,
    /// The step after whose carrying out the copy holds nothing else, for this generation.
    swept: Option<(u64, u32)>,
    asked: BTreeMap<u16, Time>,
    lacking: Lacking,
    /// The copy has been in sync on this stream: marks before that say nothing of what is missing.
    was_in_sync: bool,
    follower: Follower,
}

impl Open {
    /// A scan is told to its end, at `sequence`: what it did not tell of is gone.
    fn ended(&mut self, generation: u32, sequence: u64) {
        let is_whole = |key: u64| match &self.whole {
            Some(buckets) => buckets.contains(&bucket_of(key)),
            None => true,
        };
        let told_in = short(generation);
        let gone = self
            .index
            .extract(|key, row| row.told_in != told_in && is_whole(key));
        self.whole = Some(Vec::new());
        self.sweep.leftover(gone.len());
        if self.resync {
            self.sweep.wanted = true;
            self.sweep.announce = Some(generation);
            self.end = Some(sequence);
            self.awaited = sequence;
        }
    }
}

impl Receiver {
    /// A receiver that knows no epoch, accepts streams and can do what `offer` says.
    #[must_use]
    pub fn new(offer: Offer) -> Self {
        Self {
            offer,
            status: ReceiverStatus::default(),
            refuses: false,
            stream_epoch: 0,
            session: 0,
            step: 0,
            open: None,
        }
    }

    /// Takes an input; never fails on what a peer sent.
    pub fn handle(&mut self, now: Time, input: ReceiverInput, out: &mut Effects<ReceiverAction>) {
        let outcome = match input {
            ReceiverInput::Connected => {
                self.connected(out);
                Ok(())
            }
            ReceiverInput::Disconnected => {
                self.close(out);
                Ok(())
            }
            ReceiverInput::Frame(frame) => self.frame(now, frame, out),
            ReceiverInput::Malformed(WireError::Version { .. }) => Err(Refusal::Version),
            ReceiverInput::Malformed(_) => Err(Refusal::Malformed),
            ReceiverInput::Applied(ticket) => {
                self.applied(ticket, out);
                Ok(())
            }
            ReceiverInput::Unapplied { key } => {
                self.unapplied(&key);
                Ok(())
            }
            ReceiverInput::ApplyFailed => Err(Refusal::Failed),
            ReceiverInput::SweepChunk {
                sweep,
                items,
                is_last,
            } => {
                self.swept(now, sweep, items, is_last, out);
                Ok(())
            }
            ReceiverInput::Epoch { token, accepts } => self.epoch(token, accepts),
            ReceiverInput::Tick => Ok(()),
        };
        if let Err(reason) = outcome {
            self.refuse(reason, out);
        }
        self.acknowledge(now, out);
        self.sweep(now, out);
    }

    /// When [`ReceiverInput::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let open = self.open.as_ref()?;
        let sweep = open.sweep.deadline();
        let acknowledgement = (open.acked < self.status.applied).then_some(open.ack_at);
        sweep.into_iter().chain(acknowledgement).min()
    }

    /// Figures as they are now.
    #[must_use]
    pub fn status(&self) -> ReceiverStatus {
        ReceiverStatus {
            entries: self.open.as_ref().map_or(0, |open| open.index.len()),
            lacking: self.open.as_ref().map_or(0, |open| open.lacking.entries()),
            wanted: self.open.as_ref().map_or(0, |open| open.index.wanted()),
            ..self.status
        }
    }

    /// What the copy holds, for the report of a failover.
    #[must_use]
    pub fn watermark(&self) -> Watermark {
        let Some(open) = &self.open else {
            return Watermark::default();
        };
        let wanted = u64::try_from(open.index.wanted()).unwrap_or(u64::MAX);
        Watermark {
            known_missing: wanted.saturating_add(open.lacking.entries().into()),
            ..open.follower.watermark()
        }
    }

    fn connected(&mut self, out: &mut Effects<ReceiverAction>) {
        self.close(out);
        self.session += 1;
        self.open = Some(Open::default());
        self.stream_epoch = self.status.epoch;
        self.status.received = 0;
        self.status.applied = 0;
    }

    fn close(&mut self, out: &mut Effects<ReceiverAction>) {
        self.open = None;
        self.status.outstanding_bytes = 0;
        self.in_sync(false, out);
    }

    fn refuse(&mut self, reason: Refusal, out: &mut Effects<ReceiverAction>) {
        if self.open.is_none() {
            return;
        }
        self.status.refused += 1;
        let version = VERSION;
        self.send(0, Body::Refused { reason, version }, out);
        self.close(out);
        out.actions.push(ReceiverAction::Close { reason });
    }

    fn epoch(&mut self, token: u64, accepts: bool) -> Result<(), Refusal> {
        if token < self.status.epoch {
            return Ok(());
        }
        self.status.epoch = token;
        self.refuses = !accepts;
        match accepts {
            true => Ok(()),
            false => Err(Refusal::Role),
        }
    }

    fn frame(
        &mut self,
        now: Time,
        frame: Frame,
        out: &mut Effects<ReceiverAction>,
    ) -> Result<(), Refusal> {
        if self.open.is_none() {
            return Ok(());
        }
        if self.refuses {
            return Err(Refusal::Role);
        }
        if frame.epoch < self.stream_epoch {
            return Err(Refusal::OldEpoch);
        }
        self.stream_epoch = frame.epoch;
        self.status.epoch = self.status.epoch.max(frame.epoch);
        match frame.body {
            Body::Hello { .. } | Body::Records(_) => {}
            _ => return Err(Refusal::Malformed),
        }
        let greeted = self.open.as_ref().is_some_and(|open| open.hashes.is_some());
        match frame.body {
            Body::Hello { demand, hash_key } if !greeted => {
                let level = self.offer.answer(&demand).map_err(|unable| match unable {
                    Unable::Format => Refusal::Class,
                    Unable::Schema => Refusal::Schema,
                })?;
                if let Some(open) = &mut self.open {
                    open.hashes = Some(Hashes::new(&hash_key));
                    open.acked = frame.sequence;
                }
                self.status.level = Some(level);
                self.status.received = frame.sequence;
                self.status.applied = frame.sequence;
                self.send(0, Body::Accepted { level }, out);
                out.actions.push(ReceiverAction::Accepted { level });
                Ok(())
            }
            Body::Records(records) if greeted => {
                self.records(now, frame.generation, frame.sequence, records, out)
            }
            _ => Err(Refusal::Gap),
        }
    }

    fn records(
        &mut self,
        now: Time,
        generation: u32,
        first: u64,
        records: Records,
        out: &mut Effects<ReceiverAction>,
    ) -> Result<(), Refusal> {
        let last = first
            .checked_add(u64::from(records.left()))
            .ok_or(Refusal::Gap)?;
        if self.status.received.checked_add(1) != Some(first) {
            return Err(Refusal::Gap);
        }
        let bytes = records.wire_bytes();
        self.status.outstanding_bytes += bytes;
        if self.status.outstanding_bytes > OUTSTANDING_BYTES_MAX {
            return Err(Refusal::Overload);
        }
        if let Some(open) = &mut self.open {
            open.outstanding.push_back((last - 1, bytes));
        }
        for record in records {
            self.status.received += 1;
            let record = record.map_err(|_| Refusal::Malformed)?;
            self.record(now, generation, record, out)?;
        }
        let ticket = self.ticket();
        out.actions.push(ReceiverAction::Flush { ticket });
        Ok(())
    }

    fn ticket(&self) -> Ticket {
        Ticket {
            session: self.session,
            sequence: self.status.received,
            step: self.step,
        }
    }

    fn record(
        &mut self,
        now: Time,
        generation: u32,
        record: Record,
        out: &mut Effects<ReceiverAction>,
    ) -> Result<(), Refusal> {
        let ticket = self.ticket();
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let Some(hashes) = open.hashes else {
            return Err(Refusal::Gap);
        };
        let begins = matches!(record, Record::Begin { .. });
        if !begins && (!open.began || generation != self.status.generation) {
            return Err(Refusal::Gap);
        }
        match record {
            Record::Put { item, is_new } => {
                let key = hashes.of(&item.key);
                let value = hashes.of_value(&item.value);
                let mut row = Row::told(value, expiry(now, item.ttl_s), short(generation));
                row.seen_in = open.sweep.mark();
                // That the same was told again says nothing of what is held.
                if let Some(old) = open.index.get(key).filter(|old| old.value == value) {
                    row.held = old.held;
                }
                open.index.put(key, row);
                open.lacking.settle(key);
                open.sweep.touched(key);
                self.status.operations += 1;
                out.actions.push(ReceiverAction::Put {
                    ticket,
                    item,
                    is_new,
                });
            }
            Record::Delete { key } => {
                let hash = hashes.of(&key);
                open.index.remove(hash);
                open.lacking.settle(hash);
                open.sweep.touched(hash);
                self.status.operations += 1;
                out.actions.push(ReceiverAction::Delete { ticket, key });
            }
            Record::Begin {
                generation: begun,
                resync,
                whole,
            } => {
                if begun != generation {
                    return Err(Refusal::Gap);
                }
                open.began = true;
                open.resync = resync;
                open.whole = whole;
                open.end = None;
                open.sweep.announce = None;
                self.status.generation = generation;
                if resync {
                    self.in_sync(false, out);
                }
            }
            Record::Forget { keys } => {
                for key in keys {
                    open.lacking.settle(key);
                    open.sweep.leftover(usize::from(open.index.remove(key)));
                }
            }
            Record::End { .. } => open.ended(generation, ticket.sequence),
            Record::Sums { first, sums } => {
                let theirs = (first..).zip(sums);
                let differing = theirs.filter(|(bucket, sum)| open.index.sum(*bucket) != *sum);
                let differing: Vec<u16> = differing.map(|(bucket, _)| bucket).collect();
                self.ask(now, &differing, out);
            }
            Record::Barrier => open.awaited = ticket.sequence,
            Record::Mark(mark) if open.was_in_sync => {
                open.follower.received(now, ticket.sequence, mark);
            }
            Record::Mark(_) => {}
        }
        Ok(())
    }

    /// Asks for what differs, unless that was done lately.
    fn ask(&mut self, now: Time, buckets: &[u16], out: &mut Effects<ReceiverAction>) {
        let Some(open) = &mut self.open else { return };
        open.asked.retain(|_, at| now.since(*at) < ASK_AGAIN);
        let is_news = |bucket: &&u16| !open.asked.contains_key(bucket);
        let news: Vec<u16> = buckets.iter().filter(is_news).copied().collect();
        if news.is_empty() {
            return;
        }
        open.asked.extend(news.iter().map(|bucket| (*bucket, now)));
        self.status.diverged += news.len() as u64;
        out.actions.push(ReceiverAction::Diverged {
            buckets: news.len(),
            missing: 0,
            surplus: 0,
            altered: 0,
        });
        self.send(0, Body::Differs { buckets: news }, out);
    }

    fn unapplied(&mut self, key: &[u8]) {
        if let Some(open) = &mut self.open
            && let Some(hashes) = open.hashes
        {
            let key = hashes.of(key);
            open.index.remove(key);
            open.lacking.refuse(key);
        }
    }

    fn applied(&mut self, ticket: Ticket, out: &mut Effects<ReceiverAction>) {
        if ticket.session != self.session {
            return;
        }
        let Some(open) = &mut self.open else { return };
        let sequence = ticket.sequence.min(self.status.received);
        if sequence > self.status.applied {
            let is_done = |(last, _): &mut (u64, usize)| *last <= sequence;
            while let Some((_, bytes)) = open.outstanding.pop_front_if(is_done) {
                self.status.outstanding_bytes -= bytes;
            }
            open.end = open.end.filter(|end| *end > sequence);
            open.follower.applied(sequence);
            self.status.applied = sequence;
            // Before the acknowledgement, which would be taken for more than it is.
            if let Some(lacks) = open.lacking.news() {
                self.send(0, lacks, out);
            }
        }
        let Some(open) = &mut self.open else { return };
        let is_done = |(step, _): &mut (u64, u32)| *step <= ticket.step;
        if let Some((_, generation)) = open.swept.take_if(is_done) {
            if generation == self.status.generation && open.end.is_none() {
                self.in_sync(true, out);
            }
            self.send_of(generation, 0, Body::Swept, out);
        }
    }

    /// Acknowledges what is applied, unless that was done a moment ago and nobody waits for it.
    fn acknowledge(&mut self, now: Time, out: &mut Effects<ReceiverAction>) {
        let applied = self.status.applied;
        let Some(open) = &mut self.open else { return };
        let is_awaited = open.acked < open.awaited && open.awaited <= applied;
        if open.acked >= applied || !(is_awaited || open.ack_at <= now) {
            return;
        }
        open.acked = applied;
        open.ack_at = now.after(ACK_INTERVAL);
        self.send(applied, Body::Ack, out);
    }

    fn in_sync(&mut self, in_sync: bool, out: &mut Effects<ReceiverAction>) {
        if let Some(open) = &mut self.open {
            open.was_in_sync |= in_sync;
        }
        if self.status.in_sync != in_sync {
            self.status.in_sync = in_sync;
            out.actions.push(ReceiverAction::InSync(in_sync));
        }
    }

    fn send(&self, sequence: u64, body: Body, out: &mut Effects<ReceiverAction>) {
        self.send_of(self.status.generation, sequence, body, out);
    }

    fn send_of(
        &self,
        generation: u32,
        sequence: u64,
        body: Body,
        out: &mut Effects<ReceiverAction>,
    ) {
        let frame = Frame {
            epoch: self.status.epoch,
            generation,
            sequence,
            body,
        };
        frame.encode(&mut out.outgoing);
    }
}
