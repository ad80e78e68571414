//! Scalar functions that cut time into buckets, and which window each is: `time_bucket`, which TimescaleDB's users write,
//! and `date_trunc` with a time zone as PostgreSQL has it. A GROUP BY over one of them is a windowed rollup.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimestampMicrosecondType};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    Coercion, ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    TypeSignatureClass, Volatility,
};

use super::calendar::{ANCHOR, Calendar, Step, unit, zone};
use super::window::{Window, around, bounds_of, in_utc, interval_micros, timestamp_micros};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::time::{Micros, UTC};

/// The functions of this file. `date_trunc` goes on doing what it did with two arguments.
pub fn functions() -> [ScalarUDF; 2] {
    [ScalarUDF::new_from_impl(TimeBucket::new()), ScalarUDF::new_from_impl(DateTrunc::new())]
}

/// The window of `time_bucket(width, ts, rest…)`: among the rest may be an origin (timestamp), an offset (interval) and
/// a time zone (text). Like TimescaleDB's, buckets are counted from Monday 2000-01-03, those of months from 2000-01.
pub fn time_bucket(width: &ScalarValue, rest: &[ScalarValue]) -> Result<Window> {
    let wrong = |message: String| {
        Error::new(Kind::InvalidParameter, message)
            .with_hint("The form is time_bucket(width, ts [, origin | offset | time zone]).")
    };
    let step = match (width, interval_micros(width)) {
        (_, Some(micros)) if micros > 0 && micros % DAY == 0 => Step::Days(micros / DAY),
        (_, Some(micros)) if micros > 0 => Step::Time(micros),
        (ScalarValue::IntervalMonthDayNano(Some(v)), None) if v.months > 0 && v.days == 0 && v.nanoseconds == 0 => {
            Step::Months(v.months.into())
        }
        _ => return Err(wrong(format!("{width} is not a width that time_bucket can count in"))),
    };
    let (mut shift, mut place) = (None, None);
    for value in rest {
        match value {
            ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)) | ScalarValue::LargeUtf8(Some(name)) => {
                place = Some(zone(name)?);
            }
            other => {
                let offset = interval_micros(other).map(|offset| offset.wrapping_add(ANCHOR));
                let from = offset.or_else(|| timestamp_micros(other));
                shift = Some(from.ok_or_else(|| wrong(format!("{other} is no origin, offset or time zone")))?);
            }
        }
    }
    match (place, shift, in_utc(step)) {
        (Some(zone), None, _) => Ok(Window::Calendar(Calendar { step, zone })),
        (None, None, window) => Ok(window),
        (None, Some(from), Window::Tumble { size, .. }) => Ok(Window::Tumble { size, offset: from.rem_euclid(size) }),
        _ => Err(wrong("an origin or offset goes with widths in days or less, and not with a time zone".into())),
    }
}

const DAY: Micros = 86_400_000_000;

/// The window of `date_trunc(unit, ts [, time zone])`.
pub fn date_trunc(name: &ScalarValue, rest: &[ScalarValue]) -> Result<Window> {
    let text = |value: &ScalarValue| value.try_as_str().flatten().map(str::to_string);
    let bad = |what: &str| Error::new(Kind::InvalidParameter, format!("{what} of date_trunc must be a constant text"));
    let name = text(name).ok_or_else(|| bad("the unit"))?;
    let Some(step) = unit(&name) else {
        return Err(Error::new(Kind::InvalidParameter, format!("unit \"{name}\" is not known to date_trunc"))
            .with_hint("Use second, minute, hour, day, week, month, quarter or year."));
    };
    match rest {
        [] => Ok(in_utc(step)),
        [place] => {
            let zone = zone(&text(place).ok_or_else(|| bad("the time zone"))?)?;
            Ok(Window::Calendar(Calendar { step, zone }))
        }
        _ => Err(Error::new(Kind::Syntax, "date_trunc takes two or three arguments")),
    }
}

/// The start of each time's window.
fn starts(window: &Window, times: &ColumnarValue) -> DfResult<ColumnarValue> {
    match times {
        ColumnarValue::Array(array) => {
            let times = array.as_primitive::<TimestampMicrosecondType>();
            Ok(ColumnarValue::Array(Arc::new(bounds_of(window, false, times))))
        }
        ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(time, _)) => {
            let start = time.map(|t| around(window, t).0);
            Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(start, Some(UTC.into()))))
        }
        ColumnarValue::Scalar(other) => exec_err!("a window needs a timestamp, not {other}"),
    }
}

/// The arguments at these places, which must be constants.
fn constants(name: &str, args: &[ColumnarValue]) -> DfResult<Vec<ScalarValue>> {
    let value = |arg: &ColumnarValue| match arg {
        ColumnarValue::Scalar(value) => Ok(value.clone()),
        ColumnarValue::Array(_) => exec_err!("all arguments of {name} but the time must be constants"),
    };
    args.iter().map(value).collect()
}

