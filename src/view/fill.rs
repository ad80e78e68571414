//! `FILL ZERO | NULL | PREVIOUS`: groups seen before appear in closed windows that hold no rows of theirs, so that
//! absence can be seen, and alerted on.
//!
//! [`FillNode`] stands above a view's finish plan. [`FillExec`] reads the whole result, notes which windows each group
//! has, and adds the missing ones from the group's first window up to the last that has closed. What it holds is the
//! result; what it adds is made batch by batch as it is read.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array, new_null_array};
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchemaRef, Result as DfResult, ScalarValue, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, PlanProperties};
use datafusion::physical_planner::PhysicalPlanner;
use futures::{StreamExt, TryStreamExt};

use super::options::Fill;
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::opaque::{Extended, plan_extension_at_once};
use crate::rollup::lineage::{Role, lineage};
use crate::rollup::watermark::FOREVER;
use crate::rollup::window::Window;
use crate::time::{Micros, UTC};

/// A view's result with the windows that hold no rows of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FillNode {
    pub input: LogicalPlan,
    pub stream: String,
    how: How,
}

/// What to fill in, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct How {
    fill: Fill,
    window: Window,
    roles: Vec<Role>,
    /// A window is closed when the watermark has passed its end by this much.
    lateness: Micros,
    /// The watermark, once the plan is pinned to an instant.
    watermark: Option<Micros>,
}

impl PartialOrd for FillNode {
    fn partial_cmp(&self, _: &Self) -> Option<std::cmp::Ordering> {
        None
    }
}

impl FillNode {
    /// Fails where it cannot be told which windows are missing.
    pub fn try_new(input: LogicalPlan, fill: Fill, lateness: Micros) -> Result<FillNode> {
        let refuse = |detail: &str| {
            Error::new(Kind::NotSupported, "FILL needs a view of windows whose groups can be told apart")
                .with_detail(detail)
                .with_hint("Select window_start or window_end and the columns of GROUP BY; SESSION cannot be filled.")
        };
        let lineage = lineage(&input).ok_or_else(|| refuse("The query is more than one aggregate over windows."))?;
        let (window, roles) = (lineage.window, lineage.roles);
        if window.is_session() {
            return Err(refuse("A session exists only where there are rows."));
        }
        // A cumulating window is told by its end alone.
        let told =
            roles.contains(&Role::End) || (roles.contains(&Role::Start) && !matches!(window, Window::Cumulate { .. }));
        if !told {
            return Err(refuse("No bound that tells the windows apart is among the result's columns."));
        }
        let keys = roles.iter().filter(|r| **r == Role::Key).count();
        let grouped = lineage.slot.roles.iter().filter(|r| **r == Role::Key).count();
        if keys < grouped {
            return Err(refuse("A column of GROUP BY is not among the result's columns."));
        }
        let stream = lineage.slot.definition.stream.clone();
        Ok(FillNode { input, stream, how: How { fill, window, roles, lateness, watermark: None } })
    }

    /// The same as of an instant.
    pub fn pinned(&self, watermark: Micros) -> FillNode {
        FillNode { how: How { watermark: Some(watermark), ..self.how.clone() }, ..self.clone() }
    }
}

impl UserDefinedLogicalNodeCore for FillNode {
    fn name(&self) -> &str {
        "Fill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    /// Which windows are missing is known only when all rows of a group are.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let fields = self.input.schema().fields().iter().zip(&self.how.roles);
        fields.filter(|(_, role)| **role != Role::Key).map(|(field, _)| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Fill: {:?}", self.how.fill)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        match inputs.pop() {
            Some(input) => Ok(FillNode { input, ..self.clone() }),
            None => internal_err!("Fill has one input"),
        }
    }
}

/// Plans [`FillNode`] for DataFusion's physical planner.
#[derive(Debug)]
pub struct FillPlanner;

impl datafusion::physical_planner::ExtensionPlanner for FillPlanner {
    plan_extension_at_once!();
}

impl FillPlanner {
    fn extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn datafusion::catalog::Session,
        _: &datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext,
    ) -> Extended {
        let Some(node) = node.as_any().downcast_ref::<FillNode>() else { return Ok(None) };
        Ok(Some(Arc::new(FillExec::new(Arc::clone(&inputs[0]), node.how.clone()))))
    }
}

#[derive(Debug)]
struct FillExec {
    input: Arc<dyn ExecutionPlan>,
    how: How,
    properties: Arc<PlanProperties>,
}

impl FillExec {
    fn new(input: Arc<dyn ExecutionPlan>, how: How) -> FillExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        FillExec { input, how, properties: Arc::new(properties) }
    }
}

impl DisplayAs for FillExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "FillExec: {:?}", self.how.fill)
    }
}

