//! Window arithmetic, as SQL functions of event time.
//!
//! ```text
//!     TUMBLE      |----|----|----|----|      each row in one window
//!     HOP         |--------|                 a window starts every slide, each row in size/slide of them
//!                     |--------|
//!     CUMULATE    |----|                     windows that start together and end a step later each
//!                 |--------|
//!     SESSION     |---|   |------|  |-|      as long as rows follow each other in less than the gap
//!     calendar    |-31 days-|-28 days-|      what date_trunc('month', …) makes
//! ```
//!
//! All are half-open `[start, end)`; those of fixed width are aligned to 1970-01-01 UTC shifted by the optional offset,
//! as in Flink and RisingWave. A tumbling or calendar window is a group expression: [`Bound`] gives its start from a
//! timestamp. Hopping and cumulating windows put one row into several windows: rows are folded by *pane*, the widest
//! stretch of time that no window cuts, and the panes are *spread* over windows when they are read (`spread.rs`).
//! Each window has an *id*, from which both bounds follow. Sessions depend on the rows around: see `session.rs`.

use std::any::Any;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TryCast, TypeSignature,
    Volatility, lit,
};

use super::calendar::{self, Calendar, Step};
use crate::format::timestamp_type;
use crate::mutation::{Mutation, on};
use crate::time::{Micros, UTC};

/// Names of the two columns that a window function in FROM adds.
pub const WINDOW_START: &str = "window_start";
pub const WINDOW_END: &str = "window_end";

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    Tumble { size: Micros, offset: Micros },
    Hop { slide: Micros, size: Micros, offset: Micros },
    Cumulate { step: Micros, size: Micros, offset: Micros },
    Calendar(Calendar),
    Session { gap: Micros, max_span: Option<Micros> },
}

/// Ids of windows: an arithmetic sequence, oldest first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ids {
    pub first: Micros,
    pub last: Micros,
    pub step: Micros,
}

impl Iterator for Ids {
    type Item = Micros;

    fn next(&mut self) -> Option<Micros> {
        let id = (self.first <= self.last).then_some(self.first)?;
        self.first = id.saturating_add(self.step);
        Some(id)
    }
}

impl Window {
    /// Whether one pane belongs to several windows.
    pub fn spreads(&self) -> bool {
        matches!(self, Window::Hop { .. } | Window::Cumulate { .. })
    }

    pub fn is_session(&self) -> bool {
        matches!(self, Window::Session { .. })
    }

    /// Whether each row is in one window, which it tells by itself.
    pub fn of_a_row(&self) -> bool {
        matches!(self, Window::Tumble { .. } | Window::Calendar(_))
    }

    /// Width of the panes that rows are folded into, where it is fixed.
    pub fn pane(&self) -> Option<Micros> {
        match *self {
            Window::Tumble { size, .. } => Some(size),
            Window::Hop { slide, size, .. } => Some(gcd(slide, size)),
            Window::Cumulate { step, .. } => Some(step),
            Window::Calendar(_) | Window::Session { .. } => None,
        }
    }

    /// The window that the panes of a spreading window are: each row in one.
    pub fn panes(&self) -> Window {
        match *self {
            Window::Hop { slide, size, offset } => Window::Tumble { size: gcd(slide, size), offset },
            Window::Cumulate { step, offset, .. } => Window::Tumble { size: step, offset },
            Window::Tumble { .. } | Window::Calendar(_) | Window::Session { .. } => *self,
        }
    }

    /// In how many windows a pane is, at most.
    pub fn factor(&self) -> usize {
        match *self {
            Window::Hop { slide: every, size, .. } | Window::Cumulate { step: every, size, .. } => {
                usize::try_from(size / every).unwrap_or(usize::MAX)
            }
            Window::Tumble { .. } | Window::Calendar(_) | Window::Session { .. } => 1,
        }
    }

