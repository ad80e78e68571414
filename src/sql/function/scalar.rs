//! A scalar function of ours: a row of a table, and what all of them share.
//!
//! Each [`Scalar`] takes columns of fixed types ([`Type`]; DataFusion casts what it is given, so that a function knows
//! one kind of text) and gives one column. The rules are the same for all: NULL in gives NULL out, and the result depends
//! on the arguments alone, so that a function may stand below an aggregate that is kept up to date. In our own functions a
//! value that cannot be read gives NULL and never an error; only a constant of the query itself (a pattern, a network) is
//! refused when it is wrong, while the query is planned. Functions of PostgreSQL do as PostgreSQL does, errors included.
//!
//! Texts that are parts of other texts are not copied: see [`Texts`].

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, ByteView, NullBufferBuilder, PrimitiveArray,
    StringViewArray, make_view,
};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::error::{Error, Kind, Result};
use crate::format::subtype::Subtype;
use crate::format::timestamp_type;
use crate::registry::Entry;
use crate::sql::statement::type_name;

use super::series;

/// Types of arguments and results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Text,
    Boolean,
    /// PostgreSQL's `integer`.
    Integer,
    Bigint,
    Double,
    Interval,
    /// `timestamptz`.
    Time,
    /// Arrays of `text[]`.
    TextLists,
    /// `double precision[]`.
    Doubles,
    /// `bigint[]`.
    Bigints,
    /// `text[]`.
    Texts,
    /// `bytea`.
    Bytes,
    Date,
    /// `time`.
    Clock,
    /// `timestamp`.
    Timestamp,
    /// Texts that are more than texts; as arguments they are texts.
    Of(Subtype),
    /// Arrays of them.
    Many(Subtype),
    /// One argument of any type; as a result, that of the first argument.
    Any,
    /// Any number of arguments of any type; as the last argument only.
    Anys,
    /// As a result: the type of the elements of the last argument, an array.
    Element,
    /// As a result: an array of the first argument's type.
    Series,
    /// As a result: text, or the kind of JSON that the first argument is.
    JsonLike,
    /// As a result: `timestamp` where the last argument is `timestamptz`, and the other way round.
    OtherZone,
    /// Any number of keys (text) and positions (whole numbers); as the last argument only.
    Path,
}

impl Type {
    pub fn arrow(self) -> DataType {
        let list = |of: DataType| DataType::List(Arc::new(Field::new_list_field(of, true)));
        match self {
            Type::Text => DataType::Utf8View,
            Type::Boolean => DataType::Boolean,
            Type::Integer => DataType::Int32,
            Type::Bigint => DataType::Int64,
            Type::Double => DataType::Float64,
            Type::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Type::Time => timestamp_type(),
            Type::Doubles => list(DataType::Float64),
            Type::Bigints => list(DataType::Int64),
            Type::Texts => list(DataType::Utf8View),
            Type::TextLists => list(list(DataType::Utf8View)),
            Type::Bytes => DataType::Binary,
            Type::Date => DataType::Date32,
            Type::Clock => DataType::Time64(TimeUnit::Microsecond),
            Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Type::Path | Type::Of(_) | Type::Any | Type::Anys | Type::Element | Type::JsonLike => DataType::Utf8View,
            Type::OtherZone => timestamp_type(),
            Type::Many(subtype) => DataType::List(Arc::new(subtype.field(Field::LIST_FIELD_DEFAULT_NAME))),
            Type::Series => list(DataType::Utf8View),
        }
    }

    /// The field of a result of this type, for these arguments.
    fn field(self, name: &str, arguments: &[FieldRef]) -> Field {
        let like = |data_type: &DataType| match data_type {
            DataType::Null => DataType::Utf8View,
            other => other.clone(),
        };
        match (self, arguments) {
            (Type::Of(subtype), _) => subtype.field(name),
            (Type::Any, [first, ..]) => {
                Field::new(name, like(first.data_type()), true).with_metadata(first.metadata().clone())
            }
            (Type::JsonLike, [first, ..]) => {
                let metadata = match Subtype::of(first) {
                    Some(subtype) if subtype.is_json() => subtype.metadata(),
                    _ => Default::default(),
                };
                Field::new(name, DataType::Utf8View, true).with_metadata(metadata)
            }
            (Type::OtherZone, [.., last]) => match last.data_type() {
                DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64 => {
                    Field::new(name, timestamp_type(), true)
                }
                _ => Field::new(name, Type::Timestamp.arrow(), true),
            },
            (Type::Element, [.., last]) => match last.data_type() {
                DataType::List(of) | DataType::LargeList(of) => {
                    Field::new(name, of.data_type().clone(), true).with_metadata(of.metadata().clone())
                }
                other => Field::new(name, like(other), true),
            },
            (Type::Series, [first, ..]) => {
                let of = Field::new_list_field(series::element(first.data_type()), true);
                Field::new(name, DataType::List(Arc::new(of)), true)
            }
            _ => Field::new(name, self.arrow(), true),
        }
    }

