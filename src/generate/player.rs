//! Plays a scenario: a seed and a start go in, the lines of its log come out, and the truth about what is wrong in them.
//!
//! ```text
//!     episodes, day, jitter ─► slice (at most a second, in which all of these stand still): how many lines
//!                                └─► line by line, evenly spaced: request ─► fails? ─► late? ─► malformed? ─► bytes
//! ```
//!
//! Always true: the bytes are a function of scenario, seed and start. The chance of each slice comes from the seed and its
//! own time, not from what was drawn before, so that [`Player::skip`] passes over a slice by counting its lines: a source
//! that restarts goes on in the middle of months of log at once.

use std::collections::VecDeque;

use super::header::Header;
use super::random::Random;
use super::scenario::{Effect, Log, Of, Scenario, Text, When};
use super::site::{Request, Site, error_size, has_body};
use super::stamp::Stamp;
use super::truth::{Happened, Truth};
use super::{access, error};
use crate::time::{MICROS_PER_SECOND, Micros};

/// What is counted of a rate within a slice: millionths of a line.
const LINE: u64 = 1_000_000;

/// Hosts are on the port of TLS, as referrers say too.
const PORT: &[u8] = b":443 ";

/// Where messages in an access log come from: an address for documentation (RFC 5737).
const WATCHER: &str = "192.0.2.1";
const WATCHER_AGENT: &str = "logweir-gen/1.0";

/// A line that has nothing of a log's format, as a program that dies leaves it.
const NOISE: &[u8] = b"Segmentation fault (core dumped)";

/// See the file header.
pub struct Player {
    // Fixed.
    scenario: Scenario,
    seed: u64,
    start: Micros,
    /// In millionths.
    malformed: u32,
    late: u32,
    /// What stands in front of each line.
    header: Option<Header>,

    // State.
    site: Site,
    stamp: Stamp,
    /// What is not the site's to decide: which requests fail, which lines are late or malformed.
    random: Random,
    episodes: Vec<Lane>,
    messages: Vec<Talk>,
    /// The slice that lines now come from.
    slice: Slice,
    /// Where the next slice begins.
    clock: Micros,
    /// Parts of a line that the slices before left over.
    credit: u64,
    truth: Truth,
}

/// Episodes of one kind, one after the other.
struct Lane {
    /// Index of the scenario's entry.
    entry: usize,
    random: Random,
    now: Option<Happened>,
}

/// When a list of messages speaks next, and what it says.
struct Talk {
    random: Random,
    next: Micros,
    text: usize,
}

/// A span of time in which nothing changes.
#[derive(Default)]
struct Slice {
    start: Micros,
    length: Micros,
    /// How many lines it has, without messages, and how many of these have been written.
    requests: u64,
    done: u64,
    /// What else it has: when, of which list, which text.
    messages: VecDeque<(Micros, usize, usize)>,
    /// Failures: lane, chance in millionths, status, host.
    failures: Vec<(usize, u32, u16, Option<usize>)>,
    /// Lanes of episodes that go on.
    active: Vec<usize>,
}

impl Slice {
    /// When the next of its lines is due.
    fn next(&self) -> Option<Micros> {
        // Evenly: line i of n after i/n of the slice.
        let offset = || u128::from(self.done) * self.length as u128 / u128::from(self.requests);
        let request = (self.done < self.requests).then(|| self.start + offset() as Micros);
        match (request, self.messages.front()) {
            (Some(request), Some((message, ..))) => Some(request.min(*message)),
            (None, Some((message, ..))) => Some(*message),
            (request, None) => request,
        }
    }
}

