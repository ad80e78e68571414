//! `logweir gen`: writes the logs of a made-up site, to try the engine on, to load it, and to make test data with.
//!
//! The lines come from [`crate::generate`], which knows neither clock nor files; this file gives them their times,
//! their pace and a place to go. Two times must not be confused: event time is what a line says, real time is when it
//! is written. With a seed, event time is computed from the line's number alone, so the text is the same in every run,
//! however fast or slow it is written.
//!
//! A scenario (`--scenario`) says more: its traffic goes up and down, things go wrong at times that are known, and what
//! went wrong is told at the end (`--truth`), for a test to compare with what the engine found.

mod file;
mod http;
mod kafka;
mod output;
mod syslog;
mod tcp;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::output::{Output, Settings};
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::generate::scenario::{DEFAULT_RATE, EXAMPLE, SEEDED_START};
use crate::generate::{Access, Errors, Header, Player, Scenario, parse_utc};
use crate::time::{Clock, MICROS_PER_SECOND, Micros};

/// The longest pause of a paced log, so that a signal is heard soon.
const MAX_PAUSE: Duration = Duration::from_millis(200);

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
  logweir gen access --rate 500 --output access.log --errors error.log
  logweir gen access --rate 500 --output http://127.0.0.1:7480/v1/streams/access/rows
  logweir gen --example > scenario.toml
  logweir gen --scenario scenario.toml --seed 1 --output access.log --truth truth.json")]
pub struct GenArgs {
    /// Which log: 'access' in the combined format, or 'error' in the format of Apache 2.4
    #[arg(value_enum, required_unless_present_any = ["scenario", "example"], conflicts_with_all = ["scenario", "example"])]
    pub log: Option<Log>,

    /// Lines a second, paced in real time (such as 5000 or 0.5); 0 means as fast as the output takes them
    ///
    /// Without this option, a log with --count is written as fast as possible and one without at 1000 lines a second.
    #[arg(long, value_name = "LINES_PER_S", value_parser = parse_rate, conflicts_with = "scenario")]
    pub rate: Option<f64>,

    /// Stop after this many lines
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,

    /// Write the same text in every run with this number
    ///
    /// The clock is then left alone: times begin at --start (by default 2026-01-01T00:00:00Z) and advance by
    /// --event-rate, or as the scenario says. Without a seed every run differs.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Time of the first line in UTC, such as '2026-01-31 12:00', or 'now'
    ///
    /// 'now', the default without --seed, gives every line the time at which it is written. A scenario begins then, or when
    /// it says itself.
    #[arg(long, value_name = "TIMESTAMP|now", value_parser = parse_start)]
    pub start: Option<Start>,

    /// Lines in each second of the log's own time; without it those of --rate, or else 1000
    ///
    /// With it, a day of logs can be written in a second, or a minute replayed in an hour. Needs --seed or --start.
    #[arg(long, value_name = "LINES_PER_S", value_parser = parse_event_rate, conflicts_with = "scenario")]
    pub event_rate: Option<f64>,

    /// File with a scenario, TOML or JSON: how much traffic and when, who asks, what goes wrong
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,

    /// Print a scenario with every field, and end
    #[arg(long, conflicts_with = "scenario")]
    pub example: bool,

    /// With a scenario: how much faster than the clock, such as 60 for an hour in a minute; 0 is as fast as possible
    ///
    /// Without this option, a scenario that begins 'now' or has no end is written at its own pace, any other one as fast as
    /// possible.
    #[arg(long, value_name = "FACTOR", value_parser = parse_speed)]
    pub speed: Option<f64>,

    /// With a scenario: write to this file, as JSON, what is in the log: lines, malformed and late ones, episodes
    ///
    /// It is written at the end, also when that is an interruption.
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,

    /// Where to: a file to append to, '-' (standard output), tcp://HOST:PORT, syslog://HOST:PORT (UDP),
    /// http://HOST:PORT/v1/streams/NAME/rows, or kafka://BROKER:PORT/TOPIC
    #[arg(long, short, value_name = "FILE|URL", default_value = "-")]
    pub output: String,

    /// Of a file: rename it to FILE.1 (that to FILE.2, and so on) when it has this size, and begin the next
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub rotate: Option<u64>,

    /// So many renamed files are kept [default: all]
    #[arg(long, value_name = "N", requires = "rotate")]
    pub keep: Option<u32>,

