//! `logweir gen`: writes the logs of a made-up site, to try the engine on, to load it, and to make test data with.
//!
//! The lines come from [`crate::generate`], which knows neither clock nor files; this file gives them their times,
//! their pace and a place to go. Two times must not be confused: event time is what a line says, real time is when it
//! is written. With a seed, event time is computed from the line's number alone, so the text is the same in every run,
//! however fast or slow it is written.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::generate::{Access, Errors, parse_utc};
use crate::time::{Clock, MICROS_PER_SECOND, Micros};

/// Lines a second when none are asked for: of event time in a seeded log, of real time in a log without end.
const DEFAULT_RATE: f64 = 1000.0;

/// Event time of a seeded log's first line.
const SEEDED_START: &str = "2026-01-01T00:00:00Z";

/// Write once this much is waiting: large enough that the system call costs little beside the lines, small enough to
/// stay in the processor's cache.
const BLOCK_BYTES: usize = 64 * 1024;

/// The shortest pause of a paced log. Shorter ones only wake the process for a line or two.
const MIN_PAUSE: Duration = Duration::from_millis(5);

/// Write realistic Apache logs of a made-up web site.
///
/// Many clients of which a few ask most, browsers and bots, broken links, scanners, logins, large downloads, and now
/// and then a minute in which the backend is down. Without --count it writes until interrupted or until its reader
/// leaves.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  logweir gen access --rate 500 --output /tmp/access.log
  logweir gen access --seed 1 --count 1000000 > access.log
  logweir gen access --seed 1 --count 1000000 --event-rate 12 > a_day.log
  logweir gen access --rate 500 --output access.log --errors error.log")]
pub struct GenArgs {
    /// Which log: 'access' in the combined format, or 'error' in the format of Apache 2.4
    #[arg(value_enum)]
    pub log: Log,

    /// Lines a second, paced in real time (such as 5000 or 0.5); 0 means as fast as the output takes them
    ///
    /// Without this option, a log with --count is written as fast as possible and one without at 1000 lines a second.
    #[arg(long, value_name = "LINES_PER_S", value_parser = parse_rate)]
    pub rate: Option<f64>,

    /// Stop after this many lines
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,

    /// Write the same text in every run with this number
    ///
    /// The clock is then left alone: times begin at --start (by default 2026-01-01T00:00:00Z) and advance by
    /// --event-rate. Without a seed every run differs.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Time of the first line in UTC, such as '2026-01-31 12:00', or 'now'
    ///
    /// 'now', the default without --seed, gives every line the time at which it is written.
    #[arg(long, value_name = "TIMESTAMP|now", value_parser = parse_start)]
    pub start: Option<Start>,

    /// Lines in each second of the log's own time; without it those of --rate, or else 1000
    ///
    /// With it, a day of logs can be written in a second, or a minute replayed in an hour. Needs --seed or --start.
    #[arg(long, value_name = "LINES_PER_S", value_parser = parse_event_rate)]
    pub event_rate: Option<f64>,

    /// File to append to; '-' is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,

    /// With 'access': also append the error log of the same requests to this file
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Log {
    Access,
    Error,
}

/// Where event time begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Every line has the time of the clock.
    Now,
    At(Micros),
}

/// Writes the log. Returns after `--count` lines, or when the reader of the output is gone; otherwise never.
pub fn run(args: GenArgs) -> Result<()> {
    if args.log == Log::Error && args.errors.is_some() {
        return Err(Error::new(Kind::InvalidParameter, "--errors goes with the access log only")
            .with_hint("Write 'logweir gen access --errors FILE', or 'logweir gen error --output FILE'."));
    }
    if args.event_rate.is_some() && matches!(Times::of(&args), Times::Clock) {
        return Err(Error::new(Kind::InvalidParameter, "--event-rate does not fit times taken from the clock")
            .with_hint("Add --seed N or --start 'TIMESTAMP'."));
    }
    let output = Output::open(&args.output)?;
    let errors = args.errors.as_deref().map(Output::open).transpose()?;
    write_log(&args, &Clock::system(), output, errors)
}

fn write_log(args: &GenArgs, clock: &Clock, mut output: Output, mut errors: Option<Output>) -> Result<()> {
    let mut lines = Lines::new(args.log, args.seed.unwrap_or_else(rand::random));
    let times = Times::of(args);
    let pace = pace_of(args);
    let begun = Instant::now();
    let mut written = 0u64;
    while args.count.is_none_or(|count| written < count) {
        if let Some(rate) = pace {
            let ahead = time_of_line(written, rate).saturating_sub(begun.elapsed());
            if !ahead.is_zero() {
                if !flush_all(&mut output, &mut errors)? {
                    return Ok(());
                }
                thread::sleep(ahead.max(MIN_PAUSE));
            }
        }
        lines.put(times.of_line(written, clock), &mut output, &mut errors);
        written += 1;
        if output.waiting.len() >= BLOCK_BYTES && !flush_all(&mut output, &mut errors)? {
            return Ok(());
        }
    }
    flush_all(&mut output, &mut errors).map(|_| ())
}

