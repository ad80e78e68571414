//! Conversion patterns of log4j and logback, compiled to layouts (log4j 2 manual, "Pattern Layout"; logback manual,
//! "Layouts").
//!
//!     [%d] %p %m (%c)%n        %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p [%t] %c{1.} - %m%n
//!
//! The message is the one field that may hold anything, line ends too, so a pattern has two layouts: `left` of the message
//! and `right` of it. What only changes how a field looks (`%c{1.}`, `%highlight{…}`, `.30`) says nothing about where it is.

use super::java_time::JavaTime;
use crate::error::{Error, Kind, Result};
use crate::format::layout::{Layout, Part};
use crate::format::timestamp::Zone;
use crate::options;

/// A conversion pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    pub left: Layout<Field>,
    pub has_message: bool,
    pub right: Layout<Field>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// With the zone that the pattern writes them in, if it says one.
    Time(JavaTime, Option<Zone>),
    Level,
    /// The name of a column of text.
    Text(String),
    /// Text without spaces: a class, a file.
    Name(&'static str),
    /// A whole number.
    Number(&'static str),
}

impl Field {
    pub fn column(&self) -> &str {
        match self {
            Field::Time(..) => "ts",
            Field::Level => "level",
            Field::Text(name) => name,
            Field::Name(name) | Field::Number(name) => name,
        }
    }
}

/// The conversion words by what they stand for. `X` (the context) is not among them: its columns are its keys.
const WORDS: &[(&str, &[&str])] = &[
    ("ts", &["d", "date"]),
    ("level", &["p", "level", "le"]),
    ("thread", &["t", "thread", "tn", "threadName"]),
    ("thread_id", &["T", "tid", "threadId"]),
    ("logger", &["c", "logger", "lo"]),
    ("class", &["C", "class"]),
    ("method", &["M", "method"]),
    ("file", &["F", "file"]),
    ("line", &["L", "line"]),
    ("location", &["l", "location", "caller"]),
    ("message", &["m", "msg", "message"]),
    ("pid", &["pid", "processId"]),
    ("sequence", &["sn", "sequenceNumber"]),
    ("elapsed_ms", &["r", "relative"]),
    ("ndc", &["x", "NDC"]),
    ("context", &["X", "mdc", "MDC"]),
    ("marker", &["marker", "markerSimpleName"]),
    ("uuid", &["u", "uuid"]),
    ("context_name", &["cn", "contextName"]),
];

/// Words that write nothing of their own in the message's line, or a line end.
const ENDS: &[&str] = &[
    "n",
    "ex",
    "exception",
    "throwable",
    "xEx",
    "xException",
    "xThrowable",
    "rEx",
    "rException",
    "rThrowable",
    "wEx",
    "wex",
    "nopex",
    "nopexception",
    "e",
];

/// Words around a pattern that only colour it.
const COLOURS: &[&str] = &[
    "highlight",
    "style",
    "clr",
    "black",
    "red",
    "green",
    "yellow",
    "blue",
    "magenta",
    "cyan",
    "white",
    "gray",
    "boldRed",
    "boldGreen",
    "boldYellow",
    "boldBlue",
    "boldMagenta",
    "boldCyan",
    "boldWhite",
];

impl Pattern {
    pub fn compile(text: &str) -> Result<Pattern> {
        let mut compiler = Compiler { text, pieces: Vec::new() };
        let rest = compiler.pattern(text, false)?;
        debug_assert!(rest.is_empty(), "only a group ends before the text does");
        compiler.finish()
    }

    /// A regular expression for the lines that begin as this pattern does.
    pub fn start(&self) -> String {
        let literal = |text: &[u8]| regex::escape(&String::from_utf8_lossy(text));
        let mut start = format!("^{}", literal(&self.left.prefix));
        for part in &self.left.parts {
            start += &match &part.field {
                Field::Time(time, _) => time.expression(),
                Field::Level => " *[A-Za-z]+ *".to_string(),
                Field::Text(_) => ".*?".to_string(),
                Field::Name(_) => r" *\S+? *".to_string(),
                Field::Number(_) => r" *-?\d+ *".to_string(),
            };
            start += &literal(&part.then);
        }
        start
    }

    /// The fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.left.parts.iter().chain(&self.right.parts).map(|part| &part.field)
    }
}

