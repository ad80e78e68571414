//! `log_line_prefix` of PostgreSQL, compiled to layouts (PostgreSQL manual, "Error Reporting and Logging").

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::format::layout::{Layout, Part};
use crate::format::typed::Kind;

/// A field of the prefix: its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `2024-06-27 00:00:07.123 CEST`.
    Time(&'static str),
    /// `1719439207.123`.
    Epoch(&'static str),
    /// Text that may be empty.
    Text(&'static str),
    /// An address.
    Host(&'static str),
    /// An address and its port in parentheses, which has a column of its own, or `[local]`.
    Client(&'static str),
    /// Letters and digits, points and slashes: ids.
    Id(&'static str),
    Number(&'static str),
}

/// The client's port, which stands behind its address.
pub const CLIENT_PORT: &str = "client_port";

/// The escapes by letter.
const ESCAPES: &[(u8, Field)] = &[
    (b't', Field::Time("ts")),
    (b'm', Field::Time("ts")),
    (b'n', Field::Epoch("ts")),
    (b's', Field::Time("session_start")),
    (b'p', Field::Number("pid")),
    (b'P', Field::Number("leader_pid")),
    (b'l', Field::Number("session_line")),
    (b'c', Field::Id("session_id")),
    (b'a', Field::Text("application")),
    (b'u', Field::Text("user_name")),
    (b'd', Field::Text("database")),
    (b'r', Field::Client("client")),
    (b'h', Field::Host("client")),
    (b'L', Field::Host("local_address")),
    (b'b', Field::Text("backend_type")),
    (b'i', Field::Text("command_tag")),
    (b'e', Field::Id("sqlstate")),
    (b'v', Field::Id("virtual_transaction_id")),
    (b'x', Field::Number("transaction_id")),
    (b'Q', Field::Number("query_id")),
];

/// The columns that fields of the prefix can have, in their order.
pub const COLUMNS: &[(&str, Kind)] = &[
    ("ts", Kind::Time),
    ("pid", Kind::Int),
    ("leader_pid", Kind::Int),
    ("session_id", Kind::Text),
    ("session_line", Kind::Int),
    ("session_start", Kind::Time),
    ("user_name", Kind::Text),
    ("database", Kind::Text),
    ("application", Kind::Text),
    ("client", Kind::Text),
    (CLIENT_PORT, Kind::Int),
    ("local_address", Kind::Text),
    ("backend_type", Kind::Text),
    ("command_tag", Kind::Text),
    ("virtual_transaction_id", Kind::Text),
    ("transaction_id", Kind::Int),
    ("query_id", Kind::Int),
    ("sqlstate", Kind::Text),
];

impl Field {
    pub fn column(self) -> &'static str {
        match self {
            Field::Time(column)
            | Field::Epoch(column)
            | Field::Text(column)
            | Field::Host(column)
            | Field::Client(column)
            | Field::Id(column)
            | Field::Number(column) => column,
        }
    }
}

/// The layouts that a prefix can have: processes without a session stop at its `%q`.
pub fn compile(prefix: &str) -> Result<Vec<Layout<Field>>> {
    let bad = |detail: String| {
        Error::new(ErrorKind::InvalidParameter, format!("\"{prefix}\" is not a log_line_prefix"))
            .with_detail(detail)
            .with_hint("Give it as it stands in postgresql.conf (SHOW log_line_prefix), such as '%m [%p] '.")
    };
    let mut layout: Layout<Field> = Layout { prefix: Vec::new(), parts: Vec::new() };
    let mut without_session = None;
    let mut rest = prefix.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            push(&mut layout, *first);
            continue;
        }
        // The width: -10, 10.
        let digits = rest.strip_prefix(b"-").unwrap_or(rest);
        let width = digits.iter().take_while(|b| b.is_ascii_digit()).count();
        let min_width = std::str::from_utf8(&digits[..width.min(4)]).ok().and_then(|d| d.parse().ok()).unwrap_or(0);
        let (letter, after) = digits[width..].split_first().ok_or_else(|| bad("It ends with a %.".into()))?;
        rest = after;
        match letter {
            b'%' => push(&mut layout, b'%'),
            b'q' => without_session = Some(layout.clone()),
            letter => {
                let field = ESCAPES.iter().find(|(escape, _)| escape == letter).map(|(_, field)| *field);
                let field = field.ok_or_else(|| bad(format!("The escape %{} is not known.", char::from(*letter))))?;
                // A second time says nothing new; %r and %h are the same client.
                if layout.parts.iter().any(|part| part.field.column() == field.column()) {
                    return Err(bad(format!("The field of column \"{}\" stands in it twice.", field.column())));
                }
                layout.parts.push(Part { field, min_width, then: Vec::new() });
            }
        }
    }
    let open = |part: &&Part<Field>| part.then.is_empty() && !matches!(part.field, Field::Time(_));
    if let Some(part) = layout.parts.iter().find(open) {
        return Err(bad(format!("Nothing separates \"{}\" from what follows it.", part.field.column())));
    }
    Ok([layout].into_iter().chain(without_session).collect())
}

fn push(layout: &mut Layout<Field>, byte: u8) {
    match layout.parts.last_mut() {
        Some(part) => part.then.push(byte),
        None => layout.prefix.push(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let layouts = compile("<%-5p|%m>%% %q%u@%d ").unwrap();
        let shown: Vec<Vec<(&str, usize, String)>> = layouts
            .iter()
            .map(|l| {
                l.parts
                    .iter()
                    .map(|p| (p.field.column(), p.min_width, String::from_utf8(p.then.clone()).unwrap()))
                    .collect()
            })
            .collect();
        let part = |column, width, then: &str| (column, width, then.to_string());
        let session = [part("pid", 5, "|"), part("ts", 0, ">% "), part("user_name", 0, "@"), part("database", 0, " ")];
        assert_eq!(shown, [&session[..], &session[..2]]);
        assert!(layouts.iter().all(|l| l.prefix == b"<"));
        assert!(ESCAPES.iter().all(|(_, field)| COLUMNS.iter().any(|(name, _)| *name == field.column())));
    }

    #[test]
    fn mistakes_are_named() {
        for (prefix, detail) in [
            ("%m [%p] %z ", "The escape %z is not known."),
            ("%m %", "It ends with a %."),
            ("%m %p%u ", "Nothing separates \"pid\" from what follows it."),
            ("%m %t ", "The field of column \"ts\" stands in it twice."),
        ] {
            assert_eq!(compile(prefix).unwrap_err().detail(), Some(detail), "{prefix}");
        }
    }
}
