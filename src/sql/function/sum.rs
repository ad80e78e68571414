//! `sum` of whole numbers, which ends with an error (22003) where a `bigint` cannot hold it; DataFusion's goes round. Of
//! other types it is DataFusion's. (PostgreSQL's is a `numeric` there.)
//!
//! Whether a sum fits is told when somebody reads it, and not while it is kept up to date: one group that grows too large
//! must not stop a view. Until then [`OUT`] stands for it in partial states, and stays whatever is added.

use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, Expr, GroupsAccumulator, Operator,
    ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
};

use crate::batch::arithmetic::out_of_range;
use crate::error::Error;

/// A sum that is out of range. That this number can be no sum itself is the price.
const OUT: i64 = i64::MIN;

/// The function's name.
pub const NAME: &str = "sum";

/// The function.
pub fn function() -> AggregateUDF {
    AggregateUDF::new_from_impl(WholeSum(Sum::new()))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WholeSum(Sum);

fn is_whole(arguments: &AccumulatorArgs<'_>) -> bool {
    !arguments.is_distinct && *arguments.return_field.data_type() == DataType::Int64
}

impl AggregateUDFImpl for WholeSum {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        self.0.return_type(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> DfResult<Box<dyn Accumulator>> {
        if is_whole(&arguments) { Ok(Box::<Total>::default()) } else { self.0.accumulator(arguments) }
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs<'_>) -> DfResult<Box<dyn Accumulator>> {
        if is_whole(&arguments) { Ok(Box::<Total>::default()) } else { self.0.create_sliding_accumulator(arguments) }
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs<'_>) -> DfResult<Box<dyn GroupsAccumulator>> {
        if is_whole(&arguments) { Ok(Box::<Totals>::default()) } else { self.0.create_groups_accumulator(arguments) }
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs<'_>) -> bool {
        self.0.groups_accumulator_supported(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> DfResult<Vec<FieldRef>> {
        self.0.state_fields(arguments)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.0.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.0.order_sensitivity()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.0.set_monotonicity(data_type)
    }

    fn simplify_expr_op_literal(
        &self,
        call: &AggregateFunction,
        argument: &Expr,
        operator: Operator,
        literal: &Expr,
        is_left: bool,
    ) -> DfResult<Option<Expr>> {
        self.0.simplify_expr_op_literal(call, argument, operator, literal, is_left)
    }

    fn value_from_stats(&self, statistics: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.0.value_from_stats(statistics)
    }
}

fn numbers(array: &ArrayRef) -> DfResult<&Int64Array> {
    array
        .as_primitive_opt::<Int64Type>()
        .ok_or_else(|| Error::internal(format!("a sum of whole numbers was given {}", array.data_type())).into())
}

fn whole(arrays: &[ArrayRef]) -> DfResult<&Int64Array> {
    match arrays {
        [array] => numbers(array),
        _ => Err(Error::internal(format!("a sum has one argument and one state, not {}", arrays.len())).into()),
    }
}

/// The sum of all rows, exact.
#[derive(Debug, Default)]
struct Total {
    sum: i128,
    rows: u64,
    /// Where a partial sum was out of range nothing is known any more.
    is_out: bool,
}

impl Total {
    fn value(&self) -> Option<i64> {
        (self.rows > 0).then(|| i64::try_from(self.sum).ok().filter(|_| !self.is_out).unwrap_or(OUT))
    }
}

/// The sum of the rows that are not NULL, and their number.
fn sum_of(array: &Int64Array) -> (i128, u64) {
    let values = array.values();
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => (exact(values), values.len() as u64),
        Some(nulls) => {
            let sum = nulls.valid_slices().map(|(from, to)| exact(&values[from..to])).sum();
            (sum, (values.len() - nulls.null_count()) as u64)
        }
    }
}

/// Both halves of the numbers, each of which is added up without a look at its range.
fn exact(values: &[i64]) -> i128 {
    // So many halves do not leave 63 bits.
    let chunks = values.chunks(1 << 30).map(|values| {
        let (high, low) = values.iter().fold((0, 0), |(high, low), n| (high + (n >> 32), low + (n & 0xffff_ffff)));
        (i128::from(high) << 32) + i128::from(low)
    });
    chunks.sum()
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let (sum, rows) = sum_of(whole(values)?);
        self.sum += sum;
        self.rows += rows;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let (sum, rows) = sum_of(whole(values)?);
        self.sum -= sum;
        self.rows = self.rows.saturating_sub(rows);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Int64(self.value())])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        let states = whole(states)?;
        self.is_out |= states.iter().flatten().any(|sum| sum == OUT);
        let (sum, rows) = sum_of(states);
        self.sum += sum;
        self.rows += rows;
        Ok(())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        match self.value() {
            Some(OUT) => Err(out_of_range(&DataType::Int64).into()),
            sum => Ok(ScalarValue::Int64(sum)),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sums of many groups.
#[derive(Debug, Default)]
struct Totals {
    sums: Vec<i64>,
    /// Whether a group has a sum.
    seen: Vec<bool>,
}

impl Totals {
    fn add(&mut self, group: usize, number: i64) {
        let sum = &mut self.sums[group];
        // Once it is out of range it stays so; before the first row it is 0.
        *sum = if *sum == OUT { OUT } else { sum.checked_add(number).unwrap_or(OUT) };
        self.seen[group] = true;
    }

    fn take(&mut self, emit: EmitTo) -> Int64Array {
        let (sums, seen) = (emit.take_needed(&mut self.sums), emit.take_needed(&mut self.seen));
        Int64Array::new(sums.into(), Some(seen.into()).filter(|seen: &arrow::buffer::NullBuffer| seen.null_count() > 0))
    }
}

impl GroupsAccumulator for Totals {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> DfResult<()> {
        let values = whole(values)?;
        self.sums.resize(count, 0);
        self.seen.resize(count, false);
        if values.null_count() == 0 && filter.is_none() {
            for (group, number) in groups.iter().zip(values.values()) {
                self.add(*group, *number);
            }
            return Ok(());
        }
        for (row, group) in groups.iter().enumerate() {
            let counts = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if counts && values.is_valid(row) {
                self.add(*group, values.value(row));
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> DfResult<()> {
        let sums = whole(states)?;
        self.update_batch(states, groups, None, count)?;
        for (sum, group) in sums.iter().zip(groups) {
            if sum == Some(OUT) {
                self.sums[*group] = OUT;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> DfResult<ArrayRef> {
        let sums = self.take(emit);
        if sums.iter().flatten().any(|sum| sum == OUT) {
            return Err(out_of_range(&DataType::Int64).into());
        }
        Ok(Arc::new(sums))
    }

    fn state(&mut self, emit: EmitTo) -> DfResult<Vec<ArrayRef>> {
        Ok(vec![Arc::new(self.take(emit))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> DfResult<Vec<ArrayRef>> {
        let values = whole(values)?;
        Ok(vec![match filter {
            None => Arc::new(values.clone()),
            Some(filter) => {
                // A row whose condition is NULL does not count either.
                let counts = match filter.null_count() {
                    0 => filter.clone(),
                    _ => arrow::compute::prep_null_mask_filter(filter),
                };
                arrow::compute::nullif(values, &arrow::compute::not(&counts)?)?
            }
        }])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i64>() + self.seen.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: impl IntoIterator<Item = Option<i64>>) -> [ArrayRef; 1] {
        [Arc::new(values.into_iter().collect::<Int64Array>())]
    }

    fn code(result: DfResult<impl std::fmt::Debug>) -> &'static str {
        Error::from(result.expect_err("it is out of range")).kind().sqlstate()
    }

    #[test]
    fn one_sum_is_exact_whatever_the_order() {
        let mut total = Total::default();
        assert_eq!(total.evaluate().unwrap(), ScalarValue::Int64(None));
        total.update_batch(&column([Some(i64::MAX), None, Some(i64::MAX), Some(-7)])).unwrap();
        assert_eq!(code(total.evaluate()), "22003");
        total.update_batch(&column([Some(i64::MIN), Some(i64::MIN), Some(5)])).unwrap();
        assert_eq!(total.evaluate().unwrap(), ScalarValue::Int64(Some(-4)));
        total.retract_batch(&column([Some(-7)])).unwrap();
        assert_eq!(total.evaluate().unwrap(), ScalarValue::Int64(Some(3)));
    }

    #[test]
    fn rows_become_states_where_their_condition_holds() {
        let [values] = column([Some(1), None, Some(3), Some(4)]);
        for (filter, expected) in [
            (None, [Some(1), None, Some(3), Some(4)]),
            (Some([Some(true), Some(true), Some(false), Some(true)]), [Some(1), None, None, Some(4)]),
            (Some([Some(true), Some(true), None, Some(false)]), [Some(1), None, None, None]),
        ] {
            let filter = filter.map(BooleanArray::from_iter);
            let states = Totals::default().convert_to_state(&[Arc::clone(&values)], filter.as_ref()).unwrap();
            assert_eq!(numbers(&states[0]).unwrap(), &Int64Array::from_iter(expected));
        }
    }

    #[test]
    fn a_partial_sum_out_of_range_stays_so() {
        let mut part = Total::default();
        part.update_batch(&column([Some(i64::MAX), Some(1)])).unwrap();
        let state = part.state().unwrap().remove(0).to_array().unwrap();
        let mut total = Total::default();
        total.merge_batch(&[Arc::clone(&state)]).unwrap();
        total.merge_batch(&column([Some(1)])).unwrap();
        assert_eq!(code(total.evaluate()), "22003");

        let mut totals = Totals::default();
        totals.merge_batch(&column([Some(1), Some(2)]), &[0, 1], 2).unwrap();
        totals.merge_batch(&[state], &[0], 2).unwrap();
        totals.merge_batch(&column([Some(i64::MAX), Some(3)]), &[0, 1], 2).unwrap();
        let first = totals.state(EmitTo::First(1)).unwrap().remove(0);
        assert_eq!(numbers(&first).unwrap().value(0), OUT);
        assert_eq!(numbers(&totals.evaluate(EmitTo::All).unwrap()).unwrap().values(), &[5]);
    }

    #[test]
    fn groups_have_sums_of_their_own() {
        let mut totals = Totals::default();
        let filter = BooleanArray::from(vec![Some(true), None, Some(true), Some(false), Some(true)]);
        let values = column([Some(1), Some(2), None, Some(4), Some(i64::MAX)]);
        totals.update_batch(&values, &[0, 0, 1, 2, 3], Some(&filter), 4).unwrap();
        totals.update_batch(&column([Some(-1)]), &[3], None, 5).unwrap();
        let sums = totals.evaluate(EmitTo::All).unwrap();
        let expected = [Some(1), None, None, Some(i64::MAX - 1), None];
        assert_eq!(numbers(&sums).unwrap().iter().collect::<Vec<_>>(), expected);

        totals.update_batch(&column([Some(i64::MIN + 1), Some(-2)]), &[0, 0], None, 1).unwrap();
        assert_eq!(code(totals.evaluate(EmitTo::All)), "22003");
        let states = totals.convert_to_state(&values, Some(&filter)).unwrap();
        let expected = [Some(1), None, None, None, Some(i64::MAX)];
        assert_eq!(numbers(&states[0]).unwrap().iter().collect::<Vec<_>>(), expected);
    }
}
