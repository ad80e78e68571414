//! What the values under a header become: which of them fill which column, and which say the time.
//!
//! Declared columns are a choice: values under other names are left out. Names are compared exactly first, then without
//! regard to case.

use std::borrow::Cow;
use std::collections::HashMap;

use super::learned::Learned;
use super::time::{TIME_FIELDS, TimeField};
use crate::format::Declared;
use crate::format::typed::Kind;
use crate::options::Options;

/// How columns are found under a header.
pub struct Naming {
    declared: Vec<String>,
    pub time_field: TimeField,
    /// Whether the types of new columns are learned from their values, or are text.
    infer: bool,
    max_columns: usize,
}

/// See the file header.
pub struct Layout {
    /// The column of each value; `None` for values that are left out, and for the time.
    pub columns: Vec<Option<usize>>,
    pub time: TimeAt,
    pub time_column: usize,
}

/// Which values say the time.
#[derive(Debug, PartialEq)]
pub enum TimeAt {
    Nowhere,
    One(usize),
    /// Date and time of day.
    Two(usize, usize),
    /// The field that the user named is not there.
    Missing(String),
}

/// What is called a date and a time of day when they stand beside each other.
const PAIRS: &[(&str, &str)] = &[("date", "time"), ("date_local", "time_local")];

impl Naming {
    pub fn new(
        options: &Options,
        declared: &[Declared],
        types: &[Declared],
        infer: bool,
        max_columns: usize,
    ) -> Naming {
        let first = declared.iter().chain(types).find(|c| c.data_type == Kind::Time.data_type());
        let time_field = match TimeField::from_options(options, first.map(|c| c.name.as_str())) {
            // Who declares columns and no time among them wants none.
            TimeField::Any if !declared.is_empty() => TimeField::None,
            field => field,
        };
        let declared = declared.iter().map(|c| c.name.clone()).collect();
        Naming { declared, time_field, infer, max_columns }
    }

    /// Whether `max_columns` allows the columns of a header.
    pub fn has_room(&self, names: &[String], learned: &Learned) -> bool {
        let new = names.iter().filter(|name| learned.find(name, 0).is_none()).count();
        !self.declared.is_empty() || learned.keys() + new <= self.max_columns
    }

    /// Finds the columns under a header, and makes those that are new.
    pub fn layout(&self, names: &[String], learned: &mut Learned) -> Layout {
        let time = self.time_of(names, learned);
        let own = |index: usize| {
            let declared = self.declared.iter().find(|key| place_of(names, key) == Some(index));
            declared.unwrap_or(&names[index]).clone()
        };
        let (sources, key) = match time {
            TimeAt::One(index) => (vec![index], Some(own(index))),
            TimeAt::Two(date, time) => (vec![date, time], Some(self.time_field.name().unwrap_or("ts").to_string())),
            TimeAt::Nowhere | TimeAt::Missing(_) => (vec![], None),
        };
        let time_column = key.map(|key| learned.time_index(|| key));
        let mut columns = vec![None; names.len()];
        let wanted: Vec<(usize, &String)> = match self.declared.is_empty() {
            true => names.iter().enumerate().collect(),
            false => self.declared.iter().filter_map(|key| Some((place_of(names, key)?, key))).collect(),
        };
        for (index, key) in wanted.into_iter().filter(|(index, _)| !sources.contains(index)) {
            let column = learned.find(key, index).unwrap_or_else(|| learned.add(key));
            columns[index] = Some(if Some(column) == time_column { learned.sibling(column, false) } else { column });
            if !self.infer {
                learned.kind(column, || Kind::Text);
            }
        }
        Layout { columns, time, time_column: time_column.unwrap_or_default() }
    }

