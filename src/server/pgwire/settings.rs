//! The settings of one connection (`SET`, `SHOW`, `RESET`), as far as PostgreSQL's clients use them.
//!
//! Most have no meaning here: they are accepted and shown again, so that drivers and tools get through their start. These
//! have an effect: `statement_timeout` (not on SUBSCRIBE, which has no end of its own), `idle_session_timeout` and
//! `idle_in_transaction_session_timeout`, `application_name` (others see it), `transaction_read_only` and
//! `default_transaction_read_only` (what changes anything is refused), `logweir.result_limit` (a larger result ends with an
//! error) and `logweir.idempotency_key`, which is for the next INSERT or COPY only: rows that come after it are other rows.
//! Those that say how values are written (`client_encoding`, `DateStyle`, `IntervalStyle`, `bytea_output`, …) take only
//! what is written here: a client that is told "yes" to another would read values wrongly.
//! Times are always printed in UTC with their offset, whatever `TimeZone` says, which every driver reads as the same
//! instant.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::backend::Parameters;
use crate::catalog::postgres::SERVER_VERSION;
use crate::error::{Error, Kind, Result};
use crate::options::parse_bytes;

#[derive(Clone, Copy, PartialEq)]
enum Access {
    /// May be set.
    Plain,
    /// May be set, and the client is told of every change.
    Reported,
    /// Told to the client at its start.
    Fixed,
}

/// Name as PostgreSQL shows it, value at the start, who may change it.
const KNOWN: &[(&str, &str, Access)] = &[
    ("application_name", "", Access::Reported),
    ("array_nulls", "on", Access::Plain),
    ("backslash_quote", "safe_encoding", Access::Plain),
    ("bytea_output", "hex", Access::Plain),
    ("check_function_bodies", "on", Access::Plain),
    ("client_encoding", "UTF8", Access::Reported),
    ("client_min_messages", "notice", Access::Plain),
    ("cursor_tuple_fraction", "0.1", Access::Plain),
    ("DateStyle", "ISO, MDY", Access::Reported),
    ("default_table_access_method", "heap", Access::Plain),
    ("default_tablespace", "", Access::Plain),
    ("default_transaction_deferrable", "off", Access::Plain),
    ("default_transaction_isolation", "read committed", Access::Plain),
    ("default_transaction_read_only", "off", Access::Reported),
    ("enable_seqscan", "on", Access::Plain),
    ("escape_string_warning", "on", Access::Plain),
    ("extra_float_digits", "1", Access::Plain),
    ("force_parallel_mode", "off", Access::Plain),
    ("geqo", "on", Access::Plain),
    ("idle_in_transaction_session_timeout", "0", Access::Plain),
    ("idle_session_timeout", "0", Access::Plain),
    ("in_hot_standby", "off", Access::Fixed),
    ("integer_datetimes", "on", Access::Fixed),
    ("IntervalStyle", "postgres", Access::Reported),
    ("is_superuser", "on", Access::Fixed),
    ("jit", "off", Access::Plain),
    ("lc_collate", "C", Access::Plain),
    ("lc_ctype", "C", Access::Plain),
    ("lc_messages", "C", Access::Plain),
    ("lc_monetary", "C", Access::Plain),
    ("lc_numeric", "C", Access::Plain),
    ("lc_time", "C", Access::Plain),
    ("lock_timeout", "0", Access::Plain),
    ("logweir.idempotency_key", "", Access::Plain),
    ("logweir.result_limit", "0", Access::Plain),
    ("maintenance_work_mem", "64MB", Access::Plain),
    ("max_identifier_length", "63", Access::Fixed),
    ("max_index_keys", "32", Access::Fixed),
    ("password_encryption", "scram-sha-256", Access::Plain),
    ("plan_cache_mode", "auto", Access::Plain),
    ("quote_all_identifiers", "off", Access::Plain),
    ("role", "none", Access::Plain),
    ("row_security", "on", Access::Plain),
    ("search_path", "\"$user\", public", Access::Plain),
    ("server_encoding", "UTF8", Access::Fixed),
    ("server_version", SERVER_VERSION, Access::Fixed),
    ("server_version_num", "150000", Access::Fixed),
    ("session_authorization", "", Access::Reported),
    ("standard_conforming_strings", "on", Access::Reported),
    ("statement_timeout", "0", Access::Plain),
    ("synchronize_seqscans", "on", Access::Plain),
    ("synchronous_commit", "on", Access::Plain),
    ("tcp_keepalives_idle", "0", Access::Plain),
    ("temp_buffers", "8MB", Access::Plain),
    ("TimeZone", "UTC", Access::Reported),
    ("transaction_deferrable", "off", Access::Plain),
    ("transaction_isolation", "read committed", Access::Plain),
    ("transaction_read_only", "off", Access::Plain),
    ("work_mem", "4MB", Access::Plain),
    ("xmloption", "content", Access::Plain),
];

