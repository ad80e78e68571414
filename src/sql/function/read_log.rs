//! `FROM 'path/or/glob.log'` and `FROM read_log('path', format => 'combined')`: raw log files as a table, without a
//! server or a data dir.
//!
//! Files are parsed as they are scanned. Large plain files are cut into ranges so that all cores share them; compressed
//! ones are read whole. A file whose format is not given is detected from its first lines.

use std::fmt;
use std::fs::Metadata;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArgOperator, ObjectNamePart, TableFactor, Value,
};

use super::Spec;
use crate::batch::{Event, Input, Shape, fit};
use crate::error::{Error, Kind, Result};
use crate::format::{self, FORMATS, detect};
use crate::frame::{self, Frames, Framing, framing_option, newline};
use crate::opaque::{Scanned, scan_at_once};
use crate::options::{OptionSpec, Options, nearest};
use crate::registry;
use crate::source::file::{self, BoundedReader, expand};
use crate::sql::pattern_files;
use crate::sql::statement::create_stream::{AUTO, record_framing};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "read_log",
    syntax: "FROM 'path or glob' | read_log('path or glob' [, format => 'combined'] [, multiline_start => '…'] [, option => value …])",
    summary: "raw log files (also .gz and .zst) as a table; the format is detected from the first lines unless given",
};

/// Which framings files are read with: those of the connector `file`, whose options are known here too.
const FRAMING: &[OptionSpec] = &[framing_option(&["newline", "multiline", "nul"], "how records are told apart")];

/// Bytes read and parsed at once: some 4,000 lines, which stay in the cache.
const BLOCK_BYTES: usize = 1 << 20;

/// A range of a plain file that one task takes: small enough that cores finish together.
const RANGE_BYTES: u64 = 32 << 20;

/// Bytes scanned by all log tables of the process so far, and bytes there are to scan: for a progress bar.
pub static PROGRESS: Progress = Progress { done: AtomicU64::new(0), total: AtomicU64::new(0) };

/// See [`PROGRESS`].
pub struct Progress {
    pub done: AtomicU64,
    pub total: AtomicU64,
}

/// Plans `'path'` and `read_log(…)` in FROM.
#[derive(Debug)]
pub struct ReadLog;

impl RelationPlanner for ReadLog {
    fn plan_relation(&self, relation: TableFactor, _: &mut dyn RelationPlannerContext) -> DfResult<RelationPlanning> {
        let Some((path, options, alias)) = call(&relation)? else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let table = LogTable::open(&path, &options)?;
        let plan = LogicalPlanBuilder::scan("log", provider_as_source(Arc::new(table)), None)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

type Call = (String, Vec<(String, String)>, Option<sqlparser::ast::TableAlias>);

fn call(relation: &TableFactor) -> Result<Option<Call>> {
    let (name, args, alias) = match relation {
        TableFactor::Table { name, args, alias, .. } => (name, args.as_ref().map(|a| &a.args), alias),
        TableFactor::Function { name, args, alias, .. } => (name, Some(args), alias),
        _ => return Ok(None),
    };
    let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return Ok(None) };
    let Some(args) = args else {
        let path = (ident.quote_style == Some('\'')).then(|| ident.value.clone());
        return Ok(path.map(|p| (p, Vec::new(), alias.clone())));
    };
    if !ident.value.eq_ignore_ascii_case(SPEC.name) {
        return Ok(None);
    }
    let wrong = |arg: &dyn fmt::Display| {
        Error::new(Kind::Syntax, format!("read_log does not understand {arg}"))
            .with_hint(format!("The form is: {}.", SPEC.syntax))
    };
    let text = |expr: &FunctionArgExpr| match expr {
        FunctionArgExpr::Expr(SqlExpr::Value(value)) => match &value.value {
            Value::Number(text, _) => Some(text.clone()),
            Value::Boolean(on) => Some(on.to_string()),
            other => other.clone().into_string(),
        },
        _ => None,
    };
    let (mut path, mut options) = (None, Vec::new());
    for arg in args {
        match arg {
            FunctionArg::Unnamed(value) if path.is_none() => path = Some(text(value).ok_or_else(|| wrong(arg))?),
            FunctionArg::Named {
                name,
                arg: value,
                operator:
                    FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment | FunctionArgOperator::Equals,
            } => {
                options.push((name.value.to_lowercase(), text(value).ok_or_else(|| wrong(arg))?));
            }
            // PostgreSQL's grammar allows any expression as a name.
            FunctionArg::ExprNamed { name: SqlExpr::Identifier(name), arg: value, .. } => {
                options.push((name.value.to_lowercase(), text(value).ok_or_else(|| wrong(arg))?));
            }
            other => return Err(wrong(other)),
        }
    }
    let path = path.ok_or_else(|| Error::new(Kind::Syntax, "read_log needs a path").with_hint(SPEC.syntax))?;
    Ok(Some((path, options, alias.clone())))
}

/// Files as a table.
struct LogTable {
    files: Vec<PathBuf>,
    framing: Arc<Framing>,
    shape: Arc<Shape>,
    schema: SchemaRef,
    format: String,
}

impl fmt::Debug for LogTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogTable({:?})", self.files)
    }
}

