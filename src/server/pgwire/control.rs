//! Statements that concern the connection and not the data: transactions, settings, cursors, prepared statements.
//! What a transaction is asked to be (`READ ONLY`, `ISOLATION LEVEL …`) is kept as PostgreSQL's settings of those names.
//!
//! Receives a parsed statement's text and says whether the connection answers it, and how; `None` hands it on to the
//! engine. It reads words and not a syntax tree, because the SQL layer has checked the syntax already and because the
//! query inside `DECLARE … CURSOR FOR` may be of our own dialect (`SUBSCRIBE`).

use std::time::Duration;

use super::settings;
use crate::time::parse_duration;

#[derive(Debug, Clone, PartialEq)]
pub enum Control {
    Begin(Modes),
    /// `chain`: the next transaction begins at once, with the same modes.
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(String),
    Release(String),
    RollbackToSavepoint(String),
    /// `session`: for the transactions to come.
    SetTransaction {
        modes: Modes,
        session: bool,
    },
    /// `value` is None for DEFAULT.
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    /// One setting, or all.
    Reset(Option<String>),
    Show(String),
    ShowAll,
    /// `hold`: the cursor outlives its transaction.
    Declare {
        name: String,
        hold: bool,
        query: String,
    },
    /// `limit`: rows, None for all. `timeout`: how long to wait for rows of a live cursor. `moves`: they are passed over.
    Fetch {
        cursor: String,
        limit: Option<usize>,
        timeout: Option<Duration>,
        moves: bool,
    },
    /// Cannot be done with a cursor that only moves on.
    FetchBackward,
    /// One cursor, or all.
    Close(Option<String>),
    Prepare {
        name: String,
        query: String,
    },
    /// `arguments`: expressions with commas between them, perhaps none.
    Execute {
        name: String,
        arguments: String,
    },
    /// One prepared statement, or all.
    Deallocate(Option<String>),
    DiscardAll,
    /// Accepted, and without effect here: the tag to answer with.
    Nothing(&'static str),
}

/// What a transaction is to be: settings and their values.
pub type Modes = Vec<(&'static str, &'static str)>;

impl Control {
    /// What CommandComplete says.
    pub fn tag(&self) -> &'static str {
        match self {
            Control::Begin(_) => "BEGIN",
            Control::Commit { .. } => "COMMIT",
            Control::Rollback { .. } | Control::RollbackToSavepoint(_) => "ROLLBACK",
            Control::Savepoint(_) => "SAVEPOINT",
            Control::Release(_) => "RELEASE",
            Control::Set { .. } | Control::SetTransaction { .. } => "SET",
            Control::Reset(_) => "RESET",
            Control::Show(_) | Control::ShowAll => "SHOW",
            Control::Declare { .. } => "DECLARE CURSOR",
            Control::Fetch { moves: true, .. } => "MOVE",
            Control::Fetch { .. } | Control::FetchBackward => "FETCH",
            Control::Close(Some(_)) => "CLOSE CURSOR",
            Control::Close(None) => "CLOSE CURSOR ALL",
            Control::Prepare { .. } => "PREPARE",
            Control::Execute { .. } => "EXECUTE",
            Control::Deallocate(Some(_)) => "DEALLOCATE",
            Control::Deallocate(None) => "DEALLOCATE ALL",
            Control::DiscardAll => "DISCARD ALL",
            Control::Nothing(tag) => tag,
        }
    }
}

