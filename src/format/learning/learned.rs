//! What a format has learned about its columns. Columns are only ever added, at the end.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::format::Declared;
use crate::format::typed::Kind;

/// The columns known so far.
pub struct Learned {
    /// A column keeps its index here.
    columns: Vec<Column>,
    /// Those that had a type at the end of a block, in the order in which that was so: the columns of the schema.
    typed: Vec<usize>,
    by_key: HashMap<String, usize>,
    /// The column of the event time.
    time: Option<usize>,
    /// The column of members beyond the limit.
    rest: Option<usize>,
    /// Types of columns that may come.
    types: Vec<Declared>,
    schema: SchemaRef,
}

/// What a checkpoint keeps of it.
#[derive(Serialize, Deserialize)]
pub struct Saved {
    columns: Vec<SavedColumn>,
    /// Missing in checkpoints of versions whose columns all had a type: then they are in their order.
    #[serde(default)]
    typed: Option<Vec<usize>>,
    time: Option<usize>,
    rest: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct SavedColumn {
    name: String,
    key: Option<String>,
    kind: Option<Kind>,
    converts: bool,
    /// For texts, and for numbers.
    siblings: (Option<usize>, Option<usize>),
}

struct Column {
    name: String,
    /// The member it holds; none for siblings and `_rest`.
    key: Option<String>,
    /// Unknown until the end of the block in which its first value is.
    kind: Option<Kind>,
    data_type: DataType,
    /// Whether it takes values of other types that convert: a declared column or a sibling.
    converts: bool,
    text_sibling: Option<usize>,
    double_sibling: Option<usize>,
}

impl Learned {
    /// Starts with the declared columns, and with the one of `time_field` if it is named. `types` says the types of
    /// columns that may come.
    pub fn new(declared: &[Declared], types: &[Declared], time_field: Option<&str>) -> Result<Learned> {
        let mut learned = Learned {
            columns: Vec::new(),
            typed: Vec::new(),
            by_key: HashMap::new(),
            time: None,
            rest: None,
            types: types.to_vec(),
            schema: Arc::new(Schema::empty()),
        };
        for column in types {
            Kind::of(&column.name, &column.data_type)?;
        }
        for column in declared {
            let kind = Kind::of(&column.name, &column.data_type)?;
            if learned.by_key.contains_key(&column.name) {
                return Err(Error::new(
                    ErrorKind::DuplicateObject,
                    format!("column \"{}\" is declared twice", column.name),
                ));
            }
            let index = learned.push(&column.name, Some(column.name.clone()), None);
            learned.by_key.insert(column.name.clone(), index);
            learned.fix(index, kind, &column.data_type);
        }
        if let Some(name) = time_field {
            let declared_type = declared.iter().chain(types).find(|c| c.name == name).map(|c| &c.data_type);
            if let Some(data_type) = declared_type.filter(|t| **t != Kind::Time.data_type()) {
                return Err(Error::new(
                    ErrorKind::Datatype,
                    format!("time field \"{name}\" is declared as {data_type}, not as timestamptz"),
                ));
            }
            learned.time_index(|| name.to_string());
        }
        Ok(learned)
    }

    /// All that is known, for [`Learned::recall`].
    pub fn save(&mut self) -> Saved {
        let column = |column: &Column| SavedColumn {
            name: column.name.clone(),
            key: column.key.clone(),
            kind: column.kind,
            converts: column.converts,
            siblings: (column.text_sibling, column.double_sibling),
        };
        let columns = self.columns.iter().map(column).collect();
        Saved { columns, typed: Some(self.typed().to_vec()), time: self.time, rest: self.rest }
    }

    /// Goes on from what was known once. The columns that are there already, because they are declared, are the first.
    pub fn recall(&mut self, saved: Saved) -> Result<(), &'static str> {
        let count = saved.columns.len();
        let with_type = || (0..count).filter(|index| saved.columns[*index].kind.is_some());
        let typed = saved.typed.clone().unwrap_or_else(|| with_type().collect());
        let inside = |index: Option<usize>| index.is_none_or(|index| index < count);
        let fits = |column: &SavedColumn| inside(column.siblings.0) && inside(column.siblings.1);
        let places = typed.iter().all(|index| *index < count);
        if !saved.columns.iter().all(fits) || !inside(saved.time) || !inside(saved.rest) || !places {
            return Err("a column is named that is not there");
        }
        let mut sorted = typed.clone();
        sorted.sort_unstable();
        if !with_type().eq(sorted) {
            return Err("a column has a type and none");
        }
        if !self.columns.iter().zip(&saved.columns).all(|(own, saved)| own.name == saved.name)
            || count < self.columns.len()
        {
            return Err("they do not begin with the declared columns");
        }
        for (index, saved) in saved.columns.into_iter().enumerate() {
            if index == self.columns.len() {
                let given = saved.key.as_deref().and_then(|key| self.type_of(key));
                let given = given.filter(|(kind, _)| saved.converts && saved.kind == Some(*kind));
                let data_type = given.map_or(saved.kind.unwrap_or(Kind::Text).data_type(), |(_, data_type)| data_type);
                let (name, key, kind, converts) = (saved.name, saved.key, saved.kind, saved.converts);
                if let Some(key) = &key {
                    self.by_key.insert(key.clone(), index);
                }
                let (text_sibling, double_sibling) = (None, None);
                self.columns.push(Column { name, key, kind, data_type, converts, text_sibling, double_sibling });
            }
            let column = &mut self.columns[index];
            (column.text_sibling, column.double_sibling) = saved.siblings;
        }
        (self.typed, self.time, self.rest) = (typed, saved.time, saved.rest);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// How many columns hold a member of their own, which is what `max_columns` limits.
    pub fn keys(&self) -> usize {
        self.by_key.len()
    }

