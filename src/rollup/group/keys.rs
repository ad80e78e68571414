//! Small numbers for groups: each combination of values in the grouping columns gets the next number, from 0.
//!
//! Logs repeat themselves: a status, a method, a path or a minute that was seen will be seen again at once. So each column
//! has, in front of the exact map of its values, a cache that is one look at one slot; what is found there was never
//! hashed and its bytes never read. A text is found by its *view* (Arrow's `Utf8View`): up to 12 bytes are all in there, and
//! of longer ones it says where in which buffer they are, which is the same as long as a file's dictionary page is.
//! Columns are then combined two by two, a pair of numbers being a value like any other.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, BooleanArray, StringViewBuilder, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType};
use datafusion::common::{HashMap, Result, internal_datafusion_err};

/// Slots of a cache at first, and at most: it grows with the values that were seen. 16 KiB to 1 MiB.
const SLOTS: (usize, usize) = (1 << 9, 1 << 15);

/// An odd number with its bits well spread: the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Whether a column of this type can be one of [`Keys`].
pub fn is_supported(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8View | DataType::Boolean) || width(data_type).is_some()
}

/// The bytes of a value of fixed width that is equal to another exactly if its bytes are. (Not so for floats.)
fn width(data_type: &DataType) -> Option<usize> {
    let is_exact = data_type.is_integer() || data_type.is_temporal();
    data_type.primitive_width().filter(|width| is_exact && *width <= 8)
}

/// The groups seen so far.
pub struct Keys {
    columns: Vec<Column>,
    /// `pairs[i]` combines what columns up to `i` gave with column `i + 1`.
    pairs: Vec<Words>,
    /// Of one batch: what the last pairs gave, and what one column gave.
    left: Vec<u32>,
    right: Vec<u32>,
}

impl Keys {
    /// All types have to be supported.
    pub fn new(types: impl IntoIterator<Item = DataType>) -> Keys {
        let columns: Vec<Column> = types.into_iter().map(Column::new).collect();
        let pairs = (1..columns.len()).map(|_| Words::default()).collect();
        Keys { columns, pairs, left: Vec::new(), right: Vec::new() }
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        match self.pairs.last() {
            Some(pairs) => pairs.values.len(),
            None => self.columns.first().map_or(0, Column::len),
        }
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        let columns: usize = self.columns.iter().map(Column::size).sum();
        let pairs: usize = self.pairs.iter().map(Words::size).sum();
        columns + pairs + (self.left.capacity() + self.right.capacity()) * size_of::<u32>()
    }

    /// The group of each row of a batch, appended to `groups`; `arrays` are its columns.
    pub fn number(&mut self, arrays: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        let (Some(first), rows) = (arrays.first(), arrays.first().map_or(0, |array| array.len())) else {
            return Ok(());
        };
        self.left.clear();
        self.columns[0].number(first, &mut self.left)?;
        for ((column, array), pairs) in self.columns[1..].iter_mut().zip(&arrays[1..]).zip(&mut self.pairs) {
            self.right.clear();
            column.number(array, &mut self.right)?;
            pairs.make_room(rows);
            for (left, right) in self.left.iter_mut().zip(&self.right) {
                *left = pairs.number(u64::from(*left) << 32 | u64::from(*right));
            }
        }
        groups.extend(self.left.iter().map(|group| *group as usize));
        Ok(())
    }

    /// The values of each group, by column; nothing is left.
    pub fn take(&mut self) -> Result<Vec<ArrayRef>> {
        let mut groups: Vec<u32> = (0..self.len() as u32).collect();
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (pairs, column) in self.pairs.iter().zip(&self.columns[1..]).rev() {
            let pair_of = |group: &u32| pairs.values[*group as usize];
            let own: Vec<u32> = groups.iter().map(|group| pair_of(group) as u32).collect();
            arrays.push(column.values(&own)?);
            groups.iter_mut().for_each(|group| *group = (pair_of(group) >> 32) as u32);
        }
        if let Some(first) = self.columns.first() {
            arrays.push(first.values(&groups)?);
        }
        arrays.reverse();
        *self = Keys::new(self.columns.iter().map(|column| column.data_type.clone()));
        Ok(arrays)
    }
}

struct Column {
    data_type: DataType,
    known: Known,
    /// The number of NULL, if it was seen.
    null: Option<u32>,
}

enum Known {
    Words(Words),
    Texts(Texts),
}

impl Column {
    fn new(data_type: DataType) -> Column {
        let known = match data_type {
            DataType::Utf8View => Known::Texts(Texts::default()),
            _ => Known::Words(Words::default()),
        };
        Column { data_type, known, null: None }
    }