/// What the connection does for the statement `text`.
pub fn classify(text: &str) -> Option<Control> {
    let words = words(text);
    let word = |index: usize| words.get(index).map_or("", |word| word.keyword.as_str());
    let value = |index: usize| words.get(index).map(|word| word.value.clone());
    // The name after optional noise words.
    let named = |index: usize, noise: &[&str]| value(if noise.contains(&word(index)) { index + 1 } else { index });
    match word(0) {
        "begin" => Some(Control::Begin(modes(&words))),
        "start" if word(1) == "transaction" => Some(Control::Begin(modes(&words))),
        "commit" | "end" => Some(Control::Commit { chain: chains(&words) }),
        "rollback" | "abort" => match words.iter().position(|word| word.keyword == "to") {
            Some(to) => named(to + 1, &["savepoint"]).map(Control::RollbackToSavepoint),
            None => Some(Control::Rollback { chain: chains(&words) }),
        },
        "savepoint" => value(1).map(Control::Savepoint),
        "release" => named(1, &["savepoint"]).map(Control::Release),
        "set" => set(&words),
        "reset" => match value(1) {
            Some(_) if word(1) == "all" => Some(Control::Reset(None)),
            // Whose privileges count is the session's to say.
            Some(_) if word(1) == "role" => None,
            Some(name) => settings::is_known(&name).then_some(Control::Reset(Some(name))),
            None => None,
        },
        "show" => match (word(1), word(2)) {
            ("all", _) => Some(Control::ShowAll),
            ("time", "zone") => Some(Control::Show("timezone".to_string())),
            ("transaction", "isolation") => Some(Control::Show("transaction_isolation".to_string())),
            ("session", "authorization") => Some(Control::Show("session_authorization".to_string())),
            _ => value(1).filter(|name| settings::is_known(name)).map(Control::Show),
        },
        "declare" => {
            let query = words.iter().find(|word| word.keyword == "for")?;
            let hold = words.windows(2).any(|pair| pair[0].keyword == "with" && pair[1].keyword == "hold");
            Some(Control::Declare { name: value(1)?, hold, query: text[query.end..].trim().to_string() })
        }
        "fetch" | "move" => fetch(&words),
        "close" if word(1) == "all" => Some(Control::Close(None)),
        "close" => value(1).map(|name| Control::Close(Some(name))),
        "prepare" => {
            let query = words.iter().find(|word| word.keyword == "as")?;
            Some(Control::Prepare { name: value(1)?, query: text[query.end..].trim().to_string() })
        }
        "execute" => {
            let inside = text.find('(').and_then(|open| text.get(open + 1..text.rfind(')')?));
            Some(Control::Execute { name: value(1)?, arguments: inside.unwrap_or("").trim().to_string() })
        }
        "deallocate" => {
            let name = named(1, &["prepare"])?;
            Some(Control::Deallocate(if name.eq_ignore_ascii_case("all") { None } else { Some(name) }))
        }
        "discard" if word(1) == "all" => Some(Control::DiscardAll),
        "discard" => Some(Control::Nothing("DISCARD")),
        _ => None,
    }
}

/// `SET [SESSION | LOCAL] name { = | TO } value, …`, `SET TIME ZONE value`, `SET NAMES value`.
fn set(words: &[Word]) -> Option<Control> {
    let word = |index: usize| words.get(index).map_or("", |word| word.keyword.as_str());
    let local = word(1) == "local";
    let at = if local || word(1) == "session" { 2 } else { 1 };
    let (name, from) = match (word(at), word(at + 1)) {
        ("characteristics", _) => return Some(Control::SetTransaction { modes: modes(words), session: true }),
        ("transaction", _) => return Some(Control::SetTransaction { modes: modes(words), session: false }),
        ("constraints", _) => return Some(Control::Nothing("SET")),
        ("time", "zone") => ("timezone".to_string(), at + 2),
        ("timezone", "=" | "to") => ("timezone".to_string(), at + 2),
        ("timezone", _) => ("timezone".to_string(), at + 1),
        ("names", _) => ("client_encoding".to_string(), at + 1),
        (_, "=" | "to") => (words.get(at)?.value.clone(), at + 2),
        _ => return None,
    };
    // Settings of the engine, and whose privileges count, are not ours; a name that nobody knows is refused when it is set.
    if name.starts_with("datafusion.") || name == "role" {
        return None;
    }
    let values: Vec<&str> = words.get(from..)?.iter().map(|word| word.value.as_str()).filter(|v| *v != ",").collect();
    let default = word(from) == "default" || (name == "timezone" && word(from) == "local");
    let value = if default { None } else { Some(values.join(", ")) };
    Some(Control::Set { name, value, local })
}

/// `ISOLATION LEVEL …`, `READ ONLY`, `READ WRITE`, `DEFERRABLE` among the words of a statement.
fn modes(words: &[Word]) -> Modes {
    let word = |index: usize| words.get(index).map_or("", |word| word.keyword.as_str());
    let mode = |at: usize| match (word(at), word(at + 1)) {
        ("read", "only") => Some(("transaction_read_only", "on")),
        ("read", "write") => Some(("transaction_read_only", "off")),
        ("read", "committed") => Some(("transaction_isolation", "read committed")),
        ("read", "uncommitted") => Some(("transaction_isolation", "read uncommitted")),
        ("repeatable", "read") => Some(("transaction_isolation", "repeatable read")),
        ("level", "serializable") => Some(("transaction_isolation", "serializable")),
        _ => None,
    };
    (0..words.len()).filter_map(mode).collect()
}

