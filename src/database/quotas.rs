//! What a tenant may use: the options of CREATE DATABASE and ALTER DATABASE. What is not said has a default that is a part
//! of what the server has, so that no tenant takes all of it.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Config, part_of_one};
use crate::error::{Error, Kind, Result};
use crate::options::{list, parse_bytes, unknown};
use crate::time::{format_duration, parse_duration};

/// Without a word of its own a tenant may take this part of the memory that the server's settings give, and of the queries
/// and connections.
const PART: u64 = 4;

/// One row of the table of options.
pub struct Spec {
    pub name: &'static str,
    pub default: &'static str,
    pub summary: &'static str,
    /// Whether a change counts at once; else when the server starts again.
    pub at_once: bool,
    set: fn(&mut Quotas, Option<&str>) -> Option<()>,
}

/// Every option.
pub static QUOTAS: &[Spec] = &[
    Spec {
        name: "ingest_rate",
        default: "none",
        summary: "bytes of lines that its streams take in each second, such as '10 MiB/s': faster sources wait, and pushes are answered 429",
        at_once: true,
        set: |quotas, text| put(&mut quotas.ingest_rate, text.map_or(Some(None), rate)),
    },
    Spec {
        name: "bytes_kept",
        default: "none",
        summary: "space that it takes on the disk: beyond it its sources pause until retention makes room, and pushes are refused",
        at_once: true,
        set: |quotas, text| put(&mut quotas.bytes_kept, bytes(text)),
    },
    Spec {
        name: "query_memory",
        default: "a quarter of --query-memory",
        summary: "memory of its queries together, before they spill; one query may take three quarters of it",
        at_once: false,
        set: |quotas, text| put(&mut quotas.query_memory, bytes(text)),
    },
    Spec {
        name: "memory",
        default: "a quarter of --state-memory",
        summary: "memory of the states of its views together, and as much again of the rows that its streams keep at hand; what does not fit is kept on disk",
        at_once: false,
        set: |quotas, text| put(&mut quotas.memory, bytes(text)),
    },
    Spec {
        name: "connections",
        default: "a quarter of --max-connections",
        summary: "Postgres connections at one time; they take no places of other databases",
        at_once: true,
        set: |quotas, text| put(&mut quotas.connections, count(text)),
    },
    Spec {
        name: "max_queries",
        default: "a quarter of --max-queries",
        summary: "its queries that compute at one time; others wait for their turn",
        at_once: true,
        set: |quotas, text| put(&mut quotas.max_queries, count(text)),
    },
    Spec {
        name: "statement_timeout",
        default: "none",
        summary: "the longest time of one statement, whatever the client's statement_timeout is",
        at_once: true,
        set: |quotas, text| put(&mut quotas.statement_timeout, interval(text)),
    },
    Spec {
        name: "allow_files",
        default: "none",
        summary: "folders, with commas in between, below which its own statements may name files",
        at_once: true,
        set: |quotas, text| put(&mut quotas.allow_files, Some(names(text))),
    },
    Spec {
        name: "allow_hosts",
        default: "none",
        summary: "machines, with commas in between, that its own statements may name: 'hooks.example.org, *.example.net'",
        at_once: true,
        set: |quotas, text| put(&mut quotas.allow_hosts, Some(names(text))),
    },
];

/// What was said; `None` where nothing was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quotas {
    /// Bytes each second.
    pub ingest_rate: Option<u64>,
    pub bytes_kept: Option<u64>,
    pub query_memory: Option<u64>,
    pub memory: Option<u64>,
    pub connections: Option<u64>,
    pub max_queries: Option<u64>,
    pub statement_timeout: Option<Duration>,
    pub allow_files: Vec<String>,
    pub allow_hosts: Vec<String>,
}

/// Sets one of them, if it could be read.
fn put<T>(quota: &mut T, value: Option<T>) -> Option<()> {
    value.map(|value| *quota = value)
}

/// `10 MiB/s`, or bytes.
fn rate(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    bytes(Some(text.strip_suffix("/s").or_else(|| text.strip_suffix("/sec")).unwrap_or(text)))
}

/// More than none at all; `Some(None)` takes the limit away.
fn bytes(text: Option<&str>) -> Option<Option<u64>> {
    let Some(text) = text else { return Some(None) };
    parse_bytes(text).filter(|bytes| *bytes > 0).map(Some)
}

fn count(text: Option<&str>) -> Option<Option<u64>> {
    let Some(text) = text else { return Some(None) };
    text.trim().parse::<u32>().ok().filter(|count| *count > 0).map(|count| Some(u64::from(count)))
}

fn interval(text: Option<&str>) -> Option<Option<Duration>> {
    let Some(text) = text else { return Some(None) };
    parse_duration(text).ok().filter(|time| !time.is_zero()).map(Some)
}

fn names(text: Option<&str>) -> Vec<String> {
    let all = text.unwrap_or_default().split(',').map(str::trim);
    all.filter(|name| !name.is_empty()).map(str::to_string).collect()
}

