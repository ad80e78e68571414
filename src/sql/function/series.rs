//! Rows out of one value: the arrays behind PostgreSQL's set-returning functions. [`super::super::rewrite`] makes
//! `generate_series(…)`, `unnest(…) WITH ORDINALITY`, `regexp_split_to_table(…)` and the like into `unnest` of one of these.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, Float64Builder, Int64Builder, ListArray, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Float64Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Months};
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Type, unchecked};
use crate::error::{Error, Kind};
use crate::time::UTC;

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "series",
        syntax: "series(start, stop [, step])",
        summary: "what generate_series calls for what is no literal: numbers or times from start to stop, as an array",
        sample: ("series(1, 3)", "{1,2,3}"),
        forms: &[&[Type::Any, Type::Any], &[Type::Any, Type::Any, Type::Any]],
        result: Type::Series,
        check: unchecked,
        rows: series,
    },
    Scalar {
        name: "subscripts",
        syntax: "subscripts(array)",
        summary: "what WITH ORDINALITY and generate_subscripts call: the numbers of an array's elements",
        sample: ("subscripts(ARRAY['a', 'b'])", "{1,2}"),
        forms: &[&[Type::Any]],
        result: Type::Bigints,
        check: unchecked,
        rows: |arguments| subscripts(&arguments.array(0)?),
    },
];

/// More elements are a mistake, and would fill the memory.
const MAX_ELEMENTS: usize = 10_000_000;

/// The type of the elements of a series that starts with a value of this type.
pub fn element(start: &DataType) -> DataType {
    match start {
        narrow if narrow.is_integer() => match narrow {
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => DataType::Int64,
            _ => DataType::Int32,
        },
        number if number.is_numeric() => DataType::Float64,
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        // A date is a time with a zone here, as in PostgreSQL.
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => crate::format::timestamp_type(),
        // A literal.
        _ => DataType::Int64,
    }
}

fn too_many() -> Error {
    Error::new(Kind::ResourceLimit, format!("generate_series would give more than {MAX_ELEMENTS} rows here"))
        .with_hint("Whole numbers that are written in the query may be as many as you like.")
}