    /// With 'access', or a scenario of an access log: also append the error log of the same requests to this file
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,

    /// The token that a server wants of those who post to it
    #[arg(long, value_name = "TOKEN", env = "LOGWEIR_HTTP_TOKEN", hide_env_values = true)]
    pub http_token: Option<String>,

    /// A property of librdkafka, such as security.protocol=SASL_SSL; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_property)]
    pub kafka: Vec<(String, String)>,
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

/// Writes the log. Returns after its last line, or when the reader of the output is gone; otherwise never.
pub fn run(args: GenArgs) -> Result<()> {
    if args.example {
        print!("{EXAMPLE}");
        return Ok(());
    }
    // Clap's `requires` says nothing when what is required would be in conflict with another argument.
    if args.scenario.is_none() && (args.truth.is_some() || args.speed.is_some()) {
        let given = if args.truth.is_some() { "--truth" } else { "--speed" };
        return Err(Error::new(Kind::InvalidParameter, format!("{given} goes with a scenario only"))
            .with_hint("Add --scenario FILE in place of the log's name; --example prints one."));
    }
    let scenario = args.scenario.as_deref().map(read_scenario).transpose()?;
    let is_error = match &scenario {
        Some(scenario) => scenario.log == crate::generate::scenario::Log::Error,
        None => args.log == Some(Log::Error),
    };
    if is_error && args.errors.is_some() {
        return Err(Error::new(Kind::InvalidParameter, "--errors goes with the access log only")
            .with_hint("Write 'logweir gen access --errors FILE', or 'logweir gen error --output FILE'."));
    }
    if args.event_rate.is_some() && matches!(Times::of(&args), Times::Clock) {
        return Err(Error::new(Kind::InvalidParameter, "--event-rate does not fit times taken from the clock")
            .with_hint("Add --seed N or --start 'TIMESTAMP'."));
    }
    let settings =
        Settings { rotate: args.rotate, keep: args.keep, token: args.http_token.clone(), kafka: args.kafka.clone() };
    let (output, has_headers) = output::open(&args.output, &settings)?;
    let output = Feed::new(output);
    let errors = match &args.errors {
        Some(path) => Some(Feed::new(file::open(path, &settings)?)),
        None => None,
    };
    match scenario {
        Some(scenario) => play(&args, scenario, &Clock::system(), output, has_headers, errors),
        None => write_log(&args, &Clock::system(), output, has_headers, errors),
    }
}

fn read_scenario(path: &Path) -> Result<Scenario> {
    let text = std::fs::read_to_string(path).map_err(|err| Error::io("read", path, &err))?;
    Scenario::parse(&text).map_err(|err| err.with_context(&path.display().to_string()))
}

/// Writes a scenario's log, and at its end the truth about it.
fn play(
    args: &GenArgs,
    mut scenario: Scenario,
    clock: &Clock,
    mut output: Feed,
    has_headers: bool,
    mut errors: Option<Feed>,
) -> Result<()> {
    if args.count.is_some() {
        scenario.lines = args.count;
    }
    let seeded = || parse_utc(SEEDED_START).expect("the constant is a valid time");
    let (start, is_now) = match (args.start, scenario.start) {
        (Some(Start::At(start)), _) | (None, Some(start)) => (start, false),
        (None, None) if args.seed.is_some() => (seeded(), false),
        (Some(Start::Now), _) | (None, None) => (clock.now(), true),
    };
    let is_endless = scenario.lines.is_none() && scenario.duration.is_none();
    let speed = args.speed.unwrap_or(if is_now || is_endless { 1.0 } else { 0.0 });
    let mut player = Player::new(scenario, args.seed.unwrap_or_else(rand::random), start);
    if has_headers {
        player.add_headers();
    }
    // Without a truth to write, an interruption is the end, as of any command.
    let stop = Arc::new(AtomicBool::new(false));
    if args.truth.is_some() {
        stop_at_signal(Arc::clone(&stop))?;
    }
    let written = play_all(&mut player, speed, start, &mut output, &mut errors, &stop);
    if let Some(path) = &args.truth {
        let text = format!("{:#}\n", player.truth().to_json());
        std::fs::write(path, text).map_err(|err| Error::io("write", path, &err))?;
    }
    written
}

fn play_all(
    player: &mut Player,
    speed: f64,
    start: Micros,
    output: &mut Feed,
    errors: &mut Option<Feed>,
    stop: &AtomicBool,
) -> Result<()> {
    let begun = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        let until = match speed {
            0.0 => Micros::MAX,
            speed => start.saturating_add((begun.elapsed().as_micros() as f64 * speed) as Micros),
        };
        let room = output.to.block_bytes();
        player.fill(until, &mut output.waiting, room, &mut errors.as_mut().map(|errors| &mut errors.waiting));
        let is_full = output.waiting.len() >= room;
        if !flush_all(output, errors)? {
            return Ok(());
        }
        if player.has_ended() {
            break;
        }
        if !is_full {
            let ahead = (player.reached() - until).max(0) as f64 / speed;
            let ahead = Duration::from_micros(ahead as u64);
            thread::sleep(ahead.clamp(output.to.min_pause(), MAX_PAUSE));
        }
    }
    finish_all(output, errors)
}

