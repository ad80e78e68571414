//! Patterns of Apache's `LogFormat` (Apache manual, mod_log_config, "Custom Log Formats"; mod_logio).

use arrow::datatypes::DataType;

use super::field::{Kind, Piece, Token, column_name};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::format::timestamp::pattern_items;
use crate::options::list;

/// Whether a directive takes what stands in braces before its letter.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Argument {
    None,
    /// One of these words, each with a column of its own.
    Choice(&'static [(&'static str, &'static str)]),
    /// A name that is added to the column's.
    Name,
    /// How a time is written.
    Time,
}

struct Directive {
    letters: &'static str,
    /// The column.
    name: &'static str,
    kind: Kind,
    argument: Argument,
}

const fn directive(letters: &'static str, name: &'static str, kind: Kind, argument: Argument) -> Directive {
    Directive { letters, name, kind, argument }
}

const INT: Kind = Kind::Number(DataType::Int32);
const BIGINT: Kind = Kind::Number(DataType::Int64);
const DOUBLE: Kind = Kind::Number(DataType::Float64);

/// Every directive. Columns that `combined` has are called as there, the others as nginx calls the same thing.
const DIRECTIVES: &[Directive] = &[
    directive("a", "client", Kind::Address, Argument::Choice(&[("c", "peer")])),
    directive("A", "server_addr", Kind::Address, Argument::None),
    directive("b", "bytes", BIGINT, Argument::None),
    directive("B", "bytes", BIGINT, Argument::None),
    directive("c", "", Kind::Text, Argument::Name),
    directive("C", "cookie_", Kind::Text, Argument::Name),
    directive("D", "duration_us", BIGINT, Argument::None),
    directive("e", "env_", Kind::Text, Argument::Name),
    directive("f", "request_filename", Kind::Text, Argument::None),
    directive("h", "client", Kind::Address, Argument::Choice(&[("c", "peer")])),
    directive("H", "protocol", Kind::Text, Argument::None),
    directive("i", "http_", Kind::Text, Argument::Name),
    directive("I", "bytes_received", BIGINT, Argument::None),
    directive("k", "keepalives", BIGINT, Argument::None),
    directive("l", "ident", Kind::Text, Argument::None),
    directive("L", "log_id", Kind::Text, Argument::Choice(&[("c", "connection_log_id")])),
    directive("m", "method", Kind::Text, Argument::None),
    directive("n", "note_", Kind::Text, Argument::Name),
    directive("o", "sent_http_", Kind::Text, Argument::Name),
    directive("O", "bytes_sent", BIGINT, Argument::None),
    directive(
        "p",
        "server_port",
        INT,
        Argument::Choice(&[("canonical", "server_port"), ("local", "local_port"), ("remote", "remote_port")]),
    ),
    directive("P", "pid", BIGINT, Argument::Choice(&[("pid", "pid"), ("tid", "tid"), ("hextid", "tid")])),
    directive("q", "query", Kind::Query, Argument::None),
    directive("r", "request", Kind::Request, Argument::None),
    directive("R", "handler", Kind::Text, Argument::None),
    directive("s", "status", Kind::Status, Argument::None),
    directive("S", "bytes_transferred", BIGINT, Argument::None),
    directive("t", "ts", Kind::Time(Piece::Clf), Argument::Time),
    directive(
        "T",
        "request_time",
        DOUBLE,
        Argument::Choice(&[("s", "request_time"), ("ms", "duration_ms"), ("us", "duration_us")]),
    ),
    directive("u", "remote_user", Kind::Text, Argument::None),
    directive("U", "path", Kind::Path, Argument::None),
    directive("v", "server_name", Kind::Text, Argument::None),
    directive("V", "host", Kind::Text, Argument::None),
    directive("x", "", Kind::Text, Argument::Name),
    directive("X", "connection_status", Kind::Text, Argument::None),
    directive("^FB", "first_byte_us", BIGINT, Argument::None),
    directive("^ti", "trailer_", Kind::Text, Argument::Name),
    directive("^to", "sent_trailer_", Kind::Text, Argument::Name),
];

