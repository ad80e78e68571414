//! A case in full: a table, the lines that come and how they are cut, views and when they are made, restarts. How to make
//! one from a number, how to make it smaller, and how to write it down. `stage.rs` runs it.

use std::fmt::Write as _;

use logweir::time::{MICROS_PER_SECOND, Micros};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::data::{Line, Pace, START, Table, Value, rfc3339};
use super::query::{Names, Query, REFERENCE, Window, counted_window};
use super::{chance, pick, word};

/// Estimates may be off by this part of the range of their values.
const ESTIMATE: f64 = 0.02;

/// Views of one scenario.
const VIEWS: usize = 9;

#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Push {
        lines: Vec<Line>,
        /// Written in two parts, the first of which ends within a line.
        torn: bool,
        /// Waits until the lines are visible: then they are a micro-batch of their own, or more.
        flush: bool,
    },
    Create(usize),
    /// Makes the view again, on the rows that are there, in the place of the old one.
    Replace(usize),
    Check(usize),
    /// Somebody begins to follow the view, or goes away and comes back.
    Subscribe(usize),
    Restart,
    /// All rows go to the archive, small files are merged, and a checkpoint is made.
    Archive,
    Clock(Micros),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub delay_seconds: i64,
    pub sync: &'static str,
    pub hot_bytes: u64,
    pub segment_bytes: u64,
    pub block_bytes: u64,
    pub cores: usize,
    /// The other stream that reads the same lines, in blocks of this size.
    pub twin_block_bytes: Option<u64>,
}

/// See the file header.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    pub table: Table,
    pub settings: Settings,
    pub views: Vec<Query>,
    pub steps: Vec<Step>,
    /// Window whose rows the test counts itself.
    pub model: Option<Window>,
    /// Rows of the reference table: values of the first column, and their labels.
    pub reference: Vec<(Value, String)>,
}

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// A statement succeeds.
    Statement,
    Rows,
    View,
    Narrow,
    /// What is announced when windows close.
    Closed,
    /// `_final` and `_revision`.
    Versions,
    /// Changes add up to the view.
    Subscribe,
    Cut,
    Model,
    /// The engine logs no warning.
    Log,
}

/// What did not hold.
#[derive(Debug, Clone)]
pub struct Failure {
    pub property: Property,
    /// The view that it is about.
    pub view: Option<usize>,
    pub text: String,
    /// The two queries that should have given the same, if it was about two.
    pub queries: Option<(String, String)>,
}

impl Failure {
    pub fn new(property: Property, view: Option<usize>, text: String) -> Failure {
        Failure { property, view, text, queries: None }
    }

    /// Whether it is the same again: a statement can also fail because something that it needs was taken away.
    pub fn is_like(&self, other: &Failure) -> bool {
        let begins = |text: &str| text.chars().take(25).collect::<String>();
        self.property == other.property
            && (self.property != Property::Statement || begins(&self.text) == begins(&other.text))
    }
}

/// The stream's name, and the twin's.
pub const STREAM: &str = "s";
pub const TWIN: &str = "u";

impl Scenario {
    /// The scenario with this number.
    pub fn random(seed: u64) -> Scenario {
        let random = &mut StdRng::seed_from_u64(seed);
        let table = Table::random(random);
        let settings = Settings {
            delay_seconds: *pick(random, &[0, 5, 600]),
            sync: word(random, &["off", "off", "off", "10ms", "always"]),
            hot_bytes: *pick(random, &[1, 4096, 1 << 28]),
            segment_bytes: *pick(random, &[4096, 65_536, 1 << 28]),
            block_bytes: *pick(random, &[100, 1000, 1 << 22, 1 << 22]),
            cores: *pick(random, &[1, 1, 2]),
            twin_block_bytes: chance(random, 2).then(|| *pick(random, &[100, 300, 1 << 22])),
        };
        let mut views: Vec<Query> = Vec::new();
        for _ in 0..VIEWS {
            views.push(Query::random(random, &table, &views));
        }
        let model = Some(counted_window(random, &table));
        let steps = steps(random, &table, &views);
        let reference = table.reference(random);
        Scenario { table, settings, views, steps, model, reference }
    }

