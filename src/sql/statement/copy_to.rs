//! `COPY (query) TO 'path'`: a result as files on the server or on S3, in PostgreSQL's spelling or DataFusion's.
//!
//! DataFusion's own writers do the work, so memory is bounded as for any query, and a cancelled statement stops writing.
//! On this machine files are first written into a hidden directory beside the target and moved when all are there: a
//! reader never sees half a result, and a failure leaves nothing behind. S3 shows an object when it is complete, but those
//! of a failed statement that were complete stay.
//!
//! Whoever may connect may write wherever the server may. When there are users, this is a right of its own, as
//! `pg_write_server_files` is in PostgreSQL.

mod partitions;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, UInt64Type};
use datafusion::datasource::file_format::csv::CsvFormatFactory;
use datafusion::datasource::file_format::json::JsonFormatFactory;
use datafusion::datasource::file_format::parquet::ParquetFormatFactory;
use datafusion::datasource::file_format::{FileFormatFactory, format_as_file_type};
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use futures::StreamExt;
use futures::future::BoxFuture;
use object_store::{ObjectMeta, ObjectStoreExt};
use sqlparser::ast::{Ident, Statement as Ast};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{Statement, folded, option_value, parse as parse_text, syntax, words};
use crate::sql::{Outcome, Planned, Session};
use crate::storage::external::{NULL, Place, failed};

pub static SPEC: Spec = Spec {
    name: "COPY … TO 'path'",
    syntax: "COPY (query) | relation [(column, …)] TO 'path or s3://bucket/prefix' [STORED AS PARQUET | CSV | JSON] [PARTITIONED BY (column, …)] [WITH (FORMAT parquet | csv | json, HEADER, DELIMITER 'c', NULL 's', COMPRESSION 'c', APPEND | OVERWRITE)]",
    summary: "writes a result to files on the server: one file if the path has an extension, else a directory, with PARTITIONED BY one as column=value for each value. Without APPEND or OVERWRITE the target has to be empty",
    parse,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Parquet,
    Csv,
    Json,
}

/// The formats by their names and by the extensions of files.
const FORMATS: [(&str, Format); 5] = [
    ("parquet", Format::Parquet),
    ("csv", Format::Csv),
    ("json", Format::Json),
    ("ndjson", Format::Json),
    ("jsonl", Format::Json),
];

/// The names of options, for "did you mean".
const OPTIONS: [&str; 9] =
    ["format", "header", "delimiter", "null", "quote", "escape", "compression", "append", "overwrite"];

/// What becomes of files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Refuse,
    Append,
    Overwrite,
}

/// How files are written.
#[derive(Debug, Clone)]
struct Form {
    format: Format,
    /// Of the format, in DataFusion's words.
    options: HashMap<String, String>,
}

#[derive(Debug)]
struct CopyTo {
    query: String,
    target: String,
    form: Form,
    partition_by: Vec<String>,
    existing: Existing,
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["COPY"]) {
        return Ok(None);
    }
    let query = if parser.peek_token_ref().token == Token::LParen {
        parser.next_token();
        if words(parser, &["SUBSCRIBE"]) {
            return Ok(None); // has no end, so only STDOUT can take it
        }
        let query = parser.parse_query().map_err(|e| syntax(&e))?;
        parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
        query.to_string()
    } else {
        let name = parser.parse_object_name(false).map_err(|e| syntax(&e))?;
        let columns = if parser.peek_token_ref().token == Token::LParen { identifiers(parser)? } else { Vec::new() };
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        format!("SELECT {} FROM {name}", if columns.is_empty() { "*".into() } else { columns.join(", ") })
    };
    if !words(parser, &["TO"]) {
        return Ok(None);
    }
    let Token::SingleQuotedString(target) = parser.peek_token_ref().token.clone() else { return Ok(None) };
    parser.next_token();
    if target.is_empty() {
        return Err(Error::new(Kind::InvalidParameter, "COPY needs the path of a file or directory"));
    }
    let (mut stored_as, mut partition_by, mut given) = (None, Vec::new(), Vec::new());
    loop {
        if words(parser, &["STORED", "AS"]) {
            stored_as = Some(format_named(&parser.parse_identifier().map_err(|e| syntax(&e))?.value)?);
        } else if words(parser, &["PARTITIONED", "BY"]) {
            partition_by = identifiers(parser)?.iter().map(folded).collect();
        } else if words(parser, &["WITH"])
            || words(parser, &["OPTIONS"])
            || parser.peek_token_ref().token == Token::LParen
        {
            given.extend(options(parser)?);
        } else {
            break;
        }
    }
    Ok(Some(Arc::new(statement(query, target, stored_as, partition_by, &given)?)))
}

