//! Thresholds that follow the data: how unusual is a value beside those before it? For alerts that should hold at night and
//! at noon, for large hosts and small ones, without a number chosen for each.
//!
//! ```sql
//! CREATE MATERIALIZED VIEW traffic AS
//!   SELECT *, anomaly(requests) OVER (PARTITION BY host ORDER BY window_start) AS score
//!   FROM (SELECT window_start, window_end, server_name AS host, count(*) AS requests
//!         FROM TUMBLE(access, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, server_name);
//! ```
//!
//! They are window functions, and not aggregates or functions over arrays, because what they need is there already: the
//! rows of the view, in their order, each key by itself. Nothing has to be kept besides; a late line that corrects a window
//! corrects the scores behind it; and the view still equals its own query run as a batch.

use std::collections::HashMap;

use arrow::datatypes::{Float64Type, Int64Type, IntervalMonthDayNanoType, TimestampMicrosecondType};

use super::scalar::Type;
use super::windowed::{Partition, Sample, Windowed};
use crate::error::{Error, Kind, Result};
use crate::time::Micros;

pub static SPECS: &[Windowed] = &[
    Windowed {
        name: "anomaly",
        aliases: &["robust_zscore"],
        syntax: "anomaly(value [, rows]) OVER (…)",
        summary: "how far a value is from the median of up to `rows` (60) before it, in robust standard deviations \
                  (1.4826 MAD, at least 1 % of the median); NULL before there are 5",
        sample: Sample { call: "anomaly(n)", values: &[10, 12, 11, 9, 10, 30], result: "13.489795003921634" },
        forms: &[&[Type::Double], &[Type::Double, Type::Bigint]],
        rows: anomaly,
    },
    Windowed {
        name: "ewma",
        aliases: &[],
        syntax: "ewma(value, alpha) OVER (…)",
        summary: "exponentially weighted moving average up to this row; `alpha` is the weight of the last value",
        sample: Sample { call: "ewma(n, 0.5)", values: &[10, 20, 40], result: "27.5" },
        forms: &[&[Type::Double, Type::Double]],
        rows: ewma,
    },
    Windowed {
        name: "ewma_lower",
        aliases: &[],
        syntax: "ewma_lower(value, alpha, widths) OVER (…)",
        summary: "what is expected at least after the rows before this one: their ewma less `widths` exponentially \
                  weighted standard deviations; NULL before there are 2",
        sample: Sample { call: "ewma_lower(n, 0.5, 2)", values: &[10, 20, 99], result: "5" },
        forms: &[&[Type::Double, Type::Double, Type::Double]],
        rows: |partition| bands(partition, -1.0),
    },
    Windowed {
        name: "ewma_upper",
        aliases: &[],
        syntax: "ewma_upper(value, alpha, widths) OVER (…)",
        summary: "what is expected at most, likewise",
        sample: Sample { call: "ewma_upper(n, 0.5, 2)", values: &[10, 20, 99], result: "25" },
        forms: &[&[Type::Double, Type::Double, Type::Double]],
        rows: |partition| bands(partition, 1.0),
    },
    Windowed {
        name: "seasonal_baseline",
        aliases: &[],
        syntax: "seasonal_baseline(value, time, season [, seasons]) OVER (…)",
        summary: "the median of the values one, two, … `seasons` (4) times `season` earlier, such as at this time of \
                  the days before; NULL when there is none",
        sample: Sample { call: "seasonal_baseline(n, t, INTERVAL '2 hours')", values: &[1, 9, 2, 9, 7], result: "1.5" },
        forms: &[
            &[Type::Double, Type::Time, Type::Interval],
            &[Type::Double, Type::Time, Type::Interval, Type::Bigint],
        ],
        rows: seasonal,
    },
    Windowed {
        name: "rate_change",
        aliases: &[],
        syntax: "rate_change(value [, rows]) OVER (…)",
        summary: "by which part of it a value differs from the one `rows` (1) before: 0.5 is half as much again; NULL \
                  where that was 0",
        sample: Sample { call: "rate_change(n)", values: &[10, 15], result: "0.5" },
        forms: &[&[Type::Double], &[Type::Double, Type::Bigint]],
        rows: rate_change,
    },
];

/// How many rows a score looks back unless told otherwise: an hour of minutes.
const HISTORY: i64 = 60;

