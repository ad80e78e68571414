//! A made-up web site's log, from within the server: what `logweir gen` writes, without a file in between. For trying things
//! out, for load, and for tests that need to know what is in a stream.
//!
//! A scenario says what comes when ([`Scenario`]); without one, steady traffic does. Lines are due at the time they show (or
//! `speed` times as fast), and what was due while the server was away comes when it is back, as it would from a file.
//!
//! A position counts lines. Its key holds what the lines follow from: the seed, where event time begins, when it began by
//! the clock, and a checksum of the scenario. So each line is in the stream once, also after a crash, and a scenario that was
//! changed is another log, which begins anew.

use std::path::Path;
use std::time::Duration;

use super::{Partition, Polled, Source, Spec};
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::generate::scenario::{LOGS, SEEDED_START};
use crate::generate::{Player, Scenario, parse_utc};
use crate::options::{OptionKind, OptionSpec, Options};
use crate::position::{Position, Unit};
use crate::time::{Clock, Micros};

pub static SPEC: Spec = Spec {
    name: "datagen",
    summary: "a made-up web site's log, for trying things out: steady traffic, or what a scenario says",
    options: &[
        OptionSpec::optional(
            "scenario",
            OptionKind::Text,
            None,
            "a file with a scenario, or a scenario itself, TOML or JSON (see `logweir gen --example`)",
        ),
        OptionSpec::optional(
            "log",
            OptionKind::Choice(&["combined", "vhost_combined", "error"]),
            None,
            "which log, instead of the scenario's [default: combined]; its FORMAT is COMBINED, VHOST_COMBINED or APACHE_ERROR",
        ),
        OptionSpec::optional(
            "rate",
            OptionKind::Text,
            None,
            "lines a second, instead of the scenario's [default: 1000]",
        ),
        OptionSpec::optional(
            "lines",
            OptionKind::Integer,
            None,
            "it ends after so many, instead of what the scenario says",
        ),
        OptionSpec::optional("seed", OptionKind::Integer, None, "the same number gives the same lines [default: any]"),
        OptionSpec::optional(
            "start",
            OptionKind::Text,
            None,
            "event time of the first line: 'now', or a time in UTC [default: the scenario's; else 2026-01-01 with a seed, now without]",
        ),
        OptionSpec::optional(
            "speed",
            OptionKind::Text,
            Some("1"),
            "how much faster than the clock; 0 is as fast as they are taken",
        ),
    ],
    check: None,
    build: |options| Ok(Box::new(Datagen::open(options, Clock::system())?)),
};

/// A block is a record of the log: large enough to cost little, small enough that others get their turn.
const BLOCK_BYTES: usize = 1 << 20;

/// So long it waits when nothing is due. A slow log has its lines a moment late rather than each in a block of its own.
const PAUSE: Duration = Duration::from_millis(20);

/// See the file header.
struct Datagen {
    // Fixed.
    scenario: Scenario,
    speed: f64,
    clock: Clock,
    /// Of the scenario.
    checksum: u32,

    // State; the first three are what the key says.
    seed: u64,
    start: Micros,
    /// The time by the clock at `start`.
    began: Micros,
    player: Player,
    /// Lines handed out.
    handed: u64,
    /// All that is due until this time is to be handed out before a mark is reached.
    marked: Option<Micros>,
}