    /// Ids of all windows that hold the whole of `[from, to)`. None for sessions: those depend on the rows.
    pub fn ids(&self, from: Micros, to: Micros) -> Ids {
        match *self {
            Window::Tumble { size, offset } => Window::Hop { slide: size, size, offset }.ids(from, to),
            Window::Hop { slide, size, offset } if size > slide && on(Mutation::HopForgetsOldestWindow) => {
                Window::Hop { slide, size: size - slide, offset }.ids(from, to)
            }
            Window::Hop { slide, size, offset } => Ids {
                // The oldest window that still holds the last microsecond starts at `to - size` or after.
                first: window_start(to.wrapping_sub(size).wrapping_sub(1), slide, offset).wrapping_add(slide),
                last: window_start(from, slide, offset),
                step: slide,
            },
            Window::Cumulate { step, size, offset } => Ids {
                first: window_start(to.wrapping_sub(1), step, offset)
                    .wrapping_add(step * (1 + Micros::from(on(Mutation::CumulateForgetsFirstStep)))),
                last: window_start(from, size, offset).wrapping_add(size),
                step,
            },
            Window::Calendar(calendar) => {
                let start = calendar.start(from);
                let last = if calendar.end(from) >= to { start } else { start.wrapping_sub(1) };
                Ids { first: start, last, step: 1 }
            }
            Window::Session { .. } => Ids { first: 0, last: -1, step: 1 },
        }
    }

    /// The panes that windows with ids in a closed range are made of: the closed range of pane starts (more may be in
    /// it). A session's pieces cannot be told from its start.
    pub fn panes_of(&self, (lo, hi): (Micros, Micros)) -> (Micros, Micros) {
        match *self {
            Window::Tumble { .. } | Window::Calendar(_) => (lo, hi),
            Window::Hop { slide, size, .. } if on(Mutation::PaneOffByOne) => (lo, hi + size - 2 * gcd(slide, size)),
            Window::Hop { size, .. } => (lo, hi.saturating_add(size)),
            Window::Cumulate { size, .. } => (lo.saturating_sub(size), hi),
            Window::Session { max_span: Some(span), .. } => (lo.saturating_sub(span), hi.saturating_add(span)),
            Window::Session { max_span: None, .. } => (Micros::MIN, Micros::MAX),
        }
    }

    /// Start and end of the window with this id; none for sessions.
    pub fn bounds(&self, id: Micros) -> Option<(Micros, Micros)> {
        match *self {
            Window::Tumble { size, .. } | Window::Hop { size, .. } => Some((id, id.wrapping_add(size))),
            Window::Cumulate { size, offset, .. } => Some((window_start(id.wrapping_sub(1), size, offset), id)),
            Window::Calendar(calendar) => Some((id, calendar.end(id))),
            Window::Session { .. } => None,
        }
    }

    /// How many windows end after the watermark, up to those of the newest pane. Of sessions none are known.
    pub fn open(&self, newest_pane: Micros, watermark: Micros) -> i64 {
        const MOST: usize = 1_000_000;
        let Some((start, end)) = self.bounds(self.ids(newest_pane, newest_pane.saturating_add(1)).last) else {
            return 0;
        };
        let ahead = end.saturating_sub(watermark).max(0);
        match *self {
            Window::Tumble { size: every, .. }
            | Window::Hop { slide: every, .. }
            | Window::Cumulate { step: every, .. } => ahead.saturating_add(every - 1) / every,
            Window::Calendar(calendar) => {
                let starts = std::iter::successors(Some(start), |start| Some(calendar.start(start - 1)));
                starts.take_while(|start| calendar.end(*start) > watermark).take(MOST).count() as i64
            }
            Window::Session { .. } => 0,
        }
    }

    /// The start of the window, as an expression over its id.
    pub fn start_of(&self, id: Expr) -> Expr {
        match *self {
            Window::Cumulate { size, offset, .. } => Bound::start(Window::Tumble { size, offset }, id - interval(1)),
            Window::Tumble { .. } | Window::Hop { .. } | Window::Calendar(_) | Window::Session { .. } => id,
        }
    }

    /// The end of the window, as an expression over its id.
    pub fn end_of(&self, id: Expr) -> Expr {
        match *self {
            Window::Tumble { size, .. } | Window::Hop { size, .. } => id + interval(size),
            Window::Calendar(_) => Bound::end(*self, id),
            Window::Cumulate { .. } | Window::Session { .. } => id,
        }
    }
}

