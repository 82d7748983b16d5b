//! What a sender is told, what it wants done, and its figures.

use std::time::Duration;

use vnfpool_model::Time;

use crate::class::Level;
use crate::wire::{Frame, Refusal};
use crate::{Change, Item};

/// Default of [`Limits::unacked_bytes_max`].
pub const UNACKED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bounds of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// More than this sent without acknowledgement, and changes are no longer sent: the standby
    /// lags, and is told what differs when it has caught up. Not above [`UNACKED_BYTES_MAX`].
    pub unacked_bytes_max: usize,
    /// A scan waits while more than this is unacknowledged, so that changes do not queue behind it
    /// for long.
    pub scan_unacked_bytes_max: usize,
    /// Between two marks, which also ask for an acknowledgement; proofs are told half as often at
    /// most.
    pub proof_interval: Duration,
    /// Between two messages of sums of buckets.
    pub sums_interval: Duration,
    /// Between two scans at least; they also take no more than a 25th of the time. Copies live
    /// longer than three of them (60 s for connections), so that they are told in time that their
    /// originals live on.
    pub audit_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unacked_bytes_max: UNACKED_BYTES_MAX,
            scan_unacked_bytes_max: 1024 * 1024,
            proof_interval: Duration::from_millis(50),
            sums_interval: Duration::from_secs(1),
            audit_interval: Duration::from_secs(8),
        }
    }
}

/// What happens to a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SenderInput {
    /// A stream to the standby is open.
    Connected {
        /// The secret of its hashes: random, for this stream alone.
        hash_key: [u8; 16],
    },
    /// It is gone.
    Disconnected,
    /// A frame of the receiver came.
    Frame(Frame),
    /// The table changed.
    Change(Change),
    /// Everything that changed in the table before `up_to` is handed in.
    CaughtUp {
        /// On this machine's clock.
        up_to: Time,
    },
    /// The source lost changes.
    ///
    /// What the driver keeps: no change from before the loss is handed in after this. (Subscribe
    /// anew and drop what the old subscription still holds: the scan that follows has it. A change
    /// from before the loss would keep newer entries out of that scan.)
    Overrun,
    /// A chunk of the scan asked for with [`SenderAction::StartScan`].
    ///
    /// What the driver keeps: it subscribes to changes before it reads the first chunk; it hands in
    /// changes and chunks in the order in which it read them; a chunk shows every change that was
    /// handed in before the last but one chunk.
    ScanChunk {
        /// The scan; chunks of older ones are ignored.
        generation: u32,
        /// The entries.
        items: Vec<Item>,
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
    Barrier {
        /// Names the request.
        id: u64,
    },
    /// The time of [`crate::Sender::deadline`] has come.
    Tick,
}

/// What the driver of a sender has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SenderAction {
    /// Begin to read the whole table; drop an earlier reading. Hand in a chunk whenever
    /// [`crate::Sender::wants_chunk`] says so.
    StartScan {
        /// Name of the scan.
        generation: u32,
    },
    /// Drop the reading under way.
    AbortScan,
    /// Close the stream.
    Close,
    /// The standby holds the class at this level, which is the demanded one or less.
    Accepted {
        /// The level.
        level: Level,
    },
    /// The standby has everything handed in before the request.
    Reached {
        /// The request.
        id: u64,
    },
    /// That will not be known: the standby is not in sync, or lost.
    Unreachable {
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
    /// The standby did not keep up; it is told what differs when it has.
    Lagging,
    /// The standby had something else; a scan begins that sends it anew.
    Diverged {
        /// In so many buckets.
        buckets: usize,
        /// In so many entries.
        entries: usize,
    },
    /// The standby's table does not take so many entries that it was told (0: all are there again).
    Lacking {
        /// How many.
        entries: u32,
    },
    /// A scan after a loss is over: it had to tell so much.
    Repaired {
        /// Entries that were missing or wrong.
        put: u64,
        /// Entries that were gone.
        forgotten: u64,
    },
    /// The receiver refused the stream. A new one may be tried later.
    Refused {
        /// Why.
        reason: Refusal,
        /// The highest version that it speaks.
        version: u8,
    },
    /// It sent what no receiver sends here; the stream is closed.
    PeerMisbehaved,
}

/// Figures of a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SenderStatus {
    /// Scan that is under way or was the last.
    pub generation: u32,
    /// Sequence of the last record sent.
    pub sent: u64,
    /// Sequence up to which everything is applied at the standby.
    pub acked: u64,
    /// Records sent and not acknowledged.
    pub lag_records: u64,
    /// When the oldest frame that is not acknowledged was sent.
    pub oldest_unacked_at: Option<Time>,
    /// Bytes sent and not acknowledged.
    pub unacked_bytes: usize,
    /// Whether the standby is in sync.
    pub in_sync: bool,
    /// The level at which the standby holds the class.
    pub level: Option<Level>,
    /// Entries told.
    pub entries: usize,
    /// Of them those that the standby's table did not take.
    pub lacking: u32,
    /// Changes sent since the start.
    pub changes: u64,
    /// Scans begun since the start.
    pub scans: u64,
    /// Entries that scans found missing or wrong at the standby, and told.
    pub repaired: u64,
    /// Buckets that the standby found different since the start.
    pub diverged: u64,
    /// Entries that the standby had lost or held otherwise than told, since the start.
    pub wanted: u64,
    /// Times that the source lost changes.
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
