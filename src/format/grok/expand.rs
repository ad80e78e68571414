//! `%{NAME:field:type}` to a regular expression with named groups.
//!
//! A pattern refers to others by name, which are replaced until none is left. Every field becomes a group called `f0`, `f1`,
//! …, since names of fields (`[http][request][method]`) are no names of groups; groups that a pattern names itself become
//! fields too. A field may come several times, as in alternatives.

use std::collections::HashMap;
use std::sync::LazyLock;

use arrow::datatypes::DataType;

use crate::error::{Error, Kind, Result};
use crate::options;

/// The names that grok users know: those of Logstash before it followed the Elastic Common Schema.
static BUILT_IN: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| grok::patterns().iter().copied().collect());

/// Patterns refer to each other this deep: a chain of 8 is the longest of the built-in ones.
const MAX_DEPTH: usize = 50;

/// Longest regular expression that a pattern may become. The longest of the built-in ones is 36 KB.
const MAX_BYTES: usize = 1 << 20;

/// Named patterns: a user's own, and the built-in ones behind them.
#[derive(Debug, Default)]
pub struct Library<'a> {
    own: HashMap<&'a str, &'a str>,
}

/// A pattern without references.
#[derive(Debug, Default, PartialEq)]
pub struct Expanded {
    pub regex: String,
    /// The field of each group, in the order of the groups.
    pub groups: Vec<usize>,
    pub fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// As a column is called.
    pub name: String,
    /// What the pattern says; text when nothing.
    pub data_type: Option<DataType>,
}

impl<'a> Library<'a> {
    /// Reads definitions: `NAME regex`, one a line; empty lines and those that begin with `#` say nothing. The last of a
    /// name holds.
    pub fn read(definitions: &'a str) -> Result<Library<'a>> {
        let mut library = Library::default();
        for line in definitions.lines() {
            let line = line.trim_end_matches('\r');
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, regex) = line.split_once(char::is_whitespace).ok_or_else(|| {
                Error::new(Kind::InvalidParameter, format!("the definition \"{line}\" has no pattern"))
                    .with_hint("Write a name, a space and a pattern in each line, such as 'PORT \\d{1,5}'.")
            })?;
            if !is_name(name) {
                return Err(Error::new(Kind::InvalidParameter, format!("\"{name}\" cannot be the name of a pattern"))
                    .with_hint("Names are of letters, digits, '_' and '-'."));
            }
            library.own.insert(name, regex.trim_start());
        }
        Ok(library)
    }

    /// The user's own names.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.own.keys().copied()
    }

    fn find(&self, name: &str) -> Option<&'a str> {
        self.own.get(name).or_else(|| BUILT_IN.get(name)).copied()
    }

    pub fn expand(&self, pattern: &str) -> Result<Expanded> {
        let mut expansion = Expansion { library: self, stack: Vec::new(), found: Expanded::default() };
        expansion.add(pattern)?;
        Ok(expansion.found)
    }

    /// The definitions of the user's own that `pattern` needs, one a line, in the order of their names.
    pub fn needed(&self, pattern: &str) -> String {
        let mut needed: Vec<&str> = Vec::new();
        let mut open = vec![pattern];
        while let Some(pattern) = open.pop() {
            for name in references(pattern).map(|(_, reference)| reference.name) {
                // Through a built-in pattern too, which may refer to one that the user has defined anew.
                let known = self.own.get_key_value(name).or_else(|| BUILT_IN.get_key_value(name));
                if let Some((&name, &regex)) = known.filter(|(name, _)| !needed.contains(name)) {
                    needed.push(name);
                    open.push(regex);
                }
            }
        }
        needed.sort_unstable();
        let own = needed.into_iter().filter_map(|name| Some(format!("{name} {}", self.own.get(name)?)));
        own.collect::<Vec<_>>().join("\n")
    }
}

struct Expansion<'a> {
    library: &'a Library<'a>,
    /// The names that are being replaced.
    stack: Vec<String>,
    found: Expanded,
}

