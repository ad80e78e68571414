//! The operator that reads hopping windows with a [`Slide`], and where slides are kept between two reads.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch, is_not_null, is_null};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as DfResult, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::TryStreamExt;
use parking_lot::Mutex;

use super::{Late, Slide, Sliding};
use crate::mutation::limit;
use crate::rollup::read::Finish;
use crate::rollup::window::Window;
use crate::time::Micros;

/// Slides kept per rollup: one for each reader who follows.
const MOST_KEPT: usize = 4;

/// With fewer partial rows per window it is faster to copy them into each: computing a window takes some microseconds.
const DENSE: usize = 100;

/// A slide of more bytes is not kept: its reader reads all panes again.
const KEPT_BYTES: usize = 16 << 20;

/// Slides of a rollup whose closed windows do not change any more.
#[derive(Debug, Default)]
pub struct Cache(Mutex<Vec<Kept>>);

/// A slide that can go on.
#[derive(Debug, Clone)]
pub struct Kept {
    slide: Slide,
    window: Window,
    /// The next window, and what panes before which were pushed.
    next: Micros,
    upto: Micros,
}

impl Kept {
    /// Panes from here on have to be pushed.
    pub fn upto(&self) -> Micros {
        self.upto
    }
}

impl Cache {
    /// Takes the slide that goes on with the window `id`.
    pub fn take(&self, window: Window, id: Micros) -> Option<Kept> {
        let mut kept = self.0.lock();
        let at = kept.iter().position(|kept| kept.window == window && kept.next == id)?;
        Some(kept.remove(at))
    }

    fn keep(&self, new: Kept) {
        if new.slide.bytes() > KEPT_BYTES {
            return;
        }
        let mut kept = self.0.lock();
        if kept.iter().any(|kept| kept.window == new.window && kept.next >= new.next) {
            return; // a reader of old windows, or one like it is there
        }
        if kept.len() == MOST_KEPT {
            kept.remove(0);
        }
        kept.push(new);
    }

    /// Forgets all, because the state is another.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

/// Computes the windows with ids in a range from the panes that come in, in any order. One window after the other goes
/// out; what comes in is held, and counted in the query's memory.
pub struct SlideExec {
    input: Arc<dyn ExecutionPlan>,
    sliding: Arc<Sliding>,
    window: Window,
    ids: Option<(Micros, Micros)>,
    /// How to read windows that have few rows: one after the other would take longer.
    sparse: Arc<Finish>,
    /// Goes on from here, with what came late for panes that were pushed before.
    kept: Option<(Kept, Vec<RecordBatch>)>,
    /// Where to keep the slide.
    cache: Option<Arc<Cache>>,
    properties: Arc<PlanProperties>,
}

impl SlideExec {
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        sliding: Arc<Sliding>,
        window: Window,
        ids: Option<(Micros, Micros)>,
        sparse: Arc<Finish>,
    ) -> SlideExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(sliding.output())),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        SlideExec { input, sliding, window, ids, sparse, kept: None, cache: None, properties: Arc::new(properties) }
    }

    /// The same, going on with a slide and keeping it afterwards.
    pub fn going_on(self, kept: Option<(Kept, Vec<RecordBatch>)>, cache: &Arc<Cache>) -> SlideExec {
        SlideExec { kept, cache: Some(Arc::clone(cache)), ..self }
    }
}

impl fmt::Debug for SlideExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlideExec({:?})", self.window)
    }
}

impl DisplayAs for SlideExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SlideExec: {:?}{}", self.window, if self.kept.is_some() { ", going on" } else { "" })
    }
}

