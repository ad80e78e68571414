//! What a pattern of an access log is made of.

use arrow::datatypes::DataType;
use chrono::format::Item;

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// Stands in the line as it is.
    Text(Vec<u8>),
    Field(Field),
}

/// A field of a line.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// As the pattern writes it.
    pub written: String,
    /// The column.
    pub name: String,
    pub kind: Kind,
}

/// How a field is written in the line.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Text,
    /// Text that may hold colons before the colon of a port.
    Address,
    /// Text that begins with a slash.
    Path,
    /// What may stand directly behind a path, and belongs to it there.
    Query,
    Number(DataType),
    /// Three digits.
    Status,
    /// `METHOD target PROTOCOL`: three columns.
    Request,
    Time(Piece),
}

/// A part of the time, or all of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// `17/May/2015:10:05:03 +0000`
    Clf,
    /// `2015-05-17T10:05:03+00:00`
    Iso,
    /// A number since 1970 of which so many make a second; with a fraction where they are seconds.
    Epoch(i64),
    /// Fields of `strftime`.
    Items(Vec<Item<'static>>),
    /// What is added to a time in seconds: a number of which so many make a second.
    Fraction(i64),
}

impl Token {
    pub fn field(written: impl Into<String>, name: impl Into<String>, kind: Kind) -> Token {
        Token::Field(Field { written: written.into(), name: name.into(), kind })
    }
}

/// `X-Forwarded-For` → `x_forwarded_for`.
pub fn column_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    lower.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}