impl Expansion<'_> {
    fn add(&mut self, pattern: &str) -> Result<()> {
        let mut rest = pattern;
        while let Some((at, reference)) = references(rest).next() {
            self.literal(&rest[..at]);
            rest = &rest[at + reference.len..];
            self.reference(&reference)?;
        }
        self.literal(rest);
        if self.found.regex.len() > MAX_BYTES {
            return Err(Error::new(Kind::InvalidParameter, "the pattern is too long when all names are replaced")
                .with_detail(format!("At most {MAX_BYTES} bytes are taken.")));
        }
        Ok(())
    }

    fn reference(&mut self, reference: &Reference<'_>) -> Result<()> {
        let name = reference.name;
        let definition = reference.definition.or_else(|| self.library.find(name)).ok_or_else(|| {
            let known = self.library.names().chain(BUILT_IN.keys().map(|name| *name as &str));
            let err = options::unknown("pattern", name, known);
            match self.stack.last() {
                Some(user) => err.with_detail(format!("It is used by the pattern {user}.")),
                None => err.with_hint(
                    "Define it with the option patterns, or name the directory of its file with patterns_dir.",
                ),
            }
        })?;
        if self.stack.iter().any(|other| other == name) && reference.definition.is_none() {
            return Err(Error::new(Kind::InvalidParameter, format!("the pattern {name} is defined by itself"))
                .with_detail(format!("By way of: {}.", options::list(self.stack.iter().map(String::as_str)))));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(Error::new(Kind::InvalidParameter, format!("the pattern {name} is nested too deeply")));
        }
        match reference.field {
            Some(field) => self.group(field, type_of(reference.type_name)?),
            None => self.found.regex.push_str("(?:"),
        }
        self.stack.push(name.to_string());
        self.add(definition)?;
        self.stack.pop();
        self.found.regex.push(')');
        Ok(())
    }

    /// Opens the group of a field.
    fn group(&mut self, field: &str, data_type: Option<DataType>) {
        let name = column_name(field);
        let index = self.found.fields.iter().position(|f| f.name == name).unwrap_or_else(|| {
            self.found.fields.push(Field { name, data_type: None });
            self.found.fields.len() - 1
        });
        let field = &mut self.found.fields[index];
        field.data_type = field.data_type.take().or(data_type);
        self.found.regex.push_str(&format!("(?<f{}>", self.found.groups.len()));
        self.found.groups.push(index);
    }

    /// Adds a piece of a regular expression; the groups that it names are fields.
    fn literal(&mut self, text: &str) {
        let mut rest = text;
        loop {
            // A backslash and what follows it begin no group.
            let at = rest.char_indices().scan(false, |escaped, (i, c)| {
                let found = !*escaped && c == '(';
                *escaped = !*escaped && c == '\\';
                Some((i, found))
            });
            let groups = at.filter(|(_, found)| *found).filter_map(|(i, _)| Some((i, named_group(&rest[i..])?)));
            let Some((i, (name, len))) = groups.into_iter().next() else { break };
            self.found.regex.push_str(&rest[..i]);
            self.group(name, None);
            rest = &rest[i + len..];
        }
        self.found.regex.push_str(rest);
    }
}

/// `%{NAME:field:type=definition}` in a pattern.
#[derive(Debug, PartialEq)]
struct Reference<'a> {
    len: usize,
    name: &'a str,
    field: Option<&'a str>,
    type_name: Option<&'a str>,
    definition: Option<&'a str>,
}

/// The references of a pattern and where they are. What only looks like one is text.
fn references(pattern: &str) -> impl Iterator<Item = (usize, Reference<'_>)> {
    pattern.match_indices("%{").filter_map(|(at, _)| {
        let inside = &pattern[at + 2..];
        let close = inside.find('}')?;
        let (head, definition) = match inside[..close].split_once('=') {
            // A definition may hold braces: it ends where they are closed.
            Some((head, _)) => {
                let end = closing_brace(&inside[head.len()..])? + head.len();
                return reference(head, Some(&inside[head.len() + 1..end]), end + 3).map(|found| (at, found));
            }
            None => (&inside[..close], None),
        };
        reference(head, definition, close + 3).map(|found| (at, found))
    })
}

fn reference<'a>(head: &'a str, definition: Option<&'a str>, len: usize) -> Option<Reference<'a>> {
    let mut parts = head.splitn(3, ':');
    let name = parts.next().filter(|name| is_name(name))?;
    let field = parts.next().filter(|field| !field.is_empty());
    Some(Reference { len, name, field, type_name: parts.next(), definition })
}

/// Where the brace is that closes one opened before `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(i),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// `(?<name>` or `(?P<name>`: the name, and the length of all that.
fn named_group(text: &str) -> Option<(&str, usize)> {
    let rest = text.strip_prefix("(?<").or_else(|| text.strip_prefix("(?P<"))?;
    let end = rest.find('>')?;
    // Not what looks behind: `(?<=`, `(?<!`.
    let name = &rest[..end];
    let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '@' || c == '[');
    is_name.then_some((name, text.len() - rest.len() + end + 1))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The column of a field: `[http][request][method]` and `http.request.method` are `http_request_method`, `@timestamp` is
