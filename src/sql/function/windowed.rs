//! A window function of ours, called with `OVER (PARTITION BY key ORDER BY window_start)`: a row of a table, and what all of
//! them share.
//!
//! Each [`Windowed`] takes columns of fixed types and gives numbers. It sees the rows of a partition in their order and gives
//! one number for each. The rules are the same for all: a row's number depends on this row and the rows before it alone, so
//! what comes later changes nothing that was told; NULL where too little is known; the same rows in the same order give the
//! same numbers to the last bit. A frame (`ROWS BETWEEN …`) changes nothing: how far back is looked is an argument.
//!
//! Windows stand above the aggregates of a view, in the part of its query that is run when somebody reads it, so such a
//! function may be part of a view and of what alerts watch.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, TypeSignature, Volatility, WindowUDF, WindowUDFImpl};

use super::scalar::Type;
use crate::error::{Error, Result};
use crate::registry::Entry;

/// One row of the table of window functions.
#[derive(Debug)]
pub struct Windowed {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub syntax: &'static str,
    pub summary: &'static str,
    pub sample: Sample,
    /// The lists of arguments it takes.
    pub forms: &'static [&'static [Type]],
    /// The numbers of a partition.
    pub rows: fn(&Partition<'_>) -> Result<Vec<Option<f64>>>,
}

/// A call over the values of a column `n`, with a column `t` that counts hours, and what it gives for the last row as psql
/// shows it.
#[derive(Debug)]
pub struct Sample {
    pub call: &'static str,
    pub values: &'static [i64],
    pub result: &'static str,
}

impl Sample {
    /// As a query with one value.
    pub fn query(&self) -> String {
        let values: Vec<String> = self.values.iter().enumerate().map(|(t, n)| format!("({t}, {n})")).collect();
        format!(
            "SELECT x FROM (SELECT t, {} OVER (ORDER BY t) AS x FROM (SELECT to_timestamp(h * 3600)::timestamptz AS t, n
             FROM (VALUES {}) AS v (h, n))) ORDER BY t DESC LIMIT 1",
            self.call,
            values.join(", ")
        )
    }

    /// For people.
    pub fn shown(&self) -> (String, &'static str) {
        let values: Vec<String> = self.values.iter().map(i64::to_string).collect();
        (format!("{} over {}", self.call, values.join(", ")), self.result)
    }
}

impl Entry for Windowed {
    fn name(&self) -> &'static str {
        self.name
    }
    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

/// The rows of one partition, in their order.
pub struct Partition<'a> {
    pub columns: &'a [ArrayRef],
    pub rows: usize,
}

impl Partition<'_> {
    /// Column `i` as numbers; what is no finite number is unknown.
    pub fn values(&self, i: usize) -> Result<Vec<Option<f64>>> {
        let array = self.columns[i].as_primitive_opt::<Float64Type>().ok_or_else(|| wrong_type(&self.columns[i]))?;
        Ok(array.iter().map(|value| value.filter(|value| value.is_finite())).collect())
    }

    pub fn column<T: ArrowPrimitiveType>(&self, i: usize) -> Result<Vec<Option<T::Native>>> {
        let array = self.columns[i].as_primitive_opt::<T>().ok_or_else(|| wrong_type(&self.columns[i]))?;
        Ok(array.iter().collect())
    }

    /// Argument `i`, which is the same in all rows; `None` when it was not given, or there are no rows.
    pub fn constant<T: ArrowPrimitiveType>(&self, i: usize) -> Result<Option<T::Native>> {
        match self.columns.get(i) {
            Some(_) => Ok(self.column::<T>(i)?.into_iter().flatten().next()),
            None => Ok(None),
        }
    }
}

fn wrong_type(array: &ArrayRef) -> Error {
    Error::internal(format!("a window function was given a column of type {}", array.data_type()))
}

impl Windowed {
    /// As a function that DataFusion can call.
    pub fn udwf(&'static self) -> WindowUDF {
        let exact = |form: &&[Type]| TypeSignature::Exact(form.iter().map(|t| t.arrow()).collect());
        let types = TypeSignature::OneOf(self.forms.iter().map(exact).collect());
        WindowUDF::new_from_impl(Function {
            windowed: self,
            signature: Signature::new(types, Volatility::Immutable),
            aliases: self.aliases.iter().map(|alias| alias.to_string()).collect(),
        })
    }
}

#[derive(Debug)]
struct Function {
    windowed: &'static Windowed,
    signature: Signature,
    aliases: Vec<String>,
}

/// Names are unique.
impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.windowed.name == other.windowed.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.windowed.name.hash(state);
    }
}

impl WindowUDFImpl for Function {
    fn name(&self) -> &str {
        self.windowed.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs<'_>) -> DfResult<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Evaluator(self.windowed)))
    }

    fn field(&self, arguments: WindowUDFFieldArgs<'_>) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new(arguments.name(), DataType::Float64, true)))
    }
}

#[derive(Debug)]
struct Evaluator(&'static Windowed);

impl PartitionEvaluator for Evaluator {
    fn evaluate_all(&mut self, columns: &[ArrayRef], rows: usize) -> DfResult<ArrayRef> {
        let numbers = (self.0.rows)(&Partition { columns, rows })?;
        Ok(Arc::new(Float64Array::from(numbers)))
    }
}
