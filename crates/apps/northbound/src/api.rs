//! What the operator API sends and receives, as JSON.
//!
//! Readers ignore fields they do not know, and every field that was added later has a default, so
//! that programs and managers of different versions understand each other.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vnfpool_model::{ElementId, Incarnation, OnQuorumLoss, PoolHandle, Role, SlotId, SlotName};

/// Everything at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The manager that answers.
    pub manager: ManagerStatus,
    /// Its pools, by handle.
    pub pools: Vec<PoolStatus>,
}

/// The manager that answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ManagerStatus {
    /// Its name.
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// Commit that the program was built from.
    pub commit: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// `ok`, or `failing: …` with what the disk said.
    pub store: String,
}

/// A pool now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub handle: PoolHandle,
    /// The function that its elements provide.
    pub function: String,
    /// `default`, `fast`, or the constants: `heartbeat 20 ms, lease 100 ms`.
    pub profile: String,
    /// What the last of three does.
    pub on_quorum_loss: OnQuorumLoss,
    /// Whether it is being deleted: it is never served again, and is kept until every member of
    /// its pairs has confirmed that it has closed, or is fenced.
    #[serde(default)]
    pub closing: bool,
    /// Its slots.
    pub slots: Vec<SlotStatus>,
    /// Its elements, registered or only enrolled.
    pub elements: Vec<ElementStatus>,
}

/// A slot now, as far as the manager has heard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its number.
    pub id: SlotId,
    /// Its name within the pool.
    pub name: SlotName,
    /// `term.turn`; `0.0` while nobody ever served.
    pub epoch: String,
    /// Who serves.
    pub active: Option<ElementId>,
    /// Who can take it over; only with `armed` will it do so by itself.
    pub standby: Option<ElementId>,
    /// Whether active and standby form a pair: a failover needs no new decision.
    pub armed: bool,
    /// Whether the active serves alone after a loss of quorum, without the manager's record.
    #[serde(default)]
    pub unconfirmed: bool,
    /// The last element that may hold a manager lease.
    #[serde(default)]
    pub holder: Option<ElementId>,
    /// The virtual addresses.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Who should serve when everything is well.
    #[serde(default)]
    pub preferred: Option<ElementId>,
    /// Milliseconds between two heartbeats in this term; none while nobody ever served.
    #[serde(default)]
    pub heartbeat_ms: Option<u32>,
    /// The lease of this term in milliseconds: bounds the outage of a failover.
    #[serde(default)]
    pub lease_ms: Option<u32>,
    /// With `lease = "auto"`: why it is that long, in a sentence.
    #[serde(default)]
    pub lease_reason: Option<String>,
    /// The blocks of ports, if the slot has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_blocks: Option<PortBlocksStatus>,
    /// How its service state is replicated, by the word of the active: each class at each standby.
    #[serde(default)]
    pub state: Vec<ClassStatus>,
}

/// Which block of ports new connections get (docs/decisions/0022).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortBlocksStatus {
    /// How many the ruleset has to have.
    pub count: usize,
    /// The number of the block that each element has in its map: the active uses it, the others
    /// would.
    pub in_map: BTreeMap<ElementId, u32>,
}

/// A class of service state, and how it stands at one standby. Levels are `none`, `eventual`,
/// `bounded`, `commit` (draft §5.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassStatus {
    /// Its name; `conntrack` are the kernel's connections.
    pub class: String,
    /// Who holds it; none while there is nobody, and for `none`.
    #[serde(default)]
    pub standby: Option<ElementId>,
    /// The level that the pool, or the function, demands.
    pub demanded: String,
    /// The level that both agreed on; none without an agreement.
    #[serde(default)]
    pub agreed: Option<String>,
    /// The level now: lower than the agreed one in a downgrade.
    #[serde(default)]
    pub level: Option<String>,
    /// Why it was refused, or why less than demanded was agreed on, in one sentence.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether the standby has all of it, as far as the level asks for.
    #[serde(default)]
    pub in_sync: bool,
    /// Entries told to the standby.
    #[serde(default)]
    pub entries: u64,
    /// The downgrade under way.
    #[serde(default)]
    pub downgrade: Option<DowngradeStatus>,
    /// The last one that is over.
    #[serde(default)]
    pub last_downgrade: Option<DowngradeStatus>,
    /// How many have begun since the active serves, without those from before the agreement.
    #[serde(default)]
    pub downgrades: u64,
    /// Times that the source of changes overran, so that some were lost.
    #[serde(default)]
    pub overruns: u64,
    /// Changes that are known to have been lost then.
    #[serde(default)]
    pub changes_lost: u64,
    /// Milliseconds since the last overrun.
    #[serde(default)]
    pub overrun_ms: Option<u64>,
    /// Milliseconds since the standby had been told what the last overrun had hidden; none while it
    /// has not, or without one.
    #[serde(default)]
    pub repaired_ms: Option<u64>,
    /// How changes come from the kernel: `ring`, or `netlink` as a fall-back.
    #[serde(default)]
    pub event_source: Option<String>,
    /// Why it is the fall-back.
    #[serde(default)]
    pub fallback_reason: Option<String>,
    /// Whether the active itself waits for the rest: its function was asked to put everything again, and
    /// has not said that it is restored.
    #[serde(default)]
    pub restoring: bool,
}

/// A time in which a class is held at a lower level than agreed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DowngradeStatus {
    /// The level meanwhile.
    pub level: String,
    /// Why, in one sentence.
    pub reason: String,
    /// Milliseconds since it began.
    pub began_ms: u64,
    /// Of one that is over: how long it was.
    #[serde(default)]
    pub lasted_ms: Option<u64>,
    /// Of one that is over: first packets that did not wait for the standby.
    #[serde(default)]
    pub unheld: Option<u64>,
}

