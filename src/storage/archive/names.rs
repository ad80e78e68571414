//! What is a column of the stream called in the archive, and what type has it there?
//!
//! A stream's column may be called anything (JSON keys are), but Delta forbids some characters in names and compares
//! names without case. So each column gets a legal name, the same one wherever possible, when a file first has it. The
//! pair stands in the table's schema: the field's metadata says under [`LABEL`] what the stream calls it. Therefore a
//! name never changes, and opening the table finds it again.
//!
//! A column is known by its name and its type: one that comes back with another type (a log whose format was declared
//! anew) gets a column of its own, because what is in a Delta table cannot change its type.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use deltalake_core::kernel as delta;

use super::{DAY, OFFSET, WATERMARK};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;

/// Metadata of a Delta field: the column's name in the stream.
const LABEL: &str = "logweir.name";

/// Characters that Delta refuses in names of columns.
const FORBIDDEN: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// The columns of the archive that are the stream's, in the table's order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Names {
    columns: Vec<Column>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub stream: String,
    pub archive: String,
    /// As it is stored; `Null` for types that only other tools write.
    pub data_type: DataType,
}

impl Names {
    /// The names that the schema of a table tells.
    pub fn read(schema: &delta::StructType) -> Names {
        let own = |name: &str| [OFFSET, WATERMARK, DAY].contains(&name);
        let fields = schema.fields().filter(|field| !own(field.name()));
        let columns = fields.map(|field| Column {
            stream: match field.metadata().get(LABEL) {
                Some(delta::MetadataValue::String(name)) => name.clone(),
                Some(_) | None => field.name().clone(),
            },
            archive: field.name().clone(),
            data_type: arrow_type(field.data_type()).unwrap_or(DataType::Null),
        });
        Names { columns: columns.collect() }
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The columns that hold what the stream calls `name`: the one of this type first.
    pub fn find(&self, name: &str, data_type: &DataType) -> Vec<&Column> {
        let stored = stored_type(data_type);
        let mut found: Vec<&Column> = self.columns.iter().filter(|c| c.stream == name).collect();
        found.sort_by_key(|c| c.data_type != stored);
        found
    }

    /// The column of this name and type.
    pub fn find_exact(&self, name: &str, data_type: &DataType) -> Option<&str> {
        let stored = stored_type(data_type);
        self.columns.iter().find(|c| c.stream == name && c.data_type == stored).map(|c| c.archive.as_str())
    }

    /// The column for values of this name and type, which is made if it is new.
    pub fn assign(&mut self, name: &str, data_type: &DataType) -> &Column {
        let stored = stored_type(data_type);
        let known = self.columns.iter().position(|c| c.stream == name && c.data_type == stored);
        let index = known.unwrap_or_else(|| {
            let archive = self.free_name(name);
            self.columns.push(Column { stream: name.to_string(), archive, data_type: stored });
            self.columns.len() - 1
        });
        &self.columns[index]
    }

    /// A name that no column of the archive has.
    pub fn free_name(&self, name: &str) -> String {
        let replace = |c: char| if FORBIDDEN.contains(&c) || c.is_control() { '_' } else { c };
        let mut legal: String = name.chars().map(replace).collect();
        if legal.is_empty() {
            legal.push('_');
        }
        let lower = |text: &str| text.to_lowercase();
        let taken = |name: &str| {
            let name = lower(name);
            [OFFSET, WATERMARK, DAY].contains(&name.as_str()) || self.columns.iter().any(|c| lower(&c.archive) == name)
        };
        if !taken(&legal) {
            return legal;
        }
        let numbered = (2..).map(|n| format!("{legal}_{n}")).find(|name| !taken(name));
        numbered.expect("there are more numbers than columns")
    }

    /// The fields of the columns, for the table's schema.
    pub fn fields(&self) -> Result<Vec<delta::StructField>> {
        let field = |column: &Column| {
            let data_type = delta_type(&column.data_type)?;
            let field = delta::StructField::nullable(&column.archive, data_type);
            Ok(if column.archive == column.stream {
                field
            } else {
                field.with_metadata([(LABEL, delta::MetadataValue::String(column.stream.clone()))])
            })
        };
        self.columns.iter().map(field).collect()
    }
}

/// The fields of the archive's own columns.
pub fn own_fields() -> Vec<delta::StructField> {
    vec![
        delta::StructField::not_null(OFFSET, delta::DataType::LONG),
        delta::StructField::nullable(WATERMARK, delta::DataType::TIMESTAMP),
        delta::StructField::nullable(DAY, delta::DataType::DATE),
    ]
}

/// The type in which values of a type are stored: what Delta has no type for becomes the next wider one, or text.
pub fn stored_type(data_type: &DataType) -> DataType {
    let item = |field: &Field| Arc::new(Field::new("element", stored_type(field.data_type()), true));
    match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Utf8
        | DataType::Binary => data_type.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => timestamp_type(),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => DataType::List(item(field)),
        DataType::Struct(fields) => {
            let stored = fields.iter().map(|f| Field::new(f.name(), stored_type(f.data_type()), true));
            DataType::Struct(stored.collect())
        }
        DataType::Dictionary(_, values) => stored_type(values),
        DataType::RunEndEncoded(_, values) => stored_type(values.data_type()),
        DataType::Null
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..)
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::Union(..)
        | DataType::Map(..) => DataType::Utf8,
    }
}

