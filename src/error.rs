//! The one error type. It carries what a user needs (message, detail, hint) and what a program needs (a kind, which
//! is also the SQLSTATE). Every layer returns it; the Postgres door and the command line print it.
//!
//! Convention: the message is lowercase without a full stop; detail and hint are sentences.

use std::fmt;

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the terms of PostgreSQL's error codes (PostgreSQL manual, appendix A).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Syntax,
    UndefinedTable,
    UndefinedColumn,
    UndefinedFunction,
    UndefinedObject,
    UndefinedStatement,
    UndefinedFile,
    UndefinedDatabase,
    UndefinedSchema,
    DuplicateFile,
    DuplicateTable,
    DuplicateObject,
    DuplicateDatabase,
    AmbiguousColumn,
    DuplicateColumn,
    GeneratedAlways,
    InvalidDefinition,
    WrongObjectType,
    DependentObjects,
    InvalidParameter,
    InvalidText,
    /// Bytes that are no UTF-8.
    InvalidEncoding,
    OutOfRange,
    /// A text that is no date or time, or not as its pattern says.
    InvalidDatetime,
    DatetimeOverflow,
    ArraySubscript,
    /// A place in a select list that there is not.
    InvalidReference,
    InvalidLimit,
    /// A subquery that stands for a value and gives several.
    Cardinality,
    NotNull,
    /// Lines that COPY cannot read.
    BadCopy,
    /// Bytes that are no value of their type in PostgreSQL's binary formats.
    BadBinary,
    InvalidRegex,
    Datatype,
    Grouping,
    DivisionByZero,
    NotSupported,
    NotReady,
    /// What has a meaning in a transaction only.
    NoTransaction,
    ObjectInUse,
    LockNotAvailable,
    InsufficientPrivilege,
    /// Who asks is not known, or not proven.
    InvalidAuthorization,
    ResourceLimit,
    TooManyConnections,
    /// A statement that is nested too deeply.
    TooComplex,
    /// More comes than can be taken in: to be tried again a little later.
    Busy,
    DiskFull,
    /// Another server does not answer.
    Unreachable,
    Io,
    Corrupted,
    Canceled,
    Shutdown,
    /// Clients cannot be let in now.
    NotAvailable,
    Internal,
}

impl Kind {
    /// The five-character SQLSTATE that clients see.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Kind::Syntax => "42601",
            Kind::UndefinedTable => "42P01",
            Kind::UndefinedColumn => "42703",
            Kind::UndefinedFunction => "42883",
            Kind::UndefinedObject => "42704",
            Kind::UndefinedStatement => "26000",
            Kind::UndefinedFile => "58P01",
            Kind::UndefinedDatabase => "3D000",
            Kind::UndefinedSchema => "3F000",
            Kind::DuplicateFile => "58P02",
            Kind::DuplicateTable => "42P07",
            Kind::DuplicateObject => "42710",
            Kind::DuplicateDatabase => "42P04",
            Kind::AmbiguousColumn => "42702",
            Kind::DuplicateColumn => "42701",
            Kind::GeneratedAlways => "428C9",
            Kind::InvalidDefinition => "42P17",
            Kind::WrongObjectType => "42809",
            Kind::DependentObjects => "2BP01",
            Kind::InvalidParameter => "22023",
            Kind::InvalidText => "22P02",
            Kind::InvalidEncoding => "22021",
            Kind::OutOfRange => "22003",
            Kind::InvalidDatetime => "22007",
            Kind::DatetimeOverflow => "22008",
            Kind::ArraySubscript => "2202E",
            Kind::InvalidReference => "42P10",
            Kind::InvalidLimit => "2201W",
            Kind::Cardinality => "21000",
            Kind::NotNull => "23502",
            Kind::BadCopy => "22P04",
            Kind::BadBinary => "22P03",
            Kind::InvalidRegex => "2201B",
            Kind::Datatype => "42804",
            Kind::Grouping => "42803",
            Kind::DivisionByZero => "22012",
            Kind::NotSupported => "0A000",
            Kind::NotReady => "55000",
            Kind::NoTransaction => "25P01",
            Kind::ObjectInUse => "55006",
            Kind::LockNotAvailable => "55P03",
            Kind::InsufficientPrivilege => "42501",
            Kind::InvalidAuthorization => "28000",
            Kind::ResourceLimit => "53200",
            Kind::TooManyConnections => "53300",
            Kind::TooComplex => "54001",
            Kind::Busy => "53000",
            Kind::DiskFull => "53100",
            Kind::Unreachable => "08001",
            Kind::Io => "58030",
            Kind::Corrupted => "XX001",
            Kind::Canceled => "57014",
            Kind::Shutdown => "57P01",
            Kind::NotAvailable => "57P03",
            Kind::Internal => "XX000",
        }
    }
}