/// See [`time_bucket`].
#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeBucket {
    signature: Signature,
}

impl TimeBucket {
    fn new() -> TimeBucket {
        TimeBucket { signature: Signature::new(TypeSignature::UserDefined, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &str {
        "time_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [_, time, rest @ ..] = types else { return exec_err!("time_bucket takes a width and a time") };
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        if !matches!(time, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null)
            && !time.is_string()
        {
            return exec_err!("time_bucket needs a timestamp, not {time}");
        }
        let rest = rest.iter().map(|given| match given {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => timestamp_type(),
            DataType::Interval(_) => interval.clone(),
            other => other.clone(),
        });
        let mut wanted = vec![interval.clone(), timestamp_type()];
        wanted.extend(rest);
        Ok(wanted)
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(timestamp_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let width = constants(self.name(), &args.args[..1])?.remove(0);
        let window = time_bucket(&width, &constants(self.name(), &args.args[2..])?)?;
        starts(&window, &args.args[1])
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> DfResult<SortProperties> {
        Ok(inputs.get(1).map_or(SortProperties::Unordered, |time| time.sort_properties))
    }
}

/// DataFusion's `date_trunc`, and the form with a time zone, whose result is the instant at which the local day (hour,
/// month, …) began.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    plain: Arc<ScalarUDF>,
    signature: Signature,
}

impl DateTrunc {
    fn new() -> DateTrunc {
        let plain = datafusion::functions::datetime::date_trunc();
        let text = || Coercion::new_exact(TypeSignatureClass::Native(datafusion::common::types::logical_string()));
        let zoned = vec![text(), Coercion::new_exact(TypeSignatureClass::Timestamp), text()];
        let forms = vec![plain.signature().type_signature.clone(), TypeSignature::Coercible(zoned)];
        let signature = Signature::one_of(forms, Volatility::Immutable);
        DateTrunc { plain, signature }
    }
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        "date_trunc"
    }

    fn aliases(&self) -> &[String] {
        self.plain.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        if types.len() == 3 { Ok(timestamp_type()) } else { self.plain.return_type(types) }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        match args.arg_fields {
            [_, time, _] => Ok(Arc::new(Field::new(self.name(), timestamp_type(), time.is_nullable()))),
            _ => self.plain.return_field_from_args(args),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [name, time, place] = args.args.as_slice() else { return self.plain.invoke_with_args(args) };
        let constants = constants(self.name(), &[name.clone(), place.clone()])?;
        let window = date_trunc(&constants[0], &constants[1..])?;
        starts(&window, &time.cast_to(&timestamp_type(), None)?)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> DfResult<SortProperties> {
        // Not with a zone: where clocks go back, a later hour may have an earlier start than one before.
        if inputs.len() == 2 { self.plain.output_ordering(inputs) } else { Ok(SortProperties::Unordered) }
    }

    fn documentation(&self) -> Option<&datafusion::logical_expr::Documentation> {
        self.plain.documentation()
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::IntervalMonthDayNano;

    use super::*;

    fn interval(months: i32, days: i32, seconds: i64) -> ScalarValue {
        ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, seconds * 1_000_000_000)))
    }

    #[test]
    fn buckets_are_counted_from_a_monday() {
        let week = time_bucket(&interval(0, 7, 0), &[]).unwrap();
        // 1970-01-01 was a Thursday; its week began three days before.
        assert_eq!(around(&week, 0), (-3 * DAY, 4 * DAY));
        let minute = time_bucket(&interval(0, 0, 60), &[]).unwrap();
        assert_eq!(minute, Window::Tumble { size: 60_000_000, offset: 0 });
        let shifted = time_bucket(&interval(0, 0, 60), &[interval(0, 0, 7)]).unwrap();
        assert_eq!(shifted, Window::Tumble { size: 60_000_000, offset: 7_000_000 });
        let origin = ScalarValue::TimestampSecond(Some(90), None);
        let from = time_bucket(&interval(0, 0, 60), &[origin]).unwrap();
        assert_eq!(from, Window::Tumble { size: 60_000_000, offset: 30_000_000 });
    }

    #[test]
    fn months_and_zones_are_calendars() {
        let quarter = time_bucket(&interval(3, 0, 0), &[]).unwrap();
        assert_eq!(around(&quarter, 0).1, 90 * DAY);
        let berlin = ScalarValue::Utf8(Some("Europe/Berlin".into()));
        let day = time_bucket(&interval(0, 1, 0), std::slice::from_ref(&berlin)).unwrap();
        assert_eq!(around(&day, 0), (-DAY / 24, DAY - DAY / 24));
        assert_eq!(day, date_trunc(&ScalarValue::Utf8(Some("day".into())), &[berlin]).unwrap());
        assert!(time_bucket(&interval(1, 1, 0), &[]).is_err());
        assert!(time_bucket(&interval(0, 0, 0), &[]).is_err());
        assert!(time_bucket(&interval(1, 0, 0), &[interval(0, 1, 0)]).is_err());
    }
}
