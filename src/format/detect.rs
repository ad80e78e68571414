//! Which format are these lines in? Every detectable format parses the first frames with its default options, and the
//! one that makes rows of most of them wins. Parsing is the test: what is found is what will be read, and a new format
//! takes part by being in the table.

use super::{FORMATS, Spec};
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::options::{self, Options};

/// A format that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    pub format: &'static str,
    /// Share of the lines that became rows, 0 to 1. Empty lines and headers do not count.
    pub score: f64,
}

/// The least score that is an answer: below it, most of the lines would be malformed.
const ENOUGH: f64 = 0.5;

/// More frames than this say nothing new.
const MAX_FRAMES: usize = 1000;

/// How much of the first lines a format reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    pub format: &'static str,
    /// Lines that became rows.
    pub rows: usize,
    /// Lines tried; empty ones and headers do not count.
    pub lines: usize,
}

impl Trial {
    fn score(&self) -> f64 {
        self.rows as f64 / self.lines.max(1) as f64
    }
}

/// What each detectable format makes of the first of `frames`.
pub fn trials(frames: &Frames) -> Result<Vec<Trial>> {
    let head = frames.first(MAX_FRAMES);
    let lines = head.iter().filter(|line| !line.is_empty()).count();
    let trial = |spec: &&'static Spec| -> Result<Trial> {
        let parser = (spec.build)(&Options::parse(spec.name, &[spec.options], &[])?, &[])?;
        let parsed = parser.parse(&head, 0);
        let headers = parsed.malformed.iter().filter(|m| m.is_header()).count();
        // Where no line says its time, what looks like columns of a log is mostly commas in its sentences.
        let rows = if parser.time_column().is_some() { parsed.rows.num_rows() } else { 0 };
        Ok(Trial { format: spec.name, rows, lines: lines - headers })
    };
    detectable().map(trial).collect()
}

/// The format of `frames`, the first of an input. Where two fit equally well, the earlier one in the table is taken.
/// Fails with the best scores when none makes rows of at least half of the lines.
pub fn detect(frames: &Frames) -> Result<Detected> {
    let trials = trials(frames)?;
    if trials.iter().all(|t| t.lines == 0) {
        return Err(Error::new(Kind::NotReady, "cannot detect the format: there are no lines yet")
            .with_hint(format!("Name it with FORMAT, as one of: {}.", options::list(names()))));
    }
    let mut best: Option<Detected> = None;
    let mut scores = Vec::new();
    for trial in &trials {
        let score = trial.score();
        scores.push(format!("{} {:.0} %", trial.format, score * 100.0));
        if best.as_ref().is_none_or(|b| score > b.score) {
            best = Some(Detected { format: trial.format, score });
        }
    }
    best.filter(|b| b.score >= ENOUGH).ok_or_else(|| {
        Error::new(Kind::InvalidParameter, "cannot detect the format: no known one reads half of the lines")
            .with_detail(format!("Lines read: {}.", scores.join(", ")))
            .with_hint("Name the format, or describe the lines with FORMAT REGEX (pattern = '…').")
    })
}

fn detectable() -> impl Iterator<Item = &'static &'static Spec> {
    FORMATS.iter().filter(|spec| spec.detectable)
}

fn names() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|spec| spec.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_is_detected_as_its_format() {
        for spec in detectable() {
            let found = detect(&Frames::from_text(spec.sample)).unwrap();
            assert_eq!(found, Detected { format: spec.name, score: 1.0 });
        }
    }

    #[test]
    fn no_answer_says_what_was_tried() {
        let err = detect(&Frames::from_text("hello\nworld\n{\"ts\":1}\n")).unwrap_err();
        assert!(err.detail().unwrap().contains("json 33 %"), "{err}");
        assert!(err.hint().unwrap().contains("FORMAT REGEX"));
        assert_eq!(detect(&Frames::from_text("\n\n")).unwrap_err().kind(), Kind::NotReady);
    }

    #[test]
    fn empty_lines_and_some_noise_do_not_matter() {
        let text = format!("\n\n# Generated\n{}", super::super::access::COMMON.sample);
        let found = detect(&Frames::from_text(text)).unwrap();
        assert_eq!(found.format, "common");
        assert!(found.score > 0.6);
    }

    #[test]
    fn real_files() {
        for (name, format) in [
            ("access/apache_combined_10k.log", "combined"),
            ("access/nginx_combined_fragments.log", "combined"),
            ("access/nasa_common_2k.log", "common"),
            ("formats/lnav/logfile_w3c.0", "w3c"),
            ("formats/lnav/logfile_w3c.3", "w3c"),
            ("formats/lnav/logfile_w3c_big.0", "w3c"),
            ("formats/lnav/logfile_logfmt.0", "logfmt"),
            ("formats/lnav/logfile_journald.json", "json"),
            ("templates/Apache_2k.log", "apache_error"),
        ] {
            let Some(log) = super::super::real_log(name) else { return };
            assert_eq!(detect(&Frames::from_text(log)).unwrap().format, format, "{name}");
        }
    }

    #[test]
    fn commas_and_pairs_in_sentences_are_no_columns() {
        let text = "Started the server, all is well\nStopped the server, time=1 of 2\nStarted it, again\n";
        let err = detect(&Frames::from_text(text)).unwrap_err();
        assert!(err.detail().unwrap().contains("csv 0 %") && err.detail().unwrap().contains("logfmt 0 %"), "{err:?}");
    }
}