/// An error with its kind, and optionally a detail (what exactly) and a hint (what to do).
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: Kind,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<u32>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), detail: None, hint: None, position: None }))
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// With its place in the statement, in characters from 1.
    pub fn with_position(mut self, position: u32) -> Self {
        self.0.position = Some(position);
        self
    }

    /// An operating system error on `path`, with the kind that fits it.
    pub fn io(action: &str, path: &std::path::Path, err: &std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        let kind = match err.kind() {
            E::NotFound => Kind::UndefinedFile,
            E::PermissionDenied => Kind::InsufficientPrivilege,
            E::StorageFull | E::QuotaExceeded => Kind::DiskFull,
            _ => Kind::Io,
        };
        Error::new(kind, format!("could not {action} {:?}: {err}", path.display().to_string()))
    }

    /// Says what is wrong with the regular expression `pattern`, and where. `what` is its name: `option "start"`.
    pub fn regex(what: &str, pattern: &str, err: &regex::Error) -> Self {
        /// How far the crate indents a pattern that it draws.
        const INDENT: usize = 4;
        let text = err.to_string();
        // It draws a pattern of one line with carets below what is wrong; its last line says why.
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        let carets = text.lines().find(|line| line.contains('^') && line.trim_matches([' ', '^']).is_empty());
        let at = carets.and_then(|line| line.find('^')?.checked_sub(INDENT)).filter(|_| !pattern.contains('\n'));
        let place = at.map(|at| format!(" at character {}", at + 1)).unwrap_or_default();
        Error::new(Kind::InvalidRegex, format!("{what} is not a regular expression: {reason}{place}"))
            .with_detail(format!("Pattern: {pattern}"))
            .with_hint(
                "The syntax is that of the crate regex: named groups are (?<name>…), and there is no look-around.",
            )
    }

    /// The same error with where it happened in front of its message.
    pub fn with_context(mut self, place: &str) -> Self {
        self.0.message = format!("{place}: {}", self.0.message);
        self
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(Kind::Internal, message)
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    pub fn position(&self) -> Option<u32> {
        self.0.position
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(detail) = &self.0.detail {
            write!(f, "\nDETAIL:  {detail}")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "\nHINT:  {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Our errors travel through DataFusion as external errors and come back out unchanged.
impl From<Error> for DataFusionError {
    fn from(err: Error) -> Self {
        DataFusionError::External(Box::new(err))
    }
}

impl From<DataFusionError> for Error {
    fn from(err: DataFusionError) -> Self {
        from_datafusion(&err)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(err: arrow::error::ArrowError) -> Self {
        from_arrow(&err)
    }
}

/// What to do about a query that is too large.
const MORE_FOR_QUERIES: &str = "Ask for fewer rows, groups or columns at once, or give queries more: --query-memory, \
                                --memory-per-query, --spill-limit.";

fn from_datafusion(err: &DataFusionError) -> Error {
    match err {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => from_datafusion(inner),
        DataFusionError::Shared(inner) => from_datafusion(inner),
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => from_datafusion(first),
            None => Error::internal("an empty collection of errors"),
        },
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => match inner.downcast_ref::<DataFusionError>() {
                Some(inner) => from_datafusion(inner),
                None => Error::internal(lower(&inner.to_string())),
            },
        },
        DataFusionError::ArrowError(inner, _) => from_arrow(inner),
        DataFusionError::ObjectStore(inner) => from_store(inner),
        DataFusionError::ParquetError(inner) => from_parquet(inner),
        DataFusionError::SQL(inner, _) => {
            let text = inner.to_string();
            let text = text.strip_prefix("sql parser error: ").unwrap_or(&text);
            Error::new(Kind::Syntax, format!("syntax error: {}", lower(text)))
        }
        DataFusionError::SchemaError(inner, _) => from_schema(inner),
        DataFusionError::ResourcesExhausted(text) => {
            Error::new(Kind::ResourceLimit, lower(text)).with_hint(MORE_FOR_QUERIES)
        }
        DataFusionError::NotImplemented(text) => match text.strip_prefix("Unsupported SQL type ") {
            Some(name) => Error::new(Kind::UndefinedObject, format!("type \"{}\" does not exist", name.to_lowercase())),
            None => Error::new(Kind::NotSupported, lower(text)),
        },
        DataFusionError::Plan(text) => from_plan_text(text),
        DataFusionError::Execution(text) => Error::new(kind_of_execution(text), lower(text)),
        DataFusionError::Configuration(text) => Error::new(Kind::InvalidParameter, lower(text)),
        other => Error::internal(lower(&other.strip_backtrace())),
    }
}

fn from_parquet(err: &datafusion::parquet::errors::ParquetError) -> Error {
    use datafusion::parquet::errors::ParquetError as P;
    match err {
        P::External(inner) if inner.is::<Error>() => inner.downcast_ref::<Error>().cloned().expect("it was just seen"),
        other => Error::new(Kind::Corrupted, lower(&other.to_string())),
    }
}

fn from_arrow(err: &arrow::error::ArrowError) -> Error {
    use arrow::error::ArrowError as A;
    match err {
        A::DivideByZero => Error::new(Kind::DivisionByZero, "division by zero"),
        A::ArithmeticOverflow(text) => Error::new(Kind::OutOfRange, lower(text)),
        A::CastError(text) | A::ParseError(text) => Error::new(kind_of_cast(text), lower(text)),
        A::ExternalError(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => match inner.downcast_ref::<DataFusionError>() {
                Some(inner) => from_datafusion(inner),
                None => Error::internal(lower(&inner.to_string())),
            },
        },
        // What spills writes through arrow, which keeps the words only.
        A::IoError(text, _) if text.contains("during the spilling process") => {
            Error::new(Kind::ResourceLimit, "the query needs more temporary files than all queries may have together")
                .with_hint(MORE_FOR_QUERIES)
        }
        A::InvalidArgumentError(text) => Error::new(Kind::InvalidParameter, lower(text)),
        A::ComputeError(text) if text.contains(" overflow on ") => Error::new(Kind::OutOfRange, lower(text)),
        A::ComputeError(text) => Error::new(Kind::InvalidParameter, lower(text)),
        other => Error::internal(lower(&other.to_string())),
    }
}

/// A file of others that could not be read or written.
fn from_store(err: &object_store::Error) -> Error {
    use object_store::Error as S;
    let kind = match err {
        S::NotFound { .. } => Kind::UndefinedFile,
        S::PermissionDenied { .. } | S::Unauthenticated { .. } => Kind::InsufficientPrivilege,
        _ => Kind::Io,
    };
    Error::new(kind, lower(&err.to_string()))
}

fn from_schema(err: &SchemaError) -> Error {
    match err {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(|c| c.name.as_str()).collect();
            if let Some(relation) = &field.relation
                && !valid_fields.is_empty()
                && valid_fields.iter().all(|c| c.relation.as_ref().is_none_or(|r| r.table() != relation.table()))
            {
                let message = format!("missing FROM-clause entry for table \"{}\"", relation.table());
                let known = valid_fields.iter().filter_map(|c| c.relation.as_ref().map(|r| r.table()));
                let near = crate::options::nearest(relation.table(), known);
                let err = Error::new(Kind::UndefinedTable, message);
                return match near {
                    Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
                    None => err,
                };
            }
            let err = Error::new(Kind::UndefinedColumn, format!("column \"{}\" does not exist", field.flat_name()));
            match crate::options::nearest(&field.name, names.iter().copied()) {
                Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
                None if names.is_empty() => err,
                None => err.with_hint(format!("Columns here: {}.", names.join(", "))),
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::new(Kind::AmbiguousColumn, format!("column reference \"{}\" is ambiguous", field.flat_name()))
        }
        SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. } => {
            Error::new(Kind::AmbiguousColumn, lower(&err.to_string()))
        }
    }
}

/// DataFusion's planner reports most mistakes as text; these are the ones that users meet.
fn from_plan_text(text: &str) -> Error {
    let kind = if text.starts_with("table '") && text.contains("not found") {
        Kind::UndefinedTable
    } else if text.starts_with("Invalid function")
        || text.starts_with("table function")
        || text.contains("No function matches")
    {
        Kind::UndefinedFunction
    } else if text.contains("must appear in the GROUP BY")
        || text.contains("must be part of GROUP BY")
        || text.contains("aggregate functions are not allowed")
        || text.contains("Aggregate functions are not allowed")
        || text.contains("ggregate function calls cannot be nested")
    {
        Kind::Grouping
    } else if text.contains("Cannot coerce arithmetic expression")
        || text.contains("Cannot infer common argument type")
        || text.contains("Cannot get result type for temporal operation")
    {
        // There is no such operator.
        Kind::UndefinedFunction
    } else if text.contains("Order by column out of bounds") || text.contains("Cannot find column with position") {
        Kind::InvalidReference
    } else if text.contains("LIMIT must be >= 0") || text.contains("OFFSET must be >=0") {
        Kind::InvalidLimit
    } else if text.contains("non-boolean predicate") {
        Kind::Datatype
    } else if text.contains("Step cannot be zero") {
        Kind::InvalidParameter
    } else if text.contains("type_coercion") || text.contains("Cannot coerce") || text.contains("cannot cast") {
        Kind::Datatype
    } else if text.contains("already exists") {
        Kind::DuplicateTable
    } else {
        Kind::Syntax
    };
    let mut text = lower(text);
    if kind == Kind::UndefinedTable {
        // "table 'logweir.public.x' not found" → PostgreSQL's words.
        if let Some(name) = text.split('\'').nth(1) {
            let short = name.rsplit('.').next().unwrap_or(name);
            text = format!("relation \"{short}\" does not exist");
        }
    }
    match text.split_once("Did you mean ") {
        Some((head, near)) => {
            Error::new(kind, head.trim_end_matches(['.', ' ', '\n'])).with_hint(format!("Did you mean {near}"))
        }
        None => Error::new(kind, text),
    }
}

/// What is wrong with a value that cannot become one of another type.
fn kind_of_cast(text: &str) -> Kind {
    if text.starts_with("Can't cast value") {
        return Kind::OutOfRange;
    }
    // A whole number in a text that is no number of the type is too large for it.
    let value = text.split('\'').nth(1);
    let is_number = value.is_some_and(|value| value.trim().parse::<i128>().is_ok());
    let to_number = ["Int8", "Int16", "Int32", "Int64"].iter().any(|name| text.contains(&format!("of {name} type")));
    if is_number && to_number { Kind::OutOfRange } else { Kind::InvalidText }
}

/// Errors of functions are texts; these are the ones that users meet.
fn kind_of_execution(text: &str) -> Kind {
    let says = |what: &str| text.contains(what);
    if says("regex") || says("Regular expression") {
        Kind::InvalidRegex
    } else if says("nsupported date_trunc granularity") || says("Date part '") || says("invalid Unicode scalar value") {
        Kind::InvalidParameter
    } else if says("more than one row") {
        Kind::Cardinality
    } else if says("value '") && says("is out of range") {
        Kind::DatetimeOverflow
    } else {
        Kind::Internal
    }
}

/// Our messages start in lower case; other crates' often do not.
fn lower(text: &str) -> String {
    let text = text.trim();
    let mut chars = text.chars();
    match (chars.next(), text.chars().nth(1)) {
        // Keep acronyms and identifiers such as `SELECT` or `Utf8View`.
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_survives_a_trip_through_datafusion() {
        let err = Error::new(Kind::UndefinedFile, "no such log").with_hint("Check the path.");
        let back = Error::from(DataFusionError::from(err).context("while scanning"));
        assert_eq!(back.kind(), Kind::UndefinedFile);
        assert_eq!(back.to_string(), "no such log\nHINT:  Check the path.");
    }

    #[test]
    fn a_missing_table_reads_like_postgres() {
        let err = Error::from(DataFusionError::Plan("table 'logweir.public.acces' not found".into()));
        assert_eq!(err.kind().sqlstate(), "42P01");
        assert_eq!(err.message(), "relation \"acces\" does not exist");
    }
}
