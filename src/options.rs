//! Options of components: `WITH (path = '…', start = 'end')` and `FORMAT JSON (time_field = 't')`.
//!
//! A component states its options as a static table of [`OptionSpec`]; [`Options::parse`] checks what a user wrote
//! against it, so every component gives the same errors ("unknown option "pth"; did you mean "path"?") and the same
//! documentation.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::reach;
use crate::secret::Secret;
use crate::time;

/// What values an option takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptionKind {
    Text,
    /// A file, a folder or a pattern on this machine, which has to be within reach ([`crate::reach`]).
    Path,
    /// Other machines, which have to be within reach: names with or without ports, or URLs.
    Hosts,
    Integer,
    Bool,
    /// A size such as `64 MiB`, `1GB` or a plain number of bytes.
    Bytes,
    /// A duration such as `5 seconds` or `10ms`.
    Interval,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A password or the like, which is never shown: see [`Options::secret`].
    Secret,
}

/// One row of a component's table of options.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// One that ends with `*` stands for all options that begin so and have no row of their own.
    pub name: &'static str,
    pub kind: OptionKind,
    /// As a user would write it; `None` means: required when `required`, else unset.
    pub default: Option<&'static str>,
    pub required: bool,
    pub summary: &'static str,
}

impl OptionSpec {
    /// An option that may be left out.
    pub const fn optional(
        name: &'static str,
        kind: OptionKind,
        default: Option<&'static str>,
        summary: &'static str,
    ) -> Self {
        OptionSpec { name, kind, default, required: false, summary }
    }

    /// An option that must be given.
    pub const fn required(name: &'static str, kind: OptionKind, summary: &'static str) -> Self {
        OptionSpec { name, kind, default: None, required: true, summary }
    }
}

/// Two tables of options as one: a component's own, and those that it shares with others.
pub const fn join<const N: usize>(own: &[OptionSpec], shared: &[OptionSpec]) -> [OptionSpec; N] {
    assert!(own.len() + shared.len() == N, "the length of the tables together");
    let mut all = [own[0]; N];
    let mut i = 0;
    while i < N {
        all[i] = if i < own.len() { own[i] } else { shared[i - own.len()] };
        i += 1;
    }
    all
}

/// Options as given by a user and checked against their specs; defaults filled in.
#[derive(Clone, Default)]
pub struct Options {
    values: BTreeMap<&'static str, String>,
    /// Those whose row ends with `*`, by their whole name.
    open: BTreeMap<String, String>,
    /// Not among the others, so that nobody shows one by mistake.
    secrets: BTreeMap<&'static str, Secret>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.values).entries(&self.open).entries(&self.secrets).finish()
    }
}