impl Player {
    /// `start` is the time of the first line.
    pub fn new(scenario: Scenario, seed: u64, start: Micros) -> Player {
        let per_million = |share: f64| (share * 1e6).round() as u32;
        let mut episodes = Vec::new();
        for (entry, episode) in scenario.episodes.iter().enumerate() {
            let lane = |number: u64, at: Option<Micros>| {
                let mut random = Random::new(Random::stream(seed, number << 32 | entry as u64 | 1 << 63));
                let now = match at {
                    Some(at) => Some(happening(&scenario, entry, start.saturating_add(at), &mut random)),
                    None => next_episode(&scenario, entry, start, &mut random),
                };
                Lane { entry, random, now }
            };
            match &episode.when {
                When::At(times) => {
                    episodes.extend(times.iter().enumerate().map(|(i, at)| lane(1 + i as u64, Some(*at))));
                }
                When::Every(_) => episodes.push(lane(0, None)),
            }
        }
        let talk = |(i, list): (usize, &super::scenario::Messages)| {
            let mut random = Random::new(Random::stream(seed, i as u64 | 1 << 62));
            let next = start.saturating_add(random.between(list.every.low, list.every.high));
            let text = random.below(list.texts.len() as u32) as usize;
            Talk { random, next, text }
        };
        Player {
            malformed: per_million(scenario.malformed),
            late: scenario.late.as_ref().map_or(0, |late| per_million(late.share)),
            header: None,
            site: Site::of(seed, &scenario),
            stamp: Stamp::default(),
            random: Random::new(seed),
            messages: scenario.messages.iter().enumerate().map(talk).collect(),
            truth: Truth::new(seed, start, scenario.messages.iter().map(|list| list.name.clone())),
            episodes,
            slice: Slice::default(),
            clock: start,
            credit: 0,
            scenario,
            seed,
            start,
        }
    }

    /// From now on each line has a header of syslog (RFC 5424) in front, for transports that want one.
    pub fn add_headers(&mut self) {
        self.header = Some(Header::new(self.scenario.log == Log::Error));
    }

    /// Appends the lines that are due until `until` (event time), as long as `out` has less than `room` bytes. What the same
    /// requests leave in the error log goes to `errors`, if it is there.
    pub fn fill(&mut self, until: Micros, out: &mut Vec<u8>, room: usize, errors: &mut Option<&mut Vec<u8>>) {
        while out.len() < room {
            match self.next(until) {
                Some(at) => self.put(at, out, errors),
                None => return,
            }
        }
    }

    /// When the next line is due, if that is before or at `until`.
    pub fn next(&mut self, until: Micros) -> Option<Micros> {
        if self.scenario.lines.is_some_and(|lines| self.truth.lines >= lines) {
            return None;
        }
        loop {
            match self.slice.next() {
                Some(at) => return (at <= until).then_some(at),
                None if self.clock > until || !self.turn() => return None,
                None => {}
            }
        }
    }

    /// Whether there is no further line, ever.
    pub fn has_ended(&self) -> bool {
        let all = self.scenario.lines.is_some_and(|lines| self.truth.lines >= lines);
        all || (self.slice.next().is_none() && self.end().is_some_and(|end| self.clock >= end))
    }