    /// The same with a restart after every third push.
    pub fn with_restarts(mut self) -> Scenario {
        let mut pushes = 0;
        let mut steps = Vec::new();
        for step in self.steps {
            pushes += usize::from(matches!(step, Step::Push { .. }));
            let restart = matches!(step, Step::Push { .. }) && pushes % 3 == 0;
            steps.push(step);
            steps.extend(restart.then_some(Step::Restart));
        }
        self.steps = steps;
        self
    }

    /// The lines in their order.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.steps.iter().flat_map(|step| match step {
            Step::Push { lines, .. } => lines.as_slice(),
            _ => &[],
        })
    }

    pub fn create_stream(&self, name: &str, path: &str, block_bytes: u64) -> String {
        let Settings { delay_seconds, sync, hot_bytes, segment_bytes, .. } = &self.settings;
        format!(
            "CREATE TABLE {name} ({}, WATERMARK FOR ts AS ts - INTERVAL '{delay_seconds} seconds')\n\
             INCLUDE offset AS o WITH (connector = 'file', path = '{path}', block_bytes = '{block_bytes}', partial_line_timeout = '1 hour',\n\
             wal_sync = '{sync}', wal_segment_bytes = '{segment_bytes}', hot_bytes = '{hot_bytes}')\nFORMAT {}",
            self.table.declaration(),
            self.table.format()
        )
    }

    pub fn create_reference(&self) -> Option<String> {
        let text = |value: &Value| match value {
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            _ => "NULL".to_string(),
        };
        let rows: Vec<_> =
            self.reference.iter().map(|(value, label)| format!("({}, '{label}')", text(value))).collect();
        (!rows.is_empty()).then(|| format!("CREATE TABLE {REFERENCE} (value, label) AS VALUES {}", rows.join(", ")))
    }

    /// The statement that makes the view, called `name`; `how` is CREATE or CREATE OR REPLACE.
    pub fn create_view(&self, how: &str, name: &str, view: usize, query: &str) -> String {
        let (options, emit) = self.views[view].emission();
        format!("{how} MATERIALIZED VIEW {name}{options} AS\n{query}{emit}")
    }

    /// The query of a view as it is created.
    pub fn live(&self, view: usize) -> String {
        self.views[view].sql(&Names { stream: STREAM, view: &|i| format!("v{i}") })
    }

    /// The same query over nothing but the stream.
    pub fn batch(&self, view: usize) -> String {
        let inner = |i: usize| format!("({})", self.batch(i));
        self.views[view].sql(&Names { stream: STREAM, view: &inner })
    }

    /// The same query over the twin.
    pub fn twin(&self, view: usize) -> Option<String> {
        self.settings.twin_block_bytes?;
        let query = &self.views[view];
        query.reads().is_none().then(|| query.sql(&Names { stream: TWIN, view: &|i| format!("v{i}") }))
    }

    /// How far the estimates of a column of doubles may be off. A rank that is a little off falls on the next value, or
    /// between the two: so by the largest gap between neighbours, and by a part of their range.
    pub fn spread(&self) -> f64 {
        let of_column = |column: usize| {
            let values = self.lines().filter_map(|line| match line {
                Line::Row { values, .. } => values.get(column),
                Line::Malformed(_) => None,
            });
            let mut numbers: Vec<f64> =
                values.filter_map(|v| if let Value::Double(x) = v { Some(*x) } else { None }).collect();
            numbers.sort_unstable_by(f64::total_cmp);
            let gap = numbers.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
            let range = numbers.last().zip(numbers.first()).map_or(0.0, |(hi, lo)| hi - lo);
            gap + range * ESTIMATE
        };
        (0..self.table.columns.len()).map(of_column).fold(0.0, f64::max)
    }

    /// A range of event time that holds about half of the rows.
    pub fn middle(&self) -> Option<(Micros, Micros)> {
        let time = |line: &Line| if let Line::Row { time, .. } = line { Some(*time) } else { None };
        let mut times: Vec<Micros> = self.lines().filter_map(time).collect();
        times.sort_unstable();
        Some((*times.get(times.len() / 4)?, *times.get(times.len() * 3 / 4)?))
    }

    // ---- making it smaller ------------------------------------------------------------------------------------------

    /// Only this view and those that it reads; nothing else is compared unless the failure is about it.
    pub fn focused(&self, failure: &Failure) -> Scenario {
        let mut wanted: Vec<usize> = failure.view.into_iter().collect();
        while let Some(next) = wanted.last().and_then(|&v| self.views[v].reads()) {
            wanted.push(next);
        }
        let mut scenario = self.keeping_views(&|view| wanted.contains(&view));
        if failure.property != Property::Model {
            scenario.model = None;
        }
        if failure.property != Property::Cut {
            scenario.settings.twin_block_bytes = None;
        }
        scenario
    }

    pub fn keeping_views(&self, keep: &dyn Fn(usize) -> bool) -> Scenario {
        let kept: Vec<usize> = (0..self.views.len()).filter(|v| keep(*v)).collect();
        let number = |old: usize| kept.iter().position(|k| *k == old).unwrap_or(0);
        let views = kept.iter().map(|&v| self.views[v].renumbered(&number)).collect();
        let step = |step: &Step| match step {
            Step::Create(v) => keep(*v).then(|| Step::Create(number(*v))),
            Step::Replace(v) => keep(*v).then(|| Step::Replace(number(*v))),
            Step::Check(v) => keep(*v).then(|| Step::Check(number(*v))),
            Step::Subscribe(v) => keep(*v).then(|| Step::Subscribe(number(*v))),
            other => Some(other.clone()),
        };
        Scenario { views, steps: self.steps.iter().filter_map(step).collect(), ..self.clone() }
    }

    /// The same without some of the lines, counted from the first to the last.
    pub fn without_lines(&self, from: usize, count: usize) -> Scenario {
        let mut scenario = self.clone();
        let mut number = 0;
        for step in &mut scenario.steps {
            if let Step::Push { lines, .. } = step {
                lines.retain(|_| {
                    number += 1;
                    !(from..from + count).contains(&(number - 1))
                });
            }
        }
        scenario.steps.retain(|step| !matches!(step, Step::Push { lines, .. } if lines.is_empty()));
        scenario
    }

    /// One step less or simpler, the boldest first.
    pub fn with_simpler_steps(&self) -> Vec<Scenario> {
        let with = |steps: Vec<Step>| Scenario { steps, ..self.clone() };
        let mut all = Vec::new();
        let quiet = |step: &Step| matches!(step, Step::Create(_) | Step::Push { .. });
        all.push(with(self.steps.iter().filter(|s| quiet(s)).cloned().collect()));
        for i in 0..self.steps.len() {
            let mut steps = self.steps.clone();
            match (&self.steps[i], self.steps.get(i + 1)) {
                (
                    Step::Restart
                    | Step::Archive
                    | Step::Clock(_)
                    | Step::Check(_)
                    | Step::Replace(_)
                    | Step::Subscribe(_),
                    _,
                ) => {
                    steps.remove(i);
                    all.push(with(steps));
                }
                // Two pushes become one.
                (Step::Push { lines, .. }, Some(Step::Push { lines: more, flush, .. })) => {
                    let lines = [lines.clone(), more.clone()].concat();
                    steps[i] = Step::Push { lines, torn: false, flush: *flush };
                    steps.remove(i + 1);
                    all.push(with(steps));
                }
                // Views are made earlier.
                (Step::Push { .. }, Some(Step::Create(_))) => {
                    steps.swap(i, i + 1);
                    all.push(with(steps));
                }
                (Step::Push { lines, torn: true, flush }, _) => {
                    steps[i] = Step::Push { lines: lines.clone(), torn: false, flush: *flush };
                    all.push(with(steps));
                }
                (Step::Push { lines, torn, flush: false }, _) => {
                    steps[i] = Step::Push { lines: lines.clone(), torn: *torn, flush: true };
                    all.push(with(steps));
                }
                (Step::Push { .. } | Step::Create(_), _) => {}
            }
        }
        all.retain(|s| s != self);
        all
    }

    pub fn with_simpler_queries(&self) -> Vec<Scenario> {
        let mut all = Vec::new();
        for (i, query) in self.views.iter().enumerate() {
            for simpler in query.simpler() {
                let mut scenario = self.clone();
                scenario.views[i] = simpler;
                all.push(scenario);
            }
        }
        all
    }

    pub fn with_simpler_data(&self) -> Vec<Scenario> {
        let mut all = vec![Scenario { reference: Vec::new(), ..self.clone() }];
        let plain = Settings {
            delay_seconds: 0,
            sync: "off",
            hot_bytes: 1 << 28,
            segment_bytes: 1 << 28,
            block_bytes: 1 << 22,
            cores: 1,
            twin_block_bytes: self.settings.twin_block_bytes,
        };
        all.push(Scenario { settings: plain.clone(), ..self.clone() });
        let Settings { hot_bytes, segment_bytes, block_bytes, cores, .. } = self.settings.clone();
        all.push(Scenario { settings: Settings { hot_bytes, ..plain.clone() }, ..self.clone() });
        all.push(Scenario { settings: Settings { segment_bytes, hot_bytes, ..plain.clone() }, ..self.clone() });
        all.push(Scenario { settings: Settings { block_bytes, ..plain.clone() }, ..self.clone() });
        all.push(Scenario { settings: Settings { cores, ..plain }, ..self.clone() });
        for column in 0..self.table.columns.len() {
            if self.table.columns.len() > 1 {
                let without = |values: &mut Vec<Value>, _: &mut Micros| drop(values.remove(column));
                all.push(Scenario { table: self.table.without(column), ..self.with_rows(&without) });
            }
            all.push(self.with_rows(&|values, _| values[column] = Value::Null));
        }
        all.push(self.with_rows(&|_, time| *time -= time.rem_euclid(MICROS_PER_SECOND)));
        all.push(self.with_rows(&|_, time| *time -= time.rem_euclid(60 * MICROS_PER_SECOND)));
        all.retain(|s| s != self);
        all
    }

    fn with_rows(&self, change: &dyn Fn(&mut Vec<Value>, &mut Micros)) -> Scenario {
        let mut scenario = self.clone();
        for step in &mut scenario.steps {
            let Step::Push { lines, .. } = step else { continue };
            for line in lines {
                if let Line::Row { time, values } = line {
                    change(values, time);
                }
            }
        }
        scenario
    }

    /// The scenario as a file for `tests/slt`, with what failed.
    pub fn reproduction(&self, seed: u64, failure: &Failure, limits: Option<usize>) -> String {
        let mut text = format!("# Found by the oracle in LOGWEIR_SEED={seed}: {:?} does not hold.\n", failure.property);
        let mut put = |what: String| writeln!(text, "{what}").expect("a String takes all");
        failure.text.lines().for_each(|line| put(format!("#     {line}")));
        put(String::new());
        limits.into_iter().for_each(|n| put(format!(".lower-limits {n}\n")));
        put(".push s.log\n".into());
        put(format!("statement ok\n{}\n", self.create_stream(STREAM, "$LOGS/s.log", self.settings.block_bytes)));
        if let Some(block_bytes) = self.settings.twin_block_bytes {
            put(format!("statement ok\n{}\n", self.create_stream(TWIN, "$LOGS/s.log", block_bytes)));
        }
        self.create_reference().into_iter().for_each(|sql| put(format!("statement ok\n{sql}\n")));
        for step in &self.steps {
            match step {
                Step::Push { lines, .. } => {
                    let lines: String = lines.iter().map(|line| self.table.text(line) + "\n").collect();
                    put(format!(".push s.log\n{lines}"));
                }
                Step::Create(view) => {
                    let live = self.create_view("CREATE", &format!("v{view}"), *view, &self.live(*view));
                    put(format!("statement ok\n{live}\n"));
                    if let Some(twin) = self.twin(*view) {
                        let twin = self.create_view("CREATE", &format!("u{view}"), *view, &twin);
                        put(format!("statement ok\n{twin}\n"));
                    }
                }
                Step::Replace(view) => {
                    let live = self.create_view("CREATE OR REPLACE", &format!("v{view}"), *view, &self.live(*view));
                    put(format!("statement ok\n{live}\n"));
                }
                Step::Subscribe(view) => put(format!("# Somebody subscribes to v{view}: see the seed.\n")),
                Step::Check(_) => {}
                Step::Restart => put(".restart\n".into()),
                Step::Archive => put(".archive\n".into()),
                Step::Clock(now) => put(format!(".clock {}\n", rfc3339(*now))),
            }
        }
        if let (Some((got, wanted)), Some(view)) = (&failure.queries, failure.view) {
            let names = self.views[view].columns();
            let rounded = names.iter().map(|c| match c.starts_with(['f', 'p']) {
                true => format!("round({c}, 6) AS {c}"),
                false => c.clone(),
            });
            let (rounded, names) = (rounded.collect::<Vec<_>>().join(", "), names.join(", "));
            // EXCEPT looks at rows once, however often they come.
            let counted = |sql: &str| {
                format!("SELECT {names}, count(*) AS n FROM (SELECT {rounded} FROM ({sql}) AS x) AS y GROUP BY {names}")
            };
            for (one, other) in [(got, wanted), (wanted, got)] {
                let both = format!("{}\nEXCEPT\n{}", counted(one), counted(other));
                put(format!("query I\nSELECT count(*) FROM (\n{both}\n) AS difference\n----\n0\n"));
            }
        }
        text
    }
}