impl Options {
    /// Checks `given` (name, value; names in any case) against `specs`. `owner` names the component in errors, such
    /// as `connector "file"`.
    pub fn parse(owner: &str, specs: &[&[OptionSpec]], given: &[(String, String)]) -> Result<Options> {
        let all = || specs.iter().flat_map(|s| s.iter());
        let (mut values, mut open, mut secrets) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, value) in given {
            let lower = name.to_ascii_lowercase();
            let stands_for = |s: &&OptionSpec| {
                s.name.strip_suffix('*').is_some_and(|front| lower.starts_with(front) && lower.len() > front.len())
            };
            let Some(spec) = all().find(|s| s.name == lower).or_else(|| all().find(stands_for)) else {
                return Err(unknown("option", name, all().map(|s| s.name))
                    .with_detail(format!("Options of {owner}: {}.", list(all().map(|s| s.name)))));
            };
            check(spec, value)?;
            let twice = match spec.kind {
                OptionKind::Secret => secrets.insert(spec.name, Secret::new(value)).is_some(),
                _ if spec.name != lower => open.insert(lower.clone(), value.clone()).is_some(),
                _ => values.insert(spec.name, value.clone()).is_some(),
            };
            if twice {
                return Err(Error::new(Kind::Syntax, format!("option \"{lower}\" is given twice")));
            }
        }
        for spec in all() {
            if values.contains_key(spec.name) || secrets.contains_key(spec.name) {
                continue;
            }
            if let Some(default) = spec.default {
                // Of a tenant, what nobody has said counts too.
                if spec.kind == OptionKind::Hosts && reach::bounds().is_some() {
                    reach::hosts(default)?;
                }
                values.insert(spec.name, default.to_string());
            } else if spec.required {
                return Err(Error::new(Kind::InvalidParameter, format!("{owner} needs the option \"{}\"", spec.name))
                    .with_hint(format!("{}: {}.", spec.name, spec.summary)));
            }
        }
        Ok(Options { values, open, secrets })
    }

    /// A secret option as it is now; `None` when it was not given. Fails when what it refers to is not there, so call it
    /// where the secret is needed, each time anew.
    pub fn secret(&self, name: &str) -> Result<Option<String>> {
        let found = self.secrets.get(name).map(Secret::resolve).transpose();
        found.map_err(|err| err.with_context(&format!("option \"{name}\"")))
    }

    /// Whether a secret option was given, whatever it is now.
    pub fn has_secret(&self, name: &str) -> bool {
        self.secrets.contains_key(name)
    }

    /// The value of an option, or `None` when it has no default and was not given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The options that were given for a row that ends with `*`, by their whole names in lower case.
    pub fn beginning_with<'a>(&'a self, front: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let found = self.open.iter().filter(move |(name, _)| name.starts_with(front));
        found.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn bool(&self, name: &str) -> bool {
        self.text(name).and_then(parse_bool).unwrap_or(false)
    }

    pub fn integer(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(|v| v.trim().parse().ok())
    }

    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(parse_bytes)
    }

    pub fn interval(&self, name: &str) -> Option<Duration> {
        self.text(name).and_then(|v| time::parse_duration(v).ok())
    }
}

fn check(spec: &OptionSpec, value: &str) -> Result<()> {
    let ok = match spec.kind {
        OptionKind::Text => true,
        OptionKind::Path => return reach::path(value),
        OptionKind::Hosts => return reach::hosts(value),
        OptionKind::Secret => {
            let secret = Secret::new(value);
            secret.check(spec.name)?;
            return secret.within_reach();
        }
        OptionKind::Integer => value.trim().parse::<i64>().is_ok(),
        OptionKind::Bool => parse_bool(value).is_some(),
        OptionKind::Bytes => parse_bytes(value).is_some(),
        OptionKind::Interval => time::parse_duration(value).is_ok(),
        OptionKind::Choice(words) => {
            if !words.contains(&value) {
                return Err(unknown(&format!("value for option \"{}\":", spec.name), value, words.iter().copied())
                    .with_detail(format!("It takes: {}.", list(words.iter().copied()))));
            }
            true
        }
    };
    if ok {
        return Ok(());
    }
    let wanted = match spec.kind {
        OptionKind::Text | OptionKind::Path | OptionKind::Hosts | OptionKind::Choice(_) | OptionKind::Secret => "text",
        OptionKind::Integer => "a whole number",
        OptionKind::Bool => "true or false",
        OptionKind::Bytes => "a size such as '64 MiB'",
        OptionKind::Interval => "a duration such as '5 seconds'",
    };
    Err(Error::new(Kind::InvalidParameter, format!("option \"{}\" takes {wanted}, not \"{value}\"", spec.name))
        .with_hint(format!("{}: {}.", spec.name, spec.summary)))
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// `64 MiB` → 67108864. Decimal (kB, MB, GB) and binary (KiB, MiB, GiB, TiB) units; a bare number is bytes.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..split].parse().ok()?;
    let unit = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = number * unit;
    (bytes.is_finite() && bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes.round() as u64)
}

