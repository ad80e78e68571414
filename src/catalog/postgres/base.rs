//! What stands in `pg_catalog` and `information_schema` of a new database? Every relation of PostgreSQL 15 with its columns
//! and their types, the definitions of its views, and the rows of a database in which nothing was created yet: its types,
//! operators, functions, casts and the like.
//!
//! `postgres15.zst` holds them as lines of text, one letter and fields between tabs: `r` a relation (object id, schema,
//! name, kind), `c` a column (name, type, not null), `v` the definition of a view, `d` a row as COPY writes it. It is made
//! from a PostgreSQL 15 by `tests/introspection/export.py`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;

use super::value::{Row, Value, elements, types};

static COMPRESSED: &[u8] = include_bytes!("postgres15.zst");

/// A column of a relation.
#[derive(Debug)]
pub struct Column {
    pub name: String,
    /// `pg_type.oid`.
    pub of: u32,
    pub not_null: bool,
}

/// A relation of the system catalog.
#[derive(Debug)]
pub struct System {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub columns: Vec<Column>,
    /// The definition, if it is a view.
    pub view: Option<String>,
    /// Of a new database.
    pub rows: Arc<Rows>,
}

impl System {
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// Rows with the indexes that queries have asked for so far.
#[derive(Debug, Default)]
pub struct Rows {
    rows: Vec<Row>,
    indexes: RwLock<HashMap<usize, Arc<Index>>>,
}

/// Where the rows with a value are.
pub type Index = HashMap<Value, Vec<u32>>;

impl Rows {
    pub fn new(rows: Vec<Row>) -> Arc<Rows> {
        Arc::new(Rows { rows, indexes: RwLock::default() })
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows by their value in a column.
    pub fn index(&self, column: usize) -> Arc<Index> {
        if let Some(index) = self.indexes.read().get(&column) {
            return Arc::clone(index);
        }
        let mut index = Index::new();
        for (at, row) in self.rows.iter().enumerate() {
            index.entry(row[column].clone()).or_default().push(at as u32);
        }
        let index = Arc::new(index);
        self.indexes.write().insert(column, Arc::clone(&index));
        index
    }
}

/// A type of PostgreSQL.
#[derive(Debug, Clone)]
pub struct Type {
    pub oid: u32,
    pub name: String,
    /// Of its elements, if it is an array (or one of the two vectors).
    pub element: u32,
    /// The array of it.
    pub array: u32,
    pub delimiter: char,
}

/// See the file header.
pub struct Base {
    pub relations: Vec<System>,
    by_name: HashMap<(String, String), usize>,
    types: HashMap<u32, Type>,
    types_by_name: HashMap<String, u32>,
}

/// The catalog of a new database.
pub fn base() -> &'static Base {
    static BASE: LazyLock<Base> = LazyLock::new(|| Base::read(&text()));
    &BASE
}

/// The text is part of the program: that it can be read is what the tests see to.
fn text() -> String {
    zstd::decode_all(COMPRESSED).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

impl Base {
    fn read(text: &str) -> Base {
        let mut base = Base {
            relations: Vec::new(),
            by_name: HashMap::new(),
            types: HashMap::new(),
            types_by_name: HashMap::new(),
        };
        base.read_types(text);
        let mut rows: Vec<Row> = Vec::new();
        for line in text.lines() {
            let mut fields = line.split('\t');
            match fields.next() {
                Some("r") => {
                    base.finish(&mut rows);
                    let mut field = || fields.next().unwrap_or_default().to_string();
                    let (oid, schema, name) = (field().parse().unwrap_or_default(), field(), field());
                    base.by_name.insert((schema.clone(), name.clone()), base.relations.len());
                    let (columns, rows) = (Vec::new(), Arc::default());
                    base.relations.push(System { oid, schema, name, columns, view: None, rows });
                }
                Some("c") => {
                    let name = fields.next().unwrap_or_default().to_string();
                    let of = fields.next().and_then(|name| base.types_by_name.get(name)).copied();
                    let not_null = fields.next() == Some("t");
                    if let Some(relation) = base.relations.last_mut() {
                        relation.columns.push(Column { name, of: of.unwrap_or(types::TEXT), not_null });
                    }
                }
                Some("v") => {
                    let view = unescaped(fields.next().unwrap_or_default());
                    if let Some(relation) = base.relations.last_mut() {
                        relation.view = Some(view);
                    }
                }
                Some("d") => {
                    let Some(relation) = base.relations.last() else { continue };
                    let row = relation.columns.iter().zip(fields).map(|(column, field)| match field {
                        "\\N" => Value::Null,
                        field => base.value(&unescaped(field), column.of),
                    });
                    rows.push(row.collect());
                }
                _ => {}
            }
        }
        base.finish(&mut rows);
        base
    }

    fn finish(&mut self, rows: &mut Vec<Row>) {
        if let Some(last) = self.relations.last_mut() {
            last.rows = Rows::new(std::mem::take(rows));
        }
    }

    /// The types come first: the columns of all relations, also of `pg_type`, are read by them.
    fn read_types(&mut self, text: &str) {
        let (mut inside, mut columns) = (false, Vec::new());
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields.as_slice() {
                ["r", _, _, name, ..] => inside = *name == "pg_type",
                ["c", name, ..] if inside => columns.push(name.to_string()),
                ["d", values @ ..] if inside => {
                    let of = |name: &str| {
                        let at = columns.iter().position(|column| column == name);
                        at.and_then(|at| values.get(at)).copied().unwrap_or_default()
                    };
                    let number = |name: &str| of(name).parse().unwrap_or_default();
                    let (oid, name) = (number("oid"), unescaped(of("typname")));
                    let delimiter = of("typdelim").chars().next().unwrap_or(',');
                    let kind = Type { oid, name, element: number("typelem"), array: number("typarray"), delimiter };
                    self.types_by_name.insert(kind.name.clone(), oid);
                    self.types.insert(oid, kind);
                }
                _ => {}
            }
        }
    }

    /// The relation of a name, and its place in `relations`.
    pub fn relation(&self, schema: &str, name: &str) -> Option<(usize, &System)> {
        let at = *self.by_name.get(&(schema.to_string(), name.to_string()))?;
        Some((at, &self.relations[at]))
    }

    pub fn type_of(&self, oid: u32) -> Option<&Type> {
        self.types.get(&oid)
    }

    /// A type by its name in `pg_type`.
    pub fn type_named(&self, name: &str) -> Option<u32> {
        self.types_by_name.get(name).copied()
    }

    /// The type of an array's elements.
    pub fn element_of(&self, oid: u32) -> Option<u32> {
        if oid == types::ANYARRAY {
            return Some(types::TEXT);
        }
        // Names have elements too, which are characters.
        let found = self.types.get(&oid).filter(|kind| kind.element != 0 && kind.oid != types::NAME)?;
        let is_array = found.name.starts_with('_') || matches!(oid, types::INT2VECTOR | types::OIDVECTOR);
        is_array.then_some(found.element)
    }

    /// The array of a type.
    pub fn array_of(&self, oid: u32) -> Option<u32> {
        let oid = if oid == types::UNKNOWN { types::TEXT } else { oid };
        self.types.get(&oid).map(|kind| kind.array).filter(|array| *array != 0)
    }

    /// A value from its text, without what needs to be looked up. What cannot be read is NULL: texts of our own only.
    fn value(&self, text: &str, of: u32) -> Value {
        match of {
            types::BOOL => Value::Bool(text == "t"),
            types::FLOAT4 | types::FLOAT8 => text.parse().map_or(Value::Null, Value::Float),
            types::INT2VECTOR | types::OIDVECTOR => {
                Value::list(text.split_whitespace().map(|number| self.value(number, types::INT8)).collect())
            }
            of if types::is_integer(of) => text.parse().map_or(Value::Null, Value::Int),
            of => match self.element_of(of) {
                Some(element) => {
                    let element = |text: Option<String>| text.map_or(Value::Null, |text| self.value(&text, element));
                    elements(text).map_or(Value::Null, |texts| Value::list(texts.into_iter().map(element).collect()))
                }
                None => Value::text(text),
            },
        }
    }
}

/// The name of a type, as `format_type` writes it.
pub fn type_text(of: u32) -> String {
    let Some(kind) = base().type_of(of) else { return "???".to_string() };
    if let Some(element) = base().element_of(of).filter(|_| kind.name.starts_with('_')) {
        return format!("{}[]", type_text(element));
    }
    match kind.name.as_str() {
        "bool" => "boolean",
        "int2" => "smallint",
        "int4" => "integer",
        "int8" => "bigint",
        "float4" => "real",
        "float8" => "double precision",
        "bpchar" => "character",
        "varchar" => "character varying",
        "timestamp" => "timestamp without time zone",
        "timestamptz" => "timestamp with time zone",
        "time" => "time without time zone",
        "timetz" => "time with time zone",
        "varbit" => "bit varying",
        "char" => "\"char\"",
        "any" => "\"any\"",
        other => other,
    }
    .to_string()
}

/// A field of COPY's text format without its escapes.
fn unescaped(field: &str) -> String {
    if !field.contains('\\') {
        return field.to_string();
    }
    let (mut out, mut chars) = (String::with_capacity(field.len()), field.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some('v') => out.push('\u{b}'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_of_a_new_database_is_there() {
        let (_, classes) = base().relation("pg_catalog", "pg_class").unwrap();
        assert_eq!((classes.oid, classes.columns.len()), (1259, 33));
        let (name, oid) = (classes.column("relname").unwrap(), classes.column("oid").unwrap());
        let index = classes.rows.index(name);
        let own = &classes.rows.rows()[index[&Value::text("pg_class")][0] as usize];
        assert_eq!(own[oid], Value::Int(1259));
        let rows = |name: &str| base().relation("pg_catalog", name).unwrap().1.rows.rows().len();
        assert!(rows("pg_proc") > 3000 && rows("pg_type") > 500 && rows("pg_operator") > 700);
        assert!(base().relation("information_schema", "columns").unwrap().1.view.is_some());
    }

    #[test]
    fn types_know_their_arrays() {
        assert_eq!(base().array_of(types::INT4), base().type_named("_int4"));
        assert_eq!(base().element_of(types::OIDVECTOR), Some(types::OID));
        assert_eq!(base().element_of(types::NAME), None);
        assert_eq!(base().element_of(types::TEXT), None);
    }
}