impl Quotas {
    /// These with what is `given` (name, value) in the place of what was said before; `none` and `default` take it away.
    /// Gives the names of what counts only when the server starts again.
    pub fn change(&mut self, given: &[(String, String)]) -> Result<Vec<&'static str>> {
        let mut later = Vec::new();
        for (at, (name, value)) in given.iter().enumerate() {
            let lower = name.to_ascii_lowercase();
            let spec = QUOTAS.iter().find(|spec| spec.name == lower).ok_or_else(|| {
                let all = || QUOTAS.iter().map(|spec| spec.name);
                unknown("option", name, all()).with_detail(format!("Options of a database: {}.", list(all())))
            })?;
            if given[..at].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                return Err(Error::new(Kind::Syntax, format!("option \"{lower}\" is given twice")));
            }
            let text = value.trim();
            let none = text.eq_ignore_ascii_case("none") || text.eq_ignore_ascii_case("default");
            (spec.set)(self, Some(text).filter(|_| !none)).ok_or_else(|| {
                Error::new(Kind::InvalidParameter, format!("option \"{}\" cannot be \"{value}\"", spec.name))
                    .with_hint(format!("{}: {}; 'none' takes it away.", spec.name, spec.summary))
            })?;
            if !spec.at_once {
                later.push(spec.name);
            }
        }
        Ok(later)
    }

    /// The settings of a tenant's engine on a server with settings `server`.
    pub fn config(&self, name: &str, dir: &Path, server: &Config) -> Config {
        let query_memory = self.query_memory.unwrap_or(server.query_memory / PART);
        let state_memory = self.memory.unwrap_or(server.state_memory / PART);
        Config {
            database: name.to_string(),
            data_dir: Some(dir.to_path_buf()),
            query_memory,
            memory_per_query: part_of_one(query_memory),
            max_queries: self.max_queries(server),
            view_memory: server.view_memory.min(state_memory),
            state_memory,
            rows_memory: Some(state_memory),
            disk_limit: self.bytes_kept,
            ingest_rate: self.ingest_rate,
            ..server.clone()
        }
    }

    pub fn max_queries(&self, server: &Config) -> usize {
        let part = (server.max_queries / PART as usize).max(1);
        self.max_queries.and_then(|count| usize::try_from(count).ok()).unwrap_or(part)
    }

    /// `server`: connections of the main database.
    pub fn connections(&self, server: usize) -> usize {
        let part = (server / PART as usize).max(1);
        self.connections.and_then(|count| usize::try_from(count).ok()).unwrap_or(part)
    }

    /// The longest time of a statement, as text.
    pub fn timeout_text(&self) -> Option<String> {
        self.statement_timeout.map(format_duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(options: &[(&str, &str)]) -> Vec<(String, String)> {
        options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn what_is_said_is_read_and_taken_back() {
        let mut quotas = Quotas::default();
        let options = [
            ("Ingest_Rate", "10 MiB/s"),
            ("bytes_kept", "1 GB"),
            ("connections", "3"),
            ("statement_timeout", "2 seconds"),
            ("allow_hosts", "a.example.org, b"),
        ];
        assert!(quotas.change(&given(&options)).unwrap().is_empty());
        assert_eq!(
            (quotas.ingest_rate, quotas.bytes_kept, quotas.connections),
            (Some(10 << 20), Some(1_000_000_000), Some(3))
        );
        assert_eq!((quotas.statement_timeout, quotas.allow_hosts.len()), (Some(Duration::from_secs(2)), 2));
        assert_eq!(quotas.change(&given(&[("memory", "1 MiB"), ("bytes_kept", "none")])).unwrap(), ["memory"]);
        assert_eq!((quotas.memory, quotas.bytes_kept, quotas.connections), (Some(1 << 20), None, Some(3)));
        let text = serde_json::to_string(&quotas).unwrap();
        assert_eq!(serde_json::from_str::<Quotas>(&text).unwrap(), quotas);
    }

    #[test]
    fn what_is_wrong_says_so() {
        let fails = |options: &[(&str, &str)]| Quotas::default().change(&given(options)).unwrap_err();
        assert!(fails(&[("ingest_rat", "1")]).message().contains("did you mean \"ingest_rate\"?"));
        for (name, value) in [
            ("ingest_rate", "fast"),
            ("ingest_rate", "0"),
            ("bytes_kept", "-1"),
            ("connections", "0"),
            ("connections", "1.5"),
            ("max_queries", "many"),
            ("statement_timeout", "soon"),
            ("statement_timeout", "0"),
        ] {
            assert_eq!(fails(&[(name, value)]).kind(), Kind::InvalidParameter, "{name} = {value}");
        }
        assert_eq!(fails(&[("connections", "1"), ("CONNECTIONS", "2")]).kind(), Kind::Syntax);
    }

    #[test]
    fn no_tenant_has_all_of_the_server() {
        let server = Config { query_memory: 1000, state_memory: 800, max_queries: 32, ..Config::default() };
        let config = Quotas::default().config("a", Path::new("/x"), &server);
        assert_eq!((config.query_memory, config.memory_per_query, config.state_memory), (250, 186, 200));
        assert_eq!((config.max_queries, config.database.as_str()), (8, "a"));
        assert_eq!((Quotas::default().connections(100), Quotas::default().connections(2)), (25, 1));
        let said = Quotas { query_memory: Some(4000), max_queries: Some(1), ..Quotas::default() };
        let config = said.config("a", Path::new("/x"), &server);
        assert_eq!((config.query_memory, config.max_queries), (4000, 1));
    }
}