/// The generator of the log that was asked for.
enum Lines {
    Access(Box<Access>),
    Error(Box<Errors>),
}

impl Lines {
    fn new(log: Log, seed: u64) -> Lines {
        match log {
            Log::Access => Lines::Access(Box::new(Access::new(seed))),
            Log::Error => Lines::Error(Box::new(Errors::new(seed))),
        }
    }

    fn put(&mut self, at: Micros, output: &mut Output, errors: &mut Option<Output>) {
        match (self, errors) {
            (Lines::Access(access), None) => access.line(at, &mut output.waiting),
            (Lines::Access(access), Some(errors)) => {
                access.line_and_error(at, &mut output.waiting, &mut errors.waiting);
            }
            (Lines::Error(log), _) => log.line(at, &mut output.waiting),
        }
    }
}

/// Event time, line by line.
enum Times {
    Clock,
    Counted { start: Micros, rate: f64 },
}

impl Times {
    fn of(args: &GenArgs) -> Times {
        let seeded = || Start::At(parse_utc(SEEDED_START).expect("the constant is a valid time"));
        match args.start.unwrap_or_else(|| if args.seed.is_some() { seeded() } else { Start::Now }) {
            Start::Now => Times::Clock,
            Start::At(start) => {
                let paced = args.rate.filter(|&rate| rate > 0.0);
                Times::Counted { start, rate: args.event_rate.or(paced).unwrap_or(DEFAULT_RATE) }
            }
        }
    }

    fn of_line(&self, line: u64, clock: &Clock) -> Micros {
        match self {
            Times::Clock => clock.now(),
            Times::Counted { start, rate } => start.saturating_add(time_of_line(line, *rate).as_micros() as Micros),
        }
    }
}

/// The real pace in lines a second; None is as fast as the output takes them.
fn pace_of(args: &GenArgs) -> Option<f64> {
    match (args.rate, args.count) {
        (Some(0.0), _) | (None, Some(_)) => None,
        (Some(rate), _) => Some(rate),
        (None, None) => Some(DEFAULT_RATE),
    }
}

/// How long after the first line the line of this number is due. One division and one multiplication, which IEEE 754
/// defines to the last bit: the same on every machine.
fn time_of_line(line: u64, rate: f64) -> Duration {
    Duration::from_micros((line as f64 * MICROS_PER_SECOND as f64 / rate) as u64)
}

/// Where lines go, and the whole lines that wait to go there.
struct Output {
    /// For messages.
    path: PathBuf,
    to: Box<dyn Write>,
    waiting: Vec<u8>,
}

impl Output {
    fn open(path: &Path) -> Result<Output> {
        let (path, to): (&Path, Box<dyn Write>) = if path == Path::new("-") {
            (Path::new("standard output"), Box::new(io::stdout().lock()))
        } else {
            let file = OpenOptions::new().create(true).append(true).open(path);
            (path, Box::new(file.map_err(|err| Error::io("open", path, &err))?))
        };
        Ok(Output { path: path.to_path_buf(), to, waiting: Vec::with_capacity(BLOCK_BYTES * 2) })
    }

    /// Writes what waits; false when the reader has gone, which ends a pipeline such as `logweir gen access | head`.
    fn flush(&mut self) -> Result<bool> {
        let done = self.to.write_all(&self.waiting).and_then(|()| self.to.flush());
        self.waiting.clear();
        match done {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(err) => Err(Error::io("write to", &self.path, &err)),
        }
    }
}

fn flush_all(output: &mut Output, errors: &mut Option<Output>) -> Result<bool> {
    let open = output.flush()?;
    Ok(match errors {
        Some(errors) => errors.flush()? && open,
        None => open,
    })
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (rate == 0.0 || rate >= MIN_RATE) => Ok(rate.abs()),
        Ok(_) | Err(_) => Err(format!("lines a second are 0 or a number from {MIN_RATE} on")),
    }
}

fn parse_event_rate(text: &str) -> Result<f64, String> {
    match parse_rate(text) {
        Ok(0.0) | Err(_) => Err(format!("lines a second are a number from {MIN_RATE} on")),
        Ok(rate) => Ok(rate),
    }
}

/// A line a day or so; keeps the pause between two lines within what a timer can wait.
const MIN_RATE: f64 = 0.00001;

fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "now" => Ok(Start::Now),
        text => parse_utc(text)
            .map(Start::At)
            .ok_or_else(|| "write 'now', or a time in UTC like '2026-01-31 12:00:00' or '2026-01-31T12:00:00Z'".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: GenArgs,
    }

    fn args(line: &str) -> GenArgs {
        Command::parse_from(["gen"].into_iter().chain(line.split(' '))).args
    }

    /// Keeps what is written, and breaks after a number of bytes like a pipe whose reader has left.
    #[derive(Clone, Default)]
    struct Pipe {
        bytes: Arc<Mutex<Vec<u8>>>,
        breaks_at: Option<usize>,
    }

    impl Write for Pipe {
        fn write(&mut self, block: &[u8]) -> io::Result<usize> {
            let mut bytes = self.bytes.lock().unwrap();
            if self.breaks_at.is_some_and(|end| bytes.len() >= end) {
                return Err(ErrorKind::BrokenPipe.into());
            }
            bytes.extend_from_slice(block);
            Ok(block.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output(pipe: &Pipe) -> Output {
        Output { path: "-".into(), to: Box::new(pipe.clone()), waiting: Vec::new() }
    }

    fn written(line: &str, now: Micros) -> String {
        let pipe = Pipe::default();
        write_log(&args(line), &Clock::manual(now), output(&pipe), None).unwrap();
        let bytes = pipe.bytes.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_seeded_log_does_not_depend_on_the_clock_or_the_pace() {
        let text = written("access --seed 5 --count 3000", 0);
        assert_eq!(text, written("access --seed 5 --count 3000", MICROS_PER_SECOND));
        assert_eq!(text, written("access --seed 5 --count 3000 --rate 0", 0));
        assert_eq!(text.lines().count(), 3000);
        assert!(text.lines().next().unwrap().contains("[01/Jan/2026:00:00:00 +0000]"));
        assert!(text.lines().last().unwrap().contains("[01/Jan/2026:00:00:02 +0000]"));
    }

    #[test]
    fn the_start_is_what_was_asked_for() {
        let text = written("error --seed 5 --count 2 --start 2024-02-29T08:00:00Z", 0);
        let times: Vec<&str> = text.lines().map(|line| &line[1..32]).collect();
        assert_eq!(times, ["Thu Feb 29 08:00:00.000000 2024", "Thu Feb 29 08:00:00.001000 2024"]);

        let text = written("error --seed 5 --count 2 --event-rate 0.5", 0);
        assert!(text.lines().last().unwrap().starts_with("[Thu Jan 01 00:00:02.000000 2026]"), "{text}");

        let now = parse_utc("2030-05-06 07:08:09").unwrap();
        assert!(written("access --count 1", now).contains("[06/May/2030:07:08:09 +0000]"));
        assert!(written("access --count 1 --seed 1 --start now", now).contains("[06/May/2030:07:08:09 +0000]"));
    }

    #[test]
    fn the_pace_is_unlimited_only_with_an_end_or_when_asked() {
        assert_eq!(pace_of(&args("access")), Some(1000.0));
        assert_eq!(pace_of(&args("access --rate 0.5 --count 3")), Some(0.5));
        assert_eq!(pace_of(&args("access --count 3")), None);
        assert_eq!(pace_of(&args("access --rate 0")), None);
        assert_eq!(time_of_line(3, 0.5), Duration::from_secs(6));
    }

    #[test]
    fn a_reader_that_leaves_ends_the_log_without_an_error() {
        let pipe = Pipe { breaks_at: Some(100_000), ..Pipe::default() };
        write_log(&args("access --rate 0"), &Clock::manual(0), output(&pipe), None).unwrap();
        assert!(pipe.bytes.lock().unwrap().len() >= 100_000);
    }

    #[test]
    fn both_logs_of_one_run_go_to_their_own_outputs() {
        let (access, errors) = (Pipe::default(), Pipe::default());
        let args = args("access --seed 2 --count 1000");
        write_log(&args, &Clock::manual(0), output(&access), Some(output(&errors))).unwrap();
        let text = String::from_utf8(access.bytes.lock().unwrap().clone()).unwrap();
        assert_eq!(text, written("access --seed 2 --count 1000", 0));
        assert!(errors.bytes.lock().unwrap().starts_with(b"[Thu Jan 01 00:00:00."));
    }

    #[test]
    fn files_are_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        for _ in 0..2 {
            run(args(&format!("access --seed 1 --count 10 --output {}", path.display()))).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 20);
    }

    #[test]
    fn wrong_words_are_refused() {
        for line in ["access --rate -1", "access --rate nan", "access --start yesterday", "both"] {
            let words = ["gen"].into_iter().chain(line.split(' '));
            assert!(Command::try_parse_from(words).is_err(), "{line}");
        }
        assert!(run(args("error --errors x.log")).is_err());
        assert!(run(args("access --event-rate 5 --count 1")).is_err());
    }
}
