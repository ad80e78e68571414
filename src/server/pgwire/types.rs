//! Which PostgreSQL type a column has for clients, and how a batch becomes `DataRow` messages.
//!
//! Always true: the type told in `RowDescription` and the bytes of every value agree, also when the batch that arrives
//! has another Arrow type than the plan promised (a parameter whose type was unknown): it is cast, or the statement
//! fails.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type, Schema, SchemaRef};
use arrow_pg::datatypes::{PG_CHAR_KEY, PG_OID_ALIAS_KEY};
use bytes::BytesMut;
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldFormat, FieldInfo};
use pgwire::messages::data::DataRow;

use super::binary;
use crate::batch::text;
use crate::catalog::postgres::TYPE_KEY;
use crate::error::{Error, Kind, Result};
use crate::format::subtype::Subtype;

/// The PostgreSQL type of a column. Unsigned 64-bit integers are `numeric`; what PostgreSQL has no type for (maps,
/// unions, lists of lists) is `text`.
pub fn of(field: &Field) -> Type {
    if let Some(told) = told(field) {
        return told;
    }
    // Columns of the system catalog say which of PostgreSQL's own types they stand for.
    if field.data_type() == &DataType::Int32 && field.metadata().contains_key(PG_OID_ALIAS_KEY) {
        return Type::OID;
    }
    if field.data_type() == &DataType::Utf8 && field.metadata().contains_key(PG_CHAR_KEY) {
        return Type::CHAR;
    }
    match Subtype::of(field) {
        Some(subtype) => of_subtype(subtype),
        None => of_data(field.data_type()),
    }
}

/// The type of texts that are more than texts.
pub fn of_subtype(subtype: Subtype) -> Type {
    match subtype {
        Subtype::Json => Type::JSON,
        Subtype::Jsonb => Type::JSONB,
        Subtype::Uuid => Type::UUID,
        Subtype::Inet => Type::INET,
        Subtype::Cidr => Type::CIDR,
    }
}

/// The type that a column of PostgreSQL's catalog says it has.
fn told(field: &Field) -> Option<Type> {
    let kind = Type::from_oid(field.metadata().get(TYPE_KEY)?.parse().ok()?)?;
    // A cast leaves what is said of a text on what it makes of it.
    let of_text = Subtype::ALL.into_iter().any(|subtype| of_subtype(subtype) == kind);
    Some(kind).filter(|_| !of_text || Subtype::of(field).is_some())
}

/// A writer of texts that stand for values of a type in its binary format.
fn told_binary(array: &ArrayRef, kind: &Type) -> Result<text::Writer> {
    let Some(texts) = array.as_string_opt::<i32>().cloned() else { return binary::writer(array) };
    let numbers = |text: &str| text.split_whitespace().filter_map(|number| number.parse::<u32>().ok()).collect();
    let lists = || -> Vec<Vec<u32>> { texts.iter().map(|text| text.map(numbers).unwrap_or_default()).collect() };
    match *kind {
        Type::XID | Type::CID => Ok(Box::new(move |row, out| {
            out.extend_from_slice(&texts.value(row).parse::<u32>().unwrap_or_default().to_be_bytes());
        })),
        Type::INT2_VECTOR => {
            let lists = lists().into_iter().map(|list| Some(list.into_iter().map(|n| Some(n as i16))));
            binary::writer(&(Arc::new(ListArray::from_iter_primitive::<Int16Type, _, _>(lists)) as ArrayRef))
        }
        Type::OID_VECTOR => {
            let lists = lists().into_iter().map(|list| Some(list.into_iter().map(|n| Some(n as i32))));
            binary::writer(&(Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)) as ArrayRef))
        }
        Type::NUMERIC => binary::writer(&arrow::compute::cast(array, &DataType::Decimal128(38, 6))?),
        // What is left is written as its text, but for the names of objects, whose numbers are not known any more.
        Type::REGCLASS
        | Type::REGTYPE
        | Type::REGPROC
        | Type::REGPROCEDURE
        | Type::REGOPER
        | Type::REGOPERATOR
        | Type::REGNAMESPACE
        | Type::REGROLE
        | Type::REGCOLLATION => {
            Err(Error::new(Kind::NotSupported, format!("values of type {kind} cannot be sent in binary format"))
                .with_hint("Cast them to oid or to text."))
        }
        _ => binary::writer(array),
    }
}

/// The PostgreSQL type of an Arrow type.
pub fn of_data(data_type: &DataType) -> Type {
    match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => Type::INT2,
        DataType::UInt16 | DataType::Int32 => Type::INT4,
        DataType::UInt32 | DataType::Int64 => Type::INT8,
        DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => Type::NUMERIC,
        DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => array_of(field),
        DataType::Struct(_) => Type::RECORD,
        DataType::Dictionary(_, values) => of_data(values),
        // A column of nothing but NULL is text, as PostgreSQL resolves it.
        DataType::Null
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Float16
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Map(..)
        | DataType::Union(..)
        | DataType::RunEndEncoded(..) => Type::TEXT,
    }
}

fn array_of(element: &Field) -> Type {
    match of(element) {
        Type::BOOL => Type::BOOL_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::OID => Type::OID_ARRAY,
        Type::CHAR => Type::CHAR_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::INTERVAL => Type::INTERVAL_ARRAY,
        Type::RECORD => Type::RECORD_ARRAY,
        Type::JSON => Type::JSON_ARRAY,
        Type::JSONB => Type::JSONB_ARRAY,
        Type::UUID => Type::UUID_ARRAY,
        Type::INET => Type::INET_ARRAY,
        Type::CIDR => Type::CIDR_ARRAY,
        Type::TEXT if !text::is_list(element.data_type()) => Type::TEXT_ARRAY,
        _ => Type::TEXT,
    }
}

