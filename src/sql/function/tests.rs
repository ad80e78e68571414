//! What holds for every scalar function: its names and forms are in order, arbitrary values never make it panic, NULL
//! gives NULL, and a column gives what its values give one by one. Functions of types that are not made up here have their
//! samples, and the comparison with PostgreSQL.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int64Array, IntervalMonthDayNanoArray, ListArray, ListBuilder, StringViewArray,
    StringViewBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Float64Type, IntervalMonthDayNano};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};
use proptest::prelude::*;

use super::scalar::{Scalar, Type};
use super::{FUNCTIONS, scalars, windowed};
use crate::time::UTC;

#[test]
fn names_are_unique_and_in_their_syntax() {
    let mut names = BTreeSet::new();
    for (name, syntax) in FUNCTIONS
        .iter()
        .map(|f| (f.name, f.syntax))
        .chain(scalars().map(|f| (f.name, f.syntax)))
        .chain(windowed().map(|f| (f.name, f.syntax)))
    {
        assert!(names.insert(name), "{name} is there twice");
        assert!(syntax.to_lowercase().contains(&format!("{name}(")), "{name}: {syntax}");
    }
    for function in scalars() {
        let called = function.sample.0.contains(&format!("{}(", function.name));
        assert!(
            called || function.syntax.contains(" | "),
            "{}: neither called in its sample nor an operator",
            function.name
        );
        assert!(!function.forms.is_empty() && !function.summary.ends_with('.'), "{}", function.name);
    }
    for function in windowed() {
        assert!(function.sample.call.starts_with(&format!("{}(", function.name)), "{}", function.name);
        assert!(!function.forms.is_empty() && !function.summary.ends_with('.'), "{}", function.name);
    }
}

/// A session is copied for many a query, in no order of its functions.
#[test]
fn ours_stay_when_a_session_is_copied() {
    for _ in 0..20 {
        let state = super::extend(SessionStateBuilder::new_with_default_features()).build();
        let copy = SessionStateBuilder::new_from_existing(state).build();
        for scalar in scalars() {
            let function = &copy.scalar_functions()[scalar.name];
            assert_eq!(function.signature(), scalar.udf().signature(), "{}", scalar.name);
        }
        for name in ["ceiling", "sign", "date_format"] {
            assert!(copy.scalar_functions().contains_key(name), "{name}");
        }
    }
}

/// Texts that functions make something of, broken in all ways.
fn some_text() -> impl Strategy<Value = Option<String>> {
    let words = prop::sample::select(vec![
        "/a/b?x=1&y=%41+%zz#f",
        "http://ann@example.org:80/x",
        "http://[::1]:443/",
        "example.org:443",
        "*",
        "%",
        "://",
        "10.0.0.1",
        "::ffff:10.0.0.1",
        "fe80::1%eth0",
        "10.0.0.0/8",
        "::/0,1.2.3.4",
        "curl/8.5.0",
        "Googlebot/2.1",
        "Mozilla/5.0 (Windows NT 10.0) Chrome/126.0 Safari/537.36",
        "Mozilla/5.0 (compatible; GPTBot/1.2)",
        "MSIE ",
        "Windows NT",
        "{\"a\": [1, {\"b\": null}], \"c\": \"\\u00e9\"}",
        "[1, 2.5e3, true]",
        "{",
        "\"",
        "a",
        "c",
        "0",
        r"(\d+)",
        "(",
        r"\w+",
        "[",
        "i",
        "1h 30m",
        "00:01:02.5",
        "-5 s",
        "PT1M",
        "P1DT",
        "99999999999999999 h",
        "10 KiB",
        "1e400",
        "NaN",
        "YYYY-MM-DD HH24:MI:SS",
        "FMDDth \"x",
        "%Y-%m",
        "%!",
        "ü€😀",
        "\0",
        " ",
        "",
    ]);
    let joined = prop::collection::vec(words, 1..4).prop_map(|words| words.concat());
    prop_oneof![
        1 => Just(None),
        4 => any::<String>().prop_map(Some),
        4 => "[ -~é]{0,40}".prop_map(Some),
        8 => joined.prop_map(Some),
    ]
}

fn some_number() -> impl Strategy<Value = Option<f64>> {
    let special = vec![0.0, -0.0, 1.0, 2.0, 24.0, 128.0, 1e300, -1e300, f64::MIN, f64::MAX, f64::NAN, f64::INFINITY];
    prop_oneof![
        1 => Just(None),
        3 => any::<f64>().prop_map(Some),
        3 => (-100_i32..100).prop_map(|n| Some(f64::from(n) / 4.0)),
        3 => prop::sample::select(special).prop_map(Some),
    ]
}

fn some_whole_number() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![1 => Just(None), 3 => any::<i64>().prop_map(Some), 6 => (-5_i64..140).prop_map(Some)]
}

const ROWS: usize = 6;