/// An element now, as far as the manager has heard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ElementStatus {
    /// Its name within the pool.
    pub id: ElementId,
    /// Its life; none while it is not registered.
    #[serde(default)]
    pub incarnation: Option<Incarnation>,
    /// What it does for its slot.
    pub role: Role,
    /// Whether its function could serve.
    pub able: bool,
    /// Of an active: whether somebody else has all service state of its slot. Of others: whether
    /// they have all of it themselves.
    #[serde(default)]
    pub in_sync: bool,
    /// Of a standby: how far its copy of the service state was behind when the active last
    /// reported, in milliseconds: the age of the oldest change that it had not confirmed.
    #[serde(default)]
    pub sync_lag_ms: Option<u64>,
    /// The host it runs on.
    #[serde(default)]
    pub host: String,
    /// How much it can carry, as its configuration says. Not used for placement.
    #[serde(default)]
    pub capacity: u32,
    /// The labels of its configuration, `rack` among them. Not used for placement.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `bpf` or `addresses`, with what the latter cannot promise.
    #[serde(default)]
    pub gate_driver: String,
    /// Version of its program.
    #[serde(default)]
    pub version: String,
    /// Milliseconds since the manager heard it; none if never in this life of the manager.
    #[serde(default)]
    pub last_heard_ms: Option<u64>,
    /// Smallest rest of its lease at a renewal lately, in milliseconds.
    #[serde(default)]
    pub lease_margin_ms: Option<i64>,
    /// `fifo 40`, or `not permitted: …`.
    #[serde(default)]
    pub realtime: String,
    /// What is wrong with it, one sentence each.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Slots in which it is not armed, since it has lost its place too often.
    #[serde(default)]
    pub quarantines: Vec<QuarantineStatus>,
    /// What went wrong in its planned handovers since its agent's process began.
    #[serde(default)]
    pub handover_trouble: Option<HandoverTroubleStatus>,
}

/// What went wrong in planned handovers. Each went on all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverTroubleStatus {
    /// The function was not told to drain before it, so requests in flight were cut.
    pub not_drained: Option<DrainFailuresStatus>,
    /// The function was not told afterwards that it is over, so it may go on draining.
    pub not_resumed: Option<DrainFailuresStatus>,
    /// Classes of state that were handed over without knowing that the newest changes were at the
    /// successor.
    pub classes_undrained: u64,
}

/// What the function's control socket did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainFailuresStatus {
    /// How often.
    pub count: u64,
    /// Why not, the last time.
    pub reason: String,
    /// How many milliseconds before the element's newest report that was.
    pub last_ms: u64,
}

/// The quarantine of an element in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineStatus {
    /// The slot.
    pub slot: SlotName,
    /// Why, in one sentence.
    pub reason: String,
    /// When it may be armed again if it is steady until then, on the manager's wall clock.
    pub until: Timestamp,
    /// When it may be armed again in any case.
    pub at_latest: Timestamp,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: higher is later. It goes on where it was after a restart of the manager.
    pub sequence: u64,
    /// When, on the manager's wall clock.
    pub time: Timestamp,
    /// What kind of event, a stable word such as `takeover`.
    pub kind: String,
    /// The pool it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolHandle>,
    /// The slot it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotName>,
    /// What happened, in one sentence.
    pub text: String,
    /// Why, in one sentence.
    #[serde(default)]
    pub reason: String,
}

/// A decision, kept in the manager's audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number: higher is later.
    pub sequence: u64,
    /// When, on the manager's wall clock.
    pub time: Timestamp,
    /// Who decided: `operator/alice`, `manager/m1`, `pool/edge/element/gw1`.
    pub actor: String,
    /// What was done, a stable word such as `arm`.
    pub action: String,
    /// The pool it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolHandle>,
    /// The slot it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotName>,
    /// What was decided, in one sentence.
    pub text: String,
    /// Why, in one sentence.
    #[serde(default)]
    pub reason: String,
}

/// A pool was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The pool.
    pub handle: PoolHandle,
    /// Whether it is new.
    pub created: bool,
    /// Whether anything is different now.
    pub changed: bool,
}

/// Asks for an enrolment token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// The pool to join; must be there.
    pub pool: PoolHandle,
    /// The name that the element will have.
    pub element: ElementId,
    /// Seconds until it expires.
    pub ttl_s: u64,
}

/// An enrolment token.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token {
    /// The secret text that the element shows once.
    pub token: String,
    /// The pool to join.
    pub pool: PoolHandle,
    /// The name that the element will have.
    pub element: ElementId,
    /// When it expires, on the manager's wall clock.
    pub expires: Timestamp,
}

/// Leaves the secret out.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("pool", &self.pool)
            .field("element", &self.element)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Asks for a switchover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverRequest {
    /// Who shall serve; the standby if left out.
    #[serde(default)]
    pub to: Option<ElementId>,
    /// Which slot; may be left out when the pool has one.
    #[serde(default)]
    pub slot: Option<SlotName>,
}

/// A switchover is done: the new active serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverDone {
    /// The slot.
    pub slot: SlotName,
    /// Its epoch now.
    pub epoch: String,
    /// Who served before.
    pub from: Option<ElementId>,
    /// Who serves now.
    pub active: ElementId,
    /// Milliseconds from the request to the new active's word.
    pub took_ms: u64,
}

/// The operator's word that an element is off and cannot come back by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRequest {
    /// The element.
    pub element: ElementId,
    /// Must be true: it is switched off.
    pub it_is_off: bool,
}

/// The operator's word that an element may be armed again, whatever it was in quarantine for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PardonRequest {
    /// The element.
    pub element: ElementId,
}
