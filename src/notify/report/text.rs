//! A report as lines of text: what a mail shows who wants no HTML, and what chats and logs get.

use chrono_tz::Tz;

use super::words::{cut, float, group};
use super::{Figure, Report, Section, Shape};
use crate::time::Micros;

/// Characters of a text in a table of fixed width.
const WIDEST: usize = 60;

impl Report {
    /// Lines for people.
    pub fn text(&self) -> String {
        let mut text = format!("{}, {}\n", self.name, self.period());
        if self.compares() {
            text += &format!("compared with {}\n", self.period_before());
        }
        for remark in &self.remarks {
            text += &format!("! {remark}\n");
        }
        for section in &self.sections {
            text.push('\n');
            if !section.title.is_empty() {
                text += &format!("{}\n{}\n", section.title, "-".repeat(section.title.chars().count()));
            }
            text += &section.text(&self.zone(), usize::MAX);
        }
        text
    }
}

impl Section {
    /// Lines for people, with so many rows of a table.
    pub fn text(&self, zone: &Tz, rows: usize) -> String {
        match self.shape() {
            Shape::Failed => format!("! failed: {}\n", self.error.as_deref().unwrap_or_default()),
            Shape::Empty => "nothing\n".to_string(),
            Shape::Figures => {
                let line = |figure: Figure<'_>| {
                    let change = match (&figure.change, &figure.before) {
                        (Some(change), Some(before)) => format!("{change} ({before})"),
                        _ => String::new(),
                    };
                    vec![figure.name.to_string(), figure.value, change]
                };
                aligned(&self.figures().into_iter().map(line).collect::<Vec<_>>(), &[false, true, false])
            }
            Shape::Series => {
                let mut lines = Vec::new();
                for (at, column) in self.columns.iter().enumerate().skip(1) {
                    let (now, before) = (self.points(at, false), self.points(at, true));
                    let values = || now.iter().chain(&before).map(|(_, value)| *value);
                    let most = values().fold(0.0, f64::max);
                    let told = |points: &[(Micros, f64)]| {
                        let values = || points.iter().map(|(_, value)| *value);
                        let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
                        format!("{} … {}", float(least), float(most))
                    };
                    lines.push(vec![column.name.clone(), bars(&now, most), told(&now)]);
                    if !before.is_empty() {
                        lines.push(vec!["  before".into(), bars(&before, most), told(&before)]);
                    }
                }
                aligned(&lines, &[false, false, false])
            }
            Shape::Table => self.table(zone, rows),
        }
    }

    fn table(&self, zone: &Tz, most: usize) -> String {
        let measures: Vec<bool> = (0..self.columns.len()).map(|at| self.is_measure(at)).collect();
        let compares = self.previous.is_some();
        let (mut head, mut right) = (Vec::new(), Vec::new());
        for (at, column) in self.columns.iter().enumerate() {
            head.push(column.name.clone());
            right.push(measures[at]);
            if compares && measures[at] {
                head.push(String::new());
                right.push(false);
            }
        }
        let mut lines = vec![head];
        for (row, before) in self.rows.iter().zip(self.rows_before()).take(most) {
            let mut line = Vec::new();
            for (at, value) in row.iter().enumerate().take(self.columns.len()) {
                line.push(cut(&self.cell(value, at, zone), WIDEST));
                if compares && measures[at] {
                    line.push(self.change(value, before, at));
                }
            }
            lines.push(line);
        }
        let rest = self.omitted + self.rows.len().saturating_sub(most) as u64;
        let mut text = aligned(&lines, &right);
        if rest > 0 {
            text += &format!("and {} more\n", group(&rest.to_string()));
        }
        text
    }
}

/// Lines in columns of the same width.
fn aligned(lines: &[Vec<String>], right: &[bool]) -> String {
    let width = |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..right.len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut one = String::new();
        for ((cell, width), right) in line.iter().zip(&widths).zip(right) {
            one += "  ";
            one += &if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
        }
        text += one.trim_end();
        text.push('\n');
    }
    text
}

/// Values as bars of text, at most so many, of those that would be more the largest of each few.
fn bars(points: &[(Micros, f64)], most: f64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const WIDE: usize = 48;
    let each = points.len().div_ceil(WIDE).max(1);
    let bar = |few: &[(Micros, f64)]| {
        let value = few.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let part = if most > 0.0 { value / most } else { 0.0 };
        BARS[((part * 7.0).round() as usize).min(7)]
    };
    points.chunks(each).map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;

    #[test]
    fn text_says_what_there_is() {
        let mut report = report();
        report.remarks.push("it is late".into());
        let expected = "\
site, 2026-01-01 01:00–02:00 CET
compared with 2026-01-01 00:00–01:00 CET
! it is late

Totals
------
  requests    12,345  ▲ 23 % (10,000)
  error rate  0.0123  = (0.0123)
  errors           7  ▲ from 0 (0)

By quarter
----------
  requests  ▁▃▅▇  0 … 30
    before  ▂▄▆█  4 … 34

Clients <top>
-------------
  client    requests
  10.0.0.1     1,500  ▼ 25 %
  10.0.0.2        40  new

Broken
------
! failed: division by zero
";
        assert_eq!(report.text(), expected);
        assert_eq!(report.title(), "[REPORT] site: 2026-01-01 01:00–02:00 CET (1 of 4 queries failed)");
    }
}
