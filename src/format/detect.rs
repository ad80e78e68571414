//! Which format are these lines in? Every detectable format parses the first frames with its default options, and the
//! one that makes rows of most of them wins. Parsing is the test: what is found is what will be read, and a new format
//! takes part by being in the table.
//!
//! Frames are taken as lines first. Where no format reads half of them, lines are joined to records as each format says
//! they begin ([`super::Format::record_start`]), and the one that reads most records wins. A line that begins a record by
//! chance would take all that follows for its own: so a record must begin at least every [`MAX_RECORD_LINES`] lines.

use super::{FORMATS, Spec, joined};
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::options::{self, Options};

/// A format that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    pub format: &'static str,
    /// Share of the lines, or records, that became rows, 0 to 1. Empty lines and headers do not count.
    pub score: f64,
    /// Whether lines must be joined to records for that.
    pub joins_lines: bool,
}

/// The least score that is an answer: below it, most of the lines would be malformed.
const ENOUGH: f64 = 0.5;

/// More frames than this say nothing new.
const MAX_FRAMES: usize = 1000;

/// How many lines a record has on average at most, where they are joined.
const MAX_RECORD_LINES: usize = 50;

/// How much of the first lines a format reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    pub format: &'static str,
    /// Lines that became rows.
    pub rows: usize,
    /// Lines tried; empty ones and headers do not count.
    pub lines: usize,
    /// Rows and records when lines are joined, for formats whose records go over several lines.
    pub joined: Option<(usize, usize)>,
}

impl Trial {
    fn score(&self) -> f64 {
        self.rows as f64 / self.lines.max(1) as f64
    }

    fn joined_score(&self) -> f64 {
        match self.joined {
            Some((rows, records)) if rows * MAX_RECORD_LINES >= self.lines => rows as f64 / records.max(1) as f64,
            Some(_) | None => 0.0,
        }
    }

    fn detected(&self) -> Detected {
        let (by_lines, joined) = (self.score(), self.joined_score());
        Detected { format: self.format, score: by_lines.max(joined), joins_lines: joined > by_lines }
    }
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} of {}", self.format, self.rows, self.lines)?;
        match self.joined {
            Some((rows, records)) => write!(f, " ({rows} of {records} records)"),
            None => Ok(()),
        }
    }
}

/// What each detectable format makes of the first of `frames`.
pub fn trials(frames: &Frames) -> Result<Vec<Trial>> {
    let head = frames.first(MAX_FRAMES);
    let trial = |spec: &&'static Spec| -> Result<Trial> {
        let build = || (spec.build)(&Options::parse(spec.name, &[spec.options], &[])?, &[]);
        let count = |frames: &Frames| -> Result<(usize, usize)> {
            let parser = build()?;
            let parsed = parser.parse(frames, 0);
            let headers = parsed.malformed.iter().filter(|m| m.is_header()).count();
            let lines = frames.iter().filter(|line| !line.is_empty()).count() - headers;
            // Where no line says its time, what looks like columns of a log is mostly commas in its sentences.
            Ok((if parser.time_column().is_some() { parsed.rows.num_rows() } else { 0 }, lines))
        };
        let (rows, lines) = count(&head)?;
        let records = joined(&*build()?, &head);
        let joined = if records.len() < head.len() { Some(count(&records)?) } else { None };
        Ok(Trial { format: spec.name, rows, lines, joined })
    };
    detectable().map(trial).collect()
}

/// The format of `frames`, the first of an input. Where two fit equally well, the earlier one in the table is taken.
/// Fails with what each reads when none makes rows of at least half of the lines, or records.
pub fn detect(frames: &Frames) -> Result<Detected> {
    let trials = trials(frames)?;
    if trials.iter().all(|t| t.lines == 0) {
        return Err(Error::new(Kind::NotReady, "cannot detect the format: there are no lines yet")
            .with_hint(format!("Name it with FORMAT, as one of: {}.", options::list(names()))));
    }
    let found = best(&trials, Trial::score).or_else(|| best(&trials, Trial::joined_score));
    found.map(Trial::detected).ok_or_else(|| {
        Error::new(Kind::InvalidParameter, "cannot detect the format: no known one reads half of the lines")
            .with_detail(format!("Lines read: {}.", list(&trials)))
            .with_hint("Name the format, or describe the lines with FORMAT REGEX (pattern = '…').")
    })
}

/// The first of those with the highest score, if that is enough.
fn best(trials: &[Trial], score: impl Fn(&Trial) -> f64) -> Option<&Trial> {
    let enough = trials.iter().filter(|trial| score(trial) >= ENOUGH);
    enough.reduce(|best, trial| if score(trial) > score(best) { trial } else { best })
}