    /// Event time up to which it is known what comes: a caller that waits need not ask before.
    pub fn reached(&self) -> Micros {
        self.slice.next().unwrap_or(self.clock)
    }

    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.truth.lines
    }

    /// Passes over so many lines. They are in no count of the truth but that of lines.
    pub fn skip(&mut self, mut lines: u64) {
        let mut out = Vec::new();
        while lines > 0 && !self.has_ended() {
            let left = self.slice.requests - self.slice.done + self.slice.messages.len() as u64;
            if left <= lines {
                self.slice.done = self.slice.requests;
                self.slice.messages.clear();
                self.truth.lines += left;
                lines -= left;
                if lines > 0 && !self.turn() {
                    break;
                }
            } else {
                // Within a slice its chance has to be drawn.
                let at = self.slice.next().unwrap_or(self.clock);
                out.clear();
                self.put(at, &mut out, &mut None);
                lines -= 1;
            }
        }
    }

    /// What was written so far.
    pub fn truth(&self) -> Truth {
        let mut truth = self.truth.clone();
        let reached = self.reached();
        let current = self.episodes.iter().filter_map(|lane| lane.now.as_ref());
        let begun = current.filter(|now| now.start < reached).cloned();
        truth.finish(reached, begun);
        truth
    }

    fn end(&self) -> Option<Micros> {
        self.scenario.duration.map(|duration| self.start.saturating_add(duration))
    }

    /// Goes to the next slice; false at the end of the log.
    fn turn(&mut self) -> bool {
        let from = self.clock;
        let mut until = (from.div_euclid(MICROS_PER_SECOND) + 1) * MICROS_PER_SECOND;
        if let Some(end) = self.end() {
            if from >= end {
                return false;
            }
            until = until.min(end);
        }
        self.slice.active.clear();
        self.slice.failures.clear();
        for (i, lane) in self.episodes.iter_mut().enumerate() {
            while let Some(now) = lane.now.take_if(|now| now.end <= from) {
                let after = now.end;
                self.truth.episodes.push(now);
                if let When::Every(_) = self.scenario.episodes[lane.entry].when {
                    lane.now = next_episode(&self.scenario, lane.entry, after, &mut lane.random);
                }
            }
            match &lane.now {
                Some(now) if now.start <= from => {
                    until = until.min(now.end);
                    self.slice.active.push(i);
                }
                Some(now) => until = until.min(now.start),
                None => {}
            }
        }

        let mut rate = self.scenario.rate * self.day(from);
        if self.scenario.jitter > 0.0 {
            let second = from.div_euclid(MICROS_PER_SECOND);
            let draw = Random::new(Random::stream(self.seed, second as u64)).below(2_000_001);
            rate *= 1.0 + self.scenario.jitter * (f64::from(draw) / 1e6 - 1.0);
        }
        for &i in &self.slice.active {
            let Some(now) = &self.episodes[i].now else { continue };
            let episode = &self.scenario.episodes[self.episodes[i].entry];
            // A growing size is that of the middle of the slice.
            let grown = match episode.effect.grows {
                true => ((from - now.start) + (until - from) / 2) as f64 / (now.end - now.start) as f64,
                false => 1.0,
            };
            // A silence has no size.
            let size = now.size.unwrap_or(0.0);
            match episode.effect.of {
                Of::Traffic if episode.effect.grows => rate *= 1.0 + (size - 1.0) * grown,
                Of::Traffic => rate *= size,
                Of::Errors => {
                    let chance = (size * grown * 1e6) as u32;
                    self.slice.failures.push((i, chance, episode.status, episode.host));
                }
            }
        }

        let is_silent = self.slice.active.iter().any(|i| {
            let effect: &Effect = self.scenario.episodes[self.episodes[*i].entry].effect;
            effect.sizes.is_none()
        });
        self.credit += ((rate * LINE as f64) as u128 * (until - from) as u128 / MICROS_PER_SECOND as u128) as u64;
        self.slice.start = from;
        self.slice.length = until - from;
        (self.slice.requests, self.slice.done) = (self.credit / LINE, 0);
        self.credit %= LINE;
        for (i, talk) in self.messages.iter_mut().enumerate() {
            let list = &self.scenario.messages[i];
            while talk.next < until {
                if !is_silent {
                    self.slice.messages.push_back((talk.next, i, talk.text));
                }
                talk.next += talk.random.between(list.every.low, list.every.high);
                talk.text = talk.random.below(list.texts.len() as u32) as usize;
            }
        }
        self.slice.messages.make_contiguous().sort_unstable();

        let seed = Random::stream(self.seed, from as u64);
        self.site.reseed(seed);
        self.random = Random::new(!seed);
        self.clock = until;
        true
    }

    /// The factor of the hour, between full hours in proportion.
    fn day(&self, at: Micros) -> f64 {
        const HOUR: i64 = 3600 * MICROS_PER_SECOND;
        let of_day = at.rem_euclid(24 * HOUR);
        let (hour, part) = ((of_day / HOUR) as usize, (of_day % HOUR) as f64 / HOUR as f64);
        let (this, next) = (self.scenario.day[hour], self.scenario.day[(hour + 1) % 24]);
        this + (next - this) * part
    }

    /// Appends the line that is due at `at`, the next one.
    fn put(&mut self, at: Micros, out: &mut Vec<u8>, errors: &mut Option<&mut Vec<u8>>) {
        let begin = out.len();
        if let Some(header) = &mut self.header {
            header.put(at, out);
        }
        if self.slice.messages.front().is_some_and(|(message, ..)| *message <= at) {
            self.put_message(at, out, errors);
        } else {
            self.put_request(at, out, errors);
            self.slice.done += 1;
        }
        self.truth.lines += 1;
        self.truth.bytes += (out.len() - begin) as u64;
        for &i in &self.slice.active {
            if let Some(now) = &mut self.episodes[i].now {
                now.lines += 1;
            }
        }
    }

    fn put_request(&mut self, at: Micros, out: &mut Vec<u8>, errors: &mut Option<&mut Vec<u8>>) {
        let begin = out.len();
        let mut shown = at;
        if let Some(late) = self.scenario.late.as_ref().filter(|_| self.random.chance_in_million(self.late)) {
            let by = self.random.between(late.by.low, late.by.high);
            // Not before the log begins: there it would not be late.
            if at - by >= self.start {
                (shown, self.truth.late) = (at - by, self.truth.late + 1);
            }
        }
        loop {
            let mut request = self.site.request(shown);
            let mut failed = None;
            for &(lane, chance, status, host) in &self.slice.failures {
                if host.is_none_or(|host| host == request.host) && self.random.chance_in_million(chance) {
                    request.status = status;
                    request.bytes = if has_body(request.method, status) { error_size(status) } else { 0 };
                    failed = Some(lane);
                    break;
                }
            }
            let status = request.status;
            match self.scenario.log {
                Log::Combined => access::put(&request, shown, &mut self.stamp, out),
                Log::VhostCombined => {
                    put_host(&self.scenario, request.host, out);
                    access::put(&request, shown, &mut self.stamp, out);
                }
                // Of requests that leave nothing in it the next one comes at once.
                Log::Error => {
                    if !error::put(&request, shown, &mut self.stamp, out) {
                        continue;
                    }
                }
            }
            if let Some(errors) = errors {
                self.truth.error_lines += u64::from(error::put(&request, shown, &mut self.stamp, errors));
            }
            if let Some(now) = failed.and_then(|lane| self.episodes[lane].now.as_mut()) {
                now.failed += 1;
            }
            if self.random.chance_in_million(self.malformed) {
                spoil(out, begin, &mut self.random);
                self.truth.malformed += 1;
                // It has no time that anybody could read.
                self.truth.late -= u64::from(shown != at);
            } else if self.scenario.log != Log::Error {
                self.truth.statuses[usize::from(status)] += 1;
            }
            return;
        }
    }

    fn put_message(&mut self, at: Micros, out: &mut Vec<u8>, errors: &mut Option<&mut Vec<u8>>) {
        let Some((_, list, text)) = self.slice.messages.pop_front() else { return };
        self.truth.messages[list].1 += 1;
        match &self.scenario.messages[list].texts[text] {
            Text::Error { module_level, text } => {
                error::put_plain(module_level, text, at, &mut self.stamp, out);
            }
            Text::Request { method, path, status } => {
                let request = Request {
                    host: 0,
                    client: WATCHER,
                    port: 40_000,
                    user: "-",
                    method,
                    path: path.as_bytes(),
                    protocol: "HTTP/1.1",
                    status: *status,
                    bytes: if has_body(method, *status) { 17 } else { 0 },
                    referer: b"-",
                    agent: WATCHER_AGENT,
                };
                if self.scenario.log == Log::VhostCombined {
                    put_host(&self.scenario, 0, out);
                }
                access::put(&request, at, &mut self.stamp, out);
                self.truth.statuses[usize::from(*status)] += 1;
                if let Some(errors) = errors {
                    self.truth.error_lines += u64::from(error::put(&request, at, &mut self.stamp, errors));
                }
            }
        }
    }
}

