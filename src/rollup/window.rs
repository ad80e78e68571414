//! Window arithmetic, as SQL functions of event time.
//!
//! A tumbling window is a group expression: [`Tumble`] gives the window's start from a timestamp. A hopping window puts
//! one row into several windows: see `hop.rs`. All windows are half-open `[start, end)`, aligned to 1970-01-01 UTC
//! shifted by the optional offset, as in Flink and RisingWave.

use std::any::Any;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::format::timestamp_type;
use crate::mutation::{Mutation, on};
use crate::time::{Micros, UTC};

/// The start of the window of width `size` that holds `time`. Floor, also before 1970.
#[inline]
pub fn window_start(time: Micros, size: Micros, offset: Micros) -> Micros {
    let shifted = time.wrapping_sub(offset);
    shifted.wrapping_sub(shifted.rem_euclid(size)).wrapping_add(offset)
}

/// Greatest common divisor: the width of the panes of a hopping window.
pub fn gcd(a: Micros, b: Micros) -> Micros {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A window function over event time, with widths in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub enum Window {
    Tumble { size: Micros, offset: Micros },
    Hop { slide: Micros, size: Micros, offset: Micros },
}

impl Window {
    pub fn size(&self) -> Micros {
        match self {
            Window::Tumble { size, .. } | Window::Hop { size, .. } => *size,
        }
    }

    /// Width of the panes that rows are folded into.
    pub fn pane(&self) -> Micros {
        match self {
            Window::Tumble { size, .. } => *size,
            Window::Hop { slide, size, .. } => gcd(*slide, *size),
        }
    }

    pub fn offset(&self) -> Micros {
        match self {
            Window::Tumble { offset, .. } | Window::Hop { offset, .. } => *offset,
        }
    }

    /// Starts of all windows that hold a row (or a whole pane that starts) at `time`, oldest first.
    pub fn starts(&self, time: Micros) -> impl Iterator<Item = Micros> {
        let (slide, size, offset) = match *self {
            Window::Tumble { size, offset } => (size, size, offset),
            Window::Hop { slide, size, offset } => (slide, size, offset),
        };
        let last = window_start(time, slide, offset);
        // The oldest window that still holds `time` starts after `time - size`.
        let mut first = window_start(time.wrapping_sub(size), slide, offset).wrapping_add(slide);
        if on(Mutation::HopForgetsOldestWindow) && first < last {
            first += slide;
        }
        (0..).map(move |k| first.wrapping_add(k * slide)).take_while(move |&start| start <= last)
    }
}

impl Window {
    /// The smallest end of a window that is after `time`.
    pub fn next_end(&self, time: Micros) -> Micros {
        let (step, size, offset) = match *self {
            Window::Tumble { size, offset } => (size, size, offset),
            Window::Hop { slide, size, offset } => (slide, size, offset),
        };
        let phase = offset.wrapping_add(size);
        window_start(time, step, phase).saturating_add(step)
    }

    /// The largest end of a window that is not after `time`.
    pub fn last_end_until(&self, time: Micros) -> Micros {
        let step = match *self {
            Window::Tumble { size, .. } => size,
            Window::Hop { slide, .. } => slide,
        };
        self.next_end(time).saturating_sub(step)
    }

    /// The ends of the first and of the last window that hold `time`.
    pub fn ends(&self, time: Micros) -> (Micros, Micros) {
        let last = self.last_end(time);
        match *self {
            Window::Tumble { .. } => (last, last),
            // Windows end every slide, so the first end after `time` is one of a window that holds it.
            Window::Hop { .. } => (self.next_end(time), last),
        }
    }

    /// The largest end of a window that holds `time`.
    pub fn last_end(&self, time: Micros) -> Micros {
        let (step, size, offset) = match *self {
            Window::Tumble { size, offset } => (size, size, offset),
            Window::Hop { slide, size, offset } => (slide, size, offset),
        };
        window_start(time, step, offset).saturating_add(size)
    }
}

/// `tumble_start(ts, size)` with the size fixed at planning time. Input: any timestamp; output: `timestamptz`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Tumble {
    size: Micros,
    offset: Micros,
    name: String,
    signature: Signature,
}

impl Tumble {
    pub fn new(size: Micros, offset: Micros) -> Tumble {
        let words = crate::time::format_duration(std::time::Duration::from_micros(size.unsigned_abs()));
        let mut name = format!("tumble[{words}");
        if offset != 0 {
            name += &format!(" offset {offset} us");
        }
        name.push(']');
        let signature = Signature::new(TypeSignature::UserDefined, Volatility::Immutable);
        Tumble { size, offset, name, signature }
    }