/// What each format reads, for a message.
pub fn list(trials: &[Trial]) -> String {
    trials.iter().map(Trial::to_string).collect::<Vec<_>>().join(", ")
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
            assert_eq!((found.format, found.score), (spec.name, 1.0));
        }
    }

    #[test]
    fn no_answer_says_what_was_tried() {
        let err = detect(&Frames::from_text("hello\nworld\n{\"ts\":1}\n")).unwrap_err();
        assert!(err.detail().unwrap().contains("json 1 of 3"), "{err}");
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
    fn one_line_does_not_make_a_record_of_all_others() {
        let start = "2024-06-27 00:00:07 UTC [5] LOG:  x\n";
        let words = |count: usize| (0..count).map(|i| format!("word {i}\n")).collect::<String>();
        let found = detect(&Frames::from_text(format!("{start}{}", words(40)))).unwrap();
        assert_eq!(found, Detected { format: "postgres", score: 1.0, joins_lines: true });
        assert!(detect(&Frames::from_text(format!("{start}{}", words(60)))).is_err());
        assert!(detect(&Frames::from_text(format!("{}{start}{}", words(3), words(3)))).is_err());
    }

    /// What the real logs are in, so that a new format cannot take away lines that are another's.
    #[test]
    fn real_logs_are_what_they_are() {
        let lnav = |names: &[&str]| names.iter().map(|name| format!("formats/lnav/logfile_{name}")).collect::<Vec<_>>();
        let logs = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let cases: &[(Option<&str>, Vec<String>)] = &[
            (Some("combined"), logs(&["access/apache_combined_10k.log", "access/nginx_combined_fragments.log"])),
            (Some("combined"), lnav(&["access_log.0", "access_log.1"])),
            (Some("common"), logs(&["access/nasa_common_2k.log"])),
            (Some("apache_error"), logs(&["templates/Apache_2k.log"])),
            (Some("syslog"), logs(&["syslog/auth.log", "templates/Linux_2k.log", "templates/OpenSSH_2k.log"])),
            (Some("syslog"), lnav(&["syslog.0", "syslog.1", "syslog.2", "blued.0", "dst.0", "filter.0"])),
            (Some("syslog"), lnav(&["for_join.0", "haproxy.0", "partitions.0", "rollover.1", "bad_syslog.0"])),
            (Some("w3c"), lnav(&["w3c.0", "w3c.2", "w3c.3", "w3c_big.0"])),
            (Some("logfmt"), lnav(&["logfmt.0"])),
            (Some("postgres"), logs(&["multiline/postgres_vacuum.log"])),
            (Some("postgres"), lnav(&["postgres.0", "postgres.1", "postgres.2"])),
            (Some("log4j"), logs(&["multiline/kafka_server_log4j.log", "templates/Zookeeper_2k.log"])),
            (Some("log4j"), logs(&["templates/Spark_2k.log", "templates/HDFS_2k.log"])),
            (Some("log4j"), lnav(&["spark.0", "java.0", "java.1"])),
            (
                Some("db2diag"),
                logs(&["multiline/hadr_pcmk1_2023.db2diag.log", "multiline/db2inst1_lab_2025.db2diag.log"]),
            ),
            (Some("json"), logs(&["json/nginx_plus.json"])),
            (
                Some("json"),
                lnav(&["json.json", "bunyan.0", "caddy_log.1", "journald.json", "pino.0", "rust_tracing.0"]),
            ),
            (
                None,
                lnav(&[
                    "plain.0",
                    "glog.0",
                    "strace_log.0",
                    "vdsm.0",
                    "tai64n.0",
                    "vpxd.0",
                    "vmw_log.0",
                    "zap_console.0",
                ]),
            ),
            (None, lnav(&["generic.0", "generic.1", "generic.2", "generic.3", "xml_msg.0", "procstate.0", "tcf.0"])),
        ];
        for (expected, logs) in cases {
            for name in logs {
                let Some(log) = super::super::real_log(name) else { return };
                let frames = Frames::from_text(log);
                let found = detect(&frames).ok().map(|found| found.format);
                assert_eq!(found, *expected, "{name}: {}", list(&trials(&frames).unwrap()));
            }
        }
    }

    #[test]
    fn commas_and_pairs_in_sentences_are_no_columns() {
        let text = "Started the server, all is well\nStopped the server, took=1 of 2\nStarted it, again\n";
        let err = detect(&Frames::from_text(text)).unwrap_err();
        // The first line might be the header of a CSV.
        let detail = err.detail().unwrap();
        assert!(detail.contains("csv 0 of 2") && detail.contains("logfmt 0 of 3"), "{detail}");
    }
}
