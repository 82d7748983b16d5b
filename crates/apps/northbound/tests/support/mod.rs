//! A manager that only pretends.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test program uses a part of it, and a failing test is what unwrap says"
)]

use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use vnfpool_config::PoolFile;
use vnfpool_model::{PoolHandle, PoolSpec};
use vnfpool_northbound::{
    Applied, AuditEntry, Code, Event, EventStream, FenceRequest, Operations, PardonRequest,
    Problem, Status, SwitchoverDone, SwitchoverRequest, Token, TokenRequest,
};
use vnfpool_transport::Identity;

/// Keeps pools in memory; records who did what.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) pools: Mutex<Vec<PoolSpec>>,
    pub(crate) journal: Mutex<Vec<String>>,
}

impl Fake {
    fn record(&self, what: &str, by: &Identity) {
        self.journal.lock().unwrap().push(format!("{by} {what}"));
    }

    fn known(&self, handle: &PoolHandle) -> Result<(), Problem> {
        if self
            .pools
            .lock()
            .unwrap()
            .iter()
            .any(|pool| pool.handle == *handle)
        {
            return Ok(());
        }
        Err(Problem::new(
            Code::PoolUnknown,
            format!("there is no pool '{handle}'"),
        ))
    }
}

impl Operations for Fake {
    async fn status(&self) -> Result<Status, Problem> {
        Ok(serde_json::from_str(STATUS).unwrap())
    }

    async fn pools(&self) -> Result<Vec<PoolSpec>, Problem> {
        Ok(self.pools.lock().unwrap().clone())
    }

    async fn apply_pool(&self, spec: PoolSpec, by: &Identity) -> Result<Applied, Problem> {
        let mut pools = self.pools.lock().unwrap();
        let conflicts = vnfpool_config::overlaps(&pools, &spec);
        if let Some(problem) = Problem::from_conflicts(&spec.handle, &conflicts) {
            return Err(problem);
        }
        let handle = spec.handle.clone();
        let old = pools.iter().position(|pool| pool.handle == handle);
        let created = old.is_none();
        let changed = old.is_none_or(|at| pools.remove(at) != spec);
        pools.push(spec);
        self.record(&format!("apply {handle}"), by);
        Ok(Applied {
            handle,
            created,
            changed,
        })
    }

    async fn delete_pool(&self, handle: &PoolHandle, by: &Identity) -> Result<(), Problem> {
        self.known(handle)?;
        self.pools
            .lock()
            .unwrap()
            .retain(|pool| pool.handle != *handle);
        self.record(&format!("delete {handle}"), by);
        Ok(())
    }

    async fn create_token(&self, request: TokenRequest, by: &Identity) -> Result<Token, Problem> {
        self.known(&request.pool)?;
        self.record(&format!("token {}", request.element), by);
        Ok(Token {
            token: "vnfpool1.secret".to_owned(),
            pool: request.pool,
            element: request.element,
            expires: Timestamp::UNIX_EPOCH + Duration::from_secs(request.ttl_s),
        })
    }

    async fn switchover(
        &self,
        pool: &PoolHandle,
        request: SwitchoverRequest,
        by: &Identity,
    ) -> Result<SwitchoverDone, Problem> {
        self.known(pool)?;
        self.record(&format!("switchover {pool}"), by);
        match request.to {
            Some(to) if to.as_str() == "never" => std::future::pending().await,
            Some(to) => Ok(SwitchoverDone {
                slot: "main".parse().unwrap(),
                epoch: "3.1".to_owned(),
                from: None,
                active: to,
                took_ms: 4,
            }),
            None => Err(Problem::new(
                Code::NotArmed,
                "slot 'main' has no armed standby",
            )),
        }
    }

    async fn fence(
        &self,
        pool: &PoolHandle,
        request: FenceRequest,
        by: &Identity,
    ) -> Result<(), Problem> {
        self.known(pool)?;
        self.record(&format!("fence {}", request.element), by);
        Ok(())
    }

    async fn pardon(
        &self,
        pool: &PoolHandle,
        request: PardonRequest,
        by: &Identity,
    ) -> Result<(), Problem> {
        self.known(pool)?;
        self.record(&format!("pardon {}", request.element), by);
        Ok(())
    }