impl LogTable {
    /// `options`: `format`, the format's own and those of the framing.
    fn open(path: &str, options: &[(String, String)]) -> Result<LogTable> {
        let files = expand(path)?;
        if files.is_empty() {
            return Err(Error::new(Kind::UndefinedFile, format!("no file matches \"{path}\"")));
        }
        let format = options.iter().find(|(name, _)| name == "format").map(|(_, value)| value.clone());
        let format = format.filter(|name| !name.eq_ignore_ascii_case(AUTO));
        let own = match &format {
            Some(name) => registry::find(FORMATS, "format", name)?.options,
            None => &[],
        };
        let others = options.iter().filter(|(name, _)| name != "format").cloned();
        let (mut framing, given): (Vec<_>, Vec<_>) = others.partition(|(name, _)| is_of_framing(name, own));
        let framed = |given: &[(String, String)]| -> Result<Framing> {
            Framing::from(&Options::parse("read_log", &[FRAMING, frame::OPTIONS], given)?, newline::SPEC.name)
        };
        let (mut first, modified) = first_lines(&files, &framed(&framing)?)?;
        let name = match format {
            Some(name) => name,
            None => detect::detect(&first)
                .map_err(|err| {
                    let names = FORMATS.iter().map(|f| f.name);
                    let hint = format!(
                        "Say it: read_log('{path}', format => '…') with one of: {}.",
                        crate::options::list(names)
                    );
                    Error::new(err.kind(), err.message()).with_hint(hint)
                })?
                .format
                .to_string(),
        };
        let given = pattern_files::inlined(&name, given)?;
        let format = format::build(&name, &given, &[])?;
        if let Some((option, start)) = record_framing(file::SPEC.name, &framing, &*format)? {
            framing.push((option.to_string(), start));
            first = first_lines(&files, &framed(&framing)?)?.0;
        }
        let framing = Arc::new(framed(&framing)?);
        let shape = Arc::new(Shape::new(format, Vec::new(), None)?);
        // A format that learns its columns learns them from the first lines; what comes later shows in a stream only.
        shape.format.parse(&first, modified);
        let schema = shape.schema();
        Ok(LogTable { files, framing, shape, schema, format: name })
    }

    /// What each partition reads, balanced by bytes.
    fn tasks(&self, partitions: usize) -> Result<Vec<Vec<Task>>> {
        let mut tasks = Vec::new();
        for path in &self.files {
            let metadata = metadata(path)?;
            let (bytes, modified) = (metadata.len(), modified(&metadata));
            PROGRESS.total.fetch_add(bytes, Ordering::Relaxed);
            let compressed = path.extension().is_some_and(|e| e == "gz" || e == "zst");
            if compressed || bytes <= RANGE_BYTES || self.shape.format.needs_order() {
                tasks.push(Task { path: path.clone(), bytes, modified, range: None });
                continue;
            }
            let mut start = 0;
            while start < bytes {
                let end = (start + RANGE_BYTES).min(bytes);
                tasks.push(Task { path: path.clone(), bytes: end - start, modified, range: Some(start..end) });
                start = end;
            }
        }
        tasks.sort_by_key(|t| std::cmp::Reverse(t.bytes));
        let mut shares: Vec<(u64, Vec<Task>)> = (0..partitions.min(tasks.len()).max(1)).map(|_| (0, vec![])).collect();
        for task in tasks {
            let lightest = shares.iter_mut().min_by_key(|s| s.0).expect("there is at least one share");
            lightest.0 += task.bytes;
            lightest.1.push(task);
        }
        Ok(shares.into_iter().map(|(_, tasks)| tasks).collect())
    }
}