/// Fewer say nothing about what is usual.
const LEAST_HISTORY: usize = 5;

/// More would cost too much for each row.
const MOST_HISTORY: i64 = 10_000;

/// A standard deviation by the median absolute deviation, and by the mean absolute deviation, of normally distributed
/// values: 1 / Φ⁻¹(3/4) and √(π/2).
const BY_MEDIAN: f64 = 1.482_602_218_505_602;
const BY_MEAN: f64 = 1.253_314_137_315_500_3;

/// The least spread, as a part of the median: of what hardly varies, a change of a few in a thousand is no anomaly.
const LEAST_SPREAD: f64 = 0.01;

const SEASONS: i64 = 4;

/// The modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993), over the rows before. When half of
/// these are equal, so that the median deviation is 0, the mean deviation takes its place, as in IBM SPSS. Median and MAD
/// bear up to half of the history being anomalies itself: an incident does not hide the next one, as it would with mean and
/// standard deviation.
fn anomaly(partition: &Partition<'_>) -> Result<Vec<Option<f64>>> {
    let values = partition.values(0)?;
    let rows = count(partition, "anomaly", 1, LEAST_HISTORY as i64, MOST_HISTORY, HISTORY)?;
    let mut history: Vec<f64> = Vec::with_capacity(rows);
    let score = |i: usize| {
        history.clear();
        history.extend(values[i.saturating_sub(rows)..i].iter().flatten());
        let value = values[i]?;
        if history.len() < LEAST_HISTORY {
            return None;
        }
        let median = median(&mut history)?;
        history.iter_mut().for_each(|past| *past = (*past - median).abs());
        let mean = history.iter().sum::<f64>() / history.len() as f64;
        let spread = match self::median(&mut history)? {
            0.0 => mean * BY_MEAN,
            deviation => deviation * BY_MEDIAN,
        };
        let distance = value - median;
        // What has always been the same, 0 above all, and no longer is, is infinitely unusual.
        Some(if distance == 0.0 { 0.0 } else { distance / spread.max(median.abs() * LEAST_SPREAD) })
    };
    Ok((0..partition.rows).map(score).collect())
}