/// `AND CHAIN`, but not `AND NO CHAIN`.
fn chains(words: &[Word]) -> bool {
    words.windows(2).any(|pair| pair[0].keyword == "and" && pair[1].keyword == "chain")
}

/// `{ FETCH | MOVE } [direction] [FROM | IN] cursor [WITH (timeout = 'duration')]`.
fn fetch(words: &[Word]) -> Option<Control> {
    let with = words.windows(2).position(|pair| pair[0].keyword == "with" && pair[1].keyword == "(");
    let (words, timeout) = match with {
        Some(at) => (&words[..at], Some(timeout(&words[at + 1..])?)),
        None => (words, None),
    };
    let moves = words.first()?.keyword == "move";
    let (cursor, direction) = words.get(1..)?.split_last()?;
    let mut limit = Some(1);
    for word in direction {
        limit = match word.keyword.as_str() {
            "next" | "forward" | "from" | "in" => limit,
            "all" => None,
            "prior" | "backward" | "first" | "last" | "absolute" | "relative" | "-" => {
                return Some(Control::FetchBackward);
            }
            number => Some(number.parse().ok()?),
        };
    }
    Some(Control::Fetch { cursor: cursor.value.clone(), limit, timeout, moves })
}

/// `(timeout = '1 second')`; the equals sign may be left out, and a number without a unit means seconds.
fn timeout(words: &[Word]) -> Option<Duration> {
    let inside: Vec<&Word> = words.iter().filter(|word| word.keyword != "=").collect();
    let [open, name, value @ .., close] = inside.as_slice() else { return None };
    if open.keyword != "(" || name.keyword != "timeout" || close.keyword != ")" {
        return None;
    }
    let [value] = value else { return None };
    parse_duration(&value.value).or_else(|_| parse_duration(&format!("{} s", value.value))).ok()
}

struct Word {
    /// Lower case, empty if it was quoted.
    keyword: String,
    /// Without quotes; lower case unless it was quoted.
    value: String,
    /// Where the text goes on behind it.
    end: usize,
}