impl Window {
    /// The smallest end of a window that is after `time`. Where sessions end depends on the rows: something between
    /// now and the gap is given.
    pub fn next_end(&self, time: Micros) -> Micros {
        match *self {
            Window::Tumble { size, offset } => window_start(time, size, offset).saturating_add(size),
            Window::Hop { slide, size, offset } => {
                window_start(time, slide, offset.wrapping_add(size)).saturating_add(slide)
            }
            Window::Cumulate { step, offset, .. } => window_start(time, step, offset).saturating_add(step),
            Window::Calendar(calendar) => calendar.end(time),
            Window::Session { gap, .. } => time.saturating_add((gap / 4).max(1)),
        }
    }

    /// The largest end of a window that is not after `time`.
    pub fn last_end_until(&self, time: Micros) -> Micros {
        match *self {
            Window::Tumble { size: every, .. }
            | Window::Hop { slide: every, .. }
            | Window::Cumulate { step: every, .. } => self.next_end(time).saturating_sub(every),
            Window::Calendar(calendar) => calendar.start(time),
            Window::Session { .. } => time,
        }
    }

    /// An id that no window has which ends until `time` and is later; `None` where ends do not tell.
    pub fn last_closed(&self, time: Micros) -> Option<Micros> {
        match *self {
            Window::Tumble { size, .. } | Window::Hop { size, .. } => Some(time.saturating_sub(size)),
            Window::Cumulate { .. } => Some(time),
            Window::Calendar(_) | Window::Session { .. } => None,
        }
    }

    /// The ends of the first and of the last window that hold `time`. A session takes every row that is not behind the
    /// watermark, so for it a row's own time decides.
    pub fn ends(&self, time: Micros) -> (Micros, Micros) {
        let ids = self.ids(time, time.saturating_add(1));
        match (self.bounds(ids.first), self.bounds(ids.last)) {
            (Some((_, first)), Some((_, last))) => (first, last),
            _ => (time.saturating_add(1), time.saturating_add(1)),
        }
    }

    /// The largest end of a window that holds `time`.
    pub fn last_end(&self, time: Micros) -> Micros {
        match *self {
            Window::Session { gap, .. } => time.saturating_add(gap),
            _ => self.ends(time).1,
        }
    }

    /// The id of the window after this one.
    pub fn next_id(&self, id: Micros) -> Micros {
        match *self {
            Window::Tumble { size: every, .. }
            | Window::Hop { slide: every, .. }
            | Window::Cumulate { step: every, .. } => id.saturating_add(every),
            Window::Calendar(calendar) => calendar.end(id),
            Window::Session { .. } => Micros::MAX,
        }
    }

    /// The id of the window with this end.
    pub fn id_of_end(&self, end: Micros) -> Micros {
        match *self {
            Window::Tumble { size, .. } | Window::Hop { size, .. } => end.saturating_sub(size),
            Window::Calendar(calendar) => calendar.start(end.saturating_sub(1)),
            Window::Cumulate { .. } | Window::Session { .. } => end,
        }
    }
}

/// A constant interval.
pub fn interval(micros: Micros) -> Expr {
    lit(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, micros.saturating_mul(1000)))))
}

/// The start or the end of the tumbling or calendar window that holds a time, as a function whose window was fixed at
/// planning time. Input: any timestamp; output: `timestamptz`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Bound {
    window: Window,
    end: bool,
    name: String,
    signature: Signature,
}

impl Bound {
    /// The start of the window that holds `time`, as an expression.
    pub fn start(window: Window, time: Expr) -> Expr {
        Bound::call(window, false, time)
    }

    /// The end of the window that holds `time`.
    pub fn end(window: Window, time: Expr) -> Expr {
        Bound::call(window, true, time)
    }

    fn call(window: Window, end: bool, time: Expr) -> Expr {
        let duration =
            |micros: Micros| crate::time::format_duration(std::time::Duration::from_micros(micros.unsigned_abs()));
        let words = match window {
            Window::Tumble { size, offset: 0 } => duration(size),
            Window::Tumble { size, offset } => format!("{} offset {offset} us", duration(size)),
            Window::Calendar(Calendar { step, zone }) => {
                let step = match step {
                    Step::Time(micros) => duration(micros),
                    Step::Days(n) => format!("{n} days"),
                    Step::Months(n) => format!("{n} months"),
                };
                format!("{step} in {}", zone.name())
            }
            Window::Hop { .. } | Window::Cumulate { .. } | Window::Session { .. } => {
                unreachable!("a row is in several of these windows, or it depends on other rows in which")
            }
        };
        let name = format!("{}[{words}]", if end { "tumble_end" } else { "tumble" });
        let signature = Signature::new(TypeSignature::UserDefined, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Bound { window, end, name, signature })).call(vec![time])
    }

    /// The window whose end an expression is, and the time.
    pub fn as_end(expr: &Expr) -> Option<(Window, &Expr)> {
        let Expr::ScalarFunction(call) = expr else { return None };
        let inner: &dyn Any = call.func.inner().as_ref();
        let bound = inner.downcast_ref::<Bound>().filter(|bound| bound.end)?;
        Some((bound.window, &call.args[0]))
    }

    fn of(&self, time: Micros) -> Micros {
        let (start, end) = around(&self.window, time);
        if self.end { end } else { start }
    }
}