/// `(a, b)`.
fn identifiers(parser: &mut Parser<'_>) -> Result<Vec<Ident>> {
    parser.parse_parenthesized_column_list(sqlparser::parser::IsOptional::Mandatory, false).map_err(|e| syntax(&e))
}

/// `(FORMAT csv, HEADER, NULL '-')`, also with equals signs.
fn options(parser: &mut Parser<'_>) -> Result<Vec<(String, String)>> {
    let mut options = Vec::new();
    parser.expect_token(&Token::LParen).map_err(|e| syntax(&e))?;
    loop {
        let name = parser.parse_identifier().map_err(|e| syntax(&e))?.value.to_lowercase();
        let _equals = parser.consume_token(&Token::Eq);
        let bare = matches!(parser.peek_token_ref().token, Token::Comma | Token::RParen);
        let value = if bare { "true".to_string() } else { option_value(parser)? };
        options.push((name, value));
        if !parser.consume_token(&Token::Comma) {
            parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
            return Ok(options);
        }
    }
}

fn format_named(name: &str) -> Result<Format> {
    let wanted = name.to_lowercase();
    let found = FORMATS.iter().find(|(known, _)| *known == wanted).map(|(_, format)| *format);
    found.ok_or_else(|| {
        crate::options::unknown("COPY format", name, FORMATS.iter().map(|(name, _)| *name))
            .with_detail("Files are written as parquet, csv and json.")
    })
}

fn statement(
    query: String,
    target: String,
    stored_as: Option<Format>,
    partition_by: Vec<String>,
    given: &[(String, String)],
) -> Result<CopyTo> {
    let mut format = stored_as;
    for (name, value) in given.iter().filter(|(name, _)| name == "format") {
        if format.replace(format_named(value)?).is_some() {
            return Err(Error::new(Kind::Syntax, format!("the format is given twice: {name} {value}")));
        }
    }
    let by_name = || FORMATS.iter().find(|(name, _)| has_extension(&target, name)).map(|(_, format)| *format);
    let format = format.or_else(by_name).unwrap_or(Format::Parquet);
    let mut options = HashMap::new();
    if format == Format::Csv {
        // As each tongue has it: PostgreSQL's COPY writes a header when asked to, STORED AS CSV expects one.
        options.insert("format.has_header".to_string(), stored_as.is_some().to_string());
    }
    let mut existing = Existing::Refuse;
    for (name, value) in given {
        let on = || match value.to_lowercase().as_str() {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(Error::new(Kind::InvalidParameter, format!("{name} is true or false, not {value:?}"))),
        };
        match (name.as_str(), format) {
            ("format", _) => {}
            ("append", _) if !on()? => {}
            ("overwrite", _) if !on()? => {}
            ("append", _) if existing == Existing::Refuse => existing = Existing::Append,
            ("overwrite", _) if existing == Existing::Refuse => existing = Existing::Overwrite,
            ("append" | "overwrite", _) => {
                return Err(Error::new(Kind::InvalidParameter, "APPEND and OVERWRITE exclude each other"));
            }
            ("header", Format::Csv) => drop(options.insert("format.has_header".into(), on()?.to_string())),
            ("null", Format::Csv) => drop(options.insert("format.null_value".into(), value.clone())),
            ("delimiter" | "quote" | "escape", Format::Csv) => {
                drop(options.insert(format!("format.{name}"), value.clone()))
            }
            ("compression", format) => drop(options.insert("format.compression".into(), compression(format, value)?)),
            (known, _) if OPTIONS.contains(&known) => {
                return Err(Error::new(Kind::InvalidParameter, format!("COPY option {known} is for csv only")));
            }
            _ => return Err(crate::options::unknown("COPY option", name, OPTIONS)),
        }
    }
    Ok(CopyTo { query, target, form: Form { format, options }, partition_by, existing })
}

