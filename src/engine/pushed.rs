//! What became of lines that were pushed: which of them the stream's format could not read.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::{Stream, blocking};
use crate::error::Result;

impl Stream {
    /// Most bytes of one batch that is pushed.
    pub fn push_bytes(&self) -> u64 {
        self.push_bytes
    }

    /// The malformed ones among the frames at these offsets, which are visible ([`Ingest::visible`](crate::ingest::Ingest)):
    /// the offset of each, and the reason for the first `reasons` of them. Ones that are in the archive by now are not
    /// looked for.
    pub async fn malformed(
        self: &Arc<Self>,
        offsets: Range<u64>,
        reasons: usize,
    ) -> Result<Vec<(u64, Option<String>)>> {
        let (_, chunks) = self.runner.log.snapshot();
        let theirs = |base: u64, frames: u64| base < offsets.end && base + frames > offsets.start;
        let wanted: Vec<_> =
            chunks.into_iter().filter(|chunk| chunk.malformed > 0 && theirs(chunk.base, chunk.frames)).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let runner = Arc::clone(&self.runner);
        blocking(move || {
            let mut found = Vec::new();
            for chunk in wanted {
                let data = runner.log.load(&chunk, &runner.shape)?;
                for batch in &data.malformed {
                    let (Some(at), Some(why)) = (batch.column_by_name("offset"), batch.column_by_name("reason")) else {
                        continue;
                    };
                    let (at, why) = (at.as_primitive::<Int64Type>().values(), why.as_string::<i32>());
                    let ours = at.iter().enumerate().filter(|(_, at)| offsets.contains(&(**at as u64)));
                    for (i, at) in ours {
                        let reason = (found.len() < reasons).then(|| why.value(i).to_string());
                        found.push((*at as u64, reason));
                    }
                }
            }
            Ok(found)
        })
        .await
    }
}
