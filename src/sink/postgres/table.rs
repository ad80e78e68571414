//! The table that rows go to: its columns, and the statements that change it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Field};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use tokio_postgres::Client;

use super::{Delivered, failed};
use crate::error::{Error, Kind, Result};
use crate::sink::encode::texts;
use crate::sink::{Batch, Feed};

/// The keys of a whole result that is coming.
const KEYS: &str = "logweir_keys";

/// The first version with UNIQUE NULLS NOT DISTINCT.
const NULLS_NOT_DISTINCT: i32 = 150_000;

/// A name as an identifier of SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema.table` or `table`, as SQL needs it. Names are taken as they are written: they are not folded to lower case.
pub fn name_of(text: &str, option: &str) -> Result<String> {
    let parts: Vec<&str> = text.split('.').map(str::trim).collect();
    match parts.as_slice() {
        [table] if !table.is_empty() => Ok(quoted(table)),
        [schema, table] if !schema.is_empty() && !table.is_empty() => {
            Ok(format!("{}.{}", quoted(schema), quoted(table)))
        }
        _ => Err(Error::new(Kind::InvalidParameter, format!("option \"{option}\" takes 'table' or 'schema.table'"))),
    }
}

/// A column of the relation, in the table.
#[derive(Debug, Clone)]
pub struct Column {
    name: String,
    /// As PostgreSQL calls it; `None` when the table has no such column.
    sql_type: Option<String>,
}

/// The table, as it is for the columns of a relation.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    missing: bool,
    /// Rows replace those with the same key: a view's, or the user says so.
    by_key: bool,
    /// The columns (by index) of the key.
    pub key: Vec<usize>,
}

/// Rows to be put into the table, and keys to be taken out.
#[derive(Debug, Default)]
pub struct Changes {
    /// The texts of each column, row by row.
    pub columns: Vec<Vec<Option<String>>>,
    gone: Vec<Vec<Option<String>>>,
}

impl Changes {
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }
}

impl Table {
    /// Looks at the table. `given`: the user has named a key.
    pub async fn of(client: &Client, table: &str, feed: &Feed, given: bool) -> Delivered<Table> {
        let sql = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
                   WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";
        let found = client.query(sql, &[&table]).await.map_err(failed)?;
        let types: HashMap<String, String> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
        let column =
            |field: &Arc<Field>| Column { name: field.name().clone(), sql_type: types.get(field.name()).cloned() };
        let by_key = feed.upserts || given;
        let key = feed.key.clone().filter(|_| by_key).unwrap_or_default();
        let columns = feed.schema.fields().iter().map(column).collect();
        Ok(Table { columns, missing: found.is_empty(), by_key, key })
    }

    pub fn is_missing(&self) -> bool {
        self.missing
    }

    /// Fails when the table lacks a column.
    pub fn check(&self, table: &str) -> Result<()> {
        let Some(column) = self.columns.iter().find(|column| column.sql_type.is_none()) else { return Ok(()) };
        let message = format!("table {table} has no column {}", quoted(&column.name));
        Err(Error::new(Kind::UndefinedColumn, message).with_hint("Add it with ALTER TABLE … ADD COLUMN."))
    }

    pub async fn is_empty(&self, client: &Client, table: &str) -> Delivered<bool> {
        let found =
            client.query_one(format!("SELECT NOT EXISTS (SELECT FROM {table})").as_str(), &[]).await.map_err(failed)?;
        Ok(found.get(0))
    }

    /// Statements that make the table for these columns.
    pub fn creation(&self, table: &str, feed: &Feed, version: i32) -> String {
        let columns = feed.schema.fields().iter();
        let columns = columns.map(|field| format!("{} {}", quoted(field.name()), sql_type(field.data_type())));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let key = self.names(&self.key, "");
        match (self.key.is_empty(), version >= NULLS_NOT_DISTINCT) {
            (true, _) => format!("CREATE TABLE {table} ({columns})"),
            (false, true) => format!("CREATE TABLE {table} ({columns}, UNIQUE NULLS NOT DISTINCT ({key}))"),
            // NULL in a key is refused there.
            (false, false) => format!("CREATE TABLE {table} ({columns}, PRIMARY KEY ({key}))"),
        }
    }

