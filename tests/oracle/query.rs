//! Random queries from the grammar that views support, as values: so that they can be made simpler one clause at a time.
//!
//! The first letter of a column's name says how well its value can be foretold: `k` keys and `a` aggregates are exact,
//! `f` differs by rounding, `p` is an estimate.

use rand::RngExt;
use rand::rngs::StdRng;

use super::data::{Kind, Table};
use super::{chance, pick, some, word};
use crate::compare::Tolerance;

/// A column's tolerance, where estimates may be off by `spread`.
pub fn tolerance(column: &str, spread: f64) -> Tolerance {
    match column.as_bytes().first() {
        Some(b'f') => Tolerance::Rounding,
        Some(b'p') => Tolerance::Absolute(spread),
        _ => Tolerance::None,
    }
}

/// In which windows a row is.
#[derive(Debug, Clone, PartialEq)]
pub enum Window {
    None,
    /// An expression over `ts` that is a key.
    Key(String),
    /// Days, weeks or months of a time zone, as a key.
    Zone {
        unit: &'static str,
        zone: &'static str,
    },
    /// Sizes in milliseconds.
    Tumble {
        size: i64,
        offset: i64,
    },
    Hop {
        slide: i64,
        size: i64,
        offset: i64,
    },
    Cumulate {
        step: i64,
        size: i64,
        offset: i64,
    },
    Session {
        gap: i64,
        partition: Option<String>,
        /// The longest session.
        span: Option<i64>,
    },
}

/// What is windowed or grouped.
#[derive(Debug, Clone, PartialEq)]
enum Input {
    Stream,
    Where(String),
    /// A derived table with `ts` and some columns.
    Columns(Vec<String>),
    /// Joined with the reference table: `t9` is the label of the first column's value.
    Lookup {
        join: &'static str,
    },
}

/// Name of the reference table, with columns `value` and `label`.
pub const REFERENCE: &str = "names";

/// Which of the window's bounds are keys.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bounds {
    Both,
    Start,
    End,
    Neither,
}

#[derive(Debug, Clone, PartialEq)]
struct Measure {
    /// `{filter}` stands where the FILTER clause goes.
    call: String,
    filter: Option<String>,
    letter: char,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sets {
    Plain,
    Rollup,
    Cube,
    /// All keys, and each alone.
    Each,
}

/// A grouped query over the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    window: Window,
    input: Input,
    bounds: Bounds,
    keys: Vec<String>,
    /// None: SELECT DISTINCT.
    measures: Vec<Measure>,
    filter: Option<String>,
    having: Option<String>,
    sets: Sets,
    /// A condition that changes nothing but makes another subtree of it: its rollup is not shared.
    unshared: bool,
}

/// A continuous query.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    Group(Aggregate),
    Join {
        kind: &'static str,
        left: Aggregate,
        right: Aggregate,
    },
    Set {
        operator: &'static str,
        left: Aggregate,
        right: Aggregate,
    },
    /// The first rows of each partition by the first key.
    Rank {
        inner: Aggregate,
        function: &'static str,
        most: u32,
    },
    /// Each row beside its predecessors.
    Lag {
        inner: Aggregate,
        call: &'static str,
    },
    First {
        inner: Aggregate,
        limit: u32,
        offset: u32,
        descending: bool,
    },
    Cte {
        inner: Aggregate,
    },
    Count {
        inner: Aggregate,
    },
    /// The same again: shares its rollups with a view of the inner query.
    Again {
        inner: Box<Query>,
    },
    /// No aggregate: a derived stream.
    Derived {
        columns: Vec<String>,
        filter: Option<String>,
    },
    /// A query over a derived stream.
    On {
        view: usize,
        inner: Box<Query>,
    },
    /// Announced when windows close, so many seconds late.
    Closed {
        inner: Aggregate,
        lateness: i64,
    },
    /// Over another view.
    Over {
        view: usize,
        key: Option<String>,
        measures: Vec<String>,
    },
}

/// How a query names what it reads.
pub struct Names<'a> {
    pub stream: &'a str,
    /// A view in FROM, without an alias.
    pub view: &'a dyn Fn(usize) -> String,
}

impl Window {
    fn random(random: &mut StdRng, table: &Table) -> Window {
        const SIZES: &[i64] = &[1000, 1500, 10_000, 60_000, 61_000, 300_000, 3_600_000, 86_400_000];
        let offset = if chance(random, 4) { *pick(random, &[-1000, 250, 7000, 1_020_000]) } else { 0 };
        match random.random_range(0..20) {
            0..3 => Window::None,
            3 => Window::Key(format!("date_trunc('{}', ts)", pick(random, &["second", "minute", "hour", "day"]))),
            4 => {
                let unit = pick(random, &["7 minutes", "500 milliseconds", "1 hour", "1 day"]);
                Window::Key(match random.random_range(0..5) {
                    0 => format!("time_bucket(INTERVAL '{unit}', ts)"),
                    1 => {
                        format!("time_bucket('{}', ts)", pick(random, &["1 week", "1 month", "3 months", "1 year"]))
                    }
                    2 => format!("date_bin(INTERVAL '{unit}', ts, '2026-01-01T00:00:13Z')"),
                    _ => format!("date_bin(INTERVAL '{unit}', ts)"),
                })
            }
            5 => {
                let zone = pick(random, &["Europe/Berlin", "America/New_York", "Asia/Kolkata"]);
                match pick(random, &["hour", "day", "week", "month"]) {
                    &"hour" => Window::Key(format!("date_trunc('hour', ts, '{zone}')")),
                    unit => Window::Zone { unit, zone },
                }
            }
            6..10 => {
                let slide = *pick(random, SIZES);
                // Mostly not a multiple, so that panes are narrower than the slide.
                let size = slide * *pick(random, &[1, 2, 5, 12, 60]) + *pick(random, &[0, 0, slide / 2, 1000]);
                Window::Hop { slide, size, offset }
            }
            10 | 11 => {
                let step = *pick(random, SIZES);
                Window::Cumulate { step, size: step * *pick(random, &[1, 2, 5, 24]), offset }
            }
            12 | 13 => {
                let texts = table.of_kind(&[Kind::Text, Kind::Boolean]);
                let partition = (!chance(random, 3)).then(|| pick(random, &texts).name.clone());
                let gap = *pick(random, SIZES);
                Window::Session { gap, partition, span: chance(random, 5).then_some(7 * gap) }
            }
            _ => Window::Tumble { size: *pick(random, SIZES), offset },
        }
    }