fn series(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let starts = arguments.array(0)?;
    let of = element(starts.data_type());
    let (rows, count) = (arguments.rows, arguments.count());
    let step = |wanted: &DataType| -> DfResult<Option<ArrayRef>> {
        if count < 3 { Ok(None) } else { Ok(Some(cast(&arguments.array(2)?, wanted)?)) }
    };
    let zero = || Error::new(Kind::InvalidParameter, "step size cannot equal zero");
    let mut ends = vec![0];
    let mut valid = Vec::with_capacity(rows);
    let values: ArrayRef = match &of {
        DataType::Int32 | DataType::Int64 => {
            let (starts, stops) = (cast(&starts, &DataType::Int64)?, cast(&arguments.array(1)?, &DataType::Int64)?);
            let steps = step(&DataType::Int64)?;
            let (starts, stops) = (starts.as_primitive::<Int64Type>(), stops.as_primitive::<Int64Type>());
            let mut values = Int64Builder::new();
            for row in 0..rows {
                let step = steps.as_ref().map(|steps| steps.as_primitive::<Int64Type>());
                let is_null = starts.is_null(row) || stops.is_null(row) || step.is_some_and(|s| s.is_null(row));
                valid.push(!is_null);
                if !is_null {
                    let step = step.map_or(1, |step| step.value(row));
                    let (mut at, stop) = (starts.value(row), stops.value(row));
                    if step == 0 {
                        return Err(zero().into());
                    }
                    while (step > 0 && at <= stop) || (step < 0 && at >= stop) {
                        values.append_value(at);
                        if values.len() > MAX_ELEMENTS {
                            return Err(too_many().into());
                        }
                        let Some(next) = at.checked_add(step) else { break };
                        at = next;
                    }
                }
                ends.push(values.len() as i32);
            }
            cast(&values.finish(), &of)?
        }
        DataType::Float64 => {
            let (starts, stops) = (cast(&starts, &DataType::Float64)?, cast(&arguments.array(1)?, &DataType::Float64)?);
            let steps = step(&DataType::Float64)?;
            let (starts, stops) = (starts.as_primitive::<Float64Type>(), stops.as_primitive::<Float64Type>());
            let mut values = Float64Builder::new();
            for row in 0..rows {
                let step = steps.as_ref().map(|steps| steps.as_primitive::<Float64Type>());
                let is_null = starts.is_null(row) || stops.is_null(row) || step.is_some_and(|s| s.is_null(row));
                valid.push(!is_null);
                if !is_null {
                    let step = step.map_or(1.0, |step| step.value(row));
                    let (start, stop) = (starts.value(row), stops.value(row));
                    if step == 0.0 || !step.is_finite() || !start.is_finite() || !stop.is_finite() {
                        return Err(zero().into());
                    }
                    // Each from the start, so that errors do not add up.
                    let mut n = 0.0;
                    while (step > 0.0 && start + n * step <= stop) || (step < 0.0 && start + n * step >= stop) {
                        values.append_value(start + n * step);
                        if values.len() > MAX_ELEMENTS {
                            return Err(too_many().into());
                        }
                        n += 1.0;
                    }
                }
                ends.push(values.len() as i32);
            }
            Arc::new(values.finish())
        }
        _ => {
            let time = |array: &ArrayRef| -> DfResult<TimestampMicrosecondArray> {
                let plain = DataType::Timestamp(TimeUnit::Microsecond, None);
                let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
                let array = if array.data_type().is_string() { cast(array, &zoned)? } else { Arc::clone(array) };
                Ok(cast(&array, &plain)?.as_primitive::<TimestampMicrosecondType>().clone())
            };
            let (starts, stops) = (time(&starts)?, time(&arguments.array(1)?)?);
            let steps = step(&DataType::Interval(IntervalUnit::MonthDayNano))?;
            let Some(steps) = steps else {
                let message = "function generate_series(timestamp, timestamp) does not exist";
                return Err(Error::new(Kind::UndefinedFunction, message)
                    .with_hint("Times need a step, such as INTERVAL '1 hour'.")
                    .into());
            };
            let steps = steps.as_primitive::<IntervalMonthDayNanoType>();
            let mut values = TimestampMicrosecondBuilder::new();
            for row in 0..rows {
                let is_null = starts.is_null(row) || stops.is_null(row) || steps.is_null(row);
                valid.push(!is_null);
                if !is_null {
                    let step = steps.value(row);
                    let micros = i64::from(step.days) * 86_400_000_000 + step.nanoseconds / 1000;
                    let direction = i64::from(step.months) * 30 * 86_400_000_000 + micros;
                    if direction == 0 {
                        return Err(zero().into());
                    }
                    let (mut at, stop) = (starts.value(row), stops.value(row));
                    while (direction > 0 && at <= stop) || (direction < 0 && at >= stop) {
                        values.append_value(at);
                        if values.len() > MAX_ELEMENTS {
                            return Err(too_many().into());
                        }
                        let next = later(at, step.months).and_then(|at| at.checked_add(micros));
                        let Some(next) = next.filter(|next| *next != at) else { break };
                        at = next;
                    }
                }
                ends.push(values.len() as i32);
            }
            let values = values.finish();
            match &of {
                DataType::Timestamp(_, Some(_)) => Arc::new(values.with_timezone(UTC)),
                _ => Arc::new(values),
            }
        }
    };
    let field = Arc::new(Field::new_list_field(of, true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::new(ends.into()), values, Some(NullBuffer::from(valid)))?))
}

/// So many months later; the last day of a month where that is shorter.
pub fn later(micros: i64, months: i32) -> Option<i64> {
    if months == 0 {
        return Some(micros);
    }
    let time = DateTime::from_timestamp_micros(micros)?;
    let by = Months::new(months.unsigned_abs());
    let time = if months > 0 { time.checked_add_months(by) } else { time.checked_sub_months(by) };
    Some(time?.timestamp_micros())
}

fn subscripts(array: &ArrayRef) -> DfResult<ArrayRef> {
    let DataType::List(_) = array.data_type() else {
        return Ok(new_null_array(&Type::Bigints.arrow(), array.len()));
    };
    let list = array.as_list::<i32>();
    let mut ends = vec![0];
    let mut values = Int64Builder::new();
    for row in 0..list.len() {
        let length = if list.is_null(row) { 0 } else { list.value_length(row) };
        (1..=i64::from(length)).for_each(|number| values.append_value(number));
        ends.push(values.len() as i32);
    }
    let field = Arc::new(Field::new_list_field(DataType::Int64, true));
    let nulls = list.nulls().cloned();
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::new(ends.into()), Arc::new(values.finish()), nulls)?))
}