/// `pg_type.typlen`: bytes of a value, -1 where they vary.
fn size_of(kind: &Type) -> i16 {
    match *kind {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::NAME => 64,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID | Type::XID | Type::REGCLASS | Type::REGTYPE => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
        Type::INTERVAL | Type::UUID => 16,
        _ => -1,
    }
}

/// The columns of a result as `RowDescription` tells them.
pub fn describe(schema: &Schema, format: &Format) -> Result<Vec<FieldInfo>> {
    if let Format::Individual(codes) = format
        && codes.len() != schema.fields().len()
    {
        return Err(Error::new(
            Kind::InvalidParameter,
            format!("{} result formats for {} columns", codes.len(), schema.fields().len()),
        ));
    }
    let column = |(index, field): (usize, &Arc<Field>)| {
        let kind = of(field);
        let modifier = match field.data_type() {
            DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
                (i32::from(*precision) << 16 | i32::from(*scale) & 0xffff) + 4
            }
            _ => -1,
        };
        let size = size_of(&kind);
        FieldInfo::new(field.name().clone(), None, None, kind, format.format_for(index))
            .with_type_size(size)
            .with_type_modifier(modifier)
    };
    Ok(schema.fields().iter().enumerate().map(column).collect())
}

/// Turns batches into rows as described to the client.
#[derive(Clone)]
pub struct RowEncoder {
    schema: SchemaRef,
    formats: Vec<FieldFormat>,
}

impl RowEncoder {
    /// For columns described with `describe(schema, format)`.
    pub fn new(schema: SchemaRef, fields: &[FieldInfo]) -> RowEncoder {
        RowEncoder { schema, formats: fields.iter().map(FieldInfo::format).collect() }
    }

    pub fn encode(&self, batch: &RecordBatch) -> Result<Vec<DataRow>> {
        if batch.num_columns() != self.schema.fields().len() {
            return Err(Error::internal("the result has another number of columns than the plan"));
        }
        let mut columns = Vec::with_capacity(batch.num_columns());
        for ((array, field), format) in batch.columns().iter().zip(self.schema.fields()).zip(&self.formats) {
            let array = conform(array, field)?;
            let writer = match format {
                FieldFormat::Text => text::writer(&array)?,
                FieldFormat::Binary => match (Subtype::of(field), told(field)) {
                    (None, Some(kind)) => told_binary(&array, &kind)?,
                    (subtype, _) => binary::writer_of(&array, subtype)?,
                },
            };
            // Looks through dictionaries, whose NULLs may be in their values.
            columns.push((writer, array.logical_nulls()));
        }
        let mut rows = Vec::with_capacity(batch.num_rows());
        let mut buffer = BytesMut::with_capacity(batch.num_rows() * columns.len() * 12);
        for row in 0..batch.num_rows() {
            for (write, nulls) in &columns {
                let start = buffer.len();
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    buffer.extend_from_slice(&(-1i32).to_be_bytes());
                    continue;
                }
                buffer.extend_from_slice(&[0; 4]);
                write(row, &mut buffer);
                let length = (buffer.len() - start - 4) as i32;
                buffer[start..start + 4].copy_from_slice(&length.to_be_bytes());
            }
            rows.push(DataRow::new(buffer.split(), columns.len() as i16));
        }
        Ok(rows)
    }
}

/// The array in a type that is sent as `field` was announced.
fn conform(array: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if array.data_type() == field.data_type() || of_data(array.data_type()) == of_data(field.data_type()) {
        return Ok(Arc::clone(array));
    }
    let target = match field.data_type() {
        DataType::Null => &DataType::Utf8,
        other => other,
    };
    // A number that does not fit is an error and not NULL.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, target, &strict).map_err(|_| {
        Error::new(Kind::NotSupported, "cached plan must not change result type").with_detail(format!(
            "Column \"{}\" is {} instead of {target}.",
            field.name(),
            array.data_type()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, NullArray};

    #[test]
    fn a_row_is_length_prefixed_values() {
        let schema =
            Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Int32, true)]));
        let a: ArrayRef = Arc::new(Int32Array::from(vec![Some(12), None]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(&a), a]).unwrap();
        let fields = describe(&schema, &Format::Individual(vec![0, 1])).unwrap();
        let rows = RowEncoder::new(schema, &fields).encode(&batch).unwrap();
        assert_eq!(&rows[0].data[..], b"\0\0\0\x0212\0\0\0\x04\0\0\0\x0c");
        assert_eq!(&rows[1].data[..], b"\xff\xff\xff\xff\xff\xff\xff\xff");
    }

    #[test]
    fn a_column_announced_as_unknown_is_sent_as_text() {
        let planned = Arc::new(Schema::new(vec![Field::new("x", DataType::Null, true)]));
        let fields = describe(&planned, &Format::UnifiedBinary).unwrap();
        assert_eq!(fields[0].datatype(), &Type::TEXT);
        let encoder = RowEncoder::new(planned, &fields);
        for (array, expected) in [
            (Arc::new(Int32Array::from(vec![7])) as ArrayRef, &b"\0\0\0\x017"[..]),
            (Arc::new(NullArray::new(1)) as ArrayRef, b"\xff\xff\xff\xff"),
        ] {
            let schema = Schema::new(vec![Field::new("x", array.data_type().clone(), true)]);
            let batch = RecordBatch::try_new(Arc::new(schema), vec![array]).unwrap();
            assert_eq!(&encoder.encode(&batch).unwrap()[0].data[..], expected);
        }
    }

    #[test]
    fn formats_must_fit_the_columns() {
        let schema = Schema::new(vec![Field::new("x", DataType::Int32, true)]);
        assert!(describe(&schema, &Format::Individual(vec![0, 1])).is_err());
    }
}
