//! PostgreSQL's functions and operators for `json` and `jsonb` beside those that look one member up (see [`super::json`]):
//! what contains what, what is put together, taken apart and changed (PostgreSQL manual, JSON Functions and Operators).
//!
//! A value is parsed when a function looks into it. Functions take texts too, as literals are; a text that is no JSON is an
//! error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, Int32Array, ListBuilder, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use bytes::BytesMut;
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Type, texts, unchecked};
use crate::batch::text;
use crate::error::{Error, Kind, Result};
use crate::format::jsonb::{Json, parse, position, quote};
use crate::format::subtype::Subtype;

macro_rules! scalar {
    ($name:literal, $syntax:literal, $summary:literal, $sample:expr, $forms:expr, $result:expr, $rows:expr) => {
        Scalar {
            name: $name,
            syntax: $syntax,
            summary: $summary,
            sample: $sample,
            forms: $forms,
            result: $result,
            check: unchecked,
            rows: $rows,
        }
    };
}

const JSON: Type = Type::Of(Subtype::Json);
const JSONB: Type = Type::Of(Subtype::Jsonb);

pub static SPECS: &[Scalar] = &[
    scalar!(
        "to_json",
        "to_json(value)",
        "a value as JSON",
        ("to_json('a \"b\"'::text)", "\"a \\\"b\\\"\""),
        &[&[Type::Any]],
        JSON,
        |a| built(a, &COMPACT)
    ),
    scalar!(
        "to_jsonb",
        "to_jsonb(value)",
        "a value as JSON in its one spelling",
        ("to_jsonb(ARRAY[1, 2])", "[1, 2]"),
        &[&[Type::Any]],
        JSONB,
        |a| built(a, &SPELLED)
    ),
    scalar!(
        "array_to_json",
        "array_to_json(array)",
        "an array as JSON",
        ("array_to_json(ARRAY[1, 2])", "[1,2]"),
        &[&[Type::Any]],
        JSON,
        |a| built(a, &COMPACT)
    ),
    scalar!(
        "row_to_json",
        "row_to_json(row)",
        "a row as a JSON object",
        ("row_to_json(ROW(1, 'x'))", "{\"f1\":1,\"f2\":\"x\"}"),
        &[&[Type::Any]],
        JSON,
        |a| built(a, &COMPACT)
    ),
    scalar!(
        "json_build_array",
        "json_build_array(value, …)",
        "a JSON array of values",
        ("json_build_array(1, 'x', NULL)", "[1, \"x\", null]"),
        &[&[Type::Anys]],
        JSON,
        |a| array_of(a, &BUILT)
    ),
    scalar!(
        "jsonb_build_array",
        "jsonb_build_array(value, …)",
        "a JSON array of values, in its one spelling",
        ("jsonb_build_array(1, 'x', NULL)", "[1, \"x\", null]"),
        &[&[Type::Anys]],
        JSONB,
        |a| array_of(a, &SPELLED)
    ),
    scalar!(
        "json_build_object",
        "json_build_object(key, value, …)",
        "a JSON object of keys and values",
        ("json_build_object('a', 1, 'b', 'x')", "{\"a\" : 1, \"b\" : \"x\"}"),
        &[&[Type::Anys]],
        JSON,
        |a| object_of(a, &BUILT)
    ),
    scalar!(
        "jsonb_build_object",
        "jsonb_build_object(key, value, …)",
        "a JSON object of keys and values, in its one spelling",
        ("jsonb_build_object('a', 1, 'b', 'x')", "{\"a\": 1, \"b\": \"x\"}"),
        &[&[Type::Anys]],
        JSONB,
        |a| object_of(a, &SPELLED)
    ),
    scalar!(
        "json_agg_of",
        "json_agg_of(array)",
        "what json_agg(x) calls with array_agg(x)",
        ("json_agg_of(ARRAY[1, 2])", "[1, 2]"),
        &[&[Type::Any]],
        JSON,
        |a| built(a, &BUILT)
    ),
    scalar!(
        "jsonb_object_of",
        "jsonb_object_of(keys, values)",
        "what jsonb_object_agg(k, v) calls with an array of each",
        ("jsonb_object_of(ARRAY['a'], ARRAY[1])", "{\"a\": 1}"),
        &[&[Type::Texts, Type::Any]],
        JSONB,
        |a| object_of_arrays(a, &SPELLED)
    ),
    scalar!(
        "json_object_of",
        "json_object_of(keys, values)",
        "what json_object_agg(k, v) calls with an array of each",
        ("json_object_of(ARRAY['a'], ARRAY[1])", "{ \"a\" : 1 }"),
        &[&[Type::Texts, Type::Any]],
        JSON,
        |a| object_of_arrays(a, &AGGREGATED)
    ),
    scalar!(
        "json_object",
        "json_object(texts) | json_object(keys, values)",
        "a JSON object of texts: key and value in turn, or in two arrays",
        ("json_object('{a,1}')", "{\"a\" : \"1\"}"),
        &[&[Type::Texts], &[Type::Texts, Type::Texts]],
        JSON,
        |a| object_of_texts(a, &BUILT)
    ),
    scalar!(
        "jsonb_object",
        "jsonb_object(texts) | jsonb_object(keys, values)",
        "the same in its one spelling",
        ("jsonb_object('{a,b}', '{1,2}')", "{\"a\": \"1\", \"b\": \"2\"}"),
        &[&[Type::Texts], &[Type::Texts, Type::Texts]],
        JSONB,
        |a| object_of_texts(a, &SPELLED)
    ),
    scalar!(
        "json_typeof",
        "json_typeof(json)",
        "object, array, string, number, boolean or null",
        ("json_typeof('-1.5')", "number"),
        &[&[Type::Text]],
        Type::Text,
        type_of
    ),
    scalar!(
        "jsonb_typeof",
        "jsonb_typeof(json)",
        "object, array, string, number, boolean or null",
        ("jsonb_typeof('[1]')", "array"),
        &[&[Type::Text]],
        Type::Text,
        type_of
    ),
    scalar!(
        "json_array_length",
        "json_array_length(json)",
        "how many elements a JSON array has",
        ("json_array_length('[1, 2]')", "2"),
        &[&[Type::Text]],
        Type::Integer,
        array_length
    ),
    scalar!(
        "jsonb_array_length",
        "jsonb_array_length(json)",
        "how many elements a JSON array has",
        ("jsonb_array_length('[1, 2]')", "2"),
        &[&[Type::Text]],
        Type::Integer,
        array_length
    ),
    scalar!(
        "jsonb_contains",
        "jsonb_contains(json, other) | json @> other",
        "whether all of the other JSON is in it",
        ("jsonb_contains('{\"a\": 1, \"b\": 2}', '{\"b\": 2}')", "t"),
        &[&[Type::Text, Type::Text]],
        Type::Boolean,
        |a| { two(a, |json, other| Ok(json.contains(&parsed(other)?))) }
    ),
    scalar!(
        "jsonb_has",
        "jsonb_has(json, key) | json ? key",
        "whether it has the key, or is an array with the text",
        ("jsonb_has('[\"a\"]', 'a')", "t"),
        &[&[Type::Text, Type::Text]],
        Type::Boolean,
        |a| two(a, |json, key| Ok(has(&json, key)))
    ),
    scalar!(
        "jsonb_has_any",
        "jsonb_has_any(json, keys) | json ?| keys",
        "whether it has one of the keys",
        ("jsonb_has_any('{\"a\": 1}', ARRAY['b', 'a'])", "t"),
        &[&[Type::Text, Type::Texts]],
        Type::Boolean,
        |a| keys(a, |json, keys| keys.iter().any(|key| has(json, key)))
    ),
    scalar!(
        "jsonb_has_all",
        "jsonb_has_all(json, keys) | json ?& keys",
        "whether it has all of the keys",
        ("jsonb_has_all('{\"a\": 1}', ARRAY['b', 'a'])", "f"),
        &[&[Type::Text, Type::Texts]],
        Type::Boolean,
        |a| keys(a, |json, keys| keys.iter().all(|key| has(json, key)))
    ),
    scalar!(
        "jsonb_concat",
        "jsonb_concat(json, other) | json || other",
        "objects with the members of both, or arrays one behind the other",
        ("jsonb_concat('{\"a\": 1}', '{\"b\": 2}')", "{\"a\": 1, \"b\": 2}"),
        &[&[Type::Text, Type::Text]],
        JSONB,
        |a| {
            let (left, right) = (a.text(0)?, a.text(1)?);
            texts(a.rows, |row| match (left.get(row), right.get(row)) {
                (Some(left), Some(right)) => Ok(Some(joined(parsed(left)?, parsed(right)?)?.to_string())),
                _ => Ok(None),
            })
        }
    ),
    scalar!(
        "jsonb_without",
        "jsonb_without(json, key or position or keys) | json - key",
        "without a member",
        ("jsonb_without('{\"a\": 1, \"b\": 2}', 'a')", "{\"b\": 2}"),
        &[&[Type::Text, Type::Any]],
        JSONB,
        without
    ),
    scalar!(
        "jsonb_delete_path",
        "jsonb_delete_path(json, path) | json #- path",
        "without what is at the path",
        ("jsonb_delete_path('[\"a\", {\"b\": 1}]', '{1,b}')", "[\"a\", {}]"),
        &[&[Type::Text, Type::Texts]],
        JSONB,
        |a| { changed(a, |json, path, _, _| change(json, path, &mut |_| Change::Remove)) }
    ),
    scalar!(
        "jsonb_set",
        "jsonb_set(json, path, value [, create])",
        "with another value at the path",
        ("jsonb_set('{\"a\": 1}', '{b}', '2')", "{\"a\": 1, \"b\": 2}"),
        &[&[Type::Text, Type::Texts, Type::Text], &[Type::Text, Type::Texts, Type::Text, Type::Boolean]],
        JSONB,
        |a| {
            changed(a, |json, path, value, create| {
                let value = value.unwrap_or(Json::Null);
                change(json, path, &mut |found| if found || create { Change::Put(value.clone()) } else { Change::Keep })
            })
        }
    ),
    scalar!(
        "jsonb_insert",
        "jsonb_insert(json, path, value [, after])",
        "with one more value at the path",
        ("jsonb_insert('{\"a\": [1, 3]}', '{a,1}', '2')", "{\"a\": [1, 2, 3]}"),
        &[&[Type::Text, Type::Texts, Type::Text], &[Type::Text, Type::Texts, Type::Text, Type::Boolean]],
        JSONB,
        |a| {
            let after = if a.count() > 3 { Some(a.array(3)?) } else { None };
            let mut row = 0;
            changed(a, |json, path, value, _| {
                let after = after.as_ref().is_some_and(|after| after.is_valid(row) && after.as_boolean().value(row));
                row += 1;
                let value = value.unwrap_or(Json::Null);
                change(json, path, &mut |_| Change::Insert(value.clone(), after))
            })
        }
    ),
    scalar!(
        "json_strip_nulls",
        "json_strip_nulls(json)",
        "without members that are null",
        ("json_strip_nulls('{\"a\": 1, \"b\": null}')", "{\"a\":1}"),
        &[&[Type::Text]],
        JSON,
        |a| one(a, |json| {
            let mut out = String::new();
            stripped(json).put(",", ":", &mut out);
            Some(out)
        })
    ),
    scalar!(
        "jsonb_strip_nulls",
        "jsonb_strip_nulls(json)",
        "without members that are null",
        ("jsonb_strip_nulls('{\"a\": 1, \"b\": null}')", "{\"a\": 1}"),
        &[&[Type::Text]],
        JSONB,
        |a| one(a, |json| Some(stripped(json).to_string()))
    ),
    scalar!(
        "jsonb_pretty",
        "jsonb_pretty(json)",
        "JSON in several lines",
        ("replace(jsonb_pretty('[1]'), chr(10), '~')", "[~    1~]"),
        &[&[Type::Text]],
        Type::Text,
        |a| one(a, |json| {
            let mut out = String::new();
            json.pretty(0, &mut out);
            Some(out)
        })
    ),
    scalar!(
        "json_elements",
        "json_elements(json)",
        "what json_array_elements calls: the elements of a JSON array, as an array of JSON",
        ("json_elements('[1, {\"a\": 2}]')", "{1,\"{\\\"a\\\":2}\"}"),
        &[&[Type::Text]],
        Type::Many(Subtype::Json),
        |a| { elements(a, Subtype::Json, |json| Some(written(&json, ",", ":"))) }
    ),
    scalar!(
        "jsonb_elements",
        "jsonb_elements(json)",
        "what jsonb_array_elements calls: the elements of a JSON array, as an array of JSON",
        ("jsonb_elements('[1, \"x\"]')", "{1,\"\\\"x\\\"\"}"),
        &[&[Type::Text]],
        Type::Many(Subtype::Jsonb),
        |a| { elements(a, Subtype::Jsonb, |json| Some(json.to_string())) }
    ),
    scalar!(
        "json_elements_text",
        "json_elements_text(json)",
        "what json_array_elements_text calls: the elements of a JSON array, as an array of texts",
        ("json_elements_text('[1, \"x\", null]')", "{1,x,NULL}"),
        &[&[Type::Text]],
        Type::Texts,
        |a| list(a, |json| match json {
            Json::Array(values) => Ok(values.iter().map(Json::text).collect()),
            other => Err(no_array(&other)),
        })
    ),
    scalar!(
        "json_keys",
        "json_keys(json)",
        "what json_object_keys in FROM calls: the keys of a JSON object, as an array",
        ("json_keys('{\"b\": 1, \"a\": 2}')", "{a,b}"),
        &[&[Type::Text]],
        Type::Texts,
        |a| list(a, |json| match json {
            Json::Object(members) => Ok(members.into_iter().map(|(key, _)| Some(key)).collect()),
            other => Err(no_object(&other, "jsonb_object_keys")),
        })
    ),
    scalar!(
        "json_values",
        "json_values(json)",
        "what json_each calls for the values of a JSON object, as an array of JSON",
        ("json_values('{\"b\": 1, \"a\": \"x\"}')", "{\"\\\"x\\\"\",1}"),
        &[&[Type::Text]],
        Type::Many(Subtype::Jsonb),
        |a| { members(a, Subtype::Jsonb, |json| Some(json.to_string())) }
    ),
    scalar!(
        "json_values_text",
        "json_values_text(json)",
        "what json_each_text calls for the values of a JSON object, as an array of texts",
        ("json_values_text('{\"b\": 1, \"a\": \"x\"}')", "{x,1}"),
        &[&[Type::Text]],
        Type::Texts,
        |a| list(a, |json| match json {
            Json::Object(members) => Ok(members.iter().map(|(_, value)| value.text()).collect()),
            other => Err(no_object(&other, "jsonb_each")),
        })
    ),
];

