//! Buckets of histograms: of equal width, between given bounds, or growing by a factor.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Type, numbers, unchecked};

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "width_bucket",
        syntax: "width_bucket(x, low, high, count) | width_bucket(x, thresholds)",
        summary: "the number of the bucket that holds x, of `count` of equal width between low and high, or of those between thresholds; 0 below them",
        sample: ("width_bucket(5.3, 0, 10, 5)", "3"),
        forms: &[&[Type::Double, Type::Double, Type::Double, Type::Bigint], &[Type::Double, Type::Doubles]],
        result: Type::Integer,
        check: unchecked,
        rows: |arguments| if arguments.count() == 4 { equal_widths(arguments) } else { thresholds(arguments) },
    },
    Scalar {
        name: "bucket",
        syntax: "bucket(x, thresholds)",
        summary: "how many of the rising thresholds are not above x: the number of its bucket",
        sample: ("bucket(0.3, ARRAY[0.1, 0.25, 0.5, 1])", "2"),
        forms: &[&[Type::Double, Type::Doubles]],
        result: Type::Integer,
        check: unchecked,
        rows: thresholds,
    },
    Scalar {
        name: "log_bucket",
        syntax: "log_bucket(x [, base])",
        summary: "the largest power of `base` (2 unless given) that is not above x: the lower end of its bucket; 0 for 0, mirrored below",
        sample: ("log_bucket(1500)", "1024"),
        forms: &[&[Type::Double], &[Type::Double, Type::Double]],
        result: Type::Double,
        check: unchecked,
        rows: powers,
    },
];

fn equal_widths(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let (values, counts) = (arguments.numbers::<Float64Type>(0)?, arguments.numbers::<Int64Type>(3)?);
    let (lows, highs) = (arguments.numbers::<Float64Type>(1)?, arguments.numbers::<Float64Type>(2)?);
    Ok(numbers::<Int32Type>(arguments.rows, |row| {
        width_bucket(values.get(row)?, lows.get(row)?, highs.get(row)?, counts.get(row)?)
    }))
}

/// As `width_bucket_float8` in PostgreSQL's float.c; what is an error there is `None`.
fn width_bucket(x: f64, low: f64, high: f64, count: i64) -> Option<i32> {
    let count = i32::try_from(count).ok().filter(|count| *count > 0 && *count < i32::MAX)?;
    if x.is_nan() || !low.is_finite() || !high.is_finite() || low == high {
        return None;
    }
    // A falling range is a rising one seen in a mirror.
    let (x, low, high) = if low < high { (x, low, high) } else { (-x, -low, -high) };
    if x < low {
        return Some(0);
    }
    if x >= high {
        return Some(count + 1);
    }
    // Halves, because the width of a range of the largest numbers is none.
    let share = (x / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
    Some((f64::from(count) * share).min(f64::from(count - 1)) as i32 + 1)
}

fn thresholds(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let values = arguments.numbers::<Float64Type>(0)?;
    let lists = arguments.array(1)?;
    let lists = lists.as_list::<i32>();
    let bounds = lists.values().as_primitive::<Float64Type>();
    Ok(numbers::<Int32Type>(arguments.rows, |row| {
        let x = values.get(row)?;
        let (start, end) = (lists.value_offsets()[row] as usize, lists.value_offsets()[row + 1] as usize);
        let nothing = lists.is_null(row) || (start..end).any(|i| bounds.is_null(i));
        if nothing {
            return None;
        }
        // NaN is above all, as PostgreSQL sorts it.
        let below = bounds.values()[start..end].partition_point(|bound| *bound <= x || x.is_nan());
        i32::try_from(below).ok()
    }))
}

fn powers(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let values = arguments.numbers::<Float64Type>(0)?;
    let bases = if arguments.count() > 1 { Some(arguments.numbers::<Float64Type>(1)?) } else { None };
    Ok(numbers::<Float64Type>(arguments.rows, |row| match &bases {
        None => log_bucket(values.get(row)?, 2.0),
        Some(bases) => log_bucket(values.get(row)?, bases.get(row)?),
    }))
}

/// Smallest base: powers of a number nearer to 1 cannot be told apart.
const MIN_BASE: f64 = 1.001;

fn log_bucket(x: f64, base: f64) -> Option<f64> {
    if x.is_nan() || !(MIN_BASE..f64::MAX).contains(&base) {
        return None;
    }
    if x == 0.0 || x.is_infinite() {
        return Some(if x == 0.0 { 0.0 } else { x });
    }
    let size = x.abs();
    // The logarithm is only nearly right, and where it matters, at the powers themselves, it may be off by one.
    let mut power = (size.ln() / base.ln()).floor() as i32;
    for _ in 0..2 {
        if base.powi(power) > size {
            power -= 1;
        } else if base.powi(power + 1) <= size {
            power += 1;
        }
    }
    Some(base.powi(power).copysign(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_postgres() {
        for (x, low, high, count, expected) in [
            (5.35, 0.024, 10.06, 5, Some(3)),
            (0.0, 0.0, 10.0, 5, Some(1)),
            (9.999, 0.0, 10.0, 5, Some(5)),
            (10.0, 0.0, 10.0, 5, Some(6)),
            (-1.0, 0.0, 10.0, 5, Some(0)),
            (10.0, 10.0, 0.0, 5, Some(1)),
            (0.0, 10.0, 0.0, 5, Some(6)),
            (11.0, 10.0, 0.0, 5, Some(0)),
            (f64::INFINITY, 0.0, 10.0, 5, Some(6)),
            (0.0, f64::MIN, f64::MAX, 2, Some(2)),
            (1.0, 0.0, 0.0, 5, None),
            (1.0, 0.0, 10.0, 0, None),
            (1.0, 0.0, 10.0, i64::MAX, None),
            (f64::NAN, 0.0, 10.0, 5, None),
        ] {
            assert_eq!(width_bucket(x, low, high, count), expected, "{x} {low} {high} {count}");
        }
    }

    #[test]
    fn powers_are_in_their_own_bucket() {
        for base in [2.0, 10.0, 1.5, 3.0, 1.1] {
            for power in -200..200 {
                let bound: f64 = f64::powi(base, power);
                assert_eq!(log_bucket(bound, base), Some(bound), "{base}^{power}");
                assert_eq!(log_bucket(-bound, base), Some(-bound), "-{base}^{power}");
                let below = log_bucket(bound.next_down(), base).unwrap();
                assert!(below < bound && below * base >= bound * (1.0 - 1e-12), "below {base}^{power}: {below}");
            }
        }
        assert_eq!(log_bucket(1500.0, 2.0), Some(1024.0));
        assert_eq!(log_bucket(999.0, 10.0), Some(100.0));
        assert_eq!(log_bucket(0.3, 2.0), Some(0.25));
        assert_eq!(log_bucket(-0.0, 2.0).map(f64::to_bits), Some(0));
        assert_eq!(log_bucket(f64::INFINITY, 2.0), Some(f64::INFINITY));
        assert_eq!(log_bucket(f64::MAX, 2.0), Some(2f64.powi(1023)));
        for (x, base) in [(1.0, 1.0), (1.0, 0.5), (1.0, -2.0), (1.0, f64::NAN), (f64::NAN, 2.0), (1.0, f64::INFINITY)] {
            assert_eq!(log_bucket(x, base), None, "{x} {base}");
        }
        // The smallest numbers have no bucket of their own below them, but they have one.
        assert!(log_bucket(f64::from_bits(1), 2.0).is_some_and(|bound| bound <= f64::from_bits(1)));
    }
}
