//! Are two results the same? Rows in any order, numbers with the tolerance that their column deserves.

use std::cmp::Ordering;
use std::fmt::Write as _;

use crate::server::{Row, line};

/// How far two values of a column may be apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// Not at all.
    None,
    /// By what the look of a value allows: fractions by rounding, and all numbers by this part of them.
    ByLook(f64),
    /// By [`ROUNDING`]; numbers smaller than one are as blurred as one.
    Rounding,
    /// By this much.
    Absolute(f64),
}

/// Floating-point sums differ by rounding when the order of additions differs.
pub const ROUNDING: f64 = 1e-9;

impl Tolerance {
    /// Whether the value may be a little different in the other result: then it must not decide how rows are paired.
    fn blurs(self, value: &str) -> bool {
        match self {
            Tolerance::None => false,
            Tolerance::ByLook(_) => is_fraction(value),
            Tolerance::Rounding | Tolerance::Absolute(_) => true,
        }
    }

    fn accepts(self, a: &Option<String>, b: &Option<String>) -> bool {
        let (Some(a), Some(b)) = (a, b) else { return a.is_none() && b.is_none() };
        let (Ok(x), Ok(y)) = (a.parse::<f64>(), b.parse::<f64>()) else { return a == b };
        let largest = x.abs().max(y.abs());
        let allowed = match self {
            Tolerance::None => return a == b,
            Tolerance::ByLook(part) if is_fraction(a) || is_fraction(b) => part.max(ROUNDING) * largest,
            Tolerance::ByLook(part) => part * largest,
            Tolerance::Rounding => ROUNDING * largest.max(1.0),
            Tolerance::Absolute(most) => most,
        };
        a == b || (x - y).abs() <= allowed
    }
}

fn is_fraction(value: &str) -> bool {
    value.contains(['.', 'e']) && value.parse::<f64>().is_ok()
}

/// Says how two sets of rows differ, if they do. `tolerances` has one entry for each column; of columns beyond it the
/// last one's counts.
pub fn difference(got: Vec<Row>, wanted: Vec<Row>, tolerances: &[Tolerance]) -> Option<String> {
    let of = |column: usize| tolerances.get(column).or(tolerances.last()).copied().unwrap_or(Tolerance::None);
    let mut text = String::new();
    let mut say = |what: std::fmt::Arguments| writeln!(text, "{what}").expect("a String takes all");
    if got.len() != wanted.len() {
        say(format_args!("{} rows instead of {}", got.len(), wanted.len()));
    }
    let same =
        |a: &Row, b: &Row| a.len() == b.len() && a.iter().zip(b).enumerate().all(|(i, (a, b))| of(i).accepts(a, b));
    let (got, wanted) = (sorted(got, &of), sorted(wanted, &of));
    let (mut got, mut wanted) = (got.iter().peekable(), wanted.iter().peekable());
    // Walks both in step, so that one row too many is shown as just that.
    let mut shown = 0;
    while shown < MOST_SHOWN {
        let ordering = match (got.peek(), wanted.peek()) {
            (None, None) => break,
            (Some((_, a)), Some((_, b))) if same(a, b) => {
                got.next();
                wanted.next();
                continue;
            }
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        if ordering.is_le() {
            got.next().into_iter().for_each(|(_, row)| say(format_args!("got    {}", line(row))));
        }
        if ordering.is_ge() {
            wanted.next().into_iter().for_each(|(_, row)| say(format_args!("wanted {}", line(row))));
        }
        shown += 1;
    }
    (!text.is_empty()).then_some(text)
}

/// Places where two results differ: more would not tell more.
const MOST_SHOWN: usize = 6;

/// By what rows are sorted and paired: exact values first, then blurred ones as numbers.
#[derive(PartialEq)]
struct Key(Vec<Option<String>>, Vec<f64>);

impl Eq for Key {}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        let numbers = || self.1.iter().zip(&other.1).map(|(a, b)| a.total_cmp(b)).find(|o| o.is_ne());
        self.0.cmp(&other.0).then_with(|| numbers().unwrap_or_else(|| self.1.len().cmp(&other.1.len())))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn sorted(rows: Vec<Row>, of: &impl Fn(usize) -> Tolerance) -> Vec<(Key, Row)> {
    let key = |row: &Row| {
        let (mut exact, mut numbers) = (Vec::with_capacity(row.len()), Vec::new());
        for (i, value) in row.iter().enumerate() {
            match value.as_deref().filter(|v| of(i).blurs(v)) {
                Some(blurred) => numbers.push(blurred.parse().unwrap_or(f64::NAN)),
                None => exact.push(value.clone()),
            }
        }
        Key(exact, numbers)
    };
    let mut rows: Vec<_> = rows.into_iter().map(|row| (key(&row), row)).collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[&[&str]]) -> Vec<Row> {
        values.iter().map(|row| row.iter().map(|v| Some(v.to_string())).collect()).collect()
    }

    #[test]
    fn a_difference_is_seen() {
        let differs = |a: &[&str], b: &[&str], t| difference(rows(&[a]), rows(&[b]), &[t]).is_some();
        let look = Tolerance::ByLook(0.0);
        assert!(!differs(&["a", "1"], &["a", "1"], look));
        assert!(differs(&["a", "1"], &["a", "2"], look));
        assert!(!differs(&["a", "0.1"], &["a", "0.10000000000000001"], look));
        assert!(differs(&["a", "0.1"], &["a", "0.1001"], look));
        assert!(!differs(&["a", "0.1"], &["a", "0.1001"], Tolerance::ByLook(0.01)));
        assert!(differs(&["1000000000"], &["1000000001"], look), "whole numbers are exact");
        assert!(differs(&["0.5"], &["0.50"], Tolerance::None));
        assert!(!differs(&["7"], &["9"], Tolerance::Absolute(2.0)));
        assert!(differs(&["a"], &["b"], Tolerance::Absolute(2.0)));
        assert!(difference(rows(&[&["a"]]), Vec::new(), &[look]).is_some());
    }

    #[test]
    fn rows_are_paired_by_what_is_exact() {
        let tolerances = [Tolerance::None, Tolerance::Absolute(0.2)];
        let (a, b) = (rows(&[&["x", "9.9"], &["x", "5"]]), rows(&[&["x", "5.1"], &["x", "10.0"]]));
        assert_eq!(difference(a, b, &tolerances), None);
        let (a, b) = (rows(&[&["a", "1"], &["b", "2"], &["c", "3"]]), rows(&[&["a", "1"], &["c", "3"]]));
        let text = difference(a, b, &tolerances).unwrap();
        assert_eq!(text, "3 rows instead of 2\ngot    b 2\n");
    }
}
