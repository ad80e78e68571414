//! Types that SQL names and Arrow has no type for (see [`crate::format::subtype`]): how SQL says them, by which function a
//! text becomes one, and how clients send them in binary.

use std::borrow::Cow;

use sqlparser::ast::DataType;

use crate::format::subtype::{Address, Subtype, uuid_of};

/// The one that SQL's type name means.
pub fn subtype_of(sql_type: &DataType) -> Option<Subtype> {
    match sql_type {
        DataType::JSON => Some(Subtype::Json),
        DataType::JSONB => Some(Subtype::Jsonb),
        DataType::Uuid => Some(Subtype::Uuid),
        DataType::Custom(name, modifiers) if modifiers.is_empty() => {
            let parts: Vec<&str> = name.0.iter().filter_map(|part| Some(part.as_ident()?.value.as_str())).collect();
            match parts.as_slice() {
                [one] => Subtype::named(one),
                [schema, one] if schema.eq_ignore_ascii_case("pg_catalog") => Subtype::named(one),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The function that reads a text as one: what a cast calls.
pub fn reader(subtype: Subtype) -> &'static str {
    match subtype {
        Subtype::Json => "as_json",
        Subtype::Jsonb => "as_jsonb",
        Subtype::Uuid => "as_uuid",
        Subtype::Inet => "as_inet",
        Subtype::Cidr => "as_cidr",
    }
}

/// The one that this function reads.
pub fn read_by(function: &str) -> Option<Subtype> {
    Subtype::ALL.into_iter().find(|subtype| reader(*subtype) == function)
}

/// The text of a value in PostgreSQL's binary format of the type; `None` where the bytes are none.
pub fn text_of(subtype: Subtype, bytes: &[u8]) -> Option<Cow<'_, str>> {
    match subtype {
        Subtype::Json => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        // A version, which is 1, and the text.
        Subtype::Jsonb => match bytes {
            [1, text @ ..] => std::str::from_utf8(text).ok().map(Cow::Borrowed),
            _ => None,
        },
        Subtype::Uuid => Some(Cow::Owned(uuid_of(bytes.try_into().ok()?))),
        Subtype::Inet => Address::from_bytes(bytes).map(|address| Cow::Owned(address.to_string())),
        Subtype::Cidr => Address::from_bytes(bytes).map(|address| Cow::Owned(address.as_cidr())),
    }
}