    /// FROM clause with this window over `relation`.
    pub fn over(&self, relation: &str) -> String {
        let offset = |offset: i64| if offset == 0 { String::new() } else { format!(", {}", interval(offset)) };
        match self {
            Window::None | Window::Key(_) | Window::Zone { .. } if relation.starts_with('(') => {
                format!("{relation} AS derived")
            }
            Window::None | Window::Key(_) | Window::Zone { .. } => relation.to_string(),
            Window::Tumble { size, offset: o } => format!("TUMBLE({relation}, ts, {}{})", interval(*size), offset(*o)),
            Window::Hop { slide, size, offset: o } => {
                format!("HOP({relation}, ts, {}, {}{})", interval(*slide), interval(*size), offset(*o))
            }
            Window::Cumulate { step, size, offset: o } => {
                format!("CUMULATE({relation}, ts, {}, {}{})", interval(*step), interval(*size), offset(*o))
            }
            Window::Session { gap, partition, span } => {
                let by = partition.as_ref().map_or(String::new(), |column| format!(" PARTITION BY {column}"));
                let span = span.map_or(String::new(), |span| format!(", {}", interval(span)));
                format!("SESSION({relation}{by}, ts, {}{span})", interval(*gap))
            }
        }
    }

    fn is_session(&self) -> bool {
        matches!(self, Window::Session { .. })
    }

    /// Whether it adds window_start and window_end.
    fn bounded(&self) -> bool {
        !matches!(self, Window::None | Window::Key(_) | Window::Zone { .. })
    }

    /// The expression that says in which window a row is, if it is a key like others.
    pub fn key(&self) -> Option<String> {
        match self {
            Window::Key(key) => Some(key.clone()),
            Window::Zone { unit, zone } => Some(format!("date_trunc('{unit}', ts, '{zone}')")),
            _ => None,
        }
    }

    fn simpler(&self) -> Vec<Window> {
        match self {
            Window::None => vec![],
            Window::Key(_) | Window::Zone { .. } => vec![Window::None],
            Window::Tumble { size, offset } => {
                let aligned = (*offset != 0).then_some(Window::Tumble { size: *size, offset: 0 });
                [Window::None].into_iter().chain(aligned).collect()
            }
            Window::Hop { slide, size, offset } => {
                let mut windows = vec![Window::Tumble { size: *size, offset: 0 }];
                if *offset != 0 {
                    windows.push(Window::Hop { slide: *slide, size: *size, offset: 0 });
                }
                if *size > 2 * slide {
                    windows.push(Window::Hop { slide: *slide, size: 2 * slide, offset: *offset });
                }
                windows
            }
            Window::Cumulate { step, size, offset } => {
                let mut windows = vec![Window::Tumble { size: *size, offset: 0 }];
                if *offset != 0 {
                    windows.push(Window::Cumulate { step: *step, size: *size, offset: 0 });
                }
                if *size > 2 * step {
                    windows.push(Window::Cumulate { step: *step, size: 2 * step, offset: *offset });
                }
                windows
            }
            Window::Session { gap, partition, span } => {
                let with = |partition, span| Window::Session { gap: *gap, partition, span };
                let mut windows = vec![Window::Tumble { size: *gap, offset: 0 }];
                windows.extend(partition.as_ref().map(|_| with(None, *span)));
                windows.extend(span.map(|_| with(partition.clone(), None)));
                windows
            }
        }
    }
}

/// A window whose rows the test counts itself.
pub fn counted_window(random: &mut StdRng, table: &Table) -> Window {
    let wanted = random.random_range(0..5);
    loop {
        let window = Window::random(random, table);
        let kind = match window {
            Window::None | Window::Key(_) => continue,
            Window::Tumble { .. } => 0,
            Window::Hop { .. } => 1,
            Window::Cumulate { .. } => 2,
            Window::Session { .. } => 3,
            Window::Zone { .. } => 4,
        };
        let counted =
            !matches!(&window, Window::Session { partition, span, .. } if partition.is_some() || span.is_some());
        if counted && kind == wanted {
            return window;
        }
    }
}

fn interval(milliseconds: i64) -> String {
    match milliseconds {
        n if n % 60_000 == 0 => format!("INTERVAL '{} minutes'", n / 60_000),
        n if n % 1000 == 0 => format!("INTERVAL '{} seconds'", n / 1000),
        n => format!("INTERVAL '{n} milliseconds'"),
    }
}