enum Piece {
    Literal(String),
    Field(Field, usize),
    Message,
    /// What comes behind is not in the message's line.
    End,
}

struct Compiler<'a> {
    text: &'a str,
    pieces: Vec<Piece>,
}

impl Compiler<'_> {
    fn bad(&self, detail: String) -> Error {
        Error::new(Kind::InvalidParameter, format!("\"{}\" is not a conversion pattern", self.text))
            .with_detail(detail)
            .with_hint("Write it as in the logger's configuration, such as '%d %-5p [%t] %c - %m%n'.")
    }

    /// Compiles a pattern, or the inside of a group up to its `)`. What follows.
    fn pattern<'t>(&mut self, text: &'t str, in_group: bool) -> Result<&'t str> {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            rest = match first {
                '%' if rest[1..].starts_with('%') => {
                    self.literal("%");
                    &rest[2..]
                }
                '%' => self.conversion(&rest[1..])?,
                ')' if in_group => return Ok(&rest[1..]),
                '\\' => self.escape(&rest[1..]),
                other => {
                    self.literal(&rest[..other.len_utf8()]);
                    &rest[other.len_utf8()..]
                }
            };
        }
        if in_group { Err(self.bad("A parenthesis is not closed.".into())) } else { Ok(rest) }
    }

    fn literal(&mut self, text: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Literal(literal)) => literal.push_str(text),
            _ => self.pieces.push(Piece::Literal(text.to_string())),
        }
    }

    /// `\(`, `\t`, `\n`.
    fn escape<'t>(&mut self, rest: &'t str) -> &'t str {
        let Some(escaped) = rest.chars().next() else {
            self.literal("\\");
            return rest;
        };
        let rest = &rest[escaped.len_utf8()..];
        match escaped {
            't' => self.literal("\t"),
            'n' | 'r' => self.pieces.push(Piece::End),
            other => self.literal(other.encode_utf8(&mut [0; 4])),
        }
        rest
    }

    /// What stands behind a `%`: `-5.10word{option}`. What follows.
    fn conversion<'t>(&mut self, text: &'t str) -> Result<&'t str> {
        let rest = text.strip_prefix('-').unwrap_or(text);
        let (min_width, rest) = digits(rest);
        let rest = match rest.strip_prefix('.') {
            Some(most) => digits(most.strip_prefix('-').unwrap_or(most)).1,
            None => rest,
        };
        if let Some(inside) = rest.strip_prefix('(') {
            if min_width > 0 {
                return Err(self.bad("A group of a fixed width is not understood.".into()));
            }
            return self.pattern(inside, true);
        }
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let word = known_word(&rest[..letters]).map_err(|near| {
            let near = near.map(|near| format!(" Did you mean \"%{near}\"?")).unwrap_or_default();
            self.bad(format!("The conversion word \"%{}\" is not known.{near}", &rest[..letters]))
        })?;
        let mut rest = &rest[word.len()..];
        if COLOURS.contains(&word) {
            if let Some(inside) = rest.strip_prefix('(') {
                rest = self.pattern(inside, true)?;
            } else if let (Some(inside), after) = braces(rest) {
                self.pattern(inside, false)?;
                rest = after;
            }
            return Ok(skip_braces(rest));
        }
        let (option, after) = braces(rest);
        rest = skip_braces(after);
        if ENDS.contains(&word) {
            self.pieces.push(Piece::End);
            return Ok(rest);
        }
        let column = WORDS.iter().find(|(_, words)| words.contains(&word)).map_or("", |(column, _)| column);
        let field = match column {
            "message" => {
                self.pieces.push(Piece::Message);
                return Ok(rest);
            }
            "ts" => {
                let zone = braces(after).0.map(java_zone).transpose()?;
                Field::Time(JavaTime::from_pattern(option.unwrap_or_default())?, zone)
            }
            "level" => Field::Level,
            "logger" | "class" | "method" | "file" | "uuid" => Field::Name(column),
            "line" | "pid" | "sequence" | "elapsed_ms" | "thread_id" => Field::Number(column),
            "context" => Field::Text(context_column(option)),
            text => Field::Text(text.to_string()),
        };
        self.pieces.push(Piece::Field(field, min_width));
        Ok(rest)
    }

    /// The pieces as layouts: what stands behind the first line end is in other lines.
    fn finish(self) -> Result<Pattern> {
        let layout = || Layout { prefix: Vec::new(), parts: Vec::new() };
        let mut pattern = Pattern { left: layout(), has_message: false, right: layout() };
        let mut seen: Vec<String> = Vec::new();
        let mut ended = false;
        for piece in &self.pieces {
            let side = if pattern.has_message { &mut pattern.right } else { &mut pattern.left };
            match piece {
                Piece::End => ended = true,
                Piece::Literal(text) if ended && text.trim().is_empty() => {}
                _ if ended => return Err(self.bad("It goes on behind the end of the line.".into())),
                Piece::Literal(text) => match side.parts.last_mut() {
                    Some(part) => part.then.extend(text.bytes()),
                    None => side.prefix.extend(text.bytes()),
                },
                Piece::Message if pattern.has_message => return Err(self.bad("The message stands in it twice.".into())),
                Piece::Message => pattern.has_message = true,
                Piece::Field(field, min_width) => {
                    let name = field.column();
                    if seen.iter().any(|other| other == name) {
                        return Err(self.bad(format!("The field of column \"{name}\" stands in it twice.")));
                    }
                    seen.push(name.to_string());
                    side.parts.push(Part { field: field.clone(), min_width: *min_width, then: Vec::new() });
                }
            }
        }
        if seen.is_empty() && !pattern.has_message {
            return Err(self.bad("It has no conversion words.".into()));
        }
        // A field ends where text stands behind it.
        let message_open = pattern.has_message && !pattern.right.parts.is_empty() && pattern.right.prefix.is_empty();
        let open = |part: &Part<Field>| part.then.is_empty() && !matches!(part.field, Field::Time(..));
        let (left, right) = (&pattern.left.parts, &pattern.right.parts);
        let inner = |parts: &[Part<Field>]| parts.len().saturating_sub(1);
        let open_left = if pattern.has_message { left.len() } else { inner(left) };
        let bare = left[..open_left].iter().chain(&right[..inner(right)]).find(|part| open(part));
        match bare {
            Some(part) => Err(self.bad(format!("Nothing separates \"{}\" from what follows it.", part.field.column()))),
            None if message_open => Err(self.bad("Nothing separates the message from what follows it.".into())),
            None => Ok(pattern),
        }
    }
}