    /// The start of the window that holds `time`, as an expression.
    pub fn start_of(time: Expr, size: Micros, offset: Micros) -> Expr {
        Arc::new(ScalarUDF::new_from_impl(Tumble::new(size, offset))).call(vec![time])
    }

    pub fn window(&self) -> Window {
        Window::Tumble { size: self.size, offset: self.offset }
    }
}

impl ScalarUDFImpl for Tumble {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null] => {
                Ok(vec![timestamp_type()])
            }
            [other] => exec_err!("a window needs a timestamp column, not {other}"),
            _ => exec_err!("a window takes one time column"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(timestamp_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(array) => {
                let times = array.as_primitive::<TimestampMicrosecondType>();
                Ok(ColumnarValue::Array(Arc::new(self.starts(times))))
            }
            ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(time, _)) => {
                let start = time.map(|t| window_start(t, self.size, self.offset));
                Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(start, Some(UTC.into()))))
            }
            ColumnarValue::Scalar(other) => exec_err!("a window needs a timestamp, not {other}"),
        }
    }
}

impl Tumble {
    /// Neighbouring rows mostly share a window, so the division is done once per run of rows.
    fn starts(&self, times: &TimestampMicrosecondArray) -> TimestampMicrosecondArray {
        let mut start = 1;
        let mut end = 0;
        let values = times.values().iter().map(|&time| {
            if time < start || time >= end {
                start = window_start(time, self.size, self.offset);
                end = start.saturating_add(self.size);
            }
            start
        });
        let values: Vec<Micros> = values.collect();
        TimestampMicrosecondArray::new(values.into(), times.nulls().cloned()).with_timezone(UTC)
    }
}

/// The window that a group expression stands for, if it is one: our TUMBLE, or `date_bin`/`date_trunc` with constant
/// width, because that is what BI tools write. Also gives the expression for the time.
pub fn as_window(expr: &Expr) -> Option<(Window, &Expr)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let inner: &dyn Any = call.func.inner().as_ref();
    if let Some(tumble) = inner.downcast_ref::<Tumble>() {
        return Some((tumble.window(), &call.args[0]));
    }
    match (call.func.name(), call.args.as_slice()) {
        ("date_bin", [Expr::Literal(width, _), time]) => {
            let size = interval_micros(width)?;
            (size > 0).then_some((Window::Tumble { size, offset: 0 }, time))
        }
        ("date_trunc", [Expr::Literal(unit, _), time]) => {
            let size = match unit.try_as_str()??.to_ascii_lowercase().as_str() {
                "second" => 1_000_000,
                "minute" => 60_000_000,
                "hour" => 3_600_000_000,
                "day" => 86_400_000_000,
                "week" => 7 * 86_400_000_000,
                _ => return None,
            };
            Some((Window::Tumble { size, offset: 0 }, time))
        }
        _ => None,
    }
}

/// A constant interval in microseconds; `None` for anything else, and for months and years, which have no fixed length.
pub fn interval_micros(value: &ScalarValue) -> Option<Micros> {
    const DAY: Micros = 86_400_000_000;
    match value {
        ScalarValue::IntervalMonthDayNano(Some(v)) if v.months == 0 => {
            Some(Micros::from(v.days) * DAY + v.nanoseconds / 1000)
        }
        ScalarValue::IntervalDayTime(Some(v)) => Some(Micros::from(v.days) * DAY + Micros::from(v.milliseconds) * 1000),
        ScalarValue::DurationMicrosecond(Some(v)) => Some(*v),
        _ => None,
    }
}

/// The unit of a timestamp column in microseconds as a ratio: `(multiply, divide)`.
pub fn to_micros(data_type: &DataType, value: i64) -> Option<Micros> {
    match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => value.checked_mul(1_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => value.checked_mul(1000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Some(value),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(value.div_euclid(1000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_floor_also_before_1970() {
        assert_eq!(window_start(7, 5, 0), 5);
        assert_eq!(window_start(-1, 5, 0), -5);
        assert_eq!(window_start(7, 5, 3), 3);
    }

    #[test]
    fn a_row_is_in_size_over_slide_windows() {
        let hop = Window::Hop { slide: 2, size: 10, offset: 0 };
        assert_eq!(hop.starts(11).collect::<Vec<_>>(), [2, 4, 6, 8, 10]);
        let uneven = Window::Hop { slide: 4, size: 6, offset: 0 };
        assert_eq!(uneven.pane(), 2);
        assert_eq!(uneven.starts(4).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(uneven.starts(6).collect::<Vec<_>>(), [4]);
        let tumble = Window::Tumble { size: 10, offset: 0 };
        assert_eq!(tumble.starts(-3).collect::<Vec<_>>(), [-10]);
    }
}