    /// The columns that have a type, in the order of the schema. Asked for between blocks only: those that got their type
    /// since come behind the others, in the order in which they were met, whichever of them had its type first.
    pub fn typed(&mut self) -> &[usize] {
        if self.typed.len() < self.columns.len() {
            let mut known = vec![false; self.columns.len()];
            self.typed.iter().for_each(|index| known[*index] = true);
            let is_new = |index: &usize| self.columns[*index].kind.is_some() && !known[*index];
            let new: Vec<usize> = (0..self.columns.len()).filter(is_new).collect();
            self.typed.extend(new);
        }
        &self.typed
    }

    /// The schema of the columns that have a type; asked for between blocks only.
    pub fn schema(&mut self) -> SchemaRef {
        let count = self.typed().len();
        if self.schema.fields().len() < count {
            let column = |index: &usize| &self.columns[*index];
            let field = |c: &Column| Field::new(&c.name, c.data_type.clone(), true);
            self.schema = Arc::new(Schema::new(self.typed.iter().map(column).map(field).collect::<Vec<_>>()));
        }
        self.schema.clone()
    }

    pub fn time_column(&self) -> Option<String> {
        self.time.map(|index| self.columns[index].name.clone())
    }

    /// The member that the time column holds.
    pub fn time_key(&self) -> Option<&str> {
        self.columns[self.time?].key.as_deref()
    }

    /// The time column; made for the member `key` if there is none yet.
    pub fn time_index(&mut self, key: impl FnOnce() -> String) -> usize {
        if let Some(index) = self.time {
            return index;
        }
        let key = key();
        let index = match self.find(&key, 0) {
            Some(index) if self.columns[index].kind.is_none() => {
                self.kind(index, || Kind::Time);
                index
            }
            Some(index) if self.columns[index].data_type == Kind::Time.data_type() => index,
            // Declared as something else: the member fills its column, and the time gets one of its own.
            Some(_) => self.push(&key, None, Some(Kind::Time)),
            None => {
                let index = self.add(&key);
                self.kind(index, || Kind::Time);
                index
            }
        };
        self.time = Some(index);
        index
    }

    pub fn rest_index(&mut self) -> usize {
        if let Some(index) = self.rest {
            return index;
        }
        let index = self.push("_rest", None, Some(Kind::Text));
        self.rest = Some(index);
        index
    }

    /// The column of the member `key`; `guess` is tried first.
    pub fn find(&self, key: &str, guess: usize) -> Option<usize> {
        if self.columns.get(guess).is_some_and(|c| c.key.as_deref() == Some(key)) {
            return Some(guess);
        }
        self.by_key.get(key).copied()
    }

    /// Adds a column for the member `key`, which has none.
    pub fn add(&mut self, key: &str) -> usize {
        let index = self.push(key, Some(key.to_string()), None);
        self.by_key.insert(key.to_string(), index);
        if let Some((kind, data_type)) = self.type_of(key) {
            self.fix(index, kind, &data_type);
        }
        index
    }

    /// The sibling that keeps values which `column` cannot: numbers, or texts. Made when first needed.
    pub fn sibling(&mut self, column: usize, number: bool) -> usize {
        // A sibling that cannot hold a value (a number too large for a double) has the text sibling of its column.
        let known = if number { self.columns[column].double_sibling } else { self.columns[column].text_sibling };
        if let Some(index) = known {
            return index;
        }
        let (suffix, kind) = if number { ("double", Kind::Double) } else { ("text", Kind::Text) };
        let index = self.push(&format!("{}__{suffix}", self.columns[column].name), None, Some(kind));
        self.columns[index].converts = true;
        let known =
            if number { &mut self.columns[column].double_sibling } else { &mut self.columns[column].text_sibling };
        *known = Some(index);
        index
    }