fn entry(name: &str) -> Option<&'static (&'static str, &'static str, Access)> {
    KNOWN.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name))
}

/// Whether PostgreSQL has a setting of this name (as far as we list them).
pub fn is_known(name: &str) -> bool {
    entry(name).is_some()
}

/// The settings of one connection.
#[derive(Default)]
pub struct Settings {
    /// Differences from `KNOWN`, by the name given there.
    values: HashMap<&'static str, String>,
    /// Values before `SET LOCAL`, to go back to when the transaction ends.
    before_local: Vec<(&'static str, Option<String>)>,
    statement_timeout: Option<Duration>,
    idle_session_timeout: Option<Duration>,
    idle_in_transaction_timeout: Option<Duration>,
    result_limit: Option<u64>,
}

/// A change that the client must be told of: name and new value.
pub type Report = Option<(&'static str, String)>;

impl Settings {
    /// Value and name as shown. What a transaction was not told is as the session wants it for all.
    pub fn show(&self, name: &str) -> Option<(&'static str, String)> {
        let (name, default, _) = entry(name)?;
        let value = self.values.get(name).or_else(|| self.values.get(of_session(name)?));
        Some((name, value.cloned().unwrap_or_else(|| default.to_string())))
    }

    /// Whether statements that change anything are refused.
    pub fn read_only(&self) -> bool {
        self.show("transaction_read_only").is_some_and(|(_, value)| value == "on")
    }

    /// What BEGIN or SET TRANSACTION says of a transaction, or SET SESSION CHARACTERISTICS of those to come.
    pub fn set_modes(&mut self, modes: &[(&'static str, &'static str)], session: bool) -> Result<()> {
        for (name, value) in modes {
            let name = if session { of_session(name).unwrap_or(name) } else { name };
            self.set(name, Some(value), !session)?;
        }
        Ok(())
    }

    /// Sets what the server alone may.
    pub fn state(&mut self, name: &str, value: &str) {
        if let Some((name, _, _)) = entry(name) {
            self.values.insert(name, value.to_string());
        }
    }

    /// The idempotency key for a statement that inserts, if one was set since the last such statement.
    pub fn take_idempotency_key(&mut self) -> Option<String> {
        self.values.remove("logweir.idempotency_key").filter(|key| !key.is_empty())
    }

    /// All of them, in order.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        KNOWN.iter().filter_map(|(name, _, _)| self.show(name))
    }

    /// Those sent to the client at its start.
    pub fn reported(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        KNOWN.iter().filter(|(_, _, access)| *access != Access::Plain).filter_map(|(name, _, _)| self.show(name))
    }

    /// `SET name = value`; None for DEFAULT. `local` ends with the transaction.
    pub fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<Report> {
        let Some((name, default, access)) = entry(name) else {
            // PostgreSQL takes any `extension.setting`; tools mark their sessions with them.
            if name.contains('.') {
                return Ok(None);
            }
            return Err(Error::new(Kind::UndefinedObject, format!("unrecognized configuration parameter \"{name}\"")));
        };
        if *access == Access::Fixed {
            return Err(Error::new(Kind::NotReady, format!("parameter \"{name}\" cannot be changed")));
        }
        let is_default = value.is_none();
        let value = checked(name, value.unwrap_or(default))?;
        let value = value.as_str();
        match *name {
            "statement_timeout" => self.statement_timeout = parse_timeout(value)?,
            "idle_session_timeout" => self.idle_session_timeout = parse_timeout(value)?,
            "idle_in_transaction_session_timeout" => self.idle_in_transaction_timeout = parse_timeout(value)?,
            "logweir.result_limit" => self.result_limit = parse_limit(value)?,
            _ => {}
        }
        let before = if is_default { self.values.remove(name) } else { self.values.insert(name, value.to_string()) };
        if local {
            self.before_local.push((name, before));
        }
        Ok((*access == Access::Reported).then(|| (*name, value.to_string())))
    }

    /// `RESET ALL`.
    pub fn reset(&mut self) -> Vec<(&'static str, String)> {
        let names: Vec<&str> = self.values.keys().copied().collect();
        names.into_iter().filter_map(|name| self.set(name, None, false).ok().flatten()).collect()
    }

    /// Takes back what `SET LOCAL` did in the transaction that ends.
    pub fn end_transaction(&mut self) -> Vec<(&'static str, String)> {
        let undo = std::mem::take(&mut self.before_local);
        undo.into_iter()
            .rev()
            .filter_map(|(name, value)| self.set(name, value.as_deref(), false).ok().flatten())
            .collect()
    }

    /// How long a statement may take.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.statement_timeout
    }