/// Whether an option is one of the framing, by its name or by what was probably meant.
fn is_of_framing(name: &str, of_format: &[OptionSpec]) -> bool {
    let framing = || FRAMING.iter().chain(frame::OPTIONS).map(|option| option.name);
    let meant = nearest(name, of_format.iter().map(|option| option.name).chain(framing()));
    meant.is_some_and(|meant| framing().any(|name| name == meant))
}

/// The first lines there are, and when their file was written.
fn first_lines(files: &[PathBuf], framing: &Framing) -> Result<(Frames, Micros)> {
    for path in files {
        if let Some(block) = BoundedReader::open(path, framing, BLOCK_BYTES)?.next() {
            return Ok((block?.0, modified(&metadata(path)?)));
        }
    }
    Ok((Frames::default(), 0))
}

fn metadata(path: &Path) -> Result<Metadata> {
    std::fs::metadata(path).map_err(|e| Error::io("read", path, &e))
}

/// When a file was last written. Its lines are read as if they had come then: a time without a year is of a year before
/// it, however old the file is when somebody asks.
fn modified(metadata: &Metadata) -> Micros {
    let since = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_micros() as Micros)
}

#[derive(Debug, Clone)]
struct Task {
    path: PathBuf,
    bytes: u64,
    modified: Micros,
    /// `None`: the whole file.
    range: Option<Range<u64>>,
}

impl TableProvider for LogTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    scan_at_once!(LogTable);
}

impl LogTable {
    fn plan_scan(&self, state: &dyn Session, projection: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Scanned {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let tasks = self.tasks(state.config().target_partitions())?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(tasks.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(LogScan {
            framing: Arc::clone(&self.framing),
            shape: Arc::clone(&self.shape),
            tasks,
            format: self.format.clone(),
            properties: Arc::new(properties),
        }))
    }
}

/// Reads and parses files.
struct LogScan {
    framing: Arc<Framing>,
    shape: Arc<Shape>,
    tasks: Vec<Vec<Task>>,
    format: String,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for LogScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogScan({:?})", self.tasks)
    }
}

impl DisplayAs for LogScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let pieces: usize = self.tasks.iter().map(Vec::len).sum();
        write!(f, "LogScan: format={}, pieces={pieces}", self.format)
    }
}

impl ExecutionPlan for LogScan {
    fn name(&self) -> &str {
        "LogScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let schema = self.schema();
        let (framing, shape, wanted) = (Arc::clone(&self.framing), Arc::clone(&self.shape), Arc::clone(&schema));
        let blocks = self.tasks[partition].clone().into_iter().flat_map(move |task| {
            let reader = match &task.range {
                Some(range) => BoundedReader::open_range(&task.path, range.clone(), &framing, BLOCK_BYTES),
                None => BoundedReader::open(&task.path, &framing, BLOCK_BYTES),
            };
            let (reader, failed) = match reader {
                Ok(reader) => (Some(reader), None),
                Err(err) => (None, Some(Err(err))),
            };
            reader.into_iter().flatten().chain(failed).map(move |block| (block, task.modified))
        });
        let batches = blocks.map(move |(block, modified)| -> DfResult<RecordBatch> {
            let (frames, position) = block?;
            PROGRESS.done.fetch_add(position.end - position.start, Ordering::Relaxed);
            // Bytes do as the number of the first frame: it grows.
            let base = position.start;
            let batch = shape.rows(&Input { base, ingest_time: modified, position, frames, event: Event::Frames })?;
            Ok(fit(&batch.rows, &wanted)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches))))
    }
}
