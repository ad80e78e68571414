//! What does a query of the catalog come to? Names are places in rows here, operators are chosen, types are known: what
//! [`super::run`] walks through.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::functions::{Scalar, Set};
use crate::catalog::postgres::value::Value;

/// Names and types of what a row value consists of.
pub type Fields = Arc<Vec<(String, u32)>>;

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// How two numbers are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    And,
    Or,
    ShiftLeft,
    ShiftRight,
}

/// How a text is compared with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pattern {
    Like { ignore_case: bool, escape: Option<char> },
    Regex { ignore_case: bool },
    SimilarTo,
}

/// An expression.
#[derive(Debug)]
pub enum Node {
    Constant(Value),
    /// Counted from 0.
    Parameter(usize),
    /// A place in the row of a query `up` levels further out.
    Column {
        up: usize,
        slot: usize,
    },
    /// What was computed for the group, over the window or by the set-returning function of this query.
    Aggregate(usize),
    Window(usize),
    Set(usize),
    Call {
        function: &'static Scalar,
        arguments: Vec<Node>,
    },
    /// A function of PostgreSQL whose answer is the same for everything here.
    Answer(Value, Vec<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    IsNull(Box<Node>),
    /// Whether it is this very truth value.
    Is(Box<Node>, bool),
    IsDistinct(Box<Node>, Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    Compute(Arithmetic, Box<Node>, Box<Node>),
    Concat(Box<Node>, Box<Node>),
    Match {
        text: Box<Node>,
        pattern: Box<Node>,
        how: Pattern,
    },
    Case {
        operand: Option<Box<Node>>,
        branches: Vec<(Node, Node)>,
        otherwise: Option<Box<Node>>,
    },
    Coalesce(Vec<Node>),
    InList(Box<Node>, Vec<Node>),
    /// With some or with all elements of a list.
    Quantified {
        all: bool,
        comparison: Comparison,
        left: Box<Node>,
        list: Box<Node>,
    },
    /// The same with a pattern.
    AnyMatch {
        all: bool,
        negated: bool,
        text: Box<Node>,
        list: Box<Node>,
        how: Pattern,
    },
    InQuery(Box<Node>, Arc<Query>),
    Exists(Arc<Query>),
    Scalar(Arc<Query>),
    ListOf(Arc<Query>),
    List(Vec<Node>),
    Row(Vec<Node>),
    /// `first`: the number of the first element.
    Element {
        list: Box<Node>,
        index: Box<Node>,
        first: i64,
    },
    Slice {
        list: Box<Node>,
        from: Option<Box<Node>>,
        to: Option<Box<Node>>,
    },
    Field {
        row: Box<Node>,
        at: usize,
    },
    Convert {
        value: Box<Node>,
        from: u32,
        to: u32,
    },
}

impl Node {
    /// The parts of an expression, without those of subqueries.
    fn parts(&self) -> Vec<&Node> {
        match self {
            Node::Constant(_)
            | Node::Parameter(_)
            | Node::Column { .. }
            | Node::Aggregate(_)
            | Node::Window(_)
            | Node::Set(_)
            | Node::Exists(_)
            | Node::Scalar(_)
            | Node::ListOf(_) => Vec::new(),
            Node::Call { arguments: nodes, .. }
            | Node::Answer(_, nodes)
            | Node::And(nodes)
            | Node::Or(nodes)
            | Node::Coalesce(nodes)
            | Node::List(nodes)
            | Node::Row(nodes) => nodes.iter().collect(),
            Node::Not(node)
            | Node::IsNull(node)
            | Node::Is(node, _)
            | Node::InQuery(node, _)
            | Node::Field { row: node, .. }
            | Node::Convert { value: node, .. } => vec![node],
            Node::IsDistinct(a, b) | Node::Compare(_, a, b) | Node::Compute(_, a, b) | Node::Concat(a, b) => vec![a, b],
            Node::Match { text, pattern, .. } => vec![text, pattern],
            Node::Quantified { left, list, .. } => vec![left, list],
            Node::AnyMatch { text, list, .. } => vec![text, list],
            Node::Element { list, index, .. } => vec![list, index],
            Node::Slice { list, from, to } => {
                std::iter::once(&**list).chain(from.as_deref()).chain(to.as_deref()).collect()
            }
            Node::InList(value, list) => std::iter::once(&**value).chain(list).collect(),
            Node::Case { operand, branches, otherwise } => {
                let branches = branches.iter().flat_map(|(when, then)| [when, then]);
                operand.as_deref().into_iter().chain(branches).chain(otherwise.as_deref()).collect()
            }
        }
    }

    fn has_query(&self) -> bool {
        matches!(self, Node::InQuery(..) | Node::Exists(_) | Node::Scalar(_) | Node::ListOf(_))
    }

    /// The slots of its own query that it names, without those that subqueries name.
    pub fn slots(&self, found: &mut Vec<usize>) {
        match self {
            Node::Column { up: 0, slot } => found.push(*slot),
            node => node.parts().into_iter().for_each(|part| part.slots(found)),
        }
    }

    /// Whether there is a subquery in it.
    pub fn asks(&self) -> bool {
        self.has_query() || self.parts().into_iter().any(Node::asks)
    }

    /// Whether it can be computed without the slots in `range` of its own query.
    pub fn is_free_of(&self, range: &std::ops::Range<usize>) -> bool {
        match self {
            Node::Column { up: 0, slot } => !range.contains(slot),
            node if node.has_query() => false,
            node => node.parts().into_iter().all(|part| part.is_free_of(range)),
        }
    }
}

/// A query: what makes its rows, and what is done with them.
#[derive(Debug)]
pub struct Query {
    /// Of this query alone in the process: under it its rows are kept while a statement runs.
    pub id: usize,
    /// Whether its rows depend on a query around it.
    pub correlated: bool,
    pub with: Vec<With>,
    pub body: Body,
    /// Columns of the result by which it is ordered: those of a SELECT are in it.
    pub order: Vec<Order>,
    pub limit: Option<Node>,
    pub offset: Option<Node>,
    pub columns: Vec<Output>,
}

/// A number that nobody else has.
pub fn next_id() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A column of a result.
#[derive(Debug, Clone)]
pub struct Output {
    pub name: String,
    pub of: u32,
    pub fields: Option<Fields>,
}

/// A query of a WITH clause.
#[derive(Debug)]
pub struct With {
    pub id: usize,
    pub query: Arc<Query>,
    /// What is repeated with the rows that came last, until there are none; and whether rows that were there count.
    pub repeated: Option<(Arc<Query>, bool)>,
}

#[derive(Debug)]
pub enum Body {
    Select(Box<Select>),
    Values(Vec<Vec<Node>>),
    /// A query in brackets.
    Inner(Arc<Query>),
    Combined {
        how: Combine,
        all: bool,
        left: Arc<Query>,
        right: Arc<Query>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    Union,
    Except,
    Intersect,
}

/// The place of a column, and how it orders.
#[derive(Debug)]
pub struct Order {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

#[derive(Debug, Default)]
pub struct Select {
    pub width: usize,
    pub sources: Vec<Source>,
    /// Conditions that need no source.
    pub filters: Vec<Node>,
    pub grouped: bool,
    pub keys: Vec<Node>,
    pub aggregates: Vec<Aggregate>,
    pub having: Option<Node>,
    pub windows: Vec<Window>,
    pub sets: Vec<(&'static Set, Vec<Node>)>,
    /// The columns of the result.
    pub outputs: Vec<Node>,
    pub order: Vec<(Node, Order)>,
    pub distinct: Option<Distinct>,
}

#[derive(Debug)]
pub enum Distinct {
    Rows,
    On(Vec<Node>),
}

/// One entry of FROM: for each row so far it gives the rows that fit.
#[derive(Debug)]
pub struct Source {
    pub from: From,
    /// Where its columns stand in the row.
    pub slots: std::ops::Range<usize>,
    /// A row without a match stays, with NULLs.
    pub outer: bool,
    /// What makes a match.
    pub on: Vec<Node>,
    /// What has to be true after it.
    pub filters: Vec<Node>,
    /// A column, and what it has to equal.
    pub lookup: Option<(usize, Lookup)>,
}

#[derive(Debug)]
pub enum Lookup {
    One(Node),
    Any(Node),
}

#[derive(Debug)]
pub enum From {
    /// By its place in the catalog's list of relations.
    Relation(usize),
    Query {
        query: Arc<Query>,
        lateral: bool,
    },
    With(usize),
    Function {
        function: &'static Set,
        arguments: Vec<Node>,
        ordinality: bool,
    },
    /// A function that gives one value.
    Single(Node),
    /// Several lists side by side.
    Lists {
        lists: Vec<Node>,
        ordinality: bool,
    },
    Group(Vec<Source>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregateKind {
    CountRows,
    Count,
    Min,
    Max,
    Sum,
    Average,
    Every,
    Some,
    List,
    Join,
}

#[derive(Debug)]
pub struct Aggregate {
    pub kind: AggregateKind,
    pub arguments: Vec<Node>,
    pub distinct: bool,
    pub order: Vec<(Node, Order)>,
    pub filter: Option<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    RowNumber,
    Rank,
    DenseRank,
    Aggregate(AggregateKind),
}

#[derive(Debug)]
pub struct Window {
    pub kind: WindowKind,
    pub argument: Option<Node>,
    pub partition: Vec<Node>,
    pub order: Vec<(Node, Order)>,
}
