//! The file: one redb database with three tables.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};

use crate::api::{AuditEntry, Record, Version};
use crate::error::StoreError;
use crate::memory::{Memory, Plan};

/// The newest entries of the audit log that are kept.
pub const AUDIT_ENTRIES_MAX: u64 = 10_000;
/// The layout of the tables below.
pub(crate) const FORMAT: u64 = 1;

/// The store is about a megabyte; the library's default would be a gigabyte.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Key to the version of the batch that wrote it, and its value.
const RECORDS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("records");
/// Sequence to entry.
const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
/// `format` and `version`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// How the database is opened; tests put a failing disk underneath.
type Opener = Box<dyn Fn(&Path) -> Result<Database, redb::DatabaseError> + Send>;

/// The file, open or waiting to be opened again after a failure.
pub(crate) struct Disk {
    path: PathBuf,
    opener: Opener,
    database: Option<Database>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk")
            .field("path", &self.path)
            .field("open", &self.database.is_some())
            .finish_non_exhaustive()
    }
}

impl Disk {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self::with_opener(
            path,
            Box::new(|path| Builder::new().set_cache_size(CACHE_BYTES).open(path)),
        )
    }

    pub(crate) fn with_opener(path: PathBuf, opener: Opener) -> Self {
        Self {
            path,
            opener,
            database: None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.database.is_some()
    }

    /// Makes an empty store if there is none. It appears under its name only when it is complete,
    /// so an interrupted start leaves nothing that looks damaged.
    pub(crate) fn create_if_missing(&self) -> Result<(), StoreError> {
        let failed = |source| StoreError::from_io(&self.path, source);
        if self.path.try_exists().map_err(failed)? {
            return Ok(());
        }
        let temporary = self.path.with_extension("new");
        if temporary.try_exists().map_err(failed)? {
            std::fs::remove_file(&temporary).map_err(failed)?;
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed)?;
        let initialise = || -> Result<(), redb::Error> {
            let database = Builder::new()
                .set_cache_size(CACHE_BYTES)
                .create(&temporary)?;
            let transaction = database.begin_write()?;
            {
                let mut meta = transaction.open_table(META)?;
                meta.insert("format", FORMAT)?;
                meta.insert("version", 0)?;
                transaction.open_table(RECORDS)?;
                transaction.open_table(AUDIT)?;
            }
            transaction.commit()?;
            Ok(())
        };
        initialise().map_err(|error| StoreError::from_redb(&self.path, error))?;
        std::fs::rename(&temporary, &self.path).map_err(failed)?;
        let parent = self.path.parent().unwrap_or_else(|| Path::new("/"));
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(failed)
    }

    /// Opens the file and reads everything in it. Whatever is in memory is replaced by it: a
    /// commit that has failed may have become durable all the same.
    pub(crate) fn open(&mut self) -> Result<Memory, StoreError> {
        self.database = None;
        drop_page_cache(&self.path);
        let database =
            (self.opener)(&self.path).map_err(|error| StoreError::from_redb(&self.path, error))?;
        let memory = load(&database).map_err(|error| match error {
            LoadError::Redb(error) => StoreError::from_redb(&self.path, *error),
            LoadError::Format(found) => StoreError::Format {
                path: self.path.clone(),
                found,
                known: FORMAT,
            },
        })?;
        self.database = Some(database);
        Ok(memory)
    }

    /// Makes a plan durable and returns the sequence of the oldest audit entry. After a failure
    /// the file is closed, since the library refuses to go on with it.
    pub(crate) fn write(&mut self, plan: &Plan, memory: &Memory) -> Result<u64, StoreError> {
        let Some(database) = &self.database else {
            return Err(StoreError::from_redb(&self.path, redb::Error::PreviousIo));
        };
        let written = write(database, plan, memory);
        written.map_err(|error| {
            self.database = None;
            StoreError::from_redb(&self.path, *error)
        })
    }

    /// The newest `count` audit entries, oldest first; `None` while the file is not open.
    pub(crate) fn audit_tail(&self, count: usize) -> Option<Result<Vec<AuditEntry>, StoreError>> {
        let database = self.database.as_ref()?;
        let read = || -> Result<Vec<AuditEntry>, redb::Error> {
            let table = database.begin_read()?.open_table(AUDIT)?;
            let mut entries = Vec::new();
            for row in table.iter()?.rev().take(count) {
                let (sequence, content) = row?;
                entries.push(AuditEntry {
                    sequence: sequence.value(),
                    content: content.value().into(),
                });
            }
            entries.reverse();
            Ok(entries)
        };
        Some(read().map_err(|error| StoreError::from_redb(&self.path, error)))
    }
}

enum LoadError {
    Redb(Box<redb::Error>),
    Format(u64),
}

impl<E: Into<redb::Error>> From<E> for LoadError {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

fn load(database: &Database) -> Result<Memory, LoadError> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let number = |key| {
        meta.get(key)
            .map(|found| found.map_or(0, |guard| guard.value()))
    };
    let format = number("format")?;
    if format != FORMAT {
        return Err(LoadError::Format(format));
    }
    let mut memory = Memory {
        version: Version(number("version")?),
        ..Memory::default()
    };
    for row in transaction.open_table(RECORDS)?.iter()? {
        let (key, value) = row?;
        let (version, value) = value.value();
        let record = Record {
            version: Version(version),
            value: value.into(),
        };
        memory.records.insert(key.value().to_owned(), record);
    }
    let audit = transaction.open_table(AUDIT)?;
    memory.audit_first = audit.first()?.map_or(1, |(sequence, _)| sequence.value());
    memory.audit_next = audit
        .last()?
        .map_or(1, |(sequence, _)| sequence.value() + 1);
    // All of them pass through; the newest remain.
    let kept = audit.len()?.saturating_sub(1024);
    for row in audit.range(memory.audit_first + kept..)? {
        let (sequence, content) = row?;
        memory.remember(AuditEntry {
            sequence: sequence.value(),
            content: content.value().into(),
        });
    }
    Ok(memory)
}

fn write(database: &Database, plan: &Plan, memory: &Memory) -> Result<u64, Box<redb::Error>> {
    let attempt = || -> Result<u64, redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let mut audit_first = memory.audit_first;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for (key, record) in &plan.records {
                match record {
                    Some(record) => {
                        records.insert(key.as_str(), (record.version.0, &*record.value))?;
                    }
                    None => {
                        records.remove(key.as_str())?;
                    }
                }
            }
            let mut audit = transaction.open_table(AUDIT)?;
            let mut sequence = memory.audit_next;
            for content in &plan.audit {
                audit.insert(sequence, &**content)?;
                sequence += 1;
            }
            while sequence - audit_first > AUDIT_ENTRIES_MAX {
                audit.remove(audit_first)?;
                audit_first += 1;
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert("version", plan.version.0)?;
        }
        transaction.commit()?;
        Ok(audit_first)
    };
    attempt().map_err(Box::new)
}

/// After a failed flush the kernel marks the lost pages as clean: reading them from its cache
/// would show a commit that is not on the disk. Best effort: without it the cache is believed.
fn drop_page_cache(path: &Path) {
    if let Ok(file) = File::open(path) {
        let _advised = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
}