/// The middle of the values, which get another order.
fn median(values: &mut [f64]) -> Option<f64> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    let (below, upper, _) = values.select_nth_unstable_by(count / 2, f64::total_cmp);
    if count % 2 == 1 {
        return Some(*upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(lower + (*upper - lower) / 2.0)
}

/// Roberts, Control Chart Tests Based on Geometric Moving Averages (Technometrics 1, 1959). The first value begins it; rows
/// without a value leave it as it is.
fn ewma(partition: &Partition<'_>) -> Result<Vec<Option<f64>>> {
    let values = partition.values(0)?;
    let alpha = alpha(partition, "ewma")?;
    let mut average = None;
    let step = |value: Option<f64>| {
        if let Some(value) = value {
            average = Some(average.map_or(value, |average| average + alpha * (value - average)));
        }
        average
    };
    Ok(values.into_iter().map(step).collect())
}

/// Exponentially weighted mean and variance step by step: Finch, Incremental Calculation of Weighted Mean and Variance
/// (Cambridge 2009), section 9.
fn bands(partition: &Partition<'_>, side: f64) -> Result<Vec<Option<f64>>> {
    let name = if side < 0.0 { "ewma_lower" } else { "ewma_upper" };
    let values = partition.values(0)?;
    let alpha = alpha(partition, name)?;
    let widths = match partition.constant::<Float64Type>(2)? {
        Some(widths) if (0.0..=1e6).contains(&widths) => widths,
        Some(widths) => return Err(wrong(name, "widths", "a number from 0 to 1000000", widths)),
        None => return Ok(vec![None; partition.rows]),
    };
    let (mut mean, mut variance, mut known) = (0.0, 0.0, 0);
    let step = |value: Option<f64>| {
        let band = (known >= 2).then(|| mean + side * widths * f64::sqrt(variance));
        if let Some(value) = value {
            if known == 0 {
                mean = value;
            } else {
                let difference = value - mean;
                mean += alpha * difference;
                variance = (1.0 - alpha) * (variance + alpha * difference * difference);
            }
            known += 1;
        }
        band
    };
    Ok(values.into_iter().map(step).collect())
}

/// The seasonal naive forecast over several seasons (Hyndman, Athanasopoulos: Forecasting: Principles and Practice, 3rd ed.,
/// section 5.2), with the median so that one bad day does not spoil those after it. By time and not by rows: windows
/// without rows are not in a view.
fn seasonal(partition: &Partition<'_>) -> Result<Vec<Option<f64>>> {
    let name = "seasonal_baseline";
    let values = partition.values(0)?;
    let times = partition.column::<TimestampMicrosecondType>(1)?;
    let Some(season) = partition.constant::<IntervalMonthDayNanoType>(2)? else {
        return Ok(vec![None; partition.rows]);
    };
    let micros = i64::from(season.days) * 86_400_000_000 + season.nanoseconds / 1000;
    if season.months != 0 || micros <= 0 {
        return Err(Error::new(Kind::InvalidParameter, format!("{name} takes a season of a fixed length above 0"))
            .with_hint("Write it like INTERVAL '1 day' or INTERVAL '7 days'."));
    }
    let seasons = count(partition, name, 3, 1, 1000, SEASONS)? as i64;
    let mut known: HashMap<Micros, f64> = HashMap::with_capacity(partition.rows);
    for (time, value) in times.iter().zip(&values) {
        if let (Some(time), Some(value)) = (time, value) {
            known.insert(*time, *value);
        }
    }
    let baseline = |time: &Option<Micros>| {
        let time = (*time)?;
        let earlier = |season: i64| known.get(&time.checked_sub(micros.checked_mul(season)?)?).copied();
        median(&mut (1..=seasons).filter_map(earlier).collect::<Vec<f64>>())
    };
    Ok(times.iter().map(baseline).collect())
}

fn rate_change(partition: &Partition<'_>) -> Result<Vec<Option<f64>>> {
    let values = partition.values(0)?;
    let rows = count(partition, "rate_change", 1, 1, MOST_HISTORY, 1)?;
    let change = |i: usize| {
        let (value, before) = (values[i]?, values[i.checked_sub(rows)?]?);
        (before != 0.0).then(|| (value - before) / before.abs())
    };
    Ok((0..partition.rows).map(change).collect())
}

fn alpha(partition: &Partition<'_>, name: &str) -> Result<f64> {
    match partition.constant::<Float64Type>(1)? {
        Some(alpha) if alpha > 0.0 && alpha <= 1.0 => Ok(alpha),
        Some(alpha) => Err(wrong(name, "alpha", "a number above 0 and up to 1", alpha)),
        None if partition.rows == 0 => Ok(1.0),
        None => Err(wrong(name, "alpha", "a number above 0 and up to 1", "NULL")),
    }
}

/// A number of rows or seasons.
fn count(partition: &Partition<'_>, name: &str, argument: usize, least: i64, most: i64, usual: i64) -> Result<usize> {
    let count = partition.constant::<Int64Type>(argument)?.unwrap_or(usual);
    if (least..=most).contains(&count) {
        return Ok(count as usize);
    }
    Err(wrong(name, if argument == 3 { "seasons" } else { "rows" }, &format!("a number from {least} to {most}"), count))
}

fn wrong(name: &str, argument: &str, takes: &str, given: impl std::fmt::Display) -> Error {
    Error::new(Kind::InvalidParameter, format!("{name} takes {takes} for {argument}, not {given}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array};

    use super::*;
    use crate::generate::scenario::Scenario;
    use crate::generate::{Player, parse_utc};

    fn run(
        rows: fn(&Partition<'_>) -> Result<Vec<Option<f64>>>,
        values: &[Option<f64>],
        more: &[f64],
    ) -> Vec<Option<f64>> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Float64Array::from(values.to_vec()))];
        columns.extend(more.iter().map(|n| Arc::new(Float64Array::from(vec![*n; values.len()])) as ArrayRef));
        rows(&Partition { columns: &columns, rows: values.len() }).unwrap()
    }

    fn some(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().copied().map(Some).collect()
    }

    #[test]
    fn scores_by_hand() {
        // Median 10, deviations 0 0 1 1 2: their median is 1.
        let scores = run(anomaly, &some(&[10.0, 12.0, 11.0, 9.0, 10.0, 30.0, 10.0]), &[]);
        assert_eq!(scores[..5], [None; 5]);
        assert!((scores[5].unwrap() - 20.0 / BY_MEDIAN).abs() < 1e-12);
        // What was unusual is history now, and hardly matters.
        assert!(scores[6].unwrap().abs() < 1.0);
        // All the same: a part in a hundred counts as one deviation, and from nothing it is without end.
        assert_eq!(run(anomaly, &some(&[50.0, 50.0, 50.0, 50.0, 50.0, 51.0]), &[])[5], Some(2.0));
        assert_eq!(run(anomaly, &some(&[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), &[])[5], Some(f64::INFINITY));
        assert_eq!(run(anomaly, &some(&[0.0; 6]), &[])[5], Some(0.0));
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let mut values = some(&[10.0, 12.0, 11.0, 9.0]);
        values.extend([None, Some(f64::NAN), Some(10.0), Some(30.0), None]);
        let scores = run(anomaly, &values, &[]);
        assert_eq!(scores[6], None, "four are too few");
        assert!((scores[7].unwrap() - 20.0 / BY_MEDIAN).abs() < 1e-12);
        assert_eq!(scores[8], None);
        assert_eq!(run(rate_change, &[None, Some(0.0), Some(3.0), Some(6.0)], &[]), [None, None, None, Some(1.0)]);
        assert_eq!(run(ewma, &[None, Some(4.0), None], &[0.5]), [None, Some(4.0), Some(4.0)]);
    }

    #[test]
    fn only_rows_before_matter() {
        let values: Vec<f64> = (0..200u32).map(|i| f64::from(i * 7919 % 101)).collect();
        type Rows = fn(&Partition<'_>) -> Result<Vec<Option<f64>>>;
        let functions: [(Rows, &[f64]); 3] = [(anomaly, &[]), (ewma, &[0.2]), (rate_change, &[])];
        for (rows, more) in functions {
            let all = run(rows, &some(&values), more);
            for end in [1, 6, 100] {
                assert_eq!(run(rows, &some(&values[..end]), more), all[..end]);
            }
        }
    }

    #[test]
    fn medians() {
        for (mut values, expected) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 3.0, 2.0], 2.5), (vec![7.0], 7.0)] {
            assert_eq!(median(&mut values), Some(expected));
        }
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn arguments_are_checked() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        let two: ArrayRef = Arc::new(Float64Array::from(vec![2.0]));
        let few: ArrayRef = Arc::new(Int64Array::from(vec![2]));
        let said = |rows: fn(&Partition<'_>) -> Result<Vec<Option<f64>>>, columns: &[ArrayRef]| {
            rows(&Partition { columns, rows: 1 }).unwrap_err().to_string()
        };
        assert_eq!(said(ewma, &[values.clone(), two]), "ewma takes a number above 0 and up to 1 for alpha, not 2");
        assert_eq!(said(anomaly, &[values, few]), "anomaly takes a number from 5 to 10000 for rows, not 2");
    }

    /// Alerts against the truth: what a scenario injects is found, and nothing else.
    #[test]
    fn what_a_scenario_injects_is_what_is_unusual() {
        let start = parse_utc("2026-01-01").unwrap();
        let scenario = "rate = 20\njitter = 0.3\nduration = '6 hours'
            episodes = [{ kind = 'peak', at = ['2 hours', '4 hours'], length = '5 minutes', size = 3 },
                        { kind = 'drop', at = ['3 hours', '5 hours'], length = '5 minutes', size = 0.2 }]";
        let mut player = Player::new(Scenario::parse(scenario).unwrap(), 3, start);
        let minute = |n: i64| start + n * 60_000_000;
        let (mut out, mut counts, mut before) = (Vec::new(), Vec::new(), 0);
        for n in 1..=360 {
            player.fill(minute(n) - 1, &mut out, usize::MAX, &mut None);
            counts.push((player.lines() - before) as f64);
            before = player.lines();
            out.clear();
        }
        let truth = player.truth();
        let scores = run(anomaly, &some(&counts), &[]);
        for (n, score) in scores.iter().enumerate().skip(LEAST_HISTORY) {
            let at = minute(n as i64);
            let injected = truth.episodes.iter().any(|episode| (episode.start..episode.end).contains(&at));
            assert_eq!(score.unwrap().abs() > 6.0, injected, "minute {n}: {score:?}");
        }
    }
}
