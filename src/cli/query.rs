//! `logweir query`: one query over raw log files, without a server.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::{Args, ValueEnum};
use datafusion::common::ParamValues;
use futures::StreamExt;

use super::start_logging;
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::sql::function::read_log::PROGRESS;
use crate::sql::{self, Outcome, Session, no_client};
use crate::task::Compute;
use crate::time::Clock;

/// Below this a progress bar would only flicker.
const BAR_FROM_BYTES: u64 = 64 << 20;

/// Run one SQL query over log files and print the result.
///
/// FROM 'path/or/glob.log' names raw log files (also .gz and .zst); their format is detected from the first lines, or
/// given: FROM read_log('access.log', format => 'combined'). For example:
///
///   logweir query "SELECT status, count(*) FROM 'access.log' GROUP BY 1 ORDER BY 2 DESC"
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct QueryArgs {
    /// The query
    #[arg(value_name = "SQL")]
    pub sql: String,

    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub format: Output,

    /// Memory that the query may use before it spills to disk
    #[arg(long, value_name = "SIZE", default_value = "1 GiB", value_parser = config::size, env = "LOGWEIR_QUERY_MEMORY")]
    pub query_memory: u64,
}

/// Forms of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns for reading
    Table,
    /// Comma-separated values with a header line (RFC 4180)
    Csv,
    /// One JSON object per line
    Json,
}

pub fn run(args: QueryArgs) -> Result<()> {
    start_logging("warn");
    let compute = Compute::new()?;
    let runtime = super::io_runtime()?;
    runtime.block_on(async {
        let bar = (std::io::stderr().is_terminal()).then(|| tokio::spawn(show_progress()));
        let (sql_text, format, memory) = (args.sql, args.format, args.query_memory);
        let done = compute.spawn(async move { query(&sql_text, format, memory).await }).await?;
        if let Some(bar) = bar {
            bar.abort();
            let _ = bar.await;
        }
        done
    })
}

async fn query(text: &str, format: Output, query_memory: u64) -> Result<()> {
    let config = Config { data_dir: None, query_memory, memory_per_query: query_memory, ..Config::default() };
    let session = Session::new(sql::open(config, Clock::system()).await?);
    let statements = session.parse(text)?;
    if statements.is_empty() {
        return Err(Error::new(Kind::Syntax, "there is no query in the text"));
    }
    let mut out = std::io::BufWriter::new(std::io::stdout());
    for statement in statements {
        let planned = session.plan(&statement).await?;
        let outcome = match session.execute(&planned, ParamValues::List(vec![])).await? {
            Outcome::NoticedRows(rows, notices) => {
                notices.iter().for_each(|n| eprintln!("NOTICE:  {n}"));
                Outcome::Rows(rows)
            }
            other => other,
        };
        match outcome {
            Outcome::Rows(mut rows) | Outcome::NoticedRows(mut rows, _) => {
                let fields = planned.fields().unwrap_or_else(|| rows.schema());
                let mut printer = Printer::new(format, fields);
                while let Some(batch) = rows.next().await {
                    if !written(printer.batch(&batch?, &mut out))? {
                        return Ok(());
                    }
                }
                if !written(printer.end(&mut out))? {
                    return Ok(());
                }
            }
            Outcome::CopyOut(..) => {
                return Err(
                    Error::new(Kind::NotSupported, "COPY needs a Postgres client").with_hint("Use --format csv.")
                );
            }
            Outcome::CopyIn(_) => return Err(no_client()),
            Outcome::Done { notices, .. } => notices.iter().for_each(|n| eprintln!("NOTICE:  {n}")),
            Outcome::Empty => {}
        }
    }
    written(out.flush().map_err(Into::into)).map(|_| ())
}

/// Whether output goes on: a closed pipe (`| head`) ends it quietly.
fn written(result: Result<(), Failed>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Failed::Io(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(Failed::Io(e)) => Err(Error::new(Kind::Io, format!("could not write the result: {e}"))),
        Err(Failed::Data(e)) => Err(e),
    }
}

enum Failed {
    Io(std::io::Error),
    Data(Error),
}