/// The candidate closest to `name`, if any is close enough to be a likely slip.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&lower, &c.to_ascii_lowercase()), c))
        .filter(|(distance, c)| *distance <= (c.len().max(lower.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// The error about a name that is not known, with the nearest of the known ones as its hint, if one is close enough.
pub fn with_nearest<'a>(err: Error, name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    match nearest(name, known) {
        Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
        None => err,
    }
}

/// `unknown option "pth"; did you mean "path"?`
pub fn unknown<'a>(what: &str, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Error {
    let tail = nearest(name, candidates).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
    Error::new(Kind::InvalidParameter, format!("unknown {what} \"{name}\"{tail}"))
}

/// Names joined for a sentence.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[OptionSpec] = &[
        OptionSpec::required("path", OptionKind::Text, "file or glob"),
        OptionSpec::optional("start", OptionKind::Choice(&["beginning", "end"]), Some("beginning"), "where to start"),
        OptionSpec::optional("max_line_bytes", OptionKind::Bytes, Some("1 MiB"), "longest line"),
    ];

    fn parse(given: &[(&str, &str)]) -> Result<Options> {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Options::parse("connector \"file\"", &[SPECS], &given)
    }

    #[test]
    fn a_slip_is_named_and_mended() {
        let err = parse(&[("pth", "x")]).unwrap_err();
        assert_eq!(err.message(), "unknown option \"pth\"; did you mean \"path\"?");
        let err = parse(&[("path", "x"), ("start", "ende")]).unwrap_err();
        assert_eq!(err.message(), "unknown value for option \"start\": \"ende\"; did you mean \"end\"?");
    }

    #[test]
    fn a_secret_is_used_and_never_shown() {
        const SPECS: &[OptionSpec] = &[
            OptionSpec::required("user", OptionKind::Text, "who logs in"),
            OptionSpec::required("password", OptionKind::Secret, "what is needed for that"),
        ];
        let given = [("user".to_string(), "u".to_string()), ("password".to_string(), "hunter2".to_string())];
        let options = Options::parse("connector \"x\"", &[SPECS], &given).unwrap();
        assert_eq!(options.secret("password").unwrap().as_deref(), Some("hunter2"));
        assert_eq!(options.text("password"), None);
        assert_eq!(format!("{options:?}"), r#"{"user": "u", "password": ***}"#);
        let twice = Options::parse("x", &[SPECS], &[given.to_vec(), given[1..].to_vec()].concat()).unwrap_err();
        assert!(!twice.to_string().contains("hunter2"));
    }

    #[test]
    fn a_row_with_a_star_stands_for_all_that_begin_so() {
        const SPECS: &[OptionSpec] = &[
            OptionSpec::optional("x.password", OptionKind::Secret, None, "one that is hidden"),
            OptionSpec::optional("x.*", OptionKind::Text, None, "whatever the library takes"),
        ];
        let parse = |given: &[(&str, &str)]| {
            let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Options::parse("connector \"x\"", &[SPECS], &given)
        };
        let options = parse(&[("X.b", "2"), ("x.a", "1"), ("x.password", "hunter2")]).unwrap();
        assert_eq!(options.beginning_with("x.").collect::<Vec<_>>(), [("x.a", "1"), ("x.b", "2")]);
        assert_eq!(options.secret("x.password").unwrap().as_deref(), Some("hunter2"));
        assert!(!format!("{options:?}").contains("hunter2"));
        assert!(parse(&[("x.a", "1"), ("X.A", "2")]).unwrap_err().message().contains("\"x.a\" is given twice"));
        assert!(parse(&[("x.", "1")]).is_err() && parse(&[("xa", "1")]).is_err());
    }

    #[test]
    fn defaults_and_units() {
        let options = parse(&[("PATH", "x")]).unwrap();
        assert_eq!(options.bytes("max_line_bytes"), Some(1 << 20));
        assert_eq!(options.text("start"), Some("beginning"));
        assert!(parse(&[]).unwrap_err().message().contains("needs the option \"path\""));
        assert!(parse(&[("path", "x"), ("max_line_bytes", "big")]).is_err());
    }
}