impl ExecutionPlan for FillExec {
    fn name(&self) -> &str {
        "FillExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
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

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(FillExec::new(input, self.how.clone()))),
            None => internal_err!("FillExec has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let (schema, how) = (self.schema(), self.how.clone());
        let size = context.session_config().batch_size().max(1);
        let output = Arc::clone(&schema);
        let stream = futures::stream::once(async move {
            let batches: Vec<RecordBatch> = input.try_collect().await?;
            let rows = concat_batches(&output, &batches)?;
            Filling::new(rows, how, size)
        });
        let stream = stream.flat_map(|filling| match filling {
            Ok(filling) => futures::stream::iter(filling).left_stream(),
            Err(err) => futures::stream::iter([Err(err)]).right_stream(),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// The result's rows, and then the missing ones.
struct Filling {
    rows: RecordBatch,
    how: How,
    /// After the end of a bounded stream: the last window with rows. No window after it is missing.
    last: Option<Micros>,
    size: usize,
    given: bool,
    /// Each group's windows (ids and rows, oldest first).
    groups: std::vec::IntoIter<Vec<(Micros, u32)>>,
    /// The group being filled: its windows, which of them comes next, and the next window to look at.
    current: Option<(Vec<(Micros, u32)>, usize, Micros)>,
}

impl Filling {
    fn new(rows: RecordBatch, how: How, size: usize) -> DfResult<Filling> {
        let keys: Vec<ArrayRef> = rows
            .columns()
            .iter()
            .zip(&how.roles)
            .filter(|(_, r)| **r == Role::Key)
            .map(|(c, _)| Arc::clone(c))
            .collect();
        let ids = how.ids(&rows)?;
        let mut groups: HashMap<Vec<u8>, Vec<(Micros, u32)>> = HashMap::new();
        let fields = keys.iter().map(|k| SortField::new(k.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let encoded = if keys.is_empty() { None } else { Some(converter.convert_columns(&keys)?) };
        for (row, id) in ids.iter().enumerate() {
            let Some(id) = id else { continue };
            let key = encoded.as_ref().map_or_else(Vec::new, |rows| rows.row(row).as_ref().to_vec());
            groups.entry(key).or_default().push((id, row as u32));
        }
        let last = if how.watermark == Some(FOREVER) { ids.iter().flatten().max() } else { None };
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.iter_mut().for_each(|windows| windows.sort_unstable());
        Ok(Filling { rows, how, last, size, given: false, groups: groups.into_iter(), current: None })
    }

    /// The next missing windows: their ids, and the row before each.
    fn missing(&mut self) -> Vec<(Micros, u32)> {
        let mut missing = Vec::new();
        while missing.len() < self.size {
            let Some((windows, at, next)) = &mut self.current else {
                let Some(windows) = self.groups.next() else { break };
                let first = windows[0].0;
                self.current = Some((windows, 0, first));
                continue;
            };
            while *at + 1 < windows.len() && windows[*at + 1].0 <= *next {
                *at += 1;
            }
            if !self.how.is_closed(*next) || self.last.is_some_and(|last| *next > last) {
                self.current = None;
                continue;
            }
            if windows[*at].0 != *next {
                missing.push((*next, windows[*at].1));
            }
            *next = self.how.window.next_id(*next);
        }
        missing
    }

    fn build(&self, missing: &[(Micros, u32)]) -> DfResult<RecordBatch> {
        let before = UInt32Array::from_iter_values(missing.iter().map(|(_, row)| *row));
        let bound = |which: fn((Micros, Micros)) -> Micros, data_type: &DataType| -> DfResult<ArrayRef> {
            let bounds = missing.iter().map(|(id, _)| self.how.window.bounds(*id).map(which));
            let column: ArrayRef = Arc::new(bounds.collect::<TimestampMicrosecondArray>().with_timezone(UTC));
            Ok(cast(&column, data_type)?)
        };
        let schema = self.rows.schema();
        let columns = self.rows.columns().iter().zip(&self.how.roles).map(|(column, role)| match role {
            Role::Start => bound(|b| b.0, column.data_type()),
            Role::End => bound(|b| b.1, column.data_type()),
            Role::Key => Ok(take(column, &before, None)?),
            Role::Value => match self.how.fill {
                Fill::Previous => Ok(take(column, &before, None)?),
                Fill::Zero if column.data_type().is_numeric() => {
                    Ok(ScalarValue::new_zero(column.data_type())?.to_array_of_size(missing.len())?)
                }
                Fill::Zero | Fill::Null => Ok(new_null_array(column.data_type(), missing.len())),
            },
        });
        Ok(RecordBatch::try_new(schema, columns.collect::<DfResult<Vec<_>>>()?)?)
    }
}

impl Iterator for Filling {
    type Item = DfResult<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.given {
            self.given = true;
            return Some(Ok(self.rows.clone()));
        }
        let missing = self.missing();
        (!missing.is_empty()).then(|| self.build(&missing))
    }
}

impl How {
    /// The id of each row's window.
    fn ids(&self, rows: &RecordBatch) -> DfResult<TimestampMicrosecondArray> {
        let find = |role: Role| self.roles.iter().position(|r| *r == role);
        let (column, of): (usize, fn(&Window, Micros) -> Micros) = match (find(Role::Start), find(Role::End)) {
            (_, Some(end)) if matches!(self.window, Window::Cumulate { .. }) => (end, |_, end| end),
            (Some(start), _) => (start, |_, start| start),
            (None, Some(end)) => (end, |window, end| window.id_of_end(end)),
            (None, None) => return internal_err!("checked when the view was made"),
        };
        let bounds = cast(rows.column(column), &timestamp_type())?;
        let bounds = bounds.as_primitive::<TimestampMicrosecondType>();
        Ok(bounds.iter().map(|bound| bound.map(|bound| of(&self.window, bound))).collect())
    }

    fn is_closed(&self, id: Micros) -> bool {
        let Some(watermark) = self.watermark else { return false };
        let end = self.window.bounds(id).map_or(Micros::MAX, |b| b.1);
        watermark == FOREVER || end <= watermark.saturating_sub(self.lateness)
    }
}