impl From<std::io::Error> for Failed {
    fn from(err: std::io::Error) -> Failed {
        Failed::Io(err)
    }
}

impl From<Error> for Failed {
    fn from(err: Error) -> Failed {
        Failed::Data(err)
    }
}

/// Prints batches. Tables are aligned over all rows up to a limit, then over the widths seen.
struct Printer {
    format: Output,
    fields: SchemaRef,
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
    rows: usize,
    header_written: bool,
}

/// Rows that are held back to find the columns' widths.
const ALIGNED_ROWS: usize = 10_000;

impl Printer {
    fn new(format: Output, fields: SchemaRef) -> Printer {
        Printer { format, fields, waiting: Vec::new(), widths: None, rows: 0, header_written: false }
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut impl Write) -> Result<(), Failed> {
        let batch = RecordBatch::try_new(Arc::clone(&self.fields), batch.columns().to_vec()).map_err(Error::from)?;
        self.rows += batch.num_rows();
        match self.format {
            Output::Csv => {
                let header = !std::mem::replace(&mut self.header_written, true);
                let mut text = Vec::new();
                let mut writer = arrow::csv::WriterBuilder::new().with_header(header).build(&mut text);
                writer.write(&batch).map_err(Error::from)?;
                drop(writer);
                out.write_all(&text)?;
            }
            Output::Json => {
                let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
                writer.write(&batch).map_err(Error::from)?;
                writer.finish().map_err(Error::from)?;
                out.write_all(&writer.into_inner())?;
            }
            Output::Table => {
                let options = FormatOptions::default().with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"));
                let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
                let columns = columns.collect::<Result<Vec<_>, _>>().map_err(Error::from)?;
                for row in 0..batch.num_rows() {
                    let cells = columns.iter().map(|c| c.value(row).to_string());
                    self.waiting.push(cells.collect());
                }
                if self.waiting.len() >= ALIGNED_ROWS {
                    self.print_waiting(out)?;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut impl Write) -> Result<(), Failed> {
        match self.format {
            Output::Table => {
                self.print_waiting(out)?;
                writeln!(out, "({} row{})", self.rows, if self.rows == 1 { "" } else { "s" })?;
            }
            Output::Csv if !self.header_written => {
                let names: Vec<&str> = self.fields.fields().iter().map(|f| f.name().as_str()).collect();
                writeln!(out, "{}", names.join(","))?;
            }
            Output::Csv | Output::Json => {}
        }
        Ok(())
    }

    fn print_waiting(&mut self, out: &mut impl Write) -> Result<(), Failed> {
        let names: Vec<String> = self.fields.fields().iter().map(|f| f.name().clone()).collect();
        let first = self.widths.is_none();
        let widths = self.widths.get_or_insert_with(|| names.iter().map(|n| n.chars().count()).collect());
        for row in &self.waiting {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let numeric: Vec<bool> = self.fields.fields().iter().map(|f| f.data_type().is_numeric()).collect();
        let line = |cells: &[String]| -> String {
            let padded = cells.iter().zip(widths.iter()).zip(&numeric).map(|((cell, width), numeric)| {
                if *numeric { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            padded.collect::<Vec<_>>().join(" | ").trim_end().to_string()
        };
        if first {
            writeln!(out, "{}", line(&names))?;
            let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
            writeln!(out, "{}", rule.join("-+-"))?;
        }
        for row in self.waiting.drain(..) {
            writeln!(out, "{}", line(&row))?;
        }
        Ok(())
    }
}

/// Draws a bar on stderr once it is known that there is much to read.
async fn show_progress() {
    use indicatif::{ProgressBar, ProgressStyle};
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
    let mut bar: Option<ProgressBar> = None;
    loop {
        tick.tick().await;
        let (done, total) = (PROGRESS.done.load(Ordering::Relaxed), PROGRESS.total.load(Ordering::Relaxed));
        if total < BAR_FROM_BYTES {
            continue;
        }
        let bar = bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
            ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        bar.set_length(total);
        bar.set_position(done.min(total));
        if done >= total {
            bar.finish_and_clear();
        }
    }
}
