//! What a scenario file says, checked: how much traffic there is and when, who asks, what goes wrong, which lines are bad.
//!
//! A file is TOML or JSON ([`Scenario::parse`]); `example.toml` beside this file shows every field. Whatever is wrong in
//! one is an error that names the field and what it takes.

use serde_json::{Map, Value};

use super::fields::{Fields, Span};
use super::parse_utc;
use crate::error::{Error, Kind, Result};
use crate::options;
use crate::registry::{self, Entry};
use crate::time::{MICROS_PER_SECOND, Micros};

/// A scenario with every field in it, as `logweir gen --example` prints it.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Lines a second when none are asked for.
pub const DEFAULT_RATE: f64 = 1000.0;

/// Event time of the first line when neither file nor command line say one.
pub const SEEDED_START: &str = "2026-01-01T00:00:00Z";

/// Most lines a second, and most clients, hosts, episodes and messages: what a log can still show, and what fits in
/// memory.
const MAX_RATE: f64 = 10_000_000.0;
const MAX_CLIENTS: u64 = 200_000;
const MAX_HOSTS: u64 = 10_000;
const MAX_EPISODES: usize = 1_000;

/// The shortest episode or interval. Shorter ones would cut time into more slices than lines.
const MIN_SPAN: Micros = 1_000;

/// The longest: ten years.
const MAX_SPAN: Micros = 10 * 365 * 86_400 * MICROS_PER_SECOND;

/// Which log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    Combined,
    /// Combined with `host:port` in front.
    VhostCombined,
    Error,
}

pub const LOGS: &[(&str, Log)] =
    &[("combined", Log::Combined), ("vhost_combined", Log::VhostCombined), ("error", Log::Error)];

/// How one of many is chosen: clients, hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Uniform,
    /// Weight 1 / (rank + flatness).
    Zipf,
    /// Those in the middle most: the binomial distribution with p = 1/2.
    Binomial,
}

const CHOICES: &[(&str, Choice)] =
    &[("uniform", Choice::Uniform), ("zipf", Choice::Zipf), ("binomial", Choice::Binomial)];

/// See the file header.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    pub log: Log,
    /// Lines a second of the log's own time, before `day`, `jitter` and episodes.
    pub rate: f64,
    /// The rate of each second differs from it by up to this share.
    pub jitter: f64,
    /// Factors of the rate at each full hour of the day (UTC); between two it changes steadily.
    pub day: [f64; 24],
    /// Event time of the first line. None: whoever plays it decides.
    pub start: Option<Micros>,
    /// The log ends after so much of its own time, or so many lines. None: never.
    pub duration: Option<Micros>,
    pub lines: Option<u64>,
    pub clients: Clients,
    pub hosts: Hosts,
    /// Statuses and their weights. Empty: those that the made-up site gives.
    pub statuses: Vec<(u16, f64)>,
    pub episodes: Vec<Episode>,
    pub messages: Vec<Messages>,
    /// Share of lines that no parser can read.
    pub malformed: f64,
    pub late: Option<Late>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Clients {
    pub count: u32,
    pub choice: Choice,
    pub flatness: u32,
    /// Share of them with an IPv6 address.
    pub ipv6: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Hosts {
    /// Empty: one host that no line names.
    pub names: Vec<String>,
    pub choice: Choice,
    pub flatness: u32,
}

/// Lines whose time is before that of the lines around them.
#[derive(Debug, Clone, PartialEq)]
pub struct Late {
    pub share: f64,
    pub by: Span<Micros>,
}

/// Something that happens for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    pub effect: &'static Effect,
    pub when: When,
    pub length: Span<Micros>,
    pub size: Span<f64>,
    /// The status of failing requests.
    pub status: u16,
    /// Index of the virtual host that it is about. None: all.
    pub host: Option<usize>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// So long after the start of the log.
    At(Vec<Micros>),
    /// At random, so long after the end of the one before.
    Every(Span<Micros>),
}