/// The longest conversion word that `letters` start with: `mfoo` is `m` and `foo`. Not for what is likely a slip: then the
/// word that may be meant.
fn known_word(letters: &str) -> Result<&'static str, Option<&'static str>> {
    let words = || WORDS.iter().flat_map(|(_, words)| *words).chain(ENDS).chain(COLOURS).copied();
    let longest = words().filter(|word| letters.starts_with(word)).max_by_key(|word| word.len());
    match (longest, options::nearest(letters, words().filter(|word| word.len() > 2))) {
        (Some(word), _) if word == letters => Ok(word),
        (Some(word), None) => Ok(word),
        (_, near) => Err(near),
    }
}

/// A zone as Java names it: `UTC`, `Europe/Berlin`, `GMT+5`.
fn java_zone(name: &str) -> Result<Zone> {
    match name.strip_prefix("GMT").unwrap_or_default().as_bytes() {
        [] => Zone::from_option(name),
        [sign, hour] if hour.is_ascii_digit() => {
            Zone::from_option(&format!("{}0{}", char::from(*sign), char::from(*hour)))
        }
        _ => Zone::from_option(&name[3..]),
    }
}

/// The column of `%X{key}`; of all keys without one.
fn context_column(option: Option<&str>) -> String {
    let key = option.unwrap_or_default();
    // A default value may follow: %X{user:-nobody}.
    let key = key.split(":-").next().unwrap_or_default();
    let name: String = key.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let taken = WORDS.iter().any(|(column, _)| *column == name) || name == super::STACK_TRACE;
    match name.as_str() {
        "" => "context".to_string(),
        _ if taken || key.contains(',') => format!("context_{name}"),
        _ => name,
    }
}

