//! Columns that a user declared, for the formats whose columns are known before any input: which of the format's
//! columns they take, and whether the declared type can hold every value of the format's type.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::Declared;
use crate::error::{Error, Kind, Result};
use crate::options;

/// The columns to hand on: all of the format's, or the declared ones in their declared order and types.
pub struct Chosen {
    pub schema: SchemaRef,
    /// For each of them, which of the format's columns it is.
    from: Vec<usize>,
}

impl Chosen {
    /// Fails when the format has no column of a declared name, or its values do not fit the declared type.
    pub fn new(own: Vec<Field>, declared: &[Declared]) -> Result<Chosen> {
        if declared.is_empty() {
            let from = (0..own.len()).collect();
            return Ok(Chosen { schema: Arc::new(Schema::new(own)), from });
        }
        let names = || own.iter().map(|f| f.name().as_str());
        let mut fields = Vec::new();
        let mut from = Vec::new();
        for column in declared {
            let Some(index) = own.iter().position(|f| *f.name() == column.name) else {
                let message = format!("the format has no column \"{}\"", column.name);
                let hint = match options::nearest(&column.name, names()) {
                    Some(near) => format!("Did you mean \"{near}\"?"),
                    None => format!("It has: {}.", options::list(names())),
                };
                return Err(Error::new(Kind::UndefinedColumn, message).with_hint(hint));
            };
            if !holds(&column.data_type, own[index].data_type()) {
                let (name, wanted, has) = (&column.name, &column.data_type, own[index].data_type());
                return Err(Error::new(Kind::Datatype, format!("column \"{name}\" cannot be of type {wanted}"))
                    .with_detail(format!("The format reads it as {has}, whose values would not all fit."))
                    .with_hint("Leave the type as the format has it and cast in queries."));
            }
            fields.push(Field::new(&column.name, column.data_type.clone(), true));
            from.push(index);
        }
        Ok(Chosen { schema: Arc::new(Schema::new(fields)), from })
    }

    /// The batch of the chosen columns, out of all of the format's columns with `rows` rows each.
    pub fn batch(&self, columns: &[ArrayRef], rows: usize) -> RecordBatch {
        let chosen = self.from.iter().zip(self.schema.fields()).map(|(&from, field)| {
            if columns[from].data_type() == field.data_type() {
                columns[from].clone()
            } else {
                cast(&columns[from], field.data_type()).expect("only casts that hold every value were accepted")
            }
        });
        let count = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), chosen.collect(), &count)
            .expect("columns have the types and the length that were built for this schema")
    }

    /// `ts`, when it is among the chosen columns with its own type.
    pub fn time_column(&self, name: &str) -> Option<String> {
        let field = self.schema.field_with_name(name).ok()?;
        (*field.data_type() == super::timestamp_type()).then(|| name.to_string())
    }
}

/// Whether a column of type `wider` holds every value of type `own`.
pub fn holds(wider: &DataType, own: &DataType) -> bool {
    use DataType::{Float64, Int16, Int32, Int64, LargeUtf8, Utf8, Utf8View};
    wider == own
        || matches!(wider, Utf8 | LargeUtf8 | Utf8View)
        || matches!((wider, own), (Int64, Int16 | Int32) | (Float64, Int16 | Int32))
}
