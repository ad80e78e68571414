//! Changes of a computed result: of a view, or a query over views and aggregates.
//!
//! After each change of a rollup the result is computed again and compared with what the receiver holds. Where rows of
//! different windows never meet, only the windows that were touched are computed. And where the result is exact (the same
//! to the last bit however states were merged), the receiver's rows need not be kept either: the old state is computed
//! again beside the new one, from the very runs it was made of. Otherwise a copy of what was sent is kept, within the
//! memory of queries.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use super::analysis::{asks_for_closing, exact, settled, timely, window_columns};
use super::held::{Held, Side};
use super::output::Output;
use super::rows::{check_kept, rows_between};
use super::{Start, Step, physical_plan};
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::rollup::Rollup;
use crate::rollup::budget::Budget;
use crate::rollup::pane::{Runs, Sizes};
use crate::rollup::plan::{Slot, slots_of};
use crate::rollup::timeliness::{Timed, Timeliness};
use crate::rollup::window::{Window, to_micros};
use crate::time::Micros;
use crate::view::pin::{Instant, instant_of, pin_at};
use crate::view::runner::{Runner, Snapshot};
use crate::view::table::{Part, reached};

/// A subscriber to a result.
pub struct Results {
    // fixed
    query: Query,
    start: Start,
    output: Arc<Output>,
    // state
    phase: Phase,
    /// What the receiver holds; `None` where it can be computed again from `last`.
    held: Option<Held>,
    last: Last,
}

/// What is computed again and again.
struct Query {
    plan: Opaque<LogicalPlan>,
    schema: SchemaRef,
    slots: Vec<Arc<Slot>>,
    /// Of the streams that the slots read, by name.
    runners: HashMap<String, Arc<Runner>>,
    context: Opaque<SessionContext>,
    /// Nothing but the slots' rollups changes the result.
    settled: bool,
    /// Some windows can be computed without the others.
    windowed: bool,
    /// It tells whether windows have closed, which no row says.
    asks_for_closing: bool,
}

enum Phase {
    Begin,
    /// The first result is on its way; with `false` only into what is held.
    Snapshot(SendableRecordBatchStream, bool),
    Following,
}

/// The instant up to which changes were sent.
#[derive(Default)]
struct Last {
    offset: u64,
    /// Of the streams, by name: what was touched since is to be looked at.
    versions: HashMap<String, u64>,
    /// What is to be looked at besides.
    missed: Look,
    /// Kept where the old result is computed again.
    instant: Option<Instant>,
}

/// Which windows have to be looked at again.
#[derive(Debug, Clone, Copy, Default)]
enum Look {
    #[default]
    Nowhere,
    /// Those that start in this closed range.
    Within(Micros, Micros),
    Everywhere,
}

impl Look {
    fn and(self, other: Look) -> Look {
        match (self, other) {
            (Look::Nowhere, look) | (look, Look::Nowhere) => look,
            (Look::Within(a, b), Look::Within(c, d)) => Look::Within(a.min(c), b.max(d)),
            (Look::Everywhere, _) | (_, Look::Everywhere) => Look::Everywhere,
        }
    }
}

impl Results {
    /// `runners` are those of the streams that the plan's slots read.
    pub fn new(
        plan: Opaque<LogicalPlan>,
        runners: HashMap<String, Arc<Runner>>,
        start: Start,
        context: Opaque<SessionContext>,
        output: Arc<Output>,
    ) -> Result<Results> {
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let settled = settled(&plan);
        if matches!(start, Start::After(_) | Start::From(_)) && (runners.len() != 1 || !settled) {
            return Err(no_past(runners.len()));
        }
        let windows = window_columns(&plan).filter(|_| settled);
        let held = match &windows {
            Some(_) if exact(&plan) => None,
            windows => {
                let column = windows.as_ref().and_then(|columns| columns.first_key_value());
                let column = column.map(|(column, shift)| (*column, *shift));
                Some(Held::new(Arc::clone(&schema), column, &context.runtime_env().memory_pool)?)
            }
        };
        let windowed = windows.is_some() && held.as_ref().is_none_or(Held::is_windowed);
        let slots = slots_of(&plan);
        let asks_for_closing = asks_for_closing(&plan);
        let query = Query { plan, schema, slots, runners, context, settled, windowed, asks_for_closing };
        Ok(Results { query, start, output, phase: Phase::Begin, held, last: Last::default() })
    }