impl ExecutionPlan for SlideExec {
    fn name(&self) -> &str {
        "SlideExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    /// Each partition is expected to hold all panes of its groups: it must stay as it was made.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return internal_err!("SlideExec has one input") };
        let new = SlideExec::new(input, Arc::clone(&self.sliding), self.window, self.ids, Arc::clone(&self.sparse));
        Ok(Arc::new(SlideExec { kept: self.kept.clone(), cache: self.cache.clone(), ..new }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let reservation = MemoryConsumer::new("SlideExec").register(context.memory_pool());
        let batch_size = context.session_config().batch_size().max(1);
        let (sliding, window, ids) = (Arc::clone(&self.sliding), self.window, self.ids);
        let (kept, cache, sparse) = (self.kept.clone(), self.cache.clone(), Arc::clone(&self.sparse));
        let (schema, output) = (self.input.schema(), Arc::clone(self.sliding.output()));
        let windows = async move {
            let batches: Vec<RecordBatch> = input.try_collect().await?;
            // Tests have small data.
            let dense = if limit(DENSE) < DENSE { 0 } else { DENSE };
            if kept.is_none() && rows_per_window(&sliding, window, &batches) < dense {
                let input = MemorySourceConfig::try_new_exec(&[batches], schema, None)?;
                return sparse(input)?.execute(0, context);
            }
            let windows = Windows::new(&sliding, window, ids, kept, &batches, reservation)?;
            let rows = Coalesced { windows, output: Arc::clone(&output), batch_size, cache };
            let rows = futures::stream::iter(rows);
            Ok::<SendableRecordBatchStream, DataFusionError>(Box::pin(RecordBatchStreamAdapter::new(output, rows)))
        };
        let stream = futures::stream::once(windows).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

/// Partial rows per window, if all windows that have some are computed.
fn rows_per_window(sliding: &Sliding, window: Window, batches: &[RecordBatch]) -> usize {
    let Window::Hop { slide, size, .. } = window else { return 0 };
    let (mut panes, mut rows) = (Vec::new(), 0);
    for batch in batches {
        let times = batch.column(sliding.panes[0]).as_primitive::<TimestampMicrosecondType>();
        rows += times.len();
        panes.extend(times.iter().flatten());
        panes.dedup();
    }
    panes.sort_unstable();
    panes.dedup();
    let factor = (size / slide).max(1);
    let gaps = panes.windows(2).map(|two| (two[1].saturating_sub(two[0]) / slide).clamp(1, factor));
    let windows = gaps.fold(factor, |windows, gap| windows.saturating_add(gap));
    rows.saturating_mul(factor as usize) / windows as usize
}

/// The windows of a range, one after the other.
struct Windows {
    slide: Slide,
    window: Window,
    every: Micros,
    late: Late,
    /// Where panes with late rows start, in order.
    late_panes: Vec<Micros>,
    /// The window to come, and the last.
    next: Micros,
    last: Micros,
    /// Rows in no window.
    timeless: Option<RecordBatch>,
    reservation: MemoryReservation,
}

impl Windows {
    fn new(
        sliding: &Arc<Sliding>,
        window: Window,
        ids: Option<(Micros, Micros)>,
        kept: Option<(Kept, Vec<RecordBatch>)>,
        batches: &[RecordBatch],
        reservation: MemoryReservation,
    ) -> DfResult<Windows> {
        let (kept, late_before) = kept.map_or((None, Vec::new()), |(kept, late)| (Some(kept), late));
        let slide = match kept {
            Some(kept) => Some(kept.slide),
            None => Slide::new(sliding, window)?,
        };
        let Some(mut slide) = slide else { return internal_err!("only hopping windows slide") };
        let mut parts = Parts { late: late_before, ..Parts::default() };
        for batch in batches {
            parts.add(sliding, batch)?;
        }
        slide.push(&parts.panes)?;
        reservation.try_resize(slide.bytes())?;
        let late = match parts.late.as_slice() {
            [] => Late::default(),
            rows => late(&mut slide, sliding, &concat_batches(&sliding.schema, rows)?)?,
        };
        let timeless = match parts.timeless.as_slice() {
            [] => None,
            rows => slide.timeless(&concat_batches(&sliding.schema, rows)?)?,
        };
        let mut late_panes = late.panes.clone();
        late_panes.sort_unstable();
        let (low, last) = ids.unwrap_or((Micros::MIN, Micros::MAX));
        let Window::Hop { slide: every, .. } = window else { return internal_err!("only hopping windows slide") };
        Ok(Windows { slide, window, every, late, late_panes, next: low, last, timeless, reservation })
    }

    /// The first window, from the next on, that has rows.
    fn seek(&self) -> Option<Micros> {
        let late = self.late_panes.get(self.late_panes.partition_point(|pane| *pane < self.next)).copied();
        let pane = self.slide.pane_from(self.next).into_iter().chain(late).min()?;
        let first = self.window.ids(pane, pane.saturating_add(1)).first;
        if first >= self.next {
            return Some(first);
        }
        // The first that is not before what was asked for.
        let skipped = self.next.saturating_sub(first).saturating_add(self.every - 1) / self.every;
        Some(first.saturating_add(skipped.saturating_mul(self.every)))
    }

    fn next_window(&mut self) -> DfResult<Option<RecordBatch>> {
        while let Some(id) = self.seek().filter(|id| *id <= self.last) {
            self.next = id.saturating_add(self.every);
            let rows = self.slide.window(id, &self.late, self.window)?;
            self.reservation.try_resize(self.slide.bytes().max(self.reservation.size()))?;
            if rows.is_some() {
                return Ok(rows);
            }
        }
        Ok(self.timeless.take())
    }

    /// The slide, for who goes on where this one has ended.
    fn kept(&self) -> Option<Kept> {
        let Window::Hop { slide: every, size, .. } = self.window else { return None };
        let last = self.window.ids(self.last, self.last.saturating_add(1)).last;
        let (next, upto) = (last.saturating_add(every), last.saturating_add(size));
        Some(Kept { slide: self.slide.clone(), window: self.window, next, upto })
    }
}

/// Batches of about the size that is asked for.
struct Coalesced {
    windows: Windows,
    output: arrow::datatypes::SchemaRef,
    batch_size: usize,
    cache: Option<Arc<Cache>>,
}

impl Iterator for Coalesced {
    type Item = DfResult<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut batches, mut rows) = (Vec::new(), 0);
        while rows < self.batch_size {
            match self.windows.next_window() {
                Ok(Some(batch)) => {
                    rows += batch.num_rows();
                    batches.push(batch);
                }
                Ok(None) => break,
                Err(err) => return Some(Err(err)),
            }
        }
        match batches.len() {
            0 => {
                if let Some((cache, kept)) = self.cache.take().zip(self.windows.kept()) {
                    cache.keep(kept);
                }
                None
            }
            1 => batches.pop().map(Ok),
            _ => Some(concat_batches(&self.output, &batches).map_err(Into::into)),
        }
    }
}

/// What comes in.
#[derive(Default)]
struct Parts {
    /// In all windows that hold them.
    panes: Vec<RecordBatch>,
    /// Late for some of their windows.
    late: Vec<RecordBatch>,
    /// In no window.
    timeless: Vec<RecordBatch>,
}

impl Parts {
    fn add(&mut self, sliding: &Sliding, batch: &RecordBatch) -> DfResult<()> {
        let mut batch = batch.clone();
        let column = sliding.panes[0];
        if batch.column(column).null_count() > 0 {
            self.timeless.push(filter_record_batch(&batch, &is_null(batch.column(column))?)?);
            batch = filter_record_batch(&batch, &is_not_null(batch.column(column))?)?;
        }
        let closed = sliding.closed.map(|closed| closed.column);
        if let Some(column) = closed.filter(|&column| batch.column(column).null_count() < batch.num_rows()) {
            self.late.push(filter_record_batch(&batch, &is_not_null(batch.column(column))?)?);
            batch = filter_record_batch(&batch, &is_null(batch.column(column))?)?;
        }
        if batch.num_rows() > 0 {
            self.panes.push(batch);
        }
        Ok(())
    }
}

fn late(slide: &mut Slide, sliding: &Sliding, rows: &RecordBatch) -> DfResult<Late> {
    let Some(closed) = sliding.closed.filter(|_| rows.num_rows() > 0) else { return Ok(Late::default()) };
    let micros = |column: usize| rows.column(column).as_primitive::<TimestampMicrosecondType>().values().to_vec();
    let (panes, closed_to) = (micros(sliding.panes[0]), micros(closed.column));
    Ok(Late { panes, closed_to, block: slide.block(rows)? })
}