/// Start and end of the one window that holds a time.
pub fn around(window: &Window, time: Micros) -> (Micros, Micros) {
    match window {
        Window::Calendar(calendar) => (calendar.start(time), calendar.end(time)),
        Window::Tumble { size, offset } => {
            let start = window_start(time, *size, *offset);
            (start, start.saturating_add(*size))
        }
        Window::Hop { .. } | Window::Cumulate { .. } | Window::Session { .. } => (time, time),
    }
}

/// The start (or end) of the window of each time. Neighbouring rows mostly share a window, so the division (or the look
/// into the calendar) is done once per run of rows.
pub fn bounds_of(window: &Window, end: bool, times: &TimestampMicrosecondArray) -> TimestampMicrosecondArray {
    let tiles = match window {
        Window::Calendar(calendar) => calendar.tiles(),
        Window::Tumble { .. } | Window::Hop { .. } | Window::Cumulate { .. } | Window::Session { .. } => true,
    };
    let (mut lo, mut hi) = (1, 0);
    let values = times.values().iter().map(|&time| {
        if time < lo || time >= hi || !tiles {
            (lo, hi) = around(window, time);
        }
        if end { hi } else { lo }
    });
    let values: Vec<Micros> = values.collect();
    TimestampMicrosecondArray::new(values.into(), times.nulls().cloned()).with_timezone(UTC)
}

impl ScalarUDFImpl for Bound {
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
                Ok(ColumnarValue::Array(Arc::new(bounds_of(&self.window, self.end, times))))
            }
            ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(time, _)) => {
                let bound = time.map(|t| self.of(t));
                Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(bound, Some(UTC.into()))))
            }
            ColumnarValue::Scalar(other) => exec_err!("a window needs a timestamp, not {other}"),
        }
    }
}

/// The window that a group expression is the start of, if it is one: our TUMBLE, or `date_bin`, `date_trunc` and
/// `time_bucket` with constant arguments, because that is what BI tools write. Also gives the expression for the time.
pub fn as_window(expr: &Expr) -> Option<(Window, &Expr)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let inner: &dyn Any = call.func.inner().as_ref();
    if let Some(bound) = inner.downcast_ref::<Bound>() {
        return (!bound.end).then_some((bound.window, &call.args[0]));
    }
    let constants = |from: usize| call.args[from..].iter().map(constant).collect::<Option<Vec<_>>>();
    match (call.func.name(), call.args.as_slice()) {
        ("date_bin", [width, time, ..]) => Some((date_bin(&constant(width)?, &constants(2)?)?, time)),
        ("time_bucket", [width, time, ..]) => {
            Some((super::bucket::time_bucket(&constant(width)?, &constants(2)?).ok()?, time))
        }
        ("date_trunc", [unit, time, ..]) => {
            Some((super::bucket::date_trunc(&constant(unit)?, &constants(2)?).ok()?, time))
        }
        _ => None,
    }
}

/// DataFusion's `date_bin`: bins are counted from the origin, 1970 if not given.
fn date_bin(width: &ScalarValue, rest: &[ScalarValue]) -> Option<Window> {
    let origin = match rest {
        [] => 0,
        [origin] => timestamp_micros(origin)?,
        _ => return None,
    };
    if let Some(size) = interval_micros(width) {
        return (size > 0).then(|| Window::Tumble { size, offset: origin.rem_euclid(size) });
    }
    // Months from 1970 on are months of the calendar as long as they come round by its first year.
    match width {
        ScalarValue::IntervalMonthDayNano(Some(v))
            if v.days == 0 && v.nanoseconds == 0 && v.months > 0 && 360 % v.months == 0 && origin == 0 =>
        {
            let step = Step::Months(v.months.into());
            Some(Window::Calendar(Calendar { step, zone: chrono_tz::Tz::UTC }))
        }
        _ => None,
    }
}