impl Datagen {
    fn open(options: &Options, clock: Clock) -> Result<Datagen> {
        let mut scenario = match options.text("scenario") {
            None => Scenario::default(),
            Some(given) => read_scenario(given).map_err(|err| err.with_context("option \"scenario\""))?,
        };
        let wrong = |name: &str, takes: &str| {
            let given = options.text(name).unwrap_or_default();
            Error::new(Kind::InvalidParameter, format!("option \"{name}\" takes {takes}, not \"{given}\""))
        };
        let number = |name: &str, least: f64, most: f64| match options.text(name) {
            None => Ok(None),
            Some(text) => {
                let number = text.trim().parse().ok().filter(|n| *n == 0.0 || (least..=most).contains(n));
                number.map(Some).ok_or_else(|| wrong(name, &format!("a number from {least} to {most}")))
            }
        };
        if let Some(log) = options.text("log") {
            scenario.log = LOGS.iter().find(|(name, _)| *name == log).map_or(scenario.log, |(_, log)| *log);
            // Messages are those of an access log or of an error log.
            if !scenario.messages.is_empty() && options.text("scenario").is_some() {
                return Err(Error::new(Kind::InvalidParameter, "option \"log\" does not fit a scenario with messages")
                    .with_hint("Write the log into the scenario."));
            }
        }
        if let Some(rate) = number("rate", 0.00001, 10_000_000.0)? {
            if rate == 0.0 {
                return Err(wrong("rate", "a number from 0.00001 to 10000000"));
            }
            scenario.rate = rate;
        }
        if let Some(lines) = options.integer("lines") {
            let lines = u64::try_from(lines).ok().filter(|lines| *lines > 0);
            scenario.lines = Some(lines.ok_or_else(|| wrong("lines", "a whole number from 1 on"))?);
        }
        let speed = number("speed", 0.001, 1e9)?.unwrap_or(1.0);
        let now = clock.now();
        let seed = options.integer("seed").map(|seed| seed as u64);
        let start = match (options.text("start").map(str::trim), scenario.start) {
            (Some("now"), _) => now,
            (Some(text), _) => {
                parse_utc(text).ok_or_else(|| wrong("start", "'now' or a time in UTC like '2026-01-31 12:00:00'"))?
            }
            (None, Some(start)) => start,
            (None, None) if seed.is_some() => parse_utc(SEEDED_START).expect("the constant is a valid time"),
            (None, None) => now,
        };
        // Its text form has all of it, and is the same for the same scenario.
        let checksum = crc32fast::hash(format!("{scenario:?}").as_bytes());
        let seed = seed.unwrap_or_else(rand::random);
        let player = Player::new(scenario.clone(), seed, start);
        Ok(Datagen { scenario, speed, clock, checksum, seed, start, began: now, player, handed: 0, marked: None })
    }

    fn key(&self) -> String {
        format!("{:016x}/{}/{}/{:08x}", self.seed, self.start, self.began, self.checksum)
    }

    /// Event time up to which lines are due.
    fn due(&self) -> Micros {
        if self.speed == 0.0 {
            return Micros::MAX;
        }
        let passed = self.clock.now().saturating_sub(self.began).max(0) as f64;
        self.start.saturating_add((passed * self.speed) as Micros)
    }

    fn name(&self) -> String {
        format!("seed {}", self.seed)
    }
}

/// A scenario itself is more than one line or begins with a brace; a file is neither.
fn read_scenario(given: &str) -> Result<Scenario> {
    if given.contains(['\n', '{', '=']) {
        return Scenario::parse(given);
    }
    let path = Path::new(given.trim());
    crate::reach::path(given.trim())?;
    let text = std::fs::read_to_string(path).map_err(|err| Error::io("read", path, &err))?;
    Scenario::parse(&text)
}

/// Seed, start and the clock at the start, of a key with this checksum.
fn read_key(key: &str, checksum: u32) -> Option<(u64, Micros, Micros)> {
    let [seed, start, began, sum] = key.split('/').collect::<Vec<_>>()[..] else { return None };
    let numbers = (u64::from_str_radix(seed, 16).ok()?, start.parse().ok()?, began.parse().ok()?);
    (u32::from_str_radix(sum, 16).ok()? == checksum).then_some(numbers)
}