    async fn audit(&self, lines: usize) -> Result<Vec<AuditEntry>, Problem> {
        let entry = |sequence: usize| AuditEntry {
            sequence: sequence as u64,
            time: Timestamp::UNIX_EPOCH,
            actor: "manager/m1".to_owned(),
            action: "arm".to_owned(),
            pool: None,
            slot: None,
            text: "armed gw2".to_owned(),
            reason: "in sync".to_owned(),
        };
        Ok((0..lines.min(3)).map(entry).collect())
    }

    /// Three events, of pool edge, of none, of pool edge; then the stream ends.
    async fn events(&self, after: Option<u64>) -> Result<EventStream, Problem> {
        let event = |sequence: u64| Event {
            sequence,
            time: Timestamp::UNIX_EPOCH,
            kind: "takeover".to_owned(),
            pool: (sequence % 2 == 1).then(|| "edge".parse().unwrap()),
            slot: None,
            text: "two\nlines".to_owned(),
            reason: "silence".to_owned(),
        };
        let events: Vec<Event> = (1..=3).filter(|n| Some(*n) > after).map(event).collect();
        Ok(Box::pin(futures_util::stream::iter(events)))
    }
}

pub(crate) const POOL: &str = include_str!("../../../../../packaging/examples/pool.toml");

/// One slot, served by gw1; gw2 stands by, gw3 never came.
const STATUS: &str = r#"{
  "manager": {"id": "m1", "version": "0.1.0", "commit": "abc", "uptime_s": 7, "store": "ok"},
  "pools": [{
    "handle": "edge", "function": "nat-gateway", "profile": "default", "on_quorum_loss": "serve",
    "slots": [{
      "id": 1, "name": "main", "epoch": "3.1", "active": "gw1", "standby": "gw2", "armed": true,
      "addresses": ["10.1.0.254/24"],
      "state": [
        {"class": "conntrack", "standby": "gw2", "demanded": "commit", "agreed": "commit",
         "level": "bounded", "in_sync": true, "entries": 12,
         "downgrade": {"level": "bounded", "reason": "it is slow", "began_ms": 1500},
         "last_downgrade": {"level": "bounded", "reason": "it was slow", "began_ms": 61000,
          "lasted_ms": 1200, "unheld": 7},
         "downgrades": 2, "overruns": 3, "changes_lost": 40, "overrun_ms": 700,
         "event_source": "netlink", "fallback_reason": "no \u001b[2J right"},
        {"class": "sessions", "standby": "gw2", "demanded": "commit", "agreed": "bounded",
         "level": "bounded", "reason": "it can do no more", "overruns": 1, "overrun_ms": 20000,
         "repaired_ms": 19900},
        {"class": "hints", "standby": "gw2", "demanded": "eventual", "reason": "it is unknown there"},
        {"class": "keys", "demanded": "none"}
      ]
    }],
    "elements": [
      {"id": "gw1", "incarnation": 5, "role": "active", "able": true, "host": "host-1",
       "last_heard_ms": 4, "gate_driver": "bpf", "realtime": "fifo 40", "version": "0.1.0",
       "quarantines": [{"slot": "main", "reason": "it lost its place 4 times within 9 s",
        "until": "2026-01-02T03:04:05Z", "at_latest": "2026-01-02T03:07:05Z"}]},
      {"id": "gw2", "incarnation": 6, "role": "standby", "able": false, "in_sync": true,
       "sync_lag_ms": 2, "last_heard_ms": 90000, "faults": ["no table \u001b[2J inet gateway"]},
      {"id": "gw3", "role": "spare", "able": false, "from_a_newer_manager": 1}
    ]
  }]
}"#;

pub(crate) fn pool() -> PoolSpec {
    PoolFile::parse(POOL, "pool.toml").unwrap()
}

pub(crate) fn identity(path: &str) -> Identity {
    let id: vnfpool_transport::SpiffeId = format!("spiffe://x.example/{path}").parse().unwrap();
    id.identity
}