    /// Whether an argument of this type is taken as it is.
    fn is_any(self) -> bool {
        matches!(self, Type::Any | Type::Anys)
    }

    /// What an argument of type `given` is cast to for this one; `None` where it does not fit.
    fn coerced(self, given: &DataType) -> Option<DataType> {
        let wanted = self.arrow();
        let fits = match given {
            _ if self.is_any() => {
                return Some(if given.is_null() { DataType::Utf8View } else { given.clone() });
            }
            DataType::Null => true,
            DataType::Dictionary(_, of) => return self.coerced(of),
            given if *given == wanted => true,
            // A literal may stand for any type.
            given if given.is_string() => true,
            given if given.is_numeric() => wanted.is_numeric() && (wanted.is_floating() || given.is_integer()),
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                matches!(wanted, DataType::Timestamp(..))
            }
            DataType::Interval(_) | DataType::Duration(_) => matches!(wanted, DataType::Interval(_)),
            DataType::Time32(_) | DataType::Time64(_) => matches!(wanted, DataType::Time64(_)),
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
                matches!(wanted, DataType::List(_))
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                wanted == DataType::Binary
            }
            _ => false,
        };
        fits.then_some(wanted)
    }
}

/// One row of the table of scalar functions.
#[derive(Debug)]
pub struct Scalar {
    pub name: &'static str,
    pub syntax: &'static str,
    pub summary: &'static str,
    /// A call, and its result as psql shows it.
    pub sample: (&'static str, &'static str),
    /// The lists of arguments it takes.
    pub forms: &'static [&'static [Type]],
    pub result: Type,
    /// Refuses constants that cannot be meant; `None` where an argument is no text or not constant.
    pub check: fn(&[Option<&str>]) -> Result<()>,
    /// The result for a batch of rows.
    pub rows: fn(&Arguments<'_>) -> DfResult<ArrayRef>,
}

impl Entry for Scalar {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

/// Any constant will do.
pub fn unchecked(_: &[Option<&str>]) -> Result<()> {
    Ok(())
}

impl Scalar {
    /// As a function that DataFusion can call.
    pub fn udf(&'static self) -> ScalarUDF {
        let takes_path = self.forms.iter().any(|form| form.contains(&Type::Path));
        let takes_any = self.forms.iter().flat_map(|form| form.iter()).any(|t| t.is_any());
        let exact = |form: &&[Type]| TypeSignature::Exact(form.iter().map(|t| t.arrow()).collect());
        let types = match self.forms {
            _ if takes_path => TypeSignature::VariadicAny,
            _ if takes_any => TypeSignature::UserDefined,
            [form] => exact(form),
            forms => TypeSignature::OneOf(forms.iter().map(exact).collect()),
        };
        ScalarUDF::new_from_impl(Function { scalar: self, signature: Signature::new(types, Volatility::Immutable) })
    }