/// Sets `stop` at SIGINT or SIGTERM; the second of them ends the process.
fn stop_at_signal(stop: Arc<AtomicBool>) -> Result<()> {
    let failed = |err: std::io::Error| Error::internal(format!("could not wait for signals: {err}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    // It is listened to from here on, not only when the thread gets its turn.
    let signal = {
        let _within = runtime.enter();
        super::serve::wait_for_signal()?
    };
    let wait = move || {
        runtime.block_on(async {
            drop(signal.await);
            stop.store(true, Ordering::SeqCst);
            if let Ok(again) = super::serve::wait_for_signal() {
                drop(again.await);
                std::process::exit(1);
            }
        });
    };
    thread::Builder::new().name("signals".to_string()).spawn(wait).map_err(failed)?;
    Ok(())
}

fn write_log(
    args: &GenArgs,
    clock: &Clock,
    mut output: Feed,
    has_headers: bool,
    mut errors: Option<Feed>,
) -> Result<()> {
    let log = args.log.unwrap_or(Log::Access);
    let mut lines = Lines::new(log, args.seed.unwrap_or_else(rand::random));
    let times = Times::of(args);
    let pace = pace_of(args);
    let begun = Instant::now();
    let (block_bytes, min_pause) = (output.to.block_bytes(), output.to.min_pause());
    let mut header = has_headers.then(|| Header::new(log == Log::Error));
    let mut written = 0u64;
    while args.count.is_none_or(|count| written < count) {
        if let Some(rate) = pace {
            let ahead = time_of_line(written, rate).saturating_sub(begun.elapsed());
            if !ahead.is_zero() {
                if !flush_all(&mut output, &mut errors)? {
                    return Ok(());
                }
                thread::sleep(ahead.max(min_pause));
            }
        }
        let at = times.of_line(written, clock);
        if let Some(header) = &mut header {
            header.put(at, &mut output.waiting);
        }
        lines.put(at, &mut output, &mut errors);
        written += 1;
        if output.waiting.len() >= block_bytes && !flush_all(&mut output, &mut errors)? {
            return Ok(());
        }
    }
    if !flush_all(&mut output, &mut errors)? {
        return Ok(());
    }
    finish_all(&mut output, &mut errors)
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

    fn put(&mut self, at: Micros, output: &mut Feed, errors: &mut Option<Feed>) {
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
struct Feed {
    to: Box<dyn Output>,
    waiting: Vec<u8>,
}

impl Feed {
    fn new(to: Box<dyn Output>) -> Feed {
        let waiting = Vec::with_capacity(to.block_bytes() * 2);
        Feed { to, waiting }
    }

    /// Writes what waits; false when the reader has gone, which ends a pipeline such as `logweir gen access | head`.
    fn flush(&mut self) -> Result<bool> {
        let open = self.to.write(&self.waiting);
        self.waiting.clear();
        open
    }
}

fn flush_all(output: &mut Feed, errors: &mut Option<Feed>) -> Result<bool> {
    let open = output.flush()?;
    Ok(match errors {
        Some(errors) => errors.flush()? && open,
        None => open,
    })
}

fn finish_all(output: &mut Feed, errors: &mut Option<Feed>) -> Result<()> {
    output.to.finish()?;
    errors.as_mut().map_or(Ok(()), |errors| errors.to.finish())
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

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed = text.parse::<f64>().ok().filter(|speed| *speed == 0.0 || (0.001..=1e9).contains(speed));
    speed.ok_or_else(|| "a speed is 0 or a number from 0.001 to 1000000000".to_string())
}

fn parse_size(text: &str) -> Result<u64, String> {
    match config::size(text)? {
        0 => Err("a file has some bytes".to_string()),
        size => Ok(size),
    }
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts.map(|(name, value)| (name.to_string(), value.to_string())).ok_or_else(|| "write NAME=VALUE".to_string())
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
    use std::io::{self, ErrorKind, Write};
    use std::sync::Mutex;

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

    fn output(pipe: &Pipe) -> Feed {
        Feed::new(Box::new(file::Stream { name: "-".into(), to: pipe.clone() }))
    }

    fn written(line: &str, now: Micros) -> String {
        let pipe = Pipe::default();
        write_log(&args(line), &Clock::manual(now), output(&pipe), false, None).unwrap();
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
        write_log(&args("access --rate 0"), &Clock::manual(0), output(&pipe), false, None).unwrap();
        assert!(pipe.bytes.lock().unwrap().len() >= 100_000);
    }

    #[test]
    fn both_logs_of_one_run_go_to_their_own_outputs() {
        let (access, errors) = (Pipe::default(), Pipe::default());
        let args = args("access --seed 2 --count 1000");
        write_log(&args, &Clock::manual(0), output(&access), false, Some(output(&errors))).unwrap();
        let text = String::from_utf8(access.bytes.lock().unwrap().clone()).unwrap();
        assert_eq!(text, written("access --seed 2 --count 1000", 0));
        assert!(errors.bytes.lock().unwrap().starts_with(b"[Thu Jan 01 00:00:00."));
    }

    #[test]
    fn a_scenario_is_the_same_whatever_its_speed_and_tells_what_is_in_it() {
        let scenario = "rate = 500\nduration = '4 s'\nmalformed = 0.01
                        episodes = [{ kind = 'silence', at = '1 s', length = '1 s' }]";
        let folder = tempfile::tempdir().unwrap();
        let truth = folder.path().join("truth.json");
        let play_at = |more: &str| {
            let pipe = Pipe::default();
            let args = args(&format!("--scenario x --seed 3 {more}"));
            play(&args, Scenario::parse(scenario).unwrap(), &Clock::manual(0), output(&pipe), false, None).unwrap();
            pipe.bytes.lock().unwrap().clone()
        };
        let text = play_at(&format!("--truth {}", truth.display()));
        assert_eq!(text, play_at("--speed 40"));
        let truth: serde_json::Value = serde_json::from_slice(&std::fs::read(truth).unwrap()).unwrap();
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!((lines, truth["lines"].as_u64()), (1500, Some(1500)));
        assert_eq!(truth["bytes"].as_u64(), Some(text.len() as u64));
        assert_eq!(truth["episodes"][0]["start"], "2026-01-01T00:00:01.000000Z");
        assert_eq!(truth["end"], "2026-01-01T00:00:04.000000Z");
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
        for line in [
            "access --rate -1",
            "access --rate nan",
            "access --start yesterday",
            "both",
            "--seed 1",
            "access --scenario x.toml",
            "--scenario x.toml --rate 5",
            "--scenario x.toml --speed -1",
            "access --keep 2",
            "access --kafka x",
        ] {
            let words = ["gen"].into_iter().chain(line.split(' '));
            assert!(Command::try_parse_from(words).is_err(), "{line}");
        }
        assert!(run(args("error --errors x.log")).is_err());
        assert!(run(args("access --event-rate 5 --count 1")).is_err());
        for line in ["access --truth x.json", "access --speed 2"] {
            let err = run(args(line)).unwrap_err().to_string();
            assert!(err.contains("goes with a scenario only"), "{err}");
        }
        let err = run(args("access --output ftp://x --count 1")).unwrap_err();
        assert!(err.to_string().contains("unknown output \"ftp\"") && err.to_string().contains("tcp, syslog"), "{err}");
        assert!(run(args("access --output kafka://x --count 1")).unwrap_err().to_string().contains("/TOPIC"));
        assert!(run(args("access --output http://x --count 1")).unwrap_err().to_string().contains("/v1/streams/"));
    }
}