/// An episode of an entry, from `from` on.
fn happening(scenario: &Scenario, entry: usize, from: Micros, random: &mut Random) -> Happened {
    let episode = &scenario.episodes[entry];
    let length = random.between(episode.length.low, episode.length.high);
    let size = episode.size.low + (episode.size.high - episode.size.low) * (f64::from(random.below(1001)) / 1000.0);
    Happened {
        kind: episode.effect.name,
        start: from,
        end: from.saturating_add(length),
        size: episode.effect.sizes.map(|_| size),
        status: (episode.effect.of == Of::Errors).then_some(episode.status),
        host: episode.host.map(|host| scenario.hosts.names[host].clone()),
        lines: 0,
        failed: 0,
    }
}

/// The first random episode that begins after `after`.
fn next_episode(scenario: &Scenario, entry: usize, after: Micros, random: &mut Random) -> Option<Happened> {
    let When::Every(every) = &scenario.episodes[entry].when else { return None };
    let from = after.saturating_add(random.between(every.low, every.high));
    Some(happening(scenario, entry, from, random))
}

fn put_host(scenario: &Scenario, host: usize, out: &mut Vec<u8>) {
    let name = scenario.hosts.names.get(host).map_or("www.example.com", String::as_str);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(PORT);
}

/// Makes the line that begins at `begin` unreadable: cut off within its time, as when a disk is full, or something else
/// altogether.
fn spoil(out: &mut Vec<u8>, begin: usize, random: &mut Random) {
    let time = memchr::memchr(b'[', &out[begin..]).map(|at| begin + at);
    match (random.below(3), time) {
        (0, _) | (_, None) => {
            out.truncate(begin);
            out.extend_from_slice(NOISE);
        }
        (_, Some(time)) => out.truncate(time + 1 + random.below(10) as usize),
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format;
    use crate::frame::Frames;
    use crate::generate::parse_utc;
    use crate::generate::scenario::{EXAMPLE, SEEDED_START};

    fn start() -> Micros {
        parse_utc(SEEDED_START).unwrap()
    }

    fn player(text: &str) -> Player {
        Player::new(Scenario::parse(text).unwrap(), 7, start())
    }

    /// All of a log that has an end.
    fn all(player: &mut Player) -> String {
        let mut out = Vec::new();
        player.fill(Micros::MAX, &mut out, usize::MAX, &mut None);
        assert!(player.has_ended());
        String::from_utf8(out).unwrap()
    }

    fn seconds(n: i64) -> Micros {
        start() + n * MICROS_PER_SECOND
    }

    /// Lines of combined that show a second from `from` to before `until`.
    fn between(text: &str, from: i64, until: i64) -> Vec<&str> {
        let at = |line: &str| {
            let clock = line.split(":00:").nth(1).unwrap();
            clock[..2].parse::<i64>().unwrap() * 60 + clock[3..5].parse::<i64>().unwrap()
        };
        text.lines().filter(|line| (from..until).contains(&at(line))).collect()
    }

    #[test]
    fn the_same_scenario_is_the_same_log_however_it_is_taken() {
        let example = EXAMPLE.replace("2 hours", "20 minutes");
        let whole = all(&mut player(&example));
        let mut player_2 = player(&example);
        let (mut pieces, mut room) = (Vec::new(), 1);
        while !player_2.has_ended() {
            let until = player_2.reached() + (room % 977) as Micros * 1000;
            let limit = pieces.len() + room;
            player_2.fill(until, &mut pieces, limit, &mut None);
            room = room * 31 % 9973;
        }
        assert_eq!(String::from_utf8(pieces).unwrap(), whole);
        let other = Player::new(Scenario::parse(&example).unwrap(), 8, start());
        assert_ne!(all(&mut { other }), whole);
    }

    #[test]
    fn lines_that_are_skipped_change_nothing_behind_them() {
        let example = EXAMPLE.replace("2 hours", "30 minutes");
        let whole = all(&mut player(&example));
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        for skipped in [0, 1, 137, lines.len() / 2, lines.len() - 1, lines.len()] {
            let mut player = player(&example);
            player.skip(skipped as u64);
            assert_eq!(player.lines(), skipped as u64);
            assert_eq!(all(&mut player), lines[skipped..].concat(), "{skipped}");
        }
    }

    #[test]
    fn the_log_of_a_scenario_stays_the_same_between_versions() {
        let text = all(&mut player(&EXAMPLE.replace("2 hours", "2 minutes")));
        // When the example or the draws change on purpose, so does this number; by accident it must not.
        let sum = text.bytes().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(b)));
        assert_eq!(sum, 7_328_878_396_449_559_242);
    }

    #[test]
    fn every_line_that_is_not_malformed_can_be_read() {
        for (log, name) in [("combined", "combined"), ("vhost_combined", "vhost_combined"), ("error", "apache_error")] {
            let mut text = EXAMPLE.replace("\"vhost_combined\"", &format!("\"{log}\"")).replace("2 hours", "1 hour");
            text = text.replace("malformed = 0.0005", "malformed = 0.02");
            if log == "error" {
                text = text.replace("HEAD /health 200", "still alive").replace("POST /warnings/", "warning: ");
            }
            let mut player = player(&text);
            let lines = all(&mut player);
            let parser = format::build(name, &[], &[]).unwrap();
            let parsed = parser.parse(&Frames::from_text(lines), 0);
            let truth = player.truth();
            assert!(truth.malformed > 1000, "{log}: {}", truth.malformed);
            assert_eq!(parsed.malformed.len() as u64, truth.malformed, "{log}");
            assert_eq!(parsed.rows.num_rows() as u64, truth.lines - truth.malformed, "{log}");
        }
    }

    #[test]
    fn traffic_follows_its_episodes() {
        let text = all(&mut player(
            "rate = 100\nduration = '10 minutes'
             episodes = [{ kind = 'peak', at = '60 s', length = '30 s', size = 5 },
                         { kind = 'drop', at = '120 s', length = '30 s', size = 0.1 },
                         { kind = 'silence', at = '180 s', length = '30 s' },
                         { kind = 'traffic_drift', at = '300 s', length = '100 s', size = 3 }]
             messages = [{ name = 'heartbeat', every = '1 s', texts = ['HEAD /health 200'] }]",
        ));
        let heartbeats =
            |from, until| between(&text, from, until).iter().filter(|l| l.contains("HEAD /health ")).count();
        for (from, until, lines) in [(0, 60, 6000), (60, 90, 15_000), (120, 150, 300), (180, 210, 0), (210, 300, 9000)]
        {
            let found = between(&text, from, until).len() as i64;
            assert!((found - lines).abs() <= until - from + 2, "{from}: {found} for {lines}");
        }
        assert!(heartbeats(120, 150) >= 29 && heartbeats(180, 210) == 0 && heartbeats(210, 240) >= 29);
        let (early, late) = (between(&text, 300, 310).len(), between(&text, 390, 400).len());
        assert!((1050..1200).contains(&early) && (2800..3000).contains(&late), "{early} {late}");
    }

    #[test]
    fn the_day_has_its_shape() {
        let mut factors = [0.0; 24];
        (factors[1], factors[2]) = (1.0, 2.0);
        let text = format!("rate = 10\nduration = '1 day'\nday = {factors:?}");
        let text = all(&mut player(&text));
        let of_hour = |hour: usize| text.lines().filter(|l| l.contains(&format!("/2026:{hour:02}:"))).count();
        // Half an hour's lines of each factor at either end, in proportion in between.
        for (hour, lines) in [(0, 18_000), (1, 54_000), (2, 36_000), (3, 0), (23, 0)] {
            assert!(of_hour(hour).abs_diff(lines) < 40, "{hour}: {}", of_hour(hour));
        }
    }

    #[test]
    fn failures_are_as_many_as_the_truth_says() {
        let mut player = player(
            "rate = 200\nduration = '10 minutes'\nstatus = { 200 = 1 }\nlog = 'vhost_combined'
             hosts = { names = ['a.example', 'b.example'], choice = 'uniform' }
             episodes = [{ kind = 'errors', at = '60 s', length = '60 s', size = 0.5, status = 502 },
                         { kind = 'errors', at = '180 s', length = '60 s', size = 0.3, status = 503, host = 'b.example' },
                         { kind = 'drift', at = '300 s', length = '100 s', size = 0.2, status = 500 }]",
        );
        let text = all(&mut player);
        let with = |status: u16| text.lines().filter(|l| l.contains(&format!("\" {status} "))).count() as u64;
        let truth = player.truth();
        for (episode, share) in truth.episodes.iter().zip([0.5, 0.15, 0.1]) {
            let status = episode.status.unwrap();
            assert_eq!((episode.failed, truth.statuses[usize::from(status)]), (with(status), with(status)));
            let found = episode.failed as f64 / episode.lines as f64;
            assert!((found - share).abs() < 0.02, "{status}: {found}");
        }
        assert!(text.lines().filter(|l| l.contains("\" 503 ")).all(|l| l.starts_with("b.example:443 ")));
        assert_eq!(truth.episodes[0].start, seconds(60));
        assert_eq!(truth.episodes[0].end, seconds(120));
        assert_eq!(between(&text, 60, 120).len() as u64, truth.episodes[0].lines);
    }

    #[test]
    fn random_episodes_keep_their_distance_and_their_bounds() {
        let mut player = player(
            "rate = 1\nduration = '2 days'
             episodes = [{ kind = 'peak', every = ['10 minutes', '20 minutes'], length = ['1 minute', '3 minutes'], size = [2, 4] }]",
        );
        all(&mut player);
        let episodes = player.truth().episodes;
        assert!((120..300).contains(&episodes.len()), "{}", episodes.len());
        let minutes = |from: Micros, until: Micros| (until - from) as f64 / 60e6;
        for pair in episodes.windows(2) {
            assert!((10.0..=20.0).contains(&minutes(pair[0].end, pair[1].start)));
            assert!((1.0..=3.0).contains(&minutes(pair[0].start, pair[0].end)));
            assert!((2.0..=4.0).contains(&pair[0].size.unwrap()));
        }
    }

    #[test]
    fn both_logs_and_headers_of_syslog() {
        let mut player = player("lines = 500");
        player.add_headers();
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        player.fill(Micros::MAX, &mut out, usize::MAX, &mut Some(&mut errors));
        let (out, errors) = (String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap());
        assert!(out.starts_with("<190>1 2026-01-01T00:00:00.000000Z www.example.com access - - - "), "{out}");
        assert_eq!((out.lines().count() as u64, errors.lines().count() as u64), (500, player.truth().error_lines));
        assert!(!errors.is_empty());
    }
}