    fn takes_path(&self) -> bool {
        self.forms.iter().any(|form| form.contains(&Type::Path))
    }
}

#[derive(Debug)]
struct Function {
    scalar: &'static Scalar,
    signature: Signature,
}

/// Names are unique.
impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.scalar.name == other.scalar.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.scalar.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.scalar.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        if self.scalar.takes_path() {
            super::json::check_types(self.scalar, arguments)?;
        }
        let fields: Vec<FieldRef> = arguments.iter().map(|t| Arc::new(Field::new("", t.clone(), true))).collect();
        Ok(self.scalar.result.field(self.scalar.name, &fields).data_type().clone())
    }

    /// Only of functions that take any types.
    fn coerce_types(&self, given: &[DataType]) -> DfResult<Vec<DataType>> {
        let fitted = self.scalar.forms.iter().find_map(|form| {
            let (fixed, rest) = match form {
                [fixed @ .., Type::Anys] => (fixed, Some(Type::Anys)),
                form => (*form, None),
            };
            let fits = if rest.is_some() { given.len() >= fixed.len() } else { given.len() == fixed.len() };
            let types = fixed
                .iter()
                .copied()
                .chain(std::iter::repeat_n(Type::Anys, given.len() - fixed.len().min(given.len())));
            if fits {
                types.zip(given).map(|(t, given)| t.coerced(given)).collect::<Option<Vec<DataType>>>()
            } else {
                None
            }
        });
        fitted.ok_or_else(|| {
            let given: Vec<String> = given.iter().map(type_name).collect();
            let call = format!("{}({})", self.scalar.name, given.join(", "));
            Error::new(Kind::UndefinedFunction, format!("function {call} does not exist"))
                .with_hint(format!("The form is {}.", self.scalar.syntax))
                .into()
        })
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let constants: Vec<Option<&str>> =
            arguments.scalar_arguments.iter().map(|value| value.and_then(|v| v.try_as_str().flatten())).collect();
        (self.scalar.check)(&constants)?;
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        self.return_type(&types)?;
        Ok(Arc::new(self.scalar.result.field(self.scalar.name, arguments.arg_fields)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let fields = &arguments.arg_fields;
        let result = (self.scalar.rows)(&Arguments { values: &arguments.args, fields, rows })?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// What a function is called with.
pub struct Arguments<'a> {
    pub values: &'a [ColumnarValue],
    /// What is known of each; may be longer than `values`, or empty.
    pub fields: &'a [FieldRef],
    pub rows: usize,
}

/// An argument that is either the same in all rows or a column.
pub enum Column<'a, V, A> {
    One(Option<V>),
    Many(&'a A),
}

pub type TextColumn<'a> = Column<'a, &'a str, StringViewArray>;
pub type NumberColumn<'a, T> = Column<'a, <T as ArrowPrimitiveType>::Native, PrimitiveArray<T>>;

impl<'a> TextColumn<'a> {
    #[inline]
    pub fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Column::One(value) => *value,
            Column::Many(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }
}

impl<T: ArrowPrimitiveType> NumberColumn<'_, T> {
    #[inline]
    pub fn get(&self, row: usize) -> Option<T::Native> {
        match self {
            Column::One(value) => *value,
            Column::Many(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }
}

impl<'a> Arguments<'a> {
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// Argument `i` as text.
    pub fn text(&self, i: usize) -> DfResult<TextColumn<'a>> {
        match &self.values[i] {
            ColumnarValue::Scalar(value) => Ok(Column::One(value.try_as_str().flatten())),
            ColumnarValue::Array(array) => {
                array.as_string_view_opt().map(Column::Many).ok_or_else(|| wrong_type(array))
            }
        }
    }

    /// Argument `i` as numbers.
    pub fn numbers<T: ArrowPrimitiveType>(&self, i: usize) -> DfResult<NumberColumn<'a, T>> {
        match &self.values[i] {
            ColumnarValue::Scalar(value) => {
                let array = value.to_array()?;
                if array.data_type() == &DataType::Null {
                    return Ok(Column::One(None));
                }
                let array = array.as_primitive_opt::<T>().ok_or_else(|| wrong_type(&array))?;
                Ok(Column::One(array.is_valid(0).then(|| array.value(0))))
            }
            ColumnarValue::Array(array) => array.as_primitive_opt().map(Column::Many).ok_or_else(|| wrong_type(array)),
        }
    }

    /// What the texts of argument `i` are, if they are more than texts.
    pub fn subtype(&self, i: usize) -> Option<Subtype> {
        self.fields.get(i).and_then(|field| Subtype::of(field))
    }

    /// Argument `i` as an array with a value for each row.
    pub fn array(&self, i: usize) -> DfResult<ArrayRef> {
        self.values[i].to_array(self.rows)
    }
}

fn wrong_type(array: &ArrayRef) -> datafusion::error::DataFusionError {
    Error::internal(format!("a function was given a column of type {}", array.data_type())).into()
}

/// A column of numbers from the value of each row.
pub fn numbers<T: ArrowPrimitiveType>(rows: usize, value: impl FnMut(usize) -> Option<T::Native>) -> ArrayRef {
    Arc::new((0..rows).map(value).collect::<PrimitiveArray<T>>())
}

/// A column of texts from the value of each row.
pub fn texts(rows: usize, mut value: impl FnMut(usize) -> DfResult<Option<String>>) -> DfResult<ArrayRef> {
    let mut texts = Texts::new(rows);
    for row in 0..rows {
        match value(row)? {
            Some(text) => texts.push(&text),
            None => texts.push_null(),
        }
    }
    Ok(texts.finish())
}

/// A column of truth values from the value of each row.
pub fn booleans(rows: usize, value: impl FnMut(usize) -> Option<bool>) -> ArrayRef {
    Arc::new((0..rows).map(value).collect::<BooleanArray>())
}

/// The text column made by a function of the first argument, a text, and the number of the row. A result that is a
/// part of the text it was made from is not copied.
pub fn map_text(
    arguments: &Arguments<'_>,
    mut value: impl for<'t> FnMut(&'t str, usize) -> Option<Cow<'t, str>>,
) -> DfResult<ArrayRef> {
    let array = arguments.array(0)?;
    let array = array.as_string_view_opt().ok_or_else(|| wrong_type(&array))?;
    let mut texts = Texts::of(array);
    for row in 0..array.len() {
        if array.is_null(row) {
            texts.push_null();
            continue;
        }
        let whole = array.value(row);
        match value(whole, row) {
            Some(part) => texts.push_part(row, whole, &part),
            None => texts.push_null(),
        }
    }
    Ok(texts.finish())
}