/// Words, quoted strings and single symbols.
fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut chars = text.char_indices().peekable();
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$');
    while let Some((start, first)) = chars.next() {
        if first.is_whitespace() || first == ';' {
            continue;
        }
        if first == '\'' || first == '"' {
            let mut value = String::new();
            while let Some((_, c)) = chars.next() {
                if c == first && chars.next_if(|(_, next)| *next == first).is_none() {
                    break;
                }
                value.push(c);
            }
            let end = chars.peek().map_or(text.len(), |(at, _)| *at);
            words.push(Word { keyword: String::new(), value, end });
            continue;
        }
        let mut end = start + first.len_utf8();
        if is_word(first) {
            while let Some((at, c)) = chars.next_if(|(_, c)| is_word(*c)) {
                end = at + c.len_utf8();
            }
        }
        let value = text[start..end].to_lowercase();
        words.push(Word { keyword: value.clone(), value, end });
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: Option<&str>) -> Option<Control> {
        Some(Control::Set { name: name.to_string(), value: value.map(str::to_string), local: false })
    }

    #[test]
    fn transactions_and_settings() {
        assert_eq!(classify("BEGIN TRANSACTION"), Some(Control::Begin(Vec::new())));
        let modes = vec![("transaction_isolation", "repeatable read"), ("transaction_read_only", "on")];
        let text = "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";
        assert_eq!(classify(text), Some(Control::Begin(modes.clone())));
        let text = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";
        assert_eq!(classify(text), Some(Control::SetTransaction { modes, session: false }));
        assert_eq!(classify("ROLLBACK TO SAVEPOINT a"), Some(Control::RollbackToSavepoint("a".into())));
        assert_eq!(classify("ROLLBACK WORK TO \"A\""), Some(Control::RollbackToSavepoint("A".into())));
        assert_eq!(classify("RELEASE SAVEPOINT a"), Some(Control::Release("a".into())));
        assert_eq!(classify("END"), Some(Control::Commit { chain: false }));
        assert_eq!(classify("COMMIT AND CHAIN"), Some(Control::Commit { chain: true }));
        assert_eq!(classify("ROLLBACK AND NO CHAIN"), Some(Control::Rollback { chain: false }));
        assert_eq!(classify("SET statement_timeout = '5s'"), set("statement_timeout", Some("5s")));
        assert_eq!(classify("SET DateStyle TO ISO, MDY"), set("datestyle", Some("iso, mdy")));
        assert_eq!(classify("SET TIME ZONE 'Europe/Berlin'"), set("timezone", Some("Europe/Berlin")));
        assert_eq!(classify("SET search_path = DEFAULT"), set("search_path", None));
        assert_eq!(classify("SET NAMES 'UTF8'"), set("client_encoding", Some("UTF8")));
        assert_eq!(classify("SET logweir.idempotency_key = 'a, b'"), set("logweir.idempotency_key", Some("a, b")));
        assert_eq!(
            classify("SET LOCAL work_mem = '1MB'"),
            Some(Control::Set { name: "work_mem".into(), value: Some("1MB".into()), local: true })
        );
        assert_eq!(
            classify("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
            Some(Control::SetTransaction { modes: vec![("transaction_read_only", "on")], session: true })
        );
        assert_eq!(classify("SHOW TRANSACTION ISOLATION LEVEL"), Some(Control::Show("transaction_isolation".into())));
        assert_eq!(classify("SHOW server_version"), Some(Control::Show("server_version".into())));
    }

    #[test]
    fn what_is_not_of_the_connection_is_handed_on() {
        for text in [
            "SELECT 1",
            "SHOW SOURCES",
            "SET datafusion.execution.batch_size = 10",
            "SET ROLE a",
            "SET role = a",
            "RESET ROLE",
            "",
            ";",
        ] {
            assert_eq!(classify(text), None, "{text}");
        }
    }

    #[test]
    fn prepared_statements() {
        let query = "SELECT $1, 'as'".to_string();
        assert_eq!(
            classify("PREPARE p (int, text) AS SELECT $1, 'as'"),
            Some(Control::Prepare { name: "p".into(), query })
        );
        let execute = |arguments: &str| Some(Control::Execute { name: "p".into(), arguments: arguments.into() });
        assert_eq!(classify("EXECUTE p"), execute(""));
        assert_eq!(classify("EXECUTE p (1, lower('A)'), now())"), execute("1, lower('A)'), now()"));
    }

    #[test]
    fn cursors() {
        let query = "SUBSCRIBE TO error_rate".to_string();
        assert_eq!(
            classify("DECLARE \"C\" CURSOR FOR SUBSCRIBE TO error_rate"),
            Some(Control::Declare { name: "C".into(), hold: false, query })
        );
        let query = "SELECT 'a for b' FROM t FOR UPDATE".to_string();
        assert_eq!(
            classify("DECLARE c BINARY NO SCROLL CURSOR WITH HOLD FOR SELECT 'a for b' FROM t FOR UPDATE"),
            Some(Control::Declare { name: "c".into(), hold: true, query })
        );
        let fetch = |limit| Some(Control::Fetch { cursor: "c".into(), limit, timeout: None, moves: false });
        assert_eq!(classify("FETCH c"), fetch(Some(1)));
        assert_eq!(classify("FETCH 10 FROM c"), fetch(Some(10)));
        assert_eq!(classify("FETCH FORWARD 5 IN c"), fetch(Some(5)));
        assert_eq!(classify("FETCH ALL FROM c"), fetch(None));
        assert_eq!(classify("MOVE 5 IN c").map(|control| control.tag()), Some("MOVE"));
        for (text, timeout) in [
            ("FETCH ALL c WITH (timeout = '1500ms')", 1500),
            ("FETCH ALL FROM c WITH (TIMEOUT '0s')", 0),
            ("FETCH ALL IN c WITH (timeout = 2)", 2000),
        ] {
            let timeout = Some(Duration::from_millis(timeout));
            let expected = Control::Fetch { cursor: "c".into(), limit: None, timeout, moves: false };
            assert_eq!(classify(text), Some(expected), "{text}");
        }
        assert_eq!(classify("FETCH c WITH (patience = 1)"), None);
        assert_eq!(classify("FETCH"), None);
        assert_eq!(classify("FETCH PRIOR FROM c"), Some(Control::FetchBackward));
        assert_eq!(classify("CLOSE ALL"), Some(Control::Close(None)));
        assert_eq!(classify("DEALLOCATE PREPARE \"s1\""), Some(Control::Deallocate(Some("s1".into()))));
    }
}