    fn names(&self, columns: &[usize], front: &str) -> String {
        columns.iter().map(|&i| format!("{front}{}", quoted(&self.columns[i].name))).collect::<Vec<_>>().join(", ")
    }

    fn type_of(&self, column: usize) -> &str {
        self.columns[column].sql_type.as_deref().unwrap_or("text")
    }

    /// Parameters that are arrays of texts as rows, each value cast to the type of its column.
    fn rows_of(&self, columns: &[usize]) -> String {
        let numbers = 0..columns.len();
        let values = columns.iter().zip(numbers.clone()).map(|(&i, n)| format!("u.c{n}::{}", self.type_of(i)));
        let arrays = numbers.clone().map(|n| format!("${}::text[]", n + 1)).collect::<Vec<_>>().join(", ");
        let names = numbers.map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
        format!("SELECT {} FROM unnest({arrays}) AS u({names})", values.collect::<Vec<_>>().join(", "))
    }

    /// Puts rows into the table; parameters are the columns. A row that is there already as it is stays untouched.
    pub fn insert(&self, table: &str) -> String {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let names = self.names(&all, "");
        let insert = format!("INSERT INTO {table} AS t ({names}) {}", self.rows_of(&all));
        if self.key.is_empty() {
            return insert;
        }
        let key = self.names(&self.key, "");
        let others: Vec<usize> = all.into_iter().filter(|i| !self.key.contains(i)).collect();
        if others.is_empty() {
            return format!("{insert} ON CONFLICT ({key}) DO NOTHING");
        }
        let set = others.iter().map(|&i| {
            let name = quoted(&self.columns[i].name);
            format!("{name} = excluded.{name}")
        });
        let set = set.collect::<Vec<_>>().join(", ");
        let differs = others.iter().map(|&i| {
            let name = quoted(&self.columns[i].name);
            // Texts: not every type can be compared.
            format!("t.{name}::text IS DISTINCT FROM excluded.{name}::text")
        });
        let differs = differs.collect::<Vec<_>>().join(" OR ");
        format!("{insert} ON CONFLICT ({key}) DO UPDATE SET {set} WHERE {differs}")
    }

    /// The rows of a batch as texts. Of several with the same key the last one counts.
    pub fn changes(&self, batch: &Batch) -> Result<Changes> {
        let columns = batch.rows.columns().iter().map(values).collect::<Result<Vec<_>>>()?;
        let gone = |row: usize| batch.gone.as_ref().is_some_and(|gone: &BooleanArray| gone.value(row));
        let key_of = |row: usize| self.key.iter().map(|&i| columns[i][row].clone()).collect::<Vec<_>>();
        let count = batch.rows.num_rows();
        let mut keep: Vec<usize> = (0..count).collect();
        if self.by_key {
            let last: HashMap<_, usize> = (0..count).map(|row| (key_of(row), row)).collect();
            keep.retain(|&row| last.get(&key_of(row)) == Some(&row));
        }
        let (going, coming): (Vec<usize>, Vec<usize>) = keep.into_iter().partition(|&row| gone(row));
        Ok(Changes {
            columns: columns.iter().map(|column| coming.iter().map(|&row| column[row].clone()).collect()).collect(),
            gone: going.into_iter().map(key_of).collect(),
        })
    }

