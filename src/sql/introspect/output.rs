//! How does a result become Arrow, and a parameter a value? What PostgreSQL has a type for and Arrow has not is a text there,
//! with the object id of the type in the field's metadata: clients are told that type.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, ListArray, RecordBatch,
    RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;

use super::node::Output;
use super::plan::known;
use super::run::Run;
use super::text::{read_plain, show};
use crate::catalog::postgres::TYPE_KEY;
use crate::catalog::postgres::base::base;
use crate::catalog::postgres::value::{Row, Value, types};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::time::UTC;

/// The Arrow type that values of a type have.
pub fn data_type(of: u32) -> DataType {
    match of {
        types::BOOL => DataType::Boolean,
        types::INT2 => DataType::Int16,
        types::INT4 | types::OID => DataType::Int32,
        types::INT8 => DataType::Int64,
        types::FLOAT4 => DataType::Float32,
        types::FLOAT8 => DataType::Float64,
        types::TIMESTAMPTZ => timestamp_type(),
        types::INT2VECTOR | types::OIDVECTOR => DataType::Utf8,
        of => match base().element_of(of).filter(|_| of != types::ANYARRAY) {
            Some(element) => DataType::List(Arc::new(item(element))),
            None => DataType::Utf8,
        },
    }
}

fn item(element: u32) -> Field {
    Field::new_list_field(data_type(element), true).with_metadata(metadata(element))
}

/// What tells the type where Arrow's does not.
pub fn metadata(of: u32) -> HashMap<String, String> {
    let told = match of {
        types::BOOL | types::INT2 | types::INT4 | types::INT8 | types::FLOAT4 | types::FLOAT8 => false,
        types::TIMESTAMPTZ | types::TEXT | types::UNKNOWN | types::RECORD => false,
        of => base().type_of(of).is_some(),
    };
    if told { HashMap::from([(TYPE_KEY.to_string(), of.to_string())]) } else { HashMap::new() }
}

/// The columns of a result.
pub fn schema(columns: &[Output]) -> SchemaRef {
    let field = |column: &Output| {
        let of = known(column.of);
        Field::new(&column.name, data_type(of), true).with_metadata(metadata(of))
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// Rows as a batch.
pub fn batch(run: &Run<'_>, columns: &[Output], rows: Vec<Row>) -> Result<RecordBatch> {
    let column = |(at, column): (usize, &Output)| {
        let values = rows.iter().map(|row| row.get(at).unwrap_or(&Value::Null)).collect::<Vec<_>>();
        array(run, &values, known(column.of))
    };
    let arrays = columns.iter().enumerate().map(column).collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(schema(columns), arrays, &options)?)
}

fn array(run: &Run<'_>, values: &[&Value], of: u32) -> Result<ArrayRef> {
    let numbers = || values.iter().map(|value| value.as_int());
    Ok(match data_type(of) {
        DataType::Boolean => Arc::new(
            values.iter().map(|v| if let Value::Bool(is) = v { Some(*is) } else { None }).collect::<BooleanArray>(),
        ),
        DataType::Int16 => Arc::new(numbers().map(|n| n.and_then(|n| i16::try_from(n).ok())).collect::<Int16Array>()),
        // Object ids are whole numbers without a sign, as many bits.
        DataType::Int32 => Arc::new(numbers().map(|n| n.map(|n| n as i32)).collect::<Int32Array>()),
        DataType::Int64 => Arc::new(numbers().collect::<Int64Array>()),
        DataType::Float32 => Arc::new(values.iter().map(|v| v.as_float().map(|n| n as f32)).collect::<Float32Array>()),
        DataType::Float64 => Arc::new(values.iter().map(|v| v.as_float()).collect::<Float64Array>()),
        DataType::Timestamp(..) => {
            let times = values.iter().map(|v| if let Value::Time(at) = v { Some(*at) } else { None });
            Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone(UTC))
        }
        DataType::List(field) => {
            let element = base().element_of(of).unwrap_or(types::TEXT);
            let items: Vec<&Value> = values.iter().filter_map(|value| value.as_list()).flatten().collect();
            let lengths = values.iter().map(|value| value.as_list().map_or(0, <[Value]>::len));
            let nulls = NullBuffer::from_iter(values.iter().map(|value| value.as_list().is_some()));
            let items = array(run, &items, element)?;
            Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), items, Some(nulls))?)
        }
        _ => {
            let text = |value: &&Value| (!value.is_null()).then(|| show(run, value, of));
            Arc::new(values.iter().map(text).collect::<StringArray>())
        }
    })
}

/// A parameter's value as one of its type.
pub fn value_of(value: &ScalarValue, of: u32) -> Result<Value> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    let wrong = |text: &str| {
        let name = crate::catalog::postgres::base::type_text(of);
        Error::new(Kind::InvalidText, format!("invalid input syntax for type {name}: \"{text}\""))
    };
    Ok(match value {
        ScalarValue::Boolean(Some(is)) => Value::Bool(*is),
        ScalarValue::Int8(Some(number)) => Value::Int(i64::from(*number)),
        ScalarValue::Int16(Some(number)) => Value::Int(i64::from(*number)),
        ScalarValue::Int32(Some(number)) => Value::Int(i64::from(*number)),
        ScalarValue::Int64(Some(number)) => Value::Int(*number),
        ScalarValue::UInt32(Some(number)) => Value::Int(i64::from(*number)),
        ScalarValue::Float32(Some(number)) => Value::Float(f64::from(*number)),
        ScalarValue::Float64(Some(number)) => Value::Float(*number),
        ScalarValue::TimestampMicrosecond(Some(micros), _) => Value::Time(*micros),
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => {
            if types::is_text(of) {
                return Ok(Value::text(text));
            }
            read_plain(text, of).ok_or_else(|| wrong(text))?
        }
        ScalarValue::List(list) => {
            let element = base().element_of(of).unwrap_or(types::TEXT);
            let items = list.value(0);
            let item = |at: usize| value_of(&ScalarValue::try_from_array(&items, at)?, element);
            Value::list((0..arrow::array::Array::len(&items)).map(item).collect::<Result<Vec<Value>>>()?)
        }
        other => {
            let text = other.to_string();
            read_plain(&text, of).ok_or_else(|| wrong(&text))?
        }
    })
}