/// A column of this type.
fn some_column(of: Type) -> BoxedStrategy<ArrayRef> {
    let texts = || prop::collection::vec(some_text(), ROWS).prop_map(|v| Arc::new(StringViewArray::from_iter(v)) as _);
    let wholes = || prop::collection::vec(some_whole_number(), ROWS);
    match of {
        Type::Text => texts().boxed(),
        Type::Texts => {
            let list = prop::option::weighted(0.9, prop::collection::vec(some_text(), 0..4));
            let lists = |lists: Vec<Option<Vec<Option<String>>>>| -> ArrayRef {
                let mut builder = ListBuilder::new(StringViewBuilder::new());
                lists.into_iter().for_each(|list| builder.append_option(list));
                Arc::new(builder.finish())
            };
            prop::collection::vec(list, ROWS).prop_map(lists).boxed()
        }
        Type::Path => prop_oneof![texts(), wholes().prop_map(|v| Arc::new(Int64Array::from(v)) as _)].boxed(),
        Type::Bigint | Type::Integer | Type::Boolean => {
            wholes().prop_map(|v| Arc::new(Int64Array::from(v)) as _).boxed()
        }
        Type::Interval => {
            let span = |n: i64| IntervalMonthDayNano::new((n >> 40) as i32, n as i32, n);
            let spans = move |v: Vec<Option<i64>>| v.into_iter().map(|n| n.map(span)).collect::<Vec<_>>();
            wholes().prop_map(move |v| Arc::new(IntervalMonthDayNanoArray::from(spans(v))) as _).boxed()
        }
        Type::Double => {
            prop::collection::vec(some_number(), ROWS).prop_map(|v| Arc::new(Float64Array::from(v)) as _).boxed()
        }
        Type::Time => {
            wholes().prop_map(|v| Arc::new(TimestampMicrosecondArray::from(v).with_timezone(UTC)) as _).boxed()
        }
        Type::Doubles => {
            let lists =
                prop::collection::vec(prop::option::weighted(0.9, prop::collection::vec(some_number(), 0..4)), ROWS);
            lists.prop_map(|v| Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(v)) as _).boxed()
        }
        other => unreachable!("{other:?} is not made up"),
    }
}

/// Whether values of a type are made up here.
fn is_made_up(of: &Type) -> bool {
    use Type::{Bigint, Boolean, Double, Doubles, Integer, Interval, Path, Text, Texts, Time};
    matches!(of, Text | Texts | Path | Bigint | Integer | Boolean | Interval | Double | Time | Doubles)
}

/// A function and columns to call it with.
fn some_call() -> impl Strategy<Value = (&'static Scalar, Vec<ArrayRef>)> {
    let forms: Vec<(&'static Scalar, &'static [Type])> =
        scalars().flat_map(|scalar| scalar.forms.iter().map(move |form| (scalar, *form))).collect();
    let made_up = |(scalar, form): &(&Scalar, &[Type])| is_made_up(&scalar.result) && form.iter().all(is_made_up);
    let forms: Vec<_> = forms.into_iter().filter(|one| !one.1.is_empty() && made_up(one)).collect();
    prop::sample::select(forms).prop_flat_map(|(scalar, form)| {
        let columns: Vec<BoxedStrategy<ArrayRef>> = form.iter().map(|of| some_column(*of)).collect();
        columns.prop_map(move |columns| (scalar, columns))
    })
}

/// An error is an answer, too: many of PostgreSQL's functions refuse texts that mean nothing.
fn call(scalar: &'static Scalar, values: Vec<ColumnarValue>) -> DfResult<ColumnarValue> {
    let field = |value: &ColumnarValue| Arc::new(Field::new("a", value.data_type(), true));
    let arguments = ScalarFunctionArgs {
        arg_fields: values.iter().map(field).collect(),
        args: values,
        number_rows: ROWS,
        return_field: Arc::new(Field::new("r", scalar.result.arrow(), true)),
        config_options: Arc::new(ConfigOptions::default()),
    };
    scalar.udf().invoke_with_args(arguments)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn columns_give_what_their_values_give((scalar, columns) in some_call()) {
        let result = call(scalar, columns.iter().cloned().map(ColumnarValue::Array).collect());
        let Ok(result) = result else { return Ok(()) };
        let ColumnarValue::Array(result) = result else { panic!("{}: columns give a column", scalar.name) };
        prop_assert_eq!(result.len(), ROWS);
        prop_assert_eq!(result.data_type(), &scalar.result.arrow());
        result.to_data().validate_full().unwrap();
        for row in 0..ROWS {
            let value = |column: &ArrayRef| ScalarValue::try_from_array(column, row).unwrap();
            let values: Vec<ScalarValue> = columns.iter().map(value).collect();
            let expected = ScalarValue::try_from_array(&result, row).unwrap();
            prop_assert!(expected.is_null() || values.iter().all(|v| !v.is_null()), "{}: NULL gave {}", scalar.name, expected);
            // All constants, and the first one a column: the usual call.
            let constants: Vec<ColumnarValue> = values.iter().cloned().map(ColumnarValue::Scalar).collect();
            let ColumnarValue::Scalar(alone) = call(scalar, constants.clone()).unwrap() else {
                panic!("{}: constants give a constant", scalar.name)
            };
            prop_assert_eq!(&alone, &expected, "{} of {:?}", scalar.name, &values);
            let mut usual = constants;
            usual[0] = ColumnarValue::Array(Arc::clone(&columns[0]));
            // With this constant the values of other rows may be refused.
            let column = match call(scalar, usual) {
                Ok(ColumnarValue::Array(column)) => column,
                Ok(_) => panic!("{}: a column gives a column", scalar.name),
                Err(_) => continue,
            };
            prop_assert_eq!(ScalarValue::try_from_array(&column, row).unwrap(), expected, "{} of {:?}", scalar.name, &values);
        }
    }
}