    /// Whether the result may change without any row: it has to be computed again now and then.
    pub fn depends_on_time(&self) -> bool {
        timely(&self.query.plan)
    }

    /// The next rows, or where the receiver stands when there are none. The streams have come to `upto` at least.
    pub async fn step(&mut self, upto: u64) -> Result<Step> {
        match &mut self.phase {
            Phase::Begin => self.begin().await,
            Phase::Snapshot(batches, send) => {
                let Some(batch) = batches.next().await else {
                    self.phase = Phase::Following;
                    return Ok(Step { batches: Vec::new(), complete: Some(self.last.offset), more: true });
                };
                let batch = batch?;
                if let Some(held) = &mut self.held {
                    held.add(&batch, Side::Before)?;
                }
                let mut step = Step { batches: Vec::new(), complete: None, more: true };
                if *send {
                    let offsets = Int64Array::from_value(self.last.offset as i64, batch.num_rows());
                    step.batches = self.output.arrived(batch.columns(), &offsets)?;
                }
                Ok(step)
            }
            Phase::Following => self.follow(upto).await,
        }
    }

    async fn begin(&mut self) -> Result<Step> {
        let (instant, missed, send) = match self.start {
            Start::Snapshot => (self.query.now()?, Look::Nowhere, true),
            Start::Now => (self.query.now()?, Look::Nowhere, false),
            Start::After(offset) | Start::From(offset) => {
                let (instant, missed) = self.query.replay(offset).await?;
                (instant, missed, false)
            }
        };
        if send || self.held.is_some() {
            self.phase = Phase::Snapshot(self.query.evaluate(&instant, None).await?, send);
        } else {
            self.phase = Phase::Following;
        }
        self.last = Last { missed, ..self.as_last(instant) };
        let complete = matches!(self.phase, Phase::Following).then_some(self.last.offset);
        Ok(Step { batches: Vec::new(), complete, more: true })
    }

    /// Compares the result as of now with that of last time.
    async fn follow(&mut self, upto: u64) -> Result<Step> {
        if matches!(self.query.look(&self.last), Look::Nowhere) && self.query.is_healthy() {
            // What was touched since then does not count yet: it is told by the next tick.
            self.last.offset = self.last.offset.max(upto);
            return Ok(Step { batches: Vec::new(), complete: Some(self.last.offset), more: false });
        }
        let now = self.query.now()?;
        let range = match self.query.look(&self.last) {
            Look::Within(low, high) => Some((low, high)),
            Look::Nowhere | Look::Everywhere => None,
        };
        let mut current = self.query.evaluate(&now, range).await?;
        let mut again = match &self.last.instant {
            Some(before) => Some(self.query.compute_again(before, range).await?),
            None => None,
        };
        let held = self.held.as_mut().or(again.as_mut());
        let held = held.ok_or_else(|| Error::internal("nothing is known of the last result"))?;
        held.renew(range);
        while let Some(batch) = current.next().await {
            held.add(&batch?, Side::Now)?;
        }
        let difference = held.settle()?;
        let offset = offset_of(&now);
        let batches = self.output.changed(offset, &difference, held)?;
        self.last = self.as_last(now);
        Ok(Step { batches, complete: Some(offset), more: false })
    }

    fn as_last(&self, instant: Instant) -> Last {
        let versions = instant.iter().map(|(stream, snapshot)| (stream.clone(), snapshot.version)).collect();
        let offset = offset_of(&instant);
        Last { offset, versions, missed: Look::Nowhere, instant: self.held.is_none().then_some(instant) }
    }
}

