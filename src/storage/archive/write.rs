//! An append: one file per day of its rows, and one commit.
//!
//! What is in memory is one append, which the caller bounds: bytes go to the store as they come, while the next ones
//! are encoded.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use deltalake_core::kernel::Add;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::arrange::{Day, arrange};
use super::commit::{Change, add};
use super::encode::{Encoded, encode};
use super::table::{day_text, file_name};
use super::{Archive, Archived, DAY, Writer, failed};
use crate::error::{Error, Result};

/// Pieces of an upload that wait for the store.
const QUEUE: usize = 2;

impl Archive {
    /// Appends the rows of `offsets`, which begin where the archive ends. Batches have the stream's columns (as many as
    /// were known at the time), [`super::OFFSET`] and [`super::WATERMARK`]. After an error the same append can be made
    /// again: it happens once. Without rows only `end` moves. The first append may begin at any offset, because a
    /// stream may be older than its archive.
    pub async fn append(&self, rows: Vec<RecordBatch>, offsets: Range<u64>) -> Result<Arc<Archived>> {
        self.try_append(rows, offsets).await.map_err(|err| self.place(err))
    }

    async fn try_append(&self, rows: Vec<RecordBatch>, offsets: Range<u64>) -> Result<Arc<Archived>> {
        let mut writer = self.writer.lock().await;
        if writer.unsure {
            self.refresh(&mut writer).await?;
        }
        if self.is_done(&writer, &offsets)? {
            return Ok(self.current());
        }
        let mut names = self.current().names.as_ref().clone();
        let spec = self.spec.clone();
        let prepared = blocking(move || {
            let files = arrange(&rows, &mut names, spec.time.as_deref())?;
            Ok((files, names))
        });
        let (days, names) = prepared.await?;
        if writer.table.is_none() {
            self.create(&mut writer, &names).await?;
            // Somebody else may have made it, and filled it.
            if self.current().version != Some(0) && self.is_done(&writer, &offsets)? {
                return Ok(self.current());
            }
        }
        let mut written = Vec::new();
        let result = match self.write_days(days, &offsets, &mut written).await {
            Ok(()) => {
                let change = Change {
                    operation: DeltaOperation::Write {
                        mode: SaveMode::Append,
                        partition_by: Some(vec![DAY.to_string()]),
                        predicate: None,
                    },
                    add: written.clone(),
                    remove: Vec::new(),
                    names: (names != *self.current().names).then_some(names),
                    offsets: Some((self.current().end, offsets.end)),
                };
                self.commit(&mut writer, &change).await
            }
            Err(err) => Err(err),
        };
        match result {
            Ok(_) => Ok(self.current()),
            Err(err) => {
                // Only what is surely not in the table; the rest is left to `vacuum`.
                if !writer.unsure {
                    self.discard(written.iter().map(|add| add.path.as_str())).await;
                }
                Err(err)
            }
        }
    }

    /// Whether these rows were appended before and only the answer was lost; an error when they cannot be appended.
    fn is_done(&self, writer: &Writer, offsets: &Range<u64>) -> Result<bool> {
        let end = self.current().end;
        // A stream may be older than its archive.
        if offsets.is_empty() || writer.table.is_none() {
            return Ok(offsets.is_empty());
        }
        match offsets.end == end || offsets.start == end {
            true => Ok(offsets.end == end),
            false => Err(self.wrong_end(offsets.start, end)),
        }
    }

    async fn write_days(&self, days: Vec<Day>, offsets: &Range<u64>, written: &mut Vec<Add>) -> Result<()> {
        for Day { day, rows } in days {
            let day = day_text(day);
            let path = format!("{DAY}={day}/{}", file_name(offsets));
            let (sizes, time) = (self.spec.sizes.clone(), rows.time.clone());
            let encode = move |out: mpsc::Sender<Bytes>| {
                let schema = Arc::clone(&rows.schema);
                encode(&sizes, time.as_deref(), &schema, rows.batches(), &out)
            };
            let (encoded, bytes) = self.write_file(&path, encode).await?;
            written.push(add(path, &day, bytes, encoded.stats, true));
        }
        Ok(())
    }

    /// Writes the bytes that `encode` sends as a file, and returns how many there were.
    pub(super) async fn write_file<F>(&self, path: &str, encode: F) -> Result<(Encoded, u64)>
    where
        F: FnOnce(mpsc::Sender<Bytes>) -> Result<Encoded> + Send + 'static,
    {
        let writing = |err: &(dyn std::error::Error + 'static)| failed(&format!("write file \"{path}\""), err);
        let (sender, mut pieces) = mpsc::channel::<Bytes>(QUEUE);
        let encoder = tokio::task::spawn_blocking(move || encode(sender));
        let location = Path::parse(path).map_err(|err| writing(&err))?;
        let mut upload = BufWriter::with_capacity(Arc::clone(&self.store), location, self.spec.sizes.part_bytes);
        let mut bytes = 0;
        let mut sent = Ok(());
        while let Some(piece) = pieces.recv().await {
            bytes += piece.len() as u64;
            sent = upload.put(piece).await;
            if sent.is_err() {
                break;
            }
        }
        drop(pieces);
        let encoded = encoder.await.map_err(|err| Error::internal(format!("encoding \"{path}\" failed: {err}")))?;
        // That the encoder could not send is no news if the upload failed.
        let ended = match (sent, encoded) {
            (Err(err), _) => Err(writing(&err)),
            (Ok(()), Err(err)) => Err(err),
            (Ok(()), Ok(encoded)) => Ok(encoded),
        };
        match ended {
            Ok(encoded) => {
                upload.shutdown().await.map_err(|err| writing(&err))?;
                Ok((encoded, bytes))
            }
            Err(err) => {
                // The parts of a failed upload take space until the store's own rules remove them.
                let _ = upload.abort().await;
                Err(err)
            }
        }
    }

    /// Removes files that were written in vain, as far as that succeeds.
    pub(super) async fn discard(&self, paths: impl Iterator<Item = &str>) {
        for path in paths {
            if let Ok(path) = Path::parse(path) {
                let _ = self.store.delete(&path).await;
            }
        }
    }
}

/// Runs work that takes the processor for a while.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|err| Error::internal(format!("a task of the archive failed: {err}")))?
}
