//! Computed columns: `name AS (expression)` in CREATE TABLE. A value is computed when a row is made, and from then on is the
//! row's like any other.
//!
//! Receives rows with the columns of the format, those of INCLUDE, and the computed ones before it; hands on one more column,
//! and says of which rows it cannot be computed (a division by zero, a text that is no number): such a frame is malformed,
//! its neighbours are rows. The expression is planned elsewhere and depends on nothing but its row, so that reading the
//! log again computes the same.
//!
//! A batch is computed at once. Only one that fails is cut in halves until the rows stand alone that fail: then what becomes
//! of a row does not depend on its neighbours. With `b <> 0 AND a / b > 1` a whole batch may fail of which no row does, as the
//! right side is not looked at where the left one decides for all rows.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, new_empty_array};
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::physical_plan::PhysicalExpr;

use super::fit;
use crate::error::{Error, Kind, Result};

/// One computed column.
#[derive(Clone)]
pub struct Computed {
    pub name: String,
    /// The expression as text.
    pub sql: String,
    pub data_type: DataType,
    /// Its metadata says whether its texts are more than texts.
    field: FieldRef,
    expr: Arc<dyn PhysicalExpr>,
    /// The columns that it reads.
    reads: SchemaRef,
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} AS ({})", self.name, self.sql)
    }
}

impl Computed {
    /// `expr` is planned over the columns `reads`, and nothing else; its type is the column's.
    pub fn new(name: &str, sql: &str, expr: Arc<dyn PhysicalExpr>, reads: SchemaRef) -> Result<Computed> {
        let data_type = expr.data_type(&reads)?;
        let metadata = expr.return_field(&reads)?.metadata().clone();
        let field = Arc::new(Field::new(name, data_type.clone(), true).with_metadata(metadata));
        Ok(Computed { name: name.to_string(), sql: sql.to_string(), data_type, field, expr, reads })
    }

    pub fn field(&self) -> FieldRef {
        Arc::clone(&self.field)
    }

    /// The values of the rows of which it can be computed, in order; and the others, each with the reason.
    pub fn column(&self, rows: &RecordBatch) -> Result<(ArrayRef, Vec<(usize, Error)>)> {
        let (mut pieces, mut failed) = (Vec::new(), Vec::new());
        self.compute(&fit(rows, &self.reads)?, 0, &mut pieces, &mut failed);
        let values = match pieces.as_slice() {
            [] => new_empty_array(&self.data_type),
            [all] => Arc::clone(all),
            pieces => concat(&pieces.iter().map(|piece| piece.as_ref()).collect::<Vec<&dyn Array>>())?,
        };
        Ok((values, failed))
    }

    /// Computes rows of which the first is number `first`.
    fn compute(&self, rows: &RecordBatch, first: usize, pieces: &mut Vec<ArrayRef>, failed: &mut Vec<(usize, Error)>) {
        let count = rows.num_rows();
        if count == 0 {
            return; // a constant can fail without any row
        }
        match self.evaluate(rows) {
            Ok(values) => pieces.push(values),
            Err(err) if count == 1 => failed.push((first, self.reason(err))),
            Err(_) => {
                let half = count / 2;
                self.compute(&rows.slice(0, half), first, pieces, failed);
                self.compute(&rows.slice(half, count - half), first + half, pieces, failed);
            }
        }
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        let evaluated = || self.expr.evaluate(rows)?.into_array(rows.num_rows());
        // Lines come from anybody. One at which a function panics would stop the stream, again after each restart.
        let values = catch_unwind(AssertUnwindSafe(evaluated))
            .unwrap_or_else(|_| Err(Error::internal("the expression panicked").into()))?;
        if *values.data_type() == self.data_type {
            return Ok(values);
        }
        // A function may give another kind of text than it says.
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        Ok(cast_with_options(&values, &self.data_type, &strict)?)
    }

