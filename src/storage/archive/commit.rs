//! How does a change get into Delta's log? One commit, tried until it is known to be there or known not to be.
//!
//! A commit can fail in three ways: it did not happen; somebody else's came first; or the answer was lost and it may
//! have happened. They cannot be told apart by the error (a store that repeats a request by itself reports its own
//! success as "already exists"). So after any failure the table is loaded anew, and what it says counts: the offset in
//! the `txn` action for an append, the files themselves for the rest.

use std::collections::HashMap;

use chrono::Utc;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, MetadataExt, Remove, StructType, Transaction};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError, TableProperty};

use super::names::{Names, own_fields};
use super::{Archive, Archived, ArchivedFile, DAY, Writer, failed};
use crate::error::{Error, Kind, Result};

/// Under this name the offset up to which the archive goes stands in Delta's log.
const APPLICATION: &str = "logweir";

/// So many commits of others may come first before a change gives up.
const ATTEMPTS: usize = 20;

/// Commits between two checkpoints of the log, which is what opening a table reads at most.
const CHECKPOINT_INTERVAL: u64 = 50;

/// A change of the table.
pub(super) struct Change {
    pub operation: DeltaOperation,
    pub add: Vec<Add>,
    pub remove: Vec<Remove>,
    /// The columns from then on, if new ones come with the change.
    pub names: Option<Names>,
    /// The offsets before and after, for an append.
    pub offsets: Option<(u64, u64)>,
}

impl Archive {
    /// Loads what others have done to the table, or may have, or what this process does not know that it did.
    pub(super) async fn refresh(&self, writer: &mut Writer) -> Result<()> {
        let loading = |err: DeltaTableError| failed("load the table", &err);
        writer.unsure = true;
        let updated = match writer.table.take() {
            // The commits that it would go on from may have been cleaned up; then it is loaded from the start.
            Some(mut table) => table.update(self.log.as_ref(), None).await.ok().map(|()| table),
            None => None,
        };
        let table = match updated {
            Some(table) => table,
            None => {
                if !self.log.is_delta_table_location().await.map_err(loading)? {
                    writer.unsure = false;
                    *self.current.write() = std::sync::Arc::new(Archived::default());
                    return Ok(());
                }
                DeltaTableState::try_new(self.log.as_ref(), None).await.map_err(loading)?
            }
        };
        let end = table.transaction_version(self.log.as_ref(), APPLICATION).await.map_err(loading)?;
        let end = match end.map(u64::try_from) {
            Some(Ok(end)) => end,
            None if table.log_data().num_files() == 0 => 0,
            Some(Err(_)) | None => {
                return Err(Error::new(Kind::Corrupted, "the table does not say up to which offset it goes")
                    .with_detail("It has files but no txn action of this archive: another program made it.")
                    .with_hint("Move the table away, and the archive begins a new one."));
            }
        };
        self.adopt(writer, table, end)?;
        writer.unsure = false;
        Ok(())
    }

    /// Makes the newest version the current one.
    fn adopt(&self, writer: &mut Writer, table: DeltaTableState, end: u64) -> Result<()> {
        let archived = Archived::read(&table, end, &self.current(), &self.spec)?;
        *self.current.write() = std::sync::Arc::new(archived);
        writer.table = Some(table);
        Ok(())
    }