impl Aggregate {
    /// With at least one key if `keyed`.
    fn random(random: &mut StdRng, table: &Table, keyed: bool) -> Aggregate {
        let window = Window::random(random, table);
        let input = match random.random_range(0..12) {
            0 => Input::Where(condition(random, table)),
            1 => Input::Columns(table.columns.iter().map(|c| c.name.clone()).collect()),
            2 => Input::Lookup { join: word(random, &["JOIN", "LEFT JOIN"]) },
            _ => Input::Stream,
        };
        let bounds = match random.random_range(0..10) {
            0 => Bounds::Start,
            1 => Bounds::End,
            2 if !keyed && !window.is_session() => Bounds::Neither,
            _ => Bounds::Both,
        };
        let mut keys: Vec<String> =
            some(random, &table.columns, 0, 2).iter().map(|c| key(random, &c.name, c.kind)).collect();
        keys.dedup();
        if let Input::Lookup { .. } = input {
            keys.push("t9".into());
        }
        let partition = if let Window::Session { partition, .. } = &window { partition.clone() } else { None };
        if let Some(column) = &partition {
            keys.retain(|key| key != column);
            keys.push(column.clone());
        }
        if keyed && keys.is_empty() && window == Window::None {
            keys.push(table.columns[0].name.clone());
        }
        // What looks at bounds below the aggregate is refused for sessions, and they must be in all grouping sets.
        let bounded = window.bounded() && !window.is_session();
        let filter = chance(random, 3).then(|| match bounded && chance(random, 6) {
            true => within_window(random),
            false => condition(random, table),
        });
        let sets = match random.random_range(0..6) {
            0 if keys.len() > 1 && partition.is_none() => *pick(random, &[Sets::Rollup, Sets::Cube, Sets::Each]),
            _ => Sets::Plain,
        };
        let mut aggregate = Aggregate {
            measures: measures(random, table, bounded),
            having: chance(random, 5).then(|| having(random, table)),
            bounds: if sets == Sets::Plain { bounds } else { Bounds::Both },
            window,
            input,
            keys,
            filter: None,
            sets,
            unshared: false,
        };
        if let Some(filter) = filter {
            aggregate.restrict(filter);
        }
        let keyed = aggregate.columns().first().is_some_and(|c| c.starts_with('k'));
        if keyed && aggregate.sets == Sets::Plain && chance(random, 12) {
            aggregate.measures.clear();
            aggregate.having = None;
        }
        aggregate
    }

    /// Has what every query around it needs: a key, an exact measure, no two rows with the same keys.
    fn random_inner(random: &mut StdRng, table: &Table) -> Aggregate {
        loop {
            let aggregate = Aggregate::random(random, table, true);
            if aggregate.can_be_inner() {
                return aggregate;
            }
        }
    }

    fn can_be_inner(&self) -> bool {
        self.exact().is_some() && !self.keys().is_empty() && self.sets == Sets::Plain
    }

    /// Another aggregate with the same keys and measures, over other rows.
    fn sibling(&self, random: &mut StdRng, table: &Table) -> Aggregate {
        let mut sibling = Aggregate { having: None, ..self.clone() };
        sibling.restrict(condition(random, table));
        sibling
    }

    /// Takes only rows with this condition: before they are put into sessions, which would be others without them.
    fn restrict(&mut self, condition: String) {
        match (&self.window, &self.input) {
            (Window::Session { .. }, Input::Lookup { .. }) => {}
            (Window::Session { .. }, _) => self.input = Input::Where(condition),
            _ => self.filter = Some(condition),
        }
    }

    /// Whether it can be announced as its windows close, and is simple enough for the test to tell which rows were late.
    fn closes(&self) -> bool {
        let looks_at_bounds = |text: &Option<String>| text.as_ref().is_some_and(|t| t.contains("window_"));
        self.window.bounded()
            && self.bounds == Bounds::Both
            && self.sets == Sets::Plain
            && !self.measures.is_empty()
            && !looks_at_bounds(&self.filter)
            && !self.measures.iter().any(|m| looks_at_bounds(&m.filter))
    }

    /// Expressions of the group.
    fn keys(&self) -> Vec<String> {
        let key = self.window.key();
        let bounds: &[&str] = match (&self.window, self.bounds) {
            (Window::None, _) => &[],
            (Window::Key(_) | Window::Zone { .. }, _) => &[key.as_deref().expect("it is a key")],
            (_, Bounds::Both) => &["window_start", "window_end"],
            (_, Bounds::Start) => &["window_start"],
            (_, Bounds::End) => &["window_end"],
            (_, Bounds::Neither) => &[],
        };
        bounds.iter().map(|b| b.to_string()).chain(self.keys.iter().cloned()).collect()
    }

    fn key_names(&self) -> Vec<String> {
        (0..self.keys().len()).map(|i| format!("k{i}")).collect()
    }

    fn columns(&self) -> Vec<String> {
        let measures = self.measures.iter().enumerate().map(|(i, m)| format!("{}{i}", m.letter));
        self.key_names().into_iter().chain(measures).collect()
    }

    /// The first column whose value is exact.
    fn exact(&self) -> Option<String> {
        self.columns().into_iter().find(|c| c.starts_with('a'))
    }