    /// Statements that take out keys that are gone, with their parameters. An index finds NULL only when it is asked for, so
    /// keys with NULL in different columns have statements of their own.
    pub fn deletions(&self, table: &str, changes: &Changes) -> Vec<(String, Vec<Vec<Option<String>>>)> {
        if self.key.is_empty() {
            // A result of one row: what comes takes its place.
            let some = self.by_key && (changes.rows() > 0 || !changes.gone.is_empty());
            return if some { vec![(format!("DELETE FROM {table}"), Vec::new())] } else { Vec::new() };
        }
        let mut groups: HashMap<Vec<bool>, Vec<&Vec<Option<String>>>> = HashMap::new();
        for key in &changes.gone {
            groups.entry(key.iter().map(Option::is_none).collect()).or_default().push(key);
        }
        let statements = groups.into_iter().map(|(nulls, keys)| {
            let given: Vec<usize> = (0..self.key.len()).filter(|&part| !nulls[part]).collect();
            let columns: Vec<usize> = given.iter().map(|&part| self.key[part]).collect();
            let equal =
                columns.iter().enumerate().map(|(n, &i)| format!("t.{} = k.k{n}", quoted(&self.columns[i].name)));
            let empty = (0..self.key.len()).filter(|&part| nulls[part]);
            let empty = empty.map(|part| format!("t.{} IS NULL", quoted(&self.columns[self.key[part]].name)));
            let all = equal.chain(empty).collect::<Vec<_>>().join(" AND ");
            if columns.is_empty() {
                return (format!("DELETE FROM {table} AS t WHERE {all}"), Vec::new());
            }
            let names = (0..columns.len()).map(|n| format!("k{n}")).collect::<Vec<_>>().join(", ");
            let sql = format!("DELETE FROM {table} AS t USING ({}) AS k({names}) WHERE {all}", self.rows_of(&columns));
            let values = given.iter().map(|&part| keys.iter().map(|key| key[part].clone()).collect());
            (sql, values.collect())
        });
        statements.collect()
    }

    /// Makes room for the keys of a whole result. With the transaction they go.
    pub fn begin_replacing(&self, table: &str) -> String {
        if self.key.is_empty() {
            return format!("DELETE FROM {table}");
        }
        let columns = self.key.iter().map(|&i| format!("{} {}", quoted(&self.columns[i].name), self.type_of(i)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        format!("CREATE TEMPORARY TABLE IF NOT EXISTS {KEYS} ({columns}) ON COMMIT DROP; TRUNCATE {KEYS}")
    }

    /// Notes keys of it; parameters are the columns of the key.
    pub fn note_keys(&self) -> String {
        format!("INSERT INTO {KEYS} {}", self.rows_of(&self.key))
    }

    /// Takes out what is not among the keys of the whole result.
    pub fn sweep(&self, table: &str) -> String {
        if self.key.is_empty() {
            // What was there went at the beginning.
            return String::new();
        }
        let equal = self.key.iter().map(|&i| {
            let name = quoted(&self.columns[i].name);
            format!("t.{name} IS NOT DISTINCT FROM k.{name}")
        });
        let equal = equal.collect::<Vec<_>>().join(" AND ");
        // EXCEPT compares NULL as equal, and is hashed; rows of the table that it gives are few.
        let key = self.names(&self.key, "");
        format!(
            "DELETE FROM {table} AS t USING (SELECT {key} FROM {table} EXCEPT SELECT {key} FROM {KEYS}) AS k WHERE {equal}"
        )
    }
}

/// PostgreSQL's type for a column that has to be made.
fn sql_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => "smallint",
        DataType::UInt16 | DataType::Int32 => "integer",
        DataType::UInt32 | DataType::Int64 => "bigint",
        DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => "numeric",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => "bytea",
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Struct(_) => "jsonb",
        DataType::Map(..) => "jsonb",
        _ => "text",
    }
}

/// The values of a column as PostgreSQL reads them.
fn values(column: &ArrayRef) -> Result<Vec<Option<String>>> {
    let bytes = |value: Option<&[u8]>| {
        value.map(|bytes| bytes.iter().fold("\\x".to_string(), |text, byte| text + &format!("{byte:02x}")))
    };
    Ok(match column.data_type() {
        DataType::Utf8View => column.as_string_view().iter().map(|text| text.map(str::to_string)).collect(),
        DataType::Utf8 => column.as_string::<i32>().iter().map(|text| text.map(str::to_string)).collect(),
        DataType::Binary => column.as_binary::<i32>().iter().map(bytes).collect(),
        DataType::BinaryView => column.as_binary_view().iter().map(bytes).collect(),
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::Struct(_)
        | DataType::Map(..) => json_values(column)?,
        _ => texts(column)?.iter().map(|text| text.map(str::to_string)).collect(),
    })
}