impl Query {
    /// What the receiver holds, from the state as it was.
    async fn compute_again(&self, before: &Instant, windows: Option<(Micros, Micros)>) -> Result<Held> {
        let mut held = Held::new(Arc::clone(&self.schema), None, &self.context.runtime_env().memory_pool)?;
        if windows.is_some_and(|(low, _)| self.had_none_from(before, low)) {
            return Ok(held);
        }
        let mut rows = self.evaluate(before, windows).await?;
        while let Some(batch) = rows.next().await {
            held.add(&batch?, Side::Before)?;
        }
        Ok(held)
    }

    /// Whether no window with this id or a later one had closed at an instant, in a result that shows closed windows only.
    fn had_none_from(&self, instant: &Instant, low: Micros) -> bool {
        self.slots.iter().all(|slot| {
            let definition = &slot.definition;
            let (Some(snapshot), Some(pane)) = (instant.get(&definition.stream), definition.pane) else { return false };
            let last = pane.window.last_closed(reached(definition, snapshot.watermark));
            definition.timeliness == Timeliness::OnTime && last.is_some_and(|last| last < low)
        })
    }

    fn now(&self) -> Result<Instant> {
        let mut instant = instant_of(&self.plan, &|stream| self.runners.get(stream).cloned())?;
        if self.settled && instant.values().all(|snapshot| snapshot.stale.is_empty()) {
            // Rows in memory are not needed, and must not be held on to.
            for snapshot in instant.values_mut() {
                *snapshot = Arc::new(Snapshot { chunks: Vec::new(), ..snapshot.as_ref().clone() });
            }
        }
        Ok(instant)
    }

    async fn evaluate(&self, at: &Instant, windows: Option<(Micros, Micros)>) -> Result<SendableRecordBatchStream> {
        let plan = Opaque::new(pin_at(LogicalPlan::clone(&self.plan), at, windows)?);
        let physical = physical_plan(&Opaque::new(self.context.state()), &plan).await?;
        Ok(execute_stream(physical, self.context.task_ctx())?)
    }

    /// Where the result may have changed since `last`.
    fn look(&self, last: &Last) -> Look {
        if !self.settled {
            return Look::Everywhere;
        }
        let reads = self.slots.iter().flat_map(|slot| slot.definition.streams().map(move |stream| (slot, stream)));
        reads.fold(last.missed, |look, (slot, stream)| {
            let (Some(runner), Some(since)) = (self.runners.get(stream), last.versions.get(stream)) else {
                return Look::Everywhere;
            };
            let look = match runner.touched(&slot.definition.key, *since) {
                Some(panes) => look.and(self.windows_of(slot, panes)),
                None => look,
            };
            match runner.closed(&slot.definition.key, *since).filter(|_| self.asks_for_closing) {
                Some((low, high)) if self.windowed && low > i64::MIN && high < i64::MAX => {
                    look.and(Look::Within(low, high))
                }
                Some(_) => look.and(Look::Everywhere),
                None => look,
            }
        })
    }

    /// Whether all rollups are there and did not fail.
    fn is_healthy(&self) -> bool {
        self.slots.iter().all(|slot| {
            let (stream, key) = (&slot.definition.stream, &slot.definition.key);
            self.runners.get(stream).is_some_and(|r| r.find(key).is_some() && r.failure(key).is_none())
        })
    }

    /// The windows that hold these panes.
    fn windows_of(&self, slot: &Slot, panes: (i64, i64)) -> Look {
        match window_range(slot, panes) {
            Some((low, high)) if self.windowed => Look::Within(low, high),
            Some(_) | None => Look::Everywhere,
        }
    }