/// `timestamp`.
fn column_name(field: &str) -> String {
    let words = field.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let name = words.collect::<Vec<_>>().join("_");
    if name.is_empty() { "field".to_string() } else { name }
}

fn type_of(name: Option<&str>) -> Result<Option<DataType>> {
    const TYPES: &[(&str, DataType)] = &[
        ("int", DataType::Int64),
        ("long", DataType::Int64),
        ("integer", DataType::Int64),
        ("float", DataType::Float64),
        ("double", DataType::Float64),
        ("boolean", DataType::Boolean),
        ("bool", DataType::Boolean),
        ("string", DataType::Utf8View),
        ("text", DataType::Utf8View),
    ];
    let Some(name) = name else { return Ok(None) };
    let found = TYPES.iter().find(|(known, _)| *known == name).map(|(_, data_type)| data_type.clone());
    found.map(Some).ok_or_else(|| {
        options::unknown("type of a grok field:", name, TYPES.iter().map(|(known, _)| *known))
            .with_hint("Grok knows int and float; option types gives a column any other type.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(definitions: &str, pattern: &str) -> Result<Expanded> {
        Library::read(definitions)?.expand(pattern)
    }

    fn fields(expanded: &Expanded) -> Vec<&str> {
        expanded.groups.iter().map(|field| expanded.fields[*field].name.as_str()).collect()
    }

    #[test]
    fn references_become_groups() {
        let definitions = "# mine\nA a+\r\n\nB  %{A}-%{A:x}|(?<y.z>\\(?<n>)(?<!c)\n";
        let found = expand(definitions, "%{B:[p][q]:int} 100%{ %{A:x:float} (?<=[%{A}])").unwrap();
        assert_eq!(found.regex, "(?<f0>(?:a+)-(?<f1>a+)|(?<f2>\\(?<n>)(?<!c)) 100%{ (?<f3>a+) (?<=[(?:a+)])");
        assert_eq!(fields(&found), ["p_q", "x", "y_z", "x"]);
        let types: Vec<_> = found.fields.iter().map(|f| f.data_type.clone()).collect();
        assert_eq!(types, [Some(DataType::Int64), Some(DataType::Float64), None]);
        let inline = expand("", "%{PORT:port:int=\\d{1,5}}:%{INT:n}").unwrap();
        assert_eq!(inline.regex, "(?<f0>\\d{1,5}):(?<f1>(?:[+-]?(?:[0-9]+)))");
    }

    #[test]
    fn columns_of_fields() {
        for (field, column) in [
            ("[source][address]", "source_address"),
            ("@timestamp", "timestamp"),
            ("http.request.method", "http_request_method"),
            ("[code]?", "code"),
            ("a-b", "a_b"),
            ("@", "field"),
        ] {
            assert_eq!(column_name(field), column);
        }
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        let library = Library::read("USER [a-z]+\nX %{USERNAME}\nY %{X} %{Z}\nZ z\nOTHER o").unwrap();
        assert_eq!(library.needed("%{Y:y}"), "X %{USERNAME}\nY %{X} %{Z}\nZ z");
        assert_eq!(library.needed("%{HTTPDUSER}"), "USER [a-z]+", "which a built-in one refers to");
        assert_eq!(library.needed("%{INT}"), "");
    }

    #[test]
    fn mistakes_are_named() {
        let err = |definitions: &str, pattern: &str| expand(definitions, pattern).unwrap_err();
        assert_eq!(err("", "%{NUMBR:n}").message(), "unknown pattern \"NUMBR\"; did you mean \"NUMBER\"?");
        assert_eq!(err("A %{NOPE}", "%{A}").detail(), Some("It is used by the pattern A."));
        assert_eq!(err("A %{B}\nB %{A}", "%{A}").message(), "the pattern A is defined by itself");
        assert!(err("", "%{INT:n:number}").message().starts_with("unknown type of a grok field: \"number\""));
        assert_eq!(err("LONELY", "%{INT}").message(), "the definition \"LONELY\" has no pattern");
        assert_eq!(err("A:B x", "%{INT}").message(), "\"A:B\" cannot be the name of a pattern");
        let bomb: String = (0..40).map(|i| format!("B{i} %{{B{0}}}%{{B{0}}}\n", i + 1)).collect::<String>() + "B40 x";
        assert!(expand(&bomb, "%{B30}").is_ok());
        assert!(err(&bomb, "%{B0}").message().contains("too long"));
    }
}