impl Source for Datagen {
    fn resume(&mut self, positions: Vec<Position>) -> Result<()> {
        let mine = positions.iter().filter_map(|position| {
            let (seed, start, began) = read_key(&position.key, self.checksum)?;
            Some((began, seed, start, position.end))
        });
        // The last of those that began: the others are of a time when the scenario was as it is now again.
        if let Some((began, seed, start, lines)) = mine.max() {
            (self.seed, self.start, self.began, self.handed) = (seed, start, began, lines);
            self.player = Player::new(self.scenario.clone(), seed, start);
            self.player.skip(lines);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        let mut bytes = Vec::new();
        self.player.fill(self.due(), &mut bytes, BLOCK_BYTES, &mut None);
        if bytes.is_empty() {
            return Ok(if self.player.has_ended() { Polled::End } else { Polled::Idle });
        }
        let start = std::mem::replace(&mut self.handed, self.player.lines());
        let position =
            Position { partition: self.name(), key: self.key(), start, end: self.handed, unit: Unit::Frames };
        Ok(Polled::Frames(Frames::from_text(bytes), position))
    }

    fn mark(&mut self) -> Result<()> {
        self.marked = Some(self.due());
        Ok(())
    }

    fn reached(&self) -> bool {
        let is_endless = self.scenario.lines.is_none() && self.scenario.duration.is_none();
        match self.marked {
            None => true,
            // There is always more.
            Some(Micros::MAX) if is_endless => true,
            Some(until) => self.player.has_ended() || self.player.reached() > until,
        }
    }

    fn partitions(&self) -> Vec<Partition> {
        vec![Partition { name: self.name(), position: self.handed, end: self.scenario.lines }]
    }

    fn unneeded(&mut self, positions: &[Position]) -> Vec<String> {
        let key = self.key();
        let is_other = |position: &&Position| read_key(&position.key, self.checksum).is_none() && position.key != key;
        positions.iter().filter(is_other).map(|position| position.key.clone()).collect()
    }

    fn idle_wait(&self) -> Duration {
        PAUSE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MICROS_PER_SECOND;

    fn open(given: &[(&str, &str)], clock: &Clock) -> Result<Datagen> {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Datagen::open(&Options::parse("connector \"datagen\"", &[SPEC.options], &given)?, clock.clone())
    }

    /// What it has now, and where that ends.
    fn take(source: &mut Datagen) -> (Vec<u8>, Option<Position>) {
        let (mut bytes, mut last): (Vec<u8>, Option<Position>) = (Vec::new(), None);
        loop {
            match source.poll().unwrap() {
                Polled::Frames(frames, position) => {
                    assert_eq!(frames.len() as u64, position.end - position.start);
                    assert_eq!(position.start, last.map_or(position.start, |last| last.end));
                    bytes.extend_from_slice(&frames.bytes);
                    last = Some(position);
                }
                Polled::Idle | Polled::End => return (bytes, last),
                other @ Polled::Gone { .. } => panic!("{other:?}"),
            }
        }
    }

    const S: Micros = MICROS_PER_SECOND;

    #[test]
    fn lines_come_when_they_are_due_and_a_restart_goes_on_behind_them() {
        let clock = Clock::manual(1000 * S);
        let options = [("rate", "100"), ("seed", "5"), ("start", "now")];
        let mut source = open(&options, &clock).unwrap();
        source.resume(Vec::new()).unwrap();
        clock.set(1002 * S);
        let (first, position) = take(&mut source);
        // The one that is due at this very moment, too.
        assert_eq!(memchr::memchr_iter(b'\n', &first).count(), 201);
        clock.set(1005 * S);
        let mut again = open(&options, &clock).unwrap();
        again.resume(vec![position.unwrap()]).unwrap();
        again.mark().unwrap();
        assert!(!again.reached());
        let (rest, _) = take(&mut again);
        assert!(again.reached());
        let (same, _) = take(&mut source);
        assert_eq!(rest, same, "the server's absence changes nothing");
        assert_eq!(memchr::memchr_iter(b'\n', &rest).count(), 300);
    }

    #[test]
    fn any_seed_is_kept_and_another_scenario_begins_anew() {
        let clock = Clock::manual(0);
        let mut source = open(&[("scenario", "rate = 10\nlines = 50"), ("speed", "0")], &clock).unwrap();
        source.resume(Vec::new()).unwrap();
        let (_, position) = take(&mut source);
        let position = position.unwrap();
        let mut again = open(&[("scenario", "{\"rate\": 10, \"lines\": 50}"), ("speed", "0")], &clock).unwrap();
        again.resume(vec![position.clone()]).unwrap();
        assert!(matches!(again.poll().unwrap(), Polled::End));
        assert_eq!(again.unneeded(std::slice::from_ref(&position)), Vec::<String>::new());
        let mut other = open(&[("rate", "11"), ("lines", "50"), ("speed", "0")], &clock).unwrap();
        other.resume(vec![position.clone()]).unwrap();
        let (bytes, _) = take(&mut other);
        assert_eq!(memchr::memchr_iter(b'\n', &bytes).count(), 50);
        assert_eq!(other.unneeded(std::slice::from_ref(&position)), [position.key]);
    }

    #[test]
    fn options_are_checked() {
        let clock = Clock::manual(0);
        let said = |given: &[(&str, &str)]| open(given, &clock).err().expect("it is refused").to_string();
        assert!(said(&[("rate", "0")]).contains("\"rate\" takes a number from 0.00001"));
        assert!(said(&[("speed", "fast")]).contains("\"speed\" takes a number"));
        assert!(said(&[("lines", "-1")]).contains("\"lines\" takes a whole number from 1"));
        assert!(said(&[("start", "soon")]).contains("\"start\" takes 'now' or a time"));
        assert!(said(&[("scenario", "/nowhere/x.toml")]).contains("x.toml"));
        assert!(said(&[("scenario", "rate = 0")]).contains("option \"scenario\": scenario: \"rate\" takes"));
    }
}
