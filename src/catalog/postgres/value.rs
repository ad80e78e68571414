//! What is a value in a row of `pg_catalog`? Untyped by itself: the type stands beside it, as the object id that PostgreSQL
//! gives the type (`pg_type.dat`), and decides how the value is read and written as text.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::time::Micros;

/// Object ids of types.
pub mod types {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const CHAR: u32 = 18;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT2VECTOR: u32 = 22;
    pub const INT4: u32 = 23;
    pub const REGPROC: u32 = 24;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const XID: u32 = 28;
    pub const OIDVECTOR: u32 = 30;
    pub const JSON: u32 = 114;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const UNKNOWN: u32 = 705;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const NUMERIC: u32 = 1700;
    pub const ACLITEM: u32 = 1033;
    pub const ANYARRAY: u32 = 2277;
    pub const REGPROCEDURE: u32 = 2202;
    pub const REGOPER: u32 = 2203;
    pub const REGOPERATOR: u32 = 2204;
    pub const REGCLASS: u32 = 2205;
    pub const REGTYPE: u32 = 2206;
    pub const REGROLE: u32 = 4096;
    pub const REGNAMESPACE: u32 = 4089;
    pub const REGCOLLATION: u32 = 4191;
    pub const RECORD: u32 = 2249;
    pub const VOID: u32 = 2278;
    pub const INET: u32 = 869;
    pub const INTERVAL: u32 = 1186;

    /// Whole numbers, and object ids under any of their names.
    pub fn is_integer(of: u32) -> bool {
        matches!(of, INT2 | INT4 | INT8) || is_oid(of)
    }

    /// Object ids under any of their names.
    pub fn is_oid(of: u32) -> bool {
        of == OID || is_named_oid(of)
    }

    /// Object ids that are written as names.
    pub fn is_named_oid(of: u32) -> bool {
        matches!(
            of,
            REGPROC | REGPROCEDURE | REGOPER | REGOPERATOR | REGCLASS | REGTYPE | REGROLE | REGNAMESPACE | REGCOLLATION
        )
    }

    pub fn is_text(of: u32) -> bool {
        matches!(of, TEXT | NAME | VARCHAR | BPCHAR | CHAR | UNKNOWN)
    }

    pub fn is_float(of: u32) -> bool {
        matches!(of, FLOAT4 | FLOAT8 | NUMERIC)
    }
}

/// A value. Texts and what is only shown (numbers of a kind that is not computed with) are texts.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Time(Micros),
    List(Arc<Vec<Value>>),
    Row(Arc<Vec<Value>>),
}

/// One row.
pub type Row = Vec<Value>;

impl Value {
    pub fn text(text: impl AsRef<str>) -> Value {
        Value::Text(Arc::from(text.as_ref()))
    }

    pub fn list(values: Vec<Value>) -> Value {
        Value::List(Arc::new(values))
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    pub fn is_true(&self) -> bool {
        matches!(self, Value::Bool(true))
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Float(number) => Some(*number as i64),
            Value::Bool(is) => Some(i64::from(*is)),
            Value::Text(text) => text.trim().parse().ok(),
            Value::Null | Value::Time(_) | Value::List(_) | Value::Row(_) => None,
        }
    }

    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Int(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::Text(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Time(_) | Value::List(_) | Value::Row(_) => None,
        }
    }

    /// The text of a value that is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(values) | Value::Row(values) => Some(values),
            _ => None,
        }
    }

    /// Which comes first. NULL is not compared here: it is put last, as ORDER BY does.
    pub fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Greater,
            (_, Value::Null) => Ordering::Less,
            (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Time(a), Value::Time(b)) => a.cmp(b),
            (Value::List(a) | Value::Row(a), Value::List(b) | Value::Row(b)) => {
                let pairs = a.iter().zip(b.iter()).map(|(a, b)| a.order(b));
                pairs.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
            }
            (a, b) => match (a.as_float(), b.as_float()) {
                (Some(a), Some(b)) => a.total_cmp(&b),
                _ => a.rank().cmp(&b.rank()),
            },
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Value::Bool(_) => 0,
            Value::Int(_) | Value::Float(_) => 1,
            Value::Text(_) => 2,
            Value::Time(_) => 3,
            Value::List(_) => 4,
            Value::Row(_) => 5,
            Value::Null => 6,
        }
    }
}

