//! Cursors: a query whose rows the client takes in portions (`DECLARE`, `FETCH`).
//!
//! Between two FETCHes the query rests: it is at most the relay's few batches ahead. A cursor over a query gives as many
//! rows as asked for, or all that are left. A live cursor (over SUBSCRIBE, which never ends) waits for the first row and
//! then gives what is there, so that a client polling it sees changes at once; with a timeout it gives what comes until
//! then, perhaps nothing.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};

/// So long a FETCH waits for the one before it.
const LETTING_GO: Duration = Duration::from_secs(1);

/// Open cursors per connection.
pub const MAX_CURSORS: usize = 64;

#[derive(Clone)]
pub struct Cursor {
    schema: SchemaRef,
    hold: bool,
    reader: Arc<Mutex<Reader>>,
}

struct Reader {
    live: bool,
    batches: SendableRecordBatchStream,
    /// What the last FETCH left of a batch.
    rest: Option<RecordBatch>,
}

impl Cursor {
    /// `schema` names the columns as clients see them; with `hold` the cursor outlives its transaction.
    pub fn new(schema: SchemaRef, batches: SendableRecordBatchStream, hold: bool, live: bool) -> Cursor {
        Cursor { schema, hold, reader: Arc::new(Mutex::new(Reader { live, batches, rest: None })) }
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    pub fn hold(&self) -> bool {
        self.hold
    }

    /// The next rows, at most `limit`. A live cursor waits for them until `until`, or without it for the first one. Fails when
    /// another portal is in the middle of a FETCH from it.
    pub async fn fetch(
        &self,
        limit: Option<usize>,
        until: Option<Instant>,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + 'static> {
        // A FETCH that has just ended may still be letting go of it.
        let reader = tokio::time::timeout(LETTING_GO, Arc::clone(&self.reader).lock_owned()).await;
        let reader = reader.map_err(|_| Error::new(Kind::ObjectInUse, "the cursor is being read by another portal"))?;
        let left = limit.unwrap_or(usize::MAX);
        Ok(futures::stream::unfold((reader, left, false), move |(mut reader, left, any)| async move {
            if left == 0 {
                return None;
            }
            let batch = match reader.next(any, until).await? {
                Ok(batch) => batch,
                Err(err) => return Some((Err(err), (reader, 0, true))),
            };
            let take = left.min(batch.num_rows());
            if take < batch.num_rows() {
                reader.rest = Some(batch.slice(take, batch.num_rows() - take));
            }
            let any = any || take > 0;
            Some((Ok(batch.slice(0, take)), (reader, left - take, any)))
        }))
    }
}

impl Reader {
    /// The next batch, `None` when there is none for this FETCH. `any`: it has given rows already.
    async fn next(&mut self, any: bool, until: Option<Instant>) -> Option<Result<RecordBatch>> {
        if let Some(rest) = self.rest.take() {
            return Some(Ok(rest));
        }
        let batch = match (self.live, until) {
            (true, Some(until)) => {
                // What is there is given even when the time is over.
                match self.batches.next().now_or_never() {
                    Some(batch) => batch,
                    None => tokio::time::timeout_at(until, self.batches.next()).await.ok()?,
                }
            }
            (true, None) if any => self.batches.next().now_or_never()?,
            (true | false, _) => self.batches.next().await,
        };
        Some(batch?.map_err(Error::from))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    fn cursor(ends: bool) -> Cursor {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, true)]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int32Array::from(vec![1, 2, 3]))]).unwrap();
        let batches = futures::stream::iter([Ok(batch.clone()), Ok(batch)]);
        let batches = if ends { batches.boxed() } else { batches.chain(futures::stream::pending()).boxed() };
        let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), batches));
        Cursor::new(schema, stream, false, !ends)
    }

    async fn count(cursor: &Cursor, limit: Option<usize>) -> usize {
        cursor
            .fetch(limit, None)
            .await
            .unwrap()
            .map(|batch| batch.unwrap().num_rows())
            .fold(0, |sum, n| async move { sum + n })
            .await
    }

    #[tokio::test]
    async fn portions_cross_batches() {
        let cursor = cursor(true);
        assert_eq!(count(&cursor, Some(2)).await, 2);
        assert_eq!(count(&cursor, Some(2)).await, 2);
        assert_eq!(count(&cursor, Some(0)).await, 0);
        assert_eq!(count(&cursor, None).await, 2);
        assert_eq!(count(&cursor, Some(5)).await, 0);
    }

    #[tokio::test]
    async fn one_fetch_at_a_time() {
        let cursor = cursor(true);
        let first = cursor.fetch(Some(1), None).await.unwrap();
        let second = tokio::spawn({
            let cursor = cursor.clone();
            async move { count(&cursor, Some(2)).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(second.await.unwrap(), 2, "the first one was just ending");
        let _reading = cursor.fetch(Some(1), None).await.unwrap();
        assert_eq!(cursor.fetch(Some(1), None).await.err().map(|err| err.kind()), Some(Kind::ObjectInUse));
    }

    #[tokio::test]
    async fn a_live_cursor_gives_what_is_there() {
        let cursor = cursor(false);
        assert_eq!(count(&cursor, Some(100)).await, 6);
    }

    #[tokio::test]
    async fn a_timeout_ends_a_fetch_without_rows() {
        let cursor = cursor(false);
        let until = |millis| Some(Instant::now() + std::time::Duration::from_millis(millis));
        let rows =
            |batches: Vec<Result<RecordBatch>>| batches.iter().flatten().map(RecordBatch::num_rows).sum::<usize>();
        assert_eq!(rows(cursor.fetch(Some(4), until(0)).await.unwrap().collect().await), 4);
        assert_eq!(rows(cursor.fetch(None, until(0)).await.unwrap().collect().await), 2);
        let begun = Instant::now();
        assert_eq!(rows(cursor.fetch(None, until(20)).await.unwrap().collect().await), 0);
        assert!(begun.elapsed().as_millis() >= 20);
    }
}