/// A list of messages of which one comes now and then.
#[derive(Debug, Clone, PartialEq)]
pub struct Messages {
    pub name: String,
    pub every: Span<Micros>,
    pub texts: Vec<Text>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Text {
    /// A line of the error log, in front of its text `module:level`.
    Error { module_level: String, text: String },
    /// A request in the access log.
    Request { method: String, path: String, status: u16 },
}

/// What an episode changes. One entry of [`EFFECTS`].
#[derive(Debug, PartialEq)]
pub struct Effect {
    pub name: &'static str,
    pub summary: &'static str,
    pub of: Of,
    /// Whether it grows steadily to its size rather than having it at once.
    pub grows: bool,
    /// The sizes it takes, and the one it has if none is said. None: it has no size.
    pub sizes: Option<(f64, f64, f64)>,
}

/// What the size of an episode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// A factor of the rate.
    Traffic,
    /// The share of requests that fail.
    Errors,
}

/// Every kind of episode.
pub static EFFECTS: &[&Effect] = &[
    &Effect {
        name: "peak",
        summary: "`size` times as many lines",
        of: Of::Traffic,
        grows: false,
        sizes: Some((1.0, 1000.0, 5.0)),
    },
    &Effect {
        name: "drop",
        summary: "only `size` (a share) of the lines",
        of: Of::Traffic,
        grows: false,
        sizes: Some((0.0, 1.0, 0.1)),
    },
    &Effect { name: "silence", summary: "no line at all", of: Of::Traffic, grows: false, sizes: None },
    &Effect {
        name: "errors",
        summary: "`size` (a share) of the requests, of all or of one `host`, are answered with `status`",
        of: Of::Errors,
        grows: false,
        sizes: Some((0.0, 1.0, 0.5)),
    },
    &Effect {
        name: "drift",
        summary: "the same, but the share grows steadily from 0 to `size`",
        of: Of::Errors,
        grows: true,
        sizes: Some((0.0, 1.0, 0.5)),
    },
    &Effect {
        name: "traffic_drift",
        summary: "the number of lines grows, or shrinks, steadily to `size` times as many",
        of: Of::Traffic,
        grows: true,
        sizes: Some((0.0, 1000.0, 3.0)),
    },
];