    fn len(&self) -> usize {
        match &self.known {
            Known::Words(words) => words.values.len(),
            Known::Texts(texts) => texts.values.len(),
        }
    }

    fn size(&self) -> usize {
        match &self.known {
            Known::Words(words) => words.size(),
            Known::Texts(texts) => texts.size(),
        }
    }

    /// The number of each value.
    fn number(&mut self, array: &ArrayRef, numbers: &mut Vec<u32>) -> Result<()> {
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let (known, null) = (&mut self.known, &mut self.null);
        match known {
            Known::Texts(texts) => {
                let array = array.as_string_view_opt().ok_or_else(|| unexpected(&self.data_type, array))?;
                let value = |row: usize| array.value(row).as_bytes();
                texts.make_room(array.len());
                texts.see(array.data_buffers());
                let views = array.views();
                each(views.len(), nulls, numbers, |row| match row {
                    Some(row) => texts.number(views[row], || value(row)),
                    None => *null.get_or_insert_with(|| texts.add_null()),
                });
            }
            Known::Words(words) => {
                words.make_room(array.len());
                match width(&self.data_type) {
                    _ if *array.data_type() != self.data_type => return Err(unexpected(&self.data_type, array)),
                    Some(1) => number_words(&raw::<u8>(array), nulls, numbers, words, null),
                    Some(2) => number_words(&raw::<u16>(array), nulls, numbers, words, null),
                    Some(4) => number_words(&raw::<u32>(array), nulls, numbers, words, null),
                    Some(8) => number_words(&raw::<u64>(array), nulls, numbers, words, null),
                    _ => {
                        let bits: Vec<u8> = array.as_boolean().values().iter().map(u8::from).collect();
                        number_words(&bits, nulls, numbers, words, null);
                    }
                }
            }
        }
        Ok(())
    }

    /// The values of some numbers.
    fn values(&self, numbers: &[u32]) -> Result<ArrayRef> {
        let nulls = self.null.map(|null| BooleanBuffer::from_iter(numbers.iter().map(|number| *number != null)));
        let nulls = nulls.map(NullBuffer::new).filter(|nulls| nulls.null_count() > 0);
        let words = match &self.known {
            Known::Words(words) => words,
            Known::Texts(texts) => return Ok(texts.array(numbers, self.null)),
        };
        let words = numbers.iter().map(|number| words.values[*number as usize]);
        let buffer: Buffer = match width(&self.data_type) {
            Some(1) => words.map(|word| word as u8).collect(),
            Some(2) => words.map(|word| word as u16).collect(),
            Some(4) => words.map(|word| word as u32).collect(),
            Some(8) => words.collect(),
            _ => {
                let bits = BooleanBuffer::from_iter(words.map(|word| word != 0));
                return Ok(Arc::new(BooleanArray::new(bits, nulls)));
            }
        };
        let data = ArrayData::builder(self.data_type.clone()).len(numbers.len()).add_buffer(buffer).nulls(nulls);
        Ok(make_array(data.build()?))
    }
}

fn unexpected(wanted: &DataType, array: &ArrayRef) -> datafusion::common::DataFusionError {
    internal_datafusion_err!("a column to group by is of type {}, not {wanted}", array.data_type())
}

/// The values of an array of fixed width, as they are in memory.
fn raw<T: ArrowNativeType>(array: &ArrayRef) -> ScalarBuffer<T> {
    let data = array.to_data();
    ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
}

fn number_words<T: Copy + Into<u64>>(
    values: &[T],
    nulls: Option<NullBuffer>,
    numbers: &mut Vec<u32>,
    words: &mut Words,
    null: &mut Option<u32>,
) {
    each(values.len(), nulls, numbers, |row| match row {
        Some(row) => words.number(values[row].into()),
        None => *null.get_or_insert_with(|| words.add_null()),
    });
}

/// Appends a number for each row, or for `None` where it is NULL.
fn each(rows: usize, nulls: Option<NullBuffer>, numbers: &mut Vec<u32>, mut number: impl FnMut(Option<usize>) -> u32) {
    match nulls {
        None => numbers.extend((0..rows).map(|row| number(Some(row)))),
        Some(nulls) => numbers.extend((0..rows).map(|row| number(nulls.is_valid(row).then_some(row)))),
    }
}

/// Values of up to 64 bits.
#[derive(Default)]
struct Words {
    cache: Vec<(u64, u32)>,
    numbers: HashMap<u64, u32>,
    values: Vec<u64>,
}

/// No number: there are never so many.
const NONE: u32 = u32::MAX;