/// Views shorter than this hold their bytes themselves (Arrow columnar format, "variable-size binary view layout").
const INLINE: usize = 12;

/// Buffers of new texts are closed at this size: a view's offset has 32 bits, and readers take it as signed.
const OWN_BUFFER_BYTES: usize = 1 << 30;

/// A text column under construction. Its values point into the column they were cut from, or into buffers of their own
/// when they are new.
pub struct Texts<'a> {
    source: Option<&'a StringViewArray>,
    views: Vec<u128>,
    nulls: NullBufferBuilder,
    /// Whether any view points into the source: if none does, the result need not keep it alive.
    points_into_source: bool,
    /// Texts that are not in the source: full buffers, and the one being filled.
    full: Vec<Buffer>,
    own: Vec<u8>,
}

impl<'a> Texts<'a> {
    /// Of new texts only.
    pub fn new(rows: usize) -> Texts<'static> {
        Texts {
            source: None,
            views: Vec::with_capacity(rows),
            nulls: NullBufferBuilder::new(rows),
            points_into_source: false,
            full: Vec::new(),
            own: Vec::new(),
        }
    }

    /// Of texts that are mostly parts of those in `source`.
    pub fn of(source: &'a StringViewArray) -> Texts<'a> {
        Texts { source: Some(source), ..Texts::new(source.len()) }
    }

    fn source_buffers(&self) -> &'a [Buffer] {
        self.source.map_or(&[], |source| source.data_buffers())
    }

    /// Appends `part`, which may lie inside `whole`, the value of the source in `row`.
    #[inline]
    pub fn push_part(&mut self, row: usize, whole: &str, part: &str) {
        if part.len() <= INLINE {
            self.views.push(make_view(part.as_bytes(), 0, 0));
            self.nulls.append_non_null();
            return;
        }
        // Of a part of a longer text its place is known; anything else is copied.
        let place = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize);
        match (place.filter(|place| place + part.len() <= whole.len()), self.source) {
            (Some(place), Some(source)) if std::ptr::eq(source.value(row), whole) => {
                let view = ByteView::from(source.views()[row]);
                self.views.push(make_view(part.as_bytes(), view.buffer_index, view.offset + place as u32));
                self.nulls.append_non_null();
                self.points_into_source = true;
            }
            _ => self.push(part),
        }
    }

    /// Appends a new text.
    pub fn push(&mut self, text: &str) {
        if self.own.len() + text.len() > OWN_BUFFER_BYTES {
            self.full.push(Buffer::from(std::mem::take(&mut self.own)));
        }
        let index = self.source_buffers().len() + self.full.len();
        self.views.push(make_view(text.as_bytes(), index as u32, self.own.len() as u32));
        self.nulls.append_non_null();
        if text.len() > INLINE {
            self.own.extend_from_slice(text.as_bytes());
        }
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.views.push(0);
        self.nulls.append_null();
    }

    /// Appends the value of an earlier row of this column, which must not be NULL.
    #[inline]
    pub fn push_again(&mut self, row: usize) {
        self.views.push(self.views[row]);
        self.nulls.append_non_null();
    }

    pub fn finish(mut self) -> ArrayRef {
        let mut buffers: Vec<Buffer> = match self.points_into_source {
            true => self.source_buffers().to_vec(),
            false if self.full.is_empty() && self.own.is_empty() => Vec::new(),
            false => vec![Buffer::from(Vec::<u8>::new()); self.source_buffers().len()],
        };
        buffers.append(&mut self.full);
        if !self.own.is_empty() {
            buffers.push(Buffer::from(self.own));
        }
        let nulls = self.nulls.finish();
        // SAFETY: every view holds its bytes itself or lies inside its buffer, and all bytes are those of a `str`:
        // `push_part` points at a `str` inside a value of the source, which it checks, `push` at what it appends, and
        // `push_again` repeats one of these.
        Arc::new(unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(self.views), buffers, nulls) })
    }
}

/// An error about a constant of the query.
pub fn bad_constant(kind: Kind, what: &str, value: &str, why: &str) -> Error {
    Error::new(kind, format!("\"{value}\" is not {what}")).with_detail(why.to_string())
}