/// Each value as JSON.
fn json_values(column: &ArrayRef) -> Result<Vec<Option<String>>> {
    let field = Arc::new(Field::new("v", column.data_type().clone(), true));
    let rows = RecordBatch::from(StructArray::from(vec![(field, Arc::clone(column))]));
    let mut out = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut out);
    writer.write(&rows)?;
    writer.finish()?;
    let text = String::from_utf8(out).map_err(|err| Error::internal(err.to_string()))?;
    // {"v":…}
    let value = |(row, line): (usize, &str)| column.is_valid(row).then(|| line[5..line.len() - 1].to_string());
    Ok(text.lines().enumerate().map(value).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, StringViewArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Int64Type, Schema};

    use super::*;
    use crate::sink::Position;
    use crate::time::UTC;

    fn table(key: &[usize]) -> Table {
        let column = |(name, sql_type): (&str, &str)| Column { name: name.into(), sql_type: Some(sql_type.into()) };
        let columns = [("a", "text"), ("b", "bigint"), ("n", "integer")].map(column).to_vec();
        Table { columns, missing: false, by_key: true, key: key.to_vec() }
    }

    fn batch(rows: &[(Option<&str>, i64, bool)]) -> Batch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a", Arc::new(StringViewArray::from_iter(rows.iter().map(|row| row.0)))),
            ("b", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)))),
            ("n", Arc::new(Int64Array::from_iter_values(0..rows.len() as i64))),
        ];
        let gone = Some(BooleanArray::from_iter(rows.iter().map(|row| Some(row.2))));
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let offsets = Int64Array::from_value(1, rows.num_rows());
        Batch { rows, offsets, gone, from: Position::at(0), upto: None, replaces: false, key: String::new() }
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(name_of("metrics.Error\"s", "table").unwrap(), "\"metrics\".\"Error\"\"s\"");
        assert!(name_of("a.b.c", "table").is_err() && name_of("", "table").is_err());
    }

    #[test]
    fn the_last_change_of_a_key_counts_and_null_is_a_value() {
        let table = table(&[0, 1]);
        let rows =
            [(Some("x"), 1, false), (None, 1, true), (Some("x"), 1, false), (Some("y"), 2, true), (None, 1, false)];
        let changes = table.changes(&batch(&rows)).unwrap();
        assert_eq!(changes.rows(), 2);
        assert_eq!(changes.columns[2], [Some("2".to_string()), Some("4".to_string())]);
        assert_eq!(changes.gone, [[Some("y".to_string()), Some("2".to_string())]]);
        let gone = table.changes(&batch(&[(None, 1, true), (Some("x"), 1, true), (Some("y"), 1, true)])).unwrap();
        let statements = table.deletions("t", &gone);
        assert_eq!(statements.len(), 2);
        for part in ["t.\"a\" = k.k0 AND t.\"b\" = k.k1", "t.\"b\" = k.k0 AND t.\"a\" IS NULL"] {
            assert!(statements.iter().any(|(sql, _)| sql.ends_with(part)), "{statements:?}");
        }
    }

    #[test]
    fn a_result_of_one_row_takes_the_place_of_the_one_before() {
        let table = table(&[]);
        let changes = table.changes(&batch(&[(Some("x"), 1, false)])).unwrap();
        assert_eq!(table.deletions("t", &changes), [("DELETE FROM t".to_string(), Vec::new())]);
        assert!(!table.insert("t").contains("CONFLICT"));
    }

    #[test]
    fn values_are_texts_that_postgres_reads() {
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None]).with_timezone(UTC));
        assert_eq!(values(&time).unwrap(), [Some("1970-01-01T00:00:01.500Z".to_string()), None]);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        let lists: ArrayRef = Arc::new(lists);
        assert_eq!(values(&lists).unwrap(), [Some("[1,null]".to_string()), None]);
        let schema = Arc::new(Schema::new(vec![
            Field::new("at", time.data_type().clone(), true),
            Field::new("l", lists.data_type().clone(), true),
        ]));
        let feed = Feed { name: "s".into(), id: "i".into(), schema, key: None, time: None, upserts: false };
        let none = Table { columns: Vec::new(), missing: true, by_key: false, key: Vec::new() };
        assert_eq!(none.creation("t", &feed, 150_000), "CREATE TABLE t (\"at\" timestamptz, \"l\" jsonb)");
    }
}