    /// How long a client may say nothing outside of a transaction.
    pub fn idle_session_timeout(&self) -> Option<Duration> {
        self.idle_session_timeout
    }

    /// The same within one.
    pub fn idle_in_transaction_timeout(&self) -> Option<Duration> {
        self.idle_in_transaction_timeout
    }

    /// Bytes that a result may have, as the client asked.
    pub fn result_limit(&self) -> Option<u64> {
        self.result_limit
    }
}

/// A size such as `100 MB` or a number of bytes; 0 means no limit.
fn parse_limit(text: &str) -> Result<Option<u64>> {
    match parse_bytes(text) {
        Some(bytes) => Ok((bytes > 0).then_some(bytes)),
        None => Err(Error::new(Kind::InvalidParameter, format!("\"{text}\" is not a size such as \"100 MB\""))),
    }
}

/// What functions of SQL see of them. The client is not told of what they change.
impl Parameters for Mutex<Settings> {
    fn show(&self, name: &str) -> Option<String> {
        self.lock().show(name).map(|(_, value)| value)
    }

    fn set(&self, name: &str, value: &str, local: bool) -> Result<String> {
        self.lock().set(name, Some(value), local)?;
        Ok(value.to_string())
    }
}

/// The setting of the session that says the same of every transaction.
fn of_session(name: &str) -> Option<&'static str> {
    match name {
        "transaction_read_only" => Some("default_transaction_read_only"),
        "transaction_isolation" => Some("default_transaction_isolation"),
        "transaction_deferrable" => Some("default_transaction_deferrable"),
        _ => None,
    }
}

/// The value as it is kept and shown; an error where it is none of this setting, or says that values are to be written
/// otherwise than they are.
fn checked(name: &str, value: &str) -> Result<String> {
    let letters = || value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let only = |hint: &str| {
        Err(Error::new(Kind::NotSupported, format!("{name} \"{value}\" is not supported")).with_hint(hint))
    };
    match name {
        "client_encoding" => match letters().as_str() {
            "utf8" | "unicode" | "auto" => Ok("UTF8".to_string()),
            // The bytes as they are, which are UTF-8.
            "sqlascii" => Ok("SQL_ASCII".to_string()),
            _ => {
                only("Texts are sent and taken in UTF8: set PGCLIENTENCODING, or the client's option for it, to UTF8.")
            }
        },
        "DateStyle" => {
            let mut order = "MDY";
            for part in value.split(',').map(|part| part.trim().to_uppercase()) {
                order = match part.as_str() {
                    "ISO" => order,
                    "MDY" | "US" | "NONEURO" | "NONEUROPEAN" => "MDY",
                    "DMY" | "EURO" | "EUROPEAN" => "DMY",
                    "YMD" => "YMD",
                    _ => return only("Times are written as in ISO 8601: use ISO."),
                };
            }
            Ok(format!("ISO, {order}"))
        }
        "IntervalStyle" if letters() == "postgres" => Ok("postgres".to_string()),
        "IntervalStyle" => only("Intervals are written in the style postgres."),
        "bytea_output" if letters() == "hex" => Ok("hex".to_string()),
        "bytea_output" => only("Bytes are written as hex."),
        "standard_conforming_strings" | "integer_datetimes" => match boolean(name, value)? {
            "on" => Ok("on".to_string()),
            _ => only("It is always on: a backslash in a text is a backslash."),
        },
        "transaction_isolation" | "default_transaction_isolation" => {
            let levels = ["read uncommitted", "read committed", "repeatable read", "serializable"];
            match levels.into_iter().find(|level| level.eq_ignore_ascii_case(value.trim())) {
                Some(level) => Ok(level.to_string()),
                None => Err(no_value(name, value).with_hint(format!("Available values: {}.", levels.join(", ")))),
            }
        }
        _ if of_session(name).is_some() || name.starts_with("default_transaction_") => {
            boolean(name, value).map(str::to_string)
        }
        _ => Ok(value.to_string()),
    }
}

fn no_value(name: &str, value: &str) -> Error {
    Error::new(Kind::InvalidParameter, format!("invalid value for parameter \"{name}\": \"{value}\""))
}

/// `on` or `off`, however it is said.
fn boolean(name: &str, value: &str) -> Result<&'static str> {
    match value.trim().to_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "t" | "y" => Ok("on"),
        "off" | "false" | "no" | "0" | "f" | "n" => Ok("off"),
        _ => Err(no_value(name, value).with_hint("It takes on or off.")),
    }
}

