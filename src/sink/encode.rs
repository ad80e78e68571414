//! Forms in which rows leave: JSON lines, CSV, Parquet. The sinks choose which of them they write.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::WriterBuilder as JsonBuilder;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use memchr::memchr_iter;

use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};
use crate::registry::{Entry, find};

/// Every form.
pub static ENCODINGS: &[&Spec] = &[&JSON, &CSV, &PARQUET];

/// One row of the table of forms.
pub struct Spec {
    pub name: &'static str,
    pub summary: &'static str,
    pub options: &'static [OptionSpec],
    build: fn(&Options) -> Result<Encoding>,
}

impl Entry for Spec {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

static JSON: Spec = Spec {
    name: "json",
    summary: "one JSON object a line; times as in RFC 3339, NULL as null",
    options: &[],
    build: |_| Ok(Encoding::Json),
};

static CSV: Spec = Spec {
    name: "csv",
    summary: "RFC 4180, with the names of columns in the first line of each file",
    options: &[
        OptionSpec::optional("header", OptionKind::Bool, Some("true"), "write the names of columns first"),
        OptionSpec::optional("delimiter", OptionKind::Text, Some(","), "the character between two values"),
        OptionSpec::optional("null", OptionKind::Text, Some(""), "what stands for NULL"),
    ],
    build: csv,
};

static PARQUET: Spec =
    Spec { name: "parquet", summary: "Parquet, zstd", options: &[], build: |_| Ok(Encoding::Parquet) };

/// How rows are written.
#[derive(Debug, Clone, PartialEq)]
pub enum Encoding {
    Json,
    Csv { header: bool, delimiter: u8, null: String },
    Parquet,
}

fn csv(options: &Options) -> Result<Encoding> {
    let delimiter = options.text("delimiter").unwrap_or(",");
    let &[delimiter] = delimiter.as_bytes() else {
        return Err(Error::new(Kind::InvalidParameter, "option \"delimiter\" takes one ASCII character"));
    };
    let null = options.text("null").unwrap_or_default().to_string();
    Ok(Encoding::Csv { header: options.bool("header"), delimiter, null })
}

impl Encoding {
    /// The form called `name`, which must be one of those `allowed`.
    pub fn named(name: &str, options: &[(String, String)], allowed: &[&str], owner: &str) -> Result<Encoding> {
        let spec = find(ENCODINGS, "format", name)?;
        if !allowed.contains(&spec.name) {
            let all = allowed.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>().join(", ");
            let err =
                Error::new(Kind::NotSupported, format!("{owner} does not write FORMAT {}", spec.name.to_uppercase()));
            return Err(match allowed {
                [] => err.with_hint("It has a form of its own: leave FORMAT out."),
                _ => err.with_hint(format!("It writes {all}.")),
            });
        }
        let options = Options::parse(&format!("FORMAT {}", spec.name.to_uppercase()), &[spec.options], options)?;
        (spec.build)(&options)
    }

    /// The usual end of a file's name.
    pub fn extension(&self) -> &'static str {
        match self {
            Encoding::Json => "json",
            Encoding::Csv { .. } => "csv",
            Encoding::Parquet => "parquet",
        }
    }

    /// Each row as a text of its own, without the names of columns in front.
    pub fn records(&self, rows: &RecordBatch) -> Result<Records> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(rows.num_rows()));
        match self {
            Encoding::Json => {
                bytes = self.lines(rows, false)?;
                ends.extend(memchr_iter(b'\n', &bytes).map(|at| at + 1));
            }
            // Here a value may hold line ends.
            Encoding::Csv { .. } | Encoding::Parquet => {
                for row in 0..rows.num_rows() {
                    bytes.extend(self.lines(&rows.slice(row, 1), false)?);
                    ends.push(bytes.len());
                }
            }
        }
        if ends.len() != rows.num_rows() {
            return Err(Error::internal("a row is a line"));
        }
        Ok(Records { bytes, ends })
    }

    /// The rows as text, each with a line end; in front of them what a file begins with, if they are its `first`.
    pub fn lines(&self, rows: &RecordBatch, first: bool) -> Result<Vec<u8>> {
        let rows = plain(rows)?;
        let mut out = Vec::new();
        match self {
            Encoding::Json => {
                let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut out);
                writer.write(&rows)?;
                writer.finish()?;
            }
            Encoding::Csv { header, delimiter, null } => {
                let builder = CsvBuilder::new().with_header(*header && first).with_delimiter(*delimiter);
                builder.with_null(null.clone()).build(&mut out).write(&rows)?;
            }
            Encoding::Parquet => return Err(Error::internal("Parquet is not made of lines")),
        }
        Ok(out)
    }
}

/// A text for each row, without its line end.
pub struct Records {
    /// The texts, each with its line end, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    pub fn get(&self, row: usize) -> &[u8] {
        let from = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[from..self.ends[row] - 1]
    }
}

