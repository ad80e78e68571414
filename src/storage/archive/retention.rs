//! What goes, and when? Whole days, by their age or because there are too many bytes; and files that no version has any
//! more, once they are old enough that no reader has them either.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use deltalake_core::protocol::DeltaOperation;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

use super::commit::{Change, remove};
use super::{Archive, ArchivedFile, failed};
use crate::error::Result;

/// What retention took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
}

impl Archive {
    /// Drops the rows of all days before `day` (in days since 1970). Files of unknown days stay.
    pub async fn drop_days_before(&self, day: i32) -> Result<Dropped> {
        let old = |file: &ArchivedFile| file.day.is_some_and(|of| of < day);
        self.drop_files(|files| files.iter().filter(|f| old(f)).cloned().collect()).await
    }

    /// Drops the oldest days until there are at most so many bytes; the newest day stays, however large.
    pub async fn shrink_to(&self, bytes: u64) -> Result<Dropped> {
        let choose = |files: &[Arc<ArchivedFile>]| {
            let mut days: BTreeMap<i32, Vec<&Arc<ArchivedFile>>> = BTreeMap::new();
            for file in files {
                days.entry(file.day.unwrap_or(i32::MAX)).or_default().push(file);
            }
            days.pop_last();
            let mut total: u64 = files.iter().map(|f| f.bytes).sum();
            let mut chosen = Vec::new();
            for day in days.into_values() {
                if total <= bytes {
                    break;
                }
                total -= day.iter().map(|f| f.bytes).sum::<u64>();
                chosen.extend(day.into_iter().cloned());
            }
            chosen
        };
        self.drop_files(choose).await
    }

    async fn drop_files(&self, choose: impl Fn(&[Arc<ArchivedFile>]) -> Vec<Arc<ArchivedFile>>) -> Result<Dropped> {
        let mut writer = self.writer.lock().await;
        loop {
            if writer.unsure {
                self.refresh(&mut writer).await.map_err(|err| self.place(err))?;
            }
            let files: Vec<_> = self.current().files().cloned().collect();
            let chosen = choose(&files);
            if chosen.is_empty() {
                return Ok(Dropped::default());
            }
            let change = Change {
                operation: DeltaOperation::Delete { predicate: None },
                add: Vec::new(),
                remove: chosen.iter().map(|file| remove(file, true)).collect(),
                names: None,
                offsets: None,
            };
            // If another program took one of them away, there is less to choose from.
            if self.commit(&mut writer, &change).await.map_err(|err| self.place(err))? {
                return Ok(Dropped {
                    files: chosen.len() as u64,
                    rows: chosen.iter().map(|f| f.rows).sum(),
                    bytes: chosen.iter().map(|f| f.bytes).sum(),
                });
            }
        }
    }

    /// Deletes the files that have been in no version for longer than `older_than`, and left-overs of failed writes of
    /// that age. A version that was handed out later than that stays readable. Returns the bytes freed.
    pub async fn vacuum(&self, older_than: Duration) -> Result<u64> {
        self.try_vacuum(older_than).await.map_err(|err| self.place(err))
    }

    async fn try_vacuum(&self, older_than: Duration) -> Result<u64> {
        let limit = Utc::now() - chrono::Duration::from_std(older_than).unwrap_or(chrono::Duration::MAX / 2);
        // A file that is being written is in no version yet, so nothing is written while it is decided what goes.
        let merging = self.merging.lock().await;
        let mut writer = self.writer.lock().await;
        // What others have added must not look like a left-over.
        self.refresh(&mut writer).await?;
        let Some(table) = &writer.table else { return Ok(0) };
        let reading = |err: deltalake_core::DeltaTableError| failed("read the removed files of the table", &err);
        let mut keep: HashSet<String> =
            table.log_data().into_iter().map(|view| view.object_store_path().into()).collect();
        {
            let mut tombstones = table.all_tombstones(self.log.as_ref());
            while let Some(gone) = tombstones.try_next().await.map_err(reading)? {
                let recent = gone.deletion_timestamp().is_none_or(|at| at > limit.timestamp_millis());
                if recent {
                    keep.insert(gone.path().into_owned());
                }
            }
        }
        let listing = |err: object_store::Error| failed("list the files of the table", &err);
        let (mut freed, mut unneeded) = (0, Vec::new());
        let mut files = self.store.list(None);
        while let Some(file) = files.next().await {
            let file = file.map_err(listing)?;
            let path = file.location.as_ref();
            // Delta looks after its log; hidden files are of others.
            let hidden =
                path.split('/').any(|part| part.starts_with('.') || (part.starts_with('_') && !part.contains('=')));
            if !hidden && path.ends_with(".parquet") && file.last_modified <= limit && !keep.contains(path) {
                freed += file.size;
                unneeded.push(file.location);
            }
        }
        drop((merging, writer));
        for path in unneeded {
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(err) => return Err(failed(&format!("delete file \"{path}\""), &err)),
            }
        }
        Ok(freed)
    }
}