/// The settings in the start-up parameter `options`, as a command line of PostgreSQL has them: `-c name=value`,
/// `-cname=value` or `--name=value`; a backslash keeps a space in a value.
pub fn options(text: &str) -> Vec<(String, String)> {
    let (mut words, mut word, mut chars) = (Vec::new(), String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    let setting = |word: String| {
        let plain = word.strip_prefix("--").map(str::to_string);
        let plain = plain.or_else(|| word.strip_prefix("-c").map(str::to_string)).unwrap_or(word);
        let (name, value) = plain.split_once('=')?;
        Some((name.replace('-', "_"), value.to_string()))
    };
    words.into_iter().filter_map(setting).collect()
}

/// A bare number is in milliseconds; 0 means no limit.
fn parse_timeout(text: &str) -> Result<Option<Duration>> {
    let duration = match text.trim().parse::<u64>() {
        Ok(millis) => Duration::from_millis(millis),
        Err(_) => crate::time::parse_duration(text)?,
    };
    Ok((!duration.is_zero()).then_some(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_show_and_reset() {
        let mut settings = Settings::default();
        assert_eq!(settings.show("timezone").unwrap(), ("TimeZone", "UTC".to_string()));
        assert_eq!(settings.set("TIMEZONE", Some("CET"), false).unwrap(), Some(("TimeZone", "CET".to_string())));
        assert_eq!(settings.set("work_mem", Some("1GB"), false).unwrap(), None);
        assert_eq!(settings.reset(), [("TimeZone", "UTC".to_string())]);
        assert_eq!(settings.show("work_mem").unwrap().1, "4MB");
        assert_eq!(settings.set("server_version", Some("9"), false).unwrap_err().kind(), Kind::NotReady);
        assert_eq!(settings.set("nonsense", Some("9"), false).unwrap_err().kind(), Kind::UndefinedObject);
    }

    #[test]
    fn what_says_how_values_are_written_takes_only_what_is_so() {
        let mut settings = Settings::default();
        for (name, good, shown, bad) in [
            ("client_encoding", "utf-8", "UTF8", "LATIN1"),
            ("client_encoding", "SQL_ASCII", "SQL_ASCII", "WIN1252"),
            ("DateStyle", "ISO", "ISO, MDY", "German"),
            ("datestyle", "dmy, iso", "ISO, DMY", "SQL, DMY"),
            ("IntervalStyle", "POSTGRES", "postgres", "iso_8601"),
            ("bytea_output", "hex", "hex", "escape"),
            ("standard_conforming_strings", "true", "on", "off"),
        ] {
            settings.set(name, Some(good), false).unwrap();
            assert_eq!(settings.show(name).unwrap().1, shown);
            assert_eq!(settings.set(name, Some(bad), false).unwrap_err().kind(), Kind::NotSupported, "{name} {bad}");
        }
        let bad = settings.set("transaction_isolation", Some("loose"), false).unwrap_err();
        assert_eq!(bad.kind(), Kind::InvalidParameter);
    }

    #[test]
    fn a_transaction_is_as_it_is_told_or_as_the_session_wants_it() {
        let mut settings = Settings::default();
        settings.set_modes(&[("transaction_read_only", "on")], true).unwrap();
        assert!(settings.read_only());
        settings
            .set_modes(&[("transaction_read_only", "off"), ("transaction_isolation", "serializable")], false)
            .unwrap();
        assert!(!settings.read_only());
        assert_eq!(settings.show("transaction_isolation").unwrap().1, "serializable");
        settings.end_transaction();
        assert!(settings.read_only());
        assert_eq!(settings.show("transaction_isolation").unwrap().1, "read committed");
        settings.set("default_transaction_read_only", Some("false"), false).unwrap();
        assert!(!settings.read_only());
    }

    #[test]
    fn options_are_a_command_line() {
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(
            options("-c statement_timeout=5s -csearch_path=a\\ b --work-mem=1MB -x"),
            [pair("statement_timeout", "5s"), pair("search_path", "a b"), pair("work_mem", "1MB")]
        );
    }

    #[test]
    fn a_local_value_ends_with_the_transaction() {
        let mut settings = Settings::default();
        settings.set("statement_timeout", Some("2min"), false).unwrap();
        settings.set("statement_timeout", Some("50"), true).unwrap();
        assert_eq!(settings.statement_timeout(), Some(Duration::from_millis(50)));
        settings.end_transaction();
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(120)));
        settings.set("statement_timeout", None, false).unwrap();
        assert_eq!(settings.statement_timeout(), None);
    }
}