fn parsed(text: &str) -> Result<Json> {
    parse(text).map_err(|why| {
        Error::new(Kind::InvalidText, format!("invalid input syntax for type json: \"{text}\"")).with_detail(why)
    })
}

fn written(json: &Json, comma: &str, colon: &str) -> String {
    let mut out = String::new();
    json.put(comma, colon, &mut out);
    out
}

fn no_array(json: &Json) -> Error {
    let what = match json {
        Json::Object(_) => "an object",
        _ => "a scalar",
    };
    Error::new(Kind::InvalidParameter, format!("cannot extract elements from {what}"))
}

fn no_object(json: &Json, function: &str) -> Error {
    let what = match json {
        Json::Array(_) => "an array",
        _ => "a scalar",
    };
    Error::new(Kind::InvalidParameter, format!("cannot call {function} on {what}"))
}

/// A text of each JSON.
fn one(arguments: &Arguments<'_>, value: impl Fn(Json) -> Option<String>) -> DfResult<ArrayRef> {
    let column = arguments.text(0)?;
    texts(arguments.rows, |row| match column.get(row) {
        Some(text) => Ok(value(parsed(text)?)),
        None => Ok(None),
    })
}

/// Whether something is so of each JSON and a text.
fn two(arguments: &Arguments<'_>, is: impl Fn(Json, &str) -> Result<bool>) -> DfResult<ArrayRef> {
    let (jsons, others) = (arguments.text(0)?, arguments.text(1)?);
    let mut out = BooleanBuilder::new();
    for row in 0..arguments.rows {
        match (jsons.get(row), others.get(row)) {
            (Some(json), Some(other)) => out.append_value(is(parsed(json)?, other)?),
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// The texts of a row of a `text[]`.
fn row_of(array: &ArrayRef, row: usize) -> Option<Vec<Option<String>>> {
    let list = array.as_list::<i32>();
    if list.is_null(row) {
        return None;
    }
    let values = list.value(row);
    Some(values.as_string_view().iter().map(|text| text.map(str::to_string)).collect())
}

/// Whether something is so of each JSON and an array of keys.
fn keys(arguments: &Arguments<'_>, is: impl Fn(&Json, &[String]) -> bool) -> DfResult<ArrayRef> {
    let (jsons, keys) = (arguments.text(0)?, arguments.array(1)?);
    let mut out = BooleanBuilder::new();
    for row in 0..arguments.rows {
        match (jsons.get(row), row_of(&keys, row)) {
            (Some(json), Some(keys)) => {
                out.append_value(is(&parsed(json)?, &keys.into_iter().flatten().collect::<Vec<_>>()));
            }
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn has(json: &Json, key: &str) -> bool {
    match json {
        Json::Object(members) => members.iter().any(|(name, _)| name == key),
        Json::Array(values) => values.iter().any(|value| matches!(value, Json::Text(text) if text == key)),
        Json::Text(text) => text == key,
        _ => false,
    }
}

fn type_of(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    one(arguments, |json| Some(json.type_name().to_string()))
}

fn array_length(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let column = arguments.text(0)?;
    let length = |row: usize| -> Result<Option<i32>> {
        let Some(text) = column.get(row) else { return Ok(None) };
        match parsed(text)? {
            Json::Array(values) => Ok(Some(values.len() as i32)),
            Json::Object(_) => Err(Error::new(Kind::InvalidParameter, "cannot get array length of a non-array")),
            _ => Err(Error::new(Kind::InvalidParameter, "cannot get array length of a scalar")),
        }
    };
    Ok(Arc::new((0..arguments.rows).map(length).collect::<Result<Int32Array>>()?))
}

fn joined(left: Json, right: Json) -> Result<Json> {
    Ok(match (left, right) {
        (Json::Object(mut left), Json::Object(right)) => {
            left.extend(right);
            Json::object(left)
        }
        (Json::Array(mut left), Json::Array(right)) => {
            left.extend(right);
            Json::Array(left)
        }
        (Json::Array(mut left), right) => {
            left.push(right);
            Json::Array(left)
        }
        (left, Json::Array(right)) => Json::Array([vec![left], right].concat()),
        (Json::Object(_), _) | (_, Json::Object(_)) => {
            return Err(Error::new(Kind::InvalidParameter, "invalid concatenation of jsonb objects"));
        }
        (left, right) => Json::Array(vec![left, right]),
    })
}

fn stripped(json: Json) -> Json {
    match json {
        Json::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| *value != Json::Null);
            Json::Object(kept.map(|(key, value)| (key, stripped(value))).collect())
        }
        Json::Array(values) => Json::Array(values.into_iter().map(stripped).collect()),
        other => other,
    }
}

fn without(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let (jsons, others) = (arguments.text(0)?, arguments.array(1)?);
    let by_position = others.data_type().is_integer();
    let numbers = if by_position { Some(cast(&others, &DataType::Int64)?) } else { None };
    let lists = if matches!(others.data_type(), DataType::List(_) | DataType::LargeList(_)) {
        Some(cast(&others, &Type::Texts.arrow())?)
    } else {
        None
    };
    let keys = if by_position || lists.is_some() { None } else { Some(cast(&others, &DataType::Utf8View)?) };
    texts(arguments.rows, |row| {
        let Some(json) = jsons.get(row).filter(|_| others.is_valid(row)) else { return Ok(None) };
        let json = parsed(json)?;
        if let Some(numbers) = &numbers {
            let Json::Array(mut values) = json else {
                let message = "cannot delete from object using integer index";
                return Err(Error::new(Kind::InvalidParameter, message).into());
            };
            if let Some(at) = position(numbers.as_primitive::<Int64Type>().value(row), values.len()) {
                values.remove(at);
            }
            return Ok(Some(Json::Array(values).to_string()));
        }
        let gone: Vec<String> = match (&lists, &keys) {
            (Some(lists), _) => row_of(lists, row).unwrap_or_default().into_iter().flatten().collect(),
            (None, Some(keys)) => vec![keys.as_string_view().value(row).to_string()],
            (None, None) => Vec::new(),
        };
        let left = match json {
            Json::Object(members) => Json::Object(members.into_iter().filter(|(key, _)| !gone.contains(key)).collect()),
            Json::Array(values) => {
                let stays = |value: &Json| !matches!(value, Json::Text(text) if gone.contains(text));
                Json::Array(values.into_iter().filter(stays).collect())
            }
            _ => return Err(Error::new(Kind::InvalidParameter, "cannot delete from scalar").into()),
        };
        Ok(Some(left.to_string()))
    })
}

/// What becomes of the value at the end of a path.
enum Change {
    Keep,
    Remove,
    Put(Json),
    /// Beside it; true: behind it.
    Insert(Json, bool),
}

/// JSON with a change at the end of a path, which says whether there is a value. Nothing changes where the path leads
/// nowhere.
fn change(json: Json, path: &[String], of: &mut dyn FnMut(bool) -> Change) -> Result<Json> {
    let Some((step, rest)) = path.split_first() else { return Ok(json) };
    let last = rest.is_empty();
    Ok(match json {
        Json::Object(mut members) => {
            let at = members.iter().position(|(key, _)| key == step);
            match (at, last) {
                (Some(at), false) => {
                    let value = std::mem::replace(&mut members[at].1, Json::Null);
                    members[at].1 = change(value, rest, of)?;
                }
                (at, true) => match (of(at.is_some()), at) {
                    (Change::Remove, Some(at)) => drop(members.remove(at)),
                    (Change::Put(value), Some(at)) => members[at].1 = value,
                    (Change::Insert(..), Some(_)) => {
                        return Err(Error::new(Kind::InvalidParameter, "cannot replace existing key")
                            .with_hint("Try using the function jsonb_set to replace key value."));
                    }
                    (Change::Put(value) | Change::Insert(value, _), None) => members.push((step.clone(), value)),
                    (Change::Keep, _) | (Change::Remove, None) => {}
                },
                (None, false) => {}
            }
            Json::object(members)
        }
        Json::Array(mut values) => {
            let number: i64 = step.trim().parse().map_err(|_| {
                let message = format!("path element at position 1 is not an integer: \"{step}\"");
                Error::new(Kind::InvalidText, message)
            })?;
            let at = position(number, values.len());
            match (at, last) {
                (Some(at), false) => {
                    let value = std::mem::replace(&mut values[at], Json::Null);
                    values[at] = change(value, rest, of)?;
                }
                (at, true) => match (of(at.is_some()), at) {
                    (Change::Remove, Some(at)) => drop(values.remove(at)),
                    (Change::Put(value), Some(at)) => values[at] = value,
                    (Change::Insert(value, after), Some(at)) => values.insert(at + usize::from(after), value),
                    // Beyond an end it is put there.
                    (Change::Put(value) | Change::Insert(value, _), None) if number < 0 => values.insert(0, value),
                    (Change::Put(value) | Change::Insert(value, _), None) => values.push(value),
                    (Change::Keep, _) | (Change::Remove, None) => {}
                },
                (None, false) => {}
            }
            Json::Array(values)
        }
        _ => return Err(Error::new(Kind::InvalidParameter, "cannot set path in scalar")),
    })
}

/// Each JSON changed at a path; the third argument is a value, the fourth a truth value, which is true when not given.
fn changed(
    arguments: &Arguments<'_>,
    mut of: impl FnMut(Json, &[String], Option<Json>, bool) -> Result<Json>,
) -> DfResult<ArrayRef> {
    let (jsons, paths) = (arguments.text(0)?, arguments.array(1)?);
    let values = if arguments.count() > 2 { Some(arguments.text(2)?) } else { None };
    let create = if arguments.count() > 3 { Some(arguments.array(3)?) } else { None };
    texts(arguments.rows, |row| {
        let (Some(json), Some(path)) = (jsons.get(row), row_of(&paths, row)) else { return Ok(None) };
        let value = match values.as_ref().map(|values| values.get(row)) {
            Some(None) => return Ok(None),
            Some(Some(text)) => Some(parsed(text)?),
            None => None,
        };
        let create = match &create {
            Some(create) if create.is_null(row) => return Ok(None),
            Some(create) => create.as_boolean().value(row),
            None => true,
        };
        let path: Vec<String> = path.into_iter().flatten().collect();
        Ok(Some(of(parsed(json)?, &path, value, create)?.to_string()))
    })
}

/// An array of texts of each JSON.
fn list(arguments: &Arguments<'_>, of: impl Fn(Json) -> Result<Vec<Option<String>>>) -> DfResult<ArrayRef> {
    listed(arguments, None, of)
}

fn listed(
    arguments: &Arguments<'_>,
    subtype: Option<Subtype>,
    of: impl Fn(Json) -> Result<Vec<Option<String>>>,
) -> DfResult<ArrayRef> {
    let column = arguments.text(0)?;
    let field = match subtype {
        Some(subtype) => subtype.field(Field::LIST_FIELD_DEFAULT_NAME),
        None => Field::new_list_field(DataType::Utf8View, true),
    };
    let mut out = ListBuilder::new(StringViewBuilder::new()).with_field(Arc::new(field));
    for row in 0..arguments.rows {
        let Some(text) = column.get(row) else {
            out.append_null();
            continue;
        };
        for value in of(parsed(text)?)? {
            out.values().append_option(value);
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

fn elements(arguments: &Arguments<'_>, subtype: Subtype, value: impl Fn(Json) -> Option<String>) -> DfResult<ArrayRef> {
    listed(arguments, Some(subtype), |json| match json {
        Json::Array(values) => Ok(values.into_iter().map(&value).collect()),
        other => Err(no_array(&other)),
    })
}

fn members(arguments: &Arguments<'_>, subtype: Subtype, value: impl Fn(Json) -> Option<String>) -> DfResult<ArrayRef> {
    listed(arguments, Some(subtype), |json| match json {
        Json::Object(members) => Ok(members.into_iter().map(|(_, json)| value(json)).collect()),
        other => Err(no_object(&other, "jsonb_each")),
    })
}

/// How built JSON is written.
struct Style {
    /// Between values of the outermost array or object, and inside of it.
    comma: &'static str,
    inner_comma: &'static str,
    colon: &'static str,
    open: &'static str,
    close: &'static str,
    /// In the one spelling of `jsonb`.
    spelled: bool,
}

/// `to_json`.
const COMPACT: Style = Style { comma: ",", inner_comma: ",", colon: ":", open: "{", close: "}", spelled: false };
/// `json_build_…`.
const BUILT: Style = Style { comma: ", ", inner_comma: ",", colon: " : ", open: "{", close: "}", spelled: false };
/// `json_object_agg`.
const AGGREGATED: Style =
    Style { comma: ", ", inner_comma: ",", colon: " : ", open: "{ ", close: " }", spelled: false };
const SPELLED: Style = Style { comma: ", ", inner_comma: ", ", colon: ": ", open: "{", close: "}", spelled: true };

impl Style {
    fn finished(&self, text: String) -> Result<String> {
        if self.spelled { Ok(parsed(&text)?.to_string()) } else { Ok(text) }
    }
}

/// Writes the value of a row as JSON.
type Writer = Box<dyn Fn(usize, &mut String) -> Result<()>>;

/// A writer of the values of a column; `subtype` says what its texts are.
fn writer(array: &ArrayRef, subtype: Option<Subtype>, comma: &'static str) -> Result<Writer> {
    let nulls = array.logical_nulls();
    let is_null = move |row: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    let text = {
        let write = text::writer(array)?;
        move |row: usize| {
            let mut bytes = BytesMut::new();
            write(row, &mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    let value: Writer = match array.data_type() {
        DataType::Boolean => {
            let array = array.as_boolean().clone();
            Box::new(move |row, out| {
                out.push_str(if array.value(row) { "true" } else { "false" });
                Ok(())
            })
        }
        data_type if data_type.is_numeric() => Box::new(move |row, out| {
            let digits = text(row);
            // JSON has no word for what is no number.
            if digits.ends_with(|c: char| c.is_ascii_digit()) {
                out.push_str(&digits)
            } else {
                quote(&digits, out)
            }
            Ok(())
        }),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            let (subtype, elements) = (Subtype::of(field), text::lists(array));
            Box::new(move |row, out| {
                let values = elements(row);
                let write = writer(&values, subtype, ",")?;
                out.push('[');
                for i in 0..values.len() {
                    out.push_str(if i == 0 { "" } else { comma });
                    write(i, out)?;
                }
                out.push(']');
                Ok(())
            })
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter().zip(fields);
            let columns = columns.enumerate().map(|(i, (column, field))| {
                // Rows without names are called as PostgreSQL calls them.
                let name = match field.name().strip_prefix('c') {
                    Some(number) if number.parse() == Ok(i) => format!("f{}", i + 1),
                    _ => field.name().clone(),
                };
                Ok((name, writer(column, Subtype::of(field), ",")?))
            });
            let columns = columns.collect::<Result<Vec<_>>>()?;
            Box::new(move |row, out| {
                out.push('{');
                for (i, (name, write)) in columns.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    quote(name, out);
                    out.push(':');
                    write(row, out)?;
                }
                out.push('}');
                Ok(())
            })
        }
        DataType::Timestamp(..) => Box::new(move |row, out| {
            let time = text(row).replacen(' ', "T", 1);
            let zoned = if time.ends_with("+00") { time + ":00" } else { time };
            quote(&zoned, out);
            Ok(())
        }),
        _ if subtype.is_some_and(Subtype::is_json) => Box::new(move |row, out| {
            out.push_str(&text(row));
            Ok(())
        }),
        _ => Box::new(move |row, out| {
            quote(&text(row), out);
            Ok(())
        }),
    };
    Ok(Box::new(move |row, out| {
        if is_null(row) {
            out.push_str("null");
            return Ok(());
        }
        value(row, out)
    }))
}

fn built(arguments: &Arguments<'_>, style: &Style) -> DfResult<ArrayRef> {
    let array = arguments.array(0)?;
    let write = writer(&array, arguments.subtype(0), style.comma)?;
    let nulls = array.logical_nulls();
    texts(arguments.rows, |row| {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return Ok(None);
        }
        let mut out = String::new();
        write(row, &mut out)?;
        Ok(Some(style.finished(out)?))
    })
}

fn array_of(arguments: &Arguments<'_>, style: &Style) -> DfResult<ArrayRef> {
    let writers =
        (0..arguments.count()).map(|i| Ok(writer(&arguments.array(i)?, arguments.subtype(i), style.inner_comma)?));
    let writers = writers.collect::<DfResult<Vec<Writer>>>()?;
    texts(arguments.rows, |row| {
        let mut out = String::from("[");
        for (i, write) in writers.iter().enumerate() {
            out.push_str(if i == 0 { "" } else { style.comma });
            write(row, &mut out)?;
        }
        out.push(']');
        Ok(Some(style.finished(out)?))
    })
}

fn no_key() -> Error {
    Error::new(Kind::InvalidParameter, "null value not allowed for object key")
}

fn object_of(arguments: &Arguments<'_>, style: &Style) -> DfResult<ArrayRef> {
    if arguments.count() % 2 == 1 {
        let message = "argument list must have even number of elements";
        return Err(Error::new(Kind::InvalidParameter, message)
            .with_hint("The arguments must consist of alternating keys and values.")
            .into());
    }
    let mut members = Vec::new();
    for i in (0..arguments.count()).step_by(2) {
        let keys = super::cast::as_text(&arguments.array(i)?)?;
        members.push((keys, writer(&arguments.array(i + 1)?, arguments.subtype(i + 1), style.inner_comma)?));
    }
    texts(arguments.rows, |row| {
        let mut out = String::from(style.open);
        for (i, (keys, write)) in members.iter().enumerate() {
            if keys.is_null(row) {
                return Err(no_key().into());
            }
            out.push_str(if i == 0 { "" } else { style.comma });
            quote(keys.as_string_view().value(row), &mut out);
            out.push_str(style.colon);
            write(row, &mut out)?;
        }
        out.push_str(style.close);
        Ok(Some(style.finished(out)?))
    })
}

fn object_of_arrays(arguments: &Arguments<'_>, style: &Style) -> DfResult<ArrayRef> {
    let (keys, values) = (arguments.array(0)?, arguments.array(1)?);
    let subtype = match values.data_type() {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => Subtype::of(field),
        _ => None,
    };
    let lists = text::lists(&values);
    texts(arguments.rows, |row| {
        let Some(keys) = row_of(&keys, row).filter(|_| values.is_valid(row)) else { return Ok(None) };
        let values = lists(row);
        let write = writer(&values, subtype, style.inner_comma)?;
        let mut out = String::from(style.open);
        for (i, key) in keys.iter().enumerate().take(values.len()) {
            out.push_str(if i == 0 { "" } else { style.comma });
            quote(key.as_ref().ok_or_else(no_key)?, &mut out);
            out.push_str(style.colon);
            write(i, &mut out)?;
        }
        out.push_str(style.close);
        Ok(Some(style.finished(out)?))
    })
}

fn object_of_texts(arguments: &Arguments<'_>, style: &Style) -> DfResult<ArrayRef> {
    let keys = arguments.array(0)?;
    let values = if arguments.count() > 1 { Some(arguments.array(1)?) } else { None };
    let wrong = |message: &str| Error::new(Kind::InvalidParameter, message);
    texts(arguments.rows, |row| {
        let Some(keys) = row_of(&keys, row) else { return Ok(None) };
        let members: Vec<(Option<String>, Option<String>)> = match &values {
            Some(values) => {
                let Some(values) = row_of(values, row) else { return Ok(None) };
                if keys.len() != values.len() {
                    return Err(wrong("mismatched array dimensions").into());
                }
                keys.into_iter().zip(values).collect()
            }
            None if keys.len() % 2 == 1 => return Err(wrong("array must have even number of elements").into()),
            None => keys.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
        };
        let mut out = String::from(style.open);
        for (i, (key, value)) in members.iter().enumerate() {
            out.push_str(if i == 0 { "" } else { style.comma });
            quote(key.as_ref().ok_or_else(no_key)?, &mut out);
            out.push_str(style.colon);
            match value {
                Some(value) => quote(value, &mut out),
                None => out.push_str("null"),
            }
        }
        out.push_str(style.close);
        Ok(Some(style.finished(out)?))
    })
}