impl Entry for Effect {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

/// Shapes of the day that have names.
const DAYS: &[(&str, [f64; 24])] = &[
    ("flat", [1.0; 24]),
    (
        "office",
        [
            0.1, 0.1, 0.1, 0.1, 0.1, 0.15, 0.3, 0.7, 1.3, 1.8, 2.0, 2.0, 1.6, 1.8, 2.0, 1.9, 1.7, 1.3, 0.8, 0.5, 0.4,
            0.3, 0.2, 0.15,
        ],
    ),
    (
        "evening",
        [
            0.7, 0.4, 0.25, 0.2, 0.2, 0.25, 0.4, 0.6, 0.8, 0.9, 1.0, 1.0, 1.1, 1.1, 1.0, 1.0, 1.1, 1.3, 1.6, 1.9, 2.1,
            2.0, 1.6, 1.1,
        ],
    ),
];

impl Default for Scenario {
    /// Steady traffic without end in which nothing goes wrong.
    fn default() -> Scenario {
        Scenario {
            log: Log::Combined,
            rate: DEFAULT_RATE,
            jitter: 0.0,
            day: DAYS[0].1,
            start: None,
            duration: None,
            lines: None,
            clients: Clients { count: 20_000, choice: Choice::Zipf, flatness: 20, ipv6: 0.15 },
            hosts: Hosts { names: Vec::new(), choice: Choice::Zipf, flatness: 2 },
            statuses: Vec::new(),
            episodes: Vec::new(),
            messages: Vec::new(),
            malformed: 0.0,
            late: None,
        }
    }
}

impl Scenario {
    /// Reads a scenario in JSON (when it begins with a brace) or TOML.
    pub fn parse(text: &str) -> Result<Scenario> {
        let wrong = |language: &str, why: String| {
            Error::new(Kind::Syntax, format!("the scenario is no {language}: {why}"))
                .with_hint("'logweir gen --example' prints a scenario with every field.")
        };
        let value = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|err| wrong("JSON", err.to_string()))?
        } else {
            let table = text.parse::<toml::Table>().map_err(|err| wrong("TOML", err.to_string().trim().to_string()))?;
            from_toml(toml::Value::Table(table))
        };
        Scenario::read(&value).map_err(|err| err.with_context("scenario"))
    }

    fn read(value: &Value) -> Result<Scenario> {
        const FIELDS: &[&str] = &[
            "log",
            "rate",
            "jitter",
            "day",
            "start",
            "duration",
            "lines",
            "clients",
            "hosts",
            "status",
            "episodes",
            "messages",
            "malformed",
            "late",
        ];
        let fields = Fields::open("", value, FIELDS)?;
        let defaults = Scenario::default();
        let log = fields.choice("log", LOGS)?.unwrap_or(defaults.log);
        let hosts = read_hosts(&fields, defaults.hosts)?;
        let start = match fields.text("start")? {
            None => None,
            Some(text) => Some(parse_utc(text).ok_or_else(|| {
                fields.wrong("start", "a time in UTC like '2026-01-31 12:00:00' or '2026-01-31T12:00:00Z'", text)
            })?),
        };
        let mut episodes = Vec::new();
        for (path, value) in fields.list("episodes", MAX_EPISODES)? {
            episodes.push(read_episode(&path, value, &hosts)?);
        }
        let mut messages = Vec::new();
        for (path, value) in fields.list("messages", MAX_EPISODES)? {
            messages.push(read_messages(&path, value, log)?);
        }
        Ok(Scenario {
            log,
            // A line a day or so at least.
            rate: fields.number("rate", 0.00001..=MAX_RATE)?.unwrap_or(defaults.rate),
            jitter: fields.number("jitter", 0.0..=1.0)?.unwrap_or(defaults.jitter),
            day: read_day(&fields)?.unwrap_or(defaults.day),
            start,
            duration: fields.duration("duration", MIN_SPAN, MAX_SPAN)?,
            lines: fields.whole("lines", 1..=u64::from(u32::MAX) * 1000)?,
            clients: read_clients(&fields, defaults.clients)?,
            hosts,
            statuses: read_statuses(&fields)?,
            episodes,
            messages,
            malformed: fields.number("malformed", 0.0..=1.0)?.unwrap_or(defaults.malformed),
            late: read_late(&fields)?,
        })
    }
}

/// TOML knows times, which are read as the text they are written as.
fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(yes) => Value::Bool(yes),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(from_toml).collect()),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(name, value)| (name, from_toml(value))).collect::<Map<_, _>>())
        }
    }
}

fn read_day(fields: &Fields<'_>) -> Result<Option<[f64; 24]>> {
    let takes = || format!("{}, or 24 factors from 0 to 1000, not all 0", options::list(DAYS.iter().map(|day| day.0)));
    match fields.value("day") {
        None => Ok(None),
        Some(Value::String(name)) => match DAYS.iter().find(|day| day.0 == name) {
            Some(day) => Ok(Some(day.1)),
            None => Err(fields.wrong("day", &takes(), name)),
        },
        Some(value) => {
            let factors: Vec<f64> = value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
            let whole = value.as_array().map_or(0, Vec::len) == 24;
            match <[f64; 24]>::try_from(factors) {
                Ok(day)
                    if whole
                        && day.iter().all(|factor| (0.0..=1000.0).contains(factor))
                        && day.iter().any(|factor| *factor > 0.0) =>
                {
                    Ok(Some(day))
                }
                Ok(_) | Err(_) => Err(fields.wrong("day", &takes(), &value.to_string())),
            }
        }
    }
}

fn read_clients(fields: &Fields<'_>, defaults: Clients) -> Result<Clients> {
    let Some(fields) = fields.table("clients", &["count", "choice", "flatness", "ipv6"])? else { return Ok(defaults) };
    Ok(Clients {
        count: fields.whole("count", 1..=MAX_CLIENTS)?.map_or(defaults.count, |count| count as u32),
        choice: fields.choice("choice", CHOICES)?.unwrap_or(defaults.choice),
        flatness: fields.whole("flatness", 0..=1_000_000)?.map_or(defaults.flatness, |flatness| flatness as u32),
        ipv6: fields.number("ipv6", 0.0..=1.0)?.unwrap_or(defaults.ipv6),
    })
}