/// The window of a step in UTC: of fixed width where that is possible.
pub fn in_utc(step: Step) -> Window {
    const DAY: Micros = 86_400_000_000;
    match step {
        Step::Time(size) => Window::Tumble { size, offset: calendar::ANCHOR.rem_euclid(size) },
        Step::Days(n) => in_utc(Step::Time(n * DAY)),
        Step::Months(_) => Window::Calendar(Calendar { step, zone: chrono_tz::Tz::UTC }),
    }
}

/// The value of an expression that has no columns and is at most a cast: the analyzer has not folded it yet.
pub fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            constant(expr)?.cast_to(field.data_type()).ok()
        }
        Expr::Alias(alias) => constant(&alias.expr),
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

/// A constant timestamp in microseconds; one without a zone is in UTC.
pub fn timestamp_micros(value: &ScalarValue) -> Option<Micros> {
    let raw = match value {
        ScalarValue::TimestampSecond(v, _)
        | ScalarValue::TimestampMillisecond(v, _)
        | ScalarValue::TimestampMicrosecond(v, _)
        | ScalarValue::TimestampNanosecond(v, _) => (*v)?,
        _ => return None,
    };
    to_micros(&value.data_type(), raw)
}

/// A raw value of a timestamp column in microseconds.
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

    fn row(window: Window, time: Micros) -> Vec<Micros> {
        window.ids(time, time + 1).collect()
    }

    #[test]
    fn windows_floor_also_before_1970() {
        assert_eq!(window_start(7, 5, 0), 5);
        assert_eq!(window_start(-1, 5, 0), -5);
        assert_eq!(window_start(7, 5, 3), 3);
    }

    #[test]
    fn a_row_is_in_size_over_slide_windows() {
        let hop = Window::Hop { slide: 2, size: 10, offset: 0 };
        assert_eq!(row(hop, 11), [2, 4, 6, 8, 10]);
        let uneven = Window::Hop { slide: 4, size: 6, offset: 0 };
        assert_eq!(uneven.pane(), Some(2));
        assert_eq!(row(uneven, 4), [0, 4]);
        assert_eq!(row(uneven, 6), [4]);
        let tumble = Window::Tumble { size: 10, offset: 0 };
        assert_eq!(row(tumble, -3), [-10]);
    }

    #[test]
    fn cumulating_windows_start_together_and_end_a_step_later_each() {
        let cumulate = Window::Cumulate { step: 2, size: 6, offset: 1 };
        assert_eq!(row(cumulate, 1), [3, 5, 7]);
        assert_eq!(row(cumulate, 6), [7]);
        assert_eq!(row(cumulate, -1), [1]);
        assert_eq!(cumulate.bounds(5), Some((1, 5)));
        assert_eq!(cumulate.bounds(7), Some((1, 7)));
        assert_eq!(cumulate.bounds(1), Some((-5, 1)));
    }

    #[test]
    fn stretches_are_in_the_windows_that_hold_both_their_ends() {
        let windows = [
            Window::Hop { slide: 2, size: 10, offset: 1 },
            Window::Hop { slide: 4, size: 6, offset: -1 },
            Window::Cumulate { step: 2, size: 8, offset: 3 },
            Window::Tumble { size: 7, offset: 2 },
        ];
        for window in windows {
            for from in -20..20 {
                for to in from + 1..from + 14 {
                    let last: Vec<_> = row(window, to - 1);
                    let both: Vec<_> = row(window, from).into_iter().filter(|id| last.contains(id)).collect();
                    assert_eq!(window.ids(from, to).collect::<Vec<_>>(), both, "{window:?} [{from}, {to})");
                    for id in both {
                        let (start, end) = window.bounds(id).unwrap();
                        assert!(start <= from && to <= end);
                        let pane = window.panes().ids(from, from + 1).first;
                        let (first, last) = window.panes_of((id, id));
                        assert!(first <= pane && pane <= last, "{window:?} {id} {pane}");
                    }
                }
            }
        }
    }
}