fn delta_type(stored: &DataType) -> Result<delta::DataType> {
    Ok(match stored {
        DataType::Boolean => delta::DataType::BOOLEAN,
        DataType::Int8 => delta::DataType::BYTE,
        DataType::Int16 => delta::DataType::SHORT,
        DataType::Int32 => delta::DataType::INTEGER,
        DataType::Int64 => delta::DataType::LONG,
        DataType::Float32 => delta::DataType::FLOAT,
        DataType::Float64 => delta::DataType::DOUBLE,
        DataType::Date32 => delta::DataType::DATE,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => delta::DataType::TIMESTAMP,
        DataType::Utf8 => delta::DataType::STRING,
        DataType::Binary => delta::DataType::BINARY,
        DataType::List(field) => delta::ArrayType::new(delta_type(field.data_type())?, true).into(),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|f| Ok(delta::StructField::nullable(f.name(), delta_type(f.data_type())?)));
            let fields = fields.collect::<Result<Vec<_>>>()?;
            let built = delta::StructType::try_new(fields);
            built.map_err(|err| Error::new(Kind::Datatype, format!("a struct cannot be archived: {err}")))?.into()
        }
        other => return Err(Error::new(Kind::Datatype, format!("values of type {other} cannot be archived"))),
    })
}

fn arrow_type(data_type: &delta::DataType) -> Option<DataType> {
    match data_type {
        delta::DataType::Primitive(primitive) => match primitive {
            delta::PrimitiveType::String => Some(DataType::Utf8),
            delta::PrimitiveType::Long => Some(DataType::Int64),
            delta::PrimitiveType::Integer => Some(DataType::Int32),
            delta::PrimitiveType::Short => Some(DataType::Int16),
            delta::PrimitiveType::Byte => Some(DataType::Int8),
            delta::PrimitiveType::Float => Some(DataType::Float32),
            delta::PrimitiveType::Double => Some(DataType::Float64),
            delta::PrimitiveType::Boolean => Some(DataType::Boolean),
            delta::PrimitiveType::Binary => Some(DataType::Binary),
            delta::PrimitiveType::Date => Some(DataType::Date32),
            delta::PrimitiveType::Timestamp => Some(timestamp_type()),
            // Types that this archive never gives a column.
            _ => None,
        },
        delta::DataType::Array(array) => {
            let item = Field::new("element", arrow_type(array.element_type())?, true);
            Some(DataType::List(Arc::new(item)))
        }
        delta::DataType::Struct(fields) => {
            let fields = fields.fields().map(|f| Some(Field::new(f.name(), arrow_type(f.data_type())?, true)));
            Some(DataType::Struct(fields.collect::<Option<Vec<_>>>()?.into()))
        }
        delta::DataType::Map(_) | delta::DataType::Variant(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_where_they_are_legal_and_unique_where_not() {
        let mut names = Names::default();
        let text = DataType::Utf8View;
        let given = ["path", "Path", "a b", "a_b", "", "_offset", "x=1;y", "k8s.io/app", "größe", "_day_2", "_DAY"];
        let archived: Vec<String> = given.iter().map(|name| names.assign(name, &text).archive.clone()).collect();
        let expected =
            ["path", "Path_2", "a_b", "a_b_2", "_", "_offset_2", "x_1_y", "k8s.io/app", "größe", "_day_2", "_DAY_3"];
        assert_eq!(archived, expected);
        assert_eq!(names.assign("a b", &DataType::Utf8).archive, "a_b", "a text is a text");
        assert_eq!(names.assign("a b", &DataType::Int64).archive, "a_b_3", "another type is another column");
        let found: Vec<&str> = names.find("a b", &DataType::Int64).iter().map(|c| c.archive.as_str()).collect();
        assert_eq!(found, ["a_b_3", "a_b"]);
    }

    #[test]
    fn a_schema_tells_its_names_again() {
        let mut names = Names::default();
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true)));
        let types = [DataType::Utf8View, DataType::Int16, DataType::Float64, DataType::Boolean, timestamp_type(), list];
        for (i, data_type) in types.iter().enumerate() {
            names.assign(&format!("column {i}"), data_type);
        }
        let fields = names.fields().unwrap().into_iter().chain(own_fields());
        let schema = delta::StructType::try_new(fields).unwrap();
        let again = serde_json::from_str(&serde_json::to_string(&schema).unwrap()).unwrap();
        assert_eq!(Names::read(&again), names);
    }
}
