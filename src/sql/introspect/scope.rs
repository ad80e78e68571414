//! Which names can an expression use? The columns of the FROM clause around it, and of those further out.

use std::cell::{Cell, RefCell};

use super::Unplanned;
use super::functions::Set;
use super::node::{Aggregate, Fields, Node, Output, Window};

/// An expression with its type.
#[derive(Debug)]
pub struct Typed {
    pub node: Node,
    pub of: u32,
    pub fields: Option<Fields>,
}

impl Typed {
    pub fn new(node: Node, of: u32) -> Typed {
        Typed { node, of, fields: None }
    }
}

/// A column that can be named.
#[derive(Clone)]
pub struct Named {
    /// Of the table, or its alias.
    pub table: String,
    pub schema: Option<String>,
    pub column: Output,
    pub slot: usize,
    /// Joined by USING with one of the same name: found with its table only.
    pub hidden: bool,
}

/// A query while it is being planned.
pub struct Scope<'p> {
    pub parent: Option<&'p Scope<'p>>,
    /// How many queries are around this one.
    pub depth: usize,
    pub names: RefCell<Vec<Named>>,
    /// Tables of the catalog by their alias, with their object ids.
    pub tables: RefCell<Vec<(String, u32)>>,
    pub width: Cell<usize>,
    /// Slots that were named since somebody emptied this.
    pub touched: RefCell<Vec<usize>>,
    pub aggregates: RefCell<Vec<Aggregate>>,
    pub windows: RefCell<Vec<Window>>,
    pub sets: RefCell<Vec<(&'static Set, Vec<Node>)>>,
}

impl<'p> Scope<'p> {
    pub fn new(parent: Option<&'p Scope<'p>>) -> Scope<'p> {
        Scope {
            parent,
            depth: parent.map_or(1, |parent| parent.depth + 1),
            names: RefCell::default(),
            tables: RefCell::default(),
            width: Cell::new(0),
            touched: RefCell::default(),
            aggregates: RefCell::default(),
            windows: RefCell::default(),
            sets: RefCell::default(),
        }
    }

    /// Adds columns of a table; gives back where they stand.
    pub fn add(&self, table: &str, schema: Option<&str>, columns: &[Output]) -> std::ops::Range<usize> {
        let start = self.width.get();
        let mut names = self.names.borrow_mut();
        for (at, column) in columns.iter().enumerate() {
            let (table, schema) = (table.to_string(), schema.map(str::to_string));
            names.push(Named { table, schema, column: column.clone(), slot: start + at, hidden: false });
        }
        self.width.set(start + columns.len());
        start..start + columns.len()
    }

    /// The columns that `fits` finds, here only.
    pub fn find(&self, fits: impl Fn(&Named) -> bool) -> Vec<Named> {
        self.names.borrow().iter().filter(|named| fits(named)).cloned().collect()
    }

    pub fn column(&self, named: &Named, up: usize) -> Typed {
        self.touched.borrow_mut().push(named.slot);
        let node = Node::Column { up, slot: named.slot };
        Typed { node, of: named.column.of, fields: named.column.fields.clone() }
    }

    /// Looks a name up here and further out: the column, and how many levels out it was found.
    pub fn resolve(&self, table: Option<&str>, schema: Option<&str>, name: &str) -> Result<Option<Found>, Unplanned> {
        let (mut scope, mut up) = (self, 0);
        loop {
            let fits = |named: &Named| {
                named.column.name == name
                    && table.map_or(!named.hidden, |table| named.table == table)
                    && schema.is_none_or(|schema| named.schema.as_deref() == Some(schema))
            };
            match scope.find(fits).as_slice() {
                [] => {}
                [one] => return Ok(Some(Found { typed: scope.column(one, up), depth: scope.depth })),
                _ => return Err(Unplanned(format!("column reference \"{name}\" is ambiguous"))),
            }
            match scope.parent {
                Some(parent) => (scope, up) = (parent, up + 1),
                None => return Ok(None),
            }
        }
    }

    /// A whole row of a table, or its only column where it is a function that gives single values.
    pub fn whole_row(&self, table: &str) -> Option<Found> {
        let (mut scope, mut up) = (self, 0);
        loop {
            let columns = scope.find(|named| named.table == table);
            if !columns.is_empty() {
                let fields = columns.iter().map(|named| (named.column.name.clone(), named.column.of)).collect();
                let nodes = columns.iter().map(|named| scope.column(named, up).node).collect();
                let of = crate::catalog::postgres::value::types::RECORD;
                let typed = Typed { node: Node::Row(nodes), of, fields: Some(std::sync::Arc::new(fields)) };
                return Some(Found { typed, depth: scope.depth });
            }
            (scope, up) = (scope.parent?, up + 1);
        }
    }

    /// The object id of a table that is called so here or further out.
    pub fn table(&self, alias: Option<&str>) -> Option<u32> {
        let mut scope = self;
        loop {
            let tables = scope.tables.borrow();
            match alias {
                Some(alias) => {
                    if let Some((_, oid)) = tables.iter().find(|(name, _)| name == alias) {
                        return Some(*oid);
                    }
                }
                None => {
                    if let [(_, oid)] = tables.as_slice() {
                        return Some(*oid);
                    }
                }
            }
            scope = scope.parent?;
        }
    }
}

/// What a name means.
pub struct Found {
    pub typed: Typed,
    /// Of the query whose column it is.
    pub depth: usize,
}