    /// Column with the start of the window, for reading only some windows.
    fn start_column(&self) -> Option<&'static str> {
        let first = self.bounds != Bounds::End && self.bounds != Bounds::Neither;
        match self.window {
            Window::None => None,
            Window::Key(_) | Window::Zone { .. } => Some("k0"),
            _ => first.then_some("k0"),
        }
    }

    fn sql(&self, stream: &str) -> String {
        self.sql_with(stream, "", &[], &[])
    }

    /// With more columns of the stream, conditions and measures.
    fn sql_with(&self, stream: &str, carried: &str, conditions: &[String], measures: &[String]) -> String {
        let relation = match &self.input {
            Input::Stream => stream.to_string(),
            Input::Where(condition) => format!("(SELECT * FROM {stream} AS src WHERE {condition})"),
            Input::Columns(columns) => format!("(SELECT {}, ts{carried} FROM {stream} AS src)", columns.join(", ")),
            Input::Lookup { join } => format!(
                "(SELECT src.*, r.label AS t9 FROM {stream} AS src {join} {REFERENCE} AS r ON src.t0 = r.value)"
            ),
        };
        let keys = self.keys();
        let expressions = keys.iter().cloned().chain(self.measures.iter().map(Measure::sql));
        let columns: Vec<_> = expressions.zip(self.columns()).map(|(expr, name)| format!("{expr} AS {name}")).collect();
        let columns: Vec<_> = columns.iter().chain(measures).map(String::as_str).collect();
        let distinct = if self.measures.is_empty() { "DISTINCT " } else { "" };
        let mut sql = format!("SELECT {distinct}{} FROM {}", columns.join(", "), self.window.over(&relation));
        let own = self.filter.iter().map(|f| format!("({f})")).chain(self.unshared.then(|| "1 = 1".to_string()));
        let conditions: Vec<String> = own.chain(conditions.iter().cloned()).collect();
        if !conditions.is_empty() {
            sql += &format!(" WHERE {}", conditions.join(" AND "));
        }
        if !keys.is_empty() && !self.measures.is_empty() {
            let (own, bounds) = (self.keys.join(", "), keys[..keys.len() - self.keys.len()].join(", "));
            let before = if bounds.is_empty() { String::new() } else { format!("{bounds}, ") };
            sql += " GROUP BY ";
            sql += &match self.sets {
                Sets::Plain => keys.join(", "),
                Sets::Rollup => format!("{before}ROLLUP ({own})"),
                Sets::Cube => format!("{before}CUBE ({own})"),
                Sets::Each => {
                    let each = self.keys.iter().map(|key| format!(", ({before}{key})"));
                    format!("GROUPING SETS (({before}{own}){})", each.collect::<String>())
                }
            };
        }
        if let Some(having) = &self.having {
            sql += &format!(" HAVING {having}");
        }
        sql
    }

    /// The query over those rows that came before their window closed, of windows that have closed: what a view announces.
    fn announced_sql(&self, stream: &str, lateness: i64, watermark: Option<&str>) -> String {
        let late = interval(lateness * 1000);
        let in_time = match self.window {
            // Sessions take every row that is not late itself.
            Window::Session { .. } => format!(" WHERE l.w IS NULL OR src.ts >= l.w - {late}"),
            _ => String::new(),
        };
        let mut conditions = vec![match watermark {
            Some(now) => format!("window_end <= '{now}'::timestamptz - {late}"),
            None => "false".into(),
        }];
        if !self.window.is_session() {
            conditions.push(format!("(w IS NULL OR window_end > w - {late})"));
        }
        self.sql_with(&with_watermarks(stream, &in_time), ", w", &conditions, &[])
    }

    /// The query with `_final` and `_revision`, counted from the rows.
    fn versions_sql(&self, stream: &str, watermark: Option<&str>) -> String {
        let closed = match watermark {
            Some(now) => format!("bool_and(window_end <= '{now}'::timestamptz)"),
            None => "bool_and(false)".into(),
        };
        let late = match self.window {
            Window::Session { .. } => "ts < w",
            _ => "window_end <= w",
        };
        let revision = format!("count(*) FILTER (WHERE w IS NOT NULL AND {late})");
        let measures = [format!("{closed} AS _final"), format!("{revision} AS _revision")];
        self.sql_with(&with_watermarks(stream, ""), ", w", &[], &measures)
    }

    fn simpler(&self) -> Vec<Aggregate> {
        let mut all = Vec::new();
        let mut with = |change: &dyn Fn(&mut Aggregate)| {
            let mut simpler = self.clone();
            change(&mut simpler);
            if simpler != *self && !simpler.columns().is_empty() {
                all.push(simpler);
            }
        };
        with(&|a| a.filter = None);
        with(&|a| a.having = None);
        with(&|a| a.input = Input::Stream);
        with(&|a| a.sets = Sets::Plain);
        with(&|a| a.unshared = false);
        for window in self.window.simpler() {
            with(&|a| a.window = window.clone());
        }
        for bounds in [Bounds::Start, Bounds::Both] {
            with(&|a| a.bounds = bounds);
        }
        for i in 0..self.keys.len() {
            with(&|a| drop(a.keys.remove(i)));
        }
        for (i, key) in self.keys.iter().enumerate() {
            // The column instead of an expression over it.
            if let Some(column) = column_in(key) {
                with(&|a| a.keys[i] = column.clone());
            }
        }
        for i in 0..self.measures.len() {
            if self.measures.len() > 1 {
                with(&|a| drop(a.measures.remove(i)));
            }
            with(&|a| a.measures[i].filter = None);
            with(&|a| a.measures[i] = Measure::count());
        }
        all
    }

    /// Fewer keys, in this and its sibling alike.
    fn with_fewer_keys(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.keys.len()
    }
}

/// The stream's rows, those that were late with the watermark that they met.
fn with_watermarks(stream: &str, condition: &str) -> String {
    format!(
        "(SELECT src.*, l.w AS w FROM {stream} AS src LEFT JOIN (SELECT _offset, ts + _late_by AS w FROM {stream}__late) AS l \
         ON src.o = l._offset{condition})"
    )
}

/// The first word of an expression that looks like a column of a table.
fn column_in(expression: &str) -> Option<String> {
    let mut words = expression.split(|c: char| !c.is_ascii_alphanumeric());
    let is_column = |word: &&str| {
        word.len() == 2 && word.starts_with(['t', 'i', 'd', 'r', 'b', 'z']) && word.as_bytes()[1].is_ascii_digit()
    };
    words.find(is_column).filter(|word| *word != expression).map(str::to_string)
}

impl Measure {
    fn count() -> Measure {
        Measure { call: "count(*){filter}".into(), filter: None, letter: 'a' }
    }

    fn sql(&self) -> String {
        let filter = self.filter.as_ref().map_or(String::new(), |f| format!(" FILTER (WHERE {f})"));
        self.call.replace("{filter}", &filter)
    }
}

fn measures(random: &mut StdRng, table: &Table, windowed: bool) -> Vec<Measure> {
    let mut measures = Vec::new();
    for _ in 0..random.random_range(1..=4) {
        let column = pick(random, &table.columns);
        let (letter, call) = measure(random, &column.name, column.kind);
        let filter = match random.random_range(0..10) {
            0 if windowed => Some(within_window(random)),
            1 | 2 => Some(condition(random, table)),
            _ => None,
        };
        measures.push(Measure { call, filter: filter.filter(|_| letter != 'p'), letter });
    }
    measures
}