fn compression(format: Format, name: &str) -> Result<String> {
    let name = name.to_lowercase();
    Ok(match (format, name.as_str()) {
        (Format::Parquet, "none") => "uncompressed".into(),
        (Format::Parquet, "zstd") => "zstd(3)".into(),
        (Format::Parquet, "gzip") => "gzip(6)".into(),
        (Format::Parquet, "uncompressed" | "snappy" | "lz4" | "lz4_raw") => name,
        (Format::Csv | Format::Json, "none") => "uncompressed".into(),
        (Format::Csv | Format::Json, "gzip" | "zstd" | "uncompressed") => name,
        (Format::Parquet, _) => {
            let known = ["zstd", "snappy", "gzip", "lz4", "none"];
            return Err(crate::options::unknown("compression of Parquet", &name, known));
        }
        (Format::Csv | Format::Json, _) => {
            return Err(crate::options::unknown("compression of text", &name, ["gzip", "zstd", "none"]));
        }
    })
}

fn has_extension(target: &str, extension: &str) -> bool {
    Path::new(target).extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

impl Command for CopyTo {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl CopyTo {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let plan = self.plan(session).await?;
        let place = Place::open(&self.target, session.context().state().runtime_env())?;
        let directory =
            place.is_directory() || !self.partition_by.is_empty() || Path::new(&self.target).extension().is_none();
        if !directory && self.existing == Existing::Append {
            return Err(Error::new(Kind::NotSupported, "COPY cannot append to a file")
                .with_hint("Name a directory: each COPY with APPEND adds files to it."));
        }
        let rows = match place.local() {
            Some(path) => self.to_disk(session, plan, path, directory).await?,
            None => self.to_store(session, plan, &place, directory).await?,
        };
        Ok(Outcome::Done { tag: "COPY".into(), rows: Some(rows), notices: Vec::new() })
    }
}

impl CopyTo {
    /// The query, with the names that its columns have in the files.
    async fn plan(&self, session: &Session) -> Result<LogicalPlan> {
        let statement = parse_text(&self.query)?.pop();
        let statement = statement.ok_or_else(|| Error::new(Kind::Syntax, "COPY needs a query"))?;
        let Statement::Sql(ast) = &statement else {
            return Err(Error::new(Kind::Syntax, "COPY needs a query"));
        };
        if !matches!(&**ast, Ast::Query(_)) {
            return Err(Error::new(Kind::Syntax, "COPY needs a query"));
        }
        let Planned::Query { plan, fields, .. } = session.plan(&statement).await? else {
            return Err(Error::internal("a query has a plan"));
        };
        let mut seen = BTreeSet::new();
        if let Some(twice) = fields.fields().iter().find(|f| !seen.insert(f.name().as_str())) {
            return Err(Error::new(Kind::DuplicateObject, format!("column \"{}\" exists twice", twice.name()))
                .with_hint("Give it another name with AS."));
        }
        if let Some(missing) = self.partition_by.iter().find(|name| !seen.contains(name.as_str())) {
            let err = Error::new(Kind::UndefinedColumn, format!("column \"{missing}\" does not exist"));
            return Err(match crate::options::nearest(missing, seen.iter().copied()) {
                Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
                None => err,
            });
        }
        if seen.len() == self.partition_by.len() {
            return Err(Error::new(Kind::InvalidParameter, "no column is left to be written into the files")
                .with_hint("Partitions are in the names of directories; leave one column out of PARTITIONED BY."));
        }
        let interval = fields.fields().iter().find(|f| matches!(f.data_type(), DataType::Interval(_)));
        if let (Format::Parquet, Some(interval)) = (self.form.format, interval) {
            return Err(Error::new(
                Kind::Datatype,
                format!("Parquet cannot hold the interval \"{}\"", interval.name()),
            )
            .with_hint("Cast it to text, or write its seconds: extract(epoch FROM …)."));
        }
        let columns = plan.schema().columns().into_iter().zip(fields.fields()).map(|(column, field)| {
            let column = Expr::Column(column);
            let column = match self.partition_by.contains(field.name()) {
                // DataFusion's writer would take NULL for 0.
                true => coalesce(vec![cast(column, DataType::Utf8), lit(NULL)]),
                false => column,
            };
            column.alias(field.name())
        });
        let columns: Vec<Expr> = columns.collect();
        Ok(LogicalPlanBuilder::from(LogicalPlan::clone(&plan)).project(columns)?.build()?)
    }

    /// Writes to `url`; gives the number of rows.
    async fn write(&self, session: &Session, plan: LogicalPlan, url: &url::Url, directory: bool) -> Result<usize> {
        let engine = session.engine();
        if self.partition_by.is_empty() {
            return write_files(engine, &self.form, plan, url.as_str(), directory).await;
        }
        partitions::write(engine, &self.form, plan, &self.partition_by, url).await
    }

    async fn to_disk(&self, session: &Session, plan: LogicalPlan, path: PathBuf, directory: bool) -> Result<usize> {
        session.engine().check_not_inside(&path)?;
        let (target, existing, extension) = (path.clone(), self.existing, self.form.extension());
        let (stage, old) = blocking(move || stage(&target, directory, existing, extension)).await?;
        let url = match directory {
            true => url::Url::from_directory_path(stage.path()),
            false => url::Url::from_file_path(stage.path().join(path.file_name().unwrap_or_default())),
        };
        let url = url.map_err(|()| Error::internal("a staging directory has a URL"))?;
        let rows = self.write(session, plan, &url, directory).await?;
        blocking(move || {
            // Dropped at the end, with what is left in it.
            let stage = stage;
            let target = if directory { path.as_path() } else { path.parent().unwrap_or(Path::new("/")) };
            move_into(stage.path(), target)?;
            for old in old {
                std::fs::remove_file(&old).map_err(|err| Error::io("remove", &old, &err))?;
            }
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    async fn to_store(&self, session: &Session, plan: LogicalPlan, place: &Place, directory: bool) -> Result<usize> {
        let old = match place.files("").await {
            Ok(files) => files,
            Err(err) if err.kind() == Kind::UndefinedFile => Vec::new(),
            Err(err) => return Err(err),
        };
        if self.existing == Existing::Refuse && !old.is_empty() {
            return Err(exists(&self.target, directory));
        }
        let mut url = place.url.clone();
        if directory && !url.path().ends_with('/') {
            url.set_path(&format!("{}/", place.url.path()));
        }
        let rows = self.write(session, plan, &url, directory).await?;
        if self.existing == Existing::Overwrite && directory {
            let extension = self.form.extension();
            let goes = |file: &&ObjectMeta| is_of(extension, file.location.as_ref().as_bytes());
            for file in old.iter().filter(goes) {
                place.store.delete(&file.location).await.map_err(|err| failed("remove", &self.target, &err))?;
            }
        }
        Ok(rows)
    }
}

impl Form {
    fn extension(&self) -> &'static str {
        match self.format {
            Format::Parquet => ".parquet",
            Format::Csv => ".csv",
            Format::Json => ".json",
        }
    }
}

/// Writes the rows of `plan` by DataFusion's own writers: into one file, or as many as it likes in a directory. Gives the
/// number of rows.
async fn write_files(engine: &Engine, form: &Form, plan: LogicalPlan, url: &str, directory: bool) -> Result<usize> {
    let factory: Arc<dyn FileFormatFactory> = match form.format {
        Format::Parquet => Arc::new(ParquetFormatFactory::new()),
        Format::Csv => Arc::new(CsvFormatFactory::new()),
        Format::Json => Arc::new(JsonFormatFactory::new()),
    };
    let mut options = form.options.clone();
    options.insert("single_file_output".into(), (!directory).to_string());
    let file_type = format_as_file_type(factory);
    let copy = LogicalPlanBuilder::copy_to(plan, url.to_string(), file_type, options, Vec::new())?.build()?;
    let mut counts = engine.run(copy).await?;
    let mut rows = 0;
    while let Some(batch) = counts.next().await {
        let batch = batch?;
        let counts = batch.column_by_name("count").and_then(|c| c.as_primitive_opt::<UInt64Type>());
        rows += counts.map_or(0, |counts| counts.values().iter().sum::<u64>());
    }
    Ok(usize::try_from(rows).unwrap_or(usize::MAX))
}

/// Runs work on files where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|err| Err(Error::internal(err.to_string())))
}

/// Makes the directory into which files are written first, and tells which files give way to them.
fn stage(
    target: &Path,
    directory: bool,
    existing: Existing,
    extension: &str,
) -> Result<(tempfile::TempDir, Vec<PathBuf>)> {
    let mut old = Vec::new();
    let parent = if directory {
        std::fs::create_dir_all(target).map_err(|err| Error::io("create the directory", target, &err))?;
        files_below(target, &mut old)?;
        target
    } else {
        if target.exists() {
            old.push(target.to_path_buf());
        }
        target.parent().unwrap_or(Path::new("/"))
    };
    if existing == Existing::Refuse && !old.is_empty() {
        return Err(exists(target.display().to_string().trim_end_matches('/'), directory));
    }
    // A file is replaced by moving the new one onto it. In a directory, what is not of our kind is not ours to remove.
    let replaced = existing == Existing::Overwrite && directory;
    old.retain(|path| replaced && is_of(extension, path.as_os_str().as_encoded_bytes()));
    let made = tempfile::Builder::new().prefix(".copy-").tempdir_in(parent);
    Ok((made.map_err(|err| Error::io("write into", parent, &err))?, old))
}

/// Whether a name is that of a file as COPY writes them, perhaps compressed.
fn is_of(extension: &str, name: &[u8]) -> bool {
    let compressed = [".gz", ".zst"].iter().find_map(|packed| name.strip_suffix(packed.as_bytes()));
    compressed.unwrap_or(name).ends_with(extension.as_bytes())
}

/// The files in a directory, but for hidden ones: another COPY may be at work.
fn files_below(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |err: std::io::Error| Error::io("list", directory, &err);
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match entry.file_type().map_err(failed)?.is_dir() {
            true => files_below(&entry.path(), found)?,
            false => found.push(entry.path()),
        }
    }
    Ok(())
}

fn move_into(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|err| Error::io("create the directory", to, &err))?;
    let failed = |err: std::io::Error| Error::io("list", from, &err);
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        match entry.file_type().map_err(failed)?.is_dir() {
            true => move_into(&entry.path(), &target)?,
            false => std::fs::rename(entry.path(), &target).map_err(|err| Error::io("write", &target, &err))?,
        }
    }
    Ok(())
}

fn exists(target: &str, directory: bool) -> Error {
    match directory {
        true => Error::new(Kind::DuplicateFile, format!("directory {target:?} is not empty")).with_hint(
            "WITH (APPEND) adds files to those that are there, WITH (OVERWRITE) puts the new ones in their place.",
        ),
        false => Error::new(Kind::DuplicateFile, format!("file {target:?} exists"))
            .with_hint("WITH (OVERWRITE) replaces it."),
    }
}