fn digits(text: &str) -> (usize, &str) {
    let len = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    // What is wider than a line is as wide as a line.
    (text[..len.min(4)].parse().unwrap_or(0), &text[len..])
}

/// The inside of the braces that `text` starts with, and what follows them.
fn braces(text: &str) -> (Option<&str>, &str) {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return (Some(&text[1..i]), &text[i + 1..]),
            '}' => depth -= 1,
            _ if depth == 0 => break,
            _ => {}
        }
    }
    (None, text)
}

/// Behind all braces: `%d{pattern}{zone}`.
fn skip_braces(mut text: &str) -> &str {
    while let (Some(_), rest) = braces(text) {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `left | right`, a field as its column in angle brackets.
    fn shown(pattern: &str) -> String {
        let pattern = Pattern::compile(pattern).unwrap();
        let side = |layout: &Layout<Field>| {
            let part = |part: &Part<Field>| format!("<{}>{}", part.field.column(), String::from_utf8_lossy(&part.then));
            String::from_utf8_lossy(&layout.prefix).into_owned() + &layout.parts.iter().map(part).collect::<String>()
        };
        let right = if pattern.has_message { format!("|{}", side(&pattern.right)) } else { String::new() };
        side(&pattern.left) + &right
    }

    #[test]
    fn patterns() {
        for (pattern, expected) in [
            ("[%d] %p %m (%c)%n", "[<ts>] <level> | (<logger>)"),
            ("%d{yyyy-MM-dd HH:mm:ss,SSS}{UTC} %-5p [%t] %c{1.} - %m%n%ex", "<ts> <level> [<thread>] <logger> - |"),
            (
                "%date %highlight(%-5level) [%thread] %cyan(%logger{15}) - %msg%n%xEx",
                "<ts> <level> [<thread>] <logger> - |",
            ),
            ("%clr(%d{yyyy-MM-dd HH:mm:ss.SSS}){faint} %clr(%5p) %msg", "<ts> <level> |"),
            ("%highlight{%d [%t]}{FATAL=red} %.-10p: %m%n", "<ts> [<thread>] <level>: |"),
            ("%X{user.id} %X{thread} %X %X{a:-b} %m", "<user_id> <context_thread> <context> <a> |"),
            ("%d %%%p\\(x\\)\\t%m\\n", "<ts> %<level>(x)\t|"),
            ("%d %c", "<ts> <logger>"),
        ] {
            assert_eq!(shown(pattern), expected, "{pattern}");
        }
        assert_eq!(Pattern::compile("%-5p %m").unwrap().left.parts[0].min_width, 5);
    }

    #[test]
    fn lines_that_begin_like_the_pattern() {
        for (pattern, line, other) in [
            ("[%d] %p %m (%c)%n", "[2016-12-20 00:00:36,888] INFO values:", "[x] INFO y (z)"),
            ("%-5p|%t|%d{dd MMM yyyy h:mm a zzz} %m", "WARN |a b|20 Dec 2016 1:00 PM CET x", "WARN |a b|20.12.2016 x"),
            ("%r %pid %c{1} - %m%n", "17 4 a.B - x", "x 4 a.B - x"),
            ("%d{UNIX}.%m", "1482192036.x", "at 1482192036.x"),
        ] {
            let start = regex::Regex::new(&Pattern::compile(pattern).unwrap().start()).unwrap();
            assert!(start.is_match(line) && !start.is_match(other), "{pattern}: {start}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (pattern, detail) in [
            ("%q %m", "The conversion word \"%q\" is not known."),
            ("%levle %m", "The conversion word \"%levle\" is not known. Did you mean \"%level\"?"),
            ("%d %p%m", "Nothing separates \"level\" from what follows it."),
            ("%m%p", "Nothing separates the message from what follows it."),
            ("%d %m %m", "The message stands in it twice."),
            ("%d %d %m", "The field of column \"ts\" stands in it twice."),
            ("%d%n%m", "It goes on behind the end of the line."),
            ("%clr(%d %m", "A parenthesis is not closed."),
            ("%-30(%d) %m", "A group of a fixed width is not understood."),
            ("hello", "It has no conversion words."),
        ] {
            let err = Pattern::compile(pattern).unwrap_err();
            assert_eq!(err.detail(), Some(detail), "{pattern}");
        }
    }
}