/// An aggregate, and the letter that its column gets.
fn measure(random: &mut StdRng, c: &str, kind: Kind) -> (char, String) {
    const ALL: &[&str] = &["count(*)", "count({})", "count(DISTINCT {})", "min({})", "max({})"];
    const TEXT: &[&str] = &["approx_distinct({})", "max(length({}))", "min(upper({}))"];
    const BIGINT: &[&str] = &[
        "sum({})",
        "sum({})",
        "avg({})",
        "sum(DISTINCT {})",
        "approx_distinct({})",
        "bit_or({})",
        "bit_and({})",
        "bit_xor({})",
        "median({})",
        "coalesce(sum({}), 0)",
        "max({}) - min({})",
        "sum(CASE WHEN {} > 0 THEN {} ELSE 1 END)",
        "avg(CASE WHEN {} >= 500 THEN 1.0 ELSE 0.0 END)",
        "CAST(count({}) AS DOUBLE) / count(*)",
        "sum({}) + count(*)",
    ];
    const DOUBLE: &[&str] = &["sum({})", "avg({})", "median({})", "max({}) - min({})", "sum({} * 2)"];
    const ROUGH: &[&str] = &["sum({})", "avg({})", "stddev({})", "var_pop({})", "sum({} * {})"];
    const BOOLEAN: &[&str] = &["bool_and({})", "bool_or({})", "sum(CASE WHEN {} THEN 1 ELSE 0 END)"];
    const SPREADS: &[&str] = &["stddev({} % 1000)", "var_pop({} % 100)", "stddev_pop({} % 10)", "var_samp({} % 7)"];
    const ESTIMATES: &[&str] = &["approx_percentile_cont({}, 0.9)", "approx_median({})"];
    let (letter, calls) = match (kind, random.random_range(0..8)) {
        (_, 0..3) => ('a', ALL),
        (Kind::Text, _) => ('a', TEXT),
        (Kind::Bigint, 7) => ('f', SPREADS),
        (Kind::Bigint, _) => ('a', BIGINT),
        (Kind::Double, 7) => ('p', ESTIMATES),
        (Kind::Double, _) => ('a', DOUBLE),
        (Kind::Rough, _) => ('f', ROUGH),
        (Kind::Boolean, _) => ('a', BOOLEAN),
        (Kind::Time, _) => ('a', ALL),
    };
    let call = pick(random, calls).replace("{}", c);
    // FILTER goes behind the first call's parentheses.
    let end = first_call_end(&call);
    (letter, format!("{}{{filter}}{}", &call[..end], &call[end..]))
}

/// Where the first aggregate call of an expression ends.
fn first_call_end(call: &str) -> usize {
    let start = match call.starts_with("coalesce(") || call.starts_with("CAST(") {
        true => call.find('(').map_or(0, |at| at + 1),
        false => 0,
    };
    let mut depth = 0;
    for (i, c) in call.char_indices().skip_while(|(i, _)| *i < start) {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return i + 1,
            ')' => depth -= 1,
            _ => {}
        }
    }
    call.len()
}

fn key(random: &mut StdRng, c: &str, kind: Kind) -> String {
    let keys: &[&str] = match kind {
        Kind::Text => {
            &["{}", "{}", "upper({})", "length({})", "coalesce({}, 'none')", "{} LIKE 'a%'", "substr({}, 1, 1)"]
        }
        Kind::Bigint => &["{}", "{} % 3", "{} / 100", "{} > 0", "{} IS NULL"],
        Kind::Double => &["{}", "{} > 0", "floor({} / 100)"],
        Kind::Rough => &["{} > 1000", "{}"],
        Kind::Boolean => &["{}", "{} IS NULL", "coalesce({}, false)"],
        Kind::Time => &["{}", "date_trunc('hour', {})", "extract(hour FROM {})"],
    };
    pick(random, keys).replace("{}", c)
}

fn condition(random: &mut StdRng, table: &Table) -> String {
    match random.random_range(0..12) {
        0 => {
            pick(random, &["false", "true", "extract(second FROM ts) < 30", "ts >= '2026-01-01T00:05:00Z'"]).to_string()
        }
        1 => format!("({} OR {})", simple_condition(random, table), simple_condition(random, table)),
        2 => format!("{} AND {}", simple_condition(random, table), simple_condition(random, table)),
        _ => simple_condition(random, table),
    }
}

fn simple_condition(random: &mut StdRng, table: &Table) -> String {
    let column = pick(random, &table.columns);
    let conditions: &[&str] = match column.kind {
        Kind::Text => &[
            "{} = 'a'",
            "{} LIKE '/a%'",
            "{} IS NOT NULL",
            "{} <> ''",
            "regexp_like({}, '^[a-z]')",
            "{} IN ('a', 'b', 'A')",
            "length({}) > 1",
        ],
        Kind::Bigint => &["{} > 0", "{} % 2 = 0", "{} IS NULL", "{} BETWEEN 0 AND 1000", "{} <> 404"],
        Kind::Double | Kind::Rough => &["{} > 0", "{} < 500", "{} IS NOT NULL"],
        Kind::Boolean => &["{}", "NOT {}", "{} IS NOT TRUE"],
        Kind::Time => &["{} >= '2026-01-01T00:00:00Z'", "extract(hour FROM {}) < 12", "{} < ts"],
    };
    pick(random, conditions).replace("{}", &column.name)
}

/// A condition on the bounds of a row's window.
fn within_window(random: &mut StdRng) -> String {
    pick(random, &["ts < window_start + INTERVAL '2 seconds'", "window_end > '2026-01-01T00:01:00Z'"]).to_string()
}

fn having(random: &mut StdRng, table: &Table) -> String {
    let column = pick(random, &table.columns);
    pick(random, &["count(*) > 1", "count(*) > 5", "min({}) IS NOT NULL", "count(DISTINCT {}) > 1"])
        .replace("{}", &column.name)
}