    /// The rollups as they were when the stream had `offset` frames, folded again from its rows; and where the rows since
    /// then belong.
    async fn replay(&self, offset: u64) -> Result<(Instant, Look)> {
        let Some((stream, runner)) = self.runners.iter().next() else { return Err(no_past(0)) };
        let current = runner.snapshot([]);
        check_kept(runner, offset, current.offset)?;
        // A result needs every row from the first one on.
        check_kept(runner, 0, offset)?;
        let mut parts = Vec::new();
        for slot in &self.slots {
            let rollup = slot.rollup.get().ok_or_else(|| Error::internal("a rollup is missing"))?;
            if slot.definition.timeliness == Timeliness::OnTime || !rollup.references().is_empty() {
                return Err(no_past(1));
            }
            parts.push((slot, Arc::clone(rollup), Runs::new(Sizes::default(), Budget::unlimited())));
        }
        let mut missed = Look::Nowhere;
        for chunk in &current.all_chunks() {
            let end = chunk.base + chunk.frames;
            for (rows, _) in rows_between(runner, chunk, Part::Rows, chunk.base..offset.min(end)).await? {
                for (_, rollup, runs) in &mut parts {
                    fold(rollup, runs, &rows)?;
                }
            }
            for (rows, _) in rows_between(runner, chunk, Part::Rows, offset.max(chunk.base)..end).await? {
                for (slot, rollup, _) in &parts {
                    let run = rollup.fold(&Timed::new(&rows))?;
                    missed = run.map_or(missed, |run| missed.and(self.windows_of(slot, run.panes.touched())));
                }
            }
            // So that a subscriber who leaves is noticed between two chunks.
            tokio::task::yield_now().await;
        }
        let runs = parts.into_iter().map(|(slot, _, runs)| (slot.definition.key.clone(), Ok(runs.snapshot())));
        let snapshot = Snapshot { offset, runs: runs.collect(), chunks: Vec::new(), ..current.clone() };
        Ok((HashMap::from([(stream.clone(), Arc::new(snapshot))]), missed))
    }
}

/// `_offset` of an instant: the frames of all streams together.
fn offset_of(instant: &Instant) -> u64 {
    instant.values().map(|snapshot| snapshot.offset).sum()
}

fn fold(rollup: &Rollup, runs: &mut Runs, rows: &arrow::array::RecordBatch) -> Result<()> {
    if let Some(run) = rollup.fold(&Timed::new(rows))? {
        runs.push(run);
    }
    while let Some(merge) = runs.pick(usize::MAX) {
        let merged = rollup.maintainer().merge(&merge, None, usize::MAX)?;
        runs.replace(&merge, merged);
    }
    Ok(())
}

/// The starts of the windows that hold these panes; `None` when that may be any.
fn window_range(slot: &Slot, panes: (i64, i64)) -> Option<(Micros, Micros)> {
    if panes.0 == i64::MIN || panes.1 == i64::MAX {
        return None;
    }
    let pane = slot.definition.pane?;
    if slot.definition.timeliness == Timeliness::OnTime {
        return Some(panes);
    }
    let data_type = slot.definition.schema.field(pane.column).data_type();
    let (low, high) = (to_micros(data_type, panes.0)?, to_micros(data_type, panes.1)?);
    match pane.window {
        Window::Tumble { .. } | Window::Calendar(_) => Some((low, high)),
        // A pane that starts at p is part of windows that start in (p - size, p] ...
        Window::Hop { size, .. } => Some((low.saturating_sub(size - 1), high)),
        // ... or that end in (p, p + size].
        Window::Cumulate { size, .. } => Some((low, high.saturating_add(size))),
        Window::Session { .. } => None,
    }
}

fn no_past(streams: usize) -> Error {
    let why = if streams > 1 { "it reads several streams" } else { "it does not depend on rows alone" };
    Error::new(Kind::NotSupported, format!("AS OF cannot be used with this query: {why}"))
        .with_hint("Subscribe without AS OF: the snapshot is then sent anew.")
}