/// The pieces of a pattern.
pub fn tokens(pattern: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        tokens.push(Token::Text(rest.as_bytes()[..at].to_vec()));
        rest = &rest[at..];
        // Modifiers: only for some statuses, and of the first or the last request of a chain.
        let begin = rest[1..].trim_start_matches(|c: char| matches!(c, '!' | ',' | '<' | '>') || c.is_ascii_digit());
        let (argument, end) = match begin.strip_prefix('{') {
            Some(inside) => match inside.split_once('}') {
                Some((argument, end)) => (Some(argument), end),
                None => return Err(bad(format!("\"{rest}\" has no closing brace"))),
            },
            None => (None, begin),
        };
        if argument.is_none() && rest.starts_with("%%") {
            tokens.push(Token::Text(b"%".to_vec()));
            rest = &rest[2..];
            continue;
        }
        let found = DIRECTIVES.iter().find_map(|d| Some((d, end.strip_prefix(d.letters)?)));
        let Some((directive, after)) = found else { return Err(unknown(end)) };
        let written = &rest[..rest.len() - after.len()];
        push(&mut tokens, written, directive, argument)?;
        rest = after;
    }
    tokens.push(Token::Text(rest.as_bytes().to_vec()));
    Ok(tokens)
}

fn push(tokens: &mut Vec<Token>, written: &str, directive: &Directive, argument: Option<&str>) -> Result<()> {
    let kind = directive.kind.clone();
    let token = match (directive.argument, argument) {
        (Argument::Time, None) => {
            // The brackets belong to the directive.
            let time = Token::field(written, directive.name, kind);
            tokens.extend([Token::Text(b"[".to_vec()), time, Token::Text(b"]".to_vec())]);
            return Ok(());
        }
        (Argument::Time, Some(format)) => Token::field(written, directive.name, Kind::Time(time(format)?)),
        (Argument::Name, Some(name)) => {
            let column = match (directive.letters, name.to_ascii_lowercase().as_str()) {
                ("i", "referer" | "referrer") => "referer".to_string(),
                ("i", "user-agent") => "user_agent".to_string(),
                _ => format!("{}{}", directive.name, column_name(name)),
            };
            Token::field(written, column, kind)
        }
        (Argument::Name, None) => {
            let example = format!("%{{name}}{}", directive.letters);
            return Err(bad(format!("\"{written}\" does not say of what")).with_hint(format!("Write \"{example}\".")));
        }
        (Argument::Choice(_) | Argument::None, None) => Token::field(written, directive.name, kind),
        (Argument::Choice(words), Some(word)) => match words.iter().find(|(known, _)| *known == word) {
            Some((word, column)) => {
                let kind = match (directive.letters, *word) {
                    ("T", "ms" | "us") => BIGINT,
                    ("P", "hextid") => Kind::Text,
                    _ => kind,
                };
                Token::field(written, *column, kind)
            }
            None => {
                return Err(crate::options::unknown(
                    "word in the directive",
                    word,
                    words.iter().map(|(known, _)| *known),
                )
                .with_detail(format!("\"{written}\" takes: {}.", list(words.iter().map(|(known, _)| *known)))));
            }
        },
        (Argument::None, Some(_)) => return Err(bad(format!("\"{written}\" takes nothing in braces"))),
    };
    tokens.push(token);
    Ok(())
}

/// `%{…}t`: a pattern of `strftime`, or one of the words that Apache adds to it.
fn time(format: &str) -> Result<Piece> {
    // Whether the beginning or the end of the request is meant does not matter where there is one of them.
    let format = format.strip_prefix("begin:").or_else(|| format.strip_prefix("end:")).unwrap_or(format);
    Ok(match format {
        "" | "%d/%b/%Y:%H:%M:%S %z" => Piece::Clf,
        "sec" => Piece::Epoch(1),
        "msec" => Piece::Epoch(1000),
        "usec" => Piece::Epoch(1_000_000),
        "msec_frac" => Piece::Fraction(1000),
        "usec_frac" => Piece::Fraction(1_000_000),
        format => Piece::Items(pattern_items(format)?),
    })
}

fn unknown(letters: &str) -> Error {
    let Some(letter) = letters.chars().next() else {
        return bad("the pattern ends in the middle of a directive").with_hint("A percent sign of the line is \"%%\".");
    };
    // A slip is mostly one of case.
    let other = if letter.is_lowercase() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
    let near = DIRECTIVES.iter().find(|d| d.letters.chars().eq([other]));
    let near = near.map(|d| format!("; did you mean \"%{}\"?", d.letters)).unwrap_or_default();
    bad(format!("unknown directive \"%{letter}\" in the pattern{near}"))
        .with_detail(format!("There are: %{}.", list(DIRECTIVES.iter().map(|d| d.letters)).replace(", ", ", %")))
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidParameter, message)
}