impl Query {
    /// A random query; `views` are those that it may read.
    pub fn random(random: &mut StdRng, table: &Table, views: &[Query]) -> Query {
        match random.random_range(0..30) {
            0 => {
                let left = Aggregate::random_inner(random, table);
                let right = left.sibling(random, table);
                Query::Join { kind: word(random, &["JOIN", "LEFT JOIN", "FULL JOIN"]), left, right }
            }
            1 => {
                let left = Aggregate::random_inner(random, table);
                let right = left.sibling(random, table);
                let operator = word(random, &["UNION ALL", "UNION", "EXCEPT", "INTERSECT"]);
                Query::Set { operator, left, right }
            }
            2 => {
                let function = word(random, &["row_number()", "rank()", "dense_rank()"]);
                Query::Rank { inner: Aggregate::random_inner(random, table), function, most: *pick(random, &[1, 3]) }
            }
            3 => {
                let calls = &[
                    "lag({a}) OVER (ORDER BY {keys})",
                    "lead({a}, 2) OVER (ORDER BY {keys})",
                    "count({a}) OVER (PARTITION BY k0)",
                    "max({a}) OVER (ORDER BY {keys} ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)",
                ];
                Query::Lag { inner: Aggregate::random_inner(random, table), call: word(random, calls) }
            }
            4 => Query::First {
                inner: Aggregate::random_inner(random, table),
                limit: random.random_range(0..10),
                offset: *pick(random, &[0, 0, 1, 5]),
                descending: chance(random, 2),
            },
            5 => Query::Cte { inner: Aggregate::random_inner(random, table) },
            6 => Query::Count { inner: Aggregate::random_inner(random, table) },
            7 | 8 if views.iter().any(Query::is_result) => {
                let results: Vec<usize> = (0..views.len()).filter(|&v| views[v].is_result()).collect();
                let view = *pick(random, &results);
                let (keys, rest): (Vec<String>, Vec<String>) =
                    views[view].columns().into_iter().partition(|c| c.starts_with('k'));
                let key = if keys.is_empty() || chance(random, 3) { None } else { Some(pick(random, &keys).clone()) };
                let exact: Vec<String> = rest.into_iter().filter(|c| c.starts_with('a')).collect();
                let mut measures = vec!["count(*)".to_string()];
                if !exact.is_empty() {
                    let call = pick(random, &["max({})", "min({})", "count({})", "count(DISTINCT {})"]);
                    let column: &String = pick(random, &exact);
                    measures.push(call.replace("{}", column));
                }
                Query::Over { view, key, measures }
            }
            9..12 if views.iter().any(Query::is_result) => {
                let results: Vec<&Query> = views.iter().filter(|v| v.is_result()).collect();
                let mut same = Query::clone(*pick(random, results.as_slice()));
                if let Query::Group(inner) = &same
                    && chance(random, 3)
                {
                    return Query::Group(inner.sibling(random, table));
                }
                if chance(random, 2) && same.unshare() {
                    return same;
                }
                match same {
                    // It cannot be said otherwise.
                    Query::Over { .. } => same,
                    other => Query::Again { inner: Box::new(other) },
                }
            }
            12 => {
                let columns = table.columns.iter().map(|c| match c.kind {
                    Kind::Bigint if chance(random, 3) => format!("{0} + 1 AS {0}", c.name),
                    Kind::Text if chance(random, 4) => format!("upper({0}) AS {0}", c.name),
                    _ => c.name.clone(),
                });
                let columns = columns.collect();
                Query::Derived { columns, filter: chance(random, 2).then(|| condition(random, table)) }
            }
            13 | 14 if views.iter().any(|v| matches!(v, Query::Derived { .. })) => {
                let streams: Vec<usize> =
                    (0..views.len()).filter(|&v| matches!(views[v], Query::Derived { .. })).collect();
                let view = *pick(random, &streams);
                loop {
                    let inner = Query::random(random, table, &[]);
                    if inner.is_result() {
                        return Query::On { view, inner: Box::new(inner) };
                    }
                }
            }
            15 | 16 => loop {
                let inner = Aggregate::random(random, table, false);
                if inner.closes() {
                    return Query::Closed { inner, lateness: *pick(random, &[0, 0, 1, 60]) };
                }
            },
            _ => Query::Group(Aggregate::random(random, table, false)),
        }
    }

    /// Puts conditions into all aggregates that change nothing; `false` when it reads no stream itself.
    fn unshare(&mut self) -> bool {
        match self {
            Query::Join { left, right, .. } | Query::Set { left, right, .. } => {
                (left.unshared, right.unshared) = (true, true);
                true
            }
            Query::Group(inner)
            | Query::Rank { inner, .. }
            | Query::Lag { inner, .. }
            | Query::First { inner, .. }
            | Query::Cte { inner }
            | Query::Count { inner } => {
                inner.unshared = true;
                true
            }
            Query::Again { inner } => inner.unshare(),
            Query::On { inner, .. } => inner.unshare(),
            Query::Derived { .. } | Query::Closed { .. } | Query::Over { .. } => false,
        }
    }

    /// Whether it is a view like most: it has aggregates and shows the latest.
    fn is_result(&self) -> bool {
        !matches!(self, Query::Derived { .. } | Query::Closed { .. })
    }

    /// Whether it announces windows.
    pub fn is_closed(&self) -> bool {
        matches!(self, Query::Closed { .. })
    }

    /// Whether a subscription can go on from an offset: the rows before it alone say what the view was then, and all of
    /// its columns are exact, so that each row can be told from all others by its values.
    pub fn resumes(&self) -> bool {
        let exact = !self.columns().iter().any(|c| c.starts_with(['f', 'p', 'd', 'r']));
        exact && !self.is_closed() && !self.looks_up()
    }

    fn looks_up(&self) -> bool {
        let looks_up = |a: &Aggregate| matches!(a.input, Input::Lookup { .. });
        match self {
            Query::Group(inner)
            | Query::Rank { inner, .. }
            | Query::Lag { inner, .. }
            | Query::First { inner, .. }
            | Query::Closed { inner, .. }
            | Query::Cte { inner }
            | Query::Count { inner } => looks_up(inner),
            Query::Join { left, right, .. } | Query::Set { left, right, .. } => looks_up(left) || looks_up(right),
            Query::Again { inner } | Query::On { inner, .. } => inner.looks_up(),
            Query::Derived { .. } => false,
            // What the other view reads is not known here.
            Query::Over { .. } => true,
        }
    }