fn read_hosts(fields: &Fields<'_>, defaults: Hosts) -> Result<Hosts> {
    let Some(fields) = fields.table("hosts", &["count", "names", "choice", "flatness"])? else { return Ok(defaults) };
    let count = fields.whole("count", 1..=MAX_HOSTS)?;
    let given = fields.texts("names", MAX_HOSTS as usize)?;
    let plain = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let names = match (count, given) {
        (Some(_), Some(_)) => return Err(fields.wrong("count", "nothing beside names", "both")),
        (None, None) => return Err(fields.wrong("names", "a list of names, or count a number", "neither of them")),
        (Some(count), None) => (1..=count).map(|host| format!("site{host}.example.com")).collect(),
        (None, Some(names)) => match names.iter().find(|name| !plain(name)) {
            Some(name) => return Err(fields.wrong("names", "names of letters, digits, dots and hyphens", name)),
            None => names,
        },
    };
    Ok(Hosts {
        names,
        choice: fields.choice("choice", CHOICES)?.unwrap_or(defaults.choice),
        flatness: fields.whole("flatness", 0..=1_000_000)?.map_or(defaults.flatness, |flatness| flatness as u32),
    })
}

fn read_statuses(fields: &Fields<'_>) -> Result<Vec<(u16, f64)>> {
    let Some(value) = fields.value("status") else { return Ok(Vec::new()) };
    let takes =
        "a table of statuses from 200 to 599 with their weights, such as { 200 = 0.97, 404 = 0.02, 500 = 0.01 }";
    let wrong = || fields.wrong("status", takes, &value.to_string());
    let table = value.as_object().ok_or_else(wrong)?;
    let mut statuses = Vec::new();
    for (name, weight) in table {
        let status = name.parse().ok().filter(|status| (200..600).contains(status)).ok_or_else(wrong)?;
        let weight = weight.as_f64().filter(|weight| (0.0..=1e9).contains(weight)).ok_or_else(wrong)?;
        statuses.push((status, weight));
    }
    // A JSON object has its names in whatever order; the log must not depend on it.
    statuses.sort_by_key(|(status, _)| *status);
    if statuses.iter().all(|(_, weight)| *weight == 0.0) {
        return Err(wrong());
    }
    Ok(statuses)
}

fn read_late(fields: &Fields<'_>) -> Result<Option<Late>> {
    let Some(fields) = fields.table("late", &["share", "by"])? else { return Ok(None) };
    let share = fields.number("share", 0.0..=1.0)?.ok_or_else(|| fields.missing("share", "a number from 0 to 1"))?;
    let by = fields.durations("by", MIN_SPAN, MAX_SPAN)?;
    let by = by.unwrap_or(Span { low: 30 * MICROS_PER_SECOND, high: 300 * MICROS_PER_SECOND });
    Ok((share > 0.0).then_some(Late { share, by }))
}