    /// Which of the names say the time.
    fn time_of(&self, names: &[String], learned: &Learned) -> TimeAt {
        let find = |name: &str| place_of(names, name);
        let pair = PAIRS.iter().find_map(|(date, time)| Some(TimeAt::Two(find(date)?, find(time)?)));
        match &self.time_field {
            TimeField::None => TimeAt::Nowhere,
            TimeField::Named(name) => {
                find(name).map(TimeAt::One).or(pair).unwrap_or_else(|| TimeAt::Missing(name.clone()))
            }
            TimeField::Any => {
                if let Some(index) = learned.time_key().and_then(find) {
                    return TimeAt::One(index);
                }
                // What is called "time" beside a date is a time of day.
                let before = TIME_FIELDS.iter().take_while(|name| **name != "time");
                let whole = before.copied().find_map(find).map(TimeAt::One).or(pair);
                whole.or_else(|| TIME_FIELDS.iter().copied().find_map(find).map(TimeAt::One)).unwrap_or(TimeAt::Nowhere)
            }
        }
    }

    /// The declared columns for which a header has no values.
    pub fn lacking<'a>(&'a self, names: &'a [String], layout: &Layout) -> Vec<&'a str> {
        let composed = self.time_field.name().filter(|_| matches!(layout.time, TimeAt::Two(..)));
        let lacking = self.declared.iter().map(String::as_str).filter(|key| place_of(names, key).is_none());
        lacking.filter(|key| Some(*key) != composed).collect()
    }
}

/// Names for columns: none empty, none twice.
pub fn distinct<'a>(names: impl Iterator<Item = Cow<'a, str>>) -> Vec<String> {
    // How often a name has come. A line may have very many.
    let mut known: HashMap<String, usize> = HashMap::new();
    let name = |(index, name): (usize, Cow<'a, str>)| {
        let name = match name.trim() {
            "" => format!("column{}", index + 1),
            name => name.to_string(),
        };
        let mut candidate = name.clone();
        while known.contains_key(&candidate) {
            let count = known.entry(name.clone()).or_default();
            *count += 1;
            candidate = format!("{name}_{count}");
        }
        known.insert(candidate.clone(), 1);
        candidate
    };
    names.enumerate().map(name).collect()
}

pub fn place_of(names: &[String], name: &str) -> Option<usize> {
    let exact = names.iter().position(|n| n == name);
    exact.or_else(|| names.iter().position(|n| n.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::timestamp_type;
    use arrow::datatypes::DataType;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_string).collect()
    }

    fn naming(declared: &[Declared]) -> (Naming, Learned) {
        let naming = Naming::new(&Options::default(), declared, &[], true, 1000);
        let learned = Learned::new(declared, &[], naming.time_field.name()).unwrap();
        (naming, learned)
    }

    #[test]
    fn the_time_is_found_by_its_name() {
        for (header, time) in [
            ("a Timestamp b", TimeAt::One(1)),
            ("time a", TimeAt::One(0)),
            ("date time a", TimeAt::Two(0, 1)),
            ("Time Date ts", TimeAt::One(2)),
            ("date a", TimeAt::One(0)),
            ("a b", TimeAt::Nowhere),
        ] {
            let (naming, learned) = naming(&[]);
            assert_eq!(naming.time_of(&names(header), &learned), time, "{header}");
        }
    }

    #[test]
    fn declared_columns_are_a_choice() {
        let declared = |name: &str, data_type| Declared { name: name.into(), data_type };
        let given = [declared("status", DataType::Int32), declared("at", timestamp_type())];
        let (naming, mut learned) = naming(&given);
        let layout = naming.layout(&names("date time Status path status"), &mut learned);
        assert_eq!(layout.columns, [None, None, None, None, Some(0)], "the exact name wins");
        assert_eq!((layout.time, layout.time_column), (TimeAt::Two(0, 1), 1));
        let layout = naming.layout(&names("At STATUS"), &mut learned);
        assert_eq!((layout.columns, layout.time), (vec![None, Some(0)], TimeAt::One(0)));
        let other = names("x y");
        let layout = naming.layout(&other, &mut learned);
        assert_eq!(layout.time, TimeAt::Missing("at".to_string()));
        assert_eq!(naming.lacking(&other, &layout), ["status", "at"]);
        assert_eq!(learned.len(), 2);
    }

    #[test]
    fn names_are_made_distinct() {
        let given = ["a", "", " a ", "a_2", "a"];
        assert_eq!(distinct(given.into_iter().map(Cow::Borrowed)), ["a", "column2", "a_2", "a_2_2", "a_3"]);
    }
}