/// NULL equals NULL here: for groups and sets. What `=` says is decided where it is computed.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.order(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Value::Null => 0.hash(state),
            Value::Bool(is) => is.hash(state),
            Value::Int(number) => (*number as f64).to_bits().hash(state),
            Value::Float(number) => number.to_bits().hash(state),
            Value::Text(text) => text.hash(state),
            Value::Time(micros) => micros.hash(state),
            Value::List(values) | Value::Row(values) => values.iter().for_each(|value| value.hash(state)),
        }
    }
}

/// Reads the text form of an array, such as `{a,"b c",NULL}`, into the texts of its elements.
pub fn elements(text: &str) -> Result<Vec<Option<String>>> {
    let wrong = || Error::new(Kind::InvalidText, format!("malformed array literal: \"{text}\""));
    let inner = text.trim();
    // Bounds may stand before it: `[0:1]={…}`.
    let inner = inner.find('{').map(|at| &inner[at..]).ok_or_else(wrong)?;
    let inner = inner.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(wrong)?;
    let (mut found, mut chars) = (Vec::new(), inner.chars().peekable());
    if inner.trim().is_empty() {
        return Ok(found);
    }
    loop {
        let (mut element, mut quoted) = (String::new(), false);
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next_if_eq(&'"').is_some() {
            quoted = true;
            loop {
                match chars.next().ok_or_else(wrong)? {
                    '"' => break,
                    '\\' => element.push(chars.next().ok_or_else(wrong)?),
                    c => element.push(c),
                }
            }
        }
        while let Some(c) = chars.next_if(|c| *c != ',') {
            match c {
                '\\' => element.push(chars.next().ok_or_else(wrong)?),
                c => element.push(c),
            }
        }
        let element = if quoted { element } else { element.trim().to_string() };
        found.push((quoted || !element.eq_ignore_ascii_case("null")).then_some(element));
        if chars.next().is_none() {
            return Ok(found);
        }
    }
}

/// An element as it stands in the text form of an array or a record.
pub fn quoted_element(text: &str, in_record: bool) -> String {
    let special = |c: char| match in_record {
        true => c.is_whitespace() || "(),\"\\".contains(c),
        false => c.is_whitespace() || "{},\"\\".contains(c),
    };
    let plain = !text.is_empty() && !text.contains(special) && (in_record || !text.eq_ignore_ascii_case("null"));
    if plain {
        return text.to_string();
    }
    match in_record {
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\"")),
        false => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read_as_postgres_reads_them() {
        let read = |text: &str| elements(text).unwrap();
        let some = |texts: &[&str]| texts.iter().map(|text| Some(text.to_string())).collect::<Vec<_>>();
        assert_eq!(read("{}"), some(&[]));
        assert_eq!(read("{r, l,e}"), some(&["r", "l", "e"]));
        assert_eq!(read(r#"{"a,b","c\"d",e\,f}"#), some(&["a,b", "c\"d", "e,f"]));
        assert_eq!(read("{NULL,\"NULL\"}"), vec![None, Some("NULL".to_string())]);
        for text in ["", "a", "{a", "{\"a}"] {
            assert!(elements(text).is_err(), "{text}");
        }
    }

    #[test]
    fn elements_are_quoted_where_they_have_to_be() {
        for (text, array, record) in
            [("a", "a", "a"), ("", "\"\"", "\"\""), ("a b", "\"a b\"", "\"a b\""), ("a\"b", "\"a\\\"b\"", "\"a\"\"b\"")]
        {
            assert_eq!((quoted_element(text, false), quoted_element(text, true)), (array.into(), record.into()));
        }
    }
}