fn read_episode(path: &str, value: &Value, hosts: &Hosts) -> Result<Episode> {
    let fields = Fields::open(path, value, &["kind", "at", "every", "length", "size", "status", "host"])?;
    let names = || options::list(EFFECTS.iter().map(|effect| effect.name));
    let kind = fields.text("kind")?.ok_or_else(|| fields.missing("kind", &format!("one of {}", names())))?;
    let effect =
        registry::find(EFFECTS, "kind of episode", kind).map_err(|err| err.with_context(&fields.name("kind")))?;
    let when = match (fields.durations_at("at", MAX_SPAN)?, fields.durations("every", MIN_SPAN, MAX_SPAN)?) {
        (Some(at), None) => When::At(at),
        (None, Some(every)) => When::Every(every),
        (Some(_), Some(_)) => return Err(fields.wrong("every", "nothing beside at", "both")),
        (None, None) => {
            return Err(fields
                .missing("at", "when it begins, such as '10 minutes' after the start, or a list of these")
                .with_detail(
                    "Or give 'every': the pause between two, such as '30 minutes' or ['10 minutes', '1 hour'].",
                ));
        }
    };
    let length = fields.durations("length", MIN_SPAN, MAX_SPAN)?;
    let size = match effect.sizes {
        None if fields.value("size").is_some() => return Err(fields.wrong("size", "nothing for a silence", "a size")),
        None => Span { low: 0.0, high: 0.0 },
        Some((low, high, usual)) => fields.numbers("size", low..=high)?.unwrap_or(Span { low: usual, high: usual }),
    };
    let about_errors = |name: &str| match effect.of {
        Of::Traffic if fields.value(name).is_some() => {
            Err(fields.wrong(name, &format!("nothing for a {}", effect.name), "a value"))
        }
        Of::Traffic | Of::Errors => Ok(()),
    };
    about_errors("status")?;
    about_errors("host")?;
    let host = match fields.text("host")? {
        None => None,
        Some(name) => Some(hosts.names.iter().position(|host| host == name).ok_or_else(|| {
            let listed = options::list(hosts.names.iter().take(20).map(String::as_str));
            fields.wrong(
                "host",
                &if listed.is_empty() { "a host, but there is no [hosts]".into() } else { listed },
                name,
            )
        })?),
    };
    Ok(Episode {
        effect,
        when,
        length: length.unwrap_or(Span { low: 60 * MICROS_PER_SECOND, high: 60 * MICROS_PER_SECOND }),
        size,
        status: fields.whole("status", 400..=599)?.map_or(503, |status| status as u16),
        host,
    })
}

fn read_messages(path: &str, value: &Value, log: Log) -> Result<Messages> {
    let fields = Fields::open(path, value, &["name", "every", "texts", "module", "level"])?;
    let name =
        fields.text("name")?.ok_or_else(|| fields.missing("name", "what the truth calls them, such as 'heartbeat'"))?;
    let every = fields.durations("every", MIN_SPAN, MAX_SPAN)?;
    let every = every.ok_or_else(|| fields.missing("every", "the time between two, such as '10 seconds'"))?;
    let texts = fields.texts("texts", MAX_EPISODES)?.unwrap_or_default();
    if texts.is_empty() {
        return Err(fields.missing("texts", "a list of messages"));
    }
    let word = |name: &str, usual: &str| -> Result<String> {
        let text = fields.text(name)?.unwrap_or(usual);
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if plain { Ok(text.to_string()) } else { Err(fields.wrong(name, "a word of letters, digits and _", text)) }
    };
    let module_level = format!("{}:{}", word("module", "mpm_event")?, word("level", "notice")?);
    let read = |text: &String| match log {
        Log::Error if text.trim().is_empty() || text.contains(['\n', '\r']) => {
            Err(fields.wrong("texts", "texts of one line each", text))
        }
        Log::Error => Ok(Text::Error { module_level: module_level.clone(), text: text.clone() }),
        Log::Combined | Log::VhostCombined => {
            request(text).ok_or_else(|| fields.wrong("texts", "'METHOD /path STATUS' in an access log", text))
        }
    };
    Ok(Messages { name: name.to_string(), every, texts: texts.iter().map(read).collect::<Result<_>>()? })
}