    fn reason(&self, err: Error) -> Error {
        // What a function cannot do with a value is about the value.
        let kind = if err.kind() == Kind::Internal { Kind::InvalidText } else { err.kind() };
        let about = Error::new(kind, err.message()).with_context(&format!("column \"{}\"", self.name));
        about.with_detail(format!("It is computed: {}.", self.sql))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::Schema;
    use datafusion::common::DFSchema;
    use datafusion::prelude::SessionContext;
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: &[&str] = &["a", "b"];

    fn planned(sql: &str) -> Computed {
        let fields = COLUMNS.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect::<Vec<_>>();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let state = SessionContext::new().state();
        let columns = DFSchema::try_from(Arc::clone(&schema)).unwrap();
        let expr = state.create_logical_expr(sql, &columns).unwrap();
        let expr = state.create_physical_expr(expr, &columns).unwrap();
        Computed::new("c", sql, expr, schema).unwrap()
    }

    /// With a column more than is read, in another order.
    fn batch(rows: &[(Option<i64>, Option<i64>)]) -> RecordBatch {
        let columns: [(&str, ArrayRef); 3] = [
            ("b", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
            ("x", Arc::new(rows.iter().map(|_| Some("x")).collect::<StringViewArray>())),
            ("a", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>())),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
    }

    /// The values, and the numbers of the rows without one.
    fn computed(sql: &str, rows: &[(Option<i64>, Option<i64>)]) -> (Vec<Option<i64>>, Vec<usize>) {
        let (values, failed) = planned(sql).column(&batch(rows)).unwrap();
        let values = arrow::compute::cast(&values, &DataType::Int64).unwrap();
        let values = values.as_any().downcast_ref::<Int64Array>().unwrap().iter().collect();
        (values, failed.into_iter().map(|(row, _)| row).collect())
    }

    #[test]
    fn rows_that_fail_leave_the_others() {
        let rows: Vec<_> = (0..100).map(|i| (Some(100), Some(i % 33))).collect();
        let (values, failed) = computed("a / b", &rows);
        assert_eq!(failed, [0, 33, 66, 99]);
        assert_eq!((values.len(), values[0], values[31]), (96, Some(100), Some(3)));
        let (_, failed) = planned("a / b").column(&batch(&rows[..2])).unwrap();
        let (row, why) = &failed[0];
        assert_eq!((*row, why.kind(), why.message()), (0, Kind::DivisionByZero, "column \"c\": division by zero"));
        assert_eq!(why.detail(), Some("It is computed: a / b."));
        assert_eq!(computed("a / b", &[(Some(6), None), (None, Some(0)), (Some(6), Some(2))]).0, [None, None, Some(3)]);
    }

    #[test]
    fn what_becomes_of_a_row_does_not_depend_on_its_neighbours() {
        let rows: Vec<_> = (0..50).map(|i| (Some(50), Some(i % 2))).collect();
        let (values, failed) = computed("b <> 0 AND a / b > 1", &rows);
        assert_eq!((values.len(), failed.len()), (50, 0), "no row divides by zero by itself");
        assert_eq!((values[0], values[1]), (Some(0), Some(1)));
    }

    #[test]
    fn constants_and_no_rows() {
        assert_eq!(computed("7", &[(None, None); 2]), (vec![Some(7); 2], vec![]));
        assert_eq!(computed("1 / 0", &[(None, None); 3]), (vec![], vec![0, 1, 2]));
        assert_eq!(computed("1 / 0", &[]), (vec![], vec![]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// A batch at once gives what its rows give one by one.
        #[test]
        fn a_batch_is_its_rows(
            rows in prop::collection::vec((prop::option::of(-3i64..3), prop::option::of(-1i64..2)), 0..40),
            sql in prop::sample::select(vec!["a / b", "CASE WHEN b = 0 THEN a ELSE a / b END", "b <> 0 AND a % b = 0"]),
        ) {
            let (values, failed) = computed(sql, &rows);
            let mut alone = (Vec::new(), Vec::new());
            for (i, row) in rows.iter().enumerate() {
                let (value, wrong) = computed(sql, std::slice::from_ref(row));
                alone.0.extend(value);
                alone.1.extend(wrong.iter().map(|_| i));
            }
            prop_assert_eq!((values, failed), alone);
        }
    }
}