    /// Options between the name and AS, and what stands behind the query.
    pub fn emission(&self) -> (String, &'static str) {
        match self {
            Query::Closed { lateness: 0, .. } => (String::new(), " EMIT ON WINDOW CLOSE"),
            Query::Closed { lateness, .. } => {
                (format!(" WITH (allowed_lateness = '{lateness} seconds')"), " EMIT ON WINDOW CLOSE")
            }
            _ => (String::new(), ""),
        }
    }

    /// What the view shows when the watermark is there, computed from the stream, its late rows and nothing else.
    pub fn announced(&self, stream: &str, watermark: Option<&str>) -> Option<String> {
        match self {
            Query::Closed { inner, lateness } => Some(inner.announced_sql(stream, *lateness, watermark)),
            _ => None,
        }
    }

    /// The query with `_final` and `_revision`, computed the same way.
    pub fn versions(&self, stream: &str, watermark: Option<&str>) -> Option<String> {
        match self {
            Query::Group(inner) if inner.closes() => Some(inner.versions_sql(stream, watermark)),
            _ => None,
        }
    }

    /// The view that it reads.
    pub fn reads(&self) -> Option<usize> {
        match self {
            Query::Over { view, .. } | Query::On { view, .. } => Some(*view),
            Query::Again { inner } => inner.reads(),
            _ => None,
        }
    }

    /// The same query after the views have got other numbers.
    pub fn renumbered(&self, number: &dyn Fn(usize) -> usize) -> Query {
        match self {
            Query::Over { view, key, measures } => {
                Query::Over { view: number(*view), key: key.clone(), measures: measures.clone() }
            }
            Query::On { view, inner } => Query::On { view: number(*view), inner: inner.clone() },
            Query::Again { inner } => Query::Again { inner: Box::new(inner.renumbered(number)) },
            other => other.clone(),
        }
    }

    pub fn columns(&self) -> Vec<String> {
        match self {
            Query::Group(inner) | Query::First { inner, .. } | Query::Closed { inner, .. } => inner.columns(),
            Query::Derived { columns, .. } => {
                let names = columns.iter().map(|c| c.rsplit(' ').next().unwrap_or(c).to_string());
                ["ts".to_string()].into_iter().chain(names).collect()
            }
            Query::On { inner, .. } => inner.columns(),
            Query::Join { left, .. } => left.key_names().into_iter().chain(["a0".into(), "a1".into()]).collect(),
            Query::Set { left, .. } => left.key_names().into_iter().chain(["a0".into()]).collect(),
            Query::Rank { inner, .. } | Query::Lag { inner, .. } => {
                inner.columns().into_iter().chain(["a90".into()]).collect()
            }
            Query::Cte { .. } => vec!["k0".into(), "a0".into(), "a1".into()],
            Query::Count { .. } => vec!["a0".into()],
            Query::Again { inner } => inner.columns(),
            Query::Over { key, measures, .. } => {
                let key = key.iter().map(|_| "k0".to_string());
                key.chain((0..measures.len()).map(|i| format!("a{i}"))).collect()
            }
        }
    }

