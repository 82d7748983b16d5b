//! What reads see: the records as of the newest acknowledged commit.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::api::{AuditEntry, Batch, Expect, Record, Version};
use crate::error::StoreError;

/// Audit entries that are kept in memory as well, for reading while the disk fails.
const AUDIT_KEPT: usize = 256;

/// Far more than the records of any number of pools; all of them are held in memory.
const RECORDS_MAX: usize = 65_536;

/// The contents of the store, or of a part of it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) version: Version,
    pub(crate) records: BTreeMap<String, Record>,
    /// The newest entries, oldest first.
    pub(crate) audit: VecDeque<AuditEntry>,
    /// The sequence of the next audit entry.
    pub(crate) audit_next: u64,
    /// The sequence of the oldest entry on disk.
    pub(crate) audit_first: u64,
}

impl Memory {
    pub(crate) fn scan(&self, prefix: &str) -> Vec<(String, Record)> {
        self.records
            .range::<str, _>((
                std::ops::Bound::Included(prefix),
                std::ops::Bound::Unbounded,
            ))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect()
    }

    /// Judges batches in order, each seeing the accepted ones before it.
    pub(crate) fn plan(&self, batches: &[Batch]) -> Plan {
        let mut plan = Plan {
            version: self.version,
            ..Plan::default()
        };
        for batch in batches {
            let judged = batch.check().and_then(|()| self.judge(&plan, batch));
            let result = judged.map(|()| plan.accept(batch));
            plan.results.push(result);
        }
        plan
    }

    fn judge(&self, plan: &Plan, batch: &Batch) -> Result<(), StoreError> {
        if self.records.len() + plan.records.len() + batch.changes.len() > RECORDS_MAX {
            return Err(StoreError::Invalid {
                reason: "the store holds 65536 records already",
            });
        }
        for change in &batch.changes {
            let found = match plan.records.get(&change.key) {
                Some(planned) => planned.as_ref().map(|record| record.version),
                None => self.records.get(&change.key).map(|record| record.version),
            };
            let holds = match change.expect {
                Expect::Any => true,
                Expect::Absent => found.is_none(),
                Expect::Version(version) => found == Some(version),
            };
            if !holds {
                return Err(StoreError::Conflict {
                    key: change.key.clone(),
                    found,
                });
            }
        }
        Ok(())
    }

    /// Takes over what has become durable.
    pub(crate) fn apply(&mut self, plan: Plan, audit_first: u64) {
        self.version = plan.version;
        for (key, record) in plan.records {
            match record {
                Some(record) => {
                    self.records.insert(key, record);
                }
                None => {
                    self.records.remove(&key);
                }
            }
        }
        for content in plan.audit {
            let sequence = self.audit_next;
            self.remember(AuditEntry { sequence, content });
            self.audit_next += 1;
        }
        self.audit_first = audit_first;
    }

    pub(crate) fn remember(&mut self, entry: AuditEntry) {
        if self.audit.len() == AUDIT_KEPT {
            self.audit.pop_front();
        }
        self.audit.push_back(entry);
    }
}

/// What a group of batches changes, and what each of them is told if the disk agrees.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) version: Version,
    /// The last state of each changed key; `None` is deleted.
    pub(crate) records: HashMap<String, Option<Record>>,
    pub(crate) audit: Vec<Arc<[u8]>>,
    pub(crate) results: Vec<Result<Version, StoreError>>,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.audit.is_empty()
    }

    /// The results if the disk has failed: those that were judged well fail with its error.
    pub(crate) fn failed(self, error: &StoreError) -> Vec<Result<Version, StoreError>> {
        self.results
            .into_iter()
            .map(|result| result.and_then(|_| Err(error.clone())))
            .collect()
    }

    fn accept(&mut self, batch: &Batch) -> Version {
        self.version = Version(self.version.0 + 1);
        for change in &batch.changes {
            let record = change.value.as_ref().map(|value| Record {
                version: self.version,
                value: value.as_slice().into(),
            });
            self.records.insert(change.key.clone(), record);
        }
        self.audit
            .extend(batch.audit.iter().map(|entry| entry.as_slice().into()));
        self.version
    }
}