impl Words {
    fn size(&self) -> usize {
        self.cache.capacity() * size_of::<(u64, u32)>()
            + self.numbers.capacity() * (size_of::<(u64, u32)>() + 1)
            + self.values.capacity() * size_of::<u64>()
    }

    fn make_room(&mut self, rows: usize) {
        if let Some(slots) = more_slots(self.cache.len(), self.values.len(), rows) {
            self.cache = vec![(0, NONE); slots];
        }
    }

    fn number(&mut self, word: u64) -> u32 {
        let slot = (word.wrapping_mul(SPREAD) >> 32) as usize & (self.cache.len() - 1);
        let (known, number) = self.cache[slot];
        if known == word && number != NONE {
            return number;
        }
        let number = *self.numbers.entry(word).or_insert_with(|| {
            self.values.push(word);
            self.values.len() as u32 - 1
        });
        self.cache[slot] = (word, number);
        number
    }

    fn add_null(&mut self) -> u32 {
        self.values.push(0);
        self.values.len() as u32 - 1
    }
}

/// How large a cache should become, if it should.
fn more_slots(slots: usize, values: usize, rows: usize) -> Option<usize> {
    // Not for a handful of rows.
    let wanted = (values.max(rows.min(SLOTS.0)) * 2).next_power_of_two().clamp(SLOTS.0.min(64), SLOTS.1);
    (slots == 0 || values > slots && slots < wanted).then_some(wanted)
}

/// Texts, as views.
#[derive(Default)]
struct Texts {
    cache: Vec<Slot>,
    numbers: HashMap<Arc<[u8]>, u32>,
    values: Vec<Arc<[u8]>>,
    /// Bytes of all values.
    bytes: usize,
    /// The buffers that views of long texts point into; they are held so that no others can be in their place.
    buffers: Vec<Buffer>,
    /// Counts how often these have changed.
    epoch: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    view: u128,
    number: u32,
    /// Of a long text: in which epoch its view was that of this value.
    epoch: u32,
}

/// A text of so many bytes is all in its view.
const INLINE: u32 = 12;

impl Texts {
    fn size(&self) -> usize {
        // Values have a header of two counts; the buffers are somebody else's, as long as they are in use.
        let per_value = 2 * size_of::<Arc<[u8]>>() + size_of::<u32>() + 1 + 16;
        self.cache.capacity() * size_of::<Slot>() + self.values.capacity() * per_value + self.bytes
    }

    fn make_room(&mut self, rows: usize) {
        if let Some(slots) = more_slots(self.cache.len(), self.values.len(), rows) {
            self.cache = vec![Slot { view: 0, number: NONE, epoch: 0 }; slots];
        }
    }

    /// Views point into these buffers from now on.
    fn see(&mut self, buffers: &[Buffer]) {
        let same = |(old, new): (&Buffer, &Buffer)| old.as_ptr() == new.as_ptr() && old.len() == new.len();
        if self.buffers.len() != buffers.len() || !self.buffers.iter().zip(buffers).all(same) {
            self.buffers = buffers.to_vec();
            self.epoch = self.epoch.wrapping_add(1).max(1);
        }
    }

    fn number<'a>(&mut self, view: u128, bytes: impl FnOnce() -> &'a [u8]) -> u32 {
        let epoch = if view as u32 <= INLINE { 0 } else { self.epoch };
        let folded = (view as u64 ^ (view >> 64) as u64).wrapping_mul(SPREAD);
        let slot = (folded >> 32) as usize & (self.cache.len() - 1);
        let known = self.cache[slot];
        if known.view == view && known.epoch == epoch && known.number != NONE {
            return known.number;
        }
        let number = self.look_up(bytes());
        self.cache[slot] = Slot { view, number, epoch };
        number
    }

    fn look_up(&mut self, bytes: &[u8]) -> u32 {
        if let Some(number) = self.numbers.get(bytes) {
            return *number;
        }
        let value: Arc<[u8]> = bytes.into();
        let number = self.values.len() as u32;
        self.values.push(Arc::clone(&value));
        self.numbers.insert(value, number);
        self.bytes += bytes.len();
        number
    }

    fn add_null(&mut self) -> u32 {
        self.values.push(Arc::from([]));
        self.values.len() as u32 - 1
    }

    fn array(&self, numbers: &[u32], null: Option<u32>) -> ArrayRef {
        let mut builder = StringViewBuilder::with_capacity(numbers.len());
        for number in numbers {
            let bytes = &self.values[*number as usize];
            match std::str::from_utf8(bytes) {
                Ok(text) if Some(*number) != null => builder.append_value(text),
                // They came out of texts.
                Ok(_) | Err(_) => builder.append_null(),
            }
        }
        Arc::new(builder.finish())
    }
}