    /// Column with the window's start, if it has one.
    pub fn start_column(&self) -> Option<&'static str> {
        match self {
            Query::Group(a) if a.sets == Sets::Plain => a.start_column(),
            Query::Rank { inner, .. } | Query::Lag { inner, .. } => inner.start_column(),
            Query::Join { left, kind: "JOIN" | "LEFT JOIN", .. } => left.start_column(),
            Query::Again { inner } | Query::On { inner, .. } => inner.start_column(),
            _ => None,
        }
    }

    pub fn sql(&self, names: &Names<'_>) -> String {
        let stream = names.stream;
        let exact = |a: &Aggregate| a.exact().expect("checked when it was made");
        match self {
            Query::Group(inner) | Query::Closed { inner, .. } => inner.sql(stream),
            Query::Derived { columns, filter } => {
                let filter = filter.as_ref().map_or(String::new(), |f| format!(" WHERE {f}"));
                format!("SELECT ts, {} FROM {stream} AS src{filter}", columns.join(", "))
            }
            Query::On { view, inner } => inner.sql(&Names { stream: &(names.view)(*view), view: names.view }),
            Query::Join { kind, left, right } => {
                let keys = left.key_names();
                let columns: Vec<_> = keys.iter().map(|k| format!("l.{k} AS {k}")).collect();
                let on: Vec<_> = keys.iter().map(|k| format!("l.{k} = r.{k}")).collect();
                format!(
                    "SELECT {}, l.{} AS a0, r.{} AS a1 FROM ({}) AS l {kind} ({}) AS r ON {}",
                    columns.join(", "),
                    exact(left),
                    exact(right),
                    left.sql(stream),
                    right.sql(stream),
                    on.join(" AND ")
                )
            }
            Query::Set { operator, left, right } => {
                let side = |a: &Aggregate, name: &str| {
                    format!(
                        "SELECT {}, {} AS a0 FROM ({}) AS {name}",
                        a.key_names().join(", "),
                        exact(a),
                        a.sql(stream)
                    )
                };
                format!("{} {operator} {}", side(left, "l"), side(right, "r"))
            }
            Query::Rank { inner, function, most } => format!(
                "SELECT * FROM (SELECT *, {function} OVER (PARTITION BY k0 ORDER BY {} DESC, {}) AS a90 FROM ({}) AS counted) AS ranked WHERE a90 <= {most}",
                exact(inner),
                inner.key_names().join(", "),
                inner.sql(stream)
            ),
            Query::Lag { inner, call } => {
                let call = call.replace("{a}", &exact(inner)).replace("{keys}", &inner.key_names().join(", "));
                format!("SELECT *, {call} AS a90 FROM ({}) AS counted", inner.sql(stream))
            }
            Query::First { inner, limit, offset, descending } => {
                let direction = if *descending { " DESC" } else { "" };
                format!(
                    "SELECT * FROM ({}) AS counted ORDER BY {}{direction}, {} LIMIT {limit} OFFSET {offset}",
                    inner.sql(stream),
                    exact(inner),
                    inner.key_names().join(", ")
                )
            }
            Query::Cte { inner } => format!(
                "WITH counted AS ({}) SELECT k0, count(*) AS a0, max({}) AS a1 FROM counted GROUP BY k0",
                inner.sql(stream),
                exact(inner)
            ),
            Query::Count { inner } => format!("SELECT count(*) AS a0 FROM ({}) AS counted", inner.sql(stream)),
            Query::Again { inner } => format!("SELECT * FROM ({}) AS again", inner.sql(names)),
            Query::Over { view, key, measures } => {
                let measures: Vec<_> = measures.iter().enumerate().map(|(i, m)| format!("{m} AS a{i}")).collect();
                let from = format!("{} AS v{view}", (names.view)(*view));
                match key {
                    Some(key) => {
                        format!("SELECT {key} AS k0, {} FROM {from} GROUP BY {key}", measures.join(", "))
                    }
                    None => format!("SELECT {} FROM {from}", measures.join(", ")),
                }
            }
        }
    }

    /// Queries that are a little simpler, the boldest first.
    pub fn simpler(&self) -> Vec<Query> {
        let inner_of = |inner: &Aggregate, wrap: &dyn Fn(Aggregate) -> Query| -> Vec<Query> {
            let alone = Query::Group(inner.clone());
            let simpler = inner.simpler().into_iter().filter(Aggregate::can_be_inner).map(wrap);
            [alone].into_iter().chain(simpler).collect()
        };
        let both = |left: &Aggregate, right: &Aggregate, wrap: &dyn Fn(Aggregate, Aggregate) -> Query| -> Vec<Query> {
            let mut all = vec![Query::Group(left.clone()), Query::Group(right.clone())];
            let mut add = |left: Aggregate, right: Aggregate| {
                if left.can_be_inner() && right.can_be_inner() {
                    all.push(wrap(left, right));
                }
            };
            add(Aggregate { filter: None, having: None, ..left.clone() }, right.clone());
            add(left.clone(), Aggregate { filter: None, having: None, ..right.clone() });
            for i in left.with_fewer_keys() {
                let without = |a: &Aggregate| {
                    let mut a = a.clone();
                    a.keys.remove(i);
                    a
                };
                add(without(left), without(right));
            }
            for window in left.window.simpler() {
                add(Aggregate { window: window.clone(), ..left.clone() }, Aggregate { window, ..right.clone() });
            }
            let counts = vec![Measure::count()];
            add(
                Aggregate { measures: counts.clone(), ..left.clone() },
                Aggregate { measures: counts, ..right.clone() },
            );
            all.into_iter().filter(|q| q != self).collect()
        };
        match self {
            Query::Group(inner) => inner.simpler().into_iter().map(Query::Group).collect(),
            Query::Join { kind, left, right } => both(left, right, &|left, right| Query::Join { kind, left, right }),
            Query::Set { operator, left, right } => {
                both(left, right, &|left, right| Query::Set { operator, left, right })
            }
            Query::Rank { inner, function, most } => {
                inner_of(inner, &|inner| Query::Rank { inner, function, most: *most })
            }
            Query::Lag { inner, call } => inner_of(inner, &|inner| Query::Lag { inner, call }),
            Query::First { inner, limit, offset, descending } => {
                let mut all = inner_of(inner, &|inner| Query::First {
                    inner,
                    limit: *limit,
                    offset: *offset,
                    descending: *descending,
                });
                if *offset > 0 {
                    let (inner, limit, descending) = (inner.clone(), *limit, *descending);
                    all.push(Query::First { inner, limit, offset: 0, descending });
                }
                all
            }
            Query::Closed { inner, lateness } => {
                let simpler = inner.simpler().into_iter().filter(Aggregate::closes);
                let in_time = (*lateness > 0).then(|| Query::Closed { inner: inner.clone(), lateness: 0 });
                simpler.map(|inner| Query::Closed { inner, lateness: *lateness }).chain(in_time).collect()
            }
            Query::Derived { columns, filter } => {
                let plain = columns.iter().map(|c| c.rsplit(' ').next().unwrap_or(c).to_string()).collect();
                let all = [
                    Query::Derived { columns: columns.clone(), filter: None },
                    Query::Derived { columns: plain, filter: filter.clone() },
                ];
                all.into_iter().filter(|q| q != self).collect()
            }
            Query::On { view, inner } => {
                let simpler =
                    inner.simpler().into_iter().map(|inner| Query::On { view: *view, inner: Box::new(inner) });
                [inner.as_ref().clone()].into_iter().chain(simpler).collect()
            }
            Query::Cte { inner } => inner_of(inner, &|inner| Query::Cte { inner }),
            Query::Count { inner } => inner_of(inner, &|inner| Query::Count { inner }),
            Query::Again { inner } => {
                let simpler = inner.simpler().into_iter().map(|inner| Query::Again { inner: Box::new(inner) });
                [inner.as_ref().clone()].into_iter().chain(simpler).collect()
            }
            Query::Over { view, key, measures } => {
                let mut all = Vec::new();
                let over = |key: Option<String>, measures: Vec<String>| Query::Over { view: *view, key, measures };
                if key.is_some() {
                    all.push(over(None, measures.clone()));
                }
                for i in 0..measures.len() {
                    let mut fewer = measures.clone();
                    fewer.remove(i);
                    if !fewer.is_empty() {
                        all.push(over(key.clone(), fewer));
                    }
                }
                all
            }
        }
    }
}
