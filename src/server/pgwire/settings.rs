//! The settings of one connection (`SET`, `SHOW`, `RESET`), as far as PostgreSQL's clients use them.
//!
//! Most have no meaning here: they are accepted and shown again, so that drivers and tools get through their start. These
//! have an effect: `statement_timeout` (not on SUBSCRIBE, which has no end of its own), `idle_session_timeout` and
//! `idle_in_transaction_session_timeout`, `client_encoding` (only UTF8), `application_name` (others see it),
//! `logweir.result_limit` (a larger result ends with an error) and `logweir.idempotency_key`, which is for the next INSERT
//! or COPY only: rows that come after it are other rows.
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
    /// Value and name as shown.
    pub fn show(&self, name: &str) -> Option<(&'static str, String)> {
        let (name, default, _) = entry(name)?;
        Some((name, self.values.get(name).cloned().unwrap_or_else(|| default.to_string())))
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
        let value = value.unwrap_or(default);
        match *name {
            "statement_timeout" => self.statement_timeout = parse_timeout(value)?,
            "idle_session_timeout" => self.idle_session_timeout = parse_timeout(value)?,
            "idle_in_transaction_session_timeout" => self.idle_in_transaction_timeout = parse_timeout(value)?,
            "logweir.result_limit" => self.result_limit = parse_limit(value)?,
            "client_encoding" if !is_utf8(value) => {
                return Err(Error::new(
                    Kind::InvalidParameter,
                    format!("invalid value for \"client_encoding\": {value:?}"),
                )
                .with_hint("Only UTF8 is spoken here."));
            }
            _ => {}
        }
        let value = if *name == "client_encoding" { "UTF8" } else { value };
        let before = self.values.insert(name, value.to_string());
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

fn is_utf8(value: &str) -> bool {
    let letters: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    ["utf8", "unicode", "auto"].iter().any(|name| letters.eq_ignore_ascii_case(name))
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
        assert!(settings.set("client_encoding", Some("LATIN1"), false).is_err());
        assert!(settings.set("client_encoding", Some("utf-8"), false).is_ok());
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