    /// The kind of a column; `infer` says it for a new one, and fixes it.
    pub fn kind(&mut self, column: usize, infer: impl FnOnce() -> Kind) -> Kind {
        let column = &mut self.columns[column];
        *column.kind.get_or_insert_with(|| {
            let kind = infer();
            column.data_type = kind.data_type();
            kind
        })
    }

    pub fn has_kind(&self, column: usize) -> bool {
        self.columns[column].kind.is_some()
    }

    /// Gives a column a type that the user said.
    fn fix(&mut self, column: usize, kind: Kind, data_type: &DataType) {
        self.kind(column, || kind);
        self.columns[column].data_type = data_type.clone();
        self.columns[column].converts = true;
    }

    /// The type that the user gave a column of this name.
    fn type_of(&self, name: &str) -> Option<(Kind, DataType)> {
        let given = self.types.iter().rev().find(|c| c.name == name)?;
        Some((Kind::of(name, &given.data_type).ok()?, given.data_type.clone()))
    }

    pub fn data_type(&self, column: usize) -> &DataType {
        &self.columns[column].data_type
    }

    pub fn converts(&self, column: usize) -> bool {
        self.columns[column].converts
    }

    fn push(&mut self, name: &str, key: Option<String>, kind: Option<Kind>) -> usize {
        // Names of siblings and of `_rest` may be taken by members, and the other way round.
        let mut name = if name.is_empty() { "_".to_string() } else { name.to_string() };
        while self.columns.iter().any(|c| c.name == name) {
            name.push('_');
        }
        self.columns.push(Column {
            name,
            key,
            kind,
            data_type: kind.unwrap_or(Kind::Text).data_type(),
            converts: false,
            text_sibling: None,
            double_sibling: None,
        });
        self.columns.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was written before columns could be without a type.
    const OLD: &str = r#"{"columns": [
        {"name": "ts", "key": "ts", "kind": "Time", "converts": false, "siblings": [null, null]},
        {"name": "status", "key": "status", "kind": "Int", "converts": false, "siblings": [2, null]},
        {"name": "status__text", "key": null, "kind": "Text", "converts": true, "siblings": [null, null]}
    ], "time": 0, "rest": null}"#;

    fn recalled(saved: &str) -> Result<Learned, &'static str> {
        let mut learned = Learned::new(&[], &[], None).unwrap();
        learned.recall(serde_json::from_str(saved).unwrap()).map(|()| learned)
    }

    fn names(learned: &mut Learned) -> Vec<String> {
        learned.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    #[test]
    fn old_checkpoints_are_read() {
        let mut learned = recalled(OLD).unwrap();
        assert_eq!(names(&mut learned), ["ts", "status", "status__text"]);
        assert_eq!(learned.time_column().as_deref(), Some("ts"));
        assert_eq!((learned.sibling(1, false), learned.len()), (2, 3), "the sibling is known");
        // It goes on as if it had never stopped.
        let column = learned.add("path");
        learned.kind(column, || Kind::Text);
        let saved = serde_json::to_string(&learned.save()).unwrap();
        assert_eq!(names(&mut recalled(&saved).unwrap()), ["ts", "status", "status__text", "path"]);
    }

    #[test]
    fn columns_come_in_the_order_in_which_they_were_met() {
        let mut learned = Learned::new(&[], &[], Some("ts")).unwrap();
        assert_eq!(names(&mut learned), ["ts"]);
        let [late, first, second] = ["late", "first", "second"].map(|name| learned.add(name));
        learned.kind(second, || Kind::Int);
        learned.kind(first, || Kind::Int);
        assert_eq!(names(&mut learned), ["ts", "first", "second"]);
        learned.kind(late, || Kind::Int);
        assert_eq!(names(&mut learned), ["ts", "first", "second", "late"]);
        let saved = serde_json::to_string(&learned.save()).unwrap();
        assert_eq!(names(&mut recalled(&saved).unwrap()), ["ts", "first", "second", "late"]);
    }

    #[test]
    fn damage_is_told() {
        let reason = |saved: String| recalled(&saved).err();
        assert_eq!(reason(OLD.replace("[2, null]", "[3, null]")), Some("a column is named that is not there"));
        let typed = |typed: &str| reason(OLD.replace("\"time\"", &format!("\"typed\": {typed}, \"time\"")));
        assert_eq!(typed("[0, 1, 2]"), None);
        assert_eq!(typed("[2, 0, 1]"), None);
        assert_eq!(typed("[0, 1, 3]"), Some("a column is named that is not there"));
        for wrong in ["[0, 1]", "[0, 1, 1]", "[0, 1, 2, 2]"] {
            assert_eq!(typed(wrong), Some("a column has a type and none"), "{wrong}");
        }
    }
}