    /// Makes the table, with these columns.
    pub(super) async fn create(&self, writer: &mut Writer, names: &Names) -> Result<()> {
        let fields = names.fields()?.into_iter().chain(own_fields());
        let create = CreateBuilder::new()
            .with_log_store(self.log.clone())
            .with_table_name(self.spec.name.clone())
            .with_columns(fields)
            .with_partition_columns([DAY])
            .with_save_mode(SaveMode::Ignore)
            .with_configuration_property(TableProperty::CheckpointInterval, Some(CHECKPOINT_INTERVAL.to_string()))
            // A reader that follows the table by its log may be away for so long.
            .with_configuration_property(TableProperty::LogRetentionDuration, Some("interval 1 days"))
            .with_configuration_property(TableProperty::DeletedFileRetentionDuration, Some("interval 7 days"))
            // How many columns have statistics is decided per file, and not by their place in the schema.
            .with_configuration_property(TableProperty::DataSkippingNumIndexedCols, Some("-1"));
        let created: Result<DeltaTable, DeltaTableError> = create.await;
        self.refresh(writer).await?;
        match created {
            Err(err) if writer.table.is_none() => Err(failed("create the table", &err)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Makes a change; false when another program has taken away a file that it removes.
    pub(super) async fn commit(&self, writer: &mut Writer, change: &Change) -> Result<bool> {
        for attempt in 1.. {
            let Some(table) = &writer.table else {
                return Err(
                    Error::new(Kind::Corrupted, "the table is gone").with_detail(format!("It was in {}.", self.url))
                );
            };
            let actions = change.actions(table)?;
            let mut properties = CommitProperties::default()
                // Listing the log for old commits is left to those that make a checkpoint.
                .with_cleanup_expired_logs(Some((table.version() + 2).is_multiple_of(CHECKPOINT_INTERVAL)))
                // What to do about others' commits is decided below.
                .with_max_retries(0);
            if let Some((_, end)) = change.offsets {
                properties = properties.with_application_transaction(Transaction::new(APPLICATION, end as i64));
            }
            let commit = CommitBuilder::from(properties).with_actions(actions).build(
                Some(table),
                self.log.clone(),
                change.operation.clone(),
            );
            let err = match commit.await {
                Ok(done) => {
                    let end = change.offsets.map_or(self.current().end, |(_, end)| end);
                    // The change is made whether or not it can be read back at once.
                    writer.unsure = true;
                    self.adopt(writer, done.snapshot(), end)?;
                    writer.unsure = false;
                    return Ok(true);
                }
                Err(err) => err,
            };
            self.refresh(writer).await?;
            let current = self.current();
            if change.is_in(&current) {
                return Ok(true);
            }
            if !change.remove.iter().all(|remove| current.has(&remove.path)) {
                return Ok(false);
            }
            if change.offsets.is_some_and(|(first, _)| first != current.end) {
                return Err(self.wrong_end(change.offsets.map_or(0, |(first, _)| first), current.end));
            }
            if attempt == ATTEMPTS || !lost_race(&err) {
                return Err(failed("commit to the table", &err));
            }
        }
        Err(Error::internal("a commit was tried for ever"))
    }

    /// Who appends has to know where the archive ends: rows would be missing or twice.
    pub(super) fn wrong_end(&self, first: u64, end: u64) -> Error {
        let detail = if first < end {
            "Rows with these offsets are in it: is another server writing to the same place?"
        } else {
            "Rows are missing between: was the table put back to an older version?"
        };
        Error::new(Kind::Corrupted, format!("rows from offset {first} on were to follow, but it goes up to {end}"))
            .with_detail(format!("{detail} It is in {}.", self.url))
    }
}

impl Change {
    fn actions(&self, table: &DeltaTableState) -> Result<Vec<Action>> {
        let mut actions = Vec::with_capacity(self.add.len() + self.remove.len() + 1);
        if let Some(names) = &self.names {
            let known = Names::read(&table.schema());
            // Another tool may have added columns meanwhile.
            let mut added = names.fields()?;
            added.retain(|field| known.columns().iter().all(|c| c.archive != *field.name()));
            if !added.is_empty() {
                let fields = table.schema().fields().cloned().chain(added).collect::<Vec<_>>();
                let schema = StructType::try_new(fields).map_err(|err| failed("add columns to the table", &err))?;
                let metadata = table.metadata().clone().with_schema(&schema);
                actions.push(Action::Metadata(metadata.map_err(|err| failed("add columns to the table", &err))?));
            }
        }
        actions.extend(self.remove.iter().cloned().map(Action::Remove));
        actions.extend(self.add.iter().cloned().map(Action::Add));
        Ok(actions)
    }

    /// Whether a version has the change in it.
    fn is_in(&self, archived: &Archived) -> bool {
        let added = !self.add.is_empty() && self.add.iter().all(|add| archived.has(&add.path));
        match self.offsets {
            Some((_, end)) => archived.end == end || added,
            None if self.add.is_empty() => !self.remove.iter().any(|remove| archived.has(&remove.path)),
            None => added,
        }
    }
}

/// Whether another commit came first, so that trying again is worth it.
fn lost_race(err: &DeltaTableError) -> bool {
    match err {
        DeltaTableError::VersionAlreadyExists(_) => true,
        DeltaTableError::Transaction { source } => matches!(
            source,
            TransactionError::VersionAlreadyExists(_)
                | TransactionError::MaxCommitAttempts(_)
                | TransactionError::CommitConflict(_)
        ),
        _ => false,
    }
}

/// The action that takes a file out of the table.
pub(super) fn remove(file: &ArchivedFile, data_change: bool) -> Remove {
    Remove {
        path: file.path.to_string(),
        data_change,
        deletion_timestamp: Some(Utc::now().timestamp_millis()),
        extended_file_metadata: Some(true),
        partition_values: Some(file.partition.clone()),
        size: Some(file.bytes as i64),
        ..Remove::default()
    }
}

/// The action that puts a file into the table.
pub(super) fn add(path: String, day: &str, bytes: u64, stats: String, data_change: bool) -> Add {
    Add {
        path,
        partition_values: HashMap::from([(DAY.to_string(), Some(day.to_string()))]),
        size: bytes as i64,
        modification_time: Utc::now().timestamp_millis(),
        data_change,
        stats: Some(stats),
        ..Add::default()
    }
}