/// `HEAD /health 200`.
fn request(text: &str) -> Option<Text> {
    let [method, path, status] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let status = status.parse().ok().filter(|status| (200..600).contains(status))?;
    let plain = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    let known = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
    (plain && known).then(|| Text::Request { method: method.to_string(), path: path.to_string(), status })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_has_every_field_and_both_languages_say_the_same() {
        let scenario = Scenario::parse(EXAMPLE).unwrap();
        assert_eq!(scenario.episodes.len(), EFFECTS.len(), "one of each kind");
        assert!(EFFECTS.iter().all(|effect| scenario.episodes.iter().any(|episode| episode.effect == *effect)));
        assert!(scenario.late.is_some() && scenario.malformed > 0.0 && scenario.messages.len() > 1);
        let value = from_toml(toml::Value::Table(EXAMPLE.parse().unwrap()));
        assert_eq!(Scenario::parse(&value.to_string()).unwrap(), scenario);
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Scenario::parse("").unwrap(), Scenario::default());
        assert_eq!(Scenario::parse("{}").unwrap(), Scenario::default());
        assert_eq!(Scenario::parse("start = 2026-02-03T04:05:06Z").unwrap().start, parse_utc("2026-02-03 04:05:06"));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        for (text, said) in [
            ("rat = 5", "unknown field \"rat\"; did you mean \"rate\"?"),
            ("rate = -1", "\"rate\" takes a number from 0.00001 to 10000000, not -1"),
            ("rate = 'fast'", "\"rate\" takes a number from 0.00001 to 10000000, not \"fast\""),
            ("lines = 0", "\"lines\" takes a whole number from 1 to "),
            ("log = 'apache'", "\"log\" takes one of combined, vhost_combined, error, not \"apache\""),
            ("day = [1, 2]", "\"day\" takes flat, office, evening, or 24 factors"),
            ("day = 'night'", "\"day\" takes flat, office, evening, or 24 factors"),
            ("start = 'now'", "\"start\" takes a time in UTC"),
            ("duration = '3 fortnights'", "\"duration\" takes a duration from 1 millisecond to 3650 days"),
            ("clients = 3", "\"clients\" takes a table of count, choice, flatness, ipv6, not 3"),
            ("clients.choice = 'gauss'", "\"clients.choice\" takes one of uniform, zipf, binomial, not \"gauss\""),
            ("clients.flatnes = 1", "unknown field \"clients.flatnes\"; did you mean \"flatness\"?"),
            ("hosts.choice = 'zipf'", "\"hosts.names\" takes a list of names, or count a number"),
            ("hosts.names = ['a b']", "\"hosts.names\" takes names of letters"),
            ("status = { 99 = 1 }", "\"status\" takes a table of statuses from 200 to 599"),
            ("status = { 200 = 0 }", "\"status\" takes a table of statuses from 200 to 599"),
            ("late = { by = '1 minute' }", "\"late.share\" is missing: a number from 0 to 1"),
            ("episodes = [{ kind = 'peek', at = '1 s' }]", "episodes[0].kind: unknown kind of episode \"peek\""),
            ("episodes = [{ kind = 'peak' }]", "\"episodes[0].at\" is missing"),
            (
                "episodes = [{ kind = 'peak', at = '1 s', size = 0.5 }]",
                "\"episodes[0].size\" takes a number from 1 to 1000",
            ),
            ("episodes = [{ kind = 'peak', at = '1 s', host = 'x' }]", "\"episodes[0].host\" takes nothing for a peak"),
            ("episodes = [{ kind = 'silence', at = '1 s', size = 1 }]", "\"episodes[0].size\" takes nothing"),
            (
                "episodes = [{ kind = 'errors', at = '1 s', status = 200 }]",
                "\"episodes[0].status\" takes a whole number from 400",
            ),
            (
                "episodes = [{ kind = 'errors', at = '1 s', host = 'x' }]",
                "\"episodes[0].host\" takes a host, but there is no [hosts]",
            ),
            ("episodes = [{ kind = 'errors', every = ['2 s', '1 s'] }]", "\"episodes[0].every\" takes a duration"),
            (
                "messages = [{ name = 'x', every = '1 s', texts = ['up'] }]",
                "\"messages[0].texts\" takes 'METHOD /path STATUS'",
            ),
            ("messages = [{ name = 'x', every = '1 s', texts = [] }]", "\"messages[0].texts\" is missing"),
            ("malformed = 2", "\"malformed\" takes a number from 0 to 1, not 2"),
            ("rate = ", "the scenario is no TOML"),
            ("{\"rate\": }", "the scenario is no JSON"),
        ] {
            let err = Scenario::parse(text).unwrap_err();
            assert!(err.to_string().contains(said), "{text}: {err}");
        }
    }
}