/// Lines in random portions, with views made in between, subscriptions and restarts.
fn steps(random: &mut StdRng, table: &Table, views: &[Query]) -> Vec<Step> {
    let mut steps = Vec::new();
    let spacing = *pick(random, &[1_000, 100_000, MICROS_PER_SECOND, 30 * MICROS_PER_SECOND]);
    let pace = Pace {
        disorder: *pick(random, &[0, 2 * MICROS_PER_SECOND, 60 * MICROS_PER_SECOND]),
        grain: *pick(random, &[1, 1, MICROS_PER_SECOND / 2, MICROS_PER_SECOND]),
    };
    // Some long ones of many small pushes, so that runs pile up and are merged.
    let (pushes, most) = *pick(random, &[(3, 120), (6, 40), (12, 15), (30, 4)]);
    let (restarts, archives) = (chance(random, 2), chance(random, 2));
    let mut time = START + random.random_range(0..100_000) * MICROS_PER_SECOND;
    let mut made = 0;
    let mut last: Option<Line> = None;
    for _ in 0..pushes {
        let upto = if chance(random, 2) { random.random_range(made..=views.len()) } else { made };
        steps.extend((made..upto).map(Step::Create));
        made = upto;
        if chance(random, 3) {
            steps.push(Step::Clock(time + *pick(random, &[0, 1, 30, 4000]) * MICROS_PER_SECOND));
        }
        let mut lines = Vec::new();
        for _ in 0..random.random_range(0..=most) {
            time += random.random_range(0..=2 * spacing);
            let line = match random.random_range(0..60) {
                0 => table.malformed(random),
                1 if last.is_some() => last.clone().expect("just looked"),
                _ => table.row(random, time, &pace),
            };
            last = Some(line.clone());
            lines.push(line);
        }
        steps.push(Step::Push { lines, torn: chance(random, 6), flush: !chance(random, 4) });
        match random.random_range(0..12) {
            0 if restarts => steps.push(Step::Restart),
            1 if made > 0 => {
                let view = random.random_range(0..made);
                // What other views read cannot be replaced.
                if views.iter().all(|v| v.reads() != Some(view)) {
                    steps.push(Step::Replace(view));
                }
            }
            2 | 3 if made > 0 => steps.push(Step::Check(random.random_range(0..made))),
            6 | 7 if archives => steps.push(Step::Archive),
            4..6 if made > 0 => steps.push(Step::Subscribe(random.random_range(0..made))),
            _ => {}
        }
    }
    if restarts {
        steps.push(Step::Restart);
    }
    steps.extend((made..views.len()).map(Step::Create));
    steps
}