/// The rows as one JSON array of objects.
pub fn json_array(rows: &RecordBatch) -> Result<Vec<u8>> {
    let rows = plain(rows)?;
    let mut out = Vec::new();
    let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut out);
    writer.write(&rows)?;
    writer.finish()?;
    if out.is_empty() {
        out.extend_from_slice(b"[]");
    }
    Ok(out)
}

/// Rows in which columns that the writers do not know are texts.
pub fn plain(rows: &RecordBatch) -> Result<RecordBatch> {
    let unknown = |data_type: &DataType| matches!(data_type, DataType::Interval(_) | DataType::Duration(_));
    if !rows.schema().fields().iter().any(|field| unknown(field.data_type())) {
        return Ok(rows.clone());
    }
    let (mut fields, mut columns) = (Vec::new(), Vec::<ArrayRef>::new());
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if unknown(field.data_type()) {
            fields.push(Field::new(field.name(), DataType::Utf8, true));
            columns.push(Arc::new(texts(column)?));
        } else {
            fields.push(field.as_ref().clone());
            columns.push(Arc::clone(column));
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Each value of a column in words that PostgreSQL reads.
pub fn texts(column: &ArrayRef) -> Result<StringArray> {
    let options = FormatOptions::default().with_display_error(false);
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
    let text = |row: usize| match column.is_null(row) {
        true => Ok(None),
        false => formatter.value(row).try_to_string().map(Some),
    };
    Ok((0..column.len()).map(text).collect::<Result<StringArray, _>>()?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Float64Array, Int64Array, IntervalMonthDayNanoArray, StringViewArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::IntervalMonthDayNano;

    use super::*;
    use crate::time::UTC;

    fn rows() -> RecordBatch {
        let interval = IntervalMonthDayNano::new(0, 1, 2_000_000_000);
        RecordBatch::try_from_iter(vec![
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_000), None]).with_timezone(UTC)) as ArrayRef),
            ("path", Arc::new(StringViewArray::from(vec![Some("/a,\"b\"\n"), Some("")]))),
            ("n", Arc::new(Int64Array::from(vec![None, Some(-7)]))),
            ("x", Arc::new(Float64Array::from(vec![0.5, f64::NAN]))),
            ("took", Arc::new(IntervalMonthDayNanoArray::from(vec![Some(interval), None]))),
        ])
        .unwrap()
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn rows_are_written_in_every_form_of_lines() {
        let json = text(Encoding::Json.lines(&rows(), true).unwrap());
        let expected = "{\"at\":\"1970-01-01T00:00:00.001Z\",\"path\":\"/a,\\\"b\\\"\\n\",\"n\":null,\"x\":0.5,\
                        \"took\":\"1 days 2.000000000 secs\"}\n\
                        {\"at\":null,\"path\":\"\",\"n\":-7,\"x\":null,\"took\":null}\n";
        assert_eq!(json, expected);
        let array = text(json_array(&rows()).unwrap());
        assert_eq!(array, format!("[{}]", expected.trim_end().replace("}\n{", "},{")));
        assert_eq!(text(json_array(&rows().slice(0, 0)).unwrap()), "[]");
        let csv = Encoding::named("CSV", &[("null".into(), "-".into())], &["csv"], "x").unwrap();
        let first = text(csv.lines(&rows(), true).unwrap());
        let expected = "1970-01-01T00:00:00.001Z,\"/a,\"\"b\"\"\n\",-,0.5,1 days 2.000000000 secs\n-,,-7,NaN,-\n";
        assert_eq!(first, format!("at,path,n,x,took\n{expected}"));
        assert_eq!(text(csv.lines(&rows(), false).unwrap()), expected, "names come once");
    }

    #[test]
    fn each_row_is_a_text_of_its_own() {
        let csv = Encoding::named("csv", &[], &["csv"], "x").unwrap();
        for encoding in [Encoding::Json, csv] {
            let (lines, records) = (encoding.lines(&rows(), false).unwrap(), encoding.records(&rows()).unwrap());
            assert_eq!([records.get(0), b"\n", records.get(1), b"\n"].concat(), lines);
        }
        // A key of no columns.
        let nothing = Encoding::Json.records(&rows().project(&[]).unwrap()).unwrap();
        assert_eq!((nothing.get(0), nothing.get(1)), (&b"{}"[..], &b"{}"[..]));
    }

    #[test]
    fn what_a_sink_does_not_write_is_refused() {
        let err = Encoding::named("parquet", &[], &["json"], "connector \"http\"").unwrap_err();
        assert_eq!(err.message(), "connector \"http\" does not write FORMAT PARQUET");
        assert!(Encoding::named("jsn", &[], &["json"], "x").unwrap_err().message().contains("did you mean \"json\""));
        let err = Encoding::named("csv", &[("delimiter".into(), "ab".into())], &["csv"], "x").unwrap_err();
        assert!(err.message().contains("one ASCII character"));
    }
}
